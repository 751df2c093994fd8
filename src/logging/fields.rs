//! The fields of spans and events, kept where whoever writes the log finds them.

use std::fmt;

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::limit::Source;

/// Names and values, each name once.
#[derive(Clone, Default)]
pub(super) struct Fields(pub(super) Vec<(&'static str, String)>);

impl Fields {
    pub(super) fn put(&mut self, name: &'static str, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes those of spans, from the outermost on.
    pub(super) fn of_spans<'a, S: Subscriber + LookupSpan<'a>>(&mut self, scope: Option<Scope<'a, S>>) {
        for span in scope.into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Self>() {
                for (name, value) in &fields.0 {
                    self.put(name, value.clone());
                }
            }
        }
    }

    /// Whom the record is about: whose limit it counts for.
    pub(super) fn source(&self, target: &str) -> Source {
        let about = |wanted: &'static str| {
            let (_, name) = self.0.iter().find(|(field, _)| *field == wanted)?;
            Some((wanted, name.as_str().into()))
        };
        about("sensor").or_else(|| about("uplink")).unwrap_or_else(|| ("target", target.into()))
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), value.to_string());
    }
}

/// Keeps the fields of each span with it.
pub(super) struct SpanFields;

impl<S> Layer<S> for SpanFields
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }
}
