"""Request targets and Host: every form brought to the one an endpoint gets (RFC 9112 section 3.2)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from proxy.http1.message import Malformed, RequestHead

_NAME_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+;="
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_SCHEMES = (b"http://", b"https://")


def settle(head: RequestHead) -> None:
    """Check Host and bring `head.target` to origin form (or `*`); raises Malformed."""
    target = head.target
    if head.host.translate(None, _NAME_BYTES):  # a port, an address in brackets, or no host
        head.host = head.host.strip(b" \t")
        if head.host and not _is_host(head.host):
            raise Malformed("the Host header is not a host")
    if target[:1] != b"/":
        _settle_other_form(head, target)
    elif not head.host and not head.version_1_0:
        raise Malformed("the Host header is empty")


def _settle_other_form(head: RequestHead, target: bytes) -> None:
    if head.method == b"CONNECT":
        raise Malformed("CONNECT is not served here: this is no forward proxy", 501)
    if target == b"*":
        if head.method != b"OPTIONS":
            raise Malformed("the target * belongs to OPTIONS")
        return
    scheme = next((s for s in _SCHEMES if target[: len(s)].lower() == s), None)
    if scheme is None:
        raise Malformed("the request target is neither a path nor an http URL")
    authority, slash, path = target[len(scheme) :].partition(b"/")
    question = authority.find(b"?")
    if question >= 0:
        authority, slash, path = authority[:question], b"/", target[len(scheme) + question :]
    if not _is_host(authority):
        raise Malformed("the authority in the request target is not a host")
    head.host = authority  # and Host, whatever it said, is ignored (RFC 9112 section 3.2.2)
    head.target = slash + path if slash else (b"*" if head.method == b"OPTIONS" else b"/")


def _is_host(text: bytes) -> bool:
    if _HOST.fullmatch(text) is None:
        return False
    if text[:1] != b"[":
        return True
    try:
        IPv6Address(text[1 : text.index(b"]")].decode())
    except ValueError:
        return False
    return True
