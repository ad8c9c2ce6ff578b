"""A costlier connector with the same address space takes over while a cheaper one is down or held."""
from harness import Case, smarthost

RETRY = """retry quick {
    intervals 1s
    destination-intervals 1s
    glitch 1x1s
    jitter 0%
    warn-after never
    expire 5d
}
defaults { retry quick; tls off }"""


class Failover(Case):
    def setUp(self):
        super().setUp()
        self.main = self.partner()
        self.spare = self.partner()

    def two(self, main="cost 1", spare="cost 2; failover yes", extra="", retry=RETRY, **blocks):
        return self.daemon(smarthost("main", self.main, main) + "\n" +
                           smarthost("spare", self.spare, spare) + "\n" + extra,
                           retry=retry, **blocks)  # fmt: skip

    def test_over_and_back(self):
        self.main.down()
        relay = self.two()
        first = [self.send(relay, f"a{n}@bank.test") for n in range(3)]
        self.spare.wait_messages(3)
        relay.wait_empty()
        self.assertEqual([], self.main.messages)
        relay.wait_line("evt=failover .*connector=main carrier=spare")
        events = relay.events_where(
            lambda e: e.get("msg") in first and e.get("result") == "delivered", 3)  # fmt: skip
        self.assertEqual([("spare", "main")] * 3, [(e["connector"], e["instead_of"]) for e in events])
        mark = len(relay.lines)
        self.main.up()
        relay.wait_line("evt=failback .*connector=main", mark)
        self.send(relay, "b@bank.test")
        self.main.wait_messages(1)
        relay.wait_empty()
        self.send(relay, "c@bank.test")
        self.main.wait_messages(2)
        self.assertEqual(3, len(self.spare.messages))

    def test_which_connector_carries_it(self):
        self.main.down()
        self.spare.on("rcpt", "450 4.2.1 later")
        relay = self.two(retry=RETRY.replace("destination-intervals 1s", "destination-intervals 1h"))
        queue_id = self.send(relay)
        self.spare.wait_command("rcpt")
        row = relay.until(lambda rows: rows and rows[0].get("carrier") == "spare", "queue")[0]
        self.assertEqual("main", row["connector"])  # No row moved.
        text = relay.ctl_run("queue", options=()).stdout
        self.assertIn("carried by spare", text)
        why = relay.until(lambda rows: "instead of main" in str(rows), "why", queue_id)
        self.assertIn("spare", str(why))
        relay.kill()  # After a crash it goes on where it was.
        count = self.spare.count("rcpt")
        self.spare.well()
        relay.start()
        self.spare.wait_messages(1)
        self.assertGreater(self.spare.count("rcpt"), count)
        relay.wait_empty()

    def test_a_held_connector(self):
        relay = self.two(main='cost 1; state held')
        self.send(relay)
        self.spare.wait_messages(1)
        relay.wait_empty()
        self.assertEqual(0, self.main.connections)
        relay.blocks["connectors"] = relay.blocks["connectors"].replace('state held', "state active")
        relay.write_config()
        relay.ctl("reload")
        self.send(relay)
        self.main.wait_messages(1)

    def test_a_mistake_of_ours_with_the_alternate_ends(self):
        """What it held up stands still no longer: its mail grows older again."""
        self.spare.on("rcpt", "450 4.2.1 later", match="slow@")
        relay = self.two(main="cost 1; state held", spare="cost 2; failover yes; source 192.0.2.200")
        self.send(relay, "slow@bank.test")
        self.send(relay, "you@bank.test")
        relay.until(lambda rows: rows and rows[0]["state"] == "parked", "queue")
        relay.blocks["connectors"] = relay.blocks["connectors"].replace("source 192.0.2.200", "source any")
        relay.write_config()
        relay.ctl("reload")
        self.spare.wait_messages(1)
        relay.until(lambda rows: rows and rows[0]["state"] != "parked", "queue")

    def test_what_the_alternate_does_not_take(self):
        self.main.down()
        relay = self.two(spare="cost 2; failover yes; senders @us.test")
        self.send(relay, sender="one@us.test")
        self.send(relay, sender="two@them.test")
        self.spare.wait_messages(1)
        relay.wait_listed(1)
        self.assertEqual(["one@us.test"], [m.sender for m in self.spare.messages])
        self.main.up()
        self.main.wait_messages(1)
        self.assertEqual("two@them.test", self.main.messages[0].sender)
        relay.wait_empty()

    def test_both_down(self):
        self.main.down()
        self.spare.down()
        relay = self.two()
        self.send(relay)
        relay.wait_line("evt=failback")
        self.spare.up()
        self.spare.wait_messages(1)
        relay.wait_empty()

    def test_a_refusal_is_no_failure_of_the_connector(self):
        self.main.on("rcpt", "450 4.2.1 later", times=3)
        relay = self.two()
        self.send(relay)
        self.main.wait_messages(1)
        relay.wait_empty()
        self.assertEqual(0, self.spare.connections)

    def test_no_weaker_demand(self):
        relay = self.daemon(smarthost("main", self.main, "cost 1; tls encrypt") + "\n" +
                            smarthost("spare", self.spare, "cost 2; failover yes; tls off"),
                            start=False, retry=RETRY)  # fmt: skip
        relay.write_config()
        result = relay.ctl_run("check", relay.config, options=())
        self.assertNotEqual(0, result.returncode)
        self.assertIn("'spare' may take over '*' from 'main' with a weaker TLS demand", result.stdout + result.stderr)
