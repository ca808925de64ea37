//! `claviger doctor`: examines the machine, the files and the store of a server, also while the server runs, and changes nothing.
//!
//! Each part gathers facts and judges them. A check that needs what another one has found missing is skipped, so that the report names
//! a cause once.

mod certificates;
mod disk;
mod files;
mod listeners;
mod machine;
mod probe;
mod report;
mod shared;
mod store;

use std::process::ExitCode;

use tokio::runtime::Builder;

use super::BAD_CONFIGURATION;
use super::check::Findings;
use crate::cli;
use crate::config::{Resolved, ServeArgs};
use crate::telemetry::{self, LogArgs};
use report::{Check, Finding, Outcome, Report, problems_or};

/// Examines what `serve` with these settings would use, and prints what it finds. Returns 0 if nothing failed, 78 if the settings
/// cannot work, and otherwise 1.
pub fn doctor(args: &ServeArgs, log: &LogArgs, resolved: &Resolved, json: bool) -> ExitCode {
    let mut report = Report::default();
    report.add(Check::Configuration, configuration(args, log));
    files::examine(&mut report, args, resolved);
    disk::examine(&mut report, args);
    certificates::examine(&mut report, &args.tls);
    report.add(Check::FileDescriptors, machine::file_descriptors(args));
    report.add(Check::Threads, machine::threads(args));
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let keys = runtime.block_on(async {
                listeners::examine(&mut report, args).await;
                store::examine(&mut report, args).await
            });
            report.add(Check::Memory, machine::memory(args, keys));
            // A file system that hangs must not keep the result.
            runtime.shutdown_background();
        }
        Err(error) => telemetry::print(&format!("error: cannot start the program: {error}")),
    }
    if args.store.location.database().is_none() {
        let checks = [
            Check::Replicas,
            Check::Latency,
            Check::Connections,
            Check::Rights,
        ];
        report.skip(&checks, "only for PostgreSQL");
    }
    report.skip_others("the store cannot be examined");
    finish(&report, json)
}

/// Reports settings that cannot be read. There is nothing to examine then.
pub fn doctor_without_settings(problems: &[String], json: bool) -> ExitCode {
    let mut report = Report::default();
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| Finding::error(problem))
        .collect();
    report.add(Check::Configuration, problems);
    report.skip_others("the settings cannot be read");
    finish(&report, json)
}

fn configuration(args: &ServeArgs, log: &LogArgs) -> Vec<Finding> {
    let Findings { problems, warnings } = Findings::of_settings(args, log);
    let problems = problems.iter().map(|problem| Finding::error(problem));
    // Each ends with what to do.
    let warnings = warnings.iter().map(|warning| Finding::warning(warning, ""));
    problems_or(problems.chain(warnings).collect(), "correct")
}

fn finish(report: &Report, json: bool) -> ExitCode {
    if !cli::show_report(json, &report.document(), || report.text()) {
        return ExitCode::FAILURE;
    }
    if report.outcome(Check::Configuration) == Outcome::Failed {
        ExitCode::from(BAD_CONFIGURATION)
    } else if report.worst() == Outcome::Failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
