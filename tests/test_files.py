"""Files are replaced as a whole, or not at all."""

import os

import pytest

from kerassl.files import check_named, replace_folder, replacing
from tests.backends import once

pytestmark = once


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_replacement_is_undone(
    failing, error, tmp_path, monkeypatch
):
    new, folder = tmp_path / "new", tmp_path / "folder"
    for path in (new, folder):
        path.mkdir()
        (path / "file.txt").write_text(path.name)
    rename, calls = os.rename, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise error
        rename(source, target)

    with monkeypatch.context() as now, pytest.raises(error):
        now.setattr(os, "rename", interrupted)
        replace_folder(new, folder)
    assert sorted(tmp_path.iterdir()) == [folder, new]
    assert (folder / "file.txt").read_text() == "folder"
    (folder / ".hidden").touch()
    replace_folder(new, folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "file.txt").read_text() == "new"
    assert (folder / ".hidden").exists()


@pytest.mark.parametrize("path", [".", "..", "a/.."])
def test_a_folder_is_replaced_by_its_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Go to another folder, and give /"):
        check_named(tmp_path.__class__(path))
    check_named(tmp_path)
