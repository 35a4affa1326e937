"""add_shard.py URL PGSLED RUN_DIR PORT... : eight clients read and write while the shard at the last
PORT joins; then every row is looked for where it belongs. The last line is the outcome:
moved=ROWS pause_max_ms=N errors=N diff=ROWS. Exit status 0 when nothing went wrong."""

import asyncio
import collections
import random
import subprocess
import sys
import time

import asyncpg

CLIENTS, HEAD_START, TAIL = 8, 1.5, 1.5
# Table → sharding column, and what of a row is compared: its primary key and what clients change.
TABLES = {"user_conversation_list": ("user_id", "user_id, conversation_id, unread_count"),
          "user_messages": ("recipient_user_id", "recipient_user_id, conversation_id, "
                            "original_message_id, is_read, content"),
          "messages": ("sender_id", "sender_id, conversation_id, content")}


class Load:
    """Clients with users of their own, and what the tables hold after all that was acknowledged."""

    def __init__(self, url, rows):
        self.url, self.rows = url, rows
        self.users = sorted({row[0] for row in rows["user_conversation_list"]})
        self.ended, self.errors, self.done, self.longest = False, [], 0, 0.0

    async def statement(self, connection, sql, *values):
        began = time.monotonic()
        result = await connection.execute(sql, *values)
        self.longest = max(self.longest, time.monotonic() - began)
        self.done += 1
        return result

    async def client(self, number):
        chance, number_of = random.Random(number), 0
        users = self.users[number::CLIENTS]
        lists, inbox, sent = (self.rows[table] for table in TABLES)
        mine = {row[:2]: row for row in lists if row[0] in set(users)}
        connection = await asyncpg.connect(self.url)
        while not self.ended:
            user, number_of = chance.choice(users), number_of + 1
            partner = chance.choice([key for key in mine if key[0] == user])[1]
            content = f"quickstart {time.time_ns()} {number}"
            what = chance.random()
            try:
                if what < 0.4:
                    old = mine[user, partner]
                    await self.statement(
                        connection, "UPDATE user_conversation_list SET unread_count = $3 WHERE "
                        "user_id = $1 AND conversation_id = $2", user, partner, old[2] + 1)
                    lists.subtract([old])
                    mine[user, partner] = (user, partner, old[2] + 1)
                    lists.update([mine[user, partner]])
                elif what < 0.7:
                    await self.statement(
                        connection, "INSERT INTO messages (conversation_id, sender_id, content) "
                        "VALUES ($1, $2, $3)", partner, user, content)
                    sent.update([(user, partner, content)])
                else:
                    # An id that no other client gives: the clock's, and the client's number.
                    original = time.time_ns() // 1000 * CLIENTS + number
                    async with connection.transaction():
                        await self.statement(
                            connection, "INSERT INTO user_messages (recipient_user_id, "
                            "conversation_id, original_message_id, sender_id, content) "
                            "VALUES ($1, $2, $3, $2, $4)", user, partner, original, content)
                        await self.statement(
                            connection, "UPDATE user_messages SET is_read = true WHERE "
                            "recipient_user_id = $1 AND conversation_id = $2 AND "
                            "original_message_id = $3", user, partner, original)
                    inbox.update([(user, partner, original, True, content)])
            except (asyncpg.PostgresError, OSError) as error:
                self.errors.append(error)
                print(f"  client {number}: {error}", flush=True)
                await asyncio.sleep(0.2)
                if connection.is_closed():
                    connection = await asyncpg.connect(self.url)
        await connection.close()


async def read_shards(ports):
    """Table → a list for each shard of its rows."""
    found = {table: [] for table in TABLES}
    for port in ports:
        connection = await asyncpg.connect(f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres")
        for table, (_, columns) in TABLES.items():
            found[table].append([tuple(row) for row in
                                 await connection.fetch(f"SELECT {columns} FROM {table}")])
        await connection.close()
    return found


async def place(pgsled, port, keys):
    """Key → the shard that owns it by the stored map and `pgsled hash`."""
    connection = await asyncpg.connect(f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres")
    buckets = await connection.fetchval(
        "SELECT buckets FROM pgsled.shard_map WHERE database = 'postgres'")
    await connection.close()
    said = subprocess.run([pgsled, "hash", "--stdin", "--type", "bigint", "--buckets",
                           str(len(buckets))], input="".join(f"{key}\n" for key in keys), text=True,
                          stdout=subprocess.PIPE, check=True).stdout
    return {key: buckets[int(line.split()[1])] for key, line in zip(keys, said.splitlines())}


async def main(url, pgsled, run_dir, *ports):
    before = await read_shards(ports)
    load = Load(url, {table: collections.Counter(row for rows in shards for row in rows)
                      for table, shards in before.items()})
    clients = [asyncio.ensure_future(load.client(number)) for number in range(CLIENTS)]
    await asyncio.sleep(HEAD_START)
    job = await asyncio.create_subprocess_exec(pgsled, "reshard", "add-shard", "--database",
                                               "postgres", "--run-dir", run_dir)
    status = await job.wait()
    await asyncio.sleep(TAIL)
    load.ended = True
    await asyncio.gather(*clients)
    after = await read_shards(ports)
    users = sorted({row[0] for shards in after.values() for rows in shards for row in rows})
    owner = await place(pgsled, ports[-1], users)
    new, diff, moved, must = len(ports) - 1, 0, 0, 0
    for table, shards in after.items():
        found = collections.Counter(row for rows in shards for row in rows)
        diff += sum((found - load.rows[table]).values()) + sum((load.rows[table] - found).values())
        diff += sum(owner[row[0]] != number for number, rows in enumerate(shards) for row in rows)
        moved += len(shards[new])
        must += sum(count for row, count in found.items() if owner[row[0]] == new)
    rows = sum(len(part) for shards in after.values() for part in shards)
    print(f"{load.done} statements of {CLIENTS} clients; {rows} rows, of which {moved} are on the "
          f"new shard and {must} belong there")
    print(f"moved={moved} pause_max_ms={load.longest * 1000:.0f} errors={len(load.errors)} "
          f"diff={diff}")
    good = status == 0 and not load.errors and diff == 0 and moved > 0
    return 0 if good and abs(moved - must) <= 0.05 * must else 1


sys.exit(asyncio.run(main(*sys.argv[1:])))
