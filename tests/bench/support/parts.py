"""The programs of a run: generator, sink, delaying proxy, name server, and the peer itself."""

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time

from support import accounting, sick

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.environ["BENCH_BUILD"] + "/bench"
PEERS = os.environ["BH_PEERS"]
LIMIT = float(os.environ.get("LIMIT", "300"))
NAME_SERVER = "127.53.0.1"
BEGAN = time.monotonic()


def setting(name, default):
    """A setting from the environment, of the type of its default."""
    text = os.environ.get(name, "")
    return type(default)(text) if text else default


def left():
    """Seconds that this run may still take."""
    return max(1.0, LIMIT - (time.monotonic() - BEGAN))


def wait_for_port(port, seconds, host="127.0.0.1", greeting=False):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, port), 2) as probe:
                if not greeting:
                    return True
                probe.settimeout(10)
                if probe.recv(200).startswith(b"220"):
                    probe.sendall(b"QUIT\r\n")
                    probe.recv(200)
                    return True
        except OSError:
            pass
        time.sleep(0.005)
    return False


class Reporter:
    """A tool that writes a report on SIGUSR1 and by itself."""

    def __init__(self, run, name, command, port, host="127.0.0.1"):
        self.file = f"{run}/{name}.json"
        self.process = subprocess.Popen([*command, "-o", self.file, "-T", str(int(LIMIT))])
        wait_for_port(port, 10, host)

    def forget(self):
        if os.path.exists(self.file):
            os.unlink(self.file)

    def now(self):
        self.forget()
        self.process.send_signal(signal.SIGUSR1)
        return self.wait(5) or {}

    def wait(self, seconds):
        """The report that is there, or comes within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.path.exists(self.file):
                with open(self.file) as report:
                    return json.load(report)
            time.sleep(0.01)
        return None

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Sink(Reporter):
    def __init__(self, run, port, expected=0, host="0.0.0.0", name="sink", options=()):
        self.arrivals_file = f"{run}/{name}.arrivals"
        super().__init__(
            run, name,
            [f"{TOOLS}/sink", "-a", host, "-p", str(port), "-n", str(expected),
             "-L", self.arrivals_file, *options],
            port, "127.0.0.1" if host == "0.0.0.0" else host,
        )  # fmt: skip

    def wait_messages(self, count, seconds):
        end = time.monotonic() + seconds
        while True:
            report = self.now()
            if report.get("messages", 0) >= count or time.monotonic() > end:
                return report
            time.sleep(0.1)

    def arrivals(self, prefix):
        """[(sent, arrived)] of the messages whose id begins with `prefix`."""
        rows = []
        if os.path.exists(self.arrivals_file):
            with open(self.arrivals_file) as lines:
                for line in lines:
                    words = line.split()
                    if len(words) == 4 and words[0].startswith(prefix + ".") and words[1] != "-":
                        rows.append((float(words[1]), float(words[2])))
        return rows


def sick_address(kind):
    return f"127.0.4.{sick.KINDS.index(kind) + 1}"


class Sick(Reporter):
    """Hosts that are ill in these ways; mail for d0.KIND.bench.test goes to them."""

    def __init__(self, run, kinds):
        # Its own port tells that all of them are up: it is bound last.
        ready = "127.0.4.99"
        super().__init__(
            run, "sick",
            [sys.executable, f"{HERE}/support/sick.py",
             *[f"{kind}={sick_address(kind)}" for kind in kinds], f"banner={ready}"],
            25, ready,
        )  # fmt: skip


class Proxy(Reporter):
    def __init__(self, run, port, to, delay_ms):
        super().__init__(
            run, "proxy",
            [f"{TOOLS}/delayproxy", "-l", f"127.0.0.1:{port}", "-c", f"127.0.0.1:{to}",
             "-d", str(delay_ms)],
            port,
        )  # fmt: skip


def blast(run, count, port=2525, name="blast", options=(), seconds=None):
    """Run the generator to its end; its report."""
    report = f"{run}/{name}.json"
    command = [
        f"{TOOLS}/blast", "-p", str(port), "-n", str(count), "-c", str(setting("C", 30)),
        "-s", str(setting("SIZE", 4096)), "-d", str(setting("DOMAINS", 1000)),
        "-P", str(setting("PMODE", 1)), "-m", str(setting("PER_SESSION", 0)),
        "-t", str(int(seconds or left())), "-I", name, "-o", report, *options,
    ]  # fmt: skip
    subprocess.run(command, check=False)
    with open(report) as lines:
        return json.load(lines)


def percentiles_ms(rows, sent):
    """Of the time from when a message was due to its arrival; what never came counts as infinite."""
    times = sorted((arrived - due) * 1e3 for due, arrived in rows)
    times += [float("inf")] * max(0, sent - len(times))

    def at(q):
        value = times[int(q * (len(times) - 1) + 0.5)] if times else float("inf")
        return None if value == float("inf") else round(value, 1)

    return {"sent": sent, "arrived": len(rows), "p50": at(0.5), "p99": at(0.99), "max": at(1)}


def start_name_server(run):
    """NSD with bench.test: d0 to d9999 behind 250 addresses, and domains that are dead, hang, or live."""
    folder = f"{run}/dns"
    os.makedirs(folder)
    zone = [f"$ORIGIN bench.test.\n$TTL 3600\n@ SOA ns hm 1 3600 900 86400 3600\n@ NS ns\nns A {NAME_SERVER}"]
    zone += [f"d{i} MX 10 mx{i}\nmx{i} A 127.0.2.{i % 250 + 1}" for i in range(10000)]
    zone += [f"{h} A 127.0.0.1" for h in "sender bridgehead postfix exim opensmtpd haraka blast sink".split()]
    zone += ["@ MX 10 sink\n@ A 127.0.0.1"]
    for i, name in enumerate(("dead", "hang", "alive")):
        zone.append(f"*.{name} MX 10 mx-{name}\nmx-{name} A 127.0.3.{i + 1}")
    for kind in sick.KINDS:
        zone.append(f"*.{kind} MX 10 mx-{kind}\nmx-{kind} A {sick_address(kind)}")
    files = {
        "zone": "\n".join(zone) + "\n",
        "reverse": "$ORIGIN 127.in-addr.arpa.\n$TTL 3600\n@ SOA ns.bench.test. hm 1 3600 900 86400 3600\n"
        "@ NS ns.bench.test.\n* PTR sink.bench.test.\n",
        "nsd.conf": f'server:\n ip-address: {NAME_SERVER}\n do-ip6: no\n username: ""\n chroot: ""\n'
        f' database: ""\n zonesdir: "{folder}"\n pidfile: "{folder}/pid"\n xfrdfile: "{folder}/xfrd"\n'
        f' xfrdir: "{folder}"\n zonelistfile: "{folder}/zones"\n logfile: "{folder}/log"\n server-count: 1\n'
        " rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\nremote-control:\n control-enable: no\n"
        'zone:\n name: "bench.test"\n zonefile: "zone"\nzone:\n name: "127.in-addr.arpa"\n zonefile: "reverse"\n',
        "resolv.conf": f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:2\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n"
        "protocols: files\naliases: files\n",
    }
    for name, text in files.items():
        with open(f"{folder}/{name}", "w") as out:
            out.write(text)
    libraries = glob.glob(f"{PEERS}/nsd/usr/lib/*-linux-gnu*")
    with open(f"{folder}/out", "w") as log:
        subprocess.Popen(
            [f"{PEERS}/nsd/usr/sbin/nsd", "-d", "-c", f"{folder}/nsd.conf"], stdout=log, stderr=log,
            env=dict(os.environ, LD_LIBRARY_PATH=":".join(libraries)),
        )  # fmt: skip
    for name in ("resolv.conf", "nsswitch.conf"):  # In this run's mount namespace.
        if os.path.exists(f"/etc/{name}"):
            subprocess.run(["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"], check=True)
    query = bytes.fromhex("000101000001000000000000") + b"\x02d1\x05bench\x04test\x00\x00\x0f\x00\x01"
    for _ in range(200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
            ask.settimeout(0.1)
            try:
                ask.sendto(query, (NAME_SERVER, 53))
                if ask.recv(512)[7] > 0:
                    return
            except OSError:
                time.sleep(0.05)
    raise SystemExit(f"the name server does not answer, see {folder}")


class Peer:
    """A relay, by the functions of peers/NAME.sh. README.md says which, and what they are given."""

    def __init__(self, name, run, mode, sink_port, **extra):
        self.file = f"{HERE}/peers/{name}.sh"
        if not os.path.exists(self.file):
            raise SystemExit(f"no such peer: {self.file}")
        self.run, self.group = run, accounting.Group()
        self.port = int(extra.get("PORT", 2525))
        self.env = dict(os.environ, RUN=run, MODE=mode, PORT="2525", SINK_ADDR="127.0.0.1",
                        SINK_PORT=str(sink_port), PFX=PEERS)  # fmt: skip
        self.env.update({name: str(value) for name, value in extra.items()})

    def shell(self, what, inside=True, before=(), **options):
        options.setdefault("stdout", sys.stderr)
        return subprocess.Popen(
            [*before, "bash", "-c", 'set -e; . "$0"; ' + what, self.file],
            env=self.env, stdin=subprocess.DEVNULL,
            preexec_fn=self.group.enter if inside else None, **options,
        )  # fmt: skip

    def can(self, what):
        return self.shell(f'can "{what}"', inside=False).wait() == 0

    def start(self, before=()):
        """@return seconds until its greeting"""
        began = time.monotonic()
        with open(f"{self.run}/start.log", "a") as log:
            self.shell("start", before=before, stdout=log, stderr=log)
        if not wait_for_port(self.port, 60, greeting=True):
            with open(f"{self.run}/start.log") as log:
                raise SystemExit(f"{self.file} did not come up: {log.read()[-3000:]}")
        return time.monotonic() - began

    def stop(self):
        began = time.monotonic()
        self.shell("stop", inside=False).wait()
        for sig in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(500):
                if not self.group.pids():
                    return time.monotonic() - began
                time.sleep(0.01)
            for pid in self.group.pids():
                os.kill(pid, sig)
        return time.monotonic() - began

    def settle(self, seconds, level=0.1):
        """Wait until the peer uses less than `level` CPUs for a second."""
        end = time.monotonic() + min(seconds, left())
        before = sum(self.group.cpu())
        while time.monotonic() < end:
            time.sleep(1)
            after = sum(self.group.cpu())
            if after - before < level:
                return True
            before = after
        return False

    def end(self, *others):
        self.stop()
        for other in others:
            other.stop()
        self.group.remove()
