"""The command line through its real entry point."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from robustrecon import DefendedClassifier, checkpoint
from robustrecon.data import Dataset
from robustrecon.detectors import DETECTORS

SCRIPT = shutil.which("robustrecon", path=Path(sys.executable).parent) or "robustrecon"


def cli(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def pictures(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four clean digits, and a picture of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index, image in enumerate(digits.test.images[:4]):
        paths.append(folder / f"{index}.png")
        Image.fromarray(image[0].numpy()).save(paths[-1])
    paths.append(folder / "noise.png")
    Image.frombytes("L", (28, 28), os.urandom(784)).save(paths[-1])
    return paths


def test_train_bench_and_detect(tmp_path: Path, pictures: list[Path]) -> None:
    """A newcomer's hour in one minute: each command uses what the one before left."""
    trained = cli("train", "--epochs", "12", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "test accuracy 9" in trained.stdout
    assert "images/s" in trained.stderr
    assert "s left" in trained.stderr or trained.stderr.rstrip().endswith(" s")

    benched = cli("bench", "--attack", "pgd", "--eps", "0.2", "--steps", "5", "--n", "50", cwd=tmp_path)
    assert benched.returncode == 0, benched.stderr
    assert len(re.findall("^pgd-5 ", benched.stdout, re.M)) == 2
    assert max(map(len, benched.stdout.splitlines())) <= 100
    for line in benched.stdout.splitlines()[-3:]:
        assert (tmp_path / line).exists(), line
    assert "training" not in benched.stderr, "trained again though there is a model"

    printed = cli("bench", "--eps", "0.2", "--steps", "5", "--n", "50", "--json", cwd=tmp_path)
    found = json.loads(printed.stdout)
    assert [cell["spec"]["detector"] for cell in found["cells"]] == ["label_margin", "global_error"]
    assert [entry["detector"] for entry in found["worst_case"]] == ["label_margin", "global_error"]

    judged = cli("detect", "--detector", "global_error", "--json", *pictures, cwd=tmp_path)
    assert judged.returncode == 1, judged.stderr
    rows = json.loads(judged.stdout)
    assert [row["file"] for row in rows] == [str(path) for path in pictures]
    assert rows[-1]["rejected"]
    assert set(rows[0]) == {"file", "label", "class", "score", "p_value", "rejected"}


@pytest.fixture
def saved(defended: DefendedClassifier, digits: Dataset, tmp_path: Path) -> Path:
    """A calibrated classifier that rejects noise."""
    other = DefendedClassifier(defended.model, "global_error").calibrate(digits.calibration.x, 0.01)
    return other.save(tmp_path / "d.safetensors")


def test_detect_exit_codes_and_table(saved: Path, pictures: list[Path]) -> None:
    clean = cli("detect", "--model", saved, *pictures[:4])
    assert clean.returncode == 0, clean.stderr
    assert [line.split()[-1] for line in clean.stdout.splitlines()] == ["verdict"] + ["accepted"] * 4
    assert cli("detect", "--model", saved, pictures[-1]).returncode == 1
    given = cli("detect", "--model", saved, "--alpha", "0.1", pictures[0])
    assert given.returncode == 2
    assert "is calibrated already" in given.stderr


def test_a_bad_file_leaves_the_others_their_verdicts(saved: Path, pictures: list[Path], tmp_path: Path) -> None:
    files = [pictures[0], tmp_path / "nowhere.png", Path(__file__), pictures[-1]]
    judged = cli("detect", "--model", saved, *files)
    assert judged.returncode == 2, "the worst of accepted, rejected and unreadable"
    words = [line.split()[-1] for line in judged.stdout.splitlines()]
    assert words == ["verdict", "accepted", "unreadable", "unreadable", "rejected"]
    assert [line.split(": ")[1:3] for line in judged.stderr.splitlines()] == [
        ["error", str(file)] for file in files[1:3]
    ]
    rows = json.loads(cli("detect", "--model", saved, "--json", *files).stdout)
    assert [set(row) == {"file", "error"} for row in rows] == [False, True, True, False]


def test_letters_that_a_terminal_does_not_know_are_no_error(
    defended: DefendedClassifier, digits: Dataset, pictures: list[Path], tmp_path: Path
) -> None:
    named = DefendedClassifier(defended.model).calibrate(digits.calibration.x, 0.01)
    named.classes = [f"ö{k}" for k in range(10)]
    path = named.save(tmp_path / "d.safetensors")
    judged = cli("detect", "--model", path, pictures[0], PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert judged.returncode == 0, judged.stderr
    assert "\\xf6" in judged.stdout


def test_an_error_of_the_library_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustrecon import detectors
    from robustrecon.cli import main

    monkeypatch.setattr(detectors, "listing", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["robustrecon", "detectors"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_that_finished_work_is_kept(tmp_path: Path) -> None:
    listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs do not
    process = subprocess.Popen([SCRIPT, "train"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listens)
    while not (tmp_path / "runs/digits/model.safetensors").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; finished work is kept" in errors
    assert "Traceback" not in errors
    judged = cli("detect", "x.png", cwd=tmp_path)
    assert judged.returncode == 2
    assert "is unfinished, at epoch" in judged.stderr


@pytest.mark.slow
def test_bench_goes_on_with_a_default_model_that_was_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen([SCRIPT, "train"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (tmp_path / "runs/digits/model.safetensors").exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    benched = cli("bench", "--attack", "fgsm", "--eps", "0.1", "--n", "20", cwd=tmp_path)
    assert benched.returncode == 0, benched.stderr


def test_version_and_no_command() -> None:
    assert cli("--version").stdout.split(".")[0].isdigit()
    bare = cli()
    assert "Usage" in bare.stdout + bare.stderr
    assert "error" not in bare.stderr


def test_attacks_lists_them_with_citation() -> None:
    listed = cli("attacks")
    assert listed.returncode == 0
    for word in ("fgsm", "pgd", "selective", "Madry", "Goodfellow", "torchattacks, art, own", "stopped-early: a few"):
        assert word in listed.stdout


def test_listings_as_json() -> None:
    listed = json.loads(cli("attacks", "--json").stdout)
    attacks = {attack["name"]: attack for attack in listed["attacks"]}
    assert [engine["norms"] for engine in attacks["fgsm"]["engines"]] == [
        ["linf"],
        ["linf", "l2"],
        ["linf", "l2", "l1"],
    ]
    assert {"name": "alpha", "type": "float | None", "default": None} in attacks["pgd"]["engines"][0]["parameters"]
    known = {name for name, attack in attacks.items() if attack["knows_detector"]}
    assert {"selective", "square-rejecting"} < known
    assert not {"pgd", "square"} & known
    detectors = {detector["name"]: detector for detector in json.loads(cli("detectors", "--json").stdout)}
    assert list(detectors) == list(DETECTORS)
    assert [detectors[name]["requires"] for name in ("msp", "label_margin")] == [[], ["class_energies"]]
    assert detectors["msp"]["needs"] == ["logits alone"]


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    arguments = ("--model", "mine:net", "--eps", "8/255", "--n", "20", "--param", "steps=2", "--format", "csv")
    done = cli("bench", "--alpha", "0.2", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, row = (line.split(",") for line in done.stdout.splitlines())
    found = dict(zip(head, row, strict=True))
    assert (found["model"], found["detector"], found["steps"]) == ("mine:net", "msp", "2")
    assert "Traceback" not in done.stderr


def test_detectors_lists_them_with_citation() -> None:
    listed = cli("detectors")
    assert listed.returncode == 0
    entries = re.split(r"^(?=\w)", listed.stdout, flags=re.M)[1:]
    named = [entry.partition(":")[0] for entry in entries]
    assert named[:-2] == list(DETECTORS)
    assert named[-2].startswith("NAME(LAYER)")
    assert named[-1] == "any_of(NAME,NAME)"
    assert all(re.search(r"\n    .*\b20\d\d\b", entry, flags=re.S) for entry in entries[:-2])


ERRORS = [
    (["trian"], "No such command 'trian'"),
    (["train", "--epochs", "many"], "Invalid value for '--epochs'"),
    (["train", "--epochs", "0"], "epochs: got 0, must be at least 1"),
    (["train", "--batch-size", "0"], "batch_size: got 0"),
    (["train", "--recipe", "papr"], "recipe: unknown name 'papr'; did you mean 'paper'?"),
    (["train", "--data", "mnits"], "data: unknown name 'mnits'; did you mean 'mnist'?"),
    (["train", "--data", "folder:/nowhere"], "data: no folder /nowhere"),
    (["train", "--start", "robust/mnits"], "robust/mnits: no such checkpoint; did you mean 'robust/mnist'?"),
    (["train", "--device", "abacus"], "device: got 'abacus'"),
    (["train", "--precision", "64"], "precision: unknown name '64'"),
    (["train", "--out", "/proc/nowhere/run"], "cannot be written"),
    (["bench", "--atack", "pgd"], "No such option: --atack"),
    (["bench", "--attack", "pdg"], "attack: unknown name 'pdg'"),
    (["bench", "--attack", "math:pi"], "must be module:factory"),
    (["train", "--seed", "99999999999999999999"], "seed: got"),
    (["train", "--device", "meta"], "device: got 'meta'"),
    (["train", "--devices", "0"], "devices, nodes: got 0, 1"),
    (["train", "--data", ""], "data: unknown name ''"),
    (["train", "--data", "folder:"], "must be folder:PATH"),
    (["bench", "--model", "MODEL", "--attack", "pdg"], "attack: unknown name 'pdg'; did you mean 'pgd'?"),
    (["bench", "--model", "MODEL", "--attack", "nowhere:Attack"], "cannot be imported"),
    (["bench", "--model", "MODEL", "--eps", "8"], "eps: got 8.0, must be in [0, 1]"),
    (["bench", "--eps", "8/0"], "Invalid value for '--eps': '8/0' is not a number, or a fraction such as 8/255"),
    (["bench", "--eps", "a/b"], "'a/b' is not a number"),
    (["bench", "--param", "steps"], "param: got 'steps', must be NAME=VALUE"),
    (["bench", "--param", "stesp=3"], "parameter of pgd: unknown name 'stesp'; did you mean 'steps'?"),
    (["bench", "--param", "restarts=few"], "parameter of pgd: restarts: got 'few', must be a whole number"),
    (["bench", "--param", "fgsm.restarts=2"], "param: attack: unknown name 'fgsm' (known: pgd)"),
    (["bench", "--param", "eps=0.1"], "parameters: got eps, which is said beside them"),
    (["bench", "--format", "cvs"], "format: unknown name 'cvs'; did you mean 'csv'?"),
    (["bench", "--format", "csv", "--json"], "format: got csv and --json"),
    (["bench", "--worst-case-only", "--format", "csv"], "--format: got csv, must be table, markdown or json"),
    (["bench", "--model", "math:pi"], "model: math:pi made a float, must make a torch.nn.Module"),
    (["bench", "--model", "math:sqrt"], "model: math:sqrt cannot be made (TypeError"),
    (["bench", "--model", "nowhere:net"], "model: 'nowhere:net' cannot be imported"),
    (["bench", "--model", "MODEL", "--n", "0"], "n: got 0, must be at least 1"),
    (["bench", "--model", "MODEL", "--detector", "margin"], "detector: unknown name 'margin'"),
    (["bench", "--model", "MODEL", "--alpha", "1.5"], "alpha: got 1.5, must be in (0, 1)"),
    (["bench", "--model", "MODEL", "--out", "/proc/nowhere", "--steps", "1", "--n", "2"], "cannot be written"),
    (["bench", "--suite", "nowhere.toml"], "suite: no file nowhere.toml"),
    (["bench", "--workers", "2"], "--workers: needs --suite"),
    (["bench", "--model", "nowhere"], "nowhere: no such checkpoint"),
    (["table", ".", "--format", "latx"], "format: unknown name 'latx'; did you mean 'latex'?"),
    (["table", "nowhere"], "folder: no folder nowhere"),
    (["table", "."], "folder: . holds no results of `robustrecon bench`"),
    (["detect"], "Missing argument 'FILE...'"),
    (["detect", "--model", "MODEL", "nowhere.png"], "nowhere.png: no such file"),
    (["detect", "--model", "MODEL", __file__], "is not an image"),
    (["detect", "--model", "nowhere", "x.png"], "no such checkpoint"),
    (["detect", "--model", "MODEL", "."], ".: a folder without images, must hold files such as .png or .jpg"),
    (["detect", "--model", "MODEL", "--data", "folder:nowhere", "x.png"], "data: no folder"),
    (["detect", "--model", "MODEL", "--data", "mnsit", "x.png"], "data: unknown name 'mnsit'; did you mean 'mnist'?"),
    (["calibrate", "--model", "MODEL"], "Missing option '--out'"),
    (["calibrate", "--model", "MODEL", "--out", "/proc/nowhere/a.safetensors"], "cannot be written"),
    (["calibrate", "--model", "MODEL", "--out", "a.safetensors", "--alpha", "0"], "alpha: got 0.0, must be in (0, 1)"),
    (["bench", "--detector", "any_of(label_margin,cycel)"], "detector: unknown name 'cycel'; did you mean 'cycle'?"),
    (["figures", "--figure", "neighbors"], "figure: unknown name 'neighbors'; did you mean 'neighbours'?"),
    (["figures", "--data", "mnsit"], "data: unknown name 'mnsit'; did you mean 'mnist'?"),
    (["figures", "--model", "nowhere"], "nowhere: no such checkpoint"),
    (["figures", "--model", "MODEL", "--seed", "-1"], "seed: got -1, must be at least 0"),
    (["figures", "--model", "MODEL", "--figure", "neighbours", "--base", "9999"], "base: got [9999], must be one or"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), ERRORS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, through the function that the installed script calls."""
    from robustrecon.cli import main

    monkeypatch.chdir(tmp_path)
    given = [str(model_dir) if word == "MODEL" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["robustrecon", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("robustrecon: error: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("damage", ["truncated", "pickle"])
def test_damaged_checkpoints(model_dir: Path, tmp_path: Path, damage: str) -> None:
    import torch

    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    path = folder / checkpoint.MODEL_FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save({}, path)
    done = cli("bench", "--model", folder)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("robustrecon: error: ")
    assert str(path) in line


def test_missing_data_is_one_line(model_dir: Path, tmp_path: Path) -> None:
    done = cli("train", "--data", "cifar10", "--data-dir", tmp_path, cwd=tmp_path, https_proxy="http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("robustrecon: error: data_dir: cifar10 is not in")
    assert "Traceback" not in done.stderr
