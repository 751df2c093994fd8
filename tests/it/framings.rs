//! Prevents: a framing that works on the link that it was written on, and not at another rate, cut elsewhere, after
//! noise, or after its cable was pulled; and one that loses something, or grows, while a device talks without a pause.
//!
//! One table of framings, and one body for each promise, so that a further framing is held to all of them. That which is
//! asked, and does not talk by itself, stands beside them as far as it has a rate: it is asked as often as is configured. The
//! ports are ptys, which carry bytes at any speed: a rate is a setting here, and what a device can say in a second.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::termios::tcgetattr;
use toml::de::DeTable;
use vigie::clock::BootTime;
use vigie::drivers::{self, Source};
use vigie::options::{Options, Problems};

use super::harness::{Agent, FRAMINGS, Framing, Gateway, MODBUS, Mosquitto, Port, Subscriber, Trick, Unit, wait_until};

/// What UARTs and USB adapters do, from what sketches begin with to what an ATmega can.
const RATES: [u32; 7] = [9_600, 19_200, 57_600, 115_200, 250_000, 500_000, 1_000_000];

/// What a link that starts, stops and starts again may cost, and its share of what the outbox keeps.
const GROWTH_KIB: u64 = 32 * 1024;

/// A device on a port that is a setting of the agent's.
struct Link {
    framing: &'static Framing,
    baud: u32,
    /// Its sensor and its room.
    name: String,
    /// As one below `/dev/serial/by-id`, which leads to the port.
    path: PathBuf,
    /// What answers at the far end of the port, if it has to be asked; before the port, which it holds.
    unit: Option<Unit>,
    port: Port,
    /// The next record's number. All are of one length.
    next: Arc<AtomicU32>,
}

impl Link {
    fn start(framing: &'static Framing, baud: u32, gateway: &Gateway) -> Self {
        let name = format!("{}-{baud}", framing.driver);
        let path = gateway.path().join(format!("usb-{name}-if00"));
        let port = Port::open();
        symlink(node(&port), &path).expect("a link can be made");
        let mut link = Self { framing, baud, name, path, unit: None, port, next: Arc::new(AtomicU32::new(100_000)) };
        link.attach();
        link
    }

    /// Has a device that is asked listen on the port.
    fn attach(&mut self) {
        let Framing { record, request, .. } = self.framing;
        self.unit = request.map(|request| Unit::start(&self.port, request(), *record, Arc::clone(&self.next)));
    }

    fn next(&self) -> u32 {
        self.next.load(Ordering::SeqCst)
    }

    /// Writes a record, unless the device waits to be asked; gives the number of the next one from now on.
    fn say(&mut self) -> u32 {
        if self.unit.is_some() {
            return self.next();
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let record = self.framing.record(number);
        self.port.master().write_all(&record).expect("the pty takes a record");
        number
    }

    /// Says bytes that are none of its records: at once, or when it is asked.
    fn say_otherwise(&mut self, bytes: &[u8], trick: fn(Vec<u8>) -> Trick) {
        match &self.unit {
            Some(unit) => unit.play(trick(bytes.to_vec())),
            None => self.port.master().write_all(bytes).expect("written"),
        }
    }

    /// Pulls the cable in the middle of a record, and has it lead to another port: gives the record's number, and what was not said
    /// of it.
    fn pull(&mut self, other: Port) -> (u32, Vec<u8>) {
        assert_ne!(node(&self.port), node(&other));
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut record = self.framing.record(number);
        let rest = record.split_off(record.len() / 2);
        self.say_otherwise(&record, Trick::Breaks);
        if let Some(unit) = self.unit.take() {
            unit.wait_played();
        }
        fs::remove_file(&self.path).expect("the link is there");
        self.port = other;
        (number, rest)
    }

    fn topic(&self) -> String {
        format!("maison/{}/{}", self.name, self.framing.quantity)
    }
}

/// An agent with a link for each framing and rate.
struct Bench {
    // Dropped in this order: the agent first.
    agent: Agent,
    subscriber: Subscriber,
    _broker: Mosquitto,
    _gateway: Gateway,
    links: Vec<Link>,
}

impl Bench {
    fn start(framings: &[&'static Framing], rates: &[u32]) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let gateway = Gateway::new();
        let mut config = format!("[uplink.home]\nurl = \"mqtt://localhost:{}\"\n", broker.port());
        let mut links = Vec::new();
        for framing in framings {
            for &baud in rates {
                let link = Link::start(framing, baud, &gateway);
                config += &format!(
                    "\n[[sensor]]\nname = \"{0}\"\nroom = \"{0}\"\ndriver = \"{1}\"\nport = \"{2}\"\nbaud = {baud}\n{3}\n",
                    link.name,
                    framing.driver,
                    link.path.display(),
                    framing.keys
                );
                links.push(link);
            }
        }
        gateway.configure(&config);
        let mut agent = gateway.run();
        agent.wait_log("connected");
        Self { agent, subscriber, _broker: broker, _gateway: gateway, links }
    }

    /// The numbers that have come, by topic.
    fn numbers(&self) -> BTreeMap<String, Vec<u32>> {
        let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for message in self.subscriber.messages() {
            if self.links.iter().any(|link| link.topic() == message.topic) {
                let number = message.json()["value"].as_f64().expect("a number");
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "so small were they sent")]
                found.entry(message.topic).or_default().push(number as u32);
            }
        }
        found
    }

    /// Has each link say records until one has come through.
    #[track_caller]
    fn all_work(&mut self, when: &str) {
        self.links.iter().filter_map(|link| link.unit.as_ref()).for_each(Unit::wait_played);
        let first: Vec<u32> = self.links.iter().map(Link::next).collect();
        wait_until(&format!("the ports to be opened {when}"), || self.links.iter().all(|link| link.port.is_open()));
        let mut missing = Vec::new();
        let mut said = Instant::now().checked_sub(Duration::from_secs(1));
        wait_until(&format!("a record of each link {when}"), || {
            let found = self.numbers();
            let came = |link: &Link, first: u32| {
                found.get(&link.topic()).and_then(|numbers| numbers.last()).is_some_and(|number| *number >= first)
            };
            missing = (0..self.links.len()).filter(|index| !came(&self.links[*index], first[*index])).collect();
            // No sooner than a loaded machine takes to carry the last ones through.
            if said.is_none_or(|said| said.elapsed() > Duration::from_millis(100)) {
                said = Some(Instant::now());
                missing.iter().for_each(|index| {
                    self.links[*index].say();
                });
            }
            missing.is_empty()
        });
    }

    /// Waits for a state or reason in the availability of each sensor, after the first `seen` messages.
    #[track_caller]
    fn all_are(&self, seen: usize, state: &str) {
        let wanted = format!("\"{state}\"");
        wait_until(&format!("all sensors to be {state}"), || {
            let messages = self.subscriber.messages();
            self.links.iter().all(|link| {
                let topic = format!("maison/{0}/{0}/availability", link.name);
                messages.iter().skip(seen).any(|message| message.topic == topic && message.payload.contains(&wanted))
            })
        });
    }

    /// Waits until each link has told how many lines or frames could not be read: of a framing that notices damage, one
    /// more than before at last.
    #[track_caller]
    fn all_count_what_was_garbled(&self) {
        for link in &self.links {
            let topic = format!("maison/{}/garbled", link.name);
            wait_until(&format!("the count on {topic}"), || {
                let messages = self.subscriber.on(&topic);
                let totals: Vec<f64> =
                    messages.iter().map(|message| message.json()["value"].as_f64().expect("a number")).collect();
                assert!(totals.is_sorted_by(|a, b| a < b), "{topic}: {totals:?}");
                totals.windows(2).last().is_some_and(|pair| !link.framing.checked || pair[1] == pair[0] + 1.0)
            });
        }
    }

    /// Has the agent one of these ptys open? The name of one that is gone has a remark behind it.
    fn agent_holds_one_of(&self, nodes: &[PathBuf]) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.agent.pid())).expect("the agent runs");
        let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        let mut names = targets.map(|target| target.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
        names.any(|name| nodes.iter().any(|node| node.as_os_str() == &*name))
    }

    fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).expect("the agent runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// The pty itself.
fn node(port: &Port) -> PathBuf {
    fs::read_link(port.path()).expect("a link")
}

/// What comes of bytes that are read in these pieces, as texts.
fn decoded<'a>(framing: &Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let keys = format!("port = \"/dev/ttyUSB0\"\n{}", framing.keys);
    let table = DeTable::parse(&keys).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let driver = drivers::find(framing.driver).expect("a driver");
    let Some(Source::Serial { decoder, .. }) = (driver.parse)(&options).map(|parsed| parsed.source) else {
        panic!("{:?}", problems.into_sorted())
    };
    let (mut decoder, mut out) = (decoder(), Vec::new());
    pieces.into_iter().for_each(|piece| decoder.feed(piece, BootTime(1), &mut out));
    out.into_iter().map(|(_, outcome)| format!("{outcome:?}")).collect()
}

#[test]
fn records_are_the_same_wherever_a_read_cuts_them() {
    for framing in &FRAMINGS {
        let mut stream: Vec<u8> = (0..3).flat_map(|number| framing.record(number)).collect();
        stream.extend(b"noise\0\n");
        stream.extend((3..6).flat_map(|number| framing.record(number)));
        let whole = decoded(framing, [&*stream]);
        let readings = whole.iter().filter(|outcome| outcome.starts_with("Ok")).count();
        // The first one is skipped where it may have been cut, and the last one of a receiver may wait for the next.
        assert!(readings >= 4 && readings < whole.len(), "{}: {whole:#?}", framing.driver);
        for cut in 1..stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(decoded(framing, [head, tail]), whole, "{} cut at byte {cut}", framing.driver);
        }
        assert_eq!(decoded(framing, stream.chunks(1)), whole, "{} byte by byte", framing.driver);
    }
}

#[test]
fn what_another_device_sends_is_told_with_the_likely_cause() {
    let noise: Vec<u8> =
        (0..2000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 0x80).collect();
    let mut garbled = noise.clone();
    garbled.iter_mut().step_by(50).for_each(|byte| *byte = b'\n');
    garbled.iter_mut().step_by(75).for_each(|byte| *byte = 0);
    let streams = FRAMINGS.iter().map(|framing| (framing.driver, (0..300).flat_map(|n| framing.record(n)).collect()));
    for (what, stream) in streams.chain([("garbled", garbled)]) {
        let stream: Vec<u8> = stream;
        for framing in FRAMINGS.iter().filter(|framing| framing.driver != what) {
            let faults = decoded(framing, [&*stream]);
            assert!(
                !faults.iter().any(|outcome| outcome.starts_with("Ok")),
                "{what} for {}: {faults:#?}",
                framing.driver
            );
            // Text has no zero, which ends a frame: that is told by the link, as no frame comes at all.
            if framing.driver == "serial-frames" && what != "garbled" {
                assert_eq!(faults, [""; 0], "{what}");
                continue;
            }
            let cause = match what {
                "garbled" | "serial-frames" => "is the baud rate right?".to_owned(),
                driver => format!("the driver {driver}"),
            };
            let causes = [cause, "is the baud rate right, and does the device send frames?".to_owned()];
            let told = faults.iter().filter(|fault| causes.iter().any(|cause| fault.contains(cause))).count();
            assert!(
                told > faults.len() / 2,
                "{what} for {}: {cause:?} in {faults:#?}",
                framing.driver,
                cause = causes[0]
            );
        }
    }
}

#[test]
fn each_framing_at_each_rate_outlives_cuts_noise_and_a_pulled_cable() {
    let framings: Vec<&Framing> = FRAMINGS.iter().chain([&MODBUS]).collect();
    let mut bench = Bench::start(&framings, &RATES);
    bench.all_work("at first");
    for link in &bench.links {
        let settings = tcgetattr(&link.port).expect("the pty has settings");
        assert_eq!(settings.output_speed(), link.baud, "{}", link.name);
    }
    let before = bench.memory_kib();

    // A byte at a time, with time between them for a read of its own.
    let (asked, mut talking): (Vec<_>, Vec<_>) = bench.links.iter_mut().partition(|link| link.unit.is_some());
    asked.iter().filter_map(|link| link.unit.as_ref()).for_each(|unit| unit.play(Trick::ByteByByte));
    let records: Vec<Vec<u8>> = talking.iter().map(|link| link.framing.record(link.next())).collect();
    for index in 0..records.iter().map(Vec::len).max().expect("there are some") {
        for (link, record) in talking.iter_mut().zip(&records) {
            link.port.master().write_all(record.get(index..=index).unwrap_or_default()).expect("written");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for link in talking {
        link.next.fetch_add(1, Ordering::SeqCst);
    }
    bench.all_work("after one that came byte by byte");
    for (topic, numbers) in bench.numbers() {
        let steps = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(steps, "{topic}: not each one came once, in order: {numbers:?}");
    }

    let noises: [(&str, Vec<u8>); 5] = [
        ("1 MiB without an end", vec![b'x'; 1 << 20]),
        ("100,000 NULs", vec![0; 100_000]),
        ("each byte that there is", (0..=255).collect()),
        ("ends and halves", b"\xff\xfe{\"n\":\r\n}\0n=\n$GPGGA,\r\n\0\x11".repeat(500)),
        ("zeros, ends and what begins a frame", b"\0\0\n\x05\x11\n\0\r$*\n{".repeat(500)),
    ];
    for (what, noise) in &noises {
        bench.links.iter_mut().for_each(|link| link.say_otherwise(noise, Trick::Noise));
        bench.all_work(&format!("after {what}"));
    }
    // A damaged record: where there is a checksum, its number must not come out.
    let mut damaged = Vec::new();
    for link in bench.links.iter_mut().filter(|link| link.framing.checked) {
        let number = link.next() + 500_000;
        let mut record = link.framing.record(number);
        let middle = record.len() * 3 / 4;
        record[middle] ^= 1;
        link.say_otherwise(&record, Trick::Damaged);
        damaged.push((link.topic(), number));
    }
    bench.all_work("after a damaged record");
    bench.all_count_what_was_garbled();
    let opened = bench.agent.log.count(" node=");
    let talking = bench.links.iter().filter(|link| link.unit.is_none()).count();
    assert_eq!(opened, talking, "no port was opened anew");
    let grown = bench.memory_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "memory has grown by {grown} KiB");

    // Pulled in the middle of a record, and back as other ports.
    let seen = bench.subscriber.messages().len();
    let others: Vec<Port> = bench.links.iter().map(|_| Port::open()).collect();
    let pulled: Vec<PathBuf> = bench.links.iter().map(|link| node(&link.port)).collect();
    let halves: Vec<(u32, Vec<u8>)> =
        bench.links.iter_mut().zip(others).map(|(link, other)| link.pull(other)).collect();
    bench.all_are(seen, "unplugged");
    wait_until("the descriptors to be closed", || !bench.agent_holds_one_of(&pulled));
    bench.all_are(seen, "missing");
    for link in &bench.links {
        let topic = format!("maison/{0}/{0}/availability", link.name);
        let fault = bench.subscriber.messages().into_iter().skip(seen).find(|message| message.topic == topic);
        let fault = fault.expect("it came").payload;
        assert!(fault.contains(&format!("usb-{}-if00", link.name)), "the fault names the port: {fault}");
    }
    let seen = bench.subscriber.messages().len();
    for link in &bench.links {
        symlink(node(&link.port), &link.path).expect("a link can be made");
    }
    wait_until("the other ports to be opened", || bench.links.iter().all(|link| link.port.is_open()));
    for (link, (_, rest)) in bench.links.iter_mut().zip(&halves) {
        link.port.master().write_all(rest).expect("written");
        link.attach();
    }
    bench.all_work("on other ports");
    bench.all_are(seen, "online");

    let found = bench.numbers();
    for (link, (half, _)) in bench.links.iter().zip(halves) {
        let numbers = &found[&link.topic()];
        assert!(!numbers.contains(&half), "{}: two halves became one record", link.name);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{}: {numbers:?}", link.name);
        assert!(numbers.iter().all(|number| (100_000..link.next()).contains(number)), "{}: {numbers:?}", link.name);
    }
    for (topic, number) in damaged {
        assert!(!found[&topic].contains(&number), "{topic}: a damaged record was taken");
    }
}

#[test]
fn devices_that_talk_at_line_rate_lose_nothing() {
    const TIME: Duration = Duration::from_secs(3);
    const STEP: Duration = Duration::from_millis(10);
    let mut bench = Bench::start(&FRAMINGS.each_ref(), &[115_200, 1_000_000]);
    bench.all_work("at first");
    let first: Vec<u32> = bench.links.iter().map(Link::next).collect();
    let before = bench.memory_kib();

    // Ten bits a byte. What is due is written to the byte, so that reads cut records anywhere.
    let begin = Instant::now();
    let mut unsent: Vec<Vec<u8>> = bench.links.iter().map(|_| Vec::new()).collect();
    let mut sent: Vec<u64> = vec![0; bench.links.len()];
    let mut past = Duration::ZERO;
    while past < TIME {
        std::thread::sleep(STEP);
        past = begin.elapsed().min(TIME);
        for ((link, unsent), sent) in bench.links.iter_mut().zip(&mut unsent).zip(&mut sent) {
            let due = u64::from(link.baud) / 10 * u64::try_from(past.as_millis()).expect("short") / 1000 - *sent;
            let due_bytes = usize::try_from(due).expect("few");
            while unsent.len() < due_bytes {
                unsent.extend(link.framing.record(link.next.fetch_add(1, Ordering::SeqCst)));
            }
            let now: Vec<u8> = unsent.drain(..due_bytes).collect();
            link.port.master().write_all(&now).expect("written");
            *sent += due;
        }
    }
    for (link, rest) in bench.links.iter_mut().zip(unsent) {
        link.port.master().write_all(&rest).expect("written");
    }
    // One more, which ends what a receiver says of the moment before.
    let last: Vec<u32> = bench.links.iter_mut().map(|link| link.say() - 1).collect();
    wait_until("the last records", || {
        let found = bench.numbers();
        bench.links.iter().zip(&last).all(|(link, last)| found.get(&link.topic()).is_some_and(|all| all.contains(last)))
    });
    let found = bench.numbers();
    for ((link, first), last) in bench.links.iter().zip(first).zip(last) {
        let came = found[&link.topic()].iter().filter(|number| (first..=last).contains(number));
        assert!(came.copied().eq(first..=last), "{}: not each one came once, in order", link.name);
    }
    let grown = bench.memory_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "memory has grown by {grown} KiB");
}
