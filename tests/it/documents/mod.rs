//! The documents agree with the code: layers, names, error reasons, flags and links.

mod alerts;
mod architecture;
mod metrics;
mod names;
mod pages;
mod pasted;

use std::fs;
use std::path::Path;

pub(crate) use pasted::block_of_page;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files in a folder and below it that end so, by their paths in the repository.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(in_repository(&path));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} has files that end in {ending}");
    found
}

fn in_repository(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    path.to_string_lossy().into_owned()
}

/// Every Markdown page that readers are meant to find.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| in_repository(&path))
        .collect();
    pages.extend(files("docs", ".md"));
    pages.extend(files("examples", ".md"));
    pages
}

/// The rows of the table that follows a heading, each with its cells.
pub(crate) fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let start = text
        .lines()
        .position(|line| line == heading)
        .unwrap_or_else(|| panic!("{page} has the heading {heading}"));
    text.lines()
        .skip(start + 1)
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        // The header and the line below it.
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The parts of a text in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The commands of the program in the blocks of README and docs, each with its page and with all its lines.
pub(crate) fn command_lines() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let pages = pages().into_iter();
    for page in pages.filter(|page| page == "README.md" || page.starts_with("docs/")) {
        let text = read(&page);
        for block in text.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let mut goes_on = false;
            for line in block.lines() {
                if goes_on {
                    let (_, last) = found.last_mut().unwrap();
                    last.push('\n');
                    last.push_str(line);
                } else if line.starts_with("claviger ") {
                    found.push((page.clone(), line.to_owned()));
                } else {
                    continue;
                }
                goes_on = line.ends_with('\\');
            }
        }
    }
    found
}

/// A source file without its tests and comments.
fn code(path: &str) -> String {
    let text = read(path);
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a file has only tests.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("/differential.rs")
}

/// The identifiers that follow this text, wherever it stands.
fn following<'t>(text: &'t str, before: &str) -> Vec<&'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices(before);
    starts
        .filter(|(start, _)| !text[..*start].ends_with(is_part))
        .map(|(start, _)| {
            let rest = &text[start + before.len()..];
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|name| !name.is_empty())
        .collect()
}
