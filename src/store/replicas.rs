//! The table of replicas: the servers that share a database, their heartbeats and the terms of their leases.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::connector::Connector;
use super::driver::within;
use super::servers::{ConnectError, timeline};
use super::{
    Change, Engine, EngineTransaction, Error, Snapshot, Store, execute, on, revision, stored,
};
use crate::domain::clock::TimeSample;
use crate::domain::event::EventId;
use crate::domain::lease::LeaseTerms;
use crate::domain::time::Timestamp;
use crate::hashing::random;

/// The time of the database.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}
pub(super) use now;

const REGISTER: &str = concat!(
    "INSERT INTO replicas
         (id, name, version, state, beat, reported_revision, reported_stamp, lease_left, beat_time, warning)
     VALUES ($1, $2, $3, $4, $5, 0, 0, 0, ",
    now!(),
    ", '')"
);

/// One statement: what it returns was committed before the row was changed. Its last column has the settings on which it depends
/// whether an acknowledged change can be lost.
const BEAT: &str = concat!(
    "UPDATE replicas AS r SET beat = $3, state = 'serving', reported_revision = $4, reported_stamp = $5,
         lease_left = $6, warning = $7, beat_time = ",
    now!(),
    " FROM (
         SELECT a.revision, e.stamp, a.lease, a.longest_lease, a.clock, a.clock_setting,
             (SELECT state FROM replicas WHERE id = $1) AS was, ",
    timeline!(),
    " AS timeline,
             concat_ws(', ', 'synchronous_standby_names=' || current_setting('synchronous_standby_names'),
                 'fsync=' || current_setting('fsync'),
                 'full_page_writes=' || current_setting('full_page_writes')) AS durability
         FROM authority AS a JOIN events AS e ON e.revision = a.revision
     ) AS head
     WHERE r.id = $1 AND r.beat = ANY($2)
     RETURNING head.revision, head.stamp, head.lease, head.longest_lease, head.was, ",
    now!(),
    ", head.timeline, head.durability, head.clock, head.clock_setting"
);

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It answers nothing yet.
    Loading,
    /// It may say "allowed" as long as its lease lasts.
    Serving,
}

impl ReplicaState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Serving => "serving",
        }
    }

    /// A state that this version does not know may be one that answers.
    fn parse(name: &str) -> Self {
        match name {
            "loading" => Self::Loading,
            _ => Self::Serving,
        }
    }
}

/// A registered replica.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Identifies the registration.
    pub id: String,
    /// The name that the operator chose.
    pub name: String,
    /// The version of claviger.
    pub version: String,
    /// What it does.
    pub state: ReplicaState,
    /// The number that its last heartbeat wrote.
    pub beat: i64,
    /// The last change that it has applied.
    pub reported: EventId,
    /// How much of its lease was left at its last heartbeat.
    pub lease_left: Duration,
    /// How long ago the last heartbeat was, by the clock of the database. Only to be shown.
    pub silent_for: Duration,
    /// What an operator should know; empty if there is nothing.
    pub warning: String,
}

/// The replicas of a database at one moment, and their terms.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// The registered replicas, by name.
    pub replicas: Vec<Replica>,
    /// The terms of their leases.
    pub terms: LeaseTerms,
    /// The timeline of the database; 0 if it has one server.
    pub timeline: i64,
    /// Whether every lease has lapsed that was renewed before this timeline of the database began, so that no report is missing.
    pub is_settled: bool,
}

/// What a replica tells with a heartbeat.
#[derive(Clone, Debug)]
pub struct Report {
    /// The last change that its mirror contains.
    pub applied: EventId,
    /// How much of its lease is left.
    pub lease_left: Duration,
    /// What an operator should know.
    pub warning: String,
}

/// The answer of the database to a heartbeat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The last change, as the statement saw it.
    pub head: EventId,
    /// Whether the row said that the replica serves already when the statement began. Whoever read the rows after that has waited for
    /// this replica.
    pub was_serving: bool,
    /// The terms of the lease.
    pub terms: LeaseTerms,
    /// The database's clock.
    pub time: Timestamp,
    /// The time of the authority: that of the database's clock, or of the last change if that is later.
    pub authority_time: TimeSample,
    /// The timeline of the database.
    pub timeline: i64,
    /// The settings on which durability depends.
    pub durability: String,
}

/// The registration of this process, and a connection for its heartbeats alone.
///
/// Each heartbeat is a statement of its own, so that a process that stops never holds the row.
pub struct HeartbeatConnection {
    connector: Connector,
    connection: Option<PgConnection>,
    /// The generation of the connection.
    generation: u64,
    /// Whether the last statement failed, so that the server must be chosen anew.
    is_lost: bool,
    /// When it was last looked whether another server was promoted.
    looked: Instant,
    id: String,
    name: String,
    /// The numbers that the row may have: the last one that was written, and those of heartbeats that were not answered.
    beats: Vec<i64>,
}

/// A row of the table.
type ReplicaRow = (
    String,
    String,
    String,
    String,
    i64,
    i64,
    i64,
    i64,
    i64,
    String,
);

/// What a heartbeat returns.
type BeatRow = (
    i64,
    i64,
    i64,
    i64,
    Option<String>,
    i64,
    i64,
    String,
    i64,
    i64,
);

/// The most unanswered heartbeats that are remembered. After so many, the replica registers again.
const UNANSWERED: usize = 64;

impl HeartbeatConnection {
    /// Prepares the registration of a replica with this name.
    pub(super) fn new(connector: &Connector, name: String) -> Self {
        let timeout = connector.deadline().as_millis().to_string();
        let connector = connector.with([
            ("statement_timeout", timeout.as_str()),
            ("lock_timeout", timeout.as_str()),
            ("synchronous_commit", "on"),
        ]);
        Self {
            connector,
            connection: None,
            generation: 0,
            is_lost: false,
            looked: Instant::now(),
            id: String::new(),
            name,
            beats: Vec::new(),
        }
    }

    /// The identity of the registration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Registers the replica under a new identity.
    pub async fn register(&mut self, state: ReplicaState) -> Result<(), Error> {
        let id = format!("{:032x}", u128::from_le_bytes(random()));
        let beat = i64::from_le_bytes(random());
        let (name, deadline) = (self.name.clone(), self.connector.deadline());
        let connection = self.connect(deadline).await?;
        let insert = sqlx::query(REGISTER)
            .bind(id.clone())
            .bind(name)
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(state.as_str())
            .bind(beat);
        let outcome = within(deadline, insert.execute(connection)).await;
        self.checked(outcome)?;
        self.id = id;
        self.beats = vec![beat];
        Ok(())
    }

    /// Sends a heartbeat, which must be answered within `limit`. `None`: the row is gone, or another process writes it, so the replica was
    /// struck off. An answer of a server that was replaced meanwhile is an error: it proves nothing.
    pub async fn beat(&mut self, report: &Report, limit: Duration) -> Result<Option<Beat>, Error> {
        if self.beats.len() > UNANSWERED {
            return Ok(None);
        }
        let next = i64::from_le_bytes(random());
        let expected = self.beats.clone();
        let (id, deadline) = (self.id.clone(), self.connector.deadline().min(limit));
        // From here on the row may have the new number.
        self.beats.push(next);
        let connection = self.connect(deadline).await?;
        let update = sqlx::query_as::<_, BeatRow>(BEAT)
            .bind(id)
            .bind(expected)
            .bind(next)
            .bind(stored(report.applied.revision))
            .bind(report.applied.stamp)
            .bind(micros(report.lease_left))
            .bind(report.warning.clone());
        let outcome = within(deadline, update.fetch_optional(connection)).await;
        let row = self.checked(outcome)?;
        if self.generation != self.connector.generation() {
            return Err(sqlx::Error::from(ConnectError::Moved).into());
        }
        self.look_around(limit);
        let Some(row) = row else {
            return Ok(None);
        };
        let (last, stamp, lease, longest, was, time, timeline, durability, clock, setting) = row;
        self.beats = vec![next];
        Ok(Some(Beat {
            head: EventId {
                revision: revision(last),
                stamp,
            },
            was_serving: was.is_some_and(|was| ReplicaState::parse(&was) == ReplicaState::Serving),
            terms: terms(lease, longest),
            time: Timestamp::from_micros(time),
            authority_time: TimeSample {
                time: Timestamp::from_micros(clock.max(time)),
                setting,
            },
            timeline,
            durability,
        }))
    }

    /// Looks in the background whether another server was promoted, at most once in `every`. An old primary may answer heartbeats for
    /// ever if its commits wait for no standby.
    fn look_around(&mut self, every: Duration) {
        if self.looked.elapsed() >= every {
            self.looked = Instant::now();
            self.connector.look_around();
        }
    }

    /// Removes the registration. The replica must not answer any more.
    pub async fn leave(mut self) -> Result<(), Error> {
        let (id, beats) = (self.id.clone(), self.beats.clone());
        let deadline = self.connector.deadline();
        if beats.len() > 1 {
            // A heartbeat was given up, whose answer may still come.
            self.connection = None;
        }
        let connection = self.connect(deadline).await?;
        let delete = sqlx::query("DELETE FROM replicas WHERE id = $1 AND beat = ANY($2)")
            .bind(id)
            .bind(beats);
        let outcome = within(deadline, delete.execute(connection)).await;
        self.checked(outcome)?;
        if let Some(connection) = self.connection {
            let _ = within(deadline, connection.close()).await;
        }
        Ok(())
    }

    /// The open connection to the server that is used, or a new one. After an error the server is chosen anew.
    async fn connect(&mut self, limit: Duration) -> Result<&mut PgConnection, Error> {
        if self.generation != self.connector.generation() {
            self.connection = None;
        }
        if self.connection.is_none() {
            if self.is_lost {
                self.connector
                    .choose(limit)
                    .await
                    .map_err(sqlx::Error::from)?;
            }
            self.is_lost = true;
            let (connection, generation) = self.connector.connect(limit).await?;
            self.connection = Some(connection);
            self.generation = generation;
            self.is_lost = false;
        }
        Ok(self.connection.as_mut().expect("just connected"))
    }

    /// Gives up a connection after an error.
    fn checked<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, Error> {
        if outcome.is_err() {
            self.connection = None;
            self.is_lost = true;
        }
        outcome.map_err(Error::from)
    }
}

impl Store {
    /// Whether other servers may use the same database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres { .. })
    }

    /// Prepares the heartbeats of a replica with this name; `None` if the database has only one server.
    pub fn heartbeat(&self, name: String) -> Option<HeartbeatConnection> {
        match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres { connector, .. } => Some(HeartbeatConnection::new(connector, name)),
        }
    }

    /// Removes replicas that were silent for so long that none of them has a lease: those that still have this number. Not a change.
    pub async fn remove_silent_replicas(&self, silent: &[(String, i64)]) -> Result<u64, Error> {
        let mut write = self.write().await?;
        let mut removed = 0;
        for (id, beat) in silent {
            let gone: Option<String> = on!(write.session, |conn| sqlx::query_scalar(
                "DELETE FROM replicas WHERE id = $1 AND beat = $2 RETURNING id"
            )
            .bind(id)
            .bind(beat)
            .fetch_optional(&mut *conn))?;
            removed += u64::from(gone.is_some());
        }
        write.commit().await?;
        Ok(removed)
    }

    /// Records that every lease from before this timeline has lapsed. Not a change.
    pub async fn settle_timeline(&self, timeline: i64) -> Result<(), Error> {
        let mut write = self.write().await?;
        execute!(
            write.session,
            sqlx::query("UPDATE authority SET settled_timeline = $1 WHERE settled_timeline < $1")
                .bind(timeline)
        )?;
        write.commit().await
    }

    /// Records in a new authority that its database has no leases. Not a change.
    pub(super) async fn settle_new_authority(write: &mut Snapshot) -> Result<(), Error> {
        if let EngineTransaction::Sqlite(_) = &write.session.transaction {
            return Ok(());
        }
        execute!(
            write.session,
            sqlx::query(concat!(
                "UPDATE authority SET settled_timeline = ",
                timeline!()
            ))
        )?;
        Ok(())
    }

    /// Records that no lease is longer than `terms.length` any more, if the terms are still these. Not a change.
    pub async fn forget_longer_lease(&self, terms: LeaseTerms) -> Result<(), Error> {
        let mut write = self.write().await?;
        execute!(
            write.session,
            sqlx::query(
                "UPDATE authority SET longest_lease = lease WHERE lease = $1 AND longest_lease = $2"
            )
            .bind(micros(terms.length))
            .bind(micros(terms.longest))
        )?;
        write.commit().await
    }
}

impl Snapshot {
    /// Returns the terms of the leases.
    pub async fn lease_terms(&mut self) -> Result<LeaseTerms, Error> {
        let (lease, longest): (i64, i64) = on!(self.session, |conn| sqlx::query_as(
            "SELECT lease, longest_lease FROM authority"
        )
        .fetch_one(&mut *conn))?;
        Ok(terms(lease, longest))
    }

    /// Returns the registered replicas and their terms. A database with one server has none.
    pub async fn replicas(&mut self) -> Result<Replicas, Error> {
        let terms = self.lease_terms().await?;
        let rows: Vec<ReplicaRow> = on!(self.session, |conn| {
            sqlx::query_as(
            "SELECT id, name, version, state, beat, reported_revision, reported_stamp, lease_left, beat_time, warning
             FROM replicas ORDER BY name, id"
        )
        .fetch_all(&mut *conn)
        })?;
        let (now, timeline, is_settled) = self.database_state().await?;
        let replicas = rows.into_iter().map(
            |(id, name, version, state, beat, reported, stamp, left, time, warning)| Replica {
                id,
                name,
                version,
                state: ReplicaState::parse(&state),
                beat,
                reported: EventId {
                    revision: revision(reported),
                    stamp,
                },
                lease_left: duration(left),
                silent_for: duration(now - time),
                warning,
            },
        );
        Ok(Replicas {
            replicas: replicas.collect(),
            terms,
            timeline,
            is_settled,
        })
    }
}

impl Snapshot {
    /// Returns the time and the timeline of the database, and whether every lease from before this timeline has lapsed.
    async fn database_state(&mut self) -> Result<(i64, i64, bool), Error> {
        if let EngineTransaction::Sqlite(_) = &self.session.transaction {
            return Ok((0, 0, true));
        }
        let state = on!(self.session, |conn| sqlx::query_as(concat!(
            "SELECT ",
            now!(),
            ", now.timeline, settled_timeline = now.timeline FROM authority, (SELECT ",
            timeline!(),
            " AS timeline) AS now"
        ))
        .fetch_one(&mut *conn))?;
        Ok(state)
    }
}

impl Change {
    /// Sets the length of leases. Longer ones count at once. While shorter ones take over, the longest is remembered, each time a
    /// microsecond longer: whoever has seen the same terms twice knows that nobody has set others meanwhile.
    pub async fn set_lease(&mut self, length: Duration) -> Result<(), Error> {
        execute!(
            self.snapshot.session,
            sqlx::query(
                "UPDATE authority SET lease = $1,
                     longest_lease = CASE WHEN longest_lease < $1 THEN $1 ELSE longest_lease END + 1"
            )
            .bind(micros(length))
        )?;
        Ok(())
    }
}

pub(super) fn terms(length: i64, longest: i64) -> LeaseTerms {
    LeaseTerms {
        length: duration(length),
        longest: duration(longest),
    }
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
