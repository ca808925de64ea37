//! A hundred thousand keys: taken over, and ended at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::domain::clock::Clock;
use claviger::domain::ids::{PartnerId, RealmId};
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::import_entry::Secret;
use pb::import_result::Result as Imported;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, Program, Service, TestStore, from_env, hex_of, import_entry_of, issue,
    issue_request_with, verify_request,
};

/// How many entries one call may have.
const BATCH: usize = 1_000;

/// How many keys are asked about.
const SAMPLE: usize = 1_000;

fn many() -> usize {
    let many = from_env("CLAVIGER_TEST_MANY", 100_000);
    assert!(
        many >= 2 * BATCH && many.is_multiple_of(BATCH),
        "so many thousands"
    );
    many
}

/// The key of this number in the other system.
fn plain_key(partner: &str, number: usize) -> String {
    format!("{partner}.s3fzXw8Rk2VbN5yLm9Qp4TdH{number:08}")
}

/// The entries of a batch, known by their hashes.
fn batch(partner: &str, first: usize, count: usize) -> pb::ImportKeysRequest {
    let entry = |number| {
        let hash = Sha256::digest(plain_key(partner, number).as_bytes());
        pb::ImportEntry {
            partner: partner.to_owned(),
            ..import_entry_of(Secret::Sha256(hex_of(&hash)))
        }
    };
    pb::ImportKeysRequest {
        realm: "demo".to_owned(),
        entries: (first..first + count).map(entry).collect(),
        ..Default::default()
    }
}

/// Imports so many, in batches; how many were new.
async fn import(api: &mut Api, partner: &str, count: usize) -> Result<usize, Status> {
    let mut new = 0;
    for first in (0..count).step_by(BATCH) {
        let request = batch(partner, first, BATCH.min(count - first));
        let sent = request.entries.len();
        let answer = api.keys.import_keys(request).await?.into_inner();
        assert_eq!(answer.results.len(), sent);
        let made = answer
            .results
            .iter()
            .filter(|result| matches!(&result.result, Some(Imported::KeyId(_))))
            .count();
        assert!(
            made == 0 || made == sent,
            "{made} of a batch of {sent} were new: it was done by half"
        );
        for result in &answer.results {
            if let Some(Imported::Error(status)) = &result.result {
                assert_eq!(
                    Code::from(status.code),
                    Code::AlreadyExists,
                    "{}",
                    status.message
                );
            }
        }
        new += made;
    }
    Ok(new)
}

/// The verdicts on keys that are spread over all of them, each with how often it was given.
async fn sampled(api: &mut Api, partner: &str, count: usize) -> Vec<(Verdict, usize)> {
    let numbers: Vec<_> = (0..SAMPLE.min(count))
        .map(|i| i * count / SAMPLE.min(count))
        .collect();
    let mut verdicts: Vec<(Verdict, usize)> = Vec::new();
    for numbers in numbers.chunks(100) {
        let question = |number: &usize| verify_request(&plain_key(partner, *number));
        let request = pb::VerifyBatchRequest {
            requests: numbers.iter().map(question).collect(),
        };
        let answer = api.verify.verify_batch(request).await.unwrap().into_inner();
        for result in answer.results {
            let Some(pb::verify_batch_result::Result::Response(response)) = result.result else {
                panic!("no answer");
            };
            let verdict = response.verdict();
            match verdicts.iter_mut().find(|(known, _)| *known == verdict) {
                Some((_, count)) => *count += 1,
                None => verdicts.push((verdict, 1)),
            }
        }
    }
    verdicts
}

async fn stored(service: &Service, partner: Option<&str>) -> usize {
    let realm = RealmId::parse("demo").unwrap();
    let partner = partner.map(|partner| PartnerId::parse(partner).unwrap());
    let mut snapshot = service.store.snapshot().await.unwrap();
    let count = snapshot.count_keys(&realm, partner.as_ref(), None).await;
    count.unwrap() as usize
}

/// Seen red, by its time, with each of the keys written anew; and with a level of the revocation left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_the_keys_of_a_partner_are_ended_in_the_time_of_one() {
    let many = many();
    let service = Service::start(Engine::Sqlite).await;
    let mut root = service.api();
    root.make_demo().await;
    import(&mut root, "acme", many).await.unwrap();
    import(&mut root, "umbrella", SAMPLE).await.unwrap();
    assert_eq!(stored(&service, None).await, many + SAMPLE);
    assert_eq!(
        sampled(&mut root, "acme", many).await,
        [(Verdict::Allowed, SAMPLE)]
    );

    let mut request = pb::RevokeKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: "acme".to_owned(),
            ..Default::default()
        }),
        reason: "all of them leaked".to_owned(),
        dry_run: true,
        ..Default::default()
    };
    let began = Instant::now();
    let look = root
        .keys
        .revoke_keys(request.clone())
        .await
        .unwrap()
        .into_inner();
    let looking = began.elapsed();
    assert_eq!(look.would_revoke as usize, many);
    assert_eq!(look.examples.len(), 10);

    request.dry_run = false;
    let began = Instant::now();
    root.keys.revoke_keys(request).await.unwrap();
    let took = began.elapsed();
    println!("{many} keys ended in {took:.1?}, counted in {looking:.1?}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert_eq!(
        sampled(&mut root, "acme", many).await,
        [(Verdict::Revoked, SAMPLE)]
    );
    assert_eq!(
        sampled(&mut root, "umbrella", SAMPLE).await,
        [(Verdict::Allowed, SAMPLE)]
    );

    let operator = service.operator.clone();
    let test_store = service.stop().await;
    let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
    let mut root = service.api();
    assert_eq!(
        sampled(&mut root, "acme", many).await,
        [(Verdict::Revoked, SAMPLE)],
        "after a restart"
    );
    assert_eq!(
        sampled(&mut root, "umbrella", SAMPLE).await,
        [(Verdict::Allowed, SAMPLE)]
    );
    delete_the_dead(&service, many).await;
    service.stop().await;
}

/// Deletes the revoked keys of `acme`, while keys of `umbrella` are verified and revoked.
async fn delete_the_dead(service: &Service, many: usize) {
    let index = service.mirror.index();
    let (mut root, mut other) = (service.api(), service.api());
    let went_on = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&went_on);
    let beside = tokio::spawn(async move {
        let mut revoked = 0;
        while goes_on.load(Ordering::Relaxed) {
            let key = issue(
                &mut other,
                issue_request_with(|new| "umbrella".clone_into(&mut new.partner)),
            )
            .await;
            assert_eq!(other.verdict(&key.plain_key).await, Verdict::Allowed);
            other.revoke(&key.id).await.unwrap();
            assert_eq!(other.verdict(&key.plain_key).await, Verdict::Revoked);
            assert_eq!(
                sampled(&mut other, "umbrella", 10).await,
                [(Verdict::Allowed, 10)]
            );
            revoked += 1;
        }
        revoked
    });
    let request = pb::DeleteKeysRequest {
        filter: Some(pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: "acme".to_owned(),
            states: vec![pb::KeyState::Revoked.into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let began = Instant::now();
    let (mut deleted, mut calls) = (0, 0);
    loop {
        let made = root
            .keys
            .delete_keys(request.clone())
            .await
            .unwrap()
            .into_inner();
        deleted += made.deleted as usize;
        calls += 1;
        if !made.more {
            break;
        }
        assert_eq!(made.deleted, 10_000);
    }
    let took = began.elapsed();
    went_on.store(false, Ordering::Relaxed);
    let revoked: usize = beside.await.unwrap();
    println!(
        "{deleted} keys deleted in {calls} calls, {took:.1?}; {revoked} keys issued and revoked meanwhile"
    );
    assert_eq!((deleted, calls), (many, many.div_ceil(10_000)));
    assert!(revoked > calls, "{revoked}");
    assert!(
        Arc::ptr_eq(&index, &service.mirror.index()),
        "it was loaded anew"
    );
    assert_eq!(stored(service, Some("acme")).await, 0);
    assert_eq!(
        sampled(&mut root, "acme", many).await,
        [(Verdict::Unknown, SAMPLE)]
    );
    assert_eq!(
        sampled(&mut root, "umbrella", SAMPLE).await,
        [(Verdict::Allowed, SAMPLE)]
    );
}

/// Seen red with a transaction for each entry (a batch is then done by half), and with the keys of before not looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_is_imported_and_sent_again_after_a_kill_without_doubles() {
    let many = many();
    let test_store = TestStore::on(Engine::Sqlite);
    let flags = ["--log", "error,claviger=info"];
    let mut program = Program::serve(&test_store, &flags);
    let mut root = program.api();
    root.make_demo().await;
    let before = program.peak_memory();

    let began = Instant::now();
    let half = many / 2 / BATCH * BATCH;
    assert_eq!(import(&mut root, "acme", half).await.unwrap(), half);
    let first_half = began.elapsed();
    // Killed while the next ones are under way.
    let mut api = root.clone();
    let going = tokio::spawn(async move { import(&mut api, "acme", many).await });
    let watch = async {
        let list = pb::ListEventsRequest {
            kind: "key.imported".to_owned(),
            page_size: 1,
            ..Default::default()
        };
        let newest = async |root: &mut Api| {
            let events = root
                .keys
                .list_events(list.clone())
                .await
                .unwrap()
                .into_inner()
                .events;
            events[0].revision
        };
        let known = newest(&mut root).await;
        while newest(&mut root).await == known && !going.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    watch.await;
    let half_way = program.peak_memory();
    program.kill();
    let cut_off = going.await.unwrap().is_err();

    let mut program = Program::serve(&test_store, &flags);
    let operator = program.operator();
    let mut root = program.api();
    let fresh = program.peak_memory();
    let began = Instant::now();
    let new = import(&mut root, "acme", many).await.unwrap();
    let again = began.elapsed();
    assert!(
        new <= many - half,
        "{new} of {many} were new after {half} had been answered"
    );
    let once_more = import(&mut root, "acme", 2 * BATCH).await.unwrap();
    assert_eq!(once_more, 0, "once more is nothing more");
    println!(
        "{half} keys imported in {first_half:.1?}, all {many} sent again in {again:.1?} of which {new} were new (cut off: \
         {cut_off}); at most {} MiB before, {} MiB half-way, {} MiB after the restart, {} MiB at the end",
        before / 1024,
        half_way / 1024,
        fresh / 1024,
        program.peak_memory() / 1024
    );
    program.kill();

    let service =
        Service::start_with(Arc::clone(&test_store), Clock::system(), &operator, &[]).await;
    assert_eq!(
        stored(&service, Some("acme")).await,
        many,
        "each is there once"
    );
    let mut root = service.api();
    let made = service.roots.made();
    assert_eq!(
        sampled(&mut root, "acme", many).await,
        [(Verdict::Allowed, SAMPLE)]
    );
    assert_eq!(service.roots.made(), made, "Verify makes no root");
    service.stop().await;
}
