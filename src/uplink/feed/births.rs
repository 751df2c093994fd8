//! Births and deaths of Sparkplug B, around the readings: see [`sparkplug`](super::super::sparkplug).
//!
//! A device dies when its sensor fails, but not before what it gave until then is sent. What waits of a sensor that does not
//! work, or is there no more, is sent all the same: its device is born for that, and dies when it is through.

use std::sync::Arc;

use bytes::BytesMut;

use crate::clock::BootTime;
use crate::config::Qos;
use crate::outbox::{Body, Moment, Outbox};
use crate::reading::Descriptor;

use super::super::Hub;
use super::super::dating::Date;
use super::super::encode::Part;
use super::super::packet::{Head, TooLarge};
use super::super::sparkplug::book::milliseconds;
use super::super::sparkplug::{Node, Turn};
use super::streams::Stream;
use super::{Feed, Fill, LastWord, Output, state_head};

/// What comes of having tried to send what must be sent before readings.
pub(super) type Ready = Result<(), Option<BootTime>>;

impl Feed {
    /// What the broker is to say of us when the connection that is about to be made is lost.
    pub fn last_word(&mut self, hub: &Hub) -> Option<LastWord> {
        let Some(node) = &mut self.node else {
            let payload = super::super::status::LOST.as_bytes().to_vec();
            return self.sends_state.then(|| LastWord {
                topic: hub.topic_of(&self.uplink, "availability"),
                payload,
                retain: true,
            });
        };
        node.book().borrow_mut().set_time(hub.now());
        let stored = node.next_death();
        {
            let outbox = &mut *hub.outbox.borrow_mut();
            outbox.put_state(&Node::state_key(&self.uplink), Some(stored));
            outbox.commit(hub.clock.boot());
        }
        Some(LastWord { topic: node.names().topic("NDEATH"), payload: node.death().to_vec(), retain: false })
    }

    /// Sends the births that are due. An error: readings cannot be sent now, and until when, if that is known.
    pub(super) fn send_births(&mut self, hub: &Hub, outbox: &mut Outbox, output: &mut Output, fill: Fill) -> Ready {
        let Some(node) = &mut self.node else { return Ok(()) };
        let wall = hub.now();
        node.book().borrow_mut().set_time(wall);
        let first = match node.turn(fill.now, wall.is_some(), fill.hold_until) {
            Turn::Go => return Ok(()),
            Turn::Wait(until) => return Err(until),
            Turn::Birth { .. } if !output.has_room() => return Err(None),
            Turn::Birth { first } => first,
        };
        node.bear(fill.now);
        let mut payload = BytesMut::new();
        node.put_birth(&mut payload);
        let topic = node.names().topic("NBIRTH");
        if let Err(error) = self.put_certificate(output, &topic, &payload) {
            tracing::error!(uplink = self.uplink, "the node cannot be born: {error}");
        }
        if first {
            // It may have waited long for the primary host: what was taken meanwhile is backlog.
            self.start_streams(hub.live_from(), fill.now);
        }
        self.send_arrivals(hub, outbox, output);
        Ok(())
    }

    /// Sends what the host does not know of the sensors: those that came (back) are born, and those that failed die, as far as
    /// all that they gave is sent.
    pub(super) fn send_news(&mut self, hub: &Hub, outbox: &mut Outbox, output: &mut Output) {
        if !self.send_arrivals(hub, outbox, output) {
            return;
        }
        let Some(node) = &self.node else { return };
        let (sensors, book) = (hub.sensors(), node.book().clone());
        let live_sent = *self.next.of(Stream::Live) >= outbox.end();
        let all_sent = live_sent && *self.next.of(Stream::Backlog) >= self.live_from.min(outbox.end());
        let is_online = |sensor: &str| sensors.get(sensor).is_some_and(|present| present.online);
        let gone: Vec<(Box<str>, bool)> = book
            .borrow()
            .alive()
            .filter(|(sensor, _)| !is_online(sensor))
            .map(|(it, visiting)| (it.into(), visiting))
            .collect();
        let mut waits = false;
        for (sensor, visiting) in gone {
            if if visiting { all_sent } else { live_sent } {
                self.bury(output, &sensor);
            } else {
                waits = true;
            }
        }
        if !waits && let Some(node) = &mut self.node {
            node.told(sensors.version());
        }
    }

    /// Sends the births of sensors that came (back). Says whether there may be something that the host does not know.
    fn send_arrivals(&mut self, hub: &Hub, outbox: &mut Outbox, output: &mut Output) -> bool {
        let Some(node) = self.node.as_ref().filter(|node| node.is_born()) else { return false };
        let sensors = hub.sensors();
        let visited = node.book().borrow().alive().any(|(_, visiting)| visiting);
        if !visited && !node.has_news(sensors.version()) {
            return false;
        }
        let book = node.book().clone();
        let came: Vec<Arc<Descriptor>> = sensors
            .online()
            .filter_map(|present| present.descriptor.as_ref())
            .filter(|descriptor| self.selector.holds(descriptor) && !book.borrow().is_alive(&descriptor.sensor))
            .map(Arc::clone)
            .collect();
        for descriptor in came {
            let sensor = &*descriptor.sensor;
            let learnt = book.borrow_mut().learn(&descriptor, &[]).map_err(|error| error.to_string());
            let born =
                learnt.and_then(|_| self.bear(hub, outbox, output, sensor, false).map_err(|error| error.to_string()));
            if let Err(why) = born {
                tracing::error!(uplink = self.uplink, sensor, "the device cannot be born: {why}");
            }
        }
        true
    }

    /// Sees to it that the host understands these parts, which are of one sensor.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn introduce(
        &mut self,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        parts: &[Part<'_>],
        backlog: bool,
    ) -> Result<(), String> {
        let Some(node) = &self.node else { return Ok(()) };
        let book = node.book().clone();
        let mut whose = None;
        for part in parts {
            let Body::Reading { descriptor, values } = &part.entry.body else { continue };
            let needs = book.borrow_mut().learn(descriptor, values).map_err(|error| error.to_string())?;
            if needs {
                whose = Some(&descriptor.sensor);
            }
        }
        let Some(sensor) = whose else { return Ok(()) };
        let is_online = hub.sensors().get(sensor).is_some_and(|present| present.online);
        let visiting =
            backlog && !is_online && !book.borrow().alive().any(|(it, visiting)| it == &**sensor && !visiting);
        self.bear(hub, outbox, output, sensor, visiting)
            .map_err(|error| format!("its birth certificate cannot be sent: {error}"))
    }

    /// Sends the birth certificate of a device. The dates in it are told: the records of these values keep them.
    fn bear(
        &mut self,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        sensor: &str,
        visiting: bool,
    ) -> Result<(), TooLarge> {
        let Some(node) = &self.node else { return Ok(()) };
        let (topic, book) = (node.names().device_topic("DBIRTH", sensor), node.book().clone());
        let sensors = hub.sensors();
        let present = sensors.get(sensor).filter(|present| present.online);
        let mut payload = BytesMut::new();
        let dated = |moment: &Moment| match hub.dating().date_of(moment) {
            Date::Wall(time) => Some(milliseconds(time)),
            Date::Uptime(..) => None,
        };
        book.borrow().put_birth(&mut payload, sensor, present, dated);
        self.put_certificate(output, &topic, &payload)?;
        book.borrow_mut().born(sensor, present, visiting, dated);
        for latest in present.into_iter().flat_map(|present| present.values.values()) {
            self.dirty |= hub.tell_moment(outbox, &latest.moment);
        }
        Ok(())
    }

    /// Sends the death certificate of a device (DDEATH).
    fn bury(&mut self, output: &mut Output, sensor: &str) {
        let Some(node) = &self.node else { return };
        let (topic, book) = (node.names().device_topic("DDEATH", sensor), node.book().clone());
        let mut payload = BytesMut::new();
        book.borrow().put_head(&mut payload);
        match self.put_certificate(output, &topic, &payload) {
            Ok(()) => book.borrow_mut().died(sensor),
            Err(error) => tracing::error!(uplink = self.uplink, sensor, "its death cannot be told: {error}"),
        }
    }

    /// Puts a certificate into the output, whose payload has the next sequence number.
    fn put_certificate(&mut self, output: &mut Output, topic: &str, payload: &[u8]) -> Result<(), TooLarge> {
        let head = Head { retain: false, ..state_head(topic, Qos::AtMostOnce, 0) };
        self.terms.put_publish(&mut output.buffer, head, |out| out.extend_from_slice(payload))?;
        self.data_sent();
        Ok(())
    }

    /// A payload with the next sequence number is on its way.
    pub(super) fn data_sent(&self) {
        if let Some(node) = &self.node {
            node.book().borrow_mut().sent();
        }
    }
}

#[cfg(test)]
mod tests;
