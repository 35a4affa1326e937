"""Ratios, goals and how they are shown."""

import datetime
import os
import platform
import statistics

from targets import EARLIER, POOL_SIZE, SHARD_POOL, SHARDS

# What a cell is compared with, if not with a direct connection.
BASES = ("unsharded", "plain commits", "pg_dump | psql", EARLIER)

# (cell, over which target, at least / at most, bound)
GOALS = [
    ("-S simple, 64", "pgbouncer", "≥", 1.15), ("-S extended, 64", "pgbouncer", "≥", 1.15),
    ("-S simple, 16", "pgbouncer", "≥", 1.05), ("-S extended, 16", "pgbouncer", "≥", 1.05),
    ("-S prepared, 16", "direct", "≥", 0.53), ("-S prepared, 64", "direct", "≥", 0.62),
    ("latency added, simple (µs)", "pgbouncer", "≤", 1.0),
    ("latency added, extended (µs)", "pgbouncer", "≤", 1.0),
    ("relay lane, -S simple, 64", "pgbouncer", "≥", 0.8),
    ("TLS to the server, -S simple, 64", "pgbouncer", "≥", 0.95),
    ("point query, simple, 16", "unsharded", "≥", 0.92),
    ("point query, extended, 16", "unsharded", "≥", 0.92),
    ("point query, prepared, 16", "unsharded", "≥", 0.92),
    ("statements of new shape, 16", "pgbouncer", "≥", 0.95),
    ("COPY into 3 shards, rows/s", "direct", "≥", 0.85),
    ("memory per idle client (bytes)", None, "≤", 2048),
    ("COMMIT on two shards, fsync, 16", "plain commits", "≥", 0.5),
    ("first copy of a whole table, rows/s", "pg_dump | psql", "≥", 1.2),
    ("longest pause while a shard is added (ms)", None, "≤", 250),
    ("the worst of these pauses (ms)", None, "≤", 1000),
]


def value(results, cell, base):
    """The ratio to `base`, or the plain value; None if either is missing. The targets take turns,
    so the ratios are those of each turn: a machine that is slower for a while is so for both."""
    got = results.get(cell, {})
    ours = got.get("sharded" if base == "unsharded" else "pgsled", {})
    if base is None or "median" not in ours:
        return ours.get("median")
    theirs = got.get(base, {})
    if not theirs.get("median"):
        return None
    if len(ours.get("runs", ())) == len(theirs.get("runs", ())) > 1:
        return statistics.median(a / b for a, b in zip(ours["runs"], theirs["runs"]))
    return ours["median"] / theirs["median"]


def goals(results):
    found = []
    beside = [(cell, EARLIER, "≥", 0.97) for cell, got in results.items() if EARLIER in got]
    for cell, base, sense, bound in GOALS + beside:
        ratio = value(results, cell, base)
        met = ratio is not None and (ratio >= bound if sense == "≥" else ratio <= bound)
        found.append({"cell": cell, "over": base, "sense": sense, "bound": bound,
                      "value": ratio, "met": met})
    return found


def number(one):
    if one is None:
        return "–"
    return f"{one:,.0f}" if abs(one) >= 100 else f"{one:.1f}"


def shown(entry):
    if not entry:
        return ""
    if "failed" in entry:
        return "not supported" if entry["failed"] == "not supported" else "failed"
    return number(entry["median"])


def ratio_text(results, cell, base):
    ratio = value(results, cell, base)
    return f"{ratio:.2f}" if ratio is not None else ""


def rows(results):
    """Cell, direct or unsharded, PgBouncer, pgsled or sharded, ratios."""
    yield ["", "direct / unsharded / other", "PgBouncer", "pgsled / sharded",
           "÷ PgBouncer", "÷ direct / unsharded / other"]
    for cell, got in results.items():
        base = next((one for one in BASES if one in got), "direct")
        yield [cell, shown(got.get(base)), shown(got.get("pgbouncer")),
               shown(got.get("pgsled") or got.get("sharded")),
               ratio_text(results, cell, "pgbouncer"), ratio_text(results, cell, base)]


def goal_rows(found):
    yield ["goal", "bound", "reached", ""]
    for goal in found:
        over = f" ÷ {goal['over']}" if goal["over"] else ""
        reached = "–" if goal["value"] is None else (
            f"{goal['value']:.2f}" if goal["over"] else number(goal["value"]))
        how = "yes" if goal["met"] else "MISSED" if goal["value"] is not None else "not measured"
        yield [goal["cell"] + over, f"{goal['sense']} {goal['bound']}", reached, how]


def cpu_rows(cpu):
    yield ["process", "CPU seconds per 1,000 queries"]
    for process, used in sorted(cpu.items()):
        yield [process, f"{used:.4f}"]


def columns(table):
    table = list(table)
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) if at == 0 else cell.rjust(width)
                       for at, (cell, width) in enumerate(zip(row, widths))) for row in table]
    return "\n".join(line.rstrip() for line in lines)


def markdown(table):
    table = list(table)
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" + "|---:" * (len(table[0]) - 1) + "|")
    return "\n".join(lines)


def text(results, cpu, found):
    return "\n\n".join([columns(rows(results)), columns(cpu_rows(cpu)), columns(goal_rows(found))])


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}"


def page(bench, found, arguments):
    command = " ".join(["tests/bench/run"] + arguments)
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    return f"""# Performance

Written by `{command}` on {datetime.date.today()}, on {machine()}, with {versions}.
Everything runs on that one machine: pgbench, PostgreSQL, PgBouncer and the suite. Values are
medians of {bench.runs} runs (fewer of what takes long, twice as many where a few percent decide),
one second each, in which the targets take turns; ratios are the medians of the ratios of each turn;
unless another unit is named values are transactions a second. Pools have {POOL_SIZE} server
connections, those of the sharded database {SHARD_POOL} on each of {SHARDS} shards, and the one its
point queries are compared with {SHARDS * SHARD_POOL}; "64" is the number of clients.
"First copy of a whole table" is that of a move to another database beside `pg_dump | psql` of the
same table into the same table without indexes. Of "a new shard" only the rows that move are counted,
while the old shards read and hash all they have; `pg_dump` beside it copies one shard's table.

{markdown(rows(bench.results))}

CPU time at 64 clients, `-S` simple:

{markdown(cpu_rows(bench.cpu))}

## Goals

{markdown(goal_rows(found))}
"""
