"""A throw-away certificate authority and certificates from it, by the openssl program."""
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

    def issue(self, *names):
        """(certificate file, key file) for these DNS names."""
        stem = os.path.join(self.folder, names[0].replace("*", "star"))
        extensions = stem + ".ext"
        with open(extensions, "w", encoding="ascii") as out:
            out.write("subjectAltName=" + ",".join("DNS:" + name for name in names) + "\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", stem + ".key", "-out", stem + ".csr", "-subj", "/CN=" + names[0],
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", stem + ".csr", "-CA", self.pem, "-CAkey", self.key,
            "-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", stem + ".pem",
        )  # fmt: skip
        return stem + ".pem", stem + ".key"
