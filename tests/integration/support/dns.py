"""A name server on loopback, UDP and TCP on one port, with exactly the answers a test gives it."""
import ipaddress
import socket
import struct
import threading

from .waiting import Changing

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "TLSA": 52}
NAMES = {number: name for name, number in TYPES.items()}
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5


def _name(text):
    octets = b""
    for label in text.rstrip(".").split("."):
        if label:
            octets += bytes([len(label)]) + label.encode("ascii")
    return octets + b"\0"


def _rdata(kind, value):
    if kind == "A":
        return ipaddress.IPv4Address(value).packed
    if kind == "AAAA":
        return ipaddress.IPv6Address(value).packed
    if kind == "MX":
        preference, host = value
        return struct.pack("!H", preference) + _name(host)
    if kind in ("CNAME", "NS"):
        return _name(value)
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    if kind == "TLSA":
        usage, selector, matching, data = value
        return bytes([usage, selector, matching]) + bytes.fromhex(data)
    raise ValueError(kind)


class DnsServer(Changing):
    """dns.add("bank.test", "MX", (10, "mx1.bank.test")); an unknown name is NXDOMAIN."""

    def __init__(self, host="127.0.0.1"):
        super().__init__()
        self.host = host
        self.records = {}  # name -> {kind: [value]}
        self.codes = {}  # name -> rcode for everything asked of it
        self.silent = set()  # names that get no answer at all
        self.truncate = set()  # names whose UDP answers are cut, so that TCP is needed
        self.queries = []  # (name, kind, "udp" or "tcp")
        self.ttl = 300
        self.authentic = False  # set the AD bit
        self.udp = self.tcp = None

    def add(self, name, kind, *values):
        with self.changed:
            self.codes.pop(name, None)
            self.records.setdefault(name, {}).setdefault(kind, []).extend(values)
        return self

    def host_at(self, domain, *addresses):
        """`domain` has one MX per address: mx1.domain, mx2.domain ... by preference 10, 20 ..."""
        for i, address in enumerate(addresses, 1):
            self.add(domain, "MX", (10 * i, f"mx{i}.{domain}"))
            kind = "AAAA" if ":" in address else "A"
            self.add(f"mx{i}.{domain}", kind, address)
        return self

    def fail(self, name, code=SERVFAIL):
        with self.changed:
            self.codes[name] = code

    def heal(self, name):
        with self.changed:
            self.codes.pop(name, None)
            self.silent.discard(name)

    @property
    def text(self):
        return f"{self.host}:{self.port}"

    def __enter__(self):
        for _ in range(50):
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind((self.host, 0))
            self.port = self.udp.getsockname()[1]
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.tcp.bind((self.host, self.port))
                break
            except OSError:  # Somebody has this port by TCP: take another.
                self.udp.close()
                self.tcp.close()
        self.tcp.listen(64)
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()
        return self

    def __exit__(self, *unused):
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def wait_query(self, name, kind, count=1):
        def asked():
            return sum(1 for n, k, _ in self.queries if n == name and k == kind) >= count

        self.wait_until(asked, f"{count} queries for {name} {kind}; seen {self.queries}")

    def _serve_udp(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(4096)
                if not query:
                    return  # Closed under us.
                answer = self._answer(query, "udp")
                if answer:
                    self.udp.sendto(answer, peer)
            except OSError:
                return

    def _serve_tcp(self):
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_stream, args=(connection,), daemon=True).start()

    def _serve_stream(self, connection):
        with connection, connection.makefile("rb") as stream:
            while True:
                head = stream.read(2)
                if len(head) < 2:
                    return
                query = stream.read(struct.unpack("!H", head)[0])
                answer = self._answer(query, "tcp")
                if answer is None:
                    return
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, query, transport):
        if len(query) < 17:
            return None  # No header, or no question behind it.
        ident, flags, questions = struct.unpack("!HHH", query[:6])
        if questions != 1:
            return None
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii").lower())
            at += 1 + query[at]
        at += 1
        kind = NAMES.get(struct.unpack("!H", query[at : at + 2])[0], "?")
        question = query[12 : at + 4]
        name = ".".join(labels)
        with self.changed:
            self.queries.append((name, kind, transport))
            self.changed.notify_all()
            if name in self.silent:
                return None
            code, rows = self._look_up(name, kind)
            cut = transport == "udp" and name in self.truncate
        flags = 0x8080 | (flags & 0x0100) | (0x0020 if self.authentic else 0) | code
        if cut:
            return struct.pack("!HHHHHH", ident, flags | 0x0200, 1, 0, 0, 0) + question
        answers = b"".join(
            _name(owner) + struct.pack("!HHIH", TYPES[k], 1, self.ttl, len(data)) + data
            for owner, k, data in rows
        )
        authority = b""
        if not rows:
            soa = _name("ns.test") + _name("hostmaster.test") + struct.pack("!5I", 1, 60, 60, 60, 5)
            zone = name.rsplit(".", 1)[-1]
            authority = _name(zone) + struct.pack("!HHIH", 6, 1, 5, len(soa)) + soa
        counts = struct.pack("!HHHHHH", ident, flags, 1, len(rows), 0 if rows else 1, 0)
        return counts + question + answers + authority

    def _look_up(self, name, kind):
        """(rcode, [(owner, kind, rdata)]) with CNAMEs followed as a resolver does."""
        rows = []
        for _ in range(8):
            if name in self.codes:
                return self.codes[name], []
            records = self.records.get(name)
            if records is None:
                below = any(known.endswith("." + name) for known in self.records)
                return (0 if below or rows else NXDOMAIN), rows
            if "CNAME" in records and kind != "CNAME":
                target = records["CNAME"][0]
                rows.append((name, "CNAME", _rdata("CNAME", target)))
                name = target
                continue
            rows += [(name, kind, _rdata(kind, value)) for value in records.get(kind, [])]
            return 0, rows
        return SERVFAIL, []
