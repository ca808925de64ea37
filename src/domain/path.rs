//! The path of a request, if there is only one way to read it.
//!
//! Gateways and the servers behind them disagree about odd paths: some decode `%2f`, some drop `..` or a second slash, some
//! take `\` for `/` or cut a segment at `;`. Where two could disagree about what a path means, a rule that let it through
//! would be a rule about another path. So such a path is no path here (RFC 3986, sections 3.3, 6.2.2).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The longest path that is looked at, in bytes.
const MAX_LENGTH: usize = 4_096;

/// Why a path is not one that everybody reads alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCanonical {
    /// It does not begin with a slash.
    NoLeadingSlash,
    /// It is longer than 4,096 bytes.
    TooLong,
    /// A byte that has no place in a path, which some encode on the way and others do not, or a `;`, at which some cut.
    Byte,
    /// Two slashes in a row, or one at the end.
    EmptySegment,
    /// `.` or `..`.
    DotSegment,
    /// A percent sign without two hexadecimal digits.
    BrokenEncoding,
    /// What is encoded needs no encoding, is a delimiter or a control, or is no UTF-8.
    DoubtfulEncoding,
}

impl NotCanonical {
    /// What is wrong, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLeadingSlash => "the path does not begin with a slash",
            Self::TooLong => "the path is longer than 4,096 bytes",
            Self::Byte => "the path holds a byte that not everybody reads alike",
            Self::EmptySegment => "the path has an empty segment",
            Self::DotSegment => "the path has a segment . or ..",
            Self::BrokenEncoding => "the path has a percent sign without two hexadecimal digits",
            Self::DoubtfulEncoding => "the path encodes what not everybody decodes alike",
        }
    }
}

/// A path that everybody reads alike, without its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'p>(&'p str);

impl<'p> CanonicalPath<'p> {
    /// Reads the target of a request in origin form: the path up to the first question mark.
    pub fn of_target(target: &'p str) -> Result<Self, NotCanonical> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if !path.starts_with('/') {
            return Err(NotCanonical::NoLeadingSlash);
        }
        if path.len() > MAX_LENGTH {
            return Err(NotCanonical::TooLong);
        }
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/%-._~!$&'()*+,=:@".contains(&byte);
        if !path.bytes().all(plain) {
            return Err(NotCanonical::Byte);
        }
        if path != "/" {
            for segment in path[1..].split('/') {
                check(segment)?;
            }
        }
        Ok(Self(path))
    }

    /// The path as it was sent.
    pub fn as_str(self) -> &'p str {
        self.0
    }
}

fn check(segment: &str) -> Result<(), NotCanonical> {
    if segment.is_empty() {
        return Err(NotCanonical::EmptySegment);
    }
    if segment == "." || segment == ".." {
        return Err(NotCanonical::DotSegment);
    }
    let mut parts = segment.split('%');
    parts.next();
    for part in parts {
        let code = part
            .get(..2)
            .filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = code.ok_or(NotCanonical::BrokenEncoding)?;
        let byte = u8::from_str_radix(code, 16).map_err(|_| NotCanonical::BrokenEncoding)?;
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if unreserved || byte.is_ascii_control() || b"/\\;%?#".contains(&byte) {
            return Err(NotCanonical::DoubtfulEncoding);
        }
    }
    decoded(segment)
        .map(drop)
        .ok_or(NotCanonical::DoubtfulEncoding)
}

/// A segment of a canonical path as what it stands for.
pub fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_read_as_it_is_and_its_query_left_out() {
        for (target, path) in [
            ("/", "/"),
            ("/?a=/../b", "/"),
            ("/api/v1/partners", "/api/v1/partners"),
            ("/api/v1/partners?next=%2f..%2f#", "/api/v1/partners"),
            ("/a.b/c-d/e_f/~g/a@b.c/1,2", "/a.b/c-d/e_f/~g/a@b.c/1,2"),
            ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
            ("/a%20b/%C3%A9/%40", "/a%20b/%C3%A9/%40"),
            ("/...", "/..."),
        ] {
            assert_eq!(
                CanonicalPath::of_target(target).map(CanonicalPath::as_str),
                Ok(path),
                "{target}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_path() {
        use NotCanonical::{
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
            ("//api", EmptySegment),
            ("/api//v1", EmptySegment),
            ("/api/", EmptySegment),
            ("/api/?x", EmptySegment),
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
            ("/%2e%2e/admin", DoubtfulEncoding),
            ("/.%2e/admin", DoubtfulEncoding),
            ("/%61dmin", DoubtfulEncoding),
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
            assert_eq!(CanonicalPath::of_target(target), Err(why), "{target:?}");
        }
    }
}
