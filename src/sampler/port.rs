//! What a sensor on a serial port does around its readings: opening, skipping what the boot says, counting what was lost,
//! and looking for a port that has gone.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::{Context, Sampler, guarded, stopped};
use crate::drivers::Decoded;
use crate::drivers::support::tally::Tally;
use crate::hardware::Hardware;
use crate::hardware::serial::{self, PortName, SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode, GARBLED, OVERRUNS};

/// A port that went away is looked for this often.
const LOOK: Duration = Duration::from_millis(500);

/// Opening takes less than this, `reset = "pulse"` included, but where the driver waits for a device that does not
/// answer.
const OPENING: Duration = Duration::from_secs(5);

/// How often the kernel is asked for lost bytes, while bytes come.
const ASK: Duration = Duration::from_secs(1);

/// How often lost bytes are logged.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Bytes skipped at once.
const SKIPPED: usize = 1024;

/// A thread that opens a port needs little.
const STACK: usize = 256 * 1024;

/// Opens the port, and skips what comes first if that is configured. `None` when it is time to end.
pub(super) async fn open(
    sampler: &Sampler,
    settings: &SerialSettings,
    context: &mut Context,
) -> Option<Result<Box<dyn SerialPort>, Fault>> {
    let mut port = match opened(sampler, settings, context).await? {
        Ok(port) => port,
        Err(fault) => return Some(Err(fault)),
    };
    info!(port = %settings.port, node = %port.node().display(), "opened");
    tokio::select! {
        skipped = skip(&mut *port, settings) => Some(skipped.map(|()| port)),
        () = stopped(&mut context.stop) => None,
    }
}

/// Reads what comes in the time that is to be skipped.
async fn skip(port: &mut dyn SerialPort, settings: &SerialSettings) -> Result<(), Fault> {
    // A read that may take no time takes what is there all the same.
    if settings.skip.is_zero() {
        return Ok(());
    }
    let end = Instant::now() + settings.skip;
    let mut buffer = [0; SKIPPED];
    loop {
        match timeout_at(end, port.read(&mut buffer)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(settings.read_fault(None)),
            // A port that never rests would keep the time from being looked at.
            Ok(Ok(_)) if Instant::now() >= end => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(settings.read_fault(Some(&error))),
        }
    }
}

/// Opens the port on a thread of its own: the driver may wait for a device that does not answer.
async fn opened(
    sampler: &Sampler,
    settings: &SerialSettings,
    context: &mut Context,
) -> Option<Result<Box<dyn SerialPort>, Fault>> {
    let (done, mut opened) = oneshot::channel();
    let (hardware, runtime, wanted) = (Arc::clone(&context.hardware), Handle::current(), settings.clone());
    let thread = thread::Builder::new().name(format!("o:{}", sampler.name)).stack_size(STACK).spawn(move || {
        let _reactor = runtime.enter();
        // Nobody waits any more where the agent stops: then the port is closed again.
        let _ = done.send(guarded(|| hardware.serial(&wanted)));
    });
    if let Err(error) = thread {
        return Some(Err(Fault::new(FaultCode::Io, format!("no thread can be started to open the port: {error}"))));
    }
    let gone = |_| Err(Fault::new(FaultCode::Panic, "the thread that opens the port has ended"));
    let first = tokio::select! {
        first = timeout(OPENING, &mut opened) => first,
        () = stopped(&mut context.stop) => return None,
    };
    if let Ok(port) = first {
        return Some(port.unwrap_or_else(gone));
    }
    let detail = format!("{} does not open: its driver still waits for the device", settings.port);
    context.out.send(context.observe_fault(sampler.index, Fault::new(FaultCode::Stuck, detail))).await.ok()?;
    tokio::select! {
        port = opened => Some(port.unwrap_or_else(gone)),
        () = stopped(&mut context.stop) => None,
    }
}

/// Waits, but no longer than until a port that is not there comes back. False when it is time to end.
pub(super) async fn wait_for(name: &PortName, most: Duration, context: &mut Context) -> bool {
    let hardware = Arc::clone(&context.hardware);
    tokio::select! {
        goes_on = context.pause(most) => goes_on,
        () = comes_back(name, &*hardware) => true,
    }
}

/// Waits until a port that is not there has come back; for ever where it stays, or stays away.
pub(super) async fn comes_back(name: &PortName, hardware: &dyn Hardware) {
    let mut was_there = hardware.has_port(name);
    loop {
        sleep(LOOK).await;
        let is_there = hardware.has_port(name);
        if is_there && !was_there {
            return;
        }
        was_there = is_there;
    }
}

/// Counts what was lost on a sensor's port, over all of its openings: bytes that nobody took in time, and lines and
/// frames that could not be read.
#[derive(Debug)]
pub(crate) struct Lost {
    bytes: Tally,
    garbled: Tally,
    /// When lost bytes were logged last, and how many there were then.
    logged: Option<(Instant, u64)>,
}

impl Default for Lost {
    fn default() -> Self {
        Self { bytes: Tally::new(OVERRUNS), garbled: Tally::new(GARBLED), logged: None }
    }
}

/// What the kernel counts of one opening of a port.
pub(super) struct Kernel {
    count: Option<serial::Overruns>,
    /// What it said last.
    last: u32,
    asked: Option<Instant>,
}

impl Kernel {
    /// The port was opened.
    pub(super) fn opened(port: &dyn SerialPort) -> Self {
        let count = port.overruns();
        Self { last: count.as_ref().and_then(|count| count()).unwrap_or_default(), count, asked: None }
    }

    /// The bytes that were lost since it was last asked.
    fn lost(&mut self, now: Instant) -> u32 {
        if self.asked.is_some_and(|asked| now.duration_since(asked) < ASK) {
            return 0;
        }
        self.asked = Some(now);
        let count = self.count.as_ref().and_then(|count| count()).unwrap_or(self.last);
        count.wrapping_sub(std::mem::replace(&mut self.last, count))
    }
}

impl Lost {
    /// Bytes have come. The totals go with the next samples, as what is lost while nothing can be understood is no
    /// sign that the sensor works.
    pub(super) fn observe(&mut self, kernel: &mut Kernel, now: Instant, decoded: &mut [Decoded]) {
        self.bytes.add(kernel.lost(now).into());
        let garbled = |(_, outcome): &&Decoded| outcome.as_ref().is_err_and(|fault| fault.code.is_garbled());
        self.garbled.add(decoded.iter().filter(garbled).count() as u64);
        let (total, (time, logged)) = (self.bytes.total(), self.logged.unzip());
        if total > logged.unwrap_or_default() && time.is_none_or(|time| now.duration_since(time) >= COMPLAIN) {
            warn!(lost = total, "the port has lost bytes, as they came quicker than they were taken");
            self.logged = Some((now, total));
        }
        if let Some(samples) = decoded.iter_mut().rev().find_map(|(_, outcome)| outcome.as_mut().ok()) {
            self.bytes.tell(samples);
            self.garbled.tell(samples);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Poll;

    use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

    use super::*;
    use crate::clock::BootTime;
    use crate::reading::{Sample, Value};

    /// A port whose kernel counts.
    struct Counting(DuplexStream, Arc<AtomicU32>);

    impl SerialPort for Counting {
        fn node(&self) -> &Path {
            Path::new("/dev/ttyTEST0")
        }

        fn overruns(&self) -> Option<serial::Overruns> {
            let count = Arc::clone(&self.1);
            Some(Box::new(move || Some(count.load(Ordering::Relaxed))))
        }
    }

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_opening_is_skipped_only_if_that_is_configured() {
        let left = async |skip| {
            let (end, mut other) = tokio::io::duplex(64);
            let mut port = Counting(end, Arc::default());
            other.write_all(b"first\n").await.expect("room");
            let settings = SerialSettings { skip, ..SerialSettings::new("/dev/ttyTEST0", 9600) };
            super::skip(&mut port, &settings).await.expect("nothing fails");
            other.write_all(b"second\n").await.expect("room");
            let mut bytes = [0; 64];
            let count = port.read(&mut bytes).await.expect("bytes");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        assert_eq!(left(Duration::ZERO).await, "first\nsecond\n");
        assert_eq!(left(Duration::from_millis(50)).await, "second\n");
    }

    fn good() -> Vec<Decoded> {
        vec![(BootTime(0), Ok(vec![Sample::new("a", Value::Switch(true))]))]
    }

    fn bad(code: FaultCode) -> Decoded {
        (BootTime(0), Err(Fault::new(code, "in words")))
    }

    /// What good samples tell of the link.
    fn told(lost: &mut Lost, kernel: &mut Kernel, now: Instant) -> Vec<(String, Value)> {
        let mut decoded = good();
        lost.observe(kernel, now, &mut decoded);
        let samples = decoded.remove(0).1.expect("samples");
        samples.into_iter().skip(1).map(|sample| (sample.quantity.into_owned(), sample.value)).collect()
    }

    fn total(quantity: &str, total: f64) -> (String, Value) {
        (quantity.to_owned(), Value::number(total).expect("finite"))
    }

    #[test]
    fn lost_bytes_are_summed_over_openings_and_a_wrap_and_told_once_with_good_samples() {
        let count = Arc::new(AtomicU32::new(u32::MAX - 1));
        let port = Counting(tokio::io::duplex(1).0, Arc::clone(&count));
        let (mut lost, start) = (Lost::default(), Instant::now());
        let mut kernel = Kernel::opened(&port);
        assert_eq!(told(&mut lost, &mut kernel, start), [], "what was lost before the opening is not ours");
        count.store(3, Ordering::Relaxed);
        assert_eq!(told(&mut lost, &mut kernel, start), [], "the kernel is asked once a second");
        let later = start + ASK;
        lost.observe(&mut kernel, later, &mut [bad(FaultCode::Impossible)]);
        assert_eq!(told(&mut lost, &mut kernel, later), [total("overruns", 5.0)]);
        assert_eq!(told(&mut lost, &mut kernel, later + ASK), []);
        count.store(0, Ordering::Relaxed);
        let mut kernel = Kernel::opened(&port);
        count.store(2, Ordering::Relaxed);
        assert_eq!(told(&mut lost, &mut kernel, later), [total("overruns", 7.0)]);
    }

    #[test]
    fn what_could_not_be_read_is_counted_and_told_once_with_good_samples() {
        let port = Counting(tokio::io::duplex(1).0, Arc::default());
        let (mut lost, mut kernel, now) = (Lost::default(), Kernel::opened(&port), Instant::now());
        lost.observe(&mut kernel, now, &mut [bad(FaultCode::BadData), bad(FaultCode::Impossible)]);
        let mut both = vec![good().remove(0), bad(FaultCode::Crc)];
        lost.observe(&mut kernel, now, &mut both);
        let (_, samples) = both.remove(0);
        assert_eq!(samples.expect("samples").pop(), Value::number(2.0).map(|total| Sample::new("garbled", total)));
        assert_eq!(told(&mut lost, &mut kernel, now), []);
        lost.observe(&mut kernel, now, &mut [bad(FaultCode::BadData)]);
        let mut again = Kernel::opened(&port);
        assert_eq!(told(&mut lost, &mut again, now), [total("garbled", 3.0)], "over all openings");
    }
}
