//! The check of a configuration before a start with it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use super::BAD_CONFIGURATION;
use crate::config::{ServeArgs, StoreArgs};
use crate::domain::clock::Clock;
use crate::domain::time::Timestamp;
use crate::hashing::{Peppers, Roots};
use crate::open::{OpenStoreError, has_database};
use crate::server::ListenError;
use crate::telemetry::{self, LogArgs};
use crate::transport::{EXPIRES_SOON, Tls};

/// What is wrong with a configuration, and what the operator should know. Each message ends with what to do.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
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
        let mut findings = Self::default();
        findings.take(log.filter());
        findings.take(Roots::new(args.store.root_cost()));
        findings.take(check_store(args));
        findings.take(check_pepper(&args.store, args.init));
        findings.check_addresses(args);
        findings.check_certificates(args);
        findings.check_limits(args);
        findings
    }

    fn take<T, E: ToString>(&mut self, outcome: Result<T, E>) {
        if let Err(problem) = outcome {
            self.problems.push(problem.to_string());
        }
    }

    fn check_addresses(&mut self, args: &ServeArgs) {
        for (address, flag) in args.exposed_addresses() {
            self.take(Err::<(), _>(ListenError::Exposed { address, flag }));
        }
        let addresses: Vec<_> = args.listen.addresses().collect();
        for (index, (address, flag)) in addresses.iter().enumerate() {
            let same = addresses[..index]
                .iter()
                .find(|(other, _)| other == address);
            if let Some((_, other)) = same.filter(|_| address.port() != 0) {
                self.problems.push(format!(
                    "--{other} and --{flag} are both {address}: choose another port for one of them"
                ));
            }
        }
    }

    fn check_certificates(&mut self, args: &ServeArgs) {
        let (tls, path) = match (Tls::load(&args.tls), &args.tls.tls_cert) {
            (Ok(Some(tls)), Some(path)) => (tls, path.display()),
            (Ok(_), _) => return,
            (Err(error), _) => return self.problems.push(error.to_string()),
        };
        let (validity, now) = (tls.validity(), Clock::system().now());
        if validity.start > now {
            self.problems.push(format!(
                "--tls-cert: the certificate in {path} is not valid before {}: replace it, or correct this machine's clock",
                rfc3339(validity.start)
            ));
        }
        if validity.end < now.saturating_add(EXPIRES_SOON) {
            self.warnings.push(format!(
                "--tls-cert: the certificate in {path} expires at {}: replace it before that",
                rfc3339(validity.end)
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

/// Checks the place of the store, which need not exist yet.
fn check_store(args: &ServeArgs) -> Result<(), OpenStoreError> {
    let location = &args.store.location;
    if let Some(url) = &location.database_url {
        url.check()?;
    }
    let path = &location.data_dir;
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
    let must_exist = match args.location.database_url {
        // Whether there is an authority only the database knows, but `serve` without --init needs one.
        Some(_) => !creates,
        None => has_database(&args.location.data_dir)?,
    };
    if must_exist && !has_pepper {
        return Err(OpenStoreError::PepperMissing(path));
    }
    Ok(())
}

fn rfc3339(time: Timestamp) -> impl std::fmt::Display {
    let since_epoch = time.since(Timestamp::from_micros(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch)
}
