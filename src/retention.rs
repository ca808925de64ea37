//! How long what has happened is kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::clock::Clock;
use crate::domain::time::Hour;
use crate::mirror::Mirror;
use crate::store::{Error, More, Store};

/// For how long requests that must not be done twice are known again.
const REQUESTS: Duration = Duration::from_hours(24);

/// When to look for the first time: not while a server has more urgent things to do.
const FIRST_LOOK: Duration = Duration::from_mins(1);

/// The shortest time for which anything is kept. A feed that is behind must find again what it read last.
const SHORTEST: Duration = Duration::from_hours(24);

/// For how long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// For ever.
    Forever,
    /// For at least so long, and hardly longer.
    For(Duration),
}

/// What is kept for how long.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The audit trail.
    pub events: Span,
    /// How often keys were used.
    pub usage: Span,
    /// Whose the deleted keys were.
    pub tombstones: Span,
}

/// Forgets what is too old: a minute after the start, and then every so often.
pub async fn run(
    retention: Retention,
    store: Store,
    mirror: Arc<Mirror>,
    clock: Clock,
    interval: Duration,
) {
    let mut wait = FIRST_LOOK.min(interval);
    loop {
        tokio::time::sleep(wait).await;
        wait = interval;
        if let Err(error) = retention.forget(&store, &mirror, &clock).await {
            tracing::warn!(%error, "what is too old could not be removed; it is tried again");
        }
    }
}

impl Retention {
    /// Forgets all that is too old now.
    pub async fn forget(&self, store: &Store, mirror: &Mirror, clock: &Clock) -> Result<(), Error> {
        let Self {
            events,
            usage,
            tombstones,
        } = *self;
        let now = clock.now();
        if let Span::For(kept) = events {
            let before = now.saturating_sub(kept);
            // The feed of this server asks for what it read last, however long ago that is.
            while store
                .forget_events(before, mirror.index().revision())
                .await?
                == More(true)
            {}
        }
        if let Span::For(kept) = usage {
            let before = Hour::of(now.saturating_sub(kept));
            while store.forget_counts(before).await? == More(true) {}
        }
        if let Span::For(kept) = tombstones {
            let before = now.saturating_sub(kept);
            while store.forget_tombstones(before).await? == More(true) {}
        }
        let before = now.saturating_sub(REQUESTS);
        while store.forget_requests(before).await? == More(true) {}
        Ok(())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        match humantime::parse_duration(text) {
            Ok(span) if span >= SHORTEST => Ok(Self::For(span)),
            Ok(_) => Err("must be one day at the least".to_owned()),
            Err(error) => Err(format!(
                "must be a time such as 90d, or \"forever\": {error}"
            )),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(span) => humantime::format_duration(*span).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_day_at_the_least_or_for_ever() {
        let day = Duration::from_hours(24);
        for (text, span) in [
            ("forever", Some(Span::Forever)),
            ("90d", Some(Span::For(90 * day))),
            ("1d", Some(Span::For(day))),
            ("24h", Some(Span::For(day))),
            ("23h 59m 59s", None),
            ("0s", None),
            ("-1d", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), span, "{text:?}");
        }
    }
}
