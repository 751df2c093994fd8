//! The uplink: what the outbox keeps goes to a broker by MQTT.
//!
//! ```text
//! outbox ──> feed ──> session (ids, window, replay) ──> output ──> link ──> broker
//!    ▲        │  └──> encode (JSON), dating                          │
//!    └─ acks ─┴───────────────── packets <───────────────────────────┘
//! ```
//!
//! Packet ids, window and QoS 2 states are in the outbox's state before the packet that depends on them is written:
//! that is what makes QoS 2 exactly once across a crash. One turn of the loop takes everything that can be read,
//! makes one write to the outbox's tail and one to the socket.
//!
//! The [`keeper`] connects again and again: along the list of URLs, through proxy, TLS and WebSocket ([`dial`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{BootTime, Clock};
use crate::config::UplinkConfig;

use feed::Feed;
use keeper::Keeper;

pub use failure::Failure;
pub use hub::{ClockStatus, Hub, LIVE_WITHIN};

pub mod access;
pub mod alias;
pub mod backoff;
pub mod certificates;
pub mod counters;
pub mod dating;
pub mod dial;
pub mod encode;
pub mod expiry;
pub mod failure;
pub mod feed;
pub mod hub;
pub mod keepalive;
pub mod keeper;
pub mod known_time;
pub mod link;
#[cfg(test)]
mod misbehaves;
#[cfg(test)]
mod model;
pub mod pace;
pub mod packet;
pub mod presence;
pub mod proxy;
pub mod refused;
pub mod saved;
pub mod schedule;
#[cfg(test)]
mod scripted;
pub mod sensors;
pub mod session;
pub mod sparkplug;
pub mod status;
pub mod subscriptions;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod veil;
pub mod websocket;

/// How often it is looked whether the clock has been set or stepped while no readings come.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// How often hardware clocks are asked whether the clock was set by one, as long as nobody vouches for it.
const HARDWARE_CHECK: Duration = Duration::from_secs(10);

/// They are not waited for longer than this: one may be a chip on a bus that hangs.
const HARDWARE_ANSWERS: Duration = Duration::from_secs(1);

/// How often the time is kept for a later boot without a clock.
const REMEMBER_TIME: Duration = Duration::from_secs(60 * 60);

/// Asks hardware clocks whether the clock was set by one.
pub async fn ask_hardware_clocks(clock: &Arc<dyn Clock>) {
    let clock = clock.clone();
    let asked = tokio::task::spawn_blocking(move || clock.ask_hardware_clocks());
    // That it was asked in vain is no matter: it is asked again.
    let _ = tokio::time::timeout(HARDWARE_ANSWERS, asked).await;
}

/// Looks after the clock: whether it is set, and whether it steps; and keeps the time for a later boot. Never ends; the
/// agent runs it once.
pub async fn watch_clock(hub: Rc<Hub>) {
    let start = hub.clock.boot();
    let (mut asked, mut remembered) = (start, start);
    loop {
        tokio::time::sleep(CLOCK_CHECK).await;
        let now = hub.clock.boot();
        if !hub.is_vouched_for() && now.since(asked) >= HARDWARE_CHECK {
            asked = now;
            ask_hardware_clocks(&hub.clock).await;
        }
        hub.look_at_clock();
        if now.since(remembered) >= REMEMBER_TIME {
            remembered = now;
            hub.remember_time();
        }
    }
}

/// The keys of the outbox's state under which an uplink keeps what is its own.
#[must_use]
pub fn state_keys(uplink: &str) -> [String; 2] {
    [saved::state_key(uplink), sparkplug::Node::state_key(uplink)]
}

/// Brings the outbox's records to a broker, until `stop` gives a deadline for an orderly end.
///
/// Never ends before that: whatever fails is tried again. The outbox is to be closed after it.
pub async fn run(config: UplinkConfig, hub: Rc<Hub>, stop: watch::Receiver<Option<BootTime>>) {
    let mut feed = Feed::new(&config, &hub);
    hub.counters(&config.name).presence.began(hub.clock.boot());
    Keeper::new(config, hub.clone(), stop).keep_connected(&mut feed).await;
    feed.close(&mut hub.outbox.borrow_mut(), hub.clock.boot());
    hub.put_aside(feed.take_refused());
    hub.all_put_aside().await;
}
