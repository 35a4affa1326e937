"""Fixtures of the integration tests. One PostgreSQL for the session; suites are started per module
and variant. Every test has a time bound (marker `seconds(n)`, else 30), so that nothing hangs."""

import os
import pathlib
import signal
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.machine import SLOW  # noqa: E402
from support.postgres import METHODS, Postgres  # noqa: E402
from support.suite import Suite  # noqa: E402

DEFAULT_SECONDS = 30
UNTIL = float(os.environ.get("PGSLED_UNTIL") or "inf")   # tests/run --within, in seconds since 1970


def pytest_configure(config):
    for line in ("seconds(n): time bound of the test", "smoke: part of tests/run --quick",
                 "release_only: too slow or too strict for a build with sanitizers",
                 "thorough: with sanitizers by tests/run --all only; others run through that code"):
        config.addinivalue_line("markers", line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    if time.time() > UNTIL:
        pytest.skip("the time given by --within is over")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """The bound holds for set-up, test and clean-up together, twice the test's own."""
    marker = item.get_closest_marker("seconds")
    bound = int((marker.args[0] if marker else DEFAULT_SECONDS) * SLOW)

    def late(*_):
        signal.alarm(10)  # and again, should the clean-up hang too
        raise TimeoutError(f"took longer than {bound} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(bound)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the log of each suite it used."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Suite):
                report.sections.append(("log of the suite", value.log_text()[-6000:]))


@pytest.fixture(scope="session")
def server():
    with Postgres() as postgres:
        for role in METHODS:
            postgres.make_role(role)
        postgres.make_role("app", options="LOGIN")
        postgres.run("GRANT CREATE ON SCHEMA public TO PUBLIC")
        yield postgres


# The pass with sanitizers takes one way of dispatching, the one on the release build both.
@pytest.fixture(scope="module",
                params=["cached", pytest.param("always", marks=pytest.mark.release_only)])
def dispatch(request):
    return request.param


@pytest.fixture(scope="module")
def suite(server, dispatch):
    """One unsharded database, pools of ten, in both ways of dispatching."""
    with Suite(server, pgsled={"dispatch": dispatch}) as running:
        yield running


@pytest.fixture
def start(server):
    """Starts suites of a test's own: start(general={…}, …)."""
    running = []

    def starter(*arguments, **options):
        suite = Suite(*(arguments or (server,)), **options)
        running.append(suite)
        suite.start()
        return suite
    yield starter
    for suite in running:
        suite.__exit__(None)
