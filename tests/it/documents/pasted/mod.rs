//! The pages of the examples and about TLS, pasted: each of their blocks as it stands, in a terminal of a machine on which nothing else
//! runs.

mod blocks;
mod checkout;
mod replicas;
mod tls;

use std::collections::BTreeSet;

use super::{read, root};
use crate::gateways::add_api;
use blocks::{BlockRef, block, blocks, in_page};
use checkout::Checkout;

const EXAMPLES: &str = "examples/README.md";

const APIS: [&str; 4] = ["Peaka", "Partna", "Bullseye", "Partnero"];
const GATEWAYS: [&str; 3] = ["Envoy", "nginx", "Caddy"];

/// The way through the examples to an API and a gateway, without the server's own terminal.
fn example(api: &'static str, gateway: &'static str) -> Vec<BlockRef> {
    let (describe, request) = match api {
        "Peaka" => ("### Peaka", "### Requests to Peaka"),
        "Partna" => ("### Partna", "### Requests to Partna"),
        "Bullseye" => ("### Bullseye", "### Requests to Bullseye"),
        _ => ("### Partnero", "### Requests to Partnero"),
    };
    let run = match gateway {
        "Envoy" => "### Envoy",
        "nginx" => "### nginx",
        _ => "### Caddy",
    };
    vec![
        in_page(EXAMPLES, "## 1. Start claviger", 1),
        in_page(EXAMPLES, "## 1. Start claviger", 2),
        in_page(EXAMPLES, describe, 0),
        in_page(EXAMPLES, "## 3. Run a gateway", 0),
        in_page(EXAMPLES, run, 0),
        in_page(EXAMPLES, "## 4. Send requests", 0),
        in_page(EXAMPLES, request, 0),
        in_page(EXAMPLES, "## 5. Manage keys as your API's server does", 0),
        in_page(EXAMPLES, "## 6. Clean up", 0),
    ]
}

const SERVER: BlockRef = in_page(EXAMPLES, "## 1. Start claviger", 0);

/// Several APIs in one gateway.
fn several(page: &'static str, heading: &'static str) -> Vec<BlockRef> {
    vec![
        in_page(EXAMPLES, "## 1. Start claviger", 1),
        in_page(EXAMPLES, "## 1. Start claviger", 2),
        in_page(page, heading, 0),
        in_page(page, heading, 1),
        in_page(page, heading, 2),
    ]
}

/// What a page prints for Peaka.
fn printed(page: &'static str) -> Vec<BlockRef> {
    vec![
        in_page(EXAMPLES, "### Peaka", 0),
        in_page(EXAMPLES, "## 3. Run a gateway", 0),
        in_page(page, "## Configure", 0),
    ]
}

/// A block of commands of a page, by the heading above it and its index there.
pub(crate) fn block_of_page(page: &'static str, heading: &'static str, index: usize) -> String {
    block(in_page(page, heading, index))
}

/// The statuses that the comments of the commands promise.
fn promised(blocks: &[String]) -> Vec<&str> {
    blocks
        .iter()
        .flat_map(|block| block.lines())
        .filter(|line| line.starts_with("curl -i "))
        .map(|line| {
            let (_, comment) = line.rsplit_once(" # ").expect("the status is in a comment");
            comment.split(':').next().unwrap()
        })
        .collect()
}

/// The statuses of the answers.
fn statuses(shown: &str) -> Vec<&str> {
    shown
        .lines()
        .filter(|line| line.starts_with("HTTP/1.1 "))
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect()
}

fn paste(server: BlockRef, places: &[BlockRef]) {
    let checkout = Checkout::new();
    let before = checkout.files();
    let blocks: Vec<_> = places.iter().map(|place| block(*place)).collect();
    let shown = checkout.paste(&block(server), &blocks);
    let promised = promised(&blocks);
    assert!(promised.len() > 1, "{places:?}");
    assert_eq!(statuses(&shown), promised, "{places:?}\n{shown}");
    // One call of the management is for another partner's key, and one for its own.
    let managed = blocks.iter().any(|block| block.contains("RevokeKey"));
    let counts = ["Code: NotFound", "KEY_STATE_REVOKED"].map(|text| shown.matches(text).count());
    assert_eq!(counts, [usize::from(managed); 2], "{shown}");
    if places
        .iter()
        .any(|place| block(*place).starts_with("kill $(jobs -p)"))
    {
        assert_eq!(checkout.files(), before, "{places:?} leaves files behind");
    }
}

/// Seen red with another status in a comment, with a wrong flag in a block, and without a file in the list to remove.
#[test]
fn the_examples_lead_to_each_api_behind_envoy() {
    for api in APIS {
        paste(SERVER, &example(api, "Envoy"));
    }
}

#[test]
fn the_examples_lead_to_each_api_behind_nginx() {
    for api in APIS {
        paste(SERVER, &example(api, "nginx"));
    }
}

#[test]
fn the_examples_lead_to_each_api_behind_caddy() {
    for api in APIS {
        paste(SERVER, &example(api, "Caddy"));
    }
}

/// Seen red without `peaka.caddy` in the list to remove.
#[test]
fn the_readme_leads_from_nothing_to_a_gateway_and_back() {
    const PAGE: &str = "README.md";
    let checkout = Checkout::new();
    let before = checkout.files();
    let login = block(in_page(PAGE, "## Five-minute tour", 0));
    let [tour, grpcurl] = [1, 2].map(|index| block(in_page(PAGE, "## Five-minute tour", index)));
    // A denial is an exit code of its own.
    let tour = format!("set +e\n{tour}");
    checkout.paste(
        &block(in_page(PAGE, "## Start", 0)),
        &[login, tour, grpcurl],
    );

    // The same terminal goes on with another server.
    let path = "export PATH=\"$PWD/target/release:$PATH\"\n".to_owned();
    let mut blocks = vec![path];
    blocks.extend([1, 2].map(|index| block(in_page(PAGE, "## One gateway", index))));
    blocks.push(block(in_page(PAGE, "## Clean up", 0)));
    let shown = checkout.paste(&block(in_page(PAGE, "## One gateway", 0)), &blocks);
    assert_eq!(statuses(&shown), promised(&blocks), "{shown}");
    assert!(shown.contains("hello from the API"), "{shown}");
    assert_eq!(checkout.files(), before);
}

#[test]
fn several_apis_in_one_gateway_are_as_the_pages_have_them() {
    paste(
        SERVER,
        &several("examples/nginx/README.md", "## Several APIs in one nginx"),
    );
    paste(
        SERVER,
        &several("examples/caddy/README.md", "## Several APIs in one Caddy"),
    );
}

/// Seen red with the parts of Peaka left out.
#[test]
fn several_apis_in_one_envoy_are_as_the_page_has_them() {
    const PAGE: &str = "examples/envoy/README.md";
    const HEADING: &str = "## Several APIs in one Envoy";
    let [path, upstream] =
        [1, 2].map(|index| block(in_page(EXAMPLES, "## 1. Start claviger", index)));
    let checkout = Checkout::new();
    let server = block(SERVER);
    let before = checkout.files();
    let part = |index| block(in_page(PAGE, HEADING, index));
    checkout.paste(&server, &[path.clone(), upstream.clone(), part(0)]);
    // What the page leaves to its reader.
    let [staging, production, peaka] = ["staging", "production", "peaka"]
        .map(|name| checkout.read(&format!("gateway/{name}.yaml")));
    let several = add_api(&add_api(&staging, &production), &peaka);
    std::fs::write(checkout.path().join("gateway/several.yaml"), &several).unwrap();
    check_shown(
        &checkout,
        several,
        &["partna-gateway.key", "peaka-gateway.key"],
        "examples/envoy/several.yaml",
    );

    let blocks = [path, upstream, part(1), part(2), part(3)];
    let shown = checkout.paste(&server, &blocks);
    assert_eq!(statuses(&shown), promised(&blocks), "{shown}");
    assert_eq!(checkout.files(), before);
}

const PROMETHEUS: &str = "examples/prometheus/README.md";
const SERVER_TO_SCRAPE: BlockRef = in_page(PROMETHEUS, "## 1. Start claviger", 0);

/// From a server to an alert, and back.
const TO_AN_ALERT: [BlockRef; 4] = [
    in_page(PROMETHEUS, "## 2. Start Prometheus", 0),
    in_page(PROMETHEUS, "## 2. Start Prometheus", 1),
    in_page(PROMETHEUS, "## 3. See an alert", 0),
    in_page(PROMETHEUS, "## 5. Clean up", 0),
];

/// Seen red with another job in the configuration, and without `prometheus-data` in the list to remove.
#[test]
fn prometheus_leads_from_nothing_to_an_alert_and_back() {
    let checkout = Checkout::new();
    let before = checkout.files();
    let blocks: Vec<_> = TO_AN_ALERT.into_iter().map(block).collect();
    let shown = checkout.paste(&block(SERVER_TO_SCRAPE), &blocks);
    for text in [
        "SUCCESS",
        r#""__name__":"claviger_ready","instance":"127.0.0.1:7701","job":"claviger""#,
        r#""alertname":"ClavigerDown","instance":"127.0.0.1:7711""#,
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert_eq!(checkout.files(), before);
}

#[test]
fn the_pages_show_what_is_printed() {
    let path = "export PATH=\"$PWD/target/release:$PATH\"\n".to_owned();
    for (page, file) in [
        ("examples/envoy/README.md", "examples/envoy/peaka.yaml"),
        ("examples/nginx/README.md", "examples/nginx/peaka.conf"),
        ("examples/caddy/README.md", "examples/caddy/peaka.caddy"),
    ] {
        let checkout = Checkout::new();
        let mut blocks: Vec<_> = printed(page).into_iter().map(block).collect();
        let last = blocks.last_mut().unwrap();
        *last = format!("{} >printed\n", last.trim_end());
        blocks.insert(0, path.clone());
        checkout.paste(&block(SERVER), &blocks);
        check_shown(&checkout, checkout.read("printed"), &["gateway.key"], file);
    }
}

/// Checks that a file of the examples is what was printed, but for the keys. With `CLAVIGER_TEST_PRINTED` the file becomes that.
fn check_shown(checkout: &Checkout, printed: String, keys: &[&str], file: &str) {
    let printed = keys.iter().fold(printed, |printed, key| {
        printed.replace(checkout.read(key).trim_end(), "GATEWAY_KEY")
    });
    // The checksum of a file differs with the key in it.
    let lines = printed.split_inclusive('\n');
    let printed: String = lines.filter(|line| !line.contains("checksum")).collect();
    if std::env::var_os("CLAVIGER_TEST_PRINTED").is_some() {
        std::fs::write(root().join(file), &printed).unwrap();
    }
    assert!(
        printed == read(file),
        "{file} is not what is printed: set CLAVIGER_TEST_PRINTED to write it again"
    );
}

/// A block that no test pastes is one that nobody knows to be right.
#[test]
fn every_block_of_these_pages_is_pasted() {
    let mut pasted: BTreeSet<BlockRef> = BTreeSet::from([SERVER, SERVER_TO_SCRAPE]);
    pasted.extend(TO_AN_ALERT);
    for api in APIS {
        for gateway in GATEWAYS {
            pasted.extend(example(api, gateway));
        }
    }
    for (page, heading) in [
        ("examples/nginx/README.md", "## Several APIs in one nginx"),
        ("examples/caddy/README.md", "## Several APIs in one Caddy"),
    ] {
        pasted.extend(several(page, heading));
    }
    for page in [
        "examples/envoy/README.md",
        "examples/nginx/README.md",
        "examples/caddy/README.md",
    ] {
        pasted.extend(printed(page));
    }
    let envoy = "## Several APIs in one Envoy";
    pasted.extend([0, 1, 2, 3].map(|index| in_page("examples/envoy/README.md", envoy, index)));
    for page in [
        EXAMPLES,
        PROMETHEUS,
        "examples/envoy/README.md",
        "examples/nginx/README.md",
        "examples/caddy/README.md",
    ] {
        for (place, text) in blocks(page) {
            assert!(pasted.contains(&place), "{place:?}\n{text}");
        }
    }
}
