//! The certificates of TLS.

use std::path::Path;

use super::files::secret;
use super::report::{Check, Finding, Report, counted, problems_or};
use crate::config::TlsArgs;
use crate::domain::clock::Clock;
use crate::domain::time::Timestamp;
use crate::transport::{CertificateFacts, EXPIRES_SOON, Tls};

const REPLACE: &str = "replace it; a running server reads the new one by itself";

/// Examines the files of TLS.
pub(super) fn examine(report: &mut Report, args: &TlsArgs) {
    let now = Clock::system().now();
    match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            report.add(Check::TlsCertificate, server(args, certificate, now));
            let problems = secret(key, "the private key");
            let found = key.display().to_string();
            report.add(Check::TlsKeyFile, problems_or(problems, found));
        }
        _ => report.skip(&[Check::TlsCertificate, Check::TlsKeyFile], "TLS is off"),
    }
    match &args.client_ca {
        Some(path) if args.tls_cert.is_some() => {
            report.add(Check::ClientCa, clients(args, path, now));
        }
        _ => report.skip(&[Check::ClientCa], "no client certificates are verified"),
    }
}

fn server(args: &TlsArgs, path: &Path, now: Timestamp) -> Vec<Finding> {
    if let Err(error) = Tls::load(&own_without_clients(args)) {
        return vec![Finding::error(&error)];
    }
    match CertificateFacts::of_file("--tls-cert", path) {
        Ok(chain) => chain_findings(&chain, path, now),
        Err(error) => vec![Finding::error(&error)],
    }
}

/// The flags without the certificates of the clients' issuers, which have a check of their own.
fn own_without_clients(args: &TlsArgs) -> TlsArgs {
    TlsArgs {
        client_ca: None,
        require_client_cert: Vec::new(),
        ..args.clone()
    }
}

fn chain_findings(chain: &[CertificateFacts], path: &Path, now: Timestamp) -> Vec<Finding> {
    let shown = path.display();
    let (Some(own), Some(last)) = (chain.first(), chain.last()) else {
        return vec![Finding::failed(
            format!("the fields of the certificate in {shown} cannot be read"),
            "make another one",
        )];
    };
    let mut problems = Vec::new();
    if !own.has_names {
        problems.push(Finding::failed(
            format!(
                "the certificate in {shown} names no host and no address, so no client accepts it"
            ),
            "make another one with a subjectAltName; a common name does not count",
        ));
    }
    let is_in_order = chain
        .windows(2)
        .all(|pair| pair[0].issuer == pair[1].subject);
    if !is_in_order {
        problems.push(Finding::warning(
            format!(
                "{shown} is not a chain: a certificate is followed by another one than its issuer's, so some clients refuse it"
            ),
            "put the server's certificate first, then its issuer's, then the issuer's of that",
        ));
    }
    problems.extend(expiry(chain, &format!("in {shown}"), now));
    let expires = own.validity.end.rfc3339();
    let issuer = match last.issuer_name() {
        _ if last.issuer == last.subject => String::new(),
        name => format!("; clients must trust its issuer {name:?}"),
    };
    problems_or(problems, format!("valid until {expires}{issuer}"))
}

fn expiry(chain: &[CertificateFacts], place: &str, now: Timestamp) -> Option<Finding> {
    let first = chain
        .iter()
        .map(|certificate| certificate.validity.end)
        .min()?;
    let at = first.rfc3339();
    if first <= now {
        Some(Finding::failed(
            format!("a certificate {place} has expired at {at}"),
            REPLACE,
        ))
    } else if first < now.saturating_add(EXPIRES_SOON) {
        Some(Finding::warning(
            format!("a certificate {place} expires at {at}"),
            REPLACE,
        ))
    } else {
        None
    }
}

fn clients(args: &TlsArgs, path: &Path, now: Timestamp) -> Vec<Finding> {
    let issuers = match CertificateFacts::of_file("--client-ca", path) {
        Ok(issuers) => issuers,
        Err(error) => return vec![Finding::error(&error)],
    };
    let problems: Vec<_> = expiry(&issuers, &format!("in {}", path.display()), now)
        .into_iter()
        .collect();
    // If the server's own certificate is wrong, its check says so.
    if problems.is_empty()
        && Tls::load(&own_without_clients(args)).is_ok()
        && let Err(error) = Tls::load(args)
    {
        return vec![Finding::error(&error)];
    }
    problems_or(problems, counted(issuers.len() as u64, "issuer"))
}
