//! A peer on a pty that plays an Arduino: prints a line of JSON each second, whether anybody reads or not,
//! and obeys `{"led":true}` and `{"interval":5}`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use super::world;
use crate::clock::{BootTime, Clock};
use crate::hardware::linux::Ports;
use crate::hardware::{SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode};

/// How often the peer looks whether the port was closed; it ends at the latest this long after.
const LOOK: Duration = Duration::from_millis(100);

/// Looks in a second.
const LOOKS_A_SECOND: u32 = 10;

/// Bytes of a line of input; what is longer is cut, and then no JSON.
const MAX_INPUT: usize = 256;

/// Starts a peer and opens the port to it.
pub(super) fn open(ports: &Ports, baud: u32, clock: Arc<dyn Clock>, seed: u64) -> Result<Box<dyn SerialPort>, Fault> {
    let device = Arduino { seed, led: false, interval: 1, input: Vec::new() };
    on_pty(ports, baud, move |peer| play(peer, &*clock, device))
}

/// The same with a sketch that prints for people, as that of a DHT22 does.
pub(super) fn open_dht22(
    ports: &Ports,
    baud: u32,
    clock: Arc<dyn Clock>,
    seed: u64,
) -> Result<Box<dyn SerialPort>, Fault> {
    open_peer(ports, baud, clock, move |number, at| {
        let air = world::air(seed ^ 0xd22, at);
        let (banner, celsius) = (if number == 0 { "DHT22 test!\r\n" } else { "" }, air.temperature);
        let fahrenheit = celsius * 1.8 + 32.0;
        format!("{banner}Humidity: {:.2}%  Temperature: {celsius:.2}°C {fahrenheit:.2}°F\r\n", air.humidity)
    })
}

/// Starts a peer that sends such texts or bytes, one lot a second, and opens the port to it.
pub(super) fn open_peer<T: Into<Vec<u8>>>(
    ports: &Ports,
    baud: u32,
    clock: Arc<dyn Clock>,
    line: impl Fn(u32, BootTime) -> T + Send + 'static,
) -> Result<Box<dyn SerialPort>, Fault> {
    let device = Printer(move |number, at| line(number, at).into());
    on_pty(ports, baud, move |peer| play(peer, &*clock, device))
}

/// A device on the other side.
trait Device {
    /// The next thing that it sends by itself.
    fn print(&mut self, number: u32, at: BootTime) -> Vec<u8>;

    /// Seconds until then.
    fn interval(&self) -> u32 {
        1
    }

    /// Takes what was sent to it; gives what it answers.
    fn take(&mut self, _bytes: &[u8]) -> String {
        String::new()
    }
}

/// A device that does not listen.
struct Printer<F>(F);

impl<F: Fn(u32, BootTime) -> Vec<u8>> Device for Printer<F> {
    fn print(&mut self, number: u32, at: BootTime) -> Vec<u8> {
        (self.0)(number, at)
    }
}

/// Starts a peer on a new pty and opens the port to it.
pub(super) fn on_pty(
    ports: &Ports,
    baud: u32,
    play: impl FnOnce(File) + Send + 'static,
) -> Result<Box<dyn SerialPort>, Fault> {
    let failed = |error: std::io::Error| Fault::new(FaultCode::Io, format!("the simulated device has no pty: {error}"));
    let (peer, port) = pty().map_err(failed)?;
    // The port is opened before the peer runs, which takes a pty without an open port for one that was closed.
    let port = ports.open(&SerialSettings::new(port, baud))?;
    thread::Builder::new().name("sim-serial".to_owned()).spawn(move || play(peer)).map_err(failed)?;
    Ok(port)
}

/// The peer's side of a new pty, and the path of the other side.
fn pty() -> std::io::Result<(File, PathBuf)> {
    let peer: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&peer)?;
    unlockpt(&peer)?;
    let name = ptsname(&peer, Vec::new())?.into_string().map_err(std::io::Error::other)?;
    // An Arduino does not wait for a reader either: what does not fit is lost.
    fcntl_setfl(&peer, OFlags::NONBLOCK)?;
    Ok((File::from(peer), PathBuf::from(name)))
}

fn play(mut peer: File, clock: &dyn Clock, mut device: impl Device) {
    let (mut number, mut looks) = (0, 0);
    loop {
        let mut bytes = Vec::new();
        if looks == 0 {
            bytes = device.print(number, clock.boot());
            (number, looks) = (number.wrapping_add(1), LOOKS_A_SECOND * device.interval());
        }
        let mut buffer = [0; 256];
        match peer.read(&mut buffer) {
            Ok(count) => bytes.extend(device.take(&buffer[..count]).into_bytes()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The gateway has closed the port.
            Err(_) => return,
        }
        match peer.write_all(&bytes) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => thread::sleep(LOOK),
        }
        looks = looks.min(LOOKS_A_SECOND * device.interval()) - 1;
    }
}

/// A sketch that reads a DHT22, a light sensor, three soil probes and a button, and has a lamp.
#[derive(Debug)]
struct Arduino {
    seed: u64,
    led: bool,
    /// Seconds between two lines.
    interval: u32,
    /// A line of input whose end has not come yet.
    input: Vec<u8>,
}

impl Device for Arduino {
    /// Each fifth reading of the light sensor fails.
    fn print(&mut self, number: u32, at: BootTime) -> Vec<u8> {
        let air = world::air(self.seed ^ 0xa2d, at);
        let light = match number % 5 {
            4 => "null".to_owned(),
            step => (310 + 7 * step).to_string(),
        };
        let soil = [412, 398, 405].map(|probe| probe + number % 7);
        format!(
            "{{\"temp\":{:.1},\"lumière\":{light},\"sol\":[{},{},{}],\"air\":{{\"humidity\":{:.1},\"ok\":true}},\
             \"led\":{}}}\r\n",
            air.temperature, soil[0], soil[1], soil[2], air.humidity, self.led
        )
        .into_bytes()
    }

    fn interval(&self) -> u32 {
        self.interval
    }

    fn take(&mut self, bytes: &[u8]) -> String {
        let mut answers = String::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.input.push(*byte);
                self.input.truncate(MAX_INPUT);
                continue;
            }
            let line = std::mem::take(&mut self.input);
            let Ok(command) = serde_json::from_slice::<Value>(&line) else { continue };
            let outcome = self.obey(&command);
            // Without a number nobody waits for an answer.
            let Some(id) = command.get("id").and_then(Value::as_u64) else { continue };
            let answer = match outcome {
                Ok(()) => json!({"ack": id}),
                Err(why) => json!({"ack": id, "error": why}),
            };
            answers.push_str(&format!("{answer}\r\n"));
        }
        answers
    }
}

impl Arduino {
    fn obey(&mut self, command: &Value) -> Result<(), &'static str> {
        let (led, interval) = (command.get("led"), command.get("interval"));
        if led.is_none() && interval.is_none() {
            return Err("I know led (true, false) and interval (1 to 60 s)");
        }
        if let Some(led) = led {
            self.led = led.as_bool().ok_or("led is true or false")?;
        }
        if let Some(interval) = interval {
            let seconds = interval.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
            self.interval = seconds.filter(|seconds| (1..=60).contains(seconds)).ok_or("interval is 1 to 60 s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_obeys_and_acknowledges() {
        let mut sketch = Arduino { seed: 1, led: false, interval: 1, input: Vec::new() };
        assert_eq!(sketch.take(b"{\"id\":3,\"le"), "");
        assert_eq!(sketch.take(b"d\":true}\n{\"interval\":5}\n"), "{\"ack\":3}\r\n");
        assert_eq!((sketch.led, sketch.interval), (true, 5));
        assert_eq!(sketch.take(b"nonsense\n"), "");
        let answers = sketch.take(b"{\"id\":4,\"interval\":0}\n{\"id\":5}\n");
        assert!(answers.contains("1 to 60 s") && answers.contains("I know led"), "{answers}");
        sketch.take(&[b'x'; 10_000]);
        assert_eq!(sketch.input.len(), MAX_INPUT);
    }
}
