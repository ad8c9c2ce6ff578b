"""No secret is seen: passwords, tokens and keys with contents that cannot be mistaken are used in both
directions at log level debug, refused, reloaded and broken; then everything that the daemon wrote, answered or
leaves in /proc and in a core is searched for them."""
import base64
import glob
import os
import signal
import struct
import subprocess

import test_hardening
from harness import Case, smarthost, tag
from support.waiting import PATIENCE_S
from test_intake_auth import TlsClient, hashed, plain

PASSWORD = "Zauberlehrling-Besen-Besen"  # ours, to a partner
TOKEN = "ya29.Walle-walle-manche-Strecke"  # likewise, by XOAUTH2
WRONG = "Hat-der-alte-Hexenmeister"  # ours, refused
CLIENT = "Seids-gewesen-in-die-Ecke"  # a client's
MISTAKEN = "Und-nun-komm-du-alter-Besen"  # a client's, refused


def forms_of(secret):
    """It, in hexadecimal, and in base64 wherever it may begin within three octets; ends that depend on what
    stands beside it are left out."""
    octets = secret if isinstance(secret, bytes) else secret.encode()
    yield octets
    yield octets.hex().encode()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + octets)
        yield text[4 if before else 0 : -4]


def key_octets(path):
    """The private number of an EC key file, and the lines of the file."""
    done = subprocess.run(["openssl", "ec", "-in", path, "-noout", "-text"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    text = done.stdout.split("priv:")[1].split("pub:")[0]
    with open(path, "rb") as pem:
        lines = [line.strip() for line in pem if b"-----" not in line]
    return bytes.fromhex("".join(text.split()).replace(":", "")), lines


PT_LOAD = 1


def memory_of(core):
    """The memory that a core holds. The registers, which stand in its notes, are left out: a debugger run by root
    reads them whatever we do, and a vector register shows what was last copied."""
    programs, entry_len, entries = struct.unpack_from("<Q", core, 32)[0], *struct.unpack_from("<HH", core, 54)
    for at in range(programs, programs + entries * entry_len, entry_len):
        kind, _, offset, _, _, octets = struct.unpack_from("<IIQQQQ", core, at)
        if kind == PT_LOAD:
            yield core[offset : offset + octets]


class Hidden(Case):
    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.needles = {}
        for secret in (PASSWORD, TOKEN, WRONG, CLIENT, MISTAKEN):
            self.needles[secret] = list(forms_of(secret))

    def keep(self, name, secret):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(secret + "\n")
        os.chmod(path, 0o600)
        return path

    def hide_key(self, key):
        number, lines = key_octets(key)
        self.needles[key] = [*forms_of(number), *lines]

    def start(self, *engine):
        certificate, key = self.ca.issue("relay.us.test")
        client = self.ca.issue("client.us.test")
        self.hide_key(key)
        self.hide_key(client[1])
        shown = self.ca.issue("mx.hub.test")
        verify = (f"tls verify {{ ca-file {self.ca.pem}; names mx.hub.test\n"
                  f"client-certificate {client[0]}; client-key {client[1]} }}")  # fmt: skip
        self.partners, blocks = {}, []
        for name, mechanism, setting, secret, good in (
            ("plain", "plain", "password-file", PASSWORD, PASSWORD),
            ("login", "login", "password-file", PASSWORD, PASSWORD),
            ("cram", "cram-md5", "password-file", PASSWORD, PASSWORD),
            ("scram", "scram-sha-256", "password-file", PASSWORD, PASSWORD),
            ("token", "xoauth2", "token-file", TOKEN, TOKEN),
            ("wrong", "plain", "password-file", WRONG, PASSWORD),
            ("wrongtoken", "xoauth2", "token-file", WRONG, TOKEN),
        ):  # fmt: skip
            self.partners[name] = self.partner(users={"relay": good}, certificate=shown)
            auth = f"auth {mechanism} {{ user relay; {setting} {self.keep(name + '.secret', secret)} }}"
            blocks.append(smarthost(name, self.partners[name], verify + "\n" + auth, f"{name}.test"))
        self.users = self.path("users")
        crypt, scram = hashed("anna", CLIENT)
        self.needles["hash"] = [crypt.split(":", 1)[1].encode(), scram.split(",")[-1].encode()]
        with open(self.users, "w", encoding="utf-8") as out:
            out.write(crypt + "\n" + scram + "\n")
        daemon = self.daemon("\n".join(blocks), start=False)
        daemon.blocks["listen"] = (
            f"listen 127.0.0.1:0 {{ relay-from 127.0.0.0/8; auth-file {self.users}\n"
            f" tls starttls {{ certificate {certificate}; key {key} }} }}")  # fmt: skip
        test_hardening.engine(daemon, *engine)
        return daemon.start()

    def use_all(self, daemon):
        for password, code in ((CLIENT, 235), (MISTAKEN, 535)):
            with TlsClient(daemon.address) as client:
                self.assertEqual(code, client.say("AUTH PLAIN " + plain("anna", password)).code)
        with TlsClient(daemon.address) as client:
            client.say("AUTH LOGIN")
            client.say(base64.b64encode(b"anna"))
            self.assertEqual(235, client.say(base64.b64encode(CLIENT.encode())).code)
        for name in self.partners:
            self.send(daemon, f"you@{name}.test")
        for name, partner in self.partners.items():
            if not name.startswith("wrong"):
                partner.wait_messages(1)
        for name in ("wrong.test", "wrongtoken.test"):
            daemon.until(lambda rows, name=name: any(name in str(row) and "535" in str(row) for row in rows),
                         "queue", what="a refusal of our credentials")  # fmt: skip

    def break_all(self, daemon):
        """Files with faults, and reloads that see them."""
        with open(self.users, "a", encoding="utf-8") as out:
            out.write(f"anna {CLIENT}\nberta:{MISTAKEN}\n")
        self.keep("plain.secret", f"{PASSWORD}\n{PASSWORD}")
        daemon.ctl("reload")
        good = daemon.blocks["connectors"]
        daemon.blocks["connectors"] = good.replace(self.path("token.secret"), self.path("none.secret"))
        daemon.write_config()
        daemon.ctl_run("reload")
        daemon.blocks["connectors"] = good
        daemon.write_config()
        daemon.hang_up()
        daemon.wait_line("evt=auth-file-bad")

    def said(self, daemon):
        """name: octets, of all that it wrote or answers."""
        found = {"log": "\n".join(daemon.lines).encode()}
        for folder in ("events", "queue"):
            for path in glob.glob(daemon.path(folder, "*")):
                with open(path, "rb") as file:
                    found[path] = file.read()
        ids = [row["id"] for row in daemon.list()]
        verbs = [["status"], ["queue"], ["list"], ["connectors"], ["connectors", "--matrix"], ["audit"],
                 ["jobs"], ["reload", "--plan"], ["show", *ids], ["why", *ids]]  # fmt: skip
        verbs += [["explain", f"you@{name}.test"] for name in self.partners]
        verbs += [["probe", f"you@{name}.test"] for name in self.partners]
        for verb in verbs:
            for options in ((), ("--json",)):
                done = daemon.ctl_run(*verb, options=options)
                found[" ".join([*verb, *options])] = (done.stdout + done.stderr).encode()
        for name in ("cmdline", "environ", "comm"):
            with open(f"/proc/{daemon.pid}/{name}", "rb") as file:
                found["/proc/PID/" + name] = file.read()
        return found

    def core_of(self, daemon):
        prefix = self.path("core")
        done = subprocess.run(["gcore", "-o", prefix, str(daemon.pid)], capture_output=True, text=True,
                              timeout=PATIENCE_S * 4, check=False)  # fmt: skip
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        with open(f"{prefix}.{daemon.pid}", "rb") as file:
            segments = list(memory_of(file.read()))
        self.assertTrue(segments)  # no memory at all, yet what there would have been of it
        pages = (segment[at : at + 4096] for segment in segments for at in range(0, len(segment), 4096))
        return b"".join(page for page in pages if page.strip(b"\0"))  # mostly stacks that were never used

    def search(self, found):
        seen = {(where, name) for where, text in found.items()
                for name, needles in self.needles.items() if any(needle in text for needle in needles)}  # fmt: skip
        self.assertEqual(set(), seen)

    @tag("sandbox")
    def test_it_is_nowhere(self):
        daemon = self.start()
        self.use_all(daemon)
        self.break_all(daemon)
        found = self.said(daemon)
        self.search(found)
        # The search finds what is there.
        self.assertIn(b"evt=auth_failed", found["log"])
        self.assertIn(b"you@wrong.test", found["list"])

    @tag("release")
    def test_a_core_has_none(self):
        daemon = self.start()
        self.use_all(daemon)
        core = self.core_of(daemon)
        self.search({"core": core})
        self.assertNotIn(b"relay.us.test", core)  # no memory at all

    @tag("release")
    def test_a_core_that_was_asked_for_has_memory(self):
        """Or the search above would prove nothing; secrets from files are left out of that one, too."""
        daemon = self.start("core-dumps yes")
        self.use_all(daemon)
        core = self.core_of(daemon)
        self.assertIn(b"relay.us.test", core)
        found = {name for name, needles in self.needles.items() if any(needle in core for needle in needles)}
        self.assertTrue(any(name.endswith(".key") for name in found), found)
        self.assertEqual(set(), found & {PASSWORD, TOKEN, WRONG})

    @tag("release")
    def test_the_kernel_writes_no_core(self):
        with open("/proc/sys/kernel/core_pattern", encoding="ascii") as pattern:
            if pattern.read().startswith(("/", "|")):
                self.skipTest("cores of this machine are not written where the process is")
        for setting, cores in (("core-dumps no", 0), ("core-dumps yes\n sandbox off", 1)):
            with self.subTest(setting=setting):
                daemon = self.daemon(smarthost("out", self.partner()), start=False, name=setting[11:14].strip())
                test_hardening.engine(daemon, setting)
                daemon.wrapper = ["env", "-C", daemon.folder, "prlimit", "--core=unlimited"]
                daemon.start()
                daemon.process.send_signal(signal.SIGQUIT)  # Nothing handles it: a core by default.
                self.assertEqual(-signal.SIGQUIT, daemon.wait_end())
                self.assertEqual(cores, len(glob.glob(daemon.path("core*"))))
