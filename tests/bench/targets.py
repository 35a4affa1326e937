"""What is measured: PostgreSQL itself, PgBouncer, and pgsled in several set-ups. Each target has a
port, a database name and the processes whose CPU time is counted."""

import os
import re
import subprocess

from support.machine import HOST, free_port, short_folder, stop_process, tied, wait_until
from support.postgres import PASSWORD
from support.probes import environment
from support.raw_client import RawClient
from support.suite import Suite

POOL_SIZE = 10
EARLIER = "earlier"         # pgsled of another version
SHARDS, SHARD_POOL = 3, 5   # of the sharded database; server connections of each shard
# pgbench counts the time of connecting against its duration: where connecting is not what is
# measured, nobody asks for a password.
USER, PASSWORD_USER = "trust_user", "postgres"


class Direct:
    name = "direct"

    def __init__(self, server):
        self.port = server.port

    def processes(self):
        return {}


class PgBouncer:
    """`server_tls`, `client_tls`: certificate and key of clients' side or nothing."""

    def __init__(self, server, name="pgbouncer", server_tls=False, client_tls=None, trust=True):
        self.name, self.port = name, free_port()
        self.program = os.environ.get("PGBOUNCER", "/usr/sbin/pgbouncer")
        self.folder = short_folder("pgsled-pb-")
        self.folder.chmod(0o755)
        settings = {
            "listen_addr": HOST, "listen_port": self.port, "unix_socket_dir": "",
            "auth_type": "trust" if trust else "scram-sha-256",
            "auth_file": self.folder / "users", "pool_mode": "transaction",
            "default_pool_size": POOL_SIZE, "max_client_conn": 12000, "listen_backlog": 4096,
            "log_connections": 0, "log_disconnections": 0, "log_stats": 0,
            "server_tls_sslmode": "require" if server_tls else "disable",
            "ignore_startup_parameters": "extra_float_digits", "logfile": "",
        }
        if client_tls:
            settings.update({"client_tls_sslmode": "allow", "client_tls_cert_file": client_tls[0],
                             "client_tls_key_file": client_tls[1]})
        if self.version() >= (1, 21):
            settings["max_prepared_statements"] = 200
        text = f"[databases]\n* = host={HOST} port={server.port}\n[pgbouncer]\n"
        text += "".join(f"{key} = {value}\n" for key, value in settings.items())
        (self.folder / "ini").write_text(text)
        (self.folder / "users").write_text(
            "".join(f'"{user}" "{PASSWORD}"\n' for user in (USER, PASSWORD_USER)))
        self.process = None

    def version(self):
        said = subprocess.run([self.program, "--version"], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=True).stdout
        return tuple(int(part) for part in re.search(r"(\d+)\.(\d+)", said).groups())

    def supports_prepared(self):
        return self.version() >= (1, 21)

    def __enter__(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                tied([self.program, "-q", self.folder / "ini"], "KILL", "postgres"), stdout=log,
                stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, 10, because="PgBouncer does not start: " +
                   (self.folder / "log").read_text())
        return self

    def _answers(self):
        try:
            with RawClient(self.port) as client:
                return client.login(PASSWORD_USER).query("SELECT 1") == [["1"]]
        except OSError:
            return False

    def __exit__(self, *_):
        stop_process(self.process, seconds=5)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def processes(self):
        return {"pgbouncer": self.process.pid}


class Pgsled(Suite):
    """A suite for measuring: no log line per connection, no TLS unless asked for, as many workers
    as it takes by itself."""

    def __init__(self, server, name="pgsled", general=None, trust=True, **options):
        self.name = name
        options.setdefault("users", [{"name": name, "all_databases": True}
                                     for name in (USER, PASSWORD_USER)])
        quiet = {"log_connections": False, "log_disconnections": False, "tls_verify": "disabled",
                 "default_pool_size": POOL_SIZE, "log_level": "warn", "workers": None,
                 "auth_type": "trust" if trust else "scram"}
        options.setdefault("databases", [{"name": "postgres"}])
        super().__init__(server, general=dict(quiet, **(general or {})), **options)


def pgbench_environment(tls):
    return dict(environment(), PGSSLMODE="require" if tls else "disable")
