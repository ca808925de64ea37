//! What is wrong with a configuration file.

use super::{BAD_CONFIGURATION, Machine};

/// Seen red with unknown settings ignored, with errors of the parser ignored, and with lines counted from 0.
#[test]
fn every_mistake_in_a_file_is_named_with_its_line_and_the_remedy() {
    for (text, complaint) in [
        (
            "\nhttp_listen = \"127.0.0.1:1\"",
            "line 2: unknown setting `http_listen`: did you mean `http-listen`?",
        ),
        (
            "max-cals = 1",
            "line 1: unknown setting `max-cals`: did you mean `max-calls`?",
        ),
        (
            "quux = 1",
            "line 1: unknown setting `quux`: take it out; the settings are the flags of `claviger serve --help`",
        ),
        (
            "[serve]\nlisten = \"127.0.0.1:1\"",
            "line 1: unknown setting `serve`",
        ),
        (
            "config = \"other.toml\"",
            "line 1: `config` can only be a flag: take it out of the file",
        ),
        (
            "check-config = true",
            "line 1: `check-config` can only be a flag",
        ),
        ("recover = true", "line 1: `recover` can only be a flag"),
        (
            "listen = \"nowhere\"",
            "line 1: `listen` must be IP:PORT, such as 127.0.0.1:7700 or [::1]:7700",
        ),
        ("listen = 7700", "line 1: `listen` must be IP:PORT"),
        (
            "listen = [\"127.0.0.1:1\"]",
            "line 1: `listen` must be text in quotes or a number that fits, but is of the type array",
        ),
        (
            "poll-interval = \"0s\"",
            "line 1: `poll-interval` must be longer than zero",
        ),
        (
            "max-calls = 0",
            "line 1: `max-calls` must be a value that --max-calls N takes: 0 is not in 1..",
        ),
        (
            "max-calls = -1",
            "line 1: `max-calls` must be a whole number: --max-calls N",
        ),
        (
            "max-calls = 1.5",
            "line 1: `max-calls` must be a whole number: --max-calls N",
        ),
        (
            "max-calls = \"many\"",
            "line 1: `max-calls` must be a whole number: --max-calls N",
        ),
        (
            "log-format = \"loud\"",
            "line 1: `log-format` must be one of auto, human, json",
        ),
        ("tls-cert = \"\"", "line 1: `tls-cert` must not be empty"),
        (
            "init = \"yes\"",
            "line 1: `init` must be true or false, without quotes",
        ),
        (
            "gateway = \"nginx\"",
            "line 1: `gateway` must be a list: gateway = [\"KIND\"]",
        ),
        (
            "gateway = [\"nginx\", \"apache\"]",
            "line 1: `gateway` must be one of nginx, caddy, traefik, envoy",
        ),
        (
            "gateway = [true]",
            "line 1: `gateway` must be a list of texts in quotes",
        ),
        (
            "init = true\n# again\ninit = true",
            "line 3: this setting stands here a second time: leave one of them out",
        ),
        ("init = true\nlisten = 127.0.0.1:1", "line 2: "),
        (
            "listen",
            "write each setting as NAME = VALUE, with text in quotes",
        ),
    ] {
        let machine = Machine::new();
        let file = machine.write("c.toml", text);
        let said = machine.refused(&["--config", &file], BAD_CONFIGURATION);
        assert!(
            said.contains(&format!("error: {file} ")) && said.contains(complaint),
            "{text}: {said}"
        );
    }
}

/// Seen red with the error of reading ignored.
#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let mut machine = Machine::new();
    let said = machine.refused(&["--config", "absent.toml"], BAD_CONFIGURATION);
    assert!(
        said.contains("cannot read the configuration file absent.toml"),
        "{said}"
    );
    assert!(said.contains("Check the path"), "{said}");
    std::fs::write(machine.path("bytes.toml"), b"\xff").unwrap();
    let said = machine.refused(&["--config", "bytes.toml"], BAD_CONFIGURATION);
    assert!(said.contains("not text in UTF-8"), "{said}");
    machine.set("CLAVIGER_CONFIG", "");
    let said = machine.refused(&[], BAD_CONFIGURATION);
    assert!(said.contains("CLAVIGER_CONFIG must not be empty"), "{said}");
}

/// Seen red with the first mistake named alone.
#[test]
fn all_mistakes_are_named_at_once() {
    let mut machine = Machine::new();
    let file = machine.write(
        "c.toml",
        "max-calls = 0\nhttp_listen = \"x\"\nlisten = \"y\"\n",
    );
    machine.set("CLAVIGER_LISTN", "z");
    machine.set("CLAVIGER_CALL_TIMEOUT", "soon");
    let said = machine.refused(&["--config", &file], BAD_CONFIGURATION);
    assert_eq!(said.lines().count(), 5, "{said}");
    for named in [
        "line 1",
        "line 2",
        "line 3",
        "CLAVIGER_LISTN",
        "CLAVIGER_CALL_TIMEOUT",
    ] {
        assert!(said.contains(named), "{said}");
    }
    assert!(
        said.lines().all(|line| line.starts_with("error: ")),
        "{said}"
    );
}
