//! Page tokens: the sealed position at which a list continues. A token is valid for one caller and one list with its filters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::auth::AuthorizedCaller;
use crate::domain::violation::Violations;

const SEAL_WIDTH: usize = 16;

/// How many items a page has by default.
const DEFAULT_PAGE_SIZE: u32 = 50;

/// How many items a page has at most.
const MAX_PAGE_SIZE: u32 = 1_000;

/// How large the items of a page may be, encoded. A thousand keys with some scopes and labels fit. In memory a realm with many
/// short names takes ten times as much while its page is made.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Seals and checks page tokens.
#[derive(Clone)]
pub struct Pages {
    seal: Hmac<Sha256>,
}

impl Pages {
    /// Creates page tokens with the store's key, so that a token stays valid after a restart.
    pub fn new(key: &[u8]) -> Self {
        Self {
            seal: Hmac::new_from_slice(key).expect("HMAC takes a key of any length"),
        }
    }

    /// Returns the token for the page that starts at `next`, or an empty string if there is no next page. `list` is the name of
    /// the list, `filters` the encoded request.
    pub(super) fn token(
        &self,
        caller: &AuthorizedCaller,
        list: &str,
        filters: &[u8],
        next: Option<String>,
    ) -> String {
        next.map_or_else(String::new, |next| {
            let mut token = self.sealed(caller, list, filters, &next).to_vec();
            token.extend(next.as_bytes());
            URL_SAFE_NO_PAD.encode(token)
        })
    }

    /// Returns the position of a token. The position is empty for the first page.
    pub(super) fn cursor(
        &self,
        bad: &mut Violations,
        caller: &AuthorizedCaller,
        list: &str,
        filters: &[u8],
        token: &str,
    ) -> String {
        if token.is_empty() {
            return String::new();
        }
        let cursor = URL_SAFE_NO_PAD.decode(token).ok().and_then(|token| {
            let (seal, cursor) = token.split_at_checked(SEAL_WIDTH)?;
            let cursor = std::str::from_utf8(cursor).ok()?;
            let sealed = self.sealed(caller, list, filters, cursor);
            bool::from(sealed.ct_eq(seal)).then(|| cursor.to_owned())
        });
        bad.check(
            "page_token",
            cursor.ok_or(
                "must be the `next_page_token` of the previous page, with the same caller and filters",
            ),
        )
        .unwrap_or_default()
    }

    fn sealed(
        &self,
        caller: &AuthorizedCaller,
        list: &str,
        filters: &[u8],
        cursor: &str,
    ) -> [u8; SEAL_WIDTH] {
        let mut mac = self.seal.clone();
        for part in [
            caller.principal.key.as_bytes().as_slice(),
            list.as_bytes(),
            filters,
            cursor.as_bytes(),
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        *full.first_chunk().expect("16 of 32 bytes")
    }
}

/// Returns a function that converts the items of a page, as long as their messages fit into an answer. It accepts the first item
/// in any case, and refuses an item that does not fit.
pub(super) fn fitting<T, M: Message>(message: impl Fn(T) -> M) -> impl FnMut(T) -> Option<M> {
    let mut room = None;
    move |item| {
        let message = message(item);
        let bytes = message.encoded_len();
        room = Some(match room {
            None => MAX_PAGE_BYTES.saturating_sub(bytes),
            Some(room) => usize::checked_sub(room, bytes)?,
        });
        Some(message)
    }
}

/// Decodes a page size.
pub(super) fn size(bad: &mut Violations, size: i32) -> u32 {
    match u32::try_from(size) {
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
        Err(_) => {
            bad.add("page_size", "must be 0 (default) or more");
            DEFAULT_PAGE_SIZE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Principal, Role};
    use crate::domain::ids::KeyId;
    use crate::domain::key::Digest;

    fn caller(byte: u8) -> AuthorizedCaller {
        AuthorizedCaller {
            principal: Principal {
                key: KeyId::from_bytes([byte; 16]),
                secret: Digest {
                    pepper: 1,
                    mac: [byte; 32],
                },
                peer: None,
                answer_by: None,
            },
            role: Role::Operator,
        }
    }

    #[test]
    fn items_fit_until_the_answer_is_full_and_the_first_one_always_does() {
        let fit = |sizes: &[usize]| {
            let mut take = fitting(|size| "x".repeat(size));
            let sizes = sizes.iter();
            sizes
                .take_while(|size| take(**size).is_some())
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(fit(&[10, 20]), [10, 20]);
        assert_eq!(fit(&[400_000, 600_000, 50_000]), [400_000, 600_000]);
        assert_eq!(fit(&[4_000_000]), [4_000_000]);
        assert_eq!(fit(&[4_000_000, 0]), [4_000_000, 0]);
        assert_eq!(fit(&[4_000_000, 1]), [4_000_000]);
        // A message of a text has a tag and a length of three bytes besides.
        let most = MAX_PAGE_BYTES - 4;
        assert_eq!(fit(&[most]), [most]);
        assert_eq!(fit(&[most - 2, 1]), [most - 2]);
        assert_eq!(fit(&[most - 3, 1]), [most - 3, 1]);
    }

    fn read(
        pages: &Pages,
        caller: &AuthorizedCaller,
        list: &str,
        filters: &[u8],
        token: &str,
    ) -> Option<String> {
        let mut bad = Violations::default();
        let cursor = pages.cursor(&mut bad, caller, list, filters, token);
        bad.is_empty().then_some(cursor)
    }

    #[test]
    fn a_token_is_valid_for_the_same_caller_and_list_only() {
        let pages = Pages::new(&[1; 32]);
        let token = pages.token(&caller(1), "keys", b"filters", Some("here".to_owned()));
        assert_eq!(
            read(&pages, &caller(1), "keys", b"filters", &token).as_deref(),
            Some("here")
        );
        assert_eq!(read(&pages, &caller(2), "keys", b"filters", &token), None);
        assert_eq!(read(&pages, &caller(1), "events", b"filters", &token), None);
        assert_eq!(read(&pages, &caller(1), "keys", b"others", &token), None);
        assert_eq!(
            read(
                &Pages::new(&[2; 32]),
                &caller(1),
                "keys",
                b"filters",
                &token
            ),
            None
        );
        for odd in ["x", "AAAA", "!!!", &token[1..]] {
            assert_eq!(read(&pages, &caller(1), "keys", b"filters", odd), None);
        }
    }

    #[test]
    fn the_first_page_needs_no_token_and_the_last_page_has_none() {
        let pages = Pages::new(&[1; 32]);
        assert_eq!(
            read(&pages, &caller(1), "keys", b"", "").as_deref(),
            Some("")
        );
        assert_eq!(pages.token(&caller(1), "keys", b"", None), "");
    }

    #[test]
    fn page_sizes_have_a_default_and_a_cap() {
        let mut bad = Violations::default();
        assert_eq!(size(&mut bad, 0), 50);
        assert_eq!(size(&mut bad, 7), 7);
        assert_eq!(size(&mut bad, i32::MAX), 1_000);
        assert!(bad.is_empty());
        size(&mut bad, -1);
        assert!(!bad.is_empty());
    }
}
