"""A suite whose processes are started one by one, as on several machines: over tcp, with keys."""

import shutil
import subprocess
import urllib.request

from .machine import HOST, binaries, free_port, stop_process, tied, wait_until
from .suite import Suite


class Apart(Suite):
    """The router starts with start(); the others with add() and end with end()."""

    def __init__(self, server, **options):
        super().__init__(server, **options)
        self.endpoint = f"tcp://{HOST}:{free_port()}"
        self.members = {}

    def make_keys(self):
        """One directory for the router, one for everybody else: only the former has its secret."""
        self.of_router, self.of_others = self.folder / "router-keys", self.folder / "keys"
        self.of_router.mkdir(mode=0o700)
        self.of_others.mkdir(mode=0o700)
        (self.of_router / "clients").mkdir()
        self.cli("keys", self.of_router / "server")
        self.cli("keys", self.of_others / "client")
        shutil.copy(self.of_router / "server.public", self.of_others)
        shutil.copy(self.of_others / "client.public", self.of_router / "clients" / "host-1.public")

    def start(self, wait=True):
        self.write_configuration()
        if not self.members:
            self.make_keys()
        self.process = self.run("pgsled-router", "router", self.of_router, "--config",
                                self.folder / "pgdog.toml", "--users", self.folder / "users.toml")
        self.members["router"] = self.process

    def run(self, program, instance, keys, *options):
        run_dir = self.folder / instance
        run_dir.mkdir(mode=0o700, exist_ok=True)
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                tied([binaries() / program, "--router", self.endpoint, "--curve-dir", keys,
                      "--instance", instance, "--run-dir", run_dir, *options]),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def add(self, instance, seconds=10):
        """Starts frontend-…, pooler-… or replicator-… and returns when it is ready."""
        http = f"{HOST}:{free_port()}"
        options = ["--http", http]
        if not instance.startswith("frontend"):
            options += ["--relay", f"tcp://{HOST}:{free_port()}"]
        started = self.run("pgsled-" + instance.split("-")[0], instance, self.of_others, *options)
        self.members[instance] = started

        def ready():
            assert started.poll() is None, self.log_text()[-4000:]
            try:
                with urllib.request.urlopen(f"http://{http}/readyz", timeout=5) as page:
                    return page.status == 200
            except OSError:
                return False
        wait_until(ready, seconds, because=f"{instance} is not ready")

    def end(self, instance, seconds=15):
        """SIGTERM; returns the exit status."""
        return stop_process(self.members.pop(instance), seconds=seconds)

    def processes(self):
        return {name: one.pid for name, one in self.members.items()}

    def stop(self, how=None):
        services = ("frontend", "pooler", "replicator", "router")
        order = sorted(self.members, key=lambda name: services.index(name.split("-")[0]))
        statuses = [self.end(name) for name in order]
        self.process = None
        return max(statuses, default=0)

    def homes(self):
        """Number of a frontend's worker, as in cancel keys → instance of the frontend."""
        return {int(row["id"]) >> 20: row["frontend"].split(".")[0]
                for row in self.admin("SHOW CLIENTS")}
