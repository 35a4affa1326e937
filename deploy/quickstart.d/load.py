"""load.py URL: users with conversations and messages, through the frontend. What is there already
is left as it is: each user's rows go in as one transaction."""

import asyncio
import datetime
import sys

import asyncpg

USERS, CONVERSATIONS, RECEIVED, SENT = 300, 8, 12, 4
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)


def minutes(count):
    return START + datetime.timedelta(minutes=count)


async def load_user(pool, user):
    """Returns the number of rows added."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(
                "SELECT 1 FROM user_conversation_list WHERE user_id = $1 LIMIT 1", user):
            return 0
        partners = [(user + 37 * step) % USERS + 1 for step in range(1, CONVERSATIONS + 1)]
        conversations = [(user, partner, f"Conversation with {partner}", f"See you, {user}!",
                          minutes(user * 10 + partner), partner % 5, partner % 11 == 0)
                         for partner in partners]
        received = [(user, partner, partner * 1000 + number, partner, f"Message {number}",
                     number % 7 == 0, minutes(user + partner + number), number % 2 == 0)
                    for partner in partners for number in range(RECEIVED // CONVERSATIONS + 1)]
        sent = [(partner, user, f"Hello {partner}", minutes(user + partner))
                for partner in partners[:SENT]]
        await connection.executemany(
            "INSERT INTO user_conversation_list (user_id, conversation_id, conversation_name,"
            " last_message_content, last_message_at, unread_count, is_archived)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)", conversations)
        await connection.executemany(
            "INSERT INTO user_messages (recipient_user_id, conversation_id, original_message_id,"
            " sender_id, content, has_attachments, created_at, is_read)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", received)
        await connection.executemany(
            "INSERT INTO messages (conversation_id, sender_id, type_id, content, created_at)"
            " VALUES ($1, $2, 1, $3, $4)", sent)
        return len(conversations) + len(received) + len(sent)


async def main(url):
    done = rows = 0
    async with asyncpg.create_pool(url, min_size=2, max_size=8) as pool:
        waiting = {asyncio.ensure_future(load_user(pool, user)) for user in range(1, USERS + 1)}
        for finished in asyncio.as_completed(waiting):
            rows += await finished
            done += 1
            if done % 50 == 0:
                print(f"  {done} of {USERS} users, {rows} rows added", flush=True)


asyncio.run(main(sys.argv[1]))
