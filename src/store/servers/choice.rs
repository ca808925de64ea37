//! Which server of a database is used.

use super::identity::{AuthorityId, Identity, Refusal};

/// The server that is used, and what any other must have to be used instead.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// The server, by its place among the URLs.
    pub(super) server: usize,
    /// How often a server was chosen. A connection that was made before the last time is not used any more.
    pub(super) generation: u64,
    /// The highest timeline that any server of the authority has told.
    timeline: i64,
    /// The authority; `None` until it is known.
    authority: Option<AuthorityId>,
}

impl Choice {
    /// Whether a server was chosen.
    pub(super) fn is_made(&self) -> bool {
        self.generation > 0
    }

    /// Judges a server by what it says about itself, and returns its timeline if it may be used.
    pub(super) fn judge(&self, server: usize, found: &Identity) -> Result<i64, Refusal> {
        let timeline = found.timeline.ok_or(Refusal::Standby)?;
        let is_same = match (&self.authority, &found.authority) {
            (None, None) => true,
            // It was created there after the choice.
            (None, Some(_)) => !self.is_made() || server == self.server,
            (known, found) => known == found,
        };
        if !is_same {
            return Err(Refusal::OtherAuthority);
        }
        if timeline < self.timeline {
            return Err(Refusal::Replaced);
        }
        Ok(timeline)
    }

    /// Takes note of a server, which is chosen if its timeline is higher than any before.
    pub(super) fn admit(&mut self, server: usize, found: &Identity) -> Result<(), Refusal> {
        let timeline = self.judge(server, found)?;
        if self.authority.is_none() {
            self.authority.clone_from(&found.authority);
        }
        if timeline > self.timeline {
            self.timeline = timeline;
            self.choose(server);
        }
        Ok(())
    }

    /// Chooses among the servers that have answered: one with the highest timeline, and among equal ones that which was chosen before,
    /// or else the first. The first of all servers to be listed tells the authority if that is not known. Returns whether one of them
    /// may be used.
    pub(super) fn settle(&mut self, found: &[(usize, Identity)]) -> bool {
        if !self.is_made()
            && let Some((server, first)) = found.iter().min_by_key(|(server, _)| *server)
        {
            self.authority.clone_from(&first.authority);
            self.choose(*server);
        }
        let good = found.iter().filter_map(|(server, found)| {
            let timeline = self.judge(*server, found).ok()?;
            let is_current = *server == self.server;
            Some((timeline, is_current, std::cmp::Reverse(*server)))
        });
        let Some((timeline, is_current, std::cmp::Reverse(server))) = good.max() else {
            return false;
        };
        self.timeline = timeline;
        if !is_current {
            self.choose(server);
        }
        true
    }

    fn choose(&mut self, server: usize) {
        self.server = server;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(timeline: i64, authority: &str) -> Identity {
        Identity {
            timeline: Some(timeline),
            authority: Some(AuthorityId::for_tests(authority)),
        }
    }

    fn standby() -> Identity {
        Identity {
            timeline: None,
            ..primary(0, "ours")
        }
    }

    /// A choice between these servers.
    fn between(found: &[Identity]) -> Choice {
        let found: Vec<_> = found.iter().cloned().enumerate().collect();
        let mut choice = Choice::default();
        assert!(choice.settle(&found));
        choice
    }

    /// Seen red with the lowest timeline in place of the highest.
    #[test]
    fn the_highest_timeline_wins() {
        let choice = between(&[primary(1, "ours"), primary(2, "ours"), primary(2, "ours")]);
        assert_eq!(choice.server, 1);
    }

    /// Seen red without the check of the authority, and without that of the timeline.
    #[test]
    fn neither_another_authority_nor_a_lower_timeline_is_ever_used() {
        let mut choice = between(&[primary(2, "ours"), primary(9, "theirs")]);
        let generation = choice.generation;
        assert_eq!(choice.server, 0);
        for (found, why) in [
            (primary(9, "theirs"), Refusal::OtherAuthority),
            (primary(1, "ours"), Refusal::Replaced),
            (standby(), Refusal::Standby),
        ] {
            assert_eq!(choice.admit(1, &found), Err(why));
            assert!(!choice.settle(&[(1, found)]));
        }
        let empty = Identity {
            authority: None,
            ..primary(3, "")
        };
        assert_eq!(choice.admit(1, &empty), Err(Refusal::OtherAuthority));
        assert_eq!((choice.server, choice.generation), (0, generation));
    }

    /// Seen red without `is_current`: the first server is then chosen again whenever it answers.
    #[test]
    fn an_equal_server_is_chosen_only_when_the_one_before_is_gone() {
        let mut choice = between(&[primary(1, "ours")]);
        let generation = choice.generation;
        assert!(choice.settle(&[(1, primary(1, "ours"))]));
        assert_eq!((choice.server, choice.generation), (1, generation + 1));
        assert!(choice.settle(&[(0, primary(1, "ours")), (1, primary(1, "ours"))]));
        assert_eq!((choice.server, choice.generation), (1, generation + 1));
        assert!(!choice.settle(&[]));
    }

    /// Seen red with `>=` in place of `>` in `admit`: each new connection then gives up all others.
    #[test]
    fn a_server_with_a_higher_timeline_is_followed_at_once() {
        let mut choice = between(&[primary(1, "ours")]);
        let generation = choice.generation;
        assert_eq!(choice.admit(1, &primary(1, "ours")), Ok(()));
        assert_eq!((choice.server, choice.generation), (0, generation));
        assert_eq!(choice.admit(1, &primary(2, "ours")), Ok(()));
        assert_eq!((choice.server, choice.generation), (1, generation + 1));
    }

    /// Seen red without the arm `(None, Some(_))`.
    #[test]
    fn an_authority_that_is_created_is_known_from_then_on() {
        let empty = Identity {
            timeline: Some(1),
            authority: None,
        };
        let mut choice = between(&[empty]);
        assert_eq!(
            choice.admit(1, &primary(1, "theirs")),
            Err(Refusal::OtherAuthority)
        );
        assert_eq!(choice.admit(0, &primary(1, "ours")), Ok(()));
        assert_eq!(
            choice.admit(0, &primary(1, "theirs")),
            Err(Refusal::OtherAuthority)
        );
    }
}
