"""A fake PostgreSQL that says what it is told to: for testing how the suite takes a server that
breaks the protocol. One thread a connection; lets anybody in."""

import socket
import struct
import threading

from . import wire
from .machine import HOST, free_port


class RawServer:
    """`misbehave(connection, tag, body)` is asked first about every message after start-up; what
    it returns is sent, None means "answer as PostgreSQL would". `at_startup` replaces the
    answer to the start-up packet."""

    def __init__(self, misbehave=None, at_startup=None, port=None):
        self.misbehave, self.at_startup = misbehave, at_startup
        self.port = port or free_port()
        self.seen, self.cancels, self.connections = [], 0, 0
        self.listener = socket.create_server((HOST, self.port))
        self.open, self.lock = set(), threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.drop_all()

    def drop_all(self):
        with self.lock:
            victims, self.open = self.open, set()
        for one in victims:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            stream = connection.makefile("rb")
            if self._start(connection, stream):
                self._answer_all(connection, stream)
        except (OSError, struct.error, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()

    def _start(self, connection, stream):
        while True:
            length, code = struct.unpack("!iI", stream.read(8))
            body = stream.read(length - 8)
            if code == wire.CANCEL_REQUEST:
                self.cancels += 1
                return False
            if code in (wire.SSL_REQUEST, wire.GSSENC_REQUEST):
                connection.sendall(b"N")
                continue
            break
        self.connections += 1
        if self.at_startup is not None:
            answer = self.at_startup(body)
            if answer is not None:
                connection.sendall(answer)
                return False
        said = wire.message("R", struct.pack("!I", 0))
        for name, value in {"server_version": "15.9", "server_encoding": "UTF8",
                            "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
                            "standard_conforming_strings": "on", "TimeZone": "UTC",
                            "integer_datetimes": "on", "IntervalStyle": "postgres"}.items():
            said += wire.message("S", wire.cstring(name) + wire.cstring(value))
        said += wire.message("K", struct.pack("!II", 4711 + self.connections, 42))
        connection.sendall(said + wire.message("Z", b"I"))
        return True

    def _answer_all(self, connection, stream):
        while True:
            head = stream.read(5)
            if len(head) < 5:
                return
            tag = head[:1].decode("latin-1")
            body = stream.read(struct.unpack("!i", head[1:])[0] - 4)
            self.seen.append((tag, body))
            if tag == "X":
                return
            said = self.misbehave(connection, tag, body) if self.misbehave else None
            connection.sendall(ordinary(tag, body) if said is None else said)


def ordinary(tag, body):
    """What a PostgreSQL without tables would say."""
    if tag == "Q":
        sql = body[:-1].decode(errors="replace").strip()
        word = sql.split(" ")[0].split(";")[0].upper()
        if word == "SELECT":
            return (wire.row_description(["answer"]) + wire.row([b"fine"]) +
                    wire.message("C", wire.cstring("SELECT 1")) + wire.message("Z", b"I"))
        return wire.message("C", wire.cstring(word)) + wire.message("Z", b"I")
    simple = {"P": "1", "B": "2", "C": "3", "D": "n"}
    if tag in simple:
        said = wire.message(simple[tag])
        if tag == "D" and body[:1] == b"S":
            said = wire.message("t", struct.pack("!h", 0)) + said
        return said
    if tag == "E":
        return wire.message("C", wire.cstring("SELECT 0"))
    return wire.message("Z", b"I") if tag == "S" else b""
