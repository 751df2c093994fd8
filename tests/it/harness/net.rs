//! Two machines with a cable between them, whose faults are chosen: network namespaces joined by a veth pair; and more of
//! them on a LAN of the agent's, where they are wanted.
//!
//! The test's own thread, and with it every process and thread that it starts, moves to the broker's machine; the agent
//! runs on the other one ([`Net::run`]). What is dropped is dropped where it arrives, so that whoever sent it cannot
//! know. Nothing of the host's own network is touched.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Agent, Gateway, Mosquitto};

/// The broker's address on the cable.
const BROKER: &str = "10.0.0.1";

/// An address of the agent's that it does not have at first ([`Net::readdress`]).
#[cfg(feature = "broker")]
pub(crate) const LATE: &str = "10.9.0.2";

/// Its port there. It is the namespace's own, so that nobody else can have it.
const PORT: u16 = 1883;

/// Where packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker,
    ToAgent,
    Both,
}

impl Way {
    fn ends(self) -> &'static [&'static str] {
        match self {
            Self::ToBroker => &["b"],
            Self::ToAgent => &["a"],
            Self::Both => &["a", "b"],
        }
    }
}

/// The namespaces; they go when it is dropped.
pub(crate) struct Net {
    name: String,
    /// Machines on the agent's LAN.
    neighbours: Vec<String>,
}

impl Net {
    /// Makes the two machines and moves the calling thread to the broker's.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vigie-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Self { name, neighbours: Vec::new() };
        for end in ["a", "b"] {
            run("ip", &["netns", "add", &net.end(end)], "");
        }
        let (a, b) = (net.end("a"), net.end("b"));
        run("ip", &["-n", &a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", &b], "");
        for (end, address) in [(&a, "10.0.0.2/24"), (&b, "10.0.0.1/24")] {
            run("ip", &["-n", end, "address", "add", address, "dev", "wire"], "");
            run("ip", &["-n", end, "link", "set", "wire", "up"], "");
            run("ip", &["-n", end, "link", "set", "lo", "up"], "");
        }
        enter(&b);
        net
    }

    fn end(&self, end: &str) -> String {
        format!("{}-{end}", self.name)
    }

    /// A broker that the agent can reach at [`Self::url`].
    pub(crate) fn broker(&self) -> Mosquitto {
        // The first listener, on the loopback device, is for the test's own clients.
        Mosquitto::with(&format!("allow_anonymous true\nlistener {PORT} {BROKER}\nallow_anonymous true\n"))
    }

    /// The broker's URL.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{BROKER}:{PORT}")
    }

    /// Starts the agent on its machine.
    pub(crate) fn run(&self, gateway: &Gateway) -> Agent {
        self.does(|| gateway.run())
    }

    /// Does something on the agent's machine; the processes that it starts stay there.
    pub(crate) fn does<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(&self.end("a"), work)
    }

    /// Gives both machines an address more on the cable; gives the agent's.
    #[cfg(feature = "broker")]
    pub(crate) fn readdress(&self) -> &'static str {
        for (end, address) in [("a", "10.9.0.2/24"), ("b", "10.9.0.1/24")] {
            run("ip", &["-n", &self.end(end), "address", "add", address, "dev", "wire"], "");
        }
        LATE
    }

    /// Joins another machine to the agent's, by a cable of its own; gives the agent's address there.
    #[cfg(feature = "broker")]
    pub(crate) fn join(&mut self) -> (Neighbour, String) {
        let number = self.neighbours.len();
        let (agent, here) = (self.end("a"), self.end(&format!("lan{number}")));
        run("ip", &["netns", "add", &here], "");
        self.neighbours.push(here.clone());
        let device = format!("lan{number}");
        run("ip", &["-n", &agent, "link", "add", &device, "type", "veth", "peer", "name", "wire", "netns", &here], "");
        for (end, device, last) in [(&agent, device.as_str(), 1), (&here, "wire", 2)] {
            run("ip", &["-n", end, "address", "add", &format!("10.1.{number}.{last}/24"), "dev", device], "");
            run("ip", &["-n", end, "link", "set", device, "up"], "");
            run("ip", &["-n", end, "link", "set", "lo", "up"], "");
        }
        (Neighbour { name: here }, format!("10.1.{number}.1"))
    }

    /// Loses so many of a hundred packets.
    pub(crate) fn lose(&self, way: Way, percent: u8) {
        for end in way.ends() {
            let rules = format!(
                "table inet faults {{\nchain lose {{\ntype filter hook input priority 0;\n\
                 iifname wire numgen random mod 100 <= {} counter drop\n}}\n}}\n",
                percent - 1
            );
            self.nft(end, &["-f", "-"], &rules);
        }
    }

    /// How many packets have been lost on their way, since [`Self::lose`].
    pub(crate) fn lost(&self, way: Way) -> u32 {
        let packets = |end: &&str| -> u32 {
            let listed = self.nft(end, &["list", "table", "inet", "faults"], "");
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let count = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
            count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no counter in {text}"))
        };
        way.ends().iter().map(packets).sum()
    }

    /// Loses nothing any more.
    pub(crate) fn heal(&self, way: Way) {
        for end in way.ends() {
            self.nft(end, &["delete", "table", "inet", "faults"], "");
        }
    }

    /// Lets the agent send so many bits a second.
    pub(crate) fn narrow(&self, bits: u32) {
        let rate = format!("{bits}bit");
        // A bucket of one packet, and a queue of a few, as a slow modem has.
        let tbf = ["root", "tbf", "rate", &rate, "burst", "1600", "limit", "4000"];
        run("tc", &[&["-n", &self.end("a"), "qdisc", "add", "dev", "wire"], &tbf[..]].concat(), "");
    }

    fn nft(&self, end: &str, args: &[&str], input: &str) -> Output {
        run("ip", &[&["netns", "exec", &self.end(end), "nft"], args].concat(), input)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in ["a", "b"].map(|end| self.end(end)).iter().chain(&self.neighbours) {
            let _ = Command::new(program("ip")).args(["netns", "delete", name]).status();
        }
    }
}

/// A machine on the agent's LAN.
#[cfg(feature = "broker")]
pub(crate) struct Neighbour {
    name: String,
}

#[cfg(feature = "broker")]
impl Neighbour {
    /// Does something there; the processes that it starts stay there.
    pub(crate) fn does<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on(&self.name, work)
    }

    /// Pulls its cable (false), or plugs it in again.
    pub(crate) fn plug(&self, is_in: bool) {
        run("ip", &["-n", &self.name, "link", "set", "wire", if is_in { "up" } else { "down" }], "");
    }
}

/// Does something on a thread that is in a namespace.
fn on<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        enter(name);
        work()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).expect("it is done")
}

/// Moves the calling thread into a namespace.
fn enter(name: &str) {
    let space = File::open(Path::new("/run/netns").join(name)).expect("the namespace is there");
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter a namespace");
}

/// A tool's path, which an ordinary search path may lack.
fn program(name: &str) -> String {
    ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"]
        .map(|folder| format!("{folder}{name}"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or_else(|| panic!("`{name}` is missing; `tests/run` as root installs it"))
}

/// Runs a tool, as root.
#[track_caller]
pub(crate) fn run(name: &str, args: &[&str], input: &str) -> Output {
    assert!(rustix::process::geteuid().is_root(), "this test needs root; `tests/run quick` does without it");
    let mut child = Command::new(program(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    child.stdin.take().expect("a pipe was asked for").write_all(input.as_bytes()).expect("the tool reads");
    let output = child.wait_with_output().expect("the tool ends");
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
