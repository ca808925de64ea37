//! The use cases of administration: who may do what, and how it is done so that nothing is lost.
//!
//! Every change goes the same way. `Authority::begin` takes the counter of revisions and re-reads the caller, so that
//! one who was revoked a moment ago changes nothing any more; the use case reads what it depends on and writes;
//! `Authority::finish` records the event, commits, and waits until the mirror knows.

mod bootstrap;
mod caller;
mod draft;
mod events;
mod giving;
mod import;
mod issue;
mod keys;
mod once;
mod partners;
mod projects;
mod realms;
mod revoke;
mod rotate;
mod update;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use bootstrap::{Founded, found, recover};
use caller::Standing;
pub use caller::{ALLOWS_NOTHING, Caller, Delegate, Holder, Role, may_verify};
pub use draft::NewKey;
pub use import::{EntryRefusal, ForeignKey, Imported};
pub use keys::KeyScopes;
pub use once::{Made, Once};
pub use revoke::{ManyKeys, Trial};
pub use rotate::Survivor;
pub use update::KeyUpdate;
pub use usage::KeyUsage;

use crate::domain::clock::Clock;
use crate::domain::event::{Event, EventKind, Revision, Subject};
use crate::domain::time::Timestamp;
use crate::domain::violation::Violation;
use crate::hashing::{Peppers, Roots, RootsBusy};
use crate::mirror::Mirror;
use crate::store::{self, Change, Store};

/// How long a change may take to come round to the mirror.
const PATIENCE: Duration = Duration::from_secs(10);

/// What administration works with.
pub struct Authority {
    store: Store,
    mirror: Arc<Mirror>,
    clock: Clock,
    peppers: Arc<Peppers>,
    roots: Roots,
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
    Forbidden(String),
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

    /// Opens a change for a caller, whose key is read anew within it.
    async fn begin(&self, caller: &Caller) -> Result<(Change, Standing), Refusal> {
        let mut change = self.store.change(self.clock.now()).await?;
        let now = change.time();
        let standing = Standing::reread(&mut change, &caller.holder, now).await?;
        Ok((change, standing))
    }

    /// Records, commits, and waits until the mirror knows.
    async fn finish<T>(
        &self,
        caller: &Holder,
        change: Change,
        kind: EventKind,
        subject: Subject,
        detail: BTreeMap<String, String>,
        value: T,
    ) -> Result<Done<T>, Refusal> {
        let event = event(caller, &change, kind, subject, detail);
        let revision = change.commit(&event).await?;
        tracing::info!(
            %revision,
            kind = kind.as_str(),
            realm = %event.subject.realm,
            key_id = event.subject.key.map(tracing::field::display),
            actor = event.actor.key.map(tracing::field::display),
            peer = event.actor.peer,
            "changed"
        );
        self.mirror.poke();
        self.mirror
            .wait_for(revision, PATIENCE)
            .await
            .map_err(|_| Refusal::NotApplied(revision))?;
        Ok(self.done(value, revision))
    }

    /// Nothing had to change; the open change is given up.
    async fn unchanged<T>(&self, change: Change, value: T) -> Result<Done<T>, Refusal> {
        let revision = Revision::from(change.revision().as_u64().saturating_sub(1));
        drop(change);
        self.mirror
            .wait_for(revision, PATIENCE)
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

/// What this change records.
fn event(
    caller: &Holder,
    change: &Change,
    kind: EventKind,
    subject: Subject,
    mut detail: BTreeMap<String, String>,
) -> Event {
    if let Some(id) = caller.request_id {
        detail.insert("request_id".to_owned(), id.to_string());
    }
    Event {
        revision: change.revision(),
        time: change.time(),
        actor: caller.actor(),
        kind,
        subject,
        detail,
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

/// Words for an event's detail; empty ones are left out.
fn detail<const N: usize>(words: [(&str, String); N]) -> BTreeMap<String, String> {
    words
        .into_iter()
        .filter(|(_, word)| !word.is_empty())
        .map(|(name, word)| (name.to_owned(), word))
        .collect()
}

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
