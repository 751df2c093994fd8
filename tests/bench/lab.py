"""What the measurements stand on: a broker, a serial line, the programs under test, and what the kernel says of them.

Everything runs on loopback and in a temporary folder; whatever was started is ended by its process id.
"""

import contextlib
import os
import pathlib
import random
import re
import select
import signal
import socket
import subprocess
import threading
import time
import tty

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What anything is waited for at most, in seconds; only a broken program gets there. A busy host holds a guest up for tens of
# seconds in which nothing gets on at all.
DEADLINE = 300
TICK = os.sysconf("SC_CLK_TCK")
# Numbers have six digits, so that all lines are of one length.
FIRST = 100_000


def wait_for(what, condition, pause=0.005, most=DEADLINE):
    end = time.monotonic() + most
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"waited {most} s in vain for: {what}")
        time.sleep(pause)
    return value


def free_port():
    """A port that nothing listens on, below the range of outgoing connections, from which a client may get it.

    By chance, as tests run beside each other: two that are given the same one must not be likely.
    """
    for _ in range(1000):
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no free port")


def build(*features):
    """Builds the release and gives the program. One with other features has a target folder of its own."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if features:
        target /= "bench"
    command = ["cargo", "build", "--release", "--quiet", "--bin", "vigie", "--target-dir", target, *features]
    subprocess.run(command, check=True, cwd=ROOT)
    return target / "release" / "vigie"


def disk_folder():
    """A folder that is on a disk, where what is written counts, as it would on a card; a temporary one may be not."""
    folder = ROOT / "target"
    folder.mkdir(exist_ok=True)
    return folder


class Process:
    """A child process and what the kernel knows about it."""

    def __init__(self, arguments, **options):
        self.child = subprocess.Popen([str(argument) for argument in arguments], **options)
        self.pid = self.child.pid

    def read(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}").read_text()

    def cpu(self):
        """Seconds of processor time so far, in user and kernel mode."""
        fields = self.read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def kib(self, name, field):
        return int(re.search(rf"^{field}:\s+(\d+)", self.read(name), re.MULTILINE)[1])

    def peak_mib(self):
        return self.kib("status", "VmHWM") / 1024

    def rss_mib(self):
        return self.kib("status", "VmRSS") / 1024

    def pss_mib(self):
        return self.kib("smaps_rollup", "Pss") / 1024

    def written(self):
        """Bytes that went, or will go, to a disk."""
        return self.kib("io", "write_bytes")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def alive(self):
        return self.child.poll() is None

    def send_signal(self, number):
        self.child.send_signal(number)

    def end(self, number=signal.SIGTERM):
        if self.alive():
            self.send_signal(number)
        return self.child.wait(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.alive():
            self.end(signal.SIGKILL)


@contextlib.contextmanager
def paused(process):
    """Stops a process for a while, so that others can come and go unseen."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class Mosquitto(Process):
    """Mosquitto without limits on what is in flight or queued, and without persistence."""

    def __init__(self, folder, port):
        config = pathlib.Path(folder, "mosquitto.conf")
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n"
            "max_queued_messages 0\nmax_inflight_messages 0\n"
        )
        super().__init__(["mosquitto", "-c", config], stderr=subprocess.DEVNULL)
        self.port = port
        wait_for("Mosquitto", self.answers)

    def answers(self):
        if not self.alive():
            raise SystemExit("mosquitto ended early")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True


class Serial:
    """A serial line: a pseudo terminal, of which the program under test opens the other side."""

    def __init__(self):
        self.ours, theirs = os.openpty()
        tty.setraw(theirs)
        self.path = os.ttyname(theirs)
        # The agent leaves a port alone that somebody else has open.
        os.close(theirs)
        self.opened = False

    def write(self, numbers):
        """Lines `{"n":NUMBER}`, as fast as they are taken."""
        self.send("".join(f'{{"n":{number}}}\n' for number in numbers).encode())

    def send(self, data):
        """Bytes, as fast as they are taken. What is sent to a port that nobody has open may be lost."""
        if not self.opened:
            wait_for("the port to be opened", self.is_open, pause=0.001)
            self.opened = True
        data = memoryview(data)
        while data:
            data = data[os.write(self.ours, data):]

    def is_open(self):
        look = select.poll()
        look.register(self.ours, 0)
        return not look.poll(0)

    def close(self):
        os.close(self.ours)


class Subscriber:
    """Subscribes to `bench/#` at QoS 0 and keeps what it gets, with the time.

    It looks only every `pause` seconds, so that it takes no processor time from those that are measured.
    """

    # The number in a line as it is, or in the agent's message.
    NUMBER = re.compile(rb'"(?:n|value)":(\d{6})')

    def __init__(self, port, pause=0.002):
        self.pause = pause
        self.chunks = []
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        connect = b"\0\4MQTT\4\2\0\0\0\5bench"
        self.socket.sendall(bytes([0x10, len(connect)]) + connect)
        if self.socket.recv(4, socket.MSG_WAITALL) != b"\x20\2\0\0":
            raise SystemExit("the subscriber is refused")
        subscribe = b"\0\1\0\7bench/#\0"
        self.socket.sendall(bytes([0x82, len(subscribe)]) + subscribe)
        if self.socket.recv(5, socket.MSG_WAITALL) != b"\x90\3\0\1\0":
            raise SystemExit("the subscription is refused")
        self.count = 0
        self.carry = b""
        self.thread = threading.Thread(target=self.receive, daemon=True)
        self.thread.start()

    def receive(self):
        with contextlib.suppress(OSError):
            while chunk := self.socket.recv(1 << 20):
                now = time.monotonic()
                # A number may be cut in two: what follows the last whole one waits for the rest.
                chunk = self.carry + chunk
                found, end = [], 0
                for match in self.NUMBER.finditer(chunk):
                    found.append(int(match[1]))
                    end = match.end()
                self.carry = chunk[max(end, len(chunk) - 16):]
                if found:
                    self.chunks.append((now, found))
                    self.count += len(found)
                time.sleep(self.pause)

    def wait(self, count):
        """Waits for so many messages; gives the time of the last one."""
        wait_for(f"{count} messages, {self.count} came", lambda: self.count >= count)
        return self.chunks[-1][0]

    def numbers(self):
        return [number for _, found in self.chunks for number in found]

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def agent(binary, folder, port, serial_path, inflight=100, sensor='driver = "serial-json"'):
    """`vigie run` with one serial sensor and one uplink. The outbox lies in `folder`, the tail where it always does."""
    config = pathlib.Path(folder, "vigie.toml")
    config.write_text(
        f"""
[gateway]
name = "bench"
topic = "bench/{{quantity}}"
[clock]
trust = "always"
[outbox]
path = "{folder}/outbox"
[uplink.bench]
url = "mqtt://127.0.0.1:{port}"
inflight = {inflight}
retain = false
[[sensor]]
name = "sketch"
port = "{serial_path}"
{sensor}
"""
    )
    log = open(pathlib.Path(folder, "vigie.log"), "a", encoding="utf-8")
    with log:
        return Process([binary, "run", "--config", config], stdout=log, stderr=log)


def publisher(port, serial, inflight=100):
    """`mosquitto_pub -l`, which sends each line as it is."""
    arguments = ["mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-q", 1, "-t", "bench/n", "-l", "-M", inflight]
    with open(serial.path, "rb") as lines:
        return Process(arguments, stdin=lines)
