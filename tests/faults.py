"""One-line faults that published code has had, or could have. Each must turn a test red: ``python scripts/mutants.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A line that is changed."""

    name: str
    file: str
    """Below ``lit_agents/``."""
    line: str
    """As it is; must stand in the file once."""
    fault: str
    """What it becomes."""
    tests: tuple[str, ...]
    """Where it should be noticed."""


ADVANTAGES, LOSSES = ("tests/algorithm/test_advantages.py",), ("tests/algorithm/test_losses.py",)
MODULE, TRIE = ("tests/algorithm/test_module.py",), ("tests/rollout/test_trie.py",)
ITERATION, COLLECTOR = ("tests/rollout/test_iteration.py",), ("tests/rollout/test_collector.py",)
ENGINE, POLICY, CHAT = (
    ("tests/policy/test_engine.py",),
    ("tests/policy/test_causal_lm.py",),
    ("tests/policy/test_chat.py",),
)
REWARDS, METRICS = ("tests/reward/test_rewards.py",), ("tests/evaluation/test_metrics.py",)
INTERRUPT = ("tests/integration/test_interrupt.py::test_an_interrupt_at_any_moment_says_how_to_go_on",)
GOLDEN, FIT = ("tests/integration/test_golden.py",), ("tests/integration/test_fit.py",)
HOSTILE, ERRORS = ("tests/integration/test_hostile.py",), ("tests/integration/test_errors.py",)
KILL = ("tests/integration/test_kill.py", "-k", "after and trained")

FAULTS = [
    # tokens and masks
    Fault("train on an observation token", "rollout/trie.py",
          "places += range(position, position + len(turn.action_ids))",
          "places += range(position - 1, position + len(turn.action_ids))", TRIE),
    Fault("leave the end-of-turn token out of the loss", "rollout/batch.py",
          "mask[b, place:stop] = 1", "mask[b, place : stop - 1] = 1", TRIE),
    Fault("credit the last turn alone", "rollout/batch.py",
          "mask[b, place:stop] = 1", "mask[b, place:stop] = float(turn is episode.turns[-1])", TRIE),
    Fault("put a turn's reward on its first token", "rollout/batch.py",
          "values[b, stop - 1] += value", "values[b, place] += value", TRIE),
    Fault("predict a token from itself", "rollout/trie.py",
          "(paths[b][place - 1], sequences[b][place])", "(paths[b][place], sequences[b][place])", TRIE),
    Fault("number positions through the whole forest", "rollout/trie.py",
          "self.positions.append(len(self.path) - 1)", "self.positions.append(len(self.ids) - 1)", TRIE),
    Fault("let episodes of a group see each other", "policy/attention.py",
          "sees = (keys[None] <= own[:, None]) & (own[:, None] < ends[keys][None])",
          "sees = keys[None] <= own[:, None]", TRIE + POLICY),
    Fault("drop the newline after the end of a turn", "policy/chat.py",
          'glue_ids = _template_ids(tokenizer, f"\\n{_OPEN}")', 'glue_ids = _template_ids(tokenizer, f"{_OPEN}")', CHAT),
    Fault("let an observation write special tokens", "policy/chat.py",
          'parts |= {"added_tokens": [], "post_processor"', 'parts |= {"post_processor"', CHAT),
    Fault("note the prompt of another turn", "rollout/players.py",
          "digest(request.ids))", "digest(requests[0].ids))", ("tests/integration/test_audit.py", "-m", "not slow")),
    # advantages
    Fault("discount without gamma", "algorithm/advantages.py",
          "running = torch.where(mask_BA[:, a], delta + gamma * lam * running, running)",
          "running = torch.where(mask_BA[:, a], delta + lam * running, running)", ADVANTAGES),
    Fault("bootstrap past every end", "rollout/iteration.py",
          "after_B = after_B * torch.tensor([float(e.stop.is_truncated) for e in found.episodes])",
          "after_B = after_B * torch.tensor([1.0 for e in found.episodes])", MODULE),
    Fault("bootstrap though it was not asked for", "algorithm/ppo.py",
          "return values_BA, after_B if self.bootstrap_truncated else zeros_like(after_B)",
          "return values_BA, after_B", MODULE),
    Fault("forget the later turns in a return", "algorithm/advantages.py",
          "running = torch.where(mask_BA[:, a], rewards_BA[:, a] + gamma * running, running)",
          "running = torch.where(mask_BA[:, a], rewards_BA[:, a], running)", ADVANTAGES),
    Fault("whiten over padding too", "algorithm/advantages.py",
          "count = reduce(mask_BA.sum().double()).clamp(min=1)",
          "count = reduce(torch.tensor(float(mask_BA.numel())).double())", ADVANTAGES),
    Fault("whiten each rank by itself", "algorithm/advantages.py",
          "mean = reduce(x.sum()) / count", "mean = x.sum() / mask_BA.sum()", ADVANTAGES),
    Fault("keep a member in its own baseline", "algorithm/advantages.py",
          "return centred_B * (counts / (counts - 1))[group_B]", "return centred_B", ADVANTAGES),
    Fault("divide by the deviation of the batch instead of the group", "algorithm/advantages.py",
          "return centred_B / ((squares / (counts - 1)).sqrt()[group_B] + 1e-6)",
          "return centred_B / (returns_B.std() + 1e-6)", ADVANTAGES),
    Fault("put G into the deviation's denominator", "algorithm/advantages.py",
          "return centred_B / ((squares / (counts - 1)).sqrt()[group_B] + 1e-6)",
          "return centred_B / ((squares / counts).sqrt()[group_B] + 1e-6)", ADVANTAGES),
    Fault("compare with the batch instead of the group", "algorithm/advantages.py",
          "centred_B = returns_B - (sums / counts)[group_B]", "centred_B = returns_B - returns_B.mean()", ADVANTAGES),
    Fault("take rounding for a signal", "algorithm/advantages.py",
          "return torch.where(without_signal(returns_B, group_B)[group_B], 0.0, centred_B), counts",
          "return centred_B, counts", ADVANTAGES),
    Fault("broadcast an advantage over the wrong axis", "algorithm/rloo.py",
          "return advantage_B[:, None] * experience.mask_BA, experience.rewards_BA",
          "return advantage_B.mean() * experience.mask_BA, experience.rewards_BA", MODULE),
    Fault("accept a group of one", "rollout/schedule.py",
          "if compares_group and self.group_size < 2:", "if compares_group and self.group_size < 1:", ITERATION),
    # losses
    Fault("drop the clip", "algorithm/losses.py", "loss = torch.maximum(plain, clipped)", "loss = plain", LOSSES),
    Fault("clip to the optimist's side", "algorithm/losses.py",
          "loss = torch.maximum(plain, clipped)", "loss = torch.minimum(plain, clipped)", LOSSES),
    Fault("drop the dual clip", "algorithm/losses.py",
          "loss, acted = torch.where(above, ceiling, loss), acted | above", "loss, acted = loss, acted | above", LOSSES),
    Fault("let columns of different shapes broadcast", "algorithm/losses.py",
          "if len(set(shapes)) > 1:", "if len(set(shapes)) > 9:", LOSSES),
    Fault("take the better of the critic's two errors", "algorithm/losses.py",
          "error = torch.maximum(error, (held - returns_BA).square())",
          "error = torch.minimum(error, (held - returns_BA).square())", LOSSES),
    Fault("turn k3 round", "algorithm/losses.py",
          "minus_d = ref_logprobs_BA - logprobs_BA", "minus_d = logprobs_BA - ref_logprobs_BA", LOSSES),
    Fault("use k1 as a loss", "algorithm/module.py",
          "kl = (batch.weights_BA * losses.kl_k3(scores.logprobs_BA, batch.ref_logprobs_BA)).sum()",
          "kl = (batch.weights_BA * losses.kl_k1(scores.logprobs_BA, batch.ref_logprobs_BA)).sum()", MODULE),
    Fault("average over episodes where tokens were asked for", "algorithm/losses.py",
          "    if per_episode:", "    if not per_episode:", LOSSES),
    Fault("unlearn the demonstrations", "algorithm/losses.py",
          "return -(weights_BA * logprobs_BA).sum()", "return (weights_BA * logprobs_BA).sum()", LOSSES),
    # the module
    Fault("train on stale rollouts", "algorithm/module.py",
          "if batch.policy_version not in (-1, self._expected_version):", "if batch.policy_version < -1:", MODULE),
    Fault("collect once and train on that for ever", "rollout/datamodule.py",
          "if self.latest is None or not module.demonstrated:", "if self.latest is None:", GOLDEN),
    Fault("average micro-batches that should add up", "algorithm/module.py",
          "return loss * accumulated", "return loss", MODULE),
    Fault("take the policy of today for the reference", "algorithm/module.py",
          "with self.policy.using(self.reference):", "with self.policy.using(self.policy.snapshot()):", MODULE),
    Fault("reward the distance to the reference", "rollout/iteration.py",
          "rewards_BA = rewards_BA - module.kl_coefficient * difference_BA",
          "rewards_BA = rewards_BA + module.kl_coefficient * difference_BA", MODULE),
    Fault("adapt the KL coefficient the wrong way", "algorithm/kl.py",
          "error = min(max(kl_per_token / self.target - 1, -0.2), 0.2)",
          "error = min(max(1 - kl_per_token / self.target, -0.2), 0.2)", MODULE),
    Fault("let the critic's gradient into the policy", "algorithm/ppo.py",
          "hidden = [h if self.share_trunk else h.detach() for h in (scores.hidden_BAH, scores.last_BH)]",
          "hidden = [h for h in (scores.hidden_BAH, scores.last_BH)]", MODULE),
    Fault("score at another temperature than was sampled at", "policy/causal_lm.py",
          "return cast(Tensor, logits if temperature == 1 else logits / temperature)",
          "return cast(Tensor, logits)", ENGINE + POLICY),
    Fault("count each rank's mean the same, whatever it has", "rollout/datamodule.py",
          "return count * self.trainer.world_size / max(everywhere, 1.0)", "return 1.0", GOLDEN),
    # episodes
    Fault("count a loss as a win", "rollout/collector.py",
          "kind = StopReason.WON if result.won else StopReason.LOST if result.lost else StopReason.ENDED",
          "kind = StopReason.WON", COLLECTOR),
    Fault("play an action that has no end", "rollout/collector.py",
          "elif not choice.finished:", "elif choice.finished is None:", COLLECTOR),
    Fault("allow a turn too many", "rollout/collector.py",
          "if len(draft.turns) >= self._limits.turns:", "if len(draft.turns) > self._limits.turns:", COLLECTOR),
    Fault("turn a crash into a lost game", "rollout/collector.py",
          "            return draft.episode(result.stop, result.error)\n        before",
          "            return draft.episode(StopReason.LOST)\n        before", COLLECTOR),
    Fault("forget what the agent said", "rollout/collector.py",
          "        draft.ids += choice.ids\n", "        draft.ids += choice.ids[:-1]\n", COLLECTOR),
    Fault("say a wrong version", "rollout/collector.py",
          "acting[session], choices[session], result, player.version",
          "acting[session], choices[session], result, 0", FIT + COLLECTOR),
    Fault("keep failed episodes in the group's baseline", "rollout/iteration.py",
          "if not e.stop.is_failure)\n            yield EpisodeGroup(task, sound)",
          "if e)\n            yield EpisodeGroup(task, sound)", ITERATION),
    Fault("let a world break for ever", "rollout/iteration.py",
          "len(failures) <= self.schedule.max_failures * attempts:", "len(failures) <= attempts:", ITERATION),
    Fault("give every attempt the same random numbers", "rollout/iteration.py",
          "self._place(n), task.id, member, attempt)", "self._place(n), task.id, member, 0)", ITERATION),
    Fault("give every turn the same random numbers", "rollout/players.py",
          "Request(s.session, s.ids, stream(*s.key))", "Request(s.session, s.ids, stream(*s.key[:-1]))", GOLDEN + FIT),
    Fault("play the tasks of every pass in one order", "rollout/sampler.py",
          'order = stream("tasks", self._seed, around)', 'order = stream("tasks", self._seed)', ITERATION),
    # generation
    Fault("let a token not see itself", "policy/engine/kv_cache.py",
          "[None] <= new[:, None]", "[None] < new[:, None] + (new[:, None] == 0)", ENGINE),
    Fault("copy too little of a shared beginning", "policy/engine/transformers.py",
          "requests[leader].session, request.session, start, len(request.ids))",
          "requests[leader].session, request.session, start, len(request.ids) - 1)", ENGINE),
    Fault("keep what another conversation left in the cache", "policy/engine/transformers.py",
          "            self._cached[session] = []\n", "            pass\n", ENGINE),
    Fault("note the log-probability of another token", "policy/sampling.py",
          "logprobs_BV.gather(1, ids_B1)", "logprobs_BV.gather(1, ids_B1 * 0)", ENGINE),
    # rewards and rates
    Fault("pay a full score without a win in full", "reward/dense.py",
          "after = before if score >= episode.max_score and not episode.won else score", "after = score", REWARDS),
    Fault("take points for a share", "reward/dense.py",
          "unit = episode.max_score if self.normalise else 1.0", "unit = 1.0", REWARDS),
    Fault("take a full score for a win", "reward/outcome.py",
          "self.win if episode.won else self.loss", "self.win if episode.score >= episode.max_score else self.loss", REWARDS),
    Fault("count failures as episodes that were not won", "evaluation/metrics.py",
          "n = sum(count for stop, count in stops.items() if not stop.is_failure)",
          "n = sum(count for stop, count in stops.items())", METRICS),
    Fault("centre Wilson's interval elsewhere", "evaluation/metrics.py",
          "centre = rate + spread / 2", "centre = rate + spread", METRICS),
    Fault("estimate pass@k with a bias", "evaluation/samples.py",
          "1 - math.comb(n - c, k) / math.comb(n, k) for c, n", "1 - (1 - c / n) ** k for c, n",
          ("tests/evaluation/test_samples.py",)),
    Fault("believe that samples of a task are independent", "evaluation/samples.py",
          "worth = min(n, max(tasks, rate * (1 - rate) / variance)) if variance else tasks", "worth = n",
          ("tests/evaluation/test_samples.py",)),
    Fault("compare across conditions", "evaluate.py",
          'if found and not self.cli.value("allow_different"):', "if found and self.cli is None:",
          ("tests/integration/test_evaluate.py",)),
    # going on
    Fault("begin the ledger again after a resume", "rollout/datamodule.py",
          'self.ledger.go_on_from(state_dict["ledger"], first=self.trainer is None or self.trainer.is_global_zero)',
          "pass", INTERRUPT),
    Fault("begin the tasks again after a resume", "rollout/datamodule.py",
          'self.iteration = state_dict["iteration"]', "self.iteration = 0", INTERRUPT),
    Fault("keep rows written after the checkpoint", "run_folder.py",
          "                    os.truncate(path, size)", "                    pass", KILL),
    Fault("lose the adaptive coefficient at a resume", "algorithm/module.py",
          'self.reference, self.kl_coefficient = kept["reference"], kept["kl_coefficient"]',
          'self.reference = kept["reference"]', MODULE),
    Fault("take another reference after a resume", "algorithm/module.py",
          'self.reference, self.kl_coefficient = kept["reference"], kept["kl_coefficient"]',
          'self.kl_coefficient = kept["kl_coefficient"]', MODULE),
    Fault("forget the warnings at a resume", "callbacks/early_warning.py",
          'self._in_a_row, self.stopped = dict(state_dict["in_a_row"]), bool(state_dict["stopped"])',
          'self._in_a_row = dict(state_dict["in_a_row"])', ("tests/callbacks/test_early_warning.py",)),
    # files from strangers
    Fault("unpickle a checkpoint", "algorithm/checkpoint.py", "weights_only=True", "weights_only=False", HOSTILE),
    Fault("run the code that comes with weights", "policy/causal_lm.py",
          '"attn_implementation": ATTENTION, "trust_remote_code": False}',
          '"attn_implementation": ATTENTION, "trust_remote_code": True}', HOSTILE),
]  # fmt: skip
