//! Waiting for the server at a terminal: a notice when it takes long, and Ctrl-C.

use std::future;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::text;

/// How long nobody wonders why nothing happens.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the process has a handler for Ctrl-C, which then ends no process by itself any more.
static IS_CAUGHT: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C from now on. Afterwards only [`attended`] ends by it, and a prompt that reads it as a character.
pub(super) fn catch_interrupts() -> io::Result<Signal> {
    IS_CAUGHT.store(true, Ordering::Relaxed);
    signal(SignalKind::interrupt())
}

/// Does what waits for a server. If it takes long, standard error says so as long as it lasts, if it is a terminal.
///
/// Returns `None` after Ctrl-C. Of a change the command must be able to say how to repeat it. A read ends with the process.
pub(super) async fn attended<T>(
    server: &str,
    is_change: bool,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut notice = Notice::default();
    let catches = is_change || IS_CAUGHT.load(Ordering::Relaxed);
    let mut interrupts = catches.then(|| catch_interrupts().ok()).flatten();
    let interrupted = async {
        match &mut interrupts {
            Some(interrupts) => drop(interrupts.recv().await),
            None => future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = interrupted => None,
        () = notice.give(server) => None,
    }
}

/// The notice that a server is waited for; wiped when it is dropped.
#[derive(Default)]
struct Notice {
    is_given: bool,
}

impl Notice {
    /// Gives the notice when it is time, and never returns.
    async fn give(&mut self, server: &str) {
        tokio::time::sleep(PATIENCE).await;
        if io::stderr().is_terminal() {
            print(&format!("waiting for {} …", text::plain(server)));
            self.is_given = true;
        }
        future::pending::<()>().await;
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if self.is_given {
            // To the start of the line, and clear it.
            print("\r\x1b[K");
        }
    }
}

/// Writes to standard error at once, without a line break.
fn print(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
