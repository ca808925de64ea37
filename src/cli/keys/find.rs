//! The `keys find` command.

use clap::Args;

use super::columns;
use super::screen::{self, Background};
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Screen};
use crate::cli::verify::read_key;
use crate::pb::claviger::v1::find_key_request::Key as Sought;
use crate::pb::claviger::v1::{FindKeyRequest, FindKeyResponse};

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
        let only = Some(answer.keys.as_slice()).filter(|keys| keys.len() == 1);
        let only = only.and_then(<[_]>::first);
        let background = screen::background(&client, only, output).await;
        let screen = output.screen();
        output.show(&answer, |answer| shown(answer, &background, screen))
    }
}

fn shown(answer: &FindKeyResponse, background: &Background, screen: Option<Screen>) -> String {
    match answer.keys.as_slice() {
        [] => "There are no such keys.".to_owned(),
        [only] => screen::shown(only, background, screen),
        keys => {
            let mut table = columns::found().table(keys, screen);
            if answer.more {
                table.push_str("\n\nThere are more: give more of the hint.");
            }
            table
        }
    }
}
