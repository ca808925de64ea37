//! Stores of both engines: the conformance suite, and servers whose store is shared, broken or away.

mod concurrent_writers;
mod conformance;
mod faults;
mod hash_hints;
mod long_feeds;
mod postgres;
mod rewritten_history;
mod unreadable;
mod upgrade;
