#!/usr/bin/env python3
"""Reads the sample reports of test_dsn with Python's mail parser, which knows nothing of ours.

usage: check_dsn.py TEST_DSN
"""

import email
import email.policy
import pathlib
import subprocess
import sys
import tempfile


def check(path):
    """A list of what is wrong with one report."""
    raw = path.read_bytes()
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    wrong = []

    def expect(holds, what):
        if not holds:
            wrong.append(what)

    expect(not message.defects, f"defects {message.defects}")
    expect(message.get_content_type() == "multipart/report", "not a multipart/report")
    kind = message.get_param("report-type")
    expect(message["Auto-Submitted"] == "auto-replied", "no Auto-Submitted")
    for name in ("From", "To", "Date", "Subject", "Message-ID", "MIME-Version"):
        expect(len(message.get_all(name, [])) == 1, f"{name} not once")
    expect(message["Date"].datetime is not None, "no date")
    parts = list(message.iter_parts())
    expect(len(parts) == 3, f"{len(parts)} parts")
    if wrong:
        return wrong
    for part in message.walk():
        expect(not part.defects, f"defects {part.defects} in {part.get_content_type()}")
    expect(parts[0].get_content_type() == "text/plain", "first part is not text/plain")
    parts[0].get_content().encode()
    expect(parts[1].get_content_type() == f"message/{kind}", "report-type and second part differ")
    if kind == "delivery-status":
        blocks = parts[1].get_payload()
        expect("Reporting-MTA" in blocks[0], "no Reporting-MTA")
        for block in blocks[1:]:
            for name in ("Final-Recipient", "Action", "Status"):
                expect(len(block.get_all(name, [])) == 1, f"{name} not once for a recipient")
    returned = parts[2].get_content_type()
    expect(returned in ("message/rfc822", "text/rfc822-headers", "message/global",
                        "message/global-headers"), f"returned {returned}")
    return wrong


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder], check=True)
        paths = sorted(pathlib.Path(folder).glob("*.eml"))
        for path in paths:
            for wrong in check(path):
                print(f"{path.name}: {wrong}")
                failed = 1
    print(f"{len(paths)} reports read")
    return failed or not paths


if __name__ == "__main__":
    sys.exit(main())
