"""An HTTPS server on loopback that serves one MTA-STS policy, well or badly."""
import socket
import ssl
import threading

from .ports import Port
from .waiting import Changing


def policy(mode="enforce", mx=("mx1.bank.test",), max_age=604800):
    lines = ["version: STSv1", f"mode: {mode}"]
    lines += [f"mx: {pattern}" for pattern in mx]
    return "".join(line + "\r\n" for line in [*lines, f"max_age: {max_age}"])


class PolicyHost(Changing):
    """`answer` is what every request gets: change it with serve(). Requests are recorded as
    (path, Host header, SNI)."""

    def __init__(self, certificate, host="127.0.0.1", max_tls=None):
        super().__init__()
        self.host, self.port = host, 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        if max_tls:
            self.context.minimum_version = ssl.TLSVersion.TLSv1
            self.context.maximum_version = max_tls
            self.context.set_ciphers("ALL:@SECLEVEL=0")
        self.context.sni_callback = self._sni
        self.requests = []
        self.connections = 0
        self.stalled = threading.Event()  # while set, no request is answered
        self.answer = b""
        self.listener = None
        self.held = None  # the port, also while nobody listens
        self.open = set()

    def serve(self, body="", status="200 OK", kind="text/plain", more=()):
        """`body` is octets, text, or a list of chunks to be sent chunked."""
        head = [f"HTTP/1.1 {status}", "Connection: close", *more]
        if kind:
            head.append(f"Content-Type: {kind}")
        if isinstance(body, list):
            head.append("Transfer-Encoding: chunked")
            octets = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in body) + b"0\r\n\r\n"
        else:
            octets = body.encode() if isinstance(body, str) else body
            head.append(f"Content-Length: {len(octets)}")
        with self.changed:
            self.answer = "".join(line + "\r\n" for line in head).encode() + b"\r\n" + octets
        return self

    def up(self):
        self.held = self.held or Port(self.host)
        self.port = self.held.number
        self.listener = self.held.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def down(self):
        """Refuse connections from now on, and break those that are open."""
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        with self.changed:
            for connection in list(self.open):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def wait_requests(self, count):
        self.wait_until(lambda: len(self.requests) >= count, f"{count} requests for a policy")

    def _sni(self, connection, name, context):
        connection.asked_for = name

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                self.connections += 1
                self.open.add(connection)
                self.changed.notify_all()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, raw):
        try:
            with self.context.wrap_socket(raw, server_side=True) as connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    request += piece
                lines = request.decode("latin-1").split("\r\n")
                host = next((line[5:].strip() for line in lines if line.lower().startswith("host:")), "")
                with self.changed:
                    self.requests.append((lines[0].split()[1], host, getattr(connection, "asked_for", None)))
                    self.changed.notify_all()
                    answer = self.answer
                if self.stalled.is_set():
                    connection.recv(1)  # Until the other side gives up.
                    return
                connection.sendall(answer)
                connection.unwrap()
        except (OSError, ValueError):
            pass
        finally:
            with self.changed:
                self.open.discard(raw)
            raw.close()
