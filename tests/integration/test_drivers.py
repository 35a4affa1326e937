"""Ordinary clients, unchanged: psql, psycopg 3 on libpq, asyncpg, pgbench."""

import asyncio
import io
import subprocess

import asyncpg
import psycopg
import pytest

from support.machine import HOST, PG_BIN
from support.probes import environment, run_pgbench


def psql(suite, *arguments, script=None):
    done = subprocess.run([str(PG_BIN / "psql"), "-X", "-h", HOST, "-p", str(suite.port), "-U",
                           "postgres", "-d", "postgres", *arguments], input=script, text=True,
                          env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=30, check=False)
    return done.returncode, done.stdout


@pytest.mark.smoke
def test_psql_answers(suite):
    assert psql(suite, "-Atc", "SELECT 6 * 7") == (0, "42\n")


def test_psql_describes(suite, server):
    server.run("DROP TABLE IF EXISTS described; CREATE TABLE described (id bigint primary key)")
    for command in ("\\d described", "\\dt", "\\l", "\\du", "\\conninfo", "\\df now"):
        status, output = psql(suite, "-c", command)
        assert status == 0, output
    assert "described_pkey" in psql(suite, "-c", "\\d described")[1]


def test_psql_script(suite):
    script = """
    CREATE TEMP TABLE t (a int); INSERT INTO t SELECT generate_series(1, 10);
    BEGIN; DELETE FROM t WHERE a > 5; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT;
    SELECT count(*) FROM t;
    \\copy t from stdin
100
\\.
    SELECT sum(a) FROM t;
    """
    status, output = psql(suite, "-At", "-v", "ON_ERROR_STOP=1", script=script)
    assert status == 0, output
    assert "\n5\n" in output and "\n115\n" in output


def test_psql_error_is_the_servers(suite):
    status, output = psql(suite, "-v", "VERBOSITY=verbose", "-c", "SELECT nonsense")
    assert status == 1
    assert "42703" in output and "parse_relation.c" in output


@pytest.mark.smoke
def test_psycopg_prepared(suite):
    with suite.connect(prepare_threshold=0) as connection:
        for number in range(50):
            assert connection.execute("SELECT %s::int + 1", (number,)).fetchone() == (number + 1,)
        for number in range(20):
            row = connection.execute(f"SELECT %s::int + {number}", (1,), prepare=True).fetchone()
            assert row == (number + 1,)


def test_psycopg_transactions(suite):
    with suite.connect(autocommit=False) as connection:
        connection.execute("CREATE TEMP TABLE t (a int) ON COMMIT DROP")
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            with connection.transaction():
                connection.execute("SELECT 1 / 0")
        assert connection.execute("SELECT a FROM t").fetchone() == (1,)
        connection.rollback()


def test_psycopg_pipeline(suite):
    with suite.connect() as connection, connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(300)]
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(300))


def test_psycopg_pipeline_error(suite):
    with suite.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            with connection.pipeline() as pipeline:
                connection.execute("SELECT 1")
                connection.execute("SELECT 1 / 0")
                connection.execute("SELECT 2")
                pipeline.sync()
        assert connection.execute("SELECT 3").fetchone() == (3,)


def test_psycopg_copy(suite, server):
    server.run("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int, b text)")
    with suite.connect() as connection:
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for number in range(20000):
                copy.write_row((number, f"row {number} " + "x" * 100))
        assert server.run("SELECT count(*), sum(a) FROM copied") == [(20000, 199990000)]
        with connection.cursor().copy("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 20000
        with connection.cursor().copy("COPY copied TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            assert sum(row[0] for row in copy.rows()) == 199990000


def test_psycopg_copy_fails(suite, server):
    server.run("DROP TABLE IF EXISTS copied_badly; CREATE TABLE copied_badly (a int)")
    with suite.connect() as connection:
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            with connection.cursor().copy("COPY copied_badly FROM STDIN") as copy:
                copy.write("1\nnot a number\n")
        with pytest.raises(psycopg.errors.QueryCanceled):
            with connection.cursor().copy("COPY copied_badly FROM STDIN") as copy:
                copy.write("1\n")
                raise_from_client()
        assert connection.execute("SELECT count(*) FROM copied_badly").fetchone() == (0,)


def raise_from_client():
    raise psycopg.errors.QueryCanceled("the client gives up")


def test_psycopg_cursors(suite):
    with suite.connect(autocommit=False) as connection:
        with connection.cursor("named") as cursor:
            cursor.itersize = 10
            cursor.execute("SELECT generate_series(1, 1000)")
            assert sum(row[0] for row in cursor) == 500500
        with connection.cursor("held", withhold=True, scrollable=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            connection.commit()
            cursor.scroll(50)
            assert cursor.fetchone() == (51,)


def test_psycopg_large_object(suite):
    """Large objects go by fast-path function calls in libpq and by SQL functions here."""
    with suite.connect(autocommit=False) as connection:
        oid = connection.execute("SELECT lo_from_bytea(0, %s)", (b"\x01" * 100000,)).fetchone()[0]
        value = connection.execute("SELECT lo_get(%s)", (oid,)).fetchone()[0]
        assert value == b"\x01" * 100000
        connection.execute("SELECT lo_unlink(%s)", (oid,))


def test_many_parameters_and_big_values(suite):
    with suite.connect() as connection:
        values = list(range(2000))
        sql = "SELECT " + "+".join(["%s::bigint"] * len(values))
        assert connection.execute(sql, values).fetchone() == (sum(values),)
        big = "ä" * 3_000_000
        assert connection.execute("SELECT %s::text", (big,)).fetchone() == (big,)


def dsn(suite):
    return f"postgresql://postgres:postgres@{HOST}:{suite.port}/postgres"


@pytest.mark.smoke
def test_asyncpg_pool(suite):
    async def main():
        async with asyncpg.create_pool(dsn(suite), min_size=5, max_size=30) as pool:
            async def one(number):
                async with pool.acquire() as connection:
                    assert await connection.fetchval("SELECT $1::int", number) == number
                    row = await connection.fetchrow("SELECT $1::text AS a, $2::int8[] AS b",
                                                    f"t{number}", [number, 2])
                    assert row["a"] == f"t{number}" and row["b"] == [number, 2]
            for _ in range(5):
                await asyncio.gather(*(one(number) for number in range(60)))
    asyncio.run(main())


def test_asyncpg_prepared_and_cursor(suite):
    async def main():
        connection = await asyncpg.connect(dsn(suite))
        statement = await connection.prepare("SELECT g, $1::text FROM generate_series(1, 500) g")
        for text in ("a", "b"):
            rows = await statement.fetch(text)
            assert len(rows) == 500 and rows[499] == (500, text)
        async with connection.transaction():
            got = [row[0] async for row in connection.cursor(
                "SELECT generate_series(1, 1000)", prefetch=50)]
        assert got == list(range(1, 1001))
        await connection.executemany("SELECT $1::int", [(n,) for n in range(200)])
        await connection.close()
    asyncio.run(main())


def test_asyncpg_types_and_reset(suite, server):
    """Type look-ups by system catalogs, and the multi-statement reset of its pool."""
    server.run("DROP TYPE IF EXISTS mood CASCADE; CREATE TYPE mood AS ENUM ('sad', 'glad');"
               "DROP TABLE IF EXISTS moods; CREATE TABLE moods (m mood, p point)")

    async def main():
        async with asyncpg.create_pool(dsn(suite), min_size=2, max_size=2) as pool:
            for _ in range(6):
                async with pool.acquire() as connection:
                    await connection.execute("SET work_mem = '1MB'")
                    await connection.execute("INSERT INTO moods VALUES ($1, '(1,2)')", "glad")
                    await connection.fetch("SELECT m, p FROM moods")
                    await connection.execute("LISTEN something")
                    await connection.fetchval("SELECT pg_advisory_lock(4711)")
                async with pool.acquire() as connection:
                    assert await connection.fetchval("SHOW work_mem") == "4MB"
                    assert await connection.fetchval(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    asyncio.run(main())


def test_asyncpg_copy(suite, server):
    server.run("DROP TABLE IF EXISTS async_copied; CREATE TABLE async_copied (a int8, b text)")

    async def main():
        connection = await asyncpg.connect(dsn(suite))
        await connection.copy_records_to_table(
            "async_copied", records=[(n, f"r{n}") for n in range(10000)])
        sink = io.BytesIO()
        await connection.copy_from_table("async_copied", output=sink)
        assert sink.getvalue().count(b"\n") == 10000
        await connection.close()
    asyncio.run(main())


def test_asyncpg_cancel(suite):
    async def main():
        connection = await asyncpg.connect(dsn(suite))
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetch("SELECT pg_sleep(30)", timeout=0.3)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    asyncio.run(main())


@pytest.fixture(scope="module")
def bench_tables(server):
    run_pgbench(server.port, "-i", "-s", 1, "-q")


@pytest.mark.smoke
@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("clients", [1, 40])
def test_pgbench_select(suite, bench_tables, protocol, clients):
    output = run_pgbench(suite.port, "-n", "-S", "-M", protocol, "-c", clients, "-j", 2, "-t", 50)
    assert f"actually processed: {clients * 50}/{clients * 50}" in output


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench_tpcb(suite, server, bench_tables, protocol):
    before = server.run("SELECT count(*) FROM pgbench_history")[0][0]
    output = run_pgbench(suite.port, "-n", "-M", protocol, "-c", 20, "-j", 2, "-t", 20)
    assert "number of failed transactions: 0" in output
    assert server.run("SELECT count(*) FROM pgbench_history")[0][0] == before + 400
    sums = server.run("SELECT (SELECT sum(abalance) FROM pgbench_accounts),"
                      "(SELECT sum(delta) FROM pgbench_history)")[0]
    assert sums[0] == sums[1]


def test_pgbench_reconnects(suite, bench_tables):
    output = run_pgbench(suite.port, "-n", "-S", "-C", "-c", 10, "-t", 20)
    assert "actually processed: 200/200" in output


def test_pgbench_initialises(suite, server):
    """Client-side generation: DDL, COPY FROM STDIN, VACUUM, ALTER TABLE."""
    run_pgbench(suite.port, "-i", "-s", 1, "-q", "-I", "dtgvp")


def test_nothing_left(suite):
    suite.check_no_leaks()
