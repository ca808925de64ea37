//! The authorizer, which answers gateways on every protocol.

use std::net::IpAddr;
use std::sync::Arc;

use super::response::{self, GatewayResponse, HttpDenial};
use super::{GatewayDecision, GatewayRequest, authorize};
use crate::auth::{AuthError, Authenticator, Forbidden, Principal};
use crate::domain::clock::Clock;
use crate::domain::denial::{DenialClass, DenialReason};
use crate::domain::verdict::Verdict;
use crate::hashing::Peppers;
use crate::metrics::GatewayReason;
use crate::mirror::Mirror;
use crate::usage::UsageRecorder;
use crate::verify::{Moment, Question, VerifyError, decide};

/// Answers gateways from the mirror, without I/O, without a lock and without a task.
#[derive(Clone)]
pub struct GatewayAuthorizer {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    authenticator: Authenticator,
    recorder: Arc<UsageRecorder>,
}

/// The API that a gateway protects, as the configuration of the gateway names it.
#[derive(Clone, Copy, Debug)]
pub struct ProtectedApi<'p> {
    /// The realm.
    pub realm: &'p str,
    /// The environment; may be empty if the realm has only one.
    pub environment: &'p str,
}

/// The reason why a gateway gets no answer. A client of the gateway cannot cause it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayError {
    /// The gateway's own key is not accepted.
    Auth(AuthError),
    /// The gateway's own key may not verify keys of the realm, which may not exist.
    Forbidden(Forbidden),
    /// The gateway names a realm that does not exist.
    UnknownRealm,
    /// The gateway names an environment that does not exist, or none although the realm has several.
    Environment(&'static str),
    /// There is no decision on the client's key.
    Verify(VerifyError),
}

impl GatewayAuthorizer {
    /// Creates an authorizer that decides from this mirror and counts its decisions in this recorder.
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

    /// Returns what the API key of a gateway itself proves.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn prove(&self, gateway_key: &str, peer: Option<IpAddr>) -> Result<Principal, AuthError> {
        self.authenticator.prove(gateway_key, peer)
    }

    /// Answers a gateway that proved its own key.
    pub fn answer(
        &self,
        gateway: &Principal,
        api: ProtectedApi<'_>,
        request: &GatewayRequest<'_>,
    ) -> Result<GatewayResponse, GatewayError> {
        let moment = Moment::read(&self.clock, self.mirror.lease());
        let answer = self.answer_at(moment, gateway, api, request);
        // Once the lease has lapsed, no other error says anything either.
        answer.map_err(|error| {
            moment
                .check_lease()
                .map_or_else(GatewayError::Verify, |()| error)
        })
    }

    fn answer_at(
        &self,
        moment: Moment,
        gateway: &Principal,
        api: ProtectedApi<'_>,
        request: &GatewayRequest<'_>,
    ) -> Result<GatewayResponse, GatewayError> {
        let index = self.mirror.index();
        let view = index.view();
        let caller = self
            .authenticator
            .authenticate_gateway(&view, gateway, moment.now())
            .map_err(GatewayError::Auth)?;
        caller
            .may_verify(api.realm)
            .map_err(GatewayError::Forbidden)?;
        let realm = view.realm(api.realm).ok_or_else(|| {
            if view.is_unreadable(api.realm) {
                GatewayError::Verify(VerifyError::Corrupt)
            } else {
                GatewayError::UnknownRealm
            }
        })?;
        let environment = realm
            .definition
            .environment_or_only(api.environment)
            .map_err(GatewayError::Environment)?;
        let decide = |plain_key: &str, question: &Question<'_>| {
            let decision = decide(plain_key, question, &view, &self.peppers, moment)?;
            self.recorder.count(question, &decision, moment.now());
            // A request without a key is asked about too, but nobody presented anything.
            if !plain_key.is_empty() {
                realm.decisions.here().verdict(decision.verdict);
            }
            Ok(decision)
        };
        let decision = authorize(realm, environment, request, moment, decide);
        let (reason, answer) = match decision {
            Ok(GatewayDecision::Allowed { key }) => (
                key.map_or(GatewayReason::Public, |_| {
                    GatewayReason::Key(Verdict::Allowed)
                }),
                Ok(response::allowed(realm, key, request.headers)),
            ),
            Ok(GatewayDecision::Denied {
                class,
                verdict,
                reason,
            }) => {
                let counted = match (reason, verdict) {
                    (DenialReason::NoKey, _) => GatewayReason::NoKey,
                    (_, Verdict::AddressDenied) if request.client.is_none() => {
                        GatewayReason::AddressUnknown
                    }
                    _ => GatewayReason::Key(verdict),
                };
                let denied = response::denied(realm, class, reason);
                (counted, Ok(denied))
            }
            Err(reason) => (GatewayReason::Undecided, Err(GatewayError::Verify(reason))),
        };
        realm.decisions.here().gateway(reason);
        answer
    }

    /// The realm's denial for a request without a decision, for gateways that pass it on to the client.
    pub fn undecided(&self, api: ProtectedApi<'_>) -> HttpDenial {
        let index = self.mirror.index();
        let view = index.view();
        view.realm(api.realm).map_or_else(
            || HttpDenial {
                status: DenialClass::Undecided.status(),
                headers: Vec::new(),
                body: String::new(),
            },
            |realm| response::denial(realm, DenialClass::Undecided, DenialReason::Undecided),
        )
    }
}
