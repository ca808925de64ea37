//! Reads the certificates again when their files change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::time::sleep;

use super::Tls;
use crate::telemetry::limited;
use crate::transport::limits::CERTIFICATES_EVERY;

/// How long before its end a certificate should be replaced.
pub const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// The time between two warnings that it should be.
const WARN_EVERY: Duration = Duration::from_hours(24);

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Reads the certificates again every few seconds and at each signal, without end. Without TLS a signal does nothing.
///
/// The contents are compared, and not the times of the files, because a file may be a symbolic link into a directory that is
/// replaced.
pub async fn reload(tls: Option<Arc<Tls>>, mut hangups: Signal) {
    let Some(tls) = tls else {
        while hangups.recv().await.is_some() {
            tracing::info!(
                "SIGHUP ignored: there are no certificates to read again, because TLS is off"
            );
        }
        return;
    };
    let mut last_failure = None;
    let mut warned_at = None;
    loop {
        let is_asked = tokio::select! {
            Some(()) = hangups.recv() => true,
            () = sleep(CERTIFICATES_EVERY) => false,
        };
        let reading = Arc::clone(&tls);
        // Files are read by a thread that may wait.
        let Ok(outcome) = tokio::task::spawn_blocking(move || reading.read_again()).await else {
            continue;
        };
        match outcome {
            Ok(Reading::Unchanged) => {
                last_failure = None;
                if is_asked {
                    tracing::info!("certificates unchanged");
                }
            }
            Ok(Reading::Replaced) => {
                last_failure = None;
                let expires = tls.validity().end.rfc3339();
                tracing::info!(%expires, "certificates replaced; new connections use the new ones");
            }
            Err(why) => {
                // Files that are replaced one after the other do not match for a moment.
                if is_asked || last_failure.as_ref() == Some(&why) {
                    limited!(&why => error, why, "certificates not replaced; the old ones stay in use");
                }
                last_failure = Some(why);
            }
        }
        let (end, now) = (tls.validity().end, tls.clock.now());
        if end <= now {
            limited!(
                error,
                "the server's certificate has expired; clients refuse it until it is replaced"
            );
        } else if end < now.saturating_add(EXPIRES_SOON)
            && warned_at.is_none_or(|at: Instant| at.elapsed() > WARN_EVERY)
        {
            warned_at = Some(Instant::now());
            let days_left = end.since(now).as_secs() / SECONDS_PER_DAY;
            tracing::warn!(
                days_left,
                "the server's certificate expires soon: replace it"
            );
        }
    }
}

/// The result of reading the certificates again.
enum Reading {
    /// They are in use already.
    Unchanged,
    /// New connections use them.
    Replaced,
}

impl Tls {
    /// Reads the certificates again. On an error, which is returned as the text for the log, the old ones stay in use.
    fn read_again(&self) -> Result<Reading, String> {
        let read = || {
            let contents = self.files.read()?;
            if contents.digest() == self.current.load().digest {
                return Ok(Reading::Unchanged);
            }
            let credentials = self.files.credentials(&contents, self.clock.now())?;
            self.current.store(Arc::new(credentials));
            self.replaced.count();
            Ok(Reading::Replaced)
        };
        let outcome = read();
        self.is_stale.store(outcome.is_err(), Ordering::Relaxed);
        outcome.map_err(|error: super::CertificateError| error.to_string())
    }
}
