"""A training's folder in the store: whole after a kill between any two writes, and one writer."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands import train as commands
from alignment.errors import ConfigError
from alignment.learning import remote
from alignment.learning.remote import NCCNET, PARTS, read_trained, training_folder
from inference.training_files import CHECKPOINT, EVENTS, LOG, MODEL
from storage.errors import ConflictError, CorruptError, MissingError, StorageError
from storage.store import join, list_names, read_bytes, replace_bytes
from tests.alignment.learning.hard_stack import SETTINGS, write_hard_stack

LOOKS = 3
WRITES = ("create_bytes", "compare_and_swap_json", "replace_bytes", "delete")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def bests(look: int) -> int:
    """Return the look whose network is the best so far: the last makes no better one."""
    return min(look, LOOKS - 1)


def progress(look: int) -> dict:
    return {
        "step": look, "best": float(bests(look)), "best_step": bests(look), "raw": 0.1,
        "loss": float("nan") if look == 0 else 0.5, "has_ended": look == LOOKS,
    }  # fmt: skip


def train(uri: str) -> None:
    """Do what a trainer does with its folder: go on from the checkpoint, keep every look."""
    with training_folder(uri) as folder:
        pairs, checkpoint = folder.path / "pairs.json", folder.path / CHECKPOINT
        if not pairs.exists():
            pairs.write_bytes(b"pairs")
        folder.keep()
        begun = int(checkpoint.read_text()) if checkpoint.exists() else 0
        if checkpoint.exists():
            assert (folder.path / MODEL).read_text() == f"network {bests(begun)}"
        for look in range(begun, LOOKS + 1):
            (folder.path / MODEL).write_text(f"network {bests(look)}")
            (folder.path / LOG).write_text("".join(f"{n}\n" for n in range(look + 1)))
            (folder.path / EVENTS).write_text(f"{look} events")
            checkpoint.write_text(str(look))
            folder.keep(progress(look))


def content(uri: str) -> dict[str, bytes]:
    names = [*list_names(uri), *(f"{PARTS}/{name}" for name in list_names(join(uri, PARTS)))]
    return {n: read_bytes(join(uri, n)) for n in names if n not in (PARTS, remote.POINTER)}


@pytest.fixture(autouse=True)
def quick():
    """Only the loss of power would tell that files do not reach the disk at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.durable.os.fsync", lambda _: None)
        yield


@pytest.fixture
def die_at(monkeypatch):
    """Return a function that lets the n-th write be the last."""

    def die_at(n: int) -> None:
        count = iter(range(1, 10_000))

        def dying(write):
            def die(*arguments):
                answer = write(*arguments)
                if next(count) == n:
                    raise Killed
                return answer

            return die

        for name in WRITES:
            monkeypatch.setattr(remote, name, dying(getattr(remote, name)))

    yield die_at
    monkeypatch.undo()


def test_a_kill_at_any_write_leaves_a_whole_look_and_training_ends_alike(
    tmp_path, die_at, monkeypatch
):
    train(f"{tmp_path.as_uri()}/calm")
    calm, kills = content(f"{tmp_path.as_uri()}/calm"), 0
    assert set(calm) >= {"pairs.json", *NCCNET.shown}
    assert len([name for name in calm if name.startswith(PARTS)]) == len(NCCNET.kept)
    for n in range(1, 1_000):
        uri = f"{tmp_path.as_uri()}/{n}"
        die_at(n)
        try:
            train(uri)
        except Killed:
            kills += 1
        else:
            break
        monkeypatch.undo()
        train(uri)
        assert content(uri) == calm, f"killed after write {n}"
        assert read_trained(uri)["has_ended"]
    assert kills > 20


def test_of_two_trainings_in_one_folder_one_ends(tmp_path):
    uri = tmp_path.as_uri()
    with training_folder(uri) as slow:
        (slow.path / "pairs.json").write_bytes(b"pairs")
        slow.keep()
        train(uri)
        done = content(uri)
        (slow.path / CHECKPOINT).write_text("0")
        with pytest.raises(ConflictError, match="another training writes to"):
            slow.keep(progress(0))
    assert {n: content(uri)[n] for n in done} == done, "what the other left is untouched"


def test_a_training_keeps_the_threads_with_which_it_was_begun(tmp_path, monkeypatch):
    seen = []

    def train_nccnet(_stack, path, *_, keep, **__):
        seen.append(os.environ[commands.THREADS])
        (path / "pairs.json").write_bytes(b"pairs")
        (path / CHECKPOINT).write_bytes(b"1")
        keep(progress(LOOKS))
        return SimpleNamespace(has_ended=True)

    monkeypatch.setattr(commands, "train_nccnet", train_nccnet)
    for own in ("3", "8"):
        monkeypatch.setenv(commands.THREADS, own)
        commands.train_at("stack", tmp_path.as_uri(), None, None, quiet=True)
        assert os.environ[commands.THREADS] == own
    assert seen == ["3", "3"]
    monkeypatch.delenv(commands.THREADS)
    commands.train_at("stack", f"{tmp_path.as_uri()}/other", None, None, quiet=True)
    assert seen[2:] == [str(len(os.sched_getaffinity(0)))]
    assert commands.THREADS not in os.environ


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path):
    uri = tmp_path.as_uri()
    train(uri)
    for name in list_names(join(uri, PARTS)):
        replace_bytes(join(uri, PARTS, name), b"x")
    with pytest.raises(CorruptError, match=r"is damaged.*Delete .*training\.json to train anew"):
        train(uri)


def test_a_pointer_may_not_lead_elsewhere(tmp_path):
    uri = tmp_path.as_uri()
    (tmp_path / "secret").write_bytes(b"0")
    for files in ({CHECKPOINT: "../secret"}, {CHECKPOINT: "/etc/passwd"}, {"../x": "y"}, 7, None):
        replace_bytes(join(uri, remote.POINTER), json.dumps({"files": files}).encode())
        if files == {"../x": "y"}:
            with training_folder(uri) as folder:
                assert [path.name for path in folder.path.iterdir()] == []
        else:
            with pytest.raises(StorageError), training_folder(uri):
                pass


def test_a_part_that_another_training_replaced_meanwhile_is_looked_for_again(tmp_path, monkeypatch):
    uri = tmp_path.as_uri()
    train(uri)
    real, answers = remote.read_json_tagged, [({"files": {CHECKPOINT: "0" * 64}}, "old")]
    monkeypatch.setattr(
        remote, "read_json_tagged", lambda at: answers.pop() if answers else real(at)
    )
    with training_folder(uri) as folder:
        assert (folder.path / CHECKPOINT).read_text() == str(LOOKS)
    monkeypatch.setattr(remote, "read_json_tagged", lambda _: ({"files": {MODEL: "0" * 64}}, "x"))
    with pytest.raises(MissingError), training_folder(uri):
        pass


def test_errors_name_the_folder_that_the_user_gave(tmp_path):
    uri = tmp_path.as_uri()
    with pytest.raises(ConfigError, match=rf"^{uri}/pairs\.json was"), training_folder(uri) as own:
        raise ConfigError(f"{own.path}/pairs.json was made of another stack")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_the_command_trains_into_a_uri_and_goes_on_there_with_the_same_bytes(tmp_path, monkeypatch):
    stack, uri = write_hard_stack(tmp_path / "raw.tif"), f"{tmp_path.as_uri()}/stored"
    config = tmp_path / "config.yaml"
    quick = SETTINGS["training"] | {"steps": 6, "check_every": 2}
    config.write_text(json.dumps(SETTINGS | {"training": quick}))

    def command(folder: str):
        words = ["train", "nccnet", stack, folder, "--config", str(config), "--json"]
        return CliRunner().invoke(app, words)

    here = command(str(tmp_path / "here"))
    assert here.exit_code == 0, here.output
    real, swaps = remote.compare_and_swap_json, []

    def die_at_the_second(*arguments):
        swaps.append(real(*arguments))
        if len(swaps) == 2:
            raise Killed
        return swaps[-1]

    monkeypatch.setattr(remote, "compare_and_swap_json", die_at_the_second)
    with pytest.raises(Killed):
        CliRunner().invoke(
            app, ["train", "nccnet", stack, uri, "-c", str(config)], catch_exceptions=False
        )
    there = command(uri)
    assert there.exit_code == 0, there.output
    assert len(swaps) == 4, "looks after steps 0, 2, 4 and 6, each kept once"
    expected = json.loads(here.stdout) | {"model": f"{uri}/{MODEL}"}
    assert json.loads(there.stdout) == expected
    assert read_trained(uri)["sha256"] == expected["sha256"]
    stored = {read_bytes(join(uri, PARTS, name)) for name in list_names(join(uri, PARTS))}
    assert stored == {(tmp_path / "here" / name).read_bytes() for name in NCCNET.kept}
