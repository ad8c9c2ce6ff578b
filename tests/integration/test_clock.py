"""The wall clock as a test sets it: steps end nothing by age, and days go by in no time."""
import os
import re

from harness import Case, smarthost
from support.daemon import BRIDGEHEAD

FAULTY = BRIDGEHEAD + "-faults"
DAY_S = 86400
RETRY = """retry often {
    intervals 1s
    destination-intervals 1s
    glitch none
    jitter 50%
    expire 5d
}
defaults { retry often; tls off }"""


class Clock(Case):
    def setUp(self):
        super().setUp()
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        self.clock = self.path("clock")

    def set_clock(self, seconds):
        with open(self.clock + ".new", "w", encoding="ascii") as out:
            out.write(f"{seconds}\n")
        os.rename(self.clock + ".new", self.clock)

    def with_clock(self, connectors, **options):
        relay = self.daemon(connectors, start=False, **options)
        relay.program = FAULTY
        relay.environment = {"BH_FAULT_CLOCK": self.clock}
        return relay.start()

    def wait_rounds(self, relay, count):
        """So many failed rounds from now on."""
        mark = len(relay.lines)
        relay.wait_until(lambda: sum("evt=backoff" in line for line in relay.lines[mark:]) >= count,
                         f"{count} failed rounds\n" + relay.tail())  # fmt: skip

    def assert_nothing_expired(self, relay):
        self.assertEqual([], [line for line in relay.lines if "evt=expired" in line])

    def test_the_answer_of_a_name_server_is_the_first_to_see_a_step(self):
        """Rounds fail some times a second, and little else happens: mostly one of them comes first."""
        names = self.dns()
        domains = [f"d{n}.test" for n in range(6)]
        for domain in domains:
            names.fail(domain)
        self.set_clock(0)
        relay = self.with_clock("connector out { domains * }", resolver=names.text, retry=RETRY)
        self.send(relay, [f"you@{domain}" for domain in domains], sender="")
        self.wait_rounds(relay, 20)
        self.set_clock(6 * DAY_S)
        relay.wait_line("evt=clock_stepped")
        self.wait_rounds(relay, 10)
        self.assert_nothing_expired(relay)
        relay.ctl("resume")
        relay.wait_line("evt=expired")

    def test_a_step_is_not_confirmed_by_a_restart(self):
        remote = self.partner()
        remote.down()
        self.set_clock(0)
        relay = self.with_clock(smarthost("out", remote))
        self.send(relay, sender="")
        self.wait_rounds(relay, 1)
        self.set_clock(6 * DAY_S)
        relay.wait_line("evt=clock_stepped")
        relay.stop()
        relay.start()
        relay.wait_line("evt=clock_unconfirmed")
        self.wait_rounds(relay, 3)
        self.assert_nothing_expired(relay)
        relay.ctl("resume")
        (ended,) = relay.events_where(lambda e: e.get("evt") == "expired", 1)
        # No session ever had it: what it died of is told with its end.
        self.assertEqual(("bank.test", "out", "connection_refused"),
                         (ended["domain"], ended["connector"], ended["happened"]))  # fmt: skip
        relay.stop()
        mark = len(relay.lines)
        relay.start()
        self.assertFalse([line for line in relay.lines[mark:] if "evt=clock_unconfirmed" in line])

    def deferred_by_a_fast_clock(self):
        """One message put off by itself, one destination that backs off; from now on both partners are well."""
        busy, down = self.partner().on("rcpt", "451 4.7.1 later"), self.partner()
        down.down()
        self.set_clock(DAY_S // 2)
        relay = self.with_clock(smarthost("busy", busy, "tls off", "busy.test") + "\n"
                                + smarthost("down", down, "tls off", "down.test"))  # fmt: skip
        self.send(relay, "you@busy.test", sender="")
        self.send(relay, "you@down.test", sender="")
        relay.wait_line("result=deferred")
        self.wait_rounds(relay, 1)
        return relay, busy, down

    def assert_both_arrive(self, relay, busy, down):
        busy.wait_messages(1)
        down.wait_messages(1)
        relay.wait_empty()

    def test_a_step_back_delays_nothing(self):
        relay, busy, down = self.deferred_by_a_fast_clock()
        self.set_clock(0)
        relay.wait_line("evt=due_times_derived_anew")
        busy.well()
        down.up()
        self.assert_both_arrive(relay, busy, down)

    def test_a_step_back_while_it_was_stopped_delays_nothing(self):
        relay, busy, down = self.deferred_by_a_fast_clock()
        relay.stop()
        busy.well()
        down.up()
        self.set_clock(0)
        relay.start()
        relay.wait_line("evt=due_times_derived_anew")
        self.assert_both_arrive(relay, busy, down)

    def test_destinations_without_mail_go_after_a_day(self):
        remote = self.partner()
        self.set_clock(0)
        relay = self.with_clock(smarthost("out", remote))
        self.send(relay)
        relay.wait_empty()
        relay.stop()
        self.set_clock(2 * DAY_S)
        relay.start()
        relay.wait_line("evt=swept destinations=1")
        self.send(relay)
        remote.wait_messages(2)
        relay.wait_empty()

    def waits_for_tls(self, relay, rounds):
        """TLS is tried so many times more, and then the mail is too young to go in clear."""
        mark = len(relay.lines)
        young = re.compile("evt=backoff domain=open.test .*in clear only when older than 5 minutes")
        relay.wait_until(lambda: sum(bool(young.search(line)) for line in relay.lines[mark:]) >= rounds,
                         f"{rounds} rounds with TLS\n" + relay.tail())  # fmt: skip

    def test_in_clear_goes_only_what_is_older_than_five_minutes(self):
        """Behind a partner whose TLS is broken; with credentials nothing goes in clear, ever."""
        certificate = self.authority().issue("mx.bank.test")
        secret = self.path("secret")
        with open(secret, "w", encoding="ascii", opener=lambda p, flags: os.open(p, flags, 0o600)) as out:
            out.write("tr0ub4dor\n")
        broken = self.partner(certificate=certificate).on("starttls", "454 4.7.0 not now")
        asking = self.partner(certificate=certificate, users={"relay": "tr0ub4dor"}, auth_in_clear=True)
        asking.on("starttls", "454 4.7.0 not now")
        self.set_clock(0)
        relay = self.with_clock(
            smarthost("open", broken, "tls opportunistic", "open.test") + "\n"
            + smarthost("login", asking, "tls opportunistic\n    auth plain { user relay; "
                        f"password-file {secret}; allow-unauthenticated-peer {{ until 2099-01-01; "
                        'reason "until they have a certificate" } }', "login.test"), retry=RETRY)  # fmt: skip
        self.send(relay, "you@open.test")
        self.send(relay, "you@login.test")
        self.waits_for_tls(relay, 3)
        # No session in clear is opened for it: but for the one of just now, each has asked for TLS.
        self.assertLessEqual(broken.count("ehlo") - broken.count("starttls"), 1)
        asking.wait_command("starttls")
        self.set_clock(4 * 60)
        relay.ctl("flush", "--destination", "open.test")
        self.waits_for_tls(relay, 2)
        self.assertEqual(([], 0), (broken.messages, broken.count("mail")))
        self.set_clock(6 * 60)
        (got,) = broken.wait_messages(1)
        self.assertEqual("", got.tls)
        asking.wait_command("starttls", asking.count("starttls") + 2)
        self.assertEqual(([], 0, 0), (asking.messages, asking.count("mail"), asking.count("auth")))
        relay.wait_listed(1)
        (left,) = relay.list()
        self.assertEqual(["you@login.test"], left["recipients"])
