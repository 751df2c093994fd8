//! `vigie pause` and `vigie resume`: a sensor lets go of its device for a while.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::outbox::{Failure, ask, find_agent, finish, unexpected};
use super::table::table;
use super::{WRONG, load_to_look, print};
use crate::control::{Answer, Pause, Request};

const LONG: &str = "\
Have a sensor let go of its device for a while, such as to program an Arduino over the port that vigie reads.

The sensor's availability says `paused` with the time of the end; then it takes its device back by itself. `vigie resume` \
does so at once, and so does a restart of the agent. Without a sensor, the pauses are listed.";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Args {
    /// The sensor; without one, the pauses are listed
    sensor: Option<String>,
    /// For how long, at most 24h
    #[arg(value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// The sensor
    sensor: String,
    /// Configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
}

pub(super) fn pause(args: Args) -> u8 {
    let request = match args.sensor {
        Some(sensor) => Request::Pause { sensor, seconds: args.time.as_secs() },
        None => Request::Pauses {},
    };
    said(
        &args.config,
        &request,
        |pauses| {
            if pauses.is_empty() { "No sensor is paused.\n".to_owned() } else { rows(pauses) }
        },
    )
}

pub(super) fn resume(args: Resume) -> u8 {
    let Resume { sensor, config } = args;
    let said_then = format!("{sensor} takes its device back.\n");
    said(&config, &Request::Resume { sensor }, |_| said_then.clone())
}

/// Asks the agent, and prints what is to be said about its answer.
fn said(config: &std::path::Path, request: &Request, say: impl Fn(&[Pause]) -> String) -> u8 {
    let Some(config) = load_to_look(config) else { return WRONG };
    finish(find_agent(&config).and_then(|client| {
        let mut client = client.ok_or_else(|| {
            Failure::failed(
                "no agent runs with this configuration: then its devices are free (`vigie check` and the log say why)",
            )
        })?;
        match ask(&mut client, request)? {
            Answer::Pauses(pauses) => {
                print(&say(&pauses));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }))
}

fn rows(pauses: &[Pause]) -> String {
    let mut rows = vec![["SENSOR", "PAUSED UNTIL", "DEVICE"].map(str::to_owned).to_vec()];
    for pause in pauses {
        let left = SignedDuration::from_secs(i64::try_from(pause.left).unwrap_or(i64::MAX));
        let until = Timestamp::now().saturating_add(left).map_or_else(
            |_| "?".to_owned(),
            |until| until.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        );
        let device = if pause.free { "free" } else { "still in use: a call to it has not ended" };
        rows.push(vec![pause.sensor.clone(), until, device.to_owned()]);
    }
    table(&rows)
}
