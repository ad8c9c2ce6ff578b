"""Postfix, Exim and OpenSMTPD as neighbours: each takes mail on loopback and relays it to a Partner,
so that what arrived can be looked at; Postfix's sendmail also hands mail to the daemon. Knot serves
zones. The mailers come from peers/setup; without root or without them the tests are skipped."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading

from .ports import reserve_port
from .waiting import GUARD, PATIENCE_S

PEERS = os.environ.get("BH_PEERS", "/var/tmp/bridgehead-peers")


def why_not(name):
    """The reason why this peer cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists(os.path.join(PEERS, name, ".whole")):
        return f"{name} is not unpacked: run tests/integration/peers/setup"
    return None


class Peer:
    """A neighbour's process; `address` takes SMTP once start() returns."""

    name = ""

    def __init__(self, folder, relay_to, tls=None):
        """tls=(certificate, key, authority): it takes mail over TLS only, from clients that show a
        certificate by this authority."""
        self.folder = folder
        self.tls = tls
        self.relay = relay_to
        self.root = os.path.join(PEERS, self.name)
        self.address = ("127.0.0.1", reserve_port())
        self.process = None
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def own(self, user, *names):
        entry = pwd.getpwnam(user)
        os.makedirs(self.path(*names), exist_ok=True)
        os.chown(self.path(*names), entry.pw_uid, entry.pw_gid)

    def keep_tls(self, user="root"):
        """Copies that its user alone can read: (certificate, key, authority)."""
        entry, kept = pwd.getpwnam(user), []
        for name, source in zip(("own.pem", "own.key", "clients.pem"), self.tls, strict=True):
            shutil.copyfile(source, self.path(name))
            os.chown(self.path(name), entry.pw_uid, entry.pw_gid)
            os.chmod(self.path(name), 0o600)
            kept.append(self.path(name))
        return kept

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as out:
            out.write(text)

    def spawn(self, command, **options):
        with open(self.path("out.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*GUARD, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **options,
            )  # fmt: skip

    def start(self):
        self.run()
        for _ in range(int(PATIENCE_S * 20)):
            try:
                with socket.create_connection(self.address, timeout=PATIENCE_S) as probe:
                    probe.settimeout(PATIENCE_S)
                    if probe.recv(1024).startswith(b"220"):
                        probe.sendall(b"QUIT\r\n")
                        return self
            except OSError:
                pass
            try:
                self.process.wait(0.05)  # Until the next look, or its end.
                break
            except subprocess.TimeoutExpired:
                pass
        with open(self.path("out.log"), encoding="utf-8", errors="replace") as log:
            text = log.read()
        self.stop()
        raise AssertionError(f"{self.name} does not answer:\n{text}")

    def stop(self):
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Postfix(Peer):
    name = "postfix"

    def tls_lines(self):
        if not self.tls:
            return ""
        certificate, key, authority = self.keep_tls()
        return f"""smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_CAfile = {authority}
smtpd_tls_req_ccert = yes
smtpd_tls_received_header = yes
"""

    def environment(self):
        libraries = os.path.join(self.root, "usr/lib/postfix")
        return dict(os.environ, LD_LIBRARY_PATH=libraries, MAIL_CONFIG=self.path("conf"))

    def run(self):
        root, libraries = self.root, os.path.join(self.root, "usr/lib/postfix")
        os.makedirs(self.path("conf"), exist_ok=True)
        os.makedirs(self.path("spool"), exist_ok=True)
        self.own("postfix", "data")
        host, port = self.relay
        self.write("conf/main.cf", f"""compatibility_level = 3.6
queue_directory = {self.path("spool")}
command_directory = {root}/usr/sbin
daemon_directory = {libraries}/sbin
data_directory = {self.path("data")}
shlib_directory = {libraries}
meta_directory = {root}/etc/postfix
sendmail_path = {root}/usr/sbin/sendmail
mailq_path = {root}/usr/bin/mailq
newaliases_path = {root}/usr/bin/newaliases
mail_owner = postfix
setgid_group = postdrop
import_environment = MAIL_CONFIG LD_LIBRARY_PATH={libraries} TZ LANG=C
export_environment = MAIL_CONFIG LD_LIBRARY_PATH={libraries} TZ LANG=C
myhostname = postfix.test
myorigin = us.test
mydestination =
local_recipient_maps =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
relayhost = [{host}]:{port}
maillog_file = {self.path("mail.log")}
maillog_file_prefixes = {self.folder}
{self.tls_lines()}""")  # fmt: skip
        services = """cleanup unix n - n - 0 cleanup
pickup unix n - n 60 1 pickup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
        self.write("conf/master.cf", f"127.0.0.1:{self.address[1]} inet n - n - - smtpd\n{services}")
        self.spawn([f"{root}/usr/sbin/postfix", "-c", self.path("conf"), "start-fg"],
                   env=self.environment())  # fmt: skip

    def stop(self):
        subprocess.run([f"{self.root}/usr/sbin/postfix", "-c", self.path("conf"), "stop"],
                       env=self.environment(), capture_output=True, timeout=PATIENCE_S,
                       check=False)  # fmt: skip
        super().stop()

    def sendmail(self, sender, recipients, content):
        """Hand a message to Postfix as local programs do. Run as root, its postdrop needs no setgid."""
        result = subprocess.run(
            [f"{self.root}/usr/sbin/sendmail", "-C", self.path("conf"), "-i", "-f", sender, "--",
             *recipients], input=content.replace(b"\r\n", b"\n"), env=self.environment(),
            capture_output=True, timeout=PATIENCE_S, check=False)  # fmt: skip
        if result.returncode != 0:
            raise AssertionError(f"Postfix's sendmail: {result.stderr.decode()}")


class Exim(Peer):
    name = "exim"
    rcpt_acl = "accept"  # what is said to RCPT; a test may replace it before start()

    def run(self):
        host, port = self.relay
        for folder in ("spool", "log"):
            self.own("Debian-exim", folder)
        lines, check = "tls_advertise_hosts =\n", ""
        if self.tls:
            certificate, key, authority = self.keep_tls("Debian-exim")
            lines = f"""tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
tls_verify_certificates = {authority}
tls_verify_hosts = *
acl_smtp_mail = encrypted_only
"""
            check = """encrypted_only:
  accept
    encrypted = *
  deny
    message = 530 5.7.0 TLS is required
"""
        self.write("exim.conf", f"""primary_hostname = exim.test
exim_path = {self.root}/usr/sbin/exim4
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {self.path("spool")}
log_file_path = {self.path("log")}/%slog
pid_file_path = {self.path("spool")}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.address[1]}
disable_ipv6 = true
{lines}host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept_all
never_users =
deliver_drop_privilege = true
keep_environment =
chunking_advertise_hosts = *
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
begin acl
check_rcpt:
  {self.rcpt_acl}
{check}accept_all:
  accept
begin routers
out:
  driver = manualroute
  route_list = * {host}::{port} byname
  self = send
  transport = smtp_out
begin transports
smtp_out:
  driver = smtp
  allow_localhost
  hosts_avoid_tls = *
begin retry
* * F,1h,5m
""")  # fmt: skip
        self.spawn([f"{self.root}/usr/sbin/exim4", "-C", self.path("exim.conf"), "-bdf", "-q1m"])


class OpenSmtpd(Peer):
    """Its spool path is compiled in: it runs in a mount namespace where that is ours."""

    name = "opensmtpd"

    def run(self):
        host, port = self.relay
        os.makedirs(self.path("spool"), exist_ok=True)
        os.chmod(self.path("spool"), 0o711)
        for folder in ("/var/spool/smtpd", "/var/lib/opensmtpd/empty"):
            os.makedirs(folder, exist_ok=True)
        os.chmod("/var/lib/opensmtpd/empty", 0o755)
        head, how = "", ""
        if self.tls:
            certificate, key, authority = self.keep_tls()
            head = (f'pki opensmtpd.test cert "{certificate}"\npki opensmtpd.test key "{key}"\n'
                    f'ca clients cert "{authority}"\n')  # fmt: skip
            how = "tls-require verify pki opensmtpd.test ca clients "
        self.write("smtpd.conf", f"""{head}listen on 127.0.0.1 port {self.address[1]} {how}hostname opensmtpd.test
action "relay" relay host smtp://{host}:{port} helo opensmtpd.test
match from any for any action "relay"
""")  # fmt: skip
        script = 'mount --bind "$1" /var/spool/smtpd && exec "$2" -d -f "$3"'
        self.spawn(["unshare", "-m", "sh", "-c", script, "sh", self.path("spool"),
                    f"{self.root}/usr/sbin/smtpd", self.path("smtpd.conf")])  # fmt: skip


class Knot:
    """An authoritative server for given zones; `text` is its address for a resolver setting."""

    def __init__(self, folder, zones):
        """zones: name -> zone text without SOA and NS"""
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o777)
        self.folder, self.port = folder, reserve_port()
        blocks = []
        for name, text in zones.items():
            with open(os.path.join(folder, name + ".zone"), "w", encoding="ascii") as out:
                out.write(f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 5\n"
                          f"@ NS ns\nns A 127.0.0.1\n{text}\n")  # fmt: skip
            blocks.append(f"  - domain: {name}\n    file: {folder}/{name}.zone\n")
        self.config = os.path.join(folder, "knot.conf")
        with open(self.config, "w", encoding="ascii") as out:
            out.write(f"server:\n    rundir: {folder}\n    listen: 127.0.0.1@{self.port}\n"
                      f"database:\n    storage: {folder}\nlog:\n  - target: stderr\n    any: info\n"
                      f"template:\n  - id: default\n    zonefile-sync: -1\n    journal-content: none\n"
                      "zone:\n" + "".join(blocks))  # fmt: skip
        self.process = None

    @property
    def text(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen([*GUARD, "knotd", "-c", self.config], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        for line in self.process.stderr:
            if b"server started" in line:
                # Keep its pipe from filling up.
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return self
        raise AssertionError("knotd did not start")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
