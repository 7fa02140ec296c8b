"""Each stage of the miniature's supervised training updates exactly the parts that the paper names."""

from __future__ import annotations

from pathlib import Path

import pytest
from morl_mini.untrained_model import build

from morl.data.prompt_set import load_prompts
from morl.learner.packing import microbatch
from morl.learner.policy import Policy
from morl.learner.rank import prepare
from morl.learner.supervised_rank import Example, example_batch
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy
from morl.recipe.load import load_document
from morl.recipe.sft_recipe import SftRecipe, StageSpec

RECIPE = Path(__file__).parents[2] / "recipes" / "mini" / "pretrain.yaml"
EVERYTHING = ("model.language_model.", "lm_head.", "model.visual.")
TAUGHT = {
    "foundation": EVERYTHING,
    "reading": EVERYTHING,
    "warmup": ("model.visual.merger.",),
    "alignment": ("model.visual.",),
    "multimodal": EVERYTHING,
    "reasoning": EVERYTHING,
}
"""Name prefixes of the trained parameters: two stages that replace pretraining, then MiMo-VL's four."""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("stages") / "mini")


@pytest.fixture(scope="module")
def recipe() -> SftRecipe:
    return load_document(SftRecipe, RECIPE)


def first_examples(stage: StageSpec, codec: ChatCodec) -> list[Example]:
    """The first example of each dataset of a stage."""
    prompts = [load_prompts(dataset, name)[0] for name, dataset in stage.datasets.items()]
    return [Example(codec.encode(prompt, limit=False), codec.encode_answer(prompt.gold)) for prompt in prompts]


def test_the_stages_are_those_of_the_paper_in_its_order(recipe: SftRecipe) -> None:
    assert list(recipe.stages) == list(TAUGHT)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_stage_moves_what_it_should_and_nothing_else(name: str, recipe: SftRecipe, untrained: Path) -> None:
    stage = recipe.stages[name]
    model = prepare(load_policy(untrained, "float32"), recipe.learner_of(stage))
    examples = first_examples(stage, ChatCodec.load(untrained, stage.max_tokens))
    batch = example_batch(examples, stage.aggregation)
    micro = microbatch(batch, range(len(examples)))
    logprobs_N, _ = Policy(model, temperature=1.0, banned_token_ids=())(micro)
    (-(logprobs_N * micro.weights_N).sum()).backward()
    parameters = dict(model.named_parameters())
    moved = {name for name, tensor in parameters.items() if tensor.grad is not None and tensor.grad.abs().max() > 0}
    assert moved == {parameter for parameter in parameters if parameter.startswith(TAUGHT[name])}
    assert {name for name, tensor in parameters.items() if tensor.requires_grad} == moved
    if TAUGHT[name] is EVERYTHING:
        assert moved == set(parameters)
