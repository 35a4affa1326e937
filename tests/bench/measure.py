"""One measurement each: a pgbench run, idle memory. Returns plain numbers."""

import re
import resource
import subprocess
import sys
import time

from support.machine import HOST, PG_BIN, cpu_seconds
from support.raw_client import RawClient

from targets import USER, pgbench_environment


class Failed(Exception):
    """This target cannot do this cell; the text says why."""


def pgbench(target, *options, database="postgres", user=USER, tls=False, timeout=120):
    """Returns tps, and CPU seconds per thousand transactions by process."""
    pids = target.processes()
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    command = [str(PG_BIN / "pgbench"), "-h", HOST, "-p", str(target.port), "-U", user, "-n",
               *[str(one) for one in options], database]
    done = subprocess.run(command, env=pgbench_environment(tls), text=True, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Failed(f"{target.name}: pgbench {' '.join(command[8:])}: {done.stdout[-600:]}")
    count = int(re.search(r"actually processed: (\d+)", done.stdout)[1])
    if count == 0:
        raise Failed(f"{target.name}: nothing was answered in time")
    used = {name: (cpu_seconds(pid) - before[name]) * 1000 / count
            for name, pid in pids.items()}
    return {"tps": float(re.search(r"tps = ([\d.]+)", done.stdout)[1]),
            "cpu": used}


def psql_command(target, database, sql, user=USER):
    return [str(PG_BIN / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p",
            str(target.port), "-U", user, "-c", sql, database]


def psql(target, database, *statements):
    for sql in "; ".join(statements).split("; "):
        done = subprocess.run(psql_command(target, database, sql), env=pgbench_environment(False),
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              check=False, timeout=60)
        if done.returncode != 0:
            raise Failed(f"{target.name}: {sql}: {done.stdout[-600:]}")


def copied_out(target, database, query, path):
    with open(path, "wb") as file:
        subprocess.run(psql_command(target, database, f"COPY ({query}) TO STDOUT"), stdout=file,
                       env=pgbench_environment(False), check=True, timeout=120)


def copied_in(target, table, parts):
    """Seconds until all of (database, file) are loaded, at the same time."""
    began, running = time.monotonic(), []
    for database, path in parts:
        with open(path, "rb") as file:
            running.append(subprocess.Popen(
                psql_command(target, database, f"COPY {table} FROM STDIN"), stdin=file,
                env=pgbench_environment(False), stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    for one in running:
        said = one.communicate(timeout=120)[0]
        if one.returncode != 0:
            raise Failed(f"{target.name}: COPY: {said[-600:]}")
    return time.monotonic() - began


def raise_file_limit():
    """To the hard limit; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def resident(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return total * 1024


def idle_memory(target, pids, many=10000, few=100, tls=False):
    """Bytes of resident memory for each further idle client that has asked once."""
    limit = raise_file_limit()
    if limit < many + 500:
        print(f"the file limit of {limit} is too low for {many} clients: measured with fewer",
              file=sys.stderr)
        many = limit - 500
    clients, at = [], {}
    try:
        for count in range(1, many + 1):
            clients.append(RawClient(target.port, timeout=30, tls=True if tls else None))
            clients[-1].login(USER)
            clients[-1].query("SELECT 1")
            if count in (few, many):
                at[count] = resident(pids)
    finally:
        for client in clients:
            client.socket.close()
    return (at[many] - at[few]) / (many - few)
