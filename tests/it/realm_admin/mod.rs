//! `RealmAdmin`: who may define realms, and realm files.

mod authorization;
mod realm_files;
