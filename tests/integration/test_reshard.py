"""A shard is added to a running database while clients write: exactly the rows that must move move,
no client sees an error, and nothing is left behind, whatever is killed."""

import contextlib
import json
import random
import re
import signal
import subprocess
import threading
import time
import uuid

import psycopg
import pytest

from support.machine import SLOW, binaries, wait_until
from support.passes import sanitized_only_for
from support.postgres import Postgres
from support.suite import Suite
from support.writers import Writers

OLD, NEW = ["old_0", "old_1"], "new_2"
SCHEMA = """
CREATE TABLE accounts (user_id bigint PRIMARY KEY, balance int NOT NULL, note text,
                       twice int GENERATED ALWAYS AS (balance * 2) STORED);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL,
                     item text, price numeric, at timestamptz DEFAULT now());
CREATE TABLE tokens (token uuid PRIMARY KEY, number int);
CREATE TABLE "Names" ("Name" varchar(40) PRIMARY KEY, number int, made date, raw bytea, f float8);
CREATE TABLE countries (code text PRIMARY KEY, name text);
"""
TABLES = {"accounts": "user_id, balance, note", "orders": "user_id, item, price::text"}
ROWS = 3000


def databases(count):
    return [{"name": "app", "shard": number, "database_name": name}
            for number, name in enumerate(OLD + [NEW]) if number < count] + [{"name": "postgres"}]


def sharded_tables():
    return [{"database": "app", "name": name, "column": "user_id", "data_type": "bigint"}
            for name in TABLES] + [
        {"database": "app", "name": "tokens", "column": "token", "data_type": "uuid"},
        {"database": "app", "name": "Names", "column": "Name", "data_type": "varchar"}]


@pytest.fixture
def growing(server):
    for name in OLD + [NEW]:
        server.make_database(name)
    with grown(server) as suite:
        yield suite


@contextlib.contextmanager
def grown(server, other=None):
    """A suite over two shards with rows, and a third one (on the server `other`, if there is one)
    that is joining and has the tables."""
    with Suite(server, databases=databases(2), sharded_tables=sharded_tables(),
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            connection.execute(SCHEMA)
            for key in range(ROWS):
                connection.execute("INSERT INTO accounts (user_id, balance) VALUES (%s, 0)", (key,))
            for number in range(200):
                connection.execute("INSERT INTO tokens VALUES (%s, %s)",
                                   (uuid.uuid4(), number))
                connection.execute('INSERT INTO "Names" VALUES (%s, %s, %s, %s, %s)',
                                   (f"Näme \\ {number}\t'", number, "0044-03-15 BC",
                                    bytes(range(256)), 0.1 + number))
        for name in OLD:
            server.run("INSERT INTO countries SELECT i, 'name ' || i FROM generate_series(1, 50) i",
                       database=name)
        copy_schema(server, other or server)
        suite.databases = databases(3)
        if other is not None:
            suite.databases[2]["port"] = other.port
        suite.reload()
        yield suite


def copy_schema(server, to):
    dump = subprocess.run(["/usr/lib/postgresql/15/bin/pg_dump", "--schema-only", "-N", "pgsled",
                           server.url(OLD[0])], check=True, capture_output=True, text=True).stdout
    subprocess.run(["/usr/lib/postgresql/15/bin/psql", "-1", "-q", "-v", "ON_ERROR_STOP=1",
                    to.url(NEW)], check=True, input=dump, capture_output=True, text=True)


class Keepers(Writers):
    """Clients that write all the time, each on keys of its own, and know what was acknowledged."""

    def __init__(self, suite, count=4, patient=False):
        """`patient` ones repeat what was refused because rows are being moved."""
        super().__init__(count)
        self.suite, self.patient, self.longest = suite, patient, 0.0
        self.accounts = {key: (0, None) for key in range(ROWS)}
        self.orders, self.countries = [], {}
        self.lock = threading.Lock()

    def _run(self, number, count):
        chance = random.Random(number)
        accounts = {key: self.accounts[key] for key in list(self.accounts) if key % count == number}
        orders, gone, next_key, told, copied = [], set(), ROWS + number, 0, 0
        with self.suite.connect("app") as connection:
            while not self.ended:
                began = time.monotonic()
                try:
                    what = chance.random()
                    key = chance.choice(list(accounts)) if what >= 0.2 else next_key
                    if what < 0.2:
                        connection.execute("INSERT INTO accounts (user_id, balance, note) "
                                           "VALUES (%s, 1, %s)", (key, "n'" * 5))
                        accounts[key] = (1, "n'" * 5)
                        next_key += count
                    elif what < 0.3:
                        connection.execute("DELETE FROM accounts WHERE user_id = %s", (key,))
                        del accounts[key]
                        gone.add(key)
                    elif what < 0.6:
                        with connection.transaction():
                            connection.execute("UPDATE accounts SET balance = balance + 1 "
                                               "WHERE user_id = %s", (key,))
                            connection.execute("INSERT INTO orders (user_id, item, price) "
                                               "VALUES (%s, %s, 1.50)", (key, f"of {number}"))
                        balance, note = accounts[key]
                        accounts[key] = (balance + 1, note)
                        orders.append((key, f"of {number}", "1.50"))
                    elif what < 0.7:
                        connection.execute("UPDATE orders SET item = 'changed' WHERE user_id = %s",
                                           (key,))
                        orders = [(k, "changed" if k == key else item, price)
                                  for k, item, price in orders]
                    elif what < 0.75:
                        connection.execute(
                            "INSERT INTO countries VALUES (%s, %s) ON CONFLICT (code) DO UPDATE "
                            "SET name = excluded.name", (f"w{number}", str(told + 1)))
                        told += 1
                    elif what < 0.77:
                        with connection.cursor().copy("COPY countries FROM STDIN") as copy:
                            copy.write_row((f"c{number} {copied}", "copied"))
                        copied += 1
                    else:
                        connection.execute("UPDATE accounts SET balance = balance + 1, note = %s "
                                           "WHERE user_id = %s", ("x" * 3000, key))
                        accounts[key] = (accounts[key][0] + 1, "x" * 3000)
                    self.written += 1
                except psycopg.errors.CannotConnectNow as error:
                    if not self.patient:
                        self.errors.append(error)
                        break
                except psycopg.Error as error:
                    self.errors.append(error)
                    break
                self.longest = max(self.longest, time.monotonic() - began)
        with self.lock:
            for key in [key for key in self.accounts if key % count == number]:
                del self.accounts[key]
            self.accounts.update(accounts)
            self.orders += orders
            if told:
                self.countries[f"w{number}"] = str(told)
            self.countries.update((f"c{number} {at}", "copied") for at in range(copied))


MAP = "SELECT buckets, epoch FROM pgsled.shard_map WHERE database = 'app'"


def stored_map(server, database):
    return server.run(MAP, database=database)[0]


def where_it_belongs(keys, buckets, kind="bigint"):
    """Key → shard, by `pgsled hash` and the stored map."""
    text = "".join(f"{key}\n" for key in keys)
    said = subprocess.run([str(binaries() / "pgsled"), "hash", "--stdin", "--type", kind,
                           "--buckets", str(len(buckets))], input=text, capture_output=True,
                          text=True, check=True, timeout=30).stdout
    return {key: buckets[int(line.split()[1])] for key, line in zip(keys, said.splitlines())}


def check_rows(server, writers, shards, other=None):
    """All rows that were acknowledged, each once, each where the map says."""
    def run(sql, database):
        return (other if other and database == NEW else server).run(sql, database=database)
    assert not writers.errors, writers.errors
    maps = {json.dumps(run(MAP, name)) for name in shards}
    assert len(maps) == 1, "the shards have the same map"
    buckets = run(MAP, shards[0])[0][0]
    for table, column, kind in (("tokens", "token", "uuid"), ('"Names"', '"Name"', "varchar")):
        found = {}
        for number, name in enumerate(shards):
            for key, in run(f"SELECT {column} FROM {table}", name):
                assert key not in found, f"{key} is on two shards"
                found[key] = number
        assert len(found) == 200
        assert where_it_belongs(list(found), buckets, kind) == found
    place = where_it_belongs(list(range(ROWS + 20000)), buckets)
    for table, columns in TABLES.items():
        found = []
        for number, name in enumerate(shards):
            rows = run(f"SELECT {columns} FROM {table}", name)
            assert all(place[row[0]] == number for row in rows), f"{table} on {name}"
            found += rows
        wanted = ([(key, *value) for key, value in writers.accounts.items()]
                  if table == "accounts" else writers.orders)
        assert sorted(found, key=repr) == sorted(map(tuple, wanted), key=repr), table
    # A shard that owns nothing any more is not written to, and serves nothing.
    owners = set(buckets)
    countries = {json.dumps(run("SELECT * FROM countries ORDER BY 1", name))
                 for number, name in enumerate(shards) if number in owners}
    assert len(countries) == 1, "what is on every shard is the same there"
    written = {code: name for code, name in json.loads(countries.pop()) if code[0] in "wc"}
    assert written == writers.countries


def check_nothing_left(server, shards):
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []
    assert server.run("SELECT roname FROM pg_replication_origin") == []
    assert server.run("SELECT gid FROM pg_prepared_xacts") == []
    for name in shards:
        assert server.run("SELECT pubname FROM pg_publication", database=name) == []
        assert server.run("SELECT relname FROM pg_class WHERE relname IN ('accounts', 'orders') "
                          "AND relreplident <> 'd'", database=name) == []


def add_shard(suite, *more, timeout=120):
    return subprocess.run([str(binaries() / "pgsled"), "reshard", "add-shard", "--database", "app",
                           "--run-dir", str(suite.run_dir), *more], capture_output=True, text=True,
                          timeout=timeout, check=False)


def begin_to_add(suite):
    return subprocess.Popen([str(binaries() / "pgsled"), "reshard", "add-shard", "--database",
                             "app", "--run-dir", str(suite.run_dir)],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def moves(suite):
    said = suite.cli("reshard", "status", "--json", "--run-dir", suite.run_dir, check=False).stdout
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.seconds(120)
def test_rows_move_while_clients_write(growing, server):
    for name in OLD:
        server.run("ANALYZE accounts", database=name)
    dry = add_shard(growing, "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    rows, size = map(int, re.search(r"public\.accounts: about (\d+) rows, (\d+) bytes with indexes "
                                    r"to shard 2", dry.stdout).groups())
    assert abs(rows - ROWS / 3) < 100 and 50_000 < size < 500_000, dry.stdout
    assert re.search(r"in all about \d+ bytes to shard 2; each source keeps up to 68719476736",
                     dry.stdout), dry.stdout
    assert stored_map(server, OLD[0])[0] == [0, 1], "a dry run changes nothing"
    odd = '(SELECT "Names"::text FROM "Names" UNION ALL SELECT tokens::text FROM tokens)'
    before = sorted(sum((server.run(odd, database=name) for name in OLD), []))
    with Keepers(growing) as writers:
        time.sleep(1)
        done = add_shard(growing)
        assert done.returncode == 0, done.stdout + done.stderr + growing.log_text()[-6000:]
        written = writers.written
        wait_until(lambda: writers.errors or writers.written > written + 200, 20)
        writers.stop()
    check_rows(server, writers, OLD + [NEW])
    assert before == sorted(sum((server.run(odd, database=name) for name in OLD + [NEW]), []))
    check_nothing_left(server, OLD + [NEW])
    print(done.stdout, f"longest statement {writers.longest * 1000:.0f} ms")
    buckets = stored_map(server, NEW)[0]
    assert len(buckets) > 100
    assert abs(buckets.count(2) - len(buckets) / 3) <= 1
    assert all(owner in (number % 2, 2) for number, owner in enumerate(buckets)), "nothing shuffled"
    assert writers.longest < 3 * SLOW, f"a statement waited {writers.longest:.2f} s"
    again = add_shard(growing)
    assert again.returncode == 1 and "joining" in again.stdout + again.stderr


@pytest.mark.seconds(150)
@pytest.mark.parametrize("step", sanitized_only_for(
    ["copy", "flip"], ["prepare", "copy", "compare", "fence", "flip", "clean"]))
def test_the_replicator_dies(growing, server, step):
    # A flip that is left in mid-commit holds clients back until the router has resolved it, which
    # may take longer than they wait.
    with Keepers(growing, patient=step == "flip") as writers:
        time.sleep(0.3)
        command = begin_to_add(growing)
        wait_until(lambda: f": {step}\n" in growing.log_text(), 60, 0.001)
        old = growing.kill("replicator", signal.SIGKILL)
        growing.wait_restarted("replicator", old)
        command.wait(10)
        wait_until(lambda: any(one["outcome"] == "done" for one in moves(growing)), 60,
                   because="the move is not gone on with: " + growing.log_text()[-5000:])
        time.sleep(0.5)
        writers.stop()
    check_rows(server, writers, OLD + [NEW])
    check_nothing_left(server, OLD + [NEW])


@pytest.mark.seconds(120)
def test_abort_leaves_nothing_behind(growing, server):
    # An old transaction on a source holds the slot up, and with it the move.
    with server.connect(OLD[1], autocommit=False) as holding, Keepers(growing) as writers:
        holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")
        command = begin_to_add(growing)
        wait_until(lambda: ": prepare\n" in growing.log_text(), 30, 0.01)
        time.sleep(0.5)
        job = moves(growing)[-1]["job"]
        aborted = growing.cli("reshard", "abort", job, "--run-dir", growing.run_dir)
        assert "aborted" in aborted.stdout
        assert command.wait(30) == 1
        holding.rollback()
        writers.stop()
    check_rows(server, writers, OLD)
    check_nothing_left(server, OLD + [NEW])
    assert server.run("SELECT count(*) FROM accounts", database=NEW) == [(0,)]
    assert server.run("SELECT phase FROM pgsled.job", database=OLD[0]) == [("undone",)]
    assert add_shard(growing).returncode == 0, "it can be begun again"
    check_rows(server, writers, OLD + [NEW])


@pytest.mark.thorough
@pytest.mark.seconds(120)
@pytest.mark.parametrize("step", sanitized_only_for(["fence"], ["copy", "fence", "flipped"]))
def test_the_router_dies(growing, server, step):
    with Keepers(growing, patient=True) as writers:
        time.sleep(0.3)
        command = begin_to_add(growing)
        wait_until(lambda: f": {step}\n" in growing.log_text(), 60, 0.001)
        old = growing.kill("router", signal.SIGKILL)
        growing.wait_restarted("router", old)
        status = command.wait(60)
        check_over(growing, server)
        time.sleep(0.5)
        if status != 0:
            assert stored_map(server, NEW)[0].count(2) == 0
            assert server.run("SELECT count(*) FROM accounts", database=NEW) == [(0,)]
            done = add_shard(growing)
            assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(0.3)
        writers.stop()
    check_rows(server, writers, OLD + [NEW])
    check_nothing_left(server, OLD + [NEW])


def check_over(suite, server):
    """No move is under way, and the suite knows it: DDL is taken again."""
    def taken():
        try:
            with suite.connect("app") as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS ddl (a int PRIMARY KEY)")
            return True
        except psycopg.Error:
            return False
    wait_until(taken, 30, because="DDL is refused")
    assert all(one["outcome"] != "running" for one in moves(suite))
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_the_new_server_dies(server):
    with Postgres() as other:
        for name in OLD:
            server.make_database(name)
        other.make_database(NEW)
        with grown(server, other) as suite, Keepers(suite) as writers:
            command = begin_to_add(suite)
            wait_until(lambda: ": compare\n" in suite.log_text(), 60, 0.001)
            other.restart(signal.SIGQUIT)
            assert command.wait(60) == 1
            check_over(suite, server)
            assert other.run("SELECT count(*) FROM accounts", database=NEW) == [(0,)]
            assert other.run("SELECT roname FROM pg_replication_origin") == []
            done = add_shard(suite)
            assert done.returncode == 0, done.stdout + done.stderr
            assert other.run("SELECT count(*) > 900 FROM accounts", database=NEW) == [(True,)]
            writers.stop()
            check_rows(server, writers, OLD + [NEW], other)


@pytest.mark.seconds(60)
def test_a_table_that_comes_during_a_move_ends_it(growing, server):
    with server.connect(OLD[1], autocommit=False) as holding:
        holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")   # holds the slot up
        command = begin_to_add(growing)
        wait_until(lambda: ": prepare\n" in growing.log_text(), 30, 0.01)
        with growing.connect("app") as connection, pytest.raises(psycopg.Error) as refused:
            connection.execute("CREATE TABLE late (a int PRIMARY KEY)")
        assert refused.value.sqlstate == "55006"
        for name in OLD + [NEW]:
            server.run("CREATE TABLE late (a int PRIMARY KEY)", database=name)   # past pgsled
        holding.rollback()
        said, _ = command.communicate(timeout=60)
        assert command.returncode == 1 and "tables were made" in said, said
    check_nothing_left(server, OLD + [NEW])
    assert stored_map(server, NEW)[0].count(2) == 0


@pytest.mark.seconds(60)
def test_all_that_is_missing_is_said_at_once(growing, server):
    for name in OLD + [NEW]:
        server.run("CREATE TABLE keyless (a int)", "ALTER TABLE orders ADD CONSTRAINT o "
                   "UNIQUE (item)", database=name)
        server.run("DROP TABLE tokens", "CREATE TABLE tokens (number int PRIMARY KEY, token uuid "
                   "GENERATED ALWAYS AS (md5(number::text)::uuid) STORED)", database=name)
    server.run("INSERT INTO accounts (user_id, balance) VALUES (1, 1)",
               "ALTER TABLE orders ALTER item TYPE varchar(20)", database=NEW)
    said = add_shard(growing)
    text = said.stdout + said.stderr
    assert said.returncode == 1
    for one in ("table public.keyless has no primary key",
                "public.accounts on shard 2 is not empty",
                "public.orders has other columns on shard 2",
                "table public.tokens: its sharding key token is a generated column",
                "warning: table public.orders: unique"):
        assert one in text, text
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []
    server.run("DROP TABLE accounts", database=NEW)
    said = add_shard(growing, "--dry-run")
    assert said.returncode == 1 and "does not have the table public.accounts" in said.stderr, said


STAMP = "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN {}; END'"


@pytest.mark.seconds(60)
def test_a_shard_that_is_defined_otherwise_gets_no_rows(growing, server):
    """Its rows would be under other rules than those that stay, and perhaps not seen by all clients."""
    for name in OLD:
        server.run(STAMP.format("NEW"), "CREATE TRIGGER stamped BEFORE UPDATE ON accounts FOR EACH "
                   "ROW EXECUTE FUNCTION stamp()", "GRANT SELECT ON accounts TO app",
                   "GRANT UPDATE (note) ON accounts TO app",
                   "CREATE POLICY mine ON orders USING (true)", database=name)
    server.run(STAMP.format("NULL"), "ALTER TABLE orders ALTER at DROP DEFAULT",
               "ALTER TABLE orders ADD CONSTRAINT few CHECK (price < 10)",
               "GRANT DELETE ON accounts TO app", 'ALTER TABLE "Names" ENABLE ROW LEVEL SECURITY',
               "ALTER TABLE tokens DROP CONSTRAINT tokens_pkey", database=NEW)
    said = add_shard(growing)
    text = said.stdout + said.stderr
    assert said.returncode == 1
    for one in ("trigger stamped of table public.accounts is not there",
                "function public.stamp() is another one there",
                "right SELECT on table public.accounts of app is not there",
                "right UPDATE on column note of table public.accounts of app is not there",
                "policy mine of table public.orders is not there",
                "default of column at of table public.orders is not there",
                "constraint few of table public.orders is only there",
                'row security of table public."Names" is another one there',
                "table public.tokens: unique index tokens_pkey is not on shard 2"):
        assert one in text, (one, text)
    assert "may not be defined as shard 0: right DELETE on table public.accounts of app" in text
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []


@pytest.mark.seconds(90)
def test_rows_that_would_be_equal_on_the_new_shard_are_found_before(growing, server):
    for name in OLD + [NEW]:
        server.run("CREATE UNIQUE INDEX often ON orders (lower(item), (price + 1)) "
                   "WHERE price > 0", database=name)
    with growing.connect("app") as connection:
        for key in range(300):
            connection.execute("INSERT INTO orders (user_id, item, price) VALUES (%s, %s, %s)",
                               (key, f"Item {key}", key % 2))
    said = add_shard(growing, "--dry-run")
    assert said.returncode == 0, said.stdout + said.stderr
    # Each stays unique on its own shard.
    for name in OLD:
        server.run("UPDATE orders SET item = 'iTEM ' || place FROM (SELECT id AS same, row_number() "
                   "OVER (ORDER BY id) + 1000 AS place FROM orders) counted WHERE id = same",
                   database=name)
    said = add_shard(growing)
    text = said.stdout + said.stderr
    assert said.returncode == 1, text
    assert re.search(r"table public\.orders: rows of shards 0 and 1 that will be on one shard are "
                     r"equal in the unique index often: \(\"?item \d+\"?,2\)", text), text
    check_nothing_left(server, OLD + [NEW])
    server.run("UPDATE orders SET price = 0", database=OLD[1])
    said = add_shard(growing)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.seconds(60)
@pytest.mark.parametrize("first", sanitized_only_for([1], [1, 5000]))
def test_the_schema_is_copied_to_a_shard_without_tables(growing, server, first):
    server.run('DROP TABLE accounts, orders, tokens, "Names", countries', database=NEW)
    for number, name in enumerate(OLD):
        if first > 1:
            server.run(f"ALTER SEQUENCE orders_id_seq START WITH {first + number} RESTART",
                       database=name)
    for name in OLD:   # a restored definition is not written as the one that was dumped
        server.run("ALTER TABLE accounts ADD kind varchar(9) DEFAULT 'a' CHECK (kind IN ('a', 'b'))",
                   "CREATE UNIQUE INDEX kinds ON accounts (user_id) WHERE kind IN ('a', 'b')",
                   "CREATE VIEW kinds_of AS SELECT * FROM accounts WHERE kind IN ('a', 'b')",
                   "CREATE POLICY kinds ON accounts USING (kind IN ('a', 'b'))",
                   "GRANT SELECT ON accounts TO app", database=name)
    with growing.connect("app") as connection, Keepers(growing) as writers:
        before = server.run("SELECT last_value FROM orders_id_seq", database=OLD[0])
        done = add_shard(growing)
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(0.5)
        writers.stop()
        # Sequences of the new shard keep to values of their own.
        assert server.run("SELECT start_value, increment_by FROM pg_sequences",
                          database=NEW) == [(first + 2, 1024)]
        key = next(key for key, in server.run("SELECT user_id FROM accounts", database=NEW))
        made = connection.execute("INSERT INTO orders (user_id, item, price) VALUES (%s, 'own', 1) "
                                  "RETURNING id", (key,)).fetchone()[0]
        assert made % 1024 == (first + 2) % 1024 and made > before[0][0]
        connection.execute("DELETE FROM orders WHERE user_id = %s AND item = 'own'", (key,))
    check_rows(server, writers, OLD + [NEW])
    check_nothing_left(server, OLD + [NEW])
