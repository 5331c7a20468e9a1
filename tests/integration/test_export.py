"""A checkpoint written as a model is the policy that was trained, to whoever reads it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lit_agents import export as command
from lit_agents.algorithm.checkpoint import read_checkpoint
from lit_agents.errors import BadInput
from lit_agents.evaluate import evaluate
from lit_agents.fit import fit
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.lora import LoRA
from lit_agents.policy.merge_lora import folded
from lit_agents.run.cli import FitCLI
from lit_agents.run.export import CONFIG, export, write_model
from tests.integration.conftest import ONE_ITERATION
from tests.tiny import tiny_model_folder

POLICY = "--model.init_args.policy.init_args."
IDS = torch.arange(40)[None]
CHAT = [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": "go 1 west"}]


def trained(toy: str, *more: str) -> Path:
    """The last checkpoint of a run that has gone far from what it began with."""
    fit(["--config", toy, "--run", "runs/it", *ONE_ITERATION, *more])
    return Path("runs/it/checkpoints/rl/last.ckpt")


def policy_in(checkpoint: Path) -> CausalLMPolicy:
    """As `fit` and `evaluate` read it."""
    cli = FitCLI(["--config", str(checkpoint.parents[2] / "config.yaml")])
    cli.model.configure_model()
    cli.model.restore(read_checkpoint(checkpoint))
    cli.model.policy.hf.set_attn_implementation("sdpa")
    return cli.model.policy


LEARNT = {
    "adapters": (f"{POLICY}lora", "{rank: 4}", "--sft.optimizer.lr", "0.1", "--model.optimizer.lr", "0.1"),
    "every weight": (),
    "with a critic": ("--model", "lit_agents.algorithm.ppo.PPO"),
}


@pytest.mark.parametrize("how", LEARNT.values(), ids=LEARNT)
@torch.no_grad()
def test_transformers_reads_the_policy_that_was_trained(toy: str, tiny_weights: Path, how: tuple[str, ...]):
    last = trained(toy, *how)
    untouched, found = AutoModelForCausalLM.from_pretrained(tiny_weights)(IDS).logits, []
    for stage in ("sft", "rl"):
        checkpoint = last.parents[1] / stage / "last.ckpt"
        export(checkpoint, Path("models", stage))
        found.append(AutoModelForCausalLM.from_pretrained(f"models/{stage}")(IDS).logits)
        torch.testing.assert_close(found[-1], policy_in(checkpoint).hf(IDS).logits, rtol=0, atol=1e-4)
        assert (found[-1] - untouched).abs().max() > 0.01
    assert not torch.equal(*found)
    mine, old = (AutoTokenizer.from_pretrained(path) for path in ("models/rl", tiny_weights))
    assert mine.chat_template == old.chat_template and mine.eos_token_id == old.eos_token_id
    assert mine.apply_chat_template(CHAT)["input_ids"] == old.apply_chat_template(CHAT)["input_ids"]
    text = "What's in 12 boxes?\n\tnaïve é 中 <|im_end|>"
    assert mine(text)["input_ids"] == old(text)["input_ids"] and mine.get_vocab() == old.get_vocab()
    assert Path("models/rl", CONFIG).read_text() == Path("runs/it/config.yaml").read_text()
    assert {path.name for path in Path("models").iterdir()} == {"sft", "rl"}  # and nothing half made
    assert len({path.stat().st_mode for path in Path("models/rl").iterdir()}) == 1  # who may read one may read all


def test_a_policy_of_it_plays_as_the_checkpoint_does(toy: str):
    checkpoint = trained(toy)
    export(checkpoint, Path("mine"))
    trained_ones, mine, untouched = (
        evaluate(["--config", toy, *args])["policy"]
        for args in (("--ckpt_path", str(checkpoint)), (f"{POLICY}weights", "mine"), ())
    )
    assert mine.numbers == trained_ones.numbers and mine.turns == trained_ones.turns > untouched.turns


def test_in_bfloat16_each_weight_is_rounded_once(toy: str):
    checkpoint = trained(toy, *LEARNT["adapters"])
    assert command.main([str(checkpoint), "half", "--dtype", "bfloat16"]) == 0
    assert AutoConfig.from_pretrained("half").dtype == torch.bfloat16
    found = AutoModelForCausalLM.from_pretrained("half", dtype="auto").state_dict()
    exact = dict(folded(policy_in(checkpoint), torch.float32))
    assert exact.keys() <= found.keys()
    for name, value in exact.items():
        assert found[name].dtype == torch.bfloat16 and torch.equal(found[name], value.bfloat16()), name


def test_an_output_layer_of_its_own_is_written_with_its_adapter(tmp_path: Path):
    folder = tiny_model_folder(tmp_path / "untied")
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    policy = CausalLMPolicy(str(folder), lora=LoRA(rank=2, targets=("lm_head",)))
    policy.load()
    with torch.no_grad():
        policy.hf.lm_head.lora_B["default"].weight.fill_(0.3)
        write_model(policy, tmp_path / "made", torch.float32)
        policy.hf.set_attn_implementation("sdpa")
        made = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
        torch.testing.assert_close(made(IDS).logits, policy.hf(IDS).logits)
        assert not torch.equal(made.lm_head.weight, made.model.embed_tokens.weight)


def test_only_what_belongs_to_a_model_is_in_it_and_of_the_run_nothing_else_is_needed(toy: str, tmp_path: Path):
    base = tiny_model_folder(tmp_path / "base")
    (base / "optimizer.pt").write_text("large")
    (base / ".env").write_text("secret")
    checkpoint = trained(toy, f"{POLICY}weights", str(base))
    config = Path("runs/it/config.yaml")
    config.write_text(config.read_text().replace("lit_agents.environment.toy.EchoWorld", "nowhere.World"))
    Path("disk").mkdir()
    Path("runs/it/checkpoints").rename("disk/checkpoints")
    Path("runs/it/checkpoints").symlink_to(Path("disk/checkpoints").resolve())
    Path("disk/mine").mkdir()
    Path("mine").symlink_to("disk/mine")
    export(checkpoint, Path("mine"))
    files = {path.name for path in Path("mine").iterdir()}
    assert files == {path.name for path in base.iterdir()} - {"optimizer.pt", ".env"} | {CONFIG}


def test_what_cannot_be_written_is_refused(toy: str, capsys):
    checkpoint = trained(toy)
    Path("full").mkdir()
    Path("full", "mine.txt").write_text("mine")
    Path("alone.ckpt").write_bytes(checkpoint.read_bytes())
    for args, words in (
        (["runs/it/none.ckpt", "made"], "there is no such file"),
        (["alone.ckpt", "made"], r"does not lie in checkpoints"),
        (["toy.yaml", "made"], "does not lie in checkpoints"),
        ([str(checkpoint), "full"], "not an empty folder"),
        ([str(checkpoint), "toy.yaml"], "not an empty folder"),
        ([str(checkpoint), "toy.yaml/made"], "cannot be made"),
        ([str(checkpoint), "/proc/made"], "cannot be made"),
        ([str(checkpoint), "x" * 300], "cannot be made"),
    ):
        with pytest.raises(BadInput, match=words):
            export(*map(Path, args))
        assert command.main(args) == 2 and capsys.readouterr().err.startswith("error: ")
    assert Path("full", "mine.txt").read_text() == "mine" and not Path("made").exists()
    config = Path("runs/it/config.yaml")
    sound = config.read_text()
    for text, words in (
        ("model: 1", "no policy can be read"),
        (sound.replace("lora: null", "lora: {rank: 4}"), "lora"),
    ):
        config.write_text(text)
        with pytest.raises(BadInput, match=words):
            export(checkpoint, Path("made"))


def test_a_model_appears_whole_or_not_at_all(toy: str, monkeypatch: pytest.MonkeyPatch, capsys):
    checkpoint, before = trained(toy), set(Path().iterdir())
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    late = {"copyfile": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "lit_agents.yaml"), "save": full}
    for name, error in late.items():
        with monkeypatch.context() as m:
            where = (shutil, "copyfile") if name == "copyfile" else (PreTrainedModel, "save_pretrained")
            m.setattr(*where, Mock(side_effect=error))
            assert command.main([str(checkpoint), "made"]) == 2 and "no space is left" in capsys.readouterr().err
        assert set(Path().iterdir()) == before
    monkeypatch.setattr("lit_agents.run.export.folded", lambda policy, dtype: [("no.such", torch.zeros(1))])
    with pytest.raises(KeyError, match=r"no\.such"):
        export(checkpoint, Path("made"))
    monkeypatch.setattr("lit_agents.run.export.folded", lambda policy, dtype: list(folded(policy, dtype))[:-1])
    with pytest.raises(RuntimeError, match=r"not in the policy: model\.norm\.weight"):
        export(checkpoint, Path("made"))
    assert set(Path().iterdir()) == before
