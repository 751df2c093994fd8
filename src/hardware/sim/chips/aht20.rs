//! AHT20 from Aosong's product manual; the DHT20 with its wires out speaks the same.
//!
//! Where the manuals leave it open: a chip that was not initialised does not measure, its status has bit 4 always set,
//! and while it starts anew it acknowledges nothing. The chip had its power for long when the machine starts.

use std::sync::Arc;
use std::time::Duration;

use super::commanded::{Commanded, Commands};
use super::{Nak, sensirion};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// Bits of the status (5.3).
const BUSY: u8 = 1 << 7;
const RESERVED: u8 = 1 << 4;
const CALIBRATED: u8 = 1 << 3;

/// What a measurement, an initialisation and a soft reset take (5.4, 5.5).
const MEASURING: Duration = Duration::from_millis(80);
const INITIALISING: Duration = Duration::from_millis(10);
const RESETTING: Duration = Duration::from_millis(20);

enum Busy {
    Measuring,
    Initialising,
}

pub(super) struct Aht20 {
    seed: u64,
    deaf_until: BootTime,
    busy: Option<(BootTime, Busy)>,
    calibrated: bool,
    /// Humidity and temperature, each of 20 bits.
    data: [u8; 5],
}

/// A chip that was not initialised yet.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Commanded<Aht20> {
    let (seed, deaf_until) = (seed ^ u64::from(address), clock.boot());
    Commanded::new(address, clock, Aht20 { seed, deaf_until, busy: None, calibrated: false, data: [0; 5] })
}

impl Aht20 {
    fn live_on(&mut self, now: BootTime) {
        let Some((done_at, busy)) = self.busy.take_if(|(done_at, _)| *done_at <= now) else { return };
        match busy {
            Busy::Measuring => self.data = data(&world::air(self.seed, done_at)),
            Busy::Initialising => self.calibrated = true,
        }
    }
}

impl Commands for Aht20 {
    fn deaf_until(&self) -> BootTime {
        self.deaf_until
    }

    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        self.live_on(now);
        let (time, busy) = match bytes {
            [0xba] => {
                (self.busy, self.calibrated, self.data) = (None, false, [0; 5]);
                self.deaf_until = now.after(RESETTING);
                return Ok(());
            }
            [0xbe, 0x08, 0x00] => (INITIALISING, Busy::Initialising),
            [0xac, 0x33, 0x00] if self.calibrated => (MEASURING, Busy::Measuring),
            _ => return Ok(()),
        };
        if self.busy.is_none() {
            self.busy = Some((now.after(time), busy));
        }
        Ok(())
    }

    /// Status, humidity, temperature, checksum over all of them.
    fn answer(&mut self, now: BootTime) -> Result<Vec<u8>, Nak> {
        self.live_on(now);
        let busy = if self.busy.is_some() { BUSY } else { 0 };
        let calibrated = if self.calibrated { CALIBRATED } else { 0 };
        let mut bytes = [&[busy | RESERVED | calibrated][..], &self.data].concat();
        bytes.push(sensirion::crc(&bytes));
        Ok(bytes)
    }
}

/// Humidity from 0 to 100 % and temperature from -50 to 150 °C, on 20 bits each (6).
fn data(air: &world::Air) -> [u8; 5] {
    let twenty_bits = |part: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the range before")]
        let raw = (part * 1_048_576.0).round().clamp(0.0, 1_048_575.0) as u64;
        raw
    };
    let both = twenty_bits(air.humidity / 100.0) << 20 | twenty_bits((air.temperature + 50.0) / 200.0);
    let [_, _, _, data @ ..] = both.to_be_bytes();
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    fn receive<const N: usize>(chip: &mut Commanded<Aht20>) -> [u8; N] {
        chip.receive().expect("acknowledged")
    }

    /// What two people read from their chips; the checksums are the chips' own.
    #[test]
    fn checksums_are_those_of_real_chips() {
        assert_eq!(sensirion::crc(&[28, 38, 154, 118, 66, 231]), 118);
        assert_eq!(sensirion::crc(&[0x18, 0x93, 0xac, 0x95, 0x2a, 0xc5]), 0xb3);
    }

    #[test]
    fn it_is_initialised_measures_and_says_when_it_is_done() {
        let (clock, mut chip) = powered_on(0x38, chip);
        assert_eq!(receive(&mut chip), [RESERVED, 0, 0, 0, 0, 0, sensirion::crc(&[RESERVED, 0, 0, 0, 0, 0]), 0xff]);
        chip.send(&[0xac, 0x33, 0x00]).expect("acknowledged");
        assert_eq!(receive(&mut chip), [RESERVED], "not calibrated");
        chip.send(&[0xbe, 0x08, 0x00]).expect("acknowledged");
        assert_eq!(receive(&mut chip), [BUSY | RESERVED]);
        clock.advance(INITIALISING);
        assert_eq!(receive(&mut chip), [RESERVED | CALIBRATED]);

        chip.send(&[0xac, 0x33, 0x00]).expect("acknowledged");
        clock.advance(Duration::from_micros(79_999));
        assert_eq!(receive(&mut chip), [BUSY | RESERVED | CALIBRATED, 0, 0, 0, 0, 0], "the data are the old ones");
        clock.advance(Duration::from_micros(1));
        let bytes: [u8; 7] = receive(&mut chip);
        assert_eq!((bytes[0], bytes[6]), (RESERVED | CALIBRATED, sensirion::crc(&bytes[..6])));
        let air = world::air(chip.chip.seed, clock.boot());
        let humidity = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) >> 4;
        let temperature = u32::from_be_bytes([0, bytes[3] & 0x0f, bytes[4], bytes[5]]);
        assert!((f64::from(humidity) / 1_048_576.0 * 100.0 - air.humidity).abs() < 1e-3);
        assert!((f64::from(temperature) / 1_048_576.0 * 200.0 - 50.0 - air.temperature).abs() < 1e-3);
    }

    #[test]
    fn a_soft_reset_begins_anew() {
        let (clock, mut chip) = powered_on(0x38, chip);
        chip.send(&[0xbe, 0x08, 0x00]).expect("acknowledged");
        clock.advance(INITIALISING);
        chip.send(&[0xba]).expect("acknowledged");
        assert_eq!(chip.send(&[0xbe, 0x08, 0x00]), Err(Nak));
        clock.advance(RESETTING);
        assert_eq!(receive(&mut chip), [RESERVED]);
    }
}
