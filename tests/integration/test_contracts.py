"""What users bring themselves, held against its contract before a model is loaded: rewards, algorithms, worlds, models, names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor

from lit_agents import fit as fit_command
from lit_agents.algorithm.experience import Experience
from lit_agents.algorithm.rloo import RLOO
from lit_agents.errors import BadInput
from lit_agents.fit import fit
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.report.__main__ import name_for
from lit_agents.reward.base import Reward
from lit_agents.reward.checked import check_reward, worth
from lit_agents.reward.outcome import Outcome
from lit_agents.study.config import Study
from lit_agents.study.factors import Factor
from lit_agents.system.cache import cache_folder
from lit_agents.types import Episode, StopReason, Task, TurnRewards
from tests.integration.conftest import ONE_ITERATION
from tests.reward.episodes import episode
from tests.tiny import tiny_model_folder


class Number(Reward):
    def __call__(self, episode: Episode) -> TurnRewards:
        return float(episode.won)  # type: ignore[return-value]


class OneValue(Reward):
    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards.of({"outcome": [1.0]})


class Text(Reward):
    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards(("1",) * len(episode.turns), {})  # type: ignore[arg-type]


class ShortPart(Reward):
    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards((0.0,) * len(episode.turns), {"part": ()})


class Broken(Reward):
    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards.of({"score": [float(turn.signals["score"]) for turn in episode.turns]})


class OwnSignal(Reward):
    """Reads what its own world measures: nobody can make that up, so it is asked about real episodes alone."""

    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards.of(
            {"echo": [float(turn.signals["echoed"]) if turn.signals else 0.0 for turn in episode.turns]}
        )


@pytest.fixture
def refused(toy, monkeypatch, capfd):
    """Runs a command that must be refused before a model is loaded; what it says."""
    monkeypatch.setattr(CausalLMPolicy, "load", lambda *_, **__: pytest.fail("a model was loaded"))

    def run(*args: str) -> str:
        capfd.readouterr()
        assert fit_command.main(["--config", toy, *args]) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and not Path("runs").exists()
        return error

    return run


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("Number", "it returns float, not TurnRewards"),
        ("OneValue", "values has 1 numbers for an episode of 3 turns"),
        ("Text", "values holds '1', which is not a number"),
        ("ShortPart", "part has 0 numbers for an episode of 1 turns"),
        ("Broken", "it raises KeyError ('score') on an episode of 1 turns whose last action was not finished"),
    ],
)
@pytest.mark.parametrize("form", ["alone", "in a mixture"])
def test_a_reward_that_breaks_its_contract_is_refused_before_a_model_is_loaded(refused, reward, words, form):
    path = f"tests.integration.test_contracts.{reward}"
    parts = [{"reward": {"class_path": path}, "weight": 1.0}]
    mixture = {"class_path": "lit_agents.reward.mixture.Mixture", "init_args": {"parts": parts}}
    said = refused("--data.reward", path if form == "alone" else json.dumps(mixture))
    assert words in said and said.startswith("error: reward ")


def test_a_reward_that_reads_a_signal_of_its_own_world_is_asked_about_real_episodes():
    check_reward(OwnSignal(), Task("f", "1", "train"))
    with pytest.raises(KeyError, match="echoed"):
        worth(OwnSignal(), episode([0.0], StopReason.LOST))


def test_a_real_episode_is_looked_at_too():
    with pytest.raises(BadInput, match="values has 1 numbers for an episode of 2 turns"):
        worth(OneValue(), episode([0.0, 1.0], StopReason.WON))
    assert worth(Outcome(), episode([0.0, 1.0], StopReason.WON)).values == (0.0, 1.0)


class PerEpisode(RLOO):
    """One advantage for each episode: torch would spread it over rows and columns alike."""

    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        return experience.rewards_BA.sum(1), experience.rewards_BA


class NoReturns(RLOO):
    def credit(self, experience: Experience) -> tuple[Tensor, Tensor]:
        return experience.rewards_BA  # type: ignore[return-value]


@pytest.mark.parametrize(("algorithm", "words"), [("PerEpisode", "(2,) and (2, 3)"), ("NoReturns", "(2, 3) for 2")])
def test_an_algorithm_whose_credit_has_another_shape_is_refused(refused, algorithm, words):
    said = refused("--model", f"tests.integration.test_contracts.{algorithm}")
    assert said.startswith(f"error: model {algorithm}: credit returns {words}")


def test_a_world_without_validation_tasks_is_refused(refused):
    said = refused("--data.environment", "tests.integration.flaky.NoValidation")
    assert "validation" in said and said.startswith("error: data.")


def altered(folder: Path, **config: object) -> Path:
    path = tiny_model_folder(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return path.parent


def test_a_quantised_model_is_refused(refused, tmp_path):
    folder = altered(tmp_path / "quantised", quantization_config={"quant_method": "gptq", "bits": 4})
    said = refused("--model.policy.init_args.weights", str(folder))
    assert f"{folder}: its weights are quantised (gptq)" in said


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ raise_exception('no') }}", "{{ messages + 1 }}"])
def test_a_chat_template_that_cannot_be_rendered_is_refused(refused, tmp_path, template):
    folder = tiny_model_folder(tmp_path / "templated")
    for path in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
        if path.suffix == ".json":
            path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
        else:
            path.write_text(template)
    said = refused("--model.policy.init_args.weights", str(folder))
    assert "its chat template cannot be rendered" in said


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"LIT_AGENTS_CACHE: .*cannot be a folder"):
        cache_folder("games")


@pytest.mark.parametrize("name", ["[a]", "x*", "x?", "x"])
def test_a_run_of_any_name_gets_the_next_number_and_is_found_again(toy, name):
    for number in (1, 2, 3):
        Path("runs", f"xyz-{number + 6}").mkdir(parents=True, exist_ok=True)  # x* and x? are not patterns for it
    args = ["--config", toy, "--name", name, "--sft", "null", *ONE_ITERATION]
    first, second = fit(args).folder.path, fit(args).folder.path
    assert (first.name, second.name) == (f"{name}-1", f"{name}-2")
    again = fit([*args, "--ckpt_path", "last"])
    assert again.folder.path == second


@pytest.mark.parametrize("name", ["a/b", "..", "", "/tmp/x"])
def test_a_study_whose_name_is_no_folder_is_refused(name):
    with pytest.raises(BadInput, match=r"name: .*cannot be the name of a folder"):
        Study(name, ["base.yaml"], {"a": Factor(flag="a", values=[1])})


def test_a_study_with_a_seed_that_no_run_takes_is_refused():
    with pytest.raises(BadInput, match="seeds: -1 is not from 0"):
        Study("s", ["base.yaml"], {"a": Factor(flag="a", values=[1])}, seeds=[1, -1])


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["docs/results/quickstart/1", "docs/results/quickstart/2"], "quickstart"),
        (["docs/results/quickstart/1"], "quickstart-1"),
        (["runs/grpo-1", "runs/grpo-12"], "grpo"),
        (["runs/grpo-1", "runs/ppo-1"], "runs"),
        (["runs/grpo-1"], "grpo-1"),
        (["studies/split"], "split"),
    ],
)
def test_a_report_has_the_name_of_what_its_runs_have_in_common(paths, name):
    assert name_for([Path(path) for path in paths]) == name
