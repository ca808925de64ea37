//! The feed: the one task that writes the mirror.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::index::Index;
use super::{Mirror, PreparedRealm};
use crate::domain::clock::Clock;
use crate::domain::event::{EventKind, Revision, Subject};
use crate::domain::ids::RealmId;
use crate::domain::realm::Realm;
use crate::store::{Error, FeedEntry, KeyRow, Snapshot, Store};

/// From so many changes on, everything is loaded anew.
const TOO_MANY: u32 = 10_000;

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
        self.mirror.index.store(index);
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
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                // After a failure a notify does not shorten the wait: there is nothing to be had.
                () = self.mirror.notify.notified(), if answers => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Brings in what is new. Reads from the last known change on, that one included: if it is no longer there as it was,
    /// the history is another one, and everything is loaded anew.
    async fn poll(&mut self) -> Result<(), Error> {
        let sent = self.clock.now();
        // Time that was once seen here does not come again.
        self.clock.advance(sent);
        let mut snapshot = self.store.feed_snapshot().await?;
        let entries = snapshot.feed(self.last.0, TOO_MANY).await?;
        let known = |first: &FeedEntry| (first.revision, first.stamp) == self.last;
        let Some((_, new)) = entries.split_first().filter(|(first, _)| known(first)) else {
            drop(snapshot);
            return self.reload(false).await;
        };
        if let Some(last) = new.last() {
            let readable: Option<Vec<_>> = new.iter().map(|entry| entry.change.clone()).collect();
            let Some(changes) = readable.filter(|_| entries.len() < TOO_MANY as usize) else {
                drop(snapshot);
                return self.reload(true).await;
            };
            apply(&mut snapshot, &self.mirror, self.last.0, changes).await?;
            self.last = (last.revision, last.stamp);
        }
        self.mirror.index().set_current(self.last.0, sent);
        self.mirror.applied.send_if_modified(|applied| {
            let before = std::mem::replace(applied, self.last.0);
            before != self.last.0
        });
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
        self.mirror.index.store(index);
        self.mirror.forget_prepared();
        self.mirror.applied.send_replace(self.last.0);
        Ok(())
    }
}

/// Everything, as of one snapshot, with the stamp of its last change.
async fn load(store: &Store, clock: &Clock) -> Result<(Arc<Index>, i64), Error> {
    let sent = clock.now();
    let mut snapshot = store.feed_snapshot().await?;
    let head = snapshot
        .head()
        .await?
        .ok_or_else(|| Error::Corrupt("the authority".to_owned()))?;
    let index = Arc::new(Index::default());
    for realm in snapshot.all_realms().await? {
        index.put_realm(prepared(realm.value).await);
    }
    for partner in snapshot.all_partners().await? {
        index.put_partner(&partner.value);
    }
    for project in snapshot.all_projects().await? {
        index.put_project(&project.value);
    }
    for many in snapshot.bulk_revocations(Revision::default()).await? {
        index.revoke_many(&many);
    }
    // The one thread reads from the store while the other makes facts of what was read.
    let (rows, mut read) = mpsc::channel::<Vec<KeyRow>>(8);
    let filled = Arc::clone(&index);
    let filling = tokio::task::spawn_blocking(move || {
        while let Some(rows) = read.blocking_recv() {
            for row in rows {
                filled.put_key(row.id, row.facts());
            }
        }
    });
    snapshot.hand_over_keys(rows).await?;
    filling
        .await
        .expect("a row, whatever it holds, does no harm");
    index.set_current(head.revision, sent);
    Ok((index, head.stamp))
}

/// Makes the trie of a realm on a blocking thread.
async fn prepared(realm: Realm) -> PreparedRealm {
    tokio::task::spawn_blocking(|| PreparedRealm::new(realm))
        .await
        .expect("no stored realm makes it panic")
}

/// Brings the present state of everything that changed into the index: first what is gone, then the outer things, and then
/// the inner ones that refer to them. What was deleted and made again under the same name is another thing, which inherits
/// nothing. Where only what gateways go by changes in a realm, that comes last: nothing waits for its making.
async fn apply(
    snapshot: &mut Snapshot,
    mirror: &Mirror,
    known: Revision,
    changes: Vec<(EventKind, Subject)>,
) -> Result<(), Error> {
    let index = mirror.index.load_full();
    let mut realms = HashSet::new();
    let mut partners = HashSet::new();
    let mut projects = HashSet::new();
    let mut keys = HashSet::new();
    let mut gone = Vec::new();
    let mut many = Vec::new();
    if changes
        .iter()
        .any(|(kind, _)| *kind == EventKind::KeysRevoked)
    {
        many = snapshot.bulk_revocations(known).await?;
    }
    for (kind, subject) in changes {
        if matches!(kind, EventKind::RealmDeleted | EventKind::PartnerDeleted) {
            gone.push(subject.clone());
        }
        let Subject {
            realm,
            partner,
            project,
            key,
        } = subject;
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

    // All is read before anything is written, so that what belongs together changes together.
    let mut realm_rows = Vec::new();
    for id in realms {
        realm_rows.push((snapshot.find_realm(&id).await?, id));
    }
    let mut partner_rows = Vec::new();
    for (realm, id) in partners {
        partner_rows.push((snapshot.find_partner(&realm, &id).await?, realm, id));
    }
    let mut project_rows = Vec::new();
    for (realm, id) in projects {
        project_rows.push((snapshot.find_project(&realm, &id).await?, realm, id));
    }
    let mut key_rows = Vec::new();
    for id in keys {
        match snapshot.find_key_row(id).await? {
            None => index.remove_key(id),
            Some(row) => key_rows.push(row),
        }
    }

    for Subject { realm, partner, .. } in gone {
        match partner {
            Some(partner) => index.remove_partner(&realm, &partner),
            None => index.remove_realm(&realm),
        }
    }
    let mut of_gateways = Vec::new();
    for (row, id) in realm_rows {
        match row {
            Some(realm) if index.changes_gateways_only(&realm.value) => {
                of_gateways.push(realm.value);
            }
            Some(realm) => index.put_realm(ready(mirror, realm.value).await),
            None => index.remove_realm(&id),
        }
    }
    for (row, realm, id) in partner_rows {
        match row {
            Some(partner) => index.put_partner(&partner.value),
            None => index.remove_partner(&realm, &id),
        }
    }
    for (row, realm, id) in project_rows {
        match row {
            Some((project, false)) => index.put_project(&project.value),
            _ => index.remove_project(&realm, &id),
        }
    }
    for revocation in many {
        index.revoke_many(&revocation);
    }
    for row in key_rows {
        index.put_key(row.id, row.facts());
    }
    for realm in of_gateways {
        index.put_realm(ready(mirror, realm).await);
    }
    Ok(())
}

/// The realm with its trie: handed over by `Authority::put_realm`, or made here if another process put it.
async fn ready(mirror: &Mirror, realm: Realm) -> PreparedRealm {
    match mirror.take_prepared(&realm) {
        Some(realm) => realm,
        None => prepared(realm).await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::event::{Actor, Event};
    use crate::domain::ids::{PartnerId, ProjectId};
    use crate::domain::partner::{Partner, Project};
    use crate::domain::route::{Need, PathTemplate, Route};
    use crate::domain::time::Timestamp;
    use crate::store::{Change, Genesis};

    /// A store with a history of its own making, and a feed of it.
    struct World {
        store: Store,
        feed: Feed,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open_sqlite(&dir.path().join("claviger.db"))
                .await
                .unwrap();
            let genesis = Genesis {
                pepper: 1,
                canary: [0; 32],
                seal: [0; 32],
                time: Timestamp::from_micros(1),
            };
            let mut change = store.found(&genesis).await.unwrap().unwrap();
            change.put_realm(&Realm::built_in()).await.unwrap();
            commit(change, EventKind::RealmPut, None, None).await;
            let mut feed = feed(&store);
            feed.load().await.unwrap();
            Self {
                store,
                feed,
                _dir: dir,
            }
        }

        async fn change(&self) -> Change {
            self.store.change(Timestamp::from_micros(2)).await.unwrap()
        }

        async fn put_partner(&self) {
            let mut change = self.change().await;
            let partner = Partner {
                realm: RealmId::built_in(),
                id: partner(),
                display_name: String::new(),
                suspended: false,
            };
            change.put_partner(&partner).await.unwrap();
            commit(change, EventKind::PartnerPut, Some(partner.id), None).await;
        }

        async fn assert_faithful(&self) {
            let mut fresh = feed(&self.store);
            fresh.load().await.unwrap();
            let (followed, loaded) = (self.feed.mirror(), fresh.mirror());
            assert_eq!(followed.index().describe(), loaded.index().describe());
        }
    }

    fn feed(store: &Store) -> Feed {
        let clock = Clock::manual(Timestamp::from_micros(3));
        Feed::new(store.clone(), clock, Duration::from_secs(1))
    }

    fn partner() -> PartnerId {
        PartnerId::parse("acme").unwrap()
    }

    async fn commit(
        change: Change,
        kind: EventKind,
        partner: Option<PartnerId>,
        project: Option<ProjectId>,
    ) {
        let event = Event {
            revision: change.revision(),
            time: change.time(),
            actor: Actor::command_line(),
            kind,
            subject: Subject {
                realm: RealmId::built_in(),
                partner,
                project,
                key: None,
            },
            detail: BTreeMap::new(),
        };
        change.commit(&event).await.unwrap();
    }

    /// Seen red with `take_prepared` that does not compare.
    #[tokio::test]
    async fn a_realm_that_was_handed_over_is_taken_only_if_the_store_has_the_very_same() {
        let mut world = World::new().await;
        let with_route = |path: &str| Realm {
            routes: vec![Route {
                methods: Vec::new(),
                path: PathTemplate::parse(path).unwrap(),
                need: Need::Public,
            }],
            ..Realm::built_in()
        };
        for (stored, handed_over) in [("/a", "/a"), ("/b", "/c"), ("/d", "/d")] {
            world
                .feed
                .mirror()
                .prepare(PreparedRealm::new(with_route(handed_over)));
            let mut change = world.change().await;
            change.put_realm(&with_route(stored)).await.unwrap();
            commit(change, EventKind::RealmPut, None, None).await;
            world.feed.poll().await.unwrap();
            world.assert_faithful().await;
            let mirror = world.feed.mirror();
            assert!(mirror.take_prepared(&with_route(handed_over)).is_none());
        }
    }

    /// Seen red with `gone` left empty in `apply`: the project is then still the new partner's.
    #[tokio::test]
    async fn a_partner_that_is_deleted_and_made_again_within_one_poll_inherits_nothing() {
        let mut world = World::new().await;
        world.put_partner().await;
        let project = Project {
            realm: RealmId::built_in(),
            id: ProjectId::parse("web").unwrap(),
            partner: partner(),
            display_name: String::new(),
        };
        let mut change = world.change().await;
        change.put_project(&project).await.unwrap();
        commit(
            change,
            EventKind::ProjectPut,
            Some(partner()),
            Some(project.id),
        )
        .await;
        world.feed.poll().await.unwrap();
        world.assert_faithful().await;

        let mut change = world.change().await;
        change
            .delete_partner(&RealmId::built_in(), &partner())
            .await
            .unwrap();
        commit(change, EventKind::PartnerDeleted, Some(partner()), None).await;
        world.put_partner().await;
        world.feed.poll().await.unwrap();
        world.assert_faithful().await;
    }
}
