//! Any chip on SPI, described in the configuration by the numbers of its data sheet.

use embedded_hal::spi::{MODE_0, MODE_1, MODE_2, MODE_3};

use super::support::raw::{self, Ask, Bus, Question};
use super::support::spi::{self, Chip};
use super::{Connection, Driver, OptionInfo, Parsed};
use crate::hardware::SpiSettings;
use crate::options::Options;
use crate::reading::{Fault, FaultCode};

pub(crate) static DRIVER: Driver = Driver {
    name: "spi-raw",
    summary: "Any chip on SPI without a driver, described by the numbers of its data sheet",
    notes: "\
For a chip that has no driver here. On SPI a byte comes in for each byte that goes out: `send` holds the command and as
many zeros as the answer is long, and `at` counts from the first byte that comes in. A `[[sensor.value]]` table a value;
its keys are those of [`i2c-raw`](#i2c-raw), but for `register`: where the data sheet speaks of a register that is read
with its highest bit set, say `send = [0x80, 0x00, 0x00]`. Values with the same `send` are read in one transfer. With
`crc`, the checksums are at their places among the bytes that come in, from the first byte on.

SPI cannot tell whether a chip is there at all: give `identity` or `range` where the chip allows it.

An MCP3208, which has eight inputs of 12 bits, at 3.3 V; the bits of a command are start, single-ended and the input:

```toml
[[sensor]]
name = \"tensions\"
driver = \"spi-raw\"
chip_select = 0
speed = 1000000
[[sensor.value]]
quantity = \"u0\"
send = [0x06, 0x00, 0x00]         # 0000 0110: input 0 begins in the next byte's upper two bits
at = 1
length = 2
bits = [11, 0]
scale = 0.000805664               # 3.3 V / 4096
unit = \"V\"
[[sensor.value]]
quantity = \"u1\"
send = [0x06, 0x40, 0x00]
at = 1
length = 2
bits = [11, 0]
scale = 0.000805664
unit = \"V\"
```",
    sample: r#"[[sensor]]
name = "brut"
driver = "spi-raw"
bus = 0
chip_select = 0
every = "10s"
[[sensor.value]]
quantity = "u0"
send = [0x01, 0x80, 0x00]
at = 1
length = 2
bits = [9, 0]
scale = 0.00322265625
unit = "V"
"#,
    connection: Connection::Spi(INFO),
    options: &[
        OptionInfo {
            name: "value",
            values: "list of tables, see above",
            default: None,
            help: "What the chip measures, each as a table `[[sensor.value]]`.",
        },
        OptionInfo {
            name: "mode",
            values: "0 to 3",
            default: Some("0"),
            help: "The clock's polarity and phase as the data sheet numbers them: (0,0), (0,1), (1,0), (1,1).",
        },
        OptionInfo {
            name: "identity",
            values: "table with `send`, `value` and, as above, `at`, `length`, `order`, `bits`, `signed`",
            default: Some("none"),
            help: "What the chip must say of itself before it is used: anything else is the fault `wrong-chip`.",
        },
        OptionInfo {
            name: "init",
            values: "list of lists of bytes",
            default: Some("none"),
            help: "Sent one after the other when the chip is opened.",
        },
        OptionInfo {
            name: "measure",
            values: "list of bytes",
            default: Some("none"),
            help: "Sent before each sample.",
        },
        OptionInfo {
            name: "wait",
            values: "duration up to 10 s",
            default: Some("\"0s\""),
            help: "How long the chip takes after each message of `init` and `measure`.",
        },
        OptionInfo {
            name: "crc",
            values: "table with `polynomial`, `init` (0) and `every` (all)",
            default: Some("none"),
            help: "A checksum of eight bits behind each `every` bytes that come in, or at their end.",
        },
    ],
    quantities: &[],
    parse,
};

/// The mode is an option; no chip for a breadboard is faster.
const INFO: spi::Info = spi::Info { mode: MODE_0, max_hz: 20_000_000 };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let mode = options.optional_in::<u8>("mode", 0..=3);
    let mode = [MODE_0, MODE_1, MODE_2, MODE_3][usize::from(mode.unwrap_or(0))];
    let settings = SpiSettings { mode, ..INFO.parse(options) };
    let description = raw::parse(options, Bus::Spi)?;
    let source = raw::source(description, move |hardware| Chip::open(&settings, hardware));
    Some(Parsed { claims: spi::claims(&settings), source })
}

impl Ask for Chip {
    fn tell(&mut self, _: &str, message: &[u8]) -> Result<(), Fault> {
        self.transfer(&mut message.to_vec())
    }

    fn ask(&mut self, Question { send, .. }: &Question) -> Result<Vec<u8>, Fault> {
        let mut answer = send.clone();
        self.transfer(&mut answer)?;
        Ok(answer)
    }

    fn fault(&self, code: FaultCode, what: String) -> Fault {
        self.says(code, what)
    }
}
