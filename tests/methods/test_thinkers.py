"""Methods that reason: their settings, their saved folders, and the ways to call them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from thinkers import KINDS, PROBLEMS, backbone_of, thinker
from tiny import tiny_backbone
from transformers import (
    StoppingCriteria,
    StoppingCriteriaList,
    SynthIDTextWatermarkLogitsProcessor,
    TextStreamer,
)

from laconic.errors import AdapterError, BackboneError, LaconicError, QuestionError
from laconic.generation.choosing import processors_for
from laconic.methods.hybridthinker.config import HybridThinkerConfig
from laconic.methods.lightthinker.config import LightThinkerConfig
from laconic.methods.lightthinker.model import LightThinker
from laconic.methods.memosight.config import MemoSightConfig
from laconic.methods.memosight.model import MemoSight
from laconic.methods.registry import THINKERS, load_thinker
from laconic.methods.thinking.model import Thinker, single_token
from laconic.methods.thinking.solving import settled
from laconic.methods.vanilla.model import Vanilla
from laconic.train.start import take_over

# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: LightThinkerConfig(memory_tokens=0), "memory_tokens"),
        (lambda: HybridThinkerConfig(retention=0), "retention"),
        (lambda: HybridThinkerConfig(shortcuts=-1), "shortcuts"),
        (lambda: HybridThinkerConfig(shortcut_mode="some"), "shortcut_mode"),  # type: ignore[arg-type]
        (lambda: MemoSightConfig(compression=0), "compression"),
        (lambda: MemoSightConfig(foresight=-1), "foresight"),
        (lambda: MemoSightConfig(foresight_weight=1.0), "foresight_weight"),
        (lambda: LightThinkerConfig(layout="round"), "layout"),  # type: ignore[arg-type]
        (lambda: LightThinkerConfig(prompt="no place"), "problem"),
        (lambda: LightThinkerConfig(max_step_tokens=1), "max_step_tokens"),
        (lambda: LightThinkerConfig(train="some"), "train"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Any, named: str) -> None:
    with pytest.raises(LaconicError, match=named):
        make()


def test_what_a_backbone_cannot_do_is_refused_before_any_work() -> None:
    backbone = tiny_backbone()
    with pytest.raises(LaconicError, match="no single token '<step>'"):
        LightThinker(backbone, LightThinkerConfig(step_end="<step>"))
    for slip in ({"max_step_tokens": 600}, {"memory_tokens": 600}):
        with pytest.raises(BackboneError, match="A step of"):
            LightThinker(backbone, LightThinkerConfig(**slip))
    with pytest.raises(LaconicError, match="ends a text"):
        LightThinker(backbone, LightThinkerConfig(step_end=backbone.tokenizer.eos_token))
    backbone.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(BackboneError, match="ignores custom masks"):
        LightThinker(backbone)
    other = tiny_backbone()
    other.tokenizer.chat_template = None
    with pytest.raises(LaconicError, match="chat template"):
        LightThinker(other).prompt_ids("What?")
    with pytest.raises(QuestionError, match="empty"):
        LightThinker(other).prompt_ids(" \n")


def test_the_chat_template_makes_the_prompt() -> None:
    model = thinker("vanilla", prompt="chat")
    said = model.backbone.tokenizer.decode(model.prompt_ids("How many?"))
    assert said == "<s>user\nHow many?</s>\n<s>assistant\n"


@pytest.mark.parametrize(("words", "count"), [(1, 1), (3, 1), (4, 2), (9, 3), (299, 100), (900, 300), (10_000, 300)])
def test_memory_of_a_step_is_a_token_for_every_few_words(words: int, count: int) -> None:
    config = MemoSightConfig(compression=3, max_step_tokens=2000, lora_rank=1)
    model = MemoSight(tiny_backbone(max_position_embeddings=4096), config)
    assert model.memory_count(words) == count
    assert len(model.memory) == 300


def test_no_more_memory_rows_than_a_step_can_need() -> None:
    assert len(thinker("memosight", max_step_tokens=7).memory) == 3
    assert (
        len(thinker("vanilla").memory) == len(thinker("vanilla").restart) == len(thinker("lightthinker").foresight) == 0
    )


# --- saved folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_saved_method_says_the_same(kind: str, tmp_path: Path) -> None:
    model = thinker(kind)
    model.save_pretrained(tmp_path / "saved")
    again = load_thinker(model.name, backbone_of("llama"), tmp_path / "saved")
    assert again.config == model.config
    both = [one.solve(PROBLEMS, max_new_tokens=30) for one in (model, again)]
    for mine, theirs in zip(*both, strict=True):
        assert mine.bill == theirs.bill
    own = model.own_parameters()
    assert not any("embed" in name or "head" in name for name in own)  # never a row of the vocabulary


def test_folders_of_another_method_or_backbone_are_refused(tmp_path: Path) -> None:
    thinker("lightthinker").save_pretrained(tmp_path / "light")
    with pytest.raises(AdapterError, match="lightthinker"):
        load_thinker("memosight", backbone_of("llama"), tmp_path / "light")
    with pytest.raises(AdapterError, match="made for"):
        load_thinker("lightthinker", backbone_of("qwen3"), tmp_path / "light")
    with pytest.raises(AdapterError, match=r"no trained .* start=FOLDER_OF_A_VANILLA"):
        load_thinker("lightthinker", backbone_of("llama"))
    with pytest.raises(LaconicError, match="no method 'ram' that reasons"):
        load_thinker("ram", backbone_of("llama"))


def test_every_method_that_reasons_is_registered() -> None:
    assert set(THINKERS) == {made.name for made, _ in KINDS.values()}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vanilla"])
def test_training_goes_on_from_vanilla(kind: str, tmp_path: Path) -> None:
    vanilla, model = thinker("vanilla"), thinker(kind)
    vanilla.save_pretrained(tmp_path / "vanilla")
    taken = {name: p for name, p in vanilla.own_parameters().items() if p.numel()}
    fresh = {name: p.detach().clone() for name, p in model.own_parameters().items() if name not in taken}
    take_over(model, str(tmp_path / "vanilla"), say=lambda text: None)
    for name, parameter in model.own_parameters().items():
        wanted = fresh[name] if name in fresh else taken[name]
        assert torch.equal(parameter, wanted), name
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError):
        take_over(vanilla, str(tmp_path / "other"), say=lambda text: None)


def test_memory_of_another_layout_is_not_gone_on_from(tmp_path: Path) -> None:
    thinker("lightthinker").save_pretrained(tmp_path / "light")
    for kind in ("lightthinker", "hybridthinker"):
        with pytest.raises(AdapterError, match="layout 'sequential'"):
            take_over(thinker(kind, layout="uniform"), str(tmp_path / "light"), say=lambda text: None)
    with pytest.raises(AdapterError, match="step_end"):
        take_over(thinker("hybridthinker", step_end=" "), str(tmp_path / "light"), say=lambda text: None)


def test_training_goes_on_from_another_memory_of_the_same_size(tmp_path: Path) -> None:
    light = thinker("lightthinker")
    light.save_pretrained(tmp_path / "light")
    hybrid = thinker("hybridthinker")
    take_over(hybrid, str(tmp_path / "light"), say=lambda text: None)
    for name, parameter in hybrid.own_parameters().items():
        assert torch.equal(parameter, light.own_parameters()[name]), name
    sight = thinker("memosight", compression=2, layout="sequential")
    assert len(sight.memory) != len(light.memory)
    with pytest.raises(AdapterError, match="has the shape"):
        take_over(sight, str(tmp_path / "light"), say=lambda text: None)


# --- ways to call them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_solution_is_what_was_said(kind: str) -> None:
    model = thinker(kind)
    pieces: list[tuple[int, str, Any]] = []
    found = model.solve(PROBLEMS, max_new_tokens=30, on_text=lambda *piece: pieces.append(piece))
    decode = model.backbone.tokenizer.decode
    for row, solution in enumerate(found):
        assert solution.text == decode(solution.bill.words, skip_special_tokens=True)
        assert solution.prompt_tokens == len(model.prompt_ids(PROBLEMS[row]))
        assert solution.steps == [step.strip() for step in solution.text.split("\n") if step.strip()]
        streamed = "".join(text for number, text, _ in pieces if number == row)
        assert streamed == solution.text
        assert set(solution.seconds) == {"prefill", "decode"}


def test_half_characters_of_a_wrong_encoding_are_replaced() -> None:
    model = thinker("vanilla")
    assert model.prompt_ids("caf\udce9") == model.prompt_ids("caf\ufffd")


def test_a_prompt_may_hold_braces_of_its_own() -> None:
    model = thinker("vanilla", prompt="Return it within \\boxed{}. {problem}\n")
    assert model.prompt_ids("What?") == model.backbone.token_ids("Return it within \\boxed{}. What?\n")


def test_a_tokenizer_that_begins_with_a_space_has_a_line_break_too() -> None:
    class Spaced:
        name = "spaced"

        @staticmethod
        def token_ids(text: str) -> list[int]:
            return [1, *map(ord, text)]

    assert single_token(Spaced(), "\n") == 10  # type: ignore[arg-type]
    with pytest.raises(LaconicError, match="no single token"):
        single_token(Spaced(), "ab")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["vanilla", "memosight"])
def test_steps_and_answer_are_those_of_the_text_that_was_cut(kind: str) -> None:
    model = thinker(kind)
    text = model.solve(PROBLEMS[:1], max_new_tokens=30)[0].text
    for start in range(5, len(text) - 2, 7):
        found = model.solve(PROBLEMS[:1], max_new_tokens=30, stop=[text[start : start + 2]])[0]
        assert found.steps == [step.strip() for step in found.text.split("\n") if step.strip()]
        assert found.answer == (found.steps[-1] if found.steps else "")


def test_a_stop_text_ends_a_solution() -> None:
    model = thinker("memosight")
    text = model.solve(PROBLEMS[:1], max_new_tokens=30)[0].text
    stop = text[10:13]
    found = model.solve(PROBLEMS[:1], max_new_tokens=30, stop=[stop, "never said"])[0]
    assert found.text == text[: text.find(stop)]
    assert found.bill.stopped_by == "stop"
    for slip in ([""], "ab"):
        with pytest.raises(LaconicError, match="list of texts"):
            model.solve(PROBLEMS[:1], stop=slip)


def test_what_is_streamed_is_the_text_and_no_beginning_of_what_stops_it() -> None:
    model = thinker("memosight")
    said = model.solve(PROBLEMS[:1], max_new_tokens=30)[0].text
    pieces: list[str] = []

    def note(row: int, piece: str, bill: Any) -> None:
        pieces.append(piece)

    for at in range(1, len(said) - 6, 7):
        for stop in ([said[at : at + 6]], [said[at : at + 6] + "\0never"], [said[at : at + 3], said[at - 1 : at + 6]]):
            pieces.clear()
            found = model.solve(PROBLEMS[:1], max_new_tokens=30, stop=stop, on_text=note)
            assert "".join(pieces) == found[0].text, stop


@pytest.mark.parametrize(
    ("text", "stop", "length"),
    [
        ("abc", [], 3), ("abc", ["x"], 3), ("abc", ["bc"], 1), ("abc", ["cd"], 2), ("abc", ["cd", "bcd"], 1),
        ("aab", ["aabx"], 0), ("ab ab", ["abx"], 3), ("abcabc", ["c"], 2), ("", ["a"], 0), ("abc", ["abcd"], 0),
    ],
)  # fmt: skip
def test_what_may_become_a_stop_text_waits(text: str, stop: list[str], length: int) -> None:
    assert settled(text, stop) == length


@pytest.mark.parametrize("kind", list(KINDS))
def test_generate_of_transformers_says_the_same(kind: str) -> None:
    """Batched, padded on the left, and as many rows at once as alone."""
    model = thinker(kind)
    tokenizer = model.backbone.tokenizer
    tokenizer.padding_side = "left"
    given = tokenizer([f"{problem}\n" for problem in PROBLEMS], return_tensors="pt", padding=True)
    wanted = model.solve(PROBLEMS, max_new_tokens=25)
    out = model.decoder.generate(
        input_ids=given.input_ids,
        attention_mask=given.attention_mask,
        max_new_tokens=25,
        do_sample=False,
        custom_generate=model.generating(),
    )
    width = given.input_ids.shape[1]
    assert torch.equal(out[:, :width], given.input_ids)
    for row, solution in zip(out, wanted, strict=True):
        said = solution.bill.words + ([2] if solution.bill.stopped_by == "end" else [])
        assert row[width : width + len(said)].tolist() == said
        assert set(row[width + len(said) :].tolist()) <= {0}


def test_generate_tells_the_end_that_was_said_and_spares_what_solve_spares() -> None:
    model = thinker("lightthinker")
    prompt = torch.tensor([model.prompt_ids(PROBLEMS[0])])
    words = model.solve(PROBLEMS[:1], max_new_tokens=20)[0].bill.words
    other = words[7]

    def generate(**options: Any) -> list[int]:
        settings = {"max_new_tokens": 20, "do_sample": False, "custom_generate": model.generating()} | options
        return model.decoder.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0].tolist()

    ended = generate(eos_token_id=[2, other])[prompt.shape[1] :]
    assert ended == words[: words.index(other) + 1]

    def at_last(words: Any, scores: Any) -> Any:
        """Says the model's own end at the fifth word, and another token at the ninth."""
        place = words.shape[1] - prompt.shape[1]
        return scores.index_fill(1, torch.tensor({4: 2, 8: 380}.get(place, 5)), 1e4)

    said = generate(eos_token_id=380, logits_processor=[at_last])[prompt.shape[1] :]
    assert said.index(380) == 8, "as in transformers, what is given stands in the place of the model's own"
    assert generate(logits_processor=[at_last])[prompt.shape[1] :].index(2) == 4
    penalised = model.solve(PROBLEMS[:1], max_new_tokens=20, repetition_penalty=1.8)[0].bill.words
    assert penalised != words
    assert generate(repetition_penalty=1.8)[prompt.shape[1] :][: len(penalised)] == penalised
    process = processors_for(temperature=0, top_k=0, top_p=1.0, repetition_penalty=2.0, exempt=model.unpenalised)[0]
    scores = torch.ones(1, len(model.backbone.tokenizer))
    assert process(prompt, scores)[0, [model.step_end, 2]].tolist() == [1.0, 1.0]


def test_generate_streams_stops_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    model = thinker("memosight")
    prompt = torch.tensor([model.prompt_ids(PROBLEMS[0])])
    words = model.solve(PROBLEMS[:1], max_new_tokens=20)[0].bill.words

    class After(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.tensor([input_ids.shape[1] >= prompt.shape[1] + 5])

    def generate(**options: Any) -> torch.Tensor:
        settings = {"max_new_tokens": 20, "do_sample": False, "custom_generate": model.generating()} | options
        return model.decoder.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)

    assert generate(stopping_criteria=StoppingCriteriaList([After()]))[0, prompt.shape[1] :].tolist() == words[:5]
    tokenizer = model.backbone.tokenizer
    for skip, shown in ((True, words), (False, [*prompt[0].tolist(), *words])):
        generate(custom_generate=model.generating(TextStreamer(tokenizer, skip_prompt=skip)))
        assert capsys.readouterr().out.strip() == tokenizer.decode(shown).strip()
    end = words[5]
    told: list[int] = []

    class Recorder(TextStreamer):
        def put(self, value: torch.Tensor) -> None:
            told.extend(value.flatten().tolist())

    said = generate(custom_generate=model.generating(Recorder(tokenizer)), eos_token_id=end)[0].tolist()
    assert told == said, "the end too"
    assert said[-1] == end
    for slip in (
        {"prefix_allowed_tokens_fn": lambda row, said: [5, 6]},
        {"guidance_scale": 1.5},
        {"encoder_repetition_penalty": 1.2},
        {"logits_processor": [SynthIDTextWatermarkLogitsProcessor(2, [1], 16, 0, 8, torch.device("cpu"))]},
    ):
        with pytest.raises(LaconicError, match="Leave it out"):
            generate(**slip)
    with pytest.raises(LaconicError, match="embeddings"):
        model.decoder.generate(
            inputs_embeds=model.decoder.get_input_embeddings()(prompt), custom_generate=model.generating()
        )
    torch.manual_seed(3)
    one = generate(do_sample=True, temperature=0.7)
    torch.manual_seed(3)
    assert torch.equal(one, generate(do_sample=True, temperature=0.7))
    with pytest.raises(LaconicError, match="Beams"):
        generate(num_beams=2)
    with pytest.raises(LaconicError, match="not the one that was taught"):
        model.backbone.model.generate(prompt, max_new_tokens=3, custom_generate=model.generating())
    mask = torch.ones_like(prompt)
    mask[0, -1] = 0
    with pytest.raises(LaconicError, match="padded on the right"):
        model.decoder.generate(prompt, attention_mask=mask, max_new_tokens=3, custom_generate=model.generating())


def test_settings_of_solving_that_mean_nothing_are_refused() -> None:
    model: Thinker = thinker("vanilla")
    assert isinstance(model, Vanilla)
    for slip in (
        {"temperature": math.inf},
        {"repetition_penalty": math.nan},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
    ):
        with pytest.raises(LaconicError, match="must"):
            model.solve(PROBLEMS[:1], **slip)
