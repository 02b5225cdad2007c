"""Certificates for the tests of TLS, made with the program openssl: an authority of our own, and what it signs."""
import pathlib
import ssl
import subprocess


def openssl(*arguments, **more):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True, **more).stdout


class Authority:
    """Its files lie in `folder`; `file` is what clients trust."""

    def __init__(self, folder, name="authority", above=None):
        """`above`: the authority that signs this one; None: it is its own root."""
        self.folder = pathlib.Path(folder)
        self.file = self.folder / f"{name}.pem"
        self.key = self.folder / f"{name}.key"
        sign = [] if above is None else ["-CA", str(above.file), "-CAkey", str(above.key)]
        openssl("req", "-x509", *sign, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", str(self.key), "-out", str(self.file),
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def sign(self, cert, key, days=1):
        """A new key and its certificate for this machine's names into two files; less than no days: it has expired.
        Returns its serial number."""
        request, extensions = self.folder / "request", self.folder / "extensions"
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                "-keyout", str(key), "-out", str(request))
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(self.key), "-CAcreateserial",
                "-days", str(days), "-extfile", str(extensions), "-out", str(cert))
        return openssl("x509", "-in", str(cert), "-noout", "-serial").strip().removeprefix("serial=")

    def context(self):
        return ssl.create_default_context(cafile=str(self.file))
