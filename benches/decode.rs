//! Bytes of serial links to samples, for each framing: a further one is a line in [`LINKS`], but for `modbus-rtu`, which
//! is asked.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use toml::de::DeTable;
use vigie::clock::BootTime;
use vigie::drivers::modbus_rtu::Plan;
use vigie::drivers::{self, ByteDecoder, Source};
use vigie::options::{Options, Problems};

fn main() {
    divan::main();
}

/// Lines that come with one read.
const LINES: usize = 64;

/// A driver, its keys, and one line or frame of its device.
struct Link {
    name: &'static str,
    driver: &'static str,
    keys: &'static str,
    line: &'static [u8],
}

const fn link(name: &'static str, driver: &'static str, keys: &'static str, line: &'static str) -> Link {
    Link { name, driver, keys, line: line.as_bytes() }
}

const LINKS: &[Link] = &[
    link("json-one", "serial-json", "", "{\"temp\":21.53}\n"),
    link("json-flat", "serial-json", "", "{\"temp\":21.53,\"hum\":40.1,\"n\":12345}\r\n"),
    link(
        "json-nested",
        "serial-json",
        "",
        "{\"temp\":21.5,\"lumière\":312,\"sol\":[412,398,405],\"air\":{\"humidity\":48.2,\"ok\":true}}\r\n",
    ),
    link(
        "json-acknowledge-millis",
        "serial-json",
        "acknowledge = \"1s\"\nmillis = \"n\"",
        "{\"temp\":21.53,\"hum\":40.1,\"n\":12345}\r\n",
    ),
    link("lines-pairs", "serial-lines", "", "temp=21.53 hum=40.1 n=12345\r\n"),
    link(
        "lines-people",
        "serial-lines",
        "",
        "Humidity: 56.00%  Temperature: 24.50°C 76.10°F  Heat index: 24.47°C 76.04°F\r\n",
    ),
    link("lines-csv", "serial-lines", "form = \"csv\"\ncolumns = [\"temp\", \"hum\", \"n\"]", "21.53,40.1,12345\r\n"),
    link(
        "lines-pattern",
        "serial-lines",
        "form = \"pattern\"\npattern = 'temp=(?<temp>\\S+) hum=(?<hum>\\S+) n=(?<n>\\S+)'",
        "temp=21.53 hum=40.1 n=12345\r\n",
    ),
    link(
        "nmea",
        "nmea",
        "",
        "$GNRMC,101500.00,A,4735.5260,N,00054.7020,E,1.944,87.3,211126,,,A*76\r\n\
         $GNVTG,87.3,T,,M,1.944,N,3.600,K,A*22\r\n\
         $GNGGA,101500.00,4735.5260,N,00054.7020,E,1,11,0.88,85.2,M,47.4,M,,*7F\r\n\
         $GNGSA,A,3,10,24,12,32,25,21,,,,,,,1.60,0.88,1.34,1*01\r\n",
    ),
    // The same number each time: each frame also tells of lost ones.
    Link {
        name: "frames",
        driver: "serial-frames",
        keys: "fields = [\"temp\", \"hum\", \"n\"]",
        line: b"\x00\x06\x11\x01\xf8\x24\x01\x01\x10\x06\x71\x3d\xac\x41\x01\x06\x66\x66\x20\x42\x02\x05\x39\x30\x01\x03\xf6\x92\x00",
    },
];

/// A decoder as the agent makes it from its configuration.
fn decoder(link: &Link) -> Box<dyn ByteDecoder> {
    let keys = format!("port = \"/dev/ttyUSB0\"\n{}", link.keys);
    let table = DeTable::parse(&keys).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let driver = drivers::find(link.driver).expect("a driver");
    let Some(Source::Serial { decoder, .. }) = (driver.parse)(&options).map(|parsed| parsed.source) else {
        panic!("{:?}", problems.into_sorted())
    };
    decoder()
}

#[divan::bench(args = LINKS.iter().map(|link| link.name))]
fn decode(bencher: Bencher<'_, '_>, name: &str) {
    let link = LINKS.iter().find(|link| link.name == name).expect("one of them");
    let chunk = link.line.repeat(LINES);
    let mut decoder = decoder(link);
    let mut out = Vec::with_capacity(LINES + 1);
    // What comes before the first end of a line is skipped by some, and a receiver's first moment waits for the second.
    decoder.feed(link.line, BootTime(1), &mut out);
    decoder.feed(link.line, BootTime(1), &mut out);
    bencher.counter(ItemsCount::new(LINES)).counter(BytesCount::new(chunk.len())).bench_local(|| {
        out.clear();
        decoder.feed(&chunk, BootTime(1), &mut out);
        assert!(out.len() == LINES && out.iter().all(|(_, outcome)| outcome.is_ok()));
    });
}

/// What an energy meter is asked, and its answer: three floats, 230.2 V, 5 A and 1150.5 W.
const METER: &str = r#"
address = 1
value = [
    { quantity = "voltage", input = 0, type = "f32", range = [80, 300] },
    { quantity = "current", input = 2, type = "f32" },
    { quantity = "power", input = 4, type = "f32" },
]
"#;
const ANSWER: &[u8] = b"\x01\x04\x0c\x43\x66\x33\x33\x40\xa0\x00\x00\x44\x8f\xd0\x00\x1c\xe5";

/// The request made, its answer found in what came and read, as often as lines are decoded above.
#[divan::bench]
fn modbus_rtu(bencher: Bencher<'_, '_>) {
    let table = DeTable::parse(METER).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let plan = Plan::parse(&options).expect("no problems");
    assert_eq!(plan.requests().len(), 1, "what lies together is read in one request");
    bencher.counter(ItemsCount::new(LINES)).counter(BytesCount::new(LINES * ANSWER.len())).bench_local(|| {
        for _ in 0..LINES {
            let asked = plan.requests().iter().map(|request| {
                divan::black_box(request.frame());
                request.answer(divan::black_box(ANSWER)).and_then(Result::ok).map(<[u8]>::to_vec)
            });
            let data: Vec<Vec<u8>> = asked.flatten().collect();
            assert!(divan::black_box(plan.samples(&data)).is_ok_and(|samples| samples.len() == 3));
        }
    });
}
