"""queries.py URL "PORT PORT PORT": the application's three queries by asyncpg's ordinary pool, and
which shard answered each. The shard is asked for inside the same transaction: a statement without
tables goes where the transaction already is."""

import asyncio
import sys

import asyncpg

CONVERSATIONS = """SELECT conversation_id, conversation_name, last_message_content,
 last_message_at, unread_count FROM user_conversation_list
 WHERE user_id = $1 AND is_archived = false ORDER BY last_message_at DESC LIMIT 20"""
MESSAGES = """SELECT original_message_id, sender_id, content, has_attachments, created_at, is_read
 FROM user_messages WHERE recipient_user_id = $1 AND conversation_id = $2
 ORDER BY created_at DESC LIMIT 50"""
SEND = """INSERT INTO messages (conversation_id, sender_id, type_id, content)
 VALUES ($1, $2, 1, $3) RETURNING id"""


async def ask(pool, ports, query, *arguments):
    """Rows and the number of the shard that gave them."""
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(query, *arguments)
        port = await connection.fetchval("SELECT inet_server_port()")
    return rows, ports.index(port)


async def main(url, ports):
    answered = set()
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        for user in (1, 2, 3, 4, 5, 6, 7, 42):
            conversations, first = await ask(pool, ports, CONVERSATIONS, user)
            conversation = conversations[0]["conversation_id"]
            messages, second = await ask(pool, ports, MESSAGES, user, conversation)
            sent, third = await ask(pool, ports, SEND, conversation, user, "Hello again")
            # Outside a transaction, as most applications ask.
            again = await pool.fetch(CONVERSATIONS, user)
            if again != conversations or len({first, second, third}) != 1:
                raise SystemExit(f"user {user}: the answers do not agree")
            answered.add(first)
            print(f"  user {user:3}: {len(conversations)} conversations from shard {first},"
                  f" {len(messages)} messages from shard {second},"
                  f" message {sent[0]['id']} stored on shard {third}")
    if len(answered) != len(ports):
        raise SystemExit(f"only shards {sorted(answered)} were asked")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2].split()]))
