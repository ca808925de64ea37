//! The `keys find` command.

use clap::Args;

use super::key::{facts_with_usage, state};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::text;
use crate::cli::verify::read_key;
use crate::pb::claviger::v1::find_key_request::Key as Sought;
use crate::pb::claviger::v1::{FindKeyRequest, FindKeyResponse, Key};

/// Find keys by what somebody has of them: a whole API key, or the last characters of one.
///
/// It looks in every realm that the caller administers. The API key is read from standard input. It is compared and nothing else: it is
/// not stored, and the look-up is not a use of the key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger keys find < leaked.key

  claviger keys find --hint 9fQx")]
pub struct Find {
    /// A part of the hint, such as the last four characters of the API key.
    #[arg(long, allow_hyphen_values = true)]
    hint: Option<String>,
}

impl Find {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let sought = match self.hint {
            Some(hint) => Sought::Hint(hint),
            None => Sought::PlainKey(read_key("The API key to find:")?.reveal().to_owned()),
        };
        let client = connection.connect().await?;
        let request = FindKeyRequest { key: Some(sought) };
        let answer = client.ask(client.keys().find_key(request)).await?;
        output.show(&answer, shown)
    }
}

fn shown(answer: &FindKeyResponse) -> String {
    match answer.keys.as_slice() {
        [] => "There are no such keys.".to_owned(),
        [only] => facts_with_usage(only),
        keys => {
            let row = |key: &Key| {
                vec![
                    key.id.clone(),
                    key.name.clone(),
                    key.realm.clone(),
                    key.partner.clone(),
                    key.hint.clone(),
                    state(key),
                ]
            };
            let header = ["ID", "NAME", "REALM", "PARTNER", "HINT", "STATE"];
            let mut table = text::table(&header, keys.iter().map(row));
            if answer.more {
                table.push_str("\n\nThere are more: give more of the hint.");
            }
            table
        }
    }
}
