//! Output: answers on standard output, everything else on standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice};
use prost::Message;
use prost_types::Timestamp;
use rustix::termios;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::field;
use super::flags;
use super::pager;
use super::reflect::{self, Described};
use super::response::{ChangeResponse, Response};
use super::style::{with_coloured_words, without_colours};
use super::text::{escape, plain};
use super::width;

/// The size of a terminal that does not tell it.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// The field that says what an edit did.
const OUTCOME: &str = "outcome";

/// The output of a command.
#[derive(Clone, Debug)]
pub(super) struct Output {
    json: bool,
    terminal: bool,
    /// The field of answers that is shown instead of the whole answer.
    field: Option<String>,
    /// The context that names the server.
    context: Option<String>,
}

/// The terminal that shows an answer to a person.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// The number of columns.
    pub(super) width: usize,
    /// The number of lines.
    pub(super) height: usize,
    /// The time, for those that are shown as a distance from it.
    pub(super) now: Timestamp,
}

impl Output {
    /// Creates the output for the current standard output.
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal(),
            field: None,
            context: None,
        }
    }

    /// The same output of what the server of this context answers.
    pub(super) fn in_context(self, context: Option<String>) -> Self {
        Self { context, ..self }
    }

    /// The context that names the server, if there is one.
    pub(super) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The same output of one field of each answer.
    pub(super) fn of_field(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    /// Whether answers are for people: no JSON, and no single field.
    pub(super) fn is_for_people(&self) -> bool {
        !self.json && self.field.is_none()
    }

    /// Whether standard output is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Fails if answers of this type do not have the field of `--field`: before a change, whose answer comes only once.
    pub(super) fn check_field<R: Response>(&self) -> Result<(), Failure> {
        let Some(name) = &self.field else {
            return Ok(());
        };
        field::path(&reflect::descriptor(R::NAME), name).map(drop)
    }

    /// Fails if a summary with these fields does not have the field of `--field`: before the change that it sums up.
    pub(super) fn check_summary_field(&self, fields: &[&str]) -> Result<(), Failure> {
        match &self.field {
            Some(name) => field::check_first(name, fields),
            None => Ok(()),
        }
    }

    /// A document that is not a message, if one is to be shown: it fails for a time beyond the year 9999.
    pub(super) fn document(
        &self,
        make: impl FnOnce() -> serde_json::Result<Value>,
    ) -> Result<Value, Failure> {
        if self.is_for_people() {
            return Ok(Value::Null);
        }
        make().map_err(|error| cannot_show(&error.into()))
    }

    /// Whether answers and errors are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// The terminal; `None` if answers are for a program, since standard output is not a terminal or they are JSON.
    pub(super) fn screen(&self) -> Option<Screen> {
        if !self.terminal || !self.is_for_people() {
            return None;
        }
        let (width, height) = size_of(&io::stdout());
        Some(Screen {
            width,
            height,
            now: flags::now().into(),
        })
    }

    /// The number of columns of the terminal; `None` without one.
    pub(super) fn width(&self) -> Option<usize> {
        self.screen().map(|screen| screen.width)
    }

    /// The time, for those that a screen shows as a distance from it; `None` without a terminal.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.screen().map(|screen| screen.now)
    }

    /// Formats an answer, by `human` or as JSON. JSON fails for a time beyond the year 9999.
    pub(super) fn render<R: Response>(
        &self,
        answer: &R,
        human: impl FnOnce(&R) -> String,
    ) -> io::Result<String> {
        self.render_message(R::NAME, answer, human)
    }

    fn render_message<M: Message>(
        &self,
        name: &str,
        message: &M,
        human: impl FnOnce(&M) -> String,
    ) -> io::Result<String> {
        if self.is_for_people() {
            return Ok(human(message));
        }
        let described = Described::whole(name, message);
        let Some(field) = &self.field else {
            return Ok(self.json_text(&described)?);
        };
        let path = field::path(&reflect::descriptor(name), field)
            .map_err(|failure| io::Error::other(failure.message()))?;
        self.field_text(&serde_json::to_value(described)?, &path)
    }

    /// Formats one field of a document.
    fn field_text(&self, document: &Value, path: &[String]) -> io::Result<String> {
        if self.json {
            Ok(self.json_text(&field::json(document, path))?)
        } else {
            Ok(field::lines(document, path))
        }
    }

    /// Shows an answer, by `human` or as JSON.
    pub(super) fn show<R: Response>(
        &self,
        answer: &R,
        human: impl FnOnce(&R) -> String,
    ) -> Result<(), Failure> {
        self.show_message(R::NAME, answer, human)
    }

    /// Shows a message that is no answer by itself, such as a project of a list.
    pub(super) fn show_message<M: Message>(
        &self,
        name: &str,
        message: &M,
        human: impl FnOnce(&M) -> String,
    ) -> Result<(), Failure> {
        if let Some(field) = &self.field {
            field::path(&reflect::descriptor(name), field)?;
        }
        self.render_message(name, message, human)
            .and_then(|text| self.print_answer(&text))
            .map_err(|error| cannot_show(&error))
    }

    /// Prints an answer, on a terminal with its colours, and through the pager if it is longer than the terminal. A field without a
    /// value has no line.
    fn print_answer(&self, text: &str) -> io::Result<()> {
        if text.is_empty() && self.field.is_some() {
            return Ok(());
        }
        let Some(screen) = self.screen() else {
            return print_tolerant(text);
        };
        let text = &width::fit(text, screen.width);
        let bare = without_colours(text);
        let lines = bare.lines();
        let height: usize = lines
            .map(|line| width::width(line).div_ceil(screen.width).max(1))
            .sum();
        let text = if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
            &*bare
        } else {
            text
        };
        // The last line of the terminal is for the next prompt.
        if height < screen.height || !pager::show(text)? {
            print_tolerant(text)?;
        }
        Ok(())
    }

    /// Shows the answer to a change. An error says that the change was made.
    pub(super) fn show_change<C: ChangeResponse>(
        &self,
        answer: &C,
        human: impl FnOnce(&C) -> String,
    ) -> Result<(), Failure> {
        self.render(answer, human)
            .and_then(|text| self.print_answer(&text))
            .map_err(|error| made_but_not_shown(answer, &error))
    }

    /// Shows the answer to an edit as [`Self::show_change`] does. Programs get a further field, `outcome`, which no message has: the
    /// server is not asked what changed.
    pub(super) fn show_edit<C: ChangeResponse>(
        &self,
        answer: &C,
        outcome: &str,
        human: impl FnOnce(&C) -> String,
    ) -> Result<(), Failure> {
        let text = if self.is_for_people() {
            Ok(human(answer))
        } else {
            self.with_outcome(answer, outcome)
        };
        text.and_then(|text| self.print_answer(&text))
            .map_err(|error| made_but_not_shown(answer, &error))
    }

    fn with_outcome<C: ChangeResponse>(&self, answer: &C, outcome: &str) -> io::Result<String> {
        let mut document = serde_json::to_value(Described::whole(C::NAME, answer))?;
        document[OUTCOME] = outcome.into();
        let Some(field) = &self.field else {
            return Ok(self.json_text(&document)?);
        };
        let path = if field == OUTCOME {
            vec![field.clone()]
        } else {
            field::path(&reflect::descriptor(C::NAME), field)
                .map_err(|failure| io::Error::other(failure.message()))?
        };
        self.field_text(&document, &path)
    }

    /// Shows an intermediate answer on standard error, by `human` or as JSON.
    pub(super) fn show_on_stderr<R: Response>(
        &self,
        answer: &R,
        human: impl FnOnce(&R) -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            print_error(&human(answer));
            return Ok(());
        }
        self.json_text(&Described::whole(R::NAME, answer))
            .map(|text| write_error(&format!("{text}\n")))
            .map_err(|error| cannot_show(&error.into()))
    }

    /// Shows the summary of several calls, which is not a message of the proto.
    pub(super) fn show_summary(
        &self,
        summary: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if let Some(field) = &self.field {
            let document =
                serde_json::to_value(summary).map_err(|error| cannot_show(&error.into()))?;
            let path = field::path_in(&document, field)?;
            return self
                .field_text(&document, &path)
                .and_then(|text| self.print_answer(&text))
                .map_err(|error| cannot_show(&error));
        }
        let text = if self.json {
            self.json_text(summary).map_err(io::Error::from)
        } else {
            Ok(human())
        };
        text.and_then(|text| self.print_answer(&text))
            .map_err(|error| cannot_show(&error))
    }

    /// Prints one line of several: by `human`, or one JSON object. Unlike elsewhere, a closed pipe is an error, because it is a
    /// reason to stop.
    pub(super) fn print_line(
        &self,
        document: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if let Some(field) = &self.field {
            let document = serde_json::to_value(document)?;
            let path = field::path_in(&document, field)
                .map_err(|failure| io::Error::other(failure.message()))?;
            print(&self.field_text(&document, &path)?)
        } else if self.json {
            print(&one_json_line(document)?)
        } else {
            print(&plain(&human()))
        }
    }

    /// Prints the content of a file exactly. On a terminal, control characters are escaped.
    pub(super) fn print_file(&self, text: &str) -> Result<(), Failure> {
        if !self.terminal {
            return print_tolerant(text.trim_end()).map_err(|error| cannot_show(&error));
        }
        let lines: Vec<_> = text.trim_end().lines().map(plain).collect();
        print_tolerant(&lines.join("\n")).map_err(|error| cannot_show(&error))
    }

    /// Prints a failure on standard error.
    pub(super) fn print_failure(&self, failure: &Failure) {
        match self.json_text(&failure.json()) {
            Ok(text) if self.json => write_error(&format!("{text}\n")),
            _ => print_error(&failure.to_string()),
        }
    }

    /// Formats a JSON document: on several lines for a terminal, on one line otherwise.
    fn json_text(&self, document: &impl Serialize) -> serde_json::Result<String> {
        if self.terminal {
            let value = serde_json::to_value(document)?;
            Ok(without_control(&format!("{value:#}")))
        } else {
            one_json_line(document)
        }
    }
}

/// The columns and lines of a terminal.
fn size_of(terminal: &impl AsFd) -> (usize, usize) {
    let size = termios::tcgetwinsize(terminal).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(DEFAULT_SIZE, |size| {
        (usize::from(size.ws_col), usize::from(size.ws_row))
    })
}

/// Formats a JSON document on one line. Names are in alphabetical order, so that equal answers give equal output.
fn one_json_line(document: &impl Serialize) -> serde_json::Result<String> {
    Ok(without_control(
        &serde_json::to_value(document)?.to_string(),
    ))
}

/// Escapes what could control the terminal, except line breaks.
fn without_control(json: &str) -> String {
    escape(json, |unsafe_char, out| {
        if unsafe_char == '\n' {
            out.push('\n');
        } else {
            let mut units = [0; 2];
            for unit in unsafe_char.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    })
    .into_owned()
}

/// Writes to standard output. A reader that closes the pipe early, as `head` does, is not an error.
pub(super) fn print_tolerant(text: &str) -> io::Result<()> {
    match print(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

fn cannot_show(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot show the answer: {error}"))
}

fn made_but_not_shown(answer: &impl ChangeResponse, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "the change was made, but the answer cannot be shown: {error}"
    ))
    .hint(format!(
        "do not repeat the change: it is {}",
        answer.effect()
    ))
}

/// Writes to standard output. Unlike with `println!`, a closed pipe is an error and not a panic.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Whether [`silence`] was called.
static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Writes nothing to standard error from now on: it would stand in the middle of what a user types.
pub(super) fn silence() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Writes lines to standard error, on a terminal so that they fit. A failure is ignored, because there is nowhere to report it.
pub(super) fn print_error(text: &str) {
    write_error(&format!("{}\n", fitting(text)));
}

/// Writes a question to standard error, after which the answer is typed.
pub(super) fn print_question(question: &str) {
    write_error(&format!("{} ", fitting(question)));
}

/// The text in lines that fit if standard error is a terminal.
fn fitting(text: &str) -> String {
    let stderr = io::stderr();
    if stderr.is_terminal() {
        width::fit(text, size_of(&stderr).0)
    } else {
        text.to_owned()
    }
}

/// Writes to standard error at once, on a terminal with the words coloured that say what a line is.
fn write_error(text: &str) {
    if IS_SILENT.load(Ordering::Relaxed) {
        return;
    }
    let mut stderr = io::stderr().lock();
    let text = if AutoStream::choice(&stderr) == ColorChoice::Never {
        without_colours(text)
    } else {
        with_coloured_words(text)
    };
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
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
            field: None,
            context: None,
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
        let shown = made_but_not_shown(&answer, &full).to_string();
        assert!(shown.contains("the change was made"), "{shown}");
        assert!(shown.contains("revision 7"), "{shown}");
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
            revision: 9_007_199_254_740_993,
            ..ListKeysResponse::default()
        };
        let output = Output {
            json: true,
            terminal: false,
            field: None,
            context: None,
        };
        assert_eq!(
            output
                .render(&answer, |_| unreachable!("the output is JSON"))
                .unwrap(),
            concat!(
                r#"{"keys":[{"allowed_cidrs":[],"create_time":"2027-01-15T08:00:00.005Z","created_by":"","#,
                r#""environment":"","external_id":"","full_access":false,"hint":"","id":"0192f0c1-2345-7abc-8def-0123456789ab","#,
                r#""labels":{"a":"1","b":"2"},"last_used_address":"","level":"KEY_LEVEL_PARTNER","name":"bell\u0007, csi\u009b","#,
                r#""partner":"","partner_suspended":false,"project":"","realm":"","revoke_reason":"","scopes":[],"secrets":[],"#,
                r#""state":"KEY_STATE_ACTIVE"}],"more_than_total":false,"next_page_token":"","revision":9007199254740993}"#,
            )
        );
    }
}
