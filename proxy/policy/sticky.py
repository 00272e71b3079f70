"""The sticky cookie: what a client is bound to, signed, and read back without trust.

A cookie's value is `1.SIGNATURE.BUCKET.EPOCH.ISSUED.AGE.ENDPOINT.POOL`: the
version, 32 hex digits of keyed BLAKE2b over the service's name and everything
after the signature, then numbers in decimal. AGE is `seen - issued`, shorter
than a second date. The pool stands last, so that its name may contain dots.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from hmac import compare_digest
from typing import NamedTuple
from urllib.parse import quote, unquote

from proxy.model import WHOLE, Sticky

_VERSION = b"1."
_PAYLOAD_AT = 35
"""After the version, the signature and a dot."""
_LONGEST = 1024
"""Bytes of a value we look at; what we write is below 100 with usual pool names."""
_CLOCK_SKEW_S = 300
"""How far ahead of our clock another proxy of the same key may be."""
_LONGEST_KEY = 64
"""Bytes of a key that BLAKE2b takes (RFC 7693 section 2.9)."""
_MEMO_LIMIT = 2048


class Binding(NamedTuple):
    """What a client is bound to. Dates are wall seconds since 1970."""

    bucket: int
    pool: str
    epoch: int
    issued: int
    seen: int
    endpoint: str
    """Its `endpoint_mark`, or empty: bound to the pool only."""


class StickyCookie:
    """Reads and writes one service's cookie. The first key signs, every key verifies.

    Verified values are remembered, about 1 MiB at most: a client sends the same one
    with every request, and of 2.3 us for a read the memo leaves 0.2 (timeit, Python
    3.11). Only what carries a true signature gets in, and age is judged each time.
    """

    __slots__ = ("_max_age_s", "_max_idle_s", "_memo", "_signers", "prefix")

    def __init__(self, service: str, sticky: Sticky) -> None:
        if not sticky.keys:
            raise ValueError(f"service {service}: a sticky cookie needs a key to sign it")
        self._signers = tuple(_signer(bytes.fromhex(key), service) for key in sticky.keys)
        self._max_idle_s = sticky.max_idle_s
        self._max_age_s = sticky.max_age_s
        self._memo: dict[bytes, Binding] = {}
        self.prefix = sticky.name.encode() + b"="

    def read(self, value: bytes, now: float) -> Binding | None:
        """The binding, or None when the value is forged, foreign, malformed or expired.

        Never raises, whatever the bytes. `now` is wall seconds.
        """
        binding = self._memo.get(value)
        if binding is None:
            binding = self._verified(value)
            if binding is None:
                return None
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            self._memo[value] = binding
        idle = now - binding.seen
        age = now - binding.issued
        if idle > self._max_idle_s or age > self._max_age_s:
            return None
        if idle < -_CLOCK_SKEW_S or age < -_CLOCK_SKEW_S:
            return None
        return binding

    def write(self, binding: Binding) -> bytes:
        """The cookie's value: ASCII, and nothing that a cookie's value may not contain."""
        bucket, pool, epoch, issued, seen, endpoint = binding
        payload = (
            f"{bucket}.{epoch}.{issued}.{seen - issued}.{endpoint}.{quote(pool, safe='')}"
        ).encode()
        signer = self._signers[0].copy()
        signer.update(payload)
        return b"%b%b.%b" % (_VERSION, signer.hexdigest().encode(), payload)

    def header(self, binding: Binding, secure: bool) -> bytes:  # noqa: FBT001 - the only flag
        """The whole value of Set-Cookie for a binding that was seen just now."""
        left_s = min(binding.issued + self._max_age_s - binding.seen, self._max_idle_s)
        return b"%b%b; Max-Age=%d; HttpOnly; SameSite=Lax; Path=/%b" % (
            self.prefix,
            self.write(binding),
            max(0, math.ceil(left_s)),
            b"; Secure" if secure else b"",
        )

    def is_due(self, binding: Binding, now: float) -> bool:
        """Whether half of max_idle has gone by, so that the cookie is to be sent anew."""
        return now - binding.seen >= self._max_idle_s / 2

    def good_until(self, binding: Binding) -> float:
        """Wall seconds until which a binding neither expires nor is due to be sent anew."""
        return min(binding.seen + self._max_idle_s / 2, binding.issued + self._max_age_s)

    def _verified(self, value: bytes) -> Binding | None:
        if len(value) > _LONGEST or not value.startswith(_VERSION):
            return None
        if value[_PAYLOAD_AT - 1 : _PAYLOAD_AT] != b".":
            return None
        signature = value[2 : _PAYLOAD_AT - 1]
        payload = value[_PAYLOAD_AT:]
        for unused in self._signers:
            signer = unused.copy()
            signer.update(payload)
            if compare_digest(signer.hexdigest().encode(), signature):
                return _parsed(payload)
        return None


def endpoint_mark(address: str) -> str:
    """Eight hex digits that stand for an endpoint's address in a cookie."""
    return blake2b(address.encode(), digest_size=4).hexdigest()


def bucket_of(key: bytes, identity: bytes) -> int:
    """The bucket of a header's value or a client's address, the same in every worker.

    Without the key nobody can choose an identity to get a bucket. Another key
    deals all clients out anew, so the caller keeps to one while keys rotate.
    """
    digest = blake2b(identity, key=_fitting(key), digest_size=8).digest()
    return int.from_bytes(digest, "big") % WHOLE


def hash_of(identity: bytes) -> int:
    """64 bits for balance by hash: of a client's identity, or of an endpoint's address."""
    return int.from_bytes(blake2b(identity, digest_size=8).digest(), "big")


def _signer(key: bytes, service: str) -> blake2b:
    """A keyed state to copy: copying takes half the time of keying anew.

    The service's name goes in with its length, so that no name and payload can
    pass for another name and payload.
    """
    name = service.encode()
    signer = blake2b(key=_fitting(key), digest_size=16, person=b"turnout.cookie.1")
    signer.update(b"%d:%b" % (len(name), name))
    return signer


def _fitting(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST_KEY else blake2b(key).digest()


def _parsed(payload: bytes) -> Binding | None:
    """The binding of a payload with a true signature.

    We wrote it, so it is well-formed, unless another program signs with our key:
    that too must not raise.
    """
    try:
        bucket, epoch, issued, age, endpoint, pool = payload.decode("ascii").split(".", 5)
        since = int(issued)
        place = int(bucket)
        if not 0 <= place < WHOLE:
            return None
        if "%" in pool:
            pool = unquote(pool)
        return Binding(place, pool, int(epoch), since, since + int(age), endpoint)
    except ValueError:
        return None
