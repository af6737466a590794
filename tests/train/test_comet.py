"""Training CoMeT: examples, labels, loss, and recipes that resume."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from comets import BOOK, comet, recipe, words, write_records
from torch import nn

from laconic.core import persist
from laconic.core.layout import IGNORE
from laconic.data.loaders import load_task, samples_folder
from laconic.data.needles import NEEDLES, Needle
from laconic.data.schema import QAItem
from laconic.errors import DataError, RecipeError
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.methods.comet.model import CoMeT
from laconic.train import stages
from laconic.train.chunk_plans import PLANS, fixed
from laconic.train.comet import ReadingStage, parameters_of
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.examples import Example, conversation, extended
from laconic.train.gates import GateLesson
from laconic.train.loop import LoopConfig
from laconic.train.reading_data import ReadingData
from laconic.train.reading_examples import (
    DocumentExamples,
    MixedExamples,
    NeedleExamples,
    ReadOnExamples,
    Shape,
    token_haystacks,
)
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.stages import StageTask
from laconic.train.targets import labels_in

pytestmark = pytest.mark.usefixtures("books")


def shape(**changes: Any) -> Shape:
    usual = {"chunk_tokens": 48, "chunks": [2, 3], "plans": ["fixed"], "questions": 3, "rows": 3, "seed": 0}
    return Shape(**(usual | changes))


# --- data -------------------------------------------------------------------------------------------------------------


def test_only_answers_are_labelled() -> None:
    """Invariant 16: answer and end of text, each at the token before it, none elsewhere."""
    made = comet(chunk_tokens=48)
    books = token_haystacks(made.backbone, [BOOK])
    draw = NeedleExamples(made.backbone, books, [NEEDLES["number"]], 1, shape())
    seen = set()
    for index in range(12):
        assert draw(index) == draw(index), "a step's batch follows from its number"
        for row in draw(index):
            assert len(row.ids) == len(row.labels) == sum(row.plan)
            assert max(row.plan) <= 48
            end = made.backbone.tokenizer.eos_token_id
            wanted = [label for label in row.labels if label != IGNORE]
            assert wanted[-1] == end
            following = [*row.ids[1:], end]
            assert all(label in (IGNORE, token) for label, token in zip(row.labels, following, strict=True))
            text = made.backbone.tokenizer.decode(row.ids)
            answers = made.backbone.tokenizer.decode(wanted).split(made.backbone.tokenizer.eos_token)[:-1]
            questions = [part.partition("\nAnswer:")[0] for part in text.split("\n\nQuestion: ")[1:]]
            assert len(answers) == len(questions) == len(set(questions))
            for question, answer in zip(questions, answers, strict=True):
                name = question.removeprefix("What is ").removesuffix("'s number?")
                assert f" {name}'s number is{answer}." in text, (
                    "a question is asked of what was read, and answered by it"
                )
            seen.add((len(questions), len(row.plan)))
    assert {count for count, _ in seen} == {1, 2, 3}
    assert len({chunks for _, chunks in seen}) > 2


def test_a_plan_is_filled_chunk_by_chunk() -> None:
    assert extended([48, 10], 38, 48) == [48, 48]
    assert extended([48, 10], 39, 48) == [48, 48, 1]
    assert extended([48], 100, 48) == [48, 48, 48, 4]
    assert extended([0], 0, 48) == [0]


def test_rows_of_a_step_are_alike_and_steps_are_not() -> None:
    """A row costs what the longest of its batch does; and every plan keeps to the chunk."""
    backbone = comet().backbone
    books = token_haystacks(backbone, [BOOK])
    draw = NeedleExamples(backbone, books, [NEEDLES["passkey"]], 0, shape(plans=list(PLANS), questions=1))
    steps = [draw(index) for index in range(40)]
    lengths = [{len(row.ids) for row in rows} for rows in steps]
    assert all(max(each) - min(each) < 8 for each in lengths), "but for what words differ by"
    assert max(map(max, lengths)) > min(map(min, lengths)) + 48
    assert all(max(row.plan) <= 48 and sum(row.plan) == len(row.ids) for rows in steps for row in rows)
    assert any(row.plan[0] < 48 and len(row.plan) > 2 for rows in steps for row in rows)


def test_a_question_begins_a_chunk_where_it_does_not_fit_and_an_answer_runs_on() -> None:
    """As the reader does: it closes the open chunk for a question, and folds it away when it is full in an answer."""
    backbone = comet().backbone
    prompt = len(backbone.token_ids(QUESTION_TEMPLATE.format(question="Who?")))
    answer = len(backbone.token_ids(" Nobody at all.")) + 1
    full = prompt + 2
    assert answer > 2
    text = words(full + 4).tolist()
    made = conversation(backbone, text, fixed(len(text), full), [("Who?", "Nobody at all.")], full)
    assert made.plan == [full, 4, *extended([0], prompt + answer - 1, full)]
    joined = conversation(backbone, text[: full - prompt], [full - prompt], [("Who?", "Nobody at all.")], full)
    assert joined.plan == [full, answer - 1]
    alone = conversation(backbone, [], [], [("Who?", "Nobody at all.")], full)
    assert alone.plan == extended([0], prompt + answer - 1, full)


def test_reading_on_labels_every_token() -> None:
    backbone = comet().backbone
    for row in ReadOnExamples(backbone, token_haystacks(backbone, [BOOK]), shape(chunk_tokens=12, chunks=[3]))(4):
        assert row.plan == [12, 12, 12]
        assert row.labels[:-1] == row.ids[1:]


def test_a_document_is_asked_what_the_part_that_is_read_answers() -> None:
    backbone = comet().backbone
    facts = [f"The room number {n} belongs to the guest {n + 100}." for n in range(60)]
    document = " ".join(facts)
    items = []
    for n, fact in enumerate(facts):
        start = document.index(fact)
        items.append(
            QAItem(f"{n}", document, f"Whose is {n}?", [f"guest {n + 100}"], [(start, start + len(fact))], "a")
        )
    whole = QAItem("sum", "Short. " * 9, "What is it about?", ["Shortness."], [], "b")
    long = QAItem("all", document, "What is it about?", ["Rooms."], [], "c")
    seen = set()
    for index in range(20):
        for row in DocumentExamples(backbone, [*items, whole, long], shape())(index):
            text = backbone.tokenizer.decode(row.ids)
            read, *asked = text.split("\n\nQuestion: ")
            assert len(asked) <= 3
            for question in asked:
                seen.add(question.startswith("What"))
                if question.startswith("What"):
                    assert read == whole.document.rstrip() or read == whole.document, "a summary is of all of it"
                else:
                    assert facts[int(question.removeprefix("Whose is ").partition("?")[0])] in read
            assert sum(row.plan) == len(row.ids) == len(row.labels)
            assert max(row.plan) <= 48
    assert seen == {True, False}
    longer = DocumentExamples(backbone, [long], shape(chunks=[6]))(0)[0]
    assert document in backbone.tokenizer.decode(longer.ids), "a part of the length drawn answers nothing"
    lonely = QAItem("none", document * 9, "What is it about?", ["Rooms."], [], "d")
    with pytest.raises(DataError, match="Train on more chunks"):
        DocumentExamples(backbone, [lonely], shape())(0)


def test_a_story_longer_than_the_text_is_told_whole() -> None:
    sentences = tuple(f" Mary went to room {n}." for n in range(60))
    story = Needle(sentences, "Where is Mary?", ("room 59",), ("story",))
    backbone = comet().backbone
    books = token_haystacks(backbone, [BOOK])
    row = NeedleExamples(backbone, books, [lambda draw: story], 0, shape(chunks=[1]))(0)[0]
    assert all(sentence in backbone.tokenizer.decode(row.ids) for sentence in sentences)
    assert max(row.plan) <= 48


def test_a_mixed_stage_has_steps_of_every_kind() -> None:
    draw = MixedExamples([(1, lambda index: ["a"]), (3, lambda index: ["b"])], "seed")  # type: ignore[list-item]
    drawn = [draw(index)[0] for index in range(400)]
    assert drawn == [draw(index)[0] for index in range(400)]
    assert 60 < drawn.count("a") < 140


# --- loss -------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_all_labels() -> None:
    """However rows and chunks lie: against one row at a time, in one call each."""
    made = comet(train="lora")
    plans = [[12, 12, 5], [7, 12], [12, 12, 12, 3]]
    batch = []
    for seed, plan in enumerate(plans):
        ids = words(sum(plan) + 1, seed).tolist()
        labels = [label if n % 3 else IGNORE for n, label in enumerate(ids[1:])]
        batch.append(Example(ids[:-1], labels, plan))
    loss, numbers = ReadingStage(made)(batch)
    total, count, right = 0.0, 0, 0
    for example in batch:
        logits = torch.cat([made.logits(out) for out, _ in made.chunks([torch.tensor(example.ids)], [example.plan])])
        labels = torch.tensor(example.labels)
        total += nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE).item()
        count += int((labels != IGNORE).sum())
        right += int(((logits.argmax(-1) == labels) & (labels != IGNORE)).sum())
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    assert numbers["token_accuracy"] == pytest.approx(right / count)


def test_scores_over_the_vocabulary_are_not_kept_for_the_backward_pass() -> None:
    """Long running text would fill the memory with them; made again, they give the same gradient."""
    made, ids = comet(train="lora"), words(37).tolist()
    kept: list[torch.Size] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss, _ = ReadingStage(made)([Example(ids[:-1], ids[1:], [12, 12, 12])])
    vocabulary = made.backbone.model.config.vocab_size
    assert not any(shape[-1:] == (vocabulary,) and len(shape) > 1 for shape in kept)
    loss.backward()
    got = made.readouts.weight.grad.clone()
    made.zero_grad()
    outputs = torch.cat([out for out, _ in made.chunks([torch.tensor(ids[:-1])], [[12, 12, 12]])])
    nn.functional.cross_entropy(made.logits(outputs), torch.tensor(ids[1:])).backward()
    assert torch.allclose(got, made.readouts.weight.grad, atol=1e-6)
    assert got.abs().max() > 1e-5


def test_exact_counts_rows_that_are_right_throughout() -> None:
    made = comet()
    ids = words(25)
    with torch.no_grad():
        logits = torch.cat([made.logits(out) for out, _ in made.chunks([ids], [[12, 13]])])
    best = logits.argmax(-1).tolist()
    wrong = [*best[:-1], (best[-1] + 1) % 128]
    right_then_wrong = [Example(ids.tolist(), [IGNORE, *labels[1:]], [12, 13]) for labels in (best, wrong, wrong)]
    _, numbers = ReadingStage(made)(right_then_wrong)
    assert numbers == {"token_accuracy": pytest.approx(70 / 72), "exact": pytest.approx(1 / 3)}


def test_running_text_is_told_apart_from_answers() -> None:
    """Its rows are never right throughout, and would hide in the log what answers know."""
    ids = words(26).tolist()
    _, numbers = ReadingStage(comet())([Example(ids[:-1], ids[1:], [12, 13])])
    assert list(numbers) == ["text_accuracy"]


def test_asides_ask_for_what_has_been_read() -> None:
    """Each for a needle that lies whole before it, behind every chunk from there on but the last of the text."""
    backbone = comet(chunk_tokens=48).backbone
    books, numbers = token_haystacks(backbone, [BOOK]), [NEEDLES["number"]]
    without, drawn = (NeedleExamples(backbone, books, numbers, 1, shape(), asides=on) for on in (False, True))
    distances = set()
    for index in range(12):
        for plain, row in zip(without(index), drawn(index), strict=True):
            assert (plain.ids, plain.labels, plain.plan) == (row.ids, row.labels, row.plan)
            assert not plain.asides
            text, *_ = backbone.tokenizer.decode(row.ids).split("\n\nQuestion: ")
            whole = len(backbone.token_ids(text))
            read, told = 0, False
            for number, size in enumerate(row.plan):
                read += size
                before = backbone.tokenizer.decode(row.ids[:read])
                if read >= whole:
                    assert number not in row.asides, "the questions at the end ask for that"
                    break
                assert (number in row.asides) or not told, "what was asked for once can be asked for again"
                if aside := row.asides.get(number):
                    told = True
                    question, answer = backbone.tokenizer.decode(aside.ids).split("\nAnswer:")
                    name = question.removeprefix("\n\nQuestion: What is ").removesuffix("'s number?")
                    assert f" {name}'s number is{answer}." in before
                    end = backbone.tokenizer.eos_token_id
                    labelled = [label for label in aside.labels if label != IGNORE]
                    assert backbone.tokenizer.decode(labelled[:-1]) == answer
                    assert labelled[-1] == end
                    assert len(aside.ids) == len(aside.labels)
                    distances.add(number)
    assert len(distances) > 1


def test_an_aside_takes_one_chunk() -> None:
    """A question that does not fit is left to the end, where it may take two."""
    backbone = comet(chunk_tokens=48).backbone
    long = Needle((" It is long.",), "Is it long? " * 20, ("Yes",), ("it",))
    makers = [lambda draw: long]
    books = token_haystacks(backbone, [BOOK])
    for index in range(4):
        drawn = NeedleExamples(backbone, books, makers, 0, shape(questions=1), asides=True)(index)
        assert not any(row.asides for row in drawn)


def test_an_aside_is_asked_of_the_memory_behind_its_chunk_and_leaves_no_trace() -> None:
    """Against the text cut short there and asked at its end, loss and gradient."""
    made = comet(train="lora")
    plan, asked = [12, 12, 12], words(9, 5).tolist()
    rows = [words(sum(plan), seed).tolist() for seed in (1, 2)]
    labels = [IGNORE] * 30 + words(6, 3).tolist()
    aside = Example(asked[:-1], [IGNORE] * 3 + asked[4:], [8])
    batch = [Example(rows[0], labels, plan, {0: aside, 1: aside}), Example(rows[1], labels, plan, {1: aside})]
    loss, numbers = ReadingStage(made)(batch)
    loss.backward()
    got = torch.cat([p.grad.flatten() for p in made.memories.parameters() if p.grad is not None])
    made.zero_grad()
    parts = [Example(row, labels, plan) for row in rows]
    for row, behind in ((0, 1), (0, 2), (1, 2)):
        read = 12 * behind
        parts.append(
            Example(rows[row][:read] + aside.ids, [IGNORE] * read + aside.labels, [12] * behind + [len(aside.ids)])
        )
    counts = [sum(label != IGNORE for label in part.labels) for part in parts]
    wanted = sum(ReadingStage(made)([part])[0] * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    wanted.backward()
    expected = torch.cat([p.grad.flatten() for p in made.memories.parameters() if p.grad is not None])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(got, expected, atol=1e-6)
    assert expected.abs().max() > 1e-4
    assert set(numbers) == {"token_accuracy", "exact", "aside_accuracy"}
    assert labels_in(batch) == sum(counts)


def test_asides_are_counted_apart() -> None:
    """In the log, what rows know at their end is not mixed with what they knew on the way."""
    made, ids, asked = comet(), words(24), words(8, 5)
    with torch.no_grad():
        *_, (behind, _) = made.chunks([torch.cat([ids[:12], asked])], [[12, 8]])
        best = made.logits(behind).argmax(-1).tolist()
        *_, (at_the_end, _) = made.chunks([ids], [[12, 12]])
        wrong = ((made.logits(at_the_end).argmax(-1) + 1) % 128).tolist()
    aside = Example(asked.tolist(), [*best[:6], *((label + 1) % 128 for label in best[6:])], [8])
    _, numbers = ReadingStage(made)([Example(ids.tolist(), [IGNORE] * 12 + wrong, [12, 12], {0: aside})])
    assert numbers == {"token_accuracy": 0, "exact": 0, "aside_accuracy": 0.75}


def test_truncated_gradients_stop_at_the_cut() -> None:
    made = comet()
    ids, plan = words(36).tolist(), [12, 12, 12]
    labels = [IGNORE] * 24 + ids[1:13]
    gradients = {}
    for truncate in (None, 1):
        made.zero_grad()
        loss, _ = ReadingStage(made, truncate=truncate)([Example(ids, labels, plan)])
        loss.backward()  # the memory networks of the last chunk are trained either way
        gradients[truncate] = made.readouts.weight.grad
        value = loss.item()
    assert gradients[None] is not None
    assert gradients[None].abs().max() > 0
    assert gradients[1] is None or not gradients[1].any(), "the last chunk alone has no readouts"
    assert value == pytest.approx(ReadingStage(made)([Example(ids, labels, plan)])[0].item())


def test_a_smaller_queue_for_a_step() -> None:
    """With no queue at all the slots alone carry the text; the draw follows from torch's seed."""
    made, ids, plan = comet(), words(36), [12, 12, 12]
    *_, (_, memory) = made.chunks([ids], [plan], capacity=2)
    assert memory.counts.held == 2
    *_, (_, none) = made.chunks([ids], [plan], capacity=0)
    assert none.counts.held == 0
    assert int(none.counts.chunks) == 2
    example = Example(ids.tolist(), [IGNORE] * 24 + ids[1:13].tolist(), plan)
    stage = ReadingStage(made, fifo_slots=[0, 5])
    losses = set()
    for seed in range(8):
        torch.manual_seed(seed)
        losses.add(round(stage([example])[0].item(), 5))
    assert losses == {round(ReadingStage(made, fifo_slots=[n])([example])[0].item(), 5) for n in (0, 5)}


@pytest.mark.parametrize("save", [True, False])
def test_a_whole_decoder_is_trained_under_autocast(save: bool) -> None:
    """The specification's own small runs: bfloat16 over float32 weights; slots and gradients stay float32."""
    made, ids, plan = comet(train="full"), words(37).tolist(), [12, 12, 12]
    batch = [Example(ids[:-1], ids[1:], plan)]
    stage = ReadingStage(made, save_activations=save)
    gradients = []
    for mixed in (False, True):
        made.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, _ = stage(batch)
            *_, (_, memory) = made.chunks([torch.tensor(ids)], [[12, 25]])
        assert memory.layers[0].slots.dtype == torch.float32
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.decoder.parameters() if p.grad is not None]))
    assert gradients[1].dtype == torch.float32
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
    assert not torch.equal(*gradients)


@pytest.mark.parametrize(("train", "has_decoder"), [("full", True), ("lora", True), ("memory", False)])
def test_what_is_trained(train: str, has_decoder: bool) -> None:
    made = comet(train=train)
    groups = parameters_of(made, 10.0)
    assert ("decoder" in groups) is has_decoder
    assert groups["memory"][1] == 10.0
    own = {id(p) for p in groups["memory"][0]}
    named = {name for name, p in made.named_parameters() if id(p) in own}
    assert {"readouts.weight", "compression.weight"} < named
    assert {name.partition(".")[0] for name in named} == {"readouts", "compression", "memories"}
    borrowed = {id(p) for p in made.backbone.model.parameters()}
    assert not any(id(p) in borrowed for parameters, _ in groups.values() for p in parameters)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_trains_saves_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = comet().backbone
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    folder = run_recipe(recipe(tmp_path), say=lambda line: None)
    assert persist.read_description(folder)["provenance"]["stages_done"] == 1
    whole = CoMeT.from_pretrained(folder, backbone)
    other = tmp_path / "cut"
    other.mkdir()
    path = recipe(other)
    calls = []

    def stop(line: str) -> None:
        calls.append(line)

    real = stages.run

    def killed(task: Any, config: Any, folder: Path, say: Any) -> None:
        batch = task.batch

        def batch_then_die(step: int, rank: int, world: int) -> Any:
            if step == 2 and not (other / "died").exists():
                (other / "died").touch()
                raise KeyboardInterrupt
            return batch(step, rank, world)

        task.batch = batch_then_die
        real(task, config, folder, say)

    monkeypatch.setattr(stages, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, say=stop)
    again = CoMeT.from_pretrained(run_recipe(path, say=stop), backbone)
    assert any("resuming at step 2" in line for line in calls)
    for (name, a), (_, b) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_finished_recipe_does_not_put_back_an_earlier_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, saved = comet().backbone, []
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    real = CoMeT.save_pretrained

    def noted(self: CoMeT, folder: Path, **options: Any) -> None:
        saved.append((folder.parent.name, options["provenance"]["stages_done"]))
        real(self, folder, **options)

    monkeypatch.setattr(CoMeT, "save_pretrained", noted)
    path = recipe(tmp_path)
    whole = yaml.safe_load(path.read_text())
    whole["stages"].append(whole["stages"][0] | {"name": "three"})
    path.write_text(yaml.safe_dump(whole))
    run_recipe(path, say=lambda line: None)
    assert saved == [("two", 1), ("three", 2), ("run", 2)], "a curriculum can be tried before its end"
    # what is done takes no step, and its books need not be encoded
    monkeypatch.delattr("laconic.train.reading_data.token_haystacks")
    run_recipe(path, say=lambda line: None)
    assert saved[3:] == saved[:3]


def test_what_a_stage_has_made_replaces_what_an_older_run_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = comet().backbone
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    path = recipe(tmp_path)
    run_recipe(path, say=lambda line: None)
    kept = tmp_path / "run" / "two" / "method"
    whole = persist.version(kept)
    assert whole == persist.version(tmp_path / "run" / "method")
    CoMeT(backbone, CoMeT.from_pretrained(kept, backbone).config).save_pretrained(kept)
    run_recipe(path, say=lambda line: None)
    assert persist.version(kept) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": ["haystack"]}, "task must be a list"),
        ({"task": [3]}, "task must be a list"),
        ({"task": ["babi-qa"]}, "task must be a list"),
        ({"chunks": [0]}, "chunks must be"),
        ({"plans": ["left"]}, "plans must be a list of fixed, right"),
        ({"plans": [["fixed"]]}, "plans must be a list of fixed, right"),
        ({"rows": True}, "rows must be"),
        ({"chunk_tokens": 0}, "chunk_tokens must be"),
        ({"fifo_slots": []}, "fifo_slots must be"),
        ({"questions": 0}, "questions must be"),
        ({"distractors": -1}, "distractors must be"),
        ({"memory_rate": 0}, "memory_rate must be"),
        ({"memory_rate": float("inf")}, "memory_rate must be"),
        ({"truncate": 0}, "truncate must be"),
        ({"save_activations": 1}, "save_activations must be"),
        ({"share_text": 1}, "share_text must be"),
        ({"asides": "yes"}, "asides must be"),
        ({"task": ["continuation"], "asides": True}, "no task has any"),
        ({"share_text": True, "asides": True}, "nothing is asked aside"),
        ({"interludes": []}, "interludes must be"),
        ({"interludes": [-1]}, "interludes must be"),
        ({"interludes": 8}, "interludes must be"),
        ({"task": ["continuation"], "interludes": [0, 8]}, "no task has any"),
        ({"share_text": True, "interludes": [0, 8]}, "has no interludes"),
        ({"share_text": True, "truncate": 2}, "all the way"),
        ({"name": "../two"}, "no plain word"),
        ({"name": "method"}, "is its folder"),
        ({"books": 3}, "books must"),
    ],
)
def test_a_slip_in_a_recipe_is_found_before_training(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe(tmp_path, **changes))


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ({"steps": True}, "steps, accumulation"),
        ({"learning_rate": True}, "learning_rate and"),
        ({"learning_rate": float("nan")}, "learning_rate and"),
        ({"weight_decay": float("inf")}, "learning_rate and"),
        ({"warmup_steps": -1}, "warmup_steps must"),
        ({"max_grad_norm": 0}, "max_grad_norm must be"),
    ],
)
def test_a_loop_that_would_train_nothing_is_refused(loop: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        LoopConfig(**({"steps": 2} | loop))


@pytest.mark.parametrize("slip", [{"chunk_tokens": 65}, {"fifo_slots": [9]}])
def test_what_does_not_fit_a_later_stage_is_found_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slip: dict[str, Any]
) -> None:
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: comet().backbone)
    path, said = recipe(tmp_path), []
    whole = yaml.safe_load(path.read_text())
    whole["stages"].append(whole["stages"][0] | {"name": "three"} | slip)
    path.write_text(yaml.safe_dump(whole))
    with pytest.raises(RecipeError, match="three"):
        run_recipe(path, say=said.append)
    assert not said


def test_a_comet_without_a_memory_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: comet().backbone)
    with pytest.raises(RecipeError, match="no memory to train"):
        run_recipe(recipe(tmp_path), [f"comet.{key}=0" for key in ("global_slots", "fifo_slots", "stride")])


def test_only_what_may_be_trained_on_is_offered(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="task must be") as raised:
        load_recipe(recipe(tmp_path, task=["haystack"]))
    assert "squad_paragraphs_train" in str(raised.value)
    assert not any(name in str(raised.value) for name in ("squad_articles_dev", "squad_paragraphs_dev", "nq_", "_test"))


def test_a_stage_is_trained_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = comet(train="lora", chunk_tokens=64, fifo_slots=8)
    data = ReadingData([BOOK], [NEEDLES["number"]], [])
    changes = {"truncate": 3, "fifo_slots": [1, 4], "save_activations": False, "asides": True, "interludes": [5]}
    stage = load_recipe(recipe(tmp_path, **changes, chunks=[3]))["stages"][0]
    task = CoMeTTrainer().task(made, stage, data, 0)
    assert isinstance(task, StageTask)
    reading = task.module
    assert isinstance(reading, ReadingStage)
    assert (reading.truncate, reading.fifo_slots, reading.save_activations) == (3, [1, 4], False)
    assert {name: rate for name, (_, rate) in task.parameters.items()} == {"decoder": 1.0, "memory": 10.0}
    rows = [row for step in range(6) for row in task.batch(step, 0, 1)]
    assert any(row.asides for row in rows)
    assert any(row.interlude is not None and row.interlude.chunks == 5 for row in rows)
    taught: list[tuple[int, int, object]] = []

    class Lesson(GateLesson):
        def __init__(self, comet: CoMeT, layers: int, batches: Iterable[list[Example]], slots: object) -> None:
            torch.nn.Module.__init__(self)
            taught.append((layers, len(list(batches)), slots))
            self.gates = torch.nn.ModuleList()

    monkeypatch.setattr("laconic.train.comet_recipe.GateLesson", Lesson)
    told = {"gates": {"layers": 2, "batches": 5}, "chunks": [2], "fifo_slots": [4], "memory_rate": 1.0}
    CoMeTTrainer().task(made, load_recipe(recipe(tmp_path, **told))["stages"][0], data, 0)
    assert taught == [(2, 5, [4])]


def test_chunks_of_a_stage_fit_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: comet().backbone)
    with pytest.raises(RecipeError, match="a full one has 64"):
        run_recipe(recipe(tmp_path, chunk_tokens=65))


@pytest.mark.parametrize(
    "changes",
    [
        {"books": "books_val"},
        {"books": "sample_book"},
        {"task": ["squad_articles_dev"]},
        {"task": ["squad_paragraphs_dev"]},
    ],
)
def test_what_is_for_evaluation_is_not_trained_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="must not be trained on"):
        run_recipe(recipe(tmp_path, **changes))


def test_all_tasks_of_a_stage_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories, documents, needles and reading on, from the samples."""
    lines = [
        {"n": 1, "fact": "John went to the hall."},
        {"n": 2, "question": "Where is John?", "answer": "hall", "support": [1]},
    ]
    data = shutil.copytree(samples_folder(), tmp_path / "data")
    write_records(data / "babi_train.jsonl.gz", {"id": "a", "task": "qa1_single", "lines": lines})
    for part in (0, 1):
        write_records(data / f"books_train_{part}.jsonl.gz", {"text": BOOK})
    monkeypatch.setenv("LACONIC_DATA", str(data))
    trainer = CoMeTTrainer()
    tasks = ["babi-qa1", "pair", "squad_articles_train", "continuation"]
    stage = load_recipe(recipe(tmp_path, task=tasks, chunks=[4], chunk_tokens=48, fifo_slots=None))["stages"][0]
    made = comet(chunk_tokens=48)
    task = trainer.task(made, stage, trainer.data(stage), 0)
    texts = [made.backbone.tokenizer.decode(row.ids) for step in range(40) for row in task.batch(step, 0, 1)]
    for sign in ("John went to the hall.", "What is the value of"):
        assert any(sign in text for text in texts), sign
    assert any("Question: " not in text for text in texts)
    questions = {item.question for item in load_task("squad_articles_train")}
    assert any(question in text for text in texts for question in questions)
