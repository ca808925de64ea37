//! Imports of more keys than one statement inserts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::domain::event::{EventKind, Revision};
use claviger::domain::ids::{KeyId, RealmId};
use claviger::mirror::Feed;
use claviger::pb::claviger::v1 as pb;
use claviger::store::EventFilter;
use pb::Verdict;
use pb::import_result::Result as Imported;
use tonic::Code;

use crate::fixtures::{
    Api, Engine, Program, Proxy, Refusal, Service, TestStore, authority_key_request, demo_realm,
    eventually, import, import_entry, import_into, import_outcome, issue, issue_request,
    list_in_states, on_both_engines, refused, request_id, strings,
};

/// How long everything travels between the server and its database, in each direction.
const ONE_WAY: Duration = Duration::from_micros(1_500);

/// How many round trips a transaction of an import may take. It takes 61 to write a thousand keys.
const MAX_ROUND_TRIPS: usize = 75;

/// How many keys are imported at once, if it need not be a thousand: neither the rows of one statement nor a multiple of them.
const MANY: usize = 250;

/// How many entries of all kinds there are. More of them are new than one statement inserts.
const MIXED: usize = 520;

/// The key of this number in the other system.
fn plain_key(system: &str, number: usize) -> String {
    format!("{system}.s3fzXw8Rk2VbN5yLm9Qp4TdH{number:08}")
}

fn entries(system: &str, count: usize) -> Vec<pb::ImportEntry> {
    let entry = |number| pb::ImportEntry {
        name: format!("number {number}"),
        ..import_entry(&plain_key(system, number))
    };
    (0..count).map(entry).collect()
}

async fn revision(service: &Service) -> u64 {
    let mut snapshot = service.store.snapshot().await.unwrap();
    snapshot.revision().await.unwrap().as_u64()
}

async fn count_keys(service: &Service) -> u64 {
    let realm = RealmId::parse("demo").unwrap();
    let mut snapshot = service.store.snapshot().await.unwrap();
    snapshot.count_keys(&realm, None, None).await.unwrap()
}

/// Compares the mirror with one that reads the store anew.
async fn assert_mirror_is_what_the_store_says(service: &Service) {
    let interval = Duration::from_secs(1);
    let mut fresh = Feed::new(service.store.clone(), Clock::system(), interval);
    fresh.load().await.unwrap();
    let described = service.mirror.index().describe();
    assert_eq!(described, fresh.mirror().index().describe());
}

/// Seen red with `INSERTS_AT_ONCE` 1 (a revocation is then refused as `BUSY`), and without `LookupCache::read_ahead` (1,013 round
/// trips to check).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_revoked_while_a_thousand_are_imported_over_a_slow_network() {
    let direct = TestStore::on(Engine::Postgres);
    let system = Clock::system;
    let service = Service::start_with(direct.clone(), system(), "", &[]).await;
    let mut root = service.api();
    root.make_demo().await;
    // More keys than can be revoked during the import.
    let to_revoke = import(&mut root, entries("revoked", 600)).await;
    let mut to_revoke = to_revoke.into_iter().map(Result::unwrap);
    let operator = service.operator.clone();
    service.stop().await;
    let partners = "INSERT INTO partners (realm, id, display_name, suspended, revision, created_at)
        SELECT 'demo', 'partner-' || number, '', FALSE, 1, 1 FROM generate_series(0, 999) AS number";
    direct.execute_sql(&[partners]).await;

    let proxy = Proxy::to(direct.database().cluster.socket()).await;
    let test_store = direct.through(&proxy);
    let service = Service::start_with(test_store, system(), &operator, &[]).await;
    let mut root = service.api();
    let mut entries = entries("new", 1_000);
    for (number, entry) in entries.iter_mut().enumerate() {
        entry.partner = format!("partner-{number}");
    }
    let mut api = service.api();
    proxy.set_delay(ONE_WAY);
    proxy.take_transactions();
    let importing = tokio::spawn(async move {
        let began = Instant::now();
        let outcomes = import(&mut api, entries).await;
        (outcomes, began.elapsed())
    });
    let (mut revoked, mut longest) = (0, Duration::ZERO);
    while !importing.is_finished() {
        let id = to_revoke.next().expect("the import takes less time");
        let began = Instant::now();
        root.revoke(&id).await.expect("keys can be revoked");
        longest = longest.max(began.elapsed());
        revoked += 1;
    }
    let (outcomes, took) = importing.await.unwrap();
    let transactions = proxy.take_transactions();
    let round_trips = |writes| {
        let some = transactions.iter().filter(|each| each.writes == writes);
        some.map(|each| each.round_trips).max().unwrap()
    };
    let (checking, changing) = (round_trips(false), round_trips(true));
    println!(
        "a thousand keys in {took:.1?}, {checking} round trips to check, {changing} in the change; {revoked} keys revoked \
         meanwhile, each in at most {longest:.1?}"
    );
    assert!(checking <= MAX_ROUND_TRIPS, "{checking} round trips");
    assert!(changing <= MAX_ROUND_TRIPS, "{changing} round trips");
    assert!(outcomes.iter().all(Result::is_ok));
    for number in [0, 500, 999] {
        let plain_key = plain_key("new", number);
        assert_eq!(root.verdict(&plain_key).await, Verdict::Allowed);
    }
    proxy.set_delay(Duration::ZERO);
    assert_mirror_is_what_the_store_says(&service).await;
    service.stop().await;
}

on_both_engines! {
    /// Seen red with one stamp for all events of a statement.
    async fn each_key_of_an_import_is_a_change_of_its_own(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let before = revision(&service).await;
        let request = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: entries("many", MANY),
            request_id: request_id(),
            ..Default::default()
        };
        let answer = root.keys.import_keys(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.revision, before + MANY as u64);
        let ids = answer.results.into_iter().map(|result| KeyId::parse(&import_outcome(result).unwrap()).unwrap());
        let ids: Vec<_> = ids.collect();

        let mut snapshot = service.store.snapshot().await.unwrap();
        let stamps: HashSet<_> = snapshot
            .feed(Revision::from(before + 1), 1_000)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.id.stamp)
            .collect();
        assert_eq!(stamps.len(), MANY, "each event has a stamp of its own");
        let filter = EventFilter { limit: 1_000, ..Default::default() };
        let mut events = snapshot.list_events(&filter, Some).await.unwrap().items;
        events.reverse();
        let revisions: Vec<_> = events.iter().map(|event| event.revision.as_u64()).collect();
        let expected: Vec<_> = (1..=before + MANY as u64).collect();
        assert_eq!(revisions, expected, "there are no gaps");
        assert!(events.is_sorted_by(|one, next| one.time < next.time), "times only rise");
        let events = &events[before as usize..];
        for (number, (event, id)) in events.iter().zip(&ids).enumerate() {
            assert_eq!((event.kind, event.subject.key), (EventKind::KeyImported, Some(*id)));
            assert_eq!(event.actor, events[0].actor);
            assert_eq!(event.detail["name"], format!("number {number}"));
            assert_eq!(event.detail["request_id"], request.request_id);
            let key = snapshot.find_key(*id).await.unwrap().unwrap();
            assert_eq!((key.created_revision, key.revision), (event.revision, event.revision));
            assert_eq!((key.created_at, key.secrets[0].created_at), (event.time, event.time));
        }
        drop(snapshot);
        for number in [0, MANY / 2, MANY - 1] {
            let found = root.ask(&plain_key("many", number)).await;
            assert_eq!(found.verdict(), Verdict::Allowed);
            assert_eq!(found.key.unwrap().id, ids[number].to_string());
        }
        assert_mirror_is_what_the_store_says(&service).await;

        // Sent again it is answered from its record. The next change follows the last key.
        let again = root.keys.import_keys(request).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!(again.revision, before + MANY as u64);
        let next = root.keys.issue_key(issue_request()).await.unwrap().into_inner();
        assert_eq!(next.revision, before + MANY as u64 + 1);
        let last = service.store.snapshot().await.unwrap().list_events(&filter, Some).await.unwrap().items.remove(0);
        assert!(last.time > events[MANY - 1].time);
        service.stop().await;
    }

    /// Seen red with every named partner taken for known if one of them is, and with keys shown that the caller does not reach.
    async fn entries_fare_together_as_they_do_one_by_one(engine: Engine) {
        let together = Prepared::on(engine).await;
        let alone = Prepared::on(engine).await;
        let entries: Vec<_> = (0..MIXED).map(mixed_entry).collect();

        let mut manager = together.manager().await;
        let request = |dry_run| pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: entries.clone(),
            dry_run,
            ..Default::default()
        };
        let dry = manager.keys.import_keys(request(true)).await.unwrap().into_inner();
        let done = manager.keys.import_keys(request(false)).await.unwrap().into_inner();
        let dry: Vec<_> = dry.results.into_iter().map(|result| together.told(result)).collect();
        let done: Vec<_> = done.results.into_iter().map(|result| together.told(result)).collect();
        assert_eq!(dry, done);

        let mut manager = alone.manager().await;
        for (number, (entry, done)) in entries.into_iter().zip(&done).enumerate() {
            if number % KINDS == REPEATED {
                continue;
            }
            let request = pb::ImportKeysRequest {
                realm: "demo".to_owned(),
                entries: vec![entry],
                ..Default::default()
            };
            let mut answer = manager.keys.import_keys(request).await.unwrap().into_inner();
            assert_eq!(alone.told(answer.results.remove(0)), *done, "entry {number}");
        }
        let expected = [
            ["imported"; 2],
            ["imported"; 2],
            ["ALREADY_IMPORTED", "is_known"],
            ["ALREADY_IMPORTED", "KEY_STATE_REVOKED"],
            // Of these the metadata tells nothing.
            ["ALREADY_IMPORTED", " {}"],
            ["ALREADY_IMPORTED", " {}"],
            ["ALREADY_IMPORTED", " {}"],
            ["NotFound"; 2],
            ["NotFound"; 2],
            ["InvalidArgument"; 2],
        ];
        for (number, done) in done.iter().enumerate() {
            let expected = expected[number % KINDS];
            assert!(expected.iter().all(|part| done.contains(part)), "entry {number}: {done}");
        }
        assert_eq!(count_keys(&together.service).await, count_keys(&alone.service).await);
        for service in [together.service, alone.service] {
            let mut root = service.api();
            for number in [0, MIXED / 2, MIXED - KINDS] {
                assert_eq!(root.verdict(&plain_key("mixed", number)).await, Verdict::Allowed);
            }
            assert_mirror_is_what_the_store_says(&service).await;
            service.stop().await;
        }
    }

    /// Seen red with a commit after each statement that inserts roots.
    async fn an_import_that_fails_in_the_middle_leaves_nothing(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let before = revision(&service).await;
        let test_store = Arc::clone(&service.test_store);
        let fails: &[&str] = match engine {
            Engine::Sqlite => &["CREATE TRIGGER fails BEFORE INSERT ON imports WHEN (SELECT count(*) FROM imports) = 150
                BEGIN SELECT RAISE(ABORT, 'in the middle'); END"],
            Engine::Postgres => &[
                "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF (SELECT count(*) FROM imports) = 150 THEN RAISE 'in the middle'; END IF;
                     RETURN NEW; END $$",
                "CREATE TRIGGER fails BEFORE INSERT ON imports FOR EACH ROW EXECUTE FUNCTION fails()",
            ],
        };
        test_store.execute_sql(fails).await;
        let request = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: entries("many", MANY),
            request_id: request_id(),
            ..Default::default()
        };
        root.keys.import_keys(request.clone()).await.unwrap_err();
        assert_eq!(count_keys(&service).await, 0);
        assert_eq!(revision(&service).await, before);
        let (events, _, last) = service.store.snapshot().await.unwrap().history().await.unwrap();
        assert_eq!((events, last.as_u64()), (before, before));

        let works = match engine {
            Engine::Sqlite => "DROP TRIGGER fails",
            Engine::Postgres => "DROP TRIGGER fails ON imports",
        };
        test_store.execute_sql(&[works]).await;
        let answer = root.keys.import_keys(request).await.unwrap().into_inner();
        assert!(!answer.replayed);
        assert_eq!(answer.revision, before + MANY as u64);
        assert_eq!(count_keys(&service).await, MANY as u64);
        assert_mirror_is_what_the_store_says(&service).await;
        service.stop().await;
    }

    /// Seen red with a corrupt key taken for one that does not exist: the operator then gets an answer.
    async fn of_a_corrupt_key_only_those_hear_who_may(engine: Engine) {
        let Prepared { service, names } = Prepared::on(engine).await;
        let (id, _) = names.iter().find(|(_, name)| *name == "is_elsewhere 0").unwrap();
        let corrupt = format!("UPDATE keys SET facts = replace(facts, '\"mac\"', '\"mad\"') WHERE facts LIKE '%{id}%'");
        service.test_store.execute_sql(&[&corrupt]).await;
        let mut entries = entries("elsewhere", 2);
        entries.extend(self::entries("new", 1));
        let manager = issue(&mut service.api(), authority_key_request("manage", "demo")).await;
        let outcomes = import(&mut service.api_as(&manager.plain_key), entries.clone()).await;
        for refusal in outcomes[..2].iter().map(|outcome| outcome.as_ref().unwrap_err()) {
            assert_eq!((refusal.reason.as_str(), refusal.metadata.len()), ("ALREADY_IMPORTED", 0));
        }
        assert!(outcomes[2].is_ok());
        let request = pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries,
            ..Default::default()
        };
        let refusal = refused(service.api().keys.import_keys(request).await);
        assert_eq!(refusal.code, Code::Internal, "{refusal:?}");
        service.stop().await;
    }
}

/// On SQLite `hundred_thousand_keys.rs` kills an import. Seen red with a commit after each statement that inserts roots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_in_the_middle_leaves_nothing() {
    let test_store = TestStore::on(Engine::Postgres);
    let flags = ["--log", "error,claviger=info"];
    let mut program = Program::serve(&test_store, &flags);
    let mut root = program.api();
    root.make_demo().await;
    let before = root.put_partner("last", false).await.revision;
    let waits = [
        "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT count(*) FROM imports) = 150 THEN PERFORM pg_sleep(600); END IF;
             RETURN NEW; END $$",
        "CREATE TRIGGER waits BEFORE INSERT ON imports FOR EACH ROW EXECUTE FUNCTION waits()",
    ];
    test_store.execute_sql(&waits).await;
    let request = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: entries("many", MANY),
        ..Default::default()
    };
    let mut api = root.clone();
    let sent = request.clone();
    let importing = tokio::spawn(async move { api.keys.import_keys(sent).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    eventually("the import is in the middle", async || {
        (test_store.database().ask(waiting).trim() == "1").then_some(())
    })
    .await;
    program.kill();
    importing.await.unwrap().unwrap_err();
    // The database does not notice before it has slept.
    let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    test_store
        .execute_sql(&[ends, "DROP TRIGGER waits ON imports"])
        .await;

    let mut program = Program::serve(&test_store, &flags);
    let mut root = program.api();
    assert!(list_in_states(&mut root, "demo", &[]).await.is_empty());
    let answer = root.keys.import_keys(request).await.unwrap().into_inner();
    assert!(
        answer
            .results
            .into_iter()
            .all(|result| import_outcome(result).is_ok())
    );
    assert_eq!(answer.revision, before + MANY as u64);
    assert_eq!(list_in_states(&mut root, "demo", &[]).await.len(), MANY);
    program.kill();
}

/// How many kinds of entries [`mixed_entry`] has.
const KINDS: usize = 10;

/// The kind of an entry with the API key of an earlier entry.
const REPEATED: usize = 6;

/// The kinds follow each other.
fn mixed_entry(number: usize) -> pb::ImportEntry {
    let (of_kind, entry) = (number / KINDS, import_entry(&plain_key("mixed", number)));
    let of_project = |project: &str| pb::ImportEntry {
        project: project.to_owned(),
        level: 0,
        ..entry.clone()
    };
    match number % KINDS {
        0 => entry,
        1 => of_project("one"),
        2 => import_entry(&plain_key("known", of_kind)),
        3 => import_entry(&plain_key("revoked", of_kind)),
        4 => import_entry(&plain_key("deleted", of_kind)),
        5 => import_entry(&plain_key("elsewhere", of_kind)),
        REPEATED => import_entry(&plain_key("mixed", number - REPEATED)),
        7 => pb::ImportEntry {
            partner: format!("nobody-{of_kind}"),
            ..entry
        },
        8 if of_kind.is_multiple_of(2) => of_project("none"),
        8 => of_project("three"),
        _ if of_kind.is_multiple_of(2) => pb::ImportEntry {
            scopes: strings(&["ghost"]),
            // The scope is looked at first.
            partner: "nobody".to_owned(),
            ..entry
        },
        _ => pb::ImportEntry {
            expire_time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 0,
            }),
            ..entry
        },
    }
}

/// A server with keys that were imported before, as [`mixed_entry`] names them.
struct Prepared {
    service: Service,
    /// The names of the keys, by their ids.
    names: HashMap<String, String>,
}

impl Prepared {
    async fn on(engine: Engine) -> Self {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        root.put_realm(pb::Realm {
            id: "other".to_owned(),
            prefix: "other".to_owned(),
            ..demo_realm()
        })
        .await;
        let partner = pb::Partner {
            realm: "other".to_owned(),
            id: "acme".to_owned(),
            ..Default::default()
        };
        let request = pb::PutPartnerRequest {
            partner: Some(partner),
            ..Default::default()
        };
        root.realms.put_partner(request).await.unwrap();
        let mut names = HashMap::new();
        let of_each = MIXED / KINDS;
        for system in ["known", "revoked", "deleted", "elsewhere"] {
            let realm = if system == "elsewhere" {
                "other"
            } else {
                "demo"
            };
            let ids = import_into(&mut root, realm, entries(system, of_each)).await;
            for (number, id) in ids.into_iter().enumerate() {
                let id = id.unwrap();
                if matches!(system, "revoked" | "deleted") {
                    root.revoke(&id).await.unwrap();
                }
                if system == "deleted" {
                    root.delete(&id).await.unwrap();
                }
                names.insert(id, format!("is_{system} {number}"));
            }
        }
        Self { service, names }
    }

    /// The API with a key that manages `demo`.
    async fn manager(&self) -> Api {
        let request = authority_key_request("manage", "demo");
        let manager = issue(&mut self.service.api(), request).await;
        self.service.api_as(&manager.plain_key)
    }

    /// All that an outcome tells, with names instead of ids.
    fn told(&self, result: pb::ImportResult) -> String {
        let message = match &result.result {
            Some(Imported::Error(status)) => status.message.clone(),
            _ => String::new(),
        };
        match import_outcome(result) {
            Ok(_) => "imported".to_owned(),
            Err(refusal) => {
                let Refusal {
                    code,
                    reason,
                    fields,
                    metadata,
                } = refusal;
                let named = |value: String| self.names.get(&value).cloned().unwrap_or(value);
                let metadata = metadata
                    .into_iter()
                    .map(|(name, value)| (name, named(value)));
                let metadata: BTreeMap<_, _> = metadata.collect();
                format!("{code:?} {reason} {fields:?} {message:?} {metadata:?}")
            }
        }
    }
}
