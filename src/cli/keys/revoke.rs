//! Keys are ended for ever: one, many, or the one that the call carries.

use clap::Args;
use prost_types::Timestamp;

use crate::pb::claviger::v1::{
    KeyFilter, RevokeKeyRequest, RevokeKeysRequest, RevokeKeysResponse, RevokeSelfRequest,
};

use super::key::{KeyId, last_used};
use crate::cli::answer::Change as _;
use crate::cli::ask;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::text;

/// End a key for ever. It stays listed, with the reason.
#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    key: KeyId,
    /// Why, for the audit trail.
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

/// End for ever all keys of a realm, or of a partner, project or environment of it.
///
/// First it asks the server how many keys that would end, and shows it; then at a terminal it asks, and elsewhere it wants
/// --yes. Keys that are issued afterwards are not affected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys revoke-all --realm demo --partner acme --reason 'their repository was public' --dry-run

  claviger keys revoke-all --realm demo --issued-before 2030-01-31T12:00:00Z --reason 'old signer' --yes")]
pub struct RevokeAll {
    /// The realm.
    #[arg(long)]
    realm: String,
    /// Only this partner's.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only this project's.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// Only this environment's.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// Only those issued or imported before this time, or before that long ago [default: until now].
    #[arg(long, value_name = "TIME|SPAN", value_parser = flags::past)]
    issued_before: Option<Timestamp>,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: String,
    /// Only tell how many keys this would end, and show some.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// End for ever the key that this very call carries: the one from `CLAVIGER_KEY` or --key-file.
///
/// Who finds a leaked key can end it so, without another key: it needs no scope, and works from any address. At a terminal
/// it asks first, and elsewhere it wants --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  claviger keys revoke-self --key-file leaked.key --reason 'found in a public repository'")]
pub struct RevokeSelf {
    /// Why, for the audit trail.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    reason: String,
    /// Do not ask.
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
            wait: self.wait.on_wire(),
            ..RevokeKeyRequest::default()
        };
        let answer = client.change(client.keys().revoke_key(request)).await?;
        self.key.changed(output, "revoked", &answer)
    }
}

impl RevokeAll {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        if !self.dry_run {
            ask::can_insist(self.yes)?;
        }
        let client = connection.connect().await?;
        let look = self.request(true);
        let found = client.ask(client.keys().revoke_keys(look)).await?;
        // Who repeats a request wants to know what became of it; by now there may be nothing left that it would end.
        let is_empty = found.would_revoke == 0 && !self.request_id.is_given();
        if self.dry_run || is_empty {
            return output.show(&found, preview);
        }
        output.tell_answer(&found, preview)?;
        ask::insist(
            self.yes,
            &format!("End {} for ever?", counted(found.would_revoke)),
        )?;

        let id = self.request_id.id();
        let request = RevokeKeysRequest {
            request_id: id.on_wire(),
            ..self.request(false)
        };
        let answer = client
            .change(client.keys().revoke_keys(request))
            .await
            .map_err(|failure| id.or_repeat(failure, &self.repeat()))?;
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
            wait: self.wait.on_wire(),
            request_id: String::new(),
        }
    }

    /// `24h` is another time when the command is repeated.
    fn repeat(&self) -> String {
        self.issued_before
            .map(|time| format!(" and `--issued-before {time}`"))
            .unwrap_or_default()
    }
}

impl RevokeSelf {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        ask::can_insist(self.yes)?;
        let client = connection.connect().await?;
        let question = format!("End the key from {} for ever?", client.key_source());
        ask::insist(self.yes, &question)?;
        let request = RevokeSelfRequest {
            reason: self.reason,
            wait: self.wait.on_wire(),
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
            format!("revoked this key: {}\n\n{facts}", answer.settled())
        })
    }
}

fn preview(answer: &RevokeKeysResponse) -> String {
    if answer.would_revoke == 0 {
        return "There are no such keys that are not revoked already.".to_owned();
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
    let newest = match answer.examples.len() {
        shown if shown as u64 == answer.would_revoke => String::new(),
        shown => format!(" The newest {shown} of them:"),
    };
    format!(
        "This would end {} for ever.{newest}\n\n{}\n",
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
    format!("{done}: {}", answer.settled())
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
                "This would end 1,234 keys for ever. The newest 1 of them:\n\nID  NAME  PARTNER"
            ),
            "{shown}"
        );
        let none = preview(&RevokeKeysResponse::default());
        assert_eq!(none, "There are no such keys that are not revoked already.");
    }

    #[test]
    fn what_was_done_before_is_said_to_be() {
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
