//! Every filter of a list, alone and in pairs, beside a model that looks at the keys as the server returned them one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{KeyLevel, KeyState};
use tonic::Code;

use super::delegation::delegate;
use crate::fixtures::{
    Api, DemoService, Engine, authority_key_request, delegating_service, demo_realm, get, issue,
    on_both_engines, proto_time, refused, refused_field, rotate, seconds, strings, update,
};

/// A filter, and whether it selects a key.
struct Condition {
    what: String,
    set: Box<dyn Fn(&mut pb::KeyFilter) + Send>,
    selects: Box<dyn Fn(&pb::Key) -> bool + Send>,
}

fn condition(
    what: impl Into<String>,
    set: impl Fn(&mut pb::KeyFilter) + Send + 'static,
    selects: impl Fn(&pb::Key) -> bool + Send + 'static,
) -> Condition {
    Condition {
        what: what.into(),
        set: Box::new(set),
        selects: Box::new(selects),
    }
}

/// The `max_lifetime` that the realm gets after the keys were issued, in seconds.
const MAX_LIFETIME: i64 = 3_000;

/// Texts that a careless query takes for something else.
const NAMES: [&str; 8] = [
    "",
    "Nightly export",
    "nightly",
    "100%",
    "a_b",
    "it's",
    "\u{c4}rger \u{1f511}",
    "a\\b\"c",
];

const LABELS: [(&str, &str); 9] = [
    ("team", "billing"),
    ("team", "bill"),
    ("Team", "billing"),
    ("a\"b", "x"),
    ("b", "x"),
    ("t", "x\",\"b\":\"x"),
    ("p", "\\"),
    ("operator/plan", "\u{e9}"),
    ("empty", ""),
];

fn labels_of(number: usize) -> BTreeMap<String, String> {
    let chosen = LABELS
        .iter()
        .enumerate()
        .filter(|(i, _)| (number >> (i % 6)) & 1 == 1 && (number + i).is_multiple_of(2));
    chosen
        .map(|(_, (name, value))| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Issues keys of every kind, each at another time, and returns their ids, the newest first.
async fn keys(demo: &mut DemoService, manager: &mut Api) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..48 {
        let (partner, project) = [("acme", ""), ("acme", "one"), ("umbrella", "")][number % 3];
        let level = if project.is_empty() {
            KeyLevel::Partner
        } else {
            KeyLevel::Project
        };
        let expiry = (number % 4 == 0)
            .then(|| proto_time(demo.clock.now()).seconds + 1_000 + 100 * number as i64);
        let request = pb::IssueKeyRequest {
            realm: "demo".to_owned(),
            partner: partner.to_owned(),
            project: project.to_owned(),
            level: level.into(),
            environment: ["production", "staging"][number / 3 % 2].to_owned(),
            name: NAMES[number % NAMES.len()].to_owned(),
            labels: labels_of(number),
            expire_time: expiry.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            external_id: if number == 7 {
                "seven".to_owned()
            } else {
                String::new()
            },
            ..Default::default()
        };
        let api = if number % 5 == 0 {
            &mut *manager
        } else {
            &mut demo.root
        };
        let key = issue(api, request).await;
        match number % 7 {
            1 => drop(rotate(&mut demo.root, &key.id, 600).await.unwrap()),
            2 => drop(demo.root.revoke(&key.id).await.unwrap()),
            3 => {
                let request = pb::DisableKeyRequest {
                    key_id: key.id.clone(),
                    ..Default::default()
                };
                demo.root.keys.disable_key(request).await.unwrap();
            }
            _ => {}
        }
        ids.push(key.id);
        demo.clock
            .set(demo.clock.now().saturating_add(Duration::from_mins(1)));
    }
    ids.reverse();
    ids
}

/// Conditions on what a key belongs to, its expiry and its state.
fn of_owner_and_life(now: i64) -> Vec<Condition> {
    let mut all = vec![
        condition(
            "partner",
            |f| "acme".clone_into(&mut f.partner),
            |k| k.partner == "acme",
        ),
        condition(
            "project",
            |f| "one".clone_into(&mut f.project),
            |k| k.project == "one",
        ),
        condition(
            "environment",
            |f| "staging".clone_into(&mut f.environment),
            |k| k.environment == "staging",
        ),
        condition(
            "external id",
            |f| "seven".clone_into(&mut f.external_id),
            |k| k.external_id == "seven",
        ),
        condition(
            "never expires",
            |f| f.never_expires = true,
            |k| k.expire_time.is_none(),
        ),
        condition(
            "expires within",
            |f| {
                f.expires_within = seconds(1_500);
            },
            move |k| {
                k.expire_time
                    .is_some_and(|end| end.seconds > now && end.seconds <= now + 1_500)
            },
        ),
        condition(
            "beyond the max lifetime",
            |f| f.beyond_max_lifetime = true,
            |k| {
                let newest = k
                    .secrets
                    .iter()
                    .map(|secret| secret.create_time.unwrap().seconds)
                    .max();
                k.expire_time
                    .is_none_or(|end| end.seconds > newest.unwrap() + MAX_LIFETIME)
            },
        ),
    ];
    for state in [
        KeyState::Active,
        KeyState::Disabled,
        KeyState::Expired,
        KeyState::Revoked,
    ] {
        let what = state.as_str_name();
        all.push(condition(
            what,
            move |f| f.states = vec![state.into()],
            move |k| k.state() == state,
        ));
    }
    all
}

/// Conditions on the name and the labels.
fn of_texts() -> Vec<Condition> {
    let mut all = Vec::new();
    for name in [
        "NIGHT",
        "nightly",
        "%",
        "_",
        "'",
        "\u{c4}",
        "\u{e4}",
        "\\",
        "\"",
        "b\"C",
        "no such name",
    ] {
        let lower = name.to_ascii_lowercase();
        all.push(condition(
            format!("name {name}"),
            move |f| name.clone_into(&mut f.name),
            move |k| k.name.to_ascii_lowercase().contains(&lower),
        ));
    }
    for (name, value) in LABELS
        .into_iter()
        .chain([("team", ""), ("", "x"), ("b\":\"x", "x")])
    {
        all.push(condition(
            format!("label {name}={value}"),
            move |f| drop(f.labels.insert(name.to_owned(), value.to_owned())),
            move |k| k.labels.get(name).is_some_and(|own| own == value),
        ));
    }
    all
}

/// Conditions on what is in these keys, the newest first.
fn of_keys(keys: &[pb::Key], creators: [String; 2]) -> Vec<Condition> {
    let mut all = Vec::new();
    for creator in creators {
        let same = creator.clone();
        all.push(condition(
            "creator",
            move |f| f.created_by.clone_from(&creator),
            move |k| k.created_by == same,
        ));
    }
    // The newest, one in the middle with two secrets, and its old one.
    let rotated = keys.iter().find(|key| key.secrets.len() == 2).unwrap();
    for hint in [
        &keys[0].hint,
        &rotated.secrets[0].hint,
        &rotated.secrets[1].hint,
    ] {
        let end: String = hint
            .chars()
            .rev()
            .take(4)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let same = end.clone();
        all.push(condition(
            format!("hint {end}"),
            move |f| f.hint.clone_from(&end),
            move |k| {
                k.hint.contains(&same) || k.secrets.iter().any(|secret| secret.hint.contains(&same))
            },
        ));
    }
    for issued in [keys[10].create_time.unwrap(), keys[30].create_time.unwrap()] {
        let at = move |key: &pb::Key| key.create_time.unwrap();
        let of = |time: prost_types::Timestamp| (time.seconds, time.nanos);
        all.push(condition(
            "before",
            move |f| f.issued_before = Some(issued),
            move |k| of(at(k)) < of(issued),
        ));
        all.push(condition(
            "after",
            move |f| f.issued_after = Some(issued),
            move |k| of(at(k)) >= of(issued),
        ));
    }
    all
}

/// The ids on all pages, in their order.
async fn listed(api: &mut Api, filter: &pb::KeyFilter, page_size: i32) -> Vec<String> {
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListKeysRequest {
            filter: Some(filter.clone()),
            page_size,
            page_token,
        };
        let page = api.keys.list_keys(request).await.unwrap().into_inner();
        ids.extend(page.keys.into_iter().map(|key| key.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

on_both_engines! {
    /// Seen red with `LIKE` for the name, with a label that is looked for without what stands before it, and with the hint of the
    /// newest secret alone. Also with a `max_lifetime` that counts from the issue although the key was rotated since.
    async fn each_filter_and_each_pair_selects_what_the_model_does(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let manager = issue(&mut demo.root, authority_key_request("manage", "demo")).await;
        let mut manager_api = demo.service.api_as(&manager.plain_key);
        let ids = keys(&mut demo, &mut manager_api).await;
        // These end later than the limit counted from their issue allows, and not counted from this rotation. They expire alone:
        // the one that is issued last is number 0 of the list.
        for number in [28, 32] {
            rotate(&mut demo.root, &ids[47 - number], 60).await.unwrap();
        }
        demo.root.put_realm(pb::Realm { max_lifetime: seconds(MAX_LIFETIME), ..demo_realm() }).await;
        let mut keys = Vec::new();
        for id in &ids {
            keys.push(get(&mut demo.root, id).await);
        }
        let other = keys.iter().find(|key| key.created_by != manager.id).unwrap().created_by.clone();
        let now = proto_time(demo.clock.now()).seconds;
        let conditions = of_owner_and_life(now)
            .into_iter()
            .chain(of_texts())
            .chain(of_keys(&keys, [manager.id.clone(), other]))
            .collect::<Vec<_>>();
        let mut selected_some = 0;
        for (i, one) in conditions.iter().enumerate() {
            for (j, two) in conditions.iter().enumerate().skip(i) {
                let mut filter = pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() };
                (one.set)(&mut filter);
                let first = filter.clone();
                (two.set)(&mut filter);
                // Some exclude each other, and of two values for one field the second counts.
                let mut again = filter.clone();
                (one.set)(&mut again);
                if (i != j && (again != filter || first == filter)) || (filter.never_expires && filter.expires_within.is_some()) {
                    continue;
                }
                let expected: Vec<_> = keys
                    .iter()
                    .filter(|key| (one.selects)(key) && (two.selects)(key))
                    .map(|key| key.id.clone())
                    .collect();
                let page_size = [3, 1_000][(i + j) % 2];
                let found = listed(&mut demo.root, &filter, page_size).await;
                assert_eq!(found, expected, "{} and {}", one.what, two.what);
                selected_some += usize::from(!expected.is_empty());
            }
        }
        assert!(selected_some > 300, "{selected_some}");
        println!("{} filters, {selected_some} pairs select something", conditions.len());
        demo.service.stop().await;
    }

    async fn a_filter_that_cannot_be_meant_is_refused(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let key = issue(root, delegate_less()).await.plain_key;
        for (field, set) in [
            ("filter.hint", &(|f: &mut pb::KeyFilter| "abc".clone_into(&mut f.hint)) as &dyn Fn(&mut pb::KeyFilter)),
            ("filter.hint", &|f| f.hint.clone_from(&key)),
            ("filter.hint", &|f| "ab cd".clone_into(&mut f.hint)),
            ("filter.created_by", &|f| f.created_by.clone_from(&key)),
            ("filter.name", &|f| f.name = "n".repeat(129)),
            ("filter.labels", &|f| f.labels = (0..5).map(|i| (i.to_string(), String::new())).collect()),
        ] {
            let mut filter = pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() };
            set(&mut filter);
            let request = pb::ListKeysRequest { filter: Some(filter), ..Default::default() };
            refused_field(root.keys.list_keys(request).await, field);
        }
        demo.service.stop().await;
    }

    /// Who finds whose key, by the API key and by its last characters. Seen red with a search in all realms for everybody, and with
    /// another refusal for a key that exists.
    async fn a_key_is_found_by_those_who_administer_it(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let own = issue(&mut root, delegate(|_| {})).await;
        let manager = issue(&mut root, authority_key_request("manage", "demo")).await;
        let theirs = issue(&mut root, delegate(|key| "umbrella".clone_into(&mut key.partner))).await;
        let elsewhere = issue(&mut root, delegate(|key| "staging".clone_into(&mut key.environment))).await;
        let gateway = issue(&mut root, authority_key_request("verify", "demo")).await;
        let mut callers = [
            ("operator", root.clone(), [true, true, true, true, true]),
            ("manager", service.api_as(&manager.plain_key), [true, true, true, false, false]),
            ("delegate", service.api_as(&own.plain_key), [true, false, false, false, false]),
        ];
        let sought = [&own, &theirs, &elsewhere, &gateway, &manager];
        for (caller, api, finds) in &mut callers {
            for (key, finds) in sought.iter().zip(finds) {
                let by_key = find(api, Sought::PlainKey(key.plain_key.clone())).await;
                let hint: String = key.key.hint.chars().skip(key.key.hint.chars().count() - 4).collect();
                let by_hint = find(api, Sought::Hint(hint)).await.unwrap();
                assert_eq!(by_hint.contains(&key.id), *finds, "{caller} by hint");
                match by_key {
                    Ok(found) => assert_eq!((found, *finds), (vec![key.id.clone()], true), "{caller}"),
                    Err(status) => {
                        let refusal = refused::<()>(Err(status));
                        assert_eq!((refusal.code, *finds), (Code::NotFound, false), "{caller}");
                    }
                }
            }
        }
        let mut nobody = service.api_as(&gateway.plain_key);
        let denied = find(&mut nobody, Sought::PlainKey(own.plain_key.clone())).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);

        // In each state; with the old API key in the overlap; not after a rotation without one, nor after the end.
        let rotated = rotate(&mut root, &own.id, 600).await.unwrap();
        for text in [&own.plain_key, &rotated.plain_key] {
            assert_eq!(find(&mut root, Sought::PlainKey(text.clone())).await.unwrap(), [own.id.as_str()]);
        }
        root.revoke(&own.id).await.unwrap();
        assert_eq!(find(&mut root, Sought::PlainKey(own.plain_key.clone())).await.unwrap().len(), 1);
        let again = rotate(&mut root, &theirs.id, 0).await.unwrap();
        let unknown = "TtgGcQFq.Zx8Rk2VbN5yLm9Qp4TdHj7CgE1aUw0Ki".to_owned();
        root.delete(&own.id).await.unwrap();
        for text in [theirs.plain_key, own.plain_key, unknown, String::new(), "x".repeat(600)] {
            let missing = find(&mut root, Sought::PlainKey(text)).await.unwrap_err();
            assert_eq!(missing.code(), Code::NotFound);
        }
        assert_eq!(find(&mut root, Sought::PlainKey(again.plain_key)).await.unwrap(), [theirs.id.as_str()]);
        // To be found is not to be used.
        assert_eq!(get(&mut root, &theirs.id).await.last_used_time, None);
        let nothing = root.keys.find_key(pb::FindKeyRequest { key: None }).await;
        refused_field(nothing, "key");
        service.stop().await;
    }

    /// What a stolen key of an administrator did. Seen red without the condition.
    async fn events_are_found_by_who_made_the_change(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let manager = issue(&mut demo.root, authority_key_request("manage", "demo")).await;
        let mut api = demo.service.api_as(&manager.plain_key);
        let key = issue(&mut api, delegate_less()).await;
        update(&mut demo.root, &key.id, &["name"], |request| "by root".clone_into(&mut request.name)).await.unwrap();
        update(&mut api, &key.id, &["name"], |request| "by manager".clone_into(&mut request.name)).await.unwrap();
        let request = pb::ListEventsRequest { actor: manager.id.clone(), ..Default::default() };
        let events = demo.root.keys.list_events(request.clone()).await.unwrap().into_inner().events;
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["key.updated", "key.issued"]);
        assert!(events.iter().all(|event| event.actor == manager.id));
        let request = pb::ListEventsRequest { actor: "x".to_owned(), ..request };
        refused_field(demo.root.keys.list_events(request).await, "actor");
        demo.service.stop().await;
    }
}

use pb::find_key_request::Key as Sought;

async fn find(api: &mut Api, sought: Sought) -> Result<Vec<String>, tonic::Status> {
    let request = pb::FindKeyRequest { key: Some(sought) };
    let answer = api.keys.find_key(request).await?.into_inner();
    Ok(answer.keys.into_iter().map(|key| key.id).collect())
}

/// Asks for a key that administers nothing.
fn delegate_less() -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        realm: "demo".to_owned(),
        partner: "acme".to_owned(),
        level: KeyLevel::Partner.into(),
        environment: "production".to_owned(),
        scopes: strings(&["read"]),
        ..Default::default()
    }
}
