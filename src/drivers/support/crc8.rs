//! The checksum of eight bits that many chips send with their values.

/// A CRC of eight bits without reflection and without a final XOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crc8 {
    /// The polynomial, without its highest term: 0x31 is x⁸ + x⁵ + x⁴ + 1.
    pub(crate) polynomial: u8,
    /// What the checksum of no bytes is.
    pub(crate) init: u8,
}

impl Crc8 {
    /// Sensirion's (SHT3x data sheet, 4.12, table 20), and Aosong's, too.
    pub(crate) const SENSIRION: Self = Self { polynomial: 0x31, init: 0xff };

    /// The checksum of some bytes.
    pub(crate) fn of(self, bytes: &[u8]) -> u8 {
        let shift = |crc: u8| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ self.polynomial };
        bytes.iter().fold(self.init, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| shift(crc)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums_come_out() {
        // SHT3x data sheet, table 20.
        assert_eq!(Crc8::SENSIRION.of(&[0xbe, 0xef]), 0x92);
        // CRC-8/SMBUS and CRC-8/NRSC-5 of "123456789", from the catalogue of CRC algorithms.
        assert_eq!(Crc8 { polynomial: 0x07, init: 0 }.of(b"123456789"), 0xf4);
        assert_eq!(Crc8::SENSIRION.of(b"123456789"), 0xf7);
        assert_eq!(Crc8::SENSIRION.of(&[]), 0xff);
    }
}
