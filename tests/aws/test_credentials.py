"""``credentials``: the AWS CLI and ticketctl use the same credentials in every environment."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from botocore.exceptions import PartialCredentialsError
from botocore.session import Session as BotocoreSession

from ticketctl.aws.account import Aws
from ticketctl.deployments.cache import key_of
from ticketctl.deployments.session import Session
from ticketctl.errors import NoCredentialsError, ProfileNotFoundError
from ticketctl.settings import Settings, resolve

KEYS: list[Mapping[str, str]] = [
    {},
    {"AWS_ACCESS_KEY_ID": "ENV"},
    {"AWS_SECRET_ACCESS_KEY": "x"},
    {"AWS_SESSION_TOKEN": "token"},
    {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x"},
    {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "token"},
    {
        "AWS_ACCESS_KEY_ID": "ENV",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "token",
        "AWS_SECURITY_TOKEN": "older",
    },
]
PROFILES = [None, "work", "bare"]
NAMED_BY = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "TICKETCTL_PROFILE", "--profile", "the configuration file"]
Choice = tuple[str, str] | str
"""The access key and the token, or the reason why there are none."""


@pytest.fixture(autouse=True)
def files(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two profiles with keys, ``default`` and ``work``, and ``bare`` without keys."""
    (no_aws / "aws_config").write_text("[profile bare]\nregion = eu-west-1\n", encoding="utf-8")
    keys = "[{0}]\naws_access_key_id = {0}\naws_secret_access_key = x\n"
    (no_aws / "aws_credentials").write_text(keys.format("default") + keys.format("work"), encoding="utf-8")
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    return no_aws


def resolved(files: Path, named_by: str, profile: str | None) -> Settings:
    """Resolve the settings if the profile is named in that place; a variable is already set in the environment."""
    (files / "config.toml").write_text(
        f'profile = "{profile}"\n' if profile and named_by == NAMED_BY[-1] else "", encoding="utf-8"
    )
    return resolve({"region": "us-east-1", "profile": profile if named_by == "--profile" else None}, os.environ)


def choice_of(aws: Aws) -> Choice:
    try:
        found = aws.credentials()
    except NoCredentialsError as error:
        return "incomplete" if "incomplete" in error.message else "none"
    plain = aws.plain_credentials
    assert plain is None or plain == (found.access_key, found.secret_key, found.token or "")
    return found.access_key, found.token or ""


def choice_of_botocore(profile: str | None, *, explicit: bool) -> Choice:
    """Return botocore's choice: the AWS CLI's ``--profile`` is explicit, a default profile is not."""
    variables = {"profile": (None, None, profile, None)} if profile and not explicit else None
    session = BotocoreSession(profile=profile if explicit else None, session_vars=variables)
    try:
        found = session.get_credentials()
    except PartialCredentialsError:
        return "incomplete"
    return "none" if found is None else (found.access_key, found.token or "")


@pytest.mark.parametrize("named_by", NAMED_BY)
def test_as_botocore(files: Path, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    """The credentials are the same as botocore's, and a cached stack belongs to those credentials.

    ``TICKETCTL_PROFILE`` is explicit, like ``--profile``; the configuration file only sets the default.
    """
    owners: dict[str, set[str]] = {}
    for keys, profile in itertools.product(KEYS, PROFILES):
        with monkeypatch.context() as patched:
            by_variable = {named_by: profile} if profile and named_by.isupper() else {}
            for name, value in {**keys, **by_variable}.items():
                patched.setenv(name, value)
            settings = resolved(files, named_by, profile)
            ours = choice_of(Session(settings, environ=os.environ).aws)
            explicit = named_by in ("--profile", "TICKETCTL_PROFILE")
            assert ours == choice_of_botocore(profile, explicit=explicit), (keys, profile)
            key = key_of(stack="Tickets", endpoint=None, profile=settings.profile, environ=os.environ)
            owners.setdefault(key, set()).add(ours[0] if isinstance(ours, tuple) else "")
            assert ("the access key" in settings.identity) == (ours == "incomplete" or ours[0] == "ENV")
    assert [key for key, keys in owners.items() if len(keys - {""}) > 1] == []


def test_web_identity_comes_before_a_default_profile(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    """A web identity role in the environment is used instead of a default profile, as in botocore."""
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tickets")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(files / "no-token"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    default = Session(resolved(files, "AWS_PROFILE", "work"), environ=os.environ).aws
    with pytest.raises(Exception, match="no-token"):
        default.credentials()
    explicit = Session(resolved(files, "--profile", "work"), environ=os.environ).aws
    assert explicit.credentials().access_key == "work"


def test_same_credentials_same_stack(files: Path) -> None:
    """The cache entry of an explicit profile does not depend on the access key in the environment."""
    settings = resolved(files, "--profile", "work")
    keys = [
        key_of(stack="Tickets", endpoint=None, profile=settings.profile, environ={"AWS_ACCESS_KEY_ID": key})
        for key in ("A", "B")
    ]
    assert keys[0] == keys[1]


def test_origin(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``origins`` and ``identity`` say that access keys in the environment override a default profile."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_PROFILE", "work")
    settings = resolved(files, "AWS_PROFILE", "work")
    assert (settings.profile, settings.origins["profile"], settings.identity) == (
        None,
        "AWS_ACCESS_KEY_ID, against AWS_PROFILE",
        "the access key in AWS_ACCESS_KEY_ID",
    )


def test_a_default_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    """A profile that does not exist is an error even if the access key is in the environment, as in the AWS CLI."""
    for name, value in {**KEYS[4], "AWS_PROFILE": "nope"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProfileNotFoundError, match="the AWS profile 'nope' does not exist; existing profiles: "):
        Session(resolved(files, "AWS_PROFILE", "nope"), environ=os.environ).aws.credentials()
