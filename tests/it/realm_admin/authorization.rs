//! Who may define a realm.

use claviger::pb::claviger::v1 as pb;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::fixtures::realm_definitions::{
    put_realm, realm_key, realm_with_routes, refused_definitions,
};
use crate::fixtures::{Engine, Program, TestStore, demo_realm};

/// A caller who may not put a realm is told that first, also of a wrong definition; a caller who may is told what is wrong with
/// it. The processor time of each is printed: some milliseconds on a release build.
///
/// Seen red with the program that checked rules first: all are told `INVALID_ARGUMENT`.
#[tokio::test]
async fn nobody_has_rules_checked_for_a_realm_that_they_may_not_manage() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut operator = program.api();
    operator.make_demo().await;
    put_realm(&mut operator, realm_with_routes("other", Vec::new()))
        .await
        .unwrap();
    let mut owner = program
        .api()
        .with_key(&realm_key(&mut operator, "demo", "manage").await);
    let mut strangers = vec![
        program
            .api()
            .with_key(&realm_key(&mut operator, "demo", "verify").await),
        program
            .api()
            .with_key(&realm_key(&mut operator, "other", "manage").await),
    ];
    for (what, routes, field) in refused_definitions() {
        let demo = pb::Realm {
            routes,
            ..demo_realm()
        };
        let mut times = vec![program.processor_time()];
        for stranger in &mut strangers {
            let refused = put_realm(stranger, demo.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{what}");
        }
        times.push(program.processor_time());
        let refused = put_realm(&mut owner, demo).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}");
        let fields = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, field, "{what}: {}", fields[0].description);
        times.push(program.processor_time());
        let [strangers, own] = [0, 1].map(|i| times[i + 1].saturating_sub(times[i]));
        println!("{what}: {strangers:?} for two who may not, {own:?} for one who may");
    }
    let nameless = realm_with_routes("No Id", Vec::new());
    let refused = put_realm(&mut strangers[0], nameless.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = put_realm(&mut owner, nameless).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
