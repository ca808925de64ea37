//! The servers that share a database.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::{WaitFlag, now, span};
use super::listing::{Field, Listing, Rest, ViewFlags};
use super::output::{Output, Screen};
use super::prompt::YesFlag;
use super::request_id;
use super::response::ChangeResponse as _;
use super::style::Tone;
use super::table::{Cell, Column};
use super::text;
use crate::pb::claviger::v1::{
    AcceptHistoryRequest, Fork, ListReplicasRequest, ListReplicasResponse, Replica, ReplicaState,
    SetClockRequest, SetLeaseRequest,
};

/// The servers that share a PostgreSQL database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger replicas")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Replicas {
    #[command(flatten)]
    view: ViewFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the servers [the default].
    #[command(alias = "ls", after_help = "Examples:\n  claviger replicas list")]
    List(ViewFlags),
    SetLease(SetLease),
    AcceptHistory(AcceptHistory),
    SetClock(SetClock),
}

/// Set how long a server may answer "allowed" without news from the database.
///
/// The value is stored in the database and applies to all servers. A longer lease survives a longer outage of the database. A
/// revocation is in force on every server after this time, 2 % and a second, whatever fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger replicas set-lease 30s")]
struct SetLease {
    /// The length of the lease, from 1s to 5min; a new authority has 30s.
    #[arg(value_name = "TIME", value_parser = span)]
    lease: Duration,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Accept that changes were lost at a failover, and release what is held because of them.
///
/// `claviger replicas` names what is held. Take away again what must stay away, then accept: everything has what the database says.
/// This cannot be undone. The command asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger replicas accept-history 2 --yes")]
struct AcceptHistory {
    /// The epoch that began at the fork, as `claviger replicas` shows it.
    epoch: u64,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Set the authority's time to the clock of the database.
///
/// The time never runs back by itself: if the clock of the database's machine was far ahead, keys look expired until the time is right
/// again. Correct that clock first. It must agree with the clock of this machine to a minute. With an embedded database, the clock is that
/// of the server's machine. The command asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger replicas set-clock --yes")]
struct SetClock {
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Replicas {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match &self.command {
            None => self.view.check(&FIELDS)?,
            Some(Command::List(view)) => view.check(&FIELDS)?,
            Some(
                Command::AcceptHistory(AcceptHistory { yes, .. })
                | Command::SetClock(SetClock { yes, .. }),
            ) => yes.or_terminal()?,
            Some(Command::SetLease(_)) => {}
        }
        let client = connection.connect().await?;
        match self.command {
            None => list(&client, output, &self.view).await,
            Some(Command::List(view)) => list(&client, output, &view).await,
            Some(Command::SetLease(set)) => set.run(&client, output).await,
            Some(Command::AcceptHistory(accept)) => accept.run(&client, output).await,
            Some(Command::SetClock(set)) => set.run(&client, output).await,
        }
    }
}

async fn list(client: &Client, output: &Output, view: &ViewFlags) -> Result<(), Failure> {
    let request = ListReplicasRequest {};
    let answer = client
        .ask(client.authority().list_replicas(request))
        .await?;
    let screen = output.screen();
    output.show(&answer, |answer| shown(answer, view, screen))
}

impl SetLease {
    async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let lease = prost_types::Duration::try_from(self.lease)
            .map_err(|_| Failure::usage("TIME must be from 1s to 5min"))?;
        let request = SetLeaseRequest {
            lease: Some(lease),
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
        };
        let answer = client.change(client.authority().set_lease(request)).await?;
        output.show_change(&answer, |answer| {
            let lease = text::span_if_any(answer.lease.as_ref());
            answer.done(&format!("Set the lease to {lease}"))
        })
    }
}

impl AcceptHistory {
    async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let epoch = self.epoch;
        if !self.yes.is_given() {
            let listed = client
                .ask(client.authority().list_replicas(ListReplicasRequest {}))
                .await?;
            let fork = listed.forks.iter().find(|fork| fork.epoch == epoch);
            // The server refuses an epoch that it does not know.
            if let Some(Fork { held_count, .. }) = fork {
                let question = format!(
                    "Release {held_count} held because of epoch {epoch}? Everything then has what the database says."
                );
                self.yes.confirm(&question).await?;
            }
        }
        let request = AcceptHistoryRequest {
            epoch,
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
        };
        let answer = client
            .change(client.authority().accept_history(request))
            .await?;
        output.show_change(&answer, |answer| {
            let released = answer.released_count;
            answer.done(&format!(
                "Released {released} held because of epoch {epoch}"
            ))
        })
    }
}

impl SetClock {
    async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        self.yes
            .confirm(
                "Set the authority's time to that of this machine? Keys that look expired may work again, and others expire.",
            )
            .await?;
        let request = SetClockRequest {
            time: Some(now().into()),
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
        };
        let answer = client.change(client.authority().set_clock(request)).await?;
        output.show_change(&answer, |answer| {
            let before = text::time_if_any(answer.time_before.as_ref());
            let time = text::time_if_any(answer.time.as_ref());
            answer.done(&format!("Set the time from {before} to {time}"))
        })
    }
}

/// The columns of the list of servers.
const FIELDS: [Field<Replica>; 7] = [
    Field::new(Column::id("NAME", 7, 12, 24), |replica, _| {
        Cell::new(&replica.name)
    }),
    Field::new(Column::id("VERSION", 2, 8, 12), |replica, _| {
        Cell::new(&replica.version)
    }),
    Field::new(Column::whole("STATE", 6), |replica, _| {
        let tone = match replica.state() {
            ReplicaState::Serving => Tone::Good,
            _ => Tone::Warning,
        };
        Cell::toned(
            text::enum_value(replica.state().as_str_name(), "REPLICA_STATE_"),
            tone,
        )
    }),
    Field::new(Column::whole("REVISION", 1), |replica, _| {
        Cell::new(replica.reported_revision.to_string())
    }),
    Field::new(Column::whole("LAG", 5), |replica, _| {
        Cell::new(replica.lag.to_string())
    }),
    Field::new(Column::whole("LEASE LEFT", 4), |replica, _| {
        Cell::new(rounded(replica.lease_left.as_ref()))
    }),
    Field::new(Column::whole("HEARTBEAT", 3), |replica, _| {
        Cell::new(rounded(replica.heartbeat_age.as_ref()))
    }),
];

/// How servers are listed.
pub(super) fn listing() -> Listing<'static, Replica> {
    Listing {
        fields: &FIELDS,
        place: String::new(),
        nouns: ["server", "servers"],
        order: "",
        empty: "There are no servers.",
        identity: |replica| replica.id.clone(),
        note: |_| String::new(),
        footer: "",
    }
}

pub(super) fn shown(
    answer: &ListReplicasResponse,
    view: &ViewFlags,
    screen: Option<Screen>,
) -> String {
    let ListReplicasResponse {
        replicas,
        revision,
        lease,
        longest_lease,
        forks,
    } = answer;
    if lease.is_none() {
        let embedded = "The database is embedded, so it has one server, which needs no lease.";
        return format!("{embedded}{}", held(forks));
    }
    let mut shown = listing().text(replicas, view, screen, &Rest::default());
    let warned = replicas
        .iter()
        .filter(|replica| !replica.warning.is_empty());
    for replica in warned {
        let (name, warning) = (text::plain(&replica.name), text::plain(&replica.warning));
        let _ = write!(shown, "\nwarning: {name}: {warning}");
    }
    let lease_text = text::span_if_any(lease.as_ref());
    let _ = write!(shown, "\n\nlease {lease_text}, revision {revision}");
    if longest_lease != lease {
        let longest = text::span_if_any(longest_lease.as_ref());
        let _ = write!(shown, "; a server may still have a lease of {longest}");
    }
    shown + &held(forks)
}

/// What is held because changes were lost.
fn held(forks: &[Fork]) -> String {
    let mut shown = String::new();
    for fork in forks.iter().filter(|fork| fork.held_count > 0) {
        let Fork {
            epoch,
            last_revision,
            held_count,
            held,
        } = fork;
        let _ = write!(
            shown,
            "\n\nChanges after revision {last_revision} were lost when epoch {epoch} began. Servers knew some of\n\
             them, and still keep away what they took from:"
        );
        for name in held {
            let _ = write!(shown, "\n  {}", text::plain(name));
        }
        let more = held_count.saturating_sub(held.len() as u64);
        if more > 0 {
            let _ = write!(shown, "\n  and {more} more");
        }
        let _ = write!(
            shown,
            "\nTake away again what must stay away. Then release the rest:\n  claviger replicas accept-history {epoch}"
        );
    }
    shown
}

/// A time span to a tenth of a second.
fn rounded(span: Option<&prost_types::Duration>) -> String {
    let span = span.and_then(|span| Duration::try_from(*span).ok());
    let seconds = span.unwrap_or_default().as_secs_f64();
    format!("{seconds:.1}s")
}
