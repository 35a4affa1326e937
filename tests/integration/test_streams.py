"""A lot of data, a lot of clients, and clients that do not read: memory stays bounded."""

import collections
import threading
import time

import pytest

from support import wire
from support.machine import SLOW, resident_bytes
from support.suite import Suite, eventually

pytestmark = pytest.mark.release_only
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def stream(server):
    server.run("DROP TABLE IF EXISTS streamed; CREATE TABLE streamed (a text)")
    with Suite(server) as running:
        yield running


class Highest:
    """The highest resident memory of the frontends while it watches, above what it was before."""

    def __init__(self, suite):
        names = suite.processes()
        self.pids = [pid for name, pid in names.items() if not name.startswith("router")]
        self.before = {pid: resident_bytes(pid) for pid in self.pids}
        self.most, self.ended = 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def watch(self):
        while not self.ended.wait(0.02):
            self.most = max([self.most] + [resident_bytes(pid) - self.before[pid]
                                           for pid in self.pids])


def read_copy(client, every=None):
    """Bytes of CopyData up to ReadyForQuery."""
    total = turn = 0
    while True:
        tag, body = client.receive()
        if tag == "d":
            total += len(body)
        elif tag == "Z":
            return total
        assert tag in "HcCd", wire.error_fields(body)
        turn += 1
        if every and turn % every == 0:
            time.sleep(0.001)


def big_result(suite, mebibytes, seconds):
    client = suite.raw(timeout=seconds)
    warm(suite)
    with Highest(suite) as memory:
        client.send(wire.query(f"COPY (SELECT repeat('x', 1048576) FROM generate_series(1,"
                               f" {mebibytes})) TO STDOUT"))
        total = read_copy(client)
    assert total == mebibytes * (MEBIBYTE + 1)
    return memory.most


def warm(suite):
    client = suite.raw()
    client.query("SELECT repeat('x', 1000000)")
    client.close()


@pytest.mark.seconds(60)
def test_large_result(stream):
    assert big_result(stream, 200, 40) < 8 * MEBIBYTE
    stream.check_no_leaks()


@pytest.mark.seconds(60)
def test_large_message(stream):
    """One row of 200 MB: a message far larger than any buffer."""
    client = stream.raw(timeout=40)
    warm(stream)
    with Highest(stream) as memory:
        client.send(wire.query("SELECT repeat('x', 200000000)"))
        sizes = {tag: len(body) for tag, body in client.receive_until_ready()}
    assert sizes["D"] == 200000006
    assert memory.most < 8 * MEBIBYTE
    client.close()


@pytest.mark.seconds(60)
def test_large_copy_in(stream):
    client = stream.raw(timeout=40)
    warm(stream)
    line = b"y" * 99999 + b"\n"
    with Highest(stream) as memory:
        client.send(wire.query("COPY streamed FROM STDIN"))
        assert client.receive()[0] == "G"
        for _ in range(2000):
            client.send(wire.copy_data(line))
        client.send(wire.COPY_DONE)
        tags = dict(client.receive_until_ready())
    assert tags["C"] == b"COPY 2000\0"
    assert memory.most < 8 * MEBIBYTE
    client.query("TRUNCATE streamed")
    client.close()


@pytest.mark.seconds(60)
def test_large_parameter(stream):
    client = stream.raw(timeout=40)
    warm(stream)
    value = b"z" * 100_000_000
    with Highest(stream) as memory:
        assert client.prepared("SELECT length($1::text)", [value]) == [["100000000"]]
    assert memory.most < 16 * MEBIBYTE
    client.close()


@pytest.mark.seconds(60)
def test_client_that_never_reads(stream, server):
    """Its result waits in the server; others go on; when it goes its connection comes back."""
    warm(stream)
    others = [stream.raw() for _ in range(4)]
    deaf = [stream.raw(receive_buffer=4096) for _ in range(3)]
    with Highest(stream) as memory:
        for client in deaf:
            client.send(wire.query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            begin = time.monotonic()
            for client in others:
                assert client.query("SELECT 1") == [["1"]]
            assert time.monotonic() - begin < 1 * SLOW
    assert memory.most < 8 * MEBIBYTE
    for client in deaf:
        client.reset()
    stream.check_no_leaks()


@pytest.mark.seconds(60)
def test_client_that_never_reads_its_many_answers(stream):
    """A pipeline without end of a client that reads nothing stops being read."""
    client, sent = stream.raw(receive_buffer=4096, timeout=1), 0
    one = wire.query("SELECT repeat('x', 10000)") * 100
    warm(stream)
    with Highest(stream) as memory:
        try:
            while sent < 200 * MEBIBYTE:
                client.send(one)
                sent += len(one)
        except TimeoutError:
            pass
    assert sent < 64 * MEBIBYTE, "the client's statements are taken without end"
    assert memory.most < 16 * MEBIBYTE
    client.reset()
    stream.check_no_leaks()


LAST = wire.query("SELECT 'the last'")


def flood(suite, one, count):
    """How often each tag came in the answers, and the memory that it took. The server sleeps at
    first: what is behind that is owed."""
    client = suite.raw(timeout=40)
    warm(suite)
    everything = wire.query("SELECT pg_sleep(0.5)") + one * count + LAST
    sender = threading.Thread(target=client.send, args=(everything,))
    tags, readies = collections.Counter(), 2 + (count if one == wire.SYNC else 0)
    with Highest(suite) as memory:
        sender.start()
        while tags["Z"] < readies:
            tag, body = client.receive()
            assert tag != "E", wire.error_fields(body)
            tags[tag] += 1
        sender.join()
    assert client.query("SELECT 1") == [["1"]]
    client.close()
    return tags, memory.most


@pytest.mark.seconds(90)
@pytest.mark.parametrize("one, count, answers", [
    (wire.SYNC, 600_000, {"Z": 600_002}),
    (wire.parse("", "SELECT 1") + wire.parse("", "SELECT 2"), 100_000, {"1": 200_000}),
    (wire.close("S", "nobody"), 300_000, {"3": 300_000}),
    (wire.COPY_DONE, 600_000, {"C": 2}),
])
def test_more_replies_owed_than_are_kept(stream, one, count, answers):
    """Small messages by the hundred thousand behind a slow statement: they wait, nothing is lost,
    and what is kept of each does not add up."""
    tags, most = flood(stream, one, count)
    assert {tag: tags[tag] for tag in answers} == answers
    assert most < 6 * MEBIBYTE
    assert stream.metric("pgsled_pipelines_held_total") > 0


def test_a_copy_when_no_more_replies_are_kept(stream):
    """The data of a COPY cannot wait for its answer, nor can a Sync in it."""
    copy = "COPY streamed FROM STDIN"
    data = wire.copy_data(b"a\nb\n") + wire.COPY_DONE
    extended = wire.parse("", copy) + wire.bind() + wire.execute()
    for count in range(4088, 4099):
        client = stream.raw(timeout=10)
        for begun in (wire.query(copy) + data, extended + wire.SYNC + data + wire.SYNC):
            client.send(wire.query("SELECT pg_sleep(0.05)") + wire.SYNC * count + begun + LAST)
            said = client.receive_until_ready(count + 3)
            assert (("C", b"COPY 2\0") in said) and said[-3][1].endswith(b"the last")
        client.close()
    assert stream.raw().query("SELECT count(*) FROM streamed") == [["44"]]


@pytest.mark.seconds(90)
def test_five_thousand_idle_clients(stream):
    first = stream.raw()
    before = sum(resident_bytes(pid) for name, pid in stream.processes().items()
                 if name.startswith("frontend"))
    clients = [stream.raw(timeout=30) for _ in range(5000)]
    held = sum(resident_bytes(pid) for name, pid in stream.processes().items()
               if name.startswith("frontend")) - before
    assert held / 5000 < 4096, f"{held / 5000:.0f} bytes a client"
    begin = time.monotonic()
    for number in range(100):
        assert first.query(f"SELECT {number}") == [[str(number)]]
    assert time.monotonic() - begin < 1
    for client in clients[::50]:
        assert client.query("SELECT 1") == [["1"]]
    for client in clients:
        client.close()
    stream.check_no_leaks()
    eventually(lambda: few_clients(stream))


def few_clients(suite):
    assert len(suite.admin("SHOW CLIENTS")) < 10


def test_query_size_limit(start):
    """Warned or refused before the body is read."""
    suite = start(general={"query_size_limit": 10000, "query_size_limit_action": "block"})
    client = suite.raw()
    assert client.query("SELECT 1") == [["1"]]
    client.send(wire.query("SELECT '" + "x" * 20000 + "'"))
    got = client.receive_quiet(0.5)
    codes = wire.error_codes(got)
    assert codes == ["54000"]
    client.send(wire.run("SELECT 'before'") + wire.SYNC)
    client.receive_until_ready()
    client.send(wire.parse("", "SELECT '" + "x" * 20000 + "'") + wire.SYNC +
                wire.bind() + wire.execute() + wire.SYNC)
    assert wire.error_codes(client.receive_until_ready(2)) == ["54000", "26000"]


def test_what_is_refused_leaves_no_portal(start, server):
    """PostgreSQL would read freed memory if a client executed one that a failed Query has left."""
    suite = start(general={"query_size_limit": 10000, "query_size_limit_action": "block"})
    client = suite.raw()
    for _ in range(20):
        client.query("BEGIN; SELECT 1")
        client.send(wire.query("SELECT '" + "x" * 20000 + "'"))
        assert wire.error_codes(client.receive_until_ready()) == ["54000"]
        client.send(wire.execute() + wire.SYNC)
        got = client.receive_until_ready()
        assert wire.error_codes(got) == ["34000"]
        assert got[-1] == ("Z", b"E")
        client.query("ROLLBACK")
