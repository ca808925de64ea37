//! `serve --init --apply`: a new authority as files declare it.

use std::fs;
use std::path::Path;
use std::process::Output;

use claviger::hashing::ImportHash;
use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{Api, Engine, Program, TestStore, claviger, on_both_engines, outcome};

const OPERATOR: &str = "claviger-test-0123456789-abcdefghij-operator";
const GATEWAY: &str = "claviger-test-0123456789-abcdefghij-gateway";

/// The example, with the hashes of these API keys.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/declared/authority.toml");
    let [operator, gateway] = [OPERATOR, GATEWAY].map(|plain_key| ImportHash::of(plain_key).hex());
    let text = fs::read_to_string(path).unwrap();
    text.replace("OPERATOR_SHA256", &operator)
        .replace("GATEWAY_SHA256", &gateway)
}

const SERVE: [&str; 5] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--http-listen",
    "127.0.0.1:0",
];

fn serve(test_store: &TestStore, more: &[&str]) -> Output {
    let flags = test_store.flags();
    let mut line = [&SERVE[..], &["--init"]].concat();
    line.extend(flags.iter().map(String::as_str));
    line.extend(more);
    outcome(&mut claviger(&line))
}

on_both_engines! {
    async fn one_file_and_one_command_make_a_serving_authority(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authority.toml");
        fs::write(&file, example()).unwrap();
        let flags = ["--apply", file.to_str().unwrap()];
        let test_store = TestStore::on(engine);
        let program = Program::serve(&test_store, &flags);
        let mut operator = Api::new(&program.address, OPERATOR);
        let realms = operator.realms.list_realms(pb::ListRealmsRequest::default()).await;
        let ids: Vec<_> = realms.unwrap().into_inner().realms.into_iter().map(|realm| realm.id).collect();
        assert_eq!(ids, ["bullseye", "claviger", "partna", "partnero", "peaka"]);
        let mut gateway = Api::new(&program.address, GATEWAY);
        let question = pb::VerifyRequest {
            key: "bullseye_live_x".to_owned(),
            realm: "bullseye".to_owned(),
            ..Default::default()
        };
        let answer = gateway.verify.verify(question).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), pb::Verdict::Malformed);
        // No secret was made, so none can be found.
        assert!(!test_store.data().join("operator.key").exists());
        let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
        assert!(log.contains("authority created as declared"), "{log}");
        for secret in [OPERATOR, GATEWAY] {
            assert!(!log.contains(secret) && !log.contains(&ImportHash::of(secret).hex()), "{log}");
        }
        let events = operator.keys.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
        assert_eq!(events.last().unwrap().kind, "authority.created");
        // Later starts change nothing, and do not need the file.
        drop(program);
        for text in [Some(example().replace("mtKDhe1U", "another")), Some("[[realms".to_owned()), None] {
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let program = Program::serve(&test_store, &flags);
            let mut operator = Api::new(&program.address, OPERATOR);
            let projects = pb::ListProjectsRequest { realm: "peaka".to_owned(), ..Default::default() };
            let projects = operator.realms.list_projects(projects).await.unwrap().into_inner().projects;
            assert_eq!(projects[0].id, "mtKDhe1U");
            let again = operator.keys.list_events(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
            assert_eq!(again.len(), events.len());
            let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
            assert!(log.contains("the files of --apply are not used"), "{log}");
        }
    }

    /// Seen red without the check for an operator.
    async fn what_declares_no_authority_makes_none(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authority.toml");
        let flags = ["--apply", file.to_str().unwrap()];
        let test_store = TestStore::on(engine);
        let without_operator = example().replace("scopes = [\"operator\"]", "scopes = [\"read\"]");
        for (text, said) in [
            (without_operator, "keys: must have an operator key"),
            (example().replace("realm = \"peaka\"", "realm = \"ghost\""), "partners[0].realm: does not exist"),
            (example().replace("id = \"acme\"", "id = \"a b\""), "partners[0].id: must match"),
            (example().replace("display_name", "displayname"), "`partners[0].displayname` is not a field"),
        ] {
            fs::write(&file, text).unwrap();
            let output = serve(&test_store, &flags);
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{complaint}");
            assert!(complaint.contains(said), "{complaint} instead of {said}");
            let refused = outcome(claviger(&SERVE).args(test_store.flags()));
            let complaint = String::from_utf8(refused.stderr).unwrap();
            assert!(complaint.contains("there is no authority"), "{complaint}");
        }
        // Nothing stands in the way of the right file.
        fs::write(&file, example()).unwrap();
        Program::serve(&test_store, &flags);
        let output = outcome(claviger(&SERVE).args(["--apply", "x"]).args(test_store.flags()));
        assert_eq!(output.status.code(), Some(78), "--apply needs --init");
    }

    /// By a variable, a file of settings, and a check of these.
    async fn the_files_can_be_named_like_every_other_setting(engine: Engine) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authority.toml");
        fs::write(&file, example().replace("id = \"acme\"", "id = \"a b\"")).unwrap();
        let settings = dir.path().join("claviger.toml");
        fs::write(&settings, format!("init = true\napply = [\"{}\"]\n", file.display())).unwrap();
        let test_store = TestStore::on(engine);
        let by_variable = || {
            let mut command = claviger(&SERVE);
            command.env("CLAVIGER_INIT", "true").env("CLAVIGER_APPLY", &file);
            command
        };
        let by_file = || {
            let mut command = claviger(&SERVE);
            command.args(["--config", settings.to_str().unwrap()]);
            command
        };
        for mut command in [by_variable(), by_file()] {
            let output = outcome(command.args(test_store.flags()));
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{complaint}");
            assert!(complaint.contains("partners[0].id: must match"), "{complaint}");
        }
        let mut check = by_variable();
        let output = outcome(check.arg("--check-config").args(test_store.flags()));
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{complaint}");
        assert!(complaint.contains("partners[0].id: must match"), "{complaint}");
    }
}
