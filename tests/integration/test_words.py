"""What an operator reads, as text: the first line answers the question, and the reason stands where
one looks for it."""
import os
import re
import socket
import threading

from harness import Case, smarthost


class Words(Case):
    def setUp(self):
        super().setUp()
        self.remote = self.partner()
        self.relay = self.daemon(smarthost("bank", self.remote, domains="bank.test") + "\n"
                                 + smarthost("fax", self.remote, domains="fax.test"), start=False)  # fmt: skip
        self.relay.blocks["retry"] = """retry slow {
    destination-intervals 1h
    glitch none
    jitter 0%
    expire 5d
}
defaults { retry slow; tls off }"""
        self.relay.start()

    def say(self, *words, status=0):
        """The lines that a person gets, with what went to standard error behind them."""
        result = self.relay.ctl_run(*words, options=())
        self.assertEqual(status, result.returncode, result.stdout + result.stderr)
        return [line.rstrip() for line in (result.stdout + result.stderr).splitlines()]

    def stuck(self, count=3):
        """Mail for a partner that does not answer."""
        self.remote.down()
        ids = [self.send(self.relay, f"you{n}@bank.test") for n in range(count)]
        self.relay.until(lambda rows: rows and rows[0]["state"] == "backoff" and rows[0]["due"] + rows[0]["ready"] == count,
                         "queue")  # fmt: skip
        return ids

    def cells(self, lines, header="ID"):
        """The lines of a table below its heading, split at two blanks."""
        start = next(i for i, line in enumerate(lines) if line.startswith(header))
        return [[cell for cell in line.split("  ") if cell] for line in lines[start + 1 :]]

    def test_a_partner_that_is_down(self):
        ids = self.stuck()
        status = self.say("status")
        self.assertEqual("delivering: 3 queued in 1 destination, 0 connections, 1 backing off, 0 held, 0 parked",
                         status[0])  # fmt: skip
        self.assertRegex(status[1], r"^attention  bank/bank.test: backoff, 3 messages, oldest \d+ s, "
                                    r"next try in \d+ m: 127.0.0.1: connect: connection refused$")  # fmt: skip
        self.assertIn("bhctl why ID", status[2])
        for row in self.relay.list():
            self.assertEqual("backoff", row["destination_state"])
            self.assertGreater(row["next_unix_ms"], row["arrival_unix_ms"] + 600_000)
            self.assertEqual("connection_refused", row["destination_last"]["happened"])
        why = self.say("why", ids[1])
        self.assertRegex(why[0], f"^{ids[1]} from <sender@us.test>, accepted ")
        self.assertRegex(why[1], r"^  to you1@bank.test by bank/bank.test: backoff, 0 attempts, next in \d+ m$")
        self.assertEqual("    its destination waits: 127.0.0.1: connect: connection refused", why[2])
        show = self.say("show", ids[1])
        self.assertRegex(show[-1], r"^you1@bank.test +bank.test +bank +backoff .*connection refused$")
        # The same with the daemon down.
        self.relay.stop()
        self.assertRegex(self.say("status")[0], "^engine not running. 3 queued in 1 destination, 1 backing off")
        self.assertEqual(why[:2], self.say("why", ids[1])[:2])
        self.assertIn("connection refused", self.say("list")[1])

    def test_an_engine_that_dies_as_it_is_asked(self):
        self.stuck(1)
        self.relay.kill()
        path = self.relay.path("control")
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()

            def hang_up():
                connection, _ = listener.accept()
                connection.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            status = self.say("status")
            thread.join()
        self.assertRegex(status[0], "^engine not running. 1 queued in 1 destination")

    def test_hold_until_and_release(self):
        ids = self.stuck()
        self.assertEqual(["3 matched, 3 held, 0 in flight."],
                         self.say("hold", "--destination", "bank.test", "--until", "+1h", "--reason", "ticket 8812"))  # fmt: skip
        status = self.say("status")
        self.assertIn(" 1 held, ", status[0])
        self.assertRegex(status[1], r": held, 3 messages, oldest \d+ s: by \w+ until .*: ticket 8812$")
        self.assertEqual({"held"}, {row["destination_state"] for row in self.relay.list()})
        self.assertIn("ticket 8812", self.say("why", ids[0])[2])
        self.assertEqual(["3 matched, 3 released, 0 in flight."],
                         self.say("release", "--destination", "bank.test"))  # fmt: skip
        self.assertIn(" 0 held, ", self.say("status")[0])

    def test_dry_run_flush_and_what_became_of_it(self):
        ids = self.stuck(2)
        self.send(self.relay, "you@fax.test")
        self.relay.until(lambda rows: len(rows) == 3, "list")
        self.assertEqual(["3 would match in 2 destinations"],
                         self.say("cancel", "--sender", "sender@us.test", "--age", "<1h", "--dry-run"))  # fmt: skip
        self.assertEqual(["flush: nothing matches"], self.say("flush", "--destination", "nowhere.test"))
        self.remote.up()
        self.assertRegex(self.say("flush", "--all")[0], "^flush: what is queued now in 2 destinations is tried")
        self.relay.wait_empty()
        self.relay.events_where(lambda e: e.get("evt") == "attempt" and e.get("msg") == ids[0])
        why = self.say("why", ids[0])
        self.assertRegex(why[0], f"^{ids[0]} is not in the queue any more: delivered for 1 recipient, last seen ")
        self.assertEqual("  what the event log has of it:", why[1])

    def test_who_acted_is_known(self):
        ids = self.stuck(1)
        self.relay.ctl("cancel", "--id", ids[0], "--reason", "wrong list")
        event = self.relay.events_of("operator")[0]
        self.assertEqual(("cancel", "wrong list"), (event["verb"], event["reason"]))
        self.assertTrue(event["by"])
        self.assertRegex(self.say("why", ids[0])[0], ": cancelled for 1 recipient")

    def test_a_connector_that_is_held(self):
        self.relay.blocks["connectors"] = self.relay.blocks["connectors"].replace(
            "domains fax.test", "domains fax.test; state held; reason \"moving house\"")  # fmt: skip
        self.relay.write_config()
        self.say("reload")
        self.send(self.relay, "you@fax.test")
        row = self.relay.until(lambda rows: rows, "queue")[0]
        self.assertEqual(("held", "configuration", "connector fax is held: moving house"),
                         (row["state"], row["hold_by"], row["hold_reason"]))  # fmt: skip
        self.assertRegex(self.say("status")[1], "held, 1 message, .*connector fax is held: moving house$")
        self.assertIn("connector fax is held: moving house", self.say("list")[1])

    def test_explain_says_what_holds(self):
        explained = self.say("explain", "you@bank.test")
        self.assertEqual("you@bank.test  connector bank (active)", explained[0])
        settings = {row[0].strip(): [cell.strip() for cell in row[1:]]
                    for row in self.cells(explained, "SETTING") if len(row) == 3}  # fmt: skip
        self.assertEqual(["off", "defaults"], settings["tls mode"])
        self.assertEqual(["20", "built-in"], settings["limits per-destination"])
        self.assertEqual(["1h", "retry slow"], settings["retry destination-intervals"])
        self.assertEqual(["5d", "retry slow"], settings["retry expire"])
        self.assertNotIn("timeouts", settings)
        every = self.say("connectors", "bank")
        self.assertTrue(any(line.startswith("timeouts connect ") for line in every), every)

    def test_a_reload_says_what_it_comes_to(self):
        self.send(self.relay, "you@else.test")  # By the built-in connector, which knows no resolver.
        self.relay.until(lambda rows: rows, "list")
        strict = self.relay.blocks["connectors"].replace("domains bank.test", "domains bank.test; tls encrypt")
        self.relay.blocks["connectors"] = strict + "\n" + smarthost("else", self.remote, domains="else.test")
        self.relay.write_config()
        plan = self.say("reload", "--plan")
        self.assertEqual("generation 1 → 2, if it is reloaded", plan[0])
        self.assertIn("  ~ connector bank tls   off → encrypt   (TLS stricter)", plan)
        self.assertIn("  + connector else   domains else.test   tls off", plan)
        self.assertEqual(1, sum("connector bank tls" in line for line in plan), plan)
        self.assertIn("1 queued message moves to another connector", plan)
        self.assertIn("nothing is weakened", plan)
        self.say("reload")
        self.remote.wait_messages(1)
        self.relay.blocks["connectors"] = self.relay.blocks["connectors"].replace("tls encrypt", "tls opportunistic")
        self.relay.write_config()
        refused = self.say("reload", status=1)
        self.assertIn("  ~ connector bank tls   encrypt → opportunistic   (TLS WEAKER)", refused)
        self.assertTrue(any("running configuration is untouched" in line for line in refused), refused)
        self.assertEqual("nothing changes", self.same_again()[1])

    def test_a_reload_says_what_waits_for_a_start(self):
        self.relay.blocks["engine"] = self.relay.blocks["engine"].replace("workers 2", "workers 3").replace(
            "log debug", "log error")  # fmt: skip
        self.relay.blocks["listen"] += "\nlisten [::1]:0 { relay-from ::1 }"
        self.relay.write_config()
        lines = self.say("reload")
        self.assertIn("  ~ engine workers   2 → 3   (at the next start)", lines)
        self.assertIn("  ~ engine log   debug → error", lines)
        self.assertTrue(any("[::1]:0" in line and line.endswith("(at the next start)") for line in lines), lines)
        mark = len(self.relay.lines)
        self.send(self.relay, "you@bank.test")
        self.remote.wait_messages(1)
        self.relay.wait_empty()
        self.assertEqual([], [line for line in self.relay.lines[mark:] if re.search("Z (debug|info) ", line)])

    def same_again(self):
        self.relay.blocks["connectors"] = self.relay.blocks["connectors"].replace("tls opportunistic", "tls encrypt")
        self.relay.write_config()
        return self.say("reload", "--plan")

    def test_what_is_not_there_yet_is_refused(self):
        """A limit that would not be kept is an error at load, not a promise."""
        self.relay.blocks["defaults"] = "defaults { limits { shared yes; message-size 5M } }"
        self.relay.blocks["retry"] = ""
        self.relay.write_config()
        lines = self.say("reload", status=1)
        for setting in ("shared", "message-size"):
            self.assertTrue(any(f"'{setting}' is not supported by this version" in line for line in lines), lines)
        self.send(self.relay, "you@bank.test")
        self.remote.wait_messages(1)
