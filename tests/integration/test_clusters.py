"""Which servers have the name of a database when all of it may have been handed over to others: by
the records on the servers, at start, at RELOAD and at a cutover. The test plays the replicator."""

import os
import signal
import time

import psycopg
import pytest

from support import wire
from support.machine import free_port, wait_until
from support.mover import Mover, MoveError
from support.suite import Suite
from support.writers import Writers
from test_fence import Later

OLD, NEW = "cluster_old", ["cluster_new_0", "cluster_new_1"]


@pytest.fixture
def clusters(server):
    """"prod" on one server database, "prod_new" on two. Each says which: SELECT * FROM here."""
    for name in [OLD] + NEW:
        server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.make_database(name)
        server.run("CREATE TABLE here (name text)",
                   f"INSERT INTO here VALUES ('{'old' if name == OLD else 'new'}')",
                   "CREATE TABLE accounts (id bigint PRIMARY KEY, note text)", database=name)
    return server


def suite(server, old_port=None, new_port=None, **options):
    new = [{"name": "prod_new", "shard": number, "database_name": name, "resharding_only": True,
            "port": new_port} for number, name in enumerate(NEW)]
    databases = [{"name": "prod", "database_name": OLD, "port": old_port}] + new
    for one in databases:
        if one["port"] is None:
            del one["port"]
    tables = [{"database": "prod_new", "name": "accounts", "column": "id", "data_type": "bigint"}]
    return Suite(server, databases=databases, sharded_tables=tables,
                 users=[{"name": "postgres", "all_databases": True, "schema_admin": True}],
                 # One of its own would take the test's job for abandoned.
                 arguments=["--replicators", "0"], **options)


def here(running, database="prod", seconds=15):
    def answer():
        try:
            with running.connect(database) as connection:
                return connection.execute("SELECT name FROM here").fetchall()[0]
        except psycopg.Error:
            return None
    wait_until(lambda: answer() is not None, seconds)
    return answer()[0]


def records(server):
    return {name: server.run("SELECT name, other, epoch, shard FROM pgsled.served_as",
                             database=name) for name in [OLD] + NEW}


def begun(mover):
    try:
        return mover.ask("begin", "prod", to="prod_new")["epoch"] >= 1
    except (MoveError, TimeoutError):
        return False


def reloaded(running):
    try:
        running.reload()
        return True
    except psycopg.errors.CannotConnectNow:   # workers find the new router within 1.5 s
        return False


def listens(running):
    try:
        return running.admin("SHOW VERSION")
    except psycopg.Error:
        return False


def fence_stands(server, running):
    """For clients, not only on the servers."""
    with running.connect("prod") as client:
        return Later(client, "SELECT 1").waits(0.2)


def hand_over(server, fence, database=OLD):
    return server.run(f"SELECT pgsled.hand_over('j', '{fence}')", database=database)[0][0]


def handed_over(server):
    """What is left when everybody dies right behind the hand-over."""
    with suite(server) as running, Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        fence = mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)["fence"]
        assert hand_over(server, fence) == 2
        running.stop(signal.SIGKILL)
    assert records(server)[OLD] == [("prod_new", "prod", 2, 0)]
    assert records(server)[NEW[0]] == [("prod_new", "prod", 1, 0)]


@pytest.mark.parametrize("dispatch", ["cached", "always"])
def test_a_cutover_and_the_way_back(clusters, dispatch):
    server = clusters
    with suite(server, frontends=2, pgsled={"dispatch": dispatch}) as running, \
            Mover(running) as mover:
        assert here(running) == "old"
        wait_until(lambda: begun(mover), 10)
        where = mover.ask("where", "prod", to="prod_new")
        assert [one["database"] for one in where["from"]["shards"]] == [OLD]
        assert [one["database"] for one in where["to"]["shards"]] == NEW
        assert where["from"]["buckets"] == [0] and where["to"]["buckets"] == [0, 1]
        assert where["to"]["tables"][0]["name"] == "accounts"
        assert (where["moving"], where["epoch"]) == ("j", 1)
        with running.connect("prod") as open_one, running.connect("prod") as late, \
                running.connect("prod") as bound, running.raw("prod") as streaming:
            bound.execute("CREATE TEMP TABLE mine (a int)")
            open_one.execute("BEGIN")
            open_one.execute("INSERT INTO accounts VALUES (1, 'before')")
            asked = mover.start("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)
            wait_until(lambda: fence_stands(server, running), 10)
            held = Later(late, "INSERT INTO accounts VALUES (2, 'after')")
            assert held.waits() and not mover.answered(asked)
            # Nor does anything else begin, in whatever way it comes.
            streaming.send(wire.query("COPY accounts TO STDOUT"))
            assert streaming.receive_quiet(0.3) in ([], b"", None)
            open_one.execute("INSERT INTO accounts VALUES (3, 'before')")
            open_one.execute("COMMIT")
            fence = mover.finish(asked)["fence"]
            assert held.waits()
            own = Later(bound, "SELECT 1")
            assert own.waits()
            assert hand_over(server, fence) == 2
            assert held.waits()
            assert mover.ask("flipped", "prod", to="prod_new")["epoch"] == 2
            assert held.done() is None
            assert any(kind == b"C" or kind == "C" for kind, _ in streaming.receive_until_ready())
            # Its temporary table is where it is no more.
            assert "handed over to other servers" in str(own.done())
        assert here(running) == "new"
        assert server.run("SELECT id FROM accounts ORDER BY id", database=OLD) == [(1,), (3,)]
        assert [server.run("SELECT count(*) FROM accounts WHERE id = 2", database=name)[0][0]
                for name in NEW].count(1) == 1
        wait_until(lambda: records(server) == {OLD: [("prod_new", "prod", 2, 0)],
                                               NEW[0]: [("prod", "prod_new", 2, 0)],
                                               NEW[1]: [("prod", "prod_new", 2, 1)]}, 10)
        for name in NEW:
            assert server.run("SELECT database FROM pgsled.shard_map", database=name) == [("prod",)]
        where = mover.ask("where", "prod", to="prod_new")
        assert [one["database"] for one in where["from"]["shards"]] == NEW

        # And back: the same from the other side.
        fence = mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)["fence"]
        assert hand_over(server, fence, NEW[0]) == 3
        assert mover.ask("lift", "prod", to="prod_new")["epoch"] == 3
        assert here(running) == "old"
        mover.ask("end", "prod", to="prod_new")
        assert server.run("SELECT job FROM pgsled.served_as", database=OLD) == [(None,)]
        assert server.run("SELECT job FROM pgsled.shard_map", database=NEW[0]) == [(None,)]
        with pytest.raises(MoveError) as no:
            mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=1000)
        assert no.value.sqlstate == "55006"


class Inserting(Writers):
    """Clients that write one row after the other, by single statements and in transactions."""

    def __init__(self, running, count=6):
        super().__init__(count)
        self.running, self.written = running, [set() for _ in range(count)]

    def _run(self, number, _count):
        try:
            with self.running.connect("prod") as client:
                for turn in range(100_000):
                    if self.ended:
                        return
                    key = number * 1_000_000 + turn
                    insert = "INSERT INTO accounts VALUES (%s, 'x')"
                    if number % 3 == 0:
                        with client.transaction():
                            client.execute(insert, (key,))
                    elif number % 3 == 1:
                        client.execute(insert, (key,), prepare=True)
                    else:
                        client.execute(f"INSERT INTO accounts VALUES ({key}, 'x')")
                    self.written[number].add(key)
        except psycopg.Error as error:
            self.errors.append(error)


@pytest.mark.parametrize("sharded", [False, True])
def test_no_write_goes_to_servers_that_have_given_the_name_away(clusters, sharded):
    server = clusters
    running = suite(server, frontends=2)
    if sharded:   # one server whose map has one bucket
        running.sharded_tables.append({"database": "prod", "name": "accounts", "column": "id",
                                       "data_type": "bigint"})

    def there(name):
        return {key for key, in server.run("SELECT id FROM accounts", database=name)}
    with running, Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        writers = Inserting(running).start()
        sides = [[OLD], NEW]
        for turn in range(4):
            wait_until(lambda: all(writers.written), 20)
            time.sleep(0.5)
            fence = mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)["fence"]
            now, then = sides[turn % 2], sides[1 - turn % 2]
            before = {name: there(name) for name in now}
            assert hand_over(server, fence, now[0]) == turn + 2
            mover.ask("flipped", "prod", to="prod_new")
            had = sum(len(there(name)) for name in then)
            wait_until(lambda: sum(len(there(name)) for name in then) > had + 50, 20)
            assert {name: there(name) for name in now} == before
        writers.stop()
        assert not writers.errors
        stored = [there(name) for name in [OLD] + NEW]
        assert set().union(*stored) == set().union(*writers.written)
        assert sum(map(len, stored)) == sum(map(len, writers.written))   # none twice
        mover.ask("end", "prod", to="prod_new")


@pytest.mark.parametrize("first", ["hand over", "kill"])
def test_a_router_that_dies_under_the_fence(clusters, first):
    server = clusters
    with suite(server, frontends=2, general={"checkout_timeout": 15_000}) as running, \
            Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        writers = Inserting(running).start()
        wait_until(lambda: all(writers.written), 20)
        fence = mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)["fence"]
        before = server.run("SELECT count(*) FROM accounts", database=OLD)
        router = running.pid("router")
        if first == "kill":
            running.kill("router")
        try:
            handed = hand_over(server, fence) == 2
        except psycopg.Error as late:   # the next router was faster, and has lifted it
            assert late.sqlstate == "55006" and first == "kill"
            handed = False
        if first == "hand over":
            running.kill("router")
        running.wait_restarted("router", router)
        written = [len(those) for those in writers.written]
        wait_until(lambda: all(len(those) > had + 5
                               for those, had in zip(writers.written, written)), 20)
        writers.stop()
        assert not writers.errors
        assert here(running) == ("new" if handed else "old")
        if handed:
            assert server.run("SELECT count(*) FROM accounts", database=OLD) == before
        stored = [key for name in [OLD] + NEW
                  for key, in server.run("SELECT id FROM accounts", database=name)]
        assert sorted(stored) == sorted(set().union(*writers.written))
        # The new router knows of the move without being told, and the job can go on.
        wait_until(lambda: begun(mover), 15)
        mover.ask("end", "prod", to="prod_new")


def test_without_the_router_nothing_runs_while_a_move_is_registered(clusters):
    server = clusters
    with suite(server) as running, Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        with running.connect("prod") as client, running.connect("prod") as other:
            other.execute("BEGIN")
            other.execute("SELECT 1")
            router = running.kill("router", signal.SIGSTOP)
            time.sleep(4)
            try:
                held = [Later(client, "SELECT 1"), Later(other, "SELECT 1")]
                assert all(one.waits() for one in held)
            finally:
                os.kill(router, signal.SIGCONT)
            assert [one.done() for one in held] == [None, None]
            other.execute("COMMIT")
        wait_until(lambda: begun(mover), 10)
        mover.ask("end", "prod", to="prod_new")


def test_a_fence_that_is_lifted_leaves_everything_where_it_was(clusters):
    server = clusters
    with suite(server) as running, Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        with running.connect("prod") as client:
            fence = mover.ask("fence", "prod", to="prod_new", whole=True, wait_ms=10_000)["fence"]
            held = Later(client, "INSERT INTO accounts VALUES (1, 'x')")
            assert held.waits()
            mover.ask("lift", "prod", to="prod_new")
            assert held.done() is None
        with pytest.raises(psycopg.Error) as late:
            hand_over(server, fence)
        assert late.value.sqlstate == "55006"
        assert server.run("SELECT id FROM accounts", database=OLD) == [(1,)]
        mover.ask("end", "prod", to="prod_new")


def test_a_router_that_comes_after_the_hand_over_completes_it(clusters):
    server = clusters
    handed_over(server)
    with suite(server) as running:
        assert here(running) == "new"
        wait_until(lambda: records(server)[NEW[1]] == [("prod", "prod_new", 2, 1)], 10)
        # Under the new name nothing is made afresh: the map that was there goes on.
        for name in NEW:
            assert server.run("SELECT database FROM pgsled.shard_map", database=name) == [("prod",)]
        # The router alone, while its clients stay.
        running.wait_restarted("router", running.kill("router"))
        assert here(running) == "new"
        # The operator swaps the hosts whenever he likes; everything is where it was.
        for one in running.databases:
            one["name"] = "prod_new" if one["name"] == "prod" else "prod"
            one["resharding_only"] = one["name"] == "prod_new"
        running.databases.sort(key=lambda one: one["name"])
        running.sharded_tables[0]["database"] = "prod"
        wait_until(lambda: reloaded(running), 10)
        assert here(running) == "new"
        running.restart()
        assert here(running) == "new"


def test_a_file_that_contradicts_the_servers_is_refused(clusters):
    server = clusters
    handed_over(server)
    with suite(server) as running:
        assert here(running) == "new"
        both = running.databases
        running.databases = both[:1]
        running.sharded_tables = []
        with pytest.raises(psycopg.Error) as no:
            running.reload()
        assert "prod_new" in str(no.value)
        assert here(running) == "new"


@pytest.mark.parametrize("away", ["new", "old"])
def test_what_is_not_reached_is_not_guessed(clusters, away):
    server = clusters
    handed_over(server)
    ports = {"new_port" if away == "new" else "old_port": free_port()}
    running = suite(server, general={"checkout_timeout": 1500}, **ports)
    try:
        running.start(wait=False)
        wait_until(lambda: listens(running), 15)

        def refused():
            try:
                with running.connect("prod", connect_timeout=5) as connection:
                    connection.execute("SELECT name FROM here")
            except psycopg.Error as error:
                # Without any server a log-in has nobody to ask for parameters.
                return error.sqlstate or "57P03"
            return "served"
        # Neither side that is reached has the name for certain: the old servers gave it away, the
        # new ones have not heard of it.
        wait_until(lambda: refused() in ("57P03", "served"), 15)
        for _ in range(3):
            assert refused() == "57P03"
        for one in running.databases:
            one.pop("port", None)
        running.reload()
        assert here(running) == "new"
    finally:
        running.stop()


def test_who_has_the_name_is_believed_alone(clusters):
    server = clusters
    with suite(server) as running, Mover(running) as mover:
        wait_until(lambda: begun(mover), 10)
        mover.ask("end", "prod", to="prod_new")
    with suite(server, new_port=free_port()) as running:
        assert here(running) == "old"


def test_nobody_may_log_in_to_what_is_to_be_moved_to(clusters):
    with suite(clusters) as running:
        with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
            running.connect("prod_new")


def test_what_cannot_take_over_is_said(clusters):
    server = clusters
    with suite(server) as running, Mover(running) as mover:
        def refused(database, to):
            with pytest.raises(MoveError) as no:
                mover.ask("where", database, to=to)
            return no.value.sqlstate
        # Another name for the same server would write past the fence.
        running.databases.append({"name": "alias", "database_name": OLD})
        running.reload()
        assert refused("prod", "prod_new") == "55000"
        running.databases.pop()
        running.reload()
        wait_until(lambda: begun(mover), 10)
        assert refused("prod", "nowhere") == "3D000"
        assert refused("prod", "prod") == "55000"
        assert refused("prod_new", "prod") == "55000"
        with pytest.raises(MoveError) as no:
            mover.ask("begin", "prod_new", job="k")
        assert no.value.sqlstate == "55006"
