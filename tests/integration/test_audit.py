"""The token audit: silent on sound runs, and loud on each fault it is there for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_agents.audit import main
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.evaluation.episode_store import StoredEpisode, read_episodes
from lit_agents.fit import fit
from lit_agents.run.audit import audit
from tests.integration.conftest import TOY

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def sound(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both stages with the weights of every iteration."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "toy.yaml").write_text(TOY.format(weights=tiny_weights))
    fit(["--config", str(folder / "toy.yaml"), "--run", str(folder / "run"), "--keep_weights", "1",
         "--data.schedule.passes", "2", "--elsewhere", '{"other": {"split": "validation"}}'])  # fmt: skip
    return folder / "run"


def test_a_sound_run_has_no_fault_and_everything_was_looked_at(sound: Path):
    found = audit(sound)
    checked, stored = found.findings.checked, list(read_episodes(sound / "episodes.jsonl"))
    turns = [turn for s in stored for turn in s.episode.turns]
    sampled = [turn for turn in turns if turn.policy_version >= 0]
    assert found.findings.faults == []
    assert checked["episodes"] == len(stored) == 4 + 16 + 4 + 24 + 4 + 4 + 3 * 4
    assert checked["prompts that continue the turns before"] == len(sampled) > 50
    # by hand: 16 demonstrations in 6 epochs; of 24 rollouts those with signal, twice
    lines = (sound / "trained.jsonl").read_text().splitlines()
    kept = 24 - (checked["episodes left out of the loss"])
    assert checked["trained rows"] == len(lines) == 6 * 16 + 2 * kept and kept > 0
    tokens = sum(len(turn.action_ids) for turn in sampled)
    assert checked["log-probabilities computed again"] == tokens and found.unknown == 0
    assert found.largest < 1e-3


@pytest.fixture(scope="module")
def slid(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose episodes are longer than what is in sight."""
    folder = tmp_path_factory.mktemp("slid")
    (folder / "toy.yaml").write_text(TOY.format(weights=tiny_weights))
    fit(["--config", str(folder / "toy.yaml"), "--run", str(folder / "run"), "--keep_weights", "1", "--data.tasks", "r6-w2",
         "--data.limits.turns", "6", "--data.limits.context", "250", "--trainer.max_epochs", "1",
         "--trainer.check_val_every_n_epoch", "1", "--data.limits.window", '{"turns": 3, "keep": 1}'])  # fmt: skip
    return folder / "run"


def test_a_run_whose_old_turns_drop_out_of_sight_is_sound(slid: Path):
    found, stored = audit(slid), list(read_episodes(slid / "episodes.jsonl"))
    assert found.findings.faults == [] and found.largest < 1e-3 and found.unknown == 0
    for phase in ("sft", "rl"):
        assert any(len(s.episode.conversations) > 1 for s in stored if s.phase == phase)
    lines = [json.loads(line) for line in (slid / "trained.jsonl").read_text().splitlines()]
    assert max(len(line["runs"]) for line in lines) == 6  # every turn, the ones after a slide too


@pytest.mark.parametrize("start", [1, 3])
def test_a_turn_that_was_sampled_with_others_in_sight_is_a_fault(slid: Path, tmp_path: Path, start: int, capsys):
    run = Path(shutil.copytree(slid, tmp_path / "run"))
    rows = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    long = next(row for row in rows if row["phase"] == "rl" and len(row["turns"]) == 6)
    assert long["turns"][-1]["window_start"] == 4
    long["turns"][-1]["window_start"] = start
    (run / "episodes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert main([str(run)]) == 1
    said = capsys.readouterr().out
    assert "turn 6: the turns before it are not what the action was sampled after" in said
    assert "rl, iteration 1: trained on" in said and "was not trained on" in said


def test_weights_that_were_not_kept_are_counted(sound: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    for path in run.glob("checkpoints/rl/step*.ckpt"):
        path.unlink()
    rollouts = [s for s in read_episodes(run / "episodes.jsonl") if s.phase == "rl"]
    versions = {s.episode.turns[0].policy_version for s in rollouts}
    last, best = (
        torch.load(run / f"checkpoints/rl/{n}.ckpt", weights_only=True)["global_step"] for n in ("last", "best")
    )
    lost = [s for s in rollouts if s.episode.turns[0].policy_version not in (0, last, best)]
    assert versions == {0, 2, 4} and (last, best) == (6, 4) and lost
    assert main([str(run)]) == 0
    count = sum(len(turn.action_ids) for s in lost for turn in s.episode.turns)
    assert f"{count}  sampled tokens whose weights were not kept" in capsys.readouterr().out


Change = Callable[[list[dict[str, Any]]], None]


def first_rollout(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["phase"] == "rl" and len(row["turns"]) == 2)


def other_token(rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["stage"] == "rl")
    row["runs"][-1][1][0] += 1


def unmasked_observation(rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["stage"] == "rl")
    place, ids, before = row["runs"][0]
    row["runs"][0] = [place - 1, [10, *ids], before]


def masked_action(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if row["stage"] == "sft")["runs"].pop()


def other_conversation(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if row["stage"] == "rl")["conversation"] = "0" * 16


def other_version(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if row["stage"] == "rl" and row["version"] == 2)["version"] = 0


def other_logprobs(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if row["stage"] == "rl")["logprobs"] = "0" * 16


def once_too_often(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[-1])


def nothing_trained(rows: list[dict[str, Any]]) -> None:
    rows.clear()


def losers_dropped(rows: list[dict[str, Any]]) -> None:
    """Half of an iteration's rollouts, in every pass."""
    mine = sorted({row["conversation"] for row in rows if row["stage"] == "rl" and row["iteration"] == 1})
    rows[:] = [row for row in rows if row["conversation"] not in mine[: len(mine) // 2] or row["iteration"] != 1]


def an_epoch_skipped(rows: list[dict[str, Any]]) -> None:
    rows[:] = [row for row in rows if (row["stage"], row["iteration"]) != ("sft", 3)]


def no_version(rows: list[dict[str, Any]]) -> None:
    for turn in first_rollout(rows)["turns"]:
        turn["policy_version"] = -1


def observation_retokenised(rows: list[dict[str, Any]]) -> None:
    first_rollout(rows)["turns"][1]["observation_ids"].pop(0)


def history_dropped(rows: list[dict[str, Any]]) -> None:
    """As if the engine had been shown the second observation alone."""
    turn = first_rollout(rows)["turns"][1]
    turn["prompt_digest"] = first_rollout(rows)["turns"][0]["prompt_digest"]


def text_changed(rows: list[dict[str, Any]]) -> None:
    first_rollout(rows)["turns"][0]["action"] += "!"


def end_of_turn_lost(rows: list[dict[str, Any]]) -> None:
    turn = first_rollout(rows)["turns"][0]
    turn["action_ids"].pop(), turn["action_logprobs"].pop()


def logprob_rounded(rows: list[dict[str, Any]]) -> None:
    turn = first_rollout(rows)["turns"][0]
    turn["action_logprobs"][0] += 0.01


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("trained", other_token, "where"),
        ("trained", unmasked_observation, "which the agent did not sample"),
        ("trained", masked_action, "which the agent sampled"),
        ("trained", other_conversation, "observations are not those the agent was shown"),
        ("trained", other_version, "version 0, sampled by 2"),
        ("trained", other_logprobs, "other log-probabilities"),
        ("trained", once_too_often, "with 2 passes"),
        ("trained", nothing_trained, "was not trained on"),
        ("trained", losers_dropped, "was not trained on"),
        ("trained", an_epoch_skipped, "sft, iteration 3: an episode of task"),
        ("episodes", no_version, "demonstrated where the policy plays"),
        ("episodes", observation_retokenised, "tokens are not its text's"),
        ("episodes", history_dropped, "not what the action was sampled after"),
        ("episodes", text_changed, "text is not its tokens'"),
        ("episodes", end_of_turn_lost, "the end-of-turn token stands at"),
        ("episodes", logprob_rounded, "a log-probability differs by 0.01"),
    ],
)
def test_each_fault_is_found(sound: Path, tmp_path: Path, capsys, name: str, change: Change, fault: str):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    path = run / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(run)]) == 1
    out = capsys.readouterr().out
    assert "FAULT" in out and fault in out


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            lambda mask: torch.cat([mask[:, :-1], 0 * mask[:, -1:]], 1),
            "which the agent sampled",
        ),  # the last token is lost
        (lambda mask: mask * 0 + 1, "which the agent did not sample"),  # padding is trained
    ],
)
def test_a_fault_between_sampling_and_loss_is_found(toy: str, capsys, monkeypatch, fault, found):
    """In the weights of the loss, which are made apart from the tree's own mask."""
    from lit_agents.algorithm import batch

    weigh = batch.token_weights
    monkeypatch.setattr(batch, "token_weights", lambda mask, per_episode: weigh(fault(mask.float()), per_episode))
    fit(["--config", toy, "--run", "run", "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"])
    capsys.readouterr()
    assert main(["run"]) == 1
    assert found in capsys.readouterr().out


def test_weights_of_another_iteration_are_found(sound: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    for path in run.glob("checkpoints/rl/*.ckpt"):
        if path.name != "step=2.ckpt":
            path.unlink()
    content = torch.load(run / "checkpoints/rl/step=2.ckpt", weights_only=True)
    torch.save(content | {"global_step": 4}, run / "checkpoints/rl/step=4.ckpt")
    (run / "checkpoints/rl/step=2.ckpt").unlink()
    assert main([str(run)]) == 1
    assert "a log-probability differs by" in capsys.readouterr().out


def test_weights_other_than_those_that_sampled_are_found(sound: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    path = run / "checkpoints/rl/best.ckpt"  # it sampled the last iteration and the test
    content = torch.load(path, weights_only=True)
    for tensor in content["state_dict"].values():
        tensor.mul_(1.01)
    torch.save(content, path)
    assert main([str(run)]) == 1
    assert "a log-probability differs by" in capsys.readouterr().out
    assert main([str(run), "--tolerance", "10"]) == 0


def test_what_cannot_be_audited_is_refused(sound: Path, tmp_path: Path, capsys):
    assert main([str(tmp_path)]) == 2 and "it holds no config.yaml" in capsys.readouterr().err
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"phase": "rl", "iter')
    assert main([str(run)]) == 2 and "a line of its records cannot be read" in capsys.readouterr().err


def test_a_stored_episode_is_read_back_as_it_was(sound: Path):
    for line in (sound / "episodes.jsonl").read_text().splitlines():
        assert StoredEpisode.of(line).row() == line


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_run_of_smollm2_in_real_games_has_no_fault(tmp_path: Path, capsys, dtype: str):
    pytest.importorskip("textworld")
    for split, count in (("train", 2), ("sft", 4), ("validation", 1), ("test", 1)):
        TextWorld(str(tmp_path / "games")).tasks("w2-o3-q4", split, count)
    args = ["--data.environment.init_args.folder", str(tmp_path / "games"), "--data.train_tasks", "2"]
    args += ["--data.validation_tasks", "1", "--data.test_tasks", "1", "--data.schedule.tasks", "2"]
    args += ["--data.schedule.minibatches", "2", "--data.limits.turns", "4", "--sft.demonstrations", "4"]
    args += ["--sft.epochs", "1", "--sft.minibatches", "4", "--trainer.check_val_every_n_epoch", "1"]
    args += ["--trainer.max_epochs", "2", "--keep_weights", "1", "--run", str(tmp_path / "run")]
    args += ["--model.policy.init_args.dtype", dtype]
    fit(["--config", str(CONF / "textworld" / "quickstart.yaml"), *args])
    capsys.readouterr()
    assert main([str(tmp_path / "run"), "--replay"]) == 0
    found = audit(tmp_path / "run")
    assert found.findings.checked["log-probabilities computed again"] > 200 and found.unknown == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "trained.jsonl").read_text().splitlines()]
    tokens = sum(len(ids) for line in lines for _, ids, _ in line["runs"])
    assert found.findings.checked["trained tokens"] == tokens > 0
    assert found.largest < (1.0 if dtype == "bfloat16" else 2e-4)
