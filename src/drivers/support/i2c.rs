//! What drivers of chips on I2C have in common: their keys, and a chip's registers with errors that name them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use embedded_hal::i2c::I2c;

use crate::drivers::{Claim, Open, OptionRow, Parsed, Poller, Source};
use crate::hardware::i2c::{MUX_ADDRESSES, MUX_CHANNELS};
use crate::hardware::{Hardware, I2cBus, I2cError, I2cPath, MuxChannel};
use crate::options::Options;
use crate::reading::{Fault, FaultCode};

/// The header's bus on every Pi but the very first ones.
const DEFAULT_BUS: u8 = 1;

/// The addresses that the specification does not reserve (UM10204, 3.1.12).
const ANY_ADDRESS: std::ops::RangeInclusive<u8> = 0x08..=0x77;

/// A kind of chip on I2C.
#[derive(Clone, Copy)]
pub struct Info {
    /// The addresses that it can have, the first being the one where none is given. Empty for a chip of which nothing is
    /// known: it can have any, which must be given.
    pub addresses: &'static [u8],
    /// Says which chip answers by what it says of itself, for `vigie scan` and before the first use. Only reads. `None`
    /// for a chip that has no identity.
    pub identify: Option<Identify>,
}

/// Asks a chip what it is; fails where the chip does not speak as the driver's own does.
pub type Identify = fn(&mut Chip) -> Result<Identity, Fault>;

/// What a chip says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This one, by its name.
    Known(&'static str),
    /// Another one: what was read, for people.
    Other(String),
}

impl Info {
    /// The keys `bus`, `mux`, `channel` and `address`, for people.
    pub(crate) fn options(&self) -> Vec<OptionRow> {
        let list: Vec<String> = self.addresses.iter().map(|address| format!("{address:#04x}")).collect();
        let values = match list.as_slice() {
            [] => format!("{:#04x} to {:#04x}", ANY_ADDRESS.start(), ANY_ADDRESS.end()),
            [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
            _ => list.join(""),
        };
        vec![
            OptionRow {
                name: "bus",
                values: "0 to 255".to_owned(),
                default: Some(DEFAULT_BUS.to_string()),
                help: "N of `/dev/i2c-N`; the buses that the kernel makes of a multiplexer's channels are such, too.",
            },
            OptionRow {
                name: "mux",
                values: "0x70 to 0x77".to_owned(),
                default: Some("none".to_owned()),
                help: "Address of a TCA9548A or PCA9548A behind which the chip is.",
            },
            OptionRow {
                name: "channel",
                values: "0 to 7".to_owned(),
                default: Some("none; must be given with `mux`".to_owned()),
                help: "The multiplexer's channel.",
            },
            OptionRow {
                name: "address",
                values,
                default: self.addresses.first().map(|address| format!("{address:#04x}")),
                help: "`vigie scan` shows which.",
            },
        ]
    }

    /// Reads the keys; problems are noted there.
    pub(crate) fn parse(&self, options: &Options<'_>) -> Option<Place> {
        let bus = options.optional("bus").unwrap_or(DEFAULT_BUS);
        let mux = options.optional_in("mux", MUX_ADDRESSES);
        let channel = options.optional_in("channel", 0..=MUX_CHANNELS - 1);
        let channel = match (options.raw("mux"), options.raw("channel")) {
            (Some(_), None) => {
                let expected = "expected `channel` beside it, from 0 to 7".to_owned();
                options.problem("mux", "`mux` is given without the channel behind which the chip is", Some(expected));
                return None;
            }
            (None, Some(_)) => {
                let expected = "expected `mux` beside it, such as 0x70".to_owned();
                options.problem("channel", "`channel` is given without the multiplexer's address", Some(expected));
                return None;
            }
            (None, None) => None,
            (Some(_), Some(_)) => Some(MuxChannel { mux: mux?, channel: channel? }),
        };
        let Some(usual) = self.addresses.first() else {
            let address = options.required("address")?;
            if ANY_ADDRESS.contains(&address) {
                return Some(Place { path: I2cPath { bus, channel }, address });
            }
            let message = format!("no chip can have the address {address:#04x}");
            let expected = "expected 0x08 to 0x77 (7 bits: half of what data sheets with 8 bits say)".to_owned();
            options.problem("address", message, Some(expected));
            return None;
        };
        let address = options.optional("address").unwrap_or(*usual);
        if !self.addresses.contains(&address) {
            let list: Vec<String> = self.addresses.iter().map(|address| format!("{address:#04x}")).collect();
            options.problem(
                "address",
                format!("this chip cannot have the address {address:#04x}"),
                Some(format!("expected {}", list.join(" or "))),
            );
            return None;
        }
        Some(Place { path: I2cPath { bus, channel }, address })
    }
}

/// Where a chip is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bus.
    pub path: I2cPath,
    /// 7 bits.
    pub address: u8,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "address {:#04x} on {}", self.address, self.path)
    }
}

impl Place {
    /// What the sensor has for itself.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        vec![Claim::I2c { path: self.path, address: self.address }]
    }

    /// A sensor that is this chip alone. `open` makes the chip ready to be asked and sees that it is the right one; it is
    /// called again after each fault.
    pub(crate) fn sensor<P: Poller + 'static>(
        self,
        open: impl Fn(Chip) -> Result<P, Fault> + Send + Sync + 'static,
    ) -> Parsed {
        Parsed { claims: self.claims(), source: Source::Poller(Arc::new(Sensor { place: self, open })) }
    }

    /// A handle to the chip; sends nothing yet.
    ///
    /// # Errors
    /// There is no such bus.
    pub fn chip(self, hardware: &dyn Hardware) -> Result<Chip, Fault> {
        let bus = hardware.i2c(self.path.bus)?.behind(self.path.channel);
        Ok(Chip { bus, place: self })
    }
}

struct Sensor<F> {
    place: Place,
    open: F,
}

impl<P: Poller + 'static, F: Fn(Chip) -> Result<P, Fault> + Send + Sync> Open for Sensor<F> {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new((self.open)(self.place.chip(hardware)?)?))
    }
}

/// How often a chip is asked whether it is done before it counts as hanging, beyond the time that it may take.
const ASKED: u32 = 10;
/// Between two of these, with the bus free.
const PAUSE: Duration = Duration::from_millis(2);

/// A register, or a command of chips that have no registers: its name in the data sheet, and what is sent for it.
#[derive(Clone, Copy, Debug)]
pub struct Register(pub &'static str, pub u8);

/// A chip on a bus. Its errors name the register and what to do.
pub struct Chip {
    bus: I2cBus,
    place: Place,
}

impl Chip {
    /// A chip that answers there on this bus.
    #[cfg(test)]
    pub(crate) fn on(bus: I2cBus, place: Place) -> Self {
        Self { bus, place }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The bus, for a driver crate that speaks embedded-hal.
    #[must_use]
    pub fn bus(&self) -> I2cBus {
        self.bus.clone()
    }

    /// Reads bytes from a register on.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn read<const N: usize>(&mut self, register: Register) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read_into(register, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`read`](Self::read), for a number of bytes that is not known before.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn read_into(&mut self, Register(name, number): Register, bytes: &mut [u8]) -> Result<(), Fault> {
        let done = self.bus.write_read(self.place.address, &[number], bytes);
        done.map_err(|error| self.fault(&error, format_args!("its register {name} ({number:#04x}) cannot be read")))
    }

    /// Reads a register of 16 bits, of which the upper eight come first.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn read_u16(&mut self, register: Register) -> Result<u16, Fault> {
        self.read(register).map(u16::from_be_bytes)
    }

    /// Writes bytes from a register on.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn write(&mut self, Register(name, number): Register, bytes: &[u8]) -> Result<(), Fault> {
        let message = [&[number], bytes].concat();
        let done = self.bus.write(self.place.address, &message);
        done.map_err(|error| self.fault(&error, format_args!("its register {name} ({number:#04x}) cannot be written")))
    }

    /// Writes a register of 16 bits, of which the upper eight go first.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn write_u16(&mut self, register: Register, value: u16) -> Result<(), Fault> {
        self.write(register, &value.to_be_bytes())
    }

    /// Sends bytes as they are; `what` is said if that fails: "the command Measure cannot be sent".
    ///
    /// # Errors
    /// What the bus reports.
    pub fn send(&mut self, what: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.bus
            .write(self.place.address, bytes)
            .map_err(|error| self.fault(&error, format_args!("{what} cannot be sent")))
    }

    /// Sends a command and leaves the chip the time that it takes for it, with the bus free; `what` is said if it cannot
    /// be sent: "the command to measure".
    ///
    /// # Errors
    /// What the bus reports.
    pub fn command(&mut self, what: &str, bytes: &[u8], time: Duration) -> Result<(), Fault> {
        self.send(what, bytes)?;
        thread::sleep(time);
        Ok(())
    }

    /// Reads bytes without a register; `what` is said if that fails: "its answer cannot be read".
    ///
    /// # Errors
    /// What the bus reports.
    pub fn receive<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.receive_into(what, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`receive`](Self::receive), into bytes of the caller's.
    ///
    /// # Errors
    /// What the bus reports.
    pub fn receive_into(&mut self, what: &str, bytes: &mut [u8]) -> Result<(), Fault> {
        let done = self.bus.read(self.place.address, bytes);
        done.map_err(|error| self.fault(&error, format_args!("{what} cannot be read")))
    }

    /// Asks the chip what it is, and gives the name by which it is known; `expected` says what it should be.
    ///
    /// # Errors
    /// What asking reports; that it is another chip, if it says the same twice; that it cannot be understood, if not: noise
    /// makes no other chip of one whose identity has no checksum.
    pub fn check_identity(&mut self, expected: &str, identify: Identify) -> Result<&'static str, Fault> {
        let first = match identify(self)? {
            Identity::Known(name) => return Ok(name),
            Identity::Other(first) => first,
        };
        match identify(self)? {
            Identity::Known(name) => Ok(name),
            Identity::Other(second) if second == first => Err(self.wrong(expected, &first)),
            Identity::Other(second) => {
                let detail = format_args!("it never says the same of itself: {first}; then {second}: check the wiring");
                Err(self.says(FaultCode::BadData, detail))
            }
        }
    }

    /// Waits, with the bus free, for the time that a measurement takes, and then asks until there is something; `what` is
    /// what the chip never ends: "its conversion".
    ///
    /// # Errors
    /// What asking reports, or that the chip hangs.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        usual: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        thread::sleep(usual);
        for _ in 0..ASKED {
            if let Some(done) = ask(self)? {
                return Ok(done);
            }
            thread::sleep(PAUSE);
        }
        Err(self.says(FaultCode::BadData, format_args!("it never ends {what}")))
    }

    /// A fault from the bus's error while something was done.
    #[must_use]
    pub fn fault(&self, error: &I2cError, what: impl std::fmt::Display) -> Fault {
        let (place, bus) = (self.place, self.place.path.bus);
        if error.is_no_acknowledge() {
            let detail = format!(
                "nothing answers at {place} ({what}): check the chip's supply and wiring, and with `vigie scan` or \
                 `i2cdetect -y {bus}` at which address it is"
            );
            return Fault::new(FaultCode::Missing, detail);
        }
        Fault::new(error.code, format!("the chip at {place}: {what}: {error}"))
    }

    /// The fault of another chip at the address.
    #[must_use]
    pub fn wrong(&self, expected: &str, found: &str) -> Fault {
        let detail = format!("the chip at {} is not a {expected}: {found}", self.place);
        Fault::new(FaultCode::WrongChip, detail)
    }

    /// The fault of a chip that does not hold what was written: another one, where there is no identity to ask for.
    #[must_use]
    pub fn keeps_not(&self, expected: &str, written: u16, found: u16) -> Fault {
        self.wrong(expected, &format!("it does not keep its settings ({found:#06x} is read, not {written:#06x})"))
    }

    /// The fault of a chip whose settings are not those that were written before.
    #[must_use]
    pub fn was_reset(&self, Register(name, _): Register, expected: u16, found: u16) -> Fault {
        let detail = format_args!(
            "it was reset in between (does its supply drop?): its register {name} is {found:#06x}, not {expected:#06x}"
        );
        self.says(FaultCode::BadData, detail)
    }

    /// A fault of that code, at this chip.
    #[must_use]
    pub fn says(&self, code: FaultCode, what: impl std::fmt::Display) -> Fault {
        Fault::new(code, format!("the chip at {}: {what}", self.place))
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::drivers::support::testing;
    use crate::options::Problems;

    const INFO: Info = Info { addresses: &[0x48, 0x49], identify: None };

    fn parse(text: &str) -> (Option<Place>, Vec<String>) {
        let table = DeTable::parse(text).expect("TOML");
        let problems = Problems::new();
        let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
        let place = INFO.parse(&options);
        drop(options);
        (place, problems.into_sorted().into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_chip_is_on_the_header_unless_something_else_is_said() {
        let (place, problems) = parse("");
        let place = place.expect("a place");
        assert!(problems.is_empty());
        assert_eq!(place.to_string(), "address 0x48 on I2C bus 1");
        let (place, _) = parse("bus = 3\nmux = 0x71\nchannel = 5\naddress = 0x49");
        let text = place.expect("a place").to_string();
        assert_eq!(text, "address 0x49 on channel 5 of the multiplexer 0x71 on I2C bus 3");
    }

    #[test]
    fn where_nothing_answers_the_fault_says_what_to_check() {
        let place = Place { path: I2cPath { bus: 1, channel: None }, address: 0x10 };
        let mut chip = place.chip(&testing::sim()).expect("a bus");
        let fault = chip.receive::<1>("its answer").expect_err("no chip");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("0x10") && fault.detail.contains("i2cdetect -y 1"), "{fault}");
    }

    #[test]
    fn half_a_multiplexer_and_impossible_addresses_are_told() {
        for (text, part) in [
            ("mux = 0x70", "without the channel"),
            ("channel = 1", "without the multiplexer's address"),
            ("mux = 0x40\nchannel = 1", "`mux`"),
            ("mux = 0x70\nchannel = 8", "`channel`"),
            ("address = 0x50", "0x50"),
        ] {
            let (place, problems) = parse(text);
            assert!(place.is_none() && problems.len() == 1 && problems[0].contains(part), "{text}: {problems:?}");
        }
    }
}
