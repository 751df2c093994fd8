//! Payloads that libraries of others decode: `cbor2` for SenML in CBOR, `line-protocol-parser` for InfluxDB's lines.

use serde_json::Value;

use crate::it::harness::{Exit, Gateway, Mosquitto, Script, wait_for, wait_until};

/// What the library reads out of the first message of several readings, each of a sensor whose name has every kind of
/// character in it.
fn first_batch(form: &str) -> Value {
    let broker = Mosquitto::start();
    let reader = Script::start("payload_reader.py", &[&broker.port().to_string(), form, "all"]);
    wait_until("the reader to subscribe", || reader.lines.count("subscribed") > 0);
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [uplink.home]\nurl = \"mqtt://localhost:{}\"\nqos = 2\nformat = \"{form}\"\ntopic = \"all/{{gateway}}\"\n\
         batch = {{ max = 20, wait = \"200ms\" }}\n\n\
         [[sensor]]\nname = \"météo, \\\"nord\\\" = 1\"\nroom = \"salle 12\"\ndriver = \"bme280\"\nevery = \"20ms\"\n\
         tags = {{ \"étage\" = \"1 \\\\ 2\" }}\n",
        broker.port()
    ));
    let mut agent = gateway.run();
    let several = wait_for("a message of several readings", || {
        let messages = reader.lines.all().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        messages.into_iter().find(|message| message["readings"].as_array().is_some_and(|found| found.len() > 6))
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    assert_eq!((&several["topic"], &several["retain"]), (&"all/atelier".into(), &false.into()));
    several
}

/// Names and units as RFC 8428 allows them, and the values of the simulated chip, in those units.
fn check_senml(message: &Value) {
    let readings = message["readings"].as_array().expect("an array");
    let mut before = 0.0;
    for reading in readings {
        let (_, name) = reading["n"].as_str().and_then(|name| name.rsplit_once('/')).expect("a base name");
        let (unit, least, most) = match name {
            "temperature" => ("Cel", -40.0, 85.0),
            "humidity" => ("%RH", 0.0, 100.0),
            "pressure" => ("Pa", 30_000.0, 110_000.0),
            other => panic!("{other}"),
        };
        assert_eq!(reading["n"], format!("maison/salle_12/m_t_o___nord____1/{name}"), "{reading}");
        assert_eq!(reading["u"], unit, "{reading}");
        let value = reading["v"].as_f64().expect("a number");
        assert!((least..=most).contains(&value), "{reading}");
        let time = reading["t"].as_f64().expect("a time");
        assert!(time >= before && time > 1_700_000_000.0, "{reading} after {before}");
        before = time;
    }
}

#[test]
fn a_pack_of_senml_is_resolved() {
    check_senml(&first_batch("senml"));
}

#[test]
fn a_pack_in_cbor_is_decoded_and_takes_less() {
    let (json, cbor) = (first_batch("senml"), first_batch("senml-cbor"));
    check_senml(&cbor);
    let each = |message: &Value| {
        let count = message["readings"].as_array().expect("an array").len();
        message["bytes"].as_u64().expect("a size") / u64::try_from(count).expect("a count")
    };
    assert!(each(&cbor) < each(&json), "{} {}", each(&cbor), each(&json));
}

#[test]
fn lines_are_parsed() {
    let message = first_batch("influx");
    let mut before = 0;
    for line in message["readings"].as_array().expect("an array") {
        assert_eq!(line["measurement"], "vigie", "{line}");
        let tags = serde_json::json!({
            "gateway": "atelier",
            "site": "maison",
            "room": "salle 12",
            "sensor": "météo, 'nord' = 1",
            "étage": "1 / 2",
        });
        assert_eq!(line["tags"], tags);
        let temperature = line["fields"]["temperature"].as_f64().expect("a number");
        assert!((-40.0..=85.0).contains(&temperature), "{line}");
        assert_eq!(line["fields"].as_object().expect("fields").len(), 3, "{line}");
        let time = line["time"].as_i64().expect("nanoseconds");
        assert!(time > before && time > 1_700_000_000_000_000_000, "{line} after {before}");
        before = time;
    }
}
