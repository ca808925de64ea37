//! Servers that share one database, and what can happen to them: faults of the network, of the database and of the servers.

mod canary;
mod clock;
mod database;
mod episodes;
mod far_database;
mod faults;
mod history;
mod kills;
mod lease;
mod lost_commits;
mod network;
mod outage;
mod promotion;
mod rename_scope;
mod rig;
mod rolling_restart;
mod servers;
mod suspension;
mod workload;
