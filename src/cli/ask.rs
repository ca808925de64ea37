//! Whoever sits at the terminal is asked, without a word of it on standard output.

use std::io::{self, BufRead, IsTerminal, Write as _};

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::text::plain;

/// Whether somebody can be asked.
fn is_attended() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal for what it must not show; `None` if nobody sits there.
pub(super) fn ask_hidden(question: &str) -> Option<io::Result<String>> {
    is_attended().then(|| {
        // With this the signal of Ctrl-C does not end the process, which would leave the terminal without its echo: the
        // prompt puts the echo back and fails. What follows a prompt is short enough to be waited for.
        let _caught = signal(SignalKind::interrupt())?;
        rpassword::prompt_password(format!("{question} "))
    })
}

/// Asks for a line on the terminal; `None` if nobody sits there.
fn ask(question: &str) -> Option<String> {
    if !is_attended() {
        return None;
    }
    {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} ");
        let _ = stderr.flush();
    }
    let mut line = String::new();
    // An answer that cannot be read is not a yes.
    let _ = io::stdin().lock().read_line(&mut line);
    Some(line)
}

/// Lets a person at a terminal think again; a script is taken at its word.
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

/// Asks for a yes that a script has to give by `--yes`: for what cannot be taken back and may be more than was meant.
pub(super) fn insist(yes: bool, question: &str) -> Result<(), Failure> {
    can_insist(yes)?;
    confirm(yes, question)
}

/// Fails at once where [`insist`] would later.
pub(super) fn can_insist(yes: bool) -> Result<(), Failure> {
    if yes || is_attended() {
        Ok(())
    } else {
        Err(
            Failure::usage("this cannot be taken back, and nobody is at a terminal to be asked")
                .hint("--yes does it without asking"),
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
