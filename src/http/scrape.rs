//! `/metrics`, for Prometheus.
//!
//! The text is made on the admin plane, because that takes milliseconds, and for all scrapes that wait at once. So callers who
//! scrape as fast as they can cost little, and what a scrape returns is never older than its request. A client must read its text
//! soon, so that few texts are in memory.

use std::io;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

/// The media type of `OpenMetrics` 1.0.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The least time between two texts. A scrape waits no longer than this for its turn.
const LEAST_TIME: Duration = Duration::from_millis(250);

/// How long a client may take to read its text.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of a text that is sent at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// Where scrapes get their text. It comes from a task of the runtime on which this is created.
#[derive(Clone, Debug)]
pub struct Scraper(mpsc::UnboundedSender<oneshot::Sender<Bytes>>);

impl Scraper {
    /// Answers scrapes with what `text` returns. The task ends with the last clone.
    pub fn start(text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        // Without a bound of its own: each connection has at most one scrape that waits.
        let (sender, mut scrapes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut waiting: Vec<oneshot::Sender<Bytes>> = Vec::new();
            while scrapes.recv_many(&mut waiting, usize::MAX).await > 0 {
                let text = Bytes::from(text());
                for scrape in waiting.drain(..) {
                    // A client that is gone needs none.
                    let _ = scrape.send(text.clone());
                }
                tokio::time::sleep(LEAST_TIME).await;
            }
        });
        Self(sender)
    }

    async fn text(&self) -> Option<Bytes> {
        let (sender, text) = oneshot::channel();
        self.0.send(sender).ok()?;
        text.await.ok()
    }
}

/// Answers a scrape.
pub(super) async fn metrics(State(scraper): State<Scraper>) -> Response {
    match scraper.text().await {
        Some(text) => {
            let headers = [
                (CONTENT_TYPE, OPEN_METRICS),
                (CONTENT_LENGTH, HeaderValue::from(text.len())),
            ];
            (headers, body(text, READ_TIMEOUT)).into_response()
        }
        // Its task has panicked, and the panic hook has logged the panic.
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A body that ends with an error, and so the connection, if the client has not read it within the timeout.
fn body(text: Bytes, timeout: Duration) -> Body {
    let begun = Instant::now();
    let chunks = (0..text.len()).step_by(CHUNK).map(move |start| {
        if begun.elapsed() > timeout {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        Ok(text.slice(start..text.len().min(start + CHUNK)))
    });
    Body::from_stream(stream::iter(chunks))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use http_body_util::BodyExt;

    use super::*;

    /// Seen red with one text for each scrape, and with a text that is kept for later scrapes.
    #[tokio::test]
    async fn scrapes_that_wait_share_a_text_and_none_gets_an_old_one() {
        let made = Arc::new(AtomicU64::new(0));
        let making = Arc::clone(&made);
        let scraper = Scraper::start(move || making.fetch_add(1, Ordering::Relaxed).to_string());
        let text = || async { scraper.text().await.unwrap() };
        assert_eq!(text().await, "0");
        let together = futures_util::future::join_all((0..200).map(|_| text())).await;
        assert!(together.iter().all(|text| text == "1"));
        assert_eq!(text().await, "2");
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }

    /// Seen red with a limit on the scrapes that wait, of which one address could take all.
    #[tokio::test]
    async fn no_scrape_is_refused_because_others_wait() {
        let scraper = Scraper::start(String::new);
        let answers = futures_util::future::join_all((0..10_000).map(|_| scraper.text())).await;
        assert!(answers.iter().all(Option::is_some));
    }

    /// Seen red without the timeout.
    #[tokio::test]
    async fn a_text_that_is_not_read_in_time_ends() {
        let text = Bytes::from(vec![b'x'; 5 * CHUNK / 2]);
        let read = |timeout| body(text.clone(), timeout).collect();
        let whole = read(READ_TIMEOUT).await.unwrap().to_bytes();
        assert_eq!(whole.len(), text.len());
        assert!(read(Duration::ZERO).await.is_err());
    }
}
