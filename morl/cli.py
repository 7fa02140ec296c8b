"""The command `morl`. Exit codes: 0 done, 1 the work failed, 2 the command or the recipe is wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morl.errors import MorlError, UsageError
from morl.files import DISK_FULL

if TYPE_CHECKING:
    from morl.recipe import Recipe

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parse(arguments)
    try:
        code: int = options.run(options)
    except UsageError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return MISUSED
    except MorlError as error:
        print(f"morl {options.command}: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    except BrokenPipeError:
        # The reader of our output went away, `| head` for one: not a failure of ours.
        sys.stderr.close()
        return DONE
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        told = f"morl {options.command}: {error}; free some space, or write to another disk, and run the command again"
        print(told, file=sys.stderr)  # noqa: T201
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; overrides may stand before, between and after options."""
    parser = _parser()
    options, rest = parser.parse_known_args(_recipe_before_resume(sys.argv[1:] if arguments is None else arguments))
    resume = getattr(options, "resume", False)
    if isinstance(resume, Path) and "=" in str(resume) and not resume.exists():
        rest.insert(0, str(resume))
        options.resume = True
    strangers = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(options, "overrides")]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _recipe_before_resume(arguments: Sequence[str]) -> list[str]:
    """`--resume x.yaml` as `x.yaml --resume`: a recipe is no run folder to resume."""
    turned = list(arguments)
    for here, (option, text) in enumerate(itertools.pairwise(arguments)):
        if option == "--resume" and text.endswith(".yaml"):
            turned[here : here + 2] = [text, option]
    return turned


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="morl", description="Reinforcement-learning post-training on many objectives at once."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    command = commands.add_parser("train", help="train a recipe; writes runs/<name>/")
    _recipe(command)
    _resume(command)
    command.set_defaults(run=_train)

    command = commands.add_parser("eval", help="score a recipe's eval sets on a model, or answers written elsewhere")
    _recipe(command)
    command.add_argument("--model", help="folder of a checkpoint, or a run folder")
    command.add_argument("--compare", metavar="PATH", help="a second model; prints the two side by side")
    command.add_argument(
        "--responses", type=Path, metavar="FILE", help="JSON lines of response, row: score these instead"
    )
    command.add_argument(
        "--set", metavar="NAME", help="with --responses: the eval set they answer, if there are several"
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="write the rows as JSON lines")
    command.add_argument("--local", action="store_true", help="everything in this process, without Ray")
    command.set_defaults(run=_eval)

    command = commands.add_parser("check", help="check a recipe, its data, rewards and gold answers; loads no model")
    _recipe(command)
    command.add_argument("--rows", type=_count, metavar="N", help="look at the first N rows of each data set only")
    command.set_defaults(run=_check)

    command = commands.add_parser(
        "plan", help="batch arithmetic, placement, memory and time of a recipe; loads no weights"
    )
    _recipe(command)
    command.add_argument("--gpus", type=int, metavar="N", help="GPUs of a node")
    command.add_argument("--nodes", type=int, default=1, metavar="M", help="nodes (default: 1)")
    command.add_argument("--gpu-memory", type=float, default=80.0, metavar="GB", help="GiB of a GPU (default: 80)")
    command.set_defaults(run=_plan)

    command = commands.add_parser("score", help="score responses in a file, or saved rollouts under another mixture")
    command.add_argument("reward", nargs="?", help="name of a reward (see `morl rewards`)")
    command.add_argument("--option", action="append", default=[], metavar="K=V", help="an option of the reward")
    command.add_argument("--in", dest="source", type=Path, metavar="FILE", help="JSON lines of response, gold, meta")
    command.add_argument("--recipe", metavar="RECIPE", help="re-score saved rollouts with this recipe's rewards")
    command.add_argument("--samples", type=Path, metavar="DIR", help="runs/<name>/samples, with --recipe")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the scored rows go")
    command.add_argument("--workers", type=_count, metavar="N", help="worker processes; default: one a core")
    command.set_defaults(run=_score)

    command = commands.add_parser("serve", help="serve the rewards of a recipe over HTTP")
    _recipe(command)
    command.add_argument("--host", default="127.0.0.1", help="address to listen at; beyond this machine needs a token")
    command.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)")
    command.add_argument("--token-env", metavar="NAME", help="variable with the clients' token (default: MORL_TOKEN)")
    command.add_argument("--max-request-mb", type=float, default=8.0, metavar="MB", help="size of a request at most")
    command.add_argument("--max-items", type=int, default=1024, metavar="N", help="items of a request at most")
    command.add_argument("--timeout-s", type=float, default=120.0, metavar="S", help="seconds for an answer at most")
    command.add_argument("--replicas", default="1:4", metavar="MIN:MAX", help="replicas of each reward (default: 1:4)")
    command.set_defaults(run=_serve)

    command = commands.add_parser(
        "rewards",
        help="list every reward with origin and options, explain one, or begin a package with a new one",
        usage="morl rewards [NAME]\n       morl rewards new NAME [--out DIR]",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the reward to explain")
    command.add_argument("new_name", nargs="?", metavar="new NAME", help="write a package with a reward of this name")
    command.add_argument("--out", type=Path, metavar="DIR", help="where the package goes; default: ./morl-NAME")
    command.set_defaults(run=_rewards)

    command = commands.add_parser("rm", help="train a reward model from pairs of answers; writes runs/<name>/model")
    _recipe(command)
    _resume(command)
    command.set_defaults(run=_rm)

    command = commands.add_parser("sft", help="supervised training in stages; writes runs/<name>/models/<stage>")
    _recipe(command)
    _resume(command)
    command.set_defaults(run=_sft)

    command = commands.add_parser(
        "report", help="one HTML file of a run: curves, before and after, answers with pictures"
    )
    command.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html")
    command.add_argument(
        "--samples", type=_count, default=4, metavar="N", help="prompts of each set to show (default: 4)"
    )
    command.set_defaults(run=_report)

    command = commands.add_parser("export", help="write a run's policy as a plain Hugging Face checkpoint")
    command.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, or one of its checkpoints")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone, as a folder of peft's")
    command.set_defaults(run=_export)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"morl {version('morl-rl')}")  # noqa: T201
        parser.exit()


def _count(text: str) -> int:
    """A number of things that an option gives. Raises: ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return int(text)


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

        print(f"report: {write_report(where)}")  # noqa: T201
    return DONE if done else INTERRUPTED


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


def _check(options: argparse.Namespace) -> int:
    from morl.check import check, print_report

    return print_report(check(options.recipe, options.overrides, rows=options.rows))


def _plan(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe

    if (options.gpus is not None and options.gpus < 1) or options.nodes < 1 or options.gpu_memory <= 0:
        raise UsageError("morl plan: --gpus, --nodes and --gpu-memory are above 0")
    recipe = load_recipe(options.recipe, options.overrides)
    from morl.plan import Machines, plan, print_plan

    machines = None if options.gpus is None else Machines(options.gpus, options.nodes, options.gpu_memory)
    return DONE if print_plan(plan(recipe, machines)) else FAILED


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
        print(f"wrote {options.out}: {rows} rows")  # noqa: T201
        return DONE
    _refuse({"--samples": options.samples}, "--recipe RECIPE")
    if options.reward is None or options.source is None:
        raise UsageError("morl score needs a reward and --in FILE, or --recipe RECIPE and --samples DIR")
    counts = score_file(options.reward, options.option, options.source, options.out, workers=options.workers)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"wrote {options.out}: {counts.total()} rows{': ' * bool(told)}{told}")  # noqa: T201
    return DONE


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


def _rewards(options: argparse.Namespace) -> int:
    if options.name == "new":
        from morl.scaffold import new_reward

        if options.new_name is None:
            raise UsageError("morl rewards new NAME: which name?")
        folder = new_reward(options.new_name, options.out)
        print(f"wrote {folder}; next: pip install --no-build-isolation -e {folder}")  # noqa: T201
        return DONE
    if options.new_name is not None or options.out is not None:
        raise UsageError("morl rewards NAME explains a reward; morl rewards new NAME [--out DIR] begins one")
    from morl.describe import describe_rewards

    print(describe_rewards(options.name))  # noqa: T201
    return DONE


def _rm(options: argparse.Namespace) -> int:
    from morl.preferences import PreferenceRecipe
    from morl.recipe import load_document

    recipe = load_document(PreferenceRecipe, options.recipe, options.overrides)
    from morl.reward_model import train_reward_model

    return DONE if train_reward_model(recipe, resume=options.resume, local=options.local) else INTERRUPTED


def _sft(options: argparse.Namespace) -> int:
    from morl.recipe import load_document
    from morl.stages import SftRecipe

    recipe = load_document(SftRecipe, options.recipe, options.overrides)
    from morl.sft import train_supervised

    return DONE if train_supervised(recipe, resume=options.resume, local=options.local) else INTERRUPTED


def _report(options: argparse.Namespace) -> int:
    from morl.report import write_report

    print(f"wrote {write_report(options.folder, options.out, samples=options.samples)}")  # noqa: T201
    return DONE


def _export(options: argparse.Namespace) -> int:
    from morl.export import export

    export(options.folder, options.out, adapter=options.adapter)
    print(f"wrote {options.out}")  # noqa: T201
    return DONE


if __name__ == "__main__":
    sys.exit(main())
