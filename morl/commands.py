"""The commands of `morl`, one after the other: what each takes, and what it calls."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morl.errors import UsageError

if TYPE_CHECKING:
    from morl.recipe import Recipe

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

Run = Callable[[argparse.Namespace], int]
"""Does a command's work; returns its exit code."""
Takes = Callable[[argparse.ArgumentParser], None]
"""Declares arguments of a command."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `morl`."""

    name: str
    about: str
    """A line for `morl --help`."""
    takes: tuple[Takes, ...]
    """Its arguments."""
    run: Run
    usage: str | None
    """Where argparse would not find the right words."""


COMMANDS: list[Command] = []
"""In the order of `morl --help`."""


def _command(name: str, about: str, *takes: Takes, usage: str | None = None) -> Callable[[Run], Run]:
    """Makes a command of a function."""

    def declare(run: Run) -> Run:
        COMMANDS.append(Command(name, about, takes, run, usage))
        return run

    return declare


def _recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a built-in recipe")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key.path=value", help="replaces a value of the recipe"
    )


def _resume(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=Path,
        metavar="DIR",
        help="go on from the newest good checkpoint of the run (or of the run folder DIR)",
    )
    command.add_argument("--local", action="store_true", help="everything in this process, without Ray: for a debugger")


def _count(text: str) -> int:
    """A number of things that an option gives. Raises: ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return int(text)


@_command("train", "train a recipe; writes runs/<name>/", _recipe, _resume)
def _train(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    from morl.run import RunFolder
    from morl.summary import print_outcome
    from morl.train import train

    done = train(recipe, resume=options.resume, local=options.local)
    where = options.resume if isinstance(options.resume, Path) else Path(recipe.run.dir) / recipe.run.name
    print_outcome(recipe, RunFolder(where), done=done)
    if recipe.track.report:
        from morl.report import write_report

        print(f"report: {write_report(where)}")
    return DONE if done else INTERRUPTED


def _eval_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", help="folder of a checkpoint, or a run folder")
    command.add_argument("--compare", metavar="PATH", help="a second model; prints the two side by side")
    command.add_argument(
        "--responses", type=Path, metavar="FILE", help="JSON lines of response, row: score these instead"
    )
    command.add_argument(
        "--set", metavar="NAME", help="with --responses: the eval set they answer, if there are several"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="append the rows as JSON lines")
    command.add_argument("--local", action="store_true", help="everything in this process, without Ray")


@_command("eval", "score a recipe's eval sets on a model, or answers written elsewhere", _recipe, _eval_options)
def _eval(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.responses is None):
        raise UsageError("morl eval RECIPE takes --model PATH or --responses FILE")
    recipe = _recipe_to_measure(options)
    from morl.evaluate import RowFile, evaluate_models
    from morl.summary import print_comparison, print_evaluation

    if options.responses is None:
        _refuse({"--set": options.set}, "--responses FILE")
    else:
        _refuse({"--compare": options.compare, "--local": options.local}, "--model PATH")
        from morl.eval_sets import score_responses

        if options.set not in recipe.eval.sets and (options.set is not None or len(recipe.eval.sets) != 1):
            raise UsageError(f"morl eval --responses: --set names one of {', '.join(recipe.eval.sets) or 'no sets'}")
        row = score_responses(recipe, options.set or next(iter(recipe.eval.sets)), options.responses)
        RowFile(options.out, str(options.responses)).log_eval(row)
        print_evaluation([row], unit="characters")
        return DONE
    models = [options.model] + ([options.compare] if options.compare else [])
    results = evaluate_models(recipe, models, out=options.out, local=options.local)
    if options.compare:
        print_comparison(results[0], results[1], names=(options.model, options.compare))
    else:
        print_evaluation(results[0])
    return DONE


def _refuse(given: Mapping[str, object], goes_with: str) -> None:
    """Raises: UsageError for an option that is given, and that nothing would read."""
    for option, value in given.items():
        if value:
            raise UsageError(f"{option} goes with {goes_with}")


def _recipe_to_measure(options: argparse.Namespace) -> Recipe:
    """The recipe of a run, or one made around an evaluation set that stands by itself."""
    from morl.eval_sets import EvalSetRecipe, is_eval_set
    from morl.recipe import load_document, load_recipe

    if not is_eval_set(options.recipe):
        return load_recipe(options.recipe, options.overrides)
    eval_set = load_document(EvalSetRecipe, options.recipe, options.overrides)
    return eval_set.as_recipe(Path(options.recipe).stem, options.model or "none")


def _check_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rows", type=_count, metavar="N", help="look at the first N rows of each data set only")


@_command(
    "check",
    "check a recipe, its data, rewards and gold answers; loads no model",
    _recipe,
    _check_options,
)
def _check(options: argparse.Namespace) -> int:
    from morl.check import check, print_report

    return print_report(check(options.recipe, options.overrides, rows=options.rows))


def _plan_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--gpus", type=int, metavar="N", help="GPUs of a node")
    command.add_argument("--nodes", type=int, default=1, metavar="M", help="nodes (default: 1)")
    command.add_argument("--gpu-memory", type=float, default=80.0, metavar="GB", help="GiB of a GPU (default: 80)")


@_command(
    "plan",
    "batch arithmetic, placement, memory and time of a recipe; loads no weights",
    _recipe,
    _plan_options,
)
def _plan(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe

    if (options.gpus is not None and options.gpus < 1) or options.nodes < 1 or options.gpu_memory <= 0:
        raise UsageError("morl plan: --gpus, --nodes and --gpu-memory are above 0")
    recipe = load_recipe(options.recipe, options.overrides)
    from morl.plan import Machines, plan, print_plan

    machines = None if options.gpus is None else Machines(options.gpus, options.nodes, options.gpu_memory)
    return DONE if print_plan(plan(recipe, machines)) else FAILED


def _score_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("reward", nargs="?", help="name of a reward (see `morl rewards`)")
    command.add_argument("--option", action="append", default=[], metavar="K=V", help="an option of the reward")
    command.add_argument("--in", dest="source", type=Path, metavar="FILE", help="JSON lines of response, gold, meta")
    command.add_argument("--recipe", metavar="RECIPE", help="re-score saved rollouts with this recipe's rewards")
    command.add_argument("--samples", type=Path, metavar="DIR", help="runs/<name>/samples, with --recipe")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the scored rows go")
    command.add_argument("--workers", type=_count, metavar="N", help="worker processes; default: one a core")


@_command("score", "score responses in a file, or saved rollouts under another mixture", _score_options)
def _score(options: argparse.Namespace) -> int:
    from morl.score import rescore, score_file

    if options.recipe is not None:
        if options.samples is None:
            raise UsageError("morl score --recipe RECIPE needs --samples DIR: the saved rollouts to score")
        named = f"the reward '{options.reward}'"
        _refuse({named: options.reward}, "--in FILE; with --recipe, the recipe names the rewards")
        alone = {"--in": options.source, "--option": options.option, "--workers": options.workers}
        _refuse(alone, "the name of a reward, not with --recipe")
        from morl.recipe import load_recipe

        rows = rescore(load_recipe(options.recipe), options.samples, options.out)
        print(f"wrote {options.out}: {rows} rows")
        return DONE
    _refuse({"--samples": options.samples}, "--recipe RECIPE")
    if options.reward is None or options.source is None:
        raise UsageError("morl score needs a reward and --in FILE, or --recipe RECIPE and --samples DIR")
    counts = score_file(options.reward, options.option, options.source, options.out, workers=options.workers)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"wrote {options.out}: {counts.total()} rows{': ' * bool(told)}{told}")
    return DONE


def _serve_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to listen at; beyond this machine needs a token")
    command.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)")
    command.add_argument("--token-env", metavar="NAME", help="variable with the clients' token (default: MORL_TOKEN)")
    command.add_argument("--max-request-mb", type=float, default=8.0, metavar="MB", help="size of a request at most")
    command.add_argument("--max-items", type=int, default=1024, metavar="N", help="items of a request at most")
    command.add_argument("--timeout-s", type=float, default=120.0, metavar="S", help="seconds for an answer at most")
    command.add_argument("--replicas", default="1:4", metavar="MIN:MAX", help="replicas of each reward (default: 1:4)")


@_command("serve", "serve the rewards of a recipe over HTTP", _recipe, _serve_options)
def _serve(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe
    from morl.serve import Address, serve, to_replicas
    from morl.service.limits import Limits

    numbers = (options.max_request_mb, options.max_items, options.timeout_s)
    if not all(0 < number < float("inf") for number in numbers) or not 0 <= options.port < 65536:
        raise UsageError("morl serve: limits are above 0, and a port is below 65536")
    limits = Limits(int(options.max_request_mb * 2**20), options.max_items, options.timeout_s)
    replicas = to_replicas(options.replicas)
    recipe = load_recipe(options.recipe, options.overrides)
    ended_by = serve(
        recipe, Address(options.host, options.port), limits, token_env=options.token_env, replicas=replicas
    )
    return INTERRUPTED if ended_by == signal.SIGINT else DONE


def _rewards_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", metavar="NAME", help="the reward to explain")
    command.add_argument("new_name", nargs="?", metavar="new NAME", help="write a package with a reward of this name")
    command.add_argument("--out", type=Path, metavar="DIR", help="where the package goes; default: ./morl-NAME")


@_command(
    "rewards",
    "list every reward with origin and options, explain one, or begin a package with a new one",
    _rewards_options,
    usage="morl rewards [NAME]\n       morl rewards new NAME [--out DIR]",
)
def _rewards(options: argparse.Namespace) -> int:
    if options.name == "new":
        from morl.scaffold import new_reward

        if options.new_name is None:
            raise UsageError("morl rewards new NAME: which name?")
        folder = new_reward(options.new_name, options.out)
        print(f"wrote {folder}; next: pip install --no-build-isolation -e {folder}")
        return DONE
    if options.new_name is not None or options.out is not None:
        raise UsageError("morl rewards NAME explains a reward; morl rewards new NAME [--out DIR] begins one")
    from morl.describe import describe_rewards

    print(describe_rewards(options.name))
    return DONE


@_command("rm", "train a reward model from pairs of answers; writes runs/<name>/model", _recipe, _resume)
def _rm(options: argparse.Namespace) -> int:
    from morl.preferences import PreferenceRecipe
    from morl.recipe import load_document

    recipe = load_document(PreferenceRecipe, options.recipe, options.overrides)
    from morl.reward_model import train_reward_model

    return DONE if train_reward_model(recipe, resume=options.resume, local=options.local) else INTERRUPTED


@_command("sft", "supervised training in stages; writes runs/<name>/models/<stage>", _recipe, _resume)
def _sft(options: argparse.Namespace) -> int:
    from morl.recipe import load_document
    from morl.stages import SftRecipe

    recipe = load_document(SftRecipe, options.recipe, options.overrides)
    from morl.sft import train_supervised

    return DONE if train_supervised(recipe, resume=options.resume, local=options.local) else INTERRUPTED


def _report_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html")
    command.add_argument(
        "--samples", type=_count, default=4, metavar="N", help="prompts of each set to show (default: 4)"
    )


@_command("report", "one HTML file of a run: curves, before and after, answers with pictures", _report_options)
def _report(options: argparse.Namespace) -> int:
    from morl.report import write_report

    print(f"wrote {write_report(options.folder, options.out, samples=options.samples)}")
    return DONE


def _export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, or one of its checkpoints")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone, as a folder of peft's")


@_command("export", "write a run's policy as a plain Hugging Face checkpoint", _export_options)
def _export(options: argparse.Namespace) -> int:
    from morl.export import export

    export(options.folder, options.out, adapter=options.adapter)
    print(f"wrote {options.out}")
    return DONE
