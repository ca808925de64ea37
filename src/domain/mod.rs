//! The domain types and the rules between them.
//!
//! The code is pure: no function waits, accesses a store or uses a wire type. Only [`clock`] reads the system clock.

pub mod access;
pub mod clock;
pub mod credential;
pub mod denial;
pub mod event;
pub mod hold;
pub mod ids;
pub mod imported_key;
pub mod key;
pub mod key_text;
pub mod last_use;
pub mod lease;
pub mod nearest;
pub mod partner;
pub mod path;
pub mod realm;
pub mod revocation;
pub mod route;
pub mod scope_renaming;
pub mod span;
pub mod time;
pub mod verdict;
pub mod violation;
