"""Stages on own answers, as recipes name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import thinkers
import torch
import yaml
from thinkers import KINDS, backbone_of, thinker
from tiny import tiny_backbone

pytest.importorskip("trl")

import itertools

from laconic.core import persist
from laconic.data.problems import Problem, same_words
from laconic.data.schema import QAItem
from laconic.errors import BudgetError, DataError, LaconicError, RecipeError
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.methods.hybridthinker.model import HybridThinker
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.methods.sft.model import SFT, SFTConfig
from laconic.methods.tgpo.students import Answer
from laconic.methods.tgpo.thinking_student import ThinkingStudent
from laconic.train import policy, stages
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.loop import LoopConfig
from laconic.train.policy_recipe import KEYS
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.thinking_recipe import ThinkingTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

STAGE: dict[str, Any] = {
    "name": "heal", "objective": "tgpo", "teacher": "TEACHER", "task": ["machine"], "difficulty": [2], "rows": 2,
    "answers": 2, "given": 0, "limit": 8, "temperature": 1.0, "reward": "steps", "together": 2, "updates": 1,
    "soft_rate": 1.0, "ask": 2, "ask_every": 2, "tgpo": {"teacher_weight": 0.5},
    "loop": {"steps": 4, "learning_rate": 1.0e-2, "warmup_steps": 0, "checkpoint_every": 1, "log_every": 1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_backbone", lambda *_, **__: backbone_of("llama"))


def recipe(folder: Path, **changes: Any) -> Path:
    teacher = folder / "teacher"
    if not teacher.exists():
        thinker("vanilla").save_pretrained(teacher)
    stage = STAGE | {"teacher": str(teacher)} | changes
    made = {
        "method": "hybridthinker", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "start": None, "seed": 3,
        "output": str(folder / "run"), "stages": [stage],
        "hybridthinker": {"prompt": "{problem}\n", "max_step_tokens": 6, "lora_rank": 2, "memory_tokens": 2},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "heal" / "log.jsonl").read_text().splitlines()]


def test_a_recipe_trains_on_own_answers_and_says_how_it_goes(tmp_path: Path) -> None:
    said: list[str] = []
    folder = run_recipe(recipe(tmp_path), say=said.append)
    HybridThinker.from_pretrained(folder, backbone_of("llama"))
    logged = lines(tmp_path)
    assert [(line["step"], line["samples"]) for line in logged] == [(n, 4 * n) for n in range(5)]
    assert [("asked/right" in line, "asked/steps" in line) for line in logged] == [
        (n in (0, 2, 4), n in (0, 2, 4)) for n in range(5)
    ]
    for name in ("reward", "loss", "entropy", "teacher/agreement", "teacher/weight", "student/peak_tokens"):
        assert name in logged[1]
    assert [line["teacher/weight"] for line in logged[1:]] == pytest.approx([0.5 - 1e-5 * n for n in range(4)])
    assert all(later["seconds"] >= one["seconds"] for one, later in itertools.pairwise(logged))
    rates = [line["learning_rate"] for line in logged[1:]]
    assert rates == pytest.approx([1e-2 * LoopConfig(**STAGE["loop"]).pace(step) for step in range(4)])
    assert any(line.startswith("step 4") and "reward" in line for line in said)


@pytest.mark.parametrize("step", [0, 2])  # before the first checkpoint, and behind one
def test_a_recipe_goes_on_where_it_was_killed_and_stays_done(step: int, tmp_path: Path) -> None:
    whole = run_recipe(recipe(tmp_path), say=lambda _: None)
    other = tmp_path / "other"
    other.mkdir()

    def dies(text: str) -> None:
        if text.startswith(f"step {step}"):
            raise KeyboardInterrupt

    path = recipe(other)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, say=dies)
    said: list[str] = []
    again = run_recipe(path, say=said.append)
    assert any("resuming at step" in text for text in said) == (step > 0)
    assert [line["step"] for line in lines(other)] == list(range(5))
    one, two = (HybridThinker.from_pretrained(folder, backbone_of("llama")) for folder in (whole, again))
    for name, p in one.own_parameters().items():
        torch.testing.assert_close(two.own_parameters()[name], p, atol=1e-2, rtol=1e-2)  # saved as bfloat16
    before = lines(other)
    run_recipe(path, say=said.append)
    assert lines(other) == before


def test_a_batch_of_roll_outs_makes_several_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published run has two: the second learns from answers of the student before the first."""
    asked: list[int] = []

    class Counted(ThinkingStudent):
        def answers(self, prompts: Sequence[list[int]], **named: Any) -> list[Answer]:
            asked.append(len(prompts))
            return super().answers(prompts, **named)

    monkeypatch.setattr("laconic.train.policy_recipe.ThinkingStudent", Counted)
    loop = STAGE["loop"] | {"steps": 6, "checkpoint_every": 2, "log_every": 2}
    run_recipe(recipe(tmp_path, updates=2, ask=0, loop=loop), say=lambda _: None)
    assert asked == [4, 4, 4], "three batches of four answers, each learnt from by two halves"
    logged = lines(tmp_path)
    assert [(line["step"], line["samples"]) for line in logged] == [(2, 4), (4, 8), (6, 12)]
    assert [line["teacher/weight"] for line in logged] == pytest.approx([0.5 - 1e-5 * n for n in range(3)])


def test_a_problem_that_does_not_fit_is_found_before_any_stage_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "why " * backbone_of("llama").window, "answer": "so", "id": "long"}))
    made = yaml.safe_load(recipe(tmp_path).read_text())
    whole = made | {"stages": [STAGE | {"name": "first", "teacher": None, "objective": "grpo", "tgpo": {}}]}
    whole["stages"] += [whole["stages"][0] | {"name": "second", "task": [str(path)], "ask": 0}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(BudgetError, match="The problem long has"):
        run_recipe(tmp_path / "recipe.yaml", say=lambda _: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"objective": "sft", "given": 2}, {"objective": "luffy", "given": 1}])
def test_objectives_without_a_teacher(changes: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe(tmp_path, teacher=None, ask=0, tgpo={}, **changes), say=lambda _: None)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective": "dpo"}, "objective"), ({"teacher": None}, "needs a teacher"), ({"objective": "grpo"}, "asks no"),
        ({"given": 1}, "own answers alone"), ({"given": 2}, "sft"), ({"objective": "luffy", "teacher": None}, "given"),
        ({"temperature": 0.0}, "temperature"), ({"reward": "length"}, "reward"), ({"together": 3}, "together"),
        ({"tgpo": {"learning_rate": 1.0}}, "follows"), ({"tgpo": {"colour": 1}}, "colour"), ({"tgpo": None}, "mapping"),
        ({"tgpo": {"teacher_weight": -1.0}}, "weight"), ({"answers": 1, "rows": 4}, "here"),
        ({"tgpo": {"num_iterations": 2}}, "follows"), ({"tgpo": {"teacher_weight": "1e-3"}}, "a text"),
        ({"objective": "rkl"}, "constant"),
        ({"tgpo": {"gate_threshold": None}}, "no number"), ({"reward": ["a"]}, "reward"),
        ({"ask_every": 0}, "ask_every"), ({"teacher": 3}, "teacher"),
        ({"teacher": {"url": "http://x"}}, "model"), ({"teacher": {"url": "host:80", "model": "t"}}, "no address"),
        ({"teacher": {"url": "http://x", "model": "t", "ends": 2}}, "ends are"),
        ({"tgpo": {"generation_batch_size": 8}}, "follows"),
        ({"objective": "rkl", "tgpo": {"teacher_schedule": "constant", "log_gradients": True}}, "one term"),
        ({"teacher": {"saved": "a", "url": "http://x"}}, "saved"), ({"teacher": {"saved": "a", "ends": [2]}}, "saved"),
        ({"teacher": {"saved": "a", "target": "beam"}}, "Unknown target"),
        ({"teacher": {"url": "http://x", "model": "t", "target": "sample"}}, "Unknown target"),
        ({"teacher": {"saved": "a", "pretrained": "b"}}, "pretrained: NAME"),
        ({"teacher": {"pretrained": "a", "ends": [2]}}, "pretrained: NAME"),
        ({"teacher": {"pretrained": 3}}, "pretrained of the"),
        ({"teacher": {"saved": 3}}, "saved of the teacher"), ({"teacher": {"saved": "a", "cache": 3}}, "cache of the"),
        ({"teacher": {"saved": "a", "top": 4}}, "soft target"),
        ({"teacher": {"saved": "a", "target": "soft", "top": 0}}, "soft target"),
        ({"teacher": {"saved": "a", "aliases": {"x": 1}}}, "aliases"),
        ({"teacher": {"saved": "a", "target": "sample", "cache": "b"}}, "cache"),
        ({"teacher": {"saved": "a", "cache": "b"}, "objective": "gkd"}, "cache"),
        ({"updates": 0}, "updates"), ({"updates": 3}, "3 updates alike"), ({"updates": True}, "updates"),
        ({"updates": 2}, "checkpoint_every must be"),
        ({"updates": 2, "loop": STAGE["loop"] | {"checkpoint_every": 2}}, "log_every must be"),
        ({"updates": 2, "loop": STAGE["loop"] | {"steps": 3}}, "steps must be"),
        ({"loop": STAGE["loop"] | {"checkpoint_every": 3, "log_every": 2}}, "multiple of log_every"),
        ({"tgpo": {"steps_per_generation": 2}}, "follows"),
        ({"soft_rate": 0}, "soft_rate"), ({"task": ["gsm8k_test"]}, "task"),
    ],
)  # fmt: skip
def test_slips_in_a_stage_are_found_before_anything_is_loaded(changes: dict[str, Any], told: str) -> None:
    trainer = ThinkingTrainer(KINDS["hybridthinker"][0])
    trainer.check(STAGE, "here")
    with pytest.raises(RecipeError, match=told):
        trainer.check(STAGE | changes, "here")


@pytest.mark.parametrize("asked", [{"target": "soft", "top": 3}, {"target": "sample"}])
def test_a_recipe_says_how_its_teacher_is_asked(tmp_path: Path, asked: dict[str, Any]) -> None:
    def losses(folder: Path, **how: Any) -> list[float]:
        folder.mkdir()
        saved = recipe(folder)  # has a teacher made
        if how:
            saved = recipe(folder, teacher={"saved": str(folder / "teacher"), **how})
        run_recipe(saved, say=lambda _: None)
        return [line["teacher/loss"] for line in lines(folder)[1:]]

    plain = losses(tmp_path / "plain")
    assert losses(tmp_path / "named", target="argmax") == pytest.approx(plain)
    found = losses(tmp_path / "asked", **asked)
    assert len(found) == len(plain)
    assert found[0] != pytest.approx(plain[0], rel=1e-6)
    with pytest.raises(LaconicError, match="The alias 3 -> 10000 lies outside"):
        losses(tmp_path / "aliased", aliases={3: 10_000})


def test_any_pretrained_model_can_be_the_teacher(tmp_path: Path) -> None:
    backbone = backbone_of("llama")
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    run_recipe(recipe(tmp_path, teacher={"pretrained": str(tmp_path / "model")}), say=lambda _: None)
    (tmp_path / "saved").mkdir()
    untrained = thinker("vanilla")
    for parameter in untrained.own_parameters().values():
        parameter.data.zero_()
    untrained.save_pretrained(tmp_path / "saved" / "teacher")
    run_recipe(recipe(tmp_path / "saved"), say=lambda _: None)
    for one, other in zip(lines(tmp_path)[1:], lines(tmp_path / "saved")[1:], strict=True):
        assert one["teacher/loss"] == pytest.approx(other["teacher/loss"], rel=1e-4)
    (tmp_path / "aliased").mkdir()
    aliased = {"pretrained": str(tmp_path / "model"), "aliases": {3: 10_000}}
    with pytest.raises(LaconicError, match="The alias 3 -> 10000 lies outside"):
        run_recipe(recipe(tmp_path / "aliased", teacher=aliased), say=lambda _: None)
    (tmp_path / "none").mkdir()
    with pytest.raises(RecipeError, match=r"The teacher .* cannot be loaded: .* no config\.json"):
        run_recipe(recipe(tmp_path / "none", teacher={"pretrained": str(tmp_path / "none")}), say=lambda _: None)


def test_what_a_teacher_said_is_kept_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from laconic.methods.tgpo.teacher import LocalTeacher

    asked, score = [], LocalTeacher.score
    monkeypatch.setattr(
        LocalTeacher, "score", lambda self, *parts: (asked.append(len(parts[0])), score(self, *parts))[1]
    )
    for name in ("one", "again"):
        (tmp_path / name).mkdir()
        recipe(tmp_path / name)
        teacher = {"saved": str(tmp_path / name / "teacher"), "cache": str(tmp_path / "scores.sqlite")}
        run_recipe(recipe(tmp_path / name, teacher=teacher), say=lambda _: None)
    assert sum(asked) == 4 * 4, "the second run says the same and asks for nothing"


def test_a_teacher_that_reads_less_or_is_asked_otherwise_is_refused(tmp_path: Path) -> None:
    thinker("lightthinker").save_pretrained(tmp_path / "light")
    with pytest.raises(RecipeError, match="does not read all"):
        run_recipe(recipe(tmp_path, teacher=str(tmp_path / "light")), say=lambda _: None)
    thinker("vanilla", prompt="Q: {problem}\n").save_pretrained(tmp_path / "asked")
    with pytest.raises(RecipeError, match="prompt"):
        run_recipe(recipe(tmp_path, teacher=str(tmp_path / "asked")), say=lambda _: None)


def test_the_shipped_recipe_runs_every_objective_by_overrides() -> None:
    path = Path(__file__).resolve().parents[2] / "recipes" / "tgpo" / "cpu.yaml"
    for objective in ("rkl", "kdrl", "adv_match", "adv_state", "gkd"):
        load_recipe(path, [f"stages.0.objective={objective}"])
    load_recipe(path, ["stages.0.objective=grpo", "stages.0.teacher=null"])
    load_recipe(path, ["stages.0.objective=sft", "stages.0.teacher=null", "stages.0.given=4"])
    load_recipe(path, ["stages.0.objective=luffy", "stages.0.teacher=null", "stages.0.given=1"])
    load_recipe(path, ["stages.0.objective=gkd", "stages.0.tgpo.gkd_beta=0.5"])


def test_rams_reader_learns_from_its_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn. "
    items = [
        QAItem(f"{n}{q}", text + n * "It rains. ", f"Where is the {q}?", [a], [(4, 11)], str(n))
        for n in range(3)
        for q, a in (("fox", "the barn"), ("owl", "the mill"))
    ]
    monkeypatch.setattr("laconic.train.documents.load_for_training", lambda *_, **__: items)
    options = {"segment_tokens": 6, "encoder_layers": 2, "projection": 8, "encoder_rank": 2, "decoder_rank": 2}
    RAM(backbone_of("llama"), RAMConfig(**options)).save_pretrained(tmp_path / "teacher")
    stage = {key: STAGE[key] for key in (*KEYS, "name", "rows", "limit", "loop")} | {
        "data": {"some": None}, "excerpt": None, "factor": 2, "teacher": str(tmp_path / "teacher"), "reward": "answer",
    }  # fmt: skip
    made = {
        "method": "ram", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "start": None, "seed": 3,
        "output": str(tmp_path / "run"), "stages": [stage], "ram": options,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made))
    before = persist.read_tensors(tmp_path / "teacher")
    trained = persist.read_tensors(run_recipe(path, say=lambda _: None))
    moved = {name for name, t in trained.items() if not torch.equal(t.float(), before[name].bfloat16().float())}
    assert moved
    assert {name.partition(".")[0] for name in moved if "lora_B" in name} == {"decoder"}
    assert [line["step"] for line in lines(tmp_path)] == list(range(5))
    for changes, told in (({"factor": 0.5}, "factor"), ({"rows": 0}, "rows"), ({"given": 1}, "own answers")):
        path.write_text(yaml.safe_dump(made | {"stages": [stage | changes]}))
        with pytest.raises(RecipeError, match=told):
            load_recipe(path)
    thinker("vanilla").save_pretrained(tmp_path / "vanilla")
    path.write_text(yaml.safe_dump(made | {"stages": [stage | {"teacher": str(tmp_path / "vanilla")}]}))
    with pytest.raises(RecipeError, match="does not read all"):
        run_recipe(path, say=lambda _: None)


def test_comet_learns_from_its_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory's networks too, behind a teacher that reads whole documents."""
    text = "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn. "
    items = [
        QAItem(f"{n}", text + n * "It rains. ", "Where is the fox?", ["barn"], [(4, 11)], str(n)) for n in range(3)
    ]
    monkeypatch.setattr("laconic.train.documents.load_for_training", lambda *_, **__: items)
    SFT(backbone_of("llama"), SFTConfig(lora_rank=2)).save_pretrained(tmp_path / "teacher")
    options = {"chunk_tokens": 48, "stride": 4, "global_slots": 3, "fifo_slots": 5, "adapter_rank": 2, "lora_rank": 2}
    stage = {key: STAGE[key] for key in (*KEYS, "name", "rows", "limit", "loop")} | {
        "data": {"some": None}, "excerpt": None, "memory_rate": 2.0, "teacher": str(tmp_path / "teacher"),
        "reward": "answer",
    }  # fmt: skip
    made = {
        "method": "comet", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "start": None, "seed": 3,
        "output": str(tmp_path / "run"), "stages": [stage], "comet": options,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made))
    trained = persist.read_tensors(run_recipe(path, say=lambda _: None))
    own = dict(CoMeT(backbone_of("llama"), CoMeTConfig(**options)).own_parameters())
    assert any(t.any() for name, t in trained.items() if "lora_B" in name)
    assert any(t.any() for name, t in trained.items() if "global_adapter.up" in name), "it begins with zeros"
    assert trained.keys() == own.keys()
    assert [line["step"] for line in lines(tmp_path)] == list(range(5))
    task = CoMeTTrainer().task(CoMeT(backbone_of("llama"), CoMeTConfig(**options)), stage, items, 0)
    assert [rate for _, rate in task.groups] == [1.0, 2.0]
    wordy = [replace(item, answers=["a barn that is old and red and far away"]) for item in items]
    with pytest.raises(DataError, match="within the limit"):
        CoMeTTrainer().task(CoMeT(backbone_of("llama"), CoMeTConfig(**options)), stage, wordy, 0)
    absent = {key: value for key, value in stage.items() if key != "memory_rate"}
    slips = (
        (stage | {"memory_rate": 0}, "memory_rate"), (absent, "no memory_rate"),
        (stage | {"data": []}, "data must map"), (stage | {"given": 1}, "own answers"),
        (stage | {"excerpt": [9, 3]}, "excerpt"),
    )  # fmt: skip
    for slip, told in slips:
        path.write_text(yaml.safe_dump(made | {"stages": [slip]}))
        with pytest.raises(RecipeError, match=told):
            load_recipe(path)
    path.write_text(yaml.safe_dump(made | {"stages": [stage | {"limit": 60}]}))
    with pytest.raises(BudgetError, match="does not fit a chunk"):
        run_recipe(path, ["output=" + str(tmp_path / "other")], say=lambda _: None)


def test_every_batch_asks_other_problems_and_a_seed_always_the_same() -> None:
    trainer = ThinkingTrainer(KINDS["hybridthinker"][0])
    stage = STAGE | {"objective": "grpo", "teacher": None, "task": ["shuffle"], "difficulty": [3]}
    tasks = [trainer.task(thinker("hybridthinker"), stage, {}, seed) for seed in (0, 0, 1)]
    asked = [[problem.question for problem in task.problems] for task in tasks]  # type: ignore[attr-defined]
    assert len(set(asked[0])) == len(asked[0]) == STAGE["rows"] * STAGE["loop"]["steps"]
    assert asked[0] == asked[1] != asked[2]
    assert not {problem.question for problem in tasks[0].watched} & set(asked[0])  # type: ignore[attr-defined]


def test_watched_problems_are_asked_as_roll_outs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said that no tokenizer knows: of this head nine rows of ten are padding."""
    monkeypatch.setattr(thinkers, "backbone_of", lambda arch: tiny_backbone(arch, vocab_size=4000))
    model = thinker("vanilla")
    student, said = ThinkingStudent(model), list[Answer]()
    answers = student.answers

    def heard(*given: Any, **named: Any) -> list[Answer]:
        said.extend(answers(*given, **named))
        return said

    monkeypatch.setattr(student, "answers", heard)
    watched = [Problem("p", "What is the passkey?", ["It is 7."], "7", same_words)]
    log = policy._Log(student, STAGE | {"limit": 20}, watched, tmp_path / "log.jsonl", lambda _: None)
    log._ask()
    assert 0 < max(said[0].words) < len(model.backbone.tokenizer)
    assert max(answers([student.prompt(watched[0])], most=20, temperature=0.0, seed=0)[0].words) >= len(
        model.backbone.tokenizer
    )


def test_a_batch_of_roll_outs_mixes_tasks() -> None:
    trainer = ThinkingTrainer(KINDS["hybridthinker"][0])
    kinds = {"objective": "grpo", "teacher": None, "task": ["shuffle", "machine"], "difficulty": [2, 3], "rows": 8}
    task = trainer.task(thinker("hybridthinker"), STAGE | kinds, {}, 0)
    problems = task.problems  # type: ignore[attr-defined]
    assert len(problems) == 8 * STAGE["loop"]["steps"]
    for first in range(0, len(problems), 8):
        batch = problems[first : first + 8]
        assert len({"in a row" in problem.question for problem in batch}) == 2
        assert len({len(problem.steps) for problem in batch}) > 1
