"""Who is let in, how, and what the others are told."""

import os
import re
import signal
import statistics
import struct
import time

import psycopg
import pytest

from support import wire
from support.machine import SLOW, wait_until
from support.raw_client import Closed, RawClient, ServerError
from support.suite import Suite, eventually


@pytest.fixture(scope="module")
def guarded(server):
    """Accounts of every kind on one suite."""
    server.make_role("rotating")
    server.make_role("hashed")
    users = [
        {"name": "postgres", "all_databases": True},
        {"name": "md5_user", "database": "postgres"},
        {"name": "plain_user", "database": "postgres"},
        {"name": "trust_user", "databases": ["postgres"]},
        {"name": "rotating", "database": "postgres", "passwords": ["old one", "nëw one"],
         "server_password": "postgres"},
        {"name": "hashed", "database": "postgres",
         "password_hash": wire.scram_verifier("secret of hashed"), "server_password": "postgres"},
        {"name": "renamed", "database": "postgres", "password": "p",
         "server_user": "postgres", "server_password": "postgres"},
    ]
    with Suite(server, users=users) as running:
        yield running


def refused(suite, code, **login):
    with pytest.raises(ServerError) as failure:
        suite.raw(login=False).login(**login)
    assert failure.value.code == code
    assert failure.value.fields["S"] == "FATAL"
    return failure.value.fields["M"]


@pytest.mark.smoke
def test_scram(guarded):
    client = guarded.raw(login=False)
    client.send(wire.startup({"user": "postgres", "database": "postgres"}))
    tag, body = client.receive()
    assert tag == "R" and body[:4] == b"\0\0\0\x0a" and b"SCRAM-SHA-256\0" in body
    assert guarded.raw().query("SELECT current_user") == [["postgres"]]


@pytest.mark.parametrize("user", ["md5_user", "plain_user", "trust_user", "renamed"])
def test_server_side_methods(guarded, user):
    """The server asks for md5, a clear-text password, nothing; another name on the server."""
    password = "p" if user == "renamed" else "postgres"
    client = guarded.raw(user=user, password=password)
    expected = "postgres" if user == "renamed" else user
    assert client.query("SELECT current_user") == [[expected]]


def test_several_passwords(guarded):
    for password in ("old one", "nëw one"):
        assert guarded.raw(user="rotating", password=password).query("SELECT 1") == [["1"]]
    refused(guarded, "28P01", user="rotating", password="postgres")


def test_stored_verifier(guarded):
    client = guarded.raw(user="hashed", password="secret of hashed")
    assert client.query("SELECT current_user") == [["hashed"]]
    refused(guarded, "28P01", user="hashed", password="postgres")


@pytest.mark.smoke
def test_wrong_password_and_unknown_user(guarded):
    said = refused(guarded, "28P01", user="postgres", password="wrong")
    assert said == 'password authentication failed for user "postgres"'
    said = refused(guarded, "28P01", user="nobody", password="wrong")
    assert said == 'password authentication failed for user "nobody"'


def test_unknown_database(guarded):
    said = refused(guarded, "3D000", database="no_such_database")
    assert said == 'database "no_such_database" does not exist'


def test_wrong_password_of_unknown_database(guarded):
    """Whether a database exists is told only to who has proved to be somebody."""
    refused(guarded, "28P01", database="no_such_database", password="wrong")


@pytest.mark.release_only
def test_unknown_user_takes_as_long(guarded):
    def duration(user):
        begin = time.perf_counter()
        refused(guarded, "28P01", user=user, password="wrong")
        return time.perf_counter() - begin
    pairs = [(duration("postgres"), duration("nobody")) for _ in range(40)]
    known, unknown = (statistics.median(side) for side in zip(*pairs))
    assert abs(known - unknown) < max(0.25 * known, 0.002), (known, unknown)


def salt_of(suite, user):
    client = suite.raw(login=False)
    client.send(wire.startup({"user": user, "database": "postgres"}))
    client.receive()
    first = wire.ScramClient("x").initial()
    client.send(wire.message("p", wire.cstring("SCRAM-SHA-256") +
                             struct.pack("!i", len(first)) + first))
    return client.receive()[1].split(b",")[1:]


def test_unknown_user_sees_a_stable_salt(guarded):
    """A salt that changes with every attempt would tell that there is no such user."""
    assert salt_of(guarded, "nobody") == salt_of(guarded, "nobody")
    assert salt_of(guarded, "nobody") != salt_of(guarded, "nobody2")
    assert salt_of(guarded, "postgres") == salt_of(guarded, "postgres")


def test_salts_are_the_suites(start):
    """Whoever answers, and after each of them was another process: of who exists and who does
    not."""
    suite = start(frontends=3, general={"workers": 1})
    ready = [f"frontend-{number + 1}.0" for number in range(3)]
    wait_until(lambda: {row["instance"] for row in suite.admin("SHOW STATUS")} >= set(ready))
    salts = {user: salt_of(suite, user) for user in ("nobody", "postgres")}

    def same():
        for user, salt in salts.items():
            assert [salt_of(suite, user) for _ in range(16)] == [salt] * 16, user
    same()
    for service in ("router", "frontend"):
        old = suite.pid(service)
        suite.kill(service)
        suite.wait_restarted(service, old)
        suite.wait_ready()
        same()


def test_an_entry_of_its_own_goes_before_one_for_all_databases(start):
    suite = start(databases=[{"name": "postgres"}, {"name": "other", "database_name": "postgres"}],
                  users=[{"name": "postgres", "all_databases": True, "password": "everywhere",
                          "server_password": "postgres"},
                         {"name": "postgres", "database": "other", "password": "there",
                          "server_password": "postgres"}])
    assert suite.raw(database="other", password="there").query("SELECT 1") == [["1"]]
    assert suite.raw(database="postgres", password="everywhere").query("SELECT 1") == [["1"]]
    refused(suite, "28P01", database="other", password="everywhere")


# As it is set, and ways to say it or what is nearly it.
PREPARED = [
    ("soft\u00adhyphen", ["softhyphen", "soft-hyphen"]),
    ("no\u00a0break\u3000space", ["no break space", "no\u2002break space", "nobreakspace"]),
    ("zero\u200bwidth\u200djoiner", ["zero widthjoiner", "zerowidthjoiner"]),
    ("compose\u0301d", ["compos\u00e9d", "composed"]),
    ("\uff26ull \u2168 \ufb01", ["Full IX fi", "full IX fi"]),
    ("\u05d0\u05d1\u05d2", ["\ufb21\u05d1\u05d2", "\u05d2\u05d1\u05d0"]),
    ("\u0627mixed\u00ad", ["\u0627mixed"]),             # both directions: as it is
    ("\u06271\u00ad", ["\u06271"]),                     # does not end as it begins: as it is
    ("prohibited\ue000\u00ad", ["prohibited\ue000"]),   # private use: as it is
    ("control\u0085\u00ad", ["control\u0085", "control"]),
    ("tone\u0340", ["tone\u0300"]),                     # deprecated, though it has a normal form
    ("unassigned \U0001f600\u00a0", ["unassigned \U0001f600 "]),
    ("modifier \u1d2c\u00ad", ["modifier A", "modifier \u1d2c"]),   # assigned after Unicode 3.2
    ("\u00ad\u200c", ["\u200c\u00ad", ""]),             # nothing would be left: as it is
]


def test_passwords_are_prepared_as_postgresql_does(start, server):
    """Towards servers that have hashed them, and for clients that hash them with libpq."""
    names = [f"prepared_{number}" for number in range(len(PREPARED))]
    users = []
    for name, (password, _) in zip(names, PREPARED):
        server.make_role(name, password=password)
        users.append({"name": name, "database": "postgres", "password": password})
    suite = start(users=users)
    for name, (password, others) in zip(names, PREPARED):
        for said in [password] + others:
            outcome = []
            for where in (server.url(user=name), suite.url(user=name)):
                try:
                    with psycopg.connect(where, password=said) as client:
                        outcome.append(client.execute("SELECT current_user").fetchone()[0])
                except psycopg.OperationalError as refusal:
                    outcome.append("refused" if "password" in str(refusal) else str(refusal))
            assert outcome[0] == outcome[1], (name, said)
            assert outcome[0] == name or said != password, (name, outcome)


@pytest.mark.parametrize("method", ["md5", "plain", "trust"])
def test_client_side_methods(start, method):
    suite = start(general={"auth_type": method})
    client = suite.raw(login=False)
    client.send(wire.startup({"user": "postgres", "database": "postgres"}))
    assert client.receive()[1][3] == {"md5": 5, "plain": 3, "trust": 0}[method]
    assert suite.raw().query("SELECT 1") == [["1"]]
    if method != "trust":
        refused(suite, "28P01", password="wrong")
    else:
        assert suite.raw(login=False).login(password="any").query("SELECT 1") == [["1"]]


def test_max_client_conn(start):
    suite = start(pgsled={"max_client_conn": 12})
    clients = [suite.raw() for _ in range(12)]
    refused(suite, "53300")
    clients.pop().close()
    eventually(lambda: clients.append(connected(suite)))
    assert clients[-1].query("SELECT 1") == [["1"]]


def connected(suite):
    try:
        return suite.raw()
    except ServerError as failure:
        raise AssertionError(str(failure)) from failure


def test_client_login_timeout(start):
    suite = start(general={"client_login_timeout": 700})
    silent, half = suite.raw(login=False), suite.raw(login=False)
    half.send(wire.startup({"user": "postgres", "database": "postgres"}))
    begin = time.monotonic()
    silent.expect_closed(3)
    half.expect_closed(3)
    assert 0.4 < time.monotonic() - begin < 2.5 * SLOW
    idle = suite.raw()
    time.sleep(1.2)
    assert idle.query("SELECT 1") == [["1"]]


def test_negotiates_protocol(guarded):
    plain = guarded.raw(login=False).login(protocol=wire.PROTOCOL_30)
    assert plain.negotiated is None and len(plain.key) == 4
    option = RawClient(guarded.port)
    option.send(wire.startup({"user": "postgres", "database": "postgres",
                              "_pq_.unheard_of": "1"}, 0x00030063))
    tag, body = option.receive()
    assert tag == "v" and b"_pq_.unheard_of" in body


def test_ssl_declined_when_not_configured(guarded):
    client = guarded.raw(login=False)
    client.send(wire.untagged(wire.SSL_REQUEST))
    assert client.receive_exactly(1) == b"N"
    client.send(wire.untagged(wire.GSSENC_REQUEST))
    assert client.receive_exactly(1) == b"N"
    assert client.login().query("SELECT 1") == [["1"]]


def test_unix_socket(start):
    suite = Suite(None)
    folder = suite.folder / "clients"
    folder.mkdir()
    suite = start(pgsled={"unix_socket_dir": folder}, general={"workers": 3})
    clients = [RawClient(0, path=str(folder / f".s.PGSQL.{suite.port}")) for _ in range(9)]
    for client in clients:
        assert client.login().query("SELECT 1") == [["1"]]
    homes = [client.pid >> 20 for client in clients]
    assert sorted(homes.count(one) for one in set(homes)) == [3, 3, 3], "each worker has its part"
    # A cancel may arrive at another worker than the one that has the client.
    client = clients[0]
    client.send(wire.query("SELECT pg_sleep(30)"))
    time.sleep(0.3)
    for _ in range(3):
        with RawClient(0, path=str(folder / f".s.PGSQL.{suite.port}")) as other:
            other.send(wire.cancel_request(client.pid, client.key))
    with pytest.raises(ServerError) as failure:
        client.rows(client.receive_until_ready())
    assert failure.value.code == "57014"
    for client in clients:
        client.close()
    suite.check_no_leaks()


def test_unix_socket_of_two_frontends(start):
    """One has it; when that ends the other takes it over."""
    suite = Suite(None)
    folder = suite.folder / "clients"
    folder.mkdir()
    suite = start(pgsled={"unix_socket_dir": folder}, frontends=2)
    wait_until(lambda: [row["state"] for row in suite.admin("SHOW STATUS")
                        if re.fullmatch(r"frontend-\d+\.\d+", row["instance"])] == ["ready"] * 4)
    path = str(folder / f".s.PGSQL.{suite.port}")
    first = RawClient(0, path=path).login(application_name="local")
    at = next(row["frontend"].split(".")[0] for row in suite.admin("SHOW CLIENTS")
              if row["application_name"] == "local")
    os.kill(suite.processes()[at], signal.SIGKILL)
    def again():
        try:
            return RawClient(0, path=path).login().query("SELECT 1") == [["1"]]
        except (OSError, Closed):
            return False
    wait_until(again, 5)
    first.socket.close()


def test_server_password_wrong(start):
    """What the server says reaches the client, with the host named."""
    suite = start(databases=[{"name": "postgres"}, {"name": "other", "database_name": "postgres",
                                                    "password": "wrong"}])
    with pytest.raises(ServerError) as failure:
        suite.raw(database="other").query("SELECT 1")
    assert failure.value.code == "28P01"
    assert "127.0.0.1" in str(failure.value.fields)
    assert suite.raw().query("SELECT 1") == [["1"]]
