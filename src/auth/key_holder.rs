//! The holder of a key, who uses the key for itself only.

use super::{CallerGroup, Principal};

/// A caller that uses its key for itself only, which needs no role. The holder of an API key is not necessarily the key's owner.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    /// The principal.
    pub principal: Principal,
    /// The callers with whom the holder shares limits.
    pub group: CallerGroup,
}
