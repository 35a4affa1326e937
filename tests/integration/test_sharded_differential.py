"""Random conversations with a sharded database: what one PostgreSQL would have said, or refused."""

import contextlib
import os
import random

import pytest

import sharded_corpus as corpus
from support import wire
from support.raw_client import RawClient
from support.suite import Suite, eventually, has_decisions

SHARDS = ["talks_0", "talks_1", "talks_2"]


@contextlib.contextmanager
def running(server, **pgsled):
    for name in SHARDS + ["whole"]:
        server.make_database(name)
        server.run(corpus.SCHEMA, database=name)
    with Suite(server, databases=[{"name": "app", "shard": number, "database_name": name}
                                  for number, name in enumerate(SHARDS)],
               users=[{"name": "postgres", "database": "app"}],
               sharded_tables=[{"database": "app", "name": name, "column": "id",
                                "data_type": "bigint"} for name in ("t", "orders")],
               pgsled=pgsled) as suite:
        eventually(has_decisions(server, SHARDS), 15)
        yield suite


@pytest.fixture(scope="module")
def suite(server, dispatch):
    with running(server, dispatch=dispatch) as started:
        yield started


class Databases:
    """Connections of our own to the shards and to the single server."""

    def __init__(self, server):
        self.clients = {name: server_client(server, name) for name in SHARDS + ["whole"]}

    def fresh(self):
        for name, client in self.clients.items():
            client.query("DROP TABLE IF EXISTS made; TRUNCATE t, orders, countries")
            for number, key in enumerate([42, 3, 100]):
                if name in (SHARDS[number], "whole"):
                    client.query(f"INSERT INTO t VALUES ({key}, 0, {key})")
            client.query("INSERT INTO countries VALUES ('it', 1)")

    def rows(self):
        """Those of all shards, and those of the single server."""
        found = []
        for names in (SHARDS, ["whole"]):
            rows = []
            for name in names:
                for table in ("t", "orders"):
                    rows += [[table] + row for row in self.clients[name].query(f"TABLE {table}")]
            found.append(sorted(map(str, rows)))
        every = [sorted(client.query("TABLE countries")) for client in self.clients.values()]
        return found[0] + every[0] + every[1] + every[2], found[1] + every[3] * 3


def server_client(server, database):
    client = RawClient(server.port)
    client.login("postgres", "postgres", database)
    return client


def seen(message, got):
    """What a user can tell apart of an answer."""
    rows, rest = [], []
    for kind, body in got:
        if kind == "N":
            continue   # before which of a batch's replies it comes is up to the server
        if kind in "Dd":
            rows.append((kind, body))
        elif kind == "T":
            rest.append((kind, wire.columns(body)))
        elif kind == "E":
            fields = wire.error_fields(body)
            rest.append((kind, fields["S"], fields["C"], fields["M"], fields.get("D")))
        else:
            rest.append((kind, body))
    if any(kind == "E" for kind, _ in got):
        rows = []   # how many came before the error is chance
    return repr(message), (rows if "ORDER BY" in message.text else sorted(rows)), rest


# What is not there, or is there already, what cannot be read, or is of another kind, and that a
# transaction has failed: where two of them are true either is said.
ALIKE = {"34000", "55000", "26000", "25P01", "25P02", "42P05", "42601", "42P01", "42703", "08P01"}


class Unlike(Exception):
    """A batch has failed sooner than there, and others have followed at once: what they find of
    its statements is not the same."""


def fails_later(expected, code):
    """Whether a batch that the suite has refused as a whole fails there, too, for the same reason,
    where PostgreSQL comes to it."""
    for message, answer in expected:
        codes = wire.error_codes(answer)
        if codes:
            return codes == [code] or {code, *codes} <= ALIKE
        if message.kind == "S" or message.data[:1] == b"Q":
            return False
    return False


def notices(said):
    return [wire.error_fields(body)["C"] for _, answer in said for kind, body in answer
            if kind == "N"]


def compare(got, expected):
    """Of a step, how often the suite refused, and whether a batch failed sooner than there."""
    refusals, failed, sooner, unlike = 0, False, False, False
    for number, ((one, answer), (other, wanted)) in enumerate(zip(got, expected)):
        codes = wire.error_codes(answer)
        if corpus.refused(one, answer):
            refusals += "0A000" in codes
            assert wire.error_codes(wanted) and answer[-1][0] == wanted[-1][0], one
            assert answer[-1][0] == "E" or answer[-1] == wanted[-1], one
        elif codes and answer[-1][0] == "E" and fails_later(expected[number:], codes[0]):
            failed = sooner = True
            if any(other.kind == "S" for other, _ in got[number:-1]):
                raise Unlike
        elif one.kind == "S" or not failed:
            assert seen(one, answer) == seen(one, wanted), one
            failed = False
        else:
            assert not answer, one
        unlike = unlike or corpus.refused(one, answer)
    assert unlike or notices(got) == notices(expected)
    return refusals, sooner


def hold(suite, server, databases, steps):
    """How often the suite refused."""
    databases.fresh()
    through, direct = suite.raw(database="app"), server_client(server, "whole")
    refusals = 0
    try:
        for step in steps + corpus.END:
            through.send(*(one.data for one in step))
            got = corpus.answers(step, through.receive)
            likewise = corpus.as_refused(got)
            direct.send(*(one.data for one in likewise))
            expected = corpus.answers(likewise, direct.receive)
            refused, sooner = compare(got, expected)
            refusals += refused
            if sooner:
                forget = b"".join(wire.close("S", name) for name in ("", "a", "b")) + wire.SYNC
                for client in (through, direct):
                    client.send(forget)
                    client.receive_until_ready()
        found, wanted = databases.rows()
        assert found == wanted
    except Unlike:
        pass
    finally:
        through.close()
        direct.close()
    return refusals


@pytest.mark.parametrize("name", corpus.FIXED)
def test_conversations(suite, server, name):
    refusals = hold(suite, server, Databases(server), corpus.FIXED[name])
    assert refusals == (1 if "refused" in name else 0)


@pytest.mark.seconds(120)
def test_random_conversations(suite, server):
    """Failures name the seed; PGSLED_SEED repeats one, PGSLED_NEW_SEEDS adds new ones."""
    seeds = os.environ.get("PGSLED_SEED")
    new = int(os.environ.get("PGSLED_NEW_SEEDS", "0"))
    seeds = [int(seeds)] if seeds else list(range(100)) + [
        random.randrange(1 << 30) for _ in range(new)]
    databases = Databases(server)
    for seed in seeds:
        try:
            hold(suite, server, databases, corpus.conversation(seed))
        except BaseException as failure:
            raise AssertionError(f"PGSLED_SEED={seed}: {failure!r}") from failure
