//! Who calls: the key that a caller presents, and the role that this key has.

mod authenticator;
mod credentials;
mod role;

pub use authenticator::{AuthError, AuthenticatedKey, Authenticator};
pub use credentials::{bearer, bearer_key};
pub use role::{AuthorizedCaller, Delegate, Forbidden, NO_ROLE, Principal, Role};
