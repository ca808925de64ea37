//! How secrets are kept: a keyed digest that Verify compares, and a slow hash that Verify never runs.
//!
//! A slow hash protects secrets that can be guessed. 256 random bits cannot, so what answers every request is a fast HMAC
//! under a [`Peppers`] key that the database does not hold. The Argon2 [`Roots`] are for the day on which that key is lost.

mod pepper;
mod root;
mod text_hash;

pub use pepper::{PepperFileError, Peppers, sync_folder_of};
pub use root::{RootCost, Roots, RootsBusy};
pub use text_hash::TextHash;

/// Bytes from the operating system's random generator.
///
/// # Panics
/// If the operating system has none to give: nothing that must be unguessable can be made then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one home of randomness"
    )]
    getrandom::fill(&mut bytes).expect("the operating system's random generator");
    bytes
}
