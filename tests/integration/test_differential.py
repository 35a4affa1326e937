"""Byte for byte what PostgreSQL would have said."""

import os
import random

import pytest

import corpus
from support.suite import Suite
from support.wire import SYNC, bind, error_codes, execute, parse, query


def hold(client, steps):
    """The conversation's answers, message by message."""
    said = []
    for sent, ready in steps:
        client.send(sent)
        said.append(client.receive_until_ready(ready) if ready else up_to_empty_query(client))
    return said


def up_to_empty_query(client):
    got = []
    while [tag for tag, _ in got[-3:]] != ["Z", "I", "Z"]:
        got.append(client.receive())
    return got


def compare(suite, server, steps, clients=None):
    direct, through = clients or (server.raw().login(), suite.raw())
    server.run("DELETE FROM corpus_rows")
    expected = hold(direct, steps)
    server.run("DELETE FROM corpus_rows")
    got = hold(through, steps)
    for number, (one, other) in enumerate(zip(expected, got)):
        assert without_pids(other) == without_pids(one), f"step {number}: {steps[number][0]!r}"
    if clients is None:
        direct.close()
        through.close()


def without_pids(messages):
    """NotificationResponse names the backend's pid: the only thing that may differ. Where in the
    answer an asynchronous message comes is up to the server."""
    plain = [(tag, b"pid" + body[4:] if tag == "A" else body) for tag, body in messages]
    return [m for m in plain if m[0] != "A"] + [m for m in plain if m[0] == "A"]


@pytest.fixture(scope="module")
def prepared(suite, server):
    server.run(corpus.SCHEMA)
    return suite


@pytest.mark.smoke
def test_startup_is_alike(prepared, server):
    direct, through = server.raw().login(), prepared.raw()
    assert through.parameters == direct.parameters
    direct, through = (client.login(application_name="me", client_encoding="LATIN1",
                                    DateStyle="SQL, DMY", TimeZone="Europe/Rome")
                       for client in (server.raw(), prepared.raw(login=False)))
    assert through.parameters == direct.parameters


@pytest.mark.smoke
@pytest.mark.seconds(60)
def test_simple_corpus(prepared, server):
    compare(prepared, server, [(query(sql), 1) for sql in corpus.SIMPLE])


@pytest.mark.smoke
@pytest.mark.parametrize("name", corpus.extended_conversations())
def test_extended(prepared, server, name):
    compare(prepared, server, corpus.extended_conversations()[name])


@pytest.mark.seconds(90)
def test_random_conversations(prepared, server):
    """Failures name the seed; PGSLED_SEED repeats one. The same seeds every time, so that a change
    can be judged; tests/soak/run adds new ones by PGSLED_NEW_SEEDS."""
    seeds = os.environ.get("PGSLED_SEED")
    new = int(os.environ.get("PGSLED_NEW_SEEDS", "0"))
    seeds = [int(seeds)] if seeds else list(range(150)) + [
        random.randrange(1 << 30) for _ in range(new)]
    clients = server.raw().login(), prepared.raw()
    for seed in seeds:
        try:
            compare(prepared, server, corpus.random_conversation(seed), clients)
        except BaseException as failure:
            raise AssertionError(f"PGSLED_SEED={seed}: {failure!r}") from failure


def test_the_unnamed_statement_of_somebody_else(server, dispatch):
    """On the only connection there is another client's, where the own one was skipped."""
    with Suite(server, general={"default_pool_size": 1}, pgsled={"dispatch": dispatch}) as suite:
        with suite.raw() as other, suite.raw() as client:
            other.send(parse("", "SELECT 'secret'"), bind(), execute(), SYNC)
            other.receive_until_ready()
            client.send(parse("bad", "SELEC"), parse("", "SELECT 1"), SYNC,
                        bind(), execute(), SYNC)
            assert error_codes(client.receive_until_ready(2)) == ["42601", "26000"]
            client.send(parse("bad", "SELEC"), bind(), SYNC, bind(), execute(), SYNC)
            assert error_codes(client.receive_until_ready(2)) == ["42601", "26000"]


@pytest.mark.seconds(60)
def test_corpus_while_connections_change(server, dispatch):
    """The same on a pool of two that others use too, so that every statement may meet another
    connection."""
    with Suite(server, general={"default_pool_size": 2}, pgsled={"dispatch": dispatch}) as busy:
        from support.probes import Probes
        server.run(corpus.SCHEMA)
        with Probes(busy, 4, pause=0.001) as probes:
            compare(busy, server, [(query(sql), 1) for sql in corpus.SIMPLE
                                   if "LISTEN" not in sql])
            for steps in corpus.extended_conversations().values():
                compare(busy, server, steps)
        assert probes.wrong() == [] and probes.errors() == []


def test_bytes_one_at_a_time(prepared, server):
    """Messages cut anywhere."""
    text = corpus.extended_conversations()["named"][0][0] + query("SELECT 'cut'")
    direct, through = server.raw().login(), prepared.raw()
    direct.send(text)
    for at in range(len(text)):
        through.send(text[at:at + 1])
    assert through.receive_until_ready(2) == direct.receive_until_ready(2)
