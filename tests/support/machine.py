"""Ports, processes and waiting. Reads /proc itself, so that what the suite says of its own
processes can be checked against it."""

import atexit
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PG_BIN = pathlib.Path(os.environ.get("PGSLED_PG_BIN", "/usr/lib/postgresql/15/bin"))
HOST = "127.0.0.1"
# Sanitizers make everything slower: time bounds of tests are multiplied by this.
SLOW = float(os.environ.get("PGSLED_SLOW", "1"))

# Runners beside each other share out the ports, so that none takes what another is about to use.
_MOST_RUNNERS = 8
_runner = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _MOST_RUNNERS
_handed_out = set()


def binaries():
    """The folder with pgsled and its services."""
    return pathlib.Path(os.environ.get("PGSLED_BIN", ROOT / "build" / "release" / "bin"))


def free_port():
    """A port nobody listens on, below the range of outgoing connections and never given twice."""
    while True:
        port = random.randrange(20000 + _runner, 32000, _MOST_RUNNERS)
        if port in _handed_out:
            continue
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
        _handed_out.add(port)
        return port


def short_folder(prefix="pgsled-"):
    """A private folder whose path leaves room for the 107 bytes of a Unix socket's name."""
    base = tempfile.gettempdir()
    made = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=base if len(base) < 40 else "/tmp"))
    # Most are removed earlier, by who asked for them.
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def wait_until(what, seconds=5.0, every=0.02, because="condition"):
    """Calls `what` until it returns something true, which is returned."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{because}: not within {seconds * SLOW:.1f} s")
        time.sleep(every)


def tied(command, death_signal="TERM", user=None):
    """The command with its death tied to ours, run as `user` when we are root."""
    prefix = ["setpriv", "--pdeathsig", death_signal]
    if user is not None and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        prefix += [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups"]
    return prefix + [str(part) for part in command]


def stat_fields(pid):
    """Fields of /proc/PID/stat from the third (state) on, or None when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2:].split()


def children(pid):
    """Living direct children: pid → command line as a list."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        fields = stat_fields(entry)
        if fields is None or fields[1] != str(pid) or fields[0] == "Z":
            continue
        try:
            line = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(entry)] = line.decode(errors="replace").split("\0")[:-1]
    return found


def alive(pid):
    fields = stat_fields(pid)
    return fields is not None and fields[0] != "Z"


def freeze(pid):
    """SIGSTOP, and back when it has: until then a thread that runs still answers."""
    os.kill(pid, signal.SIGSTOP)
    def stopped():
        threads = [stat_fields(f"{pid}/task/{one}") for one in os.listdir(f"/proc/{pid}/task")]
        return all(one is None or one[0] == "T" for one in threads)
    wait_until(stopped, 5, 0.001, "it does not stop")


def cpu_seconds(pid):
    """User and system time used so far."""
    fields = stat_fields(pid)
    if fields is None:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    """Resident memory without what is shared with files or other processes."""
    total = 0
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(("RssAnon:",)):
                total += int(line.split()[1]) * 1024
    return total


def stop_process(process, how=signal.SIGTERM, seconds=15):
    """Ends a Popen, by force if it must be; returns its exit status."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    return process.returncode
