//! `vigie check FILE…`

use std::path::PathBuf;

use super::{FINE, WRONG, load, print};

pub(super) fn check(files: &[PathBuf]) -> u8 {
    let mut status = FINE;
    for file in files {
        match load(file) {
            Some(config) => {
                let (sensors, uplinks) = (config.sensors.len(), config.uplinks.len());
                print(&format!(
                    "{}: fine ({}, {})\n",
                    file.display(),
                    counted(sensors, "sensor"),
                    counted(uplinks, "uplink")
                ));
            }
            None => status = WRONG,
        }
    }
    status
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
