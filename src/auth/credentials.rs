//! The caller's API key in an `authorization` header.

use super::AuthError;

/// Returns the API key in a header value of the form `Bearer KEY` (RFC 6750, section 2.1), with one or more spaces (RFC 9110, section
/// 11.4).
pub fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, key) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let key = key.trim_start_matches(' ');
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

/// Returns the API key in the only value of an `authorization` header or metadata entry.
///
/// # Errors
/// [`AuthError::Unauthenticated`] unless there is exactly one value, of the form `Bearer KEY`.
pub fn bearer_key<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Result<&'v str, AuthError> {
    let mut values = values.into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(AuthError::Unauthenticated(
            "the call needs exactly one API key of the caller: send the metadata \"authorization: Bearer KEY\" once",
        ));
    };
    bearer(value).ok_or(AuthError::Unauthenticated(
        "the metadata \"authorization\" has the wrong form: send \"authorization: Bearer KEY\"",
    ))
}
