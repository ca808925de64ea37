//! The `realm delete` command.

use clap::Args;
use tonic::Code;

use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::edit;
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::keys::lockout;
use crate::cli::output::{self, Output};
use crate::cli::owned_keys;
use crate::cli::prompt::YesFlag;
use crate::cli::request_id::{self, RequestId};
use crate::cli::response::ChangeResponse as _;
use crate::cli::rounds;
use crate::cli::text;
use crate::cli::unknown::Names;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::{
    DeleteKeysRequest, DeleteRealmRequest, GetRealmRequest, KeyFilter, RevokeKeysRequest,
};

/// Delete a realm with its partners and projects, and its revoked and expired keys; it must have no others, unless all are deleted
/// with it.
///
/// It says what goes and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm delete demo --with-keys --yes")]
pub struct Delete {
    /// The realm's id.
    id: String,
    /// Revoke all keys of the realm first, also those of its gateways and managers, and delete them.
    #[arg(long)]
    with_keys: bool,
    #[command(flatten)]
    yes: YesFlag,
    /// Fail unless the realm has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Delete {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let title = format!("realm {}", text::plain(&self.id));
        let names = Names {
            realm: self.id.clone(),
            ..Names::default()
        };
        if self.with_keys {
            refuse_built_in(&self.id)?;
            lockout::check_realm(&client, &self.id).await?;
        }
        if self.with_keys || !self.yes.is_given() {
            let request = GetRealmRequest {
                realm_id: self.id.clone(),
            };
            let found = client.ask(client.realms().get_realm(request)).await;
            let found = names.known_or(&client, found, |_| false).await?;
            let revision = found.realm.unwrap_or_default().revision;
            edit::check_revision("realm", self.if_revision, revision)?;
        }
        if self.with_keys {
            let keys = count_keys(&client, &self.id).await?;
            let question = format!(
                "Delete {title} with its partners and projects, and revoke and delete {keys} first?"
            );
            self.yes.confirm(&question).await?;
            end_keys(&client, output, &self.id).await?;
        } else if !self.yes.is_given() {
            let keys = owned_keys::dead(&client, &title, &all_keys(&self.id)).await?;
            let question = format!("Delete {title} with its partners, its projects{keys}?");
            self.yes.confirm(&question).await?;
        }
        let request = DeleteRealmRequest {
            request_id: request_id::fresh(),
            realm_id: self.id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client.change(client.realms().delete_realm(request)).await;
        let answer = names.known_or(&client, answer, |_| false).await?;
        output.show_change(&answer, |answer| answer.done(&format!("Deleted {title}")))
    }
}

/// Refuses at once what the server refuses at the end.
fn refuse_built_in(realm: &str) -> Result<(), Failure> {
    if realm != RealmId::BUILT_IN {
        return Ok(());
    }
    Err(Failure::new(
        Code::FailedPrecondition,
        format!("the realm {realm} is built in and cannot be deleted"),
    )
    .reason("BUILT_IN_REALM"))
}

/// The filters for all keys of a realm: those in it, and those of its gateways and managers.
fn all_keys(realm: &str) -> [KeyFilter; 2] {
    let filter = |realm: &str, partner: &str| KeyFilter {
        realm: realm.to_owned(),
        partner: partner.to_owned(),
        ..KeyFilter::default()
    };
    [filter(realm, ""), filter(RealmId::BUILT_IN, realm)]
}

/// The number of all keys of a realm, for people.
async fn count_keys(client: &Client, realm: &str) -> Result<String, Failure> {
    let mut count = 0;
    let mut more = false;
    for filter in all_keys(realm) {
        let request = DeleteKeysRequest {
            filter: Some(filter),
            dry_run: true,
            ..DeleteKeysRequest::default()
        };
        let found = client.ask(client.keys().delete_keys(request)).await?;
        count += found.would_delete;
        more |= found.more;
    }
    Ok(rounds::counted(count, more))
}

/// Revokes all keys of a realm, so that they stop together, and deletes them.
async fn end_keys(client: &Client, output: &Output, realm: &str) -> Result<(), Failure> {
    for filter in all_keys(realm) {
        let request = RevokeKeysRequest {
            filter: Some(filter),
            reason: "the realm is deleted".to_owned(),
            request_id: request_id::fresh(),
            ..RevokeKeysRequest::default()
        };
        client.change(client.keys().revoke_keys(request)).await?;
    }
    let mut count = 0;
    for filter in all_keys(realm) {
        let deleted = rounds::in_rounds(RequestId::fresh(), async |id| {
            let request = DeleteKeysRequest {
                filter: Some(filter.clone()),
                request_id: id.to_proto(),
                ..DeleteKeysRequest::default()
            };
            client.change(client.keys().delete_keys(request)).await
        });
        count += deleted.await?.deleted;
    }
    if output.is_for_people() {
        let deleted = rounds::counted(count, false);
        output::print_error(&format!("revoked and deleted {deleted}"));
    }
    Ok(())
}
