//! The chips on the I2C and SPI buses of the lab's guest: the register-level models of `[hardware] backend = "sim"`,
//! behind the kernel's own interfaces.
//!
//! `lab-chips serve SOCKET DEVICE…` answers the transfers of `/dev/simbus-…` (tests/lab/modules/door.h has the form).
//! `lab-chips tell SOCKET WORD…` sends it a command: a bus such as `i2c1` or `spi0`, and
//!
//! | command | what the bus does from now on |
//! |---|---|
//! | `unplug ADDRESS` | nobody acknowledges there; with SPI, ADDRESS is the chip select, and it reads as zeros |
//! | `reconnect ADDRESS` | the chip is there again and had kept its power |
//! | `plug ADDRESS` | a chip fresh from power-on is there |
//! | `error NUMBER [ADDRESS]` | transfers, or those of that address, end with this error (errno(3)) |
//! | `delay MILLISECONDS [ADDRESS]` | they are answered so much later |
//! | `register ADDRESS REGISTER BYTE` | that register reads as this byte: a wrong identity, an error bit |
//! | `damage ADDRESS [N]` | the last byte of each read, or each Nth, comes over the wire damaged: a wrong checksum |
//! | `mend` | all of these end, but what is unplugged stays so |
//! | `count [ADDRESS]` | says how many transfers there were |
//! | `drive ADDRESS PIN high\|low\|open` | what drives that pin of a GPIO expander, or that nothing does |
//! | `interrupt ADDRESS FILE` | the expander's interrupt output is wired to the line of gpio-sim whose `pull` is FILE |
//!
//! Numbers are decimal, or hexadecimal behind `0x`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, io, process, thread};

use embedded_hal::i2c::Operation;
use vigie::clock::{Clock, SystemClock, Trust};
use vigie::hardware::sim::DEFAULT_SEED;
use vigie::hardware::sim::bus::Wires;
use vigie::hardware::sim::chips::{self, Pins, SpiChip};

/// Where the devices of simbus are.
const DEVICES: &str = "/dev/simbus-";
/// Larger than any transfer that simbus hands out: DOOR_MAX_BYTES, and DOOR_MAX_PARTS with their heads.
const LARGEST: usize = 32 * 1024;
/// How often the interrupt outputs of expanders are looked at.
const LOOK: Duration = Duration::from_millis(50);
const READS: u16 = 1;
const WRITES: u16 = 2;

type Result<T> = std::result::Result<T, String>;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match &words[..] {
        ["serve", socket, devices @ ..] if !devices.is_empty() => serve(socket, devices),
        ["tell", socket, command @ ..] => tell(socket, command),
        _ => Err("usage: lab-chips serve SOCKET DEVICE… | tell SOCKET WORD…".to_owned()),
    };
    if let Err(problem) = outcome {
        say(&mut io::stderr(), &problem);
        process::exit(1);
    }
}

/// A line to somebody who may be gone.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn tell(socket: &str, command: &[&str]) -> Result<()> {
    let broken = |error: io::Error| format!("{socket}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(broken)?;
    writeln!(stream, "{}", command.join(" ")).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(broken)?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", said)) => {
            say(&mut io::stdout(), said);
            Ok(())
        }
        _ => Err(answer),
    }
}

fn serve(socket: &str, devices: &[&str]) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Trust::Always));
    let mut buses = BTreeMap::new();
    for device in devices {
        let name = device.strip_prefix(DEVICES).ok_or_else(|| format!("{device} is none of {DEVICES}…"))?;
        let bus = Arc::new(Mutex::new(Bus::new(name, Arc::clone(&clock))?));
        let file = OpenOptions::new().read(true).write(true).open(device);
        let file = file.map_err(|error| format!("{device}: {error}"))?;
        let (served, device) = (Arc::clone(&bus), (*device).to_owned());
        let living = Arc::clone(&bus);
        thread::spawn(move || live(&living));
        thread::spawn(move || {
            let Err(error) = answer_all(file, &served);
            say(&mut io::stderr(), &format!("{device}: {error}"));
            process::exit(1);
        });
        buses.insert(name, bus);
    }
    if Path::new(socket).exists() {
        std::fs::remove_file(socket).map_err(|error| format!("{socket}: {error}"))?;
    }
    let listener = UnixListener::bind(socket).map_err(|error| format!("{socket}: {error}"))?;
    for stream in listener.incoming().map_while(io::Result::ok) {
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        let answer = match reader.read_line(&mut line) {
            Ok(_) => command(&buses, &line),
            Err(error) => Err(error.to_string()),
        };
        say(reader.get_mut(), &answer.map_or_else(|problem| problem, |said| format!("ok {said}")));
    }
    Ok(())
}

/// The contacts of expanders close and open by themselves, whether anybody asks or not.
fn live(bus: &Mutex<Bus>) {
    loop {
        thread::sleep(LOOK);
        if let Err(problem) = bus.lock().unwrap_or_else(PoisonError::into_inner).pass_on() {
            say(&mut io::stderr(), &problem);
        }
    }
}

fn command(buses: &BTreeMap<&str, Arc<Mutex<Bus>>>, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, words) = words.split_first().ok_or("no command")?;
    let bus = buses.get(name).ok_or_else(|| format!("there is no bus {name}"))?;
    bus.lock().unwrap_or_else(PoisonError::into_inner).command(words)
}

fn number<T: TryFrom<u64>>(text: &str) -> Result<T> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.ok().and_then(|number| T::try_from(number).ok()).ok_or_else(|| format!("{text} is no number that fits"))
}

/// What a transfer meets at one address, or at any.
#[derive(Clone, Default)]
struct Faults {
    errno: Option<i32>,
    delay: Duration,
    registers: BTreeMap<u8, u8>,
    /// Each read of that number is damaged, after so many.
    damage: Option<(u64, u64)>,
}

impl Faults {
    fn damage(&mut self, parts: &mut [Part]) {
        let Some((every, reads)) = &mut self.damage else { return };
        for part in parts.iter_mut().filter(|part| part.flags & READS != 0) {
            *reads += 1;
            if let (true, Some(last)) = (reads.is_multiple_of(*every), part.bytes.last_mut()) {
                *last ^= 0x55;
            }
        }
    }
}

/// Pulls a line of gpio-sim.
fn put(file: &Path, high: bool) -> Result<()> {
    let pull = if high { "pull-up" } else { "pull-down" };
    std::fs::write(file, pull).map_err(|error| format!("{}: {error}", file.display()))
}

enum Chips {
    I2c {
        wires: Wires,
        /// Where a chip was plugged in anew, it is the one on these wires.
        anew: BTreeMap<u16, Wires>,
    },
    Spi(BTreeMap<u16, Box<dyn SpiChip>>),
}

struct Bus {
    clock: Arc<dyn Clock>,
    chips: Chips,
    seed: u64,
    unplugged: BTreeSet<u16>,
    faults: Faults,
    at: BTreeMap<u16, Faults>,
    transfers: BTreeMap<u16, u64>,
    /// The files that the interrupt outputs of expanders are wired to.
    interrupts: BTreeMap<u16, PathBuf>,
}

impl Bus {
    fn new(name: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let (kind, digits) = name.split_at(3.min(name.len()));
        // Two buses do not measure the same.
        let seed = DEFAULT_SEED + number::<u64>(digits)?;
        let chips = match kind {
            "i2c" => Chips::I2c { wires: chips::i2c_bus_1(&clock, seed), anew: BTreeMap::new() },
            "spi" => Chips::Spi(
                (0..2).filter_map(|select| Some((select.into(), chips::spi_bus_0(select, &clock, seed)?))).collect(),
            ),
            _ => return Err(format!("{name} is neither i2cN nor spiN")),
        };
        let (unplugged, faults, at, transfers, interrupts) = Default::default();
        Ok(Self { clock, chips, seed, unplugged, faults, at, transfers, interrupts })
    }

    fn command(&mut self, words: &[&str]) -> Result<String> {
        let mut said = "done".to_owned();
        match *words {
            ["unplug", address] => drop(self.unplugged.insert(number(address)?)),
            ["reconnect", address] => drop(self.unplugged.remove(&number(address)?)),
            ["plug", address] => self.plug(number(address)?),
            ["error", errno, ref address @ ..] => self.faults(address)?.errno = Some(number(errno)?),
            ["delay", millis, ref address @ ..] => {
                self.faults(address)?.delay = Duration::from_millis(number(millis)?);
            }
            ["register", address, register, byte] => {
                let registers = &mut self.faults(&[address])?.registers;
                registers.insert(number(register)?, number(byte)?);
            }
            ["damage", address, ref every @ ..] => {
                let every = every.first().map_or(Ok(1), |every| number(every))?;
                self.faults(&[address])?.damage = Some((every, 0));
            }
            ["drive", address, pin, level] => {
                let level = match level {
                    "high" => Some(true),
                    "low" => Some(false),
                    "open" => None,
                    _ => return Err(format!("{level} is neither high nor low nor open")),
                };
                self.pins(number(address)?)?.drive(number(pin)?, level);
                self.pass_on()?;
            }
            ["interrupt", address, file] => {
                let address = number(address)?;
                put(Path::new(file), self.pins(address)?.interrupt())?;
                self.interrupts.insert(address, file.into());
            }
            ["mend"] => {
                self.faults = Faults::default();
                self.at.clear();
            }
            ["count"] => said = self.transfers.values().sum::<u64>().to_string(),
            ["count", address] => {
                said = self.transfers.get(&number(address)?).copied().unwrap_or_default().to_string();
            }
            _ => return Err(format!("not known: {}", words.join(" "))),
        }
        Ok(said)
    }

    fn faults(&mut self, address: &[&str]) -> Result<&mut Faults> {
        match address {
            [] => Ok(&mut self.faults),
            [address] => Ok(self.at.entry(number(address)?).or_default()),
            _ => Err("one address, or none".to_owned()),
        }
    }

    fn pins(&self, address: u16) -> Result<Pins> {
        let pins = match &self.chips {
            Chips::I2c { wires, anew } => {
                u8::try_from(address).ok().and_then(|at| anew.get(&address).unwrap_or(wires).pins(at))
            }
            Chips::Spi(_) => None,
        };
        pins.ok_or_else(|| format!("there is no expander at {address:#04x}"))
    }

    /// Gives each change of an interrupt output to the line that it is wired to. The line's own pull-up, which is all
    /// that gpio-sim makes of a request for one, does not hold against an output that is low.
    fn pass_on(&self) -> Result<()> {
        for (address, file) in &self.interrupts {
            let pins = self.pins(*address)?;
            for (_, high) in pins.interrupt_changes() {
                put(file, high)?;
            }
            if !pins.interrupt() {
                put(file, false)?;
            }
        }
        Ok(())
    }

    fn plug(&mut self, address: u16) {
        self.unplugged.remove(&address);
        match &mut self.chips {
            Chips::I2c { anew, .. } => drop(anew.insert(address, chips::i2c_bus_1(&self.clock, self.seed))),
            Chips::Spi(chips) => {
                let select = u8::try_from(address).unwrap_or(u8::MAX);
                chips.extend(chips::spi_bus_0(select, &self.clock, self.seed).map(|chip| (address, chip)));
            }
        }
    }

    /// What is to be answered: a delay, and then an error or that all parts that read have their bytes.
    fn transfer(&mut self, parts: &mut [Part]) -> (Duration, std::result::Result<(), i32>) {
        let mut delay = self.faults.delay;
        let mut outcome = self.faults.errno.map_or(Ok(()), Err);
        // An adapter speaks to one address after the other; only very unusual programs name two in one transfer.
        for group in parts.chunk_by_mut(|one, other| one.address == other.address) {
            let address = group[0].address;
            *self.transfers.entry(address).or_default() += 1;
            let faults = self.at.get(&address).cloned().unwrap_or_default();
            delay += faults.delay;
            outcome = outcome.and(faults.errno.map_or(Ok(()), Err));
            if outcome.is_ok() {
                outcome = self.speak(address, group);
            }
            spoil(&faults, group);
            if let Some(faults) = self.at.get_mut(&address) {
                faults.damage(group);
            }
        }
        if let Err(problem) = self.pass_on() {
            say(&mut io::stderr(), &problem);
        }
        (delay, outcome)
    }

    fn speak(&mut self, address: u16, parts: &mut [Part]) -> std::result::Result<(), i32> {
        let unplugged = self.unplugged.contains(&address);
        match &mut self.chips {
            Chips::I2c { .. } if unplugged => Err(libc::EREMOTEIO),
            Chips::I2c { wires, anew } => {
                let wires = anew.get_mut(&address).unwrap_or(wires);
                let mut operations: Vec<Operation<'_>> = parts
                    .iter_mut()
                    .map(|part| {
                        if part.flags & READS != 0 {
                            Operation::Read(&mut part.bytes)
                        } else {
                            Operation::Write(&part.bytes)
                        }
                    })
                    .collect();
                let address = u8::try_from(address).map_err(|_| libc::EREMOTEIO)?;
                wires.transaction(address, &mut operations).map_err(|_| libc::EREMOTEIO)
            }
            Chips::Spi(chips) => {
                let out = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect::<Vec<u8>>();
                // SPI itself does not notice that nobody is there.
                let answer = match chips.get_mut(&address) {
                    Some(chip) if !unplugged => chip.transfer(&out),
                    _ => vec![0; out.len()],
                };
                let mut answer = answer.into_iter();
                parts
                    .iter_mut()
                    .flat_map(|part| &mut part.bytes)
                    .zip(&mut answer)
                    .for_each(|(byte, read)| *byte = read);
                Ok(())
            }
        }
    }
}

/// What comes over the wire where a chip is damaged, or another than the one that is expected.
fn spoil(faults: &Faults, parts: &mut [Part]) {
    let mut register = None;
    for part in parts {
        if part.flags & READS == 0 {
            register = part.bytes.first().copied();
            continue;
        }
        for (offset, byte) in (0_u8..=u8::MAX).zip(&mut part.bytes) {
            let there = register.map(|register| register.wrapping_add(offset));
            if let Some(other) = there.and_then(|register| faults.registers.get(&register)) {
                *byte = *other;
            }
        }
    }
}

/// A message on I2C, a transfer on SPI: what is written, which becomes what was read.
struct Part {
    address: u16,
    flags: u16,
    bytes: Vec<u8>,
}

fn answer_all(mut device: File, bus: &Mutex<Bus>) -> io::Result<std::convert::Infallible> {
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = device.read(&mut buffer)?;
        let (number, mut parts) =
            parts_of(&buffer[..length]).ok_or_else(|| io::Error::other("a transfer is cut short"))?;
        // A transfer keeps its bus to itself, and nobody else: commands are taken while it lasts.
        let (delay, outcome) = bus.lock().unwrap_or_else(PoisonError::into_inner).transfer(&mut parts);
        thread::sleep(delay);
        let status = outcome.err().map_or(0, |errno: i32| -errno);
        let mut answer = [number.to_le_bytes(), status.to_le_bytes()].concat();
        if status == 0 {
            answer.extend(parts.iter().filter(|part| part.flags & READS != 0).flat_map(|part| &part.bytes));
        }
        match device.write(&answer) {
            // The bus has given up, as it does with a chip that is too slow.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {}
            written => drop(written?),
        }
    }
}

/// The number of a transfer, and its parts; simbus speaks in the order of the machine, which is amd64.
fn parts_of(mut bytes: &[u8]) -> Option<(u32, Vec<Part>)> {
    let number = u32::from_le_bytes(take(&mut bytes)?);
    let count = u32::from_le_bytes(take(&mut bytes)?);
    let mut parts = Vec::new();
    for _ in 0..count {
        let address = u16::from_le_bytes(take(&mut bytes)?);
        let flags = u16::from_le_bytes(take(&mut bytes)?);
        let length = usize::try_from(u32::from_le_bytes(take(&mut bytes)?)).ok()?;
        let written = if flags & WRITES == 0 {
            vec![0; length]
        } else {
            let (written, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            written.to_vec()
        };
        parts.push(Part { address, flags, bytes: written });
    }
    Some((number, parts))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
