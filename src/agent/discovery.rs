//! Announces the sensors to home automations, and takes away what is there no more.
//!
//! Quantities are learnt at run time, so that what is announced of a sensor grows with its descriptor. It is state, which
//! one uplink alone sends. What was announced is remembered in the outbox's state: an entity or a device that a later
//! configuration does not have must be taken away by us, because the broker retains it for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::{
    self, Config, Connect, Format, KnownQuantity, Payload, PayloadShape, Qos, Selection, SensorConfig, UplinkConfig,
};
use crate::drivers::Source;
use crate::drivers::support::gpio::EDGES_LOST;
use crate::reading::{Descriptor, Kind, Quantity, SensorIndex};
use crate::targets::home_assistant::message::{self, Device, PLATFORMS, Place, Published, Sensor};
use crate::topic::Template;
use crate::uplink::Hub;
use crate::uplink::encode::acceptable;
use crate::uplink::status::sensor_availability_topic;

mod met;

use self::met::Met;

/// Before an uplink's name: the key of what it has announced.
const PREFIX: &str = "discovery/";

/// An entity that its sensor has not given since so many starts is taken away; and what was taken away is told to the
/// broker at so many starts, should it not have been reached.
const FORGOTTEN_AT: u8 = 20;

/// Bytes that are remembered of what an uplink has announced. What is more is announced all the same, and stays with the
/// broker when it is there no more.
const MAX_REMEMBERED: usize = 48 * 1_024;

/// What is remembered of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    entities: BTreeMap<String, Former>,
    /// At how many starts it has no longer been configured.
    gone: u8,
}

/// What is remembered of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    /// Index into [`PLATFORMS`].
    platform: u8,
    /// At how many starts it has not been seen since.
    unseen: u8,
}

/// An uplink that announces.
struct Announcer {
    uplink: String,
    discovery: config::Discovery,
    gateway: message::Gateway,
    selection: Selection,
    payload: Payload,
    /// Longest time for which it is not connected on purpose.
    away: Duration,
    /// By topic.
    remembered: BTreeMap<String, Remembered>,
    /// Sensors of LAN clients.
    met: Met,
}

/// A sensor.
struct Known {
    name: String,
    driver: &'static str,
    /// What it can have, as far as that is known before it is read.
    entities: Entities,
    /// Time between two readings, where that is known.
    every: Option<Duration>,
    /// The same between two values of quantities that are known before they come, by published name: behind their filters.
    paces: BTreeMap<String, Option<Duration>>,
    /// As it was announced.
    descriptor: Option<Arc<Descriptor>>,
}

/// Keys of entities.
enum Entities {
    /// These and no others.
    These(BTreeSet<String>),
    /// Whatever the device says, but not these.
    AllBut(BTreeSet<String>),
}

/// The stage.
pub(super) struct Discovery {
    hub: Rc<Hub>,
    topic: Template,
    version: &'static str,
    board: Option<String>,
    announcers: Vec<Announcer>,
    sensors: HashMap<SensorIndex, Known>,
}

/// When the configuration is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    Start,
    /// No start, as far as those are counted.
    Reload,
}

impl Discovery {
    /// Announces the gateway, and takes away what the configuration has no longer.
    pub(super) fn new(config: &Config, hub: Rc<Hub>, version: &'static str, board: Option<&str>) -> Self {
        let places: Vec<SensorIndex> = (0..).zip(&config.sensors).map(|(index, _)| SensorIndex(index)).collect();
        Self::of(config, &places, hub, version, board, Occasion::Start)
    }

    /// Goes on with another configuration, `places` being the indices of its sensors. Each is announced anew when it is
    /// next [seen](Self::seen), which nobody is told of where nothing has changed.
    pub(super) fn renew(&mut self, config: &Config, places: &[SensorIndex]) {
        *self = Self::of(config, places, self.hub.clone(), self.version, self.board.as_deref(), Occasion::Reload);
    }

    fn of(
        config: &Config,
        places: &[SensorIndex],
        hub: Rc<Hub>,
        version: &'static str,
        board: Option<&str>,
        occasion: Occasion,
    ) -> Self {
        let known = places.iter().zip(&config.sensors).map(|(place, sensor)| (*place, Known::new(sensor)));
        let sensors: HashMap<SensorIndex, Known> = known.collect();
        forget_former_uplinks(config, &hub);
        met::forget_former_uplinks(config, &hub);
        let mut announcers = Vec::new();
        for uplink in &config.uplinks {
            let mut remembered = recall(&hub, &uplink.name);
            let announcer = uplink.discovery.as_ref().map(|discovery| Announcer {
                uplink: uplink.name.clone(),
                gateway: gateway(config, uplink, &hub, version, board),
                selection: uplink.selection.clone(),
                payload: uplink.payload.clone(),
                away: match uplink.connect {
                    Connect::Always => Duration::ZERO,
                    Connect::Every(every) => every,
                },
                discovery: discovery.clone(),
                remembered: BTreeMap::new(),
                met: Met::recall(&hub, &uplink.name, occasion),
            });
            let there = announcer.as_ref().map(|announcer| announcer.topics(&config.sensors)).unwrap_or_default();
            for topic in start(&mut remembered, &there, occasion) {
                hub.set_state_of(&uplink.name, &topic, "");
            }
            if let Some(mut announcer) = announcer {
                announcer.remembered = remembered;
                let device = Device::gateway(&announcer.gateway);
                announcer.publish(&hub, &message::device_id(&announcer.gateway, None), &device);
                announcer.save(&hub);
                announcer.met.save(&hub, &announcer.uplink);
                announcers.push(announcer);
            } else {
                save(&hub, &uplink.name, &remembered);
            }
        }
        hub.outbox.borrow_mut().commit(hub.clock.boot());
        let board = board.map(str::to_owned);
        Self { topic: config.gateway.topic.clone(), version, board, hub, announcers, sensors }
    }

    /// Is there nothing to learn of that sensor?
    pub(super) fn knows(&self, sensor: SensorIndex) -> bool {
        self.announcers.is_empty() || self.sensors.contains_key(&sensor)
    }

    /// A LAN client's sensor is there that no configuration names. Of those with one name in several rooms the first is
    /// announced: a device has one topic.
    pub(super) fn meet(&mut self, sensor: SensorIndex, descriptor: &Descriptor) {
        let Self { hub, announcers, sensors, .. } = self;
        let name = &*descriptor.sensor;
        if sensors.values().any(|known| known.name == name) {
            return;
        }
        for announcer in announcers {
            let id = message::device_id(&announcer.gateway, Some(name));
            if announcer.selection.holds(name, descriptor.room.as_deref())
                && announcer.met.meet(&announcer.discovery.device_topic(&id))
            {
                announcer.met.save(hub, &announcer.uplink);
            }
        }
        sensors.insert(sensor, Known::met(name));
    }

    /// A sensor gave a reading under this descriptor. What is remembered is safe with the next commit.
    pub(super) fn seen(&mut self, sensor: SensorIndex, descriptor: &Arc<Descriptor>) {
        let Self { hub, topic, announcers, sensors, .. } = self;
        let Some(known) = sensors.get_mut(&sensor).filter(|_| !announcers.is_empty()) else { return };
        if known.descriptor.as_ref().is_some_and(|last| Arc::ptr_eq(last, descriptor)) {
            return;
        }
        for announcer in announcers {
            if announcer.selection.holds(&known.name, descriptor.room.as_deref()) {
                announcer.announce(hub, topic, known, descriptor);
                announcer.save(hub);
            }
        }
        known.descriptor = Some(Arc::clone(descriptor));
    }
}

impl Announcer {
    /// Topics of the devices that the configuration has.
    fn topics(&self, sensors: &[SensorConfig]) -> BTreeSet<String> {
        let held = sensors.iter().filter(|sensor| self.selection.holds(&sensor.name, sensor.room.as_deref()));
        let ids = held.map(|sensor| message::device_id(&self.gateway, Some(&sensor.name)));
        let gateway = message::device_id(&self.gateway, None);
        let of_ours = ids.chain([gateway]).map(|id| self.discovery.device_topic(&id));
        of_ours.chain(self.met.topics().cloned()).collect()
    }

    fn announce(&mut self, hub: &Hub, topic: &Template, known: &Known, descriptor: &Descriptor) {
        let sensor = Sensor {
            name: &known.name,
            label: descriptor.label.as_deref(),
            room: descriptor.room_label.as_deref().or(descriptor.room.as_deref()),
            driver: known.driver,
            availability: sensor_availability_topic(topic, descriptor),
        };
        let mut device = Device::sensor(&self.gateway, &sensor);
        for quantity in &descriptor.quantities {
            let place = self.place(quantity);
            let topic = match place {
                Place::Values => self.payload.sensor_topic(topic, descriptor),
                Place::Value | Place::Bare | Place::Whole => self.payload.quantity_topic(topic, descriptor, quantity),
            };
            let Some(topic) = acceptable(topic) else { continue };
            let interval = known.interval(&quantity.name).map(|interval| interval + self.away);
            let qos = self.gateway.qos;
            device.add(&Published { quantity, topic: &topic, place, interval, qos });
        }
        let id = message::device_id(&self.gateway, Some(&known.name));
        if let Some(remembered) = self.remembered.get(&self.discovery.device_topic(&id)) {
            for (key, former) in &remembered.entities {
                let is_there = device.entities().contains_key(key);
                if !is_there && (former.unseen >= FORGOTTEN_AT || !known.may_have(key)) {
                    let platform = PLATFORMS.get(usize::from(former.platform)).copied();
                    device.remove(key, platform.unwrap_or("sensor"));
                }
            }
        }
        self.publish(hub, &id, &device);
    }

    /// Where a quantity's value stands in the payloads of this uplink; bytes are published one by one.
    fn place(&self, quantity: &Quantity) -> Place {
        match (quantity.kind, self.payload.shape, self.payload.format) {
            (Kind::Bytes, ..) if !self.payload.base64 => Place::Whole,
            (_, _, Format::Value) => Place::Bare,
            (Kind::Bytes, ..) | (_, PayloadShape::Quantity, _) => Place::Value,
            (_, PayloadShape::Sensor, _) => Place::Values,
        }
    }

    fn publish(&mut self, hub: &Hub, id: &str, device: &Device) {
        let topic = self.discovery.device_topic(id);
        let remembered = self.remembered.entry(topic.clone()).or_default();
        for (key, entity) in device.entities() {
            let Some(platform) = PLATFORMS.iter().position(|platform| *platform == entity.platform) else { continue };
            let unseen = if entity.is_there() { 0 } else { remembered.unseen(key) };
            let platform = u8::try_from(platform).expect("a handful of platforms");
            remembered.entities.insert(key.clone(), Former { platform, unseen });
        }
        hub.set_state_of(&self.uplink, &topic, device.to_json());
    }

    fn save(&self, hub: &Hub) {
        save(hub, &self.uplink, &self.remembered);
    }
}

impl Remembered {
    fn unseen(&self, key: &str) -> u8 {
        self.entities.get(key).map_or(0, |former| former.unseen)
    }
}

impl Known {
    fn new(sensor: &SensorConfig) -> Self {
        let pipeline = &sensor.pipeline;
        let every = match &sensor.source {
            Source::Poller(_) | Source::Line(_) => Some(sensor.every),
            Source::Process(source) => source.settings.once.is_some().then_some(sensor.every),
            Source::Serial { .. } => None,
        };
        let mut known = sensor.known_quantities();
        // A room's filters are for whatever a device may name so.
        let is_known = |name: &str| {
            pipeline.quantities.contains_key(name) || known.iter().any(|known| pipeline.name(&known.name) == name)
        };
        let of_room = pipeline.filters.keys().filter(|name| !is_known(name));
        let of_room: Vec<KnownQuantity> =
            of_room.map(|name| KnownQuantity { name: name.clone(), kind: None, unit: None }).collect();
        known.extend(of_room);
        let (mut configured, mut paces) = (BTreeSet::new(), BTreeMap::new());
        for known in known {
            let kind = known.kind.unwrap_or(Kind::Number);
            // What cannot be was refused with the configuration.
            let Ok(published) = pipeline.published(&known.name, kind, known.kind.is_some(), known.unit) else {
                continue;
            };
            let every = every.filter(|_| known.name != EDGES_LOST.name);
            let pace = published.chain.pace(every);
            for quantity in published.quantities {
                configured.insert(message::entity_key(&quantity.name));
                paces.insert(quantity.name.into(), pace);
            }
        }
        let entities = if sensor.driver.quantities.is_empty() {
            let own = pipeline.quantities.keys().map(|name| message::entity_key(name));
            Entities::AllBut(own.filter(|key| !configured.contains(key)).collect())
        } else {
            Entities::These(configured)
        };
        Self { name: sensor.name.clone(), driver: sensor.driver.name, entities, every, paces, descriptor: None }
    }

    /// A LAN client's sensor, of which nothing is known but what it says.
    fn met(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            driver: "MQTT",
            entities: Entities::AllBut(BTreeSet::new()),
            every: None,
            paces: BTreeMap::new(),
            descriptor: None,
        }
    }

    /// Between two messages with that quantity.
    fn interval(&self, quantity: &str) -> Option<Duration> {
        self.paces.get(quantity).copied().unwrap_or(self.every)
    }

    fn may_have(&self, key: &str) -> bool {
        match &self.entities {
            Entities::These(these) => these.contains(key),
            Entities::AllBut(others) => !others.contains(key),
        }
    }
}

fn gateway(
    config: &Config,
    uplink: &UplinkConfig,
    hub: &Hub,
    version: &'static str,
    board: Option<&str>,
) -> message::Gateway {
    let gateway = &config.gateway;
    message::Gateway {
        id: gateway.id.clone(),
        name: gateway.label.as_ref().unwrap_or(&gateway.name).clone(),
        board: board.map(str::to_owned),
        version,
        availability: hub.topic("availability"),
        // Home Assistant's own default is 0, which loses what is under way when its connection is.
        qos: u8::from(uplink.qos != Qos::AtMostOnce),
    }
}

/// What an uplink announced in earlier runs.
fn recall(hub: &Hub, uplink: &str) -> BTreeMap<String, Remembered> {
    let outbox = hub.outbox.borrow();
    let stored = outbox.state(&format!("{PREFIX}{uplink}"));
    stored.and_then(|stored| postcard::from_bytes(stored).ok()).unwrap_or_default()
}

/// A start, or a reload, with these topics. Gives those to be taken away.
fn start(remembered: &mut BTreeMap<String, Remembered>, there: &BTreeSet<String>, occasion: Occasion) -> Vec<String> {
    let starts = u8::from(occasion == Occasion::Start);
    for (topic, device) in remembered.iter_mut() {
        device.gone = if there.contains(topic) { 0 } else { device.gone.saturating_add(starts).max(1) };
        for former in device.entities.values_mut() {
            former.unseen = former.unseen.saturating_add(starts);
        }
        device.entities.retain(|_, former| former.unseen < 2 * FORGOTTEN_AT);
    }
    remembered.retain(|_, device| device.gone <= FORGOTTEN_AT);
    remembered.iter().filter(|(_, device)| device.gone > 0).map(|(topic, _)| topic.clone()).collect()
}

fn save(hub: &Hub, uplink: &str, remembered: &BTreeMap<String, Remembered>) {
    let key = format!("{PREFIX}{uplink}");
    let outbox = &mut *hub.outbox.borrow_mut();
    let stored = if remembered.is_empty() { None } else { postcard::to_allocvec(remembered).ok() };
    if stored.as_ref().is_some_and(|stored| stored.len() > MAX_REMEMBERED) {
        warn!(
            uplink,
            "too much is announced to remember all of it: what leaves the configuration stays with the broker"
        );
        return;
    }
    if outbox.state(&key) != stored.as_deref() {
        outbox.put_state(&key, stored);
    }
}

/// Nobody can tell the broker of an uplink that is gone.
fn forget_former_uplinks(config: &Config, hub: &Hub) {
    let outbox = &mut *hub.outbox.borrow_mut();
    let is_there = |key: &str| config.uplinks.iter().any(|uplink| uplink.name == key[PREFIX.len()..]);
    let former: Vec<String> = outbox.state_keys(PREFIX).filter(|key| !is_there(key)).map(str::to_owned).collect();
    for key in former {
        outbox.put_state(&key, None);
    }
}

#[cfg(test)]
mod tests;
