//! Files in which the kernel gives what its own drivers have measured (`/sys/bus/w1`, `/sys/bus/iio`,
//! `/sys/class/hwmon`). Simulated hardware has the same ones.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read of one file at most; the kernel's attributes are a page.
pub const MAX_FILE: u64 = 64 * 1024;

/// The kernel's files. Paths are absolute, as on Linux.
pub trait KernelFiles: Send + Sync {
    /// The text of a file. May block for as long as the measurement takes that it starts.
    ///
    /// # Errors
    /// What the kernel answers; [`io::ErrorKind::NotFound`] where there is no such file.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The files of this machine.
#[derive(Debug)]
pub struct MachineFiles;

impl KernelFiles for MachineFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(text)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = std::fs::read_dir(folder)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }
}
