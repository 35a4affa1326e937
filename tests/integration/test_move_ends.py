"""The ends of moves: what is taken away behind the flip and after an abort, by whoever comes to do
it, whatever was lost meanwhile; and what would be left behind for good."""

import contextlib
import signal
import time

import pytest

from support.machine import wait_until
from test_move_goals import ALL, begin, reshard
from test_move_goals import growing, three  # noqa: F401
from test_reshard import NEW, OLD, check_nothing_left, moves


def at_step(suite, step):
    return f": {step}\n" in suite.log_text()


def slots_and_publications(server):
    left = server.run("SELECT slot_name FROM pg_replication_slots")
    for name in OLD:
        left += server.run("SELECT pubname FROM pg_publication", database=name)
    return left


@contextlib.contextmanager
def cleaning(suite, server):
    """A move whose old rows cannot be deleted yet: its command, and what holds it."""
    with server.connect(OLD[0], autocommit=False) as holding:
        command = begin(suite, "add-shard", "--database", "app")
        wait_until(lambda: at_step(suite, "copy"), 30, 0.01)
        holding.execute("LOCK TABLE accounts IN SHARE MODE")
        wait_until(lambda: at_step(suite, "clean") or command.poll() is not None, 40)
        assert command.poll() is None, command.stdout.read()
        wait_until(lambda: server.run("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = "
                                      "'accounts'::regclass", database=OLD[0]), 10)
        yield command, holding


def ended(command):
    said, _ = command.communicate(timeout=40)
    assert command.returncode == 0, said


def places(server, table, key):
    return {name: {row[0] for row in server.run(f"SELECT {key}::text FROM {table}", database=name)}
            for name in ALL}


@pytest.mark.seconds(90)
def test_logs_are_not_held_back_while_old_rows_go(growing, server):  # noqa: F811
    with cleaning(growing, server) as (command, holding):
        assert slots_and_publications(server) == []
        # Servers end connections that have long been idle.
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                   f"'{NEW}' AND application_name LIKE 'pgsled move%'")
        holding.rollback()
        ended(command)
    check_nothing_left(server, ALL)
    found = places(server, "accounts", "user_id")
    assert found[NEW] and not found[NEW] & (found[OLD[0]] | found[OLD[1]])


@pytest.mark.seconds(90)
def test_old_rows_stay_where_the_new_place_has_lost_them(growing, server):  # noqa: F811
    """As after the promotion of a standby that had not got the end of its primary's log."""
    with cleaning(growing, server) as (command, holding):
        server.run("UPDATE pgsled.job SET phase = 'moving'", database=NEW)
        moved = places(server, "tokens", "token")
        holding.rollback()
        wait_until(lambda: "does not know that rows were moved to it" in growing.log_text(), 20)
        left = places(server, "tokens", "token")
        assert left == moved and left[NEW] & left[OLD[0]]
        server.run("UPDATE pgsled.job SET phase = 'flipped'", database=NEW)
        ended(command)
    found = places(server, "tokens", "token")
    assert not found[NEW] & (found[OLD[0]] | found[OLD[1]])
    check_nothing_left(server, ALL)


@pytest.mark.seconds(90)
def test_an_aborted_move_does_not_come_back(growing, server):  # noqa: F811
    with server.connect(NEW, autocommit=False) as copy_held, \
            server.connect(OLD[1], autocommit=False) as undo_held:
        copy_held.execute("LOCK TABLE tokens IN SHARE MODE")
        command = begin(growing, "add-shard", "--database", "app")
        wait_until(lambda: at_step(growing, "copy"), 30)
        undo_held.execute("SELECT FROM orders")
        abort = begin(growing, "abort", moves(growing)[-1]["job"])
        wait_until(lambda: at_step(growing, "undo"), 20)
        time.sleep(0.5)
        growing.wait_restarted("replicator", growing.kill("replicator", signal.SIGKILL))
        copy_held.rollback()
        undo_held.rollback()
    wait_until(lambda: server.run("SELECT 1 FROM pgsled.shard_map WHERE job IS NULL",
                                  database=OLD[0]), 40)
    for one in (command, abort):
        one.communicate(timeout=20)
    assert server.run("SELECT phase FROM pgsled.job", database=OLD[0]) == [("undone",)]
    assert not at_step(growing, "flip")
    assert places(server, "accounts", "user_id")[NEW] == set()
    check_nothing_left(server, ALL)


@pytest.mark.seconds(90)
def test_a_key_that_may_be_checked_later_names_no_row(growing, server):  # noqa: F811
    """PostgreSQL does not know rows by a deferrable key in its log, and would refuse to change
    them."""
    growing.sharded_tables.append({"database": "app", "name": "later", "column": "user_id",
                                   "data_type": "bigint"})
    growing.reload()
    for name in ALL:
        server.run("CREATE TABLE later (user_id bigint PRIMARY KEY DEFERRABLE, n int)",
                   database=name)
    growing.reload()
    with growing.connect("app") as client:
        for key in range(100):
            client.execute("INSERT INTO later (user_id, n) VALUES (%s, 0)", (key,))
        with server.connect(NEW, autocommit=False) as holding:
            command = begin(growing, "add-shard", "--database", "app")
            wait_until(lambda: at_step(growing, "prepare"), 30, 0.01)
            holding.execute("LOCK TABLE tokens IN SHARE MODE")   # keeps the copy
            wait_until(lambda: at_step(growing, "copy"), 30, 0.01)
            for key in range(50):
                client.execute("UPDATE later SET n = 1 WHERE user_id = %s", (key,))
            for key in range(50, 60):
                client.execute("DELETE FROM later WHERE user_id = %s", (key,))
            holding.rollback()
        ended(command)
    rows = sorted(row for name in ALL for row in server.run("SELECT * FROM later", database=name))
    assert rows == [(key, 1) for key in range(50)] + [(key, 0) for key in range(60, 100)]
    assert len(places(server, "later", "user_id")[NEW]) > 10
    check_nothing_left(server, ALL)


@pytest.mark.seconds(90)
def test_what_a_shard_that_is_emptied_alone_knows(three, server):  # noqa: F811
    """Rows that no bucket has, and how far it has counted."""
    server.run("ALTER TABLE orders ALTER user_id DROP NOT NULL; "
               "INSERT INTO orders (user_id, item) VALUES (NULL, 'nobody''s')", database=NEW)
    for name in OLD:
        server.run("ALTER TABLE orders ALTER user_id DROP NOT NULL", database=name)
    refused = reshard(three, "remove-shard", "2", "--database", "app")
    assert refused.returncode != 0
    assert "table public.orders has rows on shard 2 whose user_id is NULL" in (
        refused.stdout + refused.stderr)
    server.run("DELETE FROM orders WHERE user_id IS NULL", database=NEW)
    next_value = "SELECT nextval(pg_get_serial_sequence('orders', 'id'))"
    server.run("SELECT setval(pg_get_serial_sequence('orders', 'id'), 3 + 1024 * 5000)",
               database=NEW)
    done = reshard(three, "remove-shard", "2", "--database", "app")
    assert done.returncode == 0, done.stdout + done.stderr
    values = [server.run(next_value, database=name)[0][0] for name in OLD]
    # A shard that gets the number later begins behind what is left.
    assert min(values) > 3 + 1024 * 5000 and [value % 1024 for value in values] == [1, 2]


@pytest.mark.seconds(90)
def test_an_autovacuum_makes_way(growing, server):  # noqa: F811
    """It yields only to who waits longer than clients behind it should."""
    server.run("INSERT INTO orders (user_id, item) SELECT 0, 'x' FROM generate_series(1, 30000); "
               "ALTER TABLE orders SET (autovacuum_vacuum_threshold = 0, "
               "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, "
               "autovacuum_vacuum_cost_limit = 1); DELETE FROM orders", database=OLD[0])
    before = server.run("SHOW autovacuum")[0][0]
    server.run("ALTER SYSTEM SET autovacuum = on")
    server.run("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    server.run("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: server.run("SELECT 1 FROM pg_stat_progress_vacuum WHERE datname = "
                                      f"'{OLD[0]}'"), 40)
        done = reshard(growing, "add-shard", "--database", "app")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.run(f"ALTER SYSTEM SET autovacuum = {before}")
        server.run("ALTER SYSTEM RESET autovacuum_naptime")
        server.run("SELECT pg_reload_conf()")
    check_nothing_left(server, ALL)
