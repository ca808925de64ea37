//! The table: requests as the four APIs document them, and everything that should be refused. It is the same on each way in;
//! the outcome is, too.

use super::credentials;
use super::fixture::{BULLSEYE, PARTNA, PARTNA_STAGING, PARTNERO, PEAKA, SITES, Site};
use super::gateway_process::GatewayKind;

/// A request, and what must become of it.
pub(super) struct Case {
    pub(super) site: Site,
    /// What it is about, for people.
    pub(super) what: String,
    /// Method and target.
    pub(super) line: String,
    /// Its headers; `{name}` is the API key of that name.
    pub(super) headers: Vec<String>,
    pub(super) outcome: Outcome,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It reaches the server behind as the request of this key.
    Passes(&'static str),
    /// It reaches it as nobody's.
    Public,
    /// It is denied with this status and the realm's body for it.
    Denied(u16),
    /// The gateway or claviger refuses it with a status of 400 to 499.
    Refused,
}

use Outcome::{Denied, Passes, Public, Refused};

/// Every case.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for site in SITES {
        cases.extend(credentials::of(site));
    }
    cases.extend(of_levels_and_projects());
    cases.extend(of_users_and_environments());
    cases.extend(of_scopes());
    cases.extend(of_programs());
    cases
}

impl Case {
    /// What becomes of it on one way: what the table says, but for what a gateway does before it asks. **This is the whole
    /// list of where the gateways differ.** (nginx also writes a page of its own where a denial has no body.)
    pub(super) fn outcome_on(&self, kind: GatewayKind) -> Outcome {
        let bearer = matches!(self.site.realm, "peaka" | "partnero");
        match (kind, self.what.as_str()) {
            // It takes two of this header for a broken request (400).
            (
                GatewayKind::Nginx,
                credentials::SAME_TWICE
                | credentials::GOOD_AND_BAD
                | credentials::BAD_AND_GOOD
                | credentials::EMPTY_AND_GOOD,
            ) if bearer => Refused,
            // It drops what has underscores, and asks about the rest.
            (GatewayKind::Nginx, credentials::UNDERSCORED | credentials::USER_UNDERSCORED) => {
                Passes(good_key(self.site))
            }
            // It joins this header, and nothing with something makes that.
            (
                GatewayKind::EnvoyRaw
                | GatewayKind::EnvoyJoined
                | GatewayKind::EnvoyNormalising
                | GatewayKind::EnvoyHttp,
                credentials::EMPTY_AND_GOOD,
            ) if bearer => Passes(good_key(self.site)),
            _ => self.outcome,
        }
    }
}

fn case(site: Site, what: &str, line: &str, headers: &[&str], outcome: Outcome) -> Case {
    Case {
        site,
        what: what.to_owned(),
        line: line.to_owned(),
        headers: headers.iter().map(ToString::to_string).collect(),
        outcome,
    }
}

/// A request that the API documents and that any good key of the site may make.
pub(super) fn plain_request(site: Site) -> &'static str {
    match site.realm {
        "peaka" => "GET /api/v1/organizations",
        "partna" => "GET /v4/account",
        "bullseye" => "GET /api/v1/partner/me",
        _ => "GET /v1/partners",
    }
}

/// The name of the key that it takes.
pub(super) fn good_key(site: Site) -> &'static str {
    match site.environment {
        "staging" => "staging_good",
        _ => "good",
    }
}

/// Peaka: partner keys and project keys.
fn of_levels_and_projects() -> Vec<Case> {
    let organizations = "GET /api/v1/organizations";
    let catalogs = "GET /api/v1/data/projects/mtKDhe1U/catalogs";
    let create = "POST /api/v1/projects/mtKDhe1U/apiKeys";
    let mut cases = Vec::new();
    let mut row = |line: &str, key: &'static str, passes: bool| {
        let outcome = if passes { Passes(key) } else { Denied(403) };
        let headers = [format!("Authorization: Bearer {{{key}}}")];
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        cases.push(case(
            PEAKA,
            &format!("{line} with {key}"),
            line,
            &headers,
            outcome,
        ));
    };
    row(organizations, "good", true);
    row(organizations, "foreign", true);
    row(organizations, "project", false);
    row(organizations, "foreign_project", false);
    row(catalogs, "good", true);
    row(catalogs, "project", true);
    row(catalogs, "other_project", false);
    row(catalogs, "foreign", false);
    row(catalogs, "foreign_project", false);
    row(&format!("{catalogs}?projects=nQ2vXs8B"), "project", true);
    row(
        "GET /api/v1/data/projects/nQ2vXs8B/catalogs?x=/projects/mtKDhe1U/",
        "project",
        false,
    );
    row("GET /api/v1/data/projects/unknown1/catalogs", "good", false);
    row(
        "GET /api/v1/data/projects/MTKDHE1U/catalogs",
        "project",
        false,
    );
    row("GET /api/v1/data/projects", "project", false);
    row("GET /api/v1/data/projects", "good", true);
    row(create, "good", true);
    row(create, "project", false);
    row(create, "foreign", false);
    row("POST /api/v1/projects/zR7wLk4C/apiKeys", "good", false);
    row("POST /api/v1/projects/zR7wLk4C/apiKeys", "foreign", true);
    row(
        "DELETE /api/v1/projects/mtKDhe1U/apiKeys/17",
        "project",
        false,
    );
    for scheme in [
        "Basic {good}",
        "Token {good}",
        "{good}",
        "Bearer{good}",
        "Bearer\t{good}",
        "Bearer: {good}",
    ] {
        let header = format!("Authorization: {scheme}");
        cases.push(case(PEAKA, &header, organizations, &[&header], Denied(401)));
    }
    for scheme in ["bearer {good}", "BEARER {good}", "Bearer  {good}"] {
        let header = format!("Authorization: {scheme}");
        cases.push(case(
            PEAKA,
            &header,
            organizations,
            &[&header],
            Passes("good"),
        ));
    }
    cases.push(case(
        PEAKA,
        "a key in another API's header",
        organizations,
        &["X-Api-Key: {good}"],
        Denied(401),
    ));
    cases
}

/// Partna: two headers that belong together, and two environments.
fn of_users_and_environments() -> Vec<Case> {
    let account = "GET /v4/account";
    let key = "x-api-key: {good}";
    let user = "x-api-user: acme";
    let staging = "x-api-key: {staging_good}";
    let mut cases = Vec::new();
    let mut row = |site, what: &str, headers: &[&str], outcome| {
        cases.push(case(site, what, account, headers, outcome));
    };
    row(
        PARTNA,
        "the two in the other order",
        &[user, key],
        Passes("good"),
    );
    row(PARTNA, "the key without the user", &[key], Denied(401));
    row(PARTNA, "the user without the key", &[user], Denied(401));
    row(
        PARTNA,
        "another user",
        &[key, "x-api-user: umbrella"],
        Denied(401),
    );
    row(
        PARTNA,
        "another user's key",
        &["x-api-key: {foreign}", user],
        Denied(401),
    );
    row(
        PARTNA,
        "that user with its own key",
        &["x-api-key: {foreign}", "x-api-user: umbrella"],
        Passes("foreign"),
    );
    row(
        PARTNA,
        "the user in capitals",
        &[key, "x-api-user: ACME"],
        Denied(401),
    );
    row(
        PARTNA,
        "an unknown user",
        &[key, "x-api-user: nobody"],
        Denied(401),
    );
    row(PARTNA, "an empty user", &[key, "x-api-user:"], Denied(401));
    row(PARTNA, "the user twice", &[key, user, user], Denied(401));
    row(
        PARTNA,
        "two users",
        &[key, user, "x-api-user: umbrella"],
        Denied(401),
    );
    row(
        PARTNA,
        "two users with a comma",
        &[key, "x-api-user: acme,umbrella"],
        Denied(401),
    );
    row(
        PARTNA,
        "a user with a space",
        &[key, "x-api-user: acme x"],
        Denied(401),
    );
    row(
        PARTNA,
        credentials::USER_UNDERSCORED,
        &[key, user, "x_api_user: umbrella"],
        Refused,
    );
    row(
        PARTNA,
        "a staging key in production",
        &[staging, user],
        Denied(401),
    );
    row(
        PARTNA_STAGING,
        "a staging key in staging",
        &[staging, user],
        Passes("staging_good"),
    );
    row(
        PARTNA_STAGING,
        "a production key in staging",
        &[key, user],
        Denied(401),
    );
    row(
        PARTNA,
        "the key as a bearer",
        &["Authorization: Bearer {good}", user],
        Denied(401),
    );
    cases.extend(of_operations());
    cases
}

/// Partna's operations on keys, at their documented paths.
fn of_operations() -> Vec<Case> {
    let key = "x-api-key: {good}";
    let user = "x-api-user: acme";
    let mut cases = Vec::new();
    for line in [
        "POST /user/api-key",
        "GET /user/api-keys",
        "GET /user/api-key/scopes",
        "POST /user/api-key/invalidate",
        "DELETE /user/api-key",
    ] {
        cases.push(case(PARTNA, line, line, &[key, user], Passes("good")));
        cases.push(case(
            PARTNA,
            &format!("{line} without a key"),
            line,
            &[user],
            Denied(401),
        ));
    }
    cases
}

/// Bullseye: each scope against each kind of request.
fn of_scopes() -> Vec<Case> {
    let keys = ["read", "write", "admin", "good"];
    let mut cases = Vec::new();
    for (line, least) in [
        ("GET /api/v1/partner/me", 0),
        ("HEAD /api/v1/partner/me", 0),
        ("POST /api/v1/partner/clips", 1),
        ("PUT /api/v1/partner/clips/1", 1),
        ("PATCH /api/v1/partner/clips/1", 1),
        ("DELETE /api/v1/partner/clips/1", 1),
        ("GET /api/v1/partner/api-keys", 2),
        ("POST /api/v1/partner/api-keys", 2),
        ("DELETE /api/v1/partner/api-keys/1", 2),
        ("GET /api/v1/partner/billing/invoices", 2),
    ] {
        for (rank, key) in keys.into_iter().enumerate() {
            // The last is the one without scopes, which has full access.
            let outcome = if rank >= least {
                Passes(key)
            } else {
                Denied(403)
            };
            let header = format!("X-Partner-API-Key: {{{key}}}");
            cases.push(case(
                BULLSEYE,
                &format!("{line} with {key}"),
                line,
                &[&header],
                outcome,
            ));
        }
    }
    cases.push(case(
        BULLSEYE,
        "a bearer where a header of its own is documented",
        "GET /api/v1/partner/me",
        &["Authorization: Bearer {good}"],
        Denied(401),
    ));
    cases
}

/// Partnero: the key's program is told; 401 and 403 are never mixed up.
fn of_programs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, line, key, outcome) in [
        (
            "another program is told as such",
            "GET /v1/partners",
            "other_program",
            Passes("other_program"),
        ),
        (
            "a program in the query changes nothing",
            "GET /v1/partners?program=zR7wLk4C",
            "good",
            Passes("good"),
        ),
        (
            "a key that may read reads",
            "GET /v1/partners",
            "read",
            Passes("read"),
        ),
        (
            "a key that may read does not write",
            "POST /v1/partners",
            "read",
            Denied(403),
        ),
        (
            "a key of full access writes",
            "POST /v1/partners",
            "good",
            Passes("good"),
        ),
        (
            "a staging key in production",
            "GET /v1/partners",
            "staging_good",
            Denied(401),
        ),
        (
            "a development key in production",
            "GET /v1/partners",
            "dev_good",
            Denied(401),
        ),
        ("an open path with a key", "GET /health", "good", Public),
        (
            "an open path with a revoked key",
            "GET /health",
            "revoked",
            Public,
        ),
        (
            "an open path, but another method",
            "POST /health",
            "good",
            Denied(403),
        ),
    ] {
        let header = format!("Authorization: Bearer {{{key}}}");
        cases.push(case(PARTNERO, what, line, &[&header], outcome));
    }
    cases.push(case(PARTNERO, "an open path", "GET /health", &[], Public));
    cases
}
