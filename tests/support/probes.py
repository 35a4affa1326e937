"""Clients that ask all the time and know the answer: they notice a reply meant for somebody
else, an error, and how long they were kept waiting."""

import itertools
import subprocess
import threading
import time

from .machine import HOST, PG_BIN, SLOW
from .raw_client import Closed, RawClient, ServerError


class Probe(threading.Thread):
    """One client; reconnects after an error. `mode` is simple, extended, prepared or
    transaction."""

    def __init__(self, number, port, login, mode, pause):
        super().__init__(daemon=True)
        self.number, self.port, self.login, self.mode, self.pause = number, port, login, mode, pause
        self.stopping = threading.Event()
        self.answered, self.errors, self.wrong = [], [], []
        self.home, self.error_homes = None, []  # number of the frontend worker; at each error

    def run(self):
        client = None
        for turn in itertools.count():
            if self.stopping.is_set():
                break
            try:
                if client is None:
                    client = RawClient(self.port, timeout=15)
                    client.login(**self.login)
                    self.home = client.pid >> 20
                self.ask(client, turn)
                self.answered.append(time.monotonic())
            except (ServerError, Closed, OSError) as failure:
                self.errors.append((time.monotonic(), failure))
                self.error_homes.append(self.home)
                if client is not None and not (isinstance(failure, ServerError) and
                                               failure.fields.get("S") == "ERROR" and
                                               client.status == "I"):
                    client.socket.close()
                    client = None
                time.sleep(0.02)
            except AssertionError as wrong:
                self.wrong.append(str(wrong))
                break
            time.sleep(self.pause)
        if client is not None:
            client.close()

    def ask(self, client, turn):
        token = f"probe-{self.number}-{turn}"
        if self.mode == "transaction":
            client.query("BEGIN")
        if self.mode in ("simple", "transaction"):
            rows = client.query(f"SELECT '{token}'")
        elif self.mode == "extended":
            rows = client.prepared("SELECT $1::text", [token])
        else:
            rows = client.prepared("SELECT $1::text || 'x'", [token], name=f"s{turn}")
            token += "x"
        assert rows == [[token]], f"asked for {token}, got {rows}"
        if self.mode == "transaction":
            client.query("COMMIT")


class Probes:
    """A handful of probes as a context manager."""

    MODES = ("simple", "extended", "prepared", "transaction")

    def __init__(self, suite, count=8, pause=0.004, database=None, user=None):
        login = {"user": user or suite.users[0]["name"],
                 "database": database or suite.databases[0]["name"]}
        self.probes = [Probe(number, suite.port, login, self.MODES[number % 4], pause)
                       for number in range(count)]

    def __enter__(self):
        for probe in self.probes:
            probe.start()
        self.wait_all_answered()
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_all_answered(self, seconds=10):
        """Returns when each has had an answer from now on."""
        since, end = time.monotonic(), time.monotonic() + seconds * SLOW
        while not all(p.answered and p.answered[-1] > since for p in self.probes):
            if time.monotonic() > end:
                raise AssertionError("not answered: " + str(
                    [(p.number, p.errors[-1:], p.wrong) for p in self.probes
                     if not p.answered or p.answered[-1] <= since]))
            time.sleep(0.01)

    def stop(self):
        for probe in self.probes:
            probe.stopping.set()
        for probe in self.probes:
            probe.join(20)

    def wrong(self):
        return [text for probe in self.probes for text in probe.wrong]

    def errors(self):
        return [failure for probe in self.probes for _, failure in probe.errors]

    def unbroken(self):
        return [probe for probe in self.probes if not probe.errors]

    @staticmethod
    def longest_gap(probe, since):
        """Longest time without an answer, from `since` to the probe's last answer or now."""
        times = [since] + [at for at in probe.answered if at > since]
        return max([b - a for a, b in zip(times, times[1:])], default=time.monotonic() - since)


class Pgbench:
    """pgbench in the background, against any port."""

    def __init__(self, port, *options, database="postgres", user="postgres", seconds=60):
        self.command = [str(PG_BIN / "pgbench"), "-h", HOST, "-p", str(port), "-U", user, "-n",
                        "-T", str(seconds), *[str(option) for option in options], database]
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(self.command, env=environment(), text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def finish(self):
        """Waits for the end; returns (exit status, output)."""
        output, _ = self.process.communicate(timeout=120 * SLOW)
        return self.process.returncode, output


def environment(password="postgres"):
    """For libpq programs: nothing of the caller's PG… variables."""
    return {"PATH": "/usr/bin:/bin", "PGPASSWORD": password, "LC_ALL": "C.UTF-8",
            "PGCONNECT_TIMEOUT": "20", "HOME": "/nonexistent"}


def run_pgbench(port, *options, database="postgres", user="postgres", timeout=120):
    """Runs pgbench to its end; returns its output, raises with it on failure."""
    done = subprocess.run([str(PG_BIN / "pgbench"), "-h", HOST, "-p", str(port), "-U", user,
                           *[str(option) for option in options], database], env=environment(),
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout * SLOW, check=False)
    if done.returncode != 0:
        raise AssertionError(f"pgbench {options}: exit {done.returncode}\n{done.stdout}")
    return done.stdout
