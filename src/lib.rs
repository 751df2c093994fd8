//! vigie: a sensor gateway agent.
//!
//! ```text
//! sensors ──> sampler ──> pipeline ──> outbox ──> uplink ──MQTT──> broker(s)
//! (drivers)   (schedule)  (filter,     (taken,    (encode,           ▲
//!                          calibrate,   flushed,   QoS, replay)      │ same path over loopback
//!                          time, place) acked)                  embedded broker (LAN clients)
//! ```

pub mod agent;
pub mod archive;
pub mod backup;
#[cfg(feature = "broker")]
pub mod broker;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod control;
pub mod drivers;
pub mod export;
pub mod guard;
pub mod hardware;
pub mod logging;
pub mod offer;
pub mod options;
pub mod outbox;
pub mod pipeline;
pub mod reading;
pub mod sampler;
pub mod scan;
pub mod service;
pub mod state;
pub mod targets;
pub mod template;
pub mod topic;
pub mod uplink;
pub mod websocket;
