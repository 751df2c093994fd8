//! What a broken sensor must not do: harm others, lie, or end the agent.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tokio::sync::oneshot;

use super::*;
use crate::clock::{BootTime, SystemClock, Trust};
use crate::command::Command;
use crate::drivers::{ByteDecoder, Carried, Decoded, LineDecoder, LineSource, Open, Poller};
use crate::hardware::{Backend, Bias, Edge, Edges, LineId, LineSettings, PortName, SerialSettings};
use crate::reading::{Sample, Value};

/// Generous: only a hang makes a test wait for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the n-th call does.
type Script = fn(usize, &Gate) -> Result<Vec<Sample>, Fault>;

/// A device that follows a script.
struct Scripted {
    calls: AtomicUsize,
    opened: AtomicUsize,
    stays_open: bool,
    script: Script,
    gate: Arc<Gate>,
}

/// Holds a call up until the test lets it go.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn wait(&self) {
        let open = self.0.lock().expect("not poisoned");
        drop(self.1.wait_while(open, |open| !*open).expect("not poisoned"));
    }

    fn open(&self) {
        *self.0.lock().expect("not poisoned") = true;
        self.1.notify_all();
    }
}

impl Scripted {
    fn new(script: Script, gate: Arc<Gate>, stays_open: bool) -> Arc<Self> {
        Arc::new(Self { calls: AtomicUsize::new(0), opened: AtomicUsize::new(0), stays_open, script, gate })
    }
}

struct Device(Arc<Scripted>);

impl Open for Device {
    fn open(&self, _hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Device(self.0.clone())))
    }
}

impl Poller for Device {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        (self.0.script)(call, &self.0.gate)
    }

    fn stays_open(&self) -> bool {
        self.0.stays_open
    }

    /// Does what the payload says, and reads it back.
    fn command(&mut self, command: &Command) -> Carried {
        match &*command.payload {
            b"wait" => self.0.gate.wait(),
            b"panic" => panic!("a bug"),
            b"refuse" => return Carried { samples: Vec::new(), outcome: Err("no".to_owned()) },
            _ => {}
        }
        let text = String::from_utf8_lossy(&command.payload).into_owned();
        Carried { samples: vec![Sample::new("done", Value::Text(text.into()))], outcome: Ok(()) }
    }
}

/// The same behind a port, without which it does not open.
struct Behind(Device, PortName);

impl Open for Behind {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let device = self.0.open(hardware)?;
        hardware.has_port(&self.1).then_some(device).ok_or_else(|| Fault::new(FaultCode::Missing, "no port"))
    }

    fn port(&self) -> Option<&PortName> {
        Some(&self.1)
    }
}

fn good() -> Result<Vec<Sample>, Fault> {
    Ok(vec![Sample::new("value", Value::Switch(true))])
}

struct Running {
    observations: mpsc::Receiver<Batch>,
    gate: Arc<Gate>,
    counts: Arc<Counts>,
    remote: remote::Remote,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Option<LastCall>>,
}

impl Running {
    fn start(source: impl FnOnce(Arc<Gate>) -> Source, queue: usize, deadline: Duration) -> Self {
        Self::with_kept(None, source, queue, deadline)
    }

    fn with_kept(
        kept: Option<Box<[u8]>>,
        source: impl FnOnce(Arc<Gate>) -> Source,
        queue: usize,
        deadline: Duration,
    ) -> Self {
        let clock = Arc::new(SystemClock::new(Trust::Always));
        let (out, observations) = mpsc::channel(queue);
        let (stop, stopped) = watch::channel(false);
        let (gate, counts): (Arc<Gate>, Arc<Counts>) = Default::default();
        let hardware = Backend::Sim.start(clock.clone());
        let context = Context {
            hardware,
            clock,
            offset: watch::channel(None).1,
            out,
            stop: stopped,
            counts: counts.clone(),
            supplies: Supplies::default(),
        };
        let (remote, reins) = remote::remote();
        let sampler = Sampler {
            index: SensorIndex(0),
            name: "test".to_owned(),
            source: source(gate.clone()),
            schedule: watch::channel(Schedule { every: Duration::from_millis(20), align: false, deadline }).1,
            power: None,
            kept: RefCell::new(kept),
            lost: RefCell::default(),
            reins,
        };
        let task = tokio::task::spawn_local(run(sampler, context));
        Self { observations, gate, counts, remote, stop, task }
    }

    /// A poller whose calls come to an end, however busy the machine is.
    fn poller(script: Script, queue: usize) -> Self {
        Self::poller_with_deadline(script, queue, DEADLINE)
    }

    fn poller_with_deadline(script: Script, queue: usize, deadline: Duration) -> Self {
        Self::start(|gate| Source::Poller(Arc::new(Device(Scripted::new(script, gate, false)))), queue, deadline)
    }

    /// A poller of which a call is going to be held up: it is soon told to be stuck.
    fn held_up(script: Script) -> Self {
        Self::poller_with_deadline(script, 8, Duration::from_millis(100))
    }

    async fn next(&mut self) -> Result<Vec<Sample>, FaultCode> {
        let batch = tokio::time::timeout(DEADLINE, self.observations.recv()).await.expect("in time").expect("running");
        assert_eq!(batch.len(), 1);
        batch[0].outcome.clone().map_err(|fault| fault.code)
    }

    /// Sends a command; gives where its result will be.
    async fn command(&self, payload: &[u8], until: BootTime) -> oneshot::Receiver<Result<(), String>> {
        let (done, told) = oneshot::channel();
        self.remote.orders.send(remote::Order { payload: payload.into(), until, done }).await.expect("it runs");
        told
    }

    /// Sends a command, and waits for its result.
    async fn carried(&self, payload: &[u8]) -> Result<(), String> {
        let told = self.command(payload, BootTime(u64::MAX)).await;
        tokio::time::timeout(DEADLINE, told).await.expect("in time").expect("a result")
    }

    /// Waits for what was read back after a command.
    async fn read_back(&mut self) -> Value {
        loop {
            let samples = self.next().await.expect("no fault");
            if let Some(sample) = samples.into_iter().find(|sample| sample.quantity == "done") {
                return sample.value;
            }
        }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("in time").expect("no panic");
    }
}

fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
    runtime.shutdown_background();
}

#[test]
fn a_stuck_call_is_told_once_and_the_sensor_comes_back_with_it() {
    local(async {
        let mut running = Running::held_up(|call, gate| {
            if call == 0 {
                gate.wait();
            }
            good()
        });
        assert_eq!(running.next().await, Err(FaultCode::Stuck));
        running.gate.open();
        assert!(running.next().await.is_ok(), "the late answer is an answer");
        running.end().await;
    });
}

#[test]
fn a_stuck_call_does_not_hold_the_end_up() {
    local(async {
        let mut running = Running::held_up(|_, gate| {
            gate.wait();
            good()
        });
        assert_eq!(running.next().await, Err(FaultCode::Stuck));
        let gate = running.gate.clone();
        running.end().await;
        gate.open();
    });
}

#[test]
fn a_panic_is_a_fault_of_this_sensor_and_it_goes_on() {
    local(async {
        let mut running = Running::poller(|call, _| if call == 0 { panic!("a bug") } else { good() }, 8);
        assert_eq!(running.next().await, Err(FaultCode::Panic));
        assert!(running.next().await.is_ok());
        running.end().await;
    });
}

#[test]
fn a_command_is_carried_out_between_samples_and_what_is_read_back_is_an_observation() {
    local(async {
        let mut running = Running::poller(|_, _| good(), 64);
        assert!(running.next().await.is_ok());
        assert_eq!(running.carried(b"on").await, Ok(()));
        assert_eq!(running.read_back().await, Value::Text("on".into()));
        assert_eq!(running.carried(b"refuse").await, Err("no".to_owned()));
        let late = running.command(b"late", BootTime(0)).await.await.expect("a result");
        assert!(late.is_err_and(|why| why.contains("waited too long")));
        assert!(running.next().await.is_ok(), "samples go on");
        running.end().await;
    });
}

#[test]
fn a_device_is_opened_anew_after_a_fault_unless_it_stays_open() {
    for (stays_open, script, openings) in [
        (false, (|call, _| if call == 0 { Err(Fault::new(FaultCode::Crc, "noise")) } else { good() }) as Script, 2),
        (true, |call, _| if call == 0 { Err(Fault::new(FaultCode::Crc, "noise")) } else { good() }, 1),
        (true, |call, _| if call == 0 { panic!("a bug") } else { good() }, 2),
    ] {
        local(async {
            let device = Scripted::new(script, Arc::default(), stays_open);
            let source = Source::Poller(Arc::new(Device(device.clone())));
            let mut running = Running::start(|_| source, 8, DEADLINE);
            assert!(running.next().await.is_err());
            assert!(running.next().await.is_ok());
            assert_eq!(device.opened.load(Ordering::SeqCst), openings);
            running.end().await;
        });
    }
}

#[test]
fn a_device_whose_port_comes_back_is_asked_before_its_pause_is_over() {
    local(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usb-RS485-if00");
        let name = PortName::parse(&path.display().to_string()).expect("a path");
        let device = Device(Scripted::new(|_, _| good(), Arc::default(), true));
        // One that is not behind a port goes ahead, so that without the return it would be asked sooner.
        let mut other = Running::poller(|_, _| Err(Fault::new(FaultCode::Missing, "no port")), 8);
        assert_eq!(other.next().await, Err(FaultCode::Missing));
        let mut behind = Running::start(|_| Source::Poller(Arc::new(Behind(device, name))), 8, DEADLINE);
        assert_eq!(behind.next().await, Err(FaultCode::Missing));
        // Both are left alone for four seconds then.
        for _ in 0..2 {
            assert_eq!(other.next().await, Err(FaultCode::Missing));
            assert_eq!(behind.next().await, Err(FaultCode::Missing));
        }
        std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
        tokio::select! {
            biased;
            _ = other.next() => panic!("it is asked no sooner than a device without a port"),
            back = behind.next() => assert!(back.is_ok(), "{back:?}"),
        }
        behind.end().await;
        other.end().await;
    });
}

#[test]
fn a_command_reaches_a_device_whose_last_sample_has_failed() {
    local(async {
        let mut running = Running::poller(|_, _| Err(Fault::new(FaultCode::Crc, "noise")), 64);
        assert_eq!(running.next().await, Err(FaultCode::Crc));
        assert_eq!(running.carried(b"on").await, Ok(()));
        assert!(running.carried(b"panic").await.is_err_and(|why| why.contains("the driver panicked: a bug")));
        running.end().await;
    });
}

#[test]
fn a_command_whose_call_does_not_end_is_told_and_others_are_refused_meanwhile() {
    local(async {
        // The first sample is long taken, and the next one far away.
        let mut running = Running::held_up(|call, gate| {
            if call == 0 {
                return good();
            }
            gate.wait();
            good()
        });
        assert!(running.next().await.is_ok());
        let why = running.carried(b"wait").await.expect_err("it waits, or a sample does");
        assert!(why.contains("not known") || why.contains("still running"), "{why}");
        let why = running.carried(b"on").await.expect_err("the call is still running");
        assert!(why.contains("the call to the device is still running"), "{why}");
        running.gate.open();
        while running.carried(b"on").await.is_err() {}
        running.end().await;
    });
}

#[test]
fn a_full_queue_skips_and_counts() {
    local(async {
        let running = Running::poller(|_, _| good(), 1);
        let counted = async {
            while running.counts.queue_full.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, counted).await.expect("in time");
        running.end().await;
    });
}

/// Gives each byte as a sample; panics on `!`.
struct Bytes;

impl ByteDecoder for Bytes {
    fn feed(&mut self, bytes: &[u8], at: crate::clock::BootTime, out: &mut Vec<Decoded>) {
        assert!(!bytes.contains(&b'!'), "a bug");
        out.push((at, good()));
    }
}

/// Counts the edges of a line on what it was given, and keeps the count; gives no samples.
struct Count(u8, bool);

impl LineDecoder for Count {
    fn edge(&mut self, _edge: Edge, _out: &mut Vec<Decoded>) {
        *self = Self(self.0.saturating_add(1), true);
    }

    fn level(&mut self, _active: bool, _at: crate::clock::BootTime, _out: &mut Vec<Decoded>) {}

    fn keep(&mut self) -> Option<Box<[u8]>> {
        std::mem::take(&mut self.1).then(|| Box::from([self.0]))
    }
}

/// The simulated pulses of 1 kHz.
fn counted() -> Source {
    Source::Line(LineSource {
        settings: LineSettings {
            line: LineId::Name("GPIO23".to_owned()),
            reserved: false,
            bias: Bias::AsIs,
            active_low: false,
            debounce: Duration::ZERO,
            edges: Edges::Rising,
        },
        units: Vec::new(),
        decoder: Box::new(|kept| Box::new(Count(kept.map_or(0, |kept| kept[0]), false))),
    })
}

#[test]
fn what_a_driver_keeps_comes_with_an_observation_and_is_given_back() {
    local(async {
        let mut running = Running::with_kept(Some(Box::from([100])), |_| counted(), 8, DEADLINE);
        let mut last = 100;
        for _ in 0..5 {
            let batch = tokio::time::timeout(DEADLINE, running.observations.recv()).await.expect("in time");
            let batch = batch.expect("running");
            let kept = batch.last().and_then(|observation| observation.keep.as_deref()).expect("nothing else comes");
            assert!(matches!(&batch[0].outcome, Ok(samples) if samples.is_empty()), "{batch:?}");
            assert!(kept[0] > last || kept[0] == u8::MAX, "{kept:?} after {last}");
            last = kept[0];
        }
        running.end().await;
    });
}

impl Running {
    fn pause(&self, time: Option<Duration>) {
        let until = time.map(|time| SystemClock::new(Trust::Always).boot().after(time));
        self.remote.paused.send_replace(until);
    }

    async fn wait_resting(&mut self, resting: bool) {
        let waited = tokio::time::timeout(DEADLINE, self.remote.resting.wait_for(|is| *is == resting)).await;
        waited.expect("in time").expect("running");
    }

    async fn until(&mut self, wanted: impl Fn(&Result<Vec<Sample>, FaultCode>) -> bool) {
        while !wanted(&self.next().await) {}
    }
}

#[test]
fn a_pause_lets_go_of_the_device_and_ends_by_itself_or_by_hand() {
    local(async {
        let mut running = Running::poller(|_, _| good(), 8);
        running.until(Result::is_ok).await;
        running.pause(Some(Duration::from_secs(3600)));
        running.until(|outcome| *outcome == Err(FaultCode::Paused)).await;
        running.wait_resting(true).await;
        running.pause(None);
        running.until(Result::is_ok).await;
        assert!(!*running.remote.resting.borrow());
        running.pause(Some(Duration::from_millis(100)));
        running.until(|outcome| *outcome == Err(FaultCode::Paused)).await;
        running.until(Result::is_ok).await;
        running.pause(Some(Duration::from_secs(3600)));
        running.wait_resting(true).await;
        running.end().await;
    });
}

#[test]
fn a_call_that_does_not_end_holds_the_device_but_not_the_end() {
    local(async {
        let mut running = Running::held_up(|_, gate| {
            gate.wait();
            good()
        });
        assert_eq!(running.next().await, Err(FaultCode::Stuck));
        running.pause(Some(Duration::from_secs(3600)));
        tokio::task::yield_now().await;
        assert!(!*running.remote.resting.borrow());
        running.gate.open();
        running.wait_resting(true).await;
        assert_eq!(running.next().await, Err(FaultCode::Paused));
        running.end().await;
    });
}

#[test]
fn a_line_that_is_paused_keeps_what_it_has_counted() {
    local(async {
        let mut running = Running::start(|_| counted(), 8, DEADLINE);
        assert!(running.next().await.is_ok());
        running.pause(Some(Duration::from_secs(3600)));
        let mut kept = None;
        running.wait_resting(true).await;
        while let Some(batch) = running.observations.recv().await {
            let last = batch.into_iter().next_back().expect("a batch is not empty");
            if last.outcome.as_ref().is_err_and(|fault| fault.code == FaultCode::Paused) {
                break;
            }
            kept = last.keep.or(kept);
        }
        running.pause(None);
        let batch = tokio::time::timeout(DEADLINE, running.observations.recv()).await.expect("in time");
        let next = batch.expect("running").pop().and_then(|last| last.keep).expect("the count");
        assert!(Some(&next) >= kept.as_ref(), "{next:?} after {kept:?}");
        running.end().await;
    });
}

#[test]
fn a_missing_port_is_a_fault_and_is_looked_for_again() {
    local(async {
        let source = |_| Source::Serial {
            settings: SerialSettings::new("/dev/not-there", 9600),
            decoder: Box::new(|| Box::new(Bytes)),
        };
        let mut running = Running::start(source, 8, DEADLINE);
        assert_eq!(running.next().await, Err(FaultCode::Missing));
        assert_eq!(running.next().await, Err(FaultCode::Missing));
        running.end().await;
    });
}

#[test]
fn the_pause_grows_up_to_its_ceiling_and_starts_anew_after_a_success() {
    let mut back_off = BackOff::default();
    let most = Duration::from_secs(5);
    let pauses: Vec<u64> = (0..5).map(|_| back_off.failure(most).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 5, 5]);
    back_off.success();
    assert_eq!(back_off.failure(most).as_secs(), 1);
    for _ in 0..100 {
        back_off.failure(most);
    }
}
