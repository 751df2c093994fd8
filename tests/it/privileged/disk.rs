//! Prevents: a full, write-protected or vanished disk that costs readings although the agent runs on and memory is free.
//!
//! The outbox's folder, or its tail's, is a file system of the test's own. The broker goes away before the fault, so
//! that readings have to wait; it comes back at the end, and every reading must arrive.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::super::harness::{Agent, Exit, Gateway, Message, Mosquitto, Port, Receiver, mark_number, run, wait_until};

/// A file system that is mounted on a folder until it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// A tmpfs of that size.
    fn tmpfs(folder: &Path, size: &str) -> Self {
        fs::create_dir_all(folder).expect("the folder can be made");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &text(folder)], "");
        Self(folder.to_owned())
    }

    /// An ext4 of so many MiB in a file beside the folder.
    fn ext4(folder: &Path, mebibytes: u64) -> Self {
        fs::create_dir_all(folder).expect("the folder can be made");
        let image = folder.with_extension("img");
        fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("the image can be made");
        run("mkfs.ext4", &["-q", "-m", "0", &text(&image)], "");
        run("mount", &["-o", "loop", &text(&image), &text(folder)], "");
        Self(folder.to_owned())
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), &text(&self.0)], "");
    }

    /// Takes all room that is left; gives the file to remove.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast).expect("a file can be made");
        for size in [65_536, 512, 1] {
            while file.write_all(&vec![0; size]).and_then(|()| file.sync_all()).is_ok() {}
        }
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["--lazy", &text(&self.0)], "");
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A gateway that has delivered a first reading, and whose broker then went away.
struct Site {
    broker: Mosquitto,
    receiver: Receiver,
    port: Port,
    first: u32,
    agent: Agent,
}

impl Site {
    fn start(gateway: &Gateway) -> Self {
        let broker = Mosquitto::start();
        let receiver = Receiver::start(&broker);
        let mut port = Port::open();
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\nqos = 2\n\n\
             [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
            broker.port(),
            port.path().display()
        ));
        let mut agent = gateway.run();
        agent.wait_log("connected");
        let first = port.send_until_taken(gateway);
        let mut site = Self { broker, receiver, port, first, agent };
        site.wait_received();
        site.broker.stop();
        site.agent.wait_log("(readings wait in the outbox");
        site
    }

    /// Waits until every line has arrived. Gives how many messages there were.
    #[track_caller]
    fn wait_received(&mut self) -> usize {
        let all: BTreeSet<u32> = (self.first..self.port.next()).collect();
        let mut count = 0;
        wait_until("every reading", || {
            let messages = self.receiver.on("maison/salle/mark");
            count = messages.len();
            let mark = |message: &Message| mark_number(message.json()["value"].as_str().expect("a text").as_bytes());
            all.is_subset(&messages.iter().map(|message| mark(message).expect("a mark")).collect())
        });
        count
    }

    /// The broker comes back: everything arrives, once.
    fn end(mut self) {
        self.port.send(10);
        self.broker.start_again();
        let count = self.wait_received();
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
        assert_eq!(count, (self.port.next() - self.first) as usize, "doubled at QoS 2");
    }

    /// Waits until the last lines lie in the log.
    #[track_caller]
    fn wait_on_disk(&self, gateway: &Gateway, from: u32) {
        wait_until("the readings to be on disk", || {
            let marks = gateway.marks_on_disk();
            (from..self.port.next()).all(|mark| marks.contains(&mark))
        });
    }
}

/// The disk takes nothing until `heal`: readings wait in memory and tail, it is said, and they go to disk by themselves
/// as soon as it takes them again.
fn disk_fails(gateway: &Gateway, error: &str, fail: impl FnOnce(), heal: impl FnOnce()) {
    let mut site = Site::start(gateway);
    fail();
    let from = site.port.next();
    site.port.send(50);
    site.agent.wait_log("readings wait in memory, and the oldest are dropped when it is full");
    assert!(site.agent.log.text().contains(error), "log:\n{}", site.agent.log.text());
    site.port.send(50);
    wait_until("the readings to be in the tail", || {
        let marks = gateway.marks_held();
        (from..site.port.next()).all(|mark| marks.contains(&mark))
    });
    assert!(gateway.marks_on_disk().iter().all(|mark| *mark < from), "the disk takes nothing");
    heal();
    site.agent.wait_log("the outbox on disk can be written again");
    site.wait_on_disk(gateway, from);
    site.end();
}

#[test]
fn a_full_disk_stops_nothing() {
    let gateway = Gateway::new();
    let mount = Mount::ext4(&gateway.path().join("outbox"), 8);
    let ballast = mount.0.join("ballast");
    let remove = || fs::remove_file(&ballast).expect("the ballast was there");
    disk_fails(&gateway, "No space left on device", || drop(mount.fill()), remove);
}

#[test]
fn a_write_protected_disk_stops_nothing() {
    let gateway = Gateway::new();
    let mount = Mount::ext4(&gateway.path().join("outbox"), 8);
    disk_fails(&gateway, "Read-only file system", || mount.remount("ro"), || mount.remount("rw"));
}

#[test]
fn a_full_tmpfs_has_readings_written_to_disk_at_once() {
    let gateway = Gateway::new();
    let mount = Mount::tmpfs(&gateway.path().join("tail"), "256k");
    let mut site = Site::start(&gateway);
    let ballast = mount.fill();
    let from = site.port.next();
    // The last page that the tail has already may take some of them.
    site.port.send(200);
    site.agent.wait_log("readings go to disk at once");
    site.wait_on_disk(&gateway, from);
    // Without a tail, what is on disk is all that a kill leaves.
    site.agent.kill();
    site.agent = gateway.run();
    wait_until("the port to be open", || site.port.is_open());
    fs::remove_file(ballast).expect("the ballast was there");
    // It is tried when there is something to write.
    wait_until("the tail to be written again", || {
        site.port.send(1);
        site.agent.log.count("the tail can be written again") > 0
    });
    site.end();
}

#[test]
fn a_folder_that_was_removed_is_made_again() {
    let gateway = Gateway::new();
    let mut site = Site::start(&gateway);
    let from = site.port.next();
    site.port.send(20);
    site.wait_on_disk(&gateway, from);
    fs::remove_dir_all(gateway.path().join("outbox")).expect("the folder was there");
    let from = site.port.next();
    site.port.send(20);
    site.wait_on_disk(&gateway, from);
    site.end();
}
