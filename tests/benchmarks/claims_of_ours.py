"""One process that claims from a gapless counter until its time is over: see ``tests.benchmarks.claims``."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.embedded_aws import REGION
from ticketctl.aws.account import Aws
from ticketctl.aws.dynamodb import Send, timed_sdk_sender
from ticketctl.deadline import Deadline
from ticketctl.minting.claim import Claims


def main(threads: int, seconds: float) -> None:
    """Claim once, say so, wait for the others, and print what was done then."""
    keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    aws = Aws(REGION, endpoint_url=os.environ["AWS_ENDPOINT_URL"], embedded=keys)
    sent: list[int] = []
    send_until = timed_sdk_sender(aws, "the table", timeout=5.0, connect=3.0)

    def counting(deadline: Deadline) -> Send:
        send = send_until(deadline)

        def send_and_count(operation: str, request: dict[str, Any]) -> Any:
            if operation == "TransactWriteItems":
                sent.append(1)
            return send(operation, request)

        return send_and_count

    claims = Claims(counting, "Counters")
    claims.claim("invoices", record, Deadline(60))
    print("ready", flush=True)  # noqa: T201 - the other process waits for it
    sys.stdin.readline()
    sent.clear()
    began = time.monotonic()

    def work(_: int) -> int:
        done = 0
        while time.monotonic() < began + seconds:
            claims.claim("invoices", record, Deadline(60))
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    took = time.monotonic() - began
    print(json.dumps({"claims": done, "transactions": len(sent), "seconds": took}))  # noqa: T201 - the same


def record(number: int) -> list[dict[str, Any]]:
    """Put a record for the number, unless there is one."""
    item = {"number": {"N": str(number)}, "who": {"S": "Ada"}}
    return [{"Put": {"TableName": "Records", "Item": item, "ConditionExpression": "attribute_not_exists(who)"}}]


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
