//! The settings of the commands that open the store, and where their values come from. The doc comments of the fields are the help
//! texts.
//!
//! The settings are the flags that have a variable; there is no second list of them. [`resolve`] finds the values that are not on
//! the command line, and returns them as further flags.

mod environment;
mod file;
mod gateway;
mod limits;
mod listen;
mod parse;
mod print;
mod resolve;
mod retention;
mod serve;
mod setting;
mod source;
mod store;
mod tls;
mod unknown_variables;

pub use environment::Environment;
pub use gateway::{GatewayArgs, GatewayKind};
pub use limits::{LimitArgs, TransportArgs};
pub use listen::{ListenArgs, is_exposed};
pub use print::print;
pub use resolve::{Resolved, resolve};
pub use retention::RetentionArgs;
pub use serve::ServeArgs;
pub use setting::{ConfigFileArgs, has_settings, without_variables};
pub use source::{Source, Sources};
pub use store::{LocationArgs, StoreArgs};
pub use tls::{CertifiedService, TlsArgs};
