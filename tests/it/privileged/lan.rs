//! Prevents: messages of a LAN that are lost because the internet was, or because the gateway lost its power meanwhile.
//!
//! A gateway with the embedded broker, two machines on its LAN and an upstream Mosquitto, each in a network namespace.
//! The link above goes dead, one of the LAN's cables is pulled, and the gateway is killed, all with messages on their
//! way in both directions.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::super::broker::Subscriber as OnLan;
use super::super::harness::{
    Agent, Exit, Gateway, MARK, Mosquitto, Neighbour, Net, Subscriber, Way, mark_number, wait_until,
};

/// What `mosquitto_pub` has in flight at most, and Mosquitto towards one client.
const IN_FLIGHT: usize = 20;

/// A machine of the LAN, with a publisher that goes on connecting until the gateway has everything, and a subscriber with
/// a session.
struct Device {
    name: String,
    digit: u32,
    machine: Neighbour,
    publisher: Child,
    lines: ChildStdin,
    subscriber: OnLan,
}

impl Device {
    fn start(net: &mut Net, digit: u32, qos: &str) -> Self {
        let (machine, broker) = net.join();
        let name = format!("device{digit}");
        let client = |program: &str, id: &str| {
            let mut command = Command::new(program);
            command.args(["-h", &broker, "-i", id, "-c", "-q", qos, "-k", "5"]).stdout(Stdio::piped());
            command
        };
        let mut publisher = client("mosquitto_pub", &format!("{name}-out"));
        publisher.args(["-l", "-t", &format!("esp/{name}")]).stdin(Stdio::piped());
        let mut publisher = machine.does(|| publisher.spawn()).expect("mosquitto_pub");
        let lines = publisher.stdin.take().expect("a pipe was asked for");
        let mut subscriber = client("mosquitto_sub", &format!("{name}-in"));
        subscriber.args(["-t", "commands/#", "-F", "%t %p"]).stdin(Stdio::null());
        let subscriber = machine.does(|| OnLan::start(subscriber));
        Self { name, digit, machine, publisher, lines, subscriber }
    }

    /// The mark of its message of that number: no other device has it.
    fn mark(&self, number: usize) -> u32 {
        u32::try_from(number).expect("a small number") * 10 + self.digit
    }

    fn publish(&mut self, number: usize) {
        let mark = self.mark(number);
        writeln!(self.lines, "{MARK}{mark:08}").expect("mosquitto_pub reads");
    }

    /// How often each number has come down to it.
    fn came(&self) -> BTreeMap<usize, usize> {
        let mut came = BTreeMap::new();
        for line in self.subscriber.1.all() {
            let number = line.strip_prefix("commands/go ").and_then(|number| number.parse().ok());
            if let Some(number) = number {
                *came.entry(number).or_default() += 1;
            }
        }
        came
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.publisher.kill();
        let _ = self.publisher.wait();
    }
}

/// A publisher above, whose messages its broker acknowledges.
struct Above(Child, ChildStdin);

impl Above {
    fn start(broker: &Mosquitto) -> Self {
        let port = broker.port().to_string();
        let args = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-l", "-t", "commands/go"];
        let mut child = Command::new("mosquitto_pub").args(args).stdin(Stdio::piped()).spawn().expect("mosquitto_pub");
        let lines = child.stdin.take().expect("a pipe was asked for");
        Self(child, lines)
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything, with what was sent so far in each direction.
struct Site {
    net: Net,
    gateway: Gateway,
    agent: Agent,
    up: Subscriber,
    above: Above,
    devices: Vec<Device>,
    sent: usize,
    broker: Mosquitto,
}

impl Site {
    fn start() -> Self {
        let mut net = Net::new();
        let broker = net.broker();
        let up = Subscriber::start(&broker, "up", 2);
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "[uplink.above]\nurl = \"{}\"\nstate = false\nqos = 2\nkeep_alive = \"4s\"\n\n\
             [broker]\nlisten = \"0.0.0.0:1883\"\nanonymous = true\npath = \"{}/broker\"\n\n\
             [[broker.ingest]]\ntopics = [\"esp/+\"]\nto = \"lan/{{topic}}\"\nrate = 10000\n\n\
             [[broker.deliver]]\ntopics = [\"commands/#\"]\n",
            net.url(),
            gateway.path().display()
        ));
        let mut agent = net.run(&gateway);
        agent.wait_log("has accepted the subscriptions");
        let devices = vec![Device::start(&mut net, 1, "1"), Device::start(&mut net, 2, "2")];
        let above = Above::start(&broker);
        let mut site = Self { net, gateway, agent, up, above, devices, sent: 0, broker };
        // What comes down before a device has subscribed is not for it.
        wait_until("the subscriptions of both devices", || {
            let probe = ["-h", "127.0.0.1", "-p", &site.broker.port().to_string(), "-q", "1", "-t", "commands/probe"];
            let status = Command::new("mosquitto_pub").args(probe).args(["-m", "x"]).status().expect("mosquitto_pub");
            assert!(status.success());
            site.devices.iter().all(|device| device.subscriber.1.count("commands/probe") > 0)
        });
        site.send(50);
        site.wait_all();
        site
    }

    /// So many messages up from each device, and down.
    fn send(&mut self, count: usize) {
        for number in self.sent..self.sent + count {
            for device in &mut self.devices {
                device.publish(number);
            }
            writeln!(self.above.1, "{number}").expect("mosquitto_pub reads");
        }
        self.sent += count;
    }

    /// How often each number of a device has gone up.
    fn went(&self, device: &Device) -> BTreeMap<usize, usize> {
        let mut went = BTreeMap::new();
        for message in self.up.on(&format!("lan/esp/{}", device.name)) {
            let mark = mark_number(message.payload.as_bytes()).expect("a mark");
            *went.entry(usize::try_from(mark / 10).expect("a small number")).or_default() += 1;
        }
        went
    }

    #[track_caller]
    fn wait_all(&self) {
        for device in &self.devices {
            let all = |seen: &BTreeMap<usize, usize>| (0..self.sent).all(|number| seen.contains_key(&number));
            wait_until(&format!("everything of {} above", device.name), || all(&self.went(device)));
            wait_until(&format!("everything at {}", device.name), || all(&device.came()));
        }
    }
}

#[test]
fn nothing_is_lost_up_or_down_while_the_link_above_is_cut_and_the_gateway_is_killed() {
    let mut site = Site::start();
    site.net.lose(Way::Both, 100);
    site.send(100);
    site.agent.wait_log("the broker was silent for ");
    // The second device's cable is pulled as well: what it has to say waits with it.
    site.devices[1].machine.plug(false);
    site.send(100);
    // The first device goes on; the kill comes in the middle of its messages, and what was taken so far has not gone up.
    wait_until("some of the first device's messages to be taken", || {
        site.gateway.marks_held().into_iter().any(|mark| mark == site.devices[0].mark(site.sent - 80))
    });
    site.agent.kill();
    let newest = |device: &Device| site.went(device).into_keys().max();
    assert!(site.devices.iter().all(|device| newest(device).is_none_or(|number| number < 150)), "the link was cut");
    site.agent = site.net.run(&site.gateway);
    site.send(50);
    site.net.heal(Way::Both);
    site.devices[1].machine.plug(true);
    site.send(50);
    site.wait_all();
    for device in &site.devices {
        let twice = |seen: &BTreeMap<usize, usize>| seen.values().map(|times| times - 1).sum::<usize>();
        let (up, down) = (twice(&site.went(device)), twice(&device.came()));
        eprintln!("{}: {up} twice above, {down} twice on the LAN, of {}", device.name, site.sent);
        // The gateway was killed once: what a client had in flight then may come twice.
        assert!(up <= IN_FLIGHT, "{}: {up} duplicates above", device.name);
        assert!(down <= 3 * IN_FLIGHT, "{}: {down} duplicates on the LAN", device.name);
    }
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}
