"""Writes to tables that are on every shard, compared with one PostgreSQL."""

import asyncio
import os
import random
import threading
import time

import asyncpg
import psycopg
import pytest

from support import wire
from support.machine import HOST
from support.raw_client import RawClient, ServerError
from support.suite import Suite, eventually, has_decisions

SHARDS = ["each_0", "each_1", "each_2"]
KEY = {0: 42, 1: 3, 2: 100}   # a key of each shard, by PARTITION BY HASH with modulus 3
TABLES = ["countries", "tags", "odd"]
SCHEMA = """
CREATE TABLE countries (code text PRIMARY KEY, name text, n int CHECK (n < 1000));
CREATE TABLE tags (id serial PRIMARY KEY, name text UNIQUE, at timestamptz DEFAULT now(),
                   token uuid DEFAULT gen_random_uuid(),
                   size int GENERATED ALWAYS AS (length(name)) STORED);
CREATE TABLE odd (id int GENERATED ALWAYS AS IDENTITY, "Odd, name" text, f float8, a text[],
                  i interval, b bytea, j json);
CREATE TABLE t (id bigint PRIMARY KEY, country text REFERENCES countries ON DELETE CASCADE);
CREATE VIEW seen AS SELECT code, name FROM countries;
"""


def options(general=None, pgsled=None):
    return {"general": dict(general or {}),
            "pgsled": dict(pgsled or {}),
            "databases": [{"name": "app", "shard": number, "database_name": name}
                          for number, name in enumerate(SHARDS)],
            "users": [{"name": "postgres", "database": "app"}, {"name": "app", "database": "app"}],
            "sharded_tables": [{"database": "app", "name": "t", "column": "id",
                                "data_type": "bigint"}]}


@pytest.fixture(scope="module")
def suite(server, dispatch):
    for name in SHARDS + ["whole"]:
        server.make_database(name)
    with Suite(server, **options(pgsled={"dispatch": dispatch})) as running:
        with running.connect("app") as connection:
            connection.execute(SCHEMA)
        server.run(SCHEMA, database="whole")
        eventually(has_decisions(server, SHARDS), 15)
        yield running


@pytest.fixture
def both(suite, server):
    """(through the suite, directly), with the same rows."""
    for name in SHARDS + ["whole"]:
        server.run("TRUNCATE t, countries, tags, odd RESTART IDENTITY",
                   "INSERT INTO countries VALUES ('it', 'Italy', 1), ('de', 'Germany', 2)",
                   database=name)
    through, direct = suite.raw(database="app"), RawClient(server.port)
    direct.login("postgres", "postgres", "whole")
    yield through, direct
    through.close()
    direct.close()


def answers(client, *messages):
    """What a user sees: kinds of messages, rows, tags, and the status."""
    client.send(*messages)
    got = []
    for kind, body in client.receive_until_ready():
        if kind == "D":
            got.append(wire.data_row(body))
        elif kind == "C":
            got.append(body.rstrip(b"\0").decode())
        elif kind == "E":
            fields = wire.error_fields(body)
            got.append((fields["C"], fields["M"], fields.get("n"), fields.get("P")))
        elif kind == "T":
            got.append((kind, wire.columns(body)))
        elif kind not in "NSZ":
            got.append(kind)
    return got, client.status


def say(client, sql):
    return answers(client, wire.query(sql))


def tables(server, *names):
    """Rows of each shard and of the single server, by table; all shards have the same."""
    found = []
    for name in SHARDS + ["whole"]:
        found.append([sorted(server.run(f"SELECT {table}::text FROM {table}", database=name))
                      for table in names or TABLES])
    assert found[0] == found[1] == found[2]
    return found[0], found[3]


def same(server, *names):
    shards, whole = tables(server, *(names or ["countries"]))
    assert shards == whole
    return whole[0]


STATEMENTS = [
    "INSERT INTO countries VALUES ('fr', 'France', 3)",
    "insert into public.countries as c (code, name) values ('at', 'Austria'), ('ch', 'x') ; -- two",
    "INSERT INTO countries VALUES ('be', 'Belgium', 4) RETURNING *",
    "INSERT INTO countries VALUES ('nl', 'NL', 5) RETURNING code, n + 1 AS more, 'x;' AS \"a b\";",
    "UPDATE countries SET n = n + 1",
    "UPDATE countries SET name = name || '!' WHERE code = 'it' RETURNING name /* it */",
    "UPDATE countries c SET n = s.n FROM (VALUES ('it', 10), ('de', 20)) AS s (code, n)"
    " WHERE s.code = c.code",
    "UPDATE countries SET n = 7 WHERE false",
    "INSERT INTO countries VALUES ('it', 'Italia', 9) ON CONFLICT (code) DO UPDATE"
    " SET name = excluded.name, n = countries.n + excluded.n RETURNING code, name, n",
    "INSERT INTO countries VALUES ('it', 'no', 9) ON CONFLICT DO NOTHING RETURNING code",
    "WITH low AS (SELECT code FROM countries WHERE n < 5) DELETE FROM countries c USING low"
    " WHERE low.code = c.code",
    "INSERT INTO countries SELECT 'c' || g, 'made', g FROM generate_series(1, 200) g",
    "INSERT INTO countries SELECT code || '2', name, n FROM countries WHERE n > 150",
    "DELETE FROM countries WHERE code = 'c7' RETURNING n, code",
    "DELETE FROM countries WHERE n > 190",
    "INSERT INTO countries VALUES ('it', 'twice', 1)",
    "INSERT INTO countries VALUES ('xx', 'x', 5000)",
    "INSERT INTO countries VALUES ('xx', 'x', 'no number')",
    "UPDATE countries SET nothing = 1",
    "INSERT INTO nowhere VALUES (1)",
    "UPDATE countries SET n = 1/0",
    "UPDATE countries SET n = 1 WHERE code = 'it' AND EXISTS (SELECT 1 FROM tags)",
    "TABLE countries ORDER BY code",
    "DELETE FROM countries",
]


@pytest.mark.smoke
@pytest.mark.parametrize("how", ["alone", "begun", "begun after a key", "extended"])
def test_as_on_one_server(both, server, how):
    through, direct = both
    for sql in STATEMENTS:
        if how == "extended":
            sent = (wire.parse("", sql), wire.describe("S"), wire.bind(), wire.describe("P"),
                    wire.execute(), wire.SYNC)
            got, wanted = (answers(client, *sent) for client in both)
            if any(isinstance(one, tuple) and one[0] != "T" for one in wanted[0]):
                # What comes before an error is not told when a later shard might be the one.
                strip = [[one for one in side[0] if isinstance(one, tuple) and one[0] != "T"]
                         for side in (got, wanted)]
                assert strip[0] == strip[1] and got[1] == wanted[1], sql
            else:
                assert got == wanted, sql
        else:
            wanted = []
            for client in both:
                said = []
                if how != "alone":
                    said.append(say(client, "BEGIN"))
                if how == "begun after a key":
                    said.append(say(client, "INSERT INTO t VALUES (3)"))
                said.append(say(client, sql))
                if how != "alone":
                    said.append(say(client, "SELECT count(*) FROM countries"))
                    said.append(say(client, "DELETE FROM t WHERE id = 3"))
                    said.append(say(client, "COMMIT"))
                wanted.append(said)
            assert wanted[0] == wanted[1], sql
        same(server)
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []


def test_parameters_and_prepared_statements(both, server):
    insert = "INSERT INTO countries VALUES ($1, $2, $3) RETURNING n, code"
    for at, client in enumerate(both):
        client.got = [
            answers(client, wire.parse("s", insert), wire.describe("S", "s"), wire.SYNC)]
        for n, formats, results in ((1, (), ()), (2, (0, 0, 1), (1,)), (3, (0, 0, 1), (1, 0)),
                                    (4, (1, 1, 1), (0, 1))):
            value = n.to_bytes(4, "big") if formats else str(n)
            client.got.append(answers(
                client, wire.bind("", "s", [f"c{n}", None, value], formats, results),
                wire.describe("P"), wire.execute(), wire.SYNC))
        client.got.append(answers(client, wire.bind("p", "s", ["c1", "again", "1"]),
                                  wire.execute("p"), wire.SYNC))
        client.got.append(answers(client, wire.bind("p", "s", ["c9", "x", "no"]),
                                  wire.execute("p"), wire.SYNC))
    # An error of another shard might come later: the client has not been told of Bind then.
    shown = [[([one for one in got if got[-1][0][:2] not in ("23", "22") or one[0][:1] == "2"]
               if isinstance(got[-1], tuple) else got, status) for got, status in client.got]
             for client in both]
    for got, wanted in zip(*shown):
        errors = [one for one in wanted[0] if isinstance(one, tuple) and len(one) == 4]
        if errors:
            assert errors == [one for one in got[0] if isinstance(one, tuple) and len(one) == 4]
        else:
            assert got == wanted
    assert len(same(server)) == 6


def test_batches(both, server):
    insert = "INSERT INTO countries VALUES ($1, $1, 1)"
    many = [wire.parse("many", insert)]
    for n in range(20):
        many += [wire.bind("", "many", [f"m{n}"]), wire.describe("P"), wire.execute()]
    assert answers(both[0], *many, wire.SYNC) == answers(both[1], *many, wire.SYNC)
    assert len(same(server)) == 22
    # All or nothing.
    bad = [wire.bind("", "many", ["ok"]), wire.execute(), wire.bind("", "many", ["m3"]),
           wire.execute()]
    got, wanted = answers(both[0], *bad, wire.SYNC), answers(both[1], *bad, wire.SYNC)
    assert got[0][-1][0] == wanted[0][-1][0] == "23505" and got[1] == wanted[1] == "I"
    assert len(same(server)) == 22
    # BEGIN at the head of the batch, as drivers send it.
    begun = [wire.parse("", "BEGIN"), wire.bind(), wire.execute(),
             wire.parse("", "UPDATE countries SET n = 5 RETURNING n"), wire.bind(),
             wire.describe("P"), wire.execute(), wire.SYNC]
    assert answers(both[0], *begun) == answers(both[1], *begun)
    assert say(both[0], "COMMIT") == say(both[1], "COMMIT") == (["COMMIT"], "I")
    same(server)
    # A limit, as asyncpg's fetchval() has it.
    for limit in (1, 2, 100):
        limited = [wire.parse("", "UPDATE countries SET n = n + 1 WHERE code > 'm17' RETURNING n"),
                   wire.bind(), wire.execute(rows=limit), wire.SYNC]
        assert answers(both[0], *limited) == answers(both[1], *limited)
    same(server)
    # Others in the same batch would be in the same transaction.
    for other in ("SELECT 1", "INSERT INTO t VALUES (42, NULL)"):
        got, status = answers(both[0], wire.bind("", "many", ["other"]), wire.execute(),
                              wire.parse("", other), wire.bind(), wire.execute(), wire.SYNC)
        assert got[0][0] == "0A000" and status == "I"
    got, status = answers(both[0], wire.bind("", "many", ["other"]), wire.execute(), wire.FLUSH,
                          wire.SYNC)
    assert got[0][0] == "0A000" and status == "I"
    assert len(same(server)) == 22


def test_values_are_made_once(both, server):
    """Sequences, clocks and random defaults: the same row on every shard."""
    through, direct = both
    for n in range(5):
        got, wanted = (say(client, f"INSERT INTO tags (name) VALUES ('tag {n}'), ('more {n}') "
                                   "RETURNING name, size, id IS NOT NULL") for client in both)
        assert got == wanted
        say(through, "INSERT INTO tags (name, at) VALUES ('bad', now()), ('bad', now())")
    got, _ = say(through, "INSERT INTO tags (name, at) SELECT 'now', clock_timestamp() "
                          "RETURNING id, at, token, size")
    rows, _ = tables(server, "tags")
    assert len(rows[0]) == 11
    stored = server.run("SELECT id, at, token, size FROM tags WHERE name = 'now'",
                        database=SHARDS[2])[0]
    assert got[1][0] == str(stored[0]).encode() and got[1][2] == str(stored[2]).encode()
    ids = [one for one, in server.run("SELECT id FROM tags", database=SHARDS[1])]
    assert len(set(ids)) == 11
    # The next one that gives its values itself, and a text that needs care.
    odd = ("INSERT INTO odd (\"Odd, name\", f, a, i, b, j) VALUES (E'it''s \\\\ \"(a,b)\" \\n', "
           "0.1::float8 / 3, ARRAY['a,b', NULL, '', '\"'], '-1 mon +2 days -03:04:05.6', "
           "'\\x00ff5c27', '{\"a\" :  1}'), (NULL, 'NaN', '{}', NULL, '', NULL), "
           "('', '-Infinity', NULL, '1 year', NULL, 'null')")
    assert say(through, odd) == say(direct, odd) == (["INSERT 0 3"], "I")
    for name in SHARDS:
        assert server.run("SELECT \"Odd, name\", f::text, a, i::text, b, j::text FROM odd ORDER BY id",
                          database=name) == server.run(
            "SELECT \"Odd, name\", f::text, a, i::text, b, j::text FROM odd ORDER BY id",
            database="whole")
    tables(server, "odd")
    # Where text does not carry all, the client's own text decides.
    say(through, "SET extra_float_digits = 0")
    assert say(through, "INSERT INTO countries VALUES ('zz', 'z', 1)") == (["INSERT 0 1"], "I")
    got, status = say(through, "INSERT INTO tags (name) VALUES ('other')")
    assert got[0][0] == "0A000" and status == "I"
    tables(server)


@pytest.mark.parametrize("sql", [
    "UPDATE countries SET n = floor(random() * 900)::int, name = random()::text",
    "UPDATE countries SET name = clock_timestamp()::text",
    "UPDATE countries SET name = gen_random_uuid()::text WHERE code = 'it'",
    "INSERT INTO tags (name) VALUES ('x') ON CONFLICT (name) DO UPDATE SET size = DEFAULT",
    "UPDATE countries SET name = pg_current_wal_lsn()::text || pg_backend_pid()",
    "UPDATE countries SET name = current_database()",
    "DELETE FROM countries WHERE name <> current_database() AND code = right(current_database(), 1)"
    " OR code = 'it' AND current_database() = 'each_2'",
    "INSERT INTO seen VALUES ('se', 'Seen')",
    "INSERT INTO countries SELECT id::text FROM t",
    "INSERT INTO countries SELECT id::text FROM t WHERE id = 3",
    "WITH d AS (DELETE FROM countries RETURNING *) SELECT * FROM d",
    "MERGE INTO countries USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE",
    "UPDATE pg_catalog.pg_description SET description = 'x'",
    "UPDATE countries SET name = 'x' RETURNING tableoid::text, ctid, xmin, pg_backend_pid()",
])
def test_what_would_differ_is_refused(both, server, sql):
    through, _ = both
    say(through, "INSERT INTO t VALUES (3, NULL)")
    got, status = say(through, sql)
    assert got[-1][0] == "0A000" and status == "I", got
    same(server)
    # Inside a transaction it fails the transaction, and a savepoint takes it back.
    say(through, "BEGIN")
    assert say(through, "UPDATE countries SET n = 77")[0] == ["UPDATE 2"]
    say(through, "SAVEPOINT a")
    got, status = say(through, sql)
    assert got[-1][0] == "0A000" and status == "E", got
    assert say(through, "SELECT 1")[0][0][0] == "25P02"
    say(through, "ROLLBACK TO a")
    assert say(through, "UPDATE countries SET n = n + 1")[0] == ["UPDATE 2"]
    assert say(through, "COMMIT") == (["COMMIT"], "I")
    shards, _ = tables(server, "countries")
    assert shards[0] == [("(de,Germany,78)",), ("(it,Italy,78)",)]


def random_batch(chance):
    """Statements of one batch, as messages; what is told of them is the same on one server."""
    key = chance.choice([*KEY.values(), 5, 7, 11])
    code = chance.choice(["it", "de", "fr", "at"])
    return chance.choice([
        f"INSERT INTO t VALUES ({key}, 'it')", f"DELETE FROM t WHERE id = {key}",
        f"UPDATE t SET country = '{code}' WHERE id = {key} RETURNING country",
        f"INSERT INTO countries VALUES ('{code}', 'x', {key}) RETURNING n",
        f"UPDATE countries SET n = n + {key} WHERE code = '{code}'",
        f"DELETE FROM countries WHERE code = '{code}'",
        f"SELECT * FROM countries WHERE code = '{code}'", f"SELECT * FROM t WHERE id = {key}",
        "SELECT 1", "SAVEPOINT s", "ROLLBACK TO s", "COPY t", "COPY countries"])


@pytest.mark.seconds(150)
def test_random_batches(both, server):
    seed = int(os.environ.get("PGSLED_SEED", "7"))
    chance = random.Random(seed)
    for turn in range(60):
        said = [random_batch(chance) for _ in range(chance.randint(2, 6))]
        begun = chance.random() < 0.7
        messages = []
        for sql in (["BEGIN"] if begun else ["COPY t"]) + said + (["COMMIT"] if begun else []):
            if not begun and sql.split()[0] in ("SAVEPOINT", "ROLLBACK"):
                continue
            data = b""
            if sql.startswith("COPY"):
                table, number = sql.split()[1], chance.randint(1000, 1400)
                row = f"{number}\t\\N\n" if table == "t" else f"c{number}\tx\t1\n"
                data = wire.copy_data(row.encode()) + wire.COPY_DONE
                sql += " FROM STDIN"
            messages += [wire.parse("", sql), wire.bind(), wire.execute(), data]
        got, wanted = (answers(client, *messages, wire.SYNC) for client in both)
        # Beginnings of what fails on every shard are not told.
        cut = [[one for one in side[0] if one not in ("1", "2", "G")] for side in (got, wanted)]
        assert cut[0] == cut[1] and got[1] == wanted[1], (seed, turn, messages)
        if got[1] != "I":
            assert say(both[0], "ROLLBACK") == say(both[1], "ROLLBACK")
        same(server)
        there = sum((server.run("SELECT * FROM t", database=name) for name in SHARDS), [])
        assert sorted(there, key=repr) == sorted(server.run("SELECT * FROM t", database="whole"),
                                                 key=repr), (seed, turn, messages)


def test_a_part_of_a_sharded_table_is_none_that_is_on_every_shard(both, server):
    """Made past pgsled a moment ago: its rows must not go to all shards."""
    for name in SHARDS:
        server.run("CREATE TABLE part () INHERITS (t)", database=name)
    try:
        for sql in ("INSERT INTO part VALUES (5)", "DELETE FROM part"):
            got, _ = say(both[0], sql)
            assert got[0][0] == "0A000", got
        for name in SHARDS:
            assert server.run("SELECT * FROM part", database=name) == []
    finally:
        for name in SHARDS:
            server.run("DROP TABLE part", database=name)


def without(server, *statements):
    """On the servers themselves, what a test has made."""
    for name in SHARDS + ["whole"]:
        server.run(*statements, database=name)


def test_an_unnamed_statement_that_was_not_closed(both):
    """The Close was skipped: what is bound behind it is still there, and goes where its key says."""
    for key in KEY.values():
        got = []
        for client in both:
            got.append([answers(client, wire.parse("", "INSERT INTO t VALUES ($1)"), wire.SYNC)])
            client.send(wire.bind("", "no"), wire.close("S"), wire.SYNC,
                        wire.bind("", "", [str(key)]), wire.execute(), wire.SYNC)
            got[-1].append([kind for kind, _ in client.receive_until_ready(2)])
            got[-1].append(say(client, f"SELECT id FROM t WHERE id = {key}"))
        assert got[0] == got[1]


FOLLOWED = """
CREATE TABLE groups (id bigint PRIMARY KEY, name text);
CREATE TABLE owners (id bigint PRIMARY KEY REFERENCES groups ON UPDATE CASCADE ON DELETE CASCADE,
                     country text, UNIQUE (id, country));
"""
BY_ID = "ALTER TABLE t ADD CONSTRAINT t_owner FOREIGN KEY (id) REFERENCES owners "
BY_BOTH = "ALTER TABLE t ADD CONSTRAINT t_owner FOREIGN KEY (id, country) " \
          "REFERENCES owners (id, country) "
MOVES = ["UPDATE owners SET id = 3", "UPDATE owners o SET (country, id) = ('x', 3)",
         "INSERT INTO owners VALUES (42) ON CONFLICT (id) DO UPDATE SET id = 3",
         "UPDATE groups SET id = 3 WHERE id = 42"]


# What these do to the sharding key would leave the row on a shard where nobody looks for it.
@pytest.mark.parametrize("constraint, refused, done", [
    (BY_ID + "ON UPDATE CASCADE", MOVES,
     ["UPDATE groups SET name = 'x'", "UPDATE owners SET country = 'x'",
      "DELETE FROM t WHERE id = 42", "DELETE FROM groups"]),
    (BY_ID + "ON DELETE SET DEFAULT", ["DELETE FROM owners WHERE id = 42", "DELETE FROM groups"],
     ["UPDATE groups SET name = 'x'"]),
    (BY_BOTH + "ON UPDATE CASCADE ON DELETE SET NULL (country)", MOVES,
     ["UPDATE owners SET country = 'de'", "DELETE FROM owners"]),
    (BY_BOTH + "ON UPDATE SET NULL", MOVES + ["UPDATE owners SET country = 'de'"],
     ["UPDATE groups SET name = 'x'"])])
def test_sharding_keys_that_follow_another_table(both, server, constraint, refused, done):
    through, direct = both
    try:
        for sql in [FOLLOWED, "INSERT INTO groups VALUES (42)",
                    "INSERT INTO owners VALUES (42, 'it')", "INSERT INTO t VALUES (42, 'it')",
                    constraint]:
            assert say(through, sql) == say(direct, sql), sql
        for sql in refused:
            got, _ = say(through, sql)
            assert got[0][0] == "0A000" and '"t_owner"' in got[0][1], (sql, got)
        for sql in done:
            assert say(through, sql) == say(direct, sql), sql
        for table in ("t", "owners", "groups"):
            assert say(through, f"SELECT * FROM {table} WHERE id = 42") == say(
                direct, f"SELECT * FROM {table} WHERE id = 42")
    finally:
        without(server, "ALTER TABLE t DROP CONSTRAINT IF EXISTS t_owner",
                "DROP TABLE IF EXISTS owners, groups")
        say(through, "COMMENT ON TABLE t IS NULL")   # the catalog is read again


def test_sequences_that_are_there_go_on(both, server):
    """CREATE TABLE IF NOT EXISTS finds the table, and must not set its sequence back."""
    through, direct = both
    make = "CREATE TABLE IF NOT EXISTS counted (id serial PRIMARY KEY, v text)"
    add = "INSERT INTO counted (v) VALUES ('x')"
    try:
        for sql in (make, add, make, add):
            assert say(through, sql) == say(direct, sql), sql
        shards, whole = tables(server, "counted")
        assert len(shards[0]) == len(whole[0]) == 2
    finally:
        without(server, "DROP TABLE IF EXISTS counted")


def test_sequences_count_from_their_start(both, server):
    through, direct = both
    made = ["CREATE SEQUENCE tens INCREMENT BY 10 START WITH 1000",
            "CREATE SEQUENCE down INCREMENT BY -1",
            "CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 2))"]
    following = "SELECT nextval('tens'), nextval('down'), nextval('numbered_id_seq')"
    try:
        for sql in made:
            assert say(through, sql) == say(direct, sql)
        got = [[server.run(following, database=name)[0] for _ in range(2)] for name in SHARDS]
        for shard, (first, second) in enumerate(got):
            assert first == (1000 + 10 * shard, -1 - shard, 7 + 2 * shard)
            assert second == (first[0] + 10240, first[1] - 1024, first[2] + 2048)
        assert got[0][0] == server.run(following, database="whole")[0]
    finally:
        without(server, "DROP SEQUENCE IF EXISTS tens, down", "DROP TABLE IF EXISTS numbered")


@pytest.mark.parametrize("sql", [
    "ALTER TABLE countries ADD COLUMN at timestamptz DEFAULT now()",
    "ALTER TABLE countries ADD COLUMN at timestamptz DEFAULT CURRENT_TIMESTAMP",
    "ALTER TABLE countries ADD COLUMN token uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE countries ADD COLUMN id serial",
    "ALTER TABLE countries ADD COLUMN id int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE countries ALTER COLUMN n TYPE float8 USING random()",
    "ALTER SEQUENCE tags_id_seq RESTART", "ALTER SEQUENCE tags_id_seq INCREMENT BY 5",
    "ALTER TABLE odd ALTER COLUMN id RESTART WITH 5", "CREATE SEQUENCE circle MAXVALUE 9 CYCLE",
    "CREATE MATERIALIZED VIEW seen_at AS SELECT now() AS at",
    "COPY countries FROM STDIN WHERE random() < 0.5",
    "ALTER TABLE t RENAME TO other", "ALTER TABLE countries RENAME TO t",
    "ALTER TABLE t DROP COLUMN id",
    "ALTER TABLE t RENAME COLUMN id TO key", "ALTER TABLE countries INHERIT t",
    "SET search_path = pg_temp, public"])
def test_ddl_that_each_shard_would_do_otherwise(both, server, sql):
    got, _ = say(both[0], sql)
    assert got[0][0] == "0A000", got
    same(server)


def test_copy_leaves_no_column_to_what_each_shard_computes(both, server):
    for columns in ("name", "id, name", "id, name, at"):
        got, _ = say(both[0], f"COPY tags ({columns}) FROM STDIN")
        assert got[0][0] == "0A000" and "default" in got[0][1], got
    line = "1\tone\t2026-01-01\ta0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\n".encode()
    for columns in ("", "(id, name, at, token)"):
        for client in both:
            client.send(wire.query(f"COPY tags {columns} FROM STDIN"),
                        wire.copy_data(line) + wire.COPY_DONE)
            assert ("C", b"COPY 1\0") in client.receive_until_ready()
        same(server, "tags")
        without(server, "TRUNCATE tags")
    for client in both:   # what PostgreSQL itself fills in is the same
        client.send(wire.query("COPY countries (code) FROM STDIN"),
                    wire.copy_data(b"fr\n") + wire.COPY_DONE)
        assert ("C", b"COPY 1\0") in client.receive_until_ready()
    same(server)


def test_a_new_column_in_steps(both, server):
    """The way that the refusal of a default tells."""
    try:
        for sql in ("ALTER TABLE countries ADD COLUMN at timestamptz",
                    "ALTER TABLE countries ALTER COLUMN at SET DEFAULT now()",
                    "UPDATE countries SET at = '2026-01-01'",
                    "ALTER TABLE countries ADD COLUMN small text DEFAULT lower('X')"):
            assert say(both[0], sql) == say(both[1], sql)
        assert "2026-01-01" in same(server)[0][0]
    finally:
        without(server, "ALTER TABLE countries DROP COLUMN IF EXISTS at, "
                        "DROP COLUMN IF EXISTS small")


def test_a_shard_that_differs_already_is_told(both, server):
    server.run("INSERT INTO countries VALUES ('es', 'Spain', 1)", database=SHARDS[1])
    got, _ = say(both[0], "DELETE FROM countries")
    assert got[0][0] == "0A000" and "shard 1 differs from shard 0" in got[0][1]
    got, _ = say(both[0], "INSERT INTO countries VALUES ('es', 'Spain', 1)")
    assert got[0][0] == "23505"
    assert server.run("SELECT count(*) FROM countries", database=SHARDS[0]) == [(2,)]
    assert server.run("SELECT count(*) FROM countries", database=SHARDS[1]) == [(3,)]


def test_columns_in_another_order_change_nothing(both, server):
    """Rows that one shard makes are those of the others, by name and not by place."""
    for number, name in enumerate(SHARDS + ["whole"]):
        columns = "id text PRIMARY KEY, " + ("b int, a int" if number == 1 else "a int, b int")
        server.run(f"CREATE TABLE turned ({columns})", database=name)
    try:
        for sql in ("INSERT INTO turned (id, a, b) VALUES ('x', 1, 2)",
                    "INSERT INTO turned (id, a, b) VALUES ('x', 1, 2 + (random() * 0)::int)"):
            got, _ = say(both[0], sql)
            assert got[0][0] == "0A000" and "shard 1 differs from shard 0" in got[0][1]
        for name in SHARDS:
            assert server.run("SELECT * FROM turned", database=name) == []
    finally:
        without(server, "DROP TABLE turned")


def test_transactions_with_keys_savepoints_and_foreign_keys(both, server):
    for client in both:
        client.got = [say(client, sql) for sql in (
            "BEGIN", "INSERT INTO countries VALUES ('fr', 'France', 3)",
            f"INSERT INTO t VALUES ({KEY[0]}, 'fr')", f"INSERT INTO t VALUES ({KEY[1]}, 'fr')",
            "SAVEPOINT a", "DELETE FROM countries WHERE code = 'de'",
            f"INSERT INTO t VALUES ({KEY[2]}, 'de')", "SELECT 1", "ROLLBACK TO a",
            f"INSERT INTO t VALUES ({KEY[2]}, 'de') RETURNING country",
            "UPDATE countries SET n = 9 WHERE code = 'de' RETURNING *", "COMMIT",
            "BEGIN", "DELETE FROM countries WHERE code = 'fr'", "ROLLBACK",
            "BEGIN", "UPDATE countries SET n = 1", "COMMIT",
            "DELETE FROM countries WHERE code = 'fr'",
            f"SELECT * FROM t WHERE id = {KEY[0]}", f"SELECT * FROM t WHERE id = {KEY[2]}")]
    assert both[0].got == both[1].got
    same(server)


def test_concurrent_writers_never_differ(both, suite, server):
    """They wait for each other on the first shard, so there is no deadlock of their own."""
    errors = []

    def write(number):
        with suite.connect("app") as connection:
            for turn in range(15):
                try:
                    connection.execute(
                        "INSERT INTO countries VALUES ('it', 'x', %s) ON CONFLICT (code) "
                        "DO UPDATE SET n = (countries.n + excluded.n) %% 900", (number,))
                    connection.execute("INSERT INTO tags (name) VALUES (%s)",
                                       (f"{number} {turn}",))
                except psycopg.Error as error:
                    errors.append(error)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    shards, _ = tables(server, "countries", "tags")
    assert len(shards[1]) == 90
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []


def test_drivers(both, suite, server):
    with suite.connect("app") as connection:
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO countries VALUES (%s, %s, %s)",
                           [(f"p{n}", "psycopg", n) for n in range(10)])
        assert cursor.rowcount == 10
        for prepare in (False, True):
            assert connection.execute(
                "UPDATE countries SET n = n + 1 WHERE name = %s RETURNING code", ("psycopg",),
                prepare=prepare).rowcount == 10
    with suite.connect("app", autocommit=False) as connection:
        connection.execute("DELETE FROM countries WHERE code = 'p1'")
        with pytest.raises(psycopg.errors.UniqueViolation) as failure:
            connection.execute("INSERT INTO countries VALUES ('p2')")
        assert failure.value.diag.constraint_name == "countries_pkey"
        connection.rollback()
        connection.execute("DELETE FROM countries WHERE code = 'p1'")
        connection.commit()

    async def run():
        connection = await asyncpg.connect(host=HOST, port=suite.port, user="postgres",
                                           password="postgres", database="app")
        assert await connection.fetchval(
            "INSERT INTO countries VALUES ($1, $2, $3) RETURNING n", "a0", "asyncpg", 5) == 5
        await connection.executemany("INSERT INTO countries VALUES ($1, $2, $3)",
                                     [(f"b{n}", "asyncpg", n) for n in range(10)])
        async with connection.transaction():
            assert await connection.execute(
                "UPDATE countries SET n = 0 WHERE name = $1", "asyncpg") == "UPDATE 11"
            rows = await connection.fetch("DELETE FROM countries WHERE code LIKE 'b%' "
                                          "RETURNING code, n")
            assert len(rows) == 10
        await connection.close()
    asyncio.run(run())
    shards, _ = tables(server, "countries")
    assert len(shards[0]) == 2 + 9 + 1


def test_rights(both, suite, server):
    """Comparing needs the right to read; the error says so."""
    for name in SHARDS:
        server.run("GRANT INSERT ON countries TO app", database=name)
    with suite.connect("app", user="app") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as failure:
            connection.execute("INSERT INTO countries VALUES ('x')")
        assert "SELECT" in failure.value.diag.message_hint
        for name in SHARDS:
            server.run("GRANT SELECT ON countries TO app", database=name)
        connection.execute("INSERT INTO countries VALUES ('x')")
    for name in SHARDS:
        server.run("REVOKE ALL ON countries FROM app", database=name)
    tables(server, "countries")


def test_role_of_a_transaction_that_commits_over_shards(both, suite, server):
    """COMMIT PREPARED is for the role that prepared; SET LOCAL ROLE ends with PREPARE."""
    for name in SHARDS + ["whole"]:
        server.run("GRANT SELECT, INSERT, UPDATE ON countries, t TO app", database=name)
    for role in ("SET LOCAL ROLE app", "SET ROLE app", "SET LOCAL SESSION AUTHORIZATION app"):
        for client in both:
            client.got = [say(client, sql) for sql in (
                "BEGIN", role, "UPDATE countries SET n = n + 1 RETURNING current_user",
                f"INSERT INTO t VALUES ({KEY[1]})", f"INSERT INTO t VALUES ({KEY[2]})", "COMMIT",
                "SELECT current_user", "RESET ROLE", "SELECT current_user",
                f"DELETE FROM t WHERE id = {KEY[1]}", f"DELETE FROM t WHERE id = {KEY[2]}")]
        assert both[0].got == both[1].got, role
        # The role changes behind the writes.
        for client in both:
            client.got = [say(client, sql) for sql in (
                "BEGIN", "UPDATE countries SET n = n + 1", role,
                "UPDATE countries SET n = n + 1", "COMMIT", "SELECT current_user", "RESET ROLE")]
        assert both[0].got == both[1].got, role
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []
    same(server)
    for name in SHARDS + ["whole"]:
        server.run("REVOKE ALL ON countries, t FROM app", database=name)


LOCKS = [
    "SELECT * FROM countries WHERE code = 'de' FOR UPDATE",
    "select code from public.countries c order by code for share ; -- all",
    "SELECT code FROM countries WHERE n > 5 FOR UPDATE",
    "SELECT 1 FROM countries WHERE code = 'it' FOR NO KEY UPDATE NOWAIT",
    "SELECT count(*) FROM countries FOR UPDATE",
    "SELECT nothing FROM countries FOR UPDATE",
    "SELECT 'ä' || code FROM countries WHERE code = 'de' AND nothing = 1 FOR UPDATE",
    "SELECT (SELECT 1 FROM tags LIMIT 1), extract(year FROM now()) > 5, n IS DISTINCT FROM 5, code "
    "FROM countries AS \"from\" WHERE n > 0 ORDER BY n LIMIT 1 FOR UPDATE OF \"from\"",
    "WITH few AS (SELECT 'it' AS code FROM tags UNION SELECT 'de') SELECT 1 FROM countries c "
    "WHERE code IN (SELECT code FROM few) ORDER BY code DESC LIMIT 1 FOR UPDATE OF c",
    "SELECT FROM countries FOR UPDATE",
    "SELECT n, count(*) FROM countries GROUP BY n FOR UPDATE",
]


@pytest.mark.parametrize("sql", LOCKS)
@pytest.mark.parametrize("begin", [True, False])
def test_locks_as_on_one_server(both, sql, begin):
    for client in both:
        client.got = [say(client, "BEGIN")] if begin else []
        client.got.append(say(client, sql))
        client.got.append(answers(client, wire.parse("", sql), wire.describe("S", ""),
                                  wire.bind(""), wire.execute(""), wire.SYNC))
        client.got.append(say(client, "UPDATE countries SET n = n + 1 WHERE code = 'de'"))
        client.got += [say(client, "COMMIT")] if begin else []
    assert both[0].got == both[1].got


def test_locked_rows_come_at_once(both):
    sql = "SELECT code FROM countries ORDER BY code FOR UPDATE"
    for rows, same_as_one in ((0, True), (5, True), (1, False)):
        for client in both:
            client.got = [say(client, "BEGIN")]
            client.got.append(answers(client, wire.parse("", sql), wire.bind("p"),
                                      wire.execute("p", rows), wire.SYNC))
            client.got.append(say(client, "ROLLBACK"))
        if same_as_one:
            assert both[0].got == both[1].got
        else:
            assert both[0].got[1][0][-1][0] == "0A000" and "in pieces" in both[0].got[1][0][-1][1]


def test_locks_hold_on_every_shard(both, suite, server):
    """Who writes the row waits, and so does who refers to it from a row of any shard."""
    through, _ = both
    say(through, "BEGIN")
    assert say(through, "SELECT n FROM countries WHERE code = 'de' FOR UPDATE")[0][-1] == "SELECT 1"
    with suite.raw(database="app") as other:
        say(other, "SET lock_timeout = '300ms'")
        for sql in ("UPDATE countries SET n = 0 WHERE code = 'de'",
                    "SELECT n FROM countries WHERE code = 'de' FOR UPDATE",
                    *(f"INSERT INTO t VALUES ({key}, 'de')" for key in (42, 3, 100))):
            assert say(other, sql)[0][-1][0] == "55P03", sql
        assert say(other, "SELECT n FROM countries WHERE code = 'it' FOR UPDATE")[0][-1] == "SELECT 1"
        refused = say(other, "SELECT n FROM countries FOR UPDATE SKIP LOCKED LIMIT 1")[0][-1]
        assert refused[0] == "0A000" and "every shard" in refused[1]
        say(through, "ROLLBACK")
        assert say(other, "UPDATE countries SET n = 0 WHERE code = 'de'")[0] == ["UPDATE 1"]
    # Rows that differ are no rows to be locked.
    server.run("UPDATE countries SET n = 7 WHERE code = 'it'", database=SHARDS[1])
    say(through, "BEGIN")
    for columns in ("n", "1"):
        got, status = say(through, f"SELECT {columns} FROM countries WHERE code = 'it' FOR SHARE")
        assert got[-1][0] == "40001" and "shard 1 differs from shard 0" in got[-1][1], got
        assert status == "E"
        say(through, "ROLLBACK")
        say(through, "BEGIN")
    say(through, "ROLLBACK")


def test_cancel_while_it_waits_for_a_later_shard(both, suite, server):
    with server.connect(SHARDS[2], autocommit=False) as holding:
        holding.execute("SELECT * FROM countries FOR UPDATE")
        both[0].send(wire.query("UPDATE countries SET n = 5"))
        assert both[0].receive_quiet(0.5) == []
        both[0].cancel(suite.port)
        got = both[0].receive_until_ready()
        assert wire.error_codes(got) == ["57014"]
        holding.rollback()
    same(server)
    assert say(both[0], "UPDATE countries SET n = 5") == say(both[1], "UPDATE countries SET n = 5")
    same(server)


def test_query_timeout(both, server):
    """It ends what runs on several shards, too, and counts from the client's last message."""
    settings = {"query_timeout": 1000, "two_phase_commit": True}
    with Suite(server, **options(settings)) as one:
        with one.raw(database="app") as idle:
            assert say(idle, "UPDATE countries SET n = 3")[0] == ["UPDATE 2"]
            time.sleep(1.3)
            assert say(idle, "UPDATE countries SET n = 4")[0] == ["UPDATE 2"]
            time.sleep(1.3)
            idle.send(wire.query("COPY t FROM STDIN"))
            assert idle.receive()[0] == "G"
            for key in (42, 3):   # longer than the timeout, but it goes on
                time.sleep(0.7)
                idle.send(wire.copy_data(b"%d\t\\N\n" % key))
            idle.send(wire.COPY_DONE)
            assert idle.receive_until_ready()[0] == ("C", b"COPY 2\0")
            idle.send(wire.query("COPY t FROM STDIN"))
            idle.send(wire.copy_data(b"100\t\\N\n"))
            assert idle.expect_closed(5)["C"] == "57014"
        with one.raw(database="app") as waiting, \
                server.connect(SHARDS[1], autocommit=False) as holding:
            holding.execute("SELECT * FROM countries FOR UPDATE")
            waiting.send(wire.query("UPDATE countries SET n = 5"))
            assert waiting.expect_closed(5)["C"] == "57014"
        one.check_no_leaks(database="app")
    shards, _ = tables(server, "countries")
    assert shards[0] == [("(de,Germany,4)",), ("(it,Italy,4)",)]
    assert sum((server.run("SELECT id FROM t", database=name) for name in SHARDS), []) == [
        (42,), (3,)]


def test_single_statements_without_two_phase_commit(both, server):
    """two_phase_commit_auto = false: one shard commits after the other."""
    settings = {"two_phase_commit": True, "two_phase_commit_auto": False}
    with Suite(server, **options(settings)) as one:
        with one.connect("app") as connection:
            assert connection.execute("UPDATE countries SET n = 8").rowcount == 2
    shards, _ = tables(server, "countries")
    assert shards[0] == [("(de,Germany,8)",), ("(it,Italy,8)",)]


def test_no_leaks(suite, both):
    both[0].close()
    time.sleep(0.1)
    suite.check_no_leaks(database="app")
