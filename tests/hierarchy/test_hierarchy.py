"""Two levels: what a segment's token is, what stays hidden, what is trained, and a run on a run."""

from functools import partial

import pytest
import torch

import jepa_lightning
from jepa_lightning import JEPA
from jepa_lightning.cli.fit import fit
from jepa_lightning.encoders import ViT
from jepa_lightning.hierarchy import Segments
from jepa_lightning.maskers import Random
from jepa_lightning.objectives import MSE
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Hierarchy, Masked
from jepa_lightning.tokens import Latents, Query, Tokens, take
from modalities.audio import Audio
from modalities.image import Image
from modalities.pointcloud import PointCloud
from modalities.video import SlowClips, Video

SMALL = partial(ViT, width=16, depth=1, heads=2)
PREDICTOR = partial(TransformerPredictor, width=16, depth=1, heads=2)


def clips(frozen=True, **settings):
    torch.manual_seed(0)
    level = Video(frames=4, image_size=16, patch_size=8, encoder=SMALL, masker=Random(target_ratio=0.5))
    return Segments(level=level, parts=[5, 1, 1], encoder=SMALL, frozen=frozen, **settings)


def batch(seed=0):
    return {"video": torch.randn(3, 3, 20, 16, 16, generator=torch.Generator().manual_seed(seed))}


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("pooling", ["mean", "quarters", "mean+max"])
def test_a_segments_token_is_the_first_levels_pooled_output_of_these_frames(pooling):
    segments = clips(pooling=pooling)
    video = batch()["video"]
    tokens = segments.tokenizer({"video": video})
    found = segments.encoder.segments(tokens)
    for i in range(5):
        own = segments.level.tokenizer({"video": video[:, :, 4 * i : 4 * i + 4]})
        encoded = segments.level.encoder(own)
        expected = encoded.mean(1)
        if pooling == "mean+max":
            expected = torch.cat([expected, encoded.amax(1)], 1)
        if pooling == "quarters":  # a 2 by 2 by 2 grid: each token is an eighth
            expected = encoded.flatten(1)
        torch.testing.assert_close(found[:, i], expected)


@pytest.mark.parametrize(
    ("level", "parts", "whole", "count", "sizes"),
    [
        (partial(Image, image_size=16, patch_size=8), [2, 3], {"image": (3, 32, 48)}, 6, {"image_size": (32, 48)}),
        (
            partial(Audio, seconds=0.5, sample_rate=8000, patch_size=16, mels=32, mean=0.0, std=1.0),
            [4],
            {"waveform": (16000,)},
            4,
            {"seconds": 2.0, "sample_rate": 8000},
        ),
        (
            partial(Video, frames=2, image_size=16, patch_size=8),
            [3, 1, 2],
            {"video": (3, 6, 16, 32)},
            6,
            {"frames": 6, "image_size": (16, 32), "channels": 3},
        ),
    ],
    ids=["image", "audio", "video"],
)
def test_modalities_that_can_be_cut(level, parts, whole, count, sizes):
    segments = Segments(level=level(encoder=SMALL), parts=parts, encoder=SMALL)
    made = segments.example(2, generator())
    assert {key: tuple(values.shape[1:]) for key, values in made.items()} == whole
    again = segments._tokenizer.join(segments._tokenizer.cut(made))
    assert all(torch.equal(made[key], again[key]) for key in made)
    tokens = segments.tokenizer(made)
    assert tokens.count == count
    assert segments.encoder(tokens).shape == (2, count, 16)
    assert {name: getattr(segments, name) for name in sizes} == sizes
    drawn = segments.draw_masks(made, segments.masker(tokens, generator()))
    assert len(drawn) == 2
    assert drawn[0].dtype == torch.uint8
    assert segments.draw_features(made, tokens, torch.rand(2, count, 3))[0].ndim == 3


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="pointcloud cannot be cut"):
        Segments(level=PointCloud(encoder=SMALL), parts=[2])
    with pytest.raises(ValueError, match=r"a number for each of 3 axes of video.*got \[2\]"):
        Segments(level=clips().level, parts=[2])
    with pytest.raises(ValueError, match=r"expected samples of \(20, 16, 16\).*got \(16, 16, 16\)"):
        clips().tokenizer({"video": torch.zeros(1, 3, 16, 16, 16)})


def test_a_hidden_segment_changes_nothing_that_the_context_shows():
    segments = clips()
    video = batch()["video"]
    keep = torch.tensor([[0, 2]] * 3)
    other = video.clone()
    other[:, :, 4:8] += 1
    seen = [segments.encoder(segments.tokenizer({"video": v}), keep) for v in (video, other)]
    assert torch.equal(*seen)
    shown = video.clone()
    shown[:, :, 8:12] += 1
    assert not torch.equal(seen[0], segments.encoder(segments.tokenizer({"video": shown}), keep))


def train(jepa, steps=3):
    optimizer = torch.optim.SGD([p for p in jepa.parameters() if p.requires_grad], lr=0.1)
    for step in range(steps):
        outcome = jepa.step(batch(step), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        sum(jepa.losses(outcome).values()).backward()
        optimizer.step()
    return outcome


def test_a_frozen_first_level_stays_as_it_is_and_in_eval_mode():
    jepa = JEPA(clips(), predictor=PREDICTOR).train()
    before = {name: value.clone() for name, value in jepa.encoder.state_dict().items()}
    assert not jepa.encoder.first.training
    assert jepa.encoder.second.training
    train(jepa)
    changed = {name.split(".")[0] for name, value in jepa.encoder.state_dict().items() if not value.equal(before[name])}
    assert changed == {"second"}


def test_both_levels_are_trained_together():
    jepa = JEPA(clips(frozen=False), pretext=Hierarchy(predictor=PREDICTOR), predictor=PREDICTOR)
    before = {name: value.clone() for name, value in jepa.state_dict().items()}
    train(jepa)
    changed = {name for name, value in jepa.state_dict().items() if not value.equal(before[name])}
    for part in ("encoder.first.", "encoder.second.", "predictor.", "pretext.first_predictor."):
        assert any(name.startswith(part) for name in changed), part


def test_the_loss_is_that_of_both_levels():
    """The second's is that of Masked on segments; the first's that of Masked on the segments as samples."""
    jepa = JEPA(
        clips(frozen=False),
        pretext=Hierarchy(predictor=PREDICTOR, first_weight=0.25),
        predictor=PREDICTOR,
        objective=MSE(),
    )
    loss = jepa.losses(jepa.step(batch(), generator()))["prediction"]
    shared, pretext = generator(), Masked()
    tokens = jepa.tokenizer(batch())
    above = pretext.predict(jepa.networks, tokens, pretext.masks(jepa.networks, tokens, shared)).predictions[0]
    level = jepa.modality.level
    cut = batch()["video"].unflatten(2, (5, 4)).transpose(1, 2).flatten(0, 1)
    own = level.tokenizer({"video": cut})
    mask = level.masker(own, shared)[0]
    target = torch.nn.functional.layer_norm(jepa.target.encoder.first(own), (16,))
    seen = Latents(values=level.encoder(own, mask.context), positions=take(own.positions, mask.context))
    guess = jepa.pretext.first_predictor(seen, Query(positions=take(own.positions, mask.targets)))
    below = (guess - take(target, mask.targets)).square().mean()
    expected = (above.predicted - above.target).square().mean() + 0.25 * below
    torch.testing.assert_close(loss, expected)


def test_the_first_level_may_learn_from_some_segments_alone():
    pretext = Hierarchy(predictor=PREDICTOR, first_segments=2)
    outcome = JEPA(clips(frozen=False), pretext=pretext, predictor=PREDICTOR).step(batch(), generator())
    assert [len(latents.values) for latents in outcome.context] == [3, 6]


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="frozen: false"):
        JEPA(clips(), pretext=Hierarchy(predictor=PREDICTOR), predictor=PREDICTOR)
    wide = Segments(
        level=clips().level, parts=[5, 1, 1], encoder=partial(ViT, width=32, depth=1, heads=2), frozen=False
    )
    with pytest.raises(ValueError, match="two levels of one width"):
        JEPA(wide, pretext=Hierarchy(predictor=PREDICTOR), predictor=PREDICTOR)
    with pytest.raises(ValueError, match="first_segments of at least 1"):
        Hierarchy(first_segments=0)


def test_layers_are_numbered_from_the_second_level_on():
    encoder = clips().encoder
    number = encoder.group_matcher()
    assert {number(name) for name, _ in encoder.named_parameters() if name.startswith("first.")} == {0}
    assert max(number(name) for name, _ in encoder.named_parameters()) == encoder.depth == 1
    assert encoder(clips().tokenizer(batch()), layers=[0]).shape == (3, 5, 1, 16)
    with pytest.raises(ValueError, match="layer"):
        encoder(clips().tokenizer(batch()), layers=[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A first level, a second on it, and two levels together: two steps each."""
    folder = tmp_path_factory.mktemp("hierarchy")
    few = [
        "--trainer.max_steps=2",
        "--trainer.max_epochs=-1",
        "--trainer.accelerator=cpu",
        "--trainer.limit_val_batches=0",
    ]
    few += ["--probe.enabled=false", "--data.batch_size=8", "--data.dataset.init_args.samples=16"]
    few += ["--data.val_dataset.init_args.samples=8", "--trainer.enable_progress_bar=false"]
    weights = f"--model.modality.level.encoder.weights={folder / 'first'}"
    for name, config, more in (
        ("first", "recipes/hierarchy_first", []),
        ("second", "recipes/hierarchy_second", [weights]),
        ("joint", "hierarchy", []),
    ):
        fit(["--config", f"{config}.yaml", f"--trainer.default_root_dir={folder / name}", *few, *more])
    return folder


@pytest.mark.long
def test_a_run_on_a_run_needs_it_no_more(runs):
    first, second = jepa_lightning.load(runs / "first"), jepa_lightning.load(runs / "second")
    own = second.encoder.first.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in first.encoder.state_dict().items())
    (runs / "first").rename(runs / "moved")
    try:
        again = jepa_lightning.load(runs / "second")
    finally:
        (runs / "moved").rename(runs / "first")
    clip = SlowClips(2)[0]["video"]
    assert torch.equal(again(clip), second(clip))
    assert second(clip).shape == (64,)
    before = second.untrained()
    assert all(torch.equal(value, own[name]) for name, value in before.encoder.first.state_dict().items())
    assert not torch.equal(before(clip), second(clip))


@pytest.mark.long
def test_two_levels_in_one_run(runs):
    joint = jepa_lightning.load(runs / "joint")
    assert joint(SlowClips(2)[0]["video"]).shape == (64,)
    before = joint.untrained().encoder.first.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in joint.encoder.first.state_dict().items())


def test_tokens_of_the_first_level_are_encoded_by_it_alone():
    segments = clips()
    inner = segments.tokenizer(batch()).inner()
    assert type(inner) is Tokens
    assert torch.equal(segments.encoder(inner), segments.encoder.first(inner))


def test_slow_clips():
    long, short = SlowClips(40, seed=1), SlowClips(8, seed=1)
    assert (long.videos[:8] == short.videos).all()
    assert set(long.targets[:32].tolist()) == {0, 1}
    assert not (SlowClips(8, seed=1, split="val").videos == short.videos).all()
    with pytest.raises(ValueError, match="at least 1 sample, at least 8 frames, a multiple of 4"):
        SlowClips(4, frames=18)


def test_the_light_of_a_slow_clip_stands_still_within_a_segment_and_only_the_order_tells_the_way():
    clips = SlowClips(64, seed=3)
    frames = torch.from_numpy(clips.videos[..., 0]).float().unflatten(1, (8, 4))
    pixel = (torch.arange(32) + 0.5) / 32
    bright = (frames.amin(2) - 60).clamp(min=0)  # what fast objects cover is seen in another frame
    columns = (bright.sum(2) * pixel).sum(2) / bright.sum((2, 3))  # (64, 8)
    ways = torch.where(torch.from_numpy(clips.targets) == 0, 1.0, -1.0)
    steps = columns.diff(dim=1) * ways[:, None]
    assert (steps.median(1).values - 0.6 / 7).abs().max() < 0.03  # of the side, the same for both classes
    middle = torch.from_numpy(clips.lights[:, 1])
    assert (columns.mean(1) - middle).abs().median() < 0.03
    both = [(columns - middle[:, None])[ways == way].sort(1).values.median(0).values for way in (1.0, -1.0)]
    assert (both[0] - both[1]).abs().max() < 0.03  # without their order, the places are the same
    first, last = ((frames[:, :, t] - 60).clamp(min=0, max=100).mean((2, 3)) for t in (0, 3))
    assert (first - last).abs().median() < 3  # as bright at the end of a segment as at its start
