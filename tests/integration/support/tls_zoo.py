"""Servers for the TLS matrix: each is good or bad at TLS in one way, and keeps every octet that it
gets outside an established session."""
import os
import socket
import ssl
import subprocess
import threading

from .waiting import Changing

OFFER = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE 50000000")


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def _new_key(path):
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)


class Zoo:
    """Certificates of every kind, in a folder. `ca` is the authority that tests trust."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        os.makedirs(folder, exist_ok=True)
        self.ca = self._root("ca", "Trusted Test CA")
        stranger = self._root("stranger", "Unknown CA")
        middle = self._issue("middle", self.ca, "CN=Intermediate", ca=True)
        day = 24 * 3600
        self.kinds = {
            "good": self._issue("good", self.ca, f"CN={name}", [name]),
            "wildcard": self._issue("wildcard", self.ca, "CN=any", ["*." + name.split(".", 1)[1]]),
            "cn-only": self._issue("cn-only", self.ca, f"CN={name}"),
            "wrong-name": self._issue("wrong-name", self.ca, "CN=other", ["mx.other.test"]),
            "expired": self._issue("expired", self.ca, f"CN={name}", [name], (-20 * day, -day)),
            "not-yet": self._issue("not-yet", self.ca, f"CN={name}", [name], (day, 20 * day)),
            "self-signed": self._self_signed("self-signed", name),
            "unknown-ca": self._issue("unknown-ca", stranger, f"CN={name}", [name]),
            "incomplete-chain": self._issue("incomplete", middle, f"CN={name}", [name]),
        }
        self.kinds["chained"] = self._with_chain("chained", self.kinds["incomplete-chain"], middle)
        self.client = self._issue("client", self.ca, "CN=relay.us.test", ["relay.us.test"])

    def path(self, name):
        return os.path.join(self.folder, name)

    def spki(self, kind):
        """The pin of a certificate: SHA-256 of its key, in hex."""
        der = subprocess.run(["openssl", "x509", "-in", self.kinds[kind][0], "-pubkey", "-noout"],
                             check=True, capture_output=True).stdout  # fmt: skip
        der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=der, check=True,
                             capture_output=True).stdout  # fmt: skip
        digest = subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, check=True,
                                capture_output=True).stdout  # fmt: skip
        return digest.split()[0].decode()

    def _root(self, stem, common_name):
        pem, key = self.path(stem + ".pem"), self.path(stem + ".key")
        _new_key(key)
        _openssl("req", "-x509", "-key", key, "-out", pem, "-days", "30", "-subj", "/CN=" + common_name)
        return pem, key

    def _self_signed(self, stem, name):
        pem, key = self.path(stem + ".pem"), self.path(stem + ".key")
        _new_key(key)
        _openssl("req", "-x509", "-key", key, "-out", pem, "-days", "30", "-subj", "/CN=" + name,
                 "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip
        return pem, key

    def _issue(self, stem, issuer, subject, names=(), validity=(-3600, 30 * 24 * 3600), ca=False):
        """A certificate with dates of our choice, which only `openssl ca` can set."""
        import datetime

        now = datetime.datetime.now(datetime.timezone.utc)
        begin, end = ((now + datetime.timedelta(seconds=s)).strftime("%Y%m%d%H%M%SZ") for s in validity)
        pem, key, csr = (self.path(f"{stem}.{end_}") for end_ in ("pem", "key", "csr"))
        config, database = self.path(stem + ".cnf"), self.path(stem + ".db")
        open(database, "w", encoding="ascii").close()
        extensions = ["basicConstraints=critical," + ("CA:TRUE" if ca else "CA:FALSE")]
        if names:
            extensions.append("subjectAltName=" + ",".join("DNS:" + n for n in names))
        with open(config, "w", encoding="ascii") as out:
            out.write(f"""[ca]
default_ca=it
[it]
database={database}
new_certs_dir={self.folder}
default_md=sha256
policy=any
rand_serial=yes
unique_subject=no
x509_extensions=ext
[any]
commonName=optional
[ext]
""" + "\n".join(extensions) + "\n")  # fmt: skip
        _new_key(key)
        _openssl("req", "-new", "-key", key, "-out", csr, "-subj", "/" + subject)
        _openssl("ca", "-batch", "-config", config, "-cert", issuer[0], "-keyfile", issuer[1],
                 "-in", csr, "-out", pem, "-notext", "-startdate", begin, "-enddate", end)  # fmt: skip
        return pem, key

    def _with_chain(self, stem, leaf, middle):
        pem = self.path(stem + ".pem")
        with open(pem, "w", encoding="ascii") as out:
            for part in (leaf[0], middle[0]):
                with open(part, encoding="ascii") as text:
                    out.write(text.read())
        return pem, leaf[1]


class Closed(Exception):
    """The other side is gone."""


class Animal(Changing):
    """One server. `clear` holds, for each connection, the octets that came outside a TLS session that
    stands; `taken` the messages, as (hello, "TLSv1.3" or "", recipients)."""

    def __init__(self, certificate=None, starttls="220 2.0.0 go ahead", offer=True, after=None,
                 versions=None, client_ca=None, second=None, behind=OFFER, implicit=False):
        """starttls: the reply to it; after: None (shake hands), "garbage", "abort" or "stall";
        second: what differs from the second connection of the same client on; behind: what EHLO
        offers inside TLS."""
        super().__init__()
        self.certificate, self.starttls, self.offer, self.after = certificate, starttls, offer, after
        self.versions, self.client_ca, self.second, self.behind = versions, client_ca, second, behind
        self.implicit = implicit
        self.clear, self.taken, self.seen = [], [], {}
        self.stopping = threading.Event()

    def up(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def down(self):
        self.stopping.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_Talk(self, connection).run, daemon=True).start()

    def of_client(self, hello):
        """The clear octets of each connection that said EHLO with this name, in order."""
        with self.changed:
            return [bytes(octets) for octets in self.clear if b" " + hello.encode() + b"\r\n" in octets]


class _Talk:
    def __init__(self, animal, connection):
        self.animal, self.connection = animal, connection
        self.clear = bytearray()
        self.buffer = b""
        self.session = None
        self.settings = animal
        self.hello = ""
        with animal.changed:
            animal.clear.append(self.clear)

    def run(self):
        try:
            if self.animal.implicit:
                self.shake()
            self.say("220 zoo.test ESMTP")
            self.talk()
        except (Closed, OSError, ValueError):
            pass
        finally:
            with self.animal.changed:
                self.animal.changed.notify_all()
            self.connection.close()

    # -- octets

    def receive(self):
        octets = self.connection.recv(65536)
        if not octets:
            raise Closed
        if self.session is None:
            with self.animal.changed:
                self.clear += octets
        return octets

    def line(self):
        while b"\r\n" not in self.buffer:
            if self.session is None:
                self.buffer += self.receive()
            else:
                self.buffer += self.read_inside()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("ascii", "surrogateescape")

    def read_inside(self):
        while True:
            try:
                octets = self.session.read(65536)
                if not octets:
                    raise Closed
                return octets
            except ssl.SSLWantReadError:
                self.flush()
                self.inside.write(self.receive())
            except ssl.SSLError as problem:
                raise Closed from problem

    def flush(self):
        octets = self.outside.read()
        if octets:
            self.connection.sendall(octets)

    def say(self, *lines):
        octets = "".join(line + "\r\n" for line in lines).encode()
        if self.session is None:
            self.connection.sendall(octets)
        else:
            self.session.write(octets)
            self.flush()

    # -- TLS

    def shake(self):
        kind = self.settings.certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.animal.versions:
            context.minimum_version, context.maximum_version = self.animal.versions
            if self.animal.versions[1] < ssl.TLSVersion.TLSv1_2:
                context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(*kind)
        if self.animal.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.animal.client_ca)
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(self.inside, self.outside, server_side=True)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                octets = self.connection.recv(65536)
                if not octets:
                    raise Closed from None
                with self.animal.changed:
                    self.clear += octets
                self.inside.write(octets)
            except ssl.SSLError as problem:
                self.flush()
                raise Closed from problem
        self.flush()
        self.session = session

    def start_tls(self):
        after = self.settings.after
        if after == "garbage":
            self.connection.sendall(b"this is no handshake, not at all\r\n" * 8)
            while True:
                self.receive()
        if after == "abort":
            raise Closed
        if after == "stall":
            while True:
                self.receive()
        self.shake()

    # -- SMTP

    def talk(self):
        recipients = []
        while True:
            text = self.line()
            verb = text.split(" ")[0].upper()
            if verb in ("EHLO", "HELO"):
                self.on_hello(text.partition(" ")[2])
            elif verb == "STARTTLS":
                self.say(*self.settings.starttls.split("\n"))
                if self.settings.starttls.startswith("220"):
                    self.start_tls()
                    self.buffer = b""
            elif verb == "RCPT":
                recipients.append(text)
                self.say("250 2.1.5 ok")
            elif verb == "DATA":
                self.say("354 go ahead")
                while self.line() != ".":
                    pass
                with self.animal.changed:
                    version = self.session.version() if self.session else ""
                    self.animal.taken.append((self.hello, version, recipients))
                    self.animal.changed.notify_all()
                recipients = []
                self.say("250 2.0.0 accepted")
            elif verb == "QUIT":
                self.say("221 2.0.0 bye")
                raise Closed
            else:
                self.say("250 2.0.0 ok")

    def on_hello(self, name):
        animal = self.animal
        if self.hello == "":
            with animal.changed:
                animal.seen[name] = animal.seen.get(name, 0) + 1
                animal.changed.notify_all()
                if animal.second is not None and animal.seen[name] > 1:
                    self.settings = animal.second
        self.hello = name
        words = list(OFFER if self.session is None else animal.behind)
        if self.settings.offer and self.session is None:
            words.append("STARTTLS")
        lines = ["zoo.test", *words]
        self.say(*(("250-" if i + 1 < len(lines) else "250 ") + w for i, w in enumerate(lines)))
