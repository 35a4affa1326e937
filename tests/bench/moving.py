"""A million rows: how fast a move copies them, and how long clients wait while a shard is added.

The first copy is measured twice, each beside pg_dump | psql of a table of the same server into a
table without indexes. A whole table goes to another database (new-cluster): the same rows both
ways. To a new shard goes only a part of what the old shards have (add-shard): they read and hash
all of their rows, and what counts is those that move; pg_dump copies one shard's table."""

import contextlib
import glob
import json
import subprocess
import time

from measure import Failed
from support.machine import HOST, PG_BIN, binaries, stop_process, tied
from support.postgres import Postgres
from targets import USER, Pgsled, pgbench_environment

FIRST_SHARDS, CLIENTS = 2, 8
# pgbench_accounts' columns; pgsled places by a bigint as PostgreSQL's hash partitions do.
TABLE = ("CREATE TABLE accounts (aid bigint %s, bid int NOT NULL, abalance int NOT NULL,"
         " filler char(84) NOT NULL)")
WHOLE, NEW = "whole", "whole_new"
FILL = ("CREATE TABLE placed (aid bigint) PARTITION BY HASH (aid);"
        "INSERT INTO accounts SELECT g, 1 + g / 100000, 0, '' FROM generate_series(1, {rows}) g"
        " WHERE satisfies_hash_partition('placed'::regclass, {shards}, {number}, g::bigint);"
        "DROP TABLE placed; ALTER TABLE accounts ADD PRIMARY KEY (aid); VACUUM ANALYZE accounts;"
        "GRANT ALL ON accounts TO PUBLIC")
WRITE = "\\set aid random(1, {rows})\nUPDATE accounts SET abalance = abalance + 1 WHERE aid = :aid;\n"
READ = "\\set aid random(1, {rows})\nSELECT abalance FROM accounts WHERE aid = :aid;\n"


class Growing:
    """The suite, and one database of the server for each shard that it may come to."""

    def __init__(self, folder, rows, most):
        self.folder, self.rows, self.most = folder, rows, most
        self.shards, self.written = FIRST_SHARDS, 0
        self.scripts = []
        for name, script in (("write", WRITE), ("read", READ)):
            self.scripts.append(folder / name)
            self.scripts[-1].write_text(script.format(rows=rows))
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            slots = str(4 * self.most)
            self.server = stack.enter_context(Postgres({
                "shared_buffers": "512MB", "max_connections": str(100 + 15 * self.most),
                "max_wal_size": "8GB", "max_wal_senders": slots, "max_replication_slots": slots,
                "max_prepared_transactions": "200"}))
            self.server.make_role(USER)
            for number in range(self.most):
                self.server.make_database(self.name(number))
            for number in range(FIRST_SHARDS):
                fill = FILL.format(rows=self.rows, shards=FIRST_SHARDS, number=number)
                self.server.run(TABLE % "", *fill.split(";"), database=self.name(number))
            for name in ("dumped", WHOLE, NEW):
                self.server.make_database(name)
            fill = FILL.format(rows=self.rows, shards=1, number=0)
            self.server.run(TABLE % "", *fill.split(";"), database=WHOLE)
            self.server.run(TABLE % "PRIMARY KEY", database=NEW)
            self.suite = stack.enter_context(Pgsled(
                self.server, databases=self.databases(), sharded_tables=[
                    {"database": "app", "name": "accounts", "column": "aid",
                     "data_type": "bigint"}]))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    @staticmethod
    def name(number):
        return f"part_{number}"

    def databases(self):
        return [{"name": "app", "shard": number, "database_name": self.name(number)}
                for number in range(self.shards)] + [
            {"name": WHOLE}, {"name": NEW, "resharding_only": True}]

    def reshard(self, *what):
        """Returns the events of the job."""
        done = subprocess.run(
            [str(binaries() / "pgsled"), "reshard", *what, "--run-dir", str(self.suite.run_dir),
             "--json"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise Failed(f"{what[0]}: {done.stdout[-600:]}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def add_shard(self):
        self.shards += 1
        self.suite.databases = self.databases()
        self.suite.reload()
        return self.reshard("add-shard", "--database", "app")

    # Rows a second by the clock, from the job's first connection for the copy to its last row; the
    # indexes of the destination are taken away before and made after that.

    def shard_rate(self):
        """To a shard that is added while nothing else happens."""
        return self.add_shard()[-1]["rows_per_s"]

    def whole_rate(self):
        """Of the whole table to another database, which is then given up again."""
        said = self.reshard("new-cluster", "--database", WHOLE, "--to", NEW, "--wait")[-1]
        if said["rows"] != self.rows:
            raise Failed(f"{said['rows']} rows of {self.rows} were copied")
        self.reshard("abort", said["job"])
        return said["rows_per_s"]

    def dump_rate(self, database):
        """The same of pg_dump of the table there into a table without indexes."""
        self.server.run("DROP TABLE IF EXISTS accounts", TABLE % "", database="dumped")
        address = f"host={HOST} port={self.server.port} user=postgres password=postgres dbname="
        began = time.monotonic()
        with subprocess.Popen([str(PG_BIN / "pg_dump"), "--data-only", "-t", "accounts",
                               address + database], stdout=subprocess.PIPE) as dump:
            subprocess.run([str(PG_BIN / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1",
                            address + "dumped"], stdin=dump.stdout, stdout=subprocess.DEVNULL,
                           check=True, timeout=300)
        took = time.monotonic() - began
        return self.server.run("SELECT count(*) FROM accounts", database="dumped")[0][0] / took

    def longest_pause(self, number):
        """Milliseconds, of any statement of the clients while a shard is added."""
        prefix = self.folder / f"log_{number}"
        options = [option for script in self.scripts for option in ("-f", str(script))]
        with open(self.folder / "said", "w+b") as said:
            load = subprocess.Popen(
                tied([PG_BIN / "pgbench", "-h", HOST, "-p", self.suite.port, "-U", USER, "-n", "-l",
                      "--log-prefix", prefix, "-M", "prepared", "-c", CLIENTS, "-j", 2, "-T", 600,
                      *options, "app"], "KILL"), env=pgbench_environment(False), stdout=said,
                stderr=said, stdin=subprocess.DEVNULL)
            try:
                time.sleep(1)
                self.add_shard()
                time.sleep(1)
                ended = load.poll()
            finally:
                stop_process(load, seconds=5)
            said.seek(0)
            text = said.read().decode()
        if ended is not None or "error" in text:
            raise Failed("clients got errors while a shard was added: " + text[-600:])
        longest = 0
        for path in glob.glob(f"{prefix}.*"):
            with open(path, encoding="ascii") as log:
                for line in log:
                    fields = line.split()
                    if len(fields) != 6:
                        continue   # cut off at the end
                    longest = max(longest, int(fields[2]))
                    self.written += fields[3] == "0"
        return longest / 1000

    def check(self):
        """That the rows are all there once, with what was written to them."""
        rows = balance = 0
        for number in range(self.shards):
            got = self.server.run("SELECT count(*), coalesce(sum(abalance), 0) FROM accounts",
                                  database=self.name(number))[0]
            rows, balance = rows + got[0], balance + int(got[1])
        if rows != self.rows or balance < self.written:
            raise Failed(f"{rows} rows of {self.rows}, {balance} updates of {self.written}: lost")


def measure(bench):
    rows, copies, flips = (100_000, 2, 2) if bench.options.quick else (1_000_000, 3, 10)
    with Growing(bench.folder, rows, FIRST_SHARDS + copies + flips) as growing:
        for what, ours, theirs in (("a whole table", growing.whole_rate, WHOLE),
                                   ("a new shard", growing.shard_rate, growing.name(0))):
            bench.cell(f"first copy of {what}, rows/s", [Named("pg_dump | psql"), Named("pgsled")],
                       lambda target, _, ours=ours, theirs=theirs: ours()
                       if target.name == "pgsled" else growing.dump_rate(theirs), copies)
        name = "longest pause while a shard is added (ms)"
        bench.cell(name, [Named("pgsled")], lambda _, run: growing.longest_pause(run), flips)
        growing.check()
        worst = max(bench.results[name]["pgsled"].get("runs", [float("inf")]))
        bench.results["the worst of these pauses (ms)"] = {"pgsled": {"median": worst}}


class Named:
    def __init__(self, name):
        self.name = name
