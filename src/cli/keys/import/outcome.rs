//! What became of an entry, by the server's answer and by what stood before it in the file.

use std::collections::HashMap;

use tonic::Code;
use tonic_types::{RpcStatusExt as _, Status};

use crate::pb::claviger::v1::import_entry::Secret;
use crate::pb::claviger::v1::import_result::Result as Answer;
use crate::pb::claviger::v1::{ImportEntry, ImportResult};

use super::entry::TextDigest;

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is a key now; in a dry run, it would be.
    Imported,
    /// It was one before this file.
    There,
    /// It is none, for this reason.
    Failed(String),
}

/// The texts of the file that are keys by now, with the lines on which they stood.
///
/// An entry takes 17 bytes of a table that is between 44 and 88 % full: 20 to 40 MB for a million texts. Two different texts of
/// a million have the same digest in one of 37 million files; then the second one is told as a failure only if it is
/// no new key, or in a dry run.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<TextDigest, u32>);

/// Judges the entries of one realm.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) realm: String,
    pub(super) dry_run: bool,
    pub(super) seen: Seen,
}

impl Judge {
    /// What became of the entry on this line.
    pub(super) fn outcome(
        &mut self,
        line: u64,
        digest: TextDigest,
        entry: &ImportEntry,
        result: ImportResult,
    ) -> Outcome {
        let outcome = match result.result {
            Some(Answer::KeyId(_)) => Outcome::Imported,
            Some(Answer::Error(status)) => self.refused(entry, &status),
            None => Outcome::Failed("the server said nothing of it".to_owned()),
        };
        match (&outcome, self.seen.0.get(&digest)) {
            (Outcome::Failed(_), _) => outcome,
            // The server does not know in a dry run what it would know by then.
            (Outcome::There, Some(earlier)) => same_as(*earlier),
            (Outcome::Imported, Some(earlier)) if self.dry_run => same_as(*earlier),
            _ => {
                let line = u32::try_from(line).unwrap_or(u32::MAX);
                self.seen.0.insert(digest, line);
                outcome
            }
        }
    }

    /// A text that is a key already is what a list that is sent again has at its beginning.
    fn refused(&self, entry: &ImportEntry, status: &Status) -> Outcome {
        let info = status.get_details_error_info().filter(|info| {
            status.code == Code::AlreadyExists as i32 && info.reason == "ALREADY_IMPORTED"
        });
        let Some(info) = info else {
            return Outcome::Failed(reason(entry, status));
        };
        // Only who may administer the key is told its id. Whose it is, is not said otherwise.
        if info.metadata.get("key_id").is_none_or(String::is_empty) {
            return Outcome::Failed("the text is a key already, of somebody else".to_owned());
        }
        match info.metadata.get("realm") {
            Some(realm) if *realm != self.realm => {
                Outcome::Failed(format!("the text is a key of the realm {realm} already"))
            }
            _ => Outcome::There,
        }
    }
}

fn same_as(line: u32) -> Outcome {
    Outcome::Failed(format!("the same key stands on line {line}"))
}

/// The server's reason. It does not repeat a text by its contract; here, that is made sure of.
fn reason(entry: &ImportEntry, status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|request| {
        let violations = request.field_violations.into_iter();
        let told: Vec<_> = violations
            .map(|violation| format!("{}: {}", own_field(&violation.field), violation.description))
            .collect();
        told.join("; ")
    });
    let reason = violations
        .filter(|told| !told.is_empty())
        .unwrap_or_else(|| status.message.clone());
    let (Some(Secret::PlainKey(secret) | Secret::Sha256(secret)), false) =
        (&entry.secret, reason.is_empty())
    else {
        return format!("refused without a reason (code {})", status.code);
    };
    // A shorter one is no key, but may be a word of the reason.
    if secret.len() > 12 && reason.contains(secret.as_str()) {
        return "refused, with words that are not shown because they hold the key".to_owned();
    }
    reason
}

/// `entries[3].scopes[0]` is the `scopes[0]` of an entry whose line is told.
fn own_field(field: &str) -> &str {
    field
        .strip_prefix("entries[")
        .and_then(|rest| rest.split_once("]."))
        .map_or(field, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

    use super::*;

    fn judge(dry_run: bool) -> Judge {
        Judge {
            realm: "demo".to_owned(),
            dry_run,
            seen: Seen::default(),
        }
    }

    fn entry() -> ImportEntry {
        ImportEntry {
            secret: Some(Secret::PlainKey("a-text-of-another-system".to_owned())),
            ..ImportEntry::default()
        }
    }

    fn imported() -> ImportResult {
        ImportResult {
            result: Some(Answer::KeyId("id".to_owned())),
        }
    }

    /// The message of a call's error, as an entry's own carries it.
    fn error(code: Code, message: &str, details: ErrorDetails) -> ImportResult {
        let status = tonic::Status::with_error_details(code, message, details);
        let details = prost::Message::decode(status.details()).unwrap();
        ImportResult {
            result: Some(Answer::Error(details)),
        }
    }

    fn already(metadata: &[(&str, &str)]) -> ImportResult {
        let metadata = metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let details = ErrorDetails::with_error_info(
            "ALREADY_IMPORTED",
            "claviger",
            metadata.collect::<HashMap<_, _>>(),
        );
        error(Code::AlreadyExists, "it is a key already", details)
    }

    fn failed(why: &str) -> Outcome {
        Outcome::Failed(why.to_owned())
    }

    #[test]
    fn what_is_sent_again_was_there_already() {
        let mut judge = judge(false);
        let result = already(&[("key_id", "id")]);
        assert_eq!(judge.outcome(2, 7, &entry(), result), Outcome::There);
        let result = already(&[("key_id", "id"), ("realm", "demo")]);
        assert_eq!(judge.outcome(3, 8, &entry(), result), Outcome::There);
    }

    #[test]
    fn a_key_of_somebody_else_is_a_failure() {
        let mut judge = judge(false);
        let outcome = judge.outcome(2, 7, &entry(), already(&[]));
        assert_eq!(
            outcome,
            failed("the text is a key already, of somebody else")
        );
        let elsewhere = already(&[("key_id", "id"), ("realm", "other")]);
        let outcome = judge.outcome(2, 7, &entry(), elsewhere);
        assert_eq!(
            outcome,
            failed("the text is a key of the realm other already")
        );
    }

    #[test]
    fn a_text_that_stands_twice_in_the_file_is_a_failure_the_second_time() {
        let mut judge = judge(false);
        assert_eq!(judge.outcome(2, 7, &entry(), imported()), Outcome::Imported);
        let again = judge.outcome(9, 7, &entry(), already(&[("key_id", "id")]));
        assert_eq!(again, failed("the same key stands on line 2"));
        let other = judge.outcome(10, 8, &entry(), already(&[("key_id", "id")]));
        assert_eq!(other, Outcome::There);
    }

    #[test]
    fn a_dry_run_sees_it_as_well() {
        let mut judge = judge(true);
        assert_eq!(judge.outcome(2, 7, &entry(), imported()), Outcome::Imported);
        let again = judge.outcome(9, 7, &entry(), imported());
        assert_eq!(again, failed("the same key stands on line 2"));
    }

    #[test]
    fn a_text_whose_first_line_failed_may_come_again() {
        let mut judge = judge(false);
        let refused = error(Code::NotFound, "no such partner", ErrorDetails::new());
        let outcome = judge.outcome(2, 7, &entry(), refused);
        assert_eq!(outcome, failed("no such partner"));
        assert_eq!(judge.outcome(9, 7, &entry(), imported()), Outcome::Imported);
    }

    #[test]
    fn a_failure_names_the_entrys_own_fields() {
        let details = ErrorDetails::with_bad_request([
            FieldViolation::new("entries[3].scopes[0]", "is not known"),
            FieldViolation::new("name", "is too long"),
        ]);
        let refused = error(Code::InvalidArgument, "2 fields are wrong", details);
        assert_eq!(
            judge(false).outcome(2, 7, &entry(), refused),
            failed("scopes[0]: is not known; name: is too long")
        );
    }

    #[test]
    fn a_reason_never_shows_the_key() {
        let refused = error(
            Code::InvalidArgument,
            "`a-text-of-another-system` is bad",
            ErrorDetails::new(),
        );
        let Outcome::Failed(why) = judge(false).outcome(2, 7, &entry(), refused) else {
            panic!("it was refused");
        };
        assert!(!why.contains("another-system"), "{why}");
    }
}
