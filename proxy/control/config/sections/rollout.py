"""How a candidate gets its traffic, and how it is judged meanwhile."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from proxy.control.config import values
from proxy.control.config.scalars import (
    ON_OFF,
    Duration,
    HookUrl,
    Kind,
    PartShare,
    Percent,
    PositiveDuration,
    PositiveShare,
    Share,
    Switch,
    choice,
    integer,
)
from proxy.control.config.sections.section import Section
from proxy.control.rollout.plan import Advance, OnFail, OnRestart, OnStarved

GuardMode = Literal["enforce", "observe", "off"]
HookMoment = Literal["started", "step", "promoted", "rolled_back"]


class StepConfig(Section):
    """One step of a rollout."""

    weight: Percent = Field(description="The candidate's share of the traffic, above 0.")
    bake: Duration = Field(
        default=0.0, description="Judged time at this weight: with traffic, and nothing held."
    )
    pause: Switch = Field(default=False, description="Wait for a person when the step is baked.")


class HookConfig(Section):
    """Somebody to be told of a rollout's moves, by a POST of the decision."""

    on: tuple[Annotated[HookMoment, choice(*get_args(HookMoment))], ...] = Field(
        description="Which moves: `started`, `step`, `promoted`, `rolled_back`.",
        json_schema_extra={"minItems": 1},
    )
    url: HookUrl = Field(description="Where to: `http://...` or `https://...`.")
    timeout: PositiveDuration = Field(
        default=5.0, description="How long one call may take; it is tried three times."
    )
    blocking: Switch = Field(
        default=False,
        description="The rollout goes on only after an answer of class 2xx (on `started` and "
        "`step`); else it pauses with the answer's words.",
    )


class RolloutConfig(Section):
    """How a candidate gets its traffic."""

    steps: tuple[StepConfig, ...] = Field(
        default=(
            StepConfig.model_validate({"weight": 1, "bake": "2m"}),
            StepConfig.model_validate({"weight": 10, "bake": "5m"}),
            StepConfig.model_validate({"weight": 50, "bake": "5m"}),
            StepConfig.model_validate({"weight": 100, "bake": "15m"}),
        ),
        description="Weights that rise to 100, and for how long each is judged.",
        json_schema_extra={"minItems": 1},
    )
    min_requests: Annotated[int, *integer(0, 100_000_000, "a number")] = Field(
        default=100, description="Requests on the candidate before a step may pass."
    )
    advance: Annotated[Advance, choice("bake", "evidence")] = Field(
        default="bake",
        description="When a step passes: when its `bake` is over, or already on `evidence` "
        "that the candidate is no worse.",
    )
    starve_limit: PositiveDuration = Field(
        default=1800.0, description="A step that has not had `min_requests` by then is starved."
    )
    on_starved: Annotated[OnStarved, choice("wait", "promote", "roll_back")] = Field(
        default="wait", description="What becomes of a starved step; `wait` asks a person."
    )
    holdback: PartShare = Field(
        default=100,
        description="Part of the clients that stays with the old pool while the last step "
        "bakes, to compare with.",
    )
    keep_old: Duration = Field(
        default=600.0,
        description="How long after 100 % the guard goes on watching, with the old pool one "
        "swap away.",
    )
    on_fail: Annotated[OnFail, choice("roll_back", "pause")] = Field(
        default="roll_back", description="What a FAIL of the judge does."
    )
    on_restart: Annotated[OnRestart, choice("resume", "pause")] = Field(
        default="resume", description="What a restart of the proxy does to a step that bakes."
    )
    hooks: tuple[HookConfig, ...] = Field(default=(), description="Who is told of its moves.")


class GuardConfig(Section):
    """How the candidate is judged while it carries traffic."""

    mode: Annotated[GuardMode, choice("enforce", "observe", "off")] = Field(
        default="enforce",
        description="`enforce` turns back, `observe` only records that it would have, `off` "
        "does not judge.",
    )
    false_alarm: PositiveShare = Field(
        default=100,
        description="The chance of turning a healthy release back, over one whole rollout.",
    )
    tolerance: Share = Field(
        default=2_000,
        description="How much larger than the active pool's the candidate's share "
        "of errors may be, relative to it.",
    )
    tolerance_abs: Share = Field(
        default=5, description="And by how much on top of that, of all requests."
    )
    latency: Annotated[
        bool,
        Kind("`on` or `off`"),
        BeforeValidator(values.on_or_off),
        PlainSerializer(values.on_or_off_text, when_used="json"),
        WithJsonSchema(ON_OFF),
    ] = Field(default=True, description="Whether latency is compared.")
    latency_tolerance: Share = Field(
        default=2_000, description="How much slower the candidate may be."
    )
    latency_floor: Duration = Field(
        default=0.005, description="And slower than that by this much at least."
    )
    hard_rate: PositiveShare = Field(
        default=3_000,
        description="The share of errors at which it turns back at once, if the active pool is "
        "clearly better.",
    )
    min_requests: Annotated[int, *integer(1, 1_000_000, "a number")] = Field(
        default=40, description="Requests on the candidate that `hard_rate` and PASS need."
    )
    warmup: Duration = Field(
        default=30.0, description="Time with traffic before the candidate's latency is judged."
    )
    count_4xx: Switch = Field(
        default=True, description="Whether answers of class 4xx are compared."
    )
    ask: Switch = Field(
        default=True,
        description="Before turning back from 100 %, give the old pool a fifth of the traffic "
        "for up to five seconds, to see whether it fares better.",
    )
    lockout: Duration = Field(
        default=0.0,
        description="How long a release that was turned back may not start again. "
        "0s: until `turnout unlock`, or another release.",
    )
