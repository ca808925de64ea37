//! The commands that delete keys: `keys delete` and `keys delete-all`.

use clap::Args;

use super::bulk::{just_after, preview, repeat};
use super::filter::FilterFlags;
use super::key::{question, title};
use super::lockout::LockOutFlag;
use super::named::{KeyArg, Several};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::prompt::YesFlag;
use crate::cli::realm_flag::RealmFlag;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::response::ChangeResponse as _;
use crate::cli::rounds::{counted, in_rounds};
use crate::cli::unknown::Names;
use crate::pb::claviger::v1::{DeleteKeyRequest, DeleteKeysRequest, DeleteKeysResponse};

/// Delete a key, so that it becomes unknown. Its events stay in the audit trail.
///
/// It says which key it is and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys delete ci --yes")]
pub struct Delete {
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    lock_out: LockOutFlag,
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
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    yes: YesFlag,
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
            self.yes.or_terminal()?;
        }
        let mut filter = self.filter.to_proto("")?;
        let client = connection.connect().await?;
        filter.realm = self.realm.resolve(&client).await?;
        filter.created_by = self
            .filter
            .creator(&client, &filter.realm, Several::Refused)
            .await?;
        let names = Names::of_filter(&filter);
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
        let found = client.ask(client.keys().delete_keys(dry_run)).await;
        let found = names
            .known_or(&client, found, |found| found.would_delete == 0)
            .await?;
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
        self.yes.confirm(&question).await?;

        // What was issued after the preview was not confirmed. A repeated request has the time of the first one, from the hint below.
        if let (Some(newest), false) = (found.examples.first(), self.request_id.is_given()) {
            self.filter.issued_before = newest.create_time.map(just_after);
            filter.issued_before = self.filter.issued_before;
            request.filter = Some(filter);
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
                format!("This request was made before, and deleted {deleted} then")
            } else {
                format!("Deleted {deleted}")
            };
            answer.done(&done)
        })
    }
}

impl Delete {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let (id, which) = match self.key.key(&client, Several::Refused).await {
            Ok(before) => {
                self.lock_out.check(&client, &before).await?;
                self.yes.confirm(&question("Delete", &before)).await?;
                (before.id.clone(), title(&before))
            }
            // Especially a key whose stored data cannot be read must be deletable.
            Err(failure) if failure.is_fault() && self.key.is_id() => {
                let which = format!("the key {}", self.key.id());
                let asked = format!("Delete {which}? Its stored data cannot be read.");
                self.yes.confirm(&asked).await?;
                (self.key.id().to_owned(), which)
            }
            Err(failure) => return Err(failure),
        };
        let request = DeleteKeyRequest {
            request_id: request_id::fresh(),
            key_id: id,
            wait: self.wait.to_proto(),
            ..DeleteKeyRequest::default()
        };
        let answer = client.change(client.keys().delete_key(request)).await?;
        output.show_change(&answer, |answer| answer.done(&format!("Deleted {which}")))
    }
}
