//! One list for the instruments of a crate: their names, what they count, and the code that makes them, so that none of it
//! can be forgotten.

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
    /// Counted in buckets.
    Histogram,
}

/// A metric as users know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name, unit and suffix included.
    pub name: &'static str,
    /// What.
    pub kind: Kind,
    /// One line for people.
    pub help: &'static str,
}

/// Defines `Instruments`, with a field for each that code records into, and `METRICS`, the list of all. Those under
/// `observed` are read from state when somebody asks: each is a constant, to be registered with the meter by hand.
#[macro_export]
macro_rules! instruments {
    (
        counters { $($counter:ident: $counter_name:literal, $counter_help:literal;)* }
        sums { $($sum:ident: $sum_name:literal, $sum_help:literal;)* }
        gauges { $($gauge:ident: $gauge_name:literal, $gauge_help:literal;)* }
        histograms { $($histogram:ident: $histogram_name:literal, $histogram_help:literal, $buckets:expr;)* }
        observed { $($observed:ident: $observed_name:literal, $observed_help:literal, $kind:ident;)* }
    ) => {
        struct Instruments {
            $($counter: opentelemetry::metrics::Counter<u64>,)*
            $($sum: opentelemetry::metrics::Counter<f64>,)*
            $($gauge: opentelemetry::metrics::Gauge<f64>,)*
            $($histogram: opentelemetry::metrics::Histogram<f64>,)*
        }

        impl Instruments {
            fn new(meter: &opentelemetry::metrics::Meter) -> Self {
                Self {
                    $($counter: meter.u64_counter($counter_name).with_description($counter_help).build(),)*
                    $($sum: meter.f64_counter($sum_name).with_description($sum_help).build(),)*
                    $($gauge: meter.f64_gauge($gauge_name).with_description($gauge_help).build(),)*
                    $($histogram: meter.f64_histogram($histogram_name).with_description($histogram_help)
                        .with_boundaries($buckets.to_vec()).build(),)*
                }
            }
        }

        $(const $observed: $crate::telemetry::Metric = $crate::telemetry::Metric {
            name: $observed_name,
            kind: $crate::telemetry::Kind::$kind,
            help: $observed_help,
        };)*

        /// All metrics of this crate.
        pub const METRICS: &[$crate::telemetry::Metric] = &[
            $($crate::telemetry::Metric { name: $counter_name, kind: $crate::telemetry::Kind::Counter, help: $counter_help },)*
            $($crate::telemetry::Metric { name: $sum_name, kind: $crate::telemetry::Kind::Counter, help: $sum_help },)*
            $($crate::telemetry::Metric { name: $gauge_name, kind: $crate::telemetry::Kind::Gauge, help: $gauge_help },)*
            $($crate::telemetry::Metric { name: $histogram_name, kind: $crate::telemetry::Kind::Histogram, help: $histogram_help },)*
            $($observed,)*
        ];
    };
}
