"""Bytes to messages: the only package that imports the C parser (llhttp, through httptools).

Two parsers with the same shape: `feed(data)` calls the sink back in the order of
the wire and raises `Malformed` for what we do not accept. They add what llhttp
leaves open: versions, Host, transfer codings, sizes, upgrades, HEAD.
Chunks of requests, and a body of known length that spans several reads, do not go through llhttp at all.
"""

from __future__ import annotations

from proxy.http1.parser.answers import (
    MAX_ANSWER_HEAD,
    ResponseParser,
    ResponseSink,
    WholeAnswer,
)
from proxy.http1.parser.requests import RequestParser, RequestSink

__all__ = [
    "MAX_ANSWER_HEAD",
    "RequestParser",
    "RequestSink",
    "ResponseParser",
    "ResponseSink",
    "WholeAnswer",
]
