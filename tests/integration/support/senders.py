"""Clients that hand mail to the daemon: a raw one that says anything, and real programs."""
import itertools
import re
import shutil
import smtplib
import socket
import subprocess

from .waiting import PATIENCE_S

_numbers = itertools.count(1)


def message(subject="test", body="hello\r\n", size=0, **headers):
    """Octets of a message, CRLF lines; `size` pads the body to about that many octets."""
    number = next(_numbers)
    lines = [
        f"Subject: {subject}",
        "From: sender@us.test",
        "To: someone@bank.test",
        "Date: Mon, 23 Nov 2026 12:00:00 +0000",
        f"Message-ID: <{number}@us.test>",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines) + "\r\n\r\n" + body
    filler = "x" * 70 + "\r\n"
    text += filler * max(0, (size - len(text) + len(filler) - 1) // len(filler))
    return text.encode("utf-8")


class Reply:
    def __init__(self, octets):
        self.octets = octets
        self.text = octets.decode("utf-8", "replace")
        self.code = int(self.text[:3])

    @property
    def queue_id(self):
        found = re.search(r"queued as ([0-9A-Za-z]+)", self.text)
        return found.group(1).upper() if found else None

    def __repr__(self):
        return repr(self.text)


class RawClient:
    """SMTP by hand: send any octets, read replies one at a time."""

    def __init__(self, address, family=socket.AF_INET):
        if isinstance(address, str):
            family = socket.AF_UNIX
        elif ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()

    def send(self, octets):
        self.socket.sendall(octets if isinstance(octets, bytes) else octets.encode("utf-8"))

    def reply(self):
        octets = b""
        while True:
            line = self.stream.readline()
            if not line:
                raise EOFError(octets)
            octets += line
            if line[3:4] != b"-":
                return Reply(octets)

    def say(self, line):
        self.send(line + "\r\n" if isinstance(line, str) else line + b"\r\n")
        return self.reply()

    def closed(self):
        """The server has closed; whatever it said before is dropped."""
        try:
            while self.stream.read(4096):
                pass
        except ConnectionResetError:
            pass
        return True

    def hello(self, name="client.test"):
        greeting = self.reply()
        assert greeting.code == 220, greeting
        return self.say("EHLO " + name)

    def envelope(self, sender, *recipients, parameters=""):
        reply = self.say(f"MAIL FROM:<{sender}>{parameters}")
        assert reply.code == 250, reply
        replies = [self.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
        return replies

    def data(self, content):
        reply = self.say("DATA")
        assert reply.code == 354, reply
        stuffed = re.sub(rb"(?m)^\.", b"..", content)
        self.send(stuffed + b".\r\n")
        return self.reply()


def send(address, recipients, sender="sender@us.test", content=None, options=(), rcpt_options=()):
    """Send by smtplib; the queue id that the 250 named. Refusals raise smtplib's exceptions."""
    if isinstance(recipients, str):
        recipients = [recipients]
    with smtplib.SMTP(*address, local_hostname="client.test", timeout=PATIENCE_S) as client:
        client.ehlo()
        for code, text in [client.mail(sender, list(options))] + [
            client.rcpt(recipient, list(rcpt_options)) for recipient in recipients
        ]:
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
        code, text = client.data(message() if content is None else content)
        if code != 250:
            raise smtplib.SMTPDataError(code, text)
        return Reply(b"250 " + text).queue_id


def have(program):
    return shutil.which(program) is not None


def _run(command, **options):
    return subprocess.run(command, capture_output=True, timeout=PATIENCE_S * 2, check=False, **options)


def swaks(address, recipients, *options, sender="sender@us.test"):
    host, port = address
    return _run(["swaks", "--server", host, "--port", str(port), "--from", sender, "--to",
                 ",".join(recipients), "--helo", "client.test", *options])  # fmt: skip


def msmtp(address, recipients, content, *options, sender="sender@us.test"):
    host, port = address
    return _run(["msmtp", f"--host={host}", f"--port={port}", "--file=/dev/null", "--domain=client.test",
                 f"--from={sender}", *options, "--", *recipients], input=content)  # fmt: skip
