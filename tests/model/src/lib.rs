//! A model of the replica protocol, and the promises that the protocol keeps.
//!
//! The protocol lets several `claviger serve` processes (replicas) over one database answer "allowed" without asking the
//! database, and still lets a revocation take effect everywhere within a known time. The model is what the protocol must
//! be, small enough that [stateright] visits every state. It shares no code with claviger.
//!
//! One product of everything would be too large, so that the protocol is five models:
//!
//! | module | what it contains | invariants |
//! |---|---|---|
//! | [`lease`] | heartbeats, leases, `WAIT_EVERYWHERE`, failover, clones, pauses | I1, I2, I6, I8, I12, I13, I14 |
//! | [`history`] | a failover that loses commits: epochs, merges, holds | I3, I4, I7 |
//! | [`feed`] | the order in which a poll is applied | I9 |
//! | [`clock`] | what time a replica believes it is | I5 |
//! | [`counter`] | concurrent writers of a sum | sum = rows |
//!
//! I10 (journals) and I11 (revisions of rows) belong to parts that do not exist yet.
//!
//! Each rule of the protocol is a bool in [`Guards`]. With [`Guards::ALL`] every invariant holds. Without any one of them
//! some invariant does not, and the checker prints the sequence of steps that breaks it: `tests/it/model.rs` does so for
//! each. What the protocol takes for granted about its surroundings is in [`Assumptions`], with the same proof that
//! nothing can be left out.

pub mod check;
pub mod clock;
pub mod counter;
pub mod feed;
pub mod history;
pub mod lease;
pub mod promises;

/// The rules of the protocol. A rule that is `false` is not followed.
///
/// The comments name the attack that each rule answers.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each rule can be left out by itself"
)]
pub struct Guards {
    /// G1. "Allowed" is said only under a lease.
    pub lease_checked: bool,
    /// G2. A lease counts from the moment at which its heartbeat was *sent*. Counted from the answer, a delayed answer
    /// extends the lease by its delay.
    pub counted_from_sending: bool,
    /// G3. Only a heartbeat renews the lease. A poll proves nothing: a replaced primary still answers polls.
    pub heartbeat_needed: bool,
    /// G4. A heartbeat counts only when the mirror has applied the head that the heartbeat returned. Attack C1: polls from
    /// one server, heartbeats to another.
    pub head_applied: bool,
    /// G5. A heartbeat is a committed write, which a replaced primary cannot make.
    pub heartbeat_commits: bool,
    /// G6. A heartbeat changes its row only from a beat that this process wrote. Attack C6: two virtual machines from one
    /// snapshot renew one row.
    pub beat_compared: bool,
    /// G7. A waiter deletes a silent row only while the row still has the beat that the waiter read. Attack C2a: the row has
    /// come alive since.
    pub deletes_beat_as_read: bool,
    /// G8. A waiter measures on its own clock, not by the times in the rows. Attack C2b: the times were written by another
    /// server's clock.
    pub waiter_clock: bool,
    /// G9. A waiter that met the timeline only now waits in full. Attack C2c: an asynchronous failover lost the rows of
    /// replicas that still hold leases.
    pub full_wait_on_new_timeline: bool,
    /// G10. A replica is registered, and heard as serving, before it answers.
    pub registered_first: bool,
    /// G11. A report is looked up by its stamp. Its number alone can be that of another change on a lost timeline.
    pub report_by_stamp: bool,
    /// G12. A change is acknowledged when the local mirror has applied its *stamp*, not its number.
    pub own_stamp: bool,
    /// G13. The first change on another timeline raises the epoch, the high part of each revision. Attack H6.
    pub epoch_by_timeline: bool,
    /// G14. A replica that recognises a rewritten history keeps denying in every dimension in which it denied: keys and
    /// realm definitions. Attack H5.
    pub merges_all_dimensions: bool,
    /// G15. What such a replica keeps denying is stored as holds before it goes on. Attack H5: its memory ends with it.
    pub holds_stored: bool,
    /// G16. All connections of a process are to one server, and never to a lower timeline than one it met. Attack C1.
    pub one_server: bool,
    /// G17. A replica reports what it has applied, not what it has read.
    pub reports_applied: bool,
    /// G18. The lease's length is one stored number, the same for replicas and waiters. Attack C2.
    pub one_lease_length: bool,
    /// G19. A server whose heartbeats stay out is given up, and all are tried again. Attack H4.
    pub gives_up_server: bool,
    /// G20. A poll that changes a realm and keys of it narrows the keys first. Attack M2.
    pub keys_narrowed_first: bool,
    /// G20b. A poll reads everything from one snapshot. Attack M2.
    pub one_snapshot: bool,
    /// G21. A process that stops ends answering, then deletes its row.
    pub ends_answering_first: bool,
    /// G22a. A replica's "now" runs on when the store's clock is behind. Attack M1.
    pub clock_runs_on: bool,
    /// G22b. Heartbeats store the highest "now", and a replica starts from the stored one. Attack M1.
    pub mark_stored: bool,
    /// G23. A waiter waits longer than a lease lasts, by what two clocks may differ in rate.
    pub rate_allowance: bool,
    /// G24. Every writer of a sum holds the counter's row.
    pub counter_held: bool,
    /// G25. An answer reads the lease before the facts, or both at once. Found by this model: with the facts first, the
    /// lease can be one of a heartbeat that came with newer facts.
    pub lease_read_before_facts: bool,
    /// G26. A waiter deletes a silent row only when the row's beat stood still for the whole wait *since the waiter read
    /// it*, and on the same timeline. Found by this model: a beat read shortly before is the beat of a living lease.
    pub beat_stood_still: bool,
}

impl Guards {
    /// The protocol as designed.
    pub const ALL: Self = Self {
        lease_checked: true,
        counted_from_sending: true,
        heartbeat_needed: true,
        head_applied: true,
        heartbeat_commits: true,
        beat_compared: true,
        deletes_beat_as_read: true,
        waiter_clock: true,
        full_wait_on_new_timeline: true,
        registered_first: true,
        report_by_stamp: true,
        own_stamp: true,
        epoch_by_timeline: true,
        merges_all_dimensions: true,
        holds_stored: true,
        one_server: true,
        reports_applied: true,
        one_lease_length: true,
        gives_up_server: true,
        keys_narrowed_first: true,
        one_snapshot: true,
        ends_answering_first: true,
        clock_runs_on: true,
        mark_stored: true,
        rate_allowance: true,
        counter_held: true,
        lease_read_before_facts: true,
        beat_stood_still: true,
    };
}

/// What the protocol takes for granted about the machines. An assumption that is `false` does not hold.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each assumption can fail by itself"
)]
pub struct Assumptions {
    /// A1. A primary cannot commit any more once another was promoted.
    pub replaced_primary_cannot_commit: bool,
    /// A2. A replica's clock runs whenever the replica can answer later: no pause that the guest does not see.
    pub clock_sees_pauses: bool,
    /// A2b. No process is copied while it holds a lease or waits for a heartbeat.
    pub no_clone_with_lease: bool,
    /// A3. Two clocks differ in rate by at most the allowance: at most one tick is lost in a run.
    pub clock_rate: bool,
}

impl Assumptions {
    /// The box in the documents.
    pub const ALL: Self = Self {
        replaced_primary_cannot_commit: true,
        clock_sees_pauses: true,
        no_clone_with_lease: true,
        clock_rate: true,
    };
}
