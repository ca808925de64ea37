//! `KeyVerify`: verdicts on presented keys, and how they are explained.

mod expiry;
mod explain;
mod stream;
mod wrong_keys;
