//! The DISCONNECT with which the broker ends a connection of MQTT 5 (3.14, 4.13).
//!
//! The broker crate closes the connection before it says why, so that nobody hears it. It is said on the way to the
//! client, which is ours: its last bytes have passed when the broker closes, and then a hook tells the reason.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmqtt::codec::v5::{DisconnectReasonCode, ToReasonCode};
use rmqtt::net::MqttError;
use rmqtt::types::Reason;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long after the broker has closed the connection its reason may come.
const REASON_WITHIN: Duration = Duration::from_secs(1);
/// The first byte of DISCONNECT.
const DISCONNECT: u8 = 0xE0;

/// What is said to one client.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// Only a client of MQTT 5 that was let in is told anything.
    is_awaited: AtomicBool,
    reason: OnceLock<Option<u8>>,
    told: Notify,
}

impl Farewell {
    /// The client speaks MQTT 5, and has its CONNACK.
    pub(super) fn is_awaited(&self) {
        self.is_awaited.store(true, Ordering::Relaxed);
    }

    /// The connection is to end for that reason. The first that is told counts.
    pub(super) fn because(&self, code: DisconnectReasonCode) {
        let _ = self.reason.set(Some(code.into()));
        self.told.notify_one();
    }

    /// The broker crate has ended the connection.
    pub(super) fn ended(&self, reason: &Reason) {
        let _ = self.reason.set(code(reason).map(u8::from));
        self.told.notify_one();
    }

    /// The packet to send after the broker has closed the connection, if there is one.
    pub(super) async fn packet(&self) -> Option<[u8; 3]> {
        if !self.is_awaited.load(Ordering::Relaxed) {
            return None;
        }
        let reason = timeout(REASON_WITHIN, async {
            loop {
                if let Some(reason) = self.reason.get() {
                    return *reason;
                }
                self.told.notified().await;
            }
        });
        // A reason code without properties (3.14.2.2.1).
        reason.await.ok().flatten().map(|code| [DISCONNECT, 1, code])
    }
}

/// Why the broker ends a connection; `None`: it was the client.
fn code(reason: &Reason) -> Option<DisconnectReasonCode> {
    match reason {
        Reason::ConnectDisconnect(_) | Reason::ConnectRemoteClose | Reason::ConnectReadWriteError => None,
        // Another connection has the client's identifier now.
        Reason::ConnectKicked(false) => Some(DisconnectReasonCode::SessionTakenOver),
        Reason::MqttError(MqttError::PublishAckReason(code, why)) => {
            // The crate has no code of its own for it.
            let alias = why.contains("alias");
            Some(if alias { DisconnectReasonCode::TopicAliasInvalid } else { code.to_reason_code() })
        }
        Reason::Reasons(reasons) => reasons.first().map_or(Some(reason.to_reason_code()), code),
        _ => Some(reason.to_reason_code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(reason: &Reason) -> Option<u8> {
        let farewell = Farewell::default();
        farewell.is_awaited();
        farewell.ended(reason);
        farewell.packet().await.map(|packet| packet[2])
    }

    #[tokio::test]
    async fn a_client_of_mqtt_5_is_told_why_unless_it_went_itself() {
        assert_eq!(said(&Reason::ConnectKicked(false)).await, Some(0x8E));
        assert_eq!(said(&Reason::InflightWindowFull).await, Some(0x93));
        assert_eq!(said(&Reason::ConnectKeepaliveTimeout).await, Some(0x8D));
        assert_eq!(said(&Reason::ConnectRemoteClose).await, None);
        assert_eq!(said(&Reason::ConnectDisconnect(None)).await, None);
        let farewell = Farewell::default();
        farewell.ended(&Reason::InflightWindowFull);
        assert_eq!(farewell.packet().await, None, "3.1.1 knows no such packet");
        farewell.is_awaited();
        farewell.because(DisconnectReasonCode::TopicAliasInvalid);
        assert_eq!(farewell.packet().await, Some([DISCONNECT, 1, 0x93]), "the first reason counts");
    }
}
