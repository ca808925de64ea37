//! `claviger doctor`: finds what is planted, each by its check, and nothing on a healthy server. It changes nothing.

mod database;
mod files;
mod healthy;
mod network;
mod readings;
mod tls;
mod unchanged;

use std::process::Output;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::fixtures::{Cluster, DATABASE_PASSWORD, Engine, TestStore, claviger, outcome};

const HEALTHY: i32 = 0;
const FAILED: i32 = 1;
const BAD_CONFIGURATION: i32 = 78;

/// Flags with which nothing depends on the machine of the tests: its ports, and how many files may be open there.
const FLAGS: [&str; 6] = [
    "--listen=127.0.0.1:0",
    "--http-listen=127.0.0.1:0",
    "--max-connections=256",
    "--max-connections-per-address=64",
    "--argon2-memory=8",
    "--argon2-passes=1",
];

/// A PostgreSQL in which nobody else takes connections.
fn cluster() -> Arc<Cluster> {
    static CLUSTER: OnceLock<Arc<Cluster>> = OnceLock::new();
    Arc::clone(CLUSTER.get_or_init(|| Arc::new(Cluster::start())))
}

/// A healthy authority on which no server runs. Its operator key is where it belongs.
fn authority(engine: Engine) -> Arc<TestStore> {
    let test_store = match engine {
        Engine::Sqlite => TestStore::on(Engine::Sqlite),
        Engine::Postgres => TestStore::in_cluster(&cluster()),
    };
    let flags = test_store.flags();
    let mut args = vec!["bootstrap", "--argon2-memory=8", "--argon2-passes=1"];
    args.extend(flags.iter().map(String::as_str));
    let output = outcome(&mut claviger(&args));
    assert!(output.status.success(), "{output:?}");
    test_store
}

/// What `doctor` has found.
struct Report {
    code: i32,
    document: Value,
    /// The same for people.
    text: String,
}

/// Examines a store with further flags.
fn examine(test_store: &TestStore, flags: &[&str]) -> Report {
    let of_store = test_store.flags();
    let mut all: Vec<&str> = of_store.iter().map(String::as_str).collect();
    all.extend(flags);
    examine_with(&all)
}

/// Examines what these flags name.
fn examine_with(flags: &[&str]) -> Report {
    // The flags of a test win over those of all tests.
    let name = |flag: &str| flag.split('=').next().map(str::to_owned);
    let own: Vec<_> = flags.iter().map(|flag| name(flag)).collect();
    let mut line = vec!["doctor"];
    line.extend(FLAGS.iter().filter(|flag| !own.contains(&name(flag))));
    line.extend(flags);
    let text = outcome(&mut claviger(&line));
    line.push("--json");
    let json = outcome(&mut claviger(&line));
    assert_eq!(text.status, json.status, "{text:?} {json:?}");
    Report::of(&json, String::from_utf8(text.stdout).unwrap())
}

impl Report {
    fn of(json: &Output, text: String) -> Self {
        let printed = String::from_utf8(json.stdout.clone()).unwrap();
        let said = String::from_utf8_lossy(&json.stderr);
        assert_eq!(said, "", "{text}");
        for output in [&printed, &text] {
            assert!(!output.contains(DATABASE_PASSWORD), "{output}");
        }
        Self {
            code: json.status.code().unwrap(),
            document: serde_json::from_str(&printed).unwrap(),
            text,
        }
    }

    fn checks(&self) -> &Vec<Value> {
        self.document["checks"].as_array().unwrap()
    }

    fn ids(&self, outcome: &str) -> Vec<&str> {
        let checks = self.checks().iter();
        let ended_so = checks.filter(|check| check["outcome"] == outcome);
        ended_so
            .map(|check| check["id"].as_str().unwrap())
            .collect()
    }

    fn check(&self, id: &str) -> &Value {
        let mut checks = self.checks().iter();
        checks.find(|check| check["id"] == id).expect(id)
    }

    /// Nothing is wrong, and these checks have passed.
    #[track_caller]
    fn is_healthy(&self, passed: &[&str]) {
        assert_eq!(self.code, HEALTHY, "{}", self.text);
        let wrong = [self.ids("failed"), self.ids("warning")].concat();
        assert!(wrong.is_empty(), "{}", self.text);
        for id in passed {
            assert_eq!(self.check(id)["outcome"], "passed", "{id}: {}", self.text);
        }
    }

    /// These checks have failed, these have warned, and no other is wrong.
    #[track_caller]
    fn has(&self, failed: &[&str], warning: &[&str]) {
        assert_eq!(self.ids("failed"), failed, "{}", self.text);
        assert_eq!(self.ids("warning"), warning, "{}", self.text);
        let code = match failed {
            [] => HEALTHY,
            ["configuration", ..] => BAD_CONFIGURATION,
            _ => FAILED,
        };
        assert_eq!(self.code, code);
    }

    /// A finding of a check has these texts, and says what to do. The screen has the same.
    #[track_caller]
    fn says(&self, id: &str, found: &str, advice: &str) {
        let findings = self.check(id)["findings"].as_array().unwrap();
        let has = |finding: &&Value| {
            let text = |name: &str| finding[name].as_str().unwrap().to_owned();
            let whole = format!("{} {}", text("found"), text("advice"));
            text("found").contains(found) && whole.contains(advice)
        };
        assert!(
            findings.iter().any(|finding| has(&finding)),
            "{id}: {}",
            self.text
        );
        assert!(!found.is_empty() && !advice.is_empty(), "{id}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&self.text).contains(&words(found)), "{}", self.text);
    }

    /// Only this check has failed, with these texts.
    #[track_caller]
    fn failed(&self, id: &str, found: &str, advice: &str) {
        self.has(&[id], &[]);
        self.says(id, found, advice);
    }

    /// Only this check has warned, with these texts.
    #[track_caller]
    fn warned(&self, id: &str, found: &str, advice: &str) {
        self.has(&[], &[id]);
        self.says(id, found, advice);
    }
}
