//! Prompts on the terminal. They use standard error, never standard output.
//!
//! There is one rule for all commands that end or suspend something: they say what it is about and ask at a terminal. Without a
//! terminal they need --yes.

use std::io::{self, BufRead, IsTerminal, Write as _};

use clap::Args;

use super::failure::Failure;
use super::output;
use super::text::plain;
use super::waiting::catch_interrupts;

/// The flag that answers the question of a command.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct YesFlag {
    /// Do not ask for confirmation. Without a terminal, the command needs this flag.
    #[arg(long, short)]
    yes: bool,
}

impl YesFlag {
    /// Whether the question is answered.
    pub(super) fn is_given(self) -> bool {
        self.yes
    }

    /// Fails where [`YesFlag::confirm`] must fail: without the flag and without a terminal. Called before the server is.
    pub(super) fn or_terminal(self) -> Result<(), Failure> {
        if self.yes || is_interactive() {
            return Ok(());
        }
        Err(
            Failure::usage("this needs a confirmation, and there is no terminal to ask at")
                .hint("confirm it with --yes"),
        )
    }

    /// Asks for confirmation at a terminal, and requires the flag elsewhere.
    pub(super) async fn confirm(self, question: &str) -> Result<(), Failure> {
        self.or_terminal()?;
        self.confirm_at_terminal(question).await
    }

    /// Asks for confirmation at a terminal only: for what can be undone.
    pub(super) async fn confirm_at_terminal(self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        match ask(&format!("{} [y/N]", plain(question))).await {
            None => Ok(()),
            Some(line) if is_yes(&line) => Ok(()),
            Some(_) => Err(declined()),
        }
    }

    /// Like [`YesFlag::confirm`], with a third answer. `lines` are what the user must know, and the last of them is the question.
    /// `other` reads the third answer, of which `example` is one. Returns `None` for a yes.
    pub(super) async fn confirm_or<T>(
        self,
        lines: &[String],
        example: &str,
        other: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        self.or_terminal()?;
        if self.yes {
            return Ok(None);
        }
        let lines: Vec<_> = lines.iter().map(|line| plain(line)).collect();
        let line = ask(&format!("{} [y/N/{example}]", lines.join("\n"))).await;
        let line = line.unwrap_or_default();
        if is_yes(&line) {
            return Ok(None);
        }
        other(line.trim()).map(Some).ok_or_else(declined)
    }
}

fn declined() -> Failure {
    Failure::failed("nothing was changed")
}

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

/// Reads a line from the terminal; `None` without a terminal. Until then the connection to the server is served, so that one that
/// the server has closed meanwhile is not used again.
async fn ask(question: &str) -> Option<String> {
    if !is_interactive() {
        return None;
    }
    output::print_question(question);
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        (read, line)
    });
    if let Ok((Ok(1..), line)) = reading.await {
        return Some(line);
    }
    // No end of a line was typed. A line that cannot be read is not a yes.
    let _ = writeln!(io::stderr());
    Some(String::new())
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
