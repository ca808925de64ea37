//! How many keys a list has on all pages. The filters have tests of their own, which compare the total with the list.

use std::time::Duration;

use claviger::domain::ids::RealmId;
use claviger::domain::time::Timestamp;
use claviger::pb::claviger::v1 as pb;
use claviger::store::KeyFilter;
use pb::import_entry::Secret;
use sha2::{Digest, Sha256};

use crate::fixtures::{Engine, Service, hex_of, import, import_entry_of, on_both_engines};

/// How many keys are counted at most.
const MOST: u64 = 10_000;

on_both_engines! {
    /// Seen red with a count that ends at the ten thousandth key.
    async fn a_total_ends_at_ten_thousand(engine: Engine) {
        let service = Service::start(engine).await;
        let mut root = service.api();
        root.make_demo().await;
        let mut made = 0;
        for count in [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1] {
            let entries = (made..made + count).map(|number| {
                let hash = Sha256::digest(format!("s3fzXw8Rk2VbN5yLm9Qp4TdH{number:08}"));
                import_entry_of(Secret::Sha256(hex_of(&hash)))
            });
            let entries = entries.collect();
            assert!(import(&mut root, entries).await.iter().all(Result::is_ok));
            made += count;
            if made < MOST {
                continue;
            }
            let request = pb::ListKeysRequest {
                filter: Some(pb::KeyFilter { realm: "demo".to_owned(), ..Default::default() }),
                page_size: 2,
                with_total: true,
                ..Default::default()
            };
            let page = root.keys.list_keys(request).await.unwrap().into_inner();
            assert_eq!((page.total, page.more_than_total), (Some(MOST), made > MOST));
        }
        service.stop().await;
    }

    /// Seen red with a count whose time begins with itself.
    async fn nothing_is_counted_after_a_search_that_took_its_time(engine: Engine) {
        let service = Service::start(engine).await;
        let filter = KeyFilter::new(RealmId::parse("claviger").unwrap(), Timestamp::MAX, 9);
        for (took, counted) in [(0, true), (4_499, false), (9_000, false)] {
            let mut snapshot = service.store.snapshot().await.unwrap();
            let began = tokio::time::Instant::now() - Duration::from_millis(took);
            let total = snapshot.count_in_time(&filter, began).await.unwrap();
            assert_eq!(total.is_some(), counted, "{took}");
        }
        service.stop().await;
    }
}
