//! The stored forms of secrets: a keyed digest, which each Verify compares, and a slow hash, which no Verify computes.
//!
//! A slow hash protects secrets that can be guessed. 256 random bits cannot be guessed, so each request is decided by a fast
//! HMAC under a key of [`Peppers`], which the database does not contain. The Argon2 hashes of [`Roots`] are for the recovery
//! from a lost pepper.

mod import_hash;
mod pepper;
mod root;

pub use import_hash::ImportHash;
pub use pepper::{PepperFileError, Peppers, sync_folder_of};
pub use root::{RootCost, Roots};

/// Returns bytes from the operating system's random generator.
///
/// # Panics
/// If the generator fails, because then no secret can be created.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::disallowed_methods,
        reason = "all random bytes come from this function"
    )]
    getrandom::fill(&mut bytes).expect("the operating system's random generator");
    bytes
}
