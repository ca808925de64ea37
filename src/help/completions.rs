//! Completions of shells. A script calls the program for each of them, so that they have the names of realms and partners too.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Arg, Command, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::finish;

/// The variable by which a script asks for completions. Its value is the shell.
const VARIABLE: &str = "CLAVIGER_COMPLETE";

/// A shell with completions.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "they are names of programs")]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// What a server has names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Realms.
    Realm,
    /// Partners of a realm.
    Partner,
    /// Projects of a realm.
    Project,
    /// Environments of a realm.
    Environment,
    /// Scopes of a realm.
    Scope,
}

/// Prints the script that makes a shell complete the commands of the program.
pub fn print_script(shell: Shell) -> ExitCode {
    let possible = shell.to_possible_value();
    let name = possible.as_ref().map_or("", |shell| shell.get_name());
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = match shells.completer(name) {
        Some(shell) => {
            shell.write_registration(VARIABLE, "claviger", "claviger", "claviger", &mut script)
        }
        None => Err(io::Error::other("the shell is not known")),
    };
    // Unlike a direct write, without a panic if the output is closed.
    let printed = written.and_then(|()| io::stdout().write_all(&script));
    finish(printed, "cannot print the completions")
}

/// Answers a script that asks for completions. Returns `None` if none asks. `names` returns the names that a server has.
pub fn answer(
    program: impl Fn() -> Command,
    line: &[OsString],
    names: fn(Named) -> Vec<String>,
) -> Option<ExitCode> {
    std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty())?;
    let program = || with_names(program(), names);
    let folder = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(program)
        .var(VARIABLE)
        .completer("claviger")
        .try_complete(line, folder.as_deref());
    match answered {
        Ok(is_answered) => is_answered.then_some(ExitCode::SUCCESS),
        // Without a word, which would be in the middle of what the user types; but nothing was done.
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The words of the line to complete, from the arguments of the call that a script makes.
pub fn typed_line(line: &[OsString]) -> &[OsString] {
    let start = line.iter().position(|word| word == "--");
    start.map_or(&[], |start| &line[start + 1..])
}

/// Adds the names of a server to the arguments of all commands.
fn with_names(command: Command, names: fn(Named) -> Vec<String>) -> Command {
    let of_group = match command.get_name() {
        "realm" => Some(Named::Realm),
        "partner" => Some(Named::Partner),
        "project" => Some(Named::Project),
        _ => None,
    };
    command.mut_subcommands(|command| {
        let is_new = ["create", "put", "new"].contains(&command.get_name());
        let command = command.mut_args(|arg| match named(&arg, of_group, is_new) {
            Some(kind) => arg.add(ArgValueCandidates::new(move || {
                let names = names(kind).into_iter();
                names.map(CompletionCandidate::new).collect()
            })),
            None => arg,
        });
        with_names(command, names)
    })
}

/// What a server has for this argument. What is new has no name yet.
fn named(arg: &Arg, of_group: Option<Named>, is_new: bool) -> Option<Named> {
    if arg.is_positional() {
        return of_group.filter(|_| !is_new && arg.get_id() == "id");
    }
    match arg.get_long()? {
        "realm" => Some(Named::Realm),
        "partner" => Some(Named::Partner),
        "project" => Some(Named::Project),
        "environment" if of_group.is_none() => Some(Named::Environment),
        "scope" | "any-scope" if of_group.is_none() => Some(Named::Scope),
        _ => None,
    }
}
