//! The gRPC services. Each handler decodes the request, calls a use case and encodes the answer.

/// The answer to a change. There is one server, so a change that is in force on this server is in force everywhere.
macro_rules! changed {
    ($message:ident, $done:expr $(, $field:ident: $encode:expr)?) => {{
        let result = $done;
        Ok(tonic::Response::new(pb::$message {
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(result.effective_at)),
            confirmed: true,
            $($field: Some($encode(result.value)),)?
        }))
    }};
}

/// The answer to a request that issues an API key. A repeated request gets the same key without the API key.
macro_rules! issued {
    ($message:ident, $done:expr, $now:expr) => {{
        let result = $done;
        let crate::authority::IssuedKey { key, plain_key } = result.value;
        Ok(tonic::Response::new(pb::$message {
            key: Some(response::key(key, $now)),
            replayed: plain_key.is_none(),
            plain_key: plain_key
                .map(|plain_key| plain_key.expose().to_owned())
                .unwrap_or_default(),
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(result.effective_at)),
            confirmed: true,
        }))
    }};
}

mod decode;
mod encode;
mod ext_authz;
mod guard;
mod key_admin;
mod key_verify;
mod page;
mod page_limiter;
mod realm_admin;
mod services;
mod status;

use std::sync::Arc;

pub use ext_authz::ExtAuthzService;
pub use guard::{Destination, Dispatch, Guard};
pub use key_admin::KeyAdminService;
pub use key_verify::KeyVerifyService;
pub use page::Pages;
pub use realm_admin::RealmAdminService;
pub use services::{AdminPlane, MAX_VERIFY_MESSAGE, Services};

use page_limiter::PageLimiter;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};

use crate::auth::{Authenticator, AuthorizedCaller, CallerGroup, Principal};
use crate::authority::{Authority, Refusal};
use crate::telemetry::limited;

/// The parts that the administrative services share.
#[derive(Clone)]
pub struct Admin {
    /// The use cases.
    authority: Arc<Authority>,
    /// Authenticates callers.
    authenticator: Authenticator,
    /// Seals and checks page tokens.
    pages: Pages,
    page_limiter: PageLimiter,
    /// The changes in progress.
    changes: TaskTracker,
}

impl Admin {
    /// Creates the shared parts. `changes` tracks the changes in progress.
    pub fn new(
        authority: Arc<Authority>,
        authenticator: Authenticator,
        pages: Pages,
        changes: TaskTracker,
    ) -> Self {
        Self {
            authority,
            authenticator,
            pages,
            page_limiter: PageLimiter::default(),
            changes,
        }
    }

    /// Authenticates the caller of an administrative request.
    fn caller<T>(&self, request: &Request<T>) -> Result<AuthorizedCaller, Status> {
        let principal = guard::principal(request)?;
        Ok(self.authenticator.authenticate_administrator(principal)?)
    }

    /// Returns the principal of a request, which uses its key for itself only, and its group.
    fn principal<T>(&self, request: &Request<T>) -> Result<(Principal, CallerGroup), Status> {
        let principal = guard::principal(request)?;
        let group = self.authenticator.group(principal)?;
        Ok((principal.clone(), group))
    }

    /// Runs a use case to its end, even if the caller cancels the call: a commit must not be dropped half-way.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Authority>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        match self.changes.spawn(work(Arc::clone(&self.authority))).await {
            Ok(outcome) => outcome.map_err(Status::from),
            Err(panic) => {
                limited!(error, %panic, "use case panicked");
                Err(status::internal())
            }
        }
    }
}
