"""Outgoing AUTH: each mechanism against a partner that asks for it, to whom credentials never go,
what a refusal does to the mail, and that the secret is seen nowhere."""
import glob
import os

from harness import Case, smarthost

NAME = "mx.bank.test"
SECRET = "tr0ub4dor-und-drei"


class AuthCase(Case):
    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.certificate = self.ca.issue(NAME)
        self.secret = self.path("secret")
        self.keep(SECRET)

    def keep(self, secret, path=None, mode=0o600):
        """As a tool of rotation does it: the file is whole at any time."""
        path = path or self.secret
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(secret + "\n")
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)

    def asking(self, **options):
        options.setdefault("users", {"relay": SECRET})
        options.setdefault("certificate", self.certificate)
        return self.partner(**options)

    def verify(self):
        return f"tls verify {{ ca-file {self.ca.pem}; names {NAME} }}"

    def auth(self, mechanism="auto", more=""):
        file = "token-file" if mechanism == "xoauth2" else "password-file"
        return f"auth {mechanism} {{ user relay; {file} {self.secret}; {more} }}"

    def policy(self, mechanism="auto"):
        return self.verify() + "\n    " + self.auth(mechanism)

    def kept(self, daemon, *reasons):
        """It waits, and the queue says why."""

        def told(rows):
            return any(all(r in str(row) for r in reasons) for row in rows)

        daemon.until(told, "queue", what=" ".join(reasons))

    def secret_nowhere(self, daemon):
        """Neither in logs, nor events, nor what tools show; nor as base64 of PLAIN."""
        hidden = [SECRET, "AHJlbGF5AHRyMHViNGRvci11bmQtZHJlaQ", "dHIwdWI0ZG9yLXVuZC1kcmVp"]
        shown = list(daemon.lines)
        for path in glob.glob(daemon.path("events", "*")):
            with open(path, encoding="utf-8", errors="replace") as file:
                shown.append(file.read())
        for verb in (["status"], ["queue"], ["list"], ["connectors"],
                     ["explain", "you@bank.test"]):  # fmt: skip
            done = daemon.ctl_run(*verb, options=())
            shown.append(done.stdout + done.stderr)
        for text in shown:
            for word in hidden:
                self.assertNotIn(word, str(text))


class Mechanisms(AuthCase):
    def test_each_mechanism(self):
        blocks, partners = [], {}
        for name in ("plain", "login", "cram-md5", "scram-sha-256", "xoauth2"):
            partners[name] = self.asking()
            blocks.append(smarthost(name, partners[name], self.policy(name), f"{name}.test"))
        daemon = self.daemon("\n".join(blocks))
        for name in partners:
            self.send(daemon, f"you@{name}.test")
        for name, partner in partners.items():
            with self.subTest(mechanism=name):
                (got,) = partner.wait_messages(1)
                self.assertEqual(("relay", True), (got.user, got.tls != ""))
                self.assertEqual([(name.upper(), "relay", "235 2.7.0 good")], partner.logins)
                clear = b"".join(partner.clear.values())
                self.assertNotIn(b"AUTH", clear)
        self.secret_nowhere(daemon)

    def test_the_strongest_that_is_offered(self):
        offers = {
            "scram": (("LOGIN", "PLAIN", "XOAUTH2", "CRAM-MD5", "SCRAM-SHA-256"), "SCRAM-SHA-256"),
            "cram": (("LOGIN", "PLAIN", "CRAM-MD5"), "CRAM-MD5"),
            "plain": (("LOGIN", "PLAIN"), "PLAIN"),
            "login": (("LOGIN", "XOAUTH2"), "LOGIN"),
        }
        blocks, partners = [], {}
        for name, (offered, _) in offers.items():
            partners[name] = self.asking(mechanisms=offered)
            blocks.append(smarthost(name, partners[name], self.policy(), f"{name}.test"))
        daemon = self.daemon("\n".join(blocks))
        for name in partners:
            self.send(daemon, f"you@{name}.test")
        for name, partner in partners.items():
            with self.subTest(offer=name):
                partner.wait_messages(1)
                self.assertEqual(offers[name][1], partner.logins[0][0])


class Refusals(AuthCase):
    def test_a_refusal_parks_the_mail_and_is_not_hammered(self):
        partner = self.asking(users={"relay": "another"})
        slow = """retry quick {
    intervals 1h
    destination-intervals 1h
    glitch none
    jitter 0%
    expire 5d
}
defaults { retry quick; tls off }"""
        daemon = self.relay_to(partner, self.policy("plain"), retry=slow)
        for i in range(20):
            self.send(daemon, f"you{i}@bank.test")
        self.kept(daemon, "535", "auth")
        daemon.wait_line(r"evt=auth_failed connector=out .*mechanism=PLAIN .*code=535")
        self.assertEqual([], partner.messages)
        self.assertEqual(0, partner.count("mail"))
        tried = len(partner.logins)
        self.assertEqual(1, tried, partner.logins)  # an hour to the next one
        self.keep("another")
        daemon.ctl("flush", "--all")
        partner.wait_messages(20)
        self.assertEqual(1, sum(v.startswith("535") for _, _, v in partner.logins))
        self.secret_nowhere(daemon)

    def test_a_refusal_is_the_connectors_not_the_domains(self):
        """Thirty domains behind one smarthost try its password once together, not once each."""
        partner = self.asking(users={"relay": "another"})
        slow = """retry quick {
    intervals 1h
    destination-intervals 1h
    glitch none
    jitter 0%
    expire 5d
}
defaults { retry quick; tls off }"""
        daemon = self.relay_to(partner, self.policy("plain"), retry=slow)
        for i in range(30):
            self.send(daemon, f"you@d{i}.test")
        daemon.until(lambda rows: sum("535" in str(row) for row in rows) == 30, "queue")
        self.assertEqual(1, len(partner.logins), partner.logins)
        self.send(daemon, "you@late.test")
        daemon.until(lambda rows: sum("535" in str(row) for row in rows) == 31, "queue")
        self.assertEqual(1, len(partner.logins), partner.logins)

    def test_not_offered_and_temporary_refusals_keep_the_mail(self):
        cases = {
            "none": (self.asking(users=None), "auto", ("auth_not_offered",)),
            "other": (self.asking(mechanisms=("LOGIN", "PLAIN")), "scram-sha-256",
                      ("auth_not_offered",)),
            "busy": (self.asking().on("auth", "454 4.7.0 not now"), "plain", ("454", "auth")),
            "weak": (self.asking().on("auth", "534 5.7.9 too weak"), "plain", ("534", "auth")),
            "token": (self.asking(users={"relay": "x"}), "xoauth2", ("535", "auth")),
            "rounds": (self.asking(scram_rounds=1000), "scram-sha-256", ("rounds",)),
            "liar": (self.asking(), "scram-sha-256", ("signature",)),
        }  # fmt: skip
        cases["liar"][0].scram_lies = True
        blocks = [smarthost(n, p, self.policy(m), f"{n}.test") for n, (p, m, _) in cases.items()]
        daemon = self.daemon("\n".join(blocks))
        for name in cases:
            self.send(daemon, f"you@{name}.test")
        for name, (partner, _, reasons) in cases.items():
            with self.subTest(case=name):
                self.kept(daemon, f"{name}.test", *reasons)
                self.assertEqual(0, partner.count("mail"))
                self.assertEqual([], partner.messages)

    def test_an_unreadable_secret_parks_the_mail_until_it_is_there(self):
        os.unlink(self.secret)
        partner = self.asking()
        daemon = self.relay_to(partner, self.policy())
        self.send(daemon)
        self.kept(daemon, "our_secret")
        self.assertEqual(0, partner.count("auth"))
        self.keep(SECRET)
        partner.wait_messages(1)

    def test_a_credential_of_the_service_manager(self):
        """Named, not where it lies; it is read again when it has changed, and never shown."""
        os.mkdir(self.path("credentials"))
        partner = self.asking()
        auth = "auth plain { user relay; password-file credential:bank.secret }"
        daemon = self.daemon(
            smarthost("out", partner, self.verify() + "\n    limits { idle 100ms }\n    " + auth), start=False)
        daemon.environment["CREDENTIALS_DIRECTORY"] = self.path("credentials")
        daemon.start()
        self.send(daemon)
        self.kept(daemon, "our_secret", "credential:bank.secret")
        self.keep(SECRET, self.path("credentials", "bank.secret"))
        partner.wait_messages(1)
        self.assertEqual([], [v for _, _, v in partner.logins if not v.startswith("235")])
        self.secret_nowhere(daemon)

    def test_a_changed_secret_is_used_without_reload(self):
        partner = self.asking()
        daemon = self.relay_to(partner, self.policy() + "\n    limits { idle 100ms }")
        self.send(daemon)
        partner.wait_messages(1)
        partner.wait_command("quit")
        with partner.changed:
            partner.users = {"relay": "next one"}
        self.keep("next one")
        self.send(daemon)
        partner.wait_messages(2)
        self.assertTrue(all(v.startswith("235") for _, _, v in partner.logins), partner.logins)


class Peers(AuthCase):
    """Who gets credentials, and who never does."""

    def exception(self):
        return 'allow-unauthenticated-peer { until 2099-01-01; reason "until they have a certificate" }'

    def test_an_unauthenticated_peer_gets_no_credentials(self):
        # auto: TLS comes up with whatever certificate, but nobody asked who it is.
        partner = self.asking()
        clear = self.asking(certificate=None, auth_in_clear=True)
        daemon = self.daemon(
            smarthost("auto", partner, "tls auto\n    " + self.auth(), "auto.test") + "\n"
            + smarthost("clear", clear, "tls auto\n    " + self.auth(), "clear.test"))  # fmt: skip
        self.send(daemon, "you@auto.test")
        self.send(daemon, "you@clear.test")
        for name in ("auto.test", "clear.test"):
            self.kept(daemon, name, "authenticated peer")
        for one in (partner, clear):
            self.assertEqual((0, 0), (one.count("auth"), one.count("mail")))

    def test_want_of_proof_for_credentials_is_no_unmet_demand(self):
        """The demand is met; that our credentials may not go is not the partner's fault."""
        partner = self.asking()
        demand = "tls encrypt { if-unmet bounce }\n    "
        ended = 'allow-unauthenticated-peer { until 2020-01-01; reason "over" }'
        auth = self.auth("auto", ended)
        daemon = self.daemon(smarthost("out", partner, demand + auth, "bank.test"))
        self.send(daemon)
        self.kept(daemon, "bank.test", "authenticated peer")
        self.assertEqual((0, 0), (partner.count("auth"), partner.count("mail")))
        self.assertEqual(1, len(daemon.list()))
        self.assertFalse([e for e in daemon.events() if e.get("result") == "bounced"])

    def test_a_dated_exception_lets_them_go(self):
        inside = self.asking()
        clear = self.asking(certificate=None, auth_in_clear=True)
        stripped = self.asking(certificate=None, auth_in_clear=True)
        auth = self.auth("auto", self.exception())
        daemon = self.daemon("\n".join((
            smarthost("inside", inside, "tls encrypt\n    " + auth, "inside.test"),
            smarthost("clear", clear, "tls off\n    " + auth, "clear.test"),
            smarthost("stripped", stripped, "tls opportunistic\n    " + auth, "stripped.test"))))  # fmt: skip
        for name in ("inside", "clear", "stripped"):
            self.send(daemon, f"you@{name}.test")
        for partner in (inside, clear):
            self.assertEqual("relay", partner.wait_messages(1)[0].user)
        # TLS was to be had, and is not: then in clear they never go.
        self.kept(daemon, "stripped.test", "authenticated peer")
        self.assertEqual((0, 0), (stripped.count("auth"), stripped.count("mail")))

    def test_the_wrong_peer_sees_not_even_auth(self):
        partner = self.asking(certificate=self.ca.issue("other.test"))
        daemon = self.relay_to(partner, self.policy())
        self.send(daemon)
        self.kept(daemon, "tls_unverified")
        self.assertEqual((0, 0), (partner.count("auth"), partner.count("mail")))


class Telling(AuthCase):
    def test_check_warns_and_explain_tells(self):
        self.keep(SECRET, mode=0o644)
        partner = self.asking()
        daemon = self.relay_to(partner, self.policy("plain"))
        rows = daemon.ctl("explain", "you@bank.test")
        told = str(rows)
        self.assertIn("'secret_readable': True", told)
        self.assertIn("others may read", told)
        self.assertIn(self.secret, told)
        self.assertNotIn(SECRET, told)
        os.unlink(self.secret)
        self.assertIn("'secret_readable': False", str(daemon.ctl("explain", "you@bank.test")))
