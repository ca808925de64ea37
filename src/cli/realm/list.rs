//! The `realm list` command.

use clap::Args;

use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::listing::{Field, Listing};
use crate::cli::output::Output;
use crate::cli::page::PageFlags;
use crate::cli::table::{Cell, Column};
use crate::pb::claviger::v1::{ListRealmsRequest, Realm};

/// List the realms.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm list")]
pub struct List {
    #[command(flatten)]
    page: PageFlags,
}

/// The columns of a list of realms.
const FIELDS: [Field<Realm>; 5] = [
    Field::new(Column::id("ID", 5, 16, 24), |realm, _| Cell::new(&realm.id)),
    Field::new(Column::whole("PREFIX", 4), |realm, _| {
        Cell::new(&realm.prefix)
    }),
    Field::new(Column::text("ENVIRONMENTS", 3, 16, 40), |realm, _| {
        Cell::new(environments(realm))
    }),
    Field::new(Column::whole("SCOPES", 2), |realm, _| {
        Cell::new(realm.scopes.len().to_string())
    }),
    Field::new(Column::whole("CREATED", 1), |realm, times| {
        times.past(realm.create_time.as_ref(), "")
    }),
];

/// How realms are listed.
pub(in crate::cli) fn listing() -> Listing<'static, Realm> {
    Listing {
        fields: &FIELDS,
        place: String::new(),
        nouns: ["realm", "realms"],
        order: "",
        empty: "There are no realms; `claviger realm create --help` shows how to create one.",
        identity: |realm| realm.id.clone(),
        note: |_| String::new(),
        footer: "",
    }
}

impl List {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.page.check(&FIELDS)?;
        let client = connection.connect().await?;
        self.page
            .show(output, &listing(), async |page_size, page_token| {
                let request = ListRealmsRequest {
                    page_size,
                    page_token,
                };
                client.ask(client.realms().list_realms(request)).await
            })
            .await
    }
}

/// The environments of a realm, each with its tag.
pub(super) fn environments(realm: &Realm) -> String {
    let environments = realm.environments.iter();
    let names: Vec<_> = environments
        .map(|environment| format!("{} ({})", environment.name, environment.tag))
        .collect();
    names.join(", ")
}
