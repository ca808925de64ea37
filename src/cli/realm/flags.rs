//! The flags for the settings of a realm, and the change that they make.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::connect::Connection;
use crate::cli::edit::{self, Edit, EditedField, Mode};
use crate::cli::failure::Failure;
use crate::cli::flags::{self, Level};
use crate::cli::output::Output;
use crate::pb::claviger::v1::{
    EncodedCharacters, Environment, GetRealmRequest, PutRealmResponse, Realm, Scope, TrailingSlash,
    UnscopedKeys,
};

/// The flags for the settings of a realm.
#[derive(Debug, Args)]
pub(super) struct RealmFlags {
    /// The prefix of its API keys, such as `demo` for `demo_live_…`; a new realm needs one.
    #[arg(long)]
    prefix: Option<String>,
    /// An environment and its tag in API keys, instead of all environments so far; can be repeated. A new realm needs one.
    #[arg(long, value_name = "NAME=TAG", value_parser = flags::environment)]
    environment: Vec<(String, String)>,
    /// A scope and the scopes that it implies, instead of all scopes so far; can be repeated. A scope that stays keeps its
    /// description.
    #[arg(long, value_name = "NAME[=IMPLIED,…]", value_parser = scope)]
    scope: Vec<Scope>,
    /// Remove all scopes.
    #[arg(long, conflicts_with = "scope")]
    no_scopes: bool,
    /// The scope whose holders may administer the keys of their own partner or project; '' for none [new realm: none].
    #[arg(long, value_name = "SCOPE")]
    admin_scope: Option<String>,
    /// The access of a key that is issued without scopes [new realm: no-access].
    #[arg(long, value_name = "WHAT")]
    unscoped_keys: Option<Unscoped>,
    /// A level that keys may be issued at, instead of all levels so far; can be repeated [new realm: both].
    #[arg(long)]
    level: Vec<Level>,
    /// How long a gateway may cache an answer; 0s: not at all [new realm: 0s].
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    max_cache: Option<Duration>,
    /// The longest time that a new key may be valid; 0s: unlimited [new realm: 0s].
    #[arg(long, value_name = "SPAN", value_parser = flags::span)]
    max_lifetime: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Unscoped {
    NoAccess,
    FullAccess,
}

impl RealmFlags {
    /// Returns the edited fields and their values, in the realm with this id.
    pub(super) fn edit(self, id: &str) -> Result<(Realm, Vec<EditedField>), Failure> {
        let fields = [
            (EditedField::whole("prefix"), self.prefix.is_some()),
            (
                EditedField::list("environments", &["tag"]),
                !self.environment.is_empty(),
            ),
            (
                EditedField::list("scopes", &["implies"]),
                self.no_scopes || !self.scope.is_empty(),
            ),
            (
                EditedField::whole("admin_scope"),
                self.admin_scope.is_some(),
            ),
            (
                EditedField::whole("unscoped_keys"),
                self.unscoped_keys.is_some(),
            ),
            (EditedField::whole("levels"), !self.level.is_empty()),
            (EditedField::whole("max_cache"), self.max_cache.is_some()),
            (
                EditedField::whole("max_lifetime"),
                self.max_lifetime.is_some(),
            ),
        ];
        let fields: Vec<_> = fields
            .into_iter()
            .filter_map(|(field, is_named)| is_named.then_some(field))
            .collect();
        if fields.is_empty() {
            return Err(Failure::usage("nothing to change").hint(
                "name at least one of --prefix, --environment, --scope, --no-scopes, --admin-scope, \
                 --unscoped-keys, --level, --max-cache or --max-lifetime",
            ));
        }
        let realm = Realm {
            id: id.to_owned(),
            prefix: self.prefix.unwrap_or_default(),
            environments: self
                .environment
                .into_iter()
                .map(|(name, tag)| Environment { name, tag })
                .collect(),
            scopes: self.scope,
            admin_scope: self.admin_scope.unwrap_or_default(),
            unscoped_keys: match self.unscoped_keys {
                None => UnscopedKeys::Unspecified as i32,
                Some(Unscoped::NoAccess) => UnscopedKeys::NoAccess as i32,
                Some(Unscoped::FullAccess) => UnscopedKeys::FullAccess as i32,
            },
            levels: self.level.into_iter().map(Level::to_proto).collect(),
            max_cache: flags::span_to_proto(self.max_cache, "--max-cache")?,
            max_lifetime: flags::span_to_proto(self.max_lifetime, "--max-lifetime")?,
            // The settings without flags; a file sets them.
            credentials: None,
            routes: Vec::new(),
            denials: Vec::new(),
            project_segments: Vec::new(),
            lenient_paths: false,
            trailing_slash: TrailingSlash::Unspecified.into(),
            encoded_characters: EncodedCharacters::Unspecified.into(),
            identity_labels: Vec::new(),
            self_rotation: false,
            record_addresses: false,
            revision: 0,
            create_time: None,
        };
        Ok((realm, fields))
    }
}

/// Makes the edit of the realm with this id.
pub(super) async fn put(
    connection: &Connection,
    output: &Output,
    edit: &Edit,
    id: String,
    mode: Mode,
) -> Result<(), Failure> {
    let creates = edit.names(&["prefix", "environments"]);
    let incomplete = |failure: Failure| {
        failure
            .hint("to create the realm, name at least --prefix PREFIX and --environment NAME=TAG")
    };
    if mode == Mode::Create && !creates {
        return Err(incomplete(Failure::usage(
            "a new realm needs a prefix and an environment",
        )));
    }
    let client = connection.connect().await?;
    let request = GetRealmRequest { realm_id: id };
    let find = async || match edit::get(&client, "Realm", &request).await {
        Err(failure) if failure.is_not_found() && mode == Mode::Put && !creates => {
            Err(incomplete(failure))
        }
        Err(failure) if failure.is_not_found() => Ok(None),
        found => found.map(Some),
    };
    edit.run::<PutRealmResponse>(&client, output, mode, find)
        .await
}

/// Parses `name` or `name=implied,implied`. The name of a scope may contain a colon, but no equals sign.
fn scope(text: &str) -> Result<Scope, String> {
    let (name, implies) = text.split_once('=').unwrap_or((text, ""));
    let implies: Vec<_> = implies.split_terminator(',').map(str::to_owned).collect();
    if name.is_empty() || implies.iter().any(String::is_empty) {
        return Err(
            "must look like `read`, or `write=read` if the scope implies others".to_owned(),
        );
    }
    Ok(Scope {
        name: name.to_owned(),
        implies,
        description: String::new(),
        replaces: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_flag_is_a_name_and_what_it_implies() {
        for (flag, name, implies) in [
            ("read", "read", &[][..]),
            ("write:keys", "write:keys", &[][..]),
            ("write=read", "write", &["read"][..]),
            ("admin=write:all,read", "admin", &["write:all", "read"][..]),
            ("admin=", "admin", &[][..]),
        ] {
            let scope = scope(flag).unwrap();
            assert_eq!(scope.name, name);
            assert_eq!(scope.implies, implies, "{flag}");
        }
        for wrong in ["", "=read", "admin=,read"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
