"""`bhctl probe` and Postfix's posttls-finger look at the same hosts, and say the same of them."""
import os
import subprocess

from harness import Case, tag
from support.dnssec import Dnssec, tlsa
from support.peers import PEERS, why_not
from support.senders import have
from support.tls_zoo import Animal, Zoo
from support.waiting import PATIENCE_S

NAME = "mx.zoo.test"


class Finger(Case):
    def setUp(self):
        super().setUp()
        reason = why_not("postfix")
        if reason:
            self.skipTest(reason)
        os.makedirs(self.path("finger"))
        with open(self.path("finger", "main.cf"), "w", encoding="ascii") as out:
            out.write("compatibility_level = 3.6\nmail_owner = postfix\nsetgid_group = postdrop\n"
                      "inet_protocols = ipv4\n")  # fmt: skip
        self.zoo = Zoo(self.path("zoo"), NAME)

    def finger(self, *words, resolver=None):
        """Whether it takes the peer for who it should be; and what it said."""
        root = os.path.join(PEERS, "postfix")
        command = [f"{root}/usr/sbin/posttls-finger", *words]
        if resolver:
            with open(self.path("resolv.conf"), "w", encoding="ascii") as out:
                out.write(f"nameserver {resolver}\noptions trust-ad edns0\n")
            script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", script, self.path("resolv.conf"), *command]
        environment = dict(os.environ, MAIL_CONFIG=self.path("finger"),
                           LD_LIBRARY_PATH=os.path.join(root, "usr/lib/postfix"))  # fmt: skip
        result = subprocess.run(command, env=environment, capture_output=True, text=True,
                                timeout=PATIENCE_S, check=False)  # fmt: skip
        said = result.stdout + result.stderr
        return "Verified TLS connection established" in said, said

    def probe(self, daemon, domain):
        """The same of ours: the row of its only target."""
        answer = daemon.ctl_run("probe", domain)
        self.assertIn(answer.returncode, (0, 1), answer.stderr)
        (row,) = [row for row in daemon.ctl("probe", domain, status=answer.returncode)
                  if row["kind"] == "target"]  # fmt: skip
        return answer.returncode == 0, row


@tag("peers")
class Names(Finger):
    """A certificate for mx.zoo.test by the authority, and everything that is not quite that."""

    # What both say. Postfix takes a common name where there is no name of another kind, which
    # RFC 9525 forbids and we don't.
    GOOD = ("good", "wildcard", "chained")
    BAD = ("wrong-name", "expired", "not-yet", "self-signed", "unknown-ca", "incomplete-chain")

    def test_verify(self):
        servers = {kind: Animal(certificate) for kind, certificate in self.zoo.kinds.items()}
        servers["no-starttls"] = Animal(self.zoo.kinds["good"], offer=False)
        for server in servers.values():
            server.up()
            self.addCleanup(server.down)
        daemon = self.daemon("\n".join(f"""connector {kind} {{
    domains {kind}.test
    smarthosts [ [127.0.0.1]:{server.port} ]
    tls verify {{ names {NAME}; ca-file {self.zoo.ca[0]} }}
}}""" for kind, server in servers.items()))
        for kind, server in servers.items():
            theirs, said = self.finger("-c", "-l", "secure", "-F", self.zoo.ca[0],
                                       f"[127.0.0.1]:{server.port}", NAME)  # fmt: skip
            ours, row = self.probe(daemon, f"{kind}.test")
            with self.subTest(kind=kind):
                self.assertEqual(kind in self.GOOD, ours, row)
                self.assertEqual(ours or kind == "cn-only", theirs, said)
        self.assertEqual({*self.GOOD, *self.BAD, "cn-only", "no-starttls"}, set(servers))


@tag("peers")
class Dane(Finger):
    def setUp(self):
        super().setUp()
        if not (have("knotd") and have("unbound")):
            self.skipTest("knotd and unbound are not installed")

    def test_dane(self):
        certificates = self.zoo.kinds
        wrong = "3 1 1 " + "ab" * 32
        kinds = {  # certificate, records, what both say
            "match": ("good", [tlsa(certificates["good"][0])], True),
            "mismatch": ("good", [wrong], False),
            "rollover": ("good", [wrong, tlsa(certificates["good"][0])], True),
            # Usage 3 asks neither about names nor about dates (RFC 7672 section 3.1.1).
            "expired": ("expired", [tlsa(certificates["expired"][0])], True),
            "others-name": ("wrong-name", [tlsa(certificates["wrong-name"][0], 3, 0, 1)], True),
            "unusable": ("good", ["0 1 1 " + "cd" * 32], False),
            "none": ("good", [], False),
        }
        zone, text, ports = [], "", {}
        for kind, (certificate, records, _) in kinds.items():
            server = Animal(certificates[certificate]).up()
            self.addCleanup(server.down)
            ports[kind] = port = server.port
            zone += [f"{kind} 1 MX 10 mx.{kind}", f"mx.{kind} 1 A 127.0.0.1"]
            zone += [f"_{port}._tcp.mx.{kind} 1 TLSA {record}" for record in records]
            text += f"connector {kind} {{ domains {kind}.dane.test; port {port}; tls dane-only }}\n"
        world = Dnssec(self.path("dns"), {"dane.test": "\n".join(zone)}, for_libc=True)
        self.addCleanup(world.stop)
        world.start()
        daemon = self.daemon(
            text, resolver=world.text + "\n    trusted yes\n    self-test dane.test")  # fmt: skip
        for kind, (_, _, good) in kinds.items():
            ours, row = self.probe(daemon, f"{kind}.dane.test")
            theirs, said = self.finger("-c", "-l", "dane-only", f"{kind}.dane.test:{ports[kind]}",
                                       resolver=world.libc)  # fmt: skip
            with self.subTest(kind=kind):
                self.assertEqual(good, ours, row)
                self.assertEqual(good, theirs, said)
