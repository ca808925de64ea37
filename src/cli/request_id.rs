//! The id of the request for a change, by which the change can be asked for again and is made once.

use clap::Args;
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::hashing::random;

use super::failure::Failure;

/// A new one, as each request for a change carries it into the audit trail.
pub(super) fn fresh() -> String {
    RequestId::fresh().on_wire()
}

/// Gives the id of a request that may have to be repeated.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RequestIdFlag {
    /// A UUID for this request [default: a fresh one]. The same command with the same UUID does nothing more for 24
    /// hours, and tells what it did the first time.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
}

impl RequestIdFlag {
    /// Whether somebody chose it, who may be repeating a request.
    pub(super) fn is_given(self) -> bool {
        self.request_id.is_some()
    }

    /// The one that was given, or a fresh one.
    pub(super) fn id(self) -> RequestId {
        self.request_id.map_or_else(RequestId::fresh, RequestId)
    }
}

/// The id of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId(Uuid);

impl RequestId {
    fn fresh() -> Self {
        Self(Builder::from_random_bytes(random()).into_uuid())
    }

    /// As the requests carry it.
    pub(super) fn on_wire(self) -> String {
        self.0.to_string()
    }

    /// The id of one of the requests that a command is made of: the same one when the command is repeated.
    pub(super) fn part(self, number: u64) -> Self {
        let digest = Sha256::new()
            .chain_update(self.0.as_bytes())
            .chain_update(number.to_be_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Says how to ask again, if nobody knows whether the change was made. `rest` is what else must be the same.
    pub(super) fn or_repeat(self, failure: Failure, rest: &str) -> Failure {
        if !failure.is_open() {
            return failure;
        }
        failure.hint(format!(
            "the change may have been made or not; the same command with `--request-id {}`{rest} makes it once at the \
             most",
            self.0
        ))
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
        assert_eq!(id.part(1).on_wire(), id.part(1).on_wire());
        assert_ne!(id.part(1).on_wire(), id.part(2).on_wire());
        assert_ne!(id.part(1).on_wire(), RequestId::fresh().part(1).on_wire());
    }

    #[test]
    fn only_where_nobody_knows_is_a_request_to_be_repeated() {
        let id = RequestId(Uuid::nil());
        let said = id.or_repeat(Failure::failed("no"), "").to_string();
        assert_eq!(said, "error: no");
        let said = id
            .or_repeat(
                Failure::failed("no answer").open(true),
                " and the same FILE",
            )
            .to_string();
        assert!(
            said.contains("`--request-id 00000000-0000-0000-0000-000000000000` and the same FILE"),
            "{said}"
        );
    }
}
