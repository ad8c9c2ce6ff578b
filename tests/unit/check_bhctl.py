#!/usr/bin/env python3
"""Runs bhctl against a queue on disk, a stand-in for the engine's control socket, and a stand-in for
a listener.

usage: check_bhctl.py BHCTL TEST_CONTROL_VIEW
"""

import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

BHCTL, MAKE_QUEUE = sys.argv[1:3]


def run(*args, stdin=b""):
    """(exit code, standard output, standard error) of bhctl."""
    env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC")
    done = subprocess.run([BHCTL, *args], input=stdin, capture_output=True, timeout=60, env=env)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


class Offline(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = cls.folder.name
        made = subprocess.run([MAKE_QUEUE, cls.path], capture_output=True, check=True)
        cls.id = made.stdout.decode().strip()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def ask(self, *args):
        return run(*args, "--path", self.path)

    def test_status_answers_in_its_first_line(self):
        code, out, _ = self.ask("status")
        self.assertEqual(code, 0)
        self.assertTrue(out.startswith("engine not running. 2 queued in 2 destinations"), out)
        self.assertIn("partner-bank/bank.example: held", out)

    def test_queue_as_table_and_json(self):
        code, out, _ = self.ask("queue")
        self.assertEqual(code, 0)
        self.assertEqual([line.split()[0] for line in out.splitlines()[:3]],
                         ["DESTINATION", "fax.example", "bank.example"])
        code, out, _ = self.ask("queue", "--json")
        answer = json.loads(out)
        self.assertEqual(answer["end"]["messages"], 2)
        self.assertEqual({row["domain"] for row in answer["rows"]},
                         {"bank.example", "fax.example"})

    def test_list_selects(self):
        _, out, _ = self.ask("list", "--state", "due")
        self.assertIn(self.id, out)
        self.assertNotIn("fax.example", out)
        code, out, _ = self.ask("list", "--sender", "<>")
        self.assertEqual((code, out), (0, "nothing matches\n"))
        code, out, _ = self.ask("list", "--sender", "<>", "--json")
        self.assertEqual(json.loads(out)["rows"], [])

    def test_show_gives_the_content_octet_by_octet(self):
        code, out, _ = self.ask("show", "--content", self.id)
        self.assertEqual(code, 0)
        self.assertIn("r@bank.example", out)
        self.assertTrue(out.endswith("Subject: x\r\n\r\n\xff\x01 body\r\n"), out)

    def test_why_hides_escape_sequences(self):
        code, out, _ = self.ask("why", self.id)
        self.assertEqual(code, 0)
        self.assertIn("450 busy \\x1B[2J", out)
        self.assertNotIn("\x1b", out)

    def test_verify(self):
        code, out, _ = self.ask("verify")
        self.assertEqual(code, 0)
        self.assertIn("agree: 2 messages, 2 recipients", out)

    def test_negative_findings_and_bad_usage(self):
        self.assertEqual(self.ask("show", "0000000000001")[0], 1)
        for args in (["show"], ["show", "x"], ["nothing"], ["cancel"], ["list", "--age", "1h"],
                     ["queue", "--content"], ["queue", "--state", "held"], ["hold", "--all", "--until", "soon"], []):
            code, out, err = run(*args)
            self.assertEqual((code, out), (2, ""), args)
            self.assertIn("bhctl", err)

    def test_an_option_that_is_none_is_told_where_they_stand(self):
        code, _, err = run("cancel", "--sate", "held")
        self.assertEqual(code, 2)
        self.assertIn("'--sate'", err)
        self.assertIn("bhctl help", err)

    def test_version(self):
        code, out, _ = run("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^bhctl \d+\.\d+\.\d+\n$")

    def test_nothing_to_ask(self):
        self.assertEqual(run("queue", "--path", self.path + "/none")[0], 3)
        self.assertEqual(run("hold", "--all", "--control", self.path + "/none")[0], 3)

    def test_policy_show(self):
        code, out, _ = self.ask("policy", "show", "bank.example")
        self.assertEqual(code, 0)
        self.assertIn("MTA-STS  bank.example  no policy is stored\n", out)
        self.assertIn("known to the running engine alone", out)
        self.assertEqual(self.ask("policy", "bank.example")[0], 2)

    def test_explain(self):
        file = pathlib.Path(self.path, "good.conf")
        file.write_text("connector partner-bank { domains bank.example\n state held\n"
                        " reason wait }\nconnector a { domains fax.example }\n")
        code, out, _ = self.ask("explain", "x@fax.example", "--config", str(file))
        self.assertEqual(code, 0)
        self.assertIn("connector a (active)", out)
        self.assertIn("address space fax.example (exact)", out)
        code, out, _ = self.ask("explain", "x@bank.example", "--config", str(file))
        self.assertEqual(code, 1)
        self.assertIn("connector partner-bank (held)", out)
        self.assertIn("ticket 8812", out)  # What is queued for it.
        code, out, _ = self.ask("explain", "x@[192.0.2.1]", "--config", str(file))
        self.assertEqual(code, 1)
        self.assertIn("no connector", out)
        code, out, _ = self.ask("connectors", "a", "--config", str(file))
        self.assertEqual(code, 0)
        self.assertIn("SETTING", out)
        self.assertEqual(self.ask("connectors", "none", "--config", str(file))[0], 1)

    def test_a_broken_file_still_says_where_the_queue_is(self):
        file = pathlib.Path(self.path, "broken.conf")
        file.write_text(f"engine {{ control {self.path}/none\nconnector a {{ tls verfy }}\n"
                        f"queue {{ path {self.path} }}\n")
        code, out, err = run("status", "--config", str(file))
        self.assertEqual(code, 0, err)
        self.assertTrue(out.startswith("engine not running. 2 queued"), out)
        self.assertEqual(run("verify", "--config", str(file))[0], 0)
        code, _, err = run("reload", "--config", str(file))
        self.assertEqual(code, 3)
        self.assertIn(f"{self.path}/none\n", err)
        # Which connector it would be is nothing that a broken file can tell.
        self.assertNotEqual(run("explain", "x@fax.example", "--config", str(file))[0], 0)

    def test_check_names_every_error(self):
        file = pathlib.Path(self.path, "bad.conf")
        file.write_text("queue { path /q }\nconnector a { tls verfy }\nconnector a { cots 5 }\n")
        code, out, _ = run("check", str(file))
        self.assertEqual(code, 1)
        self.assertIn("bad.conf:2:", out)
        self.assertIn("bad.conf:3:", out)
        code, out, _ = run("check", "--json", str(file))
        self.assertEqual(code, 1)
        self.assertFalse(json.loads(out)["end"]["good"])

    def test_check_knows_what_the_daemon_would_refuse(self):
        file = pathlib.Path(self.path, "refused.conf")
        file.write_text("connector a { domains a.example; tls dane-only }\n"
                        "connector b { domains b.example; limits { shared yes } }\n")
        code, out, _ = run("check", str(file))
        self.assertEqual(code, 1)
        self.assertRegex(out, "refused.conf:1:34: error: tls dane-only needs a resolver")
        self.assertRegex(out, "refused.conf:2:43: error: 'shared' is not supported")
        self.assertIn("2 errors", out)

    def test_check_tells_of_exceptions_that_end(self):
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=7)
        file = pathlib.Path(self.path, "dated.conf")
        file.write_text("".join(
            f"connector c{i} {{ domains c{i}.example; tls verify {{ exception {{ until {until}; reason r; "
            "mode encrypt } } }\n" for i, until in enumerate(("2020-01-01", f"{soon:%Y-%m-%d}", "2999-01-01")))
            + "connector d { domains d.example; smarthosts [ h.example ]; tls encrypt; auth plain { user u; "
            f"password-file {file}; allow-unauthenticated-peer {{ until 2020-01-01; reason r }} }} }}\n")
        code, out, _ = run("check", str(file))
        self.assertEqual(code, 0, out)
        first, second, third, end = out.splitlines()
        self.assertIn("dated.conf:1:49: warning: 'exception' has ended: mail is held", first)
        self.assertRegex(second, "dated.conf:2:49: warning: 'exception' ends within [78] days; then mail is held")
        self.assertIn("'allow-unauthenticated-peer' has ended: credentials go to nobody", third)
        self.assertIn("with warnings", end)


class Served:
    """A listening socket whose one connection is served by `serve` on a thread."""

    def __init__(self, family, address, serve):
        self.socket = socket.socket(family)
        self.socket.settimeout(60)
        self.socket.bind(address)
        self.socket.listen(1)
        self.thread = threading.Thread(target=self.run, args=(serve,))

    def run(self, serve):
        connection, _ = self.socket.accept()
        connection.settimeout(60)
        with connection, connection.makefile("rwb") as file:
            serve(file)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(60)
        self.socket.close()


class Online(unittest.TestCase):
    def talk(self, answer, *args):
        """bhctl with `answer` as what the engine says. (result, request)"""
        requests = []

        def serve(file):
            requests.append(json.loads(file.readline()))
            file.write(answer)
            file.flush()

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "control")
            with Served(socket.AF_UNIX, path, serve):
                result = run(*args, "--control", path)
        return result, requests[0]

    def test_a_bulk_verb(self):
        (code, out, _), request = self.talk(
            b'{"end":{"matched":8311,"acted":8297,"in_flight":14}}\n', "cancel", "--sender",
            "news@us.example", "--age", "<1h", "--reason", "wrong list")
        self.assertEqual((code, out), (0, "8,311 matched, 8,297 cancelled, 14 in flight.\n"))
        self.assertEqual(request, {"verb": "cancel",
                                   "args": {"sender": "news@us.example", "younger_ms": 3600000,
                                            "reason": "wrong list"}})

    def test_an_error_with_its_hint(self):
        (code, _, err), _ = self.talk(b'{"error":{"what":"bad\\u001b","hint":"do this"}}\n',
                                      "reload", "--plan")
        self.assertEqual((code, err), (1, "bhctl: bad\\x1B\n  do this\n"))

    BROKEN = (b'{"row":{"error":{"file":"/e/b\\u001b.conf","line":3,"column":5,"level":"error",'
              b'"text":"unknown setting"}}}\n'
              b'{"row":{"error":{"file":"/e/c","line":0,"column":0,"level":"error",'
              b'"text":"no such file"}}}\n'
              b'{"error":{"what":"2 errors. The running configuration is untouched.",'
              b'"hint":"mend the file"}}\n')

    def test_a_broken_file_reaches_the_engine_which_names_its_errors(self):
        requests = []

        def serve(file):
            requests.append(json.loads(file.readline()))
            file.write(self.BROKEN)
            file.flush()

        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder, "bad.conf")
            config.write_text("connector a {\n domians *\nengine { control [none here] \n")
            with Served(socket.AF_UNIX, os.path.join(folder, "here"), serve):
                code, out, err = run("reload", "--config", str(config))
        self.assertEqual(requests, [{"verb": "reload", "args": {}}])
        self.assertEqual((code, out), (1, ""))
        self.assertEqual(err, "/e/b\\x1B.conf:3:5: error: unknown setting\n"
                              "/e/c: error: no such file\n"
                              "bhctl: 2 errors. The running configuration is untouched.\n"
                              "  mend the file\n")

    def test_rows_before_an_error_are_one_document(self):
        (code, out, _), _ = self.talk(self.BROKEN, "reload", "--json")
        self.assertEqual(code, 1)
        answer = json.loads(out)
        self.assertEqual([row["error"]["line"] for row in answer["rows"]], [3, 0])
        self.assertIn("2 errors", answer["error"]["what"])

    def test_an_answer_that_breaks_off(self):
        for answer in (b"", b'{"row":{}}\n', b"garbage\n", b'{"end":{}'):
            (code, _, err), _ = self.talk(answer, "pause")
            self.assertIn(code, (1, 3), answer)
            self.assertTrue(err)

    def test_status_of_a_running_engine(self):
        (code, out, _), _ = self.talk(
            b'{"end":{"messages":1204,"destinations":37,"connections":18,"running":true}}\n',
            "status")
        self.assertEqual(code, 0)
        self.assertTrue(out.startswith(
            "delivering: 1,204 queued in 37 destinations, 18 connections"), out)


class Submit(unittest.TestCase):
    def send(self, *args, stdin=b"Subject: x\n\nhi\n", replies=None):
        """bhctl submit to a stand-in that answers as `replies` says. (result, commands, content)"""
        commands = []
        content = []

        def serve(file):
            def reply(text):
                file.write(text + b"\r\n")
                file.flush()

            reply(b"220 test")
            for line in iter(file.readline, b""):
                command = line.decode("latin-1").rstrip("\r\n")
                commands.append(command)
                word = command.split()[0]
                answer = (replies or {}).get(command) or (replies or {}).get(word)
                if answer is None and word == "EHLO":
                    answer = b"250-test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN"
                elif answer is None and word == "DATA":
                    reply(b"354 go on")
                    for data in iter(file.readline, b".\r\n"):
                        content.append(data)
                    answer = (replies or {}).get("dot", b"250 queued as 7QK3ZP0M")
                elif word == "QUIT":
                    answer = b"221 bye"
                reply(answer or b"250 ok")
                if word == "QUIT":
                    return

        with Served(socket.AF_INET, ("127.0.0.1", 0), serve) as server:
            port = server.socket.getsockname()[1]
            result = run("submit", "--server", f"127.0.0.1:{port}", *args, stdin=stdin)
        return result, commands, b"".join(content)

    def test_line_ends_dots_and_missing_fields(self):
        (code, _, err), commands, content = self.send(
            "-i", "-f", "a@us.example", "b@x.example",
            stdin=b"Subject: x\nDate: then\n\n.\n..a\r\nlast")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(commands[1:3], ["MAIL FROM:<a@us.example>", "RCPT TO:<b@x.example>"])
        self.assertTrue(content.endswith(b"Subject: x\r\nDate: then\r\n\r\n..\r\n...a\r\nlast\r\n"))
        self.assertIn(b"From: <a@us.example>\r\n", content)
        self.assertIn(b"Message-ID: <", content)
        self.assertEqual(content.count(b"Date:"), 1)

    def test_a_dot_ends_unless_i(self):
        _, _, content = self.send("b@x.example", stdin=b"S: x\n\none\n.\ntwo\n")
        self.assertTrue(content.endswith(b"\r\none\r\n"))

    def test_recipients_of_the_header_and_no_bcc(self):
        header = (b'To: "Doe, J." <j@x.example>, (c <no@x>) k@x.example\n'
                  b"Cc: group: l@x.example, m@x.example;\nBcc: secret@x.example,\n n@x.example\n"
                  b"Subject: x\n\nTo: not@x.example\n")
        (code, _, _), commands, content = self.send("-t", stdin=header)
        self.assertEqual(code, 0)
        self.assertEqual([c for c in commands if c.startswith("RCPT")],
                         [f"RCPT TO:<{a}@x.example>" for a in
                          ("j", "k", "l", "m", "secret", "n")])
        self.assertNotIn(b"secret", content)
        self.assertNotIn(b"Bcc", content)

    def test_dsn_parameters(self):
        (code, _, _), commands, content = self.send("-N", "success,delay", "-R", "hdrs", "-V", "Q+1 x",
                                                    "-f", "<>", "b@x.example")
        self.assertEqual(code, 0)
        self.assertEqual(commands[1:3], ["MAIL FROM:<> RET=HDRS ENVID=Q+2B1+20x",
                                         "RCPT TO:<b@x.example> NOTIFY=success,delay"])
        self.assertRegex(content, rb"From: <MAILER-DAEMON@[^@<>]+>\r\n")  # <> is no author.

    def test_8bit_and_utf8(self):
        _, commands, _ = self.send("-f", "a@x", "b@x.example", stdin=b"S: x\n\n\xff\n")
        self.assertEqual(commands[1], "MAIL FROM:<a@x> BODY=8BITMIME")
        _, commands, _ = self.send("-f", "a@x", "b@x.example",
                                   stdin="S: ü\n\nx\n".encode())
        self.assertEqual(commands[1], "MAIL FROM:<a@x> BODY=8BITMIME SMTPUTF8")

    def test_exit_codes(self):
        for replies, code in (({"MAIL": b"451 later"}, 75), ({"MAIL": b"550 no"}, 69),
                              ({"RCPT TO:<b@x>": b"550 who"}, 67),
                              ({"RCPT TO:<b@x>": b"450 later"}, 75),
                              ({"dot": b"452 full"}, 75), ({"dot": b"554 no"}, 69)):
            (got, _, err), commands, content = self.send("-f", "a@x", "b@x", "c@x",
                                                         replies=replies)
            self.assertEqual(got, code, replies)
            self.assertTrue(err)
            if "dot" not in replies:
                self.assertEqual(content, b"")
        self.assertEqual(run("submit", "-f", "a@x", "--server", "127.0.0.1:1")[0], 64)
        self.assertEqual(run("submit", "-N", "sometimes", "b@x")[0], 64)
        self.assertEqual(run("submit", "b c@x")[0], 64)
        self.assertEqual(run("submit", "--file", "/nonexistent", "b@x")[0], 66)
        self.assertEqual(run("submit", "--server", "unix:/nonexistent", "b@x",
                             stdin=b"x\n")[0], 75)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
