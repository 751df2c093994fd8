"""What the bench and the soak test share: Mosquitto, the agent, a pseudo-terminal, and what the kernel counted."""

import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import tempfile
import time
import tty

TICK = os.sysconf("SC_CLK_TCK")
DEADLINE = 60


def wait(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.01)


def free_port():
    # Below the range of outgoing connections, so that the port stays free while the broker is away.
    for port in range(15000 + os.getpid() % 10000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no free port")


class Mosquitto:
    def __init__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.port = free_port()
        self.config = pathlib.Path(self.dir.name, "mosquitto.conf")
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n"
            f"max_inflight_messages 0\nset_tcp_nodelay true\npersistence true\n"
            f"persistence_location {self.dir.name}/\nlog_type none\n")
        self.start()

    def start(self):
        program = "/usr/sbin/mosquitto" if os.path.exists("/usr/sbin/mosquitto") else "mosquitto"
        self.process = subprocess.Popen([program, "-c", self.config], stderr=subprocess.DEVNULL)
        wait("Mosquitto", self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Port:
    """A serial port whose other end is ours."""

    def __init__(self):
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)

    def is_open(self):
        poll = select.poll()
        poll.register(self.master, select.POLLOUT)
        return not any(event & select.POLLHUP for _, event in poll.poll(0))

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self.master, view):]


class Agent:
    def __init__(self, binary, broker_port, port, keys=""):
        self.dir = tempfile.TemporaryDirectory()
        # As on a Pi: the tail in memory, the log on the disk.
        self.tail = tempfile.TemporaryDirectory(dir="/dev/shm")
        config = pathlib.Path(self.dir.name, "vigie.toml")
        config.write_text(
            f'[gateway]\nname = "bench"\n[clock]\ntrust = "always"\n'
            f'[outbox]\npath = "{self.dir.name}/outbox"\ntail = "{self.tail.name}/tail"\nflush = "1s"\n'
            f'[uplink.home]\nurl = "mqtt://127.0.0.1:{broker_port}"\n{keys}\n'
            f'[[sensor]]\nname = "arduino"\nroom = "salle"\ndriver = "serial-json"\nport = "{port.path}"\n')
        self.log = open(os.path.join(self.dir.name, "log"), "w+")
        self.process = subprocess.Popen([binary, "run", "--config", config], stderr=self.log)
        self.pid = self.process.pid
        wait("the agent to connect", lambda: "connected" in self.log_text())
        wait("the agent to open the port", port.is_open)

    def log_text(self):
        return pathlib.Path(self.log.name).read_text()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        if code != 0:
            raise SystemExit(f"the agent ended with {code}; its log:\n{self.log_text()}")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def status_kib(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise SystemExit(f"no {name} of process {pid}")


def write_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/io").read_text().split("\nwrite_bytes: ")[1].split()[0])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
