//! What holds for each API alike: one good key in its place, and nothing else.

use super::cases::Outcome::{self, Denied, Passes, Refused};
use super::cases::{Case, good_key, plain_request};
use super::fixture::Site;

pub(super) const SAME_TWICE: &str = "the same key in two headers";
pub(super) const GOOD_AND_BAD: &str = "a good and a bad key";
pub(super) const BAD_AND_GOOD: &str = "a bad and a good key";
pub(super) const EMPTY_AND_GOOD: &str = "an empty header and then a good one";
pub(super) const UNDERSCORED: &str = "the key once more, underscored";
pub(super) const USER_UNDERSCORED: &str = "the user underscored beside it";

/// `=` begins a header that carries a key, as the site has it; `CARRIER` is its name, and `KEY` a key that is good there.
const ROWS: &[(&str, &[&str], Outcome)] = &[
    ("the documented request", &["=KEY"], GOOD),
    ("no credential", &[], Denied(401)),
    ("an empty key", &["="], Denied(401)),
    ("a header of nothing", &["CARRIER:"], Denied(401)),
    ("random words", &["=no-key-at-all"], Denied(401)),
    ("half a key", &["=peaka_live_0123"], Denied(401)),
    ("a key twice in one header", &["=KEYKEY"], Denied(401)),
    ("two keys with a comma", &["=KEY,KEY"], Denied(401)),
    (
        "two keys with a comma and a space",
        &["=KEY, KEY"],
        Denied(401),
    ),
    ("a comma after the key", &["=KEY,"], Denied(401)),
    ("two keys with a space", &["=KEY KEY"], Denied(401)),
    ("a word after the key", &["=KEY x"], Denied(401)),
    ("quotes around the key", &["=\"KEY\""], Denied(401)),
    ("a tab after the key, and more", &["=KEY\tx"], Denied(401)),
    ("a byte beyond ASCII", &["=KEY\u{e9}"], Denied(401)),
    ("a key that is percent-encoded", &["=%70KEY"], Denied(401)),
    (
        "the key in a cookie alone",
        &["Cookie: CARRIER=KEY"],
        Denied(401),
    ),
    ("a zero byte in the key", &["=KEY\0"], Refused),
    ("a control byte in the key", &["=KEY\u{1}x"], Refused),
    ("a space before the colon", &["CARRIER : KEY"], Refused),
    (SAME_TWICE, &["=KEY", "=KEY"], Denied(401)),
    (GOOD_AND_BAD, &["=KEY", "=nonsense"], Denied(401)),
    (BAD_AND_GOOD, &["=nonsense", "=KEY"], Denied(401)),
    (EMPTY_AND_GOOD, &["CARRIER:", "=KEY"], Denied(401)),
];

const GOOD: Outcome = Passes("good");

/// The header that carries a site's key, up to where that begins.
fn carrier(site: Site) -> &'static str {
    match site.realm {
        "partna" => "x-api-key: ",
        "bullseye" => "X-Partner-API-Key: ",
        _ => "Authorization: Bearer ",
    }
}

fn carriers_name(site: Site) -> &'static str {
    carrier(site).split(':').next().unwrap_or_default()
}

/// The headers of a request with this key.
pub(super) fn headers(site: Site, key: &str) -> Vec<String> {
    let user = match key {
        "suspended" => "x-api-user: frozen",
        _ => "x-api-user: acme",
    };
    let mut headers = vec![format!("{}{{{key}}}", carrier(site))];
    if site.realm == "partna" {
        headers.push(user.to_owned());
    }
    headers
}

/// The cases at one site.
pub(super) fn of(site: Site) -> Vec<Case> {
    let good = good_key(site);
    let with = |what: &str, headers: Vec<String>, outcome| Case {
        site,
        what: what.to_owned(),
        line: plain_request(site).to_owned(),
        headers,
        outcome,
    };
    let mut cases: Vec<_> = ROWS
        .iter()
        .map(|(what, lines, outcome)| {
            let outcome = if *outcome == GOOD {
                Passes(good)
            } else {
                *outcome
            };
            with(what, written(site, lines), outcome)
        })
        .collect();
    let in_query = with("the key in the query alone", Vec::new(), Denied(401));
    cases.push(Case {
        line: format!("{}?{}={{{good}}}", in_query.line, carriers_name(site)),
        ..in_query
    });
    let capitals = headers(site, good).into_iter().map(|header| {
        let (name, value) = header.split_once(':').unwrap();
        format!("{}:{value}", name.to_uppercase())
    });
    cases.push(with(
        "the header in capitals",
        capitals.collect(),
        Passes(good),
    ));
    let spaced = headers(site, good).into_iter();
    let spaced = spaced.map(|header| format!("{} \t", header.replacen(": ", ": \t ", 1)));
    let what = "white space around the values, which HTTP takes away";
    cases.push(with(what, spaced.collect(), Passes(good)));
    if carriers_name(site).contains('-') {
        let underscored = carriers_name(site).replace('-', "_");
        let mut twice = headers(site, good);
        twice.push(format!("{underscored}: {{{good}}}"));
        cases.push(with(UNDERSCORED, twice, Refused));
    }
    if site.environment == "production" {
        for (name, outcome) in [
            ("revoked", Denied(401)),
            ("disabled", Denied(401)),
            ("expired", Denied(401)),
            ("deleted", Denied(401)),
            ("wrong_secret", Denied(401)),
            ("rotated_away", Denied(401)),
            ("rotated", Passes("rotated")),
            ("imported", Passes("imported")),
            ("revoked_among_many", Denied(401)),
            ("suspended", Denied(403)),
            ("from_elsewhere", Denied(403)),
            ("from_here", Passes("from_here")),
        ] {
            let what = format!("a key that is {name}");
            cases.push(with(&what, headers(site, name), outcome));
        }
        cases.extend(of_forged_addresses(site));
        // No rule names it: who is known hears that, who is not hears nothing.
        for (what, headers, outcome) in [
            (
                "a path that no rule names",
                headers(site, good),
                Denied(403),
            ),
            ("the same without a key", Vec::new(), Denied(401)),
        ] {
            let case = with(what, headers, outcome);
            cases.push(Case {
                line: "GET /nowhere".to_owned(),
                ..case
            });
        }
    }
    cases
}

/// A row's headers as they are sent, with what must stand beside a key.
fn written(site: Site, lines: &[&str]) -> Vec<String> {
    let key = format!("{{{}}}", good_key(site));
    let mut headers: Vec<_> = lines
        .iter()
        .map(|line| match line.strip_prefix('=') {
            Some(value) => format!("{}{value}", carrier(site)),
            None => line.replace("CARRIER", carriers_name(site)),
        })
        .map(|line| line.replace("KEY", &key))
        .collect();
    if site.realm == "partna" && !lines.is_empty() {
        headers.push("x-api-user: acme".to_owned());
    }
    headers
}

/// A client that says it is where its key may be used.
fn of_forged_addresses(site: Site) -> Vec<Case> {
    let addresses = [
        "203.0.113.1",
        "203.0.113.1, 203.0.113.1",
        "203.0.113.1, 127.0.0.1",
        "127.0.0.1,203.0.113.1",
    ];
    let cases = addresses.map(|forged| {
        let mut headers = headers(site, "from_elsewhere");
        headers.push(format!("X-Forwarded-For: {forged}"));
        headers.push("X-Real-IP: 203.0.113.1".to_owned());
        headers.push("Forwarded: for=203.0.113.1".to_owned());
        Case {
            site,
            what: format!("a client that says it is {forged}"),
            line: plain_request(site).to_owned(),
            headers,
            outcome: Denied(403),
        }
    });
    cases.into()
}
