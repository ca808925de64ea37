//! What a check of Explain compared, in words. Only operators see it.
//!
//! A text that came with the client's request, such as the partner that it names, may be an API key in the wrong place. So a finding
//! repeats it only if it names something that the realm has.

use crate::domain::time::Expiry;
use crate::domain::verdict::Verdict;
use crate::mirror::{KeyFacts, MirroredSecret};
use crate::verify::{Question, Target};

/// Returns what speaks for an objection to a proven key, or against it. Empty if there is nothing to add.
pub(super) fn finding(
    objection: Verdict,
    applies: bool,
    question: &Question<'_>,
    (key, secret): (KeyFacts<'_>, MirroredSecret),
) -> String {
    match objection {
        Verdict::Revoked if applies => "the key is revoked".to_owned(),
        Verdict::Disabled if applies => "the key is disabled".to_owned(),
        Verdict::PartnerSuspended if applies => {
            format!("the partner {} is suspended", key.partner().id)
        }
        Verdict::Expired => expiry(applies, key, secret),
        Verdict::EnvironmentMismatch if applies => format!(
            "the key is for {}, the request is to {}",
            key.environment(),
            question.environment
        ),
        Verdict::PartnerMismatch if applies => format!(
            "the key belongs to {}, the request names another partner",
            key.partner().id
        ),
        Verdict::ProjectMismatch if applies => project(key, question),
        Verdict::AddressDenied => address(applies, key, question),
        Verdict::ScopeMissing => scopes(key, question),
        _ => String::new(),
    }
}

fn expiry(applies: bool, key: KeyFacts<'_>, secret: MirroredSecret) -> String {
    match (key.expires_at(), secret.expires_at) {
        (Expiry::Never, Expiry::Never) => "the key never expires".to_owned(),
        (key, Expiry::At(end)) if key != Expiry::At(end) => {
            let tense = if applies { "expired" } else { "expires" };
            format!(
                "a rotation replaced this API key, which {tense} at {}",
                end.rfc3339()
            )
        }
        (Expiry::At(end), _) | (_, Expiry::At(end)) => {
            let tense = if applies { "expired" } else { "expires" };
            format!("the key {tense} at {}", end.rfc3339())
        }
    }
}

fn project(key: KeyFacts<'_>, question: &Question<'_>) -> String {
    let reach = key.project().map_or_else(
        || "the key is a partner key".to_owned(),
        |project| format!("the key is bound to the project {project}"),
    );
    let named = match question.target {
        Target::Project(wanted) => Some(wanted),
        Target::Partner | Target::OwnProject | Target::Any | Target::NoRoute => None,
    };
    let level = match (question.target, key.project()) {
        (Target::Partner, Some(_)) => Some("a partner key"),
        (Target::OwnProject, None) => Some("a key that is bound to a project"),
        _ => None,
    };
    if let Some(level) = level {
        return format!("{reach}, the request needs {level}");
    }
    let partner = &key.partner().id;
    let mut named = named.into_iter().chain(question.projects.iter().copied());
    match named.find(|wanted| key.project().is_none_or(|own| own.as_str() != *wanted)) {
        Some(other) if question.realm.owns(partner, other) => {
            format!("{reach}, the request names the project {other}")
        }
        _ => format!("{reach}, the request names a project that {partner} does not have"),
    }
}

fn address(applies: bool, key: KeyFacts<'_>, question: &Question<'_>) -> String {
    let ranges: Vec<_> = key
        .allowed_cidrs()
        .iter()
        .map(ToString::to_string)
        .collect();
    let ranges = ranges.join(", ");
    match question.client {
        _ if ranges.is_empty() => "the key may be used from every address".to_owned(),
        None => format!(
            "the client's address is not known, and the key may only be used from {ranges}: check client_ip, or the trusted hops of \
             the gateway"
        ),
        Some(client) if applies => format!("{client} is in none of {ranges}"),
        Some(client) => format!("{client} is in one of {ranges}"),
    }
}

fn scopes(key: KeyFacts<'_>, question: &Question<'_>) -> String {
    let hierarchy = &question.realm.hierarchy;
    let list = |set| {
        let names: Vec<_> = hierarchy.names(set).map(ToString::to_string).collect();
        names.join(", ")
    };
    let held = list(key.effective(hierarchy));
    let held = match held.as_str() {
        "" => "no scope",
        held => held,
    };
    let needs = match (question.scopes.is_empty(), question.any_scopes.is_empty()) {
        (true, true) => return "the request needs no scope".to_owned(),
        (false, true) => list(question.scopes),
        (true, false) => format!("one of {}", list(question.any_scopes)),
        (false, false) => format!(
            "{}, and one of {}",
            list(question.scopes),
            list(question.any_scopes)
        ),
    };
    format!("the key has {held}; the request needs {needs}")
}
