//! `vigie clock`: whether the time is known, and telling it to the agent where nothing else does.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::outbox::{Failure, ask, find_agent, finish, unexpected};
use super::table::table;
use super::{WRONG, load_to_look, print};
use crate::clock::{Clock, Source, SystemClock, WallTime};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::{Answer, ClockStatus, Request};
use crate::export::{Day, parse_time};

const LONG: &str = "\
Whether the agent knows what time it is, and on whose word.

A Raspberry Pi has no clock that goes on without power. Until NTP, a hardware clock or a GPS receiver has set it, readings \
have no time; `vigie clock set` tells it to the agent, for all readings since the machine was started, those included that \
wait already. docs/time.md says more.";

const LONG_SET: &str = "\
Tell the agent what time it is, until the machine is restarted: for boards without network, hardware clock and GPS.

The agent needs no right to set the machine's own clock, and does not touch it. Readings get their dates from that word, which \
`…/info` says (`by-hand`). As soon as the machine's clock follows NTP, that counts for more.";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell the agent what time it is
    #[command(long_about = LONG_SET)]
    Set {
        /// The time now, such as 2026-11-21T10:15:00Z, or 2026-11-21T11:15 by the machine's time zone; or by how much the time
        /// that `vigie clock` shows is wrong: +90s makes it later, -1h earlier
        #[arg(value_name = "TIME", allow_hyphen_values = true, value_parser = to_set)]
        to: To,
    },
}

/// What the clock is to be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Time(WallTime),
    Later(Duration),
    Earlier(Duration),
}

fn to_set(text: &str) -> Result<To, String> {
    let by = |text: &str| {
        humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a duration: write 90s, 1h or 2h30m"))
    };
    match text.as_bytes().first() {
        Some(b'+') => by(&text[1..]).map(To::Later),
        Some(b'-') => by(&text[1..]).map(To::Earlier),
        _ => parse_time(text, Day::Begins).map(To::Time),
    }
}

impl To {
    /// The time, where `shown` is shown.
    fn from(self, WallTime(shown): WallTime) -> WallTime {
        let nanos = |by: Duration| i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        match self {
            Self::Time(time) => time,
            Self::Later(by) => WallTime(shown.saturating_add(nanos(by))),
            Self::Earlier(by) => WallTime(shown.saturating_sub(nanos(by))),
        }
    }
}

pub(super) fn clock(args: &Args) -> u8 {
    // Whatever takes time now is not to be on the clock that is set.
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    finish(status(&config, args).map(|status| print(&tell(&status))))
}

/// What the agent says of the clock, for people.
pub(super) fn told(config: &Config) -> Result<String, Failure> {
    let client = find_agent(config)?;
    let mut client = client.ok_or_else(|| Failure::failed("no agent runs, which would know"))?;
    clock_of(&mut client, &Request::Clock {}).map(|status| tell(&status))
}

fn status(config: &Config, Args { command, config: file }: &Args) -> Result<ClockStatus, Failure> {
    // Moments are told on the boot clock: how long the agent takes to answer does not matter.
    let at = SystemClock::new(config.trust).boot();
    let Some(mut client) = find_agent(config)? else {
        let file = file.display();
        return Err(Failure::failed(format!(
            "no agent runs with {file}: start it first, it is the one that dates readings"
        )));
    };
    let before = clock_of(&mut client, &Request::Clock {})?;
    let Some(Command::Set { to }) = command else { return Ok(before) };
    let shown = before.now.unwrap_or(before.shown);
    // What is shown belongs to the moment of its answer.
    let (at, shown) = if matches!(to, To::Time(_)) { (at, shown) } else { (before.uptime, shown) };
    clock_of(&mut client, &Request::SetClock { at, time: to.from(shown) })
}

fn clock_of(client: &mut Client, request: &Request) -> Result<ClockStatus, Failure> {
    match ask(client, request)? {
        Answer::Clock(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

fn tell(status: &ClockStatus) -> String {
    let time = |time: WallTime| humantime::format_rfc3339_millis(time.to_system()).to_string();
    let mut rows = vec![vec!["clock".to_owned(), said(status)]];
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    if let Some(now) = status.now {
        row("time", time(now));
    }
    let mut shown = time(status.shown);
    if let Some(now) = status.now
        && let Some(apart) = apart(status.shown.0.saturating_sub(now.0))
    {
        let _ = write!(shown, ", {apart}");
    }
    row("machine", shown);
    if let Some(doubt) = &status.doubt {
        row("", format!("not believed: {doubt}"));
    }
    row("uptime", humantime::format_duration(Duration::from_secs(status.uptime.0 / 1_000_000_000)).to_string());
    if let Some(step) = status.step {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let seconds = step.nanos as f64 / 1e9;
        row(
            "last step",
            format!("{seconds:+.3} s at {}, {} since the agent was started", time(step.time), status.steps),
        );
    }
    table(&rows)
}

fn said(status: &ClockStatus) -> String {
    match status.source {
        None => "not set: readings have no time yet",
        Some(Source::Synchronised) => "set: the machine's clock follows a source of time (NTP, PTP)",
        Some(Source::Trusted) => "set: trust = \"always\" in [clock]",
        Some(Source::ByHand) => "set by hand, with `vigie clock set`",
        Some(Source::Gps) => "set by a GPS receiver, to a second",
        Some(Source::Rtc) => "set by a hardware clock (RTC) at boot",
    }
    .to_owned()
}

/// How far ahead the machine's clock is, for people; `None`: it is not worth a word.
fn apart(nanos: i64) -> Option<String> {
    let apart = Duration::from_millis(nanos.unsigned_abs() / 1_000_000);
    (apart >= Duration::from_millis(10)).then(|| {
        let where_to = if nanos > 0 { "ahead" } else { "behind" };
        format!("{} {where_to}", humantime::format_duration(apart))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootTime;

    #[test]
    fn a_time_or_a_difference_is_set() {
        let shown = WallTime(1_000_000_000_000);
        let set = |text: &str| to_set(text).map(|to| to.from(shown).0 / 1_000_000_000);
        assert_eq!(set("2026-11-21T10:15:00Z"), Ok(1_795_256_100));
        assert_eq!((set("+90s"), set("-1m")), (Ok(1_090), Ok(940)));
        assert!(set("+").is_err() && set("yesterday").is_err() && set("-").is_err());
        assert_eq!(to_set("-300y").map(|to| to.from(WallTime(0)).0 < 0), Ok(true));
    }

    #[test]
    fn what_is_known_is_told() {
        let mut status = ClockStatus {
            source: None,
            now: None,
            shown: WallTime(5_000_000_000),
            uptime: BootTime(3_661_000_000_000),
            doubt: Some("the battery is empty".to_owned()),
            steps: 0,
            step: None,
        };
        assert_eq!(
            tell(&status),
            "clock    not set: readings have no time yet\n\
             machine  1970-01-01T00:00:05.000Z\n         not believed: the battery is empty\n\
             uptime   1h 1m 1s\n"
        );
        status.source = Some(Source::ByHand);
        status.now = Some(WallTime(1_800_000_000_000_000_000));
        status.doubt = None;
        status.shown = WallTime(1_800_000_040_001_000_000);
        let text = tell(&status);
        assert!(text.contains("set by hand") && text.contains("40s 1ms ahead"), "{text}");
    }
}
