//! The gRPC service `claviger.v1.AuthorityAdmin`.

mod declared;

use std::time::Duration;

use tonic::{Request, Response, Status};

pub use declared::declared_state;

use super::{Admin, decode, encode};
use crate::authority::{ChangeRequest, ClockCorrection, ForkWithHolds, Read, Refusal};
use crate::domain::event::Revision;
use crate::domain::lease::LeaseTerms;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::pb::claviger::v1 as pb;
use crate::store::{Replica, ReplicaState};

/// The service that administers the servers of an authority.
pub struct AuthorityAdminService {
    admin: Admin,
}

impl AuthorityAdminService {
    /// Creates the service.
    pub fn new(admin: Admin) -> Self {
        Self { admin }
    }
}

#[tonic::async_trait]
impl pb::authority_admin_server::AuthorityAdmin for AuthorityAdminService {
    async fn list_replicas(
        &self,
        request: Request<pb::ListReplicasRequest>,
    ) -> Result<Response<pb::ListReplicasResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (read, forks) = self
            .admin
            .run(move |authority| async move {
                let forks = authority.forks(&caller).await?;
                Ok((authority.replicas(&caller).await?, forks.value))
            })
            .await?;
        let revision = read.revision;
        let terms = read.value.as_ref().map(|replicas| replicas.terms);
        let replicas = read.value.map(|found| found.replicas).unwrap_or_default();
        Ok(Response::new(pb::ListReplicasResponse {
            replicas: replicas
                .into_iter()
                .map(|found| replica(found, revision))
                .collect(),
            revision: revision.as_u64(),
            lease: terms.map(|terms| encode::span(terms.length)),
            longest_lease: terms.map(|terms| encode::span(whole_millis(terms.longest))),
            forks: forks.into_iter().map(fork).collect(),
        }))
    }

    async fn set_lease(
        &self,
        request: Request<pb::SetLeaseRequest>,
    ) -> Result<Response<pb::SetLeaseResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (length, change_request) = parse_lease(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority.set_lease(&caller, &change_request, length).await
            })
            .await?;
        changed!(SetLeaseResponse, result, lease: encode::span)
    }

    async fn accept_history(
        &self,
        request: Request<pb::AcceptHistoryRequest>,
    ) -> Result<Response<pb::AcceptHistoryResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (epoch, change_request) = parse_acceptance(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .accept_history(&caller, &change_request, epoch)
                    .await
            })
            .await?;
        Ok(Response::new(pb::AcceptHistoryResponse {
            released_count: result.value,
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
        }))
    }

    async fn set_clock(
        &self,
        request: Request<pb::SetClockRequest>,
    ) -> Result<Response<pb::SetClockResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let (time, change_request) = parse_time(request.into_inner())?;
        let result = self
            .admin
            .run(move |authority| async move {
                authority.set_clock(&caller, &change_request, time).await
            })
            .await?;
        let ClockCorrection { before, time } = result.value;
        Ok(Response::new(pb::SetClockResponse {
            time_before: Some(encode::time(before)),
            time: Some(encode::time(time)),
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
        }))
    }

    async fn apply(
        &self,
        request: Request<pb::ApplyRequest>,
    ) -> Result<Response<pb::ApplyResponse>, Status> {
        let caller = self.admin.caller(&request).await?;
        let message = request.into_inner();
        let is_dry_run = message.dry_run;
        // Before the validation, which may take long.
        if is_dry_run {
            caller.role.may_read_everything()?;
        } else {
            caller.role.may_operate()?;
        }
        let declared::Apply {
            state,
            change,
            if_plan,
        } = declared::parse(message)?;
        if is_dry_run {
            let planned = self
                .admin
                .run(move |authority| async move { authority.plan(&caller, &state).await });
            let Read { value, revision } = planned.await?;
            return Ok(Response::new(declared::response(value, revision)));
        }
        let result = self
            .admin
            .run(move |authority| async move {
                authority
                    .apply(&caller, &change, &state, if_plan.as_deref())
                    .await
            })
            .await?;
        Ok(Response::new(pb::ApplyResponse {
            effective_everywhere_time: Some(encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
            ..declared::response(result.value, result.revision)
        }))
    }
}

fn parse_time(message: pb::SetClockRequest) -> Result<(Timestamp, ChangeRequest), Refusal> {
    let pb::SetClockRequest {
        time,
        wait,
        request_id,
    } = message;
    let mut bad = Violations::default();
    let change_request = decode::change(&mut bad, wait, &request_id);
    if time.is_none() {
        bad.add("time", "is required: the time by a clock that is right");
    }
    let time = decode::timestamp(&mut bad, "time", time);
    let time = bad.finish(time).map_err(Refusal::Invalid)?;
    Ok((time, change_request))
}

fn parse_acceptance(message: pb::AcceptHistoryRequest) -> Result<(u64, ChangeRequest), Refusal> {
    let pb::AcceptHistoryRequest {
        epoch,
        wait,
        request_id,
    } = message;
    let mut bad = Violations::default();
    let change_request = decode::change(&mut bad, wait, &request_id);
    if epoch == 0 {
        bad.add("epoch", "is required: the epoch that began at the fork");
    }
    let epoch = bad.finish(Some(epoch)).map_err(Refusal::Invalid)?;
    Ok((epoch, change_request))
}

fn fork(found: ForkWithHolds) -> pb::Fork {
    let ForkWithHolds { fork, held, names } = found;
    pb::Fork {
        epoch: fork.epoch,
        last_revision: fork.last.as_u64(),
        held_count: held,
        held: names,
    }
}

fn parse_lease(message: pb::SetLeaseRequest) -> Result<(Duration, ChangeRequest), Refusal> {
    let pb::SetLeaseRequest {
        lease,
        wait,
        request_id,
    } = message;
    let mut bad = Violations::default();
    let change_request = decode::change(&mut bad, wait, &request_id);
    let length = lease
        .and_then(|lease| Duration::try_from(lease).ok())
        .filter(|length| (LeaseTerms::MIN..=LeaseTerms::MAX).contains(length))
        .filter(|length| *length == whole_millis(*length));
    if length.is_none() {
        bad.add("lease", "must be from 1s to 5min, in whole milliseconds");
    }
    let length = bad.finish(length).map_err(Refusal::Invalid)?;
    Ok((length, change_request))
}

fn replica(found: Replica, head: Revision) -> pb::Replica {
    let Replica {
        id,
        name,
        version,
        state,
        beat: _,
        reported,
        lease_left,
        silent_for,
        warning,
    } = found;
    let state = match state {
        ReplicaState::Loading => pb::ReplicaState::Loading,
        ReplicaState::Serving => pb::ReplicaState::Serving,
    };
    pb::Replica {
        id,
        name,
        version,
        state: state.into(),
        reported_revision: reported.revision.as_u64(),
        lag: head.changes_since(reported.revision),
        lease_left: Some(encode::span(lease_left.saturating_sub(silent_for))),
        heartbeat_age: Some(encode::span(silent_for)),
        warning,
    }
}

/// The store adds microseconds to the longest lease, to tell settings apart.
fn whole_millis(span: Duration) -> Duration {
    Duration::from_millis(span.as_millis() as u64)
}
