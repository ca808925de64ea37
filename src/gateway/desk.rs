//! The desk at which gateways ask, on whichever way they come.

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{self, Answer, Told};
use super::{GatewayRequest, Ruling, rule};
use crate::callers::{Callers, NotLetIn};
use crate::domain::clock::Clock;
use crate::domain::denial::DenialClass;
use crate::hashing::Peppers;
use crate::mirror::{Mirror, MirroredRealm};
use crate::usage::Board;
use crate::verify::{Question, Undecided, decide};

/// Answers gateways from the mirror: no I/O, no lock, no task.
#[derive(Clone)]
pub struct Desk {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    callers: Callers,
    board: Arc<Board>,
}

/// What a gateway stands for, as its own configuration says.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    /// The realm.
    pub realm: &'p str,
    /// The environment; may be empty where the realm has only one.
    pub environment: &'p str,
}

/// Why a gateway is not answered. None of it is a client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The gateway itself is not let in.
    NotLetIn(NotLetIn),
    /// It stands for a realm that does not exist.
    UnknownRealm,
    /// It stands for an environment that does not exist, or for none where it must.
    Environment(&'static str),
    /// It cannot be told now.
    Undecided(Undecided),
}

impl Desk {
    /// Answers are decided by what this mirror knows, and counted on the board.
    pub fn new(
        mirror: Arc<Mirror>,
        peppers: Arc<Peppers>,
        clock: Clock,
        callers: Callers,
        board: Arc<Board>,
    ) -> Self {
        Self {
            mirror,
            peppers,
            clock,
            callers,
            board,
        }
    }

    /// Answers a gateway that presents this key of its own, from this address.
    pub fn answer(
        &self,
        gateway: &str,
        peer: Option<IpAddr>,
        place: Place<'_>,
        request: &GatewayRequest<'_>,
    ) -> Result<Answer, NoAnswer> {
        let now = self.clock.now();
        let index = self.mirror.index();
        let view = index.view();
        let caller = self
            .callers
            .prove(&view, gateway, peer, now)
            .map_err(NoAnswer::NotLetIn)?;
        caller.may_verify(place.realm).map_err(NoAnswer::NotLetIn)?;
        let realm = view.realm(place.realm).ok_or(NoAnswer::UnknownRealm)?;
        let environment = realm
            .definition
            .environment_or_only(place.environment)
            .map_err(NoAnswer::Environment)?;
        let decide = |question: &Question<'_>| {
            let decision = decide(question, &view, &self.peppers, now)?;
            self.board.count(&decision, now);
            Ok(decision)
        };
        let ruling = rule(realm, environment, request, decide).map_err(NoAnswer::Undecided)?;
        Ok(match ruling {
            Ruling::Allowed { key } => Answer::Allowed {
                identity: Box::new(answer::identity(realm, key)),
                remove: answer::to_remove(realm, request.headers),
            },
            Ruling::Denied { class, verdict } => {
                answer::denied(realm, class, verdict, carries_key(realm, request))
            }
        })
    }

    /// How the realm tells a client that it cannot be told now, for ways on which the gateway passes that on.
    pub fn undecided(&self, place: Place<'_>) -> Told {
        let index = self.mirror.index();
        let view = index.view();
        view.realm(place.realm).map_or_else(
            || Told {
                status: DenialClass::Undecided.status(),
                headers: Vec::new(),
                body: String::new(),
            },
            |realm| answer::denial(realm, DenialClass::Undecided, "UNDECIDED", false),
        )
    }
}

fn carries_key(realm: &MirroredRealm, request: &GatewayRequest<'_>) -> bool {
    let mut secrets = realm.definition.credentials.secrets();
    secrets.any(|secret| {
        let mut headers = request.headers.iter();
        headers.any(|(name, _)| *name == secret.as_str())
    })
}
