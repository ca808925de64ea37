//! The commands that revoke keys: `keys revoke`, `keys revoke-all` and `keys revoke-self`.

use clap::Args;

use super::bulk::{preview, repeat};
use super::filter::FilterFlags;
use super::key::{already_revoked, handle, is_unchanged, question, title};
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
use crate::cli::text;
use crate::cli::unknown::Names;
use crate::domain::ids::RealmId;
use crate::domain::realm::scopes;
use crate::pb::claviger::v1::{
    GetSelfRequest, Key, KeyState, RevokeKeyRequest, RevokeKeysRequest, RevokeKeysResponse,
    RevokeSelfRequest,
};

/// Revoke a key, which cannot be undone. The key stays listed, with the reason.
///
/// It says which key it is and asks at a terminal; elsewhere it needs --yes. To revoke a revoked key changes nothing: the first
/// reason stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys revoke ci --reason 'found in a public repository' --yes
  claviger keys revoke …plvF --yes")]
pub struct Revoke {
    #[command(flatten)]
    key: KeyArg,
    /// The reason, for the audit trail.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    reason: String,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    lock_out: LockOutFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Revoke the keys of a realm that match all flags, which cannot be undone.
///
/// The command first shows how many keys this would revoke. Then it asks for confirmation at a terminal, and requires --yes
/// elsewhere. With --partner, --project, --environment and --issued-before alone it is one change, however many keys there are.
/// Keys that are issued afterwards are not affected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys revoke-all --partner acme --reason 'leaked' --dry-run
  claviger keys revoke-all --issued-before 30d --reason 'old signer' --yes")]
pub struct RevokeAll {
    #[command(flatten)]
    realm: RealmFlag,
    #[command(flatten)]
    filter: FilterFlags,
    /// The reason, for the audit trail.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: String,
    /// Only show how many keys this would revoke, with examples.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Revoke the key that authenticates this call, from --key-file, `CLAVIGER_KEY` or the context. It cannot be undone.
///
/// The finder of a leaked key can revoke it without another key: the call needs no scope and works from any address. At a
/// terminal, the command asks for confirmation; elsewhere it requires --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys revoke-self --key-file leaked.key --reason 'leaked' --yes")]
pub struct RevokeSelf {
    /// The reason, for the audit trail.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    reason: String,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Revoke {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let before = self.key.key(&client, Several::Refused).await?;
        // What needs no change needs no question.
        let is_revoked = before.state == KeyState::Revoked as i32;
        if !is_revoked {
            self.lock_out.check(&client, &before).await?;
            self.yes.confirm(&question("Revoke", &before)).await?;
        }
        let request = RevokeKeyRequest {
            request_id: request_id::fresh(),
            key_id: before.id.clone(),
            reason: self.reason,
            wait: self.wait.to_proto(),
            ..RevokeKeyRequest::default()
        };
        let answer = client.change(client.keys().revoke_key(request)).await?;
        output.show_change(&answer, |answer| {
            if is_revoked && is_unchanged(&before, answer.key.as_ref()) {
                already_revoked(output, &before)
            } else {
                let done = answer.done(&format!("Revoked {}", title(&before)));
                done + &after_administrator(&before, output)
            }
        })
    }
}

/// What to look at after the end of a key that could change others: what it did, and what it issued.
fn after_administrator(key: &Key, output: &Output) -> String {
    let administers =
        key.realm == RealmId::BUILT_IN && key.scopes.iter().any(|scope| scope != scopes::VERIFY);
    if !administers || output.screen().is_none() {
        return String::new();
    }
    let key = handle(key);
    format!(
        "\n\nWhat it did, and the keys that it issued:\n  claviger events --all-realms --actor {key}\n  \
         claviger keys list --all-realms --created-by {key}"
    )
}

impl RevokeAll {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
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
        let request = RevokeKeysRequest {
            filter: Some(filter),
            reason: self.reason,
            dry_run: false,
            wait: self.wait.to_proto(),
            request_id: String::new(),
        };
        let dry_run = RevokeKeysRequest {
            dry_run: true,
            ..request.clone()
        };
        let found = client.ask(client.keys().revoke_keys(dry_run)).await;
        let found = names
            .known_or(&client, found, |found| found.would_revoke == 0)
            .await?;
        let count = found.would_revoke;
        let screen = output.screen();
        let preview = |found: &RevokeKeysResponse| {
            preview("revoke", count, found.more, &found.examples, screen)
        };
        // A repeated request is sent again, to show its result, even if no keys are left to revoke.
        let is_empty = count == 0 && !self.request_id.is_given();
        if self.dry_run || is_empty {
            return output.show(&found, preview);
        }
        output.show_on_stderr(&found, preview)?;
        let question = format!("Revoke {} permanently?", counted(count, found.more));
        self.yes.confirm(&question).await?;

        let first = self.request_id.id();
        let answer = in_rounds(first, async |id| {
            let request = RevokeKeysRequest {
                request_id: id.to_proto(),
                ..request.clone()
            };
            client
                .change(client.keys().revoke_keys(request))
                .await
                .map_err(|failure| first.or_repeat_hint(failure, &repeat(&self.filter)))
        })
        .await?;
        output.show_change(&answer, done)
    }
}

impl RevokeSelf {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        // Not every key that may revoke itself may be read by its holder, such as a disabled one.
        let own = client.ask(client.keys().get_self(GetSelfRequest {})).await;
        let own = own.ok().and_then(|answer| answer.key);
        let source = client.key_source();
        let (asked, which) = match &own {
            Some(key) => (
                format!(
                    "{} This command calls with it, from {source}.",
                    question("Revoke", key)
                ),
                title(key),
            ),
            None => (
                format!("Revoke the key from {source} permanently?"),
                format!("the key from {}", text::plain(source)),
            ),
        };
        self.yes.confirm(&asked).await?;
        let request = RevokeSelfRequest {
            reason: self.reason,
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
        };
        let answer = client.change(client.keys().revoke_self(request)).await?;
        output.show_change(&answer, |answer| {
            let key = answer.key.clone().unwrap_or_default();
            let facts = text::facts([
                ("key id", key.id),
                ("realm", key.realm),
                ("created", text::time_if_any(key.create_time.as_ref())),
                ("revoked", text::time_if_any(key.revoke_time.as_ref())),
            ]);
            format!("{}\n\n{facts}", answer.done(&format!("Revoked {which}")))
        })
    }
}

fn done(answer: &RevokeKeysResponse) -> String {
    let done = match answer {
        RevokeKeysResponse { replayed: true, .. } => {
            "This request was made before, and revoked the keys then".to_owned()
        }
        // One rule, for which the server does not count the keys.
        RevokeKeysResponse { revoked: 0, .. } => "Revoked the keys".to_owned(),
        RevokeKeysResponse { revoked, .. } => format!("Revoked {}", counted(*revoked, false)),
    };
    answer.done(&done)
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::Key;

    use super::*;

    #[test]
    fn a_preview_counts_the_keys_and_shows_some() {
        let examples = [Key {
            id: "id".to_owned(),
            ..Key::default()
        }];
        let shown = preview("revoke", 1_234, false, &examples, None);
        assert!(
            shown.starts_with(
                "This would revoke 1,234 keys permanently. The newest 1 of them:\n\nID  NAME  PARTNER"
            ),
            "{shown}"
        );
        let more = preview("delete", 10_000, true, &examples, None);
        assert!(
            more.starts_with(
                "This would delete 10,000 keys, and then more, permanently. The newest"
            ),
            "{more}"
        );
        assert_eq!(
            preview("revoke", 0, false, &[], None),
            "There are no such keys, or all of them are revoked already."
        );
        assert_eq!(
            preview("delete", 0, false, &[], None),
            "There are no such keys."
        );
    }

    #[test]
    fn keys_that_were_counted_are_told() {
        let answer = RevokeKeysResponse {
            confirmed: true,
            revoked: 12_345,
            revision: 7,
            ..RevokeKeysResponse::default()
        };
        assert_eq!(done(&answer), "Revoked 12,345 keys.");
    }

    #[test]
    fn a_replayed_response_says_so() {
        let answer = RevokeKeysResponse {
            confirmed: true,
            replayed: true,
            revision: 7,
            ..RevokeKeysResponse::default()
        };
        assert_eq!(
            done(&answer),
            "This request was made before, and revoked the keys then."
        );
    }
}
