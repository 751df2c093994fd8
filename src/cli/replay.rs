//! `vigie replay FILE --input READINGS`: recorded readings on their way through the filters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::outbox::{Failure, finish};
use super::{WRONG, complain, load_to_look};
use crate::agent;
use crate::clock::{BootTime, WallTime};
use crate::config::{Config, SensorConfig};
use crate::export::{Cell, utc};
use crate::pipeline::{Health, Outcome, Pipeline};
use crate::reading::{Descriptor, Observation, Sample, SensorIndex, Values};

mod input;

use input::{Line, Lines, When};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Recorded readings, sorted by time: a message of vigie on each line, or what `vigie export` writes; `-` for
    /// standard input
    #[arg(long, value_name = "READINGS")]
    input: PathBuf,
    /// How many times as fast as they were measured: a number, or `max`
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = speed)]
    speed: Speed,
    /// Also print what would not be published, and why
    #[arg(long)]
    why: bool,
    /// One JSON object a line, which `vigie replay` can read again
    #[arg(long)]
    json: bool,
}

/// How fast time passes; `None`: as fast as can be.
type Speed = Option<f64>;

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(None);
    }
    let number: f64 = text.parse().map_err(|_| "expected a number such as 10, or `max`".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(Some(number)) } else { Err("expected a number above 0".to_owned()) }
}

pub(super) fn replay(args: &Args) -> u8 {
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    let out = BufWriter::new(std::io::stdout().lock());
    let printer = Printer {
        out,
        config: &config,
        why: args.why,
        json: args.json,
        uptime: false,
        faulty: BTreeSet::new(),
        closed: false,
    };
    if args.input.as_os_str() == "-" {
        return finish(run(&config, std::io::stdin().lock(), args.speed, printer));
    }
    match File::open(&args.input) {
        Ok(file) => finish(run(&config, BufReader::new(file), args.speed, printer)),
        Err(error) => {
            complain(&format!("{}: {error}", args.input.display()));
            WRONG
        }
    }
}

fn run<R: BufRead, W: Write>(
    config: &Config,
    input: R,
    speed: Speed,
    mut printer: Printer<'_, W>,
) -> Result<(), Failure> {
    let mut pipeline = agent::with_sensors(Pipeline::new().explaining(), config);
    let sensors: BTreeMap<&str, (SensorIndex, &SensorConfig)> = (0..)
        .zip(&config.sensors)
        .map(|(index, sensor)| (sensor.name.as_str(), (SensorIndex(index), sensor)))
        .collect();
    let (mut lines, mut strangers) = (Lines::new(input), BTreeSet::new());
    let mut last: Option<(When, u64)> = None;
    let mut next = lines.next().map_err(Failure::wrong)?;
    while let Some(mut line) = next.take_if(|_| !printer.closed) {
        check_order(&line, last).map_err(Failure::wrong)?;
        // Messages of one measurement come one after the other.
        next = lines.next().map_err(Failure::wrong)?;
        while let Some(more) = next.take_if(|more| more.when == line.when && more.sensor == line.sensor) {
            (line.number, line.values) = (more.number, [line.values, more.values].concat());
            next = lines.next().map_err(Failure::wrong)?;
        }
        if let (Some(speed), Some((before, _))) = (speed, last) {
            let gap = Duration::from_nanos(line.when.nanos() - before.nanos());
            let pause = Duration::try_from_secs_f64(gap.as_secs_f64() / speed).unwrap_or(Duration::MAX);
            printer.flush()?;
            std::thread::sleep(pause);
        }
        last = Some((line.when, line.number));
        let Some((index, sensor)) = sensors.get(line.sensor.as_str()) else {
            if strangers.insert(line.sensor.clone()) {
                complain(&format!("line {}: the configuration has no sensor `{}`: left out", line.number, line.sensor));
            }
            continue;
        };
        printer.uptime = matches!(line.when, When::Uptime(_));
        // Any even clock serves filters: windows begin at full minutes and hours of the readings' own.
        let at = BootTime(line.when.nanos());
        while let Some(due) = pipeline.next_due().filter(|due| *due <= at) {
            for (index, outcome) in pipeline.tick(due) {
                printer.print(&pipeline, index, due, outcome)?;
            }
        }
        let samples = line.values.into_iter().map(|(name, value, unit)| Sample {
            unit: unit.map(Into::into),
            ..Sample::new(of_driver(sensor, &name), value)
        });
        let outcome = pipeline.observe(Observation { sensor: *index, at, outcome: Ok(samples.collect()), keep: None });
        printer.print(&pipeline, *index, at, outcome)?;
    }
    printer.flush()
}

/// The driver's name of a quantity that was recorded under its published name.
fn of_driver(sensor: &SensorConfig, name: &str) -> String {
    let renamed = |(_, own): &(&String, &crate::pipeline::QuantityConfig)| own.rename.as_deref() == Some(name);
    sensor.pipeline.quantities.iter().find(renamed).map_or_else(|| name.to_owned(), |(driver, _)| driver.clone())
}

fn check_order(line: &Line, last: Option<(When, u64)>) -> Result<(), String> {
    let Some((before, number)) = last else { return Ok(()) };
    match (before, line.when) {
        (When::Wall(before), When::Wall(now)) | (When::Uptime(before), When::Uptime(now)) if now >= before => Ok(()),
        (When::Wall(_), When::Wall(_)) | (When::Uptime(_), When::Uptime(_)) => Err(format!(
            "line {}: measured before line {number}: sort the readings by time (`jq -cs 'sort_by(.time)[]'` does)",
            line.number
        )),
        _ => Err(format!(
            "line {}: some readings have a `time` and some only an `uptime`: replay them apart",
            line.number
        )),
    }
}

/// What would be published, or would not.
#[derive(Debug, Serialize)]
struct Row<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime: Option<f64>,
    sensor: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cell>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The filter that holds it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Why it is held back, rejected or a fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The sensor's health, where it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

impl<'r> Row<'r> {
    fn new(sensor: &'r str) -> Self {
        Row {
            time: None,
            uptime: None,
            sensor,
            quantity: None,
            value: None,
            unit: None,
            topic: None,
            held: None,
            why: None,
            state: None,
        }
    }
}

struct Printer<'c, W: Write> {
    out: W,
    config: &'c Config,
    why: bool,
    json: bool,
    /// The readings have no time of the day.
    uptime: bool,
    /// Sensors that have a fault.
    faulty: BTreeSet<SensorIndex>,
    /// Nobody reads what is printed any more.
    closed: bool,
}

impl<W: Write> Printer<'_, W> {
    fn print(
        &mut self,
        pipeline: &Pipeline,
        index: SensorIndex,
        at: BootTime,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        let Some(descriptor) = pipeline.descriptor(index) else { return Ok(()) };
        let sensor = &*descriptor.sensor;
        for late in &outcome.late {
            self.values(late.at, &late.descriptor, &late.values)?;
        }
        if let Some((descriptor, values)) = &outcome.reading {
            self.values(at, descriptor, values)?;
        }
        if self.why {
            for held in &outcome.held {
                let (value, by) = (Some((&held.value).into()), Some(held.by.clone()));
                let row = Row {
                    quantity: Some(&held.quantity),
                    value,
                    held: by,
                    why: Some(held.why.clone()),
                    ..Row::new(sensor)
                };
                self.row(held.at, row)?;
            }
            for why in outcome.rejected {
                self.row(at, Row { why: Some(why), ..Row::new(sensor) })?;
            }
        }
        match outcome.health {
            Some(Health::Fault(fault)) => {
                self.faulty.insert(index);
                let why = Some(format!("{}: {}", fault.code.as_str(), fault.detail));
                self.row(at, Row { state: Some("fault"), why, ..Row::new(sensor) })?;
            }
            Some(Health::Online) if self.faulty.remove(&index) => {
                self.row(at, Row { state: Some("online"), ..Row::new(sensor) })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn values(&mut self, at: BootTime, descriptor: &Descriptor, values: &Values) -> Result<(), Failure> {
        for (index, value) in values {
            let Some(quantity) = descriptor.quantities.get(usize::from(*index)) else { continue };
            let topic = self.config.gateway.topic.quantity_topic(descriptor, quantity);
            let row = Row {
                quantity: Some(&quantity.name),
                value: Some(value.into()),
                unit: quantity.unit.as_deref(),
                topic: Some(topic),
                ..Row::new(&descriptor.sensor)
            };
            self.row(at, row)?;
        }
        Ok(())
    }

    fn row(&mut self, at: BootTime, row: Row<'_>) -> Result<(), Failure> {
        let (time, uptime) = if self.uptime {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of an uptime stay below 2^53")]
            let seconds = (at.0 / 1_000_000) as f64 / 1_000.0;
            (None, Some(seconds))
        } else {
            (Some(utc(WallTime(i64::try_from(at.0).unwrap_or(i64::MAX)))), None)
        };
        let row = Row { time, uptime, ..row };
        let text = if self.json { serde_json::to_string(&row).map_err(Failure::failed)? } else { shown(&row) };
        let written = writeln!(self.out, "{text}");
        self.unless_closed(written)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        self.unless_closed(flushed)
    }

    /// Nobody reads any more (`vigie replay … | head`): that is not an error.
    fn unless_closed(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other.map_err(Failure::failed),
        }
    }
}

/// A row for people.
fn shown(row: &Row<'_>) -> String {
    let time = row.time.clone().or(row.uptime.map(|seconds| format!("{seconds:.3}s"))).unwrap_or_default();
    let unit = row.unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    let value = row.value.as_ref().map(ToString::to_string).unwrap_or_default();
    let (sensor, quantity) = (row.sensor, row.quantity.unwrap_or_default());
    let why = row.why.as_deref().unwrap_or_default();
    match (&row.topic, &row.held, row.state) {
        (Some(topic), ..) => format!("{time}  {topic} = {value}{unit}"),
        (_, Some(by), _) => format!("{time}  - {sensor}/{quantity} = {value}: {by}: {why}"),
        (_, _, Some(state)) if why.is_empty() => format!("{time}  ! {sensor}: {state}"),
        (_, _, Some(state)) => format!("{time}  ! {sensor}: {state}: {why}"),
        _ => format!("{time}  - {sensor}: not used: {why}"),
    }
}
