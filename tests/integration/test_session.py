"""What belongs to a session stays with it although server connections are shared: two clients on a
pool of one, so that each statement of one may follow one of the other on the same connection."""

import time

import psycopg
import pytest

from support import wire
from support.machine import wait_until
from support.raw_client import ServerError
from support.suite import Suite
from support.wire import query


@pytest.fixture(scope="module")
def one(server, dispatch):
    with Suite(server, general={"default_pool_size": 1, "checkout_timeout": 2000},
               pgsled={"dispatch": dispatch}) as running:
        yield running


@pytest.fixture
def two(one):
    first, second = one.raw(), one.raw()
    yield first, second
    first.close()
    second.close()


def shown(client, name):
    return client.query(f"SHOW {name}")[0][0]


def both_protocols(client, sql, extended):
    return client.prepared(sql) if extended else client.query(sql)


@pytest.mark.smoke
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_set_is_private(two, extended):
    first, second = two
    both_protocols(first, "SET work_mem = '7MB'", extended)
    both_protocols(first, "SET search_path = pg_catalog, public", extended)
    assert shown(second, "work_mem") == "4MB"
    both_protocols(second, "SET work_mem TO '9MB'", extended)
    for _ in range(3):
        assert shown(first, "work_mem") == "7MB"
        assert shown(first, "search_path") == "pg_catalog, public"
        assert shown(second, "work_mem") == "9MB"
        assert shown(second, "search_path") == '"$user", public'
    both_protocols(first, "RESET work_mem", extended)
    assert shown(first, "work_mem") == "4MB"
    assert shown(second, "work_mem") == "9MB"
    both_protocols(second, "RESET ALL", extended)
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "search_path") == "pg_catalog, public"


def test_set_rolls_back(two):
    first, second = two
    first.query("SET work_mem = '5MB'")
    first.query("BEGIN; SET work_mem = '6MB'")
    assert shown(first, "work_mem") == "6MB"
    first.query("ROLLBACK")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "5MB"
    first.query("BEGIN; SET work_mem = '8MB'; COMMIT")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "8MB"


def test_set_and_savepoints(two):
    first, second = two
    for sql in ("BEGIN", "SET work_mem = '5MB'", "SAVEPOINT a", "SET work_mem = '6MB'",
                "SAVEPOINT b", "SET work_mem = '7MB'", "ROLLBACK TO b"):
        first.query(sql)
    assert shown(first, "work_mem") == "6MB"
    first.query("ROLLBACK TO a")
    assert shown(first, "work_mem") == "5MB"
    first.query("SET work_mem = '8MB'")
    first.query("RELEASE a")
    first.query("COMMIT")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "8MB"


def test_set_local(two):
    first, second = two
    first.query("SET work_mem = '5MB'")
    first.query("BEGIN")
    first.query("SET LOCAL work_mem = '6MB'")
    assert shown(first, "work_mem") == "6MB"
    first.query("COMMIT")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "5MB"


def test_set_fails(two):
    first, second = two
    first.query("SET work_mem = '5MB'")
    with pytest.raises(ServerError) as failure:
        first.query("SET work_mem = 'many'")
    assert failure.value.code == "22023"
    with pytest.raises(ServerError):
        first.query("SET work_mem = '6MB'; SELECT 1/0")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "5MB"


def test_startup_parameters(one):
    plain = one.raw()
    special = one.raw(application_name="special", TimeZone="Asia/Tokyo", DateStyle="German",
                      options="-c work_mem=11MB --enable_seqscan=off")
    assert special.parameters["TimeZone"] == "Asia/Tokyo"
    assert special.parameters["application_name"] == "special"
    for _ in range(2):
        assert shown(special, "application_name") == "special"
        assert shown(special, "work_mem") == "11MB"
        assert shown(special, "enable_seqscan") == "off"
        assert special.query("SELECT '2024-02-01'::date")[0][0] == "01.02.2024"
        assert shown(plain, "TimeZone") == "UTC"
        assert shown(plain, "work_mem") == "4MB"
        assert plain.query("SELECT '2024-02-01'::date")[0][0] == "2024-02-01"
    special.query("SET work_mem = '12MB'; RESET work_mem")
    assert shown(special, "work_mem") == "11MB"
    special.query("DISCARD ALL")
    assert shown(special, "TimeZone") == "Asia/Tokyo"
    special.close()
    plain.close()


def same_as_direct(one, server, units):
    """Messages of both, the values of parameters that are reported last, and those that hold."""
    def told(client):
        answers, parameters = [], dict(client.parameters)
        for unit in units:
            client.send(*unit)
            ready = sum(message[:1] in b"QS" for message in unit)
            for tag, body in client.receive_until_ready(ready):
                if tag == "S":
                    name, value = body.decode().split("\0")[:2]
                    parameters[name] = value
                elif tag != "N":
                    answers.append((tag, wire.error_fields(body)["C"] if tag == "E" else body))
        answers.append([client.query(f"SHOW {name}") for name in
                        ("timezone", "search_path", "work_mem", "datestyle")])
        answers.append([parameters[name] for name in ("TimeZone", "DateStyle")])
        client.close()
        return answers
    options = {"TimeZone": "Asia/Tokyo", "DateStyle": "German",
               "options": "-c search_path=pg_catalog,other -c work_mem=11MB"}
    direct = server.raw()
    direct.login(**options)
    wanted, got = told(direct), told(one.raw(**options))
    assert got == wanted


@pytest.mark.parametrize("reset", [
    "RESET timezone", "RESET search_path", "RESET work_mem", "RESET datestyle", "RESET ALL",
    "SET timezone TO DEFAULT", "SET LOCAL timezone TO Default", "SET TIME ZONE DEFAULT",
    "SET LOCAL TIME ZONE LOCAL"])
def test_reset_in_a_transaction_goes_back_to_the_start_of_the_session(one, server, reset):
    begin = [query("BEGIN")], [query("SET timezone TO 'Europe/Paris'; SET work_mem = '5MB'; "
                                     "SET LOCAL search_path = public; SET datestyle = 'ISO'")]
    now = [query("SELECT '2024-02-01 00:00 UTC'::timestamptz, current_schemas(true)::text")]
    extended = [wire.parse("", reset), wire.bind(), wire.describe("P"), wire.execute()]
    for unit in ([query(reset)],
                  [query(f"SELECT 1; {reset} -- now\n ; SHOW timezone; SHOW work_mem")],
                  [*extended, wire.SYNC],
                  [*extended, wire.parse("", "SHOW timezone"), wire.bind(), wire.execute(),
                   wire.SYNC]):
        for end in ("COMMIT", "ROLLBACK"):
            same_as_direct(one, server, [*begin, unit, now, [query(end)], now])
        same_as_direct(one, server, [begin[1], unit, now])
        failed = [*begin, [query("SELECT 1/0")], unit, [query("ROLLBACK")], now]
        same_as_direct(one, server, failed)


@pytest.fixture(scope="module")
def whole_sessions(server):
    with Suite(server, general={"default_pool_size": 2, "pooler_mode": "session"}) as running:
        yield running


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("reset", ["RESET timezone", "RESET ALL", "DISCARD ALL"])
@pytest.mark.parametrize("kept", [False, True], ids=["transactions", "sessions"])
def test_the_start_of_the_session_outside_of_transactions(request, one, server, reset, extended,
                                                          kept):
    """Also for what does not wait for the answer, and where the connection stays the same."""
    suite = request.getfixturevalue("whole_sessions") if kept else one
    unit = ([wire.parse("", reset), wire.bind(), wire.describe("P"), wire.execute(), wire.SYNC]
            if extended else [query(reset)])
    now = query("SELECT '2024-02-01 00:00 UTC'::timestamptz, current_schemas(true)::text")
    same_as_direct(suite, server, [[query("SET timezone TO 'Europe/Paris'")], unit, [now]])
    same_as_direct(suite, server, [[query("SET timezone TO 'Europe/Paris'")], [*unit, now]])


def test_bad_startup_parameter(one):
    with pytest.raises(ServerError) as failure:
        one.raw(no_such_setting="1").query("SELECT 1")
    assert failure.value.code == "42704"


def test_client_encoding(two):
    first, second = two
    first.query("SET client_encoding = 'LATIN1'")
    assert second.query("SELECT 'ä'") == [["ä"]]
    first.send(query(b"SELECT '\xe4'"))
    messages = first.receive_until_ready()
    assert b"\xe4" in [body for tag, body in messages if tag == "D"][0]
    assert second.query("SELECT 'ä'") == [["ä"]]


def test_what_is_set_beyond_ascii_is_said_in_each_encoding(two):
    """One connection, two sessions; each reads what it has set."""
    first, second = two
    first.query("SET client_encoding = 'LATIN1'")
    first.send(query(b"SET app.tenant = '\xe4'"))
    first.receive_until_ready()
    second.query("SET app.tenant = 'ö'")
    for _ in range(3):
        assert second.query("SELECT current_setting('app.tenant')") == [["ö"]]
        first.send(query(b"SELECT current_setting('app.tenant')"))
        rows = [body for tag, body in first.receive_until_ready() if tag == "D"]
        assert [wire.data_row(row) for row in rows] == [[b"\xe4"]]


@pytest.mark.smoke
def test_prepared_names_are_private(two):
    first, second = two
    assert first.prepared("SELECT 'first', $1::int", [1], name="s") == [["first", "1"]]
    assert second.prepared("SELECT 'second', $1::text", ["x"], name="s") == [["second", "x"]]
    for _ in range(3):
        for client, word, value in ((first, "first", "2"), (second, "second", "y")):
            client.send(wire.bind("", "s", [value]), wire.execute(), wire.SYNC)
            assert client.rows(client.receive_until_ready()) == [[word, value]]
    first.send(wire.close("S", "s"), wire.SYNC)
    first.receive_until_ready()
    first.send(wire.bind("", "s", ["1"]), wire.SYNC)
    with pytest.raises(ServerError) as failure:
        first.rows(first.receive_until_ready())
    assert failure.value.code == "26000"
    assert '"s" does not exist' in failure.value.fields["M"]
    second.send(wire.bind("", "s", ["z"]), wire.execute(), wire.SYNC)
    assert second.rows(second.receive_until_ready()) == [["second", "z"]]
    with pytest.raises(ServerError) as failure:
        second.prepared("SELECT 1", name="s")
    assert failure.value.code == "42P05"


def test_prepared_is_skipped_in_one_batch_only(two):
    """The connection does not have the statement yet: pgsled prepares it behind an error, where the
    server skips it. The client has prepared it long ago and may run it in its next batch."""
    first, second = two
    assert first.prepared("SELECT 1 / $1::int", [1], name="fails") == [["1"]]
    assert first.prepared("SELECT $1::int + 2", [1], name="skipped") == [["3"]]
    second.query("DEALLOCATE ALL")
    first.send(wire.bind("", "fails", [0]), wire.execute(),
               wire.bind("", "skipped", [1]), wire.execute(), wire.SYNC,
               wire.bind("", "skipped", [5]), wire.execute(), wire.SYNC)
    got = first.receive_until_ready(2)
    assert "".join(tag for tag, _ in got) in ("EZ2DCZ", "2EZ2DCZ"), got
    assert wire.data_row(next(body for tag, body in got if tag == "D")) == [b"7"]


def test_prepared_survives_schema_change(two, server):
    server.run("DROP TABLE IF EXISTS changing; CREATE TABLE changing (a int); "
               "INSERT INTO changing VALUES (1)")
    first, second = two
    assert first.prepared("SELECT a + 1 FROM changing", name="c") == [["2"]]
    server.run("ALTER TABLE changing ADD COLUMN b int")
    second.query("SELECT 1")
    first.send(wire.bind("", "c"), wire.execute(), wire.SYNC)
    assert first.rows(first.receive_until_ready()) == [["2"]]


@pytest.mark.parametrize("early", [False, True], ids=["sync inside", "sync before"])
def test_a_copy_is_not_over_before_its_sync(two, server, early):
    """A Sync that is read inside a COPY ends nothing: although all is answered the transaction is
    open, and nobody else may be let into it."""
    server.run("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a text)")
    first, second = two
    first.send(wire.parse("", "COPY copied FROM STDIN") + wire.bind() + wire.execute() +
               (wire.SYNC if early else wire.FLUSH))
    while first.receive()[0] != "G":
        pass
    first.send((b"" if early else wire.SYNC) + wire.copy_data(b"a\nb\n") + wire.COPY_DONE +
               wire.FLUSH)
    assert first.receive() == ("C", b"COPY 2\0")
    second.send(query("SELECT 1/0"))
    assert not second.receive_quiet(0.2)
    first.send(wire.SYNC)
    assert first.receive() == ("Z", b"I")
    assert wire.error_codes(second.receive_until_ready()) == ["22012"]
    assert second.query("SELECT count(*) FROM copied") == [["2"]]


MOST = 5


@pytest.fixture(scope="module")
def narrow_memory(server, dispatch):
    """One connection that keeps five prepared statements."""
    with Suite(server, general={"default_pool_size": 1, "checkout_timeout": 2000},
               pgsled={"dispatch": dispatch, "prepared_statements_per_connection": MOST}) as suite:
        yield suite


@pytest.fixture
def forgetful(narrow_memory):
    clients = [narrow_memory.raw() for _ in range(2)]
    yield clients
    for client in clients:
        client.close()


def text_of(number, word=""):
    return f"SELECT {number} * 10 + $1::int, '{word}'"


def prepared_there(client):
    count = int(client.query("SELECT count(*) FROM pg_prepared_statements")[0][0])
    assert 0 < count <= MOST
    return count


def run_named(client, name, value):
    client.send(wire.bind("", name, [value]), wire.execute(), wire.SYNC)
    return client.rows(client.receive_until_ready())


@pytest.mark.smoke
def test_prepared_statements_per_connection(forgetful):
    """Clients use more than a connection keeps: each gets its own answers all the same."""
    for number in range(12):
        for word, client in zip("ab", forgetful):
            assert client.prepared(text_of(number, word), [1], name=f"s{number}") == [
                [str(number * 10 + 1), word]]
            prepared_there(client)
    for turn in range(3):
        for number in (0, 11, 5, 5, 7, 1, 2, 3, 4, 6, 8, 9, 10):
            for word, client in zip("ab", forgetful):
                assert run_named(client, f"s{number}", turn) == [[str(number * 10 + turn), word]]
                prepared_there(client)
    # Describe needs the statement as Bind does; a name that is taken stays taken.
    for number in range(12):
        forgetful[0].send(wire.describe("S", f"s{number}"), wire.SYNC)
        assert "".join(tag for tag, _ in forgetful[0].receive_until_ready()) == "tTZ"
        with pytest.raises(ServerError) as failure:
            forgetful[0].prepared("SELECT 1", name=f"s{number}")
        assert failure.value.code == "42P05"
    prepared_there(forgetful[0])


def test_the_statements_in_use_are_kept(forgetful):
    """Those unused for longest go, whoever prepared them: one that is used all the time stays."""
    client = forgetful[0]
    client.prepared(text_of(99, "kept"), [0], name="kept")
    def birth():
        return client.query("SELECT prepare_time FROM pg_prepared_statements"
                            " WHERE statement LIKE '%''kept''%'")
    born = birth()
    assert len(born) == 1
    for number in range(20):
        assert client.prepared(text_of(number, "other"), [0], name=f"other{number}")
        assert run_named(client, "kept", number) == [[str(990 + number), "kept"]]
    assert birth() == born


def pipeline(client, numbers, word, broken=()):
    """Prepares, runs and forgets nothing; one Sync at the end."""
    for number in numbers:
        value = "none" if number in broken else 1
        client.send(wire.parse(f"{word}{number}", text_of(number, word)),
                    wire.bind("", f"{word}{number}", [value]), wire.execute())
    client.send(wire.SYNC)


def test_pipelines_of_more_statements_than_are_kept(forgetful):
    first, second = forgetful
    for word, client in (("p", first), ("q", second)):
        pipeline(client, range(12), word)
        assert client.rows(client.receive_until_ready()) == [
            [str(number * 10 + 1), word] for number in range(12)]
        prepared_there(client)
    # All of it in one batch of statements that are known, twice each, with several Syncs.
    for _ in range(2):
        for number in range(12):
            first.send(wire.bind("", f"p{number}", [2]), wire.execute())
            first.send(wire.SYNC if number % 5 == 4 else b"")
        first.send(wire.SYNC)
        assert first.rows(first.receive_until_ready(3)) == [
            [str(number * 10 + 2), "p"] for number in range(12)]
        prepared_there(second)


def test_errors_while_statements_are_closed(forgetful):
    """What the server skips after an error must not be taken for done: neither Parse nor Close."""
    first, second = forgetful
    pipeline(first, range(12), "e", broken=(8,))
    with pytest.raises(ServerError) as failure:
        first.rows(first.receive_until_ready())
    assert failure.value.code == "22P02"
    for number in range(8):
        assert run_named(first, f"e{number}", 3) == [[str(number * 10 + 3), "e"]]
    for number in range(9, 12):
        with pytest.raises(ServerError) as failure:
            run_named(first, f"e{number}", 3)
        assert failure.value.code == "26000", "its Parse was skipped"
    prepared_there(second)
    first.query("BEGIN")
    for turn in range(4):
        first.query("SAVEPOINT here")
        pipeline(first, range(20 + turn * 10, 29 + turn * 10), "f", broken=(25 + turn * 10,))
        with pytest.raises(ServerError):
            first.rows(first.receive_until_ready())
        first.query("ROLLBACK TO here")
        for number in (0, 3, 7, 1, 6, 2):
            assert run_named(first, f"e{number}", turn) == [[str(number * 10 + turn), "e"]]
        for number in range(20 + turn * 10, 25 + turn * 10):
            assert run_named(first, f"f{number}", turn) == [[str(number * 10 + turn), "f"]]
        prepared_there(first)
    first.query("COMMIT")
    prepared_there(second)


def test_a_name_twice_in_one_batch(forgetful):
    """Both are answered by pgsled at first: the second must still be refused."""
    first, second = forgetful
    second.prepared(text_of(70), [1], name="there")
    second.prepared(text_of(71), [1], name="there too")
    first.query("BEGIN")
    first.send(wire.parse("twice", text_of(70)), wire.parse("twice", text_of(71)), wire.SYNC)
    with pytest.raises(ServerError) as failure:
        first.rows(first.receive_until_ready())
    assert failure.value.code == "42P05"
    first.query("ROLLBACK")


def test_prepared_under_other_settings_is_nobody_elses(two, server):
    """What is prepared again on another connection is read by the settings of that moment: those who
    have prepared the same text under others must not find it."""
    first, second = two
    text = "SELECT '01/02/2024'::date::text"
    run = (wire.bind("", "day"), wire.execute(), wire.SYNC)
    first.query("SET DateStyle = 'ISO, DMY'")
    assert first.prepared(text, name="day") == [["2024-02-01"]]
    first.query("SET DateStyle = 'ISO, MDY'")
    pid = first.query("SELECT pg_backend_pid()")[0][0]
    server.run(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: server.run(f"SELECT pid FROM pg_stat_activity WHERE pid = {pid}") == [], 10)
    time.sleep(0.3)   # until the idle connection's end has been read
    first.send(*run)
    first.rows(first.receive_until_ready())
    second.query("SET DateStyle = 'ISO, DMY'")
    assert second.prepared(text, name="day") == [["2024-02-01"]]
    first.query("SET DateStyle = 'ISO, DMY'")
    first.send(*run)
    assert first.rows(first.receive_until_ready()) == [["2024-02-01"]]


@pytest.fixture(scope="module")
def several(server, dispatch):
    with Suite(server, general={"default_pool_size": 3, "checkout_timeout": 3000},
               pgsled={"dispatch": dispatch}) as running:
        yield running


@pytest.fixture
def pair(several):
    """Two clients of which one or both may keep a connection: what cannot be shadowed does."""
    first, second = several.raw(), several.raw()
    yield first, second
    first.close()
    second.close()


def test_set_config(pair):
    first, second = pair
    first.query("SELECT set_config('work_mem', '5MB', false)")
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "5MB"
    first.prepared("SELECT set_config($1, $2, false)", ["work_mem", "6MB"])
    assert shown(second, "work_mem") == "4MB"
    assert shown(first, "work_mem") == "6MB"


WAYS_TO_SET = [
    ("SELECT set_config('app.tenant', $1, false)", ["it's"], (), ["it's"]),
    ("SELECT pg_catalog.set_config($2, $1::text, false) AS x", ["a\\b", "app.tenant"], (), ["a\\b"]),
    ("SELECT set_config('app.tenant', $1::text, $2)", ["7", "f"], (23, 16), ["7"]),
    ("SELECT set_config('app.tenant', $1, false), set_config('app.who', $2, false)", ["", "ü"], (),
     ["", "ü"])]


@pytest.mark.parametrize("sql, values, types, expected", WAYS_TO_SET)
def test_set_config_of_parameters_keeps_no_connection(two, sql, values, types, expected):
    """Two clients of one connection: neither waits for the other, each has its own."""
    first, second = two
    first.prepared(sql, values, types=types)
    second.query("SET app.tenant = 'of the second'")
    names = ["app.tenant", "app.who"][:len(expected)]
    for _ in range(2):
        assert [shown(first, name) for name in names] == expected
        assert shown(second, "app.tenant") == "of the second"
        assert second.query("SELECT current_setting('app.who', true)") in ([[None]], [[""]])
    # Undone with its transaction.
    first.query("BEGIN")
    first.prepared("SELECT set_config('app.tenant', $1, false)", ["other"])
    assert shown(first, "app.tenant") == "other"
    first.query("ROLLBACK")
    assert shown(first, "app.tenant") == expected[0]
    assert shown(second, "app.tenant") == "of the second"


def test_session_characteristics_and_role(pair, server):
    server.run("DROP ROLE IF EXISTS somebody; CREATE ROLE somebody")
    first, second = pair
    first.query("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    first.query("SET ROLE somebody")
    first.query("SET TIME ZONE 'Europe/Rome'")
    assert second.query("SELECT current_user")[0][0] == "postgres"
    assert shown(second, "transaction_isolation") == "read committed"
    assert shown(second, "TimeZone") == "UTC"
    assert first.query("SELECT current_user")[0][0] == "somebody"
    assert shown(first, "transaction_isolation") == "serializable"
    assert shown(first, "TimeZone") == "Europe/Rome"
    first.query("RESET ROLE")
    assert first.query("SELECT current_user")[0][0] == "postgres"


def test_sql_prepare(pair):
    """PREPARE … EXECUTE by SQL belongs to the session as well."""
    first, second = pair
    first.query("PREPARE p(int) AS SELECT 'first', $1")
    second.query("PREPARE p(int) AS SELECT 'second', $1")
    assert first.query("EXECUTE p(1)") == [["first", "1"]]
    assert second.query("EXECUTE p(2)") == [["second", "2"]]
    first.query("DEALLOCATE p")
    with pytest.raises(ServerError) as failure:
        first.query("EXECUTE p(1)")
    assert failure.value.code == "26000"


def backend(client):
    return client.query("SELECT pg_backend_pid()")[0][0]


def busy(suite, count):
    """Clients that use connections in turn, so that a session without a pin would change its."""
    clients = [suite.raw() for _ in range(count)]

    def turn():
        for client in clients:
            client.query("BEGIN")
        for client in clients:
            client.query("COMMIT")
    return turn


def test_temporary_table_stays(several):
    client, turn = several.raw(), busy(several, 2)
    client.query("CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (7)")
    mine = backend(client)
    for _ in range(3):
        turn()
        assert client.query("SELECT a FROM mine") == [["7"]]
        assert backend(client) == mine
    other = several.raw()
    with pytest.raises(ServerError):
        other.query("SELECT a FROM mine")
    client.query("DISCARD ALL")
    with pytest.raises(ServerError) as failure:
        client.query("SELECT a FROM mine")
    assert failure.value.code == "42P01"
    client.close()
    several.check_no_leaks(size=3)


def test_advisory_lock_stays(several):
    client, turn = several.raw(), busy(several, 2)
    assert client.query("SELECT pg_try_advisory_lock(99)") == [["t"]]
    for _ in range(3):
        turn()
        other = several.raw()
        assert other.query("SELECT pg_try_advisory_lock(99)") == [["f"]]
        other.close()
    assert client.query("SELECT pg_advisory_unlock(99)") == [["t"]]
    client.query("SELECT pg_advisory_lock(98)")
    client.close()
    deadline = time.monotonic() + 3
    other = several.raw()
    while other.query("SELECT pg_try_advisory_lock(98)") != [["t"]]:
        assert time.monotonic() < deadline, "the lock of a client that went is still held"
        time.sleep(0.05)
    other.query("SELECT pg_advisory_unlock_all()")
    other.close()
    several.check_no_leaks(size=3)


def test_listen_gets_its_notifications(several):
    listener, turn = several.raw(), busy(several, 2)
    listener.query("LISTEN news")
    turn()
    other = several.raw()
    other.query("NOTIFY news, 'hello'")
    arrived = [body for tag, body in listener.receive_quiet(1.0) if tag == "A"]
    assert len(arrived) == 1 and b"news\0hello\0" in arrived[0]
    assert not [tag for tag, _ in other.receive_quiet(0.2) if tag == "A"]
    listener.query("UNLISTEN *")
    listener.close()
    other.close()
    several.check_no_leaks(size=3)


def test_held_cursor_stays(several):
    client, turn = several.raw(), busy(several, 2)
    client.query("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 9)")
    client.query("COMMIT")
    turn()
    assert client.query("FETCH 2 FROM held") == [["1"], ["2"]]
    turn()
    assert client.query("FETCH 2 FROM held") == [["3"], ["4"]]
    client.query("CLOSE held")
    client.close()
    several.check_no_leaks(size=3)


def test_transactions_keep_their_connection(several):
    clients = [several.raw() for _ in range(3)]
    for client in clients:
        client.query("BEGIN")
    pids = [backend(client) for client in clients]
    assert len(set(pids)) == 3
    for _ in range(3):
        assert [backend(client) for client in clients] == pids
    waiting = several.raw()
    with pytest.raises(ServerError):
        waiting.query("SELECT 1")
    for client in clients:
        client.query("COMMIT")
        client.close()


def test_failed_transaction_is_reported_alike(several):
    client = several.raw()
    client.query("BEGIN")
    with pytest.raises(ServerError):
        client.query("SELECT 1/0")
    assert client.status == "E"
    with pytest.raises(ServerError) as failure:
        client.query("SELECT 1")
    assert failure.value.code == "25P02"
    client.query("ROLLBACK")
    assert client.status == "I"
    client.close()


def test_client_gone_in_transaction(several, server):
    server.run("DROP TABLE IF EXISTS undone; CREATE TABLE undone (a int)")
    client = several.raw()
    client.query("BEGIN; INSERT INTO undone VALUES (1)")
    client.reset()
    several.check_no_leaks(size=3)
    assert server.run("SELECT count(*) FROM undone") == [(0,)]


def test_session_mode(start):
    suite = start(general={"default_pool_size": 2, "pooler_mode": "session",
                           "checkout_timeout": 1000})
    first, second = suite.raw(), suite.raw()
    pids = backend(first), backend(second)
    assert pids[0] != pids[1]
    first.query("SET work_mem = '5MB'; CREATE TEMP TABLE s (a int)")
    assert (backend(first), backend(second)) == pids
    with pytest.raises(ServerError):  # by the login, where it needs a server, or by the query
        suite.raw().query("SELECT 1")
    first.close()
    fourth = suite.raw()
    assert shown(fourth, "work_mem") == "4MB"
    with pytest.raises(ServerError):
        fourth.query("SELECT * FROM s")


def test_statement_mode(start):
    suite = start(users=[{"name": "postgres", "database": "postgres",
                          "pooler_mode": "statement"}])
    client = suite.raw()
    assert client.query("SELECT 1") == [["1"]]
    assert client.prepared("SELECT $1::int", [1]) == [["1"]]
    with pytest.raises(ServerError):
        client.query("BEGIN")
    client.send(wire.run("SELECT 'before'") + wire.SYNC)
    client.receive_until_ready()
    client.send(wire.parse("", "BEGIN") + wire.SYNC + wire.bind() + wire.execute() + wire.SYNC)
    codes = wire.error_codes(client.receive_until_ready(2))
    assert len(codes) == 2 and codes[1] == "26000", "not the statement before it"
    for begin in (wire.query("BEGIN"), wire.run("BEGIN") + wire.SYNC):
        client.send(wire.query("SELECT pg_sleep(0.2)"), begin)
        kinds = [kind for kind, _ in client.receive_until_ready(2)]
        assert kinds == list("TDCZEZ"), "refused in its turn"
    other = suite.raw()
    assert other.query("SELECT 2") == [["2"]]


def test_mode_of_one_database(start, server):
    server.make_database("session_db")
    suite = start(databases=[{"name": "postgres"},
                             {"name": "session_db", "pooler_mode": "session"}])
    pinned = suite.raw(database="session_db")
    pinned.query("SET work_mem = '5MB'")
    pid = backend(pinned)
    assert all(backend(pinned) == pid for _ in range(5))
    assert len(server.backends("session_db")) >= 1


def test_discard_all_in_a_transaction(start):
    """It is refused there; nothing of the session is gone."""
    suite = start()
    with suite.connect(application_name="tests") as connection:   # as drivers have such
        assert connection.execute("SHOW application_name").fetchone() == ("tests",)
        connection.prepare_threshold = 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::int", (7,))
        connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            connection.execute("DISCARD ALL", prepare=False)
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT %s::int", (8,)).fetchone() == (8,)
        assert connection.execute("SHOW application_name").fetchone() == ("tests",)


def test_set_local_behind_the_end_of_a_transaction_is_nobody_elses(start):
    """Sent in one pipeline with it; a statement that is read under it is not shared."""
    suite = start(general={"default_pool_size": 1})
    first, other = suite.raw(), suite.raw()
    first.send(wire.query("SELECT pg_sleep(0.2)"), wire.query("BEGIN"),
               wire.query("SET LOCAL datestyle = 'ISO, DMY'"))
    first.receive_until_ready(3)
    sql = "SELECT '01/02/2003'::date::text"
    assert first.prepared(sql, name="s") == [["2003-02-01"]]
    first.query("COMMIT")
    other.query("SET datestyle = 'ISO, MDY'")
    other.query("RESET datestyle")
    assert other.prepared(sql, name="s") == [["2003-01-02"]]


@pytest.mark.parametrize("way", ["set", "undone", "bound", "unnamed"])
def test_what_is_parsed_behind_a_pending_set_is_nobody_elses(start, way):
    """The server reads it under the new setting; what others prepare of that text it does not."""
    suite = start(general={"default_pool_size": 1})
    first, other = suite.raw(), suite.raw()
    sql, name = "SELECT '01/02/2003'::date::text", "" if way == "unnamed" else "s"
    new = query("SET datestyle = 'ISO, DMY'")
    run = wire.bind("", name) + wire.execute() + wire.SYNC
    if way == "undone":
        first.query("BEGIN")
        first.send(new)
        first.receive_until_ready()
        first.send(query("ROLLBACK"), wire.parse(name, sql), run)
    elif way == "bound":
        first.send(wire.parse(name, sql), wire.SYNC)
        first.receive_until_ready()
        for number in range(300):     # its place on the connection goes to others
            other.prepared(f"SELECT {number}", name=f"n{number}")
        first.send(new, run)
    else:
        first.send(new, wire.parse(name, sql), run)
    messages = first.receive_until_ready(2)
    read_before = way in ("undone", "bound")
    assert first.rows(messages) == [["2003-01-02" if read_before else "2003-02-01"]]
    if way != "undone":
        first.query("RESET datestyle")
    assert other.prepared(sql, name=name) == [["2003-01-02"]]


def test_a_quote_is_read_as_the_server_will(start):
    suite = start(general={"default_pool_size": 1})
    first, other = suite.raw(), suite.raw()
    first.query("SET standard_conforming_strings = off")
    first.send(query("SET standard_conforming_strings = on"),
               query("SELECT '\\'; SET search_path TO pg_catalog; SELECT 1 --'"))
    first.receive_until_ready(2)
    assert shown(other, "search_path") == '"$user", public'


def test_characters_with_a_backslash_in_them_hide_nothing(start):
    """In Shift JIS: what the frontend takes for the inside of a string the server runs."""
    suite = start(general={"default_pool_size": 1})
    first, other = suite.raw(client_encoding="SJIS"), suite.raw()
    for _ in range(2):
        first.send(query(b"SELECT E'\x83\x5c'; SET search_path TO pg_catalog"))
        first.receive_until_ready()
        assert shown(other, "search_path") == '"$user", public'
        first = suite.raw()
        first.query("SET client_encoding = 'shift_jis'")


def test_a_statement_taken_away_by_its_name_there_harms_once(start, server):
    server.run("CREATE OR REPLACE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS "
               "'BEGIN EXECUTE ''DEALLOCATE ALL''; END'")
    suite = start(general={"default_pool_size": 1})
    first, other = suite.raw(), suite.raw()
    assert first.prepared("SELECT 5", name="s") == [["5"]]
    first.query("SELECT forget()")
    for _ in range(3):
        try:
            other.prepared("SELECT 5", name="s")
            break
        except ServerError as gone:
            assert gone.code == "26000"
            other.send(wire.close("S", "s"), wire.SYNC)
            other.receive_until_ready()
    for number in range(2):
        client = suite.raw()
        assert client.prepared("SELECT 5", name=f"t{number}") == [["5"]]


@pytest.mark.parametrize("refused", ["mode", "size"])
def test_nothing_is_refused_behind_an_error(start, refused):
    """The server skips to the Sync: so does what would be refused."""
    mode = "statement" if refused == "mode" else "transaction"
    suite = start(general={"query_size_limit": 10000, "query_size_limit_action": "block"},
                  users=[{"name": "postgres", "database": "postgres", "pooler_mode": mode}])
    bad = "BEGIN" if refused == "mode" else "SELECT '" + "x" * 20000 + "'"
    for flush in (b"", wire.FLUSH):
        for message in (wire.run(bad), wire.query(bad)):
            client = suite.raw()
            client.send(wire.run("SELECT 1/0") + flush)
            time.sleep(0.2)
            client.send(message + wire.SYNC)
            got = client.receive_until_ready()
            assert [kind for kind, _ in got if kind in "EZ"] == ["E", "Z"]
            assert wire.error_codes(got) == ["22012"]
            assert client.query("SELECT 1") == [["1"]]
            client.close()


@pytest.mark.parametrize("discard", [wire.run("DISCARD ALL") + wire.SYNC,
                                     wire.FLUSH + wire.query("DISCARD ALL")],
                         ids=["batch", "query"])
def test_discard_all_behind_commit_in_one_batch(start, discard):
    """The transaction is over although ReadyForQuery has not said so: nobody else may count on what
    the connection had prepared."""
    suite = start(general={"default_pool_size": 1, "workers": 1})
    first, other = suite.raw(), suite.raw()
    assert other.prepared("SELECT 'theirs'", name="t") == [["theirs"]]
    first.query("BEGIN; SELECT 1")
    first.send(wire.run("COMMIT") + discard)
    assert wire.error_codes(first.receive_until_ready()) == []
    for _ in range(3):
        other.send(wire.bind("", "t") + wire.execute() + wire.SYNC)
        assert other.rows(other.receive_until_ready()) == [["theirs"]]
    assert first.prepared("SELECT 'mine'", name="t") == [["mine"]]
