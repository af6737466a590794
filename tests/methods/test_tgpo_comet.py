"""CoMeT under TGPO: scored behind the memory it answered from, and what wrote that memory is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comets import ROTARY, comet

pytest.importorskip("trl")

from policies import quick
from tiny import tiny_backbone

from laconic.data.problems import Problem, Question, same_words
from laconic.errors import BudgetError, DataError, LaconicError
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.reader import CoMeTReader, Whole
from laconic.methods.tgpo.comet_student import CoMeTStudent
from laconic.methods.tgpo.config import COMPUTED_AGAIN
from laconic.methods.tgpo.rewards import answer_reward
from laconic.methods.tgpo.student_trainer import StudentTrainer
from laconic.methods.tgpo.students import Fed
from laconic.methods.tgpo.teacher import LocalTeacher
from laconic.methods.tgpo.vocabulary import side_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

TEXT = "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn by Anna Weiss. "
ASKED = [
    Question("q0", "Who bakes the bread?", [], "Anna Weiss", same_words, 3 * TEXT),
    Question("q1", "Where is the fox?", [], "the barn", same_words, TEXT + "It rains. "),
    Question("q2", "Where?", [], "the barn", same_words, "The fox is there."),  # which fits into the last chunk
]
LIMIT = 8


def student(arch: str = "llama", **changes: Any) -> tuple[CoMeT, CoMeTStudent]:
    made = comet(arch, chunk_tokens=48, train="lora", **changes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in made.own_parameters().items():
            if "lora" in name:
                parameter.data.normal_(0, 0.3)
    return made, CoMeTStudent(CoMeTReader(made), LIMIT)


def batch(prompts: list[list[int]], answers: list[list[int]]) -> tuple[torch.Tensor, ...]:
    """As TRL pads them."""
    longest, width = max(map(len, prompts)) + 2, max(map(len, answers)) + 1
    ids, mask = torch.zeros(len(prompts), longest, dtype=torch.long), torch.zeros(len(prompts), longest).long()
    said, real = torch.full((len(prompts), width), 7), torch.zeros(len(prompts), width, dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = torch.tensor(prompt), 1
        said[row, : len(answer)], real[row, : len(answer)] = torch.tensor(answer), 1
    return ids, mask, said, real


@torch.no_grad()
def logits(own: CoMeTStudent, fed: Fed) -> torch.Tensor:
    made = own.decoder(**fed.inputs).logits
    return made.gather(1, fed.speakers[..., None].expand(-1, -1, made.shape[-1]))


@pytest.mark.parametrize("arch", ROTARY)
def test_an_answer_is_scored_with_what_it_was_said_behind(arch: str) -> None:
    """Token by token from a stream, or all at once through the decoder's own forward: the same distribution."""
    _, own = student(arch)
    prompts = [own.prompt(problem) for problem in (*ASKED, ASKED[0])]
    plans = [own._plan(prompt) for prompt in prompts]
    assert [len(plan.closed) for plan in plans][:3] == [len(prompts[0]) // 48, 2, 0], "of each kind there is one"
    greedy = own.answers(prompts, most=LIMIT, temperature=0.0, seed=0)
    together = logits(own, own.fed(*batch(prompts, [answer.words for answer in greedy])))
    for row, answer in enumerate(greedy):
        count = len(answer.words)
        assert together[row, :count].argmax(-1).tolist() == answer.words
        alone = logits(own, own.fed(*batch(prompts[row : row + 1], [answer.words])))
        torch.testing.assert_close(together[row, :count], alone[0, :count], atol=1e-4, rtol=1e-4)
    assert torch.equal(together[0], together[3])


def test_it_answers_as_its_reader_does() -> None:
    made, own = student()
    for problem in ASKED[:3:2]:  # of the other, the reader closes the last chunk later: it has no limit
        said = own.answers([own.prompt(problem)], most=LIMIT, temperature=0.0, seed=0)[0]
        context = own.reader.read(Whole(made.backbone).compress(problem.document))
        read = own.reader.answer(context, problem.question, max_new_tokens=LIMIT)
        text = made.backbone.tokenizer.decode(said.words, skip_special_tokens=True)
        assert text.partition("\n")[0].strip() == read.text
        plan = own._plan(own.prompt(problem))
        memory = made.config.global_slots + made.config.fifo_slots if plan.closed else 0
        assert said.held == memory + len(plan.open) + len(said.words)


def test_what_is_drawn_follows_from_the_seed() -> None:
    _, own = student()
    prompts = [own.prompt(problem) for problem in ASKED]
    found, again, other = (own.answers(prompts, most=LIMIT, temperature=1.0, seed=seed) for seed in (3, 3, 4))
    assert found == again != other
    own.reader.stop_ids = frozenset(range(len(own.tokenizer)))
    assert [len(one.words) for one in own.answers(prompts, most=LIMIT, temperature=1.0, seed=0)] == [1, 1, 1]


def test_a_document_is_read_once_however_often_it_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = student()
    read, rows = made.read_chunk, []

    def counted(ids: list[torch.Tensor], *more: Any, **named: Any) -> Any:
        rows.append(len(ids))
        return read(ids, *more, **named)

    monkeypatch.setattr(made, "read_chunk", counted)
    own.answers([own.prompt(ASKED[0])] * 4, most=2, temperature=1.0, seed=0)
    assert set(rows) == {1}


@pytest.mark.parametrize(("objective", "given"), [("tgpo", 0), ("grpo", 0), ("sft", 2)])
def test_what_writes_the_memory_is_trained_too(objective: str, given: int, tmp_path: Path) -> None:
    made, own = student()
    before = {name: p.detach().clone() for name, p in made.own_parameters().items()}
    tokenizer = made.backbone.tokenizer
    teacher = None
    if objective == "tgpo":
        teacher = LocalTeacher(tiny_backbone().model, tokenizer, side_of(own.decoder, tokenizer))
    lora = [p for name, p in made.decoder.named_parameters() if "lora_" in name]
    memory = [*made.memories.parameters(), made.readouts.weight, made.compression.weight]
    args = quick(tmp_path, objective=objective, teacher_weight=0.5, max_completion_length=LIMIT)
    reward = answer_reward if given else lambda problem, text: float(len(text) % 3)
    StudentTrainer(own, args, ASKED[:2], reward, [(lora, 1.0), (memory, 2.0)], given=given, teacher=teacher).train()
    moved = {name for name, p in made.own_parameters().items() if not torch.equal(p, before[name])}
    for part in ("decoder.", "readouts", "compression", "global_adapter", "queue_norm", "gate"):
        assert any(part in name for name in moved), part
    assert not hasattr(made.decoder, "soft"), "it is handed back as it was"


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    made, own = student()
    with pytest.raises(DataError, match="no document"):
        own.prompt(Problem("p", "Why?", [], "so", same_words))
    with pytest.raises(BudgetError, match="question long"):
        own.prompt(Question("long", "Why? " * 20, [], "so", same_words, TEXT))
    with pytest.raises(BudgetError, match="An answer of 48"):
        CoMeTStudent(CoMeTReader(made), 48)
    args = quick(tmp_path, objective="grpo", **{COMPUTED_AGAIN: True})
    with pytest.raises(LaconicError, match="do not see a memory"):
        StudentTrainer(own, args, ASKED, answer_reward, [])
