"""The bench; tests/bench/run starts it. Cells are measured one after the other, the targets of a
cell in turn within each of its runs; a value is the median of its runs."""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import statistics
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

import moving  # noqa: E402
import report  # noqa: E402
from measure import Failed, copied_in, copied_out, idle_memory, pgbench, psql  # noqa: E402
from support.certificates import Authority  # noqa: E402
from support.machine import short_folder  # noqa: E402
from support.postgres import Postgres  # noqa: E402
from support.probes import run_pgbench  # noqa: E402
from targets import (  # noqa: E402
    EARLIER, PASSWORD_USER, SHARD_POOL, SHARDS, USER, Direct, PgBouncer, Pgsled)

POINTS, SHAPES = 100_000, 300_000
PROTOCOLS = ("simple", "extended", "prepared")
CLIENTS = (1, 16, 64, 256)
GOAL_CLIENTS = (1, 16, 64)   # a few percent decide

# Each table is sharded by hash where PostgreSQL itself would put the row.
POINT_TABLE = f"""
CREATE TABLE points (id bigint PRIMARY KEY, value int);
CREATE TABLE placed (id bigint) PARTITION BY HASH (id);
INSERT INTO points SELECT g, g %% 1000 FROM generate_series(1, {POINTS}) g WHERE %s;
VACUUM ANALYZE points;
"""
POINT_SCRIPT = f"\\set id random(1, {POINTS})\nSELECT value FROM points WHERE id = :id;\n"
ACCOUNTS = ("CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));"
            "CREATE TABLE parted (aid bigint) PARTITION BY HASH (aid)")
# An alias of its own for each statement: no two have the same shape.
SHAPE_SCRIPT = (f"\\set id random(1, {POINTS})\n\\set n :n + 1\n\\set m :n * 1000 + :client_id\n"
                "SELECT value AS c:m FROM points WHERE id = :id;\n")
# A row of each of two shards, which are ranges here.
PAIR_SCRIPT = (f"\\set a random(1, {POINTS // 2})\n\\set b random({POINTS // 2 + 1}, {POINTS})\n"
               "BEGIN;\nUPDATE points SET value = value + 1 WHERE id = :a;\n"
               "UPDATE points SET value = value + 1 WHERE id = :b;\nCOMMIT;\n")


class Bench:
    def __init__(self, options):
        self.options = options
        self.runs = options.runs or (3 if options.quick else 11)
        self.seconds = 1
        # cell → target → {"runs": […], "median": …} or {"failed": why}
        self.results = {}
        self.cpu = {}          # process → CPU seconds per thousand queries
        self.folder = short_folder("pgsled-bench-")
        self.started = time.monotonic()

    def wanted(self, section):
        return not self.options.only or section in self.options.only

    def say(self, text):
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", file=sys.stderr, flush=True)

    def cell(self, name, targets, measure, runs=None):
        """measure(target, run) → number; kept by target, in turn."""
        values, failed = {target.name: [] for target in targets}, {}
        orders = list(itertools.permutations(targets))
        for run in range(runs or self.runs):
            # Whoever comes first, or after whom, is not always the same: what one leaves behind
            # (64 servers that end, say) is paid by the next. And a machine has moods, too.
            for target in orders[run % len(orders)]:
                if target.name in failed:
                    continue
                try:
                    values[target.name].append(measure(target, run))
                except Exception as why:  # pylint: disable=broad-except
                    # One target that cannot do one thing must not cost the other cells.
                    failed[target.name] = str(why)[-300:] or repr(why)
        kept = self.results.setdefault(name, {})
        for target, numbers in values.items():
            if target in failed:
                kept[target] = {"failed": failed[target]}
            else:
                kept[target] = {"runs": numbers, "median": statistics.median(numbers)}
        self.say(f"{name}: " + ", ".join(
            f"{target} {got['median']:.4g}" if "median" in got else f"{target} failed: "
            f"{got['failed']}" for target, got in kept.items()))

    # sections

    def select(self, direct, bouncer, pgsled):
        for protocol in PROTOCOLS:
            targets = [direct, bouncer, pgsled]
            if protocol == "prepared" and not bouncer.supports_prepared():
                targets.remove(bouncer)
                for clients in CLIENTS:
                    self.results[f"-S {protocol}, {clients}"] = {
                        "pgbouncer": {"failed": "not supported"}}
            for clients in CLIENTS:
                self.select_cell(protocol, clients, targets)

    def earlier(self, server):
        """Both versions before the same databases."""
        whole = self.sharded_suite()
        with Pgsled(server, EARLIER, programs=self.options.earlier, **whole) as old, \
                Pgsled(server, **whole) as new:
            for protocol in PROTOCOLS:
                for clients in GOAL_CLIENTS:
                    self.cell(f"-S {protocol}, {clients}, beside earlier", [old, new],
                              lambda target, _, p=protocol, c=clients: pgbench(
                                  target, "-S", "-M", p, "-c", c, "-j", min(2, c), "-T",
                                  self.seconds)["tps"], 2 * self.runs)
                self.cell(f"point query, {protocol}, 16, beside earlier", [old, new],
                          self.point_query(protocol), 2 * self.runs)

    def select_cell(self, protocol, clients, targets):
        latency = {target.name: [] for target in targets}
        cpu = {}

        def measure(target, _run):
            got = pgbench(target, "-S", "-M", protocol, "-c", clients, "-j", min(2, clients),
                          "-T", self.seconds)
            latency[target.name].append(1e6 * clients / got["tps"])
            for process, used in got["cpu"].items():
                cpu.setdefault(process, []).append(used)
            return got["tps"]
        # A few microseconds are to be told apart: more turns, and each against its own base.
        self.cell(f"-S {protocol}, {clients}", targets, measure,
                  2 * self.runs if clients in GOAL_CLIENTS else None)
        if clients == 1 and all(latency.values()):
            self.results[f"latency added, {protocol} (µs)"] = {
                name: {"median": statistics.median(
                    mine - base for mine, base in zip(values, latency["direct"]))}
                for name, values in latency.items() if name != "direct"}
        if clients == 64 and protocol == "simple":
            self.cpu = {process: statistics.median(used) for process, used in cpu.items()}

    def tpcb(self, direct, bouncer, pgsled):
        self.cell("tpcb, 16", [direct, bouncer, pgsled], lambda target, _: pgbench(
            target, "-c", 16, "-j", 2, "-T", self.seconds)["tps"])

    def connect(self, server, direct):
        """With SCRAM, as a new connection has it."""
        with PgBouncer(server, trust=False) as bouncer, Pgsled(server, trust=False) as pgsled:
            self.cell("connect + query + disconnect, 4", [direct, bouncer, pgsled],
                      lambda target, _: pgbench(target, "-S", "-C", "-c", 4, "-j", 2, "-T",
                                                self.seconds, user=PASSWORD_USER)["tps"])

    def shapes(self, _direct, bouncer, pgsled):
        script = self.folder / "shapes"
        script.write_text(SHAPE_SCRIPT)
        clients, per_run = 16, SHAPES // self.runs // 16

        def run_with(database):
            return lambda target, run: pgbench(
                target, "-f", script, "-c", clients, "-j", 2, "-t", per_run, "-D",
                f"n={run * per_run}", database=database)["tps"]
        self.cell("statements of new shape, 16", [bouncer, pgsled], run_with("plain"))
        self.cell("statements of new shape, sharded, 16", [pgsled], run_with("app"))

    def sharded(self, _direct, _bouncer, pgsled):
        for protocol in PROTOCOLS:
            query = self.point_query(protocol)
            sides = [Side(pgsled, "unsharded", "wide"), Side(pgsled, "sharded", "app")]
            self.cell(f"point query, {protocol}, 16", sides,
                      lambda side, run, q=query: q(side.target, run, side.database), 2 * self.runs)

    def point_query(self, protocol):
        script = self.folder / "points"
        script.write_text(POINT_SCRIPT)
        return lambda target, _, database="app": pgbench(
            target, "-f", script, "-M", protocol, "-c", 16, "-j", 2, "-T", self.seconds,
            database=database)["tps"]

    def copy(self, direct, _bouncer, pgsled):
        """Rows a second of one COPY through the suite, commit over the shards included, and of one
        COPY for each shard, all at once, of the same rows split beforehand."""
        count = 200_000 if self.options.quick else 1_000_000
        rows = (f"SELECT g, 1 + g / 100000, 0, repeat(' ', 84) FROM generate_series(1, {count}) g"
                " WHERE ")
        files = [self.folder / f"accounts_{number}" for number in range(SHARDS)]
        everything = self.folder / "accounts"
        copied_out(direct, "shard_0", rows + "true", everything)
        for number, file in enumerate(files):
            copied_out(direct, "shard_0", rows + "satisfies_hash_partition("
                       f"'parted'::regclass, {SHARDS}, {number}, g::bigint)", file)

        def measure(target, _run):
            for number in range(SHARDS):
                psql(direct, f"shard_{number}", "TRUNCATE accounts; CHECKPOINT")
            parts = ([("app", everything)] if target is pgsled else
                     [(f"shard_{number}", file) for number, file in enumerate(files)])
            return count / copied_in(target, "accounts", parts)
        self.cell(f"COPY into {SHARDS} shards, rows/s", [direct, pgsled], measure,
                  min(5, self.runs))

    def relay(self, server, bouncer):
        with Pgsled(server, "pgsled", pgsled={"lane": "relay"}) as relayed:
            self.cell("relay lane, -S simple, 64", [bouncer, relayed],
                      lambda target, _: pgbench(target, "-S", "-c", 64, "-j", 2, "-T",
                                                self.seconds)["tps"])

    def threads(self, server, bouncer):
        """With as many threads as PgBouncer has."""
        with Pgsled(server, "pgsled", general={"workers": 1}) as one:
            self.cell("one worker, -S simple, 64", [bouncer, one],
                      lambda target, _: pgbench(target, "-S", "-c", 64, "-j", 2, "-T",
                                                self.seconds)["tps"])

    def tls(self, server, certificate):
        with PgBouncer(server, server_tls=True) as bouncer, Pgsled(
                server, general={"tls_verify": "prefer"}) as pgsled:
            for protocol in ("simple", "prepared"):
                targets = [bouncer, pgsled]
                if protocol == "prepared" and not bouncer.supports_prepared():
                    targets.remove(bouncer)
                self.cell(f"TLS to the server, -S {protocol}, 64", targets,
                          lambda target, _, p=protocol: pgbench(
                              target, "-S", "-M", p, "-c", 64, "-j", 2, "-T",
                              self.seconds)["tps"])
        client_side = {"tls_certificate": certificate[0], "tls_private_key": certificate[1]}
        with PgBouncer(server, client_tls=certificate) as bouncer, Pgsled(
                server, general=client_side) as pgsled:
            self.cell("TLS from the client, -S simple, 64", [bouncer, pgsled],
                      lambda target, _: pgbench(target, "-S", "-c", 64, "-j", 2, "-T",
                                                self.seconds, tls=True)["tps"])

    def memory(self, server, certificate):
        many = 2000 if self.options.quick else 10000
        general = {"tls_certificate": certificate[0], "tls_private_key": certificate[1]}
        with PgBouncer(server) as bouncer, Pgsled(server, general=general) as pgsled:
            def measure(target, _run, tls=False):
                pids = [pid for name, pid in target.processes().items()
                        if name.startswith(("frontend", "pgbouncer"))]
                return idle_memory(target, pids, many, tls=tls)
            self.cell("memory per idle client (bytes)", [bouncer, pgsled], measure, 1)
        with Pgsled(server, general=general) as pgsled:
            self.cell("memory per idle client, TLS (bytes)", [pgsled],
                      lambda target, run: measure(target, run, True), 1)

    def commit(self):
        """Both sides through pgsled, on a server that keeps what it has said."""
        script = self.folder / "pairs"
        script.write_text(PAIR_SCRIPT)
        durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
                   "shared_buffers": "256MB", "max_prepared_transactions": "100"}
        databases = [{"name": "app", "shard": number, "database_name": f"pair_{number}"}
                     for number in range(2)]
        ranges = [("[[sharded_tables.mapping]]", {"start": 1, "end": POINTS // 2 + 1, "shard": 0}),
                  ("[[sharded_tables.mapping]]", {"start": POINTS // 2 + 1, "shard": 1})]
        table = {"database": "app", "name": "points", "column": "id", "data_type": "bigint"}
        with Postgres(durable) as server:
            server.make_role(USER)
            for number in range(2):
                server.make_database(f"pair_{number}")
                server.run("CREATE TABLE points (id bigint PRIMARY KEY, value int)",
                           f"INSERT INTO points SELECT g, 0 FROM generate_series(1, {POINTS}) g "
                           f"WHERE (g > {POINTS // 2})::int = {number}",
                           "GRANT ALL ON points TO PUBLIC", database=f"pair_{number}")
            with Pgsled(server, databases=databases, extra=[("[[sharded_tables]]", table)] + ranges
                        ) as pgsled, \
                    Pgsled(server, name="plain commits", databases=databases,
                           extra=[("[[sharded_tables]]", table)] + ranges,
                           pgsled={"cross_shard_writes": "best_effort"}) as plain:
                self.cell("COMMIT on two shards, fsync, 16", [plain, pgsled],
                          lambda target, _: pgbench(
                              target, "-f", script, "-c", 16, "-j", 2, "-T", self.seconds,
                              database="app")["tps"])

    # the whole

    def run(self):
        authority = Authority(self.folder / "ca")
        self.folder.chmod(0o755)
        certificate = authority.issue("bench", owner="postgres" if os.geteuid() == 0 else None)
        settings = {"shared_buffers": "256MB", "max_connections": "400", "ssl": "on",
                    "ssl_cert_file": certificate[0], "ssl_key_file": certificate[1]}
        with Postgres(settings) as server:
            self.prepare(server)
            with contextlib.ExitStack() as stack:
                direct = Direct(server)
                bouncer = stack.enter_context(PgBouncer(server))
                pgsled = stack.enter_context(Pgsled(server, **self.sharded_suite()))
                for section in ("select", "tpcb", "sharded", "shapes", "copy"):
                    if self.wanted(section):
                        getattr(self, section)(direct, bouncer, pgsled)
                self.attempt("relay", self.relay, server, bouncer)
                self.attempt("threads", self.threads, server, bouncer)
            if self.options.earlier:
                self.attempt("earlier", self.earlier, server)
            self.attempt("connect", self.connect, server, direct)
            self.attempt("tls", self.tls, server, certificate)
            self.attempt("memory", self.memory, server, certificate)
            self.attempt("commit", self.commit)
            self.attempt("moving", moving.measure, self)
            self.versions = {"PostgreSQL": server.run("SHOW server_version")[0][0],
                             "PgBouncer": ".".join(str(n) for n in bouncer.version())}
        return self

    def attempt(self, section, call, *arguments):
        if not self.wanted(section):
            return
        try:
            call(*arguments)
        except (Failed, RuntimeError, TimeoutError, OSError) as why:
            self.say(f"{section}: {why}")

    @staticmethod
    def sharded_suite():
        # As many server connections on one side as on the other, and fewer than clients, so that
        # both use all of theirs: what is compared is sharding, not how many processes share the
        # processors' caches.
        databases = [
            {"name": "postgres"}, {"name": "plain"},
            {"name": "wide", "database_name": "plain", "pool_size": SHARDS * SHARD_POOL}]
        databases += [{"name": "app", "shard": number, "database_name": f"shard_{number}",
                       "pool_size": SHARD_POOL} for number in range(SHARDS)]
        tables = [{"database": "app", "name": name, "column": column, "data_type": "bigint"}
                  for name, column in (("points", "id"), ("accounts", "aid"))]
        return {"databases": databases, "sharded_tables": tables}

    def prepare(self, server):
        self.say("preparing PostgreSQL")
        server.make_role(USER)
        run_pgbench(server.port, "-i", "-s", 10, "-q")
        server.make_database("plain")
        self.fill(server, "plain", "true")
        for number in range(SHARDS):
            server.make_database(f"shard_{number}")
            self.fill(server, f"shard_{number}", "satisfies_hash_partition('placed'::regclass,"
                      f" {SHARDS}, {number}, g::bigint)")

    @staticmethod
    def fill(server, database, condition):
        for statement in (POINT_TABLE % condition + ACCOUNTS).split(";"):
            if statement.strip():
                server.run(statement, database=database)


class Side:
    """A database of one target, as a target of its own in a cell."""

    def __init__(self, target, name, database):
        self.target, self.name, self.database = target, name, database


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run")
    parser.add_argument("--json", action="store_true", help="the results as JSON on the output")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs")
    parser.add_argument("--runs", type=int, help="runs of each cell (11)")
    parser.add_argument("--earlier", metavar="DIR", help="programs of an earlier version, to be "
                        "compared with those of now")
    parser.add_argument("--only", nargs="+", choices=[
        "select", "tpcb", "earlier", "connect", "sharded", "shapes", "copy", "relay", "threads",
        "tls", "memory", "commit", "moving"])
    options = parser.parse_args()
    if "earlier" in (options.only or []) and not options.earlier:
        parser.error("earlier: --earlier DIR says which")
    bench = Bench(options).run()
    goals = report.goals(bench.results)
    if options.json:
        json.dump({"results": bench.results, "cpu_seconds_per_1000": bench.cpu,
                   "goals": goals, "versions": bench.versions}, sys.stdout, indent=1)
        print()
    else:
        print(report.text(bench.results, bench.cpu, goals))
    if not (options.quick or options.only):
        path = pathlib.Path(__file__).resolve().parents[2] / "docs" / "performance.md"
        path.write_text(report.page(bench, goals, sys.argv[1:]))
    considered = [goal for goal in goals if not options.only or goal["value"] is not None]
    return 0 if all(goal["met"] for goal in considered) else 1


if __name__ == "__main__":
    sys.exit(main())
