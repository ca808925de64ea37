//! On a healthy server nothing is wrong: on both databases, while it runs and while it does not, and with TLS.

use crate::fixtures::{Engine, Program};
use crate::tls::Certificates;

use super::{authority, examine};

/// What is always examined.
const ALWAYS: [&str; 13] = [
    "configuration",
    "pepper-file",
    "operator-key",
    "listen",
    "http-listen",
    "file-descriptors",
    "memory",
    "threads",
    "store",
    "schema",
    "durability",
    "peppers",
    "clock",
];

const EMBEDDED: [&str; 5] = [
    "data-directory",
    "data-files",
    "file-system",
    "disk-space",
    "integrity",
];

const SHARED: [&str; 4] = ["replicas", "latency", "connections", "rights"];

fn passed(engine: Engine) -> Vec<&'static str> {
    let others: &[&str] = match engine {
        Engine::Sqlite => &EMBEDDED,
        Engine::Postgres => &SHARED,
    };
    [&ALWAYS[..], others, &["holds"]].concat()
}

/// Seen red with a warning for every file of the database, and with each port taken for one that something else uses.
fn is_found_healthy(engine: Engine) {
    let test_store = authority(engine);
    examine(&test_store, &[]).is_healthy(&passed(engine));

    let certificates = Certificates::new();
    let tls = certificates.flags();
    let socket = format!("--unix-socket={}", certificates.path("socket"));
    let tls = [
        &format!("{}={}", tls[0], tls[1]),
        &format!("{}={}", tls[2], tls[3]),
    ];
    let client_ca = format!("--client-ca={}", certificates.path("ca.pem"));
    let tls = [tls[0], tls[1], &client_ca, &socket].map(String::as_str);
    for flags in [
        &["--replica-name=one"][..],
        &[&["--replica-name=one"], &tls[..]].concat(),
    ] {
        let mut program = Program::serve(&test_store, flags);
        let (listen, http) = (
            format!("--listen={}", program.address),
            format!("--http-listen={}", program.http),
        );
        let report = examine(&test_store, &[&[&*listen, &*http], flags].concat());
        report.is_healthy(&passed(engine));
        assert!(
            report
                .text
                .contains(&format!("claviger serves at {}", program.address))
        );
        assert!(
            report
                .text
                .contains(&format!("0.1.0 serves at {}", program.http))
        );
        if flags.len() > 1 {
            report.is_healthy(&[
                "tls-certificate",
                "tls-key-file",
                "client-ca",
                "unix-socket",
            ]);
        }
        program.signal("INT");
        assert!(program.wait().success());
    }
    // As after the first stop.
    examine(&test_store, &[]).is_healthy(&passed(engine));
}

#[test]
fn a_healthy_server_on_sqlite_is_found_healthy() {
    is_found_healthy(Engine::Sqlite);
}

#[test]
fn a_healthy_server_on_postgres_is_found_healthy() {
    is_found_healthy(Engine::Postgres);
}
