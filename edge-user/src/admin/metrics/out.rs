//! Rows of families, as the encoder wants them.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};

use super::family::Family;

/// Writes families.
pub(super) struct Out<'e>(DescriptorEncoder<'e>);

/// Label values in the order of the family's labels.
pub(super) type Values<'v> = &'v [&'v str];

impl<'e> Out<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// Writes the head of a family, and lets `rows` write what belongs to it.
    pub(super) fn family(
        &mut self,
        family: &Family,
        rows: impl FnOnce(&mut Rows<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = family.base.unit();
        let encoder =
            self.0
                .encode_descriptor(family.stem, family.help, unit.as_ref(), family.kind.metric_type())?;
        rows(&mut Rows { encoder, family })
    }

    /// A family of counters.
    pub(super) fn counters<'v, V: AsRef<[&'v str]>>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (V, u64)>,
    ) -> fmt::Result {
        self.family(family, |out| {
            rows.into_iter()
                .try_for_each(|(values, count)| out.counter(values.as_ref(), count))
        })
    }

    /// A family of gauges.
    pub(super) fn gauges<'v, V: AsRef<[&'v str]>>(
        &mut self,
        family: &Family,
        rows: impl IntoIterator<Item = (V, f64)>,
    ) -> fmt::Result {
        self.family(family, |out| {
            rows.into_iter()
                .try_for_each(|(values, value)| out.gauge(values.as_ref(), value))
        })
    }

    /// One counter without labels.
    pub(super) fn counter(&mut self, family: &Family, count: u64) -> fmt::Result {
        self.counters(family, [([], count)])
    }

    /// One gauge without labels.
    pub(super) fn gauge(&mut self, family: &Family, value: f64) -> fmt::Result {
        self.gauges(family, [([], value)])
    }
}

/// The rows of one family.
pub(super) struct Rows<'e> {
    encoder: MetricEncoder<'e>,
    family: &'e Family,
}

impl Rows<'_> {
    fn labelled(
        &mut self,
        values: Values<'_>,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        let labels: Vec<(&str, &str)> = self
            .family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect();
        write(&mut self.encoder.encode_family(&labels)?)
    }

    pub(super) fn counter(&mut self, values: Values<'_>, count: u64) -> fmt::Result {
        self.labelled(values, |out| {
            out.encode_counter::<NoLabelSet, _, u64>(&count, None)
        })
    }

    pub(super) fn seconds(&mut self, values: Values<'_>, seconds: f64) -> fmt::Result {
        self.labelled(values, |out| {
            out.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
        })
    }

    pub(super) fn gauge(&mut self, values: Values<'_>, value: f64) -> fmt::Result {
        self.labelled(values, |out| out.encode_gauge(&value))
    }

    /// `buckets` are upper bounds with what lies between each and the one before it; the last has no bound.
    pub(super) fn histogram(
        &mut self,
        values: Values<'_>,
        sum_seconds: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.labelled(values, |out| {
            out.encode_histogram::<NoLabelSet>(sum_seconds, count, buckets, None)
        })
    }
}
