"""docs/from-pgdog.md says what those who come from PgDog will find: its lists against what is."""

import re

import psycopg
import pytest

from support.machine import ROOT
from support.raw_client import ServerError
from support.suite import Suite

PAGE = (ROOT / "docs" / "from-pgdog.md").read_text()


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(title, first):
    """What stands in backticks in the row of a table."""
    line = re.search(rf"^\| {first} \| (.*) \|$", section(title), re.M)
    return re.findall("`([^`]+)`", line[1])


def keys():
    """Key → whether it is in use, of docs/configuration.md; of several sections: in any."""
    found = {}
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name, used in re.findall(r"^\| `(\w+)`.*? \| (yes|no) \| [^|]*\|$", text, re.M):
        found[name] = found.get(name, False) or used == "yes"
    return found


def test_keys_without_effect_have_none():
    known = keys()
    assert len(known) > 150
    named = [key for _, listed in re.findall(r"^\| ([^|]+) \| ((?:`\w+`(?:, )?)+) \|$",
                                             section("Keys without effect"), re.M)
             for key in re.findall(r"`(\w+)`", listed)]
    assert len(named) > 30
    assert not [key for key in named if key not in known or known[key]]


def test_sections_without_effect_have_none():
    text = (ROOT / "docs" / "configuration.md").read_text()
    named = re.findall(r"`(\[+[a-z_]+\]+)`", section("Keys without effect"))
    assert len(named) >= 8
    for header in named:
        part = text.split(f"\n## {header}\n")[1].split("\n## ")[0]
        assert "| yes |" not in part, header


@pytest.fixture(scope="module")
def sharded(server):
    for number in range(2):
        server.make_database(f"pgdog_{number}")
    with Suite(server, databases=[{"name": "dog", "database_name": f"pgdog_{n}", "shard": n}
                                  for n in range(2)],
               sharded_tables=[{"database": "dog", "name": "t", "column": "id"}]) as suite:
        client = suite.raw()
        client.query("CREATE TABLE t (id bigint, v text)")
        client.query("CREATE TABLE everywhere (id bigint)")
        for key in range(8):
            client.query(f"INSERT INTO t VALUES ({key}, 'x')")
        yield suite
        client.close()


def test_commands_that_work(sharded):
    for command in row("The admin database", "works"):
        sharded.admin(command)
    for command in row("The admin database", "new"):
        if command.startswith("SHOW"):
            assert sharded.admin(command)
        else:   # known, and refused only for what it is about
            with pytest.raises(psycopg.Error) as failure:
                sharded.admin(command + " nowhere" + (" 1" if "REMOVE" in command else ""))
            assert failure.value.sqlstate != "42601", str(failure.value)
    for command in ("RESHARD a b c", "SCHEMA_SYNC pre a b c", "SCHEMA_SYNC post a b c",
                    "COPY_DATA a b c", "REPLICATE a b c", "CUTOVER", "STOP_TASK 1"):
        with pytest.raises(psycopg.Error) as failure:
            sharded.admin(command)
        assert failure.value.sqlstate not in ("42601", "0A000"), str(failure.value)


def test_commands_that_are_not_there(sharded):
    missing = row("The admin database", "not there")
    assert len(missing) > 20
    for command in missing:
        with pytest.raises(psycopg.Error) as failure:
            sharded.admin(command)
        assert failure.value.sqlstate in ("0A000", "42601", "42704"), command


def test_hints_have_no_effect_on_results(sharded):
    client = sharded.raw(options="-c pgdog.shard=0")
    client.query("SET pgdog.shard TO 1")
    for shard in range(2):
        for key in range(8):
            assert client.query(f"/* pgdog_shard: {shard} */ SELECT id FROM t WHERE id = {key}") \
                == [[str(key)]]
    client.query("/* pgdog_shard: 0 */ INSERT INTO everywhere VALUES (1)")
    for number in range(2):
        assert sharded.server.run("SELECT count(*) FROM everywhere",
                                  database=f"pgdog_{number}") == [(1,)]
    for statement in ("SHOW pgdog.shards", "SELECT pgdog.unique_id()"):
        with pytest.raises(ServerError):
            client.query(statement)


@pytest.mark.parametrize("statement", [
    "SELECT * FROM t", "SELECT count(*) FROM t", "UPDATE t SET v = 'y'", "DELETE FROM t",
    "SELECT * FROM t ORDER BY id LIMIT 1",
    "INSERT INTO t VALUES (100, 'a'), (101, 'b'), (102, 'c')",
    "UPDATE t SET id = 50 WHERE id = 1", "LISTEN channel"])
def test_statements_that_are_refused(sharded, statement):
    with pytest.raises(ServerError) as failure:
        sharded.raw().query(statement)
    assert failure.value.fields["C"] == "0A000"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).resolve().exists(), target
