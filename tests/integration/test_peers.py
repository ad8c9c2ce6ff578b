"""Real programs on the other side: Postfix, Exim and OpenSMTPD take our mail, refuse it, defer it and
report on it, and Postfix sends it."""
import email
import email.policy

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
class TlsReceivers(Case):
    """Peers that take mail over TLS only, from who shows a certificate by their authority."""

    def to(self, kind, shown):
        reason = why_not(kind.name)
        if reason:
            self.skipTest(reason)
        ca = self.authority()
        name = f"{kind.name}.test"
        client, key = ca.issue("relay.us.test")
        last = self.partner(name="last.test")
        peer = kind(self.path(kind.name), last.address, tls=(*ca.issue(name, rsa=True), ca.pem))
        self.addCleanup(peer.stop)
        peer.start()
        hop = f"smarthosts [ [127.0.0.1]:{peer.address[1]} ]"
        demand = f"ca-file {ca.pem}; names {name}"
        daemon = self.daemon(f"""connector good {{
    domains good.test; {hop}
    tls verify {{ {demand}; client-certificate {client}; client-key {key} }}
}}
connector nameless {{ domains nameless.test; {hop}; tls verify {{ {demand} }} }}
connector clear {{ domains clear.test; {hop}; tls off }}
connector other {{
    domains other.test; {hop}
    tls verify {{ ca-file {ca.pem}; names another.test; client-certificate {client}; client-key {key} }}
}}""")
        for domain in ("nameless", "clear", "other", "good"):
            self.send(daemon, f"you@{domain}.test", content=message())
        (got,) = last.wait_messages(1)
        self.assertEqual(["you@good.test"], got.addresses)
        self.assertRegex(got.content.decode("latin-1"), shown)
        (event,) = daemon.events_of("delivered")
        self.assertEqual(("verify", "name"), (event["tls_wanted"], event["auth"]))
        # Nobody else's mail goes, and none is returned for it.
        daemon.wait_line("evt=session_failed connector=nameless")
        daemon.wait_line("evt=session_failed connector=other .*name mismatch")
        daemon.events_where(lambda e: e.get("rcpt") == "you@clear.test" and e["code"] == 530)
        daemon.wait_listed(3)
        self.assertEqual([], [e for e in daemon.events() if e.get("result") == "bounced"])
        self.assertEqual(1, len(last.messages))
        self.assertEqual(0, daemon.ctl_run("probe", "good.test").returncode)
        self.assertEqual(1, daemon.ctl_run("probe", "nameless.test").returncode)
        self.assertEqual(1, daemon.ctl_run("probe", "clear.test").returncode)

    def test_postfix(self):
        self.to(Postfix, r'using TLSv1\.3 [^;]*Client CN "relay\.us\.test"[^;]*verified OK')

    def test_exim(self):
        self.to(Exim, r"with esmtps +\(TLS1\.[23]\)")

    def test_opensmtpd(self):
        """6.8.0p2 ends every handshake with OpenSSL 3 (its issues 1171 and 1239): TLS that a real
        program offers, and breaks. Whatever is demanded, nothing leaves, and none is returned."""
        reason = why_not("opensmtpd")
        if reason:
            self.skipTest(reason)
        ca = self.authority()
        last = self.partner(name="last.test")
        peer = OpenSmtpd(self.path("opensmtpd"), last.address,
                         tls=(*ca.issue("opensmtpd.test", rsa=True), ca.pem))  # fmt: skip
        self.addCleanup(peer.stop)
        peer.start()
        modes = {"verify": f"verify {{ ca-file {ca.pem}; names opensmtpd.test }}", "encrypt": "encrypt",
                 "opportunistic": "opportunistic"}  # fmt: skip
        daemon = self.daemon("\n".join(f"""connector {mode} {{
    domains {mode}.test
    smarthosts [ [127.0.0.1]:{peer.address[1]} ]
    tls {text}
}}""" for mode, text in modes.items()))
        for mode in modes:
            self.send(daemon, f"you@{mode}.test")
        for mode in ("verify", "encrypt"):
            daemon.wait_line(f"evt=session_failed connector={mode} .*stage=tls happened=tls_failed")
        daemon.wait_line("evt=tls_broken connector=opportunistic .*next=small_hello")
        daemon.wait_line("evt=tls_broken connector=opportunistic .*next=clear")
        daemon.wait_line("evt=backoff domain=opportunistic.test .*older than 5 minutes")
        daemon.wait_listed(3)
        self.assertEqual([], last.messages)


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


@tag("peers")
class Neighbours(Case):
    """Each partner by its own connector: Exim takes bank.test, Postfix takes us.test, which is where
    reports go; what both let through is seen by a partner."""

    def setUp(self):
        super().setUp()
        for name in ("exim", "postfix"):
            if why_not(name):
                self.skipTest(why_not(name))
        self.last = self.partner(name="last.test")
        self.exim = Exim(self.path("exim"), self.last.address)
        self.postfix = Postfix(self.path("postfix"), self.last.address)

    def begin(self):
        for peer in (self.exim, self.postfix):
            self.addCleanup(peer.stop)
            peer.start()
        return self.daemon("\n".join(
            f"connector {name} {{ domains {domain}; smarthosts [ [127.0.0.1]:{peer.address[1]} ] }}"
            for name, domain, peer in (("bank", "bank.test", self.exim), ("ours", "us.test", self.postfix))
        ))  # fmt: skip

    def report(self, arrived=1):
        """The report among what arrived, as a mail program reads it."""
        self.last.wait_messages(arrived)
        (got,) = [m for m in self.last.messages if m.sender == ""]
        return got, email.message_from_bytes(got.content, policy=email.policy.default)

    def fields(self, report):
        return [dict(block.items()) for block in list(report.iter_parts())[1].get_payload()]

    def test_each_connector_has_its_partner(self):
        daemon = self.begin()
        self.send(daemon, ["you@bank.test", "me@us.test"])
        self.last.wait_messages(2)
        by = {m.addresses[0]: m.content.decode("latin-1") for m in self.last.messages}
        self.assertIn("by exim.test", by["you@bank.test"])
        self.assertIn("by postfix.test", by["me@us.test"])
        daemon.wait_empty()

    def test_a_refusal_is_reported(self):
        self.exim.rcpt_acl = """deny local_parts = gone
       message = no such \\"user\\" here
  accept"""
        daemon = self.begin()
        self.send(daemon, ["gone@bank.test", "you@bank.test"], sender="me@us.test", options=["ENVID=QQ1"])
        got, report = self.report(arrived=2)
        self.assertEqual(["me@us.test"], got.addresses)
        self.assertEqual("multipart/report", report.get_content_type())
        whole, one = self.fields(report)
        self.assertEqual("QQ1", whole["Original-Envelope-Id"])
        self.assertEqual("failed", one["Action"])
        self.assertIn("gone@bank.test", one["Final-Recipient"])
        self.assertIn("550", one["Diagnostic-Code"])
        self.assertIn("no such", one["Diagnostic-Code"])
        daemon.wait_empty()

    def test_what_is_deferred_comes_later(self):
        opened = self.path("open")
        self.exim.rcpt_acl = f"""defer condition = ${{if exists{{{opened}}}{{no}}{{yes}}}}
        message = come back later
  accept"""
        daemon = self.begin()
        self.send(daemon, "you@bank.test")
        row = daemon.until(lambda rows: rows and rows[0]["attempts"] > 0, "list")[0]
        self.assertIn("come back later", row["last"]["text"])
        with open(opened, "w", encoding="ascii"):
            pass
        daemon.ctl("flush", "--destination", "bank.test")
        self.last.wait_messages(1)
        daemon.wait_empty()

    def test_notify_goes_on_to_who_can_report(self):
        """Postfix offers DSN, so that success is its to report, and we say nothing. What is behind it
        offers none."""
        self.last.extensions.remove("DSN")
        daemon = self.begin()
        self.send(daemon, "you@us.test", sender="me@us.test", options=["ENVID=QQ2", "RET=HDRS"],
                  rcpt_options=["NOTIFY=SUCCESS", "ORCPT=rfc822;first@us.test"])  # fmt: skip
        _, report = self.report(arrived=2)
        whole, one = self.fields(report)
        self.assertIn("postfix.test", whole["Reporting-MTA"])
        self.assertEqual("QQ2", whole["Original-Envelope-Id"])
        self.assertIn("first@us.test", one["Original-Recipient"])
        daemon.wait_empty()
        self.assertEqual(2, len(self.last.messages))
