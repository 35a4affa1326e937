"""The long runs; tests/soak/run starts them."""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "integration")]

import corpus  # noqa: E402
import sharded_corpus  # noqa: E402
from support import wire  # noqa: E402
from support.machine import resident_bytes  # noqa: E402
from support.postgres import METHODS, Postgres  # noqa: E402
from support.probes import Probes  # noqa: E402
from support.raw_client import Closed, ServerError  # noqa: E402
from support.suite import Suite  # noqa: E402
from test_commit_deaths import deaths_under_load, running_cluster  # noqa: E402
from test_differential import compare  # noqa: E402
from test_new_cluster import ENOUGH, SCENARIOS, running as running_move  # noqa: E402
from test_new_cluster_deaths import STEPS, dies  # noqa: E402
from test_sharded_differential import Databases, hold  # noqa: E402
from test_sharded_differential import running as running_shards  # noqa: E402
from test_streams import MEBIBYTE, Highest, big_result  # noqa: E402


def a_gigabyte(server):
    """As a COPY out, as one row less than a gigabyte, and as a COPY in."""
    server.run("DROP TABLE IF EXISTS streamed; CREATE UNLOGGED TABLE streamed (a text)")
    with Suite(server) as suite:
        most = big_result(suite, 1024, 300)
        assert most < 8 * MEBIBYTE, f"{most} bytes held for a COPY out"
        client = suite.raw(timeout=300)
        with Highest(suite) as memory:
            client.send(wire.query("COPY streamed FROM STDIN"))
            client.receive()
            line = b"y" * 999_999 + b"\n"
            for _ in range(1024):
                client.send(wire.copy_data(line))
            client.send(wire.COPY_DONE)
            assert dict(client.receive_until_ready())["C"] == b"COPY 1024\0"
        assert memory.most < 8 * MEBIBYTE, f"{memory.most} bytes held for a COPY in"
        server.run("TRUNCATE streamed")


def kills(server, chance, seconds):
    """Anything but the supervisor, at any time, for as long as asked."""
    with Suite(server, frontends=2, poolers=2) as suite, Probes(suite, 10) as probes:
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            name = chance.choice(sorted(suite.processes()))
            pid = suite.processes().get(name)
            if pid is not None:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
                count += 1
            time.sleep(chance.uniform(0.5, 4))
            probes.wait_all_answered(15)
            assert probes.wrong() == [], probes.wrong()
        probes.stop()
        assert probes.wrong() == []
        suite.check_no_leaks(10)
        print(f"  {count} processes killed", flush=True)


def conversations(server, chance, seconds):
    """Random conversations compared with PostgreSQL while others use the same connections."""
    server.run(corpus.SCHEMA)
    with Suite(server, general={"default_pool_size": 3}) as suite, Probes(suite, 4) as probes:
        clients = server.raw().login(), suite.raw()
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            seed = chance.randrange(1 << 30)
            try:
                compare(suite, server, corpus.random_conversation(seed), clients)
            except BaseException:
                print(f"  PGSLED_SEED={seed}", flush=True)
                raise
            count += 1
        assert probes.wrong() == [] and probes.errors() == []
        print(f"  {count} conversations", flush=True)


def shard_conversations(server, chance, seconds):
    """The same on a sharded database: as one PostgreSQL, or refused."""
    with running_shards(server) as suite:
        databases = Databases(server)
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            seed = chance.randrange(1 << 30)
            try:
                hold(suite, server, databases, sharded_corpus.conversation(seed))
            except BaseException:
                print(f"  PGSLED_SEED={seed}", flush=True)
                raise
            count += 1
        print(f"  {count} conversations", flush=True)


def memory_over_time(server, chance, seconds):
    """Ever new statements, names and settings: what is kept for them is bounded."""
    with Suite(server) as suite:
        stop, failures = threading.Event(), []

        def work(number):
            mine = random.Random(chance.random())
            try:
                while not stop.is_set():
                    client = suite.raw()
                    for _ in range(500):
                        token = mine.randrange(1 << 40)
                        client.prepared(f"SELECT {number} AS c{token}", name=f"s{token}")
                        client.query(f"SET application_name = 'a{token}'")
                    client.close()
            except (ServerError, Closed, OSError, AssertionError) as failure:
                failures.append(repr(failure))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        middle = {name: resident_bytes(pid) for name, pid in suite.processes().items()}
        time.sleep(seconds / 2)
        final = {name: resident_bytes(pid) for name, pid in suite.processes().items()}
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        for name, size in final.items():
            print(f"  {name}: {middle[name] / MEBIBYTE:.1f} then {size / MEBIBYTE:.1f} MiB")
            assert size < 1.3 * middle[name] + 16 * MEBIBYTE, name


def commits(chance, seconds):
    """Over two shards, while anything dies."""
    with running_cluster() as cluster:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            deaths_under_load(cluster, chance, min(60, seconds))


def copies(chance, seconds):
    """Random COPYs into shards compared with PostgreSQL, tables, options and damage and all."""
    cases, seed = max(200, int(seconds * 30)), chance.randrange(1 << 30)
    environment = dict(os.environ, PGSLED_COPY_CASES=str(cases), PGSLED_COPY_SEED=str(seed))
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           str(TESTS / "integration" / "test_copy_differential.py")],
                          env=environment, check=False)
    assert done.returncode == 0, f"PGSLED_COPY_SEED={seed} PGSLED_COPY_CASES={cases}"
    print(f"  {cases} COPYs", flush=True)


def moves(chance, seconds):
    """To other servers, while the router, the replicator or the servers die at any step."""
    scenario, end, count = SCENARIOS["one to three"], time.monotonic() + seconds, 0
    with Postgres(ENOUGH) as server:
        deaths = [(who, step) for who in ("router", "replicator", "servers") for step in STEPS]
        chance.shuffle(deaths)
        while time.monotonic() < end:
            who, step = deaths[count % len(deaths)]
            print(f"  {who} at {step}", flush=True)
            with running_move(server, scenario) as suite:
                dies(suite, scenario, server, who, step)
            count += 1


def main():
    parser = argparse.ArgumentParser(prog="tests/soak/run")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--only", nargs="+", metavar="PART", help="of those that are named ==")
    options = parser.parse_args()
    chance, part = random.Random(options.seed), options.minutes * 60 / 4
    print(f"seed {options.seed}")
    failed = 0
    with Postgres() as server:
        for role in METHODS:
            server.make_role(role)
        runs = (("a gigabyte", lambda: a_gigabyte(server)),
                ("kills", lambda: kills(server, chance, part)),
                ("conversations", lambda: conversations(server, chance, part)),
                ("conversations with shards", lambda: shard_conversations(server, chance, part)),
                ("copies", lambda: copies(chance, part)),
                ("commits", lambda: commits(chance, part)),
                ("moves", lambda: moves(chance, part)),
                ("memory", lambda: memory_over_time(server, chance, part)))
        unknown = set(options.only or ()) - {name for name, _ in runs}
        if unknown:
            parser.error(f"no part is named {', '.join(sorted(unknown))}")
        if options.only:
            runs = [one for one in runs if one[0] in options.only]
        for name, run in runs:
            print(f"== {name}", flush=True)
            try:
                run()
            except Exception as failure:  # pylint: disable=broad-except
                failed += 1
                print(f"FAILED {name}: {failure!r}", flush=True)
    print(f"{len(runs) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
