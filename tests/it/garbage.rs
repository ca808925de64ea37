//! Wrong keys cost next to nothing: no slow hash, no look at the store.

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use super::fixtures::{Api, Service, from_env, verify_request};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_key_of_any_kind_reaches_the_slow_hash_or_the_store() {
    let count = from_env("CLAVIGER_TEST_WRONG_KEYS", 10_000);
    // The feed looks at the store by itself; here it waits to be poked, so that every other access is counted.
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let clock = claviger::domain::clock::Clock::system();
    let service = Service::start_with(dir, clock, "", &["--poll-interval", "1h"]).await;
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
    // Poking the feed has one more access under way; wait for it before counting.
    let mut settled = service.store.sessions();
    super::fixtures::eventually("the feed rests", async || {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let now = service.store.sessions();
        (std::mem::replace(&mut settled, now) == now).then_some(())
    })
    .await;

    let (roots, sessions) = (service.roots.made(), service.store.sessions());
    for i in 0..count {
        let random = noise(i as u64, 40 + i % 60);
        ask(&mut api, &random, &[Verdict::Unknown]).await;
        ask(&mut api, &format!("demo_{random}"), &[Verdict::Malformed]).await;
        // A key that never was, in the right form.
        let forged = format!("demo_live_0{}{}", noise(!(i as u64), 21), secret(i as u64));
        ask(&mut api, &with_check(&forged), &[Verdict::Unknown]).await;
        // The right id, and another secret.
        let id = &right["demo_live_".len()..][..22];
        let wrong = format!("demo_live_{id}{}", secret(i as u64));
        ask(&mut api, &with_check(&wrong), &[Verdict::Unknown]).await;
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

async fn ask(api: &mut Api, key: &str, expected: &[Verdict]) {
    let answer = api
        .verify
        .verify(verify_request(key))
        .await
        .unwrap()
        .into_inner();
    assert!(
        expected.contains(&answer.verdict()),
        "{key}: {:?}",
        answer.verdict()
    );
    assert!(answer.key.is_none());
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
