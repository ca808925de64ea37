//! Who calls: the key with which a gateway or an administrator proves itself, on whichever way in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::authority::{ALLOWS_NOTHING, Caller, Holder, Role, may_verify};
use crate::domain::access::ScopeSet;
use crate::domain::clock::Clock;
use crate::domain::ids::{EnvironmentName, PartnerId, RealmId};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Verdict;
use crate::hashing::Peppers;
use crate::mirror::{KeyFacts, Mirror, MirroredRealm, View};
use crate::store::StoredSecret;
use crate::usage::Board;
use crate::verify::{Proof, Question, Target, Undecided, decide, prove};

/// Proves callers, from the mirror.
#[derive(Clone)]
pub struct Callers {
    mirror: Arc<Mirror>,
    peppers: Arc<Peppers>,
    clock: Clock,
    board: Arc<Board>,
}

/// A key that was just proven, with its realm.
pub struct Proven<'v> {
    key: &'v KeyFacts,
    secret: &'v StoredSecret,
    realm: &'v MirroredRealm,
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLetIn {
    /// Nothing is in memory yet.
    Starting,
    /// It did not prove who it is.
    Unproven(&'static str),
    /// It did, but may not do this.
    Forbidden(&'static str),
    /// Its own key cannot be decided upon.
    Undecided(Undecided),
    /// There is no built-in realm.
    Broken,
}

const NOT_A_KEY: &str = "the caller's key is not one of this authority";

const NOT_A_GATEWAYS_KEY: &str = "the caller's key is not one of this authority's own realm";

impl Callers {
    /// Callers are proven by what this mirror knows; that they called is noted on the board.
    pub fn new(
        mirror: Arc<Mirror>,
        peppers: Arc<Peppers>,
        clock: Clock,
        board: Arc<Board>,
    ) -> Self {
        Self {
            mirror,
            peppers,
            clock,
            board,
        }
    }

    /// Who administers with this key, of whichever realm.
    pub fn caller(&self, text: &str, peer: Option<IpAddr>) -> Result<Caller, NotLetIn> {
        let index = self.mirror.index();
        let view = index.view();
        let (key, _) = self.held(&view, text)?;
        let realm = view.realm(key.realm().as_str()).ok_or(NotLetIn::Broken)?;
        let proven = self.prove_in(
            &view,
            realm,
            key.environment(),
            text,
            peer,
            self.clock.now(),
        )?;
        Ok(Caller {
            holder: holder(proven.key, proven.secret, peer),
            role: proven.role().ok_or(NotLetIn::Forbidden(ALLOWS_NOTHING))?,
        })
    }

    /// Who holds this key, whatever it is good for, and whose it is.
    pub fn holder(
        &self,
        text: &str,
        peer: Option<IpAddr>,
    ) -> Result<(Holder, RealmId, PartnerId), NotLetIn> {
        let index = self.mirror.index();
        let view = index.view();
        let (key, secret) = self.held(&view, text)?;
        Ok((
            holder(key, secret, peer),
            key.realm().clone(),
            key.partner.id.clone(),
        ))
    }

    fn held<'v>(
        &self,
        view: &'v View<'_>,
        text: &str,
    ) -> Result<(&'v KeyFacts, &'v StoredSecret), NotLetIn> {
        if !view.is_loaded() {
            return Err(NotLetIn::Starting);
        }
        match prove(text, view, &self.peppers).map_err(NotLetIn::Undecided)? {
            Proof::Of(key, secret) => Ok((key, secret)),
            Proof::OfNothing | Proof::Malformed => Err(NotLetIn::Unproven(NOT_A_KEY)),
        }
    }

    /// The key of the built-in realm with which a question is asked.
    pub fn prove<'v>(
        &self,
        view: &'v View<'_>,
        text: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Proven<'v>, NotLetIn> {
        if !view.is_loaded() {
            return Err(NotLetIn::Starting);
        }
        let realm = view.realm(RealmId::BUILT_IN).ok_or(NotLetIn::Broken)?;
        let environment = &realm.definition.environments[0];
        self.prove_in(view, realm, &environment.name, text, peer, now)
    }

    fn prove_in<'v>(
        &self,
        view: &'v View<'_>,
        realm: &'v MirroredRealm,
        environment: &EnvironmentName,
        text: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Proven<'v>, NotLetIn> {
        let question = Question {
            text,
            realm,
            environment,
            target: Target::Any,
            projects: &[],
            partner: "",
            scopes: ScopeSet::default(),
            any_scopes: ScopeSet::default(),
            client: peer,
        };
        let decision = decide(&question, view, &self.peppers, now).map_err(NotLetIn::Undecided)?;
        if let Some((key, secret)) = decision.proven {
            self.board.note_use(key, secret, now);
        }
        match (decision.verdict, decision.proven) {
            (Verdict::Allowed, Some((key, secret))) => Ok(Proven { key, secret, realm }),
            (Verdict::AddressDenied, _) => Err(NotLetIn::Forbidden(
                "the caller's key may not be used from this address",
            )),
            (Verdict::PartnerSuspended, _) => Err(NotLetIn::Forbidden(
                "the partner that the caller's key belongs to is suspended",
            )),
            (verdict, Some(_)) => Err(NotLetIn::Unproven(match verdict {
                Verdict::Revoked => "the caller's key is revoked",
                Verdict::Disabled => "the caller's key is disabled",
                _ => "the caller's key has expired",
            })),
            (_, None) if realm.definition.id.is_built_in() => {
                Err(NotLetIn::Unproven(NOT_A_GATEWAYS_KEY))
            }
            (_, None) => Err(NotLetIn::Unproven(NOT_A_KEY)),
        }
    }
}

fn holder(key: &KeyFacts, secret: &StoredSecret, peer: Option<IpAddr>) -> Holder {
    Holder {
        key: key.id,
        secret: secret.digest,
        peer: peer.map(|peer| peer.to_canonical()),
        request_id: None,
    }
}

impl Proven<'_> {
    fn holds(&self, scope: &str) -> bool {
        let ladder = &self.realm.ladder;
        ladder
            .rank(scope)
            .is_some_and(|rank| self.key.effective(ladder).contains(rank))
    }

    fn role(&self) -> Option<Role> {
        Role::new(
            &self.realm.definition,
            &self.key.partner.id,
            self.key.project.as_ref(),
            self.key.environment(),
            |scope| self.holds(scope),
        )
    }

    /// Whether the caller may ask about keys of this realm.
    pub fn may_verify(&self, realm: &str) -> Result<(), NotLetIn> {
        if may_verify(&self.key.partner.id, |scope| self.holds(scope), realm) {
            Ok(())
        } else {
            Err(NotLetIn::Forbidden(
                "this takes an operator key, or a key that holds \"verify\" for the realm in question",
            ))
        }
    }

    /// Whether the caller may look behind the answers.
    pub fn may_operate(&self) -> Result<(), NotLetIn> {
        match self.role() {
            Some(Role::Operator) => Ok(()),
            _ => Err(NotLetIn::Forbidden("this takes an operator key")),
        }
    }
}

/// The key in the value of a header that reads `Bearer KEY` (RFC 6750).
pub fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, key) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}
