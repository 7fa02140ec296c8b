"""The mixture: shares hold, every row once an epoch, and a restored mixture goes on as if never stopped."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.data.mixture import Mixture
from morl.data.prompt_set import PromptSet, load_prompts
from morl.errors import CheckpointError, DataError, UsageError
from morl.recipe.schema.objective_section import ObjectiveSpec

FOLDER = Path("rows")


@pytest.fixture(autouse=True, scope="module")
def _rows(tmp_path_factory):
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("rows")
    for size in range(1, 21):
        rows = (json.dumps({"n": n}) + "\n" for n in range(size))
        (FOLDER / f"{size}.jsonl").write_text("".join(rows))


@functools.cache
def prompts(name: str, size: int, **data: int) -> PromptSet:
    spec = ObjectiveSpec(
        share=1,
        data={"source": "jsonl", "path": str(FOLDER / f"{size}.jsonl"), **data},
        prompt="{{ n }}",
        gold="{{ n }}",
        rewards=[{"use": "exact"}],
    )
    return load_prompts(spec, name)


def mixture(sizes: dict[str, int], shares: dict[str, float], seed: int = 0) -> Mixture:
    return Mixture({name: prompts(name, size) for name, size in sizes.items()}, shares, seed)


mixtures = st.lists(st.tuples(st.integers(1, 20), st.floats(0.01, 10)), min_size=1, max_size=5).map(
    lambda sets: (
        {f"o{i}": size for i, (size, _) in enumerate(sets)},
        {f"o{i}": share for i, (_, share) in enumerate(sets)},
    )
)


@settings(max_examples=40, deadline=None)
@given(mixtures, st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_shares_hold_at_every_moment(sets, draws):
    sizes, shares = sets
    made, drawn, total = mixture(sizes, shares), Counter(), 0
    for n in draws:
        batch = made.draw(n)
        assert len(batch) == n
        drawn.update(prompt.objective for prompt in batch)
        total += n
        for name, share in shares.items():
            assert abs(drawn[name] - total * share / sum(shares.values())) < 2


@settings(max_examples=40, deadline=None)
@given(mixtures, st.integers(0, 2**31 - 1), st.integers(1, 120))
def test_every_row_comes_once_an_epoch(sets, seed, n):
    sizes, shares = sets
    drawn: dict[str, list[str]] = {name: [] for name in sizes}
    for prompt in mixture(sizes, shares, seed).draw(n):
        drawn[prompt.objective].append(prompt.id)
    for name, ids in drawn.items():
        epochs = [ids[start : start + sizes[name]] for start in range(0, len(ids), sizes[name])]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


@settings(max_examples=40, deadline=None)
@given(mixtures, st.integers(0, 60), st.lists(st.integers(0, 20), max_size=5))
def test_a_restored_mixture_goes_on_as_if_never_stopped(sets, before, after):
    sizes, shares = sets
    whole = mixture(sizes, shares, seed=5).draw(before + sum(after))
    first = mixture(sizes, shares, seed=5)
    parts = first.draw(before)
    second = mixture(sizes, shares, seed=5)
    second.restore(json.loads(json.dumps(first.state())))
    for n in after:
        parts += second.draw(n)
    assert parts == whole


def test_epochs_and_seeds_differ_in_order():
    sizes, shares = {"a": 20}, {"a": 1.0}
    ids = [prompt.id for prompt in mixture(sizes, shares).draw(40)]
    assert ids[:20] != ids[20:]
    assert sorted(ids[:20]) == sorted(ids[20:])
    assert ids != [prompt.id for prompt in mixture(sizes, shares, seed=1).draw(40)]


def test_the_order_is_the_same_in_every_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_mixture as t;"
        "t.FOLDER = Path(sys.argv[2]); print([p.id for p in t.mixture({'a': 20, 'b': 7}, {'a': 1, 'b': 2}).draw(30)])"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(FOLDER)]
    here = [p.id for p in mixture({"a": 20, "b": 7}, {"a": 1, "b": 2}).draw(30)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str(here)


def test_the_state_is_small():
    made = mixture({"a": 20, "b": 20}, {"a": 1, "b": 1})
    made.draw(500)
    assert len(json.dumps(made.state())) < 200


def test_changed_shares_hold_from_where_they_change():
    sizes = {"a": 20, "b": 20}
    old = mixture(sizes, {"a": 0.9, "b": 0.1})
    old.draw(1000)
    new = mixture(sizes, {"a": 1, "b": 1})
    new.restore(json.loads(json.dumps(old.state())))
    assert Counter(prompt.objective for prompt in new.draw(10)) == {"a": 5, "b": 5}
    again = mixture(sizes, {"a": 1, "b": 1})
    again.restore(json.loads(json.dumps(new.state())))
    assert again.draw(30) == new.draw(30)


def test_other_data_is_refused_on_restore():
    state = mixture({"a": 20}, {"a": 1}).state()
    for sizes in ({"a": 19}, {"b": 20}, {"a": 20, "b": 1}):
        with pytest.raises(CheckpointError, match="made with other data"):
            mixture(sizes, dict.fromkeys(sizes, 1.0)).restore(state)


def test_shares_must_name_the_sets():
    with pytest.raises(UsageError, match="one share for each set"):
        mixture({"a": 1}, {"b": 1})


def test_skip_and_take_cut_any_source():
    assert [p.id for p in prompts("o", 20, skip=3, take=4)] == ["o/3", "o/4", "o/5", "o/6"]
    assert len(prompts("o", 5, take=9)) == 5
    assert prompts("o", 20, skip=3).where(0).endswith("20.jsonl:4")
    with pytest.raises(IndexError):
        prompts("o", 20, take=4)[4]
    with pytest.raises(DataError, match="skip 5 leaves none of 5 rows"):
        prompts("o", 5, skip=5)


def test_prompts_that_do_not_fit_are_passed_over():
    limited = prompts("o", 20, take=12)
    limited.skip_unless(lambda prompt: "1" in prompt.messages[0]["content"])
    drawn = Mixture({"o": limited}, {"o": 1.0}, 0)
    assert {prompt.id for prompt in drawn.draw(6)} == {"o/1", "o/10", "o/11"}
    assert drawn.passed_over["o"] >= 9
    limited.skip_unless(lambda prompt: False)
    with pytest.raises(DataError, match="none of its 12 rows can be used"):
        drawn.draw(1)
