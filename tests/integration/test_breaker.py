"""A destination that suddenly refuses everything by policy is held, rather than its queue bounced."""
from harness import Case
from support.daemon import fields_of

POLICY = "550 5.7.1 your address is listed"
BREAKER = "breaker on { refusals 5; share 80%; window 10m; hold 1h }"


class Breaker(Case):
    def setUp(self):
        super().setUp()
        self.remote = self.partner()
        self.remote.on("rcpt", POLICY, match="bank")

    def reports(self):
        return [m for m in self.remote.messages if m.sender == ""]

    def broken(self, count=40):
        """A daemon whose partner has begun to refuse, with a queue."""
        self.remote.down()
        relay = self.relay_to(self.remote, "limits { per-destination 1; initial 1 }\n    " + BREAKER)
        for n in range(count):
            self.send(relay, f"r{n}@bank.test", sender=f"s{n}@us.test")
        relay.wait_listed(count)
        self.remote.up()
        relay.ctl("flush", "--all")
        relay.wait_line("evt=breaker_open domain=bank.test")
        return relay

    def test_held_not_bounced(self):
        relay = self.broken()
        rows = {row["domain"]: row for row in relay.until(
            lambda rows: {r["domain"]: r["state"] for r in rows}.get("bank.test") == "held", "queue")}
        row = rows["bank.test"]
        self.assertEqual("breaker", row["hold_by"])
        self.assertIn("5 of 5 messages refused by policy", row["hold_reason"])
        self.assertIn("listed", row["hold_reason"])
        relay.until(lambda rows: not any(r.get("in_flight") for r in rows), "queue")
        kept = [row for row in relay.list() if row["destination"] == "bank.test"]
        self.assertEqual(36, len(kept))  # Four were refused before it opened.
        self.assertEqual([0], sorted({row.get("attempts", 0) for row in kept}))

    def test_one_message_then_all(self):
        relay = self.broken()
        self.remote.well()
        relay.ctl("release", "--destination", "bank.test")
        self.remote.wait_until(lambda: sum("bank" in a for a in self.remote.addresses()) == 36, "all of them")
        relay.wait_empty()

    def test_half_open_is_one_message(self):
        relay = self.broken()
        relay.until(lambda rows: not any(r.get("in_flight") for r in rows), "queue")
        count = self.remote.count("rcpt", "bank")
        mark = len(relay.lines)
        relay.ctl("release", "--destination", "bank.test")
        relay.wait_line("evt=breaker_open domain=bank.test", mark)
        self.assertEqual(count + 1, self.remote.count("rcpt", "bank"))
        relay.wait_listed(36, "--destination", "bank.test")

    def test_one_bad_message_does_not_hold_the_others(self):
        """What was refused goes behind the others: the next to be tried is another one."""
        relay = self.broken()
        relay.until(lambda rows: not any(r.get("in_flight") for r in rows), "queue")
        self.remote.well()
        attempts = [fields_of(line) for line in relay.lines if "evt=attempt " in line]
        kept = {f["rcpt"].strip('"') for f in attempts if f["result"] == "deferred" and f["code"] == "550"}
        self.assertTrue(kept)
        for address in kept:
            self.remote.on("rcpt", POLICY, match=address)
        mark = len(relay.lines)
        relay.ctl("release", "--destination", "bank.test")
        relay.wait_empty()
        self.assertEqual(36 - len(kept), sum("bank" in a for a in self.remote.addresses()))
        self.assertFalse([line for line in relay.lines[mark:] if "evt=breaker_open" in line])

    def test_off(self):
        relay = self.relay_to(self.remote, "breaker off")
        for n in range(30):
            self.send(relay, f"r{n}@bank.test")
        relay.until(lambda rows: not [r for r in rows if r["destination"] == "bank.test"], "list")
        self.assertFalse([line for line in relay.lines if "breaker_open" in line])

    def test_what_the_operator_says_counts_first(self):
        relay = self.relay_to(self.remote, BREAKER + "\n    on reply 5.7.1 -> bounce")
        for n in range(20):
            self.send(relay, f"r{n}@bank.test")
        relay.until(lambda rows: not [r for r in rows if r["destination"] == "bank.test"], "list")
        self.assertFalse([line for line in relay.lines if "breaker_open" in line])
