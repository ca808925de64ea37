//! The commands that delete keys: `keys delete` and `keys delete-all`.

use clap::Args;

use super::bulk::{just_after, preview, repeat};
use super::filter::FilterFlags;
use super::key::KeyId;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::cli::realm_flag::RealmFlag;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::response::ChangeResponse as _;
use crate::cli::rounds::{counted, in_rounds};
use crate::pb::claviger::v1::{DeleteKeyRequest, DeleteKeysRequest, DeleteKeysResponse};

/// Delete a key, so that it becomes unknown. Its events stay in the audit trail.
///
/// At a terminal, the command asks for confirmation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys delete ci --yes")]
pub struct Delete {
    #[command(flatten)]
    key: KeyId,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Delete the keys of a realm that match all flags, so that they become unknown. Their events stay in the audit trail.
///
/// The command first shows how many keys this would delete. Then it asks for confirmation at a terminal, and requires --yes
/// elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys delete-all --state revoked,expired --dry-run
  claviger keys delete-all --state revoked --issued-before 400d --yes")]
pub struct DeleteAll {
    #[command(flatten)]
    realm: RealmFlag,
    #[command(flatten)]
    filter: FilterFlags,
    /// Only show how many keys this would delete, with examples.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl DeleteAll {
    pub(super) async fn run(
        mut self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        if !self.dry_run {
            prompt::require_yes_or_terminal(self.yes)?;
        }
        let mut filter = self.filter.to_proto("")?;
        let client = connection.connect().await?;
        filter.realm = self.realm.resolve(&client).await?;
        let mut request = DeleteKeysRequest {
            filter: Some(filter.clone()),
            dry_run: false,
            wait: self.wait.to_proto(),
            request_id: String::new(),
        };
        let dry_run = DeleteKeysRequest {
            dry_run: true,
            ..request.clone()
        };
        let found = client.ask(client.keys().delete_keys(dry_run)).await?;
        let count = found.would_delete;
        let screen = output.screen();
        let preview = |found: &DeleteKeysResponse| {
            preview("delete", count, found.more, &found.examples, screen)
        };
        // A repeated request is sent again, to show its result, even if no keys are left to delete.
        let is_empty = count == 0 && !self.request_id.is_given();
        if self.dry_run || is_empty {
            return output.show(&found, preview);
        }
        output.show_on_stderr(&found, preview)?;
        let question = format!("Delete {} permanently?", counted(count, found.more));
        prompt::require_confirmation(self.yes, &question)?;

        // What was issued after the preview was not confirmed. A repeated request has the time of the first one, from the hint below.
        if let (Some(newest), false) = (found.examples.first(), self.request_id.is_given()) {
            self.filter.issued_before = newest.create_time.map(just_after);
            request.filter = Some(self.filter.to_proto(&filter.realm)?);
        }
        let first = self.request_id.id();
        let answer = in_rounds(first, async |id| {
            let request = DeleteKeysRequest {
                request_id: id.to_proto(),
                ..request.clone()
            };
            client
                .change(client.keys().delete_keys(request))
                .await
                .map_err(|failure| first.or_repeat_hint(failure, &repeat(&self.filter)))
        })
        .await?;
        output.show_change(&answer, |answer| {
            let deleted = counted(answer.deleted, false);
            let done = if answer.replayed {
                format!("this request was made before, and deleted {deleted} then")
            } else {
                format!("deleted {deleted}")
            };
            format!("{done}: {}", answer.effect())
        })
    }
}

impl Delete {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        prompt::confirm(
            self.yes,
            &format!("Delete key {} permanently?", self.key.id),
        )?;
        let client = connection.connect().await?;
        let request = DeleteKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            wait: self.wait.to_proto(),
            ..DeleteKeyRequest::default()
        };
        let answer = client.change(client.keys().delete_key(request)).await?;
        self.key.show_change(output, "deleted", &answer)
    }
}
