"""Where keys live: `pgsled hash` against PostgreSQL's own hash partitions, and tables by uuid, text,
list and range on three shards against one PostgreSQL that holds all the rows."""

import subprocess

import psycopg
import pytest

from support.machine import binaries

COUNT = 100_000
MODULI = [2, 3, 5, 8, 16, 1000]
# Random values of each type, made by the server: short and long, all lengths modulo twelve.
RANDOM = {
    "bigint": "CASE i % 4 WHEN 0 THEN i WHEN 1 THEN -i ELSE (('x' || md5(i::text))::bit(64))::bigint"
              " END",
    "integer": "(('x' || md5(i::text))::bit(32))::integer",
    "smallint": "(i % 65536 - 32768)::smallint",
    "uuid": "md5(i::text || 'u')::uuid",
    "text": "CASE i % 3 WHEN 0 THEN left(repeat(md5(i::text), 3), i % 97)"
            " WHEN 1 THEN repeat('äß漢😀', i % 5) || i ELSE E' tab\\tline\\n\\\\quote''' || i END",
    "varchar(40)": "left(md5(i::text) || md5(i::text || 'v'), i % 41)",
}
OURS = {"bigint": "bigint", "integer": "bigint", "smallint": "bigint", "uuid": "uuid",
        "text": "varchar", "varchar(40)": "varchar"}


def hashes(values, *arguments):
    """What `pgsled hash` says of each: the hash, or None for an invalid one."""
    done = subprocess.run([str(binaries() / "pgsled"), "hash", "--stdin", "--null", *arguments],
                          input="".join(value + "\0" for value in values).encode(), timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(values)
    return [None if line == "invalid" else line.split()[0] for line in lines]


@pytest.mark.seconds(60)
@pytest.mark.parametrize("type_name", RANDOM)
def test_hashes_are_those_of_hash_partitions(server, type_name):
    with server.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"CREATE TEMP TABLE parted (k {type_name}) PARTITION BY HASH (k)")
        connection.execute(f"CREATE TEMP TABLE keys AS SELECT ({RANDOM[type_name]})::{type_name}"
                           f" AS k FROM generate_series(1, {COUNT}) i")
        keys = [row[0] for row in connection.execute("SELECT k::text FROM keys").fetchall()]
        ours = hashes(keys, "--type", OURS[type_name])
        connection.execute(f"CREATE TEMP TABLE ours (k {type_name}, h numeric)")
        with connection.cursor().copy("COPY ours FROM STDIN") as copy:
            for key, value in zip(keys, ours):
                copy.write_row((key, value))
        for modulus in MODULI:
            right, distinct = connection.execute(
                f"SELECT count(*) FILTER (WHERE satisfies_hash_partition('parted'::regclass,"
                f" {modulus}, (h % {modulus})::int, k)), count(DISTINCT h % {modulus})"
                f" FROM ours").fetchone()
            assert right == COUNT, modulus
            assert distinct == modulus


# Spellings that PostgreSQL may read or not; ours is what it stores, or nothing.
SPELLINGS = {
    "bigint": [" 7", "7 ", "+7", "007", "-0", "+0", "\t7\n", "\v7\f\r", "--7", "+-7", "- 7", "7.0",
               "7e0", "", " ", "-", "9223372036854775807", "9223372036854775808",
               "-9223372036854775808", "-9223372036854775809", "1_000", "0x10", "0o7", "0b1",
               "\u00a07", "７", "7\u2003", "NaN", "1 1", "000000000000000000000000000000012"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
             "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
             "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ",
             " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
             "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
             "-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
             "a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
             "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111", "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "",
             "{}", "{", "0xeebc999c0b4ef8bb6d6bb9bd380a11"],
    "varchar": ["", " ", "a ", " a", "A", "a\n", "\\", "'", "ä", "a\u0308", "\u00e4", "NULL", "\\N"],
}
# PostgreSQL 16 reads them, 15 does not: refused whatever the server.
NEWER = {"1_000", "0x10", "0o7", "0b1"}


@pytest.mark.parametrize("type_name", SPELLINGS)
def test_spellings_as_postgresql_reads_them(server, type_name):
    with server.connect() as connection:
        connection.execute(f"CREATE TEMP TABLE stored (k {type_name})")
        for spelling in SPELLINGS[type_name]:
            try:
                stored = connection.execute(
                    "INSERT INTO stored VALUES ('" + spelling.replace("'", "''") + "')"
                    " RETURNING k::text").fetchone()[0]
            except psycopg.errors.DataError:
                stored = None
            ours = hashes([spelling], "--type", type_name)[0]
            if stored is None or spelling in NEWER:
                assert ours is None, spelling
            else:
                assert ours is not None and ours == hashes([stored], "--type", type_name)[0], spelling
