"""The tests of the socket lane again over the pumped and the relay lane, which a setting forces."""

import functools
import time

import pytest

from support.probes import Probes, run_pgbench
from support.raw_client import Closed, ServerError
from support.suite import Suite, eventually
from test_cancel import test_cancel_in_extended_batch  # noqa: F401
from test_differential import (prepared, test_extended, test_random_conversations,  # noqa: F401
                               test_simple_corpus)
from test_drivers import (test_asyncpg_pool, test_pgbench_tpcb, test_psql_script,  # noqa: F401
                          test_psycopg_copy, test_psycopg_pipeline)
from test_failures import test_client_goes  # noqa: F401
from test_streams import MEBIBYTE, big_result


@pytest.fixture(scope="module")
def bench_tables(server):
    run_pgbench(server.port, "-i", "-s", 1, "-q")


@pytest.fixture(scope="module", params=["pumped", "relay"])
def suite(server, request):
    with Suite(server, pgsled={"lane": request.param}) as running:
        running.lane = request.param
        yield running


@pytest.fixture
def narrow(suite):
    return suite


@pytest.mark.smoke
def test_the_lane_is_used(suite):
    client = suite.raw()
    client.query("BEGIN; SELECT 1")
    text = str(suite.admin("SHOW SERVERS")) + str(suite.metrics())
    assert suite.lane in text
    client.close()


def test_the_pooler_looks_before_it_sleeps(suite):
    """Where it carries bytes, and not while it has none."""
    looks = functools.partial(suite.metric, "pgsled_pooler_busy_polls_total")
    client = suite.raw()
    def looked():
        before = looks()
        for _ in range(200):
            client.query("SELECT 1")
        time.sleep(1.1)   # it counts them once a second
        assert looks() > before
    eventually(looked)
    client.close()
    time.sleep(2.1)
    before = looks()
    time.sleep(3)
    assert looks() - before < 10


@pytest.mark.release_only
@pytest.mark.seconds(60)
def test_pooler_dies(suite):
    """Without a passed socket transactions in flight end with it; everybody else goes on."""
    with Probes(suite) as probes:
        held = suite.raw()
        held.query("BEGIN; SELECT 1")
        died = suite.kill("pooler")
        suite.wait_restarted("pooler", died)
        with pytest.raises((ServerError, Closed)) as failure:
            held.query("SELECT 2")
        if isinstance(failure.value, ServerError):
            assert failure.value.code == "08006"
        probes.wait_all_answered()
        probes.stop()
        assert probes.wrong() == []
        suite.check_no_leaks()


@pytest.mark.release_only
@pytest.mark.seconds(90)
def test_a_lot_of_data(suite):
    assert big_result(suite, 100, 60) < 8 * MEBIBYTE


def test_nothing_left(suite):
    suite.check_no_leaks()
