"""A protocol client on a bare socket, for what drivers cannot say: any message, in any order,
broken ones too. Blocking, every wait bounded."""

import functools
import select
import socket
import ssl
import struct
import time

from . import wire
from .machine import HOST, SLOW


class ServerError(Exception):
    def __init__(self, fields):
        super().__init__(f"{fields.get('C')}: {fields.get('M')}")
        self.fields = fields
        self.code = fields.get("C")


class Closed(Exception):
    """The other side closed the connection."""


@functools.cache
def trusting():
    """One for all: each would hold the machine's certificates."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class RawClient:
    def __init__(self, port, host=HOST, timeout=10.0, receive_buffer=None, tls=None, path=None):
        family = socket.AF_UNIX if path else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout * SLOW)
        self.socket.connect(path or (host, port))
        if not path:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.parameters, self.pid, self.key, self.status = {}, 0, b"", ""
        self.negotiated = None
        if tls is not None:
            self.start_tls(tls)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start_tls(self, context):
        if context is True:
            context = trusting()
        self.send(wire.untagged(wire.SSL_REQUEST))
        if self.receive_exactly(1) != b"S":
            raise AssertionError("TLS was declined")
        self.socket = context.wrap_socket(self.socket)

    def login(self, user="postgres", password="postgres", database="postgres",
              protocol=wire.PROTOCOL_30, **parameters):
        """The whole start-up; raises ServerError with the server's own words."""
        self.send(wire.startup(dict(user=user, database=database, **parameters), protocol))
        scram = None
        while True:
            tag, body = self.receive()
            if tag == "R":
                scram = self._authenticate(body, user, password, scram)
            elif tag == "S":
                name, value = body[:-1].split(b"\0")
                self.parameters[name.decode()] = value.decode()
            elif tag == "K":
                self.pid, self.key = struct.unpack("!I", body[:4])[0], body[4:]
            elif tag == "v":
                self.negotiated = struct.unpack("!I", body[:4])[0]
            elif tag == "Z":
                self.status = body.decode()
                return self
            elif tag == "E":
                raise ServerError(wire.error_fields(body))
            elif tag != "N":
                raise AssertionError(f"unexpected {tag!r} during start-up")

    def _authenticate(self, body, user, password, scram):
        kind = struct.unpack("!I", body[:4])[0]
        if kind == 3:
            self.send(wire.message("p", wire.cstring(password)))
        elif kind == 5:
            self.send(wire.message("p", wire.cstring(wire.md5_password(user, password, body[4:]))))
        elif kind == 10:
            scram = wire.ScramClient(password)
            first = scram.initial()
            self.send(wire.message("p", wire.cstring("SCRAM-SHA-256") +
                                   struct.pack("!i", len(first)) + first))
        elif kind == 11:
            self.send(wire.message("p", scram.answer(body[4:])))
        elif kind == 12:
            scram.verify(body[4:])
        elif kind != 0:
            raise AssertionError(f"unknown authentication request {kind}")
        return scram

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def receive_exactly(self, size):
        while len(self.buffer) < size:
            try:
                data = self.socket.recv(max(65536, size - len(self.buffer)))
            except (ConnectionResetError, BrokenPipeError) as reset:
                raise Closed("connection reset") from reset
            if not data:
                raise Closed(f"end of stream with {len(self.buffer)} bytes left over")
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def receive(self):
        """One message as (tag, body)."""
        head = self.receive_exactly(5)
        length = struct.unpack("!i", head[1:])[0]
        if length < 4:
            raise AssertionError(f"impossible length {length} of {head[:1]!r}")
        return head[:1].decode("latin-1"), self.receive_exactly(length - 4)

    def receive_until_ready(self, count=1):
        """All messages up to and with the count-th ReadyForQuery."""
        got = []
        while count:
            tag, body = self.receive()
            got.append((tag, body))
            if tag == "Z":
                self.status = body.decode()
                count -= 1
        return got

    def receive_quiet(self, seconds=0.3):
        """Everything that comes until nothing has come for so long, as (tag, body)."""
        got = []
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        while self.buffer or waiting.poll(seconds * SLOW * 1000):
            try:
                got.append(self.receive())
            except Closed:
                got.append(("closed", b""))
                break
        return got

    def query(self, sql):
        """Rows of a simple query as lists of text; raises ServerError after ReadyForQuery."""
        self.send(wire.query(sql))
        return self.rows(self.receive_until_ready())

    def prepared(self, sql, values=(), name="", types=()):
        self.send(wire.parse(name, sql, types), wire.bind("", name, values),
                  wire.describe("P"), wire.execute(), wire.SYNC)
        return self.rows(self.receive_until_ready())

    @staticmethod
    def rows(messages):
        rows, failure = [], None
        for tag, body in messages:
            if tag == "D":
                rows.append([None if v is None else v.decode() for v in wire.data_row(body)])
            elif tag == "E":
                failure = failure or ServerError(wire.error_fields(body))
        if failure:
            raise failure
        return rows

    def expect_closed(self, seconds=5.0):
        """Reads to the end of the stream; returns the last error's fields, if one came."""
        end, fields = time.monotonic() + seconds * SLOW, None
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                tag, body = self.receive()
            except Closed:
                return fields
            except TimeoutError:
                break
            if tag == "E":
                fields = wire.error_fields(body)
        raise AssertionError(f"still open after {seconds} s (last error: {fields})")

    def cancel(self, port, host=HOST, pid=None, key=None):
        """Sends a CancelRequest for this session on a connection of its own and waits for its
        end, as libpq does."""
        with socket.create_connection((host, port), timeout=10 * SLOW) as other:
            other.sendall(wire.cancel_request(self.pid if pid is None else pid,
                                              self.key if key is None else key))
            try:
                return other.recv(1)
            except ConnectionResetError:
                return b""

    def reset(self):
        """Closes with RST, as a killed client machine would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        try:
            self.socket.sendall(wire.TERMINATE)
        except OSError:
            pass
        self.socket.close()
