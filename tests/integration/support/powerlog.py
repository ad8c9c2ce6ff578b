"""Power cuts: reads the log that tests/faults/powerlog.c makes of the queue's file, and rebuilds what
the disk could hold if the power had gone at any record of it.

What is promised to survive: octets of a write that was done before a sync began, once that sync has
ended; of a write through O_DSYNC, once it is done; the name of a file or folder, once the folder it
is in was synced. Everything else may be there or not, each sector for itself; of several writes to
one sector the disk has any one, with all that were before it."""
import collections
import mmap
import os
import struct

SECTOR = 512
HEADER = struct.Struct("<QBBHIQQQ")
MAGIC = 0x9D06CE676F6C7062
END = MAGIC.to_bytes(8, "little")
DATA, DATA_DSYNC, FOLDER, PARENT = 1, 2, 3, 4
SHIM_FLAG = 1

TORN_MOST = 16  # more than processes that were killed

Record = collections.namedtuple("Record", "kind flags what pid serial offset payload")


def records(path):
    """All of them, in order; payloads are views of the file. A record that kill -9 tore is left out: what
    it was to tell of never happened."""
    with open(path, "rb") as log:
        if os.fstat(log.fileno()).st_size == 0:
            return
        octets = mmap.mmap(log.fileno(), 0, prot=mmap.PROT_READ)
    view, at, torn = memoryview(octets), 0, 0
    while len(view) - at >= HEADER.size + len(END):
        magic, kind, flags, what, pid, serial, offset, length = HEADER.unpack_from(view, at)
        start = at + HEADER.size
        end = start + length
        if magic == MAGIC and view[end : end + len(END)] == END:
            yield Record(chr(kind), flags, what, pid, serial, offset, view[start:end])
            at = end + len(END)
            continue
        torn += 1
        at = octets.find(END, at + 1)
        if at < 0:
            break
    if torn > TORN_MOST:
        raise AssertionError(f"{torn} damaged records in the log")


class Marker:
    """Appends records of the test's own: 'R', what a partner took; 'C', a process was killed."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def close(self):
        os.close(self.descriptor)

    def put(self, kind, payload=b"", flags=0, what=0, pid=0, serial=0, offset=0):
        head = HEADER.pack(MAGIC, ord(kind), flags, what, pid, serial, offset, len(payload))
        octets = head + payload + END
        if os.write(self.descriptor, octets) != len(octets):
            raise OSError("short write to the log")


def after_kill(log, marker, data_path, pid):
    """A process may die within a write. Whether the kernel had it by then is seen in the file, and goes
    into the log, so that the model and the next process agree."""
    open_writes = {}
    for record in records(log):
        if record.pid == pid and record.kind == "W":
            open_writes[record.serial] = record
        elif record.pid == pid and record.kind == "E":
            open_writes.pop(record.serial, None)
    marker.put("C", pid=pid)
    for number, record in enumerate(open_writes.values()):
        with open(data_path, "rb") as data:
            data.seek(record.offset)
            real = data.read(len(record.payload))
        marker.put("W", real, what=DATA, serial=number, offset=record.offset)
        marker.put("E", what=DATA, serial=number)


class Write:
    """One that is not durable yet; `done` is where in the log it ended, or None."""

    def __init__(self, record):
        self.offset, self.octets, self.done = record.offset, record.payload, None
        self.key = record.pid, record.serial


class Disk:
    """The file after each record: `base` holds what is durable, `pending` what may be."""

    def __init__(self, base_path):
        self.base = os.open(base_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.base_path = base_path
        self.place = 0
        self.pending = []
        self.writing = {}
        self.syncs = {}  # (pid, serial): where it began
        self.made = False  # under its name
        self.named = {FOLDER: False, PARENT: False}  # data.mdb in its folder, that in its own

    def close(self):
        os.close(self.base)

    def follow(self, record):
        handler = getattr(self, "_on_" + record.kind, None)
        if handler:
            handler(record)
        self.place += 1

    def _on_O(self, record):
        self.made = self.made or (record.what in (DATA, DATA_DSYNC) and bool(record.flags & SHIM_FLAG))

    def _on_N(self, record):
        self.made = True

    def _on_W(self, record):
        write = Write(record)
        self.pending.append(write)
        self.writing[write.key] = write

    def _on_E(self, record):
        write = self.writing.pop((record.pid, record.serial))
        write.done = self.place
        if record.flags & SHIM_FLAG:
            self._settle(lambda other: other is write)

    def _on_F(self, record):
        self.syncs[record.pid, record.serial] = self.place

    def _on_S(self, record):
        began = self.syncs.pop((record.pid, record.serial))
        if record.what in self.named:
            self.named[record.what] = self.made
        else:
            self._settle(lambda write: write.done is not None and write.done < began)

    def _on_C(self, record):
        """What a dead process had not done: after_kill() says in its place what the file had."""
        for key in [key for key in self.writing if key[0] == record.pid]:
            self.pending.remove(self.writing.pop(key))

    def _settle(self, durable):
        kept = []
        for write in self.pending:
            if durable(write):
                os.pwrite(self.base, write.octets, write.offset)
            else:
                kept.append(write)
        self.pending = kept

    # -- a power cut

    def names_last(self):
        """Whether the file is sure to be found under its name."""
        return all(self.named.values())

    def _versions(self, grain):
        """{grain number: what was written to it, in order}, each an (offset, octets)."""
        versions = collections.defaultdict(list)
        for write in self.pending:
            at, end = write.offset, write.offset + len(write.octets)
            while at < end:
                stop = min(end, (at // grain + 1) * grain)
                versions[at // grain].append((at, write.octets[at - write.offset : stop - write.offset]))
                at = stop
        return versions

    def cut(self, path, chance, likely, grain=SECTOR):
        """Write to `path` what the disk has if the power goes now: each sector (or page) that is not
        durable landed with the probability `likely`. Returns how many could have landed."""
        with open(path, "wb") as image:
            size = os.fstat(self.base).st_size
            sent = 0
            while sent < size:
                sent += os.sendfile(image.fileno(), self.base, sent, size - sent)
            versions = self._versions(grain)
            end = size
            for pieces in versions.values():
                landed = [n for n in range(len(pieces)) if chance.random() < likely]
                for at, octets in pieces[: landed[-1] + 1 if landed else 0]:
                    os.pwrite(image.fileno(), octets, at)
                end = max(end, max(at + len(octets) for at, octets in pieces))
            if chance.random() < likely:  # The length may be there before the octets are.
                image.truncate(max(end, os.fstat(image.fileno()).st_size))
        return len(versions)
