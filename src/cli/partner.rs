//! Partners: the accounts that own keys.

use clap::{Args, Subcommand};
use prost_reflect::DynamicMessage;

use super::client::Client;
use super::connect::Connection;
use super::edit::{self, Edit, EditedField, Mode};
use super::failure::Failure;
use super::flags::WaitFlag;
use super::listing::{Field, Listing};
use super::output::Output;
use super::page::PageFlags;
use super::prompt;
use super::realm_flag::RealmFlag;
use super::request_id;
use super::response::ChangeResponse as _;
use super::style::Tone;
use super::table::{Cell, Column};
use super::text;
use crate::pb::claviger::v1::{
    DeletePartnerRequest, GetPartnerRequest, ListPartnersRequest, Partner, PutPartnerResponse,
};

/// The commands for partners.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(Create),
    Update(Update),
    #[command(hide = true)]
    Put(Put),
    #[command(aliases = ["show", "describe"])]
    Get(Get),
    #[command(alias = "ls")]
    List(List),
    /// Suspend a partner: each of its keys is denied until it is restored.
    #[command(after_help = "Examples:\n  claviger partner suspend acme --yes")]
    Suspend(SuspensionChange),
    /// Restore a suspended partner.
    #[command(after_help = "Examples:\n  claviger partner restore acme")]
    Restore(SuspensionChange),
    #[command(alias = "rm")]
    Delete(Delete),
}

/// Create a partner. Fails if it exists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner create acme
  claviger partner create globex --realm demo --display-name Globex")]
pub struct Create {
    #[command(flatten)]
    partner: PartnerName,
    /// A display name.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: Option<String>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Change the settings of a partner that are named; the others stay. Fails if it does not exist.
///
/// This command never lifts a suspension; `partner restore` does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner update acme --display-name 'Acme Inc.'")]
pub struct Update {
    #[command(flatten)]
    partner: PartnerName,
    /// A display name; '' for none.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: String,
    /// Fail unless the partner has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Create a partner, or change its display name.
///
/// Settings that are not named stay as they are. This command never lifts a suspension; `partner restore` does.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    partner: PartnerName,
    /// A display name; '' for none.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: Option<String>,
    /// Fail unless the partner has this revision; 0: fail if the partner exists.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Show a partner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner get acme")]
pub struct Get {
    #[command(flatten)]
    partner: PartnerName,
}

/// List the partners of a realm.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner list
  claviger partner list --realm demo --all --json")]
pub struct List {
    #[command(flatten)]
    realm: RealmFlag,
    #[command(flatten)]
    page: PageFlags,
}

/// Suspend or restore a partner.
#[derive(Debug, Args)]
pub struct SuspensionChange {
    #[command(flatten)]
    partner: PartnerName,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Delete a partner and its projects; the partner must have no keys.
///
/// At a terminal, the command asks for confirmation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner delete globex --yes")]
pub struct Delete {
    #[command(flatten)]
    partner: PartnerName,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// Fail unless the partner has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

#[derive(Debug, Args)]
struct PartnerName {
    /// The partner's id.
    id: String,
    #[command(flatten)]
    realm: RealmFlag,
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => {
                let put = Put {
                    partner: create.partner,
                    display_name: create.display_name,
                    if_revision: None,
                    wait: create.wait,
                };
                put.run(connection, output, Mode::Create).await
            }
            Self::Update(update) => {
                let put = Put {
                    partner: update.partner,
                    display_name: Some(update.display_name),
                    if_revision: update.if_revision,
                    wait: update.wait,
                };
                put.run(connection, output, Mode::Update).await
            }
            Self::Put(put) => put.run(connection, output, Mode::Put).await,
            Self::Get(get) => get.run(connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Suspend(change) => change.run(connection, output, true).await,
            Self::Restore(change) => change.run(connection, output, false).await,
            Self::Delete(delete) => delete.run(connection, output).await,
        }
    }
}

impl Put {
    async fn run(
        self,
        connection: &Connection,
        output: &Output,
        mode: Mode,
    ) -> Result<(), Failure> {
        let mut fields = Vec::new();
        if self.display_name.is_some() {
            fields.push(EditedField::whole("display_name"));
        }
        let client = connection.connect().await?;
        let partner = Partner {
            display_name: self.display_name.unwrap_or_default(),
            ..self.partner.resolve(&client).await?
        };
        let edit = Edit::new("Partner", &partner, fields, self.if_revision, self.wait);
        let put = edit.make(&client, mode, async || {
            match find(&client, &partner).await {
                Err(failure) if failure.is_not_found() => Ok(None),
                found => found.map(Some),
            }
        });
        let (answer, done): (PutPartnerResponse, _) = put.await?;
        output.show_change(&answer, |answer| {
            let id = answer.partner.as_ref().map_or("", |partner| &partner.id);
            done.sentence(&format!("partner {}", text::plain(id)), &answer.effect())
        })
    }
}

impl Get {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = by_id(&self.partner.resolve(&client).await?);
        let answer = client.ask(client.realms().get_partner(request)).await?;
        output.show(&answer, |answer| {
            answer.partner.as_ref().map(facts).unwrap_or_default()
        })
    }
}

/// The columns of a list of partners.
const FIELDS: [Field<Partner>; 4] = [
    Field::new(Column::id("ID", 4, 16, 32), |partner, _| {
        Cell::new(&partner.id)
    }),
    Field::new(Column::text("DISPLAY NAME", 2, 12, 32), |partner, _| {
        Cell::new(&partner.display_name)
    }),
    Field::new(Column::whole("ACCESS", 3), |partner, _| {
        let tone = if partner.suspended() {
            Tone::Warning
        } else {
            Tone::Good
        };
        Cell::toned(access(partner), tone)
    }),
    Field::new(Column::whole("CREATED", 1), |partner, times| {
        times.past(partner.create_time.as_ref(), "")
    }),
];

/// How partners are listed.
pub(super) fn listing(realm: &str) -> Listing<'static, Partner> {
    Listing {
        fields: &FIELDS,
        place: format!("realm {realm}"),
        nouns: ["partner", "partners"],
        order: "",
        empty: "There are no partners in this realm.",
        identity: |partner| partner.id.clone(),
        note: |_| String::new(),
        footer: "",
    }
}

impl List {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.page.check(&FIELDS)?;
        let client = connection.connect().await?;
        let realm = self.realm.resolve(&client).await?;
        self.page
            .show(output, &listing(&realm), async |page_size, page_token| {
                let request = ListPartnersRequest {
                    realm: realm.clone(),
                    page_size,
                    page_token,
                };
                client.ask(client.realms().list_partners(request)).await
            })
            .await
    }
}

impl SuspensionChange {
    async fn run(
        self,
        connection: &Connection,
        output: &Output,
        suspended: bool,
    ) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let partner = Partner {
            suspended: Some(suspended),
            ..self.partner.resolve(&client).await?
        };
        let fields = vec![EditedField::whole("suspended")];
        let edit = Edit::new("Partner", &partner, fields, None, self.wait);
        let put = edit.put(&client, async || find(&client, &partner).await.map(Some));
        let done = if suspended { "suspended" } else { "restored" };
        show(output, done, &put.await?)
    }
}

impl Delete {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        prompt::confirm(
            self.yes,
            &format!("Delete partner {} with its projects?", self.partner.id),
        )?;
        let client = connection.connect().await?;
        let Partner { realm, id, .. } = self.partner.resolve(&client).await?;
        let request = DeletePartnerRequest {
            request_id: request_id::fresh(),
            realm,
            partner: id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client
            .change(client.realms().delete_partner(request))
            .await?;
        output.show_change(&answer, |answer| {
            let id = text::plain(&id);
            format!("deleted partner {id}: {}", answer.effect())
        })
    }
}

impl PartnerName {
    /// A partner with only its ids.
    async fn resolve(self, client: &Client) -> Result<Partner, Failure> {
        Ok(Partner {
            realm: self.realm.resolve(client).await?,
            id: self.id,
            ..Partner::default()
        })
    }
}

fn by_id(partner: &Partner) -> GetPartnerRequest {
    GetPartnerRequest {
        realm: partner.realm.clone(),
        partner: partner.id.clone(),
    }
}

async fn find(client: &Client, partner: &Partner) -> Result<DynamicMessage, Failure> {
    edit::get(client, "Partner", &by_id(partner)).await
}

fn show(output: &Output, done: &str, answer: &PutPartnerResponse) -> Result<(), Failure> {
    output.show_change(answer, |answer| {
        let id = answer.partner.as_ref().map_or("", |partner| &partner.id);
        format!("{done} partner {}: {}", text::plain(id), answer.effect())
    })
}

fn facts(partner: &Partner) -> String {
    text::facts([
        ("partner", partner.id.clone()),
        ("realm", partner.realm.clone()),
        ("display name", partner.display_name.clone()),
        ("access", access(partner).to_owned()),
        ("created", text::time_if_any(partner.create_time.as_ref())),
        ("revision", partner.revision.to_string()),
    ])
}

fn access(partner: &Partner) -> &'static str {
    if partner.suspended() {
        "suspended"
    } else {
        "granted"
    }
}
