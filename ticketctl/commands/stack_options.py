"""The options of ``deploy`` and ``diff``, what they accept, and the template's parameters that they set."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ticketctl.commands.options import Run, integer_range
from ticketctl.errors import UsageError

if TYPE_CHECKING:
    from ticketctl.aws.stacks import StackOptions

PARAMETERS: dict[str, Any] = {
    "public": Annotated[
        bool | None,
        typer.Option(
            "--public/--no-public",
            help="Let anyone who has the URL mint. Default: unchanged; private for a new stack.",
        ),
    ],
    "max_count": Annotated[
        int | None,
        typer.Option(
            parser=integer_range(0),
            metavar="N",
            help="Limit the tickets per request. Default: unchanged; 10000 for a new stack.",
        ),
    ],
    "offset": Annotated[
        int | None,
        typer.Option(
            parser=integer_range(0), metavar="N", help="Start new counters at this ticket. Default: unchanged, or 1."
        ),
    ],
    "increment": Annotated[
        int | None,
        typer.Option(parser=integer_range(0), metavar="N", help="Set new counters' step. Default: unchanged, or 1."),
    ],
    "reserved_concurrency": Annotated[
        int | None,
        typer.Option(
            parser=integer_range(-1),
            metavar="N",
            help="Reserve executions for the function; -1 reserves none. Default: unchanged, or -1.",
        ),
    ],
    "log_retention": Annotated[
        int | None,
        typer.Option(
            parser=integer_range(0),
            metavar="DAYS",
            help="Keep log lines this many days. Default: unchanged, or 30.",
        ),
    ],
    "alarm_email": Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Send alarms to this address. Default: unchanged, or no alarms."),
    ],
    "alarm_topic": Annotated[
        str | None,
        typer.Option(metavar="ARN", help="Send alarms to this SNS topic. Default: unchanged, or no alarms."),
    ],
    "no_alarms": Annotated[bool, typer.Option("--no-alarms", help="Delete the alarms. Default: unchanged.")],
    "tag": Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Tag the stack and its resources; replaces all its tags. Repeat for several. Default: unchanged.",
        ),
    ],
    "no_tags": Annotated[bool, typer.Option("--no-tags", help="Delete all tags. Default: unchanged.")],
    "role_arn": Annotated[
        str | None,
        typer.Option(
            metavar="ARN",
            help="Let CloudFormation deploy with this IAM role. Default: unchanged; your own permissions.",
        ),
    ],
    "termination_protection": Annotated[
        bool | None,
        typer.Option(
            "--termination-protection/--no-termination-protection",
            help="Refuse to delete the stack. Default: unchanged; off for a new stack.",
        ),
    ],
}
TEMPLATE_NAMES = {
    "max_count": "MaxCount",
    "offset": "Offset",
    "increment": "Increment",
    "reserved_concurrency": "ReservedConcurrency",
    "log_retention": "LogRetentionDays",
}
"""The template's parameters that options with a number set."""
NOBODY = "none"
"""The template's parameters for alarms have this value if there are none."""
_MOST_TAGS, _KEY_LENGTH, _VALUE_LENGTH = 50, 128, 256
_TAG_TEXT = r"[\w .:/=+\-@]+"
_TAG_HINT = "KEY=VALUE; both have letters, digits, spaces and _ . : / = + - @, up to 128 and 256 characters"
_ADDRESS = r"[^@\s]+@[^@\s]+"
_TOPIC = r"arn:[a-z-]+:sns:([a-z0-9-]+):[0-9]{12}:[\w-]{1,256}"
_ROLE = r"arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]+"


def template_parameters(run: Run, *, table_only: bool) -> dict[str, str]:
    """The template's parameters that options set, checked against what the template allows."""
    from ticketctl.aws.template import load

    flags = run.flags
    if table_only:
        _refuse_function_options(flags)
    if flags["offset"] == 0:
        raise UsageError("--offset 0 is not allowed", hint="from 1 up to 1000000")
    template = load(run.settings.stack)
    named = {TEMPLATE_NAMES[flag]: (flag, flags[flag]) for flag in TEMPLATE_NAMES if flags[flag] is not None}
    for name, (flag, value) in named.items():
        rules = template["Parameters"][name]
        allowed = rules.get("AllowedValues", [])
        too_small, too_large = value < rules.get("MinValue", value), value > rules.get("MaxValue", value)
        if too_small or too_large or (allowed and str(value) not in allowed):
            span = f"from {rules.get('MinValue')} up to {rules.get('MaxValue', 'any number')}"
            hint = f"one of {', '.join(allowed)}" if allowed else span
            raise UsageError(f"--{flag.replace('_', '-')} {value} is not allowed", hint=hint)
    parameters = {name: str(value) for name, (_, value) in named.items()}
    if flags["public"] is not None:
        parameters["AuthType"] = "NONE" if flags["public"] else "AWS_IAM"
    return parameters | alarm_parameters(flags, run.regions.names)


def _refuse_function_options(flags: Mapping[str, Any]) -> None:
    for name in ("public", "max_count", "reserved_concurrency", "log_retention"):
        if flags[name] is not None:
            option = f"--{'no-' * (flags[name] is False)}{name.replace('_', '-')}"
            raise UsageError(f"--table-only and {option} cannot be combined", hint="remove one of them")


def stack_options(flags: Mapping[str, Any]) -> "StackOptions":
    """The options of a deployment that are no parameters of the template."""
    from ticketctl.aws.stacks import StackOptions

    if flags["tag"] and flags["no_tags"]:
        raise UsageError("--tag and --no-tags contradict each other")
    role = flags["role_arn"]
    if role is not None and not re.fullmatch(_ROLE, role, re.ASCII):
        raise UsageError(f"--role-arn {role!r} is not the ARN of a role", hint="arn:aws:iam::ACCOUNT:role/NAME")
    tags = tags_of(flags["tag"]) if flags["tag"] else ({} if flags["no_tags"] else None)
    return StackOptions(tags=tags, role_arn=role, protects=flags["termination_protection"])


def tags_of(texts: Sequence[str]) -> dict[str, str]:
    """The tags of ``KEY=VALUE`` texts; ``UsageError`` if AWS would not take them."""
    tags: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        fits = len(key) <= _KEY_LENGTH and len(value) <= _VALUE_LENGTH
        if not (fits and re.fullmatch(_TAG_TEXT, key) and re.fullmatch(_TAG_TEXT, value)):
            raise UsageError(f"--tag {text!r} is not a tag", hint=_TAG_HINT)
        if key.lower().startswith("aws:"):
            raise UsageError(f"--tag {text!r} is not allowed: AWS reserves keys that begin with aws:")
        if key in tags:
            raise UsageError(f"--tag {key} is given twice")
        tags[key] = value
    if len(tags) > _MOST_TAGS:
        raise UsageError(f"{len(tags)} tags are not allowed", hint=f"up to {_MOST_TAGS}")
    return tags


def alarm_parameters(flags: Mapping[str, Any], regions: Sequence[str]) -> dict[str, str]:
    """The template's parameters for alarms in these regions; empty if no option is about them."""
    email, topic = flags["alarm_email"], flags["alarm_topic"]
    given = [name for name in ("alarm_email", "alarm_topic", "no_alarms") if flags[name] not in (None, False)]
    if len(given) > 1:
        raise UsageError(" and ".join(f"--{name.replace('_', '-')}" for name in given) + " contradict each other")
    if email is not None and not re.fullmatch(_ADDRESS, email):
        raise UsageError(f"--alarm-email {email!r} is not an email address", hint="--no-alarms deletes the alarms")
    if topic is not None:
        _check_topic(topic, regions)
    return {"AlarmEmail": email or NOBODY, "AlarmTopic": topic or NOBODY} if given else {}


def _check_topic(topic: str, regions: Sequence[str]) -> None:
    found = re.fullmatch(_TOPIC, topic, re.ASCII)
    if found is None:
        hint = "arn:aws:sns:REGION:ACCOUNT:NAME; --no-alarms deletes the alarms"
        raise UsageError(f"--alarm-topic {topic!r} is not the ARN of an SNS topic", hint=hint)
    if others := [region for region in regions if region != found[1]]:
        message = f"alarms in {', '.join(others)} cannot use a topic in {found[1]}"
        raise UsageError(message, hint="deploy each region with its own topic: --region REGION --alarm-topic ARN")
