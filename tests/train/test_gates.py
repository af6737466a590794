"""Gates taught by what is known to be hidden: against a memory that is kept so by hand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from comets import comet, recipe, words
from torch import Tensor, nn

from laconic.core.layout import IGNORE
from laconic.data.needles import NEEDLES
from laconic.errors import RecipeError
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.train.comet import ReadingStage
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.examples import Example, Interlude
from laconic.train.gates import GateLesson, GateTask, LookedAt, look
from laconic.train.loop import LoopConfig
from laconic.train.reading_data import ReadingData, reading_examples
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.told import KEEP, TAKE, ToldGates, lesson

pytestmark = pytest.mark.usefixtures("books")


def row(seed: int, plan: list[int], hidden: set[int], parted: Iterable[int] = ()) -> Example:
    ids, labels = words(sum(plan), seed).tolist(), [IGNORE] * sum(plan)
    return Example(ids, labels, plan, hidden=frozenset(hidden), parted=frozenset(parted))


def taught(made: CoMeT, layers: int, batch: list[Example]) -> tuple[Tensor, dict[str, float]]:
    lesson = GateLesson(made, layers, [batch])
    loss: tuple[Tensor, dict[str, float]] = lesson(lesson.looked_at)
    return loss


class Told(nn.Module):
    """A gate that does as it is told, and notes what it looked at."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.seen = logits, torch.zeros(0)

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = inputs
        return self.logits.expand(*inputs.shape[:-1], 1)


@torch.no_grad()
def kept_by_hand(made: CoMeT, example: Example, layers: int) -> tuple[list[tuple[bool, list[Tensor]]], Tensor]:
    """A row read by gates that are other modules.

    Returns:
        By chunk, whether something is hidden in it, and what each gate is asked about (only chunks that are gated, and
        of which it is known); and the outputs at all of its tokens.
    """
    memory: Memory = made.empty_memory(1)
    gates = [nets.gate for nets in made.memories]
    looked, outputs = [], []
    for number, ids in enumerate(torch.tensor(example.ids).split(example.plan)):
        hides = number in example.hidden
        told = [Told(torch.tensor([-100.0 if hides else 100.0])) for _ in range(layers)]
        for nets, gate in zip(list(made.memories)[-layers:], told, strict=True):
            nets.gate = gate
        output, memory = made.read_chunk([ids], memory, [number < len(example.plan) - 1])
        outputs.append(output)
        if 0 < number < len(example.plan) - 1 and number not in example.parted:
            looked.append((hides, [gate.seen for gate in told]))
    for nets, gate in zip(made.memories, gates, strict=True):
        nets.gate = gate
    return looked, torch.cat(outputs)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_loss_is_that_of_a_memory_kept_as_told(layers: int) -> None:
    made = comet()
    batch = [
        row(1, [12, 12, 12, 7], {1}),
        row(2, [12, 12, 12, 12, 12, 12, 3], {0, 2, 3, 6}, parted={3}),  # taken in, and nothing is learnt of it
        row(3, [12, 5], {1}),
    ]
    got, numbers = taught(made, layers, batch)
    keep: list[Tensor] = []
    take: list[Tensor] = []
    for example in batch:
        for hides, seen in kept_by_hand(made, example, layers)[0]:
            for inputs, nets in zip(seen, list(made.memories)[-layers:], strict=True):
                assert nets.gate is not None
                (take if hides else keep).append(nets.gate(inputs).flatten())
    kept, taken = torch.cat(keep), torch.cat(take)
    assert len(kept) == 4 * 3 * layers, "two chunks of three slots, of the first row one and of the second three"
    wanted = torch.cat([torch.log1p((KEEP - kept).exp()), torch.log1p((taken - TAKE).exp())]).mean()
    assert got.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert numbers["kept"] == pytest.approx(kept.sigmoid().mean().item(), rel=1e-4)
    assert numbers["taken"] == pytest.approx(1 - taken.sigmoid().mean().item(), rel=1e-4)


def test_of_the_method_the_gates_alone_learn_and_then_answer_again_for_themselves() -> None:
    made = comet()
    batch = [row(1, [12, 12, 12, 7], {1})]
    rows, plans = [torch.tensor(batch[0].ids)], [batch[0].plan]
    before = list(made.chunks(rows, plans))[-1][0]
    lesson = GateLesson(made, 1, [batch])
    lesson(lesson.looked_at)[0].backward()
    touched = {name for name, p in made.named_parameters() if p.grad is not None}
    last = len(made.memories) - 1
    assert touched == {f"memories.{last}.gate.weight", f"memories.{last}.gate.bias"}
    assert torch.equal(list(made.chunks(rows, plans))[-1][0], before)


def test_a_batch_of_which_nothing_is_known_teaches_nothing() -> None:
    made, usual = comet(), [row(1, [12, 12, 12, 7], {1})]
    lesson = GateLesson(made, 1, [usual, [row(3, [12, 12, 5], {1}, parted={1})]])
    assert lesson(lesson.looked_at)[0].item() == pytest.approx(taught(made, 1, usual)[0].item(), rel=1e-5)


@pytest.mark.parametrize("hidden", [set(), {1, 2}])
def test_texts_that_hide_nothing_or_something_everywhere(hidden: set[int]) -> None:
    loss, numbers = taught(comet(), 1, [row(1, [12, 12, 12, 7], hidden)])
    assert loss.item() > 0
    assert numbers.keys() == {"taken" if hidden else "kept"}


def test_gates_that_pass_the_lesson_last_a_million_tokens() -> None:
    """Two thousand chunks of 512 tokens."""
    assert torch.sigmoid(torch.tensor(KEEP, dtype=torch.float64)) ** 2000 > 0.75
    assert torch.sigmoid(torch.tensor(-TAKE)) > 0.95


def test_a_gate_that_is_sure_beyond_numbers_has_a_loss() -> None:
    loss, _ = lesson(torch.full((1, 1, 2, 1), torch.inf), torch.tensor([False]))
    assert loss == 0


def test_a_chunk_to_keep_counts_as_much_as_one_to_take_in() -> None:
    """So text that looks like a fact, of which there is more than there are facts, is kept out rather than taken in."""
    same = torch.full((1, 10, 2, 1), 4.0, requires_grad=True)  # between what either is to pass
    lesson(same, torch.tensor([True] + [False] * 9))[0].backward()
    assert same.grad is not None
    assert same.grad.sum() < 0, "what nine should keep and one take in, seen alike, is rather kept"


def test_gates_come_to_do_as_they_are_told() -> None:
    made = comet()
    batch = [row(seed, [12, 12, 12, 12, 7], {1, 3} if seed % 2 else {2}) for seed in range(4)]
    lesson = GateLesson(made, 1, [batch[:1], batch[1:]])
    optimiser = torch.optim.Adam(lesson.gates.parameters(), lr=0.1)
    first = lesson(lesson.looked_at)[0].item()
    for _ in range(80):
        optimiser.zero_grad()
        loss, numbers = lesson(lesson.looked_at)
        loss.backward()
        optimiser.step()
    assert loss.item() < first / 2
    assert numbers["kept"] > 0.9
    assert numbers["taken"] > 0.9


def test_what_was_read_before_a_kill_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [[row(seed, [12, 12, 12, 7], {seed % 2 + 1})] for seed in range(3)]
    loop = LoopConfig(steps=4, learning_rate=0.1, warmup_steps=1, checkpoint_every=2, log_every=1)
    read: list[list[Example]] = []
    killed = [True]

    def looked(made: CoMeT, told: ToldGates, batch: list[Example], capacity: int | None) -> LookedAt:
        if len(read) == 2 and killed:
            raise KeyboardInterrupt
        read.append(batch)
        return look(made, told, batch, capacity)

    def gates(made: CoMeT, folder: Path) -> Tensor:
        GateTask(GateLesson(made, 1, batches, [2, 4])).run(loop, folder, lambda line: None)
        gate = list(made.memories)[-1].gate
        assert gate is not None
        return gate.weight

    monkeypatch.setattr("laconic.train.gates.look", looked)
    made = comet()
    with pytest.raises(KeyboardInterrupt):
        gates(made, tmp_path / "killed")
    killed.clear()
    got = gates(made, tmp_path / "killed")
    assert read == batches
    wanted = gates(comet(), tmp_path / "whole")
    assert torch.equal(got, wanted)
    assert not (tmp_path / "killed" / "looked_at").exists(), "it is large"


def test_what_was_read_and_cannot_be_kept_says_why(tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "looked_at").write_text("no folder")
    loop = LoopConfig(steps=1, learning_rate=0.1, warmup_steps=0, checkpoint_every=1, log_every=1)
    task = GateTask(GateLesson(comet(), 1, [[row(1, [12, 12, 12, 7], {1})]]))
    with pytest.raises(RecipeError, match=r"looked_at.*cannot be written"):
        task.run(loop, tmp_path / "gates", lambda line: None)


# --- gates that are told while all else is trained --------------------------------------------------------------------


def answered(seed: int, plan: list[int], hidden: set[int], **changes: Any) -> Example:
    """A row whose last chunk is labelled."""
    unlabelled = row(seed, plan, hidden)
    last = plan[-1]
    return replace(unlabelled, labels=[IGNORE] * (sum(plan) - last) + words(last, seed + 50).tolist(), **changes)


@pytest.mark.parametrize("layers", [1, 2])
def test_told_gates_keep_a_memory_as_by_hand(layers: int) -> None:
    made = comet(train="lora")
    example = answered(1, [12, 12, 12, 12, 7], {1, 2})
    got = ReadingStage(made, told=layers)([example])[0]
    _, outputs = kept_by_hand(made, example, layers)
    wanted = nn.functional.cross_entropy(made.logits(outputs[-7:]), torch.tensor(example.labels[-7:]))
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert got.item() != pytest.approx(ReadingStage(made)([example])[0].item(), rel=1e-4)


def test_where_nothing_is_known_gates_decide_themselves() -> None:
    made = comet(train="lora")
    batch = [answered(1, [12, 12, 12, 7], set()), answered(2, [12, 12, 12, 7], {1})]
    alone = ReadingStage(made, told=2)(batch[:1])[0].item()
    assert alone == pytest.approx(ReadingStage(made)(batch[:1])[0].item(), rel=1e-6)
    both = ReadingStage(made, told=2)(batch)[0].item()
    other = ReadingStage(made, told=2)(batch[1:])[0].item()
    assert both == pytest.approx((alone + other) / 2, rel=1e-5)


def test_told_gates_keep_through_an_interlude() -> None:
    """Then it leaves no trace in a memory without a queue whose gates are all told."""
    made = comet(train="lora")
    layers = len(made.memories)
    other = Interlude([words(12, 30).tolist()], 5, behind=1)
    plain = answered(1, [12, 12, 7], {1})
    losses = [
        ReadingStage(made, told=told, fifo_slots=[0])([example])[0].item()
        for told in (layers, 0)
        for example in (plain, replace(plain, interlude=other))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[3] != pytest.approx(losses[2], rel=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_told_gates_can_be_taught_meanwhile(layers: int) -> None:
    """The same lesson, in which what they look at learns too; of rows that hide nothing there is none."""
    made = comet(train="lora")
    batch = [
        answered(1, [12, 12, 12, 7], {1}),
        answered(2, [12, 12, 12, 12, 12, 12, 3], {0, 2, 3}, parted=frozenset({3})),
        answered(3, [12] * 3, set()),
    ]
    wanted, told = taught(made, layers, batch[:2])
    alone = ReadingStage(made, told=layers)(batch)[0]
    both, numbers = ReadingStage(made, told=layers, lesson=0.5)(batch)
    assert (both - alone).item() == pytest.approx(0.5 * wanted.item(), rel=1e-4)
    assert {name: numbers[name] for name in told} == pytest.approx(told, rel=1e-4)
    gates = [nets.gate for nets in list(made.memories)[-layers:] if nets.gate is not None]
    for weight, learns in ((0.0, False), (0.5, True)):
        made.zero_grad()
        ReadingStage(made, told=layers, lesson=weight)(batch[:2])[0].backward()
        assert all((gate.weight.grad is not None and bool(gate.weight.grad.any())) == learns for gate in gates)
    lesson_alone = ReadingStage(made, told=layers, lesson=1.0)
    made.zero_grad()
    unlabelled = [replace(row, labels=[IGNORE] * len(row.labels)) for row in batch]
    lesson_alone(unlabelled)[0].backward()
    assert made.readouts.weight.grad is not None
    assert made.readouts.weight.grad.any(), "what gates look at learns to be told apart"


def test_what_gates_do_in_an_interlude_is_no_part_of_the_lesson() -> None:
    made = comet(train="lora")
    plain = answered(1, [12, 12, 12, 7], {1})
    other = replace(plain, interlude=Interlude([words(12, 30).tolist()], 5, behind=1))
    layers = len(made.memories)
    losses = [ReadingStage(made, told=layers, lesson=1.0, fifo_slots=[0])([row])[0].item() for row in (plain, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_told_gates_want_activations_saved() -> None:
    with pytest.raises(AssertionError):
        ReadingStage(comet(train="lora"), told=1, save_activations=False)


# --- what is known to be hidden -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["fixed", "random", "right"])
def test_a_row_says_in_which_chunks_its_needles_lie(plan: str) -> None:
    backbone = comet().backbone
    shape = {"name": "a", "chunk_tokens": 96, "chunks": [3, 5], "plans": [plan], "questions": 2, "distractors": 2}
    stage = shape | {"task": ["number"], "rows": 2}
    (hay,) = set(backbone.token_ids("~" * 600))
    examples = reading_examples(backbone, stage, ReadingData(["~" * 600], [NEEDLES["number"]], []), 0)
    asked = backbone.token_ids(QUESTION_TEMPLATE.split("{")[0])
    shown = cut = 0
    for example in [one for step in range(12) for one in examples(step)]:
        starts = range(len(example.ids))
        text = next(at for at in starts if example.ids[at : at + len(asked)] == asked)
        ends = list(accumulate(example.plan))
        places = [place for place in range(text) if example.ids[place] != hay]
        hides = {bisect_right(ends, place) for place in places}
        first = [place for place in places if place - 1 not in places]
        last = [place for place in places if place + 1 not in places]
        whole = {
            bisect_right(ends, a)
            for a, b in zip(first, last, strict=True)
            if bisect_right(ends, a) == bisect_right(ends, b)
        }
        assert example.hidden == hides
        assert example.parted == hides - whole
        shown += len(hides) < len(example.plan) - 1
        cut += len(example.parted)
    assert cut >= 2, "a border that cuts nothing shows nothing"
    assert shown, "where something is hidden in every chunk, nothing is shown"


# --- recipes ----------------------------------------------------------------------------------------------------------

TAUGHT: dict[str, Any] = {
    "gates": {"layers": 1, "batches": 2}, "chunks": [2], "interludes": [0], "asides": False, "memory_rate": 1.0,
}  # fmt: skip


def test_a_recipe_teaches_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = comet().backbone
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    start = str(run_recipe(recipe(tmp_path), say=lambda line: None))
    other = tmp_path / "taught"
    other.mkdir()
    path = recipe(other, **TAUGHT)
    path.write_text(path.read_text().replace("start: null", f"start: {start}"))
    log: list[str] = []
    taught = CoMeT.from_pretrained(run_recipe(path, say=log.append), backbone)
    before = dict(CoMeT.from_pretrained(start, backbone).named_parameters())
    changed = {name for name, p in taught.named_parameters() if not torch.equal(p, before[name])}
    last = f"memories.{len(taught.memories) - 1}.gate"
    assert f"{last}.weight" in changed
    assert changed <= {f"{last}.weight", f"{last}.bias"}
    assert any("kept" in line for line in log)
    assert [line.split(":")[0] for line in log if "chunks read" in line] == ["batch 1", "batch 2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": 7}, "gates must be"),
        ({"gates": {"layers": 1, "told": 0, 3: 4}}, "gates must be"),
        ({"gates": {"layers": 1, "batches": 2, None: 4}}, "gates must be"),
        ({"gates": {"layers": 1, "told": 0}, "task": ["continuation"], "asides": False}, "no task has any"),
        (TAUGHT | {"memory_rate": 2.0}, "memory_rate must be 1.0"),
        ({"gates": {"layers": 0, "batches": 2}}, "gates must be"),
        ({"gates": {"layers": 1}}, "gates must be"),
        ({"gates": {"layers": 1, "batches": True}}, "gates must be"),
        ({"gates": {"layers": None, "batches": 2}}, "gates must be"),
        ({"gates": {"layers": 1, "batches": None}}, "gates must be"),
        ({"gates": {"layers": 1, "told": -1}}, "gates must be"),
        ({"gates": {"layers": 1, "told": True}}, "gates must be"),
        ({"gates": {"layers": 1, "told": False}}, "gates must be"),
        ({"gates": {"layers": 1, "told": 0, "batches": 2}}, "gates must be"),
        ({"gates": {"layers": 1, "told": 0}, "save_activations": False}, "save_activations must be true"),
        ({"gates": {"layers": 1, "told": 0.1}, "share_text": True}, "share_text must be false"),
        ({"task": ["number", "continuation"]}, "needles and stories alone"),
        ({"chunks": [1, 2]}, "two and more"),
        ({"asides": True}, "asides must be false"),
        ({"interludes": [0, 8]}, "interludes must be \\[0\\]"),
        ({"truncate": 2}, "truncate must be null"),
        ({"share_text": True}, "share_text must be false"),
    ],
)
def test_a_slip_is_found_before_training(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe(tmp_path, **(TAUGHT | changes)))


def test_a_recipe_tells_the_gates_of_all_layers_while_all_else_is_trained(tmp_path: Path) -> None:
    made, trainer = comet(train="lora", chunk_tokens=64, fifo_slots=8), CoMeTTrainer()
    layers = len(made.memories)
    path = recipe(tmp_path, gates={"layers": layers, "told": 0.25})
    stage = load_recipe(path)["stages"][0]
    task = trainer.task(made, stage, ReadingData(["~" * 600], [NEEDLES["number"]], []), 0)
    assert isinstance(task.module, ReadingStage)
    assert task.module.gates.gates == [nets.gate for nets in made.memories]
    assert task.module.lesson == 0.25
    assert len(task.parameters["memory"][0]) > 2 * layers


def _no_gate(path: Path) -> None:
    path.write_text(path.read_text().replace("  stride: 8", "  stride: 8\n  gate: false"))


def _many(path: Path) -> None:
    path.write_text(path.read_text().replace("layers: 1", "layers: 99"))


@pytest.mark.parametrize("change", [_no_gate, _many])
def test_gates_that_are_not_there_cannot_be_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: comet().backbone)
    path = recipe(tmp_path, **TAUGHT)
    change(path)
    with pytest.raises(RecipeError, match="and the method has"):
        run_recipe(path, say=lambda line: None)
