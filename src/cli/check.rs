//! `vigie check FILE…`

use std::path::PathBuf;

use super::{FINE, WRONG, load, print, show};
use crate::config::Config;

pub(super) fn check(files: &[PathBuf]) -> u8 {
    let mut status = FINE;
    for file in files {
        match load(file) {
            Some(config) => {
                if let Some(warnings) = &config.warnings {
                    show(warnings);
                }
                let (sensors, uplinks) = (config.sensors.len(), config.uplinks.len());
                print(&format!(
                    "{}: fine ({}, {})\n{}",
                    file.display(),
                    counted(sensors, "sensor"),
                    counted(uplinks, "uplink"),
                    presets(&config)
                ));
            }
            None => status = WRONG,
        }
    }
    status
}

/// What presets have set, so that nobody has to guess.
fn presets(config: &Config) -> String {
    let with_preset = config.uplinks.iter().filter_map(|uplink| Some((&uplink.name, uplink.preset.as_ref()?)));
    let shown = with_preset.map(|(name, preset)| {
        let set: Vec<String> = preset.set.iter().map(|set| format!("{} = {}", set.key, set.value)).collect();
        let set = if set.is_empty() { "nothing that is not given".to_owned() } else { set.join(", ") };
        format!("  [uplink.{name}] has from preset \"{}\": {set}\n", preset.target.name)
    });
    shown.collect()
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
