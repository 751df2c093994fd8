//! A peer on a pty that plays an Arduino: prints a line of JSON each second, whether anybody reads or not.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::world;
use crate::clock::{BootTime, Clock};
use crate::hardware::linux::Ports;
use crate::hardware::{SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode};

/// How often the peer looks whether the port was closed; it ends at the latest this long after.
const LOOK: Duration = Duration::from_millis(100);

/// Looks from one line to the next: one line a second.
const LOOKS_A_LINE: u32 = 10;

/// Starts a peer and opens the port to it.
pub(super) fn open(ports: &Ports, baud: u32, clock: Arc<dyn Clock>, seed: u64) -> Result<Box<dyn SerialPort>, Fault> {
    open_peer(ports, baud, clock, move |number, at| line(seed, number, at))
}

/// Starts a peer that prints such lines, one a second, and opens the port to it.
pub(super) fn open_peer(
    ports: &Ports,
    baud: u32,
    clock: Arc<dyn Clock>,
    line: impl Fn(u32, BootTime) -> String + Send + 'static,
) -> Result<Box<dyn SerialPort>, Fault> {
    on_pty(ports, baud, move |peer| play(peer, &*clock, &line))
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

fn play(mut peer: File, clock: &dyn Clock, line: &dyn Fn(u32, BootTime) -> String) {
    for look in 0_u32.. {
        if look % LOOKS_A_LINE == 0 {
            let line = line(look / LOOKS_A_LINE, clock.boot());
            if let Err(error) = peer.write_all(line.as_bytes())
                && error.kind() != ErrorKind::WouldBlock
            {
                return;
            }
        }
        // What the gateway sends is read and forgotten; a read error says that it has closed the port.
        match peer.read(&mut [0; 256]) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => thread::sleep(LOOK),
        }
    }
}

/// What a sketch prints that reads a DHT22, a light sensor, three soil probes and a button. Each fifth reading of
/// the light sensor fails.
fn line(seed: u64, number: u32, at: BootTime) -> String {
    let air = world::air(seed ^ 0xa2d, at);
    let light = match number % 5 {
        4 => "null".to_owned(),
        step => (310 + 7 * step).to_string(),
    };
    let soil = [412, 398, 405].map(|probe| probe + number % 7);
    format!(
        "{{\"temp\":{:.1},\"lumière\":{light},\"sol\":[{},{},{}],\"air\":{{\"humidity\":{:.1},\"ok\":true}}}}\r\n",
        air.temperature, soil[0], soil[1], soil[2], air.humidity
    )
}
