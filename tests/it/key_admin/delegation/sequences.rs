//! Random sequences of calls by delegates, and by the keys that come of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::domain::access::ScopeSet;
use claviger::domain::clock::Clock;
use claviger::domain::time::Timestamp;
use claviger::domain::verdict::Verdict;
use claviger::hashing::Peppers;
use claviger::pb::claviger::v1 as pb;
use claviger::verify::{Moment, Question, Target, decide};
use pb::KeyLevel;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use tonic::{Code, Status};

use crate::fixtures::{Api, Engine, Service, delegating_service_with, from_env, strings};

/// A key as a random sequence asks for it.
#[derive(Clone, Debug)]
struct KeySpec {
    partner: &'static str,
    project: Option<&'static str>,
    environment: &'static str,
    scopes: Option<Vec<&'static str>>,
    /// In hours from now on.
    end: Option<i64>,
    ranges: Vec<&'static str>,
}

/// What is done next, and by which of the keys that there are.
#[derive(Clone, Debug)]
struct Step {
    by: usize,
    action: Action,
}

/// What of a key is to be changed, to what the specification says.
#[derive(Clone, Debug)]
struct Change {
    access: bool,
    end: bool,
    ranges: bool,
    to: KeySpec,
}

/// What is done, and to which of the keys.
#[derive(Clone, Debug)]
enum Action {
    Issue(KeySpec),
    Update(usize, Box<Change>),
    Rotate(usize, i64),
    Disable(usize),
    Enable(usize),
    Revoke(usize),
    Delete(usize),
}

const SCOPES: [&str; 5] = ["read", "write", "billing", "keys", "owner"];
const RANGES: [&str; 4] = ["0.0.0.0/0", "127.0.0.0/8", "127.0.0.1/32", "10.0.0.0/8"];
const CLIENTS: [&str; 4] = ["127.0.0.1", "127.9.9.9", "10.1.1.1", "192.0.2.1"];
const ENDS: [i64; 3] = [1, 24, 1_000];

/// Specifications are near each other, so that many can be granted and many just not.
fn key_spec() -> impl Strategy<Value = KeySpec> {
    let owner = prop_oneof![
        6 => Just(("acme", None)),
        4 => Just(("acme", Some("one"))),
        1 => Just(("acme", Some("two"))),
        1 => Just(("umbrella", None)),
        1 => Just(("umbrella", Some("three"))),
        1 => Just(("acme", Some("three"))),
    ];
    let scopes = prop_oneof![
        5 => subsequence(&SCOPES[..], 0..=SCOPES.len()).prop_map(|mut scopes| {
            // Most shall be able to go on.
            if !scopes.contains(&"keys") && scopes.len() != 1 {
                scopes.push("keys");
            }
            Some(scopes)
        }),
        1 => Just(None),
    ];
    let end = proptest::option::weighted(0.6, select(&ENDS[..]));
    let ranges = prop_oneof![
        Just(Vec::new()),
        subsequence(&RANGES[..], 1..=2),
        Just(vec!["127.0.0.0/8"]),
    ];
    let environment = prop_oneof![5 => Just("production"), 1 => Just("staging")];
    (owner, environment, scopes, end, ranges).prop_map(
        |((partner, project), environment, scopes, end, ranges)| KeySpec {
            partner,
            project,
            environment,
            scopes,
            end,
            ranges,
        },
    )
}

/// Some of what another specification says, and at least something.
fn change() -> impl Strategy<Value = Change> {
    (key_spec(), 1..8_u8).prop_map(|(to, which)| Change {
        access: which & 1 != 0,
        end: which & 2 != 0,
        ranges: which & 4 != 0,
        to,
    })
}

/// One of so many keys, half of the time the last: the lesser ones come last.
fn late(i: usize, keys: usize) -> usize {
    (i % (2 * keys)).min(keys - 1)
}

/// One of so many keys, half of the time the first: the greater ones come first.
fn early(i: usize, keys: usize) -> usize {
    (i % (2 * keys)).saturating_sub(keys)
}

fn step() -> impl Strategy<Value = Step> {
    let one = || 0..64_usize;
    let action = prop_oneof![
        6 => key_spec().prop_map(Action::Issue),
        4 => (one(), change()).prop_map(|(key, change)| Action::Update(key, Box::new(change))),
        2 => (one(), select(&[0, 1][..])).prop_map(|(key, hours)| Action::Rotate(key, hours)),
        3 => one().prop_map(Action::Disable),
        3 => one().prop_map(Action::Enable),
        1 => one().prop_map(Action::Revoke),
        1 => one().prop_map(Action::Delete),
    ];
    (one(), action).prop_map(|(by, action)| Step { by, action })
}

/// A question to which keys could have different answers.
#[derive(Clone, Copy, Debug)]
struct AccessQuestion {
    partner: &'static str,
    project: Option<&'static str>,
    environment: &'static str,
    scope: &'static str,
    client: &'static str,
    hours: i64,
}

impl AccessQuestion {
    /// Every question about the owner, the project and the environment that the key was made for: what a key of another
    /// owner is good for, this one's is not, so that to compare the two there is to compare in these dimensions too.
    fn around(spec: &KeySpec) -> impl Iterator<Item = Self> {
        let KeySpec {
            partner,
            project,
            environment,
            ..
        } = *spec;
        let projects = match project {
            None => vec![None, Some("one")],
            bound => vec![bound],
        };
        let scopes = ["", "read", "write", "billing", "keys", "owner"];
        projects.into_iter().flat_map(move |project| {
            scopes.into_iter().flat_map(move |scope| {
                CLIENTS.into_iter().flat_map(move |client| {
                    [0, 2, 100, 10_000].into_iter().map(move |hours| Self {
                        partner,
                        project,
                        environment,
                        scope,
                        client,
                        hours,
                    })
                })
            })
        })
    }
}

/// What all sequences share: the server, and how many calls it granted and refused.
struct SequenceFixture {
    service: Service,
    root: Api,
    peppers: Peppers,
    now: i64,
    granted: AtomicUsize,
    refused: AtomicUsize,
}

/// A key that a sequence has in hand.
#[derive(Clone)]
struct HeldKey {
    id: String,
    plain_key: String,
    /// Whether it may do everything, also what nobody can ask for yet.
    is_full: bool,
    is_off: bool,
    spec: KeySpec,
}

impl HeldKey {
    fn new(issued: pb::IssueKeyResponse, spec: KeySpec) -> Self {
        let key = issued.key.unwrap();
        Self {
            id: key.id,
            plain_key: issued.plain_key,
            is_full: key.full_access,
            is_off: false,
            spec,
        }
    }
}

impl SequenceFixture {
    fn request(&self, spec: &KeySpec) -> pb::IssueKeyRequest {
        let seconds = |hours: i64| prost_types::Timestamp {
            seconds: self.now + hours * 3_600,
            nanos: 0,
        };
        pb::IssueKeyRequest {
            realm: "demo".to_owned(),
            partner: spec.partner.to_owned(),
            project: spec.project.unwrap_or_default().to_owned(),
            level: match spec.project {
                None => KeyLevel::Partner.into(),
                Some(_) => KeyLevel::Project.into(),
            },
            environment: spec.environment.to_owned(),
            scopes: strings(spec.scopes.as_deref().unwrap_or_default()),
            full_access: spec.scopes.is_none(),
            expire_time: spec.end.map(seconds),
            allowed_cidrs: strings(&spec.ranges),
            ..Default::default()
        }
    }

    fn update(&self, key: &HeldKey, change: &Change) -> pb::UpdateKeyRequest {
        let pb::IssueKeyRequest {
            scopes,
            full_access,
            expire_time,
            allowed_cidrs,
            ..
        } = self.request(&change.to);
        let mut request = pb::UpdateKeyRequest {
            key_id: key.id.clone(),
            ..Default::default()
        };
        let mut paths = Vec::new();
        if change.access {
            (request.scopes, request.full_access) = (scopes, full_access);
            paths.extend(["scopes", "full_access"]);
        }
        if change.end {
            request.expire_time = expire_time;
            paths.push("expire_time");
        }
        if change.ranges {
            request.allowed_cidrs = allowed_cidrs;
            paths.push("allowed_cidrs");
        }
        request.update_mask = Some(prost_types::FieldMask {
            paths: strings(&paths),
        });
        request
    }

    /// What a key is good for, of a part of the questions about the owner of a specification.
    fn answers(&self, plain_key: &str, spec: &KeySpec) -> Vec<bool> {
        let turn = self.granted.load(Ordering::Relaxed) % 5;
        let questions = AccessQuestion::around(spec).skip(turn).step_by(5);
        questions
            .map(|question| self.is_good(plain_key, &question))
            .collect()
    }

    /// Whether the key is good for this question, decided by the service's own mirror, at any time.
    fn is_good(&self, plain_key: &str, question: &AccessQuestion) -> bool {
        let index = self.service.mirror.index();
        let view = index.view();
        let realm = view.realm("demo").unwrap();
        let mut scopes = ScopeSet::default();
        if let Some(index) = realm.hierarchy.index_of(question.scope) {
            scopes.insert(index);
        }
        let then = (self.now + 60 + question.hours * 3_600) * 1_000_000;
        let question = Question {
            realm,
            environment: &realm
                .definition
                .environment(question.environment)
                .unwrap()
                .name,
            target: question.project.map_or(Target::Partner, Target::Project),
            projects: &[],
            partner: question.partner,
            scopes,
            any_scopes: ScopeSet::default(),
            client: Some(question.client.parse().unwrap()),
        };
        let decision = decide(
            plain_key,
            &question,
            &view,
            &self.peppers,
            Moment::at(Timestamp::from_micros(then)),
        );
        decision.unwrap().verdict == Verdict::Allowed
    }

    /// After `by` gave `key` what it can do now.
    fn check_grant(&self, by: &HeldKey, key: &HeldKey) -> Result<(), TestCaseError> {
        // Not all of them each time: there are many keys, and the next begins elsewhere.
        let turn = self.granted.load(Ordering::Relaxed) % 5;
        for question in AccessQuestion::around(&key.spec).skip(turn).step_by(5) {
            prop_assert!(
                !self.is_good(&key.plain_key, &question) || self.is_good(&by.plain_key, &question),
                "{:?} gave {:?} what it is not good for itself: {question:?}",
                by.spec,
                key.spec
            );
        }
        prop_assert!(
            !key.is_full || by.is_full,
            "{:?} gave {:?} everything",
            by.spec,
            key.spec
        );
        Ok(())
    }

    fn count<T>(&self, outcome: &Result<T, Status>) -> Result<(), TestCaseError> {
        let counter = match outcome {
            Ok(_) => &self.granted,
            Err(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(refusal) = outcome {
            let expected = [
                Code::PermissionDenied,
                Code::NotFound,
                Code::Unauthenticated,
                Code::FailedPrecondition,
            ];
            prop_assert!(expected.contains(&refusal.code()), "{refusal:?}");
        }
        Ok(())
    }

    /// Changes a key, and looks at what it is good for that neither it nor `by` was good for before.
    async fn run_update(
        &self,
        by: &HeldKey,
        key: &mut HeldKey,
        change: &Change,
    ) -> Result<Result<(), Status>, TestCaseError> {
        let before = self.answers(&key.plain_key, &key.spec);
        let of_by = self.answers(&by.plain_key, &key.spec);
        let mut api = self.root.with_key(&by.plain_key);
        let answer = api.keys.update_key(self.update(key, change)).await;
        if let Ok(answer) = &answer {
            let after = self.answers(&key.plain_key, &key.spec);
            for ((was, has), is) in before.into_iter().zip(of_by).zip(after) {
                prop_assert!(!is || was || has, "{:?} widened {:?}", by.spec, key.spec);
            }
            let is_full = answer.get_ref().key.as_ref().unwrap().full_access;
            let was_full = std::mem::replace(&mut key.is_full, is_full);
            let may_be_full = was_full || by.is_full;
            prop_assert!(!is_full || may_be_full, "{:?} gave everything", by.spec);
        }
        Ok(answer.map(drop))
    }

    /// Rotates a key, and looks at what `by` has in hand then.
    async fn run_rotation(
        &self,
        by: &HeldKey,
        key: &mut HeldKey,
        hours: i64,
    ) -> Result<Result<(), Status>, TestCaseError> {
        // Before: it may be the very key, whose secret may stop with this.
        let of_by = self.answers(&by.plain_key, &key.spec);
        let request = pb::RotateKeyRequest {
            key_id: key.id.clone(),
            overlap: Some(prost_types::Duration {
                seconds: hours * 3_600,
                nanos: 0,
            }),
            ..Default::default()
        };
        let mut api = self.root.with_key(&by.plain_key);
        let answer = api.keys.rotate_key(request).await;
        if let Ok(answer) = &answer {
            key.plain_key.clone_from(&answer.get_ref().plain_key);
            for (is, has) in self
                .answers(&key.plain_key, &key.spec)
                .into_iter()
                .zip(of_by)
            {
                prop_assert!(
                    !is || has,
                    "{:?} took the secret of {:?}",
                    by.spec,
                    key.spec
                );
            }
            let may_be_full = by.is_full || by.id == key.id;
            prop_assert!(!key.is_full || may_be_full, "{:?} took everything", by.spec);
        }
        Ok(answer.map(drop))
    }

    /// One sequence of calls, by the first key and by those that come of it.
    async fn run(&self, first: KeySpec, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let request = self.request(&first);
        let Ok(issued) = self.root.clone().keys.issue_key(request).await else {
            // The project is another partner's: nobody can make that.
            return Ok(());
        };
        let mut held = vec![HeldKey::new(issued.into_inner(), first)];
        for Step { by, action } in steps {
            let by = held[late(by, held.len())].clone();
            let mut api = self.root.with_key(&by.plain_key);
            let (key, answer) = match action {
                Action::Issue(spec) => {
                    let answer = api.keys.issue_key(self.request(&spec)).await;
                    self.count(&answer)?;
                    if let Ok(issued) = answer {
                        let key = HeldKey::new(issued.into_inner(), spec);
                        self.check_grant(&by, &key)?;
                        held.push(key);
                    }
                    continue;
                }
                Action::Update(key, change) => {
                    let key = early(key, held.len());
                    (key, self.run_update(&by, &mut held[key], &change).await?)
                }
                Action::Rotate(key, hours) => {
                    let key = early(key, held.len());
                    (key, self.run_rotation(&by, &mut held[key], hours).await?)
                }
                Action::Disable(key) => {
                    let key = early(key, held.len());
                    let request = pb::DisableKeyRequest {
                        key_id: held[key].id.clone(),
                        ..Default::default()
                    };
                    let answer = api.keys.disable_key(request).await.map(drop);
                    held[key].is_off |= answer.is_ok();
                    (key, answer)
                }
                Action::Enable(key) => {
                    let key = early(key, held.len());
                    let request = pb::EnableKeyRequest {
                        key_id: held[key].id.clone(),
                        ..Default::default()
                    };
                    let answer = api.keys.enable_key(request).await.map(drop);
                    if answer.is_ok() && std::mem::take(&mut held[key].is_off) {
                        self.check_grant(&by, &held[key])?;
                    }
                    (key, answer)
                }
                Action::Revoke(key) => {
                    let key = early(key, held.len());
                    (key, api.revoke(&held[key].id).await.map(drop))
                }
                Action::Delete(key) => {
                    let key = early(key, held.len());
                    (key, api.delete(&held[key].id).await.map(drop))
                }
            };
            self.count(&answer)?;
            if answer.is_ok() {
                let (by, key) = (&by.spec, &held[key].spec);
                prop_assert!(
                    by.partner == key.partner
                        && by.environment == key.environment
                        && (by.project.is_none() || by.project == key.project),
                    "{by:?} touched {key:?}"
                );
            }
        }
        Ok(())
    }
}

/// Whatever a caller does, no key that it issued, enabled or widened, or whose secret it took, can do what the caller could not.
/// The decision itself is asked, with the facts that the service decides by, so that the test holds no rule of its own about
/// what may be granted.
///
/// Seen red with each dimension left out in turn: scopes, full access, expiry and address ranges in `grants::privilege_escalation`; realm and
/// partner, project and environment in `Delegate::reaches`; and the check left out where a key is switched on, where it is
/// updated and where it is rotated.
fn no_key_can_do_what_its_maker_could_not(engine: Engine, sequences: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let fixture = runtime.block_on(async {
        let (service, root) =
            delegating_service_with(engine, &["--delegated-changes-per-hour=1000000"]).await;
        let pepper = service.test_store.pepper();
        SequenceFixture {
            peppers: Peppers::load(&pepper).unwrap().unwrap(),
            service,
            root,
            now: Clock::system().now().as_micros() / 1_000_000,
            granted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    });
    let mut runner = TestRunner::new(Config {
        cases: u32::try_from(sequences).unwrap(),
        failure_persistence: None,
        ..Config::default()
    });
    let plan = (key_spec(), proptest::collection::vec(step(), 1..6));
    let outcome = runner.run(&plan, |(first, steps)| {
        runtime.block_on(fixture.run(first, steps))
    });
    let (granted, refused) = (
        fixture.granted.load(Ordering::Relaxed),
        fixture.refused.load(Ordering::Relaxed),
    );
    println!("{sequences} sequences: {granted} calls did something, {refused} were refused");
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    assert!(
        granted > sequences / 2 && refused > sequences / 2,
        "the sequences ask too much or too little"
    );
}

mod sqlite {
    #[test]
    fn no_key_can_do_what_its_maker_could_not() {
        let sequences = super::from_env("CLAVIGER_TEST_SEQUENCES", 1_500);
        super::no_key_can_do_what_its_maker_could_not(super::Engine::Sqlite, sequences);
    }
}

mod postgres {
    #[test]
    fn no_key_can_do_what_its_maker_could_not() {
        let sequences = super::from_env("CLAVIGER_TEST_SEQUENCES", 1_500) / 5;
        super::no_key_can_do_what_its_maker_could_not(super::Engine::Postgres, sequences);
    }
}
