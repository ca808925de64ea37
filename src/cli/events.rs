//! The audit trail.

use clap::Args;
use prost_types::Timestamp;

use super::connect::Connection;
use super::failure::Failure;
use super::flags;
use super::output::Output;
use super::page::{Listing, PageFlags};
use super::text;
use crate::pb::claviger::v1::{Event, ListEventsRequest};

/// Show the audit trail, newest first: who changed what, when and from where.
#[derive(Debug, Args)]
pub struct Events {
    /// Only events of this realm; only an operator may omit it.
    #[arg(long, default_value_t, hide_default_value = true)]
    realm: String,
    /// Only events of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only events of this key.
    #[arg(long, default_value_t, hide_default_value = true)]
    key_id: String,
    /// Only changes that were made with the key that has this id.
    #[arg(
        long,
        value_name = "KEY_ID",
        default_value_t,
        hide_default_value = true
    )]
    actor: String,
    /// Only events of this kind, such as `key.revoked`.
    #[arg(long, default_value_t, hide_default_value = true)]
    kind: String,
    /// Only events since this time, or since that long ago, such as 24h.
    // As with the page token: the flags that are printed for the next page are appended to the command line of this page.
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past, overrides_with = "since")]
    since: Option<Timestamp>,
    /// Only events before this time, or before that long ago.
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past, overrides_with = "until")]
    until: Option<Timestamp>,
    #[command(flatten)]
    page: PageFlags,
}

impl Events {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let row = |event: &Event| {
            vec![
                event.revision.to_string(),
                text::time_if_any(event.time.as_ref()),
                event.kind.clone(),
                event.realm.clone(),
                event.partner.clone(),
                event.key_id.clone(),
                event.actor.clone(),
                event.peer.clone(),
                text::pairs(&event.detail),
            ]
        };
        let listing = Listing {
            header: &[
                "REVISION", "TIME", "KIND", "REALM", "PARTNER", "KEY", "ACTOR", "PEER", "DETAIL",
            ],
            empty: "There are no such events.",
            optional: &[],
            cut: None,
            repeat: self.repeat(),
        };
        self.page
            .show(output, listing, row, async |page_size, page_token| {
                let request = ListEventsRequest {
                    realm: self.realm.clone(),
                    partner: self.partner.clone(),
                    key_id: self.key_id.clone(),
                    kind: self.kind.clone(),
                    start_time: self.since,
                    end_time: self.until,
                    page_size,
                    page_token,
                    actor: self.actor.clone(),
                };
                client.ask(client.keys().list_events(request)).await
            })
            .await
    }

    /// The flags with absolute times, for the next page: by then, a relative time such as `24h` means another time.
    fn repeat(&self) -> String {
        let times = [("--since", self.since), ("--until", self.until)];
        times
            .into_iter()
            .filter_map(|(flag, time)| Some(format!("{flag} {} ", time?)))
            .collect()
    }
}
