//! Definitions of realms that are made to be expensive, and what they cost the others.

use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use sha2::{Digest, Sha256};

use crate::fixtures::realm_definitions::{
    largest_definitions, put_realm, realm_key, realm_with_routes, refused_definitions,
};
use crate::fixtures::{Engine, Program, TestStore, hex_of, import_entry_of, issue_request};

/// How large the table of a realm's routes is, `src/domain/route/tests.rs` says exactly; here is what the program makes of it.
///
/// Seen red with the program before the trie, which made a tree for each method.
#[tokio::test]
async fn no_definition_makes_the_program_large() {
    const MOST: u64 = 64 * 1_024;
    let test_store = TestStore::on(Engine::Sqlite);
    let mut program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let before = program.peak_memory();
    for realm in largest_definitions("demo") {
        put_realm(&mut api, realm).await.unwrap();
    }
    // What 16,000 empty rules cost is their decoding.
    for (_, routes, _) in refused_definitions()
        .into_iter()
        .filter(|(_, routes, _)| routes.len() <= 1_000)
    {
        let _ = put_realm(&mut api, realm_with_routes("demo", routes)).await;
    }
    let entries = (0..1_000u32)
        .map(|i| import_entry_of(Secret::Sha256(hex_of(&Sha256::digest(i.to_be_bytes())))))
        .collect();
    for realm in largest_definitions("demo") {
        put_realm(&mut api, realm).await.unwrap();
    }
    let request = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries,
        dry_run: true,
        ..Default::default()
    };
    api.keys.import_keys(request).await.unwrap();
    let after = program.peak_memory();
    println!("{before} KiB before, {after} KiB after");
    assert!(
        after - before < MOST,
        "{before} KiB before, {after} KiB after"
    );
    let addresses = [program.address.clone(), program.http.clone()];
    let [grpc, http] = &addresses;
    program.kill();
    let program = Program::serve_at(&test_store, [grpc, http], &[]);
    let again = program.peak_memory();
    assert!(again < before + MOST, "{again} KiB after a start");
}

/// Seen red with the program before the trie: while its feed made a tree for each method, no revocation came into force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_puts_large_realms_holds_up_no_revocation_elsewhere() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut operator = program.api();
    operator.make_demo().await;
    put_realm(&mut operator, realm_with_routes("large", Vec::new()))
        .await
        .unwrap();
    let mut manager = program
        .api()
        .with_key(&realm_key(&mut operator, "large", "manage").await);
    let putting = tokio::spawn(async move {
        for round in 0..4 {
            for (what, routes, _) in refused_definitions() {
                let put = put_realm(&mut manager, realm_with_routes("large", routes)).await;
                println!(
                    "round {round}, {what}: {:?}",
                    put.map_err(|status| status.code())
                );
            }
            for definition in largest_definitions("large") {
                put_realm(&mut manager, definition).await.unwrap();
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
