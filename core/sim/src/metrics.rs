//! What is measured, and what many measurements say together.

use std::collections::BTreeMap;

macro_rules! metrics {
    ($($variant:ident $name:literal $unit:literal $text:literal)*) => {
        /// Something that is measured.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric {
            $(#[doc = $text] $variant,)*
        }

        impl Metric {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, in JSON too.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Its unit; empty for plain numbers.
            pub fn unit(self) -> &'static str {
                match self {
                    $(Self::$variant => $unit,)*
                }
            }

            /// What it is, in a line.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

metrics! {
    Forming "forming" "s" "from the start until each group that could be one tree is one"
    Settled "settled" "s" "from the start until every routing table is right as well"
    FormingBytes "forming_bytes_per_node" "B" "sent by a node until then"
    Join "join" "s" "from the appearance of a new node until all are one tree"
    Merge "merge" "s" "from the moment that two trees come into range until they are one"
    Heal "heal" "s" "from the death of a node with children until the rest is one tree"
    Search "search" "ms" "from a search to the reply of the one node that has the file"
    SearchPerLink "search_per_link" "ms" "the same, for each link there and back"
    SearchReach "search_reach" "" "share of the nodes of the asker's tree that a search reaches"
    SearchAnswered "search_answered" "" "share of the searches that are answered by the one node that has the file, if it was in the tree"
    OneTreeShare "one_tree_share" "" "share of the time of the events in which each group was one tree"
    Bytes "bytes_per_node_hour" "B" "sent by a node in an hour, at rest or, where there are events, during them"
    Wakeups "wakeups_per_node_hour" "" "moments in an hour at which a node's timer or radio had something for it"
    Trees "trees" "" "trees in the end"
    MeanPath "mean_path" "links" "mean path between two nodes of a tree in the end"
    PathPerLog "path_per_log2" "" "the same, divided by the base-2 logarithm of the tree's size"
    Diameter "diameter" "links" "longest path in the end"
    Depth "depth" "links" "longest path from a root in the end"
    Piconets "piconets" "" "nodes with children in the end"
    Broadcast "broadcast" "" "transmissions of one broadcast"
}

/// What was measured in a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(BTreeMap<Metric, Vec<f64>>);

impl Samples {
    /// One measurement.
    pub fn add(&mut self, metric: Metric, value: f64) {
        self.0.entry(metric).or_default().push(value);
    }

    /// Takes over another run's.
    pub fn extend(&mut self, other: Self) {
        for (metric, values) in other.0 {
            self.0.entry(metric).or_default().extend(values);
        }
    }

    /// All measurements of one kind, in order.
    pub fn of(&self, metric: Metric) -> &[f64] {
        self.0.get(&metric).map_or(&[], Vec::as_slice)
    }

    /// What they say together, for each metric that was measured.
    pub fn summaries(&self) -> impl Iterator<Item = (Metric, Summary)> + '_ {
        self.0.iter().filter_map(|(&metric, values)| Some((metric, Summary::of(values)?)))
    }
}

/// What many measurements say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// The mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Sums up; `None` if there is nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len();
        // The smallest value that so many are not above.
        let percentile = |percent: usize| sorted[(count * percent).div_ceil(100).max(1) - 1];
        let mean = sorted.iter().sum::<f64>() / count as f64;
        Some(Self { count, p50: percentile(50), p95: percentile(95), mean, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&values).unwrap();
        assert_eq!((summary.count, summary.p50, summary.p95, summary.min, summary.max), (100, 50.0, 95.0, 1.0, 100.0));
        assert_eq!(summary.mean, 50.5);
        let one = Summary::of(&[3.0]).unwrap();
        assert_eq!((one.p50, one.p95), (3.0, 3.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn no_two_metrics_share_a_name() {
        let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
