//! The path of a request, as the decoded segments that routes are matched against.
//!
//! Gateways and the servers behind them disagree about unusual paths. Some decode `%2F`, some resolve `..` or drop a second
//! slash, some treat `\` as `/` or cut a segment at `;`. If a route matched such a path, the server could serve another path.
//! So the parser refuses a path that has two readings, unless the realm defines how its server reads the path ([`PathRules`]).
//!
//! Characters that are encoded without need are decoded first, as RFC 3986 requires (sections 2.3 and 6.2.2.2), and dot
//! segments are checked afterwards. The gateway passes on the bytes that the client sent.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The maximum length of a path, in bytes.
const MAX_LENGTH: usize = 4_096;

/// The maximum number of segments of a path. The matcher follows each segment along all matching templates.
const MAX_SEGMENTS: usize = 256;

/// The maximum number of dots of a segment that may begin an extension, in a lenient realm.
const MAX_DOTS: usize = 8;

/// The maximum number of project segments of a realm.
pub const MAX_PROJECT_SEGMENTS: usize = 16;

/// How a realm's server reads paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRules {
    /// Segments after which the next segment names a project, such as `projects`.
    pub project_segments: Vec<String>,
    /// Whether the server reads `/API-KEYS` and `/api-keys.json` as `/api-keys`.
    pub lenient: bool,
    /// The meaning of a slash at the end.
    pub trailing_slash: TrailingSlash,
    /// The meaning of encoded delimiters within a segment.
    pub encoded_characters: EncodedCharacters,
}

/// The meaning of a slash at the end of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrailingSlash {
    /// Paths that end with a slash are denied.
    #[default]
    Deny,
    /// `/users/` and `/users` are two paths with separate rules.
    Significant,
    /// `/users/` and `/users` are one path.
    Ignored,
}

/// The meaning of `%2F`, `%25`, `%3B` and a bare `;` within a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodedCharacters {
    /// Paths that contain them are denied.
    #[default]
    Deny,
    /// They are data of their segment.
    Keep,
}

/// The reason why a path cannot be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The path does not begin with a slash.
    NoLeadingSlash,
    /// The path is longer than 4,096 bytes or has more than 256 segments.
    TooLong,
    /// The path contains a byte that RFC 3986 does not allow in a path, or a `;` that the realm denies.
    Byte,
    /// The path has two slashes in a row, or a segment with nothing before its `;`.
    EmptySegment,
    /// The path ends with a slash.
    TrailingSlash,
    /// A segment is `.` or `..`, also after decoding, or between encoded slashes.
    DotSegment,
    /// A percent sign is not followed by two hexadecimal digits.
    BrokenEncoding,
    /// A delimiter or a control character is encoded, or the decoded bytes are not UTF-8.
    DoubtfulEncoding,
}

impl PathError {
    /// Returns a description for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLeadingSlash => "the path does not begin with a slash",
            Self::TooLong => "the path has more than 4,096 bytes or 256 segments",
            Self::Byte => {
                "the path contains a byte that servers read differently; realm.encoded_characters can allow ;"
            }
            Self::EmptySegment => "the path has an empty segment",
            Self::TrailingSlash => {
                "the path ends with a slash; realm.trailing_slash can allow this"
            }
            Self::DotSegment => "the path has a segment . or ..",
            Self::BrokenEncoding => {
                "the path has a percent sign that is not followed by two hexadecimal digits"
            }
            Self::DoubtfulEncoding => {
                "the path encodes a character that servers decode differently; realm.encoded_characters can allow %2F, %25 and %3B"
            }
        }
    }
}

/// The path of a request, as its decoded segments.
///
/// ```
/// use claviger::domain::path::{PathRules, RequestPath};
///
/// let path = RequestPath::parse("/v1/%7Eme/a%20b?page=2", &PathRules::default()).unwrap();
/// assert!(path.segments().eq(["v1", "~me", "a b"]));
/// assert!(RequestPath::parse("/v1/%2e%2e/admin", &PathRules::default()).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'p> {
    /// An empty last segment represents a significant slash at the end.
    segments: SmallVec<[Cow<'p, str>; 6]>,
}

impl<'p> RequestPath<'p> {
    /// Parses the path of a request target in origin form: the part before the first question mark.
    ///
    /// # Errors
    /// The reason why servers could read the path in two ways.
    pub fn parse(target: &'p str, rules: &PathRules) -> Result<Self, PathError> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let rest = path.strip_prefix('/').ok_or(PathError::NoLeadingSlash)?;
        if path.len() > MAX_LENGTH {
            return Err(PathError::TooLong);
        }
        let keeps = rules.encoded_characters == EncodedCharacters::Keep;
        let mut is_plain = true;
        for byte in path.bytes() {
            match BYTES[usize::from(byte)] {
                Byte::Plain => {}
                Byte::Percent => is_plain = false,
                Byte::Semicolon if keeps => is_plain = false,
                Byte::Semicolon | Byte::Odd => return Err(PathError::Byte),
            }
        }
        let (rest, ends_with_slash) = match rest.strip_suffix('/') {
            Some(rest) if !rest.is_empty() => (rest, true),
            _ => (rest, false),
        };
        let mut segments = SmallVec::new();
        if !rest.is_empty() {
            for segment in rest.split('/') {
                if segments.len() == MAX_SEGMENTS {
                    return Err(PathError::TooLong);
                }
                segments.push(if is_plain {
                    check_plain(segment)?
                } else {
                    decode(segment, keeps)?
                });
            }
        }
        match rules.trailing_slash {
            TrailingSlash::Deny if ends_with_slash => return Err(PathError::TrailingSlash),
            TrailingSlash::Significant if ends_with_slash => segments.push(Cow::Borrowed("")),
            _ => {}
        }
        Ok(Self { segments })
    }

    /// Returns the segments, decoded once. An empty last segment represents a slash at the end.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.segments.iter().map(AsRef::as_ref)
    }

    /// Returns the segment at this index.
    pub(super) fn segment(&self, index: usize) -> Option<&str> {
        self.segments.get(index).map(AsRef::as_ref)
    }

    /// Returns the index of the last segment that is not empty; 0 if there is none.
    pub(super) fn last_index(&self) -> usize {
        let count = match self.segments.last() {
            Some(last) if last.is_empty() => self.segments.len() - 1,
            _ => self.segments.len(),
        };
        count.saturating_sub(1)
    }
}

/// The meaning of a byte in a path.
#[derive(Clone, Copy)]
enum Byte {
    /// An unreserved character, a sub-delimiter other than `;`, `:`, `@` or the slash.
    Plain,
    /// The beginning of an encoded byte.
    Percent,
    /// A semicolon, which some servers treat as a delimiter.
    Semicolon,
    /// A byte that RFC 3986 (section 3.3) does not allow in a path.
    Odd,
}

const BYTES: [Byte; 256] = {
    let mut bytes = [Byte::Odd; 256];
    let plain = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~!$&'()*+,=:@/";
    let mut i = 0;
    while i < plain.len() {
        bytes[plain[i] as usize] = Byte::Plain;
        i += 1;
    }
    bytes[b'%' as usize] = Byte::Percent;
    bytes[b';' as usize] = Byte::Semicolon;
    bytes
};

/// Checks a segment without encoded characters.
fn check_plain(segment: &str) -> Result<Cow<'_, str>, PathError> {
    match segment {
        "" => Err(PathError::EmptySegment),
        "." | ".." => Err(PathError::DotSegment),
        _ => Ok(Cow::Borrowed(segment)),
    }
}

fn decode(segment: &str, keeps: bool) -> Result<Cow<'_, str>, PathError> {
    if segment.is_empty() {
        return Err(PathError::EmptySegment);
    }
    let decoded = if segment.contains('%') {
        check_encoding(segment, keeps)?;
        percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| PathError::DoubtfulEncoding)?
    } else {
        Cow::Borrowed(segment)
    };
    for part in decoded.split('/') {
        if matches!(stem(part), "." | "..") {
            return Err(PathError::DotSegment);
        }
    }
    // A server that cuts the segment at `;` would get an empty segment.
    if stem(&decoded).is_empty() {
        return Err(PathError::EmptySegment);
    }
    Ok(decoded)
}

fn check_encoding(segment: &str, keeps: bool) -> Result<(), PathError> {
    for part in segment.split('%').skip(1) {
        let code = part
            .get(..2)
            .filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = code.ok_or(PathError::BrokenEncoding)?;
        let byte = u8::from_str_radix(code, 16).map_err(|_| PathError::BrokenEncoding)?;
        let denied: &[u8] = if keeps { b"\\?#" } else { b"/\\;%?#" };
        if byte.is_ascii_control() || denied.contains(&byte) {
            return Err(PathError::DoubtfulEncoding);
        }
    }
    Ok(())
}

/// Returns the part of a segment before the first `;`. Some servers treat the rest as parameters of the segment.
pub(super) fn stem(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(stem, _)| stem)
}

/// Returns the text in lower case.
///
/// It maps ASCII letters, and the four other letters that Unicode's simple case mappings map to ASCII letters (U+0130, U+0131,
/// U+017F and U+212A).
pub(super) fn fold_case(text: &str) -> Cow<'_, str> {
    if !text
        .bytes()
        .any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii())
    {
        return Cow::Borrowed(text);
    }
    let fold = |letter: char| match letter {
        '\u{130}' | '\u{131}' => 'i',
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    Cow::Owned(text.chars().map(fold).collect())
}

/// Returns the parts of a text before its first dot, before its second dot, and so on, such as `api-keys` of `api-keys.json`.
///
/// Empty parts are left out. Servers differ about the form and the number of extensions.
pub(super) fn without_extensions(text: &str) -> impl Iterator<Item = &str> {
    let dots = text.match_indices('.').take(MAX_DOTS);
    dots.map(|(dot, _)| &text[..dot])
        .filter(|name| !name.is_empty())
}

impl PathRules {
    /// Returns the projects that a path names, each with the index of its segment: the segments that follow project segments.
    pub(super) fn projects<'p>(
        &self,
        path: &'p RequestPath<'_>,
    ) -> impl Iterator<Item = (usize, &'p str)> {
        path.segments()
            .zip(path.segments().skip(1))
            .enumerate()
            .filter(|(_, (before, name))| !name.is_empty() && self.is_project_segment(before))
            .map(|(index, (_, name))| (index + 1, name))
    }

    fn is_project_segment(&self, segment: &str) -> bool {
        let stem = stem(segment);
        if !self.lenient {
            return self.project_segments.iter().any(|own| own == stem);
        }
        let folded = fold_case(stem);
        self.project_segments.iter().any(|own| {
            let own = fold_case(own);
            own == folded || without_extensions(&folded).any(|bare| own == bare)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(trailing_slash: TrailingSlash, encoded_characters: EncodedCharacters) -> PathRules {
        PathRules {
            trailing_slash,
            encoded_characters,
            ..PathRules::default()
        }
    }

    fn strict() -> PathRules {
        PathRules::default()
    }

    fn keep() -> PathRules {
        rules(TrailingSlash::Deny, EncodedCharacters::Keep)
    }

    fn parsed<'t>(target: &'t str, rules: &PathRules) -> Result<Vec<String>, PathError> {
        let path: RequestPath<'t> = RequestPath::parse(target, rules)?;
        Ok(path.segments().map(ToOwned::to_owned).collect())
    }

    #[test]
    fn a_plain_path_is_parsed_into_its_decoded_segments() {
        for (target, segments) in [
            ("/", &[][..]),
            ("/?a=/../b", &[]),
            ("/api/v1/partners", &["api", "v1", "partners"]),
            ("/api/v1?next=%2f..%2f#", &["api", "v1"]),
            (
                "/a.b/c-d/~g/a@b.c/1,2",
                &["a.b", "c-d", "~g", "a@b.c", "1,2"],
            ),
            ("/!$&'()*+,=:@", &["!$&'()*+,=:@"]),
            ("/a%20b/%C3%A9/%40", &["a b", "é", "@"]),
            ("/keys%3Arevoke", &["keys:revoke"]),
            ("/...", &["..."]),
        ] {
            let expected = segments.iter().map(ToString::to_string).collect();
            assert_eq!(parsed(target, &strict()), Ok(expected), "{target}");
        }
    }

    /// RFC 3986, section 6.2.2.2: an encoded unreserved character is that character.
    #[test]
    fn unreserved_characters_are_decoded_before_dot_segments_are_checked() {
        assert_eq!(parsed("/%7Eme", &strict()), Ok(vec!["~me".to_owned()]));
        assert_eq!(
            parsed("/%2D%5f%2ea", &strict()),
            Ok(vec!["-_.a".to_owned()])
        );
        assert_eq!(parsed("/%61dmin", &strict()), Ok(vec!["admin".to_owned()]));
        for target in ["/%2e%2e/admin", "/.%2E/admin", "/%2e", "/a/%2E."] {
            assert_eq!(
                parsed(target, &strict()),
                Err(PathError::DotSegment),
                "{target}"
            );
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        use PathError::{
            BrokenEncoding, Byte, DotSegment, DoubtfulEncoding, EmptySegment, NoLeadingSlash,
            TooLong,
        };
        let long = format!("/{}", "a".repeat(MAX_LENGTH));
        for (target, why) in [
            ("", NoLeadingSlash),
            ("*", NoLeadingSlash),
            ("api/v1", NoLeadingSlash),
            ("http://host/api", NoLeadingSlash),
            ("?x=/", NoLeadingSlash),
            (long.as_str(), TooLong),
            ("//", EmptySegment),
            ("//api", EmptySegment),
            ("/api//v1", EmptySegment),
            ("/api//", EmptySegment),
            ("/api/", PathError::TrailingSlash),
            ("/api/?x", PathError::TrailingSlash),
            ("/.", DotSegment),
            ("/api/./v1", DotSegment),
            ("/api/..", DotSegment),
            ("/api/../admin?x", DotSegment),
            ("/api\\v1", Byte),
            ("/api/..;/admin", Byte),
            ("/admin;x=1", Byte),
            ("/api#frag", Byte),
            ("/a^", Byte),
            ("/a{b}", Byte),
            ("/a|b", Byte),
            ("/a<b>", Byte),
            ("/a`", Byte),
            ("/[a]", Byte),
            ("/a b", Byte),
            ("/a\tb", Byte),
            ("/a\0b", Byte),
            ("/é", Byte),
            ("/%", BrokenEncoding),
            ("/a%2", BrokenEncoding),
            ("/%zz", BrokenEncoding),
            ("/%+1", BrokenEncoding),
            ("/a%2fb", DoubtfulEncoding),
            ("/a%2Fb", DoubtfulEncoding),
            ("/a%5cb", DoubtfulEncoding),
            ("/a%00", DoubtfulEncoding),
            ("/a%0d%0ab", DoubtfulEncoding),
            ("/a%7f", DoubtfulEncoding),
            ("/a%3bb", DoubtfulEncoding),
            ("/a%252fb", DoubtfulEncoding),
            ("/a%3fb", DoubtfulEncoding),
            ("/a%23b", DoubtfulEncoding),
            ("/%c0%af", DoubtfulEncoding),
            ("/%ff", DoubtfulEncoding),
            ("/%ed%a0%80", DoubtfulEncoding),
        ] {
            assert_eq!(parsed(target, &strict()), Err(why), "{target:?}");
        }
    }

    #[test]
    fn the_realm_defines_the_meaning_of_a_slash_at_the_end() {
        let significant = rules(TrailingSlash::Significant, EncodedCharacters::Deny);
        let ignored = rules(TrailingSlash::Ignored, EncodedCharacters::Deny);
        let owned = |segments: &[&str]| Ok(segments.iter().map(ToString::to_string).collect());
        assert_eq!(parsed("/a/", &significant), owned(&["a", ""]));
        assert_eq!(parsed("/a/?x", &ignored), owned(&["a"]));
        for rules in [&strict(), &significant, &ignored] {
            assert_eq!(parsed("/", rules), owned(&[]));
            assert_eq!(parsed("/a", rules), owned(&["a"]));
            assert_eq!(parsed("/a//", rules), Err(PathError::EmptySegment));
            assert_eq!(parsed("//", rules), Err(PathError::EmptySegment));
            assert_eq!(parsed("/a/../", rules), Err(PathError::DotSegment));
        }
    }

    #[test]
    fn a_realm_may_keep_encoded_delimiters_as_data_of_one_segment() {
        for (target, segment) in [
            ("/a%2Fb", "a/b"),
            ("/a%252Fb", "a%2Fb"),
            ("/a%3bb", "a;b"),
            ("/a;b=c", "a;b=c"),
            ("/%2F", "/"),
        ] {
            assert_eq!(
                parsed(target, &keep()),
                Ok(vec![segment.to_owned()]),
                "{target}"
            );
        }
        for (target, why) in [
            ("/a%2F..%2Fb", PathError::DotSegment),
            ("/..%2Fb", PathError::DotSegment),
            ("/a%2f%2e", PathError::DotSegment),
            ("/..;x/b", PathError::DotSegment),
            ("/.%3Bx/b", PathError::DotSegment),
            ("/a%2F..;x", PathError::DotSegment),
            ("/;x/b", PathError::EmptySegment),
            ("/a%5cb", PathError::DoubtfulEncoding),
            ("/a%3fb", PathError::DoubtfulEncoding),
            ("/a%23b", PathError::DoubtfulEncoding),
            ("/a%00b", PathError::DoubtfulEncoding),
            ("/a\\b", PathError::Byte),
        ] {
            assert_eq!(parsed(target, &keep()), Err(why), "{target}");
        }
    }

    #[test]
    fn each_project_segment_but_a_final_one_names_a_project() {
        let named = |target: &str, lenient: bool| -> Vec<String> {
            let rules = PathRules {
                project_segments: vec!["projects".to_owned(), "programs".to_owned()],
                lenient,
                trailing_slash: TrailingSlash::Significant,
                encoded_characters: EncodedCharacters::Keep,
            };
            let path = RequestPath::parse(target, &rules).unwrap();
            let projects = rules.projects(&path);
            projects.map(|(_, name)| name.to_owned()).collect()
        };
        for (target, lenient, projects) in [
            ("/projects/a", false, &["a"][..]),
            ("/v1/projects/a/x/programs/b/y", false, &["a", "b"]),
            ("/projects/projects/x", false, &["projects", "x"]),
            ("/projects", false, &[]),
            ("/projects/", false, &[]),
            ("/x/projects", false, &[]),
            ("/%70rojects/%61", false, &["a"]),
            ("/subprojects/a/projectsx/b", false, &[]),
            ("/Projects/a", false, &[]),
            ("/Projects/A/PROGRAMS.json/b", true, &["A", "b"]),
            ("/project%C5%BF/a/projects.7/b", true, &["a", "b"]),
            // A server that cuts at `;` sees `projects`.
            ("/projects;v=1/a;b", false, &["a;b"]),
            ("/projects%3Bv/a", false, &["a"]),
        ] {
            assert_eq!(named(target, lenient), projects, "{target}");
        }
    }

    #[test]
    fn each_dot_may_begin_an_extension() {
        let names = |text| without_extensions(text).collect::<Vec<_>>();
        assert_eq!(names("keys"), [""; 0]);
        assert_eq!(names("keys.json"), ["keys"]);
        assert_eq!(names("keys."), ["keys"]);
        assert_eq!(names("a.b.7z"), ["a", "a.b"]);
        assert_eq!(names(".json"), [""; 0]);
        assert_eq!(names(&"a.".repeat(20)).len(), MAX_DOTS);
    }

    #[test]
    fn case_is_folded_as_servers_do() {
        for (text, folded) in [
            ("keys", "keys"),
            ("API-Keys", "api-keys"),
            ("\u{212a}ey\u{17f}", "keys"),
            ("b\u{131}ll\u{130}ng", "billing"),
            ("\u{c9}t\u{e9}", "\u{c9}t\u{e9}"),
        ] {
            assert_eq!(fold_case(text), folded);
        }
    }

    #[test]
    fn a_path_has_at_most_256_segments() {
        let path = |segments| "/a".repeat(segments);
        assert_eq!(parsed(&path(256), &strict()).map(|all| all.len()), Ok(256));
        assert_eq!(parsed(&path(257), &strict()), Err(PathError::TooLong));
    }
}
