//! A peer on a pty that plays a device in the garden, which sends frames with a checksum (`docs/serial-frames.md`): it
//! says what its values are called before each tenth of its readings.

use std::sync::Arc;
use std::time::Duration;

use crc::{CRC_16_IBM_SDLC, Crc};

use super::{arduino, world};
use crate::clock::{BootTime, Clock};
use crate::hardware::SerialPort;
use crate::hardware::linux::Ports;
use crate::reading::Fault;

/// Readings from one description to the next.
const READINGS_A_DESCRIPTION: u32 = 10;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

/// Starts a peer and opens the port to it.
pub(super) fn open(ports: &Ports, baud: u32, clock: Arc<dyn Clock>, seed: u64) -> Result<Box<dyn SerialPort>, Fault> {
    arduino::open_peer(ports, baud, clock, move |number, at| frames(seed, number, at))
}

/// What it sends within a second.
fn frames(seed: u64, number: u32, at: BootTime) -> Vec<u8> {
    let mut bytes = Vec::new();
    // One sequence for all frames: each description takes a number of its own.
    let described = number / READINGS_A_DESCRIPTION + 1;
    if number.is_multiple_of(READINGS_A_DESCRIPTION) {
        let mut content = vec![0x12, low_byte(number + described - 1), u8::from(number == 0), 0];
        for (id, name, unit) in [(0, "soil_temperature", "°C"), (1, "soil_moisture", "%"), (2, "valve", "")] {
            content.extend([id, 0]);
            for text in [name, unit] {
                content.push(u8::try_from(text.len()).expect("these are short"));
                content.extend(text.as_bytes());
            }
        }
        seal(&content, &mut bytes);
    }
    let soil = world::air(seed ^ 0x6a2, at);
    #[expect(clippy::cast_possible_truncation, reason = "a device of 32 bits, whose clock runs over after 49 days")]
    let (millis, temperature) = (Duration::from_nanos(at.0).as_millis() as u32, soil.temperature as f32 - 4.0);
    let moisture = low_byte(30 + number / 60 % 20);
    let mut content = vec![0x11, low_byte(number + described)];
    content.extend(millis.to_le_bytes());
    content.extend([0, 6]);
    content.extend(((temperature * 100.0).round() / 100.0).to_le_bytes());
    content.extend([1, 2, moisture, 2, 1, u8::from(moisture < 35)]);
    seal(&content, &mut bytes);
    bytes
}

fn low_byte(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

/// Appends a frame: checksum, zeros taken out, a zero at the end.
fn seal(content: &[u8], bytes: &mut Vec<u8>) {
    let whole = [content, &CRC.checksum(content).to_le_bytes()].concat();
    bytes.extend(cobs::encode_vec(&whole));
    bytes.push(0);
}
