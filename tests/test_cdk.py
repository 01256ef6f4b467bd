"""``ticketctl.cdk``: the ticket server in stacks of other CDK apps."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import synthesis
from tests.support.other_tools import NODE
from ticketctl.aws.template import PACKAGE

APP = Path(synthesis.__file__).parent / "cdk_app.py"
NUMBERS = re.compile(r"^([A-Z_]+) = (\d+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud assembly of ``cdk_app.py``."""
    return synthesis.once(tmp_path_factory.getbasetemp(), "apps", lambda folder: synthesis.synthesize(APP, folder))


def read(folder: Path, stack: str) -> dict[str, Any]:
    template: dict[str, Any] = json.loads((folder / f"{stack}.template.json").read_text(encoding="utf-8"))
    return template


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}


def only(template: Mapping[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    ((name, resource),) = of_type(template, kind).items()
    return name, resource


def policy_of(template: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """The statements of the one policy of a role."""
    (document,) = [
        policy["Properties"]["PolicyDocument"]
        for policy in of_type(template, "AWS::IAM::Policy").values()
        if all(each["Ref"].startswith(role) for each in policy["Properties"]["Roles"])
    ]
    statements: list[dict[str, Any]] = document["Statement"]
    return statements


def test_plain(folder: Path) -> None:
    """Without properties it is private and begins with 1; its protected table has a name that CloudFormation makes."""
    template = read(folder, "Plain")
    _, table = only(template, "AWS::DynamoDB::Table")
    assert (table["DeletionPolicy"], table["Properties"]["DeletionProtectionEnabled"]) == ("Retain", True)
    assert "TableName" not in table["Properties"]
    _, function = only(template, "AWS::Lambda::Function")
    variables = function["Properties"]["Environment"]["Variables"]
    assert [variables[name] for name in ("OFFSET", "INCREMENT", "MAX_COUNT")] == ["1", "1", "10000"]
    assert variables["DEFAULT_PARTITION"] == {"Ref": "AWS::Region"}
    assert "ReservedConcurrentExecutions" not in function["Properties"]
    assert only(template, "AWS::Logs::LogGroup")[1]["Properties"]["RetentionInDays"] == 30
    assert only(template, "AWS::Lambda::Url")[1]["Properties"]["AuthType"] == "AWS_IAM"
    assert not of_type(template, "AWS::Lambda::Permission")
    assert not of_type(template, "AWS::CloudWatch::Alarm")
    assert "Conditions" not in template


def test_attributes(folder: Path) -> None:
    """The URL, the table and the function can be used in the rest of the stack."""
    template = read(folder, "Plain")
    assert {name: output["Value"] for name, output in template["Outputs"].items()} == {
        "Url": {"Fn::GetAtt": [only(template, "AWS::Lambda::Url")[0], "FunctionUrl"]},
        "Table": {"Ref": only(template, "AWS::DynamoDB::Table")[0]},
        "Function": {"Ref": only(template, "AWS::Lambda::Function")[0]},
    }


def test_grant_mint(folder: Path) -> None:
    """``grant_mint`` writes the two permissions that a signed call of the URL needs."""
    template = read(folder, "Plain")
    function = {"Fn::GetAtt": [only(template, "AWS::Lambda::Function")[0], "Arn"]}
    assert policy_of(template, "MintsFromUrl") == [
        {
            "Effect": "Allow",
            "Action": "lambda:InvokeFunctionUrl",
            "Resource": function,
            "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}},
        },
        {
            "Effect": "Allow",
            "Action": "lambda:InvokeFunction",
            "Resource": function,
            "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": True}},
        },
    ]


def test_grant_mint_from_table(folder: Path) -> None:
    """``grant_mint_from_table`` allows to update and to get items of the table."""
    template = read(folder, "Plain")
    table = {"Fn::GetAtt": [only(template, "AWS::DynamoDB::Table")[0], "Arn"]}
    assert policy_of(template, "MintsFromTable") == [
        {"Effect": "Allow", "Action": ["dynamodb:UpdateItem", "dynamodb:GetItem"], "Resource": [table]}
    ]


def test_full(folder: Path) -> None:
    """Each property is in the template; a table that goes with the stack is not protected."""
    template = read(folder, "Full")
    _, table = only(template, "AWS::DynamoDB::Table")
    assert (table["DeletionPolicy"], table["Properties"]["DeletionProtectionEnabled"]) == ("Delete", False)
    assert table["Properties"]["TableName"] == "ShopTickets"
    _, function = only(template, "AWS::Lambda::Function")
    variables = function["Properties"]["Environment"]["Variables"]
    assert [variables[name] for name in ("OFFSET", "INCREMENT", "MAX_COUNT")] == ["2", "3", "50"]
    assert variables["DEFAULT_PARTITION"] == "eu-central-1"
    assert function["Properties"]["ReservedConcurrentExecutions"] == 5
    assert only(template, "AWS::Logs::LogGroup")[1]["Properties"]["RetentionInDays"] == 400
    assert only(template, "AWS::Lambda::Url")[1]["Properties"]["AuthType"] == "NONE"
    permissions = of_type(template, "AWS::Lambda::Permission").values()
    assert [permission["Properties"]["Action"] for permission in permissions] == [
        "lambda:InvokeFunctionUrl",
        "lambda:InvokeFunction",
    ]
    assert not any("Condition" in permission for permission in permissions)
    topic, _ = only(template, "AWS::SNS::Topic")
    alarms = of_type(template, "AWS::CloudWatch::Alarm").values()
    assert [alarm["Properties"]["AlarmActions"] for alarm in alarms] == [[{"Ref": topic}]] * 5


def test_several_in_one_stack(folder: Path) -> None:
    """Servers in one stack share no table and no metric, and each function uses its own table."""
    template = read(folder, "Several")
    tables = of_type(template, "AWS::DynamoDB::Table")
    assert ["TableName" in table["Properties"] for table in tables.values()] == [False] * 5
    used = [
        function["Properties"]["Environment"]["Variables"]["TABLE_NAME"]["Ref"]
        for function in of_type(template, "AWS::Lambda::Function").values()
    ]
    assert sorted(used) == sorted(tables)
    filters = of_type(template, "AWS::Logs::MetricFilter").values()
    counted = [each["Properties"]["MetricTransformations"][0]["MetricNamespace"] for each in filters]
    watched = [
        alarm["Properties"]["Namespace"]
        for alarm in of_type(template, "AWS::CloudWatch::Alarm").values()
        if alarm["Properties"]["MetricName"] == "CountersRunningOut"
    ]
    assert counted == watched
    assert counted == [
        {"Fn::Join": ["", ["ticketctl/", {"Ref": "AWS::StackName"}, f"/{name}"]]}
        for name in ("Orders", "Invoices", "a#20#b", "a#3a#b", "a_b")
    ]


def test_tokens(folder: Path) -> None:
    """Values that only the deployment knows are passed on; the permissions of a public URL then depend on them."""
    template = read(folder, "Tokens")
    _, function = only(template, "AWS::Lambda::Function")
    assert function["Properties"]["Environment"]["Variables"]["INCREMENT"] == {"Ref": "Step"}
    assert function["Properties"]["Environment"]["Variables"]["MAX_COUNT"] == {"Ref": "Count"}
    assert function["Properties"]["ReservedConcurrentExecutions"] == {"Ref": "Count"}
    assert only(template, "AWS::Lambda::Url")[1]["Properties"]["AuthType"] == {"Ref": "Auth"}
    ((public, rule),) = template["Conditions"].items()
    assert rule == {"Fn::Equals": [{"Ref": "Auth"}, "NONE"]}
    permissions = of_type(template, "AWS::Lambda::Permission").values()
    assert [permission["Condition"] for permission in permissions] == [public, public]


def test_properties_that_cannot_be_deployed(folder: Path) -> None:
    """Each is refused when the construct is made, with the property, what it may be and what it was."""
    days = "1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653"
    assert json.loads((folder / "errors.json").read_text(encoding="utf-8")) == {
        '{"auth": "none"}': "auth must be one of AWS_IAM, NONE, not 'none'",
        '{"offset": -1}': "offset must be a whole number, from 0 to 1000000, not -1",
        '{"offset": 1000001}': "offset must be a whole number, from 0 to 1000000, not 1000001",
        '{"increment": 0}': "increment must be a whole number, from 1 to 1000000, not 0",
        '{"increment": 1000001}': "increment must be a whole number, from 1 to 1000000, not 1000001",
        '{"increment": 1.5}': "increment must be a whole number, from 1 to 1000000, not 1.5",
        '{"max_count": 0}': "max_count must be a whole number, from 1 to 10000, not 0",
        '{"max_count": 10001}': "max_count must be a whole number, from 1 to 10000, not 10001",
        '{"reserved_concurrency": -1}': "reserved_concurrency must be a whole number, from 0 to 2147483647, not -1",
        '{"reserved_concurrency": 1000000000000000000000000000000}': (
            "reserved_concurrency must be a whole number, from 0 to 2147483647, not 1000000000000000000000000000000"
        ),
        '{"log_retention_days": 2}': f"log_retention_days must be one of {days}, not 2",
        '{"increment": true}': "increment must be a whole number, from 1 to 1000000, not True",
        '{"max_count": NaN}': "max_count must be a whole number, from 1 to 10000, not nan",
        '{"reserved_concurrency": false}': (
            "reserved_concurrency must be a whole number, from 0 to 2147483647, not False"
        ),
        '{"log_retention_days": true}': f"log_retention_days must be one of {days}, not True",
        '{"log_retention_days": Infinity}': f"log_retention_days must be one of {days}, not inf",
        '{"table_name": ""}': "table_name must have 3 to 255 letters, digits, '_', '.' and '-', not ''",
        '{"table_name": "Bestellungen f\\u00fcr uns"}': (
            "table_name must have 3 to 255 letters, digits, '_', '.' and '-', not 'Bestellungen für uns'"
        ),
        '{"removal_policy": "RemovalPolicy.SNAPSHOT"}': "removal_policy must not be SNAPSHOT: a table has none",
    }


def test_tokens_of_the_wrong_type(folder: Path) -> None:
    """A string token for a number, or a number token for a string, is refused with the property and the fix."""
    numbers = ["offset", "increment", "max_count", "reserved_concurrency", "log_retention_days"]
    assert json.loads((folder / "wrong_tokens.json").read_text(encoding="utf-8")) == {
        **{name: f"{name} must be a number token: use value_as_number or Token.as_number" for name in numbers},
        **{
            name: f"{name} must be a string token: use value_as_string or Token.as_string"
            for name in ("auth", "table_name")
        },
    }


def test_page_has_what_the_construct_has() -> None:
    """The tables of ``docs/cdk.md`` have the properties in their order with their defaults, attributes and grants."""
    tree = ast.parse((PACKAGE / "cdk" / "ticket_server.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    made, names = functions["__init__"], dict(NUMBERS.findall(ast.unparse(tree)))
    page = (synthesis.DOCS / "cdk.md").read_text(encoding="utf-8")
    properties, _, attributes = page.partition("## Properties")[2].partition("\n## ")[0].partition("| attribute |")
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", properties, re.MULTILINE))
    assert list(table) == [each.arg for each in made.args.kwonlyargs]
    for name, default in zip(table, made.args.kw_defaults, strict=True):
        code = ast.unparse(default or ast.Constant(None)).rpartition(".")[2]
        shown = table[name].strip("`").replace(",", "")
        assert shown == names.get(code, code) or (code == "None" and shown in ("none", "generated")), name
    kept = {node.attr for node in ast.walk(made) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    listed = re.findall(r"^\| (`.+?`) \|", attributes, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(listed))) == kept
    grants = set(re.findall(r"^\| `(\w+)` \|", page.partition("## Permissions")[2].partition("\n## ")[0], re.MULTILINE))
    assert grants == {name for name in functions if name.startswith("grant_")}


@pytest.mark.parametrize("missing", ["aws_cdk", "constructs"])
def test_without_the_extra(missing: str) -> None:
    """Without the extra 'cdk', the import says how to install it."""
    code = f"import sys; sys.modules['{missing}'] = None; import ticketctl.cdk"
    environ = {**os.environ, "JSII_NODE": str(NODE)}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"ticketctl.errors.MissingExtraError: ticketctl.cdk needs {missing}: "
        "install ticketctl with the extra 'cdk'; in a checkout: pip install '.[cdk]'"
    )
