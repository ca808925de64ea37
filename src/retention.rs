//! Retention: the deletion of events, usage, tombstones and dead keys that are too old, and of addresses that are not recorded any
//! more.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::clock::Clock;
use crate::domain::ids::KeyId;
use crate::domain::span;
use crate::domain::time::{Hour, Timestamp};
use crate::mirror::Mirror;
use crate::store::{AddressCursor, AnsweredRequest, Error, MoreRows, Store};

/// The time from the start to the first deletion, because a starting server has more urgent work.
const FIRST_DELAY: Duration = Duration::from_mins(1);

/// The shortest retention time. A feed that is behind must find the event that it read last.
const SHORTEST: Duration = Duration::from_hours(24);

/// A retention time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Without end.
    Forever,
    /// At least this long. The next deletion removes what is older.
    For(Duration),
}

/// The retention times of an authority.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Of events.
    pub events: Span,
    /// Of hourly usage.
    pub usage: Span,
    /// Of tombstones.
    pub tombstones: Span,
    /// Of keys that are revoked or expired.
    pub keys: Span,
}

/// Deletes what is too old, at most a minute after the start and then at every interval. Never returns.
pub async fn run(
    retention: Retention,
    store: Store,
    mirror: Arc<Mirror>,
    clock: Clock,
    interval: Duration,
) {
    let mut wait = FIRST_DELAY.min(interval);
    loop {
        tokio::time::sleep(wait).await;
        wait = interval;
        if let Err(error) = retention.forget(&store, &mirror, &clock).await {
            tracing::warn!(%error, "retention failed; it is tried again");
        }
    }
}

impl Retention {
    /// Deletes everything that is too old now.
    pub async fn forget(&self, store: &Store, mirror: &Mirror, clock: &Clock) -> Result<(), Error> {
        let Self {
            events,
            usage,
            tombstones,
            keys,
        } = *self;
        let now = clock.now();
        if let Span::For(kept) = keys {
            let before = now.saturating_sub(kept);
            let mut last = KeyId::first_of(Timestamp::from_micros(0));
            while let Some(next) = store.forget_keys(clock.read(), before, last).await? {
                last = next;
            }
        }
        if let Span::For(kept) = events {
            let before = now.saturating_sub(kept);
            // The feed of this server needs the event that it read last, however old that event is.
            while store
                .forget_events(before, mirror.index().revision())
                .await?
                == MoreRows(true)
            {}
        }
        if let Span::For(kept) = usage {
            let before = Hour::of(now.saturating_sub(kept));
            while store.forget_counts(before).await? == MoreRows(true) {}
        }
        if let Span::For(kept) = tombstones {
            let before = now.saturating_sub(kept);
            while store.forget_tombstones(before).await? == MoreRows(true) {}
        }
        let before = now.saturating_sub(AnsweredRequest::LIFETIME);
        while store.forget_requests(before).await? == MoreRows(true) {}
        let records = |realm: &str| {
            let index = mirror.index();
            let view = index.view();
            view.realm(realm)
                .is_some_and(|realm| realm.definition.record_addresses)
        };
        let mut place = AddressCursor::default();
        while let Some(next) = store.forget_addresses(place, records).await? {
            place = next;
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        match span::parse(text) {
            Ok(span) if span >= SHORTEST => Ok(Self::For(span)),
            Ok(_) => Err("must be at least one day".to_owned()),
            Err(error) => Err(error.or("must be a time such as 90d, or \"forever\"")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(span) => f.write_str(&span::format(*span)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_at_least_a_day_or_without_end() {
        let day = Duration::from_hours(24);
        for (text, span) in [
            ("forever", Some(Span::Forever)),
            ("90d", Some(Span::For(90 * day))),
            ("1d", Some(Span::For(day))),
            ("24h", Some(Span::For(day))),
            ("23h 59m 59s", None),
            ("0s", None),
            ("-1d", None),
            ("1y", None),
            ("6m", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), span, "{text:?}");
        }
    }
}
