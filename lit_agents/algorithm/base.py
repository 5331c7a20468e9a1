"""What every algorithm shares: the policy, the reference, KL, freshness, optimizers, checkpoints.

A new algorithm is one subclass that says how episodes are credited (`credit`) and, if it differs, what the loss is
(`loss`). One Lightning epoch is one on-policy iteration; `lit_agents.rollout.datamodule` feeds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lit_agents.algorithm import losses
from lit_agents.algorithm.checkpoint import refuse_incomplete, refuse_other
from lit_agents.algorithm.experience import Assessment, Experience
from lit_agents.algorithm.kl import KL
from lit_agents.algorithm.lr_schedule import share_of_learning_rate
from lit_agents.algorithm.metrics import Tally, compare
from lit_agents.algorithm.micro_batches import refuse_accumulation, total_loss
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import ActionScores, CausalLMPolicy, Weights
from lit_agents.policy.non_finite import gradients_are_finite, refuse_non_finite
from lit_agents.types import Minibatch, TokenBatch, TokenTree


class AgentModule(LightningModule):
    """Shared base of SFT, PPO, GRPO, RLOO and REINFORCE++.

    Args:
        policy: what acts and is trained.
        optimizer: makes the optimizer from parameter groups.
        kl: how the policy is held near the reference.
        clip: PPO's clip range; has an effect only with several updates per batch.
        dual_clip: limit of the pull of an action with negative advantage; None for no limit.
        importance_cap: correct for a sampler whose log-probabilities are not those the trainer computes (another engine,
            another precision): updates are measured from the trainer's own, and every token's policy loss is multiplied by
            the ratio of the two, at most this much (Yao et al. 2025; docs/formulas.md, 8). None: the sampler is trusted.
        per_episode_mean: every episode counts the same whatever its length, as in the original GRPO; by default every token
            counts the same, which is free of that length bias (Yu et al. 2025; Liu et al. 2025). Without a critic it means
            that long episodes, mostly the lost ones, weigh more, and what is pushed down outweighs what is pushed up.
        warmup: optimizer steps in which the learning rate rises to its value; Adam's first steps are as long for a noisy
            gradient as for a sure one.
        anneal: let the learning rate fall linearly from there to 0 at the end of the run, so that the last policy is not
            one of those that noise drives about; a run that is made longer later falls from where it is, and one with no
            more steps than ``warmup`` has none left to fall in.
    """

    compares_group: ClassVar[bool] = False
    """The advantage compares members of a group, so a group needs two."""
    skips_zero_advantage: ClassVar[bool] = True
    """Episodes without advantage add exactly nothing to the loss, so they need not be computed."""
    demonstrated: ClassVar[bool] = False
    """Learns from an expert's episodes, collected once, instead of its own."""

    refuses: ClassVar[tuple[str, ...]] = ()
    """Settings of this base class that the algorithm refuses; a change to it on the command line leaves them out."""

    def __init__(
        self,
        policy: CausalLMPolicy,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        kl: KL = KL(),  # noqa: B008 - frozen, so sharing one default is safe
        clip: float = 0.2,
        dual_clip: float | None = 3.0,
        importance_cap: float | None = None,
        per_episode_mean: bool = False,
        warmup: int = 0,
        anneal: bool = False,
    ) -> None:
        super().__init__()
        if clip <= 0:
            raise BadInput("model.clip", f"{clip} is not above 0.", "Give it a positive value, usually 0.2.")
        if dual_clip is not None and dual_clip <= 1:
            raise BadInput("model.dual_clip", f"{dual_clip} is not above 1.", "Set it to 3, or to null for none.")
        if importance_cap is not None and importance_cap < 1:
            reason = f"{importance_cap} is below 1, so tokens would count for less where sampler and trainer agree."
            raise BadInput("model.importance_cap", reason, "Set it to 2, or to null for no correction.")
        if importance_cap is not None and self.demonstrated:
            reason = "demonstrations were sampled from no policy, so there is nothing to correct."
            raise BadInput("model.importance_cap", reason, "Set it to null.")
        if kl.used and self.demonstrated:
            reason = "an expert's tokens are not the policy's, so they say nothing of how far it is from the reference."
            raise BadInput("model.kl", reason, "Leave it out.")
        if warmup < 0:
            raise BadInput("model.warmup", f"{warmup} is below 0.", "Set it to 0 for none.")
        self.policy, self.optimizer, self.kl, self.clip, self.dual_clip = policy, optimizer, kl, clip, dual_clip
        self.importance_cap = importance_cap
        self.per_episode_mean, self.warmup, self.anneal = per_episode_mean, warmup, anneal
        self.temperature = 1.0
        self.kl_coefficient = kl.reward or kl.loss
        self.reference: Weights | None = None
        self.numbers: dict[str, float] = {}
        self.per_step: frozenset[str] = frozenset()
        """Those of the numbers that are sums over an optimizer step's tokens on all ranks, of this rank's tokens alone."""
        self._tally = Tally()
        self._expected_version, self._learning_rate = 0, 0.0
        self.strict_loading = False  # a checkpoint holds what is trained, not the frozen weights

    # what an algorithm says

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Advantages and returns, both (B, A)."""
        raise NotImplementedError

    def loss(self, scores: ActionScores, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The policy loss, and named numbers to log (each a weighted sum over the batch's tokens)."""
        own_BA, cap = batch.own_logprobs_BA, self.importance_cap
        factors_BA = None if cap is None else losses.truncated_ratio(own_BA, batch.old_logprobs_BA, cap)
        columns = (scores.logprobs_BA, own_BA, batch.advantages_BA, batch.weights_BA)
        policy_loss, clipped = losses.clipped_surrogate(*columns, self.clip, self.dual_clip, factors_BA)
        return policy_loss, {"policy_loss": policy_loss, "clip_fraction": clipped}

    def values(self, scores: ActionScores) -> tuple[Tensor, Tensor]:
        """Values before each action token (B, A), and after the last one (B,); asked of an algorithm with a critic."""
        raise NotImplementedError

    has_critic: ClassVar[bool] = False

    @property
    def needs_assessment(self) -> bool:
        """Whether anything must be computed between collection and crediting."""
        return self.kl.used or self.has_critic or self.importance_cap is not None

    # between collection and training

    @torch.no_grad()
    def assess(self, tree: TokenTree) -> Assessment:
        """What crediting and the loss need of these episodes."""
        own_BA = reference_BA = values_BA = torch.zeros(tree.mask_BA.shape)
        after_B = torch.zeros(len(tree.last_B))
        if self.has_critic or self.importance_cap is not None:
            scores = self.policy.score(tree, self.temperature)
            own_BA = scores.logprobs_BA
            values_BA, after_B = self.values(scores) if self.has_critic else (values_BA, after_B)
        if self.kl.used:
            if self.reference is None:
                raise RuntimeError("the reference policy was not set before the first iteration")
            with self.policy.using(self.reference):
                reference_BA = self.policy.score(tree, self.temperature).logprobs_BA
        return Assessment(own_BA, reference_BA, values_BA, after_B)

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all processes of the run."""
        if not self._trainer or self.trainer.world_size == 1:
            return x
        mine = x.to(self.device, copy=True)  # NCCL sums on the device alone, and in place
        return cast(Tensor, self.trainer.strategy.reduce(mine, reduce_op="sum")).to(x.device)

    def adapt_kl(self, kl_per_token: float, episodes: int) -> None:
        """Move an adaptive coefficient towards its target."""
        self.kl_coefficient = self.kl.adapted(self.kl_coefficient, kl_per_token, episodes)

    # Lightning

    def configure_model(self) -> None:
        """Load the weights where Lightning wants them; the constructor loads nothing."""
        self.policy.load()

    def configure_optimizers(self) -> Any:
        """One optimizer, one parameter group for the policy and one for each extra part an algorithm has."""
        optimizer = self.optimizer(self.parameter_groups())
        if not (self.warmup or self.anneal):
            return optimizer
        total = self.trainer.estimated_stepping_batches if self.anneal else math.inf
        if self.anneal and math.isinf(total):
            raise BadInput("model.anneal", "the run has no last step to fall to 0 at.", "Set trainer.max_epochs.")
        share = partial(share_of_learning_rate, warmup=self.warmup, total=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, share), "interval": "step"}}

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        """What is trained. An algorithm with a critic adds a group with its own learning rate."""
        return [{"params": list(self.policy.trainable.values())}]

    def on_fit_start(self) -> None:
        """Keep the reference policy; a resumed run has it from the checkpoint, and the base model is kept earlier."""
        self.keep_reference()

    def keep_reference(self) -> None:
        """The policy as it is now becomes the reference, if one is needed and there is none yet."""
        if self.kl.used and self.reference is None:
            self.reference = self.policy.snapshot()

    def validation_step(self, batch: Any) -> Any:
        """Validation episodes are collected by the data module and measured by a callback; they pass through."""
        return batch

    def on_train_epoch_start(self) -> None:
        """Everything trained in this epoch must have been sampled with these weights."""
        refuse_accumulation(self.trainer.accumulate_grad_batches)  # a callback can have changed it
        self._tally, self._expected_version = Tally(), self.global_step

    @property
    def expected_version(self) -> int:
        """Of the weights that what is trained now must have been sampled with; -1 where demonstrations are trained."""
        return -1 if self.demonstrated else self._expected_version

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Frozen dataclasses move themselves; validation episodes stay where they are."""
        return batch.to(device) if isinstance(batch, Minibatch) else batch

    def training_step(self, minibatch: Minibatch) -> Tensor:
        """The loss of one optimizer step, summed over the parts of its minibatch; see `total_loss`.

        Raises:
            RuntimeError: the batch was sampled with other weights than this iteration began with.
        """
        version, expected = minibatch.policy_version, self.expected_version
        if version != expected:
            raise RuntimeError(f"stale batch: sampled at policy version {version}, trained at {expected}")
        self.policy.steps = self.global_step
        scaler = self._scaler
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        self.zero_grad()  # of the last step; Lightning does it only when this step's are there as well
        parameters = [p for p in self.parameters() if p.requires_grad]
        return total_loss(self._loss_of_part, minibatch.parts, parameters, scale)

    def _loss_of_part(self, batch: TokenBatch) -> Tensor:
        """What a part adds to the loss; its numbers are noted."""
        scores = self.policy.score(batch.tree, self.temperature)
        loss, numbers = self.loss(scores, batch)
        if self.kl.loss:
            kl = (batch.weights_BA * losses.kl_k3(scores.logprobs_BA, batch.ref_logprobs_BA)).sum()
            loss = loss + self.kl_coefficient * kl
        self._tally.add(numbers | {"loss": loss})
        self._tally.add_per_token({"entropy": scores.entropy_BA}, batch.weights_BA)
        self._tally.computed_tokens += self.policy.computed(batch.tree)
        if batch.policy_version >= 0:
            compare(
                scores.logprobs_BA.detach(),
                batch,
                self.importance_cap,
                self.global_step == self._expected_version,
                self._tally,
            )
        return loss

    @property
    def _scaler(self) -> Any:
        """Of 16-mixed, which itself skips steps whose gradients are not finite; None elsewhere."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Note the learning rate; by the end of the iteration the scheduler has moved it on.

        Raises:
            NonFinite: gradients that would make the weights so.
        """
        if self._scaler is None and not gradients_are_finite(self.parameters()):
            refuse_non_finite(torch.tensor(math.nan), self, f"optimizer step {self.global_step}", "gradients")
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        """Log the means over the iteration's optimizer steps; what is measured on tokens, over those that were trained.

        ``entropy`` of the policy; ``logprob_gap``, the mean absolute difference of log-probabilities to those at sampling
        time; ``update_kl``, the k3 estimate of KL(policy at sampling || policy in training) before each step.
        ``sampler_gap``, ``sampler_kl`` and ``sampler_ratio_max``: the same difference, KL and the largest ratio between trainer
        and sampler with equal weights, over the tokens of the first optimizer step, or with ``importance_cap`` over those of
        all; ``sampler_truncated``, the share of tokens whose ratio was above it. Without any signal there are none of them.

        Raises:
            NonFinite: weights that would be written into a checkpoint.
        """
        self.policy.steps = self.global_step
        for p in self.policy.trainable.values():
            refuse_non_finite(p.detach(), self.policy.hf, f"after {self.global_step} optimizer steps", "weights")
        result = self._tally.result(self.global_step - self._expected_version)
        self.numbers, self.per_step = result | {"learning_rate": self._learning_rate}, self._tally.per_step
        # of several processes one without signal has fewer numbers: `EpisodeRecorder` gathers and logs them
        if self.trainer.world_size == 1:
            self.log_dict({f"train/{name}": value for name, value in self.numbers.items()})

    # checkpoints

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the module that loads it."""
        return {"algorithm": type(self).__qualname__, "policy": self.policy.identity, "kl": asdict(self.kl)}

    @property
    def trained(self) -> dict[str, Tensor]:
        """Everything that is trained, a critic too, by its name in a checkpoint."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def _trained_policy(self) -> dict[str, Tensor]:
        return {f"policy.{name}": p for name, p in self.policy.trainable.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained, the reference policy and the KL coefficient; the frozen weights are named by hash."""
        trained = self.trained
        checkpoint["state_dict"] = {n: t for n, t in checkpoint["state_dict"].items() if n in trained}
        checkpoint["lit_agents"] = {
            "identity": self.identity(),
            "reference": dict(self.reference) if self.reference is not None else None,
            "kl_coefficient": self.kl_coefficient,
        }

    def restore(self, checkpoint: dict[str, Any]) -> int:
        """Take the trained weights of a checkpoint, and nothing else of it.

        Returns:
            The optimizer steps behind them.

        Raises:
            BadInput: weights that are trained here are not in it.
        """
        mine = checkpoint.get("lit_agents", {}).get("identity", {}).get("algorithm") == type(self).__qualname__
        refuse_incomplete(checkpoint, self.trained if mine else self._trained_policy)
        self.load_state_dict(checkpoint["state_dict"], strict=False)
        self.policy.steps = int(checkpoint["global_step"])
        return self.policy.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the reference policy and the KL coefficient; a checkpoint of something else is refused."""
        refuse_other(checkpoint, self.identity())
        refuse_incomplete(checkpoint, self.trained)
        self.policy.steps = int(checkpoint["global_step"])
        kept = checkpoint["lit_agents"]
        self.reference, self.kl_coefficient = kept["reference"], kept["kl_coefficient"]
