"""Faults of how a model is loaded, tried out and computed. See `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault

LOADING = ("tests/policy/test_loading.py",)
ATTENTION = ("tests/policy/test_attention.py",)
WEIGHTS = ("tests/policy/test_hub.py", "-k", "hash or index or adapters or lacks")
NON_FINITE = ("tests/policy/test_non_finite.py", "tests/algorithm/test_non_finite.py")
CHECKPOINTS = ("tests/algorithm/test_checkpoints.py",)

MODEL_FAULTS = [
    Fault("judge token trees in bfloat16", "policy/tree_check.py",
          "with computed_in_float32(model.base_model):", "if exact := model.dtype:", LOADING),
    Fault("leave the weights in float32 after the trial", "policy/widened.py",
          "                p.data = original.pop(p)", "                original.pop(p)", LOADING),
    Fault("judge token trees by what bfloat16 would round", "policy/tree_check.py",
          "TOLERANCE = 3e-5", "TOLERANCE = 0.06", LOADING),
    Fault("round large scores to bfloat16 in the backward pass", "policy/attention.py",
          "exact = torch.promote_types(torch.float32, query.dtype)", "exact = query.dtype", ATTENTION),
    Fault("let autocast round large scores in the backward pass", "policy/attention.py",
          "with torch.autocast(query.device.type, enabled=False):", "if True:", ATTENTION),
    Fault("forget the scale in the backward pass", "policy/attention.py",
          ".mul_(ctx.scale).to(query.dtype)", ".to(query.dtype)", ATTENTION),
    Fault("let missing weights be random", "policy/loading.py",
          '"has no tensor for": missing,', '"has no tensor for": [],', LOADING),
    Fault("leave out weights that the model does not know", "policy/loading.py",
          "none of this model's:\": unexpected,", "none of this model's:\": [],", LOADING),
    Fault("let weights of another shape be random", "policy/loading.py",
          '"has tensors of another shape:": misshapen,', '"has tensors of another shape:": [],', LOADING),
    Fault("hash what is not loaded", "policy/hub.py",
          "files = loaded_files(_checked(folder.resolve(), str(folder)))",
          'files = sorted(_checked(folder, "").glob("*.safetensors"))', WEIGHTS),
    Fault("hash the first file of several", "policy/hub.py",
          "return [folder / shard for shard in sorted(named)]",
          "return [folder / shard for shard in sorted(named)][:1]", WEIGHTS),
    Fault("believe the modification time of a file", "policy/hub.py",
          "stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]", "stat.st_ino, stat.st_mtime_ns]", WEIGHTS),
    Fault("load adapters as if they were a model", "policy/hub.py",
          'if (folder / "adapter_config.json").is_file():', "if False:", WEIGHTS),
    Fault("let a conversation be longer than the model's positions", "policy/positions.py",
          "if most is not None and context > most:", "if False:", LOADING),
    Fault("let a conversation be longer than a sliding window", "policy/positions.py",
          "if token_trees and limit is not None and context > limit:", "if False:", LOADING),
    Fault("let positions change their meaning with the length", "policy/positions.py",
          "if varies and context > min(varies):", "if False:", LOADING),
    Fault("load a model that cannot take the conversations", "fit.py",
          "module.policy.check_context(data.limits.context)", "pass",
          ("tests/integration/test_errors.py", "-k", "cannot_work and limits.context")),
    Fault("sample from logits that are not finite", "policy/engine/hf.py",
          "self._policy.refuse_non_finite(logits.amax(-1))", "logits.amax(-1)", NON_FINITE),
    Fault("train on log-probabilities that are not finite", "policy/causal_lm.py",
          "self.refuse_non_finite(logprobs_U.detach())", "logprobs_U.detach()", NON_FINITE),
    Fault("step along gradients that are not finite", "algorithm/base.py",
          "if self._scaler is None and not gradients_are_finite(self.parameters()):", "if False:", NON_FINITE),
    Fault("write weights that are not finite into a checkpoint", "algorithm/base.py",
          "for p in self.policy.trainable.values():", "for p in ():", NON_FINITE),
    Fault("go on with a fresh critic where the checkpoint's is missing", "algorithm/base.py",
          "        refuse_incomplete(checkpoint, self.trained)",
          "        refuse_incomplete(checkpoint, self._trained_policy)", CHECKPOINTS),
    Fault("restore a fresh critic where the checkpoint's is missing", "algorithm/base.py",
          "self.trained if mine else self._trained_policy", "self._trained_policy", CHECKPOINTS),
]  # fmt: skip
