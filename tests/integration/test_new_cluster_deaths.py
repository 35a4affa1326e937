"""Routers and servers die at the steps of a move to other servers: it is gone on with, or undone
and can be begun again; no row is lost, and nothing is left behind. tests/soak runs all of them."""

import os
import signal
import subprocess

import psycopg
import pytest

from support.machine import binaries, freeze, wait_until
from test_new_cluster import (SCENARIOS, Keepers, act, at_step, check_nothing_left, check_rows,
                              job_of, last_move, new_cluster, rows)
from test_new_cluster import roomy, running  # noqa: F401

STEPS = ("prepare", "copy", "catch_up", "compare", "ready", "back", "fence", "verify", "flip",
         "flipped", "reverse")


def dies(suite, scenario, server, who, step):
    """`who`: router, replicator, or servers."""
    with Keepers(suite) as writers:
        writers.go_on(50)
        if who == "servers":
            writers.stop()   # they would see it
        command = subprocess.Popen([str(binaries() / "pgsled"), "reshard", "new-cluster",
                                    "--database", "app", "--to", "app_new", "--run-dir",
                                    str(suite.run_dir)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        wait_until(lambda: at_step(suite, step), 60, 0.001)
        if who == "servers":
            server.restart(signal.SIGQUIT)
        else:
            suite.wait_restarted(who, suite.kill(who, signal.SIGKILL))

        def settled():
            line = last_move(suite)
            return ": reverse" in line or "failed" in line or "aborted" in line
        wait_until(settled, 90, because="neither gone on with nor undone: " +
                   suite.log_text()[-5000:])
        command.wait(30)
        if ": reverse" not in last_move(suite):
            check_nothing_left(server, scenario)
            new_cluster(suite)
        if who != "servers":
            writers.go_on()
            writers.stop()
    check_rows(server, scenario.new, writers)
    wait_until(lambda: all(rows(server, scenario.old, table) == wanted
                           for table, wanted in writers.wanted().items()), 30,
               because="the old servers do not follow")
    act(suite, "finish", job_of(suite))
    check_nothing_left(server, scenario)


@pytest.mark.release_only
@pytest.mark.seconds(150)
@pytest.mark.parametrize("who,step", [("router", "copy"), ("router", "reverse"),
                                      ("servers", "copy"), ("servers", "fence")])
def test_who_dies(roomy, who, step):  # noqa: F811  pylint: disable=redefined-outer-name
    scenario = SCENARIOS["one to three"]
    with running(roomy, scenario) as suite:
        dies(suite, scenario, roomy, who, step)


@pytest.mark.release_only
@pytest.mark.seconds(90)
def test_a_new_router_plans_nothing_before_it_knows_the_names(roomy):  # noqa: F811
    """It would take the database for the one server that had the name first."""
    scenario = SCENARIOS["one to three"]
    with running(roomy, scenario) as suite:
        new_cluster(suite)
        keys = [roomy.run("SELECT min(id) FROM users", database=one)[0][0]
                for one in scenario.new]
        with suite.connect("app") as connection:
            for key in keys:   # each shard has a connection by now
                connection.execute("SELECT n FROM users WHERE id = %s", (key,))
            postmaster = int((roomy.data / "postmaster.pid").read_text().split()[0])
            freeze(postmaster)   # who is connected goes on, nobody else comes in
            try:
                suite.wait_restarted("router", suite.kill("router"))
                for key in keys:
                    try:
                        done = connection.execute("UPDATE users SET n = n + 100 WHERE id = %s AND "
                                                  "n IS NOT NULL", (key,))
                    except psycopg.errors.CannotConnectNow:
                        continue
                    assert done.rowcount == 1
            finally:
                os.kill(postmaster, signal.SIGCONT)
        act(suite, "finish", job_of(suite))
