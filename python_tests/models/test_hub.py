"""Checkpoints by their hub ids: huggingface_hub asks a small hub on this machine, and later its own cache alone."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
from tiny_checkpoints import write_llada

from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.run import generate
from tad_ext.models.hub import _fetched, checkpoint_folder, hub_name, hub_note
from tad_ext.models.identity import model_fingerprint, model_identity
from tad_ext.models.loading import load_model, load_tokenizer
from tad_ext.models.lora import BASE_FILE, CONFIG_FILE, add_lora, load_adapter, load_merged, save_adapter
from tad_ext.settings import made

COMMIT, OLDER = "c" * 40, "0" * 40
REVISIONS = {"main": COMMIT, "v1": OLDER, COMMIT: COMMIT, OLDER: OLDER}


class Hub:
    """Repositories by their ids, each a folder, at two commits that hold the same; and what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.asked.append(path)
        parts = unquote(path).strip("/").split("/")
        of_api = parts[:2] == ["api", "models"]
        owner, name, kind, revision, *rest = (parts[2:] if of_api else parts) + [""] * 4
        folder, commit = self.repositories.get(f"{owner}/{name}"), REVISIONS.get(revision)
        if folder is None or commit is None:
            return 404, {"X-Error-Code": "RepoNotFound" if folder is None else "RevisionNotFound"}, b"{}"
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        if kind == "revision":
            return 200, {}, json.dumps({"id": f"{owner}/{name}", "sha": commit, "siblings": []}).encode()
        if kind == "tree":
            entries = [
                {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": file.name}
                for file in files
            ]
            return 200, {}, json.dumps(entries).encode()
        content = folder.joinpath(*filter(None, rest)).read_bytes()
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{"-".join(filter(None, rest))}"'}, content


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One with org/model, and an empty cache."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(urlsplit(self.path).path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {"ENDPOINT": endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.chdir(tmp_path)
    _fetched.cache_clear()
    folder = write_llada(tmp_path / "repositories" / "model", layers=1, width=32).folder
    for name in ("modeling_llada.py", "pytorch_model.bin", "original/weights.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not for us")
    hub.repositories["org/model"] = folder
    yield hub
    server.shutdown()
    server.server_close()
    _fetched.cache_clear()


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process without a network."""
    _fetched.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_an_id_is_as_good_as_the_folder(hub, capsys):
    assert model_identity("org/model") == model_identity(hub.repositories["org/model"])
    assert capsys.readouterr().err.splitlines()[-1] == f"model org/model of the hub: commit {COMMIT}"
    folder = checkpoint_folder("org/model")
    assert hub_name(folder) == f"org/model@{COMMIT}"
    assert hub_note("org/model") == {"hub": f"org/model@{COMMIT}"}
    model, tokenizer = load_model("org/model"), load_tokenizer("org/model")
    assert Path(model.config.name_or_path) == folder
    assert len(tokenizer) > 300
    assert "commit" not in capsys.readouterr().err  # once is enough


def test_nothing_is_fetched_that_could_run(hub):
    names = {file.name for file in checkpoint_folder("org/model").rglob("*")}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert not [path for path in hub.asked if path.endswith((".py", ".bin")) or "original" in path]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub):
    assert hub_name(checkpoint_folder("org/model@v1")) == f"org/model@{OLDER}"
    assert hub_name(checkpoint_folder(f"org/model@{OLDER}")) == f"org/model@{OLDER}"
    with pytest.raises(
        ValueError, match=r"model is 'org/model@v9': no folder has this name, and .* has no revision 'v9'"
    ):
        load_model("org/model@v9")


def test_the_cache_serves_without_a_network(hub, monkeypatch):
    expected = model_fingerprint("org/model")
    offline(monkeypatch)
    hub.asked.clear()
    assert model_fingerprint("org/model") == expected
    assert hub.asked == []
    with pytest.raises(
        ValueError, match=r"model is 'org/other': .* is not in the cache, and the hub cannot be asked: "
    ):
        load_model("org/other")


def test_a_folder_wins(hub, tmp_path):
    shutil.copytree(hub.repositories["org/model"], tmp_path / "org" / "model")
    assert checkpoint_folder("org/model") == Path("org/model")
    assert hub_note("org/model") == {}
    load_model("org/model")
    # What is next to it is a mistyped folder rather than somebody's repository.
    with pytest.raises(ValueError, match="model must be a checkpoint folder, got path 'org/modle', which is no folder"):
        load_model("org/modle")
    assert hub.asked == []


@pytest.mark.parametrize(
    "path", ["nowhere", "./org/model", "/org/model", "../org/model", "a/b/c", "org/", "org/model/"]
)
def test_what_is_no_id_is_a_path(hub, path):
    with pytest.raises(ValueError, match=r"model must be a checkpoint folder, got path .*, which is no folder, nor"):
        load_model(path)
    assert hub.asked == []


def test_what_is_wrong_with_an_id_is_said(hub, tmp_path):
    with pytest.raises(
        ValueError, match=r"model is 'org/missing': no folder has this name, .* is not there, or private"
    ):
        load_tokenizer("org/missing")
    with pytest.raises(ValueError, match=r"model is 'org/a--b': .* cannot have it"):
        load_tokenizer("org/a--b")
    hub.repositories["org/pickled"] = tmp_path / "pickled"
    shutil.copytree(hub.repositories["org/model"], tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model is 'org/pickled': .* holds no weights as safetensors"):
        load_model("org/pickled")


def test_an_adapter_is_of_the_hub_as_well_and_names_its_models_commit(hub, tmp_path):
    save_adapter(add_lora(load_model("org/model"), rank=2, alpha=2), tmp_path / "adapter")
    noted, config = (json.loads((tmp_path / "adapter" / name).read_text()) for name in (BASE_FILE, CONFIG_FILE))
    assert noted["hub"] == f"org/model@{COMMIT}"
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/model", COMMIT)
    hub.repositories["org/adapter"] = tmp_path / "adapter"
    load_merged("org/model", "org/adapter@v1")
    load_adapter(load_model(hub.repositories["org/model"]), "org/adapter")  # the same model, wherever it is from
    with pytest.raises(ValueError, match=r"adapter is 'org/nothing': .* is not there"):
        load_merged("org/model", "org/nothing")


def test_a_commands_output_names_the_commit_and_goes_on_with_the_same_weights(hub, tmp_path):
    values = {
        "model": "org/model",
        "prompt": "Anna",
        "output": str(tmp_path / "out"),
        "gen_length": 8,
        "block_length": 8,
    }
    first = generate(made(GenerateConfig, values))
    assert (
        json.loads((tmp_path / "out" / "settings.json").read_text())["model_identity"]["hub"] == f"org/model@{COMMIT}"
    )
    for model in ("org/model@v1", str(hub.repositories["org/model"])):
        assert generate(made(GenerateConfig, values | {"model": model})) == first
