//! The use cases of administration.
//!
//! Every change takes the same steps. `Authority::begin` waits for its turn, locks the revision counter and reads the caller's key
//! again, so that a key that was just revoked changes nothing. The use case checks its preconditions and writes. `Authority::finish` records the
//! event, commits, and waits until the mirror has applied the change.

mod admission;
mod audit;
mod bootstrap;
mod budget;
mod built_in_realm;
mod caller_state;
mod checked_change;
mod declared;
mod events;
mod everywhere;
mod fair_queue;
mod grants;
mod hash_hints;
mod history;
mod holds;
mod idempotency;
mod import;
mod issue;
mod key_reference;
mod keys;
mod matching_keys;
mod not_found;
mod partners;
mod projects;
mod realms;
mod rename_scope;
mod replicas;
mod resolve;
mod revoke;
mod rotate;
mod secret;
mod two_pass;
mod update;
mod usage;

use std::sync::Arc;
use std::time::Duration;

pub use admission::Queued;
use admission::{Admission, OpenChange};
use audit::AuditEntry;
pub use bootstrap::{CreatedAuthority, create, create_declared, recover};
pub use built_in_realm::update_built_in_realm;
pub use declared::{AppliedState, DeclaredState, PlannedChange, Prune};
use everywhere::{Everywhere, WaitStart};
pub use hash_hints::{ReplacedHints, replace_hash_hints};
pub use history::ForkWithHolds;
use holds::history_rewritten;
use idempotency::IdempotencyKey;
pub use idempotency::IssuedKey;
pub use import::{EntryRefusal, ImportOutcomes, ImportedKey};
pub use key_reference::KeyReference;
pub use keys::{KeyScopes, RefusedKeyFacts};
pub use matching_keys::{BulkOutcome, EndOfKeys};
pub use partners::PartnerDefinition;
pub use rename_scope::{RenameScope, RenamedScope};
pub use replicas::ClockCorrection;
pub use resolve::NewKey;
pub use revoke::{BulkSelection, DryRun};
pub use rotate::{KeepSecret, Rotation};
pub use update::KeyUpdate;
pub use usage::{KeyUsage, OwnerUsage};

use crate::auth::{Forbidden, Principal};
use crate::domain::clock::Clock;
use crate::domain::event::{EventId, Revision};
use crate::domain::hold::Holdable;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violations;
use crate::hashing::{Peppers, Roots};
use crate::mirror::Mirror;
use crate::store::{self, Snapshot, Store};
use crate::telemetry::LineRate;

/// How long a change waits for the mirror to apply it.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The use cases of administration, over one store and its mirror.
pub struct Authority {
    store: Store,
    mirror: Arc<Mirror>,
    clock: Clock,
    peppers: Arc<Peppers>,
    roots: Roots,
    admission: Admission,
    everywhere: Everywhere,
}

/// When the server answers a change. If it is the only server of its database, both values mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// When the change is durable and in force on the server that answers.
    #[default]
    Committed,
    /// When the change is in force on every server.
    Everywhere,
}

/// The options that every request for a change has.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeRequest {
    /// The id that the caller chose for the request. The audit trail records it.
    pub request_id: Option<RequestId>,
    /// When to answer.
    pub wait: Wait,
}

/// The result of a change that is durable and in force on this server.
#[derive(Debug)]
pub struct ChangeResult<T> {
    /// The result.
    pub value: T,
    /// The revision of the change. If nothing had to change, the revision of the state that was read.
    pub revision: Revision,
    /// The time from which on the change is in force on every server and in every cache.
    pub effective_at: Timestamp,
    /// Whether the change is in force on every server.
    pub is_everywhere: bool,
}

/// A value and the revision of the state from which it was read.
#[derive(Debug)]
pub struct Read<T> {
    /// The value.
    pub value: T,
    /// The value includes every change up to this revision.
    pub revision: Revision,
}

/// The reason why a use case failed. The messages are for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Fields of the request break rules.
    #[error("the request is not valid")]
    Invalid(Violations),
    /// The caller's key was accepted, but is not any more when the change reads it again.
    #[error(
        "the caller's key is no longer accepted: check whether it was revoked, disabled, rotated or restricted"
    )]
    CallerGone,
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The change would grant more than the caller's own key holds. Names each field that does so.
    #[error("the change would grant more than the caller's own key holds")]
    Exceeds(Violations),
    /// A named resource does not exist, or the caller may not know of it. The message never repeats the name, which may be an
    /// API key that was pasted into the wrong field.
    #[error("{0}")]
    NotFound(&'static str),
    /// The new resource conflicts with an existing one.
    #[error("{0}")]
    AlreadyExists(String),
    /// Another key of the realm has the external id. Contains the id of that key.
    #[error("another key of the realm has the external id")]
    ExternalIdTaken(KeyId),
    /// The current state does not allow the change.
    #[error("{message}")]
    Precondition {
        /// The `ErrorInfo` reason, for programs.
        reason: &'static str,
        /// For people: what is wrong and what to do.
        message: String,
    },
    /// The resource is not at the revision that the request expects.
    #[error("{0}")]
    Conflict(String),
    /// Others are served first, and this request has waited for too long.
    #[error("the server is busy with other {0}: try again")]
    Busy(Queued),
    /// The caller, or callers with the same limits, have too many requests in progress.
    #[error("the caller has too many {0} in progress: try again, with fewer at once")]
    TooManyOfCaller(Queued),
    /// The partner's own keys have made too many changes. Contains the time after which they may make another one.
    #[error(
        "the partner's own keys have made too many changes: try again later, or ask an operator; keys can be revoked, disabled \
         and deleted all the same"
    )]
    BudgetSpent(Duration),
    /// A bulk revocation with a `request_id` would revoke no key, but is a change, which was refused.
    #[error("no key is left to revoke, but a call with `request_id` is a change")]
    NothingToRevoke(Box<Self>),
    /// The store does not answer, or its data cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// This server has not applied a revision that the answer depends on.
    #[error("this server has not read the latest changes from the store yet: try again")]
    Behind,
    /// The change is durable, but is not yet in force on this server.
    #[error(
        "the change was made, at revision {0}, but is not in force on this server yet: check the current state before you \
         repeat the call"
    )]
    NotApplied(Revision),
}

impl From<Forbidden> for Refusal {
    fn from(Forbidden(why): Forbidden) -> Self {
        Self::Forbidden(why)
    }
}

/// Limits the log of changes. The audit trail has all of them.
static CHANGE_LINES: LineRate = LineRate::new();

impl Authority {
    /// Creates the use cases over these parts.
    ///
    /// The keys of a partner make at most `delegated_changes_per_hour` changes, apart from those that take access away.
    pub fn new(
        store: Store,
        mirror: Arc<Mirror>,
        clock: Clock,
        peppers: Arc<Peppers>,
        roots: Roots,
        delegated_changes_per_hour: u32,
    ) -> Self {
        let admission = Admission::new(roots.width(), delegated_changes_per_hour);
        Self {
            store,
            mirror,
            clock,
            peppers,
            roots,
            admission,
            everywhere: Everywhere::new(),
        }
    }

    /// Records the event, commits, and waits until the mirror has applied the change.
    async fn finish<T>(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        mut change: OpenChange,
        entry: AuditEntry,
        value: T,
    ) -> Result<ChangeResult<T>, Refusal> {
        // The caller may hold more in the store than it is left.
        let caller = change.may_grant().then_some(Holdable::Key(principal.key));
        if let Some(caller) = &caller
            && change.has_holds()
            && change.is_held(caller).await?
        {
            return Err(history_rewritten());
        }
        let gifts: Vec<_> = caller.iter().chain(change.gives_to()).cloned().collect();
        let gives_to_all = change.gives_to_all();
        let is_held = || {
            let index = self.mirror.index();
            gives_to_all && index.held() > 0 || gifts.iter().any(|what| index.is_held(what))
        };
        if is_held() {
            return Err(history_rewritten());
        }
        let event = entry.event(principal, request, &change);
        let committed = self.commit(change, &event).await?;
        let start = self.everywhere.wait_start(committed);
        let revision = committed.revision;
        if let Some(suppressed) = CHANGE_LINES.admit() {
            tracing::info!(
                %revision,
                kind = event.kind.as_str(),
                realm = %event.subject.realm,
                key_id = event.subject.key.map(tracing::field::display),
                actor = event.actor.key.map(tracing::field::display),
                peer = event.actor.peer,
                suppressed = (suppressed > 0).then_some(suppressed),
                "change committed"
            );
        }
        self.mirror
            .wait_for(committed, APPLY_TIMEOUT)
            .await
            .map_err(|_| Refusal::NotApplied(revision))?;
        // The loss of a history was noticed meanwhile.
        if is_held() {
            return Err(history_rewritten());
        }
        Ok(self
            .change_result(value, revision, &start, principal, request)
            .await)
    }

    /// Drops a change that has nothing to write, or a snapshot that tells so, and returns the revision of its state.
    async fn unchanged<T>(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        mut state: impl AsMut<Snapshot>,
        value: T,
    ) -> Result<ChangeResult<T>, Refusal> {
        let last = state.as_mut().last_event().await?;
        drop(state);
        self.in_force(principal, request, value, last.revision, last)
            .await
    }

    /// Returns an answer with its revision, when this server has applied the last change of the state in which the answer was read.
    /// Another server may have made that change. No transaction may be open: others would wait for it.
    ///
    /// # Errors
    /// [`Refusal::Behind`] if this server does not apply the change in time.
    async fn in_force<T>(
        &self,
        principal: &Principal,
        request: &ChangeRequest,
        value: T,
        revision: Revision,
        last: EventId,
    ) -> Result<ChangeResult<T>, Refusal> {
        let start = self.everywhere.wait_start(last);
        self.mirror
            .wait_for(last, APPLY_TIMEOUT)
            .await
            .map_err(|_| Refusal::Behind)?;
        Ok(self
            .change_result(value, revision, &start, principal, request)
            .await)
    }

    /// The result of a change that is in force on this server, when it is in force as far as the request demands.
    async fn change_result<T>(
        &self,
        value: T,
        revision: Revision,
        start: &WaitStart,
        principal: &Principal,
        request: &ChangeRequest,
    ) -> ChangeResult<T> {
        let is_everywhere = self.wait(request.wait, start, principal).await;
        ChangeResult {
            value,
            revision,
            effective_at: self.in_force_from(is_everywhere),
            is_everywhere,
        }
    }
}

/// Compares the current revision of a resource with the `if_revision` of a request. `if_revision` 0 means that the resource must
/// not exist.
///
/// # Errors
/// [`Refusal::Conflict`] if the revisions differ.
fn check_revision(found: Option<Revision>, if_revision: Option<u64>) -> Result<(), Refusal> {
    let found = found.map_or(0, Revision::as_u64);
    let Some(expected) = if_revision.filter(|expected| *expected != found) else {
        return Ok(());
    };
    Err(Refusal::Conflict(match (found, expected) {
        (0, _) => format!(
            "`if_revision` is {expected}, but nothing with this id exists: set `if_revision` to 0 to create it"
        ),
        (_, 0) => format!(
            "`if_revision` is 0, but this id exists already, at revision {found}: read the current state, then decide"
        ),
        _ => format!(
            "`if_revision` is {expected}, but the current revision is {found}: read the current state, then decide"
        ),
    }))
}

/// A page of a list: its items and the cursor of the next page.
pub type Page<T> = store::Page<T, String>;

/// The refusal to delete or change something that keys depend on.
fn in_use(message: String) -> Refusal {
    Refusal::Precondition {
        reason: "STILL_HAS_KEYS",
        message,
    }
}

/// The refusal to change the built-in realm.
fn built_in(message: &str) -> Refusal {
    Refusal::Precondition {
        reason: "BUILT_IN_REALM",
        message: message.to_owned(),
    }
}
