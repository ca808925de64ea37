//! The commands that revoke keys: `keys revoke`, `keys revoke-all` and `keys revoke-self`.

use clap::Args;
use prost_types::Timestamp;

use super::key::{KeyId, last_used};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, WaitFlag};
use crate::cli::output::Output;
use crate::cli::prompt;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::response::ChangeResponse as _;
use crate::cli::text;
use crate::pb::claviger::v1::{
    KeyFilter, RevokeKeyRequest, RevokeKeysRequest, RevokeKeysResponse, RevokeSelfRequest,
};

/// Revoke a key, which cannot be undone. The key stays listed, with the reason.
#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    key: KeyId,
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
    wait: WaitFlag,
}

/// Revoke all keys of a realm, or of one of its partners, projects or environments, which cannot be undone.
///
/// The command first shows how many keys this would revoke. Then it asks for confirmation at a terminal, and requires --yes
/// elsewhere. Keys that are issued afterwards are not affected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys revoke-all --realm demo --partner acme --reason 'their repository was public' --dry-run

  claviger keys revoke-all --realm demo --issued-before 2030-01-31T12:00:00Z --reason 'old signer' --yes")]
pub struct RevokeAll {
    /// The realm.
    #[arg(long)]
    realm: String,
    /// Only keys of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only keys of this project.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// Only keys of this environment.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// Only keys issued or imported before this time, or before that long ago [default: now].
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past)]
    issued_before: Option<Timestamp>,
    /// The reason, for the audit trail.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: String,
    /// Only show how many keys this would revoke, with examples.
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

/// Revoke the key that authenticates this call, from `CLAVIGER_KEY` or --key-file, which cannot be undone.
///
/// The finder of a leaked key can revoke it without another key: the call needs no scope and works from any address. At a
/// terminal, the command asks for confirmation; elsewhere it requires --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  claviger keys revoke-self --key-file leaked.key --reason 'found in a public repository'")]
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
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Revoke {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = RevokeKeyRequest {
            request_id: request_id::fresh(),
            key_id: self.key.id.clone(),
            reason: self.reason,
            wait: self.wait.to_proto(),
            ..RevokeKeyRequest::default()
        };
        let answer = client.change(client.keys().revoke_key(request)).await?;
        self.key.show_change(output, "revoked", &answer)
    }
}

impl RevokeAll {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        if !self.dry_run {
            prompt::require_yes_or_terminal(self.yes)?;
        }
        let client = connection.connect().await?;
        let dry_run = self.request(true);
        let found = client.ask(client.keys().revoke_keys(dry_run)).await?;
        // A repeated request is sent again, to show its result, even if no keys are left to revoke.
        let is_empty = found.would_revoke == 0 && !self.request_id.is_given();
        if self.dry_run || is_empty {
            return output.show(&found, preview);
        }
        output.show_on_stderr(&found, preview)?;
        prompt::require_confirmation(
            self.yes,
            &format!("Revoke {} permanently?", counted(found.would_revoke)),
        )?;

        let id = self.request_id.id();
        let request = RevokeKeysRequest {
            request_id: id.to_proto(),
            ..self.request(false)
        };
        let answer = client
            .change(client.keys().revoke_keys(request))
            .await
            .map_err(|failure| id.or_repeat_hint(failure, &self.repeat()))?;
        output.show_change(&answer, done)
    }

    fn request(&self, dry_run: bool) -> RevokeKeysRequest {
        RevokeKeysRequest {
            filter: Some(KeyFilter {
                realm: self.realm.clone(),
                partner: self.partner.clone(),
                project: self.project.clone(),
                environment: self.environment.clone(),
                issued_before: self.issued_before,
                ..KeyFilter::default()
            }),
            reason: self.reason.clone(),
            dry_run,
            wait: self.wait.to_proto(),
            request_id: String::new(),
        }
    }

    /// The absolute flag for a repetition of the command: by then, a relative time such as `24h` means another time.
    fn repeat(&self) -> String {
        self.issued_before
            .map(|time| format!(" and `--issued-before {time}`"))
            .unwrap_or_default()
    }
}

impl RevokeSelf {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        prompt::require_yes_or_terminal(self.yes)?;
        let client = connection.connect().await?;
        let question = format!("Revoke the key from {} permanently?", client.key_source());
        prompt::require_confirmation(self.yes, &question)?;
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
                ("hint", key.hint),
                ("realm", key.realm),
                ("created", text::time_if_any(key.create_time.as_ref())),
                ("revoked", text::time_if_any(key.revoke_time.as_ref())),
                ("reason", key.revoke_reason),
            ]);
            format!("revoked this key: {}\n\n{facts}", answer.effect())
        })
    }
}

fn preview(answer: &RevokeKeysResponse) -> String {
    if answer.would_revoke == 0 {
        return "There are no such keys, or all of them are revoked already.".to_owned();
    }
    let rows = answer.examples.iter().map(|key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.partner.clone(),
            key.project.clone(),
            key.environment.clone(),
            key.hint.clone(),
            last_used(key),
        ]
    });
    let header = [
        "ID",
        "NAME",
        "PARTNER",
        "PROJECT",
        "ENV",
        "HINT",
        "LAST USED",
    ];
    let examples = match answer.examples.len() {
        shown if shown as u64 == answer.would_revoke => String::new(),
        shown => format!(" The newest {shown} of them:"),
    };
    format!(
        "This would revoke {} permanently.{examples}\n\n{}\n",
        counted(answer.would_revoke),
        text::table(&header, rows)
    )
}

fn done(answer: &RevokeKeysResponse) -> String {
    let done = if answer.replayed {
        "this request was made before, and revoked the keys then"
    } else {
        "revoked the keys"
    };
    format!("{done}: {}", answer.effect())
}

fn counted(keys: u64) -> String {
    match keys {
        1 => "1 key".to_owned(),
        keys => format!("{} keys", text::grouped(keys)),
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::Key;

    use super::*;

    #[test]
    fn a_preview_counts_the_keys_and_shows_some() {
        let answer = RevokeKeysResponse {
            would_revoke: 1_234,
            examples: vec![Key {
                id: "id".to_owned(),
                ..Key::default()
            }],
            ..RevokeKeysResponse::default()
        };
        let shown = preview(&answer);
        assert!(
            shown.starts_with(
                "This would revoke 1,234 keys permanently. The newest 1 of them:\n\nID  NAME  PARTNER"
            ),
            "{shown}"
        );
        let none = preview(&RevokeKeysResponse::default());
        assert_eq!(
            none,
            "There are no such keys, or all of them are revoked already."
        );
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
            "this request was made before, and revoked the keys then: in force on every server, revision 7"
        );
    }
}
