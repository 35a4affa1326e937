"""What an operator sees and does: configuration mistakes, commands, admin database, metrics,
reload."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request

import psycopg
import pytest

from support import wire
from support.machine import HOST, ROOT, binaries, free_port, tied, wait_until
from support.probes import Probes
from support.raw_client import RawClient, ServerError
from support.suite import ADMIN_PASSWORD, Suite, eventually

MISTAKEN_PGDOG = """
[general]
host = "127.0.0.1"
port = 70000
workers = "two"
pooler_mode = "sometimes"
no_such_key = 1

[[databases]]
name = "a"
port = 5432

[[databases]]
name = "b"
host = "127.0.0.1"
role = "leader"
"""
MISTAKEN_USERS = """
[[users]]
name = "u"
database = "no_such_database"
password = 5
"""


@pytest.mark.smoke
@pytest.mark.parametrize("command", ["check-config", "up"])
def test_all_mistakes_at_once(tmp_path, command):
    (tmp_path / "pgdog.toml").write_text(MISTAKEN_PGDOG)
    (tmp_path / "users.toml").write_text(MISTAKEN_USERS)
    arguments = [str(binaries() / "pgsled"), command, "--config", str(tmp_path / "pgdog.toml"),
                 "--users", str(tmp_path / "users.toml")]
    if command == "up":
        arguments += ["--run-dir", str(tmp_path / "run")]
    done = subprocess.run(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=15, check=False)
    assert done.returncode == 2, done.stdout
    for line, key in ((4, "port"), (5, "workers"), (6, "pooler_mode"), (7, "no_such_key"),
                      (9, "host"), (16, "role")):
        assert re.search(rf"pgdog\.toml:({line}|{line + 1}): .*{key}", done.stdout), (line, key,
                                                                                     done.stdout)
    assert re.search(r"users\.toml:\d+: .*password", done.stdout), done.stdout
    assert "transaction" in done.stdout and "session" in done.stdout, "allowed values not named"


def test_missing_file_and_bad_toml(tmp_path):
    (tmp_path / "pgdog.toml").write_text("[general\n")
    done = subprocess.run([str(binaries() / "pgsled"), "check-config", "--config",
                           str(tmp_path / "pgdog.toml"), "--users", str(tmp_path / "none.toml")],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=15,
                          check=False)
    assert done.returncode == 2
    assert "pgdog.toml:1" in done.stdout and "none.toml" in done.stdout


def test_unacted_keys_are_named_once(start, server):
    suite = start(general={"ban_timeout": 1234, "load_balancing_strategy": "round_robin"},
                  databases=[{"name": "postgres"}, {"name": "postgres", "role": "replica",
                                                    "port": server.port}])
    warnings = [line for line in suite.log_text().splitlines() if "ban_timeout" in line]
    assert len(warnings) == 1
    assert "load_balancing_strategy" in warnings[0] and "replica" in warnings[0]
    shown = {row["name"]: row for row in suite.admin("SHOW CONFIG")}
    assert "1234" in shown["ban_timeout"]["value"]
    assert len(set(shown["ban_timeout"].values()) & {"no", "f", "false", False}) or any(
        "not" in str(value) for value in shown["ban_timeout"].values())


def test_version_and_help():
    for name in ("pgsled", "pgsled-router", "pgsled-frontend", "pgsled-pooler",
                 "pgsled-replicator"):
        for option in ("--version", "--help"):
            done = subprocess.run([str(binaries() / name), option], text=True, timeout=10,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            assert done.returncode == 0
            if option == "--version":
                assert "0.1.0" in done.stdout


def test_second_suite_in_the_same_folder(suite):
    done = subprocess.run([str(part) for part in suite.command()], text=True, timeout=15,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 2
    assert str(suite.run_dir) in done.stdout or "run" in done.stdout
    assert suite.raw().query("SELECT 1") == [["1"]]


def test_port_taken(server):
    with socket.create_server((HOST, 0)) as taken:
        suite = Suite(server, general={"port": taken.getsockname()[1]})
        try:
            suite.start(wait=False)
            time.sleep(2)
            assert str(taken.getsockname()[1]) in suite.log_text()
        finally:
            suite.process.terminate()
            suite.process.wait(15)
            suite.process = None
            suite.__exit__(None)


def test_a_name_to_listen_on(server):
    suite = Suite(server, general={"host": "localhost"})
    try:
        suite.start(wait=False)
        def answers():
            try:
                with psycopg.connect(suite.url(), host="localhost") as client:
                    return client.execute("SELECT 1").fetchone() == (1,)
            except psycopg.OperationalError:
                return False
        wait_until(answers, 10)
    finally:
        suite.stop()
        suite.__exit__(None)


def test_nobody_reads_what_it_says(server):
    """Of a suite in the foreground whose reader (a pager, a log collector) has gone away."""
    suite = Suite(server)
    suite.write_configuration()
    suite.log.touch()
    suite.process = subprocess.Popen(tied(suite.command()), stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        suite.process.stdout.close()
        suite.wait_ready()
        old = suite.pid("pooler")
        suite.kill("pooler")            # which it logs
        suite.wait_restarted("pooler", old)
        assert suite.process.poll() is None
    finally:
        suite.stop()
        suite.__exit__(None)


def test_no_limit_is_no_limit(start):
    """Neither what is cold, nor who has to wait, nor a drain ends at once."""
    never = 2**63 - 1
    suite = start(general={"checkout_timeout": 0, "shutdown_timeout": never,
                           "default_pool_size": 1},
                  sharded_tables=[{"database": "postgres", "name": "t", "column": "id",
                                   "data_type": "bigint"}])
    first, second = suite.raw(), suite.raw()
    for number in range(20):            # each of them a question to the router
        assert first.query(f"SELECT 1 AS a{number}") == [["1"]]
    first.query("BEGIN")
    first.query("SELECT 1")
    second.send(wire.query("SELECT 2"))
    frontend = suite.pid("frontend")
    os.kill(frontend, signal.SIGTERM)
    time.sleep(1)
    assert first.query("SELECT 3") == [["3"]]
    first.query("COMMIT")
    assert RawClient.rows(second.receive_until_ready()) == [["2"]]
    suite.wait_restarted("frontend", frontend)


def test_status_tells_the_truth(suite):
    def all_there():
        text = json.dumps(suite.status())
        for name, pid in suite.processes().items():
            assert f'"{name}"' in text and str(pid) in text, (name, pid, text)
    eventually(all_there)  # ready for clients is not yet everybody's hello
    readable = suite.cli("status", "--run-dir", suite.run_dir).stdout
    for name in suite.processes():
        assert name in readable


def test_run_directory_is_private(suite):
    assert stat.S_IMODE(os.stat(suite.run_dir).st_mode) == 0o700
    control = [path for path in suite.run_dir.iterdir() if path.name.endswith(".control")]
    assert control, list(suite.run_dir.iterdir())
    for path in control:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_control_socket(suite):
    path = next(p for p in suite.run_dir.iterdir() if re.match(r"replicator.*\.control$", p.name))
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(5)
        control.connect(str(path))
        stream = control.makefile("rw")
        for number, request in enumerate(("status", "version")):
            stream.write(json.dumps({"id": number, "request": request}) + "\n")
            stream.flush()
            answer = json.loads(stream.readline())
            assert "error" not in answer and answer["id"] == number, answer
        stream.write("nonsense\n")
        stream.flush()
        assert "error" in json.loads(stream.readline())


def test_process_names(suite):
    for name, pid in suite.processes().items():
        with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
            assert comm.read().strip() == ("pgsled-" + name.split("-")[0])[:15]


@pytest.mark.smoke
@pytest.mark.parametrize("view", ["VERSION", "CONFIG", "CLIENTS", "SERVERS", "POOLS", "STATS",
                                  "LISTS"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_admin_views(suite, view, extended):
    working = suite.raw(application_name="seen")
    working.query("BEGIN; SELECT 1")
    admin = suite.raw("admin", "admin", ADMIN_PASSWORD)
    got = admin.prepared(f"SHOW {view}") if extended else admin.query(f"show {view.lower()};")
    assert got
    working.query("COMMIT")
    working.close()


def test_admin_counts(suite):
    clients = [suite.raw(application_name="counted") for _ in range(3)]
    for client in clients[:2]:
        client.query("BEGIN; SELECT 1")
    def seen():
        rows = [row for row in suite.admin("SHOW CLIENTS") if row["application_name"] == "counted"]
        assert len(rows) == 3
        states = sorted(row["state"] for row in rows)
        assert states == ["idle", "idle in transaction", "idle in transaction"]
        pools = [row for row in suite.admin("SHOW POOLS") if row["database"] == "postgres"]
        assert sum(int(row["sv_active"]) + int(row["sv_idle_xact"]) for row in pools) == 2, pools
        servers = [row for row in suite.admin("SHOW SERVERS") if row["database"] == "postgres"]
        assert len(servers) >= 2
    eventually(seen)
    for client in clients:
        client.close()
    suite.check_no_leaks()


def test_admin_needs_its_user(suite):
    with pytest.raises(ServerError):
        suite.raw("admin", "postgres", "postgres").query("SHOW POOLS")
    with pytest.raises(ServerError):
        suite.raw("admin", "admin", "wrong")
    with pytest.raises(psycopg.Error) as failure:
        suite.admin("SHOW NONSENSE")
    assert failure.value.sqlstate == "42601"


def test_psql_on_admin(suite):
    done = subprocess.run(["psql", "-X", "-At", f"host={HOST} port={suite.port} user=admin"
                           f" dbname=admin password={ADMIN_PASSWORD}", "-c", "SHOW VERSION"],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10,
                          check=False)
    assert done.returncode == 0 and "0.1.0" in done.stdout, done.stdout


@pytest.mark.smoke
def test_metrics_of_all_processes(suite):
    suite.raw().query("SELECT 1")
    def complete():
        series = suite.metrics()
        services = {dict(labels).get("service") for _, labels in series}
        assert {"router", "frontend", "pooler", "replicator"} <= services
    eventually(complete)


def test_each_process_answers_http(suite):
    text = json.dumps(suite.status())
    addresses = set(re.findall(r"127\.0\.0\.1:\d+", text))
    answered = 0
    for address in addresses:
        try:
            for page in ("metrics", "healthz", "readyz"):
                with urllib.request.urlopen(f"http://{address}/{page}", timeout=5) as got:
                    assert got.status == 200
            answered += 1
        except (urllib.error.URLError, ConnectionError, OSError):
            continue
    assert answered >= len(suite.processes()), (answered, text)


def documented_metrics():
    """Heading → {(name, type, meaning)} of docs/metrics.md, and all names it mentions anywhere."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    found = {}
    for part in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]* \| [^|]* \| (.*) \|$", part, re.M)
        found[part.split("\n")[0]] = set(rows)
    return found, set(re.findall(r"`(pgsled_\w+)", text))


def test_metrics_page_is_what_is_served(suite):
    pages, mentioned = documented_metrics()
    declared = {name for rows in pages.values() for name, _, _ in rows}
    assert mentioned <= declared, mentioned - declared
    own = {"router": "Router", "frontend": "Frontend", "pooler": "Pooler",
           "replicator": "Replicator"}
    seen = set()
    for process in suite.admin("SHOW STATUS"):
        service = process["service"]
        with urllib.request.urlopen(f"http://{process['http']}/metrics", timeout=5) as got:
            text = got.read().decode()
        kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
        helps = dict(re.findall(r"^# HELP (\w+) (.*)$", text, re.M))
        served = {(name, kind, helps[name]) for name, kind in kinds.items()}
        wanted = pages["Every process"] | pages["The bus"] | pages[own[service]]
        assert served == wanted, (service, served ^ wanted)
        seen.add(service)
    assert seen == set(own)


def test_healthcheck_port(start):
    port = free_port()
    suite = start(general={"healthcheck_port": port})
    with urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=5) as got:
        assert got.status == 200
    assert suite.raw().query("SELECT 1") == [["1"]]


def test_metrics_agree_with_what_happened(start):
    suite = start()
    client = suite.raw()
    def queries():
        return sum(int(row["total_query_count"]) for row in suite.admin("SHOW STATS")
                   if row["database"] == "postgres" and row["user"] == "postgres")
    time.sleep(0.2)
    before = queries()
    for _ in range(50):
        client.query("SELECT 1")
    for _ in range(30):
        client.prepared("SELECT 1")
    def agrees():
        assert queries() - before == 80
    eventually(agrees)


# A database of its own, so that its connections can be counted.
COUNTED = [{"name": "counted"}]


@pytest.fixture(scope="module")
def counted_database(server):
    server.make_database("counted")


def reload_by(suite, how):
    suite.write_configuration()
    if how == "RELOAD":
        suite.admin("RELOAD")
    elif how == "router":
        suite.kill("router", signal.SIGHUP)
    else:
        suite.process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("how", ["RELOAD", "router", "supervisor"])
def test_reload_adds_and_changes(start, server, how):
    server.make_database("added")
    server.make_role("newcomer")
    suite = start(general={"default_pool_size": 2})
    held = suite.raw()
    held.query("BEGIN; CREATE TEMP TABLE kept (a int)")
    with Probes(suite, 4) as probes:
        suite.databases.append({"name": "added"})
        suite.users.append({"name": "newcomer", "database": "added"})
        suite.general["default_pool_size"] = 5
        reload_by(suite, how)
        def there():
            try:
                client = suite.raw("added", "newcomer")
            except ServerError as failure:
                raise AssertionError(str(failure)) from failure
            assert client.query("SELECT current_user, current_database()") == [
                ["newcomer", "added"]]
            client.close()
        eventually(there)
        assert probes.errors() == [] and probes.wrong() == []
    assert held.query("SELECT count(*) FROM kept") == [["0"]]
    held.query("COMMIT")
    held.close()
    eventually(lambda: suite.check_no_leaks(size=5))


def test_reload_removes(start, server):
    server.make_database("removed")
    suite = start(databases=[{"name": "postgres"}, {"name": "removed"}])
    assert suite.raw("removed").query("SELECT 1") == [["1"]]
    stays = suite.raw()
    suite.databases.pop()
    suite.reload()
    def gone():
        try:
            suite.raw("removed").query("SELECT 1")
        except ServerError as failure:
            assert failure.code == "3D000"
            return
        raise AssertionError("still served")
    eventually(gone)
    assert stays.query("SELECT 1") == [["1"]]
    eventually(lambda: no_backends(server, "removed"))


def no_backends(server, database):
    assert server.backends(database) == []


def test_who_waits_is_served_by_the_host_that_is_new(start, server):
    """As when the file gets another primary: nothing of what waits has begun."""
    suite = start(general={"default_pool_size": 1, "workers": 1})
    holder, waiting, other = (suite.raw() for _ in range(3))
    holder.query("BEGIN")
    for client in (waiting, other):
        client.send(wire.query("SELECT 'served'"))
        assert client.receive_quiet() == []
    suite.databases = [dict(one, host="localhost") for one in suite.databases]
    suite.reload()
    for client in (waiting, other):
        assert client.rows(client.receive_until_ready()) == [["served"]]
    assert holder.query("SELECT 1") == [["1"]]
    holder.query("COMMIT")


def test_reload_refuses_mistakes(start):
    suite = start()
    suite.general["pooler_mode"] = "sometimes"
    suite.write_configuration()
    with pytest.raises(psycopg.Error) as failure:
        suite.admin("RELOAD")
    assert "pooler_mode" in str(failure.value)
    assert suite.raw().query("SELECT 1") == [["1"]]
    suite.general["pooler_mode"] = "transaction"
    suite.reload()
    assert suite.raw().query("SELECT 1") == [["1"]]


def test_pool_shrinks_on_reload(start, server, counted_database):
    suite = start(databases=COUNTED, general={"default_pool_size": 8})
    suite.check_no_leaks()
    suite.general["default_pool_size"] = 2
    suite.reload()
    with Probes(suite, 6) as probes:
        eventually(lambda: at_most(server, 2))
        assert probes.errors() == []


def at_most(server, count):
    assert len(server.backends("counted")) <= count


def test_idle_connections_are_closed(start, server, counted_database):
    suite = start(databases=COUNTED, general={"idle_timeout": 500, "min_pool_size": 1})
    suite.check_no_leaks()
    assert len(server.backends("counted")) == 10
    eventually(lambda: at_most(server, 1), 4)


def test_server_lifetime(start, server, counted_database):
    suite = start(databases=COUNTED, general={"server_lifetime": 700, "default_pool_size": 2})
    with Probes(suite, 4) as probes:
        first = {row[0] for row in server.backends("counted")}
        time.sleep(2)
        assert not first & {row[0] for row in server.backends("counted")}
        assert probes.errors() == []
    suite.check_no_leaks(size=2)


def test_checkout_timeout(start):
    suite = start(general={"default_pool_size": 1, "checkout_timeout": 600})
    holder, waiting = suite.raw(), suite.raw()
    holder.query("BEGIN")
    begin = time.monotonic()
    with pytest.raises(ServerError) as failure:
        waiting.query("SELECT 1")
    assert 0.5 < time.monotonic() - begin < 2
    assert failure.value.code in ("57P03", "53300", "08006", "58000")
    holder.query("COMMIT")
    assert suite.raw().query("SELECT 1") == [["1"]]


def test_idle_in_transaction_timeout(start):
    """With the code of PostgreSQL's own time-out of that kind."""
    suite = start(general={"client_idle_in_transaction_timeout": 400, "default_pool_size": 2})
    client, idle = suite.raw(), suite.raw()
    client.query("BEGIN; SELECT 1")
    assert client.expect_closed(4)["C"] == "25P03"
    assert idle.query("SELECT 1") == [["1"]], "not in a transaction"
    busy = suite.raw()
    busy.query("BEGIN; SELECT pg_sleep(0.8)")
    time.sleep(0.25)
    assert busy.query("SELECT 1") == [["1"]], "idle is who has been answered"
    busy.query("COMMIT")
    suite.check_no_leaks()


def test_database_and_user_settings(start, server):
    suite = start(databases=[{"name": "postgres", "statement_timeout": 345, "pool_size": 2}],
                  users=[{"name": "postgres", "database": "postgres"},
                         {"name": "app", "database": "postgres", "read_only": True,
                          "lock_timeout": 123, "pool_size": 1}])
    assert suite.raw().query("SHOW statement_timeout") == [["345ms"]]
    limited = suite.raw(user="app")
    assert limited.query("SHOW lock_timeout") == [["123ms"]]
    assert limited.query("SHOW default_transaction_read_only") == [["on"]]
    with pytest.raises(ServerError) as failure:
        limited.query("CREATE TABLE no_way (a int)")
    assert failure.value.code == "25006"


def test_shutdown_command(start):
    suite = start()
    try:
        suite.admin("SHUTDOWN")
    except psycopg.OperationalError:
        pass
    assert suite.process.wait(15) == 0
    suite.process = None


def test_lending_is_in_order(start):
    """Nobody is overtaken: with one connection the waiting get it as they came."""
    suite = start(general={"default_pool_size": 1, "workers": 1})
    holder = suite.raw()
    holder.query("BEGIN")
    waiting = [suite.raw() for _ in range(12)]
    for number, client in enumerate(waiting):
        client.send(b"Q" + (4 + 40).to_bytes(4, "big") +
                    f"SELECT {number:2}, clock_timestamp() ".encode().ljust(39) + b"\0")
        time.sleep(0.02)
    holder.query("COMMIT")
    times = [client.rows(client.receive_until_ready())[0][1] for client in waiting]
    assert times == sorted(times)


def test_hash_command():
    for value, shard in (("0", 2), ("42", 0), ("-1", 2), ("9223372036854775807", 0)):
        done = subprocess.run([str(binaries() / "pgsled"), "hash", "--shards", "3", "--type",
                               "bigint", "--", value], text=True, timeout=10,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        assert re.search(rf"shard\D*{shard}\b", done.stdout), done.stdout
