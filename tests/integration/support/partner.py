"""A remote mail server that behaves as a test wants: it records what it is given, and answers,
stalls or breaks the connection at any step it is told to."""
import base64
import dataclasses
import hashlib
import hmac
import os
import re
import socket
import ssl
import struct
import threading

from .ports import Port
from .waiting import Changing

DROP = object()  # close the connection here, as a crash would
HANG = object()  # say nothing more until the partner is stopped
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2")
EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE 50000000")


@dataclasses.dataclass
class Message:
    sender: str
    sender_parameters: str
    recipients: list  # of (address, parameters); only those answered with 2xx
    content: bytes  # unstuffed, with CRLF
    tls: str  # "TLSv1.3", or "" in clear
    connection: int
    hello: str
    client: str  # common name of the client's certificate
    user: str = ""  # as authenticated
    peer: str = ""  # the address that it came from

    @property
    def addresses(self):
        return [address for address, _ in self.recipients]

    def header(self, name):
        """The first header of that name, unfolded; None without it."""
        head = self.content.split(b"\r\n\r\n", 1)[0] + b"\r\n"
        head = re.sub(rb"\r\n[ \t]+", b" ", head).decode("utf-8", "replace")
        found = re.search(rf"(?im)^{re.escape(name)}:[ \t]*(.*?)\r?$", head)
        return found.group(1) if found else None

    @property
    def queue_id(self):
        found = re.search(r"\bid ([0-9A-Z]{8,})", self.header("Received") or "", re.IGNORECASE)
        return found.group(1).upper() if found else None


@dataclasses.dataclass
class _Rule:
    stage: str
    action: object  # a reply, DROP, HANG, or a function of the argument that gives one of these
    match: object  # a regular expression for the command's argument, or None
    times: object  # how often it still holds; None: always


class Partner(Changing):
    """`with Partner() as p:` listens at p.address, a (host, port) pair.

    With users={name: password} only who authenticates may send. AUTH is offered inside TLS, with
    auth_in_clear=True always, by the given mechanisms.

    Stages for on(): connect, ehlo, helo, lhlo, starttls, auth (the verdict), mail, rcpt, data, body (after the 354, when
    content starts to arrive), dot, bdat, rset, noop, quit. With lmtp=True a dot rule sees each
    recipient."""

    def __init__(self, host="127.0.0.1", port=0, certificate=None, implicit_tls=False, lmtp=False,
                 extensions=EXTENSIONS, name="partner.test", max_tls=None, min_tls=None,
                 client_ca=None, users=None, mechanisms=MECHANISMS, auth_in_clear=False,
                 scram_rounds=4096):  # fmt: skip
        super().__init__()
        self.users, self.mechanisms, self.auth_in_clear = users, mechanisms, auth_in_clear
        self.scram_rounds = scram_rounds
        self.scram_lies = False  # the server's signature is wrong
        self.hates_pipelining = False  # it offers it all the same
        self.logins = []  # (mechanism, user, verdict) in order
        self.host, self.port, self.name, self.lmtp = host, port, name, lmtp
        self.extensions = list(extensions)
        self.implicit_tls = implicit_tls
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*certificate)
            if min_tls:  # also below what OpenSSL takes to be safe
                self.context.set_ciphers("DEFAULT:@SECLEVEL=0")
                self.context.minimum_version = min_tls
            if max_tls:
                self.context.maximum_version = max_tls
            if client_ca:
                self.context.load_verify_locations(client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
        self.rules = []
        self.messages = []  # accepted with 2xx, in order
        self.taking = None  # called with each of them, before anybody is told
        self.commands = []  # (connection, verb, argument) in order
        self.clear = {}  # connection: every octet that came in clear
        self.connections = 0
        self.open_sessions = set()
        self.most_open = 0
        self.broken_handshakes = 0
        self.listener = None
        self.held = None  # the port, also while nobody listens
        self.stopping = threading.Event()

    # -- what tests call

    def on(self, stage, action, match=None, times=None):
        with self.changed:
            self.rules.insert(0, _Rule(stage, action, match, times))
        return self

    def well(self):
        """Forget every rule: answer as a healthy server again."""
        with self.changed:
            self.rules.clear()

    @property
    def address(self):
        return self.host, self.port

    @property
    def text(self):
        return f"[{self.host}]:{self.port}"

    def up(self):
        self.stopping.clear()
        self.held = self.held or Port(self.host, self.port)
        self.port = self.held.number
        self.listener = self.held.listen()
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def down(self):
        """Refuse connections from now on, and break those that are open."""
        self.stopping.set()
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        with self.changed:
            for session in list(self.open_sessions):
                session.abort()
            self.changed.notify_all()

    def drop_sessions(self):
        """Break what is open; new connections are taken."""
        with self.changed:
            for session in list(self.open_sessions):
                session.abort()

    def wait_messages(self, count, patience_s=None):
        self.wait_until(lambda: len(self.messages) >= count,
                        f"{count} messages at {self.text}; it has {len(self.messages)}", patience_s)  # fmt: skip
        return self.messages

    def wait_command(self, verb, count=1, match=None):
        def seen():
            return self.count(verb, match) >= count

        self.wait_until(seen, f"{count} x {verb} {match or ''} at {self.text}")

    def count(self, verb, match=None):
        return sum(1 for _, v, a in self.commands if v == verb and (not match or re.search(match, a)))

    def addresses(self):
        return sorted(a for message in self.messages for a in message.addresses)

    def __enter__(self):
        return self.up()

    def __exit__(self, *unused):
        self.down()

    # -- inside

    def _accept(self, listener):
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            with self.changed:
                self.connections += 1
                session = _Session(self, connection, self.connections)
                session.peer = peer[0]
                self.open_sessions.add(session)
                self.most_open = max(self.most_open, len(self.open_sessions))
                self.changed.notify_all()
            threading.Thread(target=session.run, daemon=True).start()

    def decide(self, stage, argument, otherwise):
        with self.changed:
            for rule in self.rules:
                if rule.stage != stage or rule.times == 0:
                    continue
                if rule.match and not re.search(rule.match, argument):
                    continue
                if rule.times is not None:
                    rule.times -= 1
                action = rule.action
                break
            else:
                return otherwise
        return action(argument) if callable(action) else action

    def record(self, connection, verb, argument):
        with self.changed:
            self.commands.append((connection, verb, argument))
            self.changed.notify_all()


class _Cancelled(Exception):
    """The client has said "*"."""


class _End(Exception):
    """The session is over."""


class _Session:
    def __init__(self, partner, connection, number):
        self.partner, self.connection, self.number = partner, connection, number
        self.peer = ""
        self.buffer = b""
        self.tls = ""
        self.hello = ""
        self.client = ""
        self.user = ""
        self.reset()

    def reset(self):
        self.sender = None
        self.sender_parameters = ""
        self.recipients = []
        self.chunks = b""

    def abort(self):
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def run(self):
        try:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.partner.implicit_tls:
                self.start_tls()
            self.answer("connect", "", f"220 {self.partner.name} ESMTP ready")
            while True:
                self.command()
        except (_End, OSError, ValueError):
            pass
        finally:
            self.connection.close()
            with self.partner.changed:
                self.partner.open_sessions.discard(self)
                self.partner.changed.notify_all()

    def start_tls(self):
        self.buffer = b""  # What came in clear behind STARTTLS is dropped (RFC 3207 section 4.2).
        try:
            self.connection = self.partner.context.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):
            with self.partner.changed:
                self.partner.broken_handshakes += 1
                self.partner.changed.notify_all()
            raise
        self.tls = self.connection.version()
        if self.partner.context.verify_mode == ssl.CERT_REQUIRED:
            subject = self.connection.getpeercert()["subject"]
            self.client = dict(pair for part in subject for pair in part)["commonName"]

    def more(self):
        octets = self.connection.recv(65536)
        if not octets:
            raise _End
        if not self.tls:
            with self.partner.changed:
                before = self.partner.clear.get(self.number, b"")
                self.partner.clear[self.number] = before + octets
        self.buffer += octets

    def line(self):
        while b"\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.rstrip(b"\r").decode("utf-8", "surrogateescape")

    def act(self, reply):
        """Carry out a decision; True if it was a 2xx or 3xx reply."""
        if reply is DROP:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _End
        if reply is HANG:
            self.partner.stopping.wait()
            raise _End
        octets = reply if isinstance(reply, bytes) else reply.encode("utf-8") + b"\r\n"
        self.connection.sendall(octets)
        if octets.startswith(b"421"):
            raise _End
        return octets[:1] in b"23"

    def answer(self, stage, argument, otherwise):
        return self.act(self.partner.decide(stage, argument, otherwise))

    def command(self):
        text = self.line()
        verb, _, argument = text.partition(" ")
        verb = verb.lower()
        if verb in ("mail", "rcpt"):
            argument = argument.split(":", 1)[-1].strip()
        self.partner.record(self.number, verb, argument)
        handler = getattr(self, "on_" + verb, None)
        if self.partner.hates_pipelining and self.buffer:
            self.act("554 SMTP synchronization error")
            raise _End
        if handler:
            handler(argument)
        else:
            self.act("500 5.5.2 unknown command")

    def on_ehlo(self, argument, verb="ehlo"):
        self.hello = argument
        self.reset()
        words = [self.partner.name] + list(self.partner.extensions)
        if self.partner.context and not self.tls:
            words.append("STARTTLS")
        if self.partner.users and (self.tls or self.partner.auth_in_clear):
            words.append("AUTH " + " ".join(self.partner.mechanisms))
        lines = [("250 " if i + 1 == len(words) else "250-") + w for i, w in enumerate(words)]
        self.answer(verb, argument, "\r\n".join(lines))

    def on_lhlo(self, argument):
        self.on_ehlo(argument, "lhlo")

    def on_helo(self, argument):
        self.hello = argument
        self.reset()
        self.answer("helo", argument, f"250 {self.partner.name}")

    def on_starttls(self, argument):
        offered = self.partner.context and not self.tls
        if self.answer("starttls", argument, "220 2.0.0 go ahead" if offered else "502 5.5.1 no"):
            self.start_tls()
            self.reset()

    # -- AUTH

    def on_auth(self, argument):
        name, _, initial = argument.partition(" ")
        if name not in self.partner.mechanisms:
            self.act("504 5.5.4 no such mechanism")
            return
        exchange = getattr(self, "auth_" + name.lower().replace("-", "_"))
        try:
            user = exchange(base64.b64decode(initial, validate=True) if initial else None)
        except _Cancelled:
            self.verdict(name, "", "501 5.7.0 cancelled")
            return
        good = "235 2.7.0 good" if user in self.partner.users else "535 5.7.8 bad credentials"
        if self.verdict(name, user or "", self.partner.decide("auth", user or "", good)):
            self.user = user

    def verdict(self, name, user, reply):
        with self.partner.changed:
            self.partner.logins.append((name, user, reply if isinstance(reply, str) else ""))
            self.partner.changed.notify_all()
        return self.act(reply)

    def ask(self, challenge):
        self.act("334 " + base64.b64encode(challenge).decode())
        line = self.line()
        if line == "*":
            raise _Cancelled
        return base64.b64decode(line, validate=True)

    def check(self, user, password):
        user, password = user.decode(), password.decode()
        return user if self.partner.users.get(user) == password else None

    def auth_plain(self, initial):
        _, user, password = (initial if initial is not None else self.ask(b"")).split(b"\0")
        return self.check(user, password)

    def auth_login(self, initial):
        user = initial if initial is not None else self.ask(b"Username:")
        return self.check(user, self.ask(b"Password:"))

    def auth_cram_md5(self, initial):
        challenge = b"<1896.697170952@partner.test>"
        user, digest = self.ask(challenge).decode().split(" ")
        password = self.partner.users.get(user, "").encode()
        return user if hmac.new(password, challenge, "md5").hexdigest() == digest else None

    def auth_xoauth2(self, initial):
        fields = (initial if initial is not None else self.ask(b"")).split(b"\1")
        user = self.check(fields[0].removeprefix(b"user="),
                          fields[1].removeprefix(b"auth=Bearer "))  # fmt: skip
        if user is None:
            assert self.ask(b'{"status":"401"}') == b""
        return user

    def auth_scram_sha_256(self, initial):
        bare = (initial if initial is not None else self.ask(b"")).removeprefix(b"n,,")
        user, nonce = (part[2:] for part in bare.split(b","))
        user = user.decode().replace("=2C", ",").replace("=3D", "=")
        salt, nonce = os.urandom(16), nonce + base64.b64encode(os.urandom(12))
        rounds = self.partner.scram_rounds
        first = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), rounds)
        final, _, proof = self.ask(first).rpartition(b",p=")
        assert final == b"c=biws,r=" + nonce, final
        password = self.partner.users.get(user, "").encode()
        salted = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
        client = hmac.digest(salted, b"Client Key", "sha256")
        server = hmac.digest(salted, b"Server Key", "sha256")
        text = b",".join((bare, first, final))
        signature = hmac.digest(hashlib.sha256(client).digest(), text, "sha256")
        if bytes(a ^ b for a, b in zip(client, signature)) != base64.b64decode(proof):
            return None
        signed = hmac.digest(server, text, "sha256")
        if self.partner.scram_lies:
            signed = bytes(32)
        assert self.ask(b"v=" + base64.b64encode(signed)) == b""
        return user

    def on_mail(self, argument):
        path, _, parameters = argument.partition(" ")
        allowed = self.user or not self.partner.users
        otherwise = "250 2.1.0 sender ok" if allowed else "530 5.7.0 authenticate first"
        if self.answer("mail", argument, otherwise):
            self.reset()
            self.sender, self.sender_parameters = path.strip("<>"), parameters

    def on_rcpt(self, argument):
        path, _, parameters = argument.partition(" ")
        otherwise = "250 2.1.5 recipient ok" if self.sender is not None else "503 5.5.1 MAIL first"
        if self.answer("rcpt", argument, otherwise):
            self.recipients.append((path.strip("<>"), parameters))

    def on_data(self, argument):
        otherwise = "354 go ahead" if self.recipients else "554 5.5.1 no valid recipients"
        if not self.answer("data", argument, otherwise):
            return
        self.answer_body()
        content = b""
        while not self.buffer.startswith(b".\r\n"):
            end = self.buffer.find(b"\r\n.\r\n")
            if end >= 0:
                content, self.buffer = self.buffer[: end + 2], self.buffer[end + 5 :]
                break
            self.more()
        else:
            self.buffer = self.buffer[3:]
        content = re.sub(rb"(?m)^\.\.", b".", content)
        self.finish(content)

    def answer_body(self):
        action = self.partner.decide("body", "", None)
        if action is not None:
            if action is DROP and not self.buffer:
                self.more()
            self.act(action)

    def on_bdat(self, argument):
        words = argument.split()
        size = int(words[0])
        while len(self.buffer) < size:
            self.more()
        self.chunks += self.buffer[:size]
        self.buffer = self.buffer[size:]
        if not self.recipients:
            self.act("503 5.5.1 no valid recipients")
        elif len(words) > 1 and words[1].upper() == "LAST":
            self.finish(self.chunks)
        else:
            self.answer("bdat", argument, "250 2.0.0 chunk ok")

    def finish(self, content):
        message = Message(self.sender, self.sender_parameters, list(self.recipients), content,
                          self.tls, self.number, self.hello, self.client, self.user, self.peer)  # fmt: skip
        self.reset()
        self.partner.record(self.number, "dot", message.sender)
        replies = []
        if self.partner.lmtp:
            taken = []
            for recipient in message.recipients:
                reply = self.partner.decide("dot", recipient[0], "250 2.0.0 delivered")
                replies.append(reply)
                if reply not in (DROP, HANG) and reply.startswith("2"):
                    taken.append(recipient)
            message.recipients = taken
        else:
            reply = self.partner.decide("dot", message.sender, "250 2.0.0 accepted")
            replies.append(reply)
            if reply in (DROP, HANG) or not reply.startswith("2"):
                message.recipients = []
        # Recorded before it is said, as a server has it on disk before its 250.
        if message.recipients:
            if self.partner.taking:
                self.partner.taking(message)
            with self.partner.changed:
                self.partner.messages.append(message)
                self.partner.changed.notify_all()
        for reply in replies:
            self.act(reply)

    def on_rset(self, argument):
        self.reset()
        self.answer("rset", argument, "250 2.0.0 reset")

    def on_noop(self, argument):
        self.answer("noop", argument, "250 2.0.0 ok")

    def on_quit(self, argument):
        self.answer("quit", argument, "221 2.0.0 bye")
        raise _End


def taken_then_lost(partner):
    """For on("dot", ...): accept the message for real, then break the connection before the reply."""
    partner.lost_after_dot = getattr(partner, "lost_after_dot", 0) + 1
    return DROP
