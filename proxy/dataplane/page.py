"""HTML pages of our own answers: ours and those of services, cut at their gaps beforehand."""

from __future__ import annotations

import re
from html import escape

from proxy.errors import Fault
from proxy.http1.encode import reason_of

_GAP = re.compile(r"\{(status|reason|request_id|sentence)\}")
"""Every other brace is the page's own: style sheets are full of them."""


class PageTemplate:
    """A page whose gaps are `{status}`, `{reason}`, `{sentence}` and `{request_id}`."""

    __slots__ = ("_gaps", "_parts")

    def __init__(self, html: str) -> None:
        pieces = _GAP.split(html)
        self._parts = [piece.encode() for piece in pieces]
        self._gaps = [(index, pieces[index]) for index in range(1, len(pieces), 2)]

    def filled(self, fault: Fault, request_id: bytes) -> bytes:
        """The page; the request's id may be a stranger's word, so it is escaped."""
        if not self._gaps:
            return self._parts[0]
        words = {
            "status": b"%d" % fault.status,
            "reason": _escaped(reason_of(fault.status).decode()),
            "sentence": _escaped(fault.sentence),
            "request_id": _escaped(request_id.decode("latin-1")),
        }
        parts = self._parts.copy()
        for index, gap in self._gaps:
            parts[index] = words[gap]
        return b"".join(parts)


def _escaped(text: str) -> bytes:
    return escape(text).encode()


OUR_PAGE = PageTemplate("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{status} {reason}</title>
<style>
:root { color-scheme: light dark; --ink: #1d2433; --quiet: #5b6475; --paper: #f6f7f9;
  --card: #fff; --line: #e1e4ea; --accent: #3559c7 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaf0; --quiet: #9aa3b5;
  --paper: #14171e; --card: #1c2029; --line: #2c323e; --accent: #8ea8ff } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { width: 100%; max-width: 32rem; padding: 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .75rem }
p { margin: .5rem 0 0 }
h1 { margin: .25rem 0 0; font-size: 1.375rem; line-height: 1.3 }
.status { margin: 0; color: var(--accent); font-weight: 700; letter-spacing: .06em }
.id { margin-top: 1.5rem; padding-top: 1rem; border-top: 1px solid var(--line);
  color: var(--quiet); font-size: .8125rem }
code { font-family: ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<p class="status">{status}</p>
<h1>{reason}</h1>
<p>{sentence}</p>
<p class="id">Request id<br><code>{request_id}</code></p>
</main>
</body>
</html>
""")
