"""Every kind of TLS server against every mode: what comes of it is written down here, and every octet
that a server got before TLS stood is looked at."""
import re
import ssl

from harness import Case
from support.senders import message
from support.tls_zoo import Animal, Zoo

NAME = "mx.zoo.test"

# c: delivered in clear; t: over TLS; -: not delivered, and not a word of the mail said.
# pin and dane have the server's own key, pin-other and dane-other that of another; nothing is
# published for the domains of auto. Mail here is younger than five minutes: a broken offer of TLS
# never lets it go in clear.
MODES = ("off", "opportunistic", "encrypt", "verify", "pin", "pin-other", "dane", "dane-only", "dane-other",
         "auto")
EXPECTED = """
no-starttls        c c - - - - - - - c
refused-454        c - - - - - - - - -
refused-502        c - - - - - - - - -
injected           c - - - - - - - - -
garbage            c - - - - - - - - -
abort              c - - - - - - - - -
stall              c - - - - - - - - -
good               c t t t t - t t - t
wildcard           c t t t t - t t - t
chained            c t t t t - t t - t
cn-only            c t t - t - t t - t
wrong-name         c t t - t - t t - t
expired            c t t - t - t t - t
not-yet            c t t - t - t t - t
self-signed        c t t - t - t t - t
unknown-ca         c t t - t - t t - t
incomplete-chain   c t t - t - t t - t
tls10              c - - - - - - - - -
tls12              c t t t t - t t - t
tls13              c t t t t - t t - t
client-certificate c - - - - - - - - -
changed-after      c t t t t - t t - t
"""
V = ssl.TLSVersion


def animals(zoo):
    """One server for each line of the table."""
    good = zoo.kinds["good"]
    made = {kind: Animal(certificate) for kind, certificate in zoo.kinds.items()}
    made |= {
        "no-starttls": Animal(good, offer=False),
        "refused-454": Animal(good, starttls="454 4.7.0 TLS not available"),
        "refused-502": Animal(good, starttls="502 5.5.1 not implemented"),
        "injected": Animal(good, starttls="220 2.0.0 go\n250 2.0.0 injected"),
        "garbage": Animal(good, after="garbage"),
        "abort": Animal(good, after="abort"),
        "stall": Animal(good, after="stall"),
        "tls10": Animal(good, versions=(V.TLSv1, V.TLSv1)),
        "tls12": Animal(good, versions=(V.TLSv1_2, V.TLSv1_2)),
        "tls13": Animal(good, versions=(V.TLSv1_3, V.TLSv1_3)),
        "client-certificate": Animal(good, client_ca=zoo.ca[0]),
        "changed-after": Animal(good, behind=("SIZE 50000000",)),
    }
    return made


def key_of(variant, zoo):
    return zoo.spki(variant if variant in zoo.kinds else "good")


class Matrix(Case):
    def connector(self, variant, mode, port, zoo):
        """The text of one connector, for the domain VARIANT.MODE.test, and its name."""
        helo = f"{variant}.{mode}.test"
        own, other = key_of(variant, zoo), zoo.spki("wrong-name" if variant != "wrong-name" else "good")
        pins = {"pin": own, "pin-other": other}
        if mode == "verify":
            demand = f"verify {{ names {NAME}; ca-file {zoo.ca[0]} }}"
        elif mode in pins:
            demand = f"pin {{ pins {pins[mode]} }}"
        else:
            demand = "dane-only" if mode == "dane-other" else mode
        route = f"smarthosts [ [127.0.0.1]:{port} ]"
        if mode.startswith("dane"):
            host = f"{mode}.zoo.test"
            self.names.add(f"_{port}._tcp.{host}", "TLSA", (3, 1, 1, other if mode == "dane-other" else own))
            route = f"port {port}"
            self.names.add(helo, "MX", (10, host))
        return helo, f"""connector {variant}-{mode} {{
    domains {helo}
    {route}
    helo {helo}
    tls {demand}
    timeouts {{ tls 3s }}
}}"""

    def start_zoo(self):
        zoo = Zoo(self.path("zoo"), NAME)
        servers = animals(zoo)
        for server in servers.values():
            server.up()
            self.addCleanup(server.down)
        self.names = self.dns()
        self.names.authentic = True
        self.names.add("signed.test", "A", "127.0.0.1")
        for host in ("dane.zoo.test", "dane-only.zoo.test", "dane-other.zoo.test"):
            self.names.add(host, "A", "127.0.0.1")
        return zoo, servers

    def test_every_server_against_every_mode(self):
        zoo, servers = self.start_zoo()
        cases, text = {}, []
        for line in EXPECTED.strip().splitlines():
            variant, *results = line.split()
            for mode, result in zip(MODES, results, strict=True):
                helo, block = self.connector(variant, mode, servers[variant].port, zoo)
                cases[helo] = (variant, mode, result)
                text.append(block)
        daemon = self.daemon("\n".join(text), resolver=self.names.text + "\n    trusted yes\n    self-test signed.test")
        for helo in cases:
            self.send(daemon, f"you@{helo}", content=message(f"secret-{helo}"))

        def taken(helo):
            return [got for got in servers[cases[helo][0]].taken if got[0] == helo]

        def tries(helo):
            """Connections, and attempts that needed none: a young message at a session in clear."""
            said = sum(f'rcpt="you@{helo}"' in line for line in daemon.lines)
            return len(servers[cases[helo][0]].of_client(helo)) + said

        daemon.until(
            lambda rows: all(
                taken(helo) if result != "-" else tries(helo) for helo, (_, _, result) in cases.items()
            ),
            "status", what="an outcome for each",
        )  # fmt: skip
        # Two more rounds, so that one has ended whole: the small handshake, and whatever else a
        # retry might dare.
        waiting = [helo for helo, (_, _, result) in cases.items() if result == "-"]
        for _ in range(2):
            before = {helo: tries(helo) for helo in waiting}
            daemon.ctl("flush", "--all")
            daemon.until(lambda rows: all(tries(helo) > before[helo] for helo in waiting),
                         "status", what="another attempt for each that waits")  # fmt: skip
        for helo, (variant, mode, result) in cases.items():
            with self.subTest(server=variant, mode=mode):
                got = taken(helo)
                if result == "-":
                    self.assertEqual([], got)
                else:
                    self.assertEqual(1, len(got))
                    self.assertEqual(result == "t", got[0][1] != "")
                self.assert_octets(servers[variant], helo, mode, result)

    def assert_octets(self, server, helo, mode, result):
        """What went out in clear, on every connection."""
        for octets in server.of_client(helo):
            if result == "c":
                continue
            head = re.match(rb"EHLO [^\r\n]+\r\n(STARTTLS\r\n)?", octets)
            self.assertIsNotNone(head, octets[:200])
            rest = octets[head.end():]
            if rest[:1] == b"\x16":  # a handshake; nothing of the mail may lie in it
                self.assertNotIn(b"MAIL", rest)
                self.assertNotIn(b"secret-", rest)
            else:
                self.assertIn(rest, (b"", b"QUIT\r\n", b"RSET\r\nQUIT\r\n"))
        if mode == "off":
            self.assertNotIn(b"STARTTLS", b"".join(server.of_client(helo)))

    def test_an_address_needs_no_trusted_resolver(self):
        """Nothing can be published for [127.0.0.1]: auto does not wait for DNSSEC there."""
        server = Animal(offer=False).up()
        self.addCleanup(server.down)
        names = self.dns()  # Without AD: the self-test fails.
        names.add("signed.test", "A", "127.0.0.1")
        daemon = self.daemon(
            f"connector out {{ domains *; smarthosts [ [127.0.0.1]:{server.port} ]; tls auto }}",
            resolver=names.text + "\n    trusted yes\n    self-test signed.test",
        )
        self.send(daemon)
        server.wait_until(lambda: server.taken, "the message")

    def test_worse_on_the_second_connection(self):
        """What the first connection proved says nothing about the second."""
        zoo = Zoo(self.path("zoo"), NAME)
        good = zoo.kinds["good"]
        worse = {
            "expired": Animal(zoo.kinds["expired"]),
            "stripped": Animal(good, offer=False),
            "refused": Animal(good, starttls="454 4.7.0 not now"),
            "wrong-name": Animal(zoo.kinds["wrong-name"]),
        }
        text, servers = [], {}
        for kind, second in worse.items():
            server = servers[kind] = Animal(good, second=second).up()
            self.addCleanup(server.down)
            text.append(f"""connector {kind} {{
    domains {kind}.test
    smarthosts [ [127.0.0.1]:{server.port} ]
    helo {kind}.test
    tls verify {{ names {NAME}; ca-file {zoo.ca[0]} }}
    limits {{ messages-per-connection 1; per-destination 1 }}
}}""")
        daemon = self.daemon("\n".join(text))
        for kind, server in servers.items():
            self.send(daemon, f"first@{kind}.test")
            server.wait_until(lambda server=server: len(server.taken) == 1, "the first message")
            self.send(daemon, f"second@{kind}.test")
        for kind, server in servers.items():
            server.wait_until(lambda server=server: server.seen.get(server_hello(server), 0) >= 3,
                              "two bad connections")  # fmt: skip
            with self.subTest(second=kind):
                self.assertEqual(1, len(server.taken))
                self.assertTrue(server.taken[0][1].startswith("TLSv1."))
                for octets in server.clear:
                    self.assertNotIn(b"MAIL", octets)


def server_hello(server):
    """The name of the only client of this server."""
    return next(iter(server.seen), "")
