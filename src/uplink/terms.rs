//! What holds on one connection: what the configuration wants, as far as the broker allows it.

use bytes::BytesMut;

use crate::config::{MqttVersion, Qos, UplinkConfig};

use super::packet::{self, Form, Head, Limits, TooLarge};

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
        }
    }

    /// A connection is up on which the broker allows so much.
    pub fn agree(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many readings may be in flight.
    #[must_use]
    pub fn window(&self) -> u16 {
        match (self.version, self.qos()) {
            (MqttVersion::V311, Qos::ExactlyOnce) => self.inflight.min(QOS_2_WINDOW),
            _ => self.inflight,
        }
    }

    /// How many messages of any kind may be in flight.
    #[must_use]
    pub fn receive_maximum(&self) -> u16 {
        self.limits.receive_maximum
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
        let form = match self.version {
            MqttVersion::V311 => Form::V311,
            MqttVersion::V5 => Form::V5(None),
        };
        packet::put_publish(out, &head, form, self.wanted_max_packet.min(self.limits.max_packet), payload)
    }
}
