//! Path templates, such as `/projects/{project}/keys` and `/files/**`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::path::{PathRules, TrailingSlash, fold_case};

/// The longest template, in bytes.
const MAX_LENGTH: usize = 512;

/// The most segments of a template, without the empty one that stands for a slash at its end.
pub(super) const MAX_TEMPLATE_SEGMENTS: usize = 32;

/// A template of paths: literal segments, and placeholders for others.
///
/// | segment | matches |
/// |---|---|
/// | `keys` | this segment |
/// | `{name}` | any one segment, which the rule may refer to by this name |
/// | `{name}:cancel` | any one segment that ends so (a custom verb, [AIP-136](https://google.aip.dev/136)); only at the end |
/// | `*` | any one segment |
/// | `**` | any number of segments, also none |
///
/// A slash at its end matches a slash at the end of the path, where the realm tells the two apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate(Box<str>);

/// A segment of a template. They sort in the order in which a trie keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment<'t> {
    /// This segment. An empty one, which comes last, is a slash at the end.
    Literal(&'t str),
    /// Any one segment with a colon and this verb at its end.
    Verb(&'t str),
    /// Any one segment.
    Parameter,
    /// Any number of segments.
    Rest,
}

/// Where a parameter's segment stands in each path that its template matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// So many segments after the first.
    FromStart(u8),
    /// So many segments before the last, a slash at the end aside.
    FromEnd(u8),
    /// Not in one place.
    Nowhere,
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// A sentence that says what it must be.
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
                    return Err("may have a verb, such as {name}:cancel, only at its end");
                }
                let (segment, name) = parse_segment(part)?;
                if (before, segment) == (Some(Segment::Rest), Segment::Rest) {
                    return Err("has ** twice in a row");
                }
                if !name.is_empty() {
                    if names.contains(&name) {
                        return Err("names a parameter twice");
                    }
                    names.push(name);
                }
                before = Some(segment);
            }
        }
        let ends_with_slash = text.len() > 1 && text.ends_with('/');
        if ends_with_slash && (path.is_empty() || matches!(before, Some(Segment::Verb(_)))) {
            return Err("may not end with a slash there");
        }
        Ok(Self(text.into()))
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn ends_with_slash(&self) -> bool {
        self.0.len() > 1 && self.0.ends_with('/')
    }

    /// The template as a realm with these rules reads it: in lower case if it is lenient, and without a slash at the end if
    /// that makes no difference.
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

    /// Its segments; of a template that ends with a slash, the last one is empty.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.parts().map(|part| {
            let parsed = parse_segment(part);
            parsed.map_or(Segment::Literal(part), |(segment, _)| segment)
        })
    }

    /// Its segments as they are written.
    fn parts(&self) -> impl Iterator<Item = &str> {
        let path = Some(&self.0[1..]).filter(|path| !path.is_empty());
        path.into_iter().flat_map(|path| path.split('/'))
    }

    /// Whether it ends with a verb.
    pub(super) fn has_verb(&self) -> bool {
        matches!(self.segments().last(), Some(Segment::Verb(_)))
    }

    /// Whether it has a parameter of this name.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.parts().any(|part| is_named(part, name))
    }

    /// Where the parameter of this name stands; none if there is none, or if it stands between two `**`, so that different
    /// segments could be meant.
    pub(super) fn place_of(&self, name: &str) -> Option<Place> {
        let parts: Vec<_> = self.parts().filter(|part| !part.is_empty()).collect();
        let index = parts.iter().position(|part| is_named(part, name))?;
        let (before, after) = (&parts[..index], &parts[index + 1..]);
        if !before.contains(&"**") {
            u8::try_from(index).ok().map(Place::FromStart)
        } else if !after.contains(&"**") {
            u8::try_from(after.len()).ok().map(Place::FromEnd)
        } else {
            None
        }
    }
}

/// The name of a parameter, and the verb after it.
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

/// A segment, and its name if it has one.
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
            Err("must have literals, {parameters}, {parameter}:verb, * or ** between its slashes")
        };
    };
    let is_name = (1..=32).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_name {
        return Err("has a parameter whose name is not [a-z][a-z0-9_]{0,31}");
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
        Err("has a verb that is not [A-Za-z][A-Za-z0-9_-]{0,31}")
    }
}

/// Whether a text can be a literal segment of a template: unreserved characters of RFC 3986 and `!$&'+,=:@`, and no dot
/// segment.
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
    fn a_template_is_what_it_must_be() {
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
    fn a_template_is_read_as_its_segments() {
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
    fn a_parameter_has_one_place_unless_it_stands_between_two_rests() {
        let place = |text: &str| PathTemplate::parse(text).unwrap().place_of("p");
        assert_eq!(place("/a/{p}/b"), Some(Place::FromStart(1)));
        assert_eq!(place("/a/{p}/**"), Some(Place::FromStart(1)));
        assert_eq!(place("/{p}:stop"), Some(Place::FromStart(0)));
        assert_eq!(place("/**/{p}/b"), Some(Place::FromEnd(1)));
        assert_eq!(place("/**/a/{p}"), Some(Place::FromEnd(0)));
        assert_eq!(place("/**/a/{p}/"), Some(Place::FromEnd(0)));
        assert_eq!(place("/**/a/{p}/**"), None);
        assert_eq!(place("/a/{q}"), None);
    }
}
