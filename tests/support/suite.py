"""The suite under test: configuration files, `pgsled up`, its processes, its admin database."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import psycopg

from . import postgres
from .machine import (HOST, alive, binaries, children, free_port, freeze, short_folder,
                      stop_process, tied, wait_until)
from .raw_client import RawClient

ADMIN_PASSWORD = "admin-password"


def toml_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def toml_text(sections):
    """Sections as (header, {key: value}); header "[[users]]" and the like. What is None stays
    away."""
    lines = []
    for header, values in sections:
        lines.append(header)
        lines += [f"{key} = {toml_value(value)}" for key, value in values.items()
                  if value is not None]
        lines.append("")
    return "\n".join(lines)


class Suite:
    """`databases` and `users` are lists of dicts as the files have them; host, port and
    password are filled in when missing. `programs`: a folder with those of another version."""

    def __init__(self, server, databases=None, users=None, general=None, pgsled=None,
                 sharded_tables=(), poolers=1, frontends=1, extra=(), arguments=(), programs=None):
        self.server, self.programs = server, programs
        self.port, self.metrics_port = free_port(), free_port()
        self.folder = short_folder("pgsled-t-")
        self.run_dir = self.folder / "run"
        self.databases = databases or [{"name": "postgres"}]
        self.users = users or [{"name": "postgres", "all_databases": True}]
        self.general = dict({"host": HOST, "port": self.port, "workers": 2,
                             "openmetrics_host": HOST, "openmetrics_port": self.metrics_port,
                             "log_connections": False, "log_disconnections": False},
                            **(general or {}))
        self.pgsled = dict(pgsled or {})
        self.sharded_tables = list(sharded_tables)
        self.extra = list(extra)
        self.poolers, self.frontends, self.arguments = poolers, frontends, list(arguments)
        self.log = self.folder / "log"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop()
        finally:
            keep = os.environ.get("PGSLED_KEEP_LOGS")
            if keep:
                os.makedirs(keep, exist_ok=True)
                shutil.copy(self.log, os.path.join(keep, self.folder.name + ".log"))
            text = self.log_text()
            shutil.rmtree(self.folder, ignore_errors=True)
        if kind is None:
            found = re.search(r".*(?:ERROR: \w+Sanitizer|runtime error: |SUMMARY: ).*", text)
            assert not found, text[found.start():][:6000]

    # configuration and start

    def write_configuration(self):
        sections = [("[general]", self.general)]
        if self.pgsled:
            sections.append(("[pgsled]", self.pgsled))
        sections.append(("[admin]", {"user": "admin", "password": ADMIN_PASSWORD}))
        for one in self.databases:
            values = dict({"host": HOST}, **one)
            values.setdefault("port", self.server.port if self.server else 1)
            sections.append(("[[databases]]", values))
        sections += [("[[sharded_tables]]", one) for one in self.sharded_tables]
        sections += self.extra
        users = []
        for one in self.users:
            values = dict(one)
            if not {"password", "passwords", "password_hash"} & set(values):
                values["password"] = postgres.PASSWORD
            users.append(("[[users]]", values))
        self._write("pgdog.toml", toml_text(sections))
        self._write("users.toml", toml_text(users))

    def _write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def command(self):
        return [self.program(), "up", "--config", self.folder / "pgdog.toml",
                "--users", self.folder / "users.toml", "--run-dir", self.run_dir,
                "--poolers", self.poolers, "--frontends", self.frontends] + self.arguments

    def program(self):
        return pathlib.Path(self.programs or binaries()) / "pgsled"

    def start(self, wait=True):
        self.write_configuration()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(tied(self.command()), stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.process.kill()
                self.process.wait()
                raise

    def wait_ready(self, seconds=15):
        """Ready is when the first user of the first database gets an answer."""
        last = [None]

        def answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"pgsled up ended with {self.process.returncode}:\n" +
                                   self.log_text()[-4000:])
            try:
                with self.connect(connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
                return True
            except psycopg.Error as failure:
                last[0] = failure
                return False
        try:
            wait_until(answers, seconds, 0.05, "the suite does not get ready")
        except TimeoutError as late:
            raise RuntimeError(f"{late}: {last[0]}\n{self.log_text()[-4000:]}") from late

    def stop(self, how=signal.SIGTERM):
        """Ends it; fails when it takes longer than its drain or leaves a process behind."""
        if self.process is None:
            return 0
        pids = list(self.processes().values())
        status = stop_process(self.process, how, 15)
        self.process = None
        wait_until(lambda: not any(alive(pid) for pid in pids), 5, because="processes left behind")
        return status

    def restart(self):
        self.stop()
        self.start()

    # processes

    def processes(self):
        """Instance name → pid of the suite's services, from /proc."""
        found = {}
        for pid, line in children(self.process.pid).items():
            if "--instance" in line:
                found[line[line.index("--instance") + 1]] = pid
        return found

    def named(self, service):
        """The instances of one service, in order of their names."""
        return sorted(name for name in self.processes() if name.split("-")[0] == service)

    def pid(self, service, at=0):
        return self.processes()[self.named(service)[at]]

    def kill(self, service, how=signal.SIGKILL, at=0):
        """Signals one process and returns its pid."""
        pid = self.pid(service, at)
        if how == signal.SIGSTOP:
            freeze(pid)
        else:
            os.kill(pid, how)
        return pid

    def wait_restarted(self, service, old_pid, seconds=5):
        def another():
            pids = [pid for name, pid in self.processes().items() if name.split("-")[0] == service]
            return pids and old_pid not in pids
        wait_until(another, seconds, because=f"{service} is not started again")

    def cli(self, *arguments, check=True):
        done = subprocess.run([str(self.program())] + [str(a) for a in arguments],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=30, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"pgsled {arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def status(self):
        return json.loads(self.cli("status", "--json", "--run-dir", self.run_dir).stdout)

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # connections

    def url(self, database=None, user=None, password=postgres.PASSWORD):
        return (f"host={HOST} port={self.port} dbname={database or self.databases[0]['name']} "
                f"user={user or self.users[0]['name']} password={password}")

    def connect(self, database=None, user=None, password=None, **options):
        password = password or self.users[0].get("password", postgres.PASSWORD)
        options = dict({"autocommit": True, "prepare_threshold": None}, **options)
        return psycopg.connect(self.url(database, user, password), **options)

    def raw(self, database=None, user=None, password=postgres.PASSWORD, login=True, timeout=10.0,
            receive_buffer=None, **parameters):
        client = RawClient(self.port, timeout=timeout, receive_buffer=receive_buffer)
        if login:
            try:
                client.login(user or self.users[0]["name"], password,
                             database or self.databases[0]["name"], **parameters)
            except BaseException:
                client.socket.close()
                raise
        return client

    def admin(self, command):
        """Rows of an admin command as dicts."""
        with psycopg.connect(self.url("admin", "admin", ADMIN_PASSWORD), autocommit=True,
                             prepare_threshold=None, connect_timeout=5) as connection:
            cursor = connection.execute(command)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def reload(self):
        self.write_configuration()
        self.admin("RELOAD")

    def metrics(self):
        """Series of all processes: (name, frozenset of labels) → value."""
        address = f"http://{HOST}:{self.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as page:
            return parse_metrics(page.read().decode())

    def metric(self, name, **labels):
        """Sum of the series of that name with these labels."""
        wanted = set(labels.items())
        return sum(value for (one, given), value in self.metrics().items()
                   if one == name and wanted <= set(given))

    # checks

    def lent(self):
        """What SHOW POOLS counts as checked out or waited for."""
        return {(row["database"], row["user"], row["shard"]):
                (int(row["sv_active"]), int(row["sv_idle_xact"]), int(row["cl_waiting"]))
                for row in self.admin("SHOW POOLS")}

    def check_no_leaks(self, seconds=5, size=None, database=None, user=None):
        """No server connection stays checked out, and a whole pool can be used at once: `size`
        clients, each in a transaction, on that many different connections."""
        def quiet():
            return not any(any(counts) for counts in self.lent().values())
        try:
            wait_until(quiet, seconds, 0.05)
        except TimeoutError as late:
            raise AssertionError(f"still checked out: {self.lent()}") from late
        size = size or self.general.get("default_pool_size", 10)
        clients = []
        try:
            for _ in range(size):
                clients.append(self.raw(database, user, timeout=seconds))
                clients[-1].query("BEGIN")
            pids = {client.query("SELECT pg_backend_pid()")[0][0] for client in clients}
            assert len(pids) == size, f"{len(pids)} connections for {size} transactions"
            for client in clients:
                client.query("COMMIT")
        finally:
            for client in clients:
                client.close()


def parse_metrics(text):
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([\w:]+)(?:\{(.*)\})? (\S+)", line)
        if match:
            labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


def eventually(check, seconds=5):
    """Repeats an assertion until it holds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def has_decisions(server, shards):
    """A check for eventually(): the router has made these databases ready for two-phase commit."""
    def check():
        for name in shards:
            assert server.run("SELECT to_regprocedure('pgsled.decide(text,text,integer[])') "
                              "IS NOT NULL", database=name) == [(True,)]
    return check
