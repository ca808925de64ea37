//! Ctrl-C during an import: the batch that was sent is finished.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::output;

/// Whether Ctrl-C was pressed.
pub(super) struct Interrupt {
    came: watch::Receiver<bool>,
}

impl Interrupt {
    /// Waits for Ctrl-C from now on. The second one ends the program at once.
    pub(super) fn catch() -> io::Result<Self> {
        let (tell, came) = watch::channel(false);
        let (ready, caught) = mpsc::channel();
        // A thread of its own, because a file that is a pipe may keep the other one waiting.
        thread::spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let mut signals = match signal(SignalKind::interrupt()) {
                    Ok(signals) => signals,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                signals.recv().await;
                let _ = tell.send(true);
                output::print_error("stopping after this batch; Ctrl-C again stops at once");
                signals.recv().await;
                std::process::exit(i32::from(super::INTERRUPTED));
            });
        });
        caught
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { came })
    }

    /// Whether it was pressed.
    pub(super) fn has_come(&self) -> bool {
        *self.came.borrow()
    }

    /// Waits until it is pressed.
    pub(super) async fn came(&self) {
        let mut came = self.came.clone();
        let _ = came.wait_for(|came| *came).await;
    }
}
