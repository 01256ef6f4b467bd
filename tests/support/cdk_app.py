"""A CDK app that uses the construct in stacks of its own; ``tests/test_cdk.py`` runs it.

Writes ``errors.json`` and ``wrong_tokens.json`` into the cloud assembly, too: what each construct that cannot be made
says.
"""

import json
import os
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns

from ticketctl.cdk import TicketServer

BAD: list[dict[str, Any]] = [
    {"auth": "none"},
    {"offset": -1},
    {"offset": 1_000_001},
    {"increment": 0},
    {"increment": 1_000_001},
    {"increment": 1.5},
    {"max_count": 0},
    {"max_count": 10_001},
    {"reserved_concurrency": -1},
    {"reserved_concurrency": 10**30},
    {"log_retention_days": 2},
    {"increment": True},
    {"max_count": float("nan")},
    {"reserved_concurrency": False},
    {"log_retention_days": True},
    {"log_retention_days": float("inf")},
    {"table_name": ""},
    {"table_name": "Bestellungen für uns"},
    {"removal_policy": cdk.RemovalPolicy.SNAPSHOT},
]


def add_plain(app: cdk.App) -> None:
    """A server with nothing set, beside other resources."""
    stack = cdk.Stack(app, "Plain")
    server = TicketServer(stack, "Tickets")
    for name, grant in {"Url": server.grant_mint, "Table": server.grant_mint_from_table}.items():
        grant(iam.Role(stack, f"MintsFrom{name}", assumed_by=iam.AccountRootPrincipal()))
    made = {"Url": server.url, "Table": server.table.table_name, "Function": server.function.function_name}
    for name, value in made.items():
        cdk.CfnOutput(stack, name, value=value)


def add_full(app: cdk.App) -> None:
    """A server with everything set, in a stack of one account and region."""
    stack = cdk.Stack(app, "Full", env=cdk.Environment(account="123456789012", region="eu-central-1"))
    TicketServer(
        stack,
        "Tickets",
        auth=lambda_.FunctionUrlAuthType.NONE,
        offset=2,
        increment=3,
        max_count=50,
        reserved_concurrency=5,
        log_retention_days=400,
        removal_policy=cdk.RemovalPolicy.DESTROY,
        table_name="ShopTickets",
        alarm_topic=sns.Topic(stack, "Ops"),
    )


def add_several(app: cdk.App) -> None:
    """Several servers in one stack, with one topic for the alarms of all."""
    stack = cdk.Stack(app, "Several")
    topic = sns.Topic(stack, "Ops")
    for name in ("Orders", "Invoices", "a b", "a:b", "a_b"):
        TicketServer(stack, name, alarm_topic=topic)


def add_tokens(app: cdk.App) -> None:
    """A server whose auth is only known when it is deployed."""
    stack = cdk.Stack(app, "Tokens")
    auth = cdk.CfnParameter(stack, "Auth", default="NONE")
    step = cdk.CfnParameter(stack, "Step", type="Number", default=2)
    count = cdk.Token.as_number(cdk.CfnParameter(stack, "Count").value_as_string)
    TicketServer(
        stack,
        "Tickets",
        auth=auth.value_as_string,
        increment=step.value_as_number,
        max_count=count,
        reserved_concurrency=count,
    )


def wrong_tokens() -> dict[str, str]:
    """The message for a token of the wrong type, by property."""
    stack = cdk.Stack(None, "WrongTokens")
    text = cdk.CfnParameter(stack, "Text").value_as_string
    number = cdk.CfnParameter(stack, "Number", type="Number").value_as_number
    tokens = {
        "auth": number,
        "offset": text,
        "increment": text,
        "max_count": text,
        "reserved_concurrency": text,
        "log_retention_days": text,
        "table_name": number,
    }
    return {name: error_of(stack, {name: token}) for name, token in tokens.items()}


def error_of(stack: cdk.Stack, properties: dict[str, Any]) -> str:
    """The message of a construct that cannot be made."""
    try:
        TicketServer(stack, "Tickets", **properties)
    except ValueError as error:
        return str(error)
    return "none"


def errors() -> dict[str, str]:
    """The message of each construct that cannot be made, by its properties."""
    return {
        json.dumps(properties, default=str): error_of(cdk.Stack(None, f"Bad{number}"), properties)
        for number, properties in enumerate(BAD)
    }


def main() -> None:
    """Synthesize all stacks."""
    app = cdk.App(analytics_reporting=False, tree_metadata=False, builtin_cloud_formation_validation=False)
    for add in (add_plain, add_full, add_several, add_tokens):
        add(app)
    app.synth()
    for name, found in {"errors": errors(), "wrong_tokens": wrong_tokens()}.items():
        (Path(os.environ["CDK_OUTDIR"]) / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
