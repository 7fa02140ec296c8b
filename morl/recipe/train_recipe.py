"""The recipe of `morl train`, and the rules between its sections."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from morl.error_messages import did_you_mean
from morl.recipe.rules import NoRewards, Rule, refuse
from morl.recipe.schema.algorithm_section import ADDS_TERMS, AlgorithmSpec
from morl.recipe.schema.document import Document
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec, ModelSpec, RolloutSpec, ScoringSpec, SyncSpec
from morl.recipe.schema.objective_section import EvalSpec, ObjectiveSpec, gold_rules
from morl.recipe.schema.run_section import RunSpec, TrackSpec
from morl.recipe.schema.section import Name, Text


class Recipe(Document):
    """A recipe of a training run."""

    run: RunSpec
    """Name, length and checkpoints."""
    model: ModelSpec
    """The policy before training."""
    objectives: Annotated[dict[Name, ObjectiveSpec], Field(min_length=1)]
    """Objectives by name."""
    algorithm: AlgorithmSpec = Field(default_factory=AlgorithmSpec)
    """The update rule."""
    rollout: RolloutSpec
    """How responses are sampled for training."""
    learner: LearnerSpec = LearnerSpec()
    """The optimiser and its processes."""
    scoring: ScoringSpec = ScoringSpec()
    """Where rewards run."""
    sync: SyncSpec = SyncSpec()
    """How new weights reach the engines."""
    eval: EvalSpec = EvalSpec()
    """Evaluation sets, and when they run."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = Field(default=[])
    """Modules or .py files to import first, so that the recipe can use what they register."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        rules = []
        if self.learner.warmup_steps > self.run.steps:
            message = f"warm-up of {self.learner.warmup_steps} steps in a run of {self.run.steps}"
            rules.append(Rule(("learner", "warmup_steps"), message, [("run", "steps")]))
        if self.sync.kind == "nccl" and self.rollout.engine == "hf":
            message = "the engine 'hf' takes weights from files only: use 'disk', or the engine 'vllm'"
            rules.append(Rule(("sync", "kind"), message, [("rollout", "engine")]))
        if self.sync.kind == "nccl" and self.sync.lora == "adapter":
            message = "an adapter is sent as files: set 'kind' to 'disk'"
            rules.append(Rule(("sync", "lora"), message, [("sync", "kind")]))
        if self.sync.lora == "adapter" and self.learner.lora is None:
            message = "there is no adapter to send: add 'learner.lora', or leave this out"
            rules.append(Rule(("sync", "lora"), message, [("learner", "lora")]))
        critic = self.algorithm.critic
        if critic is not None and critic.warmup_steps > self.run.steps:
            message = f"warm-up of {critic.warmup_steps} steps in a run of {self.run.steps}"
            rules.append(Rule(("algorithm", "critic", "warmup_steps"), message, [("run", "steps")]))
        if self.rollout.samples_per_prompt == 1 and not self.algorithm.has_critic:
            message = f"advantage '{self.algorithm.advantage.use}' compares the responses to a prompt, and 1 has none "
            message += "to be compared with: use 2 or more, or an advantage with a critic (gae)"
            rules.append(Rule(("rollout", "samples_per_prompt"), message, [("algorithm", "advantage")]))
        for name, objective in self.objectives.items():
            rules += gold_rules(objective.gold, objective.rewards, ("objectives", name))
            if objective.combine == "product" and self.algorithm.advantage.use in ADDS_TERMS:
                message = (
                    f"'product' has no effect with advantage '{self.algorithm.advantage.use}', which normalises each "
                    "term and adds them up: use 'sum', or another advantage"
                )
                rules.append(Rule(("objectives", name, "combine"), message, [("algorithm", "advantage")]))
        for name, eval_set in self.eval.sets.items():
            set_path = ("eval", "sets", name)
            if eval_set.objective is not None and eval_set.objective not in self.objectives:
                message = f"no objective is called '{eval_set.objective}'"
                message += did_you_mean(eval_set.objective, self.objectives)
                rules.append(Rule((*set_path, "objective"), message, [("objectives", eval_set.objective)]))
            elif eval_set.objective is None and name not in self.objectives:
                missing = [key for key in ("prompt", "rewards") if getattr(eval_set, key) is None]
                if missing:
                    message = f"no objective has this name: name one with 'objective', or give {' and '.join(missing)}"
                    depends = [("objectives", name), *((*set_path, key) for key in missing)]
                    rules.append(Rule(set_path, message, depends))
            base = self.objectives.get(eval_set.objective or name)
            gold = eval_set.gold if eval_set.gold is not None or base is None else base.gold
            rules += gold_rules(gold, eval_set.rewards or [], set_path)
        refuse("Recipe", rules)
        return self

    def eval_objectives(self) -> dict[str, ObjectiveSpec]:
        """Each evaluation set as an objective of share 1, with the inherited keys filled in."""
        keys = ("data", "prompt", "gold", "rewards", "combine", "pass_at")
        resolved = {}
        for name, eval_set in self.eval.sets.items():
            stated = {key: getattr(eval_set, key) for key in keys if getattr(eval_set, key) is not None}
            base = self.objectives.get(eval_set.objective or name)
            if base is None:
                resolved[name] = ObjectiveSpec(share=1.0, **{**stated, "rewards": stated["rewards"] or NoRewards})
            else:
                resolved[name] = base.model_copy(update={"share": 1.0, **stated})
        return resolved
