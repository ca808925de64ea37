//! Families of metrics, each with a name, an explanation and its series.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use crate::metrics::LatencySum;

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

/// Writes families of metrics. Counters get the suffix `_total`.
pub(super) struct Families<'e>(pub(super) DescriptorEncoder<'e>);

impl Families<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(self.0.encode_descriptor(name, help, None, metric_type)?)
    }

    /// Writes a counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| {
            family.encode_counter(&value, NO_EXEMPLAR)
        })
    }

    /// Writes a counter for each set of labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| {
            for (labels, value) in series {
                family
                    .encode_family(&labels)?
                    .encode_counter(&value, NO_EXEMPLAR)?;
            }
            Ok(())
        })
    }

    /// Writes a counter of seconds, without labels.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
        self.family(name, help, MetricType::Counter, |mut family| {
            family.encode_counter(&value, NO_EXEMPLAR)
        })
    }

    /// Writes a gauge without labels.
    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeGaugeValue + Copy,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| {
            family.encode_gauge(&value)
        })
    }

    /// Writes a gauge for each set of labels.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| {
            for (labels, value) in series {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
            Ok(())
        })
    }

    /// Writes a histogram for each set of labels.
    pub(super) fn histograms<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, LatencySum)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, |mut family| {
            for (labels, took) in series {
                family
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(
                        took.seconds(),
                        took.count(),
                        &took.buckets(),
                        None,
                    )?;
            }
            Ok(())
        })
    }
}
