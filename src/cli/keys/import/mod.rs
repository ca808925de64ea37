//! The `keys import` command, which imports the keys of another system from a file.
//!
//! `lines` reads the file, `csv_line` and `json_line` parse a line, `entry` builds the message, `send` sends the batches,
//! `outcome` classifies the results, and `summary` is what is shown at the end. At most one batch is in memory.

mod csv_line;
mod entry;
mod interrupt;
mod json_line;
mod lines;
mod outcome;
mod progress;
mod send;
mod source;
mod summary;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, Level, WaitFlag};
use crate::cli::output::{self, Output};
use crate::cli::realm_flag::RealmFlag;
use crate::cli::request_id::RequestIdFlag;
use crate::cli::text;
use entry::Row;
use interrupt::Interrupt;
use outcome::{Classifier, SeenKeys};
use progress::ProgressReporter;
use send::{Batch, Sender};
use source::{FileFormat, Source};
use summary::{ImportSummary, Report};

/// The exit code after Ctrl-C, as a shell has it for a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Import the keys of another system, whose API keys stay valid.
///
/// Each line is one key: `claviger help import-format` says with which fields.
///
/// An invalid line affects no other line. After an interruption, run the same command again: imported entries are
/// recognised.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every entry is imported, now or earlier
  1    some entries failed, or the import could not be completed
  2    the command or the header line is invalid
  130  stopped by Ctrl-C, after the batch that was sent

Examples:
  claviger keys import keys.csv --realm demo --scope read --dry-run
  claviger keys import keys.jsonl --partner acme --report failed.jsonl")]
pub struct Import {
    /// The file to import; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    realm: RealmFlag,
    /// The format of the file [default: by its extension: csv, or jsonl and ndjson].
    #[arg(long)]
    format: Option<FileFormat>,
    /// Change nothing, and show what would become of each entry.
    #[arg(long)]
    dry_run: bool,
    /// Write all failures to this file, as JSON Lines.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Entries in each request. The server needs about 25 ms for each new key, and must finish the request within
    /// --timeout.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    batch: u16,
    #[command(flatten)]
    request_id: RequestIdFlag,
    #[command(flatten)]
    wait: WaitFlag,
    // Last, because its heading applies to all flags after it.
    #[command(flatten)]
    defaults: Defaults,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Defaults for entries that do not set the field")]
struct Defaults {
    /// The partner that owns the keys.
    #[arg(long)]
    partner: Option<String>,
    /// The project to bind the keys to.
    #[arg(long)]
    project: Option<String>,
    /// The level of the keys.
    #[arg(long)]
    level: Option<Level>,
    /// The environment of the keys.
    #[arg(long)]
    environment: Option<String>,
    /// A scope to grant; can be repeated, or separated by commas.
    #[arg(long, value_delimiter = ',')]
    scope: Vec<String>,
    /// Grant every scope of the realm, also scopes that are added later.
    #[arg(long, conflicts_with = "scope")]
    full_access: bool,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// A label to attach; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// An address range from which the keys may be used; can be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
}

impl Import {
    /// Returns the exit code.
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<u8, Failure> {
        let format = self.format.or_else(|| by_extension(&self.file));
        let format = format.ok_or_else(|| {
            Failure::usage("the format of the file is unknown: its name has no known extension")
                .hint("set it with --format csv or --format jsonl")
        })?;
        // Errors in the flags and the header line are reported before a connection is attempted.
        let mut source = Source::open(&self.file, format, self.defaults.row()?)?;
        let report = self.report.map(|path| Report::create(path, &self.file));
        let client = connection.connect().await?.in_background();
        let realm = self.realm.resolve(&client).await?;
        let interrupt = Interrupt::catch()
            .map_err(|error| Failure::failed(format!("cannot wait for Ctrl-C: {error}")))?;
        let mut import = Sender {
            client: &client,
            progress: ProgressReporter::start(!output.is_for_people(), source.size()),
            classifier: Classifier {
                realm,
                dry_run: self.dry_run,
                seen: SeenKeys::default(),
                seen_external_ids: SeenKeys::default(),
            },
            summary: ImportSummary::new(report.transpose()?),
            wait: self.wait,
            request_id: self.request_id.id(),
            batches: 0,
            interrupt,
        };

        output.check_summary_field(&summary::FIELDS)?;
        let outcome = import_all(&mut source, &mut import, usize::from(self.batch)).await;
        import.progress.finish();
        let stopped = match &outcome {
            Ok(stopped) => *stopped,
            Err(_) => import.interrupt.has_come(),
        };
        let mut summary = import.summary;
        let reported = summary.finish();
        if summary.done() > 0 || outcome.is_ok() {
            let mut json = summary.json(self.dry_run);
            if stopped {
                json["stopped"] = true.into();
            }
            output.show_summary(&json, || summary.describe(self.dry_run, output.width()))?;
        }
        if stopped {
            if let Err(failure) = &outcome {
                output.print_failure(failure);
            }
            if output.is_for_people() {
                let all = source.count();
                output::print_error(&stop(summary.are_in(), all, self.dry_run));
            }
            return Ok(INTERRUPTED);
        }
        outcome.and(reported)?;
        match summary.failed() {
            0 => Ok(0),
            1 => Err(Failure::failed("1 entry was not imported")),
            failed => Err(Failure::failed(format!(
                "{failed} entries were not imported"
            ))),
        }
    }
}

/// What is told after Ctrl-C.
fn stop(are_in: u64, lines: Option<u64>, dry_run: bool) -> String {
    let lines = lines.map_or_else(String::new, |lines| format!(" of {}", text::grouped(lines)));
    let are_in = text::grouped(are_in);
    if dry_run {
        return format!(
            "stopped: {are_in}{lines} could be imported or are in. Nothing was changed."
        );
    }
    format!("stopped: {are_in}{lines} are in. The same command goes on from here.")
}

/// Imports all entries, and returns whether Ctrl-C stopped it before the end.
async fn import_all(
    source: &mut Source,
    import: &mut Sender<'_>,
    size: usize,
) -> Result<bool, Failure> {
    let mut batch = Batch::default();
    while let Some((line, entry)) = source.next()? {
        if !batch.has_room(&entry, size) {
            import.send(&mut batch, source.read()).await?;
        }
        if import.interrupt.has_come() {
            return Ok(true);
        }
        batch.add(line, entry);
    }
    import.send(&mut batch, source.read()).await?;
    Ok(false)
}

impl Defaults {
    fn row(self) -> Result<Row, Failure> {
        let labels =
            flags::by_name(self.label).map_err(|why| Failure::usage(format!("--label: {why}")))?;
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Ok(Row {
            partner: self.partner,
            project: self.project,
            level: self.level.map(Level::to_proto),
            environment: self.environment,
            scopes: some(self.scope),
            full_access: self.full_access.then_some(true),
            expire_time: self.expiry.time()?,
            labels: (!labels.is_empty()).then_some(labels),
            allowed_cidrs: some(self.allow_cidr),
            ..Row::default()
        })
    }
}

fn by_extension(path: &Path) -> Option<FileFormat> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Some(FileFormat::Csv),
        "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
        _ => None,
    }
}
