//! The uplink: what the outbox keeps goes to a broker by MQTT.

pub mod backoff;
pub mod dating;
pub mod encode;
pub mod expiry;
pub mod keepalive;
pub mod packet;
pub mod saved;
pub mod session;
pub mod status;
pub mod tls;
