//! What every driver is held to, by walking the registry; see the module's documentation.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use toml::de::{DeTable, DeValue};

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock, Trust};
use crate::hardware::sim::{ARDUINO_PORT, DHT22_PORT, FRAMES_PORT, GPS_PORT, METER_PORT, Sim};
use crate::options::Problems;
use crate::reading::{FaultCode, Value};
use crate::topic;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a driver makes of the first `[[sensor]]` of a file, the keys it asked for, and the problems it noted.
fn parse(driver: &Driver, text: &str) -> (Option<Parsed>, BTreeSet<&'static str>, Vec<String>) {
    let file = DeTable::parse(text).expect("TOML");
    let sensor = match file.get_ref().get("sensor").map(toml::Spanned::get_ref) {
        Some(DeValue::Array(sensors)) => sensors[0].get_ref().as_table().expect("[[sensor]] is a table"),
        _ => file.get_ref(),
    };
    let problems = Problems::new();
    let options = Options::new(sensor, 0..0, "the sensor", &problems);
    let parsed = (driver.parse)(&options);
    let asked = options.asked().into_iter().collect();
    drop(options);
    let messages = problems.into_sorted().into_iter().map(|problem| problem.message).collect();
    (parsed, asked, messages)
}

/// As above, for texts that are fine.
fn parse_fine(driver: &Driver, text: &str) -> Parsed {
    let (parsed, _, problems) = parse(driver, text);
    assert!(problems.is_empty(), "{}: {problems:?}", driver.name);
    parsed.expect("no problems, so it goes on")
}

fn sim() -> Sim {
    Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1)
}

/// A driver's sample, on the port where the simulated machine has such a device.
fn sample_on_sim(driver: &Driver) -> String {
    let port = match driver.name {
        "nmea" => GPS_PORT,
        "modbus-rtu" => METER_PORT,
        "serial-lines" => DHT22_PORT,
        "serial-frames" => FRAMES_PORT,
        _ => ARDUINO_PORT,
    };
    let line =
        |line: &str| if line.starts_with("port = ") { format!("port = \"{port}\"\n") } else { format!("{line}\n") };
    driver.sample.lines().map(line).collect()
}

/// The first samples of a sensor on simulated hardware.
async fn first_samples(parsed: &Parsed) -> Vec<Sample> {
    let hardware = sim();
    let mut out = Vec::new();
    match &parsed.source {
        Source::Poller(device) => {
            // A poller may block, and has no reactor around it.
            let (device, hardware) = (Arc::clone(device), Arc::new(hardware));
            let sample = move || device.open(&*hardware).expect("opens").sample();
            let outcome = std::thread::spawn(sample).join().expect("no panic");
            out.push((BootTime(0), outcome));
        }
        Source::Serial { settings, decoder } => {
            let mut port = hardware.serial(settings).expect("opens");
            let mut decoder = decoder();
            let mut buffer = [0; 256];
            while out.is_empty() {
                let read = tokio::time::timeout(DEADLINE, port.read(&mut buffer)).await.expect("the peer prints");
                decoder.feed(&buffer[..read.expect("an open port")], BootTime(0), &mut out);
            }
        }
        Source::Process(ProcessSource { settings, decoder }) => {
            let mut program = std::process::Command::new(&settings.command[0]);
            program.args(&settings.command[1..]).current_dir(&settings.directory);
            program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
            let mut program = program.spawn().expect("the program of a sample is on every machine");
            let (mut decoder, mut buffer) = (decoder(), [0; 256]);
            while out.is_empty() {
                let length = program.stdout.as_mut().expect("a pipe").read(&mut buffer).expect("a pipe");
                assert!(length > 0, "it ended");
                decoder.feed(&buffer[..length], BootTime(0), &mut out);
            }
            rustix::process::kill_process_group(Pid::from_child(&program), Signal::KILL).expect("our children");
            program.wait().expect("our child");
        }
        Source::Line(LineSource { settings, decoder, .. }) => {
            let mut line = hardware.input_line(settings).expect("opens");
            let mut decoder = decoder(None);
            decoder.level(line.level().expect("a level"), BootTime(0), &mut out);
            decoder.edge(Edge { at: BootTime(1), active: true, sequence: 1 }, &mut out);
            decoder.edge(Edge { at: BootTime(2), active: false, sequence: 2 }, &mut out);
            decoder.edge(Edge { at: BootTime(3), active: true, sequence: 3 }, &mut out);
            decoder.edge(Edge { at: BootTime(4), active: false, sequence: 7 }, &mut out);
            decoder.level(false, BootTime(5), &mut out);
        }
    }
    out.into_iter().flat_map(|(_, outcome)| outcome.expect("samples, not a fault")).collect()
}

#[test]
fn names_are_unique_sorted_and_plain() {
    let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    for name in names {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(name.bytes().all(plain), "{name}");
        assert_eq!(find(name).map(|driver| driver.name), Some(name));
    }
    assert!(find("no-such-driver").is_none());
}

#[test]
fn texts_are_there_and_options_do_not_collide_with_the_common_keys() {
    for driver in DRIVERS {
        assert!(!driver.summary.is_empty() && !driver.summary.ends_with('.'), "{}", driver.name);
        assert!(!driver.notes.is_empty(), "{}", driver.name);
        for option in driver.all_options() {
            assert!(!COMMON_KEYS.contains(&option.name), "{}: {}", driver.name, option.name);
            assert!(option.help.ends_with('.'), "{}: {}", driver.name, option.name);
        }
        for quantity in driver.quantities {
            assert_eq!(topic::check_name(quantity.name), Ok(()), "{}", driver.name);
            assert!(!topic::RESERVED.contains(&quantity.name), "{}: {}", driver.name, quantity.name);
            assert!(quantity.help.ends_with('.') || quantity.help.ends_with('?'), "{}: {}", driver.name, quantity.name);
        }
    }
}

#[test]
fn samples_hold_known_keys_only_and_options_are_those_that_are_asked_for() {
    for driver in DRIVERS {
        let documented: BTreeSet<&str> = driver.all_options().map(|option| option.name).collect();
        for text in [driver.sample, ""] {
            let (_, asked, _) = parse(driver, text);
            assert_eq!(asked, documented, "{} given {text:?}", driver.name);
        }
        parse_fine(driver, driver.sample);

        let file = DeTable::parse(driver.sample).expect("TOML");
        let sensors = file.get_ref().get("sensor").and_then(|value| value.get_ref().as_array());
        let sensor = sensors.expect("a [[sensor]]")[0].get_ref().as_table().expect("a table");
        assert_eq!(sensor.get("driver").and_then(|name| name.get_ref().as_str()), Some(driver.name));
        for key in sensor.keys() {
            let key = key.get_ref().as_ref();
            assert!(COMMON_KEYS.contains(&key) || documented.contains(key), "{}: {key}", driver.name);
        }
    }
}

#[test]
fn options_that_must_be_given_are_missed() {
    for driver in DRIVERS {
        let (parsed, _, problems) = parse(driver, "");
        let needs_some = driver.options.iter().any(|option| option.default.is_none());
        assert!(!needs_some || (!problems.is_empty() && parsed.is_none()), "{}", driver.name);
        // A wrong type never panics and is always told.
        for option in driver.all_options() {
            let (_, _, problems) = parse(driver, &format!("{} = [[]]", option.name));
            assert!(problems.iter().any(|problem| problem.contains(option.name)), "{}: {problems:?}", option.name);
        }
    }
}

#[tokio::test]
async fn samples_open_on_simulated_hardware_and_give_the_declared_quantities() {
    for driver in DRIVERS {
        let parsed = parse_fine(driver, &sample_on_sim(driver));
        let samples = first_samples(&parsed).await;
        assert!(!samples.is_empty(), "{}", driver.name);
        for sample in samples {
            assert_eq!(topic::check_name(&sample.quantity), Ok(()), "{}", driver.name);
            if driver.quantities.is_empty() {
                continue;
            }
            let declared = driver.quantities.iter().find(|quantity| quantity.name == sample.quantity);
            let kind = declared.unwrap_or_else(|| panic!("{} does not declare {sample:?}", driver.name)).kind;
            let fits = match sample.value {
                _ if sample.event => kind == Kind::Event,
                Value::Number(_) => kind == Kind::Number,
                Value::Switch(_) => kind == Kind::Switch,
                Value::Text(_) => kind == Kind::Text,
                Value::Bytes(_) => kind == Kind::Bytes,
            };
            assert!(fits, "{}: {sample:?} is declared as {kind:?}", driver.name);
        }
    }
}

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/drivers.md");
    let page = docs::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/drivers.md can be written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/drivers.md is there");
    assert!(found == page, "docs/drivers.md is not current: run `UPDATE_DOCS=1 cargo test --lib drivers`");
}

/// The file that the guide shows is the shipped one, so what it says compiles and is tested.
#[test]
fn the_guides_example_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/adding-a-driver.md");
    let found = std::fs::read_to_string(&path).expect("docs/adding-a-driver.md is there");
    let (before, rest) = found.split_once("```rust\n").expect("a block of Rust");
    let (example, after) = rest.split_once("```\n").expect("its end");
    let source = include_str!("sht4x.rs");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let page = [before, "```rust\n", source, "```\n", after].concat();
        std::fs::write(&path, page).expect("docs/adding-a-driver.md can be written");
        return;
    }
    assert!(example == source, "docs/adding-a-driver.md is not current: run `UPDATE_DOCS=1 cargo test --lib drivers`");
}

/// A driver whose `mod` line is missing is not compiled, so the compiler does not miss it.
#[test]
fn every_file_is_a_driver_in_the_registry() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/drivers");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the drivers' folder")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8"))
        .filter_map(|name| name.strip_suffix(".rs").map(|stem| stem.replace('_', "-")))
        .filter(|stem| !["chip-tests", "docs", "fault-tests", "message", "support", "tests"].contains(&stem.as_str()))
        .collect();
    files.sort();
    let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
    assert_eq!(files, names, "each file of src/drivers needs its `mod` line and its line in `DRIVERS`");
}

#[test]
fn two_ways_to_name_a_line_claim_the_same() {
    let driver = find("gpio-input").expect("a driver");
    let claims = |text: &str| parse_fine(driver, text).claims;
    let expected = [Claim::Line(LineId::Name("GPIO17".to_owned()))];
    for text in ["pin = 17", "pin = \"GPIO17\"", "pin = \"header 11\""] {
        assert_eq!(claims(text), expected, "{text}");
    }
    assert_eq!(claims("pin = \"P9_12\""), [Claim::Line(LineId::Name("P9_12".to_owned()))]);
    let offset = LineId::Offset { chip: "gpiochip0".to_owned(), offset: 17 };
    assert_eq!(claims("line = \"gpiochip0:17\""), [Claim::Line(offset)]);
}

#[test]
fn wrong_options_are_told() {
    for (name, text, part) in [
        ("bme280", "address = 0x75", "0x75"),
        ("bme280", "bus = 300", "`bus`"),
        ("gpio-input", "", "neither `pin` nor `line`"),
        ("gpio-input", "pin = 17\nline = \"gpiochip0:17\"", "only one of them"),
        ("gpio-input", "pin = \"\"", "empty"),
        ("gpio-input", "pin = -1", "`pin`"),
        ("gpio-input", "line = \"17\"", "\"17\" is not a chip and an offset"),
        ("gpio-input", "line = \"gpiochip/../x:1\"", "is not a chip and an offset"),
        ("gpio-input", "pin = 17\nbias = \"up\"", "`bias`"),
        ("gpio-input", "pin = 17\ndebounce = \"2m\"", "`debounce` is too long"),
        ("gpio-input", "pin = 17\nreport = \"both\"", "`report`"),
        ("serial-json", "baud = 9600", "`port`"),
        ("serial-json", "port = \"\"", "empty"),
        ("serial-json", "port = \"/dev/ttyUSB0\"\nbaud = 0", "`baud`"),
        ("serial-frames", "port = \"/dev/ttyUSB0\"\nfields = [\"a\", \"a\"]", "\"a\" is there twice"),
        ("serial-frames", "port = \"/dev/ttyUSB0\"\nfields = [\"a/b\"]", "contains a `/`"),
        ("serial-frames", "port = \"/dev/ttyUSB0\"\nfields = [\"lost\"]", "vigie's own"),
        ("serial-frames", "port = \"/dev/ttyUSB0\"\nacknowledge = \"1h\"", "`acknowledge`"),
        ("host", "interface = 3", "`interface`"),
    ] {
        let driver = find(name).expect("a driver");
        let (_, _, problems) = parse(driver, text);
        assert!(problems.len() == 1 && problems[0].contains(part), "{name} given {text:?}: {problems:?}");
    }
}

#[test]
fn a_missing_chip_and_a_missing_bus_are_faults_that_open_can_be_tried_after() {
    let hardware = sim();
    let driver = find("bme280").expect("a driver");
    let Source::Poller(device) = parse_fine(driver, "bus = 3").source else { panic!("a poller") };
    for _ in 0..2 {
        let fault = device.open(&hardware).err().expect("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("i2c-3"), "{fault}");
    }
}

#[test]
fn a_clock_that_stands_still_makes_a_chip_busy_not_wrong() {
    let hardware = Sim::new(Arc::new(ManualClock::new()) as Arc<dyn Clock>, 1);
    let Source::Poller(device) = parse_fine(find("bme280").expect("a driver"), "").source else { panic!("a poller") };
    let fault = device.open(&hardware).err().expect("the chip never ends its start");
    assert!(fault.detail.contains("it never ends its start"), "{fault}");
}
