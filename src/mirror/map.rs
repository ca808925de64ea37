//! The maps of the mirror.

/// A map that is read without a lock.
pub(super) type Map<K, V> = papaya::HashMap<K, V, MapHasher>;

/// The hash of the maps. It is not made for keys that an attacker chooses: every key of these maps is made by this authority or an
/// operator, and callers only look keys up.
pub(super) type MapHasher = foldhash::fast::RandomState;
