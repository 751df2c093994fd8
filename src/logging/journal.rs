//! Events of `tracing` as records of `log` with key-values: the form that the journal's client takes.

use std::fmt;
use std::time::Instant;

use log::Level;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::{AsLog, NormalizeEvent};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use super::limit::{Gate, PER_WINDOW, Source};

/// Merges an event's fields with those of the spans around it ([`SpanFields`](super::fields::SpanFields) keeps them) and
/// hands on one record. Where a name occurs more than once, the innermost counts: journald would keep both, and
/// `journalctl` show an arbitrary one.
///
/// No source writes more than its [`Gate`] admits; what was asked for with `debug` or `trace` has none.
pub(super) struct JournalLayer<F> {
    send: F,
    gate: Gate,
}

impl<F: Fn(&log::Record<'_>)> JournalLayer<F> {
    pub(super) fn new(send: F) -> Self {
        Self { send, gate: Gate::new(PER_WINDOW) }
    }

    /// May this record be written? Before it, those sources are told of that were silenced.
    fn admit(&self, source: Source, level: tracing::Level, now: Instant) -> bool {
        self.gate.admits(source, level, now, |(kind, name), left_out, text| {
            let count = left_out.to_string();
            (self.send)(
                &log::Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .key_values(&[(*kind, &**name), ("left_out", &*count)].as_slice())
                    .args(format_args!("{text}"))
                    .build(),
            );
        })
    }
}

/// An event's own message beside its fields.
struct EventFields {
    message: String,
    fields: Fields,
}

impl EventFields {
    /// `tracing` gives the message as a field of that name. The bridge from `log` gives the record's place as fields
    /// `log.…`, which [`NormalizeEvent`] has already read.
    fn record(&mut self, field: &Field, write: impl FnOnce(&mut Fields), message: impl FnOnce() -> String) {
        match field.name() {
            "message" => self.message = message(),
            name if name.starts_with("log.") => {}
            _ => write(&mut self.fields),
        }
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, |fields| fields.record_str(field, value), || value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, |fields| fields.record_debug(field, value), || format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record(field, |fields| fields.record_error(field, value), || value.to_string());
    }
}

impl<S, F> Layer<S> for JournalLayer<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    F: Fn(&log::Record<'_>) + 'static,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut merged = EventFields { message: String::new(), fields: Fields::default() };
        merged.fields.of_spans(context.event_scope(event));
        event.record(&mut merged);
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let source = merged.fields.source(metadata.target());
        if !self.admit(source, *metadata.level(), Instant::now()) {
            return;
        }
        (self.send)(
            &log::Record::builder()
                .level(metadata.level().as_log())
                .target(metadata.target())
                .module_path(metadata.module_path())
                .file(metadata.file())
                .line(metadata.line())
                .key_values(&pairs(&merged.fields).as_slice())
                .args(format_args!("{}", merged.message))
                .build(),
        );
    }
}

fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use log::kv::{Error, Key, Value, VisitSource};
    use tracing_log::LogTracer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::fields::SpanFields;
    use super::super::limit::WINDOW;
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Seen {
        level: String,
        target: String,
        message: String,
        line: bool,
        fields: BTreeMap<String, String>,
    }

    struct Collect<'a>(&'a mut BTreeMap<String, String>);

    impl<'kvs> VisitSource<'kvs> for Collect<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let before = self.0.insert(key.to_string(), value.to_string());
            assert_eq!(before, None, "{key} was sent twice");
            Ok(())
        }
    }

    fn seen_by_journal(work: impl FnOnce()) -> Vec<Seen> {
        let all = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&all);
        let layer = JournalLayer::new(move |record: &log::Record<'_>| {
            let mut seen = Seen {
                level: record.level().to_string(),
                target: record.target().to_owned(),
                message: record.args().to_string(),
                line: record.line().is_some(),
                ..Seen::default()
            };
            record.key_values().visit(&mut Collect(&mut seen.fields)).unwrap();
            sink.lock().unwrap().push(seen);
        });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(SpanFields).with(layer), work);
        all.lock().unwrap().clone()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_event_carries_the_fields_of_its_spans_and_the_innermost_wins() {
        let seen = seen_by_journal(|| {
            let _sensor = tracing::info_span!("sensor", sensor = "meteo", room = "salon", attempt = 1).entered();
            let inner = tracing::info_span!("sample", attempt = 2, late = tracing::field::Empty).entered();
            inner.record("late", true);
            let error = std::io::Error::other("no acknowledge");
            tracing::warn!(value = 21.5, room = "cave", error = &error as &dyn std::error::Error, "reading {}", 7);
        });
        assert_eq!(seen.len(), 1, "spans make no records of their own: {seen:?}");
        assert_eq!(seen[0].level, "WARN");
        assert_eq!(seen[0].message, "reading 7");
        assert!(seen[0].line);
        assert_eq!(
            seen[0].fields,
            map(&[
                ("sensor", "meteo"),
                ("room", "cave"),
                ("attempt", "2"),
                ("late", "true"),
                ("value", "21.5"),
                ("error", "no acknowledge"),
            ])
        );
    }

    #[test]
    fn a_sensor_that_writes_too_much_is_silenced_alone() {
        let seen = seen_by_journal(|| {
            for number in 0..1000 {
                let _sensor = tracing::info_span!("sensor", sensor = "broken").entered();
                tracing::warn!("fault {number}");
            }
            tracing::warn!(sensor = "well", "fault");
            tracing::info!(uplink = "home", "connected");
            tracing::error!("no sensor at all");
        });
        let of = |name: &str| seen.iter().filter(|seen| seen.fields.get("sensor").is_some_and(|is| is == name)).count();
        assert_eq!((of("broken"), of("well"), seen.len()), (PER_WINDOW as usize, 1, PER_WINDOW as usize + 3));
    }

    #[test]
    fn what_was_left_out_is_told_with_its_source() {
        let sent = Mutex::new(Vec::new());
        let layer = JournalLayer::new(|record: &log::Record<'_>| {
            let mut fields = BTreeMap::new();
            record.key_values().visit(&mut Collect(&mut fields)).unwrap();
            sent.lock().unwrap().push((record.args().to_string(), fields));
        });
        let begin = Instant::now();
        for _ in 0..PER_WINDOW + 7 {
            layer.admit(("sensor", "broken".into()), tracing::Level::WARN, begin);
        }
        assert!(sent.lock().unwrap().is_empty());
        assert!(layer.admit(("uplink", "home".into()), tracing::Level::INFO, begin + WINDOW));
        let sent = sent.lock().unwrap();
        assert_eq!(sent.len(), 1);
        assert!(sent[0].0.starts_with("7 records of sensor `broken` were left out"), "{}", sent[0].0);
        assert_eq!(sent[0].1, map(&[("sensor", "broken"), ("left_out", "7")]));
    }

    #[test]
    fn records_of_libraries_keep_their_target_and_gain_the_spans_fields() {
        let seen = seen_by_journal(|| {
            let _uplink = tracing::info_span!("uplink", uplink = "home").entered();
            let bridge = LogTracer::new();
            log::Log::log(
                &bridge,
                &log::Record::builder()
                    .level(log::Level::Error)
                    .target("rmqtt::server")
                    .line(Some(7))
                    .args(format_args!("it is gone"))
                    .build(),
            );
        });
        assert_eq!(
            seen,
            [Seen {
                level: "ERROR".to_owned(),
                target: "rmqtt::server".to_owned(),
                message: "it is gone".to_owned(),
                line: true,
                fields: map(&[("uplink", "home")]),
            }]
        );
    }
}
