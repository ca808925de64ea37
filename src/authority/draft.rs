//! Drafts: what is asked for in a new key and what the realm allows, come to one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Refusal, Role, Standing, giving};
use crate::domain::access::Access;
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, KeyId, PartnerId, ProjectId, RealmId, ScopeName};
use crate::domain::key::{Key, LevelKind};
use crate::domain::realm::{Environment, Realm, scopes};
use crate::domain::time::{Expiry, Timestamp};
use crate::domain::violation::Violations;
use crate::hashing::random;
use crate::store::Snapshot;

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
    pub(super) fn check_reach(&self, role: &Role) -> Result<(), Refusal> {
        role.may_issue(
            &self.realm,
            self.partner.as_ref(),
            self.project.as_ref(),
            self.environment.as_ref(),
        )
    }
}

/// A key that may be made, and has no secret yet.
pub(super) struct Draft {
    pub(super) key: Key,
    pub(super) realm: Realm,
}

/// What drafts depend on, looked up once within one state, however many drafts there are.
#[derive(Default)]
pub(super) struct Premises {
    realms: HashMap<RealmId, Option<Realm>>,
    partners: HashMap<(RealmId, PartnerId), bool>,
    projects: HashMap<(RealmId, ProjectId), Option<PartnerId>>,
}

impl Draft {
    /// The key that is asked for, if everything about it is right and `by` may give it. On the command line of the server
    /// nobody asks.
    pub(super) async fn of(
        new: &NewKey,
        by: Option<&Standing>,
        snapshot: &mut Snapshot,
        premises: &mut Premises,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        if let Some(standing) = by {
            new.check_reach(&standing.role)?;
        }
        let realm = premises.realm(snapshot, &new.realm).await?;
        let terms = Terms::settle(&realm, new, now)?;
        let partner = premises.owner(snapshot, new).await?;
        if let Some(project) = &new.project {
            let owner = premises.owner_of(snapshot, &new.realm, project).await?;
            if owner != Some(&partner) {
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
        Ok(Self { key, realm })
    }
}

impl Premises {
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
        let environment = bad.check(
            "environment",
            realm.environment_or_only(new.environment.as_ref().map_or("", EnvironmentName::as_str)),
        );
        let access = if new.scopes.is_empty() && !new.full_access {
            realm.unscoped_keys.access()
        } else {
            granted(realm, &new.scopes, new.full_access, &mut bad)
        };
        check_owner(realm, new.partner.as_ref(), &access, &mut bad);
        let expires_at = end(realm, new.expires_at, now, now, &mut bad);
        bad.finish(environment.map(|environment| Self {
            environment: environment.clone(),
            access,
            expires_at,
        }))
        .map_err(Refusal::Invalid)
    }
}

/// What these words grant. None of them is nothing.
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

/// The end of a key that was or is issued at `issued_at`: the one that is asked for, or the latest that the realm allows.
pub(super) fn end(
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
