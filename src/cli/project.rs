//! Projects, to which keys of a partner can be bound.

use clap::{Args, Subcommand};
use prost_reflect::{DynamicMessage, Value};
use tonic::Code;

use super::client::Client;
use super::connect::Connection;
use super::edit::{Edit, EditedField, Mode};
use super::failure::Failure;
use super::flags::WaitFlag;
use super::listing::{Field, Listing};
use super::output::Output;
use super::owned_keys;
use super::page::{self, PageFlags};
use super::prompt::YesFlag;
use super::realm_flag::RealmFlag;
use super::reflect;
use super::request_id;
use super::response::ChangeResponse as _;
use super::table::{Cell, Column};
use super::text;
use super::unknown::Names;
use super::when;
use crate::pb::claviger::v1::{
    DeleteProjectRequest, KeyFilter, ListProjectsRequest, Project, PutProjectResponse,
};

/// The commands for projects.
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
    #[command(alias = "rm")]
    Delete(Delete),
}

/// Create a project of a partner. Fails if it exists. The partner of a project never changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger project create web --partner acme
  claviger project create app --realm demo --partner acme --display-name 'App'")]
pub struct Create {
    #[command(flatten)]
    project: ProjectName,
    /// The partner that owns the project.
    #[arg(long)]
    partner: String,
    /// A display name.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: Option<String>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Change the settings of a project that are named; the others stay. Fails if it does not exist.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger project update web --display-name 'Web shop'")]
pub struct Update {
    #[command(flatten)]
    project: ProjectName,
    /// A display name; '' for none.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: String,
    /// Fail unless the project has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Show a project.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger project get web")]
pub struct Get {
    #[command(flatten)]
    project: ProjectName,
}

#[derive(Debug, Args)]
struct ProjectName {
    /// The project's id, unique in the realm.
    id: String,
    #[command(flatten)]
    realm: RealmFlag,
}

/// Create a project, or change its display name; its partner cannot be changed.
///
/// Settings that are not named stay as they are.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    project: ProjectName,
    /// The partner that owns the project.
    #[arg(long)]
    partner: String,
    /// A display name; '' for none.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    display_name: Option<String>,
    /// Fail unless the project has this revision; 0: fail if the project exists.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// List the projects of a realm, or of one partner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger project list
  claviger project list --partner acme --json")]
pub struct List {
    #[command(flatten)]
    realm: RealmFlag,
    /// Only projects of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    #[command(flatten)]
    page: PageFlags,
}

/// Delete a project with its revoked and expired keys; it must have no others.
///
/// It says what goes and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger project delete app --yes")]
pub struct Delete {
    /// The project's id.
    id: String,
    #[command(flatten)]
    realm: RealmFlag,
    #[command(flatten)]
    yes: YesFlag,
    /// Fail unless the project has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, output).await,
            Self::Update(update) => update.run(connection, output).await,
            Self::Put(put) => put.run(connection, output).await,
            Self::Get(get) => get.run(connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
        }
    }
}

impl Create {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let put = Put {
            project: self.project,
            partner: self.partner,
            display_name: self.display_name,
            if_revision: None,
            wait: self.wait,
        };
        let client = connection.connect().await?;
        put.make(&client, output, Mode::Create).await
    }
}

impl Update {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let put = Put {
            project: self.project,
            // Any: the project that is found names its partner.
            partner: String::new(),
            display_name: Some(self.display_name),
            if_revision: self.if_revision,
            wait: self.wait,
        };
        put.make(&client, output, Mode::Update).await
    }
}

impl Put {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        self.make(&client, output, Mode::Put).await
    }

    async fn make(self, client: &Client, output: &Output, mode: Mode) -> Result<(), Failure> {
        let mut fields = Vec::new();
        if self.display_name.is_some() {
            fields.push(EditedField::whole("display_name"));
        }
        let project = Project {
            partner: self.partner,
            display_name: self.display_name.unwrap_or_default(),
            ..self.project.resolve(client).await?
        };
        let edit = Edit::new("Project", &project, fields, self.if_revision, self.wait);
        let find = async || find(client, &project, mode).await;
        edit.run::<PutProjectResponse>(client, output, mode, find)
            .await
    }
}

impl Get {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let Project { realm, id, .. } = self.project.resolve(&client).await?;
        // There is no method for one project.
        let listed = page::fetch_all(1000, async |page_size, page_token| {
            let request = ListProjectsRequest {
                realm: realm.clone(),
                partner: String::new(),
                page_size,
                page_token,
            };
            client.ask(client.realms().list_projects(request)).await
        });
        let mut projects = listed.await?.projects.into_iter();
        let Some(project) = projects.find(|project| project.id == id) else {
            let id = text::plain(&id);
            return Err(
                Failure::new(Code::NotFound, format!("there is no project {id}"))
                    .hint(format!("claviger project list --realm {realm}")),
            );
        };
        output.show_message("Project", &project, |project| {
            text::facts([
                ("project", project.id.clone()),
                ("realm", project.realm.clone()),
                ("partner", project.partner.clone()),
                ("display name", project.display_name.clone()),
                (
                    "created",
                    when::on_page(project.create_time.as_ref(), output.now().as_ref()),
                ),
                ("revision", project.revision.to_string()),
            ])
        })
    }
}

impl ProjectName {
    /// A project with only its ids, without its partner.
    async fn resolve(self, client: &Client) -> Result<Project, Failure> {
        Ok(Project {
            realm: self.realm.resolve(client).await?,
            id: self.id,
            ..Project::default()
        })
    }
}

/// Reads the project with this id: of its partner, or for a new project of any partner. There is no method for one project, so they are
/// listed.
async fn find(
    client: &Client,
    project: &Project,
    mode: Mode,
) -> Result<Option<DynamicMessage>, Failure> {
    let partner = match mode {
        Mode::Create => "",
        Mode::Put | Mode::Update => &project.partner,
    };
    let id = Value::String(project.id.clone());
    let mut page_token = String::new();
    loop {
        let request = ListProjectsRequest {
            realm: project.realm.clone(),
            partner: partner.to_owned(),
            page_size: 1000,
            page_token: page_token.clone(),
        };
        let request = reflect::dynamic("ListProjectsRequest", &request);
        let page = client.ask(client.call("ListProjects", request)).await?;
        let projects = page.get_field_by_name("projects");
        let projects = projects
            .iter()
            .flat_map(|projects| projects.as_list().unwrap_or_default());
        let found = projects
            .filter_map(Value::as_message)
            .find(|project| project.get_field_by_name("id").as_deref() == Some(&id));
        if let Some(found) = found {
            return Ok(Some(found.clone()));
        }
        match page
            .get_field_by_name("next_page_token")
            .as_deref()
            .and_then(Value::as_str)
        {
            None | Some("") => return Ok(None),
            Some(next) if next == page_token => {
                return Err(Failure::failed(
                    "the server returned the same page token twice; the list would not end",
                ));
            }
            Some(next) => next.clone_into(&mut page_token),
        }
    }
}

/// The columns of a list of projects.
const FIELDS: [Field<Project>; 4] = [
    Field::new(Column::id("ID", 4, 16, 24), |project, _| {
        Cell::new(&project.id)
    }),
    Field::new(Column::id("PARTNER", 3, 12, 20), |project, _| {
        Cell::new(&project.partner)
    }),
    Field::new(Column::text("DISPLAY NAME", 2, 12, 32), |project, _| {
        Cell::new(&project.display_name)
    }),
    Field::new(Column::whole("CREATED", 1), |project, times| {
        times.past(project.create_time.as_ref(), "")
    }),
];

/// How projects are listed.
pub(super) fn listing(realm: &str) -> Listing<'static, Project> {
    Listing {
        fields: &FIELDS,
        place: format!("realm {realm}"),
        nouns: ["project", "projects"],
        order: "",
        empty: "There are no such projects.",
        identity: |project| project.id.clone(),
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
                let request = ListProjectsRequest {
                    realm: realm.clone(),
                    partner: self.partner.clone(),
                    page_size,
                    page_token,
                };
                client.ask(client.realms().list_projects(request)).await
            })
            .await
    }
}

impl Delete {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let realm = self.realm.resolve(&client).await?;
        let title = format!(
            "project {} of {}",
            text::plain(&self.id),
            text::plain(&realm)
        );
        let names = Names {
            realm: realm.clone(),
            project: self.id.clone(),
            ..Names::default()
        };
        if !self.yes.is_given() {
            names.check(&client).await?;
            let keys = KeyFilter {
                realm: realm.clone(),
                project: self.id.clone(),
                ..KeyFilter::default()
            };
            let keys = owned_keys::dead(&client, &title, &[keys]).await?;
            let keys = keys.replacen(" and", " with", 1);
            self.yes.confirm(&format!("Delete {title}{keys}?")).await?;
        }
        let request = DeleteProjectRequest {
            request_id: request_id::fresh(),
            realm,
            project: self.id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client.change(client.realms().delete_project(request)).await;
        let answer = names.known_or(&client, answer, |_| false).await?;
        output.show_change(&answer, |answer| answer.done(&format!("Deleted {title}")))
    }
}
