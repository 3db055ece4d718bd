import pytest


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A random Qwen3 with a tokenizer, on disk: what veRL's model configuration wants to see."""
    from contextrl.verl_ext.settings import WarmupConfig
    from contextrl.verl_ext.tiny import build_model, save, train_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["def f(x):\n    return x + 1\n", "A or B? 0123456789"], 1000)
    config = WarmupConfig(hidden_size=64, layers=2)
    model = build_model(config, tokenizer, max_context_tokens=512, seed=0)
    model.resize_token_embeddings(1000)
    save(model, tokenizer, folder)
    return folder


@pytest.fixture
def small_qwen3():
    """A random Qwen3 in memory, of 50 tokens and heads of 8; no tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def make(*, layers=2, kv_heads=4):
        torch.manual_seed(0)
        return Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=50,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=kv_heads,
                head_dim=8,
            )
        )

    return make


def make_vision_model(folder, kind):
    from contextrl.verl_ext.settings_vl import TinyVL, TinyVLConfig
    from contextrl.verl_ext.tiny_vl import build_model, build_processor, build_tokenizer, save_vl

    config = TinyVLConfig(
        kind=TinyVL(kind), hidden_size=48, layers=2, heads=4, vision_hidden_size=32, patch_size=7
    )
    words = (
        "what is the colour of the disc? red blue green yellow <think> </think> <answer> </answer>"
    )
    tokenizer = build_tokenizer([words] * 20, 600)
    save_vl(build_model(config, tokenizer), build_processor(config, tokenizer), folder)
    return folder


@pytest.fixture(scope="session")
def random_qwen25_vl(tmp_path_factory):
    return make_vision_model(tmp_path_factory.mktemp("qwen2.5-vl"), "qwen2.5-vl")


@pytest.fixture(scope="session")
def random_qwen3_vl(tmp_path_factory):
    return make_vision_model(tmp_path_factory.mktemp("qwen3-vl"), "qwen3-vl")


@pytest.fixture(scope="session")
def disc():
    """Encoded images of one coloured disc; the size is (width, height)."""
    import io

    from PIL import Image, ImageDraw

    def draw(colour, size=(56, 56)):
        image = Image.new("RGB", size, "white")
        width, height = size
        ImageDraw.Draw(image).ellipse([width / 4, height / 4, width * 0.75, height * 0.75], colour)
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    return draw
