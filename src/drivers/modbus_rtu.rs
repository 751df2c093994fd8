//! Meters, inverters, sensors and controllers on RS-485 (or RS-232) that speak Modbus RTU.
//!
//! Frames are in `frame`, what the tables hold in `value`, how a unit is asked in `unit`. One bus may carry many
//! units, and several sensors may ask the same unit, each at its own pace: the bus is theirs in turn
//! ([`SerialBus`](crate::hardware::SerialBus)).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::serial;
use super::support::tally::Tally;
use super::{Claim, Connection, Driver, Open, OptionInfo, Parsed, Poller, Source};
use crate::hardware::{Hardware, PortName, SerialSettings};
use crate::options::Options;
use crate::reading::{Fault, GARBLED};

mod frame;
#[cfg(test)]
mod tests;
mod unit;
mod value;
mod write;

pub use frame::Request;
pub use value::Plan;

use unit::OpenUnit;
use value::TableValue;

pub(crate) static DRIVER: Driver = Driver {
    name: "modbus-rtu",
    summary: "Meters, inverters and sensors that speak Modbus RTU, on RS-485 or RS-232",
    notes: "\
For energy meters (SDM120, SDM630, PZEM-004T v3), soil and air sensors, inverters, heat pumps: whatever has a table of
registers in its manual. A `[[sensor.value]]` table a value; its keys:

| key | values | default | |
|---|---|---|---|
| `quantity` | name | must be given | How the value is called. |
| `holding`, `input`, `coil` or `discrete` | 0 to 65535 | must be given | In which table it is, and where, counted from 0. |
| `type` | `u16` `i16` `u32` `i32` `u64` `i64` `f32` `f64` `text` | `u16` | Of registers; the larger ones take two or four. |
| `word_order` | `big` or `little` | `\"big\"` | Which register comes first, the most or the least significant one. |
| `byte_order` | `big` or `little` | `\"big\"` | The same of the bytes of a register; the specification says `big`. |
| `bit` | 0 to 15 | none | Makes a switch of one bit of a register. |
| `length` | 1 to 64 | must be given for `text` | Its registers, two characters each. |
| `scale`, `offset` | number | 1, 0 | The value is the number × `scale` + `offset`. |
| `unit` | text | none | |
| `range` | [lowest, highest] | none | What is outside is the fault `impossible`, and is not written. |
| `write` | true or false | false | May be [written by commands](commands.md#modbus); of `holding` and `coil` only. |
| `multiple` | true or false | false | Written with function 16 or 15 even where 6 or 5 would do: some units know no other. |

- Manuals often count from 1 and put a digit for the table in front: register 40001 is `holding = 0`, register 30006 is
  `input = 5`, coil 00017 is `coil = 16`.
- If a number is nonsense, try the other `word_order` first. Of the bytes A B C D, `CDAB` in a manual is
  `word_order = \"little\"`, `BADC` is `byte_order = \"little\"`, `DCBA` is both.
- What lies together is read in one request, so that values belong together. Where a unit lets you read registers that
  mean nothing, `gap` makes fewer requests.
- A command is one JSON object with names and values: `{\"target\":21.5}` on `…/set`; see [commands](commands.md#modbus).
- Several sensors may have the same `port`, for several units or for some values more often than others. They must have the
  same `baud` and `format`. A unit that is silent delays the others by its `timeout` only.
- `format` is `8E1` by the specification, but many units come with `8N1`.
- From an unknown unit to values, step by step: [serial links](serial.md#modbus-on-rs-485).
- Connect A to A (often called D+) and B to B (D-), with 120 Ω at both ends of a long line. The adapter (or the kernel's
  driver, for one on the header) must switch the direction by itself; one that echoes what is sent is fine.",
    sample: r#"[[sensor]]
name = "compteur"
driver = "modbus-rtu"
port = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A10KZP0Q-if00-port0"
address = 1
[[sensor.value]]
quantity = "voltage"
input = 0
type = "f32"
unit = "V"
range = [80, 300]
[[sensor.value]]
quantity = "power"
input = 12
type = "f32"
unit = "W"
"#,
    connection: Connection::Serial(INFO),
    options: &[
        OptionInfo { name: "address", values: "1 to 247", default: None, help: "The unit's address on the bus." },
        OptionInfo {
            name: "value",
            values: "list of tables, see above",
            default: None,
            help: "What is read, each as a table `[[sensor.value]]`.",
        },
        OptionInfo {
            name: "timeout",
            values: "10ms to 10s",
            default: Some("\"500ms\""),
            help: "How long the unit has for an answer, from the end of the request on.",
        },
        OptionInfo {
            name: "retries",
            values: "0 to 5",
            default: Some("1"),
            help: "How often a request is sent again that gets no answer, or a damaged one.",
        },
        OptionInfo {
            name: "gap",
            values: "0 to 124",
            default: Some("0"),
            help: "Entries that nobody asked for are read over if at most so many lie between two that are wanted.",
        },
    ],
    quantities: &[],
    parse,
};

/// What most units come with; the specification says 19200.
const INFO: serial::Info = serial::Info { baud: 9_600 };

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);

const DEFAULT_RETRIES: u8 = 1;

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = INFO.parse(options);
    let timeout = options.optional_in("timeout", TIMEOUTS).unwrap_or(DEFAULT_TIMEOUT);
    let retries = options.optional_in("retries", 0..=5).unwrap_or(DEFAULT_RETRIES);
    let plan = Plan::parse(options);
    let (settings, plan) = (settings?, plan?);
    Some(Parsed {
        claims: vec![Claim::SharedPort(settings.clone())],
        source: Source::Poller(Arc::new(Unit {
            settings,
            plan: Arc::new(plan),
            timeout,
            retries,
            garbled: Arc::new(Mutex::new(Tally::new(GARBLED))),
        })),
    })
}

/// A unit on a bus.
struct Unit {
    settings: SerialSettings,
    plan: Arc<Plan>,
    timeout: Duration,
    retries: u8,
    /// Over all of its openings.
    garbled: Arc<Mutex<Tally>>,
}

impl Open for Unit {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let Self { timeout, retries, .. } = *self;
        let bus = hardware.serial_bus(&self.settings)?;
        let (plan, garbled) = (Arc::clone(&self.plan), Arc::clone(&self.garbled));
        Ok(Box::new(OpenUnit { bus, plan, timeout, retries, garbled, echoes: None }))
    }

    fn longest(&self) -> Duration {
        // Each silent but for the last attempt, and its late answers waited for; others on the bus may be before us, and
        // the board behind the port may have to start.
        let requests = u32::try_from(self.plan.requests().len()).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(requests).saturating_mul(u32::from(self.retries) + 2)
            + self.settings.skip
            + Duration::from_secs(2)
    }

    fn port(&self) -> Option<&PortName> {
        Some(&self.settings.port)
    }

    fn takes_commands(&self) -> bool {
        self.plan.values().any(TableValue::can_be_written)
    }

    fn units(&self) -> Vec<(String, String)> {
        self.plan.units()
    }
}
