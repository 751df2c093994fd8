//! What every back end is held to. The same checks run on whatever hardware there is: here on the simulated machine,
//! and for serial ports on this one, with ptys.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::I2c;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::linux::Linux;
use super::sim::{ARDUINO_PORT, Sim};
use super::*;
use crate::clock::{ManualClock, SystemClock, Trust};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a back end has, so that the contract can be tried on it.
struct Wired {
    hardware: Box<dyn Hardware>,
    /// A bus, an address at which a chip answers to a read of its register 0, and one at which nobody does.
    bus: (u8, u8, u8),
    absent_bus: u8,
    /// A line that nothing drives.
    free_line: LineId,
    absent_line: LineId,
}

fn sim() -> Wired {
    Wired {
        hardware: Box::new(Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1)),
        bus: (1, 0x76, 0x10),
        absent_bus: 5,
        free_line: LineId::Name("GPIO5".to_owned()),
        absent_line: LineId::Offset { chip: "gpiochip0".to_owned(), offset: 900 },
    }
}

fn input(line: &LineId, bias: Bias, active_low: bool) -> LineSettings {
    LineSettings { line: line.clone(), reserved: false, bias, active_low, debounce: Duration::ZERO, edges: Edges::Both }
}

#[test]
fn a_bus_answers_where_a_chip_is_and_says_where_none_is() {
    let Wired { hardware, bus: (number, present, absent), absent_bus, .. } = sim();
    let mut bus = hardware.i2c(number).expect("a bus");
    let mut byte = [0];
    bus.write_read(present, &[0], &mut byte).expect("an acknowledge");
    let error = bus.write_read(absent, &[0], &mut byte).expect_err("nobody there");
    assert!(error.is_no_acknowledge(), "{error:?}");
    assert!(error.message.contains(&format!("{absent:#04x}")), "{error}");
    // The bus works on after an error, and a second handle is the same bus.
    hardware.i2c(number).expect("a bus").write_read(present, &[0], &mut byte).expect("an acknowledge");
    assert_eq!(hardware.i2c(absent_bus).expect_err("no such bus").code, FaultCode::Missing);
}

#[tokio::test]
async fn a_line_has_one_holder_and_follows_its_resistor() {
    let Wired { hardware, free_line, absent_line, .. } = sim();
    for (bias, active_low, expected) in [
        (Bias::PullUp, false, true),
        (Bias::PullUp, true, false),
        (Bias::PullDown, false, false),
        (Bias::PullDown, true, true),
    ] {
        // Each turn takes the line anew: dropping it has given it back.
        let mut line = hardware.input_line(&input(&free_line, bias, active_low)).expect("a free line");
        assert_eq!(line.level(), Ok(expected), "{bias:?} {active_low}");
        let second = hardware.input_line(&input(&free_line, bias, active_low)).err().expect("the line is taken");
        assert_eq!(second.code, FaultCode::Busy);
        assert!(second.detail.contains("vigie"), "{second}");
    }
    let fault = hardware.input_line(&input(&absent_line, Bias::AsIs, false)).err().expect("no such line");
    assert_eq!(fault.code, FaultCode::Missing);
}

/// A pty: the device's side, and the path of the port.
fn pty() -> (File, PathBuf) {
    let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    grantpt(&device).expect("granted");
    unlockpt(&device).expect("unlocked");
    let name = ptsname(&device, Vec::new()).expect("a name").into_string().expect("UTF-8");
    (File::from(device), PathBuf::from(name))
}

async fn read(port: &mut Box<dyn SerialPort>) -> std::io::Result<Vec<u8>> {
    let mut buffer = [0; 256];
    let read = tokio::time::timeout(DEADLINE, port.read(&mut buffer)).await.expect("something comes")?;
    Ok(buffer[..read].to_vec())
}

#[tokio::test]
async fn a_port_carries_every_byte_both_ways_and_notices_that_it_is_unplugged() {
    for hardware in [Box::new(Linux::new()) as Box<dyn Hardware>, sim().hardware] {
        for baud in [9_600, 115_200, 250_000] {
            let (mut device, port) = pty();
            let settings = SerialSettings { port, baud };
            let mut port = hardware.serial(&settings).expect("opens");

            let fault = hardware.serial(&settings).err().expect("the port is taken");
            assert_eq!(fault.code, FaultCode::Busy, "{fault}");

            // A tty would change these, were it not raw: interrupt, end of file, carriage return, flow control.
            let bytes = [0x03, 0x04, 0x0d, 0x0a, 0x11, 0x13, 0x00, 0xff, b'x'];
            device.write_all(&bytes).expect("written");
            let mut received = Vec::new();
            while received.len() < bytes.len() {
                received.extend(read(&mut port).await.expect("an open port"));
            }
            assert_eq!(received, bytes);

            port.write_all(b"down\n").await.expect("written");
            let mut down = [0; 5];
            std::io::Read::read_exact(&mut device, &mut down).expect("read");
            assert_eq!(&down, b"down\n");

            drop(device);
            let fault = match read(&mut port).await {
                Ok(bytes) => {
                    assert!(bytes.is_empty(), "{bytes:?}");
                    settings.read_fault(None)
                }
                Err(error) => settings.read_fault(Some(&error)),
            };
            assert_eq!(fault.code, FaultCode::Unplugged, "{fault}");
        }
        let settings = SerialSettings { port: PathBuf::from("/dev/serial/by-id/none"), baud: 9_600 };
        let fault = hardware.serial(&settings).err().expect("no such port");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("ls /dev/serial/by-id"), "{fault}");
        let settings = SerialSettings { port: PathBuf::from("/dev/null"), baud: 9_600 };
        let fault = hardware.serial(&settings).err().expect("no serial port");
        assert!(fault.code == FaultCode::Io && fault.detail.contains("/dev/null"), "{fault}");
    }
}

#[tokio::test]
async fn the_simulated_arduino_prints_lines_and_can_be_opened_again() {
    let hardware = sim().hardware;
    let settings = SerialSettings { port: PathBuf::from(ARDUINO_PORT), baud: 115_200 };
    for _ in 0..2 {
        let mut port = hardware.serial(&settings).expect("opens");
        let mut text = Vec::new();
        while !text.ends_with(b"\n") {
            text.extend(read(&mut port).await.expect("an open port"));
        }
        let line: serde_json::Value = serde_json::from_slice(&text).expect("a line of JSON");
        assert!(line["temp"].is_number() && line["sol"].is_array() && line["air"].is_object(), "{line}");
        assert!(line.get("lumière").is_some(), "{line}");
    }
}

#[tokio::test]
async fn the_simulated_motion_comes_with_its_own_time_and_no_edge_is_lost_when_the_wait_is_cancelled() {
    let clock = Arc::new(ManualClock::new());
    let hardware = Sim::new(Arc::clone(&clock) as Arc<dyn Clock>, 1);
    let motion = LineId::Name("GPIO17".to_owned());
    let mut line = hardware.input_line(&input(&motion, Bias::AsIs, false)).expect("a line");
    assert_eq!(line.level(), Ok(false), "nothing moves in the beginning");
    assert!(tokio::time::timeout(Duration::ZERO, line.edges()).await.is_err(), "nothing has happened yet");

    clock.advance(Duration::from_secs(100));
    let edges = tokio::time::timeout(DEADLINE, line.edges()).await.expect("edges").expect("a line");
    assert_eq!(edges.len(), 20, "two in each ten seconds");
    for (index, edge) in edges.iter().enumerate() {
        assert_eq!(edge.active, index % 2 == 0);
        assert_eq!(usize::try_from(edge.sequence), Ok(index + 1));
        assert!(edge.at < clock.boot());
    }
    assert!(edges.is_sorted_by(|a, b| a.at < b.at));
}
