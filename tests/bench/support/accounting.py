"""What a run costs: the CPU and memory of the peer, of the machine, of everybody else on it."""

import glob
import os
import re
import resource
import threading
import time

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Group:
    """A cgroup (v2, or cpuacct of v1) that holds all processes of the peer."""

    def __init__(self):
        name = f"bench.{os.getpid()}.{time.time_ns() % 10**9}"
        for base, probe in (
            ("/sys/fs/cgroup", "cgroup.controllers"),
            ("/sys/fs/cgroup/unified", "cgroup.controllers"),
            ("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
        ):
            if os.path.exists(f"{base}/{probe}"):
                try:
                    os.mkdir(f"{base}/{name}")
                except OSError:
                    continue
                self.path, self.v2 = f"{base}/{name}", probe.startswith("cgroup")
                return
        raise SystemExit("bench: no cgroup can be made here")

    def enter(self):
        with open(f"{self.path}/cgroup.procs", "w") as procs:
            procs.write("0")

    def pids(self):
        with open(f"{self.path}/cgroup.procs") as procs:
            return [int(line) for line in procs if line.strip() != "0"]

    def cpu(self):
        """(user, system) seconds."""
        if self.v2:
            with open(f"{self.path}/cpu.stat") as stat:
                rows = dict(line.split() for line in stat)
            return int(rows["user_usec"]) / 1e6, int(rows["system_usec"]) / 1e6
        values = []
        for name in ("usage_user", "usage_sys"):
            with open(f"{self.path}/cpuacct.{name}") as usage:
                values.append(int(usage.read()) / 1e9)
        return tuple(values)

    def remove(self):
        for _ in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)


def memory(pid):
    """(anonymous, proportional) bytes of a process, 0 for one that is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            rows = dict(re.findall(r"^(\w+):\s+(\d+) kB", rollup.read(), re.M))
        return int(rows.get("Anonymous", 0)) * 1024, int(rows.get("Pss", 0)) * 1024
    except OSError:
        return 0, 0


class Sampler(threading.Thread):
    """The most memory and processes that the peer had while this ran."""

    def __init__(self, group):
        super().__init__(daemon=True)
        self.group, self.over = group, threading.Event()
        self.anonymous = self.proportional = self.processes = 0
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            each = [memory(pid) for pid in self.group.pids()]
            self.anonymous = max(self.anonymous, sum(a for a, _ in each))
            self.proportional = max(self.proportional, sum(p for _, p in each))
            self.processes = max(self.processes, len(each))

    def stop(self):
        self.over.set()
        self.join()
        return {
            "anonymous_mib": round(self.anonymous / 2**20, 1),
            "pss_mib": round(self.proportional / 2**20, 1),
            "processes": self.processes,
        }


def machine():
    with open("/proc/stat") as stat:
        cpu = [int(x) for x in stat.readline().split()[1:9]]
    disk = (0, 0)
    with open("/proc/diskstats") as stats:
        for line in stats:
            words = line.split()
            if re.fullmatch(r"(vd|sd|xvd)[a-z]|nvme\d+n\d+", words[2]):
                disk = int(words[7]), int(words[18]) if len(words) > 18 else 0
                break
    return cpu, disk


def own_cpu(skip):
    """CPU seconds of everything in this process namespace except the peer's processes."""
    total = sum(
        sum(resource.getrusage(who)[:2])
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    for path in glob.glob("/proc/[0-9]*/stat"):
        if int(path.split("/")[2]) in skip | {os.getpid()}:
            continue
        try:
            with open(path) as stat:
                words = stat.read().rsplit(")", 1)[1].split()
            total += (int(words[11]) + int(words[12])) / TICKS
        except OSError:
            pass
    return total


def connects():
    """Connections tried and refused in this network namespace, in which only the peer is refused."""
    with open("/proc/net/snmp") as snmp:
        names, values = (line.split()[1:] for line in snmp if line.startswith("Tcp:"))
    row = dict(zip(names, map(int, values)))
    return row["ActiveOpens"], row["AttemptFails"]


class Stretch:
    """What one stretch of time cost."""

    def __init__(self, group):
        self.group = group
        self.own = own_cpu(set(group.pids()))
        self.machine, self.cpu, self.began, self.tcp = machine(), group.cpu(), time.time(), connects()

    def end(self, messages=None):
        cpu, (ticks, disk), tcp = self.group.cpu(), machine(), connects()
        used = [b - a for a, b in zip(self.cpu, cpu)]
        spent = [b - a for a, b in zip(self.machine[0], ticks)]
        busy = (spent[0] + spent[1] + spent[2] + spent[5] + spent[6]) / TICKS
        own = own_cpu(set(self.group.pids())) - self.own
        row = {
            "seconds": round(time.time() - self.began, 2),
            "cpu_s": round(sum(used), 3),
            "cpu_system_s": round(used[1], 3),
            "idle_pct": round(100 * spent[3] / max(sum(spent), 1), 1),
            "others_cpu_s": round(busy - sum(used) - own, 1),
            "disk_writes": disk[0] - self.machine[1][0],
            "disk_flushes": disk[1] - self.machine[1][1],
            "connects": tcp[0] - self.tcp[0],
            "connects_refused": tcp[1] - self.tcp[1],
        }
        if messages:
            row["cpu_us_per_message"] = round(sum(used) / messages * 1e6, 1)
        return row
