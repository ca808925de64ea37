//! What is counted about the questions of gateways over HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use clap::ValueEnum;

use crate::config::GatewayKind;
use crate::metrics::{Counter, Latency, LatencySum, Sharded};

/// The first status, and the number of them.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

/// The kinds of gateways, and one that stands for a path that names none.
const KINDS: usize = 5;

/// The answers to gateways, counted by each thread for itself.
#[derive(Debug, Default)]
pub struct GatewayMetrics(Sharded<[KindMetrics; KINDS]>);

#[derive(Debug)]
struct KindMetrics {
    answers: [Counter; STATUSES],
    took: Latency,
}

impl Default for KindMetrics {
    fn default() -> Self {
        Self {
            answers: std::array::from_fn(|_| Counter::default()),
            took: Latency::default(),
        }
    }
}

impl GatewayMetrics {
    /// Counts an answer to a gateway of this kind. A path that is wrong may name none.
    pub(super) fn answered(&self, kind: Option<GatewayKind>, status: StatusCode, took: Duration) {
        let metrics = &self.0.here()[place(kind)];
        let status = usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        metrics.answers[status.min(STATUSES - 1)].count();
        metrics.took.observe(took);
    }

    /// How many answers each kind of gateway got, by status. The status of a misconfigured gateway is there before the first of them,
    /// because Prometheus sees no increase up to the first sample of a series.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        kinds().flat_map(move |(kind, name)| {
            (FIRST_STATUS..)
                .zip(0..STATUSES)
                .filter_map(move |(status, index)| {
                    let answers = self.0.all().map(|all| all[kind].answers[index].get());
                    let count: u64 = answers.sum();
                    let is_shown = count > 0 || status == StatusCode::INTERNAL_SERVER_ERROR;
                    is_shown.then_some((name, status, count))
                })
        })
    }

    /// How long the answers took.
    pub fn took(&self) -> impl Iterator<Item = (&'static str, LatencySum)> {
        kinds().map(|(kind, name)| {
            let took = LatencySum::of(self.0.all().map(|all| &all[kind].took));
            (name, took)
        })
    }
}

fn place(kind: Option<GatewayKind>) -> usize {
    kind.map_or(KINDS - 1, |kind| kind as usize)
}

/// The places of the kinds, with the values of their label.
fn kinds() -> impl Iterator<Item = (usize, &'static str)> {
    let kinds = GatewayKind::value_variants().iter().map(|kind| {
        let name = match kind {
            GatewayKind::Nginx => "nginx",
            GatewayKind::Caddy => "caddy",
            GatewayKind::Traefik => "traefik",
            GatewayKind::Envoy => "envoy",
        };
        (place(Some(*kind)), name)
    });
    kinds.chain([(place(None), "unknown")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_kind_and_status() {
        let metrics = GatewayMetrics::default();
        let took = Duration::from_micros(7);
        metrics.answered(Some(GatewayKind::Envoy), StatusCode::OK, took);
        metrics.answered(Some(GatewayKind::Envoy), StatusCode::OK, took);
        metrics.answered(Some(GatewayKind::Nginx), StatusCode::UNAUTHORIZED, took);
        metrics.answered(None, StatusCode::INTERNAL_SERVER_ERROR, took);
        metrics.answered(None, StatusCode::from_u16(999).unwrap(), took);
        let answers: Vec<_> = metrics.answers().collect();
        let expected = [
            ("nginx", 401, 1),
            ("nginx", 500, 0),
            ("caddy", 500, 0),
            ("traefik", 500, 0),
            ("envoy", 200, 2),
            ("envoy", 500, 0),
            ("unknown", 500, 1),
            ("unknown", 599, 1),
        ];
        assert_eq!(answers, expected);
        let took: Vec<_> = metrics
            .took()
            .map(|(kind, took)| (kind, took.count()))
            .collect();
        let expected = [
            ("nginx", 1),
            ("caddy", 0),
            ("traefik", 0),
            ("envoy", 2),
            ("unknown", 2),
        ];
        assert_eq!(took, expected);
    }
}
