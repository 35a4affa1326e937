"""Clients and servers that break the protocol: their connection ends, it is counted, and nobody
else notices."""

import os
import random
import socket
import struct
import threading
import time

import pytest

from support import wire
from support.raw_client import Closed, ServerError
from support.raw_server import RawServer, ordinary
from support.suite import Suite


@pytest.fixture
def bystander(suite):
    """Asks before and after: the process must not have gone meanwhile."""
    before, client = suite.processes(), suite.raw()
    assert client.query("SELECT 1") == [["1"]]
    yield client
    assert client.query("SELECT 2") == [["2"]]
    client.close()
    assert suite.processes() == before


def state_start(suite):
    return suite.raw(login=False)


def state_password(suite):
    client = suite.raw(login=False)
    client.send(wire.startup({"user": "postgres", "database": "postgres"}))
    client.receive()
    return client


def state_idle(suite):
    return suite.raw()


def state_transaction(suite):
    client = suite.raw()
    client.query("BEGIN; SELECT 1")
    return client


def state_batch(suite):
    client = suite.raw()
    client.send(wire.parse("", "SELECT 1"), wire.bind(), wire.execute(), wire.FLUSH)
    for _ in range(4):
        client.receive()
    return client


def state_copy_in(suite):
    client = suite.raw()
    client.query("CREATE TABLE IF NOT EXISTS broken_copy (a int)")
    client.send(wire.query("COPY broken_copy FROM STDIN"))
    assert client.receive()[0] == "G"
    return client


def state_waiting(suite):
    client = suite.raw()
    client.send(wire.query("SELECT pg_sleep(0.2)"))
    return client


STATES = [state_start, state_password, state_idle, state_transaction, state_batch, state_copy_in,
          state_waiting]
MALFORMED = {
    "length 0": b"Q\0\0\0\0", "length 3": b"Q\0\0\0\3", "negative length": b"Q\xff\xff\xff\xff",
    "largest length": b"Q\x7f\xff\xff\xff", "unknown tag": wire.message("?", b"abc"),
    "zero tag": b"\0\0\0\0\4", "server's tag": wire.message("Z", b"I"),
    "query without end": wire.message("Q", b"SELECT 1"),
    "bind cut short": wire.message("B", b"\0\0\0\1"),
    "bind with impossible count": wire.message("B", b"\0\0\0\0\x7f\xff"),
    "bind with impossible length": wire.message("B", b"\0\0\0\0\0\1\x7f\xff\xff\xff\0\0"),
    "parse with impossible count": wire.message("P", b"\0SELECT 1\0\x7f\xff"),
    "execute without number": wire.message("E", b"\0"),
    "describe of nothing": wire.message("D", b"Xabc\0"), "sync with body": wire.message("S", b"x"),
    "function call cut short": wire.message("F", b"\0\0"),
    "huge parse": b"P" + struct.pack("!i", 1 << 30), "random": random.Random(1).randbytes(200),
}


def is_fatal(what):
    """Whether the rest of the stream has no sense any more, or the message is only wrong."""
    return "length" in what and "bind" not in what or "tag" in what


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__[6:])
def test_malformed_from_client(suite, bystander, state, what):
    client = state(suite)
    client.send(MALFORMED[what])
    if what in ("largest length", "huge parse", "random"):
        # May be waited for; must neither be stored whole nor hurt. The client gives up.
        client.receive_quiet(0.1)
        client.reset()
        return
    if is_fatal(what) and state not in (state_start, state_password):
        fields = client.expect_closed()
        assert fields is None or fields["C"] == "08P01", fields
        return
    try:
        client.send(wire.SYNC)
        got = client.receive_quiet(0.3)
    except (OSError, Closed):
        got = [("closed", b"")]
    errors = [wire.error_fields(body) for tag, body in got if tag == "E"]
    # While a COPY is read, PostgreSQL passes over a Sync whatever it carries.
    silent = state in (state_start, state_password) or (state, what) == (
        state_copy_in, "sync with body")
    assert errors or ("closed", b"") in got or silent, got
    client.close()


@pytest.mark.parametrize("packet", [
    struct.pack("!i", 0), struct.pack("!i", -5), struct.pack("!i", 7) + b"abc",
    struct.pack("!iI", 1 << 30, wire.PROTOCOL_30), struct.pack("!iI", 9, wire.PROTOCOL_30) + b"x",
    struct.pack("!iI", 8, 0x00020000), struct.pack("!iI", 8, 0x00040000),
    wire.startup({"database": "postgres"}), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    wire.untagged(wire.PROTOCOL_30, b"user\0postgres"),
    wire.untagged(wire.CANCEL_REQUEST, b""), wire.untagged(wire.CANCEL_REQUEST, b"\0" * 300),
], ids=lambda packet: packet[:8].hex())
def test_malformed_start(suite, bystander, packet):
    client = suite.raw(login=False)
    client.send(packet)
    client.socket.shutdown(socket.SHUT_WR)
    fields = client.expect_closed()
    assert fields is None or fields["S"] == "FATAL"


def test_messages_out_of_order(suite, bystander):
    client = suite.raw(login=False)
    client.send(wire.query("SELECT 1"))
    client.expect_closed()
    client = state_password(suite)
    client.send(wire.query("SELECT 1"))
    fields = client.expect_closed()
    assert fields is None or fields["C"] in ("08P01", "28P01", "28000")
    client = state_idle(suite)
    client.send(wire.copy_data(b"1\n"), wire.COPY_DONE, wire.query("SELECT 3"))
    assert client.rows(client.receive_until_ready()) == [["3"]]


def test_many_starts_left_hanging(suite, bystander):
    hanging = [suite.raw(login=False) for _ in range(200)]
    for number, client in enumerate(hanging):
        client.send(wire.startup({"user": "postgres"})[:number % 20])
    assert suite.raw().query("SELECT 1") == [["1"]]
    for client in hanging:
        client.reset()


@pytest.mark.seconds(60)
def test_random_bytes_from_client(suite, bystander):
    seed = int(os.environ.get("PGSLED_SEED", random.randrange(1 << 30)))
    chance = random.Random(seed)
    whole = (wire.parse("a", "SELECT $1::int") + wire.bind("", "a", ["1"]) + wire.describe("P") +
             wire.execute() + wire.SYNC + wire.query("SELECT 1") + wire.close("S", "a"))
    for turn in range(150):
        client = suite.raw() if turn % 3 else suite.raw(login=False)
        text = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        try:
            client.send(bytes(text))
        except OSError:
            pass
        client.reset()
    suite.check_no_leaks()


def in_pieces(client, data, size=30000):
    for at in range(0, len(data), size):
        client.send(data[at:at + size])
        time.sleep(0.005)


@pytest.mark.parametrize("begun", [False, True], ids=["alone", "in transaction"])
@pytest.mark.parametrize("state", ["idle", "after failed copy", "skipping"])
def test_payload_never_becomes_messages(suite, bystander, state, begun):
    """What a client packs into a message that is thrown away must go with it, whole: a row that
    happens to read as messages must not be run."""
    client = suite.raw()
    client.query("DROP TABLE IF EXISTS injected, target; CREATE TABLE target (a int)")
    payload = wire.query("CREATE TABLE IF NOT EXISTS injected (a int)") * 5000
    if begun:
        client.query("BEGIN; SAVEPOINT here")
    if state == "skipping":
        client.send(wire.parse("", "SELECT no_such_column"), wire.FLUSH)
        assert client.receive()[0] == "E"
        # The server throws this away, and so must whoever holds a part of it.
        in_pieces(client, wire.bind("", "", [payload]) + wire.execute() + wire.SYNC)
        assert [tag for tag, _ in client.receive_until_ready()] == ["Z"]
    else:
        if state == "after failed copy":
            client.send(wire.query("COPY target FROM STDIN"))
            assert client.receive()[0] == "G"
            client.send(wire.copy_data(b"not a number\n"), wire.copy_data(b"2\n" * 5000))
            client.receive_until_ready()
        # The end of the payload and the next statement come in one piece.
        in_pieces(client, wire.copy_data(payload) + wire.query("ROLLBACK"))
        client.receive_until_ready()
        begun = False
    if begun:
        client.query("ROLLBACK TO SAVEPOINT here")
    assert client.query("SELECT to_regclass('injected'), count(*) FROM target") == [[None, "0"]]
    assert client.query("SELECT 3") == [["3"]]


def test_protocol_errors_are_counted(suite):
    def counted():
        return sum(value for (name, _), value in suite.metrics().items()
                   if "protocol_error" in name and name.endswith("_total"))
    before = counted()
    client = suite.raw()
    client.send(b"Q\0\0\0\3")
    client.expect_closed()
    end = time.monotonic() + 3
    while counted() <= before:
        assert time.monotonic() < end, "no series *protocol_error*_total has grown"
        time.sleep(0.1)


# Servers

def marked(answers):
    """A server that gives these bytes to a statement with the word MARK."""
    def misbehave(connection, tag, body):
        if b"MARK" in body and tag in "QP":
            connection.sendall(answers)
            time.sleep(0.2)
            return b""
        return None
    return misbehave


SERVER_MESSAGES = {
    "length 0": b"T\0\0\0\0", "length 3": b"C\0\0\0\3", "negative length": b"D\xff\xff\xff\xff",
    "largest length": b"D\x7f\xff\xff\xff" + b"x" * 100, "unknown tag": wire.message("?", b"abc"),
    "client's tag": wire.message("Q", b"SELECT 1\0"), "not owed": wire.message("2"),
    "ready without status": wire.message("Z", b""),
    "ready with odd status": wire.message("Z", b"?"),
    "authentication again": wire.message("R", struct.pack("!I", 0)),
    "parameter status cut": wire.message("S", b"name"),
    "error without end": wire.message("E", b"S"),
    "key again": wire.message("K", b"\0" * 8), "huge error": b"E" + struct.pack("!i", 1 << 29),
    "copy in not asked": wire.message("G", b"\0\0\0"), "random": random.Random(2).randbytes(100),
    "two answers": (ordinary("Q", b"SELECT 1\0") * 2),
}


@pytest.fixture(scope="module")
def false_server(server, dispatch):
    """One database on a server that breaks the protocol, one on a good one."""
    with RawServer() as fake:
        with Suite(server, databases=[
                {"name": "postgres"},
                {"name": "fake", "port": fake.port, "pool_size": 2, "min_pool_size": 0}],
                   general={"healthcheck_interval": 600000, "tls_verify": "disabled"},
                   pgsled={"dispatch": dispatch}) as running:
            yield running, fake


@pytest.mark.parametrize("what", SERVER_MESSAGES)
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_malformed_from_server(false_server, what, extended):
    suite, fake = false_server
    fake.misbehave = marked(SERVER_MESSAGES[what])
    before, good = suite.processes(), suite.raw()
    client = suite.raw(database="fake")
    assert client.query("SELECT 1") == [["fine"]]
    try:
        if extended:
            client.send(wire.parse("", "SELECT 'MARK'"), wire.bind(), wire.execute(), wire.SYNC)
        else:
            client.send(wire.query("SELECT 'MARK'"))
        client.receive_quiet(0.3)
    finally:
        client.reset()
    assert good.query("SELECT 2") == [["2"]]
    # The connection that was out of step is not lent again: the next client gets its own answer.
    for _ in range(3):
        after = suite.raw(database="fake")
        assert after.query("SELECT 1") == [["fine"]]
        after.close()
    assert suite.processes() == before
    good.close()


@pytest.mark.parametrize("answer", [
    b"", b"N", b"R\0\0\0\3", wire.message("R", b""), wire.message("R", struct.pack("!I", 99)),
    wire.message("R", struct.pack("!I", 10) + b"NO-SUCH-MECHANISM\0\0"),
    wire.message("R", struct.pack("!I", 11) + b"r=,s=,i="), wire.message("Z", b"I"),
    b"R\x7f\xff\xff\xff", random.Random(3).randbytes(64), wire.message("E", b""),
    wire.error("FATAL", "57P03", "the database system is starting up"),
], ids=lambda answer: answer[:9].hex() or "closed")
def test_malformed_start_of_server(false_server, answer):
    suite, fake = false_server
    fake.drop_all()
    fake.at_startup = lambda body: answer
    client = suite.raw(database="fake", timeout=20)
    try:
        with pytest.raises((ServerError, Closed)) as failure:
            client.query("SELECT 1")
        if b"57P03" in answer:
            assert failure.value.code == "57P03"
    finally:
        fake.at_startup = None
        client.reset()
    assert suite.raw().query("SELECT 2") == [["2"]]
    assert suite.raw(database="fake").query("SELECT 1") == [["fine"]]


def test_server_closes_while_idle(false_server):
    """End of file on an idle connection is noticed before a statement is written to it."""
    suite, fake = false_server
    fake.misbehave = None
    client = suite.raw(database="fake")
    for _ in range(5):
        assert client.query("SELECT 1") == [["fine"]]
        fake.drop_all()
        time.sleep(0.1)
    assert client.query("SELECT 1") == [["fine"]]


def test_fatal_while_idle(false_server):
    suite, fake = false_server
    fake.misbehave = None
    client = suite.raw(database="fake")
    assert client.query("SELECT 1") == [["fine"]]
    fatal = wire.error("FATAL", "57P01", "terminating connection due to administrator command")
    for connection in list(fake.open):
        connection.sendall(fatal)
    fake.drop_all()
    time.sleep(0.1)
    assert client.query("SELECT 1") == [["fine"]]


def test_server_dies_in_query(false_server):
    suite, fake = false_server
    fake.misbehave = lambda connection, tag, body: (
        connection.shutdown(socket.SHUT_RDWR) if b"MARK" in body else None)
    client = suite.raw(database="fake")
    with pytest.raises((ServerError, Closed)):
        client.query("SELECT 'MARK'")
    fake.misbehave = None
    assert suite.raw(database="fake").query("SELECT 1") == [["fine"]]


def test_slow_server_start_does_not_block_others(server, start):
    """A server that accepts and says nothing, and one that does not even accept."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    threads = []
    suite = start(databases=[{"name": "postgres"},
                             {"name": "silent", "port": silent.getsockname()[1]}],
                  general={"connect_timeout": 1000, "checkout_timeout": 1500})

    def ask():
        with pytest.raises((ServerError, Closed)):
            suite.raw(database="silent", timeout=10).query("SELECT 1")
    for _ in range(3):
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    begin = time.monotonic()
    for number in range(20):
        assert suite.raw().query(f"SELECT {number}") == [[str(number)]]
    assert time.monotonic() - begin < 1.5 * float(os.environ.get("PGSLED_SLOW", "1"))
    for thread in threads:
        thread.join()
    silent.close()
