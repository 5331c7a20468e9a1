"""vLLM behind the engine contract: for GPUs the extra ``[vllm]``, on a CPU what ``scripts/test-vllm.sh`` installs.

vLLM runs in a process of its own (`lit_agents.policy.engine.vllm_process`). Inside the trainer's it would turn
``torch.set_num_threads`` into a no-op, open torch's default process group, which Lightning's DDP then takes for its own, and
bind threads and memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from multiprocessing import Pipe
from typing import Any

import torch

from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy, Weights
from lit_agents.policy.engine.base import Engine, EngineCost, Request, Sampled
from lit_agents.policy.engine.vllm_process import send_weights
from lit_agents.policy.merge_lora import folded
from lit_agents.policy.sampling import Sampling
from lit_agents.policy.tree_check import kv_heads

BLOCK = 32  # tokens; what is cached is cached in blocks, and the CPU kernels want multiples of 32
FLOOR = 0.01  # vLLM raises lower temperatures to this one
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
"""Unless the user has set them."""
RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_")
"""The trainer's place among its processes, which vLLM would take for its own."""
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""The trainer's too; vLLM cannot sleep with some of its settings."""


class VLLMEngine(Engine):
    """See the module.

    Each process of a run has its own, on the same device as its policy. It computes in the policy's precision: in ``dtype``,
    or what ``trainer.precision`` says. After an update all weights are sent to it, adapters folded in in float32 and rounded
    once; while the trainer works it sleeps if it is on a GPU, its weights in the computer's memory. On a CPU there is nothing
    to sleep for.

    Each request has a seed drawn from its stream. Log-probabilities, and so now and then a token, depend on what else
    is in the batch: the same requests in the same order after the same `refresh` give the same answer on the same machine with
    the same versions; answers do not equal those of other engines, nor those of the same requests in other company.

    Args:
        cache_gb: most memory for keys and values, in GB; conversations that do not fit wait or are read again. None: what all
            conversations need at their longest.

    Raises:
        BadInput: vLLM is not installed; from `attach` and `generate` for what vLLM cannot do.
    """

    def __init__(self, cache_gb: float | None = None) -> None:
        if find_spec("vllm") is None:
            way_out = 'Install it (pip install "lit_agents[vllm]"; on a CPU see scripts/test-vllm.sh), or leave data.engine out.'
            raise BadInput("data.engine=VLLMEngine", "vllm is not installed.", way_out)
        if cache_gb is not None and cache_gb <= 0:
            raise BadInput("data.engine.cache_gb", f"{cache_gb} is not above 0.", "Leave it out, or give it 1 or more.")
        self.cache_gb = cache_gb
        self.cost = EngineCost()
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, policy: CausalLMPolicy, sessions: int, context: int) -> None:
        """See `Engine`."""
        if policy.dtype == torch.float64:
            raise BadInput("policy.dtype=float64", "vLLM has no float64.", "Use float32, or leave data.engine out.")
        self.close()
        self._policy, self._sessions, self._context = policy, sessions, context
        c = policy.config
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        token = 2 * c.num_hidden_layers * kv_heads(c) * width * self._dtype.itemsize
        blocks = sessions * -(-context // BLOCK) + 1  # vLLM keeps one for itself
        self.most_bytes = blocks * BLOCK * token if self.cache_gb is None else int(self.cache_gb * 1e9)
        self._read: dict[int, int] = {}
        self._stale = True
        self._sent: Weights | None = None

    @property
    def _dtype(self) -> torch.dtype:
        """What the trainer computes in."""
        return self._policy.mixed or self._policy.dtype

    def release(self, sessions: Iterable[int]) -> None:
        """See `Engine`. Keys and values stay until their place is needed: another member may begin with the same tokens."""
        for session in sessions:
            self._read.pop(session, None)

    def rewind(self, session: int, length: int) -> None:
        """See `Engine`."""
        self._read[session] = min(length, self._read.get(session, 0))

    def refresh(self) -> None:
        """See `Engine`. The new weights are sent when they are first needed."""
        self._read.clear()
        self._stale = True

    def rest(self) -> None:
        """See `Engine`."""
        if self._process is not None and self._policy.device.type != "cpu":
            self._ask("sleep")
            self._stale = True  # what it knew of the conversations is gone

    def close(self) -> None:
        """See `Engine`."""
        process, self._process = self._process, None
        if process is None:
            return
        self._connection.close()
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # with all it started; it holds nothing that is not here too
        process.wait()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> dict[int, Sampled]:
        """See `Engine`. Every action is waited for."""
        if sampling.top_k and sampling.top_p < 1:
            reason = "vLLM takes the top_p of what top_k has left, other engines that of the whole distribution."
            raise BadInput("sampling.top_p / top_k", reason, "Set one of them alone.")
        if 0 < sampling.temperature < FLOOR:
            reason = f"{sampling.temperature} would be raised to {FLOOR} by vLLM."
            raise BadInput("sampling.temperature", reason, "Use 0, or more than that.")
        if self._process is None:
            self._start()
        if self._stale:
            self._renew()
        how: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        how |= {"max_tokens": sampling.max_tokens, "stop_token_ids": [self._policy.chat.end_id]}
        asked = [(list(r.ids), int(r.stream.integers(2**63))) for r in requests]
        answers = self._ask("generate", asked, how)
        return {r.session: self._sampled(r, sampling, *a) for r, a in zip(requests, answers, strict=True)}

    def _sampled(
        self, request: Request, sampling: Sampling, ids: list[int], logprobs: list[float], cached: int
    ) -> Sampled:
        fed = len(ids) - 1  # the newest token has not been through the model
        self.cost.prompt_tokens += len(request.ids) - self._read.get(request.session, 0)
        self.cost.computed_tokens += len(request.ids) - cached + fed
        self.cost.sampled_tokens += len(ids)
        self._read[request.session] = len(request.ids) + fed
        self._policy.refuse_non_finite(torch.tensor(logprobs))
        scores = logprobs if sampling.temperature else [0.0] * len(ids)
        return Sampled(tuple(ids), tuple(scores), ids[-1] == self._policy.chat.end_id)

    # the other process

    def _start(self) -> None:
        on_cpu = self._policy.device.type == "cpu"
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lit_agents.policy.engine.vllm_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what vLLM prints belongs in the log, not in the caller's output
                env=_environment(self._policy.device),
                start_new_session=True,  # Ctrl-C reaches the caller alone
            )
        self._connection = ours
        self._stale, self._sent = True, None
        problem = self._ask(
            {
                "model": str(self._policy.folder),
                "dtype": str(self._dtype).removeprefix("torch."),
                "max_model_len": self._context,
                "max_num_seqs": self._sessions,
                "max_num_batched_tokens": max(8192, self._context),
                "block_size": BLOCK,
                "kv_cache_memory_bytes": self.most_bytes,
                "enforce_eager": on_cpu,  # compiling takes 50 s there and saves half a second per turn of 64 episodes
                "enable_sleep_mode": not on_cpu,
            }
        )
        if problem:
            self.close()
            raise BadInput("data.engine=VLLMEngine", f"vLLM refuses: {problem}", "Change what it names.")

    def _renew(self) -> None:
        """Wake it, give it the policy's weights unless it has them, and have it forget what it computed with others."""
        trained = self._policy.trainable
        known = self._sent is not None and all(torch.equal(p, self._sent[name]) for name, p in trained.items())
        self._ask("wake")
        if not known:
            self._ask("weights", send=True)
            # a copy of adapters is small; of a whole model it is not, so that is sent every time
            self._sent = self._policy.snapshot() if self._policy.lora else None
        self._stale = False

    def _ask(self, *question: Any, send: bool = False) -> Any:
        """One answer of the other process.

        Raises:
            RuntimeError: it has ended; what it said is in the log.
        """
        try:
            self._connection.send(question)
            if send:
                send_weights(self._connection, folded(self._policy, self._dtype))
            return self._connection.recv()
        except (OSError, EOFError) as error:
            self.close()
            raise RuntimeError("the vLLM process has ended; see what it printed above") from error
        except BaseException:  # e.g. Ctrl-C between question and answer: the next answer would be the wrong one
            self.close()
            raise


def _environment(device: torch.device) -> dict[str, str]:
    """Variables of the other process, which sees only the device of the policy."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith((*RANK, *ALLOCATOR))}
    found = (
        QUIET | kept | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
    )  # one process; no reports
    found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    if device.type == "cuda":
        visible, index = os.environ.get("CUDA_VISIBLE_DEVICES"), device.index or 0
        found["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return found
