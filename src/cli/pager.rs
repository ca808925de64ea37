//! The pager, through which a screen goes that is longer than the terminal.

use std::env;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

/// The variable that names the pager of this program.
pub(super) const PAGER: &str = "CLAVIGER_PAGER";

/// The variables that name the pager, the first one first. An empty one means none.
const VARIABLES: [&str; 2] = [PAGER, "PAGER"];

/// Shows a text in the pager. Returns whether there is one.
pub(super) fn show(text: &str) -> io::Result<bool> {
    let Some(mut command) = command() else {
        return Ok(false);
    };
    // What `less` needs to show colours, and to leave the screen as it is. It has its own variable for other wishes.
    if env::var_os("LESS").is_none() {
        command.env("LESS", "FRX");
    }
    // Ctrl-C is for the pager, which would otherwise go on without this process and without the shell's knowledge.
    let _caught = signal(SignalKind::interrupt());
    let mut pager = match command.stdin(Stdio::piped()).spawn() {
        Ok(pager) => pager,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut input = pager.stdin.take().expect("it is a pipe");
    let written = writeln!(input, "{text}");
    drop(input);
    // The shell's answer for a program that does not exist.
    if pager.wait()?.code() == Some(127) {
        return Ok(false);
    }
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(true),
    }
}

/// The command that starts the pager, if there is one.
fn command() -> Option<Command> {
    let wanted = VARIABLES.iter().find_map(env::var_os);
    match wanted {
        None => Some(Command::new("less")),
        Some(none) if none.is_empty() => None,
        Some(line) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(line);
            Some(shell)
        }
    }
}
