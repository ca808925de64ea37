//! `RealmAdmin`: who may define realms, the events of their changes, what a put keeps, edits by the command line, realm files, and
//! renamed scopes.

mod authorization;
mod edits;
mod events;
mod newer_server;
mod puts;
mod random_edits;
mod realm_files;
mod rename_scope;
mod texts;
