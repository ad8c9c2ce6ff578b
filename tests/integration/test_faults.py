"""Want of memory in the engine's wiring: the build `bridgehead-faults` lets one allocation in a few
fail. Whatever could not be begun is begun later, nothing is lost, and nothing goes twice."""
import collections
import os
import re
import signal

from harness import Case, smarthost
from support.daemon import BRIDGEHEAD
from support.senders import RawClient, message

FAULTY = BRIDGEHEAD + "-faults"
DOMAINS = ("bank.test", "fax.test", "post.test")


class Faults(Case):
    def setUp(self):
        super().setUp()
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        self.remote = self.partner()

    def shaky(self, seed, one_in, start=True):
        relay = self.daemon(smarthost("out", self.remote), start=False, name=f"relay{seed}")
        relay.program = FAULTY
        relay.environment = {"BH_FAULT_SEED": str(seed), "BH_FAULT_ONE_IN": str(one_in)}
        return relay.start() if start else relay

    def failed_so_far(self, relay):
        relay.stop()
        line = next(line for line in relay.lines if "evt=faults" in line)
        return int(re.search(r"failed=(\d+)", line).group(1))

    def arrives_once(self, seed, one_in):
        relay = self.shaky(seed, one_in)
        sent = [f"r{seed}-{n}@{DOMAINS[n % 3]}" for n in range(60)]
        for address in sent:
            self.send(relay, address)
        relay.until(lambda rows: not rows, "list", what="an empty queue")
        counts = collections.Counter(self.remote.addresses())
        self.assertEqual({address: 1 for address in sent}, {a: counts[a] for a in sent})
        self.assertGreater(self.failed_so_far(relay), 5)

    def test_each_message_arrives_once(self):
        for seed in (1, 2, 3):
            with self.subTest(seed=seed):
                self.arrives_once(seed, 4)

    def not_settled(self, how):
        """Delivered, and not to be settled: it ends in order, and does not go twice meanwhile."""
        relay = self.shaky(5, 0, start=False)
        relay.environment["BH_FAULT_SETTLE"] = how
        relay.start()
        queued = self.send(relay, "a@bank.test")
        self.remote.wait_messages(1)
        relay.wait_line(r"evt=settle_(failed|given_up)")
        relay.ctl("flush", "--all")
        relay.stop()
        given_up = [line for line in relay.lines if "evt=settle_given_up" in line]
        self.assertEqual(1, len(given_up))
        self.assertIn(queued, given_up[0])
        self.assertEqual(1, len(self.remote.messages))
        del relay.environment["BH_FAULT_SETTLE"]
        relay.start()
        return relay

    def test_an_entry_that_cannot_be_settled(self):
        relay = self.not_settled("corrupt")
        self.assertEqual([], [line for line in relay.lines if "evt=drain_timeout" in line])
        relay.wait_empty()

    def test_a_full_disk_does_not_keep_it_from_ending(self):
        relay = self.not_settled("full")
        relay.wait_empty()

    def test_deferred_and_refused(self):
        self.remote.on("rcpt", "450 4.2.1 later", times=20)
        self.remote.on("rcpt", "550 5.1.1 nobody", match="gone")
        relay = self.shaky(7, 5)
        for n in range(20):
            self.send(relay, f"r{n}@bank.test")
        for n in range(5):
            self.send(relay, f"gone{n}@fax.test")
        relay.until(lambda rows: not rows, "list", what="an empty queue")
        counts = collections.Counter(self.remote.addresses())
        self.assertEqual(25, sum(counts.values()), counts)  # 20, and 5 reports
        self.assertEqual(5, counts["sender@us.test"])
        self.assertGreater(self.failed_so_far(relay), 5)

    def test_hold_cancel_and_release(self):
        self.remote.down()
        relay = self.shaky(11, 4)
        for n in range(30):
            self.send(relay, f"r{n}@{DOMAINS[n % 3]}")
        relay.wait_listed(30)
        relay.ctl("hold", "--destination", "bank.test")
        relay.ctl("cancel", "--destination", "fax.test")
        self.remote.up()
        relay.ctl("flush", "--all")
        relay.wait_listed(10)
        self.assertEqual(10, len(relay.list("--state", "held")))
        relay.ctl("release", "--destination", "bank.test")
        relay.wait_empty()
        self.assertEqual([], [a for a in self.remote.addresses() if "fax" in a])
        self.assertEqual(20, len(set(self.remote.addresses())))
        self.assertEqual(20, len(self.remote.addresses()))


class Quarantine(Case):
    def test_a_message_whose_sending_kills_the_process_twice(self):
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        remote = self.partner()
        relay = self.daemon(smarthost("out", remote), start=False)
        relay.program = FAULTY
        remote.down()
        relay.start()
        poison = self.send(relay)  # all of it is answered before anything ends
        relay.wait_line("evt=backoff")
        relay.stop()
        remote.up()
        relay.environment = {"BH_FAULT_CRASH_SENDING": "1"}
        relay.launch()
        self.assertEqual(70, relay.wait_end())
        relay.launch()
        self.assertEqual(70, relay.wait_end())
        relay.environment = {}
        relay.start()
        relay.wait_line("evt=quarantined msg=" + poison)
        self.send(relay, "other@bank.test")
        remote.wait_messages(1)
        self.assertEqual(["other@bank.test"], remote.addresses())
        self.assertEqual([poison], [row["id"] for row in relay.list("--state", "held")])


class Receiving(Case):
    """A message that is being received has no id. It is known again by its envelope, and refused for
    a while once receiving it has ended the process twice."""

    def setUp(self):
        super().setUp()
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        self.remote = self.partner()
        self.relay = self.daemon(smarthost("out", self.remote), start=False)
        self.relay.program = FAULTY
        self.clock = self.relay.path("clock")

    def begin(self, client):
        client.hello()
        client.envelope("poison@us.test", "a@bank.test", "b@bank.test")
        client.send("DATA\r\n")

    def dies_receiving(self, fault):
        """A client whose message ends the process, and hears nothing of it."""
        self.relay.environment = {"BH_FAULT_CRASH_INTAKE": fault}
        earlier = len(self.relay.lines)
        self.relay.start()
        with RawClient(self.relay.address) as client:
            self.begin(client)
            if fault == "store":
                self.assertEqual(354, client.reply().code)
                client.send(message() + b".\r\n")
            if fault == "hang":
                self.relay.wait_line("evt=fault_hangs", after=earlier)
                self.relay.process.send_signal(signal.SIGABRT)  # As a watchdog does.
            self.assertEqual(-signal.SIGABRT, self.relay.wait_end())

    def refused(self):
        with RawClient(self.relay.address) as client:
            self.begin(client)
            reply = client.reply()
            self.assertEqual(451, reply.code, reply)
            client.say("RSET")
            client.envelope("poison@us.test", "b@bank.test", "a@bank.test")
            client.send(b"BDAT 9 LAST\r\n" + b"x: y\r\n\r\n.")
            self.assertEqual(451, client.reply().code)
            client.envelope("poison@us.test", "other@bank.test")  # Another message.
            self.assertEqual(250, client.data(message()).code)

    def ends_twice(self, fault):
        self.dies_receiving(fault)
        self.relay.environment = {"BH_FAULT_CLOCK": self.clock}
        self.dies_receiving(fault)
        self.relay.environment = {"BH_FAULT_CLOCK": self.clock}
        self.relay.start()
        self.relay.wait_line("evt=receiving_ended_the_process .* times=2")
        self.refused()
        self.relay.wait_line("evt=suspect_refused")
        self.remote.wait_messages(1)
        self.assertEqual(["other@bank.test"], self.remote.addresses())
        shown = self.relay.ctl_run("status", options=()).stdout
        self.assertRegex(shown, "intake: 1 envelope gets 451 until .*: receiving it ended the engine")
        with open(self.clock, "w", encoding="utf-8") as out:
            out.write("3600")  # The while is over.
        self.assertTrue(self.send(self.relay, ["b@bank.test", "a@bank.test"], sender="poison@us.test"))
        self.remote.wait_messages(2)

    def test_parsing_it_twice(self):
        self.ends_twice("receive")

    def test_storing_it_twice(self):
        self.ends_twice("store")

    def test_a_watchdog_ends_it_twice(self):
        self.ends_twice("hang")

    def test_a_thread_that_stands_still_starves_the_watchdog(self):
        self.relay.environment = {"BH_FAULT_CRASH_INTAKE": "hang", "WATCHDOG_USEC": "800000"}
        self.relay.start()
        self.relay.wait_line("notify WATCHDOG=1")
        with RawClient(self.relay.address) as client:
            self.begin(client)
            self.relay.wait_line("evt=fault_hangs")

            def since(pattern):
                start = next(i for i, line in enumerate(self.relay.lines) if "evt=fault_hangs" in line)
                return [line for line in self.relay.lines[start:] if re.search(pattern, line)]

            silent = r'evt=no_sign_of_life thread="worker \d"'
            # Each is a time at which it would have been fed; one sign may have been under way, one read late.
            self.relay.wait_until(lambda: len(since(silent)) >= 6, "six signs missing")
            self.assertLessEqual(len(since("WATCHDOG=1")), 2)
            self.relay.process.send_signal(signal.SIGABRT)
            self.assertEqual(-signal.SIGABRT, self.relay.wait_end())
        self.relay.environment = {}
        self.relay.start()

    def test_once_is_no_reason(self):
        self.dies_receiving("receive")
        self.relay.environment = {}
        self.relay.start()
        self.relay.wait_line("evt=receiving_ended_the_process .* times=1")
        self.send(self.relay, ["a@bank.test", "b@bank.test"], sender="poison@us.test")
        self.remote.wait_messages(1)
