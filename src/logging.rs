//! Where the log goes: to journald with every field, or as readable text to stderr.
//!
//! Everything is written with `tracing`; what libraries write with `log` joins it. To journald an event goes with its
//! own fields and those of the spans around it, so that `journalctl -u vigie SENSOR=meteo` finds what concerns one
//! sensor. Each sensor, uplink and part of the program may write so much and no more (`limit`).

use std::io::IsTerminal;

use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod audit;
mod fields;
mod journal;
mod limit;
mod text;

pub use audit::{AuditLayer, Fields, TRAIL, Trail};

use fields::SpanFields;
use journal::JournalLayer;
use text::Limited;

/// The target of what an auditor asks for: starts and ends with the configuration's hash, commands to devices, requests
/// of the command line that change something, credentials and keys that were read anew. With the field `audit`, which
/// says which of these it is: `journalctl -u vigie TARGET=vigie::audit`, or `AUDIT=command`.
pub const AUDIT: &str = "vigie::audit";

/// What is logged unless something else is asked for.
///
/// The embedded broker's crates (`rmqtt`, `rmqtt_net`, `rmqtt_codec`: a filter goes by the target's beginning) tell of
/// every connection, and the packet codec's of every packet.
const DEFAULT_FILTER: &str = "info,rmqtt=warn,rumqttc=warn";

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level or filter that was asked for cannot be read.
    #[error(
        "{from} `{text}` is no log filter: {why}; expected error, warn, info, debug or trace, or for single parts \
         `info,vigie::uplink=debug`"
    )]
    Filter {
        /// Where it was given: `--log` or `RUST_LOG`.
        from: &'static str,
        /// As it was given.
        text: String,
        /// The parser's words.
        why: String,
    },
    /// The process has a logger already.
    #[error("logging was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the whole process. `log` is what `--log` says; without it `$RUST_LOG` counts.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(log: Option<&str>) -> Result<(), LoggingError> {
    let filter = filter(log, std::env::var("RUST_LOG").ok().as_deref())?;
    let audit = AuditLayer(&TRAIL).with_filter(Targets::new().with_target(AUDIT, LevelFilter::INFO));
    let registry = tracing_subscriber::registry().with(audit);
    // Connected to the journal but without its socket (a sandbox that hides it): the text goes there by stderr.
    let journal = if connected_to_journal() { JournalLog::new().ok() } else { None };
    match journal {
        Some(journal) => {
            let layer = JournalLayer::new(move |record: &log::Record<'_>| {
                // There is nowhere left to report that the log itself does not work.
                let _ = journal.journal_send(record);
            });
            registry.with(SpanFields.and_then(layer).with_filter(filter)).try_init()?;
        }
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .event_format(Limited::new())
                .with_writer(std::io::stderr)
                .with_ansi(colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()));
            registry.with(SpanFields.and_then(layer).with_filter(filter)).try_init()?;
        }
    }
    Ok(())
}

/// Colour on a terminal, unless `NO_COLOR` is set to anything (no-color.org).
fn colour(terminal: bool, no_color: Option<&std::ffi::OsStr>) -> bool {
    terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// The default with what was asked for on top of it, so that a bare `debug` leaves the libraries as quiet as they were.
fn filter(option: Option<&str>, environment: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (from, text) = match (option, environment) {
        (Some(text), _) => ("--log", text),
        (None, Some(text)) if !text.trim().is_empty() => ("RUST_LOG", text),
        (None, _) => return parse("the default", DEFAULT_FILTER, DEFAULT_FILTER),
    };
    parse(from, text, &format!("{DEFAULT_FILTER},{text}"))
}

fn parse(from: &'static str, text: &str, filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter {
        from,
        text: text.to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter is made of, in a fixed order.
    fn directives(filter: &EnvFilter) -> Vec<String> {
        let mut all: Vec<String> = filter.to_string().split(',').map(str::to_owned).collect();
        all.sort();
        all
    }

    #[test]
    fn the_option_wins_over_the_environment_and_both_over_the_default() {
        let default = filter(None, None).unwrap();
        assert_eq!(directives(&default), ["info", "rmqtt=warn", "rumqttc=warn"]);
        assert_eq!(directives(&filter(None, Some(" ")).unwrap()), directives(&default));
        let environment = filter(None, Some("debug")).unwrap();
        assert_eq!(directives(&environment), ["debug", "rmqtt=warn", "rumqttc=warn"]);
        let option = filter(Some("rmqtt=trace"), Some("debug")).unwrap();
        assert_eq!(directives(&option), ["info", "rmqtt=trace", "rumqttc=warn"]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_names_its_place() {
        let error = filter(Some("vigie=loud"), None).unwrap_err().to_string();
        assert!(error.starts_with("--log `vigie=loud` is no log filter"), "{error}");
        let error = filter(None, Some("vigie=loud")).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG `vigie=loud`"), "{error}");
    }

    #[test]
    fn colour_only_on_a_terminal_and_unless_refused() {
        assert!(colour(true, None));
        assert!(colour(true, Some("".as_ref())));
        assert!(!colour(true, Some("1".as_ref())));
        assert!(!colour(false, None));
    }
}
