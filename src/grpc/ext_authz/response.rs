//! Encodes the answers to Envoy.

use prost::Message;
use prost::encoding::{bool, int32};
use tonic::Code;

use crate::domain::denial::DenialClass;
use crate::gateway::{GatewayResponse, HttpDenial, SetHeader};
use crate::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::pb::envoy::service::auth::v3::check_response::HttpResponse;
use crate::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse};
use crate::pb::envoy::r#type::v3::HttpStatus;
use crate::protobuf::{Encoded, put_field, put_message, put_string, tag};

/// Most answers that allow a request have fewer bytes.
const USUAL_ANSWER: usize = 512;

/// Encodes an answer. It always has a status: Envoy takes an answer without one for an allowed request.
pub(super) fn check_response(answer: GatewayResponse) -> Encoded<CheckResponse> {
    match answer {
        GatewayResponse::Allowed {
            mut identity,
            without_keys,
            mut remove,
        } => {
            for (name, value) in without_keys {
                if value.is_empty() {
                    remove.push(name.to_owned());
                } else {
                    identity.push((name.into(), value));
                }
            }
            Encoded::new(allowed(&identity, &remove))
        }
        GatewayResponse::Denied { class, denial, .. } => {
            Encoded::new(denied(class, denial).encode_to_vec())
        }
    }
}

/// Encodes an answer that sets these headers and removes others. It is written field by field, because messages would own a copy
/// of each name and value.
fn allowed(headers: &[SetHeader], remove: &[String]) -> Vec<u8> {
    const STATUS: u8 = tag(1);
    const OK_RESPONSE: u8 = tag(3);
    const HEADERS: u8 = tag(2);
    const HEADERS_TO_REMOVE: u8 = tag(5);
    let mut bytes = Vec::with_capacity(USUAL_ANSWER);
    // An empty status has the code 0.
    put_field(STATUS, &[], &mut bytes);
    put_message(OK_RESPONSE, &mut bytes, |bytes| {
        for (name, value) in headers {
            put_message(HEADERS, bytes, |bytes| put_header(name, value, bytes));
        }
        for name in remove {
            put_field(HEADERS_TO_REMOVE, name.as_bytes(), bytes);
        }
    });
    bytes
}

/// Writes the fields of what [`header`] returns.
fn put_header(name: &str, value: &str, bytes: &mut Vec<u8>) {
    const HEADER: u8 = tag(1);
    const NAME: u8 = tag(1);
    const VALUE: u8 = tag(2);
    const APPEND_ACTION: u32 = 3;
    const KEEP_EMPTY_VALUE: u32 = 4;
    put_message(HEADER, bytes, |bytes| {
        put_string(NAME, name, bytes);
        put_string(VALUE, value, bytes);
    });
    let action = HeaderAppendAction::OverwriteIfExistsOrAdd;
    int32::encode(APPEND_ACTION, &action.into(), bytes);
    bool::encode(KEEP_EMPTY_VALUE, &true, bytes);
}

fn denied(class: DenialClass, denial: HttpDenial) -> CheckResponse {
    let code = match class {
        DenialClass::Unauthenticated => Code::Unauthenticated,
        DenialClass::Forbidden => Code::PermissionDenied,
        DenialClass::Undecided => Code::Unavailable,
    };
    let headers = denial.headers.into_iter();
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus {
            code: denial.status.into(),
        }),
        headers: headers.map(|(name, value)| header(name, value)).collect(),
        body: denial.body,
    };
    CheckResponse {
        status: Some(tonic_types::Status {
            code: code.into(),
            ..tonic_types::Status::default()
        }),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
    }
}

/// A header that replaces every header of this name, also with an empty value.
fn header(name: String, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name,
            value,
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::service::auth::v3::OkHttpResponse;

    #[test]
    fn an_allowed_answer_is_encoded_like_its_message() {
        let long = "x".repeat(300);
        let headers: [SetHeader; 3] = [
            ("a".into(), "b".to_owned()),
            ("empty".into(), String::new()),
            ("long".into(), long),
        ];
        for remove in [&[][..], &["authorization".to_owned(), "x-key".to_owned()]] {
            let message = CheckResponse {
                status: Some(tonic_types::Status::default()),
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: headers
                        .iter()
                        .map(|(name, value)| header(name.to_string(), value.clone()))
                        .collect(),
                    headers_to_remove: remove.to_vec(),
                })),
            };
            assert_eq!(allowed(&headers, remove), message.encode_to_vec());
        }
    }
}
