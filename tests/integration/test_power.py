"""Power cuts. The daemon runs under load, its writes and syncs to the queue's file in a log
(tests/faults/powerlog.c); then for random moments of it the file is rebuilt as a disk could hold it
after a cut, and whatever had its 250 must be queued in it, or delivered or reported before. For every
tenth a daemon starts on it and delivers the rest.

The choice of moments and sectors repeats with BH_POWER_SEED on the same log, which BH_POWER_LOG names;
a run that fails says where it left its log."""
import dataclasses
import json
import os
import random
import shutil
import subprocess

from harness import Case, smarthost, tag
from support import powerlog
from support.daemon import BUILD, Daemon, parse_json
from support.load import Accepted, Arrived, Load, trouble, well

SHIM = os.path.join(BUILD, "tests", "bh_powerlog.so")
LIVES = 4
START = 300  # records of a life that count as its start


def mail(marker):
    """For Partner.taking and Load.taking: what was taken goes into the log, before it is answered."""

    def taken(message):
        fields = {"id": message.queue_id, "sender": message.sender, "addresses": message.addresses,
                  "sum": message.header("X-Sum"), "mark": message.header("X-Mark")}  # fmt: skip
        marker.put("R", json.dumps(fields).encode())

    def accepted(one):
        marker.put("M", json.dumps(dataclasses.asdict(one)).encode())

    return taken, accepted


@dataclasses.dataclass
class Cut:
    """What to do at one moment."""

    place: int  # so many records of the log are in the past
    likely: float  # that a sector landed
    grain: int
    deliver: bool  # start a daemon on it
    seed: int


class History:
    """What the log tells besides the disk: who was told what, and when."""

    def __init__(self, log):
        self.expected = {}  # queue id: Accepted, of those whose client had the reply
        self.acks, self.starts, self.count = [], [], 0
        pids, seen = set(), set()
        for place, record in enumerate(powerlog.records(log)):
            if record.kind == "M":
                one = Accepted(**json.loads(bytes(record.payload)))
                if one.queue_id not in seen:
                    raise AssertionError(f"{one.queue_id} was acknowledged, and the log has no such reply")
                self.expected[one.queue_id] = one
            elif record.kind == "A":
                seen.add(bytes(record.payload).decode())
                self.acks.append(place + 1)
            elif record.kind == "O" and record.pid not in pids:
                pids.add(record.pid)
                self.starts.append(place + 1)
            self.count = place + 1

    def plan(self, cuts, seed, deliver_one_in):
        """Moments in order: some anywhere, some right behind a reply, some while a life begins.
        Without deliveries, for the test of the test: all where a missing sync would show."""
        chance = random.Random(seed)
        plan = []
        for number in range(cuts):
            kind = chance.random() if deliver_one_in else 0.5
            if kind < 0.4:
                place = chance.randrange(self.count + 1)
            elif kind < 0.8:
                place = chance.choice(self.acks)
            else:
                place = min(self.count, chance.choice(self.starts) + chance.randrange(START))
            likely = chance.choice([0, 0, 0.1, 0.5, 0.5, 0.9, 1]) if deliver_one_in else 0
            plan.append(Cut(place, likely, chance.choice([512, 512, 4096]),
                            bool(deliver_one_in) and number % deliver_one_in == 0,
                            chance.getrandbits(32)))  # fmt: skip
        return sorted(plan, key=lambda cut: cut.place)


class Past:
    """What had happened at a moment of the log."""

    def __init__(self, history):
        self.history = history
        self.acknowledged = {}
        self.arrived = Arrived()

    def follow(self, record):
        if record.kind == "A":
            one = self.history.expected.get(bytes(record.payload).decode())
            if one:
                self.acknowledged[one.queue_id] = one
        elif record.kind == "R":
            fields = json.loads(bytes(record.payload))
            if fields["sender"] == "":
                self.arrived.told.update(fields["addresses"])
            else:
                self.arrived.recipients[fields["id"]].update(fields["addresses"])


class Power(Case):
    def record(self, messages, fault=""):
        """Run the daemon under load, with LIVES ends by kill -9 or in order; the log."""
        if not os.path.exists(SHIM):
            self.skipTest("only plain builds have the shim")
        log = self.path("power.log")
        marker = powerlog.Marker(log)
        self.addCleanup(marker.close)
        taken, accepted = mail(marker)
        partner = self.partner()
        partner.taking = taken
        daemon = self.relay_to(partner, start=False)
        daemon.verify_at_end = not fault
        queue = daemon.path("queue")
        daemon.environment = {"LD_PRELOAD": SHIM, "BH_POWERLOG": log, "BH_POWERLOG_FOLDER": queue,
                              "BH_POWERLOG_FAULT": fault}  # fmt: skip
        chance = random.Random(messages)
        load = Load(messages, accepted, sizes=(0, 0, 0, 3000, 3000, 20_000, 20_000, 300_000))
        self.addCleanup(load.end)
        for life in range(LIVES):
            trouble(partner, chance)
            daemon.start()
            load.go(daemon.address)
            load.wait_more(messages // LIVES, "mail to be taken\n" + daemon.tail())
            pid = daemon.pid
            if life % 2:
                daemon.stop()
            else:
                daemon.kill()
            load.pause()
            powerlog.after_kill(log, marker, os.path.join(queue, "data.mdb"), pid)
        load.end()
        self.left = queue
        return log

    # -- one cut

    def image(self, disk, cut, folder):
        """The queue's folder after it; False: the file's name was lost, and all of it with it."""
        chance = random.Random(cut.seed)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        if not disk.made or (not disk.names_last() and chance.random() >= cut.likely):
            return False
        disk.cut(os.path.join(folder, "data.mdb"), chance, cut.likely, cut.grain)
        # What LMDB and we share with the next process by a map is never synced: anything may be left.
        for name in ("lock.mdb", "inflight"):
            self.leave(chance, os.path.join(self.left, name), os.path.join(folder, name))
        return True

    @staticmethod
    def leave(chance, source, target):
        kind = chance.randrange(4)
        if kind == 0 or not os.path.exists(source):
            return
        with open(source, "rb") as old:
            octets = bytearray(old.read())
        if kind == 1:
            octets = bytes(len(octets))
        elif kind == 2:
            for at in range(0, len(octets), 512):
                if chance.random() < 0.5:
                    octets[at : at + 512] = chance.randbytes(len(octets[at : at + 512]))
        with open(target, "wb") as new:
            new.write(octets)

    def ask(self, daemon, *words):
        """bhctl on the rebuilt file; what went wrong, and the rows."""
        result = daemon.ctl_run(*words, "--offline")
        if result.returncode != 0:
            return f"bhctl {words[0]}: status {result.returncode}: {result.stdout[-500:]}{result.stderr[-500:]}", []
        return None, parse_json(result.stdout)

    def judge(self, daemon, past, whole):
        """What is wrong with the queue in the daemon's folder, as a list."""
        rows = []
        if whole:
            for words in (("verify",), ("list", "--limit", "1000000")):
                problem, rows = self.ask(daemon, *words)
                if problem:
                    return [problem]
        queued = {}
        told = set()
        for row in rows:
            queued.setdefault(row["id"], set()).update(row["recipients"])
            if row["sender"] == "":
                told.update(row["recipients"])
        return past.arrived.missing(past.acknowledged.values(), queued, told)

    def deliver(self, daemon, past):
        """Start on it and let all go out: whatever was acknowledged is then with the partner."""
        before = len(self.receiver.messages)
        try:
            daemon.start()
            daemon.ctl("release", "--all")
            daemon.ctl("flush", "--all")
            daemon.wait_empty()
            daemon.stop()
            daemon.verify()
        except (AssertionError, subprocess.SubprocessError) as problem:
            daemon.process.kill()
            return [str(problem)]
        arrived = Arrived().all_of(self.receiver.messages[before:])
        damaged = [f"{queue_id} arrived damaged" for queue_id in arrived.damaged]
        arrived.told |= past.arrived.told
        for queue_id, addresses in past.arrived.recipients.items():
            arrived.recipients[queue_id] |= addresses
        return daemon.findings() + damaged + arrived.missing(past.acknowledged.values())

    def try_cuts(self, log, cuts, seed, deliver_one_in=10):
        """Every cut's troubles, those that have any: [(Cut, [trouble, ...]), ...]"""
        history = History(log)
        self.assertGreater(len(history.acks), 20)
        self.receiver = self.partner()
        well(self.receiver)
        daemon = Daemon(self.path("cut"), connectors=smarthost("out", self.receiver))
        daemon.write_config()
        disk, past = powerlog.Disk(self.path("base")), Past(history)
        self.addCleanup(disk.close)
        plan = history.plan(cuts, seed, deliver_one_in)
        failed = []
        for place, record in enumerate([*powerlog.records(log), None]):
            while plan and plan[0].place == place:
                cut = plan.pop(0)
                whole = self.image(disk, cut, daemon.path("queue"))
                # Before the first reply there may be no queue yet, and a tool says so: it must start.
                troubles = self.judge(daemon, past, whole) if past.acknowledged else []
                if not troubles and (cut.deliver or not past.acknowledged):
                    troubles = self.deliver(daemon, past)
                if troubles:
                    failed.append((cut, troubles))
            if record:
                disk.follow(record)
                past.follow(record)
        self.assertFalse(plan)
        return failed, history

    # -- tests

    @tag("power")
    def test_cuts(self):
        cuts = int(os.environ.get("BH_POWER_CUTS", "100"))
        seed = int(os.environ.get("BH_POWER_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
        print(f"power: {cuts} cuts, BH_POWER_SEED={seed}", flush=True)
        old = os.environ.get("BH_POWER_LOG")
        if old:
            self.left = os.path.dirname(old)
        log = old or self.record(messages=min(cuts * 4, 1200))
        failed, history = self.try_cuts(log, cuts, seed)
        print(f"power: {history.count} records, {len(history.acks)} acknowledged, {cuts} cuts, "
              f"{len(failed)} with a loss", flush=True)  # fmt: skip
        if failed:
            for cut, troubles in failed[:5]:
                print(cut, *troubles[:5], sep="\n    ", flush=True)
            if not old:
                kept = f"{BUILD}/power-{seed}.log"
                shutil.copyfile(log, kept)
                print(f"power: repeat with BH_POWER_SEED={seed} BH_POWER_LOG={kept}", flush=True)
        self.assertEqual(0, len(failed), f"of {cuts} cuts")

    @tag("power")
    def test_a_sync_left_out_is_found(self):
        """The test itself: with a disk that is not told to sync, cuts lose mail."""
        for fault in ("nosync", "nodsync"):
            with self.subTest(fault=fault):
                failed, _ = self.try_cuts(self.record(messages=120, fault=fault), 30, 1, deliver_one_in=0)
                print(f"power: planted {fault}: {len(failed)} of 30 cuts with a loss", flush=True)
                self.assertGreater(len(failed), 10)
                shutil.rmtree(self.path("relay"))
                os.unlink(self.path("power.log"))
