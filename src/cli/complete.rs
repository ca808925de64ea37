//! The names that completions of a shell ask a server for.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;

use super::connect::Connection;
use super::failure::Failure;
use super::output;
use super::realm_flag::RealmFlag;
use crate::help::Named;
use crate::pb::claviger::v1::{
    GetRealmRequest, ListPartnersRequest, ListProjectsRequest, ListRealmsRequest,
};

/// How long a shell waits: with the start of the program less than 200 ms.
const LIMIT: Duration = Duration::from_millis(150);

/// The most names of a kind.
const MOST: i32 = 1000;

/// Returns the names that a server has of a kind. They are those of the realm, or of the realm that a command without one takes. If the
/// server does not answer at once, or there is no key for it, there are none: an error would be in the middle of what is typed.
pub fn names(connection: &Connection, named: Named, realm: Option<String>) -> Vec<String> {
    output::silence();
    let connection = connection.clone();
    let (answer, answered) = mpsc::channel();
    // In a separate thread, because reading a key file can block too. The thread ends with the program.
    thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return;
        };
        let asked = runtime.block_on(ask(&connection, named, realm));
        let mut found = asked.unwrap_or_default();
        found.retain(|name| is_plain(name));
        let _ = answer.send(found);
    });
    answered.recv_timeout(LIMIT).unwrap_or_default()
}

/// Whether a shell takes the name as it is. What it would read as more than a word is not offered.
fn is_plain(name: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "._@+:=-".contains(c);
    !name.is_empty() && !name.starts_with('-') && name.len() <= 128 && name.chars().all(is_safe)
}

async fn ask(
    connection: &Connection,
    named: Named,
    realm: Option<String>,
) -> Result<Vec<String>, Failure> {
    let connection = connection.clone().with_context()?;
    // It may ask the user something.
    if connection.runs_a_program() {
        return Ok(Vec::new());
    }
    let client = connection.connect().await?;
    if named == Named::Realm {
        let request = ListRealmsRequest {
            page_size: MOST,
            page_token: String::new(),
        };
        let answer = client.ask(client.realms().list_realms(request)).await?;
        return Ok(answer.realms.into_iter().map(|realm| realm.id).collect());
    }
    let realm = RealmFlag::of(realm).resolve(&client).await?;
    Ok(match named {
        Named::Partner => {
            let request = ListPartnersRequest {
                realm,
                page_size: MOST,
                page_token: String::new(),
            };
            let answer = client.ask(client.realms().list_partners(request)).await?;
            answer
                .partners
                .into_iter()
                .map(|partner| partner.id)
                .collect()
        }
        Named::Project => {
            let request = ListProjectsRequest {
                realm,
                partner: String::new(),
                page_size: MOST,
                page_token: String::new(),
            };
            let answer = client.ask(client.realms().list_projects(request)).await?;
            answer
                .projects
                .into_iter()
                .map(|project| project.id)
                .collect()
        }
        _ => {
            let request = GetRealmRequest { realm_id: realm };
            let answer = client.ask(client.realms().get_realm(request)).await?;
            let realm = answer.realm.unwrap_or_default();
            if named == Named::Environment {
                realm.environments.into_iter().map(|it| it.name).collect()
            } else {
                realm.scopes.into_iter().map(|scope| scope.name).collect()
            }
        }
    })
}
