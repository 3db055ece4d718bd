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
