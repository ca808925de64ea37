//! The audit trail.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use futures_util::future::join_all;
use prost_types::Timestamp;
use tonic::Code;

use super::arguments::FlagValue;
use super::client::Client;
use super::connect::Connection;
use super::event_line::{self, Names};
use super::failure::Failure;
use super::flags;
use super::keys::named::{self, KeyName, Several};
use super::output::{self, Output};
use super::page::PageFlags;
use super::realm_flag::RealmFlag;
use super::reflect::Described;
use super::text;
use super::unknown::Names as OwnerNames;
use crate::domain::event::SoughtKind;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::{
    Event, GetKeyRequest, KeyFilter, ListEventsRequest, ListEventsResponse, ListKeysRequest,
};

/// The time between two looks for new events.
const PAUSE: Duration = Duration::from_millis(200);

/// How long to wait after a look that failed, at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many keys are looked up for the names of those who made the changes.
const MOST_ACTORS: usize = 8;

/// In how many realms keys are looked up for their names.
const MOST_REALMS: usize = 4;

/// How many events one look asks for.
const EVENTS_AT_ONCE: i32 = 500;

/// Show the audit trail, newest first: who changed what, when and from where.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger events --since 24h
  claviger events --follow --kind key.revoked,partner.suspended")]
pub struct Events {
    #[command(flatten)]
    realm: RealmFlag,
    /// Show the events of all realms, also with the variable `CLAVIGER_REALM`; only for operators.
    #[arg(long, conflicts_with = "realm")]
    all_realms: bool,
    /// Only events of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only events of this key: its id, name, external id, or the end of its hint. A deleted key has only its id.
    #[arg(long, value_name = "KEY", value_parser = named::parser())]
    key_id: Option<KeyName>,
    /// Only changes that were made with this key, of the realm or of the realm `claviger`; `me` is the key that this command calls
    /// with.
    #[arg(long, value_name = "KEY", value_parser = named::parser())]
    actor: Option<KeyName>,
    /// Only events of these kinds. `partner.put` includes `partner.suspended` and `partner.restored`.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(SoughtKind::all().map(SoughtKind::as_str)))]
    kind: Vec<String>,
    /// Only events since this time, or since that long ago, such as 24h, `today`, `yesterday` or 2026-11-01.
    // As with the page token: the flags that are printed for the next page are appended to the command line of this page.
    #[arg(long, value_name = flags::PAST, value_parser = flags::past, overrides_with = "since")]
    since: Option<Timestamp>,
    /// Only events before this time, or before that long ago.
    #[arg(long, value_name = flags::PAST, value_parser = flags::past, overrides_with = "until")]
    until: Option<Timestamp>,
    /// Go on with the events that come, oldest first, one line for each, until Ctrl-C. Begins with those since --since, or else
    /// with the next one.
    #[arg(long, short, conflicts_with_all = ["until", "PageFlags"])]
    follow: bool,
    #[command(flatten)]
    page: PageFlags,
}

impl Events {
    pub(super) async fn run(
        mut self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        self.page.check(&event_line::FIELDS)?;
        let client = connection.connect().await?;
        self.realm.or_of_context(&client);
        let request = self.request(&client).await?;
        if self.follow {
            if output.screen().is_some() {
                output::print_error("waiting for events; Ctrl-C ends");
            }
            // A call waits for the next event, which is no news.
            return follow(&client.in_background(), output, &request).await;
        }
        let fetch = async |page_size, page_token| {
            let request = ListEventsRequest {
                page_size,
                page_token,
                ..request.clone()
            };
            list(&client, request).await
        };
        let page = self.page.fetch(fetch).await?;
        if page.events.is_empty() {
            check_owner(&client, &request).await?;
        }
        let mut names = Names::of(&page.events);
        let screen = output.screen();
        let realm = request.realm;
        if screen.is_some() {
            add_keys(&client, &mut names, &page.events).await;
            add_actors(&client, &mut names, &page.events).await;
        }
        let now = screen.map_or_else(|| flags::now().into(), |screen| screen.now);
        let lines = |events: &[Event]| event_line::lines(events, &names, !realm.is_empty(), &now);
        let listing = event_line::listing(&realm);
        self.page
            .show_page(output, &page, &listing, lines, &self.repeat())
    }

    /// A request for events that match the flags.
    async fn request(&self, client: &Client) -> Result<ListEventsRequest, Failure> {
        let realm = if self.all_realms {
            None
        } else {
            self.realm.given()
        };
        // Every server knows one kind.
        let (kind, kinds) = match &*self.kind {
            [kind] => (kind.clone(), Vec::new()),
            kinds => (String::new(), kinds.to_vec()),
        };
        Ok(ListEventsRequest {
            key_id: self.key(client, self.key_id.as_ref(), false).await?,
            actor: self.key(client, self.actor.as_ref(), true).await?,
            realm: realm.unwrap_or_default(),
            partner: self.partner.clone(),
            kind,
            kinds,
            start_time: self.since,
            end_time: self.until,
            page_size: 0,
            page_token: String::new(),
            after_revision: None,
        })
    }

    /// Returns the id of a key. A name is looked up in the realm of the events, or in the only one that can be meant.
    async fn key(
        &self,
        client: &Client,
        name: Option<&KeyName>,
        is_actor: bool,
    ) -> Result<String, Failure> {
        let Some(name) = name else {
            return Ok(String::new());
        };
        name.check()?;
        let realm = if name.needs_realm() {
            match self.realm.resolve(client).await {
                // Nearly all administrators are of this realm.
                Err(_) if is_actor => RealmId::BUILT_IN.to_owned(),
                realm => realm?,
            }
        } else {
            String::new()
        };
        let several = Several::LivingWins;
        if is_actor {
            name.administrator(client, &realm, several).await
        } else {
            name.id_in(client, &[&realm], several).await
        }
    }

    /// The flags with absolute times, for the next page: by then, a relative time such as `24h` means another time.
    fn repeat(&self) -> Vec<FlagValue> {
        let times = [("--since", self.since), ("--until", self.until)];
        times
            .into_iter()
            .filter_map(|(flag, time)| Some((flag, time?.to_string())))
            .collect()
    }
}

/// Looks up the keys that were changed, with one request for a realm, of few realms: its newest ones, which is enough for most realms.
async fn add_keys(client: &Client, names: &mut Names, events: &[Event]) {
    let unknown = events.iter().filter(|event| names.lacks_key(&event.key_id));
    let realms: BTreeSet<String> = unknown.map(|event| event.realm.clone()).collect();
    let found = realms.into_iter().take(MOST_REALMS).map(async |realm| {
        let request = ListKeysRequest {
            filter: Some(KeyFilter {
                realm,
                ..KeyFilter::default()
            }),
            page_size: 1_000,
            ..ListKeysRequest::default()
        };
        client.ask(client.keys().list_keys(request)).await
    });
    let wanted: HashSet<&str> = events.iter().map(|event| &*event.key_id).collect();
    for answer in join_all(found).await.into_iter().flatten() {
        let keys = answer.keys.into_iter();
        for key in keys.filter(|key| wanted.contains(&*key.id)) {
            names.add(key);
        }
    }
}

/// Looks up the keys that made the changes, if they are few. A key that is gone, or that the caller may not see, keeps its id.
async fn add_actors(client: &Client, names: &mut Names, events: &[Event]) {
    let actors = names.unknown_actors(events).into_iter().take(MOST_ACTORS);
    let found = actors.map(async |key_id| {
        let request = GetKeyRequest {
            key_id,
            ..GetKeyRequest::default()
        };
        client.ask(client.keys().get_key(request)).await
    });
    for answer in join_all(found).await.into_iter().flatten() {
        if let Some(key) = answer.key {
            names.add(key);
        }
    }
}

/// Fails if the realm or the partner of the events does not exist, and never did.
async fn check_owner(client: &Client, request: &ListEventsRequest) -> Result<(), Failure> {
    if request.realm.is_empty() {
        return Ok(());
    }
    let names = OwnerNames {
        realm: request.realm.clone(),
        partner: request.partner.clone(),
        ..OwnerNames::default()
    };
    let Err(failure) = names.check(client).await else {
        return Ok(());
    };
    // The audit trail also has what was deleted since.
    let ever = ListEventsRequest {
        realm: request.realm.clone(),
        partner: request.partner.clone(),
        page_size: 1,
        ..ListEventsRequest::default()
    };
    let ever = client.ask(client.keys().list_events(ever)).await?;
    if ever.events.is_empty() {
        return Err(failure);
    }
    let (realm, partner) = (text::plain(&request.realm), text::plain(&request.partner));
    output::print_error(&if partner.is_empty() {
        format!("note: realm {realm} was deleted; its earlier events are kept")
    } else {
        format!("note: {realm} has no partner {partner} any more; its earlier events are kept")
    });
    Ok(())
}

/// Asks for events.
///
/// # Errors Also if the server does not know several kinds, and has returned events of any kind. Such a server tells no
/// revision.
async fn list(client: &Client, request: ListEventsRequest) -> Result<ListEventsResponse, Failure> {
    let has_kinds = !request.kinds.is_empty();
    let answer = client.ask(client.keys().list_events(request)).await?;
    if has_kinds && answer.revision == 0 {
        let message = "the server does not know several kinds at once";
        return Err(
            Failure::new(Code::Unimplemented, message).hint("name one kind, or upgrade the server")
        );
    }
    Ok(answer)
}

/// Prints events as they come. An outage is waited for: the revision says where to go on.
async fn follow(
    client: &Client,
    output: &Output,
    events: &ListEventsRequest,
) -> Result<(), Failure> {
    let mut after = if events.start_time.is_some() {
        0
    } else {
        let request = ListEventsRequest {
            page_size: 1,
            ..events.clone()
        };
        list(client, request).await?.revision
    };
    let is_for_people = output.screen().is_some();
    let mut pause = PAUSE;
    loop {
        let request = ListEventsRequest {
            page_size: EVENTS_AT_ONCE,
            after_revision: Some(after),
            ..events.clone()
        };
        match list(client, request).await {
            Ok(answer) => {
                for event in &answer.events {
                    // A pipe gets the kind of the message.
                    let kind = if is_for_people {
                        event_line::kind(event)
                    } else {
                        &event.kind
                    };
                    let line = || line(event, kind);
                    match output.print_line(&Described::whole("Event", event), line) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(());
                        }
                        Err(error) => {
                            return Err(Failure::failed(format!(
                                "cannot show the events: {error}"
                            )));
                        }
                        Ok(()) => {}
                    }
                }
                after = answer.revision;
                pause = PAUSE;
            }
            Err(failure) if failure.is_outage() => {
                output.print_failure(&failure);
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(pause).await;
    }
}

/// An event on one line.
fn line(event: &Event, kind: &str) -> String {
    let place = [&event.realm, &event.partner, &event.key_id];
    let place: Vec<_> = place
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect();
    format!(
        "{}  {}  {}  {}",
        text::time_if_any(event.time.as_ref()),
        kind,
        place.join(" "),
        text::pairs(&event.detail)
    )
}
