"""Request bodies: JSON read strictly, all that is wrong with it said at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from aiohttp import web

from proxy.control.admin import duration
from proxy.control.admin.desk import Step
from proxy.control.admin.nearest import unknown_key
from proxy.control.admin.problem import Problem, invalid
from proxy.model import WHOLE

LARGEST_REASON = 500
LARGEST_NAME = 256
LONGEST_TTL_S = 366 * 86400.0
LONGEST_BAKE_S = 30 * 86400.0
MOST_STEPS = 100
LARGEST_WEIGHT = 1_000_000
"""Of an endpoint inside its pool."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_bounded(request: web.Request, limit: int) -> bytes:
    """Return the request's body; Problem 413 as soon as it is known to exceed `limit` bytes."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body is larger than the {limit // 1024} KiB that are read here.")


def parse_object(body: bytes) -> Fields:
    """Read a JSON object (an empty body is an empty one); Problem 422 with the position."""
    if not body.strip():
        return Fields({})
    try:
        value = json.loads(
            body.decode(),
            # Decimal for every number: no float noise, and no limit on an integer's digits.
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=_no_constant,
            object_pairs_hook=_no_duplicates,
        )
    except UnicodeDecodeError as error:
        raise invalid([f"the body is not UTF-8: byte {error.start}"]) from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise invalid([f"the body is not JSON: {where}: {error.msg}"]) from error
    except RecursionError as error:
        raise invalid(["the body is nested too deeply"]) from error
    if _SURROGATE.search(body) and not _is_encodable(value):
        raise invalid(["the body has half of a surrogate pair (expected a whole character)"])
    if not isinstance(value, dict):
        raise invalid([f"the body is {_kind(value)} (expected an object)"])
    return Fields(value)


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise invalid([f"{name} is not JSON"])


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in pairs:
        if key in known:
            raise invalid([f"{key[:60]}: given twice"])
        known[key] = value
    return known


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case Decimal():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


class Fields:
    """Takes typed values out of a JSON object, collecting what is wrong until `done`.

    A key that was not asked for by then is unknown. After an error a method returns a
    harmless value, so that the reader goes on and finds the next error.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._asked: set[str] = set()
        self._errors: list[str] = []

    def done(self) -> None:
        """Raise Problem 422 with every error and every unknown key, if there are any."""
        if errors := self.errors():
            raise invalid(errors)

    def errors(self) -> list[str]:
        """Everything that is wrong so far, and every key that nobody asked for."""
        unknown = [key for key in self._values if key not in self._asked]
        return self._errors + [unknown_key(key, self._asked) for key in unknown]

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._values

    def flag(self, key: str) -> bool:
        """Return a boolean; absent is False."""
        if not self.has(key):
            return False
        value = self._values[key]
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return value is True

    def reason(self) -> str:
        if not self.has("reason"):
            return ""
        return self._text("reason", LARGEST_REASON)

    def name(self, key: str) -> str:
        """Return a text that must be there and not be empty."""
        if not self.has(key):
            self._errors.append(f"{key}: missing (expected a string)")
            return ""
        text = self._text(key, LARGEST_NAME)
        if self._values[key] == "":
            self._errors.append(f"{key}: empty")
        return text

    def name_or_none(self, key: str) -> str | None:
        """Return a text, or None when it is absent or null."""
        if not self.has(key) or self._values[key] is None:
            return None
        return self.name(key)

    def ttl_s(self) -> float | None:
        """Return the seconds of the key `ttl`, or None when it is absent or null."""
        if not self.has("ttl") or self._values["ttl"] is None:
            return None
        return self.seconds("ttl", 0.0, most=LONGEST_TTL_S)

    def seconds(self, key: str, default: float, *, most: float, may_be_zero: bool = False) -> float:
        """Return the seconds of a duration up to `most`; absent is `default`."""
        if not self.has(key):
            return default
        value = self._values[key]
        if not isinstance(value, str):
            self._wrong(key, value, 'a duration such as "2h"')
            return default
        try:
            given_s = duration.seconds(value)
        except ValueError as error:
            self._errors.append(f"{key}: {error}")
            return default
        if not 0 <= given_s <= most or (given_s == 0 and not may_be_zero):
            least = "0" if may_be_zero else "above 0,"
            end = f"{most / 86400:g}d" if most >= 86400 else f"{most:g}s"
            self._errors.append(f"{key}: {value} is out of range (expected {least} up to {end})")
        return given_s

    def exclude(self, key: str, other: str) -> None:
        """Complain when both are given: each says by itself how it goes on."""
        if self._is_given(key) and self._is_given(other):
            self._errors.append(f"{key}: excludes {other}, which is given too")

    def _is_given(self, key: str) -> bool:
        return self._values.get(key) not in (None, False)

    def count_or_none(self, key: str, *, most: int) -> int | None:
        """Return a whole number from 1 to `most`, or None when it is absent or null."""
        if not self.has(key) or self._values[key] is None:
            return None
        return self.count(key, 1, most=most)

    def count(self, key: str, default: int, *, most: int) -> int:
        """Return a whole number from 1 to `most`; absent is `default`."""
        if not self.has(key):
            return default
        value = self._values[key]
        if not isinstance(value, Decimal) or not _is_whole(value, most):
            self._wrong(key, value, f"a whole number from 1 to {most}")
            return default
        return int(value)

    def percent(self, key: str) -> Decimal:
        """Return a percentage of two decimals at most that must be there."""
        if not self.has(key):
            self._errors.append(f"{key}: missing (expected a number, percent)")
            return Decimal(0)
        return self._percent(key, self._values[key])

    def weights(self) -> dict[str, Decimal]:
        """Return the key `weights`: percent by pool, each 0..100 with two decimals at most."""
        if not self.has("weights"):
            self._errors.append('weights: missing (expected an object such as {"blue": 90})')
            return {}
        value = self._values["weights"]
        if not isinstance(value, dict) or not value:
            self._wrong("weights", value, "an object of percentages by pool, not empty")
            return {}
        return {pool: self._percent(f"weights.{pool[:60]}", share) for pool, share in value.items()}

    def steps(self, *, or_to: bool = False) -> list[Step] | None:
        """Return the key `steps`, weights that rise to 100; None when it is absent or null.

        With `or_to` the key `to` may be given instead: 100, a single step with everything.
        """
        everything = self._everything() if or_to else None
        if not self.has("steps") or self._values["steps"] is None:
            return everything
        if everything is not None:
            self.exclude("to", "steps")
        value = self._values["steps"]
        if not isinstance(value, list) or not 0 < len(value) <= MOST_STEPS:
            self._wrong("steps", value, f"an array of 1 to {MOST_STEPS} steps")
            return None
        known = len(self._errors)
        found = [self._step(f"steps[{i}]", entry) for i, entry in enumerate(value)]
        if len(self._errors) == known:
            self._rising([weight for weight, _, _ in found])
        return found

    def _everything(self) -> list[Step] | None:
        if not self.has("to") or self._values["to"] is None:
            return None
        value = self._values["to"]
        if not isinstance(value, Decimal) or value != 100:
            self._errors.append("to: wrong (expected 100: everything at once; else give steps)")
        return [(WHOLE, 0.0, False)]

    def _step(self, where: str, entry: Any) -> Step:
        if not isinstance(entry, dict):
            self._wrong(where, entry, 'an object such as {"weight": 10, "bake": "5m"}')
            return WHOLE, 0.0, False
        step = Fields(entry)
        weight = step.percent("weight")
        bake_s = step.seconds("bake", 0.0, most=LONGEST_BAKE_S, may_be_zero=True)
        pause = step.flag("pause")
        self._errors += [f"{where}.{error}" for error in step.errors()]
        return int(weight * 100), bake_s, pause

    def _rising(self, weights: Sequence[int]) -> None:
        before = 0
        for index, weight in enumerate(weights):
            if weight <= before:
                self._errors.append(
                    f"steps[{index}].weight: is {weight / 100:g}, not above"
                    f" {'the step before' if index else '0'} (expected weights that rise)"
                )
            before = max(before, weight)
        if before < WHOLE:
            self._errors.append(
                f"steps[{len(weights) - 1}].weight: is {before / 100:g}, and nothing comes after it"
                " (expected 100 in the last step)"
            )

    def some_endpoints(self) -> list[tuple[str, int]]:
        """Return the key `endpoints`: one at least."""
        found = self.endpoints()
        if self._values.get("endpoints") == []:
            self._errors.append("endpoints: empty (expected one address at least)")
        return found

    def endpoints(self) -> list[tuple[str, int]]:
        """Return the key `endpoints`: addresses with their weights; each address once."""
        if not self.has("endpoints"):
            self._errors.append("endpoints: missing (expected an array of addresses)")
            return []
        value = self._values["endpoints"]
        if not isinstance(value, list):
            self._wrong("endpoints", value, "an array of addresses")
            return []
        found = [self._endpoint(f"endpoints[{i}]", entry) for i, entry in enumerate(value)]
        self._each_once(address for address, _ in found if address)
        return found

    def _endpoint(self, where: str, entry: Any) -> tuple[str, int]:
        if isinstance(entry, dict):
            return self._described_endpoint(where, entry)
        if not isinstance(entry, str) or not 0 < len(entry) <= LARGEST_NAME:
            self._wrong(where, entry, 'an address, or {"address": ..., "weight": ...}')
            return "", 1
        return entry, 1

    def _described_endpoint(self, where: str, entry: dict[str, Any]) -> tuple[str, int]:
        known = ("address", "weight")
        self._errors += [f"{where}.{unknown_key(key, known)}" for key in entry if key not in known]
        address, weight = entry.get("address"), entry.get("weight", Decimal(1))
        if not isinstance(address, str) or not 0 < len(address) <= LARGEST_NAME:
            self._wrong(f"{where}.address", address, "an address")
            address = ""
        if not isinstance(weight, Decimal) or not _is_whole(weight, LARGEST_WEIGHT):
            self._wrong(f"{where}.weight", weight, "a whole number from 1 on")
            weight = Decimal(1)
        return address, int(weight)

    def _each_once(self, addresses: Iterable[str]) -> None:
        seen: set[str] = set()
        for address in addresses:
            if address in seen:
                self._errors.append(f"endpoints: {address} is given twice")
            seen.add(address)

    def _percent(self, where: str, value: Any) -> Decimal:
        if not isinstance(value, Decimal):
            self._wrong(where, value, "a number, percent")
        elif not 0 <= value <= 100:
            self._errors.append(f"{where}: out of range (expected 0 to 100)")
        elif _has_more_decimals_than(value, 2):
            self._errors.append(f"{where}: too precise (expected two decimals at most)")
        else:
            return value
        return Decimal(0)

    def _text(self, key: str, longest: int) -> str:
        value = self._values[key]
        if not isinstance(value, str):
            self._wrong(key, value, "a string")
        elif len(value) > longest:
            self._errors.append(f"{key}: too long (expected {longest} characters at most)")
        else:
            return value
        return ""

    def _wrong(self, where: str, value: Any, expected: str) -> None:
        self._errors.append(f"{where}: wrong: {_kind(value)} (expected {expected})")


def _has_more_decimals_than(value: Decimal, decimals: int) -> bool:
    # On the digits themselves: arithmetic would round to the context's precision first.
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent >= -decimals:
        return False
    return any(digits[exponent + decimals :])


def _is_whole(value: Decimal, largest: int) -> bool:
    return 1 <= value <= largest and not _has_more_decimals_than(value, 0)
