"""One stack in several regions: its lanes and counters, how regions are named, and leaving and returning."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import Connect
from tests.support.minting import take
from tests.support.regional_stacks import (
    AP,
    EU,
    MOST,
    SA,
    US,
    deploy_alone,
    first_numbers,
    items,
    lanes,
    named,
    own_home,
    row,
)
from ticketctl.aws.account import Aws
from ticketctl.errors import CounterFrozenError

ACCOUNT = "account 000000000000"
STACK = "three-regions"
OPTIONS = ("--local", "--stack", STACK)
_names = (f"counter-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def three(ticketctl: Ticketctl) -> str:
    """The name of a stack in three regions whose default counters never mint."""
    assert ticketctl("deploy", "-q", *named(US, EU, AP), *OPTIONS).returncode == 0
    return STACK


@pytest.fixture
def name() -> str:
    """A counter that no other test uses."""
    return next(_names)


def counter(name: str, region: str, last: int, *, offset: int, increment: int, **others: Any) -> dict[str, Any]:
    """The JSON object of a counter that has not minted."""
    return {
        "partition": name,
        "last": last,
        "increment": increment,
        "ceiling": MOST,
        "remaining": (MOST - last) // increment,
        "minted_at": None,
        "frozen": False,
        "region": region,
        "offset": offset,
        "gapless": False,
        **others,
    }


def standing(rows: str) -> list[tuple[str, str, str, str, str]]:
    """Return name, last ticket, step, offset and region of each counter in the output of ``status``."""
    cells = (line.split("\t") for line in rows.splitlines())
    return [(name, last, step, offset, region) for name, last, step, _, _, _, offset, region in cells]


# --- deploying ---------------------------------------------------------------------------------------


def test_deploy_from_nothing(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """Two regions get one URL each, in the order of ``--region``; one mints odd numbers, the other even numbers."""
    options = ("--local", "--stack", new_stack)
    deploy = ticketctl("deploy", *named(US, EU), *options)
    urls = [connect(stack=new_stack, region=region).url() for region in (US, EU)]
    assert (deploy.returncode, deploy.stdout.splitlines()) == (0, urls)
    story = deploy.stderr.splitlines()
    assert story[0] == f"deploying {new_stack} in the embedded AWS, {US}, {EU}, {ACCOUNT}"
    assert all(line.startswith((f"{US}: ", f"{EU}: ")) for line in story[1:-4])
    assert {f"{region}: CREATE_COMPLETE AWS::CloudFormation::Stack {new_stack}" for region in (US, EU)} <= set(story)
    assert story[-3:] == [
        *(f"the ticket server is at {url}" for url in urls),
        f"mint a ticket: ticketctl next --stack {new_stack} --region {US} --region {EU} --local",
    ]
    minted = [ticketctl("next", *named(*at), *options) for at in ([US], [EU], [])]
    assert minted == [Result(0, f"{number}\n", "") for number in (1, 2, 3)]
    assert first_numbers(connect, new_stack, [EU, US]) == [4, 5]
    shown = ticketctl("status", *options)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert standing(shown.stdout) == [(EU, "4", "2", "2", EU), (US, "5", "2", "1", US)]
    again = ticketctl("deploy", *options)
    assert (again.returncode, again.stdout) == (0, deploy.stdout)
    assert sorted(again.stderr.splitlines()[1:-3]) == [f"{EU}: no changes", f"{US}: no changes"]


def test_three_lanes(ticketctl: Ticketctl, three: str) -> None:
    """Three regions have the lanes 1, 2 and 3 of increment 3, a third of all numbers each; ``regions`` proves it."""
    shown = ticketctl("regions", "--json", *OPTIONS)
    assert (shown.returncode, shown.stderr) == (0, "")
    document = json.loads(shown.stdout)
    lanes = [lane for lane in document.pop("lanes") if lane["counter"] is None]
    common = {"counter": None, "increment": 3, "share": "1/3", "state": "mints"}
    assert lanes == [common | {"region": at, "offset": n, "next": n} for n, at in enumerate((US, EU, AP), start=1)]
    assert (document.pop("stack"), document.pop("conflicts"), list(document)) == (three, [], ["pairs"])
    plain = ticketctl("regions", *OPTIONS)
    assert plain.stdout.splitlines()[:3] == [
        f"{at}\t{at}\t{n}\t3\t1/3\t{n}\tmints" for n, at in enumerate((US, EU, AP), 1)
    ]
    assert (plain.returncode, plain.stderr) == (0, f"{document['pairs']} pairs of lanes, all disjoint\n")


def test_documents(ticketctl: Ticketctl, connect: Connect, three: str) -> None:
    """With --json, deploy and diff print one document with an entry per region, and url one document per line."""
    urls = {region: connect(stack=three, region=region).url() for region in (US, EU, AP)}
    places = [{"url": urls[region], "auth": "AWS_IAM", "stack": three, "region": region} for region in urls]
    deploy = ticketctl("deploy", "--json", *OPTIONS)
    assert (deploy.returncode, deploy.stderr) == (0, "")
    assert json.loads(deploy.stdout) == {"regions": [place | {"changed": False} for place in places]}
    url = ticketctl("url", "--json", *OPTIONS)
    assert (url.returncode, [json.loads(line) for line in url.stdout.splitlines()], url.stderr) == (0, places, "")
    diff = ticketctl("diff", "--json", "--exit-code", *OPTIONS)
    nothing = [{"changes": [], "stack": three, "region": region} for region in urls]
    assert (diff.returncode, json.loads(diff.stdout), diff.stderr) == (0, {"regions": nothing}, "")


@pytest.mark.usefixtures("three")
def test_diff_names_the_region_of_each_change(ticketctl: Ticketctl) -> None:
    """Each change that diff prints names its region."""
    diff = ticketctl("diff", "--max-count", "7", "--exit-code", *named(EU, AP), *OPTIONS)
    assert (diff.returncode, diff.stderr) == (9, "")
    changed = [line.partition(": modify AWS::Lambda::Function ")[0] for line in diff.stdout.splitlines()]
    assert [region for region in changed if region in (EU, AP)] == [EU, AP]
    assert all(line.startswith((f"{EU}: ", f"{AP}: ")) for line in diff.stdout.splitlines())


@pytest.mark.parametrize(
    "command",
    [["deploy", "--offset", "2"], ["diff", "--increment", "4"], ["counter", "create", "odd", "--increment", "4"]],
    ids=lambda words: words[0],
)
def test_a_lane_cannot_be_chosen(ticketctl: Ticketctl, aws: Aws, three: str, command: list[str]) -> None:
    """If several regions share the lanes, --offset and --increment are wrong usage, even for one region."""
    before = [items(aws, three, region) for region in (US, EU, AP)]
    refused = ticketctl(*command, "--json", *named(EU), *OPTIONS)
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, refused.stdout, error["code"], error["exit_code"]) == (2, "", "usage", 2)
    assert [items(aws, three, region) for region in (US, EU, AP)] == before


def test_a_region_that_fails_does_not_stop_the_others(
    aws: Aws, ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """If one region fails, the others are deployed and mint; exit 8 names it, and its lane is reserved."""
    options = ("--local", "--stack", new_stack)
    foreign = aws.in_region(EU).client("cloudformation")
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": new_stack}}
    foreign.create_stack(StackName=new_stack, TemplateBody=json.dumps({"Resources": {"Group": group}}))
    partial = ticketctl("deploy", *named(US, EU, SA), *options)
    urls = [connect(stack=new_stack, region=region).url() for region in (US, SA)]
    assert (partial.returncode, partial.stdout.splitlines()) == (8, urls)
    why = f"the stack {new_stack} in {EU} is not a ticket server; nothing was changed"
    assert f"{EU}: failed: {why}" in partial.stderr.splitlines()
    assert partial.stderr.splitlines()[-2:] == [
        f"error: deployed in {US}, {SA}, but not in {EU}: {why}",
        "hint: use another name: --stack NAME",
    ]
    assert [first_numbers(connect, new_stack, [US, SA]) for _ in range(2)] == [[1, 3], [4, 6]]
    assert lanes(ticketctl("regions", "--json", *options)) == {
        (None, US): (1, 3, 7, "mints"),
        (None, EU): (2, 3, 2, "not begun"),
        (None, SA): (3, 3, 9, "mints"),
    }
    foreign.delete_stack(StackName=new_stack)
    finished = ticketctl("deploy", "--json", *named(US, EU, SA), *options)
    documents = {document["region"]: document["changed"] for document in json.loads(finished.stdout)["regions"]}
    assert (finished.returncode, documents, finished.stderr) == (0, {US: False, EU: True, SA: False}, "")
    assert [first_numbers(connect, new_stack, [US, EU, SA]) for _ in range(2)] == [[7, 2, 9], [10, 5, 12]]


def test_every_region_fails(aws: Aws, ticketctl: Ticketctl, new_stack: str) -> None:
    """If no region can be deployed, the first failure is reported and nothing is created."""
    for region in (US, EU):
        group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"{new_stack}-{region}"}}
        aws.in_region(region).client("cloudformation").create_stack(
            StackName=new_stack, TemplateBody=json.dumps({"Resources": {"Group": group}})
        )
    refused = ticketctl("deploy", "--json", *named(EU, US), "--local", "--stack", new_stack)
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, refused.stdout, error["code"]) == (6, "", "refused")
    assert error["message"] == f"the stack {new_stack} in {EU} is not a ticket server; nothing was changed"


# --- which regions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "file", "flags", "regions"),
    [
        ({}, f'regions = ["{AP}", "{EU}"]', [], [AP, EU]),
        ({"TICKETCTL_REGIONS": f"{EU},{US}"}, f'regions = ["{AP}"]', [], [EU, US]),
        ({"TICKETCTL_REGIONS": f"{EU},{US}"}, f'regions = ["{AP}"]', [AP, US], [AP, US]),
    ],
    ids=["file", "variable", "flags"],
)
def test_where_the_regions_come_from(
    environ: dict[str, str],
    ticketctl: Ticketctl,
    tmp_path: Path,
    three: str,
    variables: dict[str, str],
    file: str,
    flags: list[str],
    regions: list[str],
) -> None:
    """The regions come from the flags, the variable, or the file, in this order."""
    env = own_home(environ, tmp_path / "home") | variables
    Path(env["TICKETCTL_HOME"], "config.toml").write_text(file, encoding="utf-8")
    shown = ticketctl("url", "--json", *named(*flags), *OPTIONS, env=env)
    documents = [json.loads(line) for line in shown.stdout.splitlines()]
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [(document["stack"], document["region"]) for document in documents] == [(three, at) for at in regions]


@pytest.mark.usefixtures("three")
def test_spread(ticketctl: Ticketctl, name: str) -> None:
    """With --spread each block begins with another region; without it, all come from the first."""
    assert ticketctl("counter", "create", name, *OPTIONS).returncode == 0
    spread = ticketctl("fetch", "6", "--block", "1", "--spread", "--json", "-p", name, *OPTIONS)
    blocks = [json.loads(line) for line in spread.stdout.splitlines()]
    assert (spread.returncode, spread.stderr) == (0, "")
    assert sorted(block["last"] for block in blocks) == list(range(1, 7))
    turns = [block["region"] for block in blocks]
    assert (set(turns[:3]), turns[3:]) == ({US, EU, AP}, turns[:3])
    plain = ticketctl("fetch", "3", "--block", "1", "-p", name, *named(EU, US), *OPTIONS)
    assert plain == Result(0, "8\n11\n14\n", "")


# --- counters ----------------------------------------------------------------------------------------


def test_a_counter_is_made_in_every_region(ticketctl: Ticketctl, connect: Connect, three: str, name: str) -> None:
    """A new counter mints in each region in that region's lane; creating it again does not change it."""
    made = ticketctl("counter", "create", name, *OPTIONS)
    rows = [row(name, at, n - 3, offset=n, increment=3) for n, at in enumerate((US, EU, AP), start=1)]
    told = f"{name} created, in {three} in the embedded AWS, {US}, {EU}, {AP}\n"
    assert made == Result(0, "".join(rows), told)
    assert [take(connect(stack=three, region=at, partition=name), 2).first for at in (AP, EU, US)] == [3, 2, 1]
    again = ticketctl("counter", "create", name, "--json", *OPTIONS)
    document = json.loads(again.stdout)
    assert (again.returncode, again.stderr, document.pop("created")) == (0, "", False)
    assert [(one["region"], one["last"]) for one in document["counters"]] == [(US, 4), (EU, 5), (AP, 6)]


@pytest.mark.usefixtures("three")
def test_a_counter_with_a_start_and_a_ceiling(ticketctl: Ticketctl, name: str) -> None:
    """No region mints below the start or above the ceiling; creating it again with other options is refused."""
    made = ticketctl("counter", "create", name, "--start", "8", "--ceiling", "40", "--json", *OPTIONS)
    document = json.loads(made.stdout)
    assert (made.returncode, made.stderr) == (0, "")
    assert document == {
        "created": True,
        "counters": [
            counter(name, US, 7, offset=1, increment=3, ceiling=40, remaining=11),
            counter(name, EU, 5, offset=2, increment=3, ceiling=40, remaining=11),
            counter(name, AP, 6, offset=3, increment=3, ceiling=40, remaining=11),
        ],
    }
    refused = ticketctl("counter", "create", name, "--ceiling", "39", *OPTIONS)
    assert (refused.returncode, refused.stdout) == (6, "")
    assert f"the counter {name!r} exists in {US} with other options" in refused.stderr


def test_advance(ticketctl: Ticketctl, connect: Connect, three: str, name: str) -> None:
    """``advance`` moves a counter past a number in every region, never back; with ``--region``, in that region only."""
    assert ticketctl("counter", "create", name, *OPTIONS).returncode == 0
    advanced = ticketctl("counter", "advance", name, "--to", "50", *OPTIONS)
    rows = [
        row(name, at, last, offset=n, increment=3) for n, (at, last) in enumerate([(US, 49), (EU, 50), (AP, 48)], 1)
    ]
    told = f"{name} is now past that number, in {three} in the embedded AWS, {US}, {EU}, {AP}\n"
    assert advanced == Result(0, "".join(rows), told)
    one = ticketctl("counter", "advance", name, "--to", "60", *named(AP), *OPTIONS)
    assert (one.returncode, one.stdout) == (0, row(name, AP, 60, offset=3, increment=3))
    back = ticketctl("counter", "advance", name, "--to", "47", *OPTIONS)
    again = "going back to 47 would mint numbers again"
    assert back == Result(6, "", f"error: the counter {name!r} is at 49 or more in every region; {again}\n")
    assert first_numbers(connect, three, (US, EU, AP), partition=name) == [52, 53, 63]
    assert ticketctl("counter", "advance", name, "--to", "58", *OPTIONS).returncode == 0
    assert first_numbers(connect, three, (US, EU, AP), partition=name) == [61, 59, 66]


def test_adopt(ticketctl: Ticketctl, connect: Connect, tmp_path: Path, three: str, name: str) -> None:
    """A counter starts above the numbers of a file in every region; a counter already beyond them does not change."""
    (tmp_path / "numbers").write_text("7\n41\n12\n", encoding="utf-8")
    adopt = ("counter", "adopt", name, "--from-max", str(tmp_path / "numbers"), "--json", *OPTIONS)
    made = ticketctl(*adopt)
    counters = [
        counter(name, US, 40, offset=1, increment=3),
        counter(name, EU, 41, offset=2, increment=3),
        counter(name, AP, 39, offset=3, increment=3),
    ]
    assert (made.returncode, json.loads(made.stdout), made.stderr) == (0, {"counters": counters, "moved": True}, "")
    assert first_numbers(connect, three, (US, EU, AP), partition=name) == [43, 44, 42]
    again = ticketctl(*adopt)
    document = json.loads(again.stdout)
    assert (again.returncode, document["moved"], again.stderr) == (0, False, "")
    (tmp_path / "numbers").write_text("45\n", encoding="utf-8")
    assert json.loads(ticketctl(*adopt).stdout)["moved"] is True
    assert first_numbers(connect, three, (US, EU, AP), partition=name) == [46, 47, 48]


def test_freeze_and_thaw(ticketctl: Ticketctl, connect: Connect, three: str, name: str) -> None:
    """Freeze and thaw apply to every region, or to the region of ``--region``."""
    assert ticketctl("counter", "create", name, *OPTIONS).returncode == 0
    frozen = ticketctl("counter", "freeze", name, *OPTIONS)
    assert frozen == Result(
        0,
        "".join(row(name, at, n - 3, offset=n, increment=3, state="frozen") for n, at in enumerate((US, EU, AP), 1)),
        f"{name} is frozen, in {three} in the embedded AWS, {US}, {EU}, {AP}\n",
    )
    thawed = ticketctl("counter", "thaw", name, *named(AP), *OPTIONS)
    told = f"{name} mints again, in {three} in the embedded AWS, {AP}\n"
    assert thawed == Result(0, row(name, AP, 0, offset=3, increment=3), told)
    assert first_numbers(connect, three, [AP], partition=name) == [3]
    with pytest.raises(CounterFrozenError):
        first_numbers(connect, three, [EU], partition=name)
    assert ticketctl("counter", "thaw", name, *OPTIONS).returncode == 0
    assert first_numbers(connect, three, (US, EU, AP), partition=name) == [1, 2, 6]


@pytest.mark.usefixtures("three")
def test_status_of_one_counter(ticketctl: Ticketctl, name: str) -> None:
    """``status -p`` shows a counter in all regions; a region's name means that region's default counter."""
    assert ticketctl("counter", "create", name, *OPTIONS).returncode == 0
    rows = [row(name, at, n - 3, offset=n, increment=3) for n, at in enumerate((US, EU, AP), start=1)]
    assert ticketctl("status", "-p", name, *OPTIONS) == Result(0, rows[2] + rows[1] + rows[0], "")
    assert ticketctl("status", "-p", EU, *OPTIONS) == Result(0, row(EU, EU, -1, offset=2, increment=3), "")
    listed = ticketctl("counter", "list", *named(EU), *OPTIONS)
    assert (listed.returncode, listed.stderr, rows[1] in listed.stdout) == (0, "", True)
    assert {line.split("\t")[-1] for line in listed.stdout.splitlines()} == {EU}


@pytest.mark.parametrize(
    "command",
    [["next", "-p"], ["counter", "advance", "--to", "7"], ["counter", "freeze"]],
    ids=lambda words: " ".join(words[:2]),
)
def test_unknown_counter(ticketctl: Ticketctl, aws: Aws, three: str, command: list[str]) -> None:
    """If no region has the counter, the command exits 5, prints how to create it, and creates nothing."""
    before = [items(aws, three, region) for region in (US, EU, AP)]
    unknown = ticketctl(*command, "typo", *OPTIONS)
    hint = f"ticketctl counter create typo --stack {three} --local"
    assert unknown == Result(5, "", f"error: there is no counter 'typo'\nhint: {hint}\n")
    assert [items(aws, three, region) for region in (US, EU, AP)] == before


def test_the_name_of_a_region_is_taken(ticketctl: Ticketctl, aws: Aws, three: str) -> None:
    """A counter cannot have the name of a region, which is the name of its default counter."""
    before = [items(aws, three, region) for region in (US, EU, AP)]
    refused = ticketctl("counter", "create", EU, *OPTIONS)
    told = f"error: '{EU}' is a region's name, reserved for its default counter\nhint: choose another name\n"
    assert refused == Result(2, "", told)
    assert [items(aws, three, region) for region in (US, EU, AP)] == before


def test_verify(ticketctl: Ticketctl, aws: Aws, three: str) -> None:
    """``verify`` checks all regions at once and leaves nothing behind."""
    before = [items(aws, three, region) for region in (US, EU, AP)]
    run = ticketctl("verify", "--workers", "6", "--mints", "10", "--json", *OPTIONS)
    report = json.loads(run.stdout)
    assert (run.returncode, run.stderr) == (0, "")
    names = ("minted", "not_minted", "unknown", "duplicates", "outside_lane", "out_of_order", "gaps")
    assert [report[name] for name in names] == [60, 0, 0, 0, 0, 0, 0]
    assert [items(aws, three, region) for region in (US, EU, AP)] == before


# --- leaving and returning ---------------------------------------------------------------------------


def test_a_destroyed_region_is_retired_and_returns(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """No other region mints a retired region's numbers; deployed again, it continues and gets newer counters."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    assert ticketctl("counter", "create", "orders", "-q", *options).returncode == 0
    for partition in (None, "orders"):
        assert first_numbers(connect, new_stack, [EU, EU, US], partition=partition) == [2, 4, 1]
    destroyed = ticketctl("destroy", "--yes", *named(EU), *options)
    assert (destroyed.returncode, destroyed.stdout) == (0, "")
    assert destroyed.stderr.splitlines()[-1] == (
        f"destroyed the stack of {new_stack} in the embedded AWS, {EU}; "
        f"the table {new_stack} is kept, and ticketctl deploy uses it again"
    )
    assert lanes(ticketctl("regions", "--json", *options)) == {
        (None, US): (1, 2, 3, "mints"),
        (None, EU): (2, 2, 6, "retired"),
        ("orders", US): (1, 2, 3, "mints"),
        ("orders", EU): (2, 2, 6, "retired"),
    }
    gone = ticketctl("next", *named(EU), *options)
    assert (gone.returncode, gone.stdout) == (5, "")
    assert gone.stderr.splitlines()[-1] == f"hint: ticketctl deploy --stack {new_stack} --region {EU} --local"
    assert ticketctl("fetch", "3", *options) == Result(0, "3\n5\n7\n", "")
    assert first_numbers(connect, new_stack, [US, US], partition="orders") == [3, 5]
    made = ticketctl("counter", "create", "later", *options)
    assert made.stdout == row("later", US, -1, offset=1, increment=2)
    assert first_numbers(connect, new_stack, [US, US], partition="later") == [1, 3]
    assert ticketctl("deploy", "-q", *named(EU), *options).returncode == 0
    assert lanes(ticketctl("regions", "--json", *options)) == {
        (None, US): (1, 2, 9, "mints"),
        (None, EU): (2, 2, 6, "mints"),
        ("orders", US): (1, 2, 7, "mints"),
        ("orders", EU): (2, 2, 6, "mints"),
        ("later", US): (3, 4, 7, "mints"),
        ("later", EU): (1, 4, 5, "mints"),
    }
    assert first_numbers(connect, new_stack, [EU, US]) == [6, 9]
    assert first_numbers(connect, new_stack, [EU, US], partition="later") == [5, 7]


def test_a_region_whose_tickets_were_deleted_gets_a_new_lane(
    ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """If a region's tickets were deleted, they are never issued again; deployed again, it gets part of another lane."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    minted = first_numbers(connect, new_stack, [EU, EU, EU, US])
    gone = ticketctl("destroy", "--yes", "--delete-tickets", new_stack, "--json", *named(EU), *options)
    told = {"destroyed": True, "table_deleted": True, "stack": new_stack, "region": EU}
    assert (gone.returncode, json.loads(gone.stdout), gone.stderr) == (0, told, "")
    again = ticketctl("deploy", *named(EU), *options)
    assert again.returncode == 0
    assert f"the default counter: {US} has handed 3, 7, 11, … over to {EU}" in again.stderr.splitlines()
    assert lanes(ticketctl("regions", "--json", *options)) == {
        (None, US): (1, 4, 5, "mints"),
        (None, EU): (3, 4, 3, "mints"),
    }
    for region in (EU, US):
        minted += take(connect(stack=new_stack, region=region), 20).tickets
    assert len(set(minted)) == len(minted) == 44


def test_destroy_of_all_regions(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """Without --region all regions are destroyed; deployed again in any order, all continue."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    assert first_numbers(connect, new_stack, [EU, US, EU]) == [2, 1, 4]
    gone = ticketctl("destroy", "--yes", "--json", *options)
    document = {"destroyed": True, "table_deleted": False, "stack": new_stack}
    told = {"regions": [document | {"region": region} for region in (US, EU)]}
    assert (gone.returncode, json.loads(gone.stdout), gone.stderr) == (0, told, "")
    nothing = ticketctl("destroy", *named(US, EU), *options)
    kept = f"the table {new_stack} is kept"
    lines = [f"nothing to destroy in {ACCOUNT}/{region}; {kept}\n" for region in (US, EU)]
    assert nothing == Result(0, "", "".join(lines))
    assert ticketctl("deploy", "-q", *named(EU, US), *options).returncode == 0
    assert first_numbers(connect, new_stack, [EU, US, EU]) == [6, 3, 8]


def test_the_remaining_region_is_remembered(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """If the first of two regions is destroyed, next without a region mints from the other."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "-q", *named(US, EU), *options).returncode == 0
    assert first_numbers(connect, new_stack, [US]) == [1]
    assert ticketctl("destroy", "--yes", "-q", *named(US), *options).returncode == 0
    assert ticketctl("next", *options) == Result(0, "2\n", "")


# --- what must be refused ----------------------------------------------------------------------------


def test_two_independent_stacks_are_found_out(aws: Aws, ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """Two independent stacks with one name are a conflict that names both, and no deployment merges them."""
    options = ("--local", "--stack", new_stack)
    for region in (US, EU):
        deploy_alone(connect(stack=new_stack, region=region))
    assert first_numbers(connect, new_stack, [US, US, EU]) == [1, 2, 1]
    conflict = f"the counter {US!r} in {US} and the counter {EU!r} in {EU} overlap: 3, 4, 5, … and 2, 3, 4, …"
    hint = "destroy the one whose tickets nobody uses, or deploy it under another --stack"
    told = f"error: {conflict}\nhint: {hint}\n"
    shown = ticketctl("regions", *options)
    rows = f"{US}\t{US}\t1\t1\t1\t3\tmints\n{EU}\t{EU}\t1\t1\t1\t2\tmints\n"
    assert (shown.returncode, sorted(shown.stdout), shown.stderr) == (6, sorted(rows), told)
    document = json.loads(ticketctl("regions", "--json", *named(EU, US), *options).stdout)
    common = {"counter": None, "offset": 1, "increment": 1, "share": "1"}
    pair = [common | {"region": US, "next": 3}, common | {"region": EU, "next": 2}]
    assert (document["pairs"], [sorted(found, key=str) for found in document["conflicts"]]) == (
        1,
        [sorted(pair, key=str)],
    )

    def everything() -> list[Any]:
        stacks = [aws.in_region(region).client("cloudformation") for region in (US, EU, AP)]
        found = [stack for client in stacks for stack in client.describe_stacks()["Stacks"]]
        return [items(aws, new_stack, US), items(aws, new_stack, EU), found]

    before = everything()
    for regions in ([EU, US], [AP]):
        refused = ticketctl("deploy", "--max-count", "7", "-q", *named(*regions), *options)
        assert (refused.returncode, refused.stdout) == (6, ""), regions
        assert "overlap: " in refused.stderr
    assert everything() == before


def test_a_second_sequence_is_not_started(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """If another region has the sequence, next in a region without the stack exits 5 and names deploy."""
    options = ("--local", "--stack", new_stack)
    assert first_numbers(connect, new_stack, [US]) == [1]
    for command in (["next"], ["fetch", "2", "--via", "dynamodb"], ["counter", "create", "x"]):
        refused = ticketctl(*command, *named(EU), *options)
        assert (refused.returncode, refused.stdout) == (5, ""), command
        assert refused.stderr.splitlines()[-1] == f"hint: ticketctl deploy --stack {new_stack} --region {EU} --local"
    assert connect(stack=new_stack, region=EU).locator.describe() is None


def test_several_regions_are_never_deployed_by_themselves(
    ticketctl: Ticketctl, connect: Connect, new_stack: str
) -> None:
    """If no named region has the stack, next deploys none of them and exits 5."""
    refused = ticketctl("next", *named(US, EU), "--local", "--stack", new_stack)
    assert [connect(stack=new_stack, region=region).locator.describe() for region in (US, EU)] == [None, None]
    hint = f"hint: ticketctl deploy --stack {new_stack} --region {US} --region {EU} --local"
    assert (refused.returncode, refused.stdout, refused.stderr.splitlines()[-1]) == (5, "", hint)
