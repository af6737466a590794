"""RAM's training stages on a tiny backbone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone

from laconic.core import persist
from laconic.data.loaders import TRAINABLE, load_task, samples_folder
from laconic.data.training import load_for_training
from laconic.errors import AdapterError, DataError, LaconicError, RecipeError
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.train.documents import DocumentGroups, Group
from laconic.train.loop import LoopConfig
from laconic.train.ram import ReaderStage, RelevanceStage
from laconic.train.recipe import TRAINERS, load_recipe, run_recipe
from laconic.train.stages import StageTask

DOCUMENT = "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn by Anna Weiss."
GROUP = Group(
    DOCUMENT,
    ["Who bakes the bread?", "Where does the owl sleep?"],
    ["Anna Weiss", "above the mill"],
    [[(DOCUMENT.index("Anna"), len(DOCUMENT) - 1)], [(DOCUMENT.index("above"), DOCUMENT.index(". Bread"))]],
)


@pytest.fixture
def ram() -> RAM:
    torch.manual_seed(0)
    config = RAMConfig(segment_tokens=6, encoder_layers=2, projection=8, encoder_rank=2, decoder_rank=2)
    return RAM(tiny_backbone(), config)


def test_packed_questions_score_as_each_alone(ram: RAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many questions behind one memory give the loss each would have had behind a memory of its own."""
    stage = ReaderStage(ram)
    ids = torch.tensor(ram.backbone.token_ids(DOCUMENT))
    memory = ram.decoder.get_input_embeddings()(ids)
    monkeypatch.setattr(stage, "_memory", lambda group: memory)
    packed, _ = stage(GROUP)
    total, count = 0.0, 0
    for question, answer in zip(GROUP.questions, GROUP.answers, strict=True):
        prompt = ram.backbone.token_ids(QUESTION_TEMPLATE.format(question=question))
        reply = [*ram.backbone.token_ids(" " + answer), ram.backbone.tokenizer.eos_token_id]
        whole = torch.tensor([[*ids.tolist(), *prompt, *reply]])
        logits = ram.decoder(whole).logits[0, -len(reply) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction="sum").item()
        count += len(reply)
    assert packed.item() == pytest.approx(total / count, abs=1e-4)


def test_the_reader_practises_on_shared_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it will meet them at strong ratios: no more vectors than their share of the budget."""
    plans = []
    for share in (1.0, 0.05):
        config = RAMConfig(segment_tokens=6, encoder_layers=2, projection=8, skim_share=share)
        ram = RAM(tiny_backbone(), config)
        original = ram.memory
        monkeypatch.setattr(
            ram, "memory", lambda s, plan, *a, original=original: plans.append(plan) or original(s, plan, *a)
        )
        stage = ReaderStage(ram)
        for number in range(8):  # the question's wording draws whether vectors are shown at all
            stage._memory(replace(GROUP, document=DOCUMENT * 4, questions=[f"{number}?", GROUP.questions[1]]))
    half = len(plans) // 2
    assert half
    assert all(len(group) == 1 for plan in plans[:half] for group in plan.groups)
    assert all(len(plan.groups) <= 10 for plan in plans[half:])
    assert any(len(group) > 1 for plan in plans[half:] for group in plan.groups)


@pytest.mark.parametrize("stage", [RelevanceStage, ReaderStage])
def test_a_stage_learns(ram: RAM, stage: type) -> None:
    module = stage(ram)
    own = [p for p in persist.own_parameters(ram, ram.backbone).values() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=0.02)
    losses = []
    for _ in range(25):
        loss, _ = module(GROUP)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_groups_repeat_and_stay_inside_their_excerpt() -> None:
    items = load_for_training("squad_articles_train", samples_folder())
    first = DocumentGroups([replace(items[0], evidence=[(0, 3)])], 1, None, seed=3)(0)
    assert first.evidence == [[(0, 3)]], "evidence may begin where the document does"
    groups = DocumentGroups(items, 5, (400, 900), seed=3)
    again = DocumentGroups(items, 5, (400, 900), seed=3)
    seen = 0
    for index in range(12):
        group = groups(index)
        assert group == again(index)
        for answer, spans in zip(group.answers, group.evidence, strict=True):
            assert any(group.document[a:b] == answer for a, b in spans)
            seen += 1
    assert seen > 0


def test_evaluation_data_is_never_trained_on() -> None:
    assert load_task("squad_articles_dev", samples_folder())
    with pytest.raises(DataError, match="must not be trained on"):
        load_for_training("squad_articles_dev", samples_folder())


@pytest.fixture
def small_recipe(ram: RAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trains the head, starting from a saved method; on the samples, with a tiny backbone."""
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *a, **k: ram.backbone)
    monkeypatch.setenv("LACONIC_DATA", str(samples_folder()))
    ram.save_pretrained(tmp_path / "start", dtype=torch.bfloat16, provenance={"recipe": "by hand"})
    stage = {"name": "head", "data": {"squad_articles_train": 8}, "questions": 4, "excerpt": None}
    recipe = {
        "method": "ram", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "seed": 0,
        "start": str(tmp_path / "start"), "output": str(tmp_path / "run"), "ram": ram.config.to_dict(),
        "stages": [{**stage, "loop": {"steps": 3, "learning_rate": 0.01, "warmup_steps": 1}}],
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_recipe_goes_on_from_a_saved_method_and_trains_the_head_alone(ram: RAM, small_recipe: Path) -> None:
    """A term that the saved method lacks starts fresh; encoder and reader stay as they are."""
    said: list[str] = []
    before = {n: p.detach().clone() for n, p in persist.own_parameters(ram, ram.backbone).items()}
    method = run_recipe(small_recipe, ["ram.window=1"], said.append)
    assert "start: start; fresh: relevance.window_weight" in said
    description = persist.read_description(method)
    assert description["provenance"]["start"] == {"recipe": "by hand"}
    after = persist.own_parameters(RAM.from_pretrained(method, ram.backbone), ram.backbone)
    assert set(after) - set(before) == {"relevance.window_weight"}
    moved = {n for n, p in before.items() if not torch.equal(after[n].float(), p.to(torch.bfloat16).float())}
    assert moved == {"relevance.lexical_weight", "relevance.neighbour_weight", "relevance.project.weight"}
    assert after["relevance.window_weight"].item() != 1.0


def test_each_stage_trains_its_own(ram: RAM, small_recipe: Path) -> None:
    """What one stage freezes, another may train."""
    whole = json.loads(small_recipe.read_text())
    (stage,) = whole["stages"]
    whole["stages"] = [stage | {"name": name} for name in ("relevance", "reader")]
    small_recipe.write_text(json.dumps(whole))
    before = {n: p.detach().to(torch.bfloat16).float() for n, p in ram.own_parameters().items()}
    last = run_recipe(small_recipe, say=lambda line: None)
    one, both = (
        RAM.from_pretrained(folder, ram.backbone).own_parameters()
        for folder in (last.parent / "relevance" / "method", last)
    )
    first = {n.partition(".")[0] for n, p in one.items() if not torch.equal(p.float(), before[n])}
    second = {n.partition(".")[0] for n, p in both.items() if not torch.equal(p.float(), one[n].float())}
    assert first == {"relevance", "encoder"}
    assert second - {"align"} == {"decoder"}


def test_what_goes_on_is_trained_in_float32(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved in bfloat16, where the optimiser's small updates would be rounded away."""
    seen = set()

    def watch(task: StageTask, *rest: object) -> None:
        seen.update(p.dtype for trained, _ in task.parameters.values() for p in trained)

    monkeypatch.setattr("laconic.train.stages.run", watch)
    run_recipe(small_recipe, say=lambda line: None)
    assert seen == {torch.float32}


def test_a_start_of_another_shape_is_refused(small_recipe: Path) -> None:
    with pytest.raises(AdapterError, match="has the shape"):
        run_recipe(small_recipe, ["ram.projection=4"], lambda line: None)
    with pytest.raises(RecipeError, match="No adapter for"):
        run_recipe(small_recipe, ["start=shipped", "output=" + str(small_recipe.parent / "other")], lambda line: None)


def test_overrides_change_only_what_is_there() -> None:
    recipe = load_recipe("recipes/ram/cpu.yaml", ["stages.0.loop.steps=7", "output=elsewhere"])
    assert recipe["stages"][0]["loop"]["steps"] == 7
    assert recipe["output"] == "elsewhere"
    for wrong in ("stages.9.name=x", "no_such=1", "output"):
        with pytest.raises(RecipeError):
            load_recipe("recipes/ram/cpu.yaml", [wrong])
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("absent.yaml")


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*/*.yaml")), ids=str)
def test_recipes_that_ship_say_only_what_exists(path: Path) -> None:
    recipe = load_recipe(path)
    TRAINERS[recipe["method"]].options.from_dict(recipe[recipe["method"]])
    for stage in recipe["stages"]:
        LoopConfig(seed=0, **stage["loop"])
        for name in stage.get("data", []):
            assert name in TRAINABLE


def test_an_override_may_name_any_option_of_the_method() -> None:
    recipe = load_recipe("recipes/ram/cpu.yaml", ["ram.window=2"])
    assert RAMConfig.from_dict(recipe["ram"]).window == 2
    recipe = load_recipe("recipes/ram/cpu.yaml", ["stages.0.loop.log_every=1"])
    assert recipe["stages"][0]["loop"]["log_every"] == 1
    with pytest.raises(RecipeError, match="log_evry"):
        load_recipe("recipes/ram/cpu.yaml", ["stages.0.loop.log_evry=1"])
    with pytest.raises(LaconicError, match="no option 'windw'"):
        run_recipe("recipes/ram/cpu.yaml", ["ram.windw=2"])


def test_training_a_fusion_layer_leaves_the_backbone_alone(
    small_recipe: Path, ram: RAM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares the backbone's embedding and norm; they are not its own to train."""
    before = {name: p.clone() for name, p in ram.backbone.model.named_parameters()}
    method = run_recipe(
        small_recipe, ["ram.fusion_layer=true", "stages.0.name=reader", "stages.0.loop.steps=8"], lambda line: None
    )
    for name, parameter in ram.backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    again = RAM.from_pretrained(method, ram.backbone)
    assert again.config.fusion_layer
    moved = [p for n, p in persist.own_parameters(again, ram.backbone).items() if "fusion" in n]
    assert any(
        not torch.equal(p.float(), q.to(torch.bfloat16).float())
        for p, q in zip(moved, ram.backbone.layers[0].parameters(), strict=True)
    )
