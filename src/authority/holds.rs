//! What may not be given more, because a lost change took from it.

use super::Refusal;
use crate::domain::hold::Holdable;
use crate::mirror::Mirror;
use crate::store::Snapshot;

/// Checks that something may be given more: no lost change took from it, as far as the store and this server know.
///
/// # Errors
/// [`Refusal::Precondition`] if it is held.
pub(super) async fn check_not_held(
    state: &mut Snapshot,
    mirror: &Mirror,
    what: &Holdable,
) -> Result<(), Refusal> {
    if mirror.index().is_held(what) || state.is_held(what).await? {
        return Err(history_rewritten());
    }
    Ok(())
}

/// The refusal to give to what is held.
pub(super) fn history_rewritten() -> Refusal {
    Refusal::Precondition {
        reason: "HISTORY_REWRITTEN",
        message: "the database has lost a change that took access away here, so no more is given until an operator has looked: \
                  `claviger replicas` names what is held, and `claviger replicas accept-history` releases it"
            .to_owned(),
    }
}
