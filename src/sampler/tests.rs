//! What a broken sensor must not do: harm others, lie, or end the agent.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::clock::{SystemClock, Trust};
use crate::drivers::{ByteDecoder, Decoded, LineDecoder, LineSource, Open, Poller};
use crate::hardware::{Backend, Bias, Edge, Edges, LineId, LineSettings, SerialSettings};
use crate::reading::{Sample, Value};

/// Generous: only a hang makes a test wait for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the n-th call does.
type Script = fn(usize, &Gate) -> Result<Vec<Sample>, Fault>;

/// A device that follows a script.
struct Scripted {
    calls: AtomicUsize,
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

struct Device(Arc<Scripted>);

impl Open for Device {
    fn open(&self, _hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(Device(self.0.clone())))
    }
}

impl Poller for Device {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        (self.0.script)(call, &self.0.gate)
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
    task: tokio::task::JoinHandle<()>,
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
            every: Duration::from_millis(20),
            align: false,
            deadline,
            power: None,
            kept: RefCell::new(kept),
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
        let device = |gate| Device(Arc::new(Scripted { calls: AtomicUsize::new(0), script, gate }));
        Self::start(|gate| Source::Poller(Arc::new(device(gate))), queue, deadline)
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
