"""One message stays one message, whatever stands around a dot in it: with CR, LF and NUL alone and in every
order, cut into packets anywhere, by DATA and by BDAT, behind pipelined commands. What is refused is refused
whole, and the session goes on in step; what is taken arrives as it was sent, and nothing else arrives."""
import itertools
import re

from harness import Case
from support.senders import RawClient

BREAKS = (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\n", b"\0", b"\r\0\n", b"\r\n\0", b"\0\r\n", b" \r\n", b"")
INSIDE = (b"MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<victim@bank.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n")
HEADER = b"Subject: one\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nFrom: <s@us.test>\r\nMessage-ID: <1@us.test>\r\n\r\n"
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")


def bodies():
    """Every break before the dot with every break behind it, but for the one that does end a message."""
    for before, behind in itertools.product(BREAKS, BREAKS):
        content = HEADER + b"text" + before + b"." + behind + INSIDE
        if b"\r\n.\r\n" not in content:
            yield before + b"." + behind, content


class Smuggling(Case):
    def setUp(self):
        super().setUp()
        self.receiver = self.partner(extensions=("PIPELINING", "8BITMIME", "CHUNKING"))
        self.relay = self.relay_to(self.receiver, listen="""listen 127.0.0.1:0 {
    relay-from 127.0.0.0/8
    limits { errors 10000 }
}""")  # fmt: skip
        self.taken = {}  # recipient: the content that was sent

    def one(self, client, number, content, expected, give):
        """A message in a session; the reply to its end is what it must be, and the next command's, too."""
        recipient = f"r{number}@bank.test"
        reply = give(client, recipient, content)
        good = BARE.search(expected) is None
        self.assertEqual(250 if good else 5, reply.code if good else reply.code // 100, (expected, reply))
        self.assertEqual(252, client.say("VRFY in-step").code)
        if good:
            self.taken[recipient] = expected
        return good

    def check_arrivals(self):
        self.relay.wait_empty()
        self.assertEqual(sorted(self.taken), self.receiver.addresses())
        for got in self.receiver.messages:
            self.assertEqual("s@us.test", got.sender)
            _, _, rest = got.content.partition(b"Subject: one")
            self.assertEqual(self.taken[got.addresses[0]], b"Subject: one" + rest)

    def envelope(self, client, recipient):
        for line, code in ((f"MAIL FROM:<s@us.test>", 250), (f"RCPT TO:<{recipient}>", 250)):
            reply = client.say(line)
            self.assertEqual(code, reply.code, reply)

    def run_all(self, give, expected=lambda content: content):
        refused = 0
        with RawClient(self.relay.address) as client:
            client.hello()
            for number, (_, content) in enumerate(bodies()):
                refused += not self.one(client, number, content, expected(content), give)
            client.say("QUIT")
        self.check_arrivals()
        self.assertGreater(refused, 100)
        self.assertGreater(len(self.taken), 3)

    def test_by_data_in_one_packet(self):
        def give(client, recipient, content):
            self.envelope(client, recipient)
            self.assertEqual(354, client.say("DATA").code)
            client.send(content + b"\r\n.\r\n")
            return client.reply()

        self.run_all(give, lambda content: re.sub(rb"(?<=\r\n)\.", b"", content) + b"\r\n")

    def test_by_data_an_octet_at_a_time(self):
        """The octets around the dot go out one by one; the stream is the same."""

        def give(client, recipient, content):
            self.envelope(client, recipient)
            self.assertEqual(354, client.say("DATA").code)
            start = len(HEADER) + 2
            client.send(content[:start])
            for octet in content[start : start + 12]:
                client.send(bytes([octet]))
            client.send(content[start + 12 :])
            for octet in b"\r\n.\r\n":
                client.send(bytes([octet]))
            return client.reply()

        self.run_all(give, lambda content: re.sub(rb"(?<=\r\n)\.", b"", content) + b"\r\n")

    def test_behind_pipelined_data(self):
        """Content on the heels of DATA, as RFC 2920 does not allow, and all that follows it: the replies are
        those of one transaction."""

        def give(client, recipient, content):
            client.send(f"MAIL FROM:<s@us.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode() + content + b"\r\n.\r\n")
            self.assertEqual([250, 250, 354], [client.reply().code for _ in range(3)])
            return client.reply()

        self.run_all(give, lambda content: re.sub(rb"(?<=\r\n)\.", b"", content) + b"\r\n")

    def test_by_bdat_in_two_chunks(self):
        """A chunk ends in the midst of the sequence. Dots mean nothing here, and CRLF.CRLF does not either: it is
        stuffed on its way out."""
        more = [(b"\r\n.\r\n", HEADER + b"text\r\n.\r\n" + INSIDE)]

        def give(client, recipient, content):
            self.envelope(client, recipient)
            cut = len(HEADER) + 6
            client.send(b"BDAT %d\r\n" % cut + content[:cut])
            first = client.reply()
            client.send(b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:])
            last = client.reply()
            if first.code != 250:  # The rest of a message that failed is dropped and said to be.
                self.assertEqual(5, last.code // 100)
            return last

        with RawClient(self.relay.address) as client:
            client.hello()
            for number, (_, content) in enumerate(itertools.chain(more, bodies())):
                self.one(client, number, content, content, give)
                self.assertEqual(250, client.say("RSET").code)
        self.check_arrivals()
        self.assertIn("r0@bank.test", self.taken)

    def test_commands_of_content_that_was_refused_are_no_commands(self):
        """DATA without a recipient gets no 354; what its client then sends as content is commands, refused one
        by one, and none of it is a message."""
        with RawClient(self.relay.address) as client:
            client.hello()
            client.send(b"MAIL FROM:<s@us.test>\r\nRCPT TO:<not an address>\r\nDATA\r\n" + HEADER + b".\r\nNOOP\r\n")
            codes = [client.reply().code for _ in range(3 + HEADER.count(b"\n") + 1)]
            self.assertEqual([250, 501, 554], codes[:3])
            self.assertTrue(all(code // 100 == 5 for code in codes[3:]), codes)
            self.assertEqual(250, client.reply().code)
        self.check_arrivals()
