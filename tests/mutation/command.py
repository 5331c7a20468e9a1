"""One-line faults in what commands read and refuse; a part of `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault

COMMANDS = ("tests/integration/test_command_line.py", "-k", "not abbreviation")
ABBREVIATED = ("tests/integration/test_command_line.py", "-k", "abbreviation")
CONTRACTS = ("tests/integration/test_contracts.py", "-k")
REWARDS, CREDIT = (*CONTRACTS, "reward or real_episode"), (*CONTRACTS, "credit")
WORLD, MODEL, NAMES = (*CONTRACTS, "validation_tasks"), (*CONTRACTS, "quantised"), (*CONTRACTS, "any_name or report")
REFUSED = ("tests/integration/test_errors.py", "-k", "cannot_work or callbacks")

COMMAND_FAULTS = [
    Fault("keep the knobs of another algorithm", "run/overrides.py",
          "if name not in accepted:", "if name is None:", COMMANDS),
    Fault("forget the shared settings when the algorithm changes", "run/overrides.py",
          "return {\"init_args\": {name: value for name, value in given.items() if name in accepted}}",
          "return {\"init_args\": {}}", COMMANDS),
    Fault("leave the null of a flag out", "run/overrides.py", "there[names[-1]] = None", "pass", COMMANDS),
    Fault("let a file win over a flag before it", "run/overrides.py",
          "return [f\"--config={files[0]}\", *_text(others)], []", "return list(args), []", COMMANDS),
    Fault("read 1e-3 as text", "system/yaml_text.py", "found.setdefault(first, []).append((_FLOAT, _NUMBER))", "pass", COMMANDS),
    Fault("take abbreviations for settings", "run/cli.py",
          'super().__init__(*args, **{"allow_abbrev": False, **kwargs})', "super().__init__(*args, **kwargs)", ABBREVIATED),
    Fault("believe whatever a reward returns", "reward/checked.py",
          "if not isinstance(found, TurnRewards):", "if found is None:", REWARDS),
    Fault("believe that a reward has a number for each turn", "reward/checked.py",
          "if len(values) != turns:", "if len(values) > turns:", REWARDS),
    Fault("ask no reward before models are loaded", "rollout/datamodule.py",
          "check_reward(self.reward, tasks[0])", "pass", REWARDS),
    Fault("spread an episode's credit over tokens in silence", "algorithm/credit_check.py",
          "if shapes != [(2, 3), (2, 3)]:", "if not shapes:", CREDIT),
    Fault("begin without validation tasks", "rollout/datamodule.py", "            if not tasks:", "            if tasks is None:",
          WORLD),
    Fault("load a quantised model", "policy/loading.py",
          'if (quantised := getattr(config, "quantization_config", None)) is not None:', "if (quantised := None):", MODEL),
    Fault("take the name of a run for a pattern", "run/folder.py", "glob.escape(name)", "str(name)", NAMES),
    Fault("name a report of several runs after the first one", "report/__main__.py",
          "return Path(os.path.commonpath(whole)).name or whole[0].name", "return whole[0].name", NAMES),
    Fault("average the weights that sample", "run/trainer_checks.py",
          "if isinstance(callback, AVERAGES):", "if callback is None:", REFUSED),
    Fault("take any optimizer until it is needed", "run/trainer_checks.py", "made.step(lambda: 0.0)", "assert made", REFUSED),
    Fault("validate within an iteration", "run/trainer_checks.py",
          "if every is None or every < 1:", "if every is None:", REFUSED),
    Fault("seed with any number", "errors.py", "if not 0 <= seed < 2**32:", "if seed is None:", REFUSED),
    Fault("train adapters of no layer", "policy/lora.py", "if not self.targets:", "if self.targets is None:", REFUSED),
]  # fmt: skip
