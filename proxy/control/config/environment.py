"""`${NAME}` and `${NAME:-default}` in the text of a value.

The library we meant to use for this, expandvars, also expands `$NAME`, `$$`,
backslashes and half of bash, inside defaults even when told not to: a `$` in a
password must stay a `$`, so these two forms are read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxy.control.config.problem import Wrong

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FORMS = "${NAME} or ${NAME:-default}"


def expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables in place; what they contain is not looked at again.

    As in a shell, the default also stands in for a variable that is set but empty.
    """

    def value_of(reference: re.Match[str]) -> str:
        name, default = reference.groups()
        value = environ.get(name)
        if value is None and default is None:
            raise Wrong(
                f"the environment variable {name} is not set", f"it set, or ${{{name}:-default}}"
            )
        return _utf8(name, value or default or "")

    if "${" in _REFERENCE.sub("", text):
        raise Wrong("has a ${ that names no environment variable", _FORMS)
    return _REFERENCE.sub(value_of, text)


def _utf8(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Wrong(f"the environment variable {name} is not UTF-8") from None
    return value
