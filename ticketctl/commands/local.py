"""``local``: start, stop and inspect the embedded AWS."""

import os
import time
from typing import Annotated

import typer

from ticketctl.commands.options import Group, Run, Yes, command, help_without_command
from ticketctl.errors import LocalEngineError
from ticketctl.results import Result


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    local = typer.Typer(
        cls=Group,
        help="Start, stop and inspect the embedded AWS that --local uses.",
        invoke_without_command=True,
        callback=help_without_command,
    )
    for name, function in {"up": up, "down": down, "status": status, "env": env, "logs": logs, "reset": reset}.items():
        command(local, name, local=True)(function)
    app.add_typer(local, name="local")


def up(run: Run) -> None:
    """Start the embedded AWS, deploy the stack and print the endpoint.

    Examples:
        ticketctl local up
        ticketctl local up --stack orders --json
    """
    run.require_stack()
    run.home.locator.look_up()
    engine = run.home.session.local.ensure()
    document = {"endpoint_url": engine.endpoint_url, "pid": engine.pid, "port": engine.port}
    run.output.show(Result(document, [[engine.endpoint_url]]))


def down(run: Run) -> None:
    """Stop the embedded AWS. Its stacks and counters are kept.

    Examples:
        ticketctl local down
        ticketctl local down --json
    """
    local = run.home.session.local
    stopped = local.stop()
    if stopped and not local.state.exists():
        raise LocalEngineError(f"stopped, but {local.state} was removed while the engine ran: its counters are lost")
    run.output.note("stopped the embedded AWS; its state is kept" if stopped else "the embedded AWS was not running")
    run.output.show(Result({"stopped": stopped}))


def status(run: Run) -> None:
    """Show if the embedded AWS runs, its log and its state file.

    Examples:
        ticketctl local status
        ticketctl local status --json
    """
    local = run.home.session.local
    engine = local.running()
    document = {
        "running": engine is not None,
        "endpoint_url": engine.endpoint_url if engine else None,
        "pid": engine.pid if engine else None,
        "log": str(local.log),
        "state": str(local.state),
    }
    state = ["running", engine.endpoint_url, f"pid {engine.pid}"] if engine else ["stopped"]
    run.output.show(Result(document, [state, ["log", str(local.log)], ["state", str(local.state)]]))


def env(run: Run) -> None:
    """Print the variables that connect any AWS tool to the embedded AWS.

    Examples:
        eval "$(ticketctl local env)"
        ticketctl local env --region eu-central-1
    """
    region = run.settings.require_region()
    variables = run.home.session.local.ensure().variables(region)
    run.output.show(Result(variables, [[f"export {name}={value}"] for name, value in variables.items()]))


def logs(
    run: Run,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C. Default: off.")
    ] = False,
) -> None:
    """Print the log of the embedded AWS.

    Examples:
        ticketctl local logs
        ticketctl local logs --follow
    """
    run.home.session.local.prepare()
    path = run.home.session.local.log
    path.touch(mode=0o600)
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            for line in file:
                text = line.rstrip("\n")
                run.output.show(Result({"line": text}, [[text]]))
            if not follow:
                return
            time.sleep(0.5)


def reset(run: Run, yes: Yes = False) -> None:
    """Stop the embedded AWS and delete its stacks and counters.

    Examples:
        ticketctl local reset
        ticketctl local reset --yes
    """
    from ticketctl.deployments.regions import forget_embedded

    run.confirm("Delete every stack and counter of the embedded AWS?", yes=yes)
    run.home.session.local.reset()
    forget_embedded(os.environ)
    run.output.note("the embedded AWS is empty")
    run.output.show(Result({"reset": True}))
