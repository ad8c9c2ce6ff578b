"""What tools/quickstart does after the build: a CA, two partners, the engine, mail, and a look at it.

The partners, the CA and the handling of the engine's process are those of the integration tests."""
import os
import shutil
import signal
import socket
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from support.certs import Authority  # noqa: E402
from support.daemon import Daemon  # noqa: E402
from support.partner import Partner  # noqa: E402
from support.senders import message, send  # noqa: E402
from support.waiting import PATIENCE_S  # noqa: E402

CONFIG = """# Written by tools/quickstart. Every setting: tools/examples/bridgehead.conf
engine {{ hostname quickstart.test; control {folder}/control; event-log {folder}/events }}
listen {listen} {{ relay-from 127.0.0.0/8 }}
queue  {{ path {folder}/queue; max-size 1G }}

connector partner-bank {{                    # proven, or the mail waits
    domains    bank.test *.bank.test
    smarthosts [ {bank} ]
    tls        verify {{ ca-file {ca}; names mx.bank.test }}
}}
connector legacy {{                          # a partner that has no TLS
    domains    fax.test
    smarthosts [ {fax} ]
    tls        off
}}
"""
MAIL = (("you@bank.test", "partner-bank"), ("you@fax.test", "legacy"))


def free_or_any(port):
    """This port if nobody has it, else one that the kernel chooses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return port
        except OSError:
            return 0


def engine_in(folder, port, bank, fax, authority):
    engine = Daemon(folder)
    engine.blocks = {
        "all": CONFIG.format(folder=folder, listen=f"127.0.0.1:{port}", bank=bank.text, fax=fax.text,
                             ca=authority.pem)  # fmt: skip
    }
    engine.start()
    host, port = engine.address
    print(f"engine   ready on {host}:{port}, queue in {folder}/queue, control {folder}/control")
    return engine


def delivery_of(engine, queue_id):
    """The record of a message's delivery: how its partner was proven."""
    def delivered(rows):
        return [row for row in rows if row.get("result") == "delivered"]

    return delivered(engine.until(delivered, "why", queue_id))[0]


def show_tls(delivery):
    if delivery["tls_wanted"] == "off":
        return "clear text (tls off)"
    return f"{delivery['tls_version'].replace('TLSv', 'TLS ')}, verified ({delivery['matched']})"


def send_and_show(engine, partners):
    """One message to each partner; False if one did not arrive as its connector says."""
    well = True
    for (recipient, connector), partner in zip(MAIL, partners):
        before = len(partner.messages)
        queue_id = send(engine.address, recipient, sender="me@us.test",
                        content=message(subject="quickstart"))  # fmt: skip
        try:
            partner.wait_until(lambda: len(partner.messages) > before, "the message", PATIENCE_S)
        except AssertionError:
            print(f"sent     {queue_id} to {recipient}: it did not arrive")
            print(engine.tail(30))
            well = False
            continue
        got = partner.messages[-1]
        delivery = delivery_of(engine, queue_id)
        demand = "verify" if connector == "partner-bank" else "off"
        well = well and delivery["connector"] == connector and delivery["tls_wanted"] == demand
        well = well and bool(got.tls) == (demand == "verify")
        print(f"sent     {queue_id} to {recipient:<15} connector {delivery['connector']:<14} {show_tls(delivery)}")
    engine.wait_empty()
    return well


def show(engine, *words):
    print("\n$ bhctl " + " ".join(words))
    print(engine.ctl_run(*words, options=()).stdout.rstrip())


def stay(engine):
    host, port = engine.address
    queue, explain = (" ".join(engine.ctl_command(*words, options=()))
                      for words in (["queue"], ["explain", "you@bank.test"]))  # fmt: skip
    print(f"""
Try:     swaks --server {host}:{port} --to you@bank.test       (or any mail program; apt install swaks)
         {queue}
         {explain}
Log:     {engine.path("events")}
Ctrl-C ends the engine and both partners.""", flush=True)
    def end(*unused):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        engine.wait_until(lambda: engine.ended, "the engine's end", 10**7)
    except KeyboardInterrupt:
        print()
    engine.stop()
    return True


def main():
    once = sys.argv[1:] == ["--once"]
    folder = tempfile.mkdtemp(prefix="bh-quickstart-") if once else os.path.join(ROOT, "run")
    os.makedirs(folder, exist_ok=True)
    engine = None
    well = False
    try:
        authority = Authority(os.path.join(folder, "ca"), "bridgehead quickstart CA")
        certificate = authority.issue("mx.bank.test")
        with Partner(certificate=certificate, name="mx.bank.test") as bank:
            with Partner(name="mx.fax.test") as fax:
                engine = engine_in(folder, 0 if once else free_or_any(2525), bank, fax, authority)
                well = send_and_show(engine, (bank, fax))
                show(engine, "connectors")
                show(engine, "queue")
                if once:
                    engine.stop()
                else:
                    well = stay(engine) and well
    finally:
        if engine and engine.process and not engine.ended:
            engine.kill()
        if once:
            shutil.rmtree(folder, ignore_errors=True)
    print("quickstart: " + ("every message arrived" if well else "something went wrong, see above"))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
