"""What an operator does to the queue, and what the tools show of it."""
import grp
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time

from harness import Case, smarthost, tag
from support.partner import HANG
from support.senders import message


class Verbs(Case):
    """A partner that is down, and mail for three of its domains."""

    def setUp(self):
        super().setUp()
        self.remote = self.partner()
        self.remote.down()
        self.relay = self.relay_to(
            self.remote, "retry hourly",
            extra="retry hourly { intervals 1h; destination-intervals 1h; glitch none }",
        )  # fmt: skip
        self.ids = {}
        for domain in ("bank.test", "fax.test", "post.test"):
            self.ids[domain] = [self.send(self.relay, f"r{i}@{domain}") for i in range(4)]
        self.relay.wait_listed(12)
        self.relay.until(lambda rows: all(row["state"] == "backoff" for row in rows), "queue")

    def acted(self, *words):
        return self.relay.ctl(*words).end

    @tag("tsan")
    def test_queue_and_flush(self):
        rows = {row["domain"]: row for row in self.relay.queue()}
        self.assertEqual({"bank.test", "fax.test", "post.test"}, set(rows))
        self.assertEqual([4, 4, 4], [row["messages"] for row in rows.values()])
        self.assertEqual({"out"}, {row["connector"] for row in rows.values()})
        self.assertEqual(4, self.acted("flush", "--destination", "bank.test", "--dry-run")["matched"])
        self.assertEqual(1, self.acted("flush", "--recipient", "r1@bank.test", "--dry-run")["matched"])
        self.assertEqual(12, len(self.relay.list()))
        self.remote.up()
        self.relay.ctl("flush", "--destination", "bank.test")
        self.remote.wait_messages(4)
        self.assertEqual(sorted(f"r{i}@bank.test" for i in range(4)), self.remote.addresses())
        self.relay.wait_listed(8)
        self.relay.ctl("flush", "--connector", "out")
        self.remote.wait_messages(12)
        self.relay.wait_empty()

    def test_flush_of_one_message(self):
        """Its destination is in back-off for an hour: it is tried all the same, and what it shows is for all."""
        self.remote.up()
        answer = self.acted("flush", "--id", self.ids["bank.test"][2])
        self.assertEqual((1, 1, 0), (answer["matched"], answer["acted"], answer["destinations"]))
        self.remote.wait_until(lambda: "r2@bank.test" in self.remote.addresses(), "the one that was flushed")

    def test_hold_and_release(self):
        answer = self.acted("hold", "--destination", "bank.test", "--reason", "ticket 8812")
        self.assertEqual((4, 4, 0), (answer["matched"], answer["acted"], answer["in_flight"]))
        self.remote.up()
        self.relay.ctl("flush", "--all")
        self.remote.wait_messages(8)
        held = self.relay.list("--state", "held")
        self.assertEqual(set(self.ids["bank.test"]), {row["id"] for row in held})
        self.assertIn("ticket 8812", str(self.relay.ctl("why", self.ids["bank.test"][0])))
        self.relay.kill()
        self.relay.start()  # A hold outlives the process.
        self.assertEqual(4, len(self.relay.list("--state", "held")))
        answer = self.acted("release", "--destination", "bank.test")
        self.assertEqual(4, answer["acted"])
        self.relay.ctl("flush", "--destination", "bank.test")
        self.remote.wait_messages(12)
        self.relay.wait_empty()

    def test_hold_until_recipient(self):
        answer = self.acted("hold", "--recipient", "@fax.test")
        self.assertEqual(4, answer["matched"])
        answer = self.acted("hold", "--id", self.ids["post.test"][0], "--id", self.ids["post.test"][1])
        self.assertEqual(2, answer["acted"])
        self.assertEqual(6, len(self.relay.list("--state", "held")))

    def test_cancel(self):
        answer = self.acted("cancel", "--sender", "sender@us.test", "--destination", "fax.test",
                            "--dry-run")  # fmt: skip
        self.assertEqual(4, answer["matched"])
        self.assertEqual(12, len(self.relay.list()))
        answer = self.acted("cancel", "--destination", "fax.test", "--reason", "wrong list")
        self.assertEqual((4, 4), (answer["matched"], answer["acted"]))
        self.assertEqual(8, len(self.relay.list()))
        self.remote.up()
        self.relay.ctl("flush", "--all")
        self.remote.wait_messages(8)
        self.relay.wait_empty()
        self.assertFalse([a for a in self.remote.addresses() if "fax.test" in a])
        self.assertEqual("", "".join(m.sender for m in self.remote.messages if not m.sender))

    def test_bounce(self):
        answer = self.acted("bounce", "--id", self.ids["bank.test"][0])
        self.assertEqual(1, answer["acted"])
        self.remote.up()
        self.relay.ctl("flush", "--all")
        self.remote.wait_until(lambda: "sender@us.test" in self.remote.addresses(), "the report")
        report = next(m for m in self.remote.messages if m.sender == "")
        self.assertIn(b"r0@bank.test", report.content)
        self.assertNotIn("r0@bank.test", self.remote.addresses())

    def test_requeue(self):
        answer = self.acted("requeue", "--destination", "bank.test")
        self.assertEqual(4, answer["acted"])
        self.remote.up()
        self.relay.ctl("flush", "--all")
        self.remote.wait_messages(12)

    def test_a_verb_without_selection_is_refused(self):
        result = self.relay.ctl_run("cancel")
        self.assertNotEqual(0, result.returncode)
        self.assertEqual(12, len(self.relay.list()))

    def test_show_and_why(self):
        queue_id = self.ids["bank.test"][0]
        shown = str(self.relay.ctl("show", queue_id))
        for text in (queue_id, "sender@us.test", "r0@bank.test"):
            self.assertIn(text, shown)
        text = self.relay.ctl_run("show", queue_id, "--content", options=()).stdout
        self.assertIn("Subject: test", text)
        why = self.relay.ctl_run("why", queue_id, options=()).stdout
        self.assertIn("out", why)
        self.assertIn(self.remote.host, why)
        self.assertNotEqual(0, self.relay.ctl_run("show", "0000000000000").returncode)

    def test_views_with_the_daemon_down(self):
        up = sorted(row["id"] for row in self.relay.list())
        self.relay.stop()
        self.assertEqual(up, sorted(row["id"] for row in self.relay.list()))
        self.assertEqual({"bank.test", "fax.test", "post.test"},
                         {row["domain"] for row in self.relay.queue()})  # fmt: skip
        for words in (["status"], ["show", up[0]], ["why", up[0]], ["explain", "you@bank.test"],
                      ["verify"], ["check", self.relay.config]):  # fmt: skip
            with self.subTest(verb=words[0]):
                self.assertEqual(0, self.relay.ctl_run(*words).returncode)
        self.assertEqual(3, self.relay.ctl_run("hold", "--all").returncode)


class InFlight(Case):
    """Verbs that meet mail which a session has at that moment."""

    def setUp(self):
        super().setUp()
        self.remote = self.partner()
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

        def refuse_late(argument):
            self.gate.wait(20)
            return "451 4.3.0 not now"

        self.remote.on("rcpt", refuse_late, times=1)
        self.relay = self.relay_to(self.remote)
        self.queued = self.send(self.relay)
        self.remote.wait_command("rcpt")

    def answered(self, *words):
        answer = self.relay.ctl(*words).end
        self.assertEqual((1, 0, 1), (answer["matched"], answer["acted"], answer["in_flight"]))
        self.gate.set()

    def test_hold(self):
        self.answered("hold", "--id", self.queued, "--reason", "ticket 77")
        self.relay.wait_listed(1, "--state", "held")
        self.assertIn("ticket 77", str(self.relay.ctl("why", self.queued)))
        self.relay.ctl("release", "--id", self.queued)
        self.remote.wait_messages(1)
        self.relay.wait_empty()

    def test_cancel(self):
        self.answered("cancel", "--destination", "bank.test")
        self.relay.wait_empty()
        self.assertEqual([], self.remote.messages)

    def test_hold_and_release(self):
        self.relay.ctl("hold", "--id", self.queued)
        self.relay.ctl("release", "--id", self.queued)
        self.gate.set()
        self.remote.wait_messages(1)
        self.relay.wait_empty()

    def test_a_verb_for_another_state_is_not_meant(self):
        """It is held when it is back, as asked; it was not deferred when the deferred were cancelled."""
        self.relay.ctl("hold", "--id", self.queued)
        answer = self.relay.ctl("cancel", "--state", "due").end
        self.assertEqual(0, answer["matched"])
        self.gate.set()
        self.relay.wait_listed(1, "--state", "held")

    def test_hold_outlives_a_crash(self):
        answer = self.relay.ctl("hold", "--id", self.queued).end
        self.assertEqual(1, answer["in_flight"])
        self.relay.kill()
        self.relay.start()
        self.gate.set()
        self.relay.wait_listed(1, "--state", "held")
        self.assertEqual([], self.remote.messages)


class Views(Case):
    def test_status_explain_connectors(self):
        partner = self.partner()
        daemon = self.relay_to(partner, extra=smarthost("fax", partner, "tls off", "fax.test *.fax.test"))
        status = daemon.ctl_run("status", options=())
        self.assertEqual(0, status.returncode, status.stderr)
        self.assertIn("0 queued", status.stdout)
        explained = str(daemon.ctl("explain", "you@sub.fax.test"))
        self.assertIn("fax", explained)
        self.assertIn("*.fax.test", explained)
        self.assertIn("off", explained)
        names = [row["connector"] for row in daemon.ctl("connectors")]
        self.assertIn("out", names)
        self.assertIn("fax", names)

    def test_which_tls_it_got(self):
        partner = self.partner(certificate=self.authority().issue("mx.bank.test"))
        partner.on("rcpt", "450 4.2.1 later")
        daemon = self.relay_to(partner, "tls encrypt")
        queue_id = self.send(daemon)
        partner.wait_command("rcpt")
        daemon.until(lambda rows: "1.3" in str(rows), "why", queue_id, what="TLS 1.3 in why")

    def test_a_hundred_thousand_would_fit(self):
        """Top rows by default, all of them by pages; here the paging, with 1,200 rows."""
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(partner, "retry slow", extra="retry slow { intervals 1h }")
        for i in range(12):
            self.send(daemon, [f"r{j}@d{i}-{j}.test" for j in range(100)])
        rows = daemon.until(lambda rows: len(rows) == 1200, "list")
        self.assertEqual(1200, len({(row["id"], row["destination"]) for row in rows}))
        self.assertEqual(50, len(daemon.queue()))
        self.assertEqual(7, len(daemon.ctl("queue", "--top", "7")))


class Manners(Case):
    def test_started_twice(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        second = self.daemon(start=False, name="second", queue=daemon.blocks["queue"],
                             connectors=smarthost("out", partner))  # fmt: skip
        second.verify_at_end = False
        second.launch()
        self.assertEqual(1, second.wait_end())
        second.wait_line("another process is using the queue")
        # A folder of events is one process's, too: both would write into one chain.
        second.blocks["queue"] = f"queue {{ path {second.path('queue')}; max-size 256M }}"
        second.blocks["engine"] = second.blocks["engine"].replace(second.path("events"), daemon.path("events"))
        second.launch()
        self.assertEqual(1, second.wait_end())
        second.wait_line("event log .*: another process writes there")
        self.assertEqual(1, sum(e.get("what") == "begin" for e in daemon.events()))
        second.process = None
        self.send(daemon)
        partner.wait_messages(1)

    def test_sigterm_waits_for_the_reply_to_the_dot(self):
        partner = self.partner()
        gate = threading.Event()

        def late(argument):
            gate.wait(20)
            return "250 2.0.0 late, but taken"

        partner.on("dot", late, times=1)
        daemon = self.relay_to(partner)
        self.send(daemon)
        partner.wait_command("dot")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_line("notify .*STOPPING=1")
        gate.set()
        self.assertEqual(0, daemon.wait_end())
        daemon.start()
        daemon.wait_empty()
        self.assertEqual(1, partner.count("dot"))

    def test_sigterm_ends_a_hanging_session(self):
        partner = self.partner()
        partner.on("rcpt", HANG)
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon)
        partner.wait_command("rcpt")
        daemon.stop()
        self.assertEqual([queue_id], [row["id"] for row in daemon.list()])

    def test_sigterm_cuts_off_look_ups(self):
        """They come to nothing: no destination is parked for a name server that was not waited for."""
        names = self.dns()
        names.silent.add("bank.test")
        daemon = self.daemon("connector out { domains * }", resolver=names.text, start=False)
        daemon.blocks["resolver"] = daemon.blocks["resolver"].replace("timeout 1s", "timeout 20s")
        daemon.start()
        self.send(daemon)
        names.wait_until(lambda: names.queries, "a question")
        daemon.stop()
        self.assertEqual(["active"], [row["state"] for row in daemon.queue()])

    def test_it_says_when_it_is_ready_and_stops(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        daemon.stop()
        words = " ".join(line for line in daemon.lines if line.startswith("notify"))
        self.assertIn("READY=1", words)
        self.assertIn("STOPPING=1", words)

    def test_privileges_are_dropped(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to give up something")
        partner = self.partner()
        daemon = self.daemon(smarthost("out", partner), start=False)
        daemon.blocks["engine"] = daemon.blocks["engine"].replace(
            "workers 2", "workers 2\n    user nobody\n    group nogroup")  # fmt: skip
        for folder in (daemon.folder, daemon.path("queue"), daemon.path("events")):
            os.makedirs(folder, exist_ok=True)
            shutil.chown(folder, "nobody", "nogroup")
        daemon.start()
        nobody, nogroup = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
        with open(f"/proc/{daemon.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":\t", 1) for line in status.read().splitlines())
        self.assertEqual([str(nobody)] * 4, fields["Uid"].split())
        self.assertEqual([str(nogroup)] * 4, fields["Gid"].split())
        self.assertEqual([], [g for g in fields["Groups"].split() if g != str(nogroup)])
        self.send(daemon)
        partner.wait_messages(1)

    def test_sigterm_amid_bulk_jobs(self):
        """Jobs that are under way when the daemon ends leave nothing behind, and the next one goes on."""
        remote = self.partner()
        remote.down()
        relay = self.relay_to(remote)
        self.send(relay, [f"r@d{i}.test" for i in range(1000)])
        relay.until(lambda end: end.end["destinations"] == 1000, "queue")
        askers = [subprocess.Popen(relay.ctl_command("hold", "--sender", "@us.test"), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL) for _ in range(8)]  # fmt: skip
        for asker in askers:
            self.addCleanup(asker.wait)
        relay.until(lambda rows: rows, "jobs")
        relay.stop()
        relay.start()
        relay.until(lambda rows: not rows, "jobs")

    def test_watchdog(self):
        partner = self.partner()
        daemon = self.daemon(smarthost("out", partner), start=False)
        daemon.environment = {"WATCHDOG_USEC": "2000000"}
        daemon.start()
        daemon.wait_until(lambda: sum("WATCHDOG=1" in line for line in daemon.lines) >= 2, "two signs of life")

    def test_sighup_reopens_the_event_log(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        first = self.send(daemon)
        daemon.wait_empty()
        segment = self.one_segment(daemon)
        os.rename(segment, daemon.path("rotated"))
        mark = len(daemon.lines)
        daemon.hang_up()
        daemon.wait_line("evt=reload", mark)
        second = self.send(daemon)
        daemon.wait_empty()
        daemon.stop()
        with open(self.one_segment(daemon), encoding="utf-8") as new:
            text = new.read()
        self.assertIn(second, text)
        self.assertNotIn(f'"{first}"', text)

    def one_segment(self, daemon):
        folder = daemon.path("events")
        names = os.listdir(folder)
        self.assertGreaterEqual(len(names), 1)
        return os.path.join(folder, sorted(names)[-1])

    def test_event_log_follows_each_message(self):
        partner = self.partner()
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@")
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon, ["ok@bank.test", "gone@bank.test"], content=message())
        partner.wait_messages(2)
        daemon.wait_empty()
        daemon.stop()
        events = [e for e in daemon.events() if e.get("msg") == queue_id]
        self.assertEqual("received", events[0]["evt"])
        results = {e["rcpt"]: e["result"] for e in events if e["evt"] == "attempt"}
        self.assertEqual({"ok@bank.test": "delivered", "gone@bank.test": "bounced"}, results)

    def test_an_attempt_says_where_its_time_went(self):
        partner = self.partner()
        gate = threading.Event()
        self.addCleanup(gate.set)

        def late(argument):
            gate.wait(60)
            return "250 2.0.0 late, but taken"

        partner.on("dot", late)
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon)
        partner.wait_command("dot")
        began = time.monotonic()
        for _ in range(5):
            daemon.ctl("status")  # Takes its time, as the partner does.
        waited_ms = (time.monotonic() - began) * 1000
        gate.set()
        event = daemon.events_where(lambda e: e.get("evt") == "attempt" and e.get("msg") == queue_id)[0]
        parts = [event[part + "_ms"] for part in ("queue", "dns", "connect", "tls", "transfer")]
        self.assertGreaterEqual(event["transfer_ms"], int(waited_ms) - 2)
        self.assertLess(event["connect_ms"] + event["tls_ms"] + event["dns_ms"], event["transfer_ms"])
        self.assertLessEqual(abs(event["age_ms"] - sum(parts)), 10)  # Two clocks, in whole ms.
        self.assertRegex(daemon.ctl_run("why", queue_id, options=()).stdout, r"\(.*transfer [0-9]+ m?s\)")
