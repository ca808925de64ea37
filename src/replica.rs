//! This process as one of the servers that share a database: its registration, its heartbeats and its lease.
//!
//! A heartbeat proves that the database still takes what this process writes, and tells the last change. Once the mirror has that
//! change, the lease goes on from the moment at which the heartbeat was sent. So whoever changes something either sees that this
//! process has it, or can wait until the lease has lapsed. Polls of the feed only make changes arrive early; they prove nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::clock::{Clock, ElapsedClock, ElapsedReading};
use crate::domain::lease::LeaseTerms;
use crate::domain::span;
use crate::domain::time::Timestamp;
use crate::mirror::Mirror;
use crate::store::{Beat, Error, HeartbeatConnection, ReplicaState, Replicas, Report, Store};

/// The shortest time between two heartbeats, the second of which is early because it reports changes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// The time between two looks at silent replicas.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much further ahead the database's time may be than this process has lived through since the heartbeat before. More means that
/// the machine was paused without its knowledge, or that the database's clock was set.
const LARGEST_LEAP: Duration = Duration::from_secs(1);

/// How much further ahead than this server's clock the database's time is followed at once. More is followed if the next heartbeat says
/// the same.
const LARGEST_UNCONFIRMED: Duration = Duration::from_mins(1);

/// How far the authority's time by the database's clock may differ from that of this server, before this is written to the store. In
/// microseconds.
const LARGEST_ERROR_MICROS: u64 = 1_000_000;

/// The heartbeats of this process.
pub struct Heartbeats {
    connection: HeartbeatConnection,
    mirror: Arc<Mirror>,
    clock: ElapsedClock,
    /// The clock of this server, which follows the database.
    followed: Clock,
    /// Whether the last heartbeat told a time that was too far ahead to be followed.
    was_far_ahead: bool,
    /// The waits until the mirror has the change that a heartbeat returned.
    applying: JoinSet<()>,
    last: Option<LastBeat>,
    /// The settings of the database at the first heartbeat.
    durability: Option<String>,
    durability_warning: String,
    clock_warning: String,
    is_reachable: bool,
}

/// The last heartbeat that was answered.
struct LastBeat {
    time: Timestamp,
    timeline: i64,
    sent: ElapsedReading,
}

impl Heartbeats {
    /// Prepares the heartbeats of a server with this name; `None` if it is the only server of its database.
    pub fn new(store: &Store, mirror: Arc<Mirror>, followed: Clock, name: String) -> Option<Self> {
        Some(Self {
            connection: store.heartbeat(name)?,
            mirror,
            clock: ElapsedClock::system(),
            followed,
            was_far_ahead: false,
            applying: JoinSet::new(),
            last: None,
            durability: None,
            durability_warning: String::new(),
            clock_warning: String::new(),
            is_reachable: true,
        })
    }

    /// Registers the server, which must not have begun to load its keys.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn register(&mut self) -> Result<(), Error> {
        self.connection.register(ReplicaState::Loading).await
    }

    /// Sends heartbeats until `stop` is `true`, and then removes the registration. The keys must be loaded, and nothing may be answered
    /// any more when `stop` becomes `true`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut applied = self.mirror.applied();
        while !*stop.borrow_and_update() {
            let began = Instant::now();
            // A heartbeat may be out for as long as the database takes to answer.
            let interval = tokio::select! {
                interval = self.beat(&mut applied) => interval,
                _ = stop.changed() => break,
            };
            let early = async {
                let _ = applied.changed().await;
                sleep_until(began + SHORTEST_INTERVAL.min(interval)).await;
            };
            tokio::select! {
                () = sleep_until(began + interval) => {}
                () = early, if self.is_reachable => {}
                _ = stop.changed() => {}
            }
        }
        self.end_lease();
        if let Err(error) = self.connection.leave().await {
            tracing::warn!(%error, "registration not removed; other servers remove it when it has been silent for long enough");
        }
    }

    /// Sends a heartbeat, and returns the time from its sending to the next one.
    async fn beat(
        &mut self,
        applied: &mut watch::Receiver<crate::domain::event::EventId>,
    ) -> Duration {
        while self.applying.try_join_next().is_some() {}
        let report = Report {
            applied: *applied.borrow_and_update(),
            lease_left: self.mirror.lease().left(),
            warning: self.warning(),
        };
        let sent = self.clock.read();
        let terms = self.mirror.lease().terms();
        let outcome = self.connection.beat(&report, terms.heartbeat_limit()).await;
        match outcome {
            Ok(Some(beat)) => {
                self.note_reachable();
                self.count(sent, &beat);
                if beat.was_serving {
                    beat.terms.heartbeat_interval()
                } else {
                    // It gave no lease, so the next one need not wait.
                    Duration::ZERO
                }
            }
            Ok(None) => {
                tracing::warn!("struck off the list of servers; registering again");
                self.end_lease();
                match self.connection.register(ReplicaState::Serving).await {
                    Ok(()) => Duration::ZERO,
                    Err(error) => {
                        self.note_unreachable(&error);
                        terms.heartbeat_interval()
                    }
                }
            }
            Err(error) => {
                self.note_unreachable(&error);
                terms.heartbeat_interval()
            }
        }
    }

    /// Renews the lease when the mirror has the change that a heartbeat returned.
    fn count(&mut self, sent: ElapsedReading, beat: &Beat) {
        self.mirror.lease().heartbeat_answered(sent);
        self.mirror.lease().set_terms(beat.terms);
        self.watch_durability(&beat.durability);
        self.follow_time(sent, beat);
        let leapt = self.leapt(beat);
        self.last = Some(LastBeat {
            time: beat.time,
            timeline: beat.timeline,
            sent,
        });
        if let Some(leap) = leapt {
            tracing::error!(
                ?leap,
                "the database's time is ahead of what this machine has lived through: it was paused, or the database's clock was \
                 set; the lease ends, and the next heartbeat begins another"
            );
            self.end_lease();
            return;
        }
        // Whoever read the list before the row said `serving` has not waited for this server.
        if !beat.was_serving {
            return;
        }
        let (mirror, head, length) = (Arc::clone(&self.mirror), beat.head, beat.terms.length);
        self.applying.spawn(async move {
            // Later than that, the lease would have lapsed.
            if mirror.wait_for(head, length).await.is_ok() {
                mirror.lease().renew(sent, length);
            }
        });
    }

    /// How much further the database's time is ahead of this machine's since the last heartbeat, if that is too much.
    fn leapt(&self, beat: &Beat) -> Option<Duration> {
        let last = self
            .last
            .as_ref()
            .filter(|last| last.timeline == beat.timeline)?;
        // At least as long as between the two times, however long the answers took.
        let passed = self.clock.read().since(last.sent);
        let leap = beat.time.since(last.time).saturating_sub(passed);
        (leap > LARGEST_LEAP + passed / 50).then_some(leap)
    }

    /// What an operator should know about this server or its database.
    fn warning(&self) -> String {
        let held = match self.mirror.index().held() {
            0 => String::new(),
            held => format!("{held} things are held because changes were lost"),
        };
        let all = [&self.durability_warning, &self.clock_warning, &held];
        let warnings = all.into_iter().filter(|warning| !warning.is_empty());
        warnings.map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Goes on from the time that the database told. A time that is far ahead must be told twice.
    fn follow_time(&mut self, sent: ElapsedReading, beat: &Beat) {
        let sample = beat.authority_time;
        let ahead = self.followed.now().since(beat.time);
        self.clock_warning = if ahead > LARGEST_UNCONFIRMED {
            let ahead = span::format(Duration::from_secs(ahead.as_secs()));
            format!("the time is {ahead} ahead of the database's clock")
        } else {
            String::new()
        };
        let ahead = self.followed.ahead(sample).unwrap_or(0).max(0);
        let ahead = Duration::from_micros(ahead.unsigned_abs());
        let must_wait = ahead > LARGEST_UNCONFIRMED && !self.was_far_ahead;
        if must_wait {
            tracing::error!(
                ?ahead,
                "the database's time is far ahead of this server's; it is followed if the next heartbeat says the same. If it is \
                 wrong, correct the clock of the database's machine, then use `claviger replicas set-clock`"
            );
        } else {
            self.followed.follow(sample, sent);
        }
        self.was_far_ahead = must_wait;
    }

    fn watch_durability(&mut self, now: &str) {
        match &self.durability {
            None => self.durability = Some(now.to_owned()),
            Some(before) if before == now => {}
            Some(before) => {
                tracing::warn!(
                    before,
                    now,
                    "settings of the database have changed on which durability depends"
                );
                self.durability_warning = format!("the database had {before}, and now has {now}");
                self.durability = Some(now.to_owned());
            }
        }
    }

    fn end_lease(&mut self) {
        self.applying.abort_all();
        self.mirror.lease().end();
    }

    fn note_reachable(&mut self) {
        if !self.is_reachable {
            self.is_reachable = true;
            tracing::info!("heartbeats answered again");
        }
    }

    /// Logged once for each outage.
    fn note_unreachable(&mut self, error: &Error) {
        if self.is_reachable {
            self.is_reachable = false;
            let lease_left = self.mirror.lease().left();
            tracing::error!(%error, ?lease_left, "heartbeat not answered");
        }
    }
}

/// Looks after what all servers of a database share: removes servers that have been silent for so long that they have no lease, and
/// records that the leases of an earlier timeline, or longer ones than are given now, have lapsed, and how late it is at least.
pub async fn look_after(store: Store, clock: Clock) {
    let mut caretaker = Caretaker::default();
    loop {
        sleep(LOOK_EVERY).await;
        // The feed logs an outage.
        let _ = caretaker.look(&store, &clock).await;
    }
}

/// What was seen of the servers, and since when.
#[derive(Default)]
struct Caretaker {
    clock: Option<ElapsedClock>,
    beats: HashMap<String, (i64, ElapsedReading)>,
    terms: Option<(LeaseTerms, ElapsedReading)>,
    unsettled: Option<(i64, ElapsedReading)>,
}

impl Caretaker {
    async fn look(&mut self, store: &Store, clock: &Clock) -> Result<(), Error> {
        let mut snapshot = store.snapshot().await?;
        let Replicas {
            replicas,
            terms,
            timeline,
            is_settled,
        } = snapshot.replicas().await?;
        let ahead = snapshot.time().await?.and_then(|time| clock.ahead(time));
        // Otherwise its snapshot would stay open.
        drop(snapshot);
        // The clock of the database was set, or another server with another clock was promoted.
        if ahead.is_some_and(|ahead| ahead.unsigned_abs() > LARGEST_ERROR_MICROS) {
            store.mark_time(clock.read()).await?;
        }
        let now = self.clock.get_or_insert_with(ElapsedClock::system).read();
        let has_lapsed = |since: ElapsedReading| now.since(since) >= terms.outlasting();

        let before = std::mem::take(&mut self.beats);
        for replica in replicas {
            let seen = before.get(&replica.id).copied();
            let seen = seen.filter(|(beat, _)| *beat == replica.beat);
            self.beats
                .insert(replica.id, seen.unwrap_or((replica.beat, now)));
        }
        let silent = self
            .beats
            .iter()
            .filter(|(_, (_, since))| has_lapsed(*since));
        let silent: Vec<_> = silent.map(|(id, (beat, _))| (id.clone(), *beat)).collect();
        if !silent.is_empty() {
            let removed = store.remove_silent_replicas(&silent).await?;
            if removed > 0 {
                tracing::warn!(
                    removed,
                    "servers removed from the list that were silent for longer than their lease"
                );
            }
        }

        let unsettled = self.unsettled.filter(|(seen, _)| *seen == timeline);
        self.unsettled = (!is_settled).then(|| unsettled.unwrap_or((timeline, now)));
        if self.unsettled.is_some_and(|(_, since)| has_lapsed(since)) {
            store.settle_timeline(timeline).await?;
        }

        let known = self.terms.filter(|(seen, _)| *seen == terms);
        let (_, since) = *self.terms.insert(known.unwrap_or((terms, now)));
        if terms.longest > terms.length && has_lapsed(since) {
            store.forget_longer_lease(terms).await?;
        }
        Ok(())
    }
}
