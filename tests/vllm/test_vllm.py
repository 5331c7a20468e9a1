"""The real vLLM on a CPU (`scripts/test-vllm.sh`): it samples, and the trainer's own forward pass judges."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.errors import BadInput
from lit_agents.fit import fit
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.policy.engine.base import Request, Sampled
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.engine.vllm import VLLMEngine
from lit_agents.policy.hub import PACKAGED
from lit_agents.policy.sampling import Sampling, log_distribution
from lit_agents.rng import stream
from lit_agents.run.audit import audit
from lit_agents.run.export import write_model
from lit_agents.types import Episode, StopReason, Task, TokenTree, Turn
from tests.policy.asking import answers

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/test-vllm.sh)")

CLASS = "lit_agents.policy.engine.vllm.VLLMEngine"
SESSIONS, CONTEXT = 16, 512
MEAN, LARGEST = {"float32": 2e-5, "bfloat16": 0.05}, {"float32": 2e-3, "bfloat16": 1.0}
"""Nats. float32: the order of sums. bfloat16: 2 ** -8 in every activation, in another order."""
FOLDED = 0.1
"""Mean in bfloat16 with strong adapters: the sampler rounds W + BA once, the trainer adds B A x to W x."""


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def policy(request) -> CausalLMPolicy:
    made = CausalLMPolicy(PACKAGED, dtype=request.param, lora=LoRA())
    made.load()
    return made


@pytest.fixture(scope="module")
def engine(policy) -> Iterator[VLLMEngine]:
    made = VLLMEngine()
    made.attach(policy, SESSIONS, CONTEXT)
    yield made
    made.close()


def requests(policy: CausalLMPolicy, count: int, key: object = 0, distinct: int = 4) -> list[Request]:
    texts = [f"You are in room {i}. You see a chest and a closed door. What do you do?" for i in range(distinct)]
    return [Request(i, tuple(policy.chat.first(texts[i % distinct])), stream(key, i)) for i in range(count)]


def one_turn(request: Request, action: Sampled) -> TokenTree:
    turn = Turn("", request.ids, "", action.ids, (), 0, {})
    return token_tree([Episode(Task("", "", "train"), 0, (turn,), StopReason.TURN_LIMIT, 1.0)])


def scored(policy: CausalLMPolicy, asked: Sequence[Request], said: Sequence[Sampled], temperature=1.0) -> list[float]:
    """What the trainer makes of the same tokens, one list for all."""
    found = []
    for request, action in zip(asked, said, strict=True):
        with torch.no_grad():
            found += policy.score(one_turn(request, action), temperature).logprobs_BA[0, : len(action.ids)].tolist()
    return found


def gap(policy: CausalLMPolicy, asked: Sequence[Request], said: Sequence[Sampled], temperature=1.0):
    mine = [p for action in said for p in action.logprobs]
    return (torch.tensor(mine) - torch.tensor(scored(policy, asked, said, temperature))).abs()


def kind(policy: CausalLMPolicy) -> str:
    return str(policy.dtype).removeprefix("torch.")


def processes_of(session: int) -> list[str]:
    """Command lines of what runs in a session of processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def engines() -> set[int]:
    """Process ids of this process's children that are engines."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in children if "vllm_process" in Path(f"/proc/{pid}/cmdline").read_text()}


def test_log_probabilities_are_those_of_the_trainer(policy, engine):
    engine.refresh()
    for sampling in (Sampling(), Sampling(temperature=0.7)):
        asked = requests(policy, SESSIONS)
        said = answers(engine, asked, sampling)
        found = gap(policy, asked, said, sampling.temperature)
        print(
            f"{kind(policy)} {sampling.temperature}: mean {found.mean():.3g}, largest {found.max():.3g}, {len(found)}"
        )
        assert found.mean() < MEAN[kind(policy)] and found.max() < LARGEST[kind(policy)]


def test_after_a_refresh_it_samples_with_the_new_weights_and_before_it_with_the_old(policy, engine):
    before = policy.snapshot()
    engine.refresh()
    answers(engine, requests(policy, 1), Sampling(max_tokens=1))
    noise = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for p in policy.trainable.values():
                p.add_(0.05 * torch.randn(p.shape, generator=noise))
        asked = requests(policy, SESSIONS)
        stale = gap(policy, asked, answers(engine, asked, Sampling()))
        engine.refresh()
        asked = requests(policy, SESSIONS)
        fresh = gap(policy, asked, answers(engine, asked, Sampling()))
        print(f"{kind(policy)}: stale {stale.mean():.3g}, fresh {fresh.mean():.3g}, largest {fresh.max():.3g}")
        assert stale.mean() > 0.5, "the weights have not changed enough for this test"
        assert fresh.mean() < (MEAN["float32"] if kind(policy) == "float32" else FOLDED)
    finally:
        with torch.no_grad():
            for name, p in policy.trainable.items():
                p.copy_(before[name])
    engine.refresh()
    asked = requests(policy, SESSIONS)
    assert gap(policy, asked, answers(engine, asked, Sampling())).mean() < MEAN[kind(policy)], "the way back"


def test_greedy_actions_are_those_of_the_other_engine(policy, engine):
    if policy.dtype != torch.float32:
        pytest.skip("in bfloat16 near ties fall either way")
    other = TransformersEngine()
    other.attach(policy, SESSIONS, CONTEXT)
    greedy = Sampling(temperature=0)
    for each in (engine, other):
        each.refresh()
    mine, theirs = (answers(each, requests(policy, 4), greedy) for each in (engine, other))
    assert mine == theirs and all(set(action.logprobs) == {0.0} for action in mine)


@pytest.mark.parametrize("truncation", [{"top_k": 5}, {"top_p": 0.6}])
def test_log_probabilities_are_of_the_truncated_distribution_where_there_is_one(policy, engine, truncation):
    if policy.dtype != torch.float32:
        pytest.skip("in bfloat16 what is kept at the edge falls either way")
    sampling = Sampling(max_tokens=1, temperature=1.5, **truncation)
    engine.refresh()
    asked = requests(policy, SESSIONS)
    said, ours = answers(engine, asked, sampling), []
    for request, action in zip(asked, said, strict=True):
        with torch.no_grad():
            tree = one_turn(request, action)
            logits_UV = policy.logits(policy.hidden_of_tree(tree)[tree.sources_U], sampling.temperature)
        ours.append(float(log_distribution(logits_UV, sampling)[0, action.ids[0]]))
    assert [action.logprobs[0] for action in said] == pytest.approx(ours, abs=1e-3)
    assert len({action.ids for action in said}) > 1


def test_an_action_ends_with_the_end_of_turn_token_and_nothing_else_ends_it(policy, engine):
    engine.refresh()
    said = [a for key in range(2) for a in answers(engine, requests(policy, SESSIONS, key), Sampling(max_tokens=24))]
    end = policy.chat.end_id
    assert {action.finished for action in said} == {True, False}
    for action in said:
        assert len(action.ids) == len(action.logprobs)
        assert end not in action.ids[:-1] and action.finished == (action.ids[-1] == end)
        assert action.finished or len(action.ids) == 24


def test_the_same_requests_get_the_same_answers_and_other_streams_others(policy, engine):
    said = []
    for key in (0, 0, 1):
        engine.refresh()
        said.append(answers(engine, requests(policy, SESSIONS, key), Sampling()))
    assert said[0] == said[1] != said[2]


def test_what_is_known_is_not_computed_again(policy, engine):
    engine.refresh()
    before = vars(engine.cost).copy()
    asked = requests(policy, 8, distinct=1)
    length, said = len(asked[0].ids), answers(engine, asked, Sampling(max_tokens=8))
    cost = {name: number - before[name] for name, number in vars(engine.cost).items()}
    sampled, blocks = sum(len(action.ids) for action in said), length // 32 * 32
    fed = sampled - 8  # the newest token of each has not been read
    assert cost == {
        "prompt_tokens": 8 * length,
        "computed_tokens": length + 7 * (length - blocks) + fed,
        "sampled_tokens": sampled,
    }
    more = policy.chat.next("You open the door. There is another room. What do you do?")
    again = [Request(r.session, (*r.ids, *a.ids, *more), stream(1)) for r, a in zip(asked, said, strict=True)]
    before = vars(engine.cost).copy()
    then = answers(engine, again, Sampling(max_tokens=1))
    assert engine.cost.prompt_tokens - before["prompt_tokens"] == 8 * (len(more) + 1)
    known = sum((length + len(a.ids) - 1) // 32 * 32 for a in said)
    assert engine.cost.computed_tokens - before["computed_tokens"] == sum(len(r.ids) for r in again) - known
    assert len(then) == 8


@pytest.fixture
def small() -> CausalLMPolicy:
    """For tests that start an engine of their own, for which one type is enough."""
    made = CausalLMPolicy(PACKAGED)
    made.load()
    return made


def test_the_trainers_process_is_as_it_was_and_nothing_runs_after_close(small):
    def mine():
        return (
            {task: os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")}.values(),
            torch.get_num_threads(),
            torch.set_num_threads,
            torch.distributed.is_initialized(),
            "vllm" in sys.modules,
        )

    affinities, *rest = mine()
    engine = VLLMEngine()
    engine.attach(small, 2, CONTEXT)
    assert engine._process is None, "it is started when it is needed"
    answers(engine, requests(small, 2), Sampling(max_tokens=2))
    session = engine._process.pid
    after, *rest_after = mine()
    assert rest == rest_after and set(map(frozenset, affinities)) == set(map(frozenset, after))
    assert processes_of(session)
    engine.close()
    assert not processes_of(session)
    answers(engine, requests(small, 2), Sampling(max_tokens=2))
    session = engine._process.pid
    engine._process.kill()
    with pytest.raises(RuntimeError, match="vLLM process has ended"):
        answers(engine, requests(small, 2), Sampling(max_tokens=2))
    assert not processes_of(session) and engine._process is None


ABANDON = """
import os
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Request
from lit_agents.policy.engine.vllm import VLLMEngine
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
policy = CausalLMPolicy({weights!r})
policy.load()
engine = VLLMEngine()
engine.attach(policy, 1, 64)
engine.generate([Request(0, (1, 2, 3), stream(0))], Sampling(max_tokens=1))
print("child", engine._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_it_ends_with_a_trainer_that_is_killed():
    done = subprocess.run([sys.executable, "-c", ABANDON.format(weights=PACKAGED)], capture_output=True, text=True)
    session = int(done.stdout.split("child")[1])
    deadline = time.monotonic() + 10
    while processes_of(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(session)


def test_a_cache_too_small_for_one_conversation_is_refused_by_name(small):
    engine = VLLMEngine(cache_gb=0.001)
    engine.attach(small, 2, CONTEXT)
    with pytest.raises(BadInput, match="vLLM refuses"):
        answers(engine, requests(small, 1), Sampling(max_tokens=1))
    assert engine._process is None


def test_a_small_cache_makes_conversations_wait_and_changes_nothing_else(small):
    token = 2 * 30 * 3 * 64 * 4  # keys and values, layers, heads, width, bytes
    engine = VLLMEngine(cache_gb=(CONTEXT + 64) * token / 1e9)
    engine.attach(small, 8, CONTEXT)
    asked = requests(small, 8, distinct=8)
    try:
        found = gap(small, asked, answers(engine, asked, Sampling()))
    finally:
        engine.close()
    assert found.mean() < MEAN["float32"]


READING = """
import json, sys
from vllm import LLM, SamplingParams
llm = LLM(sys.argv[1], dtype="float32", max_model_len=256, block_size=32, kv_cache_memory_bytes=1 << 28, enforce_eager=True,
          gpu_memory_utilization=0.01, generation_config="vllm")
(said,) = llm.chat([{"role": "user", "content": sys.argv[2]}], SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
print("ids", json.dumps([said.prompt_token_ids, list(said.outputs[0].token_ids)]))
"""


def test_an_exported_model_says_to_vllms_own_users_what_the_policy_says(tmp_path):
    policy = CausalLMPolicy(PACKAGED, lora=LoRA(rank=4))
    policy.load()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.trainable.values():
            p.add_(0.05 * torch.randn(p.shape, generator=noise))
    write_model(policy, tmp_path / "made", torch.float32)
    text = "You see a chest and 2 doors. What do you do?"
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-c", READING, str(tmp_path / "made"), text]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    read, said = json.loads(done.stdout.rpartition("ids ")[2])
    assert read == list(policy.chat.first(text))
    engine = TransformersEngine()
    engine.attach(policy, 1, CONTEXT)
    (mine,) = answers(engine, [Request(0, tuple(read), stream(0))], Sampling(temperature=0, max_tokens=16))
    assert said == list(mine.ids)


def test_grpo_learns_through_it(tmp_path, monkeypatch):
    config = Path(__file__).parents[2] / "conf" / "textworld" / "quickstart.yaml"
    monkeypatch.chdir(tmp_path)
    args = ["--config", str(config), "--data.engine", CLASS, "--sft", "null", "--run", "run", "--keep_weights", "1"]
    args += ["--data.train_tasks", "2", "--data.validation_tasks", "1", "--data.test_tasks", "1"]
    args += ["--data.schedule.tasks", "2", "--data.schedule.group_size", "4", "--data.schedule.minibatches", "1"]
    args += ["--data.limits.turns", "3", "--data.limits.concurrent", "8"]
    args += ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1"]
    args += ["--model.optimizer.init_args.lr", "1e-3", "--model.warmup", "0", "--model.anneal", "false"]
    before = engines()
    fit(args)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    gaps = [float(row["train/logprob_gap"]) for row in rows if row["train/logprob_gap"]]
    print("gap while training:", gaps)
    assert len(rows) == 3 and len(gaps) >= 2
    assert max(gaps) < FOLDED  # one update per iteration: what was sampled is scored with the same weights
    found = audit(tmp_path / "run")
    print(found.report())
    assert not found.findings.faults and found.findings.checked["log-probabilities computed again"] > 100
    assert engines() == before
