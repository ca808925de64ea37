//! The help pages of the commands.
//!
//! `-h` is a page of at most [`SHORT`] lines: what the command does, examples to paste, and the flags that are used most. It names
//! all other flags. `--help` explains every flag. Examples stand in `after_help`, after the line [`EXAMPLES`].

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::{Str, StyledStr};
use clap::{Arg, ArgAction, Command};

/// The columns of a page.
const WIDTH: usize = 80;
/// The lines of a page for `-h`.
const SHORT: usize = 25;
/// The lines of examples on a page for `-h`.
const SHORT_EXAMPLES: usize = 3;
/// How many flags a page for `-h` names without a word about them. Of more, `serve` has, their names alone help nobody.
const MOST_NAMES: usize = 24;
/// The widest flag beside its explanation.
const WIDEST: usize = 30;
/// The line of `after_help` after which the examples stand.
const EXAMPLES: &str = "Examples:";
/// The heading of the flags that have their own page.
const CONNECTION: &str = "Connection";
const CONNECTION_FLAGS: &str = "Connection flags: claviger help connection";
const ARGUMENTS: &str = "Arguments";
/// The heading of flags without a group.
const OTHER: &str = "Flags";
/// The longest list of possible values beside a flag.
const MAX_CHOICES: usize = 20;

/// The groups of flags, in the order of a page. Flags in none of them stand between the first three and the others.
const GROUPS: [(&str, &[&str]); 14] = [
    (
        "Who",
        &[
            "realm",
            "all-realms",
            "partner",
            "project",
            "own-project",
            "any-target",
            "environment",
            "level",
            "name",
            "display-name",
            "prefix",
            "external-id",
            "label",
            "no-labels",
            "hint",
            "state",
            "key-id",
            "actor",
            "created-by",
        ],
    ),
    (
        "What it may do",
        &[
            "scope",
            "no-scopes",
            "any-scope",
            "full-access",
            "no-full-access",
            "allow-cidr",
            "from-anywhere",
            "admin-scope",
            "unscoped-keys",
            "client-ip",
        ],
    ),
    (
        "How long",
        &[
            "expires-in",
            "expires-at",
            "never-expires",
            "overlap",
            "keep",
            "max-lifetime",
            "max-cache",
            "since",
            "until",
            "from",
            "to",
            "unused-for",
            "expires-within",
            "issued-after",
            "issued-before",
            "beyond-max-lifetime",
        ],
    ),
    (OTHER, &[]),
    (
        "Store",
        &[
            "data-dir",
            "database-url",
            "database-timeout",
            "pepper-file",
            "argon2-memory",
            "argon2-passes",
            "trust-clock",
            "init",
            "apply",
        ],
    ),
    (
        "Addresses",
        &[
            "listen",
            "http-listen",
            "admin-listen",
            "unix-socket",
            "insecure-listen",
            "gateway",
            "trusted-hops",
            "no-reflection",
        ],
    ),
    (
        "TLS",
        &["tls-cert", "tls-key", "client-ca", "require-client-cert"],
    ),
    ("Several servers", &["replica-name", "poll-interval"]),
    (
        "What is kept",
        &[
            "usage-interval",
            "retain-events",
            "retain-usage",
            "retain-tombstones",
            "retain-keys",
        ],
    ),
    (
        "Limits",
        &[
            "delegated-changes-per-hour",
            "disk-reserve",
            "verify-threads",
            "max-connections",
            "max-connections-per-address",
            "max-calls",
            "call-timeout",
            "connection-age",
            "drain-delay",
            "drain-timeout",
        ],
    ),
    (
        "Log and traces",
        &["log", "log-format", "otlp-endpoint", "trace-sample-ratio"],
    ),
    ("Configuration", &["config", "check-config", "print-config"]),
    (
        "Output",
        &[
            "output-file",
            "output",
            "toml",
            "wide",
            "columns",
            "quiet",
            "all",
            "page-size",
            "page-token",
            "follow",
            "fail-if-any",
            "report",
            "json",
            "field",
        ],
    ),
    (
        "The change",
        &[
            "reason",
            "dry-run",
            "yes",
            "with-keys",
            "prune",
            "if-revision",
            "request-id",
            "wait",
        ],
    ),
];

/// The flags that a page for `-h` leaves out first, the first one of them first.
const RARE: [&str; 30] = [
    "field",
    "json",
    "wait",
    "if-revision",
    "request-id",
    "page-token",
    "output",
    "beyond-max-lifetime",
    "created-by",
    "issued-after",
    "issued-before",
    "min-revision",
    "external-id",
    "no-labels",
    "no-full-access",
    "from-anywhere",
    "columns",
    "level",
    "page-size",
    "batch",
    "format",
    "actor",
    "key-id",
    "any-scope",
    "max-cache",
    "hint",
    "client-ip",
    "allow-cidr",
    "label",
    "expires-at",
];

/// The flags of the connection, and the flags that all commands share that call a server.
struct Shared {
    args: Vec<Arg>,
}

/// Gives a command its two pages, and the commands above it. Which one is asked for, the words of the command line tell: a command
/// has pages if its name is among them. `calls_server` tells the commands that take the flags of the connection.
pub fn with_pages(
    program: Command,
    line: &[OsString],
    calls_server: impl Fn(&Command) -> bool,
) -> Command {
    let args = program.get_arguments();
    let args = args.filter(|arg| arg.is_global_set() && !is_connection(arg));
    let shared = Shared {
        args: args.cloned().collect(),
    };
    let name = program.get_name().to_owned();
    let pages = Page::new(&program, &name, Some(&shared)).both();
    let program = program.mut_subcommands(|command| {
        let shared = calls_server(&command).then_some(&shared);
        with_page(command, &name, line, shared)
    });
    dressed(program, pages)
}

fn with_page(command: Command, above: &str, line: &[OsString], shared: Option<&Shared>) -> Command {
    let is_named = |name: &str| line.iter().any(|word| word == name);
    if !is_named(command.get_name()) && !command.get_all_aliases().any(is_named) {
        return command;
    }
    let path = format!("{above} {}", command.get_name());
    let pages = Page::new(&command, &path, shared).both();
    let command = command.mut_subcommands(|command| with_page(command, &path, line, shared));
    dressed(command, pages)
}

fn dressed(command: Command, [short, long]: [String; 2]) -> Command {
    command
        .help_template("{before-help}")
        .before_help(short)
        .before_long_help(long)
}

/// The flags of the connection, explained.
pub(super) fn connection(program: &Command) -> String {
    let flags: Vec<_> = program
        .get_arguments()
        .filter(|arg| is_connection(arg))
        .map(|arg| (label(arg), explained(arg)))
        .collect();
    let mut lines = Vec::new();
    rows(&mut lines, &flags, width(&flags));
    lines.join("\n")
}

fn is_connection(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(CONNECTION)
}

/// What the pages of a command have.
struct Page<'a> {
    command: &'a Command,
    /// The command as it is typed.
    path: &'a str,
    examples: Vec<String>,
    /// What follows the flags, such as exit codes.
    rest: String,
    /// The arguments by their groups.
    groups: Vec<(&'a str, Vec<&'a Arg>)>,
    calls_server: bool,
}

impl<'a> Page<'a> {
    fn new(command: &'a Command, path: &'a str, shared: Option<&'a Shared>) -> Self {
        let text = command.get_after_help();
        let text = text.map(ToString::to_string).unwrap_or_default();
        let (rest, examples) = text.split_once(EXAMPLES).unwrap_or((&text, ""));
        let examples = examples.lines().filter(|line| !line.trim().is_empty());
        let own = command.get_arguments();
        let own = own.filter(|arg| !arg.is_hide_set() && !arg.is_global_set());
        let shared_args = shared.filter(|_| !command.has_subcommands());
        let shared_args = shared_args.into_iter().flat_map(|shared| &shared.args);
        let mut groups: Vec<(&str, Vec<&Arg>)> = Vec::new();
        for arg in own.chain(shared_args) {
            let group = group(arg);
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, args)) => args.push(arg),
                None => groups.push((group, vec![arg])),
            }
        }
        groups.sort_by_key(|(name, _)| place(name));
        Self {
            command,
            path,
            examples: examples.map(str::to_owned).collect(),
            rest: rest.trim().to_owned(),
            groups,
            calls_server: shared.is_some(),
        }
    }

    fn both(&self) -> [String; 2] {
        [self.short(), self.long()]
    }

    /// The page for `-h`: flags are left out until it is short enough.
    fn short(&self) -> String {
        let mut left_out = Vec::new();
        loop {
            let lines = self.short_without(&left_out);
            let next = self.next_to_leave_out(&left_out);
            match next {
                Some(next) if lines.len() > SHORT => left_out.push(next),
                _ => return lines.join("\n"),
            }
        }
    }

    fn short_without(&self, left_out: &[&Arg]) -> Vec<String> {
        let mut lines = start(self.command.get_about());
        let mut examples = self.examples.as_slice();
        // A whole example, even if it has two lines.
        while examples.len() > SHORT_EXAMPLES
            || examples.last().is_some_and(|line| line.ends_with('\\'))
        {
            examples = &examples[..examples.len() - 1];
        }
        self.add_examples(&mut lines, examples);
        self.add_usage(&mut lines);
        self.add_commands(&mut lines);
        if self.command.has_subcommands() && !self.rest.is_empty() {
            lines.push(String::new());
            lines.extend(wrapped(&self.rest, WIDTH));
        }
        let is_shown = |arg: &&&Arg| !left_out.contains(arg);
        let groups: Vec<(&str, Vec<_>)> = self
            .groups
            .iter()
            .map(|(name, args)| {
                let args = args.iter().filter(is_shown);
                let shown = |arg: &&Arg| (label(arg), clause(&help(arg, false)).to_owned());
                (*name, args.map(shown).collect())
            })
            .filter(|(_, args): &(_, Vec<_>)| !args.is_empty())
            .collect();
        let width = groups.iter().map(|(_, args)| width(args)).max();
        if !groups.is_empty() {
            lines.push(String::new());
        }
        for (name, args) in &groups {
            lines.push(self.heading(name));
            rows(&mut lines, args, width.unwrap_or_default());
        }
        let mut names: Vec<_> = left_out.iter().map(|arg| name(arg)).collect();
        names.reverse();
        let mut end = String::new();
        if names.len() > MOST_NAMES {
            let _ = write!(end, "There are {} more flags. ", names.len());
        } else if !names.is_empty() {
            let _ = write!(end, "Also {}. ", names.join(", "));
        }
        if !self.groups.is_empty() {
            end.push_str("More about each flag: --help. ");
        }
        if self.calls_server {
            end.push_str(CONNECTION_FLAGS);
        }
        if !end.is_empty() {
            lines.push(String::new());
            lines.extend(wrapped(&end, WIDTH));
        }
        lines
    }

    /// The argument that a short page leaves out after these.
    fn next_to_leave_out(&self, left_out: &[&'a Arg]) -> Option<&'a Arg> {
        let left: Vec<Vec<_>> = self
            .groups
            .iter()
            .map(|(_, args)| {
                let args = args.iter().copied();
                args.filter(|arg| !arg.is_positional() && !left_out.contains(arg))
                    .collect()
            })
            .collect();
        let mut all = left.iter().flatten().copied();
        let is_rare = |rare: &&str| all.clone().find(|arg| arg.get_long() == Some(rare));
        RARE.iter().find_map(is_rare).or_else(|| {
            // Something of each group stays as long as possible.
            let largest = left.iter().max_by_key(|args| args.len());
            largest
                .and_then(|args| args.last().copied())
                .or_else(|| all.next())
        })
    }

    /// The page for `--help`: everything.
    fn long(&self) -> String {
        let about = self.command.get_long_about();
        let mut lines = start(about.or_else(|| self.command.get_about()));
        self.add_examples(&mut lines, &self.examples);
        self.add_usage(&mut lines);
        self.add_commands(&mut lines);
        for (name, args) in &self.groups {
            let args: Vec<_> = args
                .iter()
                .map(|arg| (label(arg), explained(arg)))
                .collect();
            lines.push(String::new());
            lines.push(self.heading(name));
            rows(&mut lines, &args, width(&args));
        }
        if !self.rest.is_empty() {
            lines.push(String::new());
            for line in self.rest.lines() {
                lines.extend(wrapped(line, WIDTH));
            }
        }
        if self.calls_server {
            lines.push(String::new());
            lines.push(CONNECTION_FLAGS.to_owned());
        }
        lines.join("\n")
    }

    fn add_examples(&self, lines: &mut Vec<String>, examples: &[String]) {
        if !examples.is_empty() {
            lines.push(String::new());
            lines.push(self.heading("Examples"));
            lines.extend(examples.iter().cloned());
        }
    }

    fn add_usage(&self, lines: &mut Vec<String>) {
        let mut usage = self.path.to_owned();
        if self.command.has_subcommands() {
            usage.push_str(" COMMAND");
        }
        let args = || self.groups.iter().flat_map(|(_, args)| args);
        for arg in args().filter(|arg| !arg.is_positional() && arg.is_required_set()) {
            let _ = write!(usage, " {}", label(arg));
        }
        if args().any(|arg| !arg.is_positional() && !arg.is_required_set()) {
            usage.push_str(" [FLAGS]");
        }
        for arg in args().filter(|arg| arg.is_positional()) {
            let _ = if arg.is_required_set() {
                write!(usage, " {}", label(arg))
            } else {
                write!(usage, " [{}]", label(arg))
            };
        }
        let header = self.command.get_styles().get_header();
        lines.push(String::new());
        for (index, line) in wrapped(&usage, WIDTH - 7).iter().enumerate() {
            lines.push(if index == 0 {
                format!("{header}Usage:{header:#} {line}")
            } else {
                format!("       {line}")
            });
        }
    }

    fn add_commands(&self, lines: &mut Vec<String>) {
        let commands = self.command.get_subcommands();
        let commands = commands.filter(|command| !command.is_hide_set());
        let commands: Vec<_> = commands
            .map(|command| {
                let about = command.get_about().map(ToString::to_string);
                (
                    command.get_name().to_owned(),
                    clause(&about.unwrap_or_default()).to_owned(),
                )
            })
            .collect();
        if !commands.is_empty() {
            lines.push(String::new());
            lines.push(self.heading("Commands"));
            rows(lines, &commands, width(&commands));
        }
    }

    fn heading(&self, name: &str) -> String {
        let header = self.command.get_styles().get_header();
        format!("{header}{name}:{header:#}")
    }
}

/// What a command does, the start of its pages.
fn start(about: Option<&StyledStr>) -> Vec<String> {
    let about = about.map(ToString::to_string).unwrap_or_default();
    wrapped(&about, WIDTH)
}

/// The name of the argument's group.
fn group(arg: &Arg) -> &str {
    if arg.is_positional() {
        return ARGUMENTS;
    }
    let name = arg.get_long().unwrap_or_default();
    let mut groups = GROUPS.iter();
    match arg.get_help_heading() {
        Some(heading) => heading,
        None => groups
            .find(|(_, names)| names.contains(&name))
            .map_or(OTHER, |(group, _)| *group),
    }
}

/// The place of a group on a page.
fn place(group: &str) -> usize {
    if group == ARGUMENTS {
        return 0;
    }
    let place = |name: &str| GROUPS.iter().position(|(group, _)| *group == name);
    place(group)
        .or_else(|| place(OTHER))
        .map_or(0, |place| place + 1)
}

/// The argument as it is typed, with its value.
fn label(arg: &Arg) -> String {
    let value = value(arg);
    if arg.is_positional() {
        let more = arg
            .get_num_args()
            .is_some_and(|count| count.max_values() > 1)
            || matches!(arg.get_action(), ArgAction::Append);
        return if more { format!("{value}...") } else { value };
    }
    let mut label = arg
        .get_short()
        .map(|short| format!("-{short}, "))
        .unwrap_or_default();
    label.push_str(&name(arg));
    if !arg.get_action().takes_values() {
        return label;
    }
    if arg.is_require_equals_set() {
        let _ = write!(label, "[={value}]");
    } else {
        let _ = write!(label, " {value}");
    }
    label
}

fn name(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

/// The name of the argument's value, or its few possible values.
fn value(arg: &Arg) -> String {
    let possible = choices(arg).join("|");
    if !possible.is_empty() && possible.len() <= MAX_CHOICES {
        return possible;
    }
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(Str::as_str).collect::<Vec<_>>().join(" ")
}

fn choices(arg: &Arg) -> Vec<String> {
    if !arg.get_action().takes_values() {
        return Vec::new();
    }
    let possible = arg.get_possible_values();
    let shown = possible.iter().filter(|value| !value.is_hide_set());
    shown.map(|value| value.get_name().to_owned()).collect()
}

fn help(arg: &Arg, long: bool) -> String {
    let long = arg.get_long_help().filter(|_| long);
    let help = long.or_else(|| arg.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

/// Everything about an argument: its help, its possible values, its default, and its variable.
fn explained(arg: &Arg) -> String {
    let mut text = help(arg, true);
    let choices = choices(arg);
    if choices.join("|").len() > MAX_CHOICES {
        let _ = write!(text, " [one of {}]", choices.join(", "));
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() && arg.get_action().takes_values() {
        let _ = write!(text, " [default: {}]", defaults.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, " [env: {}]", variable.to_string_lossy());
    }
    text
}

/// The first clause of an explanation.
fn clause(text: &str) -> &str {
    let text = text.split("\n\n").next().unwrap_or_default();
    let ends = [
        ". ",
        "; ",
        ": ",
        " [",
        ", so that ",
        ", also ",
        ", such as ",
        ", instead of ",
    ];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())].trim_end_matches('.')
}

/// The width of the first column.
fn width(rows: &[(String, String)]) -> usize {
    let widths = rows.iter().map(|(label, _)| label.len());
    widths.filter(|width| *width <= WIDEST).max().unwrap_or(0)
}

/// Adds a line, or more, for each flag and its explanation.
fn rows(lines: &mut Vec<String>, rows: &[(String, String)], width: usize) {
    for (label, text) in rows {
        let mut wrapped = wrapped(text, WIDTH - width - 4).into_iter();
        if label.len() > width {
            lines.push(format!("  {label}"));
        } else {
            let first = wrapped.next().unwrap_or_default();
            lines.push(format!("  {label:width$}  {first}").trim_end().to_owned());
        }
        lines.extend(wrapped.map(|line| format!("  {:width$}  {line}", "").trim_end().to_owned()));
    }
}

/// Breaks a text into lines of at most this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let indent = paragraph.len() - paragraph.trim_start().len();
        let mut line = " ".repeat(indent);
        let mut is_empty = true;
        for word in paragraph.split_whitespace() {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_ends_where_the_sentence_does() {
        for (text, first) in [
            (
                "A scope to grant; can be repeated. Without",
                "A scope to grant",
            ),
            ("The realm [default: the only realm]", "The realm"),
            ("Remove all scopes.", "Remove all scopes"),
            ("One.\n\nTwo.", "One"),
        ] {
            assert_eq!(clause(text), first);
        }
    }

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(
            wrapped("one two three\n\n  four five", 9),
            ["one two", "three", "", "  four", "  five"]
        );
    }
}
