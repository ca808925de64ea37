//! The feed: the one task that writes the mirror.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Mirror;
use super::index::Index;
use crate::domain::clock::Clock;
use crate::domain::event::{Revision, Subject};
use crate::domain::ids::RealmId;
use crate::store::{Error, Snapshot, Store};

/// From so many changes on, everything is loaded anew.
const TOO_MANY: u32 = 10_000;

/// How often the time is written down while nothing else is.
const TIME_MARK_EVERY: Duration = Duration::from_mins(1);

/// Follows the store and brings every change into the mirror, in order.
pub struct Feed {
    store: Store,
    clock: Clock,
    mirror: Arc<Mirror>,
    /// The last change that the mirror knows of, and its random mark.
    last: (Revision, i64),
    /// How long to wait between two looks at the store if nobody pokes.
    interval: Duration,
}

impl Feed {
    /// A feed of a mirror that is still empty.
    pub fn new(store: Store, clock: Clock, interval: Duration) -> Self {
        Self {
            store,
            clock,
            mirror: Arc::new(Mirror::empty()),
            last: (Revision::default(), 0),
            interval,
        }
    }

    /// Loads everything in one snapshot. The store must have a first change.
    pub async fn load(&mut self) -> Result<(), Error> {
        let (index, stamp) = load(&self.store, &self.clock).await?;
        self.last = (index.revision(), stamp);
        self.mirror.index.store(Arc::new(index));
        self.mirror.applied.send_replace(self.last.0);
        Ok(())
    }

    /// What this feeds.
    pub fn mirror(&self) -> Arc<Mirror> {
        Arc::clone(&self.mirror)
    }

    /// Follows the store until told to stop. A store that does not answer is asked again; the mirror stays as it is.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut answers = true;
        let mut next_mark = Instant::now() + TIME_MARK_EVERY;
        while !*stop.borrow_and_update() {
            match self.poll().await {
                Ok(()) if answers => {}
                Ok(()) => {
                    answers = true;
                    tracing::info!("the store answers again");
                }
                Err(error) => {
                    // Once for each outage, not twenty times a second.
                    if answers {
                        tracing::error!(%error, "the store cannot be followed; verification goes on from memory");
                    }
                    answers = false;
                }
            }
            if Instant::now() >= next_mark {
                next_mark = Instant::now() + TIME_MARK_EVERY;
                if let Err(error) = self.store.mark_time(self.clock.now()).await {
                    tracing::warn!(%error, "the time could not be written down");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                // After a failure a poke does not shorten the wait: there is nothing to be had.
                () = self.mirror.poke.notified(), if answers => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Brings in what is new. Reads from the last known change on, that one included: if it is no longer there as it was,
    /// the history is another one, and everything is loaded anew.
    async fn poll(&mut self) -> Result<(), Error> {
        let sent = self.clock.now();
        let mut snapshot = self.store.snapshot().await?;
        let entries = snapshot.feed(self.last.0, TOO_MANY).await?;
        let known = entries
            .first()
            .is_some_and(|first| (first.revision, first.stamp) == self.last);
        let Some(last) = entries
            .last()
            .filter(|_| known && entries.len() < TOO_MANY as usize)
        else {
            drop(snapshot);
            return self.reload(known).await;
        };
        let last = (last.revision, last.stamp);
        if entries.len() > 1 {
            let subjects = entries
                .into_iter()
                .skip(1)
                .map(|entry| entry.subject)
                .collect();
            apply(&mut snapshot, &self.mirror.index(), subjects).await?;
        }
        drop(snapshot);
        self.last = last;
        self.mirror.index().set_current(last.0, sent);
        self.mirror
            .applied
            .send_if_modified(|applied| std::mem::replace(applied, last.0) != last.0);
        Ok(())
    }

    async fn reload(&mut self, same_history: bool) -> Result<(), Error> {
        let before = self.mirror.index.load_full();
        let (index, stamp) = load(&self.store, &self.clock).await?;
        let kept = index.keep_revoked(&before);
        if !same_history || kept > 0 {
            let reason = format!(
                "the store's history was rewritten: revision {} was known here, it now ends at {}, and {kept} keys that were \
                 revoked are no longer",
                self.last.0,
                index.revision()
            );
            tracing::error!(
                reason,
                "this server stays in service for what it denied, but is not ready"
            );
            self.mirror.distrust.send_replace(Some(reason));
        }
        self.last = (index.revision(), stamp);
        self.mirror.index.store(Arc::new(index));
        self.mirror.applied.send_replace(self.last.0);
        Ok(())
    }
}

/// Everything, as of one snapshot, with the stamp of its last change.
async fn load(store: &Store, clock: &Clock) -> Result<(Index, i64), Error> {
    let sent = clock.now();
    let mut snapshot = store.snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    let index = Index::default();
    for realm in snapshot.all_realms().await? {
        index.put_realm(realm.value);
    }
    for partner in snapshot.all_partners().await? {
        index.put_partner(&partner.value);
    }
    for project in snapshot.all_projects().await? {
        index.put_project(&project.value);
    }
    snapshot.each_key(|id, key| index.put_key(id, key)).await?;
    index.set_current(head.revision, sent);
    Ok((index, head.stamp))
}

/// Brings the present state of every subject into the index. What changed twice is brought in once, and outer things before
/// the inner ones that refer to them.
async fn apply(
    snapshot: &mut Snapshot,
    index: &Index,
    subjects: Vec<Subject>,
) -> Result<(), Error> {
    let mut realms = HashSet::new();
    let mut partners = HashSet::new();
    let mut projects = HashSet::new();
    let mut keys = HashSet::new();
    for Subject {
        realm,
        partner,
        project,
        key,
    } in subjects
    {
        match (partner, project, key) {
            (_, _, Some(key)) => {
                keys.insert(key);
            }
            (_, Some(project), None) => {
                projects.insert((realm, project));
            }
            (Some(partner), None, None) => {
                partners.insert((realm, partner));
            }
            (None, None, None) => {
                // A realm is put or deleted together with the partner that stands for it in the built-in one.
                partners.insert((RealmId::built_in(), realm.as_partner()));
                realms.insert(realm);
            }
        }
    }
    for id in realms {
        match snapshot.find_realm(&id).await? {
            Some(realm) => index.put_realm(realm.value),
            None => index.remove_realm(&id),
        }
    }
    for (realm, id) in partners {
        match snapshot.find_partner(&realm, &id).await? {
            Some(partner) => index.put_partner(&partner.value),
            None => index.remove_partner(&realm, &id),
        }
    }
    for (realm, id) in projects {
        match snapshot.find_project(&realm, &id).await? {
            Some((project, false)) => index.put_project(&project.value),
            _ => index.remove_project(&realm, &id),
        }
    }
    for id in keys {
        match snapshot.find_key(id).await {
            Ok(Some(key)) => index.put_key(id, Ok(key)),
            Ok(None) => index.remove_key(id),
            Err(corrupt @ Error::Corrupt(_)) => index.put_key(id, Err(corrupt)),
            Err(unavailable) => return Err(unavailable),
        }
    }
    Ok(())
}
