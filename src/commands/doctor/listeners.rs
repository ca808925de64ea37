//! The addresses: whether they are free, and who answers there if not.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::probe::{self, Answer, Answerer, Target};
use super::report::{Check, Finding, Report, problems_or};
use crate::config::{ServeArgs, is_exposed};
use crate::transport::{CertificateFacts, Listener};

/// Examines all addresses and the path.
pub(super) async fn examine(report: &mut Report, args: &ServeArgs) {
    for (address, flag) in args.listen.addresses() {
        let check = match flag {
            "listen" => Check::Listen,
            "http-listen" => Check::HttpListen,
            _ => Check::AdminListen,
        };
        report.add(check, listener(args, address, flag).await);
    }
    report.skip(
        &[Check::AdminListen],
        "there is no address for administration alone",
    );
    match &args.listen.unix_socket {
        Some(path) => report.add(Check::UnixSocket, unix_socket(path).await),
        None => report.skip(&[Check::UnixSocket], "there is no Unix socket"),
    }
}

async fn listener(args: &ServeArgs, address: SocketAddr, flag: &str) -> Vec<Finding> {
    let is_encrypted = args.tls.tls_cert.is_some();
    let mut problems = Vec::new();
    if !is_encrypted && is_exposed(address) {
        problems.push(Finding::warning(
            format!("{address} is plain text, and other machines can reach it, so API keys can be read on the network"),
            "serve TLS, unless the network is private or a proxy encrypts",
        ));
    }
    let found = match Listener::check_tcp(address) {
        Ok(()) if address.port() == 0 => "the system chooses the port".to_owned(),
        Ok(()) => format!("{address} is free: no server runs there"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let target = Target::of_listener(address, is_encrypted);
            let answer = match flag {
                "http-listen" => probe::http(target).await,
                _ => probe::grpc(target).await,
            };
            problems.extend(stale_certificate(args, &answer));
            match answerer(answer.by, &address.to_string(), flag) {
                Ok(found) => found,
                Err(problem) => {
                    problems.push(problem);
                    String::new()
                }
            }
        }
        Err(error) => {
            problems.push(unusable(&error, address, flag));
            String::new()
        }
    };
    problems_or(problems, found)
}

fn unusable(error: &io::Error, address: SocketAddr, flag: &str) -> Finding {
    let advice = match error.kind() {
        ErrorKind::AddrNotAvailable => "this machine does not have it: choose one that it has with",
        ErrorKind::PermissionDenied => {
            "ports below 1024 need a right that this user does not have: let systemd pass the socket, or choose another with"
        }
        _ => "choose another one with",
    };
    Finding::failed(
        format!("{address} cannot be listened on: {error}"),
        format!("{advice} --{flag}"),
    )
}

/// What is said about who answers at a place.
fn answerer(by: Answerer, place: &str, flag: &str) -> Result<String, Finding> {
    match by {
        Answerer::Serving(Some(version)) => Ok(format!("claviger {version} serves at {place}")),
        Answerer::Serving(None) => Ok(format!("claviger serves at {place}")),
        Answerer::NotServing(why) => Err(Finding::failed(
            format!("the claviger at {place} should get no requests: {why}"),
            "wait if it has just started; otherwise look into its log",
        )),
        Answerer::Other(why) => Err(Finding::failed(
            format!("something else uses {place}, or a claviger with other settings: {why}"),
            format!("stop it (`ss -ltnp` shows it), or choose another place with --{flag}"),
        )),
    }
}

/// Whether a server has another certificate than its file.
fn stale_certificate(args: &ServeArgs, answer: &Answer) -> Option<Finding> {
    let path = args.tls.tls_cert.as_ref()?;
    let own = CertificateFacts::of_file("--tls-cert", path).ok()?;
    let is_stale = !answer.certificate.is_empty()
        && own.first().is_some_and(|own| own.der != answer.certificate);
    is_stale.then(|| {
        Finding::warning(
            format!(
                "the server shows another certificate than that in {}",
                path.display()
            ),
            "wait five seconds; then look into its log for `certificates not replaced`",
        )
    })
}

async fn unix_socket(path: &Path) -> Vec<Finding> {
    let shown = path.display().to_string();
    let Ok(file) = std::fs::metadata(path) else {
        return vec![Finding::passed(format!(
            "{shown} is free: no server runs there"
        ))];
    };
    let mut problems = Vec::new();
    if file.permissions().mode() & 0o002 != 0 {
        problems.push(Finding::warning(
            format!("every user of this machine may connect to {shown}"),
            format!("chmod 660 {shown}, or SocketMode=0660 in the unit of the socket"),
        ));
    }
    let found = match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            format!("{shown} was left behind, and the next start replaces it")
        }
        _ => match answerer(
            probe::grpc(Target::path(path)).await.by,
            &shown,
            "unix-socket",
        ) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(problem);
                String::new()
            }
        },
    };
    problems_or(problems, found)
}
