//! Projects, to which keys of a partner can be bound.

use clap::{Args, Subcommand};

use super::connect::Connection;
use super::failure::Failure;
use super::flags::WaitFlag;
use super::output::Output;
use super::page::{Listing, PageFlags};
use super::request_id;
use super::response::ChangeResponse as _;
use super::text;
use crate::pb::claviger::v1::{
    DeleteProjectRequest, ListProjectsRequest, Project, PutProjectRequest,
};

/// The commands for projects.
#[derive(Debug, Subcommand)]
pub enum Command {
    Put(Put),
    List(List),
    Delete(Delete),
}

/// Create a project, or replace it as a whole; its partner cannot be changed.
#[derive(Debug, Args)]
pub struct Put {
    /// The project's id, unique in the realm.
    id: String,
    /// The realm of the project.
    #[arg(long)]
    realm: String,
    /// The partner that owns the project.
    #[arg(long)]
    partner: String,
    /// A display name.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    display_name: String,
    /// Fail unless the project has this revision; 0: fail if the project exists.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// List the projects of a realm, or of one partner.
#[derive(Debug, Args)]
pub struct List {
    /// The realm.
    #[arg(long)]
    realm: String,
    /// Only projects of this partner.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    #[command(flatten)]
    page: PageFlags,
}

/// Delete a project; the project must have no keys.
#[derive(Debug, Args)]
pub struct Delete {
    /// The project's id.
    id: String,
    /// The realm of the project.
    #[arg(long)]
    realm: String,
    /// Fail unless the project has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Put(put) => put.run(connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
        }
    }
}

impl Put {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = PutProjectRequest {
            request_id: request_id::fresh(),
            project: Some(Project {
                realm: self.realm,
                id: self.id,
                partner: self.partner,
                display_name: self.display_name,
                revision: 0,
                create_time: None,
            }),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client.change(client.realms().put_project(request)).await?;
        output.show_change(&answer, |answer| {
            let id = answer.project.as_ref().map_or("", |project| &project.id);
            format!("put project {}: {}", text::plain(id), answer.effect())
        })
    }
}

impl List {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let row = |project: &Project| {
            vec![
                project.id.clone(),
                project.partner.clone(),
                project.display_name.clone(),
                text::time_if_any(project.create_time.as_ref()),
            ]
        };
        let listing = Listing {
            header: &["ID", "PARTNER", "DISPLAY NAME", "CREATED"],
            empty: "There are no such projects.",
            last_is_optional: false,
            repeat: String::new(),
        };
        self.page
            .show(output, listing, row, async |page_size, page_token| {
                let request = ListProjectsRequest {
                    realm: self.realm.clone(),
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
        let client = connection.connect().await?;
        let request = DeleteProjectRequest {
            request_id: request_id::fresh(),
            realm: self.realm,
            project: self.id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client
            .change(client.realms().delete_project(request))
            .await?;
        output.show_change(&answer, |answer| {
            format!(
                "deleted project {}: {}",
                text::plain(&self.id),
                answer.effect()
            )
        })
    }
}
