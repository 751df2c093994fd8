//! Simulated files of the kernel's own drivers: a DS18B20 on 1-Wire.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::world;
use crate::clock::Clock;
use crate::hardware::KernelFiles;

/// The files of the simulated machine; their contents follow from seed and time.
pub(super) struct SimFiles {
    clock: Arc<dyn Clock>,
    seed: u64,
}

/// A file, and what it holds.
type SimFile = (&'static str, fn(&SimFiles) -> String);

/// All files that there are.
const FILES: &[SimFile] = &[("/sys/bus/w1/devices/28-000005e2fdc3/temperature", SimFiles::thermometer)];

impl SimFiles {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { clock, seed }
    }

    /// Thousandths of a degree, in steps of 1/16 °C (Documentation/w1/slaves/w1_therm.rst).
    fn thermometer(&self) -> String {
        let degrees = world::air(self.seed, self.clock.boot()).temperature;
        format!("{:.0}\n", (degrees * 16.0).round() * 62.5)
    }
}

impl KernelFiles for SimFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        let file = FILES.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, content)| content(self)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = FILES.iter().filter_map(|(name, _)| Path::new(name).strip_prefix(folder).ok());
        let names: BTreeSet<String> =
            inside.filter_map(|rest| Some(rest.iter().next()?.to_str()?.to_owned())).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names.into_iter().collect()) }
    }
}
