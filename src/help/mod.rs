//! Help pages, topics, man pages and the completions of shells, all made of the description of the command line.

mod completions;
mod man;
mod page;
mod tips;
mod topics;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

pub use completions::{Named, Shell, answer, print_script, typed_line};
pub use man::write_pages;
pub use page::with_pages;
pub use tips::keep_near;
pub use topics::text as topic;

/// The command that prints help.
pub const HELP: &str = "help";

const WORDS: &str = "words";

/// Adds the command `help` to the program, and to each group of commands. The parser's own knows no topics.
pub fn with_help_commands(program: Command) -> Command {
    let topics: Vec<_> = topics::names().collect();
    let topics = format!("Topics: claviger help {}", topics.join("|"));
    let help = Command::new(HELP).arg(
        Arg::new(WORDS)
            .value_name("COMMAND")
            .action(ArgAction::Append)
            .num_args(0..)
            .help("A command, or a topic"),
    );
    let of_group = help.clone().hide(true);
    program
        .after_help(topics)
        .disable_help_subcommand(true)
        .mut_subcommands(|command| {
            if command.has_subcommands() {
                command.subcommand(of_group.clone())
            } else {
                command
            }
        })
        .subcommand(help.about("Print the help of a command or a topic"))
}

/// The command or topic whose help is asked for; `None` if another command is to run.
pub fn asked(matches: &ArgMatches) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut matches = matches;
    while let Some((name, below)) = matches.subcommand() {
        if name == HELP {
            let words = below.get_many::<String>(WORDS);
            path.extend(words.into_iter().flatten().cloned());
            return Some(path);
        }
        path.push(name.to_owned());
        matches = below;
    }
    None
}

/// Prints a topic on standard output.
pub fn print_topic(text: &str) -> ExitCode {
    finish(writeln!(io::stdout(), "{text}"), "cannot print the help")
}

fn finish(outcome: io::Result<()>, failed: &str) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {failed}: {error}");
            ExitCode::FAILURE
        }
    }
}
