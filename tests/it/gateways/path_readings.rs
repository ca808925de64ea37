//! The same paths under each setting by which a realm says how its server reads them.
//!
//! Beside claviger stands a model of such a server, written from the settings' documentation alone. Whatever reaches the server
//! behind must be good for the key by every reading that the setting allows.
//!
//! Seen red with `;` compared as a whole in literals, with dot segments looked for before decoding, with project segments that
//! are compared exactly in a lenient realm, and with `%2F` kept where the realm denies it.

use claviger::pb::claviger::v1::{EncodedCharacters, Realm, TrailingSlash};

use super::fixture::{GatewayFixture, PEAKA};
use super::gateway_process::GatewayKind;
use super::odd_requests;

/// How the server behind reads paths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    lenient: bool,
    trailing_slash: TrailingSlash,
    encoded_characters: EncodedCharacters,
}

/// As if the realm said nothing.
pub(super) const STRICT: Reading = Reading {
    lenient: false,
    trailing_slash: TrailingSlash::Deny,
    encoded_characters: EncodedCharacters::Deny,
};

const READINGS: [Reading; 6] = [
    STRICT,
    Reading {
        lenient: true,
        ..STRICT
    },
    Reading {
        trailing_slash: TrailingSlash::Significant,
        ..STRICT
    },
    Reading {
        trailing_slash: TrailingSlash::Ignored,
        ..STRICT
    },
    Reading {
        encoded_characters: EncodedCharacters::Keep,
        ..STRICT
    },
    Reading {
        lenient: true,
        trailing_slash: TrailingSlash::Ignored,
        encoded_characters: EncodedCharacters::Keep,
    },
];

/// Paths for which the settings were made. The tilde is the project of the key `project`.
const TARGETS: &[&str] = &[
    "~/",
    "~//",
    "/api/v1/data/projects/",
    "/api/v1/organizations/",
    "/api/v1/projects/mtKDhe1U/apiKeys/",
    "/api/v1/projects/mtKDhe1U/APIKEYS",
    "/api/v1/projects/mtKDhe1U/apiKeys.json",
    "/api/v1/projects/mtKDhe1U/ApiKeys.xml/7",
    "/api/v1/projects/mtKDhe1U/apiKeys.7z",
    "/api/v1/projects/mtKDhe1U/apiKeys.json.json",
    "/api/v1/projects/mtKDhe1U/apiKeys.",
    "/api/v1/projects/mtKDhe1U/apiKeys.%20",
    "/api/v1/projects/mtKDhe1U/api%E2%84%AAeys",
    "/api/v1/projects/mtKDhe1U/apiKey%C5%BF",
    "/api/v1/project%C5%BF/nQ2vXs8B/tables",
    "/data/projects/mtKDhe1U/apiKeys",
    "/projects/mtKDhe1U/x/projects/mtKDhe1U/apiKeys/7",
    "/api/v1/projects/mtKDhe1U/apiKeys;x=1",
    "/api/v1/projects/mtKDhe1U/apiKeys%3Bx/7",
    "/api/v1/projects/mtKDhe1U/APIKEYS.json;x",
    "/api/v1/projects/mtKDhe1U/api%4Beys",
    "/api/v1/projects/mtKDhe1U/apiKeys%2F7",
    "/api/v1/projects/mtKDhe1U;a/apiKeys",
    "/api/v1/projects;x/nQ2vXs8B/y",
    "/api/v1/projects%3Bx/nQ2vXs8B/y",
    "/api/v1/PROJECTS;x/nQ2vXs8B/y",
    "/api/v1/projects/mtKDhe1U/x;y/projects/nQ2vXs8B",
    "/api/v1/Projects/nQ2vXs8B",
    "/api/v1/projects.json/nQ2vXs8B/x",
    "/api/v1/Projects.JSON/mtKDhe1U/x",
    "/api/v1/projects/mtKDhe1U.json",
    "/api/v1/data/projects%2FnQ2vXs8B/x",
    "/api/v1/data/projects/nQ2vXs8B%2F..%2FmtKDhe1U/x",
    "/api/v1/data/projects/mtKDhe1U%2F..%2FnQ2vXs8B/x",
    "~/..%2f..%2fnQ2vXs8B",
    "~/%2e%2e%2fnQ2vXs8B",
    "~/%2e%2e;x/nQ2vXs8B/y",
    "~/.;x/y",
    "~/;x/y",
    "~/%3Bx/y",
    "~/a%2F%2Fb",
    "~/a%252F..%252Fb",
    "~/a/..%3b/b",
    "~/projects/%6eQ2vXs8B",
    "~/%70rojects/nQ2vXs8B",
    "/api/v1/data/%70ROJECTS/nQ2vXs8B/x",
];

/// Whether something holds under a setting.
type Condition = fn(Reading) -> bool;

/// Paths that a project's key must get through where the setting allows them.
const ALLOWED: &[(&str, Condition)] = &[
    ("~/catalogs", |_| true),
    ("~/%63atalogs", |_| true),
    ("~/catalogs/", |reading| {
        reading.trailing_slash != TrailingSlash::Deny
    }),
    ("/API/v1/Data/PROJECTS/mtKDhe1U/x.json", |reading| {
        reading.lenient
    }),
    ("~/a%2Fb", Reading::keeps),
    ("~/a%25b", Reading::keeps),
    ("~/a%3Bb", Reading::keeps),
    ("~/a;b=c", Reading::keeps),
];

impl Reading {
    fn keeps(self) -> bool {
        self.encoded_characters == EncodedCharacters::Keep
    }

    /// Writes it into a realm.
    pub(super) fn say(self, realm: &mut Realm) {
        realm.lenient_paths = self.lenient;
        realm.trailing_slash = self.trailing_slash.into();
        realm.encoded_characters = self.encoded_characters.into();
    }

    /// Whether a key may have what a target stands for.
    pub(super) fn allows(self, key: &str, target: &str) -> bool {
        let read = |cuts: bool| {
            self.segments(target, cuts)
                .is_some_and(|segments| self.is_good_for(key, &segments))
        };
        // Some servers cut a segment at `;`, and some do not.
        read(false) && read(true)
    }

    /// The segments that the server sees; none if it could see different ones.
    fn segments(self, target: &str, cuts: bool) -> Option<Vec<String>> {
        let path = target.split('?').next()?.strip_prefix('/')?;
        let mut raw: Vec<_> = path.split('/').collect();
        let ends_with_slash = raw.len() > 1 && raw.last() == Some(&"");
        if ends_with_slash {
            if self.trailing_slash == TrailingSlash::Deny {
                return None;
            }
            raw.pop();
        }
        raw.into_iter()
            .map(|segment| self.segment(segment, cuts))
            .collect()
    }

    fn segment(self, segment: &str, cuts: bool) -> Option<String> {
        let decoded = percent_encoding::percent_decode_str(segment);
        let decoded = decoded.decode_utf8().ok()?;
        let is_odd = |each: char| {
            each.is_control()
                || "\\?#".contains(each)
                || (!self.keeps() && "/;%".contains(each))
                || "\"<>^`{|}[] ".contains(each) && segment.contains(each)
        };
        if decoded.chars().any(is_odd) {
            return None;
        }
        let cut = |text: &str| text.split(';').next().unwrap_or_default().to_owned();
        let moves = |part: &str| matches!(cut(part).as_str(), "." | "..");
        if decoded.split('/').any(moves) || cut(&decoded).is_empty() {
            return None;
        }
        Some(if cuts {
            cut(&decoded)
        } else {
            decoded.into_owned()
        })
    }

    fn is_good_for(self, key: &str, segments: &[String]) -> bool {
        let mut projects = Vec::new();
        for (i, pair) in segments.windows(2).enumerate() {
            if self.is_word("projects", &pair[0]) {
                projects.push(pair[1].as_str());
                let below = segments.get(i + 2);
                if key == "project" && below.is_some_and(|below| self.is_word("apiKeys", below)) {
                    return false;
                }
            }
        }
        match key {
            "project" => {
                !projects.is_empty() && projects.iter().all(|project| *project == "mtKDhe1U")
            }
            _ => projects
                .iter()
                .all(|project| ["mtKDhe1U", "nQ2vXs8B"].contains(project)),
        }
    }

    fn is_word(self, word: &str, segment: &str) -> bool {
        if !self.lenient {
            return segment == word;
        }
        // Java's and Python's comparisons without case take these four for ASCII letters.
        let folded = segment
            .replace(['\u{130}', '\u{131}'], "i")
            .replace('\u{17f}', "s")
            .replace('\u{212a}', "k");
        let name = folded.split('.').next().unwrap_or_default();
        name.eq_ignore_ascii_case(word)
    }
}

/// Sends every odd path, whole request and forged header under every reading. Returns how many requests that were.
pub(super) async fn send_all(fixture: &GatewayFixture) -> usize {
    let mut wrong = Vec::new();
    let mut count = 0;
    for reading in READINGS {
        fixture.put_realm(PEAKA, |realm| reading.say(realm)).await;
        for target in odd_requests::targets(TARGETS) {
            for key in ["project", "good"] {
                count += 1;
                wrong.extend(send(fixture, reading, &target, key).await.err());
            }
        }
        count += odd_requests::send_requests(fixture, reading, &mut wrong).await;
        for (target, is_allowed) in ALLOWED {
            count += 1;
            let target = odd_requests::own(target);
            let passed = send(fixture, reading, &target, "project").await;
            let expected = is_allowed(reading);
            // Where `%2F` is denied, this one makes `/` of it before it asks.
            let made_plain = fixture.kind == GatewayKind::EnvoyNormalising
                && target.contains("%2F")
                && passed == Ok(true);
            if passed != Ok(expected) && !made_plain {
                wrong.push(format!(
                    "{reading:?} {target:?}: {passed:?}, should be {expected}"
                ));
            }
        }
    }
    let kind = fixture.kind;
    assert!(
        wrong.is_empty(),
        "{kind:?}, {} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    count
}

/// Whether a request reached the server behind; an error if it should not have, as what it did.
async fn send(
    fixture: &GatewayFixture,
    reading: Reading,
    target: &str,
    key: &str,
) -> Result<bool, String> {
    let headers = [format!("Authorization: Bearer {{{key}}}")];
    let line = format!("GET {target}");
    let (answer, seen) = fixture.request(PEAKA, &line, &headers).await;
    let what = || {
        format!(
            "{reading:?} {line:?} with {key}: {} {seen:?}",
            answer.status
        )
    };
    match seen.as_slice() {
        [] if odd_requests::is_refusal(answer.status) => Ok(false),
        [seen] if answer.status == 200 && reading.allows(key, seen.target()) => {
            fixture.check_seen(&what(), seen, Some(&fixture.key(PEAKA, key).key));
            Ok(true)
        }
        _ => Err(what()),
    }
}
