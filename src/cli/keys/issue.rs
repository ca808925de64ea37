//! A new key.

use clap::Args;

use crate::pb::claviger::v1::{IssueKeyRequest, IssueKeyResponse};

use super::key::facts;
use super::once::TextFlag;
use crate::cli::answer::Change as _;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, Level, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id::RequestIdFlag;

/// Make a key, and show its text this once.
///
/// Without --expires-in or --expires-at it lives until it is revoked, or as long as the realm's max lifetime allows.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys issue --realm demo --partner acme --environment production --name ci --scope read \\
      --expires-in 90d

  claviger keys issue --realm demo --partner acme --project web --environment staging \\
      --output-file web.key")]
pub struct Issue {
    /// The realm to issue it in.
    #[arg(long)]
    realm: String,
    /// The partner that owns it; left out only for an operator's key in the realm `claviger`.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// The project to bind it to; makes it a project key.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// May be left out with --project, or where the realm allows one level only.
    #[arg(long)]
    level: Option<Level>,
    /// May be left out where the realm has only one.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// What people call it.
    #[arg(
        long,
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    name: String,
    /// A scope to grant; can be repeated. Without any, it is what the realm says of unscoped keys.
    #[arg(long)]
    scope: Vec<String>,
    /// Grant every scope of the realm, also those that it will get.
    #[arg(long, conflicts_with = "scope")]
    full_access: bool,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// A word to attach; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// An address range that it may be used from; can be repeated [default: from anywhere].
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
    #[command(flatten)]
    text: TextFlag,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Issue {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let expire_time = self.expiry.time()?;
        let repeat = self.expiry.repeat(expire_time);
        let place = self.text.place()?;
        let id = self.request_id.id();
        let request = IssueKeyRequest {
            realm: self.realm,
            partner: self.partner,
            project: self.project,
            level: self.level.map_or(0, Level::on_wire),
            environment: self.environment,
            name: self.name,
            scopes: self.scope,
            full_access: self.full_access,
            expire_time,
            labels: flags::by_name(self.label)
                .map_err(|why| Failure::usage(format!("--label: {why}")))?,
            allowed_cidrs: self.allow_cidr,
            wait: self.wait.on_wire(),
            request_id: id.on_wire(),
        };
        let client = connection.connect().await?;
        let place = place.prepare()?;
        let answer = client
            .change(client.keys().issue_key(request))
            .await
            .map_err(|failure| id.or_repeat(failure, &repeat))?;
        place.hand_over(answer, output, told)
    }
}

fn told(answer: &IssueKeyResponse) -> String {
    let facts = answer.key.as_ref().map(facts).unwrap_or_default();
    format!("issued a key: {}\n\n{facts}", answer.settled())
}
