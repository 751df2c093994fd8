//! What Sensirion's chips have in common: words with a checksum, and the scale of their temperature.

use std::time::Duration;

use crate::clock::BootTime;
use crate::hardware::sim::world::Air;

/// CRC-8 with the polynomial 0x31 and all ones at the start (SHT3x data sheet, table 20).
pub(super) fn crc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

/// Words as they are sent: high byte, low byte, checksum.
pub(super) fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| [&word.to_be_bytes()[..], &[crc(&word.to_be_bytes())]].concat()).collect()
}

/// The temperature of all of these chips: -45 to 130 °C on 16 bits.
pub(super) fn temperature(air: &Air) -> u16 {
    ratio((air.temperature + 45.0) / 175.0)
}

/// A part of one on 16 bits.
pub(super) fn ratio(part: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the range before")]
    let raw = (part * 65_535.0).round().clamp(0.0, 65_535.0) as u16;
    raw
}

/// How often a periodic measurement was done since its start.
pub(super) fn periods(start: BootTime, period: Duration, now: BootTime) -> u32 {
    u32::try_from(now.since(start).as_nanos() / period.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_data_sheets() {
        // SHT3x, table 20; SCD4x, the example of read_measurement.
        assert_eq!(words(&[0xbeef]), [0xbe, 0xef, 0x92]);
        assert_eq!(words(&[0x01f4, 0x6667, 0x5eb9]), [0x01, 0xf4, 0x33, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3c]);
    }

    #[test]
    fn temperatures_are_held_to_what_fits() {
        let air = |temperature| Air { temperature, humidity: 0.0, pressure: 0.0 };
        // SCD4x: 0x6667 is given as 25 °C; the nearest is 0x6666.
        assert_eq!(temperature(&air(25.0)), 0x6666);
        assert_eq!((temperature(&air(-45.0)), temperature(&air(-273.0)), temperature(&air(500.0))), (0, 0, 0xffff));
    }
}
