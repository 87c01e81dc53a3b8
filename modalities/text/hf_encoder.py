"""Any encoder of Hugging Face's transformers, computing the kept tokens only."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lightning.config.stored import stored
from jepa_lightning.encoders import Encoder, TokenSpec
from jepa_lightning.encoders.layers import layer_numbers
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.tokens import Ragged, Tokens

_LISTS = ("layer", "layers", "blocks", "h")  # what transformers' models call their list of layers


class HFTextEncoder(Encoder):
    """A text encoder of transformers: `{class_path: HFTextEncoder, init_args: {name: bert-base-uncased}}`.

    Models that take the positions of tokens can run on a part of a text: BERT, RoBERTa, XLM-R, MPNet, ELECTRA, ERNIE,
    ModernBERT and others. Kept tokens are gathered first and given their own positions; hidden ones are not seen.
    With all tokens kept, the output is the model's `last_hidden_state`. Nothing of a repository is executed; weights
    are read from safetensors only. The model's configuration is kept in the checkpoint, so that a run's folder is
    enough to load it.

    The modality's `tokenizer` must be the model's own tokenizer.json, and `special_tokens: true` is what it was trained
    with. `pip install transformers`.

    Args:
        spec: the tokens' spec, given by the modality; its `embed` is not used.
        name: of a model on the hub, or a folder of `save_pretrained`.
        pretrained: load the weights; false: draw them, for the sizes in `name`'s configuration.
        options: settings of the model's configuration to replace, such as `num_hidden_layers`.

    Raises:
        ValueError: transformers is not installed, there is no such model or it cannot run on a part of a text, or the
            tokens' vocabulary is larger than the model's; when called: a text is longer than the model's positions.

    Examples:
        >>> from functools import partial
        >>> import transformers
        >>> from modalities.text import HFTextEncoder, Text
        >>> sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        >>> transformers.BertConfig(**sizes).save_pretrained("bert")
        >>> text = Text(vocabulary=256, encoder=partial(HFTextEncoder, name="bert", pretrained=False))
        >>> text.encoder(text.tokenizer({"text": ["A cat sat.", "Why?"]})).shape
        torch.Size([2, 16, 32])
    """

    def __init__(
        self, spec: TokenSpec, *, name: str, pretrained: bool = True, options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise ValueError(f"HFTextEncoder needs transformers: pip install transformers ({error})") from error
        try:
            kept = _kept(name)
            if kept is None:
                config = AutoConfig.from_pretrained(name, trust_remote_code=False, **(options or {}))
            else:
                config = AutoConfig.for_model(kept.pop("model_type"), **kept)
            if pretrained:
                with isolate_rng():
                    model = AutoModel.from_pretrained(
                        name, config=config, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
                    )
            else:
                model = AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32)
        except Exception as error:  # no such name, no network, an option that it does not have, no safetensors
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"expected a text encoder of transformers, cannot build {name}: {reason}") from error
        if "position_ids" not in inspect.signature(model.forward).parameters or getattr(config, "is_decoder", False):
            raise ValueError(
                f"expected an encoder of transformers that takes position_ids, got {type(model).__name__}, which "
                "cannot run on a part of a text: use BERT, RoBERTa, MPNet, ELECTRA, ModernBERT or the like"
            )
        rows = model.get_input_embeddings().num_embeddings
        need = _vocabulary(spec)
        if need is not None and need > rows:
            raise ValueError(
                f"the tokenizer has {need} tokens and {name} has {rows}: set model.modality.tokenizer to the model's "
                "own tokenizer.json"
            )
        for unused in ("pooler",):
            if getattr(model, unused, None) is not None:
                setattr(model, unused, None)
        description = json.dumps({"name": name, "config": json.loads(config.to_json_string(use_diff=False))})
        self.register_buffer("description", torch.tensor(list(description.encode()), dtype=torch.uint8))
        self.model = model
        self.dim = config.hidden_size
        self.first = _first_position(model)
        self.most = getattr(config, "max_position_embeddings", 2**31) - self.first
        self._layers = (_layers(model),)  # in a tuple, so that they are not registered twice

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The model's layers."""
        return self._layers[0]

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens, or the kept ones: (B, N or K, D), or (B, N or K, L, D). See `Encoder.forward`."""
        numbers = layer_numbers(layers, self.depth)
        if tokens.count > self.most:
            raise ValueError(f"the model has {self.most} positions, got {tokens.count} tokens: lower modality.length")
        if keep is not None:
            tokens = tokens.take(keep, keep_valid)
        ids = tokens.values
        if isinstance(ids, Ragged) or ids.is_floating_point():
            raise ValueError("expected numbers of tokens as int64: HFTextEncoder is for the modality Text")
        valid = tokens.valid
        if valid is not None:
            valid = valid | ~valid.any(1, keepdim=True)  # a text of nothing but padding must not become NaN
        found = self.model(
            input_ids=ids,
            attention_mask=None if valid is None else valid.long(),
            position_ids=tokens.positions[..., 0].long().expand(len(ids), -1) + self.first,
            output_hidden_states=bool(numbers),
        )
        last: Tensor = found.last_hidden_state
        if not numbers:
            return last
        states = found.hidden_states[1:]  # the first is the embedding
        return torch.stack([last if n == self.depth - 1 else states[n] for n in numbers], dim=2)


def _kept(name: str) -> dict[str, Any] | None:
    """The configuration of the model `name` in the checkpoint that is loaded; None if there is none."""
    for content in stored("description"):
        found = json.loads(bytes(content.tolist()))
        if found["name"] == name:
            return found["config"]
    return None


def _vocabulary(spec: TokenSpec) -> int | None:
    """The number of tokens of the modality, which its embedding knows."""
    return getattr(spec.embed, "keywords", {}).get("vocabulary")


def _layers(model: nn.Module) -> nn.ModuleList:
    """The model's list of layers: the first of several parts."""
    for path, part in model.named_modules():
        if isinstance(part, nn.ModuleList) and path.rpartition(".")[2] in _LISTS:
            return part
    raise ValueError(f"expected a model with a list of layers, got {type(model).__name__}")


def _first_position(model: nn.Module) -> int:
    """The number of the first position: RoBERTa's and MPNet's begin behind that of padding."""
    for part in model.modules():
        table = getattr(part, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return table.padding_idx + 1
    return 0
