"""deploy/quickstart from nothing to clean, in a folder and on a port of its own."""

import os
import shlex
import subprocess

import pytest

from support.machine import HOST, PG_BIN, ROOT, binaries, free_port, short_folder
from support.probes import environment

pytestmark = [pytest.mark.release_only, pytest.mark.seconds(150)]


class Quickstart:
    def __init__(self):
        self.home, self.port = short_folder("pgsled-q-") / "home", free_port()
        self.home.parent.chmod(0o755)

    def __call__(self, *arguments, status=0, port=None):
        done = subprocess.run(
            [str(ROOT / "deploy" / "quickstart"), *arguments], text=True, timeout=120, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=dict(os.environ, PGSLED_HOME=str(self.home), PGSLED_PORT=str(port or self.port),
                     PGSLED_BIN=str(binaries())))
        assert done.returncode == status, done.stdout
        return done.stdout

    def env(self):
        return dict(part.split("=", 1) for part in shlex.split(self("env")))

    def psql(self, port, sql):
        done = subprocess.run([str(PG_BIN / "psql"), "-XAt", "-h", HOST, "-p", str(port), "-U",
                               "postgres", "-c", sql], env=environment(), text=True, timeout=20,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()


@pytest.fixture
def quickstart():
    one = Quickstart()
    try:
        yield one
    finally:
        one("clean")
        assert not one.home.exists()
        one.home.parent.rmdir()


def rows_on_shards(quickstart, ports, table):
    return [int(quickstart.psql(port, f"SELECT count(*) FROM {table}")) for port in ports]


@pytest.mark.smoke
def test_quickstart(quickstart):
    assert quickstart("env", status=1) == ""
    said = quickstart()
    for shard in range(3):
        assert f"from shard {shard}" in said
    assert said.strip().splitlines()[-1] == (
        f"PGPASSWORD=postgres psql -h 127.0.0.1 -p {quickstart.port} -U postgres")
    env = quickstart.env()
    assert list(env) == ["PGSLED_HOST", "PGSLED_PORT", "PGSLED_SHARD_PORTS", "PGSLED_RUN_DIR",
                         "PGSLED_CONTROL", "PGSLED_ADMIN_URL", "PGSLED_METRICS_URL"]
    assert os.path.exists(env["PGSLED_CONTROL"])
    ports = env["PGSLED_SHARD_PORTS"].split()
    tables = ("user_conversation_list", "user_messages", "messages")
    if os.geteuid() == 0:
        # What root runs and reads is where the suite's user can put nothing.
        for path in (quickstart.home, quickstart.home / "bin", quickstart.home / "settings"):
            assert path.stat().st_uid == 0 and not path.stat().st_mode & 0o022, path
        assert (quickstart.home / "shard0").stat().st_uid != 0
    before = [rows_on_shards(quickstart, ports, table) for table in tables]
    assert sum(map(sum, before)) > 5000 and min(map(min, before)) > 100
    ids = [quickstart.psql(port, "SELECT DISTINCT id % 1024 FROM messages") for port in ports]
    assert ids == ["1", "2", "3"]
    for name, value in (("server_encoding", "UTF8"), ("wal_level", "logical"),
                        ("lc_collate", "C.UTF-8")):
        assert quickstart.psql(ports[0], f"SHOW {name}") == value
    again = quickstart()
    assert " 0 rows added" in again
    after = [rows_on_shards(quickstart, ports, table) for table in tables]
    assert after[:2] == before[:2] and sum(after[2]) == sum(before[2]) + 8
    assert quickstart.psql(quickstart.port, "SELECT 1") == "1"
    assert "runs" in quickstart("status")
    quickstart("stop")
    assert "does not run" in quickstart("status", status=1)
    assert quickstart("env", status=1) == ""
    quickstart()
    assert rows_on_shards(quickstart, quickstart.env()["PGSLED_SHARD_PORTS"].split(),
                          tables[0]) == before[0]


def outcome(said):
    """moved, pause_max_ms, errors, diff of the last line."""
    return {name: int(value) for name, value in
            (part.split("=") for part in said.strip().splitlines()[-1].split())}


@pytest.mark.seconds(300)
def test_shards_are_added_under_load(quickstart):
    first = outcome(quickstart("add-shard"))    # starts the suite, too
    assert list(first) == ["moved", "pause_max_ms", "errors", "diff"]
    assert first["errors"] == first["diff"] == 0 and first["moved"] > 1000
    ports = quickstart.env()["PGSLED_SHARD_PORTS"].split()
    assert len(ports) == 4
    kept = rows_on_shards(quickstart, ports, "user_conversation_list")
    assert sum(kept) == 300 * 8 and min(kept) > 0
    second = outcome(quickstart("add-shard"))
    assert second["errors"] == second["diff"] == 0 and second["moved"] > 1000
    ports = quickstart.env()["PGSLED_SHARD_PORTS"].split()
    assert len(ports) == 5
    quickstart("stop")
    again = quickstart()
    assert " 0 rows added" in again and "from shard" in again
    assert sum(rows_on_shards(quickstart, ports, "user_conversation_list")) == 300 * 8
    assert "shard 4: runs" in quickstart("status")


def test_port_is_taken(quickstart, server):
    said = quickstart(status=1, port=server.port)
    assert str(server.port) in said and "postgres" in said and "PGSLED_PORT" in said
