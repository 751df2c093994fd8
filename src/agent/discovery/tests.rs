use std::path::Path;

use serde_json::Value;

use super::*;
use crate::clock::{BootId, Clock, ManualClock};
use crate::config::Machine;
use crate::drivers::DRIVERS;
use crate::outbox::{Outbox, Settings};
use crate::uplink::status::Info;

const HOME: &str =
    "[gateway]\nname = \"pi\"\nid = \"1\"\n[uplink.home]\nurl = \"mqtt://b\"\npreset = \"home-assistant\"\n";
const METEO: &str = "[[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"10s\"\n";
const SKETCH: &str = "[[sensor]]\nname = \"sketch\"\ndriver = \"serial-json\"\nport = \"/dev/ttyACM0\"\n";

/// A run of an agent with this configuration.
struct Run {
    hub: Rc<Hub>,
    discovery: Discovery,
    config: Config,
}

impl Run {
    fn start(folder: &Path, text: &str) -> Self {
        let machine = Machine { hostname: "pi".to_owned(), ..Machine::this() };
        let config = config::from_text("test.toml", text, &machine, DRIVERS);
        let config = config.map_err(|report| report.to_string()).expect("no errors");
        let settings = Settings::of_a_test(folder.join("outbox"), folder.join("tail"));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let boot = BootId([1; 16]);
        let (outbox, _) = Outbox::open(settings, boot, clock.boot()).expect("an outbox");
        let hub = Hub::new(outbox, clock, boot, config.gateway.clone(), Info::default(), false);
        let discovery = Discovery::new(&config, hub.clone(), "0.1.0", None);
        Self { hub, discovery, config }
    }

    /// The sensor gives these quantities.
    fn gives(&mut self, sensor: u32, names: &[(&str, Option<&str>)]) {
        let mut descriptor = self.config.sensors[sensor as usize].descriptor(&self.config.gateway);
        descriptor.quantities = names.iter().map(|(name, unit)| Quantity::new(name, *unit, Kind::Number)).collect();
        self.discovery.seen(SensorIndex(sensor), &Arc::new(descriptor));
        self.hub.outbox.borrow_mut().commit(self.hub.clock.boot());
    }

    /// What is announced on the topic of a device; `None`: nothing, in this run.
    fn announced(&self, id: &str) -> Option<String> {
        let topic = format!("homeassistant/device/{id}/config");
        self.hub.state_of("home").into_iter().find(|(known, _)| *known == topic).map(|(_, payload)| payload)
    }

    /// The keys of a device's entities with the number of what is said of each.
    fn entities(&self, id: &str) -> Vec<(String, usize)> {
        let message: Value = serde_json::from_str(&self.announced(id).expect("a message")).expect("JSON");
        let entities = message["cmps"].as_object().expect("entities").iter();
        entities.map(|(key, entity)| (key.clone(), entity.as_object().expect("an object").len())).collect()
    }
}

fn keys(entities: &[(String, usize)]) -> Vec<&str> {
    entities.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn what_is_announced_grows_with_what_a_device_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{SKETCH}"));
    assert!(run.announced("vigie_1").is_some_and(|message| message.contains("connectivity")));
    assert_eq!(run.announced("vigie_1_sketch"), None);
    run.gives(0, &[("t", Some("°C"))]);
    assert_eq!(keys(&run.entities("vigie_1_sketch")), ["t"]);
    run.gives(0, &[("t", Some("°C")), ("soil_0", None)]);
    assert_eq!(keys(&run.entities("vigie_1_sketch")), ["soil_0", "t"]);
    assert!(run.hub.state_of("other").iter().all(|(topic, _)| !topic.starts_with("homeassistant/")));
}

#[test]
fn a_sensor_that_leaves_the_configuration_is_taken_away_also_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{METEO}{SKETCH}"));
    run.gives(0, &[("temperature", Some("°C"))]);
    run.gives(1, &[("t", None)]);
    drop(run);
    for _ in 0..FORGOTTEN_AT {
        let run = Run::start(folder.path(), &format!("{HOME}{METEO}"));
        assert_eq!(run.announced("vigie_1_sketch").as_deref(), Some(""));
        assert_eq!(run.announced("vigie_1_meteo"), None, "it stays as it was");
    }
    let run = Run::start(folder.path(), &format!("{HOME}{METEO}"));
    assert_eq!(run.announced("vigie_1_sketch"), None, "told often enough");
    drop(run);
    // Without discovery nothing is left at all.
    let without = HOME.replace("preset = \"home-assistant\"", "");
    let run = Run::start(folder.path(), &format!("{without}{METEO}"));
    for id in ["vigie_1", "vigie_1_meteo"] {
        assert_eq!(run.announced(id).as_deref(), Some(""), "{id}");
    }
}

#[test]
fn a_quantity_that_is_renamed_or_gone_is_taken_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{METEO}{SKETCH}"));
    run.gives(0, &[("temperature", Some("°C")), ("humidity", Some("%"))]);
    run.gives(1, &[("t", None), ("u", None)]);
    drop(run);
    let renamed = "[sensor.quantity.t]\nas = \"outside\"\n";
    let meteo = format!("{METEO}[sensor.quantity.humidity]\nas = \"rh\"\n");
    let text = format!("{HOME}{meteo}{SKETCH}{renamed}");
    let mut run = Run::start(folder.path(), &text);
    run.gives(0, &[("temperature", Some("°C"))]);
    run.gives(1, &[("outside", None)]);
    let meteo = run.entities("vigie_1_meteo");
    assert_eq!(keys(&meteo), ["humidity", "temperature"]);
    assert_eq!(meteo[0].1, 1, "only its platform is left");
    let sketch = run.entities("vigie_1_sketch");
    assert_eq!(keys(&sketch), ["outside", "t"], "`u` may come yet");
    assert_eq!(sketch[1].1, 1);
    drop(run);
    for _ in 1..FORGOTTEN_AT {
        drop(Run::start(folder.path(), &text));
    }
    let mut run = Run::start(folder.path(), &text);
    run.gives(1, &[("outside", None)]);
    assert!(run.entities("vigie_1_sketch").contains(&("u".to_owned(), 1)), "it never came");
}

/// When a quantity's value counts as unknown.
fn expiry(sensor: &str, id: &str, quantity: &str) -> Option<u64> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{sensor}"));
    run.gives(0, &[(quantity, Some("°C"))]);
    let message: Value = serde_json::from_str(&run.announced(id).expect("a message")).expect("JSON");
    message["cmps"][quantity]["expire_after"].as_u64()
}

#[test]
fn a_value_expires_when_messages_should_have_come() {
    let expiry = |keys: &str| expiry(&format!("{METEO}{keys}"), "vigie_1_meteo", "temperature");
    assert_eq!(expiry(""), Some(60));
    assert_eq!(expiry("change = { temperature = 1 }\n"), None, "it may stand still for ever");
    assert_eq!(expiry("change = { temperature = 1 }\nheartbeat = \"10m\"\n"), Some(1_830));
    assert_eq!(expiry("[sensor.quantity.temperature]\nfilters = [{ offset = 1 }, { throttle = \"1m\" }]\n"), Some(210));
    assert_eq!(expiry("[sensor.quantity.temperature]\nfilters = [{ debounce = \"1s\" }]\n"), None);
}

#[test]
fn what_comes_by_itself_expires_where_it_is_certain_when_it_comes() {
    let sketch = |keys: &str| expiry(&format!("{SKETCH}{keys}"), "vigie_1_sketch", "t");
    assert_eq!(sketch(""), None, "nobody knows when it sends");
    assert_eq!(sketch("[sensor.quantity.t]\nfilters = [{ timeout = \"5m\" }]\n"), Some(930));
    assert_eq!(sketch("[sensor.quantity.t]\nfilters = [{ heartbeat = \"1m\" }]\n"), Some(210));
    assert_eq!(sketch("[sensor.quantity.t]\nfilters = [{ timeout = \"5m\" }, { delta = 1 }]\n"), None);
    assert_eq!(sketch("room = \"r\"\n[room.r]\nfilters = { t = [{ timeout = \"5m\" }] }\n"), Some(930));
    let line = "[[sensor]]\nname = \"door\"\ndriver = \"gpio-input\"\npin = 17\nevery = \"1m\"\n";
    assert_eq!(expiry(line, "vigie_1_door", "state"), Some(210), "its level is told each `every`");
    assert_eq!(expiry(line, "vigie_1_door", "edges_lost"), None, "only where some are");
    let once =
        "[[sensor]]\nname = \"prog\"\ndriver = \"exec\"\nmode = \"once\"\ncommand = [\"/bin/true\"]\nevery = \"1m\"\n";
    assert_eq!(expiry(once, "vigie_1_prog", "t"), Some(210));
}

#[test]
fn what_is_remembered_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{SKETCH}"));
    let names: Vec<String> = (0..700).map(|index| format!("{index:0>100}")).collect();
    let names: Vec<(&str, Option<&str>)> = names.iter().map(|name| (name.as_str(), None)).collect();
    run.gives(0, &names);
    assert_eq!(run.entities("vigie_1_sketch").len(), 700, "announced all the same");
    let stored = run.hub.outbox.borrow().state("discovery/home").map(<[u8]>::len);
    assert!(stored.is_some_and(|stored| stored <= MAX_REMEMBERED), "{stored:?}");
}

#[test]
fn a_lan_clients_sensor_is_announced_when_it_is_met_and_stays_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("{HOME}{METEO}");
    let meet = |run: &mut Run, index: u32, room: &str| {
        let mut descriptor = run.config.sensors[0].descriptor(&run.config.gateway);
        (descriptor.sensor, descriptor.room) = ("esp".into(), Some(room.into()));
        assert!(!run.discovery.knows(SensorIndex(index)));
        run.discovery.meet(SensorIndex(index), &descriptor);
        descriptor.quantities = vec![Quantity::new("t", Some("°C"), Kind::Number)];
        run.discovery.seen(SensorIndex(index), &Arc::new(descriptor));
        run.hub.outbox.borrow_mut().commit(run.hub.clock.boot());
    };
    let mut run = Run::start(folder.path(), &text);
    meet(&mut run, 7, "salon");
    assert_eq!(keys(&run.entities("vigie_1_esp")), ["t"]);
    let first = run.announced("vigie_1_esp");
    meet(&mut run, 8, "cave");
    assert_eq!(run.announced("vigie_1_esp"), first, "another room's of that name");
    drop(run);
    for _ in 1..FORGOTTEN_AT {
        assert_eq!(Run::start(folder.path(), &text).announced("vigie_1_esp"), None, "it stays as it was");
    }
    let mut run = Run::start(folder.path(), &text);
    assert_eq!(run.announced("vigie_1_esp").as_deref(), Some(""), "it was not met for too long");
    meet(&mut run, 7, "salon");
    assert_eq!(keys(&run.entities("vigie_1_esp")), ["t"]);
    drop(run);
    assert_eq!(Run::start(folder.path(), &text).announced("vigie_1_esp"), None, "it is there again");
}

#[test]
fn a_reload_takes_away_what_is_gone_and_counts_as_no_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::start(folder.path(), &format!("{HOME}{METEO}{SKETCH}"));
    run.gives(0, &[("temperature", Some("°C"))]);
    run.gives(1, &[("t", None), ("u", None)]);
    let machine = Machine { hostname: "pi".to_owned(), ..Machine::this() };
    let without = config::from_text("test.toml", &format!("{HOME}{SKETCH}"), &machine, DRIVERS).expect("no errors");
    // Its place in the pipeline is the one that it had.
    for _ in 0..2 * FORGOTTEN_AT {
        run.discovery.renew(&without, &[SensorIndex(1)]);
    }
    assert_eq!(run.announced("vigie_1_meteo").as_deref(), Some(""));
    run.gives(1, &[("t", None)]);
    assert_eq!(keys(&run.entities("vigie_1_sketch")), ["t"], "`u` may come yet, and is not taken away");
    let whole =
        config::from_text("test.toml", &format!("{HOME}{METEO}{SKETCH}"), &machine, DRIVERS).expect("no errors");
    run.discovery.renew(&whole, &[0, 1].map(SensorIndex));
    run.gives(0, &[("temperature", Some("°C"))]);
    assert_eq!(keys(&run.entities("vigie_1_meteo")), ["temperature"]);
}
