//! What the server counts about itself. Nothing here waits, takes a lock or allocates, so that a Verify may count.
//!
//! Each count is an atomic in memory, and those of a Verify are written by one thread each. The text for a scrape is made of them in
//! [`server`](crate::server).

mod counter;
mod decisions;
mod latency;
mod limit;
mod sharded;

pub use counter::Counter;
pub use decisions::{DecisionCounts, Decisions, GatewayReason};
pub use latency::{BOUNDS, Latency, LatencySum};
pub use limit::{Limit, Refusals};
pub use sharded::Sharded;
