"""REQUIRETLS by MX: whose word proves the way to a host (RFC 8689 section 4.2.1)."""
from support.certs import Authority
from support.partner import EXTENSIONS
from support.senders import message
from test_dane import HOST, Signed
from test_intake_auth import TlsClient
from test_sts import Sts, policy

NAME = "mx1.dane.test"
OFFERS = [*EXTENSIONS, "REQUIRETLS"]


class Route(Signed):
    """A fixed demand, `verify`, so that only the route differs from domain to domain."""

    def setUp(self):
        super().setUp()
        own, key = Authority(self.path("own")).issue("relay.us.test")
        self.listen = f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {own}; key {key} }}
}}"""

    def host(self):
        partner = self.partner(host=HOST, certificate=self.certificate, extensions=OFFERS)
        self.partners.append(partner)
        return partner

    def start(self, world, self_test="dane.test"):
        tls = f"verify {{ ca-file {self.ca.pem}; names {NAME} }}"
        daemon = self.relay(world, tls, self_test=self_test, start=False)
        daemon.blocks["listen"] = self.listen
        return daemon.start()

    def give(self, daemon, recipient):
        with TlsClient(daemon.address) as client:
            (reply,) = client.envelope("me@dane.test", recipient, parameters=" REQUIRETLS")
            self.assertEqual(250, reply.code)
            self.assertEqual(250, client.data(message()).code)

    def bounced(self, daemon):
        return [e["rcpt"] for e in daemon.events()
                if e.get("evt") == "attempt" and e["result"] == "bounced"]  # fmt: skip

    def test_a_signed_way_proves_nothing_for_an_unsigned_one(self):
        """Both domains name the same host, and their demand is the same."""
        partner = self.host()
        world = self.zones(dane=self.usual(), plain="@ 1 MX 10 mx1.dane.test.")
        daemon = self.start(world)
        daemon.wait_line("evt=resolver_trusted")
        self.give(daemon, "you@dane.test")
        partner.wait_messages(1)
        self.give(daemon, "you@plain.test")
        daemon.wait_until(lambda: self.bounced(daemon), "an end")
        self.assertEqual(["you@plain.test"], self.bounced(daemon))
        self.assertEqual(0, partner.count("rcpt", "plain.test"))

    def test_an_untested_resolver_is_our_fault(self):
        """It waits, and goes when the resolver has shown what it can."""
        partner = self.host()
        world = self.zones(dane=self.usual())
        daemon = self.start(world, self_test="dane.test later.dane.test")
        daemon.wait_line("evt=resolver_untrusted")
        self.give(daemon, "you@dane.test")
        daemon.wait_until(lambda: any("self-test" in e.get("text", "") for e in daemon.events()),
                          "a reason")  # fmt: skip
        self.assertEqual(0, partner.count("mail"))
        self.assertEqual([], self.bounced(daemon))
        world.set("dane.test", "later", "A", "127.0.0.9")
        daemon.wait_line("evt=resolver_trusted")
        daemon.ctl("flush", "--all")
        partner.wait_messages(1)
        daemon.wait_empty()


class ByPolicy(Sts):
    """`verify` by MX, where no DNS is signed: an enforced policy vouches for the host's name."""

    def setUp(self):
        super().setUp()
        self.bank.extensions = OFFERS

    def start_fixed(self, tls="verify"):
        own, key = self.ca.issue("relay.us.test")
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; "
            f"tls {tls} {{ ca-file {self.ca.pem}; names mx1.bank.test }} }}", start=False)  # fmt: skip
        self.settings(daemon)
        daemon.blocks["listen"] = f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {own}; key {key} }}
}}"""
        return daemon.start()

    def give(self, daemon, parameters=" REQUIRETLS"):
        with TlsClient(daemon.address) as client:
            (reply,) = client.envelope("me@us.test", "you@bank.test", parameters=parameters)
            self.assertEqual(250, reply.code)
            self.assertEqual(250, client.data(message()).code)

    def happened(self, daemon):
        return [e["happened"] for e in daemon.events_where(lambda e: e.get("result") == "bounced")]

    def test_an_enforced_policy_proves_the_route(self):
        daemon = self.start_fixed()
        self.give(daemon)
        (got,) = self.bank.wait_messages(1)
        self.assertIn("REQUIRETLS", got.sender_parameters)
        daemon.wait_empty()

    def test_nothing_is_looked_for_without_need(self):
        """An explicit mode does what it says, and waits for no policy."""
        daemon = self.start_fixed()
        self.give(daemon, "")
        self.bank.wait_messages(1)
        self.assertEqual([], self.web.requests)
        self.give(daemon)
        self.bank.wait_messages(2)
        self.assertEqual(1, len(self.web.requests))

    def test_a_policy_that_tests_proves_nothing(self):
        self.publish("2", policy(mode="testing"))
        daemon = self.start_fixed()
        self.give(daemon)
        self.assertEqual(["needs_requiretls"], self.happened(daemon)[:1])
        self.assertEqual(0, self.bank.count("mail"))

    def test_nor_does_one_that_lists_another_host(self):
        self.publish("2", policy(mx=["other.test"]))
        daemon = self.start_fixed()
        self.give(daemon, "")
        self.bank.wait_messages(1)  # which the mode does not ask about
        self.give(daemon)
        self.assertEqual(["needs_requiretls"], self.happened(daemon)[:1])
        self.assertEqual(1, self.bank.count("mail"))
