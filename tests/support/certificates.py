"""A certificate authority and certificates for the time of a test."""

import shutil
import subprocess


def _openssl(*arguments):
    subprocess.run(["openssl", *[str(one) for one in arguments]], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Authority:
    """Files ca.crt and, for each name issued, NAME.crt and NAME.key in the folder."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        self.certificate = folder / "ca.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-nodes", "-days", "30", "-subj", "/CN=pgsled tests", "-keyout",
                 folder / "ca.key", "-out", self.certificate)

    def issue(self, name, subject="localhost", alternative="IP:127.0.0.1,DNS:localhost",
              owner=None):
        """Returns (certificate, key)."""
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        extra.write_text(f"subjectAltName={alternative}\n")
        _openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}",
                 "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey",
                 self.folder / "ca.key", "-CAcreateserial", "-days", "30", "-extfile", extra,
                 "-out", certificate)
        key.chmod(0o600)
        if owner is not None:
            shutil.chown(key, owner)
        return certificate, key
