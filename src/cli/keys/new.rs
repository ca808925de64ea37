//! The `key new` command, which makes an API key without a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::revealed_key::{OutputFlags, PreparedDestination};
use crate::cli::failure::Failure;
use crate::cli::flags::now;
use crate::cli::output::{self, Output};
use crate::cli::toml_file;
use crate::domain::ids::{KeyId, Prefix, RealmId, Tag};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::realm;
use crate::domain::time::Timestamp;
use crate::hashing::{ImportHash, random};

/// The commands that make API keys without a server.
#[derive(Debug, Subcommand)]
pub enum Offline {
    New(New),
}

/// Make an API key and its SHA-256, without a server.
///
/// The holder keeps the API key; the hash goes into a file of `claviger apply`, or into an import. Nobody else ever sees the API key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger key new --output-file operator.key
  claviger key new --realm demo --file authority.toml")]
pub struct New {
    /// The realm of the key. Other realms than `claviger` are looked up in --file.
    #[arg(long, default_value = RealmId::BUILT_IN)]
    realm: String,
    /// The environment of the key; may be omitted where the realm has only one.
    #[arg(long, default_value_t, hide_default_value = true)]
    environment: String,
    /// A file of `claviger apply` that declares the realm.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputFlags,
}

impl Offline {
    pub(in crate::cli) fn run(self, output: &Output) -> Result<(), Failure> {
        match self {
            Self::New(new) => new.run(output),
        }
    }
}

impl New {
    fn run(self, output: &Output) -> Result<(), Failure> {
        let (prefix, tag) = self.prefix_and_tag()?;
        let destination = self.output.destination(output)?.prepare()?;
        let micros = now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let id = KeyId::new(Timestamp::from_micros(micros.as_micros() as i64), &random());
        let key = PlainKey::new(&prefix, &tag, id, &SecretBytes::new(random()));
        let sha256 = ImportHash::of(key.expose()).hex();
        match destination {
            PreparedDestination::Shown => output.show_summary(
                &json!({"plain_key": key.expose(), "sha256": sha256}),
                || {
                    format!(
                        "A new API key, which is shown this once and stored nowhere:\n\n{}\n\nsha256  {sha256}",
                        key.expose()
                    )
                },
            ),
            PreparedDestination::KeyOnly => {
                output::print(key.expose()).map_err(|error| not_shown(&error))?;
                output::print_error(&format!("sha256  {sha256}"));
                Ok(())
            }
            PreparedDestination::File(file) => {
                let path = file.path.display().to_string();
                file.keep(key.expose()).map_err(|error| not_shown(&error))?;
                output.show_summary(&json!({"sha256": sha256, "output_file": path}), || {
                    format!("sha256  {sha256}")
                })
            }
        }
    }

    fn prefix_and_tag(&self) -> Result<(Prefix, Tag), Failure> {
        if self.realm == RealmId::BUILT_IN {
            let built_in = realm::Realm::built_in();
            let environment = built_in
                .environment_or_only(&self.environment)
                .map_err(|why| Failure::usage(format!("--environment: {why}")))?;
            return Ok((built_in.prefix.clone(), environment.tag.clone()));
        }
        let Some(file) = &self.file else {
            return Err(Failure::usage(format!(
                "--realm {}: the prefix of its API keys is not known here",
                crate::cli::text::plain(&self.realm)
            ))
            .hint("name the file that declares the realm with --file, or issue a key with `claviger keys issue`"));
        };
        let declared = toml_file::read(file, toml_file::parse_declared)?;
        let realm = declared.realms.iter().find(|realm| realm.id == self.realm);
        let realm = realm.ok_or_else(|| {
            Failure::usage(format!("--realm: {} does not declare it", file.display()))
        })?;
        let environment = match &realm.environments[..] {
            [only] if self.environment.is_empty() => Some(only),
            several => several
                .iter()
                .find(|environment| environment.name == self.environment),
        };
        let environment = environment.ok_or_else(|| {
            let names: Vec<_> = realm
                .environments
                .iter()
                .map(|it| it.name.as_str())
                .collect();
            Failure::usage(format!("--environment must be one of {}", names.join(", ")))
        })?;
        let prefix = Prefix::parse(&realm.prefix)
            .map_err(|why| Failure::usage(format!("`prefix` {why}")))?;
        let tag =
            Tag::parse(&environment.tag).map_err(|why| Failure::usage(format!("`tag` {why}")))?;
        Ok((prefix, tag))
    }
}

fn not_shown(error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "the new API key could not be written, and nothing has it: {error}"
    ))
    .hint("run the command again")
}
