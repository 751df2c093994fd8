//! The keys of `[clock]`.

use super::{Section, key};

/// `[clock]`
pub(super) static CLOCK: Section = Section {
    title: "[clock]",
    intro: "A Raspberry Pi has no battery-backed clock: after a boot without network its time is wrong until somebody \
            sets it, and readings are not dated by a wrong clock. See [time](time.md).",
    keys: &[
        key(
            "trust",
            "`\"kernel\"` or `\"always\"`",
            Some("`\"kernel\"`"),
            "`kernel`: the clock counts as set when the kernel says that it follows NTP or PTP (chrony: only with `rtcsync` \
             in its configuration), or when it was set by a hardware clock (RTC) at boot; `always`: for containers and \
             virtual machines.",
        ),
        key(
            "gps",
            "name of a sensor",
            Some("none"),
            "A sensor with the driver `nmea`: while nothing better has set the clock, the time of its fixes dates readings, \
             to a second.",
        ),
    ],
};

pub(super) const ALIGN_HELP: &str = "It is measured at the multiples of `every` on the wall clock (UTC), such as each full \
                                     quarter of an hour; also the first time. While the clock is not set they are multiples \
                                     of the time since boot. For sensors that are asked, and lines that are looked at.";
