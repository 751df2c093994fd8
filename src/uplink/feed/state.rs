//! State beside the readings: availability, information, and the last word of a connection.

use bytes::BytesMut;

use crate::clock::BootTime;
use crate::config::Qos;

use super::super::Hub;
use super::super::packet::Head;
use super::{Feed, Output};

/// What the broker publishes for us when the connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Shall the broker keep it?
    pub retain: bool,
}

impl Feed {
    /// Sends state that the broker has not yet; says whether that is all of it.
    pub(super) fn send_state(&mut self, hub: &Hub, output: &mut Output, now: BootTime) -> bool {
        let board = hub.board.borrow();
        while let Some((version, topic, payload)) = board.next_after(self.status_seen, &self.uplink) {
            // Whoever sends no state may have readings to take back.
            if !self.sends_state && !payload.is_empty() {
                self.status_seen = version;
                continue;
            }
            if !output.has_room() || self.session.free_status() == 0 {
                return false;
            }
            let head = state_head(topic, self.terms.state_qos(), self.session.next_id());
            match self.terms.put_publish(&mut output.buffer, head, |out| out.extend_from_slice(payload)) {
                Ok(()) if head.qos == Qos::AtMostOnce => {}
                Ok(()) => self.session.sent_status(now),
                Err(error) => tracing::warn!(topic, "state cannot be published: {error}"),
            }
            self.status_seen = version;
        }
        true
    }

    /// The last word before an orderly end, which takes the place of the will.
    pub fn farewell(&mut self, topic: &str, payload: &str, output: &mut Output, now: BootTime) {
        let (topic, payload, retain) = match &self.node {
            Some(node) => (node.names().topic("NDEATH"), node.death().to_vec(), false),
            None if self.sends_state => (topic.to_owned(), payload.as_bytes().to_vec(), true),
            None => return,
        };
        if self.session.free_status() == 0 {
            return;
        }
        let head = Head { retain, ..state_head(&topic, self.terms.state_qos(), self.session.next_id()) };
        let put = |out: &mut BytesMut| out.extend_from_slice(&payload);
        if self.terms.put_publish(&mut output.buffer, head, put).is_ok() && head.qos != Qos::AtMostOnce {
            self.session.sent_status(now);
        }
    }

    /// Is the broker to publish the will even at an orderly end, where it can be told so? A host of Sparkplug learns of
    /// the end by it (specification 3.0, 5.9, "intentional disconnect").
    #[must_use]
    pub fn leaves_with_will(&self) -> bool {
        self.node.is_some()
    }
}

/// The head of a message of state.
pub(super) fn state_head(topic: &str, qos: Qos, id: u16) -> Head<'_> {
    Head { topic, qos, retain: true, dup: false, id, reading: None, expiry: None, content_type: None, integrity: None }
}
