//! Tests of the facts of keys, as they are in an index.

use std::collections::BTreeSet;
use std::ops::Range;

use super::index::Index;
use super::key_facts::{Entry, PackedEntry};
use super::realm::PreparedRealm;
use super::shared_facts::Interner;
use crate::domain::access::{Access, Scope};
use crate::domain::ids::{KeyId, ScopeName};
use crate::domain::key::tests::sample;
use crate::domain::key::{Key, LevelKind, Revocation, Secret};
use crate::domain::partner::Partner;
use crate::domain::realm::{Environment, Realm};
use crate::domain::time::{Expiry, Timestamp};
use crate::store::KeyRow;

/// An index with the realm and the partner of `sample`.
fn demo() -> Index {
    let sample = sample();
    let index = Index::default();
    let built_in = Realm::built_in();
    index.put_realm(PreparedRealm::new(Realm {
        id: sample.realm,
        environments: vec![Environment {
            name: sample.environment,
            ..built_in.environments[0].clone()
        }],
        scopes: vec![Scope {
            name: ScopeName::parse("read").unwrap(),
            implies: BTreeSet::new(),
            description: String::new(),
            replaces: None,
        }],
        ..built_in
    }));
    put_acme(&index);
    index
}

/// Puts the partner of `sample`.
fn put_acme(index: &Index) {
    index.put_partner(&Partner {
        realm: sample().realm,
        id: sample().partner,
        display_name: String::new(),
        suspended: false,
    });
}

/// Puts a key with the id of this number, and returns the id.
fn put(index: &Index, key: &Key, number: u8) -> KeyId {
    let id = KeyId::from_bytes([number; 16]);
    let row = KeyRow::from(&Key { id, ..key.clone() });
    index.put_key(id, row.facts());
    id
}

/// The aim is 200 bytes a key: these, the times, name and labels, and 19 bytes of the map. Allocators round up to 80 bytes, and
/// from 81 bytes to 96.
#[test]
fn an_entry_of_the_map_takes_80_bytes() {
    assert_eq!(size_of::<(KeyId, PackedEntry)>(), 80);
}

/// Seen red with the secret's expiry taken from the key, with the length of the expiry always 0, and with `imported` always false.
#[test]
fn the_facts_of_a_key_are_as_they_were_put() {
    let (never, at) = (Expiry::Never, |micros| {
        Expiry::At(Timestamp::from_micros(micros))
    });
    let cidrs = ["10.0.0.0/8".parse().unwrap()];
    for (expires_at, of_secret) in [
        (never, never),
        (at(7), at(7)),
        (at(7), at(5)),
        (never, at(0)),
        (at(-1), never),
    ] {
        for older in [0, 2] {
            for allowed_cidrs in [&[][..], &cidrs] {
                for flags in 0..16 {
                    let flag = |bit: u32| flags & 1 << bit != 0;
                    let mut key = sample();
                    key.name = "a name".to_owned();
                    key.labels = [("a".to_owned(), "b".to_owned())].into();
                    key.expires_at = expires_at;
                    key.allowed_cidrs = allowed_cidrs.to_vec();
                    key.disabled = flag(0);
                    key.revocation = flag(1).then(|| Revocation {
                        at: Timestamp::from_micros(3),
                        reason: String::new(),
                    });
                    if flag(2) {
                        key.access = Access::Full;
                    }
                    let secret = &mut key.secrets[0];
                    secret.expires_at = of_secret;
                    secret.imported = flag(3);
                    secret.digest.pepper = 7;
                    secret.created_at = Timestamp::from_micros(9);
                    let older = (0..older).map(|number| Secret {
                        created_at: Timestamp::from_micros(number),
                        expires_at: at(number),
                        imported: number == 1,
                        ..sample().secrets[0].clone()
                    });
                    key.secrets.splice(..0, older);
                    assert_is_read_as_put(&key);
                }
            }
        }
    }
}

fn assert_is_read_as_put(key: &Key) {
    let index = demo();
    let id = put(&index, key, 1);
    let view = index.view();
    let Some(Entry::Key(facts)) = view.key(id) else {
        panic!("the key is readable");
    };
    assert_eq!(facts.id(), id);
    assert_eq!(*facts.realm(), key.realm);
    assert_eq!(facts.partner().id, key.partner);
    assert_eq!(*facts.environment(), key.environment);
    assert_eq!((facts.project(), facts.level()), (None, LevelKind::Partner));
    assert_eq!(facts.expires_at(), key.expires_at);
    assert_eq!(facts.is_disabled(), key.disabled);
    assert_eq!(facts.is_revoked(), key.revocation.is_some());
    assert_eq!(facts.has_full_access(), key.access.is_full());
    assert_eq!(facts.allowed_cidrs(), key.allowed_cidrs);
    assert_eq!(facts.name_and_labels().name(), key.name);
    let labels = key.labels.iter().map(|(a, b)| (a.as_str(), b.as_str()));
    assert!(facts.name_and_labels().labels().eq(labels));
    let hierarchy = &view.realm("demo").unwrap().hierarchy;
    assert!(hierarchy.names(facts.effective(hierarchy)).count() == 1);
    let secrets: Vec<_> = facts
        .secrets()
        .map(|secret| {
            (
                secret.digest,
                secret.created_at,
                secret.expires_at,
                secret.imported,
            )
        })
        .collect();
    let expected: Vec<_> = key
        .secrets
        .iter()
        .map(|secret| {
            (
                secret.digest,
                secret.created_at,
                secret.expires_at,
                secret.imported,
            )
        })
        .collect();
    assert_eq!(secrets, expected);
}

#[test]
fn keys_with_the_same_facts_share_them() {
    let index = demo();
    for number in 0..10 {
        put(&index, &sample(), number);
    }
    assert_eq!(index.interner().len(), 1);
    let mut other = sample();
    other.disabled = true;
    put(&index, &other, 10);
    assert_eq!(index.interner().len(), 2);
}

/// Seen red with `ById` compared by the partner's id: a new partner's keys would have the old one's facts.
#[test]
fn a_partner_that_is_created_again_shares_nothing_with_the_old_one() {
    let index = demo();
    put(&index, &sample(), 0);
    index.remove_partner(&sample().realm, &sample().partner);
    put_acme(&index);
    put(&index, &sample(), 1);
    assert_eq!(index.interner().len(), 2);
}

/// Seen red without the sweep.
#[test]
fn facts_are_dropped_when_no_key_has_them_any_more() {
    let index = demo();
    let turnover = |index: &Index, versions: Range<u32>| {
        for pepper in versions {
            let mut key = sample();
            key.secrets[0].digest.pepper = pepper;
            let id = put(index, &key, 0);
            // Every second key is deleted, the others are replaced.
            if pepper % 2 == 0 {
                index.remove_key(id);
            }
        }
    };
    turnover(&index, 0..20_000);
    assert!(index.interner().len() <= Interner::SMALL, "with one key");
}
