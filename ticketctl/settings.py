"""The settings of a run: flag, else ``TICKETCTL_*``, else ``AWS_*``, else the configuration file, else the default."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ticketctl.errors import FileError, NoRegionError, UsageError
from ticketctl.files import find_directory

LOCAL_REGION = "us-east-1"
REGION = r"[a-z]{2,}(-[a-z]+)+-\d+"
"""A regular expression for the names of AWS regions."""

TABLE = r"[A-Za-z0-9_.-]{3,255}"
"""A regular expression for the names of DynamoDB tables."""

_AWS_VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "profile": ("AWS_DEFAULT_PROFILE", "AWS_PROFILE"),  # in the order of botocore and the AWS CLI
    "endpoint_url": ("AWS_ENDPOINT_URL",),
}
ACCESS_KEY = "AWS_ACCESS_KEY_ID"
_EXPLICIT_PROFILES = ("--profile", "TICKETCTL_PROFILE")
_DEFAULTS: dict[str, Any] = {
    "stack": "Tickets",
    "table": None,
    "region": None,
    "regions": None,
    "profile": None,
    "partition": None,
    "via": "url",
    "local": False,
    "endpoint_url": None,
    "url": None,
    "timeout": 10.0,
    "sqid_alphabet": None,
}


@dataclass(frozen=True)
class Settings:
    """The settings of a command. ``timeout`` is in seconds; ``origins`` says where each value came from.

    ``regions`` are the stack's regions in the order in which they are tried; ``region`` is the first of them.
    ``profile`` is the profile that credentials come from: ``None`` if access keys in the environment come before it.
    With a ``table``, tickets come from that table instead of the stack.
    """

    stack: str
    region: str | None
    regions: tuple[str, ...]
    profile: str | None
    partition: str | None
    via: str
    local: bool
    endpoint_url: str | None
    url: str | None
    timeout: float
    table: str | None = None
    sqid_alphabet: str | None = field(default=None, repr=False)  # who knows it can count the tickets between two sqids
    origins: Mapping[str, str] = field(default_factory=dict)

    def in_region(self, region: str) -> "Settings":
        """The same settings for one region."""
        return replace(self, region=region, regions=(region,))

    @property
    def has_explicit_profile(self) -> bool:
        """Whether the profile comes before credentials in the environment, as ``--profile`` of the AWS CLI does."""
        return self.origins.get("profile") in _EXPLICIT_PROFILES

    @property
    def identity(self) -> str:
        """Whose credentials are used, for a person."""
        if self.local:
            return "the key of the embedded AWS"
        if self.origins.get("profile", "").startswith(ACCESS_KEY):
            return f"the access key in {ACCESS_KEY}"
        return f"profile {self.profile or 'default'}"

    @property
    def requires_url(self) -> bool:
        """Whether the user asked for the Function URL: by its address, or with ``via``."""
        return self.url is not None or (self.via == "url" and self.origins.get("via", "default") != "default")

    def require_region(self) -> str:
        """Return the region, or raise an error that lists the places that were searched."""
        if self.region is None:
            raise NoRegionError(
                "no region is set; searched --region, TICKETCTL_REGIONS, TICKETCTL_REGION, AWS_REGION, "
                "AWS_DEFAULT_REGION, ticketctl's configuration file and the AWS profile",
                hint="pass --region REGION, or try it without AWS: ticketctl next --local",
            )
        return self.region


DEFAULT_SETTINGS = Settings(**_DEFAULTS | {"regions": ()}, origins=dict.fromkeys(_DEFAULTS, "default"))
"""The settings if nothing is set."""


def resolve(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    profile_region: Callable[[str | None], str | None] = lambda profile: None,
    deployed: Callable[[Mapping[str, Any]], Sequence[str]] = lambda values: (),
) -> Settings:
    """Resolve every setting. ``flags`` has those of the command line; their ``region`` may be a list.

    ``profile_region`` reads the region of an AWS profile, ``deployed`` the regions of the stack's last deployment.
    """
    typed = flags.get("region")
    flags = {**flags, "region": None, "regions": [typed] if isinstance(typed, str) else typed or None}
    file, contents = _configuration(environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, default in _DEFAULTS.items():
        values[name], origins[name] = _setting(name, default, flags, environ, (file, contents))
    values["local"] = _boolean(values["local"], origins["local"])
    if values["local"]:
        _make_local(values, origins, flags)
    for name, value in values.items():
        if name != "regions":
            values[name] = _checked(name, value, origins[name])
    configured = values["profile"]
    if not values["local"] and environ.get(ACCESS_KEY) and origins["profile"] not in _EXPLICIT_PROFILES:
        origins["profile"] = f"{ACCESS_KEY}, against {origins['profile']}" if configured else ACCESS_KEY
        values["profile"] = None
    _resolve_table(values, origins)
    _resolve_regions(values, origins, lambda: (configured, profile_region(configured)), deployed)
    if values["url"] and values["via"] == "dynamodb":
        if origins["via"] == "--via" and origins["url"] != "--url":
            values["url"], origins["url"] = None, f"--via, against {origins['url']}"
        elif origins["url"] == "--url" and origins["via"] != "--via":
            values["via"], origins["via"] = "url", f"--url, against {origins['via']}"
        else:
            raise UsageError("--url and --via dynamodb cannot be combined", hint="remove one of them")
    return Settings(**values, origins=origins)


def _resolve_table(values: dict[str, Any], origins: dict[str, str]) -> None:
    """A table excludes a URL and a stack. What was typed wins; otherwise the two contradict each other."""
    for name in ("url", "via", "stack"):
        if values["table"] is None or origins[name] == "default" or values[name] in (None, "dynamodb"):
            continue
        if origins["table"] == "--table" and origins[name] != f"--{name}":
            values[name], origins[name] = _DEFAULTS[name], f"--table, against {origins[name]}"
        elif origins["table"] != "--table" and origins[name] == f"--{name}":
            values["table"], origins["table"] = None, f"--{name}, against {origins['table']}"
        else:
            other = "--via url" if name == "via" else f"--{name}"
            raise UsageError(f"--table and {other} cannot be combined", hint="remove one of them")
    if values["table"] is not None and values["via"] != "dynamodb":
        values["via"], origins["via"] = "dynamodb", origins["table"]


def _resolve_regions(
    values: dict[str, Any],
    origins: dict[str, str],
    profile_region: Callable[[], tuple[str | None, str | None]],
    deployed: Callable[[Mapping[str, Any]], Sequence[str]],
) -> None:
    """Resolve the regions: as set, else those of the last deployment, with the current region first.

    ``profile_region`` returns the AWS profile and its region.
    """
    is_said = origins["regions"] in ("--region", "TICKETCTL_REGIONS")
    if values["regions"] is not None and (is_said or origins["region"] != "TICKETCTL_REGION"):
        values["regions"] = _region_names(values["regions"], origins["regions"])
        values["region"], origins["region"] = values["regions"][0], origins["regions"]
        if values["table"] and len(values["regions"]) > 1:
            raise UsageError(
                f"a table is in one region, but several are set (from {origins['regions']})",
                hint="pass --region once",
            )
        return
    if values["region"] is None and not values["local"]:
        profile, region = profile_region()
        if region:
            origins["region"] = f"AWS profile {profile or 'default'}"
            values["region"] = _checked("region", region, origins["region"])
    home = values["region"]
    elsewhere = values["url"] or values["table"] or origins["region"] == "TICKETCTL_REGION"
    before = () if elsewhere else tuple(deployed(values))
    if before and home in (None, *before):
        values["regions"] = tuple(dict.fromkeys([home or before[0], *before]))
        origins["regions"] = "the last deployment"
        if home is None:
            values["region"], origins["region"] = before[0], origins["regions"]
        return
    if home is None and values["local"]:
        values["region"], origins["region"] = LOCAL_REGION, "default of --local"
    values["regions"] = () if values["region"] is None else (values["region"],)
    origins["regions"] = origins["region"]


def _region_names(value: Any, origin: str) -> tuple[str, ...]:
    names = re.split(r"[\s,]+", value.strip(" ,")) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise UsageError(f"invalid value {value!r} for regions (from {origin})", hint="use a list of regions")
    return tuple(dict.fromkeys(str(_checked("region", name, origin)) for name in names))


def _setting(
    name: str,
    default: Any,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    configuration: tuple[Path, Mapping[str, Any]],
) -> tuple[Any, str]:
    if flags.get(name) is not None:
        flag = {"regions": "--region"}.get(name, f"--{name.replace('_', '-')}")
        return flags[name], "--no-local" if flags[name] is False else flag
    for variable in (f"TICKETCTL_{name.upper()}", *_AWS_VARIABLES.get(name, ())):
        if environ.get(variable):
            return environ[variable], variable
    file, contents = configuration
    if name in contents:
        return contents[name], str(file)
    return default, "default"


def _configuration(environ: Mapping[str, str]) -> tuple[Path, Mapping[str, Any]]:
    folder = find_directory("config", environ)
    if folder is None:
        return Path("config.toml"), {}
    file = folder / "config.toml"
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        return file, {}
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    import tomllib

    try:
        contents = {name.replace("-", "_"): value for name, value in tomllib.loads(text).items()}
    except ValueError as error:
        raise _unreadable(file, error) from None
    if unknown := sorted(contents.keys() - _DEFAULTS.keys()):
        raise FileError(
            f"{file} has unknown settings: {', '.join(unknown)}", hint=f"known settings: {', '.join(sorted(_DEFAULTS))}"
        )
    return file, contents


def _unreadable(file: Path, error: Exception) -> FileError:
    return FileError(f"{file} cannot be read: {error}", hint="fix or remove the file")


def _make_local(values: dict[str, Any], origins: dict[str, str], flags: Mapping[str, Any]) -> None:
    """Drop what is meant for real AWS. Only ticketctl's own region and a typed --url or --table stay."""
    for name in ("profile", "endpoint_url"):
        if flags.get(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} cannot be used with the embedded AWS (local from {origins['local']})",
                hint=f"remove {flag}, or pass --no-local",
            )
        values[name], origins[name] = None, "default"
    if flags.get("url") is None:
        values["url"], origins["url"] = None, "default"
    if origins["region"].startswith("AWS_"):
        values["region"], origins["region"] = None, "default"


def _checked(name: str, value: Any, origin: str) -> Any:
    if name == "sqid_alphabet":
        return value if value is None else check_sqid_alphabet(value, origin)
    if name not in ("local", "timeout") and not isinstance(value, str | None):
        raise UsageError(f"{name.replace('_', '-')} is {value!r} (from {origin}), not text", hint="quote it")
    match name:
        case "timeout":
            return _seconds(value, origin)
        case "via" if value not in ("url", "dynamodb"):
            raise UsageError(f"invalid value {value!r} for via (from {origin})", hint="use url or dynamodb")
        case "stack" if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{2,127}", str(value)):
            raise UsageError(
                f"invalid stack name {value!r} (from {origin})",
                hint="use 3 to 128 letters, digits and hyphens, starting with a letter",
            )
        case "table" if value is not None and not re.fullmatch(TABLE, str(value)):
            raise UsageError(
                f"invalid table name {value!r} (from {origin})",
                hint="use 3 to 255 letters, digits, dots, hyphens and underscores",
            )
        case "region" if value is not None and not re.fullmatch(REGION, str(value)):
            raise UsageError(f"invalid region {value!r} (from {origin})", hint="use a name like us-east-1")
        case "url" | "endpoint_url" if value is not None and not is_http(str(value)):
            shown = str(value).rpartition("@")  # what precedes it may be a password
            raise UsageError(
                f"{'***@' * bool(shown[1]) + shown[2]!r} (from {origin}) is not an http or https URL",
                hint="use a URL like https://tickets.example",
            )
        case "partition" if value is not None:
            return _name(str(value), origin)
    return value


def check_sqid_alphabet(value: Any, origin: str) -> str:
    """Return an alphabet for sqids; ``UsageError``, which does not show it, if it is invalid."""
    if isinstance(value, str) and re.fullmatch(r"[!-~]{3,}", value) and len(set(value)) == len(value):
        return value
    raise UsageError(
        f"invalid alphabet for sqids (from {origin})",
        hint="use 3 or more different ASCII characters, without spaces",
    )


def is_http(url: str) -> bool:
    """Whether a URL is an http or https URL with a host and a valid port."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
        )
    except ValueError:
        return False


def _name(value: str, origin: str) -> str:
    if not value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UsageError(f"invalid counter name {value!r} (from {origin})", hint="use Unicode text that is not empty")
    return value


def _boolean(value: Any, origin: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise UsageError(f"invalid value {value!r} for local (from {origin})", hint="use 1 or 0") from None


def _seconds(value: Any, origin: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise UsageError(
            f"invalid timeout {value!r} (from {origin})", hint="use a number of seconds above 0, up to 3600"
        )
    return seconds
