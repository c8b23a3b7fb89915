"""Any encoder of the transformers library as a trunk: it reads the stems' tokens instead of its own embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError
from raydistill.networks import check_plain, resolve_model, tensors_only
from raydistill.student.trunks.encoder_config import FAILURES, cannot, quiet, reason, undrawn

PROBED = 8  # tokens


class EncoderTrunk(nn.Module):
    """An encoder of transformers (bert, distilbert, roberta, electra, modernbert, …), from scratch or pretrained.

        tokens → Linear(width, e) → encoder without its token embeddings → Linear(h, width)

    e is the width of the encoder's embeddings, h that of its hidden states; a map between equal widths is left out.
    The encoder's own position embeddings stay, beside those of the stems. Parameters that the result does not depend
    on (a pooler, a mask token) are dropped or frozen: under DDP all others get a gradient. Of the measures of the
    student, `depth` and `num_heads` count where the encoder is built from a model type.

    Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", and each model's own paper;
    from a teacher's layers: Sanh et al. 2019, "DistilBERT, a distilled version of BERT", section 3.

    Use it when there is a pretrained encoder of the right size, when the student is to begin with its teacher's layers
    (`student.layers_from`), or when what comes out must be an architecture that others know.
    """

    def __init__(self, width: int, depth: int, num_heads: int, dropout: float, *, config: dict[str, Any]) -> None:
        super().__init__()
        import transformers

        self.model_type = str(config["model_type"])
        options = {key: value for key, value in config.items() if key != "model_type"}
        try:
            check_plain(options, whose="its config")
            settings = transformers.AutoConfig.for_model(self.model_type, **options)
            if settings.is_encoder_decoder:
                raise ValueError("it is an encoder with a decoder")
            with quiet():
                self.encoder: Any = transformers.AutoModel.from_config(settings, trust_remote_code=False)
            inner = self._without_embeddings()
            outer = self._look_inside(inner)
        except FAILURES as error:
            raise cannot(self.model_type, reason(error)) from error
        self.inner = inner
        self.map_in = nn.Linear(width, inner) if inner != width else nn.Identity()
        self.map_out = nn.Linear(outer, width) if outer != width else nn.Identity()

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, length, width], mask [batch, length] bool or None -> tokens of the same shape."""
        result: Tensor = self.map_out(self._encode(self.map_in(tokens), mask))
        return result

    def _encode(self, embeddings: Tensor, mask: Tensor | None) -> Tensor:
        output = self.encoder(inputs_embeds=embeddings, attention_mask=None if mask is None else mask.long())
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _without_embeddings(self) -> int:
        """Drop the token embeddings, and a pooler; returns the embeddings' width."""
        table = getattr(self.encoder.get_input_embeddings(), "weight", None)
        if table is None or table.ndim != 2:
            raise ValueError("it does not read tokens")
        self.encoder.set_input_embeddings(nn.Identity())
        if isinstance(getattr(self.encoder, "pooler", None), nn.Module):
            self.encoder.pooler = None
        return int(table.shape[1])

    def _look_inside(self, inner: int) -> int:
        """Freeze what the result does not depend on; returns the width of the hidden states."""
        training = self.encoder.training
        self.encoder.eval()
        with torch.enable_grad(), undrawn():
            hidden = self._encode(_sample(PROBED, inner), torch.ones(1, PROBED, dtype=torch.bool))
        self.encoder.train(training)
        reached = reached_by(hidden)
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(parameter in reached)
        return int(hidden.shape[-1])

    @torch.no_grad()
    def check(self, longest: int) -> None:
        """Whether it does what a trunk has to do, tried out.

        Args:
            longest: tokens of the longest input.

        Raises:
            ConfigError: it looks back only, looks at padding, or does not take so many tokens.
        """
        training, inner = self.encoder.training, self.inner
        self.encoder.eval()
        tokens = _sample(PROBED, inner)
        other = tokens.clone()
        other[:, -1] = -other[:, -1] + 1.0
        everything = torch.ones(1, PROBED, dtype=torch.bool)
        all_but_last = everything.clone()
        all_but_last[:, -1] = False
        try:
            with quiet(), undrawn():
                if torch.equal(self._encode(tokens, everything)[:, 0], self._encode(other, everything)[:, 0]):
                    raise ValueError("its first token does not see the last one, as in a decoder")
                masked, padded = self._encode(tokens, all_but_last), self._encode(other, all_but_last)
                if not torch.allclose(masked[:, :-1], padded[:, :-1], atol=1e-5):
                    raise ValueError("it mixes padding into the real tokens, in spite of the mask")
                try:
                    self._encode(_sample(longest, inner), None)
                except FAILURES as error:
                    raise ValueError(
                        f"it does not take {longest} tokens, as its max_position_embeddings may say ({reason(error)})"
                    ) from error
        except FAILURES as error:
            raise cannot(self.model_type, reason(error)) from error
        finally:
            self.encoder.train(training)

    def load_pretrained(self, model: str) -> None:
        """The weights of a folder or hub name, for the config that `encoder_config` read there.

        Raises:
            ConfigError: they are not there, or lack some of ours.
        """
        import transformers

        try:
            with quiet(), undrawn(), tensors_only():
                loaded, found = transformers.AutoModel.from_pretrained(
                    resolve_model(model), config=self.encoder.config, dtype=torch.float32, output_loading_info=True,
                    trust_remote_code=False,
                )  # fmt: skip
            ours, theirs = self.encoder.state_dict(), loaded.state_dict()
            # A random layer in a pretrained body would be a silent disaster.
            missing = sorted(key for key in ours if key not in theirs or key in set(found["missing_keys"]))
            if missing:
                raise ValueError(f"its weights lack {len(missing)} of the encoder's ({', '.join(missing[:3])}, …)")
            self.encoder.load_state_dict({key: theirs[key] for key in ours})
        except FAILURES as error:
            raise cannot(model, reason(error)) from error

    def copy_layers(self, teacher: nn.Module, lender: str) -> list[int]:
        """Begin with every k-th layer of a teacher of the same model type, and with its position embeddings and norms.

        Args:
            teacher: a model of transformers.
            lender: its name.

        Returns:
            Which of its layers were taken, in order.

        Raises:
            ConfigError: another model type, other measures, or fewer layers than ours.
        """
        own, theirs = _described(self.encoder), _described(teacher)
        refused = ConfigError(
            f"student.layers_from: the layers of teacher {lender!r} ({theirs}) do not fit the student's ({own}); give "
            "student.encoder its model type and measures, and no more layers, or leave layers_from out"
        )
        body = getattr(teacher, "base_model", teacher)
        name, layers = _layers(self.encoder)
        their_name, their_layers = _layers(body)
        heads = [getattr(getattr(each, "config", None), "num_attention_heads", None) for each in (self.encoder, body)]
        if name is None or name != their_name or len(layers) > len(their_layers) or heads[0] != heads[1]:
            raise refused
        picked = [number * len(their_layers) // len(layers) for number in range(len(layers))]
        pairs = [(layers[number], their_layers[chosen]) for number, chosen in enumerate(picked)]
        if any(_shapes(ours) != _shapes(other) for ours, other in pairs):
            raise refused
        for ours, other in pairs:
            ours.load_state_dict(other.state_dict())
        beside = body.state_dict()
        with torch.no_grad():
            for key, value in self.encoder.state_dict().items():
                if not key.startswith(f"{name}.") and key in beside and beside[key].shape == value.shape:
                    value.copy_(beside[key])
        return picked


def _layers(model: nn.Module) -> tuple[str | None, nn.ModuleList]:
    """The list of a model's layers: its longest one of modules of one kind."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(each) for each in module}) == 1
    ]
    # Of several as long, the outermost.
    return max(lists, key=lambda each: (len(each[1]), -each[0].count(".")), default=(None, nn.ModuleList()))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def _described(model: nn.Module) -> str:
    settings = getattr(model, "config", None)
    if settings is None:
        return "no model of transformers"
    words = {"num_hidden_layers": "layers", "hidden_size": "wide", "num_attention_heads": "heads"}
    measures = [f"{getattr(settings, name)} {word}" for name, word in words.items() if hasattr(settings, name)]
    inside = getattr(settings, "intermediate_size", getattr(settings, "hidden_dim", None))
    return ", ".join([settings.model_type, *measures, *([f"{inside} inside"] if inside else [])])


def _sample(length: int, width: int) -> Tensor:
    """Embeddings [1, length, width], the same ones always."""
    return torch.sin(torch.arange(length * width, dtype=torch.float32) * 1.7).view(1, length, width)


def reached_by(result: Tensor) -> set[Tensor]:
    """The tensors that `result.backward()` would give a gradient to, without computing one."""
    found, seen, pending = set(), set(), [result.grad_fn]
    while pending:
        function: Any = pending.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            found.add(function.variable)
        pending += [before for before, _ in function.next_functions]
    return found
