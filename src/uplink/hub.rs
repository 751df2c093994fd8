//! What the tasks of the core thread share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::{BootId, Clock};
use crate::config::Gateway;
use crate::outbox::Outbox;

use super::counters::Counters;
use super::dating::{self, Dating};
use super::known_time::{self, CertificateTime};
use super::status::{self, Board, Info};

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
    pub(super) dating: RefCell<Dating>,
    pub(super) work: watch::Sender<()>,
    counters: RefCell<BTreeMap<String, Rc<Counters>>>,
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
        let dating = outbox.state(dating::STATE_KEY).map(Dating::restore).unwrap_or_default();
        let hub = Rc::new(Self {
            outbox: RefCell::new(outbox),
            clock,
            boot,
            gateway,
            tail_found,
            board: RefCell::default(),
            info: RefCell::new(info),
            dating: RefCell::new(dating),
            work: watch::Sender::new(()),
            counters: RefCell::default(),
        });
        hub.set_state(&hub.topic("availability"), status::ONLINE);
        hub.update_info(|_| ());
        hub
    }

    /// `<site>/<gateway>/<leaf>`
    #[must_use]
    pub fn topic(&self, leaf: &str) -> String {
        status::gateway_topic(self.gateway.site.as_deref(), &self.gateway.name, leaf)
    }

    /// Records were committed: the uplinks look for them.
    pub fn appended(&self) {
        self.work.send_replace(());
    }

    /// Publishes state on a topic, retained, if it is news.
    pub fn set_state(&self, topic: &str, payload: impl Into<Bytes>) {
        if self.board.borrow_mut().set(topic, payload) {
            self.work.send_replace(());
        }
    }

    /// Changes what `…/info` says.
    pub fn update_info(&self, change: impl FnOnce(&mut Info)) {
        let payload = {
            let info = &mut *self.info.borrow_mut();
            change(info);
            info.to_json()
        };
        self.set_state(&self.topic("info"), payload);
    }

    /// The counters of an uplink.
    #[must_use]
    pub fn counters(&self, uplink: &str) -> Rc<Counters> {
        self.counters.borrow_mut().entry(uplink.to_owned()).or_default().clone()
    }

    /// Notes this boot's offset between boot clock and wall clock if the clock is set; says whether it is known.
    pub(super) fn note_clock(&self) -> bool {
        let dating = &mut *self.dating.borrow_mut();
        if dating.note(self.boot, &*self.clock) {
            let outbox = &mut *self.outbox.borrow_mut();
            outbox.put_state(dating::STATE_KEY, Some(dating.save()));
            outbox.persist_soon();
            outbox.commit(self.clock.boot());
            self.work.send_replace(());
        }
        dating.knows(self.boot)
    }

    /// Keeps the time for a later boot without a clock, if the clock is set.
    pub fn remember_time(&self) {
        if let Some(now) = self.clock.wall_if_set() {
            let outbox = &mut *self.outbox.borrow_mut();
            outbox.put_state(known_time::STATE_KEY, Some(known_time::save(now)));
            outbox.commit(self.clock.boot());
        }
    }

    /// What certificates are to be checked against now.
    #[must_use]
    pub fn certificate_time(&self) -> CertificateTime {
        if self.clock.is_set() {
            return CertificateTime::Exact(self.clock.wall());
        }
        let last = self.outbox.borrow().state(known_time::STATE_KEY).and_then(known_time::restore);
        known_time::at_least(self.clock.wall(), last)
    }
}
