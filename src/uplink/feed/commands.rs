//! The way down: subscriptions, and the commands that come of them.

use std::time::Duration;

use crate::clock::BootTime;
use crate::outbox::Outbox;

use super::super::packet::{self, Message};
use super::super::subscriptions::News;
use super::super::{Failure, Hub};
use super::delivery::Delivery;
use super::{Feed, Fill, Output};

/// Commands that may wait until the agent takes them, which is at each turn. Only a flood gets there; what is more is
/// counted as refused, and has no result.
const MAX_REQUESTS: usize = 64;

/// After a birth message, what is announced is sent again within so many milliseconds.
const ANNOUNCE_WITHIN_MS: u32 = 10_000;

/// Messages that are no commands are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Feed {
    /// Sends what is due of the subscriptions, and tells what is new of them. Gives the time when more is due.
    pub(super) fn subscribe(&mut self, hub: &Hub, output: &mut Output, fill: Fill) -> Option<BootTime> {
        if let Some(commands) = hub.take_commands_of(&self.uplink) {
            self.subscriptions.renew(commands.as_ref(), fill.now);
        }
        if !self.subscriptions.is_on() && !self.subscriptions.has_unwanted() {
            return None;
        }
        if self.announce_at.is_some_and(|at| at <= fill.now) {
            self.announce_at = None;
            hub.board.borrow_mut().renew(&self.uplink);
        }
        let version = self.terms.version();
        while fill.readings && output.has_room() && self.subscriptions.has_more() {
            let Some(id) = self.session.spend_id() else { break };
            packet::put_subscribe(&mut output.buffer, version, id, &self.subscriptions.ask(id, fill.now));
        }
        while fill.readings && output.has_room() && self.subscriptions.has_unwanted() {
            let Some(id) = self.session.spend_id() else { break };
            packet::put_unsubscribe(&mut output.buffer, version, id, &self.subscriptions.leave(id));
        }
        if self.subscriptions.wants_ping(fill.now) {
            packet::put_pingreq(&mut output.buffer);
            self.pinged(fill.now);
        }
        let held_until = self.brake.release(output, fill.now);
        let news = self.news.take().or_else(|| self.subscriptions.late(fill.now));
        self.tell(hub, news);
        [self.subscriptions.due(), self.announce_at, held_until].into_iter().flatten().min()
    }

    /// PINGREQ was put into the output.
    pub fn pinged(&mut self, now: BootTime) {
        self.subscriptions.pinged(now);
    }

    /// A message to us came.
    ///
    /// # Errors
    /// It says that the connection must end.
    pub(super) fn message(
        &mut self,
        outbox: &mut Outbox,
        output: &mut Output,
        message: &Message,
        now: BootTime,
    ) -> Result<(), Failure> {
        let request = self.subscriptions.request(&self.uplink, message, now);
        let delivery = if request.is_none() { self.deliver(outbox, message, now) } else { Delivery::NotForLan };
        if delivery == Delivery::Later {
            // Without an acknowledgement the broker sends it again at the next connection.
            return Ok(());
        }
        // A broker that gets no acknowledgement would in the end send nothing at all.
        let due = if let Delivery::Done(due) = delivery { due } else { now };
        if self.brake.acknowledge(message.qos, message.id, due, now) {
            self.counters.delivery_held.add(1);
        }
        self.brake.release(output, now);
        if let Delivery::Done(_) = delivery {
            return Ok(());
        }
        if self.subscriptions.is_birth(message) {
            tracing::info!(uplink = self.uplink, "Home Assistant has started: the sensors are announced again");
            self.announce_at = Some(now.after(self.announce_delay()));
            return Ok(());
        }
        if let Some(node) = &mut self.node
            && node.takes(message, now)?
        {
            return Ok(());
        }
        if let Some(mut request) = request {
            if let Some(node) = &self.node {
                node.read_command(&message.topic, &mut request);
            }
            if self.requests.len() < MAX_REQUESTS {
                self.requests.push(request);
            } else {
                self.counters.commands_refused.add(1);
            }
            return Ok(());
        }
        // A session under this client identifier may have subscribed to it, long ago.
        self.counters.ignored.add(1);
        if self.ignored_logged.is_none_or(|last| now.since(last) >= LOG_INTERVAL) {
            self.ignored_logged = Some(now);
            let (uplink, topic) = (&self.uplink, message.topic.escape_debug());
            tracing::warn!(uplink, %topic, "a message that this uplink takes no commands by is ignored");
        }
        Ok(())
    }

    /// Different for each gateway, and always the same for one: they do not all answer at once.
    fn announce_delay(&self) -> Duration {
        let millis = crc32fast::hash(self.client_id.as_bytes()) % ANNOUNCE_WITHIN_MS;
        Duration::from_millis(millis.into())
    }

    /// May messages come that are meant for us?
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        self.subscriptions.is_on()
    }

    /// A message that is larger than `max_packet` is not read.
    pub fn skipped(&mut self) {
        self.counters.commands_refused.add(1);
        tracing::warn!(uplink = self.uplink, "a message to us is larger than `max_packet`, and is not read");
    }

    /// Hands on the commands that came, and tells of what is for LAN clients. Call it after [`Feed::commit`].
    pub fn hand_on_requests(&mut self, hub: &Hub) {
        if std::mem::take(&mut self.delivered) {
            hub.flush.notify_one();
            hub.appended();
        }
        hub.commands(std::mem::take(&mut self.requests), &self.counters);
    }

    /// The connection is gone. Had the broker still to answer a SUBSCRIBE?
    pub(super) fn unsubscribed(&mut self, hub: &Hub, closed: bool, now: BootTime) -> bool {
        let asking = self.subscriptions.is_asking();
        self.brake.disconnected();
        let news = self.subscriptions.disconnected(closed, now).or(self.news.take());
        self.tell(hub, news);
        asking
    }

    fn tell(&mut self, hub: &Hub, news: Option<News>) {
        let Some(news) = news else { return };
        let uplink = self.uplink.clone();
        let state = match news {
            News::Accepted => {
                let commands = if self.subscriptions.has_commands() { ": commands are taken" } else { "" };
                let writable = self.node.as_ref().map(|node| format!("; {}", node.writable())).unwrap_or_default();
                tracing::info!(uplink, "the broker has accepted the subscriptions{commands}{writable}");
                "accepted".to_owned()
            }
            News::Refused(why) => {
                // A broker says the same at each connection.
                if self.told.as_ref() != Some(&why) {
                    tracing::error!(uplink, "commands, or messages for the LAN, do not get here: {why}");
                    self.told = Some(why.clone());
                }
                format!("refused: {why}")
            }
        };
        hub.update_info(|info| drop(info.commands.insert(uplink, state)));
    }
}
