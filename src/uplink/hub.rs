//! What the tasks of the core thread share.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::{BootId, BootTime, Clock, Offset, WallTime};
use crate::command::Request;
use crate::config::{Commands, Gateway, UplinkConfig};
use crate::outbox::{Moment, Outbox, Seq};
use crate::reading::{Descriptor, Fault, Values};
use crate::topic::Template;

use super::counters::Counters;
use super::dating::Dating;
use super::refused::{self, RefusedMessage};
use super::sensors::Sensors;
use super::status::{self, Board, Info, sensor_availability, sensor_availability_in_short, sensor_availability_topic};
use super::veil::Veil;

mod time;

pub use time::{ClockStatus, Step};

use time::Steps;

/// What was taken so shortly before a connection was up is live all the same.
pub const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// Times that are remembered to tell what was taken within [`LIVE_WITHIN`].
const MARKS: u32 = 25;

/// Batches of refused messages that may wait to be put aside. Further ones are counted and gone.
const MAX_WRITING: usize = 4;

/// What the tasks of the core thread share. Nobody holds a borrow across an await.
pub struct Hub {
    /// The records.
    pub outbox: RefCell<Outbox>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// This boot.
    pub boot: BootId,
    /// `[gateway]`
    pub gateway: Gateway,
    pub(super) tail_found: bool,
    pub(super) board: RefCell<Board>,
    info: RefCell<Info>,
    dating: RefCell<Dating>,
    /// This boot's offset, for whoever must know it on the core's thread.
    offset: watch::Sender<Option<Offset>>,
    steps: RefCell<Steps>,
    pub(super) work: watch::Sender<()>,
    /// Wakes whoever flushes the outbox: something may be due sooner than it was before.
    pub flush: Notify,
    /// The time of which it was told last, for acknowledgements.
    flush_told: Cell<Option<BootTime>>,
    /// How far the outbox had come at which time, for the last [`LIVE_WITHIN`] and once before.
    marks: RefCell<VecDeque<(BootTime, Seq)>>,
    counters: RefCell<BTreeMap<String, Rc<Counters>>>,
    sensors: RefCell<Sensors>,
    /// Of the uplinks that hide something.
    veils: RefCell<BTreeMap<String, Veil>>,
    /// Refused messages on their way to their folder.
    writing: RefCell<JoinSet<()>>,
    /// To whoever carries out commands.
    commands: OnceCell<mpsc::Sender<Request>>,
    /// By uplink: the commands that it takes from now on, until it has noticed.
    renewed: RefCell<BTreeMap<String, Option<Commands>>>,
}

impl Hub {
    /// `tail_found`: the outbox had a tail when it was opened (a run that ends in order leaves none).
    #[must_use]
    pub fn new(
        outbox: Outbox,
        clock: Arc<dyn Clock>,
        boot: BootId,
        gateway: Gateway,
        info: Info,
        tail_found: bool,
    ) -> Rc<Self> {
        let mut dating = Dating::of(&outbox);
        dating.begin(clock.boot());
        // What an earlier run took is backlog.
        let marks = VecDeque::from([(BootTime(0), outbox.end())]);
        let hub = Rc::new(Self {
            outbox: RefCell::new(outbox),
            clock,
            boot,
            gateway,
            tail_found,
            board: RefCell::default(),
            info: RefCell::new(info),
            offset: watch::Sender::new(dating.offset(boot)),
            dating: RefCell::new(dating),
            steps: RefCell::default(),
            work: watch::Sender::new(()),
            flush: Notify::new(),
            flush_told: Cell::default(),
            marks: RefCell::new(marks),
            counters: RefCell::default(),
            sensors: RefCell::default(),
            veils: RefCell::default(),
            writing: RefCell::default(),
            commands: OnceCell::new(),
            renewed: RefCell::default(),
        });
        hub.tell_online();
        hub.update_info(|_| ());
        hub.look_at_clock();
        hub
    }

    /// `<site>/<gateway>/<leaf>`
    #[must_use]
    pub fn topic(&self, leaf: &str) -> String {
        status::gateway_topic(self.gateway.site.as_deref(), &self.gateway.name, leaf)
    }

    /// The same as an uplink sends it.
    #[must_use]
    pub fn topic_of(&self, uplink: &str, leaf: &str) -> String {
        let veils = self.veils.borrow();
        veils.get(uplink).map_or_else(|| self.topic(leaf), |veil| veil.gateway_topic(&self.gateway, leaf))
    }

    /// What uplinks hide holds from now on: to be called before they connect. What one of them alone had published under
    /// another veil is forgotten.
    pub fn veil(&self, uplinks: &[UplinkConfig]) {
        let hiding = uplinks.iter().map(|uplink| (uplink.name.clone(), Veil::new(&uplink.privacy)));
        let veils: BTreeMap<String, Veil> = hiding.filter(|(_, veil)| veil.is_on()).collect();
        let before = std::mem::replace(&mut *self.veils.borrow_mut(), veils);
        let veils = self.veils.borrow();
        {
            let board = &mut *self.board.borrow_mut();
            for uplink in before.keys().filter(|uplink| before.get(*uplink) != veils.get(*uplink)) {
                board.forget_uplink(uplink);
            }
            board.veil(veils.keys().map(String::as_str));
        }
        drop(veils);
        self.tell_online();
        self.update_info(|_| ());
    }

    fn tell_online(&self) {
        self.set_gateway_state("availability", status::ONLINE, |_, _| Some(status::ONLINE.to_owned()));
    }

    /// Publishes state of the gateway's own, retained, if it is news. `veiled` gives what an uplink that hides something
    /// sends in its place, if anything.
    pub fn set_gateway_state(
        &self,
        leaf: &str,
        payload: impl Into<Bytes>,
        veiled: impl Fn(&str, &Veil) -> Option<String>,
    ) {
        self.set_state(&self.topic(leaf), payload);
        for (uplink, veil) in &*self.veils.borrow() {
            if let Some(payload) = veiled(uplink, veil) {
                self.set_state_of(uplink, &veil.gateway_topic(&self.gateway, leaf), payload);
            }
        }
    }

    /// Publishes whether a sensor works.
    pub fn set_sensor_availability(&self, template: &Template, sensor: &Arc<Descriptor>, state: Result<(), &Fault>) {
        self.set_state(&sensor_availability_topic(template, sensor), sensor_availability(state));
        for (uplink, veil) in &*self.veils.borrow() {
            let topic = sensor_availability_topic(template, &veil.descriptor(sensor));
            let payload =
                if veil.hides_names() { sensor_availability_in_short(state) } else { sensor_availability(state) };
            self.set_state_of(uplink, &topic, payload);
        }
    }

    /// Records were committed: the uplinks look for them.
    pub fn appended(&self) {
        let (now, end) = (self.clock.boot(), self.outbox.borrow().end());
        let marks = &mut *self.marks.borrow_mut();
        // The last mark is always the newest; those before it lie apart.
        if let [.., (before, _), _] = *marks.make_contiguous()
            && now.since(before) < LIVE_WITHIN / MARKS
        {
            marks.pop_back();
        }
        marks.push_back((now, end));
        while marks.get(1).is_some_and(|(then, _)| now.since(*then) >= LIVE_WITHIN) {
            marks.pop_front();
        }
        self.work.send_replace(());
    }

    /// A flush is finished: an uplink may have waited for it.
    pub fn flushed(&self) {
        self.work.send_replace(());
    }

    /// What lies below this position is backlog for a connection that is made now.
    pub(super) fn live_from(&self) -> Seq {
        let (now, marks) = (self.clock.boot(), self.marks.borrow());
        let old = marks.iter().rev().find(|(then, _)| now.since(*then) >= LIVE_WITHIN);
        old.or(marks.front()).map_or(0, |(_, end)| *end)
    }

    /// Writes messages that a broker refuses into their folder, on another thread.
    pub(super) fn put_aside(&self, messages: Vec<RefusedMessage>) {
        if messages.is_empty() {
            return;
        }
        let writing = &mut *self.writing.borrow_mut();
        while writing.try_join_next().is_some() {}
        if writing.len() == MAX_WRITING {
            tracing::warn!(
                messages = messages.len(),
                "refused messages are gone: those before are still being put aside"
            );
            return;
        }
        let folder = self.outbox.borrow().folder().join(refused::FOLDER);
        writing.spawn_blocking(move || {
            if let Err(error) = refused::put_aside(&folder, &messages) {
                let (folder, messages) = (folder.display(), messages.len());
                tracing::warn!(%folder, messages, "refused messages cannot be put aside and are gone: {error}");
            }
        });
    }

    /// Waits until all refused messages are put aside.
    pub(super) async fn all_put_aside(&self) {
        let mut writing = std::mem::take(&mut *self.writing.borrow_mut());
        while writing.join_next().await.is_some() {}
    }

    /// Acknowledgements were committed. Only where somebody waits for them on disk the flush stage is woken up.
    pub(super) fn acknowledged(&self) {
        let due = self.outbox.borrow().hurried_acks_due();
        if self.flush_told.replace(due) != due && due.is_some() {
            self.flush.notify_one();
        }
    }

    /// From now on it is noted what each sensor gives, for uplinks that must say all of it at once.
    pub fn watch_sensors(&self) {
        self.sensors.borrow_mut().watch();
    }

    /// A sensor gave these values, which are appended next with this time.
    pub fn sensor_gave(&self, descriptor: &Arc<Descriptor>, values: &Values, at: BootTime, time: Option<WallTime>) {
        let moment = Moment { boot: self.boot, at, time };
        self.sensors.borrow_mut().gave(descriptor, values, self.outbox.borrow().next_seq(), moment);
    }

    /// A sensor works from now on, or does not.
    pub fn sensor_turned(&self, sensor: &str, online: bool) {
        self.sensors.borrow_mut().turned(sensor, online);
    }

    /// What is known of the sensors at present, where it is [watched](Self::watch_sensors).
    pub(super) fn sensors(&self) -> Ref<'_, Sensors> {
        self.sensors.borrow()
    }

    /// From now on commands go there.
    pub fn send_commands_to(&self, commands: mpsc::Sender<Request>) {
        // Set twice, the first one holds: there is one agent.
        let _ = self.commands.set(commands);
    }

    /// A running uplink takes these commands from now on.
    pub fn renew_commands_of(&self, uplink: &str, commands: Option<Commands>) {
        self.renewed.borrow_mut().insert(uplink.to_owned(), commands);
        self.work.send_replace(());
    }

    /// The commands that an uplink takes from now on, where that is news.
    pub fn take_commands_of(&self, uplink: &str) -> Option<Option<Commands>> {
        self.renewed.borrow_mut().remove(uplink)
    }

    /// Hands commands on. What there is no room for is counted, and gone: a command never waits.
    pub(super) fn commands(&self, requests: Vec<Request>, counters: &Counters) {
        for request in requests {
            counters.commands.add(1);
            let handed = self.commands.get().is_some_and(|commands| commands.try_send(request).is_ok());
            counters.commands_refused.add(u64::from(!handed));
        }
    }

    /// Publishes state on a topic, retained, if it is news.
    pub fn set_state(&self, topic: &str, payload: impl Into<Bytes>) {
        if self.board.borrow_mut().set(None, topic, payload) {
            self.work.send_replace(());
        }
    }

    /// As [`set_state`](Self::set_state), by one uplink alone.
    pub fn set_state_of(&self, uplink: &str, topic: &str, payload: impl Into<Bytes>) {
        if self.board.borrow_mut().set(Some(uplink), topic, payload) {
            self.work.send_replace(());
        }
    }

    /// An uplink has nothing on these topics any more: what its broker retains there is removed.
    pub fn clear<'a>(&self, uplink: &str, topics: impl Iterator<Item = &'a String>) {
        for topic in topics {
            self.board.borrow_mut().clear(uplink, topic);
        }
        self.work.send_replace(());
    }

    /// An uplink has something on these topics again.
    pub fn reuse<'a>(&self, uplink: &str, topics: impl Iterator<Item = &'a String>) {
        for topic in topics {
            self.board.borrow_mut().reuse(uplink, topic);
        }
    }

    /// A sensor is there no more, or somewhere else; what brokers retain of it is not removed by this.
    pub fn forget_sensor(&self, template: &Template, sensor: &Arc<Descriptor>) {
        let board = &mut *self.board.borrow_mut();
        board.forget(&sensor_availability_topic(template, sensor));
        for (uplink, veil) in &*self.veils.borrow() {
            board.forget_of(uplink, &sensor_availability_topic(template, &veil.descriptor(sensor)));
        }
    }

    /// A sensor that is there no more gives nothing.
    pub fn sensor_left(&self, sensor: &str) {
        self.sensors.borrow_mut().left(sensor);
    }

    /// An uplink is there no more: what is known of it is forgotten.
    pub fn forget_uplink(&self, uplink: &str) {
        self.board.borrow_mut().forget_uplink(uplink);
        self.counters.borrow_mut().remove(uplink);
        self.renewed.borrow_mut().remove(uplink);
        self.update_info(|info| {
            info.brokers.remove(uplink);
            info.commands.remove(uplink);
            info.certificates.remove(uplink);
        });
    }

    /// All state that an uplink sends: topics and payloads as text.
    #[cfg(test)]
    pub(crate) fn state_of(&self, uplink: &str) -> Vec<(String, String)> {
        let (board, mut after, mut found) = (self.board.borrow(), 0, Vec::new());
        while let Some((version, topic, payload)) = board.next_after(after, uplink) {
            found.push((topic.to_owned(), String::from_utf8_lossy(payload).into_owned()));
            after = version;
        }
        found
    }

    /// Changes what `…/info` says.
    pub fn update_info(&self, change: impl FnOnce(&mut Info)) {
        let info = {
            let info = &mut *self.info.borrow_mut();
            change(info);
            info.clone()
        };
        let veiled = |veil: &Veil| if veil.hides_names() { info.without_names().to_json() } else { info.to_json() };
        self.set_gateway_state("info", info.to_json(), |_, veil| Some(veiled(veil)));
    }

    /// The counters of an uplink.
    #[must_use]
    pub fn counters(&self, uplink: &str) -> Rc<Counters> {
        self.counters.borrow_mut().entry(uplink.to_owned()).or_default().clone()
    }
}
