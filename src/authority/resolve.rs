//! Resolving a request for a new key against its realm.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::caller_state::CallerState;
use super::secret::NewSecret;
use super::{Refusal, grants};
use crate::auth::Role;
use crate::domain::access::Access;
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::{Key, LevelKind};
use crate::domain::key_text::PlainKey;
use crate::domain::realm::{Realm, scopes};
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
    /// Whether the role reaches such a key, as far as that can be told before the realm is looked up.
    pub(super) fn check_reach(&self, role: &Role) -> Result<(), Refusal> {
        Ok(role.may_issue(
            &self.realm,
            self.partner.as_ref(),
            self.project.as_ref(),
            self.environment.as_ref(),
        )?)
    }

    /// The key that is asked for, if the request fits the realm and `by` may issue it. On the command line of the server there is
    /// no caller.
    pub(super) async fn resolve(
        &self,
        by: Option<&CallerState>,
        snapshot: &mut Snapshot,
        lookups: &mut LookupCache,
        now: Timestamp,
    ) -> Result<ResolvedKey, Refusal> {
        if let Some(caller_state) = by {
            self.check_reach(&caller_state.role)?;
        }
        let realm = lookups.realm(snapshot, &self.realm).await?;
        let (environment, access, expires_at) = self.resolve_in_realm(&realm, now)?;
        let partner = lookups.owner(snapshot, self).await?;
        if let Some(project) = &self.project {
            let owner = lookups.owner_of(snapshot, &self.realm, project).await?;
            if owner != Some(&partner) {
                return Err(Refusal::NotFound("the project, as one of this partner,"));
            }
        }
        let key = Key {
            id: KeyId::new(now, &random()),
            realm: self.realm.clone(),
            partner,
            level: self.project.clone().into(),
            environment,
            name: self.name.clone(),
            hint: String::new(),
            access,
            labels: self.labels.clone(),
            allowed_cidrs: self.allowed_cidrs.clone(),
            created_at: now,
            created_by: by.map(|caller_state| caller_state.key.id),
            created_revision: Revision::default(),
            expires_at,
            disabled: false,
            withheld: false,
            revocation: None,
            secrets: Vec::new(),
            last_used_at: None,
        };
        if let Some(caller_state) = by {
            grants::check(caller_state, &realm, &key)?;
            check_quota(caller_state, snapshot, &key).await?;
        }
        Ok(ResolvedKey { key, realm })
    }

    /// The environment, the access and the expiry that follow from the request and the realm together.
    fn resolve_in_realm(
        &self,
        realm: &Realm,
        now: Timestamp,
    ) -> Result<(EnvironmentName, Access, Expiry), Refusal> {
        let mut bad = Violations::default();
        check_level(realm, self, &mut bad);
        let environment = bad.check(
            "environment",
            realm.environment_or_only(
                self.environment
                    .as_ref()
                    .map_or("", EnvironmentName::as_str),
            ),
        );
        let access = if self.scopes.is_empty() && !self.full_access {
            realm.unscoped_keys.access()
        } else {
            granted(realm, &self.scopes, self.full_access, &mut bad)
        };
        check_owner(realm, self.partner.as_ref(), &access, &mut bad);
        let expires_at = resolve_expiry(realm, self.expires_at, now, now, &mut bad);
        bad.finish(environment.map(|environment| (environment.name.clone(), access, expires_at)))
            .map_err(Refusal::Invalid)
    }
}

/// A key that may be issued and has no secret yet.
pub(super) struct ResolvedKey {
    pub(super) key: Key,
    pub(super) realm: Realm,
}

/// The realms, partners and projects that requests name, each looked up once in one state of the store.
#[derive(Default)]
pub(super) struct LookupCache {
    realms: HashMap<RealmId, Option<Realm>>,
    partners: HashMap<(RealmId, PartnerId), bool>,
    projects: HashMap<(RealmId, ProjectId), Option<PartnerId>>,
}

impl ResolvedKey {
    /// The key with its first secret, as part of this change, and the API key that carries the secret.
    pub(super) fn with_secret(
        self,
        change: &Change,
        peppers: &Peppers,
        secret: &NewSecret,
    ) -> Result<(Key, PlainKey), Refusal> {
        let Self { mut key, realm } = self;
        key.created_revision = change.revision();
        let plain_key = secret.add_to(&mut key, &realm, change, peppers)?;
        Ok((key, plain_key))
    }
}

impl LookupCache {
    /// The realm of this id.
    pub(super) async fn realm(
        &mut self,
        snapshot: &mut Snapshot,
        id: &RealmId,
    ) -> Result<Realm, Refusal> {
        if !self.realms.contains_key(id) {
            let found = snapshot.find_realm(id).await?;
            self.realms.insert(id.clone(), found.map(|row| row.value));
        }
        self.realms[id]
            .clone()
            .ok_or(Refusal::NotFound("the realm"))
    }

    /// The partner that shall own the new key.
    async fn owner(&mut self, snapshot: &mut Snapshot, new: &NewKey) -> Result<PartnerId, Refusal> {
        let partner = new.partner.clone().unwrap_or_else(PartnerId::nobody);
        let named = (new.realm.clone(), partner.clone());
        if !self.partners.contains_key(&named) {
            let found = snapshot.find_partner(&new.realm, &partner).await?;
            self.partners.insert(named.clone(), found.is_some());
        }
        if self.partners[&named] {
            return Ok(partner);
        }
        Err(Refusal::NotFound(if new.realm.is_built_in() {
            "the partner, which is the realm that the key shall serve,"
        } else {
            "the partner"
        }))
    }

    /// The owner of a project that is there.
    async fn owner_of(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        project: &ProjectId,
    ) -> Result<Option<&PartnerId>, Refusal> {
        let named = (realm.clone(), project.clone());
        if !self.projects.contains_key(&named) {
            let found = snapshot.find_project(realm, project).await?;
            let owner = found.filter(|(_, deleted)| !deleted);
            self.projects.insert(
                named.clone(),
                owner.map(|(project, _)| project.value.partner),
            );
        }
        Ok(self.projects[&named].as_ref())
    }
}

/// Bounds how many keys a partner has when its own keys issue more, since every key takes memory in the mirror.
async fn check_quota(
    caller_state: &CallerState,
    snapshot: &mut Snapshot,
    key: &Key,
) -> Result<(), Refusal> {
    if !matches!(caller_state.role, Role::Delegate(_)) {
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

/// The access that these scopes grant. No scopes grant nothing.
pub(super) fn granted(
    realm: &Realm,
    scopes: &[ScopeName],
    full_access: bool,
    bad: &mut Violations,
) -> Access {
    for (i, scope) in scopes.iter().enumerate() {
        if !realm.scopes.iter().any(|known| known.name == *scope) {
            bad.add(format!("scopes[{i}]"), "is not a scope of the realm");
        }
    }
    if full_access && !scopes.is_empty() {
        bad.add(
            "full_access",
            "includes every scope: leave out either this or the scopes",
        );
    }
    if full_access {
        Access::Full
    } else {
        Access::Scopes(scopes.iter().cloned().collect::<BTreeSet<_>>())
    }
}

/// The expiry of a key that was or is issued at `issued_at`: the requested one, or the latest that the realm allows.
pub(super) fn resolve_expiry(
    realm: &Realm,
    asked: Option<Timestamp>,
    issued_at: Timestamp,
    now: Timestamp,
    bad: &mut Violations,
) -> Expiry {
    let latest = realm
        .max_lifetime
        .map(|span| issued_at.saturating_add(span));
    match (asked, latest) {
        (Some(end), _) if end <= now => bad.add("expire_time", "must be in the future"),
        (_, Some(latest)) if latest <= now => bad.add(
            "expire_time",
            "cannot be later: the key is as old as the realm's max_lifetime allows",
        ),
        (Some(end), Some(latest)) if end > latest => bad.add(
            "expire_time",
            "is later than the realm's max_lifetime allows",
        ),
        _ => {}
    }
    asked.or(latest).into()
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
pub(super) fn check_owner(
    realm: &Realm,
    partner: Option<&PartnerId>,
    access: &Access,
    bad: &mut Violations,
) {
    if !realm.id.is_built_in() {
        if partner.is_none() {
            bad.add("partner", "is required");
        }
        return;
    }
    let operator = access.is_full()
        || access
            .granted()
            .any(|scope| scope.as_str() == scopes::OPERATOR);
    match (partner, operator) {
        (None, false) => bad.add("partner", "is required: the realm that the key serves"),
        (Some(_), true) => bad.add(
            "partner",
            "must be left out: an operator key serves every realm",
        ),
        _ => {}
    }
}
