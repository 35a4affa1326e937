"""Several databases move to other servers at once; one replicator runs them side by side."""

import signal

import pytest

from support.machine import wait_until
from support.postgres import Postgres
from support.suite import Suite
from test_new_cluster import reshard

MOST = 4                                  # at once, of one replicator
NAMES = [f"app_{number}" for number in range(MOST + 1)]


@pytest.fixture
def suite():
    with Postgres({"max_wal_senders": "60", "max_replication_slots": "60"}) as server:
        databases = [{"name": "postgres"}]
        for name in NAMES:
            for one in (name, f"{name}_new"):
                server.make_database(one)
                databases.append({"name": one, "database_name": one,
                                  **({"resharding_only": True} if one != name else {})})
            server.run("CREATE TABLE t (id bigint PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)",
                       database=name)
        with Suite(server, databases=databases) as made:
            yield made


def start(suite, name):
    return reshard(suite, "new-cluster", "--database", name, "--to", f"{name}_new", "--wait")


def jobs(suite):
    """By database, those that run: their job and where it is."""
    found = {}
    for line in reshard(suite, "status").stdout.splitlines():
        for name in NAMES:
            if f"{name}_new" in line:
                found[name] = line
    return found


def job_of(suite, name):
    return jobs(suite)[name].split()[1].rstrip(":")


@pytest.mark.thorough
@pytest.mark.seconds(150)
def test_moves_of_several_databases(suite):
    for name in NAMES[:MOST]:
        said = start(suite, name)
        assert said.returncode == 0, said.stdout + said.stderr
    said = start(suite, NAMES[MOST])
    assert said.returncode == 1 and f"runs {MOST} moves" in said.stdout + said.stderr, said.stdout
    assert suite.metric("pgsled_moves_refused_total") == 1
    assert suite.metric("pgsled_moves_running") == MOST
    said = start(suite, NAMES[0])
    assert said.returncode == 1 and "runs the move" in said.stdout + said.stderr

    first, second, third, fourth = (job_of(suite, name) for name in NAMES[:MOST])
    assert reshard(suite, "cutover", second).returncode == 0
    assert reshard(suite, "abort", first).returncode == 0
    said = start(suite, NAMES[MOST])      # there is room again
    assert said.returncode == 0, said.stdout + said.stderr

    # All that are left are taken over by whoever comes next.
    old = suite.kill("replicator", signal.SIGKILL)
    suite.wait_restarted("replicator", old)

    def all_there():
        lines = jobs(suite)
        return all(name in lines and ": reverse" in lines[name] if name == NAMES[1] else
                   name in lines and ": ready" in lines[name] for name in NAMES[1:])
    wait_until(all_there, 60, because=str(jobs(suite)))
    assert reshard(suite, "finish", second).returncode == 0
    assert reshard(suite, "cutover", third).returncode == 0
    assert reshard(suite, "roll-back", third).returncode == 0
    assert reshard(suite, "abort", fourth).returncode == 0
    assert reshard(suite, "abort", job_of(suite, NAMES[MOST])).returncode == 0
    for name in NAMES:
        with suite.connect(name) as client:
            assert client.execute("SELECT count(*) FROM t").fetchone() == (2,)
    assert suite.server.run("SELECT slot_name FROM pg_replication_slots") == []
