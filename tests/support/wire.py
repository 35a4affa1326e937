"""PostgreSQL's protocol 3 as bytes: building messages and cutting a stream into them. Written
independently of the code under test."""

import base64
import hashlib
import hmac
import os
import struct

PROTOCOL_30, PROTOCOL_32 = 0x00030000, 0x00030002
CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST = 80877102, 80877103, 80877104


def message(tag, body=b""):
    return tag.encode() + struct.pack("!i", len(body) + 4) + body


def cstring(text):
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def untagged(code, body=b""):
    return struct.pack("!iI", len(body) + 8, code) + body


def startup(parameters, protocol=PROTOCOL_30):
    body = b"".join(cstring(k) + cstring(v) for k, v in parameters.items())
    return untagged(protocol, body + b"\0")


def query(sql):
    return message("Q", cstring(sql))


def parse(name, sql, types=()):
    return message("P", cstring(name) + cstring(sql) + struct.pack("!h", len(types)) +
                   b"".join(struct.pack("!I", one) for one in types))


def bind(portal="", statement="", values=(), formats=(), results=()):
    body = cstring(portal) + cstring(statement)
    body += struct.pack("!h", len(formats)) + b"".join(struct.pack("!h", f) for f in formats)
    body += struct.pack("!h", len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            value = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(value)) + value
    body += struct.pack("!h", len(results)) + b"".join(struct.pack("!h", f) for f in results)
    return message("B", body)


def run(sql, *values):
    """A statement of its own, up to its Execute."""
    return parse("", sql) + bind("", "", values) + execute()


def describe(kind, name=""):
    return message("D", kind.encode() + cstring(name))


def execute(portal="", rows=0):
    return message("E", cstring(portal) + struct.pack("!i", rows))


def close(kind, name=""):
    return message("C", kind.encode() + cstring(name))


def function_call(oid, values):
    body = struct.pack("!Ihh", oid, 0, len(values))
    for value in values:
        body += struct.pack("!i", len(value)) + value
    return message("F", body + struct.pack("!h", 0))


def copy_data(data):
    return message("d", data)


def copy_fail(text):
    return message("f", cstring(text))


SYNC, FLUSH, COPY_DONE, TERMINATE = message("S"), message("H"), message("c"), message("X")


def cancel_request(pid, key):
    return untagged(CANCEL_REQUEST, struct.pack("!I", pid) + key)


def error_fields(body):
    """Field letter → text of an ErrorResponse or NoticeResponse."""
    return {part[:1].decode(): part[1:].decode(errors="replace")
            for part in body.split(b"\0") if part}


def error_codes(messages):
    """SQLSTATEs of the errors among (tag, body) messages."""
    return [error_fields(body)["C"] for tag, body in messages if tag == "E"]


def data_row(body):
    """Values of a DataRow as bytes or None."""
    count, at, values = struct.unpack_from("!h", body)[0], 2, []
    for _ in range(count):
        length = struct.unpack_from("!i", body, at)[0]
        at += 4
        values.append(None if length < 0 else body[at:at + length])
        at += max(length, 0)
    return values


def columns(body):
    """Of a RowDescription: name, type and format of each column; not where it comes from, whose
    number is another one on each server."""
    found, at = [], 2
    for _ in range(struct.unpack_from("!H", body)[0]):
        end = body.index(b"\0", at)
        _, _, of_type, _, modifier, form = struct.unpack_from("!IHIhih", body, end + 1)
        found.append((body[at:end].decode(), of_type, modifier, form))
        at = end + 19
    return found


def error(severity, code, text):
    return message("E", b"S" + cstring(severity) + b"V" + cstring(severity) + b"C" +
                   cstring(code) + b"M" + cstring(text) + b"\0")


def row_description(names):
    body = struct.pack("!h", len(names))
    for name in names:
        body += cstring(name) + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
    return message("T", body)


def row(values):
    body = struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", len(value)) + value
    return message("D", body)


def md5_password(user, password, salt):
    inner = hashlib.md5(password.encode() + user.encode()).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt).hexdigest()


class ScramClient:
    """SCRAM-SHA-256 (RFC 5802, 7677), with or without channel binding data."""

    def __init__(self, password, binding=None):
        self.password = password
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.header = "n,," if binding is None else "p=tls-server-end-point,,"
        self.binding = binding or b""
        self.first = f"n=,r={self.nonce}"

    def initial(self):
        return (self.header + self.first).encode()

    def answer(self, server_first):
        text = server_first.decode()
        parts = dict(item.split("=", 1) for item in text.split(","))
        if not parts["r"].startswith(self.nonce):
            raise AssertionError("the server's nonce does not continue ours")
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(),
                                     base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        bound = base64.b64encode(self.header.encode() + self.binding).decode()
        final = f"c={bound},r={parts['r']}"
        signed = f"{self.first},{text},{final}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.expected = base64.b64encode(hmac.digest(server_key, signed, "sha256")).decode()
        return f"{final},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        if server_final.decode() != "v=" + self.expected:
            raise AssertionError("wrong server signature")


def scram_verifier(password, iterations=4096, salt=None):
    """What PostgreSQL stores in pg_authid.rolpassword."""
    salt = salt or os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"
