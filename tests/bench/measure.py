"""One measurement each: a pgbench run, idle memory. Returns plain numbers."""

import re
import resource
import subprocess
import sys

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
