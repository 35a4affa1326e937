"""A client's transaction over several shards, compared with one PostgreSQL that holds all rows."""

import threading
import time

import psycopg
import pytest

from support import wire
from support.postgres import Postgres
from support.raw_client import RawClient, ServerError
from support.suite import Suite, eventually

SHARDS = ["spread_0", "spread_1", "spread_2"]
KEY = {0: 42, 1: 3, 2: 100}   # a key of each shard, by PARTITION BY HASH with modulus 3
SCHEMA = """
CREATE TABLE t (id bigint PRIMARY KEY, v int, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE log (id bigint, at text);
"""


def options(general=None, pgsled=None):
    return {"general": dict(general or {}),
            "pgsled": dict(pgsled or {}),
            "databases": [{"name": "app", "shard": number, "database_name": name}
                          for number, name in enumerate(SHARDS)],
            "users": [{"name": "postgres", "database": "app"}],
            "sharded_tables": [{"database": "app", "name": name, "column": "id",
                                "data_type": "bigint"} for name in ("t", "log")]}


def has_decisions(server):
    def check():
        for name in SHARDS:
            assert server.run("SELECT to_regprocedure('pgsled.decide(text,text,integer[])') "
                              "IS NOT NULL", database=name) == [(True,)]
    return check


@pytest.fixture(scope="module")
def suite(server):
    for name in SHARDS + ["whole"]:
        server.make_database(name)
        server.run(SCHEMA, database=name)
    with Suite(server, **options()) as running:
        eventually(has_decisions(server), 15)
        yield running


@pytest.fixture
def both(suite, server):
    """(through the suite, directly), with the same rows."""
    for name in SHARDS + ["whole"]:
        server.run("TRUNCATE t, log", database=name)
    for shard, key in KEY.items():
        for name in (SHARDS[shard], "whole"):
            server.run(f"INSERT INTO t VALUES ({key}, 0, {key})", database=name)
    clients = suite.raw(database="app"), direct(server)
    yield clients
    for client in clients:
        client.close()


def direct(server):
    client = RawClient(server.port)
    client.login("postgres", "postgres", "whole")
    return client


def say(client, sql):
    """What a user sees: rows and tags, or the SQLSTATE; and the transaction's status."""
    client.send(wire.query(sql))
    answer = []
    for kind, body in client.receive_until_ready():
        if kind == "D":
            answer += client.rows([(kind, body)])
        elif kind == "C":
            answer.append(body.rstrip(b"\0").decode())
        elif kind == "E":
            answer.append(ServerError(wire.error_fields(body)).code)
    return answer, client.status


def everything(server, table="t"):
    """Rows of all shards, and those of the single server."""
    spread = []
    for name in SHARDS:
        spread += server.run(f"SELECT * FROM {table}", database=name)
    return sorted(spread), sorted(server.run(f"SELECT * FROM {table}", database="whole"))


def nothing_is_left(server):
    def check():
        assert server.run("SELECT gid FROM pg_prepared_xacts") == []
    return check


def update(shard, value="v + 1"):
    return f"UPDATE t SET v = {value} WHERE id = {KEY[shard]}"


def read(shard):
    return f"SELECT v FROM t WHERE id = {KEY[shard]}"


SCRIPTS = {
    "commit": ["BEGIN", update(0), update(1), update(2), read(0), read(1), "COMMIT", read(2)],
    "rollback": ["BEGIN", update(0), update(1), "ROLLBACK", read(0), read(1)],
    "reading only": ["BEGIN", read(0), read(1), read(2), "COMMIT"],
    "read only mode": ["BEGIN READ ONLY", read(0), read(1), update(2), "COMMIT", read(2)],
    "one writes": ["BEGIN", read(0), update(1), read(2), "COMMIT", read(1)],
    "error fails all": ["BEGIN", update(0), f"INSERT INTO t VALUES ({KEY[1]}, 1, 1)", read(1),
                        read(0), update(2), "SAVEPOINT a", "COMMIT", read(0)],
    "savepoint before both": ["BEGIN", "SAVEPOINT a", update(0), update(1), "ROLLBACK TO a",
                              read(0), read(1), update(2), "COMMIT", read(0), read(2)],
    "savepoint between": ["BEGIN", update(0), "SAVEPOINT a", update(0), update(1),
                          "ROLLBACK TO SAVEPOINT a", read(0), read(1), "COMMIT", read(0), read(1)],
    "savepoint after": ["BEGIN", update(0), update(1), "SAVEPOINT \"A b\"", update(0), update(1),
                        update(2), "ROLLBACK TO \"A b\"", "COMMIT", read(0), read(1), read(2)],
    "error, back to a savepoint": ["BEGIN", update(0), update(1), "SAVEPOINT a", update(1),
                                   "SELECT 1/0 FROM t WHERE id = 42", update(1), "ROLLBACK TO a",
                                   read(1), update(2), "COMMIT", read(1), read(2)],
    "released savepoints": ["BEGIN", "SAVEPOINT a", update(0), "SAVEPOINT b", update(1),
                            "RELEASE b", "ROLLBACK TO b", read(0), "ROLLBACK TO a", update(2),
                            "RELEASE a", "ROLLBACK TO a", "COMMIT", read(2)],
    "unknown savepoint": ["BEGIN", update(0), update(1), "ROLLBACK TO nothing", read(0),
                          "ROLLBACK"],
    "same name twice": ["BEGIN", update(0), "SAVEPOINT a", update(0), update(1), "SAVEPOINT a",
                        update(1), "ROLLBACK TO a", "RELEASE a", "ROLLBACK TO a", "COMMIT",
                        read(0), read(1)],
    "settings": ["BEGIN", update(0), "SET LOCAL work_mem = '5MB'", update(1), "SHOW work_mem",
                 read(0), "SHOW work_mem", "SET maintenance_work_mem = '7MB'", read(2),
                 "SHOW work_mem", "SHOW maintenance_work_mem", "COMMIT", "SHOW work_mem",
                 "SHOW maintenance_work_mem", "RESET ALL"],
    "settings rolled back": ["SET work_mem = '6MB'", "BEGIN", update(0), "SAVEPOINT a",
                             "SET work_mem = '7MB'", update(1), "SHOW work_mem", "ROLLBACK TO a",
                             update(2), "SHOW work_mem", read(1), "SHOW work_mem", "ROLLBACK",
                             "SHOW work_mem", read(1), "SHOW work_mem", "RESET ALL"],
    "deferred constraint": ["BEGIN", update(0), "UPDATE t SET u = 7 WHERE id = 3",
                            "INSERT INTO t VALUES (7, 0, 7)", "COMMIT", read(0), read(1)],
    "constraints at once": ["BEGIN", update(0), "UPDATE t SET u = 7 WHERE id = 3",
                            "INSERT INTO t VALUES (7, 0, 7)", "SET CONSTRAINTS ALL IMMEDIATE",
                            "ROLLBACK"],
    "a second BEGIN": ["BEGIN", update(0), update(1), "BEGIN", update(2), "COMMIT", read(2)],
    "one after another": ["BEGIN", update(0), update(1), "COMMIT", "BEGIN", update(1), update(0),
                          "ROLLBACK", "BEGIN", update(2), update(0), "COMMIT", read(0), read(1)],
    "definitions too": ["BEGIN", update(0), "CREATE TABLE more (id bigint)", update(1),
                        "SAVEPOINT a", "ALTER TABLE log ADD COLUMN extra int", "ROLLBACK TO a",
                        "SELECT * FROM log WHERE id = 3", "COMMIT", read(0), read(1),
                        "BEGIN", "DROP TABLE more", update(2), "ROLLBACK", "DROP TABLE more",
                        read(2)],
    "definitions rolled back": ["BEGIN", "CREATE TABLE more (id bigint)", update(0),
                                "INSERT INTO t VALUES (3, 1, 3)", "COMMIT", read(0),
                                "DROP TABLE more"],
    "two rows": ["BEGIN", "INSERT INTO log VALUES (42, 'a') RETURNING at",
                 "INSERT INTO log VALUES (3, 'b') RETURNING id, at", "COMMIT",
                 "SELECT * FROM log WHERE id = 3"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_on_one_server(both, suite, server, name):
    through, whole = both
    for sql in SCRIPTS[name]:
        assert say(through, sql) == say(whole, sql), sql
    assert through.status == "I"
    for table in ("t", "log"):
        spread, single = everything(server, table)
        assert spread == single
    nothing_is_left(server)()
    suite.check_no_leaks(database="app")
