//! Rotations: a key gets a new secret, and the old one works for the length of the overlap.

mod crash;
mod expiry;
mod overlap;
