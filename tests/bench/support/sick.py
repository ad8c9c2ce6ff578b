#!/usr/bin/env python3
"""Partners that are ill, each in its own way and at its own address: sick.py -o REPORT -T SECONDS KIND=ADDRESS ...

connect   the handshake of TCP gets no answer      banner ehlo mail rcpt data body dot   nothing is said there, or read
refuse    nobody listens                           starttls   "220", and then no handshake
trickle   an octet a second                        reset      the connection is reset once content comes

Port 25. On SIGUSR1 the report is written: connections in all, open ones and the most at once, by kind."""

import asyncio
import json
import os
import signal
import socket
import struct
import sys

KINDS = ("connect", "banner", "ehlo", "starttls", "mail", "rcpt", "data", "body", "dot", "refuse", "trickle", "reset")
report = {"connections": 0, "by_kind": {}}
kept = []  # sockets that stay as they are


class Patient(asyncio.Protocol):
    def __init__(self, kind):
        self.kind, self.buffer, self.content, self.stuck = kind, b"", False, False

    def connection_made(self, transport):
        self.transport = transport
        mine = report["by_kind"].setdefault(self.kind, {"connections": 0, "open": 0, "open_max": 0})
        mine["connections"] += 1
        mine["open"] += 1
        mine["open_max"] = max(mine["open_max"], mine["open"])
        report["connections"] += 1
        self.waiting = b""
        self.say("banner", "220 sick.bench.test ESMTP")

    def connection_lost(self, problem):
        report["by_kind"][self.kind]["open"] -= 1
        self.stuck = True

    def say(self, stage, text):
        if self.stuck:
            return
        if self.kind == stage:
            self.stuck = True
            self.transport.pause_reading()
            return
        octets = text.encode() + b"\r\n"
        if self.kind != "trickle":
            self.transport.write(octets)
            return
        idle = not self.waiting
        self.waiting += octets
        if idle:
            self.drip()

    def drip(self):
        if not self.stuck and self.waiting:
            self.transport.write(self.waiting[:1])
            self.waiting = self.waiting[1:]
            asyncio.get_running_loop().call_later(1, self.drip)

    def data_received(self, octets):
        if self.content and self.kind == "reset":
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # fmt: skip
            self.transport.abort()
            self.stuck = True
        self.buffer += octets
        while not self.stuck and self.take():
            pass

    def take(self):
        if self.content:
            end = self.buffer.find(b"\r\n.\r\n")
            if end < 0:
                return False
            self.buffer, self.content = self.buffer[end + 5 :], False
            self.say("dot", "250 2.0.0 taken")
            return True
        line, found, rest = self.buffer.partition(b"\r\n")
        if not found:
            return False
        self.buffer = rest
        verb = line[:4].upper()
        if verb == b"EHLO":
            more = "250-STARTTLS\r\n" if self.kind == "starttls" else ""
            self.say("ehlo", f"250-sick.bench.test\r\n{more}250 PIPELINING")
        elif verb == b"STAR":
            self.say("", "220 2.0.0 go ahead")
            self.stuck = True
        elif verb == b"DATA":
            self.say("data", "354 go ahead")
            self.content = True
            if self.kind == "body":
                self.stuck = True
                self.transport.pause_reading()
        else:
            self.say(verb.decode().lower(), "250 2.0.0 fine")
        return True


def deaf(address):
    """A listener whose queue is full: what the kernel gets for it is dropped."""
    listener = socket.socket()
    listener.bind((address, 25))
    listener.listen(0)
    kept.append(listener)
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((address, 25))
        kept.append(filler)


async def main():
    options, places = {}, []
    words = iter(sys.argv[1:])
    for word in words:
        if word.startswith("-"):
            options[word] = next(words)
        else:
            places.append(word.partition("=")[::2])
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell():
        with open(options["-o"] + ".new", "w") as out:
            json.dump(report, out)
        os.rename(options["-o"] + ".new", options["-o"])

    loop.add_signal_handler(signal.SIGUSR1, tell)
    loop.add_signal_handler(signal.SIGTERM, done.set)
    for kind, address in places:
        if kind == "connect":
            deaf(address)
        elif kind != "refuse":
            await loop.create_server(lambda kind=kind: Patient(kind), address, 25, backlog=1024)
    await asyncio.wait_for(done.wait(), float(options["-T"]))


if __name__ == "__main__":
    asyncio.run(main())
