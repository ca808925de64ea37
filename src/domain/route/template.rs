//! Path templates, such as `/projects/{project}/keys` and `/files/**`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::path::{PathRules, TrailingSlash, fold_case};

/// The maximum length of a template, in bytes.
const MAX_LENGTH: usize = 512;

/// The maximum number of segments of a template, without the empty segment that represents a slash at its end.
pub(super) const MAX_TEMPLATE_SEGMENTS: usize = 32;

/// A template of paths: literal segments, and placeholders for other segments.
///
/// | segment | matches |
/// |---|---|
/// | `keys` | this segment |
/// | `{name}` | any one segment, to which the route can refer by this name |
/// | `{name}:cancel` | any one segment with this end (a custom verb, [AIP-136](https://google.aip.dev/136)); only at the end |
/// | `*` | any one segment |
/// | `**` | any number of segments, also none |
///
/// In a realm that distinguishes paths with and without a slash at the end, a slash at the end of the template matches a slash
/// at the end of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate(Box<str>);

/// A segment of a template. The order of the segments is the order of the children in the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment<'t> {
    /// This segment. An empty literal is the last segment and represents a slash at the end.
    Literal(&'t str),
    /// Any one segment with a colon and this verb at its end.
    Verb(&'t str),
    /// Any one segment.
    Parameter,
    /// Any number of segments.
    Rest,
}

/// The index of a parameter's segment in every path that its template matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterIndex {
    /// The index from the first segment.
    FromStart(u8),
    /// The index from the last segment, without a slash at the end.
    FromEnd(u8),
    /// No index is the same in all paths.
    Unknown,
}

impl PathTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_LENGTH {
            return Err("must be at most 512 bytes");
        }
        let path = text
            .strip_prefix('/')
            .ok_or("must begin with a slash, such as /v1/projects/{project}/**")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut names = Vec::new();
        let mut before = None;
        if !path.is_empty() {
            for part in path.split('/') {
                if matches!(before, Some(Segment::Verb(_))) {
                    return Err("must have a verb, such as {name}:cancel, only at its end");
                }
                let (segment, name) = parse_segment(part)?;
                if (before, segment) == (Some(Segment::Rest), Segment::Rest) {
                    return Err("must not have ** twice in a row");
                }
                if !name.is_empty() {
                    if names.contains(&name) {
                        return Err("must not have two parameters of the same name");
                    }
                    names.push(name);
                }
                before = Some(segment);
            }
        }
        let ends_with_slash = text.len() > 1 && text.ends_with('/');
        if ends_with_slash && (path.is_empty() || matches!(before, Some(Segment::Verb(_)))) {
            return Err("must not end with two slashes, or with a slash after a verb");
        }
        Ok(Self(text.into()))
    }

    /// Returns the template as the realm defines it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn ends_with_slash(&self) -> bool {
        self.0.len() > 1 && self.0.ends_with('/')
    }

    /// Returns the template in its normal form for a realm with these rules: in lower case if the realm is lenient, and without
    /// a slash at the end if the realm ignores it.
    pub(super) fn normalized(&self, rules: &PathRules) -> Cow<'_, Self> {
        let text = match rules.trailing_slash {
            TrailingSlash::Ignored if self.ends_with_slash() => &self.0[..self.0.len() - 1],
            _ => &self.0,
        };
        if rules.lenient {
            Cow::Owned(Self(fold_case(text).into()))
        } else if text.len() < self.0.len() {
            Cow::Owned(Self(text.into()))
        } else {
            Cow::Borrowed(self)
        }
    }

    /// Returns the segments. If the template ends with a slash, the last segment is an empty literal.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.parts().map(|part| {
            let parsed = parse_segment(part);
            parsed.map_or(Segment::Literal(part), |(segment, _)| segment)
        })
    }

    /// Returns the segments as text.
    fn parts(&self) -> impl Iterator<Item = &str> {
        let path = Some(&self.0[1..]).filter(|path| !path.is_empty());
        path.into_iter().flat_map(|path| path.split('/'))
    }

    /// Returns whether the template ends with a verb.
    pub(super) fn has_verb(&self) -> bool {
        matches!(self.segments().last(), Some(Segment::Verb(_)))
    }

    /// Returns whether the template has a parameter with this name.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.parts().any(|part| is_named(part, name))
    }

    /// Returns the index of the parameter with this name.
    ///
    /// `None` if there is no such parameter, or if it is between two `**`, so that it could be one of several segments.
    pub(super) fn index_of(&self, name: &str) -> Option<ParameterIndex> {
        let parts: Vec<_> = self.parts().filter(|part| !part.is_empty()).collect();
        let index = parts.iter().position(|part| is_named(part, name))?;
        let (before, after) = (&parts[..index], &parts[index + 1..]);
        if !before.contains(&"**") {
            u8::try_from(index).ok().map(ParameterIndex::FromStart)
        } else if !after.contains(&"**") {
            u8::try_from(after.len()).ok().map(ParameterIndex::FromEnd)
        } else {
            None
        }
    }
}

/// Splits a segment into the name of a parameter and the verb after it.
fn parameter(part: &str) -> Option<(&str, Option<&str>)> {
    let (name, rest) = part.strip_prefix('{')?.split_once('}')?;
    match rest {
        "" => Some((name, None)),
        rest => Some((name, Some(rest.strip_prefix(':')?))),
    }
}

fn is_named(part: &str, name: &str) -> bool {
    parameter(part).is_some_and(|(own, _)| own == name)
}

/// Parses a segment. Returns it with the name of its parameter, which is empty if there is none.
fn parse_segment(part: &str) -> Result<(Segment<'_>, &str), &'static str> {
    match part {
        "**" => return Ok((Segment::Rest, "")),
        "*" => return Ok((Segment::Parameter, "")),
        _ => {}
    }
    let Some((name, verb)) = parameter(part) else {
        return if is_literal(part) {
            Ok((Segment::Literal(part), ""))
        } else {
            Err(
                "must have between its slashes only *, **, {parameter}, {parameter}:verb, or a literal of A-Z a-z 0-9 and \
                 -._~!$&'+,=:@",
            )
        };
    };
    let is_name = (1..=32).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_name {
        return Err("must have only parameter names that match [a-z][a-z0-9_]{0,31}");
    }
    let Some(verb) = verb else {
        return Ok((Segment::Parameter, name));
    };
    let is_verb = (1..=32).contains(&verb.len())
        && verb.starts_with(|first: char| first.is_ascii_alphabetic())
        && verb
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_verb {
        Ok((Segment::Verb(verb), name))
    } else {
        Err("must have a verb that matches [A-Za-z][A-Za-z0-9_-]{0,31}")
    }
}

/// Returns whether a text can be a literal segment of a template.
///
/// A literal segment consists of unreserved characters of RFC 3986 and of `!$&'+,=:@`, and is not a dot segment.
pub fn is_literal(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'+,=:@".contains(&byte))
}

impl TryFrom<String> for PathTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_templates_are_parsed() {
        for good in [
            "/",
            "/**",
            "/*",
            "/v1/{a}/b.c/**",
            "/v1/**/projects/{project}/**",
            "/**/a",
            "/v4/account",
            "/users/",
            "/**/",
            "/jobs/{job}:cancel",
            "/jobs/job:cancel",
            "/**/{name}:undelete",
        ] {
            assert!(PathTemplate::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "v1",
            "//",
            "/a//",
            "/a//b",
            "/**/**",
            "/a/../b",
            "/./a",
            "/{}",
            "/{A}",
            "/{a}/{a}",
            "/{a}/{a}:x",
            "/{a",
            "/a}",
            "/a*",
            "/x{a}",
            "/{a}x",
            "/{a}:",
            "/{a}:1",
            "/{a}:x:y",
            "/{a}:x/b",
            "/{a}:x/",
            "/*:x",
            "/%41",
            "/a b",
            "/a?b",
            "/é",
            "/<a>",
            "/(a)",
            "/a;b",
        ] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_template_is_parsed_into_its_segments() {
        use Segment::{Literal, Parameter, Rest, Verb};
        let template = PathTemplate::parse("/a/{b}/*/**/{c}:stop").unwrap();
        let segments: Vec<_> = template.segments().collect();
        assert_eq!(
            segments,
            [Literal("a"), Parameter, Parameter, Rest, Verb("stop")]
        );
        let template = PathTemplate::parse("/a/").unwrap();
        assert!(template.segments().eq([Literal("a"), Literal("")]));
        assert_eq!(PathTemplate::parse("/").unwrap().segments().count(), 0);
    }

    #[test]
    fn a_parameter_has_one_index_unless_it_is_between_two_rests() {
        use ParameterIndex::{FromEnd, FromStart};
        let index = |text: &str| PathTemplate::parse(text).unwrap().index_of("p");
        assert_eq!(index("/a/{p}/b"), Some(FromStart(1)));
        assert_eq!(index("/a/{p}/**"), Some(FromStart(1)));
        assert_eq!(index("/{p}:stop"), Some(FromStart(0)));
        assert_eq!(index("/**/{p}/b"), Some(FromEnd(1)));
        assert_eq!(index("/**/a/{p}"), Some(FromEnd(0)));
        assert_eq!(index("/**/a/{p}/"), Some(FromEnd(0)));
        assert_eq!(index("/**/a/{p}/**"), None);
        assert_eq!(index("/a/{q}"), None);
    }
}
