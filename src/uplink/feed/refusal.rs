//! Messages that this broker does not take: they are put aside, counted and reported, and never block the others.

use std::time::Duration;

use bytes::BytesMut;

use crate::clock::BootTime;
use crate::outbox::{DropReason, Entry, Outbox};

use super::super::Hub;
use super::super::encode::Part;
use super::super::packet::Reason;
use super::super::refused::RefusedMessage;
use super::super::session::InFlight;
use super::Feed;

/// Refused messages are logged at most so often; all are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Refused messages that wait to be put aside. Further ones are only counted.
const MAX_WAITING: usize = 32;

/// The first pause when the broker's quota is exceeded; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Nothing new is sent for a while, because the broker said that its quota is exceeded.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: BootTime,
    /// Zero: the broker takes messages.
    length: Duration,
}

impl Pause {
    /// Its end, if that is not yet.
    pub(super) fn until(&self, now: BootTime) -> Option<BootTime> {
        (self.until > now).then_some(self.until)
    }

    /// A message got through.
    pub(super) fn over(&mut self) {
        self.length = Duration::ZERO;
    }

    fn begin(&mut self, now: BootTime) {
        // Several messages may be answered in this way before the first pause is over; that is one pause.
        if self.until(now).is_none() {
            self.length = (self.length * 2).clamp(MIN_PAUSE, MAX_PAUSE);
            self.until = now.after(self.length);
        }
    }
}

impl Feed {
    /// Refused messages that are to be put aside.
    pub fn take_refused(&mut self) -> Vec<RefusedMessage> {
        std::mem::take(&mut self.refused)
    }

    /// A message that can never be sent must not stop those behind it.
    pub(super) fn refuse(&mut self, outbox: &mut Outbox, entry: &Entry, part: &Part, why: String, now: BootTime) {
        self.counters.refused.add(1);
        if self.refused_logged.is_none_or(|last| now.since(last) >= LOG_INTERVAL) {
            self.refused_logged = Some(now);
            let (uplink, refused) = (&self.uplink, self.counters.refused.get());
            let id = format!("{}-{}", entry.run, part.seqs.start);
            tracing::warn!(uplink, id, refused, "a message cannot be sent and is put aside: {why}");
        }
        if self.refused.len() < MAX_WAITING {
            let message = self.encoder.message(entry, part);
            let mut payload = BytesMut::new();
            let topic = message.map(|message| {
                message.write(&mut payload);
                message.topic.to_owned()
            });
            self.refused.push(RefusedMessage {
                uplink: self.uplink.clone(),
                run: entry.run,
                seq: part.seqs.start,
                topic: topic.unwrap_or_default(),
                reason: why,
                payload: payload.freeze(),
            });
        }
        let (sensor, when) = (entry.sensor(), Some(entry.moment()));
        outbox.drop_for(self.cursor, part.seqs.clone(), DropReason::Refused, sensor, when);
        self.dirty = true;
    }

    /// The broker closed the connection over this message, again and again.
    pub(super) fn refuse_culprit(&mut self, hub: &Hub, outbox: &mut Outbox, culprit: &InFlight, now: BootTime) {
        let topic =
            self.refuse_sent(hub, outbox, culprit, "each time that it is sent, the broker closes the connection", now);
        self.quarantine.add(topic, now);
        self.give_up(outbox, culprit.id, now);
    }

    /// Takes up which messages the broker has refused: for now, or for good.
    pub(super) fn handle_answers(&mut self, hub: &Hub, outbox: &mut Outbox, now: BootTime) {
        for (message, reason) in std::mem::take(&mut self.answers) {
            if reason.is(&Reason::QUOTA_EXCEEDED) {
                self.counters.postponed.add(1);
                self.pause.begin(now);
                self.rewind();
            } else {
                self.refuse_sent(hub, outbox, &message, &format!("the broker refuses it: {reason}"), now);
            }
        }
    }

    /// Puts a message aside that was sent; gives its topic.
    fn refuse_sent(&mut self, hub: &Hub, outbox: &mut Outbox, message: &InFlight, why: &str, now: BootTime) -> String {
        let Some(index) = self.find(outbox, message.seqs.start) else {
            // It cannot be read any more, so that there is nothing to put aside.
            outbox.ack(self.cursor, message.seqs.clone());
            return String::new();
        };
        let entries = std::mem::take(&mut self.entries);
        let entry = &entries[index];
        let InFlight { seqs, shape, backlog, .. } = message.clone();
        let part = Part { seqs, shape, date: hub.dating().date(entry), backlog };
        let topic = self.encoder.message(entry, &part).map(|message| message.topic.to_owned()).unwrap_or_default();
        self.refuse(outbox, entry, &part, format!("{topic}: {why}"), now);
        self.entries = entries;
        topic
    }
}
