"""The audit beyond tokens: sound runs have no fault, and each file that is changed is found out, by name and value."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_agents.algorithm.grpo import GRPO
from lit_agents.audit import main
from lit_agents.evaluation.episode_store import read_episodes
from lit_agents.fit import fit
from lit_agents.run.audit import audit
from tests.integration.conftest import TOY

Row = dict[str, Any]
Change = Callable[[Any], None]
UNTAUGHT = ("--sft", "null", "--data.reward", "tests.integration.two_ranks.Checksum", "--trainer.max_epochs", "2",
            "--trainer.check_val_every_n_epoch", "1", "--data.test_tasks", "2", "--data.validation_tasks", "2")  # fmt: skip
"""A random policy whose returns differ."""


class Halved(GRPO):
    """A user's own algorithm."""

    def credit(self, experience: Any) -> Any:
        advantages, returns = super().credit(experience)
        return advantages / 2, returns


def trained(weights: Path, folder: Path, kind: str, *args: str) -> Path:
    """A finished run of an algorithm."""
    (folder / "toy.yaml").write_text(TOY.format(weights=weights).replace("grpo.GRPO", kind))
    fit(["--config", str(folder / "toy.yaml"), "--run", str(folder / "run"), *args])
    return folder / "run"


@pytest.fixture(scope="module")
def sound(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages of GRPO."""
    return trained(tiny_weights, tmp_path_factory.mktemp("run_audit"), "grpo.GRPO", "--trainer.max_epochs", "2",
                   "--elsewhere", '{"other": {"split": "validation"}}')  # fmt: skip


@pytest.fixture(scope="module")
def critic(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO whose episodes are cut by the context, with the critic's value after the end."""
    return trained(tiny_weights, tmp_path_factory.mktemp("ppo"), "ppo.PPO", *UNTAUGHT, "--model.gamma", "0.9",
                   "--model.lam", "0.8", "--model.bootstrap_truncated", "true", "--data.limits.context", "58",
                   "--data.sampling.max_tokens", "12", "--data.evaluation.max_tokens", "12",
                   "--model.critic_lr", "0.05", "--data.schedule.passes", "2")  # fmt: skip


@pytest.fixture(scope="module")
def penalised(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RLOO with an adaptive KL in the reward."""
    kl = '{"reward": 0.1, "target": 0.001, "horizon": 50}'
    return trained(tiny_weights, tmp_path_factory.mktemp("rloo"), "rloo.RLOO", *UNTAUGHT, "--model.kl", kl)


@pytest.fixture(scope="module")
def whitened(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REINFORCE++ with a discount."""
    return trained(tiny_weights, tmp_path_factory.mktemp("rpp"), "reinforce_pp.ReinforcePP", *UNTAUGHT,
                   "--model.gamma", "0.9", "--model.kl", '{"loss": 0.1}')  # fmt: skip


def checked(run: Path, what: str, again: int | None = None) -> int:
    """How often something was checked in a run without fault."""
    found = audit(run, again=again)
    assert found.findings.faults == []
    return found.findings.checked[what]


def trained_tokens(run: Path) -> int:
    rows = [json.loads(line) for line in (run / "trained.jsonl").read_text().splitlines()]
    return sum(len(ids) for row in rows if row["stage"] == "rl" for _, ids, _ in row["runs"])


def test_a_sound_run_has_no_fault_and_the_last_line_says_what_was_not_checked(sound: Path, capsys):
    assert main([str(sound), "--replay"]) == 0
    *_, verdict, last = capsys.readouterr().out.strip().splitlines()
    assert verdict == f"{sound}: no fault"
    assert last.startswith("not checked: ") and "optimizer steps" in last and "--replay" not in last
    assert checked(sound, "advantages computed again") == trained_tokens(sound) > 0
    assert main([str(sound)]) == 0
    assert "what the world answered (--replay plays it again)" in capsys.readouterr().out.splitlines()[-1]


def test_every_turn_is_played_again_or_as_many_episodes_as_asked_for(sound: Path, capsys):
    turns = sum(len(s.episode.turns) for s in read_episodes(sound / "episodes.jsonl"))
    unplayed = sum(not t.signals for s in read_episodes(sound / "episodes.jsonl") for t in s.episode.turns)
    assert checked(sound, "turns played again", again=0) == turns - unplayed
    assert checked(sound, "episodes played again", again=5) == 5
    assert main([str(sound), "--replay", "5"]) == 0
    assert "episodes that were not played again" in capsys.readouterr().out.splitlines()[-1]


def test_the_critics_advantages_and_targets_are_computed_again(critic: Path):
    found = audit(critic)
    assert found.findings.faults == []
    tokens = trained_tokens(critic)
    # of two passes the first is computed again; the second must equal it
    assert 2 * found.findings.checked["advantages computed again"] == tokens > 0
    assert found.findings.checked["targets of the critic computed again"] == tokens / 2
    assert any("values after the end" in what for what in found.findings.unchecked)


def test_returns_with_kl_and_whitened_returns_are_computed_again(penalised: Path, whitened: Path):
    for run in (penalised, whitened):
        assert checked(run, "advantages computed again") == trained_tokens(run) > 0


def test_a_run_of_demonstrations_alone_has_no_fault(tiny_weights: Path, tmp_path: Path):
    run = trained(tiny_weights, tmp_path, "sft.SFT", "--sft", "null", "--data.train_tasks", "8", "--trainer.max_epochs", "2",
                  "--data.schedule.tasks", "8", "--data.schedule.group_size", "1")  # fmt: skip
    assert checked(run, "trained rows") == 16


def test_silent_groups_that_were_played_again_and_a_run_that_begins_with_another_have_no_fault(
    tiny_weights: Path, tmp_path: Path, sound: Path
):
    args = [
        "--data.schedule.resample_rounds",
        "2",
        "--sft",
        "null",
        "--trainer.max_epochs",
        "2",
        "--data.train_tasks",
        "5",
    ]
    args += ["--start_from", str(sound / "checkpoints" / "sft" / "last.ckpt")]
    run = trained(tiny_weights, tmp_path, "rloo.RLOO", *args)
    assert any(s.episode.round for s in read_episodes(run / "episodes.jsonl"))
    assert checked(run, "tasks in their order") > 0


def test_a_run_that_was_made_longer_has_no_fault(tiny_weights: Path, tmp_path: Path):
    run = trained(tiny_weights, tmp_path, "grpo.GRPO", *UNTAUGHT)
    fit(["--config", str(tmp_path / "toy.yaml"), "--run", str(run), "--ckpt_path", "last", *UNTAUGHT,
         "--trainer.max_epochs", "3"])  # fmt: skip
    assert list(json.loads((run / "summary.json").read_text())["config"]) == ["config.1.yaml", "config.yaml"]
    assert checked(run, "configurations") == 2


def test_an_algorithm_of_a_users_own_is_not_called_checked(tiny_weights: Path, tmp_path: Path):
    (tmp_path / "toy.yaml").write_text(
        TOY.format(weights=tiny_weights).replace("lit_agents.algorithm.grpo.GRPO", f"{__name__}.Halved")
    )
    run = fit(["--config", str(tmp_path / "toy.yaml"), "--run", str(tmp_path / "run"), *UNTAUGHT]).folder.path
    found = audit(run)
    assert found.findings.faults == [] and not found.findings.checked["advantages computed again"]
    assert "advantages of Halved, which has a rule of its own" in found.findings.unchecked


# each file changed


def rollout(rows: list[Row], **wanted: Any) -> Row:
    """The first episode of a phase, with two turns."""
    wanted = {"phase": "rl"} | wanted
    return next(row for row in rows if len(row["turns"]) == 2 and all(row[k] == v for k, v in wanted.items()))


def higher_reward(rows: list[Row]) -> None:
    reward = rollout(rows)["rewards"]
    reward["values"][0] = reward["parts"]["score_gain"][0] = 0.75


def unnamed_reward(rows: list[Row]) -> None:
    rollout(rows)["rewards"]["values"][1] += 0.125


def other_gain(rows: list[Row]) -> None:
    rollout(rows, phase="test/rl")["turns"][0]["signals"]["gain"] = 0.5


def without_one_rollout(rows: list[Row]) -> None:
    rows.remove(rollout(rows, member=2))


def without_one_test(rows: list[Row]) -> None:
    rows.remove(rollout(rows, phase="test/sft"))


def without_one_validation(rows: list[Row]) -> None:
    rows.remove(rollout(rows, phase="validation"))


def without_one_demonstration(rows: list[Row]) -> None:
    rows.remove(rollout(rows, phase="sft"))


def twice(rows: list[Row]) -> None:
    rows.append(rollout(rows))


def attempt_without_failure(rows: list[Row]) -> None:
    rollout(rows, phase="test/sft")["attempt"] = 1


def task_of_another_turn(rows: list[Row]) -> None:
    """All of a group, so that nothing but the order of the tasks is left to tell."""
    first, other = (next(r for r in rows if r["phase"] == "rl" and r["iteration"] == i)["task"] for i in (1, 2))
    name = first["id"]
    for row in rows:
        if row["phase"] == "rl" and row["iteration"] == 1 and row["task"]["id"] == name:
            row["task"] = other


def won(rows: list[Row]) -> None:
    next(row for row in rows if row["phase"] == "test/sft" and row["stop"] == "lost")["stop"] = "won"


def other_observation(rows: list[Row]) -> None:
    rollout(rows)["turns"][1]["observation"] = "Say grey."


def other_signal(rows: list[Row]) -> None:
    signals = rollout(rows, phase="other/rl")["turns"][1]["signals"]
    signals["valid"] = not signals["valid"]


def other_score_of_a_win(rows: list[Row]) -> None:
    for row in rows:
        row["max_score"] = 3.0


def scaled_advantages(rows: list[Row]) -> None:
    for row in rows:
        if row["stage"] == "rl":
            row["advantages"] = [[value * 1.01, n] for value, n in row["advantages"]]


def of_one_turn(rows: list[Row]) -> None:
    row = next(row for row in rows if row["stage"] == "rl" and len(row["runs"]) == 2)
    ((value, n),) = row["advantages"]
    row["advantages"] = [[0.0, 2], [value, n - 2]]


def better_rate(summary: Row) -> None:
    summary["success"]["rl"]["rate"] += 0.25


def more_episodes(summary: Row) -> None:
    summary["elsewhere"]["rl"]["other"]["n"] += 1


def narrower(summary: Row) -> None:
    summary["success"]["sft"]["low"] += 0.01


def other_task_won(summary: Row) -> None:
    counts = summary["success"]["base"]["by_task"]
    task = next(iter(counts))
    counts[task] = [1 - counts[task][0], 1]


def other_number(summary: Row) -> None:
    summary["success"]["rl"]["numbers"]["stop/unfinished_action"] = 0.125


def other_tasks(summary: Row) -> None:
    summary["success"]["rl"]["conditions"]["environment"]["task_files"] = "0" * 16


def forgotten_result(summary: Row) -> None:
    del summary["elsewhere"]["rl"]["other"]


def more_turns(ledger: Row) -> None:
    ledger["turns"] += 1


def cheaper(ledger: Row) -> None:
    ledger["tokens_trained"] -= 1


def better_return(rows: list[Row]) -> None:
    rows[-1]["rollout/return"] = "0.9"


def better_validation(rows: list[Row]) -> None:
    rows[-1]["validation/success"] = "1.5"


def more_groups(rows: list[Row]) -> None:
    rows[-1]["rollout/groups_without_signal"] = "7.0"


def later_step(rows: list[Row]) -> None:
    next(row for row in rows if row["stage"] == "rl")["step"] = "9"


def without_a_row(rows: list[Row]) -> None:
    rows.remove(next(row for row in rows if row["stage"] == "rl"))


def rewritten(path: Path, change: Change) -> None:
    """A file, read, changed and written again."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = list(rows[0])
        change(rows)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        return
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


CHANGES: list[tuple[str, Change, tuple[str, ...]]] = [
    ("episodes.jsonl", higher_reward, ("episodes.jsonl line ", "reward score_gain is (0.75,", "computed again (")),
    ("episodes.jsonl", unnamed_reward, ("the rewards are (", "computed again (")),
    ("episodes.jsonl", other_gain, ("test/rl", "turn 1: the gain is 0.5, and the score rose from 0.0 to")),
    (
        "episodes.jsonl",
        without_one_rollout,
        ("there are the members [0, 1, 3]", "rollout/n is 8.0", "ledger.json: episodes"),
    ),
    ("episodes.jsonl", without_one_test, ("3 groups or tasks, and 4 were", "summary.json, test after sft: n is 4")),
    ("episodes.jsonl", without_one_validation, ("3 groups or tasks, and 4 were", "validation/n is 4.0")),
    ("episodes.jsonl", without_one_demonstration, ("15 groups or tasks, and 16", "demonstrations is 16")),
    ("episodes.jsonl", twice, ("has the same episode", "rollout/n is 8.0, computed again from episodes.jsonl 9")),
    ("episodes.jsonl", attempt_without_failure, ("test/sft", "attempt 0 of 2 is missing")),
    ("episodes.jsonl", task_of_another_turn, ("its task has the numbers", "games is 4")),
    ("episodes.jsonl", won, ("summary.json, test after sft: rate is",)),
    ("episodes.jsonl", other_score_of_a_win, ("reward score_gain is",)),
    (
        "trained.jsonl",
        scaled_advantages,
        ("trained.jsonl line ", "the advantage of action token 1 is", "computed again"),
    ),
    ("trained.jsonl", of_one_turn, ("the advantage of action token 1 is 0,",)),
    ("summary.json", better_rate, ("summary.json, test after rl: rate is",)),
    ("summary.json", more_episodes, ("summary.json, other after rl: n is 5, computed again from episodes.jsonl 4",)),
    ("summary.json", narrower, ("summary.json, test after sft: low is",)),
    ("summary.json", other_task_won, ("summary.json, test after base, by_task: r2-w2/test/1 is",)),
    ("summary.json", other_number, ("numbers: stop/unfinished_action is 0.125",)),
    ("summary.json", other_tasks, ("conditions: task_files is 0000000000000000, computed again",)),
    ("summary.json", forgotten_result, ("(other/rl,", "summary.json has no result of it")),
    ("ledger.json", more_turns, ("ledger.json: turns is",)),
    ("ledger.json", cheaper, ("ledger.json: tokens_trained is",)),
    ("metrics.csv", better_return, ("metrics.csv line 9 (rl, iteration 2): rollout/return is 0.9, computed again",)),
    ("metrics.csv", better_validation, ("validation/success is 1.5",)),
    ("metrics.csv", more_groups, ("rollout/groups_without_signal is 7.0",)),
    ("metrics.csv", later_step, ("played by version 1, and the policy had 9 steps",)),
    ("metrics.csv", without_a_row, ("its iterations of rl are [2]", "has no row of its iteration")),
]


@pytest.mark.parametrize(("name", "change", "words"), CHANGES, ids=[change.__name__ for _, change, _ in CHANGES])
def test_a_file_that_was_changed_is_found_out(sound: Path, tmp_path: Path, name: str, change: Change, words):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    rewritten(run / name, change)
    found = "\n".join(audit(run, computes=False).findings.faults)
    for part in words:
        assert part in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_observation, "turn 1: what came next is 'Say grey.', played again 'Say"),
        (other_signal, "other/rl, iteration 0"),
        (other_score_of_a_win, "the score of a win is 3.0, played again 2.0"),
        (won, "the end is 'won', played again 'lost'"),
    ],
)
def test_an_answer_that_the_world_did_not_give_is_found_by_playing_it_again(
    sound: Path, tmp_path: Path, change: Change, words: str
):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    rewritten(run / "episodes.jsonl", change)
    found = audit(run, again=0, computes=False).findings.faults
    assert any(words in fault and "played again" in fault for fault in found)


@pytest.mark.parametrize(
    ("column", "words"),
    [("values", "the target of the critic at action token"), ("returns", "the target of the critic")],
)
def test_a_critics_number_that_does_not_fit_is_found(critic: Path, tmp_path: Path, column: str, words: str):
    run = Path(shutil.copytree(critic, tmp_path / "run"))

    def changed(rows: list[Row]) -> None:
        for row in rows:
            row[column] = [[value + 0.5, n] for value, n in row[column]]

    rewritten(run / "trained.jsonl", changed)
    assert any(words in fault for fault in audit(run, computes=False).findings.faults)


@pytest.mark.parametrize("kind", ["critic", "penalised", "whitened"])
def test_scaled_advantages_are_found_whatever_the_algorithm(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    run = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "run"))
    rewritten(run / "trained.jsonl", scaled_advantages)
    assert any("the advantage of action token" in fault for fault in audit(run, computes=False).findings.faults)


def test_another_configuration_than_the_runs_is_found(sound: Path, tmp_path: Path):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("warmup: 2", "warmup: 3"))
    (fault,) = audit(run, computes=False).findings.faults
    assert fault.startswith("config.yaml: its SHA-256 begins with ") and "summary.json says" in fault


def test_a_world_that_is_not_known_to_be_repeatable_is_not_played_and_that_is_said(sound: Path, monkeypatch):
    from lit_agents.environment.toy import EchoWorld

    monkeypatch.setattr(EchoWorld, "repeatable", False)
    found = audit(sound, again=0, computes=False)
    assert found.findings.faults == [] and not found.findings.checked["episodes played again"]
    assert any("EchoWorld does not say that it is repeatable" in what for what in found.findings.unchecked)


def test_what_a_killed_run_wrote_without_its_numbers_is_not_called_a_fault(sound: Path, tmp_path: Path):
    run = Path(shutil.copytree(sound, tmp_path / "run"))

    def killed(summary: Row) -> None:
        for part in ("success", "elsewhere", "measured", "written"):
            summary[part].pop("rl", None)

    rewritten(run / "summary.json", killed)
    found = audit(run, computes=False).findings
    assert found.faults == [] and found.unchecked["numbers of what the run was killed in"] == 2
    assert "ledger.json" in found.unchecked
