//! Decodes the requests of `RealmAdmin`.

use std::collections::BTreeSet;

use super::gateway_rules;
use crate::authority::{ChangeRequest, PartnerDefinition, Refusal, RenameScope};
use crate::domain::access::{MAX_SCOPES, Scope};
use crate::domain::ids::{EnvironmentName, PartnerId, Prefix, ProjectId, RealmId, ScopeName, Tag};
use crate::domain::key::LevelKind;
use crate::domain::partner::Project;
use crate::domain::realm::{Environment, MAX_ENVIRONMENTS, Realm, UnscopedKeys};
use crate::domain::scope_renaming::ScopeRenaming;
use crate::domain::violation::Violations;
use crate::grpc::decode;
use crate::pb::claviger::v1 as pb;

pub(super) fn parse_change(wait: i32, request_id: &str) -> Result<ChangeRequest, Refusal> {
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, request_id);
    bad.finish(Some(change)).map_err(Refusal::Invalid)
}

pub(super) fn parse_in_realm<T>(
    realm: &str,
    field: &str,
    id: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<(RealmId, T), Refusal> {
    let mut bad = Violations::default();
    let realm = bad.check("realm", RealmId::parse(realm));
    let id = bad.check(field, parse(id));
    bad.finish(realm.zip(id)).map_err(Refusal::Invalid)
}

pub(super) fn parse_rename(
    request: pb::RenameScopeRequest,
) -> Result<(RenameScope, ChangeRequest), Refusal> {
    let pb::RenameScopeRequest {
        realm,
        scope,
        new_name,
        keep_old_scope: keep_old,
        if_revision,
        dry_run: _,
        wait,
        request_id,
    } = request;
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, &request_id);
    let realm = bad.check("realm", RealmId::parse(&realm));
    let old = bad.check("scope", ScopeName::parse(&scope));
    let new = bad.check("new_name", ScopeName::parse(&new_name));
    if new.is_some() && old == new {
        bad.add("new_name", "must differ from `scope`");
    }
    let names = old.zip(new);
    let work = realm.zip(names).map(|(realm, (old, new))| RenameScope {
        realm,
        renaming: ScopeRenaming { old, new },
        keep_old,
        if_revision,
    });
    bad.finish(work.map(|work| (work, change)))
        .map_err(Refusal::Invalid)
}

pub(in crate::grpc) fn parse_realm(
    realm: Option<pb::Realm>,
    wait: i32,
    request_id: &str,
) -> Result<(Realm, ChangeRequest), Refusal> {
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, request_id);
    let Some(realm) = bad.check("realm", realm.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Realm {
        id,
        prefix,
        environments,
        scopes,
        admin_scope,
        unscoped_keys,
        levels,
        max_cache,
        max_lifetime,
        credentials,
        routes,
        denials,
        revision: _,
        create_time: _,
        project_segments,
        lenient_paths,
        trailing_slash,
        encoded_characters,
        identity_labels,
        self_rotation,
        record_addresses,
    } = realm;
    let Some(id) = bad.check("realm.id", RealmId::parse(&id)) else {
        // Without an id it is unknown whether the caller may manage the realm, so nothing more is validated.
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let prefix = bad.check("realm.prefix", Prefix::parse(&prefix));
    let environments = parse_environments(&mut bad, environments);
    let scopes = parse_scopes(&mut bad, scopes);
    let admin_scope = decode::optional(
        &mut bad,
        "realm.admin_scope",
        &admin_scope,
        ScopeName::parse,
    );
    let unscoped_keys = bad.check("realm.unscoped_keys", parse_unscoped(unscoped_keys));
    let levels = parse_levels(&mut bad, levels);
    let max_cache = decode::span(&mut bad, "realm.max_cache", max_cache);
    let max_lifetime = decode::span(&mut bad, "realm.max_lifetime", max_lifetime);
    let credentials = gateway_rules::parse_credentials(&mut bad, credentials);
    let routes = gateway_rules::parse_routes(&mut bad, routes);
    let denials = gateway_rules::parse_denials(&mut bad, denials);
    let paths = gateway_rules::parse_paths(
        &mut bad,
        project_segments,
        lenient_paths,
        trailing_slash,
        encoded_characters,
    );
    let identity_labels = gateway_rules::parse_identity_labels(&mut bad, &identity_labels);
    let realm = prefix
        .zip(unscoped_keys)
        .map(|(prefix, unscoped_keys)| Realm {
            id,
            prefix,
            environments,
            scopes,
            admin_scope,
            unscoped_keys,
            levels,
            max_cache,
            max_lifetime: Some(max_lifetime).filter(|span| !span.is_zero()),
            credentials,
            routes,
            paths,
            denials,
            identity_labels,
            self_rotation,
            record_addresses,
        });
    // The parts of a realm are compared only if each part is valid.
    if let Some(realm) = realm.as_ref().filter(|_| bad.is_empty()) {
        realm.check(&mut bad);
    }
    bad.finish(realm.map(|realm| (realm, change)))
        .map_err(Refusal::Invalid)
}

fn parse_environments(
    bad: &mut Violations,
    environments: Vec<pb::Environment>,
) -> Vec<Environment> {
    if environments.len() > MAX_ENVIRONMENTS {
        bad.add("realm.environments", "must have at most 64 entries");
        return Vec::new();
    }
    environments
        .into_iter()
        .enumerate()
        .filter_map(|(i, pb::Environment { name, tag })| {
            let name = bad.check(
                format!("realm.environments[{i}].name"),
                EnvironmentName::parse(&name),
            );
            let tag = bad.check(format!("realm.environments[{i}].tag"), Tag::parse(&tag));
            name.zip(tag).map(|(name, tag)| Environment { name, tag })
        })
        .collect()
}

fn parse_scopes(bad: &mut Violations, scopes: Vec<pb::Scope>) -> Vec<Scope> {
    if scopes.len() > MAX_SCOPES {
        bad.add("realm.scopes", "must have at most 256 entries");
        return Vec::new();
    }
    let total: usize = scopes.iter().map(|scope| scope.implies.len()).sum();
    if total > MAX_SCOPES * MAX_SCOPES {
        bad.add(
            "realm.scopes",
            "must have at most 65,536 entries in all `implies` together",
        );
        return Vec::new();
    }
    scopes
        .into_iter()
        .enumerate()
        .filter_map(
            |(
                i,
                pb::Scope {
                    name,
                    implies,
                    description,
                    replaces,
                },
            )| {
                let name = bad.check(format!("realm.scopes[{i}].name"), ScopeName::parse(&name));
                let implies = implies
                    .iter()
                    .enumerate()
                    .filter_map(|(j, name)| {
                        bad.check(
                            format!("realm.scopes[{i}].implies[{j}]"),
                            ScopeName::parse(name),
                        )
                    })
                    .collect();
                let description =
                    decode::reason(bad, &format!("realm.scopes[{i}].description"), description);
                let replaces = decode::optional(
                    bad,
                    &format!("realm.scopes[{i}].replaces"),
                    &replaces,
                    ScopeName::parse,
                );
                name.map(|name| Scope {
                    name,
                    implies,
                    description,
                    replaces,
                })
            },
        )
        .collect()
}

fn parse_unscoped(unscoped: i32) -> Result<UnscopedKeys, &'static str> {
    match pb::UnscopedKeys::try_from(unscoped) {
        Ok(pb::UnscopedKeys::Unspecified | pb::UnscopedKeys::NoAccess) => {
            Ok(UnscopedKeys::NoAccess)
        }
        Ok(pb::UnscopedKeys::FullAccess) => Ok(UnscopedKeys::FullAccess),
        Err(_) => Err("must be UNSCOPED_KEYS_NO_ACCESS or UNSCOPED_KEYS_FULL_ACCESS"),
    }
}

fn parse_levels(bad: &mut Violations, levels: Vec<i32>) -> BTreeSet<LevelKind> {
    if levels.is_empty() {
        return BTreeSet::from([LevelKind::Partner, LevelKind::Project]);
    }
    let mut kinds = BTreeSet::new();
    if levels.len() > 2 {
        bad.add("realm.levels", "must have at most 2 entries");
        return kinds;
    }
    for (i, level) in levels.into_iter().enumerate() {
        let field = format!("realm.levels[{i}]");
        if level == i32::from(pb::KeyLevel::Unspecified) {
            // If the entry were ignored, a list without other entries would mean both levels.
            bad.add(field, "must be KEY_LEVEL_PARTNER or KEY_LEVEL_PROJECT");
        } else {
            kinds.extend(decode::level(bad, &field, level));
        }
    }
    kinds
}

pub(in crate::grpc) fn parse_partner(
    partner: Option<pb::Partner>,
    wait: i32,
    request_id: &str,
) -> Result<(PartnerDefinition, ChangeRequest), Refusal> {
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, request_id);
    let Some(partner) = bad.check("partner", partner.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Partner {
        realm,
        id,
        display_name,
        suspended,
        revision: _,
        create_time: _,
    } = partner;
    let realm = bad.check("partner.realm", RealmId::parse(&realm));
    let id = bad.check("partner.id", PartnerId::parse(&id));
    let display_name = decode::name(&mut bad, "partner.display_name", display_name);
    let partner = realm.zip(id).map(|(realm, id)| PartnerDefinition {
        realm,
        id,
        display_name,
        suspended,
    });
    bad.finish(partner.map(|partner| (partner, change)))
        .map_err(Refusal::Invalid)
}

pub(in crate::grpc) fn parse_project(
    project: Option<pb::Project>,
    wait: i32,
    request_id: &str,
) -> Result<(Project, ChangeRequest), Refusal> {
    let mut bad = Violations::default();
    let change = decode::change(&mut bad, wait, request_id);
    let Some(project) = bad.check("project", project.ok_or("is required")) else {
        return bad.finish(None).map_err(Refusal::Invalid);
    };
    let pb::Project {
        realm,
        id,
        partner,
        display_name,
        revision: _,
        create_time: _,
    } = project;
    let realm = bad.check("project.realm", RealmId::parse(&realm));
    let id = bad.check("project.id", ProjectId::parse(&id));
    let partner = bad.check("project.partner", PartnerId::parse(&partner));
    let display_name = decode::name(&mut bad, "project.display_name", display_name);
    let project = realm
        .zip(id)
        .zip(partner)
        .map(|((realm, id), partner)| Project {
            realm,
            id,
            partner,
            display_name,
        });
    bad.finish(project.map(|project| (project, change)))
        .map_err(Refusal::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_levels_mean_both_and_an_unspecified_level_is_an_error() {
        let mut bad = Violations::default();
        assert_eq!(parse_levels(&mut bad, Vec::new()).len(), 2);
        assert_eq!(
            parse_levels(&mut bad, vec![2]),
            BTreeSet::from([LevelKind::Project])
        );
        assert!(bad.is_empty());
        assert!(parse_levels(&mut bad, vec![0]).is_empty());
        assert!(!bad.is_empty());
    }
}
