//! The filter of a list of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::QueryBuilder;

use super::stored;
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::KeyState;
use crate::domain::time::Timestamp;

/// A filter for keys, and the position of a page. A key matches if it meets all conditions.
#[derive(Clone, Debug)]
pub struct KeyFilter {
    /// The key belongs to this realm.
    pub realm: RealmId,
    /// The key belongs to this partner.
    pub partner: Option<PartnerId>,
    /// The key is bound to this project.
    pub project: Option<ProjectId>,
    /// The key belongs to this environment.
    pub environment: Option<EnvironmentName>,
    /// The key has this external id.
    pub external_id: Option<String>,
    /// The key was issued before this revision.
    pub issued_before: Option<Revision>,
    /// The key was issued at this time or later.
    pub issued_from: Option<Timestamp>,
    /// The key was issued before this time.
    pub issued_until: Option<Timestamp>,
    /// The name of the key contains this text. ASCII letters match in either case.
    pub name: Option<String>,
    /// The key has each of these labels with this value.
    pub labels: BTreeMap<String, String>,
    /// The hint of one of the key's secrets contains this text.
    pub hint: Option<String>,
    /// The key was granted this scope by name.
    pub scope: Option<ScopeName>,
    /// The key was issued with this key.
    pub created_by: Option<KeyId>,
    /// The key is in one of these states at `now`. Empty: any state.
    pub states: BTreeSet<KeyState>,
    /// The key was not used for this time, and was issued longer ago.
    pub unused_for: Option<Duration>,
    /// The key has no expiry.
    pub never_expires: bool,
    /// The key expires after `now` and within this time from `now`.
    pub expires_within: Option<Duration>,
    /// The key has no expiry, or one that is later than `max_lifetime` after its issue or its latest rotation. No key matches
    /// without a `max_lifetime`.
    pub beyond_max_lifetime: bool,
    /// The realm's `max_lifetime`.
    pub max_lifetime: Option<Duration>,
    /// The time for the conditions above.
    pub now: Timestamp,
    /// The id sorts before this one, the last of the previous page.
    pub before: Option<KeyId>,
    /// The maximum number of keys.
    pub limit: u32,
}

/// The time and the reason of the first bulk revocation that applies to the key `k`, separated by a space, or NULL.
///
/// As a subquery with a value, it is evaluated once for each key; as a join, PostgreSQL may evaluate it for each pair of a key and a
/// rule.
macro_rules! bulk_revocation {
    // The rules with these names that apply to the key: all columns of the index, so that no plan reads other rules.
    (@rules $partner:literal, $project:literal, $environment:literal) => {
        concat!(
            "SELECT b.revision, b.time, b.reason FROM revocations AS b WHERE b.realm = k.realm AND b.partner = ",
            $partner,
            " AND b.project = ",
            $project,
            " AND b.environment = ",
            $environment,
            " AND b.before_revision > k.created_revision"
        )
    };
    () => {
        concat!(
            "(SELECT b.time || ' ' || b.reason FROM (",
            $crate::store::key_filter::bulk_revocation!(@rules "''", "''", "''"),
            " UNION ALL ",
            $crate::store::key_filter::bulk_revocation!(@rules "''", "''", "k.environment"),
            " UNION ALL ",
            $crate::store::key_filter::bulk_revocation!(@rules "k.partner", "''", "''"),
            " UNION ALL ",
            $crate::store::key_filter::bulk_revocation!(@rules "k.partner", "''", "k.environment"),
            " UNION ALL ",
            $crate::store::key_filter::bulk_revocation!(@rules "k.partner", "k.project", "''"),
            " UNION ALL ",
            $crate::store::key_filter::bulk_revocation!(@rules "k.partner", "k.project", "k.environment"),
            ") AS b ORDER BY b.revision LIMIT 1)"
        )
    };
}
pub(super) use bulk_revocation;

impl KeyFilter {
    /// A filter for all keys of a realm.
    pub fn new(realm: RealmId, now: Timestamp, limit: u32) -> Self {
        Self {
            realm,
            partner: None,
            project: None,
            environment: None,
            external_id: None,
            issued_before: None,
            issued_from: None,
            issued_until: None,
            name: None,
            labels: BTreeMap::new(),
            hint: None,
            scope: None,
            created_by: None,
            states: BTreeSet::new(),
            unused_for: None,
            never_expires: false,
            expires_within: None,
            beyond_max_lifetime: false,
            max_lifetime: None,
            now,
            before: None,
            limit,
        }
    }

    /// Adds all conditions except the position of the page.
    pub(super) fn push_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> String: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
        for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        query
            .push(" WHERE k.realm = ")
            .push_bind(self.realm.to_string());
        if let Some(partner) = &self.partner {
            query
                .push(" AND k.partner = ")
                .push_bind(partner.to_string());
        }
        if let Some(project) = &self.project {
            query
                .push(" AND k.project = ")
                .push_bind(project.to_string());
        }
        if let Some(environment) = &self.environment {
            query
                .push(" AND k.environment = ")
                .push_bind(environment.to_string());
        }
        if let Some(external_id) = &self.external_id {
            query
                .push(" AND k.external_id = ")
                .push_bind(external_id.clone());
        }
        if let Some(before) = self.issued_before {
            query
                .push(" AND k.created_revision < ")
                .push_bind(stored(before));
        }
        if let Some(from) = self.issued_from {
            query
                .push(" AND k.created_at >= ")
                .push_bind(from.as_micros());
        }
        if let Some(until) = self.issued_until {
            query
                .push(" AND k.created_at < ")
                .push_bind(until.as_micros());
        }
        self.push_texts_to(query);
        if !self.states.is_empty() {
            // The same order as `Key::state`.
            query
                .push(concat!(
                    " AND CASE WHEN k.revoked_at IS NOT NULL OR ",
                    bulk_revocation!(),
                    " IS NOT NULL THEN 'revoked' WHEN k.disabled THEN 'disabled' WHEN k.expires_at <= "
                ))
                .push_bind(self.now.as_micros())
                .push(" THEN 'expired' ELSE 'active' END IN (");
            let mut states = query.separated(", ");
            for state in &self.states {
                states.push(match state {
                    KeyState::Active => "'active'",
                    KeyState::Disabled => "'disabled'",
                    KeyState::Expired => "'expired'",
                    KeyState::Revoked => "'revoked'",
                });
            }
            query.push(")");
        }
        if let Some(unused_for) = self.unused_for {
            let since = self.now.saturating_sub(unused_for).as_micros();
            query
                .push(" AND k.created_at < ")
                .push_bind(since)
                .push(" AND NOT EXISTS (SELECT 1 FROM uses AS u WHERE u.key_id = k.id AND u.last_used_at >= ")
                .push_bind(since)
                .push(")");
        }
        if self.never_expires {
            query.push(" AND k.expires_at IS NULL");
        }
        if let Some(expires_within) = self.expires_within {
            query
                .push(" AND k.expires_at > ")
                .push_bind(self.now.as_micros())
                .push(" AND k.expires_at <= ")
                .push_bind(self.now.saturating_add(expires_within).as_micros());
        }
        self.push_lifetime_to(query);
    }

    /// Adds the condition on the realm's `max_lifetime`.
    fn push_lifetime_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        if !self.beyond_max_lifetime {
            return;
        }
        let Some(span) = self.max_lifetime else {
            query.push(" AND 1 = 0");
            return;
        };
        // Each secret has a root with the time of its creation. Subtracted, because a sum could be too large for the type.
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        query
            .push(" AND (k.expires_at IS NULL OR k.expires_at - ")
            .push_bind(micros.min(Timestamp::MAX.as_micros()))
            .push(
                " > coalesce((SELECT max(r.created_at) FROM roots AS r WHERE r.key_id = k.id), k.created_at))",
            );
    }

    /// Adds the conditions on texts. `replace` looks for a text byte by byte in both engines. `LIKE` does not: it has patterns, and
    /// only SQLite ignores the case.
    fn push_texts_to<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: sqlx::Database,
        for<'q> String: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    {
        if let Some(name) = &self.name {
            // Both engines change only ASCII letters here.
            query
                .push(" AND replace(lower(k.name), ")
                .push_bind(name.to_ascii_lowercase())
                .push(", '') <> lower(k.name)");
        }
        if let Some(hint) = &self.hint {
            query
                .push(" AND replace(k.hint, ")
                .push_bind(hint.clone())
                .push(", '') <> k.hint");
        }
        if let Some(scope) = &self.scope {
            // An entry of a JSON list. No name of a scope contains a quotation mark.
            query
                .push(" AND replace(k.scopes, ")
                .push_bind(format!("\"{scope}\""))
                .push(", '') <> k.scopes");
        }
        if let Some(creator) = self.created_by {
            query
                .push(" AND k.created_by = ")
                .push_bind(creator.to_string());
        }
        for (name, value) in &self.labels {
            // In JSON, a quotation mark within a text follows a backslash. So this is a label and not a part of one.
            let json = |text: &String| serde_json::Value::from(text.as_str()).to_string();
            let pair = format!("{}:{}", json(name), json(value));
            query
                .push(" AND (replace(k.labels, ")
                .push_bind(format!("{{{pair}"))
                .push(", '') <> k.labels OR replace(k.labels, ")
                .push_bind(format!(",{pair}"))
                .push(", '') <> k.labels)");
        }
    }

    /// Whether the database may have to look at many keys for each one that matches.
    pub(super) fn is_search(&self) -> bool {
        self.name.is_some()
            || self.hint.is_some()
            || self.scope.is_some()
            || self.created_by.is_some()
            || !self.labels.is_empty()
            || self.issued_from.is_some()
            || self.issued_until.is_some()
            || !self.states.is_empty()
            || self.unused_for.is_some()
            || self.never_expires
            || self.expires_within.is_some()
            || self.beyond_max_lifetime
            || self.environment.is_some()
    }
}
