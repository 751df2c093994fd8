"""The agent in a guest: what it is fed, what arrives at the broker of the host, and what it says is on disk."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

from guest import HOST, Failed

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
from lab import Mosquitto, Process, free_port, wait_for

# Readings a second, and the agent's window: so many may be on their way when a power cut comes.
RATE, WINDOW = 50, 100
# Bytes of a block of the file system.
BLOCK = 4096
# How long after it was taken a reading is on disk, seconds: the agent's default.
FLUSH = 1

CONFIG = """
[gateway]
name = "lab"
topic = "lab/{{quantity}}"
[clock]
trust = "always"
[outbox]
path = "/data/outbox"
flush = "{flush}s"
[uplink.lab]
url = "mqtt://{host}:{port}"
inflight = {window}
retain = false
{uplink}
[[sensor]]
name = "sketch"
driver = "serial-json"
port = "/dev/ttyS1"
"""
BULK = b'{"bulk":"%s"}\n' % (b"x" * 4000)
ON_DISK = re.compile(r"on disk run=(\d+) below=(\d+)\n")


class Broker:
    """Mosquitto on the host, with somebody who notes each message that it hands on."""

    def __init__(self, folder):
        self.mosquitto = Mosquitto(folder, free_port())
        self.port = self.mosquitto.port
        # (run, position, number, when it came), in the order of arrival. Only ever appended to.
        self.arrivals = []
        # Connected for as long as the broker may be stopped.
        topics = ["-t", "lab/n", "-t", "lab/mark"]
        subscriber = ["mosquitto_sub", "-p", self.port, "-q", 1, "-k", 3600, *topics, "-F", "%p"]
        self.subscriber = Process(subscriber, stdout=subprocess.PIPE)
        threading.Thread(target=self.receive, daemon=True).start()
        self.marks = 0
        # The subscription is there once a message of our own comes back.
        wait_for("the subscription", lambda: self.mark() or self.marks, pause=0.1)

    def mark(self):
        message = ["mosquitto_pub", "-p", str(self.port), "-q", "1", "-t", "lab/mark", "-m", "{}"]
        subprocess.run(message, check=True)

    def settle(self):
        """Waits until what the broker has in hand has arrived, or all but all of it."""
        marks = self.marks
        self.mark()
        wait_for("the broker", lambda: self.marks > marks)

    def receive(self):
        for line in self.subscriber.child.stdout:
            message = json.loads(line)
            if "value" not in message:
                self.marks += 1
            else:
                run, _, position = message["id"].partition("-")
                self.arrivals.append((int(run), int(position), message["value"], time.monotonic()))

    def pause(self):
        """From now on it hangs: nothing is taken from a connection, none is closed."""
        self.mosquitto.send_signal(signal.SIGSTOP)

    def resume(self):
        self.mosquitto.send_signal(signal.SIGCONT)

    def offset(self, run, since=0):
        """How much more a number is than its position, in that run: lines are read, and positions given, in order."""
        def found():
            return next(((number - position,) for of, position, number, _ in self.arrivals[since:] if of == run), None)
        return wait_for(f"a reading of run {run}", found)[0]

    def numbers(self):
        """What has arrived, at any time."""
        return {number for _, _, number, _ in self.arrivals}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.subscriber, self.mosquitto):
            process.__exit__()


class Feed:
    """Numbers, one after the other, as lines of JSON on the serial port of a guest; a thread of its own.

    With `bulk`, a line is a long text instead, which takes room in the outbox; a number is left out for it.
    """

    def __init__(self):
        self.next = 1
        self.bulk = False
        self.rate = RATE
        # When each number was written to the port.
        self.fed = {}

    def start(self, guest):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.write, args=(guest.sketch,), daemon=True)
        self.thread.start()

    def write(self, port):
        port.settimeout(None)
        while not self.stop.wait(1 / self.rate):
            number, bulk = self.next, self.bulk
            self.next += 1
            try:
                port.sendall(BULK if bulk else b'{"n":%d}\n' % number)
            except OSError:
                # The guest is gone; the number may have been read or not.
                return
            if not bulk:
                self.fed[number] = time.monotonic()

    def end(self):
        """No further number; gives the last one."""
        self.stop.set()
        self.thread.join()
        return self.next - 1


def start(guest, broker, flush=FLUSH, environment="", uplink="", drive="/dev/vda"):
    """Mounts the guest's drive and starts the agent on it; gives its run and how many readings it found waiting."""
    config = CONFIG.format(host=HOST, port=broker.port, window=WINDOW, flush=flush, uplink=uplink)
    guest.sh(f"mount -t ext4 {drive} /data\ncat >/run/vigie.toml <<'TOML'\n{config}\nTOML")
    return launch(guest, environment)


def launch(guest, environment=""):
    """Starts the agent and waits until it reads the serial port; gives its run and how many readings wait."""
    begin = len(guest.log())
    guest.sh(
        f"NO_COLOR=1 RUST_LOG=info,vigie::agent::flush=debug {environment} "
        "vigie run --config /run/vigie.toml >/dev/ttyS0 2>&1 & echo $! >/run/vigie.pid"
    )
    guest.logged("opened", guest.logged("outbox opened", begin))
    log = guest.log()[begin:]
    run, waiting = re.search(r"vigie starts .*run=(\d+)", log), re.search(r"outbox opened .*waiting=(\d+)", log)
    if not run or not waiting:
        raise guest.failed("the agent says neither its run nor what waits")
    return int(run[1]), int(waiting[1])


def may_repeat(guest):
    """How many readings may have come twice of those since the guest's start: a window for each connection that was given
    up. A broker that hangs for as long as a busy host takes makes the agent do that.
    """
    return max(guest.log().count(" connected ") - 1, 0) * WINDOW


def on_disk(guest):
    """What the agent last said: its run, and the position below which everything is on disk; `None`: nothing yet."""
    said = ON_DISK.findall(guest.log())
    return (int(said[-1][0]), int(said[-1][1])) if said else None


def format_drive(drive, *options):
    """Makes a file system."""
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), *options, str(drive.stable))


def extents(drive, path):
    """Where on the drive a file lies whose metadata has got there: ranges of bytes."""
    blocks = tool("debugfs", "-R", f"blocks {path}", str(drive.current)).split()
    if not blocks:
        raise Failed(f"the drive has no {path} yet")
    return [range(int(block) * BLOCK, (int(block) + 1) * BLOCK) for block in blocks]


def tool(*command):
    """One of e2fsprogs, which are not on everybody's path."""
    path = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    return subprocess.run(command, check=True, env=path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
