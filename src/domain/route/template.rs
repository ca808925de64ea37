//! Path templates: paths with places left open.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

const MAX_LENGTH: usize = 512;

/// A path with places left open: `/projects/{project}/keys`, `/files/**`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// This word.
    Word(String),
    /// One segment, whatever it is.
    Parameter(String),
    /// All that follows, also nothing.
    Rest,
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// A sentence that says what it must be.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_LENGTH {
            return Err("must be 512 bytes at the most");
        }
        let path = text
            .strip_prefix('/')
            .ok_or("must begin with a slash, such as /v1/projects/{project}/**")?;
        let mut segments = Vec::new();
        if !path.is_empty() {
            for part in path.split('/') {
                if segments.last() == Some(&Segment::Rest) {
                    return Err("may have ** only at its end");
                }
                let segment = Segment::parse(part)?;
                if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                    return Err("names a parameter twice");
                }
                segments.push(segment);
            }
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
        })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has a parameter of this name.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.segments
            .iter()
            .any(|segment| matches!(segment, Segment::Parameter(own) if own == name))
    }

    /// Whether both match the very same paths. The names of parameters make no difference.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        fn word(segment: &Segment) -> Option<&str> {
            match segment {
                Segment::Word(word) => Some(word),
                Segment::Parameter(_) | Segment::Rest => None,
            }
        }
        self.kinds().eq(other.kinds())
            && (self.segments.iter().map(word)).eq(other.segments.iter().map(word))
    }

    /// Whether there is a path that both match.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mut own, mut others) = (self.segments.iter(), other.segments.iter());
        loop {
            match (own.next(), others.next()) {
                (Some(Segment::Rest), _) | (_, Some(Segment::Rest)) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Segment::Word(own)), Some(Segment::Word(other))) if own != other => {
                    return false;
                }
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Whether the tree would look here first, of two that meet. The names of parameters make no difference.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.kinds().lt(other.kinds())
    }

    fn kinds(&self) -> impl Iterator<Item = u8> {
        let kinds = self.segments.iter().map(|segment| match segment {
            Segment::Word(_) => 0,
            Segment::Parameter(_) => 1,
            Segment::Rest => 2,
        });
        // The end itself is looked at before any rest.
        kinds.chain([0])
    }

    /// The names of its parameters, in their order.
    pub(super) fn parameters(&self) -> Vec<String> {
        let name = |segment: &Segment| match segment {
            Segment::Parameter(name) => Some(name.clone()),
            Segment::Word(_) | Segment::Rest => None,
        };
        self.segments.iter().filter_map(name).collect()
    }

    /// In the words of the tree, where parameters go by their place: of two with different names in one place it would look
    /// into one only. What `**` stands for may be nothing, so it is two.
    pub(super) fn for_tree(&self) -> Vec<String> {
        let mut written = String::new();
        for (place, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Word(word) => {
                    written.push('/');
                    written.push_str(word);
                }
                Segment::Parameter(_) => {
                    let _ = write!(written, "/<p{place}>");
                }
                Segment::Rest => {
                    let itself = if written.is_empty() {
                        "/".to_owned()
                    } else {
                        written.clone()
                    };
                    return vec![format!("{written}/<*rest>"), itself];
                }
            }
        }
        if written.is_empty() {
            written.push('/');
        }
        vec![written]
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, &'static str> {
        if part == "**" {
            return Ok(Self::Rest);
        }
        if let Some(name) = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            let fits = (1..=32).contains(&name.len())
                && name.starts_with(|first: char| first.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            return if fits {
                Ok(Self::Parameter(name.to_owned()))
            } else {
                Err("has a parameter whose name is not [a-z][a-z0-9_]{0,31}")
            };
        }
        let fits = !part.is_empty()
            && part != "."
            && part != ".."
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'+,=:@".contains(&byte));
        if fits {
            Ok(Self::Word(part.to_owned()))
        } else {
            Err("may have between its slashes a plain word, {a_parameter}, and at its end **")
        }
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.text
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
            "/v1/{a}/b.c/**",
            "/v4/account",
            "/user/api-key/scopes",
        ] {
            assert!(PathTemplate::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "v1", "//", "/a/", "/a//b", "/**/a", "/a/../b", "/./a", "/{}", "/{A}", "/{a}/{a}",
            "/{a", "/a}", "/a*", "/x{a}", "/%41", "/a b", "/a?b", "/é", "/<a>", "/(a)",
        ] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
