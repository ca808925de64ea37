//! The page about TLS, pasted, with a server that requires client certificates in the end.

use std::collections::BTreeSet;

use super::blocks::{BlockRef, block, blocks, in_page};
use super::checkout::Checkout;

const PAGE: &str = "docs/tls.md";

/// What the page expects its reader to have.
const PATH: &str = "export PATH=\"$PWD/target/release:$PATH\"\n";
const AUTHORITY: &str = "claviger bootstrap >new.key && mv new.key claviger-data/operator.key\n";
const PEAKA: &str = "claviger realm apply --file examples/realms/peaka.toml\n\
    claviger keys issue --realm claviger --partner peaka --scope verify --output-file peaka.key\n";

const MAKE: BlockRef = in_page(PAGE, "## Make certificates for a trial", 0);
const START: BlockRef = in_page(PAGE, "## Start", 0);
const LIST: BlockRef = in_page(PAGE, "## Clients", 0);
const TOOLS: BlockRef = in_page(PAGE, "## Clients", 1);
const PYTHON: BlockRef = in_page(PAGE, "## Clients", 2);
const MAKE_OF_CLIENTS: BlockRef = in_page(PAGE, "## Client certificates", 0);
const REQUIRE: BlockRef = in_page(PAGE, "## Client certificates", 1);
const TOOLS_WITH: BlockRef = in_page(PAGE, "## Client certificates", 2);
const PYTHON_WITH: BlockRef = in_page(PAGE, "## Client certificates", 3);
const GATEWAY: BlockRef = in_page(PAGE, "## Gateways", 0);

/// A block of Python, as a command that then makes a call over its channel.
fn python(place: BlockRef) -> String {
    let call = "import os\n\
        list_realms = channel.unary_unary('/claviger.v1.RealmAdmin/ListRealms')\n\
        metadata = [('authorization', 'Bearer ' + os.environ['CLAVIGER_KEY'])]\n\
        print('python', b'claviger' in list_realms(b'', metadata=metadata, timeout=20))\n";
    format!("python3 - <<'PYTHON'\n{}{call}PYTHON\n", block(place))
}

/// Seen red without `-cacert` in a block, without the client certificate in Python, and with a server that requires none.
#[test]
fn the_page_about_tls_leads_to_calls_with_and_without_client_certificates() {
    let checkout = Checkout::new();
    let server = [PATH, AUTHORITY, &block(MAKE), &block(START)].concat();
    let client = [
        PATH.to_owned(),
        block(LIST),
        block(TOOLS),
        python(PYTHON),
        PEAKA.to_owned(),
        block(MAKE_OF_CLIENTS),
    ];
    let shown = checkout.paste(&server, &client);
    for told in ["everything in every realm", "ok\n", "python True\n"] {
        assert_eq!(shown.matches(told).count(), 1, "{told}: {shown}");
    }

    let listed = block(LIST);
    let (variables, without) = listed.split_once('\n').unwrap();
    let refused = format!("! {without} 2>refused\n grep -q 'requires a client' refused\n");
    let refused = refused.replace("\n 2>", " 2>");
    let client = [
        PATH.to_owned(),
        format!("{variables}\n"),
        refused,
        block(TOOLS_WITH),
        python(PYTHON_WITH),
        block(GATEWAY),
    ];
    let shown = checkout.paste(&[PATH, &block(REQUIRE)].concat(), &client);
    for told in [
        "everything in every realm",
        "ok\n",
        "python True\n",
        "proxy_ssl_certificate_key",
        "proxy_ssl_name localhost;",
    ] {
        assert_eq!(shown.matches(told).count(), 1, "{told}: {shown}");
    }
}

#[test]
fn every_block_of_the_page_about_tls_is_pasted() {
    let pasted = BTreeSet::from([
        MAKE,
        START,
        LIST,
        TOOLS,
        PYTHON,
        MAKE_OF_CLIENTS,
        REQUIRE,
        TOOLS_WITH,
        PYTHON_WITH,
        GATEWAY,
    ]);
    let found: BTreeSet<_> = blocks(PAGE).into_iter().map(|(place, _)| place).collect();
    assert_eq!(found, pasted);
}
