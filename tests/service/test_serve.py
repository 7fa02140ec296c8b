"""The reward service, as a process of its own that is asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from morl.cli.main import main
from morl.errors import UsageError
from morl.recipe.load import load_recipe
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.recipe.train_recipe import Recipe
from morl.rewards.scorer import Scorer
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.router import Router
from morl.service.server import read_token, to_replicas
from morl.types import Prompt, Sample, Score

TOKEN = "s3cret"
PLUGIN = '''
import asyncio, os
from morl.rewards import Verdict, reward

@reward("service_probe")
async def probe(response, messages, media, meta, sample, gold=None):
    """Does what the response says."""
    verb, _, rest = response.partition(" ")
    if verb == "sleep":
        await asyncio.sleep(float(rest))
        return 1.0
    if verb == "die":
        os._exit(1)
    if verb == "raise":
        raise ValueError(rest)
    tokens = None if sample is None else [sample.token_ids_T, sample.loss_mask_T, sample.index, sample.finish_reason]
    return Verdict(float(verb), "ok", repr([gold, list(messages), list(media), dict(meta), tokens]))
'''
RECIPE = """
run: {name: tested, steps: 1}
model: {path: none}
plugins: [PLUGIN]
objectives:
  math:
    share: 1
    data: {source: jsonl, path: none.jsonl}
    prompt: "{{ q }}"
    gold: "{{ a }}"
    rewards:
      - {use: math, weight: 3}
      - {use: length, unit: words, maximum: 3, gate: {term: math, at_least: 1}}
  brief:
    share: 1
    data: {source: jsonl, path: none.jsonl}
    prompt: "{{ q }}"
    rewards: [{use: length, name: brevity, unit: words, maximum: 3, weight: 2}]
  probe:
    share: 1
    data: {source: jsonl, path: none.jsonl}
    prompt: "{{ q }}"
    rewards: [{use: service_probe, deadline_s: 3, scale: [0, 2]}]
rollout: {prompts_per_step: 1, samples_per_prompt: 2, max_new_tokens: 8}
"""
MAX_BYTES, MAX_ITEMS = 1 << 18, 64


class Service:
    """`morl serve` as its user starts it."""

    def __init__(self, recipe: Path, *options: str, token: str = TOKEN) -> None:
        self.errors = (recipe.parent / f"{token or 'open'}.log").open("w+")
        environment = {key: value for key, value in os.environ.items() if key != "MORL_TOKEN"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "morl", "serve", str(recipe), "--port", "0", *options],
            env=environment | ({"MORL_TOKEN": token} if token else {}),
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )
        self.client = httpx.Client(timeout=60, headers={"Authorization": f"Bearer {token}"} if token else {})
        self.said = self.url = ""

    def until_ready(self) -> None:
        self.said = self._first_line(90).strip()
        assert self.said.startswith("serving "), self.said + Path(self.errors.name).read_text()
        self.url = self.said.rpartition(" ")[2]
        self.client.base_url = self.url

    def _first_line(self, seconds: float) -> str:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(seconds)
        if not lines:
            self.process.kill()
        return lines[0] if lines else ""

    def score(self, *items: dict[str, Any]) -> httpx.Response:
        return self.client.post("/score", json={"items": list(items)})

    def replicas(self, reward: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::ServeReplica") and f":{reward}" in title:
                    found.append(process)
        return found

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.client.close()
        self.errors.close()


def write_recipe(folder: Path) -> Path:
    (folder / "service_probe_plugin.py").write_text(PLUGIN)
    path = folder / "tested.yaml"
    path.write_text(RECIPE.replace("PLUGIN", str(folder / "service_probe_plugin.py")))
    return path


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture(scope="module", autouse=True)
def lacking(recipe_file: Path) -> Iterator[subprocess.Popen[str]]:
    """One that cannot start, because a reward lacks its token; it takes its time beside the others."""
    term = "objectives.brief.rewards.0={use: remote, url: 'http://127.0.0.1:9', objective: o, token_env: NOT_SET}"
    others = [f"objectives.{name}=null" for name in ("math", "probe")]
    command = [sys.executable, "-m", "morl", "serve", str(recipe_file), "--port", "0", term, *others]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def services(recipe_file: Path) -> Iterator[tuple[Service, Service]]:
    """Two, started at once on one machine: they do not get in each other's way."""
    limits = ("--max-items", str(MAX_ITEMS), "--max-request-mb", str(MAX_BYTES / 2**20), "--timeout-s", "30")
    first = Service(recipe_file, "--replicas", "1", *limits)
    only_probe = [f"objectives.{name}=null" for name in ("math", "brief")]
    second = Service(recipe_file, "--replicas", "1:2", *only_probe, token="")
    try:
        first.until_ready()
        second.until_ready()
        yield first, second
    finally:
        first.close()
        second.close()


@pytest.fixture(scope="module")
def service(services: tuple[Service, Service]) -> Service:
    """The first of them, with all objectives and a token."""
    return services[0]


def item(objective: str, response: str, **more: Any) -> dict[str, Any]:
    return {"objective": objective, "response": response, **more}


def error_of(answer: httpx.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error"]
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "path"}
    return body["error"]


def test_it_says_where_it_is_and_what_it_serves(service: Service) -> None:
    assert service.said.startswith("serving math, brief, probe at http://127.0.0.1:")
    assert httpx.get(f"{service.url}/healthz").json() == {"status": "ok"}  # without a token, as probes ask
    assert service.client.get("/healthz").status_code == 200


MATH_ANSWERS = [r"\boxed{4}", r"so \boxed{4} it is then, I think", r"\boxed{5}", "", r"\boxed{\frac{8}{2}}", "4" * 5000]
ROWS = [
    *(item("math", answer, gold="4") for answer in MATH_ANSWERS),
    item("math", r"\boxed{4}"),
    item("math", r"\boxed{4}", gold="\\frac{"),
    *(item("brief", answer) for answer in ["a", "a b c d e", "", "é ü 漢 \u200b"]),
    *(item("probe", answer, gold=[1, {"a": None}], meta={"row": 7}) for answer in ["1", "2", "0.5", "x", "raise no"]),
    item("probe", "1", media=[{"width": 640, "height": 480}], messages=[{"role": "user", "content": "?"}]),
    item("probe", "3"),
]


def test_its_scores_are_those_of_a_run(service: Service, recipe: Recipe) -> None:
    async def score_here() -> list[Any]:
        calls = []
        for row in ROWS:
            messages = tuple(row.get("messages") or [{"role": "user", "content": "unsent"}])
            prompt = Prompt("p", row["objective"], messages, (), row.get("gold"), row.get("meta", {}))
            calls.append(scorer.score(prompt, Sample("p", 0, (), (), (), 0, "stop", row["response"])))
        return await asyncio.gather(*calls)

    with Scorer(recipe.objectives, workers=1) as scorer:
        expected = asyncio.run(score_here())
    answer = service.score(*ROWS)
    assert answer.status_code == 200, answer.text
    told = answer.json()["scores"]
    assert [score["value"] for score in told] == [score.value for score in expected]
    assert len({score["value"] for score in told}) >= 5
    for row, here, there in zip(ROWS, expected, told, strict=True):
        assert list(here.terms) == list(there["terms"])
        for name, term in here.terms.items():
            got = there["terms"][name]
            assert (got["value"], got["status"]) == (term.value, term.status), row
            assert row["objective"] == "probe" or got["detail"] == term.detail
            assert got["seconds"] >= 0


def test_rewards_get_what_they_name(service: Service) -> None:
    sample = {"token_ids": [5, 6], "loss_mask": [1, 0], "index": 3, "finish_reason": "length"}
    asked = item(
        "probe",
        "1",
        gold=2.5,
        messages=[{"role": "user", "content": [{"type": "text", "text": "q"}]}],
        media=[{"width": 3, "height": 4}],
        meta={"k": "v"},
        sample=sample,
    )
    (score,) = service.score(asked).json()["scores"]
    expected = [2.5, asked["messages"], asked["media"], {"k": "v"}, [(5, 6), (1, 0), 3, "length"]]
    assert score["terms"]["service_probe"]["detail"] == repr(expected)
    assert score["value"] == 0.5


def test_equal_rewards_share_a_deployment(service: Service, recipe: Recipe) -> None:
    assert len(Router(recipe, Limits(), Metrics([])).rewards) == 3
    assert [len(service.replicas(reward)) for reward in ("math", "length", "service_probe")] == [1, 1, 1]


def test_no_items_have_no_scores(service: Service) -> None:
    assert service.score().json() == {"scores": []}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}],
    ids=["none", "wrong", "basic", "bare"],
)
@pytest.mark.parametrize("path", ["/score", "/rewards", "/metrics", "/openapi.json", "/nowhere"])
def test_without_the_token_there_is_no_answer(service: Service, path: str, headers: dict[str, str]) -> None:
    answer = httpx.request("POST" if path == "/score" else "GET", service.url + path, headers=headers)
    assert error_of(answer, 401)["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_large_request_is_refused_by_its_length_and_while_it_streams(service: Service) -> None:
    large = json.dumps({"items": [item("math", "x" * 3 * MAX_BYTES)]}).encode()
    assert error_of(service.client.post("/score", content=large), 413)["code"] == "request_too_large"
    chunks = (large[start : start + 1000] for start in range(0, len(large), 1000))
    answer = service.client.post("/score", content=chunks)
    assert "transfer-encoding" in answer.request.headers
    assert error_of(answer, 413)["code"] == "request_too_large"


def test_what_fits_exactly_is_served(service: Service) -> None:
    body = json.dumps({"items": [item("brief", "")]}).encode()
    padded = body.replace(b'""', b'"' + b"x" * (MAX_BYTES - len(body)) + b'"')
    assert len(padded) == MAX_BYTES
    assert service.client.post("/score", content=padded).status_code == 200
    assert service.client.post("/score", content=padded.replace(b"x", b"xx", 1)).status_code == 413


def test_too_many_items_are_refused(service: Service) -> None:
    assert service.score(*[item("brief", "a")] * MAX_ITEMS).status_code == 200
    assert error_of(service.score(*[item("brief", "a")] * (MAX_ITEMS + 1)), 413)["code"] == "too_many_items"


GOOD = item("math", "4", gold="4")
WRONG = [
    ([GOOD, GOOD, GOOD, {"objective": "math", "response": 7}], "items.3.response"),
    ([GOOD, {"objective": "math"}], "items.1.response"),
    ([{**GOOD, "respones": "4"}], "items.0.respones"),
    ([GOOD, "text"], "items.1"),
    ([{**GOOD, "meta": []}], "items.0.meta"),
    ([{**GOOD, "messages": ["hello"]}], "items.0.messages.0"),
    ([{**GOOD, "media": ["/etc/passwd"]}], "items.0.media.0"),
    ([{**GOOD, "media": [{"width": 0, "height": 1}]}], "items.0.media.0.width"),
    ([{**GOOD, "sample": {"token_ids": [1], "loss_mask": []}}], "items.0.sample"),
    ([{**GOOD, "sample": {"finish_reason": "bored"}}], "items.0.sample.finish_reason"),
    ({"a": 1}, "items"),
]


@pytest.mark.parametrize(("items", "path"), WRONG, ids=[path for _, path in WRONG])
def test_a_malformed_field_is_named_by_its_path(service: Service, items: Any, path: str) -> None:
    error = error_of(service.client.post("/score", json={"items": items}), 422)
    assert error["path"] == path


def test_an_unknown_objective_is_told_with_the_nearest(service: Service) -> None:
    error = error_of(service.score(GOOD, item("maths", "4")), 422)
    assert error["path"] == "items.1.objective"
    assert "did you mean 'math'" in error["message"]


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"items": [{"objective": "brief", "response": "a", "gold": NaN}]}',
    b'{"items": [{"objective": "brief", "response": "a", "gold": -Infinity}]}',
    b'{"items": [], "items": []}',
    b'{"items": [{"objective": "brief", "response": "a", "meta": {"k": 1, "k": 2}}]}',
    b'{"items": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"items": [{"objective": "brief", "response": "a", "meta": ' + b'{"a":' * 30_000 + b"1" + b"}" * 30_001 + b"]}",
    b'{"items": [{"objective": "brief", "response": "a", "gold": ' + b"9" * 10_000 + b"}]}",
    b'{"items": [{"objective": "brief", "response": "\\ud800"}]}',
    b'{"items": [{"objective": "brief", "response": "\xff"}]}',
    b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    b"\x1f\x8b\x08\x00" + b"\x00" * 100,
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_proper_json_is_refused(service: Service, body: bytes) -> None:
    start = time.monotonic()
    assert error_of(service.client.post("/score", content=body), 422)["message"]
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
def test_json_is_json_whatever_it_is_called(service: Service, kind: str) -> None:
    body = json.dumps({"items": [item("brief", "a")]})
    answer = service.client.post("/score", content=body, headers={"Content-Type": kind})
    assert answer.json()["scores"][0]["value"] == 1.0


@pytest.mark.parametrize(
    "response",
    ["9^{9^{9^{9^9}}}", "[" * 100_000, "1" * 100_000, r"\frac{\boxed{{{4", "\u202e\u200b４", "<|image_pad|>" * 1000],
    ids=["tower", "brackets", "digits", "unbalanced", "unicode", "pads"],
)
def test_a_hostile_answer_gets_a_score_like_any_other(service: Service, response: str) -> None:
    (score,) = service.score(item("math", response, gold="5")).json()["scores"]
    assert score["value"] == 0.0


def test_unknown_paths_and_methods_have_errors_of_the_same_form(service: Service) -> None:
    assert error_of(service.client.get("/nowhere"), 404)["code"] == "not_found"
    assert error_of(service.client.get("/score"), 405)["code"] == "method_not_allowed"


def test_it_tells_what_it_scores_with(service: Service) -> None:
    told = service.client.get("/rewards").json()
    assert list(told["objectives"]) == ["math", "brief", "probe"]
    terms = told["objectives"]["math"]["terms"]
    assert list(terms) == ["math", "length"]
    assert terms["length"]["options"]["maximum"] == 3
    assert terms["length"]["options"]["minimum"] == 0  # a default
    assert terms["length"]["gate"] == {"term": "math", "at_least": 1.0}
    assert terms["math"]["weight"] == 3.0
    assert terms["math"]["doc"].startswith("1 when the answer equals the gold")
    assert told["objectives"]["probe"]["reads"] == ["response", "gold", "messages", "meta", "media", "sample"]
    assert told["max_items"] == MAX_ITEMS


def metric(service: Service, name: str) -> float:
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_metrics_count_requests_items_and_what_got_no_score(service: Service) -> None:
    names = [
        'morl_requests_total{path="/score",status="200"}',
        'morl_requests_total{path="/score",status="422"}',
        'morl_request_seconds_count{path="/score"}',
        'morl_items_total{objective="math"}',
        'morl_no_score_total{objective="math"}',
        'morl_term_failures_total{objective="math",status="bad_gold",term="math"}',
    ]
    before = [metric(service, name) for name in names]
    service.score(GOOD, item("math", "4"), GOOD)
    service.score(item("maths", "4"))
    after = [metric(service, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2, 3, 1, 1]
    assert service.client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from [schema["$ref"]] if "$ref" in schema else []
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from references(part)


def test_the_schema_is_whole_and_fits_what_is_answered(service: Service) -> None:
    import jsonschema

    schema = service.client.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.")
    assert set(schema["paths"]) == {"/score", "/rewards", "/healthz", "/metrics"}
    for reference in references(schema):
        part = schema
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]
    assert set(schema["paths"]["/score"]["post"]["responses"]) >= {"200", "401", "413", "422", "503", "504"}

    def check(name: str, value: Any) -> None:
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": schema["components"]})

    check("ScoreRequest", {"items": ROWS})
    check("ScoreResponse", service.score(*ROWS).json())
    check("RewardsResponse", service.client.get("/rewards").json())
    check("ErrorResponse", service.score(item("maths", "4")).json())
    with pytest.raises(jsonschema.ValidationError):
        check("ScoreResponse", {"scores": [{"value": 2, "terms": {}}]})


def test_a_slow_reward_is_cut_off_at_its_deadline(service: Service) -> None:
    (slow, quick) = service.score(item("probe", "sleep 60"), item("probe", "1")).json()["scores"]
    assert slow["value"] is None
    assert slow["terms"]["service_probe"]["status"] == "timeout"
    assert quick["value"] == 0.5


def test_a_killed_replica_loses_nothing(service: Service) -> None:
    started = time.monotonic()
    killed = threading.Event()
    restored = threading.Event()
    unready: list[int] = []

    def ask(number: int) -> list[tuple[str, Any]]:
        told = []
        while not restored.is_set() and time.monotonic() - started < 60:
            rows = [item("math", rf"\boxed{{{n}}}", gold="3") for n in range(number, number + 4)]
            answer = service.score(*rows, item("brief", "a"))
            assert answer.status_code == 200, answer.text
            told += zip([*rows, None], answer.json()["scores"], strict=True)
        return told

    def kill() -> None:
        (replica,) = service.replicas("math")
        time.sleep(0.5)
        replica.kill()
        killed.set()
        while time.monotonic() - started < 60:
            unready.append(service.client.get("/healthz").status_code)
            if unready[-1] == 200 and 503 in unready:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        restored.set()

    with ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        pool.submit(kill).result()
        told = [pair for future in asking for pair in future.result()]
    assert killed.is_set()
    assert {200, 503} == set(unready)  # it said that it was not ready, and is again
    assert len(told) > 40
    for row, score in told:
        expected = 1.0 if row is None or row["response"] == r"\boxed{3}" else 0.0
        assert score["value"] == expected


def test_an_answer_that_kills_replicas_is_told_so_and_takes_nobody_with_it(service: Service) -> None:
    with ThreadPoolExecutor(3) as pool:
        deadly = pool.submit(service.score, item("probe", "1"), item("probe", "die"), item("brief", "a"))
        beside = [pool.submit(service.score, item("probe", "sleep 0.3")) for _ in range(2)]
        values = [[score["value"] for score in one.result().json()["scores"]] for one in (deadly, *beside)]
    assert values == [[0.5, None, 1.0], [0.5], [0.5]]
    term = deadly.result().json()["scores"][1]["terms"]["service_probe"]
    assert term["status"] == "error"
    assert "died" in term["detail"]
    assert metric(service, 'morl_replica_retries_total{reward="service_probe"}') >= 1


def test_beyond_this_machine_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORL_TOKEN", raising=False)
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        assert read_token(host, None) is None
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(UsageError, match="set a token"):
            read_token(host, None)
    monkeypatch.setenv("MORL_TOKEN", "abc")
    assert read_token("0.0.0.0", None) == read_token("127.0.0.1", None) == "abc"
    with pytest.raises(UsageError, match="OTHER: this environment variable is not set"):
        read_token("127.0.0.1", "OTHER")
    monkeypatch.setenv("OTHER", "two words")
    with pytest.raises(UsageError, match="without spaces"):
        read_token("127.0.0.1", "OTHER")


@pytest.mark.parametrize(("text", "numbers"), [("3", (3, 3)), ("1:4", (1, 4)), ("2:2", (2, 2))])
def test_replicas_are_written_as_a_range(text: str, numbers: tuple[int, int]) -> None:
    assert to_replicas(text) == numbers


@pytest.mark.parametrize(
    "options",
    [
        ["--replicas", "2:1"],
        ["--replicas", "0:1"],
        ["--replicas", "many"],
        ["--host", "0.0.0.0"],
        ["--host", "no-such-host.invalid"],
        ["--port", "70000"],
        ["--max-items", "0"],
        ["--timeout-s", "nan"],
        ["--max-request-mb", "inf"],
        ["--token-env", "NOT_SET_ANYWHERE"],
        ["objectives.nothing.share=2"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_served_is_exit_code_2(
    options: list[str], recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MORL_TOKEN", raising=False)
    assert main(["serve", str(recipe_file), "--port", "0", *options]) == 2
    assert capsys.readouterr().err


def test_a_port_that_is_taken_is_told_at_once(service: Service, recipe_file: Path, capsys: Any) -> None:
    port = service.url.rpartition(":")[2]
    assert main(["serve", str(recipe_file), "--port", port]) == 2
    assert "--port N takes another port" in capsys.readouterr().err


def test_a_reward_that_cannot_be_started_is_told(lacking: subprocess.Popen[str]) -> None:
    told, errors = lacking.communicate(timeout=60)
    assert (lacking.returncode, told) == (1, "")
    reason = (
        "morl serve: reward 'remote' cannot be started: reward 'remote': the environment variable NOT_SET is not set"
    )
    assert reason in errors
    assert "Traceback" not in errors


def remote_objective(service: Service, objective: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    monkeypatch.setenv("SERVICE_TOKEN", TOKEN)
    term = {"use": "remote", "url": service.url, "objective": objective, "token_env": "SERVICE_TOKEN", **more}
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": [term]})


def score_remotely(objective: ObjectiveSpec, rows: list[dict[str, Any]]) -> list[Score]:
    async def run(scorer: Scorer) -> list[Score]:
        calls = []
        for row in rows:
            prompt = Prompt("p", "here", ({"role": "user", "content": "q"},), (), row.get("gold"), row.get("meta", {}))
            calls.append(scorer.score(prompt, Sample("p", 3, (5,), (1,), (0.0,), 0, "length", row["response"])))
        return await asyncio.gather(*calls)

    with Scorer({"here": objective}, workers=1) as scorer:
        return asyncio.run(run(scorer))


def test_the_remote_reward_gives_the_services_scores(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in ROWS if row["objective"] == "math"] * 20
    told = score_remotely(remote_objective(service, "math", monkeypatch, max_items=MAX_ITEMS), rows)
    expected = [service.score(row).json()["scores"][0] for row in rows[: len(rows) // 20]] * 20
    assert [score.value for score in told] == [score["value"] for score in expected]
    kinds = ["bad_gold" if score["value"] is None else score["terms"]["math"]["status"] for score in expected]
    assert [score.terms["remote"].status for score in told] == kinds
    assert set(kinds) == {"ok", "no_answer", "bad_gold"}
    assert all(score.terms["remote"].detail.startswith("math ") for score in told)


def test_the_remote_reward_sends_what_it_is_told_to(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"response": "1", "gold": 4, "meta": {"a": float("nan"), "b": b"bytes", "c": (1, 2)}}]
    (told,) = score_remotely(remote_objective(service, "probe", monkeypatch, send=["meta", "sample"]), rows)
    assert told.value == 0.5
    assert repr([None, [], [], {"a": None, "b": None, "c": [1, 2]}, [(5,), (1,), 3, "length"]]) in (
        told.terms["remote"].detail
    )


def test_the_remote_reward_with_a_wrong_token_or_objective_gives_no_score(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = remote_objective(service, "math", monkeypatch)
    monkeypatch.setenv("SERVICE_TOKEN", "wrong")
    (told,) = score_remotely(right, [{"response": "4", "gold": "4"}])
    assert told.value is None
    assert "status 401" in told.terms["remote"].detail
    (told,) = score_remotely(remote_objective(service, "maths", monkeypatch), [{"response": "4", "gold": "4"}])
    assert told.value is None
    assert "did you mean 'math'" in told.terms["remote"].detail


def test_signals_let_them_answer_and_end(services: tuple[Service, Service]) -> None:
    children = [c for one in services for c in psutil.Process(one.process.pid).children(recursive=True)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(one.score, item("probe", "sleep 2")) for one in services]
        time.sleep(0.7)
        services[0].process.send_signal(signal.SIGTERM)
        os.killpg(services[1].process.pid, signal.SIGINT)  # Ctrl-C reaches Ray's processes, too
        assert [answer.result().json()["scores"][0]["value"] for answer in waiting] == [0.5, 0.5]
        assert [one.process.wait(60) for one in services] == [0, 130]
    for one in services:
        with pytest.raises(httpx.ConnectError):
            one.client.get("/healthz")
        assert "Traceback" not in Path(one.errors.name).read_text()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
