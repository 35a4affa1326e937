"""Processes that die, stop or come back while clients work. After each: no server connection left
checked out, no reply to the wrong client, the others go on within a second, and the suite is whole
again."""

import os
import resource
import select
import signal
import socket
import time

import pytest

from support import wire
from support.machine import HOST, SLOW, alive, freeze, wait_until
from support.probes import Pgbench, Probes, run_pgbench
from support.raw_client import Closed, ServerError
from support.suite import Suite

pytestmark = [pytest.mark.release_only, pytest.mark.seconds(60)]
# "Within a second", and what a loaded machine of two cores adds.
PAUSE = 1.0 + 0.5


@pytest.fixture(scope="module")
def bench_tables(server):
    run_pgbench(server.port, "-i", "-s", 1, "-q")


# A database of their own, so that its connections can be counted.
LOADED = [{"name": "loaded"}]


@pytest.fixture(scope="module")
def loaded_database(server):
    server.make_database("loaded")
    run_pgbench(server.port, "-i", "-s", 1, "-q", database="loaded")


@pytest.fixture(params=["cached", "always"])
def loaded(server, loaded_database, request):
    """Two frontends under pgbench and probes."""
    with Suite(server, databases=LOADED, pgsled={"dispatch": request.param},
               frontends=2) as suite:
        suite.dispatch = request.param
        yield suite


def pgbench(suite, clients, seconds=20):
    return Pgbench(suite.port, "-S", "-c", clients, "-j", 2, database="loaded", seconds=seconds)


def settle(suite, probes, bench=None):
    """All answered again, nothing mixed up, nothing leaked."""
    probes.wait_all_answered()
    probes.stop()
    if bench is not None:
        bench.stop()
    assert probes.wrong() == []
    suite.check_no_leaks()


def gaps(probes, since):
    return {probe.number: round(probes.longest_gap(probe, since), 2) for probe in probes.probes}


@pytest.mark.smoke
def test_kill_frontend(loaded):
    with pgbench(loaded, 8) as bench, Probes(loaded, 12) as probes:
        time.sleep(0.5)
        died = loaded.kill("frontend")
        since = time.monotonic()
        time.sleep(2.5)
        # The clients of the other one notice nothing.
        spared = probes.unbroken()
        assert spared, "no client was at the other frontend"
        for probe in spared:
            assert probes.longest_gap(probe, since) < PAUSE, gaps(probes, since)
        loaded.wait_restarted("frontend", died)
        settle(loaded, probes, bench)
        assert len(probes.unbroken()) == len(spared)
    assert len(loaded.named("frontend")) == 2


def test_kill_router(loaded):
    with pgbench(loaded, 8) as bench, Probes(loaded) as probes:
        time.sleep(0.5)
        died = loaded.kill("router")
        since = time.monotonic()
        time.sleep(2)
        assert probes.errors() == []
        # Without plans every statement needs the router: it waits until it is back.
        bound = PAUSE if loaded.dispatch == "cached" else 3
        assert max(gaps(probes, since).values()) < bound, gaps(probes, since)
        loaded.wait_restarted("router", died)
        settle(loaded, probes, bench)


@pytest.mark.smoke
def test_kill_pooler(loaded):
    with pgbench(loaded, 8) as bench, Probes(loaded) as probes:
        time.sleep(0.5)
        died = loaded.kill("pooler")
        since = time.monotonic()
        time.sleep(2.5)
        assert probes.errors() == []
        assert max(gaps(probes, since).values()) < PAUSE, gaps(probes, since)
        loaded.wait_restarted("pooler", died)
        settle(loaded, probes, bench)


def test_kill_pooler_in_transaction(loaded, server):
    """A transaction on a passed socket outlives the pooler; its connection counts against the
    budget of the next."""
    clients = [loaded.raw() for _ in range(6)]
    for number, client in enumerate(clients):
        client.query("BEGIN")
        client.query(f"SELECT {number}")
    died = loaded.kill("pooler")
    loaded.wait_restarted("pooler", died)
    with Probes(loaded, 4):
        time.sleep(1)
        assert len(server.backends("loaded")) <= 10
        for number, client in enumerate(clients):
            assert client.query(f"SELECT {number}") == [[str(number)]]
            client.query("COMMIT")
            assert client.query("SELECT 'on'") == [["on"]]
    loaded.check_no_leaks()


def test_kill_replicator(loaded):
    with Probes(loaded) as probes:
        died = loaded.kill("replicator")
        since = time.monotonic()
        loaded.wait_restarted("replicator", died)
        time.sleep(0.5)
        assert probes.errors() == []
        assert max(gaps(probes, since).values()) < PAUSE
        settle(loaded, probes)


@pytest.mark.seconds(120)
def test_kill_everything_in_turn(loaded):
    """One after the other, again and again; only frontends may cost clients their connection."""
    with pgbench(loaded, 4, 40) as bench, Probes(loaded) as probes:
        for service in ("pooler", "router", "pooler", "replicator", "router"):
            died = loaded.kill(service)
            loaded.wait_restarted(service, died, 10)
            probes.wait_all_answered()
            time.sleep(0.3)
        assert probes.errors() == []
        settle(loaded, probes, bench)


def test_stopped_frontend_gives_way(loaded, server):
    """One that holds leases and does not react: recalled, then taken, so that the others can use
    the whole pool."""
    stuck = loaded.pid("frontend", 0)
    mine = [loaded.raw() for _ in range(48)]
    for client in mine:
        client.query("SELECT 1")
    freeze(stuck)
    try:
        alive = []
        for client in mine:
            client.send(wire.query("SELECT 1"))
        time.sleep(1.5)  # a recall that is not answered is given up after 0.75 s
        for client in mine:
            client.socket.settimeout(0.05)
            try:
                client.receive_until_ready()
                client.socket.settimeout(10)
                alive.append(client)
            except TimeoutError:
                pass
        assert len(alive) >= 10, "too few clients at the other frontend"
        begin = time.monotonic()
        for client in alive[:10]:
            client.query("BEGIN")
        assert time.monotonic() - begin < 5 * SLOW
        assert len(server.backends("loaded")) <= 10
        for client in alive[:10]:
            client.query("COMMIT")
    finally:
        os.kill(stuck, signal.SIGCONT)
    for client in mine:
        client.reset()
    loaded.check_no_leaks(seconds=10)
    assert loaded.raw().query("SELECT 1") == [["1"]]


def test_frontend_wakes_without_its_leases(server):
    """Where bytes go through the pooler, only the pooler's word says that they are gone: a client
    in a transaction gets an error and does not wait for ever."""
    with Suite(server, pgsled={"lane": "relay"}, frontends=2,
               general={"default_pool_size": 2, "workers": 1}) as suite:
        clients = [suite.raw() for _ in range(24)]
        holders = {client.pid >> 20: client for client in clients}
        assert len(holders) == 2, "all clients at one frontend"
        for client in holders.values():
            client.query("BEGIN")
        stuck = suite.kill("frontend", signal.SIGSTOP)
        try:
            for client in holders.values():
                client.send(wire.query("SELECT 1"))
            sockets = {client.socket: client for client in holders.values()}
            awake = sockets[select.select(sockets, [], [], 10)[0][0]]
            awake.receive_until_ready()
            neighbour = next(client for client in clients
                             if client is not awake and client.pid >> 20 == awake.pid >> 20)
            neighbour.query("BEGIN")   # gets what the other frontend had
        finally:
            os.kill(stuck, signal.SIGCONT)
        held = next(client for client in holders.values() if client is not awake)
        assert held.expect_closed()["C"] == "08006"
        for client in clients:
            client.reset()
        assert suite.raw().query("SELECT 1") == [["1"]]
        suite.check_no_leaks(size=2)


@pytest.mark.release_only   # sanitizers need descriptors themselves
def test_frontend_without_descriptors(server):
    """Who cannot be accepted waits in the kernel's queue; the frontend says so, and does not
    turn in circles."""
    with Suite(server, general={"workers": 1}) as suite:
        frontend = suite.pid("frontend")
        served, wanting = suite.raw(), suite.raw()
        served.query("BEGIN")
        before = resource.prlimit(frontend, resource.RLIMIT_NOFILE)
        none = (max(int(fd) for fd in os.listdir(f"/proc/{frontend}/fd")) + 1, before[1])
        resource.prlimit(frontend, resource.RLIMIT_NOFILE, none)
        try:
            waiting = [suite.raw(login=False) for _ in range(20)]
            wait_until(lambda: "out of file descriptors" in suite.log_text(), 5)
            wanting.send(wire.query("SELECT 2"))   # a connection that cannot be handed over
            time.sleep(1.5)
            assert served.query("SELECT 1") == [["1"]]
            assert suite.log_text().count("out of file descriptors") <= 4
        finally:
            resource.prlimit(frontend, resource.RLIMIT_NOFILE, before)
        assert wanting.rows(wanting.receive_until_ready()) == [["2"]]
        for client in waiting:
            client.login("postgres", "postgres", "postgres")
            client.close()
        assert served.query("COMMIT") == []
        served.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
@pytest.mark.smoke
def test_postgresql_restarts(loaded, server, how):
    with Probes(loaded) as probes:
        time.sleep(0.3)
        server.restart(how)
        since = time.monotonic()
        probes.wait_all_answered()
        assert time.monotonic() - since < 3 * SLOW
        settle(loaded, probes)
        codes = {failure.code for failure in probes.errors() if isinstance(failure, ServerError)}
        assert codes <= {"57P01", "57P02", "57P03", "08000", "08001", "08003", "08004",
                         "08006"}, codes


def test_postgresql_away_for_long(loaded, server):
    """Each waiting client gets the error with the host by its deadline, not a hang."""
    server.stop()
    try:
        begin = time.monotonic()
        with pytest.raises((ServerError, Closed)) as failure:
            client = loaded.raw(timeout=12)
            client.query("SELECT 1")
            client.query("SELECT 1")
        assert time.monotonic() - begin < 7 * SLOW
        if isinstance(failure.value, ServerError):
            assert "127.0.0.1" in str(failure.value.fields) or failure.value.code == "57P01"
    finally:
        server.start()
    with Probes(loaded, 4) as probes:
        settle(loaded, probes)


def gone_mid_batch(client):
    client.send(wire.parse("", "SELECT pg_sleep(0.2)"), wire.bind(), wire.execute(), wire.FLUSH)


def gone_mid_result(client):
    client.send(wire.query("SELECT repeat('x', 100000) FROM generate_series(1, 500)"))
    client.receive()
    client.receive()


def gone_mid_copy_in(client):
    client.query("CREATE TABLE IF NOT EXISTS gone_copy (a text)")
    client.send(wire.query("COPY gone_copy FROM STDIN"), wire.copy_data(b"row\n" * 1000))


def gone_mid_copy_out(client):
    client.send(wire.query("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 500))"
                           " TO STDOUT"))
    client.receive()
    client.receive()


def gone_mid_query(client):
    client.send(wire.query("SELECT pg_sleep(30)"))


def gone_mid_transaction(client):
    client.query("BEGIN; LOCK TABLE pgbench_branches")


def gone_mid_message(client):
    client.send(wire.query("SELECT '" + "x" * 1000 + "'")[:500])


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("what", [gone_mid_batch, gone_mid_result, gone_mid_copy_in,
                                  gone_mid_copy_out, gone_mid_query, gone_mid_transaction,
                                  gone_mid_message], ids=lambda f: f.__name__[9:])
def test_client_goes(suite, server, bench_tables, what, how):
    with Probes(suite, 4) as probes:
        for _ in range(8):
            client = suite.raw()
            what(client)
            time.sleep(0.02)
            if how == "reset":
                client.reset()
            else:
                client.socket.close()
        settle(suite, probes)
        assert probes.errors() == []
    # What it asked for does not run on.
    running = [row for row in server.backends("postgres") if "pg_sleep(30)" in row[2]
               and row[1] == "active"]
    assert running == []


def test_supervisor_killed_takes_its_children(server):
    with Suite(server) as suite:
        pids = list(suite.processes().values())
        suite.process.kill()
        suite.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), 3, because="children left")
        suite.process = None
        suite.start()
        assert suite.raw().query("SELECT 1") == [["1"]]


def test_drain(server):
    """SIGTERM: what runs ends, then all are told and the suite is gone within ten seconds."""
    with Suite(server) as suite:
        working, idle = suite.raw(), suite.raw()
        working.query("BEGIN")
        working.send(wire.query("SELECT pg_sleep(1), 'done'"))
        time.sleep(0.2)
        begin = time.monotonic()
        suite.process.terminate()
        assert working.rows(working.receive_until_ready()) == [["", "done"]]
        fields = idle.expect_closed(11)
        assert fields is None or fields["C"] == "57P01"
        suite.process.wait(12 * SLOW)
        assert time.monotonic() - begin < 11 * SLOW
        assert suite.process.returncode == 0


@pytest.mark.seconds(90)
def test_poolers_share_a_budget(server, loaded_database):
    """Several of one database never open more than the pool has; one joining or leaving under load
    costs no client an error."""
    with Suite(server, databases=LOADED, poolers=2, general={"default_pool_size": 7}) as suite:
        most = 0
        with pgbench(suite, 20, 30) as bench, Probes(suite) as probes:
            end, killed = time.monotonic() + 8, 0
            while time.monotonic() < end:
                most = max(most, len(server.backends("loaded")))
                if killed < 2 and time.monotonic() > end - 6 + killed * 3:
                    # One leaves in order; the supervisor starts it again, which is one joining.
                    suite.kill("pooler", signal.SIGTERM, at=killed % 2)
                    killed += 1
                time.sleep(0.02)
            assert most <= 7
            assert probes.errors() == []
            settle(suite, probes, bench)


def room_of_a_socket():
    """Bytes that the kernel takes for a client that reads nothing."""
    with socket.create_server((HOST, 0)) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        with listening.accept()[0] as other:
            other.setblocking(False)
            taken = 0
            while True:
                try:
                    taken += other.send(b"x" * 8192)
                except BlockingIOError:
                    return taken


def test_drain_lets_slow_readers_have_the_rest(server):
    """The result is complete, its server with others: what the client has still to read comes."""
    with Suite(server) as suite:
        clients = []
        whole = room_of_a_socket() // 1035   # bytes of a DataRow
        for kilobytes in range(whole - 60, whole + 60, 12):
            client = suite.raw(receive_buffer=4096)
            client.send(wire.query("SELECT repeat('x', 1024) FROM generate_series(1, "
                                   f"{kilobytes})"))
            clients.append((client, kilobytes))
        time.sleep(1)
        suite.process.terminate()
        time.sleep(0.5)
        for client, kilobytes in clients:
            rows, kind = 0, None
            while kind != "C":
                kind, _ = client.receive()
                rows += kind == "D"
            assert rows == kilobytes
        suite.process.wait(12 * SLOW)
