"""What the daemon gives up once it runs: root, capabilities, files, system calls; that all of its work goes
on without them; and who may do what over the control socket."""
import grp
import os
import pwd
import re
import shutil
import subprocess
import unittest

import test_sts
from harness import Case, smarthost, tag
from support.daemon import BHCTL
from support.waiting import PATIENCE_S, PRESET

SANITIZED = PRESET in ("asan", "tsan")
USER, GROUP = "nobody", "nogroup"
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def engine(daemon, *lines):
    """More lines for the engine's block."""
    text = daemon.blocks["engine"].rstrip()
    assert text.endswith("}")
    daemon.blocks["engine"] = text[:-1] + "".join(f"    {line}\n" for line in lines) + "}"


def threads(pid):
    """The fields of /proc/PID/task/*/status, one dict a thread."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as status:
            found.append(dict(re.findall(r"(?m)^(\w+):[ \t]*(.*)$", status.read())))
    return found


@unittest.skipIf(os.geteuid() != 0, "needs root to give up something")
class AsRoot(Case):
    def as_user(self, daemon):
        """It is to run as another user, who owns what is there."""
        engine(daemon, f"user {USER}", f"group {GROUP}")
        self.give()
        return daemon

    def give(self, *names):
        for folder, _, files in os.walk(self.path(*names)):
            for path in [folder, *(os.path.join(folder, name) for name in files)]:
                shutil.chown(path, USER, GROUP)

    def check_threads(self, daemon, confined=not SANITIZED):
        uid, gid = str(pwd.getpwnam(USER).pw_uid), str(grp.getgrnam(GROUP).gr_gid)
        found = threads(daemon.pid)
        self.assertGreater(len(found), 5)
        for fields in found:
            with self.subTest(thread=fields["Name"]):
                self.assertEqual([uid] * 4, fields["Uid"].split())
                self.assertEqual([gid] * 4, fields["Gid"].split())
                for name in CAPABILITIES:
                    self.assertEqual(0, int(fields[name], 16), name)
                self.assertEqual("1", fields["NoNewPrivs"])
                self.assertEqual("2" if confined else "0", fields["Seccomp"])


@tag("sandbox")
class Privileges(AsRoot):
    def test_every_thread_has_none(self):
        partner = self.partner()
        daemon = self.as_user(self.daemon(smarthost("out", partner), start=False)).start()
        self.check_threads(daemon)
        self.send(daemon)
        partner.wait_messages(1)
        daemon.ctl("reload")
        daemon.wait_empty()
        self.check_threads(daemon)

    def test_folders_that_are_missing_are_made_for_the_user(self):
        daemon = self.as_user(self.daemon(smarthost("out", self.partner()), start=False))
        shutil.chown(daemon.folder, "root", "root")
        daemon.blocks["engine"] = daemon.blocks["engine"].replace(
            daemon.path("control"), daemon.path("run", "control"))  # fmt: skip
        daemon.start()
        for name in ("queue", "events", "run"):
            self.assertEqual(USER, pwd.getpwuid(os.stat(daemon.path(name)).st_uid).pw_name)
        self.assertEqual("ok", daemon.ctl_run("status").stderr or "ok")

    def test_nobody_else_of_the_user_looks_in(self):
        daemon = self.as_user(self.daemon(smarthost("out", self.partner()), start=False)).start()
        for name in ("environ", "maps"):
            done = subprocess.run(
                ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups",
                 "cat", f"/proc/{daemon.pid}/{name}"],
                capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
            self.assertIn("Permission denied", done.stderr)
            self.assertEqual("", done.stdout)

    def refused(self, daemon):
        """It ends at the start, before there is a queue; what it said."""
        daemon.verify_at_end = False
        daemon.launch()
        self.assertEqual(1, daemon.wait_end())
        return daemon.tail()

    def test_an_unreadable_key_is_told_with_user_and_mode(self):
        ca = self.authority()
        certificate, key = ca.issue("relay.us.test")
        daemon = self.daemon(smarthost("out", self.partner()), start=False)
        daemon.blocks["listen"] = (
            f"listen 127.0.0.1:0 {{\n tls starttls {{ certificate {certificate}; key {key} }}\n}}")  # fmt: skip
        self.as_user(daemon)
        shutil.chown(key, "root", "root")
        os.chmod(key, 0o600)
        uid = pwd.getpwnam(USER).pw_uid
        self.assertIn(
            f"error: key {key}: user {USER} (uid {uid}) may not read it: it belongs to uid 0, gid 0, mode 0600",
            self.refused(daemon))  # fmt: skip
        check = subprocess.run([daemon.program, "--check", "--config", daemon.config],
                               capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
        self.assertEqual(1, check.returncode)
        self.assertIn(f"user {USER} (uid {uid}) may not read it", check.stderr)
        closed = self.path("closed")
        os.mkdir(closed, 0o700)
        shutil.move(key, closed)
        daemon.blocks["listen"] = daemon.blocks["listen"].replace(key, os.path.join(closed, os.path.basename(key)))
        self.assertIn(f"user {USER} (uid {uid}) may not pass through {closed}: it belongs to uid 0, gid 0, mode 0700",
                      self.refused(daemon))  # fmt: skip

    def test_a_reload_is_read_as_the_user(self):
        daemon = self.as_user(self.daemon(smarthost("out", self.partner()), start=False)).start()
        shutil.chown(daemon.config, "root", "root")
        os.chmod(daemon.config, 0o600)
        done = daemon.ctl_run("reload")
        self.assertNotEqual(0, done.returncode)
        self.assertIn(f"user {USER} (uid", done.stdout + done.stderr)
        self.assertIn("mode 0600", done.stdout + done.stderr)

    def test_groups_of_the_user_are_kept(self):
        """A key for a group's members: the groups of the user's entry, and no group of root's."""
        daemon = self.as_user(self.daemon(smarthost("out", self.partner()), start=False))
        daemon.wrapper = ["setpriv", "--groups=0,4,24"]
        daemon.start()
        groups = {fields["Groups"].strip() for fields in threads(daemon.pid)}
        self.assertLessEqual(groups, {"", str(grp.getgrnam(GROUP).gr_gid)})

    def test_a_user_that_is_not_there(self):
        daemon = self.daemon("connector out { domains * }", start=False)
        for user, wrong in (("user no-such-user", "user: there is no user 'no-such-user'"),
                            ("user nobody; group no-such-group", "group: there is no group 'no-such-group'")):
            daemon.blocks["engine"] = f"engine {{ hostname relay.us.test; control {daemon.path('control')}; {user} }}"
            daemon.launch()
            self.assertNotEqual(0, daemon.wait_end())
            daemon.wait_line(rf"bridgehead\.conf:\d+:\d+: error: {wrong}")
        daemon.process = None

    def test_without_a_user_it_says_that_it_stays_root(self):
        daemon = self.daemon(smarthost("out", self.partner()))
        daemon.wait_line("evt=privileges uid=0")
        for fields in threads(daemon.pid):
            self.assertEqual([0] * 5, [int(fields[name], 16) for name in CAPABILITIES])


@tag("sandbox")
class Sandbox(Case):
    def test_off(self):
        daemon = self.daemon(smarthost("out", self.partner()), start=False)
        engine(daemon, "sandbox off")
        daemon.start()
        daemon.wait_line('evt=sandbox landlock=0 seccomp=off reason="engine sandbox off"')
        self.assertEqual({"0"}, {fields["Seccomp"] for fields in threads(daemon.pid)})

    def test_required(self):
        daemon = self.daemon(smarthost("out", self.partner()), start=False)
        engine(daemon, "sandbox required")
        if SANITIZED:  # A build that cannot have one says so and does not start.
            daemon.verify_at_end = False
            daemon.launch()
            self.assertEqual(1, daemon.wait_end())
            self.assertIn("engine sandbox required: this build", daemon.tail())
            return
        daemon.start()
        self.assertEqual({"2"}, {fields["Seccomp"] for fields in threads(daemon.pid)})

    @tag("release")
    def test_a_kernel_without_it(self):
        """Like one that is too old: the calls that set it up are refused by a filter around us."""
        daemon = self.daemon(smarthost("out", self.partner()), start=False)
        daemon.wrapper = ["strace", "-D", "-o", "/dev/null", "-e", "trace=landlock_create_ruleset",
                          "-e", "inject=landlock_create_ruleset:error=ENOSYS"]  # fmt: skip
        daemon.start()
        daemon.wait_line('warn evt=sandbox landlock=0 seccomp=on lacks="landlock: Function not implemented"')
        engine(daemon, "sandbox required")
        daemon.stop()
        daemon.launch()
        self.assertEqual(1, daemon.wait_end())
        self.assertIn("engine sandbox required: landlock: Function not implemented", daemon.tail())


@tag("release")
class Confined(AsRoot, test_sts.Sts):
    """Everything that the daemon does, in the sandbox as another user."""

    def start_confined(self, more="", **blocks):
        daemon = self.daemon(
            f"connector mx {{ domains *; port {self.bank.port}; tls auto {{ ca-file {self.ca.pem} }} }}\n{more}",
            start=False, **blocks)  # fmt: skip
        daemon.blocks["resolver"] = test_sts.SHORT.format(dns=self.names.text)
        engine(daemon, f"mta-sts {{ ca-file {self.ca.pem}; port {self.web.port} }}", "sandbox required")
        return self.as_user(daemon).start()

    def write(self, path, text, mode=0o600):
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(text + "\n")
        os.chmod(path + ".new", mode)
        shutil.chown(path + ".new", USER, GROUP)
        os.rename(path + ".new", path)

    def test_a_working_day(self):
        secret, users = self.path("secret"), self.path("users")
        self.write(secret, "first")
        partner = self.partner(users={"relay": "first"}, certificate=self.ca.issue("mx.hub.test"))
        failing = self.partner().on("rcpt", "550 5.1.1 nobody here")
        listener = self.ca.issue("relay.us.test")
        daemon = self.start_confined(
            smarthost("hub", partner, f"tls verify {{ ca-file {self.ca.pem}; names mx.hub.test }}\n"
                      f"auth plain {{ user relay; password-file {secret} }}", "hub.test")
            + "\n" + smarthost("bad", failing, domains="bad.test"),
            listen="listen 127.0.0.1:0 { relay-from 127.0.0.0/8\n"
            f" tls starttls {{ certificate {listener[0]}; key {listener[1]} }}\n }}")  # fmt: skip
        self.write(users, "")
        # STS: a policy is fetched and kept; the mail goes by it.
        self.send(daemon, "you@bank.test")
        self.bank.wait_messages(1)
        self.assertIn("TLS", self.bank.messages[0].tls)
        # AUTH, before and after its secret was replaced.
        self.send(daemon, "you@hub.test")
        partner.wait_messages(1)
        self.write(secret, "second")
        with partner.changed:
            partner.users["relay"] = "second"
        # A refusal becomes a report to the sender.
        self.send(daemon, "you@bad.test", sender="me@bank.test")
        reports = self.bank.wait_messages(2)
        self.assertIn(b"report-type=delivery-status", reports[1].content)
        # The certificate is replaced, and the event log taken away and opened anew.
        self.ca.issue("relay.us.test")
        self.give("ca")
        segment = os.path.join(daemon.path("events"), sorted(os.listdir(daemon.path("events")))[-1])
        os.rename(segment, self.path("rotated"))
        daemon.hang_up()
        daemon.wait_line("evt=reloaded generation=2")
        # A reload names a new file in a folder that is known, and a zone of the system's.
        shutil.copy(self.ca.pem, self.path("ca", "other.pem"))
        self.give("ca")
        daemon.blocks["connectors"] += (
            f"\nconnector new {{ domains new.test; tls verify {{ ca-file {self.path('ca', 'other.pem')} }}\n"
            "window mon-sun 00:00-24:00 Europe/Berlin }")  # fmt: skip
        daemon.write_config()
        daemon.ctl("reload")
        self.send(daemon, "you@hub.test")
        partner.wait_messages(2)
        daemon.wait_empty()
        daemon.ctl("probe", "you@hub.test")
        daemon.ctl("hold", "--destination", "hub.test")
        daemon.ctl("release", "--destination", "hub.test")
        self.check_threads(daemon)
        daemon.stop()
        self.assertNotIn("sandbox_denied", daemon.tail(10000))
        daemon.start()
        self.check_threads(daemon)

    def test_a_reload_that_reaches_outside(self):
        folder = self.path("outside")
        os.mkdir(folder)
        other = os.path.join(folder, "ca.pem")
        shutil.copy(self.ca.pem, other)
        daemon = self.start_confined()
        self.give("outside")
        self.delivered(daemon)
        before = daemon.blocks["connectors"]
        daemon.blocks["connectors"] = before + f"\nconnector new {{ domains new.test; tls verify {{ ca-file {other} }} }}"
        daemon.write_config()
        done = daemon.ctl_run("reload")
        self.assertNotEqual(0, done.returncode)
        self.assertIn(f"ca-file {other}: the sandbox of this process does not reach there: restart it",
                      done.stdout + done.stderr)  # fmt: skip
        self.assertEqual(1, len([row for row in daemon.ctl("connectors") if row.get("connector") == "mx"]))
        self.assertEqual([], [row for row in daemon.ctl("connectors") if row.get("connector") == "new"])
        daemon.stop()
        daemon.start()  # It is taken in.
        self.assertEqual(1, len([row for row in daemon.ctl("connectors") if row.get("connector") == "new"]))

    def test_more_may_be_read(self):
        folder = self.path("outside")
        os.mkdir(folder)
        other = os.path.join(folder, "ca.pem")
        shutil.copy(self.ca.pem, other)
        daemon = self.daemon(smarthost("out", self.bank), start=False)
        engine(daemon, f"sandbox-read {folder}")
        self.as_user(daemon).start()
        daemon.blocks["connectors"] += f"\nconnector new {{ domains new.test; tls verify {{ ca-file {other} }} }}"
        daemon.write_config()
        daemon.ctl("reload")


@tag("sandbox")
class Rights(AsRoot):
    """Two groups of the control socket. Groups of every Debian system stand for an operator's."""

    LOOK, ACT, OTHER = "news", "mail", "games"

    def setUp(self):
        super().setUp()
        self.bank = self.partner()
        self.relay = self.as_user(self.daemon(smarthost("out", self.bank), start=False))
        engine(self.relay, f"control-look-group {self.LOOK}", f"control-act-group {self.ACT}")
        self.relay.start()

    def ask(self, *words, uid=54321, gid=54321, groups=()):
        """bhctl as another user; (status, what it said)."""
        gids = ",".join(str(grp.getgrnam(name).gr_gid) for name in groups)
        done = subprocess.run(
            ["setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={gids}" if gids else "--clear-groups",
             BHCTL, words[0], "--config", self.relay.config, *words[1:]],
            capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def may(self, *words, **who):
        status, said = self.ask(*words, **who)
        self.assertEqual(0, status, said)

    def may_not(self, *words, told=(), **who):
        status, said = self.ask(*words, **who)
        self.assertNotEqual(0, status, said)
        for text in told:
            self.assertIn(text, said)

    HOLD = ("hold", "--destination", "bank.test")

    def test_who_may_act(self):
        who = {"groups": (self.ACT,)}
        self.may("status", **who)
        self.may(*self.HOLD, **who)
        self.may("reload", **who)
        self.may("status", gid=grp.getgrnam(self.ACT).gr_gid)
        self.may(*self.HOLD, uid=pwd.getpwnam(USER).pw_uid)

    def test_who_may_look(self):
        who = {"groups": (self.LOOK, self.OTHER)}
        self.may("status", **who)
        self.may("queue", **who)
        self.may("jobs", **who)
        self.may("reload", "--plan", **who)
        self.may(*self.HOLD, "--dry-run", **who)
        told = ("you may look, but not change anything",
                f"root, the daemon's user and members of the group {self.ACT} may")  # fmt: skip
        self.may_not(*self.HOLD, told=("hold: ", *told), **who)
        for words in (["reload"], ["pause"], ["resume"], ["flush", "--all"], ["cancel", "--all"],
                      ["bounce", "--all"], ["requeue", "--all"], ["release", "--all"],
                      ["probe", "bank.test"]):  # fmt: skip
            with self.subTest(words=words):
                self.may_not(*words, told=told, **who)
        self.assertEqual([], [row for row in self.relay.ctl("queue") if row.get("held")])

    def test_strangers(self):
        who = {"groups": (self.OTHER,)}
        self.may_not("status", told=(
            "status: you may neither look nor change anything here",
            f"root, the daemon's user and members of the groups {self.LOOK} and {self.ACT} may"), **who)  # fmt: skip
        self.may_not(*self.HOLD, told=("you may neither look",), **who)

    def test_strangers_do_not_keep_others_out(self):
        code = (
            "import socket, sys\n"
            "all = [socket.socket(socket.AF_UNIX) for _ in range(200)]\n"
            f"for one in all: one.connect({self.relay.path('control')!r})\n"
            "print('connected', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "python3", "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:  # fmt: skip
            self.assertEqual("connected\n", stranger.stdout.readline())
            self.may("status", groups=(self.LOOK,))
            # All but a few were closed at once.
            held = sum("control" in line for line in self.sockets())
            self.assertLess(held, 40)
            stranger.stdin.close()
        self.may("status", groups=(self.LOOK,))

    def sockets(self):
        with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
            return [line for line in table if self.relay.path("control") in line and " 03 " in line]

    def test_a_reload_changes_who_may(self):
        self.may_not(*self.HOLD, groups=(self.OTHER,))
        self.relay.blocks["engine"] = self.relay.blocks["engine"].replace(
            f"control-act-group {self.ACT}", f"control-act-group {self.OTHER}")  # fmt: skip
        self.relay.write_config()
        self.relay.ctl("reload")
        self.may(*self.HOLD, groups=(self.OTHER,))
        self.may_not(*self.HOLD, groups=(self.ACT,))

    def test_a_group_that_is_not_there(self):
        self.relay.blocks["engine"] = self.relay.blocks["engine"].replace(self.ACT, "no-such-group")
        self.relay.write_config()
        done = self.relay.ctl_run("reload")
        self.assertNotEqual(0, done.returncode)
        self.assertRegex(done.stdout, r'bridgehead\.conf","line":[1-9]\d*,"column":\d+,.*'
                                      "control-act-group: there is no group 'no-such-group'")  # fmt: skip

    def test_without_groups_the_daemons_own_may_act(self):
        daemon = self.daemon(smarthost("out", self.bank), start=False, name="second")
        self.relay = self.as_user(daemon).start()
        own = grp.getgrnam(GROUP).gr_gid
        self.assertEqual(0o660, os.stat(daemon.path("control")).st_mode & 0o777)
        self.may(*self.HOLD, gid=own)
        self.may_not("status", told=("no permission to use the control socket",), groups=(self.OTHER,))

    def test_one_socket_speaks_as_bhctl_does(self):
        """Not only bhctl is refused: the daemon answers whoever speaks to the socket itself."""
        code = (
            "import socket\n"
            "s = socket.socket(socket.AF_UNIX)\n"
            f"s.connect({self.relay.path('control')!r})\n"
            "s.sendall(b'{\"verb\":\"pause\"}\\n{\"verb\":\"status\"}\\n')\n"
            "print(s.makefile().readline())\n"
        )
        done = subprocess.run(
            ["setpriv", "--reuid=54321", "--regid=54321", f"--groups={grp.getgrnam(self.LOOK).gr_gid}",
             "python3", "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
        self.assertIn('"error"', done.stdout)
        self.assertIn("you may look, but not change anything", done.stdout)
