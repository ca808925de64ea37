//! The `keys issue` command.

use clap::Args;

use super::key::{facts, title};
use super::revealed_key::OutputFlags;
use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, Level, WaitFlag};
use crate::cli::output::{self, Output};
use crate::cli::realm_flag::{EnvironmentFlag, RealmFlag};
use crate::cli::request_id::RequestIdFlag;
use crate::cli::response::ChangeResponse as _;
use crate::cli::text;
use crate::cli::unknown::Names;
use crate::pb::claviger::v1::{GetRealmRequest, IssueKeyRequest, IssueKeyResponse, Key};

/// Issue a key, and show its API key this once.
///
/// Without --expires-in or --expires-at, the key is valid until it is revoked, or for the realm's max lifetime.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys issue --partner acme --level partner --scope read --name ci
  claviger keys issue --project web --expires-in 90d --output-file web.key
  key=$(claviger keys issue --partner acme --level partner --scope read)")]
pub struct Issue {
    #[command(flatten)]
    realm: RealmFlag,
    /// The partner that owns the key; not needed with --project, nor for an operator's key in the realm `claviger`.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// The project to bind the key to; makes it a project key.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// The level of the key; may be omitted with --project, or where the realm allows only one level.
    #[arg(long)]
    level: Option<Level>,
    #[command(flatten)]
    environment: EnvironmentFlag,
    /// A display name.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    name: String,
    /// The id that another system has for the key; no other key of the realm may have it.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    external_id: String,
    /// A scope to grant; can be repeated, or separated by commas. Without scopes, the realm's `unscoped_keys` decides.
    #[arg(long, value_delimiter = ',')]
    scope: Vec<String>,
    /// Grant every scope of the realm, also scopes that are added later.
    #[arg(long, conflicts_with = "scope")]
    full_access: bool,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// A label to attach; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// An address range, or one address, from which the key may be used; can be repeated [default: any address].
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Issue {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let expire_time = self.expiry.time()?;
        let repeat = self.expiry.repeat(expire_time);
        output.check_field::<IssueKeyResponse>()?;
        let destination = self.output.destination(output)?;
        let id = self.request_id.id();
        let mut request = IssueKeyRequest {
            realm: String::new(),
            partner: self.partner,
            project: self.project,
            level: self.level.map_or(0, Level::to_proto),
            environment: String::new(),
            name: self.name,
            external_id: self.external_id,
            scopes: self.scope,
            full_access: self.full_access,
            expire_time,
            labels: flags::by_name(self.label)
                .map_err(|why| Failure::usage(format!("--label: {why}")))?,
            allowed_cidrs: self.allow_cidr,
            wait: self.wait.to_proto(),
            request_id: id.to_proto(),
        };
        let client = connection.connect().await?;
        request.realm = self.realm.resolve(&client).await?;
        request.environment = self.environment.resolve(&client, &request.realm);
        let destination = destination.prepare()?;
        let names = Names::of_issue(&request);
        let answer = match client.change(client.keys().issue_key(request)).await {
            Ok(answer) => answer,
            Err(failure) => {
                let failure = names.refused(&client, failure).await;
                return Err(id.or_repeat_hint(failure, &repeat));
            }
        };
        let key = answer.key.clone().unwrap_or_default();
        destination.deliver(answer, output, description)?;
        if output.is_for_people() {
            warn_of_no_scope(&client, &key).await;
        }
        Ok(())
    }
}

fn description(answer: &IssueKeyResponse) -> String {
    let key = answer.key.clone().unwrap_or_default();
    let done = answer.done(&format!("Issued {}", title(&key)));
    format!("{done}\n\n{}", facts(&key))
}

/// Warns of a key that opens nothing, if its realm has scopes.
async fn warn_of_no_scope(client: &Client, key: &Key) {
    if key.full_access || !key.scopes.is_empty() {
        return;
    }
    let request = GetRealmRequest {
        realm_id: key.realm.clone(),
    };
    // Who may not read the realm is told without the names of its scopes.
    let realm = client.ask(client.realms().get_realm(request)).await;
    let scopes: Vec<_> = match realm {
        Ok(answer) => {
            let realm = answer.realm.unwrap_or_default();
            if realm.scopes.is_empty() {
                return;
            }
            realm.scopes.into_iter().map(|scope| scope.name).collect()
        }
        Err(_) => Vec::new(),
    };
    let of_realm = if scopes.is_empty() {
        String::new()
    } else {
        let realm = text::plain(&key.realm);
        format!(
            "; the scopes of {realm}: {}",
            text::plain(&scopes.join(", "))
        )
    };
    output::print_error(&format!(
        "warning: the key holds no scope, so no request that needs one is allowed: grant some with `claviger keys update {} \
         --scope SCOPE`{of_realm}",
        text::plain(&key.id)
    ));
}
