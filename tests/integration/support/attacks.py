"""Clients that mean no good, in a process of their own so that they do not slow down those who measure.

    attacks.py NAME HOST PORT [COUNT]

Prints "up N" once N connections (or threads) are at it, goes on until its standard input ends, then prints
"did N", how often it did its thing. Addresses of 127.0.8.0/24 are used in turn, so that no limit of one
client's ends it early."""
import random
import resource
import socket
import ssl
import struct
import sys
import threading

stop = threading.Event()
counts = {"did": 0}
ready = set()  # who has connected once
lock = threading.Lock()


def note(what):
    with lock:
        counts[what] += 1


def connect(target, number, timeout=10):
    client = socket.socket()
    client.settimeout(timeout)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((f"127.0.8.{1 + number % 200}", 0))
    client.connect(target)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def abort(client):
    """Close by a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def read_all(client):
    """In a thread: what the server says is read and dropped."""

    def drop():
        try:
            while client.recv(65536):
                pass
        except OSError:
            pass

    threading.Thread(target=drop, daemon=True).start()


def again(count, once):
    """`once(number)` over and over on `count` threads; what fails by the connection is tried again."""

    def loop(number):
        while not stop.is_set():
            try:
                once(number)
                note("did")
            except OSError:
                pass
            ready.add(number)

    for number in range(count):
        threading.Thread(target=loop, args=(number,), daemon=True).start()
    while len(ready) < count and not stop.is_set():
        stop.wait(0.01)
    print("up", count, flush=True)
    stop.wait()


def flood(target, number, octets, greet=b"EHLO x\r\n"):
    """One connection that says this until it is thrown out or we stop; replies are read."""
    client = connect(target, number)
    with client:
        read_all(client)
        client.sendall(greet)
        ready.add(number)
        while not stop.is_set():
            client.sendall(octets)
            note("did")


# -- the attacks, by name


def idle(target, count):
    """Sessions that say hello and nothing more."""
    clients = []
    for number in range(count):
        client = connect(target, number)
        clients.append(client)
    for client in clients:
        if client.recv(4)[:3] == b"220":
            note("did")
    print("up", counts["did"], flush=True)
    stop.wait()


def crowd(target, count):
    """More sessions than there may be, held open whatever they are told."""
    clients = []
    for number in range(count):
        try:
            clients.append(connect(target, number % 3))
        except OSError:
            break
        note("did")
    print("up", len(clients), flush=True)
    stop.wait()


def slow(target, count):
    """A whole transaction, an octet at a time on each of many connections."""
    script = b"EHLO slow.test\r\nMAIL FROM:<a@slow.test>\r\nRCPT TO:<slow@bank.test>\r\nDATA\r\n" + b"x: y\r\n" * 10000
    clients = [connect(target, number) for number in range(count)]
    for client in clients:
        read_all(client)
    print("up", count, flush=True)
    at = 0
    while not stop.is_set():
        for client in clients:
            try:
                client.send(script[at : at + 1])
                note("did")
            except OSError:
                pass
        at += 1
        stop.wait(0.02)


def noop(target, count):
    again(count, lambda n: flood(target, n, b"NOOP\r\nRSET\r\n" * 4000))


def unknown(target, count):
    again(count, lambda n: flood(target, n, b"FROB x\r\nEXPN\r\n\0\xff\r\n" * 1000))


def huge_lines(target, count):
    again(count, lambda n: flood(target, n, b"x" * 1000000))


def huge_content_lines(target, count):
    hello = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<huge@bank.test>\r\nDATA\r\n"
    again(count, lambda n: flood(target, n, b"x" * 1000000, hello))


def deaf(target, count):
    """Commands without end, and not one reply read."""

    def once(number):
        client = connect(target, number, timeout=0.5)
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"EHLO x\r\n")
            try:
                while not stop.is_set():
                    client.sendall(b"NOOP\r\n" * 4000)
            except TimeoutError:
                ready.add(number)
                stop.wait()  # It does not read on; nor do we.

    again(count, once)


def early(target, count):
    """Everything before the greeting, and MAIL before EHLO."""
    whole = (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<early@bank.test>\r\nDATA\r\nx: y\r\n\r\n.\r\n"
             b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<early@elsewhere.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")  # fmt: skip

    def once(number):
        with connect(target, number) as client:
            client.sendall(whole)
            while client.recv(65536):
                pass

    again(count, once)


def storm(target, count):
    """Connect and go, by a reset or in order, before a word was said or after it."""
    dice = random.Random(1)

    def once(number):
        client = connect(target, number)
        what = dice.randrange(4)
        if what == 0:
            client.recv(100)
        elif what == 1:
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@b")
        if what < 3:
            abort(client)
        else:
            client.close()

    again(count, once)


def stall(target, count):
    """A message begun, most of its 256 KiB sent, and never ended."""
    hello = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<stall@bank.test>\r\nDATA\r\n"

    def once(number):
        client = connect(target, number)
        with client:
            read_all(client)
            client.sendall(hello + b"x: y\r\n" * 40000)
            ready.add(number)
            note("did")
            stop.wait()

    again(count, once)


def starttls(target, count):
    """STARTTLS, and then a handshake, half of one, or something else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    dice = random.Random(2)

    def once(number):
        client = connect(target, number)
        with client:
            client.sendall(b"EHLO x\r\n")
            said = b""
            while b"\n250 " not in said:
                said += client.recv(65536) or stop_here()
            client.sendall(b"STARTTLS\r\n")
            if client.recv(100)[:3] != b"220":
                return
            what = dice.randrange(4)
            if what == 0:
                client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
                abort(client)
            elif what == 1:
                client.sendall(b"EHLO again\r\n" * 50)
                client.recv(100)
            else:
                with context.wrap_socket(client, do_handshake_on_connect=what == 2) as secure:
                    if what == 2:
                        secure.sendall(b"EHLO x\r\n")
                        secure.recv(1000)

    again(count, once)


def stop_here():
    raise OSError("closed")


ATTACKS = {f.__name__: f for f in (idle, crowd, slow, noop, unknown, huge_lines, huge_content_lines, deaf, early,
                                   storm, stall, starttls)}  # fmt: skip


def main():
    name, host, port = sys.argv[1:4]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack = ATTACKS[name]
    threading.stack_size(256 * 1024)
    threading.Thread(target=attack, args=((host, int(port)), int(sys.argv[4])), daemon=True).start()
    sys.stdin.read()
    stop.set()
    print("did", counts["did"], flush=True)


if __name__ == "__main__":
    main()
