//! The outcome of an entry, from the server's result and the earlier lines of the file.

use std::collections::HashMap;

use tonic::Code;
use tonic_types::{RpcStatusExt as _, Status};

use super::entry::{KeyDigest, digest_of};
use crate::pb::claviger::v1::import_entry::Secret;
use crate::pb::claviger::v1::import_result::Result as EntryResult;
use crate::pb::claviger::v1::{ImportEntry, ImportResult, KeyState};

/// The outcome of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The key was imported, or in a dry run would be.
    Imported,
    /// The key was imported before this file.
    AlreadyImported,
    /// The entry failed, for this reason.
    Failed(String),
}

/// The API keys of the file that are imported, with their lines.
///
/// An entry takes 17 bytes of a table that is between 44 and 88 % full: 20 to 40 MB for a million API keys. In one of
/// 37 million files with a million API keys, two different ones have the same digest; the second one is then reported as a
/// failure, but only if it was imported before, or in a dry run.
#[derive(Debug, Default)]
pub(super) struct SeenKeys(HashMap<KeyDigest, u32>);

/// Determines the outcomes of the entries of one realm.
#[derive(Debug)]
pub(super) struct Classifier {
    pub(super) realm: String,
    pub(super) dry_run: bool,
    pub(super) seen: SeenKeys,
    /// The external ids of the entries that a dry run would import.
    pub(super) seen_external_ids: SeenKeys,
}

impl Classifier {
    /// Returns the outcome of the entry on this line.
    pub(super) fn outcome(
        &mut self,
        line: u64,
        digest: KeyDigest,
        entry: &ImportEntry,
        result: ImportResult,
    ) -> Outcome {
        let same_external_id = self.line_with_external_id(entry);
        let outcome = match result.result {
            Some(EntryResult::KeyId(_)) => match same_external_id {
                Some(earlier) => {
                    Outcome::Failed(format!("external_id: line {earlier} has the same one"))
                }
                None => Outcome::Imported,
            },
            Some(EntryResult::Error(status)) => self.refused(digest, entry, &status),
            None => Outcome::Failed("the server returned no result".to_owned()),
        };
        match (&outcome, self.seen.0.get(&digest)) {
            (Outcome::Failed(_), _) => outcome,
            (Outcome::AlreadyImported, Some(earlier)) => duplicate_of(*earlier),
            // In a dry run, the server does not know the entries of earlier batches.
            (Outcome::Imported, Some(earlier)) if self.dry_run => duplicate_of(*earlier),
            _ => {
                let line = u32::try_from(line).unwrap_or(u32::MAX);
                self.seen.0.insert(digest, line);
                if self.dry_run && !entry.external_id.is_empty() {
                    let digest = digest_of(&entry.external_id);
                    self.seen_external_ids.0.insert(digest, line);
                }
                outcome
            }
        }
    }

    /// Returns the earlier line that has the external id of this entry. Only in a dry run, in which the server does not know the
    /// entries of earlier batches.
    fn line_with_external_id(&self, entry: &ImportEntry) -> Option<u32> {
        let digest = digest_of(&entry.external_id);
        self.seen_external_ids.0.get(&digest).copied()
    }

    /// Returns the outcome of an error. An API key that is imported already is not a failure: a repeated import starts with
    /// such entries.
    fn refused(&self, digest: KeyDigest, entry: &ImportEntry, status: &Status) -> Outcome {
        let info = status.get_details_error_info().filter(|info| {
            status.code == Code::AlreadyExists as i32 && info.reason == "ALREADY_IMPORTED"
        });
        let Some(info) = info else {
            return Outcome::Failed(reason(entry, status));
        };
        // There is no id if an earlier entry of the request has the same API key, or if the caller may not administer the key.
        if info.metadata.get("key_id").is_none_or(String::is_empty) {
            return self.seen.0.get(&digest).map_or_else(
                || Outcome::Failed(reason(entry, status)),
                |earlier| duplicate_of(*earlier),
            );
        }
        let state = info.metadata.get("state");
        let is_revoked = state.is_some_and(|state| state == KeyState::Revoked.as_str_name());
        match info.metadata.get("realm") {
            Some(realm) if *realm != self.realm => Outcome::Failed(format!(
                "the API key is imported already, in the realm {realm}"
            )),
            // The caller expects that an imported key works.
            _ if is_revoked => Outcome::Failed(
                "the API key is imported already, and its key is revoked: give its holder a new key"
                    .to_owned(),
            ),
            _ => Outcome::AlreadyImported,
        }
    }
}

fn duplicate_of(line: u32) -> Outcome {
    Outcome::Failed(format!("the same API key is on line {line}"))
}

/// Returns the server's reason. By contract it never contains an API key; this function checks that.
fn reason(entry: &ImportEntry, status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|request| {
        let violations = request.field_violations.into_iter();
        let descriptions: Vec<_> = violations
            .map(|violation| format!("{}: {}", own_field(&violation.field), violation.description))
            .collect();
        descriptions.join("; ")
    });
    let reason = violations
        .filter(|reason| !reason.is_empty())
        .unwrap_or_else(|| status.message.clone());
    let (Some(Secret::PlainKey(secret) | Secret::Sha256(secret)), false) =
        (&entry.secret, reason.is_empty())
    else {
        return format!("refused without a reason (code {})", status.code);
    };
    // A shorter value is not an API key, but may be part of the reason.
    if secret.len() > 12 && reason.contains(secret.as_str()) {
        return "refused, for a reason that is not shown because it contains the key".to_owned();
    }
    reason
}

/// Removes the entry from a field: `entries[3].scopes[0]` becomes `scopes[0]`, because the line is shown.
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

    fn classifier(dry_run: bool) -> Classifier {
        Classifier {
            realm: "demo".to_owned(),
            dry_run,
            seen: SeenKeys::default(),
            seen_external_ids: SeenKeys::default(),
        }
    }

    /// Seen red without the external ids of a dry run, and with those of an import.
    #[test]
    fn a_dry_run_finds_an_external_id_of_an_earlier_batch() {
        let entry = |external_id: &str| ImportEntry {
            external_id: external_id.to_owned(),
            ..entry()
        };
        for dry_run in [true, false] {
            let mut classifier = classifier(dry_run);
            let mut outcome =
                |line, id: &str| classifier.outcome(line, line, &entry(id), imported());
            assert_eq!(outcome(2, "one"), Outcome::Imported);
            assert_eq!(outcome(3, "two"), Outcome::Imported);
            assert_eq!(outcome(4, ""), Outcome::Imported);
            assert_eq!(outcome(5, ""), Outcome::Imported);
            let expected = if dry_run {
                failed("external_id: line 2 has the same one")
            } else {
                Outcome::Imported
            };
            assert_eq!(outcome(6, "one"), expected);
        }
    }

    fn entry() -> ImportEntry {
        ImportEntry {
            secret: Some(Secret::PlainKey("a-key-of-another-system".to_owned())),
            ..ImportEntry::default()
        }
    }

    fn imported() -> ImportResult {
        ImportResult {
            result: Some(EntryResult::KeyId("id".to_owned())),
        }
    }

    /// An error of a call, as the result of an entry carries it.
    fn error(code: Code, message: &str, details: ErrorDetails) -> ImportResult {
        let status = tonic::Status::with_error_details(code, message, details);
        let details = prost::Message::decode(status.details()).unwrap();
        ImportResult {
            result: Some(EntryResult::Error(details)),
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

    #[test]
    fn a_revoked_key_that_is_there_already_is_a_failure() {
        let mut classifier = classifier(false);
        let revoked = [
            ("key_id", "id"),
            ("realm", "demo"),
            ("state", "KEY_STATE_REVOKED"),
        ];
        let outcome = classifier.outcome(2, 7, &entry(), already(&revoked));
        assert!(matches!(outcome, Outcome::Failed(why) if why.contains("revoked")));
        let elsewhere = [
            ("key_id", "id"),
            ("realm", "other"),
            ("state", "KEY_STATE_REVOKED"),
        ];
        let outcome = classifier.outcome(3, 8, &entry(), already(&elsewhere));
        assert!(matches!(outcome, Outcome::Failed(why) if why.contains("in the realm other")));
    }

    fn failed(why: &str) -> Outcome {
        Outcome::Failed(why.to_owned())
    }

    #[test]
    fn what_is_sent_again_was_there_already() {
        let mut classifier = classifier(false);
        let result = already(&[("key_id", "id")]);
        assert_eq!(
            classifier.outcome(2, 7, &entry(), result),
            Outcome::AlreadyImported
        );
        let result = already(&[("key_id", "id"), ("realm", "demo")]);
        assert_eq!(
            classifier.outcome(3, 8, &entry(), result),
            Outcome::AlreadyImported
        );
    }

    #[test]
    fn a_key_of_somebody_else_is_a_failure() {
        let mut classifier = classifier(false);
        let outcome = classifier.outcome(2, 7, &entry(), already(&[]));
        assert_eq!(
            outcome,
            failed("it is a key already"),
            "the server's message"
        );
        let elsewhere = already(&[("key_id", "id"), ("realm", "other")]);
        let outcome = classifier.outcome(2, 7, &entry(), elsewhere);
        assert_eq!(
            outcome,
            failed("the API key is imported already, in the realm other")
        );
    }

    #[test]
    fn an_api_key_that_is_in_the_file_twice_is_a_failure_the_second_time() {
        let mut classifier = classifier(false);
        assert_eq!(
            classifier.outcome(2, 7, &entry(), imported()),
            Outcome::Imported
        );
        let again = classifier.outcome(9, 7, &entry(), already(&[("key_id", "id")]));
        assert_eq!(again, failed("the same API key is on line 2"));
        let other = classifier.outcome(10, 8, &entry(), already(&[("key_id", "id")]));
        assert_eq!(other, Outcome::AlreadyImported);
    }

    #[test]
    fn a_repeated_api_key_in_one_batch_names_the_earlier_line() {
        for dry_run in [false, true] {
            let mut classifier = classifier(dry_run);
            let first = classifier.outcome(2, 7, &entry(), imported());
            assert_eq!(first, Outcome::Imported);
            let again = classifier.outcome(3, 7, &entry(), already(&[]));
            assert_eq!(again, failed("the same API key is on line 2"));
            let other = classifier.outcome(4, 8, &entry(), already(&[]));
            assert_eq!(other, failed("it is a key already"), "the server's message");
        }
    }

    #[test]
    fn a_dry_run_sees_it_as_well() {
        let mut classifier = classifier(true);
        assert_eq!(
            classifier.outcome(2, 7, &entry(), imported()),
            Outcome::Imported
        );
        let again = classifier.outcome(9, 7, &entry(), imported());
        assert_eq!(again, failed("the same API key is on line 2"));
    }

    #[test]
    fn an_api_key_whose_first_line_failed_may_come_again() {
        let mut classifier = classifier(false);
        let refused = error(Code::NotFound, "no such partner", ErrorDetails::new());
        let outcome = classifier.outcome(2, 7, &entry(), refused);
        assert_eq!(outcome, failed("no such partner"));
        assert_eq!(
            classifier.outcome(9, 7, &entry(), imported()),
            Outcome::Imported
        );
    }

    #[test]
    fn a_failure_names_the_entrys_own_fields() {
        let details = ErrorDetails::with_bad_request([
            FieldViolation::new("entries[3].scopes[0]", "is not known"),
            FieldViolation::new("name", "is too long"),
        ]);
        let refused = error(Code::InvalidArgument, "2 fields are wrong", details);
        assert_eq!(
            classifier(false).outcome(2, 7, &entry(), refused),
            failed("scopes[0]: is not known; name: is too long")
        );
    }

    #[test]
    fn a_reason_never_shows_the_key() {
        let refused = error(
            Code::InvalidArgument,
            "`a-key-of-another-system` is bad",
            ErrorDetails::new(),
        );
        let Outcome::Failed(why) = classifier(false).outcome(2, 7, &entry(), refused) else {
            panic!("it was refused");
        };
        assert!(!why.contains("another-system"), "{why}");
    }
}
