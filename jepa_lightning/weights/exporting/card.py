"""The model card of an exported run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_lightning._version import __version__
from jepa_lightning.loading import Frozen
from jepa_lightning.names.printable import printable

_LOADS = {
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
    "tokens = model.forward_features(images)  # (B, N, D)",
    "transformers": "from transformers import AutoModel\n\n"
    'model = AutoModel.from_pretrained("FOLDER").eval()\ntokens = model(INPUT=pixels).last_hidden_state',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
    "features, tokens = session.run(None, INPUTS)",
    "pt2": 'import torch\n\nmodel = torch.export.load("FOLDER/model.pt2").module()\nfeatures, tokens = model(INPUTS)',
    "safetensors": 'import jepa_lightning\n\nencoder = jepa_lightning.load("FOLDER")',
}
_RESULTS = ("steps", "train_loss", "effective_rank", "knn", "knn_untrained", "linear", "linear_untrained")


def card(
    frozen: Frozen, *, to: str, run: Path, difference: float, inputs: Mapping[str, list[Any]], license: str
) -> str:
    """Write the text: what it is, how it was trained and evaluated, how it is loaded, and what was compared.

    Args:
        frozen: the encoder.
        to: the format.
        run: the run's folder.
        difference: largest, between the exported model and the encoder.
        inputs: sizes of the model's input, by name.
        license: of the weights.
    """
    settings = ((frozen.config or {}).get("model") or {}).get("modality") or {}
    data = ((frozen.config or {}).get("data") or {}).get("class_path")
    count = sum(parameter.numel() for parameter in frozen.encoder.parameters())
    kind, name = type(frozen.encoder).__name__, frozen.modality.name
    what = f"{kind} of {count / 1e6:.3g} M parameters, {frozen.dim} wide, for the modality {name}"
    head = {"library_name": _library(to), "tags": ["jepa", "self-supervised", name], "license": license}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "", f"# {run.name}", ""]
    lines += [f"A JEPA encoder, trained without labels: {what}. Exported by jepa-lightning {__version__}.", ""]
    lines += ["```python", _loads(to, frozen, inputs), "```", ""]
    lines += [f"- input: {', '.join(f'`{name}` {shape}' for name, shape in inputs.items())}"]
    lines += [f"- modality: `{settings['class_path']}`"] if "class_path" in settings else []
    lines += [f"- data: `{data}`"] if data else []
    lines += [f"- {name}: {value}" for name, value in _summary(run).items()]
    lines += [f"- largest difference to the encoder it was made from, on a batch: {difference:.1e}", ""]
    lines += [
        "`knn` and `linear` are scores of probes on frozen features; `untrained`: the same network before training."
    ]
    return printable("\n".join([*lines, ""]), lines=True)


def _loads(to: str, frozen: Frozen, inputs: Mapping[str, list[Any]]) -> str:
    named = ", ".join(f'"{name}": {name}' for name in inputs) if to == "onnx" else ", ".join(inputs)
    pixels = "pixel_values_videos" if frozen.modality.name == "video" else "pixel_values"
    return _LOADS[to].replace("INPUTS", "{" + named + "}" if to == "onnx" else named).replace("INPUT", pixels)


def _library(to: str) -> str:
    return {"timm": "timm", "transformers": "transformers"}.get(to, "jepa-lightning")


def _summary(run: Path) -> dict[str, Any]:
    """Figures of the run, where it has a summary."""
    file = run / "summary.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    return {name: found[name] for name in _RESULTS if found.get(name) is not None}
