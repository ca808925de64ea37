//! What each screen looks like. `UPDATE_SNAPSHOTS=1 cargo test --lib screens` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost_types::Timestamp;

use super::{WIDTHS, assert_fits, at, now, screen};
use crate::cli::event_line::{self, Names};
use crate::cli::explain;
use crate::cli::keys::{columns, screen as key_screen, usage};
use crate::cli::listing::{Rest, ViewFlags};
use crate::cli::output::Screen;
use crate::cli::response::Total;
use crate::cli::usage::Range;
use crate::cli::{partner, project, realm, replicas};
use crate::pb::claviger::v1::{
    Check, CheckOutcome, Environment, Event, ExplainResponse, GetKeyUsageResponse,
    GetUsageResponse, Key, KeySecret, KeyState, KeyUsage, ListReplicasResponse, OwnerUsage,
    Partner, Project, Realm, Replica, ReplicaState, Scope, UsageBucket, Verdict, VerdictCount,
    VerifiedKey,
};

/// Compares a screen at every width with its file.
fn assert_looks(name: &str, screen_of: impl Fn(Screen) -> String) {
    let mut shown = String::new();
    for columns in WIDTHS {
        let lines = assert_fits(&screen_of(screen(columns)), columns);
        let _ = writeln!(shown, "=== {columns} columns\n{}\n", lines.join("\n"));
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/screens/snapshots/{name}.txt"));
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shown == expected,
        "{}:\n{expected}\nbut it is:\n{shown}",
        path.display()
    );
}

fn ago(seconds: i64) -> Timestamp {
    later(-seconds)
}

fn later(seconds: i64) -> Timestamp {
    Timestamp {
        seconds: now().seconds + seconds,
        nanos: 0,
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn listed(number: usize, name: &str, [partner, project]: [&str; 2], hint: &str) -> Key {
    Key {
        id: format!("01a214d0-7407-7b5d-a9dc-{number:012x}"),
        realm: "demo".to_owned(),
        name: name.to_owned(),
        partner: partner.to_owned(),
        project: project.to_owned(),
        hint: hint.to_owned(),
        state: KeyState::Active.into(),
        ..Key::default()
    }
}

fn keys() -> Vec<Key> {
    let mut keys = vec![
        listed(1, "dashboard", ["acme", ""], "demo_live_…a5Ai"),
        listed(2, "svc-42", ["initech", ""], "demo_test_…PAeL"),
        listed(
            3,
            "nightly-export-to-warehouse-eu-w1",
            ["acme", ""],
            "demo_live_…DNZG",
        ),
        listed(
            4,
            "Łódź dashboard 東京タワー",
            ["acme", "web"],
            "demo_test_…XA8I",
        ),
        listed(5, "svc-5", ["globex", ""], "demo_live_…vvNZ"),
        listed(6, "etl", ["globex", ""], "demo_live_…3bHr"),
        listed(
            7,
            "umbrella",
            ["umbrella-corporation-europe", ""],
            "demo_live_…f8vV",
        ),
        listed(8, "", ["acme", ""], "hmac:0a0b0c0d…"),
    ];
    keys[0].expire_time = Some(later(1_000 * DAY));
    keys[0].last_used_time = Some(ago(12));
    keys[2].expire_time = Some(later(90 * DAY));
    keys[2].last_used_time = Some(ago(2 * HOUR));
    keys[3].expire_time = Some(later(6 * DAY));
    keys[4].state = KeyState::Revoked.into();
    keys[4].expire_time = Some(later(6 * DAY));
    keys[4].last_used_time = Some(ago(3 * DAY));
    keys[5].state = KeyState::Disabled.into();
    keys[5].last_used_time = Some(ago(2 * MINUTE));
    keys[6].expire_time = Some(later(400 * DAY));
    keys[7].state = KeyState::Expired.into();
    keys[7].expire_time = Some(ago(3 * DAY));
    keys
}

#[test]
fn keys_list() {
    let keys = keys();
    let all = ViewFlags::default();
    assert_looks("keys-list", |screen| {
        columns::listing(Some("demo")).text(&keys, &all, Some(screen), &Rest::default())
    });
    let more = "More follow. --all, or the next page:\n  claviger keys list --page-token t";
    assert_looks("keys-list-all-realms", |screen| {
        let rest = Rest {
            more: Some(more.to_owned()),
            ..Rest::default()
        };
        columns::listing(None).text(&keys[..3], &all, Some(screen), &rest)
    });
    assert_looks("keys-list-page", |screen| {
        let rest = Rest {
            more: Some(more.to_owned()),
            total: Some(Total {
                count: 1_557,
                is_more: false,
            }),
            context: Some("prod".to_owned()),
        };
        columns::listing(Some("demo")).text(&keys[..3], &all, Some(screen), &rest)
    });
}

/// A pipe gets every column, whole, and no colours.
#[test]
fn keys_list_for_a_pipe() {
    let text = columns::listing(Some("demo")).text(
        &keys()[..3],
        &ViewFlags::default(),
        None,
        &Rest::default(),
    );
    assert_eq!(
        text,
        "ID                                    NAME                               PARTNER  PROJECT  ENV  HINT             \
         STATE   EXPIRES               LAST USED\n\
         01a214d0-7407-7b5d-a9dc-000000000001  dashboard                          acme     -        -    demo_live_…a5Ai  \
         active  2029-08-21T22:26:02Z  2026-11-25T22:25:50Z\n\
         01a214d0-7407-7b5d-a9dc-000000000002  svc-42                             initech  -        -    demo_test_…PAeL  \
         active  never                 never\n\
         01a214d0-7407-7b5d-a9dc-000000000003  nightly-export-to-warehouse-eu-w1  acme     -        -    demo_live_…DNZG  \
         active  2027-02-23T22:26:02Z  2026-11-25T20:26:02Z"
    );
}

#[test]
fn keys_get() {
    let secret = |hint: &str, used| KeySecret {
        hint: hint.to_owned(),
        create_time: Some(ago(180)),
        last_used_time: used,
        ..KeySecret::default()
    };
    let mut old = secret("demo_live_…rH1r", Some(ago(12)));
    old.expire_time = Some(later(DAY - HOUR));
    let key = Key {
        name: "ci".to_owned(),
        environment: "production".to_owned(),
        scopes: vec!["write".to_owned()],
        labels: [("team", "data"), ("tier", "gold")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        create_time: Some(ago(180)),
        created_by: "01a214d0-7407-7b5d-a9dc-00000000000a".to_owned(),
        last_used_time: Some(ago(12)),
        secrets: vec![old, secret("demo_live_…plvF", None)],
        revision: Some(81),
        ..listed(9, "ci", ["acme", ""], "demo_live_…plvF")
    };
    let background = key_screen::Background {
        implied: vec!["read".to_owned()],
        issuer: Some(listed(
            10,
            "first operator",
            ["claviger", ""],
            "claviger_main_…WRWi",
        )),
        counts: counts(7_529, 41),
    };
    assert_looks("keys-get", |screen| {
        key_screen::shown(&key, &background, Some(screen))
    });

    let revoked = Key {
        state: KeyState::Revoked.into(),
        revoke_time: Some(ago(2 * DAY)),
        revoke_reason: "leaked in a public repository, see INC-4711".to_owned(),
        secrets: key.secrets[1..].to_vec(),
        ..key
    };
    let nothing = key_screen::Background::default();
    assert_looks("keys-get-revoked", |screen| {
        key_screen::shown(&revoked, &nothing, Some(screen))
    });
}

fn event(number: u64, time: &str, kind: &str, detail: &[(&str, &str)]) -> Event {
    Event {
        revision: number,
        time: Some(at(&format!("2026-11-25T{time}Z"))),
        kind: kind.to_owned(),
        realm: "demo".to_owned(),
        actor: "01a214d0-7407-7b5d-a9dc-00000000000a".to_owned(),
        peer: "127.0.0.1:1".to_owned(),
        detail: detail
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Event::default()
    }
}

#[test]
fn events() {
    let of_key = |event: Event, number: usize, partner: &str| Event {
        key_id: listed(number, "", ["", ""], "").id,
        partner: partner.to_owned(),
        ..event
    };
    let deleted = [("name", "svc-9"), ("hint", "demo_test_…wxXp")];
    let issued = [
        ("hint", "demo_live_…zQtM"),
        ("scopes", "read"),
        ("environment", "production"),
    ];
    let issued_5 = [
        ("name", "svc-3"),
        ("hint", "demo_test_…5UXp"),
        ("scopes", "read write"),
        ("expire_time", "2027-02-23T22:26:02Z"),
    ];
    let revoked = [
        (
            "reason",
            "leaked in a public repository, see INC-4711 and the ticket of the partner, who wrote at length",
        ),
        ("request_id", "x"),
    ];
    let rotated = [
        ("hint", "demo_live_…plvF"),
        ("old_hint", "demo_live_…rH1r"),
        ("old_expire_time", "2026-11-26T22:25:49Z"),
    ];
    let events = [
        Event {
            partner: "globex".to_owned(),
            ..event(
                9,
                "22:25:59",
                "partner.put",
                &[("suspended", "true"), ("suspension", "began")],
            )
        },
        of_key(event(8, "22:25:58", "key.deleted", &deleted), 1, "globex"),
        of_key(event(7, "22:25:50", "key.issued", &issued), 2, "acme"),
        of_key(event(6, "22:25:49", "key.revoked", &revoked), 3, "acme"),
        of_key(event(5, "22:25:48", "key.rotated", &rotated), 4, "acme"),
        of_key(
            event(4, "22:25:47", "key.disabled", &[]),
            5,
            "umbrella-corporation-europe",
        ),
        of_key(event(3, "22:25:46", "key.issued", &issued_5), 3, "acme"),
        event(
            2,
            "22:25:45",
            "realm.put",
            &[("changed", "scopes routes"), ("definition_sha256", "aa")],
        ),
        Event {
            actor: String::new(),
            ..event(1, "22:25:44", "realm.put", &[("created", "true")])
        },
    ];
    let mut names = Names::of(&events);
    names.add(listed(
        10,
        "first operator",
        ["claviger", ""],
        "claviger_main_…WRWi",
    ));
    let lines = event_line::lines(&events, &names, true, &now());
    assert_looks("events", |screen| {
        event_line::listing("demo").text(
            &lines,
            &ViewFlags::default(),
            Some(screen),
            &Rest::default(),
        )
    });
}

fn counts(allowed: u64, denied: u64) -> Vec<VerdictCount> {
    [(Verdict::Allowed, allowed), (Verdict::ScopeMissing, denied)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| VerdictCount {
            verdict: verdict.into(),
            count,
        })
        .collect()
}

#[test]
fn keys_usage() {
    let hours = [
        (22, 809, 0),
        (23, 672, 0),
        (24, 123, 0),
        (25, 281, 32),
        (26, 122, 0),
        (38, 1_163, 0),
        (44, 1_067, 0),
        (45, 145, 0),
        (46, 9, 3),
    ];
    let start = at("2026-11-24T00:00:00Z").seconds;
    let answer = GetKeyUsageResponse {
        totals: counts(7_529, 41),
        buckets: hours
            .iter()
            .map(|(hour, allowed, denied)| UsageBucket {
                start_time: Some(Timestamp {
                    seconds: start + hour * HOUR,
                    nanos: 0,
                }),
                counts: counts(*allowed, *denied),
            })
            .collect(),
        last_used_time: Some(ago(12)),
    };
    let range = Range::until_now(now().seconds - DAY, now().seconds);
    assert_looks("keys-usage", |screen| {
        usage::shown(&answer, "\"ci\" (acme, live …plvF)", range, Some(screen))
    });
    let week = Range::until_now(now().seconds - 7 * DAY, now().seconds);
    assert_looks("keys-usage-week", |screen| {
        usage::shown(&answer, "\"ci\" (acme, live …plvF)", week, Some(screen))
    });
}

#[test]
fn usage_of_keys() {
    let key = |name: &str, project: &str, hint: &str, number: u64, allowed, denied| KeyUsage {
        key_id: format!("01a214d0-7407-7b5d-a9dc-{number:012}"),
        name: name.to_owned(),
        realm: "demo".to_owned(),
        partner: "acme".to_owned(),
        project: project.to_owned(),
        environment: "production".to_owned(),
        hint: hint.to_owned(),
        counts: counts(allowed, denied),
    };
    let owner = |partner: &str, allowed, denied| OwnerUsage {
        partner: partner.to_owned(),
        project: String::new(),
        counts: counts(allowed, denied),
    };
    let mut keys = vec![
        key(
            "nightly-export-to-the-warehouse-eu",
            "",
            "demo_live_…plvF",
            1,
            7_529,
            41,
        ),
        key(
            "Łódź dashboard 東京タワー展望台",
            "web",
            "demo_test_…XA8I",
            2,
            12,
            1_204,
        ),
        key("ci", "", "demo_live_…DNZG", 3, 800, 0),
        key("ci", "", "demo_live_…DNZG", 4, 800, 0),
        KeyUsage {
            key_id: "01a214d0-7407-7b5d-a9dc-000000000005".to_owned(),
            counts: counts(3, 1),
            ..KeyUsage::default()
        },
    ];
    keys[1].counts.push(VerdictCount {
        verdict: Verdict::AddressDenied.into(),
        count: 77,
    });
    let mut answer = GetUsageResponse {
        owners: vec![
            owner("acme", 9_141, 1_323),
            owner("umbrella-corporation-of-europe-and-asia-north", 12, 3),
        ],
        more_owners: true,
        keys,
        more_keys: true,
        ..GetUsageResponse::default()
    };
    assert_looks("usage-keys", |screen| {
        let keys = crate::cli::usage::keys(&answer, Some(screen)).unwrap();
        let owners = crate::cli::usage::owners_denied(&answer, false, Some(screen)).unwrap();
        format!("{owners}\n\n{keys}")
    });
    answer.keys.truncate(4);
    answer.keys.drain(..2);
    answer.more_keys = false;
    assert_looks("usage-keys-allowed", |screen| {
        crate::cli::usage::keys(&answer, Some(screen)).unwrap()
    });
    let piped = crate::cli::usage::keys(&answer, None).unwrap();
    assert!(
        piped.starts_with("ID                                    NAME  PARTNER  PROJECT  ENV         HINT             PRESENTED  DENIED  WHY\n"),
        "{piped}"
    );
    assert!(
        piped.contains("demo_live_…DNZG        800  -       -"),
        "{piped}"
    );
}

#[test]
fn explain_denied() {
    let check = |name: &str, outcome: CheckOutcome, detail: &str| Check {
        name: name.to_owned(),
        outcome: outcome.into(),
        detail: detail.to_owned(),
    };
    let answer = ExplainResponse {
        verdict: Verdict::ProjectMismatch.into(),
        http_status: 403,
        checks: vec![
            check("form", CheckOutcome::Passed, ""),
            check(
                "secret",
                CheckOutcome::Passed,
                "the key exists, and its secret is correct",
            ),
            check(
                "project_mismatch",
                CheckOutcome::Failed,
                "the key is bound to the project pipeline, the request needs a partner key",
            ),
            check(
                "address_denied",
                CheckOutcome::Failed,
                "1.2.3.4 is in none of 10.0.0.0/8, 192.168.0.0/16, 172.16.0.0/12, 2001:db8::/32",
            ),
            check(
                "scope_missing",
                CheckOutcome::Failed,
                "the key has read, write; the request needs billing",
            ),
        ],
        decided_by: "project_mismatch".to_owned(),
        key: Some(VerifiedKey {
            id: listed(4, "", ["", ""], "").id,
            name: "pipeline".to_owned(),
            partner: "acme".to_owned(),
            project: "pipeline".to_owned(),
            ..VerifiedKey::default()
        }),
        missing_scopes: vec!["billing".to_owned()],
        ..ExplainResponse::default()
    };
    assert_looks("explain", |screen| {
        explain::shown(&answer, false, false, Some(screen))
    });
    assert_looks("explain-all", |screen| {
        explain::shown(&answer, true, true, Some(screen))
    });
    let piped = explain::shown(&answer, false, false, None);
    assert!(
        piped.starts_with("denied by \"project_mismatch\": VERDICT_PROJECT_MISMATCH, HTTP 403\n\n")
    );
    assert!(
        piped.contains("\nform              passed   -\n"),
        "{piped}"
    );
}

#[test]
fn realms_partners_projects_and_servers() {
    let environments = [
        ("production", "live"),
        ("staging", "test"),
        ("development", "dev"),
    ]
    .map(|(name, tag)| Environment {
        name: name.to_owned(),
        tag: tag.to_owned(),
    });
    let realm = |id: &str, environments: &[Environment]| Realm {
        id: id.to_owned(),
        prefix: id.to_owned(),
        environments: environments.to_vec(),
        scopes: vec![Scope::default(); 4],
        create_time: Some(ago(40 * DAY)),
        ..Realm::default()
    };
    let realms = [
        realm("claviger", &environments[..1]),
        realm("demo", &environments),
        realm("a-realm-with-a-very-long-id", &environments),
    ];
    let view = ViewFlags::default();
    assert_looks("realm-list", |screen| {
        realm::listing().text(&realms, &view, Some(screen), &Rest::default())
    });

    let partner = |id: &str, name: &str, suspended| Partner {
        id: id.to_owned(),
        display_name: name.to_owned(),
        suspended: Some(suspended),
        create_time: Some(ago(3 * DAY)),
        ..Partner::default()
    };
    let partners = [
        partner("acme", "Acme, Inc.", false),
        partner("globex", "", true),
        partner(
            "umbrella-corporation-europe-north-1",
            "Umbrella Corporation Europe, department of 東京",
            false,
        ),
    ];
    assert_looks("partner-list", |screen| {
        partner::listing("demo").text(&partners, &view, Some(screen), &Rest::default())
    });

    let projects = [
        ("web", "acme", "Web shop"),
        (
            "pipeline-of-the-data-platform-team",
            "umbrella-corporation-europe-north-1",
            "",
        ),
    ]
    .map(|(id, partner, name)| Project {
        id: id.to_owned(),
        partner: partner.to_owned(),
        display_name: name.to_owned(),
        create_time: Some(ago(400 * DAY)),
        ..Project::default()
    });
    assert_looks("project-list", |screen| {
        project::listing("demo").text(&projects, &view, Some(screen), &Rest::default())
    });

    let span = |seconds| {
        Some(prost_types::Duration {
            seconds,
            nanos: 400_000_000,
        })
    };
    let answer = ListReplicasResponse {
        replicas: [
            ("key-1", ReplicaState::Serving),
            ("key-2.eu-central.example.com", ReplicaState::Loading),
        ]
        .map(|(name, state)| Replica {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            state: state.into(),
            reported_revision: 281_474_976_710_700,
            lag: 0,
            lease_left: span(29),
            heartbeat_age: span(0),
            ..Replica::default()
        })
        .to_vec(),
        revision: 281_474_976_710_700,
        lease: span(30),
        longest_lease: span(30),
        ..ListReplicasResponse::default()
    };
    assert_looks("replicas", |screen| {
        replicas::shown(&answer, &view, Some(screen))
    });
}
