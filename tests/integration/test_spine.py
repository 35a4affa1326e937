"""Several poolers and frontends of one suite: their share of the budget, their coming and going.
The processes are started one by one and speak over tcp with keys, as on several machines."""

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time

import pytest

from support import wire
from support.apart import Apart
from support.machine import binaries, wait_until
from support.probes import Probes
from support.raw_client import ServerError
from support.suite import eventually

BUDGET = 6


class Watched(contextlib.AbstractContextManager):
    """Counts the server connections of a database all the time."""

    def __init__(self, server, database):
        self.server, self.database = server, database
        self.most, self.samples, self.stopping = 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        with self.server.connect() as connection:
            while not self.stopping.is_set():
                found = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
                    " AND backend_type = 'client backend'", [self.database]).fetchone()[0]
                self.most = max(self.most, found)
                self.samples += 1
                time.sleep(0.002)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(10)


@pytest.fixture(scope="module")
def limited(server):
    """A database that PostgreSQL itself lets no more connections into than the budget. (Superusers
    would be let in all the same.)"""
    server.make_database("limited")
    server.run(f"ALTER DATABASE limited CONNECTION LIMIT {BUDGET}")


def poolers_in_use(suite):
    return {row["pooler"] for row in suite.admin("SHOW SERVERS")}


@pytest.mark.seconds(120)
@pytest.mark.parametrize("lane", ["auto", "relay"])
def test_processes_come_and_go_over_tcp(server, limited, lane):
    apart = Apart(server, databases=[{"name": "limited"}],
                  users=[{"name": "app", "database": "limited"}], pgsled={"lane": lane},
                  general={"default_pool_size": BUDGET, "shutdown_timeout": 5000})
    with apart:
        for name in ("pooler-1", "pooler-2", "frontend-1", "frontend-2"):
            apart.add(name)
        with Watched(server, "limited") as watched, Probes(apart, 12) as probes:
            eventually(lambda: check(poolers_in_use(apart) == {"pooler-1", "pooler-2"}), 5)
            apart.add("pooler-3")
            eventually(lambda: check(len(poolers_in_use(apart)) == 3), 10)
            probes.wait_all_answered()
            assert apart.end("pooler-1") == 0
            eventually(lambda: check(budget(apart) == BUDGET), 1)  # without waiting for silence
            eventually(lambda: check(poolers_in_use(apart) == {"pooler-2", "pooler-3"}), 10)
            probes.wait_all_answered()
            apart.add("frontend-3")
            with Probes(apart, 12) as newcomers:
                assert probes.errors() + newcomers.errors() == []
                homes = apart.homes()
                assert {"frontend-1", "frontend-2", "frontend-3"} <= set(homes.values()), homes
                assert apart.end("frontend-1") == 0
                probes.wait_all_answered()
                newcomers.wait_all_answered()
                drained = {number for number, name in homes.items() if name == "frontend-1"}
                every = probes.probes + newcomers.probes
                assert not {p.home for p in every} & drained, "they are connected anew"
                assert not [p.errors for p in every if set(p.error_homes) - drained]
                assert probes.wrong() + newcomers.wrong() == []
                # All of the budget is used by those who are left.
                eventually(lambda: full(apart), 10)
            # A busy machine lets it look less often.
            wait_until(lambda: watched.samples > 100, 10)
        assert watched.most <= BUDGET, watched.most


def check(holds):
    assert holds


def budget(suite):
    """What the poolers have been told, together."""
    return sum(int(row["budget"]) for row in suite.admin("SHOW POOLS")
               if row["database"] == "limited")


def full(suite):
    assert budget(suite) == BUDGET
    clients = []
    try:
        for _ in range(BUDGET):
            clients.append(suite.raw(timeout=5))
            clients[-1].query("BEGIN")
        assert len({client.query("SELECT pg_backend_pid()")[0][0] for client in clients}) == BUDGET
        for client in clients:
            client.query("COMMIT")
    except ServerError as failure:
        raise AssertionError(str(failure)) from failure
    finally:
        for client in clients:
            client.close()


@pytest.fixture
def apart(server, limited):
    with Apart(server, databases=[{"name": "limited"}],
               users=[{"name": "app", "database": "limited"}],
               general={"default_pool_size": BUDGET, "checkout_timeout": 15000,
                        "shutdown_timeout": 8000}) as suite:
        yield suite


@pytest.mark.release_only
@pytest.mark.seconds(60)
def test_long_transactions_keep_their_connections(apart, server):
    """A pooler that joins or leaves gets or frees only what is not in a transaction any more."""
    apart.add("pooler-1")
    apart.add("frontend-1")
    with Watched(server, "limited") as watched:
        clients = [apart.raw(timeout=30) for _ in range(BUDGET + 1)]
        for client in clients[:-1]:
            client.query("BEGIN")
        late = clients[-1]
        late.send(wire.query("SELECT 1"))
        apart.add("pooler-2")
        time.sleep(3)
        assert late.receive_quiet(0.1) == [], "there is no connection for it"
        clients[0].query("COMMIT")
        assert late.rows(late.receive_until_ready()) == [["1"]]
        for client in clients[1:-1]:
            client.query("COMMIT")
        eventually(lambda: full(apart), 10)
        eventually(lambda: check(poolers_in_use(apart) == {"pooler-1", "pooler-2"}))
        # Now one leaves while all are in use.
        for client in clients[:-1]:
            client.query("BEGIN")
        apart.members["pooler-1"].terminate()  # a second signal would end it at once
        late.send(wire.query("SELECT 2"))
        time.sleep(3)
        assert late.receive_quiet(0.1) == []
        for client in clients[:-1]:
            client.query("COMMIT")
        assert late.rows(late.receive_until_ready()) == [["2"]]
        assert apart.members.pop("pooler-1").wait(10) == 0
        for client in clients:
            client.close()
        eventually(lambda: full(apart), 10)
        eventually(lambda: check(poolers_in_use(apart) == {"pooler-2"}))
    assert watched.most <= BUDGET, watched.most


@pytest.mark.release_only
@pytest.mark.seconds(60)
def test_a_restarted_router_adopts_the_shares(apart, server):
    """Also of a pooler that says hello last: nobody gets what it still has."""
    for name in ("pooler-1", "pooler-2", "pooler-3", "frontend-1"):
        apart.add(name)
    with Watched(server, "limited") as watched, Probes(apart, 16, pause=0) as probes:
        eventually(lambda: check(len(poolers_in_use(apart)) == 3), 10)
        late = apart.members["pooler-3"]
        apart.members.pop("router").kill()
        late.send_signal(signal.SIGSTOP)
        try:
            apart.start()
            time.sleep(2.3)
        finally:
            late.send_signal(signal.SIGCONT)
        eventually(lambda: check(len(poolers_in_use(apart)) == 3), 10)
        probes.wait_all_answered()
        time.sleep(3)
        assert probes.errors() == [] and probes.wrong() == []
        probes.stop()
        eventually(lambda: full(apart), 10)
    assert watched.most <= BUDGET, watched.most


def test_keys_are_not_overwritten(tmp_path):
    def make():
        return subprocess.run([str(binaries() / "pgsled"), "keys", str(tmp_path / "client")],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=10, check=False)
    assert make().returncode == 0
    secret = tmp_path / "client.secret"
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    before = secret.read_text()
    again = make()
    assert again.returncode == 2 and "client.secret" in again.stdout
    assert secret.read_text() == before


def test_a_process_without_a_known_key_stays_outside(apart, server):
    apart.add("pooler-1")
    strangers = apart.folder / "strangers"
    strangers.mkdir(mode=0o700)
    apart.cli("keys", strangers / "client")
    (strangers / "server.public").write_text((apart.of_others / "server.public").read_text())
    apart.of_others = strangers
    with pytest.raises(TimeoutError):
        apart.add("frontend-1", seconds=2)
