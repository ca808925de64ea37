//! What the program refuses to start with.

use crate::fixtures::{Engine, Program, TestStore, claviger, outcome};

use super::certificates::Certificates;

const BAD_CONFIGURATION: i32 = 78;

/// What the program says when it refuses to start with these flags.
fn refused(flags: &[&str], code: i32) -> String {
    let test_store = TestStore::on(Engine::Sqlite);
    let data = test_store.flags();
    let mut line = vec!["serve", "--init"];
    line.extend(data.iter().map(String::as_str));
    for (flag, address) in [
        ("--listen", "127.0.0.1:0"),
        ("--http-listen", "127.0.0.1:0"),
    ] {
        if !flags.contains(&flag) {
            line.extend([flag, address]);
        }
    }
    line.extend(flags);
    let output = outcome(&mut claviger(&line));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
    assert!(!test_store.pepper().exists(), "nothing was made");
    said
}

/// Seen red without the check in `Listeners::bind`, and with one that looks at `--listen` only.
#[test]
fn an_address_of_other_machines_needs_tls_or_an_explicit_flag() {
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:7700",
        "[::ffff:192.0.2.1]:7700",
    ] {
        for flag in ["--listen", "--http-listen"] {
            let said = refused(&[flag, address], BAD_CONFIGURATION);
            for way_out in [flag, "--tls-cert and --tls-key", "--insecure-listen"] {
                assert!(said.contains(way_out), "{said}");
            }
        }
    }
    let certificates = Certificates::new();
    let tls = certificates.flags();
    let tls: Vec<_> = tls.iter().map(String::as_str).collect();
    for (flags, warns) in [(&["--insecure-listen"][..], true), (&tls, false)] {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve_at(&test_store, ["0.0.0.0:0"; 2], flags);
        let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
        assert_eq!(log.contains("unencrypted"), warns, "{log}");
    }
    let test_store = TestStore::on(Engine::Sqlite);
    drop(Program::serve_at(
        &test_store,
        ["[::1]:0", "[::ffff:127.0.0.1]:0"],
        &[],
    ));
}

/// Seen red without the look at the time, and without `keys_match`.
#[test]
fn a_pair_that_no_client_could_use_is_refused_with_its_reason() {
    let certificates = Certificates::new();
    certificates.issue("other", "ca", "IP:127.0.0.1");
    certificates.issue_expired("expired");
    certificates.openssl(&[
        "pkey",
        "-in",
        "server.key",
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        "locked.key",
    ]);
    let key = std::fs::read_to_string(certificates.path("server.key")).unwrap();
    std::fs::write(certificates.path("empty"), "").unwrap();
    std::fs::write(
        certificates.path("broken"),
        key.replace("-----END", "-----ENDS"),
    )
    .unwrap();
    let wrong = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    std::fs::write(certificates.path("wrong"), wrong).unwrap();
    for (certificate, key_file, why) in [
        ("absent", "server.key", "cannot read"),
        ("server.pem", "absent", "cannot read"),
        ("empty", "server.key", "no certificate"),
        ("server.key", "server.key", "no certificate"),
        ("wrong", "server.key", "cannot be read"),
        ("broken", "server.key", "cannot be read"),
        ("server.pem", "empty", "no private key"),
        ("server.pem", "server.pem", "no private key"),
        ("server.pem", "broken", "no private key"),
        ("server.pem", "locked.key", "no private key"),
        ("server.pem", "other.key", "does not belong"),
        ("other.pem", "server.key", "does not belong"),
        ("expired.pem", "expired.key", "expired"),
    ] {
        let [cert_path, key_path] = [certificate, key_file].map(|name| certificates.path(name));
        let said = refused(
            &["--tls-cert", &cert_path, "--tls-key", &key_path],
            BAD_CONFIGURATION,
        );
        let names_a_file = said.contains(&cert_path) || said.contains(&key_path);
        assert!(
            said.contains(why) && names_a_file,
            "{certificate} {key_file}: {said}"
        );
        let secret = key.lines().nth(1).unwrap();
        assert!(!said.contains(secret), "{said}");
    }
    let [cert, key] = ["server.pem", "server.key"].map(|name| certificates.path(name));
    for (ca, why) in [
        ("absent", "cannot read"),
        ("server.key", "no certificate"),
        ("wrong", "cannot be read"),
    ] {
        let ca = certificates.path(ca);
        let flags = ["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
        let said = refused(&flags, BAD_CONFIGURATION);
        assert!(
            said.contains(why) && said.contains(&ca) && said.contains("--client-ca"),
            "{said}"
        );
    }
}

/// Seen red without each of the four rules in `CertificateFiles::of`.
#[test]
fn flags_that_need_each_other_are_given_together() {
    for (flags, needed) in [
        (&["--tls-cert", "a"][..], "--tls-key"),
        (&["--tls-key", "a"], "--tls-cert"),
        (&["--client-ca", "a"], "--tls-cert"),
        (&["--require-client-cert", "admin"], "--client-ca"),
    ] {
        let said = refused(flags, BAD_CONFIGURATION);
        let texts = [
            format!("{} needs {needed}", flags[0]),
            format!("set {needed} too"),
        ];
        assert!(texts.iter().all(|text| said.contains(text)), "{said}");
    }
}

/// What `serve --check-config` says of this certificate and key, and whether it accepts them.
fn checked(certificates: &Certificates, certificate: &str, key: &str) -> (bool, String) {
    let [cert, key] = [certificate, key].map(|name| certificates.path(name));
    let flags = [
        "serve",
        "--check-config",
        "--init",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ];
    let output = outcome(&mut claviger(&flags));
    let said = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => assert_eq!(output.stdout, b"the configuration is correct\n"),
        code => assert_eq!((code, output.stdout.len()), (Some(BAD_CONFIGURATION), 0)),
    }
    (output.status.success(), said)
}

/// Seen red without each of the looks at the time, and without the call of `check_certificates`.
#[test]
fn the_check_of_a_configuration_looks_at_the_certificates() {
    let certificates = Certificates::new();
    certificates.issue("other", "ca", "IP:127.0.0.1");
    certificates.issue_for_days("ending", 13);
    certificates.issue_for_days("lasting", 15);
    certificates.issue_expired("expired");
    certificates.issue_future("future");
    for (name, key, is_correct, complaint) in [
        ("server.pem", "server.key", true, ""),
        ("lasting.pem", "lasting.key", true, ""),
        (
            "ending.pem",
            "ending.key",
            true,
            "warning: --tls-cert: the certificate in ",
        ),
        (
            "expired.pem",
            "expired.key",
            false,
            "has expired: replace it",
        ),
        (
            "future.pem",
            "future.key",
            false,
            "is not valid before 2099-01-01T00:00:00Z: replace it",
        ),
        (
            "server.pem",
            "other.key",
            false,
            "does not belong to the certificate",
        ),
        ("server.pem", "absent", false, "cannot read"),
    ] {
        let (accepted, said) = checked(&certificates, name, key);
        assert_eq!(accepted, is_correct, "{name}: {said}");
        assert!(said.contains(complaint), "{name}: {said}");
        assert_eq!(said.is_empty(), complaint.is_empty(), "{name}: {said}");
    }
}
