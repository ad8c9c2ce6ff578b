"""Real programs on the other side: Postfix, Exim and OpenSMTPD take our mail, and Postfix sends it."""
from harness import Case, tag
from support.peers import Exim, OpenSmtpd, Postfix, why_not
from support.senders import message


@tag("peers")
class Receivers(Case):
    """sender -> bridgehead -> the peer -> a partner that shows what arrived."""

    def relay_through(self, kind):
        reason = why_not(kind.name)
        if reason:
            self.skipTest(reason)
        last = self.partner(name="last.test")
        peer = kind(self.path(kind.name), last.address)
        self.addCleanup(peer.stop)
        peer.start()
        host, port = peer.address
        daemon = self.daemon(f"connector out {{ domains *; smarthosts [ [{host}]:{port} ] }}")
        content = message(body=".\r\n..dots\r\n\r\ntext\r\n", X_Test=kind.name)
        sent = [self.send(daemon, [f"a{i}@bank.test", f"b{i}@bank.test"], content=content)
                for i in range(10)]  # fmt: skip
        large = self.send(daemon, "large@bank.test", content=message(size=800_000))
        last.wait_messages(11)
        daemon.wait_empty()
        wanted = sorted([f"{c}{i}@bank.test" for c in "ab" for i in range(10)] + ["large@bank.test"])
        self.assertEqual(wanted, last.addresses())
        for got in last.messages:
            if "large@bank.test" not in got.addresses:
                self.assertTrue(got.content.endswith(b".\r\n..dots\r\n\r\ntext\r\n"), got.content[-80:])
            received = got.content.decode("latin-1")
            self.assertTrue(any(queue_id in received.upper() for queue_id in [*sent, large]))

    def test_postfix(self):
        self.relay_through(Postfix)

    def test_exim(self):
        self.relay_through(Exim)

    def test_opensmtpd(self):
        self.relay_through(OpenSmtpd)


@tag("peers")
class Senders(Case):
    def test_postfix(self):
        reason = why_not("postfix")
        if reason:
            self.skipTest(reason)
        partner = self.partner()
        daemon = self.relay_to(partner)
        postfix = Postfix(self.path("postfix"), daemon.address)
        self.addCleanup(postfix.stop)
        postfix.start()
        for i in range(10):
            postfix.sendmail("cron@us.test", [f"r{i}@bank.test"], message())
        partner.wait_messages(10)
        self.assertEqual(sorted(f"r{i}@bank.test" for i in range(10)), partner.addresses())
        daemon.wait_empty()
