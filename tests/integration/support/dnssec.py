"""A signed tree of zones on loopback: Knot signs and serves, Unbound validates. The daemon's
resolver is Unbound, so that AD, SERVFAIL and forged answers are what a real validator gives.

    test                      signed, the anchor
    dane.test                 signed; a test adds its names here
    _tcp.broken.dane.test     signed, but its DS is wrong: TLSA lookups below it are bogus
    _tcp.dead.dane.test       its server has no zone for it: TLSA lookups below it get SERVFAIL
    plain.test                not signed
    bogus.test                signed, but its DS is wrong
"""
import hashlib
import os
import subprocess
import threading
import time

from .ports import reserve_port
from .waiting import GUARD, PATIENCE_S

SIGNED = ("test", "dane.test", "_tcp.broken.dane.test", "bogus.test")
DEAD = "_tcp.dead.dane.test"
BROKEN = ("_tcp.broken.dane.test", "bogus.test")
SOA = "@ 60 SOA ns.test. hostmaster.test. 1 3600 600 86400 1\n@ 60 NS ns.test.\n"


def _openssl(*args, octets=None):
    return subprocess.run(["openssl", *args], input=octets, check=True, capture_output=True).stdout


def certificate_der(pem):
    return _openssl("x509", "-in", pem, "-outform", "DER")


def spki_der(pem):
    key = _openssl("x509", "-in", pem, "-noout", "-pubkey")
    return _openssl("pkey", "-pubin", "-outform", "DER", octets=key)


def tlsa(pem, usage=3, selector=1, matching=1):
    """The text of a TLSA record for a certificate."""
    data = spki_der(pem) if selector == 1 else certificate_der(pem)
    if matching == 1:
        data = hashlib.sha256(data).digest()
    elif matching == 2:
        data = hashlib.sha512(data).digest()
    return f"{usage} {selector} {matching} {data.hex()}"


class Dnssec:
    """`records` is zone -> text. `text` is the validator's address for a resolver setting; `libc`, if
    it is wanted, another for resolv.conf, which knows port 53 only (needs root)."""

    def __init__(self, folder, records, for_libc=False):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o777)
        self.knot_port, self.port = reserve_port(), reserve_port()
        # An address of our own in 127.53/16, by a port that nobody else has.
        self.libc = f"127.53.{self.port >> 8}.{self.port & 255}" if for_libc else None
        self.processes = []
        zones = {name: SOA for name in (*SIGNED, "plain.test")}
        for name, text in records.items():
            zones[name] += text.strip() + "\n"
        zones["test"] += "ns 60 A 127.0.0.1\n"
        zones["test"] += "".join(f"{n} 60 NS ns.test.\n" for n in ("dane", "plain", "bogus"))
        zones["dane.test"] += "_tcp.broken 60 NS ns.test.\n_tcp.dead 60 NS ns.test.\n"
        self.zones = zones

    @property
    def text(self):
        return f"127.0.0.1:{self.port}"

    def _path(self, *names):
        return os.path.join(self.folder, *names)

    def _write(self, name, text):
        with open(self._path(name), "w", encoding="ascii") as out:
            out.write(text)

    def _run(self, *command):
        return subprocess.run(command, check=True, capture_output=True, text=True,
                              timeout=PATIENCE_S).stdout  # fmt: skip

    def _spawn(self, ready, *command):
        process = subprocess.Popen([*GUARD, *command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        self.processes.append(process)
        said = []
        for line in process.stderr:
            said.append(line)
            if ready in line:
                # Keep its pipe from filling up.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return
        raise AssertionError(f"{command[0]} did not start: {b''.join(said).decode()}")

    def knotc(self, *words):
        return self._run("knotc", "-s", self._path("knot.sock"), *words)

    def _begin(self, zone):
        """Right after its start Knot may still be busy with a zone, and tells nobody when it is done:
        it is asked again."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.knotc("zone-begin", zone)
            except subprocess.CalledProcessError as refused:
                if time.monotonic() > end:
                    raise AssertionError(f"zone-begin {zone}: {refused.stderr}") from refused
                time.sleep(0.02)

    def _digest(self, zone):
        """The DS of a zone, as rdata."""
        for line in self._run("keymgr", "-c", self._path("knot.conf"), zone, "ds").splitlines():
            name, _, *rdata = line.split()
            if name and rdata[2] == "2":
                return " ".join(rdata)
        raise AssertionError("no DS for " + zone)

    def start(self):
        zones = ""
        for name, text in self.zones.items():
            self._write(name + ".zone", text)
            signing = "on" if name in SIGNED else "off"
            zones += f"  - domain: {name}\n    dnssec-signing: {signing}\n"
        zones += f"  - domain: {DEAD}\n"  # no file
        self._write("knot.conf", f"""server:
    rundir: {self.folder}
    listen: 127.0.0.1@{self.knot_port}
database:
    storage: {self.folder}
log:
  - target: stderr
    any: info
policy:
  - id: p256
    algorithm: ECDSAP256SHA256
    single-type-signing: on
template:
  - id: default
    storage: {self.folder}
    file: "%s.zone"
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    dnssec-policy: p256
zone:
{zones}""")
        self._spawn(b"server started", "knotd", "-c", self._path("knot.conf"))
        for zone in SIGNED[1:]:
            rdata = self._digest(zone)
            if zone in BROKEN:
                rdata = rdata[:-8] + "deadbeef"
            parent = "dane.test" if zone.startswith("_tcp") else "test"
            self.set(parent, zone[: -len(parent) - 1], "DS", rdata)
        self._write("anchor", f"test. IN DS {self._digest('test')}\n")
        self._write("unbound.conf", f"""server:
    directory: "{self.folder}"
    username: ""
    chroot: ""
    pidfile: "{self._path('unbound.pid')}"
    use-syslog: no
    verbosity: 1
    num-threads: 1
    interface: 127.0.0.1@{self.port}
    {f"interface: {self.libc}@53" if self.libc else ""}
    do-not-query-localhost: no
    module-config: "validator iterator"
    trust-anchor-file: "{self._path('anchor')}"
    local-zone: "test." nodefault
    cache-max-ttl: 1
    cache-max-negative-ttl: 1
    ede: yes
""" + "".join(f"""stub-zone:
    name: "{name}."
    stub-addr: 127.0.0.1@{self.knot_port}
""" for name in (*self.zones, DEAD)))
        self._spawn(b"start of service", "unbound", "-d", "-c", self._path("unbound.conf"))
        return self

    def set(self, zone, owner, kind, *values, ttl=1):
        """Replace the records of this kind at an owner (relative to the zone); signed at once."""
        self._begin(zone)
        try:
            self.knotc("zone-unset", zone, owner, kind)
        except subprocess.CalledProcessError:
            pass  # There were none.
        for value in values:
            self.knotc("zone-set", zone, owner, str(ttl), kind, *value.split())
        self.knotc("zone-commit", zone)

    def kill_resolver(self):
        """Nobody answers at its port any more."""
        resolver = self.processes.pop()
        resolver.terminate()
        resolver.wait(PATIENCE_S)

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(PATIENCE_S)
