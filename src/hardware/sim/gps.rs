//! A peer on a pty that plays a receiver of GPS on a boat that swings around its anchor, and the boat's instruments.

use std::f64::consts::TAU;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::{arduino, world};
use crate::clock::{BootTime, Clock};
use crate::hardware::SerialPort;
use crate::hardware::linux::Ports;
use crate::reading::Fault;

/// Seconds for once around the anchor.
const ROUND: f64 = 600.0;

/// Starts a peer and opens the port to it.
pub(super) fn open(ports: &Ports, baud: u32, clock: Arc<dyn Clock>, seed: u64) -> Result<Box<dyn SerialPort>, Fault> {
    arduino::open_peer(ports, baud, clock, move |number, at| sentences(seed, number, at))
}

/// What the receiver and the instruments say within a second. Its time runs from the first of January 2026.
fn sentences(seed: u64, number: u32, at: BootTime) -> String {
    let angle = TAU * Duration::from_nanos(at.0).as_secs_f64() / ROUND;
    let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
    let time = format!("{hour:02}{minute:02}{second:02}.00");
    // Thirty metres to each side; a minute of longitude is a little shorter than one of latitude.
    let position = format!("47{:07.4},N,002{:07.4},W", 31.2 + 0.016 * angle.cos(), 45.6 + 0.024 * angle.sin());
    let course = (90.0 + angle.to_degrees()).rem_euclid(360.0);
    let heading = (course + 270.0).rem_euclid(360.0);
    let water = world::air(seed ^ 0x3a7, at).temperature - 6.0;
    let mut text = String::new();
    for body in [
        format!("GPRMC,{time},A,{position},0.610,{course:.1},010126,,,A"),
        format!("GPGGA,{time},{position},1,08,1.10,4.2,M,48.0,M,,"),
        "GPGSA,A,3,10,24,12,32,25,21,15,20,,,,,1.90,1.10,1.55".to_owned(),
        format!("HEHDT,{heading:.1},T"),
        format!("WIMWV,{:.1},R,{:.1},N,A", 350.0 - 20.0 * (angle * 7.0).sin().abs(), 11.0 + 3.0 * (angle * 11.0).sin()),
        format!("WIMWV,{:.1},T,{:.1},N,A", 349.0 - 20.0 * (angle * 7.0).sin().abs(), 10.8 + 3.0 * (angle * 11.0).sin()),
        format!("SDDPT,{:.1},0.4", 6.0 + angle.sin()),
        format!("YXMTW,{water:.1},C"),
    ] {
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        let _ = write!(text, "${body}*{sum:02X}\r\n");
    }
    text
}
