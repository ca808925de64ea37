//! The contact with the database: the feed, which follows its changes, and the heartbeats, if other servers share it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{LEASE_CHECK_EVERY, ServeError};
use crate::mirror::{Feed, Mirror};
use crate::replica::Heartbeats;
use crate::store::Error;
use crate::threads::RuntimeThread;

/// The feed and the heartbeats, each on a thread of its own, because their connections belong to the runtimes there.
pub(super) struct Contact {
    mirror: Arc<Mirror>,
    loaded: oneshot::Receiver<Result<(), Error>>,
    feed: RuntimeThread,
    feeding: AbortOnDropHandle<()>,
    stop_feed: watch::Sender<bool>,
    heartbeat: RuntimeThread,
    /// `None` if no other server shares the database.
    beating: Option<AbortOnDropHandle<()>>,
    stop_heartbeats: watch::Sender<bool>,
}

impl Contact {
    /// Starts the feed and the heartbeats. The server registers before it loads, so that whoever changes something from then on knows
    /// of it. Heartbeats begin after the load.
    pub(super) fn start(
        feed_thread: RuntimeThread,
        mut feed: Feed,
        heartbeat_thread: RuntimeThread,
        heartbeats: Option<Heartbeats>,
    ) -> Self {
        let (stop_feed, feed_stopped) = watch::channel(false);
        let (stop_heartbeats, heartbeats_stopped) = watch::channel(false);
        let (registered, is_registered) = oneshot::channel();
        let (sender, loaded) = oneshot::channel();
        let (may_beat, can_beat) = oneshot::channel();
        let mirror = feed.mirror();
        let beating = match heartbeats {
            None => {
                let _ = registered.send(Ok(()));
                None
            }
            Some(mut heartbeats) => Some(heartbeat_thread.runtime().spawn(async move {
                let _ = registered.send(heartbeats.register().await);
                if can_beat.await.is_ok() {
                    heartbeats.run(heartbeats_stopped).await;
                }
            })),
        };
        let feeding = feed_thread.runtime().spawn(async move {
            let outcome = match is_registered.await {
                Ok(Ok(())) => feed.load().await,
                Ok(Err(error)) => Err(error),
                // The thread is being stopped.
                Err(_) => return,
            };
            let is_loaded = outcome.is_ok();
            let _ = sender.send(outcome);
            if is_loaded {
                let _ = may_beat.send(());
                feed.run(feed_stopped).await;
            }
        });
        Self {
            mirror,
            loaded,
            feed: feed_thread,
            feeding: AbortOnDropHandle::new(feeding),
            stop_feed,
            heartbeat: heartbeat_thread,
            beating: beating.map(AbortOnDropHandle::new),
            stop_heartbeats,
        }
    }

    /// Waits until the keys are loaded and this server may say "allowed".
    ///
    /// # Errors
    /// If the keys cannot be loaded.
    pub(super) async fn established(&mut self) -> Result<(), ServeError> {
        let loaded = (&mut self.loaded).await;
        loaded.map_err(|_| ServeError::Failed("feed"))??;
        while self.mirror.lease().left().is_zero() {
            tokio::time::sleep(LEASE_CHECK_EVERY).await;
        }
        Ok(())
    }

    /// Returns when one of the tasks has failed, which the server cannot run without.
    pub(super) async fn failed(&mut self) -> ServeError {
        let beating = async {
            match &mut self.beating {
                Some(beating) => drop(beating.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut self.feeding => ServeError::Failed("feed"),
            () = beating => ServeError::Failed("heartbeat"),
        }
    }

    /// Ends the heartbeats and removes the registration. Nothing must be answered any more, because nobody waits for this server then.
    pub(super) async fn leave(&mut self) {
        self.stop_heartbeats.send_replace(true);
        if let Some(beating) = self.beating.take() {
            let _ = beating.await;
        }
    }

    /// Stops the feed. Its thread goes on until [`Contact::end`], because the connections of the store belong to it.
    pub(super) async fn stop_feed(&mut self) {
        self.stop_feed.send_replace(true);
        let _ = (&mut self.feeding).await;
    }

    /// Ends the threads.
    pub(super) async fn end(self) {
        self.heartbeat.stop().await;
        self.feed.stop().await;
    }
}
