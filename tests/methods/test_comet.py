"""CoMeT's invariants (section 7 of its specification), against a plain reference of one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from comets import NO_MEMORY, ROTARY, SMALL, comet, outputs, words
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from tiny import VOCABULARY, tiny_backbone, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    GraniteConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
)

from laconic.backbone import Backbone
from laconic.core.layout import Kind
from laconic.errors import BackboneError, LaconicError
from laconic.methods.comet.chunks import Piece, block_layout
from laconic.methods.comet.config import CoMeTConfig, compressed
from laconic.methods.comet.memory import LayerMemory, LayerState, Memory
from laconic.methods.comet.model import CoMeT

SIZES = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id",
}  # fmt: skip


class Reference:
    """One row, memory positions computed in full, everything in loops (sections 2.2 to 2.4)."""

    def __init__(self, made: CoMeT) -> None:
        self.made, self.config = made, made.config
        self.slots: list[Tensor | None] = [None] * len(made.stack)
        self.queue: list[list[Tensor]] = [[] for _ in range(len(made.stack))]

    def chunk(self, ids: Tensor, closes: bool) -> Tensor:
        made, s = self.made, self.config.stride
        embed = made.decoder.get_input_embeddings()
        sequence: list[tuple[str, Tensor]] = []
        for k, token in enumerate(ids):
            sequence.append(("text", embed(token)))
            last = k == len(ids) - 1
            if s and (((k + 1) % s == 0 and not last) or (last and closes)):
                sequence.append(("compression", made.compression.weight[0]))
        sequence += [("readout", row) for row in made.readouts.weight] if closes else []
        front = (0 if self.slots[0] is None else len(self.slots[0])) + len(self.queue[0])
        hidden = torch.stack([torch.zeros_like(sequence[0][1])] * front + [row for _, row in sequence])
        position = torch.arange(len(hidden))[None]
        rotary = made.stack.rotary(hidden, position)
        for i in range(len(made.stack)):
            nets = made.cells[i].nets
            before = [] if self.slots[i] is None else list(nets.global_adapter(self.slots[i]))
            before += self.queue[i]
            hidden = torch.stack([*before, *hidden[front:]])
            kind = made.stack._types[i]
            window = made.decoder.config.sliding_window if kind == "sliding_attention" else None
            mask = torch.full((len(hidden), len(hidden)), torch.finfo(torch.float32).min)
            for q in range(len(hidden)):
                for k in range(q + 1):
                    if window is None or k > q - window:
                        mask[q, k] = 0.0
            hidden = made.stack.layers[i](
                hidden[None], attention_mask=mask[None, None], position_ids=position, position_embeddings=rotary[kind]
            )[0]
            if closes:
                self._remember(i, hidden[front:], [kind for kind, _ in sequence])
        text = [n for n, (kind, _) in enumerate(sequence) if kind == "text"]
        return made.logits(hidden[front:][text])

    def _remember(self, i: int, after: Tensor, kinds: list[str]) -> None:
        nets = self.made.cells[i].nets
        old, depth = self.slots[i], self.config.global_depth
        readouts = [nets.global_norm(r) for r, kind in zip(after, kinds, strict=True) if kind == "readout"]
        new = {}
        for q, candidate in enumerate(readouts):
            held = [candidate] * depth if old is None else [old[place * len(readouts) + q] for place in range(depth)]
            g: Tensor | float = 0.0
            if old is not None and nets.gate is not None:
                bias = 0 if nets.gate.bias is None else nets.gate.bias
                g = torch.sigmoid(nets.gate.weight[0] @ torch.cat([candidate, held[0]]) + bias)
            for place, (own, arrives) in enumerate(zip(held, [candidate, *held], strict=False)):
                new[place, q] = g * own + (1 - g) * arrives
        self.slots[i] = torch.stack([new[key] for key in sorted(new)]) if new else after.new_zeros(0, after.shape[1])
        for row in (r for r, kind in zip(after, kinds, strict=True) if kind == "compression"):
            self.queue[i].append(nets.queue_adapter(nets.queue_norm(row)))
        self.queue[i] = self.queue[i][-self.config.fifo_slots :] if self.config.fifo_slots else []


# --- the whole method against the reference ---------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ROTARY)
@torch.no_grad()
def test_every_architecture_equals_the_reference(arch: str) -> None:
    """K/V-only memory, batching over layers and all: five chunks, some short, so that queue and gate are at work."""
    made, plan = comet(arch), [12, 5, 12, 3, 9]
    ids = words(sum(plan))
    (got,), memories = outputs(made, [ids], [plan])
    reference = Reference(made)
    expected = [reference.chunk(part, n < len(plan) - 1) for n, part in enumerate(ids.split(plan))]
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-4, rtol=1e-4)
    for state, slots, queue in zip(memories[-1].layers, reference.slots, reference.queue, strict=True):
        torch.testing.assert_close(state.slots[0], slots, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(state.queue[0], torch.stack(queue), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": False},
        {"global_depth": 3},
        {"global_depth": 2, "gate": False},
        {"gate_bias": 0.0},
        {"shared_adapter": True},
        {"global_slots": 0},
        {"stride": 0, "fifo_slots": 0},
        {"plain_start": True},
        {"stride": 12},
        {"stride": 1},
        {"train": "lora"},
    ],
)
@torch.no_grad()
def test_every_variant_equals_the_reference(changes: dict[str, Any]) -> None:
    made, plan = comet(**changes), [12, 7, 12, 4]
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    ids = words(sum(plan))
    (got,), _ = outputs(made, [ids], [plan])
    reference = Reference(made)
    expected = [reference.chunk(part, n < len(plan) - 1) for n, part in enumerate(ids.split(plan))]
    torch.testing.assert_close(got, torch.cat(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ROTARY)
def test_one_chunk_without_memory_is_the_backbone(arch: str) -> None:
    """Invariant 1: logits and gradients."""
    made = comet(arch, **NO_MEMORY, train="full")
    model, ids = made.backbone.model, words(20)
    (got,), _ = outputs(made, [ids], [[20]])
    plain = model(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(got, plain, atol=1e-5, rtol=1e-5)
    model.requires_grad_(True)
    got.square().mean().backward()
    plain.square().mean().backward()
    own, theirs = dict(made.decoder.named_parameters()), dict(model.named_parameters())
    assert own.keys() == theirs.keys()
    for name, parameter in theirs.items():
        torch.testing.assert_close(own[name].grad, parameter.grad, atol=1e-5, rtol=1e-4)
    model.zero_grad()
    model.requires_grad_(False)


@torch.no_grad()
def test_readouts_come_last_and_change_no_word() -> None:
    """Invariant 2; with compression tokens between the words logits do differ."""
    ids = words(12)
    made = comet(stride=0, fifo_slots=0)
    plain = made.backbone.model(input_ids=ids[None]).logits[0]
    hidden, _ = made.read_chunk([ids], made.empty_memory(), [True])
    torch.testing.assert_close(made.logits(hidden), plain, atol=1e-5, rtol=1e-5)
    made = comet()
    hidden, _ = made.read_chunk([ids], made.empty_memory(), [True])
    torch.testing.assert_close(made.logits(hidden)[:4], plain[:4], atol=1e-5, rtol=1e-5)
    assert (made.logits(hidden)[4:] - plain[4:]).abs().max() > 1e-2


@torch.no_grad()
def test_no_word_changes_what_came_before_it() -> None:
    """Invariant 3, within and across chunks; and everything behind it does change."""
    made, plan, ids = comet(), [12, 6, 10], words(28)
    (before,), _ = outputs(made, [ids], [plan])
    for changed in (0, 4, 11, 12, 17, 20):
        other = ids.clone()
        other[changed] = 3 + (other[changed] - 2) % (VOCABULARY - 3)
        (after,), _ = outputs(made, [other], [plan])
        torch.testing.assert_close(after[:changed], before[:changed], atol=0, rtol=0)
        assert ((after - before)[changed:].abs().amax(1) > 1e-6).all()


@torch.no_grad()
def test_chunks_without_memory_know_nothing_of_each_other() -> None:
    """Invariant 4."""
    made, plan, ids = comet(**NO_MEMORY), [12, 12], words(24)
    (got,), _ = outputs(made, [ids], [plan])
    alone, _ = outputs(made, [ids[12:]], [[12]])
    torch.testing.assert_close(got[12:], alone[0], atol=0, rtol=0)


# --- state ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_state_stops_growing() -> None:
    """Invariant 7: m slots in float32 and at most N_T entries in the backbone's dtype, per layer."""
    made, plan = comet(), [12] * 6
    _, memories = outputs(made, [words(72)], [plan])
    width, layers = made.backbone.width, len(made.stack)
    assert [int(memory.counts.live) for memory in memories] == [3, 5, 5, 5, 5, 5]
    assert [memory.nbytes for memory in memories[1:]] == [layers * width * (3 * 4 + 5 * 4)] * 5
    assert [int(memory.counts.chunks) for memory in memories] == [1, 2, 3, 4, 5, 5], "the last chunk stays open"
    assert int(memories[-1].counts.tokens) == 60


@pytest.mark.parametrize("arch", ["llama", "mistral", "gemma3"])  # the last two have windows
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.data())
def test_the_queue_holds_the_newest_real_entries(arch: str, plan: list[int], data: st.DataObject) -> None:
    """Invariants 8 and 11 (fault 1): a row batched with others of any chunk sizes is the row alone."""
    made = comet(arch)
    other = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    rows, plans = [words(sum(plan)), words(sum(other), seed=9)], [plan, other]
    with torch.no_grad():
        together, memories = outputs(made, rows, plans)
        for number in range(2):
            (alone,), single = outputs(made, [rows[number]], [plans[number]])
            torch.testing.assert_close(together[number], alone, atol=1e-4, rtol=1e-4)
            live = int(memories[-1].counts.live[number])
            sizes = [compressed(n, 4) for n in plans[number][:-1]]
            assert live == int(single[-1].counts.live) == min(5, sum(sizes))
            for a, b in zip(memories[-1].layers, single[-1].layers, strict=True):
                if live:
                    torch.testing.assert_close(a.queue[number, -live:], b.queue[0, -live:], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(a.slots[number], b.slots[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_gate_limits() -> None:
    """Invariant 9: a gate of 1 freezes the slots, one of 0 writes them anew; the first chunk is ungated in any case."""
    ids, plan = words(36), [12, 12, 12]
    made = comet()
    for bias, frozen in ((1e4, True), (-1e4, False)):
        for nets in made.memories:
            nets.gate.weight.zero_()  # type: ignore[union-attr]
            nets.gate.bias.fill_(bias)  # type: ignore[union-attr]
        _, (first, second, _) = outputs(made, [ids], [plan])
        for a, b in zip(first.layers, second.layers, strict=True):
            assert torch.equal(a.slots, b.slots) is frozen
        alone = comet(gate=False)
        alone.load_state_dict(made.state_dict(), strict=False)
        for a, b in zip(first.layers, outputs(alone, [ids], [plan])[1][0].layers, strict=True):
            assert torch.equal(a.slots, b.slots), "the first chunk's"
    ungated = comet(gate=False)
    ungated.load_state_dict(made.state_dict(), strict=False)
    _, (expected, expected_second, _) = outputs(ungated, [ids], [plan])
    for a, b in zip(first.layers, expected.layers, strict=True):
        assert torch.equal(a.slots, b.slots)
    for a, b in zip(second.layers, expected_second.layers, strict=True):
        torch.testing.assert_close(a.slots, b.slots, atol=1e-6, rtol=1e-6)


def test_a_gate_near_one_is_itself_under_autocast() -> None:
    """bfloat16 has no number between .9961 and 1: slots would never change, nor the gate learn."""
    nets = comet().memories[0]
    assert isinstance(nets, LayerMemory)
    assert nets.gate is not None
    nn.init.zeros_(nets.gate.weight)
    nn.init.constant_(nets.gate.bias, 7.0)
    state = LayerState(torch.randn(1, 3, nets.gate.in_features // 2), torch.randn(1, 5, nets.gate.in_features // 2))
    readouts, found = torch.randn_like(state.slots), {}
    for mixed in (False, True):
        nets.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            slots = nets.written(state.slots, readouts, torch.tensor([False]))
            found[mixed] = [slots, nets.view(state), nets.entries(readouts)]
        slots.sum().backward()
        assert nets.gate.bias.grad is not None
        found[mixed].append(nets.gate.bias.grad.clone())
    assert found[True][0].dtype == torch.float32
    assert not torch.equal(found[True][0], state.slots)
    for a, b in zip(found[False], found[True], strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_deep_slot_keeps_what_it_gave_up() -> None:
    """Gates that shut at a chunk change nothing; gates that open push, so the last chunks taken in stand in order."""
    depth, taken = 3, [1, 0, 1, 1, 0, 1]  # the first chunk of a text is always taken in
    deep, flat = comet(global_depth=depth), comet(gate=False)
    flat.load_state_dict(deep.state_dict(), strict=False)
    nets, readouts = deep.memories[0], torch.randn(len(taken), 1, 3, deep.backbone.width)
    assert isinstance(nets, LayerMemory)
    assert nets.gate is not None
    nets.gate.weight.zero_()
    slots = deep.empty_memory().layers[0].slots
    assert slots.shape[1] == 3 * depth
    for number, (take, one) in enumerate(zip(taken, readouts, strict=True)):
        nets.gate.bias.fill_(-1e4 if take else 1e4)
        slots = nets.written(slots, one, torch.tensor([number == 0]))
        written = [nets.global_norm(readouts[n]) for n in range(number + 1) if taken[n]]
        held = [written[0]] * depth + written  # the first fills all places
        torch.testing.assert_close(slots, torch.cat(held[: -depth - 1 : -1], dim=1), atol=0, rtol=0)


@torch.no_grad()
def test_every_place_of_a_slot_is_read() -> None:
    made, plan = comet(global_depth=3, stride=0, fifo_slots=0), [12, 12, 12, 12, 6]
    ids = words(sum(plan))
    *_, memory = outputs(made, [ids], [plan])[1]
    plain, _ = made.read_chunk([ids[-6:]], memory, [False])
    for place in range(3):
        layers = tuple(
            LayerState(torch.cat([s[:, : 3 * place], -s[:, 3 * place : 3 * place + 3], s[:, 3 * place + 3 :]], 1), q)
            for s, q in memory.layers
        )
        other, _ = made.read_chunk([ids[-6:]], Memory(layers, memory.counts), [False])
        assert ((plain - other).abs().amax(1) > 1e-4).all()


@torch.no_grad()
def test_the_state_of_deep_slots() -> None:
    """Invariant 7 with places: m d slots, per layer."""
    made, plan = comet(global_depth=4), [12] * 6
    _, memories = outputs(made, [words(72)], [plan])
    width, layers = made.backbone.width, len(made.stack)
    assert [memory.nbytes for memory in memories[1:]] == [layers * width * (4 * 3 * 4 + 5 * 4)] * 5


def test_soft_tokens_start_as_a_line_break() -> None:
    """Readouts apart from each other by noise, the one compression token without any."""
    made = CoMeT(tiny_backbone(), CoMeTConfig(**SMALL))
    row = made.backbone.embed(torch.tensor(made.backbone.token_ids("\n")[-1:]))
    assert torch.equal(made.compression.weight, row)
    assert len(made.readouts.weight.unique(dim=0)) == 3
    assert 0 < (made.readouts.weight - row).abs().max() < 0.2


def test_what_was_saved_keeps_its_strength() -> None:
    """A saved LoRA means nothing without its scale: alpha is twice the rank."""
    layers = [module for module in comet(train="lora").decoder.modules() if isinstance(module, LoraLayer)]
    assert layers
    assert all(set(layer.scaling.values()) == {2.0} for layer in layers)


def test_adapter_starts_as_the_identity() -> None:
    """Invariant 10."""
    nets = comet(plain_start=True).cells[0].nets
    x = torch.randn(2, 3, 32)
    assert torch.equal(nets.global_adapter(x), x)
    assert torch.equal(nets.queue_adapter(x), x)
    assert nets.gate is not None
    assert not nets.gate.weight.any(), "and the gate as its bias"
    assert nets.gate.bias.item() == 1.0
    assert not torch.allclose(comet().cells[0].nets.global_adapter(x), x)


# --- layout -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 9), st.integers(0, 7), st.integers(1, 3), st.integers(0, 50))
def test_positions_follow_the_formulas(n: int, s: int, m: int, d: int, o: int) -> None:
    """Invariant 12."""
    config = CoMeTConfig(
        chunk_tokens=40,
        stride=s,
        fifo_slots=8 if s else 0,
        global_slots=m,
        global_depth=d,
        adapter_rank=1,
        lora_rank=1,
    )
    layout = block_layout([Piece(0, n, True)], [o], config)
    at = {kind: layout.position[layout.kind == kind].tolist() for kind in (Kind.TEXT, Kind.COMPRESSION, Kind.READOUT)}
    b = -(-n // s) if s else 0
    assert at[Kind.TEXT] == [o + k + (k // s if s else 0) for k in range(n)]
    assert at[Kind.COMPRESSION] == [o + min((j + 1) * s, n) + j for j in range(b)]
    assert at[Kind.READOUT] == [o + n + b + q for q in range(m)]
    full = block_layout([Piece(0, 40, True)], [m * d + config.fifo_slots], config)
    assert int(full.position.max()) + 1 == config.positions
    if o <= m * d + config.fifo_slots:
        assert int(layout.position.max()) < config.positions


@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_blocks_of_a_chunk_make_the_same_sequence(n: int, s: int, data: st.DataObject) -> None:
    """Invariant 13: however a chunk is cut into blocks, the sequence is the same, its last compression token too."""
    config = CoMeTConfig(chunk_tokens=30, stride=s, fifo_slots=8, global_slots=2, adapter_rank=1, lora_rank=1)
    cuts = sorted(data.draw(st.sets(st.integers(1, n), max_size=4)) | {n})
    pieces = [Piece(a, b - a, False) for a, b in zip([0, *cuts], cuts, strict=False)] + [Piece(n, 0, True)]
    whole = block_layout([Piece(0, n, True)], [5], config)
    blocks = [block_layout([piece], [5], config) for piece in pieces]
    for name in ("kind", "position"):
        assert torch.equal(torch.cat([getattr(one, name) for one in blocks], dim=1), getattr(whole, name))


# --- training ---------------------------------------------------------------------------------------------------------


def loss_of(made: CoMeT, ids: Tensor, plan: list[int], **options: Any) -> Tensor:
    *_, (hidden, _) = made.chunks([ids], [plan], **options)
    return made.logits(hidden).square().mean()


@pytest.mark.parametrize("path", ["slots", "queue"])
def test_gradients_reach_the_first_chunk(path: str) -> None:
    """Invariant 14: by the slots alone, by the queue alone; against differences."""
    changes = {"stride": 0, "fifo_slots": 0} if path == "slots" else {"global_slots": 0, "fifo_slots": 64}
    made = comet(**changes).double()
    plan = [12, 12, 12, 6]
    rest = words(30, seed=3)
    start = made.decoder.get_input_embeddings()(words(12)).detach().double().requires_grad_(True)

    def loss(first: Tensor) -> Tensor:
        made.embedded, kept = (lambda ids, layout: _with(first, ids, layout)), made.embedded  # type: ignore[method-assign]
        used = [False]

        def _with(first: Tensor, ids: Sequence[Tensor], layout: Any) -> Tensor:
            hidden = kept(ids, layout)
            if not used[0]:
                used[0] = True
                place = (layout.kind == Kind.TEXT).unsqueeze(-1)
                hidden = hidden.masked_scatter(place, first)
            return hidden

        value = loss_of(made, torch.cat([words(12), rest]), plan)
        made.embedded = kept  # type: ignore[method-assign]
        return value

    loss(start).backward()
    assert start.grad is not None
    direction = torch.randn(start.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    slope = (start.grad * direction).sum()
    assert slope.abs() > 1e-9
    with torch.no_grad():
        # upstream's norms compute in float32, so the step must not be too small
        numeric = (loss(start + 3e-4 * direction) - loss(start - 3e-4 * direction)) / 6e-4
    torch.testing.assert_close(slope, numeric, atol=1e-9, rtol=5e-3)


@pytest.mark.parametrize(("truncate", "reached"), [(None, [0, 1, 2, 3]), (3, [3]), (2, [2, 3]), (1, [3])])
@pytest.mark.parametrize("path", ["slots", "queue"])
def test_a_truncated_gradient_reaches_so_many_chunks(truncate: int | None, reached: list[int], path: str) -> None:
    """From the loss on the last of four chunks; the memory is cut before each ``truncate``-th."""
    made = comet(**({"stride": 0, "fifo_slots": 0} if path == "slots" else {"global_slots": 0, "fifo_slots": 64}))
    kept, embedded = made.embedded, []

    def noted(ids: Sequence[Tensor], layout: Any) -> Tensor:
        embedded.append(kept(ids, layout).detach().requires_grad_(True))
        return embedded[-1]

    made.embedded = noted  # type: ignore[method-assign]
    loss_of(made, words(42), [12, 12, 12, 6], truncate=truncate).backward()
    assert [number for number, chunk in enumerate(embedded) if chunk.grad is not None and chunk.grad.any()] == reached


def test_what_is_small_is_normed_too() -> None:
    nets = comet().cells[0].nets
    with torch.no_grad():
        nets.global_norm.weight.fill_(1.0)
        nets.queue_norm.weight.fill_(1.0)
        for norm in (nets.global_norm, nets.queue_norm):
            assert norm(torch.full((1, 32), 0.01)).mean().item() == pytest.approx(1.0, abs=0.01)


def test_recomputing_activations_changes_no_gradient() -> None:
    gradients = []
    for save in (True, False):
        made = comet(train="lora")
        loss_of(made, words(30), [12, 12, 6], save_activations=save).backward()
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("lora" in name for name in gradients[0])
    assert any("memories" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-5)


def test_added_parameters_of_the_paper() -> None:
    """Invariant 17: 36 d per layer, d per readout and one d for the compression token."""
    d, layers = 32, 3
    made = comet(**(CoMeTConfig.paper(global_slots=7, chunk_tokens=64, fifo_slots=64).to_dict()))
    nets = sum(p.numel() for p in made.memories.parameters())
    assert nets == layers * 36 * d
    assert made.readouts.weight.numel() + made.compression.weight.numel() == 8 * d


def test_added_parameters_of_the_papers_model() -> None:
    """Invariant 17, on Qwen3-4B's shape without its weights."""
    shape = Qwen3Config(
        vocab_size=151_936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=262_144, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
        made = CoMeT(Backbone(model, tiny_tokenizer(), "qwen3-4b"), CoMeTConfig.paper(train="memory"))
    assert sum(p.numel() for p in made.memories.parameters()) == 3_317_760
    assert sum(p.numel() for p in made.own_parameters().values()) == 3_317_760 + 2560 * (512 + 1)


@pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
@pytest.mark.parametrize("arch", ROTARY)
@torch.no_grad()
def test_attention_implementations_agree(arch: str, implementation: str) -> None:
    """Invariant 18: logits and states of ragged rows, against SDPA, as far as a CPU goes."""
    made, plans = comet(arch), [[12, 5, 9], [7, 12]]
    rows = [words(sum(plan), seed) for seed, plan in enumerate(plans)]
    expected, before = outputs(made, rows, plans)
    made.decoder.set_attn_implementation(implementation)
    # what FlexAttention computes, without the compiler, whose code for it does not build on every CPU
    with torch.compiler.set_stance("force_eager"):
        got, after = outputs(made, rows, plans)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    for one, other in zip(after[-1].layers, before[-1].layers, strict=True):
        torch.testing.assert_close(one.slots, other.slots, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.queue, other.queue, atol=1e-4, rtol=1e-4)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    with pytest.raises(BackboneError, match="no rotary positions"):
        comet("gpt2")
    with pytest.raises(BackboneError, match="positions"):
        comet("llama", fifo_slots=512)
    with pytest.raises(LaconicError, match="shorter than the stride"):
        CoMeTConfig(chunk_tokens=4, stride=8)
    with pytest.raises(BackboneError, match="Lower chunk_tokens, fifo_slots, global_slots or global_depth"):
        comet("llama", global_depth=200)
    with pytest.raises(LaconicError, match=r"global_depth.* must be at least 1"):
        CoMeTConfig(global_depth=0)
    with pytest.raises(LaconicError, match="go together"):
        CoMeTConfig(stride=8, fifo_slots=0)
    for odd in (float("nan"), float("inf")):
        with pytest.raises(LaconicError, match="not finite"):
            CoMeTConfig(gate_bias=odd)
    with pytest.raises(LaconicError, match="no option 'slots'"):
        CoMeTConfig.from_dict({"slots": 3})


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (GraniteConfig, {"embedding_multiplier": 12.0}),
        (GraniteConfig, {"logits_scaling": 8.0}),
        (GraniteConfig, {"embedding_multiplier": 1.03}),
        (GraniteConfig, {"logits_scaling": 1.04}),
        (StableLmConfig, {}),
        (CohereConfig, {}),
        (Cohere2Config, {}),
        (SmolLM3Config, {"no_rope_layers": [1, 0, 1]}),
        (Olmo2Config, {}),
    ],
)
def test_decoders_that_do_more_than_their_layers_are_refused(kind: type[PreTrainedConfig], own: dict[str, Any]) -> None:
    """Scaled embeddings, scaled logits, layers without positions, norms elsewhere: none may be silently left out."""
    model = like_tiny(kind, **own)
    with pytest.raises(BackboneError, match="one at a time"):
        CoMeT(Backbone(model, tiny_tokenizer(), "strange"), CoMeTConfig(**SMALL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_are_capped_are_refused(dtype: torch.dtype) -> None:
    """A few percent of the largest: no more than what bfloat16 rounds between the layers."""
    backbone = tiny_backbone("gemma3", final_logit_softcapping=60.0)
    backbone.model.to(dtype)
    with pytest.raises(BackboneError, match="head"):
        CoMeT(backbone, CoMeTConfig(**SMALL))


def test_gradient_checkpointing_is_an_error_not_a_lost_memory() -> None:
    made = comet(train="full").train()
    getattr(made.decoder, "activation_checkpointing_enable", made.decoder.gradient_checkpointing_enable)()
    with pytest.raises(BackboneError, match="Gradient checkpointing"):
        list(made.chunks([words(30)], [[12, 12, 6]]))
    made.eval()
    list(made.chunks([words(30)], [[12, 12, 6]]))


def test_a_granite_that_scales_nothing_is_welcome() -> None:
    model = like_tiny(GraniteConfig)
    made = CoMeT(Backbone(model, tiny_tokenizer(), "granite"), CoMeTConfig(**(SMALL | NO_MEMORY)))
    ids = words(20)
    with torch.no_grad():
        (got,), _ = outputs(made, [ids], [[20]])
        torch.testing.assert_close(got, model(input_ids=ids[None]).logits[0], atol=1e-5, rtol=1e-5)


def like_tiny(kind: type[PreTrainedConfig], **own: Any) -> PreTrainedModel:
    """A random decoder of another architecture, as small as the others."""
    sizes = {name: value for name, value in tiny_model().config.to_dict().items() if name in SIZES}
    config = kind(**sizes, vocab_size=len(tiny_tokenizer()), **own)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotations_that_depend_on_the_length_are_refused(kind: str) -> None:
    """Memory and text are turned in calls of their own, which would not agree on the angles."""
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    if kind == "longrope":
        half = comet().decoder.config.head_dim // 2
        rope |= {
            "short_factor": [1.0] * half, "long_factor": [2.0] * half, "original_max_position_embeddings": 16,
        }  # fmt: skip
    backbone = tiny_backbone("llama", rope_parameters=rope)
    with pytest.raises(BackboneError, match="depend on the length"):
        CoMeT(backbone, CoMeTConfig(**SMALL))
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}
    CoMeT(tiny_backbone("llama", rope_parameters=yarn), CoMeTConfig(**SMALL))
