//! What a scrape returns.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The samples of one scrape, by their names and labels as they are written.
pub(crate) struct Scrape {
    pub(crate) text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Scrapes the server at this address.
    pub(crate) async fn of(http_address: &str) -> Self {
        Self::over(TcpStream::connect(http_address).await.unwrap()).await
    }

    /// Scrapes over a connection.
    pub(crate) async fn over(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> Self {
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        let media_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(head.contains(media_type), "{head}");
        Self::parse(text)
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"), "it is whole");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        let all: BTreeMap<_, _> = samples.collect();
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all.len(), lines, "each series is there once");
        Self {
            text: text.to_owned(),
            samples: all,
        }
    }

    /// The value of a series; 0 if there is none.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or_default()
    }

    /// The value of a series that counts something.
    pub(crate) fn count(&self, series: &str) -> u64 {
        whole(self.value(series))
    }

    /// The names of the labels of a metric; empty if it has no series yet.
    pub(crate) fn labels(&self, name: &str) -> Vec<&str> {
        let series = self.samples.keys().find_map(|series| {
            let rest = series.strip_prefix(name)?;
            let suffixes = ["_total", "_bucket"];
            let suffix = suffixes.iter().find(|suffix| rest.starts_with(**suffix));
            rest[suffix.map_or(0, |suffix| suffix.len())..].strip_prefix('{')
        });
        let labels = series.unwrap_or_default().split("\",");
        let names = labels.filter_map(|label| Some(label.split_once('=')?.0));
        names.filter(|name| *name != "le").collect()
    }

    /// The names of the metrics, as `# TYPE` tells them.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let types = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap()).collect()
    }

    /// The type of a metric.
    pub(crate) fn kind(&self, name: &str) -> &str {
        let start = format!("# TYPE {name} ");
        let mut types = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix(&start));
        types.next().unwrap()
    }

    /// The sum of the series of this name whose labels contain all of these.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let matches = |series: &str| {
            let rest = series.strip_prefix(name);
            rest.is_some_and(|rest| {
                (rest.is_empty() || rest.starts_with('{'))
                    && labels.iter().all(|label| rest.contains(label))
            })
        };
        let matching = self.samples.iter().filter(|(series, _)| matches(series));
        whole(matching.map(|(_, value)| value).sum())
    }

    /// The series whose values have grown since another scrape, with what they have grown by.
    pub(crate) fn grown_since(&self, before: &Self) -> BTreeMap<&str, f64> {
        let grown = self
            .samples
            .iter()
            .map(|(series, value)| (series.as_str(), value - before.value(series)));
        grown.filter(|(_, by)| *by > 0.0).collect()
    }
}

fn whole(value: f64) -> u64 {
    let whole = format!("{value}");
    whole.parse().unwrap_or_else(|_| panic!("{value} is whole"))
}
