"""Catalogs of shards that are not the same, because somebody has changed one past the suite."""

import psycopg
import pytest

from support.suite import Suite, eventually

SHARDS = ["catalogs_0", "catalogs_1"]
SCHEMA = """
CREATE TABLE a (id bigint, v int, w int);
CREATE TABLE n (id text, v int);
CREATE TABLE plain (id bigint, v int);
"""


@pytest.fixture(scope="module")
def suite(server):
    for name in SHARDS:
        server.make_database(name)
        server.run(SCHEMA, database=name)
    options = {"databases": [{"name": "app", "shard": number, "database_name": name}
                             for number, name in enumerate(SHARDS)],
               "users": [{"name": "postgres", "database": "app"}],
               "sharded_tables": [{"database": "app", "name": name, "column": "id",
                                   "data_type": kind}
                                  for name, kind in (("a", "bigint"), ("n", "varchar"),
                                                     ("plain", "bigint"))]}
    with Suite(server, **options) as running:
        yield running


def refused(connection, sql):
    try:
        connection.execute(sql)
    except psycopg.errors.FeatureNotSupported as error:
        return str(error)
    raise AssertionError(f"not refused: {sql}")


def works(connection, sql):
    try:
        connection.execute(sql)
    except psycopg.errors.FeatureNotSupported as error:
        raise AssertionError(str(error)) from error


def changed(suite):
    """As after DDL: the router reads the catalogs again."""
    with suite.connect("app") as connection:
        connection.execute("CREATE TABLE told (a int)")
        connection.execute("DROP TABLE told")


def soon(check):
    eventually(check, 15)


def test_a_key_of_another_type_on_another_shard(suite, server):
    with suite.connect("app") as connection:
        assert connection.execute("SELECT v FROM a WHERE id = 3").fetchall() == []
        server.run("ALTER TABLE a ALTER COLUMN id TYPE numeric", database=SHARDS[1])
        changed(suite)

        def check():
            said = refused(connection, "INSERT INTO a VALUES (3, 1, 1)")
            assert '"id"' in said and "of type numeric on shard 1" in said
        soon(check)
        assert "on shard 1" in refused(connection, "SELECT v FROM a WHERE id = 42")
        assert connection.execute("SELECT v FROM plain WHERE id = 3").fetchall() == []
        server.run("ALTER TABLE a ALTER COLUMN id TYPE int", database=SHARDS[1])
        changed(suite)
        soon(lambda: works(connection, "INSERT INTO a VALUES (3, 1, 1)"))


def test_a_key_that_compares_or_is_cut_otherwise(suite, server):
    server.run("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', "
               "deterministic = false)", database=SHARDS[1])
    with suite.connect("app") as connection:
        for change, said in (("varchar(3)", "varchar(3) on shard 1"),
                             ("text COLLATE loose", "nondeterministic collation on shard 1")):
            server.run(f"ALTER TABLE n ALTER COLUMN id TYPE {change}", database=SHARDS[1])
            changed(suite)
            soon(lambda: wanted(connection, said))
        server.run("ALTER TABLE n ALTER COLUMN id TYPE text COLLATE \"default\"",
                   database=SHARDS[1])
        changed(suite)
        soon(lambda: works(connection, "SELECT v FROM n WHERE id = 'a'"))


def wanted(connection, said):
    assert said in refused(connection, "SELECT v FROM n WHERE id = 'a'")


def test_columns_in_another_order_need_their_names(suite, server):
    with suite.connect("app") as connection:
        server.run("DROP TABLE plain; CREATE TABLE plain (v int, id bigint)", database=SHARDS[1])
        changed(suite)

        def check():
            assert "column list" in refused(connection, "INSERT INTO plain VALUES (3, 42)")
        soon(check)
        for sql in ("SELECT * FROM plain WHERE id = 3", "SELECT p.* FROM plain p",
                    "TABLE plain", "SELECT 1 FROM (SELECT * FROM plain WHERE id = 3) AS p",
                    "INSERT INTO plain (id, v) VALUES (3, 42) RETURNING *",
                    "UPDATE plain SET v = 1 WHERE id = 3 RETURNING v, plain.*"):
            assert "* of table \"plain\"" in refused(connection, sql), sql
        works(connection, "SELECT count(*) FROM plain WHERE id = 3")
        for key in (3, 42):
            connection.execute(f"INSERT INTO plain (id, v) VALUES ({key}, 7)")
            assert connection.execute(f"SELECT v FROM plain WHERE id = {key}").fetchall() == [(7,)]
        server.run("DROP TABLE plain; CREATE TABLE plain (id bigint, v int)", database=SHARDS[1])
        changed(suite)
        soon(lambda: works(connection, "INSERT INTO plain VALUES (3, 42)"))
        works(connection, "SELECT * FROM plain WHERE id = 3")


def test_a_view_that_hides_a_table_on_another_shard_only(suite, server):
    server.run("CREATE VIEW seen AS SELECT 1 AS v", database=SHARDS[0])
    server.run("CREATE VIEW seen AS SELECT v FROM a", database=SHARDS[1])
    with suite.connect("app") as connection:
        changed(suite)
        soon(lambda: refused(connection, "SELECT * FROM seen"))


def test_a_trigger_that_may_change_the_key_is_told(suite, server):
    for name in SHARDS:
        server.run("""CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS
                      'BEGIN NEW.id := NEW.id + 1; RETURN NEW; END'""",
                   """CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS
                      'BEGIN NEW.v := NEW.id + 1; RETURN NEW; END'""",
                   "CREATE TRIGGER harmless BEFORE INSERT OR UPDATE ON a FOR EACH ROW "
                   "EXECUTE FUNCTION stays()",
                   "CREATE TRIGGER moving BEFORE INSERT ON a FOR EACH ROW "
                   "EXECUTE FUNCTION moves()", database=name)
    changed(suite)

    def check():
        told = [line for line in suite.log_text().splitlines()
                if "may change the sharding key" in line]
        assert len(told) == 1 and "trigger moving" in told[0], told
    soon(check)
    for name in SHARDS:
        server.run("DROP TRIGGER moving ON a", "DROP TRIGGER harmless ON a", database=name)


def test_a_foreign_key_that_changes_the_key_is_seen(suite, server):
    """Of what others refer to: parents.id is nobody's sharding key, a.id is a's own."""
    for name in SHARDS:
        server.run("CREATE TABLE parents (id bigint PRIMARY KEY, v int)", "TRUNCATE plain, a",
                   "ALTER TABLE a ADD UNIQUE (id)", database=name)
    changed(suite)
    with suite.connect("app") as connection:
        connection.execute("UPDATE parents SET id = 5")   # there is a plan for it now
    for name in SHARDS:
        server.run("ALTER TABLE plain ADD CONSTRAINT following FOREIGN KEY (id) REFERENCES parents "
                   "ON UPDATE CASCADE, ADD CONSTRAINT together FOREIGN KEY (id) REFERENCES a (id) "
                   "ON UPDATE CASCADE", database=name)
    changed(suite)
    try:
        with suite.connect("app") as connection:
            soon(lambda: refused(connection, "UPDATE parents SET id = 5"))
            connection.execute("UPDATE parents SET v = 5")
            connection.execute("UPDATE a SET v = 5 WHERE id = 3")
            connection.execute("DELETE FROM a WHERE id = 3")
    finally:
        for name in SHARDS:
            server.run("ALTER TABLE plain DROP CONSTRAINT following, DROP CONSTRAINT together",
                       "DROP TABLE parents", "ALTER TABLE a DROP CONSTRAINT a_id_key", database=name)


@pytest.fixture
def anew(suite, server):
    """The same tables on both shards, and nothing else."""
    for name in SHARDS:
        server.run("DROP TABLE IF EXISTS a CASCADE", "CREATE TABLE a (id bigint, v int, w int)",
                   database=name)
    changed(suite)
    with suite.connect("app") as connection:
        soon(lambda: works(connection, "INSERT INTO a VALUES (3, 1, 1)"))


def test_definitions_count_at_once_in_every_session(suite, anew):
    """Each had a plan for the text, which is not the right one any more."""
    clients = [suite.connect("app") for _ in range(4)]
    first = clients[0]
    try:
        first.execute("CREATE TABLE every (id bigint, v int)")
        for number in range(5):
            first.execute("CREATE OR REPLACE VIEW looked AS SELECT id FROM every")
            for client in clients * 3:
                assert client.execute("SELECT count(*) FROM looked").fetchall() == [(0,)]
            if number % 2:
                first.execute("BEGIN")
            first.execute("CREATE OR REPLACE VIEW looked AS SELECT id FROM a")
            if number % 2:
                first.execute("COMMIT")
            for client in reversed(clients):
                refused(client, "SELECT count(*) FROM looked")
        # The column that a value belongs to.
        first.execute("DROP VIEW looked")
        first.execute("DROP TABLE a")
        first.execute("CREATE TABLE a (x int, id bigint, v int)")
        for client in clients * 3:
            client.execute("INSERT INTO a VALUES (3, 4, 5)")
        first.execute("ALTER TABLE a DROP COLUMN x")
        for client in reversed(clients):
            client.execute("INSERT INTO a VALUES (42, 7)")
        for client in clients:
            assert client.execute("SELECT v FROM a WHERE id = 42").fetchall() == [(7,)] * 4
    finally:
        first.execute("DROP VIEW IF EXISTS looked")
        first.execute("DROP TABLE IF EXISTS every")
        for client in clients:
            client.close()


def test_definitions_of_the_open_transaction(suite, anew):
    with suite.connect("app") as connection:
        for definition, statement in (
                ("CREATE VIEW looked AS SELECT id FROM a", "SELECT count(*) FROM looked"),
                ("ALTER TABLE a DROP COLUMN v", "INSERT INTO a VALUES (1, 2)"),
                ("CREATE SCHEMA mine; CREATE TABLE mine.a (id bigint)",
                 "INSERT INTO mine.a VALUES (1)"),
                ("CREATE FUNCTION looked() RETURNS bigint LANGUAGE sql "
                 "AS 'SELECT count(*) FROM a'", "SELECT looked()")):
            connection.execute("BEGIN")
            for words in definition.split("; "):
                connection.execute(words)
            refused(connection, statement)
            connection.execute("ROLLBACK")
        # What was made just now and is on every shard can be used.
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE fresh (id int)")
        connection.execute("INSERT INTO fresh VALUES (1)")
        connection.execute("ALTER TABLE fresh RENAME TO fresher")
        assert connection.execute("SELECT id FROM fresher").fetchall() == [(1,)]
        connection.execute("DROP TABLE fresher")
        connection.execute("COMMIT")
        assert connection.execute("SELECT v FROM a WHERE id = 99").fetchall() == []


def test_rows_that_a_policy_or_an_operator_takes_from_sharded_tables(suite, anew):
    with suite.connect("app") as connection:
        for words in ("CREATE TABLE docs (owner bigint)",
                      "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
                      "CREATE FUNCTION reads(int, int) RETURNS boolean LANGUAGE sql "
                      "AS 'SELECT count(*) > $1 + $2 FROM a'",
                      "CREATE OPERATOR <<@ (LEFTARG = int, RIGHTARG = int, FUNCTION = reads)",
                      "CREATE VIEW compared AS SELECT 1 AS one WHERE 5 <<@ 3"):
            connection.execute(words)
        assert connection.execute("SELECT count(*) FROM docs").fetchall() == [(0,)]
        refused(connection, "SELECT * FROM compared")
        connection.execute("CREATE POLICY looked ON docs USING "
                           "(EXISTS (SELECT FROM a WHERE a.id = docs.owner))")
        refused(connection, "SELECT count(*) FROM docs")
        connection.execute("DROP POLICY looked ON docs")
        assert connection.execute("SELECT count(*) FROM docs").fetchall() == [(0,)]
        connection.execute("CREATE POLICY asked ON docs USING (reads(1, owner::int))")
        refused(connection, "SELECT count(*) FROM docs")
        connection.execute("DROP POLICY asked ON docs")
        for words in ("DROP VIEW compared", "DROP OPERATOR <<@ (int, int)",
                      "DROP FUNCTION reads", "DROP TABLE docs"):
            connection.execute(words)


def test_aggregates_of_extensions_read_nothing(suite, anew):
    """citext has a max() of its own: that of everybody is to be called all the same."""
    with suite.connect("app") as connection:
        connection.execute("CREATE EXTENSION citext")
        try:
            for words in ("CREATE TABLE words (v int, word citext)",
                          "CREATE FUNCTION more(int, int) RETURNS int LANGUAGE sql AS "
                          "'SELECT count(*)::int FROM a'",
                          "CREATE AGGREGATE reading (int) (SFUNC = more, STYPE = int)"):
                connection.execute(words)
            connection.execute("INSERT INTO words VALUES (3, 'b'), (5, 'A')")
            assert connection.execute("SELECT max(v), max(word) FROM words").fetchall() == [
                (5, "b")]
            refused(connection, "SELECT reading(v) FROM words")
        finally:
            for words in ("DROP TABLE IF EXISTS words", "DROP AGGREGATE IF EXISTS reading (int)",
                          "DROP FUNCTION IF EXISTS more", "DROP EXTENSION citext"):
                connection.execute(words)


def test_a_dump_begins_with_an_empty_path(suite, anew):
    with suite.connect("app") as connection:
        connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
        connection.execute("CREATE TABLE public.restored (v int)")
        try:
            connection.execute("INSERT INTO public.restored VALUES (1)")
            with connection.cursor().copy("COPY public.a (id, v) FROM STDIN") as copy:
                for key in range(100, 120):
                    copy.write_row((key, key + 1))
            assert connection.execute("SELECT v FROM public.a WHERE id = 107").fetchall() == [
                (108,)]
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("SELECT v FROM restored")
        finally:
            connection.execute("DROP TABLE public.restored")
