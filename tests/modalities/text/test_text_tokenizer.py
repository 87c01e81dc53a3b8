"""Vocabularies: bytes, byte-pair encoding fitted on the data, tokenizers files; words and sentences."""

import copy
from collections import Counter
from itertools import pairwise

import pytest
import tokenizers
import torch

from modalities.text import TextTokenizer
from modalities.text.vocabulary import fit_merges, from_merges

TEXTS = ["The cat sat. The cat ran!", "A dog\nand a cat", "caf\u00e9 \u65e5\u672c \U0001f600", "x"]
WORDS = ["low lower lowest newer newest wider widest"] * 5


def real(tokens, row):
    return tokens.values[row][tokens.valid[row]]


def written(tokenizer, text):
    """Text that a vocabulary of bytes gives back."""
    tokens = tokenizer({"text": [text]})
    pieces = tokenizer.vocabulary.pieces
    return [pieces[i] for i in real(tokens, 0).tolist()]


def test_bytes():
    tokenizer = TextTokenizer(vocabulary=256, length=64)
    assert not tokenizer.needs_statistics
    tokens = tokenizer({"text": TEXTS})
    for row, text in enumerate(TEXTS):
        assert bytes(real(tokens, row).tolist()) == b" " + text.encode()
    assert tokens.values.dtype == torch.int64
    assert tokens.count % 8 == 0
    assert tokens.grid == (tokens.count,)
    assert tokens.positions[0, :, 0].tolist() == list(range(tokens.count))


def test_merges_are_those_of_the_papers_algorithm():
    """Sennrich et al. 2016: a most frequent pair becomes a token (there may be several), until none occurs twice."""
    merges = fit_merges(WORDS, size=400)
    tokens = [bytes([byte]) for byte in range(256)]
    parts = Counter(tuple(bytes([byte]) for byte in (" " + word).encode()) for word in " ".join(WORDS).split())
    for left, right in merges:
        pairs = Counter()
        for word, count in parts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        chosen = tokens[left], tokens[right]
        assert pairs[chosen] == max(pairs.values()) >= 2
        tokens.append(chosen[0] + chosen[1])
        merged = Counter()
        for word, count in parts.items():
            out = list(word)
            for i in reversed(range(len(out) - 1)):
                if tuple(out[i : i + 2]) == chosen:
                    out[i : i + 2] = [tokens[-1]]
            merged[tuple(out)] += count
        parts = merged
    assert {len(word) for word in parts} == {1}  # each word has become a token
    assert fit_merges(WORDS, size=260) == merges[:4]


def test_merges_give_the_same_tokens_as_the_tokenizer_that_found_them():
    merges = fit_merges(WORDS, size=270)
    fitted = tokenizers.Tokenizer(tokenizers.models.BPE())
    fitted.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    fitted.train_from_iterator(WORDS, trainer)
    vocabulary = from_merges(merges)
    for text in ("lowest wide", "new and low", "zebra"):
        ids, _, _ = vocabulary.encode([text], most=50)
        assert [vocabulary._tokenizer.id_to_token(i) for i in ids[0]] == fitted.encode(text).tokens


def test_fitted_and_kept():
    tokenizer = TextTokenizer(vocabulary=300, length=32)
    assert tokenizer.needs_statistics
    tokenizer.estimate([{"text": WORDS}])
    assert not tokenizer.needs_statistics
    assert len(written(tokenizer, "lowest newest")) < len("lowest newest")
    assert "".join(written(tokenizer, "lowest newest")) == " lowest newest"
    other = TextTokenizer(vocabulary=300, length=32)
    assert len(written(other, "lowest")) == 7  # bytes, before
    other.load_state_dict(tokenizer.state_dict())
    for text in TEXTS:
        assert written(other, text) == written(tokenizer, text)
    assert written(copy.deepcopy(other), "lowest") == written(tokenizer, "lowest")
    with pytest.raises(ValueError, match="no text to fit the vocabulary on"):
        TextTokenizer(vocabulary=300).estimate([])


def test_lower_case():
    tokenizer = TextTokenizer(vocabulary=256, lowercase=True)
    assert "".join(written(tokenizer, "A CAT \u00c9")) == " a cat \ufffd\ufffd"


def test_words_and_sentences():
    tokenizer = TextTokenizer(vocabulary=256, length=64)
    tokens = tokenizer({"text": ["It ran. Why?\nSo", "a"]})
    pieces = written(tokenizer, "It ran. Why?\nSo")
    found = {}
    for name, unit in tokens.units.items():
        found[name] = {}
        for piece, number in zip(pieces, unit[0].tolist(), strict=False):
            found[name][number] = found[name].get(number, "") + piece
        assert (unit[~tokens.valid] == -1).all()
    assert list(found["word"].values()) == [" It", " ran", ".", " Why", "?", "\n", "So"]
    assert list(found["sentence"].values()) == [" It ran.", " Why?", "\n", "So"]


def hugging_face(path, kind="wordpiece"):
    """A small tokenizers file with special tokens."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sat", "##s", "."]
    model = tokenizers.models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.add_special_tokens(names[:4])
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))
    return path


def test_a_tokenizers_file(tmp_path):
    file = hugging_face(tmp_path / "tokenizer.json")
    tokenizer = TextTokenizer(file=str(tmp_path), length=16)
    assert tokenizer.size == 9
    assert not tokenizer.needs_statistics
    tokens = tokenizer({"text": ["A cats sat.", "Sat"]})
    assert real(tokens, 0).tolist() == [4, 5, 7, 6, 8]  # neither its padding nor its truncation
    assert tokens.units["word"][0].tolist()[:6] == [0, 1, 1, 2, 3, -1]
    tokens = TextTokenizer(file=str(file), special_tokens=True, length=16)({"text": ["A cats sat."]})
    assert real(tokens, 0).tolist() == [2, 4, 5, 7, 6, 8, 3]
    assert tokens.units["word"][0].tolist()[:8] == [-1, 0, 1, 1, 2, 3, -1, -1]
    short = TextTokenizer(file=str(file), special_tokens=True, length=4)({"text": ["A cats sat."]})
    assert real(short, 0).tolist() == [2, 4, 5, 3]


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"version": "1.0", "model": {"type": "Magic"}}'])
def test_no_tokenizers_file(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"expected a file of Hugging Face tokenizers \(tokenizer.json\)") as error:
        TextTokenizer(file=str(tmp_path / "bad.json"))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none.json"):
        TextTokenizer(file=str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 1}, "length must be at least 2 tokens, got 1"),
        ({"vocabulary": 255}, "vocabulary must be from 256, the bytes, to 1048576, got 255"),
        ({"vocabulary": 2**21}, "got 2097152"),
        ({"special_tokens": True}, "special_tokens means nothing without a file of tokenizers"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TextTokenizer(**settings)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": 1}, r"needs the key 'text', this one has \['image'\]"),
        ({"text": "a string"}, "a list of at least one string, got a str"),
        ({"text": []}, "a list of at least one string"),
        ({"text": ["a", 3]}, "a list of at least one string"),
    ],
)
def test_no_texts(batch, message):
    with pytest.raises(ValueError, match=message):
        TextTokenizer(vocabulary=256)(batch)


def test_strange_texts():
    """Empty, a megabyte, halves of characters, zeros, directions: none raises, and nothing is longer than asked for."""
    tokenizer = TextTokenizer(vocabulary=256, length=40)
    strange = ["", " ", "a" * 2**20, "word " * 2**18, "\ud800\udcff", "\0\x01", "\u202eabc\u0301", "\n" * 50]
    tokens = tokenizer({"text": strange})
    assert tokens.values.shape == (len(strange), 40)
    assert tokens.valid.sum(1).tolist()[2] == 40
    assert int(tokens.valid[0].sum()) == 0
    assert bytes(real(tokens, 4).tolist()) == b" ??"
    empty = tokenizer({"text": [""]})
    assert empty.count == 8
    assert not empty.valid.any()


def test_a_fixed_size():
    assert TextTokenizer(vocabulary=256, length=30, fixed_size=True)({"text": ["a"]}).count == 32
