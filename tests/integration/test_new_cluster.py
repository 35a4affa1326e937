"""A database moves to the servers of another one while clients write: they see no error, every row
is there once, the old servers follow until the operator decides, and nothing is left behind."""

import contextlib
import random
import signal
import subprocess
import threading
import time

import psycopg
import pytest

from support.machine import SLOW, binaries, wait_until
from support.passes import sanitized_only_for
from support.postgres import Postgres
from support.suite import Suite
from support.writers import Writers

ROWS = 2000
SCHEMA = """
CREATE TABLE users (id {key} PRIMARY KEY, tenant {key} NOT NULL, n int NOT NULL DEFAULT 0,
                    note text);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id {key} NOT NULL, tenant {key} NOT NULL,
                     item text);
CREATE TABLE visits (user_id {key} NOT NULL, tenant {key} NOT NULL, line text);
CREATE TABLE countries (code text PRIMARY KEY, name text);
"""
TABLES = ("users", "orders", "visits", "countries")
ENOUGH = {"max_wal_senders": "40", "max_replication_slots": "40"}


def rules(database, column_of_users, column):
    return [{"database": database, "name": name, "data_type": "bigint",
             "column": column_of_users if name == "users" else column}
            for name in ("users", "orders", "visits")]


class Scenario:
    """What the old and the new cluster look like; `keys` are the columns of sharded_tables."""

    def __init__(self, old, new, old_keys, new_keys, old_type="bigint", new_schema=True):
        self.old = [f"old_{number}" for number in range(old)]
        self.new = [f"new_{number}" for number in range(new)]
        self.tables = (rules("app", *old_keys) if old_keys else []) + (
            rules("app_new", *new_keys) if new_keys else [])
        self.old_type, self.new_schema = old_type, new_schema

    def databases(self):
        def hosts(name, servers, **more):
            return [dict({"name": name, "database_name": one}, **more,
                         **({"shard": number} if len(servers) > 1 else {}))
                    for number, one in enumerate(servers)]
        return (hosts("app", self.old) + hosts("app_new", self.new, resharding_only=True) +
                [{"name": "postgres"}])


SCENARIOS = {
    "one to three": Scenario(1, 3, None, ("id", "user_id"), "int"),
    "two to three by another key": Scenario(2, 3, ("id", "user_id"), ("tenant", "tenant")),
    "three to one": Scenario(3, 1, ("id", "user_id"), None),
}


@pytest.fixture(scope="module")
def roomy():
    with Postgres(ENOUGH) as server:
        yield server


def make_databases(server, scenario):
    """Without what a test that failed may have left."""
    server.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
               "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin")
    for name in scenario.old + scenario.new:
        server.make_database(name)


@contextlib.contextmanager
def running(server, scenario):
    make_databases(server, scenario)
    if scenario.new_schema:
        for name in scenario.new:
            server.run(SCHEMA.format(key="bigint"), database=name)
    with Suite(server, databases=scenario.databases(), sharded_tables=scenario.tables,
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            connection.execute(SCHEMA.format(key=scenario.old_type))
            with connection.cursor().copy("COPY users (id, tenant, note) FROM STDIN") as copy:
                for key in range(1, ROWS + 1):
                    copy.write_row((key, key % 97, "n'ö\t\\" * (key % 50)))
            with connection.cursor().copy("COPY orders FROM STDIN") as copy:
                for key in range(1, ROWS + 1):
                    copy.write_row((key, key, key % 97, f"item {key}"))
            for number in range(20):
                connection.execute("INSERT INTO countries VALUES (%s, %s)", (f"c{number}", "?"))
        yield suite


@pytest.fixture(params=SCENARIOS)
def moving(request, roomy):
    scenario = SCENARIOS[request.param]
    with running(roomy, scenario) as suite:
        yield suite, scenario, roomy


@pytest.fixture
def plain(roomy):
    scenario = SCENARIOS["one to three"]
    with running(roomy, scenario) as suite:
        yield suite, scenario, roomy


class Keepers(Writers):
    """Clients that write all the time, each on keys of its own, and know what was acknowledged."""

    def __init__(self, suite, count=4):
        super().__init__(count)
        self.suite, self.longest = suite, 0.0
        self.users = {key: [key % 97, 0, "n'ö\t\\" * (key % 50)] for key in range(1, ROWS + 1)}
        self.orders = {key: (key, key % 97, f"item {key}") for key in range(1, ROWS + 1)}
        self.visits, self.countries = [], {f"c{number}": "?" for number in range(20)}
        self.lock = threading.Lock()

    def _run(self, number, count):
        chance = random.Random(number)
        mine = [key for key in list(self.users) if key % count == number]
        next_key = ROWS + count + number
        with self.suite.connect("app") as connection:
            while not self.ended:
                began = time.monotonic()
                try:
                    next_key += count
                    self._one(connection, chance, number, mine, next_key)
                    self.written += 1
                except Exception as error:  # pylint: disable=broad-except
                    self.errors.append(error)
                    return
                self.longest = max(self.longest, time.monotonic() - began)
                time.sleep(0.002)

    def _one(self, connection, chance, number, mine, new):
        what, key = chance.random(), chance.choice(mine)
        tenant, count, note = self.users[key]
        if what < 0.15:
            connection.execute("INSERT INTO users (id, tenant) VALUES (%s, %s)", (new, new % 97))
            mine.append(new)
            self.users[new] = [new % 97, 0, None]
        elif what < 0.5:
            note = "x" * 3000 if what < 0.2 else note
            connection.execute("UPDATE users SET n = n + 1, note = %s WHERE id = %s AND "
                               "tenant = %s", (note, key, tenant))
            self.users[key] = [tenant, count + 1, note]
        elif what < 0.7:
            with connection.transaction():
                connection.execute("UPDATE users SET n = n + 1 WHERE id = %s AND tenant = %s",
                                   (key, tenant))
                connection.execute("INSERT INTO orders VALUES (%s, %s, %s, 'new')",
                                   (new, key, tenant))
            self.users[key] = [tenant, count + 1, note]
            with self.lock:   # another one may be going through them
                self.orders[new] = (key, tenant, "new")
        elif what < 0.8:
            connection.execute("DELETE FROM orders WHERE user_id = %s AND tenant = %s",
                               (key, tenant))
            with self.lock:
                for one in [one for one, (owner, *_) in list(self.orders.items()) if owner == key]:
                    del self.orders[one]
        elif what < 0.95:
            connection.execute("INSERT INTO visits VALUES (%s, %s, %s)", (key, tenant, str(new)))
            self.visits.append((key, tenant, str(new)))
        else:
            connection.execute("UPDATE countries SET name = %s WHERE code = %s",
                               (str(new), f"c{number}"))
            self.countries[f"c{number}"] = str(new)

    def wanted(self):
        return {"users": sorted((key, *rest) for key, rest in self.users.items()),
                "orders": sorted((key, *rest) for key, rest in self.orders.items()),
                "visits": sorted(self.visits),
                "countries": sorted(self.countries.items())}


def rows(server, databases, table):
    """Of all shards together; of what is on every shard, of each, which have to be the same."""
    columns = {"users": "id, tenant, n, note"}.get(table, "*")
    found = [sorted(server.run(f"SELECT {columns} FROM {table}", database=one))
             for one in databases]
    if table == "countries":
        assert all(one == found[0] for one in found), "the same on every shard"
        return found[0]
    return sorted(sum(found, []))


def check_rows(server, databases, writers):
    assert not writers.errors, writers.errors
    for table, wanted in writers.wanted().items():
        assert rows(server, databases, table) == wanted, f"{table} of {databases}"


def check_placed(suite, scenario, server):
    """Clients find by key what there is: `app` has the new placement."""
    assert len(scenario.new) == 1 or all(
        server.run("SELECT count(*) FROM users", database=one)[0][0] > 0 for one in scenario.new)
    with suite.connect("app") as connection:
        for key in range(1, 40):
            assert connection.execute("SELECT count(*) FROM users WHERE id = %s AND tenant = %s",
                                      (key, key % 97)).fetchone() == (1,)


def check_nothing_left(server, scenario):
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []
    assert server.run("SELECT roname FROM pg_replication_origin") == []
    for name in scenario.old + scenario.new:
        assert server.run("SELECT pubname FROM pg_publication", database=name) == []
        assert server.run("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                          " AND relkind = 'r' AND relreplident <> 'd'", database=name) == []
        # A move that died in its first step has made none of them.
        for table, where in (("job_waiting", "true"), ("job", "phase IN ('moving', 'flipped')")):
            made = server.run(f"SELECT to_regclass('pgsled.{table}') IS NOT NULL", database=name)
            assert made == [(False,)] or server.run(
                f"SELECT count(*) FROM pgsled.{table} WHERE {where}", database=name) == [(0,)]
        assert server.run("SELECT count(*) FROM pgsled.served_as WHERE job IS NOT NULL",
                          database=name) == [(0,)]


def reshard(suite, *arguments, timeout=90):
    return subprocess.run([str(binaries() / "pgsled"), "reshard", *arguments, "--run-dir",
                           str(suite.run_dir)], capture_output=True, text=True,
                          timeout=timeout * SLOW, check=False)


def new_cluster(suite, *more):
    said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new", *more)
    assert said.returncode == 0, said.stdout + said.stderr + suite.log_text()[-6000:]
    return said


def job_of(suite):
    wait_until(lambda: reshard(suite, "status").stdout, 10)
    return reshard(suite, "status").stdout.splitlines()[-1].split()[1].rstrip(":")


def act(suite, what, job):
    said = reshard(suite, what, job)
    assert said.returncode == 0, said.stdout + said.stderr + suite.log_text()[-6000:]
    return said


def at_step(suite, step):
    return f": {step}\n" in suite.log_text()


@pytest.mark.release_only   # the way there and back is tried with the sanitizers
@pytest.mark.seconds(150)
def test_a_database_moves_while_clients_write(moving):
    suite, scenario, server = moving
    with Keepers(suite) as writers:
        writers.go_on(50)
        new_cluster(suite)
        writers.go_on()
        check_placed(suite, scenario, server)
        writers.stop()
        check_rows(server, scenario.new, writers)
        # The old servers follow, so that there is a way back.
        wait_until(lambda: all(rows(server, scenario.old, table) == wanted
                               for table, wanted in writers.wanted().items()), 20,
                   because="the old servers do not follow")
    act(suite, "finish", job_of(suite))
    check_rows(server, scenario.new, writers)
    check_nothing_left(server, scenario)
    assert writers.longest < 5, f"a statement waited {writers.longest:.2f} s"
    with pytest.raises(psycopg.Error):
        suite.connect("app_new").close()


@pytest.mark.seconds(150)
def test_and_back_again(moving):
    suite, scenario, server = moving
    with Keepers(suite) as writers:
        writers.go_on(50)
        new_cluster(suite, "--wait")
        job = job_of(suite)
        writers.go_on()
        act(suite, "cutover", job)
        writers.go_on()
        act(suite, "roll-back", job)
        writers.go_on()
        writers.stop()
    check_rows(server, scenario.old, writers)
    check_nothing_left(server, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(150)
def test_by_the_commands_that_pgdog_has(roomy):
    """The steps one by one, as an operator has them in his notes."""
    scenario = Scenario(2, 3, ("id", "user_id"), ("tenant", "tenant"), new_schema=False)

    def task(command):
        found = suite.admin(f"{command} app app_new publication")
        assert len(found) == 1, found
        return found[0]

    def status(of):
        return next((one for one in suite.admin("SHOW TASKS") if one["id"] == of["task_id"]),
                    {"status": "not there"})

    def wait_for(of, wanted):
        wait_until(lambda: status(of)["status"] == wanted, 60, because=f"it is not {wanted}")
    with running(roomy, scenario) as suite, Keepers(suite) as writers:
        for command in ("SCHEMA_SYNC post", "SCHEMA_SYNC cutover", "REPLICATE"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="COPY_DATA"):
                task(command)
        schema = task("SCHEMA_SYNC pre")
        wait_for(schema, "finished")
        assert status(schema)["type"] == "schema-sync app_new"
        for name in scenario.new:
            assert roomy.run("SELECT count(*) FROM users", database=name) == [(0,)]
        assert roomy.run("SELECT slot_name FROM pg_replication_slots") == []
        assert roomy.run("SELECT pubname FROM pg_publication", database=scenario.old[0]) == []
        # Again it has nothing to do.
        wait_for(task("SCHEMA_SYNC pre"), "finished")
        copy = task("COPY_DATA")
        wait_until(lambda: status(copy)["inner_status"] == "ready", 60)
        slots = {one["name"] for one in suite.admin("SHOW REPLICATION_SLOTS")}
        assert slots and all(one.startswith(copy["replication_slot"]) for one in slots), slots
        for command in ("SCHEMA_SYNC post", "REPLICATE", "SCHEMA_SYNC cutover"):
            assert task(command) == {"task_id": copy["task_id"]}
        for command in ("COPY_DATA", "SCHEMA_SYNC pre"):
            with pytest.raises(psycopg.errors.ObjectInUse):
                task(command)
        writers.go_on(50)
        suite.admin("CUTOVER")
        wait_until(lambda: status(copy)["inner_status"] == "reverse", 60)
        writers.go_on(50)
        writers.stop()
        suite.admin(f"STOP_TASK {copy['task_id']}")
        wait_for(copy, "finished")
        check_rows(roomy, scenario.new, writers)
        check_nothing_left(roomy, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(150)
@pytest.mark.parametrize("step", sanitized_only_for(
    ["fence"], ["copy", "ready", "fence", "flip", "flipped", "reverse"]))
def test_the_replicator_dies(plain, step):
    suite, scenario, server = plain
    with Keepers(suite) as writers:
        writers.go_on(50)
        more = ["--wait"] if step == "ready" else []
        command = subprocess.Popen([str(binaries() / "pgsled"), "reshard", "new-cluster",
                                    "--database", "app", "--to", "app_new", "--run-dir",
                                    str(suite.run_dir), *more], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        wait_until(lambda: at_step(suite, step), 60, 0.001)
        old = suite.kill("replicator", signal.SIGKILL)
        suite.wait_restarted("replicator", old)
        command.wait(20)
        job = job_of(suite)
        if step == "ready":
            wait_until(lambda: suite.log_text().count(": ready\n") > 1, 60)
            act(suite, "cutover", job)
        wait_until(lambda: "reverse" in reshard(suite, "status").stdout, 60,
                   because="the move is not gone on with: " + suite.log_text()[-5000:])
        writers.go_on()
        writers.stop()
        check_rows(server, scenario.new, writers)
        wait_until(lambda: all(rows(server, scenario.old, table) == wanted
                               for table, wanted in writers.wanted().items()), 20,
                   because="the old servers do not follow")
    act(suite, "finish", job)
    check_nothing_left(server, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(150)
@pytest.mark.parametrize("step", sanitized_only_for(["reverse"], ["flipped", "reverse"]))
def test_the_servers_die_after_the_cutover(plain, step):
    """The way back goes on when they are there again; nobody has to help."""
    suite, scenario, server = plain
    with Keepers(suite) as writers:
        writers.go_on(50)
        new_cluster(suite, "--wait")
        writers.stop()
    job = job_of(suite)
    command = subprocess.Popen([str(binaries() / "pgsled"), "reshard", "cutover", job, "--run-dir",
                                str(suite.run_dir)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    wait_until(lambda: at_step(suite, step), 60, 0.001)
    server.restart(signal.SIGQUIT)
    command.wait(60)
    wait_until(lambda: "reverse" in reshard(suite, "status").stdout, 60,
               because="the move is not gone on with: " + suite.log_text()[-5000:])

    def writes():
        try:
            with suite.connect("app") as connection:
                connection.execute("INSERT INTO users (id, tenant, note) VALUES (900001, 5, 'late')")
        except psycopg.Error:
            return False
        return True
    wait_until(writes, 30)
    late = "SELECT note FROM users WHERE id = 900001"
    wait_until(lambda: sum((server.run(late, database=one) for one in scenario.old), []) ==
               [("late",)], 60, because="the old servers do not follow")
    act(suite, "roll-back", job)
    with suite.connect("app") as connection:
        assert connection.execute(late).fetchall() == [("late",)]
    check_nothing_left(server, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(150)
def test_the_router_dies_at_the_fence(plain):
    suite, scenario, server = plain
    with Keepers(suite) as writers:
        writers.go_on(50)
        new_cluster(suite, "--wait")
        writers.stop()
        job = job_of(suite)
        # Until this one ends the fence does not hold.
        with suite.connect("app", autocommit=False) as holding:
            holding.execute("SELECT FROM countries")
            command = subprocess.Popen([str(binaries() / "pgsled"), "reshard", "cutover", job,
                                        "--run-dir", str(suite.run_dir)],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: at_step(suite, "fence"), 60, 0.001)
            old = suite.kill("router", signal.SIGKILL)
            suite.wait_restarted("router", old)
            holding.commit()
        command.wait(90)
    wait_until(lambda: "reverse" in reshard(suite, "status").stdout, 60,
               because="the move is not gone on with: " + suite.log_text()[-5000:])
    check_rows(server, scenario.new, writers)
    act(suite, "finish", job)
    check_nothing_left(server, scenario)


@pytest.mark.seconds(120)
def test_abort_leaves_nothing_behind(plain):
    suite, scenario, server = plain
    with Keepers(suite) as writers:
        new_cluster(suite, "--wait")
        job = job_of(suite)
        writers.go_on()
        said = reshard(suite, "abort", job)
        assert said.returncode == 0 and "aborted" in said.stdout, said.stdout + said.stderr
        writers.go_on()
        writers.stop()
    check_rows(server, scenario.old, writers)
    check_nothing_left(server, scenario)
    for name in scenario.new:
        for table in TABLES:
            assert server.run(f"SELECT count(*) FROM {table}", database=name) == [(0,)]
    new_cluster(suite)   # it can be begun again
    check_rows(server, scenario.new, writers)
    act(suite, "finish", job_of(suite))


@pytest.mark.seconds(60)
def test_all_that_is_missing_is_said_at_once(plain):
    suite, scenario, server = plain
    server.run("CREATE TABLE only_there (a int PRIMARY KEY)", database="new_1")
    server.run("INSERT INTO countries VALUES ('zz', 'here already')", database="new_2")
    server.run("ALTER TABLE users ALTER n TYPE smallint", database="new_0")
    server.run("ALTER TABLE visits DROP COLUMN line", database="new_1")
    said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new", "--dry-run")
    text = said.stdout + said.stderr
    assert said.returncode == 1
    for one in ("table public.only_there is not on", "table public.countries is not empty",
                "column n of table public.users is smallint, which cannot hold what integer holds",
                "table public.visits has another number of columns"):
        assert one in text, text
    said = reshard(suite, "new-cluster", "--database", "app", "--to", "nowhere")
    assert said.returncode == 1 and "nowhere" in said.stdout + said.stderr
    said = reshard(suite, "new-cluster", "--database", "app", "--to", "postgres")
    assert said.returncode == 1, "clients may log in there"
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_the_definitions_are_copied(roomy):
    scenario = Scenario(1, 2, None, ("id", "user_id"), new_schema=False)
    with running(roomy, scenario) as suite:
        writers = Keepers(suite)
        new_cluster(suite)
        check_rows(roomy, scenario.new, writers)
        indexes = ("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        assert roomy.run(indexes, database="new_0") == roomy.run(indexes, database="old_0")
        act(suite, "finish", job_of(suite))
        check_nothing_left(roomy, scenario)


@pytest.mark.seconds(60)
def test_a_row_without_a_key_has_nowhere_to_go(roomy):
    scenario = Scenario(1, 2, None, ("id", "user_id"))
    with running(roomy, scenario) as suite:
        for name in scenario.old + scenario.new:
            roomy.run("ALTER TABLE visits ALTER user_id DROP NOT NULL", database=name)
        roomy.run("INSERT INTO visits VALUES (NULL, 1, 'lost?')", database="old_0")
        said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new")
        assert said.returncode == 1
        assert "rows whose user_id is NULL" in said.stdout + said.stderr
        roomy.run("DELETE FROM visits", database="old_0")
        new_cluster(suite, "--wait")
        job = job_of(suite)
        roomy.run("INSERT INTO visits VALUES (NULL, 1, 'lost?')", database="old_0")
        def last():
            return reshard(suite, "status").stdout.splitlines()[-1]
        wait_until(lambda: "failed" in last(), 20)
        assert job in last() and "no sharding key" in last()
        assert roomy.run("SELECT count(*) FROM visits", database="old_0") == [(1,)]
        check_nothing_left(roomy, scenario)


def last_move(suite):
    lines = reshard(suite, "status").stdout.splitlines()
    return lines[-1] if lines else ""


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_definitions_are_not_changed_unseen(plain):
    """By pgsled they are not changed at all; what is done past it is found before the switch."""
    suite, scenario, server = plain
    with suite.connect("app") as before:
        before.execute("SELECT 1")
        new_cluster(suite, "--wait")
        job = job_of(suite)
        for client in (before, suite.connect("app")):
            for statement in ("ALTER TABLE users ADD more text", "DROP TABLE visits",
                              "CREATE INDEX ON users (n)", "SELECT 1; DROP TABLE orders"):
                with pytest.raises(psycopg.Error) as refused:
                    client.execute(statement)
                assert refused.value.sqlstate == "55006", refused.value
                assert "pgsled reshard" in refused.value.diag.message_hint
            with pytest.raises(psycopg.Error) as refused, client.transaction():
                client.execute("UPDATE users SET n = 77 WHERE id = 1")
                client.execute("ALTER TABLE users ADD more text")
            assert refused.value.sqlstate == "55006"
            assert client.execute("SELECT n FROM users WHERE id = 1").fetchone() == (0,)
            client.execute("CREATE TEMP TABLE mine (a int)")
            client.execute("ALTER TABLE mine ADD b int")
            client.execute("DROP TABLE mine")
            client.close()
    server.run("CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'",
               "CREATE INDEX by_note ON users (n)", database="old_0")
    reshard(suite, "cutover", job)
    wait_until(lambda: "definitions on" in last_move(suite), 20)
    said = last_move(suite)
    assert "function public.twice(integer) was made" in said, said
    assert "index public.by_note was made" in said and "cutover " + job in said, said
    assert server.run("SELECT name FROM pgsled.served_as", database="old_0") == [("app",)]
    act(suite, "cutover", job)
    assert server.run("SELECT name FROM pgsled.served_as", database="new_0") == [("app",)]
    act(suite, "finish", job)
    with suite.connect("app") as client:
        client.execute("CREATE TABLE after_all (id bigint PRIMARY KEY)")
    check_nothing_left(server, scenario)


def close(server, databases, closed):
    for name in databases:
        server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'false' if closed else 'true'}")
        if closed:
            server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                       f"datname = '{name}'")


@pytest.mark.release_only
@pytest.mark.seconds(120)
def test_the_old_servers_are_lost_for_good(plain):
    """The job ends all the same, and what it has left there goes when they are back."""
    suite, scenario, server = plain
    new_cluster(suite)
    job = job_of(suite)
    # Those of the way there are on the old servers, and go once the way back is followed.
    wait_until(lambda: server.run("SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ 'to[0-9]+_'")
               == [] and "reverse" in last_move(suite), 30)
    close(server, scenario.old, True)
    old = suite.kill("replicator", signal.SIGKILL)
    suite.wait_restarted("replicator", old)
    wait_until(lambda: "reverse" in last_move(suite), 30)
    began = time.monotonic()
    said = act(suite, "finish", job)
    assert time.monotonic() - began < 50
    assert "still there" in said.stdout + said.stderr, said.stdout + said.stderr
    assert server.run("SELECT slot_name FROM pg_replication_slots") == []
    with suite.connect("app") as client:
        client.execute("CREATE TABLE after_all (id bigint PRIMARY KEY)")
    close(server, scenario.old, False)

    def tidy():
        return server.run("SELECT count(*) FROM pgsled.job WHERE phase IN ('moving', 'flipped')",
                          database="old_0") == [(0,)] and server.run(
            "SELECT job FROM pgsled.served_as", database="old_0") == [(None,)]
    wait_until(tidy, 40, because=suite.log_text()[-4000:])
    check_nothing_left(server, scenario)


@pytest.mark.seconds(60)
def test_keys_that_cannot_be_unique_any_more(roomy):
    scenario = Scenario(3, 1, ("id", "user_id"), None)
    with running(roomy, scenario) as suite:
        for number, name in enumerate(scenario.old[:2]):   # past pgsled
            roomy.run(f"INSERT INTO orders VALUES (900001, {number}, 1, 'same')", database=name)
        said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new", "--dry-run")
        text = said.stdout + said.stderr
        assert said.returncode == 1
        assert "equal in the unique index orders_pkey: (900001)" in text, text
    scenario = Scenario(1, 2, None, ("tenant", "tenant"))
    with running(roomy, scenario) as suite:
        said = reshard(suite, "new-cluster", "--database", "app", "--to", "app_new", "--dry-run")
        text = said.stdout + said.stderr
        assert said.returncode == 0, text
        assert "public.orders: unique keys without the sharding key tenant" in text, text
