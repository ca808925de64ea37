//! Revocations of one key, of many keys at once, and of a key by its holder.

mod bulk;
mod rules;
mod sequences;
