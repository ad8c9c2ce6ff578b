"""Want of disk, descriptors and memory, each under load: whoever can't be served is told so, what was
acknowledged arrives, and when there is enough again all goes on in the same process."""
import os
import resource
import struct
import subprocess

from harness import Case, tag
from support.daemon import BUILD
from support.load import Arrived, Load, well

SHIM = os.path.join(BUILD, "tests", "bh_lackmem.so")
SIZES = (0, 0, 3000, 20_000, 300_000)


class Shortage(Case):
    def under_load(self, partner, daemon, seed=1):
        load = Load(seed, sizes=SIZES)
        self.addCleanup(load.end)
        load.go(daemon.address)
        load.wait_more(50, "mail to be taken at first")
        return load

    def all_arrives(self, load, partner, daemon, pid):
        load.end()
        well(partner)
        daemon.ctl("flush", "--all")
        daemon.wait_empty()
        self.assertEqual(pid, daemon.pid)
        arrived = Arrived().all_of(partner.messages)
        self.assertFalse(arrived.missing(load.accepted.values())[:10])
        self.assertFalse(arrived.damaged)


class Disk(Shortage):
    def small_disk(self):
        disk = self.path("disk")
        os.mkdir(disk)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            self.skipTest("no privilege to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False)
        return disk

    @staticmethod
    def take_all(path):
        """What is left of the disk."""
        with open(path, "wb", buffering=0) as other:
            try:
                while other.write(bytes(65536)) > 0:
                    pass
            except OSError:
                pass

    def test_somebody_else_fills_it(self):
        disk = self.small_disk()
        partner = self.partner()
        well(partner)
        daemon = self.relay_to(
            partner, start=False, queue=f"queue {{ path {disk}/queue; max-size 1G; reserve 8M }}")
        daemon.blocks["engine"] = daemon.blocks["engine"].replace(daemon.path("events"), f"{disk}/events")
        daemon.start()
        pid = daemon.pid
        load = self.under_load(partner, daemon)
        for number in range(3):
            self.take_all(f"{disk}/other")
            refused = load.refused
            load.wait_until(lambda: load.refused >= refused + 20, "mail to be refused\n" + daemon.tail())
            # What was taken before still goes out: removals have a reserve.
            daemon.wait_empty()
            os.unlink(f"{disk}/other")
            load.wait_more(30, f"mail to be taken again, after time {number}\n" + daemon.tail(), 60)
        self.all_arrives(load, partner, daemon, pid)
        self.assertTrue(all(code == 452 for code in load.codes), load.codes)
        daemon.stop()
        daemon.verify()


class Descriptors(Shortage):
    def test_none_left(self):
        partner = self.partner()
        well(partner)
        daemon = self.relay_to(partner)
        pid = daemon.pid
        load = self.under_load(partner, daemon)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for number in range(4):
            # As many as it has, or a few more: accept() or connect() fails, or a file can't be opened.
            have = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (have + number - 2, before[1]))
            partner.drop_sessions()
            load.wait_attempts(40)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            load.wait_more(30, "mail to be taken again\n" + daemon.tail(), 60)
        self.all_arrives(load, partner, daemon, pid)


@tag("release")  # A sanitizer has the allocations to itself.
class Memory(Shortage):
    def short(self, one_in):
        with open(self.path("lackmem"), "r+b") as shared:
            shared.write(struct.pack("<Q", one_in))

    def failures(self):
        with open(self.path("lackmem"), "rb") as shared:
            return struct.unpack("<QQ", shared.read(16))[1]

    def run_short(self, partner, daemon, one_in, times):
        with open(self.path("lackmem"), "wb") as shared:
            shared.write(bytes(16))
        daemon.environment = {"LD_PRELOAD": SHIM, "BH_LACKMEM": self.path("lackmem")}
        daemon.start()
        pid = daemon.pid
        load = self.under_load(partner, daemon)
        for number in range(times):
            before = self.failures()
            self.short(one_in)
            load.wait_until(lambda: self.failures() >= before + 40, "allocations to fail\n" + daemon.tail())
            self.short(0)
            load.wait_more(20, f"mail to be taken again, after time {number}\n" + daemon.tail(), 60)
        self.all_arrives(load, partner, daemon, pid)

    def test_each_kind_of_want(self):
        if not os.path.exists(SHIM):
            self.skipTest("only plain builds have the shim")
        for one_in in (300, 60, 15):
            with self.subTest(one_in=one_in):
                partner = self.partner()
                well(partner)
                daemon = self.relay_to(partner, start=False, name=f"relay{one_in}")
                self.run_short(partner, daemon, one_in, 4)

    def test_with_tls(self):
        if not os.path.exists(SHIM):
            self.skipTest("only plain builds have the shim")
        certificate = self.authority().issue("partner.test")
        partner = self.partner(certificate=certificate)
        well(partner)
        daemon = self.relay_to(partner, more="tls encrypt", start=False)
        self.run_short(partner, daemon, 100, 4)
