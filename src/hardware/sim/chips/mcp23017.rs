//! MCP23017, a GPIO expander with two ports of eight pins, from Microchip's data sheet DS20001952.
//!
//! Where the data sheet leaves it open: a change while an interrupt waits to be cleared sets no further flag, and after
//! clearing, pins are compared with their levels at that time. So a pulse leaves its trace in INTF and INTCAP, and only
//! the first one. Of the two interrupt outputs, INTA is wired. Newer revisions of the data sheet (from D on) give GPA7
//! and GPB7 as outputs only; here they can be read as the others.

use std::sync::Arc;

use super::expander::{self, Logic, Outside};
use crate::clock::Clock;

/// Registers of a port, as numbered with IOCON.BANK = 1 (table 3-1); with BANK = 0, those of the two ports alternate.
mod register {
    pub(super) const IODIR: u8 = 0x00;
    pub(super) const IPOL: u8 = 0x01;
    pub(super) const GPINTEN: u8 = 0x02;
    pub(super) const DEFVAL: u8 = 0x03;
    pub(super) const INTCON: u8 = 0x04;
    pub(super) const IOCON: u8 = 0x05;
    pub(super) const GPPU: u8 = 0x06;
    pub(super) const INTF: u8 = 0x07;
    pub(super) const INTCAP: u8 = 0x08;
    pub(super) const GPIO: u8 = 0x09;
    pub(super) const OLAT: u8 = 0x0a;
}

/// The last register with BANK = 0, and with BANK = 1.
const LAST: u8 = 0x15;
const LAST_BANKED: u8 = 0x1a;

/// Bits of IOCON (register 3-6); bit 0 is not there.
const BANK: u8 = 1 << 7;
const MIRROR: u8 = 1 << 6;
/// Set: the address pointer does not go on.
const SEQOP: u8 = 1 << 5;
/// Open drain.
const ODR: u8 = 1 << 2;
const INTPOL: u8 = 1 << 1;

struct Port {
    iodir: u8,
    ipol: u8,
    gpinten: u8,
    defval: u8,
    intcon: u8,
    gppu: u8,
    intf: u8,
    intcap: u8,
    olat: u8,
    outside: Outside,
    /// At the pins.
    levels: u8,
    /// What a pin's level is compared with for an interrupt on change.
    previous: u8,
}

impl Port {
    /// After power-on (table 3-1).
    const fn new() -> Self {
        Self {
            iodir: 0xff,
            ipol: 0,
            gpinten: 0,
            defval: 0,
            intcon: 0,
            gppu: 0,
            intf: 0,
            intcap: 0,
            olat: 0,
            outside: Outside { driven: 0, high: 0 },
            levels: 0,
            previous: 0,
        }
    }

    fn settle(&mut self) {
        let [inputs, _] = self.outside.levels(self.gppu.into()).to_le_bytes();
        self.levels = self.olat & !self.iodir | inputs & self.iodir;
        if self.intf != 0 {
            return;
        }
        let expected = self.defval & self.intcon | self.previous & !self.intcon;
        let flags = (self.levels ^ expected) & self.gpinten & self.iodir;
        self.previous = self.levels;
        if flags != 0 {
            self.intf = flags;
            self.intcap = self.gpio();
        }
    }

    /// What GPIO reads (3.5.2, 3.5.10).
    fn gpio(&self) -> u8 {
        self.levels ^ self.ipol
    }

    /// A read of GPIO or INTCAP ends the interrupt, unless a pin still differs from its DEFVAL (3.6.4, 3.6.5).
    fn clear_interrupt(&mut self) {
        self.intf = 0;
        self.previous = self.levels;
        self.settle();
    }

    fn set(&mut self, number: u8, value: u8) {
        match number {
            register::IODIR => self.iodir = value,
            register::IPOL => self.ipol = value,
            register::GPINTEN => self.gpinten = value,
            register::DEFVAL => self.defval = value,
            register::INTCON => self.intcon = value,
            register::GPPU => self.gppu = value,
            register::GPIO | register::OLAT => self.olat = value,
            // INTF and INTCAP are read-only.
            _ => {}
        }
        self.settle();
    }

    fn get(&mut self, number: u8) -> u8 {
        match number {
            register::IODIR => self.iodir,
            register::IPOL => self.ipol,
            register::GPINTEN => self.gpinten,
            register::DEFVAL => self.defval,
            register::INTCON => self.intcon,
            register::GPPU => self.gppu,
            register::INTF => self.intf,
            register::INTCAP | register::GPIO => {
                let value = if number == register::GPIO { self.gpio() } else { self.intcap };
                self.clear_interrupt();
                value
            }
            register::OLAT => self.olat,
            _ => 0,
        }
    }
}

struct Mcp23017 {
    ports: [Port; 2],
    iocon: u8,
    pointer: u8,
}

/// An MCP23017 as it is after power-on.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> expander::Chip {
    let logic = Mcp23017 { ports: [const { Port::new() }; 2], iocon: 0, pointer: 0 };
    expander::Chip::new(address, Box::new(logic), clock, seed)
}

impl Mcp23017 {
    fn is(&self, bit: u8) -> bool {
        self.iocon & bit != 0
    }

    /// The register that the pointer stands for, and its port; `None` where there is none.
    fn place(&self) -> Option<(u8, usize)> {
        let (number, port) = if self.is(BANK) {
            (self.pointer & 0x0f, self.pointer >> 4)
        } else {
            (self.pointer >> 1, self.pointer & 1)
        };
        (number <= register::OLAT && port < 2).then_some((number, port.into()))
    }

    /// Moves the pointer on after a byte (3.2.1).
    fn go_on(&mut self) {
        let last = if self.is(BANK) { LAST_BANKED } else { LAST };
        self.pointer = match (self.is(SEQOP), self.is(BANK)) {
            (true, true) => self.pointer,
            (true, false) => self.pointer ^ 1,
            (false, _) if self.pointer >= last => 0,
            (false, _) => self.pointer + 1,
        };
    }
}

impl Logic for Mcp23017 {
    fn settle(&mut self, outside: Outside) {
        let (driven, high) = (outside.driven.to_le_bytes(), outside.high.to_le_bytes());
        for (index, port) in self.ports.iter_mut().enumerate() {
            port.outside = Outside { driven: driven[index].into(), high: high[index].into() };
            port.settle();
        }
    }

    /// The first byte is the pointer, the others go to the registers from there on.
    fn write(&mut self, bytes: &[u8]) {
        let Some((pointer, values)) = bytes.split_first() else { return };
        self.pointer = *pointer;
        for value in values {
            match self.place() {
                Some((register::IOCON, _)) => self.iocon = value & !1,
                Some((number, port)) => self.ports[port].set(number, *value),
                None => {}
            }
            self.go_on();
        }
    }

    fn read(&mut self) -> u8 {
        let value = match self.place() {
            Some((register::IOCON, _)) => self.iocon,
            Some((number, port)) => self.ports[port].get(number),
            None => 0,
        };
        self.go_on();
        value
    }

    fn levels(&self) -> u16 {
        u16::from_le_bytes([self.ports[0].levels, self.ports[1].levels])
    }

    /// INTA: for port A, with MIRROR for both; active low unless INTPOL is set; open drain, and then pulled up by the
    /// board (register 3-6).
    fn interrupt(&self) -> bool {
        let active = self.ports[0].intf != 0 || self.is(MIRROR) && self.ports[1].intf != 0;
        let active_high = self.is(INTPOL) && !self.is(ODR);
        active == active_high
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embedded_hal::i2c::Operation;

    use super::*;
    use crate::clock::ManualClock;
    use crate::hardware::sim::chips::I2cChip;
    use crate::hardware::sim::chips::expander::{CONTACT_PIN, Pins};

    // With BANK = 0.
    const IODIRA: u8 = 0x00;
    const IODIRB: u8 = 0x01;
    const IPOLA: u8 = 0x02;
    const GPINTENA: u8 = 0x04;
    const GPINTENB: u8 = 0x05;
    const DEFVALA: u8 = 0x06;
    const INTCONA: u8 = 0x08;
    const IOCON: u8 = 0x0a;
    const GPPUA: u8 = 0x0c;
    const INTFA: u8 = 0x0e;
    const INTCAPA: u8 = 0x10;
    const INTCAPB: u8 = 0x11;
    const GPIOA: u8 = 0x12;
    const OLATA: u8 = 0x14;

    /// A pin to which nothing is connected.
    const PIN: u8 = 5;
    const BIT: u8 = 1 << PIN;

    fn new() -> (expander::Chip, Pins, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        let chip = chip(0x20, Arc::clone(&clock) as Arc<dyn Clock>, 1);
        let pins = chip.pins().expect("an expander has pins");
        (chip, pins, clock)
    }

    fn write(chip: &mut expander::Chip, bytes: &[u8]) {
        chip.transaction(&mut [Operation::Write(bytes)]).expect("acknowledged");
    }

    fn read<const N: usize>(chip: &mut expander::Chip, register: u8) -> [u8; N] {
        let mut bytes = [0; N];
        chip.transaction(&mut [Operation::Write(&[register]), Operation::Read(&mut bytes)]).expect("acknowledged");
        bytes
    }

    #[test]
    fn registers_hold_their_power_on_values_and_follow_one_another() {
        let (mut chip, ..) = new();
        let mut expected = [0; 0x16];
        (expected[0], expected[1]) = (0xff, 0xff);
        assert_eq!(read(&mut chip, IODIRA), expected);
        // Past the last one it goes on at the first.
        assert_eq!(read(&mut chip, 0x15), [0, 0xff, 0xff, 0]);
        write(&mut chip, &[IODIRA, 0x12, 0x34, 0x56]);
        assert_eq!(read(&mut chip, IODIRA), [0x12, 0x34, 0x56]);
        // Both addresses of IOCON are the same register; its bit 0 is not there.
        write(&mut chip, &[IOCON, 0x01 | ODR]);
        assert_eq!(read(&mut chip, IOCON + 1), [ODR]);
        // There is nothing behind the last register.
        assert_eq!(read(&mut chip, 0x16), [0, 0x12]);
    }

    #[test]
    fn banks_and_byte_mode_change_what_the_pointer_stands_for() {
        let (mut chip, ..) = new();
        write(&mut chip, &[IOCON, SEQOP]);
        write(&mut chip, &[IODIRA, 1, 2, 3]);
        assert_eq!(read(&mut chip, IODIRA), [3, 2, 3], "byte mode goes to and fro between the ports");
        write(&mut chip, &[IOCON, BANK]);
        assert_eq!(read(&mut chip, 0x10), [2], "IODIRB");
        write(&mut chip, &[0x16, 0x77]);
        assert_eq!(read(&mut chip, 0x16), [0x77], "GPPUB");
        assert_eq!(read(&mut chip, 0x0b), [0], "nothing is there");
        write(&mut chip, &[0x15, BANK | SEQOP]);
        assert_eq!(read(&mut chip, 0x10), [2, 2], "the pointer stays");
    }

    #[test]
    fn pins_follow_direction_latch_pull_up_and_what_drives_them() {
        let (mut chip, pins, _) = new();
        assert_eq!(read(&mut chip, GPIOA), [0], "open, without pull-ups");
        write(&mut chip, &[GPPUA, BIT]);
        assert_eq!(read(&mut chip, GPIOA), [BIT]);
        pins.drive(PIN, Some(false));
        assert_eq!(read(&mut chip, GPIOA), [0]);
        write(&mut chip, &[IPOLA, BIT]);
        assert_eq!(read(&mut chip, GPIOA), [BIT], "inverted");
        // A write to GPIO is one to the latch; it shows at the pin when that is an output.
        write(&mut chip, &[GPIOA, 1]);
        assert_eq!((read(&mut chip, OLATA), pins.level(0)), ([1], false));
        write(&mut chip, &[IODIRA, !1]);
        assert!(pins.level(0));
        assert!(!pins.level(16) && !pins.level(200), "no such pins");
    }

    #[test]
    fn a_pulse_leaves_its_trace_until_it_is_read() {
        let (mut chip, pins, clock) = new();
        write(&mut chip, &[GPPUA, BIT]);
        write(&mut chip, &[GPINTENA, BIT | 1]);
        assert!(pins.interrupt(), "inactive is high");
        clock.advance(Duration::from_millis(5));
        let pressed = clock.boot();
        pins.drive(PIN, Some(false));
        clock.advance(Duration::from_millis(1));
        pins.drive(PIN, None);
        assert!(!pins.interrupt(), "it waits to be cleared, although the pin is as before");
        pins.drive(0, Some(true));
        assert_eq!(read(&mut chip, INTFA), [BIT], "another pin's change meanwhile sets nothing");
        clock.advance(Duration::from_millis(1));
        let cleared = clock.boot();
        assert_eq!(read(&mut chip, INTCAPA), [0], "as it was when it was captured");
        assert_eq!((read(&mut chip, INTFA), read(&mut chip, GPIOA)), ([0], [BIT | 1]));
        assert_eq!(pins.interrupt_changes(), [(pressed, false), (cleared, true)]);
        assert_eq!(read(&mut chip, INTCAPA), [0], "the capture stays");
    }

    #[test]
    fn a_comparison_with_defval_interrupts_as_long_as_it_fails() {
        let (mut chip, pins, _) = new();
        write(&mut chip, &[DEFVALA, BIT]);
        write(&mut chip, &[INTCONA, BIT]);
        pins.drive(PIN, Some(true));
        write(&mut chip, &[GPINTENA, BIT]);
        assert!(pins.interrupt());
        pins.drive(PIN, Some(false));
        assert_eq!(read(&mut chip, GPIOA), [0]);
        assert!(!pins.interrupt(), "cleared, and active again at once");
        pins.drive(PIN, Some(true));
        assert_eq!(read(&mut chip, GPIOA), [BIT]);
        assert!(pins.interrupt());
    }

    #[test]
    fn the_interrupt_output_is_configured_by_iocon() {
        let (mut chip, pins, _) = new();
        write(&mut chip, &[IODIRB, 0xff]);
        write(&mut chip, &[GPINTENB, BIT]);
        pins.drive(PIN + 8, Some(true));
        assert!(pins.interrupt(), "INTA knows nothing of port B");
        write(&mut chip, &[IOCON, MIRROR]);
        assert!(!pins.interrupt());
        write(&mut chip, &[IOCON, MIRROR | INTPOL]);
        assert!(pins.interrupt(), "active high");
        write(&mut chip, &[IOCON, MIRROR | INTPOL | ODR]);
        assert!(!pins.interrupt(), "an open drain is active low whatever INTPOL says");
        // Reading port A does not clear port B's.
        let _: [u8; 1] = read(&mut chip, INTCAPA);
        assert!(!pins.interrupt());
        assert_eq!(read(&mut chip, INTCAPB), [BIT]);
        assert!(pins.interrupt());
    }

    #[test]
    fn the_contact_closes_at_its_own_times_though_nobody_looks() {
        let (mut chip, pins, clock) = new();
        write(&mut chip, &[GPPUA, 0xff]);
        write(&mut chip, &[GPINTENA, 1 << CONTACT_PIN]);
        let start = clock.boot();
        clock.advance(Duration::from_secs(11));
        let changes = pins.interrupt_changes();
        assert!(matches!(changes[..], [(at, false)] if at > start && at < clock.boot()), "{changes:?}");
        assert_eq!(read(&mut chip, INTFA), [1 << CONTACT_PIN]);
        assert_eq!(read(&mut chip, INTCAPA), [!(1 << CONTACT_PIN)]);
    }
}
