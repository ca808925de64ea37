//! Partners: the accounts that own keys.

use clap::{Args, Subcommand};
use prost_reflect::DynamicMessage;
use prost_types::Timestamp;

use super::client::Client;
use super::connect::Connection;
use super::edit::{self, Edit, EditedField, Mode};
use super::failure::Failure;
use super::flags::WaitFlag;
use super::listing::{Field, Listing};
use super::output::Output;
use super::owned_keys;
use super::page::PageFlags;
use super::prompt::YesFlag;
use super::realm_flag::RealmFlag;
use super::request_id;
use super::response::ChangeResponse as _;
use super::style::Tone;
use super::table::{Cell, Column};
use super::text;
use super::unknown::Names;
use super::when;
use crate::pb::claviger::v1::{
    DeletePartnerRequest, GetPartnerRequest, KeyFilter, ListPartnersRequest, Partner,
    PutPartnerResponse,
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
    Suspend(Suspend),
    Restore(Restore),
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

/// Suspend a partner: each of its keys is denied until it is restored.
///
/// It says how many keys this stops and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner suspend acme --yes")]
pub struct Suspend {
    #[command(flatten)]
    partner: PartnerName,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Restore a suspended partner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner restore acme")]
pub struct Restore {
    #[command(flatten)]
    partner: PartnerName,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Delete a partner with its projects, and its revoked and expired keys; it must have no others.
///
/// It says what goes and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger partner delete globex --yes")]
pub struct Delete {
    #[command(flatten)]
    partner: PartnerName,
    #[command(flatten)]
    yes: YesFlag,
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
            Self::Suspend(suspend) => suspend.run(connection, output).await,
            Self::Restore(restore) => restore.run(connection, output).await,
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
        let find = async || match find(&client, &partner).await {
            Err(failure) if failure.is_not_found() => Ok(None),
            found => found.map(Some),
        };
        edit.run::<PutPartnerResponse>(&client, output, mode, find)
            .await
    }
}

impl Get {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = by_id(&self.partner.resolve(&client).await?);
        let answer = client.ask(client.realms().get_partner(request)).await?;
        output.show(&answer, |answer| {
            let partner = answer.partner.as_ref();
            partner.map_or(String::new(), |partner| facts(partner, output.now()))
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

impl Suspend {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let partner = self.partner.resolve(&client).await?;
        let before = get(&client, &partner).await?;
        // What needs no change needs no question.
        if !(before.suspended() || self.yes.is_given()) {
            let keys = owned_keys::active(&client, keys_of(&partner)).await?;
            let question = format!("Suspend {}?{keys}", title(&partner));
            self.yes.confirm(&question).await?;
        }
        set_suspended(&client, output, &before, true, self.wait).await
    }
}

impl Restore {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let partner = self.partner.resolve(&client).await?;
        let before = get(&client, &partner).await?;
        set_suspended(&client, output, &before, false, self.wait).await
    }
}

async fn set_suspended(
    client: &Client,
    output: &Output,
    before: &Partner,
    suspended: bool,
    wait: WaitFlag,
) -> Result<(), Failure> {
    let partner = Partner {
        realm: before.realm.clone(),
        id: before.id.clone(),
        suspended: Some(suspended),
        ..Partner::default()
    };
    let fields = vec![EditedField::whole("suspended")];
    let edit = Edit::new("Partner", &partner, fields, None, wait);
    let put = edit.put(client, async || find(client, &partner).await.map(Some));
    let answer: PutPartnerResponse = put.await?;
    output.show_change(&answer, |answer| {
        let after = answer.partner.as_ref().map(|partner| partner.revision);
        let was_so = before.suspended() == suspended && after == Some(before.revision);
        let title = title(&partner);
        match (suspended, was_so) {
            (true, true) => format!("{title}: already suspended; nothing was changed"),
            (false, true) => format!("{title}: not suspended; nothing was changed"),
            (true, false) => answer.done(&format!("Suspended {title}")),
            (false, false) => answer.done(&format!("Restored {title}")),
        }
    })
}

impl Delete {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let partner = self.partner.resolve(&client).await?;
        let title = title(&partner);
        if !self.yes.is_given() {
            let found = get(&client, &partner).await?;
            edit::check_revision("partner", self.if_revision, found.revision)?;
            let keys = owned_keys::dead(&client, &title, &[keys_of(&partner)]).await?;
            let question = format!("Delete {title} with its projects{keys}?");
            self.yes.confirm(&question).await?;
        }
        let request = DeletePartnerRequest {
            request_id: request_id::fresh(),
            realm: partner.realm.clone(),
            partner: partner.id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client.change(client.realms().delete_partner(request)).await;
        let answer = names(&partner).known_or(&client, answer, |_| false).await?;
        output.show_change(&answer, |answer| answer.done(&format!("Deleted {title}")))
    }
}

/// Names a partner in a sentence: `partner acme of demo`.
fn title(partner: &Partner) -> String {
    let (id, realm) = (text::plain(&partner.id), text::plain(&partner.realm));
    format!("partner {id} of {realm}")
}

fn names(partner: &Partner) -> Names {
    Names {
        realm: partner.realm.clone(),
        partner: partner.id.clone(),
        ..Names::default()
    }
}

fn keys_of(partner: &Partner) -> KeyFilter {
    KeyFilter {
        realm: partner.realm.clone(),
        partner: partner.id.clone(),
        ..KeyFilter::default()
    }
}

/// Reads the partner. If it does not exist, the failure names the nearest one.
async fn get(client: &Client, partner: &Partner) -> Result<Partner, Failure> {
    let answer = client
        .ask(client.realms().get_partner(by_id(partner)))
        .await;
    let answer = names(partner).known_or(client, answer, |_| false).await?;
    Ok(answer.partner.unwrap_or_default())
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

fn facts(partner: &Partner, now: Option<Timestamp>) -> String {
    text::facts([
        ("partner", partner.id.clone()),
        ("realm", partner.realm.clone()),
        ("display name", partner.display_name.clone()),
        ("access", access(partner).to_owned()),
        (
            "created",
            when::on_page(partner.create_time.as_ref(), now.as_ref()),
        ),
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
