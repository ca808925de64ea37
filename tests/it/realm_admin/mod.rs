//! `RealmAdmin`: who may define realms, the events of their changes, and realm files.

mod authorization;
mod events;
mod realm_files;
mod texts;
