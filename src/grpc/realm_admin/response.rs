//! Encodes the answers of `RealmAdmin`.

use super::gateway_rules;
use crate::domain::access::Scope;
use crate::domain::ids::{ProjectId, ScopeName};
use crate::domain::partner::{Partner, Project};
use crate::domain::realm::{Environment, Realm, UnscopedKeys};
use crate::grpc::encode::{level, scope_names, span, time};
use crate::pb::claviger::v1 as pb;
use crate::store::{PartnerRow, ProjectRow, RealmRow};

pub(in crate::grpc) fn realm(row: RealmRow) -> pb::Realm {
    let self_rotation = row.value.has_self_rotation();
    let Realm {
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
        paths,
        denials,
        identity_labels,
        self_rotation: _,
        record_addresses,
    } = row.value;
    pb::Realm {
        id: id.to_string(),
        prefix: prefix.to_string(),
        environments: environments
            .into_iter()
            .map(|Environment { name, tag }| pb::Environment {
                name: name.to_string(),
                tag: tag.to_string(),
            })
            .collect(),
        scopes: scopes
            .into_iter()
            .map(
                |Scope {
                     name,
                     implies,
                     description,
                     replaces,
                 }| pb::Scope {
                    name: name.to_string(),
                    implies: scope_names(&implies),
                    description,
                    replaces: replaces
                        .as_ref()
                        .map(ScopeName::to_string)
                        .unwrap_or_default(),
                },
            )
            .collect(),
        admin_scope: admin_scope
            .as_ref()
            .map(ScopeName::to_string)
            .unwrap_or_default(),
        unscoped_keys: match unscoped_keys {
            UnscopedKeys::NoAccess => pb::UnscopedKeys::NoAccess,
            UnscopedKeys::FullAccess => pb::UnscopedKeys::FullAccess,
        }
        .into(),
        levels: levels.into_iter().map(|kind| level(kind).into()).collect(),
        max_cache: Some(span(max_cache)),
        max_lifetime: Some(span(max_lifetime.unwrap_or_default())),
        credentials: gateway_rules::credentials(credentials),
        routes: routes.into_iter().map(gateway_rules::route).collect(),
        denials: gateway_rules::denials(denials),
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
        project_segments: paths.project_segments,
        lenient_paths: paths.lenient,
        trailing_slash: gateway_rules::trailing_slash(paths.trailing_slash).into(),
        encoded_characters: gateway_rules::encoded_characters(paths.encoded_characters).into(),
        identity_labels: identity_labels
            .iter()
            .map(|label| label.name().to_owned())
            .collect(),
        self_rotation,
        record_addresses,
    }
}

pub(in crate::grpc) fn partner(row: PartnerRow) -> pb::Partner {
    let Partner {
        realm,
        id,
        display_name,
        suspended,
    } = row.value;
    pb::Partner {
        realm: realm.to_string(),
        id: id.to_string(),
        display_name,
        suspended: Some(suspended),
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
    }
}

pub(in crate::grpc) fn project(row: ProjectRow) -> pb::Project {
    let Project {
        realm,
        id,
        partner,
        display_name,
    } = row.value;
    pb::Project {
        realm: realm.to_string(),
        id: ProjectId::to_string(&id),
        partner: partner.to_string(),
        display_name,
        revision: row.revision.as_u64(),
        create_time: Some(time(row.created_at)),
    }
}
