//! The `keys rotate`, `keys rotate-self` and `keys end-rotation` commands.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::key::{IfRevisionFlag, KeyId, facts};
use super::revealed_key::OutputFlags;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::response::ChangeResponse as _;
use crate::cli::text;
use crate::pb::claviger::v1::{
    EndRotationRequest, KeepSecret, Key, RotateKeyRequest, RotateKeyResponse, RotateSelfRequest,
    RotateSelfResponse,
};

/// Give a key a new secret, and show the new API key this once.
///
/// The key keeps its id, owner, scopes and usage; only its secret changes. With --overlap the old secret works for a while
/// longer, so that its holder can change to the new one; `keys get` shows whether it is still used, and `keys end-rotation`
/// ends the overlap early. A key has at most two secrets: during an overlap, this command replaces the newest one.
///
/// Without --expires-in or --expires-at, the expiry of the key stays, but is at most the realm's max lifetime from now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys rotate ci --overlap 24h --output-file new.key
  claviger keys rotate ci --yes   # it leaked: the old secret stops now")]
pub struct Rotate {
    #[command(flatten)]
    key: KeyId,
    /// How long the old secret works, such as 24h, but not beyond the key's expiry. By default it stops at once.
    #[arg(long, value_name = "SPAN", value_parser = flags::span, default_value = "0s")]
    overlap: Duration,
    #[command(flatten)]
    expiry: ExpiryFlags,
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
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys end-rotation ci --keep new --yes")]
pub struct EndRotation {
    #[command(flatten)]
    key: KeyId,
    /// Which secret stays: `new` completes the rotation, `old` undoes it.
    #[arg(long, value_name = "WHICH")]
    keep: Keep,
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
        let repeat = self.expiry.repeat(expire_time);
        output.check_field::<RotateKeyResponse>()?;
        let destination = self.output.destination(output)?;
        let id = self.request_id.id();
        let request = RotateKeyRequest {
            key_id: self.key.id,
            overlap: flags::span_to_proto(Some(self.overlap), "--overlap")?,
            wait: self.wait.to_proto(),
            request_id: id.to_proto(),
            if_revision: self.if_revision.revision,
            expire_time,
            ..RotateKeyRequest::default()
        };
        let client = connection.connect().await?;
        let destination = destination.prepare()?;
        let answer = client
            .change(client.keys().rotate_key(request))
            .await
            .map_err(|failure| id.or_repeat_hint(failure, &repeat))?;
        let has_overlap = !self.overlap.is_zero();
        destination.deliver(answer, output, |answer| {
            description(&answer.effect(), answer.key.as_ref(), has_overlap)
        })
    }
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
        destination.deliver(answer, output, |answer| {
            description(&answer.effect(), answer.key.as_ref(), true)
        })
    }
}

impl EndRotation {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (keep, kept) = match self.keep {
            Keep::New => (KeepSecret::New, "new"),
            Keep::Old => (KeepSecret::Old, "old"),
        };
        let request = EndRotationRequest {
            key_id: self.key.id.clone(),
            keep: keep as i32,
            wait: self.wait.to_proto(),
            request_id: request_id::fresh(),
            if_revision: self.if_revision.revision,
            ..EndRotationRequest::default()
        };
        let client = connection.connect().await?;
        let answer = client.change(client.keys().end_rotation(request)).await?;
        output.show_change(&answer, |answer| {
            format!(
                "ended the rotation of key {}: the {kept} secret stays, {}",
                text::plain(&self.key.id),
                answer.effect()
            )
        })
    }
}

fn description(effect: &str, key: Option<&Key>, has_overlap: bool) -> String {
    // The old secret stays listed after its end, so its expiry alone does not show that it works.
    let end = key
        .filter(|key| has_overlap && key.secrets.len() > 1)
        .and_then(|key| key.secrets.first()?.expire_time.as_ref());
    let old = match end {
        Some(end) => format!("The old secret works until {}.", text::time(end)),
        None => "The old secret does not work any more.".to_owned(),
    };
    let facts = key.map(facts).unwrap_or_default();
    format!("rotated a key: {effect}\n\n{facts}\n\n{old}")
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
                    expire_time: Some(prost_types::Timestamp {
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
            description("done", Some(&key), true)
                .ends_with("\n\nThe old secret works until 2027-01-15T08:00:00Z.")
        );
        assert!(
            description("done", Some(&key), false)
                .ends_with("\n\nThe old secret does not work any more.")
        );
    }
}
