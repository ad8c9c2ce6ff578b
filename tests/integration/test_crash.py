"""The crash loop: kill -9 under load, restart, again and again. In the end every message that was
acknowledged has arrived, and one that arrived twice was marked uncertain."""
import collections
import os
import random
import smtplib
import threading

from harness import Case, tag
from support.daemon import fields_of
from support.partner import DROP
from support.senders import Reply, message
from support.waiting import PATIENCE_S, Changing

SENDERS = 4


class Load(Changing):
    """Clients that send without end, reconnecting whenever the daemon is gone; `acknowledged` holds
    the queue id that the 250 named, for each of our own marks."""

    def __init__(self, seed):
        super().__init__()
        self.acknowledged = {}
        self.address = None
        self.over = False
        self.seed = seed
        self.threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def go(self, address):
        with self.changed:
            self.address = address
            self.changed.notify_all()

    def pause(self):
        with self.changed:
            self.address = None

    def end(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join(PATIENCE_S)

    def _send(self, number):
        chance = random.Random(self.seed * 100 + number)
        count = 0
        while True:
            with self.changed:
                while self.address is None and not self.over:
                    self.changed.wait()
                if self.over:
                    return
                address = self.address
            try:
                with smtplib.SMTP(*address, local_hostname="client.test", timeout=PATIENCE_S) as client:
                    client.ehlo()
                    for _ in range(chance.randrange(1, 30)):
                        count += 1
                        self._one(client, chance, f"{number}-{count}")
            except (OSError, smtplib.SMTPException):
                with self.changed:
                    if self.address == address:
                        self.changed.wait(0.05)  # It is down; until go(), or a little later.

    def _one(self, client, chance, mark):
        size = chance.choice([0, 0, 0, 3000, 20_000, 300_000])
        recipients = [f"r{chance.randrange(5)}@d{chance.randrange(6)}.test" for _ in range(chance.choice([1, 1, 3]))]
        client.mail(f"s{mark}@us.test")
        for recipient in recipients:
            client.rcpt(recipient)
        code, text = client.data(message(size=size, X_Mark=mark))
        if code == 250:
            with self.changed:
                self.acknowledged[mark] = (Reply(b"250 " + text).queue_id, sorted(set(recipients)))
                self.changed.notify_all()


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
            self.trouble(partner, chance)
            daemon.start()
            before = len(load.acknowledged)
            load.go(daemon.address)
            wanted = before + chance.randrange(1, 120)
            load.wait_until(lambda: len(load.acknowledged) >= wanted, f"round {number}: mail to be taken\n" + daemon.tail())
            daemon.kill()
            load.pause()
        partner.well()
        load.end()
        daemon.start()
        daemon.ctl("release", "--all")
        daemon.ctl("flush", "--all")
        self.check(load, partner, daemon)

    @staticmethod
    def trouble(partner, chance):
        """Some of the time the partner is a bad one, so that mail is deferred and sessions break."""
        partner.well()
        kind = chance.randrange(5)
        if kind == 1:
            partner.on("rcpt", "451 4.3.0 later", match="d1.test", times=10)
        elif kind == 2:
            partner.on("dot", "421 4.3.2 bye", times=3)
        elif kind == 3:
            partner.on("dot", DROP, times=2)
        elif kind == 4:
            partner.on("connect", "421 4.3.2 busy", times=5)

    def check(self, load, partner, daemon):
        acknowledged = dict(load.acknowledged)

        def missing():
            arrived = collections.defaultdict(set)
            for got in partner.messages:
                arrived[got.header("X-Mark")].update(got.addresses)
            return [m for m, (_, wanted) in acknowledged.items() if not set(wanted) <= arrived[m]]

        try:
            daemon.wait_empty()
        finally:
            lost = missing()
            self.assertFalse(lost, f"acknowledged and not arrived: {[acknowledged[m] for m in lost]}")
        counts = collections.Counter()
        for got in partner.messages:
            for address in got.addresses:
                counts[got.queue_id, address] += 1
        twice = {key: count for key, count in counts.items() if count > 1}
        # The event log may lose the last lines of a process that was killed; diagnostics, which are
        # written at once, say the same.
        uncertain = {e.get("msg") for e in daemon.events() if "uncertain" in str(e)}
        uncertain |= {fields_of(line).get("msg") for line in daemon.lines if "uncertain" in line}
        unmarked = [key for key in twice if key[0] not in uncertain]
        self.assertFalse(
            unmarked, f"{len(unmarked)} of {len(twice)} arrived twice and were never marked uncertain")
        print(f"crash loop: {len(acknowledged)} acknowledged, {len(partner.messages)} arrived, "
              f"{len(twice)} recipients twice, all of them uncertain", flush=True)  # fmt: skip
