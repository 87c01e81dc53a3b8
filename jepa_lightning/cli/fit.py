"""`jepa-fit`: its help, lists and version, for which nothing that computes is imported; all else is LightningCLI's."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

HELP = """\
usage: jepa-fit CONFIG [--KEY VALUE ...]

Train a Joint Embedding Predictive Architecture. CONFIG is a YAML file, or the name of a shipped one. Any setting in it
can be replaced by an option, and every setting can be an option.

  jepa-fit image.yaml                                          generated images: no data, no GPU, three minutes
  jepa-fit image.yaml --data.root my_images                    your own: class folders, a flat folder, --data.csv, ...
  jepa-fit image.yaml --trainer.devices 4 --trainer.precision bf16-mixed

often used:
  --data.root DIR                      the data; --data.batch_size, --data.num_workers
  --trainer.max_epochs N               length of the run, or --trainer.max_steps
  --trainer.default_root_dir DIR       the folder of the run: everything is written there
  --model.learning_rate X              highest learning rate
  --model.regularizers NAME            VICReg, SIGReg, ...: what keeps the features from collapsing
  --seed_everything N                  seed of weights, masks, augmentation and order
  --auto_resume true                   resume an unfinished run of the same folder
  --init SOURCE                        start from weights: a run, a released checkpoint, a transformers or timm model

what there is:
  jepa-fit list                        everything that a config can name; or one of:
{kinds}
  jepa-fit CONFIG --print_config       all settings of a config, with their values
  jepa-fit --data.help ImageData       the settings of a class; so for --model.modality.help, --model.target.help, ...
  jepa-fit fit --help                  all options, those of Lightning's Trainer among them
  jepa-fit --version

more:
  jepa-fit validate CONFIG --ckpt_path RUN    the losses of a run on validation data
  jepa-probe RUN    jepa-embed RUN FILE    jepa-view RUN    jepa-plan RUN       use a run; each has a --help
  jepa-finetune RUN    jepa-import SOURCE    jepa-export RUN                    train it on labels; weights in and out
  jepa-collect ENV DIR                        record episodes of a gymnasium environment for a world model
"""


def fit(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-fit`. Mistakes of the user end in a few lines and exit code 2, faults in code 1.

    A run that SIGTERM or SIGUSR1 has ended, saved, exits with 75, one that Ctrl-C has with 130. JEPA_TRACEBACK=1 in the
    environment shows where an error came from.

    Args:
        args: the words; None: those of this process.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words in (["-h"], ["--help"]):
        from jepa_lightning.config.kinds import KINDS

        kinds = textwrap.fill(" ".join(KINDS), 112, initial_indent=" " * 39, subsequent_indent=" " * 39)
        print(HELP.format(kinds=kinds), end="")
    elif words == ["--version"]:
        from jepa_lightning._version import __version__

        print(f"jepa-lightning {__version__}")
    elif words[0] == "list":
        from jepa_lightning.cli.listing import print_lists

        print_lists(words[1:])
    else:
        from jepa_lightning.run.signals import asks_for_resume, exits_before_training

        with exits_before_training("jepa-fit", requeue=asks_for_resume(words)):
            from jepa_lightning.cli.postponed import postpone_metrics

            postpone_metrics()
            from jepa_lightning.cli.lightning_cli import run
        run(args)
