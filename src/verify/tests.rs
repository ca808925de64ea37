//! Tests of the decision: every verdict, their order, the rules of target and environment, and the boundaries.

use std::collections::BTreeSet;

use super::*;
use crate::domain::access::{Access, Scope};
use crate::domain::ids::{KeyId, PartnerId, Prefix, ProjectId, RealmId, ScopeName, Tag};
use crate::domain::key::{Digest, Key, Level, Revocation, Secret};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Environment, Realm};
use crate::mirror::{Index, PreparedRealm};
use crate::store::KeyRow;

const NOW: Timestamp = Timestamp::from_micros(1_900_000_000_000_000);
const MILLISECOND: i64 = 1_000;

fn realm_id(id: &str) -> RealmId {
    RealmId::parse(id).unwrap()
}

fn partner_id(id: &str) -> PartnerId {
    PartnerId::parse(id).unwrap()
}

fn environment(name: &str, tag: &str) -> Environment {
    Environment {
        name: EnvironmentName::parse(name).unwrap(),
        tag: Tag::parse(tag).unwrap(),
    }
}

fn realm(id: &str, prefix: &str) -> Realm {
    let scope_name = |name: &str| ScopeName::parse(name).unwrap();
    let scope = |name: &str, implies: &[&str]| Scope {
        name: scope_name(name),
        implies: implies.iter().map(|name| scope_name(name)).collect(),
        description: String::new(),
        replaces: None,
    };
    Realm {
        id: realm_id(id),
        prefix: Prefix::parse(prefix).unwrap(),
        environments: vec![
            environment("production", "live"),
            environment("staging", "test"),
        ],
        scopes: vec![
            scope("read", &[]),
            scope("write", &["read"]),
            scope("billing", &[]),
        ],
        ..Realm::built_in()
    }
}

/// The realms `demo` and `other`. In `demo` the partner `acme` has the projects `one` and `two`, the partner `umbrella` has
/// `three`, and the partner `gone` is suspended.
struct World {
    index: Index,
    peppers: Peppers,
}

/// The values of a question, of which each test changes some.
struct TestQuestion {
    plain_key: String,
    realm: &'static str,
    environment: &'static str,
    target: Target<'static>,
    projects: &'static [&'static str],
    partner: &'static str,
    scopes: &'static [&'static str],
    any_scopes: &'static [&'static str],
    client: Option<&'static str>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let index = Index::default();
        index.put_realm(PreparedRealm::new(realm("demo", "demo")));
        index.put_realm(PreparedRealm::new(realm("other", "othr")));
        for (id, suspended) in [("acme", false), ("umbrella", false), ("gone", true)] {
            for realm in ["demo", "other"] {
                index.put_partner(&Partner {
                    realm: realm_id(realm),
                    id: partner_id(id),
                    display_name: String::new(),
                    suspended,
                });
            }
        }
        for (id, partner) in [("one", "acme"), ("two", "acme"), ("three", "umbrella")] {
            index.put_project(&Project {
                realm: realm_id("demo"),
                id: ProjectId::parse(id).unwrap(),
                partner: partner_id(partner),
                display_name: String::new(),
            });
        }
        Self {
            index,
            peppers: Peppers::for_test(1),
        }
    }

    /// Adds a key with this secret, and returns its API key.
    fn add(&self, mut key: Key, secret: u8) -> String {
        let secret = SecretBytes::new([secret; 32]);
        key.secrets[0].digest = self.peppers.digest(1, key.id, &secret).unwrap();
        let plain_key = plain_key_of(&key, &secret);
        self.put(&key);
        plain_key
    }

    /// Puts a key into the index as the feed puts its row.
    fn put(&self, key: &Key) {
        let row = KeyRow::from(key);
        self.index.put_key(row.id, row.facts());
    }

    fn ask<T>(
        &self,
        asked: &TestQuestion,
        read: impl FnOnce(&Decision<'_>, &View<'_>) -> T,
    ) -> Result<T, VerifyError> {
        let view = self.index.view();
        let realm = view.realm(asked.realm).unwrap();
        let set = |names: &[&str]| {
            let mut set = ScopeSet::default();
            for name in names {
                set.insert(realm.hierarchy.index_of(name).unwrap());
            }
            set
        };
        let question = Question {
            realm,
            environment: &realm
                .definition
                .environment(asked.environment)
                .unwrap()
                .name,
            target: asked.target,
            projects: asked.projects,
            partner: asked.partner,
            scopes: set(asked.scopes),
            any_scopes: set(asked.any_scopes),
            client: asked.client.map(|client| client.parse().unwrap()),
        };
        decide(
            &asked.plain_key,
            &question,
            &view,
            &self.peppers,
            Moment::at(asked.now),
        )
        .map(|decision| read(&decision, &view))
    }

    fn verdict(&self, asked: &TestQuestion) -> Verdict {
        self.ask(asked, |decision, _| {
            let proven = decision.verdict > Verdict::Unknown;
            assert_eq!(
                decision.proven.is_some(),
                proven,
                "the decision contains a key if and only if the key was proven"
            );
            decision.verdict
        })
        .unwrap()
    }
}

fn plain_key_of(key: &Key, secret: &SecretBytes) -> String {
    let (prefix, tag) = match (key.realm.as_str(), key.environment.as_str()) {
        ("demo", "production") => ("demo", "live"),
        ("demo", _) => ("demo", "test"),
        _ => ("othr", "live"),
    };
    let (prefix, tag) = (Prefix::parse(prefix).unwrap(), Tag::parse(tag).unwrap());
    PlainKey::new(&prefix, &tag, key.id, secret)
        .expose()
        .to_owned()
}

/// A partner key of `acme` that holds `write`.
fn partner_key() -> Key {
    let mut key = crate::domain::key::tests::sample();
    key.access = Access::Scopes(BTreeSet::from([ScopeName::parse("write").unwrap()]));
    key
}

fn project_key(project: &str) -> Key {
    Key {
        level: Level::Project(ProjectId::parse(project).unwrap()),
        ..partner_key()
    }
}

fn ask(plain_key: &str) -> TestQuestion {
    TestQuestion {
        plain_key: plain_key.to_owned(),
        realm: "demo",
        environment: "production",
        target: Target::Partner,
        projects: &[],
        partner: "",
        scopes: &[],
        any_scopes: &[],
        client: None,
        now: NOW,
    }
}

/// Removes one reason against the key.
type Fix = fn(&mut Key, &mut TestQuestion);

#[test]
fn the_first_reason_that_holds_is_the_verdict() {
    let world = World::new();
    // At first every objection to this key holds. Each step removes the first one.
    let mut key = Key {
        partner: partner_id("gone"),
        level: Level::Project(ProjectId::parse("one").unwrap()),
        revocation: Some(Revocation {
            at: NOW,
            reason: String::new(),
        }),
        disabled: true,
        expires_at: Expiry::At(NOW),
        allowed_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
        ..partner_key()
    };
    let mut question = TestQuestion {
        environment: "staging",
        partner: "umbrella",
        scopes: &["billing"],
        client: Some("198.51.100.1"),
        ..ask("")
    };
    let steps: [(Verdict, Fix); 11] = [
        (Verdict::Revoked, |key, _| key.revocation = None),
        (Verdict::Disabled, |key, _| key.disabled = false),
        (Verdict::Expired, |key, _| key.expires_at = Expiry::Never),
        (Verdict::EnvironmentMismatch, |_, asked| {
            asked.environment = "production";
        }),
        (Verdict::PartnerMismatch, |_, asked| asked.partner = "gone"),
        (Verdict::PartnerSuspended, |key, asked| {
            key.partner = partner_id("acme");
            asked.partner = "acme";
        }),
        (Verdict::ProjectMismatch, |_, asked| {
            asked.target = Target::NoRoute;
        }),
        (Verdict::AddressDenied, |_, asked| {
            asked.client = Some("192.0.2.1");
        }),
        (Verdict::ScopeMissing, |_, asked| asked.scopes = &["read"]),
        (Verdict::NoRoute, |_, asked| {
            asked.target = Target::Project("one");
        }),
        (Verdict::Allowed, |_, _| ()),
    ];
    for (verdict, fix) in steps {
        // Removed first, because the index never undoes a revocation.
        world.index.remove_key(key.id);
        question.plain_key = world.add(key.clone(), 1);
        assert_eq!(world.verdict(&question), verdict);
        fix(&mut key, &mut question);
    }
}

#[test]
fn a_string_that_cannot_be_a_key_is_malformed() {
    let world = World::new();
    let right = world.add(partner_key(), 1);
    let (head, check) = right.split_at(right.len() - 6);
    let changed = format!("{}x{check}", &head[..head.len() - 1]);
    for plain_key in [
        "",
        &"a".repeat(513),
        "née",
        "a\0b",
        "a b",
        "a,b",
        &format!(" {right}"),
        &format!("{right}\n"),
        &format!("{right},{right}"),
        "demo_",
        "demo_live_",
        "othr_live_short",
        &changed,
        &right.to_uppercase().replacen("DEMO", "demo", 1),
    ] {
        assert_eq!(
            world.verdict(&ask(plain_key)),
            Verdict::Malformed,
            "{plain_key:?}"
        );
    }
}

#[test]
fn a_string_that_proves_no_key_of_the_realm_is_unknown() {
    let world = World::new();
    let right = world.add(partner_key(), 1);
    let wrong_secret = plain_key_of(&partner_key(), &SecretBytes::new([2; 32]));
    let never = plain_key_of(
        &Key {
            id: KeyId::from_bytes([9; 16]),
            ..partner_key()
        },
        &SecretBytes::new([1; 32]),
    );
    // The id and the secret are right, but the tag is that of another environment, or the prefix that of another realm.
    let secret = SecretBytes::new([1; 32]);
    let other_tag = plain_key_of(
        &Key {
            environment: EnvironmentName::parse("staging").unwrap(),
            ..partner_key()
        },
        &secret,
    );
    let other_realm = plain_key_of(
        &Key {
            realm: realm_id("other"),
            ..partner_key()
        },
        &secret,
    );
    for plain_key in [
        &wrong_secret,
        &never,
        &other_tag,
        &other_realm,
        "sk_live_something_of_somebody_elses",
        "demo",
        "Demo_live_x",
        &"a".repeat(512),
    ] {
        assert_eq!(
            world.verdict(&ask(plain_key)),
            Verdict::Unknown,
            "{plain_key}"
        );
    }
    let in_another_realm = TestQuestion {
        realm: "other",
        ..ask(&right)
    };
    assert_eq!(
        world.verdict(&in_another_realm),
        Verdict::Unknown,
        "a key of another realm"
    );
    assert_eq!(world.verdict(&ask(&right)), Verdict::Allowed);
}

#[test]
fn a_key_belongs_to_one_environment() {
    let world = World::new();
    let staging = Key {
        environment: EnvironmentName::parse("staging").unwrap(),
        ..partner_key()
    };
    let plain_key = world.add(staging, 1);
    assert_eq!(
        world.verdict(&ask(&plain_key)),
        Verdict::EnvironmentMismatch
    );
    assert_eq!(
        world.verdict(&TestQuestion {
            environment: "staging",
            ..ask(&plain_key)
        }),
        Verdict::Allowed
    );
}

#[test]
fn only_a_key_of_the_right_level_reaches_a_target() {
    use Verdict::{Allowed, ProjectMismatch};
    let world = World::new();
    let partner = world.add(partner_key(), 1);
    let project = world.add(
        Key {
            id: KeyId::from_bytes([3; 16]),
            ..project_key("one")
        },
        1,
    );
    for (target, of_partner, of_project) in [
        (Target::Partner, Allowed, ProjectMismatch),
        (Target::Any, Allowed, Allowed),
        (Target::OwnProject, ProjectMismatch, Allowed),
        (Target::Project("one"), Allowed, Allowed),
        (Target::Project("two"), Allowed, ProjectMismatch),
        (Target::Project("three"), ProjectMismatch, ProjectMismatch),
        (Target::Project("none"), ProjectMismatch, ProjectMismatch),
        (Target::Project(""), ProjectMismatch, ProjectMismatch),
        (Target::Project("ONE"), ProjectMismatch, ProjectMismatch),
        (Target::Project("../one"), ProjectMismatch, ProjectMismatch),
    ] {
        assert_eq!(
            world.verdict(&TestQuestion {
                target,
                ..ask(&partner)
            }),
            of_partner,
            "partner key, {target:?}"
        );
        assert_eq!(
            world.verdict(&TestQuestion {
                target,
                ..ask(&project)
            }),
            of_project,
            "project key, {target:?}"
        );
    }
}

/// Seen red with `any` for `all` in `reaches`, and with `||` before it for `&&`.
#[test]
fn each_project_that_a_request_names_must_be_reached() {
    use Verdict::{Allowed, ProjectMismatch};
    let world = World::new();
    let partner = world.add(partner_key(), 1);
    let project = world.add(
        Key {
            id: KeyId::from_bytes([3; 16]),
            ..project_key("one")
        },
        1,
    );
    let rows: [(&'static [&'static str], _, _); 7] = [
        (&["one"], Allowed, Allowed),
        (&["one", "one"], Allowed, Allowed),
        (&["one", "two"], Allowed, ProjectMismatch),
        (&["two", "one"], Allowed, ProjectMismatch),
        (&["one", "three"], ProjectMismatch, ProjectMismatch),
        (&["three", "one"], ProjectMismatch, ProjectMismatch),
        (&["one", ""], ProjectMismatch, ProjectMismatch),
    ];
    for (projects, of_partner, of_project) in rows {
        for (plain_key, verdict) in [(&partner, of_partner), (&project, of_project)] {
            let asked = TestQuestion {
                target: Target::Any,
                projects,
                ..ask(plain_key)
            };
            assert_eq!(world.verdict(&asked), verdict, "{projects:?}");
        }
        let asked = TestQuestion {
            projects,
            ..ask(&project)
        };
        assert_eq!(world.verdict(&asked), ProjectMismatch, "partner-wide too");
    }
}

#[test]
fn a_named_partner_must_be_the_owner_byte_by_byte() {
    let world = World::new();
    let plain_key = world.add(partner_key(), 1);
    for (partner, verdict) in [
        ("", Verdict::Allowed),
        ("acme", Verdict::Allowed),
        ("Acme", Verdict::PartnerMismatch),
        ("acme ", Verdict::PartnerMismatch),
        ("umbrella", Verdict::PartnerMismatch),
        ("\0", Verdict::PartnerMismatch),
    ] {
        assert_eq!(
            world.verdict(&TestQuestion {
                partner,
                ..ask(&plain_key)
            }),
            verdict,
            "{partner:?}"
        );
    }
}

#[test]
fn an_address_outside_of_the_ranges_is_denied() {
    let world = World::new();
    let ranges = ["192.0.2.0/24", "2001:db8::/32"].map(|range| range.parse().unwrap());
    let plain_key = world.add(
        Key {
            allowed_cidrs: ranges.to_vec(),
            ..partner_key()
        },
        1,
    );
    for (client, verdict) in [
        (None, Verdict::AddressDenied),
        (Some("192.0.2.0"), Verdict::Allowed),
        (Some("192.0.2.255"), Verdict::Allowed),
        (Some("192.0.3.0"), Verdict::AddressDenied),
        (Some("::ffff:192.0.2.9"), Verdict::Allowed),
        (Some("::ffff:192.0.3.9"), Verdict::AddressDenied),
        (Some("2001:db8::1"), Verdict::Allowed),
        (Some("2001:db9::1"), Verdict::AddressDenied),
        (Some("::192.0.2.9"), Verdict::AddressDenied),
    ] {
        assert_eq!(
            world.verdict(&TestQuestion {
                client,
                ..ask(&plain_key)
            }),
            verdict,
            "{client:?}"
        );
    }
    let anywhere = world.add(
        Key {
            id: KeyId::from_bytes([4; 16]),
            ..partner_key()
        },
        1,
    );
    assert_eq!(
        world.verdict(&ask(&anywhere)),
        Verdict::Allowed,
        "a key without ranges needs no address"
    );
}

#[test]
fn scopes_are_held_by_grant_by_implication_or_by_full_access() {
    let world = World::new();
    let holder = world.add(partner_key(), 1);
    let full = world.add(
        Key {
            id: KeyId::from_bytes([5; 16]),
            access: Access::Full,
            ..partner_key()
        },
        1,
    );
    let none = Access::Scopes(BTreeSet::new());
    let empty = world.add(
        Key {
            id: KeyId::from_bytes([6; 16]),
            access: none,
            ..partner_key()
        },
        1,
    );
    let missing = |plain_key: &str, scopes, any_scopes| {
        let asked = TestQuestion {
            scopes,
            any_scopes,
            ..ask(plain_key)
        };
        world
            .ask(&asked, |decision, view| {
                let hierarchy = &view.realm("demo").unwrap().hierarchy;
                let names: Vec<_> = hierarchy
                    .names(decision.missing)
                    .map(ToString::to_string)
                    .collect();
                assert_eq!(decision.verdict == Verdict::Allowed, names.is_empty());
                names
            })
            .unwrap()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(missing(&holder, &["read", "write"], &[]), nothing);
    assert_eq!(missing(&holder, &["read", "billing"], &[]), ["billing"]);
    assert_eq!(missing(&holder, &[], &["billing", "read"]), nothing);
    assert_eq!(missing(&holder, &[], &["billing"]), ["billing"]);
    assert_eq!(missing(&holder, &["billing"], &["read"]), ["billing"]);
    assert_eq!(
        missing(&full, &["read", "write", "billing"], &["billing"]),
        nothing
    );
    assert_eq!(missing(&empty, &[], &[]), nothing);
    assert_eq!(
        missing(&empty, &["read"], &["write", "billing"]),
        ["billing", "read", "write"]
    );
}

#[test]
fn the_expiry_is_exact_for_the_key_and_for_each_of_its_secrets() {
    let world = World::new();
    let at = |offset| Timestamp::from_micros(NOW.as_micros() + offset);
    let end = at(0);
    let plain_key = world.add(
        Key {
            expires_at: Expiry::At(end),
            ..partner_key()
        },
        1,
    );
    for (offset, verdict) in [
        (-MILLISECOND, Verdict::Allowed),
        (-1, Verdict::Allowed),
        (0, Verdict::Expired),
        (MILLISECOND, Verdict::Expired),
    ] {
        assert_eq!(
            world.verdict(&TestQuestion {
                now: at(offset),
                ..ask(&plain_key)
            }),
            verdict,
            "{offset} µs"
        );
    }

    // During the overlap of a rotation the old secret has its own expiry.
    let mut key = Key {
        id: KeyId::from_bytes([7; 16]),
        ..partner_key()
    };
    let (old, new) = (SecretBytes::new([1; 32]), SecretBytes::new([2; 32]));
    let digest = |secret| world.peppers.digest(1, key.id, secret).unwrap();
    let digests = [digest(&old), digest(&new)];
    let secret = |digest, expires_at| Secret {
        digest,
        created_at: NOW,
        expires_at,
        imported: false,
        hint: String::new(),
        last_use: None,
    };
    key.secrets = vec![
        secret(digests[0], Expiry::At(end)),
        secret(digests[1], Expiry::Never),
    ];
    world.put(&key);
    for (offset, of_old) in [(-1, Verdict::Allowed), (0, Verdict::Expired)] {
        assert_eq!(
            world.verdict(&TestQuestion {
                now: at(offset),
                ..ask(&plain_key_of(&key, &old))
            }),
            of_old
        );
        assert_eq!(
            world.verdict(&TestQuestion {
                now: at(offset),
                ..ask(&plain_key_of(&key, &new))
            }),
            Verdict::Allowed
        );
    }
}

#[test]
fn an_unusable_key_is_an_error_and_not_a_denial() {
    let world = World::new();
    let corrupt = Key {
        id: KeyId::from_bytes([8; 16]),
        ..partner_key()
    };
    let plain_key = plain_key_of(&corrupt, &SecretBytes::new([1; 32]));
    world.index.put_key(
        corrupt.id,
        Err(crate::store::Error::Corrupt("a test".to_owned())),
    );
    assert_eq!(
        world.ask(&ask(&plain_key), |_, _| ()),
        Err(VerifyError::Corrupt)
    );

    let mut later = partner_key();
    later.secrets[0].digest = Digest {
        pepper: 2,
        mac: [0; 32],
    };
    world.put(&later);
    let plain_key = plain_key_of(&later, &SecretBytes::new([1; 32]));
    assert_eq!(
        world.ask(&ask(&plain_key), |_, _| ()),
        Err(VerifyError::PepperMissing)
    );
}

#[test]
fn an_api_key_with_the_old_prefix_of_its_realm_is_unknown() {
    let world = World::new();
    let plain_key = world.add(partner_key(), 1);
    world
        .index
        .put_realm(PreparedRealm::new(realm("demo", "renamed")));
    assert_eq!(world.verdict(&ask(&plain_key)), Verdict::Unknown);
    // It is unknown also in a realm that takes the prefix over.
    world
        .index
        .put_realm(PreparedRealm::new(realm("other", "demo")));
    let asked = TestQuestion {
        realm: "other",
        ..ask(&plain_key)
    };
    assert_eq!(world.verdict(&asked), Verdict::Unknown);
}

#[test]
fn a_secret_whose_pepper_is_missing_does_not_affect_another_secret() {
    let world = World::new();
    let mut key = partner_key();
    let (old, new) = (SecretBytes::new([1; 32]), SecretBytes::new([2; 32]));
    let secret = |digest, end| Secret {
        digest,
        created_at: NOW,
        expires_at: Expiry::At(Timestamp::from_micros(NOW.as_micros() + end)),
        imported: false,
        hint: String::new(),
        last_use: None,
    };
    let missing_pepper = Digest {
        pepper: 2,
        mac: [0; 32],
    };
    key.expires_at = Expiry::At(Timestamp::from_micros(NOW.as_micros() + 2));
    key.secrets = vec![
        secret(missing_pepper, 3),
        secret(world.peppers.digest(1, key.id, &new).unwrap(), 1),
    ];
    world.put(&key);
    let until = world.ask(&ask(&plain_key_of(&key, &new)), |decision, _| {
        (decision.verdict, decision.expires_at())
    });
    let end = Expiry::At(Timestamp::from_micros(NOW.as_micros() + 1));
    assert_eq!(
        until,
        Ok((Verdict::Allowed, end)),
        "the earlier expiry counts"
    );
    assert_eq!(
        world.ask(&ask(&plain_key_of(&key, &old)), |_, _| ()),
        Err(VerifyError::PepperMissing),
        "the unreadable secret could be this one"
    );
}

/// An imported API key is found until its key loses the secret, also while the key's row cannot be read.
///
/// Seen red with digests of an unreadable key removed, with old digests not removed when the key is put again, and with any
/// secret of the key accepted in `prove_imported`.
#[test]
fn an_imported_api_key_is_unknown_once_its_key_has_another_secret() {
    const IMPORTED: [&str; 2] = [
        "TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU",
        "TtgGcQFq.hLx2wB8mQzR5tVn9Kc4YpJ6sDfG3eA7u",
    ];
    let world = World::new();
    let [imported, other] = IMPORTED.map(|plain_key| {
        let mut key = partner_key();
        let digest = world.peppers.digest_import(1, &ImportHash::of(plain_key));
        key.secrets[0].digest = digest.unwrap();
        key.secrets[0].imported = true;
        key
    });
    let verdict = |plain_key| world.verdict(&ask(plain_key));
    let has_imports = || world.index.view().has_imports();

    world.put(&imported);
    assert_eq!(verdict(IMPORTED[0]), Verdict::Allowed);
    let own = world.add(partner_key(), 1);
    assert_eq!(verdict(IMPORTED[0]), Verdict::Unknown);
    assert_eq!(verdict(&own), Verdict::Allowed);
    assert!(!has_imports(), "the digest is removed");

    world.put(&imported);
    world.index.remove_key(imported.id);
    assert_eq!(verdict(IMPORTED[0]), Verdict::Unknown);
    assert!(!has_imports());

    // The index cannot see that the key loses the secret while the row cannot be read.
    for next in [&partner_key(), &other] {
        world.put(&imported);
        let corrupt = crate::store::Error::Corrupt("a test".to_owned());
        world.index.put_key(imported.id, Err(corrupt));
        let undecided = world.ask(&ask(IMPORTED[0]), |_, _| ());
        assert_eq!(undecided, Err(VerifyError::Corrupt));
        world.put(next);
        assert_eq!(verdict(IMPORTED[0]), Verdict::Unknown);
    }
    assert_eq!(verdict(IMPORTED[1]), Verdict::Allowed);
}

/// Seen red with `was_revoked` always false in `Index::put_key`: the key is then allowed again, or there is no decision.
#[test]
fn a_revoked_key_stays_revoked_whatever_the_store_contains_later() {
    let world = World::new();
    let mut key = partner_key();
    key.revocation = Some(Revocation {
        at: NOW,
        reason: String::new(),
    });
    let plain_key = world.add(key.clone(), 1);
    assert_eq!(world.verdict(&ask(&plain_key)), Verdict::Revoked);

    key.revocation = None;
    assert_eq!(world.add(key.clone(), 1), plain_key);
    assert_eq!(world.verdict(&ask(&plain_key)), Verdict::Revoked);

    let corrupt = crate::store::Error::Corrupt("a test".to_owned());
    world.index.put_key(key.id, Err(corrupt));
    assert_eq!(world.verdict(&ask(&plain_key)), Verdict::Revoked);
}
