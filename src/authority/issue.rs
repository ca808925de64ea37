//! Issuing: what is asked for, what the realm allows, and the key that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::keys::subject;
use super::{Authority, Caller, Done, Refusal, Role, Standing, detail, giving};
use crate::domain::access::Access;
use crate::domain::event::{EventKind, Revision};
use crate::domain::ids::{
    EnvironmentName, KeyId, PartnerId, Prefix, ProjectId, RealmId, ScopeName, Tag,
};
use crate::domain::key::{Key, Level, LevelKind, Secret};
use crate::domain::key_text::{PlainKey, SecretBytes};
use crate::domain::realm::{Environment, Realm, scopes};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::hashing::{Peppers, random};
use crate::store::{Change, Snapshot};

/// How many keys a partner may have for its own keys to make another.
const MOST_KEYS_BY_DELEGATES: u64 = 1_000;

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
        // Asked twice: before the slow hash, so that what is refused makes no work, and within the change, where it counts.
        new.check_reach(&caller.role)?;
        let now = self.clock.now();
        let mut snapshot = self.store.snapshot().await?;
        let standing = Standing::reread(&mut snapshot, &caller.holder, now).await?;
        Draft::of(&new, Some(&standing), &mut snapshot, now).await?;
        drop(snapshot);
        let secret = Arc::new(SecretBytes::new(random()));
        let root = self.roots.make(Arc::clone(&secret)).await?;

        let (mut change, standing) = self.begin(caller).await?;
        let now = change.time();
        let draft = Draft::of(&new, Some(&standing), &mut change, now).await?;
        let (key, plain) = draft.seal(&change, &self.peppers, &secret)?;
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

/// A key that may be made, and has no secret yet.
pub(super) struct Draft {
    key: Key,
    prefix: Prefix,
    tag: Tag,
}

impl Draft {
    /// The key that is asked for, if everything about it is right and `by` may give it. On the command line of the server
    /// nobody asks.
    pub(super) async fn of(
        new: &NewKey,
        by: Option<&Standing>,
        snapshot: &mut Snapshot,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        if let Some(standing) = by {
            new.check_reach(&standing.role)?;
        }
        let realm = snapshot
            .find_realm(&new.realm)
            .await?
            .ok_or(Refusal::NotFound("the realm"))?
            .value;
        let terms = Terms::settle(&realm, new, now)?;
        let partner = owner(snapshot, new).await?;
        if let Some(project) = &new.project {
            let found = snapshot.find_project(&new.realm, project).await?;
            if !found.is_some_and(|(found, deleted)| !deleted && found.value.partner == partner) {
                return Err(Refusal::NotFound("the project, as one of this partner,"));
            }
        }
        let key = Key {
            id: KeyId::new(now, &random()),
            realm: new.realm.clone(),
            partner,
            level: new.project.clone().into(),
            environment: terms.environment.name,
            name: new.name.clone(),
            hint: String::new(),
            access: terms.access,
            labels: new.labels.clone(),
            allowed_cidrs: new.allowed_cidrs.clone(),
            created_at: now,
            created_by: by.map(|standing| standing.key.id),
            created_revision: Revision::default(),
            expires_at: terms.expires_at,
            disabled: false,
            withheld: false,
            revocation: None,
            secrets: Vec::new(),
            last_used_at: None,
        };
        if let Some(standing) = by {
            giving::check(standing, &realm, &key)?;
            check_room(standing, snapshot, &key).await?;
        }
        Ok(Self {
            key,
            prefix: realm.prefix,
            tag: terms.environment.tag,
        })
    }

    /// The key with its secret, as part of this change.
    pub(super) fn seal(
        self,
        change: &Change,
        peppers: &Peppers,
        secret: &SecretBytes,
    ) -> Result<(Key, PlainKey), Refusal> {
        let Self { key, prefix, tag } = self;
        let plain = PlainKey::new(&prefix, &tag, key.id, secret);
        let digest = peppers
            .digest(change.pepper(), key.id, secret)
            .ok_or_else(|| Refusal::Precondition {
                reason: "PEPPER_MISSING",
                message: "the pepper file does not hold the version that is in use; put it back"
                    .to_owned(),
            })?;
        let key = Key {
            hint: plain.hint(),
            created_revision: change.revision(),
            secrets: vec![Secret {
                digest,
                created_at: key.created_at,
                expires_at: Expiry::Never,
                imported: false,
                last_used_at: None,
            }],
            ..key
        };
        Ok((key, plain))
    }
}

/// Bounds what a partner can fill the authority's memory with by keys of its own.
async fn check_room(
    standing: &Standing,
    snapshot: &mut Snapshot,
    key: &Key,
) -> Result<(), Refusal> {
    if !matches!(standing.role, Role::Delegate(_)) {
        return Ok(());
    }
    let keys = snapshot
        .count_keys(&key.realm, Some(&key.partner), None)
        .await?;
    if keys < MOST_KEYS_BY_DELEGATES {
        return Ok(());
    }
    Err(Refusal::Precondition {
        reason: "TOO_MANY_KEYS",
        message: format!(
            "the partner has {keys} keys, and by its own keys it makes no more than {MOST_KEYS_BY_DELEGATES}: delete some \
             that are of no use any more, or ask those who run the API"
        ),
    })
}

/// The partner that shall own the new key.
async fn owner(snapshot: &mut Snapshot, new: &NewKey) -> Result<PartnerId, Refusal> {
    let partner = new.partner.clone().unwrap_or_else(PartnerId::nobody);
    if snapshot.find_partner(&new.realm, &partner).await?.is_some() {
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
