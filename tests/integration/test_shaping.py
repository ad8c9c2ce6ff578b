"""Rates as a partner sees them: it writes down when connections, messages and recipients come. A machine that is
busy delays what comes, so a test asks that nothing came too soon, and that what waits says what it waits for."""
import threading
import time

from harness import Case, smarthost
from support.senders import RawClient, message


class Watch:
    """When connections and messages came to a partner."""

    def __init__(self, partner):
        self.connections, self.messages = [], []
        partner.taking = self._message
        partner.on("connect", self._connection)

    def _connection(self, _):
        self.connections.append(time.monotonic())
        return "220 partner.test ESMTP ready"

    def _message(self, taken):
        self.messages.append((time.monotonic(), taken))


class Shaping(Case):
    def queue(self, daemon, recipients):
        """Messages in one session, each to a list of recipients; all are in the queue when this returns."""
        content = message()
        with RawClient(daemon.address) as client:
            client.hello()
            for addresses in recipients:
                for line in ["MAIL FROM:<s@us.test>", *(f"RCPT TO:<{a}>" for a in addresses), "DATA"]:
                    client.say(line)
                client.send(content + b".\r\n")
                self.assertEqual(250, client.reply().code)

    def spaced(self, times, seconds, weights=None):
        """Each came no sooner than those before it, from any of them on, take. A partner sees a moment late what came,
        so that one that it saw late may seem to be followed too soon."""
        late = 0.4 * seconds
        for first in range(len(times)):
            takes = 0
            for number in range(first + 1, len(times)):
                takes += seconds * (weights[number - 1] if weights else 1)
                self.assertGreater(times[number] - times[first], takes - late, f"{first} to {number}: {times}")

    def limit(self, daemon, domain="bank.test"):
        rows = [row for row in daemon.queue() if row["domain"] == domain]
        return rows[0].get("limit") if rows else None

    def test_messages(self):
        partner = self.partner()
        watch = Watch(partner)
        daemon = self.relay_to(partner, "limits { rate 2/s }")
        self.queue(daemon, [["you@bank.test"]] * 6)
        partner.wait_messages(6)
        self.spaced([at for at, _ in watch.messages], 0.5)

    def test_recipients_of_each_message_count(self):
        partner = self.partner()
        watch = Watch(partner)
        daemon = self.relay_to(partner, "limits { recipient-rate 10/s }")
        lists = [[f"r{n}@bank.test" for n in range(count)] for count in (10, 1, 5, 8, 2)]
        self.queue(daemon, lists)
        partner.wait_messages(5)
        counts = [len(taken.recipients) for _, taken in watch.messages]
        self.assertEqual([10, 1, 5, 8, 2], counts)
        times = [at for at, _ in watch.messages]
        for number in range(1, 5):
            self.assertGreater(times[number] - times[number - 1], 0.1 * counts[number - 1] - 0.08, (times, counts))

    def test_new_connections(self):
        for scope in ("connection-rate", "per-destination-connection-rate", "per-host-connection-rate"):
            with self.subTest(scope):
                partner = self.partner()
                watch = Watch(partner)
                daemon = self.relay_to(partner, f"limits {{ {scope} 2/s; messages-per-connection 1 }}", name=scope)
                self.queue(daemon, [["you@bank.test"]] * 5)
                partner.wait_messages(5)
                self.assertEqual(5, len(watch.connections))
                self.spaced(watch.connections, 0.5)

    def test_each_destination_for_itself(self):
        """Behind one smarthost, on its connections: a domain waits for its own rate, and no other waits with it."""
        partner = self.partner()
        watch = Watch(partner)
        daemon = self.relay_to(partner, "limits { per-destination-rate 2/s }")
        domains = [f"d{n}.test" for n in range(10)]
        self.queue(daemon, [[f"you@{domain}"] for _ in range(4) for domain in domains])
        partner.wait_messages(40)
        for domain in domains:
            self.spaced([at for at, taken in watch.messages if taken.addresses[0].endswith(domain)], 0.5)
        # If they had waited for each other, the last one would have come 19 s after the first.
        self.assertLess(watch.messages[-1][0] - watch.messages[0][0], 15)

    def test_a_host_across_connectors(self):
        """Two connectors to one address: together they keep what each of them may."""
        partner = self.partner()
        watch = Watch(partner)
        rate = "limits { per-host-rate 2/s }"
        daemon = self.daemon(smarthost("a", partner, rate, domains="a.test") + "\n"
                             + smarthost("b", partner, rate, domains="b.test"))  # fmt: skip
        self.queue(daemon, [["you@a.test"], ["you@b.test"]] * 3)
        partner.wait_messages(6)
        self.spaced([at for at, _ in watch.messages], 0.5)

    def test_a_reload_keeps_what_is_owed(self):
        """Connectors change places and others come before them: the one that has sent its message of the minute sends
        no other, and the one that has not does. A raised rate counts what is left of the minute by itself."""
        partner, other = self.partner(), self.partner()
        slow = smarthost("slow", partner, "limits { rate 1/min }", domains="bank.test")
        free = smarthost("free", other, domains="fax.test")
        daemon = self.daemon(slow + "\n" + free)
        self.send(daemon, "one@bank.test")
        partner.wait_messages(1)
        more = "\n".join(smarthost(f"new{n}", other, domains=f"new{n}.test") for n in range(3))
        daemon.blocks["connectors"] = f"{more}\n{free}\n{slow}"
        daemon.write_config()
        daemon.ctl("reload")
        self.send(daemon, "two@bank.test")
        self.send(daemon, "one@fax.test")
        other.wait_messages(1)
        daemon.until(lambda rows: any(row.get("limit") == "connector message rate 1/min" for row in rows), "queue")
        self.assertEqual(1, len(partner.messages))
        began = time.monotonic()
        daemon.blocks["connectors"] = f"{free}\n{slow.replace('1/min', '1/s')}\n{more}"
        daemon.write_config()
        daemon.ctl("reload")
        partner.wait_messages(2)
        self.assertLess(time.monotonic() - began, 30)  # not what was left of the minute

    def test_what_binds_is_told_with_counts(self):
        names = self.dns()
        partner = self.partner(host="127.0.0.5")
        for name in ("wide.test", "narrow.test"):
            names.host_at(name, "127.0.0.5")
        stop = threading.Event()
        self.addCleanup(stop.set)
        partner.on("dot", lambda _: (stop.wait(), "250 2.0.0 taken")[1])
        daemon = self.daemon(f"""connector wide {{
    domains wide.test
    port {partner.port}
    limits {{ per-host 4; initial 9; per-destination 9 }}
}}
connector narrow {{
    domains narrow.test
    port {partner.port}
    limits {{ per-destination 1; initial 1 }}
}}
connector one {{
    domains one.test
    smarthosts [ {partner.text} ]
    limits {{ connections 2; per-host 9 }}
}}""", resolver=names.text)  # fmt: skip
        self.queue(daemon, [["you@narrow.test"]] * 40)
        self.row(daemon, "narrow.test", "destination connections 1/1",
                 {"by": "connections", "of": "destination", "used": 1, "max": 1, "half": False})  # fmt: skip
        self.queue(daemon, [["you@wide.test"]] * 40)
        at = f"127.0.0.5:{partner.port}"
        self.row(daemon, "wide.test", f"host connections 2/2 at {at} (half of the limit, without recent success)",
                 {"by": "connections", "of": "host", "used": 2, "max": 2, "half": True, "host": at})  # fmt: skip
        self.queue(daemon, [["you@one.test"]] * 40)
        self.row(daemon, "one.test", "connector connections 1/1 (half of the limit, without recent success)",
                 {"by": "connections", "of": "connector", "used": 1, "max": 1, "half": True})  # fmt: skip
        text = daemon.ctl_run("queue", options=()).stdout
        self.assertIn("limited by: destination connections 1/1", text)

    def adaptive(self, limits):
        """A partner that takes 200 messages, and answers no more from then on."""
        partner = self.partner()
        stop = threading.Event()
        self.addCleanup(stop.set)
        partner.on("dot", lambda _: (stop.wait(), "250 2.0.0 taken")[1])
        partner.on("dot", "250 2.0.0 taken", times=200)
        daemon = self.relay_to(partner, f"limits {{ {limits} }}\n    on reply 450 \"/less/\" -> slow")
        return partner, daemon

    def test_connections_grow_to_the_ceiling(self):
        partner, daemon = self.adaptive("initial 2; per-destination 9; adaptive yes; ceiling 4")
        self.queue(daemon, [["you@bank.test"]] * 500)
        partner.wait_messages(200)
        self.row(daemon, "bank.test", "destination connections 4/4",
                 {"by": "connections", "of": "destination", "used": 4, "max": 4, "half": False})  # fmt: skip
        self.assertLessEqual(partner.most_open, 4)

    def test_connections_shrink_to_the_floor(self):
        partner, daemon = self.adaptive("initial 6; per-destination 6; adaptive yes; floor 3")
        partner.on("rcpt", "450 4.7.0 less, please", times=1)
        self.queue(daemon, [["you@bank.test"]] * 500)
        self.row(daemon, "bank.test", "destination connections 3/3 (the partner asked for fewer)",
                 {"by": "connections", "of": "destination", "used": 3, "max": 3, "half": False})  # fmt: skip

    def test_the_drain_is_forecast(self):
        """600 messages at 40 a minute, of which about 40 have their turn before they are a minute old."""
        partner = self.partner()
        retry = "retry { intervals 5s; warn-after never; expire 1m }"
        daemon = self.relay_to(partner, "limits { rate 40/min }\n    " + retry)
        self.queue(daemon, [["you@bank.test"]] * 600)
        row = daemon.until(lambda rows: rows[0].get("forecast", {}).get("by") == "deliveries", "queue")[0]
        forecast = row["forecast"]
        self.assertEqual("connector message rate 40/min", row["limit"])
        self.assertEqual(row["messages"], forecast["messages"])
        self.assertGreater(forecast["messages"], 560)
        self.assertLessEqual(forecast["per_hour"], 2400)  # as it was seen, on a busy machine, but never more
        drains_in_ms = forecast["messages"] / forecast["per_hour"] * 3_600_000
        self.assertAlmostEqual(forecast["drains_in_ms"], drains_in_ms, delta=2000)
        self.assertGreater(forecast["expire_before"], 500)
        text = daemon.ctl_run("queue", options=()).stdout
        self.assertRegex(text, r"limited by: connector message rate 40/min   "
                               r"5\d\d queued, \d+/min, drains in \d+ m, 5\d\d expire before")  # fmt: skip
        last = daemon.list()[-1]
        self.assertEqual("connector message rate 40/min", last["limit"])
        why = daemon.ctl_run("why", last["id"], options=()).stdout
        self.assertIn("    its destination is limited by: connector message rate 40/min", why)
        partner.down()  # what is left is not waited for at the end
        daemon.kill()

    def row(self, daemon, domain, limit, limited):
        """What `bhctl queue` says of it, once it says so."""
        rows = daemon.until(lambda rows: any(row["domain"] == domain and row.get("limit") == limit for row in rows),
                            "queue", what=f"{domain} limited by {limit}")  # fmt: skip
        self.assertEqual(limited, next(row for row in rows if row["domain"] == domain)["limited"])
