"""A throw-away certificate authority and certificates from it, by the openssl program."""
import hashlib
import os
import subprocess


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Authority:
    """A CA in a folder; `pem` is its certificate."""

    def __init__(self, folder, name="Test CA"):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.pem = os.path.join(folder, "ca.pem")
        self.key = os.path.join(folder, "ca.key")
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", self.key, "-out", self.pem, "-days", "30", "-subj", f"/CN={name}",
        )  # fmt: skip

    def issue(self, *names, days=30, common=None, authority=False, stem=None,
              rsa=False):  # fmt: skip
        """(certificate file, key file) for these DNS names; the folder's CA signs.

        days below 0: it has ended. common: the subject's name, names[0] by default; with no names
        the certificate has no other. authority: one that may sign."""
        common = common or names[0]
        stem = os.path.join(self.folder, stem or common.replace("*", "star").replace(" ", "-"))
        extensions = stem + ".ext"
        with open(extensions, "w", encoding="ascii") as out:
            if authority:
                out.write("basicConstraints=critical,CA:TRUE\n")
            if names:
                out.write("subjectAltName=" + ",".join("DNS:" + name for name in names) + "\n")
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        _openssl("req", "-newkey", *kind, "-nodes", "-keyout", stem + ".key", "-out", stem + ".csr",
                 "-subj", "/CN=" + common)  # fmt: skip
        _openssl(
            "x509", "-req", "-in", stem + ".csr", "-CA", self.pem, "-CAkey", self.key,
            "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", stem + ".pem",
        )  # fmt: skip
        return stem + ".pem", stem + ".key"

    def below(self, name="Intermediate"):
        """An authority that this one has signed; `chain` joins a certificate of it with its own."""
        pem, key = self.issue(common=name, authority=True)
        child = object.__new__(Authority)
        child.folder = os.path.join(self.folder, name.replace(" ", "-"))
        os.makedirs(child.folder, exist_ok=True)
        child.pem, child.key = pem, key
        return child

    def chain(self, certificate):
        """The same certificate file with this authority's own behind it."""
        path = certificate[0] + ".chain"
        with open(path, "wb") as out:
            for part in (certificate[0], self.pem):
                with open(part, "rb") as read:
                    out.write(read.read())
        return path, certificate[1]


def self_signed(folder, name):
    """(certificate file, key file) that nobody else has signed."""
    stem = os.path.join(folder, "self-" + name)
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", stem + ".key", "-out", stem + ".pem", "-days", "30", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName=DNS:{name}",
    )  # fmt: skip
    return stem + ".pem", stem + ".key"


def pin(certificate):
    """SHA-256 of the public key in the file, in hexadecimal."""
    public = subprocess.run(["openssl", "x509", "-in", certificate, "-noout", "-pubkey"],
                            check=True, capture_output=True).stdout  # fmt: skip
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=public,
                         check=True, capture_output=True).stdout  # fmt: skip
    return hashlib.sha256(der).hexdigest()
