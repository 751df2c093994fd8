//! What takes root to make: faults of network and disk by namespaces, packet filters and mounts; other users. `tests/run`
//! runs these tests as root only, and says so when it does not.

mod disk;
#[cfg(feature = "broker")]
mod lan;
#[cfg(feature = "broker")]
mod late;
mod network;
mod rights;
