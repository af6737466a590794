"""Readers of shortened documents under TGPO: scored behind what is left, their teacher behind all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone

pytest.importorskip("trl")

from policies import quick

from laconic.data.problems import Problem, Question, same_words
from laconic.errors import BudgetError, DataError
from laconic.generation.answer import Reader
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.methods.tgpo import reading_student
from laconic.methods.tgpo.reading_student import ReadingStudent
from laconic.methods.tgpo.rewards import answer_reward
from laconic.methods.tgpo.student_trainer import StudentTrainer
from laconic.methods.tgpo.students import Fed, saying_words_alone
from laconic.methods.tgpo.teacher import LocalTeacher
from laconic.methods.tgpo.vocabulary import side_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

TEXT = "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn by Anna Weiss. "
ASKED = [
    Question(f"q{n}", question, [], answer, same_words, 2 * TEXT + n * "It rains. ")
    for n, (question, answer) in enumerate([("Who bakes the bread?", "Anna Weiss"), ("Where is the fox?", "the barn")])
]


def student(**overrides: int) -> tuple[RAM, ReadingStudent]:
    backbone = tiny_backbone(**overrides)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ram = RAM(backbone, RAMConfig(segment_tokens=6, encoder_layers=2, projection=8, encoder_rank=2, decoder_rank=2))
        for name, parameter in ram.own_parameters().items():
            if "lora" in name:
                parameter.data.normal_(0, 0.3)
    return ram.eval(), ReadingStudent(Reader(backbone, ram.decoder), ram, 2.0)


def test_the_teacher_reads_the_document_and_the_student_what_is_left_of_it() -> None:
    ram, own = student()
    ids = own.prompt(ASKED[0])
    text = ram.backbone.tokenizer.decode(ids)
    assert ASKED[0].document.strip() in text
    assert text.endswith("Question: Who bakes the bread?\nAnswer:")
    answer, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long)
    fed = own.fed(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long), answer, mask)
    context = ram.compress(ASKED[0].document, ASKED[0].question, ratio=0.5).embeddings
    asked = own.reader.embed(torch.tensor(own.reader.prompt_ids(ASKED[0].question)))
    assert context is not None
    assert len(context) + len(asked) < len(ids)
    wanted = torch.cat([context.clone(), asked, own.reader.embed(answer[0])])
    torch.testing.assert_close(fed.inputs["inputs_embeds"][0], wanted)
    assert fed.speakers[0].tolist() == [len(context) + len(asked) - 1 + at for at in range(3)]


def test_a_reader_says_no_rows_of_padding_of_its_head_either() -> None:
    ram, own = student(vocab_size=4000)
    known, prompts = len(ram.backbone.tokenizer), [own.prompt(ASKED[0])] * 4
    with saying_words_alone(own):
        said = own.answers(prompts, most=8, temperature=1.0, seed=3)
    assert max(max(answer.words) for answer in said) < known
    freely = own.answers(prompts, most=8, temperature=1.0, seed=3)
    assert max(max(answer.words) for answer in freely) >= known


def test_sampled_answers_are_scored_with_what_they_were_said_behind() -> None:
    ram, own = student()
    prompts = [own.prompt(problem) for problem in (ASKED[0], ASKED[1], ASKED[0])]
    found = own.answers(prompts, most=8, temperature=1.0, seed=3)
    again = own.answers(prompts, most=8, temperature=1.0, seed=3)
    other = own.answers(prompts, most=8, temperature=1.0, seed=4)
    assert found == again != other
    # greedy decoding, one row at a time, is what the reader itself says
    greedy = own.answers(prompts[:2], most=8, temperature=0.0, seed=0)
    for problem, answer in zip(ASKED, greedy, strict=True):
        context = ram.compress(problem.document, problem.question, ratio=0.5)
        said = own.reader.answer(context, problem.question, max_new_tokens=8).text
        text = ram.backbone.tokenizer.decode(answer.words, skip_special_tokens=True)
        assert text.partition("\n")[0].strip() == said
    width = max(len(answer.words) for answer in found) + 1
    longest = max(map(len, prompts)) + 2
    ids, mask = torch.zeros(3, longest, dtype=torch.long), torch.zeros(3, longest, dtype=torch.long)
    said, real = torch.full((3, width), 7), torch.zeros(3, width, dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompts, found, strict=True)):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = torch.tensor(prompt), 1
        said[row, : len(answer.words)], real[row, : len(answer.words)] = torch.tensor(answer.words), 1
    together = states(own, own.fed(ids, mask, said, real))
    for row in range(3):
        count = int(real[row].sum())
        alone = own.fed(
            ids[row : row + 1, mask[row].bool()], torch.ones(1, len(prompts[row]), dtype=torch.long),
            said[row : row + 1, :count], torch.ones(1, count, dtype=torch.long),
        )  # fmt: skip
        torch.testing.assert_close(together[row, :count], states(own, alone)[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def states(own: ReadingStudent, fed: Fed) -> torch.Tensor:
    hidden = own.decoder.base_model(**fed.inputs).last_hidden_state
    return hidden.gather(1, fed.speakers[..., None].expand(-1, -1, hidden.shape[-1]))


@pytest.mark.parametrize(("objective", "given"), [("tgpo", 0), ("grpo", 0), ("luffy", 1), ("sft", 2)])
def test_a_reader_is_trained_and_its_compressor_is_not(objective: str, given: int, tmp_path: Path) -> None:
    ram, own = student()
    before = {name: p.detach().clone() for name, p in ram.own_parameters().items()}
    other, _ = student()
    tokenizer = ram.backbone.tokenizer
    teacher = LocalTeacher(other.decoder, tokenizer, side_of(own.decoder, tokenizer)) if objective == "tgpo" else None
    lora = [p for name, p in ram.decoder.named_parameters() if "lora_" in name]
    args = quick(tmp_path, objective=objective, teacher_weight=0.5)
    reward = answer_reward if given else lambda problem, text: float(len(text) % 3)
    StudentTrainer(own, args, ASKED, reward, [(lora, 1.0)], given=given, teacher=teacher).train()
    moved = {name for name, p in ram.own_parameters().items() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("decoder.") for name in moved)


def test_what_ends_an_answer_is_part_of_it() -> None:
    ram, own = student()
    own.reader.stop_ids = frozenset(range(len(ram.backbone.tokenizer)))
    assert [
        len(answer.words) for answer in own.answers([own.prompt(ASKED[0])] * 2, most=4, temperature=1.0, seed=0)
    ] == [1, 1]
    own.reader.stop_ids = frozenset()
    own.reader.breaks_line = lambda token: True  # type: ignore[method-assign]
    assert len(own.answers([own.prompt(ASKED[0])], most=4, temperature=0.0, seed=0)[0].words) == 1


def test_a_given_answer_is_said_as_a_reader_says_it() -> None:
    _, own = student()
    *words, end = own.given(ASKED[0]).words
    assert own.tokenizer.decode(words) == " Anna Weiss"
    assert end == own.tokenizer.eos_token_id


def test_documents_are_shortened_anew_where_they_were_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_student, "KEPT", 1)
    _, own = student()
    prompts = [own.prompt(problem) for problem in ASKED]
    _, plain = student()
    assert own.answers(prompts, most=4, temperature=0.0, seed=0) == plain.answers(
        [plain.prompt(problem) for problem in ASKED], most=4, temperature=0.0, seed=0
    )


def test_what_has_no_document_or_is_too_long_is_refused(tmp_path: Path) -> None:
    _, own = student()
    with pytest.raises(DataError, match="no document"):
        own.prompt(Problem("p", "Why?", [], "so", same_words))
    long = Question("q", "Why?", [], "so", same_words, 60 * TEXT)
    with pytest.raises(BudgetError, match="window"):
        StudentTrainer(own, quick(tmp_path, objective="grpo"), [long], answer_reward, [])
    assert ASKED[0].solved_by(" Anna Weiss.\nand more")
    assert not ASKED[0].solved_by("Nobody")
