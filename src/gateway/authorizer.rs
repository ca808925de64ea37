//! The authorizer at which gateways ask, on whichever way they come.

use std::net::IpAddr;
use std::sync::Arc;

use super::response::{self, GatewayResponse, HttpDenial};
use super::{GatewayDecision, GatewayRequest, rule};
use crate::auth::{AuthError, Authenticator};
use crate::domain::clock::Clock;
use crate::domain::denial::DenialClass;
use crate::hashing::Peppers;
use crate::mirror::{Mirror, MirroredRealm};
use crate::usage::UsageRecorder;
use crate::verify::{Question, VerifyError, decide};

/// Answers gateways from the mirror: no I/O, no lock, no task.
#[derive(Clone)]
pub struct GatewayAuthorizer {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    authenticator: Authenticator,
    recorder: Arc<UsageRecorder>,
}

/// What a gateway stands for, as its own configuration says.
#[derive(Clone, Copy, Debug)]
pub struct ProtectedApi<'p> {
    /// The realm.
    pub realm: &'p str,
    /// The environment; may be empty where the realm has only one.
    pub environment: &'p str,
}

/// Why a gateway is not answered. None of it is a client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayError {
    /// The gateway itself is not let in.
    Auth(AuthError),
    /// It stands for a realm that does not exist.
    UnknownRealm,
    /// It stands for an environment that does not exist, or for none where it must.
    Environment(&'static str),
    /// It cannot be told now.
    Verify(VerifyError),
}

impl GatewayAuthorizer {
    /// Answers are decided by what this mirror knows, and counted on the recorder.
    pub fn new(
        mirror: Arc<Mirror>,
        peppers: Arc<Peppers>,
        clock: Clock,
        authenticator: Authenticator,
        recorder: Arc<UsageRecorder>,
    ) -> Self {
        Self {
            mirror,
            peppers,
            clock,
            authenticator,
            recorder,
        }
    }

    /// Answers a gateway that presents this key of its own, from this address.
    pub fn answer(
        &self,
        gateway: &str,
        peer: Option<IpAddr>,
        api: ProtectedApi<'_>,
        request: &GatewayRequest<'_>,
    ) -> Result<GatewayResponse, GatewayError> {
        let now = self.clock.now();
        let index = self.mirror.index();
        let view = index.view();
        let caller = self
            .authenticator
            .authenticate(&view, gateway, peer, now)
            .map_err(GatewayError::Auth)?;
        caller
            .may_verify(api.realm)
            .map_err(|forbidden| GatewayError::Auth(forbidden.into()))?;
        let realm = view.realm(api.realm).ok_or(GatewayError::UnknownRealm)?;
        let environment = realm
            .definition
            .environment_or_only(api.environment)
            .map_err(GatewayError::Environment)?;
        let decide = |question: &Question<'_>| {
            let decision = decide(question, &view, &self.peppers, now)?;
            self.recorder.count(&decision, now);
            Ok(decision)
        };
        let decision = rule(realm, environment, request, decide).map_err(GatewayError::Verify)?;
        Ok(match decision {
            GatewayDecision::Allowed { key } => GatewayResponse::Allowed {
                identity: Box::new(response::identity(realm, key)),
                remove: response::to_remove(realm, request.headers),
            },
            GatewayDecision::Denied { class, verdict } => {
                response::denied(realm, class, verdict, carries_key(realm, request))
            }
        })
    }

    /// How the realm tells a client that it cannot be told now, for ways on which the gateway passes that on.
    pub fn undecided(&self, api: ProtectedApi<'_>) -> HttpDenial {
        let index = self.mirror.index();
        let view = index.view();
        view.realm(api.realm).map_or_else(
            || HttpDenial {
                status: DenialClass::Undecided.status(),
                headers: Vec::new(),
                body: String::new(),
            },
            |realm| response::denial(realm, DenialClass::Undecided, "UNDECIDED", false),
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
