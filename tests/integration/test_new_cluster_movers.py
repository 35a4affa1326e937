"""A database moves to other servers while clients take rows from one shard to another all the time,
which streams of two shards tell of in any order."""

import random
import signal
import time

import pytest

from support.machine import wait_until
from support.writers import Writers
from test_new_cluster import SCENARIOS, act, check_nothing_left, job_of, new_cluster, reshard
from test_new_cluster import roomy, running  # noqa: F401

HOT = 6                                   # rows of each writer: each is taken away again and again
FIRST = 1_000_000
PACE = 0.02                               # seconds between two, so that a busy machine can follow


class Movers(Writers):
    """Take orders from one user or tenant to another: the primary key stays, the shard does not."""

    def __init__(self, suite, count=4):
        super().__init__(count)
        self.suite, self.orders = suite, {}
        with suite.connect("app") as connection:
            for key in range(FIRST, FIRST + count * HOT):
                self.orders[key] = (key % 50, key % 50, "0")
                connection.execute("INSERT INTO orders VALUES (%s, %s, %s, '0')",
                                   (key, key % 50, key % 50))

    def _run(self, number, count):
        chance = random.Random(number)
        with self.suite.connect("app") as connection:
            while not self.ended:
                try:
                    self._one(connection, chance, FIRST + number * HOT + chance.randrange(HOT))
                    self.written += 1
                except Exception as error:  # pylint: disable=broad-except
                    self.errors.append(error)
                    return
                time.sleep(PACE)

    def _one(self, connection, chance, key):
        user, tenant, item = self.orders[key]
        item = str(int(item) + 1)
        if chance.random() < 0.2:
            connection.execute("UPDATE orders SET item = %s WHERE id = %s AND user_id = %s AND "
                               "tenant = %s", (item, key, user, tenant))
            self.orders[key] = (user, tenant, item)
            return
        to = (chance.randrange(50), tenant) if chance.random() < 0.5 else (user,
                                                                           chance.randrange(50))
        gone = ("DELETE FROM orders WHERE id = %s AND user_id = %s AND tenant = %s",
                (key, user, tenant))
        come = "INSERT INTO orders VALUES (%s, %s, %s, %s)", (key, *to, item)
        if chance.random() < 0.7:
            with connection.transaction():
                assert connection.execute(*gone).rowcount == 1
                connection.execute(*come)
        else:
            assert connection.execute(*gone).rowcount == 1
            connection.execute(*come)
        self.orders[key] = (*to, item)

    def wanted(self):
        return sorted((key, *rest) for key, rest in self.orders.items())


def orders(server, databases):
    return sorted(sum((server.run(f"SELECT * FROM orders WHERE id >= {FIRST}", database=one)
                       for one in databases), []))


def check_orders(server, databases, movers):
    assert not movers.errors, movers.errors
    assert orders(server, databases) == movers.wanted()


@pytest.fixture(params=["two to three by another key", "three to one"])
def moving(request, roomy):  # pylint: disable=redefined-outer-name
    scenario = SCENARIOS[request.param]
    with running(roomy, scenario) as suite:
        yield suite, scenario, roomy


@pytest.mark.release_only   # with sanitizers writers are faster than what follows them
@pytest.mark.seconds(150)
def test_rows_that_change_their_shard_all_the_time(moving):
    suite, scenario, server = moving
    with Movers(suite) as movers:
        movers.go_on(100)
        new_cluster(suite, "--wait")
        job = job_of(suite)
        movers.go_on()
        act(suite, "cutover", job)
        movers.go_on()
        act(suite, "roll-back", job)
        movers.go_on(100)
        movers.stop()
        check_orders(server, scenario.old, movers)
    check_nothing_left(server, scenario)


@pytest.mark.release_only   # with sanitizers writers are faster than what follows them
@pytest.mark.seconds(150)
def test_what_waits_is_not_lost_with_the_replicator(roomy):  # pylint: disable=redefined-outer-name
    scenario = SCENARIOS["two to three by another key"]
    with running(roomy, scenario) as suite, Movers(suite) as movers:
        new_cluster(suite, "--wait")
        job = job_of(suite)
        act(suite, "cutover", job)
        for _ in range(3):
            movers.go_on(100)
            old = suite.kill("replicator", signal.SIGKILL)
            suite.wait_restarted("replicator", old)
        wait_until(lambda: "reverse" in reshard(suite, "status").stdout, 60)
        movers.stop()
        wait_until(lambda: orders(roomy, scenario.old) == movers.wanted(), 30,
                   because="the old servers do not follow")
        act(suite, "roll-back", job)
        check_orders(roomy, scenario.old, movers)
        check_nothing_left(roomy, scenario)


@pytest.mark.thorough
@pytest.mark.seconds(90)
def test_rows_that_are_really_equal_end_the_move(roomy):  # pylint: disable=redefined-outer-name
    scenario = SCENARIOS["three to one"]
    with running(roomy, scenario) as suite:
        new_cluster(suite, "--wait")
        job = job_of(suite)
        for number, name in enumerate(scenario.old[:2]):   # past pgsled
            row = f"INSERT INTO orders VALUES ({FIRST}, {number}, 1, 'same')"
            roomy.run(row, database=name)
        said = reshard(suite, "cutover", job)
        assert said.returncode == 1, said.stdout
        text = said.stdout + said.stderr
        assert "equal in a unique key" in text and "orders" in text, text
        assert roomy.run("SELECT count(*) FROM orders", database="new_0") == [(0,)]
        check_nothing_left(roomy, scenario)
