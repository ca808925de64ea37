//! What is shown: answers on standard output, all else on standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use rustix::termios;
use serde::Serialize;

use super::answer::{Answer, Change};
use super::failure::Failure;
use super::reflect::Described;
use super::text::{escape, plain};

/// How to show things.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    /// For standard output as it is.
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether a program reads it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// How many columns the terminal has; `None` where what is shown goes elsewhere.
    pub(super) fn width(&self) -> Option<usize> {
        self.terminal
            .then(|| termios::tcgetwinsize(io::stdout()).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0)
    }

    /// The text of an answer, by `people` or as JSON, which has none for a time beyond the year 9999.
    pub(super) fn render<A: Answer>(
        &self,
        answer: &A,
        people: impl FnOnce(&A) -> String,
    ) -> io::Result<String> {
        if self.json {
            Ok(self.json_text(&Described::whole(A::NAME, answer))?)
        } else {
            Ok(people(answer))
        }
    }

    /// Shows an answer, by `people` or as JSON.
    pub(super) fn show<A: Answer>(
        &self,
        answer: &A,
        people: impl FnOnce(&A) -> String,
    ) -> Result<(), Failure> {
        self.render(answer, people)
            .and_then(|text| print_to_any(&text))
            .map_err(|error| cannot_show(&error))
    }

    /// Shows the answer to a change, which was made even if that does not work.
    pub(super) fn show_change<C: Change>(
        &self,
        answer: &C,
        people: impl FnOnce(&C) -> String,
    ) -> Result<(), Failure> {
        self.render(answer, people)
            .and_then(|text| print_to_any(&text))
            .map_err(|error| made_but_not_shown(answer, &error))
    }

    /// Tells an answer that is not the last one of the command, by `people` or as JSON, on standard error.
    pub(super) fn tell_answer<A: Answer>(
        &self,
        answer: &A,
        people: impl FnOnce(&A) -> String,
    ) -> Result<(), Failure> {
        self.render(answer, people)
            .map(|text| tell(&text))
            .map_err(|error| cannot_show(&error))
    }

    /// Shows what is the work of several calls, and so of no message of the proto.
    pub(super) fn show_sum(
        &self,
        sum: &impl Serialize,
        people: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            self.json_text(sum).map_err(io::Error::from)
        } else {
            Ok(people())
        };
        text.and_then(|text| print_to_any(&text))
            .map_err(|error| cannot_show(&error))
    }

    /// Prints a text that is meant for a file, exactly; a terminal gets it without what it would obey.
    pub(super) fn print_file(&self, text: &str) -> Result<(), Failure> {
        if !self.terminal {
            return print_to_any(text.trim_end()).map_err(|error| cannot_show(&error));
        }
        let lines: Vec<_> = text.trim_end().lines().map(plain).collect();
        print_to_any(&lines.join("\n")).map_err(|error| cannot_show(&error))
    }

    /// Says what went wrong.
    pub(super) fn complain(&self, failure: &Failure) {
        match self.json_text(&failure.json()) {
            Ok(text) if self.json => tell(&text),
            _ => tell(&failure.to_string()),
        }
    }

    /// One document: over several lines on a terminal, on one line for programs. The names are in alphabetical order, so
    /// that the same answer is the same text.
    fn json_text(&self, document: &impl Serialize) -> serde_json::Result<String> {
        let value = serde_json::to_value(document)?;
        let text = if self.terminal {
            format!("{value:#}")
        } else {
            value.to_string()
        };
        let text = escape(&text, |unsafe_char, out| {
            if unsafe_char == '\n' {
                out.push('\n');
            } else {
                let mut units = [0; 2];
                for unit in unsafe_char.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        });
        Ok(text.into_owned())
    }
}

/// Writes to standard output for any reader, also one that goes away when it has seen enough, as `head` does.
fn print_to_any(text: &str) -> io::Result<()> {
    match print(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

fn cannot_show(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot show the answer: {error}"))
}

fn made_but_not_shown(answer: &impl Change, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "the change was made, but the answer to it cannot be shown: {error}"
    ))
    .hint(format!("do not repeat it: it is {}", answer.settled()))
}

/// Writes to standard output; unlike with `println!`, a reader that has gone away is an error and no panic.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes to standard error. Nobody can be told if that fails.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost_types::Timestamp;

    use crate::pb::claviger::v1::{Key, KeyLevel, KeyState, ListKeysResponse};

    use super::*;

    #[test]
    fn what_has_no_json_is_a_failure_and_no_answer() {
        let answer = ListKeysResponse {
            keys: vec![Key {
                create_time: Some(Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..Key::default()
            }],
            ..ListKeysResponse::default()
        };
        let output = Output {
            json: true,
            terminal: false,
        };
        let failure = output.show(&answer, |_| String::new()).unwrap_err();
        assert!(!failure.is_usage());
    }

    #[test]
    fn a_change_whose_answer_cannot_be_shown_was_made() {
        let answer = crate::pb::claviger::v1::DeleteKeyResponse {
            revision: 7,
            ..Default::default()
        };
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let said = made_but_not_shown(&answer, &full).to_string();
        assert!(said.contains("the change was made"), "{said}");
        assert!(said.contains("revision 7"), "{said}");
    }

    #[test]
    fn json_has_the_protos_names_every_field_and_one_order() {
        let answer = ListKeysResponse {
            keys: vec![Key {
                id: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
                name: "bell\u{7}, csi\u{9b}".to_owned(),
                level: KeyLevel::Partner as i32,
                state: KeyState::Active as i32,
                labels: BTreeMap::from([
                    ("b".to_owned(), "2".to_owned()),
                    ("a".to_owned(), "1".to_owned()),
                ]),
                create_time: Some(Timestamp {
                    seconds: 1_800_000_000,
                    nanos: 5_000_000,
                }),
                ..Key::default()
            }],
            next_page_token: String::new(),
            revision: 9_007_199_254_740_993,
        };
        let output = Output {
            json: true,
            terminal: false,
        };
        assert_eq!(
            output
                .render(&answer, |_| unreachable!("this is not for people"))
                .unwrap(),
            concat!(
                r#"{"keys":[{"allowed_cidrs":[],"create_time":"2027-01-15T08:00:00.005Z","created_by":"","#,
                r#""environment":"","full_access":false,"hint":"","id":"0192f0c1-2345-7abc-8def-0123456789ab","#,
                r#""labels":{"a":"1","b":"2"},"level":"KEY_LEVEL_PARTNER","name":"bell\u0007, csi\u009b","#,
                r#""partner":"","project":"","realm":"","revoke_reason":"","scopes":[],"secrets":[],"#,
                r#""state":"KEY_STATE_ACTIVE"}],"next_page_token":"","revision":9007199254740993}"#,
            )
        );
    }
}
