use proptest::prelude::*;

use super::frame::seal;
use super::*;
use crate::reading::FaultCode;

/// The frames of the example in `docs/serial-frames.md`, as it prints them.
fn example(name: &str) -> Vec<u8> {
    let page = include_str!("../../../docs/serial-frames.md");
    let line =
        page.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).expect("the page has that example");
    line.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

fn decoder() -> SerialFrames {
    SerialFrames::new(Vec::new(), None)
}

/// One that takes 0, 1 and 2 for `a`, `b` and `c`.
fn named() -> SerialFrames {
    SerialFrames::new(["a", "b", "c"].map(str::to_owned).to_vec(), Some(Duration::from_secs(2)))
}

fn decode(decoder: &mut SerialFrames, chunks: &[&[u8]]) -> Vec<Result<Vec<Sample>, Fault>> {
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, BootTime(0), &mut out);
    }
    out.into_iter().map(|(_, outcome)| outcome).collect()
}

fn readings(sequence: u8, millis: u32, values: &[u8]) -> Vec<u8> {
    seal([&[0x11, sequence][..], &millis.to_le_bytes(), values].concat())
}

fn description(sequence: u8, started: bool, receives: u8, quantities: &[(u8, u8, &str, &str)]) -> Vec<u8> {
    let mut content = vec![0x12, sequence, u8::from(started), receives];
    for (id, flags, name, unit) in quantities {
        content.extend([*id, *flags]);
        for text in [name, unit] {
            content.push(u8::try_from(text.len()).expect("a short text"));
            content.extend(text.as_bytes());
        }
    }
    seal(content)
}

fn show(outcome: Result<Vec<Sample>, Fault>) -> String {
    let show = |sample: Sample| {
        let unit = sample.unit.map(|unit| format!(" {unit}")).unwrap_or_default();
        let event = if sample.event { "!" } else { "" };
        match sample.value {
            Value::Number(number) => format!("{}={number}{unit}{event}", sample.quantity),
            Value::Switch(switch) => format!("{}={switch}{event}", sample.quantity),
            Value::Text(text) => format!("{}={text:?}{event}", sample.quantity),
            Value::Bytes(_) => panic!("frames have no bytes"),
        }
    };
    match outcome {
        Ok(samples) => samples.into_iter().map(show).collect::<Vec<_>>().join(" "),
        Err(fault) => format!("{}: {fault}", fault.code.as_str()),
    }
}

fn shown(decoder: &mut SerialFrames, chunks: &[&[u8]]) -> Vec<String> {
    decode(decoder, chunks).into_iter().map(show).collect()
}

#[test]
fn the_page_has_a_worked_example_that_is_right() {
    let mut decoder = decoder();
    assert_eq!(shown(&mut decoder, &[&example("description")]), Vec::<String>::new());
    let outcome = shown(&mut decoder, &[&example("readings")]);
    assert_eq!(outcome, ["temperature=21.53 °C light=312 door=true! lost=0"]);

    let mut decoder = SerialFrames::new(Vec::new(), Some(Duration::from_secs(2)));
    let command = Command { id: 7, payload: br#"{"relay":true}"#.as_slice().into() };
    let outgoing = decoder.command(&command).expect("a short command");
    assert_eq!(outgoing.bytes, example("command"));
    assert_eq!(outgoing.answer_within, Some(Duration::from_secs(2)));
    decode(&mut decoder, &[&example("done"), &example("refused")]);
    let answers = decoder.answers();
    assert_eq!(answers[0], Answer { id: Some(7), outcome: Ok(()) });
    assert_eq!(answers[1], Answer { id: Some(8), outcome: Err("no relay of that name".to_owned()) });
    assert!(decoder.answers().is_empty(), "each is given once");
}

#[test]
fn every_type_of_value_is_read() {
    let values = [&[0, 0][..], &[1, 2, 255], &[2, 7, 5], "prêt".as_bytes()].concat();
    assert_eq!(shown(&mut named(), &[&readings(0, 0, &values)]), ["b=255 c=\"prêt\" lost=0"]);
    for (value, expected) in [
        (&[1, 0][..], "a=false"),
        (&[1, 1], "a=true"),
        (&[3, 0xfe, 0xff], "a=-2"),
        (&[4, 0, 0, 0, 0x80], "a=-2147483648"),
        (&[5, 0xff, 0xff, 0xff, 0xff], "a=4294967295"),
        (&[6, 0x71, 0x3d, 0xac, 0x41], "a=21.53"),
        (&[7, 0], "a=\"\""),
    ] {
        let values = [&[0][..], value].concat();
        assert_eq!(shown(&mut named(), &[&readings(0, 0, &values)]), [format!("{expected} lost=0")]);
    }
}

#[test]
fn what_is_wrong_in_a_frame_is_told_and_nothing_of_it_is_taken() {
    let nan = [&[0, 6][..], &f32::NAN.to_le_bytes()].concat();
    for (content, part) in [
        (seal(vec![]), "bad-data: a frame ends within its head"),
        (seal(vec![0x21, 0]), "a frame of version 2"),
        (seal(vec![0x17, 0]), "unknown type 7"),
        (seal(vec![0x11, 0, 1, 2, 3]), "ends within the device's time"),
        (readings(0, 0, &[0]), "ends within a value's head"),
        (readings(0, 0, &[0, 4, 1]), "ends within a value"),
        (readings(0, 0, &[0, 8]), "quantity 0 has a value of the unknown type 8"),
        (readings(0, 0, &[0, 1, 2]), "switch of the value 2"),
        (readings(0, 0, &nan), "quantity 0 is NaN"),
        (readings(0, 0, &[0, 7, 9, b'x']), "ends within a text"),
        (readings(0, 0, &[0, 7, 1, 0xe9]), "a text is not UTF-8: \\xe9"),
        (readings(0, 0, &[0, 2, 1, 0, 2, 1]), "two values for quantity 0"),
        (readings(0, 0, &[1, 2, 5, 0, 9]), "unknown type 9"),
        (description(0, true, 0, &[(0, 0, "", "")]), "gives quantity 0 no name"),
        (description(0, true, 0, &[(7, 0, "a", "")]), "both quantity 0 and quantity 7 `a`"),
        (description(0, true, 0, &[(9, 0, "x", "\n")]), "unit of quantity 9 has a control character"),
        (description(0, true, 0, &[(9, 0, &"x".repeat(65), "")]), "a name of 65 bytes; 64 are allowed"),
        (b"\0hello, world\r\n\0".to_vec(), "text between the frames: `hello, world`"),
        (b"\0\x05ab\0".to_vec(), "3 bytes between two zeros are no frame"),
        (vec![0, 1, 0], "too short for a checksum"),
    ] {
        let outcomes = shown(&mut named(), &[&content]);
        assert!(outcomes.len() == 1 && outcomes[0].contains(part), "{content:x?}: {outcomes:?}, not {part}");
    }
}

#[test]
fn a_damaged_byte_is_never_a_value() {
    let good = readings(3, 1000, &[0, 3, 1, 2, 1, 6, 0, 0, 0xa0, 0x41]);
    for at in 1..good.len() - 1 {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let outcomes = decode(&mut named(), &[&bad]);
            assert!(outcomes.iter().all(Result::is_err), "byte {at}, bit {bit}: {outcomes:?}");
            assert!(!outcomes.is_empty(), "byte {at}, bit {bit}: told");
            let next = readings(4, 1001, &[0, 2, 9]);
            let mut decoder = named();
            decode(&mut decoder, &[&bad]);
            assert_eq!(shown(&mut decoder, &[&next]), ["a=9 lost=0"], "the next one comes through");
        }
    }
    let fault = decode(&mut named(), &[&[&good[..5], &[good[5] ^ 1], &good[6..]].concat()]).remove(0);
    assert_eq!(fault.expect_err("damaged").code, FaultCode::Crc);
}

#[test]
fn the_first_piece_is_skipped_silently_only_if_it_cannot_be_read() {
    let frame = readings(0, 0, &[0, 2, 1]);
    assert_eq!(shown(&mut named(), &[&frame[5..]]), Vec::<String>::new());
    assert_eq!(shown(&mut named(), &[b"boot: ", &frame[1..]]), Vec::<String>::new());
    assert_eq!(shown(&mut named(), &[&frame[1..]]), ["a=1 lost=0"]);
    assert_eq!(shown(&mut named(), &[b"boot: ok\r\n", &frame]), ["a=1 lost=0"]);
    assert_eq!(shown(&mut named(), &[&[b'x'; 5000], &[0], &frame]), ["a=1 lost=0"]);
}

#[test]
fn lost_frames_are_counted() {
    let mut decoder = named();
    let mut see = |sequence, millis| shown(&mut decoder, &[&readings(sequence, millis, &[0, 2, 1])]).remove(0);
    assert_eq!(see(254, 10), "a=1 lost=0");
    assert_eq!(see(255, 20), "a=1");
    assert_eq!(see(0, 30), "a=1");
    assert_eq!(see(3, 40), "a=1 lost=2");
    assert_eq!(see(3, 50), "a=1 lost=257", "the same number again: 255 are missing");
    assert_eq!(see(0, 5), "a=1", "the device's time went back: it has started anew");
    assert_eq!(see(2, u32::MAX), "a=1", "which is before 5");
    assert_eq!(see(4, 3), "a=1 lost=258", "the device's milliseconds begin again after 49 days");
    decode(&mut decoder, &[&description(77, true, 0, &[])]);
    assert_eq!(shown(&mut decoder, &[&readings(78, 9, &[])]), [""], "started anew, and nothing lost");
}

#[test]
fn values_wait_for_their_names_which_are_asked_for() {
    let mut decoder = decoder();
    let mut out = Vec::new();
    let second = |seconds: u64| BootTime(seconds * 1_000_000_000);
    decoder.feed(&readings(5, 1000, &[4, 2, 21]), second(1), &mut out);
    assert_eq!(decoder.asks(), Some(seal(vec![0x19, 0])));
    assert_eq!(decoder.asks(), None);
    decoder.feed(&readings(6, 2000, &[4, 2, 22]), second(2), &mut out);
    assert_eq!(decoder.asks(), None, "it was asked just now");
    decoder.feed(&readings(7, 3000, &[4, 2, 23]), second(3), &mut out);
    assert_eq!(decoder.asks(), Some(seal(vec![0x19, 1])));
    assert!(out.is_empty());
    decoder.feed(&description(8, false, 0, &[(4, 0, "temp", "°C")]), second(4), &mut out);
    let times: Vec<BootTime> = out.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [second(1), second(2), second(3)]);
    let outcomes: Vec<String> = out.into_iter().map(|(_, outcome)| show(outcome)).collect();
    assert_eq!(outcomes, ["temp=21 °C", "temp=22 °C", "temp=23 °C lost=0"]);
}

#[test]
fn what_is_read_late_has_the_time_of_its_measurement() {
    let mut decoder = named();
    let mut out = Vec::new();
    let at = |millis: u64| BootTime(5_000_000_000 + millis * 1_000_000);
    for second in 1..=3 {
        decoder.feed(&readings(second, u32::from(second) * 1000, &[0, 2, 1]), at(u64::from(second) * 1000), &mut out);
    }
    // Nobody has read for three seconds.
    let late: Vec<u8> = (4..=6).flat_map(|second| readings(second, u32::from(second) * 1000, &[0, 2, 1])).collect();
    decoder.feed(&late, at(6010), &mut out);
    let times: Vec<BootTime> = out.iter().map(|(at, _)| *at).collect();
    // The last one was read 10 ms late, which could as well be the board's resonator.
    assert_eq!(times[..5], [at(1000), at(2000), at(3000), at(4000), at(5000)]);
    assert!((at(6000)..=at(6010)).contains(&times[5]), "{times:?}");
}

#[test]
fn what_waits_for_names_is_bounded_and_told() {
    let mut decoder = decoder();
    for number in 0..MAX_HELD {
        let sequence = u8::try_from(number).expect("few");
        assert!(decode(&mut decoder, &[&readings(sequence, 0, &[9, 2, 1])]).is_empty());
    }
    let outcomes = shown(&mut decoder, &[&readings(16, 0, &[9, 2, 1])]);
    assert!(outcomes.len() == 1 && outcomes[0].contains("has not said what quantity 9 is"), "{outcomes:?}");
    assert_eq!(decode(&mut decoder, &[&description(17, false, 0, &[(9, 0, "x", "")])]).len(), MAX_HELD);
}

#[test]
fn names_become_ones_that_topics_can_hold_and_fields_go_first() {
    let described = description(0, true, 0, &[(0, 0, "mine", ""), (7, 1, "km/h", "km/h"), (8, 0, "lost", "")]);
    let frame = readings(1, 0, &[0, 2, 1, 7, 2, 2, 8, 2, 3]);
    assert_eq!(shown(&mut named(), &[&described, &frame]), ["a=1 km_h=2 km/h! lost_=3 lost=0"]);
    // Described again with other words: the last ones hold.
    let mut decoder = named();
    decode(&mut decoder, &[&described, &description(1, false, 0, &[(7, 0, "speed", "")])]);
    assert_eq!(shown(&mut decoder, &[&readings(2, 0, &[7, 2, 2])]), ["speed=2 lost=0"]);
}

#[test]
fn commands_have_the_size_that_the_device_takes() {
    let command = |bytes: usize| Command { id: 1, payload: vec![0; bytes].into() };
    let mut decoder = named();
    assert!(decoder.command(&command(MAX_COMMAND_BYTES)).is_ok());
    let refusal = decoder.command(&command(MAX_COMMAND_BYTES + 1)).expect_err("too long");
    assert_eq!(refusal, "the command has 247 bytes; a frame takes at most 246");
    decode(&mut decoder, &[&description(0, true, 64, &[])]);
    assert!(decoder.command(&command(56)).is_ok());
    let refusal = decoder.command(&command(57)).expect_err("too long");
    assert_eq!(refusal, "the command has 57 bytes; the device takes at most 56");
    decode(&mut decoder, &[&description(1, false, 0, &[])]);
    assert!(decoder.command(&command(1)).expect_err("none").contains("takes no commands"));
}

#[test]
fn a_refusal_is_given_in_the_devices_words() {
    let mut decoder = named();
    let answer = |status: u8, text: &[u8]| seal([&[0x13, 0, 1, 0, 0, 0, status], text].concat());
    decode(&mut decoder, &[&answer(3, b""), &answer(1, b"d\xe9j\xe0 \x1b[1m"), &answer(1, &[b'x'; 200])]);
    let errors: Vec<String> =
        decoder.answers().into_iter().map(|answer| answer.outcome.expect_err("refused")).collect();
    assert_eq!(errors[..2], ["the device gives the status 3", "d\u{fffd}j\u{fffd} [1m"]);
    assert_eq!(errors[2].len(), MAX_REFUSAL);
}

#[test]
fn an_echo_of_what_was_sent_is_nothing() {
    let mut decoder = named();
    let echo = decoder.command(&Command { id: 1, payload: b"x".as_slice().into() }).expect("a command").bytes;
    assert!(decode(&mut decoder, &[&echo, &layout::ask(3)]).is_empty());
    assert!(decoder.answers().is_empty());
}

/// Bytes that are often frames, or nearly.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let whole = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..24)).prop_map(|(head, rest)| {
        let head = if head < 200 { 0x11 + head % 3 } else { head };
        seal([&[head][..], &rest].concat())
    });
    let values = (any::<u8>(), any::<u32>(), prop::collection::vec((0..4_u8, 0..7_u8, any::<[u8; 4]>()), 0..4))
        .prop_map(|(sequence, millis, values)| {
            let mut bytes = Vec::new();
            for (id, form, number) in values {
                bytes.extend([id, form]);
                bytes.extend(&number[..[0, 1, 1, 2, 4, 4, 4][usize::from(form)]]);
            }
            readings(sequence, millis, &bytes)
        });
    let described = (any::<bool>(), 0..6_u8, "[a-z/é]{0,6}", "[a-z°]{0,3}")
        .prop_map(|(started, id, name, unit)| description(0, started, 64, &[(id, id & 1, &name, &unit)]));
    let piece = prop_oneof![
        3 => values,
        2 => whole,
        1 => described,
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_cut_anywhere_give_the_same_and_never_a_wrong_number(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut at_once = decoder();
        let whole = decode(&mut at_once, &[&bytes]);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let mut in_pieces = decoder();
        prop_assert_eq!(&decode(&mut in_pieces, &chunks), &whole);
        prop_assert_eq!(at_once.answers(), in_pieces.answers());
        prop_assert!(at_once.link.held.len() <= MAX_HELD);

        for sample in whole.into_iter().flatten().flatten() {
            if let Value::Number(number) = sample.value {
                prop_assert!(number.get().is_finite());
            }
            prop_assert_eq!(topic::check_name(&sample.quantity), Ok(()));
        }
    }

    #[test]
    fn a_float_is_the_one_that_was_sent(number in any::<f32>().prop_filter("finite", |number| number.is_finite())) {
        let values = [&[0, 6][..], &number.to_le_bytes()].concat();
        let samples = decode(&mut named(), &[&readings(0, 0, &values)]).remove(0).expect("samples");
        let Value::Number(read) = samples[0].value else { panic!("a number") };
        #[expect(clippy::cast_possible_truncation, reason = "back to what was sent")]
        let back = read.get() as f32;
        prop_assert_eq!(back, number);
    }

    #[test]
    fn noise_between_frames_costs_at_most_itself(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut decoder = named();
        let (first, second) = (readings(0, 0, &[0, 2, 1]), readings(1, 1, &[0, 2, 2]));
        let outcomes = decode(&mut decoder, &[&first, &noise, &second]);
        let good: Vec<String> = outcomes.into_iter().filter(Result::is_ok).map(show).collect();
        prop_assert_eq!(good, ["a=1 lost=0", "a=2"]);
    }
}
