//! Keys of another system are taken over from a file.
//!
//! `lines` reads the file, `csv_line` and `json_line` understand a line, `entry` is what it says, `outcome` what became of it,
//! and `tally` what is told at the end. No more than one batch is held at a time.

mod csv_line;
mod entry;
mod json_line;
mod lines;
mod outcome;
mod progress;
mod send;
mod source;
mod tally;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::connect::Connection;
use crate::cli::failure::Failure;
use crate::cli::flags::{self, ExpiryFlags, Level, WaitFlag};
use crate::cli::output::Output;
use crate::cli::request_id::RequestIdFlag;
use entry::Said;
use outcome::{Judge, Seen};
use progress::Progress;
use send::{Batch, Sender};
use source::{Form, Source};
use tally::{Report, Tally};

/// Import the keys of another system, with the texts that their holders have.
///
/// Each line is one entry. Its fields are `text` or `sha256` (64 hexadecimal digits, or base64), `partner`, `project`, `level`,
/// `environment`, `name`, `scopes`, `full_access`, `expire_time` (RFC 3339), `labels` and `allowed_cidrs`. The first line of a
/// CSV file names its columns; in them, scopes and ranges stand with blanks between them, and labels as name=value;name=value.
/// In JSON Lines scopes and ranges are lists, and labels an object.
///
/// A line that is wrong hurts only itself. After a break, run the same command again: what was imported is recognised.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  every entry is imported, or was before
  1  some entries failed, or it could not be brought to its end
  2  the command was wrong, or the header line

Examples:
  claviger keys import keys.csv --realm demo --environment production --scope read --dry-run

  claviger keys import keys.jsonl --realm demo --partner acme --report failed.jsonl")]
pub struct Import {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// The realm to import them into.
    #[arg(long)]
    realm: String,
    /// What the file is [default: by its extension: csv, or jsonl and ndjson].
    #[arg(long)]
    format: Option<Format>,
    /// Change nothing, but tell what would become of each entry.
    #[arg(long)]
    dry_run: bool,
    /// Write all failures to this file, as JSON Lines.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How many entries to send at once. Each new key takes the server some 25 ms, and all of them must be done within
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
    // Last, as its heading would stand above all that follows.
    #[command(flatten)]
    defaults: Defaults,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Comma-separated values, with a header line.
    Csv,
    /// JSON Lines: an object on each line.
    Jsonl,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "For entries that do not say it themselves")]
struct Defaults {
    /// The partner that owns them.
    #[arg(long)]
    partner: Option<String>,
    /// The project to bind them to.
    #[arg(long)]
    project: Option<String>,
    /// Which part of the partner they reach.
    #[arg(long)]
    level: Option<Level>,
    /// Their environment.
    #[arg(long)]
    environment: Option<String>,
    /// A scope to grant; can be repeated.
    #[arg(long)]
    scope: Vec<String>,
    /// Grant every scope of the realm, also those that it will get.
    #[arg(long, conflicts_with = "scope")]
    full_access: bool,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// A word to attach; can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = flags::pair, allow_hyphen_values = true)]
    label: Vec<(String, String)>,
    /// An address range that they may be used from; can be repeated.
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
}

impl Import {
    pub(super) async fn run(self, connection: &Connection, output: &Output) -> Result<(), Failure> {
        let format = self.format.or_else(|| by_extension(&self.file));
        let form = match format.ok_or_else(|| {
            Failure::usage("what is in the file? Its name does not tell")
                .hint("--format csv or --format jsonl says it")
        })? {
            Format::Csv => Form::Csv,
            Format::Jsonl => Form::JsonLines,
        };
        // What is wrong here is said before a server is looked for.
        let mut source = Source::open(&self.file, form, self.defaults.said()?)?;
        let report = self.report.map(|path| Report::create(path, &self.file));
        let client = connection.connect().await?;
        let mut import = Sender {
            client: &client,
            progress: Progress::start(output.is_json(), source.size()),
            judge: Judge {
                realm: self.realm,
                dry_run: self.dry_run,
                seen: Seen::default(),
            },
            tally: Tally::new(report.transpose()?),
            wait: self.wait,
            request_id: self.request_id.id(),
            batches: 0,
        };

        let outcome = import_all(&mut source, &mut import, usize::from(self.batch)).await;
        import.progress.finish();
        let mut tally = import.tally;
        let reported = tally.finish();
        if tally.done() > 0 || outcome.is_ok() {
            output.show_sum(&tally.json(self.dry_run), || tally.told(self.dry_run))?;
        }
        outcome.and(reported)?;
        match tally.failed() {
            0 => Ok(()),
            1 => Err(Failure::failed("1 entry was not imported")),
            failed => Err(Failure::failed(format!(
                "{failed} entries were not imported"
            ))),
        }
    }
}

async fn import_all(
    source: &mut Source,
    import: &mut Sender<'_>,
    size: usize,
) -> Result<(), Failure> {
    let mut batch = Batch::default();
    while let Some((line, entry)) = source.next()? {
        if !batch.has_room(&entry, size) {
            import.send(&mut batch, source.read()).await?;
        }
        batch.add(line, entry);
    }
    import.send(&mut batch, source.read()).await
}

impl Defaults {
    fn said(self) -> Result<Said, Failure> {
        let labels =
            flags::by_name(self.label).map_err(|why| Failure::usage(format!("--label: {why}")))?;
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Ok(Said {
            partner: self.partner,
            project: self.project,
            level: self.level.map(Level::on_wire),
            environment: self.environment,
            scopes: some(self.scope),
            full_access: self.full_access.then_some(true),
            expire_time: self.expiry.time()?,
            labels: (!labels.is_empty()).then_some(labels),
            allowed_cidrs: some(self.allow_cidr),
            ..Said::default()
        })
    }
}

fn by_extension(path: &Path) -> Option<Format> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}
