"""``deploy``: what a deployment plans, asks, executes and changes, with an account in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.memory_aws import AP, EU, US, Account, Said, regions_of, url_in
from ticketctl.counters.lanes import Lane
from ticketctl.counters.survey import DEFAULT, survey
from ticketctl.deployments.deploy import Deployed, deploy, preview
from ticketctl.deployments.outcomes import Outcomes, failures, succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import AccessError, RefusedError, StackFailedError, TicketctlError, UsageError

Connect = Callable[..., Regions]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def connect(account: Account, tmp_path: Path, said: Said) -> Connect:
    return lambda *names, **flags: regions_of(account, tmp_path, *names, said=said, **flags)


@pytest.fixture
def deployed(connect: Connect, said: Said) -> Callable[..., Outcomes[Deployed]]:
    """Deploy to regions, as a command does."""

    def run(*names: str, opens_to_anyone: bool = False, **parameters: str) -> Outcomes[Deployed]:
        return deploy(connect(*names), parameters, said.dialog, opens_to_anyone=opens_to_anyone)

    return run


Deploy = Callable[..., Outcomes[Deployed]]


def lanes(regions: Regions) -> dict[str, Lane]:
    """Return the lanes of the default counter by region."""
    found = survey(regions.members())
    found.require_disjoint()
    return {entry.region: entry.lane for entry in found.entries[DEFAULT]}


# --- one region --------------------------------------------------------------------------------------


def test_a_new_stack(deployed: Deploy, account: Account, said: Said) -> None:
    """A first deployment creates the stack and its table, shows the changes and asks nothing."""
    (done,) = succeeded(deployed(US)).values()
    assert (done.url, done.changed, done.outputs.auth) == (url_in(US), True, "AWS_IAM")
    assert account.numbers(US) == {}
    assert said.lines == [f"{US}:   add AWS::DynamoDB::Table Table"]
    assert said.questions == []


def test_a_deployed_stack_is_remembered(deployed: Deploy, connect: Connect, account: Account) -> None:
    """After a deployment the next process mints without asking CloudFormation."""
    deployed(US)
    before = account.calls[f"describe {US}"]
    assert connect(US).home.locator.locate().outputs.url == url_in(US)
    assert account.calls[f"describe {US}"] == before


def test_a_changed_stack_counts_as_just_deployed(deployed: Deploy, connect: Connect, account: Account) -> None:
    """Only if the deployment changed the stack, the next process retries a missing permission."""
    denied = AccessError("denied")
    account.deploy(US)
    deployed(US)
    assert not connect(US, via="url").home.locator.policy_may_spread(denied)
    deployed(US, MaxCount="5")
    assert connect(US, via="url").home.locator.policy_may_spread(denied)
    assert not connect(US, via="dynamodb").home.locator.policy_may_spread(denied)


def test_no_changes(deployed: Deploy, account: Account, said: Said) -> None:
    """If the stack is up to date, nothing is executed, and the result still has its URL."""
    account.deploy(US)
    (done,) = succeeded(deployed(US)).values()
    assert (done.url, done.changed) == (url_in(US), False)
    assert said.lines == [f"{US}: no changes"]
    assert account.calls[f"execute {US}"] == 0


def test_a_change_of_parameters(deployed: Deploy, account: Account) -> None:
    """A given parameter changes, and the others keep their values."""
    account.deploy(US, MaxCount="70")
    (done,) = succeeded(deployed(US, Offset="7", Increment="9")).values()
    assert (done.outputs.offset, done.outputs.increment, done.outputs.max_count) == (7, 9, 70)
    assert done.changed


@pytest.mark.parametrize("run", ["deploy", "preview"])
def test_the_table_is_never_replaced(
    account: Account, connect: Connect, deployed: Deploy, said: Said, run: str
) -> None:
    """A plan that would replace the table is refused and discarded; nothing is executed."""
    account.deploy(US)
    account.replaces_table = True
    outcomes = deployed(US) if run == "deploy" else preview(connect(US), {}, said.lines.append)
    (error,) = failures(outcomes).values()
    assert isinstance(error, RefusedError)
    assert "would replace or delete the table" in error.message
    assert (account.calls[f"discard {US}"], account.calls[f"execute {US}"]) == (1, 0)


# --- opening to anyone -------------------------------------------------------------------------------


def test_opening_to_anyone_asks_once(deployed: Deploy, said: Said) -> None:
    """If two regions become public, there is one question."""
    done = succeeded(deployed(US, EU, opens_to_anyone=True, AuthType="NONE"))
    assert said.questions == ["Anyone who has the URL will be able to mint. Deploy it?"]
    assert [each.outputs.auth for each in done.values()] == ["NONE", "NONE"]


def test_a_stack_that_is_open_already_asks_nothing(deployed: Deploy, account: Account, said: Said) -> None:
    """If a stack is already public, nothing is asked."""
    account.deploy(US, AuthType="NONE")
    deployed(US, opens_to_anyone=True, AuthType="NONE", MaxCount="7")
    assert said.questions == []


def test_no_lock_is_held_while_the_user_is_asked(deployed: Deploy, account: Account, said: Said) -> None:
    """Other commands can deploy while the question is open."""
    locks: list[int] = []
    said.confirm = lambda question: locks.append(account.locks)  # type: ignore[method-assign]
    deployed(US, opens_to_anyone=True, AuthType="NONE")
    assert (locks, account.locks) == ([0], 0)


def test_a_refusal_discards_the_plans(deployed: Deploy, account: Account, said: Said) -> None:
    """If the user does not agree, every plan is discarded and nothing is executed."""
    said.refusal = RefusedError("not confirmed")
    with pytest.raises(RefusedError, match="not confirmed"):
        deployed(US, EU, opens_to_anyone=True, AuthType="NONE")
    assert [account.calls[f"discard {region}"] for region in (US, EU)] == [1, 1]
    assert account.stacks == {}


# --- several regions ---------------------------------------------------------------------------------


def test_two_regions_share_the_sequence(deployed: Deploy, connect: Connect) -> None:
    """A new stack in two regions has odd and even numbers, and both regions are cached."""
    deployed(US, EU)
    assert lanes(connect(US)) == {US: Lane(1, 2), EU: Lane(2, 2)}
    assert connect(US).before() == (US, EU)


def test_a_second_region_gets_part_of_the_lane(deployed: Deploy, connect: Connect, account: Account) -> None:
    """A region that is added later shares the sequence and gets a part of the first region's lane."""
    deployed(US)
    deployed(US, EU)
    assert account.stacks[EU].parameters["Offset"] == "0"
    assert sorted((lane.offset, lane.increment) for lane in lanes(connect(US)).values()) == [(1, 2), (2, 2)]


def test_a_failing_region_does_not_stop_the_others(deployed: Deploy, account: Account, said: Said) -> None:
    """If the deployment of one region fails, the others are deployed, and its error is its outcome."""
    account.failing = {EU}
    outcomes = deployed(US, EU)
    assert list(outcomes) == [US, EU]
    assert list(succeeded(outcomes)) == [US]
    assert [type(error) for error in failures(outcomes).values()] == [StackFailedError]
    assert f"{EU}: failed: the deployment failed in {EU}" in said.lines


def test_no_lanes_are_assigned_if_all_fail(deployed: Deploy, account: Account) -> None:
    """If every region fails, their errors are the result and no counter is created."""
    account.failing = {US, EU}
    assert list(failures(deployed(US, EU))) == [US, EU]
    assert account.tables == {}


def test_lanes_of_several_regions_cannot_be_set(deployed: Deploy, account: Account) -> None:
    """An offset or increment is wrong usage if regions share the lanes; nothing is planned."""
    with pytest.raises(UsageError, match="cannot be set"):
        deployed(US, EU, Offset="7")
    assert account.calls[f"plan {US}"] == 0


def test_an_unread_region_is_asked_about(deployed: Deploy, account: Account, said: Said) -> None:
    """Before a new sequence starts, there is a question if a region that cannot be read might have tickets."""
    account.down = {AP}
    said.refusal = RefusedError("not confirmed")
    with pytest.raises(RefusedError):
        deployed(US)
    (question,) = said.questions
    assert question.startswith(f"Not read: {AP} (DynamoDB in {AP} cannot be reached: ")
    assert question.endswith("). Continue as if Tickets had no tickets there?")
    assert account.stacks == {}


def test_regions_that_do_not_know_the_credentials_are_asked_about(
    deployed: Deploy, account: Account, said: Said
) -> None:
    """Regions that do not know the credentials are named in one question, with the permission that avoids it."""
    account.codes = {EU: "UnrecognizedClientException", AP: "InvalidClientTokenId"}
    said.refusal = RefusedError("not confirmed")
    with pytest.raises(RefusedError):
        deployed(US)
    (question,) = said.questions
    assert question.startswith(f"Not read: {EU}, {AP} (these credentials are not valid there, or ")
    assert question.count("account:ListRegions") == 1


def test_another_deployment_at_the_same_time_is_noticed(deployed: Deploy, account: Account, said: Said) -> None:
    """If another deployment starts in another region after the regions were read, that is an error, not a duplicate."""
    said.confirm = lambda question: account.deploy(AP)  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match=f"another deployment has begun in {AP}"):
        deployed(US, opens_to_anyone=True, AuthType="NONE")


def test_an_unreachable_home_is_an_error(deployed: Deploy, account: Account) -> None:
    """If the first region is unreachable, the deployment fails before anything is planned."""
    account.down = {US}
    with pytest.raises(TicketctlError):
        deployed(US)
    assert account.calls[f"plan {US}"] == 0


# --- table-only --------------------------------------------------------------------------------------


def test_removing_urls_asks_once(connect: Connect, account: Account, said: Said) -> None:
    """The regions that would lose their URL are named in one question; without consent nothing changes."""
    deploy(connect(US, EU), {}, said.dialog, opens_to_anyone=False)
    account.calls.clear()
    said.refusal = RefusedError("not confirmed")
    with pytest.raises(RefusedError, match="not confirmed"):
        deploy(connect(US, EU), {}, said.dialog, opens_to_anyone=False, table_only=True)
    assert said.questions == [
        f"The function and its URL in {US}, {EU} will be removed; the counters stay. Remove them?"
    ]
    assert f"{US}:   remove AWS::Lambda::Url Url" in said.lines
    assert [account.calls[f"discard {region}"] for region in (US, EU)] == [1, 1]
    assert [account.calls[f"execute {region}"] for region in (US, EU)] == [0, 0]


def test_no_lock_is_held_while_the_removal_is_asked(connect: Connect, account: Account, said: Said) -> None:
    """Other commands can deploy while the question is open."""
    account.deploy(US)
    locks: list[int] = []
    said.confirm = lambda question: locks.append(account.locks)  # type: ignore[method-assign]
    (done,) = succeeded(deploy(connect(US), {}, said.dialog, opens_to_anyone=False, table_only=True)).values()
    assert (locks, account.locks, done.url, done.outputs.url) == ([0], 0, None, None)


def test_a_new_table_only_stack_asks_nothing(connect: Connect, said: Said) -> None:
    """A new table-only stack removes nothing, so nothing is asked, also when it is deployed again."""
    for changed in (True, False):
        (done,) = succeeded(deploy(connect(US), {}, said.dialog, opens_to_anyone=False, table_only=True)).values()
        assert (done.url, done.changed) == (None, changed)
    assert said.questions == []


# --- preview -----------------------------------------------------------------------------------------


def test_a_preview_changes_nothing(connect: Connect, account: Account, said: Said) -> None:
    """A preview shows the changes of each region and discards their change sets."""
    account.deploy(US)
    plans = succeeded(preview(connect(US), {"MaxCount": "7"}, said.lines.append))
    assert [str(change) for change in plans[US].changes] == ["modify AWS::Lambda::Function Function"]
    assert (account.calls[f"discard {US}"], account.calls[f"execute {US}"]) == (1, 0)
    assert account.stacks[US].parameters["MaxCount"] == "10000"


def test_a_preview_without_changes_discards_nothing(connect: Connect, account: Account, said: Said) -> None:
    """If a stack is up to date, a preview has no change set to discard."""
    account.deploy(US)
    plans = succeeded(preview(connect(US), {}, said.lines.append))
    assert plans[US].changes == ()
    assert account.calls[f"discard {US}"] == 0
