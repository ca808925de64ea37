//! Prompts on the terminal. They use standard error, never standard output.

use std::io::{self, BufRead, IsTerminal, Write as _};

use super::failure::Failure;
use super::text::plain;
use super::waiting::catch_interrupts;

/// Whether standard input and standard error are a terminal.
fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Reads a secret from the terminal without echo; `None` without a terminal.
pub(super) fn ask_hidden(question: &str) -> Option<io::Result<String>> {
    is_interactive().then(|| {
        // With a handler, Ctrl-C does not end the process, which would leave the terminal without echo: the prompt restores
        // the echo and fails. The rest of the command is short enough to run without an interruption.
        let _caught = catch_interrupts()?;
        rpassword::prompt_password(format!("{question} "))
    })
}

/// Reads a line from the terminal; `None` without a terminal.
fn ask(question: &str) -> Option<String> {
    if !is_interactive() {
        return None;
    }
    {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} ");
        let _ = stderr.flush();
    }
    let mut line = String::new();
    // A line that cannot be read is not a yes.
    let _ = io::stdin().lock().read_line(&mut line);
    Some(line)
}

/// Asks for confirmation at a terminal. Without a terminal, or with `yes`, it succeeds at once.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    match ask(&format!("{} [y/N]", plain(question))) {
        None => Ok(()),
        Some(line) if is_yes(&line) => Ok(()),
        Some(_) => Err(Failure::failed("nothing was changed")),
    }
}

/// Asks for confirmation at a terminal, and requires `yes` elsewhere: for changes that cannot be undone.
pub(super) fn require_confirmation(yes: bool, question: &str) -> Result<(), Failure> {
    require_yes_or_terminal(yes)?;
    confirm(yes, question)
}

/// Fails early where [`require_confirmation`] would fail: without `yes` and without a terminal.
pub(super) fn require_yes_or_terminal(yes: bool) -> Result<(), Failure> {
    if yes || is_interactive() {
        Ok(())
    } else {
        Err(
            Failure::usage("this cannot be undone, and there is no terminal to confirm it")
                .hint("confirm it with --yes"),
        )
    }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_in_any_case_is_one() {
        for line in ["y\n", "Y", " Yes \r\n", "YES"] {
            assert!(is_yes(line), "{line}");
        }
        for line in ["", "\n", "n", "yess", "yes please"] {
            assert!(!is_yes(line), "{line}");
        }
    }
}
