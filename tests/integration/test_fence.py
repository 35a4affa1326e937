"""The fence under which rows change their shard: what waits at it, what holds it up, and what
becomes of it when somebody dies. The test plays the replicator."""

import signal
import threading
import time

import psycopg
import pytest

from support.machine import SLOW, wait_until
from support.mover import Mover, MoveError
from support.suite import Suite

SCHEMA = """CREATE TABLE accounts (user_id bigint PRIMARY KEY, name text);
            CREATE TABLE notes (id int PRIMARY KEY, note text)"""
SHARDS = ["left", "right"]


def options():
    return {"databases": [{"name": "app", "shard": number, "database_name": name}
                          for number, name in enumerate(SHARDS)] + [{"name": "postgres"}],
            "sharded_tables": [{"database": "app", "name": "accounts", "column": "user_id",
                                "data_type": "bigint"}]}


@pytest.fixture
def moving(server):
    """(suite, mover, keys by bucket), with the move "j" registered."""
    for name in SHARDS:
        server.make_database(name)
    with Suite(server, frontends=2, **options()) as running:
        with running.connect("app") as connection:
            connection.execute(SCHEMA)
            for key in range(8):
                connection.execute("INSERT INTO accounts VALUES (%s, 'old')", (key,))
        keys = [[key for key, in server.run("SELECT user_id FROM accounts", database=name)]
                for name in SHARDS]
        assert all(len(those) >= 2 for those in keys)
        # As whoever runs a move has it: else the suite's own replicator takes "j" for abandoned.
        with server.connect(SHARDS[0]) as runner, Mover(running) as mover:
            runner.execute("SELECT pg_advisory_lock(20738, hashtext('app'))")
            wait_until(lambda: registered(mover), 10)
            yield running, mover, keys


def registered(mover):
    try:
        return mover.ask("begin")["epoch"] >= 1
    except (MoveError, TimeoutError):
        return False


class Later:
    """A statement in a thread of its own, as a client that waits."""

    def __init__(self, connection, statement, *values):
        self.error = None

        def run():
            try:
                connection.execute(statement, values)
            except psycopg.Error as error:
                self.error = error
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def waits(self, seconds=0.4):
        self.thread.join(seconds)
        return self.thread.is_alive()

    def done(self, seconds=10):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the statement still waits"
        return self.error


def update(connection, key, text="new"):
    return Later(connection, "UPDATE accounts SET name = %s WHERE user_id = %s", text, key)


def names_at(server, shard, keys):
    found = dict(server.run("SELECT user_id, name FROM accounts", database=SHARDS[shard]))
    return [found.get(key) for key in keys]


def flip(server, epoch, buckets, fence):
    for name in SHARDS:
        with server.connect(name) as connection:
            connection.execute("SELECT pgsled.flip_shard_map('app', %s, %s, %s)",
                               (epoch, buckets, fence))


def test_where_names_shards_tables_and_the_job(moving):
    _, mover, _ = moving
    said = mover.ask("where")
    assert [one["number"] for one in said["shards"]] == [0, 1]
    assert said["shards"][1]["database"] == "right" and said["shards"][1]["user"]
    assert said["buckets"] == [0, 1] and said["epoch"] == 1 and said["moving"] == "j"
    assert said["tables"][0]["column"] == "user_id"
    with pytest.raises(MoveError) as unknown:
        mover.ask("where", "postgres")
    assert unknown.value.sqlstate == "3D000"


def test_no_ddl_during_a_move_and_one_move_at_a_time(moving):
    suite, mover, _ = moving
    with pytest.raises(MoveError) as second:
        mover.ask("begin", job="k")
    assert second.value.sqlstate == "55006" and "j" in str(second.value)
    with suite.connect("app") as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("ALTER TABLE accounts ADD COLUMN more int")
        assert refused.value.sqlstate == "55006"
        mover.ask("end")
        connection.execute("ALTER TABLE accounts ADD COLUMN more int")


def test_only_new_statements_on_fenced_buckets_wait(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as old, suite.connect("app") as new, suite.connect("app") as other:
        old.autocommit = False
        old.execute("UPDATE accounts SET name = 'before' WHERE user_id = %s", (keys[0][0],))
        fence = mover.start("fence", buckets=[0], wait_ms=10_000)
        time.sleep(0.3 * SLOW)
        assert not mover.answered(fence), "a transaction is still open"
        held = update(new, keys[0][1])
        assert held.waits()
        assert update(other, keys[1][0]).done() is None, "its bucket stays"
        old.execute("UPDATE accounts SET name = 'before 2' WHERE user_id = %s", (keys[0][0],))
        old.commit()
        assert mover.finish(fence, 5)["fence"]
        again = update(old, keys[0][0], "after")
        assert again.waits() and held.waits(0)
        assert names_at(server, 0, keys[0][:2]) == ["before 2", "old"]
        assert mover.ask("lift")["epoch"] == 1
        assert held.done() is None and again.done() is None
        old.commit()
        assert names_at(server, 0, keys[0][:2]) == ["after", "new"]


def test_pipelines_and_prepared_statements_wait_too(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as connection, suite.connect("app") as second:
        statement = "UPDATE accounts SET name = %s WHERE user_id = %s"
        for turn in range(3):
            connection.execute(statement, (f"turn {turn}", keys[0][0]), prepare=True)
        assert mover.ask("fence", buckets=[0], wait_ms=5000)["fence"]

        class Piped:
            def execute(self, *_):
                with connection.pipeline():
                    for key in keys[0][:2]:
                        connection.execute(statement, ("piped", key), prepare=True)
        held = Later(Piped(), "")
        assert held.waits()
        assert names_at(server, 0, keys[0][:2]) == ["turn 2", "old"]
        assert update(second, keys[1][1]).done() is None
        mover.ask("lift")
        assert held.done() is None
        assert names_at(server, 0, keys[0][:2]) == ["piped", "piped"]


def test_a_fence_that_is_not_reached_is_lifted_again(moving):
    suite, mover, keys = moving
    with suite.connect("app") as old, suite.connect("app") as new:
        old.autocommit = False
        old.execute("UPDATE accounts SET name = 'before' WHERE user_id = %s", (keys[0][0],))
        fence = mover.start("fence", buckets=[0], wait_ms=700)
        time.sleep(0.2)
        held = update(new, keys[0][1])
        with pytest.raises(MoveError) as late:
            mover.finish(fence)
        assert late.value.sqlstate == "55P03" and "frontend-" in str(late.value)
        assert held.done() is None
        old.rollback()


def test_waiting_statements_go_where_the_rows_are_then(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as early, suite.connect("app") as late:
        fence = mover.ask("fence", buckets=[0], wait_ms=5000)["fence"]
        held = update(early, keys[0][0])
        assert held.waits()
        for key, name in server.run("SELECT user_id, name FROM accounts", database="left"):
            server.run(f"INSERT INTO accounts VALUES ({key}, '{name}')", database="right")
        flip(server, 1, [1, 1], fence)
        assert mover.ask("flipped")["epoch"] == 2
        assert held.done() is None
        assert update(late, keys[0][1]).done() is None
        assert names_at(server, 0, keys[0][:2]) == ["old", "old"]
        assert names_at(server, 1, keys[0][:2]) == ["new", "new"]


def test_without_its_fence_the_map_does_not_change(moving, server):
    _, mover, _ = moving
    fence = mover.ask("fence", buckets=[0], wait_ms=5000)["fence"]
    mover.ask("lift")
    with pytest.raises(psycopg.Error) as refused:
        flip(server, 1, [1, 1], fence)
    assert refused.value.sqlstate == "55006"
    assert mover.ask("where")["buckets"] == [0, 1]


@pytest.mark.seconds(60)
def test_a_router_that_dies_takes_the_fence_with_it(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as connection:
        fence = mover.ask("fence", buckets=[0], wait_ms=5000)["fence"]
        suite.wait_restarted("router", suite.kill("router"))
        held = update(connection, keys[0][0])
        assert held.done(20) is None
        with pytest.raises(psycopg.Error):
            flip(server, 1, [1, 1], fence)
        wait_until(lambda: said(mover) == ("j", [0, 1]), 10)
        assert mover.ask("fence", buckets=[0], wait_ms=8000)["fence"]
        mover.ask("lift")


def said(mover):
    try:
        answer = mover.ask("where")
        return answer["moving"], answer["buckets"]
    except (MoveError, TimeoutError):
        return None


@pytest.mark.seconds(60)
def test_the_fence_of_a_replicator_that_is_gone_falls(moving):
    suite, _, keys = moving
    with suite.connect("app") as connection:
        with Mover(suite, "replicator-late") as other:
            wait_until(lambda: registered(other), 10)
            other.ask("fence", buckets=[0], wait_ms=5000)
            held = update(connection, keys[0][0])
            assert held.waits()
        assert held.done(10) is None


@pytest.mark.seconds(90)
def test_a_frontend_that_slept_cannot_write_by_the_old_map(moving, server):
    """It has an idle connection to the shard and knows nothing of fence and flip."""
    suite, mover, keys = moving
    clients = [suite.connect("app") for _ in range(8)]
    for client in clients:
        assert update(client, keys[0][1], "warm").done() is None   # its plan is known, too
    suite.kill("frontend", signal.SIGSTOP)
    held = [update(client, keys[0][1], f"client {at}") for at, client in enumerate(clients)]
    time.sleep(0.3 * SLOW)
    awake = [one for one in held if not one.waits(0)]
    assert len(awake) < len(held), "none of the clients is at the sleeping frontend"
    fence = mover.finish(mover.start("fence", buckets=[0], wait_ms=15_000), 20)["fence"]
    for key, name in server.run("SELECT user_id, name FROM accounts", database="left"):
        server.run(f"INSERT INTO accounts VALUES ({key}, '{name}')", database="right")
    before = names_at(server, 0, keys[0])
    flip(server, 1, [1, 1], fence)
    mover.ask("flipped")
    suite.kill("frontend", signal.SIGCONT)
    for one in held:
        one.done(20)
    assert names_at(server, 0, keys[0]) == before, "written by the old map"
    for client in clients:
        client.close()


def test_a_transaction_over_both_shards_holds_the_fence_up(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as old, suite.connect("app") as new:
        old.autocommit = False
        assert update(old, keys[1][0], "one").done() is None
        assert update(old, keys[0][0], "two").done() is None
        fence = mover.start("fence", buckets=[0], wait_ms=8000)
        time.sleep(0.3 * SLOW)
        assert not mover.answered(fence)
        new.autocommit = False
        assert update(new, keys[1][1], "three").done() is None
        held = update(new, keys[0][1], "four")     # begun after the fence, grows into it
        assert held.waits()
        assert update(old, keys[0][0], "five").done() is None
        old.commit()
        fence = mover.finish(fence)["fence"]
        assert held.waits(0)
        for key, name in server.run("SELECT user_id, name FROM accounts", database="left"):
            server.run(f"INSERT INTO accounts VALUES ({key}, '{name}')", database="right")
        flip(server, 1, [1, 1], fence)
        mover.ask("flipped")
        assert held.done() is None
        new.commit()
        assert names_at(server, 1, [keys[0][0], keys[0][1], keys[1][0], keys[1][1]]) == [
            "five", "four", "one", "three"]


def test_writes_to_every_shard_wait_at_the_fence(moving, server):
    """Before it they go to the shards that have rows, behind it to those that have them then."""
    suite, mover, keys = moving

    def notes():
        return [server.run("SELECT * FROM notes ORDER BY id", database=name) for name in SHARDS]
    with suite.connect("app") as old, suite.connect("app") as new, suite.connect("app") as copying:
        old.execute("INSERT INTO notes VALUES (1, 'while rows move')")
        old.autocommit = False
        old.execute("INSERT INTO notes VALUES (2, 'before')")
        fence = mover.start("fence", buckets=[0], wait_ms=8000)
        time.sleep(0.3 * SLOW)
        assert not mover.answered(fence), "a transaction is still open"
        held = Later(new, "INSERT INTO notes VALUES (3, 'held')")

        class Copied:
            def execute(self, *_):
                with copying.cursor().copy("COPY notes FROM STDIN") as copy:
                    copy.write_row((4, "copied"))
        copied = Later(Copied(), "")
        assert held.waits() and copied.waits(0)
        old.execute("UPDATE notes SET note = 'before 2' WHERE id = 2")
        old.commit()
        fence = mover.finish(fence)["fence"]
        assert held.waits(0) and copied.waits(0)
        before = [(1, "while rows move"), (2, "before 2")]
        assert notes() == [before, before]
        for key, name in server.run("SELECT user_id, name FROM accounts", database="left"):
            server.run(f"INSERT INTO accounts VALUES ({key}, '{name}')", database="right")
        flip(server, 1, [1, 1], fence)
        mover.ask("flipped")
        assert held.done() is None and copied.done() is None
        assert notes() == [before, before + [(3, "held"), (4, "copied")]], "left has no rows now"


@pytest.mark.seconds(60)
def test_while_rows_move_nothing_runs_by_key_without_the_router(moving, server):
    suite, mover, keys = moving
    with suite.connect("app") as connection, suite.connect("app") as old:
        assert update(connection, keys[0][0], "warm").done() is None
        old.autocommit = False
        assert update(old, keys[0][1], "open").done() is None
        suite.kill("router", signal.SIGSTOP)
        time.sleep(3.5)
        held = [update(connection, keys[0][0], "late"), update(old, keys[0][2], "late")]
        assert all(one.waits() for one in held)
        suite.kill("router", signal.SIGCONT)
        assert [one.done() for one in held] == [None, None]
        old.commit()
        mover.ask("end")
        assert update(connection, keys[0][0], "warm").done() is None
        suite.kill("router", signal.SIGSTOP)
        time.sleep(3.5)
        assert update(connection, keys[0][0], "later").done() is None, "no rows move any more"
        suite.kill("router", signal.SIGCONT)


def test_who_waits_at_the_fence_can_be_cancelled_and_has_a_bound(moving):
    suite, mover, keys = moving
    with suite.connect("app") as first, suite.connect("app") as second:
        mover.ask("fence", buckets=[0], wait_ms=5000)
        held = [update(first, keys[0][0]), update(second, keys[0][0])]
        assert all(one.waits() for one in held)
        first.cancel()
        assert held[0].done(2).sqlstate == "57014"
        assert held[1].done(8).sqlstate == "57P03"
        mover.ask("lift")
        assert update(first, keys[0][0]).done() is None
        assert update(second, keys[0][0]).done() is None
