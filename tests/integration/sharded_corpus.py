"""Random conversations with a sharded database, whose every answer one PostgreSQL with all the rows
must have given, too. A conversation is a list of steps, a step a list of messages that are sent in
one go. What the suite refuses fails on the single server by other means (`as_refused`), so that
both go on alike."""

import random
from dataclasses import dataclass

from support import wire

KEYS = [42, 3, 100, 7, 0]   # shards 0, 1, 2, 1, 2 by PARTITION BY HASH with modulus 3
SCHEMA = """
CREATE TABLE t (id bigint PRIMARY KEY, v int CHECK (v < 1000), u int UNIQUE DEFERRABLE
                INITIALLY DEFERRED);
CREATE TABLE orders (id bigint, n int, item text, PRIMARY KEY (id, n));
CREATE TABLE countries (code text PRIMARY KEY, n int);
"""
TABLES = ["t", "orders", "countries"]

# {k} is a key, $1 may be one.
STATEMENTS = {
    "one shard": [
        "SELECT v FROM t WHERE id = {k}", "SELECT v FROM t WHERE id = $1",
        "UPDATE t SET v = v + 1 WHERE id = {k}", "UPDATE t SET v = v + 1 WHERE id = $1 RETURNING v",
        "INSERT INTO t VALUES ({k}, 1, {k})", "INSERT INTO t VALUES ($1, 2, NULL)",
        "INSERT INTO t (id, v) VALUES ({k}, 5) ON CONFLICT (id) DO UPDATE SET v = t.v + 100",
        "DELETE FROM t WHERE id = {k}", "DELETE FROM t WHERE id = $1",
        "INSERT INTO orders SELECT {k}, coalesce(max(n), 0) + 1, 'i' FROM orders WHERE id = {k}",
        "SELECT o.n, t.v FROM orders o JOIN t USING (id) WHERE t.id = {k} ORDER BY n",
        "SELECT 1 / (v - 1) FROM t WHERE id = {k}", "SELECT nothing FROM t WHERE id = {k}",
        "UPDATE t SET v = 2000 WHERE id = {k}", "UPDATE t SET u = 1 WHERE id = {k}",
        "SELECT v FROM t WHERE id = {k} FOR UPDATE", "SELECT v FROM t WHERE id = $1 AND v > 0",
        "COPY (SELECT v FROM t WHERE id = {k}) TO STDOUT"],
    "shards": [
        "SELECT * FROM t ORDER BY id", "SELECT count(*) FROM t", "SELECT v FROM t ORDER BY id",
        "SELECT v FROM t WHERE id IN ({k}, $1) ORDER BY id", "SELECT max(v), min(id) FROM t",
        "SELECT id, n FROM orders ORDER BY id, n LIMIT 2", "SELECT sum(v) FROM t WHERE id > $1",
        "SELECT v, count(*) FROM t GROUP BY v ORDER BY v", "UPDATE t SET v = v + 1",
        "DELETE FROM orders", "SELECT 10 / v FROM t ORDER BY id", "DELETE FROM t WHERE v > 102",
        "UPDATE t SET v = v + 1 WHERE id IN ({k}, {j})",
        "INSERT INTO t (id, v) VALUES ({k}, 3), ({j}, 4)", "COPY t TO STDOUT",
        "SELECT id FROM orders UNION SELECT id FROM t ORDER BY id", "TRUNCATE orders"],
    "every shard": [
        "INSERT INTO countries VALUES ('c{k}', $1)", "INSERT INTO countries VALUES ('c{k}', 1)",
        "UPDATE countries SET n = n + 1 WHERE code = 'c{k}' RETURNING n", "DELETE FROM countries",
        "SELECT * FROM countries ORDER BY code", "SELECT n FROM countries WHERE n = $1",
        "SELECT t.v, c.n FROM t, countries c WHERE t.id = {k} ORDER BY c.code"],
    "no shard": ["SELECT 1", "SELECT $1::int + 1", "SELECT 1/0", "SELEC", "SELECT * FROM no_such",
                 "SELECT generate_series(1, 5)", ""],
    "transaction": ["BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s",
                    "ROLLBACK TO s", "RELEASE s", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN",
                    "BEGIN READ ONLY", "SET TRANSACTION READ ONLY"],
    "session": ["SET work_mem = '3MB'", "SHOW work_mem", "RESET work_mem",
                "SET LOCAL work_mem = '2MB'", "DEALLOCATE a", "DEALLOCATE ALL",
                "SELECT set_config('work_mem', '4MB', false)"],
    "definition": ["CREATE TABLE made (a int)", "DROP TABLE made", "SELECT count(*) FROM made",
                   "CREATE INDEX ON orders (n)"],
}
LIKELY = "one shard," * 9 + "shards," * 3 + "every shard," * 2 + "no shard," * 2 + \
    "transaction," * 5 + "session," * 2 + "definition"


@dataclass
class Message:
    """`kind` is the protocol's letter; K is an Execute or a Query of COPY FROM, with its data."""
    kind: str
    data: bytes
    text: str = ""

    def __repr__(self):
        return f"{self.kind}({self.text})" if self.text else self.kind


def statement(chance):
    """(what it is about, its text)."""
    about = chance.choice(LIKELY.split(","))
    sql = chance.choice(STATEMENTS[about])
    return about, sql.replace("{k}", str(chance.choice(KEYS))).replace("{j}",
                                                                       str(chance.choice(KEYS)))


def copy_in(chance):
    table, columns = chance.choice([("t", "{}\t1\t\\N\n"), ("orders", "{}\t50\tx\n"),
                                    ("countries", "d{}\t1\n")])
    data = "".join(columns.format(key) for key in chance.sample(KEYS, chance.randint(0, 3)))
    return f"COPY {table} FROM STDIN", data + chance.choice(["", "", "", "broken\n"])


def copied(chance, data):
    """A COPY's input, which may come with what is read inside it and ignored."""
    # Of what is wrong and what is given up, which comes first is up to the server.
    end = chance.choice([wire.COPY_DONE] * 5 + [wire.copy_fail("no more")])
    end = wire.COPY_DONE if "broken" in data else end
    return b"".join(wire.copy_data(line.encode()) for line in data.splitlines(True)) + end


def messages(chance, values):
    """One or a few, as a client could send them; `values` counts parameters by name."""
    kind = chance.choice("PPPBBBEEEDCHQQQUUUUUUUUKK")
    name, portal = chance.choice(["", "", "a", "b"]), chance.choice(["", "", "p"])
    about, sql = statement(chance)
    if about not in ("one shard", "no shard"):
        portal = ""   # of the others nothing is kept to be executed again

    def bound(name, portal):
        value = [chance.choice(KEYS)] * values.get(name, 0)
        return Message("B", wire.bind(portal, name, value), f"{portal!r}, {name!r}, {value}")

    def parsed(name, sql):
        values[name] = int("$1" in sql)
        return Message("P", wire.parse(name, sql), f"{name!r}, {sql}")

    if kind == "P":
        return [parsed(name, sql)]
    if kind == "B":
        return [bound(name, portal)]
    if kind == "E":
        rows = chance.choice([0, 0, 0, 2])
        return [Message("E", wire.execute("p", rows), f"'p', {rows}")]
    if kind == "D":
        of = chance.choice("SP")
        which = name if of == "S" else "p"
        return [Message("D" + of, wire.describe(of, which), repr(which))]
    if kind == "C":
        of = chance.choice("SP")
        which = name if of == "S" else portal
        return [Message("C", wire.close(of, which), f"{of} {which!r}")]
    if kind == "H":
        return [Message("H", wire.FLUSH)]
    if kind == "Q":
        sql = sql.replace("$1", str(chance.choice(KEYS)))
        return [Message("Q", wire.query(sql), sql)]
    if kind == "K":
        sql, data = copy_in(chance)
        if chance.random() < 0.5:
            return [Message("K", wire.query(sql) + copied(chance, data), f"Q, {sql}, {data!r}")]
        # Executed once more it would wait for data that does not come: another takes its place.
        return [Message("P", wire.parse("", sql), f"'', {sql}"), Message("B", wire.bind(), "''"),
                Message("K", wire.execute() + copied(chance, data), f"E, {data!r}"),
                parsed("", "SELECT 2")]
    described = [Message("DP", wire.describe("P", portal), repr(portal))]
    return [parsed(name, sql), bound(name, portal)] + chance.choice([[], described]) + [
        Message("E", wire.execute(portal), repr(portal))]


def ran(sql, name="", portal="", values=()):
    """Parse to Execute."""
    return [Message("P", wire.parse(name, sql), f"{name!r}, {sql}"),
            Message("B", wire.bind(portal, name, values)), Message("E", wire.execute(portal))]


def loaded(sql, data):
    return ran(sql)[:2] + [Message("K", wire.execute() + wire.copy_data(data) + wire.COPY_DONE)]


def asked(sql):
    return [Message("Q", wire.query(sql), sql)]


SYNC = [Message("S", wire.SYNC)]
CLOSED = [Message("C", wire.close("P", "p"))]
NAMED = [Message("P", wire.parse("a", "SELECT 1"), "a")]
UPDATE, READ = "UPDATE t SET v = v + 1 WHERE id = 42", "SELECT v FROM t WHERE id = 42"
MORE = b"d1\t1\nd2\t2\n"
FIXED = {
    "a failed transaction stays one when a portal is closed": [
        ran("BEGIN") + SYNC, [Message("B", wire.bind("", "none"))] + SYNC, CLOSED + SYNC,
        ran(UPDATE) + SYNC, asked("COMMIT") + SYNC, asked(READ) + SYNC],
    "a failed transaction describes what has no rows": [
        ran("BEGIN") + SYNC, [Message("E", wire.execute("none"))] + SYNC,
        [Message("DS", wire.describe("S"))] + SYNC, ran("ROLLBACK") + SYNC],
    "the answers come in the order of what was asked": [
        ran(READ) + ran("BEGIN") + loaded("COPY orders FROM STDIN", b"42\t1\tx\n") + SYNC,
        asked(READ) + asked("ROLLBACK") + SYNC],
    "the modes of a BEGIN in a batch are not lost, but refused": [
        loaded("COPY orders FROM STDIN", b"42\t1\tx\n") + ran("BEGIN READ ONLY") + SYNC,
        ran(UPDATE) + SYNC, asked("ROLLBACK") + SYNC],
    "the end of a batch's block undoes what stands before it, with one warning": [
        loaded("COPY orders FROM STDIN", b"42\t1\tx\n") + ran(UPDATE) + ran("ROLLBACK") +
        loaded("COPY orders FROM STDIN", b"3\t1\ty\n") + SYNC, asked(READ) + SYNC,
        ran("ROLLBACK") + loaded("COPY orders FROM STDIN", b"42\t2\tx\n") +
        ran("SELECT nothing") + SYNC,
        loaded("COPY orders FROM STDIN", b"100\t1\tx\n") + ran(UPDATE) + ran("COMMIT") +
        ran("SELECT nothing") + SYNC, asked(READ) + SYNC],
    "portals are closed before what comes next, as drivers do": [
        asked("BEGIN") + ran(READ, portal="p") + SYNC, ran("SELECT v FROM t WHERE id = 3") + SYNC,
        CLOSED + ran("COMMIT") + SYNC, CLOSED + ran("INSERT INTO countries VALUES ('x', 1)") + SYNC,
        CLOSED + ran("BEGIN") + ran("INSERT INTO countries VALUES ('y', 1)") + SYNC,
        ran(READ, portal="p") + SYNC, CLOSED + ran("DELETE FROM countries WHERE code = 'x'") + SYNC,
        [Message("DP", wire.describe("P", "p"))] + SYNC, CLOSED + ran("ROLLBACK") + SYNC,
        asked("SELECT code FROM countries ORDER BY code") + SYNC],
    "BEGIN behind COMMIT in a batch is one": [
        step for fails in ("UPDATE t SET v = 2000 WHERE id = 42", UPDATE) for step in (
            ran(READ) + ran("COMMIT") + ran("BEGIN") + ran(fails) +
            loaded("COPY orders FROM STDIN", b"3\t1\tx\n") + SYNC,
            ran("UPDATE t SET v = 7 WHERE id = 42") + SYNC, asked("ROLLBACK") + SYNC,
            asked(READ) + SYNC)],
    "the end of a Query leaves nothing open": [
        asked("SET search_path TO public; SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; "
              + UPDATE) + SYNC, ran(UPDATE) + SYNC, asked(READ) + SYNC],
    "what is described in a batch with BEGIN and COPY is looked at, or refused": [
        [Message("P", wire.parse("b", READ), "b"), Message("DS", wire.describe("S", "b"))] +
        ran("BEGIN") + loaded("COPY orders FROM STDIN", b"3\t1\tx\n") + SYNC,
        asked("ROLLBACK") + SYNC],
    "what was forgotten behind a ROLLBACK is not there": [
        step for _ in range(2) for step in (
            ran(READ, "a") + SYNC, asked("BEGIN") + ran("SELECT nothing", "b") + SYNC,
            ran("ROLLBACK") + ran("DEALLOCATE ALL") + SYNC, ran(READ, "a") + SYNC,
            asked("BEGIN") + ran("SELECT nothing", "b") + SYNC,
            ran("ROLLBACK") + ran(READ, "c") + SYNC,
            asked("DEALLOCATE ALL") + SYNC)],
    "a name in use is not taken": [
        NAMED + SYNC, ran("BEGIN", "a") + SYNC, ran("CREATE TABLE made (a int)", "a") + SYNC,
        loaded("COPY countries FROM STDIN", MORE) + NAMED + SYNC,
        ran("INSERT INTO countries VALUES ('x', 1)", "a") + SYNC,
        asked("BEGIN") + ran(UPDATE) + SYNC, ran("COMMIT", "a") + SYNC, asked("COMMIT") + SYNC,
        asked("BEGIN") + [Message("B", wire.bind("", "none"))] + SYNC,
        [Message("P", wire.parse("a", "ROLLBACK"))] + SYNC, asked("ROLLBACK") + SYNC,
        [Message("B", wire.bind("", "a")), Message("E", wire.execute())] + SYNC,
        asked("SELECT code FROM countries ORDER BY code") + SYNC],
    "a Query that is refused ends the batch": [
        loaded("COPY countries FROM STDIN", MORE) + asked("INSERT INTO t VALUES (1, 1), (2, 2)") +
        ran(UPDATE) + SYNC, asked("SELECT code FROM countries ORDER BY code") + SYNC],
    "a portal of another statement is not described, but refused": [
        ran(READ, portal="p") + loaded("COPY orders FROM STDIN", b"42\t1\tx\n") +
        [Message("DP", wire.describe("P", "none"))] + ran("SET TRANSACTION READ ONLY") + SYNC],
    "a Query takes the unnamed statement": [
        step for sql in ("CREATE TABLE made (a int)", "INSERT INTO countries VALUES ('x', 1)",
                         "DROP TABLE made")
        for step in (ran(READ)[:1] + SYNC,
                     asked(sql) + [Message("B", wire.bind(), sql)] + SYNC)],
    "statements end a transaction that has failed, whoever has prepared them before": [
        step for _ in range(3)
        for step in (asked("BEGIN") + ran(UPDATE) + ran("SELECT nothing", "b") + SYNC,
                     ran("ROLLBACK", "c") + SYNC, asked(READ) + SYNC,
                     [Message("C", wire.close("S", "c"))] + SYNC)],
    "chains of transactions that no server has seen": [
        asked("BEGIN READ ONLY") + SYNC, asked("ROLLBACK AND CHAIN") + SYNC,
        ran(UPDATE) + SYNC, asked("ROLLBACK AND CHAIN") + SYNC, ran(READ) + SYNC,
        asked("COMMIT") + asked("BEGIN") + SYNC, [Message("B", wire.bind("", "none"))] + SYNC,
        asked("COMMIT AND CHAIN") + SYNC, ran(UPDATE) + SYNC, asked("COMMIT") + SYNC,
        asked(READ) + SYNC],
    "an empty statement in a failed transaction": [
        asked("BEGIN") + [Message("B", wire.bind("", "none"))] + SYNC, asked(" ; ") + SYNC,
        ran("") + SYNC, asked("") + ran(UPDATE) + SYNC, asked("ROLLBACK") + SYNC],
}


def conversation(seed):
    chance = random.Random(seed)
    steps, step, values = [], [], {}
    for _ in range(chance.randint(3, 30)):
        step += messages(chance, values)
        if chance.random() < 0.5:
            step.append(Message("S", wire.SYNC))
            if chance.random() < 0.7:
                steps.append(step)
                step = []
    steps.append(step + [Message("S", wire.SYNC)])
    return steps


END = [[Message("Q", wire.query("ROLLBACK"), "ROLLBACK"), Message("S", wire.SYNC)],
       [Message("Q", wire.query("DISCARD ALL"), "DISCARD ALL"), Message("S", wire.SYNC)]]
# What ends the answer to a message that has worked.
ENDS = {"P": "1", "B": "2", "C": "3", "DP": "Tn", "DS": "Tn", "E": "CsI", "S": "Z", "Q": "Z"}


def answers(step, receive):
    """[(message, what it was answered with)], with nothing for what was skipped."""
    said, skipping = [], False
    for message in step:
        got = []
        said.append((message, got))
        if message.kind == "H" or skipping and message.kind != "S":
            continue
        query = message.data[:1] == b"Q"
        ends = "Z" if query else ENDS.get(message.kind, "C")
        skipping = False
        while not got or got[-1][0] not in ends:
            got.append(receive())
            if got[-1][0] == "E" and not query:
                skipping = True
                break
    return said


def refused(message, got):
    """Whether it was, by the suite. What PostgreSQL keeps of the portal that a BEGIN, say, was
    executed through is not there where no server has seen it; and that a transaction has failed is
    said, without the place in PostgreSQL's source, where its ROLLBACK is under way."""
    errors = [wire.error_fields(body) for kind, body in got if kind == "E"]
    return any(one["C"] == "0A000" or one["C"] == "25P02" and "F" not in one or
               message.kind in ("DP", "E") and one["C"] in ("34000", "25P02") for one in errors)


def as_refused(said):
    """The step with what fails on the single server, too, for what was refused, and leaves there
    what a refusal leaves here."""
    step, renews = [], False
    for message, got in reversed(said):
        if message.kind == "S":
            renews = False
        renews = renews or message.kind == "P" and message.data[5] == 0
        if not refused(message, got):
            step.append(message)
        elif message.data[:1] == b"Q":
            step.append(Message("Q", wire.query("SELECT 1/0"), "refused: " + message.text))
        else:
            # A Parse, be it skipped or refused, takes the unnamed statement away.
            ours = "0A000" in wire.error_codes(got)
            name = b"" if renews and ours else b"refused"
            step.append(Message("P", wire.parse(name, "SELEC"), "refused: " + message.text))
    return step[::-1]
