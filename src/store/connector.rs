//! Makes the connections of one purpose, with its settings.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;

use super::driver::within;
use super::servers::{NoPrimary, Servers};

/// Makes connections with the same settings to the server that is used.
#[derive(Clone)]
pub(super) struct Connector {
    servers: Arc<Servers>,
    settings: Vec<(&'static str, String)>,
}

impl Connector {
    pub(super) fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            settings: Vec::new(),
        }
    }

    /// Makes connections with further settings.
    pub(super) fn with<'v>(
        &self,
        settings: impl IntoIterator<Item = (&'static str, &'v str)>,
    ) -> Self {
        let settings = settings.into_iter();
        let settings = settings.map(|(name, value)| (name, value.to_owned()));
        Self {
            servers: Arc::clone(&self.servers),
            settings: self.settings.iter().cloned().chain(settings).collect(),
        }
    }

    /// Connects within `limit`. Returns the connection and its generation.
    ///
    /// # Errors
    /// If the server cannot be reached or is not used any more.
    pub(super) async fn connect(
        &self,
        limit: Duration,
    ) -> Result<(PgConnection, u64), sqlx::Error> {
        // On the heap, because every access to the store would have room for it.
        let connecting = Box::pin(self.servers.connect(&self.settings));
        within(limit, async { Ok(connecting.await?) }).await
    }

    /// The generation of connections that are made now.
    pub(super) fn generation(&self) -> u64 {
        self.servers.generation()
    }

    /// Waits until connections of this generation are given up.
    pub(super) async fn moved(&self, generation: u64) {
        self.servers.moved(generation).await;
    }

    /// Chooses the server anew, within `limit`.
    ///
    /// # Errors
    /// If no server can be used.
    pub(super) async fn choose(&self, limit: Duration) -> Result<(), NoPrimary> {
        self.servers.choose(limit).await
    }

    /// Asks every server who it is, and returns the names of those that cannot be used, with the reasons.
    pub(super) async fn examine(&self) -> Vec<(String, String)> {
        self.servers.examine().await
    }

    /// Looks in the background whether another server was promoted.
    pub(super) fn look_around(&self) {
        self.servers.look_around();
    }

    /// The time in which the database must answer.
    pub(super) fn deadline(&self) -> Duration {
        self.servers.deadline()
    }
}
