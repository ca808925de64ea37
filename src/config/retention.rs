//! How long history is kept.

use std::time::Duration;

use clap::Args;

use super::parse::interval;
use crate::retention::{Retention, Span};

/// How long events, usage, tombstones and dead keys are kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct RetentionArgs {
    /// How long to keep the audit trail: a time such as `90d`, at least one day, or `forever`. The newest event always stays
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_EVENTS",
        value_name = "TIME",
        default_value = "forever"
    )]
    retain_events: Span,

    /// How long to keep the hourly usage of keys
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_USAGE",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_usage: Span,

    /// How long to keep the owner of a deleted key, so that its usage can be read
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_TOMBSTONES",
        value_name = "TIME",
        default_value = "400d"
    )]
    retain_tombstones: Span,

    /// How long to keep keys that are revoked or expired. Their deletion is a change, with an event for each key
    #[arg(
        long,
        env = "CLAVIGER_RETAIN_KEYS",
        value_name = "TIME",
        default_value = "forever"
    )]
    retain_keys: Span,

    /// How often to delete what is too old
    #[arg(long, hide = true, value_name = "TIME", default_value = "10min", value_parser = interval)]
    pub retain_interval: Duration,
}

impl RetentionArgs {
    /// The retention times.
    pub fn retention(self) -> Retention {
        Retention {
            events: self.retain_events,
            usage: self.retain_usage,
            tombstones: self.retain_tombstones,
            keys: self.retain_keys,
        }
    }
}
