//! `claviger gateway config`: what it refuses, and what it warns of. What it prints is run by the tests of `gateways`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::fixtures::{Engine, Program, Shell, TestStore};

/// A server with the realm `shop`, which has two environments and no routes, and the realm `peaka`.
struct Fixture {
    shell: Shell,
    test_store: std::sync::Arc<TestStore>,
}

impl Fixture {
    fn new() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &[]);
        let operator = program.operator();
        let shell = Shell { program, operator };
        let fixture = Self { shell, test_store };
        let put =
            "realm put shop --prefix shop --environment production=live --environment staging=test";
        fixture.shell.says(put, "", 0);
        let peaka = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/realms/peaka.toml");
        fixture
            .shell
            .says(&format!("realm put --file {peaka}"), "", 0);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.test_store.data().join(name)
    }

    /// Issues a key of the built-in realm, and returns the file with it.
    fn gateway_key(&self, realm: &str) -> String {
        let file = self.path(&format!("{realm}.key")).display().to_string();
        let issue = format!(
            "keys issue --realm claviger --partner {realm} --scope verify --output-file {file}"
        );
        self.shell.says(&issue, "", 0);
        file
    }

    /// What the command prints and what it complains of.
    fn config(&self, flags: &str) -> (i32, String, String) {
        let line = format!("gateway config {flags} --upstream 127.0.0.1:8081");
        let output = self.shell.run(&line, "");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }
}

#[test]
fn what_is_wrong_is_told_before_a_gateway_finds_it() {
    let fixture = Fixture::new();
    let key = fixture.gateway_key("peaka");
    let foreign = fixture.path("foreign.key").display().to_string();
    std::fs::write(&foreign, "TtgGcQFq.s3fzs3fzs3fzs3fzs3fzs3fz\n").unwrap();
    let operator = fixture.path("operator.copy").display().to_string();
    std::fs::write(&operator, &fixture.shell.operator).unwrap();
    for (flags, code, told) in [
        (
            format!("nginx --realm nothing --gateway-key-file {key}"),
            1,
            "the realm does not exist",
        ),
        (
            format!("nginx --realm shop --gateway-key-file {key}"),
            2,
            "must say which of the realm's environments the gateway is for: production, staging",
        ),
        (
            format!("nginx --realm shop --environment live --gateway-key-file {key}"),
            2,
            "names none of the realm's environments: production, staging",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {key}.absent"),
            2,
            "cannot read the key from",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {foreign}"),
            2,
            "does not contain an API key of claviger",
        ),
        (
            "nginx --realm peaka".to_owned(),
            2,
            "--gateway-key-file <FILE>",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {key} --host api.example:80"),
            2,
            "must be the name of a host",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {key} --claviger-address a;b"),
            2,
            "must look like `HOST:PORT`",
        ),
        (
            format!("envoy --realm peaka --gateway-key-file {key} --no-default-server"),
            2,
            "Envoy answers 404 by itself",
        ),
        (
            format!("nginx --realm claviger --gateway-key-file {key}"),
            2,
            "the realm claviger is no API",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {key} --listen 80"),
            2,
            "such as 0.0.0.0:8080",
        ),
        (
            format!("nginx --realm peaka --gateway-key-file {operator}"),
            2,
            "it holds the scopes",
        ),
        (
            format!("apache --realm peaka --gateway-key-file {key}"),
            2,
            "possible values",
        ),
    ] {
        let (is, printed, complaint) = fixture.config(&flags);
        assert_eq!(is, code, "{flags}: {complaint}");
        assert!(complaint.contains(told), "{flags}: {complaint}");
        assert!(
            printed.is_empty() && !complaint.contains("s3fz"),
            "{flags}: {complaint}"
        );
    }
}

/// Seen red for each without its check.
#[test]
fn what_is_wrong_with_tls_is_told_before_a_gateway_finds_it() {
    let fixture = Fixture::new();
    let key = fixture.gateway_key("peaka");
    for (flags, told) in [
        (
            "nginx --endpoint https://127.0.0.1:1",
            "with --claviger-ca FILE",
        ),
        (
            "nginx --claviger-ca ca.pem",
            "nginx does not find IP addresses such as 127.0.0.1 in certificates",
        ),
        (
            "caddy --claviger-ca c\"a.pem",
            "--claviger-ca: the path must be UTF-8 without quotes",
        ),
        (
            "caddy --claviger-client-cert a --claviger-client-key b",
            "--claviger-ca <FILE>",
        ),
        (
            "caddy --claviger-ca a --claviger-client-cert b",
            "--claviger-client-key <FILE>",
        ),
        (
            "caddy --claviger-ca a --claviger-client-key b",
            "--claviger-client-cert <FILE>",
        ),
    ] {
        let line = format!("{flags} --realm peaka --gateway-key-file {key}");
        let (code, printed, complaint) = fixture.config(&line);
        assert_eq!((code, printed.as_str()), (2, ""), "{flags}: {complaint}");
        assert!(complaint.contains(told), "{flags}: {complaint}");
    }
}

/// Each gateway would take a relative path for something else. Seen red with the paths as they were given.
#[test]
fn the_paths_for_tls_are_absolute_and_the_files_need_not_exist() {
    let fixture = Fixture::new();
    let key = fixture.gateway_key("peaka");
    let here = std::env::current_dir().unwrap();
    for kind in ["envoy", "envoy-http", "nginx", "caddy"] {
        let (code, printed, complaint) = fixture.config(&format!(
            "{kind} --realm peaka --gateway-key-file {key} --claviger-address Keys.Internal:7701 \
             --claviger-ca tls/ca.pem --claviger-client-cert own.pem --claviger-client-key /etc/own.key"
        ));
        assert_eq!((code, complaint.as_str()), (0, ""));
        for path in [
            here.join("tls/ca.pem"),
            here.join("own.pem"),
            "/etc/own.key".into(),
        ] {
            let path = format!("\"{}\"", path.display());
            assert_eq!(printed.matches(&path).count(), 1, "{printed}");
        }
        assert!(printed.contains("keys.internal"), "{printed}");
    }
}

/// Each is refused by an operator's look at the key, and by a manager's, who can only try it. Seen red without either.
#[test]
fn only_a_key_that_verifies_this_realm_and_nothing_else_is_a_gateways_key() {
    let mut fixture = Fixture::new();
    let issue = |name: &str, flags: &str| {
        let file = fixture.path(name).display().to_string();
        let line = format!("keys issue --realm claviger --output-file {file} {flags}");
        fixture.shell.says(&line, "", 0);
        file
    };
    let good = issue("good.key", "--partner peaka --scope verify");
    let elsewhere = issue(
        "elsewhere.key",
        "--partner peaka --scope verify --allow-cidr 10.9.9.9/32",
    );
    let wrong = [
        issue("shop.key", "--partner shop --scope verify"),
        issue("both.key", "--partner peaka --scope verify --scope manage"),
        issue(
            "manager.key",
            "--partner peaka --scope manage --allow-cidr 10.9.9.9/32",
        ),
        issue("operator2.key", "--scope operator --allow-cidr 10.9.9.9/32"),
    ];
    let manager = std::fs::read_to_string(issue("caller.key", "--partner peaka --scope manage"));
    let config = |fixture: &Fixture, file: &str| {
        let (code, printed, complaint) =
            fixture.config(&format!("caddy --realm peaka --gateway-key-file {file}"));
        assert_eq!(
            code == 0,
            printed.contains("/auth/caddy/peaka/production"),
            "{complaint}"
        );
        assert_eq!(code == 0, complaint.is_empty(), "{complaint}");
        code
    };
    assert_eq!(config(&fixture, &good), 0);
    // An operator need not be where the gateway is.
    assert_eq!(config(&fixture, &elsewhere), 0);
    for file in &wrong {
        assert_eq!(config(&fixture, file), 2, "{file}");
    }
    fixture.shell.operator = manager.unwrap().trim().to_owned();
    assert_eq!(config(&fixture, &good), 0);
    for file in wrong.iter().chain([&elsewhere]) {
        assert_eq!(config(&fixture, file), 2, "{file}");
    }
}

#[test]
fn what_would_deny_everything_is_a_warning() {
    let fixture = Fixture::new();
    let shop = fixture.gateway_key("shop");
    let (code, _, complaint) = fixture.config(&format!(
        "caddy --realm shop --environment staging --gateway-key-file {shop}"
    ));
    assert_eq!(code, 0, "{complaint}");
    assert!(
        complaint.contains("the realm shop has no routes"),
        "{complaint}"
    );
    assert!(
        complaint.contains("which header carries the key"),
        "{complaint}"
    );
}

#[test]
fn a_file_gets_the_key_and_nobody_else_does() {
    let fixture = Fixture::new();
    let key_file = fixture.gateway_key("peaka");
    let key = std::fs::read_to_string(&key_file).unwrap();
    let file = fixture.path("gateway.conf");
    let flags = format!(
        "nginx --realm peaka --gateway-key-file {key_file} --output-file {}",
        file.display()
    );
    // Again with other flags: the file is replaced.
    for (more, listen) in [
        ("", "127.0.0.1:8080"),
        (" --listen 0.0.0.0:80", "0.0.0.0:80"),
    ] {
        let (code, printed, complaint) = fixture.config(&format!("{flags}{more}"));
        assert_eq!((code, complaint.as_str()), (0, ""));
        assert!(
            printed.contains("--gateway nginx") && !printed.contains(key.trim()),
            "{printed}"
        );
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains(key.trim()) && text.contains(&format!("listen {listen};")),
            "{text}"
        );
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let over_the_key =
        format!("nginx --realm peaka --gateway-key-file {key_file} --output-file {key_file}");
    let (code, _, complaint) = fixture.config(&over_the_key);
    assert_eq!(code, 1, "{complaint}");
    assert!(
        complaint.contains("this command did not write it"),
        "{complaint}"
    );
    assert_eq!(std::fs::read_to_string(&key_file).unwrap(), key);

    let shown = fixture.shell.json(
        &format!(
            "gateway config envoy --realm peaka --gateway-key-file {key_file} --upstream api:80"
        ),
        "",
        0,
    );
    assert!(shown["config"].as_str().unwrap().contains(key.trim()));
    assert!(
        !String::from_utf8_lossy(&fixture.shell.program.log.lock().unwrap()).contains(key.trim())
    );
}
