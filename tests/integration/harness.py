"""The base of every integration test: a folder of its own, daemons and partners that end with the
test, and the checks that hold whatever was tested: the daemon ends in order, no sanitizer had
anything to say, and `bhctl verify` finds the queue whole."""
import os
import shutil
import tempfile
import unittest

from support.certs import Authority
from support.daemon import Daemon
from support.dns import DnsServer
from support.partner import Partner
from support.senders import send


def tag(*names):
    """Mark a test function or class, for `run --tag NAME`."""

    def mark(thing):
        thing.tags = set(getattr(thing, "tags", ())) | set(names)
        return thing

    return mark


class Case(unittest.TestCase):
    """A test of a running daemon."""

    longMessage = True

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bh-test-")
        os.chmod(self.folder, 0o755)  # Receivers that drop their privileges have to pass through.
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.daemons = []
        self.addCleanup(self._end_daemons)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def partner(self, **options):
        """A partner that is up until the test ends."""
        partner = Partner(**options).up()
        self.addCleanup(partner.down)
        return partner

    def dns(self):
        server = DnsServer().__enter__()
        self.addCleanup(server.__exit__)
        return server

    def authority(self):
        return Authority(self.path("ca"))

    def daemon(self, connectors="", start=True, name="relay", **blocks):
        daemon = Daemon(self.path(name), connectors=connectors, **blocks)
        self.daemons.append(daemon)
        return daemon.start() if start else daemon

    def relay_to(self, partner, more="", extra="", **blocks):
        """A daemon whose only connector hands everything to this partner."""
        return self.daemon(smarthost("out", partner, more) + "\n" + extra, **blocks)

    def send(self, daemon, recipients="you@bank.test", **options):
        return send(daemon.address, recipients, **options)

    def failed(self):
        """Whether this test has failed so far."""
        result = self._outcome.result
        return any(getattr(test, "test_case", test) is self
                   for test, _ in result.failures + result.errors)  # fmt: skip

    def _end_daemons(self):
        trouble = []
        for daemon in self.daemons:
            try:
                if daemon.process is None:
                    continue
                if not daemon.ended:
                    daemon.stop()
                if os.path.isdir(daemon.path("queue")) and getattr(daemon, "verify_at_end", True):
                    daemon.verify()
            except (AssertionError, OSError) as problem:
                trouble.append(str(problem))
                if daemon.process and not daemon.ended:
                    daemon.kill()
            trouble += daemon.findings()
        if self.failed():
            for daemon in self.daemons:
                print(f"---- {daemon.folder}: last words\n{daemon.tail()}\n----", flush=True)
        if trouble:
            self.fail("\n".join(trouble))


def smarthost(name, partner, more="", domains="*"):
    """The text of a connector to one partner."""
    return f"""connector {name} {{
    domains {domains}
    smarthosts [ {partner.text} ]
    {more}
}}"""
