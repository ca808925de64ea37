//! Decodes the requests of `KeyVerify`.

use std::net::IpAddr;

use tonic::Status;

use crate::domain::access::ScopeSet;
use crate::domain::violation::Violations;
use crate::grpc::status;
use crate::mirror::{MirroredRealm, View};
use crate::protobuf::read_fields;
use crate::verify::{Question, Target, VerifyError};

/// What a client asks: the fields of a `VerifyRequest`, which are not copied.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct VerifyQuestion<'m> {
    pub(super) plain_key: &'m str,
    pub(super) realm: &'m str,
    pub(super) min_revision: u64,
    environment: &'m str,
    target: Option<RequestedTarget<'m>>,
    partner: &'m str,
    scopes: Vec<&'m str>,
    any_scopes: Vec<&'m str>,
    client_ip: &'m str,
}

#[derive(Clone, Copy)]
#[cfg_attr(test, derive(PartialEq))]
enum RequestedTarget<'m> {
    Project(&'m str),
    OwnProject(bool),
    Any(bool),
}

impl<'m> VerifyQuestion<'m> {
    /// Returns the question in an encoded `VerifyRequest`. Returns `None` if it cannot be decoded.
    pub(super) fn decode(message: &'m [u8]) -> Option<Self> {
        let mut question = Self::default();
        question.read(message)?;
        Some(question)
    }

    /// Returns the question in an encoded `VerifyStreamRequest`.
    pub(super) fn decode_streamed(message: &'m [u8]) -> Option<Self> {
        let mut question = Self::default();
        read_fields(message, |number, value| match number {
            1 => question.read(value.bytes()?),
            _ => Some(()),
        })?;
        Some(question)
    }

    /// Returns the questions in an encoded `VerifyBatchRequest`, but not many more than `max`.
    pub(super) fn decode_batch(message: &'m [u8], max: usize) -> Option<Vec<Self>> {
        let mut questions = Vec::new();
        read_fields(message, |number, value| {
            if number == 1 && questions.len() <= max {
                questions.push(Self::decode(value.bytes()?)?);
            }
            Some(())
        })?;
        Some(questions)
    }

    fn read(&mut self, message: &'m [u8]) -> Option<()> {
        read_fields(message, |number, value| {
            match number {
                1 => self.plain_key = value.text()?,
                2 => self.realm = value.text()?,
                3 => self.environment = value.text()?,
                4 => self.target = Some(RequestedTarget::Project(value.text()?)),
                5 => self.target = Some(RequestedTarget::OwnProject(value.number()? != 0)),
                6 => self.target = Some(RequestedTarget::Any(value.number()? != 0)),
                7 => self.partner = value.text()?,
                8 => self.scopes.push(value.text()?),
                9 => self.any_scopes.push(value.text()?),
                10 => self.client_ip = value.text()?,
                11 => self.min_revision = value.number()?,
                _ => {}
            }
            Some(())
        })
    }
}

/// Compares a question with its realm.
///
/// The fields that come from the configuration of the gateway are validated. The fields that the presenter of the key may choose
/// (key, project and partner) are not: a wrong value leads to a denial.
///
/// # Errors
/// `INVALID_ARGUMENT` with the wrong fields.
pub(super) fn question<'q>(
    view: &'q View<'_>,
    asked: &VerifyQuestion<'q>,
) -> Result<Question<'q>, Status> {
    if view.is_unreadable(asked.realm) {
        return Err(status::verify_error(VerifyError::Corrupt));
    }
    let mut bad = Violations::default();
    let Some(realm) = bad.check("realm", find_realm(view, asked.realm)) else {
        return bad.finish(None).map_err(|bad| status::invalid(&bad));
    };
    let environment = bad.check(
        "environment",
        realm.definition.environment_or_only(asked.environment),
    );
    let scopes = scope_set(&mut bad, realm, "scopes", &asked.scopes);
    let any_scopes = scope_set(&mut bad, realm, "any_scopes", &asked.any_scopes);
    let client = bad.check("client_ip", client_ip(asked.client_ip)).flatten();
    let target = target_of(&mut bad, asked.target);
    bad.finish(environment.map(|environment| Question {
        realm,
        environment: &environment.name,
        target,
        projects: &[],
        partner: asked.partner,
        scopes,
        any_scopes,
        client,
    }))
    .map_err(|bad| status::invalid(&bad))
}

fn target_of<'q>(bad: &mut Violations, target: Option<RequestedTarget<'q>>) -> Target<'q> {
    match target {
        None => Target::Partner,
        Some(RequestedTarget::Project(project)) => Target::Project(project),
        Some(RequestedTarget::OwnProject(true)) => Target::OwnProject,
        Some(RequestedTarget::Any(true)) => Target::Any,
        Some(RequestedTarget::OwnProject(false)) => {
            bad.add("own_project", "must be true or unset");
            Target::Partner
        }
        Some(RequestedTarget::Any(false)) => {
            bad.add("any_target", "must be true or unset");
            Target::Partner
        }
    }
}

fn scope_set(bad: &mut Violations, realm: &MirroredRealm, field: &str, names: &[&str]) -> ScopeSet {
    let mut set = ScopeSet::default();
    for (i, name) in names.iter().enumerate() {
        match realm.hierarchy.index_of(name) {
            Some(index) => set.insert(index),
            None => bad.add(
                format!("{field}[{i}]"),
                "is not a scope of the realm: check the spelling, or add it to the realm",
            ),
        }
    }
    set
}

/// Returns the realm with this id.
pub(super) fn find_realm<'v>(
    view: &'v View<'_>,
    id: &str,
) -> Result<&'v MirroredRealm, &'static str> {
    view.realm(id).ok_or(if id.is_empty() {
        "is required: set a realm of this authority"
    } else {
        "must be a realm of this authority"
    })
}

/// Parses the address of an end client. An empty field is `None`.
pub(super) fn client_ip(text: &str) -> Result<Option<IpAddr>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "must be an IP address such as 192.0.2.7 or 2001:db8::7")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::{Strategy, TestCaseError, any, prop, prop_assert, proptest};
    use prost::Message;

    use super::*;
    use crate::pb::claviger::v1 as pb;
    use crate::protobuf::{put_field, tag};
    use pb::verify_request::Target::{AnyTarget, OwnProject, Project};

    /// The question in a request that prost has decoded. A new field does not compile until somebody decides what it means.
    fn model(request: &pb::VerifyRequest) -> VerifyQuestion<'_> {
        let pb::VerifyRequest {
            key,
            realm,
            environment,
            target,
            partner,
            scopes,
            any_scopes,
            client_ip,
            min_revision,
        } = request;
        VerifyQuestion {
            plain_key: key,
            realm,
            min_revision: *min_revision,
            environment,
            target: target.as_ref().map(|target| match target {
                Project(project) => RequestedTarget::Project(project),
                OwnProject(own) => RequestedTarget::OwnProject(*own),
                AnyTarget(any) => RequestedTarget::Any(*any),
            }),
            partner,
            scopes: scopes.iter().map(String::as_str).collect(),
            any_scopes: any_scopes.iter().map(String::as_str).collect(),
            client_ip,
        }
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let text = || "[a-zé]{0,9}|.{0,200}";
        let names = || vec(text(), 0..4);
        let fields = (
            [text(), text(), text(), text(), text()],
            of((0..3, text(), any::<bool>())),
            names(),
            names(),
            any::<u64>(),
        );
        fields.prop_map(|(texts, target, scopes, any_scopes, min_revision)| {
            let [key, realm, environment, partner, client_ip] = texts;
            let target = target.map(|(kind, project, flag)| match kind {
                0 => Project(project),
                1 => OwnProject(flag),
                _ => AnyTarget(flag),
            });
            let request = pb::VerifyRequest {
                key,
                realm,
                environment,
                target,
                partner,
                scopes,
                any_scopes,
                client_ip,
                min_revision,
            };
            request.encode_to_vec()
        })
    }

    fn prost_decodes(message: &[u8]) -> Result<pb::VerifyRequest, TestCaseError> {
        pb::VerifyRequest::decode(message).map_err(|error| TestCaseError::fail(error.to_string()))
    }

    /// The message as the field 1 of another.
    fn enclosed(message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_field(tag(1), message, &mut bytes);
        bytes
    }

    proptest! {
        /// Two messages one after the other are one message, whose fields are merged.
        #[test]
        fn a_question_is_what_prost_reads(first in any_message(), second in any_message()) {
            let both = [&first[..], &second].concat();
            let streamed = [enclosed(&first), enclosed(&second)].concat();
            for (message, streamed) in [(&first, enclosed(&first)), (&both, streamed)] {
                let request = prost_decodes(message)?;
                let expected = Some(model(&request));
                prop_assert!(VerifyQuestion::decode(message) == expected);
                prop_assert!(VerifyQuestion::decode_streamed(&streamed) == expected);
            }
        }

        #[test]
        fn a_batch_is_what_prost_reads(messages in vec(any_message(), 0..5), max in 1_usize..5) {
            let batch = messages.iter().map(|message| enclosed(message)).collect::<Vec<_>>().concat();
            let batch = pb::VerifyBatchRequest::decode(&batch[..]).unwrap();
            let expected: Vec<_> = batch.requests.iter().map(model).take(max + 1).collect();
            let batch = batch.encode_to_vec();
            prop_assert!(VerifyQuestion::decode_batch(&batch, max) == Some(expected));
        }

        /// What prost does not decode is not taken, and nothing that prost decodes is read otherwise. Seen red with the number of
        /// `partner` for `environment`, and with texts that are not UTF-8.
        #[test]
        fn a_damaged_question_is_read_like_prost(
            mut message in any_message(),
            damages in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            for (place, byte) in damages {
                if !message.is_empty() {
                    let place = place.index(message.len());
                    message[place] = byte;
                }
            }
            if let Some(question) = VerifyQuestion::decode(&message) {
                prop_assert!(question == model(&prost_decodes(&message)?));
            }
        }
    }
}
