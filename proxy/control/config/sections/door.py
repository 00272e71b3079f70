"""What a service's answers and requests look like at the door: header rules, pages of its own."""

from __future__ import annotations

from pydantic import Field

from proxy.control.config.scalars import HeaderValue, Switch, Text, Token
from proxy.control.config.sections.section import Section


class HeaderRules(Section):
    """What is set and removed in every head but those of interim answers.

    What carries the message, and what Turnout says itself, cannot be named.
    """

    set: dict[str, HeaderValue] = Field(
        default={},
        description="Headers by name, in the place of those that are there. Values are shown "
        "as `***`.",
    )
    remove: tuple[Token, ...] = Field(
        default=(), description="Names of headers to leave out, of trailers as well."
    )


class HeadersConfig(Section):
    pass_pool: Switch = Field(
        default=True,
        description="Send `X-Turnout-Pool` and `X-Turnout-Release` to the endpoint.",
    )
    expose_pool: Switch = Field(default=False, description="Send them to the client too.")
    request: HeaderRules = Field(
        default=HeaderRules(),
        description="Changes to what the endpoint gets. `Host` may be set; `X-Forwarded-Host` keeps "
        "the client's. Underscores in clients' names count as hyphens here.",
    )
    response: HeaderRules = Field(
        default=HeaderRules(),
        description="Changes to what the client gets of its answers. What is set is in Turnout's own "
        "answers too, but for headers that describe a content, such as `Cache-Control`.",
    )


class ErrorsConfig(Section):
    """Pages of the service's own for answers that Turnout gives in its place."""

    page: Text = Field(
        description="A directory with `502.html`, `503.html`, `504.html` or others by status, "
        "`50x.html` or `5xx.html` for several, and `error.html` for the rest; or one file for all. "
        "`{status}`, `{reason}`, `{sentence}` and `{request_id}` are filled in. Read again when "
        "they change. Clients that prefer JSON or plain text get that.",
    )
