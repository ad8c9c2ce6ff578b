"""Where mail goes: MX and addresses from a name server, smarthosts, connectors, reload."""
import os

from harness import Case, smarthost, tag
from support.dns import SERVFAIL
from support.peers import Knot
from support.senders import have


class ByMx(Case):
    """Partners on 127.0.0.2, 127.0.0.3 ... all on one port, which the connector names."""

    def setUp(self):
        super().setUp()
        self.names = self.dns()

    def partners(self, *hosts):
        first = self.partner(host=hosts[0])
        return [first] + [self.partner(host=host, port=first.port) for host in hosts[1:]]

    def by_mx(self, port, more="", **options):
        options.setdefault("resolver", self.names.text)
        return self.daemon(f"connector out {{ domains *; port {port}; {more} }}", **options)

    @tag("tsan")
    def test_preference_order(self):
        first, second = self.partners("127.0.0.2", "127.0.0.3")
        self.names.host_at("bank.test", "127.0.0.2", "127.0.0.3")
        daemon = self.by_mx(first.port)
        self.send(daemon)
        first.wait_messages(1)
        first.down()
        self.send(daemon, "second@bank.test")
        second.wait_messages(1)
        daemon.wait_empty()

    def test_5xx_greeting_goes_on_to_the_next(self):
        first, second = self.partners("127.0.0.2", "127.0.0.3")
        first.on("connect", "554 5.3.2 no service")
        self.names.host_at("bank.test", "127.0.0.2", "127.0.0.3")
        daemon = self.by_mx(first.port)
        self.send(daemon)
        second.wait_messages(1)

    def test_equal_preference_is_shared(self):
        first, second = self.partners("127.0.0.2", "127.0.0.3")
        for i in range(40):
            domain = f"d{i}.test"
            self.names.add(domain, "MX", (10, f"a.{domain}"), (10, f"b.{domain}"))
            self.names.add(f"a.{domain}", "A", "127.0.0.2").add(f"b.{domain}", "A", "127.0.0.3")
        daemon = self.by_mx(first.port)
        for i in range(40):
            self.send(daemon, f"x@d{i}.test")
        first.wait_until(lambda: len(first.messages) + len(second.messages) == 40, "all 40", None)
        self.assertGreater(len(first.messages), 5)
        self.assertGreater(len(second.messages), 5)

    def test_implicit_mx_and_cname(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.add("plain.test", "A", "127.0.0.2")
        self.names.add("alias.test", "CNAME", "plain.test")
        daemon = self.by_mx(partner.port)
        self.send(daemon, "a@plain.test")
        self.send(daemon, "b@alias.test")
        partner.wait_messages(2)
        self.assertEqual(["a@plain.test", "b@alias.test"], partner.addresses())

    def bounced(self, domain, status):
        """Mail to `domain` bounces at once with this status; the report goes to home.test."""
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("home.test", "127.0.0.2")
        daemon = self.by_mx(partner.port)
        self.send(daemon, f"you@{domain}", sender="me@home.test")
        (report,) = partner.wait_messages(1)
        self.assertEqual(("", ["me@home.test"]), (report.sender, report.addresses))
        self.assertIn(b"Status: " + status, report.content)
        daemon.wait_empty()

    def test_null_mx(self):
        self.names.add("null.test", "MX", (0, "."))
        self.names.add("null.test", "A", "127.0.0.2")
        self.bounced("null.test", b"5.1.10")

    def test_nxdomain(self):
        self.bounced("no-such-domain.test", b"5.1.2")

    def test_servfail_defers(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("bank.test", "127.0.0.2")
        self.names.fail("bank.test", SERVFAIL)
        daemon = self.by_mx(partner.port)
        queue_id = self.send(daemon)
        self.names.wait_query("bank.test", "MX")
        self.assertEqual([queue_id], [row["id"] for row in daemon.wait_listed(1)])
        self.names.heal("bank.test")
        partner.wait_messages(1)
        daemon.wait_empty()

    def test_a_silent_name_server_defers(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("bank.test", "127.0.0.2")
        self.names.silent.add("bank.test")
        daemon = self.by_mx(partner.port)
        self.send(daemon)
        self.names.wait_query("bank.test", "MX", 2)
        daemon.wait_listed(1)
        self.names.heal("bank.test")
        partner.wait_messages(1)

    def test_truncated_answers_come_by_tcp(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("bank.test", "127.0.0.2")
        self.names.truncate.add("bank.test")
        daemon = self.by_mx(partner.port)
        self.send(daemon)
        partner.wait_messages(1)
        self.assertIn(("bank.test", "MX", "tcp"), self.names.queries)

    def test_mx_without_address_is_no_fallback(self):
        """MX names that do not resolve: the domain's own address is not asked instead."""
        (partner,) = self.partners("127.0.0.2")
        self.names.add("bank.test", "MX", (10, "gone.bank.test"))
        self.names.add("bank.test", "A", "127.0.0.2")
        self.names.fail("gone.bank.test", SERVFAIL)
        daemon = self.by_mx(partner.port)
        self.send(daemon)
        self.names.wait_query("gone.bank.test", "A")
        daemon.wait_listed(1)
        self.assertEqual(0, partner.connections)

    def test_forbidden_targets_park(self):
        """Only forbidden addresses left: parked with the reason, never bounced."""
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("bank.test", "127.0.0.2")
        daemon = self.by_mx(
            partner.port, resolver=f"{self.names.text}\n    forbidden-networks 127.0.0.2/32"
        )
        self.send(daemon)
        daemon.until(lambda rows: "park" in str(rows), "queue", what="a parked destination")
        self.assertEqual(0, partner.connections)

    def test_ipv6_falls_back_fast(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.add("bank.test", "MX", (10, "mx.bank.test"))
        self.names.add("mx.bank.test", "AAAA", "::1").add("mx.bank.test", "A", "127.0.0.2")
        daemon = self.by_mx(partner.port)
        self.send(daemon)
        partner.wait_messages(1)

    def test_nxdomain_is_forgotten_by_flush(self):
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("bank.test", "127.0.0.2")
        self.names.fail("bank.test", SERVFAIL)
        daemon = self.by_mx(partner.port, "retry hourly",
                            hourly="retry hourly { intervals 1h; destination-intervals 1h }")  # fmt: skip
        self.send(daemon)
        self.names.wait_query("bank.test", "MX")
        daemon.until(lambda rows: rows and rows[0]["state"] != "active", "queue")
        self.names.heal("bank.test")
        daemon.ctl("flush", "--destination", "bank.test")
        partner.wait_messages(1)

    def test_a_connector_asks_its_own_name_server(self):
        """What it says of servers is for its mail alone; the rest of the block it shares with all others."""
        inner = self.dns()
        (partner,) = self.partners("127.0.0.2")
        self.names.host_at("outer.test", "127.0.0.2")
        inner.host_at("inner.test", "127.0.0.2")
        daemon = self.by_mx(
            partner.port,
            inner=f"connector inner {{ domains inner.test; port {partner.port}; resolver {{ servers {inner.text} }} }}",
        )
        self.send(daemon, "a@inner.test")
        self.send(daemon, "b@outer.test")
        partner.wait_messages(2)
        self.assertEqual({"inner.test"}, {name for name, kind, _ in inner.queries if kind == "MX"})
        self.assertEqual({"outer.test"}, {name for name, kind, _ in self.names.queries if kind == "MX"})

    def test_knot(self):
        if not have("knotd"):
            self.skipTest("knotd is not installed")
        (partner,) = self.partners("127.0.0.2")
        knot = Knot(self.path("knot"), {
            "bank.test": "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3",
            "null.test": "@ MX 0 .",
        }).start()  # fmt: skip
        self.addCleanup(knot.stop)
        daemon = self.by_mx(partner.port, resolver=knot.text)
        self.send(daemon)
        self.send(daemon, "you@null.test", sender="me@bank.test")
        partner.wait_messages(2)
        self.assertEqual(["me@bank.test", "you@bank.test"], partner.addresses())
        self.assertTrue(any(b"5.1.10" in m.content for m in partner.messages))


class Smarthosts(Case):
    def test_priority_then_failover(self):
        first, second = self.partner(), self.partner()
        daemon = self.daemon(f"""connector out {{
    domains *
    smarthosts [
        {first.text} priority 1
        {second.text} priority 2
    ]
}}""")
        self.send(daemon)
        first.wait_messages(1)
        first.down()
        self.send(daemon, "b@bank.test")
        second.wait_messages(1)

    def test_most_specific_address_space(self):
        partners = {name: self.partner() for name in ("exact", "suffix", "any", "lists")}
        daemon = self.daemon("\n".join([
            smarthost("exact", partners["exact"], domains="bank.test"),
            smarthost("suffix", partners["suffix"], domains="*.bank.test"),
            smarthost("any", partners["any"]),
            smarthost("lists", partners["lists"], "senders @lists.us.test"),
        ]))  # fmt: skip
        for recipient in ("a@bank.test", "b@x.bank.test", "c@x.y.bank.test", "d@other.test"):
            self.send(daemon, recipient)
        self.send(daemon, "e@other.test", sender="news@lists.us.test")
        for name, wanted in (("exact", ["a@bank.test"]), ("suffix", ["b@x.bank.test", "c@x.y.bank.test"]),
                             ("any", ["d@other.test"]), ("lists", ["e@other.test"])):  # fmt: skip
            partners[name].wait_messages(len(wanted))
            self.assertEqual(wanted, partners[name].addresses(), name)

    def test_held_and_disabled_connectors_hold(self):
        partner = self.partner()
        daemon = self.daemon(
            smarthost("held", partner, 'state held\n    reason "migration"', "held.test")
            + smarthost("off", partner, "state disabled", "off.test")
            + smarthost("any", partner)
        )
        for recipient in ("a@held.test", "b@off.test", "c@bank.test"):
            self.send(daemon, recipient)
        partner.wait_messages(1)
        daemon.wait_listed(2)
        self.assertEqual(["c@bank.test"], partner.addresses())


class Reload(Case):
    def test_rebinding(self):
        """What is queued follows the configuration in force, uncharged."""
        old, new = self.partner(), self.partner()
        old.down()
        daemon = self.daemon(smarthost("old", old))
        ids = {self.send(daemon, f"r{i}@bank.test") for i in range(5)}
        daemon.wait_listed(5)
        daemon.blocks["connectors"] = smarthost("old", old) + "\n" + smarthost(
            "bank", new, domains="bank.test")  # fmt: skip
        daemon.write_config()
        plan = daemon.ctl_run("reload", "--plan", options=())
        self.assertEqual(0, plan.returncode, plan.stderr)
        self.assertIn("bank", plan.stdout)
        self.assertEqual(5, len(daemon.list()))  # A plan changes nothing.
        self.assertEqual(0, len(new.messages))
        daemon.ctl("reload")
        daemon.ctl("flush", "--all")
        new.wait_messages(5)
        self.assertEqual(ids, {m.queue_id for m in new.messages})
        daemon.wait_empty()

    def test_a_hold_goes_along(self):
        """What is held stays held where a reload gives it to another connector, which has mail of its own."""
        old, new = self.partner(), self.partner()
        old.down()
        new.down()
        daemon = self.daemon("\n".join([smarthost("old", old), smarthost("bank", new, "senders @lists.us.test")]))
        ids = {self.send(daemon, "a@bank.test"), self.send(daemon, "b@bank.test", sender="news@lists.us.test")}
        daemon.wait_listed(2)
        daemon.ctl("hold", "--connector", "old", "--until", "+1h", "--reason", "ticket 8812")
        daemon.blocks["connectors"] = smarthost("old", old) + "\n" + smarthost("bank", new, domains="bank.test")
        daemon.write_config()
        old.up()
        new.up()
        daemon.ctl("reload")
        row = daemon.until(lambda rows: [r for r in rows if r["connector"] == "bank" and r["messages"] == 2],
                           "queue")[0]  # fmt: skip
        self.assertEqual(("held", "ticket 8812"), (row["state"], row["hold_reason"]))
        daemon.ctl("flush", "--all")
        ids.add(self.send(daemon, "c@bank.test"))
        daemon.wait_listed(3)
        self.send(daemon, "d@other.test")
        old.wait_messages(1)
        self.assertEqual(["d@other.test"], old.addresses())
        self.assertEqual([], new.messages)
        daemon.ctl("release", "--destination", "bank.test")
        new.wait_messages(3)
        self.assertEqual(ids, {m.queue_id for m in new.messages})
        daemon.wait_empty()

    def test_a_hold_goes_along_without_mail(self):
        """It is the domain's, whatever connector takes it from now on; one of another's condition is not meant."""
        old, new, news = self.partner(), self.partner(), self.partner()
        daemon = self.daemon(smarthost("old", old) + "\n" + smarthost("news", news, "senders @lists.us.test"))
        self.send(daemon, "a@bank.test")
        self.send(daemon, "b@other.test", sender="news@lists.us.test")
        old.wait_messages(1)
        news.wait_messages(1)
        daemon.wait_empty()
        daemon.ctl("hold", "--destination", "bank.test", "--reason", "ticket 8812")
        daemon.ctl("hold", "--connector", "news", "--reason", "a list gone mad")
        daemon.blocks["connectors"] += "\n" + smarthost("bank", new, domains="bank.test other.test")
        daemon.write_config()
        daemon.ctl("reload")
        self.send(daemon, "c@bank.test")
        self.send(daemon, "d@other.test")
        new.wait_messages(1)
        self.assertEqual(["d@other.test"], new.addresses())
        (row,) = [row for row in daemon.ctl("queue")
                  if (row.get("connector"), row.get("domain")) == ("bank", "bank.test")]  # fmt: skip
        self.assertEqual((1, "held", "ticket 8812"), (row["messages"], row["state"], row["hold_reason"]))
        daemon.ctl("release", "--destination", "bank.test")
        new.wait_messages(2)

    def test_sighup(self):
        old, new = self.partner(), self.partner()
        daemon = self.daemon(smarthost("out", old))
        self.send(daemon)
        old.wait_messages(1)
        daemon.blocks["connectors"] = smarthost("out", new)
        daemon.write_config()
        mark = len(daemon.lines)
        daemon.hang_up()
        daemon.wait_line(r"evt=reload", mark)
        self.send(daemon, "b@bank.test")
        new.wait_messages(1)
        self.assertEqual(1, len(old.messages))

    @tag("tsan")
    def test_a_bad_file_changes_nothing(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        good = dict(daemon.blocks)
        daemon.blocks["connectors"] = "connector out {\n    domians *\n    tls verfy\n    cost x\n}"
        text = daemon.write_config()
        line = text[: text.index("domians")].count("\n") + 1
        # The file that would name the control socket is the broken one, so the socket is named here.
        result = daemon.ctl_run("reload", options=("--control", daemon.path("control")))
        self.assertNotEqual(0, result.returncode)
        said = result.stdout + result.stderr
        for number, hint in ((line, "domains"), (line + 1, "verify"), (line + 2, "cost")):
            self.assertRegex(said, rf":{number}:\d+: error: .*{hint}")
        checked = daemon.ctl_run("check", daemon.config, options=())
        self.assertNotEqual(0, checked.returncode)
        self.assertIn(f":{line}:", checked.stdout + checked.stderr)
        mark = len(daemon.lines)
        daemon.hang_up()
        daemon.wait_line(r"evt=reload.*(fail|refus|error|kept)", mark)
        self.send(daemon)
        partner.wait_messages(1)
        daemon.blocks = good
        daemon.write_config()
        daemon.ctl("reload")

    def test_weakening_needs_a_word(self):
        partner = self.partner(certificate=self.authority().issue("mx.bank.test"))
        daemon = self.relay_to(partner, "tls encrypt")
        daemon.blocks["connectors"] = smarthost("out", partner, "tls off")
        daemon.write_config()
        result = daemon.ctl_run("reload", options=())
        self.assertNotEqual(0, result.returncode)
        self.assertIn("allow-weaken", result.stdout + result.stderr)
        self.send(daemon)
        partner.wait_messages(1)
        self.assertNotEqual("", partner.messages[0].tls)
        daemon.ctl("reload", "--allow-weaken")
        self.send(daemon, "b@bank.test")
        partner.wait_messages(2)
        self.assertEqual("", partner.messages[1].tls)

    def test_include(self):
        partner = self.partner()
        daemon = self.daemon('include "conf.d/*.conf"', start=False)
        os.makedirs(daemon.path("conf.d"))
        with open(daemon.path("conf.d", "out.conf"), "w", encoding="utf-8") as out:
            out.write(smarthost("out", partner) + "\n")
        daemon.start()
        self.send(daemon)
        partner.wait_messages(1)

    def test_a_bad_file_at_start(self):
        daemon = self.daemon("connector x { domains }", start=False)
        daemon.launch()
        self.assertNotEqual(0, daemon.wait_end())
        daemon.wait_line(r":\d+:\d+: error: ")
        daemon.process = None
