//! Issuing: what is asked for, what the realm allows, and the key that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::keys::subject;
use super::{Authority, Caller, Done, Refusal, Role, Standing, detail, giving};
use crate::domain::access::Access;
use crate::domain::event::EventKind;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::{Key, Level, LevelKind, Secret};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::realm::{Environment, Realm, scopes};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::hashing::{Peppers, random};
use crate::store::Change;

/// What is asked for in a new key.
#[derive(Debug)]
pub struct NewKey {
    /// The realm to issue it in.
    pub realm: RealmId,
    /// Its owner; none for an operator's key.
    pub partner: Option<PartnerId>,
    /// The project to bind it to.
    pub project: Option<ProjectId>,
    /// Its level, if it is said.
    pub level: Option<LevelKind>,
    /// Its environment, if it is said.
    pub environment: Option<EnvironmentName>,
    /// For people.
    pub name: String,
    /// What to grant by name, in the order of the request.
    pub scopes: Vec<ScopeName>,
    /// Whether to grant everything.
    pub full_access: bool,
    /// When it shall expire, if it is said.
    pub expires_at: Option<Timestamp>,
    /// Free words.
    pub labels: BTreeMap<String, String>,
    /// Where it may be used from.
    pub allowed_cidrs: Vec<IpNet>,
}

impl NewKey {
    /// Whether it would be a key that the role reaches, as far as that can be told before the realm is looked up.
    fn check_reach(&self, role: &Role) -> Result<(), Refusal> {
        role.may_issue(
            &self.realm,
            self.partner.as_ref(),
            self.project.as_ref(),
            self.environment.as_ref(),
        )
    }
}

impl Authority {
    /// Makes a key. Its text is in the answer and nowhere else.
    pub async fn issue_key(
        &self,
        caller: &Caller,
        new: NewKey,
    ) -> Result<Done<(Key, PlainKey)>, Refusal> {
        // Before the slow hash: who may not issue shall not make work.
        new.check_reach(&caller.role)?;
        let secret = Arc::new(SecretBytes::new(random()));
        let root = self.roots.make(Arc::clone(&secret)).await?;

        let (mut change, standing) = self.begin(caller).await?;
        new.check_reach(&standing.role)?;
        let by = Some(&standing);
        let (key, plain) = make_key(&mut change, &self.peppers, new, by, &secret).await?;
        change.insert_key(&key).await?;
        change.insert_root(key.id, &key.secrets[0], &root).await?;
        let words = issue_words(&key);
        self.finish(
            caller,
            change,
            EventKind::KeyIssued,
            subject(&key),
            words,
            (key, plain),
        )
        .await
    }
}

/// Builds the key that is asked for, if everything about it is right and `by` may give it. On the command line of the server
/// nobody asks.
pub(super) async fn make_key(
    change: &mut Change,
    peppers: &Peppers,
    new: NewKey,
    by: Option<&Standing>,
    secret: &SecretBytes,
) -> Result<(Key, PlainKey), Refusal> {
    let now = change.time();
    let realm = change
        .find_realm(&new.realm)
        .await?
        .ok_or(Refusal::NotFound("the realm"))?
        .value;
    let terms = Terms::settle(&realm, &new, now)?;
    let partner = owner(change, &new).await?;
    if let Some(project) = &new.project {
        let found = change.find_project(&new.realm, project).await?;
        if !found.is_some_and(|(found, deleted)| !deleted && found.value.partner == partner) {
            return Err(Refusal::NotFound("the project, as one of this partner,"));
        }
    }
    let id = KeyId::new(now, &random());
    let plain = PlainKey::new(&realm.prefix, &terms.environment.tag, id, secret);
    let digest =
        peppers
            .digest(change.pepper(), id, secret)
            .ok_or_else(|| Refusal::Precondition {
                reason: "PEPPER_MISSING",
                message: "the pepper file does not hold the version that is in use; put it back"
                    .to_owned(),
            })?;
    let key = Key {
        id,
        realm: new.realm,
        partner,
        level: new.project.into(),
        environment: terms.environment.name,
        name: new.name,
        hint: plain.hint(),
        access: terms.access,
        labels: new.labels,
        allowed_cidrs: new.allowed_cidrs,
        created_at: now,
        created_by: by.map(|standing| standing.key.id),
        created_revision: change.revision(),
        expires_at: terms.expires_at,
        disabled: false,
        revocation: None,
        secrets: vec![Secret {
            digest,
            created_at: now,
            expires_at: Expiry::Never,
        }],
    };
    if let Some(standing) = by {
        giving::check(standing, &realm, &key)?;
    }
    Ok((key, plain))
}

/// The partner that shall own the new key.
async fn owner(change: &mut Change, new: &NewKey) -> Result<PartnerId, Refusal> {
    let partner = new.partner.clone().unwrap_or_else(PartnerId::nobody);
    if change.find_partner(&new.realm, &partner).await?.is_some() {
        return Ok(partner);
    }
    Err(Refusal::NotFound(if new.realm.is_built_in() {
        "the partner, which is the realm that the key shall serve,"
    } else {
        "the partner"
    }))
}

/// What the realm and the request come to together.
struct Terms {
    environment: Environment,
    access: Access,
    expires_at: Expiry,
}

impl Terms {
    fn settle(realm: &Realm, new: &NewKey, now: Timestamp) -> Result<Self, Refusal> {
        let mut bad = Violations::default();
        check_level(realm, new, &mut bad);
        check_owner(realm, new, &mut bad);
        let environment = bad.check(
            "environment",
            realm.environment_or_only(new.environment.as_ref().map_or("", EnvironmentName::as_str)),
        );
        for (i, scope) in new.scopes.iter().enumerate() {
            if !realm.scopes.iter().any(|known| known.name == *scope) {
                bad.add(format!("scopes[{i}]"), "is not a scope of the realm");
            }
        }
        if new.full_access && !new.scopes.is_empty() {
            bad.add(
                "full_access",
                "includes every scope: leave out either this or the scopes",
            );
        }
        let access = if new.full_access {
            Access::Full
        } else if new.scopes.is_empty() {
            realm.unscoped_keys.access()
        } else {
            Access::Scopes(new.scopes.iter().cloned().collect::<BTreeSet<_>>())
        };
        let latest = realm.max_lifetime.map(|span| now.saturating_add(span));
        let expires_at = match (new.expires_at, latest) {
            (Some(end), _) if end <= now => {
                bad.add("expire_time", "must be in the future");
                Expiry::At(end)
            }
            (Some(end), Some(latest)) if end > latest => {
                bad.add(
                    "expire_time",
                    "is later than the realm's max_lifetime allows",
                );
                Expiry::At(end)
            }
            (end, latest) => end.or(latest).into(),
        };
        bad.finish(environment.map(|environment| Self {
            environment: environment.clone(),
            access,
            expires_at,
        }))
        .map_err(Refusal::Invalid)
    }
}

fn check_level(realm: &Realm, new: &NewKey, bad: &mut Violations) {
    let level = match (new.level, &new.project) {
        (Some(LevelKind::Partner), Some(_)) => {
            return bad.add("level", "a key with a project is a project key");
        }
        (Some(LevelKind::Project), None) => {
            return bad.add("project", "is required for a project key");
        }
        (_, Some(_)) => LevelKind::Project,
        (Some(LevelKind::Partner), None) => LevelKind::Partner,
        (None, None) => {
            if realm.levels.contains(&LevelKind::Project) {
                let (field, what) = if realm.levels.len() == 1 {
                    ("project", "is required: the realm has project keys only")
                } else {
                    (
                        "level",
                        "is required where neither the project nor the realm decides it",
                    )
                };
                return bad.add(field, what);
            }
            LevelKind::Partner
        }
    };
    if !realm.levels.contains(&level) {
        bad.add("level", "is not one that the realm allows");
    }
}

/// In the built-in realm the partner is the realm that the key serves, and only operators serve none.
fn check_owner(realm: &Realm, new: &NewKey, bad: &mut Violations) {
    if !realm.id.is_built_in() {
        if new.partner.is_none() {
            bad.add("partner", "is required");
        }
        return;
    }
    let operator = new.full_access
        || new
            .scopes
            .iter()
            .any(|scope| scope.as_str() == scopes::OPERATOR);
    match (&new.partner, operator) {
        (None, false) => bad.add("partner", "is required: the realm that the key serves"),
        (Some(_), true) => bad.add(
            "partner",
            "must be left out: an operator key serves every realm",
        ),
        _ => {}
    }
}

/// What the audit trail tells of a new key.
pub(super) fn issue_words(key: &Key) -> BTreeMap<String, String> {
    let scopes: Vec<&str> = key.access.granted().map(ScopeName::as_str).collect();
    detail([
        ("name", key.name.clone()),
        ("hint", key.hint.clone()),
        ("environment", key.environment.to_string()),
        (
            "level",
            match key.level {
                Level::Partner => "partner".to_owned(),
                Level::Project(_) => "project".to_owned(),
            },
        ),
        ("scopes", scopes.join(" ")),
        (
            "expire_time",
            Option::from(key.expires_at).map_or_else(String::new, rfc3339),
        ),
        (
            "allowed_cidrs",
            key.allowed_cidrs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        (
            "full_access",
            if key.access.is_full() {
                "true".to_owned()
            } else {
                String::new()
            },
        ),
    ])
}

/// An instant as people read it in the audit trail.
fn rfc3339(time: Timestamp) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    let since = std::time::Duration::from_micros(micros);
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + since).to_string()
}
