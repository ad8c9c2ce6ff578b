"""Delivery: what a partner may do, and what becomes of the mail."""
import threading

from harness import Case, smarthost, tag
from support.partner import DROP, EXTENSIONS, HANG, Partner
from support.senders import message


class Outcomes(Case):
    @tag("tsan")
    def test_temporary_failure_is_retried(self):
        partner = self.partner()
        partner.on("rcpt", "451 4.7.1 greylisted, come back", times=2)
        daemon = self.relay_to(partner)
        self.send(daemon)
        partner.wait_messages(1)
        self.assertEqual(3, partner.count("rcpt"))
        daemon.wait_empty()
        results = daemon.events_of("attempt", 3)
        self.assertEqual([451, 451, 250], [e.get("code") for e in results])

    def test_each_stage_that_fails_for_now(self):
        for stage in ("connect", "ehlo", "mail", "rcpt", "data", "dot"):
            with self.subTest(stage=stage), Partner() as partner:
                partner.on(stage, "451 4.3.0 not now", times=1)
                if stage == "ehlo":
                    partner.on("helo", "451 4.3.0 not now", times=1)
                daemon = self.relay_to(partner, name=stage)
                self.send(daemon)
                partner.wait_messages(1)
                daemon.wait_empty()
                daemon.stop()

    def test_partial_recipients(self):
        partner = self.partner()
        partner.on("rcpt", "450 4.2.1 later", match="slow@", times=1)
        partner.on("rcpt", "550 5.1.1 nobody", match="gone@")
        daemon = self.relay_to(partner)
        self.send(daemon, ["ok@bank.test", "slow@bank.test", "gone@bank.test"])
        partner.wait_until(lambda: "slow@bank.test" in partner.addresses(), "the retried recipient")
        partner.wait_until(lambda: "sender@us.test" in partner.addresses(), "the report")
        self.assertEqual(["ok@bank.test", "sender@us.test", "slow@bank.test"], partner.addresses())
        self.assertEqual(1, partner.count("rcpt", "ok@"))
        self.assertEqual(1, partner.count("rcpt", "gone@"))
        daemon.wait_empty()

    def test_421_at_any_reply(self):
        for stage in ("connect", "ehlo", "mail", "rcpt", "data", "dot"):
            with self.subTest(stage=stage), Partner() as partner:
                partner.on(stage, "421 4.3.2 going down", times=1)
                daemon = self.relay_to(partner, name=stage)
                self.send(daemon)
                partner.wait_messages(1)
                self.assertGreaterEqual(partner.connections, 2)
                daemon.wait_empty()
                daemon.stop()

    def test_lost_before_the_end_is_no_duplicate(self):
        for stage in ("connect", "mail", "rcpt", "data", "body"):
            with self.subTest(stage=stage), Partner() as partner:
                partner.on(stage, DROP, times=1)
                daemon = self.relay_to(partner, name=stage)
                # More than a socket buffers of what nobody reads: its end can't have been sent.
                self.send(daemon, content=message(size=6_000_000 if stage == "body" else 1000))
                partner.wait_messages(1)
                daemon.wait_empty()
                self.assertFalse([e for e in daemon.events() if "uncertain" in str(e)])
                daemon.stop()

    def test_lost_after_the_dot_is_uncertain(self):
        partner = self.partner()
        partner.on("dot", DROP, times=1)
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon)
        partner.wait_messages(1)
        daemon.wait_empty()
        daemon.events_where(lambda e: e.get("msg") == queue_id and "uncertain" in str(e))

    def test_killed_between_the_dot_and_its_reply(self):
        """The partner has it, we died before we knew: sent again, and marked."""
        partner = self.partner()
        partner.on("dot", HANG, times=1)
        daemon = self.relay_to(partner)
        queue_id = self.send(daemon)
        partner.wait_command("dot")
        daemon.kill()
        daemon.start()
        partner.wait_messages(1)
        daemon.wait_empty()
        daemon.stop()
        self.assertIn(queue_id, {e.get("msg") for e in daemon.events() if "uncertain" in str(e)})

    def test_killed_between_two_rounds_of_recipients(self):
        """The first has it, by a 250 that we had not written down yet; the second may have it."""
        partner = self.partner()
        partner.on("dot", HANG)
        partner.on("dot", "250 2.0.0 taken", times=1)
        daemon = self.relay_to(partner, "limits { recipients-per-transaction 1 }; uncertain hold")
        queue_id = self.send(daemon, ["first@bank.test", "second@bank.test", "third@bank.test"])
        partner.wait_command("dot", 2)
        daemon.kill()
        daemon.start()
        rows = [row for row in daemon.ctl("show", queue_id) if row.get("kind") == "recipient"]
        self.assertEqual({"first@bank.test": True, "second@bank.test": True, "third@bank.test": False},
                         {row["address"]: row["recipient_uncertain"] for row in rows})  # fmt: skip

    def test_uncertain_may_be_held(self):
        partner = self.partner()
        partner.on("dot", DROP, times=1)
        daemon = self.relay_to(partner, "uncertain hold")
        queue_id = self.send(daemon)
        partner.wait_command("dot")
        rows = daemon.until(lambda rows: rows and rows[0].get("state") == "held", "list")
        self.assertEqual(queue_id, rows[0]["id"])
        self.assertEqual(0, len(partner.messages))
        daemon.ctl("release", "--id", queue_id)
        partner.wait_messages(1)

    def test_what_is_uncertain_goes_by_the_configuration_in_force(self):
        """Whoever takes `uncertain hold` back finds nothing held by a session from before; and the reverse."""
        for before, after, state in (("hold", "retry", "due"), ("retry", "hold", "held")):
            with self.subTest(after=after):
                partner = self.partner()
                partner.on("dot", HANG, times=1)
                daemon = self.relay_to(partner, f"uncertain {before}; retry {{ intervals 1h }}", name=after)
                queue_id = self.send(daemon)
                partner.wait_command("dot")
                daemon.blocks["connectors"] = smarthost("out", partner, f"uncertain {after}; retry {{ intervals 1h }}")
                daemon.write_config()
                daemon.ctl("reload")
                partner.drop_sessions()
                rows = daemon.until(lambda rows: rows and rows[0].get("attempts"), "list")
                self.assertEqual((queue_id, state), (rows[0]["id"], rows[0]["state"]))

    def test_sick_next_to_healthy(self):
        """A partner that hangs costs the other neither time nor connections."""
        sick, well = self.partner(), self.partner(port=0)
        sick.on("connect", HANG)
        daemon = self.daemon(smarthost("sick", sick, domains="sick.test") + smarthost("well", well))
        for i in range(50):
            self.send(daemon, f"r{i}@sick.test")
        for i in range(50):
            self.send(daemon, f"r{i}@well.test")
        well.wait_messages(50)
        self.assertLessEqual(sick.connections, 20)

    def test_partner_down_then_up(self):
        partner = self.partner()
        partner.down()
        daemon = self.relay_to(partner)
        for i in range(30):
            self.send(daemon, f"r{i}@bank.test")
        daemon.wait_listed(30)
        partner.up()
        partner.wait_messages(30)
        daemon.wait_empty()
        self.assertEqual(30, len(partner.messages))

    def test_a_dead_destination_costs_one_round(self):
        """Not one attempt for each of its messages."""
        partner = self.partner()
        partner.on("connect", "421 4.3.2 not today")
        daemon = self.relay_to(partner, "retry hourly",
                               extra="retry hourly { intervals 1h; destination-intervals 1h; glitch none }")  # fmt: skip
        for i in range(200):
            self.send(daemon, f"r{i}@bank.test")
        daemon.wait_listed(200)
        daemon.until(lambda rows: rows and rows[0]["state"] == "backoff", "queue")
        self.assertLess(partner.connections, 40)

    def test_connections_are_reused(self):
        partner = self.partner()
        daemon = self.relay_to(partner, "limits { connections 1 }")
        for i in range(20):
            self.send(daemon, f"r{i}@bank.test")
        partner.wait_messages(20)
        self.assertLess(partner.connections, 20)
        self.assertEqual(1, partner.most_open)

    def test_without_extensions(self):
        """A server from before ESMTP: HELO, one command at a time, no parameters."""
        partner = self.partner(extensions=())
        partner.on("ehlo", "502 5.5.1 what?")
        daemon = self.relay_to(partner)
        self.send(daemon, options=["SIZE=300", "BODY=7BIT"])
        (got,) = partner.wait_messages(1)
        self.assertEqual("", got.sender_parameters)
        self.assertEqual(1, partner.count("helo"))

    def test_parameters_are_passed_on(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        self.send(daemon, options=["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"],
                  rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;Other+2B@us.test"],
                  content=message(body="gr\u00fc\u00dfe\r\n"))  # fmt: skip
        (got,) = partner.wait_messages(1)
        for parameter in ("BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159", "SIZE="):
            self.assertIn(parameter, got.sender_parameters)
        self.assertIn("NOTIFY=FAILURE,DELAY", got.recipients[0][1])
        self.assertIn("ORCPT=rfc822;Other+2B@us.test", got.recipients[0][1])

    def test_8bit_and_utf8_that_the_partner_cannot_take(self):
        partner = self.partner(extensions=("PIPELINING", "SIZE 50000000"))
        daemon = self.relay_to(partner)
        self.send(daemon, "eight@bank.test", options=["BODY=8BITMIME"],
                  content=message(body="gr\u00fc\u00dfe\r\n"))  # fmt: skip
        self.send(daemon, "utf8@bank.test", options=["SMTPUTF8"], sender="s\u00e4nder@us.test")
        partner.wait_messages(1)
        report = partner.messages[0]
        self.assertEqual("", report.sender)
        self.assertIn(b"5.6.3", report.content)
        self.assertFalse([m for m in partner.messages if "eight@bank.test" in m.addresses])

    def test_a_partner_that_offers_pipelining_and_hates_it(self):
        """The first session with it comes to nothing, and no other does."""
        partner = self.partner(extensions=("PIPELINING", "SIZE 50000000"))
        partner.hates_pipelining = True
        daemon = self.relay_to(partner, "limits { connections 1 }")
        for i in range(5):
            self.send(daemon, f"a{i}@bank.test")
        partner.wait_messages(5)
        daemon.wait_empty()
        told = [line for line in daemon.lines if "evt=no_pipelining" in line]
        self.assertEqual((1, 1), (len(told), sum("evt=session_failed" in line for line in daemon.lines)), told)

    def test_too_big_for_the_partner(self):
        partner = self.partner(extensions=("SIZE 1000", "PIPELINING"))
        daemon = self.relay_to(partner)
        self.send(daemon, content=message(size=20_000), sender="")
        daemon.wait_empty()
        self.assertEqual(0, partner.count("data"))

    def test_lmtp(self):
        partner = self.partner(lmtp=True)
        partner.on("dot", "452 4.2.2 over quota", match="full@", times=1)
        daemon = self.relay_to(partner, "protocol lmtp")
        self.send(daemon, ["ok@bank.test", "full@bank.test"])
        partner.wait_messages(2)
        self.assertEqual(["full@bank.test", "ok@bank.test"], partner.addresses())
        self.assertGreaterEqual(partner.count("lhlo"), 1)
        self.assertEqual(1, partner.count("rcpt", "ok@"))

    def test_hundreds_of_recipients_are_split(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        recipients = [f"r{i:03}@bank.test" for i in range(250)]
        self.send(daemon, recipients)
        partner.wait_until(lambda: len(partner.addresses()) == 250, "all recipients")
        self.assertEqual(recipients, partner.addresses())
        self.assertTrue(all(len(m.addresses) <= 100 for m in partner.messages))

    def test_large_message(self):
        partner = self.partner()
        daemon = self.relay_to(partner)
        content = message(size=5_000_000)
        self.send(daemon, content=content)
        (got,) = partner.wait_messages(1)
        self.assertTrue(got.content.endswith(content))

    def test_fair_turns(self):
        """A thousand messages for one destination do not make another one wait for its turn."""
        partner = self.partner()
        daemon = self.relay_to(partner, "limits { connections 1 }")
        gate = threading.Event()
        self.addCleanup(gate.set)

        def late(argument):
            gate.wait(60)
            return "250 2.0.0 late, but taken"

        partner.on("dot", late, times=1)
        for i in range(200):
            self.send(daemon, f"r{i}@busy.test")
        partner.wait_command("dot")
        self.send(daemon, "one@quiet.test")
        daemon.wait_listed(201)
        gate.set()
        partner.wait_messages(201)
        order = [m.addresses[0] for m in partner.messages]
        # What the busy one has of a turn is a lease, of 32 messages at most.
        self.assertLess(order.index("one@quiet.test"), 70)


class Settings(Case):
    """What a connector says of itself and of the protocol, as its partner sees it."""

    def test_who_we_are(self):
        """Source address and name; a message goes by its size, and by who sent it."""
        partner = self.partner()
        daemon = self.daemon("\n".join([
            smarthost("out", partner, "source 127.0.0.7; helo out7.us.test"),
            smarthost("large", partner, "source 127.0.0.8; helo large.us.test; size-above 50K"),
            smarthost("lists", partner, "source 127.0.0.9; senders @lists.us.test; size-below 50K"),
        ]))  # fmt: skip
        self.send(daemon, "a@bank.test")
        self.send(daemon, "b@bank.test", content=message(size=60_000))
        self.send(daemon, "c@bank.test", sender="news@lists.us.test")
        self.send(daemon, "d@bank.test", sender="news@lists.us.test", content=message(size=60_000))
        partner.wait_messages(4)
        self.assertEqual(
            {"a@bank.test": ("127.0.0.7", "out7.us.test"), "b@bank.test": ("127.0.0.8", "large.us.test"),
             "c@bank.test": ("127.0.0.9", "relay.us.test"), "d@bank.test": ("127.0.0.8", "large.us.test")},
            {m.addresses[0]: (m.peer, m.hello) for m in partner.messages})  # fmt: skip

    def test_what_is_switched_off_is_not_used(self):
        partner = self.partner(extensions=(*EXTENSIONS, "CHUNKING"))
        daemon = self.relay_to(partner, "chunking no; dsn-extension no; limits { messages-per-connection 1 }")
        asked = {"options": ["ENVID=QQ314159", "BODY=8BITMIME"], "rcpt_options": ["NOTIFY=FAILURE"]}
        for number in range(3):
            self.send(daemon, f"r{number}@bank.test", content=message(body="gr\u00fc\u00dfe\r\n"), **asked)
        partner.wait_messages(3)
        self.assertEqual(3, partner.connections)
        self.assertEqual((0, 3), (partner.count("bdat"), partner.count("data")))
        for got in partner.messages:
            self.assertIn("BODY=8BITMIME", got.sender_parameters)
            self.assertNotIn("ENVID", got.sender_parameters)
            self.assertEqual("", got.recipients[0][1])

    def test_what_is_switched_off_returns_no_mail(self):
        """The partner would take it: that is our configuration, and waits for whoever mends it."""
        partner = self.partner()
        daemon = self.relay_to(partner, "8bitmime no; smtputf8 no")
        eight = self.send(daemon, "eight@bank.test", options=["BODY=8BITMIME"], content=message(body="gr\u00fc\u00dfe\r\n"))
        utf8 = self.send(daemon, "utf8@bank.test", options=["SMTPUTF8"], sender="s\u00e4nder@us.test")
        daemon.wait_listed(2, "--state", "held")
        for queue_id, word in ((eight, "8BITMIME"), (utf8, "SMTPUTF8")):
            self.assertIn(f"needs {word}, which its connector switches off", str(daemon.ctl("why", queue_id)))
        self.assertEqual([], partner.messages)
        daemon.blocks["connectors"] = smarthost("out", partner)
        daemon.write_config()
        daemon.ctl("reload")
        daemon.ctl("release", "--all")
        partner.wait_messages(2)
        self.assertEqual(["eight@bank.test", "utf8@bank.test"], partner.addresses())

    def test_helo_only(self):
        partner = self.partner()
        daemon = self.relay_to(partner, "helo-only yes")
        self.send(daemon)
        (got,) = partner.wait_messages(1)
        self.assertEqual((0, 1), (partner.count("ehlo"), partner.count("helo")))
        self.assertEqual("", got.sender_parameters)


class Tls(Case):
    def check(self, mode, partner, expected):
        daemon = self.relay_to(partner, f"tls {mode}")
        self.send(daemon)
        (got,) = partner.wait_messages(1)
        self.assertRegex(got.tls, expected)
        return daemon

    def test_opportunistic(self):
        certificate = self.authority().issue("mx.bank.test")
        self.check("opportunistic", self.partner(certificate=certificate), r"^TLSv1\.3$")

    def test_opportunistic_without_an_offer(self):
        self.check("opportunistic", self.partner(), r"^$")

    def test_off(self):
        certificate = self.authority().issue("mx.bank.test")
        partner = self.partner(certificate=certificate)
        self.check("off", partner, r"^$")
        self.assertEqual(0, partner.count("starttls"))

    @tag("tsan")
    def test_encrypt(self):
        certificate = self.authority().issue("mx.bank.test")
        daemon = self.check("encrypt", self.partner(certificate=certificate), r"^TLSv1\.")
        daemon.wait_empty()
        attempt = daemon.events_of("attempt")[-1]
        self.assertIn("1.3", attempt["tls"])

    def test_encrypt_without_an_offer_sends_nothing(self):
        partner = self.partner()
        daemon = self.relay_to(partner, "tls encrypt")
        queue_id = self.send(daemon)
        partner.wait_command("ehlo", 2)
        self.assertEqual(0, partner.count("mail"))
        self.assertEqual(queue_id, daemon.list()[0]["id"])

    def test_encrypt_with_a_stripped_offer_sends_nothing(self):
        certificate = self.authority().issue("mx.bank.test")
        partner = self.partner(certificate=certificate)
        partner.on("starttls", "454 4.7.0 TLS not available")
        daemon = self.relay_to(partner, "tls encrypt")
        self.send(daemon)
        partner.wait_command("starttls", 2)
        self.assertEqual(0, partner.count("mail"))
        partner.well()
        partner.wait_messages(1)
        self.assertNotEqual("", partner.messages[0].tls)

    def test_injected_reply_sends_nothing(self):
        certificate = self.authority().issue("mx.bank.test")
        partner = self.partner(certificate=certificate)
        partner.on("starttls", b"220 2.0.0 go\r\n250 2.0.0 injected\r\n")
        daemon = self.relay_to(partner, "tls encrypt")
        self.send(daemon)
        partner.wait_command("starttls", 2)
        self.assertEqual(0, partner.count("mail"))
        self.assertEqual(1, len(daemon.list()))

    def test_verify_is_never_less(self):
        """With the system's authorities, which know none of ours."""
        partner = self.partner(certificate=self.authority().issue("bank.test"))
        daemon = self.relay_to(partner, "tls verify")
        self.send(daemon)
        partner.wait_command("starttls", 2)
        self.assertEqual(0, partner.count("mail"))
        self.assertEqual(1, len(daemon.list()))
