//! The `claviger` program.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use claviger::cli::{self, ClientCommand, Connection};
use claviger::commands::{self, BootstrapArgs, MigrateArgs};
use claviger::config::{self, ConfigFileArgs, Environment, Resolved, ServeArgs};
use claviger::help::{self, Named, Shell};
use claviger::telemetry::{self, LogArgs};

// The measurements are in docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version, with the commit of a release.
const VERSION: &str = env!("CLAVIGER_VERSION");

/// An authority for API keys: issues keys, and decides for each request whether its key may do it.
#[derive(Parser)]
#[command(name = "claviger", version = VERSION, arg_required_else_help = true)]
struct CommandLine {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the authority.
    #[command(after_help = SERVE_HELP)]
    Serve {
        #[command(flatten)]
        serve: Box<ServeArgs>,
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        config: ConfigFileArgs,
        /// Check the configuration and exit, with 0 if it is correct and 78 if not. Opens no store, does not listen, and writes
        /// nothing
        #[arg(long)]
        check_config: bool,
        /// Print the settings in force as a configuration file and exit. Each has a comment that says where it comes from.
        /// Passwords are masked. With --check-config, check them too
        #[arg(long)]
        print_config: bool,
    },
    /// Create the authority and its first operator key, without serving, and print only the key on standard output.
    #[command(
        after_help = "Examples:\n  claviger bootstrap --data-dir ./claviger-data > operator.key"
    )]
    Bootstrap {
        #[command(flatten)]
        bootstrap: BootstrapArgs,
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        config: ConfigFileArgs,
    },
    /// Migrate the database's schema to this version, without serving.
    #[command(after_help = "Examples:\n  claviger migrate --data-dir ./claviger-data")]
    Migrate {
        #[command(flatten)]
        migrate: MigrateArgs,
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        config: ConfigFileArgs,
    },
    /// Examine the machine, the files and the store of a server, also while it runs: takes the flags of `serve`, and changes
    /// nothing.
    #[command(
        after_help = DOCTOR_HELP
    )]
    Doctor {
        #[command(flatten)]
        serve: Box<ServeArgs>,
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        config: ConfigFileArgs,
    },
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the completions of a shell: of commands, flags, and the names of realms, partners, projects, environments and
    /// scopes, for which the server is asked.
    #[command(alias = "completion", after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a man page for each command.
    #[command(after_help = "Examples:\n  claviger man ./man1")]
    Man {
        /// The directory for the pages, made if it does not exist.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the version.
    #[command(hide = true)]
    Version,
}

const SERVE_HELP: &str = "\
Examples:
  claviger serve --init
  claviger serve --config claviger.toml --check-config";

const DOCTOR_HELP: &str = "\
Exit code: 0 if nothing failed, 1 if a check failed, 78 if the configuration cannot work.

Examples:
  claviger doctor --data-dir ./claviger-data
  claviger doctor --config claviger.toml --json";

const COMPLETIONS_HELP: &str = "\
In ~/.bashrc, in ~/.zshrc, and in ~/.config/fish/config.fish:
  source <(claviger completions bash)
  source <(claviger completions zsh)
  claviger completions fish | source

Examples:
  claviger completions bash > claviger.bash";

/// The command that examines a server.
const DOCTOR: &str = "doctor";

/// The flag for JSON, which client commands have, and [`DOCTOR`].
const JSON: &str = "json";

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = help::answer(program, &line, names_of_server) {
        return code;
    }
    let matches = parse(&line);
    if let Some(words) = help::asked(&matches) {
        return print_help(&words);
    }
    let program = program();
    let (name, of_command) = matches.subcommand().expect("a command is required");
    let command = program.find_subcommand(name).expect("it was parsed");
    let is_doctor = name == DOCTOR;
    if !calls_server(command) {
        refuse_client_flags(of_command, is_doctor);
    }
    if !config::has_settings(command) {
        return run(&matches, &Resolved::default());
    }
    let environment = Environment::of_process();
    let resolved = config::resolve(
        &program,
        command,
        &Connection::VARIABLES,
        of_command,
        &environment,
    );
    match resolved {
        Ok(resolved) => {
            // No flag may stand before the command, so it is the first argument.
            let (command, rest) = line.split_at(2);
            let line = [command, &resolved.flags, rest].concat();
            run(&parse(&line), &resolved)
        }
        Err(problems) if is_doctor => {
            commands::doctor_without_settings(&problems, of_command.get_flag(JSON))
        }
        Err(problems) => {
            for problem in problems {
                telemetry::print(&format!("error: {problem}"));
            }
            ExitCode::from(commands::BAD_CONFIGURATION)
        }
    }
}

/// The description of the command line.
fn program() -> clap::Command {
    help::with_help_commands(CommandLine::command())
}

/// Parses a command line. The commands that have settings are parsed without their variables.
fn parse(line: &[OsString]) -> ArgMatches {
    config::without_variables(program())
        .try_get_matches_from(line)
        .unwrap_or_else(|error| {
            // The pages are made only where one is asked for.
            if is_help(&error)
                && error.kind() != ErrorKind::DisplayVersion
                && let Err(page) =
                    help::with_pages(program(), line, calls_server).try_get_matches_from(line)
            {
                exit_without_keys(page);
            }
            exit_without_keys(with_usage_of_command(error, line))
        })
}

/// The error with the usage of its command. The parser's own one has the flags whose variables are set, as if these were needed.
fn with_usage_of_command(mut error: clap::Error, line: &[OsString]) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    let mut program = program();
    program.build();
    let mut command = &mut program;
    for word in line.iter().skip(1).filter_map(|word| word.to_str()) {
        if command.find_subcommand(word).is_some() {
            command = command.find_subcommand_mut(word).expect("it was found");
        } else if !word.starts_with('-') {
            break;
        }
    }
    let usage = command.render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}

/// Prints the help of a command or a topic.
fn print_help(words: &[String]) -> ExitCode {
    if let [name] = words
        && let Some(text) = help::topic(&program(), name)
    {
        return help::print_topic(&text);
    }
    let mut line = vec![OsString::from("claviger")];
    line.extend(
        words
            .iter()
            .filter(|word| *word != help::HELP)
            .map(OsString::from),
    );
    line.push(OsString::from("--help"));
    parse(&line);
    ExitCode::SUCCESS
}

/// The names of a server for the completions of the line that is typed. Without a server, or without a key for it, there are none.
fn names_of_server(named: Named) -> Vec<String> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let matches = program()
        .ignore_errors(true)
        .try_get_matches_from(help::typed_line(&line));
    let Ok(matches) = matches else {
        return Vec::new();
    };
    let Ok(connection) = Connection::from_arg_matches(&matches) else {
        return Vec::new();
    };
    let mut below = &matches;
    while let Some((_, matches)) = below.subcommand() {
        below = matches;
    }
    let realm = below.try_get_one::<String>("realm").ok().flatten().cloned();
    cli::names(&connection, named, realm)
}

/// Whether the error is a page of help, or the version.
fn is_help(error: &clap::Error) -> bool {
    error.exit_code() == 0 || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

fn run(matches: &ArgMatches, resolved: &Resolved) -> ExitCode {
    let CommandLine {
        connection,
        command,
    } = CommandLine::from_arg_matches(matches).unwrap_or_else(|error| exit_without_keys(error));
    let log = match &command {
        Command::Serve {
            serve,
            log,
            check_config,
            print_config,
            config: _,
        } if *check_config || *print_config => {
            for warning in &resolved.warnings {
                telemetry::print(&format!("warning: {warning}"));
            }
            if *print_config {
                print_settings(matches, resolved);
            }
            if *check_config {
                return commands::check_config(serve, log, *print_config);
            }
            return ExitCode::SUCCESS;
        }
        Command::Serve { log, .. }
        | Command::Bootstrap { log, .. }
        | Command::Migrate { log, .. } => Some(log),
        // Its report has everything.
        Command::Doctor { .. }
        | Command::Client(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Version => None,
    };
    // Dropped after the command, which waits until the log is written.
    let _log = match log.map(telemetry::start).transpose() {
        Ok(log) => log,
        Err(problem) => {
            telemetry::print(&format!("error: {problem}"));
            return ExitCode::from(commands::BAD_CONFIGURATION);
        }
    };
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    match command {
        Command::Doctor { serve, log, .. } => {
            commands::doctor(&serve, &log, resolved, connection.json)
        }
        Command::Serve { serve, .. } => commands::serve(&serve),
        Command::Bootstrap { bootstrap, .. } => commands::bootstrap(&bootstrap),
        Command::Migrate { migrate, .. } => commands::migrate(&migrate),
        Command::Client(command) => cli::run(connection, command),
        Command::Completions { shell } => help::print_script(shell),
        Command::Man { directory } => help::write_pages(described(), &directory),
        Command::Version => help::print_topic(&format!("claviger {VERSION}")),
    }
}

/// The command line as it is described to users: without the flags of the client commands where they are refused.
fn described() -> clap::Command {
    let mut program = CommandLine::command().disable_help_subcommand(true);
    // This copies the flags that may stand anywhere to each command.
    program.build();
    program.mut_subcommands(|command| {
        if calls_server(&command) {
            return command;
        }
        let flags = Connection::augment_args(clap::Command::new("client"));
        let ids: Vec<_> = flags
            .get_arguments()
            .map(|flag| flag.get_id().clone())
            .collect();
        command.mut_args(|arg| {
            if ids.contains(arg.get_id()) {
                arg.hide(true)
            } else {
                arg
            }
        })
    })
}

/// Whether a command calls a running server, so that it takes the flags of the connection.
fn calls_server(command: &clap::Command) -> bool {
    !config::has_settings(command)
        && !["completions", "man", "version", help::HELP].contains(&command.get_name())
}

/// Prints the settings in force of the command on standard output.
fn print_settings(matches: &ArgMatches, resolved: &Resolved) {
    let (name, of_command) = matches.subcommand().expect("a command is required");
    let program = program();
    let command = program.find_subcommand(name).expect("it was parsed");
    let settings = config::print(command, of_command, &resolved.sources);
    let _ = std::io::stdout().write_all(settings.as_bytes());
}

/// Prints an error of the parser and exits. The parser repeats wrong arguments, which may be API keys, so these are masked.
fn exit_without_keys(mut error: clap::Error) -> ! {
    // Help and version texts contain no arguments of the user.
    if is_help(&error) {
        error.exit();
    }
    help::keep_near(&mut error, &program());
    let message = error.render().to_string();
    let masked = masked(&message);
    if wants_json(std::env::args_os().skip(1)) {
        cli::print_usage_error(&masked);
        std::process::exit(error.exit_code());
    }
    if masked == message {
        // With colours, if standard error is a terminal.
        error.exit();
    }
    // Unlike `eprint!`, without a panic if standard error cannot be written.
    let _ = std::io::stderr().write_all(masked.as_bytes());
    std::process::exit(error.exit_code());
}

/// Whether `--json` is among the arguments. The parser has not accepted them, so only their text counts.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut flags = arguments.take_while(|argument| argument != "--");
    flags.any(|argument| argument == "--json")
}

fn masked(message: &str) -> String {
    cli::mask_keys(message, &names(&program()))
}

/// Returns the names of all commands and flags.
fn names(command: &clap::Command) -> Vec<String> {
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    let mut found: Vec<_> = flags.map(|name| format!("--{name}")).collect();
    for command in command.get_subcommands() {
        found.push(command.get_name().to_owned());
        found.extend(names(command));
    }
    found
}

/// Refuses flags of the client commands. They may stand anywhere on the command line, so clap accepts them with every command;
/// ignoring them would mislead the user. A report can be JSON.
fn refuse_client_flags(of_command: &ArgMatches, has_report: bool) {
    let flags = Connection::augment_args(clap::Command::new("client"));
    let flags = flags.get_arguments();
    for flag in flags.filter(|flag| !(has_report && flag.get_id() == JSON)) {
        if of_command.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine) {
            let name = flag.get_long().unwrap_or_default();
            let message = format!(
                "--{name} is only for the commands that call a running server: leave it out\n"
            );
            exit_without_keys(program().error(ErrorKind::ArgumentConflict, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_parser_contain_no_key() {
        const ID: &str = "01a4f0c1-2345-7abc-8def-0123456789ab";
        const KEY: &str = "demo_live_4fzs3fzs3fzs3fzs3fzs3fz";
        for line in [
            &[KEY][..],
            &["keys", KEY],
            &["keys", "get", ID, KEY],
            &["verify", "--realm", "demo", KEY, KEY],
            &["realm", "get", "demo", &format!("--{KEY}")],
            &["keys", "rotate", ID, "--overlap", KEY],
            &["serve", "--listen", KEY],
        ] {
            let line = ["claviger"].iter().chain(line);
            let error = program().try_get_matches_from(line).unwrap_err();
            let shown = error.render().to_string();
            assert!(shown.contains(KEY), "the parser repeats it: {shown}");
            let shown = masked(&shown);
            assert!(shown.contains("***") && !shown.contains("s3fz"), "{shown}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn names_of_flags_stay_in_errors() {
        let error = program()
            .try_get_matches_from(["claviger", "serve", "--max-connections-per-address", "0"])
            .unwrap_err();
        let shown = error.render().to_string();
        assert!(shown.contains("--max-connections-per-address"), "{shown}");
        assert_eq!(masked(&shown), shown);
    }
}
