"""What the settings of a pool promise, seen from PostgreSQL."""

import collections
import threading
import time

import psycopg
import pytest

from support import wire
from support.machine import HOST, SLOW
from support.raw_client import ServerError
from support.raw_server import RawServer
from support.suite import eventually

KEPT = 5


@pytest.fixture(scope="module")
def quiet(server):
    """A database in which only pgsled has connections, and no client has been."""
    server.make_database("quiet")


# The suite is ready when the first database answers: the other one has not been used then.
QUIET = {"databases": [{"name": "postgres"}, {"name": "quiet"}],
         "users": [{"name": "postgres", "database": "postgres"},
                   {"name": "app", "database": "quiet"}]}


def pids(server):
    return {row[0] for row in server.backends("quiet")}


def kept(server, without=frozenset()):
    found = pids(server)
    assert len(found) == KEPT and not found & without, found


@pytest.mark.smoke
def test_min_pool_size(start, server, quiet):
    """There before the first client, shared out over the poolers, never fewer for long."""
    suite = start(**QUIET, poolers=2, general={"default_pool_size": 8, "min_pool_size": KEPT,
                                               "idle_timeout": 500})
    eventually(lambda: kept(server))

    def shared_out():   # the first pooler has had all of them for a moment
        shares = collections.Counter(row["pooler"] for row in suite.admin("SHOW SERVERS")
                                     if row["database"] == "quiet")
        assert sorted(shares.values()) == [2, 3], shares
    eventually(shared_out)
    eventually(lambda: kept(server))
    time.sleep(1.5 * SLOW)
    first = pids(server)
    kept(server)  # although unused for longer than idle_timeout
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'quiet'")
    eventually(lambda: kept(server, without=first))
    # More are opened when they are needed, and closed when not.
    clients = [suite.raw("quiet", "app") for _ in range(8)]
    for client in clients:
        client.query("BEGIN")
    assert len(pids(server)) == 8
    for client in clients:
        client.close()
    eventually(lambda: kept(server), 6)


def test_server_lifetime_jitter(start, server, quiet):
    """Connections opened at the same moment are not closed at the same moment."""
    start(**QUIET, general={"default_pool_size": 8, "min_pool_size": 8, "server_lifetime": 1500,
                            "server_lifetime_jitter": 900, "idle_timeout": 60000})
    eventually(lambda: check(len(pids(server)) == 8))
    def births():
        rows = server.run("SELECT pid, extract(epoch FROM backend_start)::float8 FROM"
                          " pg_stat_activity WHERE datname = 'quiet'")
        return dict(rows)
    born, died = births(), {}
    first = set(born)
    assert max(born.values()) - min(born.values()) < 1.0 * SLOW
    end = time.monotonic() + 5 * SLOW
    while len(died) < len(first) and time.monotonic() < end:
        now, there = time.time(), pids(server)
        for pid in first - there - set(died):
            died[pid] = now - born[pid]
        time.sleep(0.01)
    lives = sorted(died.values())
    assert len(lives) == 8, lives
    assert 0.55 < lives[0] and lives[-1] < 2.5 * SLOW, lives
    assert lives[-1] - lives[0] > 0.2, lives
    eventually(lambda: check(len(pids(server)) == 8))


def check(holds):
    assert holds


class Refusing:
    """A server that lets nobody in for a while, with a word of its own."""

    def __init__(self):
        self.refuses = False

    def __call__(self, body):
        if not self.refuses:
            return None
        return wire.error("FATAL", "57P03", "the server of this test is still asleep")


@pytest.mark.parametrize("attempts", [1, 3])
def test_connect_attempts(start, attempts):
    """After so many the waiting clients hear the server's own words and where it is, in time."""
    gate = Refusing()
    with RawServer(at_startup=gate) as fake:
        suite = start(None, databases=[{"name": "postgres", "host": HOST, "port": fake.port}],
                      general={"default_pool_size": 1, "min_pool_size": 0, "connect_attempts":
                               attempts, "connect_attempt_delay": 50, "checkout_timeout": 3000})
        clients = [suite.raw() for _ in range(5)]
        gate.refuses = True
        fake.drop_all()
        eventually(lambda: check("idle" not in {row["state"] for row in
                                                suite.admin("SHOW SERVERS")}))
        before = fake.connections
        failure = refused(clients[0])
        assert fake.connections - before == attempts
        failures, threads = {}, []
        for number, client in enumerate(clients):
            def ask(number=number, client=client):
                failures[number] = refused(client)
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        for thread in threads:
            thread.join()
        for failure in failures.values():
            assert failure.code == "57P03"
            said = " ".join(failure.fields.values())
            assert "the server of this test is still asleep" in said
            assert f"{HOST}:{fake.port}" in said, said
        assert len(failures) == len(clients)
        gate.refuses = False
        for client in clients:
            eventually(lambda: answered(client))


def answered(client):
    try:
        assert client.query("SELECT 1") == [["fine"]]
    except ServerError as failure:
        raise AssertionError(str(failure)) from failure


def refused(client):
    began = time.monotonic()
    with pytest.raises(ServerError) as failure:
        client.query("SELECT 1")
    assert time.monotonic() - began < 3.0 * SLOW
    return failure.value


def test_a_shared_socket_instead_of_the_network(start, server, tmp_path, monkeypatch):
    """--server-sockets: while it is there; what is in use stays where it is."""
    server.make_database("near")
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PGSLED_SERVER_SOCKETS", str(tmp_path))
    suite = start(databases=[{"name": "near"}], users=[{"name": "app", "database": "near"}],
                  general={"default_pool_size": 2, "min_pool_size": 0, "idle_timeout": 300})

    def gone():
        found = server.backends("near")
        assert found == [], found

    def through():
        with suite.connect() as client:
            return client.execute("SELECT inet_server_addr()::text").fetchone()[0]
    assert through() == f"{HOST}/32"
    eventually(gone)
    (tmp_path / HOST).symlink_to(server.folder)
    assert through() is None
    assert suite.admin("SHOW SERVERS")[0]["addr"] == HOST
    # A cancel goes the same way.
    with suite.connect() as client:
        timer = threading.Timer(0.5 * SLOW, client.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        timer.join()
    eventually(gone)
    # What is no socket is passed over.
    (tmp_path / HOST).unlink()
    (tmp_path / HOST).mkdir()
    (tmp_path / HOST / f".s.PGSQL.{server.port}").touch()
    assert through() == f"{HOST}/32"
