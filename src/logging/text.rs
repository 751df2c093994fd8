//! Events as lines of text, for stderr: as `tracing_subscriber` writes them, under the same kind of limit as the journal's.

use std::fmt;
use std::time::Instant;

use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, time};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use super::limit::{Gate, PER_WINDOW_ON_STDERR};

/// Writes what its [`Gate`] admits. Spans' fields are found where [`SpanFields`](super::fields::SpanFields) is a layer, too.
pub(super) struct Limited {
    lines: Format<Full>,
    gate: Gate,
}

impl Limited {
    pub(super) fn new() -> Self {
        Self { lines: Format::default().with_target(false), gate: Gate::new(PER_WINDOW_ON_STDERR) }
    }
}

impl<S, N> FormatEvent<S, N> for Limited
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        fields.of_spans(context.event_scope());
        event.record(&mut fields);
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let (source, mut told) = (fields.source(metadata.target()), Ok(()));
        let admitted = self.gate.admits(source, *metadata.level(), Instant::now(), |_, _, text| {
            told = told.and(time().format_time(&mut writer)).and_then(|()| writeln!(writer, "  WARN {text}"));
        });
        told?;
        if admitted { self.lines.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::fields::SpanFields;
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_from_one_source_ends_and_the_others_are_written() {
        let sink = Sink::default();
        let lines = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Limited::new())
            .with_writer(move || lines.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(SpanFields).with(layer), || {
            for number in 0..2 * PER_WINDOW_ON_STDERR {
                tracing::warn!(target: "library", "refused {number}");
            }
            tracing::warn!(target: "other", value = 1, "one more");
            let _sensor = tracing::info_span!("sensor", sensor = "meteo").entered();
            tracing::info!(target: "library", "about a sensor");
            tracing::debug!(target: "library", "asked for");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("refused")).count(), PER_WINDOW_ON_STDERR as usize);
        assert!(text.contains("WARN one more value=1\n"), "{text}");
        assert!(text.contains("about a sensor") && !text.contains("library"), "{text}");
    }
}
