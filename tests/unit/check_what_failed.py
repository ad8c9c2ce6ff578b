#!/usr/bin/env python3
"""tests/what_failed names what failed in the logs of tests/run, in few lines, whoever wrote the log;
and tests/integration/run says for each failed test where and why."""
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

sys.dont_write_bytecode = True
TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def what_failed(log, lines=24):
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
        file.write(textwrap.dedent(log))
        file.flush()
        command = [os.path.join(TESTS, "what_failed"), "--lines", str(lines), file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


class Logs(unittest.TestCase):
    def test_ctest(self):
        self.assertEqual(
            what_failed("""\
                      Start  1: unit.test_status
                 1/80 Test  #1: unit.test_status .................   Passed    0.01 sec
                      Start  3: unit.test_time
                 2/80 Test  #2: unit.test_slice ..................***Failed    0.02 sec
                [==========] slice: Running 2 test(s).
                [  ERROR   ] --- 0x1 != 0
                [   LINE   ] --- test_slice.c:20: error: Failure!
                [  FAILED  ] skip
                [  FAILED  ] slice: 1 test(s), listed below:
                 1 FAILED TEST(S)
                 3/80 Test  #3: unit.test_time ...................***Timeout  60.00 sec

                98% tests passed, 2 tests failed out of 80
                """),
            [
                "  unit.test_slice: Failed    0.02 sec",
                "      [  ERROR   ] --- 0x1 != 0",
                "      [   LINE   ] --- test_slice.c:20: error: Failure!",
                "  unit.test_time: Timeout  60.00 sec",
            ],
        )

    def test_the_list_of_integration_run(self):
        log = """\
            ok      test_queue.Hold.test_a 0.1 s
            FAIL    test_queue.Hold.test_b 0.2 s
            ---- relay: last words
            error: something of the daemon
            ----
            failed tests:
              test_queue.Hold.test_b (test_queue.py:12)
                  AssertionError: 1 != 2
            ran 2, failed 1, skipped 0
            """
        want = ["  test_queue.Hold.test_b (test_queue.py:12)", "      AssertionError: 1 != 2"]
        self.assertEqual(what_failed(log), want)
        # A runner that was ended before its list leaves the names.
        early = log[: log.index("            failed tests:")]
        self.assertEqual(what_failed(early)[0], "  test_queue.Hold.test_b")

    def test_compiler_linter_fuzzer_and_time(self):
        broken = what_failed("x.c:3:5: error: unused\n[2/9] Building\nx.c:9:1: error: other\n")
        self.assertEqual(broken, ["  build", "      x.c:3:5: error: unused", "      x.c:9:1: error: other"])
        linted = what_failed("ok lint.format\na.c:1: warning: bad\nFAIL lint.tidy\n")
        self.assertEqual(linted, ["  lint.tidy", "      a.c:1: warning: bad"])
        fuzzed = what_failed("#1 pulse\n==1==ERROR: libFuzzer: deadly signal\nFAIL fuzz_tls\nok fuzz_dsn\n")
        self.assertEqual(fuzzed, ["  fuzz_tls", "      ==1==ERROR: libFuzzer: deadly signal"])
        late = what_failed("doing this\npart tsan did not end within its 420 s\n")
        self.assertEqual(late, ["  part tsan did not end within its 420 s", "      doing this"])

    def test_what_is_not_known_shows_its_last_words(self):
        said = what_failed("".join(f"line {n}\n" for n in range(100)))
        self.assertEqual(said[0], "  its last words")
        self.assertEqual(said[-1], "      line 99")

    def test_names_come_before_words(self):
        many = "failed tests:\n" + "".join(f"  test_a.B.test_{n}\n      Error: {n}\n" for n in range(30))
        said = what_failed(many, 12)
        self.assertEqual(len(said), 12)
        self.assertEqual(said[-1], "  and 19 more")
        self.assertNotIn("Error", "".join(said))
        self.assertEqual(len(what_failed(many, 60)), 60)


class Runner(unittest.TestCase):
    def test_the_first_words_of_a_failed_test(self):
        path = os.path.join(TESTS, "integration/run")
        with open(path, encoding="utf-8") as file:
            code = compile(file.read(), "run", "exec")
        names = {"__name__": "run", "__file__": path}
        exec(code, names)
        trace = textwrap.dedent("""\
            Traceback (most recent call last):
              File "/x/tests/integration/test_queue.py", line 7, in test_b
                self.wait()
            KeyError: 'first'

            During handling of the above exception, another exception occurred:

            Traceback (most recent call last):
              File "/x/tests/integration/test_queue.py", line 9, in test_b
                self.fail()
              File "/x/tests/integration/support/daemon.py", line 3, in fail
                raise AssertionError()
            AssertionError: no reply: in 5 s
            the partner saw nothing
            """)
        self.assertEqual(
            names["first_words"](self, trace)[1:],
            ["      AssertionError: no reply: in 5 s", "      the partner saw nothing"],
        )
        self.assertTrue(names["first_words"](self, trace)[0].endswith("(test_queue.py:9)"))
        # A process that died in the middle is named with what it said last.
        self.assertIn("segfault", "".join(names["failed_of"]("test_a.B.", "ok x\nsegfault\n")))


if __name__ == "__main__":
    unittest.main()
