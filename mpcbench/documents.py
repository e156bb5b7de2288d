"""YAML that a user has written: read safely, and refused with the line at which it goes wrong."""

from __future__ import annotations

import yaml

from mpcbench.errors import UserError


def parse_yaml(text: str, origin: str) -> object:
    """What ``text`` says; UserError names ``origin``, a file or a recipe in words, and the line."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{origin} is not valid YAML{where}: {reason}.") from None
