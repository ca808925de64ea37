//! A failover to a standby that lacks the last commits. What they took away stays away on every server, also on those that never knew
//! and on those that start later, until an operator accepts the loss.

use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tonic::Code;

use super::rig::{Replica, Rig};
use crate::fixtures::{
    Api, IssuedKey, ReplicatedDatabase, Replication, Traffic, eventually, issue, issue_request,
    issue_request_with, refused, rotate, strings, update, verify_request,
};

const LEASE: Duration = Duration::from_secs(2);

/// Keys from which the lost commits took something, and one from which they took nothing.
struct Keys {
    revoked: IssuedKey,
    disabled: IssuedKey,
    rotated: IssuedKey,
    narrowed: IssuedKey,
    suspended: IssuedKey,
    good: IssuedKey,
}

impl Keys {
    async fn issue(api: &mut Api) -> Self {
        api.put_partner("initech", false).await;
        let of_initech = issue_request_with(|request| "initech".clone_into(&mut request.partner));
        Self {
            revoked: issue(api, issue_request()).await,
            disabled: issue(api, issue_request()).await,
            rotated: issue(api, issue_request()).await,
            narrowed: issue(api, issue_request()).await,
            suspended: issue(api, of_initech).await,
            good: issue(api, issue_request()).await,
        }
    }

    /// Takes something away from each but the last. Returns the last revision.
    async fn take_away(&self, api: &mut Api) -> u64 {
        api.revoke(&self.revoked.id).await.unwrap();
        let disable = pb::DisableKeyRequest {
            key_id: self.disabled.id.clone(),
            ..Default::default()
        };
        api.keys.disable_key(disable).await.unwrap();
        rotate(api, &self.rotated.id, 0).await.unwrap();
        update(api, &self.narrowed.id, &["scopes"], |request| {
            request.scopes = strings(&["read"]);
        })
        .await
        .unwrap();
        api.put_partner("initech", true).await.revision
    }

    /// What a server says about each key, in the order of the fields; `None` if it cannot tell now.
    async fn verdicts(&self, replica: &Replica) -> Vec<Option<Verdict>> {
        let (_, mut api) = replica.api();
        let keys = [
            &self.revoked,
            &self.disabled,
            &self.rotated,
            &self.narrowed,
            &self.suspended,
            &self.good,
        ];
        let mut verdicts = Vec::new();
        for key in keys {
            let request = pb::VerifyRequest {
                scopes: strings(&["write"]),
                ..verify_request(&key.plain_key)
            };
            let answer = api.verify.verify(request).await;
            verdicts.push(answer.ok().map(|answer| answer.get_ref().verdict()));
        }
        verdicts
    }

    async fn says(&self, replica: &Replica, expected: [Verdict; 6]) {
        eventually(
            &format!("server {} says {expected:?}", replica.number),
            async || {
                let verdicts = self.verdicts(replica).await;
                (verdicts == expected.map(Some)).then_some(())
            },
        )
        .await;
    }
}

const TAKEN: [Verdict; 6] = [
    Verdict::Revoked,
    Verdict::Disabled,
    Verdict::Unknown,
    Verdict::ScopeMissing,
    Verdict::PartnerSuspended,
    Verdict::Allowed,
];

/// The store has only the old secret of the rotated key, which must not prove it any more.
const HELD: [Verdict; 6] = [
    Verdict::Revoked,
    Verdict::Disabled,
    Verdict::Disabled,
    Verdict::ScopeMissing,
    Verdict::PartnerSuspended,
    Verdict::Allowed,
];

async fn enable(api: &mut Api, key: &IssuedKey) -> Result<(), tonic::Status> {
    let request = pb::EnableKeyRequest {
        key_id: key.id.clone(),
        ..Default::default()
    };
    api.keys.enable_key(request).await.map(drop)
}

/// The standby lacks the last commits, which two of three servers have applied.
async fn fail_over(database: &ReplicatedDatabase, rig: &Rig, keys: &Keys) -> u64 {
    database.follows(Replication::Asynchronous).await;
    database.between.set(Traffic::Cut);
    // One server never knows what is lost.
    rig.replicas[2].network.set(Traffic::Cut);
    let lost = keys.take_away(&mut rig.replicas[0].api().1).await;
    for replica in &rig.replicas[..2] {
        keys.says(replica, TAKEN).await;
    }
    database.promote();
    for replica in &rig.replicas {
        replica.network.lead_to(database.standby.cluster.socket());
        replica.network.set(Traffic::Cut);
        replica.network.set(Traffic::Flows);
    }
    lost
}

/// Seen red with the holds not stored (the server that never knew allows the keys), without the check of changes that give, and with
/// what was known before the acceptance kept after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_commits_took_away_stays_away_until_an_operator_accepts_the_loss() {
    let database = ReplicatedDatabase::start(Replication::Asynchronous).await;
    let rig = Rig::start(database.primary.clone(), 3, LEASE).await;
    let (_, mut api) = rig.replicas[0].api();
    let keys = Keys::issue(&mut api).await;
    for replica in &rig.replicas {
        keys.says(replica, [Verdict::Allowed; 6]).await;
    }
    let lost = fail_over(&database, &rig, &keys).await;
    for replica in &rig.replicas {
        keys.says(replica, HELD).await;
    }
    for replica in &rig.replicas {
        let (_, mut api) = replica.api();
        let request = pb::VerifyRequest {
            min_revision: lost,
            ..verify_request(&keys.good.plain_key)
        };
        let refusal = refused(api.verify.verify(request).await);
        let found = (refusal.code, refusal.reason.as_str());
        assert_eq!(found, (Code::FailedPrecondition, "REVISION_LOST"));
        let refusal = eventually("the server has a connection for changes", async || {
            let refusal = refused(enable(&mut api, &keys.disabled).await);
            (refusal.code != Code::Unavailable).then_some(refusal)
        })
        .await;
        let found = (refusal.code, refusal.reason.as_str());
        assert_eq!(found, (Code::FailedPrecondition, "HISTORY_REWRITTEN"));
        // Everything else goes on, as soon as the server has a lease of the new primary.
        let new = eventually("the server issues keys", async || {
            let issued = api.keys.issue_key(issue_request()).await;
            let refusal = issued.as_ref().err().map(tonic::Status::code);
            assert!(
                refusal.is_none_or(|code| code == Code::Unavailable),
                "{refusal:?}"
            );
            issued.ok().map(tonic::Response::into_inner)
        })
        .await;
        let id = new.key.unwrap().id;
        assert_eq!(api.verdict(&new.plain_key).await, Verdict::Allowed);
        rotate(&mut api, &id, 0).await.unwrap();
        api.revoke(&id).await.unwrap();
        assert_eq!(api.verdict(&new.plain_key).await, Verdict::Unknown);
    }
    for replica in &rig.replicas {
        replica.kill();
        replica.start_again();
        keys.says(replica, HELD).await;
    }

    let (_, mut api) = rig.replicas[2].api();
    let listed = api
        .authority
        .list_replicas(pb::ListReplicasRequest {})
        .await
        .unwrap()
        .into_inner();
    let [fork] = listed.forks.as_slice() else {
        panic!("{:?}", listed.forks);
    };
    assert!(fork.epoch == 1 && fork.last_revision < lost, "{fork:?}");
    assert_eq!(fork.held_count, 5, "{fork:?}");
    assert!(fork.held.contains(&format!("key {}", keys.disabled.id)));
    assert!(fork.held.contains(&"partner demo/initech".to_owned()));
    // Those that were killed may be listed still.
    let warned = listed.replicas.iter();
    let warned = warned.filter(|replica| replica.warning.contains("5 things are held"));
    assert!(warned.count() >= 3, "{:?}", listed.replicas);

    let accept = pb::AcceptHistoryRequest {
        epoch: 1,
        wait: pb::Wait::Everywhere.into(),
        ..Default::default()
    };
    let accepted = api.authority.accept_history(accept.clone()).await.unwrap();
    let accepted = accepted.into_inner();
    assert!(
        accepted.confirmed && accepted.released_count == 5,
        "{accepted:?}"
    );
    for replica in &rig.replicas {
        let verdicts = keys.verdicts(replica).await;
        assert_eq!(verdicts, [Some(Verdict::Allowed); 6], "{}", replica.number);
    }
    enable(&mut api, &keys.disabled).await.unwrap();
    let again = api.authority.accept_history(accept).await.unwrap();
    assert_eq!(again.into_inner().released_count, 0);
}
