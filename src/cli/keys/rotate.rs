//! The `keys rotate`, `keys rotate-self` and `keys end-rotation` commands.

use std::time::Duration;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::key::{IfRevisionFlag, facts, short_hint, title, used_ago};
use super::lockout::own_id;
use super::named::{KeyArg, Several};
use super::revealed_key::OutputFlags;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, WaitFlag};
use crate::cli::output::{self, Output};
use crate::cli::prompt::YesFlag;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::response::ChangeResponse as _;
use crate::cli::text;
use crate::cli::when::age;
use crate::pb::claviger::v1::{
    EndRotationRequest, KeepSecret, Key, KeySecret, KeyState, RotateKeyRequest, RotateKeyResponse,
    RotateSelfRequest, RotateSelfResponse,
};

/// A secret that was used within this time is in use: to stop it stops traffic.
const IN_USE: Duration = Duration::from_hours(24);

/// Give a key a new secret, and show the new API key this once.
///
/// The key keeps its id, owner, scopes and usage; only its secret changes. With --overlap the old secret works for a while
/// longer, so that its holder can change to the new one; `keys get` shows whether it is still used, and `keys end-rotation`
/// ends the overlap early. A key has at most two secrets: during an overlap, this command replaces the newest one.
///
/// Without --expires-in or --expires-at, the expiry of the key stays, but is at most the realm's max lifetime from now.
///
/// If a secret would stop that was used within the last day, the command says so and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys rotate ci --overlap 24h --output-file new.key
  claviger keys rotate …plvF --yes   # it leaked: the old secret stops now")]
pub struct Rotate {
    #[command(flatten)]
    key: KeyArg,
    /// How long the old secret works, such as 24h, but not beyond the key's expiry. By default it stops at once.
    #[arg(long, value_name = "SPAN", value_parser = flags::span, default_value = "0s")]
    overlap: Duration,
    #[command(flatten)]
    expiry: ExpiryFlags,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Give the key that authenticates this call a new secret, and show the new API key this once.
///
/// The key is from `CLAVIGER_KEY` or --key-file, and keeps everything but its secret. Its realm must have `self_rotation`. The
/// old secret works for the overlap, so that a lost answer locks nobody out. Only the newest secret can be replaced: during an
/// overlap it stops at once, and the oldest one goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys rotate-self --overlap 24h --key-file my.key \\
      --output-file new.key")]
pub struct RotateSelf {
    /// How long the old secret works, from 1h to 366d, but not beyond the key's expiry.
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    overlap: Duration,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// End the overlap of a rotation early: one secret stays, the other one is removed.
///
/// It says which secret stops and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys end-rotation ci --keep new --yes")]
pub struct EndRotation {
    #[command(flatten)]
    key: KeyArg,
    /// Which secret stays: `new` completes the rotation, `old` undoes it.
    #[arg(long, value_name = "WHICH")]
    keep: Keep,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Keep {
    New,
    Old,
}

impl Rotate {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let expire_time = self.expiry.time()?;
        let mut repeat = self.expiry.repeat(expire_time);
        output.check_field::<RotateKeyResponse>()?;
        let mut overlap = self.overlap;
        let destination = self.output.destination(output)?;
        let client = connection.connect().await?;
        let several = if overlap.is_zero() {
            Several::Refused
        } else {
            Several::LivingWins
        };
        let before = self.key.key(&client, several).await?;
        // Afterwards the key that this command calls with may not work any more.
        let is_own = own_id(&client).await?.as_ref() == Some(&before.id);
        if let Some(chosen) = confirm(self.yes, &before, overlap, is_own).await? {
            overlap = chosen;
            repeat = format!(" and `--overlap {}`{repeat}", text::span(chosen));
        }
        let id = self.request_id.id();
        let request = RotateKeyRequest {
            key_id: before.id,
            overlap: flags::span_to_proto(Some(overlap), "--overlap")?,
            wait: self.wait.to_proto(),
            request_id: id.to_proto(),
            if_revision: self.if_revision.revision,
            expire_time,
            ..RotateKeyRequest::default()
        };
        let destination = destination.prepare()?;
        let answer = client
            .change(client.keys().rotate_key(request))
            .await
            .map_err(|failure| id.or_repeat_hint(failure, &repeat))?;
        let has_overlap = !overlap.is_zero();
        let end = end_of_old(answer.key.as_ref(), has_overlap);
        destination.deliver(answer, output, |answer| {
            let key = answer.key.clone().unwrap_or_default();
            let done = answer.done(&format!("Rotated {}", title(&key)));
            description(&done, &key, has_overlap)
        })?;
        if is_own {
            output::print_error(&old_key_held(client.key_source(), end.as_ref()));
        }
        Ok(())
    }
}

/// Asks before a secret stops that is in use. Returns an overlap that the user chose instead of none.
async fn confirm(
    yes: YesFlag,
    key: &Key,
    overlap: Duration,
    is_own: bool,
) -> Result<Option<Duration>, Failure> {
    let (stopping, is_only_newest) = stopping(key, overlap);
    let used = stopping.iter().filter_map(|secret| secret.last_used_time);
    // The key that this command calls with is in use, and the server's records of it are some seconds late.
    let used = match used.min_by_key(age) {
        None if is_own => stopping.first().map(|_| flags::now().into()),
        used => used,
    };
    let is_in_use = |at: &Timestamp| age(at) < IN_USE && key.state == KeyState::Active as i32;
    let Some(used) = used.filter(is_in_use) else {
        return Ok(None);
    };
    let (title, used) = (title(key), used_ago(Some(&used)));
    if is_only_newest {
        let question = format!(
            "{title} is being rotated. Its newest secret was {used} and would stop now. Rotate again?"
        );
        yes.confirm(&question).await?;
        return Ok(None);
    }
    yes.or_terminal().map_err(|failure| {
        failure.hint(
            "confirm it with --yes, or let the old secret work for a while with --overlap 24h",
        )
    })?;
    let what = match stopping.len() {
        1 => "Its present secret would stop now.",
        _ => "Both of its secrets would stop now.",
    };
    let lines = [
        format!("{title} was {used}. {what}"),
        "Rotate without an overlap?".to_owned(),
    ];
    let chosen = |answer: &str| flags::span(answer).ok().filter(|span| !span.is_zero());
    yes.confirm_or(&lines, "24h", chosen).await
}

/// The secrets that a rotation stops, and whether that is only the newest of two.
fn stopping(key: &Key, overlap: Duration) -> (Vec<&KeySecret>, bool) {
    let works = |secret: &&KeySecret| {
        let end = secret.expire_time.as_ref();
        end.is_none_or(|end| age(end).is_zero())
    };
    let mut working: Vec<_> = key.secrets.iter().filter(works).collect();
    if overlap.is_zero() {
        return (working, false);
    }
    let newest = working.pop().filter(|_| !working.is_empty());
    (newest.into_iter().collect(), true)
}

/// Says that the caller's own API key was replaced.
fn old_key_held(source: &str, end: Option<&Timestamp>) -> String {
    let source = text::plain(source);
    let end = match end {
        Some(end) => format!("works until {}", text::time(end)),
        None => "does not work any more".to_owned(),
    };
    format!("note: {source} holds the old API key now, which {end}: put the new one there")
}

impl RotateSelf {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        output.check_field::<RotateSelfResponse>()?;
        let destination = self.output.destination(output)?;
        let id = self.request_id.id();
        let request = RotateSelfRequest {
            overlap: flags::span_to_proto(Some(self.overlap), "--overlap")?,
            wait: self.wait.to_proto(),
            request_id: id.to_proto(),
        };
        let client = connection.connect().await?;
        let destination = destination.prepare()?;
        let answer = client
            .change(client.keys().rotate_self(request))
            .await
            .map_err(|failure| id.or_repeat_hint(failure, ""))?;
        let end = end_of_old(answer.key.as_ref(), true);
        destination.deliver(answer, output, |answer| {
            let key = answer.key.clone().unwrap_or_default();
            let done = answer.done(&format!("Rotated {}", title(&key)));
            description(&done, &key, true)
        })?;
        output::print_error(&old_key_held(client.key_source(), end.as_ref()));
        Ok(())
    }
}

impl EndRotation {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (keep, kept, removed) = match self.keep {
            Keep::New => (KeepSecret::New, "new", "old"),
            Keep::Old => (KeepSecret::Old, "old", "new"),
        };
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let before = self.key.key(&client, Several::Refused).await?;
        // Without a rotation the server refuses.
        if let [old, new] = before.secrets.as_slice() {
            let secret = if self.keep.is_new() { old } else { new };
            let question = format!(
                "Keep only the {kept} secret of {}? The {removed} one ({}) was {} and would stop now.",
                title(&before),
                short_hint(&secret.hint),
                used_ago(secret.last_used_time.as_ref())
            );
            self.yes.confirm(&question).await?;
        }
        let request = EndRotationRequest {
            key_id: before.id.clone(),
            keep: keep as i32,
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
            if_revision: self.if_revision.revision,
            ..EndRotationRequest::default()
        };
        let answer = client.change(client.keys().end_rotation(request)).await?;
        output.show_change(&answer, |answer| {
            answer.done(&format!(
                "Ended the rotation of {}: the {kept} secret stays",
                title(&before)
            ))
        })
    }
}

impl Keep {
    fn is_new(self) -> bool {
        matches!(self, Self::New)
    }
}

/// Until when the old secret works after a rotation; `None` if it has stopped.
fn end_of_old(key: Option<&Key>, has_overlap: bool) -> Option<Timestamp> {
    // The old secret stays listed after its end, so its expiry alone does not show that it works.
    key.filter(|key| has_overlap && key.secrets.len() > 1)?
        .secrets
        .first()?
        .expire_time
}

fn description(done: &str, key: &Key, has_overlap: bool) -> String {
    let old = match end_of_old(Some(key), has_overlap) {
        Some(end) => format!("The old secret works until {}.", text::time(&end)),
        None => "The old secret does not work any more.".to_owned(),
    };
    format!("{done}\n\n{}\n\n{old}", facts(key))
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::KeySecret;

    use super::*;

    #[test]
    fn a_rotation_says_until_when_the_old_secret_works() {
        let key = Key {
            secrets: vec![
                KeySecret {
                    expire_time: Some(Timestamp {
                        seconds: 1_800_000_000,
                        nanos: 0,
                    }),
                    ..KeySecret::default()
                },
                KeySecret::default(),
            ],
            ..Key::default()
        };
        assert!(
            description("done", &key, true)
                .ends_with("\n\nThe old secret works until 2027-01-15T08:00:00Z.")
        );
        assert!(
            description("done", &key, false)
                .ends_with("\n\nThe old secret does not work any more.")
        );
    }
}
