"""Checks of the set-up, the stack and the permissions. Each check is independent; nothing is minted."""

import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ticketctl.aws.probes import Drift, Probes
from ticketctl.aws.stacks import outputs_of
from ticketctl.deadline import Deadline, call_within
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.deployments.session import Session
from ticketctl.errors import (
    NotDeployedError,
    NotMintedError,
    SetupError,
    TicketctlError,
    UnknownCounterError,
    install_hint,
)
from ticketctl.files import directory
from ticketctl.output import without_userinfo
from ticketctl.settings import Settings

OK, WARNING, FAILURE = "ok", "warning", "failure"
SKEW_SECONDS = (30.0, 240.0)  # AWS refuses signatures from 300 s
_HEALTHY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")


class Finding(NamedTuple):
    """What a check found: its state, one line about it, and how to fix it.

    ``blocks``: the checks that need this one cannot run.
    """

    state: str
    detail: str
    fix: str = ""
    blocks: bool = False


@dataclass(frozen=True)
class Check:
    """A check with its finding, as it is shown."""

    name: str
    state: str
    detail: str
    fix: str


class Checks:
    """Runs checks, each for at most ``seconds``. A check that raises is a finding, and the next one runs.

    ``suffix`` follows each name: the region, if there are several.
    """

    def __init__(self, seconds: float, *, suffix: str = "") -> None:
        self.found: list[Check] = []
        self._seconds = seconds
        self._suffix = suffix
        self._blocking: set[str] = set()

    def run(
        self,
        name: str,
        look: Callable[[], Finding],
        *,
        needs: Iterable[str] = (),
        otherwise: str = FAILURE,
        blocks: bool = True,
    ) -> None:
        """Run a check, unless one that it ``needs`` blocks it.

        If it raises, its state is ``otherwise``, and it blocks the checks that need it if ``blocks``.
        """
        if because := self.blocked(needs):
            finding = Finding(WARNING, f"not checked, because of: {because}", blocks=True)
        else:
            finding = self._outcome(look, otherwise, blocks=blocks)
        if finding.blocks:
            self._blocking.add(name)
        texts = (without_userinfo(text) for text in (finding.detail, finding.fix))
        self.found.append(Check(f"{name}{self._suffix}", finding.state, *texts))

    def blocked(self, needs: Iterable[str]) -> str:
        """The first of these checks that blocks the checks that need it; empty if none does."""
        return next((name for name in needs if name in self._blocking), "")

    def _outcome(self, look: Callable[[], Finding], otherwise: str, *, blocks: bool) -> Finding:
        try:
            return call_within(Deadline(self._seconds), look)
        except TicketctlError as error:
            return Finding(otherwise, error.message, error.hint, blocks)
        except TimeoutError:
            detail = f"no answer within {self._seconds:g} s"
            return Finding(otherwise, detail, "try again with a longer --timeout", blocks)
        except Exception as bug:
            detail = f"this check has a bug: {type(bug).__name__}: {bug}"
            return Finding(otherwise, detail, "report it, with the output of ticketctl doctor --json", blocks)


def examine(regions: Regions, environ: Mapping[str, str], *, broken: SetupError | None = None) -> Sequence[Check]:
    """Run every check: of this machine, then of the stack in each region, or of the table that is set instead.

    ``broken``: why the settings cannot be read.
    """
    home = regions.home
    checks = Checks(home.settings.timeout)
    checks.run("versions", _versions)
    checks.run("settings", lambda: _settings(home, broken))
    checks.run("cache", lambda: _cache(environ), otherwise=WARNING)
    checks.run("embedded AWS", lambda: _engine(home.session), otherwise=FAILURE if home.settings.local else WARNING)
    usable = ["settings", *(["embedded AWS"] if home.settings.local else [])]
    checks.run("credentials", lambda: _credentials(home.session), needs=usable)
    checks.run("clock", lambda: _clock(home), needs=usable, otherwise=WARNING)
    needs, subject = [*usable, "credentials"], "table" if home.table else "stack"
    if checks.blocked(needs):
        checks.run(subject, lambda: Finding(OK, ""), needs=needs)
        return checks.found
    several = len(regions.names) > 1
    for region, outcome in regions.each(lambda stack: _in_region(stack, several=several)).items():
        if isinstance(outcome, TicketctlError):
            checks.found.append(Check(f"{subject} ({region})", FAILURE, outcome.message, outcome.hint))
        else:
            checks.found.extend(outcome)
    return checks.found


def _in_region(stack: RegionalStack, *, several: bool) -> Sequence[Check]:
    """The checks of the stack in one region, or of the table. Without a stack there is nothing to check."""
    settings, session = stack.settings, stack.session
    checks = Checks(settings.timeout, suffix=f" ({stack.region})" if several else "")
    probes = Probes(session.aws, timeout=settings.timeout, connect=session.connect)
    outputs = {"TableName": stack.table} if stack.table else _check_stack(checks, stack)
    has_no_url = bool(outputs) and "Url" not in outputs and not settings.requires_url
    by_table = settings.via == "dynamodb" or has_no_url
    table = outputs.get("TableName", settings.stack)
    missing = FAILURE if outputs else WARNING  # without outputs, the name is a guess
    checks.run("table", lambda: _table(probes, table, missing), needs=["stack"], otherwise=WARNING, blocks=False)
    others: dict[str, Callable[[], Finding]] = {
        "table expiry": lambda: _drift(probes.expiry_drift(table)),
        "table recovery": lambda: _drift(probes.recovery_drift(table)),
        "global table": lambda: _replicas(probes, table),
        "permission dynamodb:UpdateItem": _permission(lambda: probes.update(table)),
        "permission dynamodb:GetItem": _permission(lambda: probes.read(table)),
        "permission dynamodb:Scan": _permission(lambda: probes.scan(table)),
    }
    if settings.local:  # the embedded AWS has neither
        del others["table expiry"], others["table recovery"]
    for name, look in others.items():
        mints = by_table and name == "permission dynamodb:UpdateItem"
        checks.run(name, look, needs=["stack", "table"], otherwise=FAILURE if mints else WARNING)
    if stack.table is None:
        logs = "permission logs:FilterLogEvents"
        checks.run(logs, lambda: _logs(stack, probes), needs=["stack"], otherwise=WARNING)
    return checks.found


def _check_stack(checks: Checks, stack: RegionalStack) -> Mapping[str, str]:
    """Check the stack and its URL. Return the stack's outputs, empty if they are unknown."""
    settings = stack.settings
    outputs: dict[str, str] = {}
    of_stack = WARNING if settings.url or settings.local else FAILURE  # a typed URL needs none, --local deploys it
    checks.run("stack", lambda: _stack(stack, of_stack, outputs), otherwise=of_stack, blocks=False)
    has_function = not outputs or "Url" in outputs
    checks.run(
        "url",
        (lambda: _url(stack)) if has_function or settings.url else (lambda: _no_function(settings)),
        needs=[] if settings.url else ["stack"],
        otherwise=WARNING if settings.via == "dynamodb" else FAILURE,
    )
    return outputs


def _versions() -> Finding:
    packages = {"boto3": "boto3", "botocore": "botocore", "embedded AWS (ministack)": "ministack"}
    known = ", ".join(f"{name} {_version(package)}" for name, package in packages.items())
    return Finding(OK, f"ticketctl {_version('ticketctl')}, Python {platform.python_version()}, {known}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _settings(stack: RegionalStack, broken: SetupError | None) -> Finding:
    if broken is not None:
        raise broken
    stack.settings.require_region()
    texts = []
    for name, origin in stack.settings.origins.items():
        value = getattr(stack.settings, name)
        if name == "sqid_alphabet" and value is not None:
            value = "***"
        if value is not None and name != "region":
            shown = " ".join(value) if name == "regions" else value
            texts.append(f"{name.replace('_', '-')} {shown} (from {origin})")
    return Finding(OK, ", ".join(texts))


def _cache(environ: Mapping[str, str]) -> Finding:
    """Write a file without a name into the cache folder, or into the folder in which it would be created."""
    folder = directory("cache", environ)
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        fix = "set TICKETCTL_HOME to a folder that you can write"
        return Finding(WARNING, f"{folder} cannot be written ({why}): every mint looks up its stack", fix)
    return Finding(OK, str(folder))


def _engine(session: Session) -> Finding:
    engine = session.local.running()
    if engine is not None:
        return Finding(OK, f"running at {engine.endpoint_url}, process {engine.pid}")
    if not session.settings.local:
        return Finding(OK, "not running, not needed")
    if _version("ministack") == "not installed":
        return Finding(FAILURE, "not installed", install_hint("local"), blocks=True)
    return Finding(WARNING, "not running; the next command with --local starts it", "ticketctl local up", blocks=True)


def _credentials(session: Session) -> Finding:
    """The source of the credentials and their account. Some networks reach DynamoDB, but not STS, which names it."""
    aws = session.aws
    try:
        source = call_within(Deadline(0.9 * session.settings.timeout), aws.credential_source)
    except TimeoutError:
        raise aws.slow_credentials() from None
    try:
        return Finding(OK, f"account {aws.account()}, from {source}")
    except NotMintedError as error:
        return Finding(WARNING, f"from {source}; the account is unknown: {error.message}", error.hint)


def _clock(stack: RegionalStack, clock: Callable[[], float] = time.time) -> Finding:
    session = stack.session
    if stack.settings.local:
        return Finding(OK, "the embedded AWS has the same clock")
    before = clock()
    server = Probes(session.aws, timeout=stack.settings.timeout, connect=session.connect).server_time()
    skew = (before + clock()) / 2 - server - 0.5  # the header has whole seconds
    detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} AWS"
    little, most = SKEW_SECONDS
    if abs(skew) <= little:
        return Finding(OK, detail)
    return Finding(WARNING if abs(skew) <= most else FAILURE, detail, "synchronize this machine's clock (NTP)")


def _stack(stack: RegionalStack, missing: str, outputs: dict[str, str]) -> Finding:
    """The stack's state, and its ``outputs``. ``missing`` is the finding's state if there is no stack."""
    settings = stack.settings
    found = stack.session.cloudformation(timeout=settings.timeout, retries=0).find_ours(settings.stack)
    if found is None or found.is_empty:
        detail = f"{settings.stack} is not deployed in {stack.region}"
        return Finding(missing, detail, "ticketctl deploy", blocks=True)
    detail = found.status + (f": {found.reason}" if found.reason else "")
    outputs.update(found.outputs)
    if "Url" in outputs:
        known = outputs_of(found, stack.region)
        stack.locator.remember(known)
        detail += f", URL {'open to anyone' if known.auth == 'NONE' else 'private'}"
    if found.status in _HEALTHY:
        return Finding(OK, detail)
    can_mint = found.in_progress or found.status.startswith("UPDATE_ROLLBACK")
    return Finding(WARNING if can_mint else FAILURE, detail, "ticketctl deploy")


def _table(probes: Probes, table: str, missing: str) -> Finding:
    """The table's own settings. ``missing`` is the finding's state if there is no table."""
    try:
        return _drift(probes.table_drift(table))
    except NotDeployedError as error:
        return Finding(missing, error.message, error.hint, blocks=True)


def _drift(drifts: Sequence[Drift]) -> Finding:
    if not drifts:
        return Finding(OK, "as in the template")
    texts = ", ".join(map(str, drifts))
    fixes = "; ".join(drift.fix for drift in drifts if drift.fix)
    if any(not drift.fix for drift in drifts):
        return Finding(
            FAILURE, texts, "this is no table of ticketctl: name another with --stack or --table", blocks=True
        )
    return Finding(WARNING, texts, fixes)


def _replicas(probes: Probes, table: str) -> Finding:
    regions, is_strong = probes.replicas(table)
    if not regions:
        return Finding(OK, "no replicas")
    names = ", ".join(regions)
    if is_strong:
        return Finding(WARNING, f"strongly consistent replicas in {names}: each mint waits for another region")
    fix = "mint in one region only, delete the replicas, and deploy each region with ticketctl deploy --region"
    return Finding(FAILURE, f"replicas in {names}: minting in two regions issues every number twice", fix)


def _no_function(settings: Settings) -> Finding:
    if settings.requires_url:
        return Finding(WARNING, "the stack has no function", "use --via dynamodb")
    return Finding(OK, "the stack has no function: tickets are minted from its table")


def _url(stack: RegionalStack) -> Finding:
    """Read the default counter through the Function URL: ``/status`` mints nothing."""
    from ticketctl.http_client import HttpClient
    from ticketctl.minting.function_url import UrlSource

    settings = stack.settings
    deadline = Deadline(settings.timeout)
    function_url, _ = stack.function_url(deadline)
    http = HttpClient(direct=settings.local)
    with closing(UrlSource(function_url, http, connect=stack.session.connect)) as source:
        try:
            return Finding(OK, f"answers in {_timed(lambda: source.counter(None, deadline))}")
        except UnknownCounterError:
            return Finding(OK, "answers; the default counter has not minted yet")


def _logs(stack: RegionalStack, probes: Probes) -> Finding:
    cloudformation = stack.session.cloudformation(timeout=stack.settings.timeout, retries=0)
    if (group := cloudformation.log_group(stack.settings.stack)) is None:
        return Finding(OK, "the stack has no function, so it has no log lines")
    return _permission(lambda: probes.read_logs(group))()


def _permission(call: Callable[[], object]) -> Callable[[], Finding]:
    return lambda: Finding(OK, f"allowed, {_timed(call)}")


def _timed(call: Callable[[], object]) -> str:
    """Call, and return how long it took."""
    begin = time.perf_counter()
    call()
    return f"{(time.perf_counter() - begin) * 1000:.0f} ms"
