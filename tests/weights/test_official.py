"""Official layouts into ours, against plain float64 formulas; what does not fit is refused."""

from dataclasses import replace
from functools import partial

import layouts as lay
import pytest
import torch

from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.predictors import PredictorSpec, TransformerPredictor
from jepa_lightning.tokens import Latents, Query, take
from jepa_lightning.weights.formats.sources import read_weights
from modalities.image import Image
from modalities.video import Video

SIZE = lay.SIDE * lay.PATCH
GRIDS = {"ijepa": (lay.SIDE, lay.SIDE)} | dict.fromkeys(("vjepa", "vjepa2", "vjepa2.1"), (2, lay.SIDE, lay.SIDE))
FORMS = {"vjepa2": "released", "vjepa2.1": "interleaved"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def vit(family, **settings):
    known = {"rotary": FORMS[family]} if family in FORMS else {"positions": "stored"}
    if family == "vjepa2.1":
        known["rotary_grid"] = (16, 16)
    sizes = {"width": lay.W, "depth": lay.DEPTH, "heads": lay.HEADS, "mlp_ratio": lay.HIDDEN / lay.W}
    return partial(ViT, **{**sizes, **known, **settings})


def modality(family, encoder):
    if family == "ijepa":
        return Image(image_size=SIZE, patch_size=lay.PATCH, encoder=encoder)
    return Video(frames=4, image_size=SIZE, tubelet=2, patch_size=lay.PATCH, encoder=encoder)


def save(tmp_path, content, name="weights.pth.tar"):
    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def tokens_of(made, pixels):
    tokens = made.tokenizer({made.name: pixels})
    return replace(tokens, positions=tokens.positions.double())


@pytest.mark.parametrize("family", GRIDS)
def test_official_encoders_compute_what_they_did(family, tmp_path):
    state, pixels = lay.encoder(family), torch.randn(2, 3, *([4] if family != "ijepa" else []), SIZE, SIZE)
    file = save(tmp_path, {"target_encoder": lay.wrapped(state, "module.backbone."), "encoder": {}, "epoch": 3})
    made = modality(family, vit(family, weights=file))
    scale = (1, 15 / 3, 15 / 3) if family == "vjepa2.1" else (1, 1, 1)
    expected = torch.stack([lay.encode(state, x, FORMS.get(family), scale) for x in pixels])
    found = made.encoder.eval()(tokens_of(made, pixels))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("family", "tokens"), [("ijepa", 1), ("vjepa", 2), ("vjepa2", 10)])
def test_official_predictors_compute_what_they_did(family, tokens, tmp_path):
    grid = GRIDS[family]
    state, asked = lay.encoder(family), lay.predictor(family, tokens=tokens)
    file = save(tmp_path, {"encoder": lay.wrapped(state), "predictor": lay.wrapped(asked), "opt": {"state": {}}})
    made = modality(family, vit(family))
    known = {"rotary": FORMS[family]} if family in FORMS else {"positions": "stored"}
    spec = PredictorSpec(dim=lay.W, out=lay.W, token=made.spec)
    own = TransformerPredictor(spec, width=12, depth=1, heads=2, mlp_ratio=2.0, mask_tokens=tokens, **known)
    from jepa_lightning.weights.formats.fit import fill_predictor

    weights = read_weights(file)
    weights.predictor_facts.heads = 2  # the released ones have more
    fill_predictor(own, made.spec, weights)
    context, order = torch.randn(2, 5, lay.W), torch.stack([torch.randperm(16)[:11] for _ in range(2)])
    where, wanted = order[:, :5], order[:, 5:]
    positions = lay.places(grid)[None]
    for number in range(min(tokens, 3)):
        query = Query(positions=take(positions, wanted).unflatten(1, (2, 3)), mask=number + tokens)
        found = own.eval()(Latents(values=context, positions=take(positions, where)), query)
        for b in range(2):
            for m in range(2):
                block = wanted[b].view(2, 3)[m]
                expected = lay.predict(asked, context[b], where[b], block, grid, 2, number, FORMS.get(family))
                torch.testing.assert_close(found[b, m], expected, rtol=0, atol=1e-6)


def test_what_is_taken_is_said(tmp_path):
    parts = {"encoder": lay.wrapped(lay.encoder("ijepa")), "target_encoder": lay.wrapped(lay.encoder("ijepa"))}
    file = save(tmp_path, {**parts, "predictor": lay.predictor("ijepa"), "opt": {}, "scaler": None, "epoch": 300})
    line = read_weights(file).line()
    assert line.startswith("weights: I-JEPA, target_encoder of weights.pth.tar: 28 wide, 2 layers, patches of 4 x 4")
    assert "predictor 12 wide, 1 layer," in line
    assert line.endswith("left out: encoder, opt, scaler, epoch")
    context = read_weights(file, encoder="context")
    assert context.taken == "encoder"
    assert torch.equal(context.encoder["norm.weight"], parts["encoder"]["module.norm.weight"])
    ema = read_weights(save(tmp_path, {"encoder": parts["encoder"], "ema_encoder": parts["target_encoder"]}))
    assert ema.taken == "ema_encoder"
    with pytest.raises(ValueError, match="expected the target encoder"):
        read_weights(save(tmp_path, {"encoder": parts["encoder"]}), encoder="target")


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("ijepa", {"positions": None}, r"columns first\) that are not those the model computes: set positions: stored"),
        ("ijepa", {"positions": None, "rotary": "interleaved"}, "trained with rotary: none, the model has interleaved"),
        (
            "vjepa",
            {"positions": None},
            r"\(ceil\(D/6\)\*2 an axis\) that are not those the model computes",
        ),
        ("vjepa2", {"rotary": "interleaved"}, "trained with rotary: released, the model has interleaved: set rotary"),
        ("vjepa2", {"rotary": None}, "trained with rotary: released, the model has none"),
        ("vjepa2.1", {"rotary": "released", "rotary_grid": None}, "trained with rotary: interleaved"),
        ("vjepa2.1", {"rotary_grid": None}, r"trained with rotary_grid: \[16, 16\], the model has \(4, 4\)"),
        ("vjepa2", {"rotary_grid": (16, 16)}, r"trained with rotary_grid: null, the model has \(16, 16\)"),
        ("ijepa", {"norm_eps": 1e-5}, "trained with norm_eps: 1e-06, the model has 1e-05: set norm_eps"),
        ("ijepa", {"depth": 1}, "does not fit the ViT: unexpected: transformer.layers.1"),
        ("ijepa", {"depth": 3}, "does not fit the ViT: missing: transformer.layers.2"),
        ("ijepa", {"mlp_ratio": 1.0}, "of another shape: transformer.layers.0.mlp.fc1"),
        ("ijepa", {"final_norm": False}, "unexpected: transformer.norm"),
    ],
)
def test_wrong_settings_are_refused(family, settings, message, tmp_path):
    state = lay.encoder(family)
    file = save(
        tmp_path, {"encoder": state, "predictor": lay.predictor("vjepa")} if family == "vjepa" else {"encoder": state}
    )
    with pytest.raises(ValueError, match=message):
        modality(family, vit(family, weights=file, **settings))


def test_heads_of_released_sizes_are_known(tmp_path):
    with torch.device("meta"):
        weights = read_weights(save(tmp_path, {"encoder": lay.encoder("vjepa2")}))
    assert weights.facts.heads is None
    from jepa_lightning.weights.formats.official import HEADS

    assert HEADS["I-JEPA"][1408] == 16
    assert HEADS["V-JEPA 2"][1408] == 22


def test_v_jepa_and_v_jepa_2_are_told_apart_or_left_to_the_model(tmp_path):
    """V-JEPA 2's official files hold positions, too, which its rotary attention does not use."""
    state = lay.encoder("vjepa")
    tokens = {n: lay.predictor("vjepa", tokens=n) for n in (2, 10)}
    assert read_weights(save(tmp_path, {"encoder": state, "predictor": tokens[2]})).family == "V-JEPA"
    second = read_weights(save(tmp_path, {"encoder": state, "predictor": tokens[10]}))
    assert second.family == "V-JEPA 2"
    assert "positions" not in {*second.encoder, *second.predictor}
    assert second.left_out[:2] == ["pos_embed (not used with rotary attention)", "predictor_pos_embed (likewise)"]
    silent = save(tmp_path, {"encoder": state}, "silent.pt")
    assert read_weights(silent).unsure
    for family in ("vjepa", "vjepa2"):
        assert not read_weights(silent, family=family).unsure
        made = modality(family, vit(family, weights=silent))
        assert (made.encoder.positions is None) == (family == "vjepa2")
    with pytest.raises(ValueError, match="trained with rotary: released, the model has interleaved"):
        modality("vjepa2", vit("vjepa2", weights=silent, rotary="interleaved"))
    with pytest.raises(ValueError, match=r"expected weights of I-JEPA in silent\.pt, these look like V-JEPA 2's"):
        read_weights(silent, family="ijepa")


def test_positions_and_patches_are_resampled(tmp_path):
    """The table of another grid is the same wave at stretched places; patches of constant images embed alike."""
    state = lay.encoder("ijepa")
    file = save(tmp_path, {"encoder": state})
    made = Image(image_size=48, patch_size=8, encoder=vit("ijepa", weights=file))
    assert made.encoder.positions.table.shape == (36, lay.W)
    assert made.encoder.embed.weight.shape == (lay.W, 3 * 64)
    row = torch.linspace(-1 / 6, 3 + 1 / 6, 6).clamp(0, 3)  # six places over four, centres of pixels aligned
    half = lay.W // 2
    omega = 10_000.0 ** -(torch.arange(half // 2) / (half // 2))
    first = made.encoder.positions.table.double().view(6, 6, lay.W)
    torch.testing.assert_close(first[2, :, : half // 2], (row[:, None] * omega).sin(), rtol=0, atol=1e-6)
    torch.testing.assert_close(first[:, 3, half : half + half // 2], (row[:, None] * omega).sin(), rtol=0, atol=1e-6)
    kernel = state["patch_embed.proj.weight"].sum((2, 3))
    torch.testing.assert_close(made.encoder.embed.weight.view(lay.W, 3, 64).sum(2), kernel, rtol=0, atol=1e-4)


def test_tubelets_are_not_resampled(tmp_path):
    file = save(tmp_path, {"encoder": lay.encoder("vjepa2")})
    with pytest.raises(ValueError, match=r"embeds tokens of shape \(3, 2, 4, 4\), the modality cuts \(3, 1, 4, 4\)"):
        Video(frames=4, image_size=SIZE, tubelet=1, patch_size=4, encoder=vit("vjepa2", weights=file))


def test_unknown_tensors_are_refused(tmp_path):
    state = lay.encoder("ijepa")
    file = save(tmp_path, {"encoder": {**state, "cls_token": torch.zeros(1, 1, lay.W)}})
    with pytest.raises(ValueError, match=r"without class token in the encoder in weights\.pth\.tar, got cls_token"):
        read_weights(file)
    with pytest.raises(ValueError, match=r"expected weights of an I-JEPA, V-JEPA or ViT in weights.pth.tar, got a, b"):
        read_weights(save(tmp_path, {"a": torch.zeros(1), "b": torch.zeros(1)}))
    with pytest.raises(ValueError, match="does not exist: name a run"):
        read_weights(tmp_path / "nothing" / "there.pth")


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(ValueError, match="such a file can run code, so it was not loaded"):
        read_weights(save(tmp_path, {"encoder": lay.encoder("ijepa"), "opt": Evil()}))


def test_an_action_conditioned_predictor_is_left_out(tmp_path):
    asked = {**lay.predictor("vjepa2"), "action_encoder.weight": torch.zeros(12, 7)}
    weights = read_weights(save(tmp_path, {"encoder": lay.encoder("vjepa2"), "predictor": asked}))
    assert weights.predictor is None
    assert "the action-conditioned predictor" in weights.left_out


def test_official_files_load_into_timm_models(tmp_path):
    torch.set_default_dtype(torch.float32)
    import timm

    options = {"depth": 1, "class_token": False, "global_pool": "avg", "fc_norm": False, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, **options).eval()
    state = {key: torch.randn_like(value) / 8 for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    file = save(tmp_path, {"target_encoder": lay.wrapped(state), "epoch": 1})
    own = {key: value for key, value in options.items() if key != "num_classes"}
    build = partial(TimmEncoder, name="vit_tiny_patch16_224", options=own)
    pixels = torch.randn(2, 3, 64, 64)
    made = Image(image_size=64, encoder=partial(build, weights=file))
    found = made.encoder.eval()(made.tokenizer({"image": pixels}))
    torch.testing.assert_close(found, model.forward_features(pixels), rtol=1e-4, atol=1e-5)
