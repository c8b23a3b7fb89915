"""Every kind of trunk: its shapes, its blindness to padding, its gradients, its way to disk; and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raydistill.commands.students import make_student
from raydistill.config.models import Config, StudentConfig
from raydistill.config.student import STUDENT_SIZES
from raydistill.data.dataset import TaskData
from raydistill.errors import ConfigError
from raydistill.student.model import Student
from raydistill.student.shape import trunk_options
from raydistill.student.trunks import TRUNKS
from raydistill.student.trunks.experts import ExpertLayer, ExpertsTrunk
from raydistill.student.trunks.reformer import ReformerTrunk
from raydistill.student.trunks.transformers import EncoderTrunk, reached_by
from raydistill.training.features import StudentTaps

MakeConfig = Callable[..., Config]
Data = dict[str, TaskData]
WIDTH = 32
ENCODERS = ("bert", "distilbert", "roberta", "electra", "modernbert", "albert", "deberta-v2")
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"trunk": "dense"},
    "experts": {"trunk": "experts"},
    "experts every second": {"trunk": "experts", "experts": {"every": 2, "experts_per_token": 1}},
    "reformer": {"trunk": "reformer", "reformer": {"chunk_length": 4, "num_buckets": 4}},
    "reformer whole": {"trunk": "reformer", "reformer": {"recompute": False}},
    "hidden size of its own": {"trunk": "transformers", "encoder": {"options": {"hidden_size": 16}}},
    **{model: {"trunk": "transformers", "encoder": {"model": model}} for model in ENCODERS},
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bands": {"loader": "torchvision", "model": "resnet", "options": {"layers": [1, 1, 1, 1], "small_images": True}},
    "mood": {"loader": "transformers", "model": "bert", "options": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}},
    "tones": {"loader": "transformers", "model": "wav2vec2", "options": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, **tiny.WAV2VEC2}},
}  # fmt: skip


def student_of(**sections: Any) -> StudentConfig:
    return StudentConfig.model_validate({**tiny.STUDENT, "width": WIDTH, "depth": 2, "dropout": 0.0, **sections})


def trunk_of(seed: int = 0, **sections: Any) -> Any:
    student = student_of(**sections)
    torch.manual_seed(seed)
    return TRUNKS[student.trunk](*student.measures, student.dropout, **trunk_options(student)).eval()


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def build(make_config: MakeConfig, tiny_data: Data, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Student]:
    def make(
        tasks: tuple[str, ...] = tuple(tiny.TASKS), teachers: dict[str, Any] | None = None, **shape: Any
    ) -> Student:
        config = make_config(tasks, teachers=teachers or {}, student={**tiny.STUDENT, "depth": 2, **shape})
        data = {name: tiny_data[name] for name in tasks}
        return make_student(config, data, 0, tmp_path_factory.mktemp("student") / "initial").eval()

    return make


def prepared_of(student: Student, data: Data, rows: Any = range(6)) -> dict[str, dict[str, torch.Tensor]]:
    return {name: student.preparer(name)(data[name].train.views(rows)) for name in student.tasks}


def without_gradient(module: nn.Module) -> list[str]:
    return [name for name, each in module.named_parameters() if each.requires_grad and each.grad is None]


# What all kinds promise.


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_tokens_of_the_same_shape_come_back(kind: dict[str, Any], length: int, masked: bool) -> None:
    tokens = torch.randn(3, length, WIDTH)
    mask = torch.ones(3, length, dtype=torch.bool) if masked else None
    result = trunk_of(**kind)(tokens, mask)
    assert result.shape == tokens.shape and torch.isfinite(result).all()


def test_no_mask_is_a_mask_of_real_tokens(kind: dict[str, Any]) -> None:
    trunk, tokens = trunk_of(**kind), torch.randn(2, 7, WIDTH)
    torch.testing.assert_close(trunk(tokens, None), trunk(tokens, torch.ones(2, 7, dtype=torch.bool)))


def test_padding_does_not_change_a_row(kind: dict[str, Any]) -> None:
    """Whatever stands in it, however much of it there is; rows of less than a chunk and of several."""
    trunk = trunk_of(**kind)
    for length in (2, 6, 13):
        row = torch.randn(1, length, WIDTH)
        alone = trunk(row, None)
        for padding in (1, 5, 11):
            tokens = torch.cat([row, 10 * torch.randn(1, padding, WIDTH)], dim=1)
            tokens = torch.cat([tokens, torch.randn(1, length + padding, WIDTH)])
            mask = torch.ones(2, length + padding, dtype=torch.bool)
            mask[0, length:] = False
            torch.testing.assert_close(trunk(tokens, mask)[:1, :length], alone, atol=2e-5, rtol=1e-4)


def test_every_token_sees_every_other(kind: dict[str, Any]) -> None:
    trunk = trunk_of(**kind)
    tokens = torch.randn(1, 4, WIDTH, requires_grad=True)
    (seen,) = torch.autograd.grad(trunk(tokens, None)[0, 0].square().sum(), tokens)
    assert (seen[0].abs().sum(dim=-1) > 0).all()


def test_a_row_of_padding_alone_spoils_nothing(kind: dict[str, Any]) -> None:
    trunk = trunk_of(**kind).train()
    tokens = torch.randn(2, 6, WIDTH)
    mask = torch.tensor([[True] * 6, [False] * 6])
    result = trunk(tokens, mask)
    result.square().sum().backward()
    assert torch.isfinite(result).all()
    assert all(torch.isfinite(each.grad).all() for each in trunk.parameters() if each.grad is not None)


def test_every_parameter_gets_a_gradient_even_of_one_token(kind: dict[str, Any]) -> None:
    trunk = trunk_of(**kind).train()
    trunk(torch.randn(1, 1, WIDTH), None).square().sum().backward()
    assert without_gradient(trunk) == []


def test_gradients_are_the_slopes_of_the_function(kind: dict[str, Any]) -> None:
    trunk = trunk_of(**kind).double()
    tokens, step = torch.randn(1, 6, WIDTH, dtype=torch.float64), torch.randn(1, 6, WIDTH, dtype=torch.float64)
    tokens.requires_grad_()
    towards = torch.randn(1, 6, WIDTH, dtype=torch.float64)
    (slope,) = torch.autograd.grad((trunk(tokens, None) * towards).sum(), tokens)
    size = 1e-6
    with torch.no_grad():
        change = (trunk(tokens + size * step, None) - trunk(tokens - size * step, None)) / (2 * size)
    torch.testing.assert_close((change * towards).sum(), (slope * step).sum(), rtol=1e-4, atol=1e-5)


def test_outside_of_training_it_answers_alike_and_draws_nothing(kind: dict[str, Any]) -> None:
    trunk, tokens = trunk_of(**{**kind, "dropout": 0.3}), torch.randn(2, 9, WIDTH)
    torch.manual_seed(1)
    first = trunk(tokens, None)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(trunk(tokens, None), first)


def test_it_runs_in_bf16(kind: dict[str, Any]) -> None:
    trunk, tokens = trunk_of(**kind), torch.randn(2, 9, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = trunk.train()(tokens, torch.ones(2, 9, dtype=torch.bool))
    rounded.float().square().sum().backward()
    assert without_gradient(trunk) == []
    assert all(each.grad.isfinite().all() for each in trunk.parameters() if each.grad is not None)


def test_training_is_repeated_by_its_seed(kind: dict[str, Any]) -> None:
    trunk, tokens = trunk_of(**{**kind, "dropout": 0.3}).train(), torch.randn(2, 9, WIDTH)
    gradients = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        trunk.zero_grad()
        trunk(tokens, None).square().sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in trunk.parameters() if each.grad is not None]))
    assert torch.equal(gradients[0], gradients[1]) and not torch.equal(gradients[0], gradients[2])


def test_ddp_takes_a_forward_of_several_tasks(kind: dict[str, Any], tmp_path: Path) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk_of(**kind).train()

        def forward(self, batches: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack([self.trunk(each, None).square().mean() for each in batches]).sum()

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(Several())
        for _ in range(2):
            model([torch.randn(2, length, WIDTH) for length in (1, 5, 9)]).backward()
        assert without_gradient(model) == []
    finally:
        torch.distributed.destroy_process_group()


def test_a_student_learns_and_comes_back_from_disk(
    build: Callable[..., Student], tiny_data: Data, kind: dict[str, Any], tmp_path: Path
) -> None:
    student = build(**kind, **({} if "num_heads" in kind else {"num_heads": 2})).train()
    inputs = prepared_of(student, tiny_data)
    sum(each.square().sum() for each in student(inputs).values()).backward()
    assert without_gradient(student) == []
    student.eval().save_pretrained(tmp_path / "student")
    loaded = Student.from_pretrained(str(tmp_path / "student")).eval()
    with torch.no_grad():
        first, second = student(inputs), loaded(inputs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == [
        n for n, p in student.named_parameters() if p.requires_grad
    ]


def test_it_can_be_copied_after_a_forward(kind: dict[str, Any]) -> None:
    trunk, tokens = trunk_of(**kind), torch.randn(2, 5, WIDTH)
    first = trunk(tokens, None)
    for other in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
        assert torch.equal(other(tokens, None), first)


def test_an_older_students_config_still_loads(build: Callable[..., Student], tiny_data: Data, tmp_path: Path) -> None:
    student = build()
    student.save_pretrained(tmp_path / "student")
    file = tmp_path / "student/config.json"
    content = json.loads(file.read_text())
    for newer in ("trunk", "trunk_options", "classifier"):
        del content["shape"][newer]
    file.write_text(json.dumps(content))
    loaded, inputs = Student.from_pretrained(str(tmp_path / "student")).eval(), prepared_of(student, tiny_data)
    assert all(torch.equal(loaded(inputs)[name], each) for name, each in student(inputs).items())
    assert {name for name in student.state_dict() if name.startswith("trunk.blocks.1.")} == {
        f"trunk.blocks.1.{layer}.{kind}"
        for layer in ("attention_norm", "qkv", "attention_out", "mlp_norm", "mlp_in", "mlp_out")
        for kind in ("weight", "bias")
    }


def test_the_longest_input_is_as_long_as_the_stems_make_it(build: Callable[..., Student], tiny_data: Data) -> None:
    for patch_size, frames, length in ((2, 4, 8), (4, 8, 16), (8, 2, 8)):
        student = build(patch_size=patch_size, frames_per_token=frames, max_length=length)
        tokens = [
            student.stems[student.shape.tasks[name].domain](**each)[0].shape[1]
            for name, each in prepared_of(student, tiny_data).items()
            if name != "mood"
        ]
        assert student.shape.longest == max(*tokens, length)


# Experts.


def naive(layer: ExpertLayer, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """A token at a time, from the formulas: output, tokens of each expert, mean of the router's probabilities."""
    output, num_experts = torch.zeros_like(tokens), len(layer.experts)
    counts, probabilities = np.zeros(num_experts), np.zeros(num_experts)
    for row, position in mask.nonzero().tolist():
        token = tokens[row, position]
        scores = np.exp((layer.router.weight @ token).detach().numpy())
        p = scores / scores.sum()
        probabilities += p / int(mask.sum())
        best = sorted(range(num_experts), key=lambda expert: -p[expert])[: layer.experts_per_token]
        for expert in best:
            counts[expert] += 1
            gate = p[expert] / p[best].sum() if layer.experts_per_token > 1 else p[expert]
            of: Any = layer.experts[expert]
            hidden = F.gelu(of.mlp_in.weight @ token + of.mlp_in.bias)
            output[row, position] += gate * (of.mlp_out.weight @ hidden + of.mlp_out.bias)
    return output, counts, probabilities


@pytest.mark.parametrize("experts_per_token", [1, 2, 3, 5])
def test_experts_do_what_the_formulas_say_token_by_token(experts_per_token: int) -> None:
    torch.manual_seed(0)
    layer = ExpertLayer(8, 5, experts_per_token).double()
    tokens, mask = 2 * torch.randn(3, 7, 8, dtype=torch.float64), torch.rand(3, 7) > 0.3
    output, routed = layer(tokens, mask)
    wanted, counts, probabilities = naive(layer, tokens, mask)
    torch.testing.assert_close(output, wanted, atol=1e-9, rtol=1e-9)
    np.testing.assert_array_equal(routed.counts.numpy(), counts)
    np.testing.assert_allclose(routed.probabilities.detach().numpy() / int(mask.sum()), probabilities, atol=1e-12)
    assert int(routed.num_tokens) == int(mask.sum())
    assert not output[~mask].any()


def experts_trunk(**options: Any) -> ExpertsTrunk:
    trunk = trunk_of(trunk="experts", experts=options)
    assert isinstance(trunk, ExpertsTrunk)
    return trunk


def test_the_balance_loss_is_that_of_the_paper_over_all_calls() -> None:
    trunk = experts_trunk(balance_weight=0.3, num_experts=3).double()
    seen: list[list[Any]] = [[], []]
    for number, block in enumerate(trunk.blocks):
        mixture: Any = block.mixture
        mixture.register_forward_hook(lambda _, given, __, number=number: seen[number].append(given))
    for length in (4, 9):
        mask = torch.rand(2, length) > 0.2
        trunk(torch.randn(2, length, WIDTH, dtype=torch.float64), mask)
    losses = []
    for number, block in enumerate(trunk.blocks):
        mixture = block.mixture
        count, probability, num_tokens = np.zeros(3), np.zeros(3), 0
        for tokens, mask in seen[number]:
            _, counts, probabilities = naive(mixture, tokens, mask)
            count, num_tokens = count + counts, num_tokens + int(mask.sum())
            probability = probability + probabilities * int(mask.sum())
        losses.append(3 * (count / count.sum() * probability / num_tokens).sum())
    parts = trunk.take_auxiliary()
    assert len(parts) == 2
    loss = sum(parts)
    np.testing.assert_allclose(loss.item(), 0.3 * np.mean(losses), rtol=1e-12)
    assert trunk.take_auxiliary() == []


@pytest.mark.parametrize("experts_per_token", [1, 2])
def test_the_balance_loss_is_one_where_all_are_equally_busy_and_more_where_one_has_all(experts_per_token: int) -> None:
    trunk = trunk_of(trunk="experts", depth=1, experts={"balance_weight": 1.0, "experts_per_token": experts_per_token})
    layer = trunk.blocks[0].mixture
    layer.router.weight.data = 30 * torch.eye(4, WIDTH)
    trunk.blocks[0].mlp_norm = nn.Identity()
    trunk.blocks[0].attention_out.weight.data.zero_()
    trunk.blocks[0].attention_out.bias.data.zero_()
    # Token i prefers expert i, then the next one.
    tokens = F.pad(torch.eye(4) + 0.5 * torch.eye(4).roll(1, 1), (0, WIDTH - 4))[None]
    trunk(tokens, None)
    (balanced,) = trunk.take_auxiliary()
    torch.testing.assert_close(balanced, torch.ones(()))
    assert trunk.routing.tolist() == [experts_per_token] * 4
    trunk(tokens[:, :1].expand(1, 4, WIDTH), None)
    (crowded,) = trunk.take_auxiliary()
    torch.testing.assert_close(crowded, torch.tensor(4.0 / experts_per_token), atol=1e-3, rtol=0)


def test_the_balance_loss_makes_the_experts_equally_busy() -> None:
    torch.manual_seed(0)
    trunk = trunk_of(trunk="experts", depth=1, experts={"balance_weight": 1.0, "experts_per_token": 1}).train()
    # One expert likes what all tokens have in common.
    trunk.blocks[0].mixture.router.weight.data[0, 0] += 2.0
    tokens = torch.randn(8, 16, WIDTH)
    tokens[..., 0] += 3.0
    optimizer = torch.optim.Adam(trunk.parameters(), lr=1e-2)
    shares = []
    for _ in range(60):
        trunk(tokens, None)
        (loss,) = trunk.take_auxiliary()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(float(trunk.routing.max() / trunk.routing.sum()))
    assert shares[0] > 0.6 and shares[-1] < 0.4


def test_every_nth_block_has_experts() -> None:
    trunk = trunk_of(trunk="experts", depth=5, experts={"every": 2})
    assert [hasattr(block, "mixture") for block in trunk.blocks] == [False, True, False, True, False]
    trunk(torch.randn(2, 3, WIDTH), None)
    assert trunk.routing_by_block.shape == (2, 4) and trunk.routing_by_block.sum(dim=1).tolist() == [12, 12]
    assert not trunk.routing_by_block.requires_grad and "routing" not in str(list(trunk.state_dict()))


def test_a_student_tells_what_balances_its_experts_and_who_uses_which(
    build: Callable[..., Student], tiny_data: Data
) -> None:
    student = build(trunk="experts").train()
    inputs = prepared_of(student, tiny_data)
    assert student.take_auxiliary() == {}
    student(inputs)
    student(inputs)  # nobody took that of the first
    parts = student.take_auxiliary()
    assert parts.keys() == inputs.keys() and 0.005 < sum(parts.values()).item() < 0.04
    for part in parts.values():
        part.backward()  # each has a graph of its own
    assert student.take_auxiliary() == {}
    assert student.trunk.blocks[0].mixture.router.weight.grad.any()
    table = student.routing_table({name: [each, each] for name, each in inputs.items()})
    assert list(table) == list(tiny.TASKS) and student.training
    for shares in table.values():
        assert len(shares) == 4 and sum(shares) == pytest.approx(1.0)
    assert table["mood"] == pytest.approx(student.routing_table({"mood": [inputs["mood"]]})["mood"])
    assert student.routing_table({"mood": [inputs["mood"]]}, block=0) != {"mood": table["mood"]}
    dense = build()
    dense(inputs)
    assert dense.take_auxiliary() == {} and dense.routing_table({"mood": [inputs["mood"]]}) == {}


# Reformer.


def test_one_chunk_is_full_attention() -> None:
    """Shared queries and keys, keys normalised, a token not to itself unless it is alone (Kitaev et al. 2020, 2)."""
    trunk = trunk_of(trunk="reformer", depth=1, num_heads=1).double()
    assert isinstance(trunk, ReformerTrunk)
    block: Any = trunk.blocks[0]
    tokens = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    read = block.attention.layer_norm(tokens)
    query, value = (getattr(block.attention.self_attention, name)(read) for name in ("query_key", "value"))
    key = query / (query.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() / WIDTH**0.5
    dots = (query @ key.transpose(1, 2)).masked_fill(torch.eye(5, dtype=torch.bool), -1e5)
    first = tokens + block.attention.output.dense(dots.softmax(dim=-1) @ value)
    second = tokens + block.feed_forward(first)
    torch.testing.assert_close(trunk(tokens, None), (first + second) / 2, atol=1e-9, rtol=1e-9)


def test_one_bucket_a_chunk_gathers_what_is_alike() -> None:
    """Tokens of two far-apart directions, shuffled: each attends to its own kind, wherever it stands."""
    trunk = trunk_of(trunk="reformer", depth=1, num_heads=1,
                     reformer={"chunk_length": 8, "num_buckets": 2, "num_hashes": 4})  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(64)[torch.randperm(64, generator=generator)] % 2
    directions = torch.randn(2, WIDTH, generator=generator)
    directions[1] = -directions[0]
    tokens = (directions[kinds] + 0.01 * torch.randn(64, WIDTH, generator=generator))[None].requires_grad_()
    (seen,) = torch.autograd.grad(trunk(tokens, None)[0, 0].square().sum(), tokens)
    by_token = seen[0].abs().sum(dim=-1)
    assert by_token[kinds != kinds[0]].sum() < 0.05 * by_token[1:][kinds[1:] == kinds[0]].sum()


def test_recomputing_changes_no_gradient() -> None:
    gradients = []
    for recompute in (True, False):
        trunk = trunk_of(trunk="reformer", dropout=0.2, reformer={"chunk_length": 4, "recompute": recompute}).train()
        tokens = torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(5)
        trunk(tokens, None).square().sum().backward()
        gradients.append([each.grad for each in trunk.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("length", [3, 11])
def test_padding_has_no_part_in_what_a_block_says(build: Callable[..., Student], length: int) -> None:
    student = build(("mood",), trunk="reformer", reformer={"chunk_length": 4, "num_buckets": 4})
    taps, tokens = StudentTaps(student, {"trunk.blocks.0"}), torch.randn(2, length, WIDTH)
    mask = torch.arange(length) < torch.tensor([[length], [2]])
    said = []
    for batch, real in ((tokens, mask), (tokens[1:, :2], None)):
        student.passing = ("mood", real)
        with taps.listening() as heard:
            student.trunk(batch, real)
        said.append(heard["mood", "trunk.blocks.0"].pooled()[-1])
    torch.testing.assert_close(said[0], said[1])


# Encoders of transformers.


def test_an_encoder_keeps_no_word_of_its_own() -> None:
    trunk = trunk_of(trunk="transformers", encoder={"options": {"vocab_size": 9_999}})
    assert not any(9_999 in each.shape for each in trunk.state_dict().values())
    assert not any("word_embeddings" in name or "pooler" in name for name in trunk.state_dict())


def test_what_a_result_does_not_depend_on_is_found() -> None:
    used, idle = nn.Linear(3, 3), nn.Linear(3, 3)
    idle(torch.ones(3))
    assert reached_by(used(torch.ones(3)).tanh()) == {used.weight, used.bias}


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        ({"model": "gpt2"}, "decoder"),
        ({"model": "t5"}, "encoder with a decoder"),
        ({"model": "vit"}, ""),
        ({"model": "fnet"}, ""),
        ({"model": "no/such-model"}, ""),
        ({"options": {"num_hiden_layers": 2}}, "no 'num_hiden_layers', did you mean 'num_hidden_layers'"),
        ({"options": {"max_position_embeddings": 20}}, "does not take 64 tokens.*max_position_embeddings"),
        ({"options": {"hidden_size": 33}}, "33"),
        ({"model": "xlnet"}, "d_head"),
    ],
    ids=str,
)
def test_what_cannot_be_a_trunk_is_refused_in_one_line(
    build: Callable[..., Student], encoder: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=f"student.encoder: .*{why}") as caught:
        build(trunk="transformers", encoder=encoder)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, of another measure than the student's."""
    import transformers

    torch.manual_seed(7)
    settings = transformers.BertConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=24,
                                       vocab_size=50, max_position_embeddings=80)  # fmt: skip
    folder = tmp_path_factory.mktemp("pretrained") / "bert"
    transformers.BertForMaskedLM(settings).save_pretrained(folder)
    return folder


def test_pretrained_weights_come_from_a_folder_and_stay_with_the_student(
    build: Callable[..., Student], tiny_data: Data, bert: Path, tmp_path: Path
) -> None:
    import transformers

    folder = tmp_path / "to be moved"
    bert_copy = transformers.BertModel.from_pretrained(bert)
    bert_copy.save_pretrained(folder)
    student = build(trunk="transformers", encoder={"model": str(folder), "options": {"num_hidden_layers": 3}})
    assert isinstance(student.trunk, EncoderTrunk)
    ours = student.trunk.encoder.state_dict()
    assert {key: torch.equal(value, bert_copy.state_dict()[key]) for key, value in ours.items()} == dict.fromkeys(
        ours, True
    )
    assert sum(name.endswith("attention.self.query.weight") for name in ours) == 3
    inputs = prepared_of(student, tiny_data)
    student.save_pretrained(tmp_path / "student")
    folder.rename(tmp_path / "moved")
    loaded = Student.from_pretrained(str(tmp_path / "student")).eval()
    assert all(torch.equal(loaded(inputs)[name], each) for name, each in student(inputs).items())
    assert "to be moved" not in (tmp_path / "student/config.json").read_text()


def test_weights_that_are_not_all_there_are_refused(build: Callable[..., Student], bert: Path, tmp_path: Path) -> None:
    import transformers
    from safetensors.torch import load_file, save_file

    model = transformers.BertModel.from_pretrained(bert)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {key: value for key, value in load_file(file).items() if "layer.1.output" not in key}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"student.encoder: .* its weights lack 4 of the encoder's"):
        build(trunk="transformers", encoder={"model": str(tmp_path)})


# Layers of a teacher.


def lender(folder: Path, layers: int = 4) -> tuple[dict[str, Any], Any]:
    import transformers

    tokenizer = tiny.word_tokenizer()
    torch.manual_seed(3)
    settings = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=24,
        vocab_size=len(tokenizer), max_position_embeddings=64, id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"big": {"task": "mood", "loader": "transformers", "model": str(folder), "checkpoint": str(folder)}}, model


FITTING = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64}


def test_a_student_begins_with_every_second_layer_of_its_teacher(build: Callable[..., Student], tmp_path: Path) -> None:
    teachers, teacher = lender(tmp_path)
    student = build(("mood",), teachers, trunk="transformers", encoder={"options": FITTING}, layers_from="big")
    assert isinstance(student.trunk, EncoderTrunk)
    ours, theirs = student.trunk.encoder.state_dict(), teacher.bert.state_dict()
    for number, chosen in enumerate((0, 2)):
        for key, value in ours.items():
            if key.startswith(f"encoder.layer.{number}."):
                other = key.replace(f"layer.{number}.", f"layer.{chosen}.")
                assert torch.equal(value, theirs[other])
    beside = ("embeddings.position_embeddings.weight", "embeddings.LayerNorm.weight")
    assert all(torch.equal(ours[key], theirs[key]) for key in beside)


@pytest.mark.parametrize(
    ("encoder", "depth"),
    [
        ({"options": {**FITTING, "intermediate_size": 32}}, 2),
        ({"options": {**FITTING, "num_attention_heads": 4}}, 2),
        ({"options": FITTING}, 5),
        ({"model": "distilbert", "options": {"dim": 16, "n_heads": 2, "hidden_dim": 24}}, 2),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_are_refused_with_both_shapes(
    build: Callable[..., Student], tmp_path: Path, encoder: dict[str, Any], depth: int
) -> None:
    teachers, _ = lender(tmp_path)
    with pytest.raises(
        ConfigError, match=r"layers_from: .*'big' \(bert, 4 layers, 16 wide, 2 heads, 24 inside\).*\("
    ) as e:
        build(("mood",), teachers, trunk="transformers", encoder=encoder, layers_from="big", depth=depth)
    assert f"{depth} layers, 16 wide" in str(e.value)


# Plain classifiers.


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_a_plain_classifier_is_a_student_of_one_task(
    build: Callable[..., Student], tiny_data: Data, tmp_path: Path, task: str
) -> None:
    student = build((task,), classifier=CLASSIFIERS[task]).train()
    assert not hasattr(student, "trunk")
    inputs = prepared_of(student, tiny_data)
    student(inputs)[task].square().sum().backward()
    assert without_gradient(student) == []
    student.eval().save_pretrained(tmp_path / "student")
    loaded = Student.from_pretrained(str(tmp_path / "student")).eval()
    logits = student(inputs)[task]
    assert logits.shape == (6, len(tiny.LABELS[task])) and torch.isfinite(logits).all()
    assert torch.equal(loaded(inputs)[task], logits)
    assert student.take_auxiliary() == {} and student.routing_table({task: [inputs[task]]}) == {}


def test_a_classifier_without_weights_takes_the_size_of_the_tasks_pictures(
    build: Callable[..., Student], tiny_data: Data
) -> None:
    measures = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    options = {**measures, "patch_size": 4}
    student = build(("bands",), classifier={"loader": "transformers", "model": "vit", "options": options})
    assert student.classifier.config.image_size == student.shape.tasks["bands"].image_size != 224
    assert student(prepared_of(student, tiny_data))["bands"].shape == (6, 3)


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_a_pretrained_classifier_keeps_its_body_and_its_words(
    build: Callable[..., Student], tiny_data: Data, tmp_path: Path, task: str
) -> None:
    from safetensors.torch import load_file

    folder = tiny.save_transformers(task, tmp_path / "ready", labels=tuple("abcde"))
    student = build((task,), classifier={"loader": "transformers", "model": str(folder)})
    assert student(prepared_of(student, tiny_data))[task].shape == (6, len(tiny.LABELS[task]))
    weights, ours = load_file(folder / "model.safetensors"), student.classifier.state_dict()
    same = [key for key, value in weights.items() if key in ours and torch.equal(value, ours[key])]
    assert len(same) > 0.6 * len(weights)
    if task == "mood":
        assert student.tokenizer is not None
        assert student.tokenizer.get_vocab() == tiny.word_tokenizer().get_vocab()


@pytest.mark.parametrize(
    ("tasks", "classifier", "why"),
    [
        (("bands", "mood"), CLASSIFIERS["bands"], r"for one task; tasks are \['bands', 'mood'\]"),
        (("mood",), CLASSIFIERS["bands"], "torchvision is for pictures"),
        (("bands",), {"loader": "torchvision", "model": "resnet999"}, "resnet999"),
        (("mood",), {"loader": "transformers", "model": "no/such-model"}, "no/such-model"),
        (("mood",), {"loader": "transformers", "model": "vit"}, "vit"),
    ],
    ids=["two tasks", "sounds", "architecture", "hub", "kind"],
)
def test_a_classifier_that_does_not_fit_is_refused_in_one_line(
    build: Callable[..., Student], tasks: tuple[str, ...], classifier: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s)classifier.*{why}") as caught:
        build(tasks, classifier=classifier)
    assert "\n" not in str(caught.value)


# The config.


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"trunk": "mixture"}, "student.trunk: input should be 'dense', 'experts', 'reformer' or 'transformers'"),
        ({"experts": {"num_experts": 2, "experts_per_token": 3}},
         "student.experts: experts_per_token 3 is more than num_experts 2"),
        ({"trunk": "experts", "experts": {"every": 3}}, "student: experts.every 3 leaves no block of 1 with experts"),
        ({"reformer": {"num_buckets": 7}}, "student.reformer: num_buckets 7 is odd"),
        ({"reformer": {"chunk_size": 7}}, "unknown key 'student.reformer.chunk_size'; did you mean 'chunk_length'"),
        ({"layers_from": "x"}, "student: layers_from is for trunk transformers, this one is dense"),
        ({"classifier": {"loader": "torchvision", "model": "resnet18"}, "embeddings_from": "x"},
         "student: embeddings_from is for a student of stem and trunk"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)  # fmt: skip
def test_a_mistake_in_the_config_is_one_line(make_config: MakeConfig, student: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(("mood",), student={**tiny.STUDENT, **student})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_lender_that_is_no_teacher_is_refused(build: Callable[..., Student]) -> None:
    with pytest.raises(ConfigError, match=r"student.layers_from is 'x'; teachers are \[\]"):
        build(("mood",), trunk="transformers", layers_from="x")


def test_sizes_and_single_measures() -> None:
    assert StudentConfig(size="base").measures == STUDENT_SIZES["base"]
    assert StudentConfig(size="tiny", depth=7).measures == (96, 7, 3)
