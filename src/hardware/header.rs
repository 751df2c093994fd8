//! The 40-pin header of a Raspberry Pi: where its GPIO lines are, and what else they are.
//!
//! The same on every model since the Model B+ of 2014 (the official documentation, "GPIO and the 40-pin header", and
//! the *BCM2835 ARM Peripherals* manual, 6.2, for the other functions). The 26 pins of older boards are its first 26.

use std::fmt;

use super::LineId;
use crate::reading::{Fault, FaultCode};

/// How many positions it has, counted from 1.
pub const POSITIONS: u8 = 40;

/// The highest BCM number on it.
pub const LAST_LINE: u8 = 27;

/// What is at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The GPIO line of that BCM number.
    Line(u8),
    /// A supply, by its name.
    Supply(&'static str),
    /// Ground.
    Ground,
}

/// What else a line is, by the bus that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// A wire of that I2C bus.
    I2c(u8),
    /// Clock or data of that SPI bus.
    Spi(u8),
    /// The chip select of an SPI bus: bus, number.
    SpiSelect(u8, u8),
    /// The serial port.
    Uart,
    /// The bus of the ID EEPROM on a HAT, which the firmware reads at start.
    HatId,
    /// Where `dtoverlay=w1-gpio` puts the 1-Wire bus unless told otherwise.
    OneWire,
    /// Digital audio (PCM, I2S).
    Pcm,
}

/// A line of the header.
#[derive(Debug)]
pub struct Line {
    /// Its BCM number.
    pub bcm: u8,
    /// Its position on the header, from 1 to 40.
    pub position: u8,
    /// What else it is: the function, and the line's name in it.
    pub functions: &'static [(Function, &'static str)],
}

const fn line(bcm: u8, position: u8, functions: &'static [(Function, &'static str)]) -> Line {
    Line { bcm, position, functions }
}

/// All lines, the one with BCM number N at index N.
pub static LINES: [Line; LAST_LINE as usize + 1] = [
    line(0, 27, &[(Function::HatId, "ID_SDA"), (Function::I2c(0), "SDA0")]),
    line(1, 28, &[(Function::HatId, "ID_SCL"), (Function::I2c(0), "SCL0")]),
    line(2, 3, &[(Function::I2c(1), "SDA1")]),
    line(3, 5, &[(Function::I2c(1), "SCL1")]),
    line(4, 7, &[(Function::OneWire, "1-Wire")]),
    line(5, 29, &[]),
    line(6, 31, &[]),
    line(7, 26, &[(Function::SpiSelect(0, 1), "SPI0 CE1")]),
    line(8, 24, &[(Function::SpiSelect(0, 0), "SPI0 CE0")]),
    line(9, 21, &[(Function::Spi(0), "SPI0 MISO")]),
    line(10, 19, &[(Function::Spi(0), "SPI0 MOSI")]),
    line(11, 23, &[(Function::Spi(0), "SPI0 SCLK")]),
    line(12, 32, &[]),
    line(13, 33, &[]),
    line(14, 8, &[(Function::Uart, "TXD")]),
    line(15, 10, &[(Function::Uart, "RXD")]),
    line(16, 36, &[(Function::SpiSelect(1, 2), "SPI1 CE2")]),
    line(17, 11, &[(Function::SpiSelect(1, 1), "SPI1 CE1")]),
    line(18, 12, &[(Function::SpiSelect(1, 0), "SPI1 CE0"), (Function::Pcm, "PCM CLK")]),
    line(19, 35, &[(Function::Spi(1), "SPI1 MISO"), (Function::Pcm, "PCM FS")]),
    line(20, 38, &[(Function::Spi(1), "SPI1 MOSI"), (Function::Pcm, "PCM DIN")]),
    line(21, 40, &[(Function::Spi(1), "SPI1 SCLK"), (Function::Pcm, "PCM DOUT")]),
    line(22, 15, &[]),
    line(23, 16, &[]),
    line(24, 18, &[]),
    line(25, 22, &[]),
    line(26, 37, &[]),
    line(27, 13, &[]),
];

impl Line {
    /// The line of that BCM number; `None` for what is not on the header.
    #[must_use]
    pub fn of_bcm(bcm: u32) -> Option<&'static Self> {
        LINES.get(usize::try_from(bcm).ok()?)
    }

    /// The line that the kernel, or a user, calls `GPIO<number>`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<&'static Self> {
        let digits = name.strip_prefix("GPIO")?;
        // "GPIO07" is not a name of the kernel's.
        let plain = digits.len() <= 2 && (digits == "0" || !digits.starts_with('0'));
        Self::of_bcm(digits.parse().ok().filter(|_| plain && digits.bytes().all(|byte| byte.is_ascii_digit()))?)
    }

    /// What the line is called in that function; `None` where it has nothing to do with it.
    #[must_use]
    pub fn in_function(&self, function: Function) -> Option<&'static str> {
        self.functions.iter().find(|(other, _)| *other == function).map(|(_, name)| *name)
    }

    /// Does the board itself need it, whatever the configuration says?
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.in_function(Function::HatId).is_some()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPIO{} (pin {} of the header)", self.bcm, self.position)
    }
}

/// What is at that position; `None` if the header has no such.
#[must_use]
pub fn at(position: u8) -> Option<Position> {
    Some(match position {
        1 | 17 => Position::Supply("3.3 V"),
        2 | 4 => Position::Supply("5 V"),
        6 | 9 | 14 | 20 | 25 | 30 | 34 | 39 => Position::Ground,
        1..=POSITIONS => Position::Line(LINES.iter().find(|line| line.position == position)?.bcm),
        _ => return None,
    })
}

/// A fault if the header's chip has something at that offset that the board needs for itself: the bus of the ID EEPROM,
/// or whatever is not on the header.
///
/// # Errors
/// It has; what it is, and what to do.
pub(super) fn check_unreserved(line: &LineId, offset: u32) -> Result<(), Fault> {
    let needed_for = match Line::of_bcm(offset) {
        Some(found) if found.is_reserved() => "the ID EEPROM of a HAT",
        Some(_) => return Ok(()),
        None => "something inside of the board (SD card, Wi-Fi, LEDs)",
    };
    let detail = format!(
        "GPIO line {line} is not taken, because it is for {needed_for}: choose another one; if you are sure (a Compute \
         Module, no HAT), say `allow_reserved = true`"
    );
    Err(Fault::new(FaultCode::Busy, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_position_is_one_thing() {
        let mut lines = 0;
        for position in 1..=POSITIONS {
            match at(position).expect("each position is known") {
                Position::Line(bcm) => {
                    assert_eq!(LINES[usize::from(bcm)].position, position);
                    lines += 1;
                }
                Position::Supply(_) | Position::Ground => {
                    assert!(LINES.iter().all(|line| line.position != position), "{position}");
                }
            }
        }
        assert_eq!(lines, LINES.len(), "no line is missing and none stands twice");
        assert_eq!((at(0), at(POSITIONS + 1)), (None, None));
        for (index, line) in LINES.iter().enumerate() {
            assert_eq!(usize::from(line.bcm), index);
        }
    }

    #[test]
    fn well_known_lines_are_where_they_are() {
        for (position, bcm) in [(3, 2), (5, 3), (7, 4), (8, 14), (11, 17), (12, 18), (40, 21), (27, 0), (13, 27)] {
            assert_eq!(at(position), Some(Position::Line(bcm)));
        }
        assert_eq!(Line::of_bcm(17).expect("on the header").to_string(), "GPIO17 (pin 11 of the header)");
        assert!(Line::of_bcm(28).is_none());
    }

    #[test]
    fn what_the_board_needs_is_not_on_the_header_or_for_hats() {
        let refused = |offset| {
            check_unreserved(&LineId::Offset { chip: "gpiochip0".to_owned(), offset }, offset)
                .map_err(|fault| fault.detail)
        };
        assert!((2..=27).all(|offset| refused(offset).is_ok()));
        assert!(refused(1).expect_err("no").contains("EEPROM") && refused(47).expect_err("no").contains("SD card"));
    }

    #[test]
    fn names_are_those_of_the_kernel_only() {
        assert_eq!(Line::of_name("GPIO17").map(|line| line.bcm), Some(17));
        assert_eq!(Line::of_name("GPIO0").map(|line| line.bcm), Some(0));
        for name in ["GPIO28", "GPIO017", "GPIO07", "GPIO", "GPIO+7", "gpio17", "17", "P9_12", "GPIO1x"] {
            assert!(Line::of_name(name).is_none(), "{name}");
        }
    }
}
