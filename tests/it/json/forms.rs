//! The forms in which one request may come.

use serde_json::json;

use super::{JsonServer, issue, text};

#[test]
fn a_request_may_have_either_name_and_either_form_of_a_value() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let (id, key) = issue(&mut client);
    for request in [
        json!({"keyId": id}),
        json!({"key_id": id}),
        json!({"keyId": id, "ifPartner": null}),
        json!({"keyId": id, "if_partner": "acme"}),
    ] {
        assert_eq!(client.call("KeyAdmin/GetKey", &request)["key"]["id"], *id);
    }
    for revision in [json!("1"), json!(1), json!(1.0), json!(null)] {
        let question = json!({"realm": "demo", "key": key, "minRevision": revision});
        let answer = client.call("KeyVerify/Verify", &question);
        assert_eq!(answer["verdict"], "VERDICT_ALLOWED");
        assert!(text(&answer["revision"]).parse::<u64>().unwrap() > 1);
    }
    for level in [json!("KEY_LEVEL_PARTNER"), json!(1)] {
        let request = json!({"realm": "demo", "partner": "acme", "level": level, "scopes": []});
        let issued = client.call("KeyAdmin/IssueKey", &request);
        assert_eq!(issued["key"]["level"], "KEY_LEVEL_PARTNER");
        assert!(
            issued["key"].get("scopes").is_none(),
            "a default is left out"
        );
    }
    let request = json!({
        "keyId": id, "updateMask": "expireTime,labels", "expireTime": "2040-01-31T12:00:00+02:00", "labels": {"a b": ""},
    });
    let updated = client.call("KeyAdmin/UpdateKey", &request);
    assert_eq!(updated["key"]["expireTime"], "2040-01-31T10:00:00Z");
    assert_eq!(updated["key"]["labels"], json!({"a b": ""}));
}

#[test]
fn a_request_may_come_in_chunks_and_with_other_spellings_of_its_headers() {
    let server = JsonServer::start(&[]);
    let mut client = server.client_with_demo();
    let (_, key) = issue(&mut client);
    // The long one is read on the threads of administration.
    for scopes in [1, 64, 1_000] {
        let question = json!({"realm": "demo", "key": key, "scopes": vec!["read"; scopes]});
        let question = question.to_string();
        let path = "POST /claviger.v1.KeyVerify/Verify";
        let content_type = "Content-Type: APPLICATION/JSON; charset=\"utf-8\"";
        let length = format!("Content-Length: {}", question.len());
        let whole = client.head(path, &[content_type, &length]) + &question;
        let chunked = client.head(path, &[content_type, "Transfer-Encoding: chunked"]);
        let chunks: Vec<_> = question
            .as_bytes()
            .chunks(100)
            .map(|chunk| {
                let text = std::str::from_utf8(chunk).unwrap();
                format!("{:x}\r\n{text}\r\n", text.len())
            })
            .collect();
        for request in [whole, format!("{chunked}{}0\r\n\r\n", chunks.concat())] {
            let reply = client.exchange(request.as_bytes());
            assert_eq!(reply.json()["verdict"], "VERDICT_ALLOWED", "{reply:?}");
        }
    }
}

/// Seen red with the header left out of the response to an error.
#[test]
fn a_call_has_its_request_id_and_its_count() {
    let server = JsonServer::start(&[]);
    let mut client = server.client();
    let id = "x-request-id: the-request";
    let headers = [
        id,
        "connect-timeout-ms: 9999999999",
        "connect-protocol-version: 1",
    ];
    for (method, status) in [("RealmAdmin/ListRealms", 200), ("KeyAdmin/GetKey", 400)] {
        let reply = client.post_with(method, &headers, b"{}");
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("x-request-id"), Some("the-request"));
    }
    // The caller of gRPC sets its deadline by another header, which means nothing here.
    let grpc = ["grpc-timeout: 0n", "grpc-encoding: gzip", "te: trailers"];
    let reply = client.post_with("RealmAdmin/ListRealms", &grpc, b"{}");
    assert_eq!(reply.status, 200, "{reply:?}");
    let get = client.head("GET /metrics", &["connection: close"]);
    let metrics = String::from_utf8(client.exchange(get.as_bytes()).body).unwrap();
    for (method, code, count) in [("ListRealms", "OK", 2), ("GetKey", "InvalidArgument", 1)] {
        let counted = metrics.lines().any(|line| {
            line.starts_with("grpc_server_handled_total{")
                && [method, code]
                    .iter()
                    .all(|label| line.contains(&format!("\"{label}\"")))
                && line.ends_with(&format!(" {count}"))
        });
        assert!(counted, "{method} {code}: {metrics}");
    }
}
