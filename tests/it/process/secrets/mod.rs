//! No secret is ever logged, printed, stored or echoed: recognisable ones are planted everywhere, every call is made and
//! every way to fail is taken, at the most detailed log level, and then everything that was written is searched.
//!
//! Seen red with the metadata of a call logged, with a new API key traced, with an error that repeats what was sent, and
//! with the API key, or the secret's bytes in hexadecimals, stored beside the key.

mod calls;
mod canaries;

use std::fs;
use std::path::Path;

use claviger::pb::claviger::v1 as pb;

use crate::fixtures::{
    DATABASE_PASSWORD, Engine, Program, TestStore, claviger, eventually, on_both_engines,
};
use crate::metrics::Scrape;
use crate::traces::Collector;
use calls::{ask_as_gateways, live_on, send_keys_to_wrong_places, use_every_call};
use canaries::Canaries;

on_both_engines! {
    async fn no_secret_is_logged_printed_stored_or_echoed(engine: Engine) {
        let test_store = TestStore::on(engine);
        let mut canaries = Canaries::default();
        let (collector, otlp) = Collector::start().await;
        let flags = ["--log", "trace,h2=trace", "--drain-delay", "0s", "--gateway", "nginx", "--otlp-endpoint", &otlp, "--trace-sample-ratio", "1"];
        let mut program = Program::serve(&test_store, &flags);
        let operator = program.operator();
        canaries.plant_key("the operator key", &operator);
        let mut api = program.api();
        api.make_demo().await;

        let mut errors = Vec::new();
        use_every_call(&mut api, &program.address, &mut canaries, &mut errors).await;
        send_keys_to_wrong_places(&mut api, &mut canaries, &mut errors).await;
        live_on(&mut api, &mut canaries, &mut errors).await;
        ask_as_gateways(&mut api, &program, &mut canaries, &mut errors).await;
        let pepper = fs::read_to_string(test_store.pepper()).unwrap();
        let digits = pepper.split('"').nth(1).unwrap();
        let bytes: Vec<u8> = (0..32)
            .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        canaries.plant_bytes("the pepper", &bytes);
        canaries.plant("the password of the database", DATABASE_PASSWORD);

        // Refusals of the program itself, with a key in its environment.
        // A server may share the database, but not the address.
        let serve = ["serve", "--listen", &program.address];
        for command in [serve.as_slice(), &["bootstrap"]] {
            let flags = test_store.flags();
            let mut line = [command, &["--log", "trace,h2=trace"]].concat();
            line.extend(flags.iter().map(String::as_str));
            let output = claviger(&line)
                .env("CLAVIGER_KEY", &operator)
                .output()
                .unwrap();
            assert!(!output.status.success());
            canaries.assert_absent("a refusal", &[output.stdout, output.stderr].concat());
        }
        for args in [
            ["--help"].as_slice(),
            &["serve", "--help"],
            &["keys", "issue", "--help"],
            &["keys", "get", "x"],
        ] {
            let output = claviger(args)
                .env("CLAVIGER_KEY", &operator)
                .env("CLAVIGER_ENDPOINT", &program.address)
                .env("CLAVIGER_DATABASE_URL", format!("postgres://claviger:{DATABASE_PASSWORD}@localhost/claviger"))
                .output()
                .unwrap();
            canaries.assert_absent(
                "a help text or an error",
                &[output.stdout, output.stderr].concat(),
            );
        }

        use_contexts(&program.address, &operator, &canaries);

        for error in &errors {
            let shown = format!("{error:?} {error}");
            canaries.assert_absent("an error", &[shown.as_bytes(), error.details()].concat());
        }
        let scrape = Scrape::of(&program.http).await.text;
        assert!(scrape.contains("verdict=\"malformed\""), "it tells of what was done");
        canaries.assert_absent("the metrics", scrape.as_bytes());
        let spans = eventually("spans arrive", async || {
            let spans = collector.bytes();
            (spans.len() > 10_000).then_some(spans)
        })
        .await;
        canaries.assert_absent("the traces", &spans);
        // Killed, so that the write-ahead log is left as it was.
        program.kill();
        let log = program.log.lock().unwrap().clone();
        assert!(
            log.len() > 100_000,
            "the log is as talkative as can be: {} bytes",
            log.len()
        );
        canaries.assert_absent("the log", &log);
        let mut searched = search(&test_store.data(), &canaries);
        match engine {
            Engine::Sqlite => assert!(
                searched.iter().any(|name| name == "claviger.db-wal"),
                "{searched:?}"
            ),
            Engine::Postgres => {
                let dump = test_store.database().dump();
                assert!(dump.contains("first operator"), "the dump holds the keys");
                canaries.assert_absent("the dump", dump.as_bytes());
                let log = test_store.database().cluster.log();
                assert!(!log.is_empty());
                canaries.assert_absent("the database's log", &log);
                searched.extend(["dump".to_owned(), "log".to_owned()]);
            }
        }
        println!(
            "{} canaries in {} errors, {} bytes of log and the files {searched:?}: 0 hits",
            canaries.count(),
            errors.len(),
            log.len()
        );
    }
}

/// Logs in, uses the context and breaks its file: only this file has the key.
///
/// Seen red with an error that repeats the absolute path of --key-file, or the program of a command.
fn use_contexts(address: &str, operator: &str, canaries: &Canaries) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("claviger/contexts.toml");
    let run = |args: &[&str], input: &str| {
        let input_file = home.path().join("input");
        fs::write(&input_file, input).unwrap();
        let input = fs::File::open(&input_file).unwrap();
        let output = claviger(args)
            .env("XDG_CONFIG_HOME", home.path())
            .stdin(input)
            .output()
            .unwrap();
        fs::remove_file(input_file).unwrap();
        let said = [output.stdout, output.stderr].concat();
        canaries.assert_absent(&args[0..1].concat(), &said);
        output.status.success()
    };
    assert!(run(&["login", "--endpoint", address], operator));
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains(operator), "the file has the key");
    for args in [
        &["whoami"][..],
        &["whoami", "--json"],
        &["context", "list"],
        &["context", "list", "--json"],
        &["use", "default", "--json"],
        &["realm", "list"],
    ] {
        assert!(run(args, ""), "{args:?}");
    }
    for args in [
        &["login", "--context", operator][..],
        &["login", "--endpoint", operator],
        &["login", "--key-file", operator],
        &["login", "--", operator],
        &["login", "--", "false", operator],
        &["use", operator],
        &["logout", operator],
        &["whoami", "-c", operator],
        &["realm", "list", "--context", operator],
    ] {
        assert!(!run(args, ""), "{args:?}");
    }
    for broken in [
        kept.replace("key = ", "kye = "),
        kept.replace("key = ", "key "),
        kept.replace("key = ", "realm = "),
        kept.replace("key = \"", "key_command = [\"") + "]",
        kept.replace("key = \"", "key_file = \""),
        kept.replace("key = \"", "key = \"\u{1b}"),
        format!("{operator} = 1\n{kept}"),
        kept.replace("contexts.default", &format!("contexts.{operator}")),
        kept.replace("\"default\"", &format!("\"{operator}\"")),
    ] {
        fs::write(&file, &broken).unwrap();
        for args in [&["realm", "list"][..], &["whoami", "--json"]] {
            run(args, "");
        }
    }
    fs::write(&file, kept).unwrap();
    assert!(run(&["logout", "--yes"], ""));
    for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        canaries.assert_absent(&path.display().to_string(), &fs::read(&path).unwrap());
    }
}

/// Every file but the two that are there to hold a secret.
fn search(dir: &Path, canaries: &Canaries) -> Vec<String> {
    let mut searched = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "operator.key" && name != "pepper.toml" {
            canaries.assert_absent(&name, &fs::read(entry.path()).unwrap());
            searched.push(name);
        }
    }
    searched
}

/// Does not compile once one of these types can be printed: the function is then ambiguous.
#[test]
fn what_carries_a_secret_cannot_be_printed() {
    trait Printable<Marker> {
        fn cannot_be() {}
    }
    struct ByDebug;
    impl<T: ?Sized> Printable<()> for T {}
    impl<T: ?Sized + std::fmt::Debug> Printable<ByDebug> for T {}

    <pb::IssueKeyResponse as Printable<_>>::cannot_be();
    <pb::RotateKeyResponse as Printable<_>>::cannot_be();
    <pb::ImportKeysRequest as Printable<_>>::cannot_be();
    <pb::ImportEntry as Printable<_>>::cannot_be();
    <pb::import_entry::Secret as Printable<_>>::cannot_be();
    <pb::ApplyRequest as Printable<_>>::cannot_be();
    <pb::DeclaredState as Printable<_>>::cannot_be();
    <pb::DeclaredKey as Printable<_>>::cannot_be();
    <claviger::authority::IssuedKey as Printable<_>>::cannot_be();
    <claviger::authority::ImportedKey as Printable<_>>::cannot_be();
    <claviger::hashing::ImportHash as Printable<_>>::cannot_be();
    <pb::VerifyRequest as Printable<_>>::cannot_be();
    <pb::VerifyBatchRequest as Printable<_>>::cannot_be();
    <claviger::domain::key_text::PlainKey as Printable<_>>::cannot_be();
    <claviger::domain::key_text::SecretBytes as Printable<_>>::cannot_be();
    <claviger::domain::key_text::KeyText<'_> as Printable<_>>::cannot_be();
    <claviger::hashing::Peppers as Printable<_>>::cannot_be();
}
