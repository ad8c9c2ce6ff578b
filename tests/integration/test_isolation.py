"""A sick destination costs nothing to the healthy ones: whatever way it is sick, with a backlog that no window
holds, it has its share of connections and no more, and mail for others is on its way at once. Counts, not times:
tests/bench/run PEER isolation measures latencies."""
import socket

from harness import Case
from support.partner import DROP, HANG
from support.senders import RawClient, message

STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "body", "dot")  # where "connect" is the greeting
BACKLOG = 300  # for each; a window holds 256


class Sick(Case):
    def setUp(self):
        super().setUp()
        self.names = self.dns()
        self.healthy = self.partner(host="127.0.0.3")
        self.names.host_at("healthy.test", "127.0.0.3")
        self.hosts = 10

    def sick(self, kind):
        """A partner that answers no more at this stage, at an address of its own."""
        self.hosts += 1
        host = f"127.0.0.{self.hosts}"
        self.names.host_at(f"{kind}.test", host)
        partner = self.partner(host=host, port=self.healthy.port)
        if kind in STAGES:
            partner.on(kind, HANG)
        return partner

    def deaf(self):
        """Its queue of connections is full, so that the kernel answers none."""
        self.hosts += 1
        host = f"127.0.0.{self.hosts}"
        self.names.host_at("deaf.test", host)
        listener = socket.socket()
        listener.bind((host, self.healthy.port))
        listener.listen(0)
        self.addCleanup(listener.close)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((host, self.healthy.port))
            self.addCleanup(filler.close)

    def relay(self, limits):
        return self.daemon(f"""connector out {{
    domains *
    port {self.healthy.port}
    limits {{ {limits} }}
}}""", resolver=self.names.text)  # fmt: skip

    def queue(self, daemon, domain, count):
        """Messages in one session; all of them are in the queue when this returns."""
        content = message()
        with RawClient(daemon.address) as client:
            client.hello()
            for number in range(count):
                client.send(b"MAIL FROM:<s@us.test>\r\nRCPT TO:<r%d@%s>\r\nDATA\r\n" % (number, domain.encode())
                            + content + b".\r\n")  # fmt: skip
                self.assertEqual([250, 250, 354, 250], [client.reply().code for _ in range(4)])

    def waiting(self, daemon, domain):
        return sum(row["messages"] for row in daemon.queue() if row["domain"] == domain)

    def test_sick_in_every_way_at_once(self):
        sick = {kind: self.sick(kind) for kind in STAGES + ("reset",)}
        sick["reset"].on("body", DROP)
        self.deaf()
        self.hosts += 1
        self.names.host_at("refusing.test", f"127.0.0.{self.hosts}")
        daemon = self.relay("connections 40; initial 2; per-host 10")
        self.queue(daemon, "healthy.test", 1)
        self.healthy.wait_messages(1)
        for domain in [*sick, "deaf", "refusing"]:
            self.queue(daemon, f"{domain}.test", BACKLOG)
        for kind in STAGES:
            partner = sick[kind]
            partner.wait_until(lambda p=partner: p.connections >= 1, f"a session with {kind}")
        self.queue(daemon, "healthy.test", 100)
        self.healthy.wait_messages(101)
        for kind in STAGES:
            # They hold what they got, to the end: this many, and not one more for 300 messages.
            self.assertLessEqual(sick[kind].connections, 2, kind)
            self.assertEqual([], sick[kind].messages)
            self.assertEqual(BACKLOG, self.waiting(daemon, f"{kind}.test"), kind)
        # One attempt of the destination each round, not one for each message.
        self.assertLess(sick["reset"].connections, 30)
        self.assertEqual(0, self.waiting(daemon, "healthy.test"))

    def test_a_shared_limit_keeps_half_for_those_who_deliver(self):
        """Five sick ones would take ten connections each of the eight there are: they get four among them."""
        sick = [self.sick("connect")]
        for number in range(4):
            partner = self.sick(f"more{number}")
            partner.on("connect", HANG)
            sick.append(partner)
        daemon = self.relay("connections 8; per-destination 10; initial 10; per-host 10")
        self.queue(daemon, "healthy.test", 1)
        self.healthy.wait_messages(1)
        self.queue(daemon, "connect.test", BACKLOG)
        for number in range(4):
            self.queue(daemon, f"more{number}.test", 20)
        sick[0].wait_until(lambda: sum(p.connections for p in sick) >= 4, "the sick ones' share to be taken")
        for _ in range(3):
            self.queue(daemon, "healthy.test", 50)
        self.healthy.wait_messages(151)
        self.assertEqual(4, sum(p.connections for p in sick))
        self.assertEqual(BACKLOG, self.waiting(daemon, "connect.test"))
