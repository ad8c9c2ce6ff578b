"""A partner far away: the delaying proxy of tests/bench before it, which counts round trips."""
import json
import os
import signal
import subprocess

from .daemon import BUILD
from .ports import reserve_port
from .waiting import GUARD, PATIENCE_S


def listens(address):
    """Without a connection, which would be counted."""
    wanted = "0100007F:%04X" % address[1]
    with open("/proc/net/tcp", encoding="ascii") as rows:
        return any(row.split()[1] == wanted and row.split()[3] == "0A" for row in rows)


class Distance:
    """`address` leads to `to`; turns() says how often the client waited for what it was told."""

    def __init__(self, folder, to, delay_ms=25):
        self.report = os.path.join(folder, "proxy.json")
        self.address = ("127.0.0.1", reserve_port())
        self.text = f"[{self.address[0]}]:{self.address[1]}"
        self.command = [
            os.path.join(BUILD, "bench", "delayproxy"), "-l", f"127.0.0.1:{self.address[1]}",
            "-c", f"{to[0]}:{to[1]}", "-d", str(delay_ms), "-o", self.report,
        ]  # fmt: skip
        self.process = None

    def start(self):
        """It listens when this returns."""
        self.process = subprocess.Popen([*GUARD, *self.command], stdin=subprocess.DEVNULL)
        for _ in range(int(PATIENCE_S * 100)):
            try:
                self.process.wait(0.01)
                raise AssertionError("the delaying proxy has ended")
            except subprocess.TimeoutExpired:
                if listens(self.address):
                    return self
        raise AssertionError("the delaying proxy does not listen")

    def turns(self):
        """Ends the proxy."""
        self.stop()
        with open(self.report, encoding="utf-8") as report:
            return json.load(report)["turns"]

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_S)
