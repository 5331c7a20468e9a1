"""One-line faults in who plays what world, and in what is made of one that breaks; a part of `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault

COLLECTOR, POOL = ("tests/rollout/test_collector.py",), ("tests/environment/test_pool.py", "-k", "interrupt")
EVALUATE = ("tests/integration/test_evaluate.py", "-k", "broke or without_a_number")
GATHERED, LORA = ("tests/report/test_load.py",), ("tests/policy/test_causal_lm.py", "-k", "lora")
EXPORT = ("tests/integration/test_export.py",)

OWN = ("tests/environment/textworld/test_own_games.py", "-k", "own_games")
SPLITS, SEEN = ("tests/environment/test_split_overlap.py",), ("tests/integration/test_splits.py",)

WORLD_FAULTS = [
    Fault("train on test tasks that have another name", "environment/split_overlap.py",
          '.encode(errors="surrogatepass")).hexdigest()[:16]',
          '.encode(errors="surrogatepass")).hexdigest()[:0] or None', SPLITS),
    Fault("take all rows of a file for one task", "environment/split_overlap.py",
          "if owners.setdefault(found, task.id) != task.id}", "if not owners}", SPLITS),
    Fault("play with fewer tasks than asked for", "environment/split_overlap.py",
          "if len(found) < count:", "if not found:", SPLITS),
    Fault("leave a task that is in a split twice", "environment/split_overlap.py",
          "if name is not None and name in table:", "if name is None:", SPLITS),
    Fault("train on the tests of another place", "fit.py",
          "sets += data.elsewhere(other).preflight(", "data.elsewhere(other).preflight(", SEEN),
    Fault("evaluate where training has the same tasks", "evaluate.py",
          'sets += data.other_splits("test", demonstrated=bool(cli.value("sft")))', "pass", SEEN),
    Fault("test on what the checkpoint was trained on", "rollout/held_out.py",
          "if name in held]", "if name in set[str]()]", SEEN),
    Fault("serve one of the user's games in two splits", "environment/textworld/own_games.py",
          "            if game.sha256 in owners:", "            if owners is None:", OWN),
    Fault("play a game that its walkthrough does not win", "environment/textworld/own_games.py",
          "    if not won:", "    if False:", OWN),
    Fault("take seeds that two splits share", "environment/textworld/env.py",
          "        if first < second:", "        if first < 0:", (*OWN[:1], "-k", "seeds")),
    Fault("cook for the tests what training has", "environment/textworld/challenges.py",
          '"validation": "valid", "test": "test"}', '"validation": "train", "test": "train"}', (*OWN[:1], "-k", "names")),
    Fault("forget what the run before has seen", "rollout/datamodule.py",
          'seen_in(sets, known, started.get("start_from", {}))', "seen_in(sets, known, {})", SEEN),
    Fault("imitate what the agent could never say", "rollout/collector.py",
          "elif not choice.finished or len(choice.ids) > self._max_tokens:", "elif not choice.finished:", COLLECTOR),
    Fault("leave the games that an expert gives up out of its rate", "rollout/collector.py",
          "return self.episode(StopReason.ENDED) if self.turns else self", "return self", COLLECTOR),
    Fault("imitate who lost beside one that won", "rollout/group_collector.py",
          "not all(episode.won for episode in group.episodes)", "not any(episode.won for episode in group.episodes)",
          ("tests/rollout/test_group_collector.py",)),
    Fault("test on games that training has", "environment/textworld/generate.py",
          'test=split == "test"', "test=False", ("tests/environment/textworld/test_generate.py", "-k", "tw_make")),
    Fault("take the helper's answer of before Ctrl-C for the next one", "environment/pool/pool.py",
          "        except KeyboardInterrupt:\n            self.close()\n", "        except KeyboardInterrupt:\n", POOL),
    Fault("make a number of what is left of a broken world", "evaluate.py",
          'for name in [name for name in ("policy", "against") if name in rows]:', "for name in list[str]():", EVALUATE),
    Fault("write what is no number into a file", "evaluation/result.py",
          "None if value != value else value", "value", EVALUATE),
    Fault("call a checkpoint the untouched model", "run/record.py",
          'stages = {START if began_with else "base": stages["base"], **trained}',
          'stages = {"base": stages["base"], **trained}', GATHERED),
    Fault("leave minibatches out", "algorithm/micro_batches.py",
          "if not (isinstance(batches, float) and batches == 1.0):", "if batches != 1:",
          ("tests/algorithm/test_micro_batches.py", "-k", "trained_on")),
    Fault("adapt fewer layers than were named", "policy/lora.py",
          "for name in lora.targets if name not in there]", "for name in lora.targets if not there]",
          LORA),
    Fault("let adapters be lost in the embeddings' matrix", "policy/lora.py",
          "if linear.weight is matrix]", "if linear is matrix]", LORA),
    Fault("export the untouched model", "run/export.py", "    policy.load_state_dict(weights, strict=False)\n", "", EXPORT),
    Fault("export without what adapters have learnt", "policy/merge_lora.py",
          "value = value.float() + layer.get_delta_weight(adapter).float()", "value = value.float()", EXPORT),
    Fault("leave half a model where a whole one should be", "run/export.py",
          'made = Path(scratch) / "model"', "made = folder.resolve()", EXPORT),
]  # fmt: skip
