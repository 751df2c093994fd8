//! What changes while the agent is stopped is taken back from the broker as a reload does it.

use super::*;

/// Topics of the sensor `load` that the broker retains.
fn of_load(site: &Site) -> Vec<String> {
    site.retained().into_keys().filter(|topic| topic.contains("/load/")).collect()
}

const ALL: [&str; 3] = ["maison/load/five", "maison/load/load/availability", "maison/load/one"];

#[test]
fn what_a_broker_retains_of_a_sensor_goes_when_it_was_taken_out_before_a_start() {
    let mut site = Site::start(FEW);
    site.wait_online(&[("uptime", "uptime"), ("load", "load")]);
    wait_until("all to be retained", || of_load(&site) == ALL);
    // A start with the same configuration takes nothing back, although this device names its quantities itself.
    assert_eq!(site.agent.terminate(), Exit::Code(0));
    site.agent = site.gateway.run();
    let seen = site.receiver.on("maison/load/one").len();
    wait_until("more readings", || site.receiver.on("maison/load/one").len() > seen);
    assert_eq!(of_load(&site), ALL);
    let cleared = |site: &Site| site.receiver.on("maison/load/one").iter().any(|message| message.payload.is_empty());
    assert!(!cleared(&site), "{:?}", site.receiver.on("maison/load/one"));
    // It is taken out, and the broker is away at the first start after that.
    assert_eq!(site.agent.terminate(), Exit::Code(0));
    site.change(LOAD, "");
    site.broker.stop();
    site.agent = site.gateway.run();
    site.agent.wait_log("what the configuration has no longer is going to be taken back from the broker");
    site.agent.wait_log("readings wait in the outbox");
    site.agent.kill();
    site.broker.start_again();
    wait_until("what was retained to be there", || of_load(&site) == ALL);
    site.agent = site.gateway.run();
    wait_until("nothing of it to be retained", || of_load(&site).is_empty());
    assert!(site.retained().contains_key("maison/uptime/seconds"));
    // Somebody else has the topic from now on: nothing is ever taken back again.
    assert_eq!(site.agent.terminate(), Exit::Code(0));
    let publish = ["-h", "localhost", "-r", "-t", "maison/load/one", "-m", "mine", "-p"];
    let port = site.broker.port().to_string();
    assert!(Command::new("mosquitto_pub").args(publish).arg(port).status().expect("mosquitto_pub starts").success());
    site.agent = site.gateway.run();
    let seen = site.receiver.on("maison/uptime/seconds").len();
    wait_until("more of the others", || site.receiver.on("maison/uptime/seconds").len() > seen + 5);
    assert_eq!(site.retained().get("maison/load/one").map(String::as_str), Some("mine"));
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

/// At the end of the sensor's table.
const END: &str = "(?<five>\\S+)'\nevery = \"200ms\"\n";

#[test]
fn a_quantity_that_a_device_names_leaves_nothing_under_the_name_that_it_had() {
    let mut site = Site::start(FEW);
    wait_until("all to be retained", || of_load(&site) == ALL);
    let called = |name: &str| format!("{END}[sensor.quantity.one]\nas = \"{name}\"\n");
    let expected = |name: &str| {
        let mut topics: Vec<String> = ALL[..2].iter().map(|topic| (*topic).to_owned()).collect();
        topics.push(format!("maison/load/{name}"));
        topics.sort();
        topics
    };
    // While it runs: a name, another one, and none.
    site.change(END, &called("minute"));
    site.reload();
    wait_until("the name in place of the device's", || of_load(&site) == expected("minute"));
    site.change(&called("minute"), &called("shortest"));
    site.reload();
    wait_until("the second name in place of the first", || of_load(&site) == expected("shortest"));
    site.change(&called("shortest"), END);
    site.reload();
    wait_until("the device's own name", || of_load(&site) == expected("one"));
    // While it does not.
    for (before, name) in [("one", "minute"), ("minute", "shortest"), ("shortest", "one")] {
        let table = |name: &str| if name == "one" { END.to_owned() } else { called(name) };
        assert_eq!(site.agent.terminate(), Exit::Code(0));
        site.change(&table(before), &table(name));
        site.agent = site.gateway.run();
        wait_until(&format!("`{name}` in place of `{before}`"), || of_load(&site) == expected(name));
    }
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

#[test]
fn a_gateway_that_is_called_otherwise_leaves_nothing_under_its_old_name() {
    let mut site = Site::start("[[sensor]]\nname = \"pi\"\ndriver = \"host\"\nevery = \"200ms\"\n");
    wait_until("the gateway's state", || site.retained().contains_key("maison/atelier/info"));
    wait_until("a reading", || site.retained().keys().any(|topic| topic == "maison/uptime"));
    assert_eq!(site.agent.terminate(), Exit::Code(0));
    let text = fs::read_to_string(site.gateway.config_file()).expect("the configuration");
    fs::write(site.gateway.config_file(), text.replace("name = \"atelier\"", "name = \"cellar\"")).expect("a file");
    site.agent = site.gateway.run();
    wait_until("the new name", || site.retained().contains_key("maison/cellar/info"));
    wait_until("the old one to be gone", || !site.retained().keys().any(|topic| topic.starts_with("maison/atelier/")));
    assert!(site.retained().contains_key("maison/uptime"), "{:?}", site.retained());
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}
