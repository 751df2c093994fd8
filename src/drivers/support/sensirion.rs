//! What drivers of Sensirion's chips have in common: words of 16 bits, each with a checksum.

use super::crc8::Crc8;
use super::i2c::Chip;
use crate::reading::{Fault, FaultCode};

/// A word as it is sent: high byte, low byte, checksum.
pub(crate) fn packed(word: u16) -> [u8; 3] {
    let [high, low] = word.to_be_bytes();
    [high, low, Crc8::SENSIRION.of(&[high, low])]
}

/// The words of an answer.
///
/// # Errors
/// A checksum is wrong.
pub(crate) fn words<const WORDS: usize>(chip: &Chip, answer: &[[u8; 3]; WORDS]) -> Result<[u16; WORDS], Fault> {
    let wrong = answer.iter().find(|[high, low, crc]| Crc8::SENSIRION.of(&[*high, *low]) != *crc);
    if let Some([high, low, crc]) = wrong {
        let detail = format_args!(
            "the checksum of the word 0x{high:02x}{low:02x} is {:#04x}, not {crc:#04x}: check the wiring (long wires, \
             missing pull-up resistors)",
            Crc8::SENSIRION.of(&[*high, *low])
        );
        return Err(chip.says(FaultCode::Crc, detail));
    }
    Ok(answer.map(|[high, low, _]| u16::from_be_bytes([high, low])))
}

/// Reads the words of an answer.
///
/// # Errors
/// What the bus reports, or a wrong checksum.
pub(crate) fn receive<const WORDS: usize>(chip: &mut Chip, what: &str) -> Result<[u16; WORDS], Fault> {
    let mut answer = [[0; 3]; WORDS];
    chip.receive_into(what, answer.as_flattened_mut())?;
    words(chip, &answer)
}

/// Reads the words by which a chip without an identity is known: nothing but their checksums tells one of these chips
/// from another one.
///
/// # Errors
/// As of [`receive`]. Wires that damage what they carry cannot be told from another chip; they are the more frequent.
pub(crate) fn receive_known<const WORDS: usize>(
    chip: &mut Chip,
    what: &str,
    expected: &str,
) -> Result<[u16; WORDS], Fault> {
    receive(chip, what).map_err(|fault| match fault.code {
        FaultCode::Crc => Fault::new(fault.code, format!("{}; or is it no {expected}?", fault.detail)),
        _ => fault,
    })
}

/// °C: the formula that all of these chips share (SHT3x 4.13, SHT4x 4.6, SCD4x 3.5.2).
pub(crate) fn celsius(word: u16) -> f64 {
    -45.0 + 175.0 * f64::from(word) / 65_535.0
}

/// % relative humidity, of the SHT3x (4.13) and the SCD4x (3.5.2); the SHT4x has a scale of its own.
pub(crate) fn humidity(word: u16) -> f64 {
    100.0 * f64::from(word) / 65_535.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::support::testing;

    /// SCD4x data sheet, 3.9.2: the serial number 273 325 796 834 238.
    #[test]
    fn the_data_sheets_words_and_checksums_come_out() {
        let answer: [u8; 9] = [0xf8, 0x96, 0x31, 0x9f, 0x07, 0xc2, 0x3b, 0xbe, 0x89];
        assert_eq!([0xf896, 0x9f07, 0x3bbe].map(packed).concat(), answer);
        let chip = testing::chip(0x62, &[]);
        assert_eq!(words(&chip, &[packed(0xf896), packed(0x9f07)]), Ok([0xf896, 0x9f07]));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let chip = testing::chip(0x62, &[]);
        for bit in 0..24 {
            let mut word = packed(0x6667);
            word[bit / 8] ^= 1 << (bit % 8);
            let fault = words(&chip, &[packed(0), word]).expect_err("a wrong checksum");
            assert_eq!(fault.code, FaultCode::Crc);
        }
        // A line that is stuck: the checksum of 0x0000 is 0x81, that of 0xffff 0xac.
        for stuck in [[0; 3], [0xff; 3]] {
            assert!(words(&chip, &[stuck]).is_err());
        }
    }
}
