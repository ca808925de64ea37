//! Faults of the addresses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use crate::fixtures::{Engine, Program};

use super::{authority, examine};

/// Another program, which answers this.
fn other_program(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Seen red with everything that answers taken for a claviger.
#[test]
fn an_address_that_something_else_uses_is_found() {
    let test_store = authority(Engine::Sqlite);
    // That of another service that is ready.
    for answer in ["", "HTTP/1.0 200 OK\r\n\r\nok\n"] {
        let address = other_program(answer);
        for id in ["listen", "http-listen"] {
            let flag = format!("--{id}={address}");
            let report = examine(&test_store, &[&flag]);
            report.failed(
                id,
                &format!("something else uses {address}"),
                &format!("--{id}"),
            );
        }
    }
    let program = Program::serve(&test_store, &[]);
    std::fs::remove_file(test_store.data().join("operator.key")).ok();
    // Each at the place of the other.
    let (listen, http) = (
        format!("--listen={}", program.http),
        format!("--http-listen={}", program.address),
    );
    examine(&test_store, &[&listen, &http]).has(&["listen", "http-listen"], &[]);
}

/// Seen red without a look at the kind of the error.
#[test]
fn an_address_that_this_machine_lacks_or_others_reach_is_found() {
    let test_store = authority(Engine::Sqlite);
    let report = examine(&test_store, &["--listen=0.0.0.0:0", "--insecure-listen"]);
    report.warned(
        "listen",
        "is plain text, and other machines can reach it",
        "serve TLS",
    );
    // An address of RFC 5737, which no machine has.
    let report = examine(
        &test_store,
        &["--admin-listen=192.0.2.1:0", "--insecure-listen"],
    );
    report.has(&["admin-listen"], &[]);
    report.says(
        "admin-listen",
        "192.0.2.1:0 cannot be listened on",
        "this machine does not have it",
    );
}

/// Seen red without the look at the mode, and with a file that was left behind taken for a server.
#[test]
fn a_unix_socket_that_everybody_may_open_is_found() {
    let test_store = authority(Engine::Sqlite);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let flag = format!("--unix-socket={}", path.display());
    let mut program = Program::serve(&test_store, &[&flag]);
    examine(&test_store, &[&flag]).is_healthy(&["unix-socket"]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    examine(&test_store, &[&flag]).warned(
        "unix-socket",
        "every user of this machine may connect",
        "chmod 660",
    );
    program.kill();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    let report = examine(&test_store, &[&flag]);
    report.is_healthy(&["unix-socket"]);
    assert!(report.text.contains("was left behind"), "{}", report.text);
}
