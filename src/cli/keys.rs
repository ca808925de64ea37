//! Keys that exist: to look at them and to govern their lives.

use clap::{Args, Subcommand, ValueEnum};

use crate::pb::claviger::v1::{
    DeleteKeyRequest, DisableKeyRequest, EnableKeyRequest, GetKeyRequest, GetKeyScopesRequest, Key,
    KeyState, ListKeysRequest, RevokeKeyRequest,
};

use super::answer::Change;
use super::connect::Connection;
use super::failure::Failure;
use super::flags::WaitFlag;
use super::issue::Issue;
use super::output::{self, Output};
use super::page::{Listing, PageFlags};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    Issue(Issue),
    /// Show a key: all that is known of it but its text.
    Get(KeyId),
    List(List),
    /// Show what a key was granted, and what follows from it.
    Scopes(KeyId),
    /// Switch a key off until it is enabled again.
    Disable(Switch),
    /// Switch a disabled key on again.
    Enable(Switch),
    Revoke(Revoke),
    Delete(Delete),
}

/// Names a key.
#[derive(Debug, Args)]
pub struct KeyId {
    /// The key's id, a UUID: not its text.
    #[arg(value_name = "KEY_ID")]
    id: String,
}

/// List the keys of a realm, newest first.
#[derive(Debug, Args)]
pub struct List {
    /// The realm.
    #[arg(long)]
    realm: String,
    /// Only this partner's.
    #[arg(long, default_value_t, hide_default_value = true)]
    partner: String,
    /// Only this project's.
    #[arg(long, default_value_t, hide_default_value = true)]
    project: String,
    /// Only this environment's.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// Only keys in this state; can be repeated.
    #[arg(long, value_delimiter = ',')]
    state: Vec<State>,
    #[command(flatten)]
    page: PageFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Active,
    Disabled,
    Expired,
    Revoked,
}

/// Which key to switch.
#[derive(Debug, Args)]
pub struct Switch {
    #[command(flatten)]
    key: KeyId,
    #[command(flatten)]
    wait: WaitFlag,
}

/// End a key for ever. It stays listed, with the reason.
#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    key: KeyId,
    /// Why, for the audit trail.
    #[arg(
        long,
        value_name = "TEXT",
        default_value_t,
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    reason: String,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Remove a key, so that it becomes unknown. Its events stay in the audit trail.
///
/// At a terminal it asks first.
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    key: KeyId,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Issue(issue) => issue.run(connection, output).await,
            Self::Get(key) => get(key.id, connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Scopes(key) => scopes(key.id, connection, output).await,
            Self::Disable(switch) => switch.disable(connection, output).await,
            Self::Enable(switch) => switch.enable(connection, output).await,
            Self::Revoke(revoke) => revoke.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
        }
    }
}

async fn get(key_id: String, connection: &Connection, output: &Output) -> Result<(), Failure> {
    let client = connection.connect().await?;
    let request = GetKeyRequest { key_id };
    let answer = client.ask(client.keys().get_key(request)).await?;
    output.show(&answer, |answer| {
        answer.key.as_ref().map(facts).unwrap_or_default()
    })
}

async fn scopes(key_id: String, connection: &Connection, output: &Output) -> Result<(), Failure> {
    let client = connection.connect().await?;
    let request = GetKeyScopesRequest { key_id };
    let answer = client.ask(client.keys().get_key_scopes(request)).await?;
    output.show(&answer, |answer| {
        output::facts([
            ("granted", granted(&answer.granted, answer.full_access)),
            ("effective", granted(&answer.effective, false)),
        ])
    })
}

impl List {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let row = |key: &Key| {
            vec![
                key.id.clone(),
                key.name.clone(),
                key.partner.clone(),
                key.project.clone(),
                key.environment.clone(),
                key.hint.clone(),
                state(key),
                output::expiry(key.expire_time.as_ref()),
            ]
        };
        let listing = Listing {
            header: &[
                "ID", "NAME", "PARTNER", "PROJECT", "ENV", "HINT", "STATE", "EXPIRES",
            ],
            none: "There are no such keys.",
            repeat: String::new(),
        };
        self.page
            .show(output, listing, row, async |page_size, page_token| {
                let request = ListKeysRequest {
                    unused_for: None,
                    never_expires: false,
                    expires_within: None,
                    realm: self.realm.clone(),
                    partner: self.partner.clone(),
                    project: self.project.clone(),
                    environment: self.environment.clone(),
                    states: self.state.iter().map(|state| state.on_wire()).collect(),
                    page_size,
                    page_token,
                };
                client.ask(client.keys().list_keys(request)).await
            })
            .await
    }
}

impl State {
    fn on_wire(self) -> i32 {
        match self {
            Self::Active => KeyState::Active as i32,
            Self::Disabled => KeyState::Disabled as i32,
            Self::Expired => KeyState::Expired as i32,
            Self::Revoked => KeyState::Revoked as i32,
        }
    }
}

impl Switch {
    async fn disable(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = DisableKeyRequest {
            request_id: String::new(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
        };
        let answer = client.change(client.keys().disable_key(request)).await?;
        self.key.changed(output, "disabled", &answer)
    }

    async fn enable(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = EnableKeyRequest {
            request_id: String::new(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
        };
        let answer = client.change(client.keys().enable_key(request)).await?;
        self.key.changed(output, "enabled", &answer)
    }
}

impl Revoke {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = RevokeKeyRequest {
            request_id: String::new(),
            key_id: self.key.id.clone(),
            reason: self.reason,
            wait: self.wait.on_wire(),
        };
        let answer = client.change(client.keys().revoke_key(request)).await?;
        self.key.changed(output, "revoked", &answer)
    }
}

impl Delete {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        output::confirm(self.yes, &format!("Delete key {} for ever?", self.key.id))?;
        let client = connection.connect().await?;
        let request = DeleteKeyRequest {
            request_id: String::new(),
            key_id: self.key.id.clone(),
            wait: self.wait.on_wire(),
        };
        let answer = client.change(client.keys().delete_key(request)).await?;
        self.key.changed(output, "deleted", &answer)
    }
}

impl KeyId {
    fn changed<C: Change>(&self, output: &Output, done: &str, answer: &C) -> Result<(), Failure> {
        output.show_change(answer, |answer| {
            format!(
                "{done} key {}: {}",
                output::plain(&self.id),
                answer.settled()
            )
        })
    }
}

/// All that is known of a key.
pub(super) fn facts(key: &Key) -> String {
    output::facts([
        ("key id", key.id.clone()),
        ("name", key.name.clone()),
        ("hint", key.hint.clone()),
        ("state", state(key)),
        ("realm", key.realm.clone()),
        ("partner", key.partner.clone()),
        ("project", key.project.clone()),
        (
            "level",
            output::word(key.level().as_str_name(), "KEY_LEVEL_"),
        ),
        ("environment", key.environment.clone()),
        ("scopes", granted(&key.scopes, key.full_access)),
        ("labels", output::pairs(&key.labels)),
        ("allowed from", key.allowed_cidrs.join(", ")),
        ("created", output::time_if_any(key.create_time.as_ref())),
        ("created by", key.created_by.clone()),
        ("expires", output::expiry(key.expire_time.as_ref())),
        ("revoked", output::time_if_any(key.revoke_time.as_ref())),
        ("reason", key.revoke_reason.clone()),
    ])
}

/// Scopes by name; to hold every scope says more than any list.
pub(super) fn granted(scopes: &[String], full_access: bool) -> String {
    if full_access {
        "full access".to_owned()
    } else if scopes.is_empty() {
        "none".to_owned()
    } else {
        scopes.join(", ")
    }
}

fn state(key: &Key) -> String {
    KeyState::try_from(key.state).map_or_else(
        // A newer server may know more of them; none of those must look like one that is known here.
        |_| format!("{} (not known here)", key.state),
        |state| output::word(state.as_str_name(), "KEY_STATE_"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_not_known_is_told_by_its_number() {
        let key = |state| Key {
            state,
            ..Key::default()
        };
        assert_eq!(state(&key(KeyState::Revoked as i32)), "revoked");
        assert_eq!(state(&key(99)), "99 (not known here)");
    }

    #[test]
    fn a_key_is_told_by_its_facts() {
        let key = Key {
            id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
            name: "ci \x1b[1m".to_owned(),
            realm: "demo".to_owned(),
            partner: "acme".to_owned(),
            level: 1,
            state: KeyState::Active as i32,
            environment: "production".to_owned(),
            ..Key::default()
        };
        assert_eq!(
            facts(&key),
            "key id       0192f0c1-2345-7abc-8def-0123456789ab\n\
             name         ci \\u{1b}[1m\n\
             state        active\n\
             realm        demo\n\
             partner      acme\n\
             level        partner\n\
             environment  production\n\
             scopes       none\n\
             expires      never"
        );
    }
}
