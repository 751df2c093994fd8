//! What drivers share: no driver lies here, and nothing here knows of one.
//!
//! For chips on a bus:
//! - `i2c`: the keys of a chip on I2C, opening it, its registers, and errors that name it;
//! - `spi`: the same for a chip on SPI;
//! - `measured`: a converted number as a sample, rounded, and refused where the chip cannot measure it;
//! - `sensirion`: words with a checksum each, as Sensirion's chips send them;
//! - `crc8`: checksums of eight bits;
//! - `inputs`: the key `inputs` of analog-to-digital converters;
//! - `scaled`: values that the configuration describes;
//! - `raw`: a chip that is described in the configuration, for `i2c-raw` and `spi-raw`.
//!
//! For GPIO lines:
//! - `gpio`: the keys of a line, and how lost edges are noticed;
//! - `pulses`: how often pulses come, from their own times.
//!
//! For what the kernel's own drivers read:
//! - `kernel`: finding a device among the kernel's files, and what its error numbers mean;
//! - `channels`: a device's channels as quantities, and which of them are wanted.
//!
//! For serial links:
//! - `serial`: the keys of a port;
//! - `lines`: cuts bytes into lines, and `guess`: what they may be if they cannot be read;
//! - `content`: what a whole file or output means;
//! - `announced`: what programs say in JSON besides values;
//! - `acknowledge`: the key of that name, and answers to commands;
//! - `device_clock`: the time of measurement from a device's own milliseconds;
//! - `names`: names of quantities from what a device calls them;
//! - `tally`: what is counted beside the values;
//! - `printed`: values as devices print them for people, and `units`: theirs;
//! - `pattern`: a regular expression whose named groups are quantities.

pub(crate) mod acknowledge;
pub(crate) mod announced;
pub(crate) mod channels;
pub(crate) mod content;
pub(crate) mod crc8;
pub(crate) mod device_clock;
pub(crate) mod gpio;
pub(crate) mod guess;
pub mod i2c;
pub(crate) mod inputs;
pub(crate) mod kernel;
pub(crate) mod lines;
pub(crate) mod measured;
pub(crate) mod names;
pub(crate) mod pattern;
pub(crate) mod printed;
pub(crate) mod pulses;
pub(crate) mod raw;
pub(crate) mod scaled;
pub(crate) mod sensirion;
pub(crate) mod serial;
pub mod spi;
pub(crate) mod tally;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod units;
