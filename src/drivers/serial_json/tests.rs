//! The decoder, line by line and byte by byte.

use proptest::prelude::*;

use super::*;
use crate::reading::Value;

/// A decoder that has seen the end of a line already.
fn in_step() -> SerialJson {
    let mut decoder = SerialJson::new();
    decoder.feed(b"\n", BootTime(0), &mut Vec::new());
    decoder.feed(b"{}\n", BootTime(0), &mut Vec::new());
    decoder
}

fn decode(decoder: &mut SerialJson, chunks: &[&[u8]]) -> Vec<Result<Vec<Sample>, Fault>> {
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, BootTime(0), &mut out);
    }
    out.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The samples of one line, each as a text.
fn line(text: &str) -> Result<Vec<String>, String> {
    let outcomes = decode(&mut in_step(), &[text.as_bytes(), b"\r\n"]);
    let [outcome] = <[_; 1]>::try_from(outcomes).expect("one line gives one outcome");
    let show = |sample: Sample| match sample.value {
        Value::Number(number) => format!("{}={number}", sample.quantity),
        Value::Switch(switch) => format!("{}={switch}", sample.quantity),
        Value::Text(text) => format!("{}={text:?}", sample.quantity),
        Value::Bytes(_) => panic!("JSON has no bytes"),
    };
    outcome.map(|samples| samples.into_iter().map(show).collect()).map_err(|fault| {
        assert_eq!(fault.code, FaultCode::BadData);
        fault.detail
    })
}

#[test]
fn an_object_becomes_quantities() {
    let text = r#"{"temp":21.5,"ok":true,"msg":"prêt","n":-3,"lumière":312,"none":null}"#;
    let samples = line(text).expect("samples");
    assert_eq!(samples, ["temp=21.5", "ok=true", "msg=\"prêt\"", "n=-3", "lumière=312"]);
}

#[test]
fn nesting_becomes_longer_names() {
    let text = r#"{"air":{"temp":21,"co2":{"ppm":612}},"soil":[41,null,39,[1,{"x":2}]],"empty":{},"list":[]}"#;
    let samples = line(text).expect("samples");
    assert_eq!(samples, ["air_temp=21", "air_co2_ppm=612", "soil_0=41", "soil_2=39", "soil_3_0=1", "soil_3_1_x=2"]);
}

#[test]
fn keys_become_names_that_topics_can_hold() {
    let text = r##"{"km/h":1,"a+b#":2,"set":3,"info":{"x":4},"":5,"$x":6,"tab\there":7,"é\/":8}"##;
    let samples = line(text).expect("samples");
    assert_eq!(samples, ["km_h=1", "a_b_=2", "set_=3", "info_x=4", "_=5", "_x=6", "tab_here=7", "é_=8"]);
}

#[test]
fn numbers_keep_what_a_double_can_hold() {
    assert_eq!(line(r#"{"a":18446744073709551615}"#).expect("samples"), ["a=18446744073709552000"]);
    assert_eq!(line(r#"{"a":1e308,"b":-0.1}"#).expect("samples").len(), 2);
    let fault = line(r#"{"a":1e999}"#).expect_err("too large");
    assert!(fault.contains("number out of range"), "{fault}");
    let fault = line(r#"{"a":nan}"#).expect_err("not JSON");
    assert!(fault.contains("have the sketch print null"), "{fault}");
}

#[test]
fn nothing_but_nulls_still_says_that_the_device_is_there() {
    assert_eq!(line(r#"{"a":null}"#).expect("samples"), <[&str; 0]>::default());
}

#[test]
fn what_is_not_one_object_is_bad_data_and_says_where() {
    for (text, part) in [
        ("Hello, world", "expected value (byte 1 of `Hello, world`)"),
        ("21.5", "expected a JSON object"),
        ("[1,2]", "expected a JSON object"),
        (r#"{"a":1} {"b":2}"#, "trailing characters (byte 9"),
        (r#"{"a":1"#, "EOF"),
        (r#"{"a":{"b":1},"a_b":2}"#, "two keys both become the quantity `a_b`"),
        (r#"{"a":1,"a":2}"#, "two keys both become the quantity `a`"),
    ] {
        let fault = line(text).expect_err(text);
        assert!(fault.contains(part), "{text}: {fault}");
    }
    let fault = decode(&mut in_step(), &[b"{\"temp\xe9\":1}\n"]).remove(0).expect_err("Latin-1");
    assert!(fault.detail.contains("`{\\\"temp\u{fffd}"), "{fault}");
}

#[test]
fn limits_hold_and_the_link_goes_on() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(line(&deep).expect_err("too deep").contains("nested more than 8"), "{deep}");
    let many: Vec<String> = (0..=MAX_QUANTITIES).map(|n| format!("\"q{n}\":1")).collect();
    assert!(line(&format!("{{{}}}", many.join(","))).expect_err("too many").contains("more than 128 values"));
    assert_eq!(line(&format!("{{{}}}", many[1..].join(","))).expect("just enough").len(), MAX_QUANTITIES);
    let name = "x".repeat(MAX_NAME_BYTES);
    assert_eq!(line(&format!("{{\"{name}\":1}}")).expect("just short enough").len(), 1);
    assert!(line(&format!("{{\"{name}x\":1}}")).expect_err("too long").contains("name of more than 128"));

    let mut decoder = in_step();
    let long = vec![b'x'; 1_000_000];
    let outcomes = decode(&mut decoder, &[&long, b"\n{\"a\":1}\n"]);
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[0].as_ref().expect_err("too long").detail.contains("longer than 4096 bytes"));
    assert_eq!(outcomes[1].as_ref().expect("samples").len(), 1);
}

#[test]
fn the_first_line_is_skipped_silently_only_if_it_cannot_be_read() {
    assert_eq!(decode(&mut SerialJson::new(), &[b"mp\":1}\n\xff\n"]).len(), 1, "the second one is told");
    assert_eq!(decode(&mut SerialJson::new(), &[b"{\"a\":1}\n"]).len(), 1);
    assert_eq!(decode(&mut SerialJson::new(), &[&[b'x'; 5000], b"\n"]).len(), 0);
}

#[test]
fn a_lines_time_is_that_of_its_end() {
    let mut decoder = in_step();
    let mut out = Vec::new();
    decoder.feed(b"{\"a\"", BootTime(5), &mut out);
    decoder.feed(b":1}\n", BootTime(9), &mut out);
    assert_eq!(out[0].0, BootTime(9));
}

#[test]
fn the_devices_milliseconds_are_the_time_of_measurement() {
    let mut decoder = SerialJson { stamp: Some(Stamp::new("ms")), ..in_step() };
    let mut out = Vec::new();
    decoder.feed(b"{\"ms\":1000,\"a\":1}\n", BootTime(5_000_000_000), &mut out);
    decoder.feed(
        b"{\"ms\":1250,\"a\":2}\n{\"ms\":1500,\"a\":3}\n{\"ms\":-1}\n{\"b\":1}\n",
        BootTime(6_000_000_000),
        &mut out,
    );
    let times: Vec<u64> = out.iter().map(|(at, _)| at.0 / 1_000_000).collect();
    assert_eq!(times, [5000, 5250, 5500, 6000, 6000]);
    assert_eq!(out[1].1, Ok(vec![Sample::new("a", Value::number(2.0).expect("finite"))]));
    assert!(out[3].1.as_ref().is_err_and(|fault| fault.detail.contains("`ms` should be milliseconds")));
}

#[test]
fn acknowledgements_are_answers_and_no_readings() {
    let within = Duration::from_secs(2);
    let mut decoder = SerialJson { acknowledge: Some(within), ..SerialJson::new() };
    let command = Command { id: 3, payload: (*b"{\"relay\": true}").into() };
    let expected = Outgoing { bytes: b"{\"id\":3,\"relay\":true}\n".to_vec(), answer_within: Some(within) };
    assert_eq!(decoder.command(&command), Ok(expected));
    let text = b"{\"ack\":3}\n{\"a\":1}\n{\"ack\":4,\"error\":\"busy\"}\n{\"ack\":\"x\"}\n";
    let outcomes = decode(&mut decoder, &[&text[..5], &text[5..]]);
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    assert!(outcomes[0].is_ok());
    assert!(outcomes[1].as_ref().is_err_and(|fault| fault.detail.contains("an acknowledgement is not in the form")));
    let answers = decoder.answers();
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), [Some(3), Some(4)]);
    assert_eq!(answers[1].outcome, Err("busy".to_owned()));
    assert_eq!(decoder.answers(), []);

    // Without `acknowledge`, it is a quantity like any other.
    assert_eq!(line("{\"ack\":3}").expect("samples"), ["ack=3"]);
    assert_eq!(in_step().command(&command).expect("a command").answer_within, None);
}

/// Bytes that are often JSON, or nearly.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "{", "}", "[", "]", "\"", ":", ",", "\n", "\r\n", "null", "true", "1e308", "9e999", "-1", "nan",
            "\"a\":1", "\"é\":[1,2]", "{\"temp\":21.5}\n", "{\"a\":{\"b\":[null,true]}}\n", "\\u0000", "\u{0}",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_cut_anywhere_give_the_same_and_never_a_wrong_number(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole = decode(&mut SerialJson::new(), &[&bytes]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&decode(&mut SerialJson::new(), &chunks), &whole);

        for sample in whole.into_iter().flatten().flatten() {
            if let Value::Number(number) = sample.value {
                prop_assert!(number.get().is_finite());
            }
            prop_assert!(sample.quantity.len() <= MAX_NAME_BYTES + 1);
        }
    }

    #[test]
    fn what_serde_writes_is_read_back(
        values in prop::collection::btree_map("[a-zé ]{1,10}", -1.0e9..1.0e9_f64, 0..20),
    ) {
        let text = serde_json::to_vec(&values).expect("a map of numbers");
        let samples = decode(&mut in_step(), &[&text, b"\n"]).remove(0).expect("samples");
        prop_assert_eq!(samples.len(), values.len());
        for (sample, (name, number)) in samples.iter().zip(&values) {
            prop_assert_eq!(&*sample.quantity, name.as_str());
            let Value::Number(read) = sample.value else { panic!("a number") };
            // serde_json reads the last digit of long numbers to within one unit of a double.
            prop_assert!((read.get() - number).abs() <= number.abs() * f64::EPSILON);
        }
    }
}
