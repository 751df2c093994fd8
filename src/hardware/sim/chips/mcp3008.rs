//! MCP3008, an analog-to-digital converter of 10 bits with eight inputs on SPI, from Microchip's data sheet DS21295D.
//!
//! Works bit by bit as the data sheet draws it (figures 5-1 and 5-2), so that a command may be cut into bytes in any
//! way. Its reference is 3.3 V. An output that is not driven reads as ones.

use std::sync::Arc;

use super::SpiChip;
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// What the modules connect VREF to, in volts.
const REFERENCE: f64 = 3.3;

/// Bits after the start bit: SGL/DIFF, D2, D1, D0.
const COMMAND_BITS: u32 = 4;

pub(super) struct Chip {
    clock: Arc<dyn Clock>,
    seed: u64,
}

impl Chip {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { clock, seed }
    }
}

/// The result for a command of four bits (table 5-2), with the voltage at each input.
fn convert(command: u8, volts: impl Fn(u8) -> f64) -> u16 {
    let input = command & 0b111;
    let difference = if command & 0b1000 != 0 { volts(input) } else { volts(input) - volts(input ^ 1) };
    code(difference)
}

/// 1024 × VIN / VREF (equation 4-2), held to what 10 bits say; pseudo-differential inputs give 0 below zero.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to 10 bits before")]
fn code(volts: f64) -> u16 {
    (volts / REFERENCE * 1024.0).floor().clamp(0.0, 1023.0) as u16
}

/// The bits that go out from chip select on, for the bits that come in.
fn exchange(bits_in: impl Iterator<Item = bool>, result: impl Fn(u8) -> u16) -> Vec<bool> {
    const FLOATING: bool = true;
    let mut command = 0;
    // Clocks since the start bit.
    let mut clock: Option<u32> = None;
    let mut value = 0;
    let mut bits_out = Vec::new();
    for bit_in in bits_in {
        let Some(number) = &mut clock else {
            bits_out.push(FLOATING);
            if bit_in {
                clock = Some(0);
            }
            continue;
        };
        *number += 1;
        if *number <= COMMAND_BITS {
            command = command << 1 | u8::from(bit_in);
            if *number == COMMAND_BITS {
                value = result(command);
            }
        }
        let bit = |bit: u32| value >> bit & 1 == 1;
        bits_out.push(match *number {
            0..=5 => FLOATING,
            6 => false,
            // Most significant bit first…
            7..=16 => bit(16 - *number),
            // …and back, where the last one was already out.
            17..=25 => bit(*number - 16),
            _ => false,
        });
    }
    bits_out
}

impl SpiChip for Chip {
    fn transfer(&mut self, out: &[u8]) -> Vec<u8> {
        let now: BootTime = self.clock.boot();
        let bits_in = out.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        let bits_out = exchange(bits_in, |command| convert(command, |input| world::voltage(self.seed, now, input)));
        bits_out.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn codes_are_those_of_the_data_sheets_equation() {
        assert_eq!([0.0, REFERENCE / 1024.0 * 1.5, REFERENCE / 2.0, REFERENCE, -1.0].map(code), [0, 1, 512, 1023, 0]);
    }

    #[test]
    fn single_ended_and_differential_inputs_are_those_of_the_data_sheets_table() {
        let volts = |input: u8| f64::from(input) / 10.0;
        assert_eq!(convert(0b1101, volts), code(0.5), "CH5");
        assert_eq!(convert(0b0101, volts), code(0.1), "CH5 against CH4");
        assert_eq!(convert(0b0100, volts), 0, "CH4 against CH5");
    }

    /// Figure 6-1: three bytes, the start bit last in the first.
    #[test]
    fn three_bytes_give_the_null_bit_and_ten_bits() {
        let mut chip = Chip::new(Arc::new(ManualClock::new()), 1);
        let answer = chip.transfer(&[0b0000_0001, 0b1000_0000, 0]);
        assert_eq!(answer[0], 0xff, "not driven");
        assert_eq!(answer[1] & 0b1111_1100, 0b1111_1000, "not driven, then the null bit");
        let value = u16::from(answer[1] & 0b11) << 8 | u16::from(answer[2]);
        assert_eq!(value, code(world::voltage(1, BootTime(0), 0)));
    }

    #[test]
    fn what_follows_is_the_result_backwards_and_then_zeros() {
        let bits = |bytes: &[u8]| -> Vec<bool> {
            exchange(bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)), |_| {
                0b10_1100_0111
            })
        };
        // The start bit first: 1 + 4 + 1 clocks, then the null bit.
        let out: String = bits(&[0b1100_0000, 0, 0, 0]).iter().map(|bit| if *bit { '1' } else { '0' }).collect();
        assert_eq!(out, ["111111", "0", "1011000111", "110001101", "000000"].concat());
        assert!(bits(&[0, 0, 0]).iter().all(|bit| *bit), "no start bit, no answer");
    }
}
