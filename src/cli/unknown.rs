//! Names that do not exist, in filters and in the request for a key: what was probably meant.
//!
//! A filter with a mistyped name finds nothing, which reads as good news. So a command that finds nothing asks the server whether the
//! names exist. This costs nothing if something was found.

use std::fmt::Write as _;

use tonic::Code;

use super::client::Client;
use super::failure::Failure;
use super::page;
use super::text;
use crate::domain::ids::RealmId;
use crate::domain::nearest::nearest;
use crate::pb::claviger::v1::{
    GetPartnerRequest, GetRealmRequest, IssueKeyRequest, KeyFilter, ListPartnersRequest,
    ListProjectsRequest, ListRealmsRequest, Realm,
};

/// A list of names stands in an error if it is not longer than this.
const LISTED: usize = 20;

/// The names in a filter or request. Empty names do not count.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) realm: String,
    pub(super) partner: String,
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) scopes: Vec<String>,
}

/// A name that does not exist.
#[derive(Debug, PartialEq, Eq)]
struct Unknown {
    /// What it names, which is the name of its flag.
    what: &'static str,
    name: String,
    nearest: Option<String>,
    /// The names that exist, if they are few.
    existing: Vec<String>,
    /// What is wrong, if it is something else.
    instead: Option<String>,
}

impl Names {
    /// The names in a filter for keys.
    pub(super) fn of_filter(filter: &KeyFilter) -> Self {
        Self {
            realm: filter.realm.clone(),
            partner: filter.partner.clone(),
            project: filter.project.clone(),
            environment: filter.environment.clone(),
            scopes: Vec::new(),
        }
    }

    /// The names in the request for a new key.
    pub(super) fn of_issue(request: &IssueKeyRequest) -> Self {
        Self {
            realm: request.realm.clone(),
            partner: request.partner.clone(),
            project: request.project.clone(),
            environment: request.environment.clone(),
            scopes: request.scopes.clone(),
        }
    }

    /// Returns the answer, or a failure if it is empty and a name does not exist.
    pub(super) async fn known_or<T>(
        &self,
        client: &Client,
        answer: Result<T, Failure>,
        is_empty: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let is_suspicious = match &answer {
            Ok(answer) => is_empty(answer),
            // An unknown environment is an incorrect request to some methods.
            Err(failure) => failure.is_not_found() || failure.is_usage(),
        };
        if is_suspicious {
            self.check(client).await?;
        }
        answer
    }

    /// Fails with `NOT_FOUND` if a name does not exist.
    pub(super) async fn check(&self, client: &Client) -> Result<(), Failure> {
        match self.unknown(client).await.as_slice() {
            [] => Ok(()),
            [one] => Err(Failure::new(Code::NotFound, one.sentence(&self.realm))),
            several => Err(self.failure("some names do not exist", several)),
        }
    }

    /// Turns the refusal of a key into a failure that names what does not exist, if something does not.
    pub(super) async fn refused(&self, client: &Client, refusal: Failure) -> Failure {
        if !(refusal.is_not_found() || refusal.is_usage()) {
            return refusal;
        }
        let unknown = self.unknown(client).await;
        if unknown.is_empty() {
            return refusal;
        }
        self.failure("this key cannot be issued", &unknown)
    }

    /// A failure with a line for each name. It has the code of an incorrect command if it is one to the server.
    fn failure(&self, message: &str, unknown: &[Unknown]) -> Failure {
        let flags: Vec<_> = unknown
            .iter()
            .map(|unknown| format!("--{} {}", unknown.what, unknown.name))
            .collect();
        let widest = flags.iter().map(|flag| flag.chars().count()).max();
        let width = widest.unwrap_or(0);
        let lines = flags.iter().zip(unknown);
        let lines =
            lines.map(|(flag, unknown)| format!("{flag:width$}   {}", unknown.line(&self.realm)));
        let is_only_of_realm = |unknown: &Unknown| ["environment", "scope"].contains(&unknown.what);
        let code = if unknown.iter().all(is_only_of_realm) {
            Code::InvalidArgument
        } else {
            Code::NotFound
        };
        let failure = Failure::new(code, message).details(lines);
        let nearest: Option<Vec<_>> = unknown
            .iter()
            .map(|unknown| Some(format!("--{} {}", unknown.what, unknown.nearest.as_ref()?)))
            .collect();
        match nearest {
            Some(flags) => failure.hint(format!("did you mean {}?", flags.join(" "))),
            None => failure,
        }
    }

    /// Returns the names that do not exist. Who may not read the realm, or an outage, finds none.
    async fn unknown(&self, client: &Client) -> Vec<Unknown> {
        let realm = match self.get_realm(client).await {
            Ok(Some(realm)) => realm,
            Ok(None) => {
                let realms = realms(client).await;
                return vec![Unknown::new("realm", &self.realm, &realms)];
            }
            Err(_) => return Vec::new(),
        };
        let mut unknown = Vec::new();
        unknown.extend(self.unknown_partner(client).await.ok().flatten());
        unknown.extend(self.unknown_project(client).await.ok().flatten());
        let environments = realm.environments.iter().map(|it| it.name.clone());
        let environments: Vec<_> = environments.collect();
        if !self.environment.is_empty() && !environments.contains(&self.environment) {
            let what = "environment";
            unknown.push(Unknown::new(what, &self.environment, &environments));
        }
        let scopes: Vec<_> = realm.scopes.iter().map(|it| it.name.clone()).collect();
        for scope in self.scopes.iter().filter(|scope| !scopes.contains(scope)) {
            unknown.push(Unknown::new("scope", scope, &scopes));
        }
        unknown
    }

    async fn get_realm(&self, client: &Client) -> Result<Option<Realm>, Failure> {
        let request = GetRealmRequest {
            realm_id: self.realm.clone(),
        };
        match client.ask(client.realms().get_realm(request)).await {
            Ok(answer) => Ok(answer.realm),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn unknown_partner(&self, client: &Client) -> Result<Option<Unknown>, Failure> {
        if self.partner.is_empty() {
            return Ok(None);
        }
        // The partners of the built-in realm are the other realms.
        if self.realm == RealmId::BUILT_IN {
            let realms = realms(client).await;
            let is_known = realms.is_empty() || realms.contains(&self.partner);
            return Ok((!is_known).then(|| Unknown::new("partner", &self.partner, &realms)));
        }
        let request = GetPartnerRequest {
            realm: self.realm.clone(),
            partner: self.partner.clone(),
        };
        match client.ask(client.realms().get_partner(request)).await {
            Err(failure) if failure.is_not_found() => {}
            answer => return answer.map(|_| None),
        }
        let request = ListPartnersRequest {
            realm: self.realm.clone(),
            page_size: 1000,
            page_token: String::new(),
        };
        let listed = client.ask(client.realms().list_partners(request)).await?;
        let partners = listed.partners.into_iter().map(|partner| partner.id);
        let partners: Vec<_> = partners.collect();
        Ok(Some(Unknown::new("partner", &self.partner, &partners)))
    }

    async fn unknown_project(&self, client: &Client) -> Result<Option<Unknown>, Failure> {
        if self.project.is_empty() {
            return Ok(None);
        }
        let listed = page::fetch_all(1000, async |page_size, page_token| {
            let request = ListProjectsRequest {
                realm: self.realm.clone(),
                partner: String::new(),
                page_size,
                page_token,
            };
            client.ask(client.realms().list_projects(request)).await
        });
        let projects = listed.await?.projects;
        let found = projects.iter().find(|project| project.id == self.project);
        let Some(found) = found else {
            // The partner may be unknown, too.
            let has_partner = projects
                .iter()
                .any(|project| project.partner == self.partner);
            let of_partner = projects
                .into_iter()
                .filter(|project| !has_partner || project.partner == self.partner);
            let names: Vec<_> = of_partner.map(|project| project.id).collect();
            return Ok(Some(Unknown::new("project", &self.project, &names)));
        };
        if self.partner.is_empty() || found.partner == self.partner {
            return Ok(None);
        }
        Ok(Some(Unknown {
            instead: Some(format!(
                "project \"{}\" belongs to partner {}",
                found.id, found.partner
            )),
            ..Unknown::new("project", &self.project, &[])
        }))
    }
}

/// The ids of the realms that the caller reads; none if that cannot be found out.
async fn realms(client: &Client) -> Vec<String> {
    let request = ListRealmsRequest {
        page_size: 1000,
        page_token: String::new(),
    };
    let listed = client.ask(client.realms().list_realms(request)).await;
    let realms = listed.map(|listed| listed.realms).unwrap_or_default();
    realms.into_iter().map(|realm| realm.id).collect()
}

impl Unknown {
    fn new(what: &'static str, name: &str, existing: &[String]) -> Self {
        let nearest = nearest(name, existing.iter().map(String::as_str));
        Self {
            what,
            name: name.to_owned(),
            nearest: nearest.map(str::to_owned),
            existing: match existing.len() {
                0..=LISTED => existing.to_vec(),
                _ => Vec::new(),
            },
            instead: None,
        }
    }

    /// `no partner "acm" in demo; did you mean acme?`
    fn sentence(&self, realm: &str) -> String {
        if let Some(instead) = &self.instead {
            return instead.clone();
        }
        let Self {
            what,
            name,
            nearest,
            existing,
            instead: _,
        } = self;
        let (place, of) = match *what {
            "realm" => (String::new(), String::new()),
            _ => (format!(" in {realm}"), format!(" of {realm}")),
        };
        let mut sentence = format!("no {what} \"{name}\"{place}");
        match nearest {
            // The environments of a realm are few, and their names are not always alike: prod, production.
            Some(nearest) if *what != "environment" => {
                let _ = write!(sentence, "; did you mean {nearest}?");
            }
            _ if existing.is_empty() => {}
            _ => {
                let _ = write!(sentence, "; {what}s{of}: {}", existing.join(", "));
            }
        }
        sentence
    }

    /// The same beside the flag: `no such partner in demo. Did you mean acme?`
    fn line(&self, realm: &str) -> String {
        if let Some(instead) = &self.instead {
            return instead.clone();
        }
        let realm = text::plain(realm);
        let lists = ["environment", "scope"].contains(&self.what) && !self.existing.is_empty();
        let mut line = match self.what {
            _ if lists => format!("{realm} has: {}", self.existing.join(", ")),
            "realm" => "no such realm".to_owned(),
            what => format!("no such {what} in {realm}"),
        };
        match &self.nearest {
            Some(nearest) if self.what != "environment" => {
                let _ = write!(line, ". Did you mean {nearest}?");
            }
            _ => {}
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(what: &'static str, name: &str, existing: &[&str]) -> Unknown {
        let existing: Vec<_> = existing.iter().map(|&name| name.to_owned()).collect();
        Unknown::new(what, name, &existing)
    }

    #[test]
    fn an_unknown_name_leads_to_the_nearest_one() {
        for (unknown, sentence, line) in [
            (
                unknown("partner", "acm", &["acme", "globex"]),
                "no partner \"acm\" in demo; did you mean acme?",
                "no such partner in demo. Did you mean acme?",
            ),
            (
                unknown("partner", "zzz", &["acme", "globex"]),
                "no partner \"zzz\" in demo; partners of demo: acme, globex",
                "no such partner in demo",
            ),
            (
                unknown("environment", "prod", &["production", "staging"]),
                "no environment \"prod\" in demo; environments of demo: production, staging",
                "demo has: production, staging",
            ),
            (
                unknown("scope", "reed", &["read", "write"]),
                "no scope \"reed\" in demo; did you mean read?",
                "demo has: read, write. Did you mean read?",
            ),
            (
                unknown("project", "web", &[]),
                "no project \"web\" in demo",
                "no such project in demo",
            ),
            (
                unknown("realm", "dmeo", &["claviger", "demo"]),
                "no realm \"dmeo\"; did you mean demo?",
                "no such realm. Did you mean demo?",
            ),
        ] {
            assert_eq!(unknown.sentence("demo"), sentence);
            assert_eq!(unknown.line("demo"), line);
        }
    }

    #[test]
    fn several_unknown_names_have_a_line_each() {
        let names = Names {
            realm: "demo".to_owned(),
            ..Names::default()
        };
        let several = [
            unknown("partner", "acm", &["acme"]),
            unknown("environment", "prod", &["production", "staging"]),
        ];
        assert_eq!(
            names
                .failure("this key cannot be issued", &several)
                .to_string(),
            "error: this key cannot be issued\n\
             \x20 --partner acm        no such partner in demo. Did you mean acme?\n\
             \x20 --environment prod   demo has: production, staging\n\
             hint: did you mean --partner acme --environment production?"
        );
    }
}
