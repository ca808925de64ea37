//! The `canary` command, which measures how fast a revocation is in force on every server.
//!
//! `round` performs one round, `judgement` judges each answer, `open_keys` deletes the keys whatever happens, `histogram` and
//! `report` have the figures and the output.

mod histogram;
mod judgement;
mod open_keys;
mod report;
mod round;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::connect::{Connection, Server};
use super::failure::Failure;
use super::flags::{self, span};
use super::output::Output;
use super::request_id;
use super::text;
use crate::pb::claviger::v1::{IssueKeyRequest, KeyLevel, Wait};
use open_keys::OpenKeys;
use report::{Report, WAITS};
use round::Plan;

/// The realm and the partner that are used if none is named.
const CANARY: &str = "canary";
/// After this time a key expires that could not be deleted.
const LIFETIME: Duration = Duration::from_hours(1);
/// How much longer than the bound the endpoints are asked by default.
const LIMIT_BEYOND_BOUND: Duration = Duration::from_secs(30);
/// The longest limit. A round must be over before its key expires.
const MAX_LIMIT: Duration = Duration::from_mins(20);

/// Measure how fast every server denies a revoked key, and report every broken promise.
///
/// Each round issues a key, waits until every endpoint allows it, revokes it, and asks every endpoint until it denies the
/// key. Then the key is deleted. The command goes on until Ctrl-C or SIGTERM, or as long as --rounds and --for say.
///
/// The caller needs an operator key, or a key with the scopes `manage` and `verify` for the realm. Prefer a realm of its own for
/// the canary, so that its keys open nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  every promise was kept
  1  a promise was broken, a key could not be deleted, or no round could be completed
  2  the command is invalid

Before the first run:
  claviger realm create canary --prefix canary --environment production=live
  claviger partner create canary --realm canary

Examples:
  claviger canary --every 1min --for 1h")]
pub struct Canary {
    /// The realm of the keys.
    #[arg(long, default_value = CANARY)]
    realm: String,
    /// The partner that owns the keys.
    #[arg(long, default_value = CANARY)]
    partner: String,
    /// The project to bind the keys to, in a realm without partner keys.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// The environment of the keys; may be omitted where the realm has only one.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// Issue, revoke and delete the keys at this address [default: at the endpoints in turn].
    #[arg(long, value_name = "URL")]
    admin_endpoint: Option<String>,
    /// When the revocation returns: `committed` when it is in force on the server that answers, `everywhere` when it is in force
    /// on every server, `both` in turn.
    #[arg(long, value_name = "WHEN", default_value = "both")]
    wait: WaitChoice,
    /// How long after its answer a server may not know of a revocation.
    #[arg(long, value_name = "SPAN", default_value = "31.6s", value_parser = span)]
    bound: Duration,
    /// How long an endpoint is asked after the revocation at most [default: 30s more than --bound].
    #[arg(long, value_name = "SPAN", value_parser = span)]
    limit: Option<Duration>,
    /// Stop after so many rounds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,
    /// Begin no round after this time.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    duration: Option<Duration>,
    /// The pause between two rounds.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    every: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WaitChoice {
    Committed,
    Everywhere,
    Both,
}

impl Canary {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let limit = self.limit()?;
        let (endpoints, changer) = connection.servers(self.admin_endpoint.as_deref())?;
        let changers = changer.map_or_else(|| endpoints.clone(), |server| vec![server]);
        let plan = Plan {
            endpoints,
            issue: self.issue_request(),
            bound: self.bound,
            limit,
        };
        let mut signals = Signals::listen()?;
        let mut keys = OpenKeys::default();
        let mut report = Report::new(output, plan.endpoints.iter().map(Server::name));
        report.start();

        let outcome = tokio::select! {
            biased;
            () = signals.next() => Ok(()),
            outcome = self.rounds(&plan, &changers, &mut keys, &mut report) => outcome,
        };
        tokio::select! {
            biased;
            () = signals.next() => {}
            _ = keys.delete_all(&changers) => {}
        }
        outcome.map_err(|failure| self.with_advice(failure))?;
        report.finish(&keys).map(|()| 0)
    }

    fn limit(&self) -> Result<Duration, Failure> {
        let limit = match self.limit {
            Some(limit) => limit,
            None => self.bound.saturating_add(LIMIT_BEYOND_BOUND),
        };
        if limit <= self.bound {
            return Err(Failure::usage(
                "--limit: must be longer than --bound, or nothing would be noticed after it",
            ));
        }
        if limit > MAX_LIMIT {
            let limit = text::span(MAX_LIMIT);
            return Err(Failure::usage(format!("--limit: must be at most {limit}"))
                .hint("without --limit, it is 30s more than --bound"));
        }
        Ok(limit)
    }

    fn issue_request(&self) -> IssueKeyRequest {
        let level = if self.project.is_empty() {
            KeyLevel::Partner
        } else {
            KeyLevel::Project
        };
        IssueKeyRequest {
            realm: self.realm.clone(),
            partner: self.partner.clone(),
            project: self.project.clone(),
            level: level as i32,
            environment: self.environment.clone(),
            name: CANARY.to_owned(),
            labels: BTreeMap::from([(CANARY.to_owned(), "true".to_owned())]),
            ..IssueKeyRequest::default()
        }
    }

    /// Performs the rounds. Fails if a round shows that none can succeed, and none has.
    async fn rounds(
        &self,
        plan: &Plan,
        changers: &[Server],
        keys: &mut OpenKeys,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let is_over = |start: Instant| self.duration.is_some_and(|span| start.elapsed() >= span);
        for round in 0..self.rounds.unwrap_or(u64::MAX) {
            if round > 0 {
                let left = self
                    .duration
                    .map(|span| span.saturating_sub(start.elapsed()));
                sleep(left.map_or(self.every, |left| left.min(self.every))).await;
                if is_over(start) {
                    break;
                }
            }
            let changer = usize::try_from(round % changers.len() as u64).unwrap_or_default();
            let wait = self.wait.of_round(round, changers.len() as u64);
            let request = IssueKeyRequest {
                expire_time: flags::from_now(LIFETIME),
                request_id: request_id::fresh(),
                ..plan.issue.clone()
            };
            let server = &changers[changer];
            let mut broken = |promise: round::BrokenPromise<'_>| report.violation(&promise);
            let result = round::run(plan, server, wait, request, keys, &mut broken).await;
            let in_turn = changers[changer..].iter().chain(&changers[..changer]);
            let cleanup = keys.delete_all(in_turn).await.err();
            match result.failure {
                Some(failure) if failure.is_final() && report.has_measured_nothing() => {
                    return Err(failure);
                }
                _ => report.add_round(&result, wait, server.name(), cleanup.as_ref()),
            }
            if report.is_broken() {
                break;
            }
        }
        Ok(())
    }

    /// Adds what to do if the canary's own realm or partner does not exist.
    fn with_advice(&self, failure: Failure) -> Failure {
        if !failure.is_not_found() {
            return failure;
        }
        let Self { realm, partner, .. } = self;
        failure.hint(format!(
            "name a realm and its partner with --realm and --partner, or make those of the canary: `claviger realm create {realm} \
             --prefix {realm} --environment production=live`, then `claviger partner create {partner} --realm {realm}`"
        ))
    }
}

impl WaitChoice {
    /// The way to wait in a round, so that each of the servers that are used in turn has both.
    fn of_round(self, round: u64, servers: u64) -> Wait {
        match self {
            Self::Committed => Wait::Committed,
            Self::Everywhere => Wait::Everywhere,
            Self::Both => {
                let shift = if servers.is_multiple_of(2) {
                    round / servers
                } else {
                    0
                };
                WAITS[usize::from(!(round + shift).is_multiple_of(2))]
            }
        }
    }
}

/// The signals that end the canary.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_gets_both_ways_to_wait() {
        for servers in 1..=5 {
            for server in 0..servers {
                let rounds = (0..4 * servers).filter(|round| round % servers == server);
                let waits: Vec<_> = rounds
                    .map(|round| WaitChoice::Both.of_round(round, servers))
                    .collect();
                for wait in WAITS {
                    assert!(
                        waits.contains(&wait),
                        "server {server} of {servers}: {waits:?}"
                    );
                }
            }
        }
        assert_eq!(WaitChoice::Both.of_round(0, 2), Wait::Committed);
        assert_eq!(WaitChoice::Both.of_round(1, 2), Wait::Everywhere);
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        canary: Canary,
    }

    #[test]
    fn the_limit_is_longer_than_the_bound() {
        let limit = |line: &str| {
            let line = line.split_whitespace();
            <Line as clap::Parser>::parse_from(line).canary.limit().ok()
        };
        assert_eq!(limit("canary"), Some(Duration::from_millis(61_600)));
        assert_eq!(
            limit("canary --bound 1s --limit 2s"),
            Some(Duration::from_secs(2))
        );
        assert_eq!(limit("canary --limit 31.6s"), None);
        assert_eq!(limit("canary --bound 1h"), None);
    }
}
