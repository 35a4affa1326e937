"""Which table a name without a schema means, compared with one PostgreSQL: tables of one name in
several schemas, and whatever a search_path may come from."""

import pytest

from support import wire
from support.raw_client import ServerError
from support.suite import eventually
from test_query_steps import (SHARDS, both, read, same,  # noqa: F401  pylint: disable=unused-import
                              suite)


@pytest.mark.parametrize("path", [
    "SET LOCAL search_path = other", "SET search_path = other", "SET LOCAL SCHEMA 'other'",
    "SELECT set_config('search_path', 'other', true)",
    "SELECT set_config('search_path', 'Other, public', true)"])
def test_a_path_that_a_transaction_sets_names_its_tables(both, path):
    """other.t has another key than public.t: by that one its rows would be looked for elsewhere."""
    for client in both:
        client.query("INSERT INTO other.t (v, id) VALUES (3, 42)")
        for words in ("BEGIN", path):
            client.query(words)
        assert client.query("SELECT id FROM t WHERE v = 3") == [["42"]]
        client.query("ROLLBACK")
        assert client.query("SELECT v FROM t WHERE id = 42") == [["0"]]
        for words in ("BEGIN", "SAVEPOINT a", path, "ROLLBACK TO a"):
            client.query(words)
        assert client.query("SELECT v FROM t WHERE id = 42") == [["0"]]
        for words in ("SET LOCAL search_path = other", "SET LOCAL search_path TO DEFAULT"):
            client.query(words)
        assert client.query("SELECT v FROM t WHERE id = 42") == [["0"]]
        client.query("ROLLBACK")
    through, _ = both
    for words in ("BEGIN", path):
        through.query(words)
    with pytest.raises(ServerError) as refused:
        through.query("SELECT v FROM t WHERE id = 42")
    assert refused.value.code == "0A000"
    through.query("ROLLBACK")


def test_a_path_that_is_not_known_asks_for_the_schema(both):
    """set_config() of a computed value, as some HTTP gateways send it in every transaction."""
    through, _ = both
    computed = "SELECT set_config('search_path', 'oth' || 'er, public', true)"
    # Bound to one shard first: what has computed a setting cannot be said again on another one.
    through.query("BEGIN")
    for words in (read(0), computed, "SELECT v FROM public.t WHERE id = 42"):
        through.query(words)
    assert through.query("SELECT n FROM countries WHERE code = 'it'") == [["1"]]
    with pytest.raises(ServerError) as refused:
        through.query("SELECT v FROM t WHERE id = 42")
    assert refused.value.code == "0A000" and "search_path" in str(refused.value)
    through.query("ROLLBACK")
    assert through.query("SELECT v FROM t WHERE id = 42") == [["0"]]
    for words in ("BEGIN", read(0), "SET LOCAL search_path = other", "RESET search_path"):
        through.query(words)
    assert through.query("SELECT v FROM t WHERE id = 42") == [["0"]]
    through.query("ROLLBACK")
    # For the session: bound to its connection, and the path as little known.
    through.query("SELECT set_config('search_path', 'oth' || 'er, public', false)")
    with pytest.raises(ServerError):
        through.query("SELECT v FROM t WHERE id = 42")
    through.query("DISCARD ALL")
    assert through.query("SELECT v FROM t WHERE id = 42") == [["0"]]


@pytest.mark.parametrize("role", ["SET ROLE other", "SET LOCAL ROLE other",
                                  "SET SESSION AUTHORIZATION other"])
def test_another_role_has_another_schema(both, server, role):
    """Its own comes first, if there is one of its name."""
    server.run("DROP ROLE IF EXISTS other", "CREATE ROLE other")
    for name in SHARDS + ["whole"]:
        server.run("GRANT ALL ON SCHEMA other TO other", "GRANT ALL ON ALL TABLES IN SCHEMA other, "
                   "public TO other", database=name)
    through, direct = both
    try:
        for client in both:
            client.query("INSERT INTO other.t (v, id) VALUES (3, 42)")
            for words in ("BEGIN", role):
                client.query(words)
        assert direct.query("SELECT id FROM t WHERE v = 3") == [["42"]]
        assert through.query("SELECT n FROM countries WHERE code = 'it'") == [["1"]]
        with pytest.raises(ServerError) as refused:
            through.query("SELECT id FROM t WHERE v = 3")
        assert refused.value.code == "0A000" and "search_path" in str(refused.value)
        for words in ("ROLLBACK", "BEGIN", role, "SET LOCAL search_path = public"):
            through.query(words)
        assert through.query("SELECT v FROM t WHERE id = 42") == [["0"]]
        through.query("ROLLBACK")
        assert through.query("SELECT v FROM t WHERE id = 42") == [["0"]]
    finally:
        direct.query("ROLLBACK")
        for name in SHARDS + ["whole"]:
            server.run("DROP OWNED BY other", database=name)
        server.run("DROP ROLE other")


def test_a_table_of_that_name_that_is_on_every_shard(both, suite, server):
    """It comes first in the path: a place by the key of the other one would be a wrong one."""
    for name in SHARDS + ["whole"]:
        server.run("CREATE SCHEMA IF NOT EXISTS plain",
                   "CREATE TABLE plain.t (id bigint, v int)",
                   "INSERT INTO plain.t VALUES (1, 1), (2, 2)", database=name)
    try:
        suite.reload()
        for client in both:
            client.query("SET search_path = plain, public")

            def all_of_it(client=client):
                try:
                    assert client.query("SELECT count(*) FROM t") == [["2"]]
                except ServerError as error:
                    raise AssertionError from error
            eventually(all_of_it, 10)
            for key in (1, 2, 42):
                assert client.query(f"SELECT v FROM t WHERE id = {key}") == (
                    [] if key == 42 else [[str(key)]])
            client.query("SET search_path = public, plain")
            assert client.query("SELECT v FROM t WHERE id = 42") == [["0"]]
            client.query("RESET search_path")
    finally:
        for name in SHARDS + ["whole"]:
            server.run("DROP SCHEMA plain CASCADE", database=name)
        suite.reload()


def test_a_list_set_by_set_config_is_one_on_every_shard(both, server):
    for client in both:
        for row in ("3, 42", "42, 3"):
            client.query(f"INSERT INTO other.t (v, id) VALUES ({row})")
        for words in ("BEGIN", "SELECT set_config('search_path', 'other, public', true)"):
            client.query(words)
        for key, found in (("3", "42"), ("42", "3")):   # of two shards
            assert client.query(f"SELECT id FROM t WHERE v = {key}") == [[found]]
            assert client.query("SHOW search_path") == [["other, public"]]
        client.query("COMMIT")
    same(server)


def test_the_path_that_a_role_begins_with(both, suite, server):
    """ALTER ROLE … SET search_path: what an unqualified name means is the server's to say."""
    def role_in(name, what):
        server.run(f"ALTER ROLE postgres IN DATABASE {name} {what} search_path")

    def begin_anew():
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('" +
                   "','".join(SHARDS) + "') AND backend_type = 'client backend'")
        suite.reload()

    def said(sql):
        """Rows or the error, of a client of its own."""
        with suite.raw(database="app") as client:
            try:
                return client.query(sql)
            except ServerError as error:
                return error.code, "search_path" in str(error)

    def says(sql, what):
        def check():
            assert said(sql) == what
        eventually(check, 10)
    server.run("INSERT INTO other.t (v, id) VALUES (3, 42)", database=SHARDS[1])
    try:
        for name in SHARDS:
            server.run(f"ALTER ROLE postgres IN DATABASE {name} SET search_path = other, public")
        begin_anew()
        says("SELECT id FROM t WHERE v = 3", [["42"]])
        assert said("SELECT v FROM t WHERE id = 42") == ("0A000", False)
        # Not the same on every shard: no plan can go by it.
        role_in(SHARDS[2], "RESET")
        begin_anew()
        says("SELECT id FROM t WHERE v = 3", ("0A000", True))
        assert said("SELECT id FROM other.t WHERE v = 3") == [["42"]]
    finally:
        for name in SHARDS:
            role_in(name, "RESET")
        begin_anew()
        says("SELECT v FROM t WHERE id = 42", [["0"]])


@pytest.mark.parametrize("before, change, after", [
    (["SET search_path = other"], "SET search_path = public", []),
    (["SET search_path = other"], "RESET search_path", []),
    (["SET search_path = other"], "RESET ALL", []),
    (["SET search_path = other"], "DISCARD ALL", []),
    (["SET search_path = other"], "SELECT set_config('search_path', 'public', false)", []),
    (["SET search_path = other", "BEGIN"], "SET LOCAL search_path = public", ["COMMIT"]),
    (["BEGIN", "SET LOCAL search_path = other", "INSERT INTO t (v, id) VALUES (42, 1)"],
     "COMMIT", []),
    (["BEGIN", "SAVEPOINT a", "SET LOCAL search_path = other",
      "INSERT INTO t (v, id) VALUES (42, 1)"], "ROLLBACK TO a", ["ROLLBACK"])])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_a_change_that_is_not_answered_yet(both, before, change, after, extended):
    """What is sent behind it without waiting means what it means behind it."""
    text = "SELECT count(*) FROM t WHERE id = 42"
    messages = ([wire.parse("", change), wire.bind(), wire.execute(), wire.SYNC,
                 wire.parse("", text), wire.bind(), wire.execute(), wire.SYNC]
                if extended else [wire.query(change), wire.query(text)])
    got = []
    for client in both:
        for words in before:
            client.query(words)
        client.send(*messages)
        got.append([(kind, body) for kind, body in client.receive_until_ready(2)
                    if kind in "CDEZ"])
        for words in after:
            client.query(words)
    assert got[0] == got[1]


def test_literals_behind_a_change_that_is_not_answered_yet(both, server):
    """A backslash is not what it was, and the planner's parser does not know: it is refused."""
    through, _ = both
    through.send(wire.query("SET standard_conforming_strings = off"),
                 wire.query("INSERT INTO t (id, v) VALUES ('\\6', 1)"))
    answers = through.receive_until_ready(2)
    assert wire.error_codes(answers) == ["0A000"]
    same(server)


def test_a_change_in_the_middle_of_a_batch_is_refused(both):
    through, _ = both
    through.query("SET search_path = other")
    through.send(wire.parse("", "SET search_path = public"), wire.bind(), wire.execute(),
                 wire.parse("", "SELECT count(*) FROM t WHERE id = 42"), wire.bind(),
                 wire.execute(), wire.SYNC)
    answers = through.receive_until_ready()
    assert wire.error_codes(answers) == ["0A000"]
