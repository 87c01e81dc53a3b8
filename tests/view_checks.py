"""What the views of every kind of data must be."""

import pickle

import torch

from jepa_lightning.data import view_seed


def check_views(make, *, views=3, equal=torch.equal):
    """That views are draws of the pipeline with one view, whatever the workers; `make` builds a data module.

    Returns the first batch.
    """
    data = make(views=views)
    batches = [loader_batch(make(views=views, num_workers=workers)) for workers in (0, 2)]
    pickle.loads(pickle.dumps(data.train_dataloader().dataset.transform))
    chosen = data.viewing
    single = make(view_transform=chosen)
    single.setup()
    part, collate = single.part("train"), single.train_dataloader().collate_fn
    sampler = list(data.train_dataloader().sampler)[: data.batch_size]
    for batch in batches:
        assert batch["views"][0][data_key(batch)] is batch[data_key(batch)]
        assert len(batch["views"]) == views
        for view, found in enumerate(batch["views"]):
            if chosen.__dict__.get("local_views"):
                continue
            alone = collate([part[position, view_seed(seed, view)] for position, seed in sampler])
            assert set(found) == set(alone) - {"labels", "id"}
            for key, value in found.items():
                assert equal(value, alone[key]), (view, key)
    assert "views" not in next(iter(data.val_dataloader()))
    return batches[0]


def loader_batch(data):
    return next(iter(data.train_dataloader()))


def data_key(batch):
    return next(key for key in batch["views"][0] if key != "length")
