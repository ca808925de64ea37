//! The gRPC services, which can also be called with JSON. Each handler decodes the request, calls a use case and encodes the
//! answer.

/// The answer to a change.
macro_rules! changed {
    ($message:ident, $done:expr $(, $field:ident: $encode:expr)?) => {{
        let result = $done;
        Ok(tonic::Response::new(pb::$message {
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
            $($field: Some($encode(result.value)),)?
        }))
    }};
}

/// The answer to a request that issues an API key. A repeated request gets the same key without the API key.
macro_rules! issued {
    ($message:ident, $done:expr, key: $encode:expr) => {{
        let result = $done;
        let crate::authority::IssuedKey { key, plain_key } = result.value;
        Ok(tonic::Response::new(pb::$message {
            key: Some($encode(key)),
            replayed: plain_key.is_none(),
            plain_key: plain_key
                .map(|plain_key| plain_key.expose().to_owned())
                .unwrap_or_default(),
            revision: result.revision.as_u64(),
            effective_everywhere_time: Some(crate::grpc::encode::time(result.effective_at)),
            confirmed: result.is_everywhere,
        }))
    }};
}

/// Returns the fingerprint of a request: a hash of the method and of the message without `wait`.
macro_rules! fingerprint {
    ($method:literal, $message:ident) => {{
        let wait = std::mem::take(&mut $message.wait);
        let fingerprint = crate::grpc::hash($method, &$message);
        $message.wait = wait;
        fingerprint
    }};
}

mod authority_admin;
mod call_metrics;
mod decode;
mod encode;
mod ext_authz;
mod gateway_refusal;
mod guard;
mod health;
mod json;
mod key_admin;
mod key_verify;
mod page;
mod page_limiter;
mod realm_admin;
mod services;
mod status;

use std::sync::Arc;
use std::time::Duration;

pub use authority_admin::{AuthorityAdminService, declared_state};
pub use call_metrics::{CallMetrics, Method, MethodCalls, code_name};
pub use ext_authz::ExtAuthzService;
pub use guard::{CertifiedClients, Destination, Dispatch, Guard};
pub use health::HealthService;
pub use json::{JsonApi, JsonConnection, JsonServices, error_details};
pub use key_admin::KeyAdminService;
pub use key_verify::KeyVerifyService;
pub use page::Pages;
pub use realm_admin::RealmAdminService;
pub use services::{AdminPlane, MAX_ADMIN_MESSAGE, MAX_VERIFY_MESSAGE, Services};

use page_limiter::{PageLimiter, PagePermit};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};
use tracing::Instrument;
use zeroize::Zeroizing;

use crate::auth::{AuthError, Authenticator, AuthorizedCaller, Forbidden, KeyHolder, Principal};
use crate::authority::{Authority, Queued, Refusal};
use crate::domain::event::Revision;
use crate::metrics::{Limit, Refusals};
use crate::store;
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
    /// The use cases in progress.
    use_cases: TaskTracker,
    refusals: Arc<Refusals>,
    /// A permit for each call that waits for a change.
    waits: Arc<Semaphore>,
    /// A permit for each refused caller whose key is looked up.
    refused: Arc<Semaphore>,
    /// Cancelled when the server stops.
    stopping: CancellationToken,
}

/// How many calls may wait for a change.
const MAX_WAITS: usize = 64;

/// How many keys of refused callers may be looked up at once: few, because these callers may do nothing else.
const MAX_LOOKS: usize = 2;

/// How long a refusal waits for the facts of the key at most.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// How long a call waits for a change at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long before its deadline a call that waits is answered.
const ANSWER_BEFORE: Duration = Duration::from_millis(500);

impl Admin {
    /// Creates the shared parts. `use_cases` tracks the use cases in progress, and `refusals` counts those that are refused because
    /// of a limit. When `stopping` is cancelled, no call waits for changes any more.
    pub fn new(
        authority: Arc<Authority>,
        authenticator: Authenticator,
        pages: Pages,
        use_cases: TaskTracker,
        refusals: Arc<Refusals>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            authority,
            authenticator,
            pages,
            page_limiter: PageLimiter::default(),
            use_cases,
            refusals,
            waits: Arc::new(Semaphore::new(MAX_WAITS)),
            refused: Arc::new(Semaphore::new(MAX_LOOKS)),
            stopping,
        }
    }

    /// Authenticates the caller of an administrative request.
    async fn caller<T: Sync>(&self, request: &Request<T>) -> Result<AuthorizedCaller, Status> {
        let principal = guard::principal(request)?;
        match self.authenticator.authenticate_administrator(principal) {
            Ok(caller) => Ok(caller),
            Err(error) => Err(self.not_accepted(principal, error).await),
        }
    }

    /// Authenticates the caller of a request that needs no role, because it uses the caller's key for itself only.
    async fn holder<T: Sync>(&self, request: &Request<T>) -> Result<KeyHolder, Status> {
        let principal = guard::principal(request)?;
        match self.authenticator.authenticate_holder(principal) {
            Ok(holder) => Ok(holder),
            Err(error) => Err(self.not_accepted(principal, error).await),
        }
    }

    /// The error of a caller that is not accepted. If its key is refused, the error has what the store tells of the
    /// key, unless the store is slow or other refused callers are asking it.
    async fn not_accepted(&self, principal: &Principal, error: AuthError) -> Status {
        let AuthError::Refused(key) = error else {
            return error.into();
        };
        let facts = async {
            let permit = Arc::clone(&self.refused).try_acquire_owned().ok()?;
            let holder = self.authenticator.holder_of_any_key(principal).ok()?;
            let authority = Arc::clone(&self.authority);
            // To its end, as every use case.
            let read = self.use_cases.spawn(async move {
                let facts = authority.refused_key(&holder).await;
                drop(permit);
                facts
            });
            let facts = tokio::time::timeout(LONGEST_LOOK, read).await;
            facts.ok()?.ok()?.ok()?
        };
        status::refused_key(&key, facts.await)
    }

    /// Like [`Admin::holder`], for a key that may be expired, disabled or revoked.
    fn holder_of_any_key<T>(&self, request: &Request<T>) -> Result<KeyHolder, Status> {
        let principal = guard::principal(request)?;
        Ok(self.authenticator.holder_of_any_key(principal)?)
    }

    /// Runs a use case to its end, even if the caller cancels the call: a commit must not be dropped half-way, and a statement that
    /// reads runs on in the database, so its permit must not be returned before. Queues bound how many use cases wait.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Authority>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        match self
            .use_cases
            .spawn(work(Arc::clone(&self.authority)).in_current_span())
            .await
        {
            Ok(outcome) => outcome.map_err(|refusal| {
                if let Some(limit) = limit(&refusal) {
                    self.refusals.count(limit);
                }
                refusal.into()
            }),
            Err(panic) => {
                limited!(error, %panic, "use case panicked");
                Err(status::internal())
            }
        }
    }

    /// Waits until there is a change after this revision, as long as the caller and the server can. It holds no permit that others
    /// need.
    async fn wait_for_change(&self, caller: &AuthorizedCaller, after: Revision) {
        let Ok(_permit) = self.waits.try_acquire() else {
            return;
        };
        let left = caller
            .principal
            .answer_by
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(LONGEST_WAIT, |left| {
            LONGEST_WAIT.min(left.saturating_sub(ANSWER_BEFORE))
        });
        tokio::select! {
            () = self.authority.wait_for_change(after, timeout) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// Waits for a permit for a page and runs the use case that reads the page. The permit is held until that ends, and the answer
    /// must hold it until it is sent.
    ///
    /// # Errors
    /// At once if the caller may not read the page, so that only callers who may wait for a permit.
    async fn list<T, F>(
        &self,
        caller: &AuthorizedCaller,
        allowed: Result<(), Forbidden>,
        work: impl FnOnce(Arc<Authority>, AuthorizedCaller) -> F,
    ) -> Result<(PagePermit, T), Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        allowed?;
        let permit = self.page_limiter.take(&caller.group()).await;
        self.run(|authority| {
            let read = work(authority, caller.clone());
            async move { Ok((permit, read.await?)) }
        })
        .await
    }
}

fn hash(method: &str, request: &impl Message) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(method);
    hash.update(Zeroizing::new(request.encode_to_vec()));
    hash.finalize().into()
}

/// The limit because of which a use case is refused, if it is one.
fn limit(refusal: &Refusal) -> Option<Limit> {
    match refusal {
        Refusal::Busy(queue) | Refusal::TooManyOfCaller(queue) => Some(match queue {
            Queued::Changes => Limit::Changes,
            Queued::Reads => Limit::Reads,
            Queued::NewKeys => Limit::NewKeys,
        }),
        Refusal::BudgetSpent(_) => Some(Limit::DelegatedChanges),
        Refusal::Store(store::Error::NoRoom { .. }) => Some(Limit::DiskReserve),
        Refusal::NothingToRevoke(cause) => limit(cause),
        _ => None,
    }
}
