//! Definitions of realms that are made to be expensive, and what they cost the others.

use claviger::pb::claviger::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fixtures::{Api, Engine, Place, Program, demo_realm, issue_request};

fn route(path: &str, methods: &[String]) -> pb::Route {
    pb::Route {
        path: path.to_owned(),
        methods: methods.to_vec(),
        ..Default::default()
    }
}

fn repeated(count: usize, segment: impl Fn(usize) -> String) -> String {
    (0..count).map(segment).collect::<Vec<_>>().concat()
}

fn method(number: usize) -> String {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ"[number..number + 5].to_owned()
}

fn realm(id: &str, routes: Vec<pb::Route>) -> pb::Realm {
    pb::Realm {
        id: id.to_owned(),
        prefix: id.to_owned(),
        routes,
        ..demo_realm()
    }
}

/// Definitions that are refused, each with the field that is named.
fn refused() -> Vec<(&'static str, Vec<pb::Route>, &'static str)> {
    let all = |one: &dyn Fn(usize) -> pb::Route| (0..1_000).map(one).collect::<Vec<_>>();
    let deep = "/a".repeat(250);
    let parameters = repeated(80, |number| format!("/{{p{number}}}"));
    let scopes: Vec<_> = (0..64).map(|number| format!("s{number}")).collect();
    vec![
        (
            "250 equal segments in each rule",
            all(&|_| route(&deep, &[])),
            "realm.routes[0].path",
        ),
        (
            "31 methods and 80 parameters",
            all(&|i| {
                route(
                    &format!("/{i}{parameters}"),
                    &(i < 31).then(|| method(i)).into_iter().collect::<Vec<_>>(),
                )
            }),
            "realm.routes[0].path",
        ),
        (
            "17 segments in each rule",
            all(&|i| route(&format!("/{i}{}", "/a".repeat(16)), &[])),
            "realm.routes",
        ),
        (
            "a rest between two segments in each rule",
            all(&|i| route(&format!("/**/{i}/**/x"), &[])),
            "realm.routes",
        ),
        (
            "scopes that do not exist in each rule",
            all(&|i| pb::Route {
                scopes: scopes.clone(),
                ..route(&format!("/{i}"), &[])
            }),
            "realm.routes[0].scopes",
        ),
        (
            "half a million empty rules",
            vec![pb::Route::default(); 500_000],
            "realm.routes",
        ),
        (
            "the same rule again and again",
            all(&|_| route("/a/b/c/d/e/f/g/h/{i}/j/k/l/m/n/o/p", &[])),
            "realm.routes[1].path",
        ),
    ]
}

/// The largest definitions that are accepted.
fn largest(id: &str) -> [pb::Realm; 3] {
    let rules = |one: &dyn Fn(usize) -> pb::Route| (0..500).map(one).collect::<Vec<_>>();
    let parameters = repeated(31, |number| format!("/{{p{number}}}"));
    [
        rules(&|i| route(&format!("/r{i}{parameters}"), &[method(i % 31)])),
        rules(&|i| {
            let own = repeated(32, |depth| format!("/segment{i}-{depth}"));
            route(&own, &[])
        }),
        (0..1_000)
            .map(|i| pb::Route {
                scopes: vec!["read".to_owned()],
                ..route(
                    &format!("/{i}/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o"),
                    &["GET".to_owned()],
                )
            })
            .collect(),
    ]
    .map(|routes| realm(id, routes))
}

async fn put(api: &mut Api, realm: pb::Realm) -> Result<u64, Status> {
    let request = pb::PutRealmRequest {
        realm: Some(realm),
        ..Default::default()
    };
    let answer = api.realms.put_realm(request).await?;
    Ok(answer.into_inner().revision)
}

async fn key(api: &mut Api, realm: &str, scope: &str) -> String {
    let request = pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        partner: realm.to_owned(),
        scopes: vec![scope.to_owned()],
        ..Default::default()
    };
    let issued = api.keys.issue_key(request).await.unwrap();
    issued.into_inner().plain_key
}

/// A caller who may not put a realm is told that first, also of a wrong definition; a caller who may is told what is wrong with
/// it. The processor time of each is printed: some milliseconds on a release build.
///
/// Seen red with the program that checked rules first: all are told `INVALID_ARGUMENT`.
#[tokio::test]
async fn nobody_has_rules_checked_for_a_realm_that_they_may_not_manage() {
    let place = Place::on(Engine::Sqlite);
    let program = Program::serve(&place, &[]);
    let mut operator = program.api();
    operator.make_demo().await;
    put(&mut operator, realm("other", Vec::new()))
        .await
        .unwrap();
    let mut owner = program
        .api()
        .with_key(&key(&mut operator, "demo", "manage").await);
    let mut strangers = vec![
        program
            .api()
            .with_key(&key(&mut operator, "demo", "verify").await),
        program
            .api()
            .with_key(&key(&mut operator, "other", "manage").await),
    ];
    for (what, routes, field) in refused() {
        let demo = pb::Realm {
            routes,
            ..demo_realm()
        };
        let mut times = vec![program.processor_time()];
        for stranger in &mut strangers {
            let refused = put(stranger, demo.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{what}");
        }
        times.push(program.processor_time());
        let refused = put(&mut owner, demo).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}");
        let fields = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, field, "{what}: {}", fields[0].description);
        times.push(program.processor_time());
        let [strangers, own] = [0, 1].map(|i| times[i + 1].saturating_sub(times[i]));
        println!("{what}: {strangers:?} for two who may not, {own:?} for one who may");
    }
    let nameless = realm("No Id", Vec::new());
    let refused = put(&mut strangers[0], nameless.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = put(&mut owner, nameless).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// How large the table of a realm's routes is, `src/domain/route/tests.rs` says exactly; here is what the program makes of it.
///
/// Seen red with the program before the trie, which made a tree for each method.
#[tokio::test]
async fn no_definition_makes_the_program_large() {
    const MOST: u64 = 64 * 1_024;
    let place = Place::on(Engine::Sqlite);
    let mut program = Program::serve(&place, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let before = program.peak_memory();
    for realm in largest("demo") {
        put(&mut api, realm).await.unwrap();
    }
    // What half a million rules cost is their decoding.
    for (_, routes, _) in refused()
        .into_iter()
        .filter(|(_, routes, _)| routes.len() <= 1_000)
    {
        let _ = put(&mut api, realm("demo", routes)).await;
    }
    let after = program.peak_memory();
    println!("{before} KiB before, {after} KiB after");
    assert!(
        after - before < MOST,
        "{before} KiB before, {after} KiB after"
    );
    let addresses = [program.address.clone(), program.http.clone()];
    let [grpc, http] = &addresses;
    program.kill();
    let program = Program::serve_at(&place, [grpc, http], &[]);
    let again = program.peak_memory();
    assert!(again < before + MOST, "{again} KiB after a start");
}

/// Seen red with the program before the trie: while its feed made a tree for each method, no revocation came into force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_puts_large_realms_holds_up_no_revocation_elsewhere() {
    let place = Place::on(Engine::Sqlite);
    let program = Program::serve(&place, &[]);
    let mut operator = program.api();
    operator.make_demo().await;
    put(&mut operator, realm("large", Vec::new()))
        .await
        .unwrap();
    let mut manager = program
        .api()
        .with_key(&key(&mut operator, "large", "manage").await);
    let putting = tokio::spawn(async move {
        for round in 0..4 {
            for (what, routes, _) in refused() {
                let put = put(&mut manager, realm("large", routes)).await;
                println!(
                    "round {round}, {what}: {:?}",
                    put.map_err(|status| status.code())
                );
            }
            for definition in largest("large") {
                put(&mut manager, definition).await.unwrap();
            }
        }
    });
    let mut revoked = 0;
    while !putting.is_finished() {
        let issued = operator
            .keys
            .issue_key(issue_request())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            operator.verdict(&issued.plain_key).await,
            pb::Verdict::Allowed
        );
        operator.revoke(&issued.key.unwrap().id).await.unwrap();
        assert_eq!(
            operator.verdict(&issued.plain_key).await,
            pb::Verdict::Revoked
        );
        revoked += 1;
    }
    putting.await.unwrap();
    println!("{revoked} keys were issued and revoked meanwhile");
    assert!(revoked >= 3);
}
