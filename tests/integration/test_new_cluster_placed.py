"""A database whose rows lists, ranges and SHA-1 place moves to servers that place them in another of
these ways, while clients write: each row is there once, where statements by its key look for it."""

import contextlib
import random
import time
import uuid

import pytest

from support.machine import wait_until
from support.suite import Suite
from support.writers import Writers
from test_new_cluster import (act, check_nothing_left, job_of, make_databases, new_cluster, reshard,
                              running, Scenario)
from test_new_cluster import roomy  # noqa: F401

ROWS = 300
KINDS = {"numbers": "bigint", "texts": "varchar", "uuids": "uuid"}
SCENARIO = Scenario(2, 3, None, None)
PACE = 0.02                               # seconds between two, so that a busy machine can follow


def entry(database, table, *mapping, **more):
    yield "[[sharded_tables]]", dict({"database": database, "name": table, "column": "key",
                                      "data_type": KINDS.get(table, "bigint")}, **more)
    for one in mapping:
        yield "[[sharded_tables.mapping]]", one


def half(number):
    return f"{number:x}0000000-0000-0000-0000-000000000000"


OLD = [*entry("app", "numbers", {"values": [1, 2, -3, 2 ** 40], "shard": 0},
              {"start": 10, "end": 150, "shard": 1}, {"shard": 0}),
       *entry("app", "texts", hasher="sha1"),
       *entry("app", "uuids", {"end": half(8), "shard": 1}, {"start": half(8), "shard": 0})]
NEW = [*entry("app_new", "numbers", hasher="sha1"),
       *entry("app_new", "texts", {"values": ["", "it's", "Größe 7\\\t"], "shard": 2},
              {"end": "Größe 2", "shard": 0}, {"start": "Größe 2", "end": "Z", "shard": 1},
              {"start": "Z", "shard": 2}),
       *entry("app_new", "uuids", {"values": [half(1), half(9)], "shard": 2},
              {"start": half(4), "end": half(10), "shard": 1}, {"start": half(13), "shard": 2},
              {"shard": 0})]
KEYS = {"numbers": [*range(-100, 197), 2 ** 40, -2 ** 63, 2 ** 63 - 1],
        "texts": ["", "it's", *(f"Größe {number}\\\t" for number in range(200)),
                  *(chr(0x60 + number) for number in range(98))],
        "uuids": [half(number) for number in range(16)] +
                 [str(uuid.UUID(int=random.Random(number).getrandbits(128)))
                  for number in range(ROWS - 16)]}


@contextlib.contextmanager
def placed(server, entries=(*OLD, *NEW)):
    make_databases(server, SCENARIO)
    for name in SCENARIO.old + SCENARIO.new:
        server.run("CREATE EXTENSION pgcrypto", database=name)
        if name in SCENARIO.new:
            server.run(*(f"CREATE TABLE {table} (key {kind}, n int, PRIMARY KEY (key))"
                         for table, kind in KINDS.items()), database=name)
    with Suite(server, databases=SCENARIO.databases(), sharded_tables=[], extra=list(entries),
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            for table, kind in KINDS.items():
                connection.execute(f"CREATE TABLE {table} (key {kind}, n int, PRIMARY KEY (key))")
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    for key in KEYS[table]:
                        copy.write_row((key, 0))
        yield suite


class Changers(Writers):
    """Count in rows, take rows away, and bring them back."""

    def __init__(self, suite, count=3):
        super().__init__(count)
        self.suite = suite
        self.rows = {table: {key: 0 for key in keys} for table, keys in KEYS.items()}

    def _run(self, number, count):
        chance = random.Random(number)
        with self.suite.connect("app") as connection:
            while not self.ended:
                table = chance.choice(list(KINDS))
                key = chance.choice(KEYS[table][number::count])
                try:
                    self._one(connection, chance, table, key)
                    self.written += 1
                except Exception as error:  # pylint: disable=broad-except
                    self.errors.append(error)
                    return
                time.sleep(PACE)

    def _one(self, connection, chance, table, key):
        rows = self.rows[table]
        if key not in rows:
            connection.execute(f"INSERT INTO {table} VALUES (%s, 7)", (key,))
            rows[key] = 7
        elif chance.random() < 0.3:
            connection.execute(f"DELETE FROM {table} WHERE key = %s", (key,))
            del rows[key]
        else:
            connection.execute(f"UPDATE {table} SET n = n + 1 WHERE key = %s", (key,))
            rows[key] += 1


def check(server, databases, changers):
    assert not changers.errors, changers.errors
    for table, rows in changers.rows.items():
        found = sum((server.run(f"SELECT key::text, n FROM {table}", database=name)
                     for name in databases), [])
        assert sorted(found) == sorted((str(key), n) for key, n in rows.items()), table


def check_by_key(suite, changers):
    with suite.connect("app") as connection:
        for table, rows in changers.rows.items():
            for key, n in rows.items():
                assert connection.execute(f"SELECT n FROM {table} WHERE key = %s",
                                          (key,)).fetchall() == [(n,)], (table, key)


@pytest.mark.seconds(150)
def test_there_and_back(roomy):  # noqa: F811  pylint: disable=redefined-outer-name
    with placed(roomy) as suite:
        with Changers(suite) as changers:
            changers.go_on(50)
            new_cluster(suite, "--wait")
            job = job_of(suite)
            changers.go_on()
            act(suite, "cutover", job)
            changers.go_on()
            changers.stop()
        check(roomy, SCENARIO.new, changers)
        for table in KINDS:
            assert all(roomy.run(f"SELECT count(*) > 20 FROM {table}", database=name) == [(True,)]
                       for name in SCENARIO.new), table
        check_by_key(suite, changers)
        act(suite, "roll-back", job)
        check(roomy, SCENARIO.old, changers)
        check_by_key(suite, changers)
        check_nothing_left(roomy, SCENARIO)


@pytest.mark.seconds(120)
def test_a_truncate_of_one_old_shard(roomy):  # noqa: F811  pylint: disable=redefined-outer-name
    """takes its rows away on the new ones, whatever places them there, and no others."""
    with placed(roomy) as suite:
        new_cluster(suite, "--wait")
        job = job_of(suite)
        stay = {table: sorted(roomy.run(f"SELECT key::text FROM {table}", database="old_0"))
                for table in KINDS}
        roomy.run(f"TRUNCATE {', '.join(KINDS)}", database="old_1")
        act(suite, "cutover", job)
        for table, wanted in stay.items():
            found = sum((roomy.run(f"SELECT key::text FROM {table}", database=name)
                         for name in SCENARIO.new), [])
            assert 0 < len(wanted) < ROWS and sorted(found) == wanted, table
        act(suite, "finish", job)


@pytest.mark.seconds(90)
def test_a_value_that_no_list_has_is_found(roomy):  # noqa: F811  pylint: disable=redefined-outer-name
    new = [*entry("app_new", "numbers", {"values": [1, 2], "shard": 0},
                  {"start": -(2 ** 63), "end": 2 ** 50, "shard": 1}), *NEW[1:]]
    with placed(roomy, (*OLD, *new)) as suite:
        said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new")
        text = said.stdout + said.stderr
        assert said.returncode == 1, text
        assert ("table public.numbers has rows whose key is NULL or in no list and no range, by "
                "which \"app_new\" would place them") in text
        with suite.connect("app") as connection:
            connection.execute("DELETE FROM numbers WHERE key = %s", (2 ** 63 - 1,))
            new_cluster(suite, "--wait")
            job = job_of(suite)
            connection.execute("INSERT INTO numbers VALUES (%s, 1)", (2 ** 50,))
        wait_until(lambda: "failed" in reshard(suite, "status").stdout.splitlines()[-1], 20)
        last = reshard(suite, "status").stdout.splitlines()[-1]
        assert job in last and "no list and no range has a row's sharding key" in last, last
        check_nothing_left(roomy, SCENARIO)


@pytest.mark.seconds(60)
def test_what_refers_to_rows_of_another_shard(roomy):  # noqa: F811  pylint: disable=redefined-outer-name
    """Rows with equal keys are on one shard only if one thing places both tables."""
    for hasher, said in (("postgres", True), ("sha1", False)):
        more = entry("app_new", "more", hasher=hasher)
        with placed(roomy, (*OLD, *NEW, *more)) as suite:
            for name in SCENARIO.old + SCENARIO.new:
                roomy.run("CREATE TABLE more (key bigint PRIMARY KEY REFERENCES numbers)",
                          database=name)
            got = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new", "--dry-run")
            text = got.stdout + got.stderr
            assert ("of table public.more refers to public.numbers whose rows are placed in another "
                    "way" in text) == said, text


@pytest.mark.seconds(60)
def test_what_computes_sha1_has_to_be_there(roomy):  # noqa: F811  pylint: disable=redefined-outer-name
    with placed(roomy) as suite:
        roomy.run("DROP EXTENSION pgcrypto", database="old_1")
        roomy.run("CREATE SCHEMA elsewhere", "ALTER EXTENSION pgcrypto SET SCHEMA elsewhere",
                  database="new_2")
        said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new")
        text = said.stdout + said.stderr
        assert said.returncode == 1 and "CREATE EXTENSION pgcrypto" in text, text
        assert "elsewhere.digest" in text and "SET SCHEMA" in text, text
        assert roomy.run("SELECT slot_name FROM pg_replication_slots") == []


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_no_two_shards_give_out_the_same_number(roomy):  # noqa: F811
    """Whatever a sequence counts for, and in which steps: one server gave each number once."""
    scenario = Scenario(1, 3, None, ("id", "user_id"))
    with running(roomy, scenario) as suite:
        for name in scenario.old + scenario.new:
            roomy.run("CREATE SEQUENCE order_no", "CREATE SEQUENCE blocks INCREMENT BY 50",
                      "CREATE SEQUENCE days MAXVALUE 7 CYCLE", database=name)
        given = {name: [roomy.run(f"SELECT nextval('{name}')", database=scenario.old[0])[0][0]
                        for _ in range(3)] for name in ("order_no", "blocks")}
        new_cluster(suite)
        for name, before in given.items():
            after = [roomy.run(f"SELECT nextval('{name}')", database=shard)[0][0]
                     for shard in scenario.new for _ in range(5)]
            assert len(set(after)) == len(after) and min(after) > max(before), (name, after)
        assert all(number % 50 == 1 for number in after), "blocks of 50"
        assert roomy.run("SELECT nextval('days')", database=scenario.new[0])[0][0] <= 7
        act(suite, "roll-back", job_of(suite))


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_a_way_back_that_has_lost_a_row_says_so(roomy):  # noqa: F811
    """Until it is told to end: it does not go on behind what it could not do."""
    scenario = Scenario(1, 3, None, ("id", "user_id"))
    with running(roomy, scenario) as suite:
        new_cluster(suite)
        wait_until(lambda: "reverse" in reshard(suite, "status").stdout, 30)
        roomy.run("DELETE FROM users WHERE id = 5", database=scenario.old[0])
        with suite.connect("app") as client:
            client.execute("UPDATE users SET note = 'new' WHERE id = 5")
            client.execute("UPDATE users SET note = 'new' WHERE id = 6")
        wait_until(lambda: "touched 0 rows" in reshard(suite, "status").stdout, 20)
        for _ in range(20):
            time.sleep(0.2)
            assert "touched 0 rows" in reshard(suite, "status").stdout
        # Mended by hand it goes on.
        roomy.run("INSERT INTO users (id, tenant, note) VALUES (5, 5, 'old')",
                  database=scenario.old[0])
        wait_until(lambda: roomy.run("SELECT note FROM users WHERE id IN (5, 6)",
                                     database=scenario.old[0]) == [("new",), ("new",)], 20)
        wait_until(lambda: "touched 0 rows" not in reshard(suite, "status").stdout, 20)
        act(suite, "finish", job_of(suite))
    check_nothing_left(roomy, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_a_table_that_came_late_undoes_nothing(roomy):  # noqa: F811
    """It was made past pgsled: nothing follows it, and the rest has been copied for hours."""
    scenario = Scenario(1, 3, None, ("id", "user_id"))

    def refused(because):
        reshard(suite, "cutover", job)
        wait_until(lambda: because in reshard(suite, "status").stdout, 20,
                   because=f"not {because}: {suite.log_text()[-3000:]}")
    with running(roomy, scenario) as suite:
        new_cluster(suite, "--wait")
        job = job_of(suite)
        for name in scenario.old + scenario.new:
            roomy.run("CREATE TABLE late (id bigint PRIMARY KEY)", database=name)
        refused("table public.late was made")
        refused("tables were made, changed or dropped during the move")
        assert ": undo\n" not in suite.log_text() and ": fence\n" not in suite.log_text()
        for name in scenario.old + scenario.new:
            roomy.run("DROP TABLE late", database=name)
        refused("index public.late_pkey was dropped")
        act(suite, "cutover", job)
        act(suite, "finish", job)
    check_nothing_left(roomy, scenario)
