//! A method is called by its name and by nothing that looks like it.

use crate::fixtures::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, call, frame, message,
};
use crate::fixtures::{Engine, Program, TestStore, verify_request};

const VERIFY: &str = "/claviger.v1.KeyVerify/Verify";

/// Whether a good question of a good caller, sent to this path, is answered by a handler: with a message, that is.
async fn is_answered(address: &str, path: &str, bearer: &str, question: &[u8]) -> bool {
    let mut raw = Raw::http2(address, 1, &[]).await;
    let head = call(path, &[("authorization", bearer)]);
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, END_STREAM, 1, question),
    ];
    raw.send(&frames.concat()).await.unwrap();
    loop {
        // Whether h2 refuses the stream, or the connection, or we refuse the call: it is not answered.
        let Some(frame) = raw.next().await else {
            return false;
        };
        match frame.kind {
            DATA if !frame.payload.is_empty() => return true,
            RST_STREAM | GOAWAY => return false,
            HEADERS if frame.flags & END_STREAM != 0 => return false,
            _ => {}
        }
    }
}

/// Seen red for the query, without the guard's look at it: the router compares the path alone. A fragment (`Verify#x`) is
/// not among them: the `http` crate cuts it off before anybody here could see it.
#[tokio::test]
async fn an_odd_path_reaches_no_handler() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    api.make_demo().await;
    let question = message(&verify_request(&api.issue().await.plain_key));
    let bearer = format!("Bearer {}", program.operator());
    let asked = async |path: &str| is_answered(&program.address, path, &bearer, &question).await;

    assert!(asked(VERIFY).await, "the method itself answers");
    for path in [
        "",
        "*",
        "/",
        "claviger.v1.KeyVerify/Verify",
        "//claviger.v1.KeyVerify/Verify",
        "/claviger.v1.KeyVerify//Verify",
        "/claviger.v1.KeyVerify/Verify/",
        "/claviger.v1.KeyVerify/Verify//",
        "/claviger.v1.KeyVerify/Verify/x",
        "/claviger.v1.KeyVerify/",
        "/claviger.v1.KeyVerify",
        "/claviger.v1.KeyVerify/verify",
        "/Claviger.v1.KeyVerify/Verify",
        "/CLAVIGER.V1.KEYVERIFY/VERIFY",
        "/claviger.v1.KeyVerify%2fVerify",
        "/claviger.v1.KeyVerify%2FVerify",
        "%2fclaviger.v1.KeyVerify/Verify",
        "/claviger%2ev1.KeyVerify/Verify",
        "/claviger.v1.KeyVerify/%56erify",
        "/claviger.v1.KeyVerify/./Verify",
        "/./claviger.v1.KeyVerify/Verify",
        "/x/../claviger.v1.KeyVerify/Verify",
        "/claviger.v1.KeyAdmin/../claviger.v1.KeyVerify/Verify",
        "/claviger.v1.KeyVerify/Verify?",
        "/claviger.v1.KeyVerify/Verify?x=1",
        "/claviger.v1.KeyVerify/Verify;x=1",
        "/claviger.v1.KeyVerify/Verify ",
        " /claviger.v1.KeyVerify/Verify",
        "/claviger.v1.KeyVerify/Verify%00",
        "/claviger.v1.KeyVerify\\Verify",
        "http://test/claviger.v1.KeyVerify/Verify",
        "/grpc.health.v1.Health/../claviger.v1.KeyVerify/Verify",
        "/grpc.reflection.v1.ServerReflection/../../claviger.v1.KeyVerify/Verify",
    ] {
        assert!(!asked(path).await, "{path:?}");
    }
    assert!(asked(VERIFY).await, "and it still does");
}
