"""What a replicator asks of the router when it moves buckets, asked by a test: a peer of the bus
(docs/formats/envelope.md) by way of libzmq."""

import ctypes
import json
import struct
import threading
import time

HELLO, WELCOME, HEARTBEAT, CONFIG, ACK, ERROR = 1, 2, 3, 4, 5, 8
MOVE_REQUEST, MOVE_ANSWER = 25, 26
DEALER, ROUTING_ID, LINGER, RCVTIMEO, SNDTIMEO = 5, 5, 17, 27, 28
HEADER = struct.Struct("<IHHHHIQQQII")


class MoveError(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.sqlstate = error["sqlstate"]


class Mover:
    def __init__(self, suite, name="replicator-test"):
        self.zmq = ctypes.CDLL("libzmq.so.5", use_errno=True)
        self.zmq.zmq_ctx_new.restype = self.zmq.zmq_socket.restype = ctypes.c_void_p
        self.name, self.endpoint = name, f"ipc://{suite.run_dir}/router.bus"
        self.context = ctypes.c_void_p(self.zmq.zmq_ctx_new())
        self.socket = ctypes.c_void_p(self.zmq.zmq_socket(self.context, DEALER))
        self._option(ROUTING_ID, name.encode())
        for option, value in ((LINGER, 0), (RCVTIMEO, 50), (SNDTIMEO, 1000)):
            self._option(option, struct.pack("<i", value))
        self.lock, self.answers, self.numbers = threading.Lock(), {}, 0
        self.epoch, self.ended = 0, False
        self.zmq.zmq_connect(self.socket, self.endpoint.encode())
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        self.zmq.zmq_close(self.socket)
        self.zmq.zmq_ctx_term(self.context)

    def _option(self, option, value):
        self.zmq.zmq_setsockopt(self.socket, option, value, len(value))

    def _send(self, kind, payload=b"", request=0, epoch=0):
        head = HEADER.pack(0x44454C53, 1, HEADER.size, kind, 0, 30_000 if request else 0, request,
                           epoch, 0, len(payload), 0)
        with self.lock:
            self.zmq.zmq_send(self.socket, head + payload, HEADER.size + len(payload), 0)

    def _hello(self):
        self._send(HELLO, json.dumps({"service": "replicator", "instance": self.name,
                                      "version": "0.1.0", "pid": 1, "boot": self.name}).encode())

    def _run(self):
        """Says hello until it is welcomed, keeps the heartbeat, acknowledges, collects answers."""
        buffer, next_beat, welcomed = ctypes.create_string_buffer(1 << 20), 0, False
        while not self.ended:
            if time.monotonic() >= next_beat:
                self._send(HEARTBEAT) if welcomed else self._hello()
                next_beat = time.monotonic() + 0.5
            with self.lock:
                size = self.zmq.zmq_recv(self.socket, buffer, len(buffer), 1)
            if size < HEADER.size:
                time.sleep(0.005)
                continue
            head = HEADER.unpack(buffer.raw[:HEADER.size])
            kind, request, epoch, trace = head[3], head[6], head[7], head[8]
            payload = buffer.raw[HEADER.size:size]
            if kind in (WELCOME, CONFIG):
                welcomed = True
                self._send(ACK, epoch=epoch)
            elif kind == HEARTBEAT and trace == 0:
                welcomed = False   # a router that does not know us
            elif kind in (MOVE_ANSWER, ERROR):
                self.answers[request] = (kind, json.loads(payload))

    def start(self, do, database="app", **more):
        """Sends a request and gives its number, for finish()."""
        self.numbers += 1
        asked = dict({"do": do, "database": database, "job": "j"}, **more)
        self._send(MOVE_REQUEST, json.dumps(asked).encode(), self.numbers)
        return self.numbers

    def answered(self, number):
        return number in self.answers

    def finish(self, number, seconds=15):
        until = time.monotonic() + seconds
        while number not in self.answers:
            if time.monotonic() > until:
                raise TimeoutError(f"no answer of the router within {seconds} s")
            time.sleep(0.005)
        kind, said = self.answers.pop(number)
        if kind == ERROR:
            raise MoveError(said)
        return said

    def ask(self, do, database="app", **more):
        return self.finish(self.start(do, database, **more))
