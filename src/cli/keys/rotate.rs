//! A key gets a new text, and keeps the old one for a while.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::pb::claviger::v1::{
    EndRotationRequest, KeepSecret, RotateKeyRequest, RotateKeyResponse,
};

use super::key::{KeyId, facts};
use super::once::TextFlag;
use crate::cli::answer::Change as _;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id::{self, RequestIdFlag};
use crate::cli::text;

/// Give a key a new text, and show it this once.
///
/// It stays the same key: its id, owner, scopes and usage go on. With --overlap the old text works on meanwhile, so that its
/// holder can change over; `keys get` tells whether it is still used, and `keys end-rotation` ends the overlap early. A key
/// has two texts at the most: within an overlap this replaces the newest one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys rotate 01a4f0c1-2345-7abc-8def-0123456789ab --overlap 24h --output-file new.key

  claviger keys rotate 01a4f0c1-2345-7abc-8def-0123456789ab      # it has leaked: the old text stops now")]
pub struct Rotate {
    #[command(flatten)]
    key: KeyId,
    /// For how long the old text works on, such as 24h; never beyond the key's own end. By default it stops at once.
    #[arg(long, value_name = "SPAN", value_parser = flags::span, default_value = "0s")]
    overlap: Duration,
    #[command(flatten)]
    text: TextFlag,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// End the overlap of a rotation early: one text stays, the other one is forgotten.
#[derive(Debug, Args)]
pub struct EndRotation {
    #[command(flatten)]
    key: KeyId,
    /// Which text stays: `new` completes the rotation, `old` takes it back.
    #[arg(long, value_name = "WHICH")]
    keep: Keep,
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
        let place = self.text.place()?;
        let id = self.request_id.id();
        let request = RotateKeyRequest {
            key_id: self.key.id,
            overlap: flags::span_on_wire(Some(self.overlap), "--overlap")?,
            wait: self.wait.on_wire(),
            request_id: id.on_wire(),
            ..RotateKeyRequest::default()
        };
        let client = connection.connect().await?;
        let place = place.prepare()?;
        let answer = client
            .change(client.keys().rotate_key(request))
            .await
            .map_err(|failure| id.or_repeat(failure, ""))?;
        let has_overlap = !self.overlap.is_zero();
        place.hand_over(answer, output, |answer| told(answer, has_overlap))
    }
}

impl EndRotation {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (keep, done) = match self.keep {
            Keep::New => (KeepSecret::New, "completed the rotation of"),
            Keep::Old => (KeepSecret::Old, "took back the rotation of"),
        };
        let request = EndRotationRequest {
            key_id: self.key.id.clone(),
            keep: keep as i32,
            wait: self.wait.on_wire(),
            request_id: request_id::fresh(),
            ..EndRotationRequest::default()
        };
        let client = connection.connect().await?;
        let answer = client.change(client.keys().end_rotation(request)).await?;
        self.key.changed(output, done, &answer)
    }
}

fn told(answer: &RotateKeyResponse, has_overlap: bool) -> String {
    let key = answer.key.as_ref();
    // The older one stays listed after its end, so its time alone does not tell that it works.
    let end = key
        .filter(|key| has_overlap && key.secrets.len() > 1)
        .and_then(|key| key.secrets.first()?.expire_time.as_ref());
    let old = match end {
        Some(end) => format!("The old text works until {}.", text::time(end)),
        None => "The old text does not work any more.".to_owned(),
    };
    let facts = key.map(facts).unwrap_or_default();
    format!("rotated a key: {}\n\n{facts}\n\n{old}", answer.settled())
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::{Key, KeySecret};

    use super::*;

    #[test]
    fn a_rotation_says_until_when_the_old_text_works() {
        let answer = RotateKeyResponse {
            key: Some(Key {
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
            }),
            confirmed: true,
            ..RotateKeyResponse::default()
        };
        assert!(
            told(&answer, true).ends_with("\n\nThe old text works until 2027-01-15T08:00:00Z.")
        );
        assert!(told(&answer, false).ends_with("\n\nThe old text does not work any more."));
    }
}
