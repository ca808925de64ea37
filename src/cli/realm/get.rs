//! The `realm get` command.

use clap::Args;
use prost_types::Timestamp;

use super::list::environments;
use crate::cli::connect::Connection;
use crate::cli::edit;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Screen};
use crate::cli::reflect;
use crate::cli::table::{Cell, Column, Row, Table};
use crate::cli::text;
use crate::cli::toml_file;
use crate::cli::when;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::credential_source::Source;
use crate::pb::claviger::v1::route::Target;
use crate::pb::claviger::v1::{
    CredentialSource, EncodedCharacters, GetRealmRequest, Realm, Route, TrailingSlash,
};

/// Show a realm.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm get demo
  claviger realm get demo --toml > demo.toml")]
pub struct Get {
    /// The realm's id.
    id: String,
    /// Show the realm as a file for `realm apply`, without the settings that have their default.
    #[arg(long, conflicts_with = "json")]
    toml: bool,
}

impl Get {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = GetRealmRequest { realm_id: self.id };
        if !self.toml {
            let answer = client.ask(client.realms().get_realm(request)).await?;
            return output.show(&answer, |answer| {
                let realm = answer.realm.as_ref();
                realm.map_or(String::new(), |realm| described(realm, output.screen()))
            });
        }
        let realm = edit::get(&client, "Realm", &request).await?;
        if reflect::has_unknown_fields(&realm) {
            return Err(Failure::failed(
                "the realm has settings that this program does not know, and a file without them would remove them",
            )
            .hint("use the version of this program that the server has"));
        }
        let text = toml_file::realm_to_toml(&reflect::generated(&realm)?).map_err(|why| {
            Failure::failed(format!("the realm cannot be written as TOML: {why}"))
        })?;
        output.print_file(&text)
    }
}

/// The columns of the routes of a realm.
const ROUTES: [Column; 3] = [
    Column::whole("METHODS", 2),
    Column::id("PATH", 3, 16, 60),
    Column::wrapped("NEEDS", 1, 16),
];

fn described(realm: &Realm, screen: Option<Screen>) -> String {
    let facts = facts(realm, screen.map(|screen| screen.now).as_ref());
    if realm.routes.is_empty() {
        return facts;
    }
    let mut table = Table::new(ROUTES);
    for route in &realm.routes {
        let methods = if route.methods.is_empty() {
            "any".to_owned()
        } else {
            route.methods.join(",")
        };
        table.push(Row {
            cells: [&methods, &route.path, &needs(route)]
                .map(Cell::new)
                .to_vec(),
            ..Row::default()
        });
    }
    format!(
        "{facts}\n\n{}",
        table.shown(screen.map(|screen| screen.width)).text()
    )
}

/// What a request to a route needs.
fn needs(route: &Route) -> String {
    let mut needs = vec![match &route.target {
        Some(Target::Public(true)) if route.optional_key => "no key, but tells of a key".to_owned(),
        Some(Target::Public(true)) => "no key".to_owned(),
        Some(Target::AnyTarget(true)) => "a key of either level".to_owned(),
        Some(Target::OwnProject(true)) => "a key; its own project".to_owned(),
        Some(Target::Project(name)) => format!("a key for the project {{{name}}}"),
        _ => "a partner key".to_owned(),
    }];
    if route.partner_key {
        needs.push("of level partner".to_owned());
    }
    needs.extend(route.scopes.iter().cloned());
    if !route.any_scopes.is_empty() {
        needs.push(format!("one of {}", route.any_scopes.join(", ")));
    }
    needs.join(", ")
}

fn facts(realm: &Realm, now: Option<&Timestamp>) -> String {
    let scopes = realm.scopes.iter().map(|scope| {
        let implied = if scope.implies.is_empty() {
            String::new()
        } else {
            format!(" (implies {})", scope.implies.join(", "))
        };
        let renamed = if scope.replaces.is_empty() {
            String::new()
        } else {
            format!(" (replaces {}, unfinished)", scope.replaces)
        };
        format!("{}{implied}{renamed}", scope.name)
    });
    let levels = if realm.levels.is_empty() {
        "partner, project".to_owned()
    } else {
        let levels: Vec<_> = realm
            .levels()
            .map(|level| text::enum_value(level.as_str_name(), "KEY_LEVEL_"))
            .collect();
        levels.join(", ")
    };
    let or = |text: String, none: &str| {
        if text.is_empty() {
            none.to_owned()
        } else {
            text
        }
    };
    text::facts([
        ("realm", realm.id.clone()),
        ("prefix", realm.prefix.clone()),
        ("environments", environments(realm)),
        ("scopes", or(scopes.collect::<Vec<_>>().join(", "), "none")),
        ("admin scope", realm.admin_scope.clone()),
        (
            "unscoped keys",
            text::enum_value(realm.unscoped_keys().as_str_name(), "UNSCOPED_KEYS_"),
        ),
        ("levels", levels),
        (
            "max cache",
            or(text::span_if_any(realm.max_cache.as_ref()), "none"),
        ),
        (
            "max lifetime",
            or(text::span_if_any(realm.max_lifetime.as_ref()), "none"),
        ),
        ("credentials", or(credential_sources(realm), "none")),
        (
            "routes",
            if realm.routes.is_empty() {
                "none"
            } else {
                "below"
            }
            .to_owned(),
        ),
        ("project segments", realm.project_segments.join(", ")),
        ("paths", paths(realm)),
        ("identity labels", realm.identity_labels.join(", ")),
        ("self rotation", self_rotation(realm).to_owned()),
        ("addresses", addresses(realm).to_owned()),
        ("created", when::on_page(realm.create_time.as_ref(), now)),
        ("revision", realm.revision.to_string()),
    ])
}

fn self_rotation(realm: &Realm) -> &'static str {
    match (realm.self_rotation, realm.id == RealmId::BUILT_IN) {
        (false, _) => "",
        (true, false) => "keys may rotate themselves",
        (true, true) => "keys of gateways and readers may rotate themselves",
    }
}

fn addresses(realm: &Realm) -> &'static str {
    if realm.record_addresses {
        "recorded of the last use of each key"
    } else {
        ""
    }
}

fn credential_sources(realm: &Realm) -> String {
    let Some(credentials) = &realm.credentials else {
        return String::new();
    };
    let mut names: Vec<_> = credentials.sources.iter().map(credential_source).collect();
    if !credentials.partner_header.is_empty() {
        names.push(format!(
            "the partner's id in {}",
            credentials.partner_header
        ));
    }
    names.join(", ")
}

fn credential_source(source: &CredentialSource) -> String {
    match &source.source {
        Some(Source::Header(header)) if header.scheme.is_empty() => header.name.clone(),
        Some(Source::Header(header)) => format!("{} ({})", header.name, header.scheme),
        Some(Source::Cookie(cookie)) => format!("cookie {}", cookie.name),
        Some(Source::WebsocketProtocol(protocol)) => {
            format!("websocket protocol {}KEY", protocol.prefix)
        }
        None => String::new(),
    }
}

/// The settings for paths that differ from the defaults.
fn paths(realm: &Realm) -> String {
    let lenient = realm.lenient_paths.then(|| "lenient".to_owned());
    let trailing_slash = match realm.trailing_slash() {
        TrailingSlash::Unspecified | TrailingSlash::Deny => None,
        setting => Some(format!(
            "trailing slash {}",
            text::enum_value(setting.as_str_name(), "TRAILING_SLASH_")
        )),
    };
    let encoded = match realm.encoded_characters() {
        EncodedCharacters::Unspecified | EncodedCharacters::Deny => None,
        EncodedCharacters::Keep => Some("encoded characters kept".to_owned()),
    };
    let settings: Vec<_> = [lenient, trailing_slash, encoded]
        .into_iter()
        .flatten()
        .collect();
    settings.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_differ_from_the_defaults_are_shown() {
        let realm = Realm {
            trailing_slash: TrailingSlash::Deny.into(),
            ..Realm::default()
        };
        assert_eq!(paths(&realm), "");
        let realm = Realm {
            lenient_paths: true,
            trailing_slash: TrailingSlash::Ignored.into(),
            encoded_characters: EncodedCharacters::Keep.into(),
            ..Realm::default()
        };
        assert_eq!(
            paths(&realm),
            "lenient, trailing slash ignored, encoded characters kept"
        );
    }
}
