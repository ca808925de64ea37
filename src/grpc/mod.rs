//! The gRPC services: each handler converts, calls, and converts back.

/// The answer to a change: its message, with what came of it and since when that holds. There is one server, so what is in
/// force here is in force everywhere.
macro_rules! changed {
    ($message:ident, $done:expr $(, $field:ident: $convert:expr)?) => {{
        let done = $done;
        Ok(tonic::Response::new(pb::$message {
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::time(done.effective_at)),
            confirmed: true,
            $($field: Some($convert(done.value)),)?
        }))
    }};
}

/// The answer to a request that makes a key's text, or made it before.
macro_rules! made {
    ($message:ident, $done:expr, $now:expr) => {{
        let done = $done;
        let crate::authority::Made { key, plain } = done.value;
        Ok(tonic::Response::new(pb::$message {
            key: Some(convert::key(key, $now)),
            replayed: plain.is_none(),
            plain_key: plain
                .map(|plain| plain.expose().to_owned())
                .unwrap_or_default(),
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(convert::time(done.effective_at)),
            confirmed: true,
        }))
    }};
}

mod callers;
mod convert;
mod explain;
mod ext_authz;
mod fields;
mod gateway_fields;
mod guard;
mod key_admin;
mod key_fields;
mod key_verify;
mod page;
mod realm_admin;
mod realm_fields;
mod status;
mod turns;
mod usage_fields;
mod verify_fields;

use std::sync::Arc;

pub use ext_authz::ExtAuthzService;
pub use guard::Guard;
pub use key_admin::KeyAdminService;
pub use key_verify::KeyVerifyService;
pub use page::Pages;
pub use realm_admin::RealmAdminService;

use tokio_util::task::TaskTracker;
use tonic::Status;
use turns::{Owner, Turn, Turns};

use crate::authority::{Authority, Caller, Refusal};
use crate::callers::Callers;

/// What the services of administration share.
#[derive(Clone)]
pub struct Admin {
    /// The use cases.
    authority: Arc<Authority>,
    /// Who calls.
    callers: Callers,
    /// Page tokens.
    pages: Pages,
    /// The changes that are under way.
    changes: TaskTracker,
    turns: Turns,
    /// For keys that end themselves: whoever has one must not take the turns of those who administer.
    own_ends: Turns,
}

impl Admin {
    /// Changes are counted by the tracker while they are under way.
    pub fn new(
        authority: Arc<Authority>,
        callers: Callers,
        pages: Pages,
        changes: TaskTracker,
    ) -> Self {
        Self {
            authority,
            callers,
            pages,
            changes,
            turns: Turns::default(),
            own_ends: Turns::default(),
        }
    }

    /// Runs a use case to its end, even if the caller goes away in the middle: a commit that nobody waits for must not be
    /// given up half-way.
    async fn run<T, F>(
        &self,
        caller: Caller,
        work: impl FnOnce(Arc<Authority>, Caller) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let turn = self.turns.take(&caller.role)?;
        self.run_in(turn, work(Arc::clone(&self.authority), caller))
            .await
    }

    /// The same for whoever holds a key of this owner.
    async fn run_for<T, F>(
        &self,
        owner: Owner,
        work: impl FnOnce(Arc<Authority>) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let turn = self.own_ends.take_for(owner)?;
        self.run_in(turn, work(Arc::clone(&self.authority))).await
    }

    async fn run_in<T, F>(&self, turn: Turn, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let work = async move {
            let outcome = work.await;
            drop(turn);
            outcome
        };
        match self.changes.spawn(work).await {
            Ok(outcome) => outcome.map_err(Status::from),
            Err(panic) => {
                tracing::error!(%panic, "a use case failed");
                Err(status::internal())
            }
        }
    }
}
