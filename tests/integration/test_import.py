"""From PgBouncer's files: a suite starts with what was made of them, and lets the same users into the
same databases."""

import subprocess

import psycopg
import pytest

from support.machine import HOST, binaries, free_port, short_folder
from support.postgres import PASSWORD
from support.suite import Suite

INI = """
; what an operator has
[databases]
app = host={host} port={server} dbname=app_production pool_size=3
"Odd name" = host={host} port={server} dbname=app_production user=postgres password={password}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
auth_type = scram-sha-256
auth_file = userlist.txt
admin_users = postgres
pool_mode = transaction
server_idle_timeout = 0
logfile = /dev/null
"""


def run_import(folder, *arguments):
    return subprocess.run([str(binaries() / "pgsled"), "import", *map(str, arguments)], cwd=folder,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20,
                          check=False)


class Imported(Suite):
    """Nothing in its files but what the import has written, and no warning about them."""

    def write_configuration(self):
        if (self.folder / "pgdog.toml").exists():
            return
        ini = INI.format(host=HOST, server=self.server.port, port=self.port, password=PASSWORD)
        (self.folder / "pgbouncer.ini").write_text(ini)
        (self.folder / "userlist.txt").write_text(f'"postgres" "{PASSWORD}"\n')
        self.imported = run_import(self.folder, "pgbouncer.ini")


def test_users_and_databases_are_those_of_pgbouncer(server):
    server.make_database("app_production")
    server.run("CREATE TABLE here (value int)", database="app_production")
    with Imported(server, databases=[{"name": "app"}]) as suite:
        assert (suite.imported.returncode, suite.imported.stdout) == (
            0, "wrote pgdog.toml and users.toml\n")
        assert [line.split(": ")[1] for line in suite.imported.stderr.splitlines()] == [
            "auth_file", "logfile"]
        for database in ("app", "'Odd name'"):
            with suite.connect(database) as connection:
                assert connection.execute("SELECT count(*) FROM here").fetchone() == (0,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            suite.connect("app", password="wrong")
        # Whoever watches PgBouncer's console finds this one in its place.
        with suite.connect("pgbouncer") as console:
            pools = console.execute("SHOW POOLS").fetchall()
        assert any("app" in row for row in pools)


def test_nothing_is_written_when_something_is_there_or_wrong():
    folder = short_folder("pgsled-i-")
    (folder / "bad.ini").write_text("[databases]\napp = host='a\n[pgbouncer]\nlisten_port = many\n"
                                    "no equal sign\n")
    done = run_import(folder, "bad.ini")
    assert done.returncode == 2 and not (folder / "pgdog.toml").exists()
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
        "bad.ini:2", "bad.ini:4", "bad.ini:5", "pgsled import"]
    (folder / "good.ini").write_text(f"[databases]\napp = host={HOST}\n[pgbouncer]\n"
                                     f"listen_port = {free_port()}\n")
    (folder / "users.toml").write_text("precious")
    done = run_import(folder, "good.ini")
    assert done.returncode == 2 and "users.toml exists already" in done.stderr
    assert not (folder / "pgdog.toml").exists()
    assert (folder / "users.toml").read_text() == "precious"
    (folder / "users.toml").unlink()
    assert run_import(folder, "good.ini").returncode == 0
    assert (folder / "users.toml").stat().st_mode & 0o777 == 0o600
    assert "cannot be read" in run_import(folder, "gone.ini", "--config", "other.toml", "--users",
                                          "others.toml").stderr
