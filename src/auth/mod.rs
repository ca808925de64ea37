//! Authentication and authorization of callers: the key that a caller presents, and the role of this key.

mod authenticator;
mod caller_group;
mod credentials;
mod key_holder;
mod refused_key;
mod role;

pub use authenticator::{AuthError, AuthenticatedKey, Authenticator};
pub use caller_group::CallerGroup;
pub use credentials::{bearer, bearer_key};
pub use key_holder::KeyHolder;
pub use refused_key::{KeyObjection, RefusedKey};
pub use role::{AuthorizedCaller, Delegate, Forbidden, NO_ROLE, Power, Principal, Purpose, Role};
