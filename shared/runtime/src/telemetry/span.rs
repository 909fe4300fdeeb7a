//! Spans: where they hang, and those that are told only once they are over.

use super::SCOPE;
use super::ids::Ids;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use shared::trace::Place;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Whether anybody takes spans; without it none is made.
static TOLD: AtomicBool = AtomicBool::new(false);

pub(super) fn begin() {
    TOLD.store(true, Ordering::Relaxed);
}

/// Whether spans go anywhere.
pub fn told() -> bool {
    TOLD.load(Ordering::Relaxed)
}

/// Something that is over.
#[derive(Debug)]
pub struct Past {
    /// What it was.
    pub name: &'static str,
    /// When it began.
    pub from: SystemTime,
    /// When it ended.
    pub to: SystemTime,
    /// What is to be known of it: no secrets, no values of rows.
    pub about: Vec<KeyValue>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Past {
    /// What ended now.
    pub fn just_now(name: &'static str, took: Duration, about: Vec<KeyValue>) -> Self {
        let to = SystemTime::now();
        Self {
            name,
            from: to.checked_sub(took).unwrap_or(to),
            to,
            about,
            error: None,
        }
    }

    /// Tells it under ids of its own; under `parent`, or as the first of its trace.
    pub fn tell_as(self, own: Place, parent: Option<Place>) {
        if !told() {
            return;
        }
        let context = parent.map_or_else(Context::new, context);
        let (trace, span) = ids(own);
        Ids::with(trace, span, || self.tell_in(&context));
    }

    /// Tells it under the span that this task is in.
    pub fn tell(self) {
        if told() {
            self.tell_in(&tracing::Span::current().context());
        }
    }

    fn tell_in(self, context: &Context) {
        let builder = SpanBuilder::from_name(self.name)
            .with_start_time(self.from)
            .with_attributes(self.about);
        let mut span = opentelemetry::global::tracer(SCOPE).build_with_context(builder, context);
        if let Some(error) = self.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(self.to);
    }
}

/// Lets a span that was just made hang under another process's.
pub fn hang(span: &tracing::Span, parent: Place) {
    if told() {
        // It fails for spans that nobody records.
        let _ = span.set_parent(context(parent));
    }
}

/// Where the span is that this task is in, for others to hang theirs under.
pub fn here() -> Option<Place> {
    if !told() {
        return None;
    }
    let context = tracing::Span::current().context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| Place {
        trace: context.trace_id().to_bytes(),
        span: context.span_id().to_bytes(),
    })
}

fn context(place: Place) -> Context {
    let (trace, span) = ids(place);
    let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    Context::new().with_remote_span_context(remote)
}

fn ids(place: Place) -> (TraceId, SpanId) {
    (TraceId::from_bytes(place.trace), SpanId::from_bytes(place.span))
}
