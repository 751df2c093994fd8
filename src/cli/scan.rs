//! `vigie scan`: what there is to read on this machine.

use std::path::PathBuf;
use std::sync::Arc;

use super::table::table;
use super::{FINE, WRONG, complain, load_to_look, print};
use crate::clock::{Clock, SystemClock, Trust};
use crate::config::{Config, SensorConfig};
use crate::drivers::Source;
use crate::hardware::{Backend, LineId};
use crate::scan::{self, Found};

const LONG: &str = "\
Look for sensors: on I2C, 1-Wire, serial ports and GPIO, and what the kernel measures.

On I2C, each address that no driver of the kernel has is read one byte. Where nothing answers to that, but vigie knows a \
chip for the address, it is called once more by a write without a byte. What answers at 0x70 to 0x77 is written 1 and 2 \
to; if it holds both, it is a multiplexer, and the chips behind its channels are looked for, too. Chips at addresses that \
vigie's drivers know are asked for their identity. Nothing else is written. A vigie that runs at the same time may see a \
multiplexer's channels change under it: stop it first.";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Args {
    /// Print `[[sensor]]` tables for a configuration instead
    #[arg(long)]
    toml: bool,
    /// Look at this I2C bus only; may be given several times
    #[arg(long = "bus", value_name = "N")]
    buses: Vec<u8>,
    /// Leave I2C multiplexers alone
    #[arg(long)]
    no_mux: bool,
    /// Scan the hardware that this configuration names [default: this machine]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Scan the simulated machine
    #[arg(long, conflicts_with = "config")]
    sim: bool,
}

pub(super) fn scan(args: &Args) -> u8 {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Trust::Kernel));
    let mut options = scan::Options { buses: args.buses.clone(), no_mux: args.no_mux, ..scan::Options::default() };
    let hardware = match &args.config {
        Some(path) => match load_to_look(path) {
            Some(config) => {
                options.used = lines(&config.sensors);
                options.expanders.clone_from(&config.hardware.expanders);
                config.hardware.start(&clock)
            }
            None => return WRONG,
        },
        None if args.sim => Backend::Sim.start(clock),
        None => Backend::Linux.start(clock),
    };
    let found = scan::scan(&*hardware, &options);
    print(&if args.toml { sections(&found) } else { rows(&found) });
    for trouble in &found.troubles {
        complain(trouble);
    }
    FINE
}

/// What is found on the machine that a configuration names, for people.
pub(super) fn found(config: &Config) -> String {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Trust::Kernel));
    let options = scan::Options {
        used: lines(&config.sensors),
        expanders: config.hardware.expanders.clone(),
        ..scan::Options::default()
    };
    let found = scan::scan(&*config.hardware.start(&clock), &options);
    let troubles: String = found.troubles.iter().map(|trouble| format!("{trouble}\n")).collect();
    rows(&found) + &troubles
}

/// The lines that sensors use, and what for.
fn lines(sensors: &[SensorConfig]) -> Vec<(LineId, String)> {
    let read = sensors.iter().filter_map(|sensor| match &sensor.source {
        Source::Line(source) => Some((source.settings.line.clone(), format!("sensor `{}`", sensor.name))),
        Source::Poller(_) | Source::Serial { .. } | Source::Process(_) => None,
    });
    let supplies = sensors.iter().filter_map(|sensor| {
        let line = sensor.power.as_ref()?.line.clone();
        Some((line, format!("the supply of sensor `{}`", sensor.name)))
    });
    read.chain(supplies).collect()
}

fn rows(found: &Found) -> String {
    if found.things.is_empty() {
        return "Nothing was found.\n".to_owned();
    }
    let mut rows = vec![["BY", "WHERE", "DRIVER", "WHAT"].map(str::to_owned).to_vec()];
    for thing in &found.things {
        let driver = match &thing.sensor {
            Some(sensor) if sensor.doubt.is_none() => sensor.driver.to_owned(),
            Some(sensor) => format!("{}?", sensor.driver),
            None => "-".to_owned(),
        };
        rows.push(vec![thing.interface.to_owned(), thing.place.clone(), driver, thing.what.clone()]);
    }
    table(&rows)
}

fn sections(found: &Found) -> String {
    let sections: Vec<String> = found
        .things
        .iter()
        .filter_map(|thing| Some((thing, thing.sensor.as_ref()?)))
        .map(|(thing, sensor)| format!("# {}, {}: {}\n{}", thing.interface, thing.place, thing.what, sensor.section()))
        .collect();
    sections.join("\n")
}
