"""A run's folder is enough: its vocabulary is kept, whatever happens to the files that it came from."""

import shutil

import pytest
import torch
from short_runs import fit_shortly
from test_text_tokenizer import hugging_face

from jepa_lightning import load, load_jepa

TEXTS = ["The cats sat.", "a cat"]


def same_tokens(one, other):
    first, second = one.tokenizer({"text": TEXTS}), other.tokenizer({"text": TEXTS})
    return torch.equal(first.values, second.values) and torch.equal(first.valid, second.valid)


def test_a_fitted_vocabulary(short_run):
    folder, run = short_run("text")
    encoder = load(folder)
    assert not encoder.tokenizer.needs_statistics
    assert same_tokens(encoder, run.model)
    assert same_tokens(encoder.untrained(), run.model)
    pieces = encoder.tokenizer.vocabulary.pieces
    assert " the" in pieces[256:]
    assert len(encoder.tokenizer({"text": ["the the the"]}).values[0].nonzero()) == 3


def test_a_file_that_is_gone(tmp_path):
    file = hugging_face(tmp_path / "tokenizer.json")
    words = ["--model.modality.vocabulary", "null", "--model.modality.tokenizer", str(file)]
    run = fit_shortly("text", tmp_path / "run", *words)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    file.unlink()
    encoder = load(tmp_path / "moved")
    assert same_tokens(encoder, run.model)
    assert encoder.tokenizer.size == 9
    assert same_tokens(encoder.untrained(), run.model)
    assert same_tokens(load_jepa(tmp_path / "moved"), run.model)
    assert torch.isfinite(encoder.embed({"text": TEXTS})).all()
    with pytest.raises(ValueError, match="expected a file of Hugging Face tokenizers"):
        fit_shortly("text", tmp_path / "other", *words)


def test_strings_and_files(short_run, tmp_path):
    """A string is a text; a file is named by a Path."""
    encoder = load(short_run("text")[0])
    (tmp_path / "a.txt").write_text(TEXTS[0])
    batch = encoder.preprocess([TEXTS[0], tmp_path / "a.txt"])
    assert batch["text"] == [TEXTS[0]] * 2
    assert encoder.embed(batch).shape == (2, 16)
