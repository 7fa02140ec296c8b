"""The policy's files: where they are, how text becomes tokens, which tokens may be written.

A model path is a folder in Hugging Face format, a `.gguf` file, or
`package:<module>/<file>`, a file that ships inside an installed Python package. A GGUF
file is dequantised once, into a cache folder that everything else loads from there on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl.errors import DataError, MissingExtraError, UsageError
from morl.files import PACKAGE, find_tear, local_path
from morl.types import Encoded, Prompt
from morl.vision import MediaProcessor

logger = logging.getLogger(__name__)

MULTIMODAL_TOKEN_KEYS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "audio_token_id",
)
THINK = "<think>"
OPENED_TOKENS = 16
"""Tokens at the end of a prompt among which the template's `<think>` stands, if it opens the thinking."""


def resolve_model(path: str, key: str = "model.path") -> Path:
    """The local folder behind a recipe's `model.path`, or another `key` of it, made ready to load.

    Raises: UsageError when there is no such model on this machine, or its files are torn.
    """
    try:
        file = local_path(path)
    except FileNotFoundError as error:
        raise UsageError(f"{key}: {error}") from error
    if path.startswith(PACKAGE) and not file.exists():
        raise UsageError(f"{key}: '{path}': the package has no such file")
    if file.suffix == ".gguf":
        if not file.is_file():
            raise UsageError(f"{key}: no file '{file}'")
        return _convert_gguf(file)
    if (file / "config.json").is_file():
        if tear := find_tear(file):
            raise UsageError(f"{key}: {tear}")
        return file
    if file.is_dir():
        raise UsageError(f"{key}: '{file}' has no config.json; give a folder in Hugging Face format")
    return _from_hub(path, key)


def _from_hub(path: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.bin", "*.pth", "*.gguf", "*.onnx"]))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        raise UsageError(
            f"{key}: '{path}' is no folder on this machine and not in the local Hugging Face cache; "
            "download it first, or set run.offline=false to let morl fetch it"
        ) from error


def _convert_gguf(file: Path) -> Path:
    """Dequantise a GGUF file into a float32 checkpoint in the cache; done once a file."""
    import platformdirs
    from filelock import FileLock

    status = file.stat()
    # Size and time of change stand for the content: hashing gigabytes at each start would not pay.
    key = hashlib.sha256(f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("MORL_CACHE") or platformdirs.user_cache_path("morl"))
    target = cache / "models" / f"{file.stem}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_dir():
            return target
        if importlib.util.find_spec("gguf") is None:
            raise MissingExtraError("gguf", "gguf", f"reading '{file.name}'")
        logger.warning("converting %s to a Hugging Face checkpoint, once, in %s", file.name, target)
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write_dequantised(file, partial)
        partial.rename(target)
    return target


def _write_dequantised(file: Path, target: Path) -> None:
    guard_torchvision()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # A config marked as quantised refuses to be saved: rebuild the model without the mark.
    if getattr(loaded.config, "quantization_config", None) is not None:
        del loaded.config.quantization_config
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy everything of a checkpoint but its weights, so that engines can load `target` by itself."""
    for file in source.iterdir():
        weights = file.suffix in {".safetensors", ".bin", ".pth", ".gguf", ".pt"} or file.name.endswith(".index.json")
        if file.is_file() and not weights and not (target / file.name).exists():
            shutil.copy2(file, target / file.name)


def load_policy(folder: Path, dtype: str) -> Any:
    """The model of a checkpoint folder as a torch module in training mode.

    Raises: UsageError when its head does more than a linear map, which the learner's
    log-probabilities would miss.
    """
    guard_torchvision()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config.get_text_config(), key, None) not in (None, 1, 1.0):
            raise UsageError(f"model.path: '{folder}' rescales its logits ({key}), which the learner does not support")
    vision = getattr(config, "vision_config", None) is not None
    kind = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model.train()
    return model


def load_reward_model(folder: Path, dtype: str) -> Any:
    """A model with a head `score` of one output, in training mode; the head is new if the folder has none.

    Text models become transformers' sequence classifiers; a model that sees keeps its class and gets a head beside.
    Raises: UsageError when the architecture has no such variant, or the folder's has more outputs.
    """
    guard_torchvision()
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging as transformers_logging

    config = AutoConfig.from_pretrained(folder)
    sees = getattr(config, "vision_config", None) is not None
    # That a head is new, or not one that transformers knows, is no news where one is wanted.
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        load = _load_seeing_reward_model if sees else _load_classifier
        model, trained = load(folder, config, getattr(torch, dtype))
    finally:
        transformers_logging.set_verbosity(level)
    if not trained:
        # Every answer starts with the same score: nothing is preferred before anything was learnt.
        torch.nn.init.zeros_(model.score.weight)
    model.train()
    return model


def _load_classifier(folder: Path, config: Any, dtype: Any) -> tuple[Any, bool]:
    import torch
    from transformers import AutoModelForSequenceClassification

    trained = any("SequenceClassification" in name for name in config.architectures or ())
    if trained and config.num_labels != 1:
        raise UsageError(f"model.path: '{folder}' gives {config.num_labels} numbers an answer, a reward model one")
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UsageError(f"model.path: transformers has no sequence classifier for '{folder}' ({config.model_type})")
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="sdpa"
    )
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(f"model.path: '{folder}' ({config.model_type}) has no linear head called 'score'")
    return model, trained


def _load_seeing_reward_model(folder: Path, config: Any, dtype: Any) -> tuple[Any, bool]:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    if not config.get_text_config().tie_word_embeddings:
        model.get_output_embeddings().requires_grad_(False)  # no token is predicted here
    model.score = torch.nn.Linear(config.get_text_config().hidden_size, 1, bias=False, dtype=dtype)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            if "score.weight" in weights.keys():  # noqa: SIM118  # not a mapping
                model.score.weight.data.copy_(weights.get_tensor("score.weight"))
                return model, True
    return model, False


@dataclass(frozen=True, slots=True)
class ChatCodec:
    """Turns prompts into token ids and token ids into text, by the model's own chat template."""

    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    """Tokens that end an answer."""
    banned_token_ids: tuple[int, ...]
    """Placeholders of images, videos and audio: never sampled, and absent from the learner's normaliser."""
    max_prompt_tokens: int
    media: MediaProcessor | None = None
    """For models that see."""

    @classmethod
    def load(cls, folder: Path, max_prompt_tokens: int) -> ChatCodec:
        """Read tokenizer and configuration of a checkpoint folder."""
        guard_torchvision()
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.chat_template:
            raise UsageError(f"model.path: the tokenizer of '{folder}' has no chat template")
        configs = [_read_json(folder / name) for name in ("generation_config.json", "config.json")]
        stop = _stop_ids(configs, tokenizer)
        if not stop:
            raise UsageError(f"model.path: '{folder}' names no end-of-text token (eos_token_id)")
        banned = {config[key] for config in configs for key in MULTIMODAL_TOKEN_KEYS if config.get(key) is not None}
        return cls(tokenizer, stop, tuple(sorted(banned)), max_prompt_tokens, MediaProcessor.load(folder))

    def encode(self, prompt: Prompt, *, limit: bool = True) -> Encoded:
        """A prompt up to where the assistant's answer begins.

        Args:
            limit: whether a long prompt is refused here; without, the caller looks at its length.

        Raises: DataError when the prompt is longer than `rollout.max_prompt_tokens`, or its media cannot be used.
        """
        messages = [dict(message) for message in prompt.messages]
        if not prompt.media:
            found = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
            encoded = Encoded(tuple(found["input_ids"]))
            if self.media is not None and (wrong := set(self.media.placeholder_ids.values()) & set(found["input_ids"])):
                token = self.tokenizer.convert_ids_to_tokens(min(wrong))
                raise DataError(f"prompt {prompt.id} has the token {token} in its text, and no picture for it")
        elif self.media is None:
            raise DataError(f"prompt {prompt.id} has pictures, and the model sees none")
        else:
            try:
                encoded = self.media.encode(messages, prompt.media)
            except DataError as error:
                raise type(error)(f"prompt {prompt.id}: {error}") from error
        if limit and len(encoded.token_ids_T) > self.max_prompt_tokens:
            raise DataError(
                f"prompt {prompt.id} has {len(encoded.token_ids_T)} tokens, more than rollout.max_prompt_tokens="
                f"{self.max_prompt_tokens}; allow more, or leave such prompts out with rollout.too_long=skip "
                "(`morl check` lists them)"
            )
        end = self.decode(encoded.token_ids_T[-OPENED_TOKENS:]).rstrip()
        return replace(encoded, opened=THINK) if end.endswith(THINK) else encoded

    def fits(self, prompt: Prompt) -> bool:
        """Whether the prompt has at most `rollout.max_prompt_tokens` tokens."""
        return len(self.encode(prompt, limit=False).token_ids_T) <= self.max_prompt_tokens

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """Token ids of a finished answer, end-of-turn token included. No text in it becomes a special token."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of an answer, special tokens left out."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _stop_ids(configs: Sequence[dict[str, Any]], tokenizer: Any) -> tuple[int, ...]:
    ids: set[int] = set()
    for found in [config.get("eos_token_id") for config in configs] + [tokenizer.eos_token_id]:
        ids.update(found if isinstance(found, list) else [] if found is None else [found])
    return tuple(sorted(ids))
