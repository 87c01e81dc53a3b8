"""`jepa-collect`: record episodes of an environment from a shell."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.cli.options import command


def collect(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-collect`. Mistakes of the user end in a few lines and exit code 2."""
    from jepa_lightning.data.trajectories.collect import collect as record

    with command("jepa-collect", record, args) as settings:
        found = record(**settings)
        out = settings["out"]
        print(f"{out}: {found['episodes']} episodes, {found['observations']:,} observations")
        print(f"return of random actions {found['return']:.1f}")
        size = settings["image_size"]
        sizes = f"--model.modality.channels 3 --model.modality.image_size {size} --model.modality.patch_size {size}"
        begin = f"jepa-fit --config world.yaml --data.environment null --data.root {out}"
        actions = f"--model.pretext.action_dim {found['action_dim']}"
        print(f"next: {begin} {sizes} {actions}")
        if found["state"]:
            numbers = f"--model.modality Vector --model.modality.features {found['state']}"
            parts = (" ViT", ".width 32", ".depth 2", ".heads 2")
            small = " ".join(f"--model.modality.encoder{part}" for part in parts)
            print(f"or from its state: {begin} --data.observations state {numbers} {small} {actions}")
