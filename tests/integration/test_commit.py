"""Commits over several shards: the table and functions of schema pgsled on a real server."""

import pathlib
import re
import threading

import psycopg
import pytest

from support.suite import eventually

ID = "0123456789abcdef0123456789abcdef"
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "services/router/decision_schema.cpp"


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
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
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
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "writer") as other:
        key = opened(client)
        other.execute("BEGIN")
        assert code(lambda: decide(other, key)) == "42501"
        other.execute("ROLLBACK")
        client.execute("ROLLBACK")
        client.execute("BEGIN")  # the same backend, but a later transaction
        assert code(lambda: decide(client, key)) == "42501"


def test_an_abort_row_comes_before_a_late_decision(shard):
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
        key = opened(client)
        assert settle(keeper, key) == "abort"
        assert code(lambda: decide(client, key)) == "23505"


def test_a_decision_has_a_deadline(shard):
    with shard.connect("decisions", "writer") as client:
        key = opened(client, 20)
        client.execute("SELECT pg_sleep(0.1)")
        assert code(lambda: decide(client, key)) == "40000"


@pytest.mark.parametrize("end, outcome", [("COMMIT", "commit"), ("ROLLBACK", "abort")])
def test_an_abort_row_waits_for_a_commit_in_flight(shard, end, outcome):
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
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
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
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
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
        key = opened(client)
        client.execute("COMMIT")
        assert code(lambda: settle(keeper, key)) == "XX001"
        assert keeper.execute("SELECT count(*) FROM pgsled.decision").fetchone() == (0,)


def test_the_keeper_finishes_as_the_owner_and_forgets_only_old_rows(shard):
    with shard.connect("decisions", "writer") as client, \
            shard.connect("decisions", "keeper") as keeper:
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
