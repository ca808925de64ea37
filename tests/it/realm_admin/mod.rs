//! `RealmAdmin`: who may define realms, the events of their changes, what a put keeps, and realm files.

mod authorization;
mod events;
mod puts;
mod realm_files;
mod texts;
