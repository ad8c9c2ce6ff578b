"""What happens where a TLS demand is not met, is tried out, or ends: if-unmet, audit, exceptions."""
import datetime
import os
import ssl

from harness import Case, smarthost, tag
from support.certs import Authority
from support.daemon import BRIDGEHEAD
from support.partner import DROP

NAME = "mx.bank.test"


def day(offset):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=offset)).strftime(
        "%Y-%m-%d"
    )


class PolicyCase(Case):
    def setUp(self):
        super().setUp()
        self.ca = Authority(self.path("ca"))
        self.good = self.ca.issue(NAME)

    def verify(self, more=""):
        return f"tls verify {{ ca-file {self.ca.pem}; names {NAME}; {more} }}"

    def attempts(self, daemon, result=None, count=0):
        """All of them, as soon as there are `count`."""
        return daemon.events_where(lambda e: e.get("evt") == "attempt"
                                   and (result is None or e["result"] == result), count)  # fmt: skip


class IfUnmet(PolicyCase):
    def bounced(self, partner_options, reason, tls=None):
        """The sender hears at once why, and the partner got nothing."""
        home = self.partner()
        partner = self.partner(**partner_options)
        daemon = self.relay_to(partner, tls or self.verify("if-unmet bounce"),
                               smarthost("home", home, domains="us.test"))  # fmt: skip
        self.send(daemon, sender="me@us.test")
        (report,) = home.wait_messages(1)
        self.assertIn(b"5.7.", report.content)
        self.assertIn(reason, report.content.decode("utf-8", "replace").replace("\r\n ", " "))
        self.assertEqual(0, partner.count("mail"))
        daemon.wait_empty()
        self.assertEqual(1, len(self.attempts(daemon, "bounced", 1)))
        return daemon

    @tag("tsan")
    def test_not_offered(self):
        self.bounced({}, "STARTTLS", "tls encrypt { if-unmet bounce }")

    def test_a_wrong_name(self):
        self.bounced({"certificate": self.ca.issue("other.test")}, "other.test")

    def test_an_unknown_authority(self):
        stranger = Authority(self.path("stranger"), "Stranger")
        self.bounced({"certificate": stranger.issue(NAME)}, "certificate")

    def test_all_that_waits_ends(self):
        """Many messages at once, more than one lease holds."""
        home, partner = self.partner(), self.partner()
        daemon = self.relay_to(partner, "tls encrypt { if-unmet bounce }",
                               smarthost("home", home, domains="us.test"))  # fmt: skip
        for i in range(50):
            self.send(daemon, f"x{i}@bank.test", sender="me@us.test")
        home.wait_messages(50)
        daemon.wait_empty()
        self.assertEqual(0, partner.count("mail"))

    def test_defer_is_the_default(self):
        partner = self.partner()
        daemon = self.relay_to(partner, "tls encrypt")
        self.send(daemon, sender="me@us.test")
        partner.wait_command("ehlo", 3)
        self.assertEqual(1, len(daemon.list()))
        self.assertEqual([], self.attempts(daemon, "bounced"))

    def test_a_broken_line_is_no_refusal(self):
        partner = self.partner(certificate=self.good)
        partner.on("starttls", DROP, times=2)
        daemon = self.relay_to(partner, self.verify("if-unmet bounce"))
        self.send(daemon)
        partner.wait_messages(1)
        self.assertEqual([], self.attempts(daemon, "bounced"))

    def test_our_own_fault_never_bounces(self):
        """The CA file goes away: that is ours to mend."""
        partner = self.partner(certificate=self.good)
        own = self.path("own.pem")
        with open(self.ca.pem, encoding="ascii") as source, open(own, "w", encoding="ascii") as out:
            out.write(source.read())
        daemon = self.relay_to(
            partner, f"tls verify {{ ca-file {own}; names {NAME}; if-unmet bounce }}", start=False
        )
        daemon.start()
        with open(own, "w", encoding="ascii") as out:
            out.write("no certificate at all\n")
        self.send(daemon)
        daemon.wait_line("evt=parked")
        self.assertEqual(1, len(daemon.list()))
        self.assertEqual([], self.attempts(daemon, "bounced"))
        self.assertEqual(0, partner.count("mail"))

    def test_one_host_that_is_down_may_do_better(self):
        down, partner = self.partner(), self.partner()
        down.down()
        daemon = self.daemon(f"""connector out {{
    domains *
    smarthosts [
        {down.text} priority 1
        {partner.text} priority 2
    ]
    tls encrypt {{ if-unmet bounce }}
}}""")
        self.send(daemon)
        partner.wait_command("ehlo", 2)
        self.assertEqual(1, len(daemon.list()))
        self.assertEqual([], self.attempts(daemon, "bounced"))


class Audit(PolicyCase):
    def audited(self, options, audit):
        partner = self.partner(**options)
        daemon = self.relay_to(partner, f"tls opportunistic {{ audit {audit} }}")
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        return self.attempts(daemon, count=1)[-1]

    @tag("tsan")
    def test_clear_text_is_told(self):
        event = self.audited({}, "encrypt")
        self.assertEqual("encrypt: it is in clear text", event["audit_would_refuse"])
        self.assertEqual("delivered", event["result"])

    def test_what_would_pass_is_not_told(self):
        self.assertNotIn("audit_would_refuse", self.audited({"certificate": self.good}, "encrypt"))

    def test_an_unknown_authority_is_told(self):
        event = self.audited({"certificate": self.good}, "verify")
        self.assertIn("verify: ", event["audit_would_refuse"])


class Exceptions(PolicyCase):
    def exception(self, until, reason="ticket 8812"):
        return self.verify(f'exception {{ until {until}; reason "{reason}"; mode encrypt }}')

    def test_it_lets_through_less_while_it_lasts(self):
        stranger = Authority(self.path("stranger"), "Stranger")
        partner = self.partner(certificate=stranger.issue(NAME))
        daemon = self.relay_to(partner, self.exception(day(30)))
        self.send(daemon)
        (got,) = partner.wait_messages(1)
        self.assertNotEqual("", got.tls)
        daemon.wait_empty()
        self.assertEqual("exception", self.attempts(daemon, count=1)[-1]["tls_from"])
        self.assertEqual([], [line for line in daemon.lines if "evt=tls_exception" in line])

    def test_an_old_version_by_exception_alone(self):
        """It must still be who it must be; that it fell back to TLS 1.0 is told as a change for the worse."""
        partner = self.partner(certificate=self.good, min_tls=ssl.TLSVersion.TLSv1)
        daemon = self.relay_to(
            partner, self.verify(f'exception {{ until {day(30)}; reason "old box"; min-version TLSv1.0 }}')
        )
        self.send(daemon)
        self.assertEqual("TLSv1.3", partner.wait_messages(1)[0].tls)
        daemon.wait_empty()
        daemon.stop()
        partner.context.maximum_version = ssl.TLSVersion.TLSv1
        daemon.start()
        self.send(daemon)
        self.assertEqual("TLSv1", partner.wait_messages(2)[1].tls)
        daemon.wait_empty()
        daemon.wait_line("evt=tls_worse .*TLSv1.0 where it was TLSv1.3")
        last = self.attempts(daemon, "delivered", 2)[-1]
        self.assertEqual(("exception", "TLSv1"), (last["tls_from"], last["tls_version"]))
        partner.context.load_cert_chain(*Authority(self.path("stranger"), "X").issue(NAME))
        daemon.stop()
        daemon.start()
        self.send(daemon)
        daemon.until(lambda rows: "unknown authority" in str(rows), "queue")
        self.assertEqual(2, partner.count("mail"))

    def test_its_end_is_announced(self):
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, self.exception(day(7)))
        daemon.wait_line("evt=tls_exception_ends connector=out days=[78] .*ticket 8812")

    def test_after_its_end_mail_is_held(self):
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, self.exception(day(-2)))
        daemon.wait_line("evt=tls_exception_ended connector=out .*ticket 8812")
        self.send(daemon)
        daemon.wait_listed(1)
        self.assertEqual(0, partner.connections)
        (row,) = [r for r in daemon.ctl("connectors") if r["connector"] == "out"]
        self.assertEqual("ended", row["exception"]["state"])
        self.assertEqual("ticket 8812", row["exception"]["reason"])
        self.assertEqual(("held", "its TLS exception has ended: ticket 8812"), (row["state"], row["reason"]))
        (row,) = daemon.ctl("queue")
        self.assertEqual(("held", "connector out is held: its TLS exception has ended: ticket 8812"),
                         (row["state"], row["hold_reason"]))  # fmt: skip
        self.assertIn("ticket 8812", daemon.ctl_run("status", options=()).stdout)
        # Its removal is what brings the mail to move: the demand itself is in force again.
        daemon.blocks["connectors"] = smarthost("out", partner, self.verify())
        daemon.write_config()
        daemon.ctl("reload")
        partner.wait_messages(1)

    def test_its_end_is_seen_at_run_time(self):
        """A connection is open and mail flows; when the date comes, nothing more goes."""
        clock = self.path("clock")

        def set_clock(seconds):
            with open(clock + ".new", "w", encoding="ascii") as out:
                out.write(f"{seconds}\n")
            os.rename(clock + ".new", clock)

        set_clock(0)
        partner = self.partner(certificate=Authority(self.path("stranger"), "X").issue(NAME))
        daemon = self.relay_to(partner, self.exception(day(2)), start=False)
        daemon.program = BRIDGEHEAD + "-faults"
        daemon.environment["BH_FAULT_CLOCK"] = clock
        daemon.start()
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        set_clock(4 * 86400)
        daemon.wait_line("evt=tls_exception_ended connector=out")
        before = partner.connections
        self.send(daemon, "late@bank.test")
        daemon.wait_listed(1)
        self.assertEqual(before, partner.connections)
        self.assertEqual(1, len(partner.messages))
