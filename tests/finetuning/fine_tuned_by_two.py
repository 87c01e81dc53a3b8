"""What each of two processes does, for test_in_two.py."""

import jepa_lightning

SETTINGS = {"accelerator": "cpu", "epochs": 2, "unfreeze": 1, "head": "attentive"}


def finetune(run, data, out):
    how = {"devices": 2, "strategy": "ddp", **SETTINGS}
    jepa_lightning.finetune(run, data={**data, "batch_size": 4}, out=out, **how)
