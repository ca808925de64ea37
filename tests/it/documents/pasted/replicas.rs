//! The page about three servers, pasted, and its files.

use std::collections::BTreeSet;

use super::blocks::{BlockRef, block, blocks, in_page};
use super::checkout::Checkout;
use super::{promised, statuses};
use crate::documents::read;
use crate::fixtures::{Engine, TestStore};

const PAGE: &str = "examples/replicas/README.md";

const SERVER: BlockRef = in_page(PAGE, "## 1. Start three servers", 0);
const LOG_IN: BlockRef = in_page(PAGE, "## 1. Start three servers", 1);
const OTHERS: BlockRef = in_page(PAGE, "## 1. Start three servers", 2);
const RUN: BlockRef = in_page(PAGE, "## 2. Run the gateways", 0);
const SEND: BlockRef = in_page(PAGE, "## 2. Run the gateways", 1);
const RESTART: BlockRef = in_page(PAGE, "## 3. Restart servers under load", 0);
const REVOKE: BlockRef = in_page(PAGE, "## 4. Revoke a key", 0);
const CLEAN_UP: BlockRef = in_page(PAGE, "## 5. Clean up", 0);

/// Seen red with another status in the last comment.
#[test]
fn the_page_about_three_servers_leads_from_nothing_to_a_rolling_restart_and_back() {
    let test_store = TestStore::on(Engine::Postgres);
    let url = test_store.database().url("postgres");
    let database = format!("export CLAVIGER_DATABASE_URL='{url}'\n");
    let checkout = Checkout::new();
    let before = checkout.files();
    let server = [&*database, &block(SERVER)].concat();
    let mut pasted: Vec<_> = [LOG_IN, OTHERS, RUN, SEND, RESTART, REVOKE, CLEAN_UP]
        .into_iter()
        .map(block)
        .collect();
    pasted.insert(0, database);
    let shown = checkout.paste(&server, &pasted);
    assert_eq!(statuses(&shown), promised(&pasted), "{shown}");
    for number in 0..3 {
        let listed = format!("server-{number}  ");
        let serving = shown.lines().find(|line| line.starts_with(&listed));
        assert!(
            serving.is_some_and(|line| line.contains("serving")),
            "{shown}"
        );
    }
    let counted: Vec<_> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| matches!(words[..], [count, _] if count.parse::<u32>().is_ok()))
        .collect();
    assert_eq!(counted, [["300", "200"]; 2], "{shown}");
    assert_eq!(checkout.files(), before);
}

#[test]
fn every_block_of_the_page_about_three_servers_is_pasted() {
    let pasted = BTreeSet::from([SERVER, LOG_IN, OTHERS, RUN, SEND, RESTART, REVOKE, CLEAN_UP]);
    let found: BTreeSet<_> = blocks(PAGE).into_iter().map(|(place, _)| place).collect();
    assert_eq!(found, pasted);
}

/// What is printed is in the file, line by line and in the same order, after a header of its own. `the_pages_show_what_is_printed`
/// says that the other file is what is printed.
///
/// Seen red without `failure_mode_allow`.
#[test]
fn the_files_for_three_servers_have_every_line_of_what_is_printed() {
    for (printed, file, ports) in [
        (
            "examples/envoy/peaka.yaml",
            "examples/replicas/envoy.yaml",
            ["8080", "8080"],
        ),
        (
            "examples/nginx/peaka.conf",
            "examples/replicas/nginx.conf",
            ["listen 127.0.0.1:8080", "listen 127.0.0.1:8090"],
        ),
    ] {
        let printed = read(printed).replace(ports[0], ports[1]);
        let (_, printed) = printed.split_once("\n\n").unwrap();
        let own = read(file);
        let mut lines = own.lines();
        for line in printed.lines() {
            assert!(lines.any(|own| own == line), "{file} lacks {line:?}");
        }
    }
}
