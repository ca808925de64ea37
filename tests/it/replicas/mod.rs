//! Servers that share one database.

mod lease;
