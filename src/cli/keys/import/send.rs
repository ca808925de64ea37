//! Sending entries to the server in batches, with retries.

use std::time::{Duration, Instant};

use prost::Message as _;
use zeroize::Zeroize as _;

use super::entry::{Entry, KeyDigest};
use super::interrupt::Interrupt;
use super::outcome::{Classifier, Outcome};
use super::progress::{ProgressReporter, Sent};
use super::summary::ImportSummary;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::request_id::RequestId;
use crate::cli::response::ChangeResponse as _;
use crate::cli::text::span;
use crate::pb::claviger::v1::import_entry::Secret;
use crate::pb::claviger::v1::{ImportEntry, ImportKeysRequest, ImportKeysResponse};

/// The largest batch, in bytes. The server accepts messages of 1 MiB; the rest is for the other fields.
const MAX_BATCH_SIZE: usize = 900 * 1024;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long one batch is retried. A server that restarts is back by then.
const RETRY_LIMIT: Duration = Duration::from_mins(2);

/// The lines of one request, including the invalid ones.
#[derive(Default)]
pub(super) struct Batch {
    lines: Vec<(u64, Result<KeyDigest, String>)>,
    entries: Vec<ImportEntry>,
    bytes: usize,
}

impl Batch {
    /// Whether the entry fits into the batch.
    pub(super) fn has_room(&self, entry: &Result<Entry, String>, size: usize) -> bool {
        let bytes = entry.as_ref().map_or(0, |entry| length(&entry.message));
        // Invalid lines count too: a file of invalid lines must not be kept in memory as a whole.
        self.lines.len() < size && (self.entries.is_empty() || self.bytes + bytes <= MAX_BATCH_SIZE)
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: u64, entry: Result<Entry, String>) {
        let digest = entry.map(|entry| {
            self.bytes += length(&entry.message);
            self.entries.push(entry.message);
            entry.digest
        });
        self.lines.push((line, digest));
    }

    fn clear(&mut self) {
        for entry in &mut self.entries {
            wipe(entry);
        }
        *self = Self::default();
    }
}

/// The encoded size of an entry, with its tag and length, which take at most five bytes.
fn length(entry: &ImportEntry) -> usize {
    entry.encoded_len() + 5
}

/// Wipes the API key or hash. Copies in the buffers of the connection are out of reach.
fn wipe(entry: &mut ImportEntry) {
    if let Some(Secret::PlainKey(secret) | Secret::Sha256(secret)) = &mut entry.secret {
        secret.zeroize();
    }
}

/// Sends batches and counts the outcomes.
pub(super) struct Sender<'a> {
    pub(super) client: &'a Client,
    pub(super) progress: ProgressReporter,
    pub(super) classifier: Classifier,
    pub(super) summary: ImportSummary,
    pub(super) wait: WaitFlag,
    pub(super) request_id: RequestId,
    pub(super) batches: u64,
    pub(super) interrupt: Interrupt,
}

impl Sender<'_> {
    /// Sends a batch and empties it. `read` is the number of bytes of the file that were read.
    pub(super) async fn send(&mut self, batch: &mut Batch, read: u64) -> Result<(), Failure> {
        let answered = if batch.entries.is_empty() {
            Ok(ImportKeysResponse::default())
        } else {
            self.batches += 1;
            let request = ImportKeysRequest {
                realm: self.classifier.realm.clone(),
                entries: batch.entries.clone(),
                dry_run: self.classifier.dry_run,
                wait: self.wait.to_proto(),
                request_id: self.request_id.part(self.batches).to_proto(),
            };
            self.answer(request).await
        };
        let imported = self.summary.imported();
        let counted = answered.and_then(|answer| self.count(batch, answer));
        batch.clear();
        counted?;
        let sent = Sent {
            lines: self.summary.done(),
            new: self.summary.imported() - imported,
            bytes: read,
        };
        self.progress.advance(sent, self.classifier.dry_run);
        Ok(())
    }

    /// Sends a request, with retries. The request id makes sure that a repeated request is executed once.
    async fn answer(&self, mut request: ImportKeysRequest) -> Result<ImportKeysResponse, Failure> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let outcome = loop {
            let call = request.clone();
            let mut keys = self.client.keys();
            let call = keys.import_keys(call);
            let answer = if self.classifier.dry_run {
                self.client.ask(call).await
            } else {
                self.client.change(call).await
            };
            let failure = match answer {
                Ok(answer) => break Ok(answer),
                Err(failure) => failure,
            };
            let Some(delay) = delay(&failure, pause) else {
                break Err(failure);
            };
            if start.elapsed() + delay > RETRY_LIMIT {
                break Err(failure.hint(
                    "run the same command again when the server answers: imported entries are recognised",
                ));
            }
            self.progress.print(&format!(
                "{} (retrying in {})",
                failure.message(),
                span(Duration::from_secs(delay.as_secs().max(1)))
            ));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.interrupt.came() => break Err(failure),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        request.entries.iter_mut().for_each(wipe);
        outcome
    }

    fn count(&mut self, batch: &mut Batch, answer: ImportKeysResponse) -> Result<(), Failure> {
        if answer.results.len() != batch.entries.len() {
            return Err(Failure::failed(
                "the server's answer does not match the entries of the request",
            ));
        }
        if !batch.entries.is_empty() && !self.classifier.dry_run {
            self.summary.effect = Some(answer.effect());
        }
        self.summary.is_replayed |= answer.replayed;
        let mut results = batch.entries.iter().zip(answer.results);
        for (line, digest) in batch.lines.drain(..) {
            let outcome = match digest {
                Err(why) => Outcome::Failed(why),
                Ok(digest) => {
                    let Some((entry, result)) = results.next() else {
                        break;
                    };
                    self.classifier.outcome(line, digest, entry, result)
                }
            };
            self.summary.add(line, outcome)?;
        }
        Ok(())
    }
}

/// Returns how long to wait before a retry, or `None` if a retry cannot help. A request without an answer is retried.
fn delay(failure: &Failure, pause: Duration) -> Option<Duration> {
    match failure.retry() {
        Some(asked) => Some(asked.max(pause)),
        None => failure.is_outcome_unknown().then_some(pause),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn entry(plain_key: &str) -> Entry {
        Entry {
            message: ImportEntry {
                secret: Some(Secret::PlainKey(plain_key.to_owned())),
                ..ImportEntry::default()
            },
            digest: 7,
        }
    }

    #[test]
    fn a_batch_is_full_by_its_lines_or_by_its_bytes() {
        let mut batch = Batch::default();
        assert!(batch.has_room(&Ok(entry("a")), 2));
        batch.add(1, Ok(entry("a")));
        batch.add(2, Err("bad".to_owned()));
        assert!(!batch.has_room(&Ok(entry("b")), 2));

        let large = "k".repeat(MAX_BATCH_SIZE);
        let mut batch = Batch::default();
        assert!(
            batch.has_room(&Ok(entry(&large)), 2),
            "otherwise the entry would never be sent"
        );
        batch.add(1, Ok(entry("a")));
        assert!(!batch.has_room(&Ok(entry(&large)), 100));
        assert!(batch.has_room(&Err("bad".to_owned()), 100));
    }

    #[test]
    fn the_server_says_when_to_retry() {
        let busy =
            |after| Failure::new(Code::Unavailable, "busy").with_details(None, Vec::new(), after);
        let seconds = Duration::from_secs;
        assert_eq!(delay(&busy(None), seconds(2)), Some(seconds(2)));
        assert_eq!(delay(&busy(Some(seconds(5))), seconds(2)), Some(seconds(5)));
        assert_eq!(delay(&busy(Some(seconds(1))), seconds(2)), Some(seconds(2)));
    }

    #[test]
    fn a_request_without_an_answer_is_retried_and_a_refused_one_is_not() {
        let second = Duration::from_secs(1);
        let lost = Failure::new(Code::DeadlineExceeded, "no answer").outcome_unknown(true);
        assert_eq!(delay(&lost, second), Some(second));
        let too_large = Failure::new(Code::ResourceExhausted, "too large");
        assert_eq!(delay(&too_large, second), None);
        assert_eq!(delay(&Failure::failed("no"), second), None);
    }
}
