"""What of deploy/ can be tried without an engine for containers, and what containers are to the
suite: a network namespace each, a folder of sockets in common. The rest is in tests/deploy."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg
import pytest

from support import wire
from support.machine import HOST, ROOT, SLOW, binaries, stop_process, tied, wait_until
from support.raw_client import Closed, ServerError
from support.suite import Suite

DEPLOY = ROOT / "deploy"
SERVICES = {"router", "pooler", "replicator", "frontend"}
SHARDS = {f"shard_{number}" for number in range(4)}


# --- files --------------------------------------------------------------------------------------


def configuration(file):
    """As compose understands the file, whichever compose there is."""
    command = next((words for words in (["docker-compose"], ["docker", "compose"])
                    if shutil.which(words[0]) and subprocess.run(
                        [*words, "version"], capture_output=True, check=False).returncode == 0),
                   None)
    if command is None:
        pytest.skip("no docker-compose")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent",
                   "COMPOSE_PROFILES": "add-shard"}
    done = subprocess.run([*command, "-f", file, "config"], cwd=DEPLOY, env=environment, text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    yaml = pytest.importorskip("yaml")   # docker-compose brings it along
    return yaml.safe_load(done.stdout)


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.multihost.yml"])
def test_compose_reads_the_files(file):
    services = configuration(file)["services"]
    assert SERVICES | SHARDS <= set(services)
    for name in SERVICES:
        one = services[name]
        assert one["read_only"] and one["cap_drop"] == ["ALL"], name
        assert one["image"] == f"localhost/pgsled/{name}:latest"
        assert "container_name" not in one, f"{name} could not be scaled"
        if name != "frontend":
            assert not one.get("ports"), name
    published = json.dumps(services["frontend"]["ports"])
    assert "127.0.0.1" in published and "6432" in published, published
    for name in SHARDS:
        one = services[name]
        assert one["image"] == "postgres:17" and "pg_isready" in one["healthcheck"]["test"]
        assert "-cwal_level=logical" in one["command"]
        flags = dict(flag[2:].split("=") for flag in one["command"][1:])
        assert int(flags["max_prepared_transactions"]) > 0
    assert services["shard_3"]["profiles"] == ["add-shard"]
    shared = {name for name in SERVICES if "/run/pgsled" in json.dumps(services[name]["volumes"])}
    assert shared == (SERVICES if file == "docker-compose.yml" else set())
    with_keys = {name for name, one in services.items()
                 if "PGSLED_CURVE_DIR" in (one.get("environment") or {})}
    assert with_keys == SERVICES - shared


def test_the_configuration_of_compose_has_no_mistake():
    done = subprocess.run([binaries() / "pgsled", "check-config", "--config",
                           DEPLOY / "compose/pgdog.toml", "--users", DEPLOY / "compose/users.toml"],
                          text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr


def test_an_image_gets_what_the_build_reads():
    """.dockerignore lets through each folder that CMake and the Dockerfile name."""
    kept = {line[1:].split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")}
    text = (ROOT / "CMakeLists.txt").read_text()
    named = set(re.findall(r"(?:\$\{CMAKE_SOURCE_DIR\}/|\s)(\w+)/", text))
    assert named - {"tests"} <= kept, named
    assert {"CMakeLists.txt", "CMakePresets.json"} <= kept


@pytest.mark.parametrize("script", ["images/base/make", "images/postgres/docker-entrypoint.sh",
                                    "../tests/deploy/run"])
def test_scripts_are_read_by_the_shell(script):
    assert os.access(DEPLOY / script, os.X_OK)
    subprocess.run(["bash", "-n", DEPLOY / script], check=True, timeout=10)


# --- containers beside each other -----------------------------------------------------------------


def pump(source, to):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            to.sendall(piece)
    for end in (source, to):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Bridge:
    """A network namespace, and from within it an address of this host behind which is a server."""

    def __init__(self, port):
        self.name, number = f"pgsled-{os.getpid()}", os.getpid() % 16384
        net = f"10.213.{number // 64}.{number % 64 * 4}".rsplit(".", 1)
        self.here, self.there = f"{net[0]}.{int(net[1]) + 1}", f"{net[0]}.{int(net[1]) + 2}"
        self.device, self.target = f"pgs{os.getpid()}", port

    def ip(self, *words, check=True):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=check,
                              timeout=10)

    def __enter__(self):
        if os.geteuid() != 0 or self.ip("netns", "add", self.name, check=False).returncode != 0:
            pytest.skip("network namespaces need root")
        self.ip("link", "add", self.device, "type", "veth", "peer", "name", "eth0",
                "netns", self.name)
        self.ip("addr", "add", f"{self.here}/30", "dev", self.device)
        self.ip("link", "set", self.device, "up")
        self.ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", "eth0")
        for device in ("eth0", "lo"):
            self.ip("-n", self.name, "link", "set", device, "up")
        self.listener = socket.create_server((self.here, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection((HOST, self.target))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    def cut(self):
        self.ip("link", "del", self.device, check=False)

    def __exit__(self, *_):
        self.listener.close()
        self.cut()
        self.ip("netns", "del", self.name, check=False)


class Beside(Suite):
    """Processes with a folder of sockets in common, some of them in another network namespace."""

    def start(self, wait=True):
        self.write_configuration()
        self.run_dir.mkdir(mode=0o700)
        self.members = {}
        self.run("router", "--config", self.folder / "pgdog.toml", "--users",
                 self.folder / "users.toml")

    def run(self, instance, *options, within=()):
        with open(self.log, "ab") as log:
            self.members[instance] = subprocess.Popen(
                tied([*within, binaries() / ("pgsled-" + instance.split("-")[0]), "--run-dir",
                      self.run_dir, "--instance", instance, *options]),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self, how=None):
        for one in reversed(list(self.members.values())):
            stop_process(one)

    def answers(self):
        with contextlib.suppress(psycopg.Error), self.connect(connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.seconds(60)
def test_a_pooler_of_another_container_passes_sockets_that_end_with_it(server):
    with Bridge(server.port) as bridge:
        suite = Beside(server, databases=[{"name": "postgres", "host": bridge.here,
                                           "port": bridge.port}],
                       general={"shutdown_timeout": 1000})
        with suite:
            suite.run("frontend-1")
            suite.run("pooler-1", within=["ip", "netns", "exec", bridge.name])
            wait_until(suite.answers, 10)
            busy, idle = suite.raw(timeout=10), suite.raw(timeout=10)
            for client in (busy, idle):
                client.query("BEGIN")
                client.query("SELECT 1")
            lent = [row["lane"] for row in suite.admin("SHOW SERVERS") if row["holder"]]
            assert lent and set(lent) == {"socket"}, lent
            busy.socket.sendall(b"Q" + (4 + 21).to_bytes(4, "big") + b"SELECT pg_sleep(30);\0")
            time.sleep(0.2)
            # Nothing that this namespace's sockets have to say gets out any more.
            bridge.cut()
            suite.members.pop("pooler-1").kill()
            began = time.monotonic()
            with pytest.raises((ServerError, Closed)):
                busy.receive_until_ready()
            with pytest.raises((ServerError, Closed)):
                idle.query("SELECT 2")
            assert time.monotonic() - began < 2
            # Its network is gone, so the next one gets to the server from here.
            suite.databases[0].update(host=HOST, port=server.port)
            suite.reload()
            suite.run("pooler-2")
            wait_until(suite.answers, 15)
            for client in (busy, idle):
                client.socket.close()


def silence(suite, name):
    """Stops a process until the router has forgotten it."""
    suite.members[name].send_signal(signal.SIGSTOP)
    wait_until(lambda: name not in {row["instance"] for row in suite.admin("SHOW STATUS")}, 15,
               because="the router still counts it")


@pytest.mark.seconds(60)
def test_a_silent_pooler_of_another_container_keeps_what_it_has_passed_on(server):
    """It is stopped, not dead: its network is there. When it dies after all, that is noticed."""
    with Bridge(server.port) as bridge:
        suite = Beside(server, databases=[{"name": "postgres", "host": bridge.here,
                                           "port": bridge.port}],
                       general={"shutdown_timeout": 1000})
        with suite:
            suite.run("frontend-1")
            suite.run("pooler-1", within=["ip", "netns", "exec", bridge.name])
            wait_until(suite.answers, 10)
            ends, asleep, cut = (suite.raw(timeout=15) for _ in range(3))
            for client in (ends, asleep, cut):
                client.query("BEGIN")
            pid = ends.query("SELECT pg_backend_pid()")
            cut.query("SELECT 1")
            asleep.send(wire.query("SELECT pg_sleep(5)"))
            silence(suite, "pooler-1")
            assert ends.query("SELECT pg_backend_pid()") == pid
            ends.query("COMMIT")
            asleep.receive_until_ready()
            assert asleep.query("SELECT 2") == [["2"]]
            # Back again: what has ended meanwhile is free, what goes on goes on.
            suite.members["pooler-1"].send_signal(signal.SIGCONT)
            wait_until(suite.answers, 10)
            assert asleep.query("SELECT 3") == [["3"]]
            asleep.query("COMMIT")
            wait_until(lambda: len([row for row in suite.admin("SHOW SERVERS")
                                    if row["holder"]]) == 1, 10, because="leases are not back")
            silence(suite, "pooler-1")
            assert cut.query("SELECT 4") == [["4"]]
            bridge.cut()
            suite.members.pop("pooler-1").kill()
            began = time.monotonic()
            with pytest.raises((ServerError, Closed)):
                cut.query("SELECT 5")
            assert time.monotonic() - began < 2 * SLOW
            for client in (ends, asleep, cut):
                client.socket.close()


@pytest.mark.seconds(60)
def test_a_silent_pooler_that_pumps_is_not_waited_for(server):
    """Bytes stand still in it: who is in a transaction hears so when the router gives it up."""
    with Beside(server, pgsled={"lane": "pumped"}, general={"shutdown_timeout": 1000}) as suite:
        suite.run("frontend-1")
        suite.run("pooler-1")
        wait_until(suite.answers, 10)
        held = suite.raw(timeout=10)
        held.query("BEGIN; SELECT 1")
        lent = {row["lane"] for row in suite.admin("SHOW SERVERS") if row["holder"]}
        assert lent == {"pumped"}
        suite.members["pooler-1"].send_signal(signal.SIGSTOP)
        with pytest.raises((ServerError, Closed)) as failure:
            held.query("SELECT 2")
        assert isinstance(failure.value, Closed) or failure.value.code == "08006"
        suite.members["pooler-1"].send_signal(signal.SIGCONT)
        wait_until(suite.answers, 10)
        wait_until(lambda: not [row for row in suite.admin("SHOW SERVERS") if row["holder"]], 10,
                   because="a lease is left")
        held.socket.close()
