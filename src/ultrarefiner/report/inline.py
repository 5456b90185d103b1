"""What a page carries inside itself: templates, and style sheets and scripts with their hashes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True, kw_only=True, eq=False)
class Inline:
    """A style sheet or script.

    Attributes:
        text: what stands in the page.
        sha256: its digest in base64, by which the page's own policy lets it run.
    """

    text: Markup
    sha256: str


def inline_files(*names: str) -> Inline:
    """Return files of this room one after the other."""
    folder = files("ultrarefiner.report")
    text = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Inline(text=Markup(text), sha256=digest)


def open_templates(filters: Iterable[Callable[..., Any]] = ()) -> Environment:
    """Return the templates of this room; they escape, and refuse what they are not given.

    Args:
        filters: functions that templates may call, each by its own name.
    """
    environment = Environment(
        loader=PackageLoader("ultrarefiner.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({show.__name__: show for show in filters})
    return environment
