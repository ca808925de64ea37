//! The gRPC services: each handler converts, calls, and converts back.

/// The answer to a change: its message, with what came of it and since when that holds. There is one server, so what is in
/// force here is in force everywhere.
macro_rules! changed {
    ($message:ident, $done:expr $(, $field:ident: $encode:expr)?) => {{
        let done = $done;
        Ok(tonic::Response::new(pb::$message {
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(done.effective_at)),
            confirmed: true,
            $($field: Some($encode(done.value)),)?
        }))
    }};
}

/// The answer to a request that makes a key's text, or made it before.
macro_rules! issued {
    ($message:ident, $done:expr, $now:expr) => {{
        let done = $done;
        let crate::authority::IssuedKey { key, plain_key } = done.value;
        Ok(tonic::Response::new(pb::$message {
            key: Some(response::key(key, $now)),
            replayed: plain_key.is_none(),
            plain_key: plain_key
                .map(|plain_key| plain_key.expose().to_owned())
                .unwrap_or_default(),
            revision: done.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(done.effective_at)),
            confirmed: true,
        }))
    }};
}

mod change_limiter;
mod decode;
mod encode;
mod ext_authz;
mod guard;
mod key_admin;
mod key_verify;
mod page;
mod realm_admin;
mod status;

use std::sync::Arc;

pub use ext_authz::ExtAuthzService;
pub use guard::Guard;
pub use key_admin::KeyAdminService;
pub use key_verify::KeyVerifyService;
pub use page::Pages;
pub use realm_admin::RealmAdminService;

use change_limiter::{ChangeLimiter, ChangePermit, Owner};
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};

use crate::auth::{Authenticator, AuthorizedCaller, Principal, bearer_key};
use crate::authority::{Authority, Refusal};

/// What the services of administration share.
#[derive(Clone)]
pub struct Admin {
    /// The use cases.
    authority: Arc<Authority>,
    /// Who calls.
    authenticator: Authenticator,
    /// Page tokens.
    pages: Pages,
    /// The changes that are under way.
    changes: TaskTracker,
    change_limiter: ChangeLimiter,
    /// For keys that end themselves: whoever has one must not take the change_limiter of those who administer.
    self_revocations: ChangeLimiter,
}

impl Admin {
    /// Changes are counted by the tracker while they are under way.
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
            changes,
            change_limiter: ChangeLimiter::default(),
            self_revocations: ChangeLimiter::default(),
        }
    }

    /// The caller of an administrative request.
    fn caller<T>(&self, request: &Request<T>) -> Result<AuthorizedCaller, Status> {
        let key = bearer_key(decode::authorization(request.metadata()))?;
        let peer = decode::peer_ip(request);
        Ok(self.authenticator.administrator(key, peer)?)
    }

    /// The holder of the key that a request carries, and the owner of that key.
    fn principal<T>(&self, request: &Request<T>) -> Result<(Principal, Owner), Status> {
        let key = bearer_key(decode::authorization(request.metadata()))?;
        let peer = decode::peer_ip(request);
        let (principal, realm, partner) = self.authenticator.principal(key, peer)?;
        Ok((principal, (realm, partner)))
    }

    /// Runs a use case to its end, even if the caller goes away in the middle: a commit that nobody waits for must not be
    /// given up half-way.
    async fn run<T, F>(
        &self,
        caller: AuthorizedCaller,
        work: impl FnOnce(Arc<Authority>, AuthorizedCaller) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let permit = self.change_limiter.take(&caller.role)?;
        self.run_in(permit, work(Arc::clone(&self.authority), caller))
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
        let permit = self.self_revocations.take_for(owner)?;
        self.run_in(permit, work(Arc::clone(&self.authority))).await
    }

    async fn run_in<T, F>(&self, permit: ChangePermit, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let work = async move {
            let outcome = work.await;
            drop(permit);
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
