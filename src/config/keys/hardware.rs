//! The keys that say what the sensors run on.

use super::{Section, key};

/// `[hardware]`
pub(super) static HARDWARE: Section = Section {
    title: "[hardware]",
    intro: "What the drivers run on.",
    keys: &[
        key(
            "backend",
            "`\"linux\"`, `\"rppal\"` or `\"sim\"`",
            Some("`\"linux\"`"),
            "`linux` reads every board through the kernel's own interfaces. `rppal`, in a build with that feature, drives \
             the header of a Raspberry Pi through the crate of that name (docs/decisions/0008-rppal.md says when). `sim` \
             simulates chips, lines and an Arduino below the real drivers, on any machine.",
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
            "`\"i2c BUS ADDRESS\"`, `\"i2c BUS\"`, `\"spi BUS SELECT\"`, `\"spi BUS\"`, `\"w1 ID\"`, `\"iio NAME\"`, `\"hwmon NAME\"`, \
             `\"line NAME\"` or `\"port PATH\"`",
            None,
            "What breaks: a chip, the wires of a bus, a device of the kernel's own drivers (`vigie scan` with `sim` lists \
             them), an input line, a serial port.",
        ),
        key(
            "kind",
            "`\"nak\"`, `\"timeout\"`, `\"hang\"`, `\"garbage\"`, `\"wrong-chip\"` or `\"unplug\"`",
            None,
            "No acknowledge; each transfer fails after a second; transfers do not return before the end; random bits; \
             inverted bits; gone, and as after power-on when it comes back. SPI has no acknowledge, and reads ones where \
             nothing is plugged in. Devices of the kernel's do what the kernel then says of them: an error, an empty \
             file, or no folder; that they are another chip is not among it. Lines and ports can only be unplugged.",
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
        key("active_low", "true or false", Some("false"), "Low switches the supply on."),
        key("after", "1 to 1000", Some("3"), "Faults in a row; a call that does not return counts once a `deadline`."),
        key("off", "duration, `\"1ms\"` to `\"1h\"`", Some("`\"2s\"`"), "How long it is off: capacitors must empty."),
        key("settle", "duration up to `\"1h\"`", Some("`\"1s\"`"), "From on again until the sensor is opened."),
    ],
};

/// `[expander.NAME]`
pub(super) static EXPANDER: Section = Section {
    title: "[expander.NAME]",
    intro: "A GPIO expander on I2C. Its lines are used as any other, by `line = \"NAME:GPA3\"` (GPA0 to GPB7) or \
            `\"NAME:3\"`, as inputs of drivers and as outputs of `power`. With an interrupt line the time of a change is the \
            kernel's time of the interrupt; without one, the expander is asked each `every`, and that is the time of the \
            change. A pulse that is over before the chip was asked is seen by an MCP23017 with an interrupt line (the \
            first one: several become one), and by no PCF8574. Counting fast pulses needs a line of the board. When the \
            chip goes away, the sensors on it fail, and come back with it. Pull-ups: those of an MCP23017 are for \
            `bias = \"pull-up\"`; those of a PCF8574 are weak and always there. There are no pull-downs. \
            Where the device tree is yours to change, `dtoverlay=mcp23017` or `dtoverlay=pcf857x` has the kernel do this \
            work: its lines are then found by `pin` or `line` as those of the board.",
    keys: &[
        key("chip", "`\"mcp23017\"` or `\"pcf8574\"`", None, "Which chip it is; `pcf8574` for the PCF8574A as well."),
        key("bus", "0 to 255", Some("1"), "N of `/dev/i2c-N`."),
        key("mux", "0x70 to 0x77", Some("none"), "Address of a TCA9548A or PCA9548A behind which it is."),
        key("channel", "0 to 7", Some("none; must be given with `mux`"), "The multiplexer's channel."),
        key("address", "0x20 to 0x27; for the PCF8574A 0x38 to 0x3f", Some("0x20"), "`vigie scan` shows which."),
        key(
            "interrupt",
            "table, see [interrupt](#interrupt)",
            Some("none"),
            "The line of the board to which its interrupt output is wired: INT, or either of INTA and INTB.",
        ),
        key(
            "every",
            "duration, `\"1ms\"` to `\"1m\"`",
            Some("`\"20ms\"`"),
            "How often it is asked without `interrupt`.",
        ),
    ],
};

/// `interrupt = { … }`
pub(super) static INTERRUPT: Section = Section {
    title: "interrupt",
    intro: "The line of the board to which an expander's interrupt output is wired, as `interrupt = { pin = 25 }`. The \
            output only pulls low; the line is pulled up inside of the board's chip, to 3.3 V.",
    keys: &[
        key("pin", "as of a line driver, such as `25`", Some("none; `pin` or `line` must be given"), "The line."),
        key("line", "`\"gpiochip0:25\"`", Some("none; `pin` or `line` must be given"), "Chip and offset."),
    ],
};
