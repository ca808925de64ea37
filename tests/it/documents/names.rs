//! One word for one thing: the old names are gone, and the glossary has the words that are our own.

use std::collections::BTreeSet;

use super::{code, files, pages, quoted, read, table};

/// Names that had standard words or better ones, as declarations or as they stood in the contract.
const OLD: [&str; 65] = [
    "struct Board",
    "struct Tally",
    "struct Slot",
    "struct Desk",
    "struct Grounds",
    "enum Ruling",
    "struct Told",
    "enum NoAnswer",
    "enum Undecided",
    "enum NotLetIn",
    "struct Holder",
    "pub struct Caller ",
    "struct Callers",
    "struct Proven",
    "struct Standing",
    "Standing::",
    "giving::",
    "struct Turns",
    "struct Turn ",
    "struct Seat",
    "struct Ledger",
    "struct Share ",
    "struct Place",
    "struct OpenPlace",
    "enum Place",
    "mod giving",
    "fn excess",
    "struct Draft",
    "struct Premises",
    "struct Terms",
    "mod draft",
    "mod once",
    "struct Once",
    "trait Once",
    "struct Made",
    "struct Words",
    "fn words(",
    "fn issue_words",
    "struct Ended",
    "struct Home",
    "struct Claim",
    "enum HomeError",
    "mod home",
    "mod launch",
    "enum LaunchError",
    "struct Ladder",
    "struct Rank",
    "ladder",
    "struct Trial",
    "is_trial",
    "Survivor",
    "SURVIVOR_",
    "survivor",
    "KeyHeader",
    "struct ForeignKey",
    "struct ManyKeys",
    "fn poke",
    "chores",
    "untold",
    "struct Judge",
    "enum Manner",
    "struct Stand ",
    "struct Said",
    "mod switch",
    "mod link",
];

/// Seen red with `struct Desk` in a comment of `src/gateway/authorizer.rs`.
#[test]
fn the_old_names_are_gone() {
    let this = "tests/it/documents/names.rs";
    let mut paths = files("src", ".rs");
    paths.extend(files("proto/claviger", ".proto"));
    paths.extend(files("tests", ".rs"));
    paths.extend(files("tests", ".py"));
    paths.extend(files("examples", ".toml"));
    paths.extend(pages());
    for path in paths.iter().filter(|path| *path != this) {
        let text = read(path);
        let found: Vec<_> = OLD.iter().filter(|old| text.contains(**old)).collect();
        assert!(found.is_empty(), "{path} still has {found:?}");
    }
}

/// The words that are claviger's own. Each has its row in the glossary.
const OURS: [&str; 27] = [
    "authority",
    "backlog",
    "built-in realm",
    "bulk revocation",
    "caller state",
    "canary",
    "delegate",
    "denial",
    "digest",
    "fork",
    "hold",
    "environment",
    "feed",
    "hint",
    "identity headers",
    "level",
    "mirror",
    "overlap",
    "partner",
    "pepper",
    "project",
    "realm",
    "revision",
    "root",
    "target",
    "tombstone",
    "verdict",
];

#[test]
fn the_glossary_has_every_word_of_our_own() {
    let rows = table("docs/glossary.md", "## Words");
    let words: Vec<_> = rows.iter().map(|row| row[0].replace("**", "")).collect();
    for word in OURS {
        assert!(
            words.iter().any(|known| known == word),
            "`{word}` has a row"
        );
    }
    let mut sorted = words.clone();
    sorted.sort_by_key(|word| word.to_lowercase());
    assert_eq!(words, sorted, "the rows are in alphabetical order");
}

/// Seen red with `KeyBearer` in a cell of the glossary.
#[test]
fn what_the_glossary_names_exists() {
    let mut identifiers = BTreeSet::new();
    for path in files("src", ".rs")
        .iter()
        .chain(&files("proto/claviger", ".proto"))
    {
        let code = code(path);
        let names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        identifiers.extend(names.map(str::to_owned));
    }
    for name in quoted(&read("docs/glossary.md")) {
        let first = name.split(['.', ':', ' ']).next().unwrap();
        let is_type = first.starts_with(|c: char| c.is_ascii_uppercase())
            && first.chars().any(|c| c.is_ascii_lowercase())
            && first.chars().all(|c| c.is_ascii_alphanumeric());
        if is_type {
            assert!(
                identifiers.contains(first),
                "`{name}` in the glossary exists"
            );
        }
    }
}
