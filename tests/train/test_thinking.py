"""Training methods that reason: the loss against one written out, and what must not change it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from thinkers import KINDS, PROBLEMS, backbone_of, thinker
from torch import Tensor
from torch.nn import functional

from laconic.core.layout import IGNORE, Kind
from laconic.core.thoughts import Trace, lay_out
from laconic.core.visibility import visible
from laconic.data.problems import Problem, same_words
from laconic.data.puzzles import PUZZLES, puzzle
from laconic.errors import BackboneError, DataError, RecipeError
from laconic.methods.thinking.model import Thinker
from laconic.train.loop import LoopConfig, run
from laconic.train.thinking import Drawn, Row, ThinkingStage, labels_in_rows, lay_out_rows
from laconic.train.thinking_data import packed, thinking_examples
from laconic.train.thinking_recipe import ThinkingTrainer

STEPS = [["we add", "the sum is", "three"], ["blue"], ["the number of ships", "that passed", "is", "twelve", "or so"]]
STAGE: dict[str, Any] = {
    "name": "steps", "task": list(PUZZLES), "difficulty": [1, 2, 3], "segmenter": None, "limit": 400, "rows": 3,
    "pack": None, "soft_rate": 2.0,
}  # fmt: skip


def drawn(model: Thinker, seed: int = 0) -> list[Drawn]:
    draw = random.Random(seed)
    traces = [model.trace(problem, steps) for problem, steps in zip(PROBLEMS, STEPS, strict=True)]
    offset = model.guesses and draw.randint(1, model.guesses)
    return [Drawn(trace, model.training_reaches(len(trace.steps), draw), offset or None) for trace in traces]


def by_hand(model: Thinker, one: Drawn) -> tuple[Tensor, Tensor]:
    """The summed losses of a trace's words and of its guesses, from a dense mask and all scores at once."""
    layout, ids = lay_out(one.trace, model.shape, one.offset)
    rows = layout.map(lambda field: field[None])
    seen = visible(model.rule(torch.tensor([[0, *one.reach]])), rows)
    scores = model.decoder(
        inputs_embeds=model.embedded(rows.kind, ids[None]),
        attention_mask=torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None],
        position_ids=rows.position,
    ).logits[0]
    losses = functional.cross_entropy(scores, layout.label, reduction="none", ignore_index=IGNORE)
    guess = layout.kind == Kind.FORESIGHT
    return losses[~guess].sum(), losses[guess].sum()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_loss_is_a_mean_over_words_and_one_over_guesses(kind: str) -> None:
    model = thinker(kind)
    rows = [[one] for one in drawn(model)]
    loss, numbers = ThinkingStage(model, model.foresight_weight)(rows)
    words, guesses = labels_in_rows(rows)
    summed = [by_hand(model, one) for row in rows for one in row]
    weight = model.foresight_weight
    assert words == sum(len(step) for row in rows for one in row for step in one.trace.steps) + 3
    assert loss[0].item() == pytest.approx((1 - weight) * sum(w.item() for w, _ in summed) / words, rel=1e-5)
    assert loss[1].item() == pytest.approx(weight * sum(g.item() for _, g in summed) / max(guesses, 1), rel=1e-5)
    assert ("guess_accuracy" in numbers) == (model.guesses > 0)
    assert (weight == 0.3) == (model.guesses > 0)


def test_without_guesses_memosight_has_lightthinkers_loss() -> None:
    """Invariant 11: as many memory tokens a step, no weight on guesses, and foresight tokens that nobody reads."""
    light = thinker("lightthinker", memory_tokens=1)
    sight = thinker("memosight", compression=6, layout="sequential", foresight_weight=0.0)
    theirs = dict(light.own_parameters())
    for name, parameter in sight.own_parameters().items():
        if theirs[name].numel():
            parameter.data = theirs[name].data
    traces = [sight.trace(problem, own) for problem, own in zip(PROBLEMS, STEPS, strict=True)]
    assert {sight.memory_count(len(step)) for trace in traces for step in trace.steps} == {1}
    losses = [
        ThinkingStage(model, model.foresight_weight)(
            [[Drawn(trace, [0] * len(trace.steps), offset)] for trace in traces]
        )[0]
        for model, offset in ((light, None), (sight, 2))
    ]
    torch.testing.assert_close(losses[0].sum(), losses[1].sum())


def test_processes_draw_apart() -> None:
    """Shortcuts and offsets of a step differ from process to process (HybridThinker's invariant 8)."""
    model = thinker("hybridthinker")
    stage = {**STAGE, "difficulty": [12], "task": ["machine"]}
    task = ThinkingTrainer(type(model)).task(model, stage, {}, 0)
    reaches = [[one.reach for row in task.batch(0, rank, 4) for one in row] for rank in range(4)]
    assert len({str(one) for one in reaches}) == 4
    assert reaches[0] != [one.reach for row in task.batch(1, 0, 4) for one in row]
    assert reaches[1] == [one.reach for row in task.batch(0, 1, 4) for one in row]


@pytest.mark.parametrize("kind", list(KINDS))
def test_packing_changes_no_loss_and_no_gradient(kind: str) -> None:
    model = thinker(kind)
    apart = [[one] for one in drawn(model)]
    together = packed(apart, 60)
    assert len(together) < len(apart)
    assert lay_out_rows(model, together).packed
    found = []
    for rows in (apart, together):
        model.zero_grad()
        loss, _ = ThinkingStage(model, model.foresight_weight)(rows)
        loss.sum().backward()
        grads = [p.grad for p in model.own_parameters().values() if p.grad is not None and p.numel()]
        found.append((loss.detach(), grads))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert any(float(grad.abs().max()) > 1e-3 for grad in found[0][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vanilla"])
@torch.no_grad()
def test_other_attention_computes_the_same_loss(kind: str, implementation: str) -> None:
    """FlexAttention with its BlockMask, packed or not, as SDPA with the dense mask."""
    model = thinker(kind)
    apart = [[one] for one in drawn(model)]
    for rows in (apart, packed(apart, 60)):
        model.decoder.set_attn_implementation("sdpa")
        wanted, _ = ThinkingStage(model, model.foresight_weight)(rows)
        model.decoder.set_attn_implementation(implementation)
        # what FlexAttention computes, without the compiler, whose code for it does not build on every CPU
        with torch.compiler.set_stance("force_eager"):
            found, _ = ThinkingStage(model, model.foresight_weight)(rows)
        assert torch.allclose(found, wanted, atol=1e-5)
    model.decoder.set_attn_implementation("sdpa")


def test_what_is_packed_is_all_there_and_fits() -> None:
    model = thinker("vanilla")
    rows = [[one] for one in drawn(model) * 3]
    room = 60
    together = packed(rows, room)
    assert sorted(id(one) for row in together for one in row) == sorted(id(one) for row in rows for one in row)
    for row in together:
        sizes = [len(one.trace.prompt) + sum(map(len, one.trace.steps)) for one in row]
        assert len(row) == 1 or sum(sizes) <= room


class Fixed:
    """Rows handed out in turn, so that one step of two batches has the rows of one step of one."""

    def __init__(self, model: Thinker, batches: list[list[Row]]) -> None:
        self.module: Any = ThinkingStage(model, model.foresight_weight)
        self.model, self.batches, self.synchronise = model, batches, None

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.model.own_parameters().values() if p.numel()], "lr": learning_rate}]

    def batch(self, step: int, rank: int, world: int) -> list[Row]:
        return self.batches[step % len(self.batches)]

    def weight(self, batch: list[Row]) -> tuple[float, float]:
        return labels_in_rows(batch)


@pytest.mark.parametrize("kind", ["hybridthinker", "memosight"])
def test_a_step_does_not_depend_on_how_it_is_cut_into_batches(kind: str, tmp_path: Path) -> None:
    """Words and guesses have counts of their own: the short row has hardly any guess."""
    after = []
    for cut in (1, 3):
        model = thinker(kind)
        rows: list[Row] = [[one] for one in drawn(model)]
        batches = [rows] if cut == 1 else [[row] for row in rows]
        config = LoopConfig(steps=1, learning_rate=1e-2, warmup_steps=0, accumulation=cut, max_grad_norm=1e-3)
        run(Fixed(model, batches), config, tmp_path / str(cut), say=lambda text: None)
        # the gradients, as Adam's first moment has them: a step makes much of the rounding of those near zero
        moments = torch.load(tmp_path / str(cut) / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
        after.append(torch.cat([moment["exp_avg"].flatten() for moment in moments.values()]))
    one, other = after
    assert one.norm() > 0
    assert (one - other).norm() < 1e-5 * one.norm()


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
@torch.no_grad()
def test_foresight_tokens_are_seen_by_nobody(offset: int) -> None:
    model = thinker("memosight")
    trace = model.trace(PROBLEMS[0], STEPS[0])
    found = []
    for own in (None, offset):
        rows = lay_out_rows(model, [[Drawn(trace, [0] * len(trace.steps), own)]])
        outputs = ThinkingStage(model)._outputs(rows, rows.layout)[0]
        found.append(outputs[rows.layout.kind[0] != Kind.FORESIGHT])
    assert torch.allclose(found[0], found[1], atol=1e-5)


@torch.no_grad()
def test_a_guess_in_training_is_the_guess_of_the_decoder() -> None:
    """Foresight token i behind a word has the scores of the one in training that stands before the next, offset i."""
    model = thinker("memosight", foresight=3, max_step_tokens=60)
    ids = [20, 30, 40, 50, 60, 70]
    trace = Trace(model.prompt_ids(PROBLEMS[1]), [[*ids, model.step_end], [*ids[:4], model.step_end]], 2)
    stage = ThinkingStage(model)

    def scores(steps: list[list[int]], offset: int) -> dict[tuple[int, int], Tensor]:
        rows = lay_out_rows(model, [[Drawn(Trace(trace.prompt, steps, None), [0, 0], offset)]])
        outputs = stage._outputs(rows, rows.layout)[0]
        found, at = {}, {1: 0, 2: 0}
        for place in (rows.layout.kind[0] == Kind.FORESIGHT).nonzero()[:, 0].tolist():
            step = int(rows.layout.step[0, place])
            found[step, at[step]] = outputs[place]
            at[step] += 1
        return found

    for offset in (1, 2, 3):
        full = scores(trace.steps, offset)
        for number in (1, 2):
            for place in range(len(trace.steps[number - 1]) - offset):
                # the decoder has only what comes before: words behind the guess change nothing about it
                before = [*trace.steps[: number - 1], [*trace.steps[number - 1][:place], *[99] * (offset + 1)]]
                alone = scores(before, offset)[number, place]
                assert torch.allclose(alone, full[number, place], atol=1e-5)


# --- what is trained on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_all_methods_see_the_same_problems_and_draw_anew(kind: str) -> None:
    model, vanilla = thinker(kind, max_step_tokens=100), thinker("vanilla", max_step_tokens=100)
    look, other = (thinking_examples(one, STAGE, {}, seed=3) for one in (model, vanilla))
    for step in range(4):
        mine, theirs = look(step), other(step)
        assert [row[0].trace for row in mine] == [row[0].trace for row in theirs]
        assert mine == look(step)
    assert len({row[0].trace.prompt[0:30].__repr__() for step in range(6) for row in look(step)}) > 10
    if model.guesses:
        assert {row[0].offset for step in range(20) for row in look(step)} == {1, 2}
    if model.retention:
        reached = {tuple(row[0].reach) for step in range(20) for row in look(step)}
        assert len(reached) > 1


def test_a_trace_is_cut_where_the_decoder_would_end_a_step() -> None:
    model = thinker("lightthinker", max_step_tokens=5)
    trace = model.trace("What is the passkey?", ["the number of ships that passed is twelve or so", "blue"])
    assert all(len(step) <= 5 and step[-1] == model.step_end for step in trace.steps)
    assert trace.end == 2
    said = [word for step in trace.steps for word in step[:-1]]
    assert model.backbone.tokenizer.decode(said).startswith("the number of ships that passed")
    for limit in range(len(trace.prompt) + 1, len(trace.prompt) + sum(map(len, trace.steps)) + 2):
        cut = model.trace("What is the passkey?", ["the number of ships that passed is twelve or so", "blue"], limit)
        kept = [word for step in cut.steps for word in step]
        assert len(cut.prompt) + len(kept) <= limit
        assert kept == [word for step in trace.steps for word in step][: len(kept)]
        if cut.end is None:
            assert len(cut.prompt) + len(kept) == limit
        layout, _ = lay_out(cut, model.shape)
        assert int((layout.label != IGNORE).sum()) == len(kept) + (cut.end is not None)


def test_traces_that_cannot_be_laid_out_are_refused() -> None:
    model = thinker("lightthinker")
    with pytest.raises(DataError, match="ends a step"):
        model.trace("What?", ["one\ntwo"])
    with pytest.raises(DataError, match="no steps"):
        model.trace("What?", [])
    with pytest.raises(DataError, match="empty"):
        model.trace("What?", [""])
    with pytest.raises(DataError, match="no room"):
        model.trace("What is the passkey?", ["blue"], limit=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", []), ("task", ["gsm8k_test"]), ("task", "shuffle"), ("difficulty", [0]), ("difficulty", []),
        ("segmenter", "word"), ("segmenter", ["line"]), ("segmenter", 0),
        ("segmenter", True), ("limit", 0), ("rows", True), ("pack", 0), ("soft_rate", 0),
    ],
)  # fmt: skip
def test_slips_in_a_stage_are_found(key: str, value: Any) -> None:
    trainer = ThinkingTrainer(KINDS["memosight"][0])
    trainer.check(STAGE, "here")
    with pytest.raises(RecipeError, match="here"):
        trainer.check(STAGE | {key: value}, "here")


def test_a_problem_that_has_no_room_is_found_before_training_and_named() -> None:
    trainer, model = ThinkingTrainer(KINDS["lightthinker"][0]), thinker("lightthinker")
    fits = Problem("fits", "What?", ["blue", "The answer is blue."], "blue", same_words)
    long = Problem("long", "What is the number of ships that passed? " * 9, fits.steps, "blue", same_words)
    stage = STAGE | {"task": ["gsm8k_train"], "limit": 40}
    trainer.task(model, stage, {"gsm8k_train": [fits]}, 0)
    with pytest.raises(RecipeError, match=r"gsm8k_train, problem long: .* no room in 40"):
        trainer.task(model, stage, {"gsm8k_train": [fits, long]}, 0)


def test_puzzles_that_cannot_be_laid_out_are_found_before_training() -> None:
    trainer, stage = ThinkingTrainer(KINDS["lightthinker"][0]), STAGE | {"task": ["shuffle"], "difficulty": [3, 12]}
    trainer.task(thinker("lightthinker"), stage | {"limit": 500}, {}, 0)
    with pytest.raises(RecipeError, match=r"shuffle of 3 moves, problem .* no room in 20"):
        trainer.task(thinker("lightthinker"), stage | {"limit": 20}, {}, 0)
    with pytest.raises(RecipeError, match="ends a step"):
        trainer.task(thinker("lightthinker", step_end="."), stage | {"limit": 500}, {}, 0)


@pytest.mark.parametrize("cut", [2, 5, 99])
def test_a_stage_cuts_solutions_by_a_number_of_tokens(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "the sum of the ships is twelve"
    record = {"id": "a", "question": "How many?", "answer": f"{text}\nwe add\n#### 12", "final": "12"}
    with gzip.open(tmp_path / "gsm8k_train.jsonl.gz", "wt") as file:
        file.write(json.dumps(record) + "\n")
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path))
    trainer, model = ThinkingTrainer(KINDS["lightthinker"][0]), thinker("lightthinker", max_step_tokens=100)
    tokenizer = model.backbone.tokenizer
    pieces = []
    for line in (text, "we add"):
        ids = tokenizer(line, add_special_tokens=False)["input_ids"]
        pieces += [tokenizer.decode(ids[start : start + cut]).strip() for start in range(0, len(ids), cut)]
    stage = STAGE | {"task": ["gsm8k_train"], "segmenter": cut, "rows": 1}
    trainer.check(stage, "here")
    [[one]] = trainer.task(model, stage, trainer.data(stage), 0).batch(0, 0, 1)
    assert [tokenizer.decode(step).strip() for step in one.trace.steps] == [*pieces, "The answer is 12."]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_few_steps_lower_the_loss(kind: str, tmp_path: Path) -> None:
    """With all that is the method's own: after them memory rows and foresight rows have moved."""
    made, own = KINDS[kind]
    trainer = ThinkingTrainer(made)
    config = made.options(**({"prompt": "{problem}\n", "lora_rank": 4, "max_step_tokens": 100} | own))  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = trainer.make(backbone_of("llama"), config)
    before = {name: p.detach().clone() for name, p in model.own_parameters().items()}
    task = trainer.task(model, STAGE | {"task": ["machine"], "difficulty": [2]}, {}, 0)
    losses: list[float] = []
    loop = LoopConfig(steps=12, learning_rate=2e-2, warmup_steps=0, log_every=1)
    run(task, loop, tmp_path, say=lambda text: losses.append(float(text.split("loss ")[1].split()[0])))
    assert losses[-1] < 0.8 * losses[0]
    for name, parameter in model.own_parameters().items():
        if parameter.numel():
            assert not torch.equal(parameter, before[name]), name


def test_puzzles_are_solved_by_their_own_steps_and_by_nothing_else() -> None:
    for name in PUZZLES:
        answers = set()
        for seed in range(30):
            made = puzzle(name, random.Random(seed), 1 + seed % 9, training=bool(seed % 2))
            assert made.solved_by("\n".join(made.steps))
            assert not made.solved_by("\n".join(made.steps[:-1]))
            assert not made.solved_by("The answer is nothing.")
            assert len(made.steps) == 2 + seed % 9
            answers.add(made.answer)
        assert len(answers) > 4


def test_what_is_asked_in_evaluation_is_never_trained_on() -> None:
    for name in PUZZLES:
        trained, asked = (
            {puzzle(name, random.Random(seed), 2, training=training).question for seed in range(400)}
            for training in (True, False)
        )
        assert len(asked) > 50
        assert not trained & asked


def test_a_decoder_that_changes_its_logits_is_not_trained_on_others() -> None:
    model = thinker("vanilla", "gemma3")
    config = model.decoder.config.get_text_config()
    config.final_logit_softcapping = 5.0
    try:
        with pytest.raises(BackboneError, match="final_logit_softcapping"):
            ThinkingStage(model)
    finally:
        config.final_logit_softcapping = None
    assert ThinkingStage(model)


def test_a_step_that_holds_its_end_in_another_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two line ends can be one token, which is not that of one."""
    model = thinker("vanilla")
    monkeypatch.setattr(type(model.backbone), "token_ids", lambda self, text: [5, 6])
    with pytest.raises(DataError, match="which ends a step"):
        model.trace("Why?", [f"one{model.config.step_end * 2}two"])
    assert model.trace("Why?", ["one two"]).steps
