//! The command line as it was typed: how errors name its arguments, and the line that repeats it.

use std::env;
use std::ffi::OsString;
use std::sync::OnceLock;

use clap::Command;

use super::width::width;
use super::{redact, text};

/// The fields that a positional argument with the id `id` stands for.
const IDS: [&str; 6] = ["id", "key_id", "partner", "project", "realm", "realm_id"];

/// A flag and its value.
pub(super) type FlagValue = (&'static str, String);

/// The arguments of the command that runs.
#[derive(Debug)]
pub(super) struct Arguments {
    flags: Vec<String>,
    /// The id of each positional argument, and its name in the help.
    positionals: Vec<(String, String)>,
}

impl Arguments {
    /// The arguments of the command that a command line has, among the commands of a program.
    pub(super) fn of(mut command: Command, line: impl Iterator<Item = OsString>) -> Option<Self> {
        let matches = command.try_get_matches_from_mut(line).ok()?;
        let mut matches = &matches;
        let mut command = &command;
        while let Some((name, of_command)) = matches.subcommand() {
            command = command.find_subcommand(name)?;
            matches = of_command;
        }
        let flags = command.get_arguments().filter_map(|arg| {
            let long = arg.get_long()?;
            Some(format!("--{long}"))
        });
        let positionals = command.get_positionals().map(|arg| {
            let id = arg.get_id().to_string();
            let names = arg.get_value_names().and_then(<[_]>::first);
            let name = names.map_or_else(|| id.to_uppercase(), ToString::to_string);
            (id, name)
        });
        Some(Self {
            flags: flags.collect(),
            positionals: positionals.collect(),
        })
    }

    /// What sets a field: of these flags, joined by ` or `, those that the command has, or else a positional argument.
    pub(super) fn setter(&self, field: &str, flags: Option<&str>) -> Option<String> {
        let flags = flags.into_iter().flat_map(|flags| flags.split(" or "));
        let flags: Vec<_> = flags
            .filter(|flag| self.flags.iter().any(|known| known == flag))
            .collect();
        if !flags.is_empty() {
            return Some(flags.join(" or "));
        }
        let by_id = |wanted: &str| {
            let mut positionals = self.positionals.iter();
            let found = positionals.find(|(id, _)| id == wanted);
            found.map(|(_, name)| name.clone())
        };
        by_id(field).or_else(|| IDS.contains(&field).then(|| by_id("id")).flatten())
    }
}

/// The context in force, if the command line does not name it.
static UNNAMED_CONTEXT: OnceLock<String> = OnceLock::new();

/// Remembers the context in force. A change must be repeated on the same server, even if another context is the current one by then.
pub(super) fn remember_context(name: String) {
    let mut words = env::args_os().skip(1);
    let is_named = words.any(|word| {
        let word = word.to_string_lossy();
        word.starts_with("-c") || word.split('=').next() == Some("--context")
    });
    if !is_named {
        let _ = UNNAMED_CONTEXT.set(name);
    }
}

/// The flag that names the context in force, if the command line does not.
pub(super) fn context_flag() -> Option<(&'static str, &'static str)> {
    UNNAMED_CONTEXT
        .get()
        .map(|name| ("--context", name.as_str()))
}

/// The words of the command line of this process with other flags, quoted for a shell; `None` if it has what may be a secret, or
/// what nobody can paste.
pub(super) fn repeated<'a>(
    flags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<Vec<String>> {
    let line: Option<Vec<_>> = env::args_os().map(|word| word.into_string().ok()).collect();
    repeat(&line?, &flags.into_iter().collect::<Vec<_>>())
}

/// Replaces flags of a command line, and quotes its words. `flags` are the new ones, each with its value.
fn repeat(line: &[String], flags: &[(&str, &str)]) -> Option<Vec<String>> {
    let is_new = |name: &str| flags.iter().any(|(flag, _)| *flag == name);
    // An absolute time stands for the span before it.
    let replaces = |word: &str| {
        let name = word.split('=').next().unwrap_or(word);
        is_new(name) || name == "--expires-in" && is_new("--expires-at")
    };
    let quoted = |word: &str| Some(shlex::try_quote(word).ok()?.into_owned());
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.iter();
    while let Some(word) = rest.next() {
        if word == "--key" || word.starts_with("--key=") {
            return None;
        }
        if word == "--" {
            return None;
        }
        if replaces(word) {
            if !word.contains('=') {
                rest.next();
            }
            continue;
        }
        if may_be_secret(word) || text::plain(word) != word.as_str() {
            return None;
        }
        words.push(quoted(word)?);
    }
    for (flag, value) in flags {
        words.push((*flag).to_owned());
        words.push(quoted(value)?);
    }
    Some(words)
}

/// Whether a word has a part that looks like an API key. Paths and ids do not count.
fn may_be_secret(word: &str) -> bool {
    let is_path = word.starts_with('/') || word.starts_with("./") || word.starts_with("../");
    let is_name = word.starts_with("--") && !word.contains('=');
    !is_path
        && !is_name
        && !redact::is_hyphenated_uuid(word)
        && redact::mask_keys(word, &[]) != word
}

/// A command on lines of at most `columns`, as a shell reads it. A word that is longer than a line stays whole.
pub(super) fn folded(words: &[String], columns: usize) -> String {
    let mut lines = vec![" ".to_owned()];
    for word in words {
        let line = lines.last_mut().expect("there is always a line");
        // A backslash follows each line but the last.
        if width(line) + 1 + width(word) + 2 <= columns || width(line) == 1 {
            line.push(' ');
            line.push_str(word);
        } else {
            line.push_str(" \\");
            lines.push(format!("    {word}"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Subcommand as _;

    use super::*;
    use crate::cli::ClientCommand;

    fn arguments(line: &str) -> Arguments {
        let program = ClientCommand::augment_subcommands(Command::new("claviger"));
        Arguments::of(program, line.split_whitespace().map(OsString::from)).unwrap()
    }

    #[test]
    fn a_field_is_named_as_the_command_sets_it() {
        for (line, field, flags, setter) in [
            ("partner put a", "partner", Some("--partner"), Some("ID")),
            (
                "project put a --partner b",
                "project",
                Some("--project"),
                Some("ID"),
            ),
            (
                "project put a --partner b",
                "partner",
                Some("--partner"),
                Some("--partner"),
            ),
            ("keys list", "partner", Some("--partner"), Some("--partner")),
            ("realm put a", "id", None, Some("ID")),
            (
                "realm rename-scope a b c",
                "scope",
                Some("--scope"),
                Some("OLD"),
            ),
            ("realm rename-scope a b c", "new_name", None, Some("NEW")),
            (
                "keys issue",
                "expire_time",
                Some("--expires-in or --expires-at"),
                Some("--expires-in or --expires-at"),
            ),
            ("keys issue", "novelty", None, None),
        ] {
            let found = arguments(&format!("claviger {line}")).setter(field, flags);
            assert_eq!(found.as_deref(), setter, "{line}: {field}");
        }
    }

    #[test]
    fn a_line_is_repeated_with_its_words_quoted() {
        let line = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            let flags = [
                ("--expires-at", "2030-01-31T12:00:00Z"),
                ("--request-id", "ID"),
            ];
            repeat(&words, &flags)
        };
        let repeated = line(&[
            "./claviger",
            "keys",
            "issue",
            "--expires-in",
            "90d",
            "--name",
            "it's mine",
            "--request-id=old",
            "--label=a=$b",
        ]);
        assert_eq!(
            repeated.unwrap().join(" "),
            "./claviger keys issue --name \"it's mine\" '--label=a=$b' --expires-at 2030-01-31T12:00:00Z --request-id ID"
        );
        let id = "01a4f0c1-2345-7abc-8def-0123456789ab";
        assert!(
            line(&[
                "claviger",
                "keys",
                "rotate",
                id,
                "--output-file",
                "/srv/keys/of-acme-2030-01-31.key"
            ])
            .is_some()
        );
        for secret in [
            &["claviger", "--key", "k", "keys", "issue"][..],
            &["claviger", "--key=k", "keys", "issue"],
            &[
                "claviger",
                "keys",
                "issue",
                "--name",
                "demo_live_4fzs3fzs3fzs3fzs3fzs3fz",
            ],
            &["claviger", "keys", "issue", "--name", "a\u{1b}b"],
        ] {
            assert_eq!(line(secret), None, "{secret:?}");
        }
    }

    #[test]
    fn the_command_for_the_next_page_is_that_of_this_page() {
        let line = "claviger events --since 24h --page-token=-a --kind key.revoked --page-token -b";
        let line: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let flags = [("--since", "2027-01-15T08:00:00Z"), ("--page-token", "-c")];
        assert_eq!(
            repeat(&line, &flags).unwrap().join(" "),
            "claviger events --kind key.revoked --since 2027-01-15T08:00:00Z --page-token -c"
        );
    }

    #[test]
    fn a_command_is_folded_between_its_words() {
        let words = |line: &str| -> Vec<_> { line.split(' ').map(str::to_owned).collect() };
        let short = words("claviger events --since today");
        assert_eq!(folded(&short, 80), "  claviger events --since today");
        assert_eq!(
            folded(&short, 22),
            "  claviger events \\\n    --since today"
        );
        let line = "claviger keys issue --partner acme --environment production --scope read --name 'a -- b' \
                    --request-id 01a4f0c1-2345-7abc-8def-0123456789ab";
        let folded = folded(&words(line), 78);
        assert!(folded.lines().count() > 1, "{folded}");
        assert!(
            folded.lines().all(|line| line.chars().count() <= 78),
            "{folded}"
        );
        assert_eq!(folded.trim_start().replace(" \\\n    ", " "), line);
    }
}
