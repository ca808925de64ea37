//! The command line as it was typed: how errors name its arguments, and the line that repeats it.

use std::env;
use std::ffi::OsString;

use clap::Command;
use uuid::Uuid;

use super::{redact, text};

/// The fields that a positional argument with the id `id` stands for.
const IDS: [&str; 6] = ["id", "key_id", "partner", "project", "realm", "realm_id"];

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

/// The words of the command line of this process with other flags, quoted for a shell; `None` if it has what may be a secret, or what nobody can paste.
pub(super) fn repeated(flags: &str) -> Option<Vec<String>> {
    let line: Option<Vec<_>> = env::args_os().map(|word| word.into_string().ok()).collect();
    repeat(&line?, flags)
}

/// Replaces flags of a command line, and quotes its words. `flags` is a list of flags, each with its value.
fn repeat(line: &[String], flags: &str) -> Option<Vec<String>> {
    let new: Vec<_> = flags.split_whitespace().collect();
    // An absolute time stands for the span before it.
    let replaces = |word: &str| {
        let name = word.split('=').next().unwrap_or(word);
        new.contains(&name) || name == "--expires-in" && new.contains(&"--expires-at")
    };
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
        words.push(shlex::try_quote(word).ok()?.into_owned());
    }
    words.extend(new.into_iter().map(str::to_owned));
    Some(words)
}

/// Whether a word has a part that looks like an API key. Paths and ids do not count.
fn may_be_secret(word: &str) -> bool {
    let is_path = word.starts_with('/') || word.starts_with("./") || word.starts_with("../");
    let is_name = word.starts_with("--") && !word.contains('=');
    !is_path && !is_name && Uuid::try_parse(word).is_err() && redact::mask_keys(word, &[]) != word
}

/// Joins the words of a command to lines that fit a terminal. A word that is longer than a line stays whole.
pub(super) fn folded(words: &[String]) -> String {
    const WIDTH: usize = 76;
    let mut folded = String::new();
    let mut width = 0;
    for word in words {
        let length = word.chars().count();
        if width == 0 {
            width = 2 + length;
        } else if width + 1 + length <= WIDTH {
            folded.push(' ');
            width += 1 + length;
        } else {
            folded.push_str(" \\\n    ");
            width = 4 + length;
        }
        folded.push_str(word);
    }
    folded
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
            repeat(&words, "--expires-at 2030-01-31T12:00:00Z --request-id ID")
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
    fn a_long_line_is_broken_between_words() {
        let line = "claviger keys issue --partner acme --environment production --scope read --name 'a -- b' \
                    --request-id 01a4f0c1-2345-7abc-8def-0123456789ab";
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let folded = folded(&words);
        assert!(folded.lines().count() > 1, "{folded}");
        assert!(
            folded.lines().all(|line| line.chars().count() <= 78),
            "{folded}"
        );
        assert_eq!(folded.replace(" \\\n    ", " "), line);
    }
}
