//! What becomes of scripted faults on SPI and at the kernel's own devices, above the shipped drivers: those of I2C are in
//! `chip_tests`.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::support::testing::{numbers, open};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::hardware::sim::Sim;
use crate::hardware::sim::fault::{Device, KernelDevice, Kind, ScriptedFault};
use crate::reading::FaultCode;

/// When faults begin, and for how long they last.
const AT: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_secs(5);

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A sensor as its keys have it, and what is broken below it.
struct Tried {
    driver: &'static str,
    keys: &'static str,
    device: Device,
}

fn kernels(class: &str, name: &str) -> Device {
    Device::Kernel(KernelDevice::find(class, name).expect("the simulated machine has it"))
}

fn adc() -> Tried {
    let keys = "chip_select = 0\ninputs = [\"ch0\", \"ch7\"]";
    Tried { driver: "mcp3008", keys, device: Device::Spi { bus: 0, chip_select: Some(0) } }
}

fn boiler() -> Tried {
    Tried { driver: "w1", keys: "id = \"28-000005e2fdc3\"", device: kernels("w1", "28-000005e2fdc3") }
}

fn cave() -> Tried {
    Tried { driver: "iio", keys: "device = \"dht11@4\"", device: kernels("iio", "dht11@4") }
}

fn rack() -> Tried {
    Tried { driver: "hwmon", keys: "chip = \"lm75\"", device: kernels("hwmon", "lm75") }
}

impl Tried {
    fn machine(&self, kind: Kind) -> (Sim, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        let fault = ScriptedFault { device: self.device.clone(), kind, at: AT, lasts: Some(LASTS), cured_by: None };
        (Sim::with_faults(Arc::clone(&clock) as Arc<dyn Clock>, 1, vec![fault]), clock)
    }

    fn samples(&self, machine: &Sim) -> Result<Vec<Sample>, Fault> {
        open(find(self.driver).expect("a driver"), self.keys, machine)?.sample()
    }

    /// The fault that each way to break it gives, both to a sensor that was read before and to one that is opened then.
    fn check(&self, kind: Kind, code: FaultCode, part: &str) {
        let what = format!("{} and {kind:?}", self.driver);
        let (machine, clock) = self.machine(kind);
        let driver = find(self.driver).expect("a driver");
        let mut before = open(driver, self.keys, &machine).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        let fine = before.sample().unwrap_or_else(|fault| panic!("{what}: {fault}"));
        clock.advance(AT);
        for outcome in [before.sample(), self.samples(&machine)] {
            let fault = outcome.expect_err(&what);
            assert!(fault.code == code && fault.detail.contains(part), "{what}: {fault}");
        }
        clock.advance(LASTS);
        let again = self.samples(&machine).unwrap_or_else(|fault| panic!("{what}, after it: {fault}"));
        for (now, then) in numbers(&again).iter().zip(numbers(&fine)) {
            assert!(now.0 == then.0 && (now.1 - then.1).abs() < 2.0, "{what}: {now:?} after {then:?}");
        }
    }
}

#[test]
fn each_way_to_break_a_device_is_told_as_what_it_is_and_it_works_again() {
    // Some take the seconds that the kernel and the drivers wait: so all at the same time.
    thread::scope(|scope| {
        for (tried, kind, code, part) in [
            (adc(), Kind::Unplug, FaultCode::Missing, "null bit"),
            (adc(), Kind::WrongChip, FaultCode::Missing, "no MCP3008 answers"),
            (adc(), Kind::Garbage, FaultCode::Missing, "no MCP3008 answers"),
            (adc(), Kind::Timeout, FaultCode::Bus, "chip select 0 on SPI bus 0"),
            (boiler(), Kind::Nak, FaultCode::Missing, "nobody on its bus answers"),
            (boiler(), Kind::Timeout, FaultCode::Bus, "shorted to ground"),
            (boiler(), Kind::Garbage, FaultCode::Crc, "checksum"),
            (boiler(), Kind::Unplug, FaultCode::Missing, "28-000005e2fdc3"),
            (cave(), Kind::Nak, FaultCode::Bus, "the transfer from the chip failed"),
            (cave(), Kind::Timeout, FaultCode::Bus, "timed out"),
            (cave(), Kind::Garbage, FaultCode::Bus, "Input/output error"),
            (cave(), Kind::Unplug, FaultCode::Missing, "/sys/bus/iio"),
            (rack(), Kind::Nak, FaultCode::Missing, "the chip does not answer"),
            (rack(), Kind::Timeout, FaultCode::Bus, "timed out"),
            (rack(), Kind::Unplug, FaultCode::Missing, "hwmon"),
        ] {
            scope.spawn(move || tried.check(kind, code, part));
        }
    });
}

#[test]
fn a_hang_lasts_until_it_is_over() {
    for tried in [adc(), boiler(), cave(), rack()] {
        let (machine, clock) = tried.machine(Kind::Hang);
        clock.advance(AT);
        let (out, done) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| out.send(tried.samples(&machine)).expect("somebody waits"));
            let early = done.recv_timeout(Duration::from_millis(100));
            // Ended in any case, so that a failure is one and no hang.
            clock.advance(LASTS);
            assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{}: {early:?}", tried.driver);
            let samples = done.recv_timeout(DEADLINE).expect("it is over");
            assert!(samples.is_ok_and(|samples| !samples.is_empty()), "{}", tried.driver);
        });
    }
}

/// An LM75 has no checksum: nothing tells that its temperature is none.
#[test]
fn garbage_of_a_chip_without_a_checksum_is_believed() {
    let (machine, clock) = rack().machine(Kind::Garbage);
    clock.advance(AT);
    let wild = (0..20).filter(|_| {
        clock.advance(Duration::from_millis(1));
        let samples = rack().samples(&machine).expect("a number");
        !(15.0..26.0).contains(&numbers(&samples)[0].1)
    });
    assert!(wild.count() > 10);
}

#[test]
fn a_fault_harms_nobody_else_and_that_of_a_bus_all_on_it() {
    let (machine, clock) = boiler().machine(Kind::Unplug);
    clock.advance(AT);
    for other in [adc(), cave(), rack(), Tried { keys: "id = \"28-0114503d4aff\"", ..boiler() }] {
        other.samples(&machine).unwrap_or_else(|fault| panic!("{}: {fault}", other.keys));
    }
    // Without an `id`, the only thermometer that is left.
    let left = Tried { keys: "", ..boiler() };
    assert!(left.samples(&machine).is_ok_and(|samples| numbers(&samples)[0].1 < 30.0));

    for (chip_select, harmed) in [(None, true), (Some(1), false)] {
        let bus = Tried { device: Device::Spi { bus: 0, chip_select }, ..adc() };
        let (machine, clock) = bus.machine(Kind::Unplug);
        clock.advance(AT);
        assert_eq!(bus.samples(&machine).is_err(), harmed, "{chip_select:?}");
    }
}
