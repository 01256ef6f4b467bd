"""``docs/recipes/github-actions.md``: its step, run as GitHub runs it; the rest is read."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.recipes.conftest import Run
from tests.support.command_line import Ticketctl
from tests.support.iam_users import POLICIES
from tests.support.recipes import page, parsed_yaml, programs

WORKFLOW = ".github/workflows/build.yml"


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parsed_yaml(programs("github-actions")[WORKFLOW])["jobs"]["build"]["steps"]
    return found


def test_the_step_takes_one_number_per_run(
    run: Run, caller: dict[str, str], ticketctl: Ticketctl, tmp_path: Path
) -> None:
    """A run that is repeated gets its number again, another run the next; without a number the step fails."""
    local = ("--local", "--stack", caller["TICKETCTL_STACK"])
    assert ticketctl("counter", "create", "builds", *local).returncode == 0
    (step,) = (step for step in steps() if step.get("id") == "build")
    (tmp_path / "step.sh").write_text(step["run"], encoding="utf-8")
    github = {"GITHUB_REPOSITORY": "ada/engine", "GITHUB_OUTPUT": str(tmp_path / "output")}

    def take(run_id: str, **variables: str) -> None:
        run("bash", "-e", "step.sh", succeeds=not variables, GITHUB_RUN_ID=run_id, **github, **variables)

    for run_id in ("1658821493", "1658821493", "1658821494"):
        take(run_id)
    take("1658821495", AWS_SECRET_ACCESS_KEY="another")
    assert (tmp_path / "output").read_text(encoding="utf-8").split() == ["number=1", "number=1", "number=2"]


def test_the_workflow() -> None:
    """The job may ask for a token, takes the role that the page makes, and uses the output of the step."""
    workflow = parsed_yaml(programs("github-actions")[WORKFLOW])
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    takes_role = steps()[0]["with"]["role-to-assume"]
    assert f"--role-name {takes_role.rpartition('/')[2]}" in page("github-actions")
    assert "steps.build.outputs.number" in steps()[-1]["env"]["NUMBER"]


def test_the_trust_policy() -> None:
    """Only one branch of one repository can take the role."""
    (statement,) = json.loads(programs("github-actions")["trust.json"])["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    conditions = statement["Condition"]["StringEquals"]
    assert list(statement["Condition"]) == ["StringEquals"]
    assert conditions["token.actions.githubusercontent.com:sub"] == "repo:OWNER/REPOSITORY:ref:refs/heads/main"


def test_the_policy_that_the_page_makes() -> None:
    """The page's sed makes a policy without placeholders."""
    (line,) = re.findall(r"^    (sed .*) > policy.json$", page("github-actions"), re.MULTILINE)
    command = shlex.split(line.replace("docs/policies", str(POLICIES)))
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert json.loads(made)
    assert not re.search("ACCOUNT|REGION|STACK", made)
