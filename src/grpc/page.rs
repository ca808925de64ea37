//! Page tokens: the sealed position at which a list continues. A token is valid for one caller and one list with its filters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::auth::AuthorizedCaller;
use crate::authority::Page;
use crate::domain::violation::Violations;

const SEAL_WIDTH: usize = 16;

/// How many items a page has by default.
const DEFAULT_PAGE_SIZE: u32 = 50;

/// How many items a page has at most.
const MAX_PAGE_SIZE: u32 = 1_000;

/// How large the items of a page may be, encoded. gRPC clients accept 4 MiB by default.
const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

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

/// Returns as many messages of a page as fit into an answer, at least one, and the position of the next page.
pub(super) fn fitting<T, M: Message>(
    page: Page<T>,
    message: impl Fn(T) -> M,
    cursor: impl Fn(&M) -> String,
) -> (Vec<M>, Option<String>) {
    let Page { items, next } = page;
    let mut messages: Vec<M> = Vec::with_capacity(items.len());
    let mut bytes = 0;
    for item in items {
        let message = message(item);
        bytes += message.encoded_len();
        if bytes > MAX_PAGE_BYTES
            && let Some(last) = messages.last()
        {
            let next = cursor(last);
            return (messages, Some(next));
        }
        messages.push(message);
    }
    (messages, next)
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
            },
            role: Role::Operator,
        }
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_and_the_next_one_starts_there() {
        let page = |sizes: &[usize]| Page {
            items: sizes.to_vec(),
            next: Some("beyond".to_owned()),
        };
        let cut = |sizes: &[usize]| {
            let (messages, next) = fitting(
                page(sizes),
                |size| "x".repeat(size),
                |text| text.len().to_string(),
            );
            (messages.len(), next.unwrap())
        };
        assert_eq!(cut(&[10, 20]), (2, "beyond".to_owned()));
        assert_eq!(
            cut(&[1_000_000, 2_000_000, 500_000]),
            (2, "2000000".to_owned())
        );
        assert_eq!(cut(&[4_000_000, 1]), (1, "4000000".to_owned()));
        assert_eq!(cut(&[4_000_000]), (1, "beyond".to_owned()));
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
