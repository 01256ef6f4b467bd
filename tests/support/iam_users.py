"""IAM users of the embedded AWS, with the policies of ``docs/policies`` or others."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.support.embedded_aws import REGION
from ticketctl.aws.account import Aws

POLICIES = Path(__file__).parents[2] / "docs" / "policies"
CHANGE_SETS = f"arn:aws:cloudformation:{REGION}:000000000000:changeSet/ticketctl-*"
LOG_GROUPS = "log-group:STACK-*"


def make_user(aws: Aws, name: str, *statements: Mapping[str, object]) -> dict[str, str]:
    """Create an IAM user with a policy; return the environment variables of its credentials."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    if statements:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": str(aws.endpoint_url),
    }


def policy(name: str, stack: str) -> list[dict[str, object]]:
    """Return the statements of a documented policy, for one stack.

    The embedded AWS does not know which change set a request is about, so it becomes ``*``, and names log groups
    otherwise than AWS does.
    """
    text = (POLICIES / f"{name}.json").read_text(encoding="utf-8")
    replaced = {LOG_GROUPS: f"log-group:/aws/cloudformation/{stack}/*", "ACCOUNT": "000000000000", "REGION": REGION}
    for placeholder, value in {**replaced, "STACK": stack, CHANGE_SETS: "*"}.items():
        text = text.replace(placeholder, value)
    statements: list[dict[str, object]] = json.loads(text)["Statement"]
    return statements
