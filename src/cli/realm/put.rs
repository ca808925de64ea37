//! The `realm put` command, which is kept for scripts.

use std::path::PathBuf;

use clap::Args;

use super::flags::{RealmFlags, put};
use crate::cli::connect::Connection;
use crate::cli::edit::{Edit, Mode};
use crate::cli::failure::Failure;
use crate::cli::flags::WaitFlag;
use crate::cli::output::Output;
use crate::cli::request_id;
use crate::cli::response::ChangeResponse as _;
use crate::cli::text;
use crate::cli::toml_file;
use crate::pb::claviger::v1::PutRealmRequest;

/// Create or change a realm with flags, or replace it by a file.
///
/// With flags, settings that are not named stay as they are, also the routes and the other settings that only a file can
/// name. A flag for a list replaces the whole list: `--scope read` removes all other scopes. A new realm needs --prefix and
/// --environment.
///
/// With --file, the file is the whole definition: what is not in the file is removed. The file is TOML with the field names
/// of the proto; `realm get ID --toml` writes such a file.
#[derive(Debug, Args)]
pub struct Put {
    /// The realm's id.
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The file that describes the whole realm; `-` is standard input.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["id", "RealmFlags"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: RealmFlags,
    /// Fail unless the realm has this revision; 0: fail if the realm exists.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Put {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match (self.file, self.id) {
            (Some(path), _) => {
                let realm = toml_file::read(&path, toml_file::parse_realm)?;
                let id = text::plain(&realm.id).into_owned();
                let request = PutRealmRequest {
                    request_id: request_id::fresh(),
                    realm: Some(realm),
                    if_revision: self.if_revision,
                    wait: self.wait.to_proto(),
                };
                let client = connection.connect().await?;
                let answer = client.change(client.realms().put_realm(request)).await?;
                output.show_change(&answer, |answer| {
                    format!("put realm {id}: {}", answer.effect())
                })
            }
            (None, id) => {
                let id = id.unwrap_or_default();
                let (realm, fields) = self.flags.edit(&id)?;
                let edit = Edit::new("Realm", &realm, fields, self.if_revision, self.wait);
                put(connection, output, &edit, id, Mode::Put).await
            }
        }
    }
}
