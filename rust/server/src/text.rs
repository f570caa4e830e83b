//! Writes the Prometheus text format.

use std::fmt::{Display, Write};

use mlserve_core::stats::HistogramTotal;

use crate::metrics::Type;

/// The label of a histogram's last bucket, after others.
const INFINITE: &str = ",le=\"+Inf\"";

/// One metric: its name, type and help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name without a bucket's or sum's ending.
    pub name: &'static str,
    /// What it is, to Prometheus.
    pub kind: Type,
    /// One sentence.
    pub help: &'static str,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, family: &Family) {
        let Family { name, kind, help } = family;
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {}", kind.name()));
    }

    /// One sample; `labels` as in `model="m",version="1"`, values escaped already.
    pub(crate) fn sample(&mut self, family: &Family, labels: &str, value: impl Display) {
        self.labelled(family.name, "", labels, "", value);
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, family: &Family, value: u64) {
        self.family(family);
        self.line(format_args!("{} {value}", family.name));
    }

    /// The samples of a histogram whose values are `scale` of the unit in its name. While nothing was counted, one bucket
    /// stands for all: a thousand idle models would otherwise make most of the page.
    pub(crate) fn histogram(&mut self, family: &Family, labels: &str, total: &HistogramTotal, scale: f64) {
        let name = family.name;
        let mut count = 0;
        if total.buckets.is_empty() {
            self.labelled(name, "_bucket", labels, INFINITE, 0);
        }
        for (index, bucket) in total.buckets.iter().enumerate() {
            count += bucket;
            match total.bounds.get(index) {
                Some(&bound) => {
                    let bound = bound as f64 * scale;
                    self.labelled(name, "_bucket", labels, &format!(",le=\"{}\"", rounded(bound)), count);
                }
                None => self.labelled(name, "_bucket", labels, INFINITE, count),
            }
        }
        self.labelled(name, "_sum", labels, "", total.sum as f64 * scale);
        self.labelled(name, "_count", labels, "", count);
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    /// A line in pieces: there are half a million of ten thousand models, and formatting as a whole costs twice as much.
    fn labelled(&mut self, name: &str, ending: &str, labels: &str, last_label: &str, value: impl Display) {
        for piece in [name, ending, "{", labels, last_label, "} "] {
            self.0.push_str(piece);
        }
        self.line(value);
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// Bounds without the digits that scaling adds: 0.00001, not 0.000010000000000000001.
fn rounded(bound: f64) -> f64 {
    (bound * 1e9).round() / 1e9
}
