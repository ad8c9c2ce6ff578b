"""One function per scenario: (peer name, run folder) -> figures. README.md says what each one does.
A peer that cannot do what is asked yields {"unsupported": what}."""

import concurrent.futures
import os
import re
import socket
import subprocess
import time

from support.accounting import Sampler, Stretch
from support import sick
from support.parts import (
    Peer, Proxy, Sick, Sink, blast, left, percentiles_ms, setting, start_name_server,
)  # fmt: skip

ALIVE, HANG = "127.0.3.3", "127.0.3.2"


def through(peer, sink, run, count, options=(), seconds=None):
    """`count` messages from the generator to the sink; what it cost, how fast and how complete."""
    before = sink.now()
    sink.forget()
    peer.settle(10)
    stretch = Stretch(peer.group)
    sent = blast(run, count, name="main", options=options, seconds=seconds)
    have = before.get("messages", 0) + count
    report = sink.wait(left() - 5) or sink.now()
    time.sleep(0.3)  # What the peer still writes behind the last reply is part of the cost.
    done = report.get("messages", 0) - before.get("messages", 0)
    cost = stretch.end(max(done, 1))
    end = sink.now()
    took = report.get("last", 0) - sent["began"]
    return {
        "n": count,
        "complete": done == count and end.get("unique") == have,
        "duplicates": end.get("duplicates"),
        "msgs_s": round(done / took, 1) if took > 0 else 0,
        "accept_msgs_s": sent["msgs_s"],
        "accept_ms": sent["latency_ms"],
        "refusals": sent["replies_4xx"] + sent["replies_421"],
        "cpu_us_per_message": cost["cpu_us_per_message"],
        "tools_cpu_us_per_message": round(
            (sent["cpu_s"] + report["cpu_s"] - before.get("cpu_s", 0)) / max(done, 1) * 1e6, 1
        ),
        "sink": {k: end[k] - before.get(k, 0)
                 for k in ("connections", "handshakes", "handshakes_resumed", "encrypted", "chunked")},
        "open_max": end["open_max"],
        "cost": cost,
    }  # fmt: skip


def warm(sink, run, count, options=()):
    blast(run, count, name="warm", options=options)
    return sink.wait_messages(count, left() - 10)


def direct(_, run):
    count = setting("N", 80000)
    sink = Sink(run, 2526, count)
    sent = blast(run, count, port=2526)
    report = sink.wait(left())
    sink.stop()
    return {
        "n": count, "msgs_s": sent["msgs_s"], "complete": report["unique"] == count,
        "cpu_us_per_message": round((sent["cpu_s"] + report["cpu_s"]) / count * 1e6, 1),
        "accept_ms": sent["latency_ms"],
    }  # fmt: skip


def throughput(mode, sink_port):
    def scenario(name, run):
        count, first = setting("N", 20000), setting("WARM", 300)
        start_name_server(run)
        peer = Peer(name, run, mode, sink_port)
        sink = Sink(run, sink_port, count + first)
        up = peer.start()
        warm(sink, run, first)
        sampler = Sampler(peer.group)
        figures = through(peer, sink, run, count)
        figures.update(memory=sampler.stop(), start_s=round(up, 3))
        peer.end(sink)
        return figures

    return scenario


def at_rate(peer, sink, run, per_second):
    """So many messages a second: latency of the 250, and from when it was due to delivery."""
    before, count = sink.now().get("messages", 0), per_second * setting("SECONDS", 15)
    peer.settle(10)
    stretch = Stretch(peer.group)
    sent = blast(run, count, name="rate", options=["-R", str(per_second)])
    sink.wait_messages(before + count, min(15, left() - 5))
    cost = stretch.end(count)
    return {
        "n": count, "rate": per_second, "accept_ms": sent["latency_ms"],
        "delivered_ms": percentiles_ms(sink.arrivals("rate"), count),
        "cpu_us_per_message": cost["cpu_us_per_message"], "cost": cost,
    }  # fmt: skip


def rate(name, run):
    start_name_server(run)
    peer = Peer(name, run, "smarthost", 2526)
    sink = Sink(run, 2526)
    peer.start()
    warm(sink, run, 300)
    figures = at_rate(peer, sink, run, setting("RATE", 100))
    peer.end(sink)
    return figures


def half(name, run):
    """As `rate`, at half of what the peer did when it was given all it takes."""
    count, first = setting("N", 20000), setting("WARM", 300)
    start_name_server(run)
    peer = Peer(name, run, "smarthost", 2526)
    sink = Sink(run, 2526, count + first)
    peer.start()
    warm(sink, run, first)
    full = through(peer, sink, run, count)
    figures = at_rate(peer, sink, run, max(1, int(full["msgs_s"] / 2)))
    figures["full_msgs_s"] = full["msgs_s"]
    peer.end(sink)
    return figures


def spread(name, run):
    """Delivered at the first attempt, for one domain and for many: what do many cost?"""
    count, many = setting("N", 20000), setting("DOMAINS", 10000)
    start_name_server(run)
    peer = Peer(name, run, "smarthost", 2526)
    sink = Sink(run, 2526, many + count)
    peer.start()
    wide = ["-d", str(many)]
    warm(sink, run, many, options=wide)  # Each has had its first message.
    for_many = through(peer, sink, run, count, options=wide)
    sink.stop()
    sink = Sink(run, 2526, count, name="sink-one")
    for_one = through(peer, sink, run, count, options=["-d", "1"])
    peer.end(sink)
    return {
        "n": count, "domains": many, "one": for_one, "many": for_many,
        "complete": for_one["complete"] and for_many["complete"],
        "growth": round(for_many["cpu_us_per_message"] / for_one["cpu_us_per_message"], 2),
    }  # fmt: skip


def tls(name, run):
    mode, key = setting("TLS", "full"), setting("KEY", "p256")
    count, first = setting("N", 3000), setting("WARM", 100)
    peer = Peer(name, run, "smarthost", 2526, TLS=mode)
    if not peer.can("tls-" + mode):
        return {"unsupported": "tls-" + mode}
    kind = {"rsa2048": ["rsa:2048"], "p256": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]}[key]
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=sink.bench.test", "-addext",
         "subjectAltName=DNS:sink.bench.test,IP:127.0.0.1", "-keyout", f"{run}/key", "-out",
         f"{run}/certificate", "-newkey", *kind],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    start_name_server(run)
    # A peer that keeps sessions for their own sake is given none to keep.
    options = ["-C", f"{run}/certificate", "-K", f"{run}/key"] + (["-N"] if mode == "full" else [])
    sink = Sink(run, 2526, count + first, options=options)
    peer.start()
    warm(sink, run, first)
    figures = through(peer, sink, run, count)
    figures["encrypted_all"] = figures["sink"]["encrypted"] == count
    peer.end(sink)
    return figures


def round_trip_ms(port):
    """Is the way as long as it should be? (round trip, time to the greeting)"""
    with socket.create_connection(("127.0.0.1", port), 5) as probe:
        probe.settimeout(10)
        began = time.monotonic()
        probe.recv(200)
        greeting = time.monotonic() - began
        began = time.monotonic()
        probe.sendall(b"NOOP\r\n")
        probe.recv(200)
        return round((time.monotonic() - began) * 1e3, 1), round(greeting * 1e3, 1)


def distant(name, run):
    connections, delay = setting("MAXCONN", 1), setting("DELAY", 50)
    count, first = setting("N", min(120 * connections, 2400)), setting("WARM", 2 * connections)
    peer = Peer(name, run, "smarthost", 2526, MAXCONN=connections)
    if not peer.can("maxconn"):
        return {"unsupported": "maxconn"}
    start_name_server(run)
    sink = Sink(run, 2527, count + first)
    proxy = Proxy(run, 2526, 2527, delay)
    rtt, greeting = round_trip_ms(2526)
    peer.start()
    warm(sink, run, first)
    figures = through(peer, sink, run, count)
    at = sorted(arrived for _, arrived in sink.arrivals("main"))
    begin, end = len(at) // 10, len(at) - len(at) // 20 - 1  # Without the start and the tail.
    steady = (end - begin) / (at[end] - at[begin]) if end > begin and at[end] > at[begin] else 0
    late = proxy.now().get("late_max_ms")
    peer.end(sink, proxy)
    figures.update(
        maxconn=connections, rtt_ms=rtt, greeting_ms=greeting, proxy_late_ms=late,
        steady_msgs_s=round(steady, 2),
        round_trips_per_message=round(connections / steady / (2 * delay / 1e3), 3) if steady else None,
    )  # fmt: skip
    return figures


def throttled(name, run):
    """A partner that takes 10 connections, 50 messages on each, and 200 messages a second."""
    allowed, count = setting("ALLOWED", 200), setting("N", 4000)
    peer = Peer(name, run, "smarthost", 2526, RETRY=setting("RETRY", 10))
    if not peer.can("retry"):
        return {"unsupported": "retry"}
    start_name_server(run)
    sink = Sink(run, 2526, count + 50, options=["-x", "10", "-m", "50", "-r", str(allowed)])
    peer.start()
    warm(sink, run, 50)
    before = sink.now()
    figures = through(peer, sink, run, count, seconds=left() / 2)
    after = sink.now()
    refused = {k: after[k] - before[k] for k in ("refused_rate", "refused_connections")}
    figures.update(
        refused, of_allowed=round(figures["msgs_s"] / allowed, 3),
        refusals_per_message=round(sum(refused.values()) / count, 3),
    )  # fmt: skip
    peer.end(sink)
    return figures


def healthy(peer, sink, run, tag, seconds, bad=None):
    """Mail for a host that works, at a steady rate, while another is out."""
    per_second = setting("RATE", 50)
    count = int(per_second * seconds)
    stretch, hung = Stretch(peer.group), bad.now().get("connections", 0) if bad else 0
    blast(run, count, name=tag, seconds=min(seconds + 20, left() - 10),
          options=["-z", "alive.bench.test", "-d", "1", "-c", "40", "-R", str(per_second)])  # fmt: skip
    cost = stretch.end(count)
    end = time.monotonic() + min(setting("GRACE", 15), left() - 5)
    while True:
        sink.now()
        rows = sink.arrivals(tag)
        if len(rows) >= count or time.monotonic() > end:
            break
        time.sleep(0.2)
    if bad:
        cost["connects_hung"] = bad.now().get("connections", 0) - hung
    return {"delivered_ms": percentiles_ms(rows, count), "cost": cost}


def blocked(kind):
    """A backlog for a host that refuses (dead) or never speaks (hang): how does other mail fare?"""

    def scenario(name, run):
        count = setting("N", 20000)
        peer = Peer(name, run, "mx", 25, RETRY=setting("RETRY", 60))
        if not peer.can("retry"):
            return {"unsupported": "retry"}
        start_name_server(run)
        sink = Sink(run, 25, host=ALIVE)
        bad = Sink(run, 25, host=HANG, name="hang", options=["-H"]) if kind == "hang" else None
        peer.start()
        warm(sink, run, 200, ["-z", "alive.bench.test", "-d", "1"])
        peer.settle(10)
        base = setting("BASE", 15)
        figures = {"n": count, "without": healthy(peer, sink, run, "base", base, bad)}
        stretch = Stretch(peer.group)
        sent = blast(run, count, name="inject", seconds=left() / 2,
                     options=["-z", f"{kind}.bench.test", "-d", "1"])  # fmt: skip
        figures["inject"] = dict(stretch.end(count), msgs_s=sent["msgs_s"])
        figures["with"] = healthy(peer, sink, run, "with", setting("SECONDS", 60), bad)
        peer.end(sink, *([bad] if bad else []))
        return figures

    return scenario


def side_by_side(peers, sink, run, seconds):
    """Healthy mail for each of {tag: peer}, at the same rate in the same minute, so that the machine is as busy
    for both. Figures by tag."""
    per_second = setting("RATE", 50)
    count = int(per_second * seconds)
    stretches = {tag: Stretch(peer.group) for tag, peer in peers.items()}
    options = ["-z", "alive.bench.test", "-d", "1", "-c", "40", "-R", str(per_second)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for tag, peer in peers.items():
            pool.submit(blast, run, count, peer.port, tag, options, min(seconds + 20, left() - 10))
    costs = {tag: stretch.end(count) for tag, stretch in stretches.items()}
    end = time.monotonic() + min(setting("GRACE", 15), left() - 5)
    while time.monotonic() < end:
        sink.now()
        if all(len(sink.arrivals(tag)) >= count for tag in peers):
            break
        time.sleep(0.2)
    return {tag: {"delivered_ms": percentiles_ms(sink.arrivals(tag), count), "cost": costs[tag]} for tag in peers}


def isolation(name, run):
    """N messages for hosts that are ill in every way, or in those of SICK; then healthy mail. A second instance of
    the peer, which has nothing else to do, gets as much of it in the same minute."""
    kinds = (os.environ.get("SICK") or " ".join(sick.KINDS)).split()
    count = setting("N", 100000)
    os.mkdir(f"{run}/alone", 0o755)
    settings = {"RETRY": setting("RETRY", 60), "TLS": "may"}
    peers = {
        "with": Peer(name, run, "mx", 25, **settings),
        "without": Peer(name, f"{run}/alone", "mx", 25, PORT=2625, **settings),
    }
    peer = peers["with"]
    if not peer.can("retry"):
        return {"unsupported": "retry"}
    start_name_server(run)
    sink = Sink(run, 25, host=ALIVE)
    ill = Sick(run, kinds)
    for tag, each in peers.items():
        each.start()
        blast(run, 200, each.port, f"warm-{tag}", ["-z", "alive.bench.test", "-d", "1"])
    sink.wait_messages(400, left() - 10)
    stretch, accepted = Stretch(peer.group), 0
    for kind in kinds:
        sent = blast(run, count // len(kinds), name=f"inject-{kind}", seconds=left() / 2,
                     options=["-z", f"{kind}.bench.test", "-d", "1"])  # fmt: skip
        accepted += sent["accepted"]
    figures = {"n": count, "kinds": len(kinds), "inject": dict(stretch.end(max(accepted, 1)), accepted=accepted)}
    figures.update(side_by_side(peers, sink, run, setting("SECONDS", 60)))
    p99 = [figures[tag]["delivered_ms"]["p99"] for tag in ("with", "without")]
    figures["p99_ratio"] = round(p99[0] / p99[1], 2) if p99[0] and p99[1] else None
    figures["sick"] = ill.now().get("by_kind")
    peers["without"].end()
    peer.end(sink, ill)
    return figures


def new_mail(peer, sink, run, tag, count):
    stretch = Stretch(peer.group)
    sent = blast(run, count, name=tag, seconds=left() - 10,
                 options=["-z", "alive.bench.test", "-d", "10"])  # fmt: skip
    end = time.monotonic() + min(60, left() - 5)
    while True:
        sink.now()
        rows = sink.arrivals(tag)
        if len(rows) >= count or time.monotonic() > end:
            break
        time.sleep(0.1)
    cost = stretch.end(max(len(rows), 1))
    took = max((arrived for _, arrived in rows), default=0) - sent["began"]
    return {
        "complete": len(rows) == count, "msgs_s": round(len(rows) / took, 1) if took > 0 else 0,
        "cpu_us_per_message": cost["cpu_us_per_message"], "cost": cost,
    }  # fmt: skip


def backlog(name, run):
    """The rate of new mail with an empty queue, and with N deferred messages lying in it."""
    count, new, domains = setting("N", 50000), setting("NEW", 4000), setting("BACKLOG_DOMAINS", 100)
    peer = Peer(name, run, "mx", 25, RETRY=setting("RETRY", 3600))
    if not peer.can("retry"):
        return {"unsupported": "retry"}
    start_name_server(run)
    sink = Sink(run, 25, host=ALIVE)
    peer.start()
    warm(sink, run, 300, ["-z", "alive.bench.test", "-d", "1"])
    peer.settle(10)
    figures = {"n": count, "new": new, "empty": new_mail(peer, sink, run, "empty", new)}
    peer.settle(10)
    stretch = Stretch(peer.group)
    sent = blast(run, count, name="inject", seconds=left() - 80,
                 options=["-z", "dead.bench.test", "-d", str(domains)])  # fmt: skip
    figures["settled"] = peer.settle(setting("SETTLE", 60))
    figures["inject"] = dict(stretch.end(count), msgs_s=sent["msgs_s"], accepted=sent["accepted"])
    figures["full"] = new_mail(peer, sink, run, "full", new)
    figures["ratio"] = round(figures["full"]["msgs_s"] / max(figures["empty"]["msgs_s"], 0.001), 3)
    peer.end(sink)
    return figures


def listing(peer):
    """Seconds to the first octet of the peer's list of its queue, and to its end."""
    began, first, lines = time.monotonic(), None, 0
    asked = peer.shell("queue_list", inside=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while piece := os.read(asked.stdout.fileno(), 65536):
        first = first or time.monotonic() - began
        lines += piece.count(b"\n")
    asked.wait()
    return {"first_s": round(first or 0, 3), "all_s": round(time.monotonic() - began, 3), "lines": lines}


def restart(name, run):
    """N messages without a sink: memory, list, stop and start; then the sink comes up and all is flushed."""
    count = setting("N", 50000)
    start_name_server(run)
    peer = Peer(name, run, "mx", 25)
    peer.start()
    sampler, stretch = Sampler(peer.group), Stretch(peer.group)
    sent = blast(run, count, seconds=left() / 2)
    figures = {"n": count, "accepted": sent["accepted"], "accept_msgs_s": sent["msgs_s"]}
    figures["settled"] = peer.settle(setting("SETTLE", 60))
    figures["cost"] = stretch.end(max(sent["accepted"], 1))
    figures["memory"] = sampler.stop()
    figures["list"] = listing(peer)
    figures["stop_s"] = round(peer.stop(), 2)
    figures["start_s"] = round(peer.start(), 3)
    sink = Sink(run, 25, sent["accepted"])
    stretch, began = Stretch(peer.group), time.time()
    peer.shell("flush")
    report = sink.wait(min(setting("DRAIN", 200), left() - 5))
    end = sink.now()
    cost = stretch.end(max(end.get("messages", 0), 1))
    took = (report["last"] if report else time.time()) - began
    figures["drain"] = {
        "complete": report is not None and end["unique"] == sent["accepted"], "duplicates": end.get("duplicates"),
        "msgs_s": round(end.get("messages", 0) / took, 1),
        "first_s": round(end["first"] - began, 2) if end.get("messages") else None,
        "cpu_us_per_message": cost["cpu_us_per_message"], "cost": cost,
    }  # fmt: skip
    peer.end(sink)
    return figures


SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")


def durable(name, run):
    """Under strace: does a sync, begun after the content came, end before each 250? Counts of calls."""
    count = setting("N", 300)
    start_name_server(run)
    peer = Peer(name, run, "smarthost", 2526)
    sink = Sink(run, 2526, count + 50)
    trace = f"{run}/strace"
    peer.start(["strace", "-f", "-qq", "-s", "48", "-o", trace, "-e",
                "trace=" + ",".join(SYNCS) + ",sendto,sendmsg,write,writev,rename,renameat,unlink,unlinkat"])  # fmt: skip
    blast(run, 50, name="warm")
    sink.wait_messages(50, 30)
    peer.settle(10)
    skip = os.path.getsize(trace)
    blast(run, count, name="main", options=["-c", "1"])
    report = sink.wait(left() - 5) or sink.now()
    peer.settle(20)
    peer.end(sink)
    calls, accepted, uncovered, synced = {}, 0, 0, 0
    with open(trace, errors="replace") as lines:
        lines.seek(skip)
        for line in lines:
            found = re.match(r"\d+\s+(?:<\.\.\. )?(\w+)", line)
            if not found:
                continue
            call = found.group(1)
            if call in SYNCS and "unfinished" not in line:
                synced += 1
            if "resumed" not in line:
                calls[call] = calls.get(call, 0) + 1
            # With one session in lock step each reply to a final dot needs a sync of its own before it.
            if re.search(r'"250 2\.0\.0|"250 2\.6\.0|"250 OK id=|"250 Message Queued', line):
                accepted += 1
                uncovered += synced == 0
                synced = 0
    done = max(report.get("messages", 50) - 50, 1)
    return {
        "n": count, "replies_seen": accepted, "replies_without_sync": uncovered,
        "syncs_per_message": round(sum(calls.get(c, 0) for c in SYNCS) / done, 2),
        "calls_per_message": {k: round(v / done, 2) for k, v in sorted(calls.items())},
    }  # fmt: skip


SCENARIOS = {
    "direct": direct,
    "smarthost": throughput("smarthost", 2526),
    "mx": throughput("mx", 25),
    "rate": rate,
    "half": half,
    "spread": spread,
    "tls": tls,
    "distant": distant,
    "throttled": throttled,
    "dead": blocked("dead"),
    "hang": blocked("hang"),
    "isolation": isolation,
    "backlog": backlog,
    "restart": restart,
    "durable": durable,
}
