//! The pages: complete, reachable, and with links that lead somewhere.

use std::collections::BTreeSet;
use std::path::Path;

use super::{code, files, is_test, pages, quoted, read, root, table};
use crate::fixtures::claviger;

/// The reasons of `google.rpc.ErrorInfo` that stand in the code.
fn reasons() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    let paths = files("src/grpc", ".rs").into_iter();
    for path in paths.chain(files("src/authority", ".rs")) {
        if is_test(&path) {
            continue;
        }
        let code = code(&path);
        let texts = code.split('"').skip(1).step_by(2);
        reasons.extend(texts.filter(|text| is_reason(text)).map(str::to_owned));
    }
    reasons
}

/// Whether a text is written as a reason is; values of enums have a prefix and stand in sentences.
fn is_reason(text: &str) -> bool {
    text.len() > 3
        && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        && !text.starts_with("VERDICT_")
}

/// Seen red with `NO_ROTATION` renamed in the code.
#[test]
fn every_error_reason_is_explained_and_no_other() {
    let rows = table("docs/errors.md", "## Error reasons");
    let explained: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(explained, reasons());
}

/// Seen red with the row of `--max-calls` taken out.
#[test]
fn every_flag_of_serve_is_described_with_its_variable() {
    let output = claviger(&["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let page = read("docs/run.md");
    let described: BTreeSet<_> = quoted(&page).into_iter().collect();
    // The flags of the client commands may stand anywhere, so clap shows them here too; `serve` refuses them.
    let output = claviger(&["events", "--help"]).output().unwrap();
    let of_clients = one_line(&String::from_utf8(output.stdout).unwrap());
    let whole = one_line(&help);
    let mut flags = 0;
    for line in help.lines() {
        let line = line.trim_start();
        let Some(start) = line.find("--").filter(|start| *start < 6) else {
            continue;
        };
        let flag = line[start..].split([' ', '=', ',']).next().unwrap();
        // These are clap's own.
        if !line.starts_with('-') || flag == "--help" || flag == "--version" {
            continue;
        }
        let variable = format!(
            "CLAVIGER_{}",
            flag.trim_start_matches("--")
                .to_uppercase()
                .replace('-', "_")
        );
        let shown = format!("[env: {variable}]");
        if whole.contains(&shown) && !of_clients.contains(&shown) {
            flags += 1;
            assert!(described.contains(&variable), "{variable}");
            let is_named = |text: &String| text.split(' ').next() == Some(flag);
            assert!(described.iter().any(is_named), "{flag}");
        }
    }
    assert!(flags > 25, "the help names the flags: {flags}");
}

/// A text without its line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_readme_is_short() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= 1_000, "{words} words");
}

/// Seen red with a page that no other one links.
#[test]
fn every_page_is_reachable_from_the_index() {
    let mut found = BTreeSet::from(["docs/README.md".to_owned()]);
    let mut next = vec!["docs/README.md".to_owned()];
    while let Some(page) = next.pop() {
        for (target, _) in links(&page) {
            let is_page = Path::new(&target).extension() == Some("md".as_ref());
            if is_page && found.insert(target.clone()) {
                next.push(target);
            }
        }
    }
    let pages: BTreeSet<_> = pages().into_iter().collect();
    let lost: Vec<_> = pages.difference(&found).collect();
    assert!(lost.is_empty(), "no link leads to {lost:?}");
}

/// Seen red with a heading renamed that another page links.
#[test]
fn every_link_leads_to_a_file_and_its_heading() {
    for page in pages() {
        for (target, anchor) in links(&page) {
            assert!(root().join(&target).exists(), "{page}: {target}");
            if let Some(anchor) = anchor {
                let anchors = anchors(&target);
                assert!(anchors.contains(&anchor), "{page}: {target}#{anchor}");
            }
        }
    }
}

/// Seen red with the path of a test that was moved.
#[test]
fn every_file_that_a_page_names_exists() {
    for page in pages() {
        // It tells of how things were.
        if page == "CHANGELOG.md" {
            continue;
        }
        for name in quoted(&read(&page)) {
            let is_path = [
                "src/",
                "tests/",
                "docs/",
                "migrations/",
                "proto/",
                "benches/",
                "examples/",
            ]
            .iter()
            .any(|folder| name.starts_with(folder));
            if is_path && !name.contains(['*', '{', ' ', '<']) {
                assert!(root().join(&name).exists(), "{page} names {name}");
            }
        }
    }
}

/// The links of a page into the repository: the file, and perhaps a heading.
fn links(page: &str) -> Vec<(String, Option<String>)> {
    let text = outside_code(&read(page));
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    text.match_indices("](")
        .filter_map(|(start, _)| text[start + 2..].split(')').next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .map(|link| {
            let (path, anchor) = match link.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor.to_owned())),
                None => (link, None),
            };
            let target = if path.is_empty() {
                page.to_owned()
            } else {
                resolve(folder, path)
            };
            (target, anchor)
        })
        .collect()
}

fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A page without its blocks of code.
fn outside_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
pub(super) fn anchors(page: &str) -> BTreeSet<String> {
    outside_code(&read(page))
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}
