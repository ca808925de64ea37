//! The `keys update` command.

use clap::Args;
use prost_types::{FieldMask, Timestamp};

use super::key::{IfRevisionFlag, facts, title};
use super::named::{KeyArg, Several};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id;
use crate::cli::response::ChangeResponse as _;
use crate::pb::claviger::v1::{UpdateKeyRequest, UpdateKeyResponse};

/// Change a key's name, external id, scopes, expiry, labels or allowed addresses.
///
/// Settings that are not named stay as they are. A flag for a list replaces the whole list: `--scope read` removes all
/// other scopes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys update ci --scope read --scope write
  claviger keys update …plvF --never-expires --from-anywhere")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each of them is a flag of the command line"
)]
pub struct Update {
    #[command(flatten)]
    key: KeyArg,
    /// A display name.
    #[arg(long, allow_hyphen_values = true)]
    name: Option<String>,
    /// The id that another system has for the key; the empty id removes it.
    #[arg(long, allow_hyphen_values = true)]
    external_id: Option<String>,
    /// A scope to grant, instead of all scopes granted so far; can be repeated, or separated by commas.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["full_access", "no_scopes"])]
    scope: Vec<String>,
    /// Remove all granted scopes.
    #[arg(long, conflicts_with = "full_access")]
    no_scopes: bool,
    /// Grant every scope of the realm, also scopes that are added later.
    #[arg(long, conflicts_with = "no_full_access")]
    full_access: bool,
    /// Remove full access; without --scope, the key then holds no scope.
    #[arg(long)]
    no_full_access: bool,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// Keep the key valid until it is revoked, or for the realm's max lifetime.
    #[arg(long, conflicts_with_all = ["expires_in", "expires_at"])]
    never_expires: bool,
    /// A label to attach, instead of all labels so far; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// Remove all labels.
    #[arg(long, conflicts_with = "label")]
    no_labels: bool,
    /// An address range from which the key may be used, instead of all ranges so far; can be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
    /// Allow the key from any address.
    #[arg(long, conflicts_with = "allow_cidr")]
    from_anywhere: bool,
    #[command(flatten)]
    if_revision: IfRevisionFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Update {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let expire_time = self.expiry.time()?;
        let (key, request) = self.request(expire_time)?;
        let client = connection.connect().await?;
        let change = async |key_id| {
            let request = UpdateKeyRequest {
                key_id,
                request_id: request_id::fresh(),
                ..request.clone()
            };
            client.change(client.keys().update_key(request)).await
        };
        let answer = key.call(&client, Several::Refused, change).await?;
        output.show_change(&answer, description)
    }

    /// Builds the request, without the key that it is about. A given flag is in the mask even if its value is empty, which removes the old value.
    fn request(
        self,
        expire_time: Option<Timestamp>,
    ) -> Result<(KeyArg, UpdateKeyRequest), Failure> {
        let named = [
            ("name", self.name.is_some()),
            ("external_id", self.external_id.is_some()),
            ("scopes", self.no_scopes || !self.scope.is_empty()),
            ("full_access", self.full_access || self.no_full_access),
            ("expire_time", self.never_expires || expire_time.is_some()),
            ("labels", self.no_labels || !self.label.is_empty()),
            (
                "allowed_cidrs",
                self.from_anywhere || !self.allow_cidr.is_empty(),
            ),
        ];
        let paths: Vec<_> = named
            .iter()
            .filter(|(_, is_named)| *is_named)
            .map(|(field, _)| (*field).to_owned())
            .collect();
        if paths.is_empty() {
            return Err(Failure::usage("nothing to change").hint(
                "give at least one of --name, --external-id, --scope, --no-scopes, --full-access, --no-full-access, --expires-in, \
                 --expires-at, --never-expires, --label, --no-labels, --allow-cidr or --from-anywhere",
            ));
        }
        let request = UpdateKeyRequest {
            key_id: String::new(),
            update_mask: Some(FieldMask { paths }),
            name: self.name.unwrap_or_default(),
            external_id: self.external_id.unwrap_or_default(),
            labels: flags::by_name(self.label)
                .map_err(|why| Failure::usage(format!("--label: {why}")))?,
            scopes: self.scope,
            full_access: self.full_access,
            expire_time,
            allowed_cidrs: self.allow_cidr,
            wait: self.wait.to_proto(),
            request_id: String::new(),
            if_partner: String::new(),
            if_revision: self.if_revision.revision,
        };
        Ok((self.key, request))
    }
}

fn description(answer: &UpdateKeyResponse) -> String {
    let key = answer.key.clone().unwrap_or_default();
    let done = answer.done(&format!("Updated {}", title(&key)));
    format!("{done}\n\n{}", facts(&key))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn request(flags: &str) -> Result<UpdateKeyRequest, Failure> {
        let line = ["update", "id"].into_iter().chain(flags.split_whitespace());
        let update = Line::try_parse_from(line).unwrap().update;
        let expire_time = update.expiry.time()?;
        update.request(expire_time).map(|(_, request)| request)
    }

    #[test]
    fn the_mask_names_what_was_given_and_nothing_else() {
        for (flags, mask) in [
            ("--name ci", "name"),
            ("--name=", "name"),
            ("--external-id 21fd1a8d", "external_id"),
            ("--external-id=", "external_id"),
            ("--scope read --scope write", "scopes"),
            ("--no-scopes", "scopes"),
            ("--full-access", "full_access"),
            ("--no-full-access", "full_access"),
            ("--no-full-access --scope read", "scopes full_access"),
            ("--expires-in 90d", "expire_time"),
            ("--expires-at 2030-01-31T12:00:00Z", "expire_time"),
            ("--never-expires", "expire_time"),
            ("--label a=b", "labels"),
            ("--no-labels", "labels"),
            ("--allow-cidr 10.0.0.0/8", "allowed_cidrs"),
            ("--from-anywhere --name ci", "name allowed_cidrs"),
        ] {
            let request = request(flags).unwrap();
            assert_eq!(
                request.update_mask.unwrap().paths.join(" "),
                mask,
                "{flags}"
            );
        }
    }

    #[test]
    fn what_is_taken_away_is_sent_as_nothing() {
        let request =
            request("--no-scopes --no-full-access --never-expires --no-labels --from-anywhere")
                .unwrap();
        assert!(request.scopes.is_empty() && !request.full_access);
        assert!(request.labels.is_empty() && request.allowed_cidrs.is_empty());
        assert_eq!(request.expire_time, None);
    }

    #[test]
    fn nothing_to_change_is_a_wrong_use_that_names_the_flags() {
        let failure = request("").unwrap_err();
        assert!(failure.is_usage());
        assert!(failure.to_string().contains("--from-anywhere"), "{failure}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for flags in [
            "--scope read --no-scopes",
            "--scope read --full-access",
            "--full-access --no-full-access",
            "--never-expires --expires-in 1d",
            "--label a=b --no-labels",
            "--allow-cidr 10.0.0.0/8 --from-anywhere",
        ] {
            let line = ["update", "id"].into_iter().chain(flags.split_whitespace());
            assert!(Line::try_parse_from(line).is_err(), "{flags}");
        }
    }
}
