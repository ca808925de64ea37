//! Requests that would each need an SQL statement of their own.

use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::fixtures::{
    Engine, Program, Refusal, TestStore, hex_of, import_entry_of, on_both_engines,
};

/// How much the memory of the program may grow, in KiB.
const MOST: u64 = 64 * 1024;

/// How much it may grow by lists of different lengths. It grew by 37 MiB with statements that are kept.
const MOST_FOR_LENGTHS: u64 = 26 * 1024;

/// The number of keys, of which each page has another part.
const KEYS: i32 = 1_000;

/// The number of pages. The driver keeps a hundred statements on each connection, if it is told to keep them.
const PAGES: i32 = 100;

on_both_engines! {
    /// The driver keeps a statement by its text. Seen red without the limit.
    async fn a_list_of_states_is_a_set_of_four(engine: Engine) {
        let test_store = TestStore::on(engine);
        let program = Program::serve(&test_store, &[]);
        let mut api = program.api();
        api.make_demo().await;
        let before = program.peak_memory();
        for more in 0..16 {
            let request = with_states(vec![pb::KeyState::Active.into(); 1_000_000 + more]);
            let refusal = Refusal::of(&api.keys.list_keys(request).await.unwrap_err());
            assert_eq!(refusal.code, Code::InvalidArgument);
            assert_eq!(refusal.fields, ["filter.states"]);
        }
        let growth = program.peak_memory() - before;
        assert!(growth <= MOST, "{growth} KiB");

        // A state that is named twice is one state.
        let twice = [pb::KeyState::Active.into(), pb::KeyState::Revoked.into()].repeat(2);
        api.keys.list_keys(with_states(twice)).await.unwrap();
    }
}

fn with_states(states: Vec<i32>) -> pb::ListKeysRequest {
    pb::ListKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            states,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Seen red with statements for the times of last use that the driver keeps.
#[tokio::test]
async fn statements_for_pages_of_different_lengths_are_not_kept() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let entry = |number: i32| {
        let hash = Sha256::digest(number.to_be_bytes());
        import_entry_of(Secret::Sha256(hex_of(&hash)))
    };
    let import = pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: (0..KEYS).map(entry).collect(),
        ..Default::default()
    };
    api.keys.import_keys(import).await.unwrap();
    let mut list = pb::ListKeysRequest {
        page_size: KEYS,
        ..with_states(Vec::new())
    };
    api.keys.list_keys(list.clone()).await.unwrap();
    let before = program.peak_memory();
    for fewer in 1..=PAGES {
        list.page_size = KEYS - fewer;
        let listed = api.keys.list_keys(list.clone()).await.unwrap();
        assert_eq!(listed.into_inner().keys.len() as i32, list.page_size);
    }
    let growth = program.peak_memory() - before;
    assert!(growth <= MOST_FOR_LENGTHS, "{growth} KiB");
}
