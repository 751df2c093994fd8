//! What holds on one connection: what the configuration wants, as far as the broker allows it.

use std::time::Duration;

use bytes::BytesMut;

use crate::config::{MqttVersion, Qos, UplinkConfig};

use super::alias::Aliases;
use super::failure::Failure;
use super::packet::{self, Form, Head, Limits, Reason, TooLarge};

/// At QoS 2 no more messages than this are in flight in MQTT 3.1.1, whatever `inflight` says. A broker cannot tell
/// there how many it takes, and some close the connection over one more, each time anew: Mosquitto by default over 20
/// (`max_inflight_messages`), rmqtt over 16.
pub const QOS_2_WINDOW: u16 = 16;

/// The terms of the present connection, or before the first one, what is wanted.
#[derive(Debug)]
pub struct Terms {
    version: MqttVersion,
    wanted_qos: Qos,
    wanted_max_packet: u32,
    inflight: u16,
    limits: Limits,
    aliases: Aliases,
}

impl Terms {
    /// What the configuration wants.
    #[must_use]
    pub fn new(config: &UplinkConfig) -> Self {
        Self {
            version: config.mqtt,
            wanted_qos: config.qos,
            wanted_max_packet: config.max_packet,
            inflight: config.inflight,
            limits: Limits::default(),
            aliases: Aliases::default(),
        }
    }

    /// A connection is up on which the broker allows so much. Gives what the user should know of it, in words.
    pub fn agree(&mut self, limits: Limits) -> Vec<String> {
        self.aliases = Aliases::new(limits.topic_aliases);
        self.limits = limits;
        let mut remarks = Vec::new();
        if self.qos() < self.wanted_qos {
            let qos = if self.qos() == Qos::AtMostOnce { 0 } else { 1 };
            remarks.push(format!("the broker takes messages at QoS {qos} at most: that is how they are sent"));
        }
        if !self.limits.retain {
            remarks.push("the broker retains no messages: nobody sees a value, or our state, before it changes".into());
        }
        if self.limits.session_expiry == Some(Duration::ZERO) && self.qos() > Qos::AtMostOnce {
            remarks.push(
                "the broker keeps no session: what is in flight when the connection is lost may arrive twice".into(),
            );
        }
        remarks
    }

    /// The version of MQTT that is spoken.
    #[must_use]
    pub fn version(&self) -> MqttVersion {
        self.version
    }

    /// How many readings may be in flight.
    #[must_use]
    pub fn window(&self) -> u16 {
        match (self.version, self.qos()) {
            (MqttVersion::V311, Qos::ExactlyOnce) => self.inflight.min(QOS_2_WINDOW),
            _ => self.inflight,
        }
    }

    /// What the broker allows.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Quality of service of readings.
    #[must_use]
    pub fn qos(&self) -> Qos {
        self.wanted_qos.min(self.limits.max_qos)
    }

    /// Quality of service of state: 1, unless the broker takes only 0.
    #[must_use]
    pub fn state_qos(&self) -> Qos {
        Qos::AtLeastOnce.min(self.limits.max_qos)
    }

    /// Appends a PUBLISH as the broker allows it.
    ///
    /// # Errors
    /// It is larger than we may send or the broker takes; the buffer is then as it was.
    pub fn put_publish(
        &mut self,
        out: &mut BytesMut,
        head: Head<'_>,
        payload: impl FnOnce(&mut BytesMut),
    ) -> Result<(), TooLarge> {
        let head = Head { retain: head.retain && self.limits.retain, ..head };
        let max = self.wanted_max_packet.min(self.limits.max_packet);
        if self.version == MqttVersion::V311 {
            return packet::put_publish(out, &head, Form::V311, max, payload);
        }
        // State comes once a connection and when it changes: an alias would be lost on it.
        let alias = head.reading.and_then(|_| self.aliases.get(head.topic));
        packet::put_publish(out, &head, Form::V5(alias), max, payload)?;
        if let Some(alias) = alias {
            self.aliases.sent(head.topic, alias);
        }
        Ok(())
    }
}

/// How the will is to be sent. A broker can say what it does not take of it only by refusing CONNECT (MQTT 5,
/// 3.2.2.3.4 and 3.2.2.3.5), so that this is learnt from one attempt to the next.
#[derive(Clone, Copy, Debug)]
pub struct WillForm {
    /// Quality of service.
    pub qos: Qos,
    /// Shall the broker keep it?
    pub retain: bool,
}

impl Default for WillForm {
    fn default() -> Self {
        Self { qos: Qos::AtLeastOnce, retain: true }
    }
}

impl WillForm {
    /// Learns from a failed attempt.
    pub fn learn(&mut self, failure: &Failure) {
        if let Failure::Refused { reason, .. } = failure {
            if reason.is(&Reason::QOS_NOT_SUPPORTED) {
                self.qos = Qos::AtMostOnce;
            } else if reason.is(&Reason::RETAIN_NOT_SUPPORTED) {
                self.retain = false;
            }
        }
    }
}
