//! A peer on a pty that plays an energy meter with the address 1 on a bus by itself, as an SDM120 is.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{arduino, world};
use crate::clock::{BootTime, Clock};
use crate::hardware::SerialPort;
use crate::hardware::linux::Ports;
use crate::reading::Fault;

/// The meter's address.
const ADDRESS: u8 = 1;

/// Bytes of a request to read.
const REQUEST: usize = 8;

/// How often the peer looks for a request.
const LOOK: Duration = Duration::from_millis(2);

/// Starts a peer and opens the port to it.
pub(super) fn open(ports: &Ports, baud: u32, clock: Arc<dyn Clock>, seed: u64) -> Result<Box<dyn SerialPort>, Fault> {
    arduino::on_pty(ports, baud, move |peer| play(peer, &*clock, seed))
}

fn play(mut peer: File, clock: &dyn Clock, seed: u64) {
    let mut request = Vec::new();
    let mut bytes = [0; 256];
    loop {
        match peer.read(&mut bytes) {
            Ok(count) => request.extend_from_slice(&bytes[..count]),
            // Silence: what has come is a request, or nothing.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if let Some(answer) = answer(&std::mem::take(&mut request), seed, clock.boot()) {
                    // A line does not wait for its reader.
                    let _ = peer.write_all(&answer);
                }
                thread::sleep(LOOK);
            }
            Err(_) => return,
        }
    }
}

/// The answer to a frame, if it is one for this unit.
fn answer(request: &[u8], seed: u64, at: BootTime) -> Option<Vec<u8>> {
    let &[address, function, first_high, first_low, count_high, count_low, crc_low, crc_high] = request else {
        return None;
    };
    let (body, _) = request.split_at(REQUEST - 2);
    (address == ADDRESS && crc(body) == [crc_low, crc_high]).then_some(())?;
    let first = u16::from_be_bytes([first_high, first_low]);
    let count = u16::from_be_bytes([count_high, count_low]);
    let mut answer = vec![address, function];
    let exception = match function {
        3 | 4 if !(1..=125).contains(&count) => Some(3),
        3 | 4 if first.checked_add(count).is_none_or(|end| end > 80) => Some(2),
        3 | 4 => None,
        _ => Some(1),
    };
    match exception {
        Some(code) => {
            answer[1] |= 0x80;
            answer.push(code);
        }
        None => {
            answer.push(u8::try_from(2 * count).unwrap_or(u8::MAX));
            let registers = (first..first + count).flat_map(|number| register(number, seed, at).to_be_bytes());
            answer.extend(registers);
        }
    }
    answer.extend(crc(&answer));
    Some(answer)
}

/// A register: floats of two registers each, the high one first, at the places of an SDM120's manual.
fn register(number: u16, seed: u64, at: BootTime) -> u16 {
    let (_, load) = world::supply(seed, at);
    let volts = 230.0 + 4.0 * (load - 0.55);
    let value = match number / 2 {
        0 => volts,
        3 => load,
        6 => volts * load,
        35 => 50.0,
        36 => Duration::from_nanos(at.0).as_secs_f64() / 3600.0 * 0.13,
        _ => 0.0,
    };
    #[expect(clippy::cast_possible_truncation, reason = "the meter's own numbers are such")]
    let [high, low] = { (value as f32).to_bits().to_be_bytes().as_chunks::<2>().0.try_into().unwrap_or_default() };
    u16::from_be_bytes(if number.is_multiple_of(2) { high } else { low })
}

/// The checksum in the order of the line: x^16 + x^15 + x^2 + 1, reflected, by a table of the low four bits.
fn crc(bytes: &[u8]) -> [u8; 2] {
    const NIBBLES: [u16; 16] = [
        0x0000, 0xcc01, 0xd801, 0x1400, 0xf001, 0x3c00, 0x2800, 0xe401, 0xa001, 0x6c00, 0x7800, 0xb401, 0x5000, 0x9c01,
        0x8801, 0x4400,
    ];
    let step = |crc: u16, nibble: u8| crc >> 4 ^ NIBBLES[usize::from((crc ^ u16::from(nibble)) & 15)];
    bytes.iter().fold(0xffff, |crc, byte| step(step(crc, byte & 15), byte >> 4)).to_le_bytes()
}
