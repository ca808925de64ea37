//! The `whoami` command.

use clap::Args;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::keys::screen::{Background, shown};
use crate::cli::output::Output;
use crate::cli::reflect::Described;
use crate::cli::text;
use crate::domain::ids::RealmId;
use crate::domain::realm::scopes;
use crate::pb::claviger::v1::{GetSelfRequest, Key, ListReplicasRequest, ListReplicasResponse};

/// Show which server commands call, from which context, and the key that they call it with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger whoami --context prod")]
pub struct WhoAmI {}

impl WhoAmI {
    pub(in crate::cli) async fn run(
        self,
        connection: &Connection,
        output: &Output,
    ) -> Result<(), Failure> {
        let Self {} = self;
        let client = connection.connect().await?;
        let answer = client
            .ask(client.keys().get_self(GetSelfRequest {}))
            .await?;
        let key = answer.key.unwrap_or_default();
        let version = version(&client, &key).await;
        let context = client.chosen().map(|chosen| chosen.name.clone());
        let document = output.document(|| {
            Ok(json!({
                "context": context,
                "endpoint": client.endpoint(),
                "server_version": version,
                "key_source": client.key_source(),
                "role": role(&key),
                "key": serde_json::to_value(Described::whole("Key", &key))?,
            }))
        })?;
        output.show_summary(&document, || {
            let server = match &version {
                Some(version) => format!("{}, claviger {version}", client.endpoint()),
                None => client.endpoint().to_owned(),
            };
            let about = text::facts([
                ("context", context.clone().unwrap_or_default()),
                ("server", server),
                ("key from", client.key_source().to_owned()),
                ("role", role(&key)),
            ]);
            let key = shown(&key, &Background::default(), output.screen());
            format!("{about}\n\n{key}")
        })
    }
}

/// The servers of the authority, which only operators and readers of all realms may know.
pub(in crate::cli) async fn servers(client: &Client, key: &Key) -> Option<ListReplicasResponse> {
    let holds = |scope: &str| key.scopes.iter().any(|held| held == scope);
    let may_ask = holds(scopes::OPERATOR) || holds(scopes::READ) && key.partner.is_empty();
    if key.realm != RealmId::BUILT_IN || !may_ask {
        return None;
    }
    let mut call = client.authority();
    let answer = client.ask(async move { call.list_replicas(ListReplicasRequest {}).await });
    answer.await.ok()
}

/// The version of the servers. During an upgrade there are two.
async fn version(client: &Client, key: &Key) -> Option<String> {
    let mut versions: Vec<_> = servers(client, key)
        .await?
        .replicas
        .into_iter()
        .map(|replica| replica.version)
        .collect();
    versions.sort_unstable();
    versions.dedup();
    (!versions.is_empty()).then(|| versions.join(" and "))
}

/// What the holder of a key is to the authority, for people.
pub(in crate::cli) fn role(key: &Key) -> String {
    let realm = if key.partner.is_empty() {
        "every realm"
    } else {
        &key.partner
    };
    if key.realm != RealmId::BUILT_IN {
        let owner = match key.project.as_str() {
            "" => key.partner.clone(),
            project => format!("{}/{project}", key.partner),
        };
        return format!("a key of {owner} in the realm {}", key.realm);
    }
    let roles: Vec<_> = key
        .scopes
        .iter()
        .map(|scope| match scope.as_str() {
            scopes::OPERATOR => "operator".to_owned(),
            scopes::MANAGE => format!("manager of {realm}"),
            scopes::READ => format!("reader of {realm}"),
            scopes::VERIFY => format!("gateway of {realm}"),
            other => other.to_owned(),
        })
        .collect();
    match roles.as_slice() {
        [] if key.full_access => "operator".to_owned(),
        [] => "no role".to_owned(),
        roles => roles.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_follows_from_realm_owner_and_scopes() {
        let key = |realm: &str, partner: &str, project: &str, scopes: &[&str]| Key {
            realm: realm.to_owned(),
            partner: partner.to_owned(),
            project: project.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            ..Key::default()
        };
        for (key, shown) in [
            (key("claviger", "", "", &["operator"]), "operator"),
            (key("claviger", "demo", "", &["manage"]), "manager of demo"),
            (
                key("claviger", "demo", "", &["read", "verify"]),
                "reader of demo, gateway of demo",
            ),
            (key("claviger", "", "", &["read"]), "reader of every realm"),
            (
                key("demo", "acme", "", &[]),
                "a key of acme in the realm demo",
            ),
            (
                key("demo", "acme", "web", &[]),
                "a key of acme/web in the realm demo",
            ),
        ] {
            assert_eq!(role(&key), shown);
        }
    }
}
