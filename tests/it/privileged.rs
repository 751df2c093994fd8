//! Faults of network and disk that take root to make: namespaces, packet filters, mounts. `tests/run` runs these tests
//! as root only, and says so when it does not.

mod disk;
mod network;
