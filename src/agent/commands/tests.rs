//! The stage with a simulated disk: what is handed on, what is refused, and what is published of it.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::clock::{BootId, Clock, ManualClock};
use crate::config::{self, Machine};
use crate::drivers::DRIVERS;
use crate::outbox::{Outbox, Settings};
use crate::sampler::remote::{Reins, remote};
use crate::uplink::status::Info;

const CONFIG: &str = r#"
[gateway]
name = "atelier"
site = "maison"
[uplink.home]
url = "mqtt://broker.lan"
commands = true
[[sensor]]
name = "relais"
driver = "serial-json"
port = "/dev/ttyUSB0"
"#;

struct Setup {
    stage: Commands,
    reins: Reins,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

/// A text that gives the time of its sending, in seconds from now.
fn sent(clock: &ManualClock, seconds: i64) -> String {
    let now = clock.wall().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let time = UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(seconds));
    format!(r#"{{"time":"{}","ref":"a"}}"#, humantime::format_rfc3339_seconds(time))
}

impl Setup {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1_000));
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Self::with(clock)
    }

    fn with(clock: Arc<ManualClock>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine { hostname: "pi".to_owned(), secrets: false, ..Machine::this() };
        let config = config::from_text("test.toml", CONFIG, &machine, DRIVERS).expect("a configuration");
        let settings = Settings::of_a_test(folder.path().join("outbox"), folder.path().join("tail"));
        let (mut outbox, _) = Outbox::open(settings, BootId([1; 16]), clock.boot()).expect("an outbox");
        outbox.cursor("home");
        let hub = Hub::new(outbox, clock.clone(), BootId([1; 16]), config.gateway.clone(), Info::default(), false);
        let (end, reins) = remote();
        let descriptor = config.sensors[0].descriptor(&config.gateway);
        let target = Target::new(&config.gateway.topic, descriptor, end.orders);
        Self { stage: Commands::new(hub, false, vec![target]), reins, clock, _folder: folder }
    }

    fn request(&self, payload: &str) -> Request {
        Request {
            uplink: "home".to_owned(),
            sensor: "relais".to_owned(),
            payload: payload.as_bytes().into(),
            reference: None,
            time: None,
            at: self.clock.boot(),
            max_age: Duration::from_secs(30),
            refused: None,
        }
    }

    async fn send(&mut self, payload: &str) {
        let request = self.request(payload);
        self.stage.take(request).await;
    }

    /// What was published so far.
    fn results(&self) -> Vec<Json> {
        let outbox = &mut *self.stage.hub.outbox.borrow_mut();
        let cursor = outbox.cursor("home");
        let mut entries = Vec::new();
        outbox.read(cursor, 0, 1_000, &mut entries);
        entries
            .iter()
            .map(|entry| {
                let Body::Reading { descriptor, values } = &entry.body else { panic!("not a reading") };
                assert_eq!(descriptor.quantities[0].topic.as_deref(), Some("maison/relais/set/result"));
                let [(0, Value::Bytes(payload))] = values.as_slice() else { panic!("not one payload") };
                let json: Json = serde_json::from_slice(payload).expect("JSON");
                assert_eq!(json["id"], format!("{}-{}", entry.run, entry.seq), "its own id");
                assert_eq!((&json["sensor"], &json["uplink"]), (&"relais".into(), &"home".into()));
                json
            })
            .collect()
    }

    /// Why the last one failed.
    fn last_error(&self) -> String {
        let last = self.results().pop().expect("a result");
        assert_eq!(last["ok"], false);
        last["error"].as_str().expect("a text").to_owned()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_command_goes_to_its_sensor_and_its_result_to_the_outbox() {
    run(async {
        let mut setup = Setup::new();
        setup.send(r#"{"led":true,"ref":17}"#).await;
        let order = setup.reins.order().await;
        assert_eq!(*order.payload, *br#"{"led":true}"#);
        assert_eq!(order.until, setup.clock.boot().after(Duration::from_secs(30)));
        assert!(setup.results().is_empty(), "nothing is known yet");
        order.done.send(Ok(())).expect("awaited");
        setup.send("plain text").await;
        let order = setup.reins.order().await;
        assert_eq!(*order.payload, *b"plain text");
        drop(order);
        let (stop, stopped) = watch::channel(true);
        let (_requests, waiting) = mpsc::channel(1);
        let Setup { stage, reins, clock, _folder } = setup;
        let hub = stage.hub.clone();
        stage.run(waiting, super::super::calls::calls().1, stopped).await;
        drop(stop);
        let setup = Setup {
            stage: Commands { hub, targets: HashMap::new(), strict: false, under_way: JoinSet::new() },
            reins,
            clock,
            _folder,
        };
        let results = setup.results();
        assert_eq!(results.len(), 2);
        let ok = results.iter().find(|result| result["ok"] == true).expect("one was done");
        assert_eq!((&ok["ref"], &ok["time"]), (&17.into(), &"2027-01-15T08:00:00.000Z".into()));
        assert!(ok["error"].is_null());
        assert!(
            setup.results().iter().any(|result| result["error"].as_str().is_some_and(|why| why.contains("has ended")))
        );
    });
}

#[test]
fn what_is_too_old_or_refused_already_never_gets_to_the_sensor() {
    run(async {
        let mut setup = Setup::new();
        let (old, future) = (sent(&setup.clock, -31), sent(&setup.clock, 31));
        setup.send(&old).await;
        assert!(setup.last_error().contains("31s ago"), "{}", setup.last_error());
        setup.send(&future).await;
        assert!(setup.last_error().contains("31s from now"), "{}", setup.last_error());
        setup.send(r#"{"time":"tomorrow"}"#).await;
        assert!(setup.last_error().contains("RFC 3339"));
        let by_packet = Request { time: Some("2020-01-01T00:00:00Z".to_owned()), ..setup.request("{}") };
        setup.stage.take(by_packet).await;
        assert!(setup.last_error().contains("ago"));
        let refused = Request { refused: Some("it is retained".to_owned()), ..setup.request(r#"{"ref":"r"}"#) };
        setup.stage.take(refused).await;
        assert_eq!((setup.last_error().as_str(), &setup.results()[4]["ref"]), ("it is retained", &"r".into()));
        assert_eq!(setup.stage.hub.counters("home").commands_refused.get(), 5);
        assert!(setup.stage.under_way.is_empty());

        let fresh = sent(&setup.clock, -29);
        setup.send(&fresh).await;
        assert_eq!(*setup.reins.order().await.payload, *b"{}");
    });
}

#[test]
fn a_flood_is_refused_and_does_not_fill_the_outbox() {
    run(async {
        let mut setup = Setup::new();
        for _ in 0..5_000 {
            setup.send("{}").await;
        }
        // As many as may wait for the sensor were handed on; of the others, some were told.
        assert_eq!(setup.stage.under_way.len(), MAX_WAITING);
        let results = setup.results();
        assert_eq!(results.len(), 20);
        assert!(results[0]["error"].as_str().is_some_and(|why| why.contains("8 commands wait")), "{}", results[0]);
        assert!(setup.last_error().contains("too many commands"), "{}", setup.last_error());
        assert_eq!(setup.stage.hub.counters("home").commands_refused.get(), 5_000 - 8);
    });
}

#[test]
fn without_a_clock_a_result_says_when_it_was_all_the_same() {
    run(async {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_millis(12_345));
        let mut setup = Setup::with(clock);
        setup.send(r#"{"time":"now"}"#).await;
        let result = setup.results().pop().expect("a result");
        assert_eq!((&result["uptime"], &result["time"]), (&12.345.into(), &Json::Null));
        // Nobody knows how old it is: it came over a live connection.
        setup.send(r#"{"time":"2001-01-01T00:00:00Z"}"#).await;
        assert_eq!(*setup.reins.order().await.payload, *b"{}");
    });
}
