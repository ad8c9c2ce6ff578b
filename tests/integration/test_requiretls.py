"""REQUIRETLS from a client to a partner, and what becomes of it where it can't be kept; and the
header field that asks for the opposite (RFC 8689)."""
import os

from harness import Case, smarthost
from support.daemon import BRIDGEHEAD
from support.partner import EXTENSIONS
from support.senders import RawClient, message
from test_intake_auth import TlsClient

FAULTY = BRIDGEHEAD + "-faults"
NAME = "mx.bank.test"
OFFERS = [*EXTENSIONS, "REQUIRETLS"]


class RequireTls(Case):
    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.certificate = self.ca.issue(NAME)
        own, key = self.ca.issue("relay.us.test")
        self.listen = f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {own}; key {key} }}
}}"""
        # Reports go to the sender's own system, which can take them.
        self.home = self.partner(certificate=self.certificate, extensions=OFFERS)

    def verify(self, name=NAME):
        return f"tls verify {{ ca-file {self.ca.pem}; names {name} }}"

    def set_clock(self, seconds):
        with open(self.path("clock.new"), "w", encoding="ascii") as out:
            out.write(f"{seconds}\n")
        os.rename(self.path("clock.new"), self.path("clock"))

    def relay(self, partner, tls, more="", **options):
        return self.daemon(
            smarthost("out", partner, tls + "\n" + more, "bank.test") + "\n"
            + smarthost("home", self.home, self.verify(), "us.test"),
            listen=self.listen,
            **options,
        )  # fmt: skip

    def give(self, daemon, parameters=" REQUIRETLS", content=None, recipient="you@bank.test"):
        with TlsClient(daemon.address) as client:
            self.assertIn("REQUIRETLS", client.say("EHLO client.test").text)
            (reply,) = client.envelope("me@us.test", recipient, parameters=parameters)
            self.assertEqual(250, reply.code)
            reply = client.data(message(body="the content\r\n") if content is None else content)
            self.assertEqual(250, reply.code)
            return reply.queue_id

    def mail_lines(self, partner):
        return [argument for _, verb, argument in partner.commands if verb == "mail"]

    def bounced(self, partner):
        """It went nowhere; the sender was told, as privately, and got no content back."""
        (report,) = self.home.wait_messages(1)
        self.assertEqual([], partner.messages)
        self.assertEqual([], self.mail_lines(partner))
        self.assertIn(b"Status: 5.7.30", report.content)
        self.assertIn(b"text/rfc822-headers", report.content)
        self.assertNotIn(b"the content", report.content)
        (line,) = self.mail_lines(self.home)
        self.assertIn(" REQUIRETLS", line)

    def test_kept_to_a_proven_partner(self):
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        daemon = self.relay(partner, self.verify())
        self.give(daemon)
        self.give(daemon, parameters="")
        partner.wait_messages(2)
        self.assertEqual(1, sum("REQUIRETLS" in line for line in self.mail_lines(partner)))

    def test_kept_over_lmtp(self):
        partner = self.partner(certificate=self.certificate, extensions=OFFERS, lmtp=True)
        daemon = self.relay(partner, self.verify(), "protocol lmtp")
        self.give(daemon)
        partner.wait_messages(1)
        self.assertIn("REQUIRETLS", self.mail_lines(partner)[0])

    def test_not_offered(self):
        partner = self.partner(certificate=self.certificate)
        daemon = self.relay(partner, self.verify())
        self.give(daemon, parameters=" REQUIRETLS RET=FULL")
        self.bounced(partner)

    def hosts(self, *extensions, names=("mx1.bank.test", "mx2.bank.test")):
        """Partners behind one connector, tried in this order; mail goes on when one can't take it."""
        return [self.partner(certificate=self.ca.issue(name), extensions=offered)
                for name, offered in zip(names, extensions)]  # fmt: skip

    def relay_to_all(self, *partners, more=""):
        names = "mx1.bank.test mx2.bank.test"
        hosts = "\n".join(f"{p.text} priority {i}" for i, p in enumerate(partners, 1))
        return self.daemon(
            f"""connector out {{
    domains bank.test
    smarthosts [
        {hosts}
    ]
    {self.verify(names)}
    {more}
}}
""" + smarthost("home", self.home, self.verify(), "us.test"), listen=self.listen)

    def attempts(self, daemon, queue_id, count=2):
        """(what happened, result) of each, in order."""
        tried = daemon.events_where(
            lambda e: e.get("evt") == "attempt" and e["msg"] == queue_id, count)  # fmt: skip
        return [(event["happened"], event["result"]) for event in tried]

    def test_the_next_host_takes_it(self):
        """And nothing else leaves the first host for it, whose session stays open."""
        first, second = self.hosts(EXTENSIONS, OFFERS)
        daemon = self.relay_to_all(first, second)
        self.give(daemon, parameters="")
        first.wait_messages(1)
        queue_id = self.give(daemon)
        (message_,) = second.wait_messages(1)
        self.assertIn(" REQUIRETLS", message_.sender_parameters)
        self.give(daemon, parameters="")
        first.wait_messages(2)
        daemon.wait_empty()
        self.assertEqual((2, 1), (len(first.messages), len(second.messages)))
        self.assertEqual(1, first.connections)
        second.wait_command("quit")
        self.assertEqual([("needs_requiretls", "deferred"), ("reply", "delivered")],
                         self.attempts(daemon, queue_id))  # fmt: skip

    def test_returned_once_every_host_was_asked(self):
        first, second = self.hosts(EXTENSIONS, EXTENSIONS)
        daemon = self.relay_to_all(first, second)
        queue_id = self.give(daemon)
        self.bounced(first)
        self.assertEqual([], self.mail_lines(second))
        self.assertEqual([("needs_requiretls", "deferred"), ("needs_requiretls", "bounced")],
                         self.attempts(daemon, queue_id))  # fmt: skip
        self.assertEqual((1, 1), (first.connections, second.connections))

    def test_waits_for_a_host_that_is_down(self):
        """It may offer it: the message is neither returned nor tried in circles."""
        first, second = self.hosts(EXTENSIONS, OFFERS)
        second.down()
        daemon = self.relay_to_all(first, second)
        queue_id = self.give(daemon)
        self.assertEqual({("needs_requiretls", "deferred")}, set(self.attempts(daemon, queue_id)))
        second.up()
        second.wait_messages(1)
        daemon.wait_empty()
        self.assertEqual([], self.home.messages)
        # The message's own schedule begins with intervals of a second.
        self.assertLess(first.count("ehlo"), 30)

    def test_tls_off(self):
        """The connector says no: at once, whatever the partner offers."""
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        daemon = self.relay(partner, "tls off")
        self.give(daemon)
        self.bounced(partner)

    def test_not_proven(self):
        """TLS, and offered, but whose it is nobody knows: `encrypt` asks for no proof of that."""
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        daemon = self.relay(partner, "tls encrypt")
        self.give(daemon)
        self.bounced(partner)

    def test_waits_while_tls_is_broken(self):
        """Mail without it would go in clear one day; this waits for TLS, and is not returned."""
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        partner.on("starttls", "454 4.7.0 not now")
        daemon = self.relay(partner, "tls opportunistic")
        self.give(daemon)
        daemon.until(lambda rows: any("in clear only when older than 5 minutes, never with REQUIRETLS"
                                      in r.get("last", {}).get("text", "") for r in rows),
                     "queue", what="a reason")  # fmt: skip
        self.assertEqual([], self.mail_lines(partner))
        self.assertEqual([], self.home.messages)

    def test_is_never_old_enough_for_clear(self):
        """Once that is known, no session in clear is opened for it again."""
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        partner.on("starttls", "454 4.7.0 not now")
        daemon = self.relay(partner, "tls opportunistic", start=False)
        daemon.program = FAULTY
        daemon.environment = {"BH_FAULT_CLOCK": self.path("clock")}
        self.set_clock(0)
        daemon.start()
        self.give(daemon)
        daemon.wait_line("evt=backoff domain=bank.test")
        self.set_clock(6 * 60)
        daemon.events_where(lambda e: "in clear never" in e.get("text", ""))
        mark = len(daemon.lines)
        rounds = lambda: sum("evt=backoff domain=bank.test" in line for line in daemon.lines[mark:])
        daemon.wait_until(lambda: rounds() >= 3, "three rounds more\n" + daemon.tail())
        # Each connection asks for TLS, but for that one, and one that is just being made.
        self.assertLessEqual(partner.count("ehlo") - partner.count("starttls"), 2)
        self.assertEqual(1, len([e for e in daemon.events() if "in clear never" in e.get("text", "")]))
        self.assertEqual([], self.mail_lines(partner))
        daemon.wait_listed(1)

    def test_in_clear_it_is_not_taken(self):
        daemon = self.relay(self.partner(), "tls off")
        with RawClient(daemon.address) as client:
            self.assertNotIn("REQUIRETLS", client.hello().text)
            self.assertEqual(555, client.say("MAIL FROM:<me@us.test> REQUIRETLS").code)

    def test_what_the_record_says(self):
        partner = self.partner(certificate=self.certificate, extensions=OFFERS)
        partner.down()
        daemon = self.relay(partner, self.verify())
        optional = message(TLS_Required="No")

        def flags(queue_id):
            (row,) = [row for row in daemon.ctl("show", queue_id) if row["kind"] == "message"]
            return row["requiretls"], row["tls_optional"]

        self.assertEqual((True, False), flags(self.give(daemon)))
        self.assertEqual((False, True), flags(self.give(daemon, "", optional)))
        self.assertEqual((True, False), flags(self.give(daemon, content=optional)))
        self.assertEqual((False, False), flags(self.give(daemon, "", message(TLS_Required="Yes"))))
