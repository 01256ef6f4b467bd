"""Tags, termination protection and alarms of a stack, set and removed by ``deploy``."""

import json
from typing import Any

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import physical_id
from ticketctl.aws.account import Aws


def alarms_of(aws: Aws, stack: str) -> dict[str, dict[str, Any]]:
    """Return the alarms of a stack, by metric."""
    found = aws.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{stack}-")["MetricAlarms"]
    return {alarm["MetricName"]: alarm for alarm in found}


def tags_of(aws: Aws, stack: str) -> list[dict[str, str]]:
    """Return the user's tags of a stack's table."""
    dynamodb = aws.client("dynamodb")
    arn = dynamodb.describe_table(TableName=stack)["Table"]["TableArn"]
    tags = dynamodb.list_tags_of_resource(ResourceArn=arn)["Tags"]
    return [tag for tag in tags if not tag["Key"].startswith("aws:")]


def test_alarms_are_set_kept_and_removed(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """A deployment without these options keeps alarms and tags; ``--no-alarms`` and ``--no-tags`` remove them."""
    options = ("--local", "--stack", new_stack)
    first = ticketctl("deploy", *options, "--tag", "team=ids", "--alarm-email", "a@example.org")
    assert first.returncode == 0, first.stderr
    topic = physical_id(aws, new_stack, "AWS::SNS::Topic")
    subscriptions = aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert [(each["Protocol"], each["Endpoint"]) for each in subscriptions] == [("email", "a@example.org")]
    alarms = alarms_of(aws, new_stack)
    metrics = ["CountersRunningOut", "Throttles", "Url5xxCount", "UrlRequestLatency", "WriteThrottleEvents"]
    assert (sorted(alarms), tags_of(aws, new_stack)) == (metrics, [{"Key": "team", "Value": "ids"}])
    assert [alarm["AlarmActions"] for alarm in alarms.values()] == [[topic]] * 5

    again = ticketctl("deploy", *options)
    assert (again.returncode, again.stderr.splitlines()[1]) == (0, "no changes")
    assert (alarms_of(aws, new_stack).keys(), len(tags_of(aws, new_stack))) == (alarms.keys(), 1)

    last = ticketctl("deploy", *options, "--no-alarms", "--no-tags")
    assert last.returncode == 0, last.stderr
    assert (alarms_of(aws, new_stack), tags_of(aws, new_stack)) == ({}, [])
    assert topic not in [each["TopicArn"] for each in aws.client("sns").list_topics()["Topics"]]


def test_an_alarm_is_triggered(ticketctl: Ticketctl, aws: Aws, new_stack: str) -> None:
    """Alarms with the user's own topic can be added to an existing stack; a counter that runs out triggers one."""
    options, cloudwatch = ("--local", "--stack", new_stack), aws.client("cloudwatch")
    assert ticketctl("deploy", *options).returncode == 0
    assert alarms_of(aws, new_stack) == {}
    topic = aws.client("sns").create_topic(Name=new_stack)["TopicArn"]
    added = ticketctl("deploy", *options, "--alarm-topic", topic)
    assert added.returncode == 0, added.stderr
    alarm = alarms_of(aws, new_stack)["CountersRunningOut"]
    assert (alarm["AlarmActions"], alarm["Namespace"]) == ([topic], f"ticketctl/{new_stack}")
    data = {"MetricName": alarm["MetricName"], "Value": 1}
    cloudwatch.put_metric_data(Namespace=alarm["Namespace"], MetricData=[data])
    assert alarms_of(aws, new_stack)["CountersRunningOut"]["StateValue"] == "ALARM"


def test_a_protected_stack(ticketctl: Ticketctl, new_stack: str) -> None:
    """With termination protection, destroy deletes neither stack nor table and prints how to remove the protection."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", *options, "--termination-protection").returncode == 0
    run = ticketctl("destroy", *options, "--yes", "--delete-tickets", new_stack, "--json")
    error = {
        "code": "refused",
        "message": f"the stack {new_stack} has termination protection in us-east-1; nothing was deleted",
        "hint": f"ticketctl deploy --no-termination-protection --stack {new_stack} --local",
        "exit_code": 6,
    }
    assert (run.returncode, run.stdout, json.loads(run.stderr)) == (6, "", {"error": error})
    assert ticketctl("next", *options).stdout == "1\n"
    changed = ticketctl("deploy", *options, "--no-termination-protection", "--json")
    assert (changed.returncode, json.loads(changed.stdout)["changed"]) == (0, True)
    assert ticketctl("destroy", *options, "--yes").returncode == 0


def test_wrong_usage(ticketctl: Ticketctl, new_stack: str) -> None:
    """Invalid options are wrong usage, and nothing is deployed."""
    place = ("--local", "--stack", new_stack)
    for option in (("--tag", "foo"), ("--tag", "aws:a=b"), ("--role-arn", "me"), ("--alarm-email", "me")):
        run = ticketctl("deploy", *place, *option)
        assert (run.returncode, run.stdout, run.stderr.startswith(f"error: {option[0]} ")) == (2, "", True)
    assert ticketctl("destroy", *place).stderr.startswith("nothing to destroy")
