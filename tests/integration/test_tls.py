"""TLS on both sides: towards the server with every way of verifying, from clients with and without
negotiation, channel binding, and protocol 3.2."""

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request

import psycopg
import pytest

from support import wire
from support.certificates import Authority
from support.machine import HOST, short_folder, wait_until
from support.postgres import Postgres
from support.probes import run_pgbench
from support.raw_client import Closed, RawClient, ServerError
from support.suite import Suite, eventually
from test_differential import prepared, test_extended, test_simple_corpus  # noqa: F401
from test_drivers import (test_asyncpg_pool, test_pgbench_tpcb,  # noqa: F401
                          test_psycopg_copy)


@pytest.fixture(scope="module")
def authority():
    return Authority(short_folder("pgsled-ca-") / "ca")


@pytest.fixture(scope="module")
def server(authority):
    """A PostgreSQL that takes TCP connections with TLS only."""
    owner = "postgres" if os.geteuid() == 0 else None
    authority.folder.parent.chmod(0o755)
    certificate, key = authority.issue("server", owner=owner)
    with Postgres(settings={"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key},
                  hba_type="hostssl") as running:
        yield running


@pytest.fixture(scope="module")
def bench_tables(server):
    run_pgbench(server.port, "-i", "-s", 1, "-q")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("frontend")


@pytest.fixture(scope="module", params=["prefer", "verify_full"])
def suite(server, authority, certificate, request):
    general = {"tls_verify": request.param, "tls_certificate": certificate[0],
               "tls_private_key": certificate[1]}
    if request.param != "prefer":
        general["tls_server_ca_certificate"] = authority.certificate
    with Suite(server, general=general) as running:
        yield running


def tls_in_use(client):
    return client.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[0][0]


def test_server_connection_is_tls(suite):
    assert tls_in_use(suite.raw()) == "t"


def test_cancel_over_tls(suite):
    client = suite.raw()
    threading.Timer(0.3, client.cancel, [suite.port]).start()
    with pytest.raises(ServerError) as failure:
        client.query("SELECT pg_sleep(20)")
    assert failure.value.code == "57014"


def refused_by(server, **general):
    """The error of a suite that cannot reach its server with these settings."""
    suite = Suite(server, general=dict({"checkout_timeout": 2000}, **general))
    with pytest.raises((RuntimeError, TimeoutError)):
        suite.start(wait=False)
        suite.wait_ready(2)
    with pytest.raises((ServerError, Closed)) as failure:
        suite.raw().query("SELECT 1")
    suite.__exit__(None)
    return str(getattr(failure.value, "fields", ""))


def test_verify_ca_of_another_authority(server, tmp_path):
    other = Authority(tmp_path / "other")
    said = refused_by(server, tls_verify="verify_ca",
                      tls_server_ca_certificate=other.certificate)
    assert "certificate" in said and HOST in said


def test_verify_full_of_another_name(server, authority):
    owner = "postgres" if os.geteuid() == 0 else None
    certificate, key = authority.issue("elsewhere", "elsewhere", "DNS:elsewhere.example", owner)
    with Postgres(settings={"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key},
                  hba_type="hostssl") as misnamed:
        said = refused_by(misnamed, tls_verify="verify_full",
                          tls_server_ca_certificate=authority.certificate)
        assert "certificate" in said or "name" in said
        with Suite(misnamed, general={"tls_verify": "verify_ca",
                                      "tls_server_ca_certificate": authority.certificate}) as fine:
            assert tls_in_use(fine.raw()) == "t"


def test_tls_disabled_on_a_server_that_wants_it(server):
    assert "28000" in refused_by(server, tls_verify="disabled")


# Clients

def libpq(suite, **options):
    given = " ".join(f"{name}={value}" for name, value in options.items())
    return psycopg.connect(suite.url() + " " + given, autocommit=True, prepare_threshold=None)


@pytest.mark.smoke
def test_client_tls(suite, authority):
    for mode in ("require", "verify-ca", "verify-full", "prefer"):
        with libpq(suite, sslmode=mode, sslrootcert=authority.certificate) as connection:
            assert connection.pgconn.ssl_in_use
            assert connection.execute("SELECT 1").fetchone() == (1,)
    with libpq(suite, sslmode="disable") as connection:
        assert not connection.pgconn.ssl_in_use
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_channel_binding(suite):
    with libpq(suite, sslmode="require", channel_binding="require") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_plain_client_refused_when_tls_is_required(server, certificate):
    with Suite(server, general={"tls_certificate": certificate[0], "tls_client_required": True,
                                "tls_private_key": certificate[1]}) as suite:
        with pytest.raises((ServerError, Closed)):
            suite.raw()
        client = RawClient(suite.port, tls=True).login()
        assert client.query("SELECT 1") == [["1"]]


def test_large_data_over_client_tls(suite):
    client = RawClient(suite.port, tls=True, timeout=25).login()
    value = "x" * 10_000_000
    assert client.query(f"SELECT length('{value}')") == [["10000000"]]
    assert client.query("SELECT repeat('y', 20000000)") == [["y" * 20_000_000]]


def test_direct_tls(suite):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    client = RawClient(suite.port)
    client.socket = context.wrap_socket(client.socket)
    assert client.socket.selected_alpn_protocol() == "postgresql"
    assert client.login().query("SELECT 1") == [["1"]]


def test_direct_tls_needs_its_protocol_named(suite):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = RawClient(suite.port)
    with pytest.raises((OSError, Closed, ServerError)):
        client.socket = context.wrap_socket(client.socket)
        client.login()


def test_bytes_before_the_handshake_are_refused(suite):
    """What was sent along with SSLRequest must not be taken as if it had come encrypted."""
    client = RawClient(suite.port)
    client.send(wire.untagged(wire.SSL_REQUEST) + wire.startup({"user": "postgres"}))
    got = client.socket.recv(10000)
    assert got[:1] in (b"", b"S", b"E")
    if got == b"S":
        assert client.socket.recv(10000) == b""
    elif got:
        assert b"08P01" in got


def test_rubbish_instead_of_a_handshake(suite):
    for rubbish in (b"\x16\x03\x01\xff\xff" + b"x" * 100, os.urandom(300), b"\x16"):
        client = RawClient(suite.port)
        client.send(wire.untagged(wire.SSL_REQUEST))
        client.receive_exactly(1)
        client.send(rubbish)
        try:
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            continue  # it was closed already
        client.expect_closed()
    assert suite.raw().query("SELECT 1") == [["1"]]


def test_protocol_32(suite):
    client = RawClient(suite.port).login(protocol=wire.PROTOCOL_32)
    assert client.negotiated is None and 4 < len(client.key) <= 256
    threading.Timer(0.3, client.cancel, [suite.port]).start()
    with pytest.raises(ServerError) as failure:
        client.query("SELECT pg_sleep(20)")
    assert failure.value.code == "57014"


def served_certificate(port):
    done = subprocess.run(["openssl", "s_client", "-starttls", "postgres", "-connect",
                           f"{HOST}:{port}"], input="", text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, timeout=10, check=False)
    return done.stdout.partition("BEGIN CERTIFICATE")[2].partition("END")[0]


def readiness(suite):
    """What the frontend that was started last says of itself."""
    at = re.findall(r" frontend-1 app: .* HTTP on (\S+)", suite.log_text())[-1]
    try:
        with urllib.request.urlopen(f"http://{at}/readyz", timeout=5) as page:
            return page.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.read().decode()


def test_no_plain_text_where_the_certificate_is_missing(server, authority):
    """A frontend that was to offer TLS and cannot does not talk a client out of it."""
    certificate, key = authority.issue("vanishing")
    with Suite(server, general={"tls_certificate": certificate, "tls_private_key": key}) as suite:
        with open(key, "rb") as file:
            kept = file.read()
        os.unlink(key)
        old = suite.pid("frontend")
        suite.kill("frontend")
        suite.wait_restarted("frontend", old)
        def answers():
            try:
                return RawClient(suite.port).login().query("SELECT 1") == [["1"]]
            except OSError:
                return False
        wait_until(answers, 5)
        with pytest.raises(psycopg.OperationalError, match="error response during SSL"):
            psycopg.connect(suite.url(), sslmode="prefer")
        assert readiness(suite) == "the certificate for TLS cannot be loaded\n"
        with open(key, "wb") as file:
            file.write(kept)
        os.kill(suite.pid("router"), signal.SIGHUP)
        wait_until(lambda: readiness(suite) == "ready\n", 5)
        assert RawClient(suite.port, tls=True).login().query("SELECT 1") == [["1"]]


def test_reload_takes_a_new_certificate(server, authority):
    certificate, key = authority.issue("renewed")
    with Suite(server, general={"tls_certificate": certificate,
                                "tls_private_key": key}) as suite:
        held = RawClient(suite.port, tls=True).login()
        before = served_certificate(suite.port)
        authority.issue("renewed")
        suite.reload()

        def renewed():
            assert before and served_certificate(suite.port) not in ("", before)
        eventually(renewed)
        assert held.query("SELECT 1") == [["1"]]
