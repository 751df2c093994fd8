//! Prevents: a gateway that gets on with its own idea of a protocol, and with nobody else's.
//!
//! Programs that others wrote stand at the other end. `tests/interop/run` installs them and runs these tests; others
//! leave them out.

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
mod discovery;
mod home_assistant;
mod integrity;
mod modbus;
mod paho;
mod payloads;
mod sparkplug;
