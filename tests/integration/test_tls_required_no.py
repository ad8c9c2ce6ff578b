"""`TLS-Required: No` (RFC 8689 section 5): the sender would rather have the message arrive; what the
domain publishes does not keep it waiting. A connector's own demand does."""
from support.partner import EXTENSIONS
from support.senders import message
from test_dane import WRONG, Signed
from test_intake_auth import TlsClient
from test_sts import Sts

WISH = {"TLS_Required": "No"}


class OverSts(Sts):
    """bank.test enforces a policy that its host, with another's certificate, does not meet."""

    def setUp(self):
        super().setUp()
        self.wrong_partner()

    def give(self, daemon, recipient, **headers):
        self.send(daemon, recipient, content=message(**headers))

    def attempts(self, daemon, recipient, count=1):
        return daemon.events_where(
            lambda e: e.get("evt") == "attempt" and e["rcpt"] == recipient, count)  # fmt: skip

    def test_goes_where_other_mail_waits(self):
        daemon = self.start()
        self.give(daemon, "waits@bank.test")
        self.give(daemon, "goes@bank.test", **WISH)
        (got,) = self.bank.wait_messages(1)
        self.assertEqual(["goes@bank.test"], got.addresses)
        self.assertRegex(got.tls, "TLS")  # as good as it gets: where offered
        (event,) = self.attempts(daemon, "goes@bank.test")
        self.assertRegex(event["tls"], "^opportunistic:")
        self.assertEqual(
            "tls-required-no: the sender's TLS-Required: No lifts the domain's MTA-STS policy",
            event["tls_from"])  # fmt: skip
        self.assertEqual("delivered", event["result"])
        # The next round looks for such mail again; it is the only one that ever goes.
        daemon.wait_line("evt=backoff .*stage=1")
        self.assertEqual(["goes@bank.test"], self.bank.addresses())
        self.assertEqual(1, len(daemon.list()))

    def test_given_while_the_domain_waits(self):
        """It needs no round of its own to fail first."""
        daemon = self.start()
        daemon.blocks["retry"] = daemon.blocks["retry"].replace("1s 1s 2s", "1h").replace("1x1s", "1x1h")
        daemon.write_config()
        daemon.ctl("reload")
        self.give(daemon, "waits@bank.test")
        daemon.wait_line("evt=backoff")
        self.give(daemon, "goes@bank.test", **WISH)
        self.bank.wait_messages(1)
        self.assertEqual(["goes@bank.test"], self.bank.addresses())

    def test_a_host_that_is_not_listed(self):
        """Not even connected to for other mail."""
        self.publish("2", "version: STSv1\r\nmode: enforce\r\nmx: other.test\r\nmax_age: 86400\r\n")
        daemon = self.start()
        self.give(daemon, "waits@bank.test")
        self.give(daemon, "goes@bank.test", **WISH)
        self.bank.wait_messages(1)
        self.assertEqual(["goes@bank.test"], self.bank.addresses())

    def test_not_returned_under_if_unmet_bounce(self):
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; "
            f"tls auto {{ ca-file {self.ca.pem}; if-unmet bounce }} }}", start=False)  # fmt: skip
        self.settings(daemon)
        daemon.start()
        self.give(daemon, "ends@bank.test")
        self.give(daemon, "goes@bank.test", **WISH)
        self.bank.wait_messages(1)
        self.assertEqual(["goes@bank.test"], self.bank.addresses())
        self.assertEqual("bounced", self.attempts(daemon, "ends@bank.test")[-1]["result"])
        daemon.events_where(
            lambda e: e.get("result") == "delivered" and e["rcpt"] == "goes@bank.test")  # fmt: skip

    def test_deferred_by_the_partner_it_comes_again(self):
        self.bank.on("rcpt", "451 4.7.1 greylisted", match="goes", times=1)
        daemon = self.start()
        self.give(daemon, "goes@bank.test", **WISH)
        self.bank.wait_messages(1)
        self.assertEqual(["deferred", "delivered"],
                         [e["result"] for e in self.attempts(daemon, "goes@bank.test", 2)])  # fmt: skip
        daemon.wait_empty()

    def test_held_it_stays(self):
        daemon = self.start()
        self.give(daemon, "waits@bank.test")
        daemon.wait_line("evt=backoff")
        daemon.ctl("hold", "--destination", "bank.test")
        self.give(daemon, "goes@bank.test", **WISH)
        daemon.wait_listed(2)
        self.assertEqual([], self.bank.messages)
        daemon.ctl("release", "--destination", "bank.test")
        self.bank.wait_messages(1)
        self.assertEqual(["goes@bank.test"], self.bank.addresses())

    def test_explained(self):
        daemon = self.start()
        self.give(daemon, "waits@bank.test")
        daemon.wait_line("evt=backoff")
        hosts = [row for row in daemon.ctl("explain", "you@bank.test") if "host" in row]
        self.assertEqual("opportunistic, once this can't be met", hosts[0]["tls_required_no"])
        text = daemon.ctl_run("explain", "you@bank.test", options=()).stdout
        self.assertIn("TLS-Required: No", text)


class OverAFloor(Sts):
    """What the operator demands is not the sender's to lift."""

    def test_verify(self):
        self.wrong_partner()
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; tls verify {{ ca-file {self.ca.pem} }} }}",
            start=False)  # fmt: skip
        self.settings(daemon)
        daemon.start()
        self.send(daemon, "you@bank.test", content=message(**WISH))
        self.bank.wait_command("starttls", 2)
        self.assertEqual(0, self.bank.count("mail"))
        (row,) = daemon.list()
        shown = daemon.ctl_run("show", row["id"], options=()).stdout
        self.assertIn("TLS-Required: No", shown)

    def test_the_least_version_stays(self):
        """Lifted, the session still has what the connector sets as least."""
        self.wrong_partner()
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; "
            f"tls auto {{ ca-file {self.ca.pem}; min-version TLSv1.3 }} }}", start=False)  # fmt: skip
        self.settings(daemon)
        daemon.start()
        self.send(daemon, "you@bank.test", content=message(**WISH))
        (got,) = self.bank.wait_messages(1)
        self.assertEqual("TLSv1.3", got.tls)


class WithRequireTls(Sts):
    def test_requiretls_wins(self):
        """A message with both is held to REQUIRETLS (RFC 8689 section 3)."""
        self.wrong_partner()
        self.bank.extensions = [*EXTENSIONS, "REQUIRETLS"]
        own, key = self.ca.issue("relay.us.test")
        daemon = self.start(listen=f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {own}; key {key} }}
}}""")
        with TlsClient(daemon.address) as client:
            (reply,) = client.envelope("me@us.test", "you@bank.test", parameters=" REQUIRETLS")
            self.assertEqual(250, reply.code)
            self.assertEqual(250, client.data(message(**WISH)).code)
        self.bank.wait_command("starttls", 3)
        self.assertEqual(0, self.bank.count("mail"))


class OverDane(Signed):
    def test_records_that_do_not_match(self):
        partner = self.server()
        world = self.zones(dane=self.usual(WRONG))
        daemon = self.relay(world, "auto")
        self.send(daemon, "waits@dane.test")
        self.send(daemon, "goes@dane.test", content=message(**WISH))
        (got,) = partner.wait_messages(1)
        self.assertEqual(["goes@dane.test"], got.addresses)
        (event,) = daemon.events_where(lambda e: e.get("result") == "delivered")
        self.assertIn("lifts its TLSA records", event["tls_from"])

    def test_dane_asked_for_by_the_connector(self):
        """`dane` is the operator's word."""
        partner = self.server()
        world = self.zones(dane=self.usual(WRONG))
        daemon = self.relay(world, "dane")
        self.send(daemon, "goes@dane.test", content=message(**WISH))
        partner.wait_command("starttls", 2)
        self.nothing_left(partner)
