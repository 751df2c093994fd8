//! `vigie outbox drop`

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use super::super::print;
use super::Failure;
use super::source::Source;
use crate::config::Config;
use crate::control::Dropped;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["all", "sensor", "older_than"]))]
pub(super) struct Args {
    /// Everything
    #[arg(long, conflicts_with_all = ["sensor", "older_than"])]
    all: bool,
    /// What this sensor measured
    #[arg(long, value_name = "NAME")]
    sensor: Option<String>,
    /// What was measured longer ago, such as `30d`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// What waits for this uplink [default: for every one]
    #[arg(long, value_name = "NAME")]
    uplink: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn drop(config: &Config, args: Args) -> Result<(), Failure> {
    let Args { sensor, older_than, uplink, yes, .. } = args;
    if !yes {
        if !io::stdin().is_terminal() {
            return Err(Failure::wrong("nothing was dropped: this is no terminal to ask at; add --yes"));
        }
        // Looked at only: while somebody thinks, nothing is held.
        let mut source = Source::open(config)?;
        let found = source.drop((uplink.clone(), sensor.clone()), older_than, true)?;
        if found.dropped == 0 {
            print(&format!("Nothing to drop{}.\n", flying(found)));
            return Ok(());
        }
        if !agreed(found) {
            print("Nothing was dropped.\n");
            return Ok(());
        }
    }
    let mut source = Source::take(config)?;
    let dropped = source.drop((uplink, sensor), older_than, false)?;
    source.close()?;
    print(&format!("{} dropped{}.\n", values(dropped.dropped), flying(dropped)));
    Ok(())
}

fn values(count: u64) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{count} values") }
}

fn flying(dropped: Dropped) -> String {
    match dropped.in_flight {
        0 => String::new(),
        count => format!("; {} in flight, which cannot be taken back", values(count)),
    }
}

fn agreed(found: Dropped) -> bool {
    print(&format!("{} will never be delivered{}. Drop? [y/N] ", values(found.dropped), flying(found)));
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "o" | "oui")
}
