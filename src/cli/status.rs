//! The `status` command.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic_health::pb::health_check_response::ServingStatus;

use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::flags;
use super::healthcheck;
use super::keys::key::title;
use super::login::{role, servers};
use super::output::{Output, Screen};
use super::reflect::Described;
use super::style::Tone;
use super::table;
use super::text;
use super::when;
use super::width::spread;
use crate::pb::claviger::v1::{
    GetSelfRequest, Key, ListRealmsRequest, ListReplicasResponse, Realm, ReplicaState,
};

/// By how many seconds two clocks may differ before it is worth a warning. The server tells its time in whole seconds.
const CLOCK_TOLERANCE: u64 = 2;

/// How many realms are named.
const MOST_REALMS: usize = 8;

/// Show whether a server is ready and its clock is right, and what your key may do there.
///
/// The other servers and the realms are shown to keys that may list them. Exits with 1 if the server is not ready, or if it refuses
/// the key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger status
  claviger status --context prod --json")]
pub struct Status {}

/// What is known about a server, without a key and with one.
struct Report {
    context: Option<String>,
    endpoint: String,
    health: ServingStatus,
    /// `None` without a key that the server accepts.
    answers: Option<Answers>,
}

/// What the server tells the holder of a key.
struct Answers {
    key: Key,
    key_source: String,
    /// By how many seconds the server's clock is ahead of this machine's; `None` if the server does not tell its time.
    clock_ahead: Option<i64>,
    /// `None` if the caller may not know them.
    servers: Option<ListReplicasResponse>,
    /// `None` if the caller may not list them.
    realms: Option<Vec<Realm>>,
}

impl Status {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let Self {} = self;
        let health = healthcheck::of_server(connection).await?;
        let answers = Answers::ask(connection).await;
        let (answers, failure) = match answers {
            Ok(answers) => (Some(answers), None),
            Err(failure) => (None, Some(failure)),
        };
        let report = Report {
            context: connection.chosen_name(),
            endpoint: connection.endpoint_name()?,
            health,
            answers,
        };
        let screen = output.screen();
        let document = output.document(|| report.document());
        let shown =
            document.and_then(|document| output.show_summary(&document, || report.text(screen)));
        // The refusal of the key is worth more than a field that is not there because of it.
        match failure {
            Some(failure) => Err(failure),
            None => shown.map(|()| u8::from(!report.is_serving())),
        }
    }
}

impl Answers {
    async fn ask(connection: &Connection) -> Result<Self, Failure> {
        let client = connection.connect().await?;
        let mut clock_ahead = None;
        let asking = async {
            let response = client.keys().get_self(GetSelfRequest {}).await?;
            clock_ahead = ahead(response.metadata());
            Ok(response)
        };
        let key = client.ask(asking).await?.key.unwrap_or_default();
        let (servers, realms) = tokio::join!(servers(&client, &key), realms(&client));
        Ok(Self {
            key,
            key_source: client.key_source().to_owned(),
            clock_ahead,
            servers,
            realms,
        })
    }
}

/// By how many seconds the time of a response is ahead of this machine's.
fn ahead(metadata: &MetadataMap) -> Option<i64> {
    let date = metadata.get("date")?.to_str().ok()?;
    let of_server = Timestamp::from(httpdate::parse_http_date(date).ok()?);
    Some(of_server.seconds - Timestamp::from(flags::now()).seconds)
}

/// The realms, which only keys with a role may list.
async fn realms(client: &Client) -> Option<Vec<Realm>> {
    let request = ListRealmsRequest {
        page_size: 1000,
        page_token: String::new(),
    };
    let listed = client.ask(client.realms().list_realms(request)).await;
    listed.ok().map(|listed| listed.realms)
}

impl Report {
    fn is_serving(&self) -> bool {
        self.health == ServingStatus::Serving
    }

    fn document(&self) -> serde_json::Result<Value> {
        let answers = self.answers.as_ref();
        let servers = answers.and_then(|answers| answers.servers.as_ref());
        let key = answers.map(|answers| Described::whole("Key", &answers.key));
        let servers = servers.map(|servers| Described::whole("ListReplicasResponse", servers));
        Ok(json!({
            "context": self.context,
            "endpoint": self.endpoint,
            "status": self.health.as_str_name(),
            "healthy": self.is_serving(),
            "key_source": answers.map(|answers| &answers.key_source),
            "role": answers.map(|answers| role(&answers.key)),
            "key": serde_json::to_value(key)?,
            "clock_ahead_seconds": answers.and_then(|answers| answers.clock_ahead),
            "servers": serde_json::to_value(servers)?,
            "realms": answers.and_then(|answers| answers.realms.as_ref()).map(|realms| {
                realms.iter().map(|realm| &realm.id).collect::<Vec<_>>()
            }),
        }))
    }

    fn text(&self, screen: Option<Screen>) -> String {
        let place = match &self.context {
            Some(context) => format!("{} (context {context})", self.endpoint),
            None => self.endpoint.clone(),
        };
        let (state, tone) = if self.is_serving() {
            ("ready", Tone::Good)
        } else {
            ("not ready", Tone::Bad)
        };
        let Some(screen) = screen else {
            let facts = [("server", place), ("state", state.to_owned())];
            return text::facts(facts.into_iter().chain(self.facts(None)));
        };
        let state = state.to_uppercase();
        let place = text::plain(&place);
        let heading = spread(
            [(&place, Tone::Strong), (&state, tone)],
            screen.width,
            screen.width,
        );
        let facts = table::facts(&self.facts(Some(screen)), screen.width);
        format!("{heading}\n\n{facts}").trim_end().to_owned()
    }

    fn facts(&self, screen: Option<Screen>) -> [(&'static str, String); 7] {
        let Some(answers) = &self.answers else {
            return Default::default();
        };
        let key = &answers.key;
        let expires = match (&key.expire_time, screen) {
            (None, _) => "never".to_owned(),
            (Some(at), None) => text::time(at),
            (Some(at), Some(screen)) => when::both_until(at, &screen.now),
        };
        [
            (
                "database",
                answers.servers.as_ref().map(database).unwrap_or_default(),
            ),
            ("clock", answers.clock_ahead.map(clock).unwrap_or_default()),
            (
                "realms",
                answers.realms.as_deref().map(names).unwrap_or_default(),
            ),
            ("you", title(key)),
            ("role", role(key)),
            ("key from", answers.key_source.clone()),
            ("expires", expires),
        ]
    }
}

/// The database, and the servers that share it.
fn database(servers: &ListReplicasResponse) -> String {
    let replicas = &servers.replicas;
    if servers.lease.is_none() {
        return "embedded, with one server".to_owned();
    }
    let serving = replicas.iter();
    let serving = serving
        .filter(|replica| replica.state() == ReplicaState::Serving)
        .count();
    let mut versions: Vec<_> = replicas.iter().map(|replica| &*replica.version).collect();
    versions.sort_unstable();
    versions.dedup();
    let count = replicas.len();
    let noun = if count == 1 { "server" } else { "servers" };
    let mut text = format!(
        "PostgreSQL, with {count} {noun} of version {}",
        versions.join(" and ")
    );
    if serving < count {
        let _ = write!(text, "; {serving} serving");
    }
    if replicas.iter().any(|replica| !replica.warning.is_empty())
        || servers.forks.iter().any(|fork| fork.held_count > 0)
    {
        text += "; there are warnings: claviger replicas";
    }
    text
}

fn clock(ahead: i64) -> String {
    if ahead.unsigned_abs() <= CLOCK_TOLERANCE {
        return "agrees with this machine's".to_owned();
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let seconds = Duration::from_secs(ahead.unsigned_abs());
    format!("{} {way} this machine's", text::span(seconds))
}

fn names(realms: &[Realm]) -> String {
    if realms.is_empty() {
        return "none".to_owned();
    }
    let named: Vec<_> = realms
        .iter()
        .take(MOST_REALMS)
        .map(|realm| &*realm.id)
        .collect();
    let rest = realms.len().saturating_sub(MOST_REALMS);
    match rest {
        0 => named.join(", "),
        rest => format!("{}, and {rest} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told() {
        for (ahead, shown) in [
            (0, "agrees with this machine's"),
            (-2, "agrees with this machine's"),
            (3, "3s ahead of this machine's"),
            (-3660, "1h 1min behind this machine's"),
            (
                i64::MIN,
                "106751991167300d 15h 30min 8s behind this machine's",
            ),
        ] {
            assert_eq!(clock(ahead), shown);
        }
    }

    #[test]
    fn a_response_without_a_time_tells_no_difference() {
        let mut metadata = MetadataMap::new();
        assert_eq!(ahead(&metadata), None);
        metadata.insert("date", "yesterday".parse().unwrap());
        assert_eq!(ahead(&metadata), None);
        metadata.insert("date", "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap());
        assert!(ahead(&metadata).unwrap() < -3);
    }
}
