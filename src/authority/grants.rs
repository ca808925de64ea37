//! The privilege-escalation check: a caller grants a key no more than the caller's own key holds.
//!
//! The check runs for every change after which a key can do something that it could not do before.

use ipnet::IpNet;

use super::Refusal;
use super::caller_state::CallerState;
use crate::auth::{Forbidden, Purpose, Role};
use crate::domain::access::{Access, ScopeHierarchy};
use crate::domain::key::Key;
use crate::domain::realm::{Realm, UnscopedKeys};
use crate::domain::time::Expiry;
use crate::domain::violation::Violations;

/// The kind of a change that grants something. It decides what a refusal advises.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// The request sets the fields of the key, so the caller can set less.
    Fields,
    /// The request grants everything that the key holds, and sets no field: a rotation or its end, or an enabled key.
    WholeKey,
}

/// Checks that `key`, as it would be after the change, holds nothing that the caller's own key does not hold: no owner beyond its
/// reach, no other scope or address range, and no later expiry. `realm` is the realm of `key`.
///
/// A caller of the built-in realm holds nothing in the realms that it administers, so there is nothing to compare, and only its
/// [`Role`] limits it. For keys of the built-in realm the whole check applies, so that a caller cannot issue a key that lasts
/// longer or reaches further than its own.
///
/// # Errors
/// [`Refusal::Forbidden`] if the caller's role does not reach the key. [`Refusal::Exceeds`] if the key would hold more.
pub(super) fn check(
    caller_state: &CallerState,
    realm: &Realm,
    key: &Key,
    grant: Grant,
) -> Result<(), Refusal> {
    if !caller_state.role.reaches(key, Purpose::Change) {
        return Err(Forbidden(
            "the caller's key does not reach this key: compare the partner, project and environment of both keys",
        )
        .into());
    }
    let own = &caller_state.key;
    if own.realm != key.realm {
        return Ok(());
    }
    // The scope `operator` alone is enough, also for scopes that are defined later.
    let holds_everything = caller_state.role == Role::Operator;
    privilege_escalation(own, holds_everything, realm, key).map_err(|mut violations| {
        if grant == Grant::WholeKey {
            violations.describe_all("exceeds the caller's own key: use a key that holds more");
        }
        Refusal::Exceeds(violations)
    })
}

/// Whether a key holds nothing after a change that it did not hold before. Everybody who reaches the key may make such a change.
pub(super) fn only_takes_away(realm: &Realm, before: &Key, after: &Key) -> bool {
    privilege_escalation(before, false, realm, after).is_ok()
}

/// Returns the fields in which `given` would hold more than `own`.
fn privilege_escalation(
    own: &Key,
    holds_everything: bool,
    realm: &Realm,
    given: &Key,
) -> Result<(), Violations> {
    // Every field is named, so that a new field does not compile until somebody decides what it can grant.
    let Key {
        access,
        allowed_cidrs,
        expires_at,
        // Checked by the role's reach.
        realm: _,
        partner: _,
        level: _,
        environment: _,
        // A new key is enabled. To disable or revoke a key only removes access.
        disabled: _,
        withheld: _,
        revocation: _,
        // For people only.
        name: _,
        hint: _,
        labels: _,
        // Names the key in another system. A partner's own key may not set it: see `Role::may_set_external_ids`.
        external_id: _,
        // Set by the authority.
        id: _,
        created_at: _,
        created_by: _,
        created_revision: _,
        secrets: _,
        last_use: _,
        revision: _,
    } = given;
    let mut bad = Violations::default();
    if !holds_everything {
        check_access(&own.access, realm, access, &mut bad);
    }
    if let Expiry::At(end) = own.expires_at
        && !expires_at.is_over(end)
    {
        let description = match expires_at {
            Expiry::Never => {
                "is required because the caller's own key expires: set a time that is not later than its `expire_time`"
            }
            Expiry::At(_) => {
                "is later than the `expire_time` of the caller's own key: set an earlier time"
            }
        };
        bad.add("expire_time", description);
    }
    let within = |range: &IpNet| own.allowed_cidrs.iter().any(|own| own.contains(range));
    if !own.allowed_cidrs.is_empty()
        && (allowed_cidrs.is_empty() || !allowed_cidrs.iter().all(within))
    {
        let description = if allowed_cidrs.is_empty() {
            "is required because the caller's own key has `allowed_cidrs`: set ranges within them"
        } else {
            "is not within the `allowed_cidrs` of the caller's own key: set smaller ranges"
        };
        bad.add("allowed_cidrs", description);
    }
    bad.finish(Some(()))
}

/// Checks the scopes. Full access includes the scopes that the realm defines later, so only full access covers it.
fn check_access(own: &Access, realm: &Realm, given: &Access, bad: &mut Violations) {
    if own.is_full() {
        return;
    }
    if given.is_full() {
        let description = match realm.unscoped_keys {
            UnscopedKeys::NoAccess => "exceeds the caller's own key, which has no full access",
            UnscopedKeys::FullAccess => {
                "exceeds the caller's own key: set `scopes` because in this realm a key without scopes gets full access"
            }
        };
        bad.add("full_access", description);
        return;
    }
    let hierarchy = ScopeHierarchy::new(&realm.scopes, None);
    let beyond = hierarchy
        .effective_access(given)
        .without(hierarchy.effective_access(own));
    // A scope that the realm does not define grants nothing now, but it would if the realm defined it later.
    let unknown = given.granted().any(|scope| {
        hierarchy.index_of(scope.as_str()).is_none() && !own.granted().any(|own| own == scope)
    });
    if !beyond.is_empty() || unknown {
        bad.add("scopes", "must all be held by the caller's own key");
    }
}
