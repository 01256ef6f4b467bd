"""The files around the code: workflows, hooks, forms and guides say what pyproject.toml and the code say."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CHECKS = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
YAML = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
GUIDES = ("CONTRIBUTING.md", "SECURITY.md")


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def workflow(name: str) -> Any:
    return read(f".github/workflows/{name}.yml")


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_python_versions() -> None:
    """Every version that the package claims is tested, and the oldest is the one that it requires."""
    prefix = "Programming Language :: Python :: 3."
    claimed = [
        f"3.{name.removeprefix(prefix)}" for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)
    ]
    assert workflow("ci")["jobs"]["checks"]["strategy"]["matrix"]["python"] == claimed
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"


def test_every_job_of_ci_runs_all_checks() -> None:
    """On a pull request and before a release the same script runs, once with the newest dependencies."""
    jobs = workflow("ci")["jobs"]
    assert [job["steps"][-1]["run"] for job in jobs.values()] == [".ci/run", ".ci/run"]
    assert jobs["newest"]["steps"][-1]["env"] == {"UV_EXCLUDE_NEWER": "0 days"}
    assert set(workflow("release")["jobs"]["publish"]["needs"]) == {"checks", "build"}


def test_only_publishing_has_a_permission() -> None:
    """Jobs read the repository; only the last one of a release may identify itself, and it has nothing else."""
    jobs = {**workflow("ci")["jobs"], **workflow("release")["jobs"]}
    assert workflow("ci")["permissions"] == workflow("release")["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert granted == {"publish": {"id-token": "write"}}


def test_actions_are_pinned_by_hash() -> None:
    """Nobody can change what a workflow runs by moving a tag."""
    for name in ("ci", "release"):
        text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
        used = re.findall(r"uses: (\S+)", text)
        assert used
        assert all(re.search("@[0-9a-f]{40}$", action) for action in used if not action.startswith("./"))


def test_hooks_are_quick_checks_of_ci() -> None:
    """A commit runs commands of ``.ci/run`` and downloads nothing."""
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].replace(".venv/bin/uv", "\n$uv") + "\n" in CHECKS


def test_set_up_line_is_the_one_of_ci() -> None:
    """The line in the guide is the one that CI runs."""
    (line,) = re.findall(r"^\((python3 -m venv .*)\)$", CHECKS, re.MULTILINE)
    assert f"\n    {line}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_files_that_exist(guide: str) -> None:
    """Each path and each link of a guide leads to a file or a folder."""
    text = (ROOT / guide).read_text(encoding="utf-8")
    named = re.findall(r"`((?:\.ci|\.github|docs|lambda|stack|tests|ticketctl)/[^` ]*|\w+\.(?:md|toml))`", text)
    linked = re.findall(r"\]\(([^)#]+)\)", text)
    assert named or linked
    missing = [name for name in {*named, *linked} - {"ticketctl/commands/NAME.py"} if not (ROOT / name).exists()]
    assert missing == []


def test_guide_names_what_the_code_has() -> None:
    """The names that the guide sends a contributor to are in the files that it names beside them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = {
        "_PANELS": "ticketctl/cli.py",
        "ARGUMENTS": "tests/test_cli.py",
        "NAMES": "lambda/create_ticket.py",
        "read_counter": "lambda/create_ticket.py",
        "Counter": "ticketctl/models.py",
        "SHOWN": "ticketctl/counters/table.py",
        "CfnParameter": "stack/tickets_stack.py",
        "PARAMETERS": "ticketctl/commands/stack_options.py",
        "TEMPLATE_NAMES": "ticketctl/commands/stack_options.py",
        "_refuse_function_options": "ticketctl/commands/stack_options.py",
    }
    for name, path in places.items():
        assert f"`{name}`" in text
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8"))
