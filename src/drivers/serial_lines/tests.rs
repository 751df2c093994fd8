//! The decoder, line by line and byte by byte.

use proptest::prelude::*;

use super::*;
use crate::drivers::Source;
use crate::drivers::support::testing::parse;
use crate::reading::Value;

/// A decoder with these keys, on a port that was just opened.
pub(super) fn decoder(keys: &str) -> Box<dyn ByteDecoder> {
    let (parsed, problems) = parse(&DRIVER, &format!("port = \"/dev/ttyUSB0\"\n{keys}"));
    assert!(problems.is_empty(), "{problems:?}");
    let Source::Serial { decoder, .. } = parsed.expect("no problems, so it goes on").source else {
        panic!("a serial driver")
    };
    decoder()
}

fn outcomes(decoder: &mut dyn ByteDecoder, chunks: &[&[u8]]) -> Vec<Result<Vec<Sample>, Fault>> {
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, BootTime(0), &mut out);
    }
    out.into_iter().map(|(_, outcome)| outcome).collect()
}

/// A sample as a text: `temp=21.5 °C`, `ok=true`, `state="open"`.
pub(super) fn show(sample: &Sample) -> String {
    let value = match &sample.value {
        Value::Number(number) => number.to_string(),
        Value::Switch(switch) => switch.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(_) => panic!("no bytes are printed"),
    };
    let unit = sample.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    format!("{}={value}{unit}", sample.quantity)
}

/// What each of these lines gives: its samples, or its fault.
pub(super) fn read(keys: &str, text: &[u8]) -> Vec<String> {
    let mut decoder = decoder(keys);
    outcomes(&mut *decoder, &[b"cut\n", text, b"\n", b"\r"])
        .into_iter()
        .map(|outcome| match outcome {
            Ok(samples) => samples.iter().map(show).collect::<Vec<_>>().join(", "),
            Err(fault) => fault.detail,
        })
        .collect()
}

fn line(keys: &str, text: &str) -> String {
    let [outcome] = <[_; 1]>::try_from(read(keys, text.as_bytes())).expect("one line gives one outcome");
    outcome
}

#[test]
fn pairs_are_read_as_people_mean_them() {
    for (text, expected) in [
        ("temp=21.5", "temp=21.5"),
        ("temp:21.5,hum:40", "temp=21.5, hum=40"),
        ("temp:21.5\thum:40\t", "temp=21.5, hum=40"),
        ("T=21.5C H=40%", "T=21.5 °C, H=40 %"),
        ("T: 21.5 C, H: 40 %", "T=21.5 °C, H=40 %"),
        ("T: 21.5 C H: 40 %", "T=21.5 °C, H=40 %"),
        ("V: 3.3 A: 0.2", "V=3.3, A=0.2"),
        ("a=1;b=on;c=\"x = 1, y\";d=open", "a=1, b=true, c=\"x = 1, y\", d=\"open\""),
        ("state=open door mode=auto", "state=\"open\", door mode=\"auto\""),
        ("msg: hello, world, temp: 5", "msg=\"hello, world\", temp=5"),
        ("acc=1, 2, 3 gyro = 4 5 6", "acc=1, acc_2=2, acc_3=3, gyro=4, gyro_2=5, gyro_3=6"),
        ("acc=1,2,3", "acc=1, acc_2=2, acc_3=3"),
        ("0:512 1:498", "0=512, 1=498"),
        ("Soil 1: 400 Soil 2: 500", "Soil 1=400, Soil 2=500"),
        ("Sensor 1: 21.5 C 2: 22 C", "Sensor 1=21.5 °C, 2=22 °C"),
        ("time=10:15:30 temp=3", "time=\"10:15:30\", temp=3"),
        ("at: 2026-11-21 10:15:30", "at=\"2026-11-21 10:15:30\""),
        ("a => 1 | b := 2", "a=1, b=2"),
        ("url=http://x/?a=1", "url=\"http://x/?a=1\""),
        ("Dist: 120 furlongs, Level: 3", "Dist=120 furlongs, Level=3"),
        ("Errors: 3 of 10", "Errors=\"3 of 10\""),
        ("Humidity (%): 40 Temp [C]: 21", "Humidity=40 %, Temp=21 °C"),
        ("set: 1, info: 2", "set_=1, info_=2"),
        ("km/h: 12", "km_h=12"),
        ("T=-, H=40", "H=40"),
        ("T=nan, H=40", "H=40"),
        ("ok: 1e3 Hz.", "ok=1000 Hz"),
        (">>> temp: 21 <<<", "temp=\"21 <<<\""),
    ] {
        assert_eq!(line("", text), expected, "{text}");
    }
}

#[test]
fn french_is_read() {
    let keys = "decimal = \",\"";
    assert_eq!(line(keys, "Température : 21,5 °C"), "Température=21.5 °C");
    assert_eq!(line(keys, "T=21,5,H=40,25 %"), "T=21.5, H=40.25 %");
    assert_eq!(line(keys, "T : 21,5 °C ; H : 40 %"), "T=21.5 °C, H=40 %");
    let latin = b"Temp\xe9rature\xa0: 21,5 \xb0C";
    assert_eq!(read(keys, latin), ["Température=21.5 °C"]);
    // The bytes of É in UTF-8 are two letters in Latin-1.
    assert_eq!(read("encoding = \"latin-1\"", b"\xc3\xa9=1"), ["Ã©=1"]);
    assert!(line("", "Température : 21,5 °C").contains("say `decimal"), "{}", line("", "Température : 21,5 °C"));
    assert!(line(keys, "T=21.5").contains("say `decimal"));
}

#[test]
fn columns_are_read_in_order() {
    let keys = "form = \"csv\"\ncolumns = [\"temp\", \"\", \"hum\"]";
    assert_eq!(line(keys, "21.5, 7 ,40%"), "temp=21.5, hum=40 %");
    assert_eq!(line(keys, "21.5,,"), "temp=21.5");
    assert_eq!(line(keys, "\"a, b\",x,nan"), "temp=\"a, b\"");
    assert_eq!(line(keys, "1,2"), "a line cannot be read, 2 fields instead of 3, separated by ',': `1,2`");
    assert_eq!(line(keys, "1,2,3,4"), "a line cannot be read, 4 fields instead of 3, separated by ',': `1,2,3,4`");
    assert_eq!(read(keys, b"Temp,x,\"Hum\"\r\n1,2,3"), ["temp=1, hum=3"]);
    let keys = "form = \"csv\"\ncolumns = [\"a\", \"b\"]\nseparator = \";\"\ndecimal = \",\"";
    assert_eq!(line(keys, "21,5;-0,5 V"), "a=21.5, b=-0.5 V");
    let keys = "form = \"csv\"\ncolumns = [\"a\", \"b\"]\nseparator = \" \"";
    assert_eq!(line(keys, "  21.5 \t  3"), "a=21.5, b=3");
    assert!(line(keys, "21,5 3").contains("column `a`: `21,5` can be read in two ways"));
}

#[test]
fn a_patterns_named_groups_are_quantities() {
    let keys = r#"form = "pattern"
        pattern = '#(?<node>\d+) rssi (?<rssi>\S+)( batt (?<batt>.*))?'"#;
    assert_eq!(line(keys, "rx #12 rssi -71dBm"), "node=12, rssi=-71 dBm");
    assert_eq!(line(keys, "#12 rssi nan batt 3.3 V"), "node=12, batt=3.3 V");
    assert!(line(keys, "hello").contains("does not match `pattern`"));
}

#[test]
fn what_is_not_wanted_is_left_out() {
    assert_eq!(line("keys = [\"T\", \"acc_2\"]", "T=1 H=2 acc=1 2 3"), "T=1, acc_2=2");
    assert!(line("keys = [\"T\"]", "H=2").contains("none of the names in `keys`"));
}

#[test]
fn other_lines_are_faults_or_counted() {
    let text = b"Hello, world!\nT=1\n\n{\"a\" 1}\nT=21,5\nT=2\nT=3";
    let strict = read("", text);
    assert_eq!(strict.len(), 6, "{strict:?}");
    assert!(strict[0].contains("no names and values such as `temp=21.5`") && strict[0].contains("`Hello, world!`"));
    assert!(strict[2].contains("use the driver serial-json"), "{strict:?}");
    assert_eq!(read("ignore_other = true", text), ["T=1, ignored_lines=1", "T=2, ignored_lines=3", "T=3"]);
}

#[test]
fn a_sensor_that_gives_nothing_is_a_fault() {
    let outcomes = outcomes(&mut *decoder("ignore_other = true"), &[b"\nT: nan C, H: nan %\nT: -\n"]);
    let fault = outcomes[0].as_ref().expect_err("nothing but nan");
    assert_eq!(fault.code, FaultCode::Impossible);
    assert_eq!(outcomes[1], Ok(Vec::new()), "nothing was said to be wrong");
}

#[test]
fn another_unit_is_not_taken_for_the_same_quantity() {
    let read = read("", b"T = 21 *C\nT = 70 *F\nT = 22\nT = 23 degrees C");
    assert_eq!([&*read[0], &*read[2], &*read[3]], ["T=21 °C", "T=22", "T=23 °C"]);
    assert!(read[1].contains("`T` is in °F, and was in °C before"), "{read:?}");
}

#[test]
fn garbage_is_bad_data_and_the_link_goes_on() {
    let mut decoder = decoder("");
    let long = vec![b'x'; 1_000_000];
    let outcomes = outcomes(&mut *decoder, &[b"\n", &long, b"\na=1\nb\0=1\n\x9f\x80=3\na=1 a=2\na=1e999\na=2\n"]);
    let details: Vec<&str> =
        outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(|fault| &*fault.detail, |_| "fine")).collect();
    assert_eq!(details.len(), 7, "{details:?}");
    assert!(details[0].contains("longer than 1024 bytes"), "{details:?}");
    assert!(details[2].contains("control characters") && details[3].contains("control characters"), "{details:?}");
    assert!(details[4].contains("two values are called `a`"), "{details:?}");
    assert!(details[5].contains("out of range"), "{details:?}");
    assert_eq!((details[1], details[6]), ("fine", "fine"));
    let many = (0..=MAX_QUANTITIES).map(|number| format!("{number} ")).collect::<String>();
    assert!(line("", &format!("a: {many}")).contains("more than 128 values"));
    let name = "n".repeat(MAX_NAME_BYTES + 1);
    assert!(line("", &format!("{name}=1")).contains("no names and values"));
}

#[test]
fn what_comes_before_the_first_end_is_skipped() {
    assert_eq!(outcomes(&mut *decoder(""), &[b"emp=21.5\r\nhum=40\r\n"]).len(), 1);
    assert_eq!(outcomes(&mut *decoder(""), &[&[b'x'; 5000], b"\nhum=40\n"]).len(), 1);
}

#[test]
fn a_carriage_return_can_end_lines() {
    assert_eq!(read("line_end = \"\\r\"", b"\ra=1\rb=2"), ["a=1", "b=2"]);
}

#[test]
fn milliseconds_are_the_time_of_measurement() {
    let mut decoder = decoder("millis = \"ms\"");
    let mut out = Vec::new();
    decoder.feed(b"\nms=1000 a=1\n", BootTime(5_000_000_000), &mut out);
    decoder.feed(b"ms=1250 a=2\nms=1500 a=3\nms=x a=4\n", BootTime(6_000_000_000), &mut out);
    let times: Vec<u64> = out.iter().map(|(at, _)| at.0 / 1_000_000).collect();
    assert_eq!(times, [5000, 5250, 5500, 6000]);
    assert_eq!(out[1].1.as_ref().map(|samples| show(&samples[0])), Ok("a=2".to_owned()));
    assert!(out[3].1.is_err());
}

#[test]
fn commands_go_down_and_answers_are_no_readings() {
    let command = Command { id: 9, payload: (*b"relay 1 on").into() };
    let mut plain = decoder("line_end = \"\\r\\n\"");
    let sent = plain.command(&command).expect("a line");
    assert_eq!(sent, Outgoing { bytes: b"relay 1 on\r\n".to_vec(), answer_within: None });
    let mut decoder = decoder("acknowledge = \"1s\"");
    let sent = decoder.command(&command).expect("a line");
    assert_eq!(sent, Outgoing { bytes: b"relay 1 on\n".to_vec(), answer_within: Some(Duration::from_secs(1)) });
    decoder.cut();
    assert_eq!(decoder.command(&command).expect("a line").bytes, b"\x18\nrelay 1 on\n");
    assert_eq!(decoder.command(&command).expect("a line").bytes, b"relay 1 on\n");
    let read = outcomes(&mut *decoder, &[b"\nOK\r\na=1\nerror: no relay 1\n"]);
    assert_eq!(read.len(), 1, "{read:?}");
    let answers: Vec<_> = decoder.answers().into_iter().map(|answer| (answer.id, answer.outcome)).collect();
    assert_eq!(answers, [(None, Ok(())), (None, Err("no relay 1".to_owned()))]);
}

/// Keys for each form.
const FORMS: [&str; 4] = [
    "",
    "decimal = \",\"\nignore_other = true\nacknowledge = \"1s\"\nmillis = \"a\"",
    "form = \"csv\"\ncolumns = [\"a\", \"b\"]\nline_end = \"\\r\"",
    "form = \"pattern\"\npattern = '(?<a>\\S+)=(?<b>.*)'\nencoding = \"latin-1\"",
];

/// Bytes that are often pairs or columns, or nearly.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "=", ":", " ", "  ", ",", ";", "|", "\t", "\"", "\n", "\r\n", "\r", "a", "b=", "temp: ", "21.5", "-1", "1e999",
            "nan", "°C", "%", " C ", "on", "ok\n", "error x\n", "{", "T=21.5C H=40%\n", "12:30", "(%)", "é", "\u{0}", "1,5",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_cut_anywhere_give_the_same(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        form in prop::sample::select(FORMS.to_vec()),
    ) {
        let whole = outcomes(&mut *decoder(form), &[&bytes]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&outcomes(&mut *decoder(form), &chunks), &whole);
        for sample in whole.into_iter().flatten().flatten() {
            prop_assert_eq!(crate::topic::check_name(&sample.quantity), Ok(()));
            prop_assert!(sample.quantity.len() <= MAX_NAME_BYTES + 8);
        }
    }

    #[test]
    fn names_and_numbers_are_read_back(
        pairs in prop::collection::btree_map("[a-zé]{4,10}", (-1.0e6..1.0e6_f64, prop::sample::select(vec!["", "%", "°C", " V", " ppm"])), 1..10),
        mark in prop::sample::select(vec!["=", ":", " = ", ": ", " : "]),
        between in prop::sample::select(vec![" ", ", ", ";", "\t", " | ", "  "]),
    ) {
        let text: Vec<String> =
            pairs.iter().map(|(name, (number, unit))| format!("{name}{mark}{number:.3}{unit}")).collect();
        let expected: Vec<String> = pairs
            .iter()
            .map(|(name, (number, unit))| {
                let number: f64 = format!("{number:.3}").parse().expect("a number");
                let space = if unit.is_empty() { "" } else { " " };
                format!("{name}={number}{space}{}", unit.trim())
            })
            .collect();
        prop_assert_eq!(read("", text.join(between).as_bytes()), [expected.join(", ")]);
    }
}
