"""Intake: what a client may say, what it is told, and that a 250 is kept."""
import os
import pwd
import re
import smtplib
import socket
import struct
import subprocess
import time

from harness import Case, tag
from support import senders
from support.senders import RawClient, message, send


class Relay(Case):
    @tag("tsan")
    def test_swaks_and_msmtp(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        self.assertEqual(0, senders.swaks(daemon.address, ["a@bank.test", "b@bank.test"]).returncode)
        result = senders.msmtp(daemon.address, ["c@fax.test"], message(subject="by msmtp"))
        self.assertEqual(0, result.returncode, result.stderr)
        partner.wait_messages(2)
        self.assertEqual(["a@bank.test", "b@bank.test", "c@fax.test"], partner.addresses())
        daemon.wait_empty()

    def test_nothing_is_touched_but_one_received_line(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        content = message(body=".\r\n..two\r\n \r\n\ttab\r\nlast \r\n", X_Long="y" * 900)
        queue_id = self.send(daemon, content=content)
        (got,) = partner.wait_messages(1)
        trace, _, rest = got.content.partition(b"Subject:")
        self.assertEqual(content, b"Subject:" + rest)
        self.assertTrue(trace.startswith(b"Received: from client.test"), trace)
        self.assertEqual(1, len(re.findall(rb"(?m)^\S+:", trace)))
        self.assertIn(b"for <you@bank.test>", trace)
        self.assertEqual(queue_id, got.queue_id)

    def test_several_recipients_are_not_disclosed(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        self.send(daemon, ["a@bank.test", "hidden@bank.test", "a@bank.test"])
        (got,) = partner.wait_messages(1)
        self.assertEqual(["a@bank.test", "hidden@bank.test"], got.addresses)  # merged, in order
        self.assertNotIn(b"hidden@bank.test", got.content)

    def test_each_listener(self):
        partner = self.partner()
        unix = self.path("smtp.sock")
        daemon = self.relay_to(
            partner,
            listen=f"""listen 127.0.0.1:0 {{ relay-from 127.0.0.0/8 }}
listen [::1]:0 {{ relay-from ::1/128 }}
listen unix:{unix} {{ relay-from local }}""",
        )
        daemon.wait_until(lambda: len(daemon.addresses) == 3, "three listeners")
        for number, address in enumerate(daemon.addresses):
            with RawClient(address) as client:
                client.hello()
                client.envelope("s@us.test", f"r{number}@bank.test")
                self.assertEqual(250, client.data(message()).code, address)
        partner.wait_messages(3)
        self.assertEqual(["r0@bank.test", "r1@bank.test", "r2@bank.test"], partner.addresses())

    def test_systemd_socket_activation(self):
        partner = self.partner()
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        daemon = self.relay_to(
            partner, start=False, listen="listen systemd:smtp { relay-from 127.0.0.0/8 }"
        )
        # What systemd does before it runs a service: the socket as descriptor 3, and three variables
        # of which one names the process that they are for.
        script = (
            "import os,sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()),"
            "LISTEN_FDS='1', LISTEN_FDNAMES='smtp'); os.execv(sys.argv[2], sys.argv[2:])"
        )
        daemon.wrapper = ["python3", "-c", script, str(listener.fileno())]
        daemon.pass_fds = (listener.fileno(),)
        daemon.start()
        send(("127.0.0.1", port), "a@bank.test")
        partner.wait_messages(1)

    def test_proxy_protocol(self):
        partner = self.partner()
        daemon = self.relay_to(
            partner,
            listen="""listen 127.0.0.1:0 {
    relay-from 192.0.2.0/24
    proxy-protocol-from 127.0.0.1/32
}""",
        )
        for client_ip, code in (("192.0.2.77", 250), ("198.51.100.1", 550)):
            with RawClient(daemon.address) as client:
                body = socket.inet_aton(client_ip) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 25)
                client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(body)) + body)
                client.hello()
                (reply,) = client.envelope("s@us.test", "a@bank.test")
                self.assertEqual(code, reply.code, reply)
                if code == 250:
                    self.assertEqual(250, client.data(message()).code)
        (got,) = partner.wait_messages(1)
        self.assertIn("192.0.2.77", got.header("Received"))

    def test_no_open_relay(self):
        partner = self.partner()
        daemon = self.relay_to(partner, listen="listen 127.0.0.1:0 { }")
        with RawClient(daemon.address) as client:
            client.hello()
            (reply,) = client.envelope("s@us.test", "a@bank.test")
            self.assertEqual(550, reply.code)
            self.assertIn("5.7.1", reply.text)
            self.assertIn(client.say("DATA").code, (503, 554))
        self.assertEqual(0, partner.connections)

    def test_starttls_and_injection(self):
        partner = self.partner()
        certificate, key = self.authority().issue("relay.us.test")
        daemon = self.relay_to(
            partner,
            listen=f"""listen 127.0.0.1:0 {{
    relay-from 127.0.0.0/8
    tls starttls {{ certificate {certificate}; key {key} }}
}}""",
        )
        result = senders.swaks(daemon.address, ["a@bank.test"], "--tls", "--tls-protocol", "tlsv1_3")
        self.assertEqual(0, result.returncode, result.stdout)
        (got,) = partner.wait_messages(1)
        self.assertIn("ESMTPS", got.header("Received"))
        with RawClient(daemon.address) as client:
            client.hello()
            client.send("STARTTLS\r\nMAIL FROM:<evil@us.test>\r\nRCPT TO:<a@bank.test>\r\n")
            self.assertTrue(client.closed())
        self.assertEqual(1, len(partner.messages))

    def test_programs_without_a_partner(self):
        """The 250 does not need the next hop: the mail waits."""
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(partner)
        self.assertEqual(0, senders.swaks(daemon.address, ["a@bank.test"]).returncode)
        daemon.wait_listed(1)


class Durable(Case):
    def test_acknowledged_mail_survives_a_kill(self):
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(partner)
        ids = {self.send(daemon, f"r{i}@bank.test") for i in range(20)}
        daemon.kill()
        daemon.start()
        self.assertEqual(ids, {row["id"] for row in daemon.list()})
        partner.up()
        daemon.ctl("flush", "--all")
        partner.wait_messages(20)
        self.assertEqual(ids, {m.queue_id for m in partner.messages})

    @tag("release")  # strace and the leak checker exclude each other
    def test_250_after_the_sync(self):
        """In the order of system calls, each 250 follows a sync that ended after its 354. The connector
        is held, so that no commit but that of the message itself can be what was synced."""
        partner = self.partner()
        trace = self.path("trace")
        daemon = self.relay_to(partner, 'state held\n    reason "only intake commits"', start=False)
        daemon.wrapper = ["strace", "-D", "-f", "-y", "-s", "64", "-o", trace, "-e",
                          "trace=fdatasync,fsync,msync,write,writev,sendto,sendmsg,pwrite64,pwritev"]  # fmt: skip
        daemon.start()
        for i in range(5):
            self.send(daemon, f"r{i}@bank.test")
        daemon.stop()
        synced, acknowledged = False, 0
        with open(trace, encoding="utf-8", errors="replace") as calls:
            for line in calls:
                done = re.search(r"\b(fdatasync|fsync|msync)(\(.*data\.mdb| resumed).* = 0$", line)
                if done:  # A line of a call that is still under way ends in "<unfinished ...>".
                    synced = True
                elif re.search(r'"354 ', line):
                    synced = False
                elif re.search(r'"250 .*queued as', line):
                    self.assertTrue(synced, line)
                    acknowledged += 1
        self.assertEqual(5, acknowledged)


class Dialogue(Case):
    """One daemon for all; its partner is there, and mostly idle."""

    def setUp(self):
        super().setUp()
        self.remote = self.partner()
        self.relay = self.relay_to(
            self.remote,
            listen="""listen 127.0.0.1:0 {
    relay-from 127.0.0.0/8
    limits { message-size 1M; recipients 100; errors 5 }
}""",
        )

    def client(self):
        client = RawClient(self.relay.address)
        self.addCleanup(client.close)
        return client

    def test_extensions_and_verbs(self):
        client = self.client()
        offered = client.hello().text
        for word in ("PIPELINING", "SIZE 1048576", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING",
                     "ENHANCEDSTATUSCODES"):  # fmt: skip
            self.assertIn(word, offered)
        self.assertEqual(252, client.say("VRFY someone").code)
        self.assertEqual(214, client.say("HELP").code)
        self.assertEqual(250, client.say("NOOP").code)
        self.assertEqual(503, client.say("RCPT TO:<a@bank.test>").code)
        self.assertEqual(555, client.say("MAIL FROM:<a@us.test> NOSUCH=1").code)
        self.assertEqual(250, client.say("MAIL FROM:<a@us.test>").code)
        self.assertEqual(250, client.say("RSET").code)
        self.assertEqual(221, client.say("QUIT").code)
        self.assertTrue(client.closed())

    @tag("tsan")
    def test_pipelined_transactions(self):
        client = self.client()
        client.hello()
        group = b"".join(
            b"MAIL FROM:<s@us.test>\r\nRCPT TO:<r%d@bank.test>\r\nDATA\r\n" % i
            + message(subject=f"number {i}") + b".\r\n"
            for i in range(12)
        ) + b"QUIT\r\n"  # fmt: skip
        client.send(group)
        codes = []
        while not codes or codes[-1] != 221:
            codes.append(client.reply().code)
        self.assertEqual([250, 250, 354, 250] * 12 + [221], codes)
        self.remote.wait_messages(12)
        self.assertEqual(sorted(f"r{i}@bank.test" for i in range(12)), self.remote.addresses())

    def test_bdat(self):
        client = self.client()
        client.hello()
        content = message(body="lone dot\r\n.\r\nnot stuffed\r\n")
        half = len(content) // 2
        client.envelope("s@us.test", "a@bank.test")
        client.send(b"BDAT %d\r\n" % half + content[:half])
        self.assertEqual(250, client.reply().code)
        client.send(b"BDAT %d\r\n" % (len(content) - half) + content[half:])
        self.assertEqual(250, client.reply().code)
        self.assertEqual(250, client.say("BDAT 0 LAST").code)
        (got,) = self.remote.wait_messages(1)
        self.assertTrue(got.content.endswith(content))

    def test_smuggling(self):
        for ending in (b"\n.\r\n", b"\n.\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r"):
            client = self.client()
            client.hello()
            client.envelope("s@us.test", "a@bank.test")
            self.assertEqual(354, client.say("DATA").code)
            evil = b"MAIL FROM:<evil@us.test>\r\nRCPT TO:<victim@bank.test>\r\nDATA\r\nx\r\n"
            client.send(message()[:-2] + ending + evil + b"\r\n.\r\n")
            reply = client.reply()
            self.assertIn(reply.code // 100, (5,), (ending, reply))
            client.send("QUIT\r\n")
            client.closed()
        self.send(self.relay, "last@bank.test")
        self.remote.wait_messages(1)
        self.assertEqual(["last@bank.test"], self.remote.addresses())

    def test_size(self):
        client = self.client()
        client.hello()
        reply = client.say("MAIL FROM:<s@us.test> SIZE=2000000")
        self.assertEqual((552, True), (reply.code, "5.3.4" in reply.text))
        with self.assertRaises(smtplib.SMTPDataError) as refused:
            self.send(self.relay, content=message(size=1_200_000))
        self.assertEqual(552, refused.exception.smtp_code)
        self.send(self.relay, content=message(size=900_000))
        (got,) = self.remote.wait_messages(1)
        self.assertGreater(len(got.content), 900_000)

    def test_recipients_limit(self):
        client = self.client()
        client.hello()
        replies = client.envelope("s@us.test", *[f"r{i}@bank.test" for i in range(101)])
        self.assertEqual([250] * 100 + [452], [reply.code for reply in replies])
        self.assertEqual(250, client.data(message()).code)
        self.remote.wait_messages(1)

    def test_hop_count(self):
        loop = b"Received: from a by b; Mon, 23 Nov 2026 12:00:00 +0000\r\n" * 120
        with self.assertRaises(smtplib.SMTPDataError) as refused:
            self.send(self.relay, content=loop + message())
        self.assertIn(b"5.4.6", refused.exception.smtp_error)

    def test_too_many_errors(self):
        client = self.client()
        client.hello()
        for _ in range(20):
            try:
                if client.say("NONSENSE").code == 421:
                    break
            except EOFError:
                break
        else:
            self.fail("the session goes on after 20 errors")
        self.assertTrue(client.closed())

    def test_pause_and_resume(self):
        self.relay.ctl("pause")
        with self.assertRaises((smtplib.SMTPResponseException, smtplib.SMTPConnectError)) as refused:
            self.send(self.relay)
        self.assertEqual(4, refused.exception.smtp_code // 100)
        self.relay.ctl("resume")
        self.send(self.relay)
        self.remote.wait_messages(1)

    def test_a_pause_outlives_the_daemon(self):
        """Killed or stopped, it comes back as it was, and says who paused it and why."""
        me = pwd.getpwuid(os.getuid()).pw_name
        self.relay.ctl("pause", "--reason", "moving house")
        self.relay.kill()
        told = self.relay.ctl("status").end  # by bhctl alone
        self.assertTrue(told["intake_paused"])
        self.relay.start()
        self.relay.wait_line(f'evt=intake-paused .*by="{me}" reason="moving house"')
        told = self.relay.ctl("status").end
        self.assertTrue(told["running"] and told["intake_paused"])
        self.assertEqual((me, "moving house"), (told["paused_by"], told["paused_reason"]))
        self.assertLess(abs(told["paused_since_unix_ms"] / 1000 - time.time()), 600)
        with self.assertRaises((smtplib.SMTPResponseException, smtplib.SMTPConnectError)):
            self.send(self.relay)
        self.relay.ctl("resume")
        self.assertNotIn("paused_by", self.relay.ctl("status").end)
        self.relay.stop()
        self.relay.start()
        self.send(self.relay)
        self.remote.wait_messages(1)


class Limits(Case):
    """What a listener says of limits and times, each with its reply."""

    def setUp(self):
        super().setUp()
        self.relay = self.relay_to(self.partner(), listen="""listen 127.0.0.1:0 {
    relay-from 127.0.0.0/8
    max-hops 5
    limits { sessions-per-client 2; line-length 512; commands 20 }
}
listen [::1]:0 {
    relay-from ::1
    timeouts { command 1s; data 1s }
}
listen 127.0.0.2:0 {
    relay-from 127.0.0.0/8
    timeouts { session 1s }
}""")  # fmt: skip
        self.relay.wait_until(lambda: len(self.relay.addresses) == 3, "three listeners")

    def client(self, number):
        client = RawClient(self.relay.addresses[number])
        self.addCleanup(client.close)
        client.hello()
        return client

    def test_counts(self):
        client, _ = self.client(0), self.client(0)
        with RawClient(self.relay.addresses[0]) as third:
            self.assertEqual("421 4.7.0", third.reply().text[:9])
            self.assertTrue(third.closed())
        self.assertEqual(250, client.say("NOOP " + "a" * 500).code)
        self.assertEqual("500 5.5.2", client.say("NOOP " + "a" * 510).text[:9])
        for hops, reply in ((5, "250 2.0.0"), (6, "554 5.4.6")):
            client.envelope("s@us.test", "a@bank.test")
            self.assertEqual(reply, client.data(b"Received: by x\r\n" * hops + message()).text[:9])
        said = 250
        for _ in range(20):
            said = client.say("NOOP")
            if said.code != 250:
                break
        self.assertEqual("421 4.7.0", said.text[:9])
        self.assertTrue(client.closed())

    def test_times(self):
        idle, writing = self.client(1), self.client(1)
        writing.envelope("s@us.test", "a@bank.test")
        self.assertEqual(354, writing.say("DATA").code)
        for client in (idle, writing):
            self.assertEqual("421 4.4.2", client.reply().text[:9])
            self.assertTrue(client.closed())
        busy = self.client(2)
        said = busy.say("NOOP")
        while said.code == 250:
            said = busy.say("NOOP")
        self.assertEqual("421 4.4.2", said.text[:9])


class Submit(Case):
    def submit(self, daemon, *words, content=b"Subject: x\n\nhi\n"):
        # The configuration says port 0, so the port that the kernel chose is named.
        host, port = daemon.address
        command = daemon.ctl_command("submit", *words, options=("--server", f"{host}:{port}"))
        return subprocess.run(command, input=content, capture_output=True, check=False, timeout=60)

    def test_like_sendmail(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        result = self.submit(daemon, "-i", "-f", "cron@us.test", "a@bank.test", "b@bank.test")
        self.assertEqual(0, result.returncode, result.stderr)
        content = b"To: c@bank.test\nBcc: d@bank.test\nSubject: y\n\n.\nno newline"
        result = self.submit(daemon, "-t", "-i", "-f", "cron@us.test", content=content)
        self.assertEqual(0, result.returncode, result.stderr)
        partner.wait_messages(2)
        self.assertEqual([f"{c}@bank.test" for c in "abcd"], partner.addresses())
        second = next(m for m in partner.messages if "c@bank.test" in m.addresses)
        self.assertEqual("cron@us.test", second.sender)
        self.assertNotIn(b"Bcc", second.content)
        self.assertTrue(second.content.endswith(b".\r\nno newline\r\n"), second.content)

    def test_exit_codes(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        self.assertEqual(64, self.submit(daemon, "-Q?").returncode)
        daemon.stop()
        self.assertEqual(75, self.submit(daemon, "-f", "x@us.test", "a@bank.test").returncode)


class Full(Case):
    """No space: 452, nothing lost, and it heals without a restart."""

    def fill(self, daemon, partner):
        """Send until it is refused; what was acknowledged."""
        taken = []
        for i in range(4000):
            try:
                taken.append(self.send(daemon, f"r{i}@bank.test", content=message(size=100_000)))
            except smtplib.SMTPResponseException as refused:
                self.assertEqual(452, refused.smtp_code, refused)
                self.assertIn(b"4.3.1", refused.smtp_error)
                return taken
        return self.fail("never full")

    def taken(self, daemon, recipient):
        try:
            return self.send(daemon, recipient)
        except smtplib.SMTPResponseException as refused:
            self.assertEqual(452, refused.smtp_code, refused)
            return None

    def check(self, daemon, partner):
        taken = self.fill(daemon, partner)
        self.assertGreater(len(taken), 20)
        partner.up()
        daemon.ctl("flush", "--all")
        partner.wait_messages(len(taken), 120)
        self.assertEqual(set(taken), {m.queue_id for m in partner.messages})
        daemon.wait_empty()
        # It takes mail again when there is clearly room (hysteresis), and then says so in its log.
        last = daemon.wait_until(lambda: self.taken(daemon, "after@bank.test"), "mail to be taken")
        partner.wait_until(lambda: any(m.queue_id == last for m in partner.messages), "the last one")

    def test_full_map(self):
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(
            partner, queue=f"queue {{ path {self.path('relay', 'queue')}; max-size 32M; reserve 4M }}"
        )
        self.check(daemon, partner)

    def test_full_disk(self):
        disk = self.path("disk")
        os.mkdir(disk)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            self.skipTest("no privilege to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False)
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(partner, queue=f"queue {{ path {disk}/queue; max-size 1G; reserve 8M }}")
        self.check(daemon, partner)
        daemon.stop()
        daemon.verify()


