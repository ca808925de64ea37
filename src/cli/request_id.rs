//! The id of a request for a change, with which the request can be repeated safely.

use clap::Args;
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use super::arguments;
use super::failure::Failure;
use crate::hashing::random;

/// Returns a new id. Each request for a change has one, and the audit trail records it.
pub(super) fn fresh() -> String {
    RequestId::fresh().to_proto()
}

/// The id of a request that may have to be repeated.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct RequestIdFlag {
    /// A UUID for this request [default: a new one]. For 24 hours, the same command with the same UUID changes nothing
    /// more and returns what it did the first time.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
}

impl RequestIdFlag {
    /// Whether the flag is given, so that the request may be a repetition.
    pub(super) fn is_given(self) -> bool {
        self.request_id.is_some()
    }

    /// The given id, or a new one.
    pub(super) fn id(self) -> RequestId {
        self.request_id.map_or_else(RequestId::fresh, RequestId)
    }
}

/// The id of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId(Uuid);

impl RequestId {
    /// A new id.
    pub(super) fn fresh() -> Self {
        Self(Builder::from_random_bytes(random()).into_uuid())
    }

    /// The value in a request.
    pub(super) fn to_proto(self) -> String {
        self.0.to_string()
    }

    /// Derives the id of the command's request with this number. A repeated command derives the same ids.
    pub(super) fn part(self, number: u64) -> Self {
        let digest = Sha256::new()
            .chain_update(self.0.as_bytes())
            .chain_update(number.to_be_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Adds how to repeat the request, if the outcome of the change is unknown. `flags` are the flags that must stand in the place of
    /// relative times, each with its value.
    pub(super) fn or_repeat_hint(self, failure: Failure, flags: &str) -> Failure {
        if !failure.is_outcome_unknown() {
            return failure;
        }
        let flags = format!("{flags} --request-id {}", self.0);
        let flags = flags.trim_start();
        let words: Vec<_> = flags.split_whitespace().collect();
        let pairs = words.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match arguments::repeated(arguments::context_flag().into_iter().chain(pairs)) {
            Some(line) => failure
                .hint("the change may have been made or not; this makes it at most once:")
                .command(line),
            None => failure.hint(format!(
                "the change may have been made or not; the same command with `{flags}` makes it at most once"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_an_id_of_its_own() {
        assert_ne!(fresh(), fresh());
        let id: Uuid = fresh().parse().unwrap();
        assert_eq!(id.get_version_num(), 4);
    }

    #[test]
    fn the_parts_of_a_command_have_the_same_ids_when_it_is_repeated() {
        let id = RequestId::fresh();
        assert_eq!(id.part(1).to_proto(), id.part(1).to_proto());
        assert_ne!(id.part(1).to_proto(), id.part(2).to_proto());
        assert_ne!(id.part(1).to_proto(), RequestId::fresh().part(1).to_proto());
    }

    #[test]
    fn only_where_nobody_knows_is_a_request_to_be_repeated() {
        let id = RequestId(Uuid::nil());
        let shown = id.or_repeat_hint(Failure::failed("no"), "").to_string();
        assert_eq!(shown, "error: no");
        // The command line of the test itself has no secret.
        let unknown = Failure::failed("no answer").outcome_unknown(true);
        let shown = id
            .or_repeat_hint(unknown, "--expires-at 2030-01-31T12:00:00Z")
            .to_string();
        assert!(shown.contains("at most once"), "{shown}");
        assert!(
            shown.replace(" \\\n    ", " ").contains(
                "--expires-at 2030-01-31T12:00:00Z --request-id 00000000-0000-0000-0000-000000000000"
            ),
            "{shown}"
        );
    }
}
