//! Decodes Envoy's requests.

use std::str;

use crate::protobuf::{Value, read_fields};
use crate::telemetry::{REQUEST_ID, is_request_id};

/// The names and values of headers, one entry for each occurrence.
type Headers<'m> = Vec<(&'m str, &'m [u8])>;

/// What Envoy asks: the fields of a `CheckRequest` that count. A request has dozens of strings, which are not copied.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct CheckQuestion<'m> {
    pub(super) method: &'m str,
    pub(super) target: &'m str,
    /// The remote address of the connection on which Envoy received the request. Empty if it is not a TCP connection.
    pub(super) source: &'m str,
    pub(super) has_attributes: bool,
    pub(super) has_http: bool,
    context_extensions: Vec<(&'m str, &'m str)>,
    /// The headers without `encode_raw_headers`: Envoy has joined the occurrences of a header.
    joined: Headers<'m>,
    /// The headers with `encode_raw_headers`.
    raw: Option<Headers<'m>>,
}

impl<'m> CheckQuestion<'m> {
    /// Returns the question in an encoded `CheckRequest`. Returns `None` if it cannot be decoded.
    pub(super) fn decode(message: &'m [u8]) -> Option<Self> {
        let mut question = Self::default();
        read_fields(message, |number, value| match number {
            1 => question.read_attributes(value.bytes()?),
            _ => Some(()),
        })?;
        Some(question)
    }

    /// The id of the client's request, which Envoy gives it.
    pub(super) fn request_id(&self) -> Option<&'m str> {
        let mut headers = self.headers().iter();
        let (_, id) = headers.find(|(name, _)| *name == REQUEST_ID.as_str())?;
        is_request_id(id).then(|| str::from_utf8(id).ok())?
    }

    /// Reads an `AttributeContext`.
    fn read_attributes(&mut self, attributes: &'m [u8]) -> Option<()> {
        self.has_attributes = true;
        read_fields(attributes, |number, value| match number {
            1 => read_only(1, value, &mut |address| {
                read_only(1, address, &mut |socket_address| {
                    read_only(2, socket_address, &mut |address| {
                        self.source = address.text()?;
                        Some(())
                    })
                })
            }),
            4 => read_only(2, value, &mut |http| self.read_http(http.bytes()?)),
            10 => {
                let (name, value) = entry(value)?;
                self.context_extensions.push((name, value.text()?));
                Some(())
            }
            _ => Some(()),
        })
    }

    /// Reads an `HttpRequest`.
    fn read_http(&mut self, http: &'m [u8]) -> Option<()> {
        self.has_http = true;
        read_fields(http, |number, value| {
            match number {
                2 => self.method = value.text()?,
                3 => {
                    let (name, value) = entry(value)?;
                    self.joined.push((name, value.text()?.as_bytes()));
                }
                4 => self.target = value.text()?,
                13 => {
                    let headers = self.raw.get_or_insert_default();
                    read_only(1, value, &mut |value| {
                        headers.push(header(value)?);
                        Some(())
                    })?;
                }
                _ => {}
            }
            Some(())
        })
    }

    /// The headers.
    pub(super) fn headers(&self) -> &[(&'m str, &'m [u8])] {
        self.raw.as_ref().unwrap_or(&self.joined)
    }

    /// Returns what the configuration of the gateway says about this name. Empty if it says nothing.
    pub(super) fn configured(&self, name: &str) -> &'m str {
        let mut configured = self.context_extensions.iter().rev();
        let found = configured.find(|(found, _)| *found == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Reads the fields of a message that have this number.
fn read_only<'m>(
    number: u32,
    message: Value<'m>,
    read: &mut dyn FnMut(Value<'m>) -> Option<()>,
) -> Option<()> {
    read_fields(message.bytes()?, |found, value| {
        if found == number {
            read(value)
        } else {
            Some(())
        }
    })
}

/// The name and the value of an entry of a map.
fn entry(entry: Value<'_>) -> Option<(&str, Value<'_>)> {
    let (mut name, mut text) = ("", Value::Long(b""));
    read_fields(entry.bytes()?, |number, value| {
        match number {
            1 => name = value.text()?,
            2 => text = value,
            _ => {}
        }
        Some(())
    })?;
    Some((name, text))
}

/// The name and the value of a `HeaderValue`.
fn header(header: Value<'_>) -> Option<(&str, &[u8])> {
    let (mut name, mut text, mut raw) = ("", "", &b""[..]);
    read_fields(header.bytes()?, |number, value| {
        match number {
            1 => name = value.text()?,
            2 => text = value.text()?,
            3 => raw = value.bytes()?,
            _ => {}
        }
        Some(())
    })?;
    Some((name, if raw.is_empty() { text.as_bytes() } else { raw }))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option::of;
    use proptest::prelude::{Strategy, TestCaseError, any, prop, prop_assert, proptest};
    use prost::Message;

    use super::*;
    use crate::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
    use crate::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
    use crate::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};

    /// The question in a request that prost has decoded. A new field does not compile until somebody decides what it means.
    fn model<'m>(request: &'m CheckRequest) -> CheckQuestion<'m> {
        let CheckRequest { attributes } = request;
        let mut question = CheckQuestion::default();
        let Some(AttributeContext {
            source,
            request,
            context_extensions,
        }) = attributes
        else {
            return question;
        };
        question.has_attributes = true;
        if let Some(Peer {
            address:
                Some(Address {
                    socket_address: Some(SocketAddress { address }),
                }),
        }) = source
        {
            question.source = address;
        }
        let configured = context_extensions.iter();
        question.context_extensions = configured
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if let Some(Request {
            http:
                Some(HttpRequest {
                    method,
                    headers,
                    path,
                    header_map,
                }),
        }) = request
        {
            question.has_http = true;
            question.method = method;
            question.target = path;
            let joined = headers.iter();
            question.joined = joined
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect();
            question.raw = header_map.as_ref().map(|HeaderMap { headers }| {
                let header = |header: &'m HeaderValue| {
                    let HeaderValue {
                        key,
                        value,
                        raw_value,
                    } = header;
                    let value = match &raw_value[..] {
                        [] => value.as_bytes(),
                        raw => raw,
                    };
                    (key.as_str(), value)
                };
                headers.iter().map(header).collect()
            });
        }
        question
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let text = || "[a-zé]{0,9}|.{0,200}";
        let header = (text(), text(), vec(any::<u8>(), 0..9));
        let http = (
            text(),
            text(),
            btree_map(text(), text(), 0..5),
            of(vec(header, 0..5)),
        );
        let attributes = (
            of(of(of(text()))),
            of(of(http)),
            btree_map(text(), text(), 0..5),
        );
        of(attributes).prop_map(|attributes| {
            let attributes = attributes.map(|(source, request, context_extensions)| {
                let socket_address = |address| SocketAddress { address };
                let address = |address: Option<String>| Address {
                    socket_address: address.map(socket_address),
                };
                let peer = |peer: Option<_>| Peer {
                    address: peer.map(address),
                };
                let header = |(key, value, raw_value)| HeaderValue {
                    key,
                    value,
                    raw_value,
                };
                let map = |headers: Vec<_>| HeaderMap {
                    headers: headers.into_iter().map(header).collect(),
                };
                let http = |(method, path, headers, raw): (_, _, _, Option<_>)| HttpRequest {
                    method,
                    headers,
                    path,
                    header_map: raw.map(map),
                };
                let of_http = |request: Option<_>| Request {
                    http: request.map(http),
                };
                AttributeContext {
                    source: source.map(peer),
                    request: request.map(of_http),
                    context_extensions,
                }
            });
            CheckRequest { attributes }.encode_to_vec()
        })
    }

    fn prost_decodes(message: &[u8]) -> Result<CheckRequest, TestCaseError> {
        CheckRequest::decode(message).map_err(|error| TestCaseError::fail(error.to_string()))
    }

    /// Whether a question is the one that prost reads. Of the entries of a map with the same name, prost keeps the last.
    fn is_read_by_prost(
        mut question: CheckQuestion<'_>,
        message: &[u8],
    ) -> Result<bool, TestCaseError> {
        last_of_each_name(&mut question.joined);
        last_of_each_name(&mut question.context_extensions);
        Ok(question == model(&prost_decodes(message)?))
    }

    fn last_of_each_name<T>(entries: &mut Vec<(&str, T)>) {
        entries.reverse();
        entries.sort_by_key(|(name, _)| *name);
        entries.dedup_by_key(|(name, _)| *name);
    }

    proptest! {
        /// Two messages one after the other are one message, whose fields are merged.
        #[test]
        fn a_question_is_what_prost_reads(first in any_message(), second in any_message()) {
            let both = [&first[..], &second].concat();
            for message in [first, both] {
                let question = CheckQuestion::decode(&message).expect("a message");
                prop_assert!(is_read_by_prost(question, &message)?);
            }
        }

        /// What prost does not decode is not taken, and nothing that prost decodes is read otherwise. Seen red with texts that are
        /// not UTF-8.
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
            if let Some(question) = CheckQuestion::decode(&message) {
                prop_assert!(is_read_by_prost(question, &message)?);
            }
        }
    }
}
