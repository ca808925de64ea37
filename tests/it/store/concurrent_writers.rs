//! Many at once: the history has no gaps, and the mirror is what the store says.

use std::collections::HashSet;
use std::time::Duration;

use claviger::domain::clock::Clock;
use claviger::mirror::Feed;
use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{Engine, Service, issue_request, on_both_engines, request_id};

on_both_engines! {
    /// Seen red with `Feed::apply` leaving out deletions: the mirror then keeps what the fresh load does not have.
    async fn after_200_concurrent_writers_the_history_is_whole_and_the_mirror_equals_a_fresh_load(engine: Engine) {
        let service = Service::start(engine).await;
        service.api().make_demo().await;
        let writers: Vec<_> = (0..200)
            .map(|writer| {
                let mut api = service.api();
                tokio::spawn(async move {
                    let mut revisions = Vec::new();
                    for step in 0..5 {
                        revisions.extend(write(&mut api, writer * 5 + step).await);
                    }
                    revisions
                })
            })
            .collect();
        let mut revisions = Vec::new();
        for writer in writers {
            revisions.extend(writer.await.unwrap());
        }
        let distinct: HashSet<_> = revisions.iter().collect();
        assert_eq!(
            distinct.len(),
            revisions.len(),
            "two changes had the same revision"
        );

        let (events, first, last) = service
            .store
            .snapshot()
            .await
            .unwrap()
            .history()
            .await
            .unwrap();
        assert_eq!(
            (first.as_u64(), last.as_u64()),
            (1, events),
            "the history has gaps"
        );
        assert!(events as usize >= revisions.len());

        let mut fresh = Feed::new(
            service.store.clone(),
            Clock::system(),
            Duration::from_secs(1),
        );
        fresh.load().await.unwrap();
        let (live, loaded) = (
            service.mirror.index().describe(),
            fresh.mirror().index().describe(),
        );
        assert!(live.len() > 300, "{} facts are too few", live.len());
        assert_eq!(live, loaded);
        service.stop().await;
    }
}

/// One of each kind of change, in turn; answers with the revisions of what really changed.
async fn write(api: &mut crate::fixtures::Api, step: usize) -> Vec<u64> {
    let issued = api
        .keys
        .issue_key(issue_request())
        .await
        .unwrap()
        .into_inner();
    let id = issued.key.unwrap().id;
    let mut revisions = vec![issued.revision];
    let key_id = id.clone();
    match step % 9 {
        0 => revisions.push(api.revoke(&id).await.unwrap().revision),
        1 => revisions.push(api.delete(&id).await.unwrap().revision),
        2 => {
            let off = pb::DisableKeyRequest {
                key_id,
                ..Default::default()
            };
            revisions.push(
                api.keys
                    .disable_key(off)
                    .await
                    .unwrap()
                    .into_inner()
                    .revision,
            );
        }
        3 => revisions.push(
            api.put_partner(&format!("partner-{step}"), step.is_multiple_of(2))
                .await
                .revision,
        ),
        4..8 => revisions.push(live_on(api, key_id, step).await),
        _ => {
            let project = pb::Project {
                realm: "demo".to_owned(),
                id: format!("project-{step}"),
                partner: "acme".to_owned(),
                ..Default::default()
            };
            let put = pb::PutProjectRequest {
                project: Some(project),
                ..Default::default()
            };
            revisions.push(
                api.realms
                    .put_project(put)
                    .await
                    .unwrap()
                    .into_inner()
                    .revision,
            );
            if step.is_multiple_of(2) {
                let delete = pb::DeleteProjectRequest {
                    realm: "demo".to_owned(),
                    project: format!("project-{step}"),
                    ..Default::default()
                };
                revisions.push(
                    api.realms
                        .delete_project(delete)
                        .await
                        .unwrap()
                        .into_inner()
                        .revision,
                );
            }
        }
    }
    revisions
}

/// One of the changes that come later in a key's life, in turn. Answers with its revision.
async fn live_on(api: &mut crate::fixtures::Api, key_id: String, step: usize) -> u64 {
    match step % 9 {
        4 => {
            let rotate = pb::RotateKeyRequest {
                key_id,
                overlap: Some(prost_types::Duration {
                    seconds: 3_600,
                    nanos: 0,
                }),
                ..Default::default()
            };
            let rotated = api.keys.rotate_key(rotate).await.unwrap().into_inner();
            rotated.revision
        }
        5 => {
            let update = pb::UpdateKeyRequest {
                key_id,
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["name".to_owned(), "scopes".to_owned()],
                }),
                name: format!("of step {step}"),
                ..Default::default()
            };
            let updated = api.keys.update_key(update).await.unwrap().into_inner();
            updated.revision
        }
        6 => {
            let entry = pb::ImportEntry {
                secret: Some(pb::import_entry::Secret::PlainKey(format!(
                    "key-of-another-system.{step:08}"
                ))),
                partner: "umbrella".to_owned(),
                level: pb::KeyLevel::Partner.into(),
                environment: "staging".to_owned(),
                ..Default::default()
            };
            let import = pb::ImportKeysRequest {
                realm: "demo".to_owned(),
                entries: vec![entry],
                ..Default::default()
            };
            let imported = api.keys.import_keys(import).await.unwrap().into_inner();
            imported.revision
        }
        _ => {
            // Those of an environment of a partner, and of a whole partner, whose keys nothing else is done to.
            let many = pb::RevokeKeysRequest {
                // So that it is a change also if no key was issued in between.
                request_id: request_id(),
                filter: Some(pb::KeyFilter {
                    realm: "demo".to_owned(),
                    partner: "umbrella".to_owned(),
                    environment: ["staging", ""][step % 2].to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let revoked = api.keys.revoke_keys(many).await.unwrap().into_inner();
            revoked.revision
        }
    }
}
