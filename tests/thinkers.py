"""Tiny random thinkers for tests: steps end by force, so that untrained models compress too."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tiny import tiny_backbone

from laconic.backbone import Backbone
from laconic.core.layout import Kind, Layout
from laconic.core.thoughts import Trace, lay_out
from laconic.core.visibility import attention_mask
from laconic.methods.baselines.anchors import Anchors
from laconic.methods.hybridthinker.model import HybridThinker
from laconic.methods.lightthinker.model import LightThinker
from laconic.methods.memosight.model import MemoSight
from laconic.methods.thinking.model import Thinker
from laconic.methods.vanilla.model import Vanilla

KINDS: dict[str, tuple[type[Thinker], dict[str, Any]]] = {
    "vanilla": (Vanilla, {}),
    "lightthinker": (LightThinker, {"memory_tokens": 2}),
    "hybridthinker": (HybridThinker, {"memory_tokens": 2, "retention": 2}),
    "hybridthinker, gap": (HybridThinker, {"memory_tokens": 2, "retention": 2, "shortcut_mode": "gap"}),
    "anchors": (Anchors, {}),
    "memosight": (MemoSight, {"compression": 3, "foresight": 2}),
    "memosight, retaining": (MemoSight, {"compression": 3, "foresight": 2, "retention": 2}),
}
PROBLEMS = ["First we add the two numbers.", "What is the passkey?", "The sky is blue, and the answer is twelve."]


@cache
def backbone_of(arch: str) -> Backbone:
    return tiny_backbone(arch)


def thinker(kind: str, arch: str = "llama", **changes: Any) -> Thinker:
    """In eval mode, its LoRA and soft tokens drawn at random, so that they matter."""
    made, own = KINDS[kind]
    settings = {"prompt": "{problem}\n", "max_step_tokens": 6, "lora_rank": 2} | own | changes
    backbone = backbone_of(arch)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = made(backbone, made.options(**settings))  # type: ignore[arg-type, call-arg]
        for parameter in found.own_parameters().values():
            parameter.data.normal_(0, 0.3)
    return found.eval()


def trace_of(model: Thinker, problem: str, words: list[int]) -> Trace:
    """What was said as a trace, cut where steps ended."""
    steps: list[list[int]] = [[]]
    for word in words:
        steps[-1].append(word)
        if word == model.step_end:
            steps.append([])
    return Trace(model.prompt_ids(problem), [step for step in steps if step], None)


@torch.no_grad()
def all_scores(model: Thinker, trace: Trace, offset: int | None = None) -> tuple[Layout, torch.Tensor]:
    """A trace's layout and the scores of all its tokens, ``[T, V]``, in one pass under the training mask with all steps
    reaching as far as decoding lets them."""
    layout, ids = lay_out(trace, model.shape, offset)
    rows = layout.map(lambda field: field[None])
    scores = model.decoder(
        inputs_embeds=model.embedded(rows.kind, ids[None]),
        attention_mask=attention_mask(model.decoder, model.rule(model.retention), rows),
        position_ids=rows.position,
    ).logits[0]
    return layout, scores


def teacher_forced(model: Thinker, trace: Trace) -> torch.Tensor:
    """Scores of every word of a trace and of one behind it, ``[W + 1, V]``."""
    layout, scores = all_scores(model, trace)
    speaks = torch.ones(len(layout), dtype=torch.bool)
    speaks[:-1] = (layout.kind[1:] == Kind.TEXT) | (layout.kind[1:] == Kind.ANCHOR)
    return scores[speaks]
