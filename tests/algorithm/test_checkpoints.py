"""What a checkpoint holds, and what takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_other
from lit_agents.algorithm.kl import KL
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import LoRA
from lit_agents.types import Minibatch
from tests.algorithm.hand_fed import Feed, collected, cut, made, train
from tests.algorithm.trainers import QUIET, trainer
from tests.tiny import tiny_model_folder

pytestmark = QUIET


def saved(fitted: Trainer, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "some.ckpt"
    fitted.save_checkpoint(path)
    return path, read_checkpoint(path)


def trained(folder: Path, lora: LoRA | None, kind: type[AgentModule] = PPO) -> tuple[AgentModule, Trainer]:
    module = made(kind, folder, lora=lora, kl=KL(reward=0.1, target=0.01))
    found = collected(module)
    return module, train(module, lambda: cut(module, found))


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, last_layers=1)])
def test_a_checkpoint_holds_the_trained_weights_and_the_reference_and_nothing_frozen(
    folder: Path, tmp_path: Path, lora
):
    module, fitted = trained(folder, lora)
    assert module.kl_coefficient != 0.1
    _, kept = saved(fitted, tmp_path)
    assert set(kept["state_dict"]) == {n for n, p in module.named_parameters() if p.requires_grad}
    assert any("value_head" in name for name in kept["state_dict"])
    assert set(kept["lit_agents"]["reference"]) == set(module.policy.trainable)
    assert all(torch.equal(t, module.reference[n]) for n, t in kept["lit_agents"]["reference"].items())
    assert kept["lit_agents"]["kl_coefficient"] == module.kl_coefficient


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, last_layers=1)])
def test_restoring_takes_the_trained_weights_and_nothing_else(folder: Path, tmp_path: Path, lora):
    module, fitted = trained(folder, lora)
    _, kept = saved(fitted, tmp_path)
    other = made(PPO, folder, lora=lora, kl=KL(reward=0.1, target=0.01))
    assert any(not torch.equal(p, kept["state_dict"][n]) for n, p in other.named_parameters() if p.requires_grad)
    refuse_other(kept, other.identity())
    assert other.restore(kept) == 1
    assert all(torch.equal(p, dict(module.named_parameters())[n]) for n, p in other.named_parameters())
    assert other.reference is None and other.kl_coefficient == 0.1


def test_a_run_that_goes_on_has_the_reference_and_coefficient_of_the_run_it_continues(folder: Path, tmp_path: Path):
    module, fitted = trained(folder, None)
    path, _ = saved(fitted, tmp_path)
    other = made(PPO, folder, kl=KL(reward=0.1, target=0.01))
    found = collected(other)
    again = trainer(max_epochs=2, limit_val_batches=0)
    begun: list[tuple[int, float]] = []

    def make() -> Minibatch:
        begun.append((other.global_step, other.kl_coefficient))
        return cut(other, found, version=other.global_step)

    loader = DataLoader(Feed(make), batch_size=None)
    again.fit(other, loader, loader, ckpt_path=path, weights_only=True)
    assert begun == [(1, module.kl_coefficient)]
    assert all(torch.equal(other.reference[n], module.reference[n]) for n in module.reference)


def test_a_checkpoint_of_something_else_is_refused(folder: Path, tmp_path: Path):
    module, fitted = trained(folder, None)
    _, kept = saved(fitted, tmp_path)
    another = tiny_model_folder(tmp_path / "another", seed=1)
    kl = KL(reward=0.1, target=0.01)
    for other, named in (
        (made(ReinforcePP, folder, kl=kl), "algorithm PPO"),
        (made(PPO, another, kl=kl), "policy"),
        (made(PPO, folder, lora=LoRA(rank=2), kl=kl), "policy"),
        (made(PPO, folder, kl=KL(reward=0.2)), "kl"),
    ):
        before = {n: p.detach().clone() for n, p in other.named_parameters()}
        with pytest.raises(BadInput, match=f"written with {named}"):
            other.on_load_checkpoint(kept)
        assert all(torch.equal(p, before[n]) for n, p in other.named_parameters())
    with pytest.raises(BadInput, match="not a checkpoint of lit_agents"):
        module.on_load_checkpoint({"state_dict": {}})


@pytest.mark.parametrize("name", ["value_head.inner.weight", "policy.model.model.norm.weight"])
def test_a_checkpoint_that_lacks_what_is_trained_is_refused_when_it_is_restored_or_resumed(folder, tmp_path, name):
    module, fitted = trained(folder, None)
    _, kept = saved(fitted, tmp_path)
    sound = dict(kept["state_dict"])
    for take in (module.restore, module.on_load_checkpoint):
        kept["state_dict"] = {n: t for n, t in sound.items() if n != name}
        with pytest.raises(BadInput, match=rf"does not hold {name}, of"):
            take(kept)
        kept["state_dict"] = sound | {name: sound[name][:1]}
        with pytest.raises(BadInput, match=rf"has another shape of {name}, of"):
            take(kept)
        kept["state_dict"] = sound | {f"{name}_more": sound[name]}
        with pytest.raises(BadInput, match=rf"not trained here: {name}_more, of"):
            take(kept)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "x.ckpt").write_bytes(b"no")
    for name in ("x.ckpt", "absent.ckpt"):
        with pytest.raises(BadInput, match=f"{name}.*plain tensors"):
            read_checkpoint(tmp_path / name)
