"""The option that was perhaps meant where there is none of that name."""

from __future__ import annotations

from collections.abc import Iterable

from jepa_lightning.names.nearest import nearest_names

SYNONYMS = {
    "data.root": "data data_dir data_path data_root dataset dataset_path folder images input input_dir path root "
    "train_dir",
    "data.batch_size": "b batch batch_size bs train_batch_size per_device_train_batch_size",
    "data.num_workers": "j num_workers nworkers threads workers",
    "data.csv": "annotations csv",
    "trainer.max_epochs": "e epoch epochs max_epochs n_epochs num_epochs num_train_epochs",
    "trainer.max_steps": "iterations iters max_iters max_steps num_steps steps total_steps",
    "trainer.default_root_dir": "folder_out log_dir logdir o out out_dir output output_dir output_folder run_dir "
    "save_dir work_dir default_root_dir",
    "trainer.devices": "devices gpu gpus n_gpus ngpus num_gpus nproc_per_node",
    "trainer.num_nodes": "nnodes nodes num_nodes",
    "trainer.accelerator": "accelerator cpu cuda device",
    "trainer.precision": "amp bf16 dtype fp16 mixed_precision precision",
    "trainer.strategy": "ddp distributed fsdp strategy",
    "trainer.accumulate_grad_batches": "accum accumulate_grad_batches gradient_accumulation_steps",
    "trainer.gradient_clip_val": "clip_grad gradient_clip_val grad_clip max_grad_norm",
    "trainer.logger": "logger mlflow tensorboard wandb",
    "model.learning_rate": "learning_rate lr max_lr peak_lr",
    "model.weight_decay": "wd weight_decay",
    "model.optimizer": "opt optim optimizer",
    "model.objective": "loss objective",
    "model.target.momentum": "ema ema_decay ema_momentum momentum",
    "model.modality": "modality",
    "model.modality.encoder": "arch backbone encoder",
    "model.modality.image_size": "image_size img_size input_size resolution",
    "model.modality.patch_size": "patch_size",
    "model.modality.masker": "masker masking",
    "model.compile": "compile torch_compile",
    "seed_everything": "random_seed random_state seed",
    "auto_resume": "continue resume resume_from",
    "ckpt_path": "checkpoint ckpt ckpt_path load resume_from_checkpoint",
    "config": "cfg conf config_file yaml",
}
"""Options, each with the words that other programs have for it."""

_MEANT = {word: option for option, words in SYNONYMS.items() for word in words.split()}
_CLOSE = 0.8  # how like a name one must be that is suggested


def suggest(option: str, known: Iterable[str], *, foreign: bool = False) -> list[str]:
    """Suggest the options that a mistyped or foreign one may have meant; none rather than one that is unlike it.

    Args:
        option: as typed: `--epochs`, `batch_size`.
        known: the options there are.
        foreign: look at the words of other programs, too (`SYNONYMS`).

    Returns:
        At most three options without dashes: what another program's word stands for; those whose last part it is; else
        the one that is most like it.

    Examples:
        >>> from jepa_lightning.config.suggestions import suggest
        >>> suggest("--epochs", [], foreign=True), suggest("--data.widht", ["data.width", "data.height"])
        (['trainer.max_epochs'], ['data.width'])
    """
    name = option.lstrip("-").replace("-", "_")
    options = sorted({option.lstrip("-") for option in known if not option.endswith((".help", "--help"))})
    if foreign and name in _MEANT:
        return [_MEANT[name]]
    last = name.rpartition(".")[2]
    same = [known for known in options if known.rpartition(".")[2] == last]
    if same:
        return nearest_names(name, same, count=3, cutoff=0.0)
    near = nearest_names(name, options, cutoff=_CLOSE)
    if near:
        return near
    alike = nearest_names(last, {known.rpartition(".")[2] for known in options}, cutoff=_CLOSE)
    return [known for known in options if known.rpartition(".")[2] in alike][:3]
