"""A PostgreSQL server of our own: own folder, own port, started and ended by the test."""

import os
import shutil
import signal
import subprocess

import psycopg

from .machine import HOST, PG_BIN, free_port, short_folder, tied, wait_until
from .raw_client import RawClient

SUPERUSER, PASSWORD = "postgres", "postgres"

# Small and fast: nothing here has to survive a power cut.
SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
    "shared_buffers": "64MB", "max_connections": "200", "autovacuum": "off",
    "wal_level": "logical", "max_prepared_transactions": "50", "max_wal_senders": "10",
    "max_replication_slots": "10", "password_encryption": "scram-sha-256",
    "log_min_messages": "warning", "bgwriter_lru_maxpages": "0", "timezone": "UTC",
    "log_timezone": "UTC", "jit": "off", "max_parallel_workers_per_gather": "0",
}

# Roles whose name says how they are let in; all with the password of the superuser.
METHODS = {"md5_user": "md5", "plain_user": "password", "trust_user": "trust"}


class Postgres:
    def __init__(self, settings=None, hba_type="host"):
        self.port = free_port()
        self.folder = short_folder("pgsled-pg-")
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.settings = dict(SETTINGS, **(settings or {}))
        self.hba_type = hba_type
        self.process = None

    def __enter__(self):
        self.initialise()
        self.start()
        return self

    def __exit__(self, *_):
        self.remove()

    def initialise(self):
        password = self.folder / "password"
        password.write_text(PASSWORD + "\n")
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(password, "postgres")
        self._run(PG_BIN / "initdb", "-D", self.data, "-U", SUPERUSER, "--pwfile", password,
                  "-E", "UTF8", "--locale", "C.UTF-8", "-A", "scram-sha-256", "--no-sync",
                  "--no-instructions")
        lines = [f"local all all scram-sha-256"]
        for user, method in METHODS.items():
            lines.append(f"{self.hba_type} all {user} {HOST}/32 {method}")
        lines.append(f"{self.hba_type} all all {HOST}/32 scram-sha-256")
        lines.append(f"{self.hba_type} replication all {HOST}/32 scram-sha-256")
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            for name, value in self.settings.items():
                conf.write(f"{name} = '{value}'\n")

    def start(self):
        wait_until(lambda: not self._remains(), 10, because="processes of before do not end")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                tied([PG_BIN / "postgres", "-D", self.data, "-p", self.port,
                      "-c", f"listen_addresses={HOST}", "-k", self.folder], "QUIT", "postgres"),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        wait_until(self._answers, 20, because="PostgreSQL does not start, see " + str(self.log))

    def stop(self, how=signal.SIGINT):
        """SIGINT is a fast shutdown, SIGQUIT an immediate one, SIGKILL of the postmaster also
        ends the backends (they notice)."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)
        self.process = None

    def restart(self, how=signal.SIGINT):
        self.stop(how)
        self.start()

    def remove(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database="postgres", user=SUPERUSER):
        return f"host={HOST} port={self.port} dbname={database} user={user} password={PASSWORD}"

    def connect(self, database="postgres", user=SUPERUSER, **options):
        """A direct connection: every statement its own transaction, simple protocol."""
        options = dict({"autocommit": True, "prepare_threshold": None}, **options)
        return psycopg.connect(self.url(database, user), **options)

    def raw(self):
        """A direct raw client that has not logged in, with TLS where nothing else is let in."""
        return RawClient(self.port, tls=True if self.hba_type == "hostssl" else None)

    def run(self, *statements, database="postgres"):
        """Runs statements directly and returns the rows of the last one, if it has any."""
        with self.connect(database) as connection:
            cursor = None
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor is not None and cursor.description else []

    def backends(self, database, but="none"):
        """(pid, state, query) of the client backends of a database, the asking one left out."""
        return self.run(
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = '" + database +
            f"' AND backend_type = 'client backend' AND application_name <> '{but}'"
            " AND pid <> pg_backend_pid() ORDER BY pid")

    def make_database(self, name):
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')

    def make_role(self, name, password=PASSWORD, options="LOGIN SUPERUSER", encryption=None):
        if encryption is not None:
            self.run(f"SET password_encryption = '{encryption}'")
        encryption = encryption or ("md5" if METHODS.get(name) == "md5" else "scram-sha-256")
        self.run(f"SET password_encryption = '{encryption}'; "
                 f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} {options} PASSWORD '{password}'")

    def _remains(self):
        """Those of a server that was killed notice it a little later, and keep the next one out."""
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == str(self.data):
                    return True
            except OSError:   # gone, or somebody else's
                pass
        return False

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text(errors="replace"))
        try:
            self.connect(connect_timeout=2).close()
            return True
        except psycopg.OperationalError:
            return False

    def _run(self, *command):
        done = subprocess.run(tied(command, "KILL", "postgres"), cwd="/", text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout)
