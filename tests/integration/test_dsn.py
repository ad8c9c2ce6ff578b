"""Reports: who gets one, who must not, and that they are well formed."""
import email
import email.policy
import re

from harness import Case, smarthost, tag
from support.senders import message


def parsed(got):
    """The report as an email message; every defect that Python's parser finds is an error."""
    return email.message_from_bytes(got.content, policy=email.policy.default)


class Reports(Case):
    def report(self, partner):
        partner.wait_until(lambda: any(m.sender == "" for m in partner.messages), "a report")
        return next(m for m in partner.messages if m.sender == "")

    def check_form(self, got, recipients, action, status):
        """multipart/report as RFC 6522 and RFC 3464 have it; the fields of the recipients."""
        self.assertNotIn(b"\n", got.content.replace(b"\r\n", b""))
        self.assertLessEqual(max(map(len, got.content.split(b"\r\n"))), 998)
        report = parsed(got)
        self.assertEqual([], list(report.defects))
        self.assertEqual("multipart/report", report.get_content_type())
        self.assertEqual("delivery-status", report["Content-Type"].params["report-type"])
        self.assertEqual("auto-replied", report["Auto-Submitted"])
        self.assertRegex(report["Message-ID"], r"^<[^<>\s]+@[^<>\s]+>$")
        self.assertTrue(report["Date"].datetime)
        parts = list(report.iter_parts())
        self.assertEqual(3, len(parts))
        blocks = parts[1].get_payload()
        self.assertTrue(blocks[0]["Reporting-MTA"].startswith("dns;"))
        found = {}
        for block in blocks[1:]:
            self.assertEqual(action, block["Action"])
            self.assertRegex(block["Status"], status)
            found[block["Final-Recipient"].split(";", 1)[1].strip()] = block
        self.assertEqual(sorted(recipients), sorted(found))
        return parts, found

    @tag("tsan")
    def test_5xx_bounces(self):
        partner = self.partner()
        partner.on("rcpt", "550-5.1.1 no such user\r\n550 5.1.1 here", match="gone@")
        daemon = self.relay_to(partner)
        self.send(daemon, "gone@bank.test", options=["ENVID=QQ314159", "RET=HDRS"],
                  rcpt_options=["ORCPT=rfc822;first@us.test"], content=message(subject="the original"))  # fmt: skip
        got = self.report(partner)
        self.assertEqual(["sender@us.test"], got.addresses)
        parts, found = self.check_form(got, ["gone@bank.test"], "failed", r"^5\.1\.1")
        block = found["gone@bank.test"]
        self.assertIn("550", block["Diagnostic-Code"])
        self.assertIn("no such user", block["Diagnostic-Code"])
        self.assertIn("first@us.test", block["Original-Recipient"])
        self.assertIn("QQ314159", str(parts[1].get_payload()[0]["Original-Envelope-Id"]))
        self.assertEqual("text/rfc822-headers", parts[2].get_content_type())
        self.assertIn("the original", parts[2].get_content())
        self.assertIn("gone@bank.test", parts[0].get_content())
        daemon.wait_empty()

    def test_one_report_for_all_that_failed(self):
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone")
        daemon = self.relay_to(partner)
        gone = [f"gone{i}@bank.test" for i in range(3)]
        self.send(daemon, [*gone, "ok@bank.test"])
        self.check_form(self.report(partner), gone, "failed", r"^5\.1\.1")
        daemon.wait_empty()
        self.assertEqual(1, sum(1 for m in partner.messages if m.sender == ""))

    def test_hostile_reply_text(self):
        partner = self.partner()
        evil = b"550-5.7.1 \xff\xfe --=_report.1--\t\x1b[2J\r\n550 5.7.1 " + b"A" * 450 + b"\r\n"
        partner.on("rcpt", evil, match="gone@")
        daemon = self.relay_to(partner)
        self.send(daemon, "gone@bank.test")
        self.check_form(self.report(partner), ["gone@bank.test"], "failed", r"^5\.")

    def test_null_sender_gets_none(self):
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@")
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon, "gone@bank.test", sender="")
        partner.wait_command("rcpt", match="gone@")
        self.send(daemon, "marker@bank.test", sender="someone@us.test")
        partner.wait_until(lambda: "marker@bank.test" in partner.addresses(), "the marker")
        rest = daemon.until(
            lambda rows: not [r for r in rows if r.get("state") not in ("held",)], "list"
        )
        # A double bounce goes to the postmaster or is held; it never makes a report to nobody.
        self.assertFalse([m for m in partner.messages if "" in m.addresses])
        ended = [e["evt"] for e in daemon.events() if e.get("msg") == queue_id]
        self.assertTrue(rest or "bounced" in ended or
                        "postmaster@us.test" in partner.addresses(), ended)  # fmt: skip

    def test_notify(self):
        partner = self.partner(extensions=("PIPELINING", "SIZE 50000000"))  # no DSN: we report
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@")
        daemon = self.relay_to(partner)
        self.send(daemon, "gone@bank.test", rcpt_options=["NOTIFY=NEVER"], sender="never@us.test")
        self.send(daemon, "ok@bank.test", rcpt_options=["NOTIFY=SUCCESS"], sender="asked@us.test")
        self.send(daemon, "gone@bank.test", rcpt_options=["NOTIFY=SUCCESS"], sender="onlyok@us.test")
        partner.wait_until(lambda: "asked@us.test" in partner.addresses(), "the relayed report")
        daemon.wait_empty()
        got = next(m for m in partner.messages if m.addresses == ["asked@us.test"])
        self.check_form(got, ["ok@bank.test"], "relayed", r"^2\.")
        self.assertNotIn("never@us.test", partner.addresses())
        self.assertNotIn("onlyok@us.test", partner.addresses())

    def test_warning_and_expiry_but_not_for_our_own_fault(self):
        """One partner that says "later" until the mail is too old, beside a connector whose source
        address this machine does not have: that is our mistake, its mail waits as long as it takes."""
        partner, other = self.partner(), self.partner()
        partner.on("rcpt", "451 4.2.0 later", match="slow@")
        daemon = self.daemon(
            smarthost("out", partner, "retry short")
            + "\n" + smarthost("ours", other, "source 192.0.2.200\n    retry short", "ours.test")
            + """
retry short {
    intervals 1s 5s
    destination-intervals 1s 5s
    glitch none
    jitter 0%
    warn-after 3s
    expire 1m
}"""
        )  # fmt: skip
        parked = self.send(daemon, "you@ours.test")
        daemon.until(lambda rows: re.search("park", str(rows)), "queue", what="a parked destination")
        self.send(daemon, "slow@bank.test", content=message(size=120_000))
        partner.wait_until(lambda: sum(m.sender == "" for m in partner.messages) >= 2,
                           "a warning and a failure", 120)  # fmt: skip
        warning, failure = [m for m in partner.messages if m.sender == ""]
        self.check_form(warning, ["slow@bank.test"], "delayed", r"^4\.")
        parts, found = self.check_form(failure, ["slow@bank.test"], "failed", r"^[45]\.")
        self.assertEqual("text/rfc822-headers", parts[2].get_content_type())  # over 50 KB
        self.assertIn("later", str(found["slow@bank.test"]["Diagnostic-Code"]))
        daemon.until(lambda rows: [row["id"] for row in rows] == [parked], "list")
        self.assertEqual(0, other.connections)

    def test_the_report_itself_is_undeliverable(self):
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@|sender@")
        daemon = self.relay_to(partner)
        self.send(daemon, "gone@bank.test")
        partner.wait_until(
            lambda: "postmaster@us.test" in partner.addresses(), "the double bounce at the postmaster"
        )
        daemon.wait_empty()

    def test_what_a_connector_says_of_reports(self):
        """One that sends neither warnings nor news of success, and returns headers alone; beside one that does."""
        partner = self.partner(extensions=("PIPELINING", "SIZE 50000000"))  # no DSN: we report
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@")
        for domain in ("quiet.test", "bank.test"):
            partner.on("rcpt", "451 4.2.0 later", match=f"slow@{domain}", times=4)
        daemon = self.relay_to(
            partner, "retry short",
            extra=smarthost("quiet", partner, "retry short; dsn { content-max none; delay no; success no }", "quiet.test")
            + "\nretry short { intervals 1s; destination-intervals 1s; glitch none; jitter 0%; warn-after 1s }",
        )  # fmt: skip
        for domain in ("quiet.test", "bank.test"):
            self.send(daemon, f"ok@{domain}", rcpt_options=["NOTIFY=SUCCESS"], sender=f"asked@{domain}")
            self.send(daemon, f"gone@{domain}", sender=f"failed@{domain}", content=message(body="not a secret\r\n"))
            self.send(daemon, f"slow@{domain}", sender=f"late@{domain}")
            daemon.until(lambda rows, to=f"slow@{domain}": not rows and to in partner.addresses(), "list")
        reports = {m.addresses[0]: m.content for m in partner.messages if m.sender == ""}
        self.assertEqual({"failed@quiet.test", "asked@bank.test", "failed@bank.test", "late@bank.test"}, set(reports))
        self.assertNotIn(b"not a secret", reports["failed@quiet.test"])
        self.assertIn(b"not a secret", reports["failed@bank.test"])

    def test_a_double_bounce_without_a_postmaster_is_held(self):
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@|sender@")
        daemon = self.daemon(smarthost("out", partner), start=False)
        daemon.blocks["engine"] = daemon.blocks["engine"].replace("postmaster postmaster@us.test", "")
        daemon.start()
        self.send(daemon, "gone@bank.test")
        (row,) = daemon.wait_listed(1, "--state", "held")
        self.assertIn("no postmaster is configured", str(daemon.ctl("why", row["id"])))
        self.assertEqual(1, partner.count("rcpt", "sender@us.test"))
        self.assertEqual([], partner.messages)

    def test_dead_letter_hold(self):
        """Kept for somebody to look at, though there is a postmaster; released, it goes to him."""
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@|sender@")
        daemon = self.daemon(smarthost("out", partner), start=False)
        daemon.blocks["engine"] = daemon.blocks["engine"].replace("workers 2", "workers 2\n    dead-letter hold")
        daemon.start()
        self.send(daemon, "gone@bank.test")
        (row,) = daemon.wait_listed(1, "--state", "held")
        self.assertIn("dead-letter hold", str(daemon.ctl("why", row["id"])))
        self.assertIn("1 message is held: bhctl list --state held", daemon.ctl_run("status", options=()).stdout)
        self.assertNotIn("postmaster@us.test", partner.addresses())
        daemon.ctl("release", "--id", row["id"])
        partner.wait_until(lambda: "postmaster@us.test" in partner.addresses(), "the double bounce")
        daemon.wait_empty()
