//! Entries go to the server, a batch at a time, and again where it could not answer.

use std::time::{Duration, Instant};

use prost::Message as _;
use zeroize::Zeroize as _;

use crate::pb::claviger::v1::import_entry::Secret;
use crate::pb::claviger::v1::{ImportEntry, ImportKeysRequest, ImportKeysResponse};

use super::entry::{Entry, TextDigest};
use super::outcome::{Judge, Outcome};
use super::progress::Progress;
use super::tally::Tally;
use crate::cli::answer::Change as _;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::request_id::RequestId;
use crate::cli::text::span;

/// The server takes a message of 1 MiB; this leaves room for what is round the entries.
const LARGEST_BATCH: usize = 900 * 1024;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// For how long one batch is tried. A server that restarts is back by then.
const PATIENCE: Duration = Duration::from_mins(2);

/// The lines of one call, those among them that are no entries included.
#[derive(Default)]
pub(super) struct Batch {
    lines: Vec<(u64, Result<TextDigest, String>)>,
    entries: Vec<ImportEntry>,
    bytes: usize,
}

impl Batch {
    /// Whether one more goes in.
    pub(super) fn has_room(&self, entry: &Result<Entry, String>, size: usize) -> bool {
        let bytes = entry.as_ref().map_or(0, |entry| length(&entry.message));
        // A line that is none counts too: a file of nothing else must not be held as a whole.
        self.lines.len() < size && (self.entries.is_empty() || self.bytes + bytes <= LARGEST_BATCH)
    }

    /// Takes one more.
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

/// With its tag and its own length, which take five bytes at the most.
fn length(entry: &ImportEntry) -> usize {
    entry.encoded_len() + 5
}

/// What is on its way through the connection is out of reach; this is what would stay.
fn wipe(entry: &mut ImportEntry) {
    if let Some(Secret::PlainKey(secret) | Secret::Sha256(secret)) = &mut entry.secret {
        secret.zeroize();
    }
}

/// Sends batches and keeps the books.
pub(super) struct Sender<'a> {
    pub(super) client: &'a Client,
    pub(super) progress: Progress,
    pub(super) judge: Judge,
    pub(super) tally: Tally,
    pub(super) wait: WaitFlag,
    pub(super) request_id: RequestId,
    pub(super) batches: u64,
}

impl Sender<'_> {
    /// Sends a batch, and empties it. `read` is how much of the file is read.
    pub(super) async fn send(&mut self, batch: &mut Batch, read: u64) -> Result<(), Failure> {
        let answered = if batch.entries.is_empty() {
            Ok(ImportKeysResponse::default())
        } else {
            self.batches += 1;
            let request = ImportKeysRequest {
                realm: self.judge.realm.clone(),
                entries: batch.entries.clone(),
                dry_run: self.judge.dry_run,
                wait: self.wait.on_wire(),
                request_id: self.request_id.part(self.batches).on_wire(),
            };
            self.answer(request).await
        };
        let counted = answered.and_then(|answer| self.count(batch, answer));
        batch.clear();
        counted?;
        self.progress
            .advance(self.tally.done(), read, self.judge.dry_run);
        Ok(())
    }

    /// The same request id makes sure that what is sent again is done once.
    async fn answer(&self, mut request: ImportKeysRequest) -> Result<ImportKeysResponse, Failure> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let outcome = loop {
            let call = request.clone();
            let mut keys = self.client.keys();
            let call = keys.import_keys(call);
            let answer = if self.judge.dry_run {
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
            if start.elapsed() + delay > PATIENCE {
                break Err(failure.hint(
                    "run the same command again when the server answers: it recognises what was imported",
                ));
            }
            self.progress.tell(&format!(
                "{} (trying again in {})",
                failure.message(),
                span(Duration::from_secs(delay.as_secs().max(1)))
            ));
            tokio::time::sleep(delay).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        request.entries.iter_mut().for_each(wipe);
        outcome
    }

    fn count(&mut self, batch: &mut Batch, answer: ImportKeysResponse) -> Result<(), Failure> {
        if answer.results.len() != batch.entries.len() {
            return Err(Failure::failed(
                "the server's answer is not about the entries that it was sent",
            ));
        }
        if !batch.entries.is_empty() && !self.judge.dry_run {
            self.tally.settled = Some(answer.settled());
        }
        self.tally.is_replayed |= answer.replayed;
        let mut results = batch.entries.iter().zip(answer.results);
        for (line, digest) in batch.lines.drain(..) {
            let outcome = match digest {
                Err(why) => Outcome::Failed(why),
                Ok(digest) => {
                    let Some((entry, result)) = results.next() else {
                        break;
                    };
                    self.judge.outcome(line, digest, entry, result)
                }
            };
            self.tally.add(line, outcome)?;
        }
        Ok(())
    }
}

/// How long to wait before it is sent again, if that can help. An answer that did not come is asked for again, too.
fn delay(failure: &Failure, pause: Duration) -> Option<Duration> {
    match failure.retry() {
        Some(asked) => Some(asked.max(pause)),
        None => failure.is_open().then_some(pause),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn entry(text: &str) -> Entry {
        Entry {
            message: ImportEntry {
                secret: Some(Secret::PlainKey(text.to_owned())),
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

        let large = "k".repeat(LARGEST_BATCH);
        let mut batch = Batch::default();
        assert!(
            batch.has_room(&Ok(entry(&large)), 2),
            "or it would never be sent"
        );
        batch.add(1, Ok(entry("a")));
        assert!(!batch.has_room(&Ok(entry(&large)), 100));
        assert!(batch.has_room(&Err("bad".to_owned()), 100));
    }

    #[test]
    fn the_server_says_when_to_come_again() {
        let busy = |after| Failure::new(Code::Unavailable, "busy").told(None, Vec::new(), after);
        let seconds = Duration::from_secs;
        assert_eq!(delay(&busy(None), seconds(2)), Some(seconds(2)));
        assert_eq!(delay(&busy(Some(seconds(5))), seconds(2)), Some(seconds(5)));
        assert_eq!(delay(&busy(Some(seconds(1))), seconds(2)), Some(seconds(2)));
    }

    #[test]
    fn what_is_not_answered_is_asked_again_and_what_is_refused_is_not() {
        let second = Duration::from_secs(1);
        let lost = Failure::new(Code::DeadlineExceeded, "no answer").open(true);
        assert_eq!(delay(&lost, second), Some(second));
        let too_large = Failure::new(Code::ResourceExhausted, "too large");
        assert_eq!(delay(&too_large, second), None);
        assert_eq!(delay(&Failure::failed("no"), second), None);
    }
}
