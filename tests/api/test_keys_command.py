"""`percipio keys`: what it writes is what the API reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pipeline.api.keys import find_caller, hash_key, read_grants
from workers.main import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["keys", *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_new_key_is_shown_once_and_kept_as_its_hash(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "new", "read", "--sources", "cam-*", "--file", str(path))
    key = out.strip()
    caller = find_caller(read_grants(path.read_text(), "keys"), hash_key(key))

    assert code == 0
    assert key.startswith("pk_")
    assert len(key) > 40
    assert key not in path.read_text()
    assert caller is not None
    assert (caller.may("read", "cam-1"), caller.may("read", "robot-7")) == (True, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_list_shows_no_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [
        json.loads(run(capsys, "new", role, "--json", "--file", str(path))[1])["key"]
        for role in ("publish", "admin")
    ]
    _, out, _ = run(capsys, "list", "--json", "--file", str(path))
    rows = [json.loads(line) for line in out.splitlines()]

    assert [row["role"] for row in rows] == ["publish", "admin"]
    assert [row["hash"] for row in rows] == [hash_key(key) for key in keys]
    assert not any(key in out for key in keys)


@pytest.mark.parametrize("by", ["key", "hash"])
def test_revoking_takes_one_key_and_leaves_the_rest(
    by: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("# the page's\n")
    keys = [run(capsys, "new", "read", "--file", str(path))[1].strip() for _ in range(3)]
    name = keys[1] if by == "key" else hash_key(keys[1])[:10]

    code, out, _ = run(capsys, "revoke", name, "--file", str(path))
    left = [grant.key_hash for grant in read_grants(path.read_text(), "keys")]

    assert code == 0
    assert keys[1] not in out
    assert left == [hash_key(keys[0]), hash_key(keys[2])]
    assert path.read_text().startswith("# the page's\n")


def test_a_file_keeps_who_may_read_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An API of another user must be able to read it again, or a revoked key would live on."""
    path.write_text("")
    path.chmod(0o640)

    run(capsys, "new", "read", "--file", str(path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("list",), "PERCIPIO_API_KEYS_FILE"),
        (("list", "--file", "/nowhere/keys"), "/nowhere/keys"),
        (("new", "read", "--sources", "a/b"), "source-pattern"),
        (("revoke", "abc"), "8"),
        (("revoke", "0" * 12), "0 keys"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], says: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("# none\n")
    with_file = words if words == ("list",) or "--file" in words else (*words, "--file", str(path))

    code, _, err = run(capsys, *with_file)

    assert code == 2
    assert says in err
    assert path.read_text() == "# none\n"
