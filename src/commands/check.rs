//! The check of a configuration before a start with it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use super::{BAD_CONFIGURATION, check_apply, declared_state};
use crate::config::{ServeArgs, StoreArgs};
use crate::domain::clock::Clock;
use crate::hashing::{Peppers, Roots};
use crate::open::{OpenStoreError, has_database};
use crate::server::ListenError;
use crate::telemetry::{self, LogArgs};
use crate::transport::{CertificateError, EXPIRES_SOON, Listener, Tls};

/// What is wrong with a configuration, and what the operator should know. Each message ends with what to do.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Checks the configuration of `serve` as far as that is possible without opening the store, listening or writing. Prints the
/// result on standard output, as a comment if it follows settings there, and what is wrong on standard error.
pub fn check_config(args: &ServeArgs, log: &LogArgs, follows_settings: bool) -> ExitCode {
    let findings = Findings::of(args, log);
    for warning in &findings.warnings {
        telemetry::print(&format!("warning: {warning}"));
    }
    for problem in &findings.problems {
        telemetry::print(&format!("error: {problem}"));
    }
    if !findings.problems.is_empty() {
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let comment = if follows_settings { "# " } else { "" };
    let _ = writeln!(io::stdout(), "{comment}the configuration is correct");
    ExitCode::SUCCESS
}

impl Findings {
    fn of(args: &ServeArgs, log: &LogArgs) -> Self {
        let mut findings = Self::of_settings(args, log);
        findings.take(check_directory(args));
        findings.take(check_pepper(&args.store, args.init));
        if !args.apply.is_empty() {
            findings.take(declared_state(&args.apply));
        }
        findings.check_authority(args);
        findings.check_certificates(args);
        findings
    }

    /// Of the settings alone, and not of the files that they name.
    pub(super) fn of_settings(args: &ServeArgs, log: &LogArgs) -> Self {
        let mut findings = Self::default();
        findings.take(log.filter());
        findings.take(Roots::new(args.store.root_cost()));
        findings.take(args.traces.check());
        findings.take(check_apply(args));
        if let Some(urls) = args.store.location.database() {
            findings.take(urls.check());
        }
        findings.take(Tls::check_flags(&args.tls));
        findings.check_addresses(args);
        findings.check_limits(args);
        findings
    }

    fn take<T, E: ToString>(&mut self, outcome: Result<T, E>) {
        if let Err(problem) = outcome {
            self.problems.push(problem.to_string());
        }
    }

    /// A new authority needs `--init`, and so may what an unmounted volume leaves.
    fn check_authority(&mut self, args: &ServeArgs) {
        let location = &args.store.location;
        let is_empty = location.database().is_none()
            && has_database(&location.data_dir).is_ok_and(|has_database| !has_database);
        if is_empty && !args.init {
            self.warnings.push(format!(
                "there is no authority in {} yet: `serve` needs --init to make one, or mount the volume that has it",
                location.data_dir.display()
            ));
        }
    }

    fn check_addresses(&mut self, args: &ServeArgs) {
        for (address, flag) in args.exposed_addresses() {
            self.take(Err::<(), _>(ListenError::Exposed { address, flag }));
        }
        let addresses: Vec<_> = args.listen.addresses().collect();
        for (index, (address, flag)) in addresses.iter().enumerate() {
            let taken = addresses[..index].iter();
            let mut taken = taken.filter(|(other, _)| is_same_socket(*other, *address));
            if let Some((other_address, other)) = taken.next() {
                self.problems.push(format!(
                    "--{other} {other_address} and --{flag} {address} are the same: choose another port for one of them"
                ));
            }
        }
        if let Some(path) = &args.listen.unix_socket {
            self.take(
                Listener::check_unix(path).map_err(|source| ListenError::Path {
                    path: path.clone(),
                    source,
                }),
            );
        }
    }

    fn check_certificates(&mut self, args: &ServeArgs) {
        let (tls, path) = match (Tls::load(&args.tls), &args.tls.tls_cert) {
            (Ok(Some(tls)), Some(path)) => (tls, path.display()),
            // The check of the settings has found it.
            (Ok(_) | Err(CertificateError::Incomplete { .. }), _) => return,
            (Err(error), _) => return self.problems.push(error.to_string()),
        };
        let (validity, now) = (tls.validity(), Clock::system().now());
        if validity.end < now.saturating_add(EXPIRES_SOON) {
            self.warnings.push(format!(
                "--tls-cert: the certificate in {path} expires at {}: replace it before that",
                validity.end.rfc3339()
            ));
        }
    }

    fn check_limits(&mut self, args: &ServeArgs) {
        let (all, per_address) = (
            args.transport.max_connections,
            args.transport.max_connections_per_address,
        );
        if per_address > all {
            self.warnings.push(format!(
                "--max-connections-per-address {per_address} is more than --max-connections {all}, so one address can take all \
                 connections: set it lower"
            ));
        }
    }
}

/// Checks the data directory, which need not exist yet.
fn check_directory(args: &ServeArgs) -> Result<(), OpenStoreError> {
    let path = &args.store.location.data_dir;
    if path.exists() && !path.is_dir() {
        return Err(OpenStoreError::Io {
            path: path.clone(),
            source: io::ErrorKind::NotADirectory.into(),
        });
    }
    Ok(())
}

/// Checks the pepper file. It must exist if its database may exist.
fn check_pepper(args: &StoreArgs, creates: bool) -> Result<(), OpenStoreError> {
    let path = args.pepper_path().ok_or(OpenStoreError::PepperUnnamed)?;
    let has_pepper = Peppers::load(&path)?.is_some();
    let must_exist = match args.location.database() {
        // Whether there is an authority only the database knows, but `serve` without --init needs one.
        Some(_) => !creates,
        None => has_database(&args.location.data_dir)?,
    };
    if must_exist && !has_pepper {
        return Err(OpenStoreError::PepperMissing(path));
    }
    Ok(())
}

/// Whether a socket that listens on one address takes the place of the other.
fn is_same_socket(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = |address: SocketAddr| address.ip().is_unspecified();
    let is_same_ip = one.ip().to_canonical() == other.ip().to_canonical();
    one.port() != 0 && one.port() == other.port() && (is_same_ip || is_any(one) || is_any(other))
}
