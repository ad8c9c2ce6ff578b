"""Load for the tests that let processes die: clients that never give up, partners that are bad some
of the time, and what must have become of the mail in the end."""
import collections
import dataclasses
import hashlib
import random
import smtplib
import threading

from .partner import DROP
from .senders import Reply, message
from .waiting import PATIENCE_S, Changing

SENDERS = 4
SIZES = (0, 0, 0, 3000, 20_000, 300_000)  # the last is more than one chunk, and committed as it comes


@dataclasses.dataclass
class Accepted:
    """A message that got its 250."""

    queue_id: str
    mark: str
    sender: str
    wanted: list  # recipients that must get it
    refused: list  # recipients that the partner never takes: the sender must be told


class Load(Changing):
    """Clients that send without end, reconnecting whenever the daemon is gone; `accepted` holds an
    Accepted for each of our own marks. `taking(accepted)` is called for each as soon as it is known."""

    def __init__(self, seed, taking=None, sizes=SIZES):
        super().__init__()
        self.accepted = {}
        self.attempts = 0  # messages that were taken, refused, or whose session broke
        self.refused = 0
        self.codes = set()  # with which
        self.address = None
        self.over = False
        self.seed = seed
        self.taking = taking
        self.sizes = sizes
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

    def wait_more(self, count, what, patience_s=None):
        """Until so many more were accepted than now."""
        wanted = len(self.accepted) + count
        self.wait_until(lambda: len(self.accepted) >= wanted, what, patience_s)

    def wait_attempts(self, count):
        wanted = self.attempts + count
        self.wait_until(lambda: self.attempts >= wanted, f"{count} attempts to send")

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
                        if self.over or self.address != address:
                            break
            except (OSError, smtplib.SMTPException) as problem:
                self._tried(getattr(problem, "smtp_code", None))
                with self.changed:
                    if self.address == address:
                        self.changed.wait(0.05)  # It is down; until go(), or a little later.

    def _tried(self, code):
        with self.changed:
            self.attempts += 1
            if code is not None and code != 250:
                self.refused += 1
                self.codes.add(code)
            self.changed.notify_all()

    def _one(self, client, chance, mark):
        wanted = {f"r{chance.randrange(5)}@d{chance.randrange(6)}.test" for _ in range(chance.choice([1, 1, 3]))}
        refused = {f"gone{chance.randrange(5)}@d{chance.randrange(6)}.test"} if chance.random() < 0.1 else set()
        sender = f"s{mark}@us.test"
        code, _ = client.mail(sender)
        if code != 250:
            self._tried(code)
            return
        taken = {recipient for recipient in sorted(wanted | refused) if client.rcpt(recipient)[0] == 250}
        body = f"{mark} {chance.getrandbits(64):016x}\r\n"
        size = chance.choice(self.sizes)
        body += "x" * 70 + "\r\n" if size == 0 else ("x" * 70 + "\r\n") * (size // 72)
        code, text = client.data(message(body=body, X_Mark=mark, X_Sum=checksum(body.encode())))
        self._tried(code)
        if code == 250:
            queue_id = Reply(b"250 " + text).queue_id
            accepted = Accepted(queue_id, mark, sender, sorted(wanted & taken), sorted(refused & taken))
            if self.taking:
                self.taking(accepted)
            with self.changed:
                self.accepted[mark] = accepted
                self.changed.notify_all()


def checksum(octets):
    return hashlib.sha256(octets).hexdigest()[:32]


def well(partner):
    """A healthy partner, that has nobody of the names that Load sends to in vain."""
    partner.well()
    partner.on("rcpt", "550 5.1.1 nobody of that name", match="gone")


def trouble(partner, chance):
    """Some of the time the partner is a bad one, so that mail is deferred and sessions break."""
    well(partner)
    kind = chance.randrange(5)
    if kind == 1:
        partner.on("rcpt", "451 4.3.0 later", match="d1.test", times=10)
    elif kind == 2:
        partner.on("dot", "421 4.3.2 bye", times=3)
    elif kind == 3:
        partner.on("dot", DROP, times=2)
    elif kind == 4:
        partner.on("connect", "421 4.3.2 busy", times=5)


class Arrived:
    """What partners have taken, to be held against what was accepted."""

    def __init__(self):
        self.recipients = collections.defaultdict(set)  # of each queue id
        self.told = set()  # senders that got a report
        self.damaged = []

    def add(self, message):
        if message.sender == "":
            self.told.update(message.addresses)
            return self
        self.recipients[message.queue_id].update(message.addresses)
        body = message.content.split(b"\r\n\r\n", 1)[1]
        if message.header("X-Sum") != checksum(body):
            self.damaged.append(message.queue_id)
        return self

    def all_of(self, messages):
        for each in messages:
            self.add(each)
        return self

    def missing(self, accepted, queued=None, told_by_queue=()):
        """The recipients, of all these messages, that neither arrived nor (per queue id) are queued,
        nor were reported to the sender, if they are the kind that is refused."""
        queued = queued or {}
        lost = []
        for one in accepted:
            have = self.recipients.get(one.queue_id, set()) | queued.get(one.queue_id, set())
            lost += [f"{one.queue_id} to {r}" for r in one.wanted if r not in have]
            told = one.sender in self.told or one.sender in told_by_queue
            lost += [f"{one.queue_id} to {r}, not reported" for r in one.refused if r not in have and not told]
        return lost
