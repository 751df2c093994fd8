//! What every back end is held to. The same checks run on whatever hardware there is: on the simulated machine, for
//! serial ports on this one, with ptys, and on a board whose wiring is told in the environment ([`BOARD`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::{I2c, Operation};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::linux::Linux;
use super::serial::{Format, Reset};
use super::sim::{ARDUINO_PORT, Sim};
use super::*;
use crate::clock::{ManualClock, SystemClock, Trust};
use crate::reading::FaultCode;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The environment variable that tells what this machine has, as words `key=value`: `backend` is `linux` or `rppal`, the
/// others are the fields of [`Wired`]. The tests are then to run one after the other (`--test-threads 1`), as they share
/// its lines.
const BOARD: &str = "VIGIE_CONTRACT_BOARD";

/// What a back end has, so that the contract can be tried on it.
struct Wired {
    hardware: Box<dyn Hardware>,
    bus: u8,
    /// An address at which a chip answers to a read of its register 0.
    chip: u8,
    /// An address at which nobody answers.
    nobody: u8,
    absent_bus: u8,
    absent_spi: SpiPlace,
    /// A line that nothing drives.
    line: LineId,
    absent_line: LineId,
    /// A line on which pulses come by themselves; not every board has one.
    pulses: Option<LineId>,
    /// A line that the board needs for itself; only a Raspberry Pi is known that well.
    reserved: Option<LineId>,
    /// Do lines follow their resistors? Those of QEMU's boards do not: they keep the level to which they were last
    /// driven.
    resistors: bool,
}

fn sim() -> Wired {
    Wired {
        hardware: Box::new(Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1)),
        bus: 1,
        chip: 0x76,
        nobody: 0x10,
        absent_bus: 5,
        absent_spi: SpiPlace { bus: 5, chip_select: 0 },
        line: LineId::Name("GPIO5".to_owned()),
        absent_line: LineId::Offset { chip: "gpiochip0".to_owned(), offset: 900 },
        pulses: Some(LineId::Name("GPIO23".to_owned())),
        reserved: Some(LineId::Offset { chip: "gpiochip0".to_owned(), offset: 0 }),
        resistors: true,
    }
}

/// The simulated machine, and the board that the environment tells of.
fn machines() -> Vec<Wired> {
    let board = std::env::var(BOARD).ok().map(|wiring| board(&wiring));
    [sim()].into_iter().chain(board).collect()
}

fn board(wiring: &str) -> Wired {
    let words: HashMap<&str, &str> =
        wiring.split_whitespace().map(|word| word.split_once('=').expect("key=value")).collect();
    let word = |key| *words.get(key).unwrap_or_else(|| panic!("{BOARD} does not tell `{key}`"));
    let number = |key| {
        let text = word(key);
        match text.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .unwrap_or_else(|_| panic!("`{key}` of {BOARD} is no number: {text}"))
    };
    Wired {
        hardware: match word("backend") {
            "linux" => Box::new(Linux::new()),
            #[cfg(feature = "rppal")]
            "rppal" => Box::new(super::rppal::Rppal::new()),
            other => panic!("this build has no back end `{other}`"),
        },
        bus: number("bus"),
        chip: number("chip"),
        nobody: number("nobody"),
        absent_bus: number("absent_bus"),
        absent_spi: SpiPlace { bus: number("absent_spi"), chip_select: 0 },
        line: LineId::Name(word("line").to_owned()),
        absent_line: LineId::Name(word("absent_line").to_owned()),
        pulses: words.get("pulses").map(|name| LineId::Name((*name).to_owned())),
        reserved: words.get("reserved").map(|name| LineId::Name((*name).to_owned())),
        resistors: word("resistors") == "true",
    }
}

fn input(line: &LineId, bias: Bias, active_low: bool) -> LineSettings {
    LineSettings { line: line.clone(), reserved: false, bias, active_low, debounce: Duration::ZERO, edges: Edges::Both }
}

#[test]
fn a_bus_answers_where_a_chip_is_and_says_where_none_is() {
    for Wired { hardware, bus: number, chip, nobody, absent_bus, .. } in machines() {
        let mut bus = hardware.i2c(number).expect("a bus");
        let mut byte = [0];
        bus.write_read(chip, &[0], &mut byte).expect("an acknowledge");
        let error = bus.write_read(nobody, &[0], &mut byte).expect_err("nobody there");
        assert!(error.is_no_acknowledge(), "{error:?}");
        assert!(error.message.contains(&format!("{nobody:#04x}")), "{error}");
        // The bus works on after an error, and a second handle is the same bus.
        hardware.i2c(number).expect("a bus").write_read(chip, &[0], &mut byte).expect("an acknowledge");

        // The operations of a transaction are one transfer however they are cut: a register's number, then its bytes.
        let mut whole = [0; 2];
        bus.write_read(chip, &[0], &mut whole).expect("an acknowledge");
        let (mut first, mut second) = ([0; 1], [0; 1]);
        let mut cut = [Operation::Write(&[0]), Operation::Read(&mut first), Operation::Read(&mut second)];
        bus.transaction(chip, &mut cut).expect("an acknowledge");
        assert_eq!([first[0], second[0]], whole);
        // A chip keeps the register that was last asked for.
        bus.write(chip, &[0]).expect("an acknowledge");
        bus.read(chip, &mut whole).expect("an acknowledge");
        assert_eq!([first[0], second[0]], whole);

        let fault = hardware.i2c(absent_bus).expect_err("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains(&format!("/dev/i2c-{absent_bus}")), "{fault}");
    }
}

#[test]
fn an_spi_device_that_is_not_there_is_named() {
    for Wired { hardware, absent_spi: place, .. } in machines() {
        let settings = SpiSettings { place, mode: embedded_hal::spi::MODE_0, max_hz: 1_000_000 };
        let fault = hardware.spi(&settings).err().expect("no such device");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains(&format!("/dev/spidev{}.{}", place.bus, place.chip_select)), "{fault}");
    }
}

#[tokio::test]
async fn a_line_has_one_holder_and_follows_its_resistor() {
    for Wired { hardware, line: free, absent_line, resistors, .. } in machines() {
        for (bias, active_low, expected) in [
            (Bias::PullUp, false, true),
            (Bias::PullUp, true, false),
            (Bias::PullDown, false, false),
            (Bias::PullDown, true, true),
        ] {
            // Each turn takes the line anew: dropping it has given it back.
            let mut line = hardware.input_line(&input(&free, bias, active_low)).expect("a free line");
            let level = line.level().expect("a level");
            assert!(!resistors || level == expected, "{bias:?} {active_low}");
            let output = OutputSettings { line: free.clone(), active_low, active: true };
            for second in
                [hardware.input_line(&input(&free, bias, active_low)).err(), hardware.output_line(&output).err()]
            {
                let second = second.expect("the line is taken");
                assert_eq!(second.code, FaultCode::Busy);
                assert!(second.detail.contains("vigie"), "{second}");
            }
        }
        let fault = hardware.input_line(&input(&absent_line, Bias::AsIs, false)).err().expect("no such line");
        assert_eq!(fault.code, FaultCode::Missing);
        let output = OutputSettings { line: absent_line, active_low: false, active: true };
        assert_eq!(hardware.output_line(&output).err().expect("no such line").code, FaultCode::Missing);
    }
}

#[tokio::test]
async fn the_edges_that_are_asked_for_come_in_order_with_their_numbers_and_times() {
    const WANTED: usize = 20;
    for Wired { hardware, pulses, .. } in machines() {
        let Some(pulses) = pulses else { continue };
        let clock = SystemClock::new(Trust::Kernel);
        for active_low in [false, true] {
            for edges in [Edges::Both, Edges::Rising, Edges::Falling] {
                let taken = clock.boot();
                let settings = LineSettings { edges, ..input(&pulses, Bias::AsIs, active_low) };
                let mut line = hardware.input_line(&settings).expect("a free line");
                let mut found = Vec::new();
                while found.len() < WANTED {
                    found.extend(tokio::time::timeout(DEADLINE, line.edges()).await.expect("edges").expect("a line"));
                }
                let now = clock.boot();
                assert!(found.is_sorted_by(|a, b| a.at < b.at && b.sequence == a.sequence + 1), "{found:?}");
                assert!(found.iter().all(|edge| (taken..=now).contains(&edge.at)), "{taken:?} {now:?} {found:?}");
                assert_eq!(found[0].sequence, 1);
                match edges {
                    Edges::Both => assert!(found.is_sorted_by(|a, b| a.active != b.active), "{found:?}"),
                    Edges::Rising => assert!(found.iter().all(|edge| edge.active), "{found:?}"),
                    Edges::Falling => assert!(found.iter().all(|edge| !edge.active), "{found:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_line_that_the_board_needs_is_taken_with_consent_only() {
    for Wired { hardware, reserved, .. } in machines() {
        let Some(reserved) = reserved else { continue };
        let settings = input(&reserved, Bias::AsIs, false);
        let fault = hardware.input_line(&settings).err().expect("not without consent");
        assert!(fault.detail.contains("allow_reserved"), "{fault}");
        hardware.input_line(&LineSettings { reserved: true, ..settings }).expect("with consent");
    }
}

#[tokio::test]
async fn an_output_line_has_one_holder_and_drives_its_level() {
    for Wired { hardware, line, resistors, .. } in machines() {
        for (active_low, first, then) in [
            (false, true, None),
            (false, false, None),
            (true, true, None),
            (true, false, None),
            (false, false, Some(true)),
            (true, false, Some(true)),
            (false, true, Some(false)),
        ] {
            let settings = OutputSettings { line: line.clone(), active_low, active: first };
            let mut output = hardware.output_line(&settings).expect("a free line");
            let second = hardware.output_line(&settings).err().expect("the line is taken");
            assert_eq!(second.code, FaultCode::Busy);
            assert!(second.detail.contains("vigie"), "{second}");
            if let Some(then) = then {
                output.set(then).expect("driven");
            }
            drop(output);
            let level = hardware
                .input_line(&input(&line, Bias::AsIs, active_low))
                .expect("the line was given back")
                .level()
                .expect("a level");
            assert!(resistors || level == then.unwrap_or(first), "{active_low} {first} {then:?}");
        }
    }
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
        let folder = tempfile::tempdir().expect("a folder");
        for baud in [9_600, 115_200, 250_000, 1_000_000] {
            let (mut device, port) = pty();
            let node = port.clone();
            let format = if baud == 9_600 { Format::ALL[7].1 } else { Format::DEFAULT };
            let settings = SerialSettings { format, reset: Reset::Avoid, ..SerialSettings::new(port, baud) };
            let mut port = hardware.serial(&settings).expect("opens");
            let found = rustix::termios::tcgetattr(&device).expect("the other end of the same tty");
            assert_eq!(found.output_speed(), baud);
            assert!(!found.control_modes.contains(rustix::termios::ControlModes::HUPCL), "DTR is to stay up");

            let link = folder.path().join(format!("link-{baud}"));
            std::os::unix::fs::symlink(&node, &link).expect("a link");
            let fault = hardware.serial(&SerialSettings::new(link, baud)).err().expect("the port is taken");
            assert_eq!(fault.code, FaultCode::Busy, "{fault}");
            let other = format!("open for another sensor of this gateway, whose `port` is \"{}\"", node.display());
            assert!(fault.detail.contains(&other), "{fault}");
            assert_eq!(port.node(), node);
            assert!(port.overruns().is_none(), "nobody counts on a pty");

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
        let settings = SerialSettings::new("/dev/serial/by-id/none", 9_600);
        let fault = hardware.serial(&settings).err().expect("no such port");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("ls /dev/serial/by-id"), "{fault}");
        let settings = SerialSettings::new("/dev/null", 9_600);
        let fault = hardware.serial(&settings).err().expect("no serial port");
        assert!(fault.code == FaultCode::Io && fault.detail.contains("/dev/null"), "{fault}");
    }
}

#[tokio::test]
async fn the_simulated_arduino_prints_lines_and_can_be_opened_again() {
    let hardware = sim().hardware;
    let settings = SerialSettings::new(ARDUINO_PORT, 115_200);
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
