//! The privilege-escalation check: no caller gives a key more than the caller's own key holds.
//!
//! It runs for every change after which a key can do something that it could not do before.

use ipnet::IpNet;

use super::Refusal;
use super::caller_state::CallerState;
use crate::auth::{Forbidden, Role};
use crate::domain::access::{Access, ScopeHierarchy};
use crate::domain::key::Key;
use crate::domain::realm::{Realm, UnscopedKeys};
use crate::domain::time::Expiry;
use crate::domain::violation::{Violation, Violations};

/// Refuses to give `key`, as it would be after the change, anything that the caller's own key does not hold, in any
/// dimension. `realm` is the key's.
///
/// A caller of the built-in realm stands outside the realms that it administers: it holds nothing there that could be
/// compared, and is bound by its [`Role`] alone. Among keys of its own kind it is bound like everybody else, so that no
/// caller makes another that lasts longer or reaches further.
pub(super) fn check(caller_state: &CallerState, realm: &Realm, key: &Key) -> Result<(), Refusal> {
    if !caller_state.role.reaches(key) {
        return Err(Forbidden(
            "the caller's key does not reach this key: see the partner, project and environment of both",
        )
        .into());
    }
    let own = &caller_state.key;
    if own.realm != key.realm {
        return Ok(());
    }
    // An operator holds everything by its word alone, whatever scopes there will be.
    let holds_everything = caller_state.role == Role::Operator;
    privilege_escalation(own, holds_everything, realm, key).map_err(Refusal::Exceeds)
}

/// The same for a key as it was and as it would be: what only takes from it, the caller may always do.
pub(super) fn check_change(
    caller_state: &CallerState,
    realm: &Realm,
    before: &Key,
    after: &Key,
) -> Result<(), Refusal> {
    if privilege_escalation(before, false, realm, after).is_ok() {
        return Ok(());
    }
    check(caller_state, realm, after)
}

/// Names the fields in which `given` would hold more than `own`.
fn privilege_escalation(
    own: &Key,
    holds_everything: bool,
    realm: &Realm,
    given: &Key,
) -> Result<(), Vec<Violation>> {
    // Named one by one, so that a new field does not compile until somebody has thought about what it can give.
    let Key {
        access,
        allowed_cidrs,
        expires_at,
        // What it is bound to: the role's reach.
        realm: _,
        partner: _,
        level: _,
        environment: _,
        // Switched on is what every key is that is given; switching off takes.
        disabled: _,
        withheld: _,
        revocation: _,
        // Words for people.
        name: _,
        hint: _,
        labels: _,
        // Set by the authority itself.
        id: _,
        created_at: _,
        created_by: _,
        created_revision: _,
        secrets: _,
        last_used_at: _,
    } = given;
    let mut bad = Violations::default();
    if !holds_everything {
        check_access(&own.access, realm, access, &mut bad);
    }
    if let Expiry::At(end) = own.expires_at
        && !expires_at.is_over(end)
    {
        bad.add(
            "expire_time",
            "must not be later than that of the caller's own key, and must be named if the realm sets none so early",
        );
    }
    let within = |range: &IpNet| own.allowed_cidrs.iter().any(|own| own.contains(range));
    if !own.allowed_cidrs.is_empty()
        && (allowed_cidrs.is_empty() || !allowed_cidrs.iter().all(within))
    {
        bad.add(
            "allowed_cidrs",
            "must lie within those of the caller's own key",
        );
    }
    bad.finish(Some(()))
}

/// Everything includes the scopes that the realm will get, so only everything holds it.
fn check_access(own: &Access, realm: &Realm, given: &Access, bad: &mut Violations) {
    if own.is_full() {
        return;
    }
    if given.is_full() {
        let sentence = match realm.unscoped_keys {
            UnscopedKeys::NoAccess => "is more than the caller's own key holds",
            UnscopedKeys::FullAccess => {
                "is more than the caller's own key holds, and in this realm what a key without scopes gets: name some"
            }
        };
        bad.add("full_access", sentence);
        return;
    }
    let hierarchy = ScopeHierarchy::new(&realm.scopes, None);
    let beyond = hierarchy
        .effective_access(given)
        .without(hierarchy.effective_access(own));
    // One that the realm does not know gives nothing today, but would if the realm came to know it.
    let unknown = given.granted().any(|scope| {
        hierarchy.index_of(scope.as_str()).is_none() && !own.granted().any(|own| own == scope)
    });
    if !beyond.is_empty() || unknown {
        bad.add("scopes", "must be held by the caller's own key");
    }
}
