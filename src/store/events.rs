//! The table of events, with one row for each change.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Type};
use uuid::Uuid;

use super::{
    Change, Error, INSERTS_AT_ONCE, Page, PageBuilder, SEARCH_TIME, Snapshot, for_each,
    keeps_insert, on, page_and_one, revision, search_error, stored,
};
use crate::domain::event::{
    Actor, Event, EventId, EventKind, Revision, SUSPENSION, SoughtKind, Subject,
};
use crate::domain::ids::{KeyId, PartnerId, ProjectId, RealmId};
use crate::domain::time::Timestamp;
use crate::hashing::random;
use crate::telemetry::limited;

/// How many events are read to find out whether keys came into being.
const MAX_EVENTS_LOOKED_AT: i64 = 1_000;

/// The maximum number of events that one statement looks for.
const IDS_AT_ONCE: usize = 500;

/// A filter for events, and the position of a page. An event matches if it meets all conditions.
#[derive(Debug, Default)]
pub struct EventFilter {
    /// The event is about this realm.
    pub realm: Option<RealmId>,
    /// The event is about this partner.
    pub partner: Option<PartnerId>,
    /// The event is about this key.
    pub key: Option<KeyId>,
    /// The change was made with this key.
    pub actor: Option<KeyId>,
    /// The event is of one of these kinds; empty means any kind.
    pub kinds: Vec<SoughtKind>,
    /// The time of the event is not before this time.
    pub from: Option<Timestamp>,
    /// The time of the event is before this time.
    pub until: Option<Timestamp>,
    /// The revision is lower than this one, the last of the previous page.
    pub before: Option<Revision>,
    /// The revision is higher than this one, and the events are listed oldest first.
    pub after: Option<Revision>,
    /// The maximum number of events.
    pub limit: u32,
}

/// The part of an event that the feed needs.
#[derive(Clone, Debug)]
pub struct FeedEntry {
    /// The identity of the event.
    pub id: EventId,
    /// The kind and subject of the change; `None` if they cannot be read.
    pub change: Option<(EventKind, Subject)>,
}

/// A column that cannot be decoded spoils one entry and not the whole feed.
impl<'r, R> FromRow<'r, R> for FeedEntry
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    Option<&'r str>: Decode<'r, R::Database> + Type<R::Database>,
    Option<Uuid>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let change = || {
            let kind = EventKind::parse(row.try_get(2).ok()?)?;
            let (realm, partner) = (row.try_get(3).ok()?, row.try_get(4).ok()?);
            let (project, key) = (row.try_get(5).ok()?, row.try_get(6).ok()?);
            Some((kind, subject(realm, partner, project, key)?))
        };
        Ok(Self {
            id: EventId {
                revision: revision(row.try_get(0)?),
                stamp: row.try_get(1)?,
            },
            change: change(),
        })
    }
}

type EventRow = (
    i64,
    i64,
    Option<Uuid>,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<Uuid>,
    String,
);

impl Change {
    /// Appends these events, at least one, and returns the identity of the last one.
    pub(super) async fn append(&mut self, events: &[Event]) -> Result<EventId, Error> {
        let mut last = None;
        for chunk in events.chunks(INSERTS_AT_ONCE) {
            let ids: Vec<EventId> = chunk.iter().map(with_stamp).collect();
            on!(self.snapshot.session, |conn| async {
                let mut query = QueryBuilder::new(
                    "INSERT INTO events
                     (revision, stamp, time, actor, peer, kind, realm, partner, project, key_id, detail) ",
                );
                query.push_values(chunk.iter().zip(&ids), |mut row, (event, id)| {
                    let Event {
                        revision,
                        time,
                        actor: Actor { key: actor, peer },
                        kind,
                        subject:
                            Subject {
                                realm,
                                partner,
                                project,
                                key,
                            },
                        detail,
                    } = event;
                    let detail =
                        serde_json::to_string(detail).expect("a map of texts can be serialized");
                    row.push_bind(stored(*revision))
                        .push_bind(id.stamp)
                        .push_bind(time.as_micros())
                        .push_bind(actor.map(KeyId::as_uuid))
                        .push_bind(peer.as_str())
                        .push_bind(kind.as_str())
                        .push_bind(realm.as_str())
                        .push_bind(partner.as_ref().map(PartnerId::as_str))
                        .push_bind(project.as_ref().map(ProjectId::as_str))
                        .push_bind(key.map(KeyId::as_uuid))
                        .push_bind(detail);
                });
                let statement = query.build().persistent(keeps_insert(chunk.len()));
                statement.execute(&mut *conn).await.map(drop)
            })?;
            last = ids.last().copied();
        }
        Ok(last.expect("at least one event"))
    }
}

/// Returns the identity of a new event.
fn with_stamp(event: &Event) -> EventId {
    EventId {
        revision: event.revision,
        stamp: i64::from_be_bytes(random()),
    }
}

impl Snapshot {
    /// Returns the identity of the event of the last change.
    pub async fn last_event(&mut self) -> Result<EventId, Error> {
        let last = self.last_events(1).await?;
        last.first()
            .copied()
            .ok_or_else(|| Error::Corrupt("the last event is missing".to_owned()))
    }

    /// Returns the identities of at most `limit` events, the newest first.
    pub async fn last_events(&mut self, limit: u32) -> Result<Vec<EventId>, Error> {
        let rows: Vec<(i64, i64)> = on!(self.session, |conn| sqlx::query_as(
            "SELECT revision, stamp FROM events ORDER BY revision DESC LIMIT $1"
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *conn))?;
        let ids = rows.into_iter().map(|(number, stamp)| EventId {
            revision: revision(number),
            stamp,
        });
        Ok(ids.collect())
    }

    /// Returns whether the event of this revision was deleted because of its age.
    pub async fn has_forgotten(&mut self, revision: Revision) -> Result<bool, Error> {
        let oldest: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT min(revision) FROM events"
        )
        .fetch_one(&mut *conn))?;
        Ok(oldest.is_some_and(|oldest| oldest > stored(revision)))
    }

    /// Returns whether anything was changed in this realm after this revision.
    pub async fn has_events_after(
        &mut self,
        realm: &RealmId,
        revision: Revision,
    ) -> Result<bool, Error> {
        let found = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM events WHERE realm = $1 AND revision > $2)"
        )
        .bind(realm.as_str())
        .bind(stored(revision))
        .fetch_one(&mut *conn))?;
        Ok(found)
    }

    /// Returns whether there is an event of this kind after this revision.
    pub async fn has_event_after(
        &mut self,
        revision: Revision,
        kind: EventKind,
    ) -> Result<bool, Error> {
        let found = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM events WHERE revision > $1 AND kind = $2)"
        )
        .bind(stored(revision))
        .bind(kind.as_str())
        .fetch_one(&mut *conn))?;
        Ok(found)
    }

    /// Returns those of these events that are part of this history.
    pub async fn find_events(&mut self, ids: &[EventId]) -> Result<HashSet<EventId>, Error> {
        let mut found = HashSet::new();
        for chunk in ids.chunks(IDS_AT_ONCE) {
            let rows: Vec<(i64, i64)> = on!(self.session, |conn| async {
                let mut query =
                    QueryBuilder::new("SELECT revision, stamp FROM events WHERE revision IN (");
                let mut revisions = query.separated(", ");
                for id in chunk {
                    revisions.push_bind(stored(id.revision));
                }
                query.push(")");
                // Each number of events is a different statement.
                let statement = query.build_query_as().persistent(false);
                statement.fetch_all(&mut *conn).await
            })?;
            let rows = rows.into_iter().map(|(number, stamp)| EventId {
                revision: revision(number),
                stamp,
            });
            found.extend(rows.filter(|id| chunk.contains(id)));
        }
        Ok(found)
    }

    /// Returns at most `limit` events, beginning with the revision `first`, in their order.
    pub async fn feed(&mut self, first: Revision, limit: u32) -> Result<Vec<FeedEntry>, Error> {
        let rows: Vec<FeedEntry> = on!(self.session, |conn| sqlx::query_as(
            "SELECT revision, stamp, kind, realm, partner, project, key_id
                 FROM events WHERE revision >= $1 ORDER BY revision LIMIT $2",
        )
        .bind(stored(first))
        .bind(i64::from(limit))
        .fetch_all(&mut *conn))?;
        Ok(rows)
    }

    /// Returns whether a key of the realm, or of one of its partners, may have come into being at one of these revisions.
    ///
    /// Also if there are too many events to tell, or if retention has deleted some. This is read from the events, because columns
    /// of the keys are derived from stored facts, which may be corrupt.
    pub async fn may_have_keys_of(
        &mut self,
        realm: &RealmId,
        partner: Option<&PartnerId>,
        revisions: Range<Revision>,
    ) -> Result<bool, Error> {
        let oldest: Option<i64> = on!(self.session, |conn| sqlx::query_scalar(
            "SELECT min(revision) FROM events"
        )
        .fetch_one(&mut *conn))?;
        // There is no revision before the first, so events that begin there are all.
        let first = revisions.start.max(Revision::default().next());
        if oldest.is_none_or(|oldest| oldest > stored(first)) {
            return Ok(true);
        }
        let kinds: Vec<String> = on!(self.session, |conn| async {
            let mut query = QueryBuilder::new("SELECT kind FROM events WHERE realm = ");
            query.push_bind(realm.as_str());
            if let Some(partner) = partner {
                query.push(" AND partner = ").push_bind(partner.as_str());
            }
            query
                .push(" AND revision >= ")
                .push_bind(stored(revisions.start))
                .push(" AND revision < ")
                .push_bind(stored(revisions.end))
                .push(" ORDER BY revision LIMIT ")
                .push_bind(MAX_EVENTS_LOOKED_AT);
            query.build_query_scalar().fetch_all(&mut *conn).await
        })?;
        let creates_none =
            |kind: &String| EventKind::parse(kind).is_some_and(|kind| !kind.creates_key());
        Ok(kinds.len() as i64 == MAX_EVENTS_LOOKED_AT || !kinds.iter().all(creates_none))
    }

    /// Returns a page of the events that match the filter, newest first. A corrupt event is left out and logged.
    ///
    /// `take` converts an event, or refuses it if the page is full. It must not refuse the first event of a page. At most one
    /// event is read that is not on the page.
    pub async fn list_events<T>(
        &mut self,
        filter: &EventFilter,
        mut take: impl FnMut(Event) -> Option<T>,
    ) -> Result<Page<T, Revision>, Error> {
        let mut page = PageBuilder::new(filter.limit);
        let limit = self.session.limit_search(SEARCH_TIME).await?;
        let listed = for_each!(
            self.session,
            let query = {
                let mut query = QueryBuilder::new(
                    "SELECT revision, time, actor, peer, kind, realm, partner, project, key_id, detail FROM events WHERE TRUE",
                );
                if let Some(realm) = &filter.realm {
                    query.push(" AND realm = ").push_bind(realm.as_str());
                }
                if let Some(partner) = &filter.partner {
                    query.push(" AND partner = ").push_bind(partner.as_str());
                }
                if let Some(key) = filter.key {
                    query.push(" AND key_id = ").push_bind(key.as_uuid());
                }
                if let Some(actor) = filter.actor {
                    query.push(" AND actor = ").push_bind(actor.as_uuid());
                }
                if !filter.kinds.is_empty() {
                    query.push(" AND (FALSE");
                    for kind in &filter.kinds {
                        match kind {
                            SoughtKind::Every(kind) => {
                                query.push(" OR kind = ").push_bind(kind.as_str());
                            }
                            SoughtKind::Suspension(suspension) => {
                                // A quote within a value of the details has a backslash before it, so this is no part
                                // of a value.
                                let detail = format!("\"{SUSPENSION}\":\"{}\"", suspension.as_str());
                                query
                                    .push(" OR kind = ")
                                    .push_bind(EventKind::PartnerPut.as_str())
                                    .push(" AND replace(detail, ")
                                    .push_bind(detail)
                                    .push(", '') <> detail");
                            }
                        }
                    }
                    query.push(")");
                }
                if let Some(from) = filter.from {
                    query.push(" AND time >= ").push_bind(from.as_micros());
                }
                if let Some(until) = filter.until {
                    query.push(" AND time < ").push_bind(until.as_micros());
                }
                if let Some(before) = filter.before {
                    query.push(" AND revision < ").push_bind(stored(before));
                }
                if let Some(after) = filter.after {
                    query.push(" AND revision > ").push_bind(stored(after));
                }
                query
                    .push(if filter.after.is_some() {
                        " ORDER BY revision LIMIT "
                    } else {
                        " ORDER BY revision DESC LIMIT "
                    })
                    .push_bind(page_and_one(filter.limit));
                query
            };
            |conn| {
                // Each number of kinds is a different statement.
                let keeps = filter.kinds.len() <= 1;
                query.build_query_as::<EventRow>().persistent(keeps).fetch(&mut *conn)
            },
            |row| {
                let number = row.0;
                let read = || {
                    let event = read(row);
                    if event.is_none() {
                        limited!(error, revision = number, "corrupt event left out");
                    }
                    event
                };
                if page.add(revision(number), read, &mut take) {
                    break Ok(());
                }
            }
        );
        listed.map_err(search_error)?;
        drop(limit);
        if page.leaves_rows() {
            self.session.abandon_rows();
        }
        Ok(page.finish())
    }
}

fn read(row: EventRow) -> Option<Event> {
    let (number, time, actor, peer, kind, realm, partner, project, key, detail) = row;
    let detail: BTreeMap<String, String> = serde_json::from_str(&detail).ok()?;
    Some(Event {
        revision: revision(number),
        time: Timestamp::from_micros(time),
        actor: Actor {
            key: actor.map(KeyId::from),
            peer,
        },
        kind: EventKind::parse(&kind)?,
        subject: subject(&realm, partner.as_deref(), project.as_deref(), key)?,
        detail,
    })
}

fn subject(
    realm: &str,
    partner: Option<&str>,
    project: Option<&str>,
    key: Option<Uuid>,
) -> Option<Subject> {
    Some(Subject {
        realm: RealmId::parse(realm).ok()?,
        partner: match partner {
            None => None,
            Some("") => Some(PartnerId::nobody()),
            Some(partner) => Some(PartnerId::parse(partner).ok()?),
        },
        project: project.map(ProjectId::parse).transpose().ok()?,
        key: key.map(KeyId::from),
    })
}
