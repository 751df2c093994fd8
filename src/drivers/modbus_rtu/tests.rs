//! Frames, values, requests, and the driver on a simulated meter and on units that misbehave.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use proptest::prelude::*;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use toml::de::DeTable;

use super::frame::{Action, Request, Table, crc};
use super::*;
use crate::clock::{SystemClock, Trust};
use crate::command::Command;
use crate::hardware::sim::{METER_PORT, Sim};
use crate::options::Problems;
use crate::reading::{FaultCode, Sample, Value};

fn parsed(text: &str) -> Result<Arc<dyn Open>, Vec<String>> {
    let table = DeTable::parse(text).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let parsed = parse(&options);
    drop(options);
    let messages: Vec<String> = problems.into_sorted().into_iter().map(|problem| problem.message).collect();
    match (parsed, messages.is_empty()) {
        (Some(Parsed { source: Source::Poller(unit), .. }), true) => Ok(unit),
        (_, _) => Err(messages),
    }
}

fn plan(values: &str, gap: u16) -> Plan {
    let text = format!("address = 1\ngap = {gap}\nvalue = [{values}]");
    let table = DeTable::parse(&text).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let plan = Plan::parse(&options);
    drop(options);
    let problems = problems.into_sorted();
    assert!(problems.is_empty(), "{problems:?}");
    plan.expect("no problems")
}

fn told(samples: &[Sample]) -> Vec<String> {
    let value = |sample: &Sample| match &sample.value {
        Value::Number(number) => number.to_string(),
        Value::Switch(on) => on.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Bytes(_) => panic!("there are no bytes"),
    };
    samples.iter().map(value).collect()
}

/// The only value in these registers.
fn number(keys: &str, data: &[u8]) -> Result<String, FaultCode> {
    let plan = plan(&format!("{{ quantity = \"x\", holding = 7, {keys} }}"), 0);
    plan.samples(&[data.to_vec()]).map(|samples| told(&samples).concat()).map_err(|fault| fault.code)
}

fn reads(address: u8, table: Table, first: u16, count: u16) -> Request {
    Request { address, table, first, count, action: Action::Read }
}

/// What is in the frame before its checksum.
fn body(request: &Request) -> Vec<u8> {
    let frame = request.frame();
    assert_eq!(crc(&frame), 0, "a frame with its checksum leaves none");
    frame[..frame.len() - 2].to_vec()
}

#[test]
fn frames_are_those_of_the_specification() {
    // The check value of CRC-16/MODBUS.
    assert_eq!(crc(b"123456789"), 0x4b37);
    // Modbus Application Protocol V1.1b3, 6.3: registers 108 to 110 of a holding table.
    let request = reads(17, Table::Holding, 0x6b, 3);
    assert_eq!(body(&request), [17, 3, 0, 0x6b, 0, 3]);
    let answer = with_crc(&[17, 3, 6, 2, 0x2b, 0, 0, 0, 0x64]);
    assert_eq!(request.answer(&answer), Some(Ok(&[2, 0x2b, 0, 0, 0, 0x64][..])));
    assert_eq!(request.answer(&answer[..10]), None);
    // 6.1: coils 20 to 38.
    let request = reads(1, Table::Coil, 0x13, 19);
    assert_eq!(request.answer(&with_crc(&[1, 1, 3, 0xcd, 0x6b, 5])), Some(Ok(&[0xcd, 0x6b, 5][..])));
    // 6.5, 6.6, 6.11, 6.12: writes.
    for (table, first, count, action, asked, answered) in [
        (Table::Coil, 0xac, 1, Action::WriteOne([0xff, 0]), &[5, 0, 0xac, 0xff, 0][..], &[5, 0, 0xac, 0xff, 0][..]),
        (Table::Holding, 1, 1, Action::WriteOne([0, 3]), &[6, 0, 1, 0, 3], &[6, 0, 1, 0, 3]),
        (Table::Coil, 0x13, 10, Action::Write(vec![0xcd, 1]), &[15, 0, 0x13, 0, 10, 2, 0xcd, 1], &[15, 0, 0x13, 0, 10]),
        (Table::Holding, 1, 2, Action::Write(vec![0, 10, 1, 2]), &[16, 0, 1, 0, 2, 4, 0, 10, 1, 2], &[16, 0, 1, 0, 2]),
    ] {
        let request = Request { address: 17, table, first, count, action };
        assert_eq!(body(&request)[1..], *asked);
        let answer = with_crc(&[&[17], answered].concat());
        assert!(matches!(request.answer(&answer), Some(Ok(_))), "{request:?}");
        let mut other = answer[..6].to_vec();
        other[3] ^= 1;
        assert_eq!(request.answer(&with_crc(&other)), None, "another entry was written");
    }
}

fn with_crc(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

#[test]
fn what_is_no_answer_is_told_from_one() {
    let request = reads(2, Table::Input, 0, 1);
    assert_eq!(request.answer(&with_crc(&[2, 0x84, 2])), Some(Err(2)));
    for (body, part) in [
        (&[3, 4, 2, 0, 1][..], "unit 3 answers in its place"),
        (&[3, 0x84, 2], "unit 3 answers in its place"),
        (&[2, 3, 2, 0, 1], "none to this request: 02 03 02 00 01"),
        (&[2, 4, 4, 0, 1, 0, 2], "none to this request"),
        (&[2, 0x83, 2], "none to this request"),
    ] {
        let frame = with_crc(body);
        assert_eq!(request.answer(&frame), None);
        assert!(!request.is_spoilt(&frame), "its own answer may still come");
        let refused = request.refused(&frame);
        assert!(refused.code == FaultCode::BadData && refused.what.contains(part), "{refused:?}");
        let behind = [frame, with_crc(&[2, 4, 2, 1, 2])].concat();
        assert_eq!(request.answer(&behind), Some(Ok(&[1, 2][..])));
    }
    let damaged = [2, 4, 2, 0, 1, 0, 0];
    assert!(request.is_spoilt(&damaged) && request.answer(&damaged).is_none());
    for (came, part) in [(&damaged[..], "damaged"), (&damaged[..6], "only 6 of the 7 bytes"), (&[9], "only 1 of the 7")]
    {
        let refused = request.refused(came);
        assert!(refused.code == FaultCode::Crc && refused.what.contains(part), "{refused:?}");
    }
}

#[test]
fn a_stray_byte_before_an_answer_does_no_harm() {
    let request = reads(2, Table::Input, 0, 1);
    for stray in [&[0][..], &[0xff, 0xff], &[2], &[2, 4], &[2, 4, 2], b"boot\r\n"] {
        let came = [stray, &with_crc(&[2, 4, 2, 1, 2])].concat();
        for end in 0..came.len() {
            assert_eq!(request.answer(&came[..end]), None);
        }
        assert_eq!(request.answer(&came), Some(Ok(&[1, 2][..])));
    }
}

#[test]
fn registers_are_numbers_in_each_order() {
    assert_eq!(number("", &[0xff, 0xfe]).as_deref(), Ok("65534"));
    assert_eq!(number("type = \"i16\", scale = 0.1", &[0xff, 0xfe]).as_deref(), Ok("-0.2"));
    // 230.2 V as an SDM120 gives it.
    let volts = 230.2_f32.to_be_bytes();
    let [a, b, c, d] = volts;
    assert_eq!(number("type = \"f32\", range = [230.19, 230.21]", &volts).map(|text| text.len() > 4), Ok(true));
    for (keys, data) in [
        ("", [a, b, c, d]),
        (", word_order = \"little\"", [c, d, a, b]),
        (", byte_order = \"little\"", [b, a, d, c]),
        (", word_order = \"little\", byte_order = \"little\"", [d, c, b, a]),
    ] {
        let number = number(&format!("type = \"f32\", scale = 10, range = [2301.9, 2302.1]{keys}"), &data);
        assert!(number.is_ok(), "{keys}: {number:?}");
    }
    assert_eq!(number("type = \"u32\"", &[0, 1, 0, 2]).as_deref(), Ok("65538"));
    assert_eq!(number("type = \"i32\", word_order = \"little\"", &[0xff, 0xfe, 0xff, 0xff]).as_deref(), Ok("-2"));
    assert_eq!(number("type = \"u64\"", &[0, 0, 0, 1, 0, 0, 0, 0]).as_deref(), Ok("4294967296"));
    assert_eq!(number("type = \"i64\"", &[0xff; 8]).as_deref(), Ok("-1"));
    assert_eq!(number("type = \"f64\"", &(-0.5_f64).to_be_bytes()).as_deref(), Ok("-0.5"));
    assert_eq!(number("bit = 9", &[2, 0]).as_deref(), Ok("true"));
    assert_eq!(number("bit = 8", &[2, 0]).as_deref(), Ok("false"));
    assert_eq!(number("type = \"text\", length = 3", b"SDM1  ").as_deref(), Ok("SDM1"));
    assert_eq!(number("type = \"text\", length = 3", b"SDM1\0\xff").as_deref(), Ok("SDM1"));
    assert_eq!(number("type = \"text\", length = 1", &[0xff, 0xfe]), Err(FaultCode::BadData));
    assert_eq!(number("type = \"f32\"", &f32::NAN.to_be_bytes()), Err(FaultCode::Impossible));
    assert_eq!(number("range = [0, 10]", &[0, 11]), Err(FaultCode::Impossible));
}

#[test]
fn coils_are_switches() {
    let plan =
        plan("{ quantity = \"a\", coil = 19 }, { quantity = \"b\", coil = 20 }, { quantity = \"c\", coil = 28 }", 8);
    let spans: Vec<(u16, u16)> = plan.requests().iter().map(|request| (request.first, request.count)).collect();
    assert_eq!(spans, [(19, 10)]);
    let samples = plan.samples(&[vec![0b10, 0b10]]).expect("samples");
    assert_eq!(told(&samples), ["false", "true", "true"]);
}

#[test]
fn what_lies_together_is_read_in_one_request() {
    let values = "{ quantity = \"a\", holding = 10, type = \"f32\" }, { quantity = \"b\", holding = 12 },
        { quantity = \"c\", input = 12 }, { quantity = \"d\", holding = 16 }, { quantity = \"e\", holding = 0 }";
    let spans = |gap| {
        let requests = plan(values, gap).requests().to_vec();
        requests.into_iter().map(|request| (request.table, request.first, request.count)).collect::<Vec<_>>()
    };
    use Table::{Holding, Input};
    assert_eq!(spans(0), [(Holding, 0, 1), (Holding, 10, 3), (Holding, 16, 1), (Input, 12, 1)]);
    assert_eq!(spans(3), [(Holding, 0, 1), (Holding, 10, 7), (Input, 12, 1)]);
    assert_eq!(spans(124), [(Holding, 0, 17), (Input, 12, 1)]);
    let far = plan("{ quantity = \"a\", holding = 0 }, { quantity = \"b\", holding = 124, type = \"u32\" }", 124);
    assert_eq!(far.requests().len(), 2, "126 registers are too many");
}

#[test]
fn mistakes_are_told() {
    let text = |value: &str| format!("port = \"/dev/ttyUSB0\"\naddress = 1\n[[value]]\nquantity = \"x\"\n{value}");
    for (text, part) in [
        (text(""), "does not say where it is"),
        (text("holding = 1\ninput = 2"), "is in two places"),
        (text("holding = 65536"), "`holding`"),
        (text("holding = 65535\ntype = \"u32\""), "ends behind entry 65535"),
        (text("holding = 1\ntype = \"u8\""), "`type`"),
        (text("coil = 1\ntype = \"u16\""), "a coil or discrete input is a switch"),
        (text("discrete = 1\nbit = 1"), "a coil or discrete input is a switch"),
        (text("holding = 1\nbit = 16"), "`bit`"),
        (text("holding = 1\nbit = 1\ntype = \"i16\""), "has no type then"),
        (text("holding = 1\ntype = \"text\""), "lacks the key `length`"),
        (text("holding = 1\nlength = 2"), "is for texts"),
        (text("holding = 1\nword_order = \"middle\""), "`word_order`"),
        (text("holding = 1").replace("address = 1", "address = 248"), "no unit can have the address 248"),
        (text("holding = 1").replace("address = 1", "address = 0"), "no unit can have the address 0"),
        (text("holding = 1").replace("address = 1", "address = 1\ntimeout = \"1ms\""), "`timeout`"),
        ("port = \"/dev/ttyUSB0\"\naddress = 1".to_owned(), "lacks the key `value`"),
        (text("input = 1\nwrite = true"), "only `holding` and `coil` can be written"),
        (text("discrete = 1\nwrite = true"), "only `holding` and `coil` can be written"),
        (text("holding = 1\nbit = 3\nwrite = true"), "a bit cannot be written"),
        (text("holding = 1\nscale = 0\nwrite = true"), "`scale = 0`"),
        (text("holding = 1\nmultiple = true"), "says how it is written, and it is not"),
        (text("holding = 1\nwrite = 3"), "`write`"),
    ] {
        let problems = parsed(&text).err().unwrap_or_default();
        assert!(problems.iter().any(|problem| problem.contains(part)), "{text}: {problems:?}");
    }
}

/// A unit at the other end of a pty that answers each request as it is told; the sensor that asks it.
fn against(answers: Vec<Vec<Vec<u8>>>, keys: &str) -> (Box<dyn Poller>, thread::JoinHandle<Vec<Vec<u8>>>) {
    against_value(answers, keys, "holding = 5")
}

fn against_value(
    answers: Vec<Vec<Vec<u8>>>,
    keys: &str,
    value: &str,
) -> (Box<dyn Poller>, thread::JoinHandle<Vec<Vec<u8>>>) {
    let peer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
    grantpt(&peer).and_then(|()| unlockpt(&peer)).expect("a pty");
    let port = ptsname(&peer, Vec::new()).expect("a name").into_string().expect("ASCII");
    let text = format!("port = \"{port}\"\naddress = 1\n{keys}\n[[value]]\nquantity = \"x\"\n{value}");
    let unit = parsed(&text).expect("a sensor");
    let poller = unit.open(&Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1)).expect("opens");
    let mut peer = File::from(peer);
    let played = thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = vec![0; 8];
            if peer.read_exact(&mut request).is_err() {
                // Nobody asks any more.
                break;
            }
            requests.push(request);
            for piece in answer {
                peer.write_all(&piece).expect("it listens");
            }
        }
        // The pty stays open until everything has been read.
        let _ = peer.read(&mut [0]);
        requests
    });
    (poller, played)
}

/// A unit that answers the first request not at all, and all others with these bytes; the sensor that asks it.
fn silent_at_first(then: Vec<u8>) -> (Box<dyn Poller>, thread::JoinHandle<Vec<Vec<u8>>>) {
    let mut answers = vec![vec![then]; ATTEMPTS];
    answers[0] = Vec::new();
    against(answers, "timeout = \"50ms\"\nretries = 0")
}

/// As often a unit is asked that has little time for an answer on a busy machine.
const ATTEMPTS: usize = 100;

/// The first value that comes in time.
fn first_value(unit: &mut dyn Poller) -> String {
    (0..ATTEMPTS).find_map(|_| value_of(unit.sample()).ok()).expect("a value in time")
}

fn value_of(samples: Result<Vec<Sample>, Fault>) -> Result<String, (FaultCode, String)> {
    samples.map(|samples| told(&samples).concat()).map_err(|fault| (fault.code, fault.detail))
}

#[test]
fn an_answer_in_pieces_an_echo_and_a_second_attempt() {
    let good = with_crc(&[1, 3, 2, 0, 42]);
    let echo = reads(1, Table::Holding, 5, 1).frame();
    let mut damaged = good.clone();
    damaged[4] ^= 1;
    let pieces = good.iter().map(|byte| vec![*byte]).collect();
    let (mut unit, _peer) =
        against(vec![pieces, vec![[echo, good.clone()].concat()], vec![damaged], vec![good]], "timeout = \"10s\"");
    for _ in 0..2 {
        assert_eq!(value_of(unit.sample()), Ok("42".to_owned()));
    }
    let samples = unit.sample().expect("the second attempt is good");
    let names: Vec<&str> = samples.iter().map(|sample| &*sample.quantity).collect();
    assert_eq!((names, told(&samples)), (vec!["x", "garbled"], vec!["42".to_owned(), "1".to_owned()]));
}

#[test]
fn answers_that_cannot_be_read_are_counted_and_told_with_a_good_one() {
    let good = with_crc(&[1, 3, 2, 0, 42]);
    let mut damaged = good.clone();
    damaged[4] ^= 1;
    let others = with_crc(&[9, 3, 2, 0, 1]);
    let refused = with_crc(&[1, 0x83, 2]);
    let answers = [damaged, others.repeat(200), refused, good.clone(), good].map(|answer| vec![answer]);
    let (mut unit, _peer) = against(answers.into(), "timeout = \"10s\"\nretries = 0");
    let codes: Vec<FaultCode> = (0..3).map(|_| value_of(unit.sample()).expect_err("no answer").0).collect();
    assert_eq!(codes, [FaultCode::Crc, FaultCode::BadData, FaultCode::Reported]);
    let mut next = || told(&unit.sample().expect("a good answer"));
    assert_eq!([next(), next()], [vec!["42".to_owned(), "2".to_owned()], vec!["42".to_owned()]]);
}

#[test]
fn a_unit_that_is_silent_or_refuses_is_told() {
    for (answer, code, part) in [
        (Vec::new(), FaultCode::Missing, "unit 1, holding register 5 (function 3): no answer within 50ms"),
        (with_crc(&[1, 0x83, 2]), FaultCode::Reported, "exception 2, illegal data address"),
        (with_crc(&[1, 3, 2, 0, 1])[..3].to_vec(), FaultCode::Crc, "only 3 of the 7 bytes of its answer came"),
        (with_crc(&[9, 3, 2, 0, 1]), FaultCode::BadData, "unit 9 answers in its place"),
    ] {
        let (mut unit, _peer) = against(vec![vec![answer]; ATTEMPTS], "timeout = \"50ms\"\nretries = 0");
        let mut faults = (0..ATTEMPTS).map(|_| value_of(unit.sample()).expect_err(part));
        let (_, detail) = faults.find(|(found, _)| *found == code).expect("an answer in time");
        assert!(detail.contains(part), "{detail}");
    }
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_one() {
    let (mut unit, _peer) = silent_at_first(with_crc(&[1, 3, 2, 0, 2]));
    assert!(unit.sample().is_err());
    assert_eq!(first_value(&mut *unit), "2");
    // What nobody asked for lies in the port's buffer when the next request is made.
    let old = with_crc(&[1, 3, 2, 0, 1]);
    let (mut unit, _peer) =
        against(vec![vec![with_crc(&[1, 3, 2, 0, 7]), old], vec![with_crc(&[1, 3, 2, 0, 8])]], "timeout = \"10s\"");
    assert_eq!(value_of(unit.sample()), Ok("7".to_owned()));
    assert_eq!(value_of(unit.sample()), Ok("8".to_owned()));
}

#[test]
fn a_pulled_port_is_unplugged_and_can_be_opened_again() {
    let (mut unit, peer) = against(Vec::new(), "timeout = \"10s\"");
    // The peer reads one byte of the request, and is gone.
    let (code, detail) = value_of(unit.sample()).expect_err("gone");
    assert_eq!(code, FaultCode::Unplugged, "{detail}");
    peer.join().expect("no panic");
    let (code, _) = value_of(unit.sample()).expect_err("still gone");
    assert_eq!(code, FaultCode::Unplugged);
}

#[test]
fn a_port_stays_open_while_it_works() {
    let (mut unit, peer) = silent_at_first(with_crc(&[1, 3, 2, 0, 7]));
    assert!(unit.sample().is_err() && unit.stays_open(), "the unit was silent, the port is well");
    assert_eq!(first_value(&mut *unit), "7");
    drop(unit);
    peer.join().expect("no panic");
    let (mut unit, peer) = against(Vec::new(), "timeout = \"10s\"");
    assert!(unit.sample().is_err() && !unit.stays_open(), "unplugged");
    peer.join().expect("no panic");
}

#[test]
fn two_sensors_share_a_bus() {
    let hardware = Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1);
    let text = |value: &str| format!("port = \"{METER_PORT}\"\naddress = 1\n[[value]]\nquantity = \"x\"\n{value}");
    let volts = parsed(&text("input = 0\ntype = \"f32\"\nrange = [200, 260]")).expect("a sensor");
    let hertz = parsed(&text("input = 70\ntype = \"f32\"")).expect("a sensor");
    let mut pollers: Vec<_> = [volts, hertz].map(|unit| unit.open(&hardware).expect("opens")).into();
    for poller in &mut pollers {
        let sample = value_of(poller.sample()).expect("a value");
        assert!(sample == "50" || sample.starts_with("22") || sample.starts_with("23"), "{sample}");
    }
    let beyond = parsed(&text("input = 79\ntype = \"f32\"")).expect("a sensor");
    let (_, detail) = value_of(beyond.open(&hardware).expect("opens").sample()).expect_err("not there");
    assert!(detail.contains("input registers 79 to 80 (function 4): it refuses with exception 2"), "{detail}");
}

/// The only value in these registers, and the data that a command makes of a value for it.
fn encoded(keys: &str, json: &str) -> Result<Vec<u8>, String> {
    let plan = plan(&format!("{{ quantity = \"x\", write = true, {keys} }}"), 0);
    let writes = super::write::parse(&plan, format!("{{\"x\":{json}}}").as_bytes())?;
    Ok(writes.into_iter().next().expect("one value").1)
}

#[test]
fn what_is_written_is_what_would_be_read() {
    for (keys, json, data) in [
        ("holding = 1", "65535", &[0xff, 0xff][..]),
        ("holding = 1, scale = 0.1", "21.5", &[0, 215]),
        ("holding = 1, scale = 0.1, offset = -40", "-18.25", &[0, 218]),
        ("holding = 1, type = \"i16\"", "-2", &[0xff, 0xfe]),
        ("holding = 1, type = \"u32\"", "65538", &[0, 1, 0, 2]),
        ("holding = 1, type = \"i32\", word_order = \"little\"", "-2", &[0xff, 0xfe, 0xff, 0xff]),
        ("holding = 1, type = \"f32\", byte_order = \"little\"", "-2.25", &[0x10, 0xc0, 0, 0]),
        ("holding = 1, type = \"u64\"", "4294967296", &[0, 0, 0, 1, 0, 0, 0, 0]),
        ("holding = 1, type = \"i64\"", "-1", &[0xff; 8]),
        ("holding = 1, type = \"text\", length = 2", "\"on\"", b"on\0\0"),
        ("coil = 1", "true", &[1]),
        ("coil = 1", "false", &[0]),
    ] {
        assert_eq!(encoded(keys, json).as_deref(), Ok(data), "{keys}, {json}");
    }
    for (keys, json, part) in [
        ("holding = 1", "65536", "does not fit into its u16"),
        ("holding = 1", "-1", "does not fit into its u16"),
        ("holding = 1, type = \"i16\"", "32768", "does not fit into its i16"),
        ("holding = 1, type = \"u64\"", "1e300", "does not fit into its u64"),
        ("holding = 1, type = \"f32\"", "1e39", "does not fit into its f32"),
        ("holding = 1, type = \"f64\", scale = 1e-300", "1e300", "is no number that can be written"),
        ("holding = 1, range = [5, 30]", "31", "`x` = 31 is outside of its `range` (5 to 30)"),
        ("holding = 1", "true", "`x` is a number"),
        ("holding = 1, type = \"text\", length = 1", "\"abc\"", "room for 2 bytes"),
        ("holding = 1, type = \"text\", length = 1", "7", "`x` is a text"),
        ("coil = 1", "1", "`x` is a switch"),
    ] {
        let why = encoded(keys, json).expect_err(keys);
        assert!(why.contains(part), "{keys}, {json}: {why}");
    }
}

#[test]
fn a_command_says_what_can_be_written() {
    let values = "{ quantity = \"a\", holding = 1, write = true }, { quantity = \"b\", holding = 2 },
        { quantity = \"c\", coil = 3, write = true }";
    let plan = plan(values, 0);
    let names = |payload: &str| {
        let writes = super::write::parse(&plan, payload.as_bytes())?;
        Ok::<_, String>(writes.into_iter().map(|(value, _)| value.name().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(names("{\"c\":true,\"a\":1}"), Ok(vec!["a".to_owned(), "c".to_owned()]));
    for (payload, part) in [
        ("on", "must be one JSON object, such as {\"a\":1}"),
        ("{}", "there is nothing to write"),
        ("{\"a\":1,\"b\":2}", "no value `b` can be written; those with `write = true` are: a, c"),
    ] {
        let why = names(payload).expect_err(payload);
        assert!(why.contains(part), "{payload}: {why}");
    }
}

#[test]
fn a_damaged_write_is_not_sent_again_and_what_is_held_is_read() {
    let written = with_crc(&[1, 6, 0, 5, 0, 7]);
    let mut damaged = written.clone();
    damaged[6] ^= 1;
    let reading = |value: u8| vec![with_crc(&[1, 3, 2, 0, value])];
    let keys = "timeout = \"10s\"\nretries = 1";
    let command = |unit: &mut Box<dyn Poller>| {
        let carried = unit.command(&Command { id: 1, payload: (*b"{\"x\":7}").into() });
        (told(&carried.samples), carried.outcome)
    };
    let against = |answers| {
        let (mut unit, peer) = against_value(answers, keys, "holding = 5\nwrite = true");
        let carried = command(&mut unit);
        drop(unit);
        (carried, peer.join().expect("no panic"))
    };
    // A read first, which tells whether the adapter echoes; the write; what is held then.
    let (carried, requests) = against(vec![reading(3), vec![written.clone()], reading(7)]);
    assert_eq!(carried, (vec!["7".to_owned()], Ok(())));
    assert_eq!(requests.iter().map(|request| request[1]).collect::<Vec<_>>(), [3, 6, 3]);
    let (carried, _) = against(vec![reading(3), vec![damaged.clone()], reading(7)]);
    assert_eq!(carried, (vec!["7".to_owned()], Ok(())), "it holds what it should");
    let ((samples, outcome), requests) = against(vec![reading(3), vec![damaged], reading(3)]);
    let why = outcome.expect_err("not written");
    assert!(samples == ["3"] && why.contains("damaged") && why.ends_with("; 3 is read back"), "{why}");
    assert_eq!(requests.iter().filter(|request| request[1] == 6).count(), 1);
    let ((_, outcome), _) = against(vec![reading(3), vec![with_crc(&[1, 0x86, 4])]]);
    let why = outcome.expect_err("refused");
    assert!(
        why.contains("holding register 5 (function 6): it refuses with exception 4, server device failure"),
        "{why}"
    );
    // With an adapter that echoes, the echo alone is no answer.
    let read = reads(1, Table::Holding, 5, 1).frame();
    let echoed = |value: u8| vec![[read.clone(), reading(value).concat()].concat()];
    let (carried, _) = against(vec![echoed(3), vec![[written.clone(), written.clone()].concat()], echoed(7)]);
    assert_eq!(carried, (vec!["7".to_owned()], Ok(())));
}

proptest! {
    #[test]
    fn any_payload_is_a_command_or_told(payload in prop::collection::vec(any::<u8>(), 0..60), json in "\\{\"x\":[-0-9a-z.\"\\[]{1,20}\\}") {
        let plan = plan("{ quantity = \"x\", holding = 1, write = true }", 0);
        let _ = super::write::parse(&plan, &payload);
        if let Ok(writes) = super::write::parse(&plan, json.as_bytes()) {
            prop_assert!(writes.iter().all(|(_, data)| data.len() == 2));
        }
    }

    #[test]
    fn any_number_is_read_as_it_was_written(
        number in any::<f64>().prop_filter("finite", |number| number.is_finite()),
        kind in prop::sample::select(vec!["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]),
        words: bool,
        bytes: bool,
        scale in prop::sample::select(vec![1.0_f64, 0.1, -2.5]),
    ) {
        let order = |little| if little { "little" } else { "big" };
        let keys = format!(
            "type = \"{kind}\", word_order = \"{}\", byte_order = \"{}\", scale = {scale:?}", order(words), order(bytes)
        );
        let json = serde_json::to_string(&number).expect("a number");
        if let Ok(data) = encoded(&format!("holding = 7, {keys}"), &json) {
            let read: f64 = super::tests::number(&keys, &data).expect("a number").parse().expect("a number");
            let nearest = match kind {
                "f32" => number.abs() * 1e-6 + f64::from(f32::MIN_POSITIVE) * 4.0,
                "f64" => number.abs() * 1e-12,
                _ => scale.abs() / 2.0 + number.abs() * 1e-12,
            };
            prop_assert!((read - number).abs() <= nearest, "{} is read as {}", number, read);
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_told(
        mut came in prop::collection::vec(any::<u8>(), 0..300),
        body in prop::collection::vec(any::<u8>(), 0..40),
        count in 1_u16..20,
        right: bool,
        valid: bool,
    ) {
        let request = reads(1, Table::Holding, 0, count);
        let mut body = body;
        if valid && body.len() >= 3 {
            body[..2].copy_from_slice(&[1, 3]);
        }
        came.extend(if right { with_crc(&body) } else { body });
        match request.answer(&came) {
            Some(Ok(data)) => prop_assert_eq!(data.len(), 2 * usize::from(count)),
            Some(Err(_)) => {}
            None => {
                let _ = request.is_spoilt(&came);
                prop_assert!(!request.refused(&came).what.is_empty());
            }
        }
    }

    #[test]
    fn every_value_is_in_a_request(
        places in prop::collection::vec((0_u16..400, 0_usize..9), 1..40),
        gap in 0_u16..=124,
        data in prop::collection::vec(any::<u8>(), 250),
    ) {
        let types = ["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "text\", length = 5, byte_order = \"big"];
        let values: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(number, (first, kind))| {
                format!("{{ quantity = \"q{number}\", holding = {first}, type = \"{}\" }}", types[*kind])
            })
            .collect();
        let plan = plan(&values.join(","), gap);
        prop_assert!(plan.requests().iter().all(|request| (1..=125).contains(&request.count)));
        let data = vec![data; plan.requests().len()];
        if let Ok(samples) = plan.samples(&data) {
            prop_assert_eq!(samples.len(), places.len());
        }
    }
}
