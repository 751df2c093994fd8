use proptest::prelude::*;

use super::*;

/// A sentence with its checksum.
fn with_sum(body: &str) -> String {
    format!("${body}*{:02X}\r\n", body.bytes().fold(0, |sum, byte| sum ^ byte))
}

/// What comes out of lines that are fed one at a time, a millisecond apart, each value as a text.
fn decode<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Vec<(u64, Result<String, Fault>)> {
    let mut decoder = Nmea::new();
    let mut out = Vec::new();
    decoder.feed(b"\n", BootTime(0), &mut out);
    for (at, line) in (0..).zip(lines) {
        decoder.feed(line.as_ref(), BootTime(at), &mut out);
    }
    out.into_iter().map(|(at, outcome)| (at.0, outcome.map(|samples| told(&samples)))).collect()
}

fn told(samples: &[Sample]) -> String {
    let told = samples.iter().map(|sample| match &sample.value {
        Value::Number(number) => format!("{}={number}", sample.quantity),
        Value::Switch(on) => format!("{}={on}", sample.quantity),
        Value::Text(text) => format!("{}={text}", sample.quantity),
        Value::Bytes(_) => panic!("there are no bytes"),
    });
    told.collect::<Vec<_>>().join(" ")
}

fn fine<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Vec<(u64, String)> {
    decode(lines).into_iter().map(|(at, outcome)| (at, outcome.expect("no fault"))).collect()
}

/// A receiver's second: the sentences that a NEO-M8N prints, for three systems of satellites.
fn second(number: u32) -> Vec<String> {
    let time = format!("1015{:02}.00", number % 60);
    let minutes = 35.5260 + 0.0003 * f64::from(number);
    [
        format!("GNRMC,{time},A,47{minutes:07.4},N,00054.7020,E,1.944,87.3,211126,,,A"),
        "GNVTG,87.3,T,,M,1.944,N,3.600,K,A".to_owned(),
        format!("GNGGA,{time},47{minutes:07.4},N,00054.7020,E,1,11,0.88,85.2,M,47.4,M,,"),
        "GNGSA,A,3,10,24,12,32,25,21,,,,,,,1.60,0.88,1.34,1".to_owned(),
        "GNGSA,A,3,70,71,86,,,,,,,,,,1.60,0.88,1.34,2".to_owned(),
        "GPGSV,3,1,10,10,67,067,41,12,49,312,38,15,47,231,30,21,32,199,33".to_owned(),
        "GNTXT,01,01,02,ANTSTATUS=OK".to_owned(),
        "PUBX,00,1".to_owned(),
    ]
    .iter()
    .map(|body| with_sum(body))
    .collect()
}

#[test]
fn sentences_of_one_moment_are_one_reading() {
    let readings = fine((0..3).flat_map(second));
    let expected = |latitude: &str, second: u8| {
        format!(
            "latitude={latitude} longitude=0.9117 altitude=85.2 geoid=47.4 speed=3.6 course=87.3 hdop=0.88 satellites=11 \
             dimensions=3 fix=true utc=2026-11-21T10:15:{second:02}.000Z"
        )
    };
    // The first is whole when the second begins; of the others the last sentence is known.
    assert_eq!(readings, [(0, expected("47.5921", 0)), (8, expected("47.592105", 1)), (16, expected("47.59211", 2))]);
}

#[test]
fn an_epoch_whose_last_sentence_comes_late_is_given_once() {
    let moved: Vec<String> = (0..4)
        .flat_map(|number| {
            let mut lines = second(number);
            if number >= 2 {
                lines.rotate_left(3);
            }
            lines
        })
        .collect();
    let readings = fine(&moved);
    let times: Vec<&str> = readings.iter().filter_map(|(_, text)| text.split("utc=").nth(1)).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert!(readings.len() >= 3, "{readings:?}");
}

#[test]
fn examples_of_the_manuals_come_out() {
    for (line, expected) in [
        // u-blox M8 Receiver Description, sections 31.2.4, 31.2.15 and 31.2.18.
        (
            "$GPGGA,092725.00,4717.11399,N,00833.91590,E,1,08,1.01,499.6,M,48.0,M,,*5B",
            "latitude=47.2852332 longitude=8.565265 altitude=499.6 geoid=48 hdop=1.01 satellites=8 fix=true",
        ),
        (
            "$GPRMC,083559.00,A,4717.11437,N,00833.91522,E,0.004,77.52,091202,,,A*57",
            "latitude=47.2852395 longitude=8.5652537 speed=0.01 course=77.52 fix=true utc=2002-12-09T08:35:59.000Z",
        ),
        ("$GPVTG,77.52,T,,M,0.004,N,0.008,K,A*06", "speed=0.01 course=77.52"),
        // South and west.
        (
            "$GPGGA,092204.999,4250.5589,S,14718.5084,E,1,04,24.4,19.7,M,,,,0000*1F",
            "latitude=-42.8426483 longitude=147.3084733 altitude=19.7 hdop=24.4 satellites=4 fix=true",
        ),
    ] {
        // The same sentence once more begins another epoch.
        let readings = fine([line, "\r\n", line, "\r\n"]);
        assert_eq!(readings.first().map(|(_, text)| text.as_str()), Some(expected), "{line}");
    }
}

#[test]
fn without_a_fix_there_is_no_position() {
    let lines = ["GPRMC,101530.00,V,4735.5260,N,00054.7020,E,,,211126,,,N", "GPGGA,101530.00,,,,,0,00,99.99,,,,,,"];
    let lines = lines.map(with_sum);
    let expected = "satellites=0 fix=false";
    assert_eq!(fine(lines.iter().chain(&lines))[0].1, expected);
    // A receiver that has just been switched on knows nothing at all.
    let empty = [
        "GPRMC,,V,,,,,,,,,,N",
        "GPVTG,,,,,,,,,N",
        "GPGGA,,,,,,0,00,99.99,,,,,,",
        "GPGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99",
    ];
    let empty = empty.map(with_sum);
    assert_eq!(fine(empty.iter().chain(&empty))[0].1, "satellites=0 dimensions=0 fix=false");
}

#[test]
fn instruments_speak_for_themselves() {
    let lines = [
        "WIMWV,214.8,R,10.0,N,A",
        "WIMWV,180.0,T,5.0,M,A",
        "WIMWV,,R,,N,V",
        "YXMTW,17.75,C",
        "SDDPT,12.3,-0.5",
        "HEHDT,271.4,T",
    ];
    let readings = fine(lines.map(with_sum));
    let readings: Vec<&str> = readings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        readings,
        [
            "wind_angle=214.8 wind_speed=18.52",
            "true_wind_angle=180 true_wind_speed=18",
            "water_temperature=17.75",
            "depth=11.8",
            "heading=271.4"
        ]
    );
}

#[test]
fn what_cannot_be_read_is_a_fault_and_the_link_goes_on() {
    let good = with_sum("HEHDT,271.4,T");
    for (line, code, part) in [
        ("$HEHDT,271.5,T*27\r\n", FaultCode::Crc, "checksum should be 2E"),
        ("$HEHDT,271.4,T\r\n", FaultCode::BadData, "no checksum"),
        ("$HEHDT,271.4,T*2\r\n", FaultCode::Crc, "checksum should be"),
        ("hello\r\n", FaultCode::BadData, "begins with `$`"),
        (&with_sum("HEHDT,361,T"), FaultCode::BadData, "field of the sentence HDT"),
        (&with_sum("HEHDT,nan,T"), FaultCode::BadData, "field of the sentence HDT"),
        (&with_sum("GPRMC,250000,A,,,,,,,211126,,"), FaultCode::BadData, "RMC"),
        (&with_sum("GPRMC,101530,A,,,,,,,310226,,"), FaultCode::BadData, "RMC"),
        (&with_sum("GPGGA,101530,4760.0,N,00054.0,E,1,,,,,,,,"), FaultCode::BadData, "GGA"),
        (&with_sum("GPGGA,101530,9001.0,N,00054.0,E,1,,,,,,,,"), FaultCode::BadData, "GGA"),
        (&format!("${}\r\n", "x".repeat(MAX_SENTENCE_BYTES)), FaultCode::BadData, "longer than 256 bytes"),
    ] {
        let outcomes = decode([line, good.as_str()]);
        let fault = outcomes[0].1.as_ref().expect_err(line);
        assert_eq!(fault.code, code, "{line}: {fault}");
        assert!(fault.detail.contains(part), "{line}: {fault}");
        assert_eq!(outcomes[1].1.as_deref(), Ok("heading=271.4"), "{line}");
    }
}

#[test]
fn what_a_damaged_sentence_leaves_is_not_mixed_with_the_next_moment() {
    let damaged = |line: &String| line.replace("35.5", "45.5");
    for damage in 0..8_u8 {
        // Of the second moment, any of the first three sentences do not arrive as they were sent.
        let lines = (0..4).flat_map(|number| {
            let spoil = move |(index, line): (usize, String)| {
                let spoilt = number == 1 && index < 3 && damage >> index & 1 == 1;
                if spoilt { damaged(&line).replace("3.600", "9.600") } else { line }
            };
            // Without GSA, the last one is one with a time.
            second(number).into_iter().take(3).enumerate().map(spoil).collect::<Vec<_>>()
        });
        let readings: Vec<String> = decode(lines).into_iter().filter_map(|(_, outcome)| outcome.ok()).collect();
        for (utc, latitude) in [(0, "47.5921"), (1, "47.592105"), (2, "47.59211"), (3, "47.592115")] {
            let of_moment: Vec<&String> =
                readings.iter().filter(|text| text.contains(&format!("latitude={latitude} "))).collect();
            let time = format!("utc=2026-11-21T10:15:{utc:02}.000Z");
            let right = |text: &&String| !text.contains("utc=") || text.contains(&time);
            assert!(of_moment.iter().all(right), "{damage}: {readings:?}");
            if utc != 1 {
                assert!(
                    of_moment.iter().any(|text| text.contains("altitude=") && text.contains("speed=")),
                    "{damage}, {utc}: {readings:?}"
                );
            }
        }
        assert!(!readings.iter().any(|text| text.contains("speed=9.6") || text.contains("=47.7")), "{readings:?}");
    }
}

#[test]
fn the_first_line_may_be_cut() {
    let mut decoder = Nmea::new();
    let mut out = Vec::new();
    decoder.feed(b"35.5260,N,00054.7020,E*11\r\n$HEHDT,271.4,T*2F\r\n", BootTime(0), &mut out);
    assert_eq!(out.len(), 1);
    assert!(out[0].1.is_ok(), "{out:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_readings_or_faults(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        decode(chunks);
    }

    #[test]
    fn any_fields_are_readings_or_faults(
        kind in prop::sample::select(vec!["GGA", "RMC", "GSA", "VTG", "ZDA", "MWV", "MTW", "DPT", "HDT", "XYZ", ""]),
        fields in prop::collection::vec("[0-9A-Z.+-]{0,12}|[0-9]{6}|é", 0..20),
    ) {
        let line = with_sum(&format!("GP{kind},{}", fields.join(",")));
        for (_, outcome) in decode([&line, &line]) {
            if let Err(fault) = outcome {
                prop_assert_eq!(fault.code, FaultCode::BadData);
            }
        }
    }

    #[test]
    fn however_it_is_cut_the_same_comes_out(cuts in prop::collection::vec(1_usize..40, 1..200)) {
        let whole = (0..4).flat_map(second).collect::<String>();
        let mut rest = whole.as_bytes();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let texts = |outcomes: Vec<(u64, String)>| outcomes.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        prop_assert_eq!(texts(fine(pieces)), texts(fine([whole.as_bytes()])));
    }
}
