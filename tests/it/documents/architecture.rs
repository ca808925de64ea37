//! The layers of ARCHITECTURE.md are those of the code.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, files, following, is_test, quoted, root, table};

/// The module of `src/` that a file belongs to; none for the roots of the crates.
fn module(path: &str) -> Option<String> {
    let path = path.strip_prefix("src/").unwrap();
    if path == "lib.rs" || path == "main.rs" {
        return None;
    }
    let name = path.split('/').next().unwrap();
    Some(name.strip_suffix(".rs").unwrap_or(name).to_owned())
}

/// What each module of `src/` uses.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::from([("pb".to_owned(), BTreeSet::new())]);
    for path in files("src", ".rs") {
        let Some(module) = module(&path) else {
            continue;
        };
        let used = imports.entry(module.clone()).or_default();
        if !is_test(&path) {
            let code = code(&path);
            let names = following(&code, "crate::").into_iter().map(str::to_owned);
            used.extend(names.filter(|name| *name != module));
        }
    }
    imports
}

/// Seen red with `use crate::gateway::...` in `src/verify/mod.rs`, and with a cell of the table that names too much.
#[test]
fn the_layer_table_is_the_import_graph_and_no_arrow_points_upwards() {
    let mut imports = imports();
    let mut below = BTreeSet::new();
    for row in table("ARCHITECTURE.md", "## Layers") {
        let layer = quoted(&row[0]).remove(0);
        let listed: BTreeSet<_> = quoted(&row[2]).into_iter().collect();
        let used = imports
            .remove(&layer)
            .unwrap_or_else(|| panic!("`{layer}` is a module of src/"));
        assert_eq!(used, listed, "what `{layer}` uses, and what its row says");
        assert!(
            used.is_subset(&below),
            "`{layer}` uses only layers above it in the table, not {:?}",
            used.difference(&below).collect::<Vec<_>>()
        );
        below.insert(layer);
    }
    assert!(imports.is_empty(), "without a row: {imports:?}");
}

/// The parts of one folder that import one another. What a part takes from its parent is not looked at: a parent declares its
/// children.
fn siblings(folder: &str, paths: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let parts: BTreeMap<&str, Vec<&String>> = paths
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?;
            let part = name.split('/').next().unwrap();
            let part = part.strip_suffix(".rs").unwrap_or(part);
            (part != "mod" && !is_test(path)).then_some((part, path))
        })
        .fold(BTreeMap::new(), |mut parts, (part, path)| {
            parts.entry(part).or_default().push(path);
            parts
        });
    let inside = format!(
        "{}::",
        folder.replacen("src", "crate", 1).replace('/', "::")
    );
    parts
        .iter()
        .map(|(part, paths)| {
            let mut used = BTreeSet::new();
            for path in paths {
                let code = code(path);
                let mut names = following(&code, &inside);
                if path.matches('/').count() == folder.matches('/').count() + 1 {
                    names.extend(following(&code, "super::"));
                }
                used.extend(names.into_iter().map(str::to_owned));
            }
            used.retain(|name| name != part && parts.contains_key(name.as_str()));
            ((*part).to_owned(), used)
        })
        .collect()
}

/// Seen red with `use super::issue::...` in `src/authority/idempotency.rs`.
#[test]
fn no_files_of_a_folder_import_each_other_in_a_circle() {
    let paths = files("src", ".rs");
    let folders: BTreeSet<&str> = paths
        .iter()
        .filter_map(|path| path.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| *folder != "src")
        .collect();
    for folder in folders {
        let mut graph = siblings(folder, &paths);
        while let Some(leaf) = graph
            .iter()
            .find(|(_, used)| used.is_empty())
            .map(|(part, _)| part.clone())
        {
            graph.remove(&leaf);
            for used in graph.values_mut() {
                used.remove(&leaf);
            }
        }
        assert!(graph.is_empty(), "a circle in {folder}: {graph:?}");
    }
}

#[test]
fn no_path_climbs_more_than_one_module() {
    for path in files("src", ".rs").iter().chain(&files("tests", ".rs")) {
        let climbs = ["super", "super::"].join("::");
        let code = std::fs::read_to_string(root().join(path)).unwrap();
        assert!(!code.contains(&climbs), "{path}: begin at `crate::`");
    }
}
