"""A cancel request hits the session that it names, and nobody else, at any time."""

import os
import threading
import time

import pytest

from support.machine import SLOW
from support.raw_client import ServerError
from support.suite import Suite
from support.wire import SYNC, bind, execute, parse, query


@pytest.fixture(scope="module")
def narrow(server, dispatch):
    """All share one connection, so that a misdirected cancel finds a victim."""
    with Suite(server, general={"default_pool_size": 1}, pgsled={"dispatch": dispatch}) as running:
        yield running


@pytest.mark.smoke
def test_cancel(narrow):
    client = narrow.raw()
    begin = time.monotonic()
    threading.Timer(0.3, client.cancel, [narrow.port]).start()
    with pytest.raises(ServerError) as failure:
        client.query("SELECT pg_sleep(20)")
    assert failure.value.code == "57014"
    assert time.monotonic() - begin < 3 * SLOW
    assert client.query("SELECT 1") == [["1"]]
    narrow.check_no_leaks(size=1)


def test_cancel_of_an_idle_session_is_dropped(narrow):
    idle, working = narrow.raw(), narrow.raw()
    assert idle.query("SELECT 1") == [["1"]]
    for _ in range(20):
        idle.cancel(narrow.port)
        assert working.query("SELECT 2") == [["2"]]
    working.send(query("SELECT pg_sleep(0.5), 3"))
    for _ in range(20):
        idle.cancel(narrow.port)
    assert working.rows(working.receive_until_ready()) == [["", "3"]]


def test_wrong_key_does_nothing(narrow):
    client = narrow.raw()
    client.send(query("SELECT pg_sleep(0.6), 4"))
    time.sleep(0.1)
    for key in (os.urandom(4), b"\0\0\0\0", b"", client.key + b"x", os.urandom(32)):
        client.cancel(narrow.port, key=key)
    client.cancel(narrow.port, pid=(client.pid + 1) & 0xffffffff)
    assert client.rows(client.receive_until_ready()) == [["", "4"]]


def test_keys_differ(narrow):
    clients = [narrow.raw() for _ in range(50)]
    assert len({client.pid for client in clients}) == 50
    assert len({client.key for client in clients}) == 50
    for client in clients:
        client.close()


def test_cancel_while_waiting_for_a_connection(narrow):
    holder, waiting = narrow.raw(), narrow.raw()
    holder.query("BEGIN")
    waiting.send(query("SELECT 5"))
    time.sleep(0.2)
    waiting.cancel(narrow.port)
    with pytest.raises(ServerError) as failure:
        waiting.rows(waiting.receive_until_ready())
    assert failure.value.code == "57014"
    assert holder.query("SELECT 6") == [["6"]]
    holder.query("COMMIT")
    assert waiting.query("SELECT 7") == [["7"]]
    narrow.check_no_leaks(size=1)


@pytest.mark.seconds(60)
def test_cancel_races_with_the_next_query(narrow):
    """Short queries that are cancelled at about the time they end; the others on the same warm
    connection must never be hit."""
    stop, hits, answered = threading.Event(), [], [0]

    def bystander(number):
        client = narrow.raw()
        while not stop.is_set():
            try:
                assert client.query(f"SELECT {number}, pg_sleep(0.0005)") == [[str(number), ""]]
                answered[0] += 1
            except (ServerError, AssertionError) as hit:
                hits.append(str(hit))
        client.close()
    others = [threading.Thread(target=bystander, args=(n,)) for n in range(3)]
    for one in others:
        one.start()
    cancelled = 0
    client, end = narrow.raw(), time.monotonic() + 6
    while time.monotonic() < end:
        client.send(query("SELECT 'victim', pg_sleep(0.003)"))
        client.cancel(narrow.port)
        try:
            assert client.rows(client.receive_until_ready()) == [["victim", ""]]
        except ServerError as failure:
            assert failure.code == "57014"
            cancelled += 1
    stop.set()
    for one in others:
        one.join()
    assert hits == []
    assert answered[0] > 50 and cancelled > 0
    narrow.check_no_leaks(size=1)


def test_cancel_in_extended_batch(narrow):
    client = narrow.raw()
    client.send(parse("", "SELECT 1"), bind(), execute(), parse("", "SELECT pg_sleep(20)"), bind(),
                execute(), parse("", "SELECT 3"), bind(), execute(), SYNC)
    time.sleep(0.3)
    client.cancel(narrow.port)
    tags = [tag for tag, _ in client.receive_until_ready()]
    assert tags == ["1", "2", "D", "C", "1", "2", "E", "Z"]
    assert client.query("SELECT 1") == [["1"]]


def test_cancel_across_frontends(start):
    """The request may arrive at another process than the session: two share the port."""
    suite = start(frontends=2)
    for _ in range(6):
        client = suite.raw()
        client.send(query("SELECT pg_sleep(20)"))
        time.sleep(0.1)
        client.cancel(suite.port)
        with pytest.raises(ServerError) as failure:
            client.rows(client.receive_until_ready())
        assert failure.value.code == "57014"
        client.close()
    suite.check_no_leaks()
