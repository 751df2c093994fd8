//! `vigie` without a command: a demonstration that needs nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use super::{FAILED, FINE, complain, print};
use crate::agent::{self, Extras, describe};
use crate::config::{self, Machine};
use crate::drivers::DRIVERS;
use crate::reading::{Descriptor, Values};
use crate::topic::Template;

/// What the demonstration runs; also an example to read.
const DEMO: &str = include_str!("../../config/demo.toml");

pub(super) fn demo() -> u8 {
    let mut config = match config::from_text("demo.toml", DEMO, &Machine::this(), DRIVERS) {
        Ok(config) => config,
        Err(report) => {
            complain(&config::render(&report, false));
            return FAILED;
        }
    };
    // Of its own, so that demonstrations do not meet, and gone at the end: nothing is left on the machine.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("vigie-demo-{}", std::process::id()));
    config.outbox.path.clone_from(&folder);
    config.outbox.tail = Some(folder.join("tail"));
    if let Some(broker) = &mut config.broker {
        broker.path = folder.join("broker");
    }
    let site = config.gateway.site.clone().unwrap_or_default();
    let extras = Extras {
        any_port: true,
        on_broker: Some(Box::new(move |address| welcome(address, &site))),
        on_reading: Some(Box::new(show)),
        file: None,
    };
    let result = agent::run(config, extras);
    let _ = std::fs::remove_dir_all(&folder);
    match result {
        Ok(()) => {
            print("\nThe demonstration has ended.\n");
            FINE
        }
        Err(error) => {
            complain(&format!("{error:#}"));
            FAILED
        }
    }
}

fn welcome(broker: SocketAddr, site: &str) {
    let (host, port) = (broker.ip(), broker.port());
    print(&format!(
        "vigie {version}: a demonstration with simulated sensors under the real drivers, and this machine's own readings.\n\
         \n\
         The embedded broker listens on mqtt://{broker}. To look, in another terminal:\n\
         \n    mosquitto_sub -h {host} -p {port} -v -t '{site}/#'\n\
         \n\
         To switch the lamp of the simulated Arduino on:\n\
         \n    mosquitto_pub -h {host} -p {port} -t '{site}/workshop/arduino/set' -m '{{\"led\":true}}'\n\
         \n\
         What is published (Ctrl-C ends it):\n\n",
        version = env!("CARGO_PKG_VERSION"),
    ));
}

/// One line a value: time (UTC), topic, value with its unit.
fn show(template: &Template, descriptor: &Descriptor, values: &Values) {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time = now.get(11..19).unwrap_or(&now);
    for (index, value) in values {
        let Some(quantity) = descriptor.quantities.get(usize::from(*index)) else { continue };
        let topic = template.quantity_topic(descriptor, quantity);
        let [_, value, unit] = describe(descriptor, *index, value);
        print(format!("{time}  {topic:<40} {value} {unit}").trim_end());
        print("\n");
    }
}
