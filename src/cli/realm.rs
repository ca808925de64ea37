//! Realms: the protected APIs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tonic::Code;

use super::client::Client;
use super::connect::Connection;
use super::declared;
use super::edit::{self, Edit, EditedField, Mode};
use super::failure::Failure;
use super::flags::{self, Level, WaitFlag};
use super::keys::lockout;
use super::listing::{Field, Listing};
use super::output::{self, Output};
use super::owned_keys;
use super::page::PageFlags;
use super::prompt::YesFlag;
use super::reflect;
use super::rename_scope::RenameScope;
use super::request_id::{self, RequestId};
use super::response::ChangeResponse as _;
use super::rounds;
use super::table::{Cell, Column, Row, Table};
use super::text;
use super::toml_file;
use super::unknown::Names;
use crate::domain::ids::RealmId;
use crate::pb::claviger::v1::credential_source::Source;
use crate::pb::claviger::v1::route::Target;
use crate::pb::claviger::v1::{
    ApplyRequest, CredentialSource, DeclaredState, DeleteKeysRequest, DeleteRealmRequest,
    EncodedCharacters, Environment, GetRealmRequest, KeyFilter, ListRealmsRequest, PutRealmRequest,
    PutRealmResponse, Realm, RevokeKeysRequest, Route, Scope, TrailingSlash, UnscopedKeys,
};

/// The commands for realms.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(Create),
    Update(Update),
    Apply(Apply),
    #[command(hide = true)]
    Put(Put),
    #[command(aliases = ["show", "describe"])]
    Get(Get),
    #[command(alias = "ls")]
    List(List),
    #[command(alias = "rm")]
    Delete(Delete),
    RenameScope(RenameScope),
}

/// Create a realm. Fails if it exists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm create demo --prefix demo --environment production=live \\
      --scope read --scope write=read
  claviger realm create shop --prefix shop --environment production=live \\
      --environment staging=test --unscoped-keys full-access")]
pub struct Create {
    /// The realm's id.
    id: String,
    #[command(flatten)]
    flags: RealmFlags,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Change the settings of a realm that are named; the others stay. Fails if it does not exist.
///
/// The routes and the other settings that only a file can name stay too: see `realm apply`. A flag for a list replaces the whole list:
/// `--scope read` removes all other scopes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm update demo --max-lifetime 90d
  claviger realm update demo --scope read --scope write=read --scope admin")]
pub struct Update {
    /// The realm's id.
    id: String,
    #[command(flatten)]
    flags: RealmFlags,
    /// Fail unless the realm has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

/// Create a realm as a file describes it, or change it until it is so.
///
/// The file is the whole definition: what is not in the file is removed. The file is TOML with the field names of the proto;
/// `realm get ID --toml` writes such a file. What would change is shown first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm get demo --toml > demo.toml
  claviger realm apply --file demo.toml --dry-run
  claviger realm apply --file demo.toml --yes")]
pub struct Apply {
    /// The file that describes the whole realm; `-` is standard input.
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    yes: YesFlag,
    #[command(flatten)]
    wait: WaitFlag,
}

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

#[derive(Debug, Args)]
struct RealmFlags {
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

/// List the realms.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm list")]
pub struct List {
    #[command(flatten)]
    page: PageFlags,
}

/// Delete a realm with its partners and projects, and its revoked and expired keys; it must have no others, unless all are deleted
/// with it.
///
/// It says what goes and asks at a terminal; elsewhere it needs --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  claviger realm delete demo --with-keys --yes")]
pub struct Delete {
    /// The realm's id.
    id: String,
    /// Revoke all keys of the realm first, also those of its gateways and managers, and delete them.
    #[arg(long)]
    with_keys: bool,
    #[command(flatten)]
    yes: YesFlag,
    /// Fail unless the realm has this revision.
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitFlag,
}

impl Command {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, output).await,
            Self::Update(update) => update.run(connection, output).await,
            Self::Apply(apply) => apply.run(connection, output).await,
            Self::Put(put) => put.run(connection, output).await,
            Self::Get(get) => get.run(connection, output).await,
            Self::List(list) => list.run(connection, output).await,
            Self::Delete(delete) => delete.run(connection, output).await,
            Self::RenameScope(rename) => rename.run(connection, output).await,
        }
    }
}

impl Create {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (realm, fields) = self.flags.edit(&self.id)?;
        let edit = Edit::new("Realm", &realm, fields, None, self.wait);
        put_edited(connection, output, &edit, self.id, Mode::Create).await
    }
}

impl Update {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let (realm, fields) = self.flags.edit(&self.id)?;
        let edit = Edit::new("Realm", &realm, fields, self.if_revision, self.wait);
        put_edited(connection, output, &edit, self.id, Mode::Update).await
    }
}

impl Apply {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let realm = toml_file::read(&self.file, toml_file::parse_realm)?;
        let state = DeclaredState {
            realms: vec![realm],
            ..DeclaredState::default()
        };
        let request = ApplyRequest {
            state: Some(state),
            dry_run: true,
            ..ApplyRequest::default()
        };
        let client = connection.connect().await?;
        if self.dry_run {
            return declared::show_plan(&client, output, request)
                .await
                .map(drop);
        }
        declared::apply(&client, output, request, self.yes, self.wait).await
    }
}

impl Put {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
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
                put_edited(connection, output, &edit, id, Mode::Put).await
            }
        }
    }
}

async fn put_edited(
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
    let answered = edit.make(&client, mode, async || {
        match edit::get(&client, "Realm", &request).await {
            Err(failure) if failure.is_not_found() && mode == Mode::Put && !creates => {
                Err(incomplete(failure))
            }
            Err(failure) if failure.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    });
    let (answer, done): (PutRealmResponse, _) = answered.await?;
    output.show_edit(&answer, done.outcome(), |answer| {
        let id = answer.realm.as_ref().map_or("", |realm| &realm.id);
        done.sentence(&format!("realm {}", text::plain(id)), answer)
    })
}

impl RealmFlags {
    /// Returns the edited fields and their values, in the realm with this id.
    fn edit(self, id: &str) -> Result<(Realm, Vec<EditedField>), Failure> {
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

impl Get {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let client = connection.connect().await?;
        let request = GetRealmRequest { realm_id: self.id };
        if !self.toml {
            let answer = client.ask(client.realms().get_realm(request)).await?;
            return output.show(&answer, |answer| {
                let realm = answer.realm.as_ref();
                realm.map_or(String::new(), |realm| described(realm, output.width()))
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

/// The columns of a list of realms.
const FIELDS: [Field<Realm>; 5] = [
    Field::new(Column::id("ID", 5, 16, 24), |realm, _| Cell::new(&realm.id)),
    Field::new(Column::whole("PREFIX", 4), |realm, _| {
        Cell::new(&realm.prefix)
    }),
    Field::new(Column::text("ENVIRONMENTS", 3, 16, 40), |realm, _| {
        Cell::new(environments(realm))
    }),
    Field::new(Column::whole("SCOPES", 2), |realm, _| {
        Cell::new(realm.scopes.len().to_string())
    }),
    Field::new(Column::whole("CREATED", 1), |realm, times| {
        times.past(realm.create_time.as_ref(), "")
    }),
];

/// How realms are listed.
pub(super) fn listing() -> Listing<'static, Realm> {
    Listing {
        fields: &FIELDS,
        place: String::new(),
        nouns: ["realm", "realms"],
        order: "",
        empty: "There are no realms; `claviger realm create --help` shows how to create one.",
        identity: |realm| realm.id.clone(),
        note: |_| String::new(),
        footer: "",
    }
}

impl List {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.page.check(&FIELDS)?;
        let client = connection.connect().await?;
        self.page
            .show(output, &listing(), async |page_size, page_token| {
                let request = ListRealmsRequest {
                    page_size,
                    page_token,
                };
                client.ask(client.realms().list_realms(request)).await
            })
            .await
    }
}

impl Delete {
    async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        self.yes.or_terminal()?;
        let client = connection.connect().await?;
        let title = format!("realm {}", text::plain(&self.id));
        let names = Names {
            realm: self.id.clone(),
            ..Names::default()
        };
        if self.with_keys {
            refuse_built_in(&self.id)?;
            lockout::check_realm(&client, &self.id).await?;
        }
        if self.with_keys || !self.yes.is_given() {
            let request = GetRealmRequest {
                realm_id: self.id.clone(),
            };
            let found = client.ask(client.realms().get_realm(request)).await;
            let found = names.known_or(&client, found, |_| false).await?;
            let revision = found.realm.unwrap_or_default().revision;
            edit::check_revision("realm", self.if_revision, revision)?;
        }
        if self.with_keys {
            let keys = count_keys(&client, &self.id).await?;
            let question = format!(
                "Delete {title} with its partners and projects, and revoke and delete {keys} first?"
            );
            self.yes.confirm(&question).await?;
            end_keys(&client, output, &self.id).await?;
        } else if !self.yes.is_given() {
            let keys = owned_keys::dead(&client, &title, &all_keys(&self.id)).await?;
            let question = format!("Delete {title} with its partners, its projects{keys}?");
            self.yes.confirm(&question).await?;
        }
        let request = DeleteRealmRequest {
            request_id: request_id::fresh(),
            realm_id: self.id.clone(),
            if_revision: self.if_revision,
            wait: self.wait.to_proto(),
        };
        let answer = client.change(client.realms().delete_realm(request)).await;
        let answer = names.known_or(&client, answer, |_| false).await?;
        output.show_change(&answer, |answer| answer.done(&format!("Deleted {title}")))
    }
}

/// Refuses at once what the server refuses at the end.
fn refuse_built_in(realm: &str) -> Result<(), Failure> {
    if realm != RealmId::BUILT_IN {
        return Ok(());
    }
    Err(Failure::new(
        Code::FailedPrecondition,
        format!("the realm {realm} is built in and cannot be deleted"),
    )
    .reason("BUILT_IN_REALM"))
}

/// The filters for all keys of a realm: those in it, and those of its gateways and managers.
fn all_keys(realm: &str) -> [KeyFilter; 2] {
    let filter = |realm: &str, partner: &str| KeyFilter {
        realm: realm.to_owned(),
        partner: partner.to_owned(),
        ..KeyFilter::default()
    };
    [filter(realm, ""), filter(RealmId::BUILT_IN, realm)]
}

/// The number of all keys of a realm, for people.
async fn count_keys(client: &Client, realm: &str) -> Result<String, Failure> {
    let mut count = 0;
    let mut more = false;
    for filter in all_keys(realm) {
        let request = DeleteKeysRequest {
            filter: Some(filter),
            dry_run: true,
            ..DeleteKeysRequest::default()
        };
        let found = client.ask(client.keys().delete_keys(request)).await?;
        count += found.would_delete;
        more |= found.more;
    }
    Ok(rounds::counted(count, more))
}

/// Revokes all keys of a realm, so that they stop together, and deletes them.
async fn end_keys(client: &Client, output: &Output, realm: &str) -> Result<(), Failure> {
    for filter in all_keys(realm) {
        let request = RevokeKeysRequest {
            filter: Some(filter),
            reason: "the realm is deleted".to_owned(),
            request_id: request_id::fresh(),
            ..RevokeKeysRequest::default()
        };
        client.change(client.keys().revoke_keys(request)).await?;
    }
    let mut count = 0;
    for filter in all_keys(realm) {
        let deleted = rounds::in_rounds(RequestId::fresh(), async |id| {
            let request = DeleteKeysRequest {
                filter: Some(filter.clone()),
                request_id: id.to_proto(),
                ..DeleteKeysRequest::default()
            };
            client.change(client.keys().delete_keys(request)).await
        });
        count += deleted.await?.deleted;
    }
    if output.is_for_people() {
        let deleted = rounds::counted(count, false);
        output::print_error(&format!("revoked and deleted {deleted}"));
    }
    Ok(())
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

/// The columns of the routes of a realm.
const ROUTES: [Column; 3] = [
    Column::whole("METHODS", 2),
    Column::id("PATH", 3, 16, 60),
    Column::wrapped("NEEDS", 1, 16),
];

fn described(realm: &Realm, width: Option<usize>) -> String {
    let facts = facts(realm);
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
    format!("{facts}\n\n{}", table.shown(width).text())
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

fn facts(realm: &Realm) -> String {
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
        ("created", text::time_if_any(realm.create_time.as_ref())),
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

fn environments(realm: &Realm) -> String {
    let environments = realm.environments.iter();
    let names: Vec<_> = environments
        .map(|environment| format!("{} ({})", environment.name, environment.tag))
        .collect();
    names.join(", ")
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
