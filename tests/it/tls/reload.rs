//! Certificates that are replaced while the server runs.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use claviger::pb::claviger::v1::Verdict;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::{TlsServer, connector, handshake};
use crate::fixtures::{Engine, Program, TestStore, eventually};

impl TlsServer {
    /// Puts the certificate with this name into use.
    pub(super) async fn replace_certificate(&self, name: &str) {
        let pem = CertificateDer::from_pem_file(self.certificates.path(&format!("{name}.pem")));
        let pem = pem.unwrap();
        self.certificates.replace("server", name);
        self.program.signal("HUP");
        eventually("new connections have the new certificate", async || {
            (self.certificate().await == pem.as_ref()).then_some(())
        })
        .await;
    }

    /// The certificate with which a new connection is served.
    async fn certificate(&self) -> Vec<u8> {
        let connector = connector(&self.certificates);
        let stream = handshake(&connector, &self.program.address, 1)
            .await
            .unwrap();
        let (_, connection) = stream.get_ref();
        connection.peer_certificates().unwrap()[0].to_vec()
    }
}

/// Seen red with a server that does not read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_without_a_failed_call() {
    let server = TlsServer::start(&[]);
    for name in ["one", "two"] {
        server.certificates.issue(name, "ca", "IP:127.0.0.1");
    }
    let mut established = server.api();
    established.make_demo().await;
    let key = established.issue().await.plain_key;
    let first = server.certificate().await;
    let replaced = AtomicUsize::new(0);
    let calls = async {
        let mut calls = 0;
        while replaced.load(Ordering::Relaxed) < 10 || calls < 50 {
            // A client that reconnects for each call.
            assert_eq!(server.api().verdict(&key).await, Verdict::Allowed);
            calls += 1;
        }
    };
    let replacements = async {
        let mut last = first;
        for name in ["one", "two"].repeat(5) {
            server.certificates.replace("server", name);
            server.program.signal("HUP");
            last = eventually("new connections have the new certificate", async || {
                let now = server.certificate().await;
                (now != last).then_some(now)
            })
            .await;
            replaced.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::join!(calls, replacements);
    // This connection began with the first certificate.
    assert_eq!(established.verdict(&key).await, Verdict::Allowed);
    server.logs(&["INFO", "certificates replaced"]).await;
}

/// As Kubernetes does: the files are symbolic links into a directory, whose own link is replaced. Seen red with links
/// taken for unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_behind_symbolic_links_is_found_without_a_signal() {
    let certificates = super::Certificates::new();
    certificates.issue("new", "ca", "IP:127.0.0.1");
    for (directory, name) in [("first", "server"), ("second", "new")] {
        std::fs::create_dir(certificates.path(directory)).unwrap();
        for ending in ["pem", "key"] {
            let to = certificates.path(&format!("{directory}/tls.{ending}"));
            std::fs::copy(certificates.path(&format!("{name}.{ending}")), to).unwrap();
        }
    }
    symlink("first", certificates.path("data")).unwrap();
    for ending in ["pem", "key"] {
        let link = certificates.path(&format!("server.{ending}"));
        std::fs::remove_file(&link).unwrap();
        symlink(format!("data/tls.{ending}"), link).unwrap();
    }
    let test_store = TestStore::on(Engine::Sqlite);
    let tls = certificates.flags();
    let tls: Vec<_> = tls.iter().map(String::as_str).collect();
    let server = TlsServer {
        program: Program::serve(&test_store, &tls),
        certificates,
        _test_store: Arc::clone(&test_store),
    };
    let first = server.certificate().await;
    symlink("second", server.certificates.path("next")).unwrap();
    std::fs::rename(
        server.certificates.path("next"),
        server.certificates.path("data"),
    )
    .unwrap();
    eventually("the new certificate is served", async || {
        (server.certificate().await != first).then_some(())
    })
    .await;
}

/// Seen red without the comparison of key and certificate, and with the key in a line of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_replacement_keeps_the_old_certificate_and_is_logged() {
    let server = TlsServer::start(&["--log", "trace"]);
    let certificates = &server.certificates;
    certificates.issue("other", "ca", "IP:127.0.0.1");
    certificates.issue_expired("expired");
    certificates.issue_future("future");
    std::fs::write(certificates.path("nonsense"), "nonsense").unwrap();
    let secret = |name: &str| {
        let key = std::fs::read_to_string(certificates.path(name)).unwrap();
        key.lines().nth(1).unwrap().to_owned()
    };
    let secrets = ["server.key", "other.key", "expired.key"].map(secret);
    std::fs::copy(
        certificates.path("server.pem"),
        certificates.path("old.pem"),
    )
    .unwrap();
    std::fs::copy(
        certificates.path("server.key"),
        certificates.path("old.key"),
    )
    .unwrap();
    let first = server.certificate().await;
    for (certificate, key, why) in [
        ("other.pem", "old.key", "does not belong to the certificate"),
        ("old.pem", "nonsense", "no private key"),
        ("nonsense", "old.key", "no certificate"),
        ("expired.pem", "expired.key", "has expired"),
        ("future.pem", "future.key", "is not valid before 2099"),
    ] {
        certificates.replace_file("server.pem", certificate);
        certificates.replace_file("server.key", key);
        server.program.signal("HUP");
        server
            .logs(&["ERROR", "certificates not replaced", why])
            .await;
        assert_eq!(server.certificate().await, first);
    }
    std::fs::remove_file(certificates.path("server.key")).unwrap();
    server.program.signal("HUP");
    server
        .logs(&["ERROR", "certificates not replaced", "cannot read"])
        .await;
    assert_eq!(server.certificate().await, first);
    certificates.replace("server", "other");
    server.program.signal("HUP");
    server.logs(&["INFO", "certificates replaced"]).await;
    assert_ne!(server.certificate().await, first);

    let mut api = server.api();
    api.make_demo().await;
    let log = server.log();
    for secret in secrets {
        assert!(!log.contains(&secret));
    }
    assert!(!log.contains("PRIVATE KEY"));
}

/// Seen red without the handler: the signal then ends the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signal_to_read_again_does_nothing_without_tls() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    program.signal("HUP");
    eventually("the log says so", async || {
        let log = String::from_utf8(program.log.lock().unwrap().clone()).unwrap();
        log.contains("SIGHUP ignored").then_some(())
    })
    .await;
    program.api().make_demo().await;
}

/// Seen red without the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_soon_is_logged() {
    let server = TlsServer::start(&[]);
    server.certificates.issue_for_days("soon", 13);
    server.certificates.replace("server", "soon");
    server.program.signal("HUP");
    server
        .logs(&["WARN", "expires soon", "\"days_left\":12"])
        .await;
    assert_eq!(server.log().matches("expires soon").count(), 1);
}
