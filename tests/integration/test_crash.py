"""The crash loop: kill -9 under load, restart, again and again. In the end every message that was
acknowledged has arrived, whole, a refused recipient was reported, and what arrived twice was marked
uncertain."""
import collections
import os
import random
import time

from harness import Case, tag
from support.daemon import fields_of
from support.load import Arrived, Load, trouble, well


@tag("crash")
class CrashLoop(Case):
    def test_rounds(self):
        rounds = int(os.environ.get("BH_CRASH_ROUNDS", "50"))
        seed = int(os.environ.get("BH_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
        print(f"crash loop: {rounds} rounds, BH_CRASH_SEED={seed}", flush=True)
        chance = random.Random(seed)
        partner = self.partner()
        daemon = self.relay_to(partner, start=False)
        load = Load(seed)
        self.addCleanup(load.end)
        for number in range(rounds):
            trouble(partner, chance)
            if chance.random() < 0.15:
                daemon.launch()  # and die while it starts
                self.some_time(chance, 0.08)
            else:
                daemon.start()
                load.go(daemon.address)
                load.wait_more(chance.randrange(1, 120), f"round {number}: mail to be taken\n" + daemon.tail())
                self.some_time(chance, 0.02)
            daemon.kill()
            load.pause()
        well(partner)
        load.end()
        daemon.start()
        daemon.ctl("release", "--all")
        daemon.ctl("flush", "--all")
        self.check(load, partner, daemon)

    @staticmethod
    def some_time(chance, most_s):
        """Not to wait for anything: the moment of death must have nothing to do with the last reply."""
        time.sleep(chance.uniform(0, most_s))

    def check(self, load, partner, daemon):
        try:
            daemon.wait_empty()
        finally:
            arrived = Arrived().all_of(partner.messages)
            lost = arrived.missing(load.accepted.values())
            self.assertFalse(lost[:20], f"{len(lost)} acknowledged and not arrived")
        self.assertFalse(arrived.damaged[:20])
        reports = collections.defaultdict(set)
        counts = collections.Counter()
        for got in partner.messages:
            if got.sender == "":
                reports[got.addresses[0]].add(got.header("Message-ID"))
            for address in got.addresses:
                counts[got.queue_id or got.header("Message-ID"), address] += 1
        # A recipient ends once, in the transaction that queues the report of it.
        self.assertFalse([one for one in reports.items() if len(one[1]) > 1])
        twice = [key for key, count in counts.items() if count > 1]
        unmarked = self.unmarked(twice, daemon)
        self.assertFalse(
            unmarked[:20], f"{len(unmarked)} of {len(twice)} arrived twice and were never marked uncertain")
        print(f"crash loop: {len(load.accepted)} acknowledged, {len(reports)} reported, {len(partner.messages)} "
              f"arrived, {len(twice)} recipients twice, all of them uncertain", flush=True)  # fmt: skip

    @staticmethod
    def unmarked(twice, daemon):
        """The event log may lose the last lines of a process that was killed; diagnostics, which are
        written at once, say the same. A report does not carry its own id: the log knows."""
        uncertain = {e.get("msg") for e in daemon.events() if "uncertain" in str(e)}
        ids = collections.defaultdict(set)
        for line in daemon.lines:
            fields = fields_of(line)
            ids[fields.get("rcpt")].add(fields.get("msg"))
            if "uncertain" in line:
                uncertain.add(fields.get("msg"))
        return [(key, address) for key, address in twice
                if not (ids[address] if key.startswith("<") else {key}) & uncertain]  # fmt: skip
