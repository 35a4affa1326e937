"""What the steps work with: a compose project, the same suite without containers, a Prometheus."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "deploy" / "quickstart.d")]

import psycopg  # noqa: E402
from support.machine import free_port, stop_process, tied, wait_until  # noqa: E402
from support.suite import Suite  # noqa: E402

DEPLOY = ROOT / "deploy"
ONE_HOST, MULTI_HOST = "docker-compose.yml", "docker-compose.multihost.yml"
SERVICES = ("router", "pooler", "replicator", "frontend")
COMPOSE = os.environ.get("PGSLED_COMPOSE", "docker-compose").split()
MEGABYTE = 1_000_000


class Skipped(Exception):
    pass


def run(*command, check=True, seconds=300, **options):
    done = subprocess.run([str(word) for word in command], text=True, timeout=seconds, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                             f"{done.stdout[-4000:]}")
    return done


def docker(*words, **options):
    return run("docker", *words, **options).stdout.strip()


class Stack:
    """One compose project, with a copy of deploy/compose that steps may change."""

    def __init__(self, file):
        self.file, self.project = file, f"pgsled-test-{os.getpid()}"
        self.settings = pathlib.Path(tempfile.mkdtemp(prefix="pgsled-settings-"))
        shutil.copytree(DEPLOY / "compose", self.settings, dirs_exist_ok=True)
        self.settings.chmod(0o755)
        file = self.settings / "pgdog.toml"   # so few that every pooler is needed
        file.write_text(file.read_text().replace("default_pool_size = 20", "default_pool_size = 6"))
        self.port, self.password = free_port(), "postgres"
        self.environment = dict(os.environ, COMPOSE_PROJECT_NAME=self.project,
                                PGSLED_PUBLISH=f"127.0.0.1:{self.port}",
                                PGSLED_SETTINGS=str(self.settings))
        self.users, self.databases = [{"name": "postgres"}], [{"name": "postgres"}]

    def compose(self, *words, **options):
        # Without -f, from the folder, as users do: the first file is the default.
        which = [] if self.file == ONE_HOST else ["-f", self.file, "--project-directory", DEPLOY]
        return run(*COMPOSE, *which, *words, env=self.environment, cwd=DEPLOY, **options)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.compose("ps", check=False).stdout)
            print(self.compose("logs", "--no-color", "--tail=60", check=False).stdout[-20000:])
        self.compose("--profile", "add-shard", "down", "-v", "-t", "5", check=False)
        shutil.rmtree(self.settings, ignore_errors=True)

    def containers(self, service):
        found = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.project}",
                       "--filter", f"label=com.docker.compose.service={service}")
        return found.split()

    def inspect(self, container, what):
        return docker("inspect", "-f", "{{" + what + "}}", container)

    def addresses(self, service):
        what = "range .NetworkSettings.Networks}}{{.IPAddress}}{{end"
        return [self.inspect(one, what) for one in self.containers(service)]

    def address(self, service):
        return self.addresses(service)[0]

    def connect(self, database="postgres", user="postgres", password=None, host="127.0.0.1",
                port=None):
        return psycopg.connect(host=host, port=port or self.port, dbname=database, user=user,
                               password=password or self.password, connect_timeout=10,
                               autocommit=True, prepare_threshold=None)

    def url(self):
        return f"postgresql://postgres:postgres@127.0.0.1:{self.port}/postgres"

    def admin(self, command):
        with self.connect("admin", "admin", "admin") as connection:
            cursor = connection.execute(command)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def psql(self, *words, **options):
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": self.password,
                       "HOME": "/nonexistent"}
        return run("psql", "-X", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", *words,
                   env=environment, **options).stdout

    def answers(self, **where):
        try:
            with self.connect(**where) as connection:
                connection.execute("SELECT 1")
            return True
        except psycopg.Error:
            return False

    def up(self, *words):
        """Returns the seconds up to the first answer."""
        began = time.monotonic()
        self.compose("up", "-d", "--no-build", *words)
        wait_until(self.answers, 60, 0.1, "nobody answers")
        return time.monotonic() - began

    def wait_healthy(self, seconds=60):
        for service in SERVICES:
            for one in self.containers(service):
                wait_until(lambda one=one: self.inspect(one, ".State.Health.Status") == "healthy",
                           seconds, 0.5, f"{service} is not healthy")

    def load(self):
        self.psql("-v", "ON_ERROR_STOP=1", "-q", "-f", DEPLOY / "quickstart.d" / "schema.sql")
        run("/usr/bin/python3", DEPLOY / "quickstart.d" / "load.py", self.url())

    def poolers(self):
        return {row["instance"] for row in self.admin("SHOW STATUS") if row["service"] == "pooler"}

    def scale(self, poolers, counted=None):
        self.compose("up", "-d", "--no-build", "--no-recreate", "--scale", f"pooler={poolers}",
                     seconds=120)
        wait_until(lambda: len(self.poolers()) == (counted or poolers), 30, 0.2,
                   f"not {counted or poolers} poolers")

    def crash(self, container):
        """As if the process had died: the restart policy is not told otherwise."""
        os.kill(int(self.inspect(container, ".State.Pid")), signal.SIGKILL)


def image(service):
    prefix = os.environ.get("PGSLED_IMAGES", "localhost/pgsled")
    return f"{prefix}/{service}:{os.environ.get('PGSLED_TAG', 'latest')}"


def expect(holds, *what):
    if not holds:
        raise AssertionError(" ".join(map(str, what)))


class Prometheus:
    """A real one, with the configuration of deploy/observability, that scrapes `target`."""

    def __init__(self, target):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pgsled-prometheus-"))
        text = (DEPLOY / "observability" / "prometheus.yml").read_text()
        (self.folder / "prometheus.yml").write_text(
            text.replace("router:9090", target).replace(": 10s", ": 1s"))
        shutil.copy(DEPLOY / "observability" / "alerts.yml", self.folder)
        self.address, self.process = f"127.0.0.1:{free_port()}", None

    def ask(self, query):
        page = "query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{page}", timeout=5) as got:
            return json.loads(got.read())["data"]["result"]

    def scraped(self):
        try:
            return bool(self.ask("pgsled_build_info"))
        except OSError:
            return False

    def __enter__(self):
        self.process = subprocess.Popen(
            tied(["prometheus", f"--config.file={self.folder}/prometheus.yml", "--log.level=warn",
                  f"--storage.tsdb.path={self.folder}/data",
                  f"--web.listen-address={self.address}"]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(self.scraped, 20, 0.2, "nothing is scraped")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        stop_process(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def native(flags):
    """The same PostgreSQL on the host's network, before it this build's processes as such."""
    ports, made = [free_port() for _ in range(3)], []
    databases = [{"name": "postgres", "port": port, "shard": shard}
                 for shard, port in enumerate(ports)]
    tables = [{"database": "postgres", "name": table, "column": column, "data_type": "bigint"}
              for table, column in (("user_conversation_list", "user_id"),
                                    ("user_messages", "recipient_user_id"),
                                    ("messages", "sender_id"))]
    suite = Suite(None, databases=databases, users=[{"name": "postgres", "database": "postgres"}],
                  general={"workers": None, "default_pool_size": 6}, sharded_tables=tables)
    try:
        for port in ports:
            made.append(docker("run", "-d", "--network", "host", "-e", "POSTGRES_PASSWORD=postgres",
                               os.environ["PGSLED_PG_IMAGE"], *flags, f"-cport={port}"))
        for one, port in zip(made, ports):
            ready = ("docker", "exec", one, "pg_isready", "-q", "-h", "127.0.0.1", "-p", port)
            wait_until(lambda ready=ready: run(*ready, check=False).returncode == 0, 60, 0.5)
        with suite:
            yield suite.port
    finally:
        for one in made:
            run("docker", "rm", "-f", "-v", one, check=False)
