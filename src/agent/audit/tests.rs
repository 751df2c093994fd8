//! What is appended, and what is not.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::clock::{BootId, Clock, ManualClock};
use crate::config::{self, Machine};
use crate::drivers::DRIVERS;
use crate::logging::{AUDIT, AuditLayer};
use crate::outbox::{Outbox, Settings};
use crate::uplink::status::Info;

const CONFIG: &str = "[gateway]\nname = \"atelier\"\nsite = \"maison\"\n[uplink.home]\nurl = \"mqtt://broker.lan\"\n\
                      audit = true\n";

struct Setup {
    audit: Audit,
    trail: &'static Trail,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine { hostname: "pi".to_owned(), secrets: false, ..Machine::this() };
        let config = config::from_text("test.toml", CONFIG, &machine, DRIVERS).expect("a configuration");
        let settings = Settings::of_a_test(folder.path().join("outbox"), folder.path().join("tail"));
        let (mut outbox, _) = Outbox::open(settings, BootId([1; 16]), clock.boot()).expect("an outbox");
        outbox.cursor("home");
        let hub = Hub::new(outbox, clock.clone(), BootId([1; 16]), config.gateway.clone(), Info::default(), false);
        let wanted = Rc::new(Cell::new(is_wanted(&config.uplinks)));
        let audit = Audit { hub, wanted, began: None, in_window: 0, left_out: 0 };
        Self { audit, trail: Box::leak(Box::new(Trail::new())), clock, _folder: folder }
    }

    /// Says it so often, each time taken at once.
    fn say(&mut self, times: usize) {
        for _ in 0..times {
            tracing::subscriber::with_default(tracing_subscriber::registry().with(AuditLayer(self.trail)), || {
                tracing::info!(target: AUDIT, audit = "login", total = 7, "login refused");
            });
            if self.audit.take_all(self.trail) {
                self.audit.hub.outbox.borrow_mut().commit(self.clock.boot());
            }
        }
    }

    fn told(&self) -> Vec<Value> {
        let (outbox, mut entries) = (&mut *self.audit.hub.outbox.borrow_mut(), Vec::new());
        let cursor = outbox.cursor("home");
        outbox.read(cursor, 0, 1_000, &mut entries);
        let told = entries.iter().map(|entry| {
            let Body::Raw(raw) = &entry.body else { panic!("{entry:?}") };
            assert!(raw.is_audit() && !raw.retain);
            assert_eq!(raw.published_on(), "maison/atelier/audit");
            serde_json::from_slice(&raw.payload).expect("JSON")
        });
        told.collect()
    }
}

#[test]
fn an_event_is_a_record_only_where_it_is_wanted() {
    let mut setup = Setup::new();
    setup.audit.wanted.set(false);
    setup.say(1);
    assert!(setup.told().is_empty());
    setup.audit.wanted.set(true);
    setup.say(1);
    let told = setup.told();
    assert_eq!(told.len(), 1, "what was said before is gone: {told:?}");
    let expected =
        r#"{"event":"login","id":"1-0","message":"login refused","time":"2027-01-15T08:00:00.000Z","total":7}"#;
    assert_eq!(told[0].to_string(), expected);
}

#[test]
fn a_flood_is_bounded_and_what_is_left_out_is_told_afterwards() {
    let mut setup = Setup::new();
    setup.say(1_000);
    let most = MAX_EVENTS as usize;
    assert_eq!(setup.told().len(), most);
    setup.clock.advance(WINDOW);
    setup.say(2);
    let told = setup.told();
    assert_eq!(told.len(), most + 2);
    assert_eq!((&told[most]["left_out"], &told[most + 1]["left_out"]), (&Value::from(1_000 - most), &Value::Null));
}
