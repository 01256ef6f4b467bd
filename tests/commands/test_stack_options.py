"""Tags, role, protection and alarms, as ``deploy`` and ``diff`` accept them."""

from typing import Any

import pytest

from ticketctl.aws.stacks import StackOptions
from ticketctl.commands.stack_options import PARAMETERS, alarm_parameters, stack_options, tags_of
from ticketctl.errors import UsageError

NONE: dict[str, Any] = dict.fromkeys(PARAMETERS)
ROLE = "arn:aws-us-gov:iam::123456789012:role/deployers/cfn-deploy"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:ops_alarms"
EU, US = "eu-west-1", "us-east-1"


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ({}, StackOptions()),
        ({"tag": ["a=b", "c=d=e", "x:y/z= 1 "]}, StackOptions(tags={"a": "b", "c": "d=e", "x:y/z": " 1 "})),
        ({"no_tags": True}, StackOptions(tags={})),
        ({"role_arn": ROLE}, StackOptions(role_arn=ROLE)),
        ({"termination_protection": False}, StackOptions(protects=False)),
    ],
)
def test_options(flags: dict[str, Any], options: StackOptions) -> None:
    """Options that are not given keep their values; that is different from no tags."""
    assert stack_options({**NONE, **flags}) == options


@pytest.mark.parametrize(
    "text", ["foo", "", "=", "=v", "k=", "k=a\nb", "k\t=v", "k=!", "k" * 129 + "=v", "k=" + "v" * 257]
)
def test_invalid_tags(text: str) -> None:
    """A tag needs a key and a value with characters and lengths that AWS allows."""
    with pytest.raises(UsageError, match="is not a tag") as caught:
        tags_of([text])
    assert caught.value.hint.startswith("KEY=VALUE")


@pytest.mark.parametrize("key", ["aws:a", "AWS:a", "aWs:"])
def test_reserved_tags(key: str) -> None:
    """AWS reserves the prefix ``aws:``, in upper and lower case."""
    with pytest.raises(UsageError, match="reserves"):
        tags_of([f"{key}=v"])


def test_too_many_tags() -> None:
    """A stack has at most 50 tags, each with a different key."""
    texts = [f"k{number}=v" for number in range(51)]
    assert len(tags_of(texts[:50])) == 50
    with pytest.raises(UsageError, match="51 tags"):
        tags_of(texts)
    with pytest.raises(UsageError, match="twice"):
        tags_of(["a=b", "a=b"])


@pytest.mark.parametrize(
    "flags",
    [
        {"tag": ["a=b"], "no_tags": True},
        {"role_arn": ""},
        {"role_arn": "deployer"},
        {"role_arn": "arn:aws:iam::123456789012:user/me"},
    ],
)
def test_refused_options(flags: dict[str, Any]) -> None:
    """Contradicting options and an invalid role are wrong usage."""
    with pytest.raises(UsageError):
        stack_options({**NONE, **flags})


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ({}, {}),
        ({"no_alarms": False}, {}),
        ({"alarm_email": "a@example.org"}, {"AlarmEmail": "a@example.org", "AlarmTopic": "none"}),
        ({"alarm_topic": TOPIC}, {"AlarmEmail": "none", "AlarmTopic": TOPIC}),
        ({"no_alarms": True}, {"AlarmEmail": "none", "AlarmTopic": "none"}),
    ],
)
def test_alarm_parameters(flags: dict[str, Any], parameters: dict[str, str]) -> None:
    """The alarms have one destination; without options they keep their settings."""
    assert alarm_parameters({**NONE, **flags}, [EU]) == parameters


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"alarm_email": ""}, "is not an email address"),
        ({"alarm_email": "none"}, "is not an email address"),
        ({"alarm_email": "a@b c"}, "is not an email address"),
        ({"alarm_topic": ""}, "is not the ARN of an SNS topic"),
        ({"alarm_topic": "none"}, "is not the ARN of an SNS topic"),
        ({"alarm_topic": f"{TOPIC}.fifo"}, "is not the ARN of an SNS topic"),
        ({"alarm_email": "a@b", "alarm_topic": TOPIC}, "--alarm-email and --alarm-topic contradict each other"),
        ({"alarm_email": "a@b", "no_alarms": True}, "--alarm-email and --no-alarms contradict each other"),
        ({"alarm_topic": TOPIC}, f"alarms in {US} cannot use a topic in {EU}"),
    ],
)
def test_refused_alarms(flags: dict[str, Any], message: str) -> None:
    """An invalid address, a topic of another region, and two alarm options at once are wrong usage."""
    with pytest.raises(UsageError, match=message):
        alarm_parameters({**NONE, **flags}, [EU, US])
