"""Commits over several shards: the table and functions of schema pgsled on a real server."""

import pathlib
import re
import threading
import time

import psycopg
import pytest

from support.postgres import Postgres
from support.suite import Suite, eventually

LIMIT = "-c statement_timeout=8s"  # a mistake must not hang
ID = "0123456789abcdef0123456789abcdef"
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "services/router/commit/decision_schema.cpp"


def schema():
    return re.search(r'R"sql\((.*?)\)sql"', SOURCE.read_text(), re.S).group(1)


@pytest.fixture
def shard(server):
    """A database with the schema, owned by a role that is no superuser, and a client's role."""
    server.make_database("decisions")
    server.run("DROP ROLE IF EXISTS keeper", "DROP ROLE IF EXISTS writer",
               "CREATE ROLE keeper LOGIN PASSWORD 'postgres'",
               "CREATE ROLE writer LOGIN PASSWORD 'postgres'",
               "GRANT pg_signal_backend TO keeper", "GRANT writer TO keeper",
               'GRANT CREATE ON DATABASE decisions TO keeper')
    with server.connect("decisions", "keeper") as connection:
        connection.execute(schema())
        connection.execute(schema())  # again does no harm
    yield server
    for (gid,) in server.run("SELECT gid FROM pg_prepared_xacts WHERE database = 'decisions'"):
        server.run(f"ROLLBACK PREPARED '{gid}'", database="decisions")
    server.run("DROP DATABASE decisions WITH (FORCE)", "DROP ROLE keeper", "DROP ROLE writer")


def opened(connection, within=5000):
    connection.execute("BEGIN")
    mark = connection.execute("SELECT pgsled.open_decision(%s)" % within).fetchone()[0]
    return f"{mark}_{ID}"


def decide(connection, key, participants="{1}"):
    connection.execute(f"SELECT pgsled.decide('{key}', 'app', '{participants}')")


def settle(connection, key):
    return connection.execute(f"SELECT pgsled.settle('{key}', 'app')").fetchone()[0]


def code(call):
    with pytest.raises(psycopg.Error) as caught:
        call()
    return caught.value.sqlstate


def test_a_client_decides_for_itself_and_has_no_other_right(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        key = opened(client)
        decide(client, key)
        client.execute("COMMIT")
        rows = keeper.execute("SELECT key, outcome, participants FROM "
                              f"pgsled.read_decisions('app', '{{{key}}}', 0)").fetchall()
        assert rows == [(key, "commit", [1])]
        assert keeper.execute("SELECT role FROM pgsled.decision").fetchall() == [("writer",)]
        assert settle(keeper, key) == "commit"
        for sql in ("SELECT * FROM pgsled.decision", "DELETE FROM pgsled.decision",
                    f"SELECT pgsled.settle('{key}', 'app')",
                    f"SELECT pgsled.end_coordinator('{key}')",
                    f"SELECT pgsled.forget_decisions('{{{key}}}', 0)",
                    "SELECT * FROM pgsled.read_decisions('app', '{}', 0)",
                    "CREATE TABLE pgsled.mine ()"):
            assert code(lambda sql=sql: client.execute(sql)) == "42501", sql


def test_nobody_decides_for_another(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "writer", options=LIMIT) as other:
        key = opened(client)
        other.execute("BEGIN")
        assert code(lambda: decide(other, key)) == "42501"
        other.execute("ROLLBACK")
        client.execute("ROLLBACK")
        client.execute("BEGIN")  # the same backend, but a later transaction
        assert code(lambda: decide(client, key)) == "42501"


def test_an_abort_row_comes_before_a_late_decision(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        key = opened(client)
        assert settle(keeper, key) == "abort"
        assert code(lambda: decide(client, key)) == "23505"


def test_a_decision_has_a_deadline(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client:
        key = opened(client, 20)
        client.execute("SELECT pg_sleep(0.1)")
        assert code(lambda: decide(client, key)) == "40000"


@pytest.mark.parametrize("end, outcome", [("COMMIT", "commit"), ("ROLLBACK", "abort")])
def test_an_abort_row_waits_for_a_commit_in_flight(shard, end, outcome):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        key = opened(client)
        decide(client, key)
        keeper.execute("SET lock_timeout = '100ms'")
        assert code(lambda: settle(keeper, key)) == "55P03"
        keeper.execute("SET lock_timeout = 0")
        got = []
        waiter = threading.Thread(target=lambda: got.append(settle(keeper, key)))
        waiter.start()
        waiter.join(0.3)
        assert not got
        client.execute(end)
        waiter.join(10)
        assert got == [outcome]


def test_the_backend_of_a_decision_is_ended_but_no_later_transaction(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        ending = f"SELECT pgsled.end_coordinator('%s')"
        key = opened(client)
        client.execute("ROLLBACK")
        opened(client)  # the connection serves somebody else by now
        keeper.execute(ending % key)
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.execute("ROLLBACK")
        key = opened(client)
        decide(client, key)
        assert keeper.execute(ending % key).fetchone() == (True,)
        assert code(lambda: client.execute("COMMIT")) in ("57P01", None)
        assert settle(keeper, key) == "abort"


def test_a_committed_transaction_without_its_row_is_not_aborted(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        key = opened(client)
        client.execute("COMMIT")
        assert code(lambda: settle(keeper, key)) == "XX001"
        assert keeper.execute("SELECT count(*) FROM pgsled.decision").fetchone() == (0,)


def test_the_keeper_finishes_as_the_owner_and_forgets_only_old_rows(shard):
    with shard.connect("decisions", "writer", options=LIMIT) as client, \
            shard.connect("decisions", "keeper", options=LIMIT) as keeper:
        client.execute("BEGIN")
        client.execute("PREPARE TRANSACTION 'pgsled_by_hand'")
        assert code(lambda: keeper.execute("COMMIT PREPARED 'pgsled_by_hand'")) == "42501"
        keeper.execute("SET ROLE writer")
        keeper.execute("COMMIT PREPARED 'pgsled_by_hand'")
        keeper.execute("RESET ROLE")
        key = opened(client, 1)
        client.execute("ROLLBACK")
        assert settle(keeper, key) == "abort"

        def forgotten(older):
            return keeper.execute("SELECT pgsled.forget_decisions("
                                  f"'{{{key}}}', {older})").fetchone()[0]
        assert forgotten(60_000) == 0

        def is_forgotten():
            assert forgotten(10) == 1
        eventually(is_forgotten)


# What coordinators leave behind, and the router that finishes it. The coordinator is this test.

SHARDS = ["commit_0", "commit_1", "commit_2"]
RESOLVED = 11  # seconds: ten, and one for a slow machine


def options(servers):
    return {"databases": [{"name": "app", "shard": number, "database_name": name,
                           "host": "127.0.0.1", "port": servers[number].port}
                          for number, name in enumerate(SHARDS)],
            "users": [{"name": "postgres", "database": "app"}],
            "sharded_tables": [{"database": "app", "name": "t", "column": "id",
                                "data_type": "bigint"}]}


class Orphan:
    """A transaction over all shards, prepared on 1 and 2."""
    numbers = iter(range(1, 1000))

    def __init__(self, servers, prepared=(1, 2)):
        self.servers, self.id = servers, f"{next(self.numbers):032x}"
        self.own = servers[0].connect("commit_0")
        self.own.execute("BEGIN")
        self.own.execute(f"INSERT INTO t VALUES ({int(self.id, 16)})")
        mark = self.own.execute("SELECT pgsled.open_decision(5000)").fetchone()[0]
        self.key = f"{mark}_{self.id}"
        for number in prepared:
            with servers[number].connect(SHARDS[number]) as other:
                other.execute("BEGIN")
                other.execute(f"INSERT INTO t VALUES ({int(self.id, 16)})")
                other.execute(f"PREPARE TRANSACTION 'pgsled_0_{number}_{self.key}_app'")

    def decide(self):
        decide(self.own, self.key, "{1,2}")
        self.own.execute("COMMIT")

    def on(self):
        """The shards that show its row."""
        return [number for number, name in enumerate(SHARDS)
                if self.servers[number].run(f"SELECT 1 FROM t WHERE id = {int(self.id, 16)}",
                                            database=name)]

    def left(self):
        return [row for one in self.servers for row in one.run(
            f"SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '%{self.id}%'")]


@pytest.fixture(scope="module")
def cluster(server):
    """Three shards; the last one is a server of its own, to be stopped."""
    with Postgres() as second:
        servers = [server, server, second]
        for one, name in zip(servers, SHARDS):
            one.make_database(name)
            one.run("CREATE TABLE t (id bigint PRIMARY KEY)", database=name)
        with Suite(server, **options(servers)) as suite:
            def has_schema():
                for one, name in zip(servers, SHARDS):
                    assert one.run("SELECT to_regclass('pgsled.decision') IS NOT NULL",
                                   database=name) == [(True,)]
            eventually(has_schema, 15)
            yield suite, servers


def gone(orphan):
    def check():
        assert orphan.left() == []
    return check


@pytest.mark.seconds(40)
def test_without_a_decision_it_is_rolled_back_and_its_coordinator_ended(cluster):
    suite, servers = cluster
    orphan = Orphan(servers)

    def is_shown():
        shown = [row for row in suite.admin("SHOW TRANSACTIONS")
                 if row["transaction_name"] == orphan.key]
        assert shown and shown[0]["participants"] == "1,2"
        assert shown[0]["transaction_state"] == "in progress"
        assert shown[0]["database"] == "app" and shown[0]["user"] == "postgres"
        assert f"pgsled_0_1_{orphan.key}_app" in shown[0]["gid"]
    eventually(is_shown)
    eventually(gone(orphan), RESOLVED)
    assert orphan.on() == []
    with pytest.raises(psycopg.Error):
        orphan.own.execute("COMMIT")
    assert orphan.on() == []

    def is_not_shown():
        assert not [row for row in suite.admin("SHOW TRANSACTIONS")
                    if row["transaction_name"] == orphan.key]
    eventually(is_not_shown)


@pytest.mark.seconds(40)
def test_with_a_decision_it_is_committed(cluster):
    orphan = Orphan(cluster[1])
    orphan.decide()
    assert orphan.on() == [0]
    eventually(gone(orphan), RESOLVED)
    assert orphan.on() == [0, 1, 2]


@pytest.mark.seconds(60)
def test_a_participant_that_comes_back_gets_the_decision(cluster):
    suite, servers = cluster
    orphan = Orphan(servers)
    orphan.decide()
    servers[2].stop()
    try:
        def first_part_done():
            assert [row["participants"] for row in suite.admin("SHOW TRANSACTIONS")
                    if row["transaction_name"] == orphan.key] in ([], ["1"])
            assert not servers[1].run("SELECT 1 FROM pg_prepared_xacts "
                                      f"WHERE gid LIKE '%{orphan.id}%'")
        eventually(first_part_done, RESOLVED)
    finally:
        servers[2].start()
    eventually(gone(orphan), RESOLVED)
    assert orphan.on() == [0, 1, 2]


@pytest.mark.seconds(90)
def test_what_was_prepared_is_finished_when_two_phase_commit_is_off(cluster):
    suite, servers = cluster
    orphan = Orphan(servers)
    orphan.decide()
    servers[2].stop()
    try:
        suite.general["two_phase_commit"] = False
        suite.reload()
        time.sleep(2)
    finally:
        servers[2].start()
    try:
        eventually(gone(orphan), 31 + RESOLVED)
        assert orphan.on() == [0, 1, 2]
    finally:
        del suite.general["two_phase_commit"]
        suite.reload()


@pytest.mark.seconds(60)
def test_a_database_is_not_taken_out_while_something_is_prepared_there(cluster):
    suite, servers = cluster
    name = "pgsled_of nobody"   # that nobody finishes
    before = (suite.databases, suite.sharded_tables, suite.users)

    def is_shown():
        assert [row for row in suite.admin("SHOW TRANSACTIONS") if row["transaction_name"] == name]
    with servers[1].connect("commit_1") as connection:
        connection.execute("BEGIN")
        connection.execute(f"PREPARE TRANSACTION '{name}'")
        try:
            eventually(is_shown)
            suite.databases = [{"name": "other", "database_name": SHARDS[0]}]
            suite.sharded_tables, suite.users = [], [{"name": "postgres", "database": "other"}]
            with pytest.raises(psycopg.Error, match="which are not in the file any more"):
                suite.reload()
        finally:
            suite.databases, suite.sharded_tables, suite.users = before
            connection.execute(f"ROLLBACK PREPARED '{name}'")
    suite.reload()


@pytest.mark.seconds(60)
def test_the_next_router_finishes_it(cluster):
    suite, servers = cluster
    one, other = Orphan(servers), Orphan(servers, prepared=(2,))
    one.decide()
    suite.kill("router")
    eventually(gone(one), RESOLVED + 5)
    eventually(gone(other), RESOLVED)
    assert one.on() == [0, 1, 2]
    assert other.on() == []


def test_what_others_have_prepared_is_not_touched(cluster):
    suite, servers = cluster
    names = ["theirs", "pgsled_of somebody"]
    with servers[1].connect("commit_1") as connection:
        for name in names:
            connection.execute("BEGIN")
            connection.execute(f"PREPARE TRANSACTION '{name}'")

        def is_in_doubt():
            assert [row["transaction_state"] for row in suite.admin("SHOW TRANSACTIONS")
                    if row["transaction_name"] == names[1]] == ["in doubt"]
        eventually(is_in_doubt)
        eventually(is_in_doubt)
        for name in names:
            connection.execute(f"ROLLBACK PREPARED '{name}'")  # it is still there
