//! Resolving a request for a new key against its realm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::caller_state::CallerState;
use super::grants::Grant;
use super::holds::history_rewritten;
use super::secret::NewSecret;
use super::{Refusal, grants, not_found};
use crate::auth::Role;
use crate::domain::access::Access;
use crate::domain::event::Revision;
use crate::domain::hold::Holdable;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::{Key, LevelKind};
use crate::domain::key_text::PlainKey;
use crate::domain::realm::{Realm, scopes};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::hashing::{Peppers, random};
use crate::store::{Change, Snapshot};

/// How many keys a partner may have before its own keys cannot issue more.
const MAX_KEYS_BY_DELEGATES: u64 = 1_000;

/// The requested properties of a new key.
#[derive(Debug)]
pub struct NewKey {
    /// The realm of the key.
    pub realm: RealmId,
    /// The owner of the key. `None` for an operator key, and if the project names the owner.
    pub partner: Option<PartnerId>,
    /// The project of a project key.
    pub project: Option<ProjectId>,
    /// The level. `None` leaves it to the project and the realm.
    pub level: Option<LevelKind>,
    /// The environment. `None` means the realm's only environment.
    pub environment: Option<EnvironmentName>,
    /// The display name.
    pub name: String,
    /// The id that another system has for the key.
    pub external_id: Option<String>,
    /// The scopes to grant by name, in the order of the request.
    pub scopes: Vec<ScopeName>,
    /// Whether to grant full access.
    pub full_access: bool,
    /// The expiry. `None` means as late as the realm allows.
    pub expires_at: Option<Timestamp>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The client addresses from which the key may be used. Empty means all addresses.
    pub allowed_cidrs: Vec<IpNet>,
}

impl NewKey {
    /// Checks that the role reaches such a key and may set its external id. This check needs no look-up.
    pub(super) fn check_reach(&self, role: &Role) -> Result<(), Refusal> {
        role.may_issue(
            &self.realm,
            self.named_owner(Some(role)),
            self.project.as_ref(),
            self.environment.as_ref(),
        )?;
        if self.external_id.is_some() {
            role.may_set_external_ids()?;
        }
        role.may_label(&self.labels, &BTreeMap::new())?;
        Ok(())
    }

    /// The partner that the request names. A delegate that names a project can only mean its own partner.
    fn named_owner<'k>(&'k self, role: Option<&'k Role>) -> Option<&'k PartnerId> {
        match (role, &self.partner, &self.project) {
            (Some(Role::Delegate(delegate)), None, Some(_)) => Some(&delegate.partner),
            _ => self.partner.as_ref(),
        }
    }

    /// Resolves the request against its realm: checks that the request fits the realm and that the caller may issue the key, and
    /// fills in what the request leaves out. `by` is `None` on the server's command line, which has no caller.
    ///
    /// Does not check whether another key has the external id: see [`check_external_id`].
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::NotFound`], [`Refusal::Forbidden`], [`Refusal::Exceeds`], or
    /// [`Refusal::Precondition`] if the partner of a delegate has too many keys.
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
        let named = self.named_owner(by.map(|caller_state| &caller_state.role));
        let partner = match (named, &self.project) {
            (None, Some(project)) => {
                let owner = lookups.owner_of(snapshot, &self.realm, project).await?;
                owner.ok_or(Refusal::NotFound(not_found::PROJECT))?.clone()
            }
            (named, project) => {
                let partner = named.cloned().unwrap_or_else(PartnerId::nobody);
                lookups
                    .check_partner(snapshot, &self.realm, &partner)
                    .await?;
                if let Some(project) = project {
                    let owner = lookups.owner_of(snapshot, &self.realm, project).await?;
                    if owner != Some(&partner) {
                        return Err(Refusal::NotFound(not_found::PROJECT_OF_PARTNER));
                    }
                }
                partner
            }
        };
        if let Some(project) = &self.project {
            lookups
                .check_not_held(snapshot, &self.realm, project)
                .await?;
        }
        let key = Key {
            id: KeyId::new(now, &random()),
            realm: self.realm.clone(),
            partner,
            level: self.project.clone().into(),
            environment,
            name: self.name.clone(),
            external_id: self.external_id.clone(),
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
            last_use: None,
            revision: Revision::default(),
        };
        if let Some(caller_state) = by {
            grants::check(caller_state, &realm, &key, Grant::Fields)?;
            check_quota(caller_state, snapshot, &key).await?;
        }
        Ok(ResolvedKey { key, realm })
    }

    /// Returns the environment, the access and the expiry that follow from the request and the realm.
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
        // No key of the built-in realm has a project.
        if realm.id.is_built_in() || self.project.is_none() {
            check_owner(realm, self.partner.as_ref(), &access, &mut bad);
        }
        let expires_at = resolve_expiry(realm, self.expires_at, now, now, &mut bad);
        bad.finish(environment.map(|environment| (environment.name.clone(), access, expires_at)))
            .map_err(Refusal::Invalid)
    }
}

/// A key that may be issued and that has no secret yet.
pub(super) struct ResolvedKey {
    pub(super) key: Key,
    realm: Arc<Realm>,
}

/// The realms, partners and projects that requests name. Each is read once, from one state of the store.
#[derive(Default)]
pub(super) struct LookupCache {
    realms: HashMap<RealmId, Option<Arc<Realm>>>,
    partners: HashMap<(RealmId, PartnerId), bool>,
    projects: HashMap<(RealmId, ProjectId), Option<PartnerId>>,
    /// Whether anything is held.
    has_holds: Option<bool>,
}

impl ResolvedKey {
    /// Adds the first secret as part of this change. Returns the key and its API key.
    pub(super) fn with_secret(
        self,
        change: &Change,
        peppers: &Peppers,
        secret: &NewSecret,
    ) -> Result<(Key, PlainKey), Refusal> {
        let Self { mut key, realm } = self;
        key.created_revision = change.revision();
        key.revision = change.revision();
        let plain_key = secret.add_to(&mut key, &realm, change, peppers)?;
        Ok((key, plain_key))
    }
}

impl LookupCache {
    /// Takes a partner of the realm for known that the same change creates.
    pub(super) fn assume_partner(&mut self, realm: &RealmId, partner: &PartnerId) {
        self.partners.insert((realm.clone(), partner.clone()), true);
    }

    /// Reads the partners and the projects that these requests name in the realm, with a few statements for all of them.
    ///
    /// A project whose row is corrupt is left to the look-up of the request that needs it.
    pub(super) async fn read_ahead(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        requests: &[&NewKey],
    ) -> Result<(), Refusal> {
        let in_realm = || requests.iter().filter(|new| new.realm == *realm);
        let partners: HashSet<_> = in_realm().filter_map(|new| new.partner.as_ref()).collect();
        let partners: Vec<_> = partners.into_iter().collect();
        let projects: HashSet<_> = in_realm().filter_map(|new| new.project.as_ref()).collect();
        let projects: Vec<_> = projects.into_iter().collect();
        let known = snapshot.find_partners(realm, &partners).await?;
        self.partners.extend(partners.into_iter().map(|partner| {
            let is_known = known.contains(partner);
            ((realm.clone(), partner.clone()), is_known)
        }));
        let mut found = snapshot.find_projects(realm, &projects).await?;
        for project in projects {
            let owner = match found.remove(project) {
                Some(Err(_)) => continue,
                Some(Ok((row, false))) => Some(row.value.partner),
                Some(Ok((_, true))) | None => None,
            };
            self.projects
                .insert((realm.clone(), project.clone()), owner);
        }
        Ok(())
    }

    /// Returns the realm with this id.
    pub(super) async fn realm(
        &mut self,
        snapshot: &mut Snapshot,
        id: &RealmId,
    ) -> Result<Arc<Realm>, Refusal> {
        if !self.realms.contains_key(id) {
            let found = snapshot.find_realm(id).await?;
            self.realms
                .insert(id.clone(), found.map(|row| Arc::new(row.value)));
        }
        self.realms[id]
            .clone()
            .ok_or(Refusal::NotFound(not_found::REALM))
    }

    /// Checks that the realm has this partner.
    async fn check_partner(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        partner: &PartnerId,
    ) -> Result<(), Refusal> {
        let id = (realm.clone(), partner.clone());
        if !self.partners.contains_key(&id) {
            let found = snapshot.find_partner(realm, partner).await?;
            self.partners.insert(id.clone(), found.is_some());
        }
        if self.partners[&id] {
            return Ok(());
        }
        Err(Refusal::NotFound(if realm.is_built_in() {
            not_found::SERVED_REALM
        } else {
            not_found::PARTNER
        }))
    }

    /// Checks that no lost change deleted the project.
    async fn check_not_held(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        project: &ProjectId,
    ) -> Result<(), Refusal> {
        let has_holds = match self.has_holds {
            Some(known) => known,
            None => *self.has_holds.insert(snapshot.has_holds().await?),
        };
        if has_holds {
            let project = Holdable::Project(realm.clone(), project.clone());
            if snapshot.is_held(&project).await? {
                return Err(history_rewritten());
            }
        }
        Ok(())
    }

    /// Returns the owner of a project, or `None` if the project does not exist.
    async fn owner_of(
        &mut self,
        snapshot: &mut Snapshot,
        realm: &RealmId,
        project: &ProjectId,
    ) -> Result<Option<&PartnerId>, Refusal> {
        let id = (realm.clone(), project.clone());
        if !self.projects.contains_key(&id) {
            let found = snapshot.find_project(realm, project).await?;
            let owner = found.filter(|(_, deleted)| !deleted);
            self.projects
                .insert(id.clone(), owner.map(|(project, _)| project.value.partner));
        }
        Ok(self.projects[&id].as_ref())
    }
}

/// Limits how many keys a partner has if its own keys issue more, because every key takes memory in the mirror.
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
    if keys < MAX_KEYS_BY_DELEGATES {
        return Ok(());
    }
    Err(Refusal::Precondition {
        reason: "TOO_MANY_KEYS",
        message: format!(
            "the partner has {keys} keys, but its own keys issue more only while there are fewer than \
             {MAX_KEYS_BY_DELEGATES}: delete unused keys, or ask an operator to issue the key"
        ),
    })
}

/// Checks that no other key of the realm has the external id of this key.
///
/// # Errors
/// [`Refusal::ExternalIdTaken`].
pub(super) async fn check_external_id(snapshot: &mut Snapshot, key: &Key) -> Result<(), Refusal> {
    let Some(external_id) = key.external_id.as_deref() else {
        return Ok(());
    };
    let found = snapshot
        .find_external_ids(&key.realm, &[external_id])
        .await?;
    match found.get(external_id) {
        Some(holder) if *holder != key.id => Err(Refusal::ExternalIdTaken(*holder)),
        _ => Ok(()),
    }
}

/// Returns the access that these scopes grant. No scopes grant nothing.
pub(super) fn granted(
    realm: &Realm,
    scopes: &[ScopeName],
    full_access: bool,
    bad: &mut Violations,
) -> Access {
    for (i, scope) in scopes.iter().enumerate() {
        if !realm.scopes.iter().any(|known| known.name == *scope) {
            bad.add(
                format!("scopes[{i}]"),
                "is not a scope of the realm: check the spelling, or add it to the realm",
            );
        }
    }
    if full_access && !scopes.is_empty() {
        bad.add(
            "full_access",
            "includes every scope: set either `full_access` or `scopes`",
        );
    }
    if full_access {
        Access::Full
    } else {
        Access::Scopes(scopes.iter().cloned().collect::<BTreeSet<_>>())
    }
}

/// Returns the expiry of a key whose lifetime counts from `start`: the requested expiry, or the latest one that the realm allows.
pub(super) fn resolve_expiry(
    realm: &Realm,
    requested: Option<Timestamp>,
    start: Timestamp,
    now: Timestamp,
    bad: &mut Violations,
) -> Expiry {
    let latest = realm.max_lifetime.map(|span| start.saturating_add(span));
    match (requested, latest) {
        (Some(end), _) if end <= now => bad.add("expire_time", "must be in the future"),
        (_, Some(latest)) if latest <= now => bad.add(
            "expire_time",
            "cannot be changed because the key has reached the realm's `max_lifetime`: rotate the key, or issue a new one",
        ),
        (Some(end), Some(latest)) if end > latest => bad.add(
            "expire_time",
            "is later than the realm's `max_lifetime` allows: set an earlier time",
        ),
        _ => {}
    }
    requested.or(latest).into()
}

/// Checks that the requested level fits the project and is one that the realm allows.
fn check_level(realm: &Realm, new: &NewKey, bad: &mut Violations) {
    let level = match (new.level, &new.project) {
        (Some(LevelKind::Partner), Some(_)) => {
            return bad.add(
                "level",
                "must be KEY_LEVEL_PROJECT or unset because `project` is set",
            );
        }
        (Some(LevelKind::Project), None) => {
            return bad.add("project", "is required for a project key");
        }
        (_, Some(_)) => LevelKind::Project,
        (Some(LevelKind::Partner), None) => LevelKind::Partner,
        (None, None) => {
            if realm.levels.contains(&LevelKind::Project) {
                let (field, description) = if realm.levels.len() == 1 {
                    (
                        "project",
                        "is required because the realm allows only project keys",
                    )
                } else {
                    (
                        "level",
                        "is required because the realm allows both levels: set `level` to partner (KEY_LEVEL_PARTNER), or set \
                         `project`",
                    )
                };
                return bad.add(field, description);
            }
            LevelKind::Partner
        }
    };
    if !realm.levels.contains(&level) {
        let description = match level {
            LevelKind::Partner => {
                "must not be KEY_LEVEL_PARTNER because the realm allows only project keys: set `project`"
            }
            LevelKind::Project => {
                "must not be KEY_LEVEL_PROJECT because the realm allows only partner keys: leave `project` unset"
            }
        };
        bad.add("level", description);
    }
}

/// Checks that a key has an owner. In the built-in realm the owner is the realm that the key serves. An operator key and
/// the key of a reader of all realms have none.
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
    let mut granted = access.granted().map(ScopeName::as_str).peekable();
    let only_reads = granted.peek().is_some() && granted.all(|scope| scope == scopes::READ);
    match (partner, operator) {
        (None, false) if !only_reads => bad.add(
            "partner",
            "is required: set the realm that the key serves; only a key with no other scope than \"read\" may read every realm",
        ),
        (Some(_), true) => bad.add(
            "partner",
            "must be unset because a key with full access or the scope \"operator\" is an operator key, which serves every realm",
        ),
        _ => {}
    }
}
