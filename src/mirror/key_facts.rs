//! The facts of one key: only what decisions and answers need, because there may be millions of keys.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::packed_labels::PackedLabels;
use super::realm::{MirroredPartner, MirroredRealm};
use super::secret::MirroredSecret;
use super::shared_facts::{Interner, SharedFacts};
use crate::domain::access::{ScopeHierarchy, ScopeSet};
use crate::domain::event::Revision;
use crate::domain::hold::HadAccess;
use crate::domain::ids::{EnvironmentName, KeyId, ProjectId, RealmId};
use crate::domain::key::{Digest, LevelKind, admits};
use crate::domain::time::{Expiry, Timestamp};
use crate::store::StoredKey;

/// The entry of one key id.
pub enum Entry<'k> {
    /// The facts of the key.
    Key(KeyFacts<'k>),
    /// A row that cannot be read, or that refers to an unknown realm, partner, project or environment.
    Corrupt,
}

/// The facts of a key that decisions and answers need, as the mirror holds them.
#[derive(Clone, Copy)]
pub struct KeyFacts<'k> {
    id: KeyId,
    packed: &'k PackedFacts,
}

/// An [`Entry`] in memory. The id is not part of it, because the map has it.
#[derive(Clone)]
pub(super) enum PackedEntry {
    Key(PackedFacts),
    Corrupt,
}

/// The facts of a key in memory. The struct is small, because there may be millions of keys: facts that keys have in common are
/// shared, and facts that few keys have are boxed.
#[derive(Clone)]
pub(super) struct PackedFacts {
    shared: Arc<SharedFacts>,
    details: Details,
    /// The HMAC of the newest secret's digest.
    mac: [u8; 32],
    created_revision: Revision,
}

/// The facts of a key in an allocation of its own.
#[derive(Clone)]
enum Details {
    /// The times, name and labels of a key without rare facts.
    Common(TimesAndLabels),
    Rare(Box<RareFacts>),
}

/// The times, name and labels of a key, and the facts that few keys have.
#[derive(Clone)]
struct RareFacts {
    times_and_labels: TimesAndLabels,
    /// When the newest secret expires. The newest secret of other keys expires with its key.
    secret_expires_at: Expiry,
    /// The secrets that the newest secret replaces, oldest first.
    older_secrets: Box<[MirroredSecret]>,
    /// The client addresses from which the key may be used; empty means any address.
    allowed_cidrs: Box<[IpNet]>,
}

/// When the newest secret was created, when the key expires, and the key's name and labels.
///
/// The bytes are the time of creation (8, little-endian microseconds), the length of the expiry (1, which is 0 without one and
/// else 8), the expiry, and the name and labels as [`PackedLabels`]. So a time that a key does not have takes no memory.
#[derive(Clone)]
struct TimesAndLabels(Box<[u8]>);

impl TimesAndLabels {
    fn new<'l>(
        secret_created_at: Timestamp,
        expires_at: Expiry,
        name: &'l str,
        labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
    ) -> Self {
        let mut head = [0; 17];
        head[..8].copy_from_slice(&secret_created_at.as_micros().to_le_bytes());
        let head = match expires_at {
            Expiry::Never => &head[..9],
            Expiry::At(end) => {
                head[8] = 8;
                head[9..].copy_from_slice(&end.as_micros().to_le_bytes());
                &head[..]
            }
        };
        Self(PackedLabels::pack(head, name, labels))
    }

    fn secret_created_at(&self) -> Timestamp {
        time(&self.0)
    }

    fn expires_at(&self) -> Expiry {
        match self.0[8] {
            0 => Expiry::Never,
            _ => Expiry::At(time(&self.0[9..])),
        }
    }

    fn name_and_labels(&self) -> PackedLabels<'_> {
        PackedLabels::unpack(&self.0[9 + usize::from(self.0[8])..])
    }
}

/// The time at the beginning of these bytes.
fn time(bytes: &[u8]) -> Timestamp {
    let micros = bytes
        .first_chunk()
        .expect("`TimesAndLabels::new` wrote 8 bytes");
    Timestamp::from_micros(i64::from_le_bytes(*micros))
}

impl Details {
    fn new(
        times_and_labels: TimesAndLabels,
        newest: MirroredSecret,
        older_secrets: Box<[MirroredSecret]>,
        allowed_cidrs: Box<[IpNet]>,
    ) -> Self {
        let is_rare = !older_secrets.is_empty()
            || !allowed_cidrs.is_empty()
            || newest.expires_at != times_and_labels.expires_at();
        if !is_rare {
            return Self::Common(times_and_labels);
        }
        Self::Rare(Box::new(RareFacts {
            times_and_labels,
            secret_expires_at: newest.expires_at,
            older_secrets,
            allowed_cidrs,
        }))
    }
}

/// The address ranges that are in both lists, of which an empty one has every address; `None` if no address is in both.
fn common_ranges(one: &[IpNet], other: &[IpNet]) -> Option<Vec<IpNet>> {
    if one.is_empty() || one == other {
        return Some(other.to_vec());
    }
    if other.is_empty() {
        return Some(one.to_vec());
    }
    let mut common = Vec::new();
    for range in one {
        // Two ranges have nothing in common, or one contains the other.
        if other.iter().any(|outer| outer.contains(range)) {
            common.push(*range);
            continue;
        }
        for inner in other.iter().filter(|inner| range.contains(*inner)) {
            if !common.contains(inner) {
                common.push(*inner);
            }
        }
    }
    (!common.is_empty()).then_some(common)
}

/// What the row of a key gives it, by this hierarchy.
pub(super) fn access_of(row: &StoredKey<'_>, hierarchy: &ScopeHierarchy) -> HadAccess {
    let scopes = if row.has_full_access() {
        hierarchy.all()
    } else {
        let mut granted = ScopeSet::default();
        for index in row.granted().filter_map(|scope| hierarchy.index_of(scope)) {
            granted.insert(index);
        }
        hierarchy.effective(granted)
    };
    HadAccess {
        scopes: hierarchy.names(scopes).cloned().collect(),
        full_access: row.has_full_access(),
        disabled: row.disabled,
        expires_at: row.expires_at,
        allowed_cidrs: row.allowed_cidrs.clone(),
        secrets: row
            .secrets
            .iter()
            .map(|secret| (secret.digest, secret.expires_at))
            .collect(),
    }
}

impl PackedEntry {
    /// The entry of the key with this id, which is the id of this entry in the map.
    pub(super) fn unpack(&self, id: KeyId) -> Entry<'_> {
        match self {
            Self::Key(packed) => Entry::Key(KeyFacts { id, packed }),
            Self::Corrupt => Entry::Corrupt,
        }
    }

    /// The digests of the imported API keys of this entry.
    pub(super) fn imports(&self) -> impl Iterator<Item = [u8; 32]> {
        let facts = match self {
            Self::Key(facts) => Some(facts),
            Self::Corrupt => None,
        };
        let secrets = facts.into_iter().flat_map(PackedFacts::secrets);
        secrets
            .filter(|secret| secret.imported)
            .map(|secret| secret.digest.mac)
    }
}

impl PackedFacts {
    /// Packs the facts of a key of this realm. Returns `None` and logs an error if the key refers to an unknown partner,
    /// environment or project. The key is revoked if the row says so, or if `was_revoked` does.
    pub(super) fn new(
        id: KeyId,
        realm: &MirroredRealm,
        key: &StoredKey<'_>,
        was_revoked: bool,
        interner: &Interner,
    ) -> Option<Self> {
        let unknown = |what: &str| {
            tracing::error!(key_id = %id, "key cannot be used: unknown {what}");
        };
        let partners = realm.members.partners.pin();
        let Some(partner) = partners.get(key.partner()) else {
            unknown("partner");
            return None;
        };
        let Some(environment_facts) = realm.environment_facts(key.environment()) else {
            unknown("environment");
            return None;
        };
        let Some((newest, older_secrets)) = key.secrets.split_last() else {
            unknown("secret");
            return None;
        };
        let project = match key.project().map(|project| realm.project(project)) {
            Some(None) => {
                unknown("project");
                return None;
            }
            project => project.flatten(),
        };
        let mut granted = ScopeSet::default();
        for scope in key.granted() {
            match realm.hierarchy.index_of(scope) {
                Some(index) => granted.insert(index),
                None => {
                    tracing::error!(key_id = %id, "granted scope ignored: it is not defined in the key's realm");
                }
            }
        }
        let times_and_labels =
            TimesAndLabels::new(newest.created_at, key.expires_at, key.name(), key.labels());
        let older_secrets = older_secrets.iter().map(MirroredSecret::from).collect();
        let allowed_cidrs = key.allowed_cidrs.as_slice().into();
        let newest = MirroredSecret::from(newest);
        Some(Self {
            shared: interner.intern(SharedFacts {
                environment_facts: environment_facts.into(),
                partner: partner.into(),
                project,
                granted,
                full_access: key.has_full_access(),
                disabled: key.disabled,
                revoked: key.is_revoked() || was_revoked,
                pepper: newest.digest.pepper,
                imported: newest.imported,
            }),
            details: Details::new(times_and_labels, newest, older_secrets, allowed_cidrs),
            mac: newest.digest.mac,
            created_revision: key.created_revision,
        })
    }

    /// What the key has, by this hierarchy.
    pub(super) fn had(&self, hierarchy: &ScopeHierarchy) -> HadAccess {
        HadAccess {
            scopes: hierarchy
                .names(self.effective(hierarchy))
                .cloned()
                .collect(),
            full_access: self.shared.full_access,
            disabled: self.shared.disabled,
            expires_at: self.times_and_labels().expires_at(),
            allowed_cidrs: self.ranges(),
            secrets: self
                .secrets()
                .map(|secret| (secret.digest, secret.expires_at))
                .collect(),
        }
    }

    fn ranges(&self) -> Vec<IpNet> {
        self.rare()
            .map_or_else(Vec::new, |rare| rare.allowed_cidrs.to_vec())
    }

    /// The same facts without what the key did not have `before`, or `None` if it had everything.
    pub(super) fn restricted_by(
        &self,
        before: &HadAccess,
        hierarchy: &ScopeHierarchy,
        interner: &Interner,
    ) -> Option<Self> {
        let common = self.common_scopes(before, hierarchy);
        // By today's hierarchy a scope may imply one that the key did not have.
        let granted = hierarchy.closed_within(common);
        self.restricted_to(before, granted, hierarchy, interner)
    }

    /// The same facts without what the key will not have `after` a change of its realm, or `None` if it will have everything.
    ///
    /// By today's hierarchy a scope that stays may imply one that the key will not have. The key has that one today, and loses it with
    /// the hierarchy.
    pub(super) fn narrowed_to(
        &self,
        after: &HadAccess,
        hierarchy: &ScopeHierarchy,
        interner: &Interner,
    ) -> Option<Self> {
        let granted = self.common_scopes(after, hierarchy);
        self.restricted_to(after, granted, hierarchy, interner)
    }

    /// The scopes that the key has, by this hierarchy, and has at the other time too.
    fn common_scopes(&self, other: &HadAccess, hierarchy: &ScopeHierarchy) -> ScopeSet {
        let effective = self.effective(hierarchy);
        effective.intersection(hierarchy.set(&other.scopes))
    }

    /// The same facts with these scopes, and without what the key did not have `before` besides.
    ///
    /// A key that keeps no secret, or may be used from nowhere, is disabled.
    fn restricted_to(
        &self,
        before: &HadAccess,
        granted: ScopeSet,
        hierarchy: &ScopeHierarchy,
        interner: &Interner,
    ) -> Option<Self> {
        let now = self.times_and_labels();
        let expires_at = now.expires_at().earlier(before.expires_at);
        let ranges = self.ranges();
        let allowed_cidrs = common_ranges(&ranges, &before.allowed_cidrs);
        let secrets: Vec<_> = self.secrets().collect();
        let kept: Vec<_> = secrets
            .iter()
            .filter_map(|secret| {
                let mut known = before.secrets.iter();
                let (_, end) = known.find(|(digest, _)| *digest == secret.digest)?;
                Some(MirroredSecret {
                    expires_at: secret.expires_at.earlier(*end),
                    ..*secret
                })
            })
            .collect();
        let full_access = self.shared.full_access && before.full_access;
        let effective = self.effective(hierarchy);
        let is_narrower = full_access != self.shared.full_access
            || !full_access && !effective.without(granted).is_empty();
        let has_nothing = kept.is_empty() || allowed_cidrs.is_none();
        let disabled = self.shared.disabled || before.disabled || has_nothing;
        if !is_narrower
            && disabled == self.shared.disabled
            && expires_at == now.expires_at()
            && allowed_cidrs.as_ref() == Some(&ranges)
            && kept == secrets
        {
            return None;
        }
        let secrets = if kept.is_empty() { secrets } else { kept };
        let (newest, older_secrets) = secrets.split_last().expect("a key has a secret");
        let name_and_labels = now.name_and_labels();
        let labels: Vec<_> = name_and_labels.labels().collect();
        let times_and_labels = TimesAndLabels::new(
            newest.created_at,
            expires_at,
            name_and_labels.name(),
            labels.iter().copied(),
        );
        let allowed_cidrs = allowed_cidrs.unwrap_or_default().into();
        Some(Self {
            shared: interner.intern(SharedFacts {
                granted: if is_narrower {
                    granted
                } else {
                    self.shared.granted
                },
                full_access,
                disabled,
                pepper: newest.digest.pepper,
                imported: newest.imported,
                ..SharedFacts::clone(&self.shared)
            }),
            details: Details::new(
                times_and_labels,
                *newest,
                older_secrets.into(),
                allowed_cidrs,
            ),
            mac: newest.digest.mac,
            created_revision: self.created_revision,
        })
    }

    /// The realm of the key.
    pub(super) fn realm(&self) -> &RealmId {
        &self.shared.environment_facts.realm
    }

    /// The scopes that follow from those that the key was granted.
    pub(super) fn effective(&self, hierarchy: &ScopeHierarchy) -> ScopeSet {
        if self.shared.full_access {
            hierarchy.all()
        } else {
            hierarchy.effective(self.shared.granted)
        }
    }

    /// The revision at which the key was issued.
    pub(super) fn created_revision(&self) -> Revision {
        self.created_revision
    }

    /// The same facts of a key that is revoked.
    pub(super) fn revoked(&self, interner: &Interner) -> Self {
        let shared = SharedFacts {
            revoked: true,
            ..SharedFacts::clone(&self.shared)
        };
        Self {
            shared: interner.intern(shared),
            ..self.clone()
        }
    }

    /// Whether the key was revoked, individually or by a bulk revocation.
    pub(super) fn is_revoked(&self) -> bool {
        let SharedFacts {
            environment_facts,
            partner,
            project,
            revoked,
            ..
        } = &*self.shared;
        let created = self.created_revision;
        let environment = &environment_facts.environment.name;
        *revoked
            || environment_facts.is_revoked(created)
            || partner
                .watermarks
                .includes(created, project.as_ref(), environment)
    }

    fn rare(&self) -> Option<&RareFacts> {
        match &self.details {
            Details::Common(_) => None,
            Details::Rare(rare) => Some(rare),
        }
    }

    fn times_and_labels(&self) -> &TimesAndLabels {
        match &self.details {
            Details::Common(times_and_labels) => times_and_labels,
            Details::Rare(rare) => &rare.times_and_labels,
        }
    }

    fn secrets(&self) -> impl Iterator<Item = MirroredSecret> + use<'_> {
        let rare = self.rare();
        let times = self.times_and_labels();
        let expires_at = rare.map_or_else(|| times.expires_at(), |rare| rare.secret_expires_at);
        let newest = MirroredSecret {
            digest: Digest {
                pepper: self.shared.pepper,
                mac: self.mac,
            },
            created_at: times.secret_created_at(),
            expires_at,
            imported: self.shared.imported,
        };
        let older = rare.into_iter().flat_map(|rare| &rare.older_secrets);
        older.copied().chain([newest])
    }
}

impl<'k> KeyFacts<'k> {
    /// The key's id.
    pub fn id(self) -> KeyId {
        self.id
    }

    /// The key's realm.
    pub fn realm(self) -> &'k RealmId {
        &self.packed.shared.environment_facts.realm
    }

    /// The key's environment.
    pub fn environment(self) -> &'k EnvironmentName {
        &self.packed.shared.environment_facts.environment.name
    }

    /// The partner that owns the key.
    pub fn partner(self) -> &'k MirroredPartner {
        &self.packed.shared.partner
    }

    /// The project that the key is bound to; `None` for a partner key.
    pub fn project(self) -> Option<&'k ProjectId> {
        self.packed.shared.project.as_ref()
    }

    /// The key's name and labels.
    pub fn name_and_labels(self) -> PackedLabels<'k> {
        self.packed.times_and_labels().name_and_labels()
    }

    /// Whether the key holds every scope of its realm.
    pub fn has_full_access(self) -> bool {
        self.packed.shared.full_access
    }

    /// Whether the key is disabled.
    pub fn is_disabled(self) -> bool {
        self.packed.shared.disabled
    }

    /// When the key expires.
    pub fn expires_at(self) -> Expiry {
        self.packed.times_and_labels().expires_at()
    }

    /// Whether the API keys of this key start with this prefix and tag. A secret has exactly one valid API key.
    pub fn has_prefix_and_tag(self, prefix: &str, tag: &str) -> bool {
        let facts = &self.packed.shared.environment_facts;
        facts.prefix.as_str() == prefix && facts.environment.tag.as_str() == tag
    }

    /// Whether the key was revoked, individually or by a bulk revocation.
    pub fn is_revoked(self) -> bool {
        self.packed.is_revoked()
    }

    /// The key's secrets, oldest first.
    pub fn secrets(self) -> impl Iterator<Item = MirroredSecret> + use<'k> {
        self.packed.secrets()
    }

    /// The address ranges from which the key may be used. Empty: every address.
    pub fn allowed_cidrs(self) -> &'k [IpNet] {
        self.packed.rare().map_or(&[], |rare| &rare.allowed_cidrs)
    }

    /// The key's level.
    pub fn level(self) -> LevelKind {
        match self.project() {
            None => LevelKind::Partner,
            Some(_) => LevelKind::Project,
        }
    }

    /// The effective scopes of the key: the granted scopes and every scope that they imply in this hierarchy.
    pub fn effective(self, hierarchy: &ScopeHierarchy) -> ScopeSet {
        self.packed.effective(hierarchy)
    }

    /// Whether the key may be used from this client address. An unknown address is admitted only if any address is.
    pub fn admits(self, client: Option<IpAddr>) -> bool {
        admits(self.allowed_cidrs(), client)
    }

    /// Describes all facts of the key, for comparisons in tests. `is_indexed` returns whether the index of imported API keys
    /// maps a digest to this key.
    pub(super) fn describe(
        self,
        hierarchy: Option<&ScopeHierarchy>,
        is_indexed: impl Fn(&[u8; 32]) -> bool,
    ) -> String {
        let KeyFacts { id, packed } = self;
        let PackedFacts {
            shared,
            details: _,
            mac: _,
            created_revision,
        } = packed;
        let SharedFacts {
            environment_facts: _,
            partner,
            project,
            granted,
            full_access,
            disabled,
            revoked: _,
            pepper: _,
            imported: _,
        } = &**shared;
        let (realm, environment, expires_at) =
            (self.realm(), self.environment(), self.expires_at());
        let revoked = self.is_revoked();
        // Scope indexes depend on the order of changes, names do not.
        let granted: Vec<String> = hierarchy
            .map(|hierarchy| hierarchy.names(*granted).map(ToString::to_string).collect())
            .unwrap_or_default();
        let secrets: Vec<_> = self
            .secrets()
            .map(|secret| {
                let MirroredSecret {
                    digest,
                    created_at,
                    expires_at,
                    imported,
                } = secret;
                let is_found = !imported || is_indexed(&digest.mac);
                (digest.pepper, digest.mac, created_at, expires_at, is_found)
            })
            .collect();
        let name_and_labels = self.name_and_labels();
        let name = name_and_labels.name();
        let labels: Vec<_> = name_and_labels.labels().collect();
        let allowed_cidrs = self.allowed_cidrs();
        format!(
            "{id} {realm} {} {project:?} {environment} {name:?} {labels:?} {allowed_cidrs:?} {granted:?} \
             full={full_access} disabled={disabled} revoked={revoked} @{created_revision} {expires_at:?} {secrets:?}",
            partner.id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with a range for each pair of which one contains the other: 4, and with each later restriction more.
    #[test]
    fn common_ranges_are_named_once() {
        let ranges = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let nested = ranges(&["10.0.0.0/8", "10.1.0.0/16"]);
        for (one, other, expected) in [
            (
                &["10.1.2.0/24", "10.1.2.3/32"][..],
                &nested[..],
                &["10.1.2.0/24", "10.1.2.3/32"][..],
            ),
            (
                &["10.0.0.0/7", "0.0.0.0/0"],
                &nested,
                &["10.0.0.0/8", "10.1.0.0/16"],
            ),
            (&["10.1.0.0/16", "11.0.0.0/8"], &nested, &["10.1.0.0/16"]),
            (&["10.1.0.0/16"], &[], &["10.1.0.0/16"]),
            (&[], &nested, &["10.0.0.0/8", "10.1.0.0/16"]),
        ] {
            assert_eq!(
                common_ranges(&ranges(one), other),
                Some(ranges(expected)),
                "{one:?}"
            );
        }
        assert_eq!(common_ranges(&ranges(&["11.0.0.0/8"]), &nested), None);
    }
}
