"""``settings``: the origin of each value, and which values are rejected."""

import re
from pathlib import Path
from typing import Any

import pytest

from ticketctl.errors import FileError, NoRegionError, UsageError
from ticketctl.settings import Settings, resolve

DEFAULTS: dict[str, Any] = {
    "stack": "Tickets",
    "table": None,
    "region": None,
    "regions": (),
    "profile": None,
    "partition": None,
    "via": "url",
    "local": False,
    "endpoint_url": None,
    "url": None,
    "timeout": 10.0,
    "sqid_alphabet": None,
}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"TICKETCTL_HOME": str(tmp_path)}


def configure(home: dict[str, str], text: str) -> str:
    file = Path(home["TICKETCTL_HOME"]) / "config.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_defaults(home: dict[str, str]) -> None:
    """If nothing is set, each value and its origin is the default."""
    assert resolve({}, home) == Settings(**DEFAULTS, origins=dict.fromkeys(DEFAULTS, "default"))


@pytest.mark.parametrize(
    ("given", "region", "origin"),
    [
        ("flag TICKETCTL_REGION AWS_REGION AWS_DEFAULT_REGION file profile", "eu-flag-1", "--region"),
        ("TICKETCTL_REGION AWS_REGION AWS_DEFAULT_REGION file profile", "eu-ticketctl-1", "TICKETCTL_REGION"),
        ("AWS_REGION AWS_DEFAULT_REGION file profile", "eu-aws-1", "AWS_REGION"),
        ("AWS_DEFAULT_REGION file profile", "eu-awsdefault-1", "AWS_DEFAULT_REGION"),
        ("file profile", "eu-file-1", "{file}"),
        ("profile", "eu-profile-1", "AWS profile default"),
        ("", None, "default"),
    ],
)
def test_region_precedence(home: dict[str, str], given: str, region: str | None, origin: str) -> None:
    """The region comes from the flag, TICKETCTL_*, AWS_*, the file, or the AWS profile, in this order."""
    variables = {
        "TICKETCTL_REGION": "eu-ticketctl-1",
        "AWS_REGION": "eu-aws-1",
        "AWS_DEFAULT_REGION": "eu-awsdefault-1",
    }
    file = configure(home, 'region = "eu-file-1"' if "file" in given.split() else "")
    settings = resolve(
        {"region": "eu-flag-1" if "flag" in given.split() else None},
        home | {name: value for name, value in variables.items() if name in given.split()},
        profile_region=lambda profile: "eu-profile-1" if "profile" in given.split() else None,
    )
    assert settings == Settings(
        **DEFAULTS | {"region": region, "regions": (region,) if region else ()},
        origins=dict.fromkeys(DEFAULTS, "default") | dict.fromkeys(("region", "regions"), origin.format(file=file)),
    )


def test_every_setting_from_the_file(home: dict[str, str]) -> None:
    """The configuration file can contain every setting, with hyphens or underscores, and is then its origin."""
    file = configure(
        home,
        """
        stack = "orders"
        region = "eu-west-1"
        profile = "work"
        partition = "größe"
        via = "dynamodb"
        local = false
        endpoint-url = "http://127.0.0.1:4566"
        timeout = 2.5
        sqid-alphabet = "xyz123"
        """,
    )
    assert resolve({}, home) == Settings(
        stack="orders",
        region="eu-west-1",
        regions=("eu-west-1",),
        profile="work",
        partition="größe",
        via="dynamodb",
        local=False,
        endpoint_url="http://127.0.0.1:4566",
        url=None,
        timeout=2.5,
        sqid_alphabet="xyz123",
        origins=dict.fromkeys(DEFAULTS, file) | {"url": "default", "table": "default"},
    )


def test_every_setting_from_the_environment(home: dict[str, str]) -> None:
    """Every setting has a TICKETCTL_ variable."""
    variables = {
        "TICKETCTL_STACK": "orders",
        "TICKETCTL_REGION": "eu-west-1",
        "TICKETCTL_PROFILE": "work",
        "TICKETCTL_PARTITION": "invoices",
        "TICKETCTL_VIA": "url",
        "TICKETCTL_LOCAL": "0",
        "TICKETCTL_ENDPOINT_URL": "http://127.0.0.1:4566",
        "TICKETCTL_URL": "https://tickets.example",
        "TICKETCTL_TIMEOUT": "2.5",
        "TICKETCTL_SQID_ALPHABET": "xyz123",
    }
    assert resolve({}, home | variables) == Settings(
        stack="orders",
        region="eu-west-1",
        regions=("eu-west-1",),
        profile="work",
        partition="invoices",
        via="url",
        local=False,
        endpoint_url="http://127.0.0.1:4566",
        url="https://tickets.example",
        timeout=2.5,
        sqid_alphabet="xyz123",
        origins={name: f"TICKETCTL_{name.upper()}" for name in DEFAULTS}
        | {"regions": "TICKETCTL_REGION", "table": "default"},
    )


def test_aws_variables(home: dict[str, str]) -> None:
    """The profile and the endpoint come from AWS's variables if ticketctl's are unset."""
    settings = resolve({}, home | {"AWS_PROFILE": "work", "AWS_ENDPOINT_URL": "http://127.0.0.1:4566"})
    assert settings == Settings(
        **DEFAULTS | {"profile": "work", "endpoint_url": "http://127.0.0.1:4566"},
        origins=dict.fromkeys(DEFAULTS, "default") | {"profile": "AWS_PROFILE", "endpoint_url": "AWS_ENDPOINT_URL"},
    )


def test_empty_variable(home: dict[str, str]) -> None:
    """An empty variable counts as unset."""
    assert resolve({}, home | {"TICKETCTL_STACK": "", "AWS_REGION": ""}) == resolve({}, home)


def test_region_of_the_profile(home: dict[str, str]) -> None:
    """The region comes from the selected AWS profile."""
    settings = resolve({"profile": "work"}, home, profile_region=lambda profile: f"eu-{profile}-1")
    assert (settings.region, settings.origins["region"]) == ("eu-work-1", "AWS profile work")


def test_local_ignores_aws(home: dict[str, str]) -> None:
    """With --local, all settings of a real AWS are ignored."""
    variables = {
        "AWS_REGION": "eu-west-1",
        "AWS_PROFILE": "work",
        "AWS_ENDPOINT_URL": "https://aws.example",
        "TICKETCTL_PROFILE": "work",
        "TICKETCTL_ENDPOINT_URL": "https://aws.example",
        "TICKETCTL_URL": "https://tickets.example",
    }
    assert resolve({"local": True}, home | variables, profile_region=lambda profile: "eu-profile-1") == Settings(
        **DEFAULTS | {"local": True, "region": "us-east-1", "regions": ("us-east-1",)},
        origins=dict.fromkeys(DEFAULTS, "default")
        | {"local": "--local"}
        | dict.fromkeys(("region", "regions"), "default of --local"),
    )


@pytest.mark.parametrize(
    ("flags", "variables", "text", "origin"),
    [
        ({"region": "eu-west-1"}, {}, "", "--region"),
        ({}, {"TICKETCTL_REGION": "eu-west-1", "AWS_REGION": "eu-north-1"}, "", "TICKETCTL_REGION"),
        ({}, {}, 'region = "eu-west-1"', "{file}"),
    ],
)
def test_local_region(
    home: dict[str, str], flags: dict[str, Any], variables: dict[str, str], text: str, origin: str
) -> None:
    """With --local, the region comes only from ticketctl's own settings."""
    file = configure(home, text)
    settings = resolve({"local": True, **flags}, home | variables)
    assert (settings.region, settings.origins["region"]) == ("eu-west-1", origin.format(file=file))


@pytest.mark.parametrize(("name", "flag"), [("profile", "--profile"), ("endpoint_url", "--endpoint-url")])
def test_local_refuses_flags_of_a_real_aws(home: dict[str, str], name: str, flag: str) -> None:
    """With --local, a flag for a real AWS is wrong usage, and the error names the origin of ``local``."""
    with pytest.raises(UsageError) as caught:
        resolve({name: "https://aws.example"}, home | {"TICKETCTL_LOCAL": "1"})
    assert (caught.value.message, caught.value.hint) == (
        f"{flag} cannot be used with the embedded AWS (local from TICKETCTL_LOCAL)",
        f"remove {flag}, or pass --no-local",
    )


def test_local_with_a_typed_url(home: dict[str, str]) -> None:
    """With --local, a typed URL is still used."""
    settings = resolve({"local": True, "url": "http://127.0.0.1:4566"}, home | {"TICKETCTL_URL": "https://aws.example"})
    assert (settings.local, settings.url, settings.origins["url"]) == (True, "http://127.0.0.1:4566", "--url")


@pytest.mark.parametrize(
    ("word", "local"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("on", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("off", False),
    ],
)
def test_local_from_the_environment(home: dict[str, str], word: str, local: bool) -> None:
    """TICKETCTL_LOCAL switches the embedded AWS on or off."""
    settings = resolve({}, home | {"TICKETCTL_LOCAL": word})
    assert (settings.local, settings.origins["local"]) == (local, "TICKETCTL_LOCAL")


def test_no_local(home: dict[str, str]) -> None:
    """--no-local overrides TICKETCTL_LOCAL."""
    assert resolve({"local": False, "profile": "work"}, home | {"TICKETCTL_LOCAL": "1"}).local is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stack", "ab"),
        ("stack", "1orders"),
        ("stack", "or_ders"),
        ("stack", "orders\n"),
        ("stack", "a" * 129),
        ("region", ""),
        ("region", "frankfurt"),
        ("region", "us-east-1.evil.example/"),
        ("via", "carrier pigeon"),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", 3600.1),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", "abc"),
        ("url", ""),
        ("url", "tickets.example"),
        ("url", "ftp://tickets.example"),
        ("url", "https:///status"),
        ("url", "http://["),
        ("url", "http://?x"),
        ("url", "https://tickets .example"),
        ("url", "https://tickets.example:port"),
        ("endpoint_url", "127.0.0.1:4566"),
        ("endpoint_url", "http://["),
        ("endpoint_url", "http://127.0.0.1:port"),
        ("partition", ""),
        ("partition", "caf\udce9"),
        ("local", "maybe"),
    ],
)
def test_refused_values(home: dict[str, str], name: str, value: Any) -> None:
    """An invalid value is an error that names its origin, with a hint."""
    with pytest.raises(UsageError, match=re.escape(f"(from --{name.replace('_', '-')})")) as caught:
        resolve({name: value}, home)
    assert caught.value.hint.startswith("use ")


@pytest.mark.parametrize("word", ["0", "nan", "abc", "inf", "-inf"])
def test_refused_timeout_variable(home: dict[str, str], word: str) -> None:
    """The value of a variable is checked with the same rules as a flag."""
    with pytest.raises(UsageError) as caught:
        resolve({}, home | {"TICKETCTL_TIMEOUT": word})
    assert (caught.value.message, caught.value.hint) == (
        f"invalid timeout {word!r} (from TICKETCTL_TIMEOUT)",
        "use a number of seconds above 0, up to 3600",
    )


@pytest.mark.parametrize("url", ["me:secret@tickets.example", "http://me:sec/ret@tickets.example", "ftp://a:sec ret@b"])
@pytest.mark.parametrize("name", ["url", "endpoint_url"])
def test_refused_url_without_its_password(home: dict[str, str], name: str, url: str) -> None:
    """The error about an invalid URL does not contain its user and password."""
    with pytest.raises(UsageError, match=re.escape(f"'***@{url.rpartition('@')[2]}'")) as caught:
        resolve({name: url}, home)
    assert "sec" not in caught.value.message


def test_url_excludes_dynamodb(home: dict[str, str]) -> None:
    """--url and --via dynamodb cannot be combined."""
    with pytest.raises(UsageError, match="--url and --via dynamodb cannot be combined"):
        resolve({"url": "https://tickets.example", "via": "dynamodb"}, home)


@pytest.mark.parametrize(
    ("flags", "variables", "chosen"),
    [
        ({"table": "Old"}, {}, ("Old", "--table", "dynamodb", "--table")),
        ({}, {"TICKETCTL_TABLE": "Old"}, ("Old", "TICKETCTL_TABLE", "dynamodb", "TICKETCTL_TABLE")),
        ({"table": "Old", "via": "dynamodb"}, {}, ("Old", "--table", "dynamodb", "--via")),
        ({"table": "Old"}, {"TICKETCTL_VIA": "url"}, ("Old", "--table", "dynamodb", "--table")),
        ({"table": "Old"}, {"TICKETCTL_STACK": "orders"}, ("Old", "--table", "dynamodb", "--table")),
        ({"table": "Old"}, {"TICKETCTL_URL": "http://x"}, ("Old", "--table", "dynamodb", "--table")),
        ({"url": "http://x"}, {"TICKETCTL_TABLE": "Old"}, (None, "--url, against TICKETCTL_TABLE", "url", "default")),
        ({"via": "url"}, {"TICKETCTL_TABLE": "Old"}, (None, "--via, against TICKETCTL_TABLE", "url", "--via")),
        ({"stack": "orders"}, {"TICKETCTL_TABLE": "Old"}, (None, "--stack, against TICKETCTL_TABLE", "url", "default")),
        ({"local": True}, {"TICKETCTL_TABLE": "Old"}, ("Old", "TICKETCTL_TABLE", "dynamodb", "TICKETCTL_TABLE")),
        ({"local": True, "table": "Old"}, {}, ("Old", "--table", "dynamodb", "--table")),
    ],
)
def test_table(
    home: dict[str, str],
    flags: dict[str, Any],
    variables: dict[str, str],
    chosen: tuple[str | None, ...],
) -> None:
    """With a table, no stack and no URL are used; a flag overrides a variable."""
    settings = resolve(flags, home | variables)
    origins = settings.origins
    assert (settings.table, origins["table"], settings.via, origins["via"]) == chosen
    assert settings.table is None or (settings.url, settings.stack) == (None, "Tickets")


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        ({"table": "Old", "url": "http://x"}, {}),
        ({"table": "Old", "via": "url"}, {}),
        ({"table": "Old", "stack": "orders"}, {}),
        ({"table": "Old", "region": ["us-east-1", "eu-west-1"]}, {}),
        ({"table": "Old"}, {"TICKETCTL_REGIONS": "us-east-1,eu-west-1"}),
        ({}, {"TICKETCTL_TABLE": "Old", "TICKETCTL_URL": "http://x"}),
        ({}, {"TICKETCTL_TABLE": "Old", "TICKETCTL_VIA": "url"}),
        ({}, {"TICKETCTL_TABLE": "Old", "TICKETCTL_STACK": "orders"}),
        ({"table": "no"}, {}),
        ({"table": "a/b"}, {}),
        ({"table": ""}, {}),
    ],
)
def test_table_excludes_other_settings(home: dict[str, str], flags: dict[str, Any], variables: dict[str, str]) -> None:
    """A table cannot be combined with a URL, a stack or several regions, unless only one of them is a flag."""
    with pytest.raises(UsageError):
        resolve(flags, home | variables)


def test_table_is_in_one_region(home: dict[str, str]) -> None:
    """With a table, the regions of the last deployment are ignored."""
    deployed = ["eu-west-1", "us-east-1"]
    settings = resolve({"table": "Old"}, home | {"AWS_REGION": "eu-west-1"}, deployed=lambda values: deployed)
    assert settings.regions == ("eu-west-1",)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            'regoin = "eu-west-1"\nverbose = true\n',
            "{file} has unknown settings: regoin, verbose",
            "known settings: endpoint_url, local, partition, profile, region, regions, sqid_alphabet, stack, table, "
            "timeout, url, via",
        ),
        (
            "region =",
            "{file} cannot be read: Invalid value (at end of document)",
            "fix or remove the file",
        ),
    ],
)
def test_broken_configuration(home: dict[str, str], text: str, message: str, hint: str) -> None:
    """If the configuration file has unknown settings or cannot be parsed, the error names the file."""
    file = configure(home, text)
    with pytest.raises(FileError) as caught:
        resolve({}, home)
    assert (caught.value.message, caught.value.hint) == (message.format(file=file), hint)


def test_unreadable_configuration(home: dict[str, str], tmp_path: Path) -> None:
    """If the configuration file cannot be read, the error names it; there are no silent defaults."""
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(FileError, match=re.escape(f"{tmp_path / 'config.toml'} cannot be read: ")):
        resolve({}, home)


def test_configuration_not_text(home: dict[str, str], tmp_path: Path) -> None:
    """If the configuration file is not UTF-8, the error names it."""
    (tmp_path / "config.toml").write_bytes(b'stack = "caf\xe9"')
    with pytest.raises(FileError, match=re.escape(f"{tmp_path / 'config.toml'} cannot be read: ")):
        resolve({}, home)


def test_configuration_with_a_byte_order_mark(home: dict[str, str], tmp_path: Path) -> None:
    """A byte order mark, which some editors write and none shows, is not a part of the file's text."""
    (tmp_path / "config.toml").write_text('\ufeffstack = "orders"', encoding="utf-8")
    assert resolve({}, home).stack == "orders"


def test_require_region(home: dict[str, str]) -> None:
    """If a region is needed and there is none, the error lists the places that were searched."""
    with pytest.raises(NoRegionError) as caught:
        resolve({}, home).require_region()
    assert (caught.value.message, caught.value.hint) == (
        "no region is set; searched --region, TICKETCTL_REGIONS, TICKETCTL_REGION, AWS_REGION, AWS_DEFAULT_REGION, "
        "ticketctl's configuration file and the AWS profile",
        "pass --region REGION, or try it without AWS: ticketctl next --local",
    )


BEFORE = ("eu-west-1", "us-east-1")
TWO = "us-east-1 eu-west-1"
KNOWN = "the last deployment"


@pytest.mark.parametrize(
    ("flags", "variables", "text", "regions", "origin"),
    [
        (
            {"region": ["us-east-1", "eu-west-1"]},
            {"TICKETCTL_REGIONS": "eu-west-3"},
            "",
            "us-east-1 eu-west-1",
            "--region",
        ),
        ({"region": ["us-east-1", "us-east-1"]}, {}, "", "us-east-1", "--region"),
        (
            {},
            {"TICKETCTL_REGIONS": "us-east-1, eu-west-1", "TICKETCTL_REGION": "eu-west-3"},
            "",
            "us-east-1 eu-west-1",
            "TICKETCTL_REGIONS",
        ),
        ({}, {"TICKETCTL_REGIONS": TWO}, "", TWO, "TICKETCTL_REGIONS"),
        ({}, {"TICKETCTL_REGION": "eu-west-3"}, 'regions = ["us-east-1"]', "eu-west-3", "TICKETCTL_REGION"),
        ({}, {"AWS_REGION": "eu-west-1"}, 'regions = ["us-east-1", "eu-west-1"]', TWO, "{file}"),
        ({}, {}, 'regions = ["us-east-1", "eu-west-1"]\nregion = "eu-west-3"', TWO, "{file}"),
        ({}, {"AWS_REGION": "us-east-1"}, "", TWO, KNOWN),
        ({}, {"AWS_REGION": "eu-west-3"}, "", "eu-west-3", "AWS_REGION"),
        ({}, {"TICKETCTL_REGION": "us-east-1"}, "", "us-east-1", "TICKETCTL_REGION"),
        ({}, {}, "", "eu-west-1 us-east-1", KNOWN),
        ({"local": True}, {"AWS_REGION": "us-east-1"}, "", "eu-west-1 us-east-1", KNOWN),
        ({"local": True, "region": ["us-east-1"]}, {}, "", "us-east-1", "--region"),
    ],
)
def test_regions(
    home: dict[str, str], flags: dict[str, Any], variables: dict[str, str], text: str, regions: str, origin: str
) -> None:
    """The regions are those that are set, otherwise those of the last deployment with the current one first."""
    file = configure(home, text)
    settings = resolve(flags, home | variables, deployed=lambda values: BEFORE)
    assert settings.regions == tuple(regions.split())
    assert (settings.region, settings.origins["regions"]) == (regions.split()[0], origin.format(file=file))


def test_regions_of_an_address(home: dict[str, str]) -> None:
    """With --url, the regions of the last deployment are ignored."""
    assert resolve({"url": "https://tickets.example"}, home, deployed=lambda values: BEFORE).regions == ()


@pytest.mark.parametrize("value", ['["europe"]', "[]", "7", "[7]", '","'])
def test_wrong_regions(home: dict[str, str], value: str) -> None:
    """An invalid list of regions is an error with a hint."""
    configure(home, f"regions = {value}")
    with pytest.raises(UsageError) as caught:
        resolve({}, home)
    assert caught.value.hint in ("use a list of regions", "use a name like us-east-1", "quote it")


def test_in_region(home: dict[str, str]) -> None:
    """The settings for one of several regions differ only in the region."""
    settings = resolve({"region": ["us-east-1", "eu-west-1"], "stack": "orders"}, home)
    there = settings.in_region("eu-west-1")
    assert (there.region, there.regions, there.stack) == ("eu-west-1", ("eu-west-1",), "orders")
