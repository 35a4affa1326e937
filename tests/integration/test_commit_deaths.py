"""A commit over two shards while a process dies with SIGKILL, once for each step and each process:
all or nothing, and what a client was told stays true."""

import contextlib
import os
import random
import signal
import threading
import time

import psycopg
import pytest

from support import wire
from support.machine import SLOW, freeze
from support.postgres import Postgres
from support.raw_client import Closed, ServerError
from support.suite import Suite, eventually

NAMES = ["dying_0", "dying_1"]
LOCK = 4711
# Before it commits or prepares, a transaction asks for a lock that the test may hold.
SCHEMA = f"""
CREATE TABLE t (id bigint PRIMARY KEY, run int);
CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER ask AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION ask();
"""
RESOLVED = 20  # ten seconds from when all can be reached, and what a restart takes on a slow machine


@contextlib.contextmanager
def running_cluster():
    with Postgres() as first, Postgres() as second:
        servers = [first, second]
        for one, name in zip(servers, NAMES):
            one.make_database(name)
            one.run(SCHEMA, database=name)
        with Suite(first, databases=[{"name": "app", "shard": number, "database_name": name,
                                      "port": servers[number].port}
                                     for number, name in enumerate(NAMES)],
                   users=[{"name": "postgres", "database": "app"}],
                   sharded_tables=[{"database": "app", "name": "t", "column": "id",
                                    "data_type": "bigint"}]) as suite:
            yield suite, servers, keys(suite, servers)


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as made:
        yield made


def keys(suite, servers):
    """Keys of each shard."""
    found = [[], []]
    with suite.raw(database="app") as client:
        for key in range(1, 200):
            client.query(f"INSERT INTO t VALUES ({key}, -1)")
    for number, name in enumerate(NAMES):
        found[number] = [row[0] for row in servers[number].run("SELECT id FROM t ORDER BY id",
                                                               database=name)]
        servers[number].run("TRUNCATE t", database=name)
    return found


class Commit:
    """COMMIT of a row on each shard, by a thread; `told` is what the client heard."""

    def __init__(self, suite, where, run):
        self.told = None
        self.client = suite.raw(database="app", timeout=20)
        self.client.query("BEGIN")
        for keys_of in where:
            self.client.query(f"INSERT INTO t VALUES ({keys_of[run]}, {run})")
        self.thread = threading.Thread(target=self._commit)
        self.thread.start()

    def _commit(self):
        try:
            self.client.send(wire.query("COMMIT"))
            answer = self.client.receive_until_ready()
            errors = wire.error_codes(answer)
            self.told = errors[0] if errors else [body.rstrip(b"\0").decode()
                                                  for kind, body in answer if kind == "C"][0]
        except (Closed, OSError, ServerError) as lost:
            self.told = f"lost: {lost}"


def hold(server, name):
    connection = server.connect(name)
    connection.execute(f"SELECT pg_advisory_lock({LOCK})")
    return connection


def wait_for_step(server, name):
    def there():
        assert server.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
                          database=name)
    eventually(there, 4)


def release(connection):
    try:
        connection.close()
    except psycopg.Error:
        pass


runs = iter(range(10_000))


def one_death(cluster, step, victim):
    suite, servers, where = cluster
    run = next(runs)
    at = 1 if step == "preparing" else 0
    held = hold(servers[at], NAMES[at])
    commit = Commit(suite, where, run)
    stopped = None
    try:
        wait_for_step(servers[at], NAMES[at])
        if step == "finishing":
            # The one who has prepared does not answer any more; then the decision is made.
            (stopped,), = servers[1].run(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%PREPARE TRANSACTION%' AND "
                f"datname = '{NAMES[1]}' AND pid <> pg_backend_pid()")
            freeze(stopped)
            release(held)

            def decided():
                assert servers[0].run(f"SELECT 1 FROM t WHERE run = {run}", database=NAMES[0])
            eventually(decided, 4)
        if victim in ("frontend", "pooler", "router"):
            old = suite.kill(victim)
        else:
            dying = servers[int(victim[-1])]
            pids = [row[0] for row in dying.run("SELECT pid FROM pg_stat_activity "
                                                "WHERE backend_type = 'client backend'")]
            dying.process.send_signal(signal.SIGKILL)
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            dying.process.wait(10)
            stopped = None if victim == "server 1" else stopped
            dying.start()
    finally:
        release(held)
        if stopped:
            os.kill(stopped, signal.SIGCONT)
    commit.thread.join(20)
    assert not commit.thread.is_alive(), "no answer to COMMIT"
    commit.client.close()
    if victim in ("frontend", "pooler", "router"):
        suite.wait_restarted(victim, old)

    def settled():
        for one in servers:
            assert one.run("SELECT gid FROM pg_prepared_xacts") == []
    eventually(settled, RESOLVED * SLOW)
    on = [bool(servers[number].run(f"SELECT 1 FROM t WHERE run = {run}", database=name))
          for number, name in enumerate(NAMES)]
    assert on[0] == on[1], (on, commit.told)
    if commit.told == "COMMIT":
        assert on == [True, True]
    elif commit.told in ("ROLLBACK", "40000", "08006"):
        # A definite no. (08006 is said before anything has been decided.)
        assert on == [False, False], commit.told
    elif step == "finishing":
        assert on == [True, True], commit.told
    return commit.told


STEPS = ["preparing", "deciding", "finishing"]
VICTIMS = ["frontend", "pooler", "router", "server 0", "server 1"]


@pytest.mark.seconds(60)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("step", STEPS)
def test_all_or_nothing(cluster, step, victim):
    told = one_death(cluster, step, victim)
    if victim == "router" and step != "finishing":
        assert told == "COMMIT"   # it has no part in it
    # And the suite goes on.
    suite, _, where = cluster

    def goes_on():
        try:
            commit = Commit(suite, where, next(runs))
            commit.thread.join(20)
            commit.client.close()
        except (Closed, OSError, ServerError) as not_yet:
            raise AssertionError(str(not_yet)) from not_yet
        assert commit.told == "COMMIT", commit.told
    eventually(goes_on, 15)


def deaths_under_load(cluster, chance, seconds, clients=8):
    """Clients commit pairs of rows as fast as they can while processes die at any moment. How many
    were told COMMIT."""
    suite, servers, where = cluster
    for server, name in zip(servers, NAMES):
        server.run("TRUNCATE t", database=name)
    pairs = [iter(range(number, 10 ** 9, clients)) for number in range(clients)]
    stop, done, failures = threading.Event(), {}, []

    def work(number):
        client = None
        while not stop.is_set():
            run = next(pairs[number])
            try:
                client = client or suite.raw(database="app", timeout=30)
                client.query("BEGIN")
                for keys_of in where:
                    client.query(f"DELETE FROM t WHERE id = {keys_of[number]}")
                    client.query(f"INSERT INTO t VALUES ({keys_of[number]}, {run})")
                client.send(wire.query("COMMIT"))
                answer = client.receive_until_ready()
                tags = [body for kind, body in answer if kind == "C"]
                if tags == [b"COMMIT\0"]:
                    done[number] = run
            except ServerError:
                if client is None:   # not even let in
                    time.sleep(0.05)
                    continue
                with contextlib.suppress(Closed, OSError, ServerError):
                    client.query("ROLLBACK")
            except (Closed, OSError):
                client = None
                time.sleep(0.05)
            except Exception as failure:  # pylint: disable=broad-except
                failures.append(repr(failure))
                return
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.3, 1.5))
        victim = chance.choice(VICTIMS)
        if victim in ("frontend", "pooler", "router"):
            with contextlib.suppress(ProcessLookupError, IndexError, KeyError):
                suite.kill(victim)
        else:
            dying = servers[int(victim[-1])]
            dying.stop(signal.SIGQUIT)
            dying.start()
    stop.set()
    for thread in threads:
        thread.join(40)
    assert not failures, failures

    def settled():
        for one in servers:
            assert one.run("SELECT gid FROM pg_prepared_xacts") == []
    eventually(settled, RESOLVED * SLOW)
    rows = [dict(server.run("SELECT id, run FROM t", database=name))
            for server, name in zip(servers, NAMES)]
    for number in range(clients):
        on = [rows[shard].get(where[shard][number]) for shard in range(2)]
        assert on[0] == on[1], (number, on)
        # What was told stays; only a later pair, whose answer was lost, may have replaced it.
        if number in done:
            assert on[0] is not None and on[0] >= done[number], (number, on, done[number])
    return len(done)


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_deaths_at_any_moment(cluster):
    seed = int(os.environ.get("PGSLED_SEED", "0")) or random.randrange(1 << 30)
    print(f"PGSLED_SEED={seed}")
    assert deaths_under_load(cluster, random.Random(seed), 10) > 0
