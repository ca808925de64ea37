//! The command-line client for administrators and gateways. It uses the public gRPC API and has no other access.
//!
//! Each command parses its flags, sends one request (some commands send a few), and shows the answer: as a table or as
//! lines of facts, or with `--json` as the response message. `connect` reaches the server; `edit` changes some fields of a
//! realm, partner or project and keeps the others; `diagnostics` turns the errors of a call into a `Failure` with a hint.
//! Imports run one way: from the commands to `page`, `edit`, `output` and `connect`, and from those to `failure` and `text`.

mod api_key;
mod arguments;
mod canary;
mod client;
mod codec;
mod complete;
mod connect;
mod contexts;
mod declared;
mod diagnostics;
mod edit;
mod event_line;
mod events;
mod explain;
mod failure;
mod field;
mod flags;
mod gateway;
mod healthcheck;
mod key_file;
mod key_refusal;
mod key_source;
mod keys;
mod listing;
mod login;
mod output;
mod owned_keys;
mod page;
mod pager;
mod partner;
mod project;
mod prompt;
mod realm;
mod realm_flag;
mod redact;
mod reflect;
mod replicas;
mod request_id;
mod response;
mod rounds;
#[cfg(test)]
mod screens;
mod status;
mod style;
mod table;
mod text;
mod toml_file;
mod unknown;
mod usage;
mod verify;
mod waiting;
mod when;
mod width;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args as _, Subcommand};
use serde::Serialize;
use tokio::runtime::Builder;

pub use complete::names;
pub use connect::Connection;
pub use declared::read_declared;
pub use redact::mask_keys;
pub use text::plain;

use arguments::Arguments;
use failure::Failure;
use output::Output;

/// The commands that call a running server.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Keep a server and the key to call it as a context, so that commands need no flags for them.
    Login(login::Login),
    /// Remove a context, with the API key in it. The key itself stays valid.
    Logout(login::Logout),
    /// List contexts, and choose the current one.
    #[command(subcommand)]
    Context(login::Command),
    /// Make a context the current one, whose settings commands take if they name no context.
    Use(login::Use),
    /// Show which server commands call, from which context, and the key that they call it with.
    #[command(name = "whoami")]
    WhoAmI(login::WhoAmI),
    /// Show whether a server is ready and its clock is right, and what your key may do there.
    Status(status::Status),
    /// Manage realms: the protected APIs with their environments, scopes and routes.
    #[command(subcommand, alias = "realms")]
    Realm(realm::Command),
    /// Manage partners: the accounts that own keys.
    #[command(subcommand, alias = "partners")]
    Partner(partner::Command),
    /// Manage projects, to which keys of a partner can be bound.
    #[command(subcommand, alias = "projects")]
    Project(project::Command),
    /// Issue, change and revoke keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make an API key without a server.
    #[command(subcommand)]
    Key(keys::Offline),
    /// Make the authority as files declare it.
    Apply(declared::Apply),
    /// Show what `apply` would change.
    Diff(declared::Diff),
    /// Configure gateways.
    #[command(subcommand)]
    Gateway(gateway::Command),
    /// Show the servers that share a PostgreSQL database, or set the length of their leases.
    Replicas(replicas::Replicas),
    /// Check whether a key is allowed to do something.
    Verify(verify::Verify),
    /// Show every check of a verification, or of a whole HTTP request.
    Explain(explain::Explain),
    /// Show how often the keys of a realm were presented, and whose keys most.
    Usage(usage::Usage),
    /// Show the audit trail, newest first.
    #[command(aliases = ["audit", "log"])]
    Events(events::Events),
    /// Measure how fast every server denies a revoked key, and report every broken promise.
    Canary(canary::Canary),
    /// Ask a server whether it should get requests. Needs no key.
    ///
    /// Exits with 0 if it should, and with 1 if it should not, does not answer, or does not have the service. Prints one line. For
    /// the health checks of containers, in which no other program could ask.
    Healthcheck(healthcheck::Healthcheck),
}

/// The exit code after Ctrl-C, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Runs one command. The answer goes to standard output, everything else to standard error.
///
/// Returns the exit code: 0 for done or allowed, 1 for failed, 2 for incorrect usage, 3 for denied, 4 for no verdict and
/// 5 for keys that should not be there. Only `verify` and `explain` return 3 and 4, and only `keys list` and
/// `diff` with `--fail-if-any` return 5.
///
/// The runtime is here for the same reason as in [`commands`](crate::commands).
pub fn run(connection: Connection, command: ClientCommand) -> ExitCode {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(try_run(connection, command)),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot start the program: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the report of a command that calls no server: as JSON, or by `human`. Returns whether it could be printed.
pub fn show_report(json: bool, report: &impl Serialize, human: impl FnOnce() -> String) -> bool {
    let output = Output::new(json);
    match output.show_summary(report, human) {
        Ok(()) => true,
        Err(failure) => {
            output.print_failure(&failure);
            false
        }
    }
}

/// Prints an error of the command line's parser as JSON on standard error, in the form of all other errors.
///
/// `message` is the error as the parser renders it, without API keys: its first paragraph says what is wrong, and the others what
/// to do.
pub fn print_usage_error(message: &str) {
    Output::new(true).print_failure(&usage_failure(message));
}

fn usage_failure(message: &str) -> Failure {
    let message = message.trim();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let joined = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    match message.split_once("\n\n") {
        Some((what, rest)) => {
            let hints: Vec<_> = rest.split("\n\n").map(joined).collect();
            Failure::usage(joined(what)).hint(hints.join("\n"))
        }
        None => Failure::usage(joined(message)),
    }
}

async fn try_run(connection: Connection, command: ClientCommand) -> ExitCode {
    let output = Output::new(connection.json).of_field(connection.field.clone());
    // A script must be able to distinguish a denial from a missing verdict, so `verify` and `explain` fail with a code of
    // their own.
    let failed = match &command {
        ClientCommand::Verify(_) | ClientCommand::Explain(_) => verify::NO_VERDICT,
        _ => 1,
    };
    // A health check must not depend on the user's file, unless it names a context.
    let needs_context =
        !matches!(&command, ClientCommand::Healthcheck(_)) || connection.context_name().is_some();
    let outcome = match outcome_without_context(command, &connection, &output).await {
        Ok(outcome) => outcome,
        Err(command) if !needs_context => run_command(command, &connection, &output).await,
        Err(command) => match connection.with_context() {
            Ok(connection) => {
                let context = connection.chosen_name();
                context
                    .clone()
                    .into_iter()
                    .for_each(arguments::remember_context);
                let output = output.clone().in_context(context);
                run_command(command, &connection, &output).await
            }
            Err(failure) => Err(failure),
        },
    };
    ExitCode::from(outcome.unwrap_or_else(|failure: Failure| {
        let failure = failure.of_command(arguments);
        output.print_failure(&failure);
        if failure.is_interrupted() {
            INTERRUPTED
        } else if failure.is_usage() {
            2
        } else {
            failed
        }
    }))
}

/// The arguments of the command of this process; `None` if the command line is not that of a client command.
fn arguments() -> Option<Arguments> {
    let program = Connection::augment_args(clap::Command::new("claviger"));
    Arguments::of(ClientCommand::augment_subcommands(program), env::args_os())
}

/// Runs a command that calls no server, or that makes the context itself; gives back another one.
async fn outcome_without_context(
    command: ClientCommand,
    connection: &Connection,
    output: &Output,
) -> Result<Result<u8, Failure>, ClientCommand> {
    let done = match command {
        ClientCommand::Key(command) => command.run(output),
        ClientCommand::Login(login) => login.run(connection, output).await,
        ClientCommand::Logout(logout) => logout.run(connection, output).await,
        ClientCommand::Context(command) => command.run(output),
        ClientCommand::Use(chosen) => chosen.run(output),
        other => return Err(other),
    };
    Ok(done.map(|()| 0))
}

/// Runs a command that calls a server. Returns the exit code.
async fn run_command(
    command: ClientCommand,
    connection: &Connection,
    output: &Output,
) -> Result<u8, Failure> {
    match command {
        ClientCommand::Realm(command) => command.run(connection, output).await.map(|()| 0),
        ClientCommand::Partner(command) => command.run(connection, output).await.map(|()| 0),
        ClientCommand::Project(command) => command.run(connection, output).await.map(|()| 0),
        ClientCommand::Keys(command) => Box::pin(command.run(connection, output)).await,
        ClientCommand::Apply(apply) => apply.run(connection, output).await.map(|()| 0),
        ClientCommand::Diff(diff) => diff.run(connection, output).await,
        ClientCommand::Gateway(command) => command.run(connection, output).await.map(|()| 0),
        ClientCommand::Replicas(command) => command.run(connection, output).await.map(|()| 0),
        ClientCommand::Verify(verify) => verify.run(connection, output).await,
        ClientCommand::Explain(explain) => explain.run(connection, output).await,
        ClientCommand::Usage(usage) => usage.run(connection, output).await.map(|()| 0),
        ClientCommand::Events(events) => events.run(connection, output).await.map(|()| 0),
        ClientCommand::Healthcheck(check) => check.run(connection, output).await,
        ClientCommand::Canary(canary) => Box::pin(canary.run(connection, output)).await,
        ClientCommand::Status(status) => status.run(connection, output).await,
        ClientCommand::WhoAmI(who) => who.run(connection, output).await.map(|()| 0),
        ClientCommand::Key(_)
        | ClientCommand::Login(_)
        | ClientCommand::Logout(_)
        | ClientCommand::Context(_)
        | ClientCommand::Use(_) => unreachable!("it has run without a context"),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        connection: Connection,
        #[command(subcommand)]
        command: ClientCommand,
    }

    /// The whole command line.
    fn command() -> Command {
        <Line as clap::CommandFactory>::command()
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_commands_hold_together() {
        command().debug_assert();
    }

    #[test]
    fn the_connection_may_stand_before_or_after_the_command() {
        for line in [
            "claviger --endpoint other:1 --json realm get demo",
            "claviger realm get demo --endpoint other:1 --json",
        ] {
            let line = parse(line).unwrap();
            assert!(line.connection.json);
            assert!(matches!(line.command, ClientCommand::Realm(_)));
        }
    }

    /// The parser would silently confuse an argument of a command with a global argument of the same id: the key to verify
    /// would replace the caller's own.
    #[test]
    fn no_command_has_an_argument_with_the_id_of_a_global_one() {
        fn check(command: &Command, globals: &[clap::Id]) {
            for command in command.get_subcommands() {
                for argument in command.get_arguments() {
                    assert!(
                        !globals.contains(argument.get_id()),
                        "{}: {}",
                        command.get_name(),
                        argument.get_id()
                    );
                }
                check(command, globals);
            }
        }
        let command = command();
        let globals: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .map(|argument| argument.get_id().clone())
            .collect();
        assert_eq!(globals.len(), 10, "{globals:?}");
        check(&command, &globals);
    }

    #[test]
    fn a_parsed_line_never_shows_a_key() {
        let line = parse("claviger --key caller_secret verify tested_secret --realm demo").unwrap();
        let shown = format!("{line:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn free_text_may_begin_with_a_hyphen() {
        for line in [
            "claviger keys revoke id --reason -leaked",
            "claviger keys issue --realm demo --name -ci --label -a=b",
            "claviger partner put acme --realm demo --display-name -acme-",
            "claviger project put web --realm demo --partner acme --display-name -web-",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        for line in [
            "claviger realm put",
            "claviger realm put demo --file realm.toml",
            "claviger realm put --file realm.toml --prefix demo",
            "claviger realm put demo --scope read --no-scopes",
            "claviger verify --realm demo --project a --any-target",
            "claviger verify --realm demo --own-project --any-target",
            "claviger keys issue --realm demo --scope read --full-access",
            "claviger keys issue --realm demo --expires-in 1d --expires-at 2030-01-01T00:00:00Z",
            "claviger keys list --realm demo --all --page-token x",
            "claviger keys list --realm demo --all-realms",
            "claviger events --realm demo --all-realms",
            "claviger keys list --all-realms --page-token x",
            "claviger keys rotate id --expires-in 1d --expires-at 2030-01-01T00:00:00Z",
            "claviger keys rotate id --output key-only --output-file new.key",
            "claviger keys issue --realm demo --output secret",
            "claviger keys list --realm demo --unused-for 1m",
            "claviger keys list --realm demo --never-expires --expires-within 7d",
            "claviger keys usage id --since 24h --from 1h",
            "claviger keys revoke-all --realm demo",
            "claviger keys revoke-all --realm demo --reason x --dry-run --yes",
            "claviger keys import keys.csv --realm demo --scope read --full-access",
            "claviger keys import keys.csv --realm demo --batch 1001",
            "claviger realm get demo --toml --json",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_error_of_the_parser_has_the_form_of_other_errors() {
        let error = parse("claviger keys list --ream demo").unwrap_err();
        let failure = usage_failure(&error.render().to_string()).json();
        assert_eq!(
            failure,
            serde_json::json!({"error": {
                "code": "INVALID_ARGUMENT",
                "message": "unexpected argument '--ream' found",
                "violations": [],
                "hint": "tip: a similar argument exists: '--realm'\nUsage: claviger keys list --realm <REALM>\n\
                         For more information, try '--help'.",
            }})
        );
        let alone = usage_failure("error: one\n").json();
        assert_eq!(alone["error"]["message"], "one");
    }

    #[test]
    fn every_flag_that_is_named_exists() {
        fn longs(command: &Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().filter_map(|arg| {
                let long = arg.get_long()?;
                Some(format!("--{long}"))
            }));
            for command in command.get_subcommands() {
                longs(command, found);
            }
        }
        let mut known = Vec::new();
        longs(&command(), &mut known);
        for (field, flags) in failure::FLAGS {
            for flag in flags.split(" or ") {
                assert!(known.iter().any(|known| known == flag), "{field}: {flag}");
            }
        }
    }

    /// The flags that a list prints for its next page are appended to the command line of this page.
    #[test]
    fn the_line_of_one_page_takes_what_is_printed_for_the_next() {
        for line in [
            "claviger events --since 24h --since 2027-01-15T08:00:00Z --page-token=-t",
            "claviger events --until 24h --page-token=-t --until 2027-01-15T08:00:00Z --page-token=-u",
            "claviger realm list --page-token -t",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
