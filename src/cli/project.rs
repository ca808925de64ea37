//! Projects: what keys of a partner can be bound to.

use clap::{Args, Subcommand};

use crate::pb::claviger::v1::{
    DeleteProjectRequest, ListProjectsRequest, Project, PutProjectRequest,
};

use super::answer::Change as _;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::WaitFlag;
use super::output::Output;
use super::page::{Listing, PageFlags};
use super::request_id;
use super::text;

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub enum Command {
    Put(Put),
    List(List),
    Delete(Delete),
}

/// Make a project, or replace it as a whole; it belongs to its partner for ever.
#[derive(Debug, Args)]
pub struct Put {
    /// The project's id, unique in the realm.
    id: String,
    /// The realm that it is in.
    #[arg(long)]
    realm: String,
    /// The partner that it belongs to.
    #[arg(long)]
    partner: String,
    /// What people call it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    display_name: String,
    /// Refuse if the project's revision is another than this; 0: if it exists.
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
    /// Only this partner's.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    #[command(flatten)]
    page: PageFlags,
}

/// Delete a project; it must not have keys.
#[derive(Debug, Args)]
pub struct Delete {
    /// The project's id.
    id: String,
    /// The realm that it is in.
    #[arg(long)]
    realm: String,
    /// Refuse if the project's revision is another than this.
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
            wait: self.wait.on_wire(),
        };
        let answer = client.change(client.realms().put_project(request)).await?;
        output.show_change(&answer, |answer| {
            let id = answer.project.as_ref().map_or("", |project| &project.id);
            format!("put project {}: {}", text::plain(id), answer.settled())
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
            none: "There are no such projects.",
            last_if_it_fits: false,
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
            wait: self.wait.on_wire(),
        };
        let answer = client
            .change(client.realms().delete_project(request))
            .await?;
        output.show_change(&answer, |answer| {
            format!(
                "deleted project {}: {}",
                text::plain(&self.id),
                answer.settled()
            )
        })
    }
}
