//! Authentication and authorization of callers: the key that a caller presents, and the role of this key.

mod authenticator;
mod caller_group;
mod credentials;
mod role;

pub use authenticator::{AuthError, AuthenticatedKey, Authenticator};
pub use caller_group::CallerGroup;
pub use credentials::{bearer, bearer_key};
pub use role::{AuthorizedCaller, Delegate, Forbidden, NO_ROLE, Principal, Role};
