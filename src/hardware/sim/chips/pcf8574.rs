//! PCF8574, a GPIO expander with eight quasi-bidirectional pins, from NXP's data sheet "PCF8574; PCF8574A" and Texas
//! Instruments' SCPS068.
//!
//! No registers: a written byte goes to the latch, a read byte comes from the pins. A pin whose latch is 1 is held high
//! by a weak current and can be pulled low from outside: that is an input. After power-on all are.

use std::sync::Arc;

use super::expander::{self, Logic, Outside};
use crate::clock::Clock;

struct Pcf8574 {
    latch: u8,
    outside: Outside,
    /// The levels as last read or written: what the interrupt compares with.
    known: u8,
}

/// A PCF8574 (0x20 to 0x27) or PCF8574A (0x38 to 0x3f) as it is after power-on.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> expander::Chip {
    let logic = Pcf8574 { latch: 0xff, outside: Outside::default(), known: 0xff };
    expander::Chip::new(address, Box::new(logic), clock, seed)
}

impl Pcf8574 {
    /// A latch of 0 pulls low against everything.
    fn pins(&self) -> u8 {
        let [inputs, _] = self.outside.levels(u16::from(self.latch)).to_le_bytes();
        inputs & self.latch
    }
}

impl Logic for Pcf8574 {
    fn settle(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// Each byte sets the latch, and ends an interrupt.
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.latch = *last;
            self.known = self.pins();
        }
    }

    /// Each byte samples the pins anew, and ends an interrupt.
    fn read(&mut self) -> u8 {
        self.known = self.pins();
        self.known
    }

    fn levels(&self) -> u16 {
        self.pins().into()
    }

    /// Open drain, pulled up by the board: low while an input differs from what was last read or written. It ends by
    /// itself where the input goes back, so a pulse between two reads leaves no trace.
    fn interrupt(&self) -> bool {
        (self.pins() ^ self.known) & self.latch == 0
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

    fn new() -> (expander::Chip, Pins, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        let chip = chip(0x21, Arc::clone(&clock) as Arc<dyn Clock>, 1);
        let pins = chip.pins().expect("an expander has pins");
        (chip, pins, clock)
    }

    fn read(chip: &mut expander::Chip) -> u8 {
        let mut byte = [0];
        chip.transaction(&mut [Operation::Read(&mut byte)]).expect("acknowledged");
        byte[0]
    }

    fn write(chip: &mut expander::Chip, bytes: &[u8]) {
        chip.transaction(&mut [Operation::Write(bytes)]).expect("acknowledged");
    }

    #[test]
    fn ones_are_inputs_and_zeros_pull_low() {
        let (mut chip, pins, _) = new();
        assert_eq!(read(&mut chip), 0xff);
        pins.drive(5, Some(false));
        assert_eq!(read(&mut chip), !(1 << 5));
        write(&mut chip, &[0x0f, 0xfe]);
        assert_eq!(read(&mut chip), !(1 << 5 | 1), "of several bytes the last one stays");
        pins.drive(0, Some(true));
        assert!(!pins.level(0), "a latch of 0 holds against what drives it");
    }

    #[test]
    fn the_interrupt_ends_when_it_is_read_or_written_or_the_input_goes_back() {
        let (mut chip, pins, clock) = new();
        assert!(pins.interrupt());
        let ends: [fn(&mut expander::Chip, &Pins); 3] =
            [|chip, _| _ = read(chip), |chip, _| write(chip, &[0xff]), |_, pins| pins.drive(5, None)];
        for end in ends {
            pins.drive(5, Some(false));
            assert!(!pins.interrupt());
            clock.advance(Duration::from_millis(1));
            end(&mut chip, &pins);
            assert!(pins.interrupt());
            assert_eq!(pins.interrupt_changes().last(), Some(&(clock.boot(), true)));
            pins.drive(5, None);
            read(&mut chip);
        }
    }

    #[test]
    fn an_output_makes_no_interrupt() {
        let (mut chip, pins, _) = new();
        write(&mut chip, &[!1]);
        pins.drive(0, Some(true));
        assert!(pins.interrupt());
    }

    #[test]
    fn the_contact_is_seen() {
        let (mut chip, pins, clock) = new();
        let mut seen = [false; 2];
        for _ in 0..100 {
            clock.advance(Duration::from_millis(200));
            let open = read(&mut chip) >> CONTACT_PIN & 1 == 1;
            seen[usize::from(open)] = true;
        }
        assert_eq!(seen, [true, true]);
        assert!(!pins.interrupt_changes().is_empty());
    }
}
