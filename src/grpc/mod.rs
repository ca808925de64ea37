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

mod callers;
mod convert;
mod fields;
mod guard;
mod key_admin;
mod key_verify;
mod page;
mod realm_admin;
mod realm_fields;
mod status;

use std::sync::Arc;

pub use callers::Callers;
pub use guard::Guard;
pub use key_admin::KeyAdminService;
pub use key_verify::KeyVerifyService;
pub use page::Pages;
pub use realm_admin::RealmAdminService;

use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::authority::{Authority, Refusal};

/// What the services of administration share.
#[derive(Clone)]
pub struct Admin {
    /// The use cases.
    pub authority: Arc<Authority>,
    /// Who calls.
    pub callers: Callers,
    /// Page tokens.
    pub pages: Pages,
    /// The changes that are under way.
    pub changes: TaskTracker,
}

impl Admin {
    /// Runs a use case to its end, even if the caller goes away in the middle: a commit that nobody waits for must not be
    /// given up half-way.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Authority>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.authority));
        match self.changes.spawn(work).await {
            Ok(outcome) => outcome.map_err(Status::from),
            Err(panic) => {
                tracing::error!(%panic, "a use case failed");
                Err(status::internal())
            }
        }
    }
}
