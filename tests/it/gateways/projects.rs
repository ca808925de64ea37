//! Peaka's sentence about `projects/{projectId}`, on paths that nobody thought of.

use std::fmt::Write as _;

use super::fixture::{GatewayFixture, PEAKA};
use super::http1::Answer;
use crate::fixtures::Random;

/// The projects of each key, and whether it is a partner key.
const KEYS: [(&str, &[&str], bool); 5] = [
    ("project", &["mtKDhe1U"], false),
    ("other_project", &["nQ2vXs8B"], false),
    ("good", &["mtKDhe1U", "nQ2vXs8B"], true),
    ("foreign", &["zR7wLk4C"], true),
    ("foreign_project", &["zR7wLk4C"], false),
];

/// What stands between the projects of a path.
const WORDS: [&str; 8] = [
    "data",
    "metadata",
    "catalogs",
    "tables",
    "v2",
    "subprojects",
    "project",
    "links",
];

/// A path below `/api/v1`, and the projects that it names.
fn path(random: &mut Random) -> (String, Vec<&'static str>) {
    let mut segments: Vec<&'static str> = Vec::new();
    for _ in 0..random.below(4) {
        for _ in 0..random.below(4) {
            segments.push(random.one_of(&WORDS));
        }
        segments.push("projects");
        // Mostly one that is somebody's.
        let ids = ["mtKDhe1U", "mtKDhe1U", "nQ2vXs8B", "zR7wLk4C", "MTKDHE1U"];
        segments.push(random.one_of(&ids));
    }
    for _ in 0..random.below(3) {
        segments.push(random.one_of(&WORDS));
    }
    if random.below(8) == 0 {
        segments.push("projects");
    }
    let named = segments.windows(2).filter(|pair| pair[0] == "projects");
    let named = named.map(|pair| pair[1]).collect();
    let mut target = "/api/v1".to_owned();
    for segment in segments {
        target.push('/');
        for letter in segment.chars() {
            if random.below(12) == 0 {
                let _ = write!(target, "%{:02X}", u32::from(letter));
            } else {
                target.push(letter);
            }
        }
    }
    (target, named)
}

/// Sends `count` requests, and asserts that each key reaches exactly what is its own.
pub(super) async fn send(fixture: &GatewayFixture, start: u64, count: usize) {
    let mut random = Random(start);
    let mut passed = 0;
    for i in 0..count {
        let (target, named) = path(&mut random);
        let (key, own, is_partner) = random.one_of(&KEYS);
        let reaches = named.iter().all(|project| own.contains(project));
        let expected = reaches && (is_partner || !named.is_empty());
        let headers = [format!("Authorization: Bearer {{{key}}}")];
        let (answer, seen) = fixture
            .request(PEAKA, &format!("GET {target}"), &headers)
            .await;
        let Answer { status, .. } = answer;
        let kind = fixture.kind;
        let what = format!("{kind:?}, start {start}, request {i}: GET {target} with {key}");
        assert_eq!(
            (status, seen.len()),
            if expected { (200, 1) } else { (403, 0) },
            "{what}"
        );
        passed += usize::from(expected);
    }
    assert!(
        passed > count / 5 && passed < count * 4 / 5,
        "{passed} of {count}"
    );
    println!(
        "{:?}: {passed} of {count} generated requests passed",
        fixture.kind
    );
}
