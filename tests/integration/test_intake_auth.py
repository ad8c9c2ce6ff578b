"""Who may relay because of a password or a certificate: real clients, files that change, and what
is never said in clear."""
import base64
import os
import socket
import ssl
import struct
import subprocess
import time

from harness import Case, tag
from support import senders
from support.certs import Authority
from support.daemon import BHCTL
from support.senders import RawClient, message
from support.waiting import PATIENCE_S


def hashed(name, password):
    """The lines that `bhctl hash-password` makes: (crypt, scram)."""
    done = subprocess.run([BHCTL, "hash-password", name], input=password + "\n", text=True,
                          capture_output=True, check=True, timeout=PATIENCE_S)  # fmt: skip
    crypt, scram = done.stdout.splitlines()
    return crypt, scram


def replace(path, text):
    """As an administrator should: the file is whole at any time."""
    with open(path + ".new", "w", encoding="utf-8") as out:
        out.write(text)
    os.rename(path + ".new", path)


def plain(user, password):
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


class TlsClient(RawClient):
    """A raw client inside TLS, at once or after STARTTLS."""

    def __init__(self, address, certificate=None, implicit=False, before=b""):
        super().__init__(address)
        self.send(before)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        if certificate is not None:
            self.context.load_cert_chain(*certificate)
        if implicit:
            self.wrap()
            self.hello()
        else:
            self.hello()
            reply = self.say("STARTTLS")
            assert reply.code == 220, reply
            self.wrap()
            self.say("EHLO client.test")

    def wrap(self):
        self.stream.close()
        self.socket = self.context.wrap_socket(self.socket)
        self.stream = self.socket.makefile("rb")

    def served(self):
        """The certificate that the server showed."""
        return self.socket.getpeercert(binary_form=True)


class Listener(Case):
    def setUp(self):
        super().setUp()
        self.ca = self.authority()
        self.certificate, self.key = self.ca.issue("relay.us.test")
        self.receiver = self.partner()

    def listen(self, more, tls="starttls", tls_more=""):
        return f"""listen 127.0.0.1:0 {{
    tls {tls} {{ certificate {self.certificate}; key {self.key}; {tls_more} }}
    {more}
}}"""

    def relay(self, more, **options):
        return self.relay_to(self.receiver, listen=self.listen(more, **options))


class Passwords(Listener):
    def setUp(self):
        super().setUp()
        self.users = self.path("users")
        self.anna_crypt, self.anna_scram = hashed("anna", "correct horse")
        replace(self.users, f"# who may\n{self.anna_crypt}\n{self.anna_scram}\n")
        self.server = self.relay(f"auth-file {self.users}")

    @tag("tsan")
    def test_real_clients(self):
        """swaks and msmtp, each mechanism; the name is in the record, and not in the mail."""
        daemon = self.server
        for mechanism in ("PLAIN", "LOGIN"):
            result = senders.swaks(daemon.address, ["a@bank.test"], "--tls", "--auth", mechanism,
                                   "--auth-user", "anna", "--auth-password", "correct horse")  # fmt: skip
            self.assertEqual(0, result.returncode, result.stdout)
        for mechanism in ("plain", "login", "scram-sha-256"):
            result = senders.msmtp(
                daemon.address, ["a@bank.test"], message(), "--tls=on", "--tls-certcheck=off",
                f"--auth={mechanism}", "--user=anna", "--passwordeval=echo correct horse",
            )  # fmt: skip
            self.assertEqual(0, result.returncode, result.stderr)
        for got in self.receiver.wait_messages(5):
            self.assertIn(" with ESMTPSA id ", got.header("Received"))
            self.assertNotIn(b"anna", got.content)
        daemon.wait_line(r"evt=auth-granted .*user=\"anna\"")
        self.assertNotIn("correct horse", "\n".join(daemon.lines))

    def test_record_of_a_queued_message(self):
        self.receiver.down()
        with TlsClient(self.server.address) as client:
            self.assertEqual(235, client.say("AUTH PLAIN " + plain("anna", "correct horse")).code)
            client.envelope("s@us.test", "a@bank.test")
            queue_id = client.data(message()).queue_id
        (row,) = [row for row in self.server.ctl("show", queue_id) if row["kind"] == "message"]
        self.assertEqual("anna", row["user"])
        self.assertEqual("ESMTPSA", row["protocol"])
        (event,) = self.server.events_of("received")
        self.assertEqual(("anna", "ESMTPSA"), (event["user"], event["protocol"]))

    def test_wrong_passwords(self):
        """A wrong password and a wrong name look the same, come late, and end the session. Each
        client here has an address of its own, since refusals are remembered by address."""
        daemon = self.server
        result = senders.swaks(daemon.address, ["a@bank.test"], "--tls", "--auth", "PLAIN",
                               "--auth-user", "anna", "--auth-password", "guess",
                               "--local-interface", "127.0.0.8")  # fmt: skip
        self.assertNotEqual(0, result.returncode)
        self.assertIn(b"535 5.7.8", result.stdout)
        result = senders.msmtp(
            daemon.address, ["a@bank.test"], message(), "--tls=on", "--tls-certcheck=off",
            "--auth=scram-sha-256", "--user=nobody", "--passwordeval=echo correct horse",
            "--source-ip=127.0.0.9",
        )  # fmt: skip
        self.assertNotEqual(0, result.returncode)
        self.assertIn(b"535 5.7.8", result.stderr)
        with TlsClient(daemon.address) as client:
            began = time.monotonic()
            texts = {
                client.say("AUTH PLAIN " + plain(user, "guess")).text for user in ("anna", "nobody")
            }
            self.assertEqual(1, len(texts), texts)
            self.assertGreater(time.monotonic() - began, 2.9)  # One second, then two.
            last = client.say("AUTH PLAIN " + plain("anna", "guess"))
            self.assertEqual(421, last.code)
            self.assertTrue(client.closed())
        self.assertEqual(0, self.receiver.connections)

    def test_not_in_clear(self):
        with RawClient(self.server.address) as client:
            self.assertNotIn("AUTH", client.hello().text)
            self.assertEqual(538, client.say("AUTH PLAIN " + plain("anna", "correct horse")).code)
            (reply,) = client.envelope("s@us.test", "a@bank.test")
            self.assertEqual(530, reply.code)

    @tag("tsan")
    def test_the_file_changes(self):
        """A new user may; a bad file changes nothing, and is told; a client that hangs up while its
        password is judged hurts nobody."""
        bob_crypt, _ = hashed("bob", "battery staple")
        address = self.server.address

        def code(user, password):
            with TlsClient(address) as client:
                return client.say("AUTH PLAIN " + plain(user, password)).code

        self.assertEqual(535, code("bob", "battery staple"))
        replace(self.users, f"{self.anna_crypt}\n{bob_crypt}\n")
        self.assertEqual(235, code("bob", "battery staple"))
        with TlsClient(address) as client:
            self.assertIn("AUTH PLAIN LOGIN", client.say("EHLO client.test").text)
        replace(self.users, f"{self.anna_crypt}\nbob:battery staple\n")
        self.server.wait_line(r"evt=auth-file-bad .*line 2")
        self.assertEqual(235, code("bob", "battery staple"))
        self.assertNotIn("battery staple", "\n".join(self.server.lines))
        for _ in range(5):
            client = TlsClient(address)
            client.send("AUTH PLAIN " + plain("anna", "correct horse") + "\r\n")
            client.close()
        self.assertEqual(235, code("anna", "correct horse"))


class Proxied(Listener):
    def test_header_then_handshake_then_password(self):
        """The balancer's header comes first, in clear; the client that it names is in the log."""
        users = self.path("users")
        replace(users, "\n".join(hashed("anna", "correct horse")) + "\n")
        daemon = self.relay(
            f"auth-file {users}; relay-from 192.0.2.0/24; proxy-protocol-from 127.0.0.1", tls="implicit"
        )
        for client_ip, relays in (("192.0.2.77", True), ("198.51.100.1", False)):
            body = socket.inet_aton(client_ip) + socket.inet_aton("192.0.2.1")
            header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + body + struct.pack("!HH", 4711, 465)
            with TlsClient(daemon.address, implicit=True, before=header) as client:
                (reply,) = client.envelope("s@us.test", "a@bank.test")
                self.assertEqual(250 if relays else 530, reply.code)
                client.say("RSET")
                self.assertEqual(235, client.say("AUTH PLAIN " + plain("anna", "correct horse")).code)
                (reply,) = client.envelope("s@us.test", "a@bank.test")
                self.assertEqual(250, reply.code)
            daemon.wait_line(f"evt=auth-granted .*client={client_ip} ")


class Certificates(Listener):
    def code(self, daemon, certificate=None, **options):
        with TlsClient(daemon.address, certificate, **options) as client:
            (reply,) = client.envelope("s@us.test", "a@bank.test")
            return reply.code

    def test_signed_by_the_client_ca(self):
        mine = self.ca.issue("app.us.test")
        other = Authority(self.path("other"), "Other CA").issue("app.us.test")
        for tls in ("starttls", "implicit"):
            daemon = self.relay_to(
                self.receiver, name=tls,
                listen=self.listen("relay-from certificate", tls=tls, tls_more=f"client-ca {self.ca.pem}"),
            )  # fmt: skip
            implicit = tls == "implicit"
            self.assertEqual(250, self.code(daemon, mine, implicit=implicit))
            self.assertEqual(550, self.code(daemon, other, implicit=implicit))
            self.assertEqual(550, self.code(daemon, implicit=implicit))
            daemon.wait_line(r"evt=certificate-denied")

    def test_pinned(self):
        """A key that is pinned needs no authority; swaks sends with it."""
        certificate, key = self.ca.issue("app.us.test")
        der = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"],
                             capture_output=True, check=True).stdout  # fmt: skip
        pin = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True,
                             check=True).stdout.split()[0].decode()  # fmt: skip
        daemon = self.relay("relay-from certificate", tls_more=f"client-pins sha256:{pin}")
        self.assertEqual(550, self.code(daemon, self.ca.issue("second.us.test")))
        result = senders.swaks(daemon.address, ["a@bank.test"], "--tls", "--tls-cert", certificate,
                               "--tls-key", key)  # fmt: skip
        self.assertEqual(0, result.returncode, result.stdout)
        (got,) = self.receiver.wait_messages(1)
        self.assertIn(" with ESMTPS id ", got.header("Received"))
        daemon.wait_line(f"evt=certificate-granted .*spki={pin}")


class Reload(Listener):
    @tag("tsan")
    def test_a_new_certificate_is_taken_up(self):
        """On a timer and at a reload, and a bad one is not; sessions go on with what they have."""
        daemon = self.relay("relay-from 127.0.0.0/8")
        with TlsClient(daemon.address) as before:
            old = before.served()
            second = self.ca.issue("second.us.test")
            os.replace(second[1], self.key)
            os.replace(second[0], self.certificate)
            daemon.wait_until(
                lambda: sum("evt=listener-tls-new" in line for line in daemon.lines) >= 2,
                "the new certificate in both workers",
            )
            with TlsClient(daemon.address) as after:
                self.assertNotEqual(old, after.served())
                new = after.served()
            self.assertEqual(250, before.envelope("s@us.test", "a@bank.test")[0].code)
            self.assertEqual(250, before.data(message()).code)
        replace(self.certificate, "no certificate\n")
        daemon.wait_line("evt=listener-tls-bad .*holds no PEM certificate")
        with TlsClient(daemon.address) as client:
            self.assertEqual(new, client.served())
        answer = daemon.ctl("reload")
        self.assertTrue(any("holds no PEM certificate" in str(row) for row in answer), answer)
        with TlsClient(daemon.address) as client:
            self.assertEqual(new, client.served())

    def test_minimum_version_and_implicit_tls(self):
        daemon = self.relay("relay-from 127.0.0.0/8", tls="implicit", tls_more="min-version TLSv1.3")
        host, port = daemon.address

        def handshake(version):
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"{host}:{port}", version, "-quiet"],
                input=b"QUIT\r\n", capture_output=True, timeout=PATIENCE_S, check=False,
            )  # fmt: skip
            return b"ESMTP" in done.stdout

        self.assertFalse(handshake("-tls1_2"))
        self.assertTrue(handshake("-tls1_3"))
        result = senders.msmtp(daemon.address, ["a@bank.test"], message(), "--tls=on",
                               "--tls-starttls=off", "--tls-certcheck=off")  # fmt: skip
        self.assertEqual(0, result.returncode, result.stderr)
        self.receiver.wait_messages(1)
