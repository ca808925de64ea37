//! What is shown: answers on standard output, all else on standard error.
//!
//! Names, labels and reasons are free text of others. [`plain`] stands between them and the terminal, which would obey
//! the control characters in them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::time::Duration;

use comfy_table::{Table, presets};
use prost_types::Timestamp;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::answer::{Answer, Change};
use super::failure::Failure;
use super::reflect::Described;

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

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

/// The text with all that a terminal would obey spelled out: control characters, and those that turn the direction of
/// writing.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    escape(text, |unsafe_char, out| {
        out.extend(unsafe_char.escape_default());
    })
}

fn escape(text: &str, spell: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            spell(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Aligned columns under a header.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| match plain(cell) {
            Cow::Borrowed("") => Cow::Borrowed("-"),
            cell => cell,
        }));
    }
    aligned(&mut table)
}

/// One fact a line: its name and what it is. Facts of which nothing is known are left out.
pub(super) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, fact) in facts {
        if !fact.is_empty() {
            table.add_row([Cow::Borrowed(name), plain(&fact)]);
        }
    }
    aligned(&mut table)
}

fn aligned(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// RFC 3339, to the second.
pub(super) fn time(time: &Timestamp) -> String {
    Timestamp {
        seconds: time.seconds,
        nanos: 0,
    }
    .to_string()
}

/// A time that may not be known, or not have come.
pub(super) fn time_if_any(at: Option<&Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

/// The end of something that may have none.
pub(super) fn expiry(at: Option<&Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), time)
}

/// A span in days, hours, minutes and seconds, as the flags take it: `90d`, `1h 30m`.
///
/// Months and years are left out because they are not always equally long.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let nanos = span.subsec_nanos();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// A span on the wire, which may be left out.
pub(super) fn span_if_any(on_wire: Option<&prost_types::Duration>) -> String {
    on_wire
        .and_then(|on_wire| Duration::try_from(*on_wire).ok())
        .filter(|span| !span.is_zero())
        .map(span)
        .unwrap_or_default()
}

/// `name=value`, in the order of the names.
pub(super) fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.sort_unstable();
    pairs.join(", ")
}

/// A value of the proto's enums as a flag takes it: `KEY_STATE_ACTIVE` is `active`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', "-")
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::{Key, KeyLevel, KeyState, ListKeysResponse};

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(plain("Żółw & Co, 亀"), "Żółw & Co, 亀");
        assert_eq!(plain("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(plain("a\nb\tc\u{9b}d"), "a\\nb\\tc\\u{9b}d");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn a_table_aligns_its_columns_and_escapes_its_cells() {
        let rows = [
            vec!["acme".to_owned(), "two\nlines".to_owned()],
            vec!["b".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["ID", "DISPLAY NAME"], rows),
            "ID    DISPLAY NAME\nacme  two\\nlines\nb     -"
        );
    }

    #[test]
    fn facts_that_are_not_known_are_left_out() {
        let facts = facts([
            ("id", "1".to_owned()),
            ("project", String::new()),
            ("partner", "acme".to_owned()),
        ]);
        assert_eq!(facts, "id       1\npartner  acme");
    }

    #[test]
    fn times_are_told_to_the_second() {
        let at = Timestamp {
            seconds: 1_800_000_000,
            nanos: 123_456_000,
        };
        assert_eq!(time(&at), "2027-01-15T08:00:00Z");
        assert_eq!(expiry(None), "never");
    }

    #[test]
    fn a_shown_span_can_be_typed_again() {
        for (span_in_millis, shown) in [
            (0, "0s"),
            (1_500, "1s 500ms"),
            (30_000, "30s"),
            (5_400_000, "1h 30m"),
            (90 * 86_400_000, "90d"),
            (400 * 86_400_000, "400d"),
        ] {
            let length = Duration::from_millis(span_in_millis);
            assert_eq!(span(length), shown);
            assert_eq!(humantime::parse_duration(shown), Ok(length));
        }
    }

    #[test]
    fn only_a_yes_in_any_case_is_one() {
        for line in ["y\n", "Y", " Yes \r\n", "YES"] {
            assert!(is_yes(line), "{line}");
        }
        for line in ["", "\n", "n", "yess", "yes please"] {
            assert!(!is_yes(line), "{line}");
        }
    }

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
