"""Ports that stay a test's own while nobody listens on them."""
import random
import socket


class Port:
    """A port of the kernel's choice. As long as this lives no other process gets the number, as a
    listener or for a connection of its own; what connects while nobody listens is refused."""

    def __init__(self, host="127.0.0.1", number=0):
        self.holder = self._bound(host, number)
        self.host, self.number = self.holder.getsockname()[:2]

    def listen(self, backlog=512):
        """A new listener; close it to refuse connections again."""
        listener = self._bound(self.host, self.number)
        listener.listen(backlog)
        return listener

    @staticmethod
    def _bound(host, number):
        # Two sockets may share a port if both say so and neither listens yet. A bound port is none
        # that the kernel gives away.
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, number))
        return bound


# Below those that the kernel gives to connections and to whoever binds port 0, so that nothing else
# takes one between its choice and the start of the program that listens there.
FIXED = range(20000, 32768)
_reserved = []


def reserve_port(host="127.0.0.1"):
    """A port, TCP and UDP, for a program that has to be told one: no other test gets the number while
    this process lives."""
    while True:
        number = random.choice(FIXED)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0bridgehead-test-port-{number}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((host, number))
        except OSError:
            claim.close()
            continue
        _reserved.append(claim)
        return number
