"""vLLM in a process of its own: ``python -m lit_agents.policy.engine.vllm_process FD``, started by `VLLMEngine`.

It answers the questions that come through the connection one by one and ends when the connection does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor


class Served:
    """One vLLM engine in this process.

    Args:
        connection: where weights come from.
        settings: of ``vllm.LLM``, besides those that follow from what it is used for.
    """

    def __init__(self, connection: Connection, settings: Mapping[str, Any]) -> None:
        from vllm import LLM

        self._connection = connection
        self._llm = LLM(
            **settings,
            skip_tokenizer_init=True,
            generation_config="vllm",  # nothing of the model's own sampling settings
            logprobs_mode="processed_logprobs",  # of the distribution that is drawn from
            enable_prefix_caching=True,
            enable_chunked_prefill=False,  # on a CPU a chunk of a seeded request fails: its generator has no offset
            gpu_memory_utilization=0.01,  # not used, since the cache has its size, but checked against what is free
            use_tqdm_on_load=False,
            seed=0,
        )
        self._asleep = False

    def generate(self, asked: Sequence[tuple[list[int], int]], how: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Token ids and a seed for each request -> ids, log-probabilities and how many tokens were known already."""
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": ids} for ids, _ in asked]
        params = [
            SamplingParams(
                **how, seed=seed, logprobs=0, ignore_eos=True, detokenize=False
            )  # 0: of the sampled one alone
            for _, seed in asked
        ]
        answers = []
        for out in self._llm.generate(prompts, params, use_tqdm=False):
            ids, scores = list(out.outputs[0].token_ids), out.outputs[0].logprobs
            logprobs = [score[token].logprob for token, score in zip(ids, scores, strict=True)]
            answers.append((ids, logprobs, out.num_cached_tokens or 0))
        return answers

    def weights(self) -> None:
        """Take all weights from the connection."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": received_weights(self._connection)})

    def sleep(self) -> None:
        """Give back the GPU's memory: weights to the computer's, keys and values forgotten."""
        if not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def wake(self) -> None:
        """Be ready for another collection."""
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not forget what it had computed with other weights")


def main(descriptor: int) -> None:
    """Start, say what is wrong with the settings or None, then answer until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    os.set_inheritable(descriptor, False)
    try:
        (settings,) = connection.recv()
        try:
            served = Served(connection, settings)
        except ValueError as error:  # how vLLM refuses
            connection.send(str(error))
            return
        connection.send(None)
        while True:
            name, *arguments = connection.recv()
            answer: Callable[..., Any] = getattr(served, name)
            connection.send(answer(*arguments))
    except (EOFError, ConnectionError):
        os._exit(0)  # the caller is gone; vLLM's own way out takes seconds and may hang


def send_weights(connection: Connection, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Name, type, shape and bytes of each, then None."""
    for name, value in weights:
        connection.send((name, value.dtype, value.shape))
        connection.send_bytes(value.view(-1).view(torch.uint8).numpy().data)
    connection.send(None)


def received_weights(connection: Connection) -> Iterator[tuple[str, Tensor]]:
    """The other end of `send_weights`."""
    while (header := connection.recv()) is not None:
        name, dtype, shape = header
        data = bytearray(connection.recv_bytes())
        yield name, torch.frombuffer(data, dtype=dtype).view(shape)


if __name__ == "__main__":
    main(int(sys.argv[1]))
