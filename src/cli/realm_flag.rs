//! The flags that name the realm and the environment of a command.

use std::env;

use clap::Args;

use super::client::Client;
use super::failure::Failure;
use super::text;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::{GetSelfRequest, ListRealmsRequest};

/// The variable that names the realm.
pub(super) const REALM: &str = "CLAVIGER_REALM";

/// The variable that names the environment.
pub(super) const ENVIRONMENT: &str = "CLAVIGER_ENVIRONMENT";

/// The flag that names the realm of a command.
#[derive(Clone, Debug, Args)]
pub(super) struct RealmFlag {
    // Not clap's `env`: a variable would conflict with `--all-realms` as the flag does.
    /// The realm [default: the variable `CLAVIGER_REALM`, or that of the context, or the only realm].
    #[arg(long, value_name = "REALM")]
    realm: Option<String>,
}

impl RealmFlag {
    /// The flag with this value; `None` if it is absent.
    pub(super) fn of(realm: Option<String>) -> Self {
        Self { realm }
    }

    /// The realm that the flag names.
    pub(super) fn flag(&self) -> Option<&str> {
        self.realm.as_deref()
    }

    /// The realm that the flag or the variable names. An empty variable counts as unset, an empty flag does not.
    pub(super) fn given(&self) -> Option<String> {
        self.realm.clone().or_else(|| variable(REALM))
    }

    /// Takes the realm of the context, if neither the flag nor the variable names one.
    pub(super) fn or_of_context(&mut self, client: &Client) {
        self.realm = self.given().or_else(|| of_context(client));
    }

    /// Returns the realm of the command: the given one, that of the context, or the only one that the caller can mean.
    pub(super) async fn resolve(&self, client: &Client) -> Result<String, Failure> {
        match self.given().or_else(|| of_context(client)) {
            Some(realm) => Ok(realm),
            None => only_realm(client).await,
        }
    }
}

/// The flag that names the environment of a command that needs one.
#[derive(Clone, Debug, Args)]
pub(super) struct EnvironmentFlag {
    /// The environment [default: the variable `CLAVIGER_ENVIRONMENT`, or that of the context]; may be omitted where the realm has
    /// only one.
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
}

impl EnvironmentFlag {
    /// Returns the environment of a command in this realm; empty for the realm's only one. An empty variable counts as unset.
    pub(super) fn resolve(self, client: &Client, realm: &str) -> String {
        if let Some(environment) = self.environment {
            return environment;
        }
        // It has only one environment.
        if realm == RealmId::BUILT_IN {
            return String::new();
        }
        let of_context = || {
            let context = &client.chosen()?.context;
            let its = context.realm.as_deref();
            let environment = context.environment.clone();
            environment.filter(|_| its.is_none_or(|its| its == realm))
        };
        variable(ENVIRONMENT)
            .or_else(of_context)
            .unwrap_or_default()
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn of_context(client: &Client) -> Option<String> {
    client.chosen()?.context.realm.clone()
}

/// Returns the only realm that the caller can mean: the realm of a gateway's key, or else the only one in the authority besides the
/// built-in realm.
async fn only_realm(client: &Client) -> Result<String, Failure> {
    let request = ListRealmsRequest {
        page_size: 10,
        page_token: String::new(),
    };
    let realms = match client.ask(client.realms().list_realms(request)).await {
        Ok(answer) => answer.realms.into_iter().map(|realm| realm.id).collect(),
        Err(failure) if failure.is_forbidden() => own_realm(client).await?,
        Err(failure) => return Err(failure),
    };
    choose(realms)
}

/// The realm of a key that may not list realms: what it verifies, or where it is.
async fn own_realm(client: &Client) -> Result<Vec<String>, Failure> {
    let answer = client
        .ask(client.keys().get_self(GetSelfRequest {}))
        .await?;
    let key = answer.key.unwrap_or_default();
    let realm = if key.realm == RealmId::BUILT_IN {
        key.partner
    } else {
        key.realm
    };
    Ok(vec![realm])
}

fn choose(mut realms: Vec<String>) -> Result<String, Failure> {
    realms.retain(|realm| realm != RealmId::BUILT_IN);
    match realms.as_slice() {
        [realm] => Ok(realm.clone()),
        [] => Err(
            Failure::usage("no realm is named, and there is none yet to take instead")
                .hint("create one: claviger realm create --help"),
        ),
        several => {
            let names: Vec<_> = several.iter().map(|id| text::plain(id)).collect();
            Err(Failure::usage(format!(
                "which realm? There are several: {}",
                names.join(", ")
            ))
            .hint(format!("name one with --realm, or in the variable {REALM}, or for the context: claviger use NAME --realm REALM")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_realm_needs_no_name() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(choose(names(&["claviger", "demo"])).unwrap(), "demo");
        assert!(choose(names(&["claviger"])).unwrap_err().is_usage());
        let failure = choose(names(&["demo", "peaka"])).unwrap_err();
        assert!(failure.is_usage());
        assert_eq!(
            failure.to_string(),
            "error: which realm? There are several: demo, peaka\n\
             hint: name one with --realm, or in the variable CLAVIGER_REALM, or for the context: claviger use NAME --realm REALM"
        );
    }
}
