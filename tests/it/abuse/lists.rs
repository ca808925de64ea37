//! Lists of large rows, and how much memory they take together.

use claviger::pb::claviger::v1 as pb;

use crate::fixtures::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, call, frame, message};
use crate::fixtures::realm_definitions::{put_realm, realm_with_routes};
use crate::fixtures::{Api, Engine, Program, TestStore, authority_key_request, on_both_engines};

/// How many lists there are at once, all with one operator's key.
const LISTS: usize = 8;

/// How many pages of one operator's key are in memory at once.
const PAGES: u64 = 4;

/// How much a page of these rows may take while it is made, in KiB. Encoded it has at most a megabyte, but many short names take
/// ten times as much in memory, and the row that does not fit is decoded too.
const MOST_OF_A_PAGE: u64 = 16 * 1024;

/// How many pages the test asks for and does not read.
const UNREAD: u32 = 30;

const EVENTS: u32 = 100;
const REALMS: u32 = 32;
const ROUTES: usize = 300;

/// A realm with many short names.
fn large_realm() -> pb::Realm {
    let scope = |number: usize| {
        let digits: Vec<char> = ('a'..='z').collect();
        format!("{}{}", digits[number / 26 % 26], digits[number % 26])
    };
    let some = |first: usize| {
        (0..64)
            .map(|i| scope((first + i) % 256))
            .collect::<Vec<_>>()
    };
    let routes = (0..ROUTES)
        .map(|number| pb::Route {
            path: format!("/{number}"),
            scopes: some(number),
            any_scopes: some(number + 64),
            ..Default::default()
        })
        .collect();
    let scopes = (0..256).map(|number| pb::Scope {
        name: scope(number),
        ..Default::default()
    });
    pb::Realm {
        scopes: scopes.collect(),
        ..realm_with_routes("big", routes)
    }
}

/// A program whose store has many large realms, and many events as version 0.1.0 wrote them, with the definition.
async fn program_with_large_rows(test_store: &TestStore, engine: Engine) -> Program {
    let mut program = Program::serve(test_store, &[]);
    let mut api = program.api();
    put_realm(&mut api, large_realm()).await.unwrap();
    let addresses = [program.address.clone(), program.http.clone()];
    program.kill();
    let text = match engine {
        Engine::Sqlite => "printf('%.*c', 780000, 'x')",
        Engine::Postgres => "repeat('x', 780000)",
    };
    let numbers = |most: u32| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})")
    };
    let events = format!(
        "{} INSERT INTO events (revision, stamp, time, actor, peer, kind, realm, detail)
         SELECT e.revision + n.i, n.i, e.time + n.i, e.actor, e.peer, e.kind, e.realm,
                '{{\"definition\":\"' || {text} || '\"}}'
         FROM n, authority AS a JOIN events AS e ON e.revision = a.revision",
        numbers(EVENTS)
    );
    let counter =
        format!("UPDATE authority SET revision = revision + {EVENTS}, clock = clock + {EVENTS}");
    let realms = format!(
        "{} INSERT INTO realms (id, definition, revision, created_at)
         SELECT 'big' || n.i, replace(definition, '\"big\"', '\"big' || n.i || '\"'), revision, created_at
         FROM n, realms WHERE id = 'big'",
        numbers(REALMS)
    );
    test_store.execute_sql(&[&events, &counter, &realms]).await;
    let [grpc, http] = &addresses;
    Program::serve_at(test_store, [grpc, http], &[])
}

/// Reads as large a page of the audit trail as there is.
async fn list_events(mut api: Api) {
    let request = pb::ListEventsRequest {
        kind: "realm.put".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let page = api.keys.list_events(request).await.unwrap().into_inner();
    assert!(page.events[0].detail.contains_key("definition"));
    assert_ne!(page.next_page_token, "");
}

/// Reads as large a page of realms as there is.
async fn list_realms(mut api: Api) {
    let request = pb::ListRealmsRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let page = api.realms.list_realms(request).await.unwrap().into_inner();
    assert!(page.realms.iter().any(|realm| realm.routes.len() == ROUTES));
    assert_ne!(page.next_page_token, "");
}

/// Asks for many pages and reads none of them. Returns the connection and how many pages the server has made: the other calls are
/// ended by their own deadline, because they wait for a permit.
async fn leave_unread(program: &Program) -> (Raw, u64) {
    let mut raw = Raw::http2(&program.address, 2, &[]).await;
    let bearer = format!("Bearer {}", program.operator());
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "5S")];
    let head = call("/claviger.v1.RealmAdmin/ListRealms", &headers);
    let question = message(&pb::ListRealmsRequest {
        page_size: 1_000,
        ..Default::default()
    });
    for number in 0..UNREAD {
        let stream = 2 * number + 1;
        let frames = [
            frame(HEADERS, END_HEADERS, stream, &head),
            frame(DATA, END_STREAM, stream, &question),
        ];
        raw.send(&frames.concat()).await.unwrap();
    }
    let (mut pages, mut answered) = (0, 0);
    // The flow control of HTTP/2 lets no page through as a whole, because the client never gives more room.
    while answered < UNREAD {
        let frame = raw.next().await.expect("the connection is kept");
        if frame.kind == HEADERS {
            answered += 1;
            pages += u64::from(frame.flags & END_STREAM == 0);
        }
    }
    (raw, pages)
}

/// Runs the same list on so many connections at once.
async fn at_once<F>(program: &Program, list: impl Fn(Api) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let lists: Vec<_> = (0..LISTS)
        .map(|_| tokio::spawn(list(program.api())))
        .collect();
    for list in lists {
        list.await.unwrap();
    }
}

on_both_engines! {
    /// The memory of lists is bounded by the pages in progress, and not by what is in the store. Seen red with the program that
    /// read a whole page of rows at once (more than 80 MiB for either list), without permits, and with permits that the body of
    /// the answer holds, and not its bytes.
    async fn lists_of_large_rows_take_memory_for_their_pages_only(engine: Engine) {
        let test_store = TestStore::on(engine);
        let program = program_with_large_rows(&test_store, engine).await;
        let mut api = program.api();
        let another = api.keys.issue_key(authority_key_request("operator", "")).await;
        let another = another.unwrap().into_inner().plain_key;
        program.forget_peak_memory();
        let before = program.peak_memory();
        let grown = |by: &str| {
            let grown = program.peak_memory().saturating_sub(before);
            println!("{by}: + {grown} KiB");
            assert!(grown < PAGES * MOST_OF_A_PAGE, "{by}: + {grown} KiB");
        };
        at_once(&program, list_realms).await;
        grown("lists of realms");
        at_once(&program, list_events).await;
        grown("lists of events");
        let (raw, pages) = leave_unread(&program).await;
        grown("pages that are not read");
        assert!((1..=PAGES).contains(&pages), "{pages} pages");
        // Another key need not wait, and the same one need not when the connection is gone.
        list_realms(api.with_key(&another)).await;
        drop(raw);
        list_realms(api).await;
    }
}
