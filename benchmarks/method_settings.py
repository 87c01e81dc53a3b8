"""What `benchmarks.methods` trains: shipped configurations, and what is changed in them."""

from __future__ import annotations

VIT, RESNET, CNN = "recipes/ijepa_cifar10.yaml", "recipes/vicreg_cifar10.yaml", "recipes/cnnjepa_cifar10.yaml"
CARD_RESNET = "recipes/vicreg_resnet18_cifar10.yaml"
# Of eight settings after five minutes or fewer: docs/findings.md, "Masked prediction without a teacher".
_SIGREG = '[{"class_path": "SIGReg", "init_args": {"weight": 0.1, "tokens": true, "directions": 128}}]'
_LEJEPA = ["--model.prediction_weight", "0.98", "--model.pretext.projector", "[512,512,64]"]
_LEJEPA += ["--model.pretext.norm", "batch"]
_LEJEPA += ["--model.regularizers", '[{"class_path": "SIGReg", "init_args": {"weight": 0.02}}]']
_EMA = ["--model.target", "EMA", "--model.target.momentum", "CosineRamp", "--model.target.momentum.start", "0.99"]
_EMA += ["--model.target.momentum.end", "1.0", "--model.prediction_weight", "1.0", "--model.regularizers", "null"]
_DINO = ["--model.pretext.projector", "[512,64]", "--model.pretext.prototypes", "1024"]
_DINO += ["--model.pretext.centering", "0.9", "--model.objective", "CrossEntropy"]
_PIXELS = ["--model.target", "RawTokens", "--model.objective", "MSE", "--model.regularizers", "null"]
_RANDOM = ["--model.modality.masker", "Random", "--model.modality.masker.target_ratio", "0.75"]
_LABELS = ["--model.pretext", "benchmarks.supervised.Supervised", "--model.pretext.classes", "10"]
_LABELS += ["--model.regularizers", "null", "--data.views", "1"]
METHODS: dict[str, tuple[str, list[str]]] = {
    "masked_ema": (VIT, []),
    "masked": (VIT, ["--model.regularizers", "null"]),
    "masked_sigreg": (
        VIT,
        ["--model.target", "Online", "--model.target.stop_gradient", "false", "--model.regularizers", _SIGREG],
    ),
    "mae": (VIT, [*_PIXELS, *_RANDOM]),
    "cnnjepa": (CNN, []),
    "cnn_mae": (CNN, _PIXELS),
    "views_vicreg": (RESNET, []),
    "views_sigreg": (RESNET, _LEJEPA),
    "views_visreg": (RESNET, ["--model.regularizers", '[{"class_path": "VISReg", "init_args": {"weight": 1.0}}]']),
    "byol": (RESNET, [*_EMA, "--model.pretext.head", "512", "--model.objective", "Cosine"]),
    "dino": (RESNET, [*_EMA, *_DINO]),
    "supervised": (RESNET, _LABELS),
}
"""Shipped configuration and what is changed in it, by name."""

_WIDE_VIT = ["--model.modality.encoder.width", "192", "--model.modality.encoder.depth", "9"]
_WIDE_VIT += ["--model.modality.encoder.heads", "3", "--model.predictor.width", "96", "--model.predictor.depth", "4"]
_WIDE_VIT += ["--data.batch_size", "512", "--data.flip", "true"]
_WIDE_CNN = ["--model.modality.encoder.name", "resnet18", "--model.modality.encoder.stem_stride", "1"]
_WIDE_CNN += ["--model.modality.encoder.options", '{"layers": [2, 2, 2], "channels": [64, 128, 256]}']
_WIDE_CNN += ["--data.batch_size", "512"]
_WIDE_BYOL = [*_EMA, "--model.pretext.projector", "[2048,256]", "--model.pretext.head", "2048"]
_CHANGED: dict[str, list[str]] = {
    "views_sigreg": [*_LEJEPA, "--model.pretext.projector", "[2048,2048,64]"],
    "byol": [*_WIDE_BYOL, "--model.objective", "Cosine"],
    "dino": [*_EMA, *_DINO, "--model.pretext.projector", "[2048,256]", "--model.pretext.norm", "layer"],
}
_WIDER = {VIT: (VIT, _WIDE_VIT), RESNET: (CARD_RESNET, []), CNN: (CNN, _WIDE_CNN)}
CARD_METHODS: dict[str, tuple[str, list[str]]] = {
    name: (_WIDER[config][0], [*_WIDER[config][1], *_CHANGED.get(name, changed)])
    for name, (config, changed) in METHODS.items()
}
"""The same on a GPU: with a ViT of 9 layers, 192 wide, and ResNet-18 at full width, in batches of 512."""

RECIPES = {"cpu": METHODS, "gpu": CARD_METHODS}
"""Settings by the machine that they are for."""
