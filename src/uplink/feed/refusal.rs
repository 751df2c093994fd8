//! Messages that this broker does not take: they are put aside, counted and reported, and never block the others.

use std::time::Duration;

use bytes::BytesMut;

use crate::clock::BootTime;
use crate::outbox::{Entry, Outbox};

use super::super::Hub;
use super::super::encode::Part;
use super::super::refused::RefusedMessage;
use super::super::session::InFlight;
use super::Feed;

/// Refused messages are logged at most so often; all are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Refused messages that wait to be put aside. Further ones are only counted.
const MAX_WAITING: usize = 32;

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
        outbox.ack(self.cursor, part.seqs.clone());
        self.dirty = true;
    }

    /// Puts aside what the broker has refused in its acknowledgements.
    pub(super) fn settle_refusals(&mut self, hub: &Hub, outbox: &mut Outbox, now: BootTime) {
        for (message, reason) in std::mem::take(&mut self.answered_no) {
            // Dropped since: there is nothing to put aside.
            let Some(index) = self.find(outbox, message.seqs.start) else { continue };
            let entries = std::mem::take(&mut self.entries);
            let entry = &entries[index];
            let InFlight { seqs, shape, backlog, .. } = message;
            let part = Part { seqs, shape, date: hub.dating.borrow().date(entry), backlog };
            let topic = self.encoder.message(entry, &part).map(|message| message.topic.to_owned()).unwrap_or_default();
            self.refuse(outbox, entry, &part, format!("{topic}: the broker refuses it: {reason}"), now);
            self.entries = entries;
        }
    }

    /// The broker closed the connection over this message, again and again.
    pub(super) fn refuse_culprit(&mut self, hub: &Hub, culprit: &InFlight) {
        let (outbox, now) = (&mut *hub.outbox.borrow_mut(), hub.clock.boot());
        if let Some(index) = self.find(outbox, culprit.seqs.start) {
            let entries = std::mem::take(&mut self.entries);
            let entry = &entries[index];
            let date = hub.dating.borrow().date(entry);
            let InFlight { seqs, shape, backlog, .. } = culprit.clone();
            let part = Part { seqs, shape, date, backlog };
            let message = self.encoder.message(entry, &part);
            let topic = message.map(|message| message.topic.to_owned()).unwrap_or_default();
            let why = format!("{topic}: each time that it is sent, the broker closes the connection");
            self.refuse(outbox, entry, &part, why, now);
            self.quarantine.add(topic, now);
            self.entries = entries;
        }
        self.give_up(outbox, culprit.id, now);
        self.commit(outbox, now);
    }
}
