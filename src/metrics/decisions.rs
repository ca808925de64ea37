//! The decisions on the requests of one realm.

use super::{Counter, Sharded};
use crate::domain::verdict::Verdict;

const VERDICTS: usize = Verdict::ALL.len();

/// The decisions on the requests of one realm, counted by each thread for itself.
pub type Decisions = Sharded<DecisionCounts>;

/// How often each verdict was given, and how often each answer to a gateway.
#[derive(Debug, Default)]
pub struct DecisionCounts {
    verdicts: [Counter; VERDICTS],
    gateway: [Counter; GatewayReason::ALL.len()],
}

impl DecisionCounts {
    /// Counts a verdict on an API key.
    pub fn verdict(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].count();
    }

    /// Counts an answer to a gateway.
    pub fn gateway(&self, reason: GatewayReason) {
        self.gateway[reason.index()].count();
    }
}

impl Decisions {
    /// How often each verdict was given.
    pub fn verdicts(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().map(|verdict| {
            let counts = self.all().map(|counts| &counts.verdicts[verdict as usize]);
            (verdict, counts.map(Counter::get).sum())
        })
    }

    /// How often a gateway got an answer for each reason.
    pub fn gateway_reasons(&self) -> impl Iterator<Item = (GatewayReason, u64)> {
        GatewayReason::ALL.into_iter().map(|reason| {
            let counts = self.all().map(|counts| &counts.gateway[reason.index()]);
            (reason, counts.map(Counter::get).sum())
        })
    }
}

/// Why a gateway lets a request through or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayReason {
    /// The verdict on the request's key.
    Key(Verdict),
    /// The request's route needs no key.
    Public,
    /// The request has no key, and its route needs one.
    NoKey,
    /// The request's key has address ranges, and the client's address is not known.
    AddressUnknown,
    /// There is no decision, because this server cannot decide.
    Undecided,
}

impl GatewayReason {
    /// All reasons.
    pub const ALL: [Self; VERDICTS + 4] = {
        let mut all = [Self::Undecided; VERDICTS + 4];
        let mut index = 0;
        while index < VERDICTS {
            all[index] = Self::Key(Verdict::ALL[index]);
            index += 1;
        }
        all[VERDICTS] = Self::Public;
        all[VERDICTS + 1] = Self::NoKey;
        all[VERDICTS + 2] = Self::AddressUnknown;
        all
    };

    const fn index(self) -> usize {
        match self {
            Self::Key(verdict) => verdict as usize,
            Self::Public => VERDICTS,
            Self::NoKey => VERDICTS + 1,
            Self::AddressUnknown => VERDICTS + 2,
            Self::Undecided => VERDICTS + 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_listed_at_its_place() {
        for (index, reason) in GatewayReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason:?}");
        }
    }

    #[test]
    fn verdicts_and_gateway_answers_are_counted_apart() {
        let decisions = Decisions::default();
        decisions.here().verdict(Verdict::Revoked);
        decisions
            .here()
            .gateway(GatewayReason::Key(Verdict::Expired));
        decisions.here().gateway(GatewayReason::NoKey);
        let verdicts: Vec<_> = decisions
            .verdicts()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(verdicts, [(Verdict::Revoked, 1)]);
        let reasons: Vec<_> = decisions
            .gateway_reasons()
            .filter(|(_, count)| *count > 0)
            .collect();
        let expected = [
            (GatewayReason::Key(Verdict::Expired), 1),
            (GatewayReason::NoKey, 1),
        ];
        assert_eq!(reasons, expected);
    }
}
