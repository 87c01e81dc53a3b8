"""Work that is done on one thread: masks, and the fits of the online probe."""

import pytest
import torch

from jepa_lightning.callbacks import OnlineProbe
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.scale.threads import one_thread, one_thread_if_small


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_inside_and_as_many_as_before_after_it():
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("numbers", "threads"), [(4_999_999, 1), (5_000_000, 3)])
def test_large_fits_keep_their_threads(numbers, threads):
    with one_thread_if_small(numbers):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_masks_are_drawn_on_one_thread_and_are_the_same(make_jepa):
    module, found = make_jepa(), []
    tokens = module.tokenizer({"image": torch.rand(4, 3, 32, 32)})
    draw = module.masker

    def watched(*args):
        found.append(torch.get_num_threads())
        return draw(*args)

    expected = draw(tokens, module.mask_generator("train", 3, 0))
    module.modality.masker = watched
    masks = module.pretext.masks(module.networks, tokens, module.mask_generator("train", 3, 0))
    assert found == [1]
    assert torch.get_num_threads() == 3
    for mine, other in zip(masks, expected, strict=True):
        assert torch.equal(mine.context, other.context)
        assert torch.equal(mine.targets, other.targets)


def test_the_online_probe_fits_on_one_thread(make_jepa, make_data, make_trainer, monkeypatch):
    import jepa_lightning.callbacks.probe as module

    def watched(train, test, **settings):
        assert isinstance(train, Features)
        found.append(torch.get_num_threads())
        return fit(train, test, **settings)

    found, fit = [], module.probe
    monkeypatch.setattr(module, "probe", watched)
    make_trainer(OnlineProbe(), max_epochs=1).fit(make_jepa(), datamodule=make_data())
    assert found == [1, 1]  # of the trained encoder and the untrained one
    assert torch.get_num_threads() == 3
