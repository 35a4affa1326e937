"""Tables of every kind move to a new shard while clients write: with and without keys, partitioned,
with large values, with indexes and foreign keys, whatever their replica identity; by a role that
has just the rights it needs. What the shards have then is what one PostgreSQL has that was told the
same."""

import contextlib
import random
import signal
import threading
import time

import psycopg
import pytest

from support.machine import wait_until
from support.passes import sanitized_only_for
from support.suite import Suite
from support.writers import Writers
from test_reshard import (NEW, OLD, add_shard, begin_to_add, copy_schema,
                          databases, moves, stored_map, where_it_belongs)

ONE = "one_server"
SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE events (who bigint, what text, n numeric, f float8, at timestamptz, feeling mood,
                     doc json);
CREATE TABLE parts (who bigint NOT NULL, day int NOT NULL, note text, PRIMARY KEY (who, day))
  PARTITION BY RANGE (day);
CREATE TABLE parts_early PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_late PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE TABLE parents (who bigint, id bigint, name text, PRIMARY KEY (who, id));
CREATE TABLE children (id bigint, who bigint, parent bigint, country text REFERENCES countries,
  note text, price numeric(10, 2), PRIMARY KEY (id),
  CONSTRAINT of_parent FOREIGN KEY (who, parent) REFERENCES parents, UNIQUE (who, note));
COMMENT ON CONSTRAINT of_parent ON children IS 'its parent''s';
CREATE INDEX children_by_price ON children (price DESC) WHERE price > 1;
CREATE INDEX children_lower ON children (lower(note)) INCLUDE (price);
COMMENT ON INDEX children_lower IS 'by note';
CREATE TABLE docs (who bigint PRIMARY KEY, title text, body text);
CREATE TABLE known (who bigint NOT NULL, other int NOT NULL, note text);
CREATE UNIQUE INDEX known_once ON known (who, other);
CREATE TABLE quiet (who bigint PRIMARY KEY, note text);
CREATE INDEX quiet_by_note ON quiet (note);
"""
IDENTITIES = ["ALTER TABLE docs REPLICA IDENTITY FULL",
              "ALTER TABLE known REPLICA IDENTITY USING INDEX known_once",
              "ALTER TABLE quiet REPLICA IDENTITY NOTHING"]
SHARDED = ["events", "parts", "parents", "children", "docs", "known", "quiet"]
WHO = 120


def fill(chance):
    """Statements that make the rows there are before the move."""
    for who in range(WHO):
        for _ in range(2):
            yield ("INSERT INTO events VALUES (%s, 'same', 1.50, 0.1, '2020-01-01 00:00+00', "
                   "'good', '{\"a\": 1}')", (who,))
        yield "INSERT INTO parts VALUES (%s, %s, 'first')", (who, chance.randrange(200))
        yield "INSERT INTO parents VALUES (%s, 1, %s)", (who, f"parent {who}")
        yield ("INSERT INTO children VALUES (%s, %s, 1, 'de', %s, 2.50)",
               (1_000_000 + who, who, f"child {who}"))
        yield ("INSERT INTO docs VALUES (%s, 'title', %s)",
               (who, "".join(chance.choices("abcdefghijklmnop", k=9000))))
        yield "INSERT INTO known VALUES (%s, 1, NULL)", (who,)
        yield "INSERT INTO quiet VALUES (%s, 'q')", (who,)


class Both(Writers):
    """Clients that say the same to the suite and to one server, each about keys of its own."""

    def __init__(self, suite, server, user, count=3):
        super().__init__(count)
        self.suite, self.server, self.user = suite, server, user

    def _run(self, number, count):
        chance = random.Random(number)
        try:
            with self.suite.connect("app", user=self.user) as suite, \
                    self.server.connect(ONE) as one:
                while not self.ended:
                    self._write(chance, suite, one, number, count)
                    self.written += 1
                    time.sleep(0.002)
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(error)

    def _write(self, chance, suite, one, number, count):
        who = chance.randrange(WHO // count) * count + number
        fresh = chance.randrange(1 << 40) * count + number

        def both(sql, *values):
            got = suite.execute(sql, values)
            assert one.execute(sql, values).rowcount == got.rowcount, (sql, values)
        what = chance.randrange(15)
        if what == 0:
            both("INSERT INTO events (who, what, n, f, at, feeling, doc) VALUES (%s, 'same', 1.50, "
                 "0.1, '2020-01-01 00:00+00', 'good', '{\"a\": 1}')", who)
        elif what == 1:   # equal rows, each of which is changed
            both("UPDATE events SET n = n + 1 WHERE who = %s", who)
        elif what == 2:   # one of two that are equal
            place = suite.execute("SELECT ctid::text FROM events WHERE who = %s", (who,)).fetchall()
            if place:
                gone = suite.execute("DELETE FROM events WHERE who = %s AND ctid = %s::tid "
                                     "RETURNING what, n, f",
                                     (who, chance.choice(place)[0])).fetchall()
                for row in gone:
                    one.execute("DELETE FROM events WHERE ctid = (SELECT ctid FROM events WHERE "
                                "who = %s AND what = %s AND n = %s AND f IS NOT DISTINCT FROM %s "
                                "LIMIT 1)", (who, *row))
        elif what == 3:
            both("UPDATE events SET f = NULL, n = 1.5, what = 'other' WHERE who = %s AND n > 4",
                 who)
        elif what == 4:   # from one partition to another
            both("UPDATE parts SET day = 199 - day, note = %s WHERE who = %s", f"n{fresh}", who)
        elif what == 5:
            both("DELETE FROM parts WHERE who = %s", who)
            both("INSERT INTO parts VALUES (%s, %s, 'again')", who, fresh % 200)
        elif what == 6:
            both("INSERT INTO parents VALUES (%s, %s, 'new')", who, fresh)
            both("INSERT INTO children VALUES (%s, %s, %s, 'fr', %s, 3)", fresh, who, fresh,
                 f"c{fresh}")
        elif what == 7:
            both("UPDATE children SET price = price + 1 WHERE who = %s", who)
        elif what == 8:
            both("DELETE FROM children WHERE who = %s AND id < 1000000 AND parent > 1", who)
        elif what in (9, 10):   # leaves a large value alone
            both("UPDATE docs SET title = %s WHERE who = %s", f"t{fresh}", who)
        elif what == 11:
            both("UPDATE docs SET body = body || %s WHERE who = %s", "x" * 50, who)
        elif what == 12:
            both("UPDATE known SET note = %s WHERE who = %s", f"k{fresh}", who)
        elif what == 13:
            both("INSERT INTO known VALUES (%s, %s, 'k')", who, fresh % 100_000 + 2)
        else:
            both("INSERT INTO quiet VALUES (%s, 'new')", WHO + fresh)


def catalog(server, database):
    """Indexes, constraints, comments of the tables, as they should be again."""
    return server.run(
        "SELECT indexdef, obj_description(indexname::regclass, 'pg_class') FROM pg_indexes "
        "WHERE schemaname = 'public' UNION ALL SELECT conrelid::regclass || ' ' || conname || "
        "pg_get_constraintdef(oid) || convalidated, obj_description(oid, 'pg_constraint') "
        "FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1",
        database=database)


def set_aside(server):
    if server.run("SELECT to_regclass('pgsled.job_later')", database=NEW)[0][0] is None:
        return False
    return server.run("SELECT count(*) > 0 FROM pgsled.job_later", database=NEW)[0][0]


def identities(server, database):
    return server.run("SELECT relname, relreplident FROM pg_class WHERE relkind = 'r' AND "
                      "relnamespace = 'public'::regnamespace ORDER BY 1", database=database)


def check_all(server, writers, shards):
    assert not writers.errors, writers.errors
    buckets = stored_map(server, shards[0])[0]
    for table in SHARDED:
        found = []
        for number, name in enumerate(shards):
            rows = server.run(f"SELECT who, {table}::text FROM {table}", database=name)
            keys = sorted({who for who, _ in rows})
            place = where_it_belongs(keys, buckets)
            assert set(place.values()) <= {number}, f"{table} on {name}"
            found += [text for _, text in rows]
        wanted = [text for text, in server.run(f"SELECT {table}::text FROM {table}", database=ONE)]
        assert sorted(found) == sorted(wanted), table
    for name in shards:
        assert server.run("SELECT * FROM countries ORDER BY 1", database=name) == server.run(
            "SELECT * FROM countries ORDER BY 1", database=ONE)


def check_tidy(server, before):
    check_nothing_left(server)
    assert catalog(server, NEW) == catalog(server, OLD[0])
    assert server.run("SELECT * FROM pgsled.job_later", database=NEW) == []
    for name in OLD:
        assert identities(server, name) == before


def check_nothing_left(server):
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []
    assert server.run("SELECT roname FROM pg_replication_origin") == []
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []
    for name in OLD + [NEW]:
        assert server.run("SELECT pubname FROM pg_publication", database=name) == []


@contextlib.contextmanager
def grown(server, user="postgres", with_schema=True, **pgsled):
    for name in OLD + [NEW, ONE]:
        server.make_database(name)
        if user != "postgres":
            server.run(f'ALTER DATABASE "{name}" OWNER TO {user}')
            server.run(f"ALTER SCHEMA public OWNER TO {user}", database=name)
    tables = [{"database": "app", "name": name, "column": "who", "data_type": "bigint"}
              for name in SHARDED]
    with Suite(server, databases=databases(2), sharded_tables=tables, pgsled=pgsled,
               users=[{"name": user, "all_databases": True, "schema_admin": True}],
               general={"two_phase_commit": True, "resharding_parallel_copies": 3}) as suite:
        chance = random.Random(1)
        with suite.connect("app") as through, server.connect(ONE) as one:
            for sql in SCHEMA.split(";\n"):
                if sql.strip():
                    through.execute(sql)
                    one.execute(sql)
            for name in OLD + [ONE]:
                server.run("INSERT INTO countries VALUES ('de', 'd'), ('fr', 'f')", database=name)
            for sql, values in fill(chance):
                through.execute(sql, values)
                one.execute(sql, values)
        for name in OLD:
            server.run(*IDENTITIES, database=name)
        if with_schema:
            copy_schema(server, server)
        suite.databases = databases(3)
        suite.reload()
        yield suite


@pytest.mark.seconds(120)
@pytest.mark.parametrize("schema", sanitized_only_for(["by_pgsled"],
                                                      ["by_the_operator", "by_pgsled"]))
def test_tables_of_every_kind(server, schema):
    with grown(server, with_schema=schema == "by_the_operator") as suite:
        before = identities(server, OLD[0])
        with Both(suite, server, "postgres") as writers:
            time.sleep(0.5)
            done = add_shard(suite)
            assert done.returncode == 0, done.stdout + done.stderr + suite.log_text()[-6000:]
            written = writers.written
            wait_until(lambda: writers.errors or writers.written > written + 300, 20)
            writers.stop()
        check_all(server, writers, OLD + [NEW])
        check_tidy(server, before)


# A replicator that dies while indexes are missing leaves behind how to make them again.
@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_death_and_abort_without_indexes(server):
    with grown(server, resharding_copy_rate=400_000) as suite:
        before, whole = identities(server, OLD[0]), catalog(server, NEW)
        with Both(suite, server, "postgres") as writers:
            command = begin_to_add(suite)
            wait_until(lambda: set_aside(server), 60, 0.01)
            time.sleep(0.3)
            suite.cli("reshard", "abort", moves(suite)[-1]["job"], "--run-dir", suite.run_dir)
            assert command.wait(60) == 1
            assert catalog(server, NEW) == whole
            assert server.run("SELECT count(*) FROM docs", database=NEW) == [(0,)]
            check_tidy(server, before)
            command = begin_to_add(suite)
            wait_until(lambda: set_aside(server), 60, 0.01)
            time.sleep(0.3)
            old = suite.kill("replicator", signal.SIGKILL)
            suite.wait_restarted("replicator", old)
            command.wait(10)
            wait_until(lambda: any(one["outcome"] == "done" for one in moves(suite)), 80,
                       because="the move is not gone on with: " + suite.log_text()[-5000:])
            writers.stop()
        check_all(server, writers, OLD + [NEW])
        check_tidy(server, before)


# The role has these rights and no others.
RIGHTS = ["ALTER ROLE mover REPLICATION", "GRANT pg_read_all_stats TO mover",
          "GRANT SET ON PARAMETER session_replication_role TO mover"]
FUNCTIONS = ("GRANT EXECUTE ON FUNCTION pg_replication_origin_create(text), "
             "pg_replication_origin_drop(text), pg_replication_origin_session_setup(text), "
             "pg_replication_origin_session_reset(), "
             "pg_replication_origin_xact_setup(pg_lsn, timestamptz) TO mover")


@pytest.fixture
def mover(server):
    server.run("DROP ROLE IF EXISTS mover")
    server.make_role("mover", options="LOGIN")
    yield "mover"
    for name in OLD + [NEW, ONE]:
        server.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.run("REVOKE SET ON PARAMETER session_replication_role FROM mover", "DROP ROLE mover")


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_a_role_that_is_no_superuser(server, mover):
    with grown(server, mover) as suite:
        server.run("DROP INDEX quiet_by_note", database=NEW)
        for table in ("children", "parts"):
            server.run(f"ALTER TABLE {table} OWNER TO postgres", database=OLD[1])
        lacking = add_shard(suite)
        assert lacking.returncode == 1
        for one in ("session_replication_role: GRANT SET ON PARAMETER",
                    'ALTER ROLE "mover" REPLICATION',
                    "GRANT pg_read_all_stats TO \"mover\"", "GRANT EXECUTE ON FUNCTION",
                    'shard 1: role "mover" does not own tables public.children, public.parts: '
                    'GRANT postgres TO "mover"',
                    "warning: table public.quiet: index quiet_by_note is not on shard 2"):
            assert one in lacking.stderr + lacking.stdout, lacking
        assert server.run("SELECT slot_name FROM pg_replication_slots") == []
        server.run(*RIGHTS)
        server.run("CREATE INDEX quiet_by_note ON quiet (note)", database=NEW)
        for name in OLD + [NEW]:
            server.run(FUNCTIONS, database=name)
            for table in SHARDED + ["countries", "parts_early", "parts_late"]:
                server.run(f"ALTER TABLE {table} OWNER TO mover", database=name)
        before = identities(server, OLD[0])
        with Both(suite, server, mover) as writers:
            time.sleep(0.3)
            done = add_shard(suite)
            assert done.returncode == 0, done.stdout + done.stderr + suite.log_text()[-6000:]
            writers.stop()
        check_all(server, writers, OLD + [NEW])
        check_tidy(server, before)


@pytest.mark.release_only
@pytest.mark.seconds(60)
def test_a_slot_that_holds_back_too_much_is_given_up(server):
    with grown(server, resharding_copy_rate=50_000, resharding_slot_limit=4 << 20) as suite:
        before = identities(server, OLD[0])
        command = begin_to_add(suite)
        wait_until(lambda: ": copy\n" in suite.log_text(), 30, 0.01)
        with suite.connect("app") as connection:
            for number in range(1500):
                connection.execute("UPDATE docs SET body = %s WHERE who = %s",
                                   (random.randbytes(5000).hex(), number % WHO))
        said, _ = command.communicate(timeout=40)
        assert command.returncode == 1 and "resharding_slot_limit" in said, said
        check_tidy(server, before)
        assert stored_map(server, NEW)[0].count(2) == 0


# DDL past pgsled, on the sources alone: before anything is copied, meanwhile, after it.
COLUMNS = ["ALTER TABLE docs ADD COLUMN more int DEFAULT 5",
           "ALTER TABLE events ADD COLUMN extra text DEFAULT 'e'"]
GONE = ["ALTER TABLE docs DROP COLUMN more", "ALTER TABLE events DROP COLUMN extra"]


@contextlib.contextmanager
def moving_until(suite, server, when):
    """A move that has come to this step and, but for the copy, waits there; then it goes on."""
    with server.connect(OLD[1], autocommit=False) as holding:
        hold = "INSERT INTO countries VALUES ('zz', 'nowhere')"   # slots wait for its end
        if when == "prepare":
            holding.execute(hold)
        command = begin_to_add(suite)
        if when == "prepare":
            wait_until(lambda: ": prepare\n" in suite.log_text(), 30, 0.01)
            time.sleep(0.5)
        else:
            wait_until(lambda: set_aside(server), 60, 0.01)
        if when == "compare":
            holding.execute(hold)
            wait_until(lambda: ": compare\n" in suite.log_text(), 60, 0.01)
        yield command
        holding.rollback()


def paused(suite):
    now = moves(suite)[-1]
    return now["outcome"] == "running" and now["step"] == "paused" and now.get("error")


@pytest.mark.thorough
@pytest.mark.seconds(90)
@pytest.mark.parametrize("when, then", sanitized_only_for(
    [("copy", "mended"), ("compare", "aborted")],
    [("prepare", "mended"), ("copy", "mended"), ("compare", "mended"), ("compare", "taken back"),
     ("prepare", "aborted"), ("compare", "aborted")]))
def test_columns_that_come_past_pgsled_pause_the_move(server, when, then):
    with grown(server, resharding_copy_rate=400_000) as suite:
        before = identities(server, OLD[0])
        with Both(suite, server, "postgres") as writers:
            time.sleep(0.3)
            with moving_until(suite, server, when) as command:
                for name in OLD + [ONE]:
                    server.run(*COLUMNS, database=name)
                    server.run("UPDATE docs SET more = who WHERE who % 3 > 0", database=name)
            wait_until(lambda: paused(suite), 30, because=suite.log_text()[-5000:])
            move = moves(suite)[-1]
            for words in ("table public.docs has other columns on shard 2 than on shard 0: it "
                          "lacks more integer; and 1 more", "or take it back"):
                assert words in move["error"]["message"], move
            task = suite.admin("SHOW TASKS")[-1]
            assert task["inner_status"].startswith("paused: tables are not alike"), task
            assert suite.metric("pgsled_moves_paused") == 1
            written = writers.written
            wait_until(lambda: writers.errors or writers.written > written + 100, 20)
            if then == "aborted":
                suite.cli("reshard", "abort", move["job"], "--run-dir", suite.run_dir)
                said, _ = command.communicate(timeout=40)
                assert command.returncode == 1 and "paused" in said and "aborted" in said, said
                writers.stop()
                assert not writers.errors, writers.errors
                for table in SHARDED + ["countries"]:
                    assert server.run(f"SELECT count(*) FROM {table}", database=NEW) == [(0,)]
                assert stored_map(server, NEW)[0].count(2) == 0
            else:
                mend = COLUMNS if then == "mended" else GONE
                for name in [NEW] if then == "mended" else OLD + [ONE]:
                    server.run("SET lock_timeout = '2s'", mend[0], database=name)
                time.sleep(1)
                assert command.poll() is None, "half of it is not all"
                for name in [NEW] if then == "mended" else OLD + [ONE]:
                    server.run("SET lock_timeout = '2s'", mend[1], database=name)
                said, _ = command.communicate(timeout=40)
                assert command.returncode == 0, said + suite.log_text()[-6000:]
                written = writers.written
                wait_until(lambda: writers.errors or writers.written > written + 100, 20)
                writers.stop()
                check_all(server, writers, OLD + [NEW])
        check_tidy(server, before)


@pytest.mark.thorough
@pytest.mark.seconds(90)
@pytest.mark.parametrize("change, reason", [
    ("ALTER TABLE quiet ADD COLUMN more float8 DEFAULT random()", "written anew"),
    ("ALTER TABLE quiet ALTER note TYPE varchar(50)", "changed from text to character varying"),
    ("DROP TABLE quiet; CREATE TABLE quiet (who bigint PRIMARY KEY, note text); "
     "CREATE INDEX quiet_by_note ON quiet (note)", "dropped and made again")])
def test_what_is_not_all_in_the_log_ends_the_move(server, change, reason):
    with grown(server, resharding_copy_rate=400_000) as suite:
        with moving_until(suite, server, "compare") as command:
            server.run(*change.split("; "), database=OLD[0])
            with suite.connect("app") as connection:
                for who in range(WHO):
                    connection.execute("UPDATE quiet SET note = 'w' WHERE who = %s", (who,))
        said, _ = command.communicate(timeout=40)
        assert command.returncode == 1 and "public.quiet" in said and reason in said, said
        check_nothing_left(server)
        assert server.run("SELECT * FROM pgsled.job_later", database=NEW) == []
        assert server.run("SELECT count(*) FROM quiet", database=NEW) == [(0,)]
        assert stored_map(server, NEW)[0].count(2) == 0


def make_large_table(suite, server):
    suite.sharded_tables.append({"database": "app", "name": "wide", "column": "who",
                                 "data_type": "bigint"})
    for name in OLD + [NEW, ONE]:   # one row in a block
        server.run("CREATE TABLE wide (who bigint PRIMARY KEY, note text, filler text) "
                   "WITH (fillfactor = 10)", database=name)
    buckets = stored_map(server, OLD[0])[0]
    place = where_it_belongs(range(30_000), buckets)
    for number, name in enumerate(OLD + [ONE]):
        keys = [who for who in place if name == ONE or place[who] == number]
        with server.connect(name) as connection:
            connection.execute("INSERT INTO wide SELECT i, 'n', repeat('f', 900) FROM "
                               "unnest(%s::bigint[]) i", (keys,))
    size = server.run("SELECT pg_relation_size('wide') / 8192", database=OLD[0])[0][0]
    assert size > 3 * 4096, "several parts"
    suite.reload()


def check_large_table(server):
    found = []
    for number, name in enumerate(OLD + [NEW]):
        rows = server.run("SELECT who, wide::text FROM wide", database=name)
        place = where_it_belongs([who for who, _ in rows], stored_map(server, NEW)[0])
        assert set(place.values()) == {number}
        found += [text for _, text in rows]
    assert sorted(found) == sorted(text for text, in server.run("SELECT wide::text FROM wide",
                                                                database=ONE))


@contextlib.contextmanager
def copying_large_table(server):
    """A move that has begun to copy parts of it; the third says what check_tidy() wants back."""
    with grown(server, resharding_copy_rate=3_000_000) as suite:
        make_large_table(suite, server)
        before = identities(server, OLD[0])
        command = begin_to_add(suite)
        wait_until(lambda: set_aside(server), 30, 0.01)
        time.sleep(0.3)
        yield suite, command, before


RENAME, DROP = (f"ALTER TABLE wide {what}" for what in ("RENAME note TO remark",
                                                       "DROP COLUMN note"))


# What of a table has been copied cannot be told from what has not.
@pytest.mark.thorough
@pytest.mark.seconds(120)
@pytest.mark.parametrize("where, change, then", sanitized_only_for(
    [(OLD[0], RENAME, "made on all")],
    [(OLD[0], RENAME, "made on all"), (OLD[0], RENAME, "aborted"), (OLD[0], DROP, "made on all"),
     (NEW, RENAME, "made on all"), (NEW, RENAME, "taken back"), (NEW, DROP, "made on all")]))
def test_a_copy_that_cannot_go_on_pauses_and_begins_again(server, where, change, then):
    with copying_large_table(server) as (suite, command, before):
        server.run(change, database=where)
        wait_until(lambda: paused(suite), 60, because=suite.log_text()[-5000:])
        move = moves(suite)[-1]
        assert "table public.wide has other columns" in move["error"]["message"], move
        assert server.run("SELECT count(*) > 0 FROM wide", database=NEW) == [(True,)]
        if then == "aborted":
            suite.cli("reshard", "abort", move["job"], "--run-dir", suite.run_dir)
            said, _ = command.communicate(timeout=40)
            assert command.returncode == 1 and "aborted" in said, said
            for table in SHARDED + ["wide"]:
                assert server.run(f"SELECT count(*) FROM {table}", database=NEW) == [(0,)]
            assert stored_map(server, NEW)[0].count(2) == 0
        else:
            if then == "taken back":
                server.run("ALTER TABLE wide RENAME remark TO note", database=where)
            else:
                for name in set(OLD + [NEW, ONE]) - {where}:
                    server.run(change, database=name)
            check_begun_again(suite, server, command)
        check_tidy(server, before)


def check_begun_again(suite, server, command):
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 0, said + suite.log_text()[-6000:]
    assert suite.log_text().count("begins again, from the first row") == 1
    check_large_table(server)


# Parts are told by their place: not any more when the table is written anew.
@pytest.mark.release_only
@pytest.mark.seconds(90)
def test_a_large_table_is_rewritten_meanwhile(server):
    with copying_large_table(server) as (suite, command, before):
        server.run("VACUUM FULL wide", database=OLD[0])
        check_begun_again(suite, server, command)
        assert "truncated or rewritten" in suite.log_text()
        check_tidy(server, before)


# Tables of several parts, which are copied at once while rows go from one to another.
@pytest.mark.seconds(120)
def test_parts_of_a_large_table(server):
    with grown(server) as suite:
        make_large_table(suite, server)
        ended, errors = threading.Event(), []

        def write():
            chance = random.Random(3)
            try:
                with suite.connect("app") as through, server.connect(ONE) as one:
                    while not ended.is_set():
                        who, note = chance.randrange(30_000), "x" * chance.randrange(900)
                        for connection in (through, one):
                            connection.execute("UPDATE wide SET note = %s WHERE who = %s",
                                               (note, who))
            except psycopg.Error as error:
                errors.append(error)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        done = add_shard(suite)
        ended.set()
        writer.join(20)
        assert done.returncode == 0 and not errors, (done, errors)
        check_large_table(server)


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_rows_without_what_they_refer_to_end_the_move(server):
    with grown(server) as suite:
        before, whole = identities(server, OLD[0]), catalog(server, NEW)
        server.run("SET session_replication_role = replica",
                   "INSERT INTO children SELECT who, who, 77, 'de', 'orphan', 1 FROM docs",
                   database=OLD[0])
        done = add_shard(suite, timeout=80)
        assert done.returncode == 1 and "of_parent" in done.stdout + done.stderr, done
        check_tidy(server, before)
        assert catalog(server, NEW) == whole
        assert server.run("SELECT count(*) FROM children", database=NEW) == [(0,)]
        assert stored_map(server, NEW)[0].count(2) == 0


@pytest.mark.thorough
@pytest.mark.seconds(60)
def test_definitions_that_cannot_be_copied(server):
    with grown(server, with_schema=False) as suite:
        suite.extra = [("[replication]", {"pg_dump_path": "/nowhere/pg_dump"})]
        suite.reload()
        done = add_shard(suite)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "/nowhere/pg_dump cannot be run" in said, said
        assert "pg_dump_path" in said and "pg_dump --schema-only -N pgsled" in said, said
        assert server.run("SELECT slot_name FROM pg_replication_slots") == []


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_a_partition_is_truncated_meanwhile(server):
    with grown(server, resharding_copy_rate=200_000) as suite:
        before = identities(server, OLD[0])
        late = [who for who, in server.run("SELECT who FROM parts WHERE day >= 100",
                                           database=OLD[0])]
        other = [who for who, in server.run("SELECT who FROM parts", database=OLD[1])]
        command = begin_to_add(suite)
        wait_until(lambda: set_aside(server), 30, 0.01)
        server.run("TRUNCATE parts_early", database=OLD[0])   # waits for the copy's end
        said, _ = command.communicate(timeout=60)
        assert command.returncode == 0, said
        check_tidy(server, before)
        found = [who for name in OLD + [NEW] for who, in server.run("SELECT who FROM parts",
                                                                    database=name)]
        assert sorted(found) == sorted(late + other)
