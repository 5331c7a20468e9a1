"""One GRPO iteration, episodes played and trained on: ours against TRL's GRPOTrainer, on the same games (about 12 minutes).

    pip install trl && python benchmarks/peer_trl.py [--tasks 8] [--size 8] [--turns 8] [--iterations 1] [--weights FOLDER]

Both sides begin with the same policy, a SmolLM2-135M-Instruct that has imitated some walkthroughs (made once, in a minute, and
kept): an untouched model ends most episodes with its first words. Both train the adapters of conf/textworld/quickstart.yaml
with its reward, loss and learning rate, in one optimizer step per iteration. They play the same games in the same order in the
same pool of environments, from the same tokens; what they sample differs, so turns per episode are printed beside the seconds.
An iteration that does not count comes first on each side; loading and starting do not count. In the end our policy is given
TRL's adapters and must find TRL's log-probabilities of the actions TRL has learnt from, at least twice as exactly as without
them. The last line is one JSON object with the ratio.

How TRL is used: `rollout_func`, its hook for a loop of one's own, which asks TRL's own `_generate_single_turn` for the actions
of all open episodes, each from its whole conversation, as TRL's tool loop does. `environment_factory` would cost more: there
an environment cannot end an episode, so a game that is won goes on to the turn limit, and an action is a JSON tool call,
which neither this model nor its chat template knows. transformers generates: vLLM would be faster, but the versions that TRL
takes come from PyPI for CUDA. Generation is under autocast, which TRL leaves out and which takes a third off it here; TRL's
continuous batching takes more than twice as long.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from imitator import CONFIG, imitator
from lightning import Callback
from torch.nn.utils.rnn import pad_sequence

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.chat import ChatFormat
from lit_agents.rollout.agents import Choice, Player, Situation
from lit_agents.rollout.collector import Job
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.task_sampler import TaskSampler
from lit_agents.run.cli import FitCLI
from lit_agents.system.command import run_command
from lit_agents.types import Episode, Task

MICRO_BATCH_TOKENS = 4096  # unique tokens of one backward pass of our optimizer step; about as many as TRL's has


@dataclass
class Watch:
    """The episodes of every iteration, and when it ended."""

    played: list[Sequence[Episode]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Of all iterations but the first."""
        seconds = self.ends[-1] - self.ends[0]
        episodes = [e for iteration in self.played[1:] for e in iteration]
        turns = sum(len(e.turns) for e in episodes)
        sampled = sum(len(t.action_ids) for e in episodes for t in e.turns)
        row = {
            "seconds_per_episode": seconds / len(episodes),
            "seconds_per_turn": seconds / turns,
            "turns_per_episode": turns / len(episodes),
            "tokens_per_action": sampled / turns,
            "tokens_per_episode": sum(len(e.token_ids) for e in episodes) / len(episodes),
            "success": sum(e.won for e in episodes) / len(episodes),
        }
        return {name: round(value, 3) for name, value in row.items()}


class IterationEnds(Callback):
    """Fills a `Watch` on our side."""

    def __init__(self, data: RolloutDataModule, watch: Watch) -> None:
        self.data, self.watch = data, watch

    def on_train_epoch_end(self, *_: Any) -> None:
        assert self.data.latest is not None
        self.watch.played.append(self.data.latest.played)
        self.watch.ends.append(time.perf_counter())


def configured(args: argparse.Namespace, weights: str) -> FitCLI:
    """The quickstart with one optimizer step per iteration."""
    changes = {
        "model.policy.init_args.weights": weights,
        "data.schedule.tasks": args.tasks,
        "data.schedule.group_size": args.size,
        "data.schedule.minibatches": 1,
        "data.schedule.micro_batch_tokens": MICRO_BATCH_TOKENS,
        "data.limits.turns": args.turns,
        "data.limits.concurrent": args.tasks * args.size,
        "model.warmup": 0,
        "model.anneal": "false",
        "trainer.max_epochs": args.iterations + 1,
        "trainer.limit_val_batches": 0,
        "trainer.enable_checkpointing": "false",
    }
    return FitCLI(["--config", str(CONFIG), *(f"--{key}={value}" for key, value in changes.items())])


class TRLPlayer(Player):
    """Acts by TRL's generation."""

    def __init__(self, trainer: Any, chat: ChatFormat) -> None:
        self.trainer, self.chat, self.version = trainer, chat, trainer.state.global_step

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure]:
        with self.trainer.accelerator.autocast():
            sampled, _ = self.trainer._generate_single_turn([list(s.ids) for s in situations], None, {}, 1)
        return {
            s.session: Choice(self.chat.action_text(i), tuple(i), (), i[-1] == self.chat.end_id)
            for s, i in zip(situations, sampled, strict=True)
        }


@dataclass
class Rollout:
    """TRL's `rollout_func`: plays one episode for each prompt, which is the name of a game."""

    data: RolloutDataModule
    policy: CausalLMPolicy
    tasks: dict[str, Task]
    watch: Watch

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        jobs = [Job(self.tasks[prompt[0]["content"]], m, ("trl", m)) for m, prompt in enumerate(prompts)]
        player, longest = TRLPlayer(trainer, self.policy.chat), self.data.sampling.max_tokens
        episodes = self.data.open(self.policy).play(jobs, player, longest, self.data.on_progress)
        if failed := [e.error for e in episodes if e.stop.is_failure]:
            raise RuntimeError(f"an environment failed, and TRL cannot leave its episode out: {failed[0]}")
        self.watch.played.append(episodes)
        out: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "env_mask": [], "worth": []}
        for episode in episodes:
            first, ours = len(episode.turns[0].observation_ids), set(episode.conversations[0].places)
            out["prompt_ids"].append(episode.token_ids[:first])
            out["completion_ids"].append(episode.token_ids[first:])
            out["env_mask"].append([int(i in ours) for i in range(first, len(episode.token_ids))])
            out["worth"].append(self.data.reward(episode).total)
        return out | {"logprobs": None}  # only vLLM has them; TRL takes those of its own forward pass


def worth(worth: list[float], **_: Any) -> list[float]:
    """TRL's reward function: what the rollout has found."""
    return worth


def trl_trainer(cli: FitCLI, args: argparse.Namespace, watch: Watch, output: str) -> Any:
    """A GRPOTrainer that does what the configuration says."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class StepEnds(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.ends.append(time.perf_counter())

    data, policy, lora = cli.datamodule, cli.model.policy, cli.model.policy.lora
    optimizer = cli.model.optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults
    layers = policy.config.num_hidden_layers
    sampler = TaskSampler(data.split("train"), data.seed, args.tasks)
    tasks = {task.id: task for i in range(args.iterations + 1) for task in sampler.take(i, 0)}
    rows = [{"prompt": [{"role": "user", "content": name}]} for name in tasks]
    config = GRPOConfig(
        output, use_cpu=True, bf16=True, model_init_kwargs={"dtype": "bfloat16"}, gradient_checkpointing=False,
        per_device_train_batch_size=args.micro, gradient_accumulation_steps=args.tasks * args.size // args.micro,
        num_generations=args.size, max_steps=args.iterations + 1, shuffle_dataset=False,
        temperature=data.sampling.temperature, max_completion_length=data.sampling.max_tokens,
        learning_rate=optimizer["lr"], weight_decay=optimizer["weight_decay"], lr_scheduler_type="constant",
        max_grad_norm=cli.value("trainer").gradient_clip_val, beta=0.0, loss_type="grpo", scale_rewards="none",
        save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False, seed=data.seed,
    )  # fmt: skip
    return GRPOTrainer(
        str(policy.folder), worth, config, Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets),
            layers_to_transform=list(range(layers - (lora.last_layers or layers), layers)),
        ),
        rollout_func=Rollout(data, policy, tasks, watch), callbacks=[StepEnds()],
    )  # fmt: skip


@torch.no_grad()
def disagreement(trainer: Any, policy: CausalLMPolicy, episodes: Sequence[Episode]) -> tuple[float, float]:
    """Mean difference per action token, nats, of TRL's log-probabilities from ours with TRL's adapters, and with none."""
    rows = [torch.tensor(e.token_ids) for e in episodes]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    ids = pad_sequence(rows, batch_first=True)
    theirs, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, ids.shape[1] - 1, batch_size=8)
    theirs = torch.cat([theirs[b, [i - 1 for i in e.conversations[0].places]] for b, e in enumerate(episodes)])
    names = {n.replace("base_model.model.", "model.", 1): p for n, p in trainer.model.named_parameters()}
    gaps, tree = [], token_tree(episodes)
    for share in (1.0, 0.0):
        with policy.using({n: names[n].detach() * share for n in policy.trainable}):
            ours = policy.score(tree, trainer.temperature).logprobs_BA[tree.mask_BA]
        gaps.append(float((ours - theirs).abs().mean()))
    return gaps[0], gaps[1]


def compare(args: argparse.Namespace) -> None:
    """Both sides, one after the other."""
    if find_spec("trl") is None:
        raise BadInput("trl", "is not installed.", "Run: pip install trl")
    if args.tasks * args.size % args.micro:
        raise BadInput("--micro", f"{args.tasks * args.size} episodes are no multiple of {args.micro}.", "Lower it.")
    cli = configured(args, args.weights or imitator())
    data, module = cli.datamodule, cli.model
    ours, theirs = Watch(), Watch()
    try:
        data.open(module.policy)
        cli.trainer_for([IterationEnds(data, ours)]).fit(module, data)
        print("ours", json.dumps(ours.row()), flush=True)
        with tempfile.TemporaryDirectory() as output:
            trainer = trl_trainer(cli, args, theirs, output)
            trainer.train()
        print("trl ", json.dumps(theirs.row()), flush=True)
        gap, without = disagreement(trainer, module.policy, theirs.played[0][: 2 * args.size])
    finally:
        data.close()
    if not gap < without / 2:
        raise SystemExit(f"the sides do not train the same thing: {gap:.3f} nats apart, {without:.3f} without adapters")
    one, two = ours.row(), theirs.row()
    episode, turn = (round(two[f"seconds_per_{of}"] / one[f"seconds_per_{of}"], 2) for of in ("episode", "turn"))
    gaps = {"gap_nats": round(gap, 4), "gap_without_adapters": round(without, 4)}
    versions = {name: version(name) for name in ("trl", "transformers", "torch")}
    print(
        json.dumps(
            {"ratios": {"trl": episode}, "per_turn": turn, **gaps, "ours": one, "trl": two, "versions": versions}
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("tasks", 8), ("size", 8), ("turns", 8), ("iterations", 1), ("micro", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--weights", help="a model's folder to begin with, instead of the one that is made")
    args = parser.parse_args()
    return run_command(lambda: compare(args))


if __name__ == "__main__":
    raise SystemExit(main())
