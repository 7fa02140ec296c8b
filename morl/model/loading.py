"""Find the files of a model, prepare them, and load them.

A model path is a folder in Hugging Face format, a `.gguf` file, or
`package:<module>/<file>`, a file inside an installed Python package. A GGUF file is
dequantised once, into a cache folder from which it is loaded thereafter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl.errors import MissingExtraError, UsageError
from morl.files import PACKAGE, find_tear, local_path

logger = logging.getLogger(__name__)


def resolve_model(path: str, key: str = "model.path") -> Path:
    """The local folder of a recipe's `model.path`, or of another `key`, ready to load.

    Raises: UsageError when the model is not on this machine, or its files are torn.
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
        raise UsageError(f"{key}: '{file}' has no config.json; name a folder in Hugging Face format")
    return _from_hub(path, key)


def _from_hub(path: str, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.bin", "*.pth", "*.gguf", "*.onnx"]))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        raise UsageError(
            f"{key}: '{path}' is neither a folder on this machine nor in the local Hugging Face cache; "
            "download it first, or set run.offline=false to let morl fetch it"
        ) from error


def _convert_gguf(file: Path) -> Path:
    """Dequantise a GGUF file into a float32 checkpoint in the cache, once per file."""
    import platformdirs
    from filelock import FileLock

    status = file.stat()
    # Size and modification time identify the content: hashing gigabytes at each start takes too long.
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
    # transformers refuses to save a config that is marked as quantised: rebuild the model without the mark.
    if getattr(loaded.config, "quantization_config", None) is not None:
        del loaded.config.quantization_config
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy a checkpoint's files except for its weights, so that engines can load `target` by itself."""
    for file in source.iterdir():
        weights = file.suffix in {".safetensors", ".bin", ".pth", ".gguf", ".pt"} or file.name.endswith(".index.json")
        if file.is_file() and not weights and not (target / file.name).exists():
            shutil.copy2(file, target / file.name)


def load_policy(folder: Path, dtype: str) -> Any:
    """The model of a checkpoint folder as a torch module in training mode.

    Raises: UsageError when the model rescales its logits, which the learner's log-probabilities would ignore.
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

    A text model becomes a sequence classifier of transformers; a multimodal model keeps its class and gets a head.
    Raises: UsageError when the architecture has no such variant, or the folder's head has several outputs.
    """
    guard_torchvision()
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging as transformers_logging

    config = AutoConfig.from_pretrained(folder)
    multimodal = getattr(config, "vision_config", None) is not None
    # transformers warns of a head that is new or unknown to it; here that is intended.
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        load = _load_multimodal_reward_model if multimodal else _load_classifier
        model, trained = load(folder, config, getattr(torch, dtype))
    finally:
        transformers_logging.set_verbosity(level)
    if not trained:
        # All responses start with the same score: an untrained head prefers none.
        torch.nn.init.zeros_(model.score.weight)
    model.train()
    return model


def _load_classifier(folder: Path, config: Any, dtype: Any) -> tuple[Any, bool]:
    import torch
    from transformers import AutoModelForSequenceClassification

    trained = any("SequenceClassification" in name for name in config.architectures or ())
    if trained and config.num_labels != 1:
        raise UsageError(
            f"model.path: '{folder}' gives {config.num_labels} numbers per response; a reward model gives one"
        )
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UsageError(f"model.path: transformers has no sequence classifier for '{folder}' ({config.model_type})")
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="sdpa"
    )
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(f"model.path: '{folder}' ({config.model_type}) has no linear head named 'score'")
    return model, trained


def _load_multimodal_reward_model(folder: Path, config: Any, dtype: Any) -> tuple[Any, bool]:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    if not config.get_text_config().tie_word_embeddings:
        model.get_output_embeddings().requires_grad_(False)  # a reward model predicts no tokens
    model.score = torch.nn.Linear(config.get_text_config().hidden_size, 1, bias=False, dtype=dtype)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            if "score.weight" in weights.keys():  # noqa: SIM118  # not a mapping
                model.score.weight.data.copy_(weights.get_tensor("score.weight"))
                return model, True
    return model, False
