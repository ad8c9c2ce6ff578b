"""DANE (RFC 7672): a signed tree of zones, a validating resolver, partners with certificates."""
from harness import Case, tag
from support.certs import Authority
from support.dnssec import Dnssec, tlsa
from support.partner import EXTENSIONS
from support.senders import have, message
from test_intake_auth import TlsClient

HOST = "127.0.0.2"
OTHER = "127.0.0.3"
WRONG = "3 1 1 " + "ab" * 32


class Signed(Case):
    """Partners on 127.0.0.2 and 127.0.0.3; mail goes by MX, on the port of the first."""

    def setUp(self):
        super().setUp()
        if not (have("knotd") and have("unbound")):
            self.skipTest("knotd and unbound are not installed")
        self.ca = Authority(self.path("ca"))
        self.certificate = self.ca.issue("mx1.dane.test")
        self.partners = []

    def server(self, tls=True, host=HOST):
        port = self.partners[0].port if self.partners else 0
        partner = self.partner(host=host, port=port,
                               certificate=self.certificate if tls else None)  # fmt: skip
        self.partners.append(partner)
        return partner

    def zones(self, **records):
        """Zone texts; "PORT" in them is the partners' port. Keys: dane, plain, broken, bogus."""
        names = {"dane": "dane.test", "plain": "plain.test", "bogus": "bogus.test",
                 "broken": "_tcp.broken.dane.test"}  # fmt: skip
        port = str(self.partners[0].port)
        world = Dnssec(self.path("dns"), {
            names[key]: text.replace("PORT", port) for key, text in records.items()
        })  # fmt: skip
        world.start()
        self.addCleanup(world.stop)
        return world

    def relay(self, world, tls, self_test="dane.test", trusted="yes", more="", start=True):
        daemon = self.daemon(
            f"connector out {{ domains *; port {self.partners[0].port}; tls {tls}; {more} }}",
            start=False,
        )  # fmt: skip
        daemon.blocks["resolver"] = f"""resolver {{
    servers {world.text}
    timeout 1s
    min-ttl 1s
    allow-loopback yes
    trusted {trusted}
    self-test {self_test}
}}"""
        return daemon.start() if start else daemon

    def usual(self, *records, kind="TLSA"):
        """The zone of one MX with these TLSA records."""
        lines = ["@ 1 MX 10 mx1", f"mx1 1 A {HOST}"]
        return "\n".join(lines + [f"_PORT._tcp.mx1 1 {kind} {r}" for r in records])

    def attempt(self, daemon):
        return daemon.events_of("attempt")[-1]

    def delivered(self, partner, daemon, tls=r"^TLSv1\.", wanted="dane"):
        (got,) = partner.wait_messages(1)
        self.assertRegex(got.tls, tls)
        daemon.wait_empty()
        self.assertTrue(self.attempt(daemon)["tls"].startswith(wanted + ":"), self.attempt(daemon))

    def nothing_left(self, *partners):
        for partner in partners:
            self.assertEqual(0, partner.count("mail"))


class Dane(Signed):
    # -- records that count

    @tag("tsan")
    def test_match(self):
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "dane-only")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)

    def test_shown(self):
        """`bhctl policy show`: the records that count, under which name, how old."""
        partner = self.server()
        record = tlsa(self.certificate[0])
        world = self.zones(dane=self.usual(record, "0 1 1 " + "cd" * 32))
        daemon = self.relay(world, "dane")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)
        (host,) = [row for row in daemon.ctl("policy", "show", "dane.test") if row["kind"] == "dane"]
        self.assertEqual(("mx1.dane.test", "usable", "mx1.dane.test", "dns"),
                         tuple(host[key] for key in ("host", "dane", "base", "origin")))  # fmt: skip
        self.assertEqual([record.lower()], host["records"])
        self.assertGreater(host["until_unix_ms"], host["looked_unix_ms"])
        text = daemon.ctl_run("policy", "show", "dane.test", options=()).stdout
        self.assertIn(record.lower(), text)
        self.assertRegex(text, r"looked up +\d+ m?s ago")

    def test_auto_obeys_records(self):
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0], 3, 0, 2)))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)

    def test_trust_anchor(self):
        """Usage 2 with a whole certificate: the name counts, too."""
        self.certificate = self.ca.issue("mx1.dane.test")
        with open(self.certificate[0], "a", encoding="ascii") as chain:
            chain.write(open(self.ca.pem, encoding="ascii").read())
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.ca.pem, 2, 0, 0), "0 1 1 " + "cd" * 32))
        daemon = self.relay(world, "dane")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)

    def test_trust_anchor_with_another_name(self):
        self.certificate = self.ca.issue("other.test")
        with open(self.certificate[0], "a", encoding="ascii") as chain:
            chain.write(open(self.ca.pem, encoding="ascii").read())
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.ca.pem, 2, 1, 1)))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        partner.wait_command("starttls", 2)
        self.nothing_left(partner)
        self.assertEqual(1, len(daemon.list()))

    def test_mismatch_then_rollover(self):
        """Nothing leaves while no record matches; the new record is seen when the old one ends."""
        partner = self.server()
        world = self.zones(dane=self.usual(WRONG))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        partner.wait_command("starttls", 2)
        self.nothing_left(partner)
        self.assertEqual(1, len(daemon.list()))
        world.set("dane.test", f"_{partner.port}._tcp.mx1", "TLSA", WRONG, tlsa(self.certificate[0]))
        self.delivered(partner, daemon)

    def test_records_that_change_end_old_sessions(self):
        """A session that proved the old records serves nothing once they are replaced."""
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "auto", more="limits { idle 60s }")
        self.send(daemon, "you@dane.test")
        partner.wait_messages(1)
        world.set("dane.test", f"_{partner.port}._tcp.mx1", "TLSA", WRONG)
        # Mail still goes by the open session until the old records have ended, and not after.
        for i in range(100):
            self.send(daemon, f"x{i}@dane.test")
            daemon.until(lambda rows: not rows or partner.connections > 1, "list")
            if partner.connections > 1:
                break
        self.assertGreater(partner.connections, 1)
        self.assertLess(i, 99)
        held = len(daemon.list())
        self.assertGreater(held, 0)
        partner.wait_command("starttls", 3)
        self.assertEqual(held, len(daemon.list()))

    def test_no_starttls_is_not_enough(self):
        partner = self.server(tls=False)
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        partner.wait_command("ehlo", 2)
        self.nothing_left(partner)
        self.assertEqual(1, len(daemon.list()))

    # -- records that do not

    def test_unusable_records_still_demand_encryption(self):
        partner = self.server()
        world = self.zones(dane=self.usual("1 1 1 " + "ab" * 32))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, wanted="encrypt")

    def test_unusable_records_in_clear(self):
        partner = self.server(tls=False)
        world = self.zones(dane=self.usual("3 1 1 abcd"))
        daemon = self.relay(world, "dane")
        self.send(daemon, "you@dane.test")
        partner.wait_command("ehlo", 2)
        self.nothing_left(partner)

    def test_no_records_fall_back(self):
        partner = self.server(tls=False)
        world = self.zones(dane=self.usual())
        daemon = self.relay(world, "dane")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, tls="^$", wanted="opportunistic")

    def test_no_records_in_auto(self):
        partner = self.server()
        world = self.zones(dane=self.usual())
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, wanted="opportunistic")

    def test_no_records_are_not_enough_for_dane_only(self):
        partner = self.server()
        world = self.zones(dane=self.usual())
        daemon = self.relay(world, "dane-only")
        self.send(daemon, "you@dane.test")
        daemon.wait_line("evt=backoff .*it has no TLSA records")
        self.assertEqual(0, partner.connections)

    def test_an_unsigned_domain(self):
        """Its TLSA records are not even asked for."""
        partner = self.server()
        world = self.zones(plain=self.usual(WRONG))
        daemon = self.relay(world, "dane")
        self.send(daemon, "you@plain.test")
        self.delivered(partner, daemon, wanted="opportunistic")

    def test_an_unsigned_domain_with_dane_only(self):
        partner = self.server()
        world = self.zones(plain=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "dane-only")
        self.send(daemon, "you@plain.test")
        daemon.wait_line("evt=backoff .*not signed")
        self.assertEqual(0, partner.connections)

    def test_an_unsigned_host_of_a_signed_domain(self):
        partner = self.server()
        world = self.zones(dane="@ 1 MX 10 mx1.plain.test.", plain=self.usual(WRONG))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, wanted="opportunistic")

    def test_a_signed_host_of_an_unsigned_domain(self):
        """The MX could be anybody's word: DANE does not apply (RFC 7672 section 2.2.1)."""
        partner = self.server()
        world = self.zones(plain="@ 1 MX 10 mx1.dane.test.", dane=self.usual(WRONG))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@plain.test")
        self.delivered(partner, daemon, wanted="opportunistic")

    # -- lookups that fail

    def test_bogus_records_defer(self):
        partner = self.server()
        world = self.zones(dane=f"@ 1 MX 10 broken\nbroken 1 A {HOST}", broken=f"_PORT 1 TLSA {WRONG}")
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        daemon.wait_line("evt=backoff .*happened=dns_bogus")
        self.assertEqual(0, partner.connections)
        self.assertEqual(1, len(daemon.list()))

    def test_a_host_with_bogus_records_is_left_out(self):
        first, second = self.server(), self.server(host=OTHER)
        world = self.zones(
            dane=f"@ 1 MX 10 broken\n@ 1 MX 20 mx2\nbroken 1 A {HOST}\nmx2 1 A {OTHER}\n"
            f"_PORT._tcp.mx2 1 TLSA {tlsa(self.certificate[0])}",
            broken=f"_PORT 1 TLSA {WRONG}",
        )
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(second, daemon)
        self.assertEqual(0, first.connections)
        daemon.wait_line("evt=tls_host_left_out .*broken.dane.test")

    def test_servfail_is_told_from_a_dead_resolver(self):
        """The one is the domain's fault and defers, the other is ours and parks; none weakens."""
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0]))
                           + f"\nx 1 MX 10 dead\ndead 1 A {HOST}")  # fmt: skip
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)
        self.send(daemon, "you@x.dane.test")
        daemon.wait_line("evt=backoff domain=x.dane.test .*happened=dns_failed")
        self.assertEqual([], [line for line in daemon.lines if "evt=parked" in line])
        world.kill_resolver()
        daemon.wait_line("evt=parked .*x.dane.test .*happened=dns_timeout")
        self.send(daemon, "late@dane.test")
        daemon.wait_line("evt=parked .*domain=dane.test .*happened=dns_timeout")
        daemon.wait_listed(2)
        self.assertEqual(1, partner.count("mail"))

    def test_a_bogus_domain_defers(self):
        self.server()
        world = self.zones(bogus=self.usual())
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@bogus.test")
        daemon.wait_line("evt=backoff .*happened=dns_bogus")

    # -- names

    def test_alias_with_records_at_its_end(self):
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0]))
                           + f"\n@ 1 MX 5 alias\nalias 1 CNAME mx1\n_PORT._tcp.alias 1 TLSA {WRONG}")  # fmt: skip
        daemon = self.relay(world, "dane-only")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)

    def test_alias_with_records_of_its_own(self):
        partner = self.server()
        world = self.zones(dane=f"@ 1 MX 10 alias\nalias 1 CNAME mx1\nmx1 1 A {HOST}\n"
                                f"_PORT._tcp.alias 1 TLSA {tlsa(self.certificate[0])}")  # fmt: skip
        daemon = self.relay(world, "dane-only")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)

    def test_smarthost(self):
        """A smarthost's name is configured, which is as good as a signed MX."""
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "dane-only",
                            more=f"smarthosts [ [mx1.dane.test]:{partner.port} ]")  # fmt: skip
        self.send(daemon, "you@elsewhere.test")
        self.delivered(partner, daemon)

    def test_domains_share_a_connection_where_demands_are_equal(self):
        partner = self.server()
        world = self.zones(
            dane=self.usual(tlsa(self.certificate[0]))
            + "\n" + "\n".join(f"d{i} 1 MX 10 mx1" for i in range(10)),
        )  # fmt: skip
        daemon = self.relay(world, "dane", more="limits { connections 1 }")
        for i in range(10):
            self.send(daemon, f"you@d{i}.dane.test")
        partner.wait_messages(10)
        daemon.wait_empty()
        self.assertLess(partner.connections, 5)

    def test_the_proof_of_one_route_is_not_anothers(self):
        """Two domains with the same host and the same demand, one by a signed MX record: what
        REQUIRETLS asks for (RFC 8689 section 4.2.1) is had by that one alone."""
        partner = self.partner(host=HOST, certificate=self.certificate,
                               extensions=[*EXTENSIONS, "REQUIRETLS"])  # fmt: skip
        self.partners.append(partner)
        world = self.zones(dane=self.usual(), plain="@ 1 MX 10 mx1.dane.test.")
        verify = f"verify {{ ca-file {self.ca.pem}; names mx1.dane.test }}"
        daemon = self.relay(world, verify, more="limits { idle 60s }", start=False)
        own, key = self.ca.issue("relay.us.test")
        daemon.blocks["listen"] = f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {own}; key {key} }}
}}"""
        daemon.start()

        def give(recipient):
            with TlsClient(daemon.address) as client:
                client.say("EHLO client.test")
                (reply,) = client.envelope("me@us.test", recipient, parameters=" REQUIRETLS")
                self.assertEqual(250, reply.code)
                self.assertEqual(250, client.data(message()).code)

        self.send(daemon, "first@plain.test")
        partner.wait_messages(1)
        give("second@dane.test")
        partner.wait_messages(2)
        give("third@plain.test")
        daemon.wait_until(lambda: any(e.get("result") == "bounced" and "third@plain.test" in str(e)
                                      for e in daemon.events()), "the bounce of the third")  # fmt: skip
        give("fourth@dane.test")
        partner.wait_messages(3)
        self.assertFalse([c for c in partner.commands if "third@" in str(c)])

    # -- what operators see

    def test_explain_says_what_decided(self):
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])))
        daemon = self.relay(world, "auto")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon)
        (row,) = [r for r in daemon.ctl("explain", "any@dane.test") if "host" in r]
        self.assertEqual(("mx1.dane.test", "dane", "dane", "usable"),
                         (row["host"], row["tls"], row["tls_from"], row["dane"]))  # fmt: skip
        self.assertIn("mx1.dane.test", daemon.ctl_run("explain", "x@dane.test", options=()).stdout)

    def test_a_mode_weaker_than_what_is_published_is_told(self):
        partner = self.server()
        world = self.zones(dane=self.usual(WRONG))
        daemon = self.relay(world, "opportunistic")
        daemon.wait_line("evt=resolver_trusted")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, wanted="opportunistic")
        daemon.wait_line("evt=tls_weaker_than_published .*mx1.dane.test tls=opportunistic")
        (row,) = [r for r in daemon.ctl("explain", "any@dane.test") if "host" in r]
        self.assertIn("TLSA", row["weaker_than_published"])

    def test_bounce_where_dane_only_is_not_met(self):
        home = self.partner()
        partner = self.server()
        world = self.zones(dane=self.usual())
        daemon = self.relay(world, "dane-only { if-unmet bounce }", start=False)
        daemon.blocks["connectors"] += f"\nconnector home {{ domains us.test; smarthosts [ {home.text} ]; tls off }}"
        daemon.start()
        self.send(daemon, "you@dane.test", sender="me@us.test")
        (report,) = home.wait_messages(1)
        self.assertIn(b"5.7.", report.content)
        self.assertIn(b"TLSA", report.content)
        daemon.wait_empty()
        self.assertEqual(0, partner.connections)

    # -- trust

    def test_dane_needs_a_trusted_resolver(self):
        self.server()
        world = self.zones(dane=self.usual())
        daemon = self.relay(world, "dane", trusted="no", start=False)
        daemon.launch()
        daemon.wait_end()
        daemon.wait_line("trusted")
        daemon.process = None

    def test_auto_without_a_trusted_resolver(self):
        partner = self.server()
        world = self.zones(dane=self.usual(WRONG))
        daemon = self.relay(world, "auto", trusted="no")
        daemon.wait_line("evt=dane_off")
        self.send(daemon, "you@dane.test")
        self.delivered(partner, daemon, wanted="opportunistic")

    def test_a_failed_self_test_holds(self):
        partner = self.server()
        world = self.zones(dane=self.usual(tlsa(self.certificate[0])), plain=self.usual())
        daemon = self.relay(world, "auto", self_test="dane.test later.dane.test")
        daemon.wait_line("evt=resolver_untrusted .*later.dane.test")
        self.send(daemon, "you@dane.test")
        daemon.wait_line("evt=parked .*self-test")
        self.assertIn("later.dane.test", daemon.ctl("status").end["dnssec"])
        self.assertEqual(0, partner.connections)
        world.set("dane.test", "later", "A", "127.0.0.9")
        daemon.wait_line("evt=resolver_trusted")
        self.delivered(partner, daemon)


class Untrusted(Case):
    """A resolver that does not validate, and then does: here a name server that may say AD."""

    def test_what_it_said_before_it_passed_counts_for_nothing(self):
        partner = self.partner(certificate=self.authority().issue("mx1.dane.test"))
        names = self.dns()
        names.add("", "NS", "ns.test")  # What the self-test asks for where none is configured.
        names.host_at("dane.test", "127.0.0.1")
        names.add(f"_{partner.port}._tcp.mx1.dane.test", "TLSA", (3, 1, 1, "ab" * 32))
        daemon = self.daemon(
            f"connector out {{ domains *; port {partner.port}; tls auto }}",
            resolver=names.text + "\n    trusted yes",
        )
        daemon.wait_line("evt=resolver_untrusted .*the root: its answer came without the AD bit")
        self.send(daemon, "you@dane.test")
        daemon.wait_line("evt=parked .*self-test")
        with names.changed:
            names.authentic = True
        daemon.wait_line("evt=resolver_trusted")
        partner.wait_command("starttls")
        daemon.until(lambda rows: "TLSA" in str(rows), "queue", what="a host that fails its records")
        self.assertEqual(0, partner.count("mail"))
