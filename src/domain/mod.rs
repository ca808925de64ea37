//! The words of the project and the rules that hold between them. Pure: nothing here waits, reads a clock, touches a
//! store or knows of the wire.

pub mod access;
pub mod clock;
pub mod credential;
pub mod denial;
pub mod event;
pub mod ids;
pub mod imported_text;
pub mod key;
pub mod key_text;
pub mod partner;
pub mod path;
pub mod realm;
pub mod revocation;
pub mod route;
pub mod time;
pub mod verdict;
pub mod violation;
