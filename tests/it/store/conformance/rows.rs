//! What is put is found again as it was, and lists are in order and whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use claviger::domain::access::Access;
use claviger::domain::event::{Actor, Event, EventKind, Revision, SoughtKind, Suspension};
use claviger::domain::ids::{EnvironmentName, KeyId, PartnerId, ScopeName};
use claviger::domain::key::{Key, KeyState, Level, Revocation};
use claviger::domain::time::Expiry;
use claviger::store::{Error, EventFilter, KeyFilter, Snapshot};
use tokio::sync::mpsc;

use super::{
    DemoStore, about, all_keys, at, event, key, partner, partner_id, project, project_id, realm,
    realm_id,
};
use crate::fixtures::{Engine, on_both_engines};

/// What careless quoting, collation or encoding would change.
const ODD: &str = "O'Reilly \"& Söhne\" \\ \\u0041 % _ $1 ; -- \u{1F511} \u{2028} ÿ";

/// Every key that a full load hands over, and whether what verification needs of it can be read.
async fn every_key(snapshot: &mut Snapshot) -> BTreeMap<KeyId, bool> {
    let (to, mut from) = mpsc::channel(1);
    let (handed_over, rows) = tokio::join!(snapshot.send_key_rows(to), async {
        let mut rows = BTreeMap::new();
        while let Some(batch) = from.recv().await {
            batch.for_each(|id, facts| {
                rows.insert(id, facts.is_ok());
            });
        }
        rows
    });
    handed_over.unwrap();
    rows
}

on_both_engines! {
    async fn a_realm_is_found_again_by_its_id_and_by_its_prefix(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let revision = demo.put(async |change| { change.put_realm(&realm("other")).await.unwrap(); }).await;
        let mut snapshot = demo.snapshot().await;
        let found = snapshot.find_realm(&realm_id("other")).await.unwrap().unwrap();
        assert_eq!((found.value, found.revision), (realm("other"), revision));
        assert_eq!(snapshot.find_prefix("other").await.unwrap(), Some(realm_id("other")));
        assert_eq!(snapshot.find_prefix("others").await.unwrap(), None);
        assert!(snapshot.find_realm(&realm_id("nothing")).await.unwrap().is_none());
    }

    async fn what_is_put_again_keeps_its_first_date_and_takes_the_new_revision(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let first = demo.put(async |change| {
            change.put_partner(&partner("acme")).await.unwrap();
            change.put_project(&project("web", "acme")).await.unwrap();
        }).await;
        let mut changed = partner("acme");
        ODD.clone_into(&mut changed.display_name);
        changed.suspended = true;
        let mut renamed = project("web", "acme");
        ODD.clone_into(&mut renamed.display_name);
        let second = demo.put(async |change| {
            change.put_partner(&changed).await.unwrap();
            change.put_project(&renamed).await.unwrap();
            change.put_realm(&realm("demo")).await.unwrap();
        }).await;
        assert!(second > first);
        let mut snapshot = demo.snapshot().await;
        let row = snapshot.find_partner(&realm_id("demo"), &partner_id("acme")).await.unwrap().unwrap();
        assert_eq!((row.value, row.revision), (changed, second));
        // The world began at 1, so that its own change was at 2, and the next at 3.
        assert_eq!(row.created_at, at(3));
        let (row, deleted) = snapshot.find_project(&realm_id("demo"), &project_id("web")).await.unwrap().unwrap();
        assert_eq!((row.value, row.revision, row.created_at, deleted), (renamed, second, at(3), false));
        let row = snapshot.find_realm(&realm_id("demo")).await.unwrap().unwrap();
        assert_eq!((row.created_at, row.revision), (at(2), second));
    }

    /// Seen red without COLLATE "C" on `partners.id`: a database that sorts as people do puts "a" before "B".
    async fn ids_are_compared_byte_by_byte_and_pages_follow_that_order(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut ids = ["B", "a", "Z", "z", "0", "9.", "a-b", "a.b", "a_b", "aB", "ab", "A", "a@b", "AB"];
        demo.put(async |change| {
            for id in ids {
                change.put_partner(&partner(id)).await.unwrap();
                change.put_project(&project(id, "a")).await.unwrap();
            }
        }).await;
        ids.sort_unstable();
        let mut snapshot = demo.snapshot().await;
        for limit in [1, 3, 14, 100] {
            let (mut partners, mut projects) = (Vec::new(), Vec::new());
            let mut after = Some(String::new());
            while let Some(last) = after {
                let page = snapshot.list_partners(&realm_id("demo"), &last, limit, Some).await.unwrap();
                partners.extend(page.items.into_iter().map(|row| row.value.id.as_str().to_owned()));
                after = page.next;
            }
            let mut after = Some(String::new());
            while let Some(last) = after {
                let page = snapshot.list_projects(&realm_id("demo"), None, &last, limit, Some).await.unwrap();
                projects.extend(page.items.into_iter().map(|row| row.value.id.as_str().to_owned()));
                after = page.next;
            }
            assert_eq!((&partners[..], &projects[..]), (&ids.map(str::to_owned)[..], &partners[..]), "pages of {limit}");
        }
        for id in ids {
            let found = snapshot.find_partner(&realm_id("demo"), &partner_id(id)).await.unwrap();
            assert_eq!(found.unwrap().value.id, partner_id(id));
        }
        assert!(snapshot.find_partner(&realm_id("demo"), &partner_id("b")).await.unwrap().is_none());
    }

    async fn realms_are_listed_in_order_without_what_is_before_the_cursor(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.put(async |change| {
            for id in ["zeta", "alpha", "a-1", "a1"] {
                change.put_realm(&realm(if id == "a-1" { "b-1" } else { id })).await.unwrap();
            }
        }).await;
        let mut snapshot = demo.snapshot().await;
        let page = snapshot.list_realms("", 3, Some).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|row| row.value.id.as_str()).collect();
        assert_eq!((ids, page.next.as_deref()), (vec!["a1", "alpha", "b-1"], Some("b-1")));
        let page = snapshot.list_realms("b-1", 3, Some).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|row| row.value.id.as_str()).collect();
        assert_eq!((ids, page.next), (vec!["demo", "zeta"], None));
        assert_eq!(snapshot.all_realms().await.unwrap().len(), 5);
    }

    async fn a_key_is_found_again_with_every_odd_character_and_big_number(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut odd = key(1);
        ODD.clone_into(&mut odd.name);
        odd.labels = (0..32).map(|i| (format!("{ODD}{i}"), format!(r#"{{"a": [[["{i}"]]], "b": null}}"#))).collect();
        odd.allowed_cidrs = vec!["2001:db8::/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        odd.created_at = at(i64::MIN);
        odd.created_revision = Revision::from(i64::MAX as u64);
        odd.expires_at = Expiry::At(at(i64::MAX));
        odd.revocation = Some(Revocation { at: at(i64::MAX - 1), reason: ODD.to_owned() });
        let mut negative = key(2);
        negative.expires_at = Expiry::At(at(-1));
        negative.access = Access::Full;
        demo.put(async |change| {
            change.insert_key(&odd).await.unwrap();
            change.insert_key(&negative).await.unwrap();
            change.insert_root(odd.id, &odd.secrets[0], ODD).await.unwrap();
        }).await;
        let mut snapshot = demo.snapshot().await;
        assert_eq!(snapshot.find_key(odd.id).await.unwrap().unwrap(), odd);
        assert_eq!(snapshot.find_key(negative.id).await.unwrap().unwrap(), negative);
        assert_eq!(snapshot.find_realm_of_key(odd.id).await.unwrap(), Some(realm_id("demo")));
        assert_eq!(snapshot.find_key(KeyId::from_bytes([9; 16])).await.unwrap(), None);
        let rows = every_key(&mut snapshot).await;
        assert_eq!(rows, BTreeMap::from([(odd.id, true), (negative.id, true)]));
    }

    /// Each filter reads a generated column.
    async fn keys_are_listed_newest_first_by_owner_project_environment_and_state(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut keys: Vec<Key> = (1..=8).map(key).collect();
        keys[1].partner = partner_id("Acme");
        keys[2].level = Level::Project(project_id("web"));
        keys[3].environment = EnvironmentName::parse("staging").unwrap();
        keys[4].disabled = true;
        keys[5].expires_at = Expiry::At(at(10));
        keys[6].expires_at = Expiry::At(at(11));
        keys[7].revocation = Some(Revocation { at: at(5), reason: String::new() });
        keys[7].disabled = true;
        for (place, scopes) in [(2, &["over:write"][..]), (4, &["over:read", "over:write"])] {
            keys[place].access = Access::Scopes(scopes.iter().map(|scope| ScopeName::parse(scope).unwrap()).collect());
        }
        demo.put(async |change| {
            for key in &keys {
                change.insert_key(key).await.unwrap();
            }
        }).await;
        let mut snapshot = demo.snapshot().await;
        let states = |states: &[KeyState]| KeyFilter { states: states.iter().copied().collect(), ..all_keys() };
        for (filter, expected) in [
            (all_keys(), vec![8, 7, 6, 5, 4, 3, 2, 1]),
            (KeyFilter { partner: Some(partner_id("acme")), ..all_keys() }, vec![8, 7, 6, 5, 4, 3, 1]),
            (KeyFilter { partner: Some(partner_id("Acme")), ..all_keys() }, vec![2]),
            (KeyFilter { project: Some(project_id("web")), ..all_keys() }, vec![3]),
            (KeyFilter { environment: EnvironmentName::parse("staging").ok(), ..all_keys() }, vec![4]),
            (KeyFilter { realm: realm_id("other"), ..all_keys() }, vec![]),
            (KeyFilter { scope: ScopeName::parse("over:write").ok(), ..all_keys() }, vec![5, 3]),
            (KeyFilter { scope: ScopeName::parse("over").ok(), ..all_keys() }, vec![]),
            (states(&[KeyState::Active]), vec![7, 4, 3, 2, 1]),
            (states(&[KeyState::Disabled]), vec![5]),
            (states(&[KeyState::Expired]), vec![6]),
            (states(&[KeyState::Revoked]), vec![8]),
            (states(&[KeyState::Revoked, KeyState::Expired]), vec![8, 6]),
        ] {
            let page = snapshot.list_keys(&filter, Some).await.unwrap();
            let listed: Vec<u8> = page.items.iter().map(|key| key.id.as_bytes()[0]).collect();
            assert_eq!(listed, expected, "{filter:?}");
            for key in &page.items {
                let state = key.state(filter.now);
                assert!(filter.states.is_empty() || filter.states.contains(&state), "the SQL and the domain agree");
            }
        }
        let (mut listed, mut before, mut more) = (Vec::new(), None, true);
        while more {
            let page = snapshot.list_keys(&KeyFilter { before, limit: 3, ..all_keys() }, Some).await.unwrap();
            listed.extend(page.items.iter().map(|key| key.id.as_bytes()[0]));
            (before, more) = (page.next, page.next.is_some());
        }
        assert_eq!(listed, [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    /// Seen red with an index that is not unique, and without the realm in it.
    async fn an_external_id_belongs_to_one_key_of_the_realm_until_that_is_deleted(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut keys: Vec<Key> = (1..=6).map(key).collect();
        for (key, id) in keys.iter_mut().zip([ODD, "a", "A", "a ", "a"]) {
            key.external_id = Some(id.to_owned());
        }
        keys[4].realm = realm_id("other");
        demo.put(async |change| {
            change.put_realm(&realm("other")).await.unwrap();
            change.insert_keys(&keys.iter().collect::<Vec<_>>()).await.unwrap();
        }).await;
        let id = |number: u8| KeyId::from_bytes([number; 16]);
        let found = |ids: &[(&str, u8)]| -> HashMap<String, KeyId> {
            ids.iter().map(|(text, number)| ((*text).to_owned(), id(*number))).collect()
        };
        let mut snapshot = demo.snapshot().await;
        assert_eq!(snapshot.find_key(id(1)).await.unwrap().as_ref(), Some(&keys[0]));
        let demo_realm = realm_id("demo");
        let all = snapshot.find_external_ids(&demo_realm, &[ODD, "a", "A", "b", "", "á"]).await.unwrap();
        assert_eq!(all, found(&[(ODD, 1), ("a", 2), ("A", 3)]));
        let other = snapshot.find_external_ids(&realm_id("other"), &["a", "A"]).await.unwrap();
        assert_eq!(other, found(&[("a", 5)]));
        assert_eq!(snapshot.find_external_ids(&demo_realm, &[]).await.unwrap(), HashMap::new());
        let many: Vec<String> = (0..1_200).map(|number| format!("id {number}")).chain(["a".to_owned()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(snapshot.find_external_ids(&demo_realm, &many).await.unwrap(), found(&[("a", 2)]));
        for (external_id, expected) in [(ODD, vec![1]), ("a", vec![2]), ("A", vec![3]), ("b", vec![])] {
            let filter = KeyFilter { external_id: Some(external_id.to_owned()), ..all_keys() };
            let page = snapshot.list_keys(&filter, Some).await.unwrap();
            let listed: Vec<u8> = page.items.iter().map(|key| key.id.as_bytes()[0]).collect();
            assert_eq!(listed, expected, "{external_id}");
        }
        drop(snapshot);

        // The index is the last guard: the authority looks first.
        let mut second = key(7);
        second.external_id = Some("a".to_owned());
        let mut change = demo.change().await;
        assert!(matches!(change.insert_key(&second).await, Err(Error::Refused(_))));
        drop(change);
        let mut change = demo.change().await;
        keys[5].external_id = Some("a".to_owned());
        assert!(matches!(change.update_key(&mut keys[5]).await, Err(Error::Refused(_))));
        drop(change);

        let [_, old, ..] = keys.as_mut_slice() else { unreachable!() };
        old.external_id = Some("b".to_owned());
        demo.put(async |change| change.update_key(old).await.unwrap()).await;
        demo.put(async |change| change.insert_key(&second).await.unwrap()).await;
        let ids = async || demo.snapshot().await.find_external_ids(&demo_realm, &["a", "b"]).await.unwrap();
        assert_eq!(ids().await, found(&[("a", 7), ("b", 2)]));
        demo.put(async |change| change.delete_key(id(7)).await.unwrap()).await;
        assert_eq!(ids().await, found(&[("b", 2)]));
    }

    async fn what_keys_use_is_counted_and_gathered(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut keys: Vec<Key> = (1..=4).map(key).collect();
        keys[1].access = Access::Full;
        keys[2].access = Access::Scopes(["write", "a:b.c_d-e"].map(|scope| ScopeName::parse(scope).unwrap()).into());
        keys[3].access = Access::Scopes(BTreeSet::new());
        keys[3].level = Level::Project(project_id("web"));
        keys[3].environment = EnvironmentName::parse("staging").unwrap();
        demo.put(async |change| {
            for key in &keys {
                change.insert_key(key).await.unwrap();
            }
        }).await;
        let mut snapshot = demo.snapshot().await;
        let realm = realm_id("demo");
        assert_eq!(snapshot.count_keys(&realm, None, None).await.unwrap(), 4);
        assert_eq!(snapshot.count_keys(&realm, Some(&partner_id("acme")), None).await.unwrap(), 4);
        assert_eq!(snapshot.count_keys(&realm, Some(&partner_id("other")), None).await.unwrap(), 0);
        assert_eq!(snapshot.count_keys(&realm, None, Some(&project_id("web"))).await.unwrap(), 1);
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<HashSet<_>>();
        assert_eq!(snapshot.environments_in_use(&realm).await.unwrap(), words(&["production", "staging"]));
        assert_eq!(snapshot.scopes_in_use(&realm, None).await.unwrap(), words(&["read", "write", "a:b.c_d-e"]));
    }

    async fn generated_columns_follow_an_update_and_roots_go_with_their_key(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut one = key(1);
        demo.put(async |change| {
            change.insert_key(&one).await.unwrap();
            change.insert_root(one.id, &one.secrets[0], "root").await.unwrap();
        }).await;
        one.revocation = Some(Revocation { at: at(5), reason: String::new() });
        demo.put(async |change| change.update_key(&mut one).await.unwrap()).await;
        let revoked = KeyFilter { states: [KeyState::Revoked].into(), ..all_keys() };
        assert_eq!(demo.snapshot().await.list_keys(&revoked, Some).await.unwrap().items.len(), 1);
        demo.put(async |change| change.delete_key(one.id).await.unwrap()).await;
        // A second root for the same secret would be refused, so that the first must have gone.
        demo.test_store.execute_sql(&["DELETE FROM tombstones"]).await;
        demo.put(async |change| {
            change.insert_key(&one).await.unwrap();
            change.insert_root(one.id, &one.secrets[0], "root").await.unwrap();
        }).await;
    }

    async fn a_realm_takes_its_partners_and_projects_along(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.put(async |change| {
            change.put_partner(&partner("acme")).await.unwrap();
            change.put_project(&project("web", "acme")).await.unwrap();
            change.delete_realm(&realm_id("demo")).await.unwrap();
        }).await;
        let mut snapshot = demo.snapshot().await;
        assert!(snapshot.find_partner(&realm_id("demo"), &partner_id("acme")).await.unwrap().is_none());
        assert!(snapshot.find_project(&realm_id("demo"), &project_id("web")).await.unwrap().is_none());
        assert!(snapshot.all_partners().await.unwrap().is_empty() && snapshot.all_projects().await.unwrap().is_empty());
    }

    /// Seen red with the partner taken over in the update of `put_project`.
    async fn a_project_belongs_to_its_partner_for_ever(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        demo.put(async |change| {
            change.put_partner(&partner("acme")).await.unwrap();
            change.put_partner(&partner("umbrella")).await.unwrap();
            change.put_project(&project("web", "acme")).await.unwrap();
            change.put_project(&project("app", "acme")).await.unwrap();
        }).await;
        demo.put(async |change| {
            change.delete_project(&realm_id("demo"), &project_id("app")).await.unwrap();
            change.delete_partner(&realm_id("demo"), &partner_id("acme")).await.unwrap();
        }).await;
        let (realm, web) = (realm_id("demo"), project_id("web"));
        let mut snapshot = demo.snapshot().await;
        for id in ["web", "app"] {
            let (row, deleted) = snapshot.find_project(&realm, &project_id(id)).await.unwrap().unwrap();
            assert!(deleted && row.value.partner == partner_id("acme"), "{id}");
        }
        assert!(snapshot.list_projects(&realm, None, "", 10, Some).await.unwrap().items.is_empty());
        assert!(snapshot.all_projects().await.unwrap().is_empty());
        drop(snapshot);
        demo.put(async |change| change.put_project(&project("web", "umbrella")).await.unwrap()).await;
        let (row, _) = demo.snapshot().await.find_project(&realm, &web).await.unwrap().unwrap();
        assert_eq!(row.value.partner, partner_id("acme"), "another put changes nothing");
    }

    async fn the_operators_partner_has_the_empty_id_and_is_not_listed(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let mut nobody = partner("acme");
        nobody.id = PartnerId::nobody();
        demo.put(async |change| change.put_partner(&nobody).await.unwrap()).await;
        let mut snapshot = demo.snapshot().await;
        let found = snapshot.find_partner(&realm_id("demo"), &PartnerId::nobody()).await.unwrap();
        assert_eq!(found.unwrap().value, nobody);
        assert!(snapshot.list_partners(&realm_id("demo"), "", 10, Some).await.unwrap().items.is_empty());
        assert_eq!(snapshot.all_partners().await.unwrap().len(), 1);
    }

    /// Seen red without the condition on the details, and with one that looks for the word `began` alone.
    async fn suspensions_are_found_among_the_changes_of_partners(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let quoted = "\"suspension\":\"began\"";
        for (kind, details) in [
            (EventKind::PartnerPut, &[("suspended", "true"), ("suspension", "began")][..]),
            (EventKind::PartnerPut, &[("display_name", ODD), ("suspended", "false"), ("suspension", "ended")]),
            (EventKind::PartnerPut, &[("display_name", quoted), ("suspended", "true")]),
            // As version 0.1.0 writes it.
            (EventKind::PartnerPut, &[("suspended", "true")]),
            (EventKind::ProjectPut, &[("suspension", "began")]),
        ] {
            let change = demo.change().await;
            let detail = details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let event = Event {
                detail: detail.collect(),
                ..event(&change, kind, about("demo"))
            };
            change.commit(&event).await.unwrap();
        }
        let mut snapshot = demo.snapshot().await;
        let (began, ended) = (SoughtKind::Suspension(Suspension::Began), SoughtKind::Suspension(Suspension::Ended));
        let [partners, projects] = [EventKind::PartnerPut, EventKind::ProjectPut].map(SoughtKind::Every);
        for (kinds, expected) in [
            (vec![began], vec![2]),
            (vec![ended], vec![3]),
            (vec![ended, began, began], vec![3, 2]),
            (vec![projects, began], vec![6, 2]),
            (vec![partners, began], vec![5, 4, 3, 2]),
            (SoughtKind::all().collect(), vec![6, 5, 4, 3, 2, 1]),
        ] {
            let filter = EventFilter { kinds, limit: 10, ..EventFilter::default() };
            let page = snapshot.list_events(&filter, Some).await.unwrap();
            let listed: Vec<_> = page.items.iter().map(|event| event.revision.as_u64()).collect();
            assert_eq!(listed, expected, "{filter:?}");
        }
    }

    async fn events_are_found_by_realm_partner_key_kind_and_time_newest_first(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let id = KeyId::from_bytes([3; 16]);
        for (kind, partner, key, peer) in [
            (EventKind::PartnerPut, Some("acme"), None, "[2001:db8::1]:1"),
            (EventKind::KeyIssued, Some("acme"), Some(id), ODD),
            (EventKind::KeyIssued, Some("Acme"), None, ""),
        ] {
            let change = demo.change().await;
            let mut subject = about("demo");
            subject.partner = partner.map(partner_id);
            subject.key = key;
            let event = Event {
                revision: change.revision(),
                time: change.time(),
                actor: Actor { key, peer: peer.to_owned() },
                kind,
                subject,
                detail: BTreeMap::from([(ODD.to_owned(), ODD.to_owned())]),
            };
            change.commit(&event).await.unwrap();
        }
        let any = || EventFilter { limit: 10, ..EventFilter::default() };
        let mut snapshot = demo.snapshot().await;
        for (filter, expected) in [
            (any(), vec![4, 3, 2, 1]),
            (EventFilter { realm: Some(realm_id("demo")), ..any() }, vec![4, 3, 2, 1]),
            (EventFilter { realm: Some(realm_id("other")), ..any() }, vec![]),
            (EventFilter { partner: Some(partner_id("acme")), ..any() }, vec![3, 2]),
            (EventFilter { key: Some(id), ..any() }, vec![3]),
            (EventFilter { kinds: vec![SoughtKind::Every(EventKind::KeyIssued)], ..any() }, vec![4, 3]),
            (EventFilter { from: Some(at(4)), ..any() }, vec![4, 3]),
            (EventFilter { until: Some(at(4)), ..any() }, vec![2, 1]),
            (EventFilter { before: Some(Revision::from(3)), ..any() }, vec![2, 1]),
            (EventFilter { limit: 2, ..any() }, vec![4, 3]),
        ] {
            let page = snapshot.list_events(&filter, Some).await.unwrap();
            let listed: Vec<_> = page.items.iter().map(|event| event.revision.as_u64()).collect();
            assert_eq!(listed, expected, "{filter:?}");
            assert_eq!(page.next.is_some(), filter.limit == 2);
        }
        let page = snapshot.list_events(&EventFilter { key: Some(id), ..any() }, Some).await.unwrap();
        let event = &page.items[0];
        assert_eq!((event.actor.key, event.actor.peer.as_str(), &event.detail[ODD][..]), (Some(id), ODD, ODD));
    }

    async fn corrupt_rows_hurt_only_themselves(engine: Engine) {
        let demo = DemoStore::new(engine).await;
        let (bad, good) = (key(1), key(2));
        demo.put(async |change| {
            change.insert_key(&bad).await.unwrap();
            change.insert_key(&good).await.unwrap();
            change.put_realm(&realm("other")).await.unwrap();
            change.put_partner(&partner("acme")).await.unwrap();
        }).await;
        demo.test_store.execute_sql(&[
            "UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE facts LIKE '%01010101%'",
            "UPDATE realms SET definition = replace(definition, '\"levels\"', '\"devils\"') WHERE id = 'other'",
            "INSERT INTO partners VALUES ('demo', 'not a word', '', FALSE, 1, 1)",
            "UPDATE events SET kind = 'no.such.kind' WHERE revision = 2",
        ]).await;
        let mut snapshot = demo.snapshot().await;
        assert!(matches!(snapshot.find_key(bad.id).await, Err(Error::Corrupt(_))));
        assert_eq!(snapshot.find_realm_of_key(bad.id).await.unwrap(), Some(realm_id("demo")));
        assert_eq!(snapshot.list_keys(&all_keys(), Some).await.unwrap().items.len(), 1);
        let rows = every_key(&mut snapshot).await;
        assert_eq!(rows, BTreeMap::from([(bad.id, false), (good.id, true)]));
        assert!(matches!(snapshot.find_realm(&realm_id("other")).await, Err(Error::Corrupt(_))));
        let realms = snapshot.all_realms().await.unwrap();
        let unreadable: Vec<_> = realms.iter().filter_map(|realm| realm.as_ref().err()).collect();
        assert_eq!((realms.len(), unreadable), (2, vec![&realm_id("other")]));
        assert_eq!(snapshot.all_partners().await.unwrap().len(), 1);
        let entries = snapshot.feed(Revision::from(1), 10).await.unwrap();
        let readable: Vec<_> = entries.iter().map(|entry| entry.change.is_some()).collect();
        assert_eq!(readable, [true, false]);
        let events = EventFilter { limit: 10, ..EventFilter::default() };
        assert_eq!(snapshot.list_events(&events, Some).await.unwrap().items.len(), 1);
    }
}
