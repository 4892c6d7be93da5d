"""What is typed wrong is one line with the remedy and exit code 2, before anything is started."""

from collections.abc import Callable

import pytest

from fleet.demo.__main__ import main as demo
from fleet.stack.__main__ import main as up


@pytest.mark.parametrize(
    ("program", "arguments", "remedy"),
    [
        (demo, ["--count", "0"], "demo: usage: argument --count: '0' is not a whole number above zero"),
        (demo, ["--count", "-3"], "demo: usage: argument --count: '-3' is not a whole number above zero"),
        (demo, ["--count", "ten"], "demo: usage: argument --count: 'ten' is not a whole number above zero"),
        (demo, ["--count", "9" * 40], "demo: usage: argument --count: "),
        (demo, ["--opening-balance", "1e9"], "demo: usage: argument --opening-balance: amount '1e9' is not a decimal"),
        (demo, ["--fly"], "demo: usage: unrecognized arguments: --fly"),
        (demo, ["--file"], "demo: usage: argument --file: expected one argument"),
        (demo, ["--file", "/absent/payments.csv"], "demo: file_refused: /absent/payments.csv: No such file"),
        (demo, ["--file", "/"], "demo: file_refused: /: Is a directory"),
        (demo, ["--file", "/dev/null"], "demo: file_refused: the file is empty"),
        (up, ["--port", "65536"], "up: usage: argument --port: '65536' is no port"),
        (up, ["--port", "-1"], "up: usage: argument --port: '-1' is no port"),
        (up, ["--timing", "fast"], "up: usage: argument --timing: invalid choice: 'fast'"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(
    program: Callable[[], int],
    arguments: list[str],
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    try:
        code: object = program()
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    assert (code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(remedy)
