//! A serial port on which several sensors ask in turn, such as the units of an RS-485 bus.
//!
//! Requests and answers follow each other; nothing but silence tells where one ends, and nothing in an answer which
//! request it belongs to. So one exchange is made at a time, after the line has been silent for long enough, and what came
//! before the request is thrown away. A unit that has not answered in time may still do so: until that time has passed
//! once more it is asked nothing else, because its answer would be taken for one to the other question.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::{SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode};

/// Bits of a character on the line: start, eight data bits, parity or a second stop bit, stop (Modbus over serial line
/// V1.02, 2.5.1).
const BITS_OF_A_CHARACTER: u32 = 11;

/// From this baud rate on the silence is fixed (Modbus over serial line V1.02, 2.5.1.1).
const FAST: u32 = 19_200;

/// That silence.
const FAST_SILENCE: Duration = Duration::from_micros(1_750);

/// Old bytes are thrown away for so long at most: a line that never falls silent is no bus to ask on.
const MAX_NOISE: Duration = Duration::from_millis(500);

/// Bytes of one read.
const READ: usize = 512;

/// Once as many bytes have come as an answer has, and they are none, the answer is given up after so much silence. Less
/// than that may be within one answer: adapters on USB hand on what they hear every 16 ms.
const SETTLED: Duration = Duration::from_millis(50);

/// Bytes that are waited through for an answer: four times the longest frame (Modbus over serial line V1.02, 2.5.1).
const MAX_HEARD: usize = 1024;

/// A question to a unit on the bus.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The unit.
    pub unit: u8,
    /// The bytes to send.
    pub request: &'a [u8],
    /// How long it has for its answer, after the request is out.
    pub within: Duration,
    /// The same question was the last one to this unit: its late answer is as good as the next one.
    pub again: bool,
}

/// What the bytes are that came so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not yet an answer.
    Part,
    /// No answer, and no less than an answer is.
    Spoilt,
    /// An answer.
    Answer,
}

/// An open port that is asked on by one at a time. Its calls block.
pub struct SerialBus {
    settings: SerialSettings,
    /// Units (of 247 at most) that have not answered in time, and until when they may.
    late: Mutex<Vec<(u8, Instant)>>,
    /// `None` once the port has failed: it is to be opened anew, as another bus.
    open: Mutex<Option<OpenBus>>,
}

struct OpenBus {
    /// The port's own reactor: whoever asks is a thread that may block.
    runtime: Runtime,
    port: Box<dyn SerialPort>,
    /// When the board behind it has started, by `skip`.
    ready: Instant,
}

impl fmt::Debug for SerialBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialBus").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why an exchange gave no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// No answer came in time: what came.
    Silent(Vec<u8>),
    /// The line was not silent for [`MAX_NOISE`], or more than [`MAX_HEARD`] bytes came.
    Noise,
    /// The port itself: the bus is to be opened anew.
    Port(Fault),
}

impl SerialBus {
    fn open(
        settings: &SerialSettings,
        open: impl FnOnce(&SerialSettings) -> Result<Box<dyn SerialPort>, Fault>,
    ) -> Result<Self, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Fault::new(FaultCode::Io, format!("no reactor for a serial bus can be made: {error}")))?;
        let port = runtime.block_on(async { open(settings) })?;
        let ready = Instant::now() + settings.skip;
        Ok(Self {
            settings: settings.clone(),
            late: Mutex::default(),
            open: Mutex::new(Some(OpenBus { runtime, port, ready })),
        })
    }

    /// Sends a request and reads until `heard` says that the answer is there.
    ///
    /// # Errors
    /// There is no answer in time, or the port fails.
    pub fn exchange(&self, exchange: Exchange<'_>, heard: impl Fn(&[u8]) -> Heard) -> Result<Vec<u8>, ExchangeError> {
        let Exchange { unit, request, within, again } = exchange;
        let mut open = loop {
            // A panic while the bus was held left it as it is between two exchanges, or its port closed.
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match self.may_be_late(unit) {
                Some(left) if !again => {
                    // The bus is the others' meanwhile.
                    drop(open);
                    thread::sleep(left);
                }
                _ => break open,
            }
        };
        let Some(OpenBus { runtime, port, ready }) = open.as_mut() else {
            return Err(ExchangeError::Port(self.settings.read_fault(None)));
        };
        thread::sleep(ready.saturating_duration_since(Instant::now()));
        // The request is on its way through the port's buffer; only then does the unit's own time begin.
        let sending = characters(self.settings.baud, request.len());
        let outcome = runtime.block_on(async {
            fall_silent(&mut **port, silence(self.settings.baud)).await?;
            port.write_all(request).await.map_err(Failure::Port)?;
            let sent = Instant::now() + sending;
            let outcome = answer(&mut **port, sending + within, &heard).await;
            // Of two answers that there may be to a question asked twice, one at most has come.
            if self.may_be_late(unit).is_some() || matches!(outcome, Err(Failure::Silent(_))) {
                self.may_be_late_until(unit, sent + 2 * within);
            }
            outcome
        });
        outcome.map_err(|failure| match failure {
            Failure::Spoilt(came) | Failure::Silent(came) => ExchangeError::Silent(came),
            Failure::Noise => ExchangeError::Noise,
            Failure::Port(error) => {
                *open = None;
                ExchangeError::Port(self.settings.read_fault(Some(&error)))
            }
            Failure::Closed => {
                *open = None;
                ExchangeError::Port(self.settings.read_fault(None))
            }
        })
    }

    fn may_be_late_until(&self, unit: u8, until: Instant) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|(other, _)| *other != unit);
        late.push((unit, until));
    }

    /// For how much longer an answer of that unit may come that nobody waits for any more.
    fn may_be_late(&self, unit: u8) -> Option<Duration> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        late.retain(|(_, until)| *until > now);
        late.iter().find(|(other, _)| *other == unit).map(|(_, until)| *until - now)
    }

    /// Is its port open still?
    pub fn works(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

enum Failure {
    /// No answer in time.
    Silent(Vec<u8>),
    /// An answer, but not as it was sent.
    Spoilt(Vec<u8>),
    Noise,
    Port(io::Error),
    Closed,
}

/// How long so many characters take.
fn characters(baud: u32, count: usize) -> Duration {
    let bits = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(BITS_OF_A_CHARACTER);
    Duration::from_secs(1).saturating_mul(bits) / baud.max(1)
}

/// The silence between two frames: 3.5 characters, or what is fixed for fast lines.
fn silence(baud: u32) -> Duration {
    if baud >= FAST { FAST_SILENCE } else { characters(baud, 7) / 2 }
}

/// Throws away what comes until nothing has come for that long.
async fn fall_silent(port: &mut dyn SerialPort, silence: Duration) -> Result<(), Failure> {
    let end = Instant::now() + MAX_NOISE;
    let mut noise = [0; READ];
    loop {
        match timeout(silence, port.read(&mut noise)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(Failure::Closed),
            Ok(Ok(_)) if Instant::now() >= end => return Err(Failure::Noise),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure::Port(error)),
        }
    }
}

async fn answer(
    port: &mut dyn SerialPort,
    within: Duration,
    heard: &impl Fn(&[u8]) -> Heard,
) -> Result<Vec<u8>, Failure> {
    let late = sleep(within);
    tokio::pin!(late);
    let mut came = Vec::new();
    let mut buffer = [0; READ];
    let mut spoilt = false;
    loop {
        tokio::select! {
            biased;
            read = port.read(&mut buffer) => match read {
                Ok(0) => return Err(Failure::Closed),
                Ok(count) => came.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(Failure::Port(error)),
            },
            () = &mut late => return Err(Failure::Silent(came)),
            () = sleep(SETTLED), if spoilt => return Err(Failure::Spoilt(came)),
        }
        match heard(&came) {
            Heard::Answer => return Ok(came),
            _ if came.len() > MAX_HEARD => return Err(Failure::Noise),
            now => spoilt = now == Heard::Spoilt,
        }
    }
}

/// The buses that somebody uses.
#[derive(Default, Debug)]
pub struct SerialBuses(Mutex<Vec<Weak<SerialBus>>>);

impl SerialBuses {
    /// The bus on that port: the one that is open, or a new one on what `open` gives.
    ///
    /// # Errors
    /// What `open` says.
    pub fn get(
        &self,
        settings: &SerialSettings,
        open: impl FnOnce(&SerialSettings) -> Result<Box<dyn SerialPort>, Fault>,
    ) -> Result<Arc<SerialBus>, Fault> {
        let mut buses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buses.retain(|bus| bus.strong_count() > 0);
        let used = buses.iter().filter_map(Weak::upgrade).find(|bus| bus.settings == *settings && bus.works());
        if let Some(bus) = used {
            return Ok(bus);
        }
        let bus = Arc::new(SerialBus::open(settings, open)?);
        buses.push(Arc::downgrade(&bus));
        Ok(bus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_that_of_the_specification() {
        // 3.5 characters of 11 bits at 9600 baud are 4.01 ms.
        assert_eq!(silence(9_600).as_micros(), 4_010);
        assert_eq!(silence(19_200), FAST_SILENCE);
        assert_eq!(silence(115_200), FAST_SILENCE);
        assert_eq!(characters(9_600, 8).as_micros(), 9_166);
    }
}
