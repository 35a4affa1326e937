"""A database over three shards, compared with one PostgreSQL that holds all the rows."""

import asyncio
import os
import random
import signal
import time

import asyncpg
import psycopg
import pytest

from support import wire
from support.machine import HOST, freeze
from support.raw_client import Closed, ServerError
from support.suite import Suite, eventually

SHARDS = 3
# From PostgreSQL's PARTITION BY HASH with modulus 3.
KNOWN = {0: 2, 1: 2, 2: 0, 3: 1, 7: 1, 42: 0, 100: 2, -1: 2, -42: 2, 2147483647: 1,
         2147483648: 0, -2147483649: 1, 9223372036854775807: 0, -9223372036854775808: 1}
TABLES = ["accounts:user_id", "orders:user_id"]
SCHEMA = """
CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text, balance numeric(10,2));
CREATE TABLE orders (user_id bigint, id bigserial, item text, at timestamptz DEFAULT now(),
                     PRIMARY KEY (user_id, id));
CREATE TABLE countries (code text PRIMARY KEY, name text);
"""


def names(count=SHARDS):
    return [f"shard_{number}" for number in range(count)]


def options(count=SHARDS, dispatch="cached"):
    return {"databases": [{"name": "app", "shard": number, "database_name": name}
                          for number, name in enumerate(names(count))] + [{"name": "postgres"}],
            "sharded_tables": [{"database": "app", "name": one.split(":")[0],
                                "column": one.split(":")[1], "data_type": "bigint"}
                               for one in TABLES],
            "pgsled": {"dispatch": dispatch}}


def fresh(server, count=SHARDS):
    for name in names(count) + ["whole"]:
        server.make_database(name)


@pytest.fixture(scope="module")
def sharded(server, dispatch):
    """Schema made through the suite on the shards and directly in the database `whole`; the
    reference data is put on each shard."""
    fresh(server)
    with Suite(server, **options(dispatch=dispatch)) as running:
        with running.connect("app") as connection:
            connection.execute(SCHEMA)
        server.run(SCHEMA, database="whole")
        for name in names() + ["whole"]:
            server.run("INSERT INTO countries VALUES ('it', 'Italy'), ('de', 'Germany')",
                       database=name)
        yield running


@pytest.fixture
def both(sharded, server):
    """(through the suite, directly), with the same rows."""
    for name in names() + ["whole"]:
        server.run("TRUNCATE accounts, orders RESTART IDENTITY", database=name)
    with sharded.connect("app") as through, server.connect("whole") as direct:
        for connection in (through, direct):
            for user in range(-20, 60):
                connection.execute("INSERT INTO accounts VALUES (%s, %s, %s)",
                                   (user, f"name {user}", user * 1.5))
        yield through, direct


def where(server, table, key, count=SHARDS):
    """Shards that hold rows of the key."""
    return [number for number, name in enumerate(names(count))
            if server.run(f"SELECT 1 FROM {table} WHERE user_id = {key}", database=name)]


def rows(connection, sql, values=None):
    cursor = connection.execute(sql, values)
    return cursor.fetchall() if cursor.description else cursor.statusmessage


@pytest.mark.smoke
def test_rows_are_where_postgresql_would_put_them(both, sharded, server):
    through, _ = both
    for key, shard in KNOWN.items():
        if not -20 <= key < 60:
            through.execute("INSERT INTO accounts VALUES (%s, 'known', 0)", (key,))
        assert where(server, "accounts", key) == [shard], key


@pytest.mark.smoke
def test_four_ways_to_give_a_key(both, sharded):
    client = sharded.raw(database="app")
    for key in (-20, -1, 0, 5, 42, 59):
        expected = [[f"name {key}"]]
        assert client.query(f"SELECT name FROM accounts WHERE user_id = {key}") == expected
        assert client.query(f"SELECT name FROM accounts WHERE user_id = '{key}'") == expected
        assert client.prepared("SELECT name FROM accounts WHERE user_id = $1",
                               [key]) == expected
        for types, width in (((), 8), ((20,), 8), ((23,), 4), ((21,), 2)):
            client.send(wire.parse("", "SELECT name FROM accounts WHERE user_id = $1", types),
                        wire.bind("", "", [key.to_bytes(width, "big", signed=True)], [1]),
                        wire.execute(), wire.SYNC)
            assert client.rows(client.receive_until_ready()) == expected, (types, key)


STATEMENTS = [
    "SELECT * FROM accounts WHERE user_id = {k}",
    "SELECT * FROM public.accounts AS a WHERE a.user_id = {k} AND a.balance > 0",
    "SELECT a.name FROM accounts a WHERE {k} = a.user_id AND (a.name LIKE 'n%' OR false)",
    "SELECT count(*), sum(balance) FROM accounts WHERE user_id = {k}",
    "UPDATE accounts SET balance = balance + 10 WHERE user_id = {k} RETURNING user_id, balance",
    "INSERT INTO orders (user_id, id, item) VALUES ({k}, 5, 'book') RETURNING user_id, item",
    "INSERT INTO orders VALUES ({k}, 6, 'pen')",
    "SELECT o.item, a.name FROM orders o JOIN accounts a ON a.user_id = o.user_id"
    " WHERE o.user_id = {k} ORDER BY o.id",
    "SELECT o.item, a.name FROM orders o JOIN accounts a USING (user_id)"
    " WHERE a.user_id = {k} ORDER BY item",
    "SELECT item FROM orders WHERE user_id = {k} ORDER BY id DESC LIMIT 1",
    "SELECT a.name, c.name FROM accounts a, countries c WHERE a.user_id = {k} AND c.code = 'it'",
    "DELETE FROM orders WHERE user_id = {k} AND item = 'book'",
    "UPDATE accounts SET name = name || '!' WHERE user_id = {k}",
    "SELECT * FROM accounts WHERE user_id = {k} AND user_id = {k}",
    "SELECT 1 FROM accounts WHERE user_id = {k} FOR UPDATE",
    "DELETE FROM accounts WHERE user_id = {k} RETURNING *",
    "SELECT * FROM accounts WHERE user_id = {k}",
]


@pytest.mark.parametrize("how", ["literal", "quoted", "text", "binary"])
def test_same_as_one_postgresql(both, how):
    through, direct = both
    for key in (-3, 0, 1, 2, 3, 7, 42):
        for statement in STATEMENTS:
            if how in ("literal", "quoted"):
                sql, values = statement.format(k=key if how == "literal" else f"'{key}'"), None
            else:
                sql = statement.replace("%", "%%").format(k="%t" if how == "text" else "%b")
                values = tuple([key] * sql.count("%t" if how == "text" else "%b"))
            assert rows(through, sql, values) == rows(direct, sql, values), sql


def test_keys_that_are_not_plain_numbers(both, server):
    """What PostgreSQL makes of it decides where it goes; or it is refused."""
    through, direct = both
    for text in ("' 42'", "'42 '", "'+42'", "'042'", "42::bigint", "CAST('42' AS bigint)", "- -42",
                 "40 + 2", "42.0", "'42'::int", "42::text::bigint", "4.2e1", "(42)", "NULL",
                 "(SELECT 42)", "abs(-42)", "0x2a", "'abc'", "99999999999999999999"):
        sql = f"SELECT name FROM accounts WHERE user_id = {text}"
        try:
            expected = rows(direct, sql)
        except psycopg.Error as failure:
            expected = failure.sqlstate
        try:
            got = rows(through, sql)
        except psycopg.Error as failure:
            got = failure.sqlstate
        assert got in (expected, "0A000"), (text, got, expected)


@pytest.mark.smoke
@pytest.mark.parametrize("sql", [
    "SELECT * FROM accounts WHERE user_id = 1 OR name = 'name 2'",
    "SELECT * FROM accounts WHERE NOT user_id = 1",
    "SELECT * FROM accounts a LEFT JOIN orders o ON o.user_id = 1",
    "UPDATE accounts SET user_id = 5 WHERE user_id = 1",
    "INSERT INTO accounts (name) VALUES ('no key')",
    "INSERT INTO accounts VALUES (1, 'a', 0), (2, 'b', 0)",
    "INSERT INTO accounts SELECT generate_series(1, 10)",
    "DELETE FROM accounts", "UPDATE accounts SET balance = 0",
    "INSERT INTO countries SELECT user_id::text FROM accounts",
    "WITH gone AS (DELETE FROM countries RETURNING *) SELECT * FROM gone",
    "SELECT 1 FROM accounts a, orders o WHERE a.user_id = 1 AND o.user_id = 2",
    "WITH d AS (DELETE FROM accounts RETURNING *) SELECT * FROM d WHERE user_id = 1",
    "SELECT * FROM accounts WHERE user_id = (SELECT max(user_id) FROM orders)",
    "COPY accounts (name) FROM STDIN",
])
def test_refused(both, server, sql):
    through, _ = both
    before = [server.run("SELECT count(*) FROM accounts", database=name) for name in names()]
    with pytest.raises(psycopg.errors.FeatureNotSupported) as failure:
        through.execute(sql)
    text = str(failure.value) + str(failure.value.diag.message_hint)
    assert any(name in text for name in ("accounts", "orders", "countries")), text
    after = [server.run("SELECT count(*) FROM accounts", database=name) for name in names()]
    assert after == before
    assert through.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("sql", [
    "SELECT * FROM accounts ORDER BY user_id", "SELECT count(*) FROM accounts",
    "SELECT * FROM accounts WHERE user_id IN (1, 2, 3) ORDER BY user_id",
    "SELECT * FROM accounts WHERE user_id > 5 ORDER BY user_id LIMIT 3",
    "SELECT max(user_id) FROM accounts",
    "SELECT a.name FROM accounts a JOIN orders o ON a.user_id = o.user_id",
    "SELECT * FROM (SELECT * FROM accounts) s WHERE user_id = 1",
    "SELECT * FROM accounts WHERE user_id = 1 UNION SELECT * FROM accounts WHERE user_id = 2"
    " ORDER BY user_id", "SELECT name FROM countries ORDER BY code",
    "SELECT * FROM accounts WHERE EXISTS (SELECT 1 FROM orders) AND user_id = 1",
    "EXPLAIN (COSTS OFF) SELECT * FROM accounts WHERE user_id = 1", "TABLE accounts",
])
def test_exact_or_refused(both, sql):
    through, direct = both
    try:
        got = rows(through, sql)
    except psycopg.errors.FeatureNotSupported:
        return
    assert got == rows(direct, sql)


def test_housekeeping_goes_to_one_shard(both, sharded):
    through, _ = both
    for sql in ("SELECT 1", "SHOW server_version", "SELECT now()", "SELECT current_user",
                "SELECT relname FROM pg_class WHERE relname = 'accounts'", "SELECT version()",
                "SET work_mem = '5MB'", "SHOW work_mem", "RESET ALL", "SELECT name FROM countries"
                " WHERE code = 'it'", "SELECT pg_catalog.format_type(20, NULL)"):
        through.execute(sql)
    first = sharded.raw(database="app")
    port = {first.query("SELECT current_database()")[0][0] for _ in range(10)}
    assert len(port) == 1


def test_transaction_stays_on_its_shard(both, sharded, server):
    client = sharded.raw(database="app")
    for key in (1, 2, 3):
        client.query("BEGIN")
        client.query(f"UPDATE accounts SET balance = 1000 WHERE user_id = {key}")
        assert client.query("SELECT current_database()") == [[f"shard_{KNOWN[key]}"]]
        client.query("ROLLBACK")
    # A batch without BEGIN is one transaction, too, and has no second shard.
    client.send(*[part for key in (1, 2) for part in (
        wire.parse("", f"UPDATE accounts SET balance = 1000 WHERE user_id = {key}"),
        wire.bind(), wire.execute())], wire.SYNC)
    with pytest.raises(ServerError) as failure:
        client.rows(client.receive_until_ready())
    assert failure.value.code == "0A000"
    assert client.query("SELECT balance FROM accounts WHERE user_id = 1") == [["1.50"]]
    sharded.check_no_leaks(database="app")


def test_begin_modes_reach_the_shard(both, sharded):
    client = sharded.raw(database="app")
    client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")
    with pytest.raises(ServerError) as failure:
        client.query("UPDATE accounts SET balance = 0 WHERE user_id = 3")
    assert failure.value.code == "25006"
    client.query("ROLLBACK")


def test_savepoints(both, sharded):
    client = sharded.raw(database="app")
    client.query("BEGIN")
    client.query("SAVEPOINT a")
    client.query("UPDATE accounts SET name = 'x' WHERE user_id = 3")
    client.query("ROLLBACK TO a")
    assert client.query("SELECT name FROM accounts WHERE user_id = 3") == [["name 3"]]
    client.query("COMMIT")
    assert client.status == "I"


@pytest.mark.smoke
def test_ddl_on_all_shards(both, server):
    through, _ = both
    through.execute("CREATE TABLE made (user_id bigint, v int)")
    through.execute("CREATE INDEX made_v ON made (v); ALTER TABLE made ADD COLUMN w text")
    for name in names():
        assert server.run("SELECT count(*) FROM pg_attribute WHERE attrelid = 'made'::regclass"
                          " AND attnum > 0", database=name) == [(3,)]
    through.execute("DROP TABLE made")
    for name in names():
        assert server.run("SELECT to_regclass('made')", database=name) == [(None,)]


def test_statements_that_have_no_transaction_go_from_shard_to_shard(both, server):
    through, _ = both

    def on_shards(sql):
        return [server.run(sql, database=name)[0][0] for name in names()]
    indexes = ("SELECT coalesce(string_agg(indexrelid::regclass || ' ' || indisvalid, ', ' "
               "ORDER BY indexrelid), '') "
               "FROM pg_index WHERE indrelid = 'built'::regclass")
    through.execute("CREATE TABLE built (user_id bigint, v int)")
    try:
        through.execute("CREATE INDEX CONCURRENTLY built_v ON built (v)")
        assert on_shards(indexes) == ["built_v true"] * SHARDS
        through.execute("REINDEX TABLE CONCURRENTLY built", prepare=True)
        before = on_shards("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'built'")
        through.execute("VACUUM (ANALYZE) built")
        def vacuumed():
            assert on_shards("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = "
                             "'built'") == [one + 1 for one in before]
        eventually(vacuumed)
        assert on_shards(indexes) == ["built_v true"] * SHARDS
        with through.transaction(), pytest.raises(psycopg.errors.ActiveSqlTransaction):
            with through.transaction():
                through.execute("VACUUM built")
        # One that fails in the middle is said to have run on those before it.
        server.run("INSERT INTO built VALUES (1, 1), (2, 1)", database=names()[1])
        with pytest.raises(psycopg.errors.UniqueViolation) as error:
            through.execute("CREATE UNIQUE INDEX CONCURRENTLY built_once ON built (v)")
        assert error.value.diag.message_hint.startswith("Say it again")
        assert error.value.diag.message_detail.endswith("It has run on 1 of 3 shards already, and "
                                                        "is not undone there.")
        assert on_shards(indexes) == (["built_v true, built_once true",
                                       "built_v true, built_once false"] +
                                      ["built_v true"] * SHARDS)[:SHARDS]
        through.execute("DROP INDEX CONCURRENTLY IF EXISTS built_once")
        through.execute("DROP INDEX CONCURRENTLY built_v")
        assert on_shards(indexes) == [""] * SHARDS
    finally:
        through.execute("DROP TABLE built")


@pytest.mark.parametrize("bad", range(SHARDS))
def test_ddl_all_or_none(both, server, bad):
    through, _ = both
    server.run("CREATE TABLE clash (a int)", database=names()[bad])
    try:
        with pytest.raises(psycopg.errors.DuplicateTable):
            through.execute("CREATE TABLE clash (a int)")
        for number, name in enumerate(names()):
            there = server.run("SELECT to_regclass('clash') IS NOT NULL", database=name)
            assert there == [(number == bad,)], name
    finally:
        server.run("DROP TABLE clash", database=names()[bad])
    assert through.execute("SELECT 1").fetchone() == (1,)


def test_sequences_do_not_meet(both, server):
    through, _ = both
    seen = {}
    for key in range(0, 30):
        for _ in range(3):
            (number,) = through.execute("INSERT INTO orders (user_id, item) VALUES (%s, 'x')"
                                        " RETURNING id", (key,)).fetchone()
            assert number not in seen, f"{number} of {key} and {seen[number]}"
            seen[number] = key
    for shard, name in enumerate(names()):
        ids = [row[0] for row in server.run("SELECT id FROM orders", database=name)]
        assert ids and {number % 1024 for number in ids} == {shard + 1}


def test_identity_columns_do_not_meet(both, server):
    through, _ = both
    through.execute("CREATE TABLE IF NOT EXISTS with_identity (user_id bigint,"
                    " id bigint GENERATED BY DEFAULT AS IDENTITY)")
    got = [server.run("INSERT INTO with_identity (user_id) VALUES (1) RETURNING id",
                      database=name)[0][0] for name in names()]
    assert got == [1, 2, 3]
    through.execute("DROP TABLE with_identity")


def test_asyncpg_on_shards(both, sharded):
    """Its type look-ups, its pool's reset, prepared statements with binary parameters."""
    async def main():
        async with asyncpg.create_pool(f"postgresql://postgres:postgres@{HOST}:{sharded.port}/app",
                                       min_size=2, max_size=6) as pool:
            async def one(key):
                row = await pool.fetchrow(
                    "SELECT name, balance FROM accounts WHERE user_id = $1", key)
                assert row["name"] == f"name {key}"
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute(
                        "UPDATE accounts SET balance = balance + 1 WHERE user_id = $1", key)
            for _ in range(3):
                await asyncio.gather(*(one(key) for key in range(-20, 60)))
    asyncio.run(main())


def test_pipeline_over_shards(both, sharded):
    client = sharded.raw(database="app")
    sent, expected = b"", []
    for _ in range(100):
        key = random.randrange(-20, 60)
        sent += (wire.parse("", "SELECT name FROM accounts WHERE user_id = $1") +
                 wire.bind("", "", [key]) + wire.execute() + wire.SYNC)
        expected.append([f"name {key}"])
    client.send(sent)
    assert client.rows(client.receive_until_ready(100)) == expected


@pytest.mark.parametrize("send", [wire.query, lambda sql: wire.run(sql) + wire.SYNC],
                         ids=["simple", "extended"])
def test_what_gets_no_plan_is_refused_in_its_turn(start, server, send):
    """A server still owes the reply to the statement before it."""
    fresh(server)
    # One worker: a cancel request that came to another would go by way of the router.
    suite = start(general={"checkout_timeout": 500, "workers": 1}, **options())
    client = suite.raw(database="app")
    def plan_is_kept():   # no new epoch comes any more
        client.query("SELECT pg_sleep(0), 'first'")
        before = suite.metric("pgsled_plans_cold_total")
        time.sleep(1)
        client.query("SELECT pg_sleep(0), 'first'")
        assert suite.metric("pgsled_plans_cold_total") == before
    eventually(plan_is_kept)
    router = suite.pid("router")
    freeze(router)
    try:
        client.send(send("SELECT pg_sleep(1), 'first'"), send("SELECT 'new', 'shape'"))
        got = client.receive_until_ready(2)
        assert [wire.data_row(body) for kind, body in got if kind == "D"] == [[b"", b"first"]]
        assert [kind for kind, _ in got if kind in "CEZ"] == ["C", "Z", "E", "Z"]
        assert wire.error_codes(got) == ["57P03"]
        # Cancelled is what runs.
        began = time.monotonic()
        client.send(send("SELECT pg_sleep(30), 'first'"), send("SELECT 1, 'new', 'shape'"))
        time.sleep(0.2)
        client.cancel(suite.port)
        assert wire.error_codes(client.receive_until_ready(2)) == ["57014", "57P03"]
        assert time.monotonic() - began < 10
    finally:
        os.kill(router, signal.SIGCONT)
    assert client.query("SELECT 1, 'new', 'shape'") == [["1", "new", "shape"]]


def test_copy_out_of_all_shards_or_one(both):
    through, direct = both
    for statement in ("COPY accounts TO STDOUT", "COPY (SELECT * FROM accounts WHERE user_id = 7) "
                      "TO STDOUT"):
        rows = []
        for connection in (through, direct):
            with connection.cursor().copy(statement) as copy:
                rows.append(sorted(bytes(part) for part in copy))
        assert rows[0] == rows[1] and rows[0], statement


@pytest.mark.seconds(60)
def test_another_shard_never_moves_a_key(server):
    """Two shards in the file, then three: the third owns nothing, gets DDL, and every row is
    found where it was."""
    fresh(server)
    with Suite(server, **options(2)) as suite:
        with suite.connect("app") as connection:
            connection.execute("CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text)")
            for user in range(50):
                connection.execute("INSERT INTO accounts VALUES (%s, 'before')", (user,))
        suite.databases = options(3)["databases"]
        suite.restart()
        with suite.connect("app") as connection:
            for user in range(50):
                assert connection.execute("SELECT name FROM accounts WHERE user_id = %s",
                                          (user,)).fetchone() == ("before",)
            for user in range(50, 100):
                connection.execute("INSERT INTO accounts VALUES (%s, 'after')", (user,))
            connection.execute("CREATE TABLE later (a int)")
        assert server.run("SELECT to_regclass('accounts')", database="shard_2") == [(None,)]
        assert server.run("SELECT to_regclass('later')", database="shard_2") != [(None,)]
        both_shards = [server.run("SELECT count(*) FROM accounts", database=name)[0][0]
                       for name in names(2)]
        assert sum(both_shards) == 100 and min(both_shards) > 20


@pytest.mark.seconds(60)
def test_stored_map_that_contradicts_the_file(server):
    """Three shards, then two in the file: refused with the reason, not served wrongly."""
    fresh(server)
    with Suite(server, **options(3)) as suite:
        with suite.connect("app") as connection:
            connection.execute("CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text)")
        suite.stop()
        suite.databases = options(2)["databases"][:2] + [{"name": "postgres"}]
        suite.start(wait=False)
        try:
            suite.wait_ready(6)
            with pytest.raises((psycopg.Error)):
                with suite.connect("app") as connection:
                    connection.execute("SELECT * FROM accounts WHERE user_id = 1")
        except RuntimeError:
            pass
        assert "shard" in suite.log_text() and "map" in suite.log_text()


@pytest.mark.seconds(60)
@pytest.mark.parametrize("count", [1, 2])
def test_a_bound_session_ends_when_its_database_gets_another_shard(server, count):
    """It would go on by the shards of before. A transaction is finished first; who has no
    connection of his own goes on."""
    fresh(server)
    with Suite(server, **options(count)) as suite:
        bound, busy, free = (suite.raw(database="app") for _ in range(3))
        free.query("CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text)")
        free.query("CREATE TABLE countries (code text PRIMARY KEY)")
        for client in (bound, busy):
            client.query("PREPARE q AS SELECT 1")
        busy.query("BEGIN")
        busy.query("INSERT INTO accounts VALUES (0, 'before')")
        suite.databases = options(count + 1)["databases"]
        suite.reload()
        assert bound.expect_closed()["C"] == "57P01"
        assert busy.query("SELECT name FROM accounts WHERE user_id = 0") == [["before"]]
        busy.query("COMMIT")
        with pytest.raises((ServerError, Closed)) as failure:
            busy.query("SELECT 1")
        assert isinstance(failure.value, Closed) or failure.value.code == "57P01"
        def goes_on():
            free.query("CREATE TABLE IF NOT EXISTS later (a int)")
            assert server.run("SELECT to_regclass('later') IS NULL",
                              database=f"shard_{count}") == [(False,)]
        eventually(goes_on)
        assert free.query("SELECT name FROM accounts WHERE user_id = 0") == [["before"]]


@pytest.mark.seconds(60)
def test_a_transaction_cannot_join_a_server_that_was_taken_away(server):
    """An error at once, not a wait with locks."""
    fresh(server)
    with Suite(server, **options(2)) as suite:
        client = suite.raw(database="app")
        client.query("CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text)")
        for user in range(10):
            client.query(f"INSERT INTO accounts VALUES ({user}, 'x')")
        mine = [server.run("SELECT min(user_id) FROM accounts", database=name)[0][0]
                for name in names(2)]
        client.query("BEGIN")
        client.query(f"UPDATE accounts SET name = 'y' WHERE user_id = {mine[0]}")
        suite.databases = [dict(one, host="localhost") if one.get("shard") == 1 else one
                           for one in suite.databases]
        suite.reload()
        time.sleep(1)
        began = time.monotonic()
        with pytest.raises(ServerError) as failure:
            client.query(f"UPDATE accounts SET name = 'y' WHERE user_id = {mine[1]}")
        assert failure.value.code == "57P01"
        assert time.monotonic() - began < 3
        client.query("ROLLBACK")
        client.query("BEGIN")
        for user in mine:
            client.query(f"UPDATE accounts SET name = 'y' WHERE user_id = {user}")
        client.query("COMMIT")
