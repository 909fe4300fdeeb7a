//! The ids of traces and spans: random, or for once those that somebody chose.
//!
//! A rollout lives longer than any process that works on it. Its spans are told by whoever sees them end, so their ids
//! must be known to all who make spans below them, whoever they are: they follow from the rollout's own id.

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::cell::Cell;

thread_local! {
    static CHOSEN: Cell<(Option<TraceId>, Option<SpanId>)> = const { Cell::new((None, None)) };
}

/// Makes ids.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ids;

impl Ids {
    /// Makes one span by `make` under these ids; the trace's counts only where the span has no parent.
    pub(super) fn with<T>(trace: TraceId, span: SpanId, make: impl FnOnce() -> T) -> T {
        CHOSEN.set((Some(trace), Some(span)));
        let result = make();
        CHOSEN.set((None, None));
        result
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let (trace, span) = CHOSEN.get();
        CHOSEN.set((None, span));
        trace.unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let (trace, span) = CHOSEN.get();
        CHOSEN.set((trace, None));
        span.unwrap_or_else(|| RandomIdGenerator::default().new_span_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ids_count_for_one_span() {
        let (trace, span) = (TraceId::from(7), SpanId::from(8));
        let made = Ids::with(trace, span, || {
            [
                (Ids.new_trace_id(), Ids.new_span_id()),
                (Ids.new_trace_id(), Ids.new_span_id()),
            ]
        });
        assert_eq!(made[0], (trace, span));
        assert_ne!(made[1].1, span);
        assert_ne!(Ids.new_trace_id(), trace);
    }
}
