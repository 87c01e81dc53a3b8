"""Encoders of transformers on all tokens, and on a part of them."""

from functools import partial

import pytest
import torch

from jepa_lightning.encoders import SinCosPositions, TokenSpec
from modalities.text import HFTextEncoder, Text

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 300,
    "max_position_embeddings": 70,
}  # fmt: skip
MODELS = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES, pad_token_id=1),
    "electra": lambda: transformers.ElectraConfig(**SIZES, embedding_size=16),
}
TEXTS = ["A cat sat on the mat.", "Why?"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, build in MODELS.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp("models") / name
        transformers.AutoModel.from_config(build()).save_pretrained(found[name])
    return found


def make(folder, **settings):
    return Text(vocabulary=256, length=64, encoder=partial(HFTextEncoder, name=str(folder), **settings))


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_all_tokens(folders, name):
    text = make(folders[name])
    text.encoder.eval()
    tokens = text.tokenizer({"text": TEXTS})
    found = text.encoder(tokens)
    model = transformers.AutoModel.from_pretrained(folders[name]).eval()
    given = tokens.values
    if name == "roberta":  # which counts positions of what is not padding
        given = given.masked_fill(~tokens.valid, 1)
    expected = model(input_ids=given, attention_mask=tokens.valid.long(), output_hidden_states=True)
    real = tokens.valid
    torch.testing.assert_close(found[real], expected.last_hidden_state[real], rtol=0, atol=1e-5)
    layers = text.encoder(tokens, layers=(0, -1))
    torch.testing.assert_close(layers[:, :, 1], found)
    torch.testing.assert_close(layers[:, :, 0][real], expected.hidden_states[1][real], rtol=0, atol=1e-5)
    assert text.encoder.depth == 2


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_a_part_of_the_tokens(folders, name):
    """Those that are left out change nothing, and the others keep their positions."""
    text = make(folders[name])
    text.encoder.eval()
    tokens = text.tokenizer({"text": TEXTS[:1] * 2})
    keep = torch.tensor([[0, 3, 7], [0, 3, 7]])
    found = text.encoder(tokens, keep)
    assert found.shape == (2, 3, 32)
    tokens.values[1, 1] += 5
    assert torch.equal(text.encoder(tokens, keep), found)
    tokens.values[1, 3] += 5
    assert not torch.equal(text.encoder(tokens, keep)[1], found[1])
    other = text.encoder(tokens, torch.tensor([[0, 3, 9], [0, 3, 9]]))
    assert (other[0, 0] - found[0, 0]).abs().max() > 1e-4
    valid = torch.tensor([[True, True, True], [False, False, False]])
    assert torch.isfinite(text.encoder(tokens, keep, valid)).all()


def test_without_weights(folders):
    drawn = make(folders["bert"], pretrained=False, options={"num_hidden_layers": 1})
    assert drawn.encoder.depth == 1


def test_mistakes(folders, tmp_path):
    with pytest.raises(ValueError, match="expected a text encoder of transformers, cannot build nowhere"):
        make("nowhere")
    transformers.T5Config(d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16).save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match=r"takes position_ids, got T5Model, which cannot run on a part of a text"):
        make(tmp_path / "t5", pretrained=False)
    with pytest.raises(ValueError, match=r"the tokenizer has 400 tokens and .*bert has 300: set model"):
        Text(vocabulary=400, encoder=partial(HFTextEncoder, name=str(folders["bert"])))
    encoder = make(folders["roberta"]).encoder
    tokens = Text(vocabulary=256, length=80, fixed_size=True).tokenizer({"text": TEXTS})
    with pytest.raises(ValueError, match="the model has 68 positions, got 80 tokens"):
        encoder(tokens)
    spec = TokenSpec(shape=(3,), grid=None, positions=SinCosPositions)
    other = HFTextEncoder(spec, name=str(folders["bert"]))
    with pytest.raises(ValueError, match="for the modality Text"):
        other(type(tokens)(values=torch.zeros(1, 4, 3), positions=torch.zeros(1, 4, 1)))
