"""`morl serve`."""

from __future__ import annotations

import argparse
import signal

from morl.cli.command import DONE, INTERRUPTED, Command, recipe_arguments
from morl.errors import UsageError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; beyond this machine needs a token")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port; 0 for any free one (default: 8000)")
    parser.add_argument("--token-env", metavar="NAME", help="variable with the clients' token (default: MORL_TOKEN)")
    parser.add_argument("--max-request-mb", type=float, default=8.0, metavar="MB", help="largest request (default: 8)")
    parser.add_argument("--max-items", type=int, default=1024, metavar="N", help="items per request (default: 1024)")
    parser.add_argument("--timeout-s", type=float, default=120.0, metavar="S", help="time for a reply (default: 120)")
    parser.add_argument("--replicas", default="1:4", metavar="MIN:MAX", help="replicas of each reward (default: 1:4)")


def _run(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe
    from morl.service import Address, Limits, serve, to_replicas

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


COMMAND = Command("serve", "serve the rewards of a recipe over HTTP", (recipe_arguments, _arguments), _run)
