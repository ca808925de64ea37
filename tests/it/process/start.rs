//! What the program refuses to start with, and what it says then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use claviger::pb::claviger::v1::Verdict;

use crate::fixtures::{Api, Engine, Program, TestStore, claviger, on_both_engines, outcome};

const BAD_CONFIGURATION: i32 = 78;

/// Runs a command that ends by itself.
fn run(test_store: &TestStore, args: &[&str]) -> Output {
    let flags = test_store.flags();
    let mut line = args.to_vec();
    line.extend(flags.iter().map(String::as_str));
    line.extend(["--argon2-memory", "8", "--argon2-passes", "1"]);
    if args[0] == "serve" {
        line.extend(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    }
    outcome(&mut claviger(&line))
}

fn refused(test_store: &TestStore, args: &[&str], code: i32) -> String {
    let output = run(test_store, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

on_both_engines! {
    async fn an_empty_store_is_refused_and_nothing_is_made(engine: Engine) {
        let test_store = TestStore::on(engine);
        let said = refused(&test_store, &["serve"], BAD_CONFIGURATION);
        let look = match engine {
            Engine::Sqlite => "mounted",
            Engine::Postgres => "--database-url names the right database",
        };
        assert!(
            said.contains("--init") && said.contains("bootstrap") && said.contains(look),
            "{said}"
        );
        assert!(!test_store.data().exists() && !test_store.pepper().exists());
        refused(&test_store, &["bootstrap", "--recover"], BAD_CONFIGURATION);
        assert!(!test_store.data().exists() && !test_store.pepper().exists());
        if engine == Engine::Postgres {
            test_store.database().execute("CREATE TABLE authority (still_free BOOLEAN)");
        }
    }

    async fn a_second_process_in_the_same_place_is_refused(engine: Engine) {
        let test_store = TestStore::on(engine);
        let _first = Program::serve(&test_store, &[]);
        let (others, said): (&[&[&str]], _) = match engine {
            Engine::Sqlite => (
                &[
                    &["serve"],
                    &["serve", "--init"],
                    &["bootstrap"],
                    &["bootstrap", "--recover"],
                ],
                "another claviger process",
            ),
            // Servers share it.
            Engine::Postgres => (
                &[&["bootstrap"], &["bootstrap", "--recover"]],
                "stop all of them first",
            ),
        };
        std::thread::scope(|threads| {
            for second in others {
                let test_store = &test_store;
                threads.spawn(move || {
                    let told = refused(test_store, second, BAD_CONFIGURATION);
                    assert!(told.contains(said), "{told}");
                });
            }
        });
    }

    async fn everything_beside_the_database_is_its_owners_alone(engine: Engine) {
        let test_store = TestStore::on(engine);
        let _running = Program::serve(&test_store, &[]);
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(test_store.data()), 0o700);
        assert_eq!(mode(test_store.pepper()), 0o600);
        let mut names = Vec::new();
        for entry in fs::read_dir(test_store.data()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(mode(entry.path()), 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        let expected: &[&str] = match engine {
            Engine::Sqlite => &[
                "claviger.db",
                "claviger.db-shm",
                "claviger.db-wal",
                "claviger.lock",
                "operator.key",
                "pepper.toml",
            ],
            Engine::Postgres => &["operator.key"],
        };
        assert_eq!(names, expected);
    }

    /// Seen red without the canary: the server then starts and calls every key unknown.
    async fn a_missing_or_wrong_pepper_is_refused_and_the_right_one_still_works(engine: Engine) {
        let test_store = TestStore::on(engine);
        drop(Program::serve(&test_store, &[]));
        let pepper = test_store.pepper();
        let right = fs::read_to_string(&pepper).unwrap();

        fs::remove_file(&pepper).unwrap();
        for start in [["serve"].as_slice(), &["serve", "--init"]] {
            let said = refused(&test_store, start, BAD_CONFIGURATION);
            assert!(
                said.contains("pepper") && said.contains("missing") && said.contains("Restore it"),
                "{said}"
            );
            assert!(
                !pepper.exists(),
                "no new pepper is made for an old database"
            );
        }

        let digits = right.split('"').nth(1).unwrap();
        fs::write(&pepper, right.replace(digits, &"ab".repeat(32))).unwrap();
        let said = refused(&test_store, &["serve"], BAD_CONFIGURATION);
        assert!(said.contains("does not belong to this database"), "{said}");
        assert!(!said.contains("abab"), "{said}");

        fs::write(&pepper, "nonsense").unwrap();
        refused(&test_store, &["serve"], BAD_CONFIGURATION);

        fs::write(&pepper, right).unwrap();
        drop(Program::serve(&test_store, &[]));
    }

    async fn bootstrap_prints_the_first_key_alone_and_only_once(engine: Engine) {
        let test_store = TestStore::on(engine);
        let output = run(&test_store, &["bootstrap"]);
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        let key = printed.strip_suffix('\n').unwrap();
        assert!(key.starts_with("claviger_main_") && !key.contains(char::is_whitespace));

        let said = refused(&test_store, &["bootstrap"], 1);
        assert!(said.contains("--recover"), "{said}");
        assert!(!test_store.data().join("operator.key").exists());

        let output = run(&test_store, &["bootstrap", "--recover"]);
        let other = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && other != printed);

        let program = Program::serve(&test_store, &[]);
        for key in [key, other.trim()] {
            let mut api = Api::new(&program.address, key);
            api.make_demo().await;
            let issued = api.issue().await.plain_key;
            assert_eq!(api.verdict(&issued).await, Verdict::Allowed);
        }
    }

    async fn migrate_says_what_it_did_and_refuses_what_is_newer(engine: Engine) {
        let test_store = TestStore::on(engine);
        if engine == Engine::Sqlite {
            let said = migrate(&test_store).unwrap_err();
            assert!(said.contains("mounted"), "{said}");
            assert!(!test_store.data().exists());
        } else {
            let said = migrate(&test_store).unwrap();
            assert!(said.contains("from step 0 to step"), "{said}");
            let said = refused(&test_store, &["serve"], BAD_CONFIGURATION);
            assert!(said.contains("no authority"), "a schema alone is not an authority: {said}");
        }
        drop(Program::serve(&test_store, &[]));
        let said = migrate(&test_store).unwrap();
        assert!(said.contains("is up to date"), "{said}");

        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (99, 'later', TRUE, '', 0)";
        test_store.execute_sql(&[later]).await;
        let said = migrate(&test_store).unwrap_err();
        assert!(said.contains("newer claviger"), "{said}");
        let said = refused(&test_store, &["serve"], BAD_CONFIGURATION);
        assert!(said.contains("newer claviger"), "{said}");
    }
}

fn migrate(test_store: &TestStore) -> Result<String, String> {
    let flags = test_store.flags_of_database();
    let mut line = vec!["migrate"];
    line.extend(flags.iter().map(String::as_str));
    let output = outcome(&mut claviger(&line));
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(output.status.code(), Some(BAD_CONFIGURATION));
    Err(String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_bad_configuration_is_named() {
    let test_store = TestStore::on(Engine::Sqlite);
    let said = refused(
        &test_store,
        &["serve", "--init", "--log", "claviger=loud"],
        BAD_CONFIGURATION,
    );
    assert!(said.contains("--log"), "{said}");
    refused(&test_store, &["serve", "--listen", "nowhere"], 2);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = test_store.data();
    let line = [
        "serve",
        "--init",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        &address,
    ];
    let output = outcome(&mut claviger(&line));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("cannot listen") && said.contains("--listen"),
        "{said}"
    );
    assert!(!data.join("pepper.toml").exists(), "nothing was made");

    let said = refused(&test_store, &["serve", "--json"], 2);
    assert!(said.contains("--json"), "{said}");
    refused(
        &test_store,
        &["serve", "--init", "--poll-interval", "0s"],
        2,
    );
}
