"""``nngen campaign``: run campaigns, list them, print their status, control and follow them from another terminal.

Each subcommand's module is imported when the command is used.
"""

from __future__ import annotations

from cyclopts import App

app = App(name="campaign", help="Sample, assemble, check, train and store; resumes after any stop.")
for _module, _names in (
    ("run", ("run",)),
    ("status", ("ls", "status")),
    ("control", ("pause", "resume", "stop", "watch", "events")),
):
    for _name in _names:
        app.command(f"nngen.cli.campaign.{_module}:{_name}", name=_name)
