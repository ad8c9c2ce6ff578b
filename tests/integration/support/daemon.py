"""The daemon as a process: started with a configuration of the test's own, stopped, killed and
started again on the same queue, and asked through bhctl."""
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time

from .waiting import GUARD, PATIENCE_S, PRESET, Changing

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.environ.get("BH_BUILD", os.path.join(ROOT, "build", PRESET))
BRIDGEHEAD = os.path.join(BUILD, "engine", "bridgehead")
BHCTL = os.path.join(BUILD, "tools", "bhctl")
SANITIZER = re.compile(
    r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|evt=bug |evt=sandbox_denied "
)


def fields_of(line):
    """A diagnostic line as a dict: key=value pairs, values perhaps in double quotes."""
    pairs = re.findall(r'([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {key: value[1:-1] if value.startswith('"') else value for key, value in pairs}


class Refused(AssertionError):
    """bhctl ended with a status that the test did not expect."""

    def __init__(self, command, result):
        super().__init__(
            f"{shlex.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}"
        )
        self.result = result


class Daemon(Changing):
    """Everything of one daemon lives in `folder`. The configuration is made of named blocks of text
    which a test may replace before start() or reload(); see blocks()."""

    def __init__(self, folder, resolver="127.0.0.1:9", connectors="", **blocks):
        super().__init__()
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.config = self.path("bridgehead.conf")
        self.blocks = {
            "engine": f"""engine {{
    hostname relay.us.test
    control {self.path("control")}
    event-log {self.path("events")}
    postmaster postmaster@us.test
    workers 2
    drain-timeout 5s
    log debug
}}""",
            "listen": "listen 127.0.0.1:0 { relay-from 127.0.0.0/8 }",
            "queue": f"queue {{ path {self.path('queue')}; max-size 256M }}",
            "resolver": f"""resolver {{
    servers {resolver}
    timeout 1s
    allow-loopback yes
}}""",
            "defaults": "",
            "retry": """retry quick {
    intervals 1s 1s 2s
    destination-intervals 1s 1s 2s
    glitch 1x1s
    jitter 0%
    warn-after 4h
    expire 5d
}
defaults { retry quick; tls off }""",
            "connectors": connectors,
        }
        self.blocks.update(blocks)
        self.process = None
        self.program = BRIDGEHEAD
        self.wrapper = []  # a command before ours: strace, unshare ...
        self.pass_fds = ()
        self.environment = {}
        self.lines = []  # diagnostics of all runs
        self.addresses = []  # of the listeners of this run, in the order of the configuration
        self.is_ready = self.has_said_so = False
        self.ended = True
        self.runs = 0

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write_config(self):
        text = "\n".join(block for block in self.blocks.values() if block) + "\n"
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(text)
        return text

    # -- the process

    def launch(self):
        """Start it, but do not wait."""
        self.write_config()
        self.is_ready, self.has_said_so, self.ended, self.addresses = False, False, False, []
        self.runs += 1
        notify_path = self.path(f"notify.{self.runs}")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(notify_path)
        os.chmod(notify_path, 0o666)  # As systemd's is: the daemon may be another user by then.
        environment = dict(os.environ)
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM"):
            environment.pop(name, None)
        environment.update(self.environment, NOTIFY_SOCKET=notify_path)
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS"):
            # A finding ends the process with a status of its own, that no other failure has.
            environment[name] = "exitcode=99:" + environment.get(name, "")
        environment["TSAN_OPTIONS"] += f":suppressions={ROOT}/tests/tsan.suppressions"
        self.process = subprocess.Popen(
            [*GUARD, *self.wrapper, self.program, "--config", self.config],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=environment, pass_fds=self.pass_fds, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read_notify, args=(notify, notify_path), daemon=True).start()
        self.reader = threading.Thread(target=self._read_lines, args=(self.process,), daemon=True)
        self.reader.start()
        return self

    def start(self):
        """Start it and wait until it says that it is ready, to systemd and in its log: the log's line
        comes by another way, behind those that name the addresses."""
        self.launch()
        self.wait_until(lambda: (self.is_ready and self.has_said_so) or self.ended, "the daemon's READY=1")
        if not self.is_ready:
            raise AssertionError("the daemon ended before it was ready:\n" + self.tail())
        return self

    def _read_notify(self, notify, path):
        with notify:
            notify.settimeout(PATIENCE_S * 20)
            try:
                while True:
                    text = notify.recv(4096).decode("utf-8", "replace")
                    with self.changed:
                        self.lines.append("notify " + text.replace("\n", " "))
                        self.is_ready = self.is_ready or "READY=1" in text.split("\n")
                        self.changed.notify_all()
                    if "STOPPING=1" in text.split("\n"):
                        break
            except OSError:
                pass
        if os.path.exists(path):
            os.unlink(path)

    def _read_lines(self, process):
        for octets in process.stderr:
            line = octets.decode("utf-8", "replace").rstrip("\n")
            with self.changed:
                self.lines.append(line)
                if "evt=listening" in line:
                    self.addresses.append(self._address(fields_of(line).get("address", "")))
                self.has_said_so = self.has_said_so or "evt=ready" in line
                self.changed.notify_all()
        process.stderr.close()
        process.wait()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    @staticmethod
    def _address(text):
        if text.startswith("unix:"):
            return text[5:]
        if text.startswith("systemd:"):
            return text  # Whoever passed the socket knows its address.
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        """(host, port) of the first TCP listener."""
        return next(a for a in self.addresses if isinstance(a, tuple))

    def wait_line(self, pattern, after=0):
        """The first diagnostic line from number `after` on that the pattern is found in."""

        def found():
            return next((line for line in self.lines[after:] if re.search(pattern, line)), None)

        return self.wait_until(found, f"a line with {pattern!r}\n" + self.tail())

    def wait_end(self):
        """The exit status."""
        self.wait_until(lambda: self.ended, "the daemon's end\n" + self.tail(), 60)
        return self.process.returncode

    def stop(self):
        """Ask it to end, and check that it does so in order."""
        if self.process and not self.ended:
            self.process.send_signal(signal.SIGTERM)
        status = self.wait_end() if self.process else 0
        if status != 0:
            raise AssertionError(f"the daemon ended with status {status}:\n" + self.tail())

    def kill(self):
        """As the machine's death would: no chance to tidy up."""
        self.process.kill()
        self.wait_end()

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def tail(self, count=60):
        with self.changed:
            return "\n".join(self.lines[-count:])

    def findings(self):
        """What a sanitizer or an assertion said, in any run."""
        with self.changed:
            return [line for line in self.lines if SANITIZER.search(line)]

    # -- bhctl

    def ctl_command(self, *words, options=("--json",)):
        return [BHCTL, words[0], "--config", self.config, *options, *words[1:]]

    def ctl_run(self, *words, options=("--json",), **run_options):
        """Run bhctl; the result with text output, whatever its exit status."""
        return subprocess.run(
            self.ctl_command(*words, options=options), capture_output=True, text=True,
            timeout=PATIENCE_S * 2, check=False, **run_options,
        )  # fmt: skip

    def ctl(self, *words, status=0):
        """The objects that bhctl printed as JSON: a list, one for each row."""
        result = self.ctl_run(*words)
        if result.returncode != status:
            raise Refused(self.ctl_command(*words), result)
        return parse_json(result.stdout)

    def until(self, predicate, *words, what=None):
        """Ask `bhctl WORDS` again and again until predicate(rows); between two questions it waits
        for the daemon to say something, not for the clock."""
        last = []

        def satisfied():
            rows = self.ctl(*words)
            last[:] = rows
            return rows if predicate(rows) else None

        end = PATIENCE_S * 10
        for _ in range(int(end)):
            rows = satisfied()
            if rows is not None:
                return rows
            with self.changed:
                self.changed.wait(0.1)
        raise AssertionError(f"waited in vain: {what or words}; last answer {last}\n" + self.tail())

    def queue(self):
        """Rows of `bhctl queue`, one for each destination."""
        return self.ctl("queue")

    def list(self, *words):
        return self.ctl("list", *words)

    def wait_empty(self):
        """However long it takes, while it gets shorter."""
        shortest = None
        while True:
            rows = self.until(lambda rows: not rows or shortest is None or len(rows) < shortest, "list",
                              what="an empty queue")  # fmt: skip
            if not rows:
                return rows
            shortest = len(rows)

    def wait_listed(self, count=1, *words):
        return self.until(lambda rows: len(rows) == count, "list", *words, what=f"{count} listed")

    def events(self):
        """Every event of the event log so far, oldest first."""
        folder, rows = self.path("events"), []
        if not os.path.isdir(folder):
            return rows
        for name in sorted(n for n in os.listdir(folder) if n.endswith(".jsonl")):
            with open(os.path.join(folder, name), "rb") as segment:
                for line in segment:
                    if line.endswith(b"\n") and line.startswith(b"{"):
                        rows.append(json.loads(line))
        return rows

    def events_where(self, wanted, count=1):
        """The events that `wanted` is true for, as soon as there are `count` of them. An event is on
        disk a moment after what it tells of, and nothing says when."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = [event for event in self.events() if wanted(event)]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{len(found)} events of {count}:\n{self.events()}\n" + self.tail())
            with self.changed:
                self.changed.wait(0.02)

    def events_of(self, evt, count=1):
        """All events of a kind, as soon as there are `count` of them."""
        return self.events_where(lambda event: event.get("evt") == evt, count)

    def verify(self):
        """`bhctl verify`: entries, markers, counters and messages agree."""
        result = self.ctl_run("verify", options=())
        if result.returncode != 0:
            raise Refused(self.ctl_command("verify"), result)


class Answer(list):
    """The rows of an answer; `end` holds its totals."""

    end = None


def parse_json(text):
    """An Answer from bhctl's document {"rows": [...], "end": {...}}."""
    value = json.loads(text) if text.strip() else {}
    answer = Answer(value.get("rows", []))
    answer.end = value.get("end")
    return answer
