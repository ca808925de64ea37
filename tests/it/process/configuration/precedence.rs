//! Which of two values of a setting is in force.

use std::fs;

use super::{BAD_CONFIGURATION, Machine, line};
use crate::fixtures::Program;

/// Where a value can come from, the strongest first.
const SOURCES: [&str; 5] = ["flag", "variable", "variable file", "credential", "file"];

/// A machine on which `database-url` comes from these sources, each with the source's number as the host, and the flags.
fn machine_with(sources: &[usize]) -> (Machine, Vec<String>) {
    let mut machine = Machine::new();
    let mut flags = Vec::new();
    for source in sources {
        let url = format!("postgres://claviger@host{source}/claviger");
        match SOURCES[*source] {
            "flag" => flags.push(format!("--database-url={url}")),
            "variable" => machine.set("CLAVIGER_DATABASE_URL", url),
            "variable file" => {
                let file = machine.write("url", &format!("{url}\n"));
                machine.set("CLAVIGER_DATABASE_URL_FILE", file);
            }
            "credential" => drop(machine.write_credential("database-url", &format!("{url}\n"))),
            _ => {
                let file = machine.write("c.toml", &format!("\ndatabase-url = \"{url}\"\n"));
                flags.extend(["--config".to_owned(), file]);
            }
        }
    }
    (machine, flags)
}

/// Seen red with the credential asked before the variables, with the file before the environment, and without the error for two
/// variables.
#[test]
fn of_two_values_the_stronger_source_is_in_force() {
    for (strong, stronger) in SOURCES.into_iter().enumerate() {
        for (weak, weaker) in SOURCES.into_iter().enumerate().skip(strong) {
            let pair = [strong, weak];
            let (machine, flags) = machine_with(if strong == weak { &pair[1..] } else { &pair });
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            if (stronger, weaker) == ("variable", "variable file") {
                let said = machine.refused(&flags, BAD_CONFIGURATION);
                assert!(said.contains("CLAVIGER_DATABASE_URL and CLAVIGER_DATABASE_URL_FILE are both set: unset one"), "{said}");
                continue;
            }
            let file = machine.path("c.toml");
            let source = match stronger {
                "flag" => "--database-url".to_owned(),
                "variable" => "CLAVIGER_DATABASE_URL".to_owned(),
                "variable file" => "CLAVIGER_DATABASE_URL_FILE".to_owned(),
                "credential" => "credential database-url".to_owned(),
                _ => format!("{} line 2", file.display()),
            };
            assert_eq!(
                line(&machine.printed(&flags), "database-url"),
                format!("database-url = \"postgres://claviger@host{strong}/claviger\"  # {source}")
            );
        }
    }
    assert_eq!(
        line(&Machine::new().printed(&[]), "database-url"),
        "# database-url = URL  # not set"
    );
}

/// One URL or several, each masked for itself.
///
/// Seen red with a split at every comma, with an empty list taken from the file, and with a list of one printed as a list.
#[test]
fn a_database_can_have_several_urls_from_every_source() {
    let (one, two) = ("postgres://a@one/x", "postgres://a:pass,word@two/x");
    let masked = "postgres://a:***@two/x";
    let both = format!("{one},{two}");
    let in_file = |value: String| {
        let mut machine = Machine::new();
        machine.write("c.toml", &format!("database-url = {value}"));
        machine.set("CLAVIGER_CONFIG", "c.toml");
        line(&machine.printed(&[]), "database-url").to_owned()
    };
    let of_variable = {
        let mut machine = Machine::new();
        machine.set("CLAVIGER_DATABASE_URL", &both);
        line(&machine.printed(&[]), "database-url").to_owned()
    };
    let flags = ["--database-url", one, "--database-url", two];
    let of_flags = Machine::new().printed(&flags);
    let secret = "the secret is masked";
    for (shown, expected) in [
        (
            line(&of_flags, "database-url").to_owned(),
            format!("# database-url = [\"{one}\", \"{masked}\"]  # --database-url; {secret}"),
        ),
        (
            of_variable,
            format!("# database-url = \"{one},{masked}\"  # CLAVIGER_DATABASE_URL; {secret}"),
        ),
        (
            in_file(format!("[\"{one}\", \"{two}\"]")),
            format!("# database-url = [\"{one}\", \"{masked}\"]  # c.toml line 1; {secret}"),
        ),
        (
            in_file(format!("\"{both}\"")),
            format!("# database-url = \"{one},{masked}\"  # c.toml line 1; {secret}"),
        ),
        (
            in_file(format!("[\"{one}\"]")),
            format!("database-url = \"{one}\"  # c.toml line 1"),
        ),
    ] {
        assert_eq!(shown, expected);
    }
    let machine = Machine::new();
    let file = machine.write("c.toml", "database-url = []");
    let said = machine.refused(&["--config", &file], BAD_CONFIGURATION);
    assert!(said.contains("must have at least one value"), "{said}");
    let wrong = "postgres://a@two/x?sslmode=disable";
    let flags = ["--init", "--pepper-file=p", "--database-url", one];
    let said = machine.refused(
        &[&flags[..], &["--database-url", wrong]].concat(),
        BAD_CONFIGURATION,
    );
    assert!(said.contains("verify-full"), "{said}");
}

/// The same for settings that are no secrets: switches, lists, files, and those with a default. Seen red with the file before the
/// environment.
#[test]
fn the_order_holds_for_every_kind_of_setting() {
    let mut machine = Machine::new();
    let file = "init = true\ngateway = [\"nginx\", \"caddy\"]\nmax-calls = 3\ntls-key = \"of-file\"\ntrust-clock = true\n";
    machine.write("c.toml", file);
    machine.set("CLAVIGER_CONFIG", "c.toml");
    let shown =
        |machine: &Machine, flags: &[&str], name| line(&machine.printed(flags), name).to_owned();
    for (name, expected) in [
        ("init", "init = true  # c.toml line 1"),
        (
            "gateway",
            "gateway = [\"nginx\", \"caddy\"]  # c.toml line 2",
        ),
        ("max-calls", "max-calls = 3  # c.toml line 3"),
        ("tls-key", "tls-key = \"of-file\"  # c.toml line 4"),
        ("listen", "listen = \"127.0.0.1:7700\"  # default"),
        ("tls-cert", "# tls-cert = FILE  # not set"),
    ] {
        assert_eq!(shown(&machine, &[], name), expected);
    }
    let key = machine.write_credential("tls-key", "a key");
    // Not a setting that is a file, so this is some other credential.
    machine.write_credential("max-calls", "4");
    assert_eq!(
        shown(&machine, &[], "tls-key"),
        format!("tls-key = \"{key}\"  # credential tls-key")
    );
    for (variable, value) in [
        ("CLAVIGER_INIT", "no"),
        ("CLAVIGER_GATEWAY", "envoy,traefik"),
        ("CLAVIGER_MAX_CALLS", "5"),
        ("CLAVIGER_TLS_KEY", "of-variable"),
    ] {
        machine.set(variable, value);
    }
    for (name, expected) in [
        ("init", "init = false  # CLAVIGER_INIT"),
        (
            "gateway",
            "gateway = [\"envoy\", \"traefik\"]  # CLAVIGER_GATEWAY",
        ),
        ("max-calls", "max-calls = 5  # CLAVIGER_MAX_CALLS"),
        ("tls-key", "tls-key = \"of-variable\"  # CLAVIGER_TLS_KEY"),
        ("trust-clock", "trust-clock = true  # c.toml line 5"),
    ] {
        assert_eq!(shown(&machine, &[], name), expected);
    }
    for (flags, name, expected) in [
        (&["--init"][..], "init", "init = true  # --init"),
        (
            &["--gateway", "caddy"],
            "gateway",
            "gateway = [\"caddy\"]  # --gateway",
        ),
        (
            &["--max-calls=6"],
            "max-calls",
            "max-calls = 6  # --max-calls",
        ),
        (
            &["--tls-key", "of-flag"],
            "tls-key",
            "tls-key = \"of-flag\"  # --tls-key",
        ),
    ] {
        assert_eq!(shown(&machine, flags, name), expected);
    }
    // The flag for the file wins over its variable.
    machine.write("other.toml", "trust-clock = false");
    assert_eq!(
        shown(&machine, &["--config", "other.toml"], "trust-clock"),
        "trust-clock = false  # other.toml line 1"
    );
}

/// Seen red with settings of other commands refused.
#[test]
fn one_file_serves_all_three_commands() {
    let mut machine = Machine::new();
    let text = "data-dir = \"data\"\nlisten = \"127.0.0.1:0\"\nhttp-listen = \"127.0.0.1:0\"\nargon2-memory = 8\n\
                argon2-passes = 1\ngateway = [\"nginx\"]\nlog-format = \"json\"\n";
    let file = machine.write("c.toml", text);
    let first = machine.run(&["bootstrap", "--config", &file]);
    assert_eq!(first.code, Some(0), "{}", first.said);
    assert!(machine.path("data/claviger.db").exists());
    machine.set("CLAVIGER_CONFIG", file);
    let migrated = machine.run(&["migrate"]);
    assert!(migrated.printed.contains("is up to date"), "{migrated:?}");
    fs::write(machine.path("operator.key"), first.printed).unwrap();
    let mut serve = crate::fixtures::claviger(&["serve"]);
    serve
        .current_dir(machine.dir.path())
        .envs(&machine.variables);
    let program = Program::start(&mut serve, machine.dir.path().to_owned());
    assert!(program.operator().starts_with("claviger_main_"));
}
