"""What an operator can ask of a running database beside adding a shard: emptying one, evening out,
doing it by itself; and watching and aborting it from anywhere. Whatever is killed, each row is in
one place, the one that the map names."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import psycopg
import pytest

from support.machine import binaries, wait_until
from support.passes import sanitized_only_for
from support.suite import Suite
from test_reshard import (NEW, OLD, ROWS, SCHEMA, Keepers, add_shard, check_nothing_left,
                          check_over, check_rows, copy_schema, databases, grown, moves,
                          sharded_tables, stored_map)

ALL = OLD + [NEW]
SHARDED = ["accounts", "orders", "tokens", '"Names"']


@pytest.fixture
def three(server):
    """Three shards that own rows, the third since a moment."""
    for name in ALL:
        server.make_database(name)
    with grown(server) as suite:
        done = add_shard(suite)
        assert done.returncode == 0, done.stdout + done.stderr
        yield suite


@pytest.fixture
def growing(server):
    for name in ALL:
        server.make_database(name)
    with grown(server) as suite:
        yield suite


def reshard(suite, *command, timeout=120):
    return subprocess.run([str(binaries() / "pgsled"), "reshard", *command, "--run-dir",
                           str(suite.run_dir)], capture_output=True, text=True, timeout=timeout,
                          check=False)


def begin(suite, *command):
    return subprocess.Popen([str(binaries() / "pgsled"), "reshard", *command, "--run-dir",
                             str(suite.run_dir)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def rows_of(server, database):
    return sum(server.run(f"SELECT count(*) FROM {table}", database=database)[0][0]
               for table in SHARDED)


def step_count(suite, step):
    return suite.log_text().count(f": {step}\n")


@pytest.mark.seconds(150)
def test_a_shard_is_emptied_and_taken_out(three, server):
    before = stored_map(server, OLD[0])[0]
    with Keepers(three) as writers:
        time.sleep(0.5)
        dry = reshard(three, "remove-shard", "2", "--database", "app", "--dry-run")
        assert dry.returncode == 0, dry.stdout + dry.stderr
        assert stored_map(server, OLD[0])[0] == before
        # Not before it owns nothing.
        three.databases = databases(2)
        with pytest.raises(psycopg.Error, match="owns 256 of 768 buckets") as refused:
            three.reload()
        assert "remove-shard 2" in str(refused.value)
        done = reshard(three, "remove-shard", "2", "--database", "app")
        assert done.returncode == 0, done.stdout + done.stderr + three.log_text()[-6000:]
        assert "take it out of pgdog.toml" in done.stderr
        after = stored_map(server, OLD[0])[0]
        assert after.count(2) == 0 and abs(after.count(0) - after.count(1)) <= 1
        assert all(b == a or a == 2 for a, b in zip(before, after)), "nothing else is shuffled"
        assert rows_of(server, NEW) == 0
        three.reload()
        written = writers.written
        wait_until(lambda: writers.errors or writers.written > written + 200, 20)
        writers.stop()
    assert writers.longest < 3, f"a statement waited {writers.longest:.2f} s"
    check_rows(server, writers, OLD)
    check_nothing_left(server, ALL)
    assert server.run("SELECT count(*) FROM countries WHERE name LIKE 'name %'",
                      database=NEW) == [(50,)], "what is on every shard is not taken away"
    assert step_count(three, "flip") == 3, "one move to each of the others"


@pytest.mark.thorough
@pytest.mark.seconds(150)
def test_one_in_the_middle_is_emptied_and_stays(three, server):
    with Keepers(three) as writers:
        done = reshard(three, "remove-shard", "1", "--database", "app")
        assert done.returncode == 0, done.stdout + done.stderr + three.log_text()[-6000:]
        assert "lower number has to stay" in done.stderr
        again = reshard(three, "remove-shard", "1", "--database", "app")
        assert again.returncode == 0 and "nothing has to move" in again.stdout + again.stderr
        time.sleep(0.5)
        writers.stop()
    check_rows(server, writers, ALL)
    assert rows_of(server, OLD[1]) == 0
    # It is not given rows again without being named, and not while it holds old ones.
    no = reshard(three, "add-shard", "--database", "app")
    assert no.returncode == 1 and "was emptied by remove-shard" in no.stdout + no.stderr
    no = reshard(three, "add-shard", "--shard", "1", "--database", "app")
    assert no.returncode == 1 and "countries on shard 1 is not empty" in no.stdout + no.stderr
    server.run("TRUNCATE countries", database=OLD[1])
    done = reshard(three, "add-shard", "--shard", "1", "--database", "app")
    assert done.returncode == 0, done.stdout + done.stderr
    check_rows(server, writers, ALL)
    assert rows_of(server, OLD[1]) > 0
    check_nothing_left(server, ALL)


@pytest.mark.thorough
@pytest.mark.seconds(150)
@pytest.mark.parametrize("step,times", sanitized_only_for(
    [("flip", 2)], [("drop", 1), ("record", 2), ("copy", 2), ("flip", 2), ("clean", 2)]))
def test_the_replicator_dies_on_the_way(three, server, step, times):
    before = step_count(three, step)
    with Keepers(three, patient=step == "flip") as writers:
        command = begin(three, "remove-shard", "0", "--database", "app")
        wait_until(lambda: step_count(three, step) >= before + times, 60, 0.001)
        old = three.kill("replicator", signal.SIGKILL)
        three.wait_restarted("replicator", old)
        said, _ = command.communicate(timeout=20)
        assert command.returncode == 1 and "--follow" in said, said
        followed = reshard(three, "status", "--follow")
        assert followed.returncode == 0, followed.stdout + three.log_text()[-5000:]
        time.sleep(0.3)
        writers.stop()
    assert rows_of(server, OLD[0]) == 0
    assert set(stored_map(server, NEW)[0]) == {1, 2}
    check_rows(server, writers, ALL)
    check_nothing_left(server, ALL)


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_an_abort_deletes_only_what_was_copied(three, server):
    # Shard 1 owns rows of its own: they stay when the move to it is undone.
    own = {name: server.run("SELECT user_id FROM accounts ORDER BY 1", database=name)
           for name in ALL}
    with server.connect(NEW, autocommit=False) as holding:
        holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")   # holds the slot up
        command = begin(three, "remove-shard", "2", "--database", "app")
        before = step_count(three, "prepare")
        wait_until(lambda: step_count(three, "prepare") > before, 30, 0.01)
        holding.rollback()
    before = step_count(three, "copy")
    wait_until(lambda: step_count(three, "catch_up") > 1 or command.poll() is not None, 30, 0.001)
    job = moves(three)[-1]["job"]
    reshard(three, "abort", job)
    said, _ = command.communicate(timeout=60)
    if command.returncode == 0:
        pytest.skip("the move was faster than the abort")
    assert "aborted" in said, said
    owned = stored_map(server, OLD[0])[0]
    assert owned.count(2) > 0
    found = {name: server.run("SELECT user_id FROM accounts ORDER BY 1", database=name)
             for name in ALL}
    assert sorted(sum(found.values(), [])) == sorted(sum(own.values(), [])), "each row once"
    if owned.count(2) == 256:
        assert found == own
    check_nothing_left(server, ALL)
    check_over(three, server)


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_shards_are_evened_out(server):
    for name in OLD:
        server.make_database(name)
    with Suite(server, databases=databases(2), sharded_tables=sharded_tables(),
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            connection.execute(SCHEMA)
        suite.stop()
        for name in OLD:
            server.run("UPDATE pgsled.shard_map SET buckets = '{0,0,1,0}', epoch = 2",
                       database=name)
        suite.start()
        writers = Keepers(suite)
        with suite.connect("app") as connection:
            for key in range(ROWS):
                connection.execute("INSERT INTO accounts (user_id, balance) VALUES (%s, 0)", (key,))
            for number in range(200):
                connection.execute("INSERT INTO tokens VALUES (%s, 1)", (f"{number:032x}",))
                connection.execute('INSERT INTO "Names" ("Name") VALUES (%s)', (f"n{number}",))
        with writers:
            time.sleep(0.3)
            done = reshard(suite, "rebalance", "--database", "app")
            assert done.returncode == 0, done.stdout + done.stderr + suite.log_text()[-6000:]
            time.sleep(0.3)
            writers.stop()
        after = stored_map(server, OLD[1])[0]
        assert after.count(0) == after.count(1) > 100
        assert all(owner == 1 for at, owner in enumerate(after) if at % 4 == 2), "only one way"
        check_rows(server, writers, OLD)
        check_nothing_left(server, OLD)
        again = reshard(suite, "rebalance", "--database", "app")
        assert again.returncode == 0 and "nothing has to move" in again.stdout + again.stderr


@contextlib.contextmanager
def by_itself(server, **more):
    for name in ALL:
        server.make_database(name)
    with Suite(server, databases=databases(2), sharded_tables=sharded_tables(),
               general={"two_phase_commit": True},
               extra=[("[resharding]", {"automatic": True})], **more) as suite:
        with suite.connect("app") as connection:
            connection.execute(SCHEMA)
            for key in range(200):
                connection.execute("INSERT INTO accounts (user_id, balance) VALUES (%s, 0)", (key,))
        yield suite


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_a_joining_shard_gets_its_part_by_itself(server):
    with by_itself(server) as suite:
        copy_schema(server, server)
        server.run("INSERT INTO accounts (user_id, balance) VALUES (1, 1)", database=NEW)
        suite.databases = databases(3)
        suite.reload()
        # What stands in the way is shown, and tried again.
        wait_until(lambda: any(one["automatic"] and one["outcome"] == "failed" and
                               one["next_try_ms"] > 0 for one in moves(suite)), 30)
        assert "tried again" in reshard(suite, "status").stdout
        assert stored_map(server, OLD[0])[0].count(2) == 0
        server.run("TRUNCATE accounts", database=NEW)
        wait_until(lambda: stored_map(server, OLD[0])[0].count(2) > 0, 40,
                   because=suite.log_text()[-4000:])
        wait_until(lambda: moves(suite)[-1]["outcome"] == "done", 20)
        assert sum(server.run("SELECT count(*) FROM accounts", database=name)[0][0]
                   for name in ALL) == 200
        # One that was emptied on purpose stays empty.
        done = reshard(suite, "remove-shard", "2", "--database", "app")
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(8)
        assert stored_map(server, OLD[0])[0].count(2) == 0
        assert all(one["outcome"] != "running" for one in moves(suite))


def ask(suite, instance, **request):
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(f"{suite.run_dir}/{instance}.control")
        line.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(line.makefile().readline())


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_any_replicator_lists_and_aborts(server):
    for name in ALL:
        server.make_database(name)
    with grown(server) as one_replicator:
        one_replicator.arguments = ["--replicators", "2"]
        one_replicator.restart()
        suite = one_replicator
        assert suite.named("replicator") == ["replicator-1", "replicator-2"]
        with server.connect(OLD[1], autocommit=False) as holding:
            holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")
            started = ask(suite, "replicator-1", id=1, request="reshard-start", kind="add-shard",
                          database="app")
            job = started["result"]["job"]
            wait_until(lambda: ": prepare\n" in suite.log_text(), 30, 0.01)
            time.sleep(2)   # the other one looks whether the runner is gone
            for instance in ("replicator-1", "replicator-2"):
                listed = ask(suite, instance, request="reshard-list")["result"]
                assert listed["complete"] is True
                assert [(one["job"], one["outcome"]) for one in listed["jobs"]] == [
                    (job, "running")], listed
            no = ask(suite, "replicator-2", request="reshard-abort", job="0123456789abcdef")
            assert no["error"]["sqlstate"] == "42704"
            assert ask(suite, "replicator-2", request="reshard-abort", job=job)["result"] == {}
            wait_until(lambda: ask(suite, "replicator-2", request="reshard-list")["result"]["jobs"]
                       [-1]["outcome"] == "aborted", 30)
            holding.rollback()
        check_nothing_left(server, ALL)


@pytest.mark.seconds(120)
def test_a_command_detaches_and_the_move_goes_on(server):
    for name in ALL:
        server.make_database(name)
    with grown(server) as suite:
        with server.connect(OLD[1], autocommit=False) as holding:
            holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")
            command = begin(suite, "add-shard", "--database", "app")
            wait_until(lambda: ": prepare\n" in suite.log_text(), 30, 0.01)
            os.kill(command.pid, signal.SIGINT)
            said, _ = command.communicate(timeout=10)
            assert command.returncode == 130 and "status --follow" in said, said
            assert moves(suite)[-1]["outcome"] == "running"
            again = begin(suite, "status", "--follow")
            time.sleep(1)
            holding.rollback()
        said, _ = again.communicate(timeout=60)
        assert again.returncode == 0 and "add-shard 2: done" in said, said
        assert stored_map(server, OLD[0])[0].count(2) > 0


@pytest.mark.thorough
@pytest.mark.seconds(120)
def test_the_admin_database_begins_shows_and_stops_moves(server):
    for name in ALL:
        server.make_database(name)
    with grown(server) as suite:
        for command, error in (("RESHARD app other publication", "InvalidCatalogName"),
                               ("COPY_DATA app other p", "InvalidCatalogName"),
                               ("RESHARD app postgres p", "ObjectNotInPrerequisiteState"),
                               ("SCHEMA_SYNC pre app other p", "InvalidCatalogName"),
                               ("SCHEMA_SYNC post app other p", "ObjectNotInPrerequisiteState"),
                               ("SCHEMA_SYNC app other p", "SyntaxError"),
                               ("REPLICATE app other p", "ObjectNotInPrerequisiteState"),
                               ("CUTOVER", "UndefinedObject")):
            with pytest.raises(getattr(psycopg.errors, error)):
                suite.admin(command)
        with pytest.raises(psycopg.errors.UndefinedObject):
            suite.admin("STOP_TASK 0123456789abcdef")
        assert suite.admin("SHOW TASKS") == suite.admin("SHOW REPLICATION_SLOTS") == []
        with server.connect(OLD[1], autocommit=False) as holding:
            holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")
            task = suite.admin("RESHARD ADD SHARD app")[0]["task_id"]
            wait_until(lambda: ": prepare\n" in suite.log_text(), 30, 0.01)
            shown, = suite.admin("SHOW TASKS")
            assert (shown["id"], shown["scope"], shown["type"], shown["status"],
                    shown["inner_status"]) == (task, "app", "add-shard 2", "running", "prepare")
            with pytest.raises(psycopg.errors.ObjectInUse):
                suite.admin("RESHARD REBALANCE app")
            suite.admin(f"STOP_TASK {task}")
            wait_until(lambda: suite.admin("SHOW TASKS")[0]["status"] == "cancelled", 30)
            holding.rollback()
        with Keepers(suite) as writers:
            suite.admin("RESHARD ADD SHARD app 2")
            slots = []

            def seen():
                slots.extend(suite.admin("SHOW REPLICATION_SLOTS"))
                return suite.admin("SHOW TASKS")[-1]["status"] == "finished"
            wait_until(seen, 60, 0.02)
            writers.stop()
        assert {slot["database_name"] for slot in slots} == set(OLD)
        assert all(slot["name"].startswith("pgsled_") and slot["port"] == server.port
                   for slot in slots)
        check_rows(server, writers, ALL)
        check_nothing_left(server, ALL)


@pytest.mark.seconds(90)
@pytest.mark.release_only
@pytest.mark.parametrize("late", [0, 1.2])
def test_clients_wait_less_than_three_seconds_for_a_flip_that_died(growing, server, late):
    """Killed when all have prepared and one is about to decide; `late`: past its deadline."""
    with Keepers(growing) as writers, contextlib.ExitStack() as locks:
        command = begin(growing, "add-shard", "--database", "app")
        wait_until(lambda: ": compare\n" in growing.log_text(), 60, 0.001)
        holding = [locks.enter_context(server.connect(name, autocommit=False)) for name in ALL]
        wait_until(lambda: ": fence\n" in growing.log_text(), 60, 0.001)
        for one in holding:
            one.execute("LOCK TABLE pgsled.decision IN SHARE MODE")
        wait_until(lambda: server.run("SELECT gid FROM pg_prepared_xacts"), 20, 0.001)
        old = growing.kill("replicator", signal.SIGKILL)
        time.sleep(late)
        for one in holding:
            one.rollback()
        growing.wait_restarted("replicator", old)
        command.wait(20)
        assert reshard(growing, "status", "--follow").returncode == 0
        time.sleep(0.5)
        writers.stop()
    print(f"longest statement {writers.longest * 1000:.0f} ms")
    assert writers.longest < 3, f"a statement waited {writers.longest:.2f} s"
    check_rows(server, writers, ALL)
    check_nothing_left(server, ALL)


@pytest.mark.seconds(60)
def test_an_entry_of_a_list_does_not_change_its_shard_by_itself(server):
    for name in OLD:
        server.make_database(name)

    def entries(shard):
        return [("[[sharded_tables]]", {"database": "app", "name": "regions", "column": "region",
                                        "data_type": "bigint"}),
                ("[[sharded_tables.mapping]]", {"values": [1, 2], "shard": 0}),
                ("[[sharded_tables.mapping]]", {"values": [5], "shard": shard})]
    with Suite(server, databases=databases(2), extra=entries(1),
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            connection.execute("CREATE TABLE regions (region bigint PRIMARY KEY)")
            connection.execute("INSERT INTO regions VALUES (5)")
            suite.extra = entries(0)
            with pytest.raises(psycopg.Error, match="region = 5 are on shard 1") as refused:
                suite.reload()
            vouched = str(refused.value).split('add "')[1].split('"')[0]
            found = connection.execute("SELECT * FROM regions WHERE region = 5").fetchall()
            assert found == [(5,)], "the old configuration stays"
            server.run("DELETE FROM regions", database=OLD[1])
            server.run("INSERT INTO regions VALUES (5)", database=OLD[0])
            suite.extra = entries(0) + [("[resharding]", {"placed_by_hand": [vouched]})]
            suite.reload()
            found = connection.execute("SELECT * FROM regions WHERE region = 5").fetchall()
            assert found == [(5,)]
        # Nor while the suite was down.
        suite.stop()
        suite.extra = entries(1)
        suite.start(wait=False)

        def said():
            try:
                with suite.connect("app", connect_timeout=5) as connection:
                    connection.execute("SELECT * FROM regions WHERE region = 5")
            except psycopg.Error as error:
                return str(error)
            return ""
        wait_until(lambda: "would be looked for on shard 1" in said(), 15, 0.1)
        suite.extra = entries(0)   # what was vouched for is stored
        suite.reload()
        wait_until(lambda: said() == "", 15, 0.1)


@pytest.mark.thorough
@pytest.mark.seconds(60)
def test_an_abort_waits_for_whoever_takes_the_move_over(growing, server):
    with server.connect(OLD[1], autocommit=False) as holding:
        holding.execute("INSERT INTO countries VALUES ('zz', 'nowhere')")   # holds the slot up
        command = begin(growing, "add-shard", "--database", "app")
        wait_until(lambda: ": prepare\n" in growing.log_text(), 30, 0.01)
        time.sleep(0.3)
        job = moves(growing)[-1]["job"]
        growing.process.send_signal(signal.SIGSTOP)   # another one is started when we say so
        growing.kill("replicator", signal.SIGKILL)
        abort = begin(growing, "abort", job)
        said = abort.stdout.readline()
        growing.process.send_signal(signal.SIGCONT)
        assert "as soon as one has taken it over" in said, said + abort.communicate(timeout=90)[0]
        rest = abort.communicate(timeout=90)[0]
        assert abort.returncode == 0 and "aborted" in rest, rest
        command.wait(20)
        holding.rollback()
    check_nothing_left(server, ALL)
    assert server.run("SELECT count(*) FROM accounts", database=NEW) == [(0,)]
    again = reshard(growing, "abort", job)
    assert again.returncode == 1 and "no replicator runs the move" in again.stderr, again


@pytest.mark.seconds(90)
def test_lists_and_ranges_stay_and_keep_a_shard_from_being_emptied(server):
    for name in ALL:
        server.make_database(name)
    entries = [("[[sharded_tables]]", {"database": "app", "name": "regions", "column": "region",
                                       "data_type": "bigint"}),
               ("[[sharded_tables.mapping]]", {"values": [1, 2], "shard": 0}),
               ("[[sharded_tables.mapping]]", {"start": 10, "end": 20, "shard": 1}),
               ("[[sharded_tables.mapping]]", {"values": [5, 6], "shard": 1})]
    with Suite(server, databases=databases(2), sharded_tables=sharded_tables(), extra=entries,
               general={"two_phase_commit": True}) as suite:
        with suite.connect("app") as connection:
            connection.execute(SCHEMA + "CREATE TABLE regions (region bigint PRIMARY KEY)")
            for region in (1, 2, 5, 6, 12):
                connection.execute("INSERT INTO regions VALUES (%s)", (region,))
            for key in range(300):
                connection.execute("INSERT INTO accounts (user_id, balance) VALUES (%s, 0)", (key,))
        no = reshard(suite, "remove-shard", "1", "--database", "app")
        said = no.stdout + no.stderr
        assert no.returncode == 1 and ("rows of regions with region 5, 6, from 10 to below 20 are "
                                       "placed on shard 1 by the file") in said, said
        assert "placed_by_hand" in said and stored_map(server, OLD[0])[0] == [0, 1], said
        copy_schema(server, server)
        suite.databases = databases(3)
        suite.reload()
        done = add_shard(suite)
        assert done.returncode == 0, done.stdout + done.stderr + suite.log_text()[-4000:]
        assert "rows of table public.regions are placed by list or range: they stay" in done.stderr
        found = [sorted(server.run("SELECT region FROM regions", database=name)) for name in ALL]
        assert found == [[(1,), (2,)], [(5,), (6,), (12,)], []]


@pytest.mark.seconds(120)
def test_rows_placed_by_sha1_move(server):
    kinds = {"numbers": "bigint", "texts": "varchar", "uuids": "uuid"}
    for name in ALL:
        server.make_database(name)
    tables = [{"database": "app", "name": table, "column": "key", "data_type": kind,
               "hasher": "sha1"} for table, kind in kinds.items()]
    with Suite(server, databases=databases(2), sharded_tables=tables,
               general={"two_phase_commit": True}) as suite:
        wanted = {"numbers": list(range(-200, 200)), "texts": [f"Größe {i}\t'" for i in range(300)],
                  "uuids": [f"{i * 7919:032x}" for i in range(300)]}
        with suite.connect("app") as connection:
            for table, kind in kinds.items():
                connection.execute(f"CREATE TABLE {table} (key {kind} PRIMARY KEY, n int)")
                for key in wanted[table]:
                    connection.execute(f"INSERT INTO {table} VALUES (%s, 0)", (key,))
        copy_schema(server, server)
        suite.databases = databases(3)
        suite.reload()
        for have, lacks in (([], 0), (OLD, 2)):
            for name in have:
                server.run("CREATE EXTENSION pgcrypto", database=name)
            no = add_shard(suite)
            said = no.stdout + no.stderr
            assert no.returncode == 1 and "public.texts is placed by sha1" in said, said
            assert "pgcrypto" in said and f"shard {lacks}" in said, said
            assert server.run("SELECT slot_name FROM pg_replication_slots") == []
        server.run("CREATE EXTENSION pgcrypto", database=NEW)
        written, ended = 0, False

        def write():
            nonlocal written
            with suite.connect("app") as connection:
                while not ended:
                    for table, keys in wanted.items():
                        key = keys[written % len(keys)]
                        connection.execute(f"UPDATE {table} SET n = n + 1 WHERE key = %s", (key,))
                    written += 1
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            done = add_shard(suite)
            ended = True
            writing.result(20)
        assert done.returncode == 0, done.stdout + done.stderr + suite.log_text()[-4000:]
        buckets = stored_map(server, NEW)[0]
        for table, kind in kinds.items():
            found = {}
            for number, name in enumerate(ALL):
                rows = server.run(f"SELECT key::text, n FROM {table}", database=name)
                assert len(rows) > 50, "each shard has its part"
                found.update({key: (number, n) for key, n in rows})
                assert len(rows) == sum(1 for at, _ in found.values() if at == number)
            said = subprocess.run(
                [str(binaries() / "pgsled"), "hash", "--stdin", "--type", kind, "--hasher", "sha1",
                 "--buckets", str(len(buckets))], input="".join(f"{key}\n" for key in found),
                capture_output=True, text=True, check=True, timeout=30).stdout
            for (key, (number, _)), line in zip(found.items(), said.splitlines()):
                assert buckets[int(line.split()[1])] == number, (table, key, line)
            assert len(found) == len(wanted[table])
            assert sum(n for _, n in found.values()) == written
        check_nothing_left(server, ALL)
