"""A disk drive with a volatile write cache, which can be cut off from its power and can fail.

It serves an image file over the NBD protocol (NetworkBlockDevice's `doc/proto.md`), as QEMU speaks it. As in a real
drive, what was written is readable at once, but lasting only after the next flush: at a power cut, each write since
then is lasting, lost or torn between two sectors, at random.
"""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import socket
import struct
import threading

SECTOR = 512
# Numbers of the protocol.
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
HAS_FLAGS, SEND_FLUSH = 1, 4
OPTION_MAGIC, REPLY_MAGIC = b"IHAVEOPT", 0x3E889045565A9
OPTION_ABORT, OPTION_GO = 2, 7
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED = 1, 3, 2**31 + 1
REQUEST, ANSWER = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
REQUEST_MAGIC, ANSWER_MAGIC = 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH = range(4)


class Drive:
    """`stable` is what a power cut leaves, `current` what is read; both are image files.

    `failing`: writes and flushes end with EIO. `bad`: ranges of bytes to which a write does. `lying`: a flush is answered, but nothing becomes lasting by it, and
    at a power cut all is lost that was written since the drive was told to lie.
    """

    def __init__(self, folder, mebibytes, seed):
        self.stable = pathlib.Path(folder, "stable.img")
        self.current = pathlib.Path(folder, "current.img")
        self.path = pathlib.Path(folder, "drive")
        self.random = random.Random(seed)
        self.failing = self.lying = False
        self.bad = []
        # Writes since the last flush: offset and bytes. How many of all were refused, and flushed.
        self.pending, self.refused, self.flushes = [], 0, 0
        self.lock = threading.Lock()
        with open(self.stable, "wb") as image:
            image.truncate(mebibytes << 20)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.server = None
        self.files = []

    def on(self):
        """From now on the drive answers, one machine at a time."""
        shutil.copyfile(self.stable, self.current)
        self.files = [os.open(path, os.O_RDWR) for path in (self.stable, self.current)]
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.server.start()

    def cut(self):
        """The machine is gone, and the drive's power with it. Gives how many writes lasted, were lost, were torn."""
        self.server.join()
        fates = [0, 0, 0]
        for offset, data in self.pending:
            fate = 1 if self.lying else self.random.randrange(3)
            fates[fate] += 1
            if fate == 0:
                os.pwrite(self.files[0], data, offset)
            elif fate == 2:
                sectors = self.random.randrange(len(data) // SECTOR + 1)
                os.pwrite(self.files[0], data[:sectors * SECTOR], offset)
        self.pending.clear()
        for file in self.files:
            os.close(file)
        self.failing = False
        return fates

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            negotiate(connection, self.stable.stat().st_size)
            while self.request(connection):
                pass

    def request(self, connection):
        magic, _, kind, cookie, offset, length = REQUEST.unpack(receive(connection, REQUEST.size))
        if magic != REQUEST_MAGIC:
            raise ConnectionError("not a request")
        if kind == DISCONNECT:
            return False
        data, error = b"", 0
        if kind == READ:
            data = os.pread(self.files[1], length, offset)
        else:
            # A write's data comes behind it, whatever becomes of it.
            written = receive(connection, length) if kind == WRITE else b""
            error = self.change(kind, offset, written)
        connection.sendall(ANSWER.pack(ANSWER_MAGIC, error, cookie) + data)
        return True

    def change(self, kind, offset, data):
        """What the machine is answered to a write or a flush: 0, or the number of an error."""
        with self.lock:
            if self.failing or kind == WRITE and self.is_bad(offset, offset + len(data)):
                self.refused += 1
                return errno.EIO
            if kind == WRITE:
                os.pwrite(self.files[1], data, offset)
                self.pending.append((offset, data))
            elif kind != FLUSH:
                return errno.EINVAL
            elif not self.lying:
                for offset, data in self.pending:
                    os.pwrite(self.files[0], data, offset)
                self.pending.clear()
                self.flushes += 1
        return 0

    def is_bad(self, start, end):
        return any(start < bad.stop and bad.start < end for bad in self.bad)

    def wear_out(self, ranges):
        with self.lock:
            self.bad = ranges

    def fail(self, failing):
        with self.lock:
            self.failing = failing


def receive(connection, length):
    data = connection.recv(length, socket.MSG_WAITALL) if length else b""
    if len(data) < length:
        raise ConnectionError("the other side is gone")
    return data


def negotiate(connection, size):
    connection.sendall(b"NBDMAGIC" + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
    receive(connection, 4)
    while True:
        magic, option, length = struct.unpack(">8sII", receive(connection, 16))
        if magic != OPTION_MAGIC:
            raise ConnectionError("not an option")
        receive(connection, length)

        def reply(kind, data=b"", option=option):
            connection.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

        if option == OPTION_GO:
            reply(REPLY_INFO, struct.pack(">HQH", 0, size, HAS_FLAGS | SEND_FLUSH))
            reply(REPLY_ACK)
            return
        if option == OPTION_ABORT:
            reply(REPLY_ACK)
            raise ConnectionError("the other side does not want")
        reply(REPLY_UNSUPPORTED)
