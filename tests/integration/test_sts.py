"""MTA-STS (RFC 8461): policies are fetched over HTTPS, kept, renewed and enforced."""
import ssl

from harness import Case
from support.daemon import fields_of
from support.https import PolicyHost, policy

SHORT = """resolver {{
    servers {dns}
    timeout 1s
    allow-loopback yes
    min-ttl none
    negative-ttl none
}}"""


class Sts(Case):
    """bank.test has one MX, mx1.bank.test, with a good certificate, and a policy."""

    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.names = self.dns()
        self.names.ttl = 1
        self.bank = self.partner(certificate=self.ca.issue("mx1.bank.test"), name="mx1.bank.test")
        self.names.host_at("bank.test", self.bank.host)
        self.web = self.policy_host(self.ca.issue("mta-sts.bank.test"))
        self.publish("1", policy())

    def policy_host(self, certificate, **options):
        web = PolicyHost(certificate, **options).up()
        self.addCleanup(web.down)
        self.names.records.pop("mta-sts.bank.test", None)
        self.names.add("mta-sts.bank.test", "A", web.host)
        return web

    def publish(self, ident, body=None, **options):
        """A record with this id (None: no record), and what the policy's host serves."""
        with self.names.changed:
            self.names.records.pop("_mta-sts.bank.test", None)
        if ident:
            self.names.add("_mta-sts.bank.test", "TXT", f"v=STSv1; id={ident};")
        if body is not None:
            self.web.serve(body, **options)

    def start(self, timeout="30s", ca=None, more="", extra="", **blocks):
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; tls auto {{ ca-file {self.ca.pem}{more} }} }}" + extra,
            start=False,
            **blocks,
        )
        return self.settings(daemon, timeout, ca).start()

    def settings(self, daemon, timeout="30s", ca=None):
        daemon.blocks["resolver"] = SHORT.format(dns=self.names.text)
        daemon.blocks["engine"] = daemon.blocks["engine"].rstrip().removesuffix("}") + (
            f"    mta-sts {{ ca-file {ca or self.ca.pem}; port {self.web.port}; fetch-timeout {timeout} }}\n}}"
        )
        return daemon

    def delivered(self, daemon):
        self.send(daemon)
        self.bank.wait_messages(1)

    def wait_log(self, daemon, event, predicate, after=0):
        """The fields of the first such line from number `after` on."""

        def found():
            for line in daemon.lines[after:]:
                fields = fields_of(line)
                if fields.get("evt") == event and predicate(fields):
                    return fields
            return None

        return daemon.wait_until(found, f"evt={event}\n" + daemon.tail())

    def kept(self, daemon, reason):
        """The mail is not delivered, for this reason; nothing but EHLO, STARTTLS, QUIT was said."""
        after = len(daemon.lines)
        self.send(daemon)
        self.wait_log(daemon, "backoff", lambda f: reason in f.get("text", ""), after)
        self.assertEqual(self.bank.messages, [])
        self.assertLessEqual({verb for _, verb, _ in self.bank.commands},
                             {"connect", "ehlo", "starttls", "quit"})  # fmt: skip

    def wrong_partner(self):
        """The MX answers with a certificate of the same CA, but of another name."""
        self.bank.context.load_cert_chain(*self.ca.issue("mx9.bank.test"))


class Enforced(Sts):
    def test_match(self):
        daemon = self.start()
        self.send(daemon)
        self.bank.wait_messages(1)
        self.assertEqual(self.bank.count("starttls"), 1)
        self.assertEqual(self.web.requests,
                         [("/.well-known/mta-sts.txt", f"mta-sts.bank.test:{self.web.port}", "mta-sts.bank.test")])  # fmt: skip
        self.wait_log(daemon, "sts_policy", lambda f: f["mode"] == "enforce" and f["id"] == "1")

    def test_wildcard(self):
        self.publish("1", policy(mx=["*.bank.test"]))
        self.delivered(self.start())

    def test_host_not_listed(self):
        self.publish("1", policy(mx=["other.bank.test", "*.mx1.bank.test", "*.test"]))
        daemon = self.start()
        self.send(daemon)
        self.wait_log(daemon, "tls_no_host", lambda f: "does not list this host" in f["text"])
        self.assertEqual(self.bank.connections, 0)

    def test_certificate_of_another_name(self):
        self.wrong_partner()
        self.kept(self.start(), "")

    def test_no_starttls(self):
        self.bank.extensions = []
        self.bank.context = None
        self.kept(self.start(), "")

    def test_listed_hosts_only(self):
        """Two MX, and the better one is not listed: never connected to."""
        self.names.records.pop("bank.test")
        stranger = self.partner(host="127.0.0.2", port=self.bank.port)
        self.names.add("bank.test", "MX", (5, "mx0.bank.test"), (10, "mx1.bank.test"))
        self.names.add("mx0.bank.test", "A", "127.0.0.2")
        daemon = self.start()
        self.send(daemon)
        self.bank.wait_messages(1)
        self.assertEqual(stranger.connections, 0)


class NotInForce(Sts):
    """Under each of these the partner with the wrong certificate gets the mail, over TLS."""

    def setUp(self):
        super().setUp()
        self.wrong_partner()

    def test_testing(self):
        self.publish("1", policy(mode="testing", mx=["other.bank.test"]))
        daemon = self.start()
        self.delivered(daemon)
        self.wait_log(daemon, "sts_policy", lambda f: f["mode"] == "testing")
        daemon.wait_empty()
        daemon.events_where(
            lambda e: "tests an MTA-STS policy, which does not list this host" in str(e))  # fmt: skip

    def test_none(self):
        self.publish("1", policy(mode="none", mx=[]))
        self.delivered(self.start())

    def test_no_record(self):
        self.publish(None)
        self.delivered(self.start())
        self.assertEqual(self.web.connections, 0)

    def test_two_records(self):
        self.names.add("_mta-sts.bank.test", "TXT", "v=STSv1; id=2;")
        self.delivered(self.start())
        self.assertEqual(self.web.connections, 0)

    def test_explicit_mode_is_not_changed(self):
        daemon = self.start()
        daemon.blocks["connectors"] = f"connector mx {{ domains *; port {self.bank.port}; tls opportunistic }}"
        daemon.write_config()
        daemon.ctl("reload", "--allow-weaken")
        self.delivered(daemon)
        self.assertEqual(self.web.connections, 0)

    def not_fetched(self, why, **options):
        daemon = self.start(**options)
        self.delivered(daemon)
        self.wait_log(daemon, "sts_fetch_failed", lambda f: why in f["text"])
        return daemon

    def test_redirect(self):
        where = f"Location: https://mta-sts.bank.test:{self.web.port}/elsewhere"
        self.publish("1", policy(), status="302 Found", more=[where])
        self.not_fetched("redirect")
        self.assertEqual(len(self.web.requests), 1)

    def test_status(self):
        self.publish("1", policy(), status="404 Not Found")
        self.not_fetched("404")

    def test_media_type(self):
        self.publish("1", policy(), kind="text/html")
        self.not_fetched("media type")

    def test_no_policy(self):
        self.publish("1", "<html>hello</html>")
        self.not_fetched("can't be used")

    def test_too_large(self):
        self.publish("1", policy() + "x: " + 70000 * "x")
        self.not_fetched("more than 65536 octets")

    def test_too_large_chunked(self):
        self.publish("1", [policy().encode()] + 70 * [1024 * b"x"])
        self.not_fetched("more than 65536 octets")

    def test_slow(self):
        self.web.stalled.set()
        self.not_fetched("", timeout="1s")

    def test_certificate_of_another_host(self):
        self.web.down()
        self.web = self.policy_host(self.ca.issue("bank.test"))
        self.web.serve(policy())
        self.not_fetched("SSL")
        self.assertEqual(self.web.requests, [])

    def test_certificate_by_common_name_only(self):
        self.web.down()
        self.web = self.policy_host(self.ca.issue(common="mta-sts.bank.test"))
        self.web.serve(policy())
        self.not_fetched("SSL")
        self.assertEqual(self.web.requests, [])

    def test_unknown_authority(self):
        other = type(self.ca)(self.path("other-ca"), "Other CA")
        self.not_fetched("SSL", ca=other.pem)
        self.assertEqual(self.web.requests, [])

    def test_old_tls(self):
        self.web.down()
        self.web = self.policy_host(self.ca.issue("mta-sts.bank.test"), max_tls=ssl.TLSVersion.TLSv1_1)
        self.web.serve(policy())
        self.not_fetched("SSL")
        self.assertEqual(self.web.requests, [])

    def test_host_down(self):
        self.web.down()
        self.not_fetched("")

    def test_forbidden_network(self):
        """An address where nothing may be connected to is not connected to for a policy either."""
        self.names.records.pop("mta-sts.bank.test")
        self.names.add("mta-sts.bank.test", "A", "169.254.169.254")
        self.not_fetched("forbidden network")

    def test_one_fetch_for_many_messages(self):
        """A policy's host that fails is asked once in five minutes, and once for all who wait."""
        self.publish("1", policy(), status="500 Oh No")
        daemon = self.not_fetched("500")
        for _ in range(5):
            self.send(daemon)
        self.bank.wait_messages(6)
        self.assertEqual(len(self.web.requests), 1)


class Remembered(Sts):
    """A valid enforced policy stays in force, whatever happens to its record and its host."""

    def fetched(self):
        daemon = self.start()
        self.send(daemon)
        self.bank.wait_messages(1)
        self.bank.down()  # What one session proved serves further mail: have a new one.
        self.bank.messages.clear()
        self.bank.commands.clear()
        self.wrong_partner()
        self.bank.up()
        return daemon

    def stays(self, daemon):
        """Over the routes' time to live, and over a restart, the policy is in force."""
        self.kept(daemon, "")
        daemon.stop()
        daemon.start()
        self.kept(daemon, "")

    def test_host_down(self):
        daemon = self.fetched()
        self.web.down()
        self.stays(daemon)

    def test_record_gone(self):
        daemon = self.fetched()
        self.publish(None)
        self.stays(daemon)

    def test_record_fails(self):
        daemon = self.fetched()
        self.names.fail("_mta-sts.bank.test")
        self.stays(daemon)

    def test_new_id_and_host_down(self):
        daemon = self.fetched()
        self.publish("2")
        self.web.down()
        self.stays(daemon)
        self.wait_log(daemon, "sts_fetch_failed", lambda f: f["in_force"] == "enforce")

    def test_new_id_and_bad_policy(self):
        daemon = self.fetched()
        self.publish("2", "mode: none\r\n")
        self.stays(daemon)

    def test_new_id_withdraws(self):
        daemon = self.fetched()
        self.kept(daemon, "")
        self.publish("2", policy(mode="none", mx=[]))
        self.bank.wait_messages(1)

    def test_new_id_adds_a_host(self):
        """The mail that the old policy kept goes out by the new one, before it is looked at again."""
        self.publish("1", policy(mx=["old.bank.test"]))
        daemon = self.start()
        self.send(daemon)
        self.wait_log(daemon, "tls_no_host", lambda f: "does not list this host" in f["text"])
        self.publish("2", policy(mx=["mx1.bank.test"]))
        self.bank.wait_messages(1)
        self.wait_log(daemon, "sts_policy", lambda f: f["id"] == "2" and f["changed"] == "1")

    def test_a_new_id_is_looked_for_before_mail_is_returned(self):
        """Under `if-unmet bounce`, with a record that would be in the cache for long."""
        self.names.ttl = 3600
        home = self.partner()
        extra = f"\nconnector home {{ domains us.test; smarthosts [ {home.text} ]; tls off }}"
        daemon = self.start(more="; if-unmet bounce }; limits { idle 1ms", extra=extra)
        self.send(daemon)
        self.bank.wait_messages(1)
        self.bank.wait_command("quit")  # Or the loss of that session is why nothing is returned.
        self.wrong_partner()
        self.publish("2", policy(mode="none", mx=[]))
        self.send(daemon, sender="me@us.test")
        self.bank.wait_messages(2)
        self.assertEqual([], home.messages)
        self.publish("3", policy())  # Now there is none that would let it through.
        daemon.stop()
        daemon.start()
        self.send(daemon, sender="me@us.test")
        (report,) = home.wait_messages(1)
        self.assertIn(b"name mismatch", report.content)
        self.assertEqual(2, len(self.bank.messages))

    def test_restart_needs_no_fetch(self):
        daemon = self.fetched()
        daemon.stop()
        daemon.start()
        self.kept(daemon, "")
        self.assertEqual(len(self.web.requests), 1)

    def test_killed(self):
        """What was used once is on disk: a policy that was told of survives the process."""
        daemon = self.fetched()
        daemon.kill()
        self.web.down()
        daemon.start()
        self.kept(daemon, "")

    def test_policy_of_no_age(self):
        self.publish("1", policy(max_age=0))
        daemon = self.fetched()
        self.web.down()
        self.send(daemon)
        self.bank.wait_messages(1)


class Shown(Sts):
    """`bhctl policy show`: what is remembered, from where, how old."""

    def shown(self, daemon, domain="bank.test"):
        answer = daemon.ctl("policy", "show", domain)
        (row,) = [row for row in answer if row["kind"] == "sts"]
        return row, answer

    def table(self, daemon, domain="bank.test"):
        return daemon.ctl_run("policy", "show", domain, options=()).stdout

    def test_running_and_down(self):
        self.publish("1", policy(mx=["mx1.bank.test", "*.other.test"]))
        daemon = self.start()
        row, answer = self.shown(daemon)
        self.assertEqual(("no", "unknown"), (row["stored"], row["origin"]))
        self.assertEqual((0, True), (answer.end["hosts"], answer.end["live"]))
        self.delivered(daemon)
        (row,) = daemon.until(lambda rows: rows[0]["stored"] == "yes", "policy", "show", "you@Bank.test")[:1]
        self.assertEqual(("enforce", True, "1"), (row["mode"], row["in_force"], row["policy_id"]))
        self.assertEqual(["mx1.bank.test", "*.other.test"], row["mx"])
        self.assertEqual(604800, row["max_age_s"])
        self.assertEqual(604800000, row["expires_unix_ms"] - row["fetched_unix_ms"])
        self.assertIn(row["origin"], ("fetched", "cache"))
        hosts = [row for row in self.shown(daemon)[1] if row["kind"] == "dane"]
        self.assertEqual([("mx1.bank.test", "not asked")],
                         [(host["host"], host["dane"].replace("-", " ")) for host in hosts])  # fmt: skip
        text = self.table(daemon)
        self.assertRegex(text, r"MTA-STS  bank.test  mode enforce\n")
        self.assertRegex(text, r"  fetched +\d+ s ago\n")
        self.assertRegex(text, r"  ends +in 6 d")
        self.assertRegex(text, r"(?m)^DANE +mx1.bank.test:\d+ ")
        daemon.stop()
        row, answer = self.shown(daemon)
        self.assertEqual(("yes", "store", "enforce"), (row["stored"], row["origin"], row["mode"]))
        self.assertEqual((0, False), (answer.end["hosts"], answer.end["live"]))
        self.assertIn("known to the running engine alone", self.table(daemon))

    def test_nothing_and_trouble(self):
        self.publish("1", "no policy\r\n")
        self.publish(None)
        daemon = self.start()
        self.delivered(daemon)
        self.assertEqual(("no", "not-published"),
                         tuple(self.shown(daemon)[0][key] for key in ("stored", "origin")))  # fmt: skip
        self.assertIn("no policy is stored", self.table(daemon))
        self.publish("2")
        daemon.ctl("flush", "--all")
        self.send(daemon)

        def troubled(rows):
            return rows[0].get("announced_id") == "2" and rows[0].get("trouble")

        daemon.until(troubled, "policy", "show", "bank.test")
        self.assertIn("trouble", self.table(daemon))

    def test_usage(self):
        daemon = self.start()
        for words in (("policy",), ("policy", "show"), ("policy", "list", "bank.test")):
            self.assertEqual(2, daemon.ctl_run(*words, options=()).returncode, words)
