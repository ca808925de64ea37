//! Faults of the certificates.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::fixtures::{Engine, Program};
use crate::tls::Certificates;

use super::{Report, authority, examine};

/// The flags of TLS with these files.
fn flags(certificates: &Certificates, certificate: &str, key: &str) -> [String; 2] {
    [
        format!("--tls-cert={}", certificates.path(certificate)),
        format!("--tls-key={}", certificates.path(key)),
    ]
}

/// Seen red for each with its judgement left out.
#[test]
fn certificates_that_clients_refuse_are_found() {
    let test_store = authority(Engine::Sqlite);
    let certificates = Certificates::new();
    let with = |certificate: &str, key: &str, more: &[&str]| -> Report {
        let flags = flags(&certificates, certificate, key);
        examine(
            &test_store,
            &[&flags.each_ref().map(String::as_str), more].concat(),
        )
    };
    with("server.pem", "server.key", &[]).is_healthy(&["tls-certificate", "tls-key-file"]);

    certificates.issue_expired("expired");
    let report = with("expired.pem", "expired.key", &[]);
    report.failed("tls-certificate", "has expired", "replace it");
    certificates.issue_for_days("short", 3);
    let report = with("short.pem", "short.key", &[]);
    report.warned("tls-certificate", "expires at", "replace it");
    let report = with("server.pem", "ca.key", &[]);
    report.failed(
        "tls-certificate",
        "does not belong to the certificate",
        "must be the server's own",
    );
    // It has a common name and no other.
    let report = with("ca.pem", "ca.key", &[]);
    report.failed(
        "tls-certificate",
        "names no host and no address",
        "subjectAltName",
    );
    let report = with("absent.pem", "server.key", &[]);
    report.failed("tls-certificate", "cannot read", "--tls-cert");

    certificates.issue_below_others("deep", "IP:127.0.0.1");
    with("deep.pem", "deep.key", &[]).is_healthy(&["tls-certificate"]);
    let chain = fs::read_to_string(certificates.path("deep.pem")).unwrap();
    let mut parts: Vec<_> = chain
        .split_inclusive("-----END CERTIFICATE-----\n")
        .collect();
    parts.swap(1, 2);
    fs::write(certificates.path("mixed.pem"), parts.concat()).unwrap();
    let report = with("mixed.pem", "deep.key", &[]);
    report.warned("tls-certificate", "is not a chain", "then its issuer's");

    let key = certificates.path("server.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let report = with("server.pem", "server.key", &[]);
    report.warned("tls-key-file", "can read the private key", "chmod");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    fs::write(certificates.path("junk.pem"), "no certificate").unwrap();
    let client_ca = |name: &str| format!("--client-ca={}", certificates.path(name));
    let report = with("server.pem", "server.key", &[&client_ca("junk.pem")]);
    report.failed("client-ca", "contains no certificate", "must be a PEM file");
    let report = with("server.pem", "server.key", &[&client_ca("expired.pem")]);
    report.failed("client-ca", "has expired", "replace it");
    let report = examine(&test_store, &["--tls-cert=server.pem"]);
    report.failed(
        "configuration",
        "--tls-cert needs --tls-key",
        "set --tls-key too",
    );
}

/// Seen red without the comparison.
#[test]
fn a_server_that_has_not_read_its_new_certificate_is_found() {
    let test_store = authority(Engine::Sqlite);
    let certificates = Certificates::new();
    certificates.issue("other", "ca", "IP:127.0.0.1");
    let old = flags(&certificates, "server.pem", "server.key");
    let program = Program::serve(&test_store, &old.each_ref().map(String::as_str));
    let (listen, http) = (
        format!("--listen={}", program.address),
        format!("--http-listen={}", program.http),
    );
    let new = flags(&certificates, "other.pem", "other.key");
    let report = examine(&test_store, &[&listen, &http, &new[0], &new[1]]);
    report.has(&[], &["listen", "http-listen"]);
    report.says(
        "listen",
        "shows another certificate",
        "certificates not replaced",
    );
    // A server that serves plain text where TLS is configured.
    drop(program);
    let program = Program::serve(&test_store, &[]);
    let listen = format!("--listen={}", program.address);
    let report = examine(&test_store, &[&listen, &new[0], &new[1]]);
    report.failed("listen", "a claviger with other settings", "stop it");
}
