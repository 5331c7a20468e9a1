"""Each sign is seen where it is and nowhere else, is said once, and can end the run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lit_agents.errors import BadInput
from lit_agents.fit import fit
from lit_agents.run.callbacks.health import EarlyWarning, Watch
from tests.integration.conftest import one_thread, tiny_weights, toy

__all__ = ["one_thread", "tiny_weights", "toy"]

SOUND = {
    "train/entropy": 0.5, "rollout/kl": 0.05, "train/update_kl": 0.003, "rollout/groups_played": 8.0,
    "rollout/groups_without_signal": 4.0, "rollout/unfinished_rate": 0.05, "train/sampler_gap": 0.02,
}  # fmt: skip
BAD = {
    "entropy": {"train/entropy": 0.01},
    "kl": {"rollout/kl": 1.5},
    "update_kl": {"train/update_kl": 0.2},
    "silent_groups": {"rollout/groups_without_signal": 8.0},
    "unfinished": {"rollout/unfinished_rate": 0.8},
    "logprob_gap": {"train/sampler_gap": 0.3},
}


@pytest.mark.parametrize("name", BAD)
def test_a_sign_is_seen_by_its_own_number_alone_and_can_be_switched_off(name: str):
    watch = Watch()
    assert watch.signs(SOUND, []) == {}
    found = watch.signs(SOUND | BAD[name], [])
    assert list(found) == [name] and f"{getattr(watch, name):g}" in found[name]
    assert Watch(**{name: None}).signs(SOUND | BAD[name], []) == {}


def test_what_is_not_measured_is_not_judged_and_what_is_no_number_is_a_warning():
    assert Watch().signs({}, []) == {}
    assert list(Watch().signs(SOUND | {"train/entropy": float("nan")}, [])) == ["entropy"]


def test_an_iteration_without_signal_ends_a_row_of_signs():
    low, silent = SOUND | BAD["entropy"], {"rollout/success": 0.5}
    assert judged(EarlyWarning(Watch(patience=2), dict), [low, silent, low]) == []


def test_a_fall_of_success_is_that_of_five_iterations_from_the_best_five():
    rising, fallen = [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.7, 0.7], [0.4, 0.4, 0.5, 0.4, 0.4]
    assert Watch().signs({}, rising) == {}
    # best five .6 .7 .8 .7 .7 = .7, last five .42
    assert list(Watch().signs({}, rising + fallen)) == ["success_drop"]
    assert Watch(success_drop=0.281).signs({}, rising + fallen) == {}
    assert Watch(success_drop=0.279).signs({}, rising + fallen)


class Module:
    def __init__(self) -> None:
        self.logged: list[str] = []

    def log(self, name: str, value: float, **_: Any) -> None:
        self.logged.append(name)


def judged(warning: EarlyWarning, rows: list[dict[str, float]]) -> list[str]:
    module = Module()
    for epoch, row in enumerate(rows):
        warning._row = lambda row=row: row
        trainer: Any = SimpleNamespace(current_epoch=epoch, should_stop=False)
        warning.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    return module.logged


def test_it_is_said_once_when_it_has_lasted_and_again_only_after_it_was_over(capsys):
    low, fine = SOUND | BAD["entropy"], SOUND
    warning = EarlyWarning(Watch(patience=2), dict)
    assert judged(warning, [low, fine, low, low, low, fine, low, low]) == ["warning/entropy"] * 2
    assert [text.partition(":")[0] for text in warning.said] == ["iteration 4", "iteration 8"]
    assert capsys.readouterr().err.count("warning: iteration") == 2 and not warning.stopped


def test_its_memory_is_part_of_a_checkpoint():
    low = SOUND | BAD["entropy"] | {"rollout/success": 0.5}
    first, second = (EarlyWarning(Watch(patience=3), dict) for _ in range(2))
    judged(first, [low, low])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert judged(second, [low]) == ["warning/entropy"] and second.state_dict()["success"] == [0.5] * 3


def rows(run: str) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["stage"] == "rl"]


def test_a_run_can_be_stopped_by_a_warning_and_stays_stopped(toy: str, capfd):
    args = ["--config", toy, "--run", "run", "--watch.entropy", "50", "--watch.patience", "1", "--watch.stop", "true"]
    found = fit(args)
    error = capfd.readouterr().err
    assert "warning: iteration 1: entropy is" in error and "stopped by watch.stop" in error
    assert len(rows("run")) == 1 and list(found.results) == ["base", "sft", "rl"]
    assert len(json.loads(Path("run/summary.json").read_text())["warnings"]) == 1
    again = fit([*args, "--ckpt_path", "last"])
    assert len(rows("run")) == 1 and again.results == found.results
    assert "stopped by watch.stop before" in capfd.readouterr().err
    fit([*args, "--ckpt_path", "last", "--watch.stop", "false"])
    assert len(rows("run")) == 3


def test_a_warning_alone_stops_nothing_and_reaches_the_loggers(toy: str, tmp_path: Path):
    pytest.importorskip("tensorboard")
    Path("loggers.yaml").write_text(
        "trainer: {logger: [{class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {save_dir: logs}}]}"
    )
    fit(["--config", toy, "--config", "loggers.yaml", "--run", "run", "--watch.entropy", "50", "--watch.patience", "2"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for file in Path("logs").rglob("events.*"):
        tags |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    assert len(rows("run")) == 3 and "warning/entropy" in tags


@pytest.mark.parametrize(("setting", "value"), [("patience", 0), ("kl", -1.0)])
def test_limits_that_cannot_be_are_refused(setting: str, value: float):
    with pytest.raises(BadInput, match=f"watch.{setting}"):
        Watch(**{setting: value})  # type: ignore[arg-type]
