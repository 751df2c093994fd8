//! Prevents: a position that nobody was at, because a sentence was damaged, cut, or of another moment; and a receiver
//! whose way of speaking loses a part of what it says.
//!
//! A receiver of ours on a serial port says what real ones of that kind say; its track goes north-east.

use serde_json::Value;

use super::harness::{Agent, Exit, Gateway, Mosquitto, Port, Subscriber, wait_for, wait_until};

const TOPIC: &str = "maison/bateau/gps";

const AVAILABILITY: &str = "maison/bateau/gps/availability";

/// A receiver, and an agent that listens to it.
struct Setup {
    agent: Agent,
    subscriber: Subscriber,
    _broker: Mosquitto,
    _gateway: Gateway,
    port: Port,
}

impl Setup {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With more of a configuration.
    fn start_with(more: &str) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let (port, gateway) = (Port::open(), Gateway::new());
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\npayload = \"sensor\"\n\n\
             [[sensor]]\nname = \"gps\"\nroom = \"bateau\"\ndriver = \"nmea\"\nport = \"{}\"\n{more}",
            broker.port(),
            port.path().display()
        ));
        let agent = gateway.run();
        let mut setup = Self { agent, subscriber, _broker: broker, _gateway: gateway, port };
        wait_until("the port to be opened", || setup.port.is_open());
        // What is written to a port that was just opened may be skipped.
        wait_until("the link to work", || {
            setup.say(&["HEHDT,271.4,T".to_owned()]);
            std::thread::sleep(std::time::Duration::from_millis(20));
            !setup.subscriber.on(TOPIC).is_empty()
        });
        setup
    }

    /// Writes sentences with their checksums.
    fn say(&mut self, bodies: &[String]) {
        for body in bodies {
            self.port.write_line(&sentence(body));
        }
    }

    /// What was published of moments, once there is one with this time of day.
    #[track_caller]
    fn moments_until(&self, utc: &str) -> Vec<Value> {
        let moments = || {
            let messages = self.subscriber.on(TOPIC).into_iter().map(|message| message.json()["values"].clone());
            messages.filter(|values| values.get("heading").is_none()).collect::<Vec<_>>()
        };
        wait_for(&format!("the moment {utc}"), || {
            Some(moments()).filter(|moments| moments.iter().any(|moment| moment["utc"] == utc))
        })
    }

    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
    }
}

/// A sentence on the line, but for its end.
fn sentence(body: &str) -> String {
    format!("${body}*{:02X}\r", body.bytes().fold(0, |sum, byte| sum ^ byte))
}

/// Where the receiver is at the moment of that number, in minutes beyond 47 degrees north, and 0 degrees east.
fn minutes(number: u32) -> (f64, f64) {
    (35.526 + 0.003 * f64::from(number), 54.702 + 0.002 * f64::from(number))
}

/// What it says of that moment; `time` and `date` as they stand in sentences.
fn moment(talker: &str, time: &str, date: &str, number: u32) -> Vec<String> {
    let (north, east) = minutes(number);
    let position = format!("47{north:07.4},N,000{east:07.4},E");
    let mut said = vec![
        format!("{talker}RMC,{time},A,{position},1.944,41.8,{date},,,A"),
        format!("{talker}VTG,41.8,T,,M,1.944,N,3.600,K,A"),
        format!("{talker}GGA,{time},{position},1,11,0.88,85.2,M,47.4,M,,"),
        format!("{talker}GSA,A,3,10,24,12,32,25,21,,,,,,,1.60,0.88,1.34"),
        "GPGSV,1,1,02,10,67,067,41,12,49,312,38".to_owned(),
    ];
    if talker == "GN" {
        // One for each system of satellites.
        said.insert(4, "GNGSA,A,3,70,71,86,,,,,,,,,,1.60,0.88,1.34".to_owned());
        said.push("GLGSV,1,1,02,70,31,081,30,86,22,275,28".to_owned());
    }
    said
}

/// Is that what was published of the moment of that number?
#[track_caller]
fn assert_is_moment(values: &Value, number: u32, utc: Option<&str>) {
    let (north, east) = minutes(number);
    for (quantity, expected, within) in [
        ("latitude", 47.0 + north / 60.0, 1e-7),
        ("longitude", east / 60.0, 1e-7),
        ("altitude", 85.2, 1e-9),
        ("speed", 3.6, 1e-9),
        ("course", 41.8, 1e-9),
        ("satellites", 11.0, 0.0),
        ("hdop", 0.88, 1e-9),
        ("dimensions", 3.0, 0.0),
    ] {
        let found = values[quantity].as_f64();
        assert!(found.is_some_and(|found| (found - expected).abs() <= within), "{number}, {quantity}: {values}");
    }
    assert_eq!(values["fix"], true);
    assert_eq!(values.get("utc").and_then(Value::as_str), utc, "{number}");
}

#[test]
fn a_track_is_published_as_it_was_across_midnight_and_the_end_of_a_month() {
    // (talker, moments in ten seconds, decimals of the seconds)
    for (talker, rate, decimals) in [("GP", 10, 2), ("GN", 10, 3), ("GN", 100, 2)] {
        let mut setup = Setup::start();
        // From five seconds before the end of a February that has 28 days.
        let times = (0..rate).map(|number| {
            let hundredths = 86_400 * 100 - 500 + number * 1000 / rate;
            let (day, rest) = (hundredths / 8_640_000, hundredths % 8_640_000);
            let (seconds, fraction) = (rest / 100, rest % 100);
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let zeros = "0".repeat(decimals - 2);
            let time = format!("{hour:02}{minute:02}{second:02}.{fraction:02}{zeros}");
            let (date, iso) = if day == 0 { ("280227", "2027-02-28") } else { ("010327", "2027-03-01") };
            (time, date, format!("{iso}T{hour:02}:{minute:02}:{second:02}.{fraction:02}0Z"))
        });
        let times: Vec<(String, &str, String)> = times.collect();
        for (number, (time, date, _)) in (0..).zip(&times) {
            setup.say(&moment(talker, time, date, number));
        }
        let (_, _, last) = times.last().expect("there are some");
        let moments = setup.moments_until(last);
        assert_eq!(moments.len(), times.len(), "each once");
        for ((number, (_, _, utc)), values) in (0..).zip(&times).zip(&moments) {
            assert_is_moment(values, number, Some(utc));
        }
        assert!(setup.subscriber.on(AVAILABILITY).iter().all(|message| message.json()["state"] == "online"));
        setup.end();
    }
}

#[test]
fn what_is_damaged_or_cut_is_told_and_never_used() {
    let mut setup = Setup::start();
    setup.say(&moment("GN", "101530.00", "211126", 0));
    // The receiver seems to be ten degrees further north; a third of a sentence is lost; one has lost its end.
    let damaged = moment("GN", "101531.00", "211126", 1);
    for (number, body) in damaged.iter().enumerate() {
        let whole = sentence(body);
        setup.port.write_line(&match number {
            0 => whole.replace(",47", ",57"),
            2 => [&whole[..20], &whole[45..]].concat(),
            3 => whole[..30].to_owned(),
            _ => whole,
        });
    }
    setup.say(&moment("GN", "101532.00", "211126", 2));
    setup.say(&moment("GN", "101533.00", "211126", 3));
    let moments = setup.moments_until("2026-11-21T10:15:33.000Z");
    for values in &moments {
        let latitude = values["latitude"].as_f64();
        assert!(latitude.is_none_or(|latitude| (47.59..47.60).contains(&latitude)), "{values}");
    }
    for (second, number) in [(30, 0), (32, 2), (33, 3)] {
        let utc = format!("2026-11-21T10:15:{second}.000Z");
        let values = moments.iter().find(|values| values["utc"] == utc).expect("all but the damaged one");
        assert_is_moment(values, number, Some(&utc));
    }
    assert!(!moments.iter().any(|values| values["utc"] == "2026-11-21T10:15:31.000Z"), "nothing has said so");
    // The log tells of the first, with their count; the receiver as a whole is well.
    setup.agent.wait_log("not used: a sentence's checksum should be");
    assert!(setup.subscriber.on(AVAILABILITY).iter().all(|message| message.json()["state"] == "online"));
    setup.end();
}

#[test]
fn without_a_fix_or_a_date_nothing_is_made_up() {
    let mut setup = Setup::start();
    setup.say(&moment("GP", "101530.00", "211126", 0));
    // In a tunnel: receivers go on with where they were, with the time that they reckon, and with filler.
    let (north, east) = minutes(0);
    let before = format!("47{north:07.4},N,000{east:07.4},E");
    for second in 31..34 {
        setup.say(&[
            format!("GPRMC,1015{second}.00,V,{before},,,211126,,,N"),
            "GPVTG,,,,,,,,,N".to_owned(),
            format!("GPGGA,1015{second}.00,,,,,0,00,99.99,,,,,,"),
            "GPGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99".to_owned(),
        ]);
    }
    setup.say(&moment("GP", "101534.00", "211126", 4));
    // A receiver that is set up to say only where it is.
    let only_position = &moment("GP", "101535.00", "211126", 5)[2..4];
    setup.say(only_position);
    setup.say(&moment("GP", "101536.00", "211126", 6));
    setup.say(&moment("GP", "101537.00", "211126", 7));
    let moments = setup.moments_until("2026-11-21T10:15:37.000Z");
    let lost: Vec<&Value> = moments.iter().filter(|values| values["fix"] == false).collect();
    assert_eq!(lost.len(), 3, "{moments:?}");
    let silent = serde_json::json!({"satellites": 0, "dimensions": 0, "fix": false});
    assert!(lost.iter().all(|values| **values == silent), "{lost:?}");
    for (second, number) in [(30, 0), (34, 4), (36, 6), (37, 7)] {
        let utc = format!("2026-11-21T10:15:{second}.000Z");
        let values = moments.iter().find(|values| values["utc"] == utc).expect("what was said with a fix");
        assert_is_moment(values, number, Some(&utc));
    }
    let dateless: Vec<&Value> =
        moments.iter().filter(|values| values["fix"] == true && values.get("utc").is_none()).collect();
    let latitude = 47.0 + minutes(5).0 / 60.0;
    assert_eq!(dateless.len(), 1, "{moments:?}");
    assert!(dateless[0]["latitude"].as_f64().is_some_and(|found| (found - latitude).abs() <= 1e-7), "{dateless:?}");
    setup.end();
}

/// A trailer whose place is that of the receiver, and which is nowhere once the receiver is silent.
#[test]
fn what_moves_has_the_place_of_its_receiver() {
    let mut setup = Setup::start_with(
        "[room.bateau]\nlocation = { sensor = \"gps\", max_age = \"2s\" }\n\n\
         [[sensor]]\nname = \"cpu\"\nroom = \"bateau\"\ndriver = \"host\"\nevery = \"100ms\"\n",
    );
    let last = || setup.subscriber.on("maison/bateau/cpu").last().map(|message| message.json());
    let first = wait_for("a reading", last);
    assert_eq!(first.get("location"), None, "there was no fix yet: {first}");
    setup.say(&moment("GN", "101530.00", "211126", 0));
    setup.say(&moment("GN", "101531.00", "211126", 0));
    let last = || setup.subscriber.on("maison/bateau/cpu").last().map(|message| message.json());
    let (north, east) = minutes(0);
    let placed = wait_for("a place", || last().filter(|message| message.get("location").is_some()));
    let place = &placed["location"];
    for (key, expected) in
        [("latitude", 47.0 + north / 60.0), ("longitude", east / 60.0), ("altitude", 132.6), ("accuracy", 4.4)]
    {
        assert!(place[key].as_f64().is_some_and(|found| (found - expected).abs() < 1e-6), "{key}: {placed}");
    }
    assert!(place["age"].as_f64().is_some_and(|age| (0.0..=2.0).contains(&age)), "{placed}");
    wait_until("the fix to be too old", || last().is_some_and(|message| message.get("location").is_none()));
    setup.end();
}
