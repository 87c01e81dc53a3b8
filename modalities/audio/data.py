"""Sounds for training: class folders, a CSV file, any torch dataset, or a generated set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, JEPADataModule, Sample
from modalities.audio.cache import LogMelCache, LogMelCrop
from modalities.audio.crops import Crop, Short
from modalities.audio.files import GivenSounds, SoundFiles, find_sounds
from modalities.audio.generated import GeneratedSounds

_CACHE_BYTES = 2**30


class AudioData(JEPADataModule):
    """Batches of sounds: `waveform` (B, L) float32, mono; `length` (B,), the real samples; `labels`; `id`.

    L is seconds times sample rate. In training a clip lies at a random place of the sound, else in its middle. Of long
    files only that part is decoded. With `log_mel_cache` a batch has `log_mel` (B, F, T) in place of `waveform`, and
    `length` counts frames. Channels are averaged, other sample rates converted. Silent files are kept; empty, truncated
    and other damaged files, and NaN in what is read, are unreadable samples: counted, named, and replaced.

    Args:
        root: folder of sounds: `root/train/CLASS/*` (with `val` and `test` beside `train`, or not), `root/CLASS/*`, or
            without class folders for unlabelled sounds; or where the relative paths of `csv` start; or a CSV file.
            None, with neither csv nor dataset: the generated set.
        csv: a CSV file with the column path (or file, filename, audio), and perhaps labels, groups and `split` (train,
            val or test); see `jepa_lightning.data.find_files`.
        labels: label columns of the CSV file, the primary one first. None: label, or class.
        group: column of the CSV file that the splits are made by (a speaker: then no speaker is in two splits). A
            column `split` is then left aside.
        test_groups: the values of that column whose files are the test split.
        val_groups: likewise for validation; none: `val_fraction` of the remaining files, whatever their group.
        dataset: training data in place of files: any torch dataset that gives waveforms (L,) or (channels, L) at the
            sample rate, with or without a label, or torchaudio's (waveform, sample_rate, label, ...).
        val_dataset: validation data; None holds out `val_fraction` of the training data.
        test_dataset: test data.
        seconds: length of a clip. None: the model's.
        sample_rate: in Hz. None: the model's.
        short: what is done with sounds shorter than a clip: "pad" puts zeros behind them, which `length` leaves out;
            "tile" plays them again and again.
        gain: training clips are louder or softer by up to this many dB, drawn uniformly. 0: as they are.
        cache: keep decoded sounds in memory, so that each file is decoded once, at the start (test sounds are not
            kept). None: when they take less than 1 GiB, and there is no `log_mel_cache`.
        log_mel_cache: folder where the log-mel spectrograms of files are kept (`LogMelCache`), for files that are read
            in many epochs or runs. Costs gain, and 2 bytes a value.
        front_end: gives the spectrograms for that cache. None: the model's.
        samples: number of generated training sounds (an eighth as many for validation).
        **shared: what all data modules take (`JEPADataModule`): batch_size, num_workers, pin_memory, drop_last,
            seed (which also draws the generated set), val_fraction, probe_samples, max_unreadable.

    Raises:
        DataError: arguments that do not fit each other or the data.
    """

    name = "waveform"

    def __init__(
        self,
        *,
        root: str | None = None,
        csv: str | None = None,
        labels: list[str] | None = None,
        group: str | None = None,
        test_groups: list[str | int] | None = None,
        val_groups: list[str | int] | None = None,
        dataset: Dataset | None = None,
        val_dataset: Dataset | None = None,
        test_dataset: Dataset | None = None,
        seconds: float | None = None,
        sample_rate: int | None = None,
        short: Short = "pad",
        gain: float = 0.0,
        cache: bool | None = None,
        log_mel_cache: str | None = None,
        front_end: nn.Module | None = None,
        samples: int = 4000,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        files = root is not None or csv is not None
        if files and dataset is not None:
            raise DataError("expected files (root, csv) or dataset, got both: leave one out")
        if dataset is None and (val_dataset is not None or test_dataset is not None):
            raise DataError("expected a dataset beside val_dataset or test_dataset, got none: set dataset too")
        if not files and (labels is not None or group is not None or log_mel_cache is not None):
            what = "labels" if labels is not None else "group" if group is not None else "log_mel_cache"
            raise DataError(f"expected {what} only for files, got neither root nor csv: set one, or leave {what} out")
        if (group is None) == bool(test_groups or val_groups):
            raise DataError(
                "expected group, the column to split by, together with test_groups or val_groups, got "
                f"group {group}, test_groups {test_groups} and val_groups {val_groups}: set or leave out both"
            )
        if log_mel_cache is not None and (cache or gain):
            raise DataError(f"expected log_mel_cache without {'cache' if cache else 'gain'}, got both: leave one out")
        if short not in ("pad", "tile"):
            raise DataError(f"expected short to be pad or tile, got {short!r}")
        if not 0 <= gain <= 60:
            raise DataError(f"expected gain from 0 to 60 dB, got {gain:g}")
        if samples < 16:
            raise DataError(f"expected at least 16 generated samples, got {samples}")
        self.root = root
        self.csv = csv
        self.columns = labels
        self.group = group
        self.test_groups = test_groups or []
        self.val_groups = val_groups or []
        self.dataset = dataset
        self.val_dataset = val_dataset
        self.test_dataset = test_dataset
        self.seconds = seconds
        self.sample_rate = sample_rate
        self.short: Short = short
        self.gain = gain
        self.cache = cache
        self.log_mel_cache = log_mel_cache
        self.front_end = front_end
        self.samples = samples

    @property
    def rate(self) -> int:
        """Sample rate of the waveforms in a batch, in Hz."""
        rate = int(self.or_model("sample_rate", self.sample_rate))
        if rate < 1:
            raise DataError(f"expected sample_rate of at least 1 Hz, got {rate}")
        return rate

    @property
    def clip(self) -> int:
        """L, the number of samples of the waveforms in a batch."""
        seconds = float(self.or_model("seconds", self.seconds))
        if not 1 <= round(seconds * self.rate) < 2**31:
            raise DataError(f"expected seconds that hold at least 1 sample at {self.rate} Hz, got {seconds:g}")
        return round(seconds * self.rate)

    def load(self) -> dict[str, Dataset[Any]]:
        """The data sets by split."""
        if self.dataset is not None:
            given = {"train": self.dataset, "val": self.val_dataset, "test": self.test_dataset}
            return {
                split: GivenSounds(sounds, sample_rate=self.rate)
                for split, sounds in given.items()
                if sounds is not None
            }
        if self.root is None and self.csv is None:
            return self._generate()
        found = find_sounds(
            self.root,
            csv=self.csv,
            labels=self.columns,
            group=self.group,
            test_groups=self.test_groups,
            val_groups=self.val_groups,
        )
        sets = {split: SoundFiles(files, sample_rate=self.rate) for split, files in found.items()}
        if self.log_mel_cache is None:
            self._fill_cache([sounds for split, sounds in sets.items() if split != "test"])
        return dict(sets)

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Random crop for training, central crop for evaluation."""
        if self.log_mel_cache is not None:
            cache = LogMelCache(self.log_mel_cache, front_end=self._front_end(), sample_rate=self.rate)
            random = LogMelCrop(cache, self.clip, random=True, short=self.short)
            return random, LogMelCrop(cache, self.clip, short=self.short)
        return Crop(self.clip, random=True, short=self.short, gain=self.gain), Crop(self.clip, short=self.short)

    def _front_end(self) -> nn.Module:
        if self.front_end is not None:
            return self.front_end
        module = self.trainer.lightning_module if self.trainer is not None else None
        tokenizer = getattr(getattr(module, "modality", None), "tokenizer", None)
        front_end = getattr(tokenizer, "front_end", None)
        if front_end is None:
            raise DataError(
                "expected a front end for log_mel_cache, got none and there is no audio model to take it from: set "
                "data.front_end"
            )
        return front_end

    def _generate(self) -> dict[str, Dataset[Any]]:
        self.in_memory = True
        seconds, counts = self.clip / self.rate, {"train": self.samples, "val": self.samples // 8}
        return {
            split: GivenSounds(
                GeneratedSounds(count, seconds=seconds, sample_rate=self.rate, seed=self.seed, split=split),
                sample_rate=self.rate,
            )
            for split, count in counts.items()
        }

    def _fill_cache(self, sets: Sequence[SoundFiles]) -> None:
        keep = self.cache
        if keep is None:
            keep = sum(sounds.decoded_bytes() for sounds in sets) < _CACHE_BYTES
        if keep:
            for sounds in sets:
                sounds.cache()
            self.in_memory = True
