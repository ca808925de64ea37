//! The flags of the commands that open the store. The doc comments of the fields are the help texts.

mod gateway;
mod limits;
mod parse;
mod retention;
mod serve;
mod store;
mod tls;

pub use gateway::{GatewayArgs, GatewayKind};
pub use limits::{LimitArgs, TransportArgs};
pub use retention::RetentionArgs;
pub use serve::{ServeArgs, is_exposed};
pub use store::{LocationArgs, StoreArgs};
pub use tls::{CertifiedService, TlsArgs};
