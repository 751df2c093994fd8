//! The keys that say what the sensors run on.

use super::{Section, key};

/// `[hardware]`
pub(super) static HARDWARE: Section = Section {
    title: "[hardware]",
    intro: "What the drivers run on.",
    keys: &[
        key(
            "backend",
            "`\"linux\"` or `\"sim\"`",
            Some("`\"linux\"`"),
            "`sim` simulates chips, lines and an Arduino below the real drivers, on any machine.",
        ),
        key(
            "fault",
            "tables, see [[hardware.fault]](#hardwarefault)",
            Some("none"),
            "With `sim`: what breaks, and when.",
        ),
    ],
};

/// `[[hardware.fault]]`
pub(super) static HARDWARE_FAULT: Section = Section {
    title: "[[hardware.fault]]",
    intro: "A fault of the simulated hardware, to see what becomes of it on the broker: with `device = \"i2c 1 0x76\"`, \
            `kind = \"hang\"`, `at = \"10s\"` and `for = \"20s\"`, the chip holds the whole bus up for a while. Up to 64.",
    keys: &[
        key(
            "device",
            "`\"i2c BUS ADDRESS\"`, `\"i2c BUS\"`, `\"line NAME\"` or `\"port PATH\"`",
            None,
            "What breaks: a chip, the wires of a bus, an input line, a serial port.",
        ),
        key(
            "kind",
            "`\"nak\"`, `\"timeout\"`, `\"hang\"`, `\"garbage\"`, `\"wrong-chip\"` or `\"unplug\"`",
            None,
            "No acknowledge; each transfer fails after a second; transfers do not return before the end; random bits; \
             inverted bits; gone, and as after power-on when it comes back. Lines and ports can only be unplugged.",
        ),
        key("at", "duration up to a year", Some("`\"0s\"`"), "When it begins, counted from the start."),
        key("for", "duration, `\"1ms\"` to a year", Some("for ever"), "How long it lasts."),
        key(
            "cured_by",
            "name of a line",
            Some("none"),
            "An output line, such as that of a `power` table, that ends it when it is switched off.",
        ),
    ],
};

/// `power = { … }`
pub(super) static POWER: Section = Section {
    title: "power",
    intro: "The line that switches a sensor's supply, through a transistor or a load switch, as \
            `power = { pin = 22, after = 3, off = \"2s\", settle = \"1s\" }`. The supply is on from the start. After so many \
            faults in a row (but those of rights and wrong chips) it is switched off and on, and the sensor opened anew; \
            meanwhile its availability is a fault `power-cycle`, which counts how often. Sensors that name the same line \
            share the supply, and lose it together. The next time comes after a minute at the earliest, after up to an \
            hour while it does not help. When vigie ends, it gives the line back: let a resistor keep the supply on.",
    keys: &[
        key("pin", "as of a line driver, such as `22`", Some("none; `pin` or `line` must be given"), "The line."),
        key("line", "`\"gpiochip0:22\"`", Some("none; `pin` or `line` must be given"), "Chip and offset."),
        key("allow_reserved", "true or false", Some("false"), "As of a line driver."),
        key("active_low", "true or false", Some("false"), "Low switches the supply on."),
        key("after", "1 to 1000", Some("3"), "Faults in a row; a call that does not return counts once a `deadline`."),
        key("off", "duration, `\"1ms\"` to `\"1h\"`", Some("`\"2s\"`"), "How long it is off: capacitors must empty."),
        key("settle", "duration up to `\"1h\"`", Some("`\"1s\"`"), "From on again until the sensor is opened."),
    ],
};
