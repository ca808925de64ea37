//! `/metrics`, for Prometheus.
//!
//! The text is made on the admin plane, because that takes milliseconds, and for all scrapes that wait at once. So callers who
//! scrape as fast as they can cost little, and what a scrape returns is never older than its request.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

/// The media type of `OpenMetrics` 1.0.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The most scrapes that wait for the same text.
const MAX_WAITING: usize = 256;

/// The least time between two texts. A scrape waits no longer than this for its turn.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// Where scrapes get their text. It comes from a task of the runtime on which this is created.
#[derive(Clone, Debug)]
pub struct Scraper(mpsc::Sender<oneshot::Sender<Bytes>>);

impl Scraper {
    /// Answers scrapes with what `text` returns. The task ends with the last clone.
    pub fn start(text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (sender, mut scrapes) = mpsc::channel(MAX_WAITING);
        tokio::spawn(async move {
            let mut waiting: Vec<oneshot::Sender<Bytes>> = Vec::new();
            while scrapes.recv_many(&mut waiting, MAX_WAITING).await > 0 {
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
        self.0.try_send(sender).ok()?;
        text.await.ok()
    }
}

/// Answers a scrape.
pub(super) async fn metrics(State(scraper): State<Scraper>) -> Response {
    match scraper.text().await {
        Some(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Seen red with a channel without a bound.
    #[tokio::test]
    async fn too_many_scrapes_at_once_are_refused() {
        let scraper = Scraper::start(String::new);
        scraper.text().await.unwrap();
        let texts = (0..MAX_WAITING + 7).map(|_| scraper.text());
        let answers = futures_util::future::join_all(texts).await;
        let refused = answers.iter().filter(|answer| answer.is_none()).count();
        assert_eq!(refused, 7);
    }
}
