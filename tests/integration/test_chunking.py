"""CHUNKING, and content that goes ahead of replies: real receivers, and how few round trips it takes."""
from harness import Case, tag
from support.distance import Distance
from support.partner import DROP, EXTENSIONS, Partner
from support.peers import Exim, Postfix, why_not
from support.ports import reserve_port
from support.senders import message

CHUNKING = (*EXTENSIONS, "CHUNKING")
COUNT = 24


class Chunked(Case):
    """One connection; mail waits for a partner that comes up late, so that a whole lease is at hand
    when it leaves."""

    def queue(self, to, more, count=COUNT, size=2000):
        daemon = self.daemon(
            f"connector out {{ domains *; smarthosts [ {to} ]; limits {{ connections 1 }} {more} }}"
        )
        for i in range(count):
            self.send(daemon, f"a{i}@bank.test", content=message(size=size))
        daemon.wait_listed(count)
        return daemon

    def flush(self, daemon):
        daemon.ctl("flush", "--destination", "bank.test")

    def late_partner(self):
        """Has a port that refuses, until up()."""
        partner = Partner(port=reserve_port(), extensions=CHUNKING)
        self.addCleanup(partner.down)
        return partner

    def once_each(self, partner, count=COUNT):
        self.assertEqual(sorted(f"a{i}@bank.test" for i in range(count)), partner.addresses())

    def turns_to(self, address, last, more):
        proxy = Distance(self.folder, address)
        self.addCleanup(proxy.stop)
        daemon = self.queue(proxy.text, more)
        proxy.start()
        self.flush(daemon)
        last.wait_messages(COUNT)
        daemon.wait_empty()
        self.once_each(last)
        daemon.stop()
        return proxy.turns()


@tag("peers")
class Receivers(Chunked):
    def through(self, kind):
        reason = why_not(kind.name)
        if reason:
            self.skipTest(reason)
        last = self.partner(name="last.test")
        peer = kind(self.path(kind.name), last.address)
        self.addCleanup(peer.stop)
        peer.start()
        turns = self.turns_to(peer.address, last, "speculative yes;")
        self.assertLess(turns, COUNT / 2)

    def test_postfix(self):
        self.through(Postfix)

    def test_exim(self):
        self.through(Exim)


class RoundTrips(Chunked):
    def test_ahead_of_replies(self):
        partner = self.partner(extensions=CHUNKING)
        self.assertLess(self.turns_to(partner.address, partner, "speculative yes;"), COUNT / 2)
        self.assertEqual(COUNT, partner.count("bdat"))
        self.assertEqual(0, partner.count("data"))

    def test_step_by_step(self):
        """The measure itself: a round trip for each message without speculation."""
        partner = self.partner(extensions=CHUNKING)
        self.assertGreaterEqual(self.turns_to(partner.address, partner, "chunking no;"), COUNT)
        self.assertEqual(0, partner.count("bdat"))


class Trouble(Chunked):
    def test_a_refused_recipient_ends_it_and_nothing_else(self):
        partner = self.late_partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="a5@")
        daemon = self.queue(partner.text, "speculative yes;")
        partner.up()
        self.flush(daemon)
        partner.wait_until(lambda: "sender@us.test" in partner.addresses(), "the report")
        partner.wait_messages(COUNT)
        daemon.wait_empty()
        wanted = [f"a{i}@bank.test" for i in range(COUNT) if i != 5] + ["sender@us.test"]
        self.assertEqual(sorted(wanted), partner.addresses())
        self.assertFalse([e for e in daemon.events() if "uncertain" in str(e)])

    def test_this_host_is_spoken_to_step_by_step_afterwards(self):
        partner = self.late_partner()
        partner.on("mail", "451 4.3.0 not now", times=1)
        daemon = self.queue(partner.text, "speculative yes;", count=2)
        partner.up()
        self.flush(daemon)
        partner.wait_messages(2)
        daemon.wait_empty()
        last = max(number for number, _, _ in partner.commands)
        self.assertGreater(last, 1)
        verbs = [verb for number, verb, _ in partner.commands if number == last]
        self.assertNotIn("rset", verbs[: verbs.index("bdat")])  # Speculation begins with RSET.

    def test_lost_in_the_middle(self):
        """A reset also destroys replies that were on their way: only what is marked comes twice."""
        partner = self.late_partner()
        partner.on("rcpt", DROP, match="a5@", times=1)
        daemon = self.queue(partner.text, "speculative yes;")
        partner.up()
        self.flush(daemon)
        wanted = {f"a{i}@bank.test" for i in range(COUNT)}
        partner.wait_until(lambda: set(partner.addresses()) == wanted, "every message")
        daemon.wait_empty()
        uncertain = {e["rcpt"] for e in daemon.events_where(lambda e: "uncertain" in str(e))}
        self.assertIn("a5@bank.test", uncertain)
        twice = {a for a in wanted if partner.addresses().count(a) > 1}
        self.assertLessEqual(twice, uncertain)

    def test_large_content(self):
        partner = self.late_partner()
        daemon = self.queue(partner.text, "speculative yes;", count=3, size=700_000)
        partner.up()
        self.flush(daemon)
        partner.wait_messages(3)
        daemon.wait_empty()
        self.once_each(partner, 3)
        self.assertEqual(3, partner.count("bdat"))
        self.assertTrue(all(len(got.content) > 700_000 for got in partner.messages))
