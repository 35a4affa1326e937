"""Where keys live: `pgsled hash` against PostgreSQL's own hash partitions, and tables by uuid, text,
list and range on three shards against one PostgreSQL that holds all the rows."""

import subprocess
import uuid

import psycopg
import pytest

from support import wire
from support.machine import binaries
from support.raw_client import ServerError
from support.suite import Suite

COUNT = 100_000
MODULI = [2, 3, 5, 8, 16, 1000]
# Random values of each type, made by the server: short and long, all lengths modulo twelve.
RANDOM = {
    "bigint": "CASE i % 4 WHEN 0 THEN i WHEN 1 THEN -i ELSE (('x' || md5(i::text))::bit(64))::bigint"
              " END",
    "integer": "(('x' || md5(i::text))::bit(32))::integer",
    "smallint": "(i % 65536 - 32768)::smallint",
    "uuid": "md5(i::text || 'u')::uuid",
    "text": "CASE i % 3 WHEN 0 THEN left(repeat(md5(i::text), 3), i % 97)"
            " WHEN 1 THEN repeat('äß漢😀', i % 5) || i ELSE E' tab\\tline\\n\\\\quote''' || i END",
    "varchar(40)": "left(md5(i::text) || md5(i::text || 'v'), i % 41)",
}
OURS = {"bigint": "bigint", "integer": "bigint", "smallint": "bigint", "uuid": "uuid",
        "text": "varchar", "varchar(40)": "varchar"}


def hashes(values, *arguments):
    """What `pgsled hash` says of each: the hash, or None for an invalid one."""
    done = subprocess.run([str(binaries() / "pgsled"), "hash", "--stdin", "--null", *arguments],
                          input="".join(value + "\0" for value in values).encode(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(values)
    return [None if line == "invalid" else line.split()[0] for line in lines]


@pytest.mark.seconds(60)
@pytest.mark.parametrize("type_name", RANDOM)
def test_hashes_are_those_of_hash_partitions(server, type_name):
    with server.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"CREATE TEMP TABLE parted (k {type_name}) PARTITION BY HASH (k)")
        connection.execute(f"CREATE TEMP TABLE keys AS SELECT ({RANDOM[type_name]})::{type_name}"
                           f" AS k FROM generate_series(1, {COUNT}) i")
        keys = [row[0] for row in connection.execute("SELECT k::text FROM keys").fetchall()]
        ours = hashes(keys, "--type", OURS[type_name])
        connection.execute(f"CREATE TEMP TABLE ours (k {type_name}, h numeric)")
        with connection.cursor().copy("COPY ours FROM STDIN") as copy:
            for key, value in zip(keys, ours):
                copy.write_row((key, value))
        for modulus in MODULI:
            right, distinct = connection.execute(
                f"SELECT count(*) FILTER (WHERE satisfies_hash_partition('parted'::regclass,"
                f" {modulus}, (h % {modulus})::int, k)), count(DISTINCT h % {modulus})"
                f" FROM ours").fetchone()
            assert right == COUNT, modulus
            assert distinct == modulus


# Spellings that PostgreSQL may read or not; ours is what it stores, or nothing.
SPELLINGS = {
    "bigint": [" 7", "7 ", "+7", "007", "-0", "+0", "\t7\n", "\v7\f\r", "--7", "+-7", "- 7", "7.0",
               "7e0", "", " ", "-", "9223372036854775807", "9223372036854775808",
               "-9223372036854775808", "-9223372036854775809", "1_000", "0x10", "0o7", "0b1",
               "\u00a07", "７", "7\u2003", "NaN", "1 1", "000000000000000000000000000000012"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
             "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
             "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ",
             " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
             "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
             "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
             "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
             "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111", "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "",
             "{}", "{", "0xeebc999c0b4ef8bb6d6bb9bd380a11"],
    "varchar": ["", " ", "a ", " a", "A", "a\n", "\\", "'", "ä", "a\u0308", "\u00e4", "NULL", "\\N"],
}
# PostgreSQL 16 reads them, 15 does not: refused whatever the server.
NEWER = {"1_000", "0x10", "0o7", "0b1"}


@pytest.mark.parametrize("type_name", SPELLINGS)
def test_spellings_as_postgresql_reads_them(server, type_name):
    with server.connect() as connection:
        connection.execute(f"CREATE TEMP TABLE stored (k {type_name})")
        for spelling in SPELLINGS[type_name]:
            try:
                stored = connection.execute(
                    "INSERT INTO stored VALUES ('" + spelling.replace("'", "''") + "')"
                    " RETURNING k::text").fetchone()[0]
            except psycopg.errors.DataError:
                stored = None
            ours = hashes([spelling], "--type", type_name)[0]
            if stored is None or spelling in NEWER:
                assert ours is None, spelling
            else:
                assert ours is not None and ours == hashes([stored], "--type", type_name)[0], spelling


# --- tables by other keys, on three shards and in one database -----------------------------------

SHARDS = 3
SCHEMA = """
CREATE DOMAIN slug AS varchar(12);
CREATE TABLE people (id uuid PRIMARY KEY, name text);
CREATE TABLE visits (id uuid, n int, PRIMARY KEY (id, n));
CREATE TABLE tenants (slug varchar(12) PRIMARY KEY, name text);
CREATE TABLE notes (slug slug, n int, name text);
CREATE TABLE regions (code text PRIMARY KEY, name text);
CREATE TABLE events (at bigint, name text);
CREATE TABLE digests (id integer PRIMARY KEY, name text);
CREATE TABLE padded (slug char(8), name text);
CREATE TABLE loose (slug text COLLATE loose, name text);
CREATE TABLE wrong (id numeric, name text);
"""
COLLATION = ("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2',"
             " deterministic = false)")


def names():
    return [f"placed_{number}" for number in range(SHARDS)]


def table(name, column, data_type="bigint", **more):
    return ("[[sharded_tables]]", dict({"database": "app", "name": name, "column": column,
                                        "data_type": data_type}, **more))


def mapping(**values):
    return ("[[sharded_tables.mapping]]", values)


def older(**values):
    return ("[[sharded_mappings]]", dict({"database": "app", "table": "events", "column": "at"},
                                         **values))


TABLES = [
    table("people", "id", "uuid"), table("visits", "id", "uuid"),
    table("tenants", "slug", "varchar"), table("notes", "slug", "varchar"),
    table("padded", "slug", "varchar"), table("loose", "slug", "varchar"), table("wrong", "id"),
    table("digests", "id", hasher="sha1"),
    table("regions", "code", "varchar"), mapping(values=["it", "de", "ö"], shard=1),
    mapping(start="m", end="q", shard=2), mapping(start="q", shard=0),
    table("events", "at"), older(kind="list", values=[5], shard=1),
    older(kind="range", end=0, shard=2), older(kind="range", start=0, end=1000, shard=0),
    older(kind="default", shard=1),
]


@pytest.fixture(scope="module")
def placed(server, dispatch):
    for name in names() + ["whole"]:
        server.make_database(name)
        server.run(COLLATION, database=name)
    databases = [{"name": "app", "shard": number, "database_name": name}
                 for number, name in enumerate(names())]
    with Suite(server, databases=databases + [{"name": "postgres"}], extra=TABLES,
               pgsled={"dispatch": dispatch}) as running:
        with running.connect("app") as connection:
            connection.execute(SCHEMA)
        server.run(SCHEMA, database="whole")
        yield running


@pytest.fixture
def both(placed, server):
    """(through the suite, directly), with empty tables."""
    for name in names() + ["whole"]:
        server.run("TRUNCATE people, visits, tenants, notes, regions, events, digests",
                   database=name)
    with placed.connect("app") as through, server.connect("whole") as direct:
        yield through, direct


def outcome(connection, sql, values=None, binary=False):
    """Rows, command tag, or SQLSTATE."""
    try:
        cursor = connection.execute(sql, values, binary=binary)
        return cursor.fetchall() if cursor.description else cursor.statusmessage
    except psycopg.Error as failure:
        return failure.sqlstate


def same(through, direct, sql, values=None):
    """The same from both, and returned."""
    got, expected = outcome(through, sql, values), outcome(direct, sql, values)
    assert got == expected, (sql, values)
    return got


def holders(server, name, condition):
    return [shard for shard, one in enumerate(names())
            if server.run(f"SELECT 1 FROM {name} WHERE {condition}", database=one)]


def quoted(value):
    return "'" + str(value).replace("'", "''") + "'"


UUIDS = [uuid.UUID(int=0), uuid.UUID(int=2 ** 128 - 1)] + \
        [uuid.uuid5(uuid.NAMESPACE_URL, str(number)) for number in range(20)]
SLUGS = ["", " ", "a", "A", "a ", "ab'c", "x" * 12, "back\\slash", "tab\t", "grün", "漢字", "😀",
         "NULL", "42"] + [f"tenant-{number}" for number in range(10)]
OF_KEY = [
    "INSERT INTO {table} ({key}, name) VALUES ({k}, 'first')",
    "SELECT {key}, name FROM {table} WHERE {key} = {k}",
    "UPDATE {table} SET name = 'second' WHERE {k} = {key} RETURNING name",
    "SELECT a.name FROM {table} a JOIN {table} b USING ({key}) WHERE b.{key} = {k}",
    "SELECT count(*) FROM {table} WHERE {key} IN ({k})",
    "DELETE FROM {table} WHERE {key} = {k} RETURNING *",
]


@pytest.mark.smoke
@pytest.mark.seconds(60)
@pytest.mark.parametrize("how", ["literal", "text", "binary"])
@pytest.mark.parametrize("name,key,keys,kind", [
    ("people", "id", UUIDS, "uuid"), ("tenants", "slug", SLUGS, "varchar"),
    ("notes", "slug", SLUGS, "varchar"), ("digests", "id", range(20), "sha1"),
    ("regions", "code", ["it", "de", "ö", "m", "ma", "pz", "q", "zz", "漢"], None),
    ("events", "at", [5, -1, -(2 ** 63) + 1, 0, 4, 999, 1000, 2 ** 63 - 1], None)])
def test_same_as_one_postgresql(both, server, how, name, key, keys, kind):
    through, direct = both
    listed = {"it": 1, "de": 1, "ö": 1, "m": 2, "ma": 2, "pz": 2, "q": 0, "zz": 0, "漢": 0,
              5: 1, -1: 2, -(2 ** 63) + 1: 2, 0: 0, 4: 0, 999: 0, 1000: 1, 2 ** 63 - 1: 1}
    for value in keys:
        for statement in OF_KEY:
            if how == "literal":
                text = str(value) if isinstance(value, int) else quoted(value)
                sql, values = statement.format(table=name, key=key, k=text), None
            else:
                sign = "%t" if how == "text" else "%b"
                sql = statement.format(table=name, key=key, k=sign)
                values = (value,) * sql.count(sign)
            got = same(through, direct, sql, values)
            assert got and not isinstance(got, str) or got == "INSERT 0 1", (sql, got)
            if statement.startswith("INSERT"):
                if kind is None:
                    shard = listed[value]
                elif kind == "sha1":
                    shard = int(hashes([str(value)], "--hasher", "sha1")[0]) % SHARDS
                else:
                    shard = int(hashes([str(value)], "--type", kind)[0]) % SHARDS
                assert holders(server, name, f"{key} = {quoted(value)}") == [shard], value


@pytest.mark.smoke
def test_joins_on_uuids_and_texts(both):
    through, direct = both
    for connection in both:
        for number, key in enumerate(UUIDS):
            connection.execute("INSERT INTO people VALUES (%s, %s)", (key, f"person {number}"))
            for visit in range(number % 3):
                connection.execute("INSERT INTO visits VALUES (%s, %s)", (key, visit))
        for slug in SLUGS:
            connection.execute("INSERT INTO tenants VALUES (%s, 'tenant')", (slug,))
            connection.execute("INSERT INTO notes VALUES (%s, 1, 'note')", (slug,))
    for key in UUIDS:
        same(through, direct, "SELECT name, n FROM people JOIN visits USING (id) WHERE id = %s"
                              " ORDER BY n", (key,))
        same(through, direct, "SELECT name FROM people WHERE id IN (SELECT id FROM visits"
                              " WHERE id = %s AND n = 1)", (key,))
    for slug in SLUGS:
        same(through, direct, "SELECT t.name, n.name FROM tenants t JOIN notes n ON n.slug = t.slug"
                              " WHERE t.slug = %s", (slug,))
    # One value, but placed by different rules
    assert outcome(through, "SELECT 1 FROM digests d, events e WHERE d.id = e.at AND d.id = 1") \
        == "0A000"


@pytest.mark.parametrize("spelling", SPELLINGS["uuid"])
def test_spellings_of_uuids(both, spelling):
    """Stored where the plain spelling finds it, or the same error as PostgreSQL's."""
    through, direct = both
    plain = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    for sql in ("INSERT INTO people VALUES (%t, 'x')", "INSERT INTO people VALUES (%t::uuid, 'x')",
                "SELECT name FROM people WHERE id = %t", "SELECT name FROM people WHERE id = '" +
                plain + "'", "DELETE FROM people WHERE id = %t::uuid"):
        same(through, direct, sql, (spelling,) if "%t" in sql else None)
        literal = sql.replace("%t", quoted(spelling))
        same(through, direct, literal)


@pytest.mark.parametrize("as_parameter", [False, True])
@pytest.mark.parametrize("name", ["tenants", "notes"])
def test_trailing_spaces(both, server, name, as_parameter):
    """varchar(12), plain or as a domain, takes spaces off beyond twelve characters when it stores,
    never when it compares."""
    through, direct = both

    def ask(sql, value):
        if as_parameter:
            return same(through, direct, sql.format(k="%s"), (value,))
        return same(through, direct, sql.format(k=quoted(value)))
    for stem in ("it", "grüße", "漢字 ", "x" * 12, "y" * 13, ""):
        for spaces in (0, 1, 8, 12, 30):
            given = stem + " " * spaces
            stored = given[:12]
            done = ask(f"INSERT INTO {name} (slug, name) VALUES ({{k}}, 'x')", given)
            assert done == ("22001" if stem.startswith("y") else "INSERT 0 1")
            found = ask(f"SELECT slug FROM {name} WHERE slug = {{k}}", stored)
            assert found == ([] if stem.startswith("y") else [(stored,)])
            ask(f"SELECT slug FROM {name} WHERE slug = {{k}}", given)
            ask(f"DELETE FROM {name} WHERE slug = {{k}}", stored)
    for one in names():
        assert server.run(f"SELECT count(*) FROM {name}", database=one) == [(0,)]


@pytest.mark.smoke
def test_what_cannot_be_placed_is_refused(both):
    through, _ = both
    for sql, word in (
            ("SELECT * FROM padded WHERE slug = 'a'", "bpchar"),
            ("INSERT INTO padded VALUES ('a ', 'x')", "bpchar"),
            ("SELECT * FROM loose WHERE slug = 'A'", "collation"),
            ("INSERT INTO loose VALUES ('A', 'x')", "collation"),
            ("SELECT * FROM wrong WHERE id = 1", "numeric"),
            ("SELECT * FROM tenants WHERE slug = 'a'::char(5)", "slug"),
            ("SELECT * FROM tenants WHERE slug = 'abc'::varchar(2)", "slug"),
            ("SELECT * FROM tenants WHERE slug = 'A' COLLATE loose", "slug"),
            ("SELECT * FROM tenants WHERE lower(slug) = 'a'", "slug"),
            ("INSERT INTO tenants VALUES (NULL, 'x')", "NULL"),
            ("INSERT INTO tenants VALUES (42, 'x')", "text"),
            ("SELECT * FROM regions WHERE code = 'fr'", "no shard"),
            ("INSERT INTO regions VALUES ('fr', 'France')", "no shard"),
            ("SELECT * FROM people WHERE id > '" + str(UUIDS[0]) + "'", "id")):
        with pytest.raises(psycopg.errors.FeatureNotSupported) as failure:
            through.execute(sql)
        told = failure.value.diag
        assert word in f"{told.message_primary} {told.message_hint} {told.message_detail}", sql
        assert through.execute("SELECT 1").fetchone() == (1,)


def test_parameters_as_drivers_declare_them(placed, both):
    """Texts that are cast, uuids in binary, and types that would be compared otherwise."""
    through, _ = both
    key = UUIDS[5]
    through.execute("INSERT INTO people VALUES (%s, 'five')", (key,))
    through.execute("INSERT INTO tenants VALUES ('a', 'letter')")
    client = placed.raw(database="app")

    def ask(sql, declared, value, form):
        client.send(wire.parse("", sql, declared), wire.bind("", "", [value], [form]),
                    wire.execute(), wire.SYNC)
        try:
            return client.rows(client.receive_until_ready())
        except ServerError as failure:
            return failure.code
    by_id, by_cast = ("SELECT name FROM people WHERE id = $1" + cast for cast in ("", "::uuid"))
    text = str(key).upper()
    for declared in ((), (2950,)):
        assert ask(by_id, declared, text, 0) == [["five"]]
        assert ask(by_id, declared, key.bytes, 1) == [["five"]]
        assert ask(by_cast, declared, key.bytes, 1) == [["five"]]
    for declared in ((25,), (1043,)):
        assert ask(by_id, declared, text, 0) == "0A000"
        assert ask(by_cast, declared, text, 0) == [["five"]]
        assert ask(by_cast, declared, text.encode(), 1) == [["five"]]
    by_slug = "SELECT name FROM tenants WHERE slug = $1"
    for declared in ((), (25,), (1043,)):
        for form in (0, 1):
            assert ask(by_slug, declared, "a" if form == 0 else b"a", form) == [["letter"]]
    for declared in ((1042,), (19,), (20,)):
        assert ask(by_slug, declared, "a", 0) == "0A000"
    assert ask(by_slug + " AND $1 = '5'::bpchar", (), "a", 0) == "0A000"


def test_texts_in_another_encoding(placed, both, server):
    """Bytes of a key that are converted on the way say nothing of its place: refused; ASCII goes."""
    through, _ = both
    through.execute("INSERT INTO tenants VALUES ('é', 'accent')")
    through.execute("INSERT INTO tenants VALUES ('e', 'plain')")
    client = placed.raw(database="app")
    ask = "SELECT name FROM tenants WHERE slug = '{}'"
    assert client.query(ask.format("é")) == [["accent"]]
    latin = ask.format("é").encode("latin-1") + b"\0"
    # Also while the SET is still under way
    client.send(wire.query("SET client_encoding = 'LATIN1'"), wire.message("Q", latin))
    client.receive_until_ready()
    with pytest.raises(ServerError) as failure:
        client.rows(client.receive_until_ready())
    assert failure.value.code == "0A000"
    assert client.query(ask.format("e")) == [["plain"]]
    client.query("BEGIN")
    client.query("SET LOCAL client_encoding = 'UTF8'")
    with pytest.raises(ServerError) as failure:
        client.query(ask.format("é"))
    assert failure.value.code == "0A000"
    client.query("ROLLBACK")
    client.query("RESET client_encoding")
    assert client.query(ask.format("é")) == [["accent"]]
    # And while nothing of its batch has been sent yet
    by_slug = "SELECT name FROM tenants WHERE slug = $1"
    client.send(wire.parse("", "SET client_encoding = 'LATIN1'"), wire.bind(), wire.execute(),
                wire.parse("s", by_slug), wire.bind("", "s", ["é".encode("latin-1")]),
                wire.execute(), wire.SYNC)
    with pytest.raises(ServerError) as failure:
        client.rows(client.receive_until_ready())
    assert failure.value.code == "0A000"
    assert client.query(ask.format("é")) == [["accent"]]


def test_catalog_follows_the_column(placed, both, server):
    """A key column that becomes another type, past pgsled, is no longer placed by the old one."""
    through, _ = both
    through.execute("INSERT INTO tenants VALUES ('before', 'x')")
    for words in ("char(12)", "varchar(11)", "varchar(12) USING lower(slug)"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="would change keys"):
            through.execute(f"ALTER TABLE tenants ALTER COLUMN slug TYPE {words}")
    try:
        for name in names():
            server.run("ALTER TABLE tenants ALTER COLUMN slug TYPE char(12)", database=name)
        through.execute("CREATE TABLE changing (a int)")   # the catalog is read again
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            through.execute("SELECT * FROM tenants WHERE slug = 'before'")
    finally:
        for name in names():
            server.run("ALTER TABLE tenants ALTER COLUMN slug TYPE varchar(12)", database=name)
        through.execute("DROP TABLE changing")
    through.execute("ALTER TABLE tenants ALTER COLUMN slug TYPE varchar(12)")
    assert through.execute("SELECT name FROM tenants WHERE slug = 'before'").fetchone() == ("x",)


def test_mistakes_in_the_file(server):
    """`check-config` names every one with its line."""
    suite = Suite(server, databases=[{"name": "app"}], extra=[
        table("a", "k", "uuid"), mapping(values=["x"], shard=0),
        table("b", "k"), mapping(start=5, end=1, shard=0), mapping(values=[1], shard=9),
        older(kind="default", shard=0)])
    suite.write_configuration()
    done = suite.cli("check-config", "--config", suite.folder / "pgdog.toml", "--users",
                     suite.folder / "users.toml", check=False)
    lines = (suite.folder / "pgdog.toml").read_text().splitlines()
    told = [line for line in (done.stdout + done.stderr).splitlines() if "pgdog.toml:" in line]
    assert done.returncode != 0 and len(told) == 4, told
    for line, word in zip(told, ("must be a uuid", "is empty", "no shard 9", "fits no entry")):
        assert word in line
        number = int(line.split("pgdog.toml:")[1].split(":")[0])
        assert lines[number - 1].strip(), line
