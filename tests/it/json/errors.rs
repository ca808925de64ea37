//! What is refused, and how it is said.

use serde_json::json;

use super::client::Client;
use super::{JsonServer, assert_refused};

const VERIFY: &str = "POST /claviger.v1.KeyVerify/Verify";
const JSON: &str = "content-type: application/json";

/// The body is no JSON. So whoever gets another error than for that, was refused before somebody read it.
const NO_JSON: &str = "content-length: 1";

/// First lines and headers of requests that are refused, the status, and the reason.
const FORMS: &[(&str, &[&str], u16, &str)] = &[
    (
        "GET /claviger.v1.KeyVerify/Verify",
        &[],
        405,
        "UNIMPLEMENTED",
    ),
    (
        "GET /claviger.v1.KeyVerify/Verify?encoding=json&message=%7B%7D",
        &[],
        405,
        "UNIMPLEMENTED",
    ),
    (
        "PUT /claviger.v1.KeyVerify/Verify",
        &[JSON],
        405,
        "UNIMPLEMENTED",
    ),
    (
        "OPTIONS /claviger.v1.KeyVerify/Verify",
        &[],
        405,
        "UNIMPLEMENTED",
    ),
    (VERIFY, &[], 415, "UNIMPLEMENTED"),
    (
        VERIFY,
        &["content-type: application/x-www-form-urlencoded"],
        415,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &["content-type: application/proto"],
        415,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &["content-type: application/connect+json"],
        415,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &["content-type: application/grpc"],
        415,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &["content-type: application/json; charset=latin1"],
        415,
        "UNIMPLEMENTED",
    ),
    (
        "POST /claviger.v1.KeyVerify/VerifyStream",
        &[JSON],
        415,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &[JSON, "content-encoding: gzip"],
        501,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &[JSON, "content-encoding: identity", "content-encoding: br"],
        501,
        "UNIMPLEMENTED",
    ),
    (
        VERIFY,
        &[JSON, "connect-protocol-version: 2"],
        400,
        "INVALID_FIELD",
    ),
    (
        VERIFY,
        &[JSON, "connect-timeout-ms: soon"],
        400,
        "INVALID_FIELD",
    ),
    (
        VERIFY,
        &[JSON, "connect-timeout-ms: 12345678901"],
        400,
        "INVALID_FIELD",
    ),
    (
        "POST /claviger.v1.KeyVerify/Verify?x=1",
        &[JSON],
        501,
        "NO_SUCH_METHOD",
    ),
    (
        "POST /claviger.v1.KeyVerify/verify",
        &[JSON],
        501,
        "NO_SUCH_METHOD",
    ),
    (
        "POST /claviger.v1.KeyVerify/Verify/",
        &[JSON],
        501,
        "NO_SUCH_METHOD",
    ),
    (
        "POST /claviger.v1.KeyAdmin/Nothing",
        &[JSON],
        501,
        "NO_SUCH_METHOD",
    ),
    (
        "POST /claviger.v1.Nothing/GetKey",
        &[JSON],
        501,
        "NO_SUCH_METHOD",
    ),
    (VERIFY, &[JSON], 400, "MALFORMED_REQUEST"),
    (
        VERIFY,
        &[JSON, "content-encoding: identity"],
        400,
        "MALFORMED_REQUEST",
    ),
];

/// Seen red with each check of the request's form left out.
#[test]
fn a_call_of_another_form_is_refused_with_the_status_of_its_fault() {
    let server = JsonServer::start(&[]);
    let mut client = server.client();
    for (line, headers, status, reason) in FORMS {
        let (headers, status) = (*headers, *status);
        let headers = [headers, &[NO_JSON]].concat();
        let head = client.head(line, &headers);
        let reply = client.exchange(format!("{head}x").as_bytes());
        let code = match status {
            400 => "invalid_argument",
            _ => "unimplemented",
        };
        assert_refused(&reply, status, code, reason, &head);
        assert_eq!(reply.header("allow").is_some(), status == 405, "{reply:?}");
        let has_list = status == 415 && !line.ends_with("VerifyStream");
        assert_eq!(reply.header("accept-post").is_some(), has_list, "{reply:?}");
    }
    // The other services are not here.
    for line in [
        "POST /grpc.health.v1.Health/Check",
        "POST /envoy.service.auth.v3.Authorization/Check",
        "POST /KeyVerify/Verify",
    ] {
        let head = client.head(line, &[JSON, "content-length: 0"]);
        assert_eq!(client.exchange(head.as_bytes()).status, 404, "{line}");
    }
}

/// Seen red with a look at the body before the guard's at the key.
#[test]
fn nobody_without_a_key_has_its_body_read() {
    let server = JsonServer::start(&[]);
    let mut operator = server.client_with_demo();
    let (_, partner) = super::issue(&mut operator);
    let bearer = format!("Bearer {}", server.operator);
    for authorization in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer nonsense"),
        Some("Basic b3BlcmF0b3I6"),
        Some(&bearer[..bearer.len() - 1]),
        Some(&*format!("{bearer}\r\nauthorization: {bearer}")),
    ] {
        for method in [
            "KeyVerify/Verify",
            "KeyVerify/Explain",
            "KeyVerify/VerifyBatch",
            "KeyAdmin/IssueKey",
            "RealmAdmin/PutRealm",
            "AuthorityAdmin/SetLease",
        ] {
            let mut client = Client::new(&server.program.http, None);
            client.authorization = authorization.map(str::to_owned);
            let reply = client.post(method, b"no JSON");
            assert_refused(&reply, 401, "unauthenticated", "NOT_AUTHENTICATED", method);
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    // A key that may not do this is known, so its body is read, as over gRPC.
    let mut client = Client::new(&server.program.http, Some(&partner));
    let reply = client.post("KeyAdmin/GetKey", b"{}");
    assert_refused(&reply, 403, "permission_denied", "NOT_ALLOWED", "a partner");
    let reply = client.post("KeyAdmin/GetKey", b"no JSON");
    assert_refused(
        &reply,
        400,
        "invalid_argument",
        "MALFORMED_REQUEST",
        "a partner",
    );
}

#[test]
fn each_code_has_the_status_of_connect() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let (id, _) = super::issue(&mut client);
    let far = "4611686018427387904";
    let realm = json!({"id": "other", "prefix": "demo", "environments": [{"name": "production", "tag": "live"}]});
    for (method, request, status, code, reason) in [
        (
            "KeyAdmin/GetKey",
            json!({"keyId": "0192f0c1-2345-7abc-8def-0123456789ab"}),
            404,
            "not_found",
            "NOT_FOUND",
        ),
        (
            "RealmAdmin/PutRealm",
            json!({"realm": realm}),
            409,
            "already_exists",
            "ALREADY_EXISTS",
        ),
        (
            "KeyAdmin/DisableKey",
            json!({"keyId": id, "ifRevision": "1"}),
            409,
            "aborted",
            "CHANGED_MEANWHILE",
        ),
        (
            "AuthorityAdmin/SetLease",
            json!({"lease": "30s"}),
            400,
            "failed_precondition",
            "EMBEDDED_DATABASE",
        ),
        (
            "KeyVerify/Verify",
            json!({"realm": "nothing"}),
            400,
            "invalid_argument",
            "INVALID_FIELD",
        ),
        (
            "KeyVerify/Verify",
            json!({"realm": "demo", "minRevision": 1_000}),
            503,
            "unavailable",
            "BEHIND_MIN_REVISION",
        ),
        (
            "KeyVerify/Verify",
            json!({"realm": "demo", "minRevision": far}),
            503,
            "unavailable",
            "BEHIND_MIN_REVISION",
        ),
    ] {
        let reply = client.post(method, request.to_string().as_bytes());
        assert_refused(&reply, status, code, reason, method);
        let retry = (status == 503).then_some("1");
        assert_eq!(reply.header("retry-after"), retry, "{reply:?}");
    }
}

/// The faults themselves are in the tests of the decoder. Here they come as bytes over the network, and on both planes.
#[test]
fn a_bad_body_gets_a_clear_error() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let deep = "[".repeat(50_000);
    for (method, body, field) in [
        ("KeyVerify/Verify", &b""[..], None),
        (
            "KeyVerify/Verify",
            b"\xef\xbb\xbf{\"realm\": \"demo\"}",
            None,
        ),
        ("KeyVerify/Verify", b"{\"realm\": \"demo\"} x", None),
        (
            "KeyVerify/Verify",
            b"{\"realm\": \"demo\", \"minRevision\": NaN}",
            None,
        ),
        ("KeyVerify/Verify", b"{\"realm\": \"\\ud800\"}", None),
        ("KeyVerify/Verify", b"{\"realm\": \"\xff\"}", None),
        ("KeyVerify/Verify", deep.as_bytes(), Some("request")),
        (
            "KeyVerify/Verify",
            b"{\"realm\": \"demo\", \"realm\": \"demo\"}",
            Some("realm"),
        ),
        (
            "KeyVerify/Verify",
            b"{\"realm\": \"demo\", \"minRevision\": 1e20}",
            Some("min_revision"),
        ),
        (
            "KeyVerify/Verify",
            b"{\"realm\": \"demo\", \"environmnet\": \"\"}",
            Some("environmnet"),
        ),
        ("KeyAdmin/GetKey", deep.as_bytes(), Some("request")),
        (
            "KeyAdmin/GetKey",
            b"{\"keyId\": \"x\", \"key_id\": \"x\"}",
            Some("key_id"),
        ),
        ("KeyAdmin/GetKey", b"{\"keyId\": \"x\"}", Some("key_id")),
        (
            "KeyAdmin/ImportKeys",
            b"{\"realm\": \"demo\", \"entries\": [{\"sha256\": 1}]}",
            Some("entries[0].sha256"),
        ),
        (
            "KeyAdmin/IssueKey",
            b"{\"realm\": \"demo\", \"expireTime\": \"9999999-01-01T00:00:00Z\"}",
            Some("expire_time"),
        ),
    ] {
        let reply = client.post(method, body);
        let reason = field.map_or("MALFORMED_REQUEST", |_| "INVALID_FIELD");
        let what = String::from_utf8_lossy(body);
        assert_refused(&reply, 400, "invalid_argument", reason, &what);
        assert_eq!(reply.fields(), Vec::from_iter(field), "{what}");
    }
    // Base64 that is none is the entry's own error, as over gRPC.
    let entry = json!({"sha256": "no base64!", "partner": "acme", "level": "KEY_LEVEL_PARTNER"});
    let imported = client.call(
        "KeyAdmin/ImportKeys",
        &json!({"realm": "demo", "entries": [entry]}),
    );
    let error = &imported["results"][0]["error"];
    assert_eq!(
        (&error["code"], &error["details"][0]["reason"]),
        (&3.into(), &"INVALID_FIELD".into()),
        "{imported}"
    );
}
