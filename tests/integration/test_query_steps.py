"""Several statements in one Query that do not go to one place, compared with one PostgreSQL: the
same messages, the same rows afterwards."""

import asyncio
import subprocess

import asyncpg
import psycopg
import pytest

from support import wire
from support.machine import HOST, PG_BIN
from support.raw_client import RawClient
from support.suite import Suite, eventually, has_decisions

SHARDS = ["steps_0", "steps_1", "steps_2"]
KEY = {0: 42, 1: 3, 2: 100}   # a key of each shard, by PARTITION BY HASH with modulus 3
SCHEMA = """
CREATE TABLE t (id bigint PRIMARY KEY, v int, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE countries (code text PRIMARY KEY, n int);
CREATE SCHEMA other;
CREATE TABLE other.t (v bigint, id bigint);
"""


def options(**pgsled):
    tables = [("t", "id"), ("other.t", "v")]
    return {"pgsled": pgsled,
            "databases": [{"name": "app", "shard": number, "database_name": name}
                          for number, name in enumerate(SHARDS)],
            "users": [{"name": "postgres", "database": "app"}],
            "sharded_tables": [{"database": "app", "name": name.split(".")[-1], "column": column,
                                "schema": name.split(".")[0] if "." in name else "public",
                                "data_type": "bigint"} for name, column in tables]}


@pytest.fixture(scope="module")
def suite(server):
    for name in SHARDS + ["whole"]:
        server.make_database(name)
        server.run(SCHEMA, database=name)
    with Suite(server, **options()) as running:
        eventually(has_decisions(server, SHARDS), 15)
        yield running


@pytest.fixture
def both(suite, server):
    """(through the suite, directly), with the same rows."""
    for name in SHARDS + ["whole"]:
        server.run("DROP TABLE IF EXISTS made", "TRUNCATE t, countries, other.t",
                   "INSERT INTO countries VALUES ('it', 1), ('de', 2)", database=name)
    for shard, key in KEY.items():
        for name in (SHARDS[shard], "whole"):
            server.run(f"INSERT INTO t VALUES ({key}, 0, {key})", database=name)
    through, direct = suite.raw(database="app"), RawClient(server.port)
    direct.login("postgres", "postgres", "whole")
    yield through, direct
    through.close()
    direct.close()


def say(client, sql, data=(b"5\t5\t5\n42000\t1\t1\n", b"8\t1\t8\n")):
    """All that a client sees of a Query, and the status. A COPY is given `data`."""
    client.send(wire.query(sql))
    got, pieces = [], list(data)
    while True:
        kind, body = client.receive()
        if kind == "G":
            client.send(wire.copy_data(pieces.pop(0)), wire.COPY_DONE)
        if kind == "D":
            got.append(wire.data_row(body))
        elif kind == "C":
            got.append(body.rstrip(b"\0").decode())
        elif kind == "N" and "u = 7" in sql:
            pass   # the servers' word for the ROLLBACK behind a commit that has failed
        elif kind in "EN":
            fields = wire.error_fields(body)
            words = "" if fields["C"] == "25001" else fields["M"]   # ours do not name the command
            got.append((kind, fields["C"], words, fields.get("P")))
        elif kind == "T":
            got.append((kind, body[:2]))
        elif kind == "d":
            got.append(body)
        elif kind == "Z":
            client.status = body.decode()
            return got, client.status
        elif kind != "S":
            got.append(kind)


def same(server):
    for table in ("t", "other.t"):
        spread = [row for name in SHARDS
                  for row in server.run(f"SELECT * FROM {table}", database=name)]
        assert sorted(spread) == sorted(server.run(f"SELECT * FROM {table}", database="whole"))
    each = [sorted(server.run("SELECT * FROM countries", database=name))
            for name in SHARDS + ["whole"]]
    assert each[0] == each[1] == each[2] == each[3]
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []


def update(shard, value="v + 1"):
    return f"UPDATE t SET v = {value} WHERE id = {KEY[shard]}"


def read(shard):
    return f"SELECT v FROM t WHERE id = {KEY[shard]}"


COUNTRY = "INSERT INTO countries VALUES ('{0}', 7)"
CASES = {
    "an implicit block": [f"{update(0)}; {update(1)}; {read(0)}; {read(1)}", read(1)],
    "a statement fails": [f"{update(0)}; {update(1)}; SELECT 1/0 FROM t WHERE id = 100; {read(0)}",
                          read(0), read(1)],
    "the first fails": [f"SELECT no FROM t WHERE id = 42; {update(1)}", read(1)],
    "where it fails is told": [f"{update(0)};\n  /* é */ SELECT nothing FROM t WHERE id = 3;"
                               f" {update(2)}", f"{update(0)}; SELECT 'é' FROM t WHERE id = 3; "
                               "SELECT nope FROM t WHERE id = 100"],
    "BEGIN and COMMIT": [f"BEGIN; {update(0)}; {update(1)}; COMMIT", read(0), read(1)],
    "begins only": [f"BEGIN; {update(0)}; {update(1)}", read(0), f"{update(2)}; {update(0)}",
                    f"{update(1)}; COMMIT", read(1)],
    "rolled back": [f"BEGIN; {update(0)}; {update(1)}; ROLLBACK; {read(0)}; {read(1)}"],
    "fails in its block": [f"BEGIN; {update(0)}; {update(1)}; SELECT 1/0; COMMIT", read(0),
                           "COMMIT", read(0)],
    "an aborted one ends and more follows": [
        f"BEGIN; {update(0)}; {update(1)}", "SELECT 1/0", f"{update(2)}; ROLLBACK",
        f"ROLLBACK; {update(0)}; {update(1)}", read(0), read(1)],
    "BEGIN joins what came before": [f"{update(0)}; {update(1)}; BEGIN; {update(2)}", read(0),
                                     "ROLLBACK", read(0)],
    "BEGIN twice": [f"BEGIN; {update(0)}; {update(1)}; BEGIN; {update(2)}; COMMIT", read(2)],
    "COMMIT without BEGIN": [f"{update(0)}; {update(1)}; COMMIT; {update(2)}; SELECT 1/0 FROM t"
                             " WHERE id = 42", read(0), read(2)],
    "ROLLBACK without BEGIN": [f"{update(0)}; {update(1)}; ROLLBACK; {update(2)}; {update(0)}",
                               read(0), read(1), read(2)],
    "two blocks": [f"BEGIN; {update(0)}; {update(1)}; COMMIT; BEGIN; {update(1)}; {update(2)};"
                   " ROLLBACK", read(0), read(1), read(2)],
    "a block and more": [f"BEGIN; {update(0)}; {update(1)}; COMMIT; {update(2)}; {update(1)}",
                         read(1), read(2)],
    "savepoints": [f"BEGIN; {update(0)}; SAVEPOINT a; {update(1)}; ROLLBACK TO a; {update(2)};"
                   f" RELEASE a; COMMIT", read(0), read(1), read(2)],
    "no savepoints without BEGIN": [f"{update(0)}; {update(1)}; SAVEPOINT a; {update(2)}", read(0),
                                    f"{update(0)}; {update(1)}; RELEASE a", read(0),
                                    f"{update(0)}; {update(1)}; ROLLBACK TO a", read(0)],
    "no chains without BEGIN": [f"{update(0)}; {update(1)}; COMMIT AND CHAIN", read(0)],
    "a deferred constraint": [f"{update(0)}; UPDATE t SET u = 7 WHERE id = 3; "
                              f"INSERT INTO t VALUES (7, 0, 7)", read(0)],
    "settings": [f"SET work_mem = '5MB'; {update(0)}; {update(1)}; SHOW work_mem", "SHOW work_mem",
                 f"SET work_mem = '6MB'; {update(0)}; {update(1)}; SELECT 1/0", "SHOW work_mem",
                 f"{update(0)}; SET LOCAL work_mem = '7MB'; {update(1)}; SHOW work_mem",
                 "SHOW work_mem", "RESET work_mem"],
    "names by the path of then": [
        "SET search_path = other; INSERT INTO t VALUES (42, 3); INSERT INTO t (v, id)"
        " VALUES (3, 42); SELECT id FROM t WHERE v = 42", "SELECT id FROM t WHERE v = 3",
        "SET search_path = public; SELECT v FROM t WHERE id = 3",
        "SELECT v FROM t WHERE id = 42", "RESET search_path"],
    "on every shard": [COUNTRY.format("fr") + ";" + COUNTRY.format("at") + " RETURNING code",
                       "SELECT * FROM countries ORDER BY code",
                       f"BEGIN; {COUNTRY.format('ch')}; {update(0)}; DELETE FROM countries"
                       f" WHERE code = 'it'; {update(1)}; COMMIT",
                       COUNTRY.format("se") + ";" + COUNTRY.format("de"),
                       "SELECT code FROM countries ORDER BY code"],
    "definitions": [f"BEGIN; CREATE TABLE made (a int); {update(0)}; COMMIT", "SELECT * FROM made",
                    f"DROP TABLE made; {update(0)}; {update(1)}; SELECT 1/0 FROM t WHERE id = 3",
                    "SELECT count(*) FROM made", f"DROP TABLE made; {read(0)}"],
    "cannot run in a block": [f"{update(0)}; VACUUM t", read(0)],
    "COPY": ["COPY t FROM STDIN; COPY t FROM STDIN", "SELECT v FROM t WHERE id = 8",
             "TRUNCATE t; COPY t FROM STDIN; SELECT v FROM t WHERE id = 5", "TRUNCATE t",
             "BEGIN; COPY t FROM STDIN; COMMIT", "SELECT v FROM t WHERE id = 42000",
             "COPY t FROM STDIN; SELECT 1", "SELECT v FROM t WHERE id = 5"],
    "COPY fails": [f"{update(0)}; COPY t (id, v) FROM STDIN; {update(1)}", read(0)],
    "COPY of every shard": ["COPY countries FROM STDIN; SELECT * FROM countries ORDER BY code"],
    "COPY to": ["COPY (SELECT v FROM t WHERE id = 42) TO STDOUT; COPY countries TO STDOUT;"
                f" {update(1)}"],
    "empty statements": [f";;{update(0)};;{update(1)};  ; -- the end", read(1)],
    "reading": [f"{read(0)}; {read(1)}; SELECT 1; {read(2)}"],
}


@pytest.mark.parametrize("name", CASES)
def test_as_on_one_server(both, suite, server, name):
    through, whole = both
    data = [b"it9\t1\n", b""] if name == "COPY of every shard" else \
        [b"5\t5\t5\n42000\t1\t1\n", b"8\t1\t8\n"]
    for sql in CASES[name]:
        assert say(through, sql, data) == say(whole, sql, data), sql
    same(server)
    if through.status != "I":
        for client in both:
            client.query("ROLLBACK")
    same(server)
    suite.check_no_leaks(database="app")


def test_settings_that_were_rolled_back_are_nobody_elses(both, suite, server):
    """A path that is computed cannot be said again on another shard: it is refused, and the session
    is as before."""
    through, _ = both
    through.query("SET search_path = other")
    for key in KEY.values():
        got, status = say(through, "SELECT set_config('search_path', 'pub' || 'lic', true);"
                                   f" SELECT v FROM public.t WHERE id = {key};"
                                   f" {update(0)}; {update(1)}")
        assert got[-1][1] == "0A000" and status == "I"
        assert through.query("SHOW search_path") == [["other"]]
    through.close()
    others = [suite.raw(database="app") for _ in range(4)]
    for other in others:
        for shard in KEY:
            assert other.query(read(shard)) == [["0"]]
        other.close()
    same(server)


def test_queries_that_follow_at_once_wait_for_their_turn(both, server):
    through, whole = both
    messages = [wire.query(f"{update(0)}; {update(1)}; SELECT 1"), wire.query(read(1)),
                wire.query(f"{update(0)}; SELECT 1/0; {update(1)}"), wire.query(read(0))]
    got = []
    for client in both:
        client.send(*messages)
        got.append([(kind, body) for kind, body in client.receive_until_ready(4) if kind in "DCZ"])
    assert got[0] == got[1]
    same(server)


def test_a_refused_statement_undoes_the_others(both, server):
    through, _ = both
    got, status = say(through, f"{update(0)}; {update(1)}; SELECT sum(v) FROM t")
    assert got[:2] == ["UPDATE 1", "UPDATE 1"] and got[2][1] == "0A000" and status == "I"
    same(server)
    # A mistake in the last one is found before the first one runs.
    got, status = say(through, f"{update(0)}; {update(1)}; SELEC 1")
    assert len(got) == 1 and got[0][0] == "E" and status == "I"
    same(server)
    # What PostgreSQL reads as a whole cannot be read again in pieces.
    got, status = say(through, f"{update(0)}; SET client_encoding = latin1; {update(1)}")
    assert [one[1] for one in got] == ["0A000"] and status == "I"
    same(server)


def test_a_bound_session_sends_them_one_at_a_time(both, server):
    through, _ = both
    through.query("PREPARE one AS SELECT 1")
    got, status = say(through, f"{update(0)}; {update(1)}")
    assert [one[1] for one in got] == ["0A000"] and status == "I"
    got, status = say(through, "SET search_path = other; SELECT * FROM t WHERE id = 3")
    assert [one[1] for one in got] == ["0A000"] and status == "I"
    same(server)


def test_cancel_in_a_step(both, suite, server):
    through, _ = both
    through.send(wire.query(f"{update(0)}; {update(1)}; SELECT pg_sleep(30) FROM t WHERE id = 100;"
                            f" {update(2)}"))

    def sleeping():
        assert server.run("SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                          " AND query LIKE 'SELECT pg_sleep%'") == [(1,)]
    eventually(sleeping, 10)
    through.cancel(suite.port)
    kinds = [(kind, wire.error_fields(body)["C"] if kind == "E" else None)
             for kind, body in through.receive_until_ready() if kind in "CEZ"]
    assert kinds == [("C", None), ("C", None), ("E", "57014"), ("Z", None)]
    same(server)


def test_drivers(suite, server, both):
    async def run():
        connection = await asyncpg.connect(host=HOST, port=suite.port, user="postgres",
                                           password="postgres", database="app")
        await connection.execute(f"{update(0)}; {update(1)}; {COUNTRY.format('fr')}")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute(f"{update(0)}; {update(1)}; SELECT 1/0")
        await connection.close()
    asyncio.run(run())
    done = subprocess.run([f"{PG_BIN}/psql", "-X", "-h", HOST, "-p", str(suite.port), "-U",
                           "postgres", "-d", "app", "-v", "ON_ERROR_STOP=1", "-c",
                           f"BEGIN; {update(1)}; {update(2)}; COMMIT"],
                          env={"PGPASSWORD": "postgres"}, capture_output=True, text=True,
                          check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    with suite.connect("app", autocommit=True) as connection:
        connection.execute(f"{update(0)}; {update(1)}")
        assert connection.execute(read(1)).fetchone() == (3,)
