//! Calls that were let in and wait for the writer while their caller loses the right to make them.

mod revoked;
mod rotated;
