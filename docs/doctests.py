"""Shows the examples of docstrings as code: mkdocs.yml loads this extension of griffe for the API reference."""

import re

from griffe import Extension

_EXAMPLE = re.compile(r"^>>> (?:.+\n?)+", re.M)


class Doctests(Extension):
    """Puts fences around the lines from `>>>` to the next empty line."""

    def on_instance(self, *, obj, **_):
        if obj.docstring and ">>> " in obj.docstring.value:
            text = obj.docstring.value
            obj.docstring.value = _EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)
