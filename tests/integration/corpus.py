"""Conversations that are held with PostgreSQL directly and through the suite and must give the same
bytes. A conversation is a list of steps; a step is (bytes to send, ReadyForQuerys to wait for), the
latter None for "up to the answer of an empty query"."""

import random

from support.wire import (COPY_DONE, FLUSH, SYNC, bind, close, copy_data, copy_fail, describe,
                          execute, function_call, parse, query)

SCHEMA = """
DROP TABLE IF EXISTS corpus CASCADE; DROP TABLE IF EXISTS corpus_rows CASCADE;
CREATE TABLE corpus (id int PRIMARY KEY, name text, amount numeric(10,2), seen timestamptz,
                     blob bytea, flags bool[], doc jsonb);
CREATE TABLE corpus_rows (id int, value text);
INSERT INTO corpus SELECT g, 'name ' || g, g * 1.25, '2024-01-01T00:00:00Z'::timestamptz
  + g * interval '1 hour', decode(md5(g::text), 'hex'), ARRAY[g % 2 = 0, NULL],
  jsonb_build_object('g', g) FROM generate_series(1, 50) g;
CREATE OR REPLACE FUNCTION corpus_notice(text) RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN RAISE NOTICE 'heard %', $1; RAISE WARNING 'warned'; END $$;
"""

SIMPLE = [
    "SELECT 1", "", ";", " ; ; ", "-- only a comment", "SELECT 1; SELECT 2, 'x'; SELECT NULL",
    "SELECT * FROM corpus ORDER BY id", "SELECT * FROM corpus WHERE false", "SELECT",
    "SELECT 1/0", "SELECT 1; SELECT 1/0; SELECT 2", "SELEC 1", "SELECT * FROM no_such_table",
    "SELECT 'unterminated", "SELECT $1", "SELECT corpus_notice('hello')", "SHOW server_version",
    "SELECT E'a\\'b', U&'\\0041', $$dollar$$, $t$tagged$t$, B'101', X'1F'",
    "/* a comment /* nested */ */ SELECT 1 -- end", "SELECT '😀', repeat('ü', 3000)",
    "INSERT INTO corpus_rows VALUES (1, 'a'), (2, 'b') RETURNING *", "TABLE corpus_rows",
    "UPDATE corpus_rows SET value = value || '!' WHERE id = 1", "DELETE FROM corpus_rows",
    "INSERT INTO corpus (id) VALUES (1)", "EXPLAIN (COSTS OFF) SELECT * FROM corpus WHERE id = 1",
    "VALUES (1, 'one'), (2, 'two')", "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "DO $$ BEGIN RAISE NOTICE 'in do'; END $$", "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE ="
    " 'P1234', DETAIL = 'd', HINT = 'h'; END $$", "SET work_mem = '5MB'", "SHOW work_mem",
    "RESET work_mem", "SET no.such = 'custom'; SHOW no.such", "SET nonsense = 1",
    "BEGIN", "SELECT 1", "COMMIT", "COMMIT", "ROLLBACK", "BEGIN; SELECT 1; COMMIT",
    "BEGIN; SELECT 1/0", "SELECT 1", "COMMIT", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
    "INSERT INTO corpus_rows VALUES (1, 'x')", "ROLLBACK", "START TRANSACTION", "SAVEPOINT a",
    "SELECT nonsense", "ROLLBACK TO a", "SELECT 5", "RELEASE a", "COMMIT AND CHAIN", "ROLLBACK",
    "BEGIN", "BEGIN", "END", "CREATE TEMP TABLE ct (a int); INSERT INTO ct VALUES (1); SELECT"
    " a + 0 FROM ct; DROP TABLE ct",
    "DECLARE c CURSOR FOR SELECT 1", "BEGIN; DECLARE c CURSOR FOR SELECT"
    " generate_series(1, 5); FETCH 2 FROM c; MOVE 1 FROM c; FETCH ALL FROM c; CLOSE c; COMMIT",
    "PREPARE p AS SELECT $1::int + 1", "EXECUTE p(1)", "EXECUTE p('x')", "DEALLOCATE p",
    "DEALLOCATE p", "COPY corpus TO STDOUT", "COPY (SELECT 1, 'a b', NULL) TO STDOUT (FORMAT csv)",
    "COPY corpus (id, name) TO STDOUT (FORMAT binary)", "COPY no_such TO STDOUT",
    "SELECT 1; COPY (SELECT 2) TO STDOUT; SELECT 3", "LOCK TABLE corpus",
    "SELECT generate_series(1, 3000), repeat('x', 200)", "LISTEN ch", "NOTIFY ch, 'p'",
    "UNLISTEN ch", "DISCARD ALL", "VACUUM corpus_rows", "BEGIN; VACUUM corpus_rows", "ROLLBACK",
    "SELECT relname FROM pg_class WHERE relname = 'corpus'", "SET TimeZone = 'Europe/Rome'",
    "SET DateStyle = 'SQL, DMY'", "SELECT seen FROM corpus WHERE id = 1", "RESET ALL",
    "SET LOCAL work_mem = '1MB'", "SET client_encoding = 'LATIN1'", "SELECT 'e'",
    "RESET client_encoding", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "DELETE FROM corpus_rows", "RESET ALL", "DISCARD ALL",
]


def extended_conversations():
    whole = [parse("", "SELECT 1"), bind(), describe("P"), execute(), SYNC]
    conversations = {
        "unnamed": [(b"".join(whole), 1)],
        "named": [(parse("s", "SELECT $1::int, $2::text") + describe("S", "s") + SYNC, 1)] + [
            (bind("", "s", [n, "t"]) + execute() + SYNC, 1) for n in range(3)] + [
            (close("S", "s") + SYNC, 1), (bind("", "s", [1, "t"]) + execute() + SYNC, 1)],
        "binary": [(parse("", "SELECT $1, id, seen, blob FROM corpus WHERE id = $2", [20, 23]) +
                    bind("", "", [b"\0" * 7 + b"\5", b"\0\0\0\3"], [1], [1]) + describe("P") +
                    execute() + SYNC, 1)],
        "null parameters": [(parse("", "SELECT $1::text IS NULL, $2::text") +
                             bind("", "", [None, ""]) + execute() + SYNC, 1)],
        "suspended portal": [(parse("", "SELECT generate_series(1, 10)") + bind() + execute("", 3) +
                              execute("", 3) + execute() + execute() + SYNC, 1)],
        "portal in transaction": [
            (query("BEGIN"), 1),
            (parse("", "SELECT generate_series(1, 9)") + bind("p") + execute("p", 4) + SYNC, 1),
            (execute("p", 4) + SYNC, 1), (execute("p") + SYNC, 1), (close("P", "p") + SYNC, 1),
            (execute("p") + SYNC, 1), (query("ROLLBACK"), 1)],
        "portal gone after sync": [
            (parse("", "SELECT generate_series(1, 9)") + bind("p") + execute("p", 4) + SYNC, 1),
            (execute("p", 4) + SYNC, 1)],
        "error skips to sync": [
            (parse("", "SELECT 1/0") + bind() + execute() + parse("", "SELECT 2") + bind() +
             execute() + SYNC + parse("", "SELECT 3") + bind() + execute() + SYNC, 2)],
        "parse error": [(parse("bad", "SELEC") + bind("", "bad") + execute() + SYNC, 1),
                        (bind("", "bad") + SYNC, 1)],
        "twice the same name": [(parse("d", "SELECT 1") + SYNC, 1),
                                (parse("d", "SELECT 2") + SYNC, 1),
                                (bind("", "d") + execute() + SYNC, 1)],
        "pipeline": [(b"".join(parse("", f"SELECT {n}") + bind() + execute() + SYNC
                               for n in range(40)), 40)],
        "pipeline one sync": [(b"".join(parse(f"q{n}", f"SELECT {n}, $1::text") +
                                        bind("", f"q{n}", ["v"]) + execute()
                                        for n in range(40)) + SYNC, 1)],
        "implicit transaction": [
            (parse("", "INSERT INTO corpus_rows VALUES (1, 'x')") + bind() + execute() +
             parse("", "SELECT 1/0") + bind() + execute() + SYNC, 1),
            (query("SELECT count(*) FROM corpus_rows"), 1)],
        "begin in a batch": [
            (parse("", "BEGIN") + bind() + execute() + parse("", "SELECT 1") + bind() + execute() +
             SYNC, 1), (query("COMMIT"), 1)],
        "close what is not": [(close("S", "none") + close("P", "none") + SYNC, 1)],
        "describe what is not": [(describe("S", "none") + SYNC, 1),
                                 (describe("P", "none") + SYNC, 1)],
        "too few parameters": [(parse("", "SELECT $1::int") + bind() + execute() + SYNC, 1)],
        "bad parameter": [(parse("", "SELECT $1::int") + bind("", "", ["x"]) + execute() + SYNC,
                           1)],
        "several commands": [(parse("", "SELECT 1; SELECT 2") + bind() + execute() + SYNC, 1)],
        "empty": [(parse("", "") + bind() + describe("P") + execute() + SYNC, 1)],
        "sync only": [(SYNC + SYNC + SYNC, 3)],
        "query ends the batch": [(parse("", "SELECT 1") + bind() + execute() + query("SELECT 2"),
                                  1)],
        "a query takes the unnamed statement": [
            (parse("", "SELECT 5") + SYNC, 1), (query("SELECT 1"), 1),
            (bind() + execute() + SYNC, 1), (parse("", "SELECT 6") + SYNC, 1),
            (query("SELEC"), 1), (describe("S") + SYNC, 1)],
        "what is skipped leaves the unnamed statement": [
            (parse("", "SELECT 5") + SYNC, 1),
            (parse("bad", "SELEC") + query("SELECT 1") + SYNC, 1), (bind() + execute() + SYNC, 1),
            (parse("bad", "SELEC") + FLUSH + parse("", "SELECT 6") + close("S", "") + SYNC, 1),
            (bind() + execute() + SYNC, 1), (parse("", "SELEC") + SYNC, 1),
            (bind() + execute() + SYNC, 1)],
        "what was skipped again later is not what was before": [
            (parse("", "SELECT 5") + bind("", "no") + query("SELECT 1") + SYNC +
             query("SELECT 2") + SYNC, 3), (bind() + execute() + SYNC, 1)],
        "one text with and without a name": [
            (parse("s", "SELECT 5") + SYNC + bind("", "no") + parse("", "SELECT 5") + SYNC, 2),
            (bind("", "s") + execute() + SYNC, 1)],
        "a name that was not given up": [
            (parse("s", "SELECT 5") + bind("", "no") + close("S", "s") + SYNC +
             parse("s", "SELECT 6") + SYNC, 2), (bind("", "s") + SYNC, 1)],
        "a wait for what only the proxy owes": [
            (parse("", "SELECT 1") + bind("", "no") + SYNC + query("SELECT 1") +
             close("S", "b") + bind("p", "") + SYNC, 3)],
        "copy in": [(query("COPY corpus_rows FROM STDIN") + copy_data(b"1\ta\n2\tb\n") +
                     copy_data(b"3\tc\n") + COPY_DONE, 1), (query("TABLE corpus_rows"), 1),
                    (query("DELETE FROM corpus_rows"), 1)],
        "copy in fails": [(query("COPY corpus_rows FROM STDIN") + copy_data(b"x\ty\tz\n") +
                           COPY_DONE, 1)],
        "copy in given up": [(query("COPY corpus_rows FROM STDIN") + copy_data(b"1\ta\n") +
                              copy_fail("no more"), 1)],
        "copy extended": [(parse("", "COPY corpus_rows FROM STDIN") + bind() + execute() + SYNC +
                           copy_data(b"1\ta\n") + COPY_DONE + SYNC, 1),
                          (query("DELETE FROM corpus_rows"), 1)],
        "deallocate behind an error": [
            (parse("a", "SELECT 1") + SYNC, 1),
            (bind("", "nobody") + query("DEALLOCATE a") + parse("", "INSERT INTO corpus_rows"
             " VALUES (7, 'skipped')") + bind() + execute() + SYNC + query("TABLE corpus_rows"), 2),
            (bind("", "a") + execute() + SYNC + query("DEALLOCATE a"), 2),
            (bind("", "a") + SYNC + query("DEALLOCATE a"), 2)],
        "deallocate that is not run": [
            (parse("a", "SELECT 1") + parse("b", "DEALLOCATE a") + parse("", "DEALLOCATE a") +
             bind() + SYNC + bind("", "a") + execute() + SYNC, 2),
            (bind("", "b") + bind("", "nobody") + execute() + SYNC + bind("", "a") + SYNC, 2),
            (bind("p", "b") + execute("p") + bind("", "a") + SYNC + bind("", "a") + SYNC, 2),
            (parse("a", "SELECT 2") + bind("", "b") + execute() + bind("", "b") + execute() + SYNC +
             bind("", "a") + SYNC, 2), (query("DEALLOCATE b") + query("DEALLOCATE b"), 2)],
        "deallocate that is none": [
            (parse("a", "SELECT 1") + SYNC + query("DEALLOCATE a, b") + query("DEALLOCATE"), 3),
            (bind("", "a") + execute() + SYNC + query("DEALLOCATE a"), 2),
            (query("BEGIN") + parse("a", "SELECT 1") + SYNC + query("SELECT 1/0") +
             query("DEALLOCATE ALL") + query("DISCARD ALL") + query("DEALLOCATE a"), 6),
            (query("ROLLBACK") + bind("", "a") + execute() + SYNC, 2),
            (bind("", "nobody") + query("DEALLOCATE ALL") + SYNC + bind("", "a") + SYNC, 2),
            (query("BEGIN") + query("SELECT 1/0") + query("ROLLBACK; DEALLOCATE ALL"), 3),
            (bind("", "a") + SYNC, 1)],
        "deallocate of names in doubt": [
            (parse("b", "DEALLOCATE a") + SYNC, 1),
            (parse("a", "SELEC") + SYNC + bind("", "b") + execute() + SYNC, 2),
            (bind("", "nobody") + parse("a", "SELECT 1") + SYNC + bind("", "b") + execute() +
             SYNC, 2), (parse("a", "SELECT 1") + SYNC, 1),
            (bind("", "nobody") + close("S", "a") + SYNC + query("DEALLOCATE a"), 2),
            (parse("a", "SELECT 1") + SYNC, 1),
            (bind("", "nobody") + close("S", "a") + SYNC + bind("", "b") + execute() + SYNC, 2),
            (bind("", "a") + SYNC, 1)],
        "deallocate that fails": [
            (query("BEGIN") + query("SAVEPOINT s") + parse("a", "SELECT 1") +
             parse("b", "DEALLOCATE a") + bind("p", "b") + execute("p") +
             parse("a", "SELECT 2") + execute("p") + SYNC, 3),
            (query("ROLLBACK TO s") + query("DEALLOCATE a") + bind("", "a") + SYNC, 3),
            (query("ROLLBACK"), 1)],
        "portal that is another": [
            (parse("a", "SELECT 1") + parse("b", "DEALLOCATE a") + parse("c", "SELECT 3") +
             bind("p", "b") + close("P", "p") + bind("p", "c") + execute("p") + SYNC, 1),
            (bind("", "a") + execute() + SYNC, 1),
            (bind("p", "b") + SYNC + bind("p", "c") + execute("p") + SYNC, 2),
            (bind("", "a") + execute() + SYNC, 1)],
        "copy that fails, with its sync inside": [
            (parse("a", "SELECT 1") + parse("", "COPY corpus_rows FROM STDIN") + bind() +
             execute() + SYNC + copy_data(b"x\ty\tz\n") + COPY_DONE + query("DEALLOCATE a") +
             parse("", "INSERT INTO corpus_rows VALUES (7, 'skipped')") + bind() + execute() +
             SYNC, 1), (query("TABLE corpus_rows"), 1), (bind("", "a") + SYNC, 1)],
        "names whose parse may have failed": [
            (parse("a", "SELEC") + SYNC + parse("b", "SELEC") + SYNC + bind("", "b") + SYNC, 3),
            (parse("a", "SELECT $1::int") + bind("", "a", ["x"]) + parse("b", "SELECT $1::int") +
             SYNC + bind("", "b", ["1"]) + SYNC, 2),
            (bind("", "a", ["x"]) + parse("c", "SELECT 2") + SYNC + bind("", "nobody") +
             close("S", "c") + SYNC + bind("", "c") + SYNC, 3)],
        "copy out extended": [(parse("", "COPY corpus TO STDOUT") + bind() + execute() + SYNC, 1)],
        "function call": [(function_call(1598, []), 1), (function_call(0, []), 1)],
        "sets in a batch": [(parse("", "SET work_mem = '6MB'") + bind() + execute() +
                             parse("", "SHOW work_mem") + bind() + execute() + SYNC, 1),
                            (query("SHOW work_mem; RESET work_mem"), 1)],
    }
    conversations["function call"] = [(function_call(1227, [b"\0\0\0\x05abcde"[4:]]), 1),
                                      (function_call(0, []), 1)]
    return conversations


def random_conversation(seed):
    """A pipeline of random messages, legal or not, cut into random steps. How many ReadyForQuerys
    that gives is not known (a Query is skipped after an error in the batch before it), so each
    step ends with Sync and an empty query."""
    chance = random.Random(seed)
    steps, sent = [], b""
    statements = ["SELECT 1", "SELECT $1::int + 1", "SELECT generate_series(1, 5)", "SELECT 1/0",
                  "INSERT INTO corpus_rows VALUES (1, 'r')", "BEGIN", "COMMIT", "ROLLBACK",
                  "SAVEPOINT s", "ROLLBACK TO s", "SET work_mem = '3MB'", "SHOW work_mem",
                  "SELECT count(*) FROM corpus_rows", "SELEC", "RESET work_mem", "DEALLOCATE a"]
    names = ["", "", "a", "b"]
    for _ in range(chance.randint(3, 40)):
        kind = chance.choice("PPPBBBBEEEEDDCCSSSSHHQQK")
        name, portal = chance.choice(names), chance.choice(["", "", "p"])
        sql = chance.choice(statements)
        if kind == "P":
            sent += parse(name, sql)
        elif kind == "B":
            sent += bind(portal, name, ["5"] * chance.choice([0, 0, 0, 1]))
        elif kind == "E":
            sent += execute(portal, chance.choice([0, 0, 2]))
        elif kind == "D":
            sent += describe(chance.choice("SP"), chance.choice([name, portal]))
        elif kind == "C":
            sent += close(chance.choice("SP"), chance.choice([name, portal]))
        elif kind == "H":
            sent += FLUSH
        elif kind == "Q":
            sent += query(sql)
        elif kind == "K":
            # What comes between is read inside the COPY, and ignored there.
            sent += parse("", "COPY corpus_rows FROM STDIN") + bind() + execute()
            sent += chance.choice([b"", SYNC, FLUSH, SYNC + SYNC])
            sent += copy_data(b"2\tc\n") * chance.randint(0, 2) + chance.choice([b"", SYNC])
            sent += COPY_DONE + chance.choice([b"", b"", FLUSH]) + parse("", "SELECT 1")
        else:
            sent += SYNC
            if chance.random() < 0.5:
                steps.append((sent + SYNC + query(""), None))
                sent = b""
    steps.append((sent + SYNC + query(""), None))
    steps.append((query("ROLLBACK"), 1))
    steps.append((query("DISCARD ALL"), 1))
    return steps
