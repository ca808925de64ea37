//! Every table with rows that others made to break it.

use std::collections::{BTreeMap, HashSet};

use super::{WIDTHS, assert_fits, at, now, screen};
use crate::cli::event_line::{self, Names};
use crate::cli::explain;
use crate::cli::keys::{columns, screen as key_screen, usage};
use crate::cli::listing::{Listing, Rest, ViewFlags};
use crate::cli::usage::{Range, keys as keys_of_usage, owners_denied};
use crate::cli::{partner, project, realm, replicas, table};
use crate::pb::claviger::v1::{
    Check, Environment, Event, ExplainResponse, GetKeyUsageResponse, GetUsageResponse, Key,
    KeySecret, KeyUsage, OwnerUsage, Partner, Project, Realm, Replica, Scope, UsageBucket,
    VerdictCount, VerifiedKey,
};

/// Names that differ only where a table may cut them, or that take another width than they have characters.
fn names() -> Vec<String> {
    let mut names: Vec<_> = [
        "nightly-export-to-warehouse-eu-w-1",
        "nightly-export-to-warehouse-eu-w-2",
        "nightly-export-1-to-warehouse-eu-w",
        "東京タワー展望台東京タワー展望台東京タワー展望台",
        "👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬👩🏽\u{200d}🔬 lab",
        "❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}",
        "🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱🇵🇱",
        "\u{202e}drowssap\u{202c}\u{2066}\u{61c}\u{200f}",
        "\x1b[2J\x1b]0;title\x07\r\n\tbell",
        "\u{9b}31m\u{85}",
        "e\u{301}\u{302}\u{303}e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}",
        "\u{301}mark first",
        "ﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺﷺ",
        "שלום עולם مرحبا بالعالم",
        "",
        "-",
        "…",
        "a",
    ]
    .map(str::to_owned)
    .to_vec();
    for end in ["one", "two"] {
        names.push(format!("{}{end}{}", "x".repeat(60), "x".repeat(60)));
    }
    names
}

fn id(number: usize) -> String {
    format!("01a214d0-7407-7b5d-a9dc-{number:012x}")
}

fn key(number: usize, name: &str) -> Key {
    let time = Some(at("2026-11-25T22:25:50Z"));
    Key {
        id: id(number),
        name: name.to_owned(),
        realm: name.to_owned(),
        partner: name.to_owned(),
        project: if number.is_multiple_of(2) {
            name.to_owned()
        } else {
            String::new()
        },
        environment: name.to_owned(),
        // As an old import, so that no hint tells keys apart.
        hint: [
            "hmac:0a0b0c0d…",
            "demo_an-unusually-long-tag-of-an-environment_…a5Ai",
            "",
            name,
        ][number % 4]
            .to_owned(),
        state: (number % 5) as i32,
        scopes: vec![name.to_owned(); 3],
        labels: BTreeMap::from([(name.to_owned(), name.to_owned())]),
        allowed_cidrs: vec![name.to_owned()],
        revoke_reason: name.repeat(3),
        revoke_time: time,
        create_time: time,
        created_by: id(0),
        expire_time: [
            None,
            Some(at("2026-11-30T00:00:00Z")),
            Some(at("9999-12-31T23:59:59Z")),
        ][number % 3],
        last_used_time: [None, time][number % 2],
        last_used_address: name.to_owned(),
        external_id: name.to_owned(),
        secrets: vec![
            KeySecret {
                hint: name.to_owned(),
                create_time: time,
                last_used_time: time,
                last_used_address: name.to_owned(),
                imported: true,
                ..KeySecret::default()
            };
            2
        ],
        ..Key::default()
    }
}

fn keys() -> Vec<Key> {
    let names = names();
    // Each name twice, so that some keys differ in nothing that a table shows.
    let names = names.iter().chain(&names).enumerate();
    names.map(|(number, name)| key(number, name)).collect()
}

fn events() -> Vec<Event> {
    let kinds = [
        "key.issued",
        "key.revoked",
        "key.rotated",
        "key.rotation_ended",
        "partner.put",
        "realm.put",
        "authority.created",
        "kind.of-the-future",
    ];
    let events = names().into_iter().enumerate().map(|(number, name)| Event {
        revision: number as u64 + 1,
        time: [Some(now()), Some(at("1970-01-01T00:00:00Z"))][number % 2],
        kind: kinds[number % kinds.len()].to_owned(),
        key_id: [String::new(), id(number)][number % 2].clone(),
        actor: [String::new(), id(number + 1), "x".to_owned()][number % 3].clone(),
        peer: name.clone(),
        realm: name.clone(),
        partner: name.clone(),
        detail: [
            "name",
            "hint",
            "reason",
            "project",
            "scopes",
            "old_hint",
            "display_name",
        ]
        .map(|detail| (detail.to_owned(), format!("{name} {name}")))
        .into(),
    });
    events.collect()
}

/// Asserts that a list fits, and that each of its rows is one of a kind.
fn assert_list<T>(listing: &Listing<'_, T>, items: &[T]) {
    for columns in WIDTHS {
        let text = listing.text(
            items,
            &ViewFlags::default(),
            Some(screen(columns)),
            &Rest::default(),
        );
        assert_fits(&text, columns);
        let table = assert_fits(&listing.table(items, Some(screen(columns))), columns);
        let mut rows: Vec<String> = Vec::new();
        for line in table.into_iter().skip(1) {
            if line.starts_with("  ") {
                let row = rows.last_mut().expect("a note has a row");
                row.push('\n');
                row.push_str(&line);
            } else {
                rows.push(line);
            }
        }
        assert_eq!(rows.len(), items.len());
        let mut seen = HashSet::new();
        for row in rows {
            assert!(seen.insert(row.clone()), "two rows look the same:\n{row}");
        }
    }
    // Too narrow for anything.
    for columns in 1..40 {
        let table = listing.table(items, Some(screen(columns)));
        assert!(!table.is_empty());
    }
}

/// Seen red with the width in characters, and without the note on rows that look the same.
#[test]
fn no_list_is_wider_than_the_terminal_and_no_two_rows_look_the_same() {
    let keys = keys();
    assert_list(&columns::listing(Some("demo")), &keys);
    assert_list(&columns::listing(None), &keys);
    assert_list(&columns::ended(), &keys);
    assert_list(&columns::found(), &keys);

    let events = events();
    for is_one_realm in [true, false] {
        let lines = event_line::lines(&events, &Names::of(&events), is_one_realm, &now());
        assert_list(&event_line::listing(""), &lines);
    }
    let of_names = |make: fn(String) -> Partner| names().into_iter().map(make).collect::<Vec<_>>();
    let partners = of_names(|name| Partner {
        id: if name.is_empty() {
            "id".to_owned()
        } else {
            name.clone()
        },
        display_name: name,
        ..Partner::default()
    });
    assert_list(&partner::listing(&"realm".repeat(40)), &partners);
    let projects: Vec<_> = partners
        .iter()
        .map(|partner| Project {
            id: partner.id.clone(),
            partner: partner.id.clone(),
            display_name: partner.display_name.clone(),
            create_time: Some(now()),
            ..Project::default()
        })
        .collect();
    assert_list(&project::listing("demo"), &projects);
    let realms: Vec<_> = partners
        .iter()
        .map(|partner| Realm {
            id: partner.id.clone(),
            prefix: partner.id.chars().take(20).collect(),
            environments: vec![
                Environment {
                    name: partner.id.clone(),
                    tag: partner.id.clone(),
                };
                9
            ],
            scopes: vec![Scope::default(); 300],
            create_time: Some(now()),
            ..Realm::default()
        })
        .collect();
    assert_list(&realm::listing(), &realms);
    let servers: Vec<_> = partners
        .iter()
        .enumerate()
        .map(|(number, partner)| Replica {
            id: id(number),
            name: partner.id.clone(),
            version: partner.id.clone(),
            state: number as i32 % 4,
            reported_revision: u64::MAX,
            lag: u64::MAX,
            ..Replica::default()
        })
        .collect();
    assert_list(&replicas::listing(), &servers);
}

#[test]
fn no_other_screen_is_wider_than_the_terminal() {
    let names = names();
    for columns in WIDTHS {
        for key in keys() {
            assert_fits(
                &key_screen::shown(
                    &key,
                    &key_screen::Background::default(),
                    Some(screen(columns)),
                ),
                columns,
            );
        }
        let checks = names.iter().enumerate().map(|(number, name)| Check {
            name: "environment_mismatch".to_owned(),
            outcome: number as i32 % 4,
            detail: format!("{name} is in none of {name}, {name}, {name}, {name}"),
        });
        let answer = ExplainResponse {
            verdict: 8,
            http_status: 403,
            checks: checks.collect(),
            decided_by: "environment_mismatch".to_owned(),
            route: names.join(" "),
            key: Some(VerifiedKey {
                id: id(1),
                name: names.concat(),
                partner: names.concat(),
                ..VerifiedKey::default()
            }),
            ..ExplainResponse::default()
        };
        for all in [true, false] {
            assert_fits(
                &explain::shown(&answer, false, all, Some(screen(columns))),
                columns,
            );
        }
        let rows = names
            .iter()
            .map(|name| vec!["1".to_owned(), name.repeat(4)]);
        assert_fits(
            &table::simple(&["LINE", "REASON"], rows, Some(columns)),
            columns,
        );
        let rows = names.iter().map(|name| vec![name.repeat(4); 6]);
        let header = ["REVOKED TO DENIED", "WAIT", "ROUNDS", "P50", "P99", "MAX"];
        assert_fits(&table::simple(&header, rows, Some(columns)), columns);

        let counts: Vec<_> = (0..40)
            .map(|verdict| VerdictCount {
                verdict,
                count: u64::MAX / 41,
            })
            .collect();
        let usage = GetKeyUsageResponse {
            totals: counts.clone(),
            buckets: vec![UsageBucket {
                start_time: Some(now()),
                counts,
            }],
            last_used_time: None,
        };
        let now = now().seconds;
        for days in [1, 30, 400] {
            let range = Range::between(now - days * 86_400, now);
            for name in &names {
                assert_fits(
                    &usage::shown(&usage, name, range, Some(screen(columns))),
                    columns,
                );
            }
        }
    }
}

#[test]
fn no_usage_of_owners_and_keys_is_wider_than_the_terminal() {
    let names = names();
    let counts: Vec<_> = (0..40)
        .map(|verdict| VerdictCount {
            verdict,
            count: u64::MAX / 41,
        })
        .collect();
    for columns in WIDTHS {
        let answer = GetUsageResponse {
            owners: names
                .iter()
                .map(|name| OwnerUsage {
                    partner: name.clone(),
                    project: String::new(),
                    counts: counts.clone(),
                })
                .collect(),
            keys: keys()
                .into_iter()
                .map(|key| KeyUsage {
                    key_id: key.id,
                    name: key.name,
                    realm: key.realm,
                    partner: key.partner,
                    project: key.project,
                    environment: key.environment,
                    hint: key.hint,
                    counts: counts.clone(),
                })
                .collect(),
            more_keys: true,
            more_owners: true,
            ..GetUsageResponse::default()
        };
        let screen_of = Some(screen(columns));
        assert_fits(&keys_of_usage(&answer, screen_of).unwrap(), columns);
        assert_fits(&owners_denied(&answer, true, screen_of).unwrap(), columns);
    }
}
