//! Random edits of random realms, partners and projects by the command line, against what each of them must do.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use claviger::pb::claviger::v1 as pb;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tonic::Code;

use crate::fixtures::{
    Api, Engine, Program, Shell, TestStore, from_env, header_source, refused, seconds, strings,
};

const SCOPES: [&str; 4] = ["read", "write", "admin", "extra"];
const ENVIRONMENTS: [&str; 3] = ["production", "staging", "dev"];
const TAGS: [&str; 2] = ["x", "y"];
const DISPLAY_NAMES: [&str; 4] = ["", "Acme", "-acme-", "Шоп"];
const LEVELS: [(&str, pb::KeyLevel); 2] = [
    ("partner", pb::KeyLevel::Partner),
    ("project", pb::KeyLevel::Project),
];

/// The flags of a `realm put`. `None` is a flag that is not given.
#[derive(Clone, Debug)]
struct RealmFlags {
    /// The last character of the prefix, whose beginning each case has for itself.
    prefix: Option<&'static str>,
    /// Each with its tag's last character.
    environments: Option<Vec<(&'static str, &'static str)>>,
    /// Each with the scopes that it implies; no scopes for `--no-scopes`.
    scopes: Option<Vec<(&'static str, Vec<&'static str>)>>,
    admin_scope: Option<&'static str>,
    full_access: Option<bool>,
    /// Indices into [`LEVELS`].
    levels: Option<Vec<usize>>,
    /// In seconds.
    max_cache: Option<i64>,
    max_lifetime: Option<i64>,
}

/// What a realm has that no flag names.
#[derive(Clone, Debug)]
struct Rest {
    descriptions: Vec<&'static str>,
    credentials: bool,
    routes: Vec<&'static str>,
    route_needs_scope: bool,
    denials: Vec<pb::DenialClass>,
    project_segments: Vec<&'static str>,
    lenient_paths: bool,
    trailing_slash: pb::TrailingSlash,
    encoded_characters: pb::EncodedCharacters,
}

#[derive(Clone, Debug)]
enum PartnerEdit {
    Put(Option<&'static str>),
    Suspend,
    Restore,
}

/// An existing realm, partner and project, if they exist, and one edit of each.
#[derive(Clone, Debug)]
struct Plan {
    realm: Option<(RealmFlags, Rest)>,
    realm_edit: RealmFlags,
    partner: Option<(&'static str, bool)>,
    partner_edit: PartnerEdit,
    project: Option<&'static str>,
    project_edit: Option<&'static str>,
}

fn environments() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let tags = proptest::collection::vec(select(&TAGS[..]), ENVIRONMENTS.len());
    (subsequence(&ENVIRONMENTS[..], 1..=ENVIRONMENTS.len()), tags)
        .prop_map(|(names, tags)| names.into_iter().zip(tags).collect())
}

/// Scopes, each of which implies some of those before it.
fn scopes() -> impl Strategy<Value = Vec<(&'static str, Vec<&'static str>)>> {
    let choices = proptest::collection::vec(any::<[bool; 4]>(), SCOPES.len());
    let names = prop_oneof![
        4 => subsequence(&SCOPES[1..], 0..SCOPES.len()).prop_map(|mut names| {
            names.insert(0, SCOPES[0]);
            names
        }),
        1 => subsequence(&SCOPES[..], 0..=SCOPES.len()),
    ];
    (names, choices).prop_map(|(names, choices)| {
        // In the order of the server, which keeps them as a set.
        let implies = |index: usize| {
            let earlier = names[..index].iter().zip(choices[index]);
            let mut implies: Vec<_> = earlier
                .filter_map(|(name, is_chosen)| is_chosen.then_some(*name))
                .collect();
            implies.sort_unstable();
            implies
        };
        names
            .iter()
            .enumerate()
            .map(|(index, name)| (*name, implies(index)))
            .collect()
    })
}

/// Flags, each of which is given with this probability.
fn realm_flags(probability: f64) -> impl Strategy<Value = RealmFlags> {
    fn given<S: Strategy>(
        probability: f64,
        strategy: S,
    ) -> impl Strategy<Value = Option<S::Value>> {
        proptest::option::weighted(probability, strategy)
    }
    (
        given(probability, select(&TAGS[..])),
        given(probability, environments()),
        given(probability, scopes()),
        given(probability, select(vec!["", "read", "read", "write"])),
        given(probability, any::<bool>()),
        given(probability, subsequence(vec![0, 1], 1..=2)),
        given(probability, 0..60_i64),
        given(probability, 0..1_000_000_i64),
    )
        .prop_map(
            |(
                prefix,
                environments,
                scopes,
                admin_scope,
                full_access,
                levels,
                max_cache,
                max_lifetime,
            )| RealmFlags {
                prefix,
                environments,
                scopes,
                admin_scope,
                full_access,
                levels,
                max_cache,
                max_lifetime,
            },
        )
}

fn rest() -> impl Strategy<Value = Rest> {
    use pb::{DenialClass, EncodedCharacters, TrailingSlash};
    let denials = vec![
        DenialClass::Unauthenticated,
        DenialClass::Forbidden,
        DenialClass::Undecided,
    ];
    let slashes = vec![
        TrailingSlash::Deny,
        TrailingSlash::Significant,
        TrailingSlash::Ignored,
    ];
    let encoded = vec![EncodedCharacters::Deny, EncodedCharacters::Keep];
    (
        proptest::collection::vec(select(vec!["", "Reads everything", "это"]), SCOPES.len()),
        any::<bool>(),
        subsequence(vec!["/health", "/v1/{thing}", "/v1/**"], 0..=3),
        any::<bool>(),
        subsequence(denials, 0..=3),
        subsequence(vec!["things", "projects"], 0..=2),
        any::<bool>(),
        select(slashes),
        select(encoded),
    )
        .prop_map(
            |(
                descriptions,
                credentials,
                routes,
                route_needs_scope,
                denials,
                project_segments,
                lenient_paths,
                trailing_slash,
                encoded_characters,
            )| Rest {
                descriptions,
                credentials,
                routes,
                route_needs_scope,
                denials,
                project_segments,
                lenient_paths,
                trailing_slash,
                encoded_characters,
            },
        )
}

fn plan() -> impl Strategy<Value = Plan> {
    let display_name = || select(&DISPLAY_NAMES[..]);
    let named = || proptest::option::of(display_name());
    let partner_edit = prop_oneof![
        2 => named().prop_map(PartnerEdit::Put),
        1 => Just(PartnerEdit::Suspend),
        1 => Just(PartnerEdit::Restore),
    ];
    (
        proptest::option::weighted(0.9, (realm_flags(0.8), rest())),
        realm_flags(0.3),
        proptest::option::weighted(0.8, (display_name(), any::<bool>())),
        partner_edit,
        named(),
        named(),
    )
        .prop_map(
            |(realm, realm_edit, partner, partner_edit, project, project_edit)| Plan {
                realm,
                realm_edit,
                partner,
                partner_edit,
                project,
                project_edit,
            },
        )
}

impl RealmFlags {
    fn is_empty(&self) -> bool {
        self.line("").is_empty()
    }

    /// The flags as they are typed, for a realm with this id.
    fn line(&self, id: &str) -> String {
        let mut line = String::new();
        let mut flag = |text: String| write!(line, " --{text}").unwrap();
        if let Some(end) = self.prefix {
            flag(format!("prefix={id}{end}"));
        }
        for (index, (name, end)) in self.environments.iter().flatten().enumerate() {
            flag(format!("environment={name}={index}{end}"));
        }
        for (name, implies) in self.scopes.iter().flatten() {
            let equals = if implies.is_empty() { "" } else { "=" };
            flag(format!("scope={name}{equals}{}", implies.join(",")));
        }
        if self.scopes.as_ref().is_some_and(Vec::is_empty) {
            flag("no-scopes".to_owned());
        }
        if let Some(scope) = self.admin_scope {
            flag(format!("admin-scope={scope}"));
        }
        if let Some(full_access) = self.full_access {
            let access = if full_access {
                "full-access"
            } else {
                "no-access"
            };
            flag(format!("unscoped-keys={access}"));
        }
        for level in self.levels.iter().flatten() {
            flag(format!("level={}", LEVELS[*level].0));
        }
        if let Some(seconds) = self.max_cache {
            flag(format!("max-cache={seconds}s"));
        }
        if let Some(seconds) = self.max_lifetime {
            flag(format!("max-lifetime={seconds}s"));
        }
        line
    }

    /// What the flags make of a realm.
    fn applied_to(&self, mut realm: pb::Realm) -> pb::Realm {
        if let Some(end) = self.prefix {
            realm.prefix = format!("{}{end}", realm.id);
        }
        if let Some(environments) = &self.environments {
            let environments = environments.iter().enumerate();
            realm.environments = environments
                .map(|(index, (name, end))| pb::Environment {
                    name: (*name).to_owned(),
                    tag: format!("{index}{end}"),
                })
                .collect();
        }
        if let Some(scopes) = &self.scopes {
            let old = std::mem::take(&mut realm.scopes);
            let description = |name: &str| {
                let same = old.iter().find(|scope| scope.name == name);
                same.map(|scope| scope.description.clone())
                    .unwrap_or_default()
            };
            realm.scopes = scopes
                .iter()
                .map(|(name, implies)| pb::Scope {
                    name: (*name).to_owned(),
                    implies: strings(implies),
                    description: description(name),
                    ..Default::default()
                })
                .collect();
        }
        if let Some(scope) = self.admin_scope {
            scope.clone_into(&mut realm.admin_scope);
        }
        if let Some(full_access) = self.full_access {
            realm.set_unscoped_keys(if full_access {
                pb::UnscopedKeys::FullAccess
            } else {
                pb::UnscopedKeys::NoAccess
            });
        }
        if let Some(levels) = &self.levels {
            realm.levels = levels.iter().map(|level| LEVELS[*level].1.into()).collect();
        }
        if let Some(span) = self.max_cache {
            realm.max_cache = seconds(span);
        }
        if let Some(span) = self.max_lifetime {
            realm.max_lifetime = seconds(span);
        }
        realm
    }
}

/// A realm of which nothing but its id is defined, as the server would return it.
fn empty_realm(id: &str) -> pb::Realm {
    pb::Realm {
        id: id.to_owned(),
        unscoped_keys: pb::UnscopedKeys::NoAccess.into(),
        levels: LEVELS.map(|(_, level)| level.into()).to_vec(),
        max_cache: seconds(0),
        max_lifetime: seconds(0),
        trailing_slash: pb::TrailingSlash::Deny.into(),
        encoded_characters: pb::EncodedCharacters::Deny.into(),
        ..Default::default()
    }
}

/// The existing realm. It is valid whatever the flags are.
fn existing_realm(id: &str, flags: &RealmFlags, rest: &Rest) -> pb::Realm {
    let environment = |tag: &str| pb::Environment {
        name: "production".to_owned(),
        tag: tag.to_owned(),
    };
    let scope = |name: &str| pb::Scope {
        name: name.to_owned(),
        ..Default::default()
    };
    let empty = pb::Realm {
        prefix: format!("{id}z"),
        environments: vec![environment("live")],
        scopes: vec![scope("read")],
        ..empty_realm(id)
    };
    let mut realm = flags.applied_to(empty);
    for needed in ["read", &realm.admin_scope.clone()] {
        if !needed.is_empty() && !realm.scopes.iter().any(|scope| scope.name == needed) {
            realm.scopes.push(scope(needed));
        }
    }
    for (scope, description) in realm.scopes.iter_mut().zip(&rest.descriptions) {
        (*description).clone_into(&mut scope.description);
    }
    let scopes = if rest.route_needs_scope {
        &["read"][..]
    } else {
        &[]
    };
    pb::Realm {
        credentials: rest.credentials.then(|| pb::Credentials {
            sources: vec![header_source("authorization", "Bearer")],
            partner_header: "x-api-user".to_owned(),
        }),
        routes: rest
            .routes
            .iter()
            .map(|path| pb::Route {
                methods: strings(&["GET"]),
                path: (*path).to_owned(),
                scopes: strings(scopes),
                ..Default::default()
            })
            .collect(),
        denials: rest
            .denials
            .iter()
            .map(|class| pb::Denial {
                denial_class: (*class).into(),
                body: "no".to_owned(),
                ..Default::default()
            })
            .collect(),
        project_segments: strings(&rest.project_segments),
        lenient_paths: rest.lenient_paths,
        trailing_slash: rest.trailing_slash.into(),
        encoded_characters: rest.encoded_characters.into(),
        ..realm
    }
}

/// A realm, or `None` if it does not exist; without its revision, which an edit changes.
async fn get_realm(api: &mut Api, id: &str) -> Option<pb::Realm> {
    let request = pb::GetRealmRequest {
        realm_id: id.to_owned(),
    };
    match api.realms.get_realm(request).await {
        Ok(answer) => Some(pb::Realm {
            revision: 0,
            ..answer.into_inner().realm.unwrap()
        }),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound);
            None
        }
    }
}

async fn get_partner(api: &mut Api, id: &str) -> Option<(String, bool)> {
    let request = pb::GetPartnerRequest {
        realm: "demo".to_owned(),
        partner: id.to_owned(),
    };
    match api.realms.get_partner(request).await {
        Ok(answer) => {
            let partner = answer.into_inner().partner.unwrap();
            Some((partner.display_name, partner.suspended.unwrap()))
        }
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound);
            None
        }
    }
}

struct EditFixture {
    runtime: Runtime,
    shell: Shell,
    api: Api,
    cases: AtomicU32,
    accepted: AtomicU32,
    refused: AtomicU32,
}

impl EditFixture {
    fn run(&self, plan: &Plan) -> Result<(), TestCaseError> {
        // Each case has ids of its own.
        let id = format!("r{}", self.cases.fetch_add(1, Ordering::Relaxed));
        self.edit_realm(&id, plan)?;
        self.edit_partner(&id, plan)?;
        self.edit_project(&id, plan)
    }

    fn edit_realm(&self, id: &str, plan: &Plan) -> Result<(), TestCaseError> {
        let mut api = self.api.clone();
        let before = self.runtime.block_on(async {
            if let Some((flags, rest)) = &plan.realm {
                api.put_realm(existing_realm(id, flags, rest)).await;
            }
            get_realm(&mut api, id).await
        });
        let flags = &plan.realm_edit;
        let line = format!("realm put {id}{}", flags.line(id));
        let code = self.shell.run(&line, "").status.code();
        let after = self.runtime.block_on(get_realm(&mut api, id));
        if code == Some(0) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let base = before.unwrap_or_else(|| pb::Realm {
                create_time: after.as_ref().unwrap().create_time,
                ..empty_realm(id)
            });
            prop_assert_eq!(after.unwrap(), flags.applied_to(base), "{}", line);
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        prop_assert_eq!(&after, &before, "{}", &line);
        if flags.is_empty() {
            prop_assert_eq!(code, Some(2), "{}", line);
            return Ok(());
        }
        // The command is refused only if the server refuses what the flags make of the realm.
        let request = pb::PutRealmRequest {
            realm: Some(flags.applied_to(before.unwrap_or_else(|| empty_realm(id)))),
            ..Default::default()
        };
        let refusal = refused(self.runtime.block_on(api.realms.put_realm(request)));
        prop_assert_eq!(refusal.code, Code::InvalidArgument, "{}", line);
        Ok(())
    }

    fn edit_partner(&self, id: &str, plan: &Plan) -> Result<(), TestCaseError> {
        let mut api = self.api.clone();
        if let Some((display_name, suspended)) = plan.partner {
            let request = pb::PutPartnerRequest {
                partner: Some(pb::Partner {
                    realm: "demo".to_owned(),
                    id: id.to_owned(),
                    display_name: display_name.to_owned(),
                    suspended: Some(suspended),
                    ..Default::default()
                }),
                ..Default::default()
            };
            self.runtime
                .block_on(api.realms.put_partner(request))
                .unwrap();
        }
        let before = plan
            .partner
            .map(|(display_name, suspended)| (display_name.to_owned(), suspended));
        let (line, expected) = match plan.partner_edit {
            PartnerEdit::Put(display_name) => {
                let flag = display_name.map(|name| format!(" --display-name={name}"));
                let (old, suspended) = before.unwrap_or_default();
                let display_name = display_name.map_or(old, str::to_owned);
                let line = format!("partner put {id} --realm demo{}", flag.unwrap_or_default());
                (line, Some((display_name, suspended)))
            }
            PartnerEdit::Suspend => (
                format!("partner suspend {id} --realm demo --yes"),
                before.map(|(display_name, _)| (display_name, true)),
            ),
            PartnerEdit::Restore => (
                format!("partner restore {id} --realm demo"),
                before.map(|(display_name, _)| (display_name, false)),
            ),
        };
        let code = self.shell.run(&line, "").status.code();
        prop_assert_eq!(code, Some(i32::from(expected.is_none())), "{}", &line);
        let after = self.runtime.block_on(get_partner(&mut api, id));
        prop_assert_eq!(after, expected, "{}", line);
        Ok(())
    }

    fn edit_project(&self, id: &str, plan: &Plan) -> Result<(), TestCaseError> {
        let mut api = self.api.clone();
        if let Some(display_name) = plan.project {
            let request = pb::PutProjectRequest {
                project: Some(pb::Project {
                    realm: "demo".to_owned(),
                    id: id.to_owned(),
                    partner: "acme".to_owned(),
                    display_name: display_name.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            self.runtime
                .block_on(api.realms.put_project(request))
                .unwrap();
        }
        let flag = plan
            .project_edit
            .map(|name| format!(" --display-name={name}"));
        let line = format!(
            "project put {id} --realm demo --partner acme{}",
            flag.unwrap_or_default()
        );
        self.shell.says(&line, "", 0);
        let request = pb::ListProjectsRequest {
            realm: "demo".to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let listed = self
            .runtime
            .block_on(api.realms.list_projects(request))
            .unwrap()
            .into_inner();
        let project = listed
            .projects
            .into_iter()
            .find(|project| project.id == id)
            .unwrap();
        let expected = plan.project_edit.or(plan.project).unwrap_or_default();
        prop_assert_eq!(project.display_name, expected, "{}", line);
        Ok(())
    }
}

/// Seen red with the values of the flags put alone, without what was read, for realms and then only for partners and projects;
/// and with new scopes that take no description from the old ones.
#[test]
fn what_no_flag_names_stays_as_it_was() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let api = runtime.block_on(async {
        let mut api = program.api();
        api.make_demo().await;
        api
    });
    let fixture = EditFixture {
        runtime,
        shell: Shell { program, operator },
        api,
        cases: AtomicU32::new(0),
        accepted: AtomicU32::new(0),
        refused: AtomicU32::new(0),
    };
    let cases = u32::try_from(from_env("CLAVIGER_TEST_EDITS", 32)).unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    if let Err(failure) = runner.run(&plan(), |plan| fixture.run(&plan)) {
        panic!("{failure}");
    }
    let (accepted, refused) = (fixture.accepted.into_inner(), fixture.refused.into_inner());
    println!("{accepted} edits of realms were made, {refused} were refused");
    assert!(
        2 * accepted > cases,
        "{accepted} edits of realms were made, {refused} were refused"
    );
}
