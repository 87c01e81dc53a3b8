"""Audio for training: class folders, a CSV file, any torch dataset, or a generated set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, FileDataModule, Sample, cache_sets
from jepa_lightning.data.batched import BatchTransform
from jepa_lightning.data.shared import FileSettings, Unpack
from jepa_lightning.data.sources.records import Decode
from jepa_lightning.modality import Batch
from modalities.audio.batched import BatchCrops, knows
from modalities.audio.cache import LogMelCache
from modalities.audio.files import AudioFiles, GivenAudio, find_audio
from modalities.audio.generated import GeneratedAudio
from modalities.audio.recordings import StoredRecording
from modalities.audio.transforms import AudioViews, Crop, LogMelCrop, Short


class AudioData(FileDataModule):
    """Batches of audio clips: `waveform` (B, L) float32, mono; `length` (B,), the real samples; `labels`; `id`.

    L is seconds times sample rate. Training clips are cropped at a random time, others from the middle of the
    recording. Of long files only that part is decoded. With `log_mel_cache` a batch has `log_mel` (B, F, T), not
    `waveform`, and `length` counts frames. Channels are averaged, other sample rates converted. Silent files are kept;
    empty, truncated and other damaged files, and NaN in what is read, are unreadable samples: counted, named, and
    replaced.

    `root` is a folder of audio files, with or without class folders, or a CSV file (`FileDataModule`). A `dataset`
    gives waveforms (L,) or (channels, L) at the sample rate, or torchaudio's (waveform, sample_rate, label, ...).

    Args:
        group: column of the CSV file that defines the splits (with a speaker, no speaker is in two splits). A
            column `split` is then ignored.
        test_groups: values of that column whose files are the test split.
        val_groups: likewise for validation; none: `val_fraction` of the remaining files, from any group.
        seconds: length of a clip. None: the model's.
        sample_rate: sample rate in Hz. None: the model's.
        short: how to extend recordings shorter than a clip: "pad" appends zeros, which `length` does not
            count; "tile" repeats the recording.
        gain: random gain of training clips, uniform up to this many dB louder or softer. 0: none.
        cache: keep decoded audio in memory, so that each file is decoded once, at the start (test audio is not
            kept). None: if it takes less than 1 GiB, and there is no `log_mel_cache`.
        cache_folder: keep them in files in this folder instead, which later runs find: each file is decoded once, for
            all runs, and the set may be larger than memory. What is no longer asked for is not removed.
        log_mel_cache: folder to keep the log-mel spectrograms of files in (`LogMelCache`), for files that are read
            in many epochs or runs. Excludes gain, and takes 2 bytes per value.
        front_end: computes the spectrograms for that cache. None: the model's.
        samples: number of generated training clips (an eighth as many for validation).
        **shared: root, csv, labels, dataset, val_dataset and test_dataset (`FileDataModule`); batch_size, num_workers,
            seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from modalities.audio import AudioData
        >>> data = AudioData(seconds=1.0, sample_rate=8000, samples=64, batch_size=16, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["waveform"].shape, sorted(batch["labels"])
        (torch.Size([16, 8000]), ['envelope', 'pitch', 'rate', 'rhythm', 'timbre'])
    """

    name = "waveform"
    takes_at_once = "all readable"

    def __init__(
        self,
        *,
        group: str | None = None,
        test_groups: list[str | int] | None = None,
        val_groups: list[str | int] | None = None,
        seconds: float | None = None,
        sample_rate: int | None = None,
        short: Short = "pad",
        gain: float = 0.0,
        cache: bool | None = None,
        cache_folder: str | None = None,
        log_mel_cache: str | None = None,
        front_end: nn.Module | None = None,
        samples: int = 4000,
        **shared: Unpack[FileSettings],
    ) -> None:
        super().__init__(samples=samples, **shared)
        self.only_for_files(group=group, cache_folder=cache_folder, log_mel_cache=log_mel_cache)
        if (group is None) == bool(test_groups or val_groups):
            raise DataError(
                "expected group, the column to split by, together with test_groups or val_groups, got "
                f"group {group}, test_groups {test_groups} and val_groups {val_groups}: set or leave out both"
            )
        beside = "cache" if cache else "cache_folder" if cache_folder else "gain" if gain else None
        if log_mel_cache is not None and beside:
            raise DataError(f"expected log_mel_cache without {beside}, got both: leave one out")
        if short not in ("pad", "tile"):
            raise DataError(f"expected short to be pad or tile, got {short!r}")
        if not 0 <= gain <= 60:
            raise DataError(f"expected gain from 0 to 60 dB, got {gain:g}")
        self.group = group
        self.test_groups = test_groups or []
        self.val_groups = val_groups or []
        self.seconds = seconds
        self.sample_rate = sample_rate
        self.short: Short = short
        self.gain = gain
        self.cache = cache
        self.cache_folder = cache_folder
        self.log_mel_cache = log_mel_cache
        self.front_end = front_end

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

    def wrap(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Wrap anyone's dataset, at the sample rate."""
        return GivenAudio(dataset, sample_rate=self.rate)

    def decoding(self) -> Decode:
        """Decode audio by soundfile, only the clip of each file."""
        return partial(StoredRecording, sample_rate=self.rate)

    def as_item(self, value: Any) -> Any:
        """As the base class; a tuple (waveform, sample_rate), as torchaudio loads files, is converted to the rate."""
        if isinstance(value, tuple):
            if len(value) != 2 or not isinstance(value[1], int):
                raise DataError(f"expected a tuple (waveform, sample_rate), got one of {len(value)}")
            return {"waveform": value[0], "sample_rate": value[1]}
        return super().as_item(value)

    def evaluation_transform(self) -> Callable[[Sample], Sample]:
        """Crop waveforms centrally; a cache of spectrograms holds those of the data's own files."""
        return Crop(self.clip, short=self.short)

    def load_files(self) -> dict[str, Dataset[Any]]:
        """Load the audio files in folders or a CSV file, by split."""
        found = find_audio(
            self.root,
            csv=self.csv,
            labels=self.labels,
            group=self.group,
            test_groups=self.test_groups,
            val_groups=self.val_groups,
        )
        sets = {split: AudioFiles(files, sample_rate=self.rate) for split, files in found.items()}
        if self.log_mel_cache is None:
            kept = [files for split, files in sets.items() if split != "test"]
            self.in_memory = cache_sets(kept, self.cache, self.cache_folder) or self.in_memory
        return dict(sets)

    def generate(self) -> dict[str, Dataset[Any]]:
        """Synthesise clips; see `GeneratedAudio`."""
        settings: dict[str, Any] = {"seconds": self.clip / self.rate, "sample_rate": self.rate, "seed": self.seed}
        counts = {"train": self.samples, "val": self.samples // 8}
        return {split: self.wrap(GeneratedAudio(count, split=split, **settings)) for split, count in counts.items()}

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """Crop at random for training, centrally for evaluation."""
        if self.log_mel_cache is not None:
            cache = LogMelCache(self.log_mel_cache, front_end=self._front_end(), sample_rate=self.rate)
            random = LogMelCrop(cache, self.clip, random=True, short=self.short)
            return random, LogMelCrop(cache, self.clip, short=self.short)
        return Crop(self.clip, random=True, short=self.short, gain=self.gain), Crop(self.clip, short=self.short)

    def default_views(self) -> AudioViews:
        """Crop at random, louder or softer, with a stretch and a band left out."""
        return AudioViews() if self.log_mel_cache is None else AudioViews(gain=0)

    def batch_augmentation(
        self, shape: tuple[int, ...], *, one: Callable[[Sample], Sample] | None, batch: Callable[[Batch], Batch] | None
    ) -> BatchTransform | None:
        """Crop recordings, or make views of them, by `BatchCrops`."""
        if batch is not None or len(shape) != 1:
            return None
        if type(one) is Crop and knows(one):
            return BatchCrops(one)
        if type(one) is AudioViews and type(one.crop) is Crop and knows(one) and knows(one.crop):
            return BatchCrops(one.crop, views=one, count=self.views)
        return None

    def _front_end(self) -> nn.Module:
        if self.front_end is not None:
            return self.front_end
        tokenizer = getattr(self.modality, "tokenizer", None)
        front_end = getattr(tokenizer, "front_end", None)
        if front_end is None:
            raise DataError(
                "expected a front end for log_mel_cache, got none and there is no audio model to take it from: set "
                "data.front_end"
            )
        return front_end
