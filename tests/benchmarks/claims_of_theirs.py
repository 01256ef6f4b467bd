"""One process that takes numbers with ``dynamodb-autoincrement`` until its time is over: see ``claims.py``.

It runs in an environment that has their package, and nothing of ours.
"""

import asyncio
import json
import sys
import time

import aioboto3  # type: ignore[import-not-found]
from dynamodb_autoincrement import DynamoDBAutoIncrement  # type: ignore[import-not-found]


async def main(tasks: int, seconds: float) -> None:
    """Take one number, say so, wait for the others, and print what was done then."""
    sent: list[int] = []
    async with aioboto3.Session().resource("dynamodb") as dynamodb:
        events = dynamodb.meta.client.meta.events
        events.register("before-call.dynamodb.TransactWriteItems", lambda **_: sent.append(1))
        numbers = DynamoDBAutoIncrement(
            dynamodb=dynamodb,
            counter_table_name="Counters",
            counter_table_key={"partition": "theirs"},
            attribute_name="number",
            table_name="Records",
            initial_value=1,
        )
        await numbers.put({"who": "Ada"})
        print("ready", flush=True)  # noqa: T201 - the other process waits for it
        sys.stdin.readline()
        sent.clear()
        began = time.monotonic()

        async def work() -> int:
            done = 0
            while time.monotonic() < began + seconds:
                await numbers.put({"who": "Ada"})
                done += 1
            return done

        done = sum(await asyncio.gather(*(work() for _ in range(tasks))))
        took = time.monotonic() - began
    print(json.dumps({"claims": done, "transactions": len(sent), "seconds": took}))  # noqa: T201 - the same


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
