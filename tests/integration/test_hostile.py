"""Intake among clients that mean no good. While each attack goes on, honest mail comes at a steady rate from
elsewhere and all of it must be delivered; memory stays below what the limits in force add up to; and when
the attack is over, no descriptor is left. Latencies are reported, never judged: the machine may be busy.

BH_HOSTILE_SECONDS (3) is how long honest mail flows during each; BH_HOSTILE_IDLE (10000) the idle sessions."""
import itertools
import os
import resource
import socket
import subprocess
import sys
import threading
import time

from harness import Case, tag
from support.senders import RawClient, message
from support.waiting import GUARD, PATIENCE_S

SECONDS = float(os.environ.get("BH_HOSTILE_SECONDS", "3"))
IDLE = int(os.environ.get("BH_HOSTILE_IDLE", "10000"))
RATE = 25  # honest messages a second
KIB, MIB = 1024, 1 << 20
# What a session may hold by the bounds of intake: itself, a read buffer, replies waiting, twice the content
# that a message has in memory before it goes to the store; TLS state. See engine/intake/README.md.
SESSION = 20 * KIB
BUFFERS = 2 * 64 * KIB
CONTENT = 2 * 256 * KIB
TLS = 160 * KIB
CONTENT_MAX = 2 * 64 * MIB  # of two workers, whatever their sessions
SLACK = 24 * MIB  # the allocator's, and what honest mail takes
ATTACKS = os.path.join(os.path.dirname(__file__), "support", "attacks.py")


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


class Honest:
    """Messages at a steady rate, each timed from when it was due until the partner has it."""

    def __init__(self, daemon, partner):
        self.daemon, self.partner = daemon, partner
        self.numbers = itertools.count(1)
        self.due = {}

    def send(self, seconds):
        """Send for so long. Returns latencies in ms; every message has arrived."""
        names = []
        began = time.monotonic()
        before = len(self.partner.messages)
        client, used = None, 0
        for turn in range(int(seconds * RATE)):
            due = began + turn / RATE
            wait = due - time.monotonic()
            if wait > 0:
                threading.Event().wait(wait)  # The rate is what is asked for, not a wait for something.
            if client is None or used == 10:
                if client:
                    client.close()
                client, used = self.connect(), 0
            name = f"honest{next(self.numbers)}@bank.test"
            self.due[name] = due
            names.append(name)
            replies = client.envelope("honest@us.test", name)
            assert replies[0].code == 250, replies
            reply = client.data(message())
            assert reply.code == 250, reply
            used += 1
        client.close()
        self.partner.wait_messages(before + len(names), 60)
        arrived = {m.addresses[0]: at for m, at in zip(self.partner.messages, self.partner.arrived)}
        assert set(names) <= set(arrived), set(names) - set(arrived)
        return [1000 * (arrived[name] - self.due[name]) for name in names]

    def connect(self):
        client = RawClient.__new__(RawClient)
        client.socket = socket.socket()
        client.socket.settimeout(PATIENCE_S)
        client.socket.bind(("127.0.9.9", 0))
        client.socket.connect(self.daemon.address)
        client.stream = client.socket.makefile("rb")
        client.hello("honest.test")
        return client


class Watch:
    """The most anonymous memory that the daemon had, looked at every 20 ms."""

    def __init__(self, pid):
        self.pid, self.most = pid, 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def now(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * KIB for line in status if line.startswith("RssAnon:"))

    def run(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, self.now())

    def __enter__(self):
        self.most = self.now()
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.done.set()
        self.thread.join()


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


class Attack:
    def __init__(self, name, daemon, count):
        host, port = daemon.address
        self.process = subprocess.Popen(
            [*GUARD, sys.executable, ATTACKS, name, host, str(port), str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.up = int(self.process.stdout.readline().split()[1])

    def end(self):
        self.process.stdin.close()
        did = int(self.process.stdout.readline().split()[1])
        self.process.stdout.close()
        self.process.wait(PATIENCE_S)
        return did


@tag("hostile", "release")
class Hostile(Case):
    def setUp(self):
        super().setUp()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def world(self, limits="sessions 12000; sessions-per-client 300", more="", relay=False):
        """`relay`: the attackers may send mail, as the customers of a careless backend."""
        partner = self.partner()
        partner.arrived = []
        taken = partner.messages

        class Timed(list):
            def append(self, item):
                partner.arrived.append(time.monotonic())
                super().append(item)

        partner.messages = Timed(taken)
        daemon = self.relay_to(partner, start=False, listen=f"""listen 127.0.0.1:0 {{
    relay-from 127.0.9.0/24 {"127.0.8.0/24" if relay else ""}
    limits {{ {limits} }}
    {more}
}}""")  # fmt: skip
        daemon.blocks["engine"] = daemon.blocks["engine"].replace("log debug", "log info")
        daemon.start()
        return daemon, partner

    def attacked(self, name, count, memory, **world):
        """Honest mail alone, then during the attack. `memory`: octets that the attack may cost."""
        daemon, partner = self.world(**world)
        honest = Honest(daemon, partner)
        at_start = descriptors(daemon)
        alone = honest.send(SECONDS)
        with Watch(daemon.pid) as watch:
            base = watch.now()
            attack = Attack(name, daemon, count)
            during = honest.send(SECONDS)
            did = attack.end()
        allowed = base + memory + SLACK
        print(f"hostile {name}: {attack.up} up, did {did}; honest {len(during)} of {len(during)} arrived, p50 "
              f"{percentile(during, 0.5):.1f} p99 {percentile(during, 0.99):.1f} ms beside p50 "
              f"{percentile(alone, 0.5):.1f} p99 {percentile(alone, 0.99):.1f} ms alone; memory "
              f"{watch.most / MIB:.0f} MiB of {allowed / MIB:.0f} allowed", flush=True)  # fmt: skip
        self.assertLessEqual(watch.most, allowed)
        daemon.wait_empty()
        partner.down()  # Connections kept to it would count.
        self.back_to(daemon, at_start)
        strangers = [a for a in partner.addresses() if not a.startswith("honest")]
        return daemon, attack, strangers

    def back_to(self, daemon, at_start):
        """No descriptor more than before the first client came."""
        end = time.monotonic() + 2 * PATIENCE_S
        while descriptors(daemon) > at_start:
            self.assertLess(time.monotonic(), end, f"{descriptors(daemon)} descriptors, {at_start} at the start")
            with daemon.changed:
                daemon.changed.wait(0.1)

    def test_idle_sessions(self):
        _, attack, strangers = self.attacked("idle", IDLE, IDLE * SESSION,
                                             limits=f"sessions {IDLE + 500}; sessions-per-client 300")  # fmt: skip
        self.assertEqual(IDLE, attack.up)
        self.assertEqual([], strangers)

    def test_slow_senders(self):
        self.attacked("slow", 300, 300 * (SESSION + BUFFERS + CONTENT), relay=True)

    def test_floods_of_noop_and_rset(self):
        self.attacked("noop", 8, 8 * (SESSION + BUFFERS))

    def test_unknown_commands(self):
        self.attacked("unknown", 8, 400 * (SESSION + BUFFERS))

    def test_huge_command_lines(self):
        self.attacked("huge_lines", 8, 400 * (SESSION + BUFFERS))

    def test_huge_lines_of_content(self):
        _, _, strangers = self.attacked("huge_content_lines", 8, 400 * (SESSION + BUFFERS) + CONTENT_MAX, relay=True)
        self.assertEqual([], strangers)

    def test_replies_never_read(self):
        self.attacked("deaf", 100, 100 * (SESSION + 2 * BUFFERS))

    def test_all_before_the_greeting(self):
        self.attacked("early", 8, 400 * (SESSION + BUFFERS))

    def test_a_storm_of_connections(self):
        self.attacked("storm", 8, 2000 * (SESSION + BUFFERS))

    def test_messages_that_never_end(self):
        _, _, strangers = self.attacked("stall", 280, 280 * (SESSION + BUFFERS) + CONTENT_MAX, relay=True)
        self.assertEqual([], strangers)

    def test_handshakes_by_the_hundred(self):
        certificate, key = self.authority().issue("relay.us.test")
        self.attacked("starttls", 8, 400 * (SESSION + BUFFERS + TLS),
                      more=f"tls starttls {{ certificate {certificate}; key {key} }}")  # fmt: skip

    def test_more_sessions_than_there_may_be(self):
        """Three clients take all they may, and keep coming: there is room for others all the same, and those
        who are refused cost little."""
        self.attacked("crowd", 4000, 300 * SESSION + 512 * SESSION, limits="sessions 400; sessions-per-client 100")
