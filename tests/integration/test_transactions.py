"""A client's transaction over several shards, compared with one PostgreSQL that holds all rows."""

import os
import random
import signal
import threading
import time

import psycopg
import pytest

from support import wire
from support.machine import wait_until
from support.postgres import Postgres
from support.raw_client import RawClient, ServerError
from support.suite import Suite, eventually, has_decisions
from support.wire import run

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


def names_of(client, code):
    """The error's fields of the next answer."""
    fields = [wire.error_fields(body) for kind, body in client.receive_until_ready()
              if kind == "E"]
    assert fields and fields[0]["C"] == code, fields
    return fields[0]


def refused(client, sql, code="0A000"):
    client.send(wire.query(sql))
    return names_of(client, code)


@pytest.mark.parametrize("begin", ["BEGIN ISOLATION LEVEL REPEATABLE READ",
                                   "BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                                   "SET default_transaction_isolation = 'serializable'; BEGIN"])
def test_higher_isolation_has_no_second_shard(both, begin):
    through, _ = both
    for sql in begin.split("; "):
        through.query(sql)
    through.query(update(0))
    assert "isolation" in refused(through, read(1))["M"]
    assert through.status == "E"
    assert say(through, read(0)) == (["25P02"], "E")
    assert say(through, "COMMIT") == (["ROLLBACK"], "I")
    for first, second in ((0, 1), (1, 0)):
        for sql in begin.split("; ") + [update(first), "SAVEPOINT s"]:
            through.query(sql)
        for _ in range(2):
            assert "isolation" in refused(through, read(second))["M"]
            through.query("ROLLBACK TO s")
        assert through.query(read(first)) == [["1"]], "what it has written is still there"
        through.query("ROLLBACK")
    through.query("RESET ALL")
    assert through.query(read(0)) == [["0"]]


def test_half_a_batch_is_not_committed_to_go_elsewhere(both, server):
    """The ReadyForQuery of an earlier batch says nothing of what has been sent behind it."""
    through, _ = both
    def batch(sql):
        return wire.parse("", sql) + wire.bind() + wire.execute()
    before = everything(server, "t")[0]
    through.send(batch(f"SELECT pg_sleep(0.3) FROM t WHERE id = {KEY[0]}") + wire.SYNC,
                 batch(update(0)) + wire.FLUSH)
    time.sleep(0.8)
    through.send(batch(update(1, "v / 0")) + wire.SYNC)
    assert wire.error_codes(through.receive_until_ready(2)) != []
    assert everything(server, "t")[0] == before


def test_a_failed_transaction_stays_failed_whatever_is_sent(both):
    """Parse and Bind without Execute, as drivers send them, must not find a leg that has not."""
    through, _ = both
    for how in ("refused", "lent", "told", "parked"):
        through.query("BEGIN")
        through.query(update(0))
        through.query(update(1))
        if how == "parked":
            through.query("SAVEPOINT b")
        refused(through, {"refused": "COMMIT AND CHAIN", "told": "RELEASE nothing",
                          "parked": "SELECT v FROM t",
                          "lent": "SELECT 1/0 FROM t WHERE id = 3"}[how],
                {"refused": "0A000", "told": "3B001", "lent": "22012", "parked": "0A000"}[how])
        assert through.status == "E"
        for parts in ([wire.parse("", "SELECT 1"), wire.SYNC],
                      [wire.parse("", read(0)), wire.bind(), wire.describe("P"), wire.SYNC],
                      [wire.SYNC], [wire.parse("", "ROLLBACK"), wire.describe("S"), wire.SYNC]):
            through.send(*parts)
            through.receive_until_ready()
            assert through.status == "E", (how, parts)
        for shard in KEY:
            assert say(through, update(shard)) == (["25P02"], "E")
        assert say(through, "COMMIT") == (["ROLLBACK"], "I")
        assert [through.query(read(shard)) for shard in KEY] == [[["0"]]] * 3


def test_what_cannot_be_done_over_shards_is_refused(both):
    through, _ = both
    for sql in ("COMMIT AND CHAIN", "COMMIT AND CHAIN /* of notes */",
                "PREPARE TRANSACTION 'x'", "SELECT 1; PREPARE TRANSACTION 'x'",
                "SELECT set_config('work_mem', '5MB', true)"):
        through.query("BEGIN")
        through.query(update(0))
        through.query(update(1))
        refused(through, sql)
        assert say(through, "ROLLBACK") == (["ROLLBACK"], "I")
    through.query("BEGIN")
    through.query("SELECT set_config('work_mem', (4 + 1) || 'MB', true), v FROM t WHERE id = 42")
    through.query(update(0))
    refused(through, update(1))
    through.query("ROLLBACK")
    assert through.query(read(0)) == [["0"]]


@pytest.mark.parametrize("sql", [
    "SELECT set_config('app.tenant', '7', true)",
    "SELECT set_config('app.tenant', (6 + 1)::text, true), 'and more'",
    f"{update(1)} AND set_config('app.tenant', '7', true) = '7'"])
def test_set_config_behind_begin_is_a_statement(both, server, sql):
    """Its row, and what else it does: row security hangs on it."""
    through, one = both
    for text in ("BEGIN", sql, "SELECT current_setting('app.tenant')", "COMMIT", read(1)):
        assert say(through, text) == say(one, text), text
    through.query("BEGIN")
    assert through.prepared("SELECT set_config('app.tenant', $1, true)", ["8"]) == [["8"]]
    assert through.query("SELECT current_setting('app.tenant')") == [["8"]]
    through.query("COMMIT")
    spread, whole = everything(server)
    assert spread == whole


@pytest.mark.parametrize("sql, values", [
    ("SELECT set_config('app.tenant', $1, true)", ["8"]),
    ("SELECT set_config($1, $2, $3)", ["app.tenant", "8", "true"]),
    ("SELECT set_config('search_path', $1, true), set_config('role', $2, true), "
     "set_config('app.tenant', $3, true)", ["public", "postgres", "8"])])
def test_parameters_of_set_config_go_to_every_shard(both, server, sql, values):
    """As row security by tenant has it: set in front, then rows of whatever shard."""
    through, one = both
    seen = "SELECT current_setting('app.tenant', true) FROM t WHERE id = "
    for _ in range(2):
        for client in both:
            client.query("BEGIN")
            client.prepared(sql, values)
        for shard, key in KEY.items():
            for text in (seen + str(key), update(shard)):
                assert say(through, text) == say(one, text), text
            assert through.prepared(seen + "$1", [str(key)]) == [["8"]]
        assert say(through, "COMMIT") == say(one, "COMMIT")
        for key in KEY.values():
            assert through.query(seen + str(key)) in ([[""]], [[None]])
    spread, whole = everything(server)
    assert spread == whole


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT", "ROLLBACK TO a"])
@pytest.mark.parametrize("extended", [False, True])
def test_what_cannot_be_set_fails_the_transaction_alone(both, server, end, extended):
    """It was answered before a shard was there to say no: the next statement is told."""
    through, _ = both
    for client in both:
        client.query("BEGIN")
    through.query("SAVEPOINT a")
    through.query("SET LOCAL statement_timeout = 'for ever'")
    with pytest.raises(ServerError) as refused:
        if extended:
            through.prepared("SELECT v FROM t WHERE id = $1", [str(KEY[1])])
        else:
            through.query(update(1))
    assert refused.value.code == "22023" and through.status == "E"
    assert say(through, update(1)) == (["25P02"], "E")
    if end == "ROLLBACK TO a":
        assert say(through, end) == (["ROLLBACK"], "T")
        assert say(through, update(2)) == (["UPDATE 1"], "T")
        assert say(through, "ROLLBACK") == (["ROLLBACK"], "I")
    else:
        assert say(through, end) == (["ROLLBACK"], "I")
    assert [through.query(read(shard)) for shard in KEY] == [[["0"]]] * 3


def test_a_shard_that_lacks_a_setting_is_not_joined_without_it(both, server):
    """Nor behind a ROLLBACK TO, where the transaction goes on."""
    through, _ = both
    server.run("CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple)", database=SHARDS[0])
    try:
        for sql in ("BEGIN", update(0), "SET default_text_search_config = 'public.mine'", "COMMIT",
                    "BEGIN", update(0), "SAVEPOINT a"):
            assert say(through, sql)[1] in "TI", sql
        for _ in range(2):
            assert say(through, update(1)) == (["22023"], "E")
            assert say(through, "ROLLBACK TO a")[1] == "T"
        assert say(through, update(0))[1] == "T"
        assert say(through, "COMMIT") == (["COMMIT"], "I")
        # The session is at home on that shard alone; somebody else looks.
        assert [server.run(read(shard), database=SHARDS[shard]) for shard in (0, 1)] == [[(3,)],
                                                                                         [(0,)]]
    finally:
        server.run("DROP TEXT SEARCH CONFIGURATION mine", database=SHARDS[0])


def test_what_is_set_behind_a_refusal_is_its_own(both, suite):
    """ROLLBACK and SET in one message, behind a statement that was refused in the transaction."""
    through, _ = both
    mine = f"SELECT current_setting('work_mem') FROM t WHERE id = {KEY[0]}"
    for sql in ("BEGIN", update(0), "LISTEN x", "ROLLBACK; SET work_mem = '7MB'"):
        say(through, sql)
    others = [suite.raw(database="app") for _ in range(10)]
    usual = [client.query(mine) for client in others]
    assert through.query(mine) == [["7MB"]]
    assert [["7MB"]] not in usual
    through.query("RESET work_mem")
    for client in others:
        client.close()


@pytest.mark.parametrize("before", [[], [0], [0, 1]])
def test_a_refused_statement_is_undone_by_its_savepoint(both, before):
    """Whether the transaction has come to a server, to several, or to none yet."""
    through, one = both
    statements = ["BEGIN", *map(update, before), "SAVEPOINT a", "SET LOCAL work_mem TO '7MB'",
                  "SAVEPOINT b", ("VACUUM t", "LISTEN x"), "ROLLBACK TO c",
                  "SELECT 1", "ROLLBACK TO b", "SHOW work_mem", "RELEASE b", ("VACUUM t", "LISTEN x"),
                  "ROLLBACK TO a", "SHOW work_mem", update(2), "COMMIT"]
    for sql in statements:
        if isinstance(sql, tuple):
            assert say(one, sql[0])[1] == say(through, sql[1])[1] == "E"
        else:
            assert say(through, sql) == say(one, sql), sql
    assert through.query(read(2)) == one.query(read(2))


def extended(sql, portal="", rows=0):
    return wire.parse("", sql) + wire.bind(portal) + wire.execute(portal, rows)


def kinds(messages):
    return "".join(kind for kind, _ in messages if kind not in "SN")


def test_extended_protocol_and_pipelines(both, server):
    through, whole = both
    answers = []
    for client in both:
        client.send(extended("BEGIN"), wire.SYNC, extended(update(0)), wire.SYNC,
                    extended(update(1)), extended(read(1)), wire.SYNC, extended("SAVEPOINT a"),
                    wire.SYNC, extended(update(2)), wire.SYNC, extended("ROLLBACK TO a"),
                    wire.SYNC, extended(read(2)), wire.SYNC, extended("COMMIT"), wire.SYNC)
        answers.append(client.receive_until_ready(8))
    assert answers[0] == answers[1]
    spread, single = everything(server)
    assert spread == single
    for client in both:
        client.send(extended("BEGIN"), wire.SYNC, extended(update(0)), wire.SYNC,
                    extended("SELECT 1/0 FROM t WHERE id = 3"), extended(update(1)), wire.SYNC,
                    extended(update(2)), wire.SYNC, extended("COMMIT"), wire.SYNC)
        answers.append([(kind, body) for kind, body in client.receive_until_ready(5)
                        if kind != "E"])
    assert answers[2] == answers[3]
    spread, single = everything(server)
    assert spread == single


@pytest.mark.parametrize("batch", [
    [update(0), update(1), read(0), read(2)],
    [update(0), "SAVEPOINT a", update(1), "ROLLBACK TO a", update(2), "COMMIT"],
    [update(0), update(1), "COMMIT", read(1)],
    [update(0), update(1), "SELECT 1/0 FROM t WHERE id = 100", update(2)],
    [update(1), "SET LOCAL work_mem = '3MB'", update(2), "SHOW work_mem", "ROLLBACK"],
    [update(0), "CREATE TABLE more (id int)", update(1), "DROP TABLE more", "COMMIT"],
])
def test_a_batch_in_a_transaction_goes_where_its_parts_belong(both, server, batch):
    for begin in ("BEGIN", f"BEGIN; {update(0)}"):
        said = []
        for client in both:
            client.query(begin)
            client.send(*[extended(sql) for sql in batch], wire.SYNC)
            got = [(kind, wire.error_fields(body)["C"] if kind == "E" else body)
                   for kind, body in client.receive_until_ready() if kind not in "SN"]
            said += [(got, say(client, "COMMIT"))]
        assert said[0] == said[1]
        spread, single = everything(server)
        assert spread == single


ROW, AGAIN = "INSERT INTO t VALUES ($1, 1, NULL)", "INSERT INTO t VALUES (3, 1, NULL)"
OTHER_0 = 48   # another key of shard 0
ALIKE = {
    "work behind COMMIT fails": [
        wire.query("BEGIN"), wire.query("UPDATE t SET v = 7 WHERE id = 42"),
        run("COMMIT") + run(ROW, OTHER_0) + run(AGAIN) + wire.SYNC],
    "work behind ROLLBACK fails": [
        wire.query("BEGIN"), wire.query("UPDATE t SET v = 7 WHERE id = 42"),
        run("ROLLBACK") + run(ROW, OTHER_0) + run(AGAIN) + wire.SYNC],
    "work behind a whole transaction fails": [
        run("BEGIN") + run("UPDATE t SET v = 7 WHERE id = 42") + run("COMMIT") +
        run(ROW, OTHER_0) + run(AGAIN) + wire.SYNC],
    "COMMIT AND CHAIN": [wire.query(sql) for sql in (
        "BEGIN", "COMMIT AND CHAIN", "INSERT INTO t VALUES (48, 1, NULL)", "ROLLBACK")],
    "ROLLBACK AND CHAIN": [wire.query(sql) for sql in (
        "BEGIN", "ROLLBACK AND CHAIN", "INSERT INTO t VALUES (48, 1, NULL)", "ROLLBACK")],
    "COMMIT AND NO CHAIN": [wire.query(sql) for sql in (
        "BEGIN", "COMMIT AND NO CHAIN", "INSERT INTO t VALUES (48, 1, NULL)")],
    "BEGIN and a Parse that fails": [
        run("BEGIN") + wire.parse("s", "SELEC") + wire.SYNC, wire.query(ROW.replace("$1", "48")),
        wire.query("COMMIT")],
    "BEGIN and a description": [
        run("BEGIN") + wire.parse("s", "SELECT v FROM t WHERE id = $1") + wire.describe("S", "s") +
        wire.SYNC, wire.bind("", "s", [42]) + wire.execute() + wire.SYNC, wire.query("COMMIT")],
    "DDL without Sync": [
        run("CREATE TABLE never (id bigint)") + wire.FLUSH + run("SELECT 1/0") + wire.SYNC],
    "DDL behind a Parse that fails": [
        wire.parse("s", "SELEC") + run("CREATE TABLE never (id bigint)") + wire.SYNC],
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_batch_is_one_transaction(both, suite, server, name):
    """Refused or not: what is there behind it is what one server would have."""
    through, answers = both[0], []
    for client in both:
        answers.append([])
        for step in ALIKE[name]:
            client.send(step)
            answers[-1] += client.receive_until_ready()
    if "0A000" not in wire.error_codes(answers[0]):
        assert [kind for kind, _ in answers[0]] == [kind for kind, _ in answers[1]]
        assert wire.error_codes(answers[0]) == wire.error_codes(answers[1])
        assert ([wire.columns(body) if kind == "T" else body
                 for kind, body in answers[0] if kind in "tTZC"] ==
                [wire.columns(body) if kind == "T" else body
                 for kind, body in answers[1] if kind in "tTZC"])
    rows = sorted(row for shard in SHARDS
                  for row in server.run("SELECT id, v FROM t", database=shard))
    assert rows == sorted(server.run("SELECT id, v FROM t", database="whole"))
    for shard in SHARDS:
        assert server.run("SELECT to_regclass('never')", database=shard) == [(None,)]
    assert through.status == "I" and through.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("asks", [
    wire.parse("", "SELECT 1") + wire.SYNC,
    wire.parse("", "SELECT 1") + wire.describe("S") + wire.FLUSH + wire.SYNC,
    run("INSERT INTO t VALUES (48, 1, NULL)") + wire.SYNC], ids=["parse", "describe", "run"])
def test_a_transaction_that_failed_before_it_came_to_a_server(both, server, asks):
    through = both[0]
    through.query("BEGIN")
    assert say(through, "SELECT v FROM t ORDER BY v + id")[0] == ["0A000"]
    through.send(asks)
    assert wire.error_codes(through.receive_until_ready()) == ["25P02"] and through.status == "E"
    assert say(through, "INSERT INTO t VALUES (48, 1, NULL)")[0] == ["25P02"]
    through.send(wire.parse("", "ROLLBACK") + wire.describe("S") + wire.SYNC)
    assert [kind for kind, _ in through.receive_until_ready()] == ["1", "t", "n", "Z"]
    through.send(wire.bind() + wire.execute() + wire.SYNC)
    assert not wire.error_codes(through.receive_until_ready()) and through.status == "I"
    assert server.run("SELECT count(*) FROM t WHERE id = 48", database=SHARDS[0]) == [(0,)]


def test_the_unnamed_statement_behind_a_refused_one(both):
    """A Bind that was sent before the refusal was known does not run the one before."""
    through = both[0]
    through.send(run("DELETE FROM t WHERE id = $1", 7) + wire.SYNC)
    through.receive_until_ready()
    through.send(run("SELECT id FROM t WHERE v = $1 ORDER BY v + id", 42) + wire.SYNC +
                 wire.bind("", "", [42]) + wire.execute() + wire.SYNC)
    assert wire.error_codes(through.receive_until_ready(2)) == ["0A000", "26000"]
    assert through.query("SELECT id FROM t WHERE id = 42") == [["42"]]


def test_described_on_one_shard_and_run_on_another(suite, both):
    """By sessions that share connections: what one has parsed where it then did not run it, the
    next that comes there with the same text must not take for there."""
    chance = random.Random(5)
    clients = [suite.raw(database="app") for _ in range(12)]
    for _ in range(150):
        client, key = chance.choice(clients), chance.choice(list(KEY.values()))
        block = chance.random() < 0.5
        client.query("BEGIN" if block else "SELECT 1")
        client.send(wire.parse("", "SELECT id FROM t WHERE id = $1") + wire.describe("S") +
                    wire.SYNC)
        client.receive_until_ready()
        client.send(wire.bind("", "", [key]) + wire.execute() + wire.SYNC)
        assert client.rows(client.receive_until_ready()) == [[str(key)]]
        client.query("COMMIT" if block else "SELECT 1")
    for client in clients:
        client.close()


def test_cursors_and_portals_stay_where_they_are(both):
    through, whole = both
    for client in both:
        for at in "abcd":
            client.query(f"INSERT INTO log VALUES (42, '{at}')")
        client.query("INSERT INTO log VALUES (3, 'z')")
    for sql in ("BEGIN", "/* of mine */ DECLARE first CURSOR FOR SELECT at FROM log WHERE id = 42 ORDER BY at",
                "FETCH 1 FROM first",
                'DECLARE "Other" CURSOR FOR SELECT at FROM log WHERE id = 3', update(2),
                "FETCH 2 FROM first;", "MOVE 1 IN FIRST", 'FETCH ALL FROM "Other"',
                "FETCH first -- of mine", "CLOSE first", update(1), "FETCH 1 FROM first", "ROLLBACK"):
        assert say(through, sql) == say(whole, sql), sql
    answers = []
    for client in both:
        client.query("BEGIN")
        client.send(extended("SELECT at FROM log WHERE id = 42 ORDER BY at", "p", 1), wire.SYNC)
        answers.append(client.receive_until_ready())
        client.query(update(1))
        client.send(wire.execute("p", 2), wire.SYNC)
        answers.append(client.receive_until_ready())
        client.query(update(2))
        client.send(wire.describe("P", "p"), wire.execute("p"), wire.close("P", "p"), wire.SYNC)
        # The table has another number in each database.
        answers.append([one for one in client.receive_until_ready() if one[0] != "T"])
        client.query("COMMIT")
    assert answers[:3] == answers[3:]


def test_the_unnamed_portal_stays_where_it_is(both):
    answers = []
    for client in both:
        for key, at in (42, "a"), (42, "b"), (42, "c"), (3, "y"), (3, "z"):
            client.query(f"INSERT INTO log VALUES ({key}, '{at}')")
        read = "SELECT at FROM log WHERE id = {} ORDER BY at"
        client.query("BEGIN")
        client.send(extended(read.format(3), "", 1), wire.SYNC)
        client.receive_until_ready()
        client.send(extended(read.format(42), "", 1), wire.SYNC)
        answers.append(client.receive_until_ready())
        # By a named portal, and on the other shard.
        client.send(extended(read.format(3), "p", 1), wire.SYNC)
        answers.append(client.receive_until_ready())
        client.send(wire.execute("", 2), wire.SYNC)
        answers.append(client.receive_until_ready())
        client.query(update(2))
        client.send(wire.execute("", 2), wire.SYNC)
        answers.append(wire.error_codes(client.receive_until_ready()))
        client.query("ROLLBACK")
    assert answers[:4] == answers[4:]
    assert answers[3] == ["34000"], "the Query has ended it"


def test_cursors_of_one_name_on_two_shards(both):
    through, _ = both
    declare = "DECLARE c CURSOR FOR SELECT id FROM t WHERE id = {}"
    for sql in ("BEGIN", declare.format(42), "SELECT id FROM t WHERE id = 3"):
        through.query(sql)
    for sql in (declare.format(3), "CLOSE ALL"):
        through.query("SAVEPOINT a")
        assert say(through, sql)[0] == ["0A000"]
        through.query("ROLLBACK TO a")
    assert through.query("FETCH c") == [["42"]]
    through.query("CLOSE c")
    through.query(declare.format(3))
    assert through.query("FETCH c") == [["3"]]
    through.query("ROLLBACK")


def test_a_bound_session_is_asked_where_it_is_bound(both):
    """EXECUTE and the like name no shard."""
    through, _ = both
    through.query("PREPARE p AS SELECT 7")
    home = "SELECT current_database()"
    for sql in ("BEGIN", update(1), update(2), update(1)):
        through.query(sql)
    assert through.query("EXECUTE p") == [["7"]]
    through.query(update(2))
    assert through.query("EXECUTE p") == [["7"]]
    assert through.query(home) == through.query(home)
    through.query(update(1))
    through.query("DEALLOCATE p")
    through.query("COMMIT")
    assert "26000" in say(through, "EXECUTE p")[0]


@pytest.mark.parametrize("end", [wire.FLUSH, wire.SYNC], ids=["flush", "sync"])
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_what_is_for_all_shards_is_bound_and_executed_at_once(both, server, end, named):
    """As drivers with portals send it; on one shard alone it would be half done."""
    through, _ = both
    portal = "p" if named else ""
    for begin in (False, True):
        if begin:
            through.query("BEGIN")
            through.query(f"SELECT v FROM t WHERE id = {KEY[1]}")
        for text in ("CREATE TABLE apart (a int)", "TRUNCATE log"):
            through.send(wire.parse("", text), wire.bind(portal), end)
            through.send(wire.execute(portal), wire.SYNC)
            answers = through.receive_until_ready(2 if end == wire.SYNC else 1)
            assert "0A000" in wire.error_codes(answers), answers
        if begin:
            through.query("ROLLBACK")
    for name in SHARDS:
        assert server.run("SELECT to_regclass('apart')", database=name) == [(None,)]


@pytest.mark.parametrize("what", ["COMMIT", "ROLLBACK", "ROLLBACK TO a", "SET LOCAL v.w = 1"])
def test_a_transaction_does_not_end_at_a_bind(both, server, what):
    through, _ = both
    for words in ("BEGIN", f"UPDATE t SET v = 7 WHERE id = {KEY[0]}", "SAVEPOINT a",
                  f"UPDATE t SET v = 7 WHERE id = {KEY[1]}"):
        through.query(words)
    through.send(wire.parse("", what), wire.bind("p"), wire.SYNC)
    assert wire.error_codes(through.receive_until_ready()) == ["0A000"]
    through.query("ROLLBACK")
    for shard in (0, 1):
        assert server.run(f"SELECT v FROM t WHERE id = {KEY[shard]}",
                          database=SHARDS[shard]) == [(0,)]
    # Nor is another portal what is executed.
    for words in ("BEGIN", f"UPDATE t SET v = 7 WHERE id = {KEY[0]}",
                  f"UPDATE t SET v = 7 WHERE id = {KEY[1]}"):
        through.query(words)
    through.send(wire.parse("", what), wire.bind("p"), wire.execute("q"), wire.SYNC)
    assert wire.error_codes(through.receive_until_ready()) == ["0A000"]
    through.query("ROLLBACK")
    assert server.run(f"SELECT v FROM t WHERE id = {KEY[1]}", database=SHARDS[1]) == [(0,)]


@pytest.mark.parametrize("reset", ["RESET timezone", "RESET ALL", "SET LOCAL timezone = DEFAULT",
                                   "SELECT 1 FROM t WHERE id = 42; RESET timezone; SELECT 2"])
@pytest.mark.parametrize("after", range(4))
def test_reset_goes_back_to_the_start_of_the_session(suite, server, both, reset, after):
    """Behind the first `after` statements of a transaction: before it has a shard, with one, with
    two; and it holds on the shard that comes last."""
    before = [f"SELECT v FROM t WHERE id = {KEY[shard]}" for shard in (0, 1)]
    before.insert(0, "SET timezone TO 'Europe/Paris'")
    told = []
    for client in (RawClient(suite.port), RawClient(server.port)):
        client.login("postgres", "postgres", "app" if not told else "whole",
                     TimeZone="Asia/Tokyo")
        told.append([say(client, sql) for sql in (
            "BEGIN", *before[:after], reset, *before[after:3],
            *(f"SELECT '2024-02-01 00:00 UTC'::timestamptz, id FROM t WHERE id = {key}"
              for key in KEY.values()), "ROLLBACK", "SHOW timezone")])
        client.close()
    assert told[0] == told[1]


@pytest.mark.parametrize("own", ["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                                 "SELECT set_config('app.x', 'a' || 'b', false)"])
def test_settings_of_a_connection_are_not_left_behind(both, own):
    """On another shard the transaction would go on without them."""
    through, _ = both
    through.query(own)
    there = []
    for shard, key in KEY.items():
        through.query("BEGIN")
        try:
            assert through.query(f"SELECT v FROM t WHERE id = {key}") == [["0"]]
            there.append(shard)
        except ServerError as refused:
            assert refused.code == "0A000"
        through.query("ROLLBACK")
    assert len(there) == 1
    through.query("DISCARD ALL")
    for words in ("BEGIN", *(f"UPDATE t SET v = 1 WHERE id = {key}" for key in KEY.values()),
                  "ROLLBACK"):
        through.query(words)


def test_a_session_keeps_what_it_has_on_a_connection(both, suite):
    through, _ = both
    through.query("PREPARE mine AS SELECT 42")
    for end in ("COMMIT", "ROLLBACK"):
        through.query("BEGIN")
        for shard in KEY:
            through.query(update(shard))
        assert say(through, end) == ([end], "I")
        assert through.query("EXECUTE mine") == [["42"]]
    through.query("CREATE TABLE while_bound (id bigint)")
    through.query("DROP TABLE while_bound")
    assert through.query("EXECUTE mine") == [["42"]]
    # Without BEGIN it has one shard: that of its connection.
    said = [say(through, update(shard))[0] for shard in KEY]
    assert sorted(said) == [["0A000"], ["0A000"], ["UPDATE 1"]]
    assert through.query("EXECUTE mine") == [["42"]]


def test_a_server_that_dies_under_a_leg_ends_the_session(both, suite, server):
    for at in (1, 0, 2):    # lent; parked; the one that is lent, by a statement that runs
        client = suite.raw(database="app")
        client.query("BEGIN")
        client.query(update(0))
        client.query(update(1))
        of_shard = ("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' "
                    f"AND datname = 'spread_{min(at, 1)}'")
        # What another client has left may still be on its way out.
        wait_until(lambda: len(server.run(of_shard)) == 1, 5)
        pids = server.run(of_shard)
        if at == 2:
            client.send(wire.query("SELECT pg_sleep(20) FROM t WHERE id = 3"))
            time.sleep(0.3)
            os.kill(pids[0][0], signal.SIGTERM)
        else:
            server.run(f"SELECT pg_terminate_backend({pids[0][0]})")
        client.expect_closed()
        with server.connect("spread_0", options="-c lock_timeout=5s") as other:
            other.execute(update(0))
    assert "starting it again" not in suite.log_text()
    suite.check_no_leaks(database="app")


def test_a_client_that_goes_away_leaves_nothing(both, suite, server):
    client = suite.raw(database="app")
    client.query("BEGIN")
    client.query(update(0))
    client.query(update(1))
    client.socket.close()
    with server.connect("spread_0", options="-c lock_timeout=5s") as other:
        other.execute(update(0))
    suite.check_no_leaks(database="app")


def test_cancel_on_any_leg(both, suite, server):
    through, _ = both
    with server.connect("spread_1", autocommit=False) as other:
        other.execute(update(1))
        through.query("BEGIN")
        through.query(update(0))
        through.query("SAVEPOINT a")
        through.send(wire.query(update(1)))
        time.sleep(0.3)
        through.cancel(suite.port)
        names_of(through, "57014")
        other.rollback()
    through.query("ROLLBACK TO a")
    through.query(update(1))
    assert say(through, "COMMIT") == (["COMMIT"], "I")
    assert through.query(read(1)) == [["1"]]


def test_settings_of_two_phase_commit(suite, server):
    with Postgres({"max_prepared_transactions": "0"}) as plain:
        servers = [server, plain, server]
        for one, name in zip(servers, ("mode_0", "mode_1", "mode_2")):
            one.make_database(name)
            one.run(SCHEMA, database=name)
        setting = options()
        setting["databases"] = [{"name": "app", "shard": number, "port": servers[number].port,
                                 "database_name": f"mode_{number}"} for number in range(3)]
        with Suite(server, **setting) as running:
            def values():
                return [one.run("SELECT v FROM t ORDER BY id", database=f"mode_{number}")
                        for number, one in enumerate(servers)]

            def add(client, *shards):
                client.query("BEGIN")
                for shard in shards:
                    client.query(f"INSERT INTO t VALUES ({KEY[shard]}, 1)")
                return say(client, "COMMIT")
            with running.raw(database="app") as client:
                client.query("BEGIN")
                for shard in (0, 1, 2):
                    client.query(f"INSERT INTO t VALUES ({KEY[shard]}, 1)")
                client.send(wire.query("COMMIT"))
                # Shard 0 decides, so that the other two prepare.
                error = names_of(client, "55000")
                assert "max_prepared_transactions" in error["M"] and "shard 1" in error["M"]
                assert str(plain.port) in error["M"] and "restart" in error["H"]
                assert client.status == "I" and values() == [[], [], []]
                assert nothing_is_left(server)() is None
                assert add(client, 0, 2) == (["COMMIT"], "I")     # does not need that server
                client.send(wire.query("CREATE TABLE extra (id bigint)"))
                answer = client.receive_until_ready()
                assert kinds(answer) == "CZ"
                assert any("one shard after the other" in wire.error_fields(body)["M"]
                           for kind, body in answer if kind == "N")
                for number, one in enumerate(servers):
                    assert one.run("SELECT to_regclass('extra') IS NOT NULL",
                                   database=f"mode_{number}") == [(True,)]
            running.pgsled["cross_shard_writes"] = "best_effort"
            running.reload()
            with running.raw(database="app") as client:
                client.query("DELETE FROM t WHERE id = 42")
                client.query("DELETE FROM t WHERE id = 100")
                assert add(client, 0, 1, 2) == (["COMMIT"], "I")
                assert values() == [[(1,)]] * 3
            running.pgsled["cross_shard_writes"] = "atomic"
            running.general["two_phase_commit"] = False
            running.reload()
            with running.raw(database="app") as client:
                client.query("BEGIN")
                client.query("DELETE FROM t WHERE id = 42")
                client.query("DELETE FROM t WHERE id = 100")
                error = refused(client, "COMMIT")
                assert "two_phase_commit" in error["M"] and client.status == "I"
                assert values() == [[(1,)]] * 3
                client.query("BEGIN")
                client.query("DELETE FROM t WHERE id = 42")
                client.query("SELECT v FROM t WHERE id = 100")
                assert say(client, "COMMIT") == (["COMMIT"], "I")  # one has only read
                client.query("DROP TABLE extra")


@pytest.fixture(scope="module")
def one_by_one(server):
    """Shards that commit one after the other, the first one slowly."""
    names = [f"slowly_{number}" for number in range(3)]
    for name in names:
        server.make_database(name)
        server.run(SCHEMA, database=name)
    server.run("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
               "$$BEGIN PERFORM pg_sleep(1); RETURN NULL; END$$; CREATE CONSTRAINT TRIGGER slow "
               "AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
               "EXECUTE FUNCTION slow()", database=names[0])
    setting = options()
    setting["databases"] = [{"name": "app", "shard": number, "database_name": name}
                            for number, name in enumerate(names)]
    setting["pgsled"] = {"cross_shard_writes": "best_effort"}
    with Suite(server, **setting) as running:
        yield running, names


def commits_slowly(running, value):
    client = running.raw(database="app")
    client.query("BEGIN")
    for shard in (0, 1):
        client.query(f"DELETE FROM t WHERE id = {KEY[shard]}")
        client.query(f"INSERT INTO t VALUES ({KEY[shard]}, {value})")
    client.send(wire.query("COMMIT"))
    time.sleep(0.4)
    return client


def test_commits_one_after_the_other_go_on_without_their_client(one_by_one, server):
    running, names = one_by_one
    commits_slowly(running, 7).reset()
    def are_there():
        assert [server.run("SELECT v FROM t", database=name) for name in names[:2]] == [[(7,)]] * 2
    eventually(are_there)


@pytest.mark.parametrize("lost", [0, 1])
def test_who_is_lost_while_one_commits_after_the_other_may_have_committed(one_by_one, server, lost):
    running, names = one_by_one
    client = commits_slowly(running, 8)
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
               f"'{names[lost]}' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()")
    assert "committed" in names_of(client, "08007")["M"]
    assert client.status == "I"
    client.close()


def test_a_deadlock_over_shards_ends_within_three_seconds(both, suite, server):
    for repeat in range(2):
        with suite.raw(database="app") as first, suite.raw(database="app") as second:
            for client, shard in ((first, 0), (second, 1)):
                client.query("BEGIN")
                client.query(update(2 if client is first else shard))
                client.query("SAVEPOINT a")
                client.query(update(shard))
                time.sleep(0.02)
            second.query(read(0))
            began = time.monotonic()
            first.send(wire.query(update(1)))
            second.send(wire.query(update(0)))
            error = names_of(second, "40P01")     # the younger one
            assert time.monotonic() - began < 3.5
            assert error["M"] == "deadlock detected" and second.status == "E"
            if repeat:
                # What it held is given up with the savepoint, and the other goes on.
                second.query("ROLLBACK TO a")
                assert say(second, "ROLLBACK") == (["ROLLBACK"], "I")
            else:
                assert say(second, "ROLLBACK") == (["ROLLBACK"], "I")
            assert kinds(first.receive_until_ready()) == "CZ"
            assert say(first, "COMMIT") == (["COMMIT"], "I")
    suite.check_no_leaks(database="app")


def test_waiting_alone_is_no_deadlock(both, suite, server):
    with suite.raw(database="app") as first, suite.raw(database="app") as second:
        for client in (first, second):
            client.query("BEGIN")
        first.query(update(0))
        first.query(update(1))
        second.query(update(2))
        second.send(wire.query(update(0)))
        time.sleep(3.5)
        assert say(first, "COMMIT") == (["COMMIT"], "I")
        assert kinds(second.receive_until_ready()) == "CZ"
        assert say(second, "COMMIT") == (["COMMIT"], "I")


@pytest.mark.seconds(120)
def test_pools_do_not_wait_for_each_other_for_ever(suite, server):
    """All connections of two shards are held by transactions that want one of the other."""
    del suite   # it has made the schema
    size, patience = 3, 20
    setting = options({"default_pool_size": size, "checkout_timeout": patience * 1000})
    with Suite(server, **setting) as running:
        eventually(has_decisions(server, SHARDS), 15)
        for _ in range(3):
            clients = [running.raw(database="app", timeout=60) for _ in range(2 * size)]
            for number, client in enumerate(clients):
                client.query("BEGIN")
                client.query(read(number % 2))
            began = time.monotonic()
            for number, client in enumerate(clients):
                client.send(wire.query(read(1 - number % 2)))
            ends = []

            def end(client, ends=ends):
                kinds(client.receive_until_ready())
                ends.append((client.status, say(client, "COMMIT")[0][0]))
            threads = [threading.Thread(target=end, args=(client,)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert time.monotonic() - began < patience - 5
            assert set(ends) == {("T", "COMMIT"), ("E", "ROLLBACK")}, ends
            for client in clients:
                client.close()
        assert running.metric("pgsled_pool_deadlocks_total") > 0
        running.check_no_leaks(size=size, database="app")
