//! `vigie check FILE…`

use std::path::PathBuf;

use super::{FINE, WRONG, load, load_of, print, show};
use crate::config::{Config, FilesRead};

pub(super) fn check(files: &[PathBuf], host: Option<&str>) -> u8 {
    let mut status = FINE;
    for file in files {
        let loaded = match host {
            Some(host) => load_of(file, host),
            None => load(file),
        };
        match loaded {
            Some(config) => {
                if let Some(warnings) = &config.warnings {
                    show(warnings);
                }
                let (sensors, uplinks) = (config.sensors.len(), config.uplinks.len());
                print(&format!(
                    "{}: fine ({}, {})\n{}{}",
                    file.display(),
                    counted(sensors, "sensor"),
                    counted(uplinks, "uplink"),
                    fragments(&config.files),
                    presets(&config)
                ));
            }
            None => status = WRONG,
        }
    }
    status
}

/// Which fragments were read, which were not, and what this host's own has changed.
pub(super) fn fragments(files: &FilesRead) -> String {
    let read = files.fragments.iter().map(|file| format!("  with {file}\n"));
    let host = &files.host;
    let of_others = files.of_others.iter().map(|file| format!("  without {file}: this host is called `{host}`\n"));
    let replaced = files.replaced.iter().map(|key| format!("  {key} is this host's own\n"));
    read.chain(of_others).chain(replaced).collect()
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
