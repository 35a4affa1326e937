"""steps.py [STEP…]: the claims of deploy/README.md, one step each, against the engine DOCKER_HOST
names and images that are there. Started by tests/deploy/run. The closing line is
"N passed, M failed, K skipped"."""

import asyncio
import contextlib
import gzip
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
import traceback
import urllib.request

import asyncpg
import psycopg
from stack import (DEPLOY, MEGABYTE, MULTI_HOST, ONE_HOST, SERVICES, Prometheus, Skipped, Stack,
                   docker, expect, image, native, run)

# stack.py has made these reachable.
import queries
from support.machine import binaries, wait_until
from support.probes import Probes
from support.raw_client import Closed, RawClient, ServerError


# What a server calls itself: over its own socket it has no address.
SERVER = "(pg_control_system()).system_identifier"


# --- steps --------------------------------------------------------------------------------------


def images():
    """Sizes above the base; a user of its own; an entry point each."""
    base = int(docker("image", "inspect", "-f", "{{.Size}}", os.environ["PGSLED_BASE"]))
    for service in (*SERVICES, "cli"):
        size = int(docker("image", "inspect", "-f", "{{.Size}}", image(service))) - base
        limit = 150 if service == "replicator" else 60
        print(f"  {service}: {size / MEGABYTE:.1f} MB above the base")
        expect(size <= limit * MEGABYTE, service, "is larger than", limit, "MB")
        found = docker("image", "inspect", "-f", "{{.Config.User}} {{json .Config.Entrypoint}}",
                       image(service))
        program = "pgsled" if service == "cli" else f"pgsled-{service}"
        expect(found == f'pgsled ["{program}"]', service, "has", found)
        version = docker("run", "--rm", "--read-only", "--cap-drop=ALL", image(service),
                         "--version")
        expect(version.startswith(program + " "), version)
    dump = docker("run", "--rm", "--entrypoint", "/usr/lib/postgresql/17/bin/pg_dump",
                  image("replicator"), "--version")
    expect(" 17." in dump, dump)


def postgres_image():
    """What the contract of postgres:17 is: environment, first steps, flags, other programs."""
    name = os.environ["PGSLED_PG_IMAGE"]
    refused = run("docker", "run", "--rm", name, check=False, seconds=60)
    expect(refused.returncode != 0 and "POSTGRES_PASSWORD" in refused.stdout, refused.stdout)
    expect(docker("run", "--rm", name, "bash", "-c", "echo other").endswith("other"))
    with tempfile.TemporaryDirectory() as folder:
        first = pathlib.Path(folder)
        first.chmod(0o755)
        (first / "1.sql").write_text("CREATE TABLE steps (a int); INSERT INTO steps VALUES (1);")
        (first / "2.sh").write_text('psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" '
                                    '-c "INSERT INTO steps VALUES (2)"\n')
        (first / "3.sql.gz").write_bytes(gzip.compress(b"INSERT INTO steps VALUES (3);"))
        (first / "password").write_text("from a file\n")
        made = docker("run", "-d", "-v", f"{first}:/docker-entrypoint-initdb.d:ro",
                      "-e", "POSTGRES_PASSWORD_FILE=/docker-entrypoint-initdb.d/password",
                      "-e", "POSTGRES_USER=boss", "-e", "POSTGRES_DB=my db", name,
                      "-c", "port=6000", "-c", "wal_level=logical")
        try:
            address = "range .NetworkSettings.Networks}}{{.IPAddress}}{{end"
            host = docker("inspect", "-f", "{{" + address + "}}", made)

            def rows():
                with contextlib.suppress(psycopg.Error):
                    with psycopg.connect(host=host, port=6000, user="boss", dbname="my db",
                                         password="from a file", connect_timeout=5) as connection:
                        return connection.execute("SELECT sum(a), count(*), current_setting("
                                                  "'wal_level') FROM steps").fetchone()
            expect(wait_until(rows, 60, 0.2) == (6, 3, "logical"), rows())
            docker("restart", made)
            expect(wait_until(rows, 60, 0.2) == (6, 3, "logical"), rows())
            try:
                psycopg.connect(host=host, port=6000, user="boss", dbname="my db",
                                password="wrong").close()
                raise AssertionError("any password will do")
            except psycopg.OperationalError as error:
                expect("password authentication failed" in str(error), str(error))
        finally:
            docker("rm", "-f", "-v", made)


def one_host(stack):
    """Cold `up` to the first answer, the line of the README, queries, rights of the processes."""
    seconds = stack.up()
    print(f"  cold up to the first answer: {seconds:.1f} s")
    expect(seconds <= 30, "more than 30 s")
    expect(stack.psql("-Atc", "SELECT 42").strip() == "42")
    stack.load()
    servers = asyncio.run(messenger(stack.url()))
    expect(len(servers) == 3, "the queries were answered by", servers)
    stack.wait_healthy()
    for service in SERVICES:
        container = stack.containers(service)[0]
        expect(docker("exec", container, "id", "-u") == "6432", service)
        touched = run("docker", "exec", container, "touch", "/usr/local/bin/x", check=False)
        expect("Read-only file system" in touched.stdout, touched.stdout)
        expect(docker("exec", container, "pgsled", "health") == "ready")
    expect("router" in docker("exec", stack.containers("router")[0], "pgsled", "status"))
    expect(lanes(stack) == {"socket"}, "lanes:", lanes(stack))
    address = f"http://{stack.address('router')}:9090/metrics"
    with urllib.request.urlopen(address, timeout=5) as page:
        text = page.read().decode()
    for service in SERVICES:
        expect(f'service="{service}"' in text, "no series of", service)


def reached(stack):
    """From the network of the project and from elsewhere; what each says of itself over HTTP."""
    network = stack.project + "_default"
    said = docker("run", "--rm", "--network", network, "-e", "PGPASSWORD=postgres",
                  os.environ["PGSLED_PG_IMAGE"], "psql", "-XAt", "-h", "frontend", "-p", "6432",
                  "-U", "postgres", "-c", "SELECT 43")
    expect(said == "43", said)
    others = [word for word in run("hostname", "-I").stdout.split() if "." in word]
    for host in others:
        try:
            stack.connect(host=host).close()
            raise AssertionError(f"from {host}, too, it can be reached")
        except psycopg.OperationalError as error:
            expect("refused" in str(error), error)
    for service in SERVICES:
        with urllib.request.urlopen(f"http://{stack.address(service)}:9100/readyz") as page:
            expect(page.status == 200, service)
        with urllib.request.urlopen(f"http://{stack.address(service)}:9100/metrics") as page:
            expect("pgsled_build_info" in page.read().decode(), service)
    with urllib.request.urlopen(f"http://{stack.address('router')}:9091/") as page:
        expect(page.status == 200, "not ready")
    if shutil.which("prometheus") is None:
        raise Skipped("the rest: there is no prometheus (Debian package)")
    with Prometheus(f"{stack.address('router')}:9090") as prometheus:
        found = {one["metric"]["service"] for one in prometheus.ask("pgsled_build_info")}
        expect(found == set(SERVICES), "Prometheus has series of", found)
        answered = prometheus.ask("sum(pgsled_answer_seconds_count)")
        expect(float(answered[0]["value"][1]) > 0, answered)


def lanes(stack):
    """By which way what is lent goes."""
    with Probes(stack, 12, pause=0):
        return {row["lane"] for row in stack.admin("SHOW SERVERS") if row["holder"]}


async def messenger(url):
    """The application's queries; the identifiers of the servers that answered."""
    servers = set()
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        for user in range(1, 40):
            async with pool.acquire() as connection, connection.transaction():
                conversations = await connection.fetch(queries.CONVERSATIONS, user)
                expect(conversations, "no conversations of user", user)
                server = await connection.fetchval(f"SELECT {SERVER}")
            conversation = conversations[0]["conversation_id"]
            expect(await pool.fetch(queries.MESSAGES, user, conversation))
            expect(await pool.fetch(queries.SEND, conversation, user, "Hello"))
            expect(await pool.fetch(queries.CONVERSATIONS, user) == conversations)
            servers.add(server)
    return servers


def poolers_come_and_go(stack):
    """1 → 3 → 1 while clients ask: no error to any of them."""
    def in_use(wanted):
        found = {row["pooler"] for row in stack.admin("SHOW SERVERS")}
        return len(found) == wanted
    with Probes(stack, 24, pause=0) as probes:
        for count in (3, 1):
            stack.scale(count)
            wait_until(lambda count=count: in_use(count), 20, 0.1, f"not {count} in use")
            probes.wait_all_answered()
        probes.stop()
    print(f"  {sum(len(p.answered) for p in probes.probes)} answers, "
          f"{len(probes.errors())} errors, {len(probes.wrong())} wrong")
    expect(probes.errors() == [] and probes.wrong() == [], probes.errors(), probes.wrong())


def is_there(stack, shard, pid):
    return stack.compose("exec", "-T", shard, "psql", "-U", "postgres", "-Atc", "SELECT 1 FROM "
                         f"pg_stat_activity WHERE pid = {pid}").stdout.strip() == "1"


def a_pooler_dies(stack):
    """Of two: the transactions it had lent connections to end within 2 s, others go on."""
    stack.scale(2)
    # Each container counts its processes by itself.
    names = {stack.compose("exec", "-T", f"shard_{shard}", "psql", "-U", "postgres", "-Atc",
                           f"SELECT {SERVER}").stdout.strip(): f"shard_{shard}"
             for shard in range(3)}
    where = f"SELECT {SERVER}, pg_backend_pid()"
    backends, others = {}, []
    # Four of the six connections to each shard: more than one pooler has, fewer than there are.
    while len(backends) < 12:
        expect(len(others) < 100, "clients are not spread over the shards:", backends)
        client = RawClient(stack.port, timeout=20)
        client.login("postgres", "postgres", "postgres")
        client.query("BEGIN")
        server, pid = client.query(where)[0]
        if sum(names[server] == known for known, _ in backends) < 4:
            backends[names[server], pid] = client
        else:
            client.query("ROLLBACK")
            others.append(client)   # not closed: the next one would get its number and shard
    owners = {(row["addr"], str(row["remote_pid"])): row["pooler"]
              for row in stack.admin("SHOW SERVERS")}
    expect(set(backends) <= set(owners), backends, owners)
    victim = stack.containers("pooler")[0]
    name = "pooler-" + stack.inspect(victim, ".Config.Hostname")
    with Probes(stack, 8) as probes:
        began = time.monotonic()
        stack.crash(victim)
        time.sleep(0.3)   # a process that ends may still do what it was about to
        ended, lived = 0, 0
        for backend, client in backends.items():
            client.socket.settimeout(max(0.1, began + 2 - time.monotonic()))
            owner = owners[backend]
            try:
                client.query("SELECT 2")
                client.query("COMMIT")
                lived += 1
                expect(owner != name, "a transaction of the dead pooler went on")
            except (ServerError, Closed) as failure:
                ended += 1
                expect(owner == name, "a transaction of", owner, "ended:", failure)
                # The error itself, or the end of the connection after it.
                expect(isinstance(failure, Closed) or failure.fields.get("C") == "08006", failure)
        took = time.monotonic() - began
        print(f"  {ended} transactions ended, {lived} went on, after {took:.2f} s")
        expect(ended > 0 and lived > 0 and took <= 2, ended, lived, took)
        probes.wait_all_answered(5)
        gap = max(probes.longest_gap(probe, began) for probe in probes.probes)
        print(f"  longest wait of the others {gap:.2f} s")
        wait_until(lambda: len(stack.poolers()) == 2, 30, 0.2, "it does not come back")
        probes.wait_all_answered(5)
        left = {backend for backend in backends if owners[backend] == name}
        wait_until(lambda: not any(is_there(stack, *one) for one in left), 25, 0.5,
                   "PostgreSQL keeps what was cut off")
        print(f"  PostgreSQL knows after {time.monotonic() - began:.0f} s")
        expect(probes.wrong() == [], probes.wrong())
    for client in [*backends.values(), *others]:
        client.socket.close()
    stack.scale(1)


def a_pooler_pauses(stack):
    """Longer than the router waits for it: its transactions go on, and so does it afterwards."""
    pooler = stack.containers("pooler")[0]
    with stack.connect() as held:
        held.execute("BEGIN")
        pid = held.execute("SELECT pg_backend_pid()").fetchone()
        docker("pause", pooler)
        try:
            wait_until(lambda: not stack.poolers(), 20, 0.2, "the router still counts it")
            for _ in range(20):
                expect(held.execute("SELECT pg_backend_pid()").fetchone() == pid)
                time.sleep(0.1)
            stack.scale(2, counted=1)
            expect(stack.answers(), "new transactions do not go to the other pooler")
        finally:
            docker("unpause", pooler)
        expect(held.execute("SELECT pg_backend_pid()").fetchone() == pid)
        held.execute("COMMIT")
    wait_until(lambda: len(stack.poolers()) == 2, 20, 0.2, "it does not come back")
    stack.scale(1)
    expect(asyncio.run(messenger(stack.url())))


def each_dies(stack):
    """Every other container in turn, under load: wrong answers never, and it comes back."""
    for service in ("router", "replicator", "shard_1", "frontend", "pooler"):
        with Probes(stack, 8) as probes:
            began = time.monotonic()
            stack.crash(stack.containers(service)[0])
            wait_until(stack.answers, 30, 0.2, f"nobody answers after {service} died")
            if service in ("router", "replicator"):
                time.sleep(3)
            probes.wait_all_answered(20)
            gap = max(probes.longest_gap(probe, began) for probe in probes.probes)
            print(f"  {service}: {len(probes.errors())} errors, longest wait {gap:.2f} s")
            expect(probes.wrong() == [], service, probes.wrong())
            if service in ("router", "replicator"):
                expect(probes.errors() == [], service, probes.errors())
        stack.wait_healthy()
    expect(asyncio.run(messenger(stack.url())))


def a_shard_more(stack):
    """The fourth container joins while clients read and write, as the README says."""
    stack.compose("--profile", "add-shard", "up", "-d", "--no-build", "--no-recreate", "shard_3")
    shard = stack.containers("shard_3")[0]
    wait_until(lambda: stack.inspect(shard, ".State.Health.Status") == "healthy", 60, 0.5)
    with open(stack.settings / "pgdog.toml", "a", encoding="utf-8") as file:
        file.write('\n[[databases]]\nname = "postgres"\nhost = "shard_3"\nport = 5432\nshard = 3\n')
    stack.admin("RELOAD")

    def rows():
        with stack.connect() as connection:
            found = []
            for user in range(1, 301):
                found += connection.execute(
                    "SELECT * FROM user_conversation_list WHERE user_id = %s "
                    "ORDER BY conversation_id", [user]).fetchall()
            return found
    before = rows()
    with Probes(stack, 8) as probes:
        done = stack.compose("exec", "-T", "replicator", "pgsled", "reshard", "add-shard",
                             "--database", "postgres", seconds=120)
        print("  " + done.stdout.strip().splitlines()[-1])
        followed = stack.compose("exec", "-T", "replicator", "pgsled", "reshard", "status",
                                 "--follow", seconds=300)
        print("  " + followed.stdout.strip().splitlines()[-1])
        probes.wait_all_answered()
        expect(probes.errors() == [] and probes.wrong() == [], probes.errors(), probes.wrong())
    expect(rows() == before, "rows differ")
    servers = asyncio.run(messenger(stack.url()))
    expect(len(servers) == 4, "the queries were answered by", servers)


def others_wait(stack):
    """Without a router the services say what they wait for; a wrong file is reported whole."""
    wrong = stack.settings / "wrong"
    wrong.mkdir()
    (wrong / "pgdog.toml").write_text('[general]\nport = "x"\nno_such_key = 1\n[[databases]]\n')
    (wrong / "users.toml").write_text('[[users]]\n')
    done = run("docker", "run", "--rm", "-v", f"{wrong}:/etc/pgsled:ro", image("router"),
               check=False, seconds=60)
    print("  " + "\n  ".join(done.stdout.strip().splitlines()[-6:]))
    expect(done.returncode not in (0, 125, 126, 127), done.stdout)
    for part in ("port", "databases", "users"):
        expect(part in done.stdout, part, "is not in", done.stdout)
    for service in ("frontend", "pooler", "replicator"):
        lonely = docker("run", "-d", "--read-only", "--tmpfs", "/run/pgsled:uid=6432,mode=0700",
                        image(service))
        try:
            time.sleep(3)
            asked = run("docker", "exec", lonely, "pgsled", "health", check=False)
            print(f"  {service}: {asked.stdout.strip()}")
            expect(asked.returncode == 1 and "router" in asked.stdout, service, asked.stdout)
            logged = docker("logs", lonely)
            expect("router" in logged, service, "does not say what it waits for:", logged)
        finally:
            docker("rm", "-f", lonely)
    done = run("docker", "run", "--rm", "-e", "PGSLED_ROUTER=tcp://router:7000", "-e",
               "PGSLED_CURVE_DIR=/keys/others", image("pooler"), check=False, seconds=60)
    expect(done.returncode == 2 and "/keys/others/client.public" in done.stdout, done.stdout)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        stack.environment["PGSLED_PUBLISH"] = f"127.0.0.1:{taken.getsockname()[1]}"
        done = stack.compose("up", "-d", "--no-build", check=False)
        expect(done.returncode != 0 and str(taken.getsockname()[1]) in done.stdout, done.stdout)
        stack.environment["PGSLED_PUBLISH"] = f"127.0.0.1:{stack.port}"
    stack.up()


def multihost(stack):
    """The same over tcp with keys: queries, poolers that come and go, one that dies."""
    seconds = stack.up()
    print(f"  cold up to the first answer: {seconds:.1f} s")
    expect(seconds <= 30, "more than 30 s")
    stack.load()
    expect(len(asyncio.run(messenger(stack.url()))) == 3)
    expect(lanes(stack) == {"relay"}, "lanes:", lanes(stack))
    listed = docker("run", "--rm", "-v", f"{stack.project}_keys:/k:ro", "--entrypoint", "ls",
                    image("cli"), "/k").split()
    expect(listed == ["client.public", "client.secret", "server.public"], listed)
    poolers_come_and_go(stack)
    a_pooler_dies(stack)
    router = stack.containers("router")[0]
    with Probes(stack, 8) as probes:
        stack.crash(router)
        time.sleep(5)
        probes.wait_all_answered(20)
        expect(probes.errors() == [] and probes.wrong() == [], probes.errors(), probes.wrong())
    a_shard_more(stack)


SCRIPT = """\\set user random(1, 300)
SELECT conversation_id, conversation_name, unread_count FROM user_conversation_list
 WHERE user_id = :user AND is_archived = false ORDER BY last_message_at DESC LIMIT 20;
"""


def speed(stack):
    """pgbench through compose and through the same processes without containers, in turn."""
    if not (binaries() / "pgsled").exists():
        raise Skipped(f"{binaries()} has no build; PGSLED_BIN names another")
    flags = json.loads(stack.inspect(stack.containers("shard_0")[0], "json .Config.Cmd"))
    with native(flags) as port, tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(SCRIPT)
        script.flush()
        places = {"compose": (stack.address("frontend"), 6432), "native": ("127.0.0.1", port),
                  "published port": ("127.0.0.1", stack.port)}
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": "postgres", "HOME": "/nonexistent"}

        def there(place, *words):
            return run(words[0], "-h", place[0], "-p", place[1], "-U", "postgres", *words[1:],
                       env=environment).stdout
        there(places["native"], "psql", "-X", "-q", "-f", DEPLOY / "quickstart.d" / "schema.sql")
        run("/usr/bin/python3", DEPLOY / "quickstart.d" / "load.py",
            f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres")
        rates = {name: [] for name in places}
        for turn in range(6):
            for name in (list(places) if turn % 2 else list(places)[::-1]):
                said = there(places[name], "pgbench", "-n", "-M", "prepared", "-f", script.name,
                             "-c", 16, "-j", 2, "-T", 4, "postgres")
                rates[name].append(float(re.search(r"tps = ([\d.]+)", said)[1]))
    middle = {name: statistics.median(values[1:]) for name, values in rates.items()}
    for name, value in middle.items():
        print(f"  {name}: {value:.0f} a second, {value / middle['native']:.2f} of native")
    expect(middle["compose"] >= 0.9 * middle["native"], "slower than 0.9 of native")


def registry(_stack):
    """With a registry in reach: postgres:17 and ParadeDB's image as shards."""
    for name in ("postgres:17", "paradedb/paradedb:latest-pg17"):
        if run("docker", "pull", "-q", name, check=False, seconds=600).returncode != 0:
            raise Skipped(f"{name} cannot be pulled")
        with Stack(ONE_HOST) as stack:
            stack.environment["PGSLED_PG_IMAGE"] = name
            stack.up()
            stack.load()
            expect(len(asyncio.run(messenger(stack.url()))) == 3)


def other_passwords(stack):
    """Chosen as the README says, and opened to others; both files for user 6432 alone."""
    stack.password = "another one"
    stack.environment.update(POSTGRES_PASSWORD=stack.password,
                             PGSLED_PUBLISH=f"0.0.0.0:{stack.port}")
    for name in ("pgdog.toml", "users.toml"):
        file = stack.settings / name
        file.write_text(file.read_text().replace('password = "postgres"',
                                                 f'password = "{stack.password}"'))
        os.chown(file, 6432, 6432)
        file.chmod(0o400)
    stack.up()
    for host in run("hostname", "-I").stdout.split():
        if "." in host:
            stack.connect(host=host).close()
    try:
        stack.connect(password="postgres").close()
        raise AssertionError("any password will do")
    except psycopg.OperationalError as error:
        expect("password" in str(error), error)


def wrong_settings(stack):
    """With mistakes in the files the router's log lists all of them, and the others wait."""
    settings = stack.settings / "pgdog.toml"
    good = settings.read_text()
    settings.write_text(good.replace("port = 6432", "port = 0\nno_such_key = 1")
                        .replace('host = "shard_1"', 'host = 1'))
    done = stack.compose("up", "-d", "--no-build", check=False)
    print("  up: " + done.stdout.strip().splitlines()[-1])
    expect(done.returncode != 0, done.stdout)
    said = stack.compose("logs", "--no-color", "router").stdout
    for part in ("port", "no_such_key", "host", "pgdog.toml:"):
        expect(part in said, part, "is not in", said)
    for service in ("pooler", "replicator"):
        wait_until(lambda service=service: "router" in
                   stack.compose("logs", "--no-color", service).stdout, 20, 0.5,
                   f"{service} does not say what it waits for")
    settings.write_text(good)
    stack.compose("restart", "router")
    stack.up()


def several_frontends(stack):
    """Two, without the published port; one ends, and only its clients have to come again."""
    text = (DEPLOY / ONE_HOST).read_text()
    line = '    ports: ["${PGSLED_PUBLISH:-127.0.0.1:6432}:6432"]\n'
    expect(line in text)
    file = stack.settings / "several.yml"
    file.write_text(text.replace(line, ""))
    stack.file = str(file)
    stack.compose("up", "-d", "--no-build", "--scale", "frontend=2")
    first, second = stack.addresses("frontend")
    for host in (first, second):
        wait_until(lambda host=host: stack.answers(host=host, port=6432), 60, 0.1, host)
    with stack.connect(host=second, port=6432) as other:
        docker("stop", stack.containers("frontend")[0], seconds=90)
        expect(other.execute("SELECT 44").fetchone() == (44,))


def leaves_nothing(stack):
    """down keeps the rows, down -v does not."""
    count = "SELECT count(*) FROM user_conversation_list WHERE user_id = 7"
    before = stack.psql("-Atc", count)
    stack.compose("--profile", "add-shard", "down", "-t", "60")
    stack.environment["COMPOSE_PROFILES"] = "add-shard"
    stack.up()
    expect(stack.psql("-Atc", count) == before != "0\n", "rows are gone")
    stack.compose("--profile", "add-shard", "down", "-v", "-t", "60")
    mine = ["--filter", f"label=com.docker.compose.project={stack.project}", "-q"]
    expect(docker("ps", "-a", *mine) == "")
    expect(docker("volume", "ls", *mine) == "" and docker("network", "ls", *mine) == "")


ON_ONE_HOST = (one_host, reached, speed, poolers_come_and_go, a_pooler_pauses, a_pooler_dies,
               each_dies, others_wait, a_shard_more, leaves_nothing)

# Each with a stack of its own, which it starts itself.
ALONE = ((wrong_settings, ONE_HOST), (other_passwords, ONE_HOST),
         (several_frontends, ONE_HOST), (multihost, MULTI_HOST), (registry, ONE_HOST))


def attempt(step, outcomes, *arguments):
    print(f"\n== {step.__name__}: {step.__doc__.splitlines()[0]}", flush=True)
    began = time.monotonic()
    try:
        step(*arguments)
        outcome = "passed"
    except Skipped as why:
        print(f"  skipped: {why}")
        outcome = "skipped"
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
        outcome = "failed"
    print(f"  {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
    outcomes.append(outcome)
    return outcome != "failed"


def main(names):
    known = [images, postgres_image, *ON_ONE_HOST, *(step for step, _ in ALONE)]
    unknown = set(names) - {step.__name__ for step in known}
    if unknown:
        raise SystemExit(f"no step {sorted(unknown)}; there are {[s.__name__ for s in known]}")
    wanted = [step for step in known if not names or step.__name__ in names]
    outcomes = []
    for step in (images, postgres_image):
        if step in wanted:
            attempt(step, outcomes)
    with Stack(ONE_HOST) as stack:
        chosen = [step for step in ON_ONE_HOST if step in wanted]
        if chosen and one_host not in chosen:
            stack.up()
            stack.load()
        for step in chosen:
            if attempt(step, outcomes, stack) or step is speed:
                continue   # who is only slow is as he was
            print(stack.compose("ps", check=False).stdout)
            print(stack.compose("logs", "--no-color", "--tail=40", check=False).stdout[-12000:])
            break
    for step, file in ALONE:
        if step in wanted:
            with Stack(file) as stack:
                if not attempt(step, outcomes, stack):
                    print(stack.compose("logs", "--no-color", "--tail=40",
                                        check=False).stdout[-12000:])
    counts = {kind: outcomes.count(kind) for kind in ("passed", "failed", "skipped")}
    print("\n" + json.dumps(counts))
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that all is taken down
    sys.exit(main(sys.argv[1:]))
