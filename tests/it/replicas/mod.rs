//! Several servers on one database, and what can happen to them: faults of the network, of the database and of the servers.

mod database;
mod history;
mod network;
