//! The use cases of administration.
//!
//! Every change takes the same steps. `Authority::begin` takes the revision counter and reads the caller's key again, so that a
//! key that was revoked a moment ago changes nothing. The use case reads what it depends on and writes. `Authority::finish`
//! records the event, commits, and waits until the mirror has applied the change.

mod audit;
mod bootstrap;
mod caller_state;
mod events;
mod grants;
mod idempotency;
mod import;
mod issue;
mod keys;
mod partners;
mod projects;
mod realms;
mod resolve;
mod revoke;
mod rotate;
mod secret;
mod two_pass;
mod update;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use audit::AuditEntry;
pub use bootstrap::{CreatedAuthority, create, recover};
use caller_state::CallerState;
pub use idempotency::{IdempotencyKey, IssuedKey};
pub use import::{EntryRefusal, ImportOutcomes, ImportedKey};
pub use keys::KeyScopes;
pub use resolve::NewKey;
pub use revoke::{BulkSelection, DryRun};
pub use rotate::KeepSecret;
pub use update::KeyUpdate;
pub use usage::KeyUsage;

use crate::auth::{AuthorizedCaller, Forbidden, Principal};
use crate::domain::clock::Clock;
use crate::domain::event::Revision;
use crate::domain::ids::RequestId;
use crate::domain::time::Timestamp;
use crate::domain::violation::Violation;
use crate::hashing::{Peppers, Roots, RootsBusy};
use crate::mirror::Mirror;
use crate::store::{self, Change, Store};

/// How long the mirror may take to apply a change.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The use cases of administration, over one store and its mirror.
pub struct Authority {
    store: Store,
    mirror: Arc<Mirror>,
    clock: Clock,
    peppers: Arc<Peppers>,
    roots: Roots,
}

/// When a change is answered. With one server both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// When it is durable and in force at the server that answers.
    #[default]
    Committed,
    /// When it is in force at every server.
    Everywhere,
}

/// What every request for a change carries besides the change itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeRequest {
    /// The caller's own id of the request. The audit trail keeps it.
    pub request_id: Option<RequestId>,
    /// When to answer.
    pub wait: Wait,
}

/// A change that is durable and in force here.
#[derive(Debug)]
pub struct Done<T> {
    /// What came of it.
    pub value: T,
    /// Its revision; if nothing had to change, that of the state that was found.
    pub revision: Revision,
    /// From when on it is in force everywhere. The embedded store has one server, so that is here.
    pub effective_at: Timestamp,
}

/// What was read, and the revision of the state that it was read in.
#[derive(Debug)]
pub struct Read<T> {
    /// What was read.
    pub value: T,
    /// Every change up to this one is in it.
    pub revision: Revision,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request breaks rules.
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    /// The caller's key is no longer good.
    #[error("the caller's key is no longer good")]
    CallerGone,
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The caller may do this, but not give so much. Names each field that goes beyond what it holds itself.
    #[error("this would give more than the caller's own key holds")]
    Exceeds(Vec<Violation>),
    /// There is no such thing, or the caller may not know of it. Says which thing, not its name: a key's text may have
    /// been pasted there.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// There is such a thing already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The state of things forbids it.
    #[error("{message}")]
    Precondition {
        /// In capitals, for programs.
        reason: &'static str,
        /// For people; says what to do.
        message: String,
    },
    /// The request sets this field, which is not implemented yet.
    #[error("{0}: is not implemented yet: leave it unset")]
    Unimplemented(String),
    /// Somebody else changed it since it was read.
    #[error("{0}")]
    Conflict(String),
    /// Too much is under way.
    #[error(transparent)]
    Busy(#[from] RootsBusy),
    /// The store does not answer, or cannot be understood.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// This server does not know yet of what it should answer about.
    #[error("this server cannot read the store's last changes; try again")]
    Behind,
    /// The change was made and is durable, but is not yet in force here.
    #[error(
        "the change was made, at revision {0}, but this server cannot read it back yet; look before you repeat it"
    )]
    NotApplied(Revision),
}

impl From<Forbidden> for Refusal {
    fn from(Forbidden(why): Forbidden) -> Self {
        Self::Forbidden(why)
    }
}

impl Authority {
    /// Puts the parts together.
    pub fn new(
        store: Store,
        mirror: Arc<Mirror>,
        clock: Clock,
        peppers: Arc<Peppers>,
        roots: Roots,
    ) -> Self {
        Self {
            store,
            mirror,
            clock,
            peppers,
            roots,
        }
    }

    /// Opens a change and reads the caller's key again within it.
    async fn begin(&self, caller: &AuthorizedCaller) -> Result<(Change, CallerState), Refusal> {
        let mut change = self.store.change(self.clock.now()).await?;
        let now = change.time();
        let caller_state = CallerState::reread(&mut change, &caller.principal, now).await?;
        Ok((change, caller_state))
    }

    /// Records the event, commits, and waits until the mirror has applied the change.
    async fn finish<T>(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        change: Change,
        entry: AuditEntry,
        value: T,
    ) -> Result<Done<T>, Refusal> {
        let event = entry.event(principal, request, &change);
        let revision = change.commit(&event).await?;
        tracing::info!(
            %revision,
            kind = event.kind.as_str(),
            realm = %event.subject.realm,
            key_id = event.subject.key.map(tracing::field::display),
            actor = event.actor.key.map(tracing::field::display),
            peer = event.actor.peer,
            "change committed"
        );
        self.mirror.notify();
        self.mirror
            .wait_for(revision, APPLY_TIMEOUT)
            .await
            .map_err(|_| Refusal::NotApplied(revision))?;
        Ok(self.done(value, revision))
    }

    /// Nothing had to change; the open change is given up.
    async fn unchanged<T>(&self, change: Change, value: T) -> Result<Done<T>, Refusal> {
        let revision = Revision::from(change.revision().as_u64().saturating_sub(1));
        drop(change);
        self.mirror
            .wait_for(revision, APPLY_TIMEOUT)
            .await
            .map_err(|_| Refusal::Behind)?;
        Ok(self.done(value, revision))
    }

    fn done<T>(&self, value: T, revision: Revision) -> Done<T> {
        Done {
            value,
            revision,
            effective_at: self.clock.now(),
        }
    }
}

/// Refuses a put or a deletion that was meant for another state of the thing. `wanted` 0 means that it must not exist.
fn check_revision(found: Option<Revision>, wanted: Option<u64>) -> Result<(), Refusal> {
    let found = found.map_or(0, Revision::as_u64);
    match wanted {
        Some(wanted) if wanted != found => Err(Refusal::Conflict(format!(
            "it is at revision {found} now, not at {wanted}: read it again, then decide"
        ))),
        _ => Ok(()),
    }
}

/// A page of a list: what is on it, and where the next one begins.
pub type Page<T> = store::Page<T, String>;

fn in_use(message: String) -> Refusal {
    Refusal::Precondition {
        reason: "STILL_HAS_KEYS",
        message,
    }
}

fn built_in(message: &str) -> Refusal {
    Refusal::Precondition {
        reason: "BUILT_IN_REALM",
        message: message.to_owned(),
    }
}
