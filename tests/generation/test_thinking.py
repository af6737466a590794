"""Decoding in steps: the same as the training mask, the same with guesses as without, the same in company as alone."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from thinkers import KINDS, PROBLEMS, all_scores, teacher_forced, thinker, trace_of
from tiny import ARCHITECTURES
from torch import Tensor

from laconic.core.cache import EvictingCache
from laconic.core.layout import Kind, Layout
from laconic.errors import BudgetError
from laconic.generation.choosing import Chooser, Guess, processors_for
from laconic.generation.thinking import _Loop, think
from laconic.generation.thought_rows import Thoughts
from laconic.methods.thinking.model import Thinker

SCHEMES = ("sequential", "uniform")
COMPRESSING = [kind for kind in KINDS if kind not in ("vanilla", "anchors")]


class Recorder:
    """A processor that keeps the scores that each word was chosen by, and lets no text end."""

    def __init__(self, prompt: int, end: int) -> None:
        self.prompt, self.end, self.scores = prompt, end, dict[int, Tensor]()

    def __call__(self, words: Tensor, scores: Tensor) -> Tensor:
        self.scores[words.shape[1] - self.prompt] = scores[0].clone()
        return scores.index_fill(1, torch.tensor(self.end), -torch.inf)


def plain(model: Thinker, problem: str, count: int) -> list[int]:
    """Greedy words one by one, each from a pass over everything anew under the training mask."""
    words: list[int] = []
    in_step = 0
    while len(words) < count:
        word = int(teacher_forced(model, trace_of(model, problem, words))[-1].argmax())
        if in_step >= model.longest_step - 1:
            word = model.step_end
        elif word == model.backbone.tokenizer.eos_token_id:
            break
        words.append(word)
        in_step = 0 if word == model.step_end else in_step + 1
    return words


def run(model: Thinker, problems: list[str], count: int = 40, **options: Any) -> list[Thoughts]:
    return think(model, [model.prompt_ids(problem) for problem in problems], max_new_tokens=count, **options)


def steps_of(model: Thinker, words: list[int]) -> list[int]:
    """Words of each step, the open one last if there is one."""
    return [len(step) for step in trace_of(model, PROBLEMS[0], words).steps]


# --- exactness ------------------------------------------------------------------------------------------------------


# all kinds on one architecture, those with every sort of token on all of them
CASES = [("llama", kind) for kind in KINDS]
RICHEST = ("lightthinker", "hybridthinker", "memosight, retaining")
CASES += [(arch, kind) for arch in ARCHITECTURES[1:] for kind in RICHEST]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_decoding_with_eviction_is_the_training_mask(arch: str, kind: str, scheme: str) -> None:
    """Scores within 1e-4 over six steps and more, with guesses under way where the method has them."""
    model = thinker(kind, arch, layout=scheme)
    prompt = model.prompt_ids(PROBLEMS[0])
    end = model.backbone.tokenizer.eos_token_id
    recorder = Recorder(len(prompt), end)
    said = think(model, [prompt], max_new_tokens=40, processors=[recorder])[0]
    assert said.words.count(model.step_end) >= 6
    wanted = teacher_forced(model, trace_of(model, PROBLEMS[0], said.words))
    in_step = 0
    for place, word in enumerate(said.words):
        if in_step < model.longest_step - 1:
            assert torch.allclose(recorder.scores[place], wanted[place], atol=1e-4), place
            assert word == int(wanted[place].index_fill(0, torch.tensor(end), -torch.inf).argmax())
        in_step = 0 if word == model.step_end else in_step + 1


class Steered:
    """Ends steps at places that chance says, empty ones too, and the text at a given one, which may begin a step."""

    def __init__(self, model: Thinker, until: int) -> None:
        self.model, self.until, self.scores = model, until, dict[int, Tensor]()
        self.prompt = len(model.prompt_ids(PROBLEMS[0]))

    def __call__(self, words: Tensor, scores: Tensor) -> Tensor:
        place = words.shape[1] - self.prompt
        self.scores.setdefault(place, scores[0].clone())
        changed = scores.clone()
        changed[0, self.model.backbone.tokenizer.eos_token_id] = 1e4 if place >= self.until else -1e4
        if random.Random(7 * place + self.until).random() < 0.5:
            changed[0, self.model.step_end] = 1e3
        return changed


@pytest.mark.parametrize("until", [14, 15, 16])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", list(KINDS))
def test_empty_steps_and_an_end_right_behind_a_step_are_those_of_training(kind: str, scheme: str, until: int) -> None:
    """HybridThinker's invariant 11."""
    model = thinker(kind, layout=scheme)
    steered, prompt = Steered(model, until), [model.prompt_ids(PROBLEMS[0])]
    said = think(model, prompt, max_new_tokens=60, processors=[steered])[0]
    assert said.stopped_by == "end"
    assert 1 in steps_of(model, said.words), "an empty step is its end alone"
    if model.guesses:  # processors hear guesses too, so that the words are compared with those of none
        without = like(model, thinker(kind, layout=scheme, foresight=0))
        alone = think(without, prompt, max_new_tokens=60, processors=[Steered(without, until)])[0]
        assert (alone.words, alone.live, alone.end) == (said.words, said.live, said.end)
        return
    wanted = teacher_forced(model, trace_of(model, PROBLEMS[0], said.words))
    for place in range(len(said.words) + 1):
        assert torch.allclose(steered.scores[place], wanted[place], atol=1e-4), place


def like(model: Thinker, other: Thinker) -> Thinker:
    """The other with this one's weights."""
    for name, parameter in other.own_parameters().items():
        parameter.data.copy_(model.own_parameters()[name].data)
    return other


def noting(feed: Any, fed: list[int]) -> Any:
    def noted(loop: Any, layouts: Any, ids: Any, scored: int) -> Tensor:
        fed.append(max(map(len, layouts)))
        return feed(loop, layouts, ids, scored)

    return noted


def test_a_prompt_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in one: rows that begin in different pieces, and rows that fill none of the first."""
    for kind in ("memosight, retaining", "lightthinker"):
        model = thinker(kind)
        problems = [PROBLEMS[0] * 5, PROBLEMS[1], PROBLEMS[2] * 2]
        wanted = run(model, problems, 20)
        fed: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr("laconic.generation.thinking.PREFILL_CHUNK", 16)
            patch.setattr(_Loop, "_feed", noting(_Loop._feed, fed))
            assert run(model, problems, 20) == wanted
        assert 1 < max(fed) <= 16


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_company_changes_nothing(arch: str, kind: str, scheme: str) -> None:
    """Prompts of different lengths, steps that end at different times, rows that finish early."""
    model = thinker(kind, arch, layout=scheme)
    together = run(model, PROBLEMS)
    for problem, found in zip(PROBLEMS, together, strict=True):
        assert run(model, [problem])[0] == found
    stops = {0: 7, 1: 40, 2: 19}  # rows leave the batch at different times
    early = run(model, PROBLEMS, stops=lambda row, words: len(words) >= stops[row])
    for row, (few, all_of_them) in enumerate(zip(early, together, strict=True)):
        assert few.words == all_of_them.words[: stops[row]]
        assert few.live == all_of_them.live[: stops[row]]


@pytest.mark.parametrize("kind", list(KINDS))
def test_company_changes_no_drawn_word(kind: str) -> None:
    model = thinker(kind)
    options: dict[str, Any] = {"sample": True, "processors": settings(temperature=0.8)}
    together = run(model, PROBLEMS[:1] * 2 + PROBLEMS[2:], seed=5, **options)
    assert together[0].words != together[1].words  # each row draws for itself
    alone = run(model, PROBLEMS[:1], seed=5, **options)[0]
    assert alone == together[0]
    other = run(model, PROBLEMS[:1] * 3, seed=6, **options)
    drawn = {tuple(one.words) for one in [*other, *run(model, PROBLEMS[:1] * 3, seed=5, **options)]}
    assert len(drawn) == 6, "another seed is another for every row"


def settings(**changes: Any) -> list[Any]:
    return processors_for(
        **({"temperature": 0.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "exempt": []} | changes)
    )


# --- guesses --------------------------------------------------------------------------------------------------------


class Source:
    """Where guesses come from in place of the foresight tokens'."""

    def __init__(self, how: str, words: list[int], prompt: int) -> None:
        self.how, self.words, self.prompt, self.draw = how, words, prompt, random.Random(0)

    def guess(self, chooser: Chooser, row: int, at: tuple[int, int], ahead: int) -> Guess:
        said = len(chooser.said[row]) - self.prompt
        place = said + ahead
        right = self.words[place] if place < len(self.words) else 7
        if self.how == "right" or (self.how == "often" and self.draw.random() < 0.6):
            return Guess(right, None)
        if self.how == "wrong":
            return Guess((right + 1) % 100, None)
        return Guess(self.draw.randrange(100), None)


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize(
    ("how", "penalty"), [("right", 1.0), ("wrong", 1.0), ("random", 1.0), ("often", 1.3), ("own", 1.0), ("own", 1.3)]
)
@pytest.mark.parametrize("kind", ["memosight", "memosight, retaining"])
def test_guesses_change_no_word(
    kind: str, how: str, penalty: float, two_passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = thinker(kind)
    without = like(model, thinker(kind, foresight=0))
    chosen = settings(repetition_penalty=penalty, exempt=[model.step_end])
    for count in (29, 30):  # the budget ends at several places of a round
        wanted = run(without, PROBLEMS[:1], count, processors=chosen)[0]
        assert wanted.words.count(model.step_end) >= 3
        with monkeypatch.context() as patch:
            if how != "own":
                source = Source(how, wanted.words, len(model.prompt_ids(PROBLEMS[0])))
                order = iter(range(10**6))

                def guess(
                    self: Chooser, row: int, at: tuple[int, int], source: Any = source, order: Any = order
                ) -> Guess:
                    return source.guess(self, row, at, next(order) % 2)

                patch.setattr(Chooser, "guess", guess)
            found = run(model, PROBLEMS[:1], count, processors=chosen, two_passes=two_passes)[0]
        assert found.words == wanted.words
        assert found.live == wanted.live
        assert found.peak_tokens <= wanted.peak_tokens <= found.peak_fed
        assert len(found.words) == count
        # invariant 10: a pass adds a word and the guesses that stood; the last one may end at a guess
        assert found.forwards + sum(found.accepted) - (count - 1) in (0, 1)
        assert all(stood <= made for stood, made in zip(found.accepted, found.offered, strict=True))
        if how == "right":
            assert found.tokens_per_forward > (1.2 if two_passes else 1.8)
            lost = sum(found.offered) - sum(found.accepted)
            assert lost <= found.words.count(model.step_end) + 1  # ends of steps are fed anew
        if how == "wrong":
            assert sum(found.accepted) == 0


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["memosight", "memosight, retaining"])
def test_rows_accept_as_many_guesses_as_they_like(
    kind: str, arch: str, scheme: str, two_passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MemoSight's invariant 12: guesses that stand seldom, often, nearly always side by side; rows that stop early."""
    options = {"layout": scheme, "max_step_tokens": 9}
    model = thinker(kind, arch, foresight=3, **options)
    without = like(model, thinker(kind, arch, foresight=0, **options))
    lengths = [len(model.prompt_ids(problem)) for problem in PROBLEMS]
    wanted = run(without, PROBLEMS, 30)
    draw, asked, chances = random.Random(1), Counter[tuple[int, int]](), (0.3, 0.7, 0.95)

    def guess(self: Chooser, row: int, at: tuple[int, int]) -> Guess:
        said = len(self.said[row])
        place = said - lengths[row] + asked[row, said]
        asked[row, said] += 1
        right = wanted[row].words[place] if place < len(wanted[row].words) else 7
        return Guess(right if draw.random() < chances[row] else (right + 1) % 100, None)

    monkeypatch.setattr(Chooser, "guess", guess)
    found = run(model, PROBLEMS, 30, two_passes=two_passes)
    asked.clear()
    stops = (30, 17, 23)
    early = run(model, PROBLEMS, 30, two_passes=two_passes, stops=lambda row, words: len(words) >= stops[row])
    for one, few, other, stop in zip(found, early, wanted, stops, strict=True):
        assert (one.words, one.live, one.stopped_by, one.end) == (other.words, other.live, other.stopped_by, other.end)
        assert few.words == other.words[:stop]
        assert few.live == other.live[:stop]
        assert sum(one.accepted) > 0
    if len({len(one.words) for one in found}) == 1:  # a text may end by itself
        passes = [one.forwards for one in found]
        assert passes[0] > passes[1] > passes[2], "more guesses that stand, fewer passes"


@pytest.mark.parametrize("kind", list(KINDS))
def test_greedy_words_are_those_of_a_pass_over_everything(kind: str) -> None:
    model = thinker(kind)
    assert run(model, PROBLEMS[:1], 25)[0].words == plain(model, PROBLEMS[0], 25)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["memosight", "memosight, retaining"])
def test_a_guess_of_the_decoder_is_that_of_training(kind: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores: foresight token i behind a word is the one that stands before the next word with offset i."""
    model = thinker(kind, layout=scheme)
    prompt = len(model.prompt_ids(PROBLEMS[0]))
    made: list[tuple[int, Tensor]] = []
    guess = Chooser.guess

    def noted(self: Chooser, row: int, at: tuple[int, int]) -> Guess:
        made.append((len(self.said[row]) - prompt - 1, self._scores[at].clone()))
        return guess(self, row, at)

    monkeypatch.setattr(Chooser, "guess", noted)
    words = run(model, PROBLEMS[:1], 30)[0].words
    behind_memory = 0
    for number, (pending, scores) in enumerate(made):
        ahead = number % model.guesses + 1
        # words that the guess stands before matter to nobody; with enough of them it is not at its step's end
        trace = trace_of(model, PROBLEMS[0], [*words[:pending], *[7] * (ahead + 2)])
        layout, wanted = all_scores(model, trace, offset=ahead)
        place = int((layout.kind == Kind.FORESIGHT).nonzero()[pending])
        assert torch.allclose(scores, wanted[place], atol=1e-4), (pending, ahead)
        behind_memory += words[pending - 1] == model.step_end
    assert len(made) > 30
    assert behind_memory > 4


def test_drawn_words_follow_the_same_distribution_with_guesses() -> None:
    """Speculative sampling on a vocabulary of five, against the distribution itself."""
    wanted = torch.tensor([0.5, 0.2, 0.2, 0.1, 0.0])
    proposed = torch.tensor([0.1, 0.1, 0.3, 0.0, 0.5])
    draws = 20_000
    chooser = Chooser([[0]], [], sample=True, never_guessed=[], seed=3)
    chooser.look(wanted.log()[None, None])
    draw = torch.Generator().manual_seed(1)
    guesses = torch.multinomial(proposed, draws, replacement=True, generator=draw).tolist()
    found = torch.zeros(5)
    for word in guesses:
        found[chooser.word(0, (0, 0), Guess(word, proposed))] += 1
    assert torch.allclose(found / draws, wanted, atol=0.015)
    certain = torch.zeros(5)
    for _ in range(draws):
        certain[chooser.word(0, (0, 0), Guess(1, None))] += 1
    assert torch.allclose(certain / draws, wanted, atol=0.015)


def test_a_guess_is_never_a_word_that_ends_something() -> None:
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0])
    for sample in (False, True):
        chooser = Chooser([[9]], [], sample=sample, never_guessed=[0, 1])
        chooser.look(scores[None, None])
        guesses = [chooser.guess(0, (0, 0)) for _ in range(50)]
        assert {guess.word for guess in guesses} <= {2, 3}
        if sample:
            assert guesses[0].drawn_from is not None
            assert torch.allclose(
                guesses[0].drawn_from,
                torch.tensor([0, 0, 3.0, 2.0])
                .masked_fill(torch.tensor([True, True, False, False]), -torch.inf)
                .softmax(-1),
            )


# --- the cache ------------------------------------------------------------------------------------------------------


class Watched(EvictingCache):
    """Notes what it holds whenever it has forgotten something, and the most it ever held."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.contents: list[list[tuple[int, int, int]]] = []

    def keep(self, kept: Tensor) -> None:
        super().keep(kept)
        layout = self.layout
        assert layout is not None
        real = layout.real[0]
        fields = (layout.kind[0][real], layout.step[0][real], layout.position[0][real])
        self.contents.append(list(zip(*(field.tolist() for field in fields), strict=True)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", COMPRESSING)
def test_the_cache_holds_prompt_memory_and_the_last_steps(kind: str, scheme: str) -> None:
    model = thinker(kind, layout=scheme)
    prompt = model.prompt_ids(PROBLEMS[0])
    cache = Watched(model.decoder)
    said = think(model, [prompt], max_new_tokens=40, cache=cache)[0]
    lengths = steps_of(model, said.words)
    if said.words[-1] == model.step_end:
        lengths = lengths[:-1]  # the last end was said, not fed
    laid = [("P", 0, place) for place in range(len(prompt))]
    start, at_step = len(prompt), 0
    expected = {}
    words: list[list[tuple[str, int, int]]] = []
    for number, size in enumerate(lengths, 1):
        closing, after = model.shape.closing(number, start, size)
        words.append([("T", number, start + place) for place in range(size)])
        laid += [
            ("M" if k == Kind.MEMORY else "O", number, p)
            for k, p in zip(*(closing.kind.tolist(), closing.position.tolist()), strict=True)
        ]
        kept = [word for step in words[max(0, number - model.retention) :] for word in step]
        expected[number] = sorted(laid + kept, key=str)
        start, at_step = after, number
    assert at_step >= 5
    letters = {Kind.PROMPT: "P", Kind.TEXT: "T", Kind.MEMORY: "M", Kind.CONTINUE: "O"}
    for contents in cache.contents:
        assert not any(k == Kind.FORESIGHT for k, _, _ in contents)
        named = sorted(((letters[k], s, p) for k, s, p in contents), key=str)
        closed = max((s for k, s, _ in contents if k == Kind.CONTINUE), default=0)
        if closed and all(s <= closed for _, s, _ in contents):  # right behind a closing
            assert named == expected[closed]
    assert any(max(s for _, s, _ in contents) >= 5 for contents in cache.contents)


@pytest.mark.parametrize("kind", COMPRESSING)
def test_the_peak_is_the_closed_formula(kind: str) -> None:
    model = thinker(kind)
    for problem in PROBLEMS:
        said = run(model, [problem], 45)[0]
        sizes = steps_of(model, said.words)
        finished = [
            size
            for size, step in zip(sizes, trace_of(model, problem, said.words).steps, strict=True)
            if step[-1] == model.step_end
        ]
        if said.words[-1] == model.step_end:
            finished = finished[:-1]
        prompt, keep = len(model.prompt_ids(problem)), model.retention
        count = model.shape.memory
        peaks = []
        for t in range(1, len(finished) + 1):
            before = sum(count(n) + 1 for n in finished[: t - 1])
            peaks.append(prompt + before + sum(finished[max(0, t - 1 - keep) : t]) + count(finished[t - 1]) + 1)
        assert said.peak_tokens == max(peaks)
        assert said.peak_fed <= said.peak_tokens + (model.guesses + 1) ** 2
        # the area under the curve, word by word
        live, held, recent = [], prompt, list[int]()
        for size in sizes:
            live += [held + sum(recent) + place + 1 for place in range(size)]
            held += count(size) + 1
            recent = [*recent, size][len([*recent, size]) - keep :] if keep else []
        assert said.live == live
        assert said.dependency == sum(live)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_the_peak_are_those_of_the_tensors(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of keys and values of all layers, behind every pass and before what it finished is evicted."""
    model, held = thinker(kind), list[int]()
    update = EvictingCache.update

    def watched(self: EvictingCache, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        found = update(self, *args, **kwargs)
        if args[2] == len(model.decoder.model.layers) - 1:
            held.append(self.nbytes)
        return found

    monkeypatch.setattr(EvictingCache, "update", watched)
    said = run(model, PROBLEMS[:1], 45)[0]
    assert len(held) == said.forwards + 1  # the prompt's
    assert said.peak_bytes == max(held)
    assert max(held) > min(held)


def test_vanilla_reads_all_it_has_said() -> None:
    model = thinker("vanilla")
    said = run(model, PROBLEMS[:1], 30)[0]
    prompt, words = len(model.prompt_ids(PROBLEMS[0])), len(said.words)
    assert said.peak_tokens == prompt + words - 1
    assert said.dependency == prompt * words + words * (words + 1) // 2
    assert said.forwards == words - 1


@pytest.mark.parametrize(
    ("kind", "retention"), [("lightthinker", 0), ("hybridthinker", 2), ("memosight, retaining", 2)]
)
def test_hidden_words_leave_no_trace_but_in_memory(kind: str, retention: int) -> None:
    """Words that the specification hides can be anything in the cache; those it still shows cannot."""
    model = thinker(kind)
    prompt = model.prompt_ids(PROBLEMS[0])

    def words(younger: int | None) -> list[int]:
        """With all words spoilt, whenever a step has closed, of steps before the last ``retention - younger``."""
        cache = Watched(model.decoder)
        keep = cache.keep

        def spoiling(kept: Tensor) -> None:
            layout = cache.layout
            assert layout is not None
            if younger is not None:
                closed = closed_step(layout)
                spoilt = ((layout.kind == Kind.TEXT) & (layout.step <= closed - retention + younger))[0]
                spoilt &= layout.step[0] <= closed
                for layer in cache.layers:
                    layer.keys[:, :, spoilt] = 9.0
                    layer.values[:, :, spoilt] = 9.0
            keep(kept)

        cache.keep = spoiling  # type: ignore[method-assign]
        return think(model, [prompt], max_new_tokens=40, cache=cache)[0].words

    plain_words = words(None)
    assert words(0) == plain_words
    if retention:
        assert words(1) != plain_words


def closed_step(layout: Layout) -> int:
    """The last step that memory and a restart token stand behind."""
    steps = layout.step[layout.kind == Kind.CONTINUE]
    return int(steps.max()) if len(steps) else 0


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("count", range(1, 12))
def test_no_more_words_than_asked_for(kind: str, count: int) -> None:
    said = run(thinker(kind), PROBLEMS[:1], count)[0]
    assert len(said.words) == len(said.live) == count
    assert said.stopped_by == "length"


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_end_stops_at_any_place(kind: str) -> None:
    """Whichever word is taken for the end, the words before it stand: behind a prompt, a word, a guess, a memory."""
    model = thinker(kind)
    words = run(model, PROBLEMS[:1], 30)[0].words
    for word in set(words) - {model.step_end}:
        said = run(model, PROBLEMS[:1], 30, ends=frozenset({word}))[0]
        assert said.words == words[: words.index(word)]
        assert said.stopped_by == "end"
        assert len(said.live) == len(said.words)


def test_a_step_that_does_not_end_is_ended() -> None:
    model = thinker("lightthinker", max_step_tokens=4)
    words = run(model, PROBLEMS[:1], 23)[0].words
    assert max(steps_of(model, words)) == 4


def test_the_window_ends_what_would_outgrow_it() -> None:
    for kind in ("vanilla", "memosight"):
        model = thinker(kind, "qwen2")
        endless = Recorder(0, model.backbone.tokenizer.eos_token_id)
        said = run(model, PROBLEMS[:1], 2000, processors=[endless])[0]
        assert said.stopped_by == "window"
        assert 300 < len(said.words) < 520
    with pytest.raises(BudgetError, match="fills the window"):
        think(model, [[5] * 512], max_new_tokens=1)
    with pytest.raises(BudgetError, match="empty"):
        think(model, [[]], max_new_tokens=1)
    with pytest.raises(BudgetError, match="0 new tokens"):
        think(model, [[5]], max_new_tokens=0)
    assert think(model, [], max_new_tokens=1) == []


@pytest.mark.parametrize("room", [1, 2, 3, 10, 24])
def test_guesses_change_no_word_at_the_windows_edge(room: int) -> None:
    plain_model, model = thinker("memosight", foresight=0), thinker("memosight")
    same = dict(model.own_parameters())
    for name, parameter in plain_model.own_parameters().items():
        if parameter.numel():
            parameter.data = same[name].data
    prompt = (model.prompt_ids(PROBLEMS[0]) * 99)[: model.backbone.window - room]
    endless = Recorder(0, model.backbone.tokenizer.eos_token_id)
    wanted = think(plain_model, [prompt], max_new_tokens=99, processors=[endless])[0]
    assert wanted.stopped_by == "window"
    for two_passes in (False, True):
        found = think(model, [prompt], max_new_tokens=99, processors=[endless], two_passes=two_passes)[0]
        assert (found.words, found.stopped_by) == (wanted.words, "window")


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 0.01}, {"top_p": 0.1, "repetition_penalty": 1.3}])
def test_processors_that_leave_a_single_word_stop_no_guess(cut: dict[str, Any]) -> None:
    """Not even where that word is one that no guess may be."""
    model = thinker("memosight", max_step_tokens=12)
    for seed in range(6):
        run(model, PROBLEMS, 40, sample=True, processors=settings(temperature=0.8, **cut), seed=seed)
    drawn = run(model, PROBLEMS, sample=True, processors=settings(temperature=0.8, top_k=1))
    assert [one.words for one in drawn] == [one.words for one in run(model, PROBLEMS)]


def test_a_guess_where_nothing_is_left_to_guess() -> None:
    only_end = processors_for(temperature=0.5, top_k=0, top_p=1.0, repetition_penalty=1.0, exempt=[])
    only_end.append(lambda words, scores: torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([3]), 0.0))
    chooser = Chooser([[1]], only_end, sample=True, never_guessed=[3])
    chooser.look(torch.tensor([[[0.0, 2.0, 1.0, 9.0]]]))
    assert chooser.guess(0, (0, 0)) == Guess(1, None)
    assert chooser.word(0, (0, 0), Guess(1, None)) == 3


def test_a_penalty_spares_the_end_of_steps() -> None:
    scores = torch.tensor([[1.0, 2.0, -1.0, 3.0]])
    process = settings(repetition_penalty=2.0, exempt=[1])[0]
    assert process(torch.tensor([[0, 1, 2]]), scores).tolist() == [[0.5, 2.0, -2.0, 3.0]]
    assert scores.tolist() == [[1.0, 2.0, -1.0, 3.0]]


def test_a_pass_that_says_the_end_has_said_a_token() -> None:
    assert Thoughts([1, 2], end=3, forwards=2).tokens_per_forward == 1
    assert Thoughts([1, 2, 4], forwards=2).tokens_per_forward == 1
    assert Thoughts([1]).tokens_per_forward == 0
