//! Any chip on I2C, described in the configuration by the numbers of its data sheet.

use embedded_hal::i2c::I2c;

use super::support::i2c::{self, Chip};
use super::support::raw::{self, Ask, Bus, Question};
use super::{Connection, Driver, OptionInfo, Parsed};
use crate::options::Options;
use crate::reading::{Fault, FaultCode};

pub(crate) static DRIVER: Driver = Driver {
    name: "i2c-raw",
    summary: "Any chip on I2C without a driver, described by the numbers of its data sheet",
    notes: "\
For a chip that has no driver here: its data sheet says which bytes to send and what the answer means. A
`[[sensor.value]]` table a value; its keys:

| key | values | default | |
|---|---|---|---|
| `quantity` | name | must be given | How the value is called. |
| `register` | 0 to 255 | none | Number of the register that is read. |
| `send` | list of bytes | none | Instead of `register`: the bytes that are sent before the read, in the same transaction. |
| `at` | 0 to 31 | 0 | Where in the answer the value begins. Values with the same `register` or `send` are read in one transaction. |
| `length` | 1 to 4 | 1 | Its bytes. |
| `order` | `big` or `little` | `\"big\"` | Most or least significant byte first. |
| `bits` | [highest, lowest] | all | The bits that count: `[15, 4]` for 12 bits at the left of 16. |
| `signed` | true or false | false | Two's complement. |
| `scale`, `offset` | number | 1, 0 | The value is the number × `scale` + `offset`. |
| `unit` | text | none | |
| `range` | [lowest, highest] | none | What is outside is the fault `impossible`. |

Without `register` and `send` the chip is only read: with `measure` and `wait`, that is how chips with commands are asked.
With `crc`, an answer is read with its checksums, and `at` counts their bytes, too; a wrong one is the fault `crc`.

A TMP117, whose registers have 16 bits, and which holds -256 °C until its first measurement:

```toml
[[sensor]]
name = \"labo\"
driver = \"i2c-raw\"
address = 0x48
identity = { register = 0x0f, length = 2, bits = [11, 0], value = 0x117 }
init = [[0x01, 0x02, 0x20]]       # configuration: eight averages, one measurement a second
[[sensor.value]]
quantity = \"temperature\"
register = 0x00
length = 2
signed = true
scale = 0.0078125
unit = \"°C\"
range = [-55, 150]
```

An SHTC3, which is asked with commands and protects each word with a checksum:

```toml
[[sensor]]
name = \"cellier\"
driver = \"i2c-raw\"
address = 0x70
init = [[0x35, 0x17]]             # wake up
measure = [0x78, 0x66]            # temperature first, no clock stretching
wait = \"13ms\"
crc = { polynomial = 0x31, init = 0xff, every = 2 }
value = [
    { quantity = \"temperature\", at = 0, length = 2, scale = 0.002670288, offset = -45, unit = \"°C\" },
    { quantity = \"humidity\", at = 3, length = 2, scale = 0.001525879, unit = \"%\" },
]
```",
    sample: r#"[[sensor]]
name = "brut"
driver = "i2c-raw"
bus = 1
address = 0x18
identity = { register = 0x06, length = 2, value = 0x0054 }
every = "30s"
[[sensor.value]]
quantity = "temperature"
register = 0x05
length = 2
bits = [12, 0]
signed = true
scale = 0.0625
unit = "°C"
range = [-40, 125]
"#,
    connection: Connection::I2c(INFO),
    options: OPTIONS,
    quantities: &[],
    parse,
};

const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "value",
        values: "list of tables, see above",
        default: None,
        help: "What the chip measures, each as a table `[[sensor.value]]`.",
    },
    OptionInfo {
        name: "identity",
        values: "table with `value` and, as above, `register` or `send`, `at`, `length`, `order`, `bits`, `signed`",
        default: Some("none"),
        help: "What the chip must say of itself before it is used: anything else is the fault `wrong-chip`.",
    },
    OptionInfo {
        name: "init",
        values: "list of lists of bytes",
        default: Some("none"),
        help: "Sent one after the other when the chip is opened: a register's number and what is written to it.",
    },
    OptionInfo {
        name: "measure",
        values: "list of bytes",
        default: Some("none"),
        help: "Sent before each sample: a command, or a register's number and what is written to it.",
    },
    OptionInfo {
        name: "wait",
        values: "duration up to 10 s",
        default: Some("\"0s\""),
        help: "How long the chip takes after each message of `init` and `measure`; the bus is free meanwhile.",
    },
    OptionInfo {
        name: "crc",
        values: "table with `polynomial`, `init` (0) and `every` (all)",
        default: Some("none"),
        help: "A checksum of eight bits behind each `every` bytes of an answer, or at its end.",
    },
];

/// Any address that the specification does not reserve (UM10204, 3.1.12).
const INFO: i2c::Info = i2c::Info { addresses: &[], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options);
    let description = raw::parse(options, Bus::I2c);
    let place = place?;
    let source = raw::source(description?, move |hardware| place.chip(hardware));
    Some(Parsed { claims: place.claims(), source })
}

impl Ask for Chip {
    fn tell(&mut self, what: &str, message: &[u8]) -> Result<(), Fault> {
        self.send(what, message)
    }

    fn ask(&mut self, Question { send, length }: &Question) -> Result<Vec<u8>, Fault> {
        let mut answer = vec![0; *length];
        let (mut bus, address) = (self.bus(), self.place().address);
        let done =
            if send.is_empty() { bus.read(address, &mut answer) } else { bus.write_read(address, send, &mut answer) };
        done.map_err(|error| Chip::fault(self, &error, format_args!("its answer to {send:02x?} cannot be read")))?;
        Ok(answer)
    }

    fn fault(&self, code: FaultCode, what: String) -> Fault {
        self.says(code, what)
    }
}
