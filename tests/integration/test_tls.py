"""TLS per connector: what a partner must show before mail goes to it, and every octet that it gets
before it has."""
import os
import re
import shutil
import ssl

from harness import Case, smarthost, tag
from support.certs import Authority, pin, self_signed
from support.daemon import BRIDGEHEAD
from support.partner import DROP, Partner

NAME = "mx.bank.test"
FAULTY = BRIDGEHEAD + "-faults"
CLEAR_ALLOWED = re.compile(rb"(?:(?:EHLO|HELO) relay\.us\.test\r\n|STARTTLS\r\n|QUIT\r\n)*\Z")


def garbage(unused):
    return b"220 2.0.0 go ahead\r\n"


class TlsCase(Case):
    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.good = self.ca.issue(NAME)

    def nothing_in_clear(self, partner):
        """Before TLS a partner got EHLO, STARTTLS, QUIT; behind STARTTLS came TLS or nothing."""
        for octets in partner.clear.values():
            self.assertRegex(octets, CLEAR_ALLOWED)

    def refused(self, daemon, partner, reason, domain="bank.test"):
        """Nothing was delivered, the queue says why, and nothing was given away."""

        def told(rows):
            return any(reason in str(row) for row in rows if domain in str(row))

        daemon.until(told, "queue", what=f"{domain}: {reason}")
        self.assertEqual([], partner.messages)
        self.assertEqual(0, partner.count("mail"))
        self.nothing_in_clear(partner)


class Matrix(TlsCase):
    """Every kind of partner against every mode, in one daemon with a connector for each pair."""

    def demands(self):
        return {
            "opportunistic": "tls opportunistic",
            "encrypt": "tls encrypt",
            "verify": f"tls verify {{ ca-file {self.ca.pem}; names {NAME} }}",
            "pin": f"tls pin {{ pins {pin(self.good[0])} }}",
        }

    def partners(self):
        """name: (options of the partner, stage to spoil, what each mode must come to)."""
        middle = self.ca.below()
        chained = middle.issue(NAME, stem="chained")
        stranger = Authority(self.path("stranger"), "Stranger")
        tls, clear, no, later = "tls", "clear", "no", "later"

        def row(opportunistic, encrypt, verify, pinned):
            return dict(zip(("opportunistic", "encrypt", "verify", "pin"),
                            (opportunistic, encrypt, verify, pinned)))  # fmt: skip

        def shows(certificate, **options):
            return {"certificate": certificate, **options}

        v10, v12, v13 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        return {
            "good": (shows(self.good), None, row(tls, tls, tls, tls)),
            "chained": (shows(middle.chain(chained)), None, row(tls, tls, tls, no)),
            "incomplete": (shows(chained), None, row(tls, tls, no, no)),
            "wildcard": (shows(self.ca.issue("*.bank.test")), None, row(tls, tls, tls, no)),
            "cnonly": (shows(self.ca.issue(common=NAME, stem="cn")), None, row(tls, tls, no, no)),
            "wrong": (shows(self.ca.issue("other.test")), None, row(tls, tls, no, no)),
            "expired": (shows(self.ca.issue(NAME, days=-1, stem="old")), None,
                        row(tls, tls, no, no)),
            "selfsigned": (shows(self_signed(self.folder, NAME)), None, row(tls, tls, no, no)),
            "stranger": (shows(stranger.issue(NAME)), None, row(tls, tls, no, no)),
            "tls12": (shows(self.good, max_tls=v12), None, row(tls, tls, tls, tls)),
            "tls13": (shows(self.good, min_tls=v13), None, row(tls, tls, tls, tls)),
            "tls10": (shows(self.good, min_tls=v10, max_tls=v10), None, row(later, no, no, no)),
            "wantsours": (shows(self.good, client_ca=self.ca.pem), None, row(later, no, no, no)),
            "plain": ({}, None, row(clear, no, no, no)),
            "refuses454": (shows(self.good), ("starttls", "454 4.7.0 not now"),
                           row(later, no, no, no)),
            "refuses502": (shows(self.good), ("starttls", "502 5.5.1 what?"),
                           row(later, no, no, no)),
            "injects": (shows(self.good), ("starttls", b"220 2.0.0 go\r\n250 2.0.0 more\r\n"),
                        row(later, no, no, no)),
            "hangsup": (shows(self.good), ("starttls", DROP), row(later, no, no, no)),
        }  # fmt: skip

    def test_every_partner_against_every_mode(self):
        demands = self.demands()
        pairs, blocks = {}, []
        for kind, (options, spoil, wanted) in self.partners().items():
            for mode, statement in demands.items():
                partner = self.partner(**options)
                if spoil:
                    partner.on(*spoil)
                name = f"{kind}-{mode}"
                blocks.append(smarthost(name, partner, statement, f"{name}.test"))
                pairs[name] = (partner, mode, wanted[mode])
        daemon = self.daemon("\n".join(blocks))
        for name in pairs:
            self.send(daemon, f"you@{name}.test")
        delivered = sorted(n for n, (_, _, r) in pairs.items() if r in ("tls", "clear"))
        kept = {f"{n}.test" for n, (_, _, r) in pairs.items() if r == "no"}
        later = {f"{n}.test" for n, (_, _, r) in pairs.items() if r == "later"}
        for name in delivered:
            partner, mode, result = pairs[name]
            with self.subTest(pair=name):
                (got,) = partner.wait_messages(1)
                self.assertEqual(result == "tls", got.tls != "", got.tls)
                if mode != "opportunistic":
                    self.nothing_in_clear(partner)

        def all_tried(rows):
            failed = ("starttls", "tls")
            return kept <= {r["domain"] for r in rows if r.get("last", {}).get("stage") in failed}

        def all_wait(rows):
            return later <= {r["domain"] for r in rows
                             if "in clear only when older" in r.get("last", {}).get("text", "")}  # fmt: skip

        daemon.until(all_tried, "queue", "--top", "200", what="an attempt at each")
        daemon.until(all_wait, "queue", "--top", "200", what="younger mail to wait for TLS")
        for name, (partner, mode, result) in pairs.items():
            if result in ("no", "later"):  # in clear only what is older than five minutes
                with self.subTest(pair=name):
                    self.assertEqual([], partner.messages)
                    self.assertEqual(0, partner.count("mail"))
                    self.nothing_in_clear(partner)


class Verify(TlsCase):
    def verify(self, partner, more=""):
        return self.relay_to(partner, f"tls verify {{ ca-file {self.ca.pem}; names {NAME}{more} }}")

    @tag("tsan")
    def test_what_was_proven_is_told(self):
        partner = self.partner(certificate=self.good)
        daemon = self.verify(partner)
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        attempt = daemon.events_of("attempt")[-1]
        self.assertEqual("name", attempt["auth"])
        self.assertIn(NAME, attempt["matched"])
        self.assertIn("Test CA", attempt["matched"])
        self.assertEqual(pin(self.good[0]), attempt["spki"])
        self.nothing_in_clear(partner)

    def test_the_queue_shows_what_tls_was_seen(self):
        partner = self.partner(certificate=self.good)
        daemon = self.verify(partner)
        self.send(daemon)
        partner.wait_messages(1)
        partner.down()
        self.send(daemon)
        (row,) = daemon.until(lambda rows: rows and rows[0].get("tls"), "queue", what="TLS seen")
        self.assertRegex(row["tls"], r"^verify:TLSv1\.3 .*" + NAME)

    def test_reasons_are_exact(self):
        cases = {
            "name mismatch: certificate names other.test": {"certificate": self.ca.issue("other.test")},
            "certificate expired": {"certificate": self.ca.issue(NAME, days=-1, stem="old")},
            "self-signed certificate": {"certificate": self_signed(self.folder, NAME)},
            "the peer wants a client certificate": {"certificate": self.good, "client_ca": self.ca.pem},
            "no protocol version in common": {"certificate": self.good,
                                              "min_tls": ssl.TLSVersion.TLSv1,
                                              "max_tls": ssl.TLSVersion.TLSv1},
        }  # fmt: skip
        for i, (reason, options) in enumerate(cases.items()):
            with self.subTest(reason=reason), Partner(**options) as partner:
                daemon = self.daemon(
                    smarthost("out", partner, f"tls verify {{ ca-file {self.ca.pem}; names {NAME} }}"),
                    name=f"relay{i}",
                )
                self.send(daemon)
                self.refused(daemon, partner, reason)
                daemon.stop()

    def test_the_recipients_domain_is_an_accepted_name(self):
        partner = self.partner(certificate=self.ca.issue("bank.test"))
        daemon = self.relay_to(partner, f"tls verify {{ ca-file {self.ca.pem} }}")
        self.send(daemon, ["you@bank.test", "you@other.test"])
        partner.wait_messages(1)
        daemon.until(
            lambda rows: any("name mismatch" in str(r) for r in rows if "other.test" in str(r)),
            "queue", what="other.test waits",
        )  # fmt: skip
        self.assertEqual(["you@bank.test"], partner.addresses())
        self.nothing_in_clear(partner)

    def test_worse_on_the_second_connection(self):
        """A session resumed is as good as its first; one that is not has to prove it anew."""
        partner = self.partner(certificate=self.good)
        daemon = self.verify(partner)
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        partner.down()
        port = partner.port
        worse = self.partner(certificate=self.ca.issue("other.test"), port=port)
        self.send(daemon)
        self.refused(daemon, worse, "name mismatch")
        worse.down()
        self.partner(certificate=self.good, port=port).wait_messages(1)

    def test_an_authority_replaced_on_disk_is_taken_up_at_reload(self):
        """The path is the same, the content is not: nothing proven under the old one counts."""
        ca = self.path("partner-ca.pem")
        shutil.copy(self.ca.pem, ca)
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, f"tls verify {{ ca-file {ca}; names {NAME} }}")
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        stranger = Authority(self.path("stranger"), "Stranger")
        shutil.copy(stranger.pem, ca + ".new")
        os.rename(ca + ".new", ca)
        daemon.blocks["defaults"] = "# touched"
        daemon.write_config()
        daemon.ctl("reload")
        self.send(daemon)
        daemon.until(lambda rows: "unknown authority" in str(rows), "queue", what="a refusal")
        self.assertEqual(1, len(partner.messages))
        shutil.copy(self.ca.pem, ca + ".new")
        os.rename(ca + ".new", ca)
        daemon.write_config()
        daemon.ctl("reload")
        partner.wait_messages(2)

    def test_a_bad_authority_file_holds_mail_with_its_reason(self):
        ca = self.path("partner-ca.pem")
        with open(ca, "w", encoding="ascii") as out:
            out.write("this is no certificate\n")
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, f"tls verify {{ ca-file {ca}; names {NAME} }}")
        self.send(daemon)
        self.refused(daemon, partner, "holds no PEM certificate")
        shutil.copy(self.ca.pem, ca)
        daemon.ctl("flush", "--all")
        partner.wait_messages(1)


class Pin(TlsCase):
    def test_the_next_pin_stands_beside_the_current_one(self):
        following = self.ca.issue(NAME, stem="next")
        partner = self.partner(certificate=self.good)
        pins = f"{pin(self.good[0])} {pin(following[0])}"
        daemon = self.relay_to(partner, f"tls pin {{ pins {pins} }}")
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        partner.down()
        rolled = self.partner(certificate=following, port=partner.port)
        self.send(daemon)
        rolled.wait_messages(1)
        daemon.wait_empty()
        rolled.down()
        other = self.partner(certificate=self.ca.issue(NAME, stem="other"), port=partner.port)
        self.send(daemon)
        self.refused(daemon, other, "not pinned")


class ClientCertificate(TlsCase):
    def demand(self, certificate):
        return f"tls encrypt {{ client-certificate {certificate[0]}; client-key {certificate[1]} }}"

    def test_it_is_shown_to_who_asks(self):
        ours = self.ca.issue("relay.us.test")
        partner = self.partner(certificate=self.good, client_ca=self.ca.pem)
        daemon = self.relay_to(partner, self.demand(ours))
        self.send(daemon)
        (got,) = partner.wait_messages(1)
        self.assertEqual("relay.us.test", got.client)
        self.nothing_in_clear(partner)

    def test_a_key_that_does_not_belong_holds_mail(self):
        ours = self.ca.issue("relay.us.test")
        other = self.ca.issue("other.us.test")
        partner = self.partner(certificate=self.good, client_ca=self.ca.pem)
        daemon = self.relay_to(partner, self.demand((ours[0], other[1])))
        self.send(daemon)
        self.refused(daemon, partner, "does not belong to the certificate")
        shutil.copy(ours[1], other[1])
        daemon.ctl("flush", "--all")
        (got,) = partner.wait_messages(1)
        self.assertEqual("relay.us.test", got.client)

    def shows(self, daemon, partner, name):
        """New mail shows the certificate of this name, and no other session does."""
        partner.drop_sessions()
        before = len(partner.messages)
        self.send(daemon)
        got = partner.wait_messages(before + 1)[before]
        self.assertEqual(name, got.client)

    def renewable(self, program=None):
        ours = self.ca.issue("relay.us.test")
        partner = self.partner(certificate=self.good, client_ca=self.ca.pem)
        daemon = self.daemon(smarthost("out", partner, self.demand(ours)), start=False)
        daemon.program = program or daemon.program
        daemon.start()
        self.shows(daemon, partner, "relay.us.test")
        return daemon, partner, ours

    def renew(self, ours):
        new = self.ca.issue("renewed.us.test")
        os.replace(new[1], ours[1])
        os.replace(new[0], ours[0])

    def test_one_that_is_missing_holds_the_mail_of_its_connector_alone(self):
        ours = self.ca.issue("relay.us.test")
        partner = self.partner(certificate=self.good, client_ca=self.ca.pem)
        other = self.partner()
        hidden = ours[1] + ".hidden"
        os.rename(ours[1], hidden)
        daemon = self.daemon(smarthost("out", partner, self.demand(ours)) + "\n"
                             + smarthost("fax", other, "tls off", "fax.test"))  # fmt: skip
        self.assertTrue(any("warning: 'client-key'" in line and "no such file" in line for line in daemon.lines))
        self.send(daemon)
        self.send(daemon, "you@fax.test")
        other.wait_messages(1)
        self.refused(daemon, partner, "client key")
        refused = daemon.ctl_run("reload")  # which can be refused without harm, is
        self.assertNotEqual(0, refused.returncode)
        self.assertIn("client-key", refused.stdout + refused.stderr)
        os.rename(hidden, ours[1])
        daemon.ctl("flush", "--all")
        partner.wait_messages(1)

    def test_a_renewed_one_is_taken_up_at_a_reload(self):
        daemon, partner, ours = self.renewable()
        self.renew(ours)
        daemon.ctl("reload")
        self.shows(daemon, partner, "renewed.us.test")

    def test_a_renewed_one_is_taken_up_by_itself(self):
        """By the timer of the workers, which looks each minute; here it is in a hurry."""
        if not os.path.exists(FAULTY):
            self.skipTest("only sanitized builds have it")
        daemon, partner, ours = self.renewable(FAULTY)
        self.renew(ours)
        daemon.wait_until(lambda: sum("evt=tls-files-new" in line for line in daemon.lines) >= 1,
                          "the new certificate\n" + daemon.tail())  # fmt: skip
        self.shows(daemon, partner, "renewed.us.test")


class Implicit(TlsCase):
    def test_not_an_octet_in_clear(self):
        partner = self.partner(certificate=self.good, implicit_tls=True)
        daemon = self.relay_to(
            partner, f"tls verify {{ implicit yes; ca-file {self.ca.pem}; names {NAME} }}"
        )
        self.send(daemon)
        (got,) = partner.wait_messages(1)
        self.assertNotEqual("", got.tls)
        self.assertEqual(0, partner.count("starttls"))
        self.assertEqual({}, partner.clear)

    def test_a_partner_that_greets_in_clear_gets_nothing(self):
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, "tls encrypt { implicit yes }")
        self.send(daemon)
        daemon.until(
            lambda rows: "the peer does not speak TLS: 220 partner.test" in str(rows), "queue"
        )
        for octets in partner.clear.values():
            self.assertEqual(0x16, octets[0])  # a TLS handshake, which it took for a command
            self.assertNotIn(b"MAIL", octets)
        self.assertEqual([], partner.messages)


class Versions(TlsCase):
    def test_a_floor_and_a_ceiling(self):
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, "tls encrypt { min-version TLSv1.2; max-version TLSv1.2 }")
        self.send(daemon)
        self.assertEqual("TLSv1.2", partner.wait_messages(1)[0].tls)

    def test_a_cipher_list(self):
        partner = self.partner(certificate=self.good)
        cipher = "ECDHE-ECDSA-CHACHA20-POLY1305"
        daemon = self.relay_to(
            partner, f'tls encrypt {{ max-version TLSv1.2; ciphers "{cipher}" }}'
        )
        self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        attempt = daemon.events_of("attempt")[-1]
        self.assertEqual(cipher, attempt["cipher"])

    def test_an_unknown_cipher_holds_mail(self):
        partner = self.partner(certificate=self.good)
        daemon = self.relay_to(partner, 'tls encrypt { ciphers "NO-SUCH-CIPHER" }')
        self.send(daemon)
        self.refused(daemon, partner, "no cipher match")
