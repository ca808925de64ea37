//! Wrong keys cost next to nothing: no slow hash, no look at the store.

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::verify_batch_result::Result as Outcome;

use crate::fixtures::{
    Engine, Service, TestStore, from_env, on_both_engines, settled, verify_request,
};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

on_both_engines! {
    async fn no_wrong_key_of_any_kind_reaches_the_slow_hash_or_the_store(engine: Engine) {
        let count = from_env("CLAVIGER_TEST_WRONG_KEYS", 10_000);
        // The feed looks at the store by itself, and how keys are used is written there; here the one waits to be poked and the
        // other is off, so that every other access is counted.
        let test_store = TestStore::on(engine);
        let clock = claviger::domain::clock::Clock::system();
        let service = Service::start_with(test_store, clock, "", &["--poll-interval", "1h", "--usage-interval", "0s"]).await;
        let mut api = service.api();
        api.make_demo().await;

        let (roots, sessions) = (service.roots.made(), service.store.sessions());
        let right = api.issue().await.plain_key;
        assert_eq!(
            service.roots.made(),
            roots + 1,
            "the counter of slow hashes counts"
        );
        assert!(
            service.store.sessions() > sessions,
            "the counter of accesses to the store counts"
        );
        let sessions = settled(&service).await;
        let roots = service.roots.made();
        let id = &right["demo_live_".len()..][..22];
        let wrong: Vec<(String, Verdict)> = (0..count as u64)
            .flat_map(|i| {
                let random = noise(i, 40 + i as usize % 60);
                [
                    (format!("demo_{random}"), Verdict::Malformed),
                    (random, Verdict::Unknown),
                    // A key that never was, in the right form.
                    (forged(&noise(!i, 21), i), Verdict::Unknown),
                    // The right id, and another secret.
                    (
                        with_check(&format!("demo_live_{id}{}", secret(i))),
                        Verdict::Unknown,
                    ),
                ]
            })
            .collect();
        // The first hundreds one by one, and then all of them in batches, which are decided the same way and sooner.
        for (key, expected) in wrong.iter().take(400) {
            assert_eq!(api.verdict(key).await, *expected, "{key}");
        }
        for batch in wrong.chunks(100) {
            let requests = batch.iter().map(|(key, _)| verify_request(key)).collect();
            let request = pb::VerifyBatchRequest { requests };
            let answers = api
                .verify
                .verify_batch(request)
                .await
                .unwrap()
                .into_inner()
                .results;
            assert_eq!(answers.len(), batch.len());
            for (answer, (key, expected)) in answers.into_iter().zip(batch) {
                let Some(Outcome::Response(answer)) = answer.result else {
                    panic!("{key} is an error");
                };
                assert_eq!((answer.verdict(), answer.key), (*expected, None), "{key}");
            }
        }
        assert_eq!(api.verdict(&right).await, Verdict::Allowed);
        assert_eq!(service.roots.made() - roots, 0, "slow hashes");
        assert_eq!(
            service.store.sessions() - sessions,
            0,
            "accesses to the store"
        );
        println!(
            "{} wrong keys of 4 kinds: 0 Argon2 runs, 0 accesses to the store",
            4 * count
        );
        service.stop().await;
    }
}

/// A key that never was, with an id below 2^128.
fn forged(id: &str, seed: u64) -> String {
    with_check(&format!("demo_live_0{id}{}", secret(seed)))
}

/// A secret below 2^256, so that its form is right.
fn secret(seed: u64) -> String {
    format!("0{}", noise(seed ^ 0x5eed, 42))
}

fn with_check(head: &str) -> String {
    let mut check = u64::from(crc32fast::hash(head.as_bytes()));
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(check % 62) as usize];
        check /= 62;
    }
    format!("{head}{}", std::str::from_utf8(&digits).unwrap())
}

/// Digits that are the same for the same seed (SplitMix64).
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            char::from(ALPHABET[((word ^ (word >> 31)) % 62) as usize])
        })
        .collect()
}
