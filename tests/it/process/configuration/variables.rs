//! Variables that are malformed, unknown, or not of claviger.

use super::{BAD_CONFIGURATION, Machine, WRONG_USE, line};

/// Seen red without the call of `unknown_variables`, and with the prefix left on for the comparison: `CLAVIGER_QUUX` is then
/// similar to others.
#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    for (variable, complaint) in [
        (
            "CLAVIGER_HTTP_LISTN",
            "unknown variable CLAVIGER_HTTP_LISTN: did you mean CLAVIGER_HTTP_LISTEN?",
        ),
        ("CLAVIGER_MAX_CALL", "did you mean CLAVIGER_MAX_CALLS?"),
        (
            "CLAVIGER_DATABASE_FILE_URL",
            "did you mean CLAVIGER_DATABASE_URL",
        ),
        (
            "CLAVIGER_DATABASE_URLFILE",
            "did you mean CLAVIGER_DATABASE_URL_FILE?",
        ),
        ("CLAVIGER_ENDPOINTS", "did you mean CLAVIGER_ENDPOINT?"),
        ("CLAVIGER_QUUX", "unknown variable CLAVIGER_QUUX: unset it"),
        ("CLAVIGER_", "unknown variable CLAVIGER_: unset it"),
        // Only of a secret a file can have the value.
        ("CLAVIGER_LISTEN_FILE", "did you mean CLAVIGER_LISTEN?"),
    ] {
        let mut machine = Machine::new();
        machine.set(variable, "127.0.0.1:7701");
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(said.contains(complaint), "{said}");
        for command in ["bootstrap", "migrate"] {
            let outcome = machine.run(&[command]);
            assert_eq!(outcome.code, Some(BAD_CONFIGURATION));
            assert_eq!(outcome.said, said);
            assert!(!machine.path("claviger-data").exists());
        }
        // Clients have no settings that could silently not hold.
        let outcome = machine.run(&["realm", "list"]);
        assert!(!outcome.said.contains("unknown variable"), "{outcome:?}");
    }
}

/// Seen red with one text for whatever is wrong with a value.
#[test]
fn a_malformed_variable_is_named_and_a_malformed_flag_is_wrong_use() {
    let mut machine = Machine::new();
    for (variable, value, complaint) in [
        (
            "CLAVIGER_LISTEN",
            "nowhere",
            "CLAVIGER_LISTEN must be IP:PORT",
        ),
        (
            "CLAVIGER_MAX_CALLS",
            "0",
            "CLAVIGER_MAX_CALLS must be a value that --max-calls N takes: 0 is not in 1..",
        ),
        ("CLAVIGER_TLS_KEY", "", "CLAVIGER_TLS_KEY must not be empty"),
        (
            "CLAVIGER_LOG_FORMAT",
            "loud",
            "CLAVIGER_LOG_FORMAT must be one of auto, human, json",
        ),
        (
            "CLAVIGER_GATEWAY",
            "nginx,apache",
            "CLAVIGER_GATEWAY must be one of nginx, caddy",
        ),
    ] {
        machine.set(variable, value);
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(said.contains(complaint), "{said}");
        machine.variables.clear();
    }
    for (flags, complaint) in [
        (["--listen", "nowhere"], "must be IP:PORT"),
        (
            ["--http-listn", "127.0.0.1:1"],
            "a similar argument exists: '--http-listen'",
        ),
    ] {
        let said = machine.refused(&flags, WRONG_USE);
        assert!(said.contains(complaint), "{said}");
    }
}

/// Seen red with clients' variables unknown, and without `is_of_kubernetes`.
#[test]
fn variables_of_clients_and_of_kubernetes_are_accepted() {
    let mut machine = Machine::new();
    for (variable, value) in [
        ("CLAVIGER_KEY", "k"),
        ("CLAVIGER_KEY_FILE", "k"),
        ("CLAVIGER_REALM", "demo"),
        ("CLAVIGER_PAGER", "cat"),
        ("CLAVIGER_ENDPOINT", "not an endpoint"),
        ("CLAVIGER_CA_FILE", "ca.pem"),
        ("CLAVIGER_CLIENT_CERT", "c.pem"),
        ("CLAVIGER_CLIENT_KEY", "c.key"),
        ("CLAVIGER_TIMEOUT", "soon"),
        // Of a Service `claviger` with a named port, and one `claviger-http`.
        ("CLAVIGER_SERVICE_HOST", "10.43.0.7"),
        ("CLAVIGER_SERVICE_PORT", "7700"),
        ("CLAVIGER_SERVICE_PORT_GRPC_TLS", "7700"),
        ("CLAVIGER_PORT", "tcp://10.43.0.7:7700"),
        ("CLAVIGER_PORT_7700_TCP", "tcp://10.43.0.7:7700"),
        ("CLAVIGER_PORT_7700_TCP_PROTO", "tcp"),
        ("CLAVIGER_PORT_7700_TCP_PORT", "7700"),
        ("CLAVIGER_PORT_7700_TCP_ADDR", "10.43.0.7"),
        ("CLAVIGER_HTTP_SERVICE_HOST", "fd00::7"),
        ("CLAVIGER_HTTP_SERVICE_PORT", "7701"),
        ("CLAVIGER_HTTP_PORT", "tcp://[fd00::7]:7701"),
        ("CLAVIGER_HTTP_PORT_7701_UDP", "udp://[fd00::7]:7701"),
        ("CLAVIGER_HTTP_PORT_7701_UDP_ADDR", "fd00::7"),
        ("CLAVIGERS", "not ours"),
    ] {
        machine.set(variable, value);
    }
    let settings = machine.printed(&[]);
    assert_eq!(
        line(&settings, "listen"),
        "listen = \"127.0.0.1:7700\"  # default"
    );
    for (variable, value) in [
        ("CLAVIGER_HTTP_PORT", "7701"),
        ("CLAVIGER_PORT", "7700"),
        ("CLAVIGER_PORT", "127.0.0.1:7700"),
        ("CLAVIGER_SERVICE_HOST", "claviger.example.com"),
        ("CLAVIGER_PORT_GRPC_TCP", "tcp://10.43.0.7:7700"),
        ("CLAVIGER_PORT_7700_TCP_NAME", "tcp"),
        ("CLAVIGER_LISTEN_PORT", "7700"),
    ] {
        let mut machine = Machine::new();
        machine.set(variable, value);
        let said = machine.refused(&[], BAD_CONFIGURATION);
        assert!(
            said.contains(&format!("unknown variable {variable}: ")),
            "{said}"
        );
    }
}
