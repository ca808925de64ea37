//! Heartbeats, leases, `WAIT_EVERYWHERE`, failover.
//!
//! **Time** is in ticks, and only as ages: how long ago a thing happened, on the clock of its process, no further than it
//! can matter. [`Action::Tick`] raises all of them. Between two ticks anything may happen in any order, or not at all: a
//! message that is lost and a process that is stopped are steps that are not taken.
//!
//! **Beats** are not numbers. A row knows which processes have written its present beat ([`Row::known_by`]), and whether
//! the beat is the one that the waiter read ([`Row::as_read`]). Nothing else can be asked of a random number.
//!
//! **A question** is two steps, [`Action::Ask`] and [`Action::Answer`], with the lease and the facts read one at each.
//!
//! **Promises that end eventually** (I12, I13, I14) are stated with a bound. Anything may go wrong until
//! [`Action::Calm`]. From then on a tick must wait for each step that a working process would take at once.

use stateright::{Model, Property};

use crate::promises::{self, Revocation, Time, Verdict};
use crate::{Assumptions, Guards};

/// The lease's length, L, in ticks.
pub const LEASE: u8 = 3;
/// How long a waiter waits, and the bound of I2: L and the allowance.
pub const WAIT: u8 = LEASE + 1;
/// After how many calm ticks I13 and I14 must hold.
const SETTLED: u8 = 3;

/// The model.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The rules that are followed.
    pub guards: Guards,
    /// The assumptions that hold.
    pub assumptions: Assumptions,
    /// What can happen at all.
    pub bounds: Bounds,
    /// The landmark whose reachability [`REACHED`] asks for.
    pub watch: Option<Landmark>,
}

/// What can happen in a run, which keeps the number of states finite.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many replicas there are, 1 or 2.
    pub replicas: usize,
    /// How the second server follows the first.
    pub standby: Standby,
    /// The changes, in the order in which they are made.
    pub changes: &'static [Change],
    /// The second replica starts as a copy of the first.
    pub clone: bool,
    /// How often a replica may stop or crash and start again.
    pub restarts: u8,
    /// Heartbeats may reach the server late, or be lost. Otherwise only their answers may be late.
    pub late_heartbeats: bool,
    /// How many ticks the clock of a replica may lose, within assumption A3.
    pub lost_ticks: u8,
    /// Trouble may end.
    pub calm: bool,
    /// How many ticks the second server's clock is ahead of the first's.
    pub skew: u8,
}

impl Bounds {
    /// One replica, one server, one revocation.
    pub const LEAST: Self = Self {
        replicas: 1,
        standby: Standby::None,
        changes: &[Change::Revoke],
        clone: false,
        restarts: 0,
        late_heartbeats: true,
        lost_ticks: 0,
        calm: false,
        skew: 0,
    };
}

/// The second server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// There is none.
    None,
    /// The standby has whatever the primary has acknowledged.
    Synchronous,
    /// The standby has what the primary had some time ago.
    Asynchronous,
}

/// Something that must be reachable, because the model would prove nothing otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landmark {
    /// `WAIT_EVERYWHERE` ends by reports.
    EarlyEverywhere,
    /// `WAIT_EVERYWHERE` ends by time.
    EverywhereByTime,
    /// A replica without a lease gets one again.
    LeaseRegained,
    /// A heartbeat finds its row gone or changed by another process.
    StruckOff,
    /// A replica finds that the history it follows has lost a change.
    HistoryRewritten,
    /// A replica says "allowed" after the revocation was acknowledged.
    AllowedWithinLease,
}

/// A database server: the first is `P0`, the second the standby `P1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Host {
    /// The primary at the beginning, timeline 0.
    P0,
    /// The standby. Once promoted, the primary of timeline 1.
    P1,
}

/// A committed change; also its stamp, because none is made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The key is revoked.
    Revoke,
    /// A change that nobody asks about.
    Filler,
}

/// The changes in the order of their revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log([Option<Change>; 2]);

/// The newest change of a log: its revision and its stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tip {
    revision: u8,
    stamp: Option<Change>,
}

impl Log {
    fn len(self) -> usize {
        self.0.iter().flatten().count()
    }

    fn tip(self) -> Tip {
        Tip {
            revision: self.len() as u8,
            stamp: self.0.into_iter().flatten().last(),
        }
    }

    fn has(self, change: Change) -> bool {
        self.0.contains(&Some(change))
    }

    fn push(&mut self, change: Change) {
        let at = self.len();
        self.0[at] = Some(change);
    }

    /// Whether this log contains the change with the tip's revision, and that change has the tip's stamp.
    fn contains(self, tip: Tip) -> bool {
        tip.revision == 0 || self.0[usize::from(tip.revision) - 1] == tip.stamp
    }

    fn starts_with(self, other: Log) -> bool {
        self.contains(other.tip())
    }

    fn revision_of(self, change: Change) -> Option<u8> {
        self.0
            .iter()
            .position(|made| *made == Some(change))
            .map(|index| index as u8 + 1)
    }
}

/// A row of the table `replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The replicas that have written the row's present beat, as bits.
    pub known_by: u8,
    /// Whether the beat is the one that the waiter read.
    pub as_read: bool,
    /// A heartbeat has said that the replica serves. Waiters skip a row that is loading.
    pub serving: bool,
    /// What the replica has reported as applied.
    pub reported: Tip,
    /// The age of the last heartbeat by the server's clock. Kept only where it is used: without G8.
    pub renewed: u8,
    /// The replica that renewed this row since it was copied. Kept only with clones.
    pub renewed_by: Option<u8>,
}

/// A database server's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    log: Log,
    rows: [Option<Row>; 2],
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// No process.
    Down,
    /// Registered, with no facts yet.
    Loading,
    /// Heartbeats and answers.
    Serving,
    /// A heartbeat found no row: must register again.
    StruckOff,
    /// Has deleted its row, and still answers: without G21.
    Draining,
}

/// A heartbeat that has been sent. `age` is counted from the sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heartbeat {
    /// On its way to the server.
    Sent {
        /// Since sending.
        age: u8,
        /// What it reports.
        reports: Tip,
    },
    /// Done by the server, with the answer on its way back. No head: struck off.
    Done {
        /// Since sending.
        age: u8,
        /// The server's head.
        head: Option<Tip>,
    },
}

/// A `claviger serve` process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    run: Run,
    /// The hypervisor has stopped the machine, and its clock with it.
    paused: bool,
    /// The row with this process's id.
    slot: u8,
    /// The server that polls go to.
    polls: Host,
    /// The server that heartbeats go to.
    beats: Host,
    /// The changes that the mirror has applied.
    facts: Log,
    /// The mirror denies the key because an earlier history did.
    held: bool,
    heartbeat: Option<Heartbeat>,
    /// A heartbeat whose answer came, but whose head is not applied yet: its age and head.
    unproven: Option<(u8, Tip)>,
    /// The age of the newest heartbeat that counts.
    lease: Option<u8>,
    /// Had a lease and lost it: kept only to watch for [`Landmark::LeaseRegained`].
    lapsed: bool,
}

impl Replica {
    const DOWN: Self = Self {
        run: Run::Down,
        paused: false,
        slot: 0,
        polls: Host::P0,
        beats: Host::P0,
        facts: Log([None; 2]),
        held: false,
        heartbeat: None,
        unproven: None,
        lease: None,
        lapsed: false,
    };

    fn answers(&self) -> bool {
        !self.paused && matches!(self.run, Run::Serving | Run::StruckOff | Run::Draining)
    }

    fn allows(&self) -> bool {
        !self.held && !self.facts.has(Change::Revoke)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// By reports.
    Early,
    /// By time.
    ByTime,
}

/// A `WAIT_EVERYWHERE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait {
    change: Change,
    /// Since the commit returned.
    age: u8,
    /// The silent rows at the waiter's first reading, as bits, and the age of that reading.
    silent: Option<(u8, u8)>,
    ended: Option<Ended>,
}

/// The process that makes the changes and waits. It does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    at: Host,
    /// Since it first met the timeline that it is on.
    met: u8,
    wait: Option<Wait>,
}

/// A question that is being answered, asked when a promise was in force already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    replica: u8,
    /// The revocation as it was when the question was asked, at [`NOW`].
    revocation: Revocation,
}

/// A state of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    servers: [Server; 2],
    promoted: bool,
    replicas: [Replica; 2],
    waiter: Waiter,
    /// The age of the revocation's acknowledgement, and whether it was acknowledged as effective everywhere.
    acknowledged: Option<u8>,
    everywhere: bool,
    question: Option<Question>,
    /// How many ticks a replica's clock may still lose.
    ticks_to_lose: u8,
    pauses_left: u8,
    restarts_left: u8,
    /// Ticks since the trouble ended.
    calm: Option<u8>,
    broken: Broken,
    reached: bool,
}

/// Promises that a step has broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "one for each invariant")]
pub struct Broken {
    everywhere: bool,
    lease: bool,
    deleted: bool,
    shared: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes. The clock of the replica `slow`, if there is one, does not notice.
    Tick {
        /// The replica whose clock loses this tick.
        slow: Option<usize>,
    },
    /// A process starts: it connects and registers (G10).
    Start(usize, Host),
    /// A replica registers again after it was struck off.
    Register(usize),
    /// A process ends in order: it ends answering, then deletes its row (G21).
    Stop(usize),
    /// Without G21: a process deletes its row first.
    DeleteOwnRow(usize),
    /// A process ends without a word.
    Crash(usize),
    /// The feed reads all new changes and applies them.
    Poll(usize),
    /// A heartbeat is sent.
    Send(usize),
    /// The server does a heartbeat.
    Execute(usize),
    /// The answer to a heartbeat arrives.
    Receive(usize),
    /// A heartbeat or its answer is lost, and the replica stops waiting.
    Lose(usize),
    /// All connections of a replica move to the promoted server.
    Connect(usize),
    /// Without G16: the connection for polls is made anew.
    ConnectPolls(usize, Host),
    /// Without G16: the connection for heartbeats is made anew.
    ConnectBeats(usize, Host),
    /// The hypervisor stops the machine.
    Pause(usize),
    /// The hypervisor lets the machine go on.
    Resume(usize),
    /// The second replica starts from a copy of the first's memory.
    Clone,
    /// The waiter commits a change and begins to wait.
    Commit(Change),
    /// The waiter reads the rows.
    ReadRows,
    /// The waiter has waited long enough.
    EndWait,
    /// The waiter deletes the rows that were silent.
    DeleteSilent,
    /// The waiter's connection moves to the promoted server.
    ConnectWaiter,
    /// The asynchronous standby catches up.
    Replicate,
    /// The standby becomes the primary of a new timeline.
    Promote,
    /// Somebody asks a replica about the key.
    Ask(usize),
    /// The replica answers.
    Answer,
    /// Trouble ends.
    Calm,
}

/// The name of invariant I1.
pub const I1: &str = "I1: never allowed when asked after EVERYWHERE";
/// The name of invariant I2.
pub const I2: &str = "I2: never allowed when asked later than a lease lasts";
/// The name of invariant I6.
pub const I6: &str = "I6: no row is deleted while its owner can answer from a lease";
/// The name of invariant I8.
pub const I8: &str = "I8: no two processes renew one row";
/// The name of invariant I12.
pub const I12: &str = "I12: a wait ends";
/// The name of invariant I13.
pub const I13: &str = "I13: a replica regains its lease";
/// The name of invariant I14.
pub const I14: &str = "I14: nobody stays with a replaced primary";
/// The name of the property that the watched landmark is reached.
pub const REACHED: &str = "the watched landmark is reached";

/// The present in the observations that the promises judge.
const NOW: Time = 1000;

impl Lease {
    /// The protocol as designed.
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            guards: Guards::ALL,
            assumptions: Assumptions::ALL,
            bounds,
            watch: None,
        }
    }

    /// How long this replica's lease lasts.
    fn lease_length(&self) -> u8 {
        if self.guards.one_lease_length {
            LEASE
        } else {
            LEASE + 2
        }
    }

    fn wait_length(&self) -> u8 {
        if self.guards.rate_allowance {
            WAIT
        } else {
            LEASE
        }
    }

    fn holds_lease(&self, replica: &Replica) -> bool {
        replica.lease.is_some() || !self.guards.lease_checked
    }

    /// Whether a server can commit.
    fn commits(&self, state: &State, host: Host) -> bool {
        match host {
            Host::P0 => !state.promoted || !self.assumptions.replaced_primary_cannot_commit,
            Host::P1 => state.promoted,
        }
    }

    /// Commits a write to a server, and to its standby if that is synchronous.
    fn write(&self, state: &mut State, host: Host, write: impl FnOnce(&mut Server)) {
        write(&mut state.servers[host as usize]);
        if self.bounds.standby == Standby::Synchronous && !state.promoted {
            state.servers[1] = state.servers[0];
        }
    }

    /// Counts an unproven heartbeat once its head is applied (G4).
    fn prove(&self, replica: &mut Replica) {
        if let Some((age, head)) = replica.unproven
            && (replica.facts.contains(head) || !self.guards.head_applied)
        {
            replica.unproven = None;
            replica.lease = Some(replica.lease.map_or(age, |lease| lease.min(age)));
        }
    }

    fn reach(&self, state: &mut State, landmark: Landmark) {
        state.reached |= self.watch == Some(landmark);
    }

    fn register(&self, state: &mut State, r: usize, slot: u8) {
        let host = state.replicas[r].beats;
        let row = Row {
            known_by: 1 << r,
            as_read: false,
            serving: false,
            reported: Tip::default(),
            renewed: 0,
            renewed_by: None,
        };
        self.write(state, host, |server| {
            server.rows[usize::from(slot)] = Some(row);
        });
        state.replicas[r].slot = slot;
    }

    /// An id that no row has.
    fn free_slot(&self, state: &State, host: Host) -> Option<u8> {
        let used = if self.bounds.clone || self.bounds.restarts > 0 {
            2
        } else {
            self.bounds.replicas
        };
        (0..used as u8).find(|slot| state.servers[host as usize].rows[usize::from(*slot)].is_none())
    }

    fn start(&self, state: &mut State, r: usize, host: Host) {
        state.replicas[r] = Replica {
            run: Run::Loading,
            polls: host,
            beats: host,
            ..Replica::DOWN
        };
        if self.guards.registered_first {
            let slot = self.free_slot(state, host).expect("a free row");
            self.register(state, r, slot);
        } else {
            // What the load was asked counts as if it were a heartbeat.
            let log = state.servers[host as usize].log;
            let replica = &mut state.replicas[r];
            replica.run = Run::Serving;
            replica.facts = log;
            replica.lease = Some(0);
            replica.slot = r as u8;
        }
    }

    fn poll(&self, state: &mut State, r: usize) {
        let log = state.servers[state.replicas[r].polls as usize].log;
        let replica = &mut state.replicas[r];
        let rewritten = !log.starts_with(replica.facts) && !replica.facts.starts_with(log);
        if rewritten {
            // Merged restrictively; the rest of this is in `history`.
            replica.held |= replica.facts.has(Change::Revoke);
        }
        if rewritten || log.starts_with(replica.facts) {
            replica.facts = log;
        }
        if replica.run == Run::Loading {
            replica.run = Run::Serving;
        }
        self.prove(replica);
        if !self.guards.heartbeat_needed {
            replica.lease = Some(0);
        }
        if rewritten {
            self.reach(state, Landmark::HistoryRewritten);
        }
    }

    /// The server does the heartbeat of `r`: one statement, which changes the row and returns the head.
    fn execute(&self, state: &mut State, r: usize) {
        let Replica {
            beats: host,
            slot,
            heartbeat: Some(Heartbeat::Sent { age, reports }),
            ..
        } = state.replicas[r]
        else {
            return;
        };
        let server = &state.servers[host as usize];
        let log = server.log;
        let row = server.rows[usize::from(slot)];
        let own = row.is_some_and(|row| row.known_by & (1 << r) != 0 || !self.guards.beat_compared);
        if own && self.commits(state, host) {
            let clone = self.bounds.clone;
            let mut shared = false;
            self.write(state, host, |server| {
                if let Some(row) = &mut server.rows[usize::from(slot)] {
                    row.known_by = 1 << r;
                    row.as_read = false;
                    row.serving = true;
                    row.reported = if self.guards.reports_applied {
                        reports
                    } else {
                        log.tip()
                    };
                    row.renewed = 0;
                    if clone {
                        shared = row.renewed_by.is_some_and(|by| usize::from(by) != r);
                        row.renewed_by = Some(r as u8);
                    }
                }
            });
            state.broken.shared |= shared;
        }
        state.replicas[r].heartbeat = Some(Heartbeat::Done {
            age,
            head: own.then(|| log.tip()),
        });
    }

    fn receive(&self, state: &mut State, r: usize) {
        let replica = &mut state.replicas[r];
        let Some(Heartbeat::Done { age, head }) = replica.heartbeat.take() else {
            return;
        };
        let Some(head) = head else {
            replica.run = Run::StruckOff;
            self.reach(state, Landmark::StruckOff);
            return;
        };
        let age = if self.guards.counted_from_sending {
            age
        } else {
            0
        };
        if age >= self.lease_length() {
            return;
        }
        replica.unproven = Some((age, head));
        self.prove(replica);
        if replica.lapsed && replica.lease.is_some() {
            self.reach(state, Landmark::LeaseRegained);
        }
    }

    fn commit(&self, state: &mut State, change: Change) {
        let host = state.waiter.at;
        self.write(state, host, |server| {
            server.log.push(change);
            for row in server.rows.iter_mut().flatten() {
                row.as_read = false;
            }
        });
        state.waiter.wait = Some(Wait {
            change,
            age: 0,
            silent: None,
            ended: None,
        });
        if change == Change::Revoke {
            state.acknowledged = Some(0);
        }
    }

    fn connect_waiter(state: &mut State) {
        state.waiter.at = Host::P1;
        state.waiter.met = 0;
        if let Some(wait) = &mut state.waiter.wait {
            // A beat that was read on another timeline says nothing about the row of this one.
            wait.silent = None;
        }
    }

    /// Whether every serving row has reported the change.
    fn all_reported(&self, server: &Server, change: Change) -> bool {
        server
            .rows
            .iter()
            .flatten()
            .all(|row| !row.serving || self.reported(server, *row, change))
    }

    fn reported(&self, server: &Server, row: Row, change: Change) -> bool {
        let Some(revision) = server.log.revision_of(change) else {
            return false;
        };
        row.reported.revision >= revision
            && (server.log.contains(row.reported) || !self.guards.report_by_stamp)
    }

    fn read_rows(&self, state: &mut State) {
        let Waiter {
            at,
            met,
            wait: Some(mut wait),
        } = state.waiter
        else {
            return;
        };
        let server = state.servers[at as usize];
        if !server.log.has(wait.change) {
            // "Waiters wait for their own stamp": this history has lost the change, and the call fails.
            state.waiter.wait = None;
            return;
        }
        let trusted = met >= WAIT || !self.guards.full_wait_on_new_timeline;
        if trusted && self.all_reported(&server, wait.change) {
            self.end_wait(state, Ended::Early);
            return;
        }
        // Without G8 the times in the rows say whether the leases are over, by the clock of the server that is asked.
        let over = |row: &Row| {
            !row.serving || row.renewed >= WAIT || self.reported(&server, *row, wait.change)
        };
        if !self.guards.waiter_clock && server.rows.iter().flatten().all(over) {
            self.end_wait(state, Ended::ByTime);
            return;
        }
        let mut silent = 0;
        for slot in 0..2 {
            let row = server.rows[slot];
            if row.is_some_and(|row| row.serving && !self.reported(&server, row, wait.change)) {
                silent |= 1 << slot;
                if let Some(row) = &mut state.servers[at as usize].rows[slot] {
                    row.as_read = true;
                }
            }
        }
        if self.bounds.standby == Standby::Synchronous && !state.promoted {
            state.servers[1] = state.servers[0];
        }
        wait.silent = Some((silent, 0));
        state.waiter.wait = Some(wait);
    }

    fn end_wait(&self, state: &mut State, ended: Ended) {
        if let Some(wait) = &mut state.waiter.wait {
            wait.ended = Some(ended);
            let revoked = wait.change == Change::Revoke;
            state.everywhere |= revoked && state.acknowledged.is_some();
        }
        self.reach(
            state,
            match ended {
                Ended::Early => Landmark::EarlyEverywhere,
                Ended::ByTime => Landmark::EverywhereByTime,
            },
        );
    }

    fn delete_silent(&self, state: &mut State) {
        let Waiter {
            at,
            wait:
                Some(Wait {
                    silent: Some((silent, _)),
                    ..
                }),
            ..
        } = state.waiter
        else {
            return;
        };
        for slot in 0..2 {
            let Some(row) = state.servers[at as usize].rows[slot] else {
                continue;
            };
            if silent & (1 << slot) != 0 && (row.as_read || !self.guards.deletes_beat_as_read) {
                self.delete_row(state, at, slot);
            }
        }
        state.waiter.wait = None;
    }

    /// Deletes a row, and notes whether its owner can still answer (I6).
    fn delete_row(&self, state: &mut State, host: Host, slot: usize) {
        if let Some(row) = state.servers[host as usize].rows[slot] {
            let owns = |r: usize| row.known_by & (1 << r) != 0;
            state.broken.deleted |= (0..2).any(|r| owns(r) && state.replicas[r].lease.is_some());
        }
        self.write(state, host, |server| server.rows[slot] = None);
    }

    fn end_process(state: &mut State, r: usize) {
        state.replicas[r] = Replica::DOWN;
        for row in state
            .servers
            .iter_mut()
            .flat_map(|server| server.rows.iter_mut().flatten())
        {
            row.known_by &= !(1 << r);
        }
        if state
            .question
            .is_some_and(|question| usize::from(question.replica) == r)
        {
            state.question = None;
        }
    }

    fn promote(&self, state: &mut State) {
        state.promoted = true;
        if state.acknowledged.is_some() && !state.servers[1].log.has(Change::Revoke) {
            // An asynchronous failover has lost the revocation. Only holds remain of it.
            state.acknowledged = None;
            state.everywhere = false;
            state.question = None;
        }
        if !self.guards.waiter_clock {
            for row in state.servers[1].rows.iter_mut().flatten() {
                row.renewed = (row.renewed + self.bounds.skew).min(WAIT);
            }
        }
    }

    /// The revocation as a client knows it at [`NOW`].
    fn observed(state: &State) -> Revocation {
        Revocation {
            acknowledged_at: state.acknowledged.map(|age| NOW - Time::from(age)),
            everywhere_at: state.everywhere.then_some(NOW),
        }
    }

    /// Whether an "allowed" to a question asked now would break a promise. No other question needs following.
    fn is_promised(&self, state: &State) -> bool {
        let since = if self.watch == Some(Landmark::AllowedWithinLease) {
            0
        } else {
            WAIT + 1
        };
        state.everywhere || state.acknowledged.is_some_and(|age| age >= since)
    }

    /// The second half of an answer: reads the facts, the lease having been read when the question came (G25).
    fn answer(&self, state: &mut State) {
        let Some(question) = state.question.take() else {
            return;
        };
        let replica = &state.replicas[usize::from(question.replica)];
        let second = if self.guards.lease_read_before_facts {
            replica.allows()
        } else {
            self.holds_lease(replica)
        };
        if !second || !replica.answers() {
            return;
        }
        let answer = promises::Answer {
            process: u32::from(question.replica),
            asked_at: NOW,
            answered_at: NOW,
            verdict: Verdict::Allowed,
        };
        let revocation = &question.revocation;
        let bound = Time::from(WAIT);
        state.broken.everywhere |= !promises::denied_after_everywhere(revocation, &answer);
        state.broken.lease |= !promises::denied_after_lease(revocation, &answer, bound);
        self.reach(state, Landmark::AllowedWithinLease);
    }

    fn tick(&self, state: &mut State, slow: Option<usize>) {
        let length = self.lease_length();
        let older = |age: u8| Some(age + 1).filter(|age| *age < length);
        for (r, replica) in state.replicas.iter_mut().enumerate() {
            if slow == Some(r) || (replica.paused && !self.assumptions.clock_sees_pauses) {
                continue;
            }
            let had_lease = replica.lease.is_some();
            replica.lease = replica.lease.and_then(older);
            replica.lapsed |=
                had_lease && replica.lease.is_none() && self.watch == Some(Landmark::LeaseRegained);
            replica.unproven = replica
                .unproven
                .and_then(|(age, head)| Some((older(age)?, head)));
            replica.heartbeat = match replica.heartbeat {
                // The server does a heartbeat that is too old to count all the same.
                Some(Heartbeat::Sent { age, reports }) => Some(Heartbeat::Sent {
                    age: (age + 1).min(length),
                    reports,
                }),
                Some(Heartbeat::Done { age, head: Some(_) })
                    if age + 1 >= length && self.guards.counted_from_sending =>
                {
                    None
                }
                Some(Heartbeat::Done { age, head }) => Some(Heartbeat::Done {
                    age: (age + 1).min(length),
                    head,
                }),
                None => None,
            };
        }
        if slow.is_some() {
            state.ticks_to_lose -= 1;
        }
        if !self.guards.waiter_clock {
            for row in state
                .servers
                .iter_mut()
                .flat_map(|server| server.rows.iter_mut().flatten())
            {
                row.renewed = (row.renewed + 1).min(WAIT);
            }
        }
        state.waiter.met = (state.waiter.met + 1).min(WAIT);
        if let Some(wait) = &mut state.waiter.wait {
            wait.age = (wait.age + 1).min(WAIT + 2);
            if let Some((_, age)) = &mut wait.silent {
                *age = (*age + 1).min(WAIT);
            }
        }
        state.acknowledged = state.acknowledged.map(|age| (age + 1).min(WAIT + 1));
        state.calm = state.calm.map(|ticks| (ticks + 1).min(SETTLED));
    }

    /// Whether a working process would take a step before the next tick.
    fn is_due(&self, state: &State) -> bool {
        let waiter = &state.waiter;
        let wait_is_due = waiter
            .wait
            .is_some_and(|wait| wait.ended.is_none() && wait.age >= self.wait_length());
        let waiter_must_move = state.promoted && waiter.at == Host::P0;
        wait_is_due
            || waiter_must_move
            || (0..self.bounds.replicas).any(|r| self.replica_is_due(state, r))
    }

    fn replica_is_due(&self, state: &State, r: usize) -> bool {
        let replica = &state.replicas[r];
        let commits = self.commits(state, replica.beats);
        let stuck = !commits && self.guards.gives_up_server;
        if replica.paused {
            return true;
        }
        match replica.run {
            Run::Down | Run::Draining => false,
            Run::StruckOff => commits || stuck,
            Run::Loading => true,
            Run::Serving => match replica.heartbeat {
                None => {
                    let news = state.servers[replica.polls as usize].log != replica.facts;
                    let beaten = replica.lease == Some(0)
                        || replica.unproven.is_some_and(|(age, _)| age == 0);
                    news || !beaten
                }
                // L/3 without an answer: given up.
                Some(Heartbeat::Sent { age, .. }) => commits || (stuck && age >= LEASE / 3),
                Some(Heartbeat::Done { .. }) => true,
            },
        }
    }

    fn replica_actions(&self, state: &State, r: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[r];
        let trouble = state.calm.is_none();
        if replica.run == Run::Down {
            for host in [Host::P0, Host::P1] {
                let is_first = self.bounds.clone && r == 1;
                if trouble
                    && !is_first
                    && self.commits(state, host)
                    && self.free_slot(state, host).is_some()
                {
                    actions.push(Action::Start(r, host));
                }
            }
            return;
        }
        if replica.paused {
            actions.push(Action::Resume(r));
            return;
        }
        if state.pauses_left > 0 && trouble {
            actions.push(Action::Pause(r));
        }
        if state.restarts_left > 0 && trouble {
            actions.push(Action::Crash(r));
            if self.commits(state, replica.beats) {
                actions.push(
                    if self.guards.ends_answering_first || replica.run == Run::Draining {
                        Action::Stop(r)
                    } else {
                        Action::DeleteOwnRow(r)
                    },
                );
            }
        }
        if replica.run == Run::StruckOff
            && self.commits(state, replica.beats)
            && self.free_slot(state, replica.beats).is_some()
        {
            actions.push(Action::Register(r));
        }
        if replica.run != Run::Draining {
            actions.push(Action::Poll(r));
        }
        match replica.heartbeat {
            None if replica.run == Run::Serving => actions.push(Action::Send(r)),
            Some(Heartbeat::Sent { .. })
                if self.commits(state, replica.beats) || !self.guards.heartbeat_commits =>
            {
                actions.push(Action::Execute(r));
            }
            Some(Heartbeat::Done { .. }) => actions.push(Action::Receive(r)),
            None | Some(Heartbeat::Sent { .. }) => {}
        }
        if replica.heartbeat.is_some() && trouble && self.bounds.late_heartbeats {
            actions.push(Action::Lose(r));
        }
        if self.guards.one_server {
            if state.promoted && replica.beats == Host::P0 && self.may_reconnect(state, replica) {
                actions.push(Action::Connect(r));
            }
        } else if state.promoted && self.may_reconnect(state, replica) {
            for host in [Host::P0, Host::P1] {
                if replica.polls != host {
                    actions.push(Action::ConnectPolls(r, host));
                }
                if replica.beats != host {
                    actions.push(Action::ConnectBeats(r, host));
                }
            }
        }
        if state.question.is_none() && self.is_promised(state) && replica.answers() {
            let first = if self.guards.lease_read_before_facts {
                self.holds_lease(replica)
            } else {
                replica.allows()
            };
            if first {
                actions.push(Action::Ask(r));
            }
        }
    }

    /// A connection may break at any time in trouble. In calm it is given up only for a reason (G19).
    fn may_reconnect(&self, state: &State, replica: &Replica) -> bool {
        let stays_out = match replica.heartbeat {
            Some(Heartbeat::Sent { age, .. }) => age >= LEASE / 3,
            _ => replica.run == Run::StruckOff || replica.run == Run::Loading,
        };
        state.calm.is_none()
            || (self.guards.gives_up_server && stays_out && !self.commits(state, replica.beats))
    }

    fn waiter_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Waiter { at, wait, .. } = state.waiter;
        let trouble = state.calm.is_none();
        if wait.is_none_or(|wait| wait.ended.is_some()) && self.commits(state, at) && trouble {
            let made =
                |change: &&Change| state.servers.iter().any(|server| server.log.has(**change));
            actions.extend(
                self.bounds
                    .changes
                    .iter()
                    .find(|change| !made(change))
                    .map(|next| Action::Commit(*next)),
            );
        }
        if let Some(wait) = wait {
            if wait.ended.is_none() {
                let server = &state.servers[at as usize];
                // A second reading matters only if it ends the wait.
                if wait.silent.is_none()
                    || self.all_reported(server, wait.change)
                    || !self.guards.waiter_clock
                {
                    actions.push(Action::ReadRows);
                }
                if wait.age >= self.wait_length() {
                    actions.push(Action::EndWait);
                }
            } else if let (Some(Ended::ByTime), Some((_, age))) = (wait.ended, wait.silent)
                && (age >= WAIT || !self.guards.beat_stood_still)
                && self.commits(state, at)
            {
                actions.push(Action::DeleteSilent);
            }
        }
        if state.promoted && at == Host::P0 {
            actions.push(Action::ConnectWaiter);
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            servers: [Server::default(); 2],
            promoted: false,
            replicas: [Replica::DOWN; 2],
            waiter: Waiter {
                at: Host::P0,
                met: WAIT,
                wait: None,
            },
            acknowledged: None,
            everywhere: false,
            question: None,
            ticks_to_lose: if self.assumptions.clock_rate {
                self.bounds.lost_ticks
            } else {
                3
            },
            pauses_left: u8::from(!self.assumptions.clock_sees_pauses),
            restarts_left: self.bounds.restarts,
            calm: None,
            broken: Broken::default(),
            reached: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let trouble = state.calm.is_none();
        for r in 0..self.bounds.replicas {
            self.replica_actions(state, r, actions);
        }
        self.waiter_actions(state, actions);
        if state.question.is_some() {
            actions.push(Action::Answer);
        }
        if self.bounds.standby != Standby::None && !state.promoted && trouble {
            actions.push(Action::Promote);
            if self.bounds.standby == Standby::Asynchronous {
                actions.push(Action::Replicate);
            }
        }
        if self.bounds.clone
            && state.replicas[1].run == Run::Down
            && self.may_be_cloned(&state.replicas[0])
        {
            actions.push(Action::Clone);
        }
        if self.bounds.calm && trouble {
            actions.push(Action::Calm);
        }
        if trouble || !self.is_due(state) {
            actions.push(Action::Tick { slow: None });
            if state.ticks_to_lose > 0 && trouble {
                actions.extend((0..self.bounds.replicas).map(|r| Action::Tick { slow: Some(r) }));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick { slow } => self.tick(&mut state, slow),
            Action::Start(r, host) => self.start(&mut state, r, host),
            Action::Register(r) => {
                let slot = self.free_slot(&state, state.replicas[r].beats)?;
                self.register(&mut state, r, slot);
                state.replicas[r].run = Run::Serving;
            }
            Action::Stop(r) => {
                let Replica { beats, slot, .. } = state.replicas[r];
                let own = state.servers[beats as usize].rows[usize::from(slot)]
                    .is_some_and(|row| row.known_by & (1 << r) != 0);
                Self::end_process(&mut state, r);
                if own {
                    self.delete_row(&mut state, beats, usize::from(slot));
                }
                state.restarts_left -= 1;
            }
            Action::DeleteOwnRow(r) => {
                let Replica { beats, slot, .. } = state.replicas[r];
                self.delete_row(&mut state, beats, usize::from(slot));
                state.replicas[r].run = Run::Draining;
                state.replicas[r].heartbeat = None;
            }
            Action::Crash(r) => {
                Self::end_process(&mut state, r);
                state.restarts_left -= 1;
            }
            Action::Poll(r) => self.poll(&mut state, r),
            Action::Send(r) => {
                let reports = state.replicas[r].facts.tip();
                state.replicas[r].heartbeat = Some(Heartbeat::Sent { age: 0, reports });
                if !self.bounds.late_heartbeats && self.commits(&state, state.replicas[r].beats) {
                    self.execute(&mut state, r);
                }
            }
            Action::Execute(r) => self.execute(&mut state, r),
            Action::Receive(r) => self.receive(&mut state, r),
            Action::Lose(r) => state.replicas[r].heartbeat = None,
            Action::Connect(r) => {
                let replica = &mut state.replicas[r];
                (replica.polls, replica.beats, replica.heartbeat) = (Host::P1, Host::P1, None);
            }
            Action::ConnectPolls(r, host) => state.replicas[r].polls = host,
            Action::ConnectBeats(r, host) => {
                state.replicas[r].beats = host;
                state.replicas[r].heartbeat = None;
            }
            Action::Pause(r) => {
                state.replicas[r].paused = true;
                state.pauses_left -= 1;
            }
            Action::Resume(r) => state.replicas[r].paused = false,
            Action::Clone => Self::clone_process(&mut state),
            Action::Commit(change) => self.commit(&mut state, change),
            Action::ReadRows => self.read_rows(&mut state),
            Action::EndWait => self.end_wait(&mut state, Ended::ByTime),
            Action::DeleteSilent => self.delete_silent(&mut state),
            Action::ConnectWaiter => Self::connect_waiter(&mut state),
            Action::Replicate => state.servers[1] = state.servers[0],
            Action::Promote => self.promote(&mut state),
            Action::Ask(r) => {
                state.question = Some(Question {
                    replica: r as u8,
                    revocation: Self::observed(&state),
                });
            }
            Action::Answer => self.answer(&mut state),
            Action::Calm => state.calm = Some(0),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(I1, |_: &Self, state: &State| !state.broken.everywhere),
            Property::always(I2, |_: &Self, state: &State| !state.broken.lease),
            Property::always(I6, |_: &Self, state: &State| !state.broken.deleted),
            Property::always(I8, |_: &Self, state: &State| !state.broken.shared),
            Property::always(I12, |_: &Self, state: &State| {
                let waits = |wait: &Wait| wait.ended.is_none() && wait.age > WAIT + 1;
                state.calm.is_none_or(|ticks| ticks == 0)
                    || !state.waiter.wait.as_ref().is_some_and(waits)
            }),
            Property::always(I13, |_: &Self, state: &State| {
                state.calm != Some(SETTLED)
                    || state
                        .replicas
                        .iter()
                        .all(|replica| replica.run == Run::Down || replica.lease.is_some())
            }),
            Property::always(I14, |_: &Self, state: &State| {
                let left_behind = |replica: &Replica| {
                    replica.run != Run::Down
                        && (replica.polls == Host::P0 || replica.beats == Host::P0)
                };
                state.calm != Some(SETTLED)
                    || !state.promoted
                    || !state.replicas.iter().any(left_behind)
            }),
            Property::sometimes(REACHED, |_: &Self, state: &State| state.reached),
        ]
    }
}

impl Lease {
    /// Whether a machine may be copied with this process in it.
    ///
    /// It is not enough that the *copy* forgets its lease: it knows the beat, takes the row over and reports the change,
    /// while the original still answers from the lease that it had.
    fn may_be_cloned(&self, replica: &Replica) -> bool {
        let quiet =
            replica.lease.is_none() && replica.unproven.is_none() && replica.heartbeat.is_none();
        replica.run == Run::Serving && (quiet || !self.assumptions.no_clone_with_lease)
    }

    fn clone_process(state: &mut State) {
        state.replicas[1] = state.replicas[0];
        for row in state
            .servers
            .iter_mut()
            .flat_map(|server| server.rows.iter_mut().flatten())
        {
            if row.known_by & 1 != 0 {
                row.known_by |= 2;
            }
            row.renewed_by = None;
        }
    }
}
