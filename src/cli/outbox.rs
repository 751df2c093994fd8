//! `vigie outbox status | show | export | drop`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use jiff::tz::TimeZone;

use super::{FAILED, FINE, WRONG, complain, load_to_look};
use crate::clock::WallTime;
use crate::config::Config;
use crate::export::{Day, Filter, Format, parse_time};

mod drop;
mod rows;
mod source;
mod status;

pub(super) use rows::write;
use source::Source;
pub(super) use source::{ask, find_agent, unexpected};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How much waits for each broker, and how it stands with disk and connections
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// What waits, the newest last, a line each
    Show {
        /// What waits for this uplink [default: for any]
        #[arg(long, value_name = "NAME")]
        uplink: Option<String>,
        /// Of this sensor alone
        #[arg(long, value_name = "NAME")]
        sensor: Option<String>,
        /// At most so many lines, up to 10000
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=crate::control::MAX_SHOWN as u64))]
        limit: usize,
    },
    /// All that waits, as a table or as JSON, to standard output
    Export {
        /// What waits for this uplink [default: for any]
        #[arg(long, value_name = "NAME")]
        uplink: Option<String>,
        #[command(flatten)]
        wanted: Wanted,
        #[command(flatten)]
        form: Form,
    },
    /// Drop what waits: it is never delivered
    Drop(drop::Args),
}

/// Which rows.
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// Of this sensor alone
    #[arg(long, value_name = "NAME")]
    sensor: Option<String>,
    /// Of this room alone
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// Measured then or later: 2026-11-01, 2026-11-01T14:30 or 2026-11-01T13:30:00Z
    #[arg(long, value_name = "DATE", value_parser = |text: &str| parse_time(text, Day::Begins))]
    from: Option<WallTime>,
    /// Measured before that; a day alone is meant to its end
    #[arg(long, value_name = "DATE", value_parser = |text: &str| parse_time(text, Day::Ends))]
    to: Option<WallTime>,
}

impl Wanted {
    pub(super) fn filter(self) -> Filter {
        Filter { sensor: self.sensor, room: self.room, from: self.from, to: self.to }
    }
}

/// How rows are written.
#[derive(Debug, clap::Args)]
pub(super) struct Form {
    /// As a table [default]
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    /// A table as Excel expects it in that language: for `fr`, semicolons, decimal commas and local times
    #[arg(long, value_name = "LANGUAGE", conflicts_with = "json")]
    locale: Option<Locale>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Locale {
    Fr,
}

impl Form {
    pub(super) fn format(&self) -> Format {
        match self.locale {
            Some(Locale::Fr) => Format::FrenchCsv(TimeZone::system()),
            None if self.json => Format::Json,
            None => Format::Csv,
        }
    }
}

/// What went wrong, in words, and what the command exits with.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    why: String,
}

impl Failure {
    /// It cannot be tried like that.
    #[expect(clippy::needless_pass_by_value, reason = "`map_err` hands over what it has")]
    pub(super) fn wrong(why: impl ToString) -> Self {
        Self { status: WRONG, why: why.to_string() }
    }

    /// It was tried, and failed.
    #[expect(clippy::needless_pass_by_value, reason = "`map_err` hands over what it has")]
    pub(super) fn failed(why: impl ToString) -> Self {
        Self { status: FAILED, why: why.to_string() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// How it stands, for people.
pub(super) fn told(config: &Config) -> Result<String, Failure> {
    let mut source = Source::open(config)?;
    source.status().map(|status| status::for_people(&status))
}

/// Tells what went wrong, if anything did.
pub(super) fn finish(result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => FINE,
        Err(Failure { status, why }) => {
            complain(&why);
            status
        }
    }
}

pub(super) fn outbox(args: Args) -> u8 {
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    finish(match args.what {
        What::Status { json } => Source::open(&config).and_then(|mut source| status::status(&mut source, json)),
        What::Show { uplink, sensor, limit } => {
            Source::open(&config).and_then(|mut source| rows::show(&mut source, uplink, sensor, limit))
        }
        What::Export { uplink, wanted, form } => Source::open(&config)
            .and_then(|mut source| rows::export(&mut source, uplink, wanted.filter(), form.format())),
        What::Drop(args) => drop::drop(&config, args),
    })
}
