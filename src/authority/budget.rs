//! The budget of changes that the keys of a partner make.
//!
//! Each change is an event of the audit trail, which is kept for long. Without a budget one partner could fill the disk. The keys
//! that rotate themselves have a budget of their own, so that they cannot use up that of the partner's administrators.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::CallerGroup;

const HOUR: Duration = Duration::from_hours(1);

/// How many changes each partner's own keys may make.
pub(super) struct ChangeBudget {
    /// The time in which a partner may make one change more.
    interval: Duration,
    /// The time for whose changes a partner may be ahead.
    ahead: Duration,
    /// When the keys of each partner that have made changes lately may make the next one again without being ahead.
    partners: Mutex<HashMap<CallerGroup, Instant>>,
}

/// The budget is spent. Contains the time after which the partner may make one change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spent(pub(super) Duration);

impl ChangeBudget {
    /// Creates a budget of so many changes an hour for each partner, a tenth of them at once.
    pub(super) fn new(changes_per_hour: u32) -> Self {
        let changes_per_hour = changes_per_hour.max(1);
        let interval = HOUR / changes_per_hour;
        Self {
            interval,
            ahead: interval * (changes_per_hour / 10).saturating_sub(1),
            partners: Mutex::default(),
        }
    }

    /// Checks that the partner may make a change.
    pub(super) fn check(&self, partner: &CallerGroup, now: Instant) -> Result<(), Spent> {
        let next = self.lock().get(partner).copied().unwrap_or(now);
        let ahead = next.saturating_duration_since(now);
        match ahead.checked_sub(self.ahead) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(Spent(wait)),
        }
    }

    /// Counts a change of the partner.
    pub(super) fn charge(&self, partner: &CallerGroup, now: Instant) {
        let mut partners = self.lock();
        let next = partners.get(partner).copied().unwrap_or(now).max(now);
        // A partner that is not ahead is not remembered.
        partners.retain(|_, next| *next > now);
        partners.insert(partner.clone(), next + self.interval);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallerGroup, Instant>> {
        self.partners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PartnerId, RealmId};

    fn partner(id: &str) -> CallerGroup {
        let realm = RealmId::parse("demo").unwrap();
        CallerGroup::Partner(realm, PartnerId::parse(id).unwrap())
    }

    /// Seen red with `ahead` one interval longer, and with `charge` that forgets what was spent.
    #[test]
    fn a_partner_makes_a_tenth_at_once_and_then_one_each_interval() {
        let budget = ChangeBudget::new(600);
        let (acme, umbrella) = (partner("acme"), partner("umbrella"));
        let mut now = Instant::now();
        for n in 0..60 {
            assert_eq!(budget.check(&acme, now), Ok(()), "{n}");
            budget.charge(&acme, now);
        }
        assert_eq!(budget.check(&acme, now), Err(Spent(Duration::from_secs(6))));
        assert_eq!(budget.check(&umbrella, now), Ok(()));
        now += Duration::from_secs(2);
        assert_eq!(budget.check(&acme, now), Err(Spent(Duration::from_secs(4))));
        now += Duration::from_secs(4);
        assert_eq!(budget.check(&acme, now), Ok(()));
        budget.charge(&acme, now);
        assert_eq!(budget.check(&acme, now), Err(Spent(Duration::from_secs(6))));

        // After an hour of rest it has the whole budget again, and no more.
        now += HOUR;
        budget.charge(&umbrella, now);
        assert_eq!(
            budget.lock().len(),
            1,
            "whoever has rested is not remembered"
        );
        let mut made = 0;
        while budget.check(&acme, now).is_ok() {
            budget.charge(&acme, now);
            made += 1;
        }
        assert_eq!(made, 60);
    }

    #[test]
    fn the_smallest_budget_is_one_change() {
        for changes in [0, 1, 9] {
            let budget = ChangeBudget::new(changes);
            let now = Instant::now();
            assert_eq!(budget.check(&partner("acme"), now), Ok(()));
            budget.charge(&partner("acme"), now);
            assert!(budget.check(&partner("acme"), now).is_err());
        }
    }
}
