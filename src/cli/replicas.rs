//! The servers that share a database.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::{WaitFlag, span};
use super::output::Output;
use super::request_id;
use super::response::ChangeResponse as _;
use super::text;
use crate::pb::claviger::v1::{
    ListReplicasRequest, ListReplicasResponse, Replica, SetLeaseRequest,
};

/// The servers that share a PostgreSQL database.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Replicas {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the servers [the default].
    List,
    SetLease(SetLease),
}

/// Set how long a server may answer "allowed" without news from the database.
///
/// The value is stored in the database and applies to all servers. A longer lease survives a longer outage of the database. A
/// revocation is in force on every server after this time, 2 % and a second, whatever fails.
#[derive(Debug, Args)]
struct SetLease {
    /// The length of the lease, from 1s to 5m; a new authority has 30s.
    #[arg(value_name = "TIME", value_parser = span)]
    lease: Duration,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Replicas {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        match self.command.unwrap_or(Command::List) {
            Command::List => list(&client, output).await,
            Command::SetLease(set) => set.run(&client, output).await,
        }
    }
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let request = ListReplicasRequest {};
    let answer = client
        .ask(client.authority().list_replicas(request))
        .await?;
    output.show(&answer, table)
}

impl SetLease {
    async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let lease = prost_types::Duration::try_from(self.lease)
            .map_err(|_| Failure::usage("TIME must be from 1s to 5m"))?;
        let request = SetLeaseRequest {
            lease: Some(lease),
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
        };
        let answer = client.change(client.authority().set_lease(request)).await?;
        output.show_change(&answer, |answer| {
            let lease = text::span_if_any(answer.lease.as_ref());
            format!("set the lease to {lease}: {}", answer.effect())
        })
    }
}

fn table(answer: &ListReplicasResponse) -> String {
    let ListReplicasResponse {
        replicas,
        revision,
        lease,
        longest_lease,
    } = answer;
    if lease.is_none() {
        return "The database is embedded, so it has one server, which needs no lease.".to_owned();
    }
    let row = |replica: &Replica| {
        vec![
            text::plain(&replica.name).into_owned(),
            text::plain(&replica.version).into_owned(),
            text::enum_value(replica.state().as_str_name(), "REPLICA_STATE_"),
            replica.reported_revision.to_string(),
            replica.lag.to_string(),
            rounded(replica.lease_left.as_ref()),
            rounded(replica.heartbeat_age.as_ref()),
        ]
    };
    let header = [
        "NAME",
        "VERSION",
        "STATE",
        "REVISION",
        "LAG",
        "LEASE LEFT",
        "HEARTBEAT",
    ];
    let mut shown = text::table(&header, replicas.iter().map(row));
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
    shown
}

/// A time span to a tenth of a second.
fn rounded(span: Option<&prost_types::Duration>) -> String {
    let span = span.and_then(|span| Duration::try_from(*span).ok());
    let seconds = span.unwrap_or_default().as_secs_f64();
    format!("{seconds:.1}s")
}
