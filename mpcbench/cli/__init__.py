"""The command line: one thin click command a file, loaded when it is called.

A command NAME is the object ``command`` in ``mpcbench/cli/NAME.py``; :data:`COMMANDS` lists them with
their one-line help, so that ``mpcbench --help`` imports none of them and no heavy library.
"""

from __future__ import annotations

import importlib

import click

from mpcbench import __version__
from mpcbench.allocator import keep_freed_memory
from mpcbench.cli.errors import reported

COMMANDS = {
    "compare": "Compare a model with 0, 8, 16 ... polynomial layers.",
    "estimate": "Say what runs will cost, without running.",
    "run": "Run one model under two-party computation here.",
    "generate": "Generate text under two-party computation here.",
    "sweep": "Measure a grid of models, layers, protocols, links ... from one file.",
    "plot": "Draw tables and figures again, from records alone.",
    "models": "List the models at hand, and pull one.",
    "calibrate": "Fit polynomials to a model; write a polynomial checkpoint.",
    "distill": "Train a model with polynomial layers by a recipe.",
    "study": "Run all recipes and write the table of the study.",
    "export": "Capture a model and cut its weights into shares.",
    "preprocess": "Make correlated randomness ahead of time, into files.",
    "party": "Start one party, here or on another host.",
    "serve": "Be the client or the dealer of a comparison on another host.",
    "certs": "Make certificates for a run on several hosts.",
    "dealer": "Make correlated randomness for two parties.",
    "protocols": "List the protocols and their operators.",
    "doctor": "Say what is missing on this machine and what to do.",
}


class LazyGroup(click.Group):
    """A group that imports the module of a command only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object, or None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"mpcbench.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from its short texts, without loading any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what a user can mend becomes one sentence and an exit code."""
        with reported():
            return super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mpcbench")
def main() -> None:
    """What Llama layers cost under two-party computation, and what accuracy cheaper layers keep."""
    keep_freed_memory()
