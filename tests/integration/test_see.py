"""What an operator and an auditor see: the ledger, the events of a message, TLS wanted and got."""
import csv
import io
import os
import re
import subprocess
import threading

from harness import Case, smarthost, tag
from support.certs import Authority
from support.partner import HANG


class Audit(Case):
    def setUp(self):
        super().setUp()
        ca = self.authority()
        self.plain = self.partner()
        self.secure = self.partner(certificate=ca.issue("mx.bank.test"))
        self.relay = self.daemon(
            smarthost("bank", self.secure, "tls encrypt", "bank.test") + "\n"
            + smarthost("fax", self.plain, "", "fax.test us.test"))  # fmt: skip

    def segments(self):
        folder = self.relay.path("events")
        return [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n.endswith(".jsonl")]

    def audit(self, *words, status=0):
        answer = self.relay.ctl("audit", *words, status=status)
        rows = {row["connector"]: row for row in answer if row["kind"] == "connector"}
        return rows, answer.end, [row for row in answer if row["kind"] == "finding"]

    def deliver(self):
        self.send(self.relay, ["a@bank.test", "b@bank.test"])
        self.send(self.relay, "c@fax.test")
        self.relay.wait_empty()

    @tag("tsan")
    def test_counts_of_deliveries(self):
        self.deliver()
        self.relay.stop()  # what waited for the writer is written
        rows, end, findings = self.audit()
        self.assertEqual((2, 0, 2), tuple(rows["bank"][k] for k in ("delivered", "clear", "unauthenticated")))
        self.assertEqual((1, 1, 0), tuple(rows["fax"][k] for k in ("delivered", "clear", "unauthenticated")))
        self.assertTrue(end["whole"], end)
        self.assertEqual((0, 0, []), (end["crashes"], end["lost"], findings))
        self.assertEqual(["fax"], list(self.audit("--connector", "fax")[0]))
        self.assertEqual({}, self.audit("--since", "2035-01-01")[0])
        rows, _, _ = self.audit("--require", "tls", status=1)
        self.assertEqual((False, True), (rows["bank"]["below"], rows["fax"]["below"]))
        self.audit("--require", "tls", "--connector", "bank")
        self.audit("--require", "authenticated", "--connector", "bank", status=1)
        text = self.relay.ctl_run("audit", "--connector", "bank", options=()).stdout
        self.assertRegex(text, r"bank +2 +0 +2")
        self.assertRegex(text, r"ledger whole: records 1 to \d+, chain [0-9a-f]{12}\.\.[0-9a-f]{8}")

    def test_record_of_a_delivery(self):
        queue_id = self.send(self.relay, "a@bank.test")
        self.relay.wait_empty()
        self.relay.stop()
        record = self.relay.events_of("delivered")[0]
        self.assertEqual((queue_id, "bank", "a@bank.test", "127.0.0.1", self.secure.port),
                         tuple(record[k] for k in ("msg", "connector", "rcpt", "ip", "port")))  # fmt: skip
        self.assertEqual(("encrypt", "connector", "unauthenticated", "TLSv1.3"),
                         tuple(record[k] for k in ("tls_wanted", "tls_from", "auth", "tls_version")))  # fmt: skip
        self.assertRegex(record["tls"], r"^encrypt:TLSv1\.3 TLS_\w+, unauthenticated")
        self.assertRegex(record["spki"], r"^[0-9a-f]{64}$")

    def test_domains_alone(self):
        self.relay.stop()
        self.relay.blocks["engine"] = self.relay.blocks["engine"].replace(
            "workers 2", "workers 2\n    ledger-recipients domain")  # fmt: skip
        self.relay.start()
        self.send(self.relay, "secret.name@bank.test")
        self.relay.wait_empty()
        self.relay.stop()
        record = self.relay.events_of("delivered")[0]
        self.assertEqual("bank.test", record["domain"])
        self.assertNotIn("secret.name", str(record))

    @tag("tsan")
    def test_restart_keeps_the_chain(self):
        self.deliver()
        self.relay.stop()
        first = self.audit()[1]
        self.relay.start()
        self.deliver()
        self.relay.stop()
        rows, second, _ = self.audit()
        self.assertEqual(4, rows["bank"]["delivered"])
        self.assertTrue(second["whole"])
        self.assertGreater(second["seq"], first["seq"])
        self.assertEqual((1, 0), (second["first_seq"], second["crashes"]))
        self.relay.start()
        self.relay.kill()
        self.relay.start()
        self.deliver()
        self.relay.stop()
        rows, end, _ = self.audit()
        self.assertEqual((6, 1, True), (rows["bank"]["delivered"], end["crashes"], end["whole"]))

    def test_a_torn_line_is_told_from_damage(self):
        self.deliver()
        self.relay.stop()
        with open(self.segments()[-1], "ab") as segment:
            segment.write(b'{"time":1,"evt":"deliv')
        self.relay.start()
        self.deliver()
        self.relay.stop()
        _, end, findings = self.audit()
        self.assertEqual((True, 1, []), (end["whole"], end["torn"], findings))

    def test_tampering_is_found(self):
        self.deliver()
        self.relay.stop()
        path = self.segments()[0]
        with open(path, encoding="utf-8") as segment:
            lines = segment.readlines()
        at = next(i for i, line in enumerate(lines) if '"evt":"delivered"' in line and '"fax"' in line)
        for name, changed in (
            ("a field changed", lines[:at] + [lines[at].replace('"auth":"clear"', '"auth":"dane"')] + lines[at + 1:]),
            ("a record taken out", lines[:at] + lines[at + 1:]),
            ("a record twice", lines[: at + 1] + lines[at:]),
            ("one put in", lines[:at] + [re.sub(r',"seq".*', "}", lines[at])] + lines[at:]),
        ):
            with self.subTest(name):
                with open(path, "w", encoding="utf-8") as segment:
                    segment.writelines(changed)
                _, end, findings = self.audit(status=1)
                self.assertFalse(end["whole"])
                self.assertIn(findings[0]["line"], (at + 1, at + 2))
                self.assertEqual(os.path.basename(path), findings[0]["segment"])
                text = self.relay.ctl_run("audit", options=()).stdout
                self.assertIn("ledger BROKEN", text)
        with open(path, "w", encoding="utf-8") as segment:
            segment.writelines(lines)
        self.assertTrue(self.audit()[1]["whole"])

    def test_why_after_the_end(self):
        """A message that left the queue is explained by the event log, with the daemon and without."""
        self.plain.on("rcpt", "550 5.1.1 nobody", match="gone@")
        queue_id = self.send(self.relay, ["ok@fax.test", "gone@fax.test"])
        self.relay.wait_empty()

        def told(rows):
            return {row.get("result") for row in rows if row.get("evt") == "attempt"} >= {"delivered", "bounced"}

        self.relay.until(told, "why", queue_id)
        self.relay.stop()
        for name in os.listdir(self.relay.path("events")):
            if name.endswith(".idx"):
                with open(self.relay.path("events", name), "rb") as index:
                    self.assertEqual(b"BHEVIDX1", index.read(8))
        rows = self.relay.ctl("why", queue_id)
        self.assertEqual({queue_id}, {row["msg"] for row in rows})
        self.assertTrue(told(rows))
        text = self.relay.ctl_run("why", queue_id, options=()).stdout
        self.assertIn("550 5.1.1  nobody", text)
        for name in os.listdir(self.relay.path("events")):
            if name.endswith(".idx"):
                os.unlink(self.relay.path("events", name))
        self.assertEqual(len(rows), len(self.relay.ctl("why", queue_id)))
        missing = self.relay.ctl_run("why", "0000000000001")
        self.assertEqual(1, missing.returncode)

    def test_why_of_waiting_mail_names_the_demand(self):
        self.secure.on("rcpt", "450 4.2.0 later")
        queue_id = self.send(self.relay, "a@bank.test")
        rows = self.relay.until(lambda rows: any(r["kind"] == "attempt" for r in rows), "why", queue_id)
        attempt = next(row for row in rows if row["kind"] == "attempt")
        (shown,) = [row for row in self.relay.ctl("show", queue_id) if row["kind"] == "recipient"]
        self.assertEqual(attempt["tls_got"], shown["tls_got"])
        text = self.relay.ctl_run("show", queue_id, options=()).stdout
        self.assertRegex(text, r"encrypt:TLSv1\.3 .*unauthenticated")
        self.assertEqual(("encrypt", "connector"), (attempt["tls_wanted"], attempt["tls_from"]))
        self.assertIn("TLSv1.3", attempt["tls_got"])
        self.relay.wait_line(r'evt=attempt .*tls="encrypt:TLSv1\.3')

    def waiting(self, partner, demand):
        """A message behind a partner that no session of comes to be ready: (daemon, id, its row)."""
        daemon = self.relay_to(partner, demand, name="waiting")
        queue_id = self.send(daemon, "a@bank.test")
        rows = daemon.until(lambda rows: any("destination_tls" in row for row in rows), "show", queue_id)
        return daemon, queue_id, next(row for row in rows if row["kind"] == "recipient")

    def test_mail_that_no_session_was_ready_for_tells_the_demand(self):
        """No attempt of its own: what was wanted, what was had, which check failed, where, when next."""
        ca = self.authority()
        wrong = self.partner(certificate=ca.issue("other.test"))
        daemon, queue_id, row = self.waiting(wrong, f"tls verify {{ ca-file {ca.pem}; names mx.bank.test }}")
        check = "tls verify is demanded (connector): name mismatch: certificate names other.test, wanted mx.bank.test"
        tls = "verify:none, offered; " + check
        self.assertNotIn("tls_wanted", row)
        self.assertEqual(tls, row["destination_tls"])
        self.assertEqual(("127.0.0.1", "tls_unverified"),
                         tuple(row["destination_last"][k] for k in ("host", "happened")))  # fmt: skip
        self.assertGreater(row["next_unix_ms"], 0)
        for verb in ("show", "why"):
            with self.subTest(verb):
                text = daemon.ctl_run(verb, queue_id, options=()).stdout
                self.assertIn(tls, text)
                self.assertIn("127.0.0.1: tls: tls unverified: " + check, text)
                self.assertRegex(text, r"next (in )?\S+" if verb == "why" else "NEXT")
        daemon.wait_line('evt=session_failed .*tls="verify:none, offered; tls verify is demanded')

    def test_starttls_that_is_not_offered_is_told_so(self):
        _, _, row = self.waiting(self.partner(), "tls encrypt")
        self.assertEqual("encrypt:none, STARTTLS is not offered", row["destination_tls"])

    def test_a_host_that_is_down_tells_the_demand(self):
        partner = self.partner()
        partner.down()
        daemon, queue_id, row = self.waiting(partner, "tls encrypt")
        self.assertEqual(("encrypt:none", "connection_refused"),
                         (row["destination_tls"], row["destination_last"]["happened"]))  # fmt: skip
        self.assertIn("encrypt:none", daemon.ctl_run("why", queue_id, options=()).stdout)


class Probe(Case):
    """`bhctl probe` against good partners and bad ones; no mail is ever sent."""

    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.dns_server = self.dns()

    def relay(self, more, *hosts, domain="bank.test", port=None):
        """A daemon that finds the hosts by MX; each is (name, address)."""
        zone = self.dns_server
        for preference, (name, address) in enumerate(hosts, 1):
            zone.add(domain, "MX", (preference * 10, name))
            zone.add(name, "A", address)
        return self.daemon(
            f"connector bank {{\n domains {domain}\n port {port}\n {more}\n}}",
            resolver=zone.text)  # fmt: skip

    def probe(self, daemon, *words, status=0):
        answer = daemon.ctl("probe", *words, status=status)
        return [row for row in answer if row["kind"] == "target"], answer.end

    @tag("tsan")
    def test_good_and_bad_hosts(self):
        certificate = self.ca.issue("mx1.bank.test")
        good = self.partner(certificate=certificate)
        plain = self.partner(host="127.0.0.2", port=good.port)
        relay = self.relay(
            f"tls verify {{ ca-file {self.ca.pem}; names mx1.bank.test mx2.bank.test }}",
            ("mx1.bank.test", "127.0.0.1"), ("mx2.bank.test", "127.0.0.2"), port=good.port)  # fmt: skip
        rows, end = self.probe(relay, "bank.test", status=1)
        rows = {row["host"]: row for row in rows}
        first, second = rows["mx1.bank.test"], rows["mx2.bank.test"]
        self.assertEqual(("ok", "rcpt", 250, "name", "verify"),
                         tuple(first[k] for k in ("verdict", "stage", "code", "auth", "tls_wanted")))  # fmt: skip
        self.assertIn("mx1.bank.test", first["tls_got"])
        self.assertEqual(("would not deliver", True, "tls_not_offered"),
                         tuple(second[k] for k in ("verdict", "bad", "happened")))  # fmt: skip
        self.assertEqual((2, 1), (end["targets"], end["bad"]))
        text = relay.ctl_run("probe", "bank.test", options=()).stdout
        self.assertIn("connector bank (address space bank.test (exact))", text)
        self.assertRegex(text, r"mx1\.bank\.test +127\.0\.0\.1:\d+ +TLSv1\.3 .* rcpt 250 +ok")
        self.assertIn("1 of 2 targets would get no mail. No mail was sent.", text)
        verbs = [verb for _, verb, _ in good.commands]
        self.assertNotIn("data", verbs)
        self.assertEqual(verbs.count("rcpt"), verbs.count("rset"))
        self.assertEqual({"ehlo", "quit"}, {v for _, v, _ in plain.commands})
        self.assertEqual([], good.messages + plain.messages)

    def test_all_good(self):
        partner = self.partner()
        relay = self.relay_to(partner)
        rows, end = self.probe(relay, "someone@bank.test", "--from", "me@us.test")
        self.assertEqual(["ok"], [row["verdict"] for row in rows])
        self.assertEqual((1, 0), (end["targets"], end["bad"]))
        arguments = [argument for _, verb, argument in partner.commands if verb in ("mail", "rcpt")]
        self.assertIn("me@us.test", arguments[0])
        self.assertIn("someone@bank.test", arguments[1])
        self.assertEqual([], relay.list())

    def test_refused_recipient_is_no_breach(self):
        partner = self.partner().on("rcpt", "550 5.1.1 nobody")
        relay = self.relay_to(partner)
        rows, _ = self.probe(relay, "bank.test")
        self.assertEqual([("refused by the peer", 550)], [(r["verdict"], r["code"]) for r in rows])

    def test_refused_without_tls_is_one(self):
        """What is said to MAIL would be said to all mail."""
        partner = self.partner().on("mail", "530 5.7.0 Must issue a STARTTLS command first")
        relay = self.relay_to(partner)
        rows, _ = self.probe(relay, "bank.test", status=1)
        self.assertEqual([("would not deliver", 530)], [(r["verdict"], r["code"]) for r in rows])

    def test_nobody_answers(self):
        partner = self.partner()
        partner.down()
        relay = self.relay_to(partner)
        rows, end = self.probe(relay, "bank.test", status=1)
        self.assertEqual([("would not deliver", "connect", "connection_refused")],
                         [tuple(r[k] for k in ("verdict", "stage", "happened")) for r in rows])  # fmt: skip

    def test_broken_tls_where_nothing_demands_it(self):
        partner = self.partner().on("starttls", "454 4.7.0 not now")
        partner.extensions.append("STARTTLS")
        relay = self.relay_to(partner, "tls opportunistic")
        rows, _ = self.probe(relay, "bank.test")
        self.assertEqual(["in clear after 5 minutes"], [row["verdict"] for row in rows])

    def test_no_such_domain_and_no_connector(self):
        partner = self.partner()
        relay = self.daemon(smarthost("bank", partner, "", "bank.test") + "\nconnector rest { domains * }",
                            resolver=self.dns_server.text)  # fmt: skip
        answer = relay.ctl("probe", "nowhere.test", status=1)
        self.assertEqual("no_such_domain", answer[0]["happened"])
        self.assertEqual(2, relay.ctl_run("probe").returncode)
        self.assertEqual(1, relay.ctl_run("probe", "x@").returncode)

    def test_without_the_engine(self):
        relay = self.relay_to(self.partner())
        relay.stop()
        result = relay.ctl_run("probe", "bank.test", options=())
        self.assertEqual(3, result.returncode)
        self.assertIn("the engine is not running", result.stderr)

    def test_a_stop_ends_a_probe(self):
        partner = self.partner().on("rcpt", HANG)
        relay = self.relay_to(partner)
        asked = []
        thread = threading.Thread(target=lambda: asked.append(relay.ctl_run("probe", "bank.test")))
        thread.start()
        partner.wait_command("rcpt")
        relay.stop()
        thread.join()
        self.assertNotEqual(0, asked[0].returncode)


class Posture(Case):
    """What is remembered of partners' TLS: regressions, and the matrix."""

    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.first = self.ca.issue("mx.bank.test")
        self.bank = self.partner(certificate=self.first)
        self.relay = self.daemon(
            smarthost("bank", self.bank, "tls opportunistic; limits { idle 1ms }", "bank.test *.bank.test") + "\n"
            + smarthost("odd", self.bank, 'tls off', '"quoted.test"'))  # fmt: skip

    def deliver(self, count):
        self.send(self.relay, "a@bank.test")
        self.bank.wait_messages(count)
        self.relay.wait_empty()

    def worse(self):
        return [row["text"] for row in self.relay.ctl("status") if row.get("kind") == "posture"]

    @tag("tsan")
    def test_starttls_gone(self):
        self.deliver(1)
        # The row is written after the session was ready; a restart closes sessions, and all is in.
        self.relay.stop()
        self.assertEqual([], self.worse())
        self.bank.context = None  # not offered any more
        self.relay.start()
        self.deliver(2)
        self.relay.wait_line("evt=tls_worse .*STARTTLS is not offered any more")
        self.assertEqual(["STARTTLS is not offered any more"], self.worse())
        text = self.relay.ctl_run("status", options=()).stdout
        self.assertIn(f"tls worse  127.0.0.1:{self.bank.port}: STARTTLS is not offered any more", text)
        self.relay.stop()
        self.assertEqual(1, len(self.relay.events_of("tls_worse")))

    def test_another_issuer(self):
        """Told once as an event, and in `status` with the new issuer."""
        self.deliver(1)
        self.relay.stop()
        self.assertEqual([], self.worse())
        self.assertEqual([], self.relay.events_of("tls_worse", 0))
        stranger = Authority(self.path("stranger"), "Stranger")
        self.bank.context.load_cert_chain(*stranger.issue("mx.bank.test"))
        self.relay.start()
        self.deliver(2)
        self.relay.wait_line("evt=tls_worse .*another issuer: .*Stranger")
        (text,) = self.worse()
        self.assertRegex(text, "^its certificate has another issuer: .*Stranger$")
        self.relay.stop()
        self.relay.start()
        self.deliver(3)
        self.relay.stop()
        (event,) = self.relay.events_of("tls_worse")
        self.assertIn("Stranger", str(event))

    def test_a_certificate_that_ends_soon(self):
        """Fourteen days ahead it is told, once; a month ahead it is not."""
        self.deliver(1)
        self.relay.stop()
        self.assertEqual([], self.worse())
        self.assertEqual([], self.relay.events_of("tls_worse", 0))
        self.bank.context.load_cert_chain(*self.ca.issue("mx.bank.test", days=13, stem="soon"))
        self.relay.start()
        self.deliver(2)
        self.relay.wait_line("evt=tls_worse .*its certificate ends ")
        (text,) = self.worse()
        self.assertRegex(text, r"^its certificate ends \d{4}-\d\d-\d\d$")
        self.relay.stop()
        self.relay.start()
        self.deliver(3)
        self.relay.stop()
        self.assertEqual(1, len(self.relay.events_of("tls_worse")))

    def test_matrix(self):
        self.deliver(1)
        self.relay.stop()
        rows = {row["domain"]: row for row in self.relay.ctl("connectors", "--matrix")}
        row = rows["bank.test"]
        self.assertEqual(("bank", "opportunistic", "active"), tuple(row[k] for k in ("connector", "tls", "state")))
        self.assertIn("TLSv1.3", row["last_tls"])
        self.assertNotIn("last_verified_unix_ms", row)  # nothing demanded that it be known
        self.assertNotIn("last_reached_unix_ms", rows["*.bank.test"])
        result = self.relay.ctl_run("connectors", "--matrix", options=("--csv",))
        table = list(csv.reader(io.StringIO(result.stdout)))
        self.assertEqual(["DOMAIN", "CONNECTOR", "STATE", "ROUTE", "TLS"], table[0][:5])
        self.assertEqual({len(table[0])}, {len(line) for line in table})
        self.assertEqual(set(rows), {line[0] for line in table[1:]})
        self.assertEqual(2, self.relay.ctl_run("connectors", options=("--csv",)).returncode)

    def test_last_verified_and_exceptions(self):
        def bank(more):
            demand = f"tls verify {{ ca-file {self.ca.pem}; names mx.bank.test; {more} }}"
            self.relay.blocks["connectors"] = smarthost("bank", self.bank, demand, "bank.test")

        self.relay.stop()
        bank("")
        self.relay.start()
        self.deliver(1)
        self.relay.stop()
        row = self.relay.ctl("connectors", "--matrix")[0]
        self.assertEqual("verify, mx.bank.test", row["tls"])
        self.assertGreater(row["last_verified_unix_ms"], 0)
        self.assertEqual([], row["exceptions"])
        bank('exception { until 2031-01-31; reason "new CA, \\"ordered\\""; mode encrypt }')
        self.relay.write_config()
        row = self.relay.ctl("connectors", "--matrix")[0]
        self.assertEqual("encrypt", row["tls"])
        self.assertEqual([("tls", False, 'new CA, "ordered"')],
                         [tuple(x[k] for k in ("what", "ended", "reason")) for x in row["exceptions"]])  # fmt: skip
        result = self.relay.ctl_run("connectors", "--matrix", options=("--csv",))
        table = list(csv.reader(io.StringIO(result.stdout)))
        self.assertEqual('tls until 2031-01-31: new CA, "ordered"', table[1][-1])

    def test_queue_watch(self):
        self.bank.down()
        self.send(self.relay, "a@bank.test")
        self.relay.wait_listed(1)
        command = self.relay.ctl_command("queue", "--watch", "bank.test", options=())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            seen = self.twice(watching)
            watching.terminate()
        self.assertEqual(2, seen)

    @staticmethod
    def twice(watching):
        count = 0
        for line in watching.stdout:
            count += line.startswith("DESTINATION")
            if count == 2:
                break
        return count
