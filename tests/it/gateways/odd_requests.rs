//! Paths and headers that are odd on purpose. Each is refused, or reaches the server behind as a plain path that the key is
//! good for, with exactly what claviger says of it.
//!
//! Seen red: with segments that are let through unchecked, with identity headers that are left out where there is nothing to
//! tell, with no headers taken away, without a look for underscores; and in the examples without `REJECT_REQUEST`, without one of
//! nginx's identity headers, without Caddy's two `request_header` lines at the top.

use claviger::domain::path::{PathRules, RequestPath};

use super::fixture::{GatewayFixture, PARTNERO, PEAKA, Site};
use super::gateway_process::GatewayKind;
use super::path_readings::{Reading, STRICT};

/// Where the key `project` may go, and nowhere else.
const OWN: &str = "/api/v1/data/projects/mtKDhe1U";

/// Targets that nobody should pass on. `OWN` is put in the place of the tilde.
const REFUSED: &[&str] = &[
    // Dot segments, plain and encoded.
    "~/../nQ2vXs8B/catalogs",
    "~/./catalogs",
    "~/..",
    "~/../../../organizations",
    "~/%2e%2e/nQ2vXs8B/catalogs",
    "~/.%2e/nQ2vXs8B/catalogs",
    "~/%2E%2E/nQ2vXs8B/catalogs",
    "~/%252e%252e/nQ2vXs8B/catalogs",
    "~/..;/nQ2vXs8B/catalogs",
    "~/..%2fnQ2vXs8B/catalogs",
    "~/..%5cnQ2vXs8B/catalogs",
    "~/..\\nQ2vXs8B/catalogs",
    "~/..%00/nQ2vXs8B",
    "~/..%0d%0a/nQ2vXs8B",
    "~/.../../x",
    "/../~/catalogs",
    "/api/v1/organizations/../data/projects/mtKDhe1U/catalogs",
    // Slashes, encoded and doubled.
    "~%2fcatalogs",
    "~%2Fcatalogs",
    "~%252fcatalogs",
    "~%5ccatalogs",
    "~\\catalogs",
    "~//catalogs",
    "/~/catalogs",
    "//api.example~/catalogs",
    "~/catalogs//",
    "~/catalogs/",
    "/api/v1//data/projects/mtKDhe1U/catalogs",
    // Parameters and other delimiters.
    "~;x=1/catalogs",
    "~/catalogs;x=1",
    "~/catalogs%3bx=1",
    "~/catalogs%3fx=1",
    "~/catalogs%23x",
    "~/catalogs\"",
    "~/catalogs^",
    "~/cat alogs",
    "~/cat\talogs",
    // What no text is, and what is more than one.
    "~/catalogs%00",
    "~/catalogs%00.json",
    "~/catalogs%0a",
    "~/catalogs%7f",
    "~/%c0%af",
    "~/%c0%ae%c0%ae/x",
    "~/%e0%80%af",
    "~/%ed%a0%80",
    "~/%ff",
    "~/%u002e%u002e/x",
    "~/%",
    "~/%2",
    "~/%zz",
    "~/catalogs\u{1}",
    "~/catalogs\u{0}",
    "~/catalogs\u{7f}",
    "~/catalogs\u{e9}",
    "~/\u{ff0e}\u{ff0e}/x",
    // Another case, another end.
    "/API/v1/data/projects/mtKDhe1U/catalogs",
    "/api/v1/data/Projects/mtKDhe1U/catalogs",
    "/api/v1/data/projects/mtkdhe1u/catalogs",
    "/api/v1/data/projects/mtKDhe1U./catalogs",
    "/api/v1/data/projects/mtKDhe1U%20/catalogs",
    "/api/v1/data/projects/mtKDhe1U%e2%80%8b/catalogs",
    "/api/v1/data/projects/mtKDhe1U,nQ2vXs8B/catalogs",
    "/api/v1/data/projects/{mtKDhe1U}/catalogs",
    "/api/v1/data/projects/*/catalogs",
    "/api/v1/data/projects//catalogs",
    // No path at all.
    "*",
    "api.example:80",
    "?~/catalogs",
    "#~/catalogs",
    "file://~/catalogs",
    "http://api.example~/../nQ2vXs8B",
];

/// Targets that are plain, whatever they look like.
const PASSED: &[&str] = &[
    "~/catalogs?next=/../../nQ2vXs8B",
    "~/catalogs?a=%2f..%2f&b=%00",
    "~/catalogs?x;y",
    "~/catalogs??",
    "~/catalogs?",
    "~/a.b/...",
    "~/a%20b",
    "~/%C3%A9",
    "~/a:b@c",
    "~/~tilde",
    "~",
    // What needs no encoding, encoded.
    "/%61pi/v1/data/projects/mtKDhe1U/catalogs",
    "/api/v1/data/projects/%6dtKDhe1U/%7e%2D%5f%2ea",
];

/// Whole requests, which should be refused or be one plain request. `{…}` is an API key.
const REQUESTS: &[&str] = &[
    // The first line.
    "GET  ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET\t~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.1 x\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs /api/v1/organizations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/9.9\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "get ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "\r\nGET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET http://api.example~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET http://api.example/api/v1/organizations HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET http://user@api.example~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "GET HTTP://API.EXAMPLE~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "CONNECT api.example:443 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    "TRACE ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\n",
    // Whose host it is.
    "GET ~/catalogs HTTP/1.1\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nHost: b\r\nAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a/../b\r\nAuthorization: Bearer {project}\r\n",
    // Where a header ends.
    "GET ~/catalogs HTTP/1.1\nHost: a\nAuthorization: Bearer {project}\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n {project}\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nX: y\r\n Authorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nX: y\rAuthorization: Bearer {project}\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\n: nothing\r\nAuthorization: Bearer {project}\r\n",
    // Where a request ends.
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nTransfer-Encoding: chunked, identity\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nTransfer-Encoding: xchunked\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nTransfer-Encoding : chunked\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nContent-Length: 0\r\nContent-Length: 44\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nContent-Length: +0\r\n",
    "POST ~/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nContent-Length: 0, 0\r\n",
    // What belongs to one hop only: a gateway must not let the client take off what it has put on.
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nConnection: close, X-Claviger-Partner, X-Claviger-Key-Id\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nConnection: X-Claviger-Authorization\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nConnection: Authorization\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nConnection: X-Forwarded-Uri, X-Forwarded-Method\r\n",
    "GET ~/catalogs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
];

/// Headers by which a client would be somebody else, or somewhere else.
const FORGED: &[&str] = &[
    "X-Claviger-Partner: umbrella",
    "x-claviger-partner: umbrella",
    "X-CLAVIGER-PARTNER: umbrella",
    "X-Claviger-Partner: umbrella\r\nX-Claviger-Partner: umbrella",
    "X-Claviger-Partner: umbrella, umbrella",
    "X-Claviger-Partner:",
    "X_Claviger_Partner: umbrella",
    "x-claviger_partner: umbrella",
    "X_CLAVIGER-PARTNER: umbrella",
    "X-Claviger-Key-Id: 01890a5d-ac96-774b-bcce-b302099a8057",
    "X-Claviger-Realm: bullseye",
    "X-Claviger-Project: zR7wLk4C",
    "X_Claviger_Project: zR7wLk4C",
    "X-Claviger-Environment: staging",
    "X-Claviger-Scopes: admin",
    "X-Claviger-Scopes: admin\r\nX_Claviger_Scopes: admin",
    "X-Claviger-Other: nonsense",
    "X-Claviger-Authorization: Bearer nonsense",
    "X-Claviger-Authorization: Bearer nonsense\r\nX-Claviger-Authorization: Bearer nonsense",
    "X_Claviger_Authorization: Bearer nonsense",
    "X-Original-Uri: ~/catalogs",
    "X-Original-Uri: ~/catalogs\r\nX-Original-Method: GET",
    "X-Original-Uri: ~/catalogs\r\nX-Original-Uri: ~/catalogs",
    "X_Original_Uri: ~/catalogs",
    "X-Original-Method: OPTIONS",
    "X-Forwarded-Uri: ~/catalogs",
    "X-Forwarded-Uri: ~/catalogs\r\nX-Forwarded-Uri: ~/catalogs",
    "X_Forwarded_Uri: ~/catalogs",
    "X-Forwarded-Method: OPTIONS",
    "X-Forwarded-Host: claviger\r\nX-Forwarded-Proto: gopher",
    "X-Forwarded-For: 127.0.0.1",
    "X-Envoy-Original-Path: ~/catalogs",
    "X-Envoy-Internal: true",
    "X-Envoy-External-Address: 10.0.0.1",
    ":path: ~/catalogs",
];

/// All single targets, and more.
pub(super) fn targets(more: &[&str]) -> impl Iterator<Item = String> {
    [REFUSED, PASSED, more].concat().into_iter().map(own)
}

pub(super) fn own(text: &str) -> String {
    // A tilde at the end of a word is a tilde.
    text.replacen('~', OWN, 1)
}

/// Many headers or large ones may be too much for a gateway, but never make it say that claviger cannot tell.
async fn send_burdens(fixture: &GatewayFixture, wrong: &mut Vec<String>) -> usize {
    let many = (0..150).map(|i| format!("X-Small-{i}: y"));
    let large = (0..3).map(|i| format!("X-Large-{i}: {}", "y".repeat(7_000)));
    let mut count = 0;
    for burden in [many.collect::<Vec<_>>(), large.collect()] {
        for key in ["good", "revoked"] {
            count += 1;
            let line = format!("GET {OWN}/catalogs");
            let bearer = format!("Authorization: Bearer {{{key}}}");
            let headers: Vec<_> = burden.iter().cloned().chain([bearer]).collect();
            let (answer, seen) = fixture.request(PEAKA, &line, &headers).await;
            let passed = answer.status == 200 && seen.len() == 1 && key == "good";
            if !passed && !is_refusal(answer.status) {
                wrong.push(format!(
                    "{} headers with {key}: {}",
                    headers.len(),
                    answer.status
                ));
            }
        }
    }
    count
}

/// Sends all of it, and returns how many requests that were.
pub(super) async fn send_all(fixture: &GatewayFixture) -> usize {
    let mut wrong = Vec::new();
    let mut count = 0;
    fixture.put_realm(PEAKA, |realm| STRICT.say(realm)).await;
    for target in REFUSED {
        count += 1;
        let target = own(target);
        let line = format!("GET {target}");
        for key in ["project", "good"] {
            let headers = [format!("Authorization: Bearer {{{key}}}")];
            let (answer, seen) = fixture.request(PEAKA, &line, &headers).await;
            // The partner's key is good for each plain path, so with it only what is odd is refused.
            let odd = RequestPath::parse(&target, &PathRules::default()).is_err();
            let refused = seen.is_empty() && is_refusal(answer.status);
            // What makes a path plain before it asks passes on what it asked about.
            let made_plain = matches!(
                fixture.kind,
                GatewayKind::Caddy | GatewayKind::EnvoyNormalising
            ) && matches!(seen.as_slice(), [seen] if STRICT.allows(key, seen.target()));
            if (key == "project" || odd) && !refused && !made_plain {
                wrong.push(format!("{target:?} with {key}: {} {seen:?}", answer.status));
            }
            if let ([seen], true) = (seen.as_slice(), made_plain) {
                fixture.check_seen(&target, seen, Some(&fixture.key(PEAKA, key).key));
            }
        }
    }
    for method in ["post", "Post", "pOST"] {
        count += 1;
        // A server that reads it as POST would make a key for whom only a partner may make one.
        let line = format!("{method} /api/v1/projects/mtKDhe1U/apiKeys");
        let headers = ["Authorization: Bearer {project}".to_owned()];
        let (answer, seen) = fixture.request(PEAKA, &line, &headers).await;
        if !seen.is_empty() || !is_refusal(answer.status) {
            wrong.push(format!("{line:?}: {} {seen:?}", answer.status));
        }
    }
    count += send_burdens(fixture, &mut wrong).await;
    for target in PASSED {
        count += 1;
        let target = own(target);
        let line = format!("GET {target}");
        let headers = ["Authorization: Bearer {project}".to_owned()];
        let (answer, seen) = fixture.request(PEAKA, &line, &headers).await;
        match seen.as_slice() {
            [seen] if answer.status == 200 && fixture.kind.passes_on(&target, seen.target()) => {
                fixture.check_seen(&line, seen, Some(&fixture.key(PEAKA, "project").key));
            }
            _ => wrong.push(format!("{line:?}: {} {seen:?}", answer.status)),
        }
    }
    count += send_requests(fixture, STRICT, &mut wrong).await;
    assert!(
        wrong.is_empty(),
        "{:?}, {} of {count}:\n{}",
        fixture.kind,
        wrong.len(),
        wrong.join("\n")
    );
    count
}

/// Sends the whole requests and the forged headers, where the server behind reads paths so. Returns how many those were.
pub(super) async fn send_requests(
    fixture: &GatewayFixture,
    reading: Reading,
    wrong: &mut Vec<String>,
) -> usize {
    for request in REQUESTS {
        let request = fixture.filled(PEAKA, &own(request));
        let end = if request.ends_with("\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        // A second request waits behind the first, for a server that disagrees about where the first one ends.
        let smuggled = "GET /api/v1/organizations HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = format!("{request}{end}0\r\n\r\n{smuggled}");
        let (answer, seen) = fixture.send(PEAKA, bytes.as_bytes()).await;
        let what = request.replace(&fixture.key(PEAKA, "project").plain_key, "KEY");
        match seen.as_slice() {
            [] if is_refusal(answer.status) => {}
            // Caddy answers by itself what is about no path but the server.
            [] if request.starts_with("OPTIONS *") && fixture.kind == GatewayKind::Caddy => {}
            [seen] if answer.status == 200 && reading.allows("project", seen.target()) => {
                fixture.check_seen(&what, seen, Some(&fixture.key(PEAKA, "project").key));
                let mut headers = seen.headers.iter();
                if headers.any(|(name, _)| name.eq_ignore_ascii_case("upgrade")) {
                    wrong.push(format!("{reading:?} {what:?}: {seen:?}"));
                }
            }
            _ => wrong.push(format!("{reading:?} {what:?}: {} {seen:?}", answer.status)),
        }
    }
    for forged in FORGED {
        wrong.extend(forge(fixture, forged).await);
    }
    REQUESTS.len() + 3 * FORGED.len()
}

/// On a request that is let through, on an open route, and on one that is denied.
async fn forge(fixture: &GatewayFixture, forged: &str) -> Vec<String> {
    let bearer = "Authorization: Bearer {project}".to_owned();
    let catalogs = format!("GET {OWN}/catalogs");
    let forged = own(forged);
    let project = &fixture.key(PEAKA, "project").key;
    let mut wrong = Vec::new();
    let rows: [(Site, &str, Vec<String>, Option<_>); 3] = [
        (
            PEAKA,
            &catalogs,
            vec![forged.clone(), bearer.clone()],
            Some(project),
        ),
        (PARTNERO, "GET /health", vec![forged.clone()], None),
        (
            PEAKA,
            "GET /api/v1/organizations",
            vec![bearer, forged.clone()],
            None,
        ),
    ];
    for (site, line, headers, key) in rows {
        let what = format!("{line} with {forged:?}");
        let (answer, seen) = fixture.request(site, line, &headers).await;
        let denied = line.ends_with("organizations");
        match seen.as_slice() {
            [] if is_refusal(answer.status) => {}
            [seen] if !denied && answer.status == 200 => fixture.check_seen(&what, seen, key),
            _ => wrong.push(format!("{what}: {} {seen:?}", answer.status)),
        }
    }
    wrong
}

/// A status that lays it at the client's door; 0 is a connection that was closed without a word.
pub(super) fn is_refusal(status: u16) -> bool {
    matches!(status, 0 | 400..=499 | 501 | 505)
}
