//! Faults that come and go while the servers are at work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::rig::Rig;
use crate::fixtures::{Random, Traffic};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a replica's network.
    Network(Traffic),
    /// A replica's network is slow.
    Slow,
    /// A replica is suspended, and resumed.
    Suspend,
    /// A replica is killed, and started again.
    Kill,
    /// The database is stopped at once, and started again.
    CrashDatabase,
    /// Every process of the database is suspended, and resumed.
    SuspendDatabase,
    /// The sessions of the database are suspended, and resumed; it accepts others.
    SuspendSessions,
}

const KINDS: [Kind; 13] = [
    Kind::Network(Traffic::Cut),
    Kind::Network(Traffic::Reset),
    Kind::Network(Traffic::Swallowed),
    Kind::Network(Traffic::Held),
    Kind::Network(Traffic::AnswersHeld),
    Kind::Network(Traffic::RequestsHeld),
    Kind::Network(Traffic::CommitsUnanswered),
    Kind::Slow,
    Kind::Suspend,
    Kind::Kill,
    Kind::CrashDatabase,
    Kind::SuspendDatabase,
    Kind::SuspendSessions,
];

/// A fault that begins and ends.
#[derive(Clone, Copy)]
pub(super) struct Episode {
    kind: Kind,
    /// The replica that it is about, unless it is about the database.
    replica: usize,
    lasts: Duration,
    /// How long a slow network takes for each direction.
    delays: [Duration; 2],
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if !self.is_of_the_database() {
            write!(f, " of replica {}", self.replica)?;
        }
        if self.kind == Kind::Slow {
            write!(f, " by {:?}", self.delays)?;
        }
        write!(f, " for {:?}", self.lasts)
    }
}

impl Episode {
    fn is_of_the_database(&self) -> bool {
        matches!(
            self.kind,
            Kind::CrashDatabase | Kind::SuspendDatabase | Kind::SuspendSessions
        )
    }

    /// Whether the two can be at once.
    fn is_apart_from(&self, other: &Self) -> bool {
        let of_the_database = [self.is_of_the_database(), other.is_of_the_database()];
        of_the_database == [true, false]
            || of_the_database == [false, true]
            || (of_the_database == [false; 2] && self.replica != other.replica)
    }

    /// Begins, lasts and ends.
    pub(super) async fn run(self, rig: Arc<Rig>) {
        self.begin(&rig).await;
        tokio::time::sleep(self.lasts).await;
        self.end(&rig).await;
    }

    async fn begin(self, rig: &Arc<Rig>) {
        let network = &rig.replicas[self.replica].network;
        match self.kind {
            Kind::Network(traffic) => network.set(traffic),
            Kind::Slow => network.set_delays(self.delays[0], self.delays[1]),
            Kind::Suspend => rig.replicas[self.replica].signal("STOP"),
            Kind::Kill => rig.replicas[self.replica].kill(),
            Kind::CrashDatabase => blocking(rig, |rig| rig.database.cluster.crash()).await,
            Kind::SuspendDatabase => blocking(rig, |rig| rig.database.cluster.suspend()).await,
            Kind::SuspendSessions => rig.database.cluster.suspend_sessions(),
        }
    }

    async fn end(self, rig: &Arc<Rig>) {
        let network = &rig.replicas[self.replica].network;
        match self.kind {
            Kind::Network(_) => network.set(Traffic::Flows),
            Kind::Slow => network.set_delay(Duration::ZERO),
            Kind::Suspend => rig.replicas[self.replica].signal("CONT"),
            Kind::Kill => blocking(rig, move |rig| rig.replicas[self.replica].start_again()).await,
            Kind::CrashDatabase => blocking(rig, |rig| rig.database.cluster.start_server()).await,
            Kind::SuspendDatabase | Kind::SuspendSessions => rig.database.cluster.resume(),
        }
    }
}

/// Does what blocks its thread where that is no harm.
pub(super) async fn blocking(rig: &Arc<Rig>, work: impl FnOnce(&Rig) + Send + 'static) {
    let rig = Arc::clone(rig);
    tokio::task::spawn_blocking(move || work(&rig))
        .await
        .unwrap();
}

/// Chooses episodes by chance, each kind as often as any other.
pub(super) struct Director {
    random: Random,
    replicas: usize,
    /// The kinds that are still to come before all of them come again.
    deck: Vec<Kind>,
}

impl Director {
    pub(super) fn new(seed: u64, replicas: usize) -> Self {
        Self {
            random: Random(seed),
            replicas,
            deck: Vec::new(),
        }
    }

    /// What happens next: one episode, or two at once.
    pub(super) fn next(&mut self) -> Vec<Episode> {
        let mut episodes = vec![self.episode()];
        if self.random.below(3) == 0 {
            let other = self.episode();
            if other.is_apart_from(&episodes[0]) {
                episodes.push(other);
            } else {
                self.deck.push(other.kind);
            }
        }
        episodes
    }

    /// How long nothing happens then. Now and then too short to recover from the last.
    pub(super) fn pause(&mut self) -> Duration {
        self.random.millis(100, 3_000)
    }

    fn episode(&mut self) -> Episode {
        if self.deck.is_empty() {
            self.deck.extend(KINDS);
        }
        let at = self.random.below(self.deck.len());
        Episode {
            kind: self.deck.swap_remove(at),
            replica: self.random.below(self.replicas),
            // Shorter than a lease, about as long, and longer.
            lasts: self.random.millis(300, 4_500),
            delays: [self.random.millis(1, 250), self.random.millis(1, 250)],
        }
    }
}
