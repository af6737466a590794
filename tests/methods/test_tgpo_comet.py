"""CoMeT under TGPO: scored behind the memory it answered from, and what wrote that memory is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comets
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
from laconic.methods.tgpo import comet_student
from laconic.methods.tgpo.comet_student import CoMeTStudent
from laconic.methods.tgpo.config import COMPUTED_AGAIN
from laconic.methods.tgpo.rewards import answer_reward
from laconic.methods.tgpo.student_trainer import StudentTrainer
from laconic.methods.tgpo.students import Fed, saying_words_alone
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


def test_a_question_shares_the_last_chunk_where_its_answer_fits_too() -> None:
    made, own = student()
    ids = made.backbone.token_ids(6 * TEXT)
    room = 48 - len(own.reader.prompt_ids("Where?")) - LIMIT
    for length, closed in ((room, 0), (room + 1, 1), (47, 1), (48, 1), (48 + room, 1), (49 + room, 2)):
        document = made.backbone.tokenizer.decode(ids[:length])
        plan = own._plan(own.prompt(Question("q", "Where?", [], "so", same_words, document)))
        assert len(plan.closed) == closed, length
        assert len(plan.open) + LIMIT <= 48


def test_rows_of_padding_of_a_head_are_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comets, "tiny_backbone", lambda arch: tiny_backbone(arch, vocab_size=4000))
    made, own = student()
    known, prompts = len(made.backbone.tokenizer), [own.prompt(ASKED[0])] * 4
    with saying_words_alone(own):
        said = own.answers(prompts, most=LIMIT, temperature=1.0, seed=3)
    assert max(max(answer.words) for answer in said) < known
    freely = own.answers(prompts, most=LIMIT, temperature=1.0, seed=3)
    assert max(max(answer.words) for answer in freely) >= known


@pytest.mark.parametrize("arch", ROTARY)
def test_an_answer_is_scored_with_what_it_was_said_behind(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token from a stream, or all at once through the decoder's own forward: the same distribution."""
    made, own = student(arch)
    ids = made.backbone.token_ids(6 * TEXT)
    room = 48 - len(own.reader.prompt_ids("Where?")) - LIMIT
    prompts = [
        own.prompt(Question(str(n), "Where?", [], "so", same_words, made.backbone.tokenizer.decode(ids[:n])))
        for n in (1, room, room + 1, 47, 48, 49, 48 + room, 96, 150, 96 + room + 1)
    ]
    seen: list[torch.Tensor] = []
    decode = comet_student.continue_one_by_one

    def watched(logits: torch.Tensor, advance: Any, *, choose: Any, **named: Any) -> Any:
        def chosen(scores: torch.Tensor) -> torch.Tensor:
            seen.append(scores.clone())
            return choose(scores)

        return decode(logits, advance, choose=chosen, **named)

    monkeypatch.setattr(comet_student, "continue_one_by_one", watched)
    answers = own.answers(prompts, most=LIMIT, temperature=1.0, seed=5)
    said = torch.stack(seen, 1)
    together = logits(own, own.fed(*batch(prompts, [answer.words for answer in answers])))
    for row, answer in enumerate(answers):
        count = len(answer.words)
        torch.testing.assert_close(together[row, :count], said[row, :count], atol=1e-4, rtol=1e-4)
        alone = logits(own, own.fed(*batch(prompts[row : row + 1], [answer.words])))
        torch.testing.assert_close(together[row, :count], alone[0, :count], atol=1e-4, rtol=1e-4)


def test_a_temperature_sharpens_what_is_drawn() -> None:
    _, own = student()
    prompts = [own.prompt(ASKED[0])] * 24
    drawn = [own.answers(prompts, most=1, temperature=heat, seed=0) for heat in (1e-3, 1.0, 50.0)]
    kinds = [len({tuple(answer.words) for answer in answers}) for answers in drawn]
    assert kinds[0] == 1
    assert kinds[0] < kinds[2]
    assert drawn[0] == own.answers(prompts, most=1, temperature=0.0, seed=0)
    assert drawn[1] != drawn[2]


def test_gradients_go_through_all_that_wrote_the_memory() -> None:
    """As through the method's own reading of the same chunks, however far back a chunk lies."""
    made, own = student()
    made.double()  # in float32 it depends on the machine how much is rounded
    prompts = [own.prompt(problem) for problem in ASKED]
    plans = [own._plan(prompt) for prompt in prompts]
    words = [[11, 12, 13], [14], [15, 16]]
    trained = {name: p.requires_grad_(True) for name, p in made.own_parameters().items()}
    fed = own.fed(*batch(prompts, words))
    scores = own.decoder(**fed.inputs).logits.log_softmax(-1)
    sum(
        scores[row, fed.speakers[row, place], word] for row, some in enumerate(words) for place, word in enumerate(some)
    ).backward()
    found = {name: p.grad for name, p in trained.items()}
    made.zero_grad()
    for plan, some in zip(plans, words, strict=True):
        ids = torch.tensor([*(word for chunk in plan.closed for word in chunk), *plan.open, *some])
        sizes = [*map(len, plan.closed), len(plan.open) + len(some)]
        last = list(made.chunks([ids], [sizes]))[-1][0]
        told = made.logits(last).log_softmax(-1)[len(plan.open) - 1 : -1]
        told[torch.arange(len(some)), torch.tensor(some)].sum().backward()
    for name, p in trained.items():
        gradient, wanted = found[name], p.grad
        assert gradient is not None, name
        assert wanted is not None
        assert wanted.any()
        # sums over many tokens: what is rounded is rounded beside the largest
        assert (gradient - wanted).abs().max() <= 1e-9 * wanted.abs().max(), name


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
    asked = [replace(problem, answer="so") for problem in ASKED[:2]]
    StudentTrainer(own, args, asked, reward, [(lora, 1.0), (memory, 2.0)], given=given, teacher=teacher).train()
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
    with pytest.raises(BudgetError, match="answer to long"):
        own.given(Question("long", "Why?", [], "so and " * 9, same_words, TEXT))
    with pytest.raises(BudgetError, match="An answer of 48"):
        CoMeTStudent(CoMeTReader(made), 48)
    args = quick(tmp_path, objective="grpo", **{COMPUTED_AGAIN: True})
    with pytest.raises(LaconicError, match="do not see a memory"):
        StudentTrainer(own, args, ASKED, answer_reward, [])
