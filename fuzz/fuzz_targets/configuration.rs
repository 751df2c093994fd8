//! Whatever stands in a configuration: it is taken, or every complaint about it can be shown.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vigie::config::{self, Machine};
use vigie::drivers;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine {
    hostname: "fuzz".to_owned(),
    id: "1".to_owned(),
    state_dir: "/var/lib/vigie".into(),
    credentials: None,
    env: |_| None,
    has_broker: true,
    secrets: true,
});

fuzz_target!(|text: &str| {
    if let Err(report) = config::from_text("vigie.toml", text, &MACHINE, drivers::DRIVERS) {
        assert!(report.count() > 0);
        assert!(!config::render(&report, false).is_empty());
    }
});
