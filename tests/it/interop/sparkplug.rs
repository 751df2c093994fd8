//! A host that others wrote: `pysparkplug`, with the schema that the specification publishes.

use serde_json::{Value, json};

use crate::it::harness::{Exit, Gateway, Mosquitto, Script, wait_for, wait_until};

fn lines(host: &Script, kind: &str) -> Vec<Value> {
    let lines = host.lines.all().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter(|line| line["kind"] == kind).collect()
}

fn metric(message: &Value, name: &str) -> Value {
    let metrics = message["metrics"].as_array().expect("metrics");
    let found = metrics.iter().find(|metric| metric["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {message}")).clone()
}

fn is_live(message: &Value) -> bool {
    message["metrics"].as_array().is_some_and(|metrics| metrics.iter().all(|metric| metric["historical"] == false))
}

#[test]
fn a_host_understands_births_data_and_deaths_and_is_understood() {
    let broker = Mosquitto::start();
    let host = Script::start("sparkplug_host.py", &[&broker.port().to_string()]);
    wait_until("the host to subscribe", || host.lines.count("subscribed") > 0);
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [uplink.scada]\npreset = \"sparkplug\"\nurl = \"mqtt://localhost:{}\"\n\
         sparkplug = {{ group = \"usine\", node = \"pi\" }}\nbatch = {{ max = 3, wait = \"100ms\" }}\n\n\
         [room.salon]\nlabel = \"Salon d'été\"\n\n\
         [[sensor]]\nname = \"météo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"20ms\"\n",
        broker.port()
    ));
    let mut agent = gateway.run();
    wait_until("the births that the host asked for", || lines(&host, "NBIRTH").len() == 2);
    // What was measured before the value in the birth comes as history.
    let data = wait_for("live data after them", || {
        let lines = host.lines.all().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let lines: Vec<Value> = lines.collect();
        let birth = lines.iter().rposition(|line| line["kind"] == "DBIRTH")?;
        lines[birth..].iter().find(|line| line["kind"] == "DDATA" && is_live(line)).cloned()
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    let death = wait_for("the death", || lines(&host, "NDEATH").pop());

    for birth in lines(&host, "NBIRTH") {
        assert_eq!((&birth["seq"], &metric(&birth, "bdSeq")["value"]), (&json!(0), &death["bdSeq"]));
        assert_eq!(metric(&birth, "bdSeq")["type"], "INT64");
        assert_eq!(metric(&birth, "Node Control/Rebirth")["value"], json!(false));
    }
    let births = lines(&host, "DBIRTH");
    assert_eq!((&births[0]["device"], births[1]["metrics"].as_array().map(Vec::len)), (&json!(["météo"]), Some(4)));
    assert_eq!(metric(&births[1], "Properties/Room")["value"], "Salon d'été");
    for (name, least, most) in [("temperature", -40.0, 85.0), ("humidity", 0.0, 100.0), ("pressure", 300.0, 1_100.0)] {
        for found in [metric(&births[1], name), metric(&data, name)] {
            let value = found["value"].as_f64().expect("a number");
            assert!((least..=most).contains(&value) && found["type"] == "DOUBLE", "{found}");
            assert!(found["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{found}");
            assert_eq!((&found["historical"], &found["null"]), (&json!(false), &json!(false)));
        }
    }
    assert!(lines(&host, "DDATA").iter().any(|data| data["metrics"].as_array().is_some_and(|them| them.len() > 3)));
}
